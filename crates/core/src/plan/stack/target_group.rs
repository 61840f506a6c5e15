//! A target group and its binding.

use super::{Planner, attributes::Causes};
use crate::model::{
    HealthCheck, NetworkingPeer, ObservedBinding, ObservedTargetGroup, TargetGroup, TargetGroupName,
    TargetGroupReference, Value,
};
use crate::plan::{
    action::StepAction,
    binding, defaults,
    step::{AttributesOf, TaggedResource},
};

/// Returns true if targets are checked as wanted. Success codes that are not requested stay as they are.
fn same_check(wanted: &HealthCheck, existing: &HealthCheck) -> bool {
    let matcher = wanted.matcher.as_ref().or(existing.matcher.as_ref());
    *existing == HealthCheck { matcher: matcher.cloned(), ..wanted.clone() }
}

impl Planner<'_> {
    pub(super) fn target_group(&mut self, wanted: &TargetGroup) {
        let Some(existing) = self.matched.get(&wanted.resource).copied() else {
            self.new_target_group(wanted);
            return;
        };
        let name = format!("target group {}", existing.name);
        let resource = TaggedResource::Elb(existing.arn.to_string());
        let sources = std::slice::from_ref(&wanted.resource);
        self.tags(resource, name, sources, (&wanted.tags, &existing.tags), &wanted.cause);
        if let Some(known) = &existing.attributes {
            let name = format!("target group {}", existing.name);
            let of = AttributesOf::TargetGroup(TargetGroupReference::Foreign(existing.arn.clone()));
            self.attributes(of, name, &wanted.attributes, known, Causes::one(&wanted.cause));
        }
        if !existing.health_check.as_ref().is_some_and(|existing| same_check(&wanted.health_check, existing)) {
            let modify = StepAction::ModifyTargetGroup {
                arn: existing.arn.clone(),
                resource: wanted.resource.clone(),
                health_check: wanted.health_check.clone(),
            };
            self.push(modify, &wanted.cause);
        }
        self.binding(wanted, existing);
    }

    fn new_target_group(&mut self, wanted: &TargetGroup) {
        // A binding has the name of its target group, and another target group may have a binding of that name.
        let taken = |name: &TargetGroupName| {
            let groups = &self.observed.target_groups;
            let binds = |binding: &ObservedBinding| {
                binding.name.name == name.as_str()
                    && binding.name.namespace == wanted.binding.namespace
                    && groups.iter().any(|group| group.arn == binding.target_group)
            };
            groups.iter().any(|o| o.name == name.as_str()) || self.observed.bindings.iter().any(binds)
        };
        let second = TargetGroup { name: wanted.second_name.clone(), ..wanted.clone() };
        let wanted = if wanted.name.known().is_some_and(taken) { &second } else { wanted };
        self.push(StepAction::CreateTargetGroup(Box::new(wanted.clone())), &wanted.cause);
        self.attributes(
            AttributesOf::TargetGroup(TargetGroupReference::Own(wanted.resource.clone())),
            format!("target group {}", wanted.resource),
            &wanted.attributes,
            &defaults::target_group(wanted.protocol),
            Causes::one(&wanted.cause),
        );
        // A binding of that name for another target group, one that another party has deleted, must go first:
        // `removals` deletes it, and its deletion triggers the next plan.
        let name = |binding: &ObservedBinding| {
            binding.name.namespace == wanted.binding.namespace
                && wanted.name.known().is_some_and(|name| name.as_str() == binding.name.name)
        };
        if !self.observed.bindings.iter().any(name) {
            self.push(StepAction::CreateBinding(Box::new(wanted.clone())), &wanted.cause);
        }
    }

    /// Plans the binding of an existing target group.
    fn binding(&mut self, wanted: &TargetGroup, existing: &ObservedTargetGroup) {
        // Another binding with the stack's labels may name the target group too. A binding with another name counts
        // only if none has the target group's name: aws-load-balancer-controller finds a binding by the ARN and gives
        // it the name of the target group that it would create.
        let is_its =
            |b: &&ObservedBinding| b.target_group == existing.arn && b.name.namespace == wanted.binding.namespace;
        let bindings = self.observed.bindings.iter().filter(is_its);
        match bindings.min_by_key(|binding| (binding.name.name != existing.name, binding.deleting)) {
            // The new binding has the same name, so it can be created only when the old one is gone.
            Some(binding) if binding.deleting => {
                self.going.insert(binding.name.clone());
            }
            None => {
                // A binding has the name that its target group was created with.
                let name = TargetGroupName::new(&existing.name).map_or_else(|_| wanted.name.clone(), Value::Known);
                let named = TargetGroup { name, ..wanted.clone() };
                self.push(StepAction::CreateBinding(Box::new(named)), &wanted.cause);
            }
            Some(binding) => {
                let spec = binding::spec(wanted, &existing.arn, &|source| self.security_group_id(source));
                // Targets keep allowing the previous security groups until the load balancer has left them.
                let keeps_networking = self.regrouped().is_some();
                let spec = match spec {
                    Some(spec) if keeps_networking => Some(binding::widened(spec, &binding.spec)),
                    spec => spec,
                };
                // Labels that other parties set (a policy engine, a team) stay unchanged.
                let labelled = wanted.binding.labels.iter().all(|(key, value)| binding.labels.get(key) == Some(value));
                if spec.as_ref() != Some(&binding.spec) || !labelled {
                    let update = StepAction::UpdateBinding {
                        existing: Box::new(binding.clone()),
                        target_group: Box::new(wanted.clone()),
                        keeps_networking,
                    };
                    self.push(update, &wanted.cause);
                }
                let networking = spec.as_ref().map(|spec| &spec.networking);
                let applied = binding.allows_sources && networking == Some(&binding.spec.networking);
                if self.comes_from_elsewhere(wanted) && !applied {
                    self.closed.insert(binding.name.clone());
                }
            }
        }
    }

    /// Returns true if the security groups of the load balancer are about to change, and the targets must allow one
    /// that it is not in yet.
    pub(super) fn comes_from_elsewhere(&self, wanted: &TargetGroup) -> bool {
        let Some(existing) = self.regrouped() else { return false };
        let peers = wanted.binding.networking.iter().flatten().flat_map(|rule| &rule.from);
        let mut groups = peers.filter_map(|peer| match peer {
            NetworkingPeer::SecurityGroup(group) => Some(group),
            NetworkingPeer::Cidr(_) => None,
        });
        groups.any(|group| self.security_group_id(group).is_none_or(|id| !existing.security_groups.contains(&id)))
    }
}
