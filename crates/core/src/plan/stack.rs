//! The plan of one stack.
//!
//! Order: security group, requested certificates, target group, binding, load balancer, new listeners with their rules, the sources of their ports, the
//! security groups of the load balancer, then the changed listeners: the targets of redirects before the listeners that
//! redirect to them. Deletion runs in the opposite order: rule or listener, sources, binding, and, once the binding has
//! released its targets, the target group; the security group last.
//!
//! A load balancer that cannot become the desired one is replaced: the desired one is created in addition to it, with
//! separate target groups, since a group serves one load balancer. The old one is deleted when the new one serves and
//! clients have had time to find it. Both generations carry the same tags, so target groups are distinguished by the load
//! balancer that names them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::{attributes::Causes, generations::Generations, pending::Pending, retained::Retained};
use crate::model::{
    Cause, KnownLimits, Listener, ObjectName, ObservedLoadBalancer, ObservedRule, ObservedStack, ObservedTargetGroup,
    ResourceId, Stack, TargetGroupArn, TargetGroupReference,
};
use crate::plan::{
    action::StepAction,
    attribution, defaults,
    frozen::FrozenResources,
    order,
    step::{AttributesOf, Plan, Planned, Step, Wait},
};

mod add_ons;
mod attributes;
mod certificates;
mod frontend;
mod generations;
mod listener;
mod load_balancer;
mod managed_certificates;
mod member_resources;
mod pending;
mod reads;
mod removals;
mod retained;
mod room;
mod target_group;

pub(super) use self::frontend::add_tag_keys;
pub use self::{managed_certificates::certificates_are_unknown, member_resources::member_resources};

/// Returns the steps from the observed to the desired state, none if they agree; or the reads that the plan needs
/// first.
#[must_use]
pub fn plan(stack: &Stack, observed: &ObservedStack) -> Planned {
    let front = match frontend::of(stack, observed) {
        Ok(front) => front,
        Err(reads) => return Planned::Need(*reads),
    };
    let mut plan = Plan::empty();
    if !frontend::goes_first(stack, observed) {
        plan = match planned(Part::LoadBalancer, stack, &front.found_behind(observed)) {
            Planned::Ready(plan) => plan,
            need @ Planned::Need(_) => return need,
        };
    }
    front.around(&mut plan);
    Planned::Ready(plan)
}

/// The part of a stack that is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// All but what stands in front.
    LoadBalancer,
    /// The load balancer in front, with its listeners.
    Frontend,
}

fn planned(part: Part, stack: &Stack, observed: &ObservedStack) -> Planned {
    let reads = reads::reads(stack, observed);
    if !reads.is_empty() {
        return Planned::Need(reads);
    }
    let generations = Generations::of(stack, observed);
    let matched: BTreeMap<ResourceId, &ObservedTargetGroup> = stack
        .target_groups
        .iter()
        .filter_map(|(id, wanted)| Some((id.clone(), generations.existing(observed, wanted)?)))
        .collect();
    let pending = match Pending::of(stack, observed, &matched) {
        Ok(pending) => pending,
        Err(reads) => return Planned::Need(*reads),
    };
    let retained = retained::of(stack, observed);
    let mut retained_ports: BTreeSet<u16> = retained.ports.union(&pending.led_to).copied().collect();
    retained_ports.extend(frontend::led_to(stack, observed));
    let mut planner = Planner {
        part,
        stack,
        observed,
        matched,
        frozen_resources: FrozenResources::new(&stack.frozen, observed),
        frozen_target_groups: BTreeSet::new(),
        pending,
        retained,
        retained_ports,
        plan: Plan::empty(),
        going: BTreeSet::new(),
        closed: BTreeSet::new(),
        opening: Vec::new(),
        later: VecDeque::new(),
        last: Vec::new(),
        untagged: Vec::new(),
    };
    planner.run();
    Planned::Ready(attribution::attributed(stack, observed, planner.plan))
}

struct Planner<'a> {
    part: Part,
    stack: &'a Stack,
    observed: &'a ObservedStack,
    /// The existing target group of each wanted one that has one.
    matched: BTreeMap<ResourceId, &'a ObservedTargetGroup>,
    frozen_resources: FrozenResources<'a>,
    /// The target groups that the kept rules and default actions of frozen members forward to.
    frozen_target_groups: BTreeSet<TargetGroupArn>,
    /// The rules and default actions that wait for targets.
    pending: Pending,
    /// The listeners that nobody asks for any more and that stay until clients use others.
    retained: Retained,
    /// Their ports, and those that something which stays as it is redirects to, or that what is in front leads to.
    retained_ports: BTreeSet<u16>,
    plan: Plan,
    /// The TargetGroupBindings that are being deleted although they are wanted.
    going: BTreeSet<ObjectName>,
    /// The TargetGroupBindings whose targets do not yet allow all sources that they must allow.
    closed: BTreeSet<ObjectName>,
    /// The steps that run after new listeners are created and before existing ones change: the sources of ports, and the
    /// security groups of the load balancer.
    opening: Vec<Step>,
    /// The steps for which others must make room first, such as rules and certificates, in the order in which they run.
    later: VecDeque<Step>,
    /// The steps that run after everything that serves traffic is in place.
    last: Vec<Step>,
    /// The steps that remove tags. They affect no traffic and run last, so that they delay nothing, unless their removal
    /// has to make room for new tags.
    untagged: Vec<Step>,
}

impl<'a> Planner<'a> {
    fn run(&mut self) {
        let stack = self.stack;
        let existing_group = self.managed_security_groups().next();
        if let Some(wanted) = &stack.security_group {
            self.security_group(wanted, existing_group);
        }
        self.request_certificates();
        for target_group in stack.target_groups.values() {
            self.target_group(target_group);
        }
        let balancer = stack.load_balancer.as_ref().and_then(|wanted| self.observed.current(wanted));
        if let Some(wanted) = &stack.load_balancer {
            match balancer {
                Some(existing) => self.load_balancer(wanted, existing),
                None => {
                    self.push(StepAction::CreateLoadBalancer(Box::new(wanted.clone())), &wanted.cause);
                    self.attributes(
                        AttributesOf::LoadBalancer(None),
                        "load balancer".to_owned(),
                        &wanted.attributes,
                        &defaults::load_balancer(wanted.kind),
                        Causes::of(&wanted.cause, &wanted.attribute_causes),
                    );
                    // CreateLoadBalancer does not take it, and AWS's default is on.
                    if wanted.network.private_link_rules == Some(false) {
                        let groups = wanted.security_groups.clone();
                        let private_link_rules = Some(false);
                        let set = StepAction::SetSecurityGroups { load_balancer: None, groups, private_link_rules };
                        self.push(set, &wanted.cause);
                    }
                }
            }
            self.add_ons(wanted, balancer);
            self.capacity(wanted, balancer);
            let existing = |listener: &Listener| balancer.and_then(|b| b.listener(listener.port));
            let (changed, mut new): (Vec<&Listener>, Vec<&Listener>) =
                stack.listeners.values().partition(|listener| existing(listener).is_some());
            // The target of a redirect is created before it.
            let led_to: BTreeSet<u16> = stack.listeners.values().flat_map(order::redirects).collect();
            new.sort_by_key(|listener| (!order::redirects(listener).is_empty(), !led_to.contains(&listener.port)));
            let mut without_room = Vec::new();
            for listener in new {
                match !self.is_excluded(listener) && self.make_room_for_listener(&wanted.cause, false) {
                    true => self.new_listener(listener, balancer),
                    false => without_room.push(listener),
                }
            }
            self.plan.held_members = self.pending.members();
            let uncertified = self.arriving_without_certificate();
            self.plan.held_members.extend(uncertified);
            self.plan.unhealthy = std::mem::take(&mut self.pending.unhealthy);
            self.plan.waits.extend(self.pending.groups.iter().cloned().map(Wait::Ready));
            self.plan.waits.extend(self.pending.activation.then_some(Wait::LoadBalancerActive));
            self.plan.waits.extend(self.pending.opening.iter().copied().map(Wait::Opened));
            let retained = std::mem::take(&mut self.retained);
            self.plan.waits.extend(retained.ports.into_iter().map(Wait::RetainListener));
            self.plan.led_to = retained.led_to;
            let opening = std::mem::take(&mut self.opening);
            if !self.closed.is_empty() {
                // With other security groups, the load balancer would not reach its targets, and the steps after may
                // depend on those groups.
                let is_safe = |step: &Step| !matches!(step.action, StepAction::SetSecurityGroups { .. });
                self.plan.steps.extend(opening.into_iter().take_while(is_safe));
                self.plan.waits.extend(std::mem::take(&mut self.closed).into_iter().map(Wait::LetIn));
                let stays: BTreeSet<&TargetGroupArn> = self.matched.values().map(|group| &group.arn).collect();
                let others = self.observed.target_groups.iter().map(|group| &group.arn);
                self.plan.passed_over = others.filter(|arn| !stays.contains(arn)).cloned().collect();
                // No rule changes yet.
                let unhealthy = std::mem::take(&mut self.plan.unhealthy);
                self.plan.waits.extend(unhealthy.into_iter().map(Wait::Ready));
                return;
            }
            self.plan.steps.extend(opening);
            self.plan.steps.append(&mut self.pending.park);
            let unpark = self.unpark(&wanted.cause);
            // At a quota, what is parked makes room for its rule.
            match self.observed.room == KnownLimits::default() {
                true => self.last.extend(unpark),
                false => self.plan.steps.extend(unpark),
            }
            let changed = changed.into_iter().filter_map(|wanted| Some((wanted, existing(wanted)?))).collect();
            let changes = order::of_changes(changed).into_iter();
            let (allowed, excluded): (Vec<_>, Vec<_>) = changes.partition(|(wanted, _)| !self.is_excluded(wanted));
            for (listener, existing) in allowed {
                self.listener(listener, existing);
            }
            for (listener, existing) in excluded {
                if !self.awaits_quic(listener, existing) {
                    self.make_way(listener, &wanted.cause);
                }
                self.listener(listener, existing);
            }
            for existing in balancer.iter().flat_map(|b| b.known_listeners()) {
                if !stack.listeners.contains_key(&existing.port) && self.frozen_resources.listener(existing.port) {
                    self.frozen_listener(existing, &wanted.cause);
                }
            }
            for listener in without_room {
                if self.is_barred(listener) {
                    continue;
                }
                self.make_way(listener, &wanted.cause);
                self.make_room_for_listener(&wanted.cause, true);
                self.new_listener(listener, balancer);
            }
            for (existing, _) in self.listeners_to_delete() {
                self.delete_listener(existing, &wanted.cause);
            }
        }
        let later = std::mem::take(&mut self.later);
        self.plan.steps.extend(later);
        let last = std::mem::take(&mut self.last);
        self.plan.steps.extend(last);
        self.removals();
        self.end_certificates();
        let untagged = std::mem::take(&mut self.untagged);
        self.plan.steps.extend(untagged);
    }

    /// Returns the id of the load balancer.
    fn load_balancer_id(&self) -> ResourceId {
        match self.part {
            Part::LoadBalancer => ResourceId::load_balancer(),
            Part::Frontend => ResourceId::frontend(),
        }
    }

    /// Returns the id of the listener on a port.
    fn listener_id(&self, port: u16) -> ResourceId {
        match self.part {
            Part::LoadBalancer => ResourceId::listener(port),
            Part::Frontend => ResourceId::frontend_listener(port),
        }
    }

    fn push(&mut self, action: StepAction, cause: &Cause) {
        self.plan.steps.push(Step::new(action, cause.clone()));
    }

    fn balancer(&self) -> Option<&'a ObservedLoadBalancer> {
        self.stack.load_balancer.as_ref().and_then(|wanted| self.observed.current(wanted))
    }

    /// Returns the deletions of the rules that park target groups which are ready or not wanted any more.
    fn unpark(&self, cause: &Cause) -> Vec<Step> {
        let Some(balancer) = self.balancer() else { return Vec::new() };
        let waiting = self.pending.groups.iter().filter_map(|id| self.matched.get(id)).copied();
        // A frozen member's would be parked again as soon as it is mended.
        let frozen = self.observed.target_groups.iter();
        let frozen = frozen.filter(|group| self.frozen_resources.target_group(group.resource().as_ref()));
        let arns = waiting.chain(frozen).map(|group| &group.arn).collect();
        let delete = |(port, rule): (u16, &ObservedRule)| {
            Step::new(StepAction::DeleteRule { arn: rule.arn.clone(), port, priority: rule.priority }, cause.clone())
        };
        // A listener takes its rules with it.
        pending::unneeded(balancer, &arns).into_iter().filter(|(port, _)| !self.is_unasked(*port)).map(delete).collect()
    }

    fn resolve(&self, reference: &TargetGroupReference) -> Option<TargetGroupArn> {
        match reference {
            TargetGroupReference::Own(id) => self.matched.get(id).map(|group| group.arn.clone()),
            TargetGroupReference::Foreign(arn) => Some(arn.clone()),
            TargetGroupReference::Named(_) => None,
        }
    }

    /// Returns a cause with the given field, on the object that causes the load balancer or, without one, on the
    /// stack's owner.
    fn cause(&self, field: &str) -> Cause {
        match (&self.stack.load_balancer, &self.stack.id) {
            (Some(balancer), _) => Cause { field: field.to_owned(), ..balancer.cause.clone() },
            (None, id) => Cause { object: id.object(), generation: 0, field: field.to_owned() },
        }
    }
}
