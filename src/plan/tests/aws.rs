//! AWS and the API server as far as plans can tell them apart: each step is applied to an [`ObservedStack`], and what they
//! would refuse is refused. What AWS fills in by itself is filled in, so that plans are compared with real answers.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    build::tags,
    model::*,
    plan::{
        AttributesOf, ListenerReference, Plan, RuleReference, SecurityGroupTarget, StepAction, TaggedResource, Wait,
        binding, defaults, plan,
    },
};

pub(super) const BACKEND_GROUP: &str = "sg-shared";

/// What AWS has, and how the names of a plan resolve while it runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Aws {
    pub(super) observed: ObservedStack,
    made: u32,
    created_groups: BTreeMap<ResourceId, TargetGroupArn>,
    created_listeners: BTreeSet<u16>,
    created_rules: BTreeMap<(u16, usize), RuleArn>,
    created_security_group: Option<SecurityGroupId>,
    created_balancer: bool,
}

type Outcome<T = ()> = Result<T, String>;

fn refuse<T>(when: bool, why: impl FnOnce() -> T) -> Result<(), T> {
    if when { Err(why()) } else { Ok(()) }
}

impl Aws {
    pub(super) fn of(observed: ObservedStack) -> Self {
        // So that nothing new is called as something old.
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
        self.begin();
        for step in &plan.steps {
            self.apply(stack, &step.action).unwrap_or_else(|refused| panic!("{}: {refused}", step.action));
        }
    }

    /// Plans and runs until nothing is left to do, which has to be after so many rounds; bindings go in between.
    pub(super) fn settle(&mut self, stack: &Stack, most_rounds: usize) {
        for _ in 0..most_rounds {
            let plan = plan(stack, &self.observed);
            self.run(stack, &plan);
            if let Some(Wait::BindingsGone(names)) = &plan.wait {
                let deleting: BTreeSet<ObjectName> =
                    self.observed.bindings.iter().filter(|b| b.deleting).map(|b| b.name.clone()).collect();
                assert_eq!(*names, deleting, "a plan waits for what goes");
            }
            self.observed.bindings.retain(|binding| !binding.deleting);
        }
        assert_eq!(plan(stack, &self.observed), Plan::default(), "not settled after {most_rounds} rounds");
    }

    /// What earlier plans created is no longer called so.
    pub(super) fn begin(&mut self) {
        *self = Self { observed: std::mem::take(&mut self.observed), made: self.made, ..Self::default() };
    }

    fn number(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    fn balancer(&mut self) -> Outcome<&mut ObservedLoadBalancer> {
        self.observed.load_balancers.first_mut().ok_or_else(|| "there is no load balancer".to_owned())
    }

    fn listener(&mut self, reference: &ListenerReference) -> Outcome<&mut ObservedListener> {
        let created = match reference {
            ListenerReference::Created(port) => self.created_listeners.contains(port),
            ListenerReference::Existing(_) => true,
        };
        refuse(!created, || "the plan created no such listener".to_owned())?;
        self.balancer()?
            .listeners
            .values_mut()
            .find(|l| match reference {
                ListenerReference::Created(port) => l.port == *port,
                ListenerReference::Existing(arn) => l.arn == *arn,
            })
            .ok_or_else(|| "ListenerNotFound".to_owned())
    }

    fn rule(&mut self, arn: &RuleArn) -> Outcome<(&mut ObservedListener, usize)> {
        for listener in self.balancer()?.listeners.values_mut() {
            if let Some(index) = listener.rules.iter().position(|rule| rule.arn == *arn) {
                return Ok((listener, index));
            }
        }
        Err("RuleNotFound".to_owned())
    }

    /// What a target group of the stack is called: the one that this plan created, else the one that fits.
    fn resolve(&self, stack: &Stack, reference: &TargetGroupReference) -> Outcome<TargetGroupArn> {
        match reference {
            TargetGroupReference::Foreign(arn) => Ok(arn.clone()),
            TargetGroupReference::Own(id) => self
                .created_groups
                .get(id)
                .or_else(|| {
                    let wanted = stack.target_groups.get(id)?;
                    let fits = |o: &&ObservedTargetGroup| {
                        o.resource().as_ref() == Some(id)
                            && o.target_type == wanted.target_type.as_str()
                            && o.protocol == wanted.protocol.as_str()
                            && o.protocol_version.as_deref() == wanted.protocol_version.map(ProtocolVersion::as_str)
                    };
                    self.observed.target_groups.iter().find(fits).map(|o| &o.arn)
                })
                .cloned()
                .ok_or_else(|| format!("TargetGroupNotFound: {id}")),
        }
    }

    /// An action as AWS gives it back.
    fn action(&self, stack: &Stack, action: &Action<TargetGroupReference>) -> Outcome<Vec<Action<TargetGroupArn>>> {
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
            Action::FixedResponse { .. } | Action::Other(_) => {}
        }
        Ok(vec![action])
    }

    fn security_group_id(&self, reference: &SecurityGroupReference) -> Outcome<SecurityGroupId> {
        match reference {
            SecurityGroupReference::Managed => self
                .created_security_group
                .clone()
                .or_else(|| {
                    let managed = |g: &&ObservedSecurityGroup| {
                        tags::resource_of(&g.tags).is_some_and(|id| id == tags::MANAGED_SECURITY_GROUP)
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
            .flat_map(|b| b.listeners.values())
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
        })
    }

    /// Runs one step, or says why it is refused.
    #[allow(clippy::too_many_lines, reason = "one arm a step")]
    pub(super) fn apply(&mut self, stack: &Stack, action: &StepAction) -> Outcome {
        let number = self.number();
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
            StepAction::CreateTargetGroup(group) => {
                let name = group.name.known().ok_or("the name is not known")?.to_string();
                let duplicate = self.observed.target_groups.iter().any(|g| g.name == name);
                refuse(duplicate, || "DuplicateTargetGroupName".to_owned())?;
                let arn = TargetGroupArn::new(format!("arn:targetgroup/{name}/{number}"));
                self.created_groups.insert(group.resource.clone(), arn.clone());
                self.observed.target_groups.push(ObservedTargetGroup {
                    arn,
                    name,
                    target_type: group.target_type.to_string(),
                    protocol: group.protocol.to_string(),
                    protocol_version: group.protocol_version.map(|version| version.to_string()),
                    health_check: Some(group.health_check.clone()),
                    attributes: Some(defaults::target_group(group.protocol)),
                    tags: group.tags.clone(),
                });
                self.observed.target_groups.sort_by(|a, b| a.arn.cmp(&b.arn));
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
                refuse(self.observed.target_groups.len() == before, || "TargetGroupNotFound".to_owned())?;
            }
            StepAction::CreateBinding(group) => {
                let made = self.binding(stack, group)?;
                let exists = self.observed.bindings.iter().any(|b| b.name == made.name);
                refuse(exists, || "AlreadyExists".to_owned())?;
                self.observed.bindings.push(ObservedBinding { resource_version: number.to_string(), ..made });
            }
            StepAction::UpdateBinding { existing, target_group } => {
                let made = self.binding(stack, target_group)?;
                let found = self.observed.bindings.iter_mut().find(|b| b.name == existing.name).ok_or("NotFound")?;
                refuse(found.resource_version != existing.resource_version, || "Conflict".to_owned())?;
                found.labels = made.labels;
                found.spec = made.spec;
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
                refuse(!self.observed.load_balancers.is_empty(), || "a second load balancer".to_owned())?;
                let groups = balancer.security_groups.iter().map(|g| self.security_group_id(g));
                let security_groups = groups.collect::<Outcome<_>>()?;
                self.created_balancer = true;
                self.observed.load_balancers.push(ObservedLoadBalancer {
                    arn: LoadBalancerArn::new(format!("arn:loadbalancer/app/{name}/{number}")),
                    dns_name: format!("{name}.elb.amazonaws.com"),
                    name,
                    kind: balancer.kind,
                    attributes: Some(defaults::load_balancer(balancer.kind)),
                    scheme: balancer.scheme,
                    state: LoadBalancerState::Provisioning,
                    subnets: balancer
                        .subnets
                        .known()
                        .ok_or("the subnets are not known")?
                        .iter()
                        .map(|mapping| mapping.subnet.clone())
                        .collect(),
                    security_groups,
                    tags: balancer.tags.clone(),
                    listeners: BTreeMap::new(),
                });
            }
            StepAction::SetSecurityGroups { arn, groups } => {
                let groups: BTreeSet<_> = groups.iter().map(|g| self.security_group_id(g)).collect::<Outcome<_>>()?;
                let balancer = self.balancer()?;
                refuse(balancer.arn != *arn || groups.is_empty(), || "InvalidConfigurationRequest".to_owned())?;
                balancer.security_groups = groups;
            }
            StepAction::SetSubnets { arn, subnets } => {
                let balancer = self.balancer()?;
                refuse(balancer.arn != *arn || subnets.is_empty(), || "InvalidConfigurationRequest".to_owned())?;
                balancer.subnets = subnets.iter().map(|mapping| mapping.subnet.clone()).collect();
            }
            StepAction::ModifyAttributes { of, attributes, .. } => {
                refuse(attributes.is_empty(), || "MissingParameter".to_owned())?;
                let known = match of {
                    AttributesOf::LoadBalancer(_) => &mut self.balancer()?.attributes,
                    AttributesOf::Listener(reference) => &mut self.listener(reference)?.attributes,
                    AttributesOf::TargetGroup(reference) => {
                        let arn = self.resolve(stack, reference)?;
                        let group = self.observed.target_groups.iter_mut().find(|g| g.arn == arn);
                        &mut group.ok_or("TargetGroupNotFound")?.attributes
                    }
                };
                known.get_or_insert_default().extend(attributes.clone());
            }
            StepAction::DeleteLoadBalancer { arn, .. } => {
                let before = self.observed.load_balancers.len();
                self.observed.load_balancers.retain(|b| b.arn != *arn);
                refuse(self.observed.load_balancers.len() == before, || "LoadBalancerNotFound".to_owned())?;
            }
            StepAction::CreateListener { load_balancer, listener } => {
                let default_actions = self.action(stack, &listener.default_action)?;
                let created = self.created_balancer;
                let balancer = self.balancer()?;
                refuse(load_balancer.as_ref().map_or(!created, |arn| balancer.arn != *arn), || {
                    "LoadBalancerNotFound".to_owned()
                })?;
                let tls = listener.protocol.is_secure();
                refuse(tls != listener.default_certificate.is_some() || tls != listener.ssl_policy.is_some(), || {
                    "certificate and policy go with HTTPS".to_owned()
                })?;
                let port = listener.port;
                refuse(balancer.listeners.contains_key(&port), || "DuplicateListener".to_owned())?;
                balancer.listeners.insert(
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
                        attributes: Some(defaults::listener(listener.protocol)),
                        tags: listener.tags.clone(),
                        rules: Vec::new(),
                    },
                );
                self.created_listeners.insert(port);
            }
            StepAction::ModifyListener { arn, change, .. } => {
                let default_actions =
                    change.default_action.as_ref().map(|action| self.action(stack, action)).transpose()?;
                let listener = self.listener(&ListenerReference::Existing(arn.clone()))?;
                listener.protocol = change.protocol.or(listener.protocol);
                if listener.protocol.is_some_and(|protocol| !protocol.is_secure()) {
                    refuse(change.default_certificate.is_some() || change.ssl_policy.is_some(), || {
                        "an HTTP listener has neither certificate nor policy".to_owned()
                    })?;
                    (listener.default_certificate, listener.ssl_policy) = (None, None);
                    listener.certificates.clear();
                } else {
                    listener.default_certificate =
                        change.default_certificate.clone().or(listener.default_certificate.take());
                    listener.ssl_policy = change.ssl_policy.clone().or(listener.ssl_policy.take());
                    refuse(listener.default_certificate.is_none(), || "ValidationError: no certificate".to_owned())?;
                }
                if let Some(actions) = default_actions {
                    listener.default_actions = actions;
                }
            }
            StepAction::DeleteListener { arn, .. } => {
                let port = self.listener(&ListenerReference::Existing(arn.clone()))?.port;
                self.balancer()?.listeners.remove(&port);
            }
            StepAction::AddListenerCertificates { listener, certificates } => {
                let listener = self.listener(listener)?;
                refuse(!listener.protocol.is_some_and(ListenerProtocol::is_secure), || {
                    "only an HTTPS listener has certificates".to_owned()
                })?;
                refuse(certificates.is_empty(), || "no certificates".to_owned())?;
                listener.certificates.extend(certificates.iter().cloned());
                refuse(listener.certificates.len() > 25, || "TooManyCertificates".to_owned())?;
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
                let actions = self.action(stack, &rule.action)?;
                let found = self.listener(listener)?;
                refuse(found.port != *port, || "the step names another port".to_owned())?;
                refuse(!(1..=50_000).contains(priority), || format!("ValidationError: priority {priority}"))?;
                refuse(found.rules.iter().any(|r| r.priority == *priority), || format!("PriorityInUse: {priority}"))?;
                refuse(found.rules.len() >= 100, || "TooManyRules".to_owned())?;
                refuse(rule.conditions.is_empty(), || "ValidationError: no conditions".to_owned())?;
                let arn = RuleArn::new(format!("arn:rule/{port}/{number}"));
                let mut conditions = rule.conditions.clone();
                // AWS promises no order of conditions.
                conditions.reverse();
                found.rules.push(ObservedRule {
                    arn: arn.clone(),
                    priority: *priority,
                    conditions,
                    actions,
                    transforms: false,
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
            StepAction::ModifyRule { arn, rule, .. } => {
                let actions = self.action(stack, &rule.action)?;
                let (listener, index) = self.rule(arn)?;
                listener.rules[index].actions = actions;
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
                    for listener in balancer.listeners.values_mut() {
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
