//! The controller's own writes, recorded as they succeed.

use std::collections::{BTreeMap, BTreeSet};

use super::{BalancerEntry, Inventory, ReadState, SecurityGroupEntry, State, TargetGroupEntry};
use albatross_core::{
    model::{
        Action, AddOn, Association, Attributes, CapacityUnits, HealthCheck, IpAddressType, IpamPoolId, ListenerArn,
        LoadBalancerArn, ObservedAddOns, ObservedListener, ObservedLoadBalancer, ObservedRule, ObservedSecurityGroup,
        ObservedTargetGroup, Protection, Registration, RuleArn, SecurityGroupId, SecurityGroupRule, SubnetId,
        SubnetMapping, Tags, TargetGroupArn, TargetHealth,
    },
    plan::AssumedSecret,
};

impl State {
    /// Keeps the attributes of a load balancer, and whether they protect it, which is known for longer.
    pub(super) fn set_load_balancer_attributes(
        &mut self,
        arn: &LoadBalancerArn,
        attributes: Attributes,
    ) -> Option<&mut BalancerEntry> {
        let Self { protected, load_balancers, .. } = self;
        // Nothing tells of one that somebody else deleted.
        protected.retain(|known| known != arn && load_balancers.contains_key(known));
        let entry = load_balancers.get_mut(arn)?;
        entry.value.attributes = Some(attributes);
        if entry.value.is_protected() {
            protected.insert(arn.clone());
        }
        Some(entry)
    }

    /// A number for the next write, higher than those before.
    fn next_write(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }

    /// Returns the state of a resource that the controller has just made: it is known in full.
    fn known(&self) -> ReadState {
        ReadState { read: Some(self.wanted), invalidated: 0 }
    }

    fn listener(&mut self, arn: &ListenerArn) -> Option<&mut ObservedListener> {
        let written = self.next_write();
        let entry = self
            .load_balancers
            .values_mut()
            .find(|b| b.value.known_listeners().any(|listener| listener.arn == *arn))?;
        entry.written = written;
        entry.value.listeners.as_mut()?.values_mut().find(|listener| listener.arn == *arn)
    }

    fn listener_of_rule(&mut self, arn: &RuleArn) -> Option<&mut ObservedListener> {
        let listeners = self.load_balancers.values().flat_map(|b| b.value.known_listeners());
        let mut with_rule = listeners.filter(|listener| listener.rules.iter().any(|rule| rule.arn == *arn));
        let listener = with_rule.next().map(|listener| listener.arn.clone())?;
        drop(with_rule);
        self.listener(&listener)
    }
}

/// Writes to ELB v2 load balancers, listeners and rules.
impl Inventory {
    /// A load balancer was created, without listeners.
    pub fn record_load_balancer(&self, value: ObservedLoadBalancer) {
        let mut state = self.state();
        let (written, known) = (state.next_write(), state.known());
        let entry = BalancerEntry { tags: known, listeners: known, written, value };
        state.load_balancers.insert(entry.value.arn.clone(), entry);
    }

    pub fn record_security_groups(
        &self,
        arn: &LoadBalancerArn,
        groups: BTreeSet<SecurityGroupId>,
        private_link_rules: Option<bool>,
    ) {
        let mut state = self.state();
        let written = state.next_write();
        if let Some(entry) = state.load_balancers.get_mut(arn) {
            entry.value.security_groups = groups;
            let network = &mut entry.value.network;
            network.private_link_rules = private_link_rules.or(network.private_link_rules);
            entry.written = written;
        }
    }

    /// SetSubnets has succeeded with these values, and AWS has answered with these prefixes for source NAT.
    pub fn record_subnets(
        &self,
        arn: &LoadBalancerArn,
        mappings: &[SubnetMapping],
        ip_address_type: Option<IpAddressType>,
        ipv6_source_nat: Option<bool>,
        prefixes: BTreeMap<SubnetId, String>,
    ) {
        let mut state = self.state();
        let written = state.next_write();
        if let Some(entry) = state.load_balancers.get_mut(arn) {
            let value = &mut entry.value;
            value.subnets = mappings.iter().map(|mapping| mapping.subnet.clone()).collect();
            value.ip_address_type = ip_address_type.unwrap_or(value.ip_address_type);
            let ipv6_source_nat = ipv6_source_nat.unwrap_or(value.network.ipv6_source_nat);
            value.network = value.network.placed(ipv6_source_nat, mappings, prefixes);
            entry.written = written;
        }
    }

    pub fn record_ip_address_type(&self, arn: &LoadBalancerArn, kind: IpAddressType) {
        let mut state = self.state();
        let written = state.next_write();
        if let Some(entry) = state.load_balancers.get_mut(arn) {
            entry.value.ip_address_type = kind;
            entry.written = written;
        }
    }

    pub fn record_ipam_pool(&self, arn: &LoadBalancerArn, pool: Option<&IpamPoolId>) {
        let mut state = self.state();
        let written = state.next_write();
        if let Some(entry) = state.load_balancers.get_mut(arn) {
            entry.value.pools.ipam = pool.map(ToString::to_string);
            entry.written = written;
        }
    }

    pub fn record_load_balancer_attributes(&self, arn: &LoadBalancerArn, attributes: Attributes) {
        let mut state = self.state();
        let written = state.next_write();
        if let Some(entry) = state.set_load_balancer_attributes(arn, attributes) {
            entry.written = written;
        }
    }

    pub fn record_target_group_attributes(&self, arn: &TargetGroupArn, attributes: Attributes) {
        let mut state = self.state();
        let written = state.next_write();
        if let Some(entry) = state.target_groups.get_mut(arn) {
            entry.value.attributes = Some(attributes);
            entry.written = written;
        }
    }

    pub fn record_web_acl(&self, arn: &LoadBalancerArn, association: Association) {
        self.record_add_ons(arn, |add_ons| add_ons.web_acl = Some(association));
    }

    pub fn record_capacity(&self, arn: &LoadBalancerArn, units: CapacityUnits) {
        self.record_add_ons(arn, |add_ons| add_ons.capacity = Some(units));
    }

    pub fn record_protection(&self, arn: &LoadBalancerArn, protection: Protection) {
        self.record_add_ons(arn, |add_ons| add_ons.protection = Some(protection));
    }

    /// Forgets an add-on of a load balancer, since it is not known if AWS has changed it. Everything else stays known.
    pub fn forget_add_on(&self, arn: &LoadBalancerArn, add_on: AddOn) {
        self.record_add_ons(arn, |known| match add_on {
            AddOn::WebAcl => known.web_acl = None,
            AddOn::Protection => known.protection = None,
            AddOn::Capacity => known.capacity = None,
            // They are the stack's, and not the load balancer's.
            AddOn::Certificates => {}
        });
    }

    fn record_add_ons(&self, arn: &LoadBalancerArn, change: impl FnOnce(&mut ObservedAddOns)) {
        let mut state = self.state();
        let written = state.next_write();
        if let Some(entry) = state.load_balancers.get_mut(arn) {
            change(&mut entry.value.add_ons);
            entry.written = written;
        }
    }

    pub fn record_load_balancer_deleted(&self, arn: &LoadBalancerArn) {
        let mut state = self.state();
        let written = state.next_write();
        state.load_balancers.remove(arn);
        state.protected.remove(arn);
        state.remember_deleted(arn.as_str(), written);
    }

    /// A listener was created: it has no rules and no further certificates.
    pub fn record_listener(&self, balancer: &LoadBalancerArn, listener: ObservedListener) {
        let mut state = self.state();
        let written = state.next_write();
        if let Some(entry) = state.load_balancers.get_mut(balancer) {
            // If the others are not known, this one is read with them.
            if let Some(listeners) = &mut entry.value.listeners {
                listeners.insert(listener.port, listener);
            }
            entry.written = written;
        }
    }

    /// A listener was modified; `answer` is without rules, certificates, attributes and tags, which stay, but for the
    /// certificates of a listener that no longer uses TLS: it has none, and needs them all again when it does.
    /// The attributes of a listener whose protocol has changed are no longer known.
    pub fn record_listener_modified(&self, mut answer: ObservedListener) {
        if let Some(listener) = self.state().listener(&answer.arn) {
            // If the default action was not written, AWS still has the Secret's previous content.
            answer.carry_over_secrets(listener);
            let mut certificates = std::mem::take(&mut listener.certificates);
            if answer.protocol.is_some_and(|protocol| !protocol.is_secure()) {
                certificates.clear();
            }
            *listener = ObservedListener {
                certificates,
                tags: std::mem::take(&mut listener.tags),
                rules: std::mem::take(&mut listener.rules),
                attributes: listener.attributes.take().filter(|_| answer.protocol == listener.protocol),
                ..answer
            };
        }
    }

    pub fn record_listener_deleted(&self, arn: &ListenerArn) {
        let mut state = self.state();
        let written = state.next_write();
        for entry in state.load_balancers.values_mut() {
            let Some(listeners) = &mut entry.value.listeners else { continue };
            let before = listeners.len();
            listeners.retain(|_, listener| listener.arn != *arn);
            if listeners.len() < before {
                entry.written = written;
            }
        }
    }

    /// Applies a write to a listener that is known.
    pub fn record_on_listener(&self, arn: &ListenerArn, change: impl FnOnce(&mut ObservedListener)) {
        if let Some(listener) = self.state().listener(arn) {
            change(listener);
        }
    }

    /// Takes rules and default actions to have the content of a Secret as it is.
    pub fn assume_secrets(&self, assumed: &[AssumedSecret]) {
        for assumed in assumed {
            self.record_on_listener(&assumed.listener, |listener| {
                let actions = match &assumed.rule {
                    None => Some(&mut listener.default_actions),
                    Some(arn) => listener.rules.iter_mut().find(|rule| rule.arn == *arn).map(|rule| &mut rule.actions),
                };
                for action in actions.into_iter().flatten() {
                    if let Action::AuthenticateOidc { secret_version, .. } = action {
                        *secret_version = Some(assumed.version.clone());
                    }
                }
            });
        }
    }

    pub fn record_rule(&self, listener: &ListenerArn, rule: ObservedRule) {
        self.record_on_listener(listener, |listener| {
            listener.rules.push(rule);
            listener.rules.sort_by_key(|rule| rule.priority);
        });
    }

    /// A rule was modified; `answer` is without tags, which stay.
    pub fn record_rule_modified(&self, answer: ObservedRule) {
        if let Some(listener) = self.state().listener_of_rule(&answer.arn)
            && let Some(rule) = listener.rules.iter_mut().find(|rule| rule.arn == answer.arn)
        {
            *rule = ObservedRule { tags: std::mem::take(&mut rule.tags), ..answer };
        }
    }

    pub fn record_priorities(&self, priorities: &[(RuleArn, u32)]) {
        let mut state = self.state();
        for (arn, priority) in priorities {
            if let Some(listener) = state.listener_of_rule(arn) {
                for rule in listener.rules.iter_mut().filter(|rule| rule.arn == *arn) {
                    rule.priority = *priority;
                }
                listener.rules.sort_by_key(|rule| rule.priority);
            }
        }
    }

    pub fn record_rule_deleted(&self, arn: &RuleArn) {
        if let Some(listener) = self.state().listener_of_rule(arn) {
            listener.rules.retain(|rule| rule.arn != *arn);
        }
    }

    /// Tags were added to a load balancer, listener, rule or target group, or changed there.
    pub fn record_tags(&self, arn: &str, tags: &Tags) {
        self.on_tags(arn, |known| known.extend(tags.clone()));
    }

    /// Tags were removed from a load balancer, listener, rule or target group.
    pub fn record_tags_removed(&self, arn: &str, keys: &BTreeSet<String>) {
        self.on_tags(arn, |known| known.retain(|key, _| !keys.contains(key)));
    }

    fn on_tags(&self, arn: &str, change: impl FnOnce(&mut Tags)) {
        let mut state = self.state();
        let written = state.next_write();
        for entry in state.load_balancers.values_mut() {
            let value = &mut entry.value;
            let listeners =
                value.listeners.iter_mut().flat_map(std::collections::BTreeMap::values_mut).flat_map(|listener| {
                    let rules = listener.rules.iter_mut().map(|rule| (rule.arn.as_str(), &mut rule.tags));
                    std::iter::once((listener.arn.as_str(), &mut listener.tags)).chain(rules)
                });
            let own = std::iter::once((value.arn.as_str(), &mut value.tags));
            if let Some((_, known)) = own.chain(listeners).find(|(known, _)| *known == arn) {
                change(known);
                entry.written = written;
                return;
            }
        }
        if let Some(entry) = state.target_groups.get_mut(&TargetGroupArn::new(arn)) {
            change(&mut entry.value.tags);
            entry.written = written;
        }
    }
}

/// Writes to target groups.
impl Inventory {
    /// A target group was created: it has no targets.
    pub fn record_target_group(&self, value: ObservedTargetGroup) {
        let mut state = self.state();
        let (written, known) = (state.next_write(), state.known());
        state.targets.insert(value.arn.clone(), std::collections::BTreeMap::new());
        state.target_groups.insert(value.arn.clone(), TargetGroupEntry { tags: known, written, value });
    }

    pub fn record_health_check(&self, arn: &TargetGroupArn, check: &HealthCheck) {
        let mut state = self.state();
        let written = state.next_write();
        if let Some(entry) = state.target_groups.get_mut(arn) {
            entry.value.health_check = Some(check.clone());
            entry.written = written;
        }
    }

    pub fn record_target_group_deleted(&self, arn: &TargetGroupArn) {
        let mut state = self.state();
        let written = state.next_write();
        state.target_groups.remove(arn);
        state.targets.remove(arn);
        state.remember_deleted(arn.as_str(), written);
    }

    /// Targets were registered. Nothing is recorded where the group's targets are not known.
    pub fn record_registered(&self, arn: &TargetGroupArn, targets: &[Registration]) {
        if let Some(known) = self.state().targets.get_mut(arn) {
            known.extend(targets.iter().map(|Registration { target, zone, quic_server_id }| {
                let (zone, quic_server_id) = (zone.clone(), *quic_server_id);
                (target.clone(), TargetHealth { zone, quic_server_id, ..TargetHealth::registering() })
            }));
        }
    }

    /// Targets were deregistered. AWS drains them for a while; here they are gone at once, so that a target that comes
    /// back is registered again.
    pub fn record_deregistered(&self, arn: &TargetGroupArn, targets: &[Registration]) {
        if let Some(known) = self.state().targets.get_mut(arn) {
            for Registration { target, .. } in targets {
                known.remove(target);
            }
        }
    }
}

/// Writes to security groups.
impl Inventory {
    pub fn record_security_group(&self, value: ObservedSecurityGroup) {
        let mut state = self.state();
        let written = state.next_write();
        state.security_groups.insert(value.id.clone(), SecurityGroupEntry { value, written });
    }

    pub fn record_security_group_deleted(&self, id: &SecurityGroupId) {
        let mut state = self.state();
        let written = state.next_write();
        state.security_groups.remove(id);
        state.remember_deleted(id.as_str(), written);
    }

    pub fn record_ingress_authorized(&self, id: &SecurityGroupId, rules: &[SecurityGroupRule]) {
        self.on_security_group(id, |group| group.ingress.extend(rules.iter().cloned()));
    }

    pub fn record_ingress_revoked(&self, id: &SecurityGroupId, rules: &[SecurityGroupRule]) {
        self.on_security_group(id, |group| {
            group.ingress.retain(|known| !rules.iter().any(|rule| rule.identity() == known.identity()));
        });
    }

    pub fn record_security_group_tags(&self, id: &SecurityGroupId, tags: &Tags) {
        self.on_security_group(id, |group| group.tags.extend(tags.clone()));
    }

    pub fn record_security_group_tags_removed(&self, id: &SecurityGroupId, keys: &BTreeSet<String>) {
        self.on_security_group(id, |group| group.tags.retain(|key, _| !keys.contains(key)));
    }

    fn on_security_group(&self, id: &SecurityGroupId, change: impl FnOnce(&mut ObservedSecurityGroup)) {
        let mut state = self.state();
        let written = state.next_write();
        if let Some(entry) = state.security_groups.get_mut(id) {
            change(&mut entry.value);
            entry.written = written;
        }
    }
}
