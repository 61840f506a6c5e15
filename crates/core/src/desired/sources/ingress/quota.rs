//! Whether the group keeps to what an account may have on one load balancer. It is counted before the first write: those
//! who are there already come first, then newcomers in the group's order, and a newcomer for whom there is no room is told
//! and set aside. It follows by itself when there is room.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Builder,
    merge::{Merged, Unmerged},
    part::Part,
    routes::{self, Routes, Used},
};
use crate::{
    diagnostics::Code,
    facts::{Fact, Want, limits::Limits},
    model::{
        Action, CertificateArn, ListenerProtocol, ObjectName, ObservedLoadBalancer, RuleArn, TargetGroupReference,
    },
};

/// What some members have together.
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
    /// Sets newcomers aside for whom there is no room.
    pub(super) fn make_room(
        &mut self,
        parts: &[Part<'a>],
        merged: &Merged,
        routes: &[Routes],
        aside: &BTreeSet<ObjectName>,
    ) -> Result<(), Unmerged> {
        let rules = routes::used(parts, routes, merged);
        let all: Vec<&Part<'a>> = parts.iter().collect();
        let mut usage = Usage::default();
        all.iter().for_each(|part| add(&mut usage, part, &rules, merged));
        // Nobody's account has less than AWS's defaults, so that nothing has to be asked for less.
        if usage.over(&Limits::default()).is_none() && aside.is_empty() {
            return Ok(());
        }
        let kept = self.kept(aside)?;
        let mut usage = Usage::default();
        for holding in kept.iter().flat_map(|observed| &observed.holdings).filter(|h| aside.contains(&h.member)) {
            usage.rules += holding.rules.len();
            usage.listeners.extend(holding.ports.keys());
        }
        if let Some(observed) = kept {
            let theirs = |rule: &RuleArn| {
                let mut holders = observed.holdings.iter().filter(|holding| aside.contains(&holding.member));
                holders.any(|holding| holding.rules.contains(rule))
            };
            let listeners = observed.load_balancers.iter().flat_map(ObservedLoadBalancer::known_listeners);
            let rules = listeners.flat_map(|listener| &listener.rules).filter(|rule| theirs(&rule.arn));
            let groups = rules.flat_map(|rule| &rule.actions).flat_map(Action::target_groups);
            usage.target_groups.extend(groups.cloned().map(TargetGroupReference::Foreign));
        }
        let mut everybody = usage.clone();
        all.iter().for_each(|part| add(&mut everybody, part, &rules, merged));
        if everybody.over(&Limits::default()).is_none() {
            return Ok(());
        }
        let limits = match &self.facts.limits {
            Some(Fact::Known(limits)) => *limits,
            None if !self.facts.offline => {
                self.findings.wants.insert(Want::Limits);
                return Err(Unmerged::Failed);
            }
            // A plan of files goes by AWS's defaults. What cannot be read now refuses nothing.
            None => Limits::default(),
            _ => Limits::UNKNOWN,
        };
        let in_force = self.in_force()?;
        // What AWS has, it has: only what comes besides can be too much.
        let limits = in_force.map_or(limits, |observed| limits.or_in_force(observed));
        let held: BTreeSet<&ObjectName> =
            in_force.into_iter().flat_map(|observed| &observed.holdings).map(|holding| &holding.member).collect();
        // Without a record (the first pass after a takeover), who has been served is told by the status.
        let served = |part: &Part<'_>| held.is_empty() && !part.member.ingress.status.is_empty();
        let (old, new): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|part| held.contains(part.member.name()) || served(part));
        let mut losers = BTreeSet::new();
        for part in old.into_iter().chain(new) {
            let mut with = usage.clone();
            add(&mut with, part, &rules, merged);
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
            self.error(part.member.name(), Code::Quota, "spec.rules", &message, &fix);
            self.findings.lacking = true;
            losers.insert(part.member.name().clone());
        }
        if losers.is_empty() { Ok(()) } else { Err(Unmerged::SetAside(losers)) }
    }
}

fn add(usage: &mut Usage, part: &Part<'_>, used: &BTreeMap<ObjectName, Used>, merged: &Merged) {
    if let Some(used) = used.get(part.member.name()) {
        usage.rules += used.rules;
        usage.target_groups.extend(used.target_groups.iter().cloned());
    }
    for (port, asked) in &part.ports {
        usage.listeners.insert(*port);
        let Some(merged) = merged.ports.get(port).filter(|port| port.protocol == ListenerProtocol::Https) else {
            continue;
        };
        let others = asked.certificates.iter().filter(|c| Some(*c) != merged.default_certificate.as_ref());
        usage.certificates.extend(others.map(|certificate| (*port, certificate.clone())));
    }
}
