//! The tags of a stack's resources that the controller has set.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ObjectReference, ResourceId};

/// The keys of the tags that the controller has set on a stack's resources, other than the tags that name the owner. A key
/// of these that is no longer requested is removed; all other tags belong to other owners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TagKeys(BTreeMap<String, BTreeSet<String>>);

impl TagKeys {
    /// The resource under which the keys of all rules of an owner stand: rules have no resource id. An Ingress stands there
    /// without its kind, as in records that knew no kinds.
    #[must_use]
    pub fn of_rules(owner: &ObjectReference) -> ResourceId {
        match owner.as_ingress() {
            Some(ingress) => ResourceId(format!("rules of {ingress}")),
            None => ResourceId(format!("rules of {owner}")),
        }
    }

    /// Adds keys of a resource. A resource without keys takes no room.
    pub fn add(&mut self, resource: &ResourceId, keys: impl IntoIterator<Item = String>) {
        let mut keys = keys.into_iter().peekable();
        if keys.peek().is_some() {
            self.0.entry(resource.0.clone()).or_default().extend(keys);
        }
    }

    /// Adds all keys of another.
    pub fn extend(&mut self, other: Self) {
        for (resource, keys) in other.0 {
            self.0.entry(resource).or_default().extend(keys);
        }
    }

    /// Returns true if the controller has set the tag.
    #[must_use]
    pub fn contains(&self, resource: &ResourceId, key: &str) -> bool {
        self.0.get(&resource.0).is_some_and(|keys| keys.contains(key))
    }

    /// Returns true if a certificate is among the resources.
    #[must_use]
    pub fn names_certificates(&self) -> bool {
        self.0.keys().any(|resource| ResourceId::of_tag(resource.as_str()).is_certificate())
    }

    /// Notes a resource, without keys.
    pub fn note(&mut self, resource: &ResourceId) {
        self.0.entry(resource.0.clone()).or_default();
    }

    /// Leaves out the keys of the given resources.
    #[must_use]
    pub fn without(mut self, resources: &BTreeSet<ResourceId>) -> Self {
        self.0.retain(|resource, _| !resources.iter().any(|r| r.0 == *resource));
        self
    }
}
