//! What the members of a group ask for together. Where they differ, what the load balancer has wins as long as a member asks
//! for it; among newcomers the group's order decides. Whoever asks for something else is told, and set aside (reference:
//! ingress §1.6, §2, §4.2, §4.3).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Builder, Failed, Member,
    access::Access,
    cause,
    class::{Ownership, ownership},
    part::{Part, PortPart},
    settings::Given,
};
use crate::{
    diagnostics::{Code, Severity},
    facts::Want,
    model::{
        Action, Attributes, Cause, CertificateArn, IpAddressType, ListenerProtocol, LoadBalancerName,
        MutualAuthentication, ObjectName, ObservedListener, ObservedStack, Scheme, Source, SubnetMapping,
        TrustStoreArn, Value,
    },
};

const PREFIX: &str = "alb.ingress.kubernetes.io/";

/// Values by key, and who asks for each.
pub(super) type Attributed = (Attributes, BTreeMap<String, Cause>);

/// Why parts do not come together.
pub(super) enum Unmerged {
    /// Because of these members, who were told.
    SetAside(BTreeSet<ObjectName>),
    /// Something that concerns all is not known, or not there.
    Failed,
}

impl From<Failed> for Unmerged {
    fn from(_: Failed) -> Self {
        Self::Failed
    }
}

/// What the group asks for, without routes.
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

/// What the group asks for of one listener.
pub(super) struct MergedPort {
    pub(super) protocol: ListenerProtocol,
    pub(super) default_certificate: Option<CertificateArn>,
    pub(super) certificates: BTreeSet<CertificateArn>,
    pub(super) certificates_after_apply: Option<&'static str>,
    pub(super) mutual_authentication: Option<MutualAuthentication<Value<TrustStoreArn>>>,
    pub(super) ssl_policy: Option<String>,
    pub(super) sources: Option<Vec<Source>>,
    pub(super) attributes: Attributed,
    /// Whose default backend it has.
    pub(super) default_of: Option<ObjectName>,
    pub(super) cause: Cause,
}

/// Values that the class of the first member decides.
#[derive(Default)]
pub(super) struct Decided {
    values: BTreeMap<String, String>,
    /// True if that member is set aside: what the load balancer has for these keys stays, whoever else asks for them.
    stays: bool,
}

/// A setting that all members have in common.
pub(super) struct Setting<'s> {
    /// The annotation, without prefix, or the field.
    pub(super) field: &'s str,
    /// What it is, for people, with its article.
    pub(super) what: &'s str,
}

impl<'a> Builder<'a> {
    /// What AWS has of the group, where there is a load balancer.
    pub(super) fn in_force(&mut self) -> Result<Option<&'a ObservedStack>, Unmerged> {
        let facts = self.facts;
        if facts.incumbent.is_none() {
            return Ok(None);
        }
        if facts.in_force.is_none() {
            self.findings.wants.insert(Want::InForce);
            return Err(Unmerged::Failed);
        }
        Ok(facts.in_force.as_deref())
    }

    /// What AWS has, where somebody is set aside whose wishes are not known.
    pub(super) fn kept(&mut self, aside: &BTreeSet<ObjectName>) -> Result<Option<&'a ObservedStack>, Unmerged> {
        if aside.is_empty() { Ok(None) } else { self.in_force() }
    }

    /// The value that those who ask for one agree on.
    pub(super) fn agree<T: Clone + PartialEq>(
        &mut self,
        parts: &[Part<'a>],
        setting: &Setting<'_>,
        asked: impl Fn(&Part<'a>) -> Option<T>,
        is_in_force: impl Fn(&ObservedStack, &T) -> bool,
        show: impl Fn(&T) -> String,
    ) -> Result<Option<T>, Unmerged> {
        let all: Vec<(&Part<'a>, T)> = parts.iter().filter_map(|part| Some((part, asked(part)?))).collect();
        let Some((first, value)) = all.first() else { return Ok(None) };
        if all.iter().all(|(_, other)| other == value) {
            return Ok(Some(value.clone()));
        }
        let held = self.in_force()?.and_then(|observed| all.iter().find(|(_, value)| is_in_force(observed, value)));
        let (winner, value) = held.unwrap_or(&all[0]);
        let reason = match held {
            Some(_) => {
                format!("which the load balancer of the group has, and Ingress {} asks for", winner.member.name())
            }
            None => format!("for which Ingress {} asks, the first of the group", first.member.name()),
        };
        let field = if setting.field.contains('.') && setting.field.starts_with("spec") {
            setting.field.to_owned()
        } else {
            format!("{PREFIX}{}", setting.field)
        };
        let mut losers = BTreeSet::new();
        for (part, other) in all.iter().filter(|(_, other)| other != value) {
            let place = part.member.place_in_class(setting.field);
            let message = format!(
                "{} is to be {}, but a group has only one: {}, {reason}",
                setting.what,
                show(other),
                show(value)
            );
            let fix =
                "make them agree, or put this Ingress in another group; until then nothing of this Ingress changes";
            match place {
                Some(place) => {
                    self.wrong(part.member.ingress, Code::Conflict, &place, Severity::Error, &message, fix);
                }
                None => drop(self.error(part.member.name(), Code::Conflict, &field, &message, fix)),
            }
            losers.insert(part.member.name().clone());
        }
        Err(Unmerged::SetAside(losers))
    }

    pub(super) fn merge(&mut self, parts: &[Part<'a>], aside: &BTreeSet<ObjectName>) -> Result<Merged, Unmerged> {
        let quoted = |text: &dyn std::fmt::Display| format!("`{text}`");
        let scheme = self.agree(
            parts,
            &Setting { field: "scheme", what: "the scheme" },
            |part| part.scheme,
            // While one replaces the other, none is in force.
            |observed, scheme| {
                let mut all = observed.load_balancers.iter().peekable();
                all.peek().is_some() && all.all(|balancer| balancer.scheme == *scheme)
            },
            |scheme| quoted(scheme),
        )?;
        let name = self.agree(
            parts,
            &Setting { field: "load-balancer-name", what: "the load balancer's name" },
            |part| Some(part.name.as_ref()?.value.clone()),
            |observed, name| observed.load_balancers.first().is_some_and(|b| b.name == name.as_str()),
            |name| quoted(name),
        )?;
        let kind = self.agree(
            parts,
            &Setting { field: "ip-address-type", what: "the address type" },
            |part| part.ip_address_type,
            |observed, kind| observed.load_balancers.first().is_some_and(|b| b.ip_address_type == *kind),
            |kind| quoted(kind),
        )?;
        let kept_kind = self.kept(aside)?.and_then(|observed| observed.load_balancers.first());
        self.ip_address_type =
            kind.or(kept_kind.map(|balancer| balancer.ip_address_type)).unwrap_or(IpAddressType::Ipv4);
        self.check_sources(parts)?;
        let (ports, redirect) = self.merge_ports(parts, aside)?;
        let kept_scheme = self.facts.incumbent.as_ref().filter(|_| !aside.is_empty()).map(|incumbent| incumbent.scheme);
        let scheme = scheme.or(kept_scheme).unwrap_or(self.config.default_scheme);
        self.scheme = scheme;
        self.check_replacement(parts, scheme, name.as_ref(), aside)?;
        // What is asked for first is told first; only the shared security group is made, and so asked for last.
        let access = self.merge_access(parts, aside);
        let subnets = self.merge_subnets(parts, scheme);
        let of_class = self.first_member(parts, aside, None)?.map(|first| Decided {
            values: first.params_load_balancer_attributes(),
            stays: self.facts.incumbent.is_some() && aside.contains(first.name()),
        });
        let attributes = self.merge_maps(
            parts,
            "load-balancer-attributes",
            of_class.unwrap_or_default(),
            |part| Some(&part.attributes),
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

    /// Returns the members that are set aside, `None` for one whose class cannot be read.
    fn set_aside<'s>(
        &'s self,
        aside: &'s BTreeSet<ObjectName>,
    ) -> impl Iterator<Item = Option<Member<'a>>> + use<'s, 'a> {
        let (snapshot, config) = (self.snapshot, self.config);
        self.members.iter().filter(move |member| aside.contains(member.name())).map(move |member| {
            let is_broken = matches!(ownership(member.ingress, snapshot, config), Ownership::Broken(_));
            (!is_broken).then_some(*member)
        })
    }

    /// Returns the first member of the group that has something of the load balancer, or of its listener on a port: its class gives
    /// the attributes of it. It may be set aside.
    fn first_member(
        &mut self,
        parts: &[Part<'a>],
        aside: &BTreeSet<ObjectName>,
        port: Option<u16>,
    ) -> Result<Option<Member<'a>>, Unmerged> {
        let holdings = self.kept(aside)?.map_or(&[][..], |observed| observed.holdings.as_slice());
        let asks = |member: &Member<'_>| {
            let mut its = parts.iter().filter(|part| part.member.name() == member.name());
            its.any(|part| port.is_none_or(|port| part.ports.contains_key(&port)))
        };
        // Where nothing is remembered of anybody, one set aside may have everything.
        let has = |member: &Member<'_>| {
            let mut its = holdings.iter().filter(|holding| holding.member == *member.name());
            aside.contains(member.name())
                && (holdings.is_empty() || its.any(|held| port.is_none_or(|port| held.ports.contains_key(&port))))
        };
        Ok(self.members.iter().find(|member| asks(member) || has(member)).copied())
    }

    /// Maps of all, united key by key, with who asks for each. What is decided wins, and nobody has to agree on it.
    pub(super) fn merge_maps(
        &mut self,
        parts: &[Part<'a>],
        field: &str,
        decided: Decided,
        of: impl for<'p> Fn(&'p Part<'a>) -> Option<&'p BTreeMap<String, String>>,
        is_in_force: impl Fn(&ObservedStack, &str, &str) -> bool,
    ) -> Result<Attributed, Unmerged> {
        let keys = parts.iter().filter_map(&of).flat_map(BTreeMap::keys);
        let keys: BTreeSet<&String> = keys.filter(|key| !decided.values.contains_key(*key)).collect();
        let (mut values, mut causes) = (BTreeMap::new(), BTreeMap::new());
        for key in keys {
            let what = format!("`{key}`");
            let value = self.agree(
                parts,
                &Setting { field, what: &what },
                |part| of(part)?.get(key).cloned(),
                |observed, value| is_in_force(observed, key, value),
                |value| format!("`{value}`"),
            )?;
            let asks = parts.iter().find(|part| of(part).is_some_and(|map| map.contains_key(key)));
            if let (Some(value), Some(part)) = (value, asks) {
                values.insert(key.clone(), value);
                if parts.len() > 1 {
                    causes.insert(key.clone(), cause(part.member.ingress, format!("{PREFIX}{field}")));
                }
            }
        }
        values.extend(Some(decided.values).filter(|_| !decided.stays).unwrap_or_default());
        Ok((values, causes))
    }

    /// The tags of all, united key by key.
    pub(super) fn merge_tags(&mut self, parts: &[Part<'a>]) -> Result<BTreeMap<String, String>, Unmerged> {
        let in_force = |observed: &ObservedStack, key: &str, value: &str| {
            observed.load_balancers.first().is_some_and(|b| b.tags.get(key).is_some_and(|known| known == value))
        };
        self.merge_maps(parts, "tags", Decided::default(), |part| Some(&part.tags), in_force).map(|(tags, _)| tags)
    }

    fn merge_ports(
        &mut self,
        parts: &[Part<'a>],
        aside: &BTreeSet<ObjectName>,
    ) -> Result<(BTreeMap<u16, MergedPort>, Option<u16>), Unmerged> {
        self.merge_tags(parts)?;
        let numbers: BTreeSet<u16> = parts.iter().flat_map(|part| part.ports.keys().copied()).collect();
        let mut ports = BTreeMap::new();
        for port in numbers {
            let protocol = self.agree(
                parts,
                &Setting { field: "listen-ports", what: &format!("the protocol of port {port}") },
                |part| part.ports.get(&port).map(|part| part.protocol),
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
        self.need_certificates(parts, &ports)?;
        let redirect = self.merge_redirect(parts, aside, &ports)?;
        let mut merged = BTreeMap::new();
        for (port, protocol) in ports {
            let redirected = redirect.is_some() && protocol == ListenerProtocol::Http;
            merged.insert(port, self.merge_port(parts, aside, port, protocol, redirected)?);
        }
        Ok((merged, redirect))
    }

    /// An HTTPS listener needs a certificate, whoever names it.
    fn need_certificates(
        &mut self,
        parts: &[Part<'a>],
        ports: &BTreeMap<u16, ListenerProtocol>,
    ) -> Result<(), Unmerged> {
        let mut askers = BTreeSet::new();
        for port in ports.iter().filter(|(_, protocol)| **protocol == ListenerProtocol::Https).map(|(port, _)| port) {
            let on_port = || parts.iter().filter_map(|part| Some((part.member.name(), part.ports.get(port)?)));
            if on_port().any(|(_, asked)| !asked.certificates.is_empty() || asked.certificates_after_apply.is_some()) {
                continue;
            }
            let message = format!("the HTTPS listener on port {port} has no certificate");
            let fix = "name one or more by ARN, or hosts in spec.rules or spec.tls for which ACM has issued some";
            for (member, _) in on_port() {
                self.error(member, Code::MissingCertificate, &format!("{PREFIX}certificate-arn"), &message, fix);
                askers.insert(member.clone());
            }
        }
        if askers.is_empty() { Ok(()) } else { Err(Unmerged::SetAside(askers)) }
    }

    fn merge_redirect(
        &mut self,
        parts: &[Part<'a>],
        aside: &BTreeSet<ObjectName>,
        ports: &BTreeMap<u16, ListenerProtocol>,
    ) -> Result<Option<u16>, Unmerged> {
        let leads_to = |observed: &ObservedStack, port: &i32| {
            let mut defaults =
                observed.load_balancers.iter().flat_map(|b| b.known_listeners()).flat_map(|l| &l.default_actions);
            defaults.any(|action| matches!(action, Action::Redirect { port: Some(to), .. } if *to == port.to_string()))
        };
        let asked = self.agree(
            parts,
            &Setting { field: "ssl-redirect", what: "the port to redirect to" },
            |part| Some(part.redirect.as_ref()?.value),
            leads_to,
            ToString::to_string,
        )?;
        let kept = self.kept(aside)?;
        // A listener that only somebody set aside has is there as well.
        let is_secure = |port: &u16| match ports.get(port) {
            Some(protocol) => *protocol == ListenerProtocol::Https,
            None => kept.is_some_and(|o| {
                in_listener(o, *port, |l| l.protocol == Some(ListenerProtocol::Https))
                    && keeps_listener(o, aside, *port)
            }),
        };
        let Some(port) = asked else {
            // Plain requests are not served all at once because whoever redirects them is set aside.
            let may_redirect = |member: &Member<'_>| member.ssl_redirect().map_or(true, |redirect| redirect.is_some());
            let somebody = self.set_aside(aside).any(|member| member.is_none_or(|member| may_redirect(&member)));
            return Ok(kept.and_then(redirect_in_force).filter(|port| somebody && is_secure(port)));
        };
        if let Some(port) = u16::try_from(port).ok().filter(is_secure) {
            return Ok(Some(port));
        }
        let alone = parts.len() == 1;
        let whose = if alone { "this Ingress" } else { "this group" };
        let message = format!("requests are to be redirected to port {port}, which is no HTTPS listener of {whose}");
        let fix = format!("add {{\"HTTPS\": {port}}} to `{PREFIX}listen-ports`, or name one of its HTTPS ports");
        let mut askers = BTreeSet::new();
        for (part, asked) in parts.iter().filter_map(|part| Some((part, part.redirect.as_ref()?))) {
            self.wrong(part.member.ingress, Code::InvalidValue, &asked.place, Severity::Error, &message, &fix);
            askers.insert(part.member.name().clone());
        }
        Err(Unmerged::SetAside(askers))
    }

    /// The sources of one annotation that those who give it agree on: ranges and prefix lists are compared apart.
    fn agree_on_sources(
        &mut self,
        parts: &[Part<'a>],
        port: u16,
        field: &str,
        of_field: impl Fn(&Source) -> bool,
    ) -> Result<Option<BTreeSet<Source>>, Unmerged> {
        self.agree(
            parts,
            &Setting { field, what: &format!("who may reach port {port}") },
            |part| {
                let sources = part.ports.get(&port)?.sources.iter().flatten();
                let sources: BTreeSet<Source> = sources.filter(|source| of_field(source)).cloned().collect();
                Some(sources).filter(|sources| !sources.is_empty())
            },
            |observed, sources| {
                open(observed, port).into_iter().filter(|source| of_field(source)).collect::<BTreeSet<_>>() == *sources
            },
            |sources| sources.iter().map(|source| format!("`{source}`")).collect::<Vec<_>>().join(", "),
        )
    }

    /// Tells those who say who may reach a port who else may, as long as somebody is set aside that may ask for it.
    fn tell_of_kept_sources(
        &mut self,
        parts: &[Part<'a>],
        aside: &BTreeSet<ObjectName>,
        port: u16,
        beside: &BTreeSet<Source>,
    ) {
        if beside.is_empty() {
            return;
        }
        let list = |items: Vec<String>| items.join(", ");
        let message = format!(
            "port {port} stays open to {} too, for which {} may ask, which cannot be built at the moment",
            list(beside.iter().map(|source| format!("`{source}`")).collect()),
            list(aside.iter().map(|member| format!("Ingress {member}")).collect())
        );
        let fix = "fix that Ingress; then only those may come in for whom a member asks";
        for part in parts.iter().filter(|part| part.ports.contains_key(&port)) {
            let Some(Given { place, .. }) = &part.sources else { continue };
            self.wrong(part.member.ingress, Code::Conflict, place, Severity::Warning, &message, fix);
        }
    }

    fn merge_port(
        &mut self,
        parts: &[Part<'a>],
        aside: &BTreeSet<ObjectName>,
        port: u16,
        protocol: ListenerProtocol,
        redirected: bool,
    ) -> Result<MergedPort, Unmerged> {
        fn of<'p>(part: &'p Part<'_>, port: u16) -> Option<&'p PortPart> {
            part.ports.get(&port)
        }
        let tls = protocol == ListenerProtocol::Https;
        let policy = self.agree(
            parts,
            &Setting { field: "ssl-policy", what: &format!("the TLS policy of port {port}") },
            |part| of(part, port)?.ssl_policy.clone(),
            |observed, policy| in_listener(observed, port, |l| l.ssl_policy.as_ref() == Some(policy)),
            |policy| format!("`{policy}`"),
        )?;
        let mutual_authentication = self.agree(
            parts,
            &Setting { field: "mutual-authentication", what: &format!("what clients show on port {port}") },
            |part| of(part, port)?.mutual_authentication.clone(),
            |observed, clients| {
                let clients = clients.try_map(|arn| arn.known().cloned().ok_or(())).ok();
                in_listener(observed, port, |listener| listener.mutual_authentication == clients)
            },
            |clients| format!("`{clients}`"),
        )?;
        let ranges = self.agree_on_sources(parts, port, "inbound-cidrs", |source| !is_list(source))?;
        let lists = self.agree_on_sources(parts, port, "security-group-prefix-lists", is_list)?;
        let of_class = self.first_member(parts, aside, Some(port))?.map(|first| Decided {
            values: first.params_listener_attributes(protocol, port),
            stays: self.facts.incumbent.is_some() && aside.contains(first.name()),
        });
        let attributes = self.merge_maps(
            parts,
            &format!("listener-attributes.{protocol}-{port}"),
            of_class.unwrap_or_default(),
            |part| of(part, port).map(|part| &part.attributes),
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
                parts,
                &Setting { field: "spec.defaultBackend", what: &format!("the default backend of port {port}") },
                |part| {
                    of(part, port).and(part.member.ingress.default_backend.as_ref()).map(|_| part.member.name().clone())
                },
                |observed, member| {
                    let holds = |holding: &crate::model::Holding| {
                        holding.member == *member && holding.ports.get(&port).is_some_and(|held| held.default_action)
                    };
                    observed.holdings.iter().any(holds)
                },
                |member| format!("that of Ingress {member}"),
            )?
        };
        let on_port = || parts.iter().filter(|part| part.ports.contains_key(&port));
        let certified = on_port().find(|part| of(part, port).is_some_and(|part| !part.certificates.is_empty()));
        let all: BTreeSet<CertificateArn> =
            on_port().filter_map(|part| of(part, port)).flat_map(|part| part.certificates.iter().cloned()).collect();
        let certificates_after_apply = on_port().find_map(|part| of(part, port)?.certificates_after_apply);
        let first = on_port().next().ok_or(Unmerged::Failed)?;
        let kept = self.kept(aside)?;
        let in_force = kept.and_then(|observed| observed.load_balancers.first()).and_then(|b| b.listener(port));
        // The default certificate of a member set aside stays the default.
        let held_default = in_force.and_then(|listener| listener.default_certificate.clone()).filter(|certificate| {
            let mut holders = kept
                .iter()
                .flat_map(|observed| &observed.holdings)
                .filter(|holding| holding.ports.get(&port).is_some_and(|held| held.certificates.contains(certificate)));
            !all.contains(certificate) && holders.all(|holding| aside.contains(&holding.member))
        });
        let default_certificate =
            held_default.or_else(|| certified.and_then(|part| of(part, port)?.certificates.first().cloned()));
        let certificates = all.into_iter().filter(|c| Some(c) != default_certificate.as_ref()).collect();
        let kept_policy = in_force.and_then(|listener| listener.ssl_policy.clone()).filter(|_| tls);
        let field = match first.member.ingress.annotations.contains_key(&format!("{PREFIX}listen-ports")) {
            true => format!("{PREFIX}listen-ports"),
            false => "spec".to_owned(),
        };
        // A member set aside may have asked for what is open. Where a member that is served says who may come in, no more than
        // that is kept: neither what nobody asks for, nor that everybody may come where nobody says otherwise.
        let said = ranges.is_some() || lists.is_some();
        let named: Option<Vec<Vec<Source>>> =
            self.set_aside(aside).map(|member| member.and_then(|member| member.named_sources())).collect();
        let may_be_asked = |source: &Source| match &named {
            Some(named) => named.iter().flatten().any(|asked| asked == source),
            None => !is_everywhere(source),
        };
        let kept_sources = |lists: bool| {
            let open = kept.map(|observed| open(observed, port)).unwrap_or_default();
            let stays = |source: &Source| is_list(source) == lists && (!said || may_be_asked(source));
            let sources: BTreeSet<Source> = open.into_iter().filter(stays).collect();
            Some(sources).filter(|sources| !sources.is_empty())
        };
        let beside: BTreeSet<Source> = match (&ranges, &lists) {
            (Some(_), None) => kept_sources(true).unwrap_or_default(),
            (None, Some(_)) => kept_sources(false).unwrap_or_default(),
            _ => BTreeSet::new(),
        };
        let (ranges, lists) = (ranges.or_else(|| kept_sources(false)), lists.or_else(|| kept_sources(true)));
        self.tell_of_kept_sources(parts, aside, port, &beside);
        let in_order = |sources: BTreeSet<Source>| {
            // As the member that asks for them writes them.
            let asked = on_port().filter_map(|part| of(part, port)?.sources.as_ref()).flatten();
            let mut ordered: Vec<Source> = Vec::new();
            for source in asked.chain(&sources).filter(|source| sources.contains(source)) {
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
            ssl_policy: tls.then(|| policy.or(kept_policy).unwrap_or_else(|| self.config.default_ssl_policy.clone())),
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

/// Returns true if the plan keeps a listener that no part asks for: a member set aside has it, or nobody is remembered to.
fn keeps_listener(observed: &ObservedStack, aside: &BTreeSet<ObjectName>, port: u16) -> bool {
    let mut holders = observed.holdings.iter().filter(|holding| holding.ports.contains_key(&port)).peekable();
    holders.peek().is_none() || holders.any(|holding| aside.contains(&holding.member))
}

/// Returns true for a range of all addresses.
fn is_everywhere(source: &Source) -> bool {
    matches!(source, Source::Ipv4(range) | Source::Ipv6(range) if range.ends_with("/0"))
}

/// The port that all HTTP listeners of the load balancer redirect to, without serving anything, where it answers.
fn redirect_in_force(observed: &ObservedStack) -> Option<u16> {
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

/// Who may reach a port of the load balancer, by the rules of its own security group.
pub(super) fn open(observed: &ObservedStack, port: u16) -> BTreeSet<Source> {
    let rules = observed.security_groups.first().into_iter().flat_map(|group| &group.ingress);
    rules.filter(|rule| rule.from_port == Some(i32::from(port))).map(|rule| rule.source.clone()).collect()
}
