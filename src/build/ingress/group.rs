//! Who belongs to a group of Ingresses. Explicit groups are not built yet, so each Ingress is a group of its own, and one
//! that asks for a group is refused ([`super::build`]).

use std::collections::BTreeSet;

use super::class::{Ownership, ownership};
use crate::{
    build::{BuildConfig, Diagnostic, tags},
    model::{GroupId, ObjectName},
    snapshot::{Ingress, Snapshot},
};

/// The Ingresses of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Those that the load balancer shall serve, in their order.
    pub members: Vec<ObjectName>,
    /// Those that carry the group's finalizer and no longer belong to it: deleted, or of another class now.
    pub leaving: Vec<ObjectName>,
    /// Why one that carries the finalizer can neither be served nor let go.
    pub broken: Vec<Diagnostic>,
}

impl Membership {
    /// Whether the group has anybody at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.leaving.is_empty() && self.broken.is_empty()
    }
}

/// The groups that an Ingress has to do with: the one it belongs to, and those whose finalizers it carries.
#[must_use]
pub fn groups_of(ingress: &Ingress) -> BTreeSet<GroupId> {
    let mut groups = BTreeSet::from([GroupId::Implicit(ingress.name.clone())]);
    for finalizer in &ingress.finalizers {
        if let Some(name) = finalizer.strip_prefix("group.ingress.k8s.aws/") {
            groups.insert(GroupId::Explicit(name.to_owned()));
        }
    }
    groups
}

/// Tells who belongs to a group.
#[must_use]
pub fn membership(snapshot: &Snapshot, config: &BuildConfig, group: &GroupId) -> Membership {
    let mut membership = Membership::default();
    // What another controller made of an explicit group stays as it is until groups are built.
    let GroupId::Implicit(name) = group else { return membership };
    let Some(ingress) = snapshot.ingresses.get(name) else { return membership };
    let held = ingress.finalizers.contains(&tags::ingress_finalizer(group));
    if ingress.deleting {
        if held {
            membership.leaving.push(name.clone());
        }
        return membership;
    }
    match ownership(ingress, snapshot, config) {
        Ownership::Ours => membership.members.push(name.clone()),
        Ownership::Foreign if held => membership.leaving.push(name.clone()),
        // A class that went away may come back: nothing is torn down for it.
        Ownership::Broken(diagnostic) if held || !names_missing_class(snapshot, ingress) || meant_for_us(ingress) => {
            membership.broken.push(*diagnostic);
        }
        Ownership::Foreign | Ownership::Broken(_) => {}
    }
    membership
}

/// Whether its class does not exist: then it may be any controller's.
fn names_missing_class(snapshot: &Snapshot, ingress: &Ingress) -> bool {
    ingress.class.as_ref().is_some_and(|class| !snapshot.ingress_classes.contains_key(&ObjectName::new("", class)))
}

/// Whether it has annotations that only this controller reads.
fn meant_for_us(ingress: &Ingress) -> bool {
    ingress.annotations.keys().any(|key| key.starts_with("alb.ingress.kubernetes.io/"))
}
