//! The dependents of an object: from a change in the cluster to the keys that it affects. Pure.

use std::collections::{BTreeMap, BTreeSet};

use std::fmt;

use serde::Serialize;

use crate::{
    api::{
        annotations::{NamesInAction, registry},
        crd::target_group_binding::TargetType,
    },
    desired::{
        self,
        sources::{
            ingress::{self, groups_of},
            service,
        },
    },
    model::{ObjectName, ObservedStack, ObservedTargetGroup, StackId},
    snapshot::{
        Backend, Change, EndpointAddress, EndpointSlice, Ingress, IngressClass, IngressClassParams, Namespace, Node,
        Pod, Readiness, Service, Snapshot, SnapshotObject, TargetGroupBinding, in_namespace,
    },
    targets::{
        self,
        endpoints::{departs, may_take_traffic, readiness_with},
    },
};

/// An owner of AWS resources, and the unit of work of the queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Key {
    /// A TargetGroupBinding: its targets.
    Binding(ObjectName),
    /// The rules on the security groups of nodes and pods, computed from all bindings.
    NodeRules,
    /// A group of Ingresses, or a Service: its load balancer.
    Stack(StackId),
    /// The security group that all load balancers share, made with the first and deleted after the last.
    BackendSecurityGroup,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binding(name) => write!(f, "TargetGroupBinding {name}"),
            Self::NodeRules => f.write_str("rules of node security groups"),
            Self::Stack(StackId::Service(name)) => write!(f, "Service {name}"),
            Self::Stack(stack @ (StackId::Group(_) | StackId::Ingress(_))) => write!(f, "Ingress group {stack}"),
            Self::BackendSecurityGroup => f.write_str("shared backend security group"),
        }
    }
}

/// Returns true if a binding belongs to a stack: it carries the stack's labels, which any user can write, and it is in the
/// namespace of the Service and holds its target group there. If the target group no longer exists, the name comes from its
/// ARN and the namespace from the stack. A stack of several Ingresses has the namespaces of its target groups and of its
/// members; an Ingress with the finalizer counts as a member only if the record names it or it has a status, because any
/// user can write the finalizer.
pub fn is_binding_of(
    stack: &StackId,
    binding: &TargetGroupBinding,
    observed: &ObservedStack,
    snapshot: &Snapshot,
) -> bool {
    if !stack.is_named_by(&binding.labels) {
        return false;
    }
    let Some(arn) = &binding.spec.target_group_arn else { return false };
    let namespace = &binding.name.namespace;
    let home =
        |group: &ObservedTargetGroup| group.resource().is_some_and(|id| id.namespace() == Some(namespace.as_str()));
    if let Some(group) = observed.target_groups.iter().find(|group| group.arn.as_str() == arn) {
        // The API server may show one that the watch does not show yet.
        return home(group)
            && targets::holder(stack, namespace, &group.arn, snapshot)
                .map_or(group.name == binding.name.name, |holder| holder.name == binding.name);
    }
    let at_home = match stack {
        StackId::Ingress(name) | StackId::Service(name) => name.namespace == *namespace,
        StackId::Group(_) => {
            let finalizer = stack.finalizer();
            let served = |ingress: &Ingress| ingress.finalizers.contains(&finalizer) && !ingress.status.is_empty();
            observed.member_resources.iter().any(|resources| resources.member.name.namespace == *namespace)
                || observed.target_groups.iter().any(home)
                || in_namespace(&snapshot.ingresses, namespace).any(|(_, ingress)| served(ingress))
        }
    };
    at_home && targets::group_of(&binding.spec) == Some(&binding.name.name)
}

/// Returns the stack that a binding may be of: it carries the stack's labels, in a namespace that has a part in the stack.
fn stack_in_reach(binding: &TargetGroupBinding, snapshot: &Snapshot) -> Option<StackId> {
    let stack = StackId::of_labels(&binding.labels)?;
    let namespace = &binding.name.namespace;
    let reaches = match &stack {
        StackId::Ingress(name) | StackId::Service(name) => name.namespace == *namespace,
        StackId::Group(_) => in_namespace(&snapshot.ingresses, namespace)
            .any(|(_, ingress)| groups_of(ingress, snapshot).contains(&stack)),
    };
    reaches.then_some(stack)
}

/// A kind of object whose changes affect keys.
pub trait Dependents: SnapshotObject {
    /// The keys that a change concerns; the snapshot has it already.
    fn keys(change: &Change<Self>, snapshot: &Snapshot) -> BTreeSet<Key>;

    /// The bindings among them that lose a target by the change, which is then to be deregistered at once.
    fn departures(_change: &Change<Self>, _snapshot: &Snapshot) -> BTreeSet<Key> {
        BTreeSet::new()
    }
}

fn now<'a, T>(change: &Change<T>, objects: &'a std::collections::BTreeMap<ObjectName, T>) -> Option<&'a T> {
    objects.get(&change.name)
}

/// Returns true if an Ingress has changed, and only in the annotation of the plan: that is an output, and whoever else writes it
/// has no part in a contest with the controller.
fn differs_only_in_plan(before: &Ingress, present: &Ingress) -> bool {
    before.written_plan != present.written_plan
        && *before == Ingress { written_plan: before.written_plan, ..present.clone() }
}

impl Dependents for Ingress {
    fn keys(change: &Change<Self>, snapshot: &Snapshot) -> BTreeSet<Key> {
        let present = now(change, &snapshot.ingresses);
        if let (Some(before), Some(present)) = (&change.before, present)
            && differs_only_in_plan(before, present)
        {
            return BTreeSet::new();
        }
        let mut keys: BTreeSet<Key> = change
            .before
            .iter()
            .chain(present)
            .flat_map(|ingress| groups_of(ingress, snapshot))
            .map(Key::Stack)
            .collect();
        // The last Ingress that was released releases the shared security group: seen here, and not when the finalizer is
        // taken off, because only now does the snapshot know.
        if change.before.as_ref().is_some_and(ingress::is_held) && !present.is_some_and(ingress::is_held) {
            keys.insert(Key::BackendSecurityGroup);
        }
        keys
    }
}

fn groups_of_all<'a>(ingresses: impl Iterator<Item = &'a Ingress>, snapshot: &Snapshot) -> BTreeSet<Key> {
    ingresses.flat_map(|ingress| groups_of(ingress, snapshot)).map(Key::Stack).collect()
}

impl Dependents for IngressClass {
    fn keys(change: &Change<Self>, snapshot: &Snapshot) -> BTreeSet<Key> {
        // An Ingress without a class may be of a class that became the default, or is it no longer.
        let concerned = |ingress: &&Ingress| ingress.class.as_ref().is_none_or(|class| *class == change.name.name);
        groups_of_all(snapshot.ingresses.values().filter(concerned), snapshot)
    }
}

impl Dependents for IngressClassParams {
    fn keys(change: &Change<Self>, snapshot: &Snapshot) -> BTreeSet<Key> {
        let classes: Vec<&IngressClass> = snapshot
            .ingress_classes
            .values()
            .filter(|class| class.parameters.as_ref().is_some_and(|p| p.name == change.name.name))
            .collect();
        let concerned = |ingress: &&Ingress| {
            classes.iter().any(|class| ingress.class.as_ref().map_or(class.default, |name| *name == class.name.name))
        };
        groups_of_all(snapshot.ingresses.values().filter(concerned), snapshot)
    }
}

impl Dependents for Namespace {
    fn keys(change: &Change<Self>, snapshot: &Snapshot) -> BTreeSet<Key> {
        let labels = |namespace: Option<&Self>| namespace.map(|namespace| namespace.labels.clone());
        if labels(change.before.as_ref()) == labels(now(change, &snapshot.namespaces)) {
            return BTreeSet::new();
        }
        // Its labels decide only where a class chooses namespaces.
        if snapshot.ingress_class_params.values().all(|params| params.spec.namespace_selector.is_none()) {
            return BTreeSet::new();
        }
        in_namespace(&snapshot.ingresses, &change.name.name)
            .flat_map(|(_, ingress)| groups_of(ingress, snapshot))
            .map(Key::Stack)
            .collect()
    }
}

/// Returns true if an Ingress names a Service, in a backend or in an action.
fn names_service(ingress: &Ingress, service: &str) -> bool {
    let named = |backend: &Backend| matches!(backend, Backend::Service { name, .. } if name == service);
    ingress.default_backend.iter().any(named)
        || ingress.rules.iter().flat_map(|rule| &rule.paths).any(|path| named(&path.backend))
        || ingress
            .annotations
            .iter()
            .any(|(key, value)| registry::ingress::ACTIONS.matches(key) && NamesInAction::of(value).may_name(service))
}

fn bindings<'a>(snapshot: &'a Snapshot, service: &'a ObjectName) -> impl Iterator<Item = &'a TargetGroupBinding> {
    let of = in_namespace(&snapshot.target_group_bindings, &service.namespace).map(|(_, binding)| binding);
    of.filter(|binding| binding.spec.service_ref.name == service.name)
}

fn bindings_of(snapshot: &Snapshot, service: &ObjectName) -> Vec<Key> {
    bindings(snapshot, service).map(|binding| Key::Binding(binding.name.clone())).collect()
}

/// Returns the bindings of a Service whose targets are its pods, or may be: the target type may be unknown.
fn bindings_to_pods(snapshot: &Snapshot, service: &ObjectName) -> BTreeSet<Key> {
    let to_pods = |binding: &&TargetGroupBinding| binding.spec.target_type != Some(TargetType::Instance);
    bindings(snapshot, service).filter(to_pods).map(|binding| Key::Binding(binding.name.clone())).collect()
}

/// Returns the stacks of the other Services whose listeners forward to a Service.
fn stacks_forwarding_to<'a>(snapshot: &'a Snapshot, service: &'a ObjectName) -> impl Iterator<Item = StackId> {
    let forwards = |owner: &Service| {
        let mut written = owner.annotations.iter();
        written.any(|(key, value)| {
            registry::service::ACTIONS.matches(key) && NamesInAction::of(value).may_name(&service.name)
        })
    };
    let others = in_namespace(&snapshot.services, &service.namespace).filter(move |(name, _)| *name != service);
    others.filter(move |(_, owner)| forwards(owner)).filter_map(|(_, owner)| service::stack_of(owner))
}

impl Dependents for Service {
    fn keys(change: &Change<Self>, snapshot: &Snapshot) -> BTreeSet<Key> {
        let present = now(change, &snapshot.services);
        let mut keys: BTreeSet<Key> = in_namespace(&snapshot.ingresses, &change.name.namespace)
            .filter(|(_, ingress)| names_service(ingress, &change.name.name))
            .flat_map(|(_, ingress)| groups_of(ingress, snapshot))
            .chain(stacks_forwarding_to(snapshot, &change.name))
            .chain(change.before.iter().chain(present).filter_map(service::stack_of))
            .map(Key::Stack)
            .chain(bindings_of(snapshot, &change.name))
            .collect();
        // As with Ingresses: the last one that was released releases the shared security group.
        if change.before.as_ref().is_some_and(service::is_held) && !present.is_some_and(service::is_held) {
            keys.insert(Key::BackendSecurityGroup);
        }
        keys
    }
}

impl Dependents for EndpointSlice {
    fn keys(change: &Change<Self>, snapshot: &Snapshot) -> BTreeSet<Key> {
        change
            .before
            .iter()
            .chain(now(change, &snapshot.endpoint_slices))
            .flat_map(|slice| bindings_of(snapshot, &ObjectName::new(&slice.name.namespace, &slice.service)))
            .collect()
    }

    fn departures(change: &Change<Self>, snapshot: &Snapshot) -> BTreeSet<Key> {
        let Some(before) = &change.before else { return BTreeSet::new() };
        let service = ObjectName::new(&before.name.namespace, &before.service);
        let concerned = bindings_to_pods(snapshot, &service);
        if concerned.is_empty() {
            return concerned;
        }
        let of = snapshot.services.get(&service);
        let present = now(change, &snapshot.endpoint_slices).filter(|slice| slice.service == before.service);
        let endpoints = present.into_iter().flat_map(|slice| &slice.endpoints);
        let endpoints: BTreeMap<&str, &EndpointAddress> = endpoints.map(|e| (e.address.as_str(), e)).collect();
        let readiness = |endpoint: &EndpointAddress| {
            let pod = endpoint.pod.as_ref().map(|pod| ObjectName::new(&service.namespace, &pod.name));
            readiness_with(snapshot, of, endpoint, pod.and_then(|pod| snapshot.pods.get(&pod)))
        };
        let is_lost = |old: &EndpointAddress| {
            let new = endpoints.get(old.address.as_str());
            new.is_none_or(|new| **new != *old)
                && departs(readiness(old), new.map_or(Readiness::NotReady, |new| readiness(new)))
        };
        if before.endpoints.iter().any(is_lost) { concerned } else { BTreeSet::new() }
    }
}

fn is_of(endpoint: &EndpointAddress, pod: &ObjectName) -> bool {
    endpoint.pod.as_ref().is_some_and(|reference| reference.name == pod.name)
}

impl Dependents for Pod {
    fn keys(change: &Change<Self>, snapshot: &Snapshot) -> BTreeSet<Key> {
        let namespace = &change.name.namespace;
        if in_namespace(&snapshot.target_group_bindings, namespace).next().is_none() {
            return BTreeSet::new();
        }
        in_namespace(&snapshot.endpoint_slices, namespace)
            .filter(|(_, slice)| slice.endpoints.iter().any(|e| is_of(e, &change.name)))
            .flat_map(|(_, slice)| bindings_of(snapshot, &ObjectName::new(namespace, &slice.service)))
            .collect()
    }

    fn departures(change: &Change<Self>, snapshot: &Snapshot) -> BTreeSet<Key> {
        let Some(before) = &change.before else { return BTreeSet::new() };
        let (after, namespace) = (now(change, &snapshot.pods), &change.name.namespace);
        let decisive = |pod: &Pod| (pod.uid.clone(), pod.deleting, pod.containers_ready, pod.node.clone());
        if after.is_some_and(|after| decisive(after) == decisive(before) && after.addresses == before.addresses)
            || in_namespace(&snapshot.target_group_bindings, namespace).next().is_none()
        {
            return BTreeSet::new();
        }
        let loses = |slice: &EndpointSlice| {
            let mut endpoints = slice.endpoints.iter().filter(|endpoint| is_of(endpoint, &change.name)).peekable();
            if endpoints.peek().is_none() {
                return false;
            }
            let service = snapshot.services.get(&ObjectName::new(namespace, &slice.service));
            let readiness = |endpoint, pod| readiness_with(snapshot, service, endpoint, pod);
            endpoints.any(|endpoint| departs(readiness(endpoint, Some(before)), readiness(endpoint, after)))
        };
        in_namespace(&snapshot.endpoint_slices, namespace)
            .filter(|(_, slice)| loses(slice))
            .flat_map(|(name, slice)| bindings_to_pods(snapshot, &ObjectName::new(&name.namespace, &slice.service)))
            .collect()
    }
}

impl Dependents for Node {
    fn keys(_: &Change<Self>, snapshot: &Snapshot) -> BTreeSet<Key> {
        snapshot.target_group_bindings.keys().cloned().map(Key::Binding).collect()
    }

    fn departures(change: &Change<Self>, snapshot: &Snapshot) -> BTreeSet<Key> {
        let serves = |node: &Node| node.ready == Readiness::Ready && may_take_traffic(node);
        if !change.before.as_ref().is_some_and(serves) || now(change, &snapshot.nodes).is_some_and(serves) {
            return BTreeSet::new();
        }
        // The target type of a binding may be unknown; pods at their own addresses depart by themselves.
        let to_nodes = |binding: &&TargetGroupBinding| binding.spec.target_type != Some(TargetType::Ip);
        let bindings = snapshot.target_group_bindings.values().filter(to_nodes);
        bindings.map(|binding| Key::Binding(binding.name.clone())).collect()
    }
}

impl Dependents for TargetGroupBinding {
    fn keys(change: &Change<Self>, snapshot: &Snapshot) -> BTreeSet<Key> {
        let mut keys = BTreeSet::from([Key::Binding(change.name.clone())]);
        for binding in change.before.iter().chain(now(change, &snapshot.target_group_bindings)) {
            keys.extend(stack_in_reach(binding, snapshot).map(Key::Stack));
            // Of several bindings of one target group only one works, so each matters to the others.
            if let Some(group) = targets::group_of(&binding.spec) {
                let others = snapshot.target_group_bindings.values();
                keys.extend(
                    others
                        .filter(|other| targets::group_of(&other.spec) == Some(group))
                        .map(|other| Key::Binding(other.name.clone())),
                );
            }
        }
        if !change.present {
            keys.insert(Key::NodeRules);
        }
        keys
    }
}

/// Returns the stacks that no Ingress and no Service of the cluster belongs to. Where only one namespace is watched, stacks of others
/// are not judged, nor are groups that no Ingress of it belongs to: their objects may be elsewhere.
pub fn without_object(stacks: BTreeSet<StackId>, snapshot: &Snapshot, watched: &str) -> BTreeSet<StackId> {
    let judged = |stack: &StackId| match stack {
        StackId::Ingress(name) | StackId::Service(name) => watched.is_empty() || name.namespace == watched,
        StackId::Group(_) => watched.is_empty(),
    };
    let known: BTreeSet<StackId> = desired::possible_stacks(snapshot).collect();
    stacks.into_iter().filter(|stack| judged(stack) && !known.contains(stack)).collect()
}

#[cfg(test)]
mod tests;
