//! Listeners with their rules.

use std::collections::BTreeSet;

use super::{Planner, attributes::Causes, certificates::missing_certificates, pending::serving_rules};
use crate::model::{
    Action, Attributes, Cause, CertificateArn, FrozenMembers, Listener, ListenerProtocol, MutualAuthentication,
    ObservedListener, ObservedLoadBalancer, ObservedRule, ProtocolVersion, Rule, TargetGroup, TargetGroupArn,
    TargetGroupReference, TrustStoreArn, Value,
};
use crate::plan::{
    action::StepAction,
    authentication, defaults,
    frozen::FrozenResources,
    order,
    quota_usage::QuotaUsage,
    rules::{RuleChange, same_action},
    step::{AttributesOf, ListenerChange, ListenerReference, Step, TaggedResource},
    tags,
};

/// Returns true if a listener treats client certificates as wanted.
fn same_mutual(wanted: &MutualAuthentication<Value<TrustStoreArn>>, existing: &ObservedListener) -> bool {
    let wanted = wanted.try_map(|arn| arn.known().cloned().ok_or(())).ok();
    wanted.as_ref() == Some(existing.mutual_authentication.as_ref().unwrap_or(&MutualAuthentication::Off))
}

/// `AlpnPolicy` of a listener where AWS shows none.
const NO_ALPN: &str = "None";

/// Returns the parts of a listener that change. `written` is true if the default action stays as it is.
fn change_of(wanted: &Listener, existing: &ObservedListener, written: bool) -> ListenerChange {
    ListenerChange {
        protocol: Some(wanted.protocol).filter(|p| existing.protocol != Some(*p)),
        ssl_policy: wanted.ssl_policy.clone().filter(|p| existing.ssl_policy.as_ref() != Some(p)),
        default_certificate: wanted
            .default_certificate
            .clone()
            .filter(|c| existing.default_certificate.as_ref() != Some(c)),
        alpn_policy: wanted.alpn_policy.clone().filter(|p| existing.alpn_policy.as_deref().unwrap_or(NO_ALPN) != p),
        default_action: Some(wanted.default_action.clone()).filter(|_| !written),
        default_authentication: wanted.default_authentication.clone().filter(|_| !written),
        mutual_authentication: wanted.mutual_authentication.clone().filter(|m| !same_mutual(m, existing)),
    }
}

impl Planner<'_> {
    pub(super) fn new_listener(&mut self, listener: &Listener, balancer: Option<&ObservedLoadBalancer>) {
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
            creates.push(Step::new(create, rule.cause.clone()));
        }
        if fits {
            self.plan.steps.extend(creates);
        } else {
            // In ascending precedence, since the rules that another listener releases are deleted in that order.
            self.later.extend(creates.into_iter().rev());
            self.make_what_fits();
        }
        let rest: Vec<CertificateArn> = listener.certificates.iter().skip(free).cloned().collect();
        self.add_certificates_later(listener, &reference, &rest);
    }

    /// Plans a listener that only frozen members request: rules of former members are deleted, and all else stays.
    pub(super) fn frozen_listener(&mut self, existing: &ObservedListener, cause: &Cause) {
        let in_use = BTreeSet::new();
        let rules = serving_rules(existing);
        let change = RuleChange {
            listener: ListenerReference::Existing(existing.arn.clone()),
            port: existing.port,
            wanted: &[],
            existing: &rules,
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

    pub(super) fn listener(&mut self, wanted: &Listener, existing: &ObservedListener) {
        let reference = ListenerReference::Existing(existing.arn.clone());
        let name = format!("listener {}", wanted.port);
        let resource = TaggedResource::Elb(existing.arn.to_string());
        self.shared_tags(resource, name, self.listener_id(wanted.port), (&wanted.tags, &existing.tags), &wanted.cause);

        if self.awaits_quic(wanted, existing) || self.is_barred(wanted) {
            let kept = existing.default_actions.iter().flat_map(|action| action.target_groups().cloned());
            self.frozen_target_groups.extend(kept);
            return;
        }
        // Certificates: add, change the default, remove.
        let is_same_protocol = existing.protocol == Some(wanted.protocol);
        let missing = missing_certificates(wanted, existing);
        let surplus = self.surplus_certificates(wanted, existing);
        let mut surplus = surplus.as_slice();
        if is_same_protocol {
            surplus = self.exchange_certificates(wanted, existing, &missing, surplus);
        }

        let unasked = !wanted.shares.values().any(|share| share.default_action) && wanted.default_action.is_not_found();
        let default_kept = unasked && !wanted.shares.is_empty() && self.frozen_resources.default_action(wanted.port)
            || self.pending.holds_default(wanted.port);
        let before = wanted.default_authentication.as_ref();
        let default_stays = default_kept
            || same_action(before, &wanted.default_action, &existing.default_actions, &|r| self.resolve(r));
        let written = default_stays && !authentication::is_outdated(before, &existing.default_actions);
        let in_use = self.target_groups_in_use();
        let cause = Cause { field: "spec.rules".to_owned(), ..wanted.cause.clone() };
        let (used, balancer) = (self.used(), self.balancer());
        let frozen = self.frozen_on(wanted);
        let frozen_resources = match &frozen {
            Some(frozen) => FrozenResources::new(frozen, self.observed),
            None => self.frozen_resources,
        };
        let held = self.pending.held(wanted.port);
        let is_held = |rule: &Rule| held.is_some_and(|held| held.contains(&rule.cause.object));
        let rules: Vec<Rule> = wanted.rules.iter().filter(|rule| !is_held(rule)).cloned().collect();
        let serving = serving_rules(existing);
        let change = RuleChange {
            listener: reference.clone(),
            port: wanted.port,
            wanted: &rules,
            existing: &serving,
            resolve: &|r| self.resolve(r),
            in_use: &in_use,
            default_stays,
            cause: &cause,
            frozen_resources,
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
        let mut listener_change = change_of(wanted, existing, written);
        // AWS accepts authentication, and target groups of HTTP/2 and gRPC, only on HTTPS listeners.
        let needs_https = match wanted.protocol {
            ListenerProtocol::Https => {
                let needs = |rule: &Rule| rule.authentication.is_some() || self.speaks_http2(&rule.action);
                wanted.rules.iter().any(needs)
            }
            _ => order::authenticates(existing),
        };
        let protocol = match existing.protocol {
            Some(before) if before != wanted.protocol && needs_https => listener_change.take_protocol(),
            _ => ListenerChange::default(),
        };
        if wanted.protocol == ListenerProtocol::Https {
            self.modify_listener(existing, protocol.clone(), &wanted.cause);
        }
        if is_same_protocol && !steps.before_default.is_empty() {
            // Who comes for a new rule gets its certificate.
            let default_certificate = listener_change.default_certificate.take();
            let change = ListenerChange { default_certificate, ..ListenerChange::default() };
            self.modify_listener(existing, change, &wanted.cause);
        }
        self.plan.steps.extend(steps.before_default);
        self.modify_listener(existing, listener_change, &wanted.cause);
        if !missing.is_empty() && !is_same_protocol {
            self.add_certificates(wanted, &reference, missing.into_iter());
        }
        for delete in steps.after_default {
            self.plan.steps.push(delete);
            self.make_what_fits();
        }
        if wanted.protocol != ListenerProtocol::Https {
            self.modify_listener(existing, protocol, &wanted.cause);
        }
        self.listener_attributes(wanted, existing);
        self.remove_certificates(wanted, existing, surplus);
        self.tag_rules(wanted.port, &retagged);
    }

    /// Returns the frozen members of the stack and those that wait for targets on a listener; `None` if none waits.
    fn frozen_on(&self, wanted: &Listener) -> Option<FrozenMembers> {
        let held = self.pending.held(wanted.port)?;
        let mut frozen = self.stack.frozen.clone();
        if frozen.order.is_empty() {
            // Rules are in the group's order.
            let objects = wanted.rules.iter().map(|rule| &rule.cause.object).chain(held);
            let mut seen = BTreeSet::new();
            frozen.order = objects.filter(|object| seen.insert(*object)).cloned().collect();
        }
        frozen.members.extend(held.iter().cloned());
        Some(frozen)
    }

    /// Returns true if an action forwards to a target group of the stack that is asked with HTTP/2 or gRPC.
    fn speaks_http2(&self, action: &Action<TargetGroupReference>) -> bool {
        let group = |reference: &TargetGroupReference| match reference {
            TargetGroupReference::Own(resource) => self.stack.target_groups.get(resource),
            TargetGroupReference::Foreign(_) | TargetGroupReference::Named(_) => None,
        };
        let speaks = |group: &TargetGroup| {
            matches!(group.protocol_version, Some(ProtocolVersion::Http2 | ProtocolVersion::Grpc))
        };
        action.target_groups().filter_map(group).any(speaks)
    }

    pub(super) fn modify_listener(&mut self, existing: &ObservedListener, change: ListenerChange, cause: &Cause) {
        if change != ListenerChange::default() {
            let (arn, port) = (existing.arn.clone(), existing.port);
            self.push(StepAction::ModifyListener { arn, port, change: Box::new(change) }, cause);
        }
    }

    pub(super) fn target_groups_in_use(&self) -> BTreeSet<TargetGroupArn> {
        self.observed.load_balancers.iter().flat_map(ObservedLoadBalancer::target_groups).cloned().collect()
    }

    /// Changes the attributes of an existing listener to the wanted ones.
    fn listener_attributes(&mut self, wanted: &Listener, existing: &ObservedListener) {
        // The attributes of a listener depend on its protocol, so none are known after a change of protocol.
        let unknown = Some(Attributes::new()).filter(|_| existing.protocol != Some(wanted.protocol));
        if let Some(known) = unknown.as_ref().or(existing.attributes.as_ref()) {
            let of = AttributesOf::Listener(ListenerReference::Existing(existing.arn.clone()));
            let name = format!("listener {}", wanted.port);
            let causes = Causes::of(&wanted.cause, &wanted.attribute_causes);
            self.attributes(of, name, &wanted.attributes, known, causes);
        }
    }

    /// Changes the tags of the existing rules of the listener on a port to the wanted ones.
    fn tag_rules(&mut self, port: u16, rules: &[(Rule, ObservedRule)]) {
        for (rule, existing) in rules {
            let name = format!("rule {} of listener {}", existing.priority, port);
            let sources = tags::of_rule(&rule.cause.object, self.frozen_resources.holder_of_rule(&existing.arn));
            let resource = TaggedResource::Elb(existing.arn.to_string());
            self.tags(resource, name, &sources, (&rule.tags, &existing.tags), &rule.cause);
        }
    }
}
