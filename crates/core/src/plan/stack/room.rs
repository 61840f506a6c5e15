//! The order of steps when AWS has reported that a quota is reached.

use std::collections::BTreeSet;

use super::Planner;
use crate::model::{
    Action, Cause, KnownLimits, Listener, ObservedListener, ObservedLoadBalancer, TargetGroupReference,
};
use crate::plan::{action::StepAction, order, quota_usage::QuotaUsage, step::Step};

impl<'a> Planner<'a> {
    /// Returns the quota usage of the load balancer after the steps so far; `None` if AWS has reported no quota.
    pub(super) fn used(&self) -> Option<QuotaUsage> {
        if self.observed.room == KnownLimits::default() {
            return None;
        }
        let balancer = self.balancer();
        let mut used = QuotaUsage::of(self.observed.room, balancer);
        self.plan.steps.iter().for_each(|step| used.after(step, balancer, &|group| self.resolve(group)));
        Some(used)
    }

    /// Moves delayed steps to the plan, as far as there is room now.
    pub(super) fn make_what_fits(&mut self) {
        while let Some(next) = self.later.front() {
            let Some(used) = self.used() else { return };
            let fits = match &next.action {
                StepAction::CreateRule { rule, .. } => used.fits(rule, &|group| self.resolve(group)),
                StepAction::AddListenerCertificates { certificates, .. } => {
                    used.certificates_free() >= certificates.len()
                }
                // An unchanged rule keeps serving until everything else is done.
                StepAction::ModifyRule { .. } => false,
                _ => true,
            };
            if !fits {
                return;
            }
            self.plan.steps.extend(self.later.pop_front());
        }
    }

    /// Returns true if nothing keeps the listener on a port.
    pub(super) fn is_unasked(&self, port: u16) -> bool {
        !self.stack.listeners.contains_key(&port)
            && !self.frozen_resources.listener(port)
            && !self.retained_ports.contains(&port)
    }

    /// Returns the listeners that no member requests and that no step deletes yet, each with true if another one redirects
    /// to it. Listeners that no other redirects to come first.
    pub(super) fn listeners_to_delete(&self) -> Vec<(&'a ObservedListener, bool)> {
        let deletes = |port: u16| {
            let is_of = |step: &Step| matches!(step.action, StepAction::DeleteListener { port: of, .. } if of == port);
            self.plan.steps.iter().any(is_of)
        };
        let there: Vec<&ObservedListener> = self
            .balancer()
            .into_iter()
            .flat_map(ObservedLoadBalancer::known_listeners)
            .filter(|listener| !deletes(listener.port))
            .collect();
        let is_unasked = |listener: &&ObservedListener| self.is_unasked(listener.port);
        let is_led_to = |port: u16| there.iter().any(|from| order::redirects_now(from).contains(&port));
        let going = there.iter().copied().filter(is_unasked);
        let mut going: Vec<_> = going.map(|listener| (listener, is_led_to(listener.port))).collect();
        going.sort_by_key(|(_, is_led_to)| *is_led_to);
        going
    }

    pub(super) fn delete_listener(&mut self, existing: &ObservedListener, cause: &Cause) {
        self.push(StepAction::DeleteListener { arn: existing.arn.clone(), port: existing.port }, cause);
        self.make_what_fits();
    }

    /// Returns true if AWS does not allow a wanted listener beside one that is there on another port.
    pub(super) fn is_excluded(&self, wanted: &Listener) -> bool {
        let there = self.balancer().into_iter().flat_map(ObservedLoadBalancer::known_listeners);
        there.into_iter().any(|existing| order::excludes(wanted, existing))
    }

    /// Returns true if that other one is to change, and waits for targets.
    pub(super) fn is_barred(&self, wanted: &Listener) -> bool {
        let there = self.balancer().into_iter().flat_map(ObservedLoadBalancer::known_listeners);
        let waits = |existing: &ObservedListener| {
            self.stack.listeners.get(&existing.port).is_some_and(|wanted| self.awaits_quic(wanted, existing))
        };
        there.into_iter().any(|existing| order::excludes(wanted, existing) && waits(existing))
    }

    /// Returns true if a listener is to become one of QUIC, or to stop to be one, and waits for targets.
    pub(super) fn awaits_quic(&self, wanted: &Listener, existing: &ObservedListener) -> bool {
        self.pending.holds_default(wanted.port) && order::changes_to_or_from_quic(wanted, existing)
    }

    /// Deletes the listeners that no member requests and beside which AWS does not allow a wanted one.
    pub(super) fn make_way(&mut self, wanted: &Listener, cause: &Cause) {
        for (existing, _) in self.listeners_to_delete() {
            if order::excludes(wanted, existing) {
                self.delete_listener(existing, cause);
            }
        }
    }

    /// Deletes a listener to make room, if AWS has reported that no more fit. Returns false if every listener to delete
    /// is one that another redirects to, and `may_be_led_to` is false.
    pub(super) fn make_room_for_listener(&mut self, cause: &Cause, may_be_led_to: bool) -> bool {
        if self.used().is_none_or(|used| used.has_room_for_listener()) {
            return true;
        }
        match self.listeners_to_delete().first() {
            Some((_, true)) if !may_be_led_to => return false,
            Some((existing, _)) => self.delete_listener(existing, cause),
            None => {}
        }
        true
    }

    /// Returns false if all wanted rules forward to more target groups than AWS has reported as the load balancer's
    /// limit.
    pub(super) fn fits_in_the_end(&self) -> bool {
        let Some(most) = self.observed.room.target_groups else { return true };
        let of_listener = |listener: &'a Listener| {
            std::iter::once(&listener.default_action).chain(listener.rules.iter().map(|rule| &rule.action))
        };
        let actions = self.stack.listeners.values().flat_map(of_listener);
        actions.flat_map(Action::target_groups).collect::<BTreeSet<&TargetGroupReference>>().len() <= most
    }
}
