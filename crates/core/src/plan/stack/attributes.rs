//! Tags and attributes.

use std::collections::BTreeMap;

use super::Planner;
use crate::model::{Attributes, Cause, ResourceId, Tags};
use crate::plan::{
    action::StepAction,
    step::{AttributesOf, Step, TaggedResource},
    tags,
};

/// The causes of attributes.
#[derive(Clone, Copy)]
pub(super) struct Causes<'a> {
    of_all: &'a Cause,
    /// The causes of single attributes, where they differ.
    of_attributes: Option<&'a BTreeMap<String, Cause>>,
}

impl<'a> Causes<'a> {
    pub(super) fn one(of_all: &'a Cause) -> Self {
        Self { of_all, of_attributes: None }
    }

    pub(super) fn of(of_all: &'a Cause, of_attributes: &'a BTreeMap<String, Cause>) -> Self {
        Self { of_all, of_attributes: Some(of_attributes) }
    }
}

/// Returns true if two attribute values mean the same. AWS returns a boolean in lower case, however it was written.
fn same_value(wanted: &str, known: &str) -> bool {
    let switch = |value: &str| ["true", "false"].iter().any(|switch| value.eq_ignore_ascii_case(switch));
    wanted == known || switch(wanted) && wanted.eq_ignore_ascii_case(known)
}

impl Planner<'_> {
    /// Changes the tags of a resource to the desired ones. `sources` are the resources for which the controller may
    /// have set tags on it.
    pub(super) fn tags(
        &mut self,
        resource: TaggedResource,
        name: String,
        sources: &[ResourceId],
        (wanted, existing): (&Tags, &Tags),
        cause: &Cause,
    ) {
        let missing: Tags =
            wanted.iter().filter(|(k, v)| existing.get(*k) != Some(*v)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let keys = tags::surplus(self.stack, self.observed, sources, wanted, existing);
        if !keys.is_empty() {
            let remove = StepAction::RemoveTags { resource: resource.clone(), name: name.clone(), keys };
            let remove = Step::new(remove, cause.clone());
            // If the new tags do not fit in addition to the removed ones, the removal runs first.
            match tags::have_room(&missing, existing) {
                true => self.untagged.push(remove),
                false => self.plan.steps.push(remove),
            }
        }
        if !missing.is_empty() {
            self.push(StepAction::AddTags { resource, name, tags: missing }, cause);
        }
    }

    /// Changes the tags of a resource that all members share, like [`Self::tags`], but keeps all existing tags while
    /// members are frozen.
    pub(super) fn shared_tags(
        &mut self,
        resource: TaggedResource,
        name: String,
        source: ResourceId,
        (wanted, existing): (&Tags, &Tags),
        cause: &Cause,
    ) {
        let mut kept = wanted.clone();
        if !self.frozen_resources.none_frozen() && !wanted.is_empty() {
            for (key, value) in existing {
                kept.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        self.tags(resource, name, &[source], (&kept, existing), cause);
    }

    /// Changes the attributes that differ from the known ones. Unknown attributes are read before a plan is made.
    pub(super) fn attributes(
        &mut self,
        of: AttributesOf,
        name: String,
        wanted: &Attributes,
        known: &Attributes,
        causes: Causes<'_>,
    ) {
        // One call for each requester, so that a refusal is reported on the right one. AWS accepts some attributes only
        // together (a log and its bucket): the attributes whose keys differ only in the last part.
        let mut changes: BTreeMap<&Cause, Attributes> = BTreeMap::new();
        let mut families: BTreeMap<&str, &Cause> = BTreeMap::new();
        let differs = |key: &str, value: &str| known.get(key).is_none_or(|known| !same_value(value, known));
        for (key, value) in wanted.iter().filter(|(key, value)| differs(key, value)) {
            let family = key.rsplit_once('.').map_or(key.as_str(), |(family, _)| family);
            let asks = || causes.of_attributes.and_then(|causes| causes.get(key)).unwrap_or(causes.of_all);
            let cause = *families.entry(family).or_insert_with(asks);
            changes.entry(cause).or_default().insert(key.clone(), value.clone());
        }
        for (cause, attributes) in changes {
            self.push(StepAction::ModifyAttributes { of: of.clone(), name: name.clone(), attributes }, cause);
        }
    }
}
