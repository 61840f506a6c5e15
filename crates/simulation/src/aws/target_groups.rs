//! The target groups of ELB v2 and their targets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    account::{ACCOUNT, Check, REGION, Session, TargetGroup, VPC, not_found, not_simulated},
    attributes,
    listeners::{is_quic, is_udp},
    wire::{Answer, Refusal, element, members, optional, refusal, text, texts},
};
use albatross_core::model::EVERY_ZONE;

/// The duration of a target's first health checks.
const CHECKING: Duration = Duration::from_secs(20);
/// The maximum number of targets in one call.
const AT_ONCE: usize = 200;

/// A state, with the reason as a code and as a description.
type Health<'a> = (&'a str, Option<(&'static str, &'static str)>);

fn invalid(message: impl Into<String>) -> Refusal {
    refusal("ValidationError", message)
}

/// Refuses an address outside the VPC or in a Local Zone without a zone, and an address inside with `all`.
fn check_zone(address: IpAddr, zone: Option<&str>, inside: bool, in_local_zone: bool) -> Result<(), Refusal> {
    match zone {
        None if !inside => Err(invalid(format!(
            "The Availability Zone is required for IP address '{address}' because it is not in the VPC"
        ))),
        None if in_local_zone => Err(invalid(format!("For '{address}' you must specify an Availability Zone"))),
        Some(EVERY_ZONE) if inside => Err(invalid(format!(
            "The IP address '{address}' is within the VPC, and cannot have its Availability Zone overridden to 'all'"
        ))),
        _ => Ok(()),
    }
}

fn is_web(protocol: &str) -> bool {
    matches!(protocol, "HTTP" | "HTTPS")
}

impl Session<'_> {
    fn target_group_xml(&self, group: &TargetGroup) -> String {
        let check = &group.check;
        let users = self.account.users(&group.arn).map(|balancer| &balancer.arn);
        [
            text("TargetGroupArn", &group.arn),
            text("TargetGroupName", &group.name),
            text("Protocol", &group.protocol),
            text("Port", group.port),
            text("VpcId", &group.vpc),
            text("HealthCheckProtocol", &check.protocol),
            text("HealthCheckPort", &check.port),
            text("HealthCheckEnabled", check.enabled),
            text("HealthCheckIntervalSeconds", check.interval),
            text("HealthCheckTimeoutSeconds", check.timeout),
            text("HealthyThresholdCount", check.healthy),
            text("UnhealthyThresholdCount", check.unhealthy),
            optional("HealthCheckPath", check.path.as_ref()),
            check.matcher.as_ref().map(|(kind, codes)| element("Matcher", &text(kind, codes))).unwrap_or_default(),
            texts("LoadBalancerArns", users),
            text("TargetType", &group.target_type),
            optional("ProtocolVersion", group.protocol_version.as_ref()),
            text("IpAddressType", &group.ip_address_type),
        ]
        .concat()
    }

    /// Returns the health check of a request, completed with the existing settings.
    fn wanted_check(&self, group: &str, old: Option<&Check>, version: Option<&str>) -> Result<Check, Refusal> {
        let request = self.request;
        let field = |name: &str| request.text(name).map(str::to_owned);
        let default = if is_web(group) { "HTTP" } else { "TCP" };
        let protocol =
            field("HealthCheckProtocol").or(old.map(|c| c.protocol.clone())).unwrap_or_else(|| default.to_owned());
        if !is_web(&protocol) && (protocol != "TCP" || is_web(group)) {
            let message = format!("Health check protocol '{protocol}' is not supported with the protocol '{group}'");
            return Err(invalid(message));
        }
        let asks = is_web(&protocol);
        let grpc = version == Some("GRPC");
        let path = field("HealthCheckPath");
        let matcher = ["HttpCode", "GrpcCode"]
            .into_iter()
            .find_map(|kind| Some((kind.to_owned(), field(&format!("Matcher.{kind}"))?)));
        if !asks && (path.is_some() || matcher.is_some()) {
            return Err(invalid("Health checks of the protocol TCP have neither path nor matcher"));
        }
        if path.as_ref().is_some_and(|path| !path.starts_with('/') || path.len() > 1024) {
            return Err(invalid("The health check path must begin with '/' and have at most 1024 characters"));
        }
        if matcher.as_ref().is_some_and(|(kind, codes)| (kind == "GrpcCode") != grpc || codes.is_empty()) {
            return Err(invalid("The matcher does not go with the protocol version"));
        }
        let default_matcher = match (grpc, is_web(group)) {
            (true, _) => ("GrpcCode", "12"),
            (false, true) => ("HttpCode", "200"),
            (false, false) => ("HttpCode", "200-399"),
        };
        let default_matcher = (default_matcher.0.to_owned(), default_matcher.1.to_owned());
        let default_path = if grpc { "/AWS.ALB/healthcheck" } else { "/" };
        let number = |name: &str, limits, old: Option<i32>, default: i32| {
            Ok::<_, Refusal>(request.within(name, limits)?.or(old).unwrap_or(default))
        };
        let check = Check {
            enabled: request.text("HealthCheckEnabled").map_or(old.is_none_or(|c| c.enabled), |word| word == "true"),
            port: field("HealthCheckPort").or(old.map(|c| c.port.clone())).unwrap_or_else(|| "traffic-port".to_owned()),
            path: path.or(old.and_then(|c| c.path.clone())).or(Some(default_path.to_owned())).filter(|_| asks),
            interval: number("HealthCheckIntervalSeconds", 5..=300, old.map(|c| c.interval), 30)?,
            timeout: number("HealthCheckTimeoutSeconds", 2..=120, old.map(|c| c.timeout), 5)?,
            healthy: number("HealthyThresholdCount", 2..=10, old.map(|c| c.healthy), 5)?,
            unhealthy: number("UnhealthyThresholdCount", 2..=10, old.map(|c| c.unhealthy), 2)?,
            matcher: matcher.or(old.and_then(|c| c.matcher.clone())).or(Some(default_matcher)).filter(|_| asks),
            protocol,
        };
        if check.port != "traffic-port" && !check.port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(invalid(format!("Health check port '{}' must be 'traffic-port' or a port", check.port)));
        }
        if check.timeout >= check.interval && is_web(group) {
            return Err(invalid("Health check interval must be greater than the timeout."));
        }
        Ok(check)
    }

    pub(super) fn create_target_group(&mut self) -> Answer {
        let request = self.request;
        let name = request.need("Name")?.to_owned();
        let target_type = request.text("TargetType").unwrap_or("instance").to_owned();
        let ip_address_type = request.text("IpAddressType").unwrap_or("ipv4").to_owned();
        let protocol = request.need("Protocol")?.to_owned();
        let port: u16 = request.number("Port")?.ok_or_else(|| invalid("A port must be specified"))?;
        let vpc = request.need("VpcId")?;
        let tags = self.wanted_tags()?;
        if target_type == "alb" && protocol != "TCP" {
            return Err(invalid(format!("The protocol '{protocol}' is not supported with the target type 'alb'")));
        }
        if !matches!(target_type.as_str(), "instance" | "ip" | "alb") {
            return Err(not_simulated(format!("target groups of type '{target_type}'")));
        }
        if !is_web(&protocol) && !matches!(protocol.as_str(), "TCP" | "TLS") && !is_udp(&protocol) {
            return Err(not_simulated(format!("target groups of the protocol '{protocol}'")));
        }
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let edges = name.starts_with('-') || name.ends_with('-');
        if name.is_empty() || name.len() > 32 || !name.chars().all(good) || edges {
            return Err(invalid(format!("Target group name '{name}' is not valid")));
        }
        if vpc != VPC {
            return Err(invalid(format!("The VPC ID '{vpc}' is not found")));
        }
        if port == 0 {
            return Err(invalid("Port '0' must be between 1 and 65535"));
        }
        let version = request.text("ProtocolVersion");
        if version.is_some_and(|v| !is_web(&protocol) || !matches!(v, "HTTP1" | "HTTP2" | "GRPC")) {
            return Err(invalid("The protocol version does not go with the protocol"));
        }
        let protocol_version = version.or(is_web(&protocol).then_some("HTTP1")).map(str::to_owned);
        let checked = if target_type == "alb" { "HTTP" } else { &protocol };
        let check = self.wanted_check(checked, None, protocol_version.as_deref())?;
        if let Some(old) = self.account.target_groups.values().find(|group| group.name == name) {
            let kind = (&old.target_type, &old.ip_address_type) == (&target_type, &ip_address_type);
            let same = (&old.protocol, &old.protocol_version, old.port, &old.check)
                == (&protocol, &protocol_version, port, &check)
                && kind;
            let message = format!("A target group with the same name '{name}' exists, but with different settings");
            return if same {
                Ok(members("TargetGroups", [self.target_group_xml(old)]))
            } else {
                Err(refusal("DuplicateTargetGroupName", message))
            };
        }
        if self.account.target_groups.len() >= self.account.limits.target_groups {
            return Err(refusal("TooManyTargetGroups", "The maximum number of target groups has been reached"));
        }
        let id = self.account.id();
        let group = TargetGroup {
            arn: format!("arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:targetgroup/{name}/{id}"),
            name,
            vpc: VPC.to_owned(),
            attributes: attributes::of_target_group(&protocol, &target_type),
            target_type,
            ip_address_type,
            protocol,
            protocol_version,
            port,
            check,
            tags,
            targets: BTreeMap::new(),
            zones: BTreeMap::new(),
            server_ids: BTreeMap::new(),
            healths: BTreeMap::new(),
            draining: BTreeMap::new(),
            used_since: None,
            made: self.now,
        };
        let answer = members("TargetGroups", [self.target_group_xml(&group)]);
        self.account.target_groups.insert(group.arn.clone(), group);
        Ok(answer)
    }

    pub(super) fn describe_target_groups(&mut self) -> Answer {
        let (arns, names) = (self.request.list("TargetGroupArns"), self.request.list("Names"));
        let balancer = self.request.text("LoadBalancerArn");
        if usize::from(!arns.is_empty()) + usize::from(!names.is_empty()) + usize::from(balancer.is_some()) > 1 {
            return Err(invalid("Target group ARNs, names and a load balancer cannot be specified together"));
        }
        let used = match balancer {
            Some(arn) => Some(self.balancer(arn)?.target_groups().into_iter().cloned().collect::<BTreeSet<_>>()),
            None => None,
        };
        let all = arns.is_empty() && names.is_empty();
        let asked = |g: &TargetGroup| arns.contains(&g.arn.as_str()) || names.contains(&g.name.as_str());
        let seen = |g: &&TargetGroup| {
            self.reaches(&g.arn)
                && match &used {
                    Some(used) => used.contains(&g.arn),
                    None if all => self.lists(g.made),
                    None => asked(g) && self.sees(g.made),
                }
        };
        let found: Vec<_> = self.account.target_groups.values().filter(seen).collect();
        if let Some(arn) = arns.iter().find(|arn| !found.iter().any(|g| g.arn == **arn)) {
            return Err(not_found(arn));
        }
        if names.iter().any(|name| !found.iter().any(|g| g.name == *name)) {
            return Err(refusal("TargetGroupNotFound", "One or more target groups not found"));
        }
        let found = found.into_iter().map(|group| (group.arn.clone(), self.target_group_xml(group))).collect();
        let (page, next) = self.page(found)?;
        Ok(members("TargetGroups", page) + &next)
    }

    pub(super) fn modify_target_group(&mut self) -> Answer {
        let arn = self.request.need("TargetGroupArn")?;
        let group = self.target_group(arn)?.clone();
        let checked = if group.target_type == "alb" { "HTTP" } else { &group.protocol };
        let check = self.wanted_check(checked, Some(&group.check), group.protocol_version.as_deref())?;
        self.target_group(arn)?.check = check.clone();
        Ok(members("TargetGroups", [self.target_group_xml(&TargetGroup { check, ..group })]))
    }

    pub(super) fn delete_target_group(&mut self) -> Answer {
        let arn = self.request.need("TargetGroupArn")?.to_owned();
        // The deletion of a deleted target group succeeds. A new one that is not visible yet must not count as deleted
        // here, because it would stay.
        if self.account.users(&arn).next().is_some() {
            let message = format!("Target group '{arn}' is currently in use by a listener or a rule");
            return Err(refusal("ResourceInUse", message));
        }
        self.account.target_groups.remove(&arn);
        Ok(String::new())
    }

    /// Returns the targets of a request, each with its port.
    fn wanted_targets(&self, port: u16) -> Result<Vec<(String, u16)>, Refusal> {
        let mut targets = Vec::new();
        for item in self.request.items("Targets") {
            let id = self.request.need(&format!("{item}.Id"))?.to_owned();
            targets.push((id, self.request.number(&format!("{item}.Port"))?.unwrap_or(port)));
        }
        if targets.is_empty() || targets.len() > AT_ONCE {
            return Err(invalid(format!("A call takes 1 to {AT_ONCE} targets")));
        }
        Ok(targets)
    }

    /// Returns the zones of the targets of a request, in order.
    fn wanted_zones(&self) -> Vec<Option<String>> {
        let zone = |item: String| self.request.text(&format!("{item}.AvailabilityZone")).map(str::to_owned);
        self.request.items("Targets").into_iter().map(zone).collect()
    }

    /// Returns the QUIC server ids of the targets of a request, in order. Targets of QUIC have one each, and no others have.
    fn wanted_server_ids(&self, protocol: &str) -> Result<Vec<Option<String>>, Refusal> {
        let of = |item: String| {
            let written = self.request.text(&format!("{item}.QuicServerId"));
            let is_valid = |id: &str| {
                let digits = id.strip_prefix("0x").unwrap_or_default();
                digits.len() == 16 && digits.chars().all(|digit| matches!(digit, '0'..='9' | 'a'..='f'))
            };
            match written {
                Some(id) if is_quic(protocol) && is_valid(id) => Ok(Some(id.to_owned())),
                Some(id) if is_quic(protocol) => Err(invalid(format!("The QUIC server ID '{id}' is not valid"))),
                None if is_quic(protocol) => Err(invalid(format!(
                    "A QUIC server ID is required for target groups with the protocol '{protocol}'"
                ))),
                Some(_) => Err(invalid(format!("A QUIC server ID is not supported with the protocol '{protocol}'"))),
                None => Ok(None),
            }
        };
        self.request.items("Targets").into_iter().map(of).collect()
    }

    /// Refuses another id of a registered target, and one that another target has.
    fn check_server_ids(group: &TargetGroup, wanted: &[((String, u16), Option<String>)]) -> Result<(), Refusal> {
        let mut ids: BTreeMap<&String, &(String, u16)> = BTreeMap::new();
        let registered = group.server_ids.iter().filter(|(target, _)| group.targets.contains_key(*target));
        ids.extend(registered.map(|(target, id)| (id, target)));
        for (target, id) in wanted {
            let Some(id) = id else { continue };
            let has = group.server_ids.get(target).filter(|_| group.targets.contains_key(target));
            if has.is_some_and(|has| has != id) {
                return Err(invalid(format!("The QUIC server ID of the target '{}' cannot be modified", target.0)));
            }
            if ids.insert(id, target).is_some_and(|other| other != target) {
                return Err(invalid(format!("The QUIC server ID '{id}' is already in use")));
            }
        }
        Ok(())
    }

    /// Returns true if a load balancer may become the target of a target group: an active Application Load Balancer with a
    /// listener on the port, and the only target.
    fn may_be_target(&self, group: &str, id: &str, port: u16) -> bool {
        let balancer = self.account.balancers.get(id).filter(|balancer| balancer.is_application());
        let serves = balancer.is_some_and(|balancer| {
            !self.is_provisioning(balancer) && balancer.listeners.values().any(|listener| listener.port == port)
        });
        let targets = self.account.target_groups.get(group).map(|group| &group.targets);
        serves && targets.is_some_and(|targets| targets.keys().all(|target| *target == (id.to_owned(), port)))
    }

    pub(super) fn register_targets(&mut self) -> Answer {
        let now = self.now;
        let arn = self.request.need("TargetGroupArn")?;
        let group = self.target_group(arn)?;
        let (port, target_type, vpc) = (group.port, group.target_type.clone(), group.vpc.clone());
        let of_ipv6 = group.ip_address_type == "ipv6";
        let targets = self.wanted_targets(port)?;
        let zones = self.wanted_zones();
        let protocol = self.target_group(arn)?.protocol.clone();
        let server_ids = self.wanted_server_ids(&protocol)?;
        let network = &self.account.network;
        for ((id, port), zone) in targets.iter().zip(&zones) {
            if let ("ip", Ok(address)) = (target_type.as_str(), id.parse::<IpAddr>()) {
                check_zone(address, zone.as_deref(), network.holds(&vpc, address), network.local_zones.contains(id))?;
            }
            let is_good = match target_type.as_str() {
                "ip" => id.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() == of_ipv6),
                "alb" => self.may_be_target(arn, id, *port),
                _ => network.instances.contains_key(id),
            };
            if !is_good || *port == 0 {
                return Err(refusal("InvalidTarget", format!("The following targets are not valid: '{id}:{port}'")));
            }
        }
        let refused: Vec<String> = targets
            .iter()
            .filter(|(id, _)| self.account.refused_targets.contains(id))
            .map(|(id, _)| format!("'{id}'"))
            .collect();
        if !refused.is_empty() {
            let message = if self.account.names_refused_targets {
                format!("The following targets are not in a running state: {}", refused.join(", "))
            } else {
                "words".to_owned()
            };
            return Err(refusal("InvalidTarget", message));
        }
        let most = self.account.limits.targets;
        let group = self.target_group(arn)?;
        let new = targets.iter().filter(|target| !group.targets.contains_key(*target)).count();
        if group.targets.len() + new > most {
            let message = format!("The maximum number of targets of the target group, {most}, has been reached");
            return Err(refusal("TooManyTargets", message));
        }
        let identified: Vec<_> = targets.iter().cloned().zip(server_ids).collect();
        Self::check_server_ids(group, &identified)?;
        let ids = identified.into_iter().filter_map(|(target, id)| Some((target, id?)));
        group.server_ids.extend(ids);
        for (target, zone) in targets.into_iter().zip(zones) {
            group.draining.remove(&target);
            match zone {
                Some(zone) => drop(group.zones.insert(target.clone(), zone)),
                None => drop(group.zones.remove(&target)),
            }
            group.targets.entry(target).or_insert(now);
        }
        Ok(String::new())
    }

    pub(super) fn deregister_targets(&mut self) -> Answer {
        let now = self.now;
        let arn = self.request.need("TargetGroupArn")?.to_owned();
        let port = self.target_group(&arn)?.port;
        let targets = self.wanted_targets(port)?;
        let zones = self.wanted_zones();
        let protocol = self.target_group(&arn)?.protocol.clone();
        self.wanted_server_ids(&protocol)?;
        let is_used = self.account.users(&arn).next().is_some();
        let group = self.target_group(&arn)?;
        // AWS requires the zone, as for a registration.
        let unzoned =
            targets.iter().zip(&zones).find(|(target, zone)| zone.is_none() && group.zones.contains_key(target));
        if let Some(((id, _), _)) = unzoned {
            return Err(invalid(format!("For '{id}' you must specify an Availability Zone")));
        }
        for target in targets {
            group.healths.remove(&target);
            // A target of an unused group has no requests to drain.
            let registered = group.targets.remove(&target).is_some();
            if registered && is_used {
                group.draining.insert(target, now);
            } else {
                group.zones.remove(&target);
                group.server_ids.remove(&target);
            }
        }
        Ok(String::new())
    }

    pub(super) fn describe_target_health(&mut self) -> Answer {
        let now = self.now;
        let arn = self.request.need("TargetGroupArn")?.to_owned();
        let is_used = self.account.users(&arn).next().is_some();
        let group = self.target_group(&arn)?;
        let delay = group.attributes.get("deregistration_delay.timeout_seconds");
        let delay = Duration::from_secs(delay.and_then(|seconds| seconds.parse().ok()).unwrap_or(300));
        group.draining.retain(|_, since| is_used && now.saturating_duration_since(*since) < delay);
        let used_since = group.used_since;
        let health = |registered: Instant| {
            let since = used_since.map_or(registered, |used| used.max(registered));
            if !is_used {
                let description = "Target group is not configured to receive traffic from the load balancer";
                ("unused", Some(("Target.NotInUse", description)))
            } else if now.saturating_duration_since(since) < CHECKING {
                ("initial", Some(("Elb.RegistrationInProgress", "Target registration is in progress")))
            } else {
                ("healthy", None)
            }
        };
        let draining = ("draining", Some(("Target.DeregistrationInProgress", "Target deregistration is in progress")));
        let all = group.targets.iter().map(|(target, at)| match group.healths.get(target) {
            Some(state) => (target, (state.as_str(), None)),
            None => (target, health(*at)),
        });
        let all = all.chain(group.draining.keys().map(|target| (target, draining)));
        let description = |((id, port), (state, why)): (&(String, u16), Health<'_>)| {
            let why = why.map(|(reason, words)| text("Reason", reason) + &text("Description", words));
            let zone = group.zones.get(&(id.clone(), *port)).map(|zone| text("AvailabilityZone", zone));
            let server_id = optional("QuicServerId", group.server_ids.get(&(id.clone(), *port)));
            element("Target", &(text("Id", id) + &text("Port", port) + &zone.unwrap_or_default() + &server_id))
                + &element("TargetHealth", &(text("State", state) + &why.unwrap_or_default()))
        };
        Ok(members("TargetHealthDescriptions", all.map(description)))
    }
}
