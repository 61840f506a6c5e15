//! What this room writes to Kubernetes, and the one thing that it reads past the watches.

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    api::{
        crd::{self, TargetGroupBindingStatus},
        kubernetes as wire,
    },
    build::tags::BINDING_FINALIZER,
    model::ObjectName,
    snapshot::{Service, TargetGroupBinding},
};

/// How often a write is tried again after somebody else's.
const TRIES: u32 = 5;

/// A request to the API server that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The object is gone, or another of the same name has taken its place.
    #[error("the object is gone")]
    Gone,
    /// Others keep writing it.
    #[error("others keep changing the object")]
    Contended,
    /// Something else.
    #[error("{0}")]
    Refused(String),
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 404 => Self::Gone,
            kube::Error::Api(status) if status.code == 409 => Self::Contended,
            kube::Error::Api(status) => Self::Refused(status.message.clone()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// The requests to the API server that this room makes.
pub trait Cluster: Send + Sync + 'static {
    /// Puts our finalizer on a binding, if it is not there; or takes it away, if it is.
    fn set_finalizer(
        &self,
        binding: &TargetGroupBinding,
        present: bool,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;
    /// Writes a binding's status.
    fn write_status(
        &self,
        binding: &TargetGroupBinding,
        status: &TargetGroupBindingStatus,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;
    /// A Service, read from the API server itself: the proof that it is gone.
    fn service(&self, name: &ObjectName) -> impl Future<Output = Result<Option<Service>, ClusterError>> + Send;
}

/// The API server itself.
pub struct LiveCluster {
    client: Client,
}

impl LiveCluster {
    /// Speaks through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn bindings(&self, name: &ObjectName) -> Api<crd::TargetGroupBinding> {
        Api::namespaced(self.client.clone(), &name.namespace)
    }
}

/// The finalizers as they shall be; `None` when they are so.
fn finalizers(current: &[String], present: bool) -> Option<Vec<String>> {
    let is_there = current.iter().any(|finalizer| finalizer == BINDING_FINALIZER);
    (is_there != present).then(|| {
        let others = current.iter().filter(|finalizer| *finalizer != BINDING_FINALIZER).cloned();
        others.chain(present.then(|| BINDING_FINALIZER.to_owned())).collect()
    })
}

impl Cluster for LiveCluster {
    async fn set_finalizer(&self, binding: &TargetGroupBinding, present: bool) -> Result<(), ClusterError> {
        let api = self.bindings(&binding.name);
        let (mut current, mut version) = (binding.finalizers.clone(), binding.resource_version.clone());
        for _ in 0..TRIES {
            let Some(finalizers) = finalizers(&current, present) else { return Ok(()) };
            // The version makes the API server refuse the patch when the list has changed meanwhile.
            let patch = json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } });
            match api.patch(&binding.name.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
            let fresh = TargetGroupBinding::from(api.get(&binding.name.name).await?);
            if fresh.uid != binding.uid || (present && fresh.deleting) {
                return Err(ClusterError::Gone);
            }
            (current, version) = (fresh.finalizers, fresh.resource_version);
        }
        Err(ClusterError::Contended)
    }

    async fn write_status(
        &self,
        binding: &TargetGroupBinding,
        status: &TargetGroupBindingStatus,
    ) -> Result<(), ClusterError> {
        // The UID makes the API server refuse the patch for another object of the same name.
        let patch = json!({ "metadata": { "uid": binding.uid }, "status": status });
        let api = self.bindings(&binding.name);
        api.patch_status(&binding.name.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    async fn service(&self, name: &ObjectName) -> Result<Option<Service>, ClusterError> {
        let api: Api<wire::Service> = Api::namespaced(self.client.clone(), &name.namespace);
        Ok(api.get_opt(&name.name).await?.map(Service::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
