//! The watches of all kinds.

use std::sync::Arc;

use kube::{Api, Client, Resource};
use tokio::task::JoinSet;

use super::Watched;
use crate::controller::cluster::watches::watch_kind;
use albatross_core::{
    api::{crd, kubernetes as wire},
    snapshot,
};

pub(super) const KINDS: [&str; 9] = [
    "Ingress",
    "IngressClass",
    "IngressClassParams",
    "Namespace",
    "Service",
    "EndpointSlice",
    "Pod",
    "Node",
    "TargetGroupBinding",
];

/// Starts a watch of each kind; the watches end when the returned set is dropped.
pub fn start_watches(client: &Client, namespace: &str, watched: &Watched) -> JoinSet<()> {
    fn api<W: Resource<Scope = kube::core::NamespaceResourceScope>>(client: &Client, namespace: &str) -> Api<W>
    where
        W::DynamicType: Default,
    {
        if namespace.is_empty() { Api::all(client.clone()) } else { Api::namespaced(client.clone(), namespace) }
    }
    let mut watches = JoinSet::new();
    watched.synced.activity.begin(KINDS);
    watches.spawn(Arc::clone(&watched.synced).report_stalled());
    macro_rules! watch {
        ($kind:literal, $api:expr, $record:ty) => {
            watches.spawn(watch_kind::<_, $record>(
                $kind,
                $api,
                Arc::clone(&watched.snapshot),
                Arc::clone(&watched.queue),
                Arc::clone(&watched.synced),
            ))
        };
    }
    watch!("Ingress", api::<wire::Ingress>(client, namespace), snapshot::Ingress);
    watch!("IngressClass", Api::<wire::IngressClass>::all(client.clone()), snapshot::IngressClass);
    watch!("IngressClassParams", Api::<crd::IngressClassParams>::all(client.clone()), snapshot::IngressClassParams);
    watch!("Namespace", Api::<wire::Namespace>::all(client.clone()), snapshot::Namespace);
    watch!("Service", api::<wire::Service>(client, namespace), snapshot::Service);
    watch!("EndpointSlice", api::<wire::EndpointSlice>(client, namespace), snapshot::EndpointSlice);
    watch!("Pod", api::<wire::Pod>(client, namespace), snapshot::Pod);
    watch!("Node", Api::<wire::Node>::all(client.clone()), snapshot::Node);
    watch!("TargetGroupBinding", api::<crd::TargetGroupBinding>(client, namespace), snapshot::TargetGroupBinding);
    watches
}
