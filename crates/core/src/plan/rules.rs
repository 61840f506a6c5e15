//! The steps that bring a listener's rules into their final order, such that between any two of them, and if they stop there
//! for ever, every request is answered as before or as after.
//!
//! 1. New rules are created below everything, in their final order: they answer only what reached the default action.
//! 2. One SetRulePriorities puts all rules in their final order at once, the rules to delete at the bottom in their old
//!    order: they still answer what no other rule matches.
//! 3. The listener's default action is changed.
//! 4. The rules to delete are deleted, lowest first, so no request of a deleted rule falls to another one that is deleted
//!    later.
//!
//! If only actions and transforms change, each rule is modified in place: its requests change over at once. If a quota
//! leaves no room for the new rules in addition to the removed ones, see [`super::stepwise`].

use std::{cmp::Ordering, collections::BTreeSet};

use super::{
    action::StepAction,
    authentication,
    frozen::FrozenResources,
    quota_usage::QuotaUsage,
    step::{ListenerReference, RuleReference, Step},
};
use crate::model::{
    Action, Authentication, Cause, ObservedLoadBalancer, ObservedRule, Rule, TargetGroupArn, TargetGroupReference,
    parking::PARKED,
};

/// The largest priority of rules that requests match: below them is room for those that park target groups.
pub(super) const LARGEST_PRIORITY: u32 = *PARKED.start() - 1;

/// The observed and the desired rules of one listener.
pub(super) struct RuleChange<'a> {
    pub(super) listener: ListenerReference,
    pub(super) port: u16,
    pub(super) wanted: &'a [Rule],
    /// By ascending priority.
    pub(super) existing: &'a [ObservedRule],
    /// Resolves the target groups of desired actions; `None` for groups that are still to be created.
    pub(super) resolve: &'a dyn Fn(&TargetGroupReference) -> Option<TargetGroupArn>,
    /// Target groups that some rule or listener of the load balancer names already, so that their targets are health-checked.
    pub(super) in_use: &'a BTreeSet<TargetGroupArn>,
    /// True if the listener's default action stays unchanged.
    pub(super) default_stays: bool,
    /// The cause of deleting rules.
    pub(super) cause: &'a Cause,
    /// The resources that stay because members are frozen.
    pub(super) frozen_resources: FrozenResources<'a>,
    /// The quota usage of the load balancer before these steps, after AWS has refused more; with the load balancer.
    pub(super) used: Option<(&'a QuotaUsage, Option<&'a ObservedLoadBalancer>)>,
    /// False if the load balancer has no room for the target groups of all wanted rules, when all else has gone.
    pub(super) fits_in_the_end: bool,
}

/// A rule with its place in the list that it is from: wanted rules or existing ones.
#[derive(Debug)]
pub(super) struct Numbered<'a, R> {
    pub(super) index: usize,
    pub(super) rule: &'a R,
}

/// A desired rule.
pub(super) type WantedRule<'a> = Numbered<'a, Rule>;
/// One of the existing rules.
pub(super) type ExistingRule<'a> = Numbered<'a, ObservedRule>;

impl<'a, R> Numbered<'a, R> {
    pub(super) fn all(rules: &'a [R]) -> impl DoubleEndedIterator<Item = Self> + use<'a, R> {
        rules.iter().enumerate().map(|(index, rule)| Self { index, rule })
    }
}

impl ExistingRule<'_> {
    /// Returns the priority of the rule when all existing ones are numbered from 1.
    fn priority(&self) -> u32 {
        u32::try_from(self.index).unwrap_or(u32::MAX).saturating_add(1)
    }
}

impl<R> Clone for Numbered<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Numbered<'_, R> {}

/// Two of one list are the same if their places are.
impl<R> PartialEq for Numbered<'_, R> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl<R> Eq for Numbered<'_, R> {}

impl<R> PartialOrd for Numbered<'_, R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for Numbered<'_, R> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.index.cmp(&other.index)
    }
}

/// A place in the final order of rules.
#[derive(Clone, Copy, Debug)]
pub(super) enum RuleSlot<'a> {
    /// One of the wanted rules, with the existing one that is the same.
    Wanted(WantedRule<'a>, Option<ExistingRule<'a>>),
    /// An existing rule of a frozen member.
    Frozen(ExistingRule<'a>),
}

/// An existing rule of a frozen member, and how many wanted rules stand above it.
struct KeptRule<'a> {
    existing: ExistingRule<'a>,
    above: usize,
}

/// The steps before and after the change of the default action.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RuleSteps {
    pub(super) before_default: Vec<Step>,
    pub(super) after_default: Vec<Step>,
    /// Steps for which other listeners of the load balancer have to make room.
    pub(super) later: Vec<Step>,
    /// Desired rules with the existing ones that become them in place, other than those of [`RuleChange::staying_rules`].
    pub(super) modified: Vec<(Rule, ObservedRule)>,
}

/// Returns true if the existing action is the desired one, with its authentication.
pub(super) fn same_action(
    before: Option<&Authentication>,
    wanted: &Action<TargetGroupReference>,
    existing: &[Action<TargetGroupArn>],
    resolve: &dyn Fn(&TargetGroupReference) -> Option<TargetGroupArn>,
) -> bool {
    let Some((existing, existing_before)) = existing.split_last() else { return false };
    if !authentication::same(before, existing_before) {
        return false;
    }
    let Ok(mut wanted) = wanted.try_map(|reference| resolve(reference).ok_or(())) else { return false };
    // AWS chooses the duration of stickiness where no annotation does.
    if let (Action::Forward { stickiness: Some(wanted), .. }, Action::Forward { stickiness: Some(existing), .. }) =
        (&mut wanted, existing)
    {
        wanted.duration_seconds = wanted.duration_seconds.or(existing.duration_seconds);
    }
    // AWS names the query of a redirect that keeps it; of one that takes it away it may show none.
    if let (Action::Redirect { query, .. }, Action::Redirect { query: None, .. }) = (&mut wanted, existing) {
        query.take_if(|query| query.is_empty());
    }
    normal(wanted) == normal(existing.clone())
}

/// Fills in what AWS fills in, and leaves out what has no meaning, so that equal behaviour compares equal.
fn normal(action: Action<TargetGroupArn>) -> Action<TargetGroupArn> {
    match action {
        Action::Forward { mut target_groups, stickiness } => {
            if let [only] = target_groups.as_mut_slice() {
                only.weight = None;
            }
            for target_group in &mut target_groups {
                // An explicit weight of 1 is what AWS gives to a group that has none.
                target_group.weight = target_group.weight.filter(|w| *w != 1);
            }
            target_groups.sort();
            Action::Forward { target_groups, stickiness: stickiness.filter(|s| s.enabled) }
        }
        Action::Redirect { host, path, port, protocol, query, status_code } => Action::Redirect {
            host: Some(host.unwrap_or_else(|| "#{host}".to_owned())),
            path: Some(path.unwrap_or_else(|| "/#{path}".to_owned())),
            port: Some(port.unwrap_or_else(|| "#{port}".to_owned())),
            protocol: Some(protocol.unwrap_or_else(|| "#{protocol}".to_owned())),
            query: Some(query.unwrap_or_else(|| "#{query}".to_owned())),
            status_code,
        },
        Action::FixedResponse { content_type, message_body, status_code } => Action::FixedResponse {
            content_type: content_type.filter(|t| !t.is_empty()),
            message_body: message_body.filter(|b| !b.is_empty()),
            status_code,
        },
        other => other,
    }
}

/// The order of conditions means nothing; the order of values within one is AWS's to keep.
pub(super) fn same_conditions(wanted: &Rule, existing: &ObservedRule) -> bool {
    let mut wanted: Vec<_> = wanted.conditions.iter().collect();
    let mut existing: Vec<_> = existing.conditions.iter().collect();
    wanted.sort();
    existing.sort();
    wanted == existing
}

/// Of each kind there is one, so that their order means nothing.
fn same_transforms(wanted: &Rule, existing: &ObservedRule) -> bool {
    let mut wanted: Vec<_> = wanted.transforms.iter().collect();
    let mut existing: Vec<_> = existing.transforms.iter().collect();
    wanted.sort();
    existing.sort();
    wanted == existing
}

impl<'a> RuleChange<'a> {
    fn same(&self, wanted: &Rule, existing: &ObservedRule) -> bool {
        same_transforms(wanted, existing) && same_conditions(wanted, existing) && self.same_action(wanted, existing)
    }

    fn same_action(&self, wanted: &Rule, existing: &ObservedRule) -> bool {
        same_action(wanted.authentication.as_ref(), &wanted.action, &existing.actions, self.resolve)
    }

    /// Returns the step that gives AWS the current content of a Secret: nothing else of the rule changes by it.
    fn secret(&self, wanted: &Rule, existing: &ObservedRule) -> Option<Step> {
        authentication::is_outdated(wanted.authentication.as_ref(), &existing.actions)
            .then(|| self.modify(wanted, existing))
    }

    pub(super) fn modify(&self, wanted: &Rule, existing: &ObservedRule) -> Step {
        let modify = StepAction::ModifyRule {
            arn: existing.arn.clone(),
            port: self.port,
            rule: Box::new(wanted.clone()),
            reset_transforms: wanted.transforms.is_empty() && !existing.transforms.is_empty(),
        };
        step(modify, wanted.cause.clone())
    }

    /// For each wanted rule, the existing one that is the same, each used once, earlier ones first.
    fn matches(&self) -> Vec<Option<ExistingRule<'a>>> {
        let mut used = BTreeSet::new();
        self.wanted
            .iter()
            .map(|wanted| {
                let is_free = |existing: &ExistingRule<'_>| {
                    !used.contains(&existing.index) && !self.frozen_resources.belongs_to_frozen(&existing.rule.arn)
                };
                let mut all = Numbered::all(self.existing);
                let found = all.find(|existing| is_free(existing) && self.same(wanted, existing.rule));
                used.extend(found.map(|existing| existing.index));
                found
            })
            .collect()
    }

    /// Returns the final order: the desired rules, and those of frozen members in their present position.
    fn places(&self, matches: &[Option<ExistingRule<'a>>]) -> Vec<RuleSlot<'a>> {
        let wanted = || Numbered::all(self.wanted).zip(matches.iter().copied());
        if self.frozen_resources.none_frozen() {
            return wanted().map(|(wanted, existing)| RuleSlot::Wanted(wanted, existing)).collect();
        }
        let claimed: BTreeSet<usize> = matches.iter().flatten().map(|existing| existing.index).collect();
        let mut unclaimed: Vec<ExistingRule<'a>> = Numbered::all(self.existing).collect();
        unclaimed.retain(|existing| !claimed.contains(&existing.index));
        let mut order: Vec<(WantedRule<'a>, Option<ExistingRule<'a>>)> = Vec::new();
        let mut kept: Vec<KeptRule<'a>> = Vec::new();
        for (member, frozen) in self.frozen_resources.order() {
            if frozen {
                let its = |existing: &&ExistingRule<'_>| {
                    self.frozen_resources.frozen_owner_of_rule(&existing.rule.arn) == Some(member)
                };
                let its = unclaimed.iter().filter(its);
                kept.extend(its.map(|existing| KeptRule { existing: *existing, above: order.len() }));
            } else {
                order.extend(wanted().filter(|(wanted, _)| wanted.rule.cause.object == *member));
            }
        }
        debug_assert_eq!(order.len(), self.wanted.len(), "each wanted rule is a member's that is not frozen");
        self.stay(matches.iter().all(Option::is_some), &order, &mut kept);
        let mut kept = kept.into_iter().peekable();
        let mut places = Vec::new();
        for before in 0..=order.len() {
            while let Some(kept) = kept.next_if(|kept| kept.above == before) {
                places.push(RuleSlot::Frozen(kept.existing));
            }
            places.extend(order.get(before).map(|(wanted, existing)| RuleSlot::Wanted(*wanted, *existing)));
        }
        places
    }

    /// Puts kept rules, each with the number of wanted ones above it by its member's place, where they stand now among the wanted
    /// ones that are there: what the order says of a frozen member may be new, or a mistake, and its rules do not move for it.
    /// Among new rules the member's place decides. So it does for a rule recorded for no member while others are new:
    /// it may be what one of them replaces.
    fn stay(&self, none_is_new: bool, order: &[(WantedRule<'a>, Option<ExistingRule<'a>>)], kept: &mut [KeptRule<'a>]) {
        kept.sort_unstable_by_key(|kept| (kept.existing.index, kept.above));
        let mut last = 0;
        for KeptRule { existing, above: place } in kept.iter_mut() {
            if !none_is_new && self.frozen_resources.holder_of_rule(&existing.rule.arn).is_none() {
                continue;
            }
            // The number of existing desired rules that would change sides with it, at each place from the top.
            let below = |now: &Option<ExistingRule<'_>>| now.is_some_and(|now| now.index < existing.index);
            let above = |now: &Option<ExistingRule<'_>>| now.is_some_and(|now| now.index > existing.index);
            let mut changing = order.iter().filter(|(_, now)| below(now)).count();
            let mut best = (changing, last > 0, *place, 0);
            for (before, (_, now)) in (1..).zip(order) {
                changing = changing + usize::from(above(now)) - usize::from(below(now));
                best = best.min((changing, before < last, place.abs_diff(before), before));
            }
            *place = best.3;
            last = *place;
        }
        kept.sort_by_key(|kept| (kept.above, kept.existing.index));
    }

    pub(super) fn steps(&self) -> RuleSteps {
        if let Some(steps) = self.actions_only() {
            return steps;
        }
        let matches = self.matches();
        let places = self.places(&matches);
        let mut steps = self.at_once(&matches, &places);
        if let Some((used, balancer)) = self.used.filter(|(used, _)| !self.fits(&steps, used)) {
            steps = self.in_steps(&places, used.clone(), balancer);
        }
        let kept = self.wanted.iter().zip(&matches).filter_map(|(rule, m)| Some((rule, (*m)?.rule)));
        steps.before_default.extend(kept.filter_map(|(wanted, existing)| self.secret(wanted, existing)));
        steps
    }

    /// Returns true if there is room for all rules that the steps create before they delete any.
    fn fits(&self, steps: &RuleSteps, used: &QuotaUsage) -> bool {
        let mut used = used.clone();
        steps.before_default.iter().all(|step| {
            let fits = match &step.action {
                StepAction::CreateRule { rule, .. } => used.fits(rule, self.resolve),
                _ => true,
            };
            used.after(step, None, self.resolve);
            fits
        })
    }

    /// Returns the steps where all that comes is made before what goes is deleted.
    fn at_once(&self, matches: &[Option<ExistingRule<'a>>], places: &[RuleSlot<'a>]) -> RuleSteps {
        let in_place = places.iter().filter_map(|place| match place {
            RuleSlot::Wanted(_, existing) => *existing,
            RuleSlot::Frozen(existing) => Some(*existing),
        });
        let kept: BTreeSet<usize> = in_place.map(|existing| existing.index).collect();
        let mut to_delete: Vec<ExistingRule<'a>> = Numbered::all(self.existing).collect();
        to_delete.retain(|existing| !kept.contains(&existing.index));
        let created = matches.iter().filter(|m| m.is_none()).count();
        let mut steps = RuleSteps::default();

        // Priorities as they are; compacted first in the rare case that no room is left below.
        let lowest = self.existing.last().map_or(0, |rule| rule.priority);
        let room = LARGEST_PRIORITY - lowest.min(LARGEST_PRIORITY);
        let is_compacted = u32::try_from(created).is_ok_and(|created| created > room);
        let now = |existing: ExistingRule<'_>| if is_compacted { existing.priority() } else { existing.rule.priority };
        if is_compacted {
            let priorities = Numbered::all(self.existing)
                .map(|existing| (RuleReference::Existing(existing.rule.arn.clone()), now(existing)));
            steps.before_default.push(step(
                StepAction::SetRulePriorities { port: self.port, priorities: priorities.collect() },
                self.cause.clone(),
            ));
        }

        // 1. New rules at the bottom.
        let mut next = Numbered::all(self.existing).next_back().map_or(0, now) + 1;
        let mut order: Vec<(RuleReference, u32)> = Vec::new();
        for place in places {
            match *place {
                RuleSlot::Wanted(_, Some(existing)) | RuleSlot::Frozen(existing) => {
                    order.push((RuleReference::Existing(existing.rule.arn.clone()), now(existing)));
                }
                RuleSlot::Wanted(Numbered { index, rule }, None) => {
                    order.push((RuleReference::Created(self.port, index), next));
                    let create = StepAction::CreateRule {
                        listener: self.listener.clone(),
                        port: self.port,
                        index,
                        priority: next,
                        rule: Box::new(rule.clone()),
                    };
                    steps.before_default.push(step(create, rule.cause.clone()));
                    next += 1;
                }
            }
        }

        // 2. The final order, where it is not there yet.
        if !order.is_sorted_by(|(_, above), (_, below)| above < below) {
            let to_delete = to_delete.iter().map(|gone| (RuleReference::Existing(gone.rule.arn.clone()), now(*gone)));
            let priorities: Vec<(RuleReference, u32)> = order
                .into_iter()
                .chain(to_delete)
                .zip(1..)
                .filter(|((_, current), wanted)| current != wanted)
                .map(|((rule, _), wanted)| (rule, wanted))
                .collect();
            steps
                .before_default
                .push(step(StepAction::SetRulePriorities { port: self.port, priorities }, self.cause.clone()));
        }

        // 4. What goes, from the lowest.
        for Numbered { rule, .. } in to_delete.iter().rev() {
            let delete = StepAction::DeleteRule { arn: rule.arn.clone(), port: self.port, priority: rule.priority };
            steps.after_default.push(step(delete, self.cause.clone()));
        }
        steps
    }

    /// Returns the steps if rules differ only in their actions and transforms, and those name only groups whose targets are checked.
    fn actions_only(&self) -> Option<RuleSteps> {
        let places = self.places(&self.matches());
        if !self.default_stays || places.len() != self.existing.len() {
            return None;
        }
        let mut steps = RuleSteps::default();
        for (place, (index, existing)) in places.into_iter().zip(self.existing.iter().enumerate()) {
            let wanted = match place {
                RuleSlot::Wanted(wanted, _) => wanted.rule,
                RuleSlot::Frozen(kept) if kept.index == index => continue,
                RuleSlot::Frozen(_) => return None,
            };
            if !same_conditions(wanted, existing) {
                return None;
            }
            if same_transforms(wanted, existing) && self.same_action(wanted, existing) {
                steps.before_default.extend(self.secret(wanted, existing));
                continue;
            }
            let checked = |group| (self.resolve)(group).is_some_and(|arn| self.in_use.contains(&arn));
            if !wanted.action.target_groups().all(checked) {
                return None;
            }
            steps.before_default.push(self.modify(wanted, existing));
        }
        Some(steps)
    }

    /// Existing rules of frozen members.
    pub(super) fn frozen_rules(&self) -> Vec<&ObservedRule> {
        let places = self.places(&self.matches()).into_iter();
        let kept = places.filter_map(|place| match place {
            RuleSlot::Frozen(existing) => Some(existing.rule),
            RuleSlot::Wanted(..) => None,
        });
        kept.collect()
    }

    /// Existing rules that stay, with the wanted rule that each is, or becomes in place.
    pub(super) fn staying_rules(&self) -> Vec<(&Rule, &ObservedRule)> {
        let matches = self.matches();
        if self.actions_only().is_some() {
            let places = self.places(&matches).into_iter().zip(self.existing);
            let wanted = places.filter_map(|(place, existing)| match place {
                RuleSlot::Wanted(wanted, _) => Some((wanted.rule, existing)),
                RuleSlot::Frozen(_) => None,
            });
            return wanted.collect();
        }
        let matched = self.wanted.iter().zip(matches);
        matched.filter_map(|(wanted, matched)| Some((wanted, matched?.rule))).collect()
    }
}

pub(super) fn step(action: StepAction, cause: Cause) -> Step {
    Step::new(action, cause)
}
