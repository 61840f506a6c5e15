//! The objects that a stack is for.

use std::collections::BTreeSet;

use crate::{diagnostics::Diagnostic, model::ObjectName};

/// The members of a stack: the Ingresses of a group, or a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The members that the load balancer serves, in the group's order, with those of `frozen`.
    pub members: Vec<ObjectName>,
    /// The members whose part of the load balancer neither changes nor goes: broken, or on their way to another group that does
    /// not serve them yet.
    pub frozen: BTreeSet<ObjectName>,
    /// The objects that carry the group's finalizer and no longer belong to it: deleted, of another class or of another group now.
    pub leaving: Vec<ObjectName>,
    /// The members of `leaving` that now belong to another group.
    pub moving: BTreeSet<ObjectName>,
    /// The members that another group serves, while clients may still come here for them. The reconciler adds them.
    pub followed: BTreeSet<ObjectName>,
    /// The reasons why an object that carries the finalizer, or requests this group, can be neither served nor released.
    pub broken: Vec<Diagnostic>,
}

impl Membership {
    /// Returns true if no object belongs to the stack, leaves it or is broken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.leaving.is_empty() && self.broken.is_empty()
    }

    /// Freezes a member that is on its way to another group.
    pub fn freeze_moving(&mut self, name: &ObjectName) {
        if self.moving.remove(name) {
            self.leaving.retain(|leaving| leaving != name);
            self.members.push(name.clone());
            self.frozen.insert(name.clone());
        }
    }

    /// Returns the members that are served, without the frozen ones.
    pub fn served(&self) -> impl Iterator<Item = &ObjectName> {
        self.members.iter().filter(|name| !self.frozen.contains(name))
    }
}
