//! The target group of a port, with its health check, attributes and binding (reference: service §11, §12).

use super::{
    Builder, TARGET_TYPE, TYPE, key,
    listeners::ListenerPort,
    load_balancer::Placement,
    security_group::{Access, EVERYWHERE, EVERYWHERE_IPV6, TargetAccess},
};
use crate::{
    api::annotations::{Key, registry::service as keys, values::parse_bool},
    desired::{
        diagnostic_sink::Failed,
        shared::{
            self,
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
};

const CHECK_PORT: Key = keys::HEALTHCHECK_PORT;
const GROUP_ATTRIBUTES: Key = keys::TARGET_GROUP_ATTRIBUTES;
const PROXY_PROTOCOL: Key = keys::PROXY_PROTOCOL;
const PROXY_PORTS: Key = keys::PROXY_PROTOCOL_PER_TARGET_GROUP;
const PROXY_ATTRIBUTE: &str = "proxy_protocol_v2.enabled";
const PRESERVE_ATTRIBUTE: &str = "preserve_client_ip.enabled";
const CHECK_NODE_PORT: &str = "the port for health checks that the API server gives the Service";

impl<'a> Builder<'a> {
    pub(super) fn target_group(
        &mut self,
        listener_port: &ListenerPort<'a>,
        access: Option<&Access>,
        placement: Option<&Placement>,
        user_tags: Option<&Tags>,
    ) -> Result<TargetGroup, Failed> {
        let target_type = self.target_type();
        let resource = ResourceId::service_target_group(&self.service.name, listener_port.port.port);
        let port = self.traffic_port(listener_port, target_type);
        let health_check = self.health_check(target_type);
        let attributes = self.group_attributes(listener_port.port.port);
        let labels = self.value(self.annotations.string_map(keys::TARGET_NODE_LABELS));
        let address_type = self.target_addresses(placement);
        let (port, health_check, attributes) = (port?, health_check?, attributes?);
        let node_labels = labels?.filter(|_| target_type == TargetType::Instance).unwrap_or_default();
        let address_type = address_type?;
        let (access, placement, user_tags) =
            (access.ok_or(Failed)?, placement.ok_or(Failed)?, user_tags.ok_or(Failed)?);
        let traffic = target_groups::opened_port(self.service, listener_port.port, target_type, &port);
        let target = TargetPort { traffic: &traffic, target_type, address_type };
        let networking = self.networking(listener_port, &target, &health_check, &attributes, access, placement)?;
        let (name, second_name) = self.group_names(listener_port, &target, &port, &health_check, placement.scheme)?;
        Ok(TargetGroup {
            second_name,
            name,
            target_type,
            protocol: listener_port.target_group,
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
                service: self.service.name.name.clone(),
                service_port: PortReference::Number(listener_port.port.port),
                node_labels,
                networking,
            },
            resource,
            cause: self.cause(listener_port.field()),
        })
    }

    /// The name of the target group, and the one where another of the stack has that.
    fn group_names(
        &mut self,
        listener_port: &ListenerPort<'a>,
        target: &TargetPort<'_>,
        port: &Value<u16>,
        health_check: &HealthCheck,
        scheme: Scheme,
    ) -> Result<(Value<TargetGroupName>, Value<TargetGroupName>), Failed> {
        let hashed = port.known().copied().unwrap_or_default();
        let both = self.named(|cluster, service_uid| {
            let first = names::service_target_group(names::ServiceTargetGroupIdentity {
                cluster,
                service: &self.service.name,
                service_uid,
                port: hashed,
                service_port: listener_port.port.port,
                target_type: target.target_type,
                protocol: listener_port.target_group,
                check_protocol: health_check.protocol,
                check_interval: health_check.interval_seconds,
            })?;
            let second = names::second_service_target_group(&first, scheme, target.address_type)?;
            Ok::<_, InvalidName>((first, second))
        });
        let both = shared::names::valid(both).map_err(|invalid| {
            self.error(Code::InvalidValue, "metadata.name", &invalid.to_string(), "rename the Service")
        })?;
        Ok(shared::names::unzip(match both {
            Value::Known(_) if port.known().is_none() => Value::AfterApply("named after the Service's node port"),
            both => both,
        }))
    }

    fn target_type(&mut self) -> TargetType {
        let written = self.annotations.value(TARGET_TYPE).map(|(_, value)| value);
        if self.annotations.value(TYPE).is_some_and(|(_, value)| value == "nlb-ip") || written == Some("ip") {
            return TargetType::Ip;
        }
        match written {
            None => self.config.default_target_type,
            Some("instance") => TargetType::Instance,
            Some(other) => {
                let message = format!("`{other}` is not a target type; the targets are instances");
                self.warning(Code::InvalidValue, &key(TARGET_TYPE), &message, "write `ip` or `instance`");
                TargetType::Instance
            }
        }
    }

    /// Returns the family of the targets' addresses: IPv6 where the Service has any, also in addition to others.
    fn target_addresses(&mut self, placement: Option<&Placement>) -> Result<IpAddressType, Failed> {
        if !self.service.ipv6 {
            return Ok(IpAddressType::Ipv4);
        }
        if placement.ok_or(Failed)?.address_type.has_ipv6() {
            return Ok(IpAddressType::Ipv6);
        }
        let message = "the Service has IPv6 addresses, and its load balancer has only IPv4 addresses";
        let fix = format!("write `dualstack` in `{}`, or set `spec.ipFamilies: [IPv4]`", key(keys::IP_ADDRESS_TYPE));
        Err(self.error(Code::Unsupported, "spec.ipFamilies", message, &fix))
    }

    /// The port that targets get traffic on. For a named port of pods it is 1: each target is registered with its own.
    fn traffic_port(
        &mut self,
        listener_port: &ListenerPort<'_>,
        target_type: TargetType,
    ) -> Result<Value<u16>, Failed> {
        let port = listener_port.port;
        if target_type == TargetType::Ip && port.target_port == PortReference::Number(0) {
            let field = format!("{}.targetPort", listener_port.field());
            let fix = "write 1 to 65535, or a port's name";
            return Err(self.error(Code::InvalidValue, &field, "0 is not a valid port of a pod", fix));
        }
        target_groups::traffic_port(self.scope, self.service, port, target_type).map_err(|NoNodePort| {
            let field = format!("{}.nodePort", listener_port.field());
            let message = format!(
                "port {} of the Service of type {} has no node port, but its targets are instances",
                port.port, self.service.kind
            );
            let otherwise = if self.service.kind == "ClusterIP" || self.service.kind == "ExternalName" {
                "make the Service of type LoadBalancer"
            } else if self.service.allocate_load_balancer_node_ports {
                "write the node port that the API server has given it"
            } else {
                "set `spec.allocateLoadBalancerNodePorts: true`"
            };
            let fix = format!("write `{}: ip`, or {otherwise}", key(TARGET_TYPE));
            self.error(Code::Unsupported, &field, &message, &fix)
        })
    }

    fn health_check(&mut self, target_type: TargetType) -> Result<HealthCheck, Failed> {
        let service = self.service;
        let local = target_type == TargetType::Instance && service.local_traffic && service.kind == "LoadBalancer";
        let word = self.value(self.annotations.string(keys::HEALTHCHECK_PROTOCOL));
        let port = self.check_port(target_type, local);
        let path = self.value(self.annotations.string(keys::HEALTHCHECK_PATH));
        let numbers = CheckNumbers {
            interval_seconds: keys::HEALTHCHECK_INTERVAL,
            timeout_seconds: keys::HEALTHCHECK_TIMEOUT,
            healthy_threshold: keys::HEALTHCHECK_HEALTHY_THRESHOLD,
            unhealthy_threshold: keys::HEALTHCHECK_UNHEALTHY_THRESHOLD,
        };
        let numbers = numbers.read(|key| self.value(self.annotations.i32(key)));
        let codes = self.value(self.annotations.string(keys::HEALTHCHECK_SUCCESS_CODES));
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
            matcher: http.then(|| Matcher::Http(codes.unwrap_or_else(|| "200-399".to_owned()))),
        })
    }

    fn check_port(&mut self, target_type: TargetType, local: bool) -> Result<String, Failed> {
        let field = key(CHECK_PORT);
        let Some(written) = self.value(self.annotations.string(CHECK_PORT))? else {
            return match (local, self.service.health_check_node_port) {
                (false, _) => Ok(TRAFFIC_PORT.to_owned()),
                (true, Some(port)) => Ok(port.to_string()),
                (true, None) if target_groups::gets_node_port(self.scope, self.service) => {
                    Ok(Value::<u16>::AfterApply(CHECK_NODE_PORT).to_string())
                }
                (true, None) => {
                    let message = "the traffic policy is `Local`, and the Service has no port for health checks";
                    let fix = format!("write the port that the API server has given it, or one in `{field}`");
                    Err(self.error(Code::MissingPort, "spec.healthCheckNodePort", message, &fix))
                }
            };
        };
        target_groups::check_port(self.scope, self.service, target_type, &written).map_err(|error| {
            let (message, fix) = error.explain(&written, None);
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
        let has = |text: &str| self.service.ports.iter().any(|port| port.port.to_string() == text);
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
        listener_port: &ListenerPort<'_>,
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
                ports: self.ports_from_group(listener_port.target_group, target.traffic, health_check),
            }])),
            TargetAccess::Addresses => {
                self.rules_from_addresses(listener_port, target, health_check, preserved, placement).map(Some)
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
        // Health checks of UDP go over TCP.
        if protocol != TargetGroupProtocol::Udp || checked_apart.is_none() {
            ports.push(NetworkingPort::tcp(Some(traffic.clone())));
        }
        ports.extend(checked_apart.map(|port| NetworkingPort::tcp(Some(port))));
        ports
    }

    /// The rules where the load balancer is in no security group: clients' addresses where targets see them, and the load
    /// balancer's own.
    fn rules_from_addresses(
        &mut self,
        listener_port: &ListenerPort<'_>,
        target: &TargetPort<'_>,
        health_check: &HealthCheck,
        preserved: bool,
        placement: &Placement,
    ) -> Result<Vec<NetworkingRule>, Failed> {
        let protocol = listener_port.target_group;
        let preserved = preserved || protocol.has_udp();
        let (traffic, six) = (target.traffic, target.address_type == IpAddressType::Ipv6);
        let of_family = |subnet: &Subnet| if six { subnet.ipv6_blocks.clone() } else { subnet.ipv4_blocks.clone() };
        let own = match &placement.subnets {
            Value::Known(subnets) => subnets.iter().flat_map(of_family).collect(),
            Value::AfterApply(why) => after_apply(why),
        };
        let (field, ranges) = self.source_ranges(placement.address_type)?;
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
        if protocol != TargetGroupProtocol::Udp {
            ports.push(NetworkingPort::tcp(Some(traffic.clone())));
        }
        if protocol.has_udp() {
            ports.push(NetworkingPort::udp(Some(traffic.clone())));
        }
        let mut rules = vec![NetworkingRule { from: peers(source), ports }];
        if protocol == TargetGroupProtocol::Udp || checked_apart.is_some() || !covered {
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
