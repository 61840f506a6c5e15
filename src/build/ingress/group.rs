//! Who belongs to a group of Ingresses. Explicit groups are not built yet, so each Ingress is a group of its own, and one
//! that asks for a group is refused ([`super::build`]).

use std::collections::BTreeSet;

use super::class::{Ownership, ownership};
use crate::{
    api::annotations::Annotations,
    build::{BuildConfig, Code, Diagnostic, Severity, findings::Findings, tags},
    model::{ObjectName, ObjectReference, StackId},
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
pub fn groups_of(ingress: &Ingress) -> BTreeSet<StackId> {
    let mut groups = BTreeSet::from([StackId::Ingress(ingress.name.clone())]);
    for finalizer in &ingress.finalizers {
        if let Some(name) = finalizer.strip_prefix("group.ingress.k8s.aws/") {
            groups.insert(StackId::Group(name.to_owned()));
        }
    }
    groups
}

/// Tells who belongs to a group.
#[must_use]
pub fn membership(snapshot: &Snapshot, config: &BuildConfig, group: &StackId) -> Membership {
    let mut membership = Membership::default();
    // What another controller made of an explicit group stays as it is until groups are built.
    let StackId::Ingress(name) = group else { return membership };
    let Some(ingress) = snapshot.ingresses.get(name) else { return membership };
    let held = ingress.finalizers.contains(&tags::finalizer(group));
    if ingress.deleting {
        if held && let Some(diagnostic) = protected(ingress) {
            membership.broken.push(diagnostic);
        } else if held {
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

/// Why a deleted Ingress must stay: its own annotation protects the load balancer. What AWS says does not count, nor a value that is
/// no truth (reference: ingress §1.5).
fn protected(ingress: &Ingress) -> Option<Diagnostic> {
    let object = ObjectReference::ingress(&ingress.name);
    let annotations = Annotations::of_ingress(&ingress.annotations);
    match annotations.string_map("load-balancer-attributes") {
        Ok(attributes) => {
            let value = attributes?.remove("deletion_protection.enabled")?;
            TRUE.contains(&value.as_str()).then(|| Diagnostic {
                code: Code::Refused,
                severity: Severity::Error,
                object,
                field: "alb.ingress.kubernetes.io/load-balancer-attributes".to_owned(),
                message: "the Ingress is deleted, but `deletion_protection.enabled` keeps its load balancer".to_owned(),
                fix: "set `deletion_protection.enabled=false` in the annotation, and the load balancer goes with the Ingress".to_owned(),
            })
        }
        Err(error) => {
            let mut findings = Findings::default();
            findings.annotation_error(object, &error);
            findings.diagnostics.pop()
        }
    }
}

/// What Go takes for true.
const TRUE: [&str; 6] = ["1", "t", "T", "TRUE", "true", "True"];
