//! Target groups that are to take over requests and are not ready for them.
//!
//! A target group that no rule names has no health checks (ELB v2 API, `TargetHealth`: `unused`, Target.NotInUse), and one
//! whose targets are not healthy answers nothing well. So before a rule of a listener that serves leads to another target
//! group, that group is *parked*: named by a rule at the bottom that no request matches. The rules of the Ingress that leads
//! there, and its default action, stay as they are until the group is ready, as those of a frozen member do; those of others
//! go on. A Network Load Balancer has no rules: there the targets are only awaited to be registered. A listener that becomes one of QUIC,
//! or stops to be one, keeps its protocol with its action until then.
//!
//! A listener that comes to redirect to a new one stays as it is, with all that the group has on it, until the new one has
//! had the time to be on all nodes of the load balancer and its target groups are ready: a client may be sent to any node.
//!
//! A member that another load balancer serves waits for its targets on new listeners too: its name is published after that.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Action, Cause, KnownLimits, Listener, ListenerArn, LoadBalancerKind, ObjectReference, ObservedListener,
    ObservedLoadBalancer, ObservedRule, ObservedStack, ObservedTargetGroup, Opening, ResourceId, Rule, Stack, Tags,
    TargetGroupArn, TargetGroupReference, WeightedTargetGroup,
    parking::{self, PARKED},
};
use crate::plan::{
    action::StepAction,
    order,
    rules::{same_conditions, step},
    step::{ListenerReference, Reads, Step},
};
use crate::route::are_apart;

/// The number of target groups in one forward action (ELB v2 quota).
const MOST_IN_ACTION: usize = 5;
/// Returns the rules of a listener that requests can match.
pub(in crate::plan) fn serving_rules(listener: &ObservedListener) -> Vec<ObservedRule> {
    listener.rules.iter().filter(|rule| !rule.is_parking()).cloned().collect()
}

/// Returns the target groups that get requests by an action.
fn with_weight<G>(action: &Action<G>) -> impl Iterator<Item = &G> {
    let groups = match action {
        Action::Forward { target_groups, .. } => target_groups.as_slice(),
        _ => &[],
    };
    let is_only = groups.len() == 1;
    groups.iter().filter(move |group| is_only || group.weight != Some(0)).map(|group| &group.group)
}

/// A place that leads to a target group which is not in use yet.
struct Candidate<'a> {
    listener: &'a Listener,
    /// `None` is the default action.
    rule: Option<&'a Rule>,
    /// The requester.
    cause: &'a Cause,
    /// The target groups whose requests it takes over.
    replaced: Vec<&'a TargetGroupArn>,
    /// True if it leads there by a redirect to another listener, which names the target group.
    by_redirect: bool,
    /// True if that redirect has waited as long as it may.
    is_overdue: bool,
}

/// A redirect of a listener that serves to another one of the stack, to which it does not redirect until now.
#[derive(Clone, Copy)]
struct NewRedirect<'a> {
    listener: &'a Listener,
    /// `None` is the default action.
    rule: Option<&'a Rule>,
    /// The port of the other listener.
    to: u16,
}

/// The rules, default actions and target groups that wait.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The target groups that something held leads to. Those that are ready wait with the others: what holds them needs all.
    pub(super) groups: BTreeSet<ResourceId>,
    /// The target groups that are led to although their targets are not healthy, since that took too long.
    pub(super) unhealthy: BTreeSet<ResourceId>,
    /// By port, the members whose rules stay as they are.
    held: BTreeMap<u16, BTreeSet<ObjectReference>>,
    /// The ports whose default action stays as it is.
    defaults: BTreeSet<u16>,
    /// The new listeners that others are to redirect to and wait for.
    pub(super) opening: BTreeSet<u16>,
    /// The ports that requests are redirected to by what stays as it is.
    pub(super) led_to: BTreeSet<u16>,
    /// True if members come from another load balancer, and this one does not serve yet.
    pub(super) activation: bool,
    /// The rules that park target groups.
    pub(super) park: Vec<Step>,
}

/// Returns the actions that answer before what a rule is to answer: those of the rule with its conditions, or of all rules
/// that may match its requests and the default action. Without a rule, the default action.
fn answering<'a>(rule: Option<&Rule>, existing: &'a ObservedListener) -> Vec<&'a Action<TargetGroupArn>> {
    let Some(rule) = rule else { return existing.default_actions.iter().collect() };
    let rules = || existing.rules.iter().filter(|rule| !rule.is_parking());
    if let Some(before) = rules().find(|before| same_conditions(rule, before)) {
        return before.actions.iter().collect();
    }
    let meeting = rules().filter(|before| !are_apart(&rule.conditions, &before.conditions));
    meeting.flat_map(|before| &before.actions).chain(&existing.default_actions).collect()
}

struct Search<'a> {
    stack: &'a Stack,
    observed: &'a ObservedStack,
    balancer: &'a ObservedLoadBalancer,
    matched: &'a BTreeMap<ResourceId, &'a ObservedTargetGroup>,
    /// The target groups whose health must be read.
    unknown: BTreeSet<TargetGroupArn>,
}

impl Pending {
    /// Returns what waits for targets; or the reads that decide it.
    pub(super) fn of(
        stack: &Stack,
        observed: &ObservedStack,
        matched: &BTreeMap<ResourceId, &ObservedTargetGroup>,
    ) -> Result<Self, Box<Reads>> {
        let balancer = stack.load_balancer.as_ref().and_then(|wanted| observed.current(wanted));
        let Some(balancer) = balancer else { return Ok(Self::default()) };
        let mut search = Search { stack, observed, balancer, matched, unknown: BTreeSet::new() };
        let candidates = if observed.awaits_health { search.candidates() } else { BTreeMap::new() };
        let opening = search.opening();
        let arrives = !observed.arriving.is_empty();
        if candidates.is_empty() && opening.is_empty() && (!arrives || balancer.is_active()) {
            return Ok(Self::default());
        }
        if !balancer.is_active() {
            // Before it is active, a load balancer answers nobody. The state that is known may be that of its creation.
            let none = Self { activation: arrives, ..Self::default() };
            return if observed.states_are_read {
                Ok(none)
            } else {
                Err(Box::new(Reads { states: true, ..Reads::default() }))
            };
        }
        let pending = search.pending(&candidates, &opening);
        let health = search.unknown;
        if health.is_empty() { Ok(pending) } else { Err(Box::new(Reads { health, ..Reads::default() })) }
    }

    /// Leaves a rule, with all of its member on the port, or a default action (`None`) as it is.
    fn hold(&mut self, port: u16, rule: Option<&Rule>) {
        match rule {
            Some(rule) => drop(self.held.entry(port).or_default().insert(rule.cause.object.clone())),
            None => drop(self.defaults.insert(port)),
        }
    }

    /// Returns true if a rule, or a default action (`None`), stays as it is.
    fn holds(&self, port: u16, rule: Option<&Rule>) -> bool {
        match rule {
            Some(rule) => self.held(port).is_some_and(|held| held.contains(&rule.cause.object)),
            None => self.holds_default(port),
        }
    }

    /// Returns the members whose rules on a port stay as they are.
    pub(super) fn held(&self, port: u16) -> Option<&BTreeSet<ObjectReference>> {
        self.held.get(&port)
    }

    /// Returns the members that wait on any listener.
    pub(super) fn members(&self) -> BTreeSet<ObjectReference> {
        self.held.values().flatten().cloned().collect()
    }

    /// Returns true if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.opening.is_empty()
    }

    /// Returns true if the default action on a port stays as it is.
    pub(super) fn holds_default(&self, port: u16) -> bool {
        self.defaults.contains(&port)
    }
}

impl<'a> Search<'a> {
    fn pending(
        &mut self,
        candidates: &BTreeMap<&'a ResourceId, Vec<Candidate<'a>>>,
        opening: &[NewRedirect<'a>],
    ) -> Pending {
        let mut pending = Pending::default();
        for redirect in opening {
            pending.hold(redirect.listener.port, redirect.rule);
            pending.opening.insert(redirect.to);
        }
        // After AWS has refused more of something, none is parked: what was parked makes room.
        let by_health = self.observed.room == KnownLimits::default();
        let (mut unready, mut overdue) = (Vec::new(), BTreeSet::new());
        for (id, places) in candidates {
            match self.is_ready(id, places, by_health) {
                true => {}
                false if self.observed.health_overdue.contains(id) || places.iter().all(|place| place.is_overdue) => {
                    overdue.insert((*id).clone());
                }
                false => unready.push(*id),
            }
        }
        if by_health && self.balancer.kind == LoadBalancerKind::Application {
            pending.park = self.parking(candidates, &unready);
        }
        for id in unready {
            for place in candidates.get(id).into_iter().flatten().filter(|place| !place.is_overdue) {
                pending.hold(place.listener.port, place.rule);
            }
        }
        self.hold_defaults_of_members(&mut pending);
        let kept = pending.held.keys().chain(&pending.defaults).filter_map(|port| self.balancer.listener(*port));
        pending.led_to = kept.flat_map(order::redirects_now).collect();
        // Their time goes on while what they lead to is not ready.
        let is_held = |redirect: &NewRedirect<'_>| pending.holds(redirect.listener.port, redirect.rule);
        let redirects = self.stack.listeners.values().flat_map(|listener| self.new_redirects(listener));
        let held: Vec<u16> = redirects.filter(is_held).map(|redirect| redirect.to).collect();
        let opened = |port: &u16| self.observed.opened_ports.contains_key(port);
        pending.opening.extend(held.into_iter().filter(opened));
        let is_held = |place: &Candidate<'_>| pending.holds(place.listener.port, place.rule);
        let waiting = candidates.iter().filter(|(_, places)| places.iter().any(is_held));
        pending.groups = waiting.map(|(id, _)| (*id).clone()).collect();
        pending.unhealthy = overdue.into_iter().filter(|id| !pending.groups.contains(id)).collect();
        pending
    }

    /// Holds the default action of a member together with its rules, and the rules with the default action; of a listener
    /// that comes to do nothing but redirect to another, those of all.
    fn hold_defaults_of_members(&self, pending: &mut Pending) {
        for listener in self.stack.listeners.values() {
            let port = listener.port;
            // One member's rule that waits to redirect keeps no other's from changing.
            let only_redirects = listener.rules.is_empty() && !self.new_redirects(listener).is_empty();
            if pending.defaults.contains(&port) && only_redirects {
                pending.held.entry(port).or_default().extend(listener.shares.keys().cloned());
            }
            let owner = self.cause_of_default(listener).object.clone();
            let is_held = pending.held.get(&port).is_some_and(|held| held.contains(&owner));
            if pending.defaults.contains(&port) {
                pending.held.entry(port).or_default().insert(owner);
            } else if is_held {
                pending.defaults.insert(port);
            }
        }
    }

    fn cause_of_default(&self, listener: &'a Listener) -> &'a Cause {
        self.stack.requesters.default_action.get(&listener.port).unwrap_or(&listener.cause)
    }

    fn new_redirects(&self, listener: &'a Listener) -> Vec<NewRedirect<'a>> {
        let Some(existing) = self.balancer.listener(listener.port) else { return Vec::new() };
        let now = order::redirects_now(existing);
        let of_rules = listener.rules.iter().map(|rule| (Some(rule), &rule.action));
        let all = of_rules.chain([(None, &listener.default_action)]);
        let redirects =
            all.filter_map(|(rule, action)| Some(NewRedirect { listener, rule, to: order::redirect(action)? }));
        let is_new = |redirect: &NewRedirect<'_>| {
            redirect.to != listener.port
                && !now.contains(&redirect.to)
                && self.stack.listeners.contains_key(&redirect.to)
        };
        redirects.filter(is_new).collect()
    }

    /// Returns the new redirects to listeners that are not on all nodes of the load balancer for sure. After AWS has refused
    /// more of something, none waits.
    fn opening(&self) -> Vec<NewRedirect<'a>> {
        if !self.observed.awaits_opening || self.observed.room != KnownLimits::default() {
            return Vec::new();
        }
        let waits = |redirect: &NewRedirect<'_>| {
            let Some(existing) = self.balancer.listener(redirect.to) else { return true };
            let is_there = |rule: &Rule| existing.rules.iter().any(|other| same_conditions(rule, other));
            let to = self.stack.listeners.get(&redirect.to);
            let lacks_rules = || to.is_some_and(|to| !to.rules.iter().all(is_there));
            // Of two that come to redirect to each other, neither waits for the rules of the other.
            let redirects = || to.is_some_and(|to| !self.new_redirects(to).is_empty());
            match self.observed.opened_ports.get(&redirect.to) {
                Some(Opening::OnItsWay) => true,
                Some(Opening::Everywhere) | None => lacks_rules() && !redirects(),
                Some(Opening::Overdue) => false,
            }
        };
        self.stack.listeners.values().flat_map(|listener| self.new_redirects(listener)).filter(waits).collect()
    }

    /// Returns the target groups that get requests by the listeners that `of` holds for.
    fn serving(&self, of: impl Fn(&ObservedListener) -> bool) -> BTreeSet<&'a TargetGroupArn> {
        let rules = |listener: &'a ObservedListener| listener.rules.iter().filter(|rule| !rule.is_parking());
        let mut serving = BTreeSet::new();
        for listener in self.balancer.known_listeners().filter(|listener| of(listener)) {
            let actions = rules(listener).flat_map(|rule| &rule.actions).chain(&listener.default_actions);
            serving.extend(actions.flat_map(with_weight));
        }
        serving
    }

    /// Adds the target groups that get requests only by the new redirects of other listeners.
    fn behind_redirects(&self, candidates: &mut BTreeMap<&'a ResourceId, Vec<Candidate<'a>>>) {
        for listener in self.stack.listeners.values() {
            let redirects = self.new_redirects(listener);
            let Some(existing) = self.balancer.listener(listener.port).filter(|_| !redirects.is_empty()) else {
                continue;
            };
            let serving = self.serving(|other| !redirects.iter().any(|redirect| redirect.to == other.port));
            let of_rules = existing.rules.iter().filter(|rule| !rule.is_parking()).flat_map(|rule| &rule.actions);
            let replaced: Vec<_> = of_rules.chain(&existing.default_actions).flat_map(with_weight).collect();
            for redirect in redirects {
                let opening = self.observed.opened_ports.get(&redirect.to);
                // What a listener that has been there for long leads to is not new.
                let is_new = self.balancer.listener(redirect.to).is_none() || opening.is_some();
                let Some(to) = self.stack.listeners.get(&redirect.to).filter(|_| is_new) else { continue };
                let cause = redirect.rule.map_or_else(|| self.cause_of_default(listener), |rule| &rule.cause);
                let actions = to.rules.iter().map(|rule| &rule.action).chain([&to.default_action]);
                for reference in actions.flat_map(with_weight) {
                    let TargetGroupReference::Own(id) = reference else { continue };
                    if !self.matched.get(id).is_some_and(|group| serving.contains(&group.arn)) {
                        candidates.entry(id).or_default().push(Candidate {
                            listener,
                            rule: redirect.rule,
                            cause,
                            replaced: replaced.clone(),
                            by_redirect: true,
                            is_overdue: opening == Some(&Opening::Overdue),
                        });
                    }
                }
            }
        }
    }

    /// Returns the target groups that get no requests yet and shall get some by a listener that serves.
    fn candidates(&self) -> BTreeMap<&'a ResourceId, Vec<Candidate<'a>>> {
        let serving = self.serving(|_| true);
        let mut candidates: BTreeMap<&'a ResourceId, Vec<Candidate<'a>>> = BTreeMap::new();
        for listener in self.stack.listeners.values() {
            // With another protocol, the action may have to change in the same call. To QUIC and back, both wait together.
            let waits = |existing: &&ObservedListener| {
                existing.protocol == Some(listener.protocol) || order::changes_to_or_from_quic(listener, existing)
            };
            let existing = self.balancer.listener(listener.port).filter(waits);
            let of_rules = listener.rules.iter().map(|rule| (Some(rule), &rule.action));
            for (rule, action) in of_rules.chain([(None, &listener.default_action)]) {
                let cause = rule.map_or_else(|| self.cause_of_default(listener), |rule| &rule.cause);
                let arrives = self.observed.arriving.contains(&cause.object);
                if existing.is_none() && !arrives {
                    continue;
                }
                for reference in with_weight(action) {
                    let TargetGroupReference::Own(id) = reference else { continue };
                    if !arrives && self.matched.get(id).is_some_and(|group| serving.contains(&group.arn)) {
                        continue;
                    }
                    let before = existing.map(|existing| answering(rule, existing)).unwrap_or_default();
                    let replaced = before.into_iter().flat_map(with_weight).collect();
                    candidates.entry(id).or_default().push(Candidate {
                        listener,
                        rule,
                        cause,
                        replaced,
                        by_redirect: false,
                        is_overdue: false,
                    });
                }
            }
        }
        self.behind_redirects(&mut candidates);
        candidates
    }

    /// Returns true if a target group can take its requests: its desired targets are registered, and as many of them are
    /// healthy as in the target groups before, or all; if it has none, nothing is healthy before either. What could not be
    /// read proves neither.
    fn is_ready(&mut self, id: &ResourceId, places: &[Candidate<'a>], by_health: bool) -> bool {
        let Some(group) = self.matched.get(id) else { return false };
        let bindings = self.observed.bindings.iter().filter(|b| b.target_group == group.arn && !b.deleting);
        // No check of health tells that targets of a Network Load Balancer are not let in.
        let is_network = self.balancer.kind == LoadBalancerKind::Network;
        let mut bindings = bindings.filter(|binding| !is_network || binding.allows_sources);
        let Some(desired) = bindings.find_map(|binding| binding.registered) else { return false };
        let arrives = |place: &Candidate<'_>| self.observed.arriving.contains(&place.cause.object);
        let arrives = places.iter().any(arrives);
        let is_named = self.balancer.target_groups().any(|named| *named == group.arn);
        // Pods may have no server ids, without which none is a target of QUIC.
        let empties = |place: &Candidate<'_>| {
            let existing = self.balancer.listener(place.listener.port);
            existing.is_some_and(|existing| order::changes_to_or_from_quic(place.listener, existing))
        };
        let empties = desired == 0 && !is_named && places.iter().any(empties);
        if !by_health || is_network && !(arrives && is_named || empties) {
            return true;
        }
        if desired > 0 && !is_named {
            return false;
        }
        let healthy = if desired == 0 { Some(0) } else { self.healthy(&group.arn) };
        let Some(healthy) = healthy else { return false };
        // Pods may come with their Ingress. Where nothing answers before, nothing is lost.
        if desired > 0 && (healthy == 0 || healthy >= desired) {
            return healthy >= desired;
        }
        // Who arrives from a load balancer of the stack had another target group there.
        let groups = self.observed.target_groups.iter().filter(|_| arrives);
        let former = groups.filter(|other| other.arn != group.arn && other.resource().as_ref() == Some(id));
        let replaced: BTreeSet<&TargetGroupArn> = places
            .iter()
            .flat_map(|place| place.replaced.iter().copied())
            .chain(former.map(|group| &group.arn))
            .collect();
        // All are asked for, so that one pass reads them together.
        let before: Vec<Option<usize>> = replaced.into_iter().map(|arn| self.healthy(arn)).collect();
        before.into_iter().all(|before| before.is_some_and(|before| healthy >= before))
    }

    /// Returns the number of healthy targets, or marks it as unknown; `None` also where it could not be read.
    fn healthy(&mut self, arn: &TargetGroupArn) -> Option<usize> {
        let read = self.observed.healthy.get(arn).copied();
        if read.is_none() {
            self.unknown.insert(arn.clone());
        }
        read.flatten()
    }

    /// Returns the steps that park the target groups which nothing names.
    fn parking(
        &self,
        candidates: &BTreeMap<&'a ResourceId, Vec<Candidate<'a>>>,
        unready: &[&'a ResourceId],
    ) -> Vec<Step> {
        let named: BTreeSet<&TargetGroupArn> = self.balancer.target_groups().collect();
        let is_named = |id: &ResourceId| self.matched.get(id).is_some_and(|group| named.contains(&group.arn));
        // One action leads to target groups of one protocol version and of one object, so that a refusal is that one's.
        let mut together: BTreeMap<_, Vec<(&'a ResourceId, &Candidate<'a>)>> = BTreeMap::new();
        for id in unready.iter().copied().filter(|id| !is_named(id)) {
            let mut places = candidates.get(id).into_iter().flatten();
            let Some(place) = places.find(|place| !place.by_redirect) else { continue };
            let version = self.stack.target_groups.get(id).and_then(|group| group.protocol_version);
            let key = (place.listener.port, &place.cause.object, version.map(|version| version.as_str()));
            together.entry(key).or_default().push((id, place));
        }
        let mut steps: Vec<Step> = Vec::new();
        for ((port, ..), groups) in together {
            let Some(existing) = self.balancer.listener(port) else { continue };
            let mut free = free_priorities(existing, &steps);
            for part in groups.chunks(MOST_IN_ACTION) {
                let (Some((_, place)), Some(priority)) = (part.first(), free.next()) else { continue };
                let rule = parking_rule(part.iter().map(|(id, _)| *id), place);
                steps.push(create(&existing.arn, port, usize::MAX - steps.len(), priority, rule, place.cause));
            }
        }
        steps
    }
}

/// Returns the priorities for parking on a listener that neither a rule nor a step takes, the largest first.
fn free_priorities(listener: &ObservedListener, steps: &[Step]) -> impl Iterator<Item = u32> + use<> {
    let of_steps = steps.iter().filter_map(|step| match &step.action {
        StepAction::CreateRule { port, priority, .. } if *port == listener.port => Some(*priority),
        _ => None,
    });
    let taken: BTreeSet<u32> = listener.rules.iter().map(|rule| rule.priority).chain(of_steps).collect();
    PARKED.rev().filter(move |priority| !taken.contains(priority))
}

fn parking_rule<'a>(ids: impl Iterator<Item = &'a ResourceId>, place: &Candidate<'_>) -> Rule {
    let group = |id: &ResourceId| WeightedTargetGroup { group: TargetGroupReference::Own(id.clone()), weight: Some(1) };
    let tags: &Tags = place.rule.map_or(&place.listener.tags, |rule| &rule.tags);
    Rule {
        conditions: parking::unmet(),
        action: Action::Forward { target_groups: ids.map(group).collect(), stickiness: None },
        transforms: Vec::new(),
        authentication: None,
        tags: tags.clone(),
        cause: place.cause.clone(),
    }
}

fn create(arn: &ListenerArn, port: u16, index: usize, priority: u32, rule: Rule, cause: &Cause) -> Step {
    let listener = ListenerReference::Existing(arn.clone());
    step(StepAction::CreateRule { listener, port, index, priority, rule: Box::new(rule) }, cause.clone())
}

/// Returns the rules of a load balancer that park only target groups which need it no more, each with its port.
pub(super) fn unneeded<'a>(
    balancer: &'a ObservedLoadBalancer,
    pending: &BTreeSet<&TargetGroupArn>,
) -> Vec<(u16, &'a ObservedRule)> {
    let is_needed =
        |rule: &ObservedRule| rule.actions.iter().flat_map(Action::target_groups).any(|arn| pending.contains(arn));
    let of = |listener: &'a ObservedListener| listener.rules.iter().map(|rule| (listener.port, rule));
    balancer.known_listeners().flat_map(of).filter(|(_, rule)| rule.is_parking() && !is_needed(rule)).collect()
}
