//! The VPC: the resources that exist from the beginning, and EC2's answers about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use tokio::time::Instant;

use super::{
    account::{REGION, SecurityGroup, Session, VPC, not_simulated},
    wire::{Answer, Refusal, element, refusal, set, tag_set, text},
};
use albatross_core::model::{SecurityGroupId, SecurityGroupRule, Source, Tags};

const CIDR: &str = "10.0.0.0/16";
const GATEWAY: &str = "igw-1";
/// The security group of all nodes.
pub(super) const NODE_GROUP: &str = "sg-node";
/// The VPC's default security group.
pub(super) const DEFAULT_GROUP: &str = "sg-default";

#[derive(Debug)]
pub(super) struct Subnet {
    pub zone: String,
    pub cidr: IpNet,
    is_public: bool,
    tags: Tags,
}

#[derive(Debug)]
pub(super) struct Instance {
    address: String,
    /// Addresses of pods.
    secondary: BTreeSet<String>,
}

#[derive(Debug)]
pub(super) struct Network {
    pub subnets: BTreeMap<String, Subnet>,
    /// By id, `i-node0` and so on.
    pub instances: BTreeMap<String, Instance>,
}

fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Returns the network before anything is created.
pub(super) fn start() -> (Network, BTreeMap<String, SecurityGroup>) {
    let mut subnets = BTreeMap::new();
    for (number, letter) in (0u8..).zip(["a", "b", "c"]) {
        for (kind, third, role, is_public) in [
            ("private", number * 16, "kubernetes.io/role/internal-elb", false),
            ("public", 128 + number * 16, "kubernetes.io/role/elb", true),
        ] {
            let cidr = IpNet::new_assert(IpAddr::from([10, 0, third, 0]), 20);
            let id = format!("subnet-{kind}-{letter}");
            let tags = tags(&[("Name", &id), (role, "1")]);
            subnets.insert(id, Subnet { zone: format!("{REGION}{letter}"), cidr, is_public, tags });
        }
    }
    let instance = |number: u8| Instance { address: format!("10.0.{}.10", number * 16), secondary: BTreeSet::new() };
    let instances = (0..3).map(|number| (format!("i-node{number}"), instance(number))).collect();
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
    (Network { subnets, instances }, groups.into_iter().map(|group| (group.id.clone(), group)).collect())
}

impl Network {
    /// Gives a node's interface a further address.
    pub(super) fn add_address(&mut self, address: &str, node: usize) {
        let instance = self.instances.get_mut(&format!("i-node{node}"));
        instance.expect("there are three nodes, 0 to 2").secondary.insert(address.to_owned());
    }

    /// Returns true if the VPC has an address.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        CIDR.parse::<IpNet>().is_ok_and(|block| block.contains(&address))
    }

    fn interface(&self, id: &str, instance: &Instance) -> String {
        let address =
            |(address, primary): (&String, bool)| text("privateIpAddress", address) + &text("primary", primary);
        let secondary = instance.secondary.iter().map(|address| (address, false));
        let addresses = std::iter::once((&instance.address, true)).chain(secondary).map(address);
        let attachment = text("deviceIndex", 0) + &text("instanceId", id) + &text("status", "attached");
        [
            text("networkInterfaceId", interface_id(id)),
            text("vpcId", VPC),
            text("privateIpAddress", &instance.address),
            element("attachment", &attachment),
            set("privateIpAddressesSet", addresses),
            set("groupSet", [text("groupId", NODE_GROUP) + &text("groupName", "node")]),
        ]
        .concat()
    }
}

fn interface_id(instance: &str) -> String {
    instance.replacen("i-", "eni-", 1)
}

/// The values of each of EC2's filters that a resource has.
pub(super) type Filterable<'a> = BTreeMap<&'static str, Vec<&'a str>>;

impl Session<'_> {
    /// EC2's filters: each must hold, and one of its values suffices.
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
        let state = element("cidrBlockState", &text("state", "associated"));
        let blocks = set("cidrBlockAssociationSet", [text("cidrBlock", CIDR) + &state]);
        let tags = tags(&[("Name", "demo"), ("kubernetes.io/cluster/demo", "owned")]);
        let id = VPC.to_owned();
        let xml = [text("vpcId", VPC), text("cidrBlock", CIDR), blocks, tag_set(&tags)].concat();
        let found = self.matching([(&id, Filterable::from([("vpc-id", vec![VPC])]), Some(&tags), xml)])?;
        let (page, next) = self.page(found)?;
        Ok(set("vpcSet", page) + &next)
    }

    pub(super) fn describe_subnets(&mut self) -> Answer {
        let found = self.matching(self.account.network.subnets.iter().map(|(id, subnet)| {
            let xml = [
                text("subnetId", id),
                text("vpcId", VPC),
                text("availabilityZone", &subnet.zone),
                text("cidrBlock", subnet.cidr),
                text("availableIpAddressCount", 4000),
                set("ipv6CidrBlockAssociationSet", []),
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
                set("networkInterfaceSet", [network.interface(id, instance)]),
            ];
            let reservation = text("reservationId", id.replacen("i-", "r-", 1)) + &set("instancesSet", [xml.concat()]);
            (id, Filterable::from([("vpc-id", vec![VPC]), ("instance-id", vec![id])]), None, reservation)
        }))?;
        let (page, next) = self.page(found)?;
        Ok(set("reservationSet", page) + &next)
    }

    pub(super) fn describe_network_interfaces(&mut self) -> Answer {
        let network = &self.account.network;
        let found = self.matching(network.instances.iter().map(|(id, instance)| {
            let addresses = std::iter::once(&instance.address).chain(&instance.secondary);
            let has = Filterable::from([
                ("vpc-id", vec![VPC]),
                ("addresses.private-ip-address", addresses.map(String::as_str).collect()),
                ("ipv6-addresses.ipv6-address", Vec::new()),
            ]);
            (id, has, None, network.interface(id, instance))
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

/// EC2's wildcards: `*` for any text, `?` for one character.
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
