//! The VPC: the resources that exist from the start, and EC2's responses about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use tokio::time::Instant;

use super::{
    account::{REGION, SecurityGroup, Session, VPC, not_simulated},
    wire::{Answer, Refusal, element, optional, refusal, set, tag_set, text},
};
use albatross_core::model::{InterfaceInfo, SecurityGroupId, SecurityGroupRule, Source, Tags};

const CIDR: &str = "10.0.0.0/16";
const IPV6_CIDR: &str = "2001:db8::/56";
const GATEWAY: &str = "igw-1";
/// The security group of all nodes.
pub(super) const NODE_GROUP: &str = "sg-node";
/// The VPC's default security group.
pub(super) const DEFAULT_GROUP: &str = "sg-default";

#[derive(Debug)]
pub(super) struct Subnet {
    pub zone: String,
    pub cidr: IpNet,
    pub ipv6: IpNet,
    is_public: bool,
    tags: Tags,
}

#[derive(Debug)]
pub(super) struct Instance {
    pub address: String,
    pub interfaces: Vec<InterfaceInfo>,
}

#[derive(Debug)]
pub(super) struct Network {
    /// The CIDR blocks, by VPC.
    pub vpcs: BTreeMap<String, Vec<String>>,
    /// The addresses of the VPC that are in a Local Zone.
    pub local_zones: BTreeSet<String>,
    pub subnets: BTreeMap<String, Subnet>,
    /// The instances by id (`i-node0`, …).
    pub instances: BTreeMap<String, Instance>,
    /// The network interfaces without an instance.
    pub interfaces: Vec<InterfaceInfo>,
}

fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Returns the network in its initial state.
pub(super) fn start() -> (Network, BTreeMap<String, SecurityGroup>) {
    let mut subnets = BTreeMap::new();
    for (number, letter) in (0u8..).zip(["a", "b", "c"]) {
        for (kind, third, role, is_public) in [
            ("private", number * 16, "kubernetes.io/role/internal-elb", false),
            ("public", 128 + number * 16, "kubernetes.io/role/elb", true),
        ] {
            let cidr = IpNet::new_assert(IpAddr::from([10, 0, third, 0]), 20);
            let block = u16::from(number) + if is_public { 0x80 } else { 0 };
            let ipv6 = IpNet::new_assert(IpAddr::from([0x2001, 0xdb8, 0, block, 0, 0, 0, 0]), 64);
            let id = format!("subnet-{kind}-{letter}");
            let tags = tags(&[("Name", &id), (role, "1")]);
            subnets.insert(id, Subnet { zone: format!("{REGION}{letter}"), cidr, ipv6, is_public, tags });
        }
    }
    let instance = |number: u8| {
        let address = format!("10.0.{}.10", number * 16);
        let interface = InterfaceInfo {
            id: format!("eni-node{number}"),
            device_index: Some(0),
            addresses: BTreeSet::from([address.clone()]),
            ipv4_prefixes: Vec::new(),
            ipv6_prefixes: Vec::new(),
            security_groups: vec![SecurityGroupId::new(NODE_GROUP)],
        };
        Instance { address, interfaces: vec![interface] }
    };
    let instances = (0..3).map(|number| (format!("i-node{number}"), instance(number))).collect();
    let vpcs = BTreeMap::from([(VPC.to_owned(), vec![CIDR.to_owned(), IPV6_CIDR.to_owned()])]);
    let within = |id: &str| SecurityGroupRule {
        protocol: "-1".to_owned(),
        from_port: None,
        to_port: None,
        source: Source::SecurityGroup(SecurityGroupId::new(id)),
        description: String::new(),
    };
    let group = |id: &str, name: &str, tags| SecurityGroup {
        id: id.to_owned(),
        name: name.to_owned(),
        description: name.to_owned(),
        ingress: BTreeSet::from([within(id)]),
        tags,
        made: Instant::now(),
    };
    let groups = [
        group(NODE_GROUP, "node", tags(&[("Name", "node"), ("kubernetes.io/cluster/demo", "owned")])),
        group(DEFAULT_GROUP, "default", Tags::new()),
    ];
    let network = Network { vpcs, local_zones: BTreeSet::new(), subnets, instances, interfaces: Vec::new() };
    (network, groups.into_iter().map(|group| (group.id.clone(), group)).collect())
}

impl Network {
    /// Adds an address to a node's network interface.
    pub(super) fn add_address(&mut self, address: &str, node: usize) {
        let instance = self.instances.get_mut(&format!("i-node{node}"));
        let interface = instance.and_then(|instance| instance.interfaces.first_mut());
        interface.expect("there are three nodes, 0 to 2").addresses.insert(address.to_owned());
    }

    /// Returns true if a VPC contains an address.
    pub(super) fn holds(&self, vpc: &str, address: IpAddr) -> bool {
        let mut blocks = self.vpcs.get(vpc).into_iter().flatten();
        blocks.any(|block| block.parse::<IpNet>().is_ok_and(|block| block.contains(&address)))
    }

    /// Returns all network interfaces, each with its instance.
    fn all_interfaces(&self) -> impl Iterator<Item = (&InterfaceInfo, Option<&String>)> {
        let of_instance = |(id, instance)| instance_interfaces(id, instance);
        self.instances.iter().flat_map(of_instance).chain(self.interfaces.iter().map(|interface| (interface, None)))
    }
}

fn instance_interfaces<'a>(
    id: &'a String,
    instance: &'a Instance,
) -> impl Iterator<Item = (&'a InterfaceInfo, Option<&'a String>)> {
    instance.interfaces.iter().map(move |interface| (interface, Some(id)))
}

fn interface_xml(interface: &InterfaceInfo, instance: Option<&String>) -> String {
    let (ipv6, ipv4): (Vec<&String>, Vec<&String>) = interface.addresses.iter().partition(|a| a.contains(':'));
    let attachment = instance.map(|instance| {
        let index = optional("deviceIndex", interface.device_index);
        element("attachment", &(index + &text("instanceId", instance) + &text("status", "attached")))
    });
    [
        text("networkInterfaceId", &interface.id),
        text("vpcId", VPC),
        optional("privateIpAddress", ipv4.first()),
        attachment.unwrap_or_default(),
        set("privateIpAddressesSet", ipv4.iter().map(|address| text("privateIpAddress", address))),
        set("ipv6AddressesSet", ipv6.iter().map(|address| text("ipv6Address", address))),
        set("ipv4PrefixSet", interface.ipv4_prefixes.iter().map(|prefix| text("ipv4Prefix", prefix))),
        set("ipv6PrefixSet", interface.ipv6_prefixes.iter().map(|prefix| text("ipv6Prefix", prefix))),
        set("groupSet", interface.security_groups.iter().map(|group| text("groupId", group))),
    ]
    .concat()
}

/// The values of a resource that EC2's filters are compared with, by filter.
pub(super) type Filterable<'a> = BTreeMap<&'static str, Vec<&'a str>>;

impl Session<'_> {
    /// Parses EC2's filters: a resource must match each filter, and one value of a filter is enough.
    pub(super) fn filters(&self) -> Result<Vec<(String, Vec<String>)>, Refusal> {
        let mut filters = Vec::new();
        let mut values = 0;
        for item in self.request.items("Filter") {
            let name = self.request.need(&format!("{item}.Name"))?.to_owned();
            let wanted: Vec<_> = self.request.list(&format!("{item}.Value")).into_iter().map(str::to_owned).collect();
            if wanted.is_empty() {
                return Err(refusal("InvalidParameterValue", format!("The filter '{name}' has no value")));
            }
            values += wanted.len();
            filters.push((name, wanted));
        }
        if values > 200 {
            let message = "The maximum number of filter values specified on a single call is 200";
            return Err(refusal("FilterLimitExceeded", message));
        }
        Ok(filters)
    }

    fn matching<'b>(
        &self,
        items: impl IntoIterator<Item = (&'b String, Filterable<'b>, Option<&'b Tags>, String)>,
    ) -> Result<BTreeMap<String, String>, Refusal> {
        let filters = self.filters()?;
        let mut found = BTreeMap::new();
        for (id, has, tags, xml) in items {
            if matches(&filters, &has, tags)? {
                found.insert(id.clone(), xml);
            }
        }
        Ok(found)
    }

    pub(super) fn describe_vpcs(&mut self) -> Answer {
        let tags = tags(&[("Name", "demo"), ("kubernetes.io/cluster/demo", "owned")]);
        let found = self.matching(self.account.network.vpcs.iter().map(|(id, blocks)| {
            let state = element("cidrBlockState", &text("state", "associated"));
            let six = element("ipv6CidrBlockState", &text("state", "associated"));
            let (ipv6, blocks): (Vec<&String>, Vec<&String>) = blocks.iter().partition(|block| block.contains(':'));
            let associated = blocks.iter().map(|block| text("cidrBlock", block) + &state);
            let associated_ipv6 = ipv6.iter().map(|block| text("ipv6CidrBlock", block) + &six);
            let tags = Some(&tags).filter(|_| id == VPC);
            let xml = [
                text("vpcId", id),
                optional("cidrBlock", blocks.first()),
                set("cidrBlockAssociationSet", associated),
                set("ipv6CidrBlockAssociationSet", associated_ipv6),
                tags.map(tag_set).unwrap_or_default(),
            ];
            (id, Filterable::from([("vpc-id", vec![id.as_str()])]), tags, xml.concat())
        }))?;
        let (page, next) = self.page(found)?;
        Ok(set("vpcSet", page) + &next)
    }

    pub(super) fn describe_subnets(&mut self) -> Answer {
        let associated = element("ipv6CidrBlockState", &text("state", "associated"));
        let found = self.matching(self.account.network.subnets.iter().map(|(id, subnet)| {
            let xml = [
                text("subnetId", id),
                text("vpcId", VPC),
                text("availabilityZone", &subnet.zone),
                text("cidrBlock", subnet.cidr),
                text("availableIpAddressCount", 4000),
                set("ipv6CidrBlockAssociationSet", [text("ipv6CidrBlock", subnet.ipv6) + &associated]),
                tag_set(&subnet.tags),
            ];
            let has = Filterable::from([("vpc-id", vec![VPC]), ("subnet-id", vec![id])]);
            (id, has, Some(&subnet.tags), xml.concat())
        }))?;
        let (page, next) = self.page(found)?;
        Ok(set("subnetSet", page) + &next)
    }

    pub(super) fn describe_route_tables(&mut self) -> Answer {
        let subnets = &self.account.network.subnets;
        let tables = [("rtb-main", None), ("rtb-private", Some(false)), ("rtb-public", Some(true))];
        let tables = tables.map(|(id, public)| {
            let members = subnets.iter().filter(|(_, subnet)| Some(subnet.is_public) == public);
            let members = members.map(|(subnet, _)| text("subnetId", subnet) + &text("main", false));
            let main = public.is_none().then(|| text("main", true));
            let local = text("destinationCidrBlock", CIDR) + &text("gatewayId", "local");
            let out = text("destinationCidrBlock", "0.0.0.0/0") + &text("gatewayId", GATEWAY);
            let routes = [Some(local), (public == Some(true)).then_some(out)];
            let xml = [
                text("routeTableId", id),
                text("vpcId", VPC),
                set("associationSet", members.chain(main)),
                set("routeSet", routes.into_iter().flatten()),
            ];
            (id.to_owned(), xml.concat())
        });
        let has = || Filterable::from([("vpc-id", vec![VPC])]);
        let found = self.matching(tables.iter().map(|(id, xml)| (id, has(), None, xml.clone())))?;
        let (page, next) = self.page(found)?;
        Ok(set("routeTableSet", page) + &next)
    }

    pub(super) fn describe_availability_zones(&mut self) -> Answer {
        let zones = ["a", "b", "c"].map(|letter| {
            let state = text("zoneState", "available") + &text("zoneType", "availability-zone");
            text("zoneName", format!("{REGION}{letter}")) + &text("regionName", REGION) + &state
        });
        Ok(set("availabilityZoneInfo", zones))
    }

    pub(super) fn describe_instances(&mut self) -> Answer {
        let network = &self.account.network;
        let found = self.matching(network.instances.iter().map(|(id, instance)| {
            let xml = [
                text("instanceId", id),
                text("vpcId", VPC),
                text("privateIpAddress", &instance.address),
                set(
                    "networkInterfaceSet",
                    instance_interfaces(id, instance).map(|(interface, id)| interface_xml(interface, id)),
                ),
            ];
            let reservation = text("reservationId", id.replacen("i-", "r-", 1)) + &set("instancesSet", [xml.concat()]);
            (id, Filterable::from([("vpc-id", vec![VPC]), ("instance-id", vec![id])]), None, reservation)
        }))?;
        let (page, next) = self.page(found)?;
        Ok(set("reservationSet", page) + &next)
    }

    pub(super) fn describe_network_interfaces(&mut self) -> Answer {
        let found = self.matching(self.account.network.all_interfaces().map(|(interface, instance)| {
            let (ipv6, ipv4) = interface.addresses.iter().map(String::as_str).partition(|a| a.contains(':'));
            let has = Filterable::from([
                ("vpc-id", vec![VPC]),
                ("addresses.private-ip-address", ipv4),
                ("ipv6-addresses.ipv6-address", ipv6),
            ]);
            (&interface.id, has, None, interface_xml(interface, instance))
        }))?;
        let (page, next) = self.page(found)?;
        Ok(set("networkInterfaceSet", page) + &next)
    }
}

/// Returns true if all filters match.
pub(super) fn matches(
    filters: &[(String, Vec<String>)],
    has: &Filterable<'_>,
    tags: Option<&Tags>,
) -> Result<bool, Refusal> {
    let mut all = true;
    for (name, wanted) in filters {
        let values: Vec<&str> = match (name.as_str(), name.strip_prefix("tag:"), tags) {
            (_, Some(key), Some(tags)) => tags.get(key).map(String::as_str).into_iter().collect(),
            ("tag-key", _, Some(tags)) => tags.keys().map(String::as_str).collect(),
            (name, ..) => has.get(name).cloned().ok_or_else(|| not_simulated(format!("filter '{name}'")))?,
        };
        all &= values.iter().any(|value| wanted.iter().any(|pattern| fits(pattern.as_bytes(), value.as_bytes())));
    }
    Ok(all)
}

/// Returns true if a text matches a pattern with EC2's wildcards: `*` for any text, `?` for one character.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', pattern @ ..], _) if fits(pattern, text) => true,
        ([b'*', ..], [_, text @ ..]) => fits(pattern, text),
        ([b'?', pattern @ ..], [_, text @ ..]) => fits(pattern, text),
        ([a, pattern @ ..], [b, text @ ..]) if a == b => fits(pattern, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_know_wildcards() {
        for (pattern, text, expected) in
            [("a", "a", true), ("a*c", "abbc", true), ("a?c", "abc", true), ("a?", "a", false), ("*", "", true)]
        {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
