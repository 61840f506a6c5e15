//! The load balancers of ELB v2.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    account::{ACCOUNT, Balancer, REGION, Session, SubnetAddresses, VPC, not_found},
    attributes,
    listeners::{is_quic, is_udp},
    network::DEFAULT_GROUP,
    wire::{Answer, Refusal, element, members, optional, refusal, text, texts},
};

/// The provisioning time of a new load balancer.
const PROVISIONING: Duration = Duration::from_secs(60);
/// The maximum number of seconds for which the network interfaces of a deleted load balancer stay.
const LINGERING: u64 = 20;

/// Subnets, each with the requested addresses.
type Subnets = BTreeMap<String, SubnetAddresses>;

fn impossible(message: impl Into<String>) -> Refusal {
    refusal("InvalidConfigurationRequest", message)
}

impl Session<'_> {
    pub(super) fn is_provisioning(&self, balancer: &Balancer) -> bool {
        self.now.saturating_duration_since(balancer.made) < PROVISIONING
    }

    fn balancer_xml(&self, balancer: &Balancer) -> String {
        let zones = balancer.subnets.iter().map(|(id, has)| {
            let zone = self.account.network.subnets.get(id).map(|subnet| &subnet.zone);
            let private = has.private_ipv4.as_ref().map(|address| text("PrivateIPv4Address", address));
            let six = has.ipv6.as_ref().map(|address| text("IPv6Address", address));
            let addresses = members("LoadBalancerAddresses", private.into_iter().chain(six));
            let prefixes = texts("SourceNatIpv6Prefixes", &has.source_nat_prefix);
            text("SubnetId", id) + &optional("ZoneName", zone) + &addresses + &prefixes
        });
        let source_nat = if balancer.source_nat { "on" } else { "off" };
        let source_nat = (!balancer.is_application()).then_some(source_nat);
        let private_link_rules = if balancer.private_link_rules { "on" } else { "off" };
        let has_rules = !balancer.is_application() && balancer.made_in_groups;
        let private_link_rules = has_rules.then_some(private_link_rules);
        let state = if self.is_provisioning(balancer) { "provisioning" } else { "active" };
        let place = if balancer.is_application() { format!("{REGION}.elb") } else { format!("elb.{REGION}") };
        let internal = if balancer.scheme == "internal" { "internal-" } else { "" };
        let number = balancer.arn.rsplit('/').next().unwrap_or_default();
        [
            text("LoadBalancerArn", &balancer.arn),
            text("DNSName", format!("{internal}{}-{number}.{place}.amazonaws.com", balancer.name)),
            text("CanonicalHostedZoneId", "Z1H1FL5HABSF5"),
            text("LoadBalancerName", &balancer.name),
            text("Scheme", &balancer.scheme),
            text("VpcId", VPC),
            element("State", &text("Code", state)),
            text("Type", &balancer.kind),
            members("AvailabilityZones", zones),
            texts("SecurityGroups", &balancer.security_groups),
            text("IpAddressType", &balancer.ip_address_type),
            optional("EnablePrefixForIpv6SourceNat", source_nat),
            optional("CustomerOwnedIpv4Pool", balancer.customer_owned_pool.as_ref()),
            element("IpamPools", &optional("Ipv4IpamPoolId", balancer.ipam_pool.as_ref())),
            optional("EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic", private_link_rules),
        ]
        .concat()
    }

    pub(super) fn create_load_balancer(&mut self) -> Answer {
        let request = self.request;
        let name = request.need("Name")?.to_owned();
        let kind = request.text("Type").unwrap_or("application").to_owned();
        let scheme = request.text("Scheme").unwrap_or("internet-facing").to_owned();
        let ip_address_type = request.text("IpAddressType").unwrap_or("ipv4").to_owned();
        let tags = self.wanted_tags()?;
        let mut security_groups: BTreeSet<String> =
            request.list("SecurityGroups").into_iter().map(str::to_owned).collect();
        let is_application = kind == "application";
        if !is_application && kind != "network" {
            return Err(super::account::not_simulated(format!("load balancers of type '{kind}'")));
        }
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let edges = name.starts_with('-') || name.ends_with('-') || name.starts_with("internal-");
        if name.is_empty() || name.len() > 32 || !name.chars().all(good) || edges {
            return Err(refusal("ValidationError", format!("The load balancer name '{name}' is not valid")));
        }
        let source_nat = self.wanted_source_nat(&ip_address_type)?;
        let customer_owned_pool = request.text("CustomerOwnedIpv4Pool").map(str::to_owned);
        let ipam_pool = request.text("IpamPools.Ipv4IpamPoolId").map(str::to_owned);
        if (ipam_pool.is_some() || customer_owned_pool.is_some()) && !is_application
            || ipam_pool.is_some() && scheme == "internal"
        {
            return Err(impossible("IPAM pools are for internet-facing Application Load Balancers"));
        }
        let subnets = self.wanted_subnets(is_application, &scheme, &ip_address_type, source_nat)?;
        for group in &security_groups {
            self.elb_security_group(group)?;
        }
        let made_in_groups = !security_groups.is_empty();
        if is_application && !made_in_groups {
            security_groups.insert(DEFAULT_GROUP.to_owned());
        }
        if let Some(old) = self.account.balancers.values().find(|balancer| balancer.name == name) {
            let same = (&old.kind, &old.scheme, &old.ip_address_type, &old.subnets, &old.security_groups)
                == (&kind, &scheme, &ip_address_type, &subnets, &security_groups)
                && old.source_nat == source_nat;
            let message = format!("A load balancer with the same name '{name}' exists, but with different settings");
            return if same {
                Ok(members("LoadBalancers", [self.balancer_xml(old)]))
            } else {
                Err(refusal("DuplicateLoadBalancerName", message))
            };
        }
        if self.account.balancers.len() >= self.account.limits.load_balancers {
            return Err(refusal("TooManyLoadBalancers", "The maximum number of load balancers has been reached"));
        }
        let short = if is_application { "app" } else { "net" };
        let id = self.account.id();
        let balancer = Balancer {
            arn: format!("arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:loadbalancer/{short}/{name}/{id}"),
            attributes: attributes::of_load_balancer(&kind),
            name,
            kind,
            scheme,
            ip_address_type,
            source_nat,
            private_link_rules: true,
            capacity: 0,
            ipam_pool,
            customer_owned_pool,
            subnets,
            security_groups,
            made_in_groups,
            tags,
            listeners: BTreeMap::new(),
            web_acl: None,
            protection: None,
            made: self.now,
        };
        let answer = members("LoadBalancers", [self.balancer_xml(&balancer)]);
        self.account.balancers.insert(balancer.arn.clone(), balancer);
        Ok(answer)
    }

    /// Parses `Subnets` and `SubnetMappings`.
    fn wanted_subnets(
        &self,
        is_application: bool,
        scheme: &str,
        ip_address_type: &str,
        source_nat: bool,
    ) -> Result<Subnets, Refusal> {
        let request = self.request;
        let mut wanted: Subnets =
            request.list("Subnets").into_iter().map(|id| (id.to_owned(), SubnetAddresses::default())).collect();
        for item in request.items("SubnetMappings") {
            let id = request.need(&format!("{item}.SubnetId"))?;
            let field = |name: &str| request.text(&format!("{item}.{name}")).map(str::to_owned);
            let addresses = SubnetAddresses {
                private_ipv4: field("PrivateIPv4Address"),
                ipv6: field("IPv6Address"),
                source_nat_prefix: field("SourceNatIpv6Prefix"),
            };
            if let Some(allocation) = request.text(&format!("{item}.AllocationId")) {
                let message = format!("The allocation IDs '{allocation}' are not available for use");
                return Err(refusal("AllocationIdNotFound", message));
            }
            if wanted.insert(id.to_owned(), addresses).is_some() {
                return Err(impossible(format!("The subnet '{id}' is named more than once")));
            }
        }
        let mut zones = BTreeSet::new();
        for (id, addresses) in &mut wanted {
            let subnet = self.account.network.subnets.get(id);
            let subnet =
                subnet.ok_or_else(|| refusal("SubnetNotFound", format!("The subnet ID '{id}' does not exist")))?;
            if !zones.insert(&subnet.zone) {
                return Err(impossible(
                    "A load balancer cannot be attached to multiple subnets in the same Availability Zone",
                ));
            }
            check_ipv6(id, &subnet.ipv6, addresses, is_application, ip_address_type, source_nat)?;
            let Some(address) = &addresses.private_ipv4 else { continue };
            if is_application || scheme != "internal" {
                return Err(impossible("Private IPv4 addresses are for internal Network Load Balancers"));
            }
            if !address.parse::<IpAddr>().is_ok_and(|address| subnet.cidr.contains(&address)) {
                return Err(impossible(format!(
                    "The private IPv4 address '{address}' is not in the CIDR block of subnet '{id}'"
                )));
            }
        }
        if zones.len() < if is_application { 2 } else { 1 } {
            let message = "At least two subnets in two different Availability Zones must be specified";
            return Err(refusal("ValidationError", message));
        }
        Ok(wanted)
    }

    /// Checks a security group for a load balancer, with the error of ELB v2.
    fn elb_security_group(&mut self, id: &str) -> Result<(), Refusal> {
        match self.security_group(id) {
            Ok(_) => Ok(()),
            Err(_) => Err(refusal("InvalidSecurityGroup", format!("One or more security groups are invalid: '{id}'"))),
        }
    }

    pub(super) fn describe_load_balancers(&mut self) -> Answer {
        let (arns, names) = (self.request.list("LoadBalancerArns"), self.request.list("Names"));
        let all = arns.is_empty() && names.is_empty();
        let asked = |b: &Balancer| arns.contains(&b.arn.as_str()) || names.contains(&b.name.as_str());
        let seen = |b: &&Balancer| if all { self.lists(b.made) } else { asked(b) && self.sees(b.made) };
        let found: BTreeMap<_, _> = self.account.balancers.values().filter(seen).map(|b| (&b.arn, b)).collect();
        if let Some(arn) = arns.iter().find(|arn| !found.values().any(|b| b.arn == **arn)) {
            return Err(not_found(arn));
        }
        if let Some(name) = names.iter().find(|name| !found.values().any(|b| b.name == **name)) {
            return Err(refusal("LoadBalancerNotFound", format!("Load balancers '[{name}]' not found")));
        }
        let found = found.into_iter().map(|(arn, balancer)| (arn.clone(), self.balancer_xml(balancer))).collect();
        let (page, next) = self.page(found)?;
        Ok(members("LoadBalancers", page) + &next)
    }

    pub(super) fn delete_load_balancer(&mut self) -> Answer {
        let arn = self.request.need("LoadBalancerArn")?;
        // The deletion of a deleted load balancer succeeds. A new one that is not visible yet must not count as deleted
        // here, because it would stay.
        let Some(balancer) = self.account.balancers.get(arn) else { return Ok(String::new()) };
        if balancer.attributes.get("deletion_protection.enabled").is_some_and(|value| value == "true") {
            let message = format!("Load balancer '{arn}' cannot be deleted because deletion protection is enabled");
            return Err(refusal("OperationNotPermitted", message));
        }
        let mut targets = self.account.target_groups.values().flat_map(|group| group.targets.keys());
        if targets.any(|(id, _)| id == arn) {
            let message = format!("Load balancer '{arn}' cannot be deleted because it is registered as a target");
            return Err(refusal("ResourceInUse", message));
        }
        let until = self.now + Duration::from_secs(self.random.below_u64(LINGERING));
        self.account.lingering.retain(|(_, until)| *until > self.now);
        self.account.lingering.push((balancer.security_groups.clone(), until));
        self.account.balancers.remove(arn);
        Ok(String::new())
    }

    pub(super) fn set_security_groups(&mut self) -> Answer {
        let groups: BTreeSet<_> = self.request.list("SecurityGroups").into_iter().map(str::to_owned).collect();
        let rules = self.request.text("EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic");
        for group in &groups {
            self.elb_security_group(group)?;
        }
        let balancer = self.balancer(self.request.need("LoadBalancerArn")?)?;
        if !balancer.is_application() && !balancer.made_in_groups {
            return Err(impossible(
                "Security groups cannot be associated with a Network Load Balancer that was created without security groups",
            ));
        }
        if groups.is_empty() {
            return Err(refusal("ValidationError", "At least one security group must be specified"));
        }
        balancer.private_link_rules = rules != Some("off");
        balancer.security_groups = groups;
        Ok(texts("SecurityGroupIds", &balancer.security_groups))
    }

    pub(super) fn set_subnets(&mut self) -> Answer {
        let arn = self.request.need("LoadBalancerArn")?;
        let balancer = self.balancer(arn)?;
        let (is_application, scheme) = (balancer.is_application(), balancer.scheme.clone());
        let known = balancer.ip_address_type.clone();
        let ip_address_type = self.request.text("IpAddressType").map_or(known, str::to_owned);
        let source_nat = self.wanted_source_nat(&ip_address_type)?;
        let subnets = self.wanted_subnets(is_application, &scheme, &ip_address_type, source_nat)?;
        self.may_have_addresses(arn, &ip_address_type, source_nat)?;
        let zone = |(id, has): (&String, &SubnetAddresses)| {
            text("SubnetId", id) + &texts("SourceNatIpv6Prefixes", &has.source_nat_prefix)
        };
        let answer = members("AvailabilityZones", subnets.iter().map(zone));
        let balancer = self.balancer(arn)?;
        (balancer.subnets, balancer.ip_address_type, balancer.source_nat) = (subnets, ip_address_type, source_nat);
        Ok(answer)
    }

    pub(super) fn set_ip_address_type(&mut self) -> Answer {
        let arn = self.request.need("LoadBalancerArn")?;
        let ip_address_type = self.request.need("IpAddressType")?.to_owned();
        let source_nat = self.balancer(arn)?.source_nat;
        self.may_have_addresses(arn, &ip_address_type, source_nat)?;
        let balancer = self.balancer(arn)?;
        balancer.ip_address_type.clone_from(&ip_address_type);
        if !balancer.has_ipv6() {
            balancer.subnets.values_mut().for_each(|has| has.ipv6 = None);
        }
        Ok(text("IpAddressType", ip_address_type))
    }

    pub(super) fn modify_ip_pools(&mut self) -> Answer {
        let pool = self.request.text("IpamPools.Ipv4IpamPoolId").map(str::to_owned);
        let removes = !self.request.list("RemoveIpamPools").is_empty();
        let balancer = self.balancer(self.request.need("LoadBalancerArn")?)?;
        if pool.is_some() == removes || !balancer.is_application() || balancer.scheme == "internal" {
            return Err(impossible("IPAM pools are for internet-facing Application Load Balancers"));
        }
        balancer.ipam_pool = pool;
        Ok(element("IpamPools", &optional("Ipv4IpamPoolId", balancer.ipam_pool.as_ref())))
    }

    pub(super) fn describe_capacity_reservation(&mut self) -> Answer {
        let balancer = self.balancer(self.request.need("LoadBalancerArn")?)?;
        Ok(capacity_xml(balancer.capacity))
    }

    pub(super) fn modify_capacity_reservation(&mut self) -> Answer {
        let units: Option<i32> = self.request.number("MinimumLoadBalancerCapacity.CapacityUnits")?;
        let ends = self.request.text("ResetCapacityReservation") == Some("true");
        let arn = self.request.need("LoadBalancerArn")?;
        let balancer = self.balancer(arn)?.clone();
        if self.is_provisioning(&balancer) {
            return Err(impossible("The load balancer must be active"));
        }
        let units = match (units, ends) {
            (Some(units), false) if units > 0 => units,
            (None, true) => 0,
            _ => return Err(impossible("Either a capacity or the end of the reservation must be specified")),
        };
        self.balancer(arn)?.capacity = units;
        Ok(capacity_xml(units))
    }

    /// Parses `EnablePrefixForIpv6SourceNat`.
    fn wanted_source_nat(&self, ip_address_type: &str) -> Result<bool, Refusal> {
        let on = self.request.text("EnablePrefixForIpv6SourceNat") == Some("on");
        if on && ip_address_type != "dualstack" {
            return Err(impossible("EnablePrefixForIpv6SourceNat requires the IP address type dualstack"));
        }
        Ok(on)
    }

    /// Refuses addresses that the listeners of a load balancer do not allow.
    fn may_have_addresses(&mut self, arn: &str, ip_address_type: &str, source_nat: bool) -> Result<(), Refusal> {
        let balancer = self.balancer(arn)?.clone();
        let has_ipv6 = ip_address_type != "ipv4";
        if source_nat && !has_ipv6 {
            return Err(impossible("EnablePrefixForIpv6SourceNat requires the IP address type dualstack"));
        }
        let mut listeners = balancer.listeners.values();
        if has_ipv6 && !source_nat && listeners.any(|listener| is_udp(&listener.protocol)) {
            return Err(impossible("UDP listeners of a dualstack load balancer require EnablePrefixForIpv6SourceNat"));
        }
        if has_ipv6 && balancer.listeners.values().any(|listener| is_quic(&listener.protocol)) {
            return Err(impossible("QUIC and TCP_QUIC listeners are not supported on dualstack load balancers"));
        }
        let groups = balancer.target_groups().into_iter().filter_map(|arn| self.account.target_groups.get(arn));
        if !has_ipv6 && groups.into_iter().any(|group| group.ip_address_type == "ipv6") {
            return Err(impossible("Target groups of the IP address type 'ipv6' require a dualstack load balancer"));
        }
        Ok(())
    }
}

fn capacity_xml(units: i32) -> String {
    let reserved = (units > 0).then(|| element("MinimumLoadBalancerCapacity", &text("CapacityUnits", units)));
    reserved.unwrap_or_default() + &text("DecreaseRequestsRemaining", 2)
}

/// Checks the IPv6 address and the prefix in a subnet, and chooses a prefix where AWS does.
fn check_ipv6(
    id: &str,
    block: &IpNet,
    addresses: &mut SubnetAddresses,
    is_application: bool,
    ip_address_type: &str,
    source_nat: bool,
) -> Result<(), Refusal> {
    if addresses.ipv6.is_some() && (is_application || ip_address_type == "ipv4") {
        return Err(impossible("IPv6 addresses are for dualstack Network Load Balancers"));
    }
    let is_within = |address: &String| address.parse::<IpAddr>().is_ok_and(|address| block.contains(&address));
    if let Some(address) = addresses.ipv6.as_ref().filter(|address| !is_within(address)) {
        return Err(impossible(format!("The IPv6 address '{address}' is not in the subnet '{id}'")));
    }
    if addresses.source_nat_prefix.is_some() && !source_nat {
        return Err(impossible("SourceNatIpv6Prefix requires EnablePrefixForIpv6SourceNat"));
    }
    if !source_nat {
        return Ok(());
    }
    match addresses.source_nat_prefix.as_deref() {
        None | Some("auto_assigned") => {
            let IpAddr::V6(start) = block.addr() else { return Err(impossible("The subnet has no IPv6 CIDR block")) };
            let last = Ipv6Addr::from(u128::from(start) | (0xffff << 48));
            addresses.source_nat_prefix = Some(format!("{last}/80"));
        }
        Some(prefix) => {
            let parsed = prefix.parse::<IpNet>();
            if !parsed.is_ok_and(|parsed| parsed.prefix_len() == 80 && block.contains(&parsed)) {
                return Err(impossible(format!("The prefix '{prefix}' is not a /80 of the subnet '{id}'")));
            }
        }
    }
    Ok(())
}
