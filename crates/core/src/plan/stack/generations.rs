//! The target groups of the current load balancer and of the load balancers that it replaces.

use std::collections::BTreeSet;

use crate::model::{ObservedLoadBalancer, ObservedStack, ObservedTargetGroup, Stack, TargetGroup, TargetGroupArn};

/// Returns true if an existing target group can become the wanted one in place.
pub(super) fn can_update_in_place(wanted: &TargetGroup, existing: &ObservedTargetGroup) -> bool {
    existing.target_type == wanted.target_type.as_str()
        && existing.protocol == wanted.protocol.as_str()
        && existing.ip_address_type == wanted.ip_address_type
        && wanted.protocol_version.is_none_or(|v| existing.protocol_version.as_deref() == Some(v.as_str()))
}

/// The target groups that the current load balancer and the load balancers that it replaces name.
pub(super) struct Generations<'a> {
    current: BTreeSet<&'a TargetGroupArn>,
    replaced: BTreeSet<&'a TargetGroupArn>,
}

impl<'a> Generations<'a> {
    pub(super) fn of(stack: &'a Stack, observed: &'a ObservedStack) -> Self {
        let Some(wanted) = &stack.load_balancer else {
            return Self { current: BTreeSet::new(), replaced: BTreeSet::new() };
        };
        Self {
            current: observed.current(wanted).into_iter().flat_map(ObservedLoadBalancer::target_groups).collect(),
            replaced: observed.replaced(wanted).flat_map(ObservedLoadBalancer::target_groups).collect(),
        }
    }

    /// Returns the existing target group that becomes the desired one; one that the current load balancer names takes
    /// precedence over one that no load balancer names.
    pub(super) fn existing(
        &self,
        observed: &'a ObservedStack,
        wanted: &TargetGroup,
    ) -> Option<&'a ObservedTargetGroup> {
        let mut fitting = observed.target_groups.iter().filter(|existing| {
            existing.resource().as_ref() == Some(&wanted.resource)
                && can_update_in_place(wanted, existing)
                && !self.replaced.contains(&existing.arn)
        });
        fitting.clone().find(|existing| self.current.contains(&existing.arn)).or_else(|| fitting.next())
    }
}
