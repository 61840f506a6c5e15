//! The objects that a stack is for.

use std::collections::BTreeSet;

use crate::{diagnostics::Diagnostic, model::ObjectName};

/// The members of a stack: the Ingresses of a group, or a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Those that the load balancer shall serve, in the group's order, and among them those of `frozen`.
    pub members: Vec<ObjectName>,
    /// Those whose part of the load balancer shall neither change nor go: broken, or on their way to another group that does
    /// not serve them yet.
    pub frozen: BTreeSet<ObjectName>,
    /// Those that carry the group's finalizer and no longer belong to it: deleted, of another class or of another group now.
    pub leaving: Vec<ObjectName>,
    /// Those of `leaving` that belong to another group now.
    pub moving: BTreeSet<ObjectName>,
    /// Why one that carries the finalizer, or asks for this group, can neither be served nor let go.
    pub broken: Vec<Diagnostic>,
}

impl Membership {
    /// Whether the group has anybody at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.leaving.is_empty() && self.broken.is_empty()
    }

    /// Keeps the part of one that is on its way to another group.
    pub fn freeze_moving(&mut self, name: &ObjectName) {
        if self.moving.remove(name) {
            self.leaving.retain(|leaving| leaving != name);
            self.members.push(name.clone());
            self.frozen.insert(name.clone());
        }
    }

    /// Those that are to be served, without those that are kept as they are.
    pub fn served(&self) -> impl Iterator<Item = &ObjectName> {
        self.members.iter().filter(|name| !self.frozen.contains(name))
    }
}
