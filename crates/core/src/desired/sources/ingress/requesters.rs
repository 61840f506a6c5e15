//! The requesters of each common setting of a group: AWS's refusals are attributed to them.

use crate::api::annotations::{Key, registry::ingress as keys};
use std::collections::BTreeSet;

use super::{Builder, cause, member_spec::MemberSpec, merge::Merged};
use crate::model::{Cause, ObjectName, Requesters, Source};

impl<'a> Builder<'a> {
    /// Returns the requesters of each setting. Of several members that request the same, it is one that has no resources of
    /// the load balancer yet, where that is known: it brought the value. Empty if there is only one spec, because it
    /// requests everything.
    pub(super) fn requesters(&self, specs: &[MemberSpec<'a>], merged: &Merged) -> Requesters {
        let mut requesters = Requesters::default();
        if specs.len() < 2 {
            return requesters;
        }
        let member_resources = self.facts.current.iter().flat_map(|observed| &observed.member_resources);
        let held: BTreeSet<&ObjectName> =
            member_resources.filter_map(|resources| resources.member.as_ingress()).collect();
        let mut specs: Vec<&MemberSpec<'a>> = specs.iter().collect();
        let is_old =
            |spec: &MemberSpec<'a>| held.contains(spec.member.name()) || self.is_served_here(spec.member.ingress);
        specs.sort_by_key(|spec| is_old(spec));
        let of = |spec: &MemberSpec<'a>, key: Key| cause(spec.member.ingress, key.as_str());
        let first = |key: Key, asks: &dyn Fn(&MemberSpec<'a>) -> bool| -> Option<Cause> {
            specs.iter().find(|spec| asks(spec)).map(|spec| of(spec, key))
        };
        requesters.subnets = first(keys::SUBNETS, &|spec| spec.subnets.is_some());
        requesters.security_groups = first(keys::SECURITY_GROUPS, &|spec| spec.security_groups.is_some());
        requesters.ip_address_type = first(keys::IP_ADDRESS_TYPE, &|spec| spec.ip_address_type.is_some());
        requesters.ipam_pool = first(keys::IPAM_IPV4_POOL_ID, &|spec| spec.ipam_pool.is_some());
        for spec in &specs {
            for key in spec.tags.keys() {
                requesters.tags.entry(key.clone()).or_insert_with(|| of(spec, keys::TAGS));
            }
        }
        for (port, of_port) in &merged.ports {
            let on_port = || specs.iter().filter_map(|spec| Some((*spec, spec.ports.get(port)?)));
            if let Some((spec, _)) = on_port().find(|(_, requested)| requested.ssl_policy.is_some()) {
                requesters.ssl_policy.insert(*port, of(spec, keys::SSL_POLICY));
            }
            if let Some((spec, _)) = on_port().find(|(_, requested)| requested.mutual_authentication.is_some()) {
                requesters.mutual_authentication.insert(*port, of(spec, keys::MUTUAL_AUTHENTICATION));
            }
            if let Some((spec, _)) = on_port().find(|(spec, _)| of_port.default_of.as_ref() == Some(spec.member.name()))
            {
                requesters.default_action.insert(*port, cause(spec.member.ingress, "spec.defaultBackend"));
            }
            if let Some((spec, _)) = on_port().find(|(spec, _)| !is_old(spec)) {
                let listens = spec.member.ingress.annotations.contains_key(keys::LISTEN_PORTS.as_str());
                let cause = if listens { of(spec, keys::LISTEN_PORTS) } else { cause(spec.member.ingress, "spec") };
                requesters.listeners.insert(*port, cause);
            }
            let default = of_port.default_certificate.as_ref();
            let asks = on_port()
                .find(|(_, requested)| default.is_some_and(|default| requested.certificates.contains(default)));
            if let Some((spec, _)) = asks {
                requesters.default_certificate.insert(*port, of(spec, keys::CERTIFICATE_ARN));
            }
            for (spec, requested) in on_port() {
                for source in requested.sources.iter().flatten() {
                    if let Source::PrefixList(list) = source {
                        let requester = || of(spec, keys::SECURITY_GROUP_PREFIX_LISTS);
                        requesters.prefix_lists.entry((*port, list.clone())).or_insert_with(requester);
                    }
                }
            }
        }
        requesters
    }
}
