//! The check of a group against the account's quotas for one load balancer. It is counted before the first write: existing
//! members come first, then newcomers in the group's order, and a newcomer that exceeds the quota is reported and frozen. It
//! follows by itself when there is room.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Builder, is_of,
    member_spec::MemberSpec,
    merge::{Merged, Unmerged},
    routes::{self, RouteUsage, Routes},
};
use crate::{
    diagnostics::Code,
    facts::{Fact, FactQuery, limits::Limits},
    model::{
        Action, CertificateArn, ListenerProtocol, ObjectName, ObservedLoadBalancer, RuleArn, TargetGroupReference,
    },
};

/// The combined usage of some members.
#[derive(Clone, Default)]
struct Usage {
    rules: usize,
    target_groups: BTreeSet<TargetGroupReference>,
    certificates: BTreeSet<(u16, CertificateArn)>,
    listeners: BTreeSet<u16>,
}

impl Usage {
    /// The first limit that is not kept: what is counted, how many there are, and how many there may be.
    fn over(&self, limits: &Limits) -> Option<(&'static str, usize, usize)> {
        let counts = [
            ("rules", self.rules, limits.rules),
            ("target groups", self.target_groups.len(), limits.target_groups),
            ("certificates", self.certificates.len(), limits.certificates),
            ("listeners", self.listeners.len(), limits.listeners),
        ];
        counts.into_iter().find(|(_, count, most)| count > most)
    }
}

impl<'a> Builder<'a> {
    /// Freezes new members for which there is no room.
    pub(super) fn freeze_beyond_quota(
        &mut self,
        specs: &[MemberSpec<'a>],
        merged: &Merged,
        routes: &[Routes],
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<(), Unmerged> {
        let rules = routes::used(specs, routes, merged);
        let all: Vec<&MemberSpec<'a>> = specs.iter().collect();
        let mut usage = Usage::default();
        all.iter().for_each(|spec| add(&mut usage, spec, &rules, merged));
        // No account has less than AWS's defaults, so the quotas need not be read for less.
        if usage.over(&Limits::default()).is_none() && frozen.is_empty() {
            return Ok(());
        }
        let retained = self.observed_if_frozen(frozen)?;
        let mut usage = Usage::default();
        for resources in
            retained.iter().flat_map(|observed| &observed.member_resources).filter(|resources| is_of(resources, frozen))
        {
            usage.rules += resources.rules.len();
            usage.listeners.extend(resources.ports.keys());
        }
        if let Some(observed) = retained {
            let theirs = |rule: &RuleArn| {
                let mut holders = observed.member_resources.iter().filter(|resources| is_of(resources, frozen));
                holders.any(|resources| resources.rules.contains(rule))
            };
            let listeners = observed.load_balancers.iter().flat_map(ObservedLoadBalancer::known_listeners);
            let rules = listeners.flat_map(|listener| &listener.rules).filter(|rule| theirs(&rule.arn));
            let groups = rules.flat_map(|rule| &rule.actions).flat_map(Action::target_groups);
            usage.target_groups.extend(groups.cloned().map(TargetGroupReference::Foreign));
        }
        let mut everybody = usage.clone();
        all.iter().for_each(|spec| add(&mut everybody, spec, &rules, merged));
        if everybody.over(&Limits::default()).is_none() {
            return Ok(());
        }
        let limits = match &self.facts.limits {
            Some(Fact::Known(limits)) => *limits,
            None if !self.facts.offline => {
                self.sink.wants.insert(FactQuery::Limits);
                return Err(Unmerged::Failed);
            }
            // A plan of files goes by AWS's defaults. What cannot be read now refuses nothing.
            None => Limits::default(),
            _ => Limits::UNKNOWN,
        };
        let current = self.current()?;
        // Existing resources stay: only additional ones can be too many.
        let limits = current.map_or(limits, |observed| limits.raised_to_current(observed));
        let held: BTreeSet<&ObjectName> = current
            .into_iter()
            .flat_map(|observed| &observed.member_resources)
            .filter_map(|resources| resources.member.as_ingress())
            .collect();
        // Without a record (the first pass after a takeover), the status shows which members have been served.
        let served = |spec: &MemberSpec<'_>| held.is_empty() && !spec.member.ingress.status.is_empty();
        let (old, new): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|spec| held.contains(spec.member.name()) || served(spec));
        let mut to_freeze = BTreeSet::new();
        for spec in old.into_iter().chain(new) {
            let mut with = usage.clone();
            add(&mut with, spec, &rules, merged);
            let Some((what, count, most)) = with.over(&limits) else {
                usage = with;
                continue;
            };
            let message = format!(
                "with this Ingress the load balancer would have {count} {what}, and the account allows {most} (default rules and certificates are not counted)"
            );
            let fix = format!(
                "use fewer {what}, put this Ingress in another group, or have the limit raised in Service Quotas; it is served as soon as there is room"
            );
            self.error(spec.member.name(), Code::Quota, "spec.rules", &message, &fix);
            self.sink.lacking = true;
            to_freeze.insert(spec.member.name().clone());
        }
        if to_freeze.is_empty() { Ok(()) } else { Err(Unmerged::Freeze(to_freeze)) }
    }
}

fn add(usage: &mut Usage, spec: &MemberSpec<'_>, used: &BTreeMap<ObjectName, RouteUsage>, merged: &Merged) {
    if let Some(used) = used.get(spec.member.name()) {
        usage.rules += used.rules;
        usage.target_groups.extend(used.target_groups.iter().cloned());
    }
    for (port, requested) in &spec.ports {
        usage.listeners.insert(*port);
        let Some(merged) = merged.ports.get(port).filter(|port| port.protocol == ListenerProtocol::Https) else {
            continue;
        };
        let others = requested.certificates.iter().filter(|c| Some(*c) != merged.default_certificate.as_ref());
        usage.certificates.extend(others.map(|certificate| (*port, certificate.clone())));
    }
}
