//! A target group and its binding.

use super::{Planner, attributes::Causes};
use crate::model::{
    NetworkingPeer, ObservedBinding, ObservedTargetGroup, TargetGroup, TargetGroupName, TargetGroupReference, Value,
};
use crate::plan::{
    binding, defaults,
    step::{AttributesOf, StepAction, TaggedResource},
};

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
        if existing.health_check.as_ref() != Some(&wanted.health_check) {
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
        // The name of a group is that of its binding, and another group may have a binding of that name.
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
        // A binding of that name that leads to another target group, one that was deleted behind our back, has to go
        // first: it is taken away at the end, and its going brings the next plan.
        let name = |binding: &ObservedBinding| {
            binding.name.namespace == wanted.binding.namespace
                && wanted.name.known().is_some_and(|name| name.as_str() == binding.name.name)
        };
        if !self.observed.bindings.iter().any(name) {
            self.push(StepAction::CreateBinding(Box::new(wanted.clone())), &wanted.cause);
        }
    }

    /// The binding of a target group that exists.
    fn binding(&mut self, wanted: &TargetGroup, existing: &ObservedTargetGroup) {
        // Another of its labels may name the group too. One of another name is its own only where none has the group's:
        // aws-load-balancer-controller finds a binding by the ARN, and calls it as the group that it would make.
        let is_its =
            |b: &&ObservedBinding| b.target_group == existing.arn && b.name.namespace == wanted.binding.namespace;
        let bindings = self.observed.bindings.iter().filter(is_its);
        match bindings.min_by_key(|binding| (binding.name.name != existing.name, binding.deleting)) {
            // The new one has the same name, so it can be made only when the old one is gone.
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
                // Targets let the groups before in until the load balancer has left them.
                let keeps_networking = self.regrouped().is_some();
                let spec = match spec {
                    Some(spec) if keeps_networking => Some(binding::widened(spec, &binding.spec)),
                    spec => spec,
                };
                // Labels of others (a policy engine's, a team's) are theirs.
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

    /// Returns true if the load balancer is to be put in other security groups, and its requests come to the targets from one that
    /// it is not in yet.
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
