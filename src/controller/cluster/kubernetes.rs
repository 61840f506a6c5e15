//! Writes to, and direct reads from, the API server: finalizers, status, and the proof that an object is gone.

use std::{future::Future, time::Duration};

use kube::{
    Api, Client, Resource,
    api::{ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::controller::runtime::write_permit::WriteClient;
use albatross_core::{
    api::{
        crd::{self, TargetGroupBinding},
        kubernetes as wire,
    },
    dry_run_plan,
    model::{ObjectKind, ObjectName, ObjectReference, StackId},
    snapshot::{self, Ingress, IngressClass, IngressClassParams, Namespace, Service},
};

const DEADLINE: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 5;

/// The API server could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubernetesError {
    /// The API server answered with an error, or the request was not sent or not answered.
    #[error("{action}: {}", describe(source))]
    Refused {
        /// The attempted action.
        action: String,
        /// The error.
        source: kube::Error,
    },
    /// The API server did not answer.
    #[error("{action}: no answer from the API server within {} s", DEADLINE.as_secs())]
    NoAnswer {
        /// The attempted action.
        action: String,
    },
    /// The object is gone, or going, and the watch has not shown it yet.
    #[error("{action}: it is gone, or being deleted")]
    Gone {
        /// The attempted action.
        action: String,
    },
    /// The object was changed by another client each time.
    #[error("{action}: the object was changed by others {ATTEMPTS} times in a row")]
    Contended {
        /// The attempted action.
        action: String,
    },
}

/// Returns the API server's message, or else the failure on the way to it, down to the first cause.
pub(crate) fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        kube::Error::Service(cause) => with_causes(cause.as_ref()),
        error => with_causes(error),
    }
}

/// An error with its causes, each said once.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

async fn ask<T>(
    action: impl Fn() -> String,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, KubernetesError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(KubernetesError::Refused { action: action(), source }),
        Err(_) => Err(KubernetesError::NoAnswer { action: action() }),
    }
}

fn has_code(error: &KubernetesError, wanted: u16) -> bool {
    matches!(error, KubernetesError::Refused { source: kube::Error::Api(status), .. } if status.code == wanted)
}

/// The finalizers of an object, and whether it is being deleted.
type Finalizers = (Vec<String>, bool);
/// From the finalizers that an object has, and whether it is being deleted, to the desired ones, if they differ.
type FinalizerChange<'a> = dyn 'a + Fn(&[String], bool) -> Option<Vec<String>> + Sync;

/// Reads and writes single objects.
#[derive(Clone)]
pub(crate) struct Kubernetes {
    client: Client,
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes").finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// Works through this client.
    #[must_use]
    pub(crate) fn new(client: &WriteClient) -> Self {
        Self { client: client.client() }
    }

    async fn get<W>(&self, api: Api<W>, name: &str) -> Result<Option<W>, KubernetesError>
    where
        W: Clone + DeserializeOwned + std::fmt::Debug,
    {
        ask(|| format!("cannot read `{name}`"), api.get_opt(name)).await
    }

    /// An Ingress as it is at this moment.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub(crate) async fn ingress(&self, name: &ObjectName) -> Result<Option<Ingress>, KubernetesError> {
        let api: Api<wire::Ingress> = Api::namespaced(self.client.clone(), &name.namespace);
        Ok(self.get(api, &name.name).await?.map(Ingress::from))
    }

    /// An IngressClass as it is at this moment.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub(crate) async fn ingress_class(&self, name: &str) -> Result<Option<IngressClass>, KubernetesError> {
        Ok(self.get(Api::<wire::IngressClass>::all(self.client.clone()), name).await?.map(IngressClass::from))
    }

    /// An IngressClassParams as it is at this moment; none where its kind is not installed.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub(crate) async fn ingress_class_params(&self, name: &str) -> Result<Option<IngressClassParams>, KubernetesError> {
        let api: Api<crd::IngressClassParams> = Api::all(self.client.clone());
        Ok(self.get(api, name).await?.map(IngressClassParams::from))
    }

    /// A Namespace as it is at this moment.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub(crate) async fn namespace(&self, name: &str) -> Result<Option<Namespace>, KubernetesError> {
        Ok(self.get(Api::<wire::Namespace>::all(self.client.clone()), name).await?.map(Namespace::from))
    }

    /// The TargetGroupBindings that carry a stack's labels at this moment.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub(crate) async fn labelled_bindings(
        &self,
        stack: &StackId,
    ) -> Result<Vec<snapshot::TargetGroupBinding>, KubernetesError> {
        let api: Api<TargetGroupBinding> = match stack {
            StackId::Ingress(name) | StackId::Service(name) => Api::namespaced(self.client.clone(), &name.namespace),
            StackId::Group(_) => Api::all(self.client.clone()),
        };
        let labels: Vec<String> = stack.binding_labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
        let of_stack = ListParams::default().labels(&labels.join(","));
        let found = ask(|| format!("cannot list the TargetGroupBindings of {stack}"), api.list(&of_stack)).await?;
        Ok(found.items.into_iter().map(snapshot::TargetGroupBinding::from).collect())
    }

    /// A Service as it is at this moment.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub(crate) async fn service(&self, name: &ObjectName) -> Result<Option<Service>, KubernetesError> {
        let api: Api<wire::Service> = Api::namespaced(self.client.clone(), &name.namespace);
        Ok(self.get(api, &name.name).await?.map(Service::from))
    }

    /// Adds the finalizer of a stack to an Ingress or Service, where it is missing.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses, and for an object that is gone, or going: nothing would keep it
    /// until the resources created for it are deleted.
    pub(crate) async fn add_finalizer(&self, object: &ObjectReference, finalizer: &str) -> Result<(), KubernetesError> {
        let change = |finalizers: &[String], deleting: bool| {
            let missing = !deleting && !finalizers.iter().any(|f| f == finalizer);
            missing.then(|| finalizers.iter().cloned().chain([finalizer.to_owned()]).collect())
        };
        match self.change_finalizers(object, &change).await? {
            Some((finalizers, false)) if finalizers.iter().any(|f| f == finalizer) => Ok(()),
            _ => Err(KubernetesError::Gone { action: format!("cannot add a finalizer to {object}") }),
        }
    }

    /// Takes a finalizer from an Ingress or Service, where it is.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub(crate) async fn remove_finalizer(
        &self,
        object: &ObjectReference,
        finalizer: &str,
    ) -> Result<(), KubernetesError> {
        let change = |finalizers: &[String], _: bool| {
            let present = finalizers.iter().any(|f| f == finalizer);
            present.then(|| finalizers.iter().filter(|f| *f != finalizer).cloned().collect())
        };
        self.change_finalizers(object, &change).await.map(drop)
    }

    async fn change_finalizers(
        &self,
        object: &ObjectReference,
        change: &FinalizerChange<'_>,
    ) -> Result<Option<Finalizers>, KubernetesError> {
        let (client, namespace) = (self.client.clone(), &object.name.namespace);
        match object.kind {
            ObjectKind::Service => {
                Self::change_finalizers_of(Api::<wire::Service>::namespaced(client, namespace), object, change).await
            }
            ObjectKind::Ingress
            | ObjectKind::IngressClass
            | ObjectKind::IngressClassParams
            | ObjectKind::TargetGroupBinding => {
                Self::change_finalizers_of(Api::<wire::Ingress>::namespaced(client, namespace), object, change).await
            }
        }
    }

    /// Returns the finalizers after the change, and whether the object is being deleted; `None` when it is gone.
    async fn change_finalizers_of<W>(
        api: Api<W>,
        object: &ObjectReference,
        change: &FinalizerChange<'_>,
    ) -> Result<Option<Finalizers>, KubernetesError>
    where
        W: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let action = || format!("cannot change the finalizers of {object}");
        let name = &object.name.name;
        for _ in 0..ATTEMPTS {
            let Some(current) = ask(action, api.get_opt(name)).await? else { return Ok(None) };
            let metadata = current.meta();
            let (finalizers, deleting) =
                (metadata.finalizers.clone().unwrap_or_default(), metadata.deletion_timestamp.is_some());
            let Some(finalizers) = change(&finalizers, deleting) else { return Ok(Some((finalizers, deleting))) };
            let patch =
                json!({ "metadata": { "resourceVersion": metadata.resource_version, "finalizers": finalizers } });
            match ask(action, api.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await {
                Ok(_) => return Ok(Some((finalizers, deleting))),
                Err(error) if has_code(&error, 404) => return Ok(None),
                Err(error) if has_code(&error, 409) => {}
                Err(error) => return Err(error),
            }
        }
        Err(KubernetesError::Contended { action: action() })
    }

    /// Writes `status.loadBalancer` of an Ingress: an entry with the host name and the ports, and one with the host name of
    /// what stands in front.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub(crate) async fn write_ingress_status(
        &self,
        name: &ObjectName,
        hostname: &str,
        ports: &[u16],
        front: Option<&str>,
    ) -> Result<(), KubernetesError> {
        // The schema requires a protocol for each port; an empty one is what aws-load-balancer-controller writes.
        let ports: Vec<(u16, &str)> = ports.iter().map(|port| (*port, "")).collect();
        let api: Api<wire::Ingress> = Api::namespaced(self.client.clone(), &name.namespace);
        write_status(api, &ObjectReference::ingress(name), status_patch(hostname, &ports, front)).await
    }

    /// Writes the annotation of the plan on an Ingress, or removes it. Another Ingress of that name is left alone.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub(crate) async fn write_plan(
        &self,
        name: &ObjectName,
        uid: &str,
        text: Option<&str>,
    ) -> Result<(), KubernetesError> {
        let api: Api<wire::Ingress> = Api::namespaced(self.client.clone(), &name.namespace);
        let patch = json!({ "metadata": { "uid": uid, "annotations": { dry_run_plan::KEY: text } } });
        let written = ask(
            || format!("cannot write the annotation {} of Ingress {name}", dry_run_plan::KEY),
            api.patch(&name.name, &PatchParams::default(), &Patch::Merge(patch)),
        )
        .await;
        match written {
            Err(error) if has_code(&error, 404) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Writes `status.loadBalancer` of a Service: one entry with the host name and the ports.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub(crate) async fn write_service_status(
        &self,
        name: &ObjectName,
        hostname: &str,
        ports: &[(u16, &str)],
    ) -> Result<(), KubernetesError> {
        let api: Api<wire::Service> = Api::namespaced(self.client.clone(), &name.namespace);
        write_status(api, &ObjectReference::service(name), status_patch(hostname, ports, None)).await
    }

    /// Empties `status.loadBalancer` of a Service whose load balancer is gone.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub(crate) async fn clear_service_status(&self, name: &ObjectName) -> Result<(), KubernetesError> {
        let api: Api<wire::Service> = Api::namespaced(self.client.clone(), &name.namespace);
        let patch = json!({ "status": { "loadBalancer": { "ingress": null } } });
        write_status(api, &ObjectReference::service(name), patch).await
    }
}

async fn write_status<W>(api: Api<W>, object: &ObjectReference, patch: Value) -> Result<(), KubernetesError>
where
    W: Clone + DeserializeOwned + std::fmt::Debug,
{
    let written = ask(
        || format!("cannot write the status of {object}"),
        api.patch_status(&object.name.name, &PatchParams::default(), &Patch::Merge(patch)),
    )
    .await;
    match written {
        Err(error) if has_code(&error, 404) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// The status with a host name and its ports, and the host name of what stands in front, which has none there.
fn status_patch(hostname: &str, ports: &[(u16, &str)], front: Option<&str>) -> Value {
    let ports: Vec<Value> =
        ports.iter().map(|(port, protocol)| json!({ "port": port, "protocol": protocol })).collect();
    let front = front.map(|front| json!({ "hostname": front }));
    let entries: Vec<Value> = std::iter::once(json!({ "hostname": hostname, "ports": ports })).chain(front).collect();
    json!({ "status": { "loadBalancer": { "ingress": entries } } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use albatross_simulation::fake::Fake;

    /// Returns the result and the calls of adding the finalizer to an Ingress that has this state in the API server.
    async fn added(metadata: Option<Value>) -> (Result<(), String>, Vec<String>) {
        // The HTTP stack is built for TLS, too, though none is used here.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let answer = match metadata {
            Some(metadata) => (200, json!({ "metadata": metadata, "spec": {} }).to_string()),
            None => {
                (404, json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 }).to_string())
            }
        };
        let fake = Fake::start(move |_| {
            let answer = answer.clone();
            async move { answer }
        })
        .await;
        let client = Client::try_from(kube::Config::new(fake.endpoint.parse().unwrap())).unwrap();
        let client = WriteClient::new(client, albatross_aws::WritePermit::without_election());
        let added = Kubernetes::new(&client)
            .add_finalizer(&ObjectReference::ingress(&ObjectName::new("shop", "web")), "ours")
            .await;
        let methods = fake.calls().into_iter().map(|call| call.action.split(' ').next().unwrap().to_owned());
        (added.map_err(|error| error.to_string()), methods.collect())
    }

    #[tokio::test]
    async fn nothing_is_made_for_an_ingress_that_cannot_be_held() {
        let gone = Err("cannot add a finalizer to Ingress shop/web: it is gone, or being deleted".to_owned());
        let going = |finalizer: &str| json!({ "name": "web", "finalizers": [finalizer], "deletionTimestamp": "2026-01-01T00:00:00Z" });
        let (get, patch) = (vec!["GET".to_owned()], vec!["GET".to_owned(), "PATCH".to_owned()]);
        for (metadata, expected, methods) in [
            (Some(json!({ "name": "web" })), Ok(()), &patch),
            (Some(json!({ "name": "web", "finalizers": ["ours"] })), Ok(()), &get),
            (Some(going("another's")), gone.clone(), &get),
            (Some(going("ours")), gone.clone(), &get),
            (None, gone, &get),
        ] {
            assert_eq!(added(metadata.clone()).await, (expected, methods.clone()), "{metadata:?}");
        }
    }
}
