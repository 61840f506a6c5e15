//! The rules that bindings have just ceased to request. The nodes of a load balancer open connections to a deregistered target
//! until all of them know of it, so the rules of a binding stay open a while longer than its targets.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use albatross_core::{
    model::{ObjectName, SecurityGroupId, SecurityGroupRule, Source, StackId, tags::BINDING_FINALIZER},
    snapshot::{Snapshot, TargetGroupBinding},
    targets::{
        node_rules::{RulesByGroup, covers, sources},
        shared::is_shared,
    },
};

/// The rules of all bindings: those requested last, and those that have left since.
#[derive(Debug, Default)]
pub(super) struct LeavingRules(BTreeMap<ObjectName, Known>);

#[derive(Debug, Default)]
struct Known {
    requested: RulesByGroup,
    /// The rules that were requested before, with the time since when they are not.
    leaving: BTreeMap<(SecurityGroupId, SecurityGroupRule), Instant>,
    /// True if the load balancer goes on when the binding is gone: others feed the target group, and no stack made the binding.
    outlived: bool,
}

/// The rules that are not removed yet.
#[derive(Debug, Default)]
pub(super) struct SparedRules {
    rules: RulesByGroup,
    /// The time until the first of them may go.
    pub(super) left: Option<Duration>,
}

impl SparedRules {
    /// Returns true if a rule on a security group allows what still may be needed. A rule may have been made for several ports.
    pub(super) fn spares(&self, group: &SecurityGroupId, rule: &SecurityGroupRule) -> bool {
        self.rules.get(group).is_some_and(|spared| spared.iter().any(|spared| covers(rule, spared)))
    }
}

impl LeavingRules {
    /// Notes the rules that each binding requests, and returns those of before that stay, if they are there; `propagation` is the time
    /// for which they do.
    ///
    /// A binding that has lost all its targets keeps none, since nothing is left to ask for, unless others feed its target group.
    /// Nor does a rule stay whose source the binding does not name any more: it would hold up the deletion of its security group.
    pub(super) fn spare(
        &mut self,
        rules: &BTreeMap<ObjectName, RulesByGroup>,
        snapshot: &Snapshot,
        propagation: Duration,
    ) -> SparedRules {
        let now = Instant::now();
        let names: BTreeSet<ObjectName> = self.0.keys().chain(rules.keys()).cloned().collect();
        let mut spared = SparedRules::default();
        for name in names {
            let binding = snapshot.target_group_bindings.get(&name).filter(|binding| is_in_use(binding));
            let mut known = self.0.remove(&name).unwrap_or_default();
            let requested = rules.get(&name).cloned().unwrap_or_default();
            let goes_on = binding.map_or(known.outlived, |it| !requested.is_empty() || is_shared(&it.spec));
            if !goes_on {
                continue;
            }
            for gone in pairs(&known.requested) {
                known.leaving.entry(gone).or_insert(now);
            }
            let left = |since: &Instant| propagation.saturating_sub(now.saturating_duration_since(*since));
            let named: Option<Vec<Source>> = binding.map(|it| it.spec.networking.iter().flat_map(sources).collect());
            known.leaving.retain(|(group, rule), since| {
                let is_named = named.as_ref().is_none_or(|named| named.contains(&rule.source));
                let is_requested = requested.get(group).is_some_and(|rules| rules.contains(rule));
                is_named && !is_requested && !left(since).is_zero()
            });
            known.requested = requested;
            if let Some(binding) = binding {
                known.outlived = is_shared(&binding.spec) && StackId::of_labels(&binding.labels).is_none();
            }
            if known.requested.is_empty() && known.leaving.is_empty() {
                continue;
            }
            for ((group, rule), since) in &known.leaving {
                spared.rules.entry(group.clone()).or_default().insert(rule.clone());
                spared.left = spared.left.into_iter().chain([left(since)]).min();
            }
            self.0.insert(name, known);
        }
        spared
    }
}

fn pairs(rules: &RulesByGroup) -> impl Iterator<Item = (SecurityGroupId, SecurityGroupRule)> {
    rules.iter().flat_map(|(group, rules)| rules.iter().map(|rule| (group.clone(), rule.clone())))
}

fn is_in_use(binding: &TargetGroupBinding) -> bool {
    !binding.deleting || binding.finalizers.iter().any(|finalizer| finalizer == BINDING_FINALIZER)
}
