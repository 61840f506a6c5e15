//! The load balancer and its security groups.

use std::collections::BTreeSet;

use super::{Planner, attributes::Causes};
use crate::model::{
    IpAddressType, ListenerProtocol, LoadBalancer, LoadBalancerKind, ManagedSecurityGroup, ObservedListener,
    ObservedLoadBalancer, ObservedSecurityGroup, ResourceId, SecurityGroupId, SecurityGroupReference, SubnetMapping,
    Value, tags as known_tags,
};
use crate::plan::{
    access::{Access, AccessSteps},
    action::StepAction,
    order,
    step::{AttributesOf, Step, TaggedResource},
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
        let step = |action| Step::new(action, wanted.cause.clone());
        self.plan.steps.extend(at_once.into_iter().map(step));
        self.opening.extend(opening.into_iter().map(step));
        self.last.extend(last.into_iter().map(step));
    }

    pub(super) fn load_balancer(&mut self, wanted: &LoadBalancer, existing: &ObservedLoadBalancer) {
        self.ipam_pool(wanted, existing);
        let name = format!("load balancer {}", existing.name);
        let resource = TaggedResource::Elb(existing.arn.to_string());
        self.shared_tags(resource, name, self.load_balancer_id(), (&wanted.tags, &existing.tags), &wanted.cause);
        self.addresses(wanted, existing);
        if let Some(known) = &existing.attributes {
            let name = format!("load balancer {}", existing.name);
            let of = AttributesOf::LoadBalancer(Some(existing.arn.clone()));
            let causes = Causes::of(&wanted.cause, &wanted.attribute_causes);
            self.attributes(of, name, &wanted.attributes, known, causes);
        }
        let (requested, known) = (wanted.network.private_link_rules, existing.network.private_link_rules);
        // AWS takes its own default where the call does not say.
        let private_link_rules = requested.or(known.filter(|on| !on));
        let set = |groups: Vec<SecurityGroupReference>| {
            Step::new(
                StepAction::SetSecurityGroups { load_balancer: Some(existing.arn.clone()), groups, private_link_rules },
                wanted.cause.clone(),
            )
        };
        if self.regrouped().is_none() && requested.is_some() && requested != known {
            self.opening.push(set(wanted.security_groups.clone()));
        }
        if self.regrouped().is_some() {
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

    /// Changes the IPAM pool: one that goes frees its addresses first, and a new one is taken when everything else is in place.
    fn ipam_pool(&mut self, wanted: &LoadBalancer, existing: &ObservedLoadBalancer) {
        let pool = wanted.pools.ipam.clone();
        if wanted.kind != LoadBalancerKind::Application || existing.pools.has_ipam(pool.as_ref()) {
            return;
        }
        let goes = pool.is_none();
        let action = StepAction::ModifyIpPools { arn: existing.arn.clone(), name: existing.name.clone(), pool };
        let step = Step::new(action, wanted.cause.clone());
        if goes { &mut self.plan.steps } else { &mut self.last }.push(step);
    }

    /// Changes the subnets of a load balancer, its addresses in them, and the families of its addresses.
    fn addresses(&mut self, wanted: &LoadBalancer, existing: &ObservedLoadBalancer) {
        let other_type = (existing.ip_address_type != wanted.ip_address_type).then_some(wanted.ip_address_type);
        let of_network = wanted.kind == LoadBalancerKind::Network;
        let (source_nat, had_source_nat) = (wanted.network.ipv6_source_nat, existing.network.ipv6_source_nat);
        let step = |action| Step::new(action, wanted.cause.clone());
        let set_subnets = |subnets: &[SubnetMapping], ip_address_type, source_nat| {
            let (arn, subnets) = (existing.arn.clone(), subnets.to_vec());
            let ipv6_source_nat = of_network.then_some(source_nat);
            step(StepAction::SetSubnets { arn, subnets, ip_address_type, ipv6_source_nat })
        };
        // IPv6 is enabled before IPv6 targets are added, but when a listener of QUIC is gone, and disabled after they are removed.
        let is_last =
            (had_source_nat && !source_nat) || other_type.is_some_and(|kind| !kind.has_ipv6() || existing.has_quic());
        let forbidden = self.forbids_addresses(wanted, existing);
        // New listeners of UDP come before that.
        let to_udp = other_type == Some(IpAddressType::Ipv4)
            && !had_source_nat
            && self.stack.listeners.values().any(|listener| listener.protocol.has_udp());
        if let (true, Value::Known(subnets)) = (to_udp, &wanted.subnets) {
            self.plan.steps.push(set_subnets(subnets, None, true));
        }
        if is_last && forbidden {
            return;
        }
        let mut remaining_type = other_type;
        if let Value::Known(subnets) = &wanted.subnets {
            let ids: BTreeSet<_> = subnets.iter().map(|mapping| mapping.subnet.clone()).collect();
            // AWS takes addresses of IPv6 and prefixes only on a dualstack load balancer, and UDP on one only with source NAT, so
            // all of it changes at once.
            let others = ids != existing.subnets || subnets.iter().any(|mapping| mapping.ipv6.is_some());
            let with_type = of_network && other_type.is_some() && others;
            let other_prefix = subnets.iter().any(|mapping| !existing.network.has_prefix_of(mapping));
            // The listeners of UDP go after that.
            let meanwhile = other_type.is_some_and(IpAddressType::has_ipv6)
                && !is_last
                && !source_nat
                && existing.known_listeners().any(takes_udp);
            if with_type || source_nat != had_source_nat || other_prefix || meanwhile || to_udp {
                let set = set_subnets(subnets, other_type, source_nat || meanwhile);
                if is_last { &mut self.last } else { &mut self.plan.steps }.push(set);
                self.last.extend((meanwhile && !forbidden).then(|| set_subnets(subnets, None, false)));
                remaining_type = None;
            } else if ids != existing.subnets {
                self.plan.steps.push(set_subnets(subnets, None, source_nat));
            }
        }
        if let Some(kind) = remaining_type {
            let set = step(StepAction::SetIpAddressType { arn: existing.arn.clone(), kind });
            if is_last { &mut self.last } else { &mut self.plan.steps }.push(set);
        }
    }

    /// Returns true if a listener that stays as it is for now does not allow the wanted addresses: one that leads to IPv6 targets,
    /// where IPv6 goes, or one of UDP or QUIC, where it comes or its source NAT goes.
    fn forbids_addresses(&self, wanted: &LoadBalancer, existing: &ObservedLoadBalancer) -> bool {
        let leads_to_ipv6 = |listener: &ObservedListener| {
            let groups = self.observed.target_groups.iter();
            let mut six = groups.filter(|group| group.ip_address_type == IpAddressType::Ipv6);
            six.any(|group| listener.target_groups().any(|arn| *arn == group.arn))
        };
        let mut staying = existing.known_listeners().filter(|listener| self.stays(listener));
        match wanted.ip_address_type.has_ipv6() {
            true => staying.any(takes_udp),
            false => staying.any(leads_to_ipv6),
        }
    }

    /// Returns true if a listener, or something on it, stays as it is in this plan.
    fn stays(&self, listener: &ObservedListener) -> bool {
        let port = listener.port;
        let is_held = self.pending.holds_default(port) || self.pending.held(port).is_some();
        let is_barred = || self.stack.listeners.get(&port).is_some_and(|wanted| self.is_barred(wanted));
        self.retained_ports.contains(&port) || is_held || is_barred()
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

fn takes_udp(listener: &ObservedListener) -> bool {
    listener.protocol.is_some_and(ListenerProtocol::has_udp)
}
