//! The target group of a port, with its health check, attributes and binding (reference: service §11, §12).

use std::collections::BTreeSet;

use super::{
    Builder, TARGET_TYPE, TYPE, key,
    load_balancer::Placement,
    security_group::{Access, EVERYWHERE, EVERYWHERE_IPV6, TargetAccess},
};
use crate::{
    api::annotations::{Key, registry::service as keys, values::parse_bool},
    desired::{
        diagnostic_sink::Failed,
        shared::{
            self, subnets,
            target_groups::{self, CheckNumbers, NoNodePort, TRAFFIC_PORT},
        },
    },
    diagnostics::Code,
    facts::{FactQuery, Subnet},
    model::{
        Attributes, Binding, HealthCheck, HealthCheckProtocol, InvalidName, IpAddressType, Matcher, NetworkingPeer,
        NetworkingPort, NetworkingRule, PortReference, ResourceId, Scheme, Tags, TargetGroup, TargetGroupName,
        TargetGroupProtocol, TargetType, Value, names,
    },
    snapshot::{Service, ServicePort},
};

const CHECK_PORT: Key = keys::HEALTHCHECK_PORT;
const GROUP_ATTRIBUTES: Key = keys::TARGET_GROUP_ATTRIBUTES;
const PROXY_PROTOCOL: Key = keys::PROXY_PROTOCOL;
const PROXY_PORTS: Key = keys::PROXY_PROTOCOL_PER_TARGET_GROUP;
const PROXY_ATTRIBUTE: &str = "proxy_protocol_v2.enabled";
const PRESERVE_ATTRIBUTE: &str = "preserve_client_ip.enabled";
const CHECK_NODE_PORT: &str = "the port for health checks that the API server gives the Service";

/// The port of a Service that a target group leads to: the load balancer's own Service, or another of its namespace. The
/// settings of the target group are in the annotations of the load balancer's Service in both cases.
pub(super) struct Backend<'b> {
    pub(super) service: &'b Service,
    pub(super) port: &'b ServicePort,
    pub(super) protocol: TargetGroupProtocol,
    /// The field that requests it: a port of the load balancer's Service, or an annotation.
    pub(super) field: String,
    /// True if an annotation names it.
    pub(super) is_named: bool,
}

impl Backend<'_> {
    /// The field of a part of the port, or the annotation that names it.
    fn part(&self, part: &str) -> String {
        if self.is_named { self.field.clone() } else { format!("{}.{part}", self.field) }
    }

    /// The name of the Service behind the word, where an annotation names it.
    fn of(&self) -> String {
        if self.is_named { format!(" `{}`", self.service.name) } else { String::new() }
    }
}

impl Builder<'_> {
    pub(super) fn target_group(
        &mut self,
        backend: &Backend<'_>,
        access: Option<&Access>,
        placement: Option<&Placement>,
        user_tags: Option<&Tags>,
    ) -> Result<TargetGroup, Failed> {
        let target_type = self.target_type();
        let resource = ResourceId::service_target_group(&backend.service.name, backend.port.port);
        let port = self.traffic_port(backend, target_type);
        let health_check = self.health_check(backend, target_type);
        let attributes = self.group_attributes(backend.port.port);
        let labels = self.value(self.annotations.string_map(keys::TARGET_NODE_LABELS));
        let multi_cluster = self.value(self.annotations.bool(keys::MULTI_CLUSTER_TARGET_GROUP));
        let address_type = self.target_addresses(backend, placement);
        let (port, health_check, attributes) = (port?, health_check?, attributes?);
        let node_labels = labels?.filter(|_| target_type == TargetType::Instance).unwrap_or_default();
        let multi_cluster = multi_cluster?.unwrap_or_default();
        let address_type = address_type?;
        let (access, placement, user_tags) =
            (access.ok_or(Failed)?, placement.ok_or(Failed)?, user_tags.ok_or(Failed)?);
        let traffic = target_groups::opened_port(backend.service, backend.port, target_type, &port);
        let target = TargetPort { traffic: &traffic, target_type, address_type };
        let networking = self.networking(backend, &target, &health_check, &attributes, access, placement)?;
        let (name, second_name) = self.group_names(backend, &target, &port, &health_check, placement.scheme)?;
        Ok(TargetGroup {
            second_name,
            name,
            target_type,
            protocol: backend.protocol,
            protocol_version: None,
            ip_address_type: address_type,
            port,
            vpc: self.config.vpc.clone(),
            health_check,
            attributes,
            tags: self.tags(&resource, user_tags),
            binding: Binding {
                namespace: self.service.name.namespace.clone(),
                labels: self.id.binding_labels(),
                service: backend.service.name.name.clone(),
                service_port: PortReference::Number(backend.port.port),
                node_labels,
                multi_cluster,
                networking,
            },
            resource,
            cause: self.cause(&backend.field),
        })
    }

    /// The name of the target group, and the one where another of the stack has that.
    fn group_names(
        &mut self,
        backend: &Backend<'_>,
        target: &TargetPort<'_>,
        port: &Value<u16>,
        health_check: &HealthCheck,
        scheme: Scheme,
    ) -> Result<(Value<TargetGroupName>, Value<TargetGroupName>), Failed> {
        let hashed = port.known().copied().unwrap_or_default();
        let (own, other) = (&self.service.uid, &backend.service.uid);
        let is_other = backend.service.name != self.service.name;
        let both = self.named(|cluster, owner_uid| {
            let first = names::service_target_group(names::ServiceTargetGroupIdentity {
                cluster,
                owner_uid: is_other.then_some(owner_uid),
                service: &backend.service.name,
                service_uid: if is_other { other } else { own },
                port: hashed,
                service_port: backend.port.port,
                target_type: target.target_type,
                protocol: backend.protocol,
                check_protocol: health_check.protocol,
                check_interval: health_check.interval_seconds,
            })?;
            let second = names::second_service_target_group(&first, scheme, target.address_type)?;
            Ok::<_, InvalidName>((first, second))
        });
        let both = shared::names::valid(both).map_err(|invalid| {
            self.error(Code::InvalidValue, "metadata.name", &invalid.to_string(), "rename the Service")
        })?;
        Ok(shared::names::unzip(match (both, shared::names::of_service(other)) {
            (Value::Known(_), Value::AfterApply(why)) => Value::AfterApply(why),
            (Value::Known(_), _) if port.known().is_none() => Value::AfterApply("named after the Service's node port"),
            (both, _) => both,
        }))
    }

    /// Returns the type of the targets, and reports one that is not known.
    fn target_type(&mut self) -> TargetType {
        let (target_type, unknown) = self.requested_target_type();
        if let Some(other) = unknown {
            let message = format!("`{other}` is not a target type; the targets are instances");
            self.warning(Code::InvalidValue, &key(TARGET_TYPE), &message, "write `ip` or `instance`");
        }
        target_type
    }

    /// Returns the type of the targets, and the value that is not a type.
    pub(super) fn requested_target_type(&self) -> (TargetType, Option<String>) {
        let written = self.annotations.value(TARGET_TYPE).map(|(_, value)| value);
        if self.annotations.value(TYPE).is_some_and(|(_, value)| value == "nlb-ip") || written == Some("ip") {
            return (TargetType::Ip, None);
        }
        match written {
            None => (self.config.default_target_type, None),
            Some("instance") => (TargetType::Instance, None),
            Some(other) => (TargetType::Instance, Some(other.to_owned())),
        }
    }

    /// Returns the family of the targets' addresses: IPv6 where their Service has any, also in addition to others.
    fn target_addresses(
        &mut self,
        backend: &Backend<'_>,
        placement: Option<&Placement>,
    ) -> Result<IpAddressType, Failed> {
        if !backend.service.ipv6 {
            return Ok(IpAddressType::Ipv4);
        }
        let placement = placement.ok_or(Failed)?;
        if placement.address_type.has_ipv6() {
            // AWS allows no IPv6 addresses beside QUIC, so the listener goes on to targets of IPv4 before there are any.
            let existing = subnets::existing_of_scheme(self.facts, placement.scheme);
            let has_quic = existing.is_some_and(|existing| existing.has_quic);
            self.interim |= has_quic;
            return Ok(if has_quic { IpAddressType::Ipv4 } else { IpAddressType::Ipv6 });
        }
        let message =
            format!("the Service{} has IPv6 addresses, and its load balancer has only IPv4 addresses", backend.of());
        let fix = format!("write `dualstack` in `{}`, or set `spec.ipFamilies: [IPv4]`", key(keys::IP_ADDRESS_TYPE));
        let field = if backend.is_named { &backend.field } else { "spec.ipFamilies" };
        Err(self.error(Code::Unsupported, field, &message, &fix))
    }

    /// The port that targets get traffic on. For a named port of pods it is 1: each target is registered with its own.
    fn traffic_port(&mut self, backend: &Backend<'_>, target_type: TargetType) -> Result<Value<u16>, Failed> {
        let Backend { service, port, .. } = backend;
        let of = backend.of();
        // The port of an assumed Service is not known.
        if target_type == TargetType::Ip && port.target_port == PortReference::Number(0) && !service.assumed {
            let mut message = "0 is not a valid port of a pod".to_owned();
            if backend.is_named {
                message = format!("port {} of the Service{of} leads to port 0 of its pods: {message}", port.port);
            }
            let field = backend.part("targetPort");
            return Err(self.error(Code::InvalidValue, &field, &message, "write 1 to 65535, or a port's name"));
        }
        target_groups::traffic_port(self.snapshot.scope, service, port, target_type).map_err(|NoNodePort| {
            let field = backend.part("nodePort");
            let message = format!(
                "port {} of the Service{of} of type {} has no node port, but its targets are instances",
                port.port, service.kind
            );
            let otherwise = if service.kind == "ClusterIP" || service.kind == "ExternalName" {
                if backend.is_named {
                    "make that Service of type NodePort"
                } else {
                    "make the Service of type LoadBalancer"
                }
            } else if service.allocate_load_balancer_node_ports {
                "write the node port that the API server has given it"
            } else {
                "set `spec.allocateLoadBalancerNodePorts: true`"
            };
            let fix = format!("write `{}: ip`, or {otherwise}", key(TARGET_TYPE));
            self.error(Code::Unsupported, &field, &message, &fix)
        })
    }

    fn health_check(&mut self, backend: &Backend<'_>, target_type: TargetType) -> Result<HealthCheck, Failed> {
        let service = backend.service;
        let local = target_type == TargetType::Instance && service.local_traffic && service.kind == "LoadBalancer";
        let word = self.value(self.annotations.string(keys::HEALTHCHECK_PROTOCOL));
        let port = self.check_port(backend, target_type, local);
        let path = self.value(self.annotations.string(keys::HEALTHCHECK_PATH));
        let numbers = CheckNumbers {
            interval_seconds: keys::HEALTHCHECK_INTERVAL,
            timeout_seconds: keys::HEALTHCHECK_TIMEOUT,
            healthy_threshold: keys::HEALTHCHECK_HEALTHY_THRESHOLD,
            unhealthy_threshold: keys::HEALTHCHECK_UNHEALTHY_THRESHOLD,
        };
        let numbers = numbers.read(|key| match key != keys::HEALTHCHECK_TIMEOUT || self.reads_detail(key) {
            true => self.value(self.annotations.i32(key)),
            false => Ok(None),
        });
        let codes = match self.reads_detail(keys::HEALTHCHECK_SUCCESS_CODES) {
            true => self.value(self.annotations.string(keys::HEALTHCHECK_SUCCESS_CODES)),
            false => Ok(None),
        };
        let (path, codes) = (path?, codes?);
        let usual = if local { HealthCheckProtocol::Http } else { HealthCheckProtocol::Tcp };
        let word = word?.map(|word| word.to_ascii_uppercase());
        let protocol = word.and_then(|word| HealthCheckProtocol::from_word(&word)).unwrap_or(usual);
        let http = protocol != HealthCheckProtocol::Tcp;
        let defaults = CheckNumbers {
            interval_seconds: 10,
            timeout_seconds: if local { 6 } else { 10 },
            healthy_threshold: if local { 2 } else { 3 },
            unhealthy_threshold: if local { 2 } else { 3 },
        };
        let port = port?;
        let CheckNumbers { interval_seconds, timeout_seconds, healthy_threshold, unhealthy_threshold } =
            numbers.or(defaults)?;
        Ok(HealthCheck {
            port,
            protocol,
            path: http.then(|| path.unwrap_or_else(|| if local { "/healthz" } else { "/" }.to_owned())),
            interval_seconds,
            timeout_seconds,
            healthy_threshold,
            unhealthy_threshold,
            matcher: (http && self.config.nlb_health_check_details)
                .then(|| Matcher::Http(codes.unwrap_or_else(|| "200-399".to_owned()))),
        })
    }

    /// Returns true if the feature gate lets annotations set the details of health checks. One that is written all the same
    /// gets a warning.
    fn reads_detail(&mut self, detail: Key) -> bool {
        if self.config.nlb_health_check_details {
            return true;
        }
        if self.annotations.value(detail).is_some() {
            let message = "the controller runs with `--feature-gates=NLBHealthCheckAdvancedConfig=false`, so that the setting has no effect";
            let fix =
                "start the controller with `--feature-gates=NLBHealthCheckAdvancedConfig=true`, or remove the setting";
            self.warning(Code::NoEffect, &key(detail), message, fix);
        }
        false
    }

    fn check_port(&mut self, backend: &Backend<'_>, target_type: TargetType, local: bool) -> Result<String, Failed> {
        let field = key(CHECK_PORT);
        let (service, scope) = (backend.service, self.snapshot.scope);
        let Some(written) = self.value(self.annotations.string(CHECK_PORT))? else {
            return match (local, service.health_check_node_port) {
                (false, _) => Ok(TRAFFIC_PORT.to_owned()),
                (true, Some(port)) => Ok(port.to_string()),
                (true, None) if target_groups::gets_node_port(scope, service) => {
                    Ok(Value::<u16>::AfterApply(CHECK_NODE_PORT).to_string())
                }
                (true, None) => {
                    let at = if backend.is_named { &backend.field } else { "spec.healthCheckNodePort" };
                    let of = backend.of();
                    let message =
                        format!("the traffic policy is `Local`, and the Service{of} has no port for health checks");
                    let fix = format!("write the port that the API server has given it, or one in `{field}`");
                    Err(self.error(Code::MissingPort, at, &message, &fix))
                }
            };
        };
        target_groups::check_port(scope, service, target_type, &written).map_err(|error| {
            let (message, fix) = error.explain(&written, backend.is_named.then_some(&service.name));
            self.error(Code::InvalidValue, &field, &message, fix)
        })
    }

    /// The attributes of a port's target group. Proxy protocol is always among them, so that it is switched off again.
    fn group_attributes(&mut self, port: u16) -> Result<Attributes, Failed> {
        let number = port.to_string();
        let of_this_port = keys::PORT_TARGET_GROUP_ATTRIBUTES.with(&number);
        let base = self.value(self.annotations.string_map(GROUP_ATTRIBUTES));
        let own = self.value(self.annotations.string_map(of_this_port));
        let everywhere = self.value(self.annotations.enumerated(PROXY_PROTOCOL, &["*"]));
        let listed = self.proxy_ports();
        self.warn_of_unknown_ports();
        let mut attributes = Attributes::from([(PROXY_ATTRIBUTE.to_owned(), "false".to_owned())]);
        attributes.extend(base?.unwrap_or_default());
        let own = own?.unwrap_or_default();
        let of_port = own.get(PRESERVE_ATTRIBUTE).is_some_and(|value| !value.is_empty());
        attributes.extend(own.into_iter().filter(|(_, value)| !value.is_empty()));
        if let Some(written) = attributes.get(PRESERVE_ATTRIBUTE).filter(|written| parse_bool(written).is_err()) {
            let message = format!("`{PRESERVE_ATTRIBUTE}={written}` is not a boolean");
            let field = if of_port { key(of_this_port) } else { key(GROUP_ATTRIBUTES) };
            return Err(self.error(Code::InvalidValue, &field, &message, "write `true` or `false`"));
        }
        if let Some(ports) = listed? {
            attributes.insert(PROXY_ATTRIBUTE.to_owned(), ports.contains(&port).to_string());
        }
        if everywhere?.is_some() {
            attributes.insert(PROXY_ATTRIBUTE.to_owned(), "true".to_owned());
        }
        attributes.retain(|key, value| key != PROXY_ATTRIBUTE || !value.is_empty());
        Ok(attributes)
    }

    fn proxy_ports(&mut self) -> Result<Option<Vec<u16>>, Failed> {
        let Some(written) = self.value(self.annotations.string_list(PROXY_PORTS))? else { return Ok(None) };
        let wrong: Vec<&str> = written.iter().map(String::as_str).filter(|text| text.parse::<u16>().is_err()).collect();
        if !wrong.is_empty() {
            let message = format!("`{}` is not a port number", wrong.join("`, `"));
            let fix = "write numbers of ports of the Service, separated by commas";
            return Err(self.error(Code::InvalidValue, &key(PROXY_PORTS), &message, fix));
        }
        Ok(Some(written.iter().filter_map(|text| text.parse().ok()).collect()))
    }

    fn warn_of_unknown_ports(&mut self) {
        let own = self.service.ports.iter().map(|port| port.port);
        let known: BTreeSet<String> = own.chain(self.ports_of_others()).map(|port| port.to_string()).collect();
        let has = |text: &str| known.contains(text);
        let start = format!("{}.", keys::PORT_TARGET_GROUP_ATTRIBUTES.as_str());
        let by_key =
            self.service.annotations.keys().filter_map(|written| Some((written, written.strip_prefix(&start)?)));
        let mut absent: Vec<(String, String)> =
            by_key.filter(|(_, port)| !has(port)).map(|(key, port)| (key.clone(), port.to_owned())).collect();
        let listed = self.annotations.string_list(PROXY_PORTS).ok().flatten().unwrap_or_default();
        let numbers = listed.into_iter().filter_map(|text| text.parse::<u16>().ok());
        absent.extend(numbers.map(|n| (key(PROXY_PORTS), n.to_string())).filter(|(_, port)| !has(port)));
        for (field, port) in absent {
            let message = format!("the Service has no port {port}; what is written for it has no effect");
            self.warning(Code::MissingPort, &field, &message, "name one of its ports by number");
        }
    }

    /// Returns the peers that can reach the targets, and the ports.
    fn networking(
        &mut self,
        backend: &Backend<'_>,
        target: &TargetPort<'_>,
        health_check: &HealthCheck,
        attributes: &Attributes,
        access: &Access,
        placement: &Placement,
    ) -> Result<Option<Vec<NetworkingRule>>, Failed> {
        let preserved = match attributes.get(PRESERVE_ATTRIBUTE) {
            Some(written) => parse_bool(written).unwrap_or_default(),
            None => target.target_type == TargetType::Instance,
        };
        match &access.targets {
            TargetAccess::NotManaged => Ok(None),
            TargetAccess::Group(source) => Ok(Some(vec![NetworkingRule {
                from: vec![NetworkingPeer::SecurityGroup(source.clone())],
                ports: self.ports_from_group(backend.protocol, target.traffic, health_check),
            }])),
            TargetAccess::Addresses => {
                self.rules_from_addresses(backend, target, health_check, preserved, placement).map(Some)
            }
        }
    }

    fn ports_from_group(
        &self,
        protocol: TargetGroupProtocol,
        traffic: &PortReference,
        health_check: &HealthCheck,
    ) -> Vec<NetworkingPort> {
        if self.config.disable_restricted_rules {
            return target_groups::unrestricted_ports(protocol.has_udp());
        }
        let checked_apart = target_groups::numbered_check_port(health_check).filter(|port| port != traffic);
        let mut ports = Vec::new();
        if protocol.has_udp() {
            ports.push(NetworkingPort::udp(Some(traffic.clone())));
        }
        // Health checks of UDP and QUIC go over TCP.
        if protocol.has_tcp() || checked_apart.is_none() {
            ports.push(NetworkingPort::tcp(Some(traffic.clone())));
        }
        ports.extend(checked_apart.map(|port| NetworkingPort::tcp(Some(port))));
        ports
    }

    /// The rules where the load balancer is in no security group: clients' addresses where targets see them, and the load
    /// balancer's own.
    fn rules_from_addresses(
        &mut self,
        backend: &Backend<'_>,
        target: &TargetPort<'_>,
        health_check: &HealthCheck,
        preserved: bool,
        placement: &Placement,
    ) -> Result<Vec<NetworkingRule>, Failed> {
        let protocol = backend.protocol;
        let preserved = preserved || protocol.has_udp();
        let (traffic, six) = (target.traffic, target.address_type == IpAddressType::Ipv6);
        let of_family = |subnet: &Subnet| if six { subnet.ipv6_blocks.clone() } else { subnet.ipv4_blocks.clone() };
        let own = match &placement.subnets {
            Value::Known(subnets) => subnets.iter().flat_map(of_family).collect(),
            Value::AfterApply(why) => after_apply(why),
        };
        let (field, ranges) = self.source_ranges_of(backend.service, placement.address_type)?;
        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        if !preserved && !ranges.is_empty() {
            let message = "it has no effect: the load balancer is in no security group, and its targets do not see clients' addresses";
            let fix = format!("write `{PRESERVE_ATTRIBUTE}=true` in `{}`", key(GROUP_ATTRIBUTES));
            self.warning(Code::Unsupported, &field, message, &fix);
        }
        let by_default = preserved && ranges.is_empty();
        let source = match (preserved, ranges.is_empty(), placement.scheme) {
            (false, ..) => own.clone(),
            (true, false, _) => ranges,
            (true, true, Scheme::InternetFacing) => vec![(if six { EVERYWHERE_IPV6 } else { EVERYWHERE }).to_owned()],
            (true, true, Scheme::Internal) => self.vpc_blocks(six)?,
        };
        let checked_apart = target_groups::numbered_check_port(health_check).filter(|port| port != traffic);
        let covered =
            !preserved || by_default || source.iter().any(|block| block == EVERYWHERE || block == EVERYWHERE_IPV6);
        let mut ports = Vec::new();
        if protocol.has_tcp() {
            ports.push(NetworkingPort::tcp(Some(traffic.clone())));
        }
        if protocol.has_udp() {
            ports.push(NetworkingPort::udp(Some(traffic.clone())));
        }
        let mut rules = vec![NetworkingRule { from: peers(source), ports }];
        if !protocol.has_tcp() || checked_apart.is_some() || !covered {
            let port = checked_apart.unwrap_or_else(|| traffic.clone());
            rules.push(NetworkingRule { from: peers(own), ports: vec![NetworkingPort::tcp(Some(port))] });
        }
        Ok(rules)
    }

    /// Returns the blocks of the VPC of one family.
    fn vpc_blocks(&mut self, six: bool) -> Result<Vec<String>, Failed> {
        let fact = self.facts.vpc_blocks();
        match self.sink.resolve(fact, FactQuery::VpcBlocks, self.object(), Code::Unsupported, "spec")? {
            Value::Known(blocks) => Ok(if six { blocks.ipv6 } else { blocks.ipv4 }),
            Value::AfterApply(why) => Ok(after_apply(why)),
        }
    }
}

/// The port and the addresses of a port's targets.
struct TargetPort<'a> {
    traffic: &'a PortReference,
    target_type: TargetType,
    /// The family of their addresses.
    address_type: IpAddressType,
}

fn peers(blocks: Vec<String>) -> Vec<NetworkingPeer> {
    blocks.into_iter().map(NetworkingPeer::Cidr).collect()
}

/// The placeholder of blocks that a plan of files cannot know; such a stack is shown and never applied.
fn after_apply(why: &'static str) -> Vec<String> {
    vec![Value::<String>::AfterApply(why).to_string()]
}
