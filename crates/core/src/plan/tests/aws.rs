//! AWS and the API server as far as plans can distinguish them: each step is applied to an [`ObservedStack`], and a step
//! that they would refuse is refused. Values that AWS fills in are filled in, so that plans are compared with real answers.

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

    fn certificate(&mut self, arn: &CertificateArn) -> Result<&mut ObservedCertificate, String> {
        let mut all = self.observed.certificates.iter_mut().flatten();
        all.find(|certificate| certificate.arn == *arn).ok_or_else(|| "ResourceNotFoundException".to_owned())
    }

    #[allow(clippy::too_many_lines, reason = "one arm a step")]
    fn call(&mut self, stack: &Stack, action: &StepAction) -> Outcome {
        let number = self.number();
        self.wanted.clone_from(&stack.load_balancer);
        match action {
            StepAction::CreateSecurityGroup(group) => {
                let name = group.name.known().ok_or("the name is not known")?.clone();
                let duplicate = self.observed.security_groups.iter().any(|g| g.name == name);
                refuse(duplicate, || "InvalidGroup.Duplicate".to_owned())?;
                let id = SecurityGroupId::new(format!("sg-{number}"));
                self.created_security_group = Some(id.clone());
                let made = ObservedSecurityGroup { id, name, tags: group.tags.clone(), ingress: BTreeSet::new() };
                self.observed.security_groups.push(made);
            }
            StepAction::AuthorizeIngress { group, rules } => {
                let id = match group {
                    SecurityGroupTarget::Existing(id) => id.clone(),
                    SecurityGroupTarget::Created => {
                        self.created_security_group.clone().ok_or("the plan created no security group")?
                    }
                };
                refuse(rules.is_empty(), || "MissingParameter".to_owned())?;
                let group = self.security_group(&id)?;
                for rule in rules {
                    let duplicate = group.ingress.iter().any(|r| r.identity() == rule.identity());
                    refuse(duplicate, || "InvalidPermission.Duplicate".to_owned())?;
                    group.ingress.insert(rule.clone());
                }
                let count = group.ingress.len();
                refuse(count > self.most.security_group_rules, || "RulesPerSecurityGroupLimitExceeded".to_owned())?;
            }
            StepAction::RevokeIngress { group, rules } => {
                refuse(rules.is_empty(), || "MissingParameter".to_owned())?;
                let group = self.security_group(group)?;
                for rule in rules {
                    refuse(!group.ingress.remove(rule), || "InvalidPermission.NotFound".to_owned())?;
                }
            }
            StepAction::DeleteSecurityGroup(id) => {
                self.security_group(id)?;
                let used = self.observed.load_balancers.iter().any(|b| b.security_groups.contains(id));
                refuse(used, || "DependencyViolation".to_owned())?;
                self.observed.security_groups.retain(|g| g.id != *id);
            }
            StepAction::RequestCertificate { certificate, .. } => {
                let arn = CertificateArn::new(format!("arn:certificate/{number}"));
                let record = |host: &String| ValidationRecord {
                    host: host.clone(),
                    name: format!("_{}", without_wildcard(host)),
                    value: "proof".to_owned(),
                };
                self.observed.certificates.get_or_insert_default().push(ObservedCertificate {
                    arn,
                    resource: certificate.resource.clone(),
                    hosts: certificate.hosts.clone(),
                    authority: certificate.authority.clone(),
                    status: CertificateStatus::Pending,
                    records: certificate.hosts.iter().map(record).collect(),
                    validated: BTreeSet::new(),
                    created: BTreeSet::new(),
                });
            }
            StepAction::CreateValidationRecord { arn, record, .. } => {
                let certificate = self.certificate(arn)?;
                let duplicate = !certificate.validated.insert(record.name.clone());
                refuse(duplicate, || "InvalidChangeBatch: it already exists".to_owned())?;
                if certificate.missing_records().is_empty() {
                    certificate.status = CertificateStatus::Issued;
                }
            }
            StepAction::DeleteCertificate { arn, .. } => {
                self.certificate(arn)?;
                let listeners = self.observed.load_balancers.iter().flat_map(|balancer| balancer.known_listeners());
                let used = listeners.flat_map(on_listener).any(|certificate| certificate == arn);
                refuse(used, || "ResourceInUseException".to_owned())?;
                self.observed.certificates.iter_mut().for_each(|all| all.retain(|certificate| certificate.arn != *arn));
            }
            StepAction::CreateTargetGroup(group) => {
                let name = group.name.known().ok_or("the name is not known")?.to_string();
                let duplicate = self.observed.target_groups.iter().any(|g| g.name == name);
                refuse(duplicate, || "DuplicateTargetGroupName".to_owned())?;
                let http = matches!(group.protocol, TargetGroupProtocol::Http | TargetGroupProtocol::Https);
                let check = &group.health_check;
                let connects = check.protocol == HealthCheckProtocol::Tcp;
                refuse(
                    http != group.protocol_version.is_some() || (connects && (http || check.path.is_some())),
                    || "ValidationError: protocol version or health check".to_owned(),
                )?;
                let arn = TargetGroupArn::new(format!("arn:targetgroup/{name}/{number}"));
                self.created_groups.insert(group.resource.clone(), arn.clone());
                self.observed.target_groups.push(ObservedTargetGroup {
                    arn,
                    name,
                    target_type: group.target_type.to_string(),
                    protocol: group.protocol.to_string(),
                    protocol_version: group.protocol_version.map(|version| version.to_string()),
                    ip_address_type: group.ip_address_type,
                    health_check: Some(group.health_check.clone()),
                    attributes: Some(defaults::target_group(group.protocol)),
                    tags: group.tags.clone(),
                });
                self.observed.target_groups.sort_by(|a, b| a.arn.cmp(&b.arn));
            }
            StepAction::CreateFrontendTargetGroup(group) => {
                let name = group.name.known().ok_or("the name is not known")?.to_string();
                let duplicate = self.observed.target_groups.iter().any(|g| g.name == name);
                refuse(duplicate, || "DuplicateTargetGroupName".to_owned())?;
                let arn = TargetGroupArn::new(format!("arn:targetgroup/{name}/{number}"));
                self.observed.frontend.targets.insert(arn.clone(), BTreeSet::new());
                self.observed.target_groups.push(ObservedTargetGroup {
                    arn,
                    name,
                    target_type: "alb".to_owned(),
                    protocol: "TCP".to_owned(),
                    protocol_version: None,
                    ip_address_type: IpAddressType::Ipv4,
                    health_check: Some(group.health_check.clone()),
                    attributes: None,
                    tags: group.tags.clone(),
                });
            }
            StepAction::RegisterLoadBalancer { arn, target, .. } => {
                let balancer = self.observed.load_balancers.iter().find(|b| b.arn == target.load_balancer);
                let is_ready = balancer.is_some_and(|b| b.is_active() && b.listener(target.port).is_some());
                refuse(!is_ready, || "InvalidTarget".to_owned())?;
                let targets = self.observed.frontend.targets.get_mut(arn).ok_or("TargetGroupNotFound")?;
                refuse(!targets.insert(target.clone()) || targets.len() > 1, || "TooManyTargets".to_owned())?;
            }
            StepAction::DeregisterLoadBalancer { arn, target, .. } => {
                let front = &self.observed.frontend;
                let serves = front.load_balancers.iter().any(|b| b.target_groups().any(|named| named == arn));
                refuse(serves, || "its target would be deregistered while it serves".to_owned())?;
                let targets = self.observed.frontend.targets.get_mut(arn).ok_or("TargetGroupNotFound")?;
                refuse(!targets.remove(target), || "InvalidTarget".to_owned())?;
            }
            StepAction::ModifyTargetGroup { arn, health_check, .. } => {
                let group = self.observed.target_groups.iter_mut().find(|g| g.arn == *arn);
                group.ok_or("TargetGroupNotFound")?.health_check = Some(health_check.clone());
            }
            StepAction::DeleteTargetGroup { arn, .. } => {
                let before = self.observed.target_groups.len();
                refuse(self.target_group_in_use(arn), || "ResourceInUse".to_owned())?;
                let bound = self.observed.bindings.iter().any(|b| b.target_group == *arn);
                refuse(bound, || "targets of a binding are still registered".to_owned())?;
                self.observed.target_groups.retain(|g| g.arn != *arn);
                self.observed.frontend.targets.remove(arn);
                refuse(self.observed.target_groups.len() == before, || "TargetGroupNotFound".to_owned())?;
            }
            StepAction::CreateBinding(group) => {
                let made = self.binding(stack, group)?;
                let exists = self.observed.bindings.iter().any(|b| b.name == made.name);
                refuse(exists, || "AlreadyExists".to_owned())?;
                self.observed.bindings.push(ObservedBinding { resource_version: number.to_string(), ..made });
            }
            StepAction::UpdateBinding { existing, target_group, keeps_networking } => {
                let mut made = self.binding(stack, target_group)?;
                if *keeps_networking {
                    made.spec = binding::widened(made.spec, &existing.spec);
                }
                let found = self.observed.bindings.iter_mut().find(|b| b.name == existing.name).ok_or("NotFound")?;
                refuse(found.resource_version != existing.resource_version, || "Conflict".to_owned())?;
                found.labels.extend(made.labels);
                (found.spec, found.allows_sources) = (made.spec, false);
                found.resource_version = number.to_string();
            }
            StepAction::DeleteBinding(name) => {
                let found = self.observed.bindings.iter().position(|b| b.name == *name).ok_or("NotFound")?;
                let serving = self.target_group_in_use(&self.observed.bindings[found].target_group);
                refuse(serving, || "its targets would be deregistered while they serve".to_owned())?;
                self.observed.bindings[found].deleting = true;
            }
            StepAction::CreateLoadBalancer(balancer) => {
                let name = balancer.name.known().ok_or("the name is not known")?.to_string();
                let second = self.observed.load_balancers.iter().any(|b| b.name == name || balancer.can_be(b));
                refuse(second, || "a second load balancer".to_owned())?;
                let groups = balancer.security_groups.iter().map(|g| self.security_group_id(g));
                let security_groups = groups.collect::<Outcome<BTreeSet<_>>>()?;
                let bare = balancer.kind == LoadBalancerKind::Application && security_groups.is_empty();
                refuse(bare, || "ValidationError: no security group".to_owned())?;
                let subnets = balancer.subnets.known().ok_or("the subnets are not known")?;
                self.mappings =
                    mapped(balancer.kind, balancer.scheme, balancer.ip_address_type, &balancer.network, subnets)?;
                self.created_balancer = true;
                self.observed.load_balancers.push(ObservedLoadBalancer {
                    arn: LoadBalancerArn::new(format!("arn:loadbalancer/app/{name}/{number}")),
                    dns_name: format!("{name}.elb.amazonaws.com"),
                    name,
                    kind: balancer.kind,
                    attributes: Some(defaults::load_balancer(balancer.kind)),
                    scheme: balancer.scheme,
                    ip_address_type: balancer.ip_address_type,
                    network: ObservedNetworkSettings {
                        private_link_rules: (balancer.kind == LoadBalancerKind::Network && !security_groups.is_empty())
                            .then_some(true),
                        ..ObservedNetworkSettings::default()
                    }
                    .placed(
                        balancer.network.ipv6_source_nat,
                        subnets,
                        assigned_prefixes(balancer.network.ipv6_source_nat, subnets),
                    ),
                    pools: ObservedPools {
                        ipam: balancer.pools.ipam.as_ref().map(ToString::to_string),
                        customer_owned: balancer.pools.customer_owned.as_ref().map(ToString::to_string),
                    },
                    state: LoadBalancerState::Provisioning,
                    subnets: self.mappings.keys().cloned().collect(),
                    security_groups,
                    tags: balancer.tags.clone(),
                    listeners: Some(BTreeMap::new()),
                    add_ons: ObservedAddOns::of_new(),
                });
            }
            StepAction::AssociateWebAcl { web_acl, .. } => {
                let web_acl = web_acl.known().ok_or("the web ACL is not known")?;
                let known = &mut self.balancer()?.add_ons.web_acl;
                let again = known.as_ref().is_some_and(|known| known.is(web_acl));
                refuse(again, || "a call for nothing".to_owned())?;
                *known = Some(Association::WebAcl(web_acl.to_string()));
            }
            StepAction::DisassociateWebAcl { arn, .. } => {
                let balancer = self.balancer()?;
                let again = balancer.add_ons.web_acl == Some(Association::None);
                refuse(balancer.arn != *arn || again, || "a call for nothing".to_owned())?;
                balancer.add_ons.web_acl = Some(Association::None);
            }
            StepAction::CreateProtection { .. } => {
                let balancer = self.balancer()?;
                let again = balancer.add_ons.protection != Some(Protection::None);
                refuse(again, || "ResourceAlreadyExistsException".to_owned())?;
                let (id, name) = (format!("protection-{number}"), PROTECTION_NAME.to_owned());
                balancer.add_ons.protection = Some(Protection::Exists { id, name });
            }
            StepAction::DeleteProtection { arn, id, .. } => {
                let balancer = self.balancer()?;
                let own = balancer.add_ons.protection.as_ref().and_then(Protection::own_id);
                refuse(balancer.arn != *arn || own != Some(id), || "ResourceNotFoundException".to_owned())?;
                balancer.add_ons.protection = Some(Protection::None);
            }
            StepAction::ModifyIpPools { arn, pool, .. } => {
                let balancer = self.balancer()?;
                let facing = balancer.scheme == Scheme::InternetFacing;
                refuse(balancer.arn != *arn || !facing, || "InvalidConfigurationRequest".to_owned())?;
                refuse(balancer.pools.has_ipam(pool.as_ref()), || "a call for nothing".to_owned())?;
                balancer.pools.ipam = pool.as_ref().map(ToString::to_string);
            }
            StepAction::ModifyCapacityReservation { arn, units, .. } => {
                let balancer = self.balancer()?;
                refuse(balancer.arn != *arn || !balancer.is_active(), || "InvalidConfigurationRequest".to_owned())?;
                refuse(balancer.add_ons.capacity == Some(*units), || "a call for nothing".to_owned())?;
                balancer.add_ons.capacity = Some(*units);
            }
            StepAction::SetSecurityGroups { load_balancer, groups, private_link_rules } => {
                let groups: BTreeSet<_> = groups.iter().map(|g| self.security_group_id(g)).collect::<Outcome<_>>()?;
                let balancer = self.balancer()?;
                let arn = load_balancer.as_ref().unwrap_or(&balancer.arn);
                let of_network = balancer.kind == LoadBalancerKind::Network;
                let rules = of_network.then(|| private_link_rules.unwrap_or(true));
                let same = (&balancer.security_groups, balancer.network.private_link_rules) == (&groups, rules);
                refuse(of_network && same, || "a call for nothing".to_owned())?;
                // A Network Load Balancer that was made without security groups stays without.
                let bare = balancer.security_groups.is_empty();
                refuse(balancer.arn != *arn || groups.is_empty() || bare, || "InvalidConfigurationRequest".to_owned())?;
                balancer.security_groups = groups;
                balancer.network.private_link_rules = rules;
            }
            StepAction::SetIpAddressType { arn, kind } => {
                let balancer = self.balancer()?;
                refuse(balancer.arn != *arn || balancer.ip_address_type == *kind, || "a call for nothing".to_owned())?;
                balancer.ip_address_type = *kind;
            }
            StepAction::SetSubnets { arn, subnets, ip_address_type, ipv6_source_nat } => {
                let balancer = self.balancer()?;
                refuse(balancer.arn != *arn, || "LoadBalancerNotFound".to_owned())?;
                let network = NetworkSettings {
                    ipv6_source_nat: ipv6_source_nat.unwrap_or_default(),
                    ..NetworkSettings::default()
                };
                let of_network = balancer.kind == LoadBalancerKind::Network;
                refuse(ipv6_source_nat.is_some() != of_network, || "InvalidConfigurationRequest".to_owned())?;
                let before = balancer.ip_address_type;
                let kind = ip_address_type.unwrap_or(before);
                let after = mapped(balancer.kind, balancer.scheme, kind, &network, subnets)?;
                let assigned = assigned_prefixes(network.ipv6_source_nat, subnets);
                let network = balancer.network.placed(network.ipv6_source_nat, subnets, assigned);
                let subnets: BTreeSet<SubnetId> = after.keys().cloned().collect();
                let same =
                    (balancer.ip_address_type, &balancer.network, &balancer.subnets) == (kind, &network, &subnets);
                refuse(same, || "a call for nothing".to_owned())?;
                (balancer.ip_address_type, balancer.network, balancer.subnets) = (kind, network, subnets);
                let was_dualstack = before.has_ipv6() && kind.has_ipv6();
                let stays = |before: &SubnetMapping, after: &SubnetMapping| {
                    (&before.allocation, &before.private_ipv4) == (&after.allocation, &after.private_ipv4)
                        && (!was_dualstack || after.ipv6.is_none() || before.ipv6 == after.ipv6)
                };
                let moved = self.mappings.values().any(|m| after.get(&m.subnet).is_some_and(|after| !stays(m, after)));
                refuse(moved, || "InvalidConfigurationRequest: the address of a subnet that stays".to_owned())?;
                self.mappings = after;
            }
            StepAction::ModifyAttributes { of, attributes, .. } => {
                refuse(attributes.is_empty(), || "MissingParameter".to_owned())?;
                let (http, known) = match of {
                    AttributesOf::LoadBalancer(_) => {
                        let balancer = self.balancer()?;
                        (balancer.kind == LoadBalancerKind::Application, &mut balancer.attributes)
                    }
                    AttributesOf::Listener(reference) => {
                        let listener = self.listener(reference)?;
                        let without = matches!(listener.protocol, Some(ListenerProtocol::Tls | ListenerProtocol::Udp));
                        refuse(without, || "InvalidConfigurationRequest: no attributes".to_owned())?;
                        let http = listener.protocol.is_some_and(|p| speaks(LoadBalancerKind::Application, p));
                        (http, &mut listener.attributes)
                    }
                    AttributesOf::TargetGroup(reference) => {
                        let arn = self.resolve(stack, reference)?;
                        let group = self.observed.target_groups.iter_mut().find(|g| g.arn == arn);
                        let group = group.ok_or("TargetGroupNotFound")?;
                        (group.protocol.starts_with("HTTP"), &mut group.attributes)
                    }
                };
                let strange = attributes.keys().find(|key| !attribute_fits(key, http));
                refuse(strange.is_some(), || format!("InvalidConfigurationRequest: {strange:?}"))?;
                known.get_or_insert_default().extend(attributes.clone());
            }
            StepAction::DeleteLoadBalancer { arn, .. } => {
                refuse(self.observed.frontend.leads_to(arn), || "ResourceInUse: it is a target".to_owned())?;
                let before = self.observed.load_balancers.len();
                self.observed.load_balancers.retain(|b| b.arn != *arn);
                refuse(self.observed.load_balancers.len() == before, || "LoadBalancerNotFound".to_owned())?;
            }
            StepAction::CreateListener { load_balancer, listener } => {
                let default_actions =
                    self.action(stack, listener.default_authentication.as_ref(), &listener.default_action)?;
                self.leading(Some(listener.protocol), &default_actions)?;
                self.beside_others(listener.port, Some(listener.protocol))?;
                let created = self.created_balancer;
                let balancer = self.balancer()?;
                refuse(load_balancer.as_ref().map_or(!created, |arn| balancer.arn != *arn), || {
                    "LoadBalancerNotFound".to_owned()
                })?;
                let tls = listener.protocol.is_secure();
                refuse(tls != listener.default_certificate.is_some() || tls != listener.ssl_policy.is_some(), || {
                    "certificate and policy go with TLS".to_owned()
                })?;
                refuse(listener.alpn_policy.is_some() && listener.protocol != ListenerProtocol::Tls, || {
                    "ALPN goes with TLS".to_owned()
                })?;
                refuse(!speaks(balancer.kind, listener.protocol), || "UnsupportedProtocol".to_owned())?;
                let port = listener.port;
                refuse(balancer.listeners.get_or_insert_default().contains_key(&port), || {
                    "DuplicateListener".to_owned()
                })?;
                let count = balancer.listeners.get_or_insert_default().len();
                refuse(count >= self.most.listeners, || "TooManyListeners".to_owned())?;
                let balancer = self.balancer()?;
                balancer.listeners.get_or_insert_default().insert(
                    port,
                    ObservedListener {
                        arn: ListenerArn::new(format!("arn:listener/{port}/{number}")),
                        port,
                        protocol: Some(listener.protocol),
                        default_actions,
                        default_certificate: listener.default_certificate.clone(),
                        certificates: BTreeSet::new(),
                        ssl_policy: listener.ssl_policy.clone(),
                        alpn_policy: listener.alpn_policy.clone(),
                        mutual_authentication: listener.mutual_authentication.as_ref().map(trusting),
                        attributes: Some(defaults::listener(listener.protocol)),
                        tags: listener.tags.clone(),
                        rules: Vec::new(),
                    },
                );
                self.created_listeners.insert(port);
            }
            StepAction::ModifyListener { arn, change, .. } => {
                let default_actions = change
                    .default_action
                    .as_ref()
                    .map(|a| self.action(stack, change.default_authentication.as_ref(), a))
                    .transpose()?;
                let listener = self.listener(&ListenerReference::Existing(arn.clone()))?;
                let mut after = listener.clone();
                after.protocol = change.protocol.or(listener.protocol);
                if after.protocol != listener.protocol {
                    after.attributes = after.protocol.map(defaults::listener);
                }
                if after.protocol != Some(ListenerProtocol::Tls) {
                    refuse(change.alpn_policy.is_some(), || "ALPN goes with TLS".to_owned())?;
                    after.alpn_policy = None;
                }
                after.alpn_policy = change.alpn_policy.clone().or(after.alpn_policy);
                if let Some(clients) = &change.mutual_authentication {
                    after.mutual_authentication = Some(trusting(clients));
                }
                if after.protocol.is_some_and(|protocol| !protocol.is_secure()) {
                    refuse(change.default_certificate.is_some() || change.ssl_policy.is_some(), || {
                        "a listener without TLS has neither certificate nor policy".to_owned()
                    })?;
                    (after.default_certificate, after.ssl_policy) = (None, None);
                    after.certificates.clear();
                } else {
                    after.default_certificate = change.default_certificate.clone().or(after.default_certificate);
                    after.ssl_policy = change.ssl_policy.clone().or(after.ssl_policy);
                    refuse(after.default_certificate.is_none() || after.ssl_policy.is_none(), || {
                        "ValidationError: no certificate or policy".to_owned()
                    })?;
                }
                if let Some(actions) = default_actions {
                    after.default_actions = actions;
                }
                *listener = after.clone();
                let kind = self.balancer()?.kind;
                refuse(after.protocol.is_some_and(|protocol| !speaks(kind, protocol)), || {
                    "UnsupportedProtocol".to_owned()
                })?;
                self.leading(after.protocol, &after.default_actions)?;
                self.beside_others(after.port, after.protocol)?;
            }
            StepAction::DeleteListener { arn, .. } => {
                let port = self.listener(&ListenerReference::Existing(arn.clone()))?.port;
                let target = LoadBalancerTarget { load_balancer: self.balancer()?.arn.clone(), port };
                let is_target = self.observed.frontend.targets.values().any(|targets| targets.contains(&target));
                refuse(is_target, || format!("ResourceInUse: Listener port '{port}' is in use by registered target"))?;
                self.balancer()?.listeners.get_or_insert_default().remove(&port);
            }
            StepAction::AddListenerCertificates { listener, certificates } => {
                let listener = self.listener(listener)?;
                refuse(!listener.protocol.is_some_and(ListenerProtocol::is_secure), || {
                    "only an HTTPS listener has certificates".to_owned()
                })?;
                refuse(certificates.is_empty(), || "no certificates".to_owned())?;
                let port = listener.port;
                // One call each.
                for certificate in certificates {
                    let listeners = self.balancer()?.listeners.get_or_insert_default();
                    let count: usize = listeners.values().map(|listener| listener.certificates.len()).sum();
                    let known = listeners[&port].certificates.contains(certificate);
                    refuse(!known && count >= self.most.certificates, || "TooManyCertificates".to_owned())?;
                    let listener =
                        self.balancer()?.listeners.get_or_insert_default().get_mut(&port).ok_or("ListenerNotFound")?;
                    listener.certificates.insert(certificate.clone());
                }
            }
            StepAction::RemoveListenerCertificates { arn, certificates, .. } => {
                let listener = self.listener(&ListenerReference::Existing(arn.clone()))?;
                for certificate in certificates {
                    refuse(listener.default_certificate.as_ref() == Some(certificate), || {
                        "OperationNotPermitted: the default certificate".to_owned()
                    })?;
                    refuse(!listener.certificates.remove(certificate), || "CertificateNotFound".to_owned())?;
                }
            }
            StepAction::CreateRule { listener, port, index, priority, rule } => {
                let actions = self.action(stack, rule.authentication.as_ref(), &rule.action)?;
                let network = self.balancer()?.kind == LoadBalancerKind::Network;
                refuse(network, || {
                    "UnsupportedOperation: listeners of a Network Load Balancer have no rules".to_owned()
                })?;
                let listeners = self.balancer()?.listeners.get_or_insert_default();
                let count: usize = listeners.values().map(|listener| listener.rules.len()).sum();
                refuse(count >= self.most.rules, || "TooManyRules".to_owned())?;
                let found = self.listener(listener)?;
                refuse(found.port != *port, || "the step names another port".to_owned())?;
                refuse(!(1..=50_000).contains(priority), || format!("ValidationError: priority {priority}"))?;
                refuse(found.rules.iter().any(|r| r.priority == *priority), || format!("PriorityInUse: {priority}"))?;
                refuse(rule.conditions.is_empty(), || "ValidationError: no conditions".to_owned())?;
                let protocol = found.protocol;
                self.leading(protocol, &actions)?;
                let found = self.listener(listener)?;
                let arn = RuleArn::new(format!("arn:rule/{port}/{number}"));
                let mut conditions = rule.conditions.clone();
                // AWS does not guarantee the order of conditions.
                conditions.reverse();
                found.rules.push(ObservedRule {
                    arn: arn.clone(),
                    priority: *priority,
                    conditions,
                    actions,
                    transforms: rule.transforms.clone(),
                    tags: rule.tags.clone(),
                });
                found.rules.sort_by_key(|r| r.priority);
                let twice = self.created_rules.insert((*port, *index), arn).is_some();
                refuse(twice, || "the plan creates one rule twice".to_owned())?;
            }
            StepAction::SetRulePriorities { priorities, .. } => {
                refuse(priorities.is_empty(), || "ValidationError: nothing to set".to_owned())?;
                let mut wanted: BTreeMap<RuleArn, u32> = BTreeMap::new();
                for (reference, priority) in priorities {
                    let arn = match reference {
                        RuleReference::Existing(arn) => arn.clone(),
                        RuleReference::Created(port, index) => {
                            self.created_rules.get(&(*port, *index)).ok_or("the plan created no such rule")?.clone()
                        }
                    };
                    refuse(!(1..=50_000).contains(priority), || format!("ValidationError: priority {priority}"))?;
                    refuse(wanted.insert(arn, *priority).is_some(), || "a rule is named twice".to_owned())?;
                }
                let first = wanted.keys().next().cloned().ok_or("nothing to set")?;
                let (listener, _) = self.rule(&first)?;
                let known: BTreeSet<&RuleArn> = listener.rules.iter().map(|r| &r.arn).collect();
                refuse(!wanted.keys().all(|arn| known.contains(arn)), || "RuleNotFound".to_owned())?;
                let after: Vec<u32> =
                    listener.rules.iter().map(|r| wanted.get(&r.arn).copied().unwrap_or(r.priority)).collect();
                let distinct: BTreeSet<u32> = after.iter().copied().collect();
                refuse(distinct.len() != after.len(), || "PriorityInUse".to_owned())?;
                for (rule, priority) in listener.rules.iter_mut().zip(after) {
                    rule.priority = priority;
                }
                listener.rules.sort_by_key(|r| r.priority);
            }
            StepAction::ModifyRule { arn, rule, reset_transforms, .. } => {
                let actions = self.action(stack, rule.authentication.as_ref(), &rule.action)?;
                refuse(*reset_transforms && !rule.transforms.is_empty(), || {
                    "ValidationError: transforms and their reset".to_owned()
                })?;
                let protocol = self.rule(arn)?.0.protocol;
                self.leading(protocol, &actions)?;
                let (listener, index) = self.rule(arn)?;
                listener.rules[index].actions = actions;
                // Transforms that are not named stay.
                if *reset_transforms || !rule.transforms.is_empty() {
                    listener.rules[index].transforms = rule.transforms.clone();
                }
            }
            StepAction::DeleteRule { arn, .. } => {
                let (listener, index) = self.rule(arn)?;
                listener.rules.remove(index);
            }
            StepAction::AddTags { resource, tags: added, .. } => {
                let found = self.tags(resource).ok_or("the resource to tag does not exist")?;
                found.extend(added.clone());
                refuse(found.len() > 50, || "TooManyTags".to_owned())?;
            }
            StepAction::RemoveTags { resource, keys, .. } => {
                let found = self.tags(resource).ok_or("the resource to untag does not exist")?;
                found.retain(|key, _| !keys.contains(key));
            }
        }
        Ok(())
    }

    fn tags(&mut self, resource: &TaggedResource) -> Option<&mut Tags> {
        match resource {
            TaggedResource::SecurityGroup(id) => {
                self.observed.security_groups.iter_mut().find(|g| g.id == *id).map(|g| &mut g.tags)
            }
            TaggedResource::Elb(arn) => {
                if let Some(group) = self.observed.target_groups.iter_mut().find(|g| g.arn.as_str() == arn) {
                    return Some(&mut group.tags);
                }
                for balancer in &mut self.observed.load_balancers {
                    if balancer.arn.as_str() == arn {
                        return Some(&mut balancer.tags);
                    }
                    for listener in balancer.listeners.get_or_insert_default().values_mut() {
                        if listener.arn.as_str() == arn {
                            return Some(&mut listener.tags);
                        }
                        if let Some(rule) = listener.rules.iter_mut().find(|r| r.arn.as_str() == arn) {
                            return Some(&mut rule.tags);
                        }
                    }
                }
                None
            }
        }
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

fn trusting(clients: &MutualAuthentication<Value<TrustStoreArn>>) -> MutualAuthentication<TrustStoreArn> {
    clients.try_map(|arn| arn.known().cloned().ok_or("the trust store is not known")).unwrap()
}
