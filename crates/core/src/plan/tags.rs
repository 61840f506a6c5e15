//! Tags that nothing requests any more.
//!
//! If a record names the tags that the controller has set, only these are removed. Without a record, all tags that the stack
//! does not request are removed, as aws-load-balancer-controller removes them, except those of earlier controllers. `--external-managed-tags`, AWS's own tags and
//! the tags that name the owner of a resource always stay.

use std::collections::BTreeSet;

use crate::model::{
    ObjectReference, ObservedStack, ResourceId, Stack, TagKeys, Tags,
    tags::{TRACKING, is_of_legacy},
};

/// The tags that a resource may have (ELB v2 and EC2: 50 a resource, AWS's own not counted).
const MAX_TAGS: usize = 50;

/// Returns true if the missing tags fit in addition to the existing ones.
pub(super) fn have_room(missing: &Tags, existing: &Tags) -> bool {
    let counted = existing.keys().filter(|key| !key.starts_with("aws:"));
    counted.chain(missing.keys().filter(|key| !existing.contains_key(*key))).count() <= MAX_TAGS
}

/// Returns the keys of the tags that go: those of `existing` that are not wanted and were set by the controller for one of the
/// `sources`. A resource for which no tags are wanted at all is not tagged by the controller (the gate `ListenerRulesTagging`),
/// and keeps what it has.
pub(super) fn surplus(
    stack: &Stack,
    observed: &ObservedStack,
    sources: &[ResourceId],
    wanted: &Tags,
    existing: &Tags,
) -> BTreeSet<String> {
    let stays = |key: &str| {
        wanted.contains_key(key)
            || key.starts_with("aws:")
            || TRACKING.contains(&key)
            || stack.external_tags.contains(key)
    };
    let goes = |key: &str| match &observed.tag_keys {
        Some(own) => sources.iter().any(|source| own.contains(source, key)),
        None => !is_of_legacy(key),
    };
    let surplus = existing.keys().filter(|key| !wanted.is_empty() && !stays(key) && goes(key));
    surplus.cloned().collect()
}

/// Returns the keys that the controller sets for a stack. Of frozen members they are what they were.
#[must_use]
pub fn tag_keys(stack: &Stack, observed: &ObservedStack) -> TagKeys {
    let own =
        |tags: &Tags| -> Vec<String> { tags.keys().filter(|key| !TRACKING.contains(&key.as_str())).cloned().collect() };
    let mut keys = match (&observed.tag_keys, stack.frozen.is_empty()) {
        (Some(known), false) => known.clone(),
        _ => TagKeys::default(),
    };
    if let Some(balancer) = &stack.load_balancer {
        keys.add(&ResourceId::load_balancer(), own(&balancer.tags));
    }
    if let Some(frontend) = &stack.frontend {
        super::stack::add_tag_keys(frontend, &mut keys, own);
    }
    if let Some(group) = &stack.security_group {
        keys.add(&ResourceId::managed_security_group(), own(&group.tags));
    }
    for group in stack.target_groups.values() {
        keys.add(&group.resource, own(&group.tags));
    }
    for listener in stack.listeners.values() {
        keys.add(&ResourceId::listener(listener.port), own(&listener.tags));
        for rule in &listener.rules {
            keys.add(&TagKeys::of_rules(&rule.cause.object), own(&rule.tags));
        }
    }
    // Certificates are found again by what is noted here, whatever is requested then.
    for wanted in &stack.certificates.wanted {
        keys.note(&wanted.resource);
    }
    for certificate in observed.certificates.iter().flatten() {
        keys.note(&certificate.resource);
    }
    keys
}

/// Returns the sources of a rule's tags: the owner that requests it, and the owner that has had it according to the record.
pub(super) fn of_rule(owner: &ObjectReference, holder: Option<&ObjectReference>) -> Vec<ResourceId> {
    std::iter::once(owner).chain(holder).map(TagKeys::of_rules).collect()
}
