//! The members that ask for each common setting of a group: AWS's refusals are charged to them.

use std::collections::BTreeSet;

use super::{Builder, cause, merge::Merged, part::Part};
use crate::{
    api::annotations::INGRESS_PREFIX,
    model::{Askers, Cause, ObjectName, Source},
};

impl<'a> Builder<'a> {
    /// Returns who asks for what. Of several that ask for the same it is one that has nothing of the load balancer yet, where that is
    /// known: it brought the value. A member alone asks for everything.
    pub(super) fn askers(&self, parts: &[Part<'a>], merged: &Merged) -> Askers {
        let mut askers = Askers::default();
        if parts.len() < 2 {
            return askers;
        }
        let holdings = self.facts.in_force.iter().flat_map(|observed| &observed.holdings);
        let held: BTreeSet<&ObjectName> = holdings.map(|holding| &holding.member).collect();
        let mut parts: Vec<&Part<'a>> = parts.iter().collect();
        let is_old = |part: &Part<'a>| held.contains(part.member.name()) || self.is_served_here(part.member.ingress);
        parts.sort_by_key(|part| is_old(part));
        let of = |part: &Part<'a>, name: &str| cause(part.member.ingress, format!("{INGRESS_PREFIX}{name}"));
        let first = |name: &str, asks: &dyn Fn(&Part<'a>) -> bool| -> Option<Cause> {
            parts.iter().find(|part| asks(part)).map(|part| of(part, name))
        };
        askers.subnets = first("subnets", &|part| part.subnets.is_some());
        askers.security_groups = first("security-groups", &|part| part.security_groups.is_some());
        askers.ip_address_type = first("ip-address-type", &|part| part.ip_address_type.is_some());
        for part in &parts {
            for key in part.tags.keys() {
                askers.tags.entry(key.clone()).or_insert_with(|| of(part, "tags"));
            }
        }
        for (port, of_port) in &merged.ports {
            let on_port = || parts.iter().filter_map(|part| Some((*part, part.ports.get(port)?)));
            if let Some((part, _)) = on_port().find(|(_, asked)| asked.ssl_policy.is_some()) {
                askers.ssl_policy.insert(*port, of(part, "ssl-policy"));
            }
            if let Some((part, _)) = on_port().find(|(_, asked)| asked.mutual_authentication.is_some()) {
                askers.mutual_authentication.insert(*port, of(part, "mutual-authentication"));
            }
            if let Some((part, _)) = on_port().find(|(part, _)| of_port.default_of.as_ref() == Some(part.member.name()))
            {
                askers.default_action.insert(*port, cause(part.member.ingress, "spec.defaultBackend"));
            }
            if let Some((part, _)) = on_port().find(|(part, _)| !is_old(part)) {
                let listens = part.member.ingress.annotations.contains_key(&format!("{INGRESS_PREFIX}listen-ports"));
                let cause = if listens { of(part, "listen-ports") } else { cause(part.member.ingress, "spec") };
                askers.listeners.insert(*port, cause);
            }
            let default = of_port.default_certificate.as_ref();
            let asks = on_port().find(|(_, asked)| default.is_some_and(|default| asked.certificates.contains(default)));
            if let Some((part, _)) = asks {
                askers.default_certificate.insert(*port, of(part, "certificate-arn"));
            }
            for (part, asked) in on_port() {
                for source in asked.sources.iter().flatten() {
                    if let Source::PrefixList(list) = source {
                        let asker = || of(part, "security-group-prefix-lists");
                        askers.prefix_lists.entry((*port, list.clone())).or_insert_with(asker);
                    }
                }
            }
        }
        askers
    }
}
