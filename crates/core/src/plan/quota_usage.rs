//! The number of listeners, rules, target groups and certificates that a load balancer has at a point of a plan, where AWS has said that no more fit.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    action::StepAction,
    step::{ListenerReference, Step},
};
use crate::model::{
    Action, KnownLimits, Listener, ObservedLoadBalancer, Rule, RuleArn, TargetGroupArn, TargetGroupReference,
};

/// Returns what a target group of a wanted action is called in AWS; `None` for one that is still to be created.
pub(super) type Resolve<'a> = &'a dyn Fn(&TargetGroupReference) -> Option<TargetGroupArn>;

/// The place in a listener that leads to target groups.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ActionSlot {
    Default,
    Rule(RuleArn),
    /// By its place among the wanted rules.
    Created(usize),
}

/// The usage of a load balancer's quotas at a point of a plan.
#[derive(Clone, Debug, Default)]
pub(super) struct QuotaUsage {
    room: KnownLimits,
    /// By port, what leads where.
    places: BTreeMap<(u16, ActionSlot), Vec<TargetGroupReference>>,
    /// By port.
    certificates: BTreeMap<u16, usize>,
}

impl QuotaUsage {
    pub(super) fn of(room: KnownLimits, balancer: Option<&ObservedLoadBalancer>) -> Self {
        let mut used = Self { room, ..Self::default() };
        let named = |actions: &[Action<TargetGroupArn>]| -> Vec<TargetGroupReference> {
            actions.iter().flat_map(Action::target_groups).cloned().map(TargetGroupReference::Foreign).collect()
        };
        for listener in balancer.into_iter().flat_map(ObservedLoadBalancer::known_listeners) {
            used.places.insert((listener.port, ActionSlot::Default), named(&listener.default_actions));
            for rule in &listener.rules {
                used.places.insert((listener.port, ActionSlot::Rule(rule.arn.clone())), named(&rule.actions));
            }
            used.certificates.insert(listener.port, listener.certificates.len());
        }
        used
    }

    /// Adds one step. `balancer` is the load balancer before the plan.
    pub(super) fn after(&mut self, step: &Step, balancer: Option<&ObservedLoadBalancer>, resolve: Resolve<'_>) {
        let named = |action: &Action<TargetGroupReference>| -> Vec<TargetGroupReference> {
            let known = |group: &TargetGroupReference| {
                resolve(group).map_or_else(|| group.clone(), TargetGroupReference::Foreign)
            };
            action.target_groups().map(known).collect()
        };
        match &step.action {
            StepAction::CreateListener { listener, .. } => {
                self.places.insert((listener.port, ActionSlot::Default), named(&listener.default_action));
            }
            StepAction::ModifyListener { port, change, .. } => {
                if let Some(action) = &change.default_action {
                    self.places.insert((*port, ActionSlot::Default), named(action));
                }
            }
            StepAction::DeleteListener { port, .. } => {
                self.places.retain(|(at, _), _| at != port);
                self.certificates.remove(port);
            }
            StepAction::CreateRule { port, index, rule, .. } => {
                self.places.insert((*port, ActionSlot::Created(*index)), named(&rule.action));
            }
            StepAction::ModifyRule { arn, port, rule, .. } => {
                self.places.insert((*port, ActionSlot::Rule(arn.clone())), named(&rule.action));
            }
            StepAction::DeleteRule { arn, port, .. } => {
                self.places.remove(&(*port, ActionSlot::Rule(arn.clone())));
            }
            StepAction::AddListenerCertificates { listener, certificates } => {
                let port = match listener {
                    ListenerReference::Created(port) => Some(*port),
                    ListenerReference::Existing(arn) => balancer
                        .into_iter()
                        .flat_map(ObservedLoadBalancer::known_listeners)
                        .find(|listener| listener.arn == *arn)
                        .map(|listener| listener.port),
                };
                if let Some(port) = port {
                    *self.certificates.entry(port).or_default() += certificates.len();
                }
            }
            StepAction::RemoveListenerCertificates { port, certificates, .. } => {
                let count = self.certificates.entry(*port).or_default();
                *count = count.saturating_sub(certificates.len());
            }
            _ => {}
        }
    }

    fn rules(&self) -> usize {
        self.places.keys().filter(|(_, place)| *place != ActionSlot::Default).count()
    }

    /// Returns true if one more listener fits.
    pub(super) fn has_room_for_listener(&self) -> bool {
        let count = self.places.keys().filter(|(_, place)| *place == ActionSlot::Default).count();
        self.room.listeners.is_none_or(|most| count < most)
    }

    /// Returns true if what a wanted rule leads to fits when these existing rules of its listener lead nowhere any more.
    pub(super) fn fits_instead(&self, port: u16, of: &[&RuleArn], rule: &Rule, resolve: Resolve<'_>) -> bool {
        let mut without = self.clone();
        without
            .places
            .retain(|(at, place), _| !(*at == port && matches!(place, ActionSlot::Rule(arn) if of.contains(&arn))));
        without.fits_action(&rule.action, resolve)
    }

    /// Returns true if one more rule fits, and what it leads to.
    pub(super) fn fits(&self, rule: &Rule, resolve: Resolve<'_>) -> bool {
        self.room.rules.is_none_or(|most| self.rules() < most) && self.fits_action(&rule.action, resolve)
    }

    fn fits_action(&self, action: &Action<TargetGroupReference>, resolve: Resolve<'_>) -> bool {
        let Some(most) = self.room.target_groups else { return true };
        let mut named: BTreeSet<TargetGroupReference> = self.places.values().flatten().cloned().collect();
        let before = named.len();
        named.extend(action.target_groups().map(|group| match resolve(group) {
            Some(arn) => TargetGroupReference::Foreign(arn),
            None => group.clone(),
        }));
        named.len() == before || named.len() <= most
    }

    /// Returns true if a listener's desired rules all fit next to the existing ones.
    pub(super) fn fits_listener(&self, listener: &Listener, resolve: Resolve<'_>) -> bool {
        let mut with = self.clone();
        with.places.insert((listener.port, ActionSlot::Default), Vec::new());
        listener.rules.iter().enumerate().all(|(index, rule)| {
            let fits = with.fits(rule, resolve);
            let named = rule.action.target_groups().cloned();
            let known = named.map(|group| resolve(&group).map_or(group, TargetGroupReference::Foreign));
            with.places.insert((listener.port, ActionSlot::Created(index)), known.collect());
            fits
        })
    }

    /// Returns how many certificates more fit.
    pub(super) fn certificates_free(&self) -> usize {
        let count: usize = self.certificates.values().sum();
        self.room.certificates.map_or(usize::MAX, |most| most.saturating_sub(count))
    }
}
