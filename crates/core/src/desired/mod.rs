//! From the cluster's objects to the desired AWS resources. Pure: no I/O, no clock. Building never stops at the first
//! mistake: it returns the stack that it could build with every diagnostic.
//!
//! Only this module decides which source a stack is built from. Every match names all kinds of stacks, and `Sources` all kinds
//! of objects, so that a further kind does not compile until each place says what it does with it.

mod config;
mod diagnostic_sink;
#[cfg(test)]
mod examples;
mod membership;
mod shared;
pub mod sources;

use std::collections::BTreeSet;

pub use config::BuildConfig;
pub use diagnostic_sink::Built;
pub use membership::Membership;

use crate::{
    facts::Facts,
    model::{ObjectName, ObjectReference, StackId},
    snapshot::{Ingress, Objects, Service, Snapshot, StatusEntry},
};
use sources::{ingress, service};

/// The objects of a snapshot that request stacks.
struct Sources<'a> {
    ingresses: &'a Objects<Ingress>,
    services: &'a Objects<Service>,
}

impl<'a> Sources<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let Snapshot {
            scope: _,
            server_id_variable: _,
            ingresses,
            ingress_classes: _,
            ingress_class_params: _,
            namespaces: _,
            unreadable: _,
            services,
            endpoint_slices: _,
            pods: _,
            nodes: _,
            target_group_bindings: _,
        } = snapshot;
        Self { ingresses, services }
    }
}

/// Returns the stacks that the objects of a snapshot may belong to, object by object: a group of several Ingresses as often as
/// an Ingress may belong to it. The membership of a stack says whether one does.
pub fn possible_stacks(snapshot: &Snapshot) -> impl Iterator<Item = StackId> {
    let Sources { ingresses, services } = Sources::of(snapshot);
    let of_ingresses = ingresses.values().flat_map(|ingress| ingress::groups_of(ingress, snapshot));
    of_ingresses.chain(services.values().filter_map(service::stack_of))
}

/// Returns the stacks of all objects of a snapshot whose kinds are served, each once and in the order of the stacks, with
/// its membership. The membership of a stack that no object requests is empty.
pub fn stacks(snapshot: &Snapshot, config: &BuildConfig) -> impl Iterator<Item = (StackId, Membership)> {
    let Sources { ingresses: _, services } = Sources::of(snapshot);
    let of_services =
        services.keys().map(|name| (StackId::Service(name.clone()), service::membership(snapshot, config, name)));
    ingress::memberships(snapshot, config).chain(of_services).filter(|(stack, _)| is_served(config, stack))
}

/// Returns the objects of a snapshot that request stacks and were not planned, each with the reason, as the end of a
/// sentence.
pub fn unplanned<'a>(
    snapshot: &'a Snapshot,
    config: &'a BuildConfig,
    planned: &'a BTreeSet<ObjectReference>,
) -> impl Iterator<Item = (ObjectReference, String)> {
    let Sources { ingresses, services } = Sources::of(snapshot);
    let of_ingresses = ingresses.values().filter_map(move |ingress| {
        let object = Some(ObjectReference::ingress(&ingress.name)).filter(|object| !planned.contains(object))?;
        Some((object, ingress::class::unplanned_because(ingress, snapshot, config)))
    });
    let of_services = services.values().filter_map(move |service| {
        let object = Some(ObjectReference::service(&service.name)).filter(|object| !planned.contains(object))?;
        Some((object, service::unplanned_because(service, config)))
    });
    of_ingresses.chain(of_services)
}

/// Returns true if the controller serves stacks of this kind.
#[must_use]
pub fn is_served(config: &BuildConfig, stack: &StackId) -> bool {
    match stack {
        StackId::Group(_) | StackId::Ingress(_) => true,
        StackId::Service(_) => config.enable_services,
    }
}

/// Returns the objects that a stack is for.
#[must_use]
pub fn membership(snapshot: &Snapshot, config: &BuildConfig, stack: &StackId) -> Membership {
    match stack {
        StackId::Group(_) | StackId::Ingress(_) => ingress::membership(snapshot, config, stack),
        StackId::Service(name) => service::membership(snapshot, config, name),
    }
}

/// Builds a stack for its members.
#[must_use]
pub fn build(
    snapshot: &Snapshot,
    config: &BuildConfig,
    facts: &Facts,
    stack: &StackId,
    membership: &Membership,
) -> Built {
    match stack {
        StackId::Group(_) | StackId::Ingress(_) => ingress::build(snapshot, config, facts, stack, membership),
        StackId::Service(name) => service::build(snapshot, config, facts, name),
    }
}

/// The parts of a member that every kind of object has.
#[derive(Clone, Copy, Debug)]
pub struct MemberObject<'a> {
    /// `metadata.uid`; empty in files.
    pub uid: &'a str,
    /// All finalizers.
    pub finalizers: &'a [String],
    /// `status.loadBalancer.ingress`
    pub status: &'a [StatusEntry],
}

/// Returns a member of a stack as the snapshot has it.
#[must_use]
pub fn member<'a>(snapshot: &'a Snapshot, stack: &StackId, name: &ObjectName) -> Option<MemberObject<'a>> {
    match stack {
        StackId::Group(_) | StackId::Ingress(_) => {
            let Ingress { uid, finalizers, status, .. } = snapshot.ingresses.get(name)?;
            Some(MemberObject { uid, finalizers, status })
        }
        StackId::Service(_) => {
            let Service { uid, finalizers, status, .. } = snapshot.services.get(name)?;
            Some(MemberObject { uid, finalizers, status })
        }
    }
}

/// Returns the status of a member that the controller publishes: that of a Service has it only with the type
/// `LoadBalancer`, although another type may keep what it had before.
#[must_use]
pub fn published<'a>(snapshot: &'a Snapshot, stack: &StackId, name: &ObjectName) -> &'a [StatusEntry] {
    let other = |service: &Service| !service::has_status(service);
    match stack {
        StackId::Service(_) if snapshot.services.get(name).is_some_and(other) => &[],
        _ => member(snapshot, stack, name).map(|member| member.status).unwrap_or_default(),
    }
}

/// Returns the host names, in lower case, by which the build distinguishes the load balancer that clients are sent to from others of
/// the stack. A group of Ingresses does not depend on it.
#[must_use]
pub fn shown_hosts(snapshot: &Snapshot, stack: &StackId) -> BTreeSet<String> {
    match stack {
        StackId::Group(_) | StackId::Ingress(_) => BTreeSet::new(),
        StackId::Service(name) => service::shown_hosts(snapshot, name),
    }
}

/// Returns true if the status of a member is cleared when the stack releases it. That of an Ingress stays.
#[must_use]
pub fn clears_status(snapshot: &Snapshot, stack: &StackId, name: &ObjectName) -> bool {
    match stack {
        StackId::Group(_) | StackId::Ingress(_) => false,
        StackId::Service(_) => service::clears_status(snapshot, name),
    }
}

/// Returns true if some object has, or will have, a load balancer in the shared security group.
#[must_use]
pub fn needs_backend_security_group(snapshot: &Snapshot, config: &BuildConfig) -> bool {
    let Sources { ingresses, services } = Sources::of(snapshot);
    ingresses.values().any(|ingress| ingress::is_held(ingress) || ingress::is_ours(ingress, snapshot, config))
        || services
            .values()
            .any(|service| service::is_held(service) || service::ownership(service, config) == service::Ownership::Ours)
}
