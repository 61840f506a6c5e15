//! The plan of one stack.
//!
//! Order: target group, binding, load balancer, new listeners with their rules, the sources of their ports, the security
//! groups in front, then the listeners that change, those that redirect after those that they lead to. Deletion goes the
//! other way round: rule or listener, sources, binding, and once the binding has released its targets, the target group;
//! the security group last.
//!
//! A load balancer that cannot become the desired one is replaced: the desired one is created in addition to it, with
//! target groups of its own, since a group serves one load balancer. The old one is deleted when the new one serves and
//! clients have had time to find it. Both generations carry the same tags, so target groups are distinguished by the load
//! balancer that names them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    access::{Access, AccessSteps},
    attribution, authentication, defaults,
    frozen::FrozenResources,
    order,
    quota_usage::QuotaUsage,
    rules::{RuleChange, same_action, same_conditions},
    step::{
        AttributesOf, ListenerChange, ListenerReference, Plan, Planned, Reads, Step, StepAction, TaggedResource, Wait,
    },
    tags,
};
use crate::model::{
    Action, Attributes, Cause, CertificateArn, DELETION_PROTECTION, KnownLimits, Listener, ListenerProtocol,
    ListenerResources, LoadBalancer, ManagedSecurityGroup, MemberResources, MutualAuthentication, NetworkingPeer,
    ObjectName, ObservedBinding, ObservedListener, ObservedLoadBalancer, ObservedRule, ObservedSecurityGroup,
    ObservedStack, ObservedTargetGroup, ResourceId, Rule, RuleArn, SecurityGroupId, SecurityGroupReference, Stack,
    Tags, TargetGroup, TargetGroupArn, TargetGroupName, TargetGroupReference, TrustStoreArn, Value, tags as known_tags,
};

/// Returns the steps from the observed to the desired state, empty when they agree; or the reads that are needed first.
#[must_use]
pub fn plan(stack: &Stack, observed: &ObservedStack) -> Planned {
    let reads = reads(stack, observed);
    if !reads.is_empty() {
        return Planned::Need(reads);
    }
    let generations = Generations::of(stack, observed);
    let matched = stack
        .target_groups
        .iter()
        .filter_map(|(id, wanted)| Some((id.clone(), generations.existing(observed, wanted)?)))
        .collect();
    let mut planner = Planner {
        stack,
        observed,
        matched,
        frozen_resources: FrozenResources::new(&stack.frozen, &observed.member_resources),
        frozen_target_groups: BTreeSet::new(),
        plan: Plan::default(),
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

/// Returns the resources of each member of a group, when no changes are left. For frozen members they are the recorded ones.
#[must_use]
pub fn member_resources(stack: &Stack, observed: &ObservedStack) -> Vec<MemberResources> {
    let frozen = |resources: &&MemberResources| stack.frozen.members.contains(&resources.member);
    let mut member_resources: BTreeMap<ObjectName, MemberResources> = observed
        .member_resources
        .iter()
        .filter(frozen)
        .map(|resources| (resources.member.clone(), resources.clone()))
        .collect();
    let of = |member: &ObjectName| MemberResources {
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
        // A rule that is kept in addition has an owner, or comes after the last desired rule that it equals in number.
        let existing = balancer.and_then(|b| b.listener(listener.port)).into_iter().flat_map(|l| &l.rules);
        let mut free = existing.filter(|rule| !taken.contains(&rule.arn)).collect::<Vec<_>>();
        for rule in &listener.rules {
            let same = |observed: &&ObservedRule| same_conditions(rule, observed);
            let Some(place) = free.iter().position(same) else { continue };
            let member = &rule.cause.object.name;
            let arn = free.remove(place).arn.clone();
            member_resources.entry(member.clone()).or_insert_with(|| of(member)).rules.insert(arn);
        }
    }
    member_resources.into_values().collect()
}

/// Returns true if an attribute has its desired value. AWS shows a switch as `true` or `false`, however it was written.
fn same_value(wanted: &str, known: &str) -> bool {
    let switch = |value: &str| ["true", "false"].iter().any(|switch| value.eq_ignore_ascii_case(switch));
    wanted == known || switch(wanted) && wanted.eq_ignore_ascii_case(known)
}

/// The number of security groups that a load balancer may be in (quota `Security groups per network interface`).
const MAX_SECURITY_GROUPS: usize = 5;

/// Returns true if the treatment of clients' certificates is the desired one.
fn same_mutual(wanted: &MutualAuthentication<Value<TrustStoreArn>>, existing: &ObservedListener) -> bool {
    let wanted = wanted.try_map(|arn| arn.known().cloned().ok_or(())).ok();
    wanted.as_ref() == Some(existing.mutual_authentication.as_ref().unwrap_or(&MutualAuthentication::Off))
}

/// Returns true if an existing target group can become the desired one in place.
fn can_update_in_place(wanted: &TargetGroup, existing: &ObservedTargetGroup) -> bool {
    existing.target_type == wanted.target_type.as_str()
        && existing.protocol == wanted.protocol.as_str()
        && existing.ip_address_type == wanted.ip_address_type
        && wanted.protocol_version.is_none_or(|v| existing.protocol_version.as_deref() == Some(v.as_str()))
}

/// The target groups that load balancers name: the stack's, and those that it replaces.
struct Generations<'a> {
    current: BTreeSet<&'a TargetGroupArn>,
    replaced: BTreeSet<&'a TargetGroupArn>,
}

impl<'a> Generations<'a> {
    fn of(stack: &'a Stack, observed: &'a ObservedStack) -> Self {
        let Some(wanted) = &stack.load_balancer else {
            return Self { current: BTreeSet::new(), replaced: BTreeSet::new() };
        };
        Self {
            current: observed.current(wanted).into_iter().flat_map(ObservedLoadBalancer::target_groups).collect(),
            replaced: observed.replaced(wanted).flat_map(ObservedLoadBalancer::target_groups).collect(),
        }
    }

    /// Returns the target group that becomes the desired one: one that the load balancer names already, before one that none names.
    fn existing(&self, observed: &'a ObservedStack, wanted: &TargetGroup) -> Option<&'a ObservedTargetGroup> {
        let mut fitting = observed.target_groups.iter().filter(|existing| {
            existing.resource().as_ref() == Some(&wanted.resource)
                && can_update_in_place(wanted, existing)
                && !self.replaced.contains(&existing.arn)
        });
        fitting.clone().find(|existing| self.current.contains(&existing.arn)).or_else(|| fitting.next())
    }
}

/// Returns the missing input of the plan: the listeners of the load balancer, unless all of it goes, and attributes that the
/// stack asks for on existing resources.
fn reads(stack: &Stack, observed: &ObservedStack) -> Reads {
    let mut reads = Reads::default();
    if let Some(wanted) = &stack.load_balancer {
        let unread = observed.replaced(wanted).filter(|existing| existing.listeners.is_none());
        reads.listeners_of = unread.map(|existing| existing.arn.clone()).collect();
        let mut going = observed.replaced(wanted).filter(|old| observed.expired.contains(&old.arn));
        reads.load_balancer = going.find(|old| old.attributes.is_none()).map(|old| old.arn.clone());
    }
    let current = stack.load_balancer.as_ref().and_then(|wanted| Some((wanted, observed.current(wanted)?)));
    if let Some((wanted, existing)) = current {
        let unread = !wanted.attributes.is_empty() && existing.attributes.is_none();
        reads.load_balancer = unread.then(|| existing.arn.clone()).or(reads.load_balancer);
        reads.listeners_of.extend(Some(existing.arn.clone()).filter(|_| existing.listeners.is_none()));
        let listeners = stack.listeners.values().filter(|listener| !listener.attributes.is_empty());
        // The attributes of a listener whose protocol is about to change do not matter, and a TLS listener has none to read.
        reads.listeners = listeners
            .filter_map(|listener| existing.listener(listener.port).filter(|l| l.protocol == Some(listener.protocol)))
            .filter(|listener| listener.attributes.is_none())
            .map(|listener| listener.arn.clone())
            .collect();
    }
    let target_groups = stack.target_groups.values().filter(|group| !group.attributes.is_empty());
    reads.target_groups = target_groups
        .filter_map(|wanted| {
            let unread = |o: &&ObservedTargetGroup| o.attributes.is_none() && can_update_in_place(wanted, o);
            observed.target_groups.iter().find(|o| o.resource().as_ref() == Some(&wanted.resource) && unread(o))
        })
        .map(|group| group.arn.clone())
        .collect();
    reads
}

/// The causes of attributes.
#[derive(Clone, Copy)]
struct Causes<'a> {
    of_all: &'a Cause,
    /// The attributes with a cause of their own.
    of_attributes: Option<&'a BTreeMap<String, Cause>>,
}

impl<'a> Causes<'a> {
    fn one(of_all: &'a Cause) -> Self {
        Self { of_all, of_attributes: None }
    }

    fn of(of_all: &'a Cause, of_attributes: &'a BTreeMap<String, Cause>) -> Self {
        Self { of_all, of_attributes: Some(of_attributes) }
    }
}

struct Planner<'a> {
    stack: &'a Stack,
    observed: &'a ObservedStack,
    /// The existing target group of each wanted one.
    matched: BTreeMap<ResourceId, &'a ObservedTargetGroup>,
    frozen_resources: FrozenResources<'a>,
    /// Target groups that what is kept leads to.
    frozen_target_groups: BTreeSet<TargetGroupArn>,
    plan: Plan,
    /// TargetGroupBindings that are going although they are wanted.
    going: BTreeSet<ObjectName>,
    /// TargetGroupBindings whose targets do not yet allow the sources that they must allow.
    closed: BTreeSet<ObjectName>,
    /// Steps that allow traffic on new ports, or on ports that redirects lead to.
    opening: Vec<Step>,
    /// Rules and certificates for which others have to make room, in the order in which they are made.
    later: VecDeque<Step>,
    /// Steps that come after everything that serves is in place.
    last: Vec<Step>,
    /// Tags to remove: they serve no traffic, so they delay nothing.
    untagged: Vec<Step>,
}

impl<'a> Planner<'a> {
    fn run(&mut self) {
        let stack = self.stack;
        let existing_group = self.managed_security_groups().next();
        if let Some(wanted) = &stack.security_group {
            self.security_group(wanted, existing_group);
        }
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
                }
            }
            let existing = |listener: &Listener| balancer.and_then(|b| b.listener(listener.port));
            let (changed, mut new): (Vec<&Listener>, Vec<&Listener>) =
                stack.listeners.values().partition(|listener| existing(listener).is_some());
            // The target of a redirect is created before it.
            let led_to: BTreeSet<u16> = stack.listeners.values().flat_map(order::redirects).collect();
            new.sort_by_key(|listener| (!order::redirects(listener).is_empty(), !led_to.contains(&listener.port)));
            let mut without_room = Vec::new();
            for listener in new {
                match self.make_room_for_listener(&wanted.cause, false) {
                    true => self.new_listener(listener, balancer),
                    false => without_room.push(listener),
                }
            }
            let opening = std::mem::take(&mut self.opening);
            if !self.closed.is_empty() {
                // In other security groups it would not reach its targets, and what follows may need those groups.
                let is_safe = |step: &Step| !matches!(step.action, StepAction::SetSecurityGroups { .. });
                self.plan.steps.extend(opening.into_iter().take_while(is_safe));
                self.plan.wait = Some(Wait::LetIn(std::mem::take(&mut self.closed)));
                let stays: BTreeSet<&TargetGroupArn> = self.matched.values().map(|group| &group.arn).collect();
                let others = self.observed.target_groups.iter().map(|group| &group.arn);
                self.plan.passed_over = others.filter(|arn| !stays.contains(arn)).cloned().collect();
                return;
            }
            self.plan.steps.extend(opening);
            let changed = changed.into_iter().filter_map(|wanted| Some((wanted, existing(wanted)?))).collect();
            for (wanted, existing) in order::of_changes(changed) {
                self.listener(wanted, existing);
            }
            for existing in balancer.iter().flat_map(|b| b.known_listeners()) {
                if !stack.listeners.contains_key(&existing.port) && self.frozen_resources.listener(existing.port) {
                    self.frozen_listener(existing, &wanted.cause);
                }
            }
            for listener in without_room {
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
        let untagged = std::mem::take(&mut self.untagged);
        self.plan.steps.extend(untagged);
    }

    fn push(&mut self, action: StepAction, cause: &Cause) {
        self.plan.steps.push(Step { action, cause: cause.clone() });
    }

    /// Returns what the load balancer has after the steps so far, where AWS has said that not more fits.
    fn used(&self) -> Option<QuotaUsage> {
        if self.observed.room == KnownLimits::default() {
            return None;
        }
        let balancer = self.balancer();
        let mut used = QuotaUsage::of(self.observed.room, balancer);
        self.plan.steps.iter().for_each(|step| used.after(step, balancer, &|group| self.resolve(group)));
        Some(used)
    }

    fn balancer(&self) -> Option<&'a ObservedLoadBalancer> {
        self.stack.load_balancer.as_ref().and_then(|wanted| self.observed.current(wanted))
    }

    /// Continues with steps that had no room, as far as there is room now.
    fn make_what_fits(&mut self) {
        while let Some(next) = self.later.front() {
            let Some(used) = self.used() else { return };
            let fits = match &next.action {
                StepAction::CreateRule { rule, .. } => used.fits(rule, &|group| self.resolve(group)),
                StepAction::AddListenerCertificates { certificates, .. } => {
                    used.certificates_free() >= certificates.len()
                }
                // A rule that stays as it is serves until everything else is done.
                StepAction::ModifyRule { .. } => false,
                _ => true,
            };
            if !fits {
                return;
            }
            self.plan.steps.extend(self.later.pop_front());
        }
    }

    /// Returns the listeners that no member asks for and that are still there, each with whether another one redirected to it
    /// before; those to which none did come first.
    fn listeners_to_delete(&self) -> Vec<(&'a ObservedListener, bool)> {
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
        let is_unasked = |listener: &&ObservedListener| {
            !self.stack.listeners.contains_key(&listener.port) && !self.frozen_resources.listener(listener.port)
        };
        let is_led_to = |port: u16| there.iter().any(|from| order::redirects_now(from).contains(&port));
        let going = there.iter().copied().filter(is_unasked);
        let mut going: Vec<_> = going.map(|listener| (listener, is_led_to(listener.port))).collect();
        going.sort_by_key(|(_, is_led_to)| *is_led_to);
        going
    }

    fn delete_listener(&mut self, existing: &ObservedListener, cause: &Cause) {
        self.push(StepAction::DeleteListener { arn: existing.arn.clone(), port: existing.port }, cause);
        self.make_what_fits();
    }

    /// Deletes a listener where AWS has said that no more fit, if one goes. Returns false where each that goes is one that
    /// another redirects to, and these stay.
    fn make_room_for_listener(&mut self, cause: &Cause, may_be_led_to: bool) -> bool {
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

    fn resolve(&self, reference: &TargetGroupReference) -> Option<TargetGroupArn> {
        match reference {
            TargetGroupReference::Own(id) => self.matched.get(id).map(|group| group.arn.clone()),
            TargetGroupReference::Foreign(arn) => Some(arn.clone()),
            TargetGroupReference::Named(_) => None,
        }
    }

    /// Returns the cause for a field of the stack's members.
    fn cause(&self, field: &str) -> Cause {
        match (&self.stack.load_balancer, &self.stack.id) {
            (Some(balancer), _) => Cause { field: field.to_owned(), ..balancer.cause.clone() },
            (None, id) => Cause { object: id.object(), generation: 0, field: field.to_owned() },
        }
    }

    /// Changes the tags of a resource to the desired ones. `sources` are what the controller may have tagged it for.
    fn tags(
        &mut self,
        resource: TaggedResource,
        name: String,
        sources: &[ResourceId],
        (wanted, existing): (&Tags, &Tags),
        cause: &Cause,
    ) {
        let missing: Tags =
            wanted.iter().filter(|(k, v)| existing.get(*k) != Some(*v)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let keys = tags::surplus(self.stack, self.observed, sources, wanted, existing);
        if !keys.is_empty() {
            let remove = StepAction::RemoveTags { resource: resource.clone(), name: name.clone(), keys };
            let remove = Step { action: remove, cause: cause.clone() };
            // If there is no room for the new ones, the removed ones make it.
            match tags::have_room(&missing, existing) {
                true => self.untagged.push(remove),
                false => self.plan.steps.push(remove),
            }
        }
        if !missing.is_empty() {
            self.push(StepAction::AddTags { resource, name, tags: missing }, cause);
        }
    }

    /// As [`Self::tags`], for resources that all members share: the tags of frozen members stay.
    fn shared_tags(
        &mut self,
        resource: TaggedResource,
        name: String,
        source: ResourceId,
        (wanted, existing): (&Tags, &Tags),
        cause: &Cause,
    ) {
        let mut kept = wanted.clone();
        if !self.frozen_resources.none_frozen() && !wanted.is_empty() {
            for (key, value) in existing {
                kept.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        self.tags(resource, name, &[source], (&kept, existing), cause);
    }

    /// The attributes that differ from what is known. What is not known is not guessed: it is read first.
    fn attributes(
        &mut self,
        of: AttributesOf,
        name: String,
        wanted: &Attributes,
        known: &Attributes,
        causes: Causes<'_>,
    ) {
        // A call for each requester, so that a refusal is reported to the right one; but AWS takes some only together (a log and its
        // bucket): those whose keys differ in their last part alone.
        let mut changes: BTreeMap<&Cause, Attributes> = BTreeMap::new();
        let mut families: BTreeMap<&str, &Cause> = BTreeMap::new();
        let differs = |key: &str, value: &str| known.get(key).is_none_or(|known| !same_value(value, known));
        for (key, value) in wanted.iter().filter(|(key, value)| differs(key, value)) {
            let family = key.rsplit_once('.').map_or(key.as_str(), |(family, _)| family);
            let asks = || causes.of_attributes.and_then(|causes| causes.get(key)).unwrap_or(causes.of_all);
            let cause = *families.entry(family).or_insert_with(asks);
            changes.entry(cause).or_default().insert(key.clone(), value.clone());
        }
        for (cause, attributes) in changes {
            self.push(StepAction::ModifyAttributes { of: of.clone(), name: name.clone(), attributes }, cause);
        }
    }

    fn security_group(&mut self, wanted: &ManagedSecurityGroup, existing: Option<&ObservedSecurityGroup>) {
        match existing {
            None => self.push(StepAction::CreateSecurityGroup(wanted.clone()), &wanted.cause),
            Some(group) => {
                let name = format!("security group {}", group.name);
                let resource = TaggedResource::SecurityGroup(group.id.clone());
                self.shared_tags(resource, name, tags::security_group(), (&wanted.tags, &group.tags), &wanted.cause);
            }
        }
        let access = Access {
            stack: self.stack,
            observed: self.observed,
            frozen_resources: self.frozen_resources,
            wanted,
            existing,
            is_regrouped: self.regrouped().is_some(),
        };
        let AccessSteps { at_once, opening, last } = access.steps();
        let step = |action| Step { action, cause: wanted.cause.clone() };
        self.plan.steps.extend(at_once.into_iter().map(step));
        self.opening.extend(opening.into_iter().map(step));
        self.last.extend(last.into_iter().map(step));
    }

    fn target_group(&mut self, wanted: &TargetGroup) {
        let Some(existing) = self.matched.get(&wanted.resource).copied() else {
            // The name of a group is that of its binding, and another group may have a binding of that name.
            let taken = |name: &TargetGroupName| {
                let groups = &self.observed.target_groups;
                let binds = |binding: &ObservedBinding| {
                    binding.name.name == name.as_str()
                        && binding.name.namespace == wanted.binding.namespace
                        && groups.iter().any(|group| group.arn == binding.target_group)
                };
                groups.iter().any(|o| o.name == name.as_str()) || self.observed.bindings.iter().any(binds)
            };
            let second = TargetGroup { name: wanted.second_name.clone(), ..wanted.clone() };
            let wanted = if wanted.name.known().is_some_and(taken) { &second } else { wanted };
            self.push(StepAction::CreateTargetGroup(Box::new(wanted.clone())), &wanted.cause);
            self.attributes(
                AttributesOf::TargetGroup(TargetGroupReference::Own(wanted.resource.clone())),
                format!("target group {}", wanted.resource),
                &wanted.attributes,
                &defaults::target_group(wanted.protocol),
                Causes::one(&wanted.cause),
            );
            // A binding of that name that leads to another target group, one that was deleted behind our back, has to go
            // first: it is taken away at the end, and its going brings the next plan.
            let name = |binding: &ObservedBinding| {
                binding.name.namespace == wanted.binding.namespace
                    && wanted.name.known().is_some_and(|name| name.as_str() == binding.name.name)
            };
            if !self.observed.bindings.iter().any(name) {
                self.push(StepAction::CreateBinding(Box::new(wanted.clone())), &wanted.cause);
            }
            return;
        };
        let name = format!("target group {}", existing.name);
        let resource = TaggedResource::Elb(existing.arn.to_string());
        let sources = std::slice::from_ref(&wanted.resource);
        self.tags(resource, name, sources, (&wanted.tags, &existing.tags), &wanted.cause);
        if let Some(known) = &existing.attributes {
            let name = format!("target group {}", existing.name);
            let of = AttributesOf::TargetGroup(TargetGroupReference::Foreign(existing.arn.clone()));
            self.attributes(of, name, &wanted.attributes, known, Causes::one(&wanted.cause));
        }
        if existing.health_check.as_ref() != Some(&wanted.health_check) {
            let modify = StepAction::ModifyTargetGroup {
                arn: existing.arn.clone(),
                resource: wanted.resource.clone(),
                health_check: wanted.health_check.clone(),
            };
            self.push(modify, &wanted.cause);
        }
        // Another of its labels may name the group too. One of another name is its own only where none has the group's:
        // aws-load-balancer-controller finds a binding by the ARN, and calls it as the group that it would make.
        let is_its =
            |b: &&ObservedBinding| b.target_group == existing.arn && b.name.namespace == wanted.binding.namespace;
        let bindings = self.observed.bindings.iter().filter(is_its);
        match bindings.min_by_key(|binding| (binding.name.name != existing.name, binding.deleting)) {
            // The new one has the same name, so it can be made only when the old one is gone.
            Some(binding) if binding.deleting => {
                self.going.insert(binding.name.clone());
            }
            None => {
                // A binding has the name that its target group was created with.
                let name = TargetGroupName::new(&existing.name).map_or_else(|_| wanted.name.clone(), Value::Known);
                let named = TargetGroup { name, ..wanted.clone() };
                self.push(StepAction::CreateBinding(Box::new(named)), &wanted.cause);
            }
            Some(binding) => {
                let spec = super::binding::spec(wanted, &existing.arn, &|source| self.security_group_id(source));
                // Targets let the groups before in until the load balancer has left them.
                let keeps_networking = self.regrouped().is_some();
                let spec = match spec {
                    Some(spec) if keeps_networking => Some(super::binding::widened(spec, &binding.spec)),
                    spec => spec,
                };
                // Labels of others (a policy engine's, a team's) are theirs.
                let labelled = wanted.binding.labels.iter().all(|(key, value)| binding.labels.get(key) == Some(value));
                if spec.as_ref() != Some(&binding.spec) || !labelled {
                    let update = StepAction::UpdateBinding {
                        existing: Box::new(binding.clone()),
                        target_group: Box::new(wanted.clone()),
                        keeps_networking,
                    };
                    self.push(update, &wanted.cause);
                }
                let networking = spec.as_ref().map(|spec| &spec.networking);
                let applied = binding.allows_sources && networking == Some(&binding.spec.networking);
                if self.comes_from_elsewhere(wanted) && !applied {
                    self.closed.insert(binding.name.clone());
                }
            }
        }
    }

    /// Returns whether the load balancer is to be put in other security groups, and its requests come to the targets from one that
    /// it is not in yet.
    fn comes_from_elsewhere(&self, wanted: &TargetGroup) -> bool {
        let Some(existing) = self.regrouped() else { return false };
        let peers = wanted.binding.networking.iter().flatten().flat_map(|rule| &rule.from);
        let mut groups = peers.filter_map(|peer| match peer {
            NetworkingPeer::SecurityGroup(group) => Some(group),
            NetworkingPeer::Cidr(_) => None,
        });
        groups.any(|group| self.security_group_id(group).is_none_or(|id| !existing.security_groups.contains(&id)))
    }

    /// Returns the load balancer where it is to be put in other security groups than it is in.
    fn regrouped(&self) -> Option<&'a ObservedLoadBalancer> {
        let wanted = self.stack.load_balancer.as_ref()?;
        let existing = self.observed.current(wanted)?;
        let groups: Option<BTreeSet<SecurityGroupId>> =
            wanted.security_groups.iter().map(|reference| self.security_group_id(reference)).collect();
        (groups.as_ref() != Some(&existing.security_groups)).then_some(existing)
    }

    /// The stack's own security groups in front.
    fn managed_security_groups(&self) -> impl Iterator<Item = &'a ObservedSecurityGroup> + use<'a> {
        let managed = |group: &&ObservedSecurityGroup| {
            known_tags::resource_of(&group.tags).is_some_and(|r| r == known_tags::MANAGED_SECURITY_GROUP)
        };
        self.observed.security_groups.iter().filter(managed)
    }

    fn security_group_id(&self, reference: &SecurityGroupReference) -> Option<SecurityGroupId> {
        match reference {
            SecurityGroupReference::Managed => self.managed_security_groups().next().map(|g| g.id.clone()),
            SecurityGroupReference::SharedBackend(id) | SecurityGroupReference::Given(id) => id.known().cloned(),
        }
    }

    fn load_balancer(&mut self, wanted: &LoadBalancer, existing: &ObservedLoadBalancer) {
        let name = format!("load balancer {}", existing.name);
        let resource = TaggedResource::Elb(existing.arn.to_string());
        self.shared_tags(resource, name, tags::load_balancer(), (&wanted.tags, &existing.tags), &wanted.cause);
        if let Value::Known(subnets) = &wanted.subnets {
            let ids: BTreeSet<_> = subnets.iter().map(|mapping| mapping.subnet.clone()).collect();
            if ids != existing.subnets {
                let set = StepAction::SetSubnets { arn: existing.arn.clone(), subnets: subnets.clone() };
                self.push(set, &wanted.cause);
            }
        }
        if existing.ip_address_type != wanted.ip_address_type {
            let action = StepAction::SetIpAddressType { arn: existing.arn.clone(), kind: wanted.ip_address_type };
            let set = Step { action, cause: wanted.cause.clone() };
            // It has IPv6 addresses before it leads to targets that have them, and after.
            if wanted.ip_address_type.has_ipv6() { self.plan.steps.push(set) } else { self.last.push(set) }
        }
        if let Some(known) = &existing.attributes {
            let name = format!("load balancer {}", existing.name);
            let of = AttributesOf::LoadBalancer(Some(existing.arn.clone()));
            let causes = Causes::of(&wanted.cause, &wanted.attribute_causes);
            self.attributes(of, name, &wanted.attributes, known, causes);
        }
        if self.regrouped().is_some() {
            let set = |groups: Vec<SecurityGroupReference>| Step {
                action: StepAction::SetSecurityGroups { arn: existing.arn.clone(), groups },
                cause: wanted.cause.clone(),
            };
            // Once the stack's own group is open, since a new one allows no traffic, and before a redirect leads to a port that
            // the groups before did not open. What is redirected now may lead to a port that only those opened.
            let redirected = existing.known_listeners().any(order::redirects_elsewhere);
            let before =
                existing.security_groups.iter().map(|id| SecurityGroupReference::Given(Value::Known(id.clone())));
            let known: BTreeSet<SecurityGroupId> =
                wanted.security_groups.iter().filter_map(|reference| self.security_group_id(reference)).collect();
            let both: Vec<_> = wanted
                .security_groups
                .iter()
                .cloned()
                .chain(before.filter(
                    |group| !matches!(group, SecurityGroupReference::Given(Value::Known(id)) if known.contains(id)),
                ))
                .collect();
            if redirected && both.len() <= MAX_SECURITY_GROUPS {
                self.opening.push(set(both));
                self.last.push(set(wanted.security_groups.clone()));
            } else {
                self.opening.push(set(wanted.security_groups.clone()));
            }
        }
    }

    fn new_listener(&mut self, listener: &Listener, balancer: Option<&ObservedLoadBalancer>) {
        let create = StepAction::CreateListener {
            load_balancer: balancer.map(|b| b.arn.clone()),
            listener: Box::new(listener.clone()),
        };
        self.push(create, &listener.cause);
        let reference = ListenerReference::Created(listener.port);
        self.attributes(
            AttributesOf::Listener(reference.clone()),
            format!("listener {}", listener.port),
            &listener.attributes,
            &defaults::listener(listener.protocol),
            Causes::of(&listener.cause, &listener.attribute_causes),
        );
        let used = self.used();
        let free = used.as_ref().map_or(usize::MAX, QuotaUsage::certificates_free);
        self.add_certificates(listener, &reference, listener.certificates.iter().take(free).cloned());
        let fits = used.is_none_or(|used| used.fits_listener(listener, &|group| self.resolve(group)));
        let mut creates: Vec<Step> = Vec::new();
        for (index, rule) in listener.rules.iter().enumerate() {
            let create = StepAction::CreateRule {
                listener: reference.clone(),
                port: listener.port,
                index,
                priority: u32::try_from(index + 1).unwrap_or(u32::MAX),
                rule: Box::new(rule.clone()),
            };
            creates.push(Step { action: create, cause: rule.cause.clone() });
        }
        if fits {
            self.plan.steps.extend(creates);
        } else {
            // From the bottom, as those that another listener releases are deleted.
            self.later.extend(creates.into_iter().rev());
            self.make_what_fits();
        }
        let rest: Vec<CertificateArn> = listener.certificates.iter().skip(free).cloned().collect();
        self.add_certificates_later(listener, &reference, &rest);
    }

    /// Adds certificates one by one, as soon as others have made room.
    fn add_certificates_later(
        &mut self,
        wanted: &Listener,
        reference: &ListenerReference,
        certificates: &[CertificateArn],
    ) {
        for certificate in certificates {
            let certificates = vec![certificate.clone()];
            let action = StepAction::AddListenerCertificates { listener: reference.clone(), certificates };
            self.later.push_back(Step { action, cause: wanted.cause.clone() });
        }
    }

    /// Adds certificates: a step for each member that asks for some, so that a refusal is reported to the right one.
    fn add_certificates(
        &mut self,
        wanted: &Listener,
        reference: &ListenerReference,
        certificates: impl Iterator<Item = CertificateArn>,
    ) {
        let mut adds: Vec<(&Cause, Vec<CertificateArn>)> = Vec::new();
        for certificate in certificates {
            let asks = wanted.shares.values().find(|share| share.certificates.contains(&certificate));
            let other = asks.filter(|share| share.cause.object != wanted.cause.object);
            let cause = other.map_or(&wanted.cause, |share| &share.cause);
            match adds.iter_mut().find(|(known, _)| *known == cause) {
                Some((_, list)) => list.push(certificate),
                None => adds.push((cause, vec![certificate])),
            }
        }
        for (cause, certificates) in adds {
            self.push(StepAction::AddListenerCertificates { listener: reference.clone(), certificates }, cause);
        }
    }

    fn remove_certificates(&mut self, wanted: &Listener, existing: &ObservedListener, certificates: &[CertificateArn]) {
        if !certificates.is_empty() {
            let (arn, certificates) = (existing.arn.clone(), certificates.to_vec());
            let remove = StepAction::RemoveListenerCertificates { arn, port: wanted.port, certificates };
            self.push(remove, &wanted.cause);
            self.make_what_fits();
        }
    }

    /// A listener that only frozen members ask for: rules of those who have left go, and all else stays.
    fn frozen_listener(&mut self, existing: &ObservedListener, cause: &Cause) {
        let in_use = BTreeSet::new();
        let change = RuleChange {
            listener: ListenerReference::Existing(existing.arn.clone()),
            port: existing.port,
            wanted: &[],
            existing: &existing.rules,
            resolve: &|r| self.resolve(r),
            in_use: &in_use,
            default_stays: true,
            cause,
            frozen_resources: self.frozen_resources,
            used: None,
            fits_in_the_end: true,
        };
        let steps = change.steps();
        let kept = change.frozen_rules().into_iter().flat_map(|rule| &rule.actions).chain(&existing.default_actions);
        let groups: Vec<TargetGroupArn> = kept.flat_map(|action| action.target_groups().cloned()).collect();
        self.plan.steps.extend(steps.before_default.into_iter().chain(steps.after_default));
        self.frozen_target_groups.extend(groups);
    }

    fn listener(&mut self, wanted: &Listener, existing: &ObservedListener) {
        let reference = ListenerReference::Existing(existing.arn.clone());
        let name = format!("listener {}", wanted.port);
        let resource = TaggedResource::Elb(existing.arn.to_string());
        self.shared_tags(resource, name, tags::listener(wanted.port), (&wanted.tags, &existing.tags), &wanted.cause);

        // Certificates: add, change over, remove.
        let present =
            |c: &CertificateArn| existing.certificates.contains(c) || existing.default_certificate.as_ref() == Some(c);
        let mut missing: Vec<_> = wanted.certificates.iter().filter(|c| !present(c)).cloned().collect();
        // The current default certificate that becomes one of the others has to be among them first.
        missing.extend(
            existing
                .default_certificate
                .iter()
                .filter(|c| wanted.certificates.contains(*c) && !existing.certificates.contains(*c))
                .cloned(),
        );
        let mut surplus: Vec<_> = existing
            .certificates
            .iter()
            .filter(|c| !wanted.certificates.contains(*c) && wanted.default_certificate.as_ref() != Some(*c))
            .filter(|c| !self.frozen_resources.certificate(wanted.port, c))
            .filter(|_| wanted.default_certificate.is_some())
            .cloned()
            .collect();
        // The one that is the default can go when another is.
        surplus.sort_by_key(|c| existing.default_certificate.as_ref() == Some(c));
        let free_to_go = surplus.iter().filter(|c| existing.default_certificate.as_ref() != Some(*c)).count();
        let mut surplus = surplus.as_slice();
        if !missing.is_empty() && existing.protocol == Some(wanted.protocol) {
            let free = self.used().map_or(usize::MAX, |used| used.certificates_free()).min(missing.len());
            let (at_once, then) = missing.split_at(free);
            self.add_certificates(wanted, &reference, at_once.iter().cloned());
            // As many as are lacking make room.
            let lacking = then.len().min(free_to_go);
            let (first, others) = surplus.split_at(lacking);
            self.remove_certificates(wanted, existing, first);
            let (now, later) = then.split_at(lacking);
            self.add_certificates(wanted, &reference, now.iter().cloned());
            // Other listeners have to make room for the rest.
            self.add_certificates_later(wanted, &reference, later);
            surplus = others;
        }

        let unasked = !wanted.shares.values().any(|share| share.default_action) && wanted.default_action.is_not_found();
        let default_kept = unasked && !wanted.shares.is_empty() && self.frozen_resources.default_action(wanted.port);
        let before = wanted.default_authentication.as_ref();
        let default_stays = default_kept
            || same_action(before, &wanted.default_action, &existing.default_actions, &|r| self.resolve(r));
        let written = default_stays && !authentication::is_outdated(before, &existing.default_actions);
        let in_use = self.target_groups_in_use();
        let cause = Cause { field: "spec.rules".to_owned(), ..wanted.cause.clone() };
        let (used, balancer) = (self.used(), self.balancer());
        let change = RuleChange {
            listener: reference.clone(),
            port: wanted.port,
            wanted: &wanted.rules,
            existing: &existing.rules,
            resolve: &|r| self.resolve(r),
            in_use: &in_use,
            default_stays,
            cause: &cause,
            frozen_resources: self.frozen_resources,
            used: used.as_ref().map(|used| (used, balancer)),
            fits_in_the_end: self.fits_in_the_end(),
        };
        let steps = change.steps();
        let kept_default = existing.default_actions.iter().filter(|_| default_kept);
        let kept = change.frozen_rules().into_iter().flat_map(|rule| &rule.actions).chain(kept_default);
        let frozen_target_groups: Vec<TargetGroupArn> =
            kept.flat_map(|action| action.target_groups().cloned()).collect();
        let staying = change.staying_rules().into_iter().map(|(rule, now)| (rule.clone(), now.clone()));
        let retagged: Vec<(Rule, ObservedRule)> = staying.chain(steps.modified).collect();
        self.later.extend(steps.later);
        self.frozen_target_groups.extend(frozen_target_groups);
        let mut listener_change = ListenerChange {
            protocol: Some(wanted.protocol).filter(|p| existing.protocol != Some(*p)),
            ssl_policy: wanted.ssl_policy.clone().filter(|p| existing.ssl_policy.as_ref() != Some(p)),
            default_certificate: wanted
                .default_certificate
                .clone()
                .filter(|c| existing.default_certificate.as_ref() != Some(c)),
            alpn_policy: wanted.alpn_policy.clone().filter(|p| existing.alpn_policy.as_ref() != Some(p)),
            default_action: Some(wanted.default_action.clone()).filter(|_| !written),
            default_authentication: wanted.default_authentication.clone().filter(|_| !written),
            mutual_authentication: wanted.mutual_authentication.clone().filter(|m| !same_mutual(m, existing)),
        };
        // AWS takes authentication on HTTPS listeners alone.
        let authenticates = match wanted.protocol {
            ListenerProtocol::Https => wanted.rules.iter().any(|rule| rule.authentication.is_some()),
            _ => order::authenticates(existing),
        };
        let protocol = match existing.protocol {
            Some(before) if before != wanted.protocol && authenticates => listener_change.take_protocol(),
            _ => ListenerChange::default(),
        };
        if wanted.protocol == ListenerProtocol::Https {
            self.modify_listener(existing, protocol.clone(), &wanted.cause);
        }
        self.plan.steps.extend(steps.before_default);
        self.modify_listener(existing, listener_change, &wanted.cause);
        if !missing.is_empty() && existing.protocol != Some(wanted.protocol) {
            self.add_certificates(wanted, &reference, missing.into_iter());
        }
        for delete in steps.after_default {
            self.plan.steps.push(delete);
            self.make_what_fits();
        }
        if wanted.protocol != ListenerProtocol::Https {
            self.modify_listener(existing, protocol, &wanted.cause);
        }
        // The attributes of a listener depend on its protocol; the existing ones are not known when that has changed.
        let unknown = Some(Attributes::new()).filter(|_| existing.protocol != Some(wanted.protocol));
        if let Some(known) = unknown.as_ref().or(existing.attributes.as_ref()) {
            let of = AttributesOf::Listener(reference.clone());
            let name = format!("listener {}", wanted.port);
            let causes = Causes::of(&wanted.cause, &wanted.attribute_causes);
            self.attributes(of, name, &wanted.attributes, known, causes);
        }
        self.remove_certificates(wanted, existing, surplus);
        for (rule, existing) in retagged {
            let name = format!("rule {} of listener {}", existing.priority, wanted.port);
            let sources = tags::of_rule(&rule.cause.object.name, self.frozen_resources.holder_of_rule(&existing.arn));
            let resource = TaggedResource::Elb(existing.arn.to_string());
            self.tags(resource, name, &sources, (&rule.tags, &existing.tags), &rule.cause);
        }
    }

    /// Returns false if all wanted rules lead to more target groups than AWS has said that the load balancer may lead to.
    fn fits_in_the_end(&self) -> bool {
        let Some(most) = self.observed.room.target_groups else { return true };
        let of_listener = |listener: &'a Listener| {
            std::iter::once(&listener.default_action).chain(listener.rules.iter().map(|rule| &rule.action))
        };
        let actions = self.stack.listeners.values().flat_map(of_listener);
        actions.flat_map(Action::target_groups).collect::<BTreeSet<&TargetGroupReference>>().len() <= most
    }

    fn modify_listener(&mut self, existing: &ObservedListener, change: ListenerChange, cause: &Cause) {
        if change != ListenerChange::default() {
            let (arn, port) = (existing.arn.clone(), existing.port);
            self.push(StepAction::ModifyListener { arn, port, change: Box::new(change) }, cause);
        }
    }

    fn target_groups_in_use(&self) -> BTreeSet<TargetGroupArn> {
        self.observed.load_balancers.iter().flat_map(ObservedLoadBalancer::target_groups).cloned().collect()
    }

    /// Deletes a load balancer. Its protection is switched off only where an annotation says so; AWS refuses to delete a protected
    /// one.
    fn delete_load_balancer(&mut self, balancer: &ObservedLoadBalancer, unprotect: bool, cause: &Cause) {
        let (arn, name) = (balancer.arn.clone(), balancer.name.clone());
        if unprotect && balancer.is_protected() {
            let off = StepAction::ModifyAttributes {
                of: AttributesOf::LoadBalancer(Some(arn.clone())),
                name: format!("load balancer {name}"),
                attributes: Attributes::from([(DELETION_PROTECTION.to_owned(), "false".to_owned())]),
            };
            self.push(off, cause);
        }
        self.push(StepAction::DeleteLoadBalancer { arn, name }, cause);
    }

    /// Releases the load balancers that the desired one has replaced, those whose time is over. Returns the target groups
    /// of those that stay for now.
    fn replaced(&mut self, wanted: &'a LoadBalancer) -> BTreeSet<&'a TargetGroupArn> {
        let observed = self.observed;
        let serves = observed.current(wanted).is_some_and(ObservedLoadBalancer::is_active);
        // The new one does not have the resources of frozen members.
        let may_go = serves && self.frozen_resources.none_frozen();
        let unprotected = wanted.attributes.get(DELETION_PROTECTION).is_some_and(|value| value == "false");
        let due = |old: &ObservedLoadBalancer| may_go && observed.expired.contains(&old.arn);
        let stays = |old: &ObservedLoadBalancer| old.is_protected() && !unprotected;
        let (gone, kept): (Vec<_>, Vec<_>) = observed.replaced(wanted).partition(|old| due(old) && !stays(old));
        let cause = self.cause("spec");
        for old in gone {
            self.delete_load_balancer(old, unprotected, &cause);
        }
        if !kept.is_empty() {
            let arns = kept.iter().map(|old| old.arn.clone()).collect();
            self.plan.wait = Some(match serves {
                _ if kept.iter().all(|old| due(old)) => Wait::Protected(arns),
                true => Wait::RetainOld(arns),
                false => Wait::LoadBalancerActive,
            });
        }
        kept.into_iter().flat_map(ObservedLoadBalancer::target_groups).collect()
    }

    /// Removes the resources that the stack no longer contains.
    fn removals(&mut self) {
        let gone = self.stack.load_balancer.is_none() && self.frozen_resources.none_frozen();
        let cause = self.cause(if gone { "metadata.deletionTimestamp" } else { "spec" });
        if gone {
            for balancer in &self.observed.load_balancers {
                self.delete_load_balancer(balancer, self.stack.unprotect, &cause);
            }
        }
        let replaced = self.stack.load_balancer.as_ref().map(|wanted| self.replaced(wanted)).unwrap_or_default();
        let kept = self.observed.target_groups.iter().filter(|group| {
            self.frozen_resources.target_group(group.resource().as_ref())
                || self.frozen_target_groups.contains(&group.arn)
        });
        let wanted = self.matched.values().copied().chain(kept).map(|group| &group.arn);
        let wanted: BTreeSet<&TargetGroupArn> = wanted.chain(replaced.iter().copied()).collect();
        let surplus: Vec<&ObservedTargetGroup> =
            self.observed.target_groups.iter().filter(|group| !wanted.contains(&group.arn)).collect();
        let bindings: Vec<_> = self.observed.bindings.iter().filter(|b| !wanted.contains(&b.target_group)).collect();
        for binding in bindings.iter().filter(|binding| !binding.deleting) {
            self.push(StepAction::DeleteBinding(binding.name.clone()), &cause);
        }
        let mut going = std::mem::take(&mut self.going);
        going.extend(bindings.iter().map(|binding| binding.name.clone()));
        if !going.is_empty() && self.plan.wait.is_none() {
            self.plan.wait = Some(Wait::BindingsGone(going));
        }
        let bound: BTreeSet<&TargetGroupArn> = bindings.iter().map(|binding| &binding.target_group).collect();
        let waiting = surplus.iter().map(|group| &group.arn).filter(|arn| bound.contains(arn));
        self.plan.passed_over = replaced.into_iter().chain(waiting).cloned().collect();
        for group in surplus.iter().filter(|group| !bound.contains(&group.arn)) {
            let delete = StepAction::DeleteTargetGroup { arn: group.arn.clone(), name: group.name.clone() };
            self.push(delete, &cause);
        }
        if self.stack.security_group.is_none() && self.plan.wait.is_none() && self.frozen_resources.none_frozen() {
            for group in self.managed_security_groups() {
                self.push(StepAction::DeleteSecurityGroup(group.id.clone()), &cause);
            }
        }
    }
}
