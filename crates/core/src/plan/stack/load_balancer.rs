//! The load balancer and its security groups.

use std::collections::BTreeSet;

use super::{Planner, attributes::Causes};
use crate::model::{
    LoadBalancer, ManagedSecurityGroup, ObservedLoadBalancer, ObservedSecurityGroup, ResourceId, SecurityGroupId,
    SecurityGroupReference, Value, tags as known_tags,
};
use crate::plan::{
    access::{Access, AccessSteps},
    order,
    step::{AttributesOf, Step, StepAction, TaggedResource},
};

/// The number of security groups that a load balancer may be in (quota `Security groups per network interface`).
const MAX_SECURITY_GROUPS: usize = 5;

impl<'a> Planner<'a> {
    pub(super) fn security_group(&mut self, wanted: &ManagedSecurityGroup, existing: Option<&ObservedSecurityGroup>) {
        match existing {
            None => self.push(StepAction::CreateSecurityGroup(wanted.clone()), &wanted.cause),
            Some(group) => {
                let name = format!("security group {}", group.name);
                let resource = TaggedResource::SecurityGroup(group.id.clone());
                self.shared_tags(
                    resource,
                    name,
                    ResourceId::managed_security_group(),
                    (&wanted.tags, &group.tags),
                    &wanted.cause,
                );
            }
        }
        let access = Access {
            stack: self.stack,
            observed: self.observed,
            frozen_resources: self.frozen_resources,
            wanted,
            existing,
            is_regrouped: self.regrouped().is_some(),
            retained_ports: &self.retained_ports,
        };
        let AccessSteps { at_once, opening, last } = access.steps();
        let step = |action| Step { action, cause: wanted.cause.clone() };
        self.plan.steps.extend(at_once.into_iter().map(step));
        self.opening.extend(opening.into_iter().map(step));
        self.last.extend(last.into_iter().map(step));
    }

    pub(super) fn load_balancer(&mut self, wanted: &LoadBalancer, existing: &ObservedLoadBalancer) {
        let name = format!("load balancer {}", existing.name);
        let resource = TaggedResource::Elb(existing.arn.to_string());
        self.shared_tags(resource, name, self.load_balancer_id(), (&wanted.tags, &existing.tags), &wanted.cause);
        if let Value::Known(subnets) = &wanted.subnets {
            let ids: BTreeSet<_> = subnets.iter().map(|mapping| mapping.subnet.clone()).collect();
            if ids != existing.subnets {
                let set = StepAction::SetSubnets { arn: existing.arn.clone(), subnets: subnets.clone() };
                self.push(set, &wanted.cause);
            }
        }
        if existing.ip_address_type != wanted.ip_address_type {
            let action = StepAction::SetIpAddressType { arn: existing.arn.clone(), kind: wanted.ip_address_type };
            let set = Step { action, cause: wanted.cause.clone() };
            // IPv6 is enabled before IPv6 targets are added, and disabled after they are removed.
            if wanted.ip_address_type.has_ipv6() { self.plan.steps.push(set) } else { self.last.push(set) }
        }
        if let Some(known) = &existing.attributes {
            let name = format!("load balancer {}", existing.name);
            let of = AttributesOf::LoadBalancer(Some(existing.arn.clone()));
            let causes = Causes::of(&wanted.cause, &wanted.attribute_causes);
            self.attributes(of, name, &wanted.attributes, known, causes);
        }
        if self.regrouped().is_some() {
            let set = |groups: Vec<SecurityGroupReference>| Step {
                action: StepAction::SetSecurityGroups { arn: existing.arn.clone(), groups },
                cause: wanted.cause.clone(),
            };
            // After the stack's own security group allows traffic, since a new one allows none, and before a redirect
            // leads to a port that the previous groups do not allow. Existing redirects may lead to a port that only
            // the previous groups allow.
            let redirected = existing.known_listeners().any(order::redirects_elsewhere);
            let before =
                existing.security_groups.iter().map(|id| SecurityGroupReference::Given(Value::Known(id.clone())));
            let known: BTreeSet<SecurityGroupId> =
                wanted.security_groups.iter().filter_map(|reference| self.security_group_id(reference)).collect();
            let both: Vec<_> = wanted
                .security_groups
                .iter()
                .cloned()
                .chain(before.filter(
                    |group| !matches!(group, SecurityGroupReference::Given(Value::Known(id)) if known.contains(id)),
                ))
                .collect();
            if redirected && both.len() <= MAX_SECURITY_GROUPS {
                self.opening.push(set(both));
                self.last.push(set(wanted.security_groups.clone()));
            } else {
                self.opening.push(set(wanted.security_groups.clone()));
            }
        }
    }

    /// Returns the existing load balancer if its security groups are about to change.
    pub(super) fn regrouped(&self) -> Option<&'a ObservedLoadBalancer> {
        let wanted = self.stack.load_balancer.as_ref()?;
        let existing = self.observed.current(wanted)?;
        let groups: Option<BTreeSet<SecurityGroupId>> =
            wanted.security_groups.iter().map(|reference| self.security_group_id(reference)).collect();
        (groups.as_ref() != Some(&existing.security_groups)).then_some(existing)
    }

    /// Returns the front-end security groups of the stack.
    pub(super) fn managed_security_groups(&self) -> impl Iterator<Item = &'a ObservedSecurityGroup> + use<'a> {
        let managed = |group: &&ObservedSecurityGroup| {
            known_tags::resource_of(&group.tags) == Some(ResourceId::managed_security_group())
        };
        self.observed.security_groups.iter().filter(managed)
    }

    pub(super) fn security_group_id(&self, reference: &SecurityGroupReference) -> Option<SecurityGroupId> {
        match reference {
            SecurityGroupReference::Managed => self.managed_security_groups().next().map(|g| g.id.clone()),
            SecurityGroupReference::SharedBackend(id) | SecurityGroupReference::Given(id) => id.known().cloned(),
        }
    }
}
