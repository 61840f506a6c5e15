//! The annotation `dry-run-plan`: the desired state of a group of Ingresses as a document, in the form in which
//! aws-load-balancer-controller writes it, on the group's first member. It is an output, which decides nothing. Tools that compare
//! an Ingress with a Gateway read it, and take the one member that has it for the holder of the group's plan.

mod actions;
mod document;

use std::{collections::BTreeSet, fmt};

use sha2::{Digest, Sha256};

use crate::{
    api::annotations::registry::ingress as keys,
    desired::Membership,
    diagnostics::{Code, Diagnostic, Severity},
    model::{ObjectName, ObjectReference, Stack, StackId},
    snapshot::{Ingress, Snapshot},
};

pub use document::document;

/// The key of the annotation.
pub const KEY: &str = keys::DRY_RUN_PLAN.as_str();

/// The most bytes that all keys and values of an object's annotations may have together (Kubernetes, `ValidateAnnotations`).
const MOST_BYTES: usize = 256 * 1024;

/// The hash of the annotation's text: enough to see if it has to be written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WrittenPlan([u8; 32]);

impl WrittenPlan {
    /// Returns that of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

impl fmt::Debug for WrittenPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrittenPlan({})", hex::encode(&self.0[..4]))
    }
}

/// The annotation of an Ingress that is to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanWrite {
    /// The Ingress.
    pub name: ObjectName,
    /// Its UID.
    pub uid: String,
    /// The annotation as the snapshot shows it.
    pub shown: Option<WrittenPlan>,
    /// The text to write; `None` removes the annotation.
    pub text: Option<String>,
}

/// The changes of the annotation in a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanWrites {
    /// The changes, the removals first: at no time do two members have a plan.
    pub writes: Vec<PlanWrite>,
    /// The reason why the plan is not written.
    pub too_large: Option<Diagnostic>,
}

/// Returns the changes of the annotation on the members of a group. With the feature gate `IngressPlanAnnotation` the first
/// member gets the plan, and no other one keeps one; without it, none does. Members of another group are left to it.
#[must_use]
pub fn writes(enabled: bool, stack: &Stack, membership: &Membership, snapshot: &Snapshot) -> PlanWrites {
    match stack.id {
        StackId::Group(_) | StackId::Ingress(_) => {}
        StackId::Service(_) => return PlanWrites::default(),
    }
    let elsewhere: BTreeSet<&ObjectName> = membership.moving.iter().chain(&membership.followed).collect();
    let is_here = |ingress: &&Ingress| !ingress.deleting && !elsewhere.contains(&ingress.name);
    let here = |name| snapshot.ingresses.get(name).filter(is_here);
    let mut found = PlanWrites::default();
    let mut holder = None;
    if enabled && let Some(first) = membership.members.iter().find_map(here) {
        let text = document(stack);
        let others: usize = first.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        let size = others + KEY.len() + text.len();
        if size <= MOST_BYTES {
            holder = Some((first, text));
        } else {
            found.too_large = Some(too_large(&first.name, size));
        }
    }
    let write = |ingress: &Ingress, text| PlanWrite {
        name: ingress.name.clone(),
        uid: ingress.uid.clone(),
        shown: ingress.written_plan,
        text,
    };
    for other in membership.members.iter().chain(&membership.leaving).filter_map(here) {
        let is_holder = holder.as_ref().is_some_and(|(first, _)| first.name == other.name);
        if other.written_plan.is_some() && !is_holder {
            found.writes.push(write(other, None));
        }
    }
    if let Some((first, text)) = holder
        && first.written_plan != Some(WrittenPlan::of(&text))
    {
        found.writes.push(write(first, Some(text)));
    }
    found
}

fn too_large(name: &ObjectName, size: usize) -> Diagnostic {
    Diagnostic {
        code: Code::NoEffect,
        severity: Severity::Warning,
        object: ObjectReference::ingress(name),
        field: KEY.to_owned(),
        message: format!(
            "the plan is not written: with it, the annotations would have {size} bytes, and an object takes {MOST_BYTES}"
        ),
        fix: "divide the group, or shorten its other annotations".to_owned(),
    }
}

#[cfg(test)]
mod tests;
