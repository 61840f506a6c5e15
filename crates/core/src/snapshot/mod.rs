//! The cluster, or a folder of manifests, at one instant, indexed for building. Filled by watches (the controller's) or by
//! [`from_files`]; a relist replaces a kind at its end, so that nothing seems gone while it runs.

mod from_files;
mod placeholder;
mod records;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use from_files::{Loaded, Problem, SourceLocation, from_documents, from_paths};
pub use placeholder::placeholder;
pub use records::{
    AddressFamily, Backend, BackendPort, ClassParameters, ContainerServerId, EndpointAddress, EndpointSlice,
    EndpointSlicePort, GateState, HttpPath, HttpRule, Ingress, IngressClass, IngressClassParams, Namespace, Node, Pod,
    PodPort, PodReference, Readiness, ReadinessGate, Service, ServicePort, StatusEntry, TargetGroupBinding,
};

use crate::{model::ObjectName, quic::EnvironmentVariable};

/// The objects of one kind, by name.
pub type Objects<T> = BTreeMap<ObjectName, T>;

/// The part of the cluster that a snapshot covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All of it: what is not there does not exist.
    #[default]
    Cluster,
    /// Some manifests: an object that is absent may be in others.
    Files,
    /// All manifests of a cluster: what they do not contain does not exist, except what the API server adds to objects.
    CompleteFiles,
}

/// Every object that decides something.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The scope; it decides if an object that is absent here does not exist.
    pub scope: Scope,
    /// The environment variable with the QUIC server ids of pods.
    pub server_id_variable: EnvironmentVariable,
    /// All Ingresses, also those of other classes.
    pub ingresses: Objects<Ingress>,
    /// By name; cluster-scoped.
    pub ingress_classes: Objects<IngressClass>,
    /// By name; cluster-scoped.
    pub ingress_class_params: Objects<IngressClassParams>,
    /// By name; cluster-scoped.
    pub namespaces: Objects<Namespace>,
    /// Kinds that the API server does not allow the controller to list, with its reason: nothing is known of their objects.
    /// Only optional kinds.
    pub unreadable: BTreeMap<&'static str, String>,
    /// All Services.
    pub services: Objects<Service>,
    /// All EndpointSlices.
    pub endpoint_slices: Objects<EndpointSlice>,
    /// All Pods.
    pub pods: Objects<Pod>,
    /// By name; cluster-scoped.
    pub nodes: Objects<Node>,
    /// All TargetGroupBindings.
    pub target_group_bindings: Objects<TargetGroupBinding>,
}

/// The objects of one namespace.
pub fn in_namespace<'a, T>(objects: &'a Objects<T>, namespace: &str) -> impl Iterator<Item = (&'a ObjectName, &'a T)> {
    let start = ObjectName::new(namespace, "");
    let namespace = namespace.to_owned();
    objects.range(start..).take_while(move |(name, _)| name.namespace == namespace)
}

/// A kind of object of the snapshot.
pub trait SnapshotObject: Sized + PartialEq + Send + Sync + 'static {
    /// Its name; a cluster-scoped kind has an empty namespace.
    fn name(&self) -> &ObjectName;
    /// Returns the objects of this kind in the snapshot.
    fn objects(snapshot: &mut Snapshot) -> &mut Objects<Self>;
}

macro_rules! record {
    ($($type:ident in $field:ident;)*) => {$(
        impl SnapshotObject for $type {
            fn name(&self) -> &ObjectName {
                &self.name
            }
            fn objects(snapshot: &mut Snapshot) -> &mut Objects<Self> {
                &mut snapshot.$field
            }
        }
    )*};
}

record! {
    Ingress in ingresses;
    IngressClass in ingress_classes;
    IngressClassParams in ingress_class_params;
    Namespace in namespaces;
    Service in services;
    EndpointSlice in endpoint_slices;
    Pod in pods;
    Node in nodes;
    TargetGroupBinding in target_group_bindings;
}

/// A change of one object, with its previous value.
#[derive(Debug)]
pub struct Change<T> {
    /// Its name.
    pub name: ObjectName,
    /// The previous state; `None` when it is new.
    pub before: Option<T>,
    /// True if it exists now.
    pub present: bool,
}

impl Snapshot {
    /// Takes an object as it is now. `None` when nothing that is kept of it changed.
    pub fn apply<T: SnapshotObject>(&mut self, object: T) -> Option<Change<T>> {
        let objects = T::objects(self);
        let name = object.name().clone();
        if objects.get(&name) == Some(&object) {
            return None;
        }
        let before = objects.insert(name.clone(), object);
        Some(Change { name, before, present: true })
    }

    /// Removes an object that no longer exists, and returns the change.
    pub fn remove<T: SnapshotObject>(&mut self, name: &ObjectName) -> Option<Change<T>> {
        T::objects(self).remove(name).map(|before| Change { name: name.clone(), before: Some(before), present: false })
    }

    /// Replaces a whole kind by a complete list, and returns the changes.
    pub fn replace<T: SnapshotObject>(&mut self, listed: Vec<T>) -> Vec<Change<T>> {
        let names: BTreeSet<ObjectName> = listed.iter().map(|o| o.name().clone()).collect();
        let gone: Vec<ObjectName> = T::objects(self).keys().filter(|name| !names.contains(*name)).cloned().collect();
        let mut changes: Vec<Change<T>> = gone.iter().filter_map(|name| self.remove(name)).collect();
        changes.extend(listed.into_iter().filter_map(|object| self.apply(object)));
        changes
    }
}
