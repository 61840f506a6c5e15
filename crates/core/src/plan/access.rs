//! The order in which rules of the stack's own security group come and go.
//!
//! A port is opened when its listener has all its rules, and closed when its listener is gone. New sources reach an
//! existing listener only once it is as desired. Rules that a replaced load balancer may need stay until that is gone.
//! These are removed sooner:
//!
//! 1. A source of a port that the stack narrows: no other step has to come first, and a step that AWS refuses restores
//!    access for no removed source.
//! 2. A rule that the stack does not request, before a load balancer is created in the security group, and where a public
//!    load balancer would answer through it.
//!
//! After AWS has refused more rules for the quota, rules are removed in several parts, so that never all sources are
//! missing at once.

use std::collections::{BTreeSet, VecDeque};

use ipnet::IpNet;

use super::{action::StepAction, frozen::FrozenResources, order, step::SecurityGroupTarget};
use crate::model::{
    DELETION_PROTECTION, ManagedSecurityGroup, ObservedLoadBalancer, ObservedSecurityGroup, ObservedStack, Scheme,
    SecurityGroupRule, Source, Stack,
};

/// The number of parts in which rules are exchanged.
const PARTS: usize = 4;

/// The moment at which a rule is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    /// Before all else.
    AtOnce,
    /// After everything that serves is in place.
    Last,
    /// Once a replaced load balancer is gone; sooner only to make room.
    Held,
}

/// The security group as it is and as desired.
pub(super) struct Access<'a> {
    pub(super) stack: &'a Stack,
    pub(super) observed: &'a ObservedStack,
    pub(super) frozen_resources: FrozenResources<'a>,
    pub(super) wanted: &'a ManagedSecurityGroup,
    pub(super) existing: Option<&'a ObservedSecurityGroup>,
    /// True if the load balancer is to be put in other security groups than it is in.
    pub(super) is_regrouped: bool,
    /// The ports whose listeners stay although nobody asks for them any more.
    pub(super) retained_ports: &'a BTreeSet<u16>,
}

/// Steps by the moment at which they are carried out.
#[derive(Debug, Default)]
pub(super) struct AccessSteps {
    /// Before all else.
    pub(super) at_once: Vec<StepAction>,
    /// When new listeners have all their rules, before existing ones change.
    pub(super) opening: Vec<StepAction>,
    /// After everything that serves is in place.
    pub(super) last: Vec<StepAction>,
}

/// Returns true if a rule applies to a port.
fn within(rule: &SecurityGroupRule, port: u16) -> bool {
    let port = i32::from(port);
    rule.from_port.is_none_or(|from| from <= port) && rule.to_port.is_none_or(|to| port <= to)
}

/// Returns true if two rules have ports in common.
fn share_ports(one: &SecurityGroupRule, other: &SecurityGroupRule) -> bool {
    let begins_by = |one: &SecurityGroupRule, other: &SecurityGroupRule| {
        one.from_port.zip(other.to_port).is_none_or(|(from, to)| from <= to)
    };
    begins_by(one, other) && begins_by(other, one)
}

fn block(source: &Source) -> Option<IpNet> {
    match source {
        Source::Ipv4(text) | Source::Ipv6(text) => text.parse().ok(),
        Source::SecurityGroup(_) | Source::PrefixList(_) => None,
    }
}

/// Returns true if a rule allows only clients that another rule allows, on the same ports.
fn is_inside(inner: &SecurityGroupRule, outer: &SecurityGroupRule) -> bool {
    let contains = block(&outer.source).zip(block(&inner.source)).is_some_and(|(outer, inner)| outer.contains(&inner));
    contains && (&inner.protocol, inner.from_port, inner.to_port) == (&outer.protocol, outer.from_port, outer.to_port)
}

impl<'a> Access<'a> {
    /// Returns the steps that bring the rules to the desired ones.
    pub(super) fn steps(&self) -> AccessSteps {
        let none = BTreeSet::new();
        let present = self.existing.map_or(&none, |group| &group.ingress);
        let has = |rule: &SecurityGroupRule| present.iter().any(|p| p.identity() == rule.identity());
        let is_wanted = |rule: &SecurityGroupRule| self.wanted.ingress.iter().any(|w| w.identity() == rule.identity());
        let missing: Vec<SecurityGroupRule> = self.wanted.ingress.iter().filter(|rule| !has(rule)).cloned().collect();
        let mut free = self.observed.room.security_group_rules.map(|most| most.saturating_sub(present.len()));
        let surplus: Vec<&SecurityGroupRule> = present.iter().filter(|rule| !is_wanted(rule)).collect();
        // New clients wait for their listener, and old ones wait for them.
        let new: Vec<&SecurityGroupRule> =
            missing.iter().filter(|rule| !surplus.iter().any(|outer| is_inside(rule, outer))).collect();
        let mut going: Vec<(When, SecurityGroupRule)> =
            surplus.iter().map(|rule| (self.when(rule, &new), (*rule).clone())).collect();
        going.sort_by_key(|(when, rule)| (*when, free.map_or(0, |_| self.need_of(rule))));
        let gone_at_once: Vec<SecurityGroupRule> =
            going.iter().filter(|(when, _)| *when == When::AtOnce).map(|(_, rule)| rule.clone()).collect();
        // Clients of a replaced load balancer that the stack allows by another rule continue.
        let all_at_once = self.current().is_none() && self.is_replacing() && !gone_at_once.is_empty();
        let (at_once, missing): (Vec<_>, Vec<_>) = missing
            .into_iter()
            .partition(|rule| all_at_once || gone_at_once.iter().any(|outer| self.narrows(rule, outer)));
        let (early, late): (Vec<_>, Vec<_>) = missing.into_iter().partition(|rule| self.opens_early(rule));
        let mut going = VecDeque::from(going);
        let mut steps = AccessSteps::default();
        self.exchange(&at_once, &mut going, &mut free, &mut steps.at_once);
        self.revoke(When::AtOnce, &mut going, &mut free, &mut steps.at_once);
        self.exchange(&early, &mut going, &mut free, &mut steps.opening);
        self.exchange(&late, &mut going, &mut free, &mut steps.last);
        self.revoke(When::Last, &mut going, &mut free, &mut steps.last);
        steps
    }

    /// Lets sources in, and where there is no room for them revokes rules that go, in turns.
    fn exchange(
        &self,
        missing: &[SecurityGroupRule],
        going: &mut VecDeque<(When, SecurityGroupRule)>,
        free: &mut Option<usize>,
        to: &mut Vec<StepAction>,
    ) {
        let group = match self.existing {
            Some(group) => SecurityGroupTarget::Existing(group.id.clone()),
            None => SecurityGroupTarget::Created,
        };
        let open = |rules: &[SecurityGroupRule]| {
            let rules = rules.to_vec();
            (!rules.is_empty()).then(|| StepAction::AuthorizeIngress { group: group.clone(), rules })
        };
        let (fitting, others) = missing.split_at(free.map_or(missing.len(), |free| free.min(missing.len())));
        to.extend(open(fitting));
        let (in_turn, beyond) = others.split_at(others.len().min(going.len()));
        for part in in_turn.chunks(in_turn.len().div_ceil(PARTS).max(1)) {
            let rules = going.drain(..part.len()).map(|(_, rule)| rule).collect();
            to.extend(self.existing.map(|group| StepAction::RevokeIngress { group: group.id.clone(), rules }));
            to.extend(open(part));
        }
        // In a separate step: if AWS refuses these, the others are allowed.
        to.extend(open(beyond));
        *free = free.map(|free| free.saturating_sub(fitting.len() + beyond.len()));
    }

    /// Revokes the rules of a moment.
    fn revoke(
        &self,
        when: When,
        going: &mut VecDeque<(When, SecurityGroupRule)>,
        free: &mut Option<usize>,
        to: &mut Vec<StepAction>,
    ) {
        let (now, others): (Vec<_>, Vec<_>) = going.drain(..).partition(|(of, _)| *of == when);
        going.extend(others);
        let rules: Vec<SecurityGroupRule> = now.into_iter().map(|(_, rule)| rule).collect();
        if let Some(group) = self.existing.filter(|_| !rules.is_empty()) {
            *free = free.map(|free| free + rules.len());
            to.push(StepAction::RevokeIngress { group: group.id.clone(), rules });
        }
    }

    fn current(&self) -> Option<&'a ObservedLoadBalancer> {
        self.stack.load_balancer.as_ref().and_then(|wanted| self.observed.current(wanted))
    }

    fn replaced(&self) -> impl Iterator<Item = &'a ObservedLoadBalancer> {
        let (stack, observed) = (self.stack, self.observed);
        stack.load_balancer.iter().flat_map(move |wanted| observed.replaced(wanted))
    }

    /// Returns true if a replaced load balancer still serves and is retained for another reason than its protection from
    /// deletion.
    fn is_replacing(&self) -> bool {
        let Some(wanted) = &self.stack.load_balancer else { return false };
        let unprotected = wanted.attributes.get(DELETION_PROTECTION).is_some_and(|value| value == "false");
        let is_due = |old: &ObservedLoadBalancer| {
            let serves = self.current().is_some_and(ObservedLoadBalancer::is_active);
            serves && self.observed.expired.contains(&old.arn) && self.frozen_resources.none_frozen()
        };
        self.replaced().any(|old| !(is_due(old) && old.is_protected() && !unprotected))
    }

    fn when(&self, rule: &SecurityGroupRule, new: &[&SecurityGroupRule]) -> When {
        let Some(wanted) = &self.stack.load_balancer else { return When::Last };
        let is_public = wanted.scheme == Scheme::InternetFacing;
        let is_exposing = is_public && self.stack.listeners.keys().any(|port| within(rule, *port));
        match self.current() {
            _ if self.is_replacing() && !is_exposing => When::Held,
            None => When::AtOnce,
            Some(current) if self.is_narrowed(rule, current, new) => When::AtOnce,
            Some(_) if self.retained_ports.iter().any(|port| within(rule, *port)) => When::Held,
            Some(_) => When::Last,
        }
    }

    /// Returns true if the stack continues to serve the ports of a removed rule, to some of their present clients and to no
    /// new ones, and no client that the stack allows needs the rule meanwhile, on these ports or where a redirect leads.
    fn is_narrowed(
        &self,
        rule: &SecurityGroupRule,
        current: &ObservedLoadBalancer,
        new: &[&SecurityGroupRule],
    ) -> bool {
        let sources = |port: u16| -> BTreeSet<&Source> {
            self.wanted.ingress.iter().filter(|rule| within(rule, port)).map(|rule| &rule.source).collect()
        };
        let stays = |port: u16| {
            let served = self.stack.listeners.get(&port).zip(current.listener(port));
            let is_same = served.is_some_and(|(wanted, existing)| existing.protocol == Some(wanted.protocol));
            let (of_port, mut leading) = (sources(port), current.known_listeners());
            is_same
                && !of_port.is_empty()
                && leading
                    .all(|from| !order::redirects_now(from).contains(&port) || sources(from.port).is_subset(&of_port))
        };
        let ports: Vec<u16> =
            current.known_listeners().map(|listener| listener.port).filter(|port| within(rule, *port)).collect();
        !ports.is_empty() && ports.into_iter().all(stays) && !new.iter().any(|other| share_ports(other, rule))
    }

    /// Returns true if a rule allows only clients that `outer`, a rule that is removed at once, allows.
    fn narrows(&self, rule: &SecurityGroupRule, outer: &SecurityGroupRule) -> bool {
        self.current().is_some() && is_inside(rule, outer)
    }

    /// Returns how much a removed rule is needed until its removal: least if no listener answers on its ports, most if one
    /// does that must close, since redirects may still lead to it.
    fn need_of(&self, rule: &SecurityGroupRule) -> u8 {
        let serving = self.current().into_iter().chain(self.replaced());
        if !serving.flat_map(ObservedLoadBalancer::known_listeners).any(|listener| within(rule, listener.port)) {
            return 0;
        }
        if self.stack.listeners.keys().any(|port| within(rule, *port)) { 1 } else { 2 }
    }

    /// Returns true if a rule is needed before existing listeners change: it opens the port of a new listener or one that a
    /// redirect leads to, or the group is new in front of the load balancer.
    fn opens_early(&self, rule: &SecurityGroupRule) -> bool {
        if self.stack.load_balancer.is_none() {
            return false;
        }
        let Some(balancer) = self.current() else { return true };
        let listeners = &self.stack.listeners;
        self.is_regrouped
            || listeners.keys().filter(|port| balancer.listener(**port).is_none()).any(|port| within(rule, *port))
            || listeners.values().flat_map(order::redirects).any(|port| within(rule, port))
    }
}
