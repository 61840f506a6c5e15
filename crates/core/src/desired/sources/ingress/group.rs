//! The members of a group of Ingresses (reference: ingress §1.2 to §1.5).

use std::collections::{BTreeMap, BTreeSet};

use super::class::{Ownership, ownership, params_named};
use crate::{
    api::annotations::{Annotations, Key, registry::ingress as keys, values::parse_bool},
    desired::{BuildConfig, Membership, diagnostic_sink::DiagnosticSink},
    diagnostics::{Code, Diagnostic, Severity},
    model::{DELETION_PROTECTION, ObjectName, ObjectReference, StackId, is_ingress_finalizer},
    snapshot::{Ingress, IngressClassParams, Snapshot},
};

const GROUP_NAME: &str = keys::GROUP_NAME.as_str();

/// Returns the groups that an Ingress may concern: the groups that it or its class may name, and the groups whose finalizers
/// it carries.
#[must_use]
pub fn groups_of(ingress: &Ingress, snapshot: &Snapshot) -> BTreeSet<StackId> {
    let named = group_name(ingress, params_named(ingress, snapshot));
    let named = named.filter(|name| is_group_name(name)).map(|name| StackId::Group(name.to_owned()));
    let held = ingress.finalizers.iter().filter_map(|finalizer| StackId::group_of_finalizer(finalizer));
    [StackId::Ingress(ingress.name.clone())].into_iter().chain(named).chain(held).collect()
}

/// Returns the name of the group that an Ingress requests; its class comes before its annotation.
fn group_name<'a>(ingress: &'a Ingress, params: Option<&'a IngressClassParams>) -> Option<&'a str> {
    match params.and_then(|params| params.spec.group.as_ref()) {
        Some(group) => Some(&group.name),
        None => ingress.annotations.get(GROUP_NAME).map(String::as_str),
    }
}

/// Returns true if the name begins and ends with a letter or digit, and has at most 63 of those, `-` and `.`.
fn is_group_name(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 63
        && name.starts_with(alphanumeric)
        && name.ends_with(alphanumeric)
        && name.chars().all(|c| alphanumeric(c) || matches!(c, '-' | '.'))
}

/// Returns the group of an Ingress that the controller serves.
fn group_of(
    ingress: &Ingress,
    params: Option<&IngressClassParams>,
    config: &BuildConfig,
) -> Result<StackId, Box<Diagnostic>> {
    let of_class = params.filter(|params| params.spec.group.is_some());
    // A member that a group already serves stays in it: the flag stops new ones.
    let refused = |name: &str| {
        let held = is_published(ingress) && ingress.finalizers.contains(&StackId::Group(name.to_owned()).finalizer());
        config.no_group_annotation && of_class.is_none() && !held
    };
    match group_name(ingress, params) {
        Some(name) if refused(name) => Err(Box::new(Diagnostic {
            code: Code::Refused,
            severity: Severity::Error,
            object: ObjectReference::ingress(&ingress.name),
            field: GROUP_NAME.to_owned(),
            message: format!(
                "the annotation `{GROUP_NAME}` is switched off (--disable-ingress-group-name-annotation), so the Ingress does not join the group `{name}`"
            ),
            fix: "remove the annotation, or name a class whose IngressClassParams have the group in spec.group.name"
                .to_owned(),
        })),
        None => Ok(StackId::Ingress(ingress.name.clone())),
        Some(name) if is_group_name(name) => Ok(StackId::Group(name.to_owned())),
        Some(name) => Err(Box::new(Diagnostic {
            code: Code::InvalidValue,
            severity: Severity::Error,
            object: ObjectReference::ingress(&ingress.name),
            field: of_class.map_or(GROUP_NAME, |_| "spec.ingressClassName").to_owned(),
            message: match of_class {
                Some(params) => {
                    let object = ObjectReference::ingress_class_params(&params.name);
                    format!("{object}, spec.group.name: `{name}` is not a valid name of a group")
                }
                None => format!("`{name}` is not a valid name of a group"),
            },
            fix: "write at most 63 of `a-z`, `0-9`, `-` and `.`, beginning and ending with a letter or digit"
                .to_owned(),
        })),
    }
}

/// Returns true if the status names a load balancer. An Ingress with the finalizers has been served only if this is so,
/// because every user who may write the Ingress may write its finalizers.
pub(super) fn is_published(ingress: &Ingress) -> bool {
    ingress.status.iter().any(|entry| !entry.hostname.is_empty())
}

/// The role of an Ingress in a group.
enum Role {
    Member,
    /// Its part stays unchanged; the diagnostics give the reason, where a user has to act.
    Frozen(Option<Box<Diagnostic>>),
    Leaving,
    /// Leaving for another group.
    Moving,
    None,
}

/// Returns the members of a group.
#[must_use]
pub fn membership(snapshot: &Snapshot, config: &BuildConfig, stack: &StackId) -> Membership {
    let candidates: Vec<&Ingress> = match stack {
        StackId::Ingress(name) => snapshot.ingresses.get(name).into_iter().collect(),
        StackId::Group(_) => snapshot.ingresses.values().collect(),
        StackId::Service(_) => Vec::new(),
    };
    membership_among(candidates, snapshot, config, stack)
}

/// Returns the stacks that [`groups_of`] gives for the Ingresses of a snapshot, in their order, each with its membership.
pub(in crate::desired) fn memberships(
    snapshot: &Snapshot,
    config: &BuildConfig,
) -> impl Iterator<Item = (StackId, Membership)> {
    let mut candidates: BTreeMap<StackId, Vec<&Ingress>> = BTreeMap::new();
    for ingress in snapshot.ingresses.values() {
        for stack in groups_of(ingress, snapshot) {
            candidates.entry(stack).or_default().push(ingress);
        }
    }
    candidates.into_iter().map(|(stack, candidates)| {
        let membership = membership_among(candidates, snapshot, config, &stack);
        (stack, membership)
    })
}

/// Returns the members of a group, from candidates that include all that [`groups_of`] gives the group.
fn membership_among<'a>(
    candidates: impl IntoIterator<Item = &'a Ingress>,
    snapshot: &'a Snapshot,
    config: &BuildConfig,
    stack: &StackId,
) -> Membership {
    let mut membership = Membership::default();
    let mut members: Vec<(i32, &ObjectName)> = Vec::new();
    for ingress in candidates {
        match role(ingress, snapshot, config, stack) {
            Role::None => {}
            Role::Leaving => membership.leaving.push(ingress.name.clone()),
            Role::Moving => {
                membership.leaving.push(ingress.name.clone());
                membership.moving.insert(ingress.name.clone());
            }
            role => {
                let (place, mistake) = order(ingress);
                members.push((place, &ingress.name));
                let diagnostic = match role {
                    Role::Frozen(diagnostic) => Some(diagnostic.map(|diagnostic| *diagnostic)),
                    _ => mistake.map(Some),
                };
                if let Some(diagnostic) = diagnostic {
                    membership.frozen.insert(ingress.name.clone());
                    membership.broken.extend(diagnostic);
                }
            }
        }
    }
    members.sort_by_cached_key(|(place, name)| (*place, name.to_string()));
    membership.members = members.into_iter().map(|(_, name)| name.clone()).collect();
    membership
}

fn role(ingress: &Ingress, snapshot: &Snapshot, config: &BuildConfig, group: &StackId) -> Role {
    let held = match group {
        StackId::Group(_) => ingress.finalizers.contains(&group.finalizer()),
        StackId::Ingress(name) => *name == ingress.name && ingress.finalizers.contains(&group.finalizer()),
        StackId::Service(_) => false,
    };
    if ingress.deleting {
        return match protected(ingress).filter(|_| held) {
            Some(why) => Role::Frozen(Some(Box::new(why))),
            None if held => Role::Leaving,
            None => Role::None,
        };
    }
    match ownership(ingress, snapshot, config) {
        Ownership::Ours(params) => match group_of(ingress, params, config) {
            Ok(its) if its == *group => Role::Member,
            // Its new group serves it when its status names another host; until then this one does.
            Ok(_) if held => Role::Moving,
            Ok(_) => Role::None,
            // If no group holds it, it is reported on its implicit group.
            Err(mistake) if held || is_alone(ingress, group) => Role::Frozen(Some(mistake)),
            Err(_) => Role::None,
        },
        Ownership::Foreign if held => Role::Leaving,
        // A class that went away may come back: nothing is torn down for it.
        Ownership::Broken(mistake) if held => Role::Frozen(Some(mistake)),
        Ownership::Broken(mistake)
            if is_alone(ingress, group) && (!names_missing_class(snapshot, ingress) || meant_for_us(ingress)) =>
        {
            Role::Frozen(Some(mistake))
        }
        Ownership::Foreign | Ownership::Broken(_) => Role::None,
    }
}

/// Returns true if the group is the implicit one of the Ingress, and no other group holds it.
fn is_alone(ingress: &Ingress, stack: &StackId) -> bool {
    *stack == StackId::Ingress(ingress.name.clone()) && !is_held(ingress)
}

/// Returns true if the finalizer of some group of Ingresses holds the Ingress.
#[must_use]
pub fn is_held(ingress: &Ingress) -> bool {
    ingress.finalizers.iter().any(|finalizer| is_ingress_finalizer(finalizer))
}

/// Returns true if an Ingress that is not being deleted is this controller's.
pub(in crate::desired) fn is_ours(ingress: &Ingress, snapshot: &Snapshot, config: &BuildConfig) -> bool {
    !ingress.deleting && matches!(ownership(ingress, snapshot, config), Ownership::Ours(_))
}

/// Returns the place of a member: lower numbers come first, equal ones in the order of the bytes of `namespace/name` (reference:
/// ingress §1.2).
fn order(ingress: &Ingress) -> (i32, Option<Diagnostic>) {
    match Annotations::of_ingress(&ingress.annotations).i32(keys::GROUP_ORDER) {
        Ok(order) => (order.unwrap_or(0), None),
        Err(error) => {
            let mut sink = DiagnosticSink::default();
            sink.annotation_error(ObjectReference::ingress(&ingress.name), &error);
            (0, sink.diagnostics.pop())
        }
    }
}

/// Returns true if its class does not exist: then it may be any controller's.
fn names_missing_class(snapshot: &Snapshot, ingress: &Ingress) -> bool {
    ingress.class.as_ref().is_some_and(|class| !snapshot.ingress_classes.contains_key(&ObjectName::new("", class)))
}

/// Returns true if it has annotations that only this controller reads.
pub(super) fn meant_for_us(ingress: &Ingress) -> bool {
    ingress.annotations.keys().any(|key| key.starts_with("alb.ingress.kubernetes.io/"))
}

/// Returns true if an Ingress that is not being deleted no longer belongs to a group, judged by this snapshot.
#[must_use]
pub fn has_left(ingress: &Ingress, snapshot: &Snapshot, config: &BuildConfig, stack: &StackId) -> bool {
    matches!(role(ingress, snapshot, config, stack), Role::Leaving | Role::Moving | Role::None)
}

/// Returns why a deleted Ingress must stay with its part of the load balancer: its own annotation protects the load balancer, or
/// cannot be read. A value that Go does not parse as true protects nothing (reference: ingress §1.5).
fn protected(ingress: &Ingress) -> Option<Diagnostic> {
    let object = ObjectReference::ingress(&ingress.name);
    let annotations = Annotations::of_ingress(&ingress.annotations);
    match annotations.string_map(keys::LOAD_BALANCER_ATTRIBUTES) {
        Ok(attributes) => {
            let value = attributes?.remove(DELETION_PROTECTION)?;
            (parse_bool(&value) == Ok(true)).then(|| Diagnostic {
                code: Code::Refused,
                severity: Severity::Error,
                object,
                field: keys::LOAD_BALANCER_ATTRIBUTES.to_string(),
                message: "the Ingress is deleted, but `deletion_protection.enabled` keeps its load balancer".to_owned(),
                fix: "set `deletion_protection.enabled=false` in the annotation, and the load balancer goes with the Ingress".to_owned(),
            })
        }
        Err(error) => {
            let mut sink = DiagnosticSink::default();
            sink.annotation_error(object, &error);
            sink.diagnostics.pop()
        }
    }
}

/// Returns true if Ingresses release a protected load balancer: one for which `has_a_say` is true sets
/// `deletion_protection.enabled=false` in the annotation with its attributes, and none protects the load balancer.
pub(super) fn releases_protected(ingresses: &[&Ingress], key: Key, has_a_say: impl Fn(&Ingress) -> bool) -> bool {
    let said = ingresses.iter().filter_map(|ingress| {
        let attributes = Annotations::of_ingress(&ingress.annotations).string_map(key).ok()??;
        let protects = parse_bool(attributes.get(DELETION_PROTECTION)?).ok()?;
        (protects || has_a_say(ingress)).then_some(protects)
    });
    let said: BTreeSet<bool> = said.collect();
    said.contains(&false) && !said.contains(&true)
}
