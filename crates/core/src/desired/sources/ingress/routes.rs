//! The routes of a member, and their merge into listeners.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::{
    Builder, Failed, access, group,
    listeners::{self, ListenerContext},
    managed_certificates::MemberCertificate,
    member_spec::MemberSpec,
    merge::{Merged, MergedPort, has_frozen_listener},
    optimise,
};
use crate::{
    api::annotations::registry::ingress as keys,
    desired::shared,
    diagnostics::Code,
    model::{
        Action, DesiredCertificates, Listener, ListenerProtocol, ListenerShare, ObjectName, ObjectReference,
        ResourceId, Rule, SecurityGroupRule, Stack, TargetGroup, TargetGroupReference,
    },
};

/// A member's routes.
pub(super) struct Routes {
    /// The default action, where the member gives one, and the rules, by port.
    ports: BTreeMap<u16, (Option<listeners::Answer>, Vec<Rule>)>,
    target_groups: IndexMap<ResourceId, TargetGroup>,
}

/// The rules and target groups built from a member's routes: rules that can never match are left out.
#[derive(Default)]
pub(super) struct RouteUsage {
    /// The number of rules on all listeners.
    pub(super) rules: usize,
    /// The target groups that the rules and default actions name.
    pub(super) target_groups: BTreeSet<TargetGroupReference>,
}

/// Returns what of each member's routes comes to be, where all members are served together.
pub(super) fn used(specs: &[MemberSpec<'_>], routes: &[Routes], merged: &Merged) -> BTreeMap<ObjectName, RouteUsage> {
    let mut all: BTreeMap<ObjectName, RouteUsage> = BTreeMap::new();
    for (port, of_port) in &merged.ports {
        let members = || specs.iter().zip(routes).filter_map(|(spec, routes)| Some((spec, routes.ports.get(port)?)));
        for (spec, (default, _)) in
            members().filter(|(spec, _)| of_port.default_of.as_ref() == Some(spec.member.name()))
        {
            let named = default.iter().flat_map(|(action, _)| action.target_groups().cloned());
            all.entry(spec.member.name().clone()).or_default().target_groups.extend(named);
        }
        let rules = members().flat_map(|(_, (_, rules))| rules.iter().cloned()).collect();
        let context = ListenerContext { port: *port, protocol: of_port.protocol, awaits_https: false };
        for rule in optimise::optimise(rules, context) {
            let used = all.entry(rule.cause.object.name.clone()).or_default();
            used.rules += 1;
            used.target_groups.extend(rule.action.target_groups().cloned());
        }
    }
    all
}

/// Returns the target groups of the stack that these answers lead to.
fn used_groups(ports: &BTreeMap<u16, (Option<listeners::Answer>, Vec<Rule>)>) -> BTreeSet<ResourceId> {
    let actions = ports.values().flat_map(|(default, rules)| {
        let default = default.iter().map(|(action, _)| action);
        default.chain(rules.iter().map(|rule| &rule.action))
    });
    let own = actions.flat_map(Action::target_groups).filter_map(|group| match group {
        TargetGroupReference::Own(id) => Some(id.clone()),
        _ => None,
    });
    own.collect()
}

/// Returns the certificates that the members have ACM issue.
fn desired_certificates(specs: &[MemberSpec<'_>]) -> DesiredCertificates {
    let mut desired = DesiredCertificates::default();
    for spec in specs {
        match &spec.certificate {
            Some(MemberCertificate { wanted: Some(wanted), .. }) => desired.wanted.push(wanted.clone()),
            Some(_) => drop(desired.unread.insert(spec.member.name().clone())),
            None => {}
        }
    }
    desired
}

impl<'a> Builder<'a> {
    pub(super) fn routes(&mut self, spec: &MemberSpec<'a>, merged: &Merged) -> Result<Routes, Failed> {
        self.backend_source = merged.access.as_ref().and_then(|access| access.backend_source.clone());
        self.target_groups.clear();
        let mut ports = BTreeMap::new();
        let mut failed = false;
        for (port, requested) in &spec.ports {
            let protocol = requested.protocol;
            if merged.redirect.is_some() && protocol == ListenerProtocol::Http {
                ports.insert(*port, (None, Vec::new()));
                continue;
            }
            let awaits_https = merged.awaits_https && protocol == ListenerProtocol::Http;
            let context = ListenerContext { port: *port, protocol, awaits_https };
            let default_action = self.default_action(spec.member, context);
            let rules = self.rules(spec.member, context);
            match (default_action, rules) {
                (Ok(default_action), Ok(rules)) => drop(ports.insert(*port, (default_action, rules))),
                _ => failed = true,
            }
        }
        let mut target_groups = std::mem::take(&mut self.target_groups);
        if merged.awaits_https {
            let used = used_groups(&ports);
            target_groups.retain(|id, _| used.contains(id));
        }
        if failed { Err(Failed) } else { Ok(Routes { ports, target_groups }) }
    }

    /// The stack of all parts. `None` where something that concerns all is missing.
    pub(super) fn put_together(
        &mut self,
        specs: &[MemberSpec<'a>],
        mut merged: Merged,
        routes: Vec<Routes>,
        frozen: &BTreeSet<ObjectName>,
    ) -> Option<Stack> {
        let requesters = self.requesters(specs, &merged);
        let user_tags = std::mem::take(&mut merged.tags);
        let mut load_balancer = self.load_balancer(specs, &mut merged, &user_tags).ok()?;
        let access = merged.access.take()?;
        let mut listeners = BTreeMap::new();
        let mut sources = BTreeMap::new();
        for (number, mut port) in std::mem::take(&mut merged.ports) {
            sources.insert(number, self.allowed_sources(port.sources.take()));
            let listener = self.listener(specs, number, port, merged.redirect, &routes)?;
            listeners.insert(number, listener);
        }
        let current = self.observed_if_frozen(frozen).ok()?;
        let security_group = access.is_managed().then(|| {
            let first = specs.first().map(|spec| spec.member.ingress)?;
            let mut rules = Vec::new();
            for (port, sources) in &sources {
                rules.extend(sources.iter().map(|source| access::open_to(*port, source)));
            }
            // The ports of frozen members only stay open to their present sources.
            let retained = current.into_iter().flat_map(|observed| {
                let group = observed.security_groups.first();
                group.into_iter().flat_map(|group| &group.ingress)
            });
            let elsewhere = |rule: &&SecurityGroupRule| {
                !rule
                    .from_port
                    .and_then(|port| u16::try_from(port).ok())
                    .is_some_and(|port| listeners.contains_key(&port))
            };
            let held = |rule: &&SecurityGroupRule| {
                let port = rule.from_port.and_then(|port| u16::try_from(port).ok());
                let Some((observed, port)) = current.zip(port) else { return true };
                has_frozen_listener(observed, frozen, port)
            };
            rules.extend(retained.filter(elsewhere).filter(held).cloned());
            Some(self.managed_security_group(first, rules, &user_tags))
        });
        load_balancer.security_groups = access.security_groups;
        let frontend = match merged.frontend.take() {
            Some(requested) => Some(Box::new(self.frontend(requested, &load_balancer, &user_tags).ok()?)),
            None => None,
        };
        let mut target_groups = IndexMap::new();
        for routes in routes {
            target_groups.extend(routes.target_groups);
        }
        let members: Vec<_> = specs.iter().map(|spec| spec.member.ingress).collect();
        let unprotect_frontend =
            frontend.is_none() && group::releases_protected(&members, keys::FRONTEND_NLB_ATTRIBUTES, |_| true);
        Some(Stack {
            unprotect_frontend,
            load_balancer: Some(load_balancer),
            security_group: security_group.flatten(),
            target_groups,
            listeners,
            frontend,
            certificates: desired_certificates(specs),
            requesters,
            ..Stack::empty(self.group.clone())
        })
    }

    fn listener(
        &mut self,
        specs: &[MemberSpec<'a>],
        number: u16,
        port: MergedPort,
        redirect: Option<u16>,
        routes: &[Routes],
    ) -> Option<Listener> {
        let members = specs.iter().zip(routes);
        let on_port = members.filter_map(|(spec, routes)| Some((spec, spec.ports.get(&number)?, routes)));
        let redirect = redirect.filter(|_| port.protocol == ListenerProtocol::Http);
        let mut rules = Vec::new();
        let mut shares = BTreeMap::new();
        let mut default: listeners::Answer = (redirect.map_or_else(listeners::not_found, listeners::redirect_to), None);
        let mut tagged = Vec::new();
        for (spec, listener, routes) in on_port {
            let member = spec.member.name();
            let (its_default, its_rules) = routes.ports.get(&number)?;
            rules.extend(its_rules.iter().cloned());
            let is_default = port.default_of.as_ref() == Some(member);
            if let Some(answer) = its_default.as_ref().filter(|_| is_default) {
                default.clone_from(answer);
            }
            let certificates = listener.certificates.iter().cloned().collect();
            let cause = super::cause(spec.member.ingress, "spec");
            shares.insert(
                ObjectReference::ingress(member),
                ListenerShare { certificates, default_action: is_default, cause },
            );
            tagged.push(spec);
        }
        self.warn_of_hidden_rules(&rules, number);
        let context = ListenerContext { port: number, protocol: port.protocol, awaits_https: false };
        let mut user_tags = BTreeMap::new();
        for spec in tagged {
            user_tags.extend(spec.tags.clone());
        }
        let (attributes, attribute_causes) = port.attributes;
        let (default_action, default_authentication) = default;
        Some(Listener {
            port: number,
            protocol: port.protocol,
            default_action,
            default_authentication,
            default_certificate: port.default_certificate,
            certificates: port.certificates,
            certificates_after_apply: port.certificates_after_apply,
            mutual_authentication: port.mutual_authentication,
            alpn_policy: None,
            attributes,
            attribute_causes,
            ssl_policy: port.ssl_policy,
            rules: optimise::optimise(rules, context),
            shares,
            tags: self.config.of_listeners(shared::tags::of_resource(
                self.config,
                self.group,
                &ResourceId::listener(number),
                &user_tags,
            )),
            cause: port.cause,
        })
    }

    /// Reports rules that get no request, because another member's rule takes the same requests before.
    fn warn_of_hidden_rules(&mut self, rules: &[Rule], port: u16) {
        for (index, rule) in rules.iter().enumerate() {
            let hides =
                |earlier: &&Rule| earlier.cause.object != rule.cause.object && earlier.conditions == rule.conditions;
            if let Some(earlier) = rules.iter().take(index).find(hides) {
                let message = format!(
                    "on port {port} {} takes the same requests first ({}), so this rule gets none",
                    earlier.cause.object, earlier.cause.field
                );
                let fix = "remove one of the two, or change their order with `alb.ingress.kubernetes.io/group.order`";
                let object = rule.cause.object.clone();
                let severity = crate::diagnostics::Severity::Warning;
                self.sink.report(severity, object, Code::Conflict, &rule.cause.field, &message, fix);
            }
        }
    }

    /// Members whose target groups have the name of an earlier member's within the group: Ingress and Service names that run
    /// together the same way.
    pub(super) fn same_resources(&mut self, specs: &[MemberSpec<'a>], routes: &[Routes]) -> BTreeSet<ObjectName> {
        let mut seen: BTreeMap<ResourceId, ObjectName> = BTreeMap::new();
        let mut to_freeze = BTreeSet::new();
        for (spec, routes) in specs.iter().zip(routes) {
            for resource in routes.target_groups.keys() {
                let member = spec.member.name();
                if let Some(other) = seen.get(resource).filter(|other| *other != member).cloned() {
                    let message = format!(
                        "its target group would be called `{resource}` within the group, as one of Ingress {other} is"
                    );
                    let fix = "rename the Ingress or its Service";
                    self.error(member, Code::Conflict, "metadata.name", &message, fix);
                    to_freeze.insert(member.clone());
                } else {
                    seen.insert(resource.clone(), member.clone());
                }
            }
        }
        to_freeze
    }
}
