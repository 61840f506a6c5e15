//! The load balancers of ELB v2.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    account::{ACCOUNT, Balancer, REGION, Session, VPC, not_found},
    attributes,
    network::DEFAULT_GROUP,
    wire::{Answer, Refusal, element, members, optional, refusal, text, texts},
};

/// The provisioning time of a new load balancer.
const PROVISIONING: Duration = Duration::from_secs(60);
/// The maximum number of seconds for which the network interfaces of a deleted load balancer stay.
const LINGERING: u64 = 20;

/// Subnets, each with the requested private address.
type Subnets = BTreeMap<String, Option<String>>;

fn impossible(message: impl Into<String>) -> Refusal {
    refusal("InvalidConfigurationRequest", message)
}

impl Session<'_> {
    pub(super) fn is_provisioning(&self, balancer: &Balancer) -> bool {
        self.now.saturating_duration_since(balancer.made) < PROVISIONING
    }

    fn balancer_xml(&self, balancer: &Balancer) -> String {
        let zones = balancer.subnets.iter().map(|(id, address)| {
            let zone = self.account.network.subnets.get(id).map(|subnet| &subnet.zone);
            let address = address.as_ref().map(|address| text("PrivateIPv4Address", address));
            let addresses = members("LoadBalancerAddresses", address);
            text("SubnetId", id) + &optional("ZoneName", zone) + &addresses
        });
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
        let subnets = self.wanted_subnets(is_application, &scheme)?;
        for group in &security_groups {
            self.elb_security_group(group)?;
        }
        let made_in_groups = !security_groups.is_empty();
        if is_application && !made_in_groups {
            security_groups.insert(DEFAULT_GROUP.to_owned());
        }
        if ip_address_type != "ipv4" {
            return Err(refusal("InvalidSubnet", "You must specify subnets with an associated IPv6 CIDR block."));
        }
        if let Some(old) = self.account.balancers.values().find(|balancer| balancer.name == name) {
            let same = (&old.kind, &old.scheme, &old.ip_address_type, &old.subnets, &old.security_groups)
                == (&kind, &scheme, &ip_address_type, &subnets, &security_groups);
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
    fn wanted_subnets(&self, is_application: bool, scheme: &str) -> Result<Subnets, Refusal> {
        let request = self.request;
        let mut wanted: Subnets = request.list("Subnets").into_iter().map(|id| (id.to_owned(), None)).collect();
        for item in request.items("SubnetMappings") {
            let id = request.need(&format!("{item}.SubnetId"))?;
            let address = request.text(&format!("{item}.PrivateIPv4Address"));
            if let Some(allocation) = request.text(&format!("{item}.AllocationId")) {
                let message = format!("The allocation IDs '{allocation}' are not available for use");
                return Err(refusal("AllocationIdNotFound", message));
            }
            if wanted.insert(id.to_owned(), address.map(str::to_owned)).is_some() {
                return Err(impossible(format!("The subnet '{id}' is named more than once")));
            }
        }
        let mut zones = BTreeSet::new();
        for (id, address) in &wanted {
            let subnet = self.account.network.subnets.get(id);
            let subnet =
                subnet.ok_or_else(|| refusal("SubnetNotFound", format!("The subnet ID '{id}' does not exist")))?;
            if !zones.insert(&subnet.zone) {
                return Err(impossible(
                    "A load balancer cannot be attached to multiple subnets in the same Availability Zone",
                ));
            }
            let Some(address) = address else { continue };
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
        balancer.security_groups = groups;
        Ok(texts("SecurityGroupIds", &balancer.security_groups))
    }

    pub(super) fn set_subnets(&mut self) -> Answer {
        let arn = self.request.need("LoadBalancerArn")?;
        let balancer = self.balancer(arn)?;
        let (is_application, scheme) = (balancer.is_application(), balancer.scheme.clone());
        let subnets = self.wanted_subnets(is_application, &scheme)?;
        let zones: Vec<_> = subnets.keys().map(|id| text("SubnetId", id)).collect();
        self.balancer(arn)?.subnets = subnets;
        Ok(members("AvailabilityZones", zones))
    }
}
