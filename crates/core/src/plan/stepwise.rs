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
//! 4. A rule of the same conditions becomes the desired one in place, where the target group that it gives up leaves room
//!    for those that it leads to. Old rules that keep that group in use are deleted first, and theirs created right after.
//!
//! Where none of these is possible, the lowest old rule is deleted, and the next desired one created at once.

use std::collections::BTreeSet;

use super::{
    quota_usage::QuotaUsage,
    rules::{LARGEST_PRIORITY, RuleChange, RuleSlot, RuleSteps, same_conditions, step},
    step::{RuleReference, StepAction},
};
use crate::{
    model::{Action, Condition, ObservedLoadBalancer, TargetGroupArn},
    route::are_apart,
};

/// A rule of the listener at a point of the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    /// One that was there.
    Existing(usize),
    /// One of the wanted rules, which was not.
    Created(usize),
}

struct StepwiseChange<'c, 'a> {
    change: &'c RuleChange<'a>,
    balancer: Option<&'c ObservedLoadBalancer>,
    used: QuotaUsage,
    places: &'c [RuleSlot],
    /// By place of the final order, the rule that is there for it.
    made: Vec<Option<Item>>,
    /// What AWS has, from the top, with priorities.
    list: Vec<(Item, u32)>,
    steps: RuleSteps,
    /// Wanted rules of the conditions of rules that were deleted for another, and are made next.
    owed: Vec<usize>,
    /// Changes in place for which others have to make room.
    modified_later: Vec<super::step::Step>,
}

impl RuleChange<'_> {
    /// Returns the steps where not all that comes fits besides what goes. `used` is what the load balancer has before them.
    pub(super) fn in_steps(
        &self,
        matches: &[Option<usize>],
        places: &[RuleSlot],
        used: QuotaUsage,
        balancer: Option<&ObservedLoadBalancer>,
    ) -> RuleSteps {
        let made = places.iter().map(|place| match place {
            RuleSlot::Wanted(index) => matches[*index].map(Item::Existing),
            RuleSlot::Frozen(index) => Some(Item::Existing(*index)),
        });
        let list = self.existing.iter().enumerate().map(|(index, rule)| (Item::Existing(index), rule.priority));
        let mut in_steps = StepwiseChange {
            change: self,
            balancer,
            used,
            places,
            made: made.collect(),
            list: list.collect(),
            steps: RuleSteps::default(),
            owed: Vec::new(),
            modified_later: Vec::new(),
        };
        in_steps.run();
        in_steps.steps
    }
}

impl<'c> StepwiseChange<'c, '_> {
    fn run(&mut self) {
        let lowest = self.list.last().map_or(0, |(_, priority)| *priority);
        if usize::try_from(LARGEST_PRIORITY.saturating_sub(lowest)).is_ok_and(|room| room < self.places.len()) {
            self.set_order(self.list.iter().map(|(item, _)| *item).collect());
        }
        while let Some((place, index)) = self.next() {
            let rule = &self.change.wanted[index];
            let same = self.like(index);
            let is_checked = |group| (self.change.resolve)(group).is_some_and(|arn| self.change.in_use.contains(&arn));
            let in_place = same.filter(|existing| self.fits_instead(index, &[*existing]));
            if let Some(existing) = in_place.filter(|_| rule.action.target_groups().all(is_checked)) {
                self.modify(place, index, existing);
            } else if self.used.fits(rule, self.change.resolve) {
                self.create(place, index);
            } else if self.delete_covered() || self.delete_one(|in_steps, at| in_steps.is_safe_to_delete(at)) {
                // There is room for the next.
                continue;
            } else if let Some(existing) = in_place {
                self.modify(place, index, existing);
                self.create_owed();
            } else if same.is_some_and(|existing| self.delete_sharing(index, existing)) {
                continue;
            } else if !self.delete_one(|in_steps, at| same.map(Item::Existing) != Some(in_steps.list[at].0)) {
                // What goes is elsewhere on the load balancer. Where there is no room in the end either, a rule that is there
                // answers on until AWS takes the change of it.
                let Some(existing) = same.filter(|_| !self.change.fits_in_the_end) else { break };
                self.modify_later(place, index, existing);
            }
        }
        let later: Vec<(usize, usize)> = std::iter::from_fn(|| {
            let (place, index) = self.next()?;
            self.made[place] = Some(Item::Created(index));
            Some((place, index))
        })
        .collect();
        if later.is_empty() && self.modified_later.is_empty() {
            self.order(self.places.len());
            self.delete_rest();
        } else {
            // What goes on later comes after that.
            self.delete_rest();
            self.go_on_later(&later);
        }
    }

    /// Deletes the rules that go, after the default action has changed.
    fn delete_rest(&mut self) {
        for at in (0..self.list.len()).rev() {
            if self.is_to_delete(at) {
                let step = self.delete_step(at);
                self.steps.after_default.extend(step);
                self.list.remove(at);
            }
        }
    }

    /// Makes what does not fit when other listeners have given up what they give up; the last first, since they give up their
    /// lowest first. The order follows the changes.
    fn go_on_later(&mut self, later: &[(usize, usize)]) {
        let before = std::mem::take(&mut self.steps.before_default);
        for (_, index) in later {
            self.push_create(*index);
        }
        self.steps.before_default.reverse();
        self.steps.before_default.extend(std::mem::take(&mut self.modified_later));
        self.order(self.places.len());
        self.steps.later = std::mem::replace(&mut self.steps.before_default, before);
    }

    /// Returns the first place whose rule is not there, with the wanted rule.
    fn next(&self) -> Option<(usize, usize)> {
        let place = self.made.iter().position(Option::is_none)?;
        match self.places[place] {
            RuleSlot::Wanted(index) => Some((place, index)),
            RuleSlot::Frozen(_) => None,
        }
    }

    fn conditions(&self, item: Item) -> &'c [Condition] {
        match item {
            Item::Existing(index) => &self.change.existing[index].conditions,
            Item::Created(index) => &self.change.wanted[index].conditions,
        }
    }

    fn is_to_delete(&self, at: usize) -> bool {
        !self.made.contains(&Some(self.list[at].0))
    }

    /// Returns the topmost rule that goes and has the conditions of a wanted one.
    fn like(&self, index: usize) -> Option<usize> {
        (0..self.list.len()).filter(|at| self.is_to_delete(*at)).find_map(|at| match self.list[at].0 {
            Item::Existing(existing)
                if same_conditions(&self.change.wanted[index], &self.change.existing[existing])
                    && !self.change.frozen_resources.belongs_to_frozen(&self.change.existing[existing].arn) =>
            {
                Some(existing)
            }
            _ => None,
        })
    }

    fn push(&mut self, action: StepAction, cause: &crate::model::Cause) {
        let step = step(action, cause.clone());
        self.used.after(&step, self.balancer, self.change.resolve);
        self.steps.before_default.push(step);
    }

    fn push_create(&mut self, index: usize) {
        let rule = &self.change.wanted[index];
        let priority = self.list.last().map_or(0, |(_, priority)| *priority) + 1;
        let create = StepAction::CreateRule {
            listener: self.change.listener.clone(),
            port: self.change.port,
            index,
            priority,
            rule: Box::new(rule.clone()),
        };
        self.list.push((Item::Created(index), priority));
        self.push(create, &rule.cause);
    }

    fn create(&mut self, place: usize, index: usize) {
        self.push_create(index);
        self.made[place] = Some(Item::Created(index));
        // One that was made before its turn would take its requests.
        let is_complete = self.made[..place].iter().all(Option::is_some);
        if is_complete && self.made[place + 1..].iter().any(|made| matches!(made, Some(Item::Created(_)))) {
            self.order(place + 1);
        }
    }

    /// Makes a rule into a wanted one of the same conditions. Until now it may have stood above wanted ones that shall take
    /// its requests.
    fn modify(&mut self, place: usize, index: usize, existing: usize) {
        self.order(place);
        let wanted = &self.change.wanted[index];
        let modify = self.change.modify(wanted, &self.change.existing[existing]);
        self.push(modify.action, &modify.cause);
        self.made[place] = Some(Item::Existing(existing));
        self.steps.modified.push((index, existing));
    }

    fn modify_later(&mut self, place: usize, index: usize, existing: usize) {
        self.modified_later.push(self.change.modify(&self.change.wanted[index], &self.change.existing[existing]));
        self.made[place] = Some(Item::Existing(existing));
        self.steps.modified.push((index, existing));
    }

    fn delete_step(&self, at: usize) -> Option<super::step::Step> {
        let Item::Existing(existing) = self.list[at].0 else { return None };
        let rule = &self.change.existing[existing];
        let delete = StepAction::DeleteRule { arn: rule.arn.clone(), port: self.change.port, priority: rule.priority };
        Some(step(delete, self.change.cause.clone()))
    }

    fn delete(&mut self, at: usize) {
        if let Some(delete) = self.delete_step(at) {
            self.push(delete.action, &delete.cause);
            self.list.remove(at);
        }
    }

    /// Deletes all rules that go and take nothing any more. Returns false if there are none.
    fn delete_covered(&mut self) -> bool {
        let first = self.made.iter().position(Option::is_none).unwrap_or(self.made.len());
        let mut above: Vec<&[Condition]> = self.made[..first].iter().flatten().map(|i| self.conditions(*i)).collect();
        let mut covered = BTreeSet::new();
        for (at, (item, _)) in self.list.iter().enumerate() {
            if self.made[..first].contains(&Some(*item)) {
                continue;
            }
            let conditions = self.conditions(*item);
            let covers = |above: &&[Condition]| above.iter().all(|condition| conditions.contains(condition));
            if self.is_to_delete(at) && above.iter().any(covers) {
                covered.insert(*item);
            }
            above.push(conditions);
        }
        if covered.is_empty() {
            return false;
        }
        self.order(first);
        for at in (0..self.list.len()).rev() {
            if covered.contains(&self.list[at].0) {
                self.delete(at);
            }
        }
        true
    }

    /// Returns true if there is room for what a wanted rule leads to when existing rules lead nowhere any more.
    fn fits_instead(&self, index: usize, existing: &[usize]) -> bool {
        let arns: Vec<_> = existing.iter().map(|existing| &self.change.existing[*existing].arn).collect();
        self.used.fits_instead(self.change.port, &arns, &self.change.wanted[index], self.change.resolve)
    }

    /// Deletes the lowest rule that goes and leads where an existing rule does that becomes a wanted one, if that and others that
    /// go alone keep the wanted one from having room. Returns false if there is none.
    fn delete_sharing(&mut self, index: usize, existing: usize) -> bool {
        let groups = |existing: usize| -> BTreeSet<&TargetGroupArn> {
            self.change.existing[existing].actions.iter().flat_map(Action::target_groups).collect()
        };
        let given_up = groups(existing);
        let sharing: Vec<(usize, usize)> = (0..self.list.len())
            .filter(|at| self.is_to_delete(*at))
            .filter_map(|at| match self.list[at].0 {
                Item::Existing(other) if other != existing && !groups(other).is_disjoint(&given_up) => {
                    Some((at, other))
                }
                _ => None,
            })
            .collect();
        let Some((at, lowest)) = sharing.last().copied() else { return false };
        let leaving: Vec<usize> = sharing.iter().map(|(_, other)| *other).chain([existing]).collect();
        if !self.fits_instead(index, &leaving) {
            return false;
        }
        let deleted = &self.change.existing[lowest];
        self.owed
            .extend((0..self.change.wanted.len()).find(|index| same_conditions(&self.change.wanted[*index], deleted)));
        self.delete(at);
        true
    }

    /// Makes the wanted rules whose requests have no rule since another was deleted for them, as far as they fit.
    fn create_owed(&mut self) {
        for index in std::mem::take(&mut self.owed) {
            let place = self.places.iter().position(|place| *place == RuleSlot::Wanted(index));
            let missing = place.filter(|place| self.made[*place].is_none());
            if let Some(place) = missing.filter(|_| self.used.fits(&self.change.wanted[index], self.change.resolve)) {
                self.create(place, index);
            }
        }
    }

    /// Deletes the lowest rule that goes and may be deleted. Returns false if there is none.
    fn delete_one(&mut self, may_go: impl Fn(&Self, usize) -> bool) -> bool {
        let lowest = (0..self.list.len()).rev().find(|at| self.is_to_delete(*at) && may_go(self, *at));
        lowest.is_some_and(|at| {
            self.delete(at);
            true
        })
    }

    /// Returns true if what a rule takes is answered as after without it: no wanted rule that is still to come takes any of
    /// it, nothing below does but wanted rules in their final order, and the default action stays as it is.
    fn is_safe_to_delete(&self, at: usize) -> bool {
        let conditions = self.conditions(self.list[at].0);
        let meets = |other: &[Condition]| !are_apart(conditions, other);
        let to_come = self.places.iter().zip(&self.made).filter(|(_, made)| made.is_none());
        let mut to_come = to_come.filter_map(|(place, _)| match place {
            RuleSlot::Wanted(index) => Some(&self.change.wanted[*index].conditions),
            RuleSlot::Frozen(_) => None,
        });
        if !self.change.default_stays || to_come.any(|conditions| meets(conditions)) {
            return false;
        }
        let below = self.list[at + 1..].iter().filter(|(item, _)| meets(self.conditions(*item)));
        let finals: Option<Vec<usize>> =
            below.map(|(item, _)| self.made.iter().position(|made| *made == Some(*item))).collect();
        finals.is_some_and(|finals| finals.is_sorted())
    }

    /// Puts the rules of the first places above all others, in their final order.
    fn order(&mut self, places: usize) {
        let top: Vec<Item> = self.made[..places].iter().flatten().copied().collect();
        let others = self.list.iter().map(|(item, _)| *item).filter(|item| !top.contains(item));
        let wanted: Vec<Item> = top.iter().copied().chain(others).collect();
        let is_so = self.list.iter().map(|(item, _)| item).eq(&wanted);
        if !is_so {
            self.set_order(wanted);
        }
    }

    fn set_order(&mut self, wanted: Vec<Item>) {
        let port = self.change.port;
        let reference = |item: Item| match item {
            Item::Existing(index) => RuleReference::Existing(self.change.existing[index].arn.clone()),
            Item::Created(index) => RuleReference::Created(port, index),
        };
        let list: Vec<(Item, u32)> = wanted.into_iter().zip(1..).collect();
        let changed = list.iter().filter(|entry| !self.list.contains(entry));
        let priorities = changed.map(|(item, priority)| (reference(*item), *priority)).collect();
        self.list = list;
        let cause = self.change.cause;
        self.push(StepAction::SetRulePriorities { port, priorities }, cause);
    }
}
