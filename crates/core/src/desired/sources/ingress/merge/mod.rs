//! The merge of the members' specs. If they differ, the current value of the load balancer wins as long as a member
//! requests it; otherwise the first member in the group's order that requests one decides. A member that requests another value gets a
//! diagnostic and is frozen (reference: ingress §1.6, §2, §4.2, §4.3). The rule of each key is in the list of
//! annotations ([`agreement`]).

mod add_ons;
mod agreement;
mod pools;
mod port;
mod redirect;
mod sources;

use std::collections::{BTreeMap, BTreeSet};

use self::agreement::UnitedKey;
pub(super) use self::redirect::has_frozen_listener;
pub(super) use self::sources::{is_everywhere, is_list, open};
use super::{
    Builder, Failed, Member,
    access::Access,
    cause,
    class::{Ownership, ownership},
    frontend::MergedFrontend,
    member_spec::MemberSpec,
};
use crate::{
    api::annotations::registry::ingress::{self as keys, merged},
    diagnostics::Code,
    facts::FactQuery,
    model::{
        AddOns, AddressPools, Attributes, Cause, CertificateArn, IpAddressType, ListenerProtocol, LoadBalancerName,
        MutualAuthentication, ObjectName, ObservedListener, ObservedStack, Scheme, Source, SubnetMapping, Tags,
        TrustStoreArn, Value,
    },
};

/// Values by key, and the cause of each.
pub(super) type Attributed = (Attributes, BTreeMap<String, Cause>);

/// The reason why the members' specs cannot be merged.
pub(super) enum Unmerged {
    /// These members have diagnostics and must be frozen.
    Freeze(BTreeSet<ObjectName>),
    /// A value that concerns all members is unknown or does not exist.
    Failed,
}

impl From<Failed> for Unmerged {
    fn from(_: Failed) -> Self {
        Self::Failed
    }
}

/// The merged request of the group, without routes.
pub(super) struct Merged {
    pub(super) name: Option<LoadBalancerName>,
    pub(super) scheme: Scheme,
    pub(super) subnets: Value<Vec<SubnetMapping>>,
    /// `None` while the shared security group does not exist yet.
    pub(super) access: Option<Access>,
    pub(super) attributes: Attributed,
    pub(super) add_ons: AddOns,
    pub(super) pools: AddressPools,
    pub(super) tags: Tags,
    /// The HTTPS port that all HTTP listeners redirect to.
    pub(super) redirect: Option<u16>,
    /// True if a redirect is requested and none is in force: HTTP stands in for HTTPS, which waits for a certificate.
    pub(super) awaits_https: bool,
    pub(super) ports: BTreeMap<u16, MergedPort>,
    pub(super) frontend: Option<MergedFrontend>,
}

/// The merged request of the group for one listener.
pub(super) struct MergedPort {
    pub(super) protocol: ListenerProtocol,
    pub(super) default_certificate: Option<CertificateArn>,
    pub(super) certificates: BTreeSet<CertificateArn>,
    pub(super) certificates_after_apply: Option<&'static str>,
    pub(super) mutual_authentication: Option<MutualAuthentication<Value<TrustStoreArn>>>,
    pub(super) ssl_policy: Option<String>,
    pub(super) sources: Option<Vec<Source>>,
    pub(super) attributes: Attributed,
    /// The member whose default backend the listener uses.
    pub(super) default_of: Option<ObjectName>,
    pub(super) cause: Cause,
}

/// The attributes that the class of the first member determines.
#[derive(Default)]
pub(super) struct Decided {
    values: BTreeMap<String, String>,
    /// True if the first member is frozen: the load balancer keeps its values for these keys, even if other members
    /// request them.
    stays: bool,
}

impl<'a> Builder<'a> {
    /// Returns the observed state of the group, if it has a load balancer.
    pub(super) fn current(&mut self) -> Result<Option<&'a ObservedStack>, Unmerged> {
        let facts = self.facts;
        if facts.existing.is_none() {
            return Ok(None);
        }
        if facts.current.is_none() {
            self.sink.wants.insert(FactQuery::Current);
            return Err(Unmerged::Failed);
        }
        Ok(facts.current.as_deref())
    }

    /// Returns the observed state if a member is frozen, since the requests of that member are unknown.
    pub(super) fn observed_if_frozen(
        &mut self,
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<Option<&'a ObservedStack>, Unmerged> {
        if frozen.is_empty() { Ok(None) } else { self.current() }
    }

    pub(super) fn merge(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<Merged, Unmerged> {
        let quoted = |text: &dyn std::fmt::Display| format!("`{text}`");
        let scheme = self.merge_exclusive(
            specs,
            merged::SCHEME,
            "the scheme",
            |spec| spec.scheme,
            // While one load balancer replaces another, neither scheme is the current one.
            |observed, scheme| {
                let mut all = observed.load_balancers.iter().peekable();
                all.peek().is_some() && all.all(|balancer| balancer.scheme == *scheme)
            },
            |scheme| quoted(scheme),
        )?;
        let name = self.merge_exclusive(
            specs,
            merged::LOAD_BALANCER_NAME,
            "the load balancer's name",
            |spec| Some(spec.name.as_ref()?.value.clone()),
            |observed, name| observed.load_balancers.first().is_some_and(|b| b.name == name.as_str()),
            |name| quoted(name),
        )?;
        let kind = self.merge_exclusive(
            specs,
            merged::IP_ADDRESS_TYPE,
            "the address type",
            |spec| spec.ip_address_type,
            |observed, kind| observed.load_balancers.first().is_some_and(|b| b.ip_address_type == *kind),
            |kind| quoted(kind),
        )?;
        let retained_kind = self.observed_if_frozen(frozen)?.and_then(|observed| observed.load_balancers.first());
        self.ip_address_type =
            kind.or(retained_kind.map(|balancer| balancer.ip_address_type)).unwrap_or(IpAddressType::Ipv4);
        self.check_sources(specs)?;
        let tags = self.merge_tags(specs)?;
        let (ports, redirect) = self.merge_ports(specs, frozen)?;
        let retained_scheme =
            self.facts.existing.as_ref().filter(|_| !frozen.is_empty()).map(|existing| existing.scheme);
        let scheme = scheme.or(retained_scheme).unwrap_or(self.config.default_scheme);
        self.scheme = scheme;
        self.check_replacement(specs, scheme, name.as_ref(), frozen)?;
        // The first missing fact is reported first. Only the shared security group is created, so it is requested last.
        let access = self.merge_access(specs, frozen);
        let subnets = self.merge_subnets(specs, scheme);
        let of_class = self.first_member(specs, frozen, None)?.map(|first| Decided {
            values: first.params_load_balancer_attributes(),
            stays: self.facts.existing.is_some() && frozen.contains(first.name()),
        });
        let attributes = self.merge_attributes(
            specs,
            merged::LOAD_BALANCER_ATTRIBUTES.into(),
            of_class.unwrap_or_default(),
            |spec| Some(&spec.attributes),
            |observed, key, value| {
                let known = observed.load_balancers.first().and_then(|b| b.attributes.as_ref());
                known.is_some_and(|known| known.get(key).is_some_and(|known| known == value))
            },
        );
        let add_ons = self.merge_add_ons(specs, frozen);
        let pools = self.merge_pools(specs, frozen, scheme);
        let access = match access {
            Ok(access) => Some(access),
            Err(Unmerged::Failed) => None,
            Err(unmerged) => return Err(unmerged),
        };
        let is_managed = access.as_ref().is_some_and(Access::is_managed);
        let frontend = self.merge_frontend(specs, frozen, &ports.keys().copied().collect(), is_managed);
        let (subnets, attributes, add_ons, pools, frontend) = (subnets?, attributes?, add_ons?, pools?, frontend?);
        let awaits_https = redirect.is_none() && specs.iter().any(|spec| spec.redirect.is_some());
        Ok(Merged {
            name,
            scheme,
            subnets,
            access,
            attributes,
            add_ons,
            pools,
            tags,
            redirect,
            awaits_https,
            ports,
            frontend,
        })
    }

    /// Returns the frozen members; `None` for each one whose class cannot be read.
    fn frozen_members<'s>(
        &'s self,
        frozen: &'s BTreeSet<ObjectName>,
    ) -> impl Iterator<Item = Option<Member<'a>>> + use<'s, 'a> {
        let (snapshot, config) = (self.snapshot, self.config);
        self.members.iter().filter(move |member| frozen.contains(member.name())).map(move |member| {
            let is_broken = matches!(ownership(member.ingress, snapshot, config), Ownership::Broken(_));
            (!is_broken).then_some(*member)
        })
    }

    /// Returns the first member of the group that contributes to the load balancer, or to its listener on a port: its
    /// class determines the attributes there. The member may be frozen.
    fn first_member(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
        port: Option<u16>,
    ) -> Result<Option<Member<'a>>, Unmerged> {
        let member_resources =
            self.observed_if_frozen(frozen)?.map_or(&[][..], |observed| observed.member_resources.as_slice());
        let asks = |member: &Member<'_>| {
            let mut its = specs.iter().filter(|spec| spec.member.name() == member.name());
            its.any(|spec| port.is_none_or(|port| spec.ports.contains_key(&port)))
        };
        // If no resources are recorded for any member, a frozen one may own everything.
        let has = |member: &Member<'_>| {
            let mut its =
                member_resources.iter().filter(|resources| resources.member.as_ingress() == Some(member.name()));
            frozen.contains(member.name())
                && (member_resources.is_empty()
                    || its.any(|held| port.is_none_or(|port| held.ports.contains_key(&port))))
        };
        Ok(self.members.iter().find(|member| asks(member) || has(member)).copied())
    }

    /// Returns the attributes of all members, merged by key, and the cause of each. The decided values win, and the
    /// members need not agree on them.
    fn merge_attributes(
        &mut self,
        specs: &[MemberSpec<'a>],
        key: UnitedKey<'_>,
        decided: Decided,
        of: impl for<'p> Fn(&'p MemberSpec<'a>) -> Option<&'p Attributes>,
        is_current: impl Fn(&ObservedStack, &str, &str) -> bool,
    ) -> Result<Attributed, Unmerged> {
        let mut values: Attributes = self.merge_by_key(
            specs,
            key,
            |name: &String| format!("`{name}`"),
            |spec| {
                let requested = of(spec).into_iter().flatten();
                let open = requested.filter(|(name, _)| !decided.values.contains_key(*name));
                open.map(|(name, value)| (name.clone(), value.clone())).collect()
            },
            |observed, name, value| is_current(observed, name, value),
        )?;
        let mut causes = BTreeMap::new();
        for name in values.keys().filter(|_| specs.len() > 1) {
            let asks = specs.iter().find(|spec| of(spec).is_some_and(|map| map.contains_key(name)));
            causes.extend(asks.map(|spec| (name.clone(), cause(spec.member.ingress, key.written().to_string()))));
        }
        values.extend(Some(decided.values).filter(|_| !decided.stays).unwrap_or_default());
        Ok((values, causes))
    }

    /// Returns the tags of all members, merged by key.
    fn merge_tags(&mut self, specs: &[MemberSpec<'a>]) -> Result<Tags, Unmerged> {
        self.merge_by_key(
            specs,
            merged::TAGS.into(),
            |key| format!("`{key}`"),
            |spec| spec.tags.clone(),
            |observed, key, value| observed.load_balancers.first().is_some_and(|b| b.tags.get(key) == Some(value)),
        )
    }

    fn merge_ports(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<(BTreeMap<u16, MergedPort>, Option<u16>), Unmerged> {
        let ports = self.merge_by_port(
            specs,
            merged::LISTEN_PORTS.into(),
            |port| format!("the protocol of port {port}"),
            |spec| spec.ports.iter().map(|(port, requested)| (*port, requested.protocol)).collect(),
            |observed, port, protocol| {
                observed.load_balancers.first().and_then(|b| b.listener(*port)).and_then(|l| l.protocol)
                    == Some(*protocol)
            },
        )?;
        self.need_certificates(specs, &ports)?;
        let redirect = self.merge_redirect(specs, frozen, &ports)?;
        let mut merged = BTreeMap::new();
        for (port, protocol) in ports {
            let redirected = redirect.is_some() && protocol == ListenerProtocol::Http;
            merged.insert(port, self.merge_port(specs, frozen, port, protocol, redirected)?);
        }
        Ok((merged, redirect))
    }

    /// Reports each HTTPS listener for which no member has a certificate.
    fn need_certificates(
        &mut self,
        specs: &[MemberSpec<'a>],
        ports: &BTreeMap<u16, ListenerProtocol>,
    ) -> Result<(), Unmerged> {
        let mut requesters = BTreeSet::new();
        for port in ports.iter().filter(|(_, protocol)| **protocol == ListenerProtocol::Https).map(|(port, _)| port) {
            let on_port = || specs.iter().filter_map(|spec| Some((spec.member.name(), spec.ports.get(port)?)));
            if on_port().any(|(_, requested)| {
                !requested.certificates.is_empty() || requested.certificates_after_apply.is_some()
            }) {
                continue;
            }
            let message = format!("the HTTPS listener on port {port} has no certificate");
            let fix = "name one or more by ARN, or hosts in spec.rules or spec.tls for which ACM has issued some";
            for (member, _) in on_port() {
                self.error(member, Code::MissingCertificate, keys::CERTIFICATE_ARN.as_str(), &message, fix);
                requesters.insert(member.clone());
            }
        }
        if requesters.is_empty() { Ok(()) } else { Err(Unmerged::Freeze(requesters)) }
    }
}

fn in_listener(observed: &ObservedStack, port: u16, holds: impl Fn(&ObservedListener) -> bool) -> bool {
    observed.load_balancers.first().and_then(|balancer| balancer.listener(port)).is_some_and(holds)
}
