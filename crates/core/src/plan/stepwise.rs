//! The rules of a listener where there is no room to create all new rules before the old ones are deleted.
//!
//! The observed rules are a list, of which every request takes the first rule that fits. The plan leads it to the desired
//! list so that a request is answered as before or as after:
//!
//! 1. A new rule is created below everything, when all desired rules above it exist: it takes only requests that reached
//!    the default action, and keeps taking those.
//! 2. Desired rules are put above all others once all above them exist: the requests that they take are answered as after.
//! 3. An old rule is deleted when it takes no request any more, because a rule above it takes all of them; or when the
//!    requests that it takes are answered as after without it. From the bottom, since fewer rules stand below.
//! 4. A rule of the same conditions becomes the desired one in place, where the target group that it releases leaves room
//!    for the groups that it leads to. Old rules that keep that group in use are deleted first, and their successors are
//!    created right after.
//!
//! If none of these is possible, the lowest old rule is deleted, and the next desired one created at once.

use std::collections::BTreeSet;

use super::{
    action::StepAction,
    quota_usage::QuotaUsage,
    rules::{
        ExistingRule, LARGEST_PRIORITY, Numbered, RuleChange, RuleSlot, RuleSteps, WantedRule, same_conditions, step,
    },
    step::RuleReference,
};
use crate::{
    model::{Action, Condition, ObservedLoadBalancer, Rule, TargetGroupArn},
    route::are_apart,
};

/// A rule of the listener at a point of the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item<'a> {
    /// An existing rule.
    Existing(ExistingRule<'a>),
    /// A desired rule that did not exist.
    Created(WantedRule<'a>),
}

impl<'a> Item<'a> {
    fn conditions(self) -> &'a [Condition] {
        match self {
            Self::Existing(existing) => &existing.rule.conditions,
            Self::Created(wanted) => &wanted.rule.conditions,
        }
    }
}

/// A place of the final order.
#[derive(Clone, Copy)]
struct Place<'a> {
    slot: RuleSlot<'a>,
    /// The rule that is there for it.
    made: Option<Item<'a>>,
}

struct StepwiseChange<'c, 'a> {
    change: &'c RuleChange<'a>,
    balancer: Option<&'c ObservedLoadBalancer>,
    used: QuotaUsage,
    /// The final order.
    places: Vec<Place<'a>>,
    /// The rules in AWS, from the top, with priorities.
    list: Vec<(Item<'a>, u32)>,
    steps: RuleSteps,
    /// Wanted rules of the conditions of rules that were deleted for another, and are made next.
    owed: Vec<WantedRule<'a>>,
    /// Changes in place for which others have to make room.
    modified_later: Vec<super::step::Step>,
}

impl<'a> RuleChange<'a> {
    /// Returns the steps where not all new rules fit next to the old ones. `used` is the load balancer's usage before them.
    pub(super) fn in_steps(
        &self,
        places: &[RuleSlot<'a>],
        used: QuotaUsage,
        balancer: Option<&ObservedLoadBalancer>,
    ) -> RuleSteps {
        let places = places.iter().map(|slot| match slot {
            RuleSlot::Wanted(_, existing) => Place { slot: *slot, made: existing.map(Item::Existing) },
            RuleSlot::Frozen(existing) => Place { slot: *slot, made: Some(Item::Existing(*existing)) },
        });
        let list = Numbered::all(self.existing).map(|existing| (Item::Existing(existing), existing.rule.priority));
        let mut in_steps = StepwiseChange {
            change: self,
            balancer,
            used,
            places: places.collect(),
            list: list.collect(),
            steps: RuleSteps::default(),
            owed: Vec::new(),
            modified_later: Vec::new(),
        };
        in_steps.run();
        in_steps.steps
    }
}

impl<'a> StepwiseChange<'_, 'a> {
    fn run(&mut self) {
        let lowest = self.list.last().map_or(0, |(_, priority)| *priority);
        if usize::try_from(LARGEST_PRIORITY.saturating_sub(lowest)).is_ok_and(|room| room < self.places.len()) {
            self.set_order(self.list.iter().map(|(item, _)| *item).collect());
        }
        while let Some((place, wanted)) = self.next() {
            let same = self.like(wanted.rule);
            let is_checked = |group| (self.change.resolve)(group).is_some_and(|arn| self.change.in_use.contains(&arn));
            let in_place = same.filter(|existing| self.fits_instead(wanted.rule, &[*existing]));
            if let Some(existing) = in_place.filter(|_| wanted.rule.action.target_groups().all(is_checked)) {
                self.modify(place, wanted, existing);
            } else if self.used.fits(wanted.rule, self.change.resolve) {
                self.create(place, wanted);
            } else if self.delete_covered() || self.delete_one(Self::is_safe_to_delete) {
                // There is room for the next.
                continue;
            } else if let Some(existing) = in_place {
                self.modify(place, wanted, existing);
                self.create_owed();
            } else if same.is_some_and(|existing| self.delete_sharing(wanted.rule, existing)) {
                continue;
            } else if !self.delete_one(|_, _, item| same.map(Item::Existing) != Some(item)) {
                // What goes is elsewhere on the load balancer. If there is no room in the end either, an existing rule
                // continues to answer until AWS accepts its change.
                let Some(existing) = same.filter(|_| !self.change.fits_in_the_end) else { break };
                self.modify_later(place, wanted, existing);
            }
        }
        let later: Vec<WantedRule<'a>> = std::iter::from_fn(|| {
            let (place, wanted) = self.next()?;
            self.set_made(place, Item::Created(wanted));
            Some(wanted)
        })
        .collect();
        if later.is_empty() && self.modified_later.is_empty() {
            self.order(self.places.len());
            self.delete_rest();
        } else {
            // Later steps come after that.
            self.delete_rest();
            self.go_on_later(&later);
        }
    }

    /// Deletes the rules that go, after the default action has changed.
    fn delete_rest(&mut self) {
        let list = std::mem::take(&mut self.list).into_iter();
        let (gone, left): (Vec<_>, Vec<_>) = list.partition(|(item, _)| self.is_to_delete(*item));
        for (item, _) in gone.into_iter().rev() {
            self.steps.after_default.extend(self.delete_step(item));
        }
        self.list = left;
    }

    /// Creates what did not fit once other listeners have released their resources; the last first, since they release their
    /// lowest first. The order follows the changes.
    fn go_on_later(&mut self, later: &[WantedRule<'a>]) {
        let before = std::mem::take(&mut self.steps.before_default);
        for wanted in later {
            self.push_create(*wanted);
        }
        self.steps.before_default.reverse();
        self.steps.before_default.extend(std::mem::take(&mut self.modified_later));
        self.order(self.places.len());
        self.steps.later = std::mem::replace(&mut self.steps.before_default, before);
    }

    /// Returns the first place whose rule is not there, with the wanted rule.
    fn next(&self) -> Option<(usize, WantedRule<'a>)> {
        let (at, place) = self.places.iter().enumerate().find(|(_, place)| place.made.is_none())?;
        match place.slot {
            RuleSlot::Wanted(wanted, _) => Some((at, wanted)),
            RuleSlot::Frozen(_) => None,
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a place is found in this list, whose length does not change")]
    fn set_made(&mut self, place: usize, item: Item<'a>) {
        self.places[place].made = Some(item);
    }

    /// Returns the rules that are there for the first places.
    fn made_first(&self, places: usize) -> impl Iterator<Item = Item<'a>> {
        self.places.iter().take(places).filter_map(|place| place.made)
    }

    fn is_to_delete(&self, item: Item<'a>) -> bool {
        self.place_of(item).is_none()
    }

    /// Returns the place that a rule is there for.
    fn place_of(&self, item: Item<'a>) -> Option<usize> {
        self.places.iter().position(|place| place.made == Some(item))
    }

    /// Returns the topmost rule that goes and has the conditions of a wanted one.
    fn like(&self, wanted: &Rule) -> Option<ExistingRule<'a>> {
        let to_delete = self.list.iter().filter(|(item, _)| self.is_to_delete(*item));
        let mut existing = to_delete.filter_map(|(item, _)| match item {
            Item::Existing(existing) => Some(*existing),
            Item::Created(_) => None,
        });
        existing.find(|existing| {
            same_conditions(wanted, existing.rule)
                && !self.change.frozen_resources.belongs_to_frozen(&existing.rule.arn)
        })
    }

    fn push(&mut self, action: StepAction, cause: &crate::model::Cause) {
        let step = step(action, cause.clone());
        self.used.after(&step, self.balancer, self.change.resolve);
        self.steps.before_default.push(step);
    }

    fn push_create(&mut self, wanted: WantedRule<'a>) {
        let Numbered { index, rule } = wanted;
        let priority = self.list.last().map_or(0, |(_, priority)| *priority) + 1;
        let create = StepAction::CreateRule {
            listener: self.change.listener.clone(),
            port: self.change.port,
            index,
            priority,
            rule: Box::new(rule.clone()),
        };
        self.list.push((Item::Created(wanted), priority));
        self.push(create, &rule.cause);
    }

    fn create(&mut self, place: usize, wanted: WantedRule<'a>) {
        self.push_create(wanted);
        self.set_made(place, Item::Created(wanted));
        // One that was made before its turn would take its requests.
        let is_complete = self.made_first(place).count() == place;
        let mut below = self.places.iter().skip(place + 1);
        if is_complete && below.any(|place| matches!(place.made, Some(Item::Created(_)))) {
            self.order(place + 1);
        }
    }

    /// Changes a rule into a desired one of the same conditions. Until now it may have been above desired ones that must take
    /// its requests.
    fn modify(&mut self, place: usize, wanted: WantedRule<'a>, existing: ExistingRule<'a>) {
        self.order(place);
        let modify = self.change.modify(wanted.rule, existing.rule);
        self.push(modify.action, &modify.cause);
        self.set_made(place, Item::Existing(existing));
        self.steps.modified.push((wanted.rule.clone(), existing.rule.clone()));
    }

    fn modify_later(&mut self, place: usize, wanted: WantedRule<'a>, existing: ExistingRule<'a>) {
        self.modified_later.push(self.change.modify(wanted.rule, existing.rule));
        self.set_made(place, Item::Existing(existing));
        self.steps.modified.push((wanted.rule.clone(), existing.rule.clone()));
    }

    fn delete_step(&self, item: Item<'a>) -> Option<super::step::Step> {
        let Item::Existing(Numbered { rule, .. }) = item else { return None };
        let delete = StepAction::DeleteRule { arn: rule.arn.clone(), port: self.change.port, priority: rule.priority };
        Some(step(delete, self.change.cause.clone()))
    }

    fn delete(&mut self, item: Item<'a>) {
        if let Some(delete) = self.delete_step(item) {
            self.push(delete.action, &delete.cause);
            self.list.retain(|(other, _)| *other != item);
        }
    }

    /// Deletes all rules that go and take nothing any more. Returns false if there are none.
    fn delete_covered(&mut self) -> bool {
        let first = self.places.iter().take_while(|place| place.made.is_some()).count();
        let top: BTreeSet<Item<'a>> = self.made_first(first).collect();
        let mut above: Vec<&[Condition]> = self.made_first(first).map(Item::conditions).collect();
        let mut covered = Vec::new();
        for (item, _) in self.list.iter().filter(|(item, _)| !top.contains(item)) {
            let conditions = item.conditions();
            let covers = |above: &&[Condition]| above.iter().all(|condition| conditions.contains(condition));
            if self.is_to_delete(*item) && above.iter().any(covers) {
                covered.push(*item);
            }
            above.push(conditions);
        }
        if covered.is_empty() {
            return false;
        }
        self.order(first);
        let list = self.list.iter().rev().map(|(item, _)| *item);
        let from_below: Vec<Item<'a>> = list.filter(|item| covered.contains(item)).collect();
        from_below.into_iter().for_each(|item| self.delete(item));
        true
    }

    /// Returns true if there is room for what a wanted rule leads to when existing rules lead nowhere any more.
    fn fits_instead(&self, wanted: &Rule, existing: &[ExistingRule<'a>]) -> bool {
        let arns: Vec<_> = existing.iter().map(|existing| &existing.rule.arn).collect();
        self.used.fits_instead(self.change.port, &arns, wanted, self.change.resolve)
    }

    /// Deletes the lowest rule to delete that leads to a target group of `existing`, which becomes `wanted`, if `wanted` has
    /// room once `existing` and all such rules lead nowhere any more. Returns false if there is none.
    fn delete_sharing(&mut self, wanted: &Rule, existing: ExistingRule<'a>) -> bool {
        let groups = |existing: ExistingRule<'a>| -> BTreeSet<&'a TargetGroupArn> {
            existing.rule.actions.iter().flat_map(Action::target_groups).collect()
        };
        let given_up = groups(existing);
        let to_delete = self.list.iter().filter(|(item, _)| self.is_to_delete(*item));
        let sharing: Vec<ExistingRule<'a>> = to_delete
            .filter_map(|(item, _)| match item {
                Item::Existing(other) if *other != existing && !groups(*other).is_disjoint(&given_up) => Some(*other),
                _ => None,
            })
            .collect();
        let Some(lowest) = sharing.last().copied() else { return false };
        let leaving: Vec<ExistingRule<'a>> = sharing.into_iter().chain([existing]).collect();
        if !self.fits_instead(wanted, &leaving) {
            return false;
        }
        self.owed.extend(Numbered::all(self.change.wanted).find(|wanted| same_conditions(wanted.rule, lowest.rule)));
        self.delete(Item::Existing(lowest));
        true
    }

    /// Makes the wanted rules whose requests have no rule since another was deleted for them, as far as they fit.
    fn create_owed(&mut self) {
        for owed in std::mem::take(&mut self.owed) {
            let is_missing = |place: &Place<'_>| {
                place.made.is_none() && matches!(place.slot, RuleSlot::Wanted(wanted, _) if wanted == owed)
            };
            let place = self.places.iter().position(is_missing);
            if let Some(place) = place.filter(|_| self.used.fits(owed.rule, self.change.resolve)) {
                self.create(place, owed);
            }
        }
    }

    /// Deletes the lowest rule that goes and may be deleted. Returns false if there is none.
    fn delete_one(&mut self, may_go: impl Fn(&Self, usize, Item<'a>) -> bool) -> bool {
        let mut from_below = self.list.iter().enumerate().rev().map(|(at, (item, _))| (at, *item));
        let lowest = from_below.find(|(at, item)| self.is_to_delete(*item) && may_go(self, *at, *item));
        lowest.is_some_and(|(_, item)| {
            self.delete(item);
            true
        })
    }

    /// Returns true if what a rule takes is answered as after without it: no wanted rule that is still to come takes any of
    /// it, nothing below does but wanted rules in their final order, and the default action stays as it is.
    fn is_safe_to_delete(&self, at: usize, item: Item<'a>) -> bool {
        let conditions = item.conditions();
        let meets = |other: &[Condition]| !are_apart(conditions, other);
        let to_come = self.places.iter().filter(|place| place.made.is_none());
        let mut to_come = to_come.filter_map(|place| match place.slot {
            RuleSlot::Wanted(wanted, _) => Some(&wanted.rule.conditions),
            RuleSlot::Frozen(_) => None,
        });
        if !self.change.default_stays || to_come.any(|conditions| meets(conditions)) {
            return false;
        }
        let below = self.list.iter().skip(at + 1).filter(|(item, _)| meets(item.conditions()));
        let finals: Option<Vec<usize>> = below.map(|(item, _)| self.place_of(*item)).collect();
        finals.is_some_and(|finals| finals.is_sorted())
    }

    /// Puts the rules of the first places above all others, in their final order.
    fn order(&mut self, places: usize) {
        let top: Vec<Item<'a>> = self.made_first(places).collect();
        let others = self.list.iter().map(|(item, _)| *item).filter(|item| !top.contains(item));
        let wanted: Vec<Item<'a>> = top.iter().copied().chain(others).collect();
        let is_so = self.list.iter().map(|(item, _)| item).eq(&wanted);
        if !is_so {
            self.set_order(wanted);
        }
    }

    fn set_order(&mut self, wanted: Vec<Item<'a>>) {
        let port = self.change.port;
        let reference = |item: Item<'_>| match item {
            Item::Existing(existing) => RuleReference::Existing(existing.rule.arn.clone()),
            Item::Created(wanted) => RuleReference::Created(port, wanted.index),
        };
        let list: Vec<(Item<'a>, u32)> = wanted.into_iter().zip(1..).collect();
        let changed = list.iter().filter(|entry| !self.list.contains(entry));
        let priorities = changed.map(|(item, priority)| (reference(*item), *priority)).collect();
        self.list = list;
        let cause = self.change.cause;
        self.push(StepAction::SetRulePriorities { port, priorities }, cause);
    }
}
