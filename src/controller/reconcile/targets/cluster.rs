//! The writes of this module to Kubernetes, and its few reads that bypass the watches.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::controller::{cluster::deadline::with_deadline, runtime::write_permit::WriteClient};
use albatross_core::{
    api::{
        crd::{self, TargetGroupBindingStatus, target_group_binding::TargetType},
        kubernetes as wire,
    },
    model::{ObjectName, names, tags::BINDING_FINALIZER},
    record::{CHECKPOINT, FOREIGN_CHECKPOINTS},
    snapshot::{EndpointSlice, PodReference, Readiness, Service, TargetGroupBinding},
};

use albatross_core::targets::{
    readiness::Change,
    shared::{BINDING_UID, TARGETS_KEY},
};

/// The number of times that a write is retried after another client's change.
const TRIES: u32 = 5;

/// A request to the API server that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The object is deleted, or another one has its name.
    #[error("the object is gone")]
    Gone,
    /// Other clients keep changing the object.
    #[error("other clients keep changing the object")]
    Contended,
    /// The API server gave no answer, or no clear one: a later attempt may succeed.
    #[error("{0}")]
    Unavailable(String),
    /// Any other error.
    #[error("{0}")]
    Refused(String),
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 404 => Self::Gone,
            kube::Error::Api(status) if status.code == 409 => Self::Contended,
            kube::Error::Api(status) if status.code >= 500 || status.code == 429 => {
                Self::Unavailable(status.message.clone())
            }
            kube::Error::Api(status) => Self::Refused(status.message.clone()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// The requests of this module to the API server.
pub trait Cluster: Send + Sync + 'static {
    /// Adds the controller's finalizer to a binding that lacks it, or removes it from one that has it.
    fn set_finalizer(
        &self,
        binding: &TargetGroupBinding,
        present: bool,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;
    /// Writes a binding's checkpoint, or removes it.
    fn write_checkpoint(
        &self,
        binding: &TargetGroupBinding,
        checkpoint: Option<&str>,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;
    /// Writes the target type of a binding without one, which the webhook for readiness gates reads.
    fn write_target_type(
        &self,
        binding: &TargetGroupBinding,
        target_type: TargetType,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;
    /// Reads the text of the record of the targets that are a binding's own; `None` if there is none.
    fn own_targets(
        &self,
        binding: &TargetGroupBinding,
    ) -> impl Future<Output = Result<Option<String>, ClusterError>> + Send;
    /// Writes that record whole, or creates it.
    fn write_own_targets(
        &self,
        binding: &TargetGroupBinding,
        text: &str,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;
    /// Deletes the record of the binding of this name.
    fn delete_own_targets(&self, binding: &ObjectName) -> impl Future<Output = Result<(), ClusterError>> + Send;
    /// Writes a binding's status.
    fn write_status(
        &self,
        binding: &TargetGroupBinding,
        status: &TargetGroupBindingStatus,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;
    /// Writes a condition, with this time, to the status of a pod.
    fn write_condition(&self, change: &Change, now: Timestamp)
    -> impl Future<Output = Result<(), ClusterError>> + Send;
    /// Reads a Service from the API server, which proves that it is deleted.
    fn service(&self, name: &ObjectName) -> impl Future<Output = Result<Option<Service>, ClusterError>> + Send;
    /// Reads the EndpointSlices of a Service from the API server, which proves that it has no endpoints.
    fn endpoint_slices(
        &self,
        service: &ObjectName,
    ) -> impl Future<Output = Result<Vec<EndpointSlice>, ClusterError>> + Send;
    /// Returns true if the API server has the pod that an endpoint of this namespace names.
    fn has_pod(&self, namespace: &str, pod: &PodReference) -> impl Future<Output = Result<bool, ClusterError>> + Send;
    /// Returns true if the API server has any node.
    fn has_nodes(&self) -> impl Future<Output = Result<bool, ClusterError>> + Send;
    /// Returns true if the API server has any TargetGroupBinding.
    fn has_bindings(&self) -> impl Future<Output = Result<bool, ClusterError>> + Send;
}

/// The implementation with the API server.
pub struct LiveCluster {
    client: Client,
}

impl LiveCluster {
    /// Creates an implementation that uses this client.
    #[must_use]
    pub fn new(client: &WriteClient) -> Self {
        Self { client: client.client() }
    }

    fn bindings(&self, name: &ObjectName) -> Api<crd::TargetGroupBinding> {
        Api::namespaced(self.client.clone(), &name.namespace)
    }

    fn config_maps(&self, binding: &ObjectName) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &binding.namespace)
    }
}

/// Returns the desired finalizers; `None` if the object has them already.
fn finalizers(current: &[String], present: bool) -> Option<Vec<String>> {
    let is_there = current.iter().any(|finalizer| finalizer == BINDING_FINALIZER);
    (is_there != present).then(|| {
        let others = current.iter().filter(|finalizer| *finalizer != BINDING_FINALIZER).cloned();
        others.chain(present.then(|| BINDING_FINALIZER.to_owned())).collect()
    })
}

/// Returns a strategic merge patch that changes only this condition.
fn condition_patch(change: &Change, now: Timestamp) -> serde_json::Value {
    let Change { uid, condition, state, turns, .. } = change;
    let status = match state.status {
        Readiness::Ready => "True",
        Readiness::NotReady => "False",
        Readiness::Unknown => "Unknown",
    };
    // `null` removes the previous text.
    let text = |text: &str| if text.is_empty() { serde_json::Value::Null } else { text.into() };
    let mut written = json!({
        "type": condition, "status": status, "reason": text(&state.reason), "message": text(&state.message),
    });
    if let Some(written) = written.as_object_mut().filter(|_| *turns) {
        written.insert("lastTransitionTime".to_owned(), json!(Time(now)));
    }
    json!({ "metadata": { "uid": uid }, "status": { "conditions": [written] } })
}

impl Cluster for LiveCluster {
    async fn set_finalizer(&self, binding: &TargetGroupBinding, present: bool) -> Result<(), ClusterError> {
        let api = self.bindings(&binding.name);
        let (mut current, mut version) = (binding.finalizers.clone(), binding.resource_version.clone());
        for _ in 0..TRIES {
            let Some(finalizers) = finalizers(&current, present) else { return Ok(()) };
            // The version makes the API server reject the patch if the list has changed in the meantime.
            let patch = json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } });
            match with_deadline(api.patch(&binding.name.name, &PatchParams::default(), &Patch::Merge(patch))).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
            let fresh = TargetGroupBinding::from(with_deadline(api.get(&binding.name.name)).await?);
            if fresh.uid != binding.uid || (present && fresh.deleting) {
                return Err(ClusterError::Gone);
            }
            (current, version) = (fresh.finalizers, fresh.resource_version);
        }
        Err(ClusterError::Contended)
    }

    async fn write_checkpoint(
        &self,
        binding: &TargetGroupBinding,
        checkpoint: Option<&str>,
    ) -> Result<(), ClusterError> {
        // The UID makes the API server reject the patch for another object with the same name.
        let mut annotations = BTreeMap::from([(CHECKPOINT, checkpoint)]);
        if binding.foreign_checkpoint && checkpoint.is_none() {
            annotations.extend(FOREIGN_CHECKPOINTS.map(|annotation| (annotation, None)));
        }
        let patch = json!({ "metadata": { "uid": binding.uid, "annotations": annotations } });
        let api = self.bindings(&binding.name);
        with_deadline(api.patch(&binding.name.name, &PatchParams::default(), &Patch::Merge(patch))).await?;
        Ok(())
    }

    async fn write_target_type(
        &self,
        binding: &TargetGroupBinding,
        target_type: TargetType,
    ) -> Result<(), ClusterError> {
        // The version makes the API server reject the patch if another client has changed the binding in the meantime.
        let metadata = json!({ "uid": binding.uid, "resourceVersion": binding.resource_version });
        let patch = json!({ "metadata": metadata, "spec": { "targetType": target_type } });
        let api = self.bindings(&binding.name);
        with_deadline(api.patch(&binding.name.name, &PatchParams::default(), &Patch::Merge(patch))).await?;
        Ok(())
    }

    async fn own_targets(&self, binding: &TargetGroupBinding) -> Result<Option<String>, ClusterError> {
        let api = self.config_maps(&binding.name);
        let found = with_deadline(api.get_opt(&names::own_targets(&binding.name.name))).await?;
        let of_binding = |found: &ConfigMap| {
            let uid = found.metadata.annotations.as_ref().and_then(|annotations| annotations.get(BINDING_UID));
            uid.is_none_or(|uid| *uid == binding.uid)
        };
        let data = found.filter(of_binding).and_then(|found| found.data);
        Ok(data.and_then(|mut data| data.remove(TARGETS_KEY)))
    }

    async fn write_own_targets(&self, binding: &TargetGroupBinding, text: &str) -> Result<(), ClusterError> {
        let api = self.config_maps(&binding.name);
        let name = names::own_targets(&binding.name.name);
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                annotations: Some(BTreeMap::from([(BINDING_UID.to_owned(), binding.uid.clone())])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(TARGETS_KEY.to_owned(), text.to_owned())])),
            ..ConfigMap::default()
        };
        match with_deadline(api.replace(&name, &PostParams::default(), &map)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                with_deadline(api.create(&PostParams::default(), &map)).await?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn delete_own_targets(&self, binding: &ObjectName) -> Result<(), ClusterError> {
        let api = self.config_maps(binding);
        with_deadline(api.delete(&names::own_targets(&binding.name), &DeleteParams::default())).await?;
        Ok(())
    }

    async fn write_status(
        &self,
        binding: &TargetGroupBinding,
        status: &TargetGroupBindingStatus,
    ) -> Result<(), ClusterError> {
        // The UID makes the API server reject the patch for another object with the same name.
        let patch = json!({ "metadata": { "uid": binding.uid }, "status": status });
        let api = self.bindings(&binding.name);
        with_deadline(api.patch_status(&binding.name.name, &PatchParams::default(), &Patch::Merge(patch))).await?;
        Ok(())
    }

    async fn write_condition(&self, change: &Change, now: Timestamp) -> Result<(), ClusterError> {
        let api: Api<wire::Pod> = Api::namespaced(self.client.clone(), &change.pod.namespace);
        let patch = condition_patch(change, now);
        match with_deadline(api.patch_status(&change.pod.name, &PatchParams::default(), &Patch::Strategic(patch))).await
        {
            Ok(_) => Ok(()),
            // Another pod has the name.
            Err(kube::Error::Api(status)) if status.code == 409 => Err(ClusterError::Gone),
            Err(error) => Err(error.into()),
        }
    }

    async fn service(&self, name: &ObjectName) -> Result<Option<Service>, ClusterError> {
        let api: Api<wire::Service> = Api::namespaced(self.client.clone(), &name.namespace);
        Ok(with_deadline(api.get_opt(&name.name)).await?.map(Service::from))
    }

    async fn endpoint_slices(&self, service: &ObjectName) -> Result<Vec<EndpointSlice>, ClusterError> {
        let api: Api<wire::EndpointSlice> = Api::namespaced(self.client.clone(), &service.namespace);
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={}", service.name));
        Ok(with_deadline(api.list(&of_service)).await?.items.into_iter().map(EndpointSlice::from).collect())
    }

    async fn has_pod(&self, namespace: &str, pod: &PodReference) -> Result<bool, ClusterError> {
        let api: Api<wire::Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = with_deadline(api.get_opt(&pod.name)).await?;
        Ok(found.is_some_and(|found| pod.means(found.metadata.uid.as_deref().unwrap_or_default())))
    }

    async fn has_nodes(&self) -> Result<bool, ClusterError> {
        let api: Api<wire::Node> = Api::all(self.client.clone());
        Ok(!with_deadline(api.list(&ListParams::default().limit(1))).await?.items.is_empty())
    }

    async fn has_bindings(&self) -> Result<bool, ClusterError> {
        let api: Api<crd::TargetGroupBinding> = Api::all(self.client.clone());
        Ok(!with_deadline(api.list(&ListParams::default().limit(1))).await?.items.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use albatross_core::snapshot::GateState;
    use albatross_simulation::fake::{Call, Fake};

    #[test]
    fn finalizers_of_others_stay() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let ours = BINDING_FINALIZER;
        for (current, present, wanted) in [
            (list(&[]), true, Some(list(&[ours]))),
            (list(&["a/b"]), true, Some(list(&["a/b", ours]))),
            (list(&[ours, "a/b"]), true, None),
            (list(&[ours, "a/b"]), false, Some(list(&["a/b"]))),
            (list(&["a/b"]), false, None),
        ] {
            assert_eq!(finalizers(&current, present), wanted, "{current:?} {present}");
        }
    }

    /// Returns a binding in the form in which the API server returns it.
    fn wire(version: &str, uid: &str, finalizers: &[&str]) -> String {
        json!({
            "apiVersion": "elbv2.k8s.aws/v1beta1",
            "kind": "TargetGroupBinding",
            "metadata": {
                "namespace": "shop", "name": "tgb", "uid": uid, "resourceVersion": version, "finalizers": finalizers,
            },
            "spec": { "serviceRef": { "name": "cart", "port": 80 } },
        })
        .to_string()
    }

    fn failure(code: u16) -> (u16, String) {
        let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
            "message": "no", "reason": if code == 409 { "Conflict" } else { "NotFound" } });
        (code, body.to_string())
    }

    async fn cluster(answer: impl Fn(&Call) -> (u16, String) + Clone + Send + Sync + 'static) -> (Fake, LiveCluster) {
        let fake = Fake::start(move |call| std::future::ready(answer(&call))).await;
        // A client needs a TLS provider even without TLS.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::try_from(kube::Config::new(fake.endpoint.parse().unwrap())).unwrap();
        let client = WriteClient::new(client, albatross_aws::WritePermit::without_election());
        (fake, LiveCluster::new(&client))
    }

    fn binding(version: &str, finalizers: &[&str]) -> TargetGroupBinding {
        let text = wire(version, "u1", finalizers);
        TargetGroupBinding::from(serde_json::from_str::<crd::TargetGroupBinding>(&text).unwrap())
    }

    fn patches(fake: &Fake) -> Vec<String> {
        fake.calls().into_iter().filter(|call| call.action.starts_with("PATCH")).map(|call| call.body).collect()
    }

    #[tokio::test]
    async fn a_finalizer_is_put_on_what_others_have_changed_meanwhile() {
        let (fake, cluster) = cluster(|call| match call.action.split(' ').next() {
            Some("GET") => (200, wire("2", "u1", &["a/b"])),
            _ if call.body.contains("\"resourceVersion\":\"1\"") => failure(409),
            _ => (200, wire("3", "u1", &["a/b", BINDING_FINALIZER])),
        })
        .await;
        assert_eq!(cluster.set_finalizer(&binding("1", &[]), true).await, Ok(()));
        let patch = |version: &str, finalizers: &[&str]| {
            json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } }).to_string()
        };
        assert_eq!(patches(&fake), [patch("1", &[BINDING_FINALIZER]), patch("2", &["a/b", BINDING_FINALIZER])]);
        // A binding that has the finalizer is not written.
        assert_eq!(cluster.set_finalizer(&binding("1", &[BINDING_FINALIZER]), true).await, Ok(()));
        assert_eq!(fake.calls().len(), 0);
    }

    #[tokio::test]
    async fn another_binding_of_the_same_name_is_left_alone() {
        let (fake, cluster) = cluster(|call| match call.action.split(' ').next() {
            Some("GET") => (200, wire("9", "u2", &[BINDING_FINALIZER])),
            _ => failure(409),
        })
        .await;
        let known = binding("1", &[BINDING_FINALIZER]);
        assert_eq!(cluster.set_finalizer(&known, false).await, Err(ClusterError::Gone));
        assert_eq!(patches(&fake).len(), 1);
    }

    #[tokio::test]
    async fn the_status_goes_to_its_subresource_and_to_that_object_alone() {
        let (fake, cluster) = cluster(|_| (200, wire("2", "u1", &[]))).await;
        let status = TargetGroupBindingStatus { observed_generation: Some(3), conditions: None };
        assert_eq!(cluster.write_status(&binding("1", &[]), &status).await, Ok(()));
        let calls: Vec<_> = fake.calls().into_iter().map(|call| (call.action, call.body)).collect();
        let path = "PATCH /apis/elbv2.k8s.aws/v1beta1/namespaces/shop/targetgroupbindings/tgb/status";
        let body = json!({ "metadata": { "uid": "u1" }, "status": { "observedGeneration": 3 } }).to_string();
        assert_eq!(calls, [(path.to_owned(), body)]);
    }

    #[tokio::test]
    async fn a_condition_goes_to_the_status_of_that_pod_alone() {
        let change = |reason: &str, turns| Change {
            pod: ObjectName::new("shop", "cart-1"),
            uid: "u1".to_owned(),
            condition: "target-health.elbv2.k8s.aws/tgb".to_owned(),
            state: GateState {
                status: if reason.is_empty() { Readiness::Ready } else { Readiness::NotReady },
                reason: reason.to_owned(),
                message: String::new(),
                since: None,
            },
            turns,
            waited_since: None,
        };
        let pod = json!({ "metadata": { "namespace": "shop", "name": "cart-1" } }).to_string();
        let (fake, cluster) =
            cluster(move |call| if call.body.contains("u2") { failure(409) } else { (200, pod.clone()) }).await;
        for change in [change("Elb.InitialHealthChecking", false), change("", true)] {
            assert_eq!(cluster.write_condition(&change, Timestamp::UNIX_EPOCH).await, Ok(()));
        }
        let calls: Vec<_> = fake.calls().into_iter().map(|call| format!("{} {}", call.action, call.body)).collect();
        insta::assert_snapshot!(calls.join("\n"), @r#"
        PATCH /api/v1/namespaces/shop/pods/cart-1/status {"metadata":{"uid":"u1"},"status":{"conditions":[{"message":null,"reason":"Elb.InitialHealthChecking","status":"False","type":"target-health.elbv2.k8s.aws/tgb"}]}}
        PATCH /api/v1/namespaces/shop/pods/cart-1/status {"metadata":{"uid":"u1"},"status":{"conditions":[{"lastTransitionTime":"1970-01-01T00:00:00Z","message":null,"reason":null,"status":"True","type":"target-health.elbv2.k8s.aws/tgb"}]}}
        "#);
        let other = Change { uid: "u2".to_owned(), ..change("", true) };
        assert_eq!(cluster.write_condition(&other, Timestamp::UNIX_EPOCH).await, Err(ClusterError::Gone));
    }

    #[tokio::test]
    async fn a_service_that_is_gone_is_no_error() {
        let (_fake, cluster) = cluster(|_| failure(404)).await;
        assert_eq!(cluster.service(&ObjectName::new("shop", "cart")).await, Ok(None));
    }

    #[tokio::test]
    async fn what_proves_an_absence_is_read_from_the_api_server() {
        let slice = json!({ "metadata": { "namespace": "shop", "name": "cart-1",
            "labels": { "kubernetes.io/service-name": "cart" } }, "addressType": "IPv4", "ports": [],
            "endpoints": [{ "addresses": ["10.0.0.1"], "targetRef": { "kind": "Pod", "name": "p", "uid": "u1" } }] });
        let list = move |items: &[&serde_json::Value]| json!({ "metadata": {}, "items": items }).to_string();
        let (fake, cluster) = cluster(move |call| match call.action.as_str() {
            action if action.contains("endpointslices") => (200, list(&[&slice])),
            action if action.contains("pods/p") => {
                (200, json!({ "metadata": { "namespace": "shop", "name": "p", "uid": "u2" } }).to_string())
            }
            action if action.contains("pods") => failure(404),
            action if action.contains("nodes") => (200, list(&[&json!({ "metadata": { "name": "n1" } })])),
            _ => (200, list(&[])),
        })
        .await;
        let slices = cluster.endpoint_slices(&ObjectName::new("shop", "cart")).await.unwrap();
        let pod = |name: &str, uid: Option<&str>| PodReference { name: name.to_owned(), uid: uid.map(str::to_owned) };
        let pods: Vec<_> = slices.iter().flat_map(|slice| &slice.endpoints).map(|e| e.pod.clone()).collect();
        assert_eq!(pods, [Some(pod("p", Some("u1")))]);
        for (reference, exists) in [
            (pod("p", None), true),
            (pod("p", Some("u2")), true),
            (pod("p", Some("u1")), false),
            (pod("q", None), false),
        ] {
            assert_eq!(cluster.has_pod("shop", &reference).await, Ok(exists), "{reference:?}");
        }
        assert_eq!(cluster.has_nodes().await, Ok(true));
        assert_eq!(cluster.has_bindings().await, Ok(false));
        let asked: Vec<String> = fake.calls().into_iter().map(|call| call.action).collect();
        insta::assert_snapshot!(asked.join("\n"), @"
        GET /apis/discovery.k8s.io/v1/namespaces/shop/endpointslices
        GET /api/v1/namespaces/shop/pods/p
        GET /api/v1/namespaces/shop/pods/p
        GET /api/v1/namespaces/shop/pods/p
        GET /api/v1/namespaces/shop/pods/q
        GET /api/v1/nodes
        GET /apis/elbv2.k8s.aws/v1beta1/targetgroupbindings
        ");
    }
}
