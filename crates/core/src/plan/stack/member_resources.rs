//! The resources of each member of a group, as records store them.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{ListenerResources, MemberResources, ObjectReference, ObservedRule, ObservedStack, RuleArn, Stack};
use crate::plan::rules::same_conditions;

/// Returns the resources of each member of a group, once no changes are left but those of members that are `held`. Those and
/// frozen members keep their recorded resources.
#[must_use]
pub fn member_resources(
    stack: &Stack,
    observed: &ObservedStack,
    held: &BTreeSet<ObjectReference>,
) -> Vec<MemberResources> {
    let frozen = |resources: &&MemberResources| {
        stack.frozen.members.contains(&resources.member) || held.contains(&resources.member)
    };
    let mut member_resources: BTreeMap<ObjectReference, MemberResources> = observed
        .member_resources
        .iter()
        .filter(frozen)
        .map(|resources| (resources.member.clone(), resources.clone()))
        .collect();
    let of = |member: &ObjectReference| MemberResources {
        member: member.clone(),
        rules: BTreeSet::new(),
        ports: BTreeMap::new(),
    };
    for listener in stack.listeners.values() {
        for (member, share) in &listener.shares {
            let port =
                ListenerResources { certificates: share.certificates.clone(), default_action: share.default_action };
            member_resources.entry(member.clone()).or_insert_with(|| of(member)).ports.insert(listener.port, port);
        }
    }
    let balancer = stack.load_balancer.as_ref().and_then(|wanted| observed.current(wanted));
    let taken: BTreeSet<RuleArn> = member_resources.values().flat_map(|resources| resources.rules.clone()).collect();
    for listener in stack.listeners.values() {
        // A rule that is kept in addition to the desired ones is recorded for a frozen member, or follows the desired
        // rule with the same conditions.
        let existing = balancer.and_then(|b| b.listener(listener.port)).into_iter().flat_map(|l| &l.rules);
        let mut free = existing.filter(|rule| !taken.contains(&rule.arn)).collect::<Vec<_>>();
        for rule in &listener.rules {
            let member = &rule.cause.object;
            // A held member's desired rule may be like another member's that is there.
            let is_others = |arn: &RuleArn| {
                let mut holders = observed.member_resources.iter().filter(|resources| resources.rules.contains(arn));
                held.contains(member) && holders.any(|resources| resources.member != *member)
            };
            let same = |existing: &&ObservedRule| same_conditions(rule, existing) && !is_others(&existing.arn);
            let Some(place) = free.iter().position(same) else { continue };
            let arn = free.remove(place).arn.clone();
            member_resources.entry(member.clone()).or_insert_with(|| of(member)).rules.insert(arn);
        }
    }
    member_resources.into_values().collect()
}
