//! The Network Load Balancer in front of the group's load balancer (reference: ingress §2.6, §5.9).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Builder, Failed, Member, cause,
    member_spec::{MemberSpec, PortSpec},
    merge::Unmerged,
};
use crate::{
    api::annotations::{
        Key,
        registry::{
            group::Exclusive,
            ingress::{self as keys, merged},
        },
    },
    desired::shared::{
        self,
        target_groups::{CheckNumbers, TRAFFIC_PORT},
    },
    diagnostics::Code,
    facts::{FactQuery, SubnetQuery},
    model::{
        AddOns, AddressPools, Attributes, Cause, Frontend, FrontendListener, FrontendTargetGroup, HealthCheck,
        HealthCheckProtocol, InvalidName, IpAddressType, LoadBalancer, LoadBalancerKind, LoadBalancerName, Matcher,
        NetworkSettings, ObjectName, ObjectReference, ObservedLoadBalancer, ObservedStack, ResourceId, Scheme,
        SecurityGroupReference, SubnetId, SubnetMapping, Tags, Value, names,
    },
};

const CLIENT_ROUTING: &str = "dns_record.client_routing_policy";
const CLIENT_ROUTING_POLICIES: [&str; 3] =
    ["any_availability_zone", "partial_availability_zone_affinity", "availability_zone_affinity"];

/// The annotations that have no effect without the first one.
const SETTINGS: [Key; 16] = [
    keys::FRONTEND_NLB_SCHEME,
    keys::FRONTEND_NLB_SUBNETS,
    keys::FRONTEND_NLB_SECURITY_GROUPS,
    keys::FRONTEND_NLB_LISTENER_PORT_MAPPING,
    keys::FRONTEND_NLB_EIP_ALLOCATIONS,
    keys::FRONTEND_NLB_HEALTHCHECK_PORT,
    keys::FRONTEND_NLB_HEALTHCHECK_PROTOCOL,
    keys::FRONTEND_NLB_HEALTHCHECK_PATH,
    keys::FRONTEND_NLB_HEALTHCHECK_INTERVAL_SECONDS,
    keys::FRONTEND_NLB_HEALTHCHECK_TIMEOUT_SECONDS,
    keys::FRONTEND_NLB_HEALTHCHECK_HEALTHY_THRESHOLD_COUNT,
    keys::FRONTEND_NLB_HEALTHCHECK_UNHEALTHY_THRESHOLD_COUNT,
    keys::FRONTEND_NLB_HEALTHCHECK_SUCCESS_CODES,
    keys::FRONTEND_NLB_ATTRIBUTES,
    keys::FRONTEND_NLB_TAGS,
    keys::ENABLE_FRONTEND_NLB,
];

/// The request of a member for a Network Load Balancer in front. A setting that it does not request is `None`.
#[derive(Clone, Debug, Default)]
pub(super) struct FrontendSpec {
    enabled: Option<bool>,
    scheme: Option<Scheme>,
    subnets: Option<Vec<String>>,
    security_groups: Option<Vec<String>>,
    elastic_addresses: Option<Vec<String>>,
    /// By port in front, the port behind.
    ports: BTreeMap<u16, u16>,
    check: CheckSpec,
    attributes: Option<Attributes>,
    tags: Option<Tags>,
}

#[derive(Clone, Debug, Default)]
struct CheckSpec {
    port: Option<String>,
    protocol: Option<HealthCheckProtocol>,
    path: Option<String>,
    codes: Option<String>,
    numbers: Option<CheckNumbers<Option<i32>>>,
}

/// The merged request of the group, without what it takes from the load balancer behind.
pub(super) struct MergedFrontend {
    scheme: Scheme,
    subnets: Value<Vec<SubnetMapping>>,
    /// `None` for those of the load balancer behind.
    security_groups: Option<Vec<SecurityGroupReference>>,
    /// By port in front, the port behind.
    ports: BTreeMap<u16, u16>,
    health_check: HealthCheck,
    attributes: Attributes,
    tags: Option<Tags>,
    cause: Cause,
}

fn existing(observed: &ObservedStack) -> impl Iterator<Item = &ObservedLoadBalancer> {
    observed.frontend.load_balancers.iter()
}

/// Returns the port behind that a port in front leads to, as far as it is known.
fn leads_to(observed: &ObservedStack, port: u16) -> Option<u16> {
    let group = existing(observed).find_map(|balancer| balancer.listener(port)?.target_groups().next())?;
    observed.frontend.targets.get(group)?.iter().next().map(|target| target.port)
}

/// Returns true if what is in front is checked in this way.
fn is_checked(observed: &ObservedStack, holds: impl Fn(&HealthCheck) -> bool) -> bool {
    observed.frontend.target_groups.iter().any(|group| group.health_check.as_ref().is_some_and(&holds))
}

fn contains(all: &BTreeMap<String, String>, some: &BTreeMap<String, String>) -> bool {
    some.iter().all(|(key, value)| all.get(key) == Some(value))
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn pairs(map: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("`{}`", pairs.join(","))
}

impl<'a> Builder<'a> {
    /// Returns the request of one member, given its listeners, and the ports that wait for a certificate.
    pub(super) fn requested_frontend(
        &mut self,
        member: Member<'a>,
        listeners: &BTreeMap<u16, PortSpec>,
        withheld: &BTreeSet<u16>,
    ) -> Result<FrontendSpec, Failed> {
        let Member { ingress, annotations, .. } = member;
        let enabled = self.value(ingress, None, annotations.bool(keys::ENABLE_FRONTEND_NLB));
        let scheme = self.value(ingress, None, annotations.enumerated(keys::FRONTEND_NLB_SCHEME, Scheme::WORDS));
        let subnets = self.value(ingress, None, annotations.string_list(keys::FRONTEND_NLB_SUBNETS));
        let groups = self.value(ingress, None, annotations.string_list(keys::FRONTEND_NLB_SECURITY_GROUPS));
        let addresses = self.value(ingress, None, annotations.string_list(keys::FRONTEND_NLB_EIP_ALLOCATIONS));
        let attributes = self.value(ingress, None, annotations.string_map(keys::FRONTEND_NLB_ATTRIBUTES));
        let tags = self.value(ingress, None, annotations.string_map(keys::FRONTEND_NLB_TAGS));
        let check = self.requested_check(member);
        let ports = self.requested_mapping(member, listeners, withheld);
        let (attributes, tags) = (attributes?, tags?);
        self.check_attributes(member, attributes.as_ref())?;
        let external = tags.as_ref().and_then(|tags| shared::tags::external(self.config, tags).next());
        if let Some((_, message)) = external {
            let (field, fix) = (keys::FRONTEND_NLB_TAGS.as_str(), shared::tags::EXTERNAL_FIX);
            return Err(self.error(&ingress.name, Code::InvalidValue, field, &message, fix));
        }
        let subnets = subnets?;
        if subnets.as_ref().is_some_and(Vec::is_empty) {
            let fix =
                "name subnets by identifier or `Name` tag, or remove the annotation to have them found by their tags";
            let field = keys::FRONTEND_NLB_SUBNETS.as_str();
            return Err(self.error(&ingress.name, Code::Subnets, field, "the list of subnets is empty", fix));
        }
        Ok(FrontendSpec {
            enabled: enabled?,
            scheme: scheme?.and_then(Scheme::from_word),
            subnets,
            security_groups: groups?.filter(|groups| !groups.is_empty()),
            elastic_addresses: addresses?,
            ports: ports?,
            check: check?,
            attributes,
            tags,
        })
    }

    fn check_attributes(&mut self, member: Member<'a>, attributes: Option<&Attributes>) -> Result<(), Failed> {
        let policy = attributes.and_then(|attributes| attributes.get(CLIENT_ROUTING));
        let Some(policy) = policy.filter(|policy| !CLIENT_ROUTING_POLICIES.contains(&policy.as_str())) else {
            return Ok(());
        };
        let message = format!("`{CLIENT_ROUTING}={policy}` is not a policy of AWS");
        let fix = format!("write {}", quoted(&CLIENT_ROUTING_POLICIES.map(str::to_owned)));
        let field = keys::FRONTEND_NLB_ATTRIBUTES.as_str();
        Err(self.error(member.name(), Code::InvalidValue, field, &message, &fix))
    }

    fn requested_check(&mut self, member: Member<'a>) -> Result<CheckSpec, Failed> {
        let Member { ingress, annotations, .. } = member;
        let port = self.value(ingress, None, annotations.string(keys::FRONTEND_NLB_HEALTHCHECK_PORT));
        let protocol = self.value(
            ingress,
            None,
            annotations.enumerated(keys::FRONTEND_NLB_HEALTHCHECK_PROTOCOL, &["HTTP", "HTTPS"]),
        );
        let path = self.value(ingress, None, annotations.string(keys::FRONTEND_NLB_HEALTHCHECK_PATH));
        let codes = self.value(ingress, None, annotations.string(keys::FRONTEND_NLB_HEALTHCHECK_SUCCESS_CODES));
        let numbers = CheckNumbers {
            interval_seconds: keys::FRONTEND_NLB_HEALTHCHECK_INTERVAL_SECONDS,
            timeout_seconds: keys::FRONTEND_NLB_HEALTHCHECK_TIMEOUT_SECONDS,
            healthy_threshold: keys::FRONTEND_NLB_HEALTHCHECK_HEALTHY_THRESHOLD_COUNT,
            unhealthy_threshold: keys::FRONTEND_NLB_HEALTHCHECK_UNHEALTHY_THRESHOLD_COUNT,
        };
        let numbers = numbers.read(|key| self.value(ingress, None, annotations.i32(key)));
        let numbers = CheckNumbers {
            interval_seconds: numbers.interval_seconds?,
            timeout_seconds: numbers.timeout_seconds?,
            healthy_threshold: numbers.healthy_threshold?,
            unhealthy_threshold: numbers.unhealthy_threshold?,
        };
        Ok(CheckSpec {
            port: port?,
            protocol: protocol?.and_then(HealthCheckProtocol::from_word),
            path: path?,
            codes: codes?,
            numbers: Some(numbers),
        })
    }

    /// Returns the ports in front that lead to the member's listeners: those of the mapping, or else the same ports.
    fn requested_mapping(
        &mut self,
        member: Member<'a>,
        listeners: &BTreeMap<u16, PortSpec>,
        withheld: &BTreeSet<u16>,
    ) -> Result<BTreeMap<u16, u16>, Failed> {
        let (ingress, key) = (member.ingress, keys::FRONTEND_NLB_LISTENER_PORT_MAPPING);
        let Some(written) = self.value(ingress, None, member.annotations.string_map(key))? else {
            return Ok(listeners.keys().map(|port| (*port, *port)).collect());
        };
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let mut mapping = BTreeMap::new();
        let mut outcome = Ok(());
        for (front, behind) in &written {
            let (Some(front_port), Some(behind_port)) = (number(front), number(behind)) else {
                let message = format!("`{front}={behind}` does not map one port to another");
                let fix = "write `<port in front>=<port behind>`, with ports from 1 to 65535";
                outcome = Err(self.error(&ingress.name, Code::InvalidValue, key.as_str(), &message, fix));
                continue;
            };
            if listeners.contains_key(&behind_port) {
                mapping.insert(front_port, behind_port);
                continue;
            }
            // What leads there comes with the listener, when its certificate is issued.
            if withheld.contains(&behind_port) {
                continue;
            }
            let ports: Vec<String> = listeners.keys().map(|port| format!("`{port}`")).collect();
            let message = format!(
                "`{front}={behind}` has no effect: the Ingress has no listener on port {behind}; it has {}",
                ports.join(", ")
            );
            let fix = "map to one of its listeners, or add the port to `listen-ports`";
            self.warning(ingress, Code::NoEffect, key.as_str(), &message, fix);
        }
        outcome.map(|()| mapping)
    }

    /// Returns true if a frozen member may have requested settings of what is in front: they are not known, and no part of it
    /// tells whose it is.
    fn is_frontend_frozen(&mut self, frozen: &BTreeSet<ObjectName>) -> Result<bool, Unmerged> {
        if self.facts.frontend.is_empty() {
            return Ok(false);
        }
        let Some(observed) = self.observed_if_frozen(frozen)? else { return Ok(!frozen.is_empty()) };
        let held = &observed.member_resources;
        // If no resources are recorded for any member, a frozen one may own everything.
        Ok(held.is_empty() || held.iter().filter_map(|of| of.member.as_ingress()).any(|name| frozen.contains(name)))
    }

    /// Returns the request of the group; `None` if no member requests a Network Load Balancer in front, or if the present one has
    /// to stay as it is.
    pub(super) fn merge_frontend(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
        ports_behind: &BTreeSet<u16>,
        is_managed: bool,
    ) -> Result<Option<MergedFrontend>, Unmerged> {
        if self.is_frontend_frozen(frozen)? {
            return Ok(None);
        }
        let is_enabled = self.merge_exclusive(
            specs,
            merged::ENABLE_FRONTEND_NLB,
            "the Network Load Balancer in front",
            |spec| spec.frontend.enabled,
            |observed, enabled| *enabled == existing(observed).next().is_some(),
            |enabled| format!("`{enabled}`"),
        )?;
        let requester = specs.iter().find(|spec| spec.frontend.enabled == Some(true));
        let Some(requester) = requester.filter(|_| is_enabled == Some(true)) else {
            self.warn_of_unused_settings(specs);
            return Ok(None);
        };
        let cause = cause(requester.member.ingress, keys::ENABLE_FRONTEND_NLB.as_str());
        if self.ip_address_type == IpAddressType::DualstackWithoutPublicIpv4 {
            let message = "a Network Load Balancer has no address type `dualstack-without-public-ipv4`, and that in front has the address type of the one behind";
            let fix = "write `ipv4` or `dualstack` in `alb.ingress.kubernetes.io/ip-address-type`";
            let member = requester.member.name();
            self.error(member, Code::Unsupported, keys::ENABLE_FRONTEND_NLB.as_str(), message, fix);
            return Err(Unmerged::Freeze([member.clone()].into()));
        }
        let scheme = self.merge_exclusive(
            specs,
            merged::FRONTEND_NLB_SCHEME,
            "the scheme of the Network Load Balancer in front",
            |spec| spec.frontend.scheme,
            |observed, scheme| {
                let mut all = existing(observed).peekable();
                all.peek().is_some() && all.all(|balancer| balancer.scheme == *scheme)
            },
            |scheme| format!("`{scheme}`"),
        )?;
        let scheme = scheme.unwrap_or(self.config.default_scheme);
        let ports = self.merge_by_key(
            specs,
            merged::FRONTEND_NLB_LISTENER_PORT_MAPPING.into(),
            |port| format!("the port behind port {port} of the Network Load Balancer in front"),
            |spec| spec.frontend.ports.clone(),
            |observed, port, behind| leads_to(observed, *port) == Some(*behind),
        )?;
        let health_check = self.merge_check(specs)?;
        let (key, present) = (merged::FRONTEND_NLB_ATTRIBUTES, |of: &ObservedLoadBalancer| of.attributes.clone());
        let attributes = self.merge_map(specs, key, "the attributes", |spec| &spec.attributes, present)?;
        let (key, present) = (merged::FRONTEND_NLB_TAGS, |of: &ObservedLoadBalancer| Some(of.tags.clone()));
        let tags = self.merge_map(specs, key, "the tags", |spec| &spec.tags, present)?;
        let security_groups = self.merge_frontend_groups(specs)?;
        let subnets = self.merge_frontend_subnets(specs, requester, scheme)?;
        let is_closed = |port: &&u16| is_managed && security_groups.is_none() && !ports_behind.contains(*port);
        for port in ports.keys().filter(is_closed) {
            let message = format!(
                "clients do not reach port {port} of the Network Load Balancer in front: the security group that the controller manages is only open at the ports of the load balancer behind"
            );
            let fix = format!(
                "name security groups that allow it in `{}`, or map from a port that has a listener behind",
                keys::FRONTEND_NLB_SECURITY_GROUPS
            );
            let field = keys::FRONTEND_NLB_LISTENER_PORT_MAPPING.as_str();
            let asks = specs.iter().filter(|spec| spec.frontend.ports.contains_key(port));
            for ingress in asks.map(|spec| spec.member.ingress).collect::<Vec<_>>() {
                self.warning(ingress, Code::Unsupported, field, &message, &fix);
            }
        }
        let attributes = attributes.unwrap_or_default();
        Ok(Some(MergedFrontend { scheme, subnets, security_groups, ports, health_check, attributes, tags, cause }))
    }

    fn warn_of_unused_settings(&mut self, specs: &[MemberSpec<'a>]) {
        for spec in specs {
            let annotations = spec.member.annotations;
            // The attributes may release one that is protected from deletion.
            let is_there = !self.facts.frontend.is_empty();
            let written = SETTINGS.iter().filter(|key| {
                **key != keys::ENABLE_FRONTEND_NLB && !(is_there && **key == keys::FRONTEND_NLB_ATTRIBUTES)
            });
            for key in written.filter(|key| annotations.contains(**key)).collect::<Vec<_>>() {
                let message = "the annotation has no effect: there is no Network Load Balancer in front";
                let fix = format!("write `{}: \"true\"`, or remove the annotation", keys::ENABLE_FRONTEND_NLB);
                self.warning(spec.member.ingress, Code::NoEffect, key.as_str(), message, &fix);
            }
        }
    }

    fn merge_map(
        &mut self,
        specs: &[MemberSpec<'a>],
        key: Exclusive,
        what: &str,
        of: impl for<'s> Fn(&'s FrontendSpec) -> &'s Option<BTreeMap<String, String>>,
        present: impl Fn(&ObservedLoadBalancer) -> Option<BTreeMap<String, String>>,
    ) -> Result<Option<BTreeMap<String, String>>, Unmerged> {
        let what = format!("{what} of the Network Load Balancer in front");
        let is_current = |observed: &ObservedStack, map: &BTreeMap<String, String>| {
            existing(observed).filter_map(&present).any(|present| contains(&present, map))
        };
        self.merge_exclusive(specs, key, &what, |spec| of(&spec.frontend).clone(), is_current, pairs)
    }

    fn merge_check(&mut self, specs: &[MemberSpec<'a>]) -> Result<HealthCheck, Unmerged> {
        type Is = fn(&HealthCheck, &String) -> bool;
        let mut text = |key: Exclusive, of: &dyn Fn(&CheckSpec) -> Option<String>, is: Is| {
            let what = "the health check of the Network Load Balancer in front";
            let shown = |value: &String| format!("`{value}`");
            let is_current = |observed: &ObservedStack, value: &String| is_checked(observed, |check| is(check, value));
            self.merge_exclusive(specs, key, what, |spec| of(&spec.frontend.check), is_current, shown)
        };
        let is: Is = |check, port| check.port == *port;
        let port = text(merged::FRONTEND_NLB_HEALTHCHECK_PORT, &|check| check.port.clone(), is)?;
        let (key, is): (_, Is) =
            (merged::FRONTEND_NLB_HEALTHCHECK_PROTOCOL, |check, word| check.protocol.to_string() == *word);
        let protocol = text(key, &|check| Some(check.protocol?.to_string()), is)?;
        let is: Is = |check, path| check.path.as_ref() == Some(path);
        let path = text(merged::FRONTEND_NLB_HEALTHCHECK_PATH, &|check| check.path.clone(), is)?;
        let is: Is = |check, codes| check.matcher == Some(Matcher::Http(codes.clone()));
        let codes = text(merged::FRONTEND_NLB_HEALTHCHECK_SUCCESS_CODES, &|check| check.codes.clone(), is)?;
        type Number = fn(&HealthCheck) -> i32;
        let mut number =
            |key: Exclusive, of: &dyn Fn(&CheckNumbers<Option<i32>>) -> Option<i32>, present: Number, default: i32| {
                let what = "the health check of the Network Load Balancer in front";
                let shown = |value: &i32| format!("`{value}`");
                let requested = |spec: &MemberSpec<'a>| of(spec.frontend.check.numbers.as_ref()?);
                let is_current =
                    |observed: &ObservedStack, value: &i32| is_checked(observed, |check| present(check) == *value);
                let merged = self.merge_exclusive(specs, key, what, requested, is_current, shown)?;
                Ok::<_, Unmerged>(merged.unwrap_or(default))
            };
        let (key, present): (_, Number) =
            (merged::FRONTEND_NLB_HEALTHCHECK_INTERVAL_SECONDS, |check| check.interval_seconds);
        let interval_seconds = number(key, &|check| check.interval_seconds, present, 15)?;
        let (key, present): (_, Number) =
            (merged::FRONTEND_NLB_HEALTHCHECK_TIMEOUT_SECONDS, |check| check.timeout_seconds);
        let timeout_seconds = number(key, &|check| check.timeout_seconds, present, 5)?;
        let (key, present): (_, Number) =
            (merged::FRONTEND_NLB_HEALTHCHECK_HEALTHY_THRESHOLD_COUNT, |check| check.healthy_threshold);
        let healthy_threshold = number(key, &|check| check.healthy_threshold, present, 2)?;
        let (key, present): (_, Number) =
            (merged::FRONTEND_NLB_HEALTHCHECK_UNHEALTHY_THRESHOLD_COUNT, |check| check.unhealthy_threshold);
        let unhealthy_threshold = number(key, &|check| check.unhealthy_threshold, present, 2)?;
        Ok(HealthCheck {
            port: port.unwrap_or_else(|| TRAFFIC_PORT.to_owned()),
            protocol: protocol
                .and_then(|word| HealthCheckProtocol::from_word(&word))
                .unwrap_or(HealthCheckProtocol::Http),
            path: Some(path.unwrap_or_else(|| "/".to_owned())),
            interval_seconds,
            timeout_seconds,
            healthy_threshold,
            unhealthy_threshold,
            matcher: Some(Matcher::Http(codes.unwrap_or_else(|| "200".to_owned()))),
        })
    }

    fn merge_frontend_groups(
        &mut self,
        specs: &[MemberSpec<'a>],
    ) -> Result<Option<Vec<SecurityGroupReference>>, Unmerged> {
        let names = self.merge_exclusive(
            specs,
            merged::FRONTEND_NLB_SECURITY_GROUPS,
            "the list of security groups of the Network Load Balancer in front",
            |spec| spec.frontend.security_groups.clone(),
            |observed, names| {
                let has =
                    |name: &String| existing(observed).any(|b| b.security_groups.iter().any(|id| id.as_str() == name));
                names.iter().all(has)
            },
            |names| quoted(names),
        )?;
        let Some(names) = names else { return Ok(None) };
        let asks = |spec: &&MemberSpec<'a>| spec.frontend.security_groups.is_some();
        let first = specs.iter().find(asks).ok_or(Unmerged::Failed)?;
        let (object, field) =
            (ObjectReference::ingress(first.member.name()), keys::FRONTEND_NLB_SECURITY_GROUPS.as_str());
        let (fact, count) = (self.facts.security_groups(&names), names.len());
        let query = FactQuery::SecurityGroups(names);
        match self.sink.resolve(fact, query, object, Code::InvalidValue, field) {
            Ok(Value::Known(ids)) => {
                let given = ids.into_iter().map(|id| SecurityGroupReference::Given(Value::Known(id)));
                Ok(Some(given.collect()))
            }
            Ok(Value::AfterApply(why)) => {
                let given = std::iter::repeat_n(SecurityGroupReference::Given(Value::AfterApply(why)), count);
                Ok(Some(given.collect()))
            }
            Err(Failed) => {
                Err(Unmerged::Freeze(specs.iter().filter(asks).map(|spec| spec.member.name().clone()).collect()))
            }
        }
    }

    /// Returns the subnets with their elastic addresses: those that a member names, those that the load balancer has, or those
    /// whose tags mark them for the scheme.
    fn merge_frontend_subnets(
        &mut self,
        specs: &[MemberSpec<'a>],
        requester: &MemberSpec<'a>,
        scheme: Scheme,
    ) -> Result<Value<Vec<SubnetMapping>>, Unmerged> {
        let named = self.merge_exclusive(
            specs,
            merged::FRONTEND_NLB_SUBNETS,
            "the list of subnets of the Network Load Balancer in front",
            |spec| spec.frontend.subnets.clone(),
            |observed, names| {
                let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
                existing(observed).any(|b| b.subnets.iter().map(SubnetId::as_str).eq(names.iter().copied()))
            },
            |names| quoted(names),
        )?;
        let addresses = self.merge_exclusive(
            specs,
            merged::FRONTEND_NLB_EIP_ALLOCATIONS,
            "the list of elastic addresses of the Network Load Balancer in front",
            |spec| spec.frontend.elastic_addresses.clone(),
            |_, _| false,
            |names| quoted(names),
        )?;
        let (kind, ipv6) = (LoadBalancerKind::Network, self.ip_address_type.has_ipv6());
        let kept = self.facts.frontend.iter().find(|existing| existing.scheme == scheme);
        let (query, key) = match (named, kept) {
            (Some(names), _) => (SubnetQuery::Named { kind, names, ipv6 }, keys::FRONTEND_NLB_SUBNETS),
            (None, Some(kept)) => {
                let names = kept.subnets.iter().map(|id| id.as_str().to_owned()).collect();
                (SubnetQuery::Named { kind, names, ipv6 }, keys::FRONTEND_NLB_SUBNETS)
            }
            (None, None) => (SubnetQuery::Discovered { kind, scheme, ipv6 }, keys::FRONTEND_NLB_SCHEME),
        };
        let asks = |spec: &&MemberSpec<'a>| spec.frontend.subnets.is_some();
        let blamed = specs.iter().find(asks).unwrap_or(requester).member.name().clone();
        let (fact, object) = (self.facts.subnets(&query), ObjectReference::ingress(&blamed));
        let found = match self.sink.resolve(fact, FactQuery::Subnets(query), object, Code::Subnets, key.as_str()) {
            Ok(found) => found,
            Err(Failed) => return Err(Unmerged::Freeze([blamed].into())),
        };
        let Some(addresses) = addresses else {
            return Ok(match found {
                Value::Known(found) => {
                    Value::Known(found.into_iter().map(|subnet| SubnetMapping::plain(subnet.id)).collect())
                }
                Value::AfterApply(why) => Value::AfterApply(why),
            });
        };
        let asks = |spec: &&MemberSpec<'a>| spec.frontend.elastic_addresses.is_some();
        let blamed: BTreeSet<_> = specs.iter().filter(asks).map(|spec| spec.member.name().clone()).collect();
        let (message, fix) = match &found {
            _ if scheme == Scheme::Internal => (
                "elastic addresses are for internet-facing load balancers, and the Network Load Balancer in front is internal".to_owned(),
                format!("write `{}: internet-facing`, or remove the annotation", keys::FRONTEND_NLB_SCHEME),
            ),
            Value::Known(found) if found.len() != addresses.len() => (
                format!("{} elastic addresses are named for {} subnets", addresses.len(), found.len()),
                format!(
                    "name one elastic address for each subnet, in their order, or other subnets in `{}`: those that it has are kept",
                    keys::FRONTEND_NLB_SUBNETS
                ),
            ),
            Value::Known(found) => {
                let pairs = found.iter().zip(addresses);
                let mapping = pairs.map(|(subnet, address)| SubnetMapping {
                    allocation: Some(address),
                    ..SubnetMapping::plain(subnet.id.clone())
                });
                return Ok(Value::Known(mapping.collect()));
            }
            Value::AfterApply(why) => return Ok(Value::AfterApply(why)),
        };
        for name in &blamed {
            let field = keys::FRONTEND_NLB_EIP_ALLOCATIONS.as_str();
            self.error(name, Code::InvalidValue, field, &message, &fix);
        }
        Err(Unmerged::Freeze(blamed))
    }

    /// Returns what stands in front of a load balancer.
    pub(super) fn frontend(
        &mut self,
        merged: MergedFrontend,
        behind: &LoadBalancer,
        user_tags: &Tags,
    ) -> Result<Frontend, Failed> {
        let MergedFrontend { scheme, subnets, security_groups, ports, health_check, attributes, tags, cause } = merged;
        let named = |name: fn(&LoadBalancerName, Scheme) -> Result<LoadBalancerName, InvalidName>| match &behind.name {
            Value::Known(behind) => Value::Known(name(behind, scheme)),
            Value::AfterApply(why) => Value::AfterApply(why),
        };
        let both = (named(|behind, _| names::frontend(behind)), named(names::second_frontend));
        let both = (shared::names::valid(both.0), shared::names::valid(both.1));
        let (Ok(name), Ok(second_name)) = both else { return Err(Failed) };
        let tagged = |resource: &ResourceId| match &tags {
            Some(tags) => self.group.resource_tags(&self.config.cluster, resource, &Tags::new(), tags),
            None => shared::tags::of_resource(self.config, self.group, resource, user_tags),
        };
        let load_balancer = LoadBalancer {
            kind: LoadBalancerKind::Network,
            name,
            scheme,
            ip_address_type: behind.ip_address_type,
            subnets,
            security_groups: security_groups.unwrap_or_else(|| behind.security_groups.clone()),
            attributes,
            attribute_causes: BTreeMap::new(),
            add_ons: AddOns::default(),
            network: NetworkSettings::default(),
            pools: AddressPools::default(),
            tags: tagged(&ResourceId::frontend()),
            cause: cause.clone(),
        };
        let mut listeners = BTreeMap::new();
        for (port, target_port) in ports {
            let resource = ResourceId::frontend_target_group(port);
            let both = self.named(|cluster| {
                names::frontend_target_group(names::FrontendTargetGroupIdentity {
                    cluster,
                    group: self.group,
                    port,
                    check_port: &health_check.port,
                    check_protocol: health_check.protocol,
                })
            });
            let (name, second_name) =
                shared::names::unzip(shared::names::valid(both).map_err(|_: InvalidName| Failed)?);
            let target_group = FrontendTargetGroup {
                tags: tagged(&resource),
                resource,
                name,
                second_name,
                port,
                vpc: self.config.vpc.clone(),
                health_check: health_check.clone(),
            };
            let tags = self.config.of_listeners(tagged(&ResourceId::frontend_listener(port)));
            listeners.insert(port, FrontendListener { target_port, tags, target_group, cause: cause.clone() });
        }
        Ok(Frontend { load_balancer, second_name, listeners })
    }
}
