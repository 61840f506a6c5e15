//! The merge of the members' specs. Where they differ, the current value of the load balancer wins as long as a member asks
//! for it; among newcomers the group's order decides. A member that asks for another value gets a diagnostic and is frozen
//! (reference: ingress §1.6, §2, §4.2, §4.3).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Builder, Failed, Member,
    access::Access,
    cause,
    class::{Ownership, ownership},
    is_of,
    member_spec::{MemberSpec, PortSpec},
    settings::Sourced,
};
use crate::{
    api::annotations::{Key, WrittenKey, registry::ingress as keys},
    diagnostics::{Code, Severity},
    facts::FactQuery,
    model::{
        Action, Attributes, Cause, CertificateArn, IpAddressType, ListenerProtocol, LoadBalancerName,
        MutualAuthentication, ObjectName, ObservedListener, ObservedStack, Scheme, Source, SubnetMapping,
        TrustStoreArn, Value,
    },
};

/// Values by key, with the requester of each.
pub(super) type Attributed = (Attributes, BTreeMap<String, Cause>);

/// The reason why parts cannot be merged.
pub(super) enum Unmerged {
    /// Because of these members, which have diagnostics.
    Freeze(BTreeSet<ObjectName>),
    /// A value that concerns all members is not known, or does not exist.
    Failed,
}

impl From<Failed> for Unmerged {
    fn from(_: Failed) -> Self {
        Self::Failed
    }
}

/// The settings that the group asks for, without routes.
pub(super) struct Merged {
    pub(super) name: Option<LoadBalancerName>,
    pub(super) scheme: Scheme,
    pub(super) subnets: Value<Vec<SubnetMapping>>,
    /// `None` while the shared security group is still to be made.
    pub(super) access: Option<Access>,
    pub(super) attributes: Attributed,
    /// The HTTPS port that all HTTP listeners redirect to.
    pub(super) redirect: Option<u16>,
    pub(super) ports: BTreeMap<u16, MergedPort>,
}

/// The settings that the group asks for on one listener.
pub(super) struct MergedPort {
    pub(super) protocol: ListenerProtocol,
    pub(super) default_certificate: Option<CertificateArn>,
    pub(super) certificates: BTreeSet<CertificateArn>,
    pub(super) certificates_after_apply: Option<&'static str>,
    pub(super) mutual_authentication: Option<MutualAuthentication<Value<TrustStoreArn>>>,
    pub(super) ssl_policy: Option<String>,
    pub(super) sources: Option<Vec<Source>>,
    pub(super) attributes: Attributed,
    /// The member whose default backend it has.
    pub(super) default_of: Option<ObjectName>,
    pub(super) cause: Cause,
}

/// Values that the class of the first member decides.
#[derive(Default)]
pub(super) struct Decided {
    values: BTreeMap<String, String>,
    /// True if that member is frozen: the load balancer keeps its values for these keys, whichever other members ask for them.
    stays: bool,
}

/// The place of a setting on an Ingress.
#[derive(Clone, Copy)]
pub(super) enum Field<'s> {
    Annotation(WrittenKey<'s>),
    /// A field of the Ingress, by its path.
    Path(&'static str),
}

impl From<Key> for Field<'_> {
    fn from(key: Key) -> Self {
        Self::Annotation(key.into())
    }
}

/// A setting that all members have in common.
pub(super) struct Setting<'s> {
    pub(super) field: Field<'s>,
    /// The name of the setting for people, with its article.
    pub(super) what: &'s str,
}

impl<'a> Builder<'a> {
    /// Returns the observed stack of the group, where there is a load balancer.
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

    /// Returns the observed stack, where a member is frozen whose settings are not known.
    pub(super) fn observed_if_frozen(
        &mut self,
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<Option<&'a ObservedStack>, Unmerged> {
        if frozen.is_empty() { Ok(None) } else { self.current() }
    }

    /// The value that those who ask for one agree on.
    pub(super) fn agree<T: Clone + PartialEq>(
        &mut self,
        specs: &[MemberSpec<'a>],
        setting: &Setting<'_>,
        requested: impl Fn(&MemberSpec<'a>) -> Option<T>,
        is_current: impl Fn(&ObservedStack, &T) -> bool,
        show: impl Fn(&T) -> String,
    ) -> Result<Option<T>, Unmerged> {
        let all: Vec<(&MemberSpec<'a>, T)> = specs.iter().filter_map(|spec| Some((spec, requested(spec)?))).collect();
        let Some(first) = all.first() else { return Ok(None) };
        if all.iter().all(|(_, other)| *other == first.1) {
            return Ok(Some(first.1.clone()));
        }
        let held = self.current()?.and_then(|observed| all.iter().find(|(_, value)| is_current(observed, value)));
        let (winner, value) = held.unwrap_or(first);
        let reason = match held {
            Some(_) => {
                format!("which the load balancer of the group has, and Ingress {} requests", winner.member.name())
            }
            None => format!("requested by Ingress {}, the first of the group", first.0.member.name()),
        };
        let (field, key) = match setting.field {
            Field::Annotation(written) => (written.to_string(), Some(written.key())),
            Field::Path(path) => (path.to_owned(), None),
        };
        let mut to_freeze = BTreeSet::new();
        for (spec, other) in all.iter().filter(|(_, other)| other != value) {
            let place = key.and_then(|key| spec.member.place_in_class(key));
            let message = format!(
                "{} should be {}, but a group has only one: {}, {reason}",
                setting.what,
                show(other),
                show(value)
            );
            let fix =
                "make them agree, or put this Ingress in another group; until then nothing of this Ingress changes";
            match place {
                Some(place) => {
                    self.wrong(spec.member.ingress, Code::Conflict, &place, Severity::Error, &message, fix);
                }
                None => drop(self.error(spec.member.name(), Code::Conflict, &field, &message, fix)),
            }
            to_freeze.insert(spec.member.name().clone());
        }
        Err(Unmerged::Freeze(to_freeze))
    }

    pub(super) fn merge(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<Merged, Unmerged> {
        let quoted = |text: &dyn std::fmt::Display| format!("`{text}`");
        let scheme = self.agree(
            specs,
            &Setting { field: keys::SCHEME.into(), what: "the scheme" },
            |spec| spec.scheme,
            // While one replaces the other, none is current.
            |observed, scheme| {
                let mut all = observed.load_balancers.iter().peekable();
                all.peek().is_some() && all.all(|balancer| balancer.scheme == *scheme)
            },
            |scheme| quoted(scheme),
        )?;
        let name = self.agree(
            specs,
            &Setting { field: keys::LOAD_BALANCER_NAME.into(), what: "the load balancer's name" },
            |spec| Some(spec.name.as_ref()?.value.clone()),
            |observed, name| observed.load_balancers.first().is_some_and(|b| b.name == name.as_str()),
            |name| quoted(name),
        )?;
        let kind = self.agree(
            specs,
            &Setting { field: keys::IP_ADDRESS_TYPE.into(), what: "the address type" },
            |spec| spec.ip_address_type,
            |observed, kind| observed.load_balancers.first().is_some_and(|b| b.ip_address_type == *kind),
            |kind| quoted(kind),
        )?;
        let retained_kind = self.observed_if_frozen(frozen)?.and_then(|observed| observed.load_balancers.first());
        self.ip_address_type =
            kind.or(retained_kind.map(|balancer| balancer.ip_address_type)).unwrap_or(IpAddressType::Ipv4);
        self.check_sources(specs)?;
        let (ports, redirect) = self.merge_ports(specs, frozen)?;
        let retained_scheme =
            self.facts.existing.as_ref().filter(|_| !frozen.is_empty()).map(|existing| existing.scheme);
        let scheme = scheme.or(retained_scheme).unwrap_or(self.config.default_scheme);
        self.scheme = scheme;
        self.check_replacement(specs, scheme, name.as_ref(), frozen)?;
        // The first request is reported first; only the shared security group is created, and so asked for last.
        let access = self.merge_access(specs, frozen);
        let subnets = self.merge_subnets(specs, scheme);
        let of_class = self.first_member(specs, frozen, None)?.map(|first| Decided {
            values: first.params_load_balancer_attributes(),
            stays: self.facts.existing.is_some() && frozen.contains(first.name()),
        });
        let attributes = self.merge_maps(
            specs,
            keys::LOAD_BALANCER_ATTRIBUTES.into(),
            of_class.unwrap_or_default(),
            |spec| Some(&spec.attributes),
            |observed, key, value| {
                let known = observed.load_balancers.first().and_then(|b| b.attributes.as_ref());
                known.is_some_and(|known| known.get(key).is_some_and(|known| known == value))
            },
        );
        let access = match access {
            Ok(access) => Some(access),
            Err(Unmerged::Failed) => None,
            Err(unmerged) => return Err(unmerged),
        };
        Ok(Merged { name, scheme, subnets: subnets?, access, attributes: attributes?, redirect, ports })
    }

    /// Returns the frozen members, `None` for one whose class cannot be read.
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

    /// Returns the first member of the group that has something of the load balancer, or of its listener on a port: its class gives
    /// the attributes of it. It may be frozen.
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

    /// Maps of all members, united key by key, with the requester of each. Decided keys win, and no member has to agree on them.
    pub(super) fn merge_maps(
        &mut self,
        specs: &[MemberSpec<'a>],
        field: WrittenKey<'_>,
        decided: Decided,
        of: impl for<'p> Fn(&'p MemberSpec<'a>) -> Option<&'p BTreeMap<String, String>>,
        is_current: impl Fn(&ObservedStack, &str, &str) -> bool,
    ) -> Result<Attributed, Unmerged> {
        let keys = specs.iter().filter_map(&of).flat_map(BTreeMap::keys);
        let keys: BTreeSet<&String> = keys.filter(|key| !decided.values.contains_key(*key)).collect();
        let (mut values, mut causes) = (BTreeMap::new(), BTreeMap::new());
        for key in keys {
            let what = format!("`{key}`");
            let value = self.agree(
                specs,
                &Setting { field: Field::Annotation(field), what: &what },
                |spec| of(spec)?.get(key).cloned(),
                |observed, value| is_current(observed, key, value),
                |value| format!("`{value}`"),
            )?;
            let asks = specs.iter().find(|spec| of(spec).is_some_and(|map| map.contains_key(key)));
            if let (Some(value), Some(spec)) = (value, asks) {
                values.insert(key.clone(), value);
                if specs.len() > 1 {
                    causes.insert(key.clone(), cause(spec.member.ingress, field.to_string()));
                }
            }
        }
        values.extend(Some(decided.values).filter(|_| !decided.stays).unwrap_or_default());
        Ok((values, causes))
    }

    /// The tags of all, united key by key.
    pub(super) fn merge_tags(&mut self, specs: &[MemberSpec<'a>]) -> Result<BTreeMap<String, String>, Unmerged> {
        let current = |observed: &ObservedStack, key: &str, value: &str| {
            observed.load_balancers.first().is_some_and(|b| b.tags.get(key).is_some_and(|known| known == value))
        };
        self.merge_maps(specs, keys::TAGS.into(), Decided::default(), |spec| Some(&spec.tags), current)
            .map(|(tags, _)| tags)
    }

    fn merge_ports(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<(BTreeMap<u16, MergedPort>, Option<u16>), Unmerged> {
        self.merge_tags(specs)?;
        let numbers: BTreeSet<u16> = specs.iter().flat_map(|spec| spec.ports.keys().copied()).collect();
        let mut ports = BTreeMap::new();
        for port in numbers {
            let protocol = self.agree(
                specs,
                &Setting { field: keys::LISTEN_PORTS.into(), what: &format!("the protocol of port {port}") },
                |spec| spec.ports.get(&port).map(|spec| spec.protocol),
                |observed, protocol| {
                    observed.load_balancers.first().and_then(|b| b.listener(port)).and_then(|l| l.protocol)
                        == Some(*protocol)
                },
                |protocol| format!("`{protocol}`"),
            )?;
            if let Some(protocol) = protocol {
                ports.insert(port, protocol);
            }
        }
        self.need_certificates(specs, &ports)?;
        let redirect = self.merge_redirect(specs, frozen, &ports)?;
        let mut merged = BTreeMap::new();
        for (port, protocol) in ports {
            let redirected = redirect.is_some() && protocol == ListenerProtocol::Http;
            merged.insert(port, self.merge_port(specs, frozen, port, protocol, redirected)?);
        }
        Ok((merged, redirect))
    }

    /// An HTTPS listener needs a certificate, from any member.
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

    fn merge_redirect(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
        ports: &BTreeMap<u16, ListenerProtocol>,
    ) -> Result<Option<u16>, Unmerged> {
        let leads_to = |observed: &ObservedStack, port: &i32| {
            let mut defaults =
                observed.load_balancers.iter().flat_map(|b| b.known_listeners()).flat_map(|l| &l.default_actions);
            defaults.any(|action| matches!(action, Action::Redirect { port: Some(to), .. } if *to == port.to_string()))
        };
        let requested = self.agree(
            specs,
            &Setting { field: keys::SSL_REDIRECT.into(), what: "the port to redirect to" },
            |spec| Some(spec.redirect.as_ref()?.value),
            leads_to,
            ToString::to_string,
        )?;
        let retained = self.observed_if_frozen(frozen)?;
        // A listener that only a frozen member has is there as well.
        let is_secure = |port: &u16| match ports.get(port) {
            Some(protocol) => *protocol == ListenerProtocol::Https,
            None => retained.is_some_and(|o| {
                in_listener(o, *port, |l| l.protocol == Some(ListenerProtocol::Https))
                    && has_frozen_listener(o, frozen, *port)
            }),
        };
        let Some(port) = requested else {
            // Plain requests are not served only because the member that redirects them is frozen.
            let may_redirect = |member: &Member<'_>| member.ssl_redirect().map_or(true, |redirect| redirect.is_some());
            let somebody = self.frozen_members(frozen).any(|member| member.is_none_or(|member| may_redirect(&member)));
            return Ok(retained.and_then(current_redirect).filter(|port| somebody && is_secure(port)));
        };
        if let Some(port) = u16::try_from(port).ok().filter(is_secure) {
            return Ok(Some(port));
        }
        let alone = specs.len() == 1;
        let whose = if alone { "this Ingress" } else { "this group" };
        let message = format!("requests are redirected to port {port}, which is not an HTTPS listener of {whose}");
        let fix = format!("add {{\"HTTPS\": {port}}} to `{}`, or name one of its HTTPS ports", keys::LISTEN_PORTS);
        let mut requesters = BTreeSet::new();
        for (spec, requested) in specs.iter().filter_map(|spec| Some((spec, spec.redirect.as_ref()?))) {
            self.wrong(spec.member.ingress, Code::InvalidValue, &requested.place, Severity::Error, &message, &fix);
            requesters.insert(spec.member.name().clone());
        }
        Err(Unmerged::Freeze(requesters))
    }

    /// The sources of one annotation that those who give it agree on: ranges and prefix lists are compared apart.
    fn agree_on_sources(
        &mut self,
        specs: &[MemberSpec<'a>],
        port: u16,
        key: Key,
        of_field: impl Fn(&Source) -> bool,
    ) -> Result<Option<BTreeSet<Source>>, Unmerged> {
        self.agree(
            specs,
            &Setting { field: key.into(), what: &format!("the access to port {port}") },
            |spec| {
                let sources = spec.ports.get(&port)?.sources.iter().flatten();
                let sources: BTreeSet<Source> = sources.filter(|source| of_field(source)).cloned().collect();
                Some(sources).filter(|sources| !sources.is_empty())
            },
            |observed, sources| {
                open(observed, port).into_iter().filter(|source| of_field(source)).collect::<BTreeSet<_>>() == *sources
            },
            |sources| sources.iter().map(|source| format!("`{source}`")).collect::<Vec<_>>().join(", "),
        )
    }

    /// Warns members that restrict the sources of a port of further sources, as long as a frozen member may ask for those.
    fn warn_of_retained_sources(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
        port: u16,
        other_sources: &BTreeSet<Source>,
    ) {
        if other_sources.is_empty() {
            return;
        }
        let list = |items: Vec<String>| items.join(", ");
        let message = format!(
            "port {port} also stays open to {}, which {} may ask for and which cannot be built at the moment",
            list(other_sources.iter().map(|source| format!("`{source}`")).collect()),
            list(frozen.iter().map(|member| format!("Ingress {member}")).collect())
        );
        let fix = "fix that Ingress; then the port is open only to the sources that a member asks for";
        for spec in specs.iter().filter(|spec| spec.ports.contains_key(&port)) {
            let Some(Sourced { place, .. }) = &spec.sources else { continue };
            self.wrong(spec.member.ingress, Code::Conflict, place, Severity::Warning, &message, fix);
        }
    }

    fn merge_port(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
        port: u16,
        protocol: ListenerProtocol,
        redirected: bool,
    ) -> Result<MergedPort, Unmerged> {
        fn of<'p>(spec: &'p MemberSpec<'_>, port: u16) -> Option<&'p PortSpec> {
            spec.ports.get(&port)
        }
        let tls = protocol == ListenerProtocol::Https;
        let policy = self.agree(
            specs,
            &Setting { field: keys::SSL_POLICY.into(), what: &format!("the TLS policy of port {port}") },
            |spec| of(spec, port)?.ssl_policy.clone(),
            |observed, policy| in_listener(observed, port, |l| l.ssl_policy.as_ref() == Some(policy)),
            |policy| format!("`{policy}`"),
        )?;
        let mutual_authentication = self.agree(
            specs,
            &Setting {
                field: keys::MUTUAL_AUTHENTICATION.into(),
                what: &format!("the mutual authentication on port {port}"),
            },
            |spec| of(spec, port)?.mutual_authentication.clone(),
            |observed, clients| {
                let clients = clients.try_map(|arn| arn.known().cloned().ok_or(())).ok();
                in_listener(observed, port, |listener| listener.mutual_authentication == clients)
            },
            |clients| format!("`{clients}`"),
        )?;
        let ranges = self.agree_on_sources(specs, port, keys::INBOUND_CIDRS, |source| !is_list(source))?;
        let lists = self.agree_on_sources(specs, port, keys::SECURITY_GROUP_PREFIX_LISTS, is_list)?;
        let of_class = self.first_member(specs, frozen, Some(port))?.map(|first| Decided {
            values: first.params_listener_attributes(protocol, port),
            stays: self.facts.existing.is_some() && frozen.contains(first.name()),
        });
        let attributes = self.merge_maps(
            specs,
            keys::LISTENER_ATTRIBUTES.with(&format!("{protocol}-{port}")),
            of_class.unwrap_or_default(),
            |spec| of(spec, port).map(|spec| &spec.attributes),
            |observed, key, value| {
                in_listener(observed, port, |listener| {
                    let known = listener.attributes.as_ref().and_then(|known| known.get(key));
                    known.is_some_and(|known| known == value)
                })
            },
        )?;
        let default_of = if redirected {
            None
        } else {
            self.agree(
                specs,
                &Setting {
                    field: Field::Path("spec.defaultBackend"),
                    what: &format!("the default backend of port {port}"),
                },
                |spec| {
                    of(spec, port).and(spec.member.ingress.default_backend.as_ref()).map(|_| spec.member.name().clone())
                },
                |observed, member| {
                    let holds = |resources: &crate::model::MemberResources| {
                        resources.member.as_ingress() == Some(member)
                            && resources.ports.get(&port).is_some_and(|held| held.default_action)
                    };
                    observed.member_resources.iter().any(holds)
                },
                |member| format!("that of Ingress {member}"),
            )?
        };
        let on_port = || specs.iter().filter(|spec| spec.ports.contains_key(&port));
        let certified = on_port().find(|spec| of(spec, port).is_some_and(|spec| !spec.certificates.is_empty()));
        let all: BTreeSet<CertificateArn> =
            on_port().filter_map(|spec| of(spec, port)).flat_map(|spec| spec.certificates.iter().cloned()).collect();
        let certificates_after_apply = on_port().find_map(|spec| of(spec, port)?.certificates_after_apply);
        let first = on_port().next().ok_or(Unmerged::Failed)?;
        let retained = self.observed_if_frozen(frozen)?;
        let current = retained.and_then(|observed| observed.load_balancers.first()).and_then(|b| b.listener(port));
        // The default certificate of a frozen member stays the default.
        let held_default = current.and_then(|listener| listener.default_certificate.clone()).filter(|certificate| {
            let mut holders = retained.iter().flat_map(|observed| &observed.member_resources).filter(|resources| {
                resources.ports.get(&port).is_some_and(|held| held.certificates.contains(certificate))
            });
            !all.contains(certificate) && holders.all(|resources| is_of(resources, frozen))
        });
        let default_certificate =
            held_default.or_else(|| certified.and_then(|spec| of(spec, port)?.certificates.first().cloned()));
        let certificates = all.into_iter().filter(|c| Some(c) != default_certificate.as_ref()).collect();
        let retained_policy = current.and_then(|listener| listener.ssl_policy.clone()).filter(|_| tls);
        let field = match first.member.ingress.annotations.contains_key(keys::LISTEN_PORTS.as_str()) {
            true => keys::LISTEN_PORTS.as_str().to_owned(),
            false => "spec".to_owned(),
        };
        // A frozen member may have asked for the open sources. If a member that is served restricts the sources, no more than
        // that is kept: neither sources that no member asks for, nor access for all because another member restricts nothing.
        let said = ranges.is_some() || lists.is_some();
        let named: Option<Vec<Vec<Source>>> =
            self.frozen_members(frozen).map(|member| member.and_then(|member| member.named_sources())).collect();
        let may_be_asked = |source: &Source| match &named {
            Some(named) => named.iter().flatten().any(|requested| requested == source),
            None => !is_everywhere(source),
        };
        let retained_sources = |lists: bool| {
            let open = retained.map(|observed| open(observed, port)).unwrap_or_default();
            let stays = |source: &Source| is_list(source) == lists && (!said || may_be_asked(source));
            let sources: BTreeSet<Source> = open.into_iter().filter(stays).collect();
            Some(sources).filter(|sources| !sources.is_empty())
        };
        let other_sources: BTreeSet<Source> = match (&ranges, &lists) {
            (Some(_), None) => retained_sources(true).unwrap_or_default(),
            (None, Some(_)) => retained_sources(false).unwrap_or_default(),
            _ => BTreeSet::new(),
        };
        let (ranges, lists) = (ranges.or_else(|| retained_sources(false)), lists.or_else(|| retained_sources(true)));
        self.warn_of_retained_sources(specs, frozen, port, &other_sources);
        let in_order = |sources: BTreeSet<Source>| {
            // As the member that asks for them writes them.
            let requested = on_port().filter_map(|spec| of(spec, port)?.sources.as_ref()).flatten();
            let mut ordered: Vec<Source> = Vec::new();
            for source in requested.chain(&sources).filter(|source| sources.contains(source)) {
                if !ordered.contains(source) {
                    ordered.push(source.clone());
                }
            }
            ordered
        };
        let sources = match (ranges, lists) {
            (None, None) => None,
            (ranges, lists) => Some(in_order(ranges.into_iter().chain(lists).flatten().collect())),
        };
        Ok(MergedPort {
            protocol,
            default_certificate: default_certificate.filter(|_| tls),
            certificates,
            certificates_after_apply,
            mutual_authentication,
            ssl_policy: tls
                .then(|| policy.or(retained_policy).unwrap_or_else(|| self.config.default_ssl_policy.clone())),
            sources,
            attributes,
            default_of,
            cause: cause(certified.unwrap_or(first).member.ingress, field),
        })
    }
}

fn is_list(source: &Source) -> bool {
    matches!(source, Source::PrefixList(_))
}

fn in_listener(observed: &ObservedStack, port: u16, holds: impl Fn(&crate::model::ObservedListener) -> bool) -> bool {
    observed.load_balancers.first().and_then(|balancer| balancer.listener(port)).is_some_and(holds)
}

/// Returns true if the plan keeps a listener that no part asks for: a frozen member has it, or it is recorded for none.
fn has_frozen_listener(observed: &ObservedStack, frozen: &BTreeSet<ObjectName>, port: u16) -> bool {
    let mut holders =
        observed.member_resources.iter().filter(|resources| resources.ports.contains_key(&port)).peekable();
    holders.peek().is_none() || holders.any(|resources| is_of(resources, frozen))
}

/// Returns true for a range of all addresses.
fn is_everywhere(source: &Source) -> bool {
    matches!(source, Source::Ipv4(range) | Source::Ipv6(range) if range.ends_with("/0"))
}

/// The port that all HTTP listeners of the load balancer redirect to, without serving anything, where it answers.
fn current_redirect(observed: &ObservedStack) -> Option<u16> {
    let listeners = observed.load_balancers.first()?.known_listeners();
    let mut plain = listeners.filter(|listener| listener.protocol == Some(ListenerProtocol::Http));
    let leads_to = |listener: &ObservedListener| match listener.default_actions.as_slice() {
        [Action::Redirect { protocol: Some(protocol), port: Some(port), .. }]
            if protocol == "HTTPS" && listener.rules.is_empty() =>
        {
            port.parse().ok()
        }
        _ => None,
    };
    let port = leads_to(plain.next()?)?;
    let answers = in_listener(observed, port, |listener| listener.protocol == Some(ListenerProtocol::Https));
    (answers && plain.all(|listener| leads_to(listener) == Some(port))).then_some(port)
}

/// Returns the sources that can reach a port of the load balancer, by the rules of its own security group.
pub(super) fn open(observed: &ObservedStack, port: u16) -> BTreeSet<Source> {
    let rules = observed.security_groups.first().into_iter().flat_map(|group| &group.ingress);
    rules.filter(|rule| rule.from_port == Some(i32::from(port))).map(|rule| rule.source.clone()).collect()
}
