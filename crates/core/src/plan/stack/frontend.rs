//! The Network Load Balancer in front of a stack's Application Load Balancer.
//!
//! It is planned as a stack of its own, with listeners that forward to target groups of the type `alb`. AWS takes one target in
//! such a group, and only an active load balancer that has the listener; so another target needs another target group, to which
//! the listener changes when the target is registered. A group is deleted when no listener names it any more.
//!
//! Its listeners depend on what AWS has of the Application Load Balancer, never on steps of the same plan. What goes from the front
//! goes before what is behind it, and what comes, comes after it: the failure of the front holds up nothing behind it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{Part, planned};
use crate::model::DELETION_PROTECTION;
use crate::model::{
    Action, Attributes, Cause, Frontend, FrontendListener, Listener, ListenerProtocol, LoadBalancer,
    LoadBalancerTarget, ObservedFrontend, ObservedLoadBalancer, ObservedStack, ObservedTargetGroup, Stack, TagKeys,
    TargetGroupArn, TargetGroupName, TargetGroupReference, Value, WeightedTargetGroup,
};
use crate::plan::{
    action::StepAction,
    step::{AttributesOf, Plan, Planned, Reads, Step, TaggedResource, Wait},
    tags,
};

/// The part of a plan that is about the front.
#[derive(Debug, Default)]
pub(super) struct FrontendPlan {
    /// The steps before those of the stack: deletions.
    before: Vec<Step>,
    /// The steps after those of the stack.
    after: Vec<Step>,
    waits: BTreeSet<Wait>,
}

impl FrontendPlan {
    /// Returns the state as the steps of the stack find it: without the targets that are taken out before.
    pub(super) fn found_behind<'o>(&self, observed: &'o ObservedStack) -> Cow<'o, ObservedStack> {
        let out = self.before.iter().filter_map(|step| match &step.action {
            StepAction::DeregisterLoadBalancer { arn, .. } => Some(arn),
            _ => None,
        });
        let out: BTreeSet<&TargetGroupArn> = out.collect();
        if out.is_empty() {
            return Cow::Borrowed(observed);
        }
        let mut observed = observed.clone();
        observed.frontend.targets.retain(|arn, _| !out.contains(arn));
        Cow::Owned(observed)
    }

    /// Adds the steps of the front to those of the stack.
    pub(super) fn around(self, plan: &mut Plan) {
        let Self { mut before, mut after, waits } = self;
        before.iter_mut().chain(&mut after).for_each(|step| step.in_front = true);
        before.append(&mut plan.steps);
        before.extend(after);
        plan.steps = before;
        plan.waits.extend(waits);
    }
}

/// Returns true if the front has to go before anything else of the stack does.
pub(super) fn goes_first(stack: &Stack, observed: &ObservedStack) -> bool {
    stack.load_balancer.is_none() && stack.frozen.is_empty() && !observed.frontend.is_empty()
}

/// Returns the ports of the load balancer that nobody asks for any more and that the front still leads to: AWS does not delete the
/// listener of a target.
pub(super) fn led_to(stack: &Stack, observed: &ObservedStack) -> BTreeSet<u16> {
    let current = stack.load_balancer.as_ref().and_then(|wanted| observed.current(wanted));
    let targets = observed.frontend.targets.values().flatten();
    let its = targets.filter(|target| current.is_some_and(|current| current.arn == target.load_balancer));
    its.map(|target| target.port).filter(|port| !stack.listeners.contains_key(port)).collect()
}

/// Returns the part of the plan that is about the front, or the reads that it needs first.
pub(super) fn of(stack: &Stack, observed: &ObservedStack) -> Result<FrontendPlan, Box<Reads>> {
    let found = &observed.frontend;
    let unread = found.target_groups.iter().map(|group| &group.arn).filter(|arn| !found.targets.contains_key(*arn));
    let targets: BTreeSet<TargetGroupArn> = unread.cloned().collect();
    if !targets.is_empty() {
        return Err(Box::new(Reads { targets, ..Reads::default() }));
    }
    match &stack.frontend {
        Some(wanted) => Search::new(stack, observed, wanted).plan(),
        // It may be a frozen member's.
        None if !stack.frozen.is_empty() => Ok(FrontendPlan::default()),
        None => Ok(removed(stack, found)),
    }
}

/// Returns the deletion of the front: the load balancers, and when they are gone, the target groups.
fn removed(stack: &Stack, found: &ObservedFrontend) -> FrontendPlan {
    let mut plan = FrontendPlan::default();
    let cause = match &stack.load_balancer {
        Some(behind) => Cause { field: "metadata.annotations".to_owned(), ..behind.cause.clone() },
        None => Cause { object: stack.id.object(), generation: 0, field: "metadata.deletionTimestamp".to_owned() },
    };
    let mut step = |action| plan.before.push(Step::new(action, cause.clone()));
    for balancer in &found.load_balancers {
        let (arn, name) = (balancer.arn.clone(), balancer.name.clone());
        if balancer.is_protected() {
            if !stack.unprotect_frontend {
                plan.waits.insert(Wait::ProtectedInFront(arn));
                continue;
            }
            step(StepAction::ModifyAttributes {
                of: AttributesOf::LoadBalancer(Some(arn.clone())),
                name: format!("load balancer {name}"),
                attributes: Attributes::from([(DELETION_PROTECTION.to_owned(), "false".to_owned())]),
            });
        }
        step(StepAction::DeleteLoadBalancer { arn, name });
    }
    if found.load_balancers.is_empty() {
        for group in &found.target_groups {
            plan.before.extend(deletion(found, group, &cause));
        }
    }
    plan
}

/// Returns the steps that take the target out of a target group and delete it.
fn deletion(found: &ObservedFrontend, group: &ObservedTargetGroup, cause: &Cause) -> Vec<Step> {
    let (arn, name) = (group.arn.clone(), group.name.clone());
    let deregister = found.targets.get(&arn).into_iter().flatten().map(|target| StepAction::DeregisterLoadBalancer {
        arn: arn.clone(),
        name: name.clone(),
        target: target.clone(),
    });
    let delete = StepAction::DeleteTargetGroup { arn: arn.clone(), name: name.clone() };
    let steps = deregister.chain([delete]).map(|action| Step::new(action, cause.clone()));
    steps.collect()
}

/// Returns the keys of the tags that the controller sets for the front.
pub(in crate::plan) fn add_tag_keys(
    wanted: &Frontend,
    keys: &mut TagKeys,
    own: impl Fn(&crate::model::Tags) -> Vec<String>,
) {
    keys.add(&crate::model::ResourceId::frontend(), own(&wanted.load_balancer.tags));
    for (port, listener) in &wanted.listeners {
        keys.add(&crate::model::ResourceId::frontend_listener(*port), own(&listener.tags));
        keys.add(&listener.target_group.resource, own(&listener.target_group.tags));
    }
}

struct Search<'a> {
    stack: &'a Stack,
    observed: &'a ObservedStack,
    found: &'a ObservedFrontend,
    wanted: &'a Frontend,
    /// The Application Load Balancer to lead to; `None` where AWS has none yet.
    behind: Option<&'a ObservedLoadBalancer>,
    /// The existing load balancer that is or becomes the wanted one.
    current: Option<&'a ObservedLoadBalancer>,
    plan: FrontendPlan,
}

impl<'a> Search<'a> {
    fn new(stack: &'a Stack, observed: &'a ObservedStack, wanted: &'a Frontend) -> Self {
        let found = &observed.frontend;
        let current = found.load_balancers.iter().find(|existing| wanted.load_balancer.can_be(existing));
        let behind = behind(stack, observed);
        Self { stack, observed, found, wanted, behind, current, plan: FrontendPlan::default() }
    }

    fn plan(mut self) -> Result<FrontendPlan, Box<Reads>> {
        let replaces = self.found.load_balancers.len() > 1;
        let serves = |balancer: &ObservedLoadBalancer| balancer.is_active();
        let is_unsure =
            self.behind.is_some_and(|behind| !serves(behind)) || replaces && !self.current.is_some_and(serves);
        if is_unsure && !self.observed.states_are_read {
            return Err(Box::new(Reads { states: true, ..Reads::default() }));
        }
        let unread = self.found.load_balancers.iter().filter(|balancer| balancer.listeners.is_none());
        let listeners_of: Vec<_> = unread.map(|balancer| balancer.arn.clone()).collect();
        if !listeners_of.is_empty() {
            return Err(Box::new(Reads { listeners_of, ..Reads::default() }));
        }
        let mut matched = BTreeSet::new();
        let mut listeners = BTreeMap::new();
        for (port, wanted) in &self.wanted.listeners {
            if let Some(action) = self.target_group(*port, wanted, &mut matched) {
                listeners.insert(*port, listener(*port, wanted, action));
            }
        }
        self.surplus(&matched);
        let mut own = match self.load_balancer(listeners) {
            Planned::Ready(plan) => plan,
            Planned::Need(reads) => return Err(Box::new(reads)),
        };
        let (going, coming): (Vec<Step>, Vec<Step>) =
            std::mem::take(&mut own.steps).into_iter().partition(|step| step.action.is_destructive());
        // What serves may be a frozen member's. A target group that no listener names serves nobody, and has a name that another
        // one may need.
        if self.stack.frozen.is_empty() {
            self.plan.before.extend(going);
        }
        self.plan.after.extend(coming);
        self.plan.waits.append(&mut own.waits);
        Ok(self.plan)
    }

    fn push(&mut self, action: StepAction, cause: &Cause) {
        self.plan.after.push(Step::new(action, cause.clone()));
    }

    /// Returns the existing target group that becomes the one of a listener: one with the target, if possible one that the load
    /// balancer names, or one without any. A group that a replaced load balancer names is not, since it serves one load balancer.
    fn existing(
        &self,
        wanted: &FrontendListener,
        target: Option<&LoadBalancerTarget>,
    ) -> Option<&'a ObservedTargetGroup> {
        let replaced = self.found.load_balancers.iter().filter(|other| !self.wanted.load_balancer.can_be(other));
        let taken: BTreeSet<&TargetGroupArn> = replaced.flat_map(ObservedLoadBalancer::target_groups).collect();
        let has = |group: &&ObservedTargetGroup, count: usize| {
            let targets = self.found.targets.get(&group.arn);
            targets.is_some_and(|targets| targets.len() == count && targets.iter().all(|other| Some(other) == target))
        };
        let fits = |group: &&ObservedTargetGroup| {
            group.resource().as_ref() == Some(&wanted.target_group.resource)
                && group.target_type == "alb"
                && group.protocol == "TCP"
                && !taken.contains(&group.arn)
        };
        let named: BTreeSet<&TargetGroupArn> =
            self.current.into_iter().flat_map(ObservedLoadBalancer::target_groups).collect();
        let mut fitting: Vec<&ObservedTargetGroup> = self.found.target_groups.iter().filter(fits).collect();
        fitting.sort_by_key(|group| !named.contains(&group.arn));
        let with = |count| fitting.iter().copied().find(|group| has(group, count));
        with(1).or_else(|| with(0))
    }

    /// Plans the target group of a listener. Returns the action of the listener; `None` while it cannot have any.
    fn target_group(
        &mut self,
        port: u16,
        wanted: &FrontendListener,
        matched: &mut BTreeSet<&'a TargetGroupArn>,
    ) -> Option<Action<TargetGroupReference>> {
        let target = self
            .behind
            .map(|behind| LoadBalancerTarget { load_balancer: behind.arn.clone(), port: wanted.target_port });
        let Some(existing) = self.existing(wanted, target.as_ref()) else {
            self.create(wanted);
            return self.present_action(port);
        };
        matched.insert(&existing.arn);
        self.tags(wanted, existing);
        if existing.health_check.as_ref() != Some(&wanted.target_group.health_check) {
            let modify = StepAction::ModifyTargetGroup {
                arn: existing.arn.clone(),
                resource: wanted.target_group.resource.clone(),
                health_check: wanted.target_group.health_check.clone(),
            };
            self.push(modify, &wanted.cause);
        }
        let Some((behind, target)) = self.behind.zip(target) else { return self.present_action(port) };
        let is_registered = self.found.targets.get(&existing.arn).is_some_and(|targets| targets.contains(&target));
        if !is_registered {
            if !behind.is_active() {
                self.plan.waits.insert(Wait::LoadBalancerActive);
                return self.present_action(port);
            }
            if behind.listener(wanted.target_port).is_none() {
                return self.present_action(port);
            }
            let register =
                StepAction::RegisterLoadBalancer { arn: existing.arn.clone(), name: existing.name.clone(), target };
            self.push(register, &wanted.cause);
        }
        Some(forward(existing.arn.clone()))
    }

    /// Plans the creation of a target group, unless two that are to go have its names.
    fn create(&mut self, wanted: &FrontendListener) {
        let is_free = |name: &&Value<TargetGroupName>| {
            let taken = |name: &TargetGroupName| self.found.target_groups.iter().any(|o| o.name == name.as_str());
            !name.known().is_some_and(taken)
        };
        let group = &wanted.target_group;
        let Some(name) = [&group.name, &group.second_name].into_iter().find(is_free) else { return };
        let create = StepAction::CreateFrontendTargetGroup(Box::new(crate::model::FrontendTargetGroup {
            name: name.clone(),
            ..group.clone()
        }));
        self.push(create, &wanted.cause);
    }

    /// Returns the action that the listener on a port has, to leave it as it is.
    fn present_action(&self, port: u16) -> Option<Action<TargetGroupReference>> {
        let actions = &self.current?.listener(port)?.default_actions;
        actions.iter().find_map(|action| action.target_groups().next()).cloned().map(forward)
    }

    fn tags(&mut self, wanted: &FrontendListener, existing: &ObservedTargetGroup) {
        let (tags, cause) = (&wanted.target_group.tags, &wanted.cause);
        let name = format!("target group {}", existing.name);
        let resource = TaggedResource::Elb(existing.arn.to_string());
        let sources = std::slice::from_ref(&wanted.target_group.resource);
        let missing = tags.iter().filter(|(key, value)| existing.tags.get(*key) != Some(*value));
        let missing: crate::model::Tags = missing.map(|(key, value)| (key.clone(), value.clone())).collect();
        let surplus = tags::surplus(self.stack, self.observed, sources, tags, &existing.tags);
        let fits = tags::have_room(&missing, &existing.tags);
        let add = StepAction::AddTags { resource: resource.clone(), name: name.clone(), tags: missing.clone() };
        let remove = StepAction::RemoveTags { resource, name, keys: surplus.clone() };
        let mut steps: Vec<StepAction> = Vec::new();
        steps.extend((!missing.is_empty()).then_some(add));
        steps.extend((!surplus.is_empty()).then_some(remove));
        if !fits {
            steps.reverse();
        }
        for step in steps {
            self.push(step, cause);
        }
    }

    /// Plans the deletion of the target groups that nothing needs and no listener names any more.
    fn surplus(&mut self, matched: &BTreeSet<&TargetGroupArn>) {
        let named: BTreeSet<&TargetGroupArn> =
            self.found.load_balancers.iter().flat_map(ObservedLoadBalancer::target_groups).collect();
        let cause = &self.wanted.load_balancer.cause;
        let stays = |group: &&ObservedTargetGroup| !matched.contains(&group.arn) && !named.contains(&group.arn);
        for group in self.found.target_groups.iter().filter(stays) {
            self.plan.before.extend(deletion(self.found, group, cause));
        }
    }

    /// Plans the load balancer with its listeners.
    fn load_balancer(&self, listeners: BTreeMap<u16, Listener>) -> Planned {
        let Frontend { load_balancer, second_name, .. } = self.wanted;
        let known = load_balancer.name.known();
        let is_taken = known.is_some_and(|name| self.found.load_balancers.iter().any(|b| b.name == name.as_str()));
        let name = if is_taken { second_name } else { &load_balancer.name };
        let stack = Stack {
            load_balancer: Some(LoadBalancer { name: name.clone(), ..load_balancer.clone() }),
            listeners,
            external_tags: self.stack.external_tags.clone(),
            ..Stack::empty(self.stack.id.clone())
        };
        let observed = ObservedStack {
            load_balancers: self.found.load_balancers.clone(),
            security_groups: self.observed.security_groups.clone(),
            tag_keys: self.observed.tag_keys.clone(),
            expired: self.observed.expired.clone(),
            shown: self.observed.shown.clone(),
            states_are_read: self.observed.states_are_read,
            ..ObservedStack::default()
        };
        planned(Part::Frontend, &stack, &observed)
    }
}

/// Returns the Application Load Balancer to lead to. While one replaces another, clients come to the new one in the same way as
/// by its host name: when that has been published.
fn behind<'a>(stack: &'a Stack, observed: &'a ObservedStack) -> Option<&'a ObservedLoadBalancer> {
    let wanted = stack.load_balancer.as_ref()?;
    let current = observed.current(wanted);
    let led_to = observed.replaced(wanted).find(|old| observed.frontend.leads_to(&old.arn));
    let arrives = !current.is_some_and(ObservedLoadBalancer::is_active) || !observed.arriving.is_empty();
    led_to.filter(|_| arrives).or(current)
}

fn forward(group: TargetGroupArn) -> Action<TargetGroupReference> {
    let group = WeightedTargetGroup { group: TargetGroupReference::Foreign(group), weight: None };
    Action::Forward { target_groups: vec![group], stickiness: None }
}

fn listener(port: u16, wanted: &FrontendListener, default_action: Action<TargetGroupReference>) -> Listener {
    Listener {
        port,
        protocol: ListenerProtocol::Tcp,
        default_action,
        default_authentication: None,
        default_certificate: None,
        certificates: BTreeSet::new(),
        certificates_after_apply: None,
        mutual_authentication: None,
        ssl_policy: None,
        alpn_policy: None,
        attributes: Attributes::new(),
        attribute_causes: BTreeMap::new(),
        rules: Vec::new(),
        shares: BTreeMap::new(),
        tags: wanted.tags.clone(),
        cause: wanted.cause.clone(),
    }
}
