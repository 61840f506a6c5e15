//! AWS and the API server as far as plans can distinguish them: each step is applied to an [`ObservedStack`], and a step
//! that they would refuse is refused. Values that AWS fills in are filled in, so that plans are compared with real answers.

mod calls;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    limits::{
        Outcome, assigned_prefixes, attribute_fits, fits_addresses, leads_to, leads_to_version, mapped, refuse, speaks,
    },
    plan,
};
use crate::{
    model::{
        managed_certificate::{on_listener, without_wildcard},
        tags, *,
    },
    plan::{
        AttributesOf, ListenerReference, Plan, Planned, Reads, RuleReference, SecurityGroupTarget, StepAction,
        TaggedResource, Wait, binding, defaults, tag_keys,
    },
};

pub(super) const BACKEND_GROUP: &str = "sg-shared";

/// The resources in AWS, and the names of a plan's resources while it runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Aws {
    pub(super) observed: ObservedStack,
    /// The subnets of the load balancer with their addresses, which stay as they were given.
    mappings: BTreeMap<SubnetId, SubnetMapping>,
    made: u32,
    created_groups: BTreeMap<ResourceId, TargetGroupArn>,
    created_listeners: BTreeSet<u16>,
    created_rules: BTreeMap<(u16, usize), RuleArn>,
    created_security_group: Option<SecurityGroupId>,
    created_balancer: bool,
    /// The load balancer of the steps.
    wanted: Option<LoadBalancer>,
    passed_over: BTreeSet<TargetGroupArn>,
    pub(super) most: Most,
}

/// The account's quotas, for one load balancer and one security group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub(super) listeners: usize,
    pub(super) rules: usize,
    pub(super) target_groups: usize,
    pub(super) certificates: usize,
    pub(super) security_group_rules: usize,
}

impl Default for Most {
    /// AWS's defaults.
    fn default() -> Self {
        Self { listeners: 50, rules: 100, target_groups: 100, certificates: 25, security_group_rules: 60 }
    }
}

impl Aws {
    pub(super) fn of(observed: ObservedStack) -> Self {
        // Ensures that no new resource gets the name of an old one.
        Self { observed, made: 1_000, ..Self::default() }
    }

    /// AWS as it is when a stack has been made from nothing.
    pub(super) fn with(stack: &Stack) -> Self {
        let mut aws = Self::default();
        aws.settle(stack, 1);
        aws
    }

    /// Runs a whole plan.
    pub(super) fn run(&mut self, stack: &Stack, plan: &Plan) {
        self.begin_plan(plan);
        for step in &plan.steps {
            self.apply(stack, &step.action).unwrap_or_else(|refused| panic!("{}: {refused}", step.action));
        }
    }

    /// Plans and runs until nothing is left to do, which has to be after so many rounds; bindings go in between.
    pub(super) fn settle(&mut self, stack: &Stack, most_rounds: usize) {
        for _ in 0..most_rounds {
            let planned = self.planned(stack);
            assert_eq!(planned, plan(stack, &self.observed), "what is not read makes no difference");
            let plan = planned;
            self.run(stack, &plan);
            let deleting: BTreeSet<Wait> = self
                .observed
                .bindings
                .iter()
                .filter(|b| b.deleting)
                .map(|b| Wait::BindingGone(b.name.clone()))
                .collect();
            let gone = |wait: &&Wait| matches!(wait, Wait::BindingGone(_));
            assert_eq!(
                plan.waits.iter().filter(gone).cloned().collect::<BTreeSet<_>>(),
                deleting,
                "a plan waits for what goes"
            );
            self.observed.bindings.retain(|binding| !binding.deleting);
            self.observed.bindings.iter_mut().for_each(|binding| binding.allows_sources = true);
        }
        assert_eq!(plan(stack, &self.observed), Plan::empty(), "not settled after {most_rounds} rounds");
        self.observed.tag_keys = Some(tag_keys(stack, &self.observed));
    }

    /// As [`Self::begin`], before the steps of a plan.
    pub(super) fn begin_plan(&mut self, plan: &Plan) {
        self.begin();
        self.passed_over.clone_from(&plan.passed_over);
    }

    /// Ends the names of earlier plans, and allows the sources of bindings at the targets.
    pub(super) fn begin(&mut self) {
        self.observed.bindings.iter_mut().for_each(|binding| binding.allows_sources = true);
        *self = Self {
            observed: std::mem::take(&mut self.observed),
            mappings: std::mem::take(&mut self.mappings),
            made: self.made,
            most: self.most,
            ..Self::default()
        };
    }

    /// Plans as a controller does that has just started: it reads what the plan needs, and nothing twice.
    fn planned(&self, stack: &Stack) -> Plan {
        let mut seen = self.observed.clone();
        seen.frontend.targets.clear();
        for balancer in seen.load_balancers.iter_mut().chain(&mut seen.frontend.load_balancers) {
            balancer.attributes = None;
            balancer.listeners = None;
            balancer.add_ons = ObservedAddOns::default();
        }
        seen.target_groups.iter_mut().for_each(|group| group.attributes = None);
        let mut read = Vec::new();
        loop {
            match crate::plan::plan(stack, &seen) {
                Planned::Ready(plan) => return plan,
                Planned::Need(reads) => {
                    assert!(!read.contains(&reads), "what is read is not read again");
                    self.answer(&reads, &mut seen);
                    read.push(reads);
                }
            }
        }
    }

    fn answer(&self, reads: &Reads, seen: &mut ObservedStack) {
        seen.states_are_read |= reads.states;
        for arn in &reads.targets {
            seen.frontend.targets.insert(arn.clone(), self.observed.frontend.targets[arn].clone());
        }
        let front = seen.frontend.load_balancers.iter_mut().zip(&self.observed.frontend.load_balancers);
        for (balancer, known) in seen.load_balancers.iter_mut().zip(&self.observed.load_balancers).chain(front) {
            if reads.listeners_of.contains(&balancer.arn) {
                balancer.listeners.clone_from(&known.listeners);
                let listeners = balancer.listeners.iter_mut().flat_map(BTreeMap::values_mut);
                listeners.for_each(|listener| listener.attributes = None);
            }
            if reads.load_balancer.as_ref() == Some(&balancer.arn) {
                balancer.attributes.clone_from(&known.attributes);
            }
            for (add_on, _) in reads.add_ons.iter().filter(|(_, arn)| *arn == balancer.arn) {
                let (seen, known) = (&mut balancer.add_ons, &known.add_ons);
                match add_on {
                    AddOn::WebAcl => seen.web_acl.clone_from(&known.web_acl),
                    AddOn::Protection => seen.protection.clone_from(&known.protection),
                    AddOn::Capacity => seen.capacity = known.capacity,
                    AddOn::Certificates => unreachable!("they are read apart from load balancers"),
                }
            }
            let listeners = balancer.listeners.iter_mut().flat_map(BTreeMap::values_mut);
            for listener in listeners.filter(|listener| reads.listeners.contains(&listener.arn)) {
                let known = known.listener(listener.port).expect("it is there");
                assert_ne!(known.protocol, Some(ListenerProtocol::Tls), "a TLS listener has no attributes to read");
                listener.attributes.clone_from(&known.attributes);
            }
        }
        if reads.certificates {
            seen.certificates = Some(self.observed.certificates.clone().unwrap_or_default());
        }
        for (group, known) in seen.target_groups.iter_mut().zip(&self.observed.target_groups) {
            if reads.target_groups.contains(&group.arn) {
                group.attributes.clone_from(&known.attributes);
            }
        }
    }

    fn number(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    fn balancer(&mut self) -> Outcome<&mut ObservedLoadBalancer> {
        let wanted = self.wanted.clone();
        let is_meant =
            |balancer: &&mut ObservedLoadBalancer| wanted.as_ref().is_none_or(|wanted| wanted.can_be(balancer));
        self.observed.load_balancers.iter_mut().find(is_meant).ok_or_else(|| "there is no load balancer".to_owned())
    }

    fn listener(&mut self, reference: &ListenerReference) -> Outcome<&mut ObservedListener> {
        let created = match reference {
            ListenerReference::Created(port) => self.created_listeners.contains(port),
            ListenerReference::Existing(_) => true,
        };
        refuse(!created, || "the plan created no such listener".to_owned())?;
        self.balancer()?
            .listeners
            .get_or_insert_default()
            .values_mut()
            .find(|l| match reference {
                ListenerReference::Created(port) => l.port == *port,
                ListenerReference::Existing(arn) => l.arn == *arn,
            })
            .ok_or_else(|| "ListenerNotFound".to_owned())
    }

    fn rule(&mut self, arn: &RuleArn) -> Outcome<(&mut ObservedListener, usize)> {
        for listener in self.balancer()?.listeners.get_or_insert_default().values_mut() {
            if let Some(index) = listener.rules.iter().position(|rule| rule.arn == *arn) {
                return Ok((listener, index));
            }
        }
        Err("RuleNotFound".to_owned())
    }

    /// Resolves a target group of the stack: the one that this plan created, else the one that fits.
    fn resolve(&self, stack: &Stack, reference: &TargetGroupReference) -> Outcome<TargetGroupArn> {
        match reference {
            TargetGroupReference::Foreign(arn) => Ok(arn.clone()),
            TargetGroupReference::Named(name) => Err(format!("the ARN of {name} is not known")),
            TargetGroupReference::Own(id) => self
                .created_groups
                .get(id)
                .or_else(|| {
                    let wanted = stack.target_groups.get(id)?;
                    let fits = |o: &&ObservedTargetGroup| {
                        o.resource().as_ref() == Some(id)
                            && o.target_type == wanted.target_type.as_str()
                            && o.protocol == wanted.protocol.as_str()
                            && o.ip_address_type == wanted.ip_address_type
                            && !self.passed_over.contains(&o.arn)
                            && o.protocol_version.as_deref() == wanted.protocol_version.map(ProtocolVersion::as_str)
                    };
                    self.observed.target_groups.iter().find(fits).map(|o| &o.arn)
                })
                .cloned()
                .ok_or_else(|| format!("TargetGroupNotFound: {id}")),
        }
    }

    /// An action as AWS gives it back.
    fn action(
        &self,
        stack: &Stack,
        before: Option<&Authentication>,
        action: &Action<TargetGroupReference>,
    ) -> Outcome<Vec<Action<TargetGroupArn>>> {
        let mut action = action.try_map(|reference| self.resolve(stack, reference))?;
        match &mut action {
            Action::Forward { target_groups, stickiness } => {
                for target_group in target_groups {
                    target_group.weight.get_or_insert(1);
                }
                stickiness.get_or_insert(Stickiness { enabled: false, duration_seconds: None });
            }
            Action::Redirect { host, path, port, protocol, query, .. } => {
                for (part, kept) in [
                    (host, "#{host}"),
                    (path, "/#{path}"),
                    (port, "#{port}"),
                    (protocol, "#{protocol}"),
                    (query, "#{query}"),
                ] {
                    part.get_or_insert(kept.to_owned());
                }
            }
            _ => {}
        }
        Ok(before.map(given_back).into_iter().chain([action]).collect())
    }

    /// Refuses target groups that a listener of the protocol cannot lead to.
    fn leading(&self, protocol: Option<ListenerProtocol>, actions: &[Action<TargetGroupArn>]) -> Outcome {
        for arn in actions.iter().flat_map(Action::target_groups) {
            let group = self.observed.target_groups.iter().find(|group| group.arn == *arn);
            let fits = group.zip(protocol).is_none_or(|(group, protocol)| leads_to(protocol, &group.protocol));
            refuse(!fits, || format!("IncompatibleProtocols: {arn} behind {protocol:?}"))?;
            let version = group.and_then(|group| group.protocol_version.as_deref());
            let fits = protocol.is_none_or(|protocol| leads_to_version(protocol, version));
            refuse(!fits, || format!("InvalidLoadBalancerAction: {arn} of {version:?} behind {protocol:?}"))?;
            self.alone(arn)?;
        }
        Ok(())
    }

    /// Refuses a second listener of QUIC, and one beside those of UDP.
    fn beside_others(&mut self, port: u16, protocol: Option<ListenerProtocol>) -> Outcome {
        let Some(protocol) = protocol else { return Ok(()) };
        let others = self.balancer()?.listeners.iter().flatten().filter(|(other, _)| **other != port);
        let mut others = others.filter_map(|(_, listener)| listener.protocol);
        let excluded =
            others.any(|other| other.is_quic() && protocol.has_udp() || other.has_udp() && protocol.is_quic());
        refuse(excluded, || format!("InvalidConfigurationRequest: {protocol:?} beside QUIC or UDP"))
    }

    /// Refuses a target group that serves another load balancer.
    fn alone(&self, arn: &TargetGroupArn) -> Outcome {
        let ours = self.observed.target_groups.iter().any(|group| group.arn == *arn);
        let other =
            |balancer: &&ObservedLoadBalancer| self.wanted.as_ref().is_some_and(|wanted| !wanted.can_be(balancer));
        let taken =
            self.observed.load_balancers.iter().filter(other).any(|b| b.target_groups().any(|group| group == arn));
        refuse(ours && taken, || format!("TargetGroupAssociationLimit: {arn}"))
    }

    fn security_group_id(&self, reference: &SecurityGroupReference) -> Outcome<SecurityGroupId> {
        match reference {
            SecurityGroupReference::Managed => self
                .created_security_group
                .clone()
                .or_else(|| {
                    let managed = |g: &&ObservedSecurityGroup| {
                        tags::resource_of(&g.tags) == Some(ResourceId::managed_security_group())
                    };
                    self.observed.security_groups.iter().find(managed).map(|g| g.id.clone())
                })
                .ok_or_else(|| "InvalidGroup.NotFound".to_owned()),
            SecurityGroupReference::SharedBackend(id) | SecurityGroupReference::Given(id) => {
                id.known().cloned().ok_or_else(|| "InvalidGroup.NotFound".to_owned())
            }
        }
    }

    fn security_group(&mut self, id: &SecurityGroupId) -> Outcome<&mut ObservedSecurityGroup> {
        self.observed.security_groups.iter_mut().find(|g| g.id == *id).ok_or_else(|| "InvalidGroup.NotFound".to_owned())
    }

    fn target_group_in_use(&self, arn: &TargetGroupArn) -> bool {
        self.observed
            .load_balancers
            .iter()
            .flat_map(ObservedLoadBalancer::known_listeners)
            .flat_map(|l| l.default_actions.iter().chain(l.rules.iter().flat_map(|r| &r.actions)))
            .any(|action| action.target_groups().any(|group| group == arn))
    }

    fn binding(&self, stack: &Stack, wanted: &TargetGroup) -> Outcome<ObservedBinding> {
        let arn = self.resolve(stack, &TargetGroupReference::Own(wanted.resource.clone()))?;
        let spec = binding::spec(wanted, &arn, &|source| self.security_group_id(source).ok())
            .ok_or("the spec of the binding is not known")?;
        let name = wanted.name.known().ok_or("the name of the binding is not known")?;
        Ok(ObservedBinding {
            name: ObjectName::new(&wanted.binding.namespace, name.as_str()),
            target_group: arn,
            resource_version: String::new(),
            labels: wanted.binding.labels.clone(),
            spec,
            deleting: false,
            allows_sources: false,
            registered: None,
        })
    }

    /// Runs one step, or says why it is refused. A refused step changes nothing, except through its earlier calls.
    pub(super) fn apply(&mut self, stack: &Stack, action: &StepAction) -> Outcome {
        let before = self.clone();
        let is_of_front = self.is_of_front(stack, action);
        let result = if is_of_front {
            let front = stack.frontend.as_ref().map(|front| front.load_balancer.clone());
            self.swap_front();
            let result = self.call(&Stack { load_balancer: front, ..stack.clone() }, action);
            self.swap_front();
            result
        } else {
            self.call(stack, action)
        };
        let result = result.and_then(|()| {
            let most = self.most.target_groups;
            let too_many =
                self.observed.load_balancers.iter().any(|b| b.target_groups().collect::<BTreeSet<_>>().len() > most);
            refuse(too_many, || "TooManyUniqueTargetGroupsPerLoadBalancer".to_owned())?;
            let mut balancers = self.observed.load_balancers.iter();
            balancers.try_for_each(|balancer| fits_addresses(balancer, &self.observed.target_groups))?;
            let mut listeners = self.observed.load_balancers.iter().flat_map(ObservedLoadBalancer::known_listeners);
            refuse(listeners.any(authenticates_without_tls), || {
                "InvalidLoadBalancerAction: only HTTPS listeners authenticate".to_owned()
            })
        });
        if result.is_err() && !matches!(action, StepAction::AddListenerCertificates { .. }) {
            *self = before;
        }
        result
    }

    /// Returns true if a step is about what stands in front.
    fn is_of_front(&self, stack: &Stack, action: &StepAction) -> bool {
        let front = &self.observed.frontend;
        let is_balancer = |arn: &LoadBalancerArn| front.load_balancers.iter().any(|balancer| balancer.arn == *arn);
        let is_listener = |arn: &ListenerArn| {
            let mut listeners = front.load_balancers.iter().flat_map(ObservedLoadBalancer::known_listeners);
            listeners.any(|listener| listener.arn == *arn)
        };
        let is_group = |arn: &TargetGroupArn| front.target_groups.iter().any(|group| group.arn == *arn);
        match action {
            StepAction::CreateLoadBalancer(balancer) => {
                stack.frontend.is_some() && balancer.kind == LoadBalancerKind::Network
            }
            StepAction::CreateListener { load_balancer, listener } => {
                load_balancer.as_ref().is_some_and(is_balancer)
                    || listener.protocol == ListenerProtocol::Tcp && stack.frontend.is_some()
            }
            StepAction::ModifyListener { arn, .. } | StepAction::DeleteListener { arn, .. } => is_listener(arn),
            StepAction::DeleteLoadBalancer { arn, .. } | StepAction::SetSubnets { arn, .. } => is_balancer(arn),
            StepAction::ModifyTargetGroup { arn, .. } | StepAction::DeleteTargetGroup { arn, .. } => is_group(arn),
            StepAction::SetSecurityGroups { load_balancer, .. } => load_balancer.as_ref().is_some_and(is_balancer),
            StepAction::CreateFrontendTargetGroup(_) => true,
            StepAction::AddTags { resource: TaggedResource::Elb(arn), .. }
            | StepAction::RemoveTags { resource: TaggedResource::Elb(arn), .. } => {
                is_balancer(&LoadBalancerArn::new(arn))
                    || is_listener(&ListenerArn::new(arn))
                    || is_group(&TargetGroupArn::new(arn))
            }
            _ => false,
        }
    }

    fn swap_front(&mut self) {
        let ObservedStack { load_balancers, target_groups, frontend, .. } = &mut self.observed;
        std::mem::swap(load_balancers, &mut frontend.load_balancers);
        std::mem::swap(target_groups, &mut frontend.target_groups);
    }
}

fn authenticates_without_tls(listener: &ObservedListener) -> bool {
    let of_rules = listener.rules.iter().flat_map(|rule| &rule.actions);
    let authenticates = |action: &Action<TargetGroupArn>| {
        matches!(action, Action::AuthenticateCognito(_) | Action::AuthenticateOidc { .. } | Action::JwtValidation(_))
    };
    listener.protocol != Some(ListenerProtocol::Https)
        && listener.default_actions.iter().chain(of_rules).any(authenticates)
}

/// Returns the authentication before an action, as AWS returns it and the controller remembers it.
fn given_back(before: &Authentication) -> Action<TargetGroupArn> {
    match before {
        Authentication::Cognito(provider) => Action::AuthenticateCognito(provider.clone()),
        Authentication::Oidc { provider, secret, .. } => Action::AuthenticateOidc {
            provider: provider.clone(),
            client_id: secret.known().map(|secret| secret.client_id.clone()),
            secret_version: secret.known().map(|secret| secret.version.clone()),
        },
        Authentication::Jwt(tokens) => Action::JwtValidation(tokens.clone()),
    }
}
