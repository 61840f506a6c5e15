//! The parts of a VPC as AWS describes them: its subnets, route tables, zones, instances and network interfaces.

use std::collections::BTreeSet;

use super::{SecurityGroupId, SubnetId, Tags};

/// The address blocks that are associated with a VPC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VpcBlocks {
    /// Its IPv4 CIDRs.
    pub ipv4: Vec<String>,
    /// Its IPv6 CIDRs.
    pub ipv6: Vec<String>,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetInfo {
    /// Its id.
    pub id: SubnetId,
    /// The name of its zone, for example `us-west-2a`.
    pub zone: String,
    /// Its IPv4 block. A subnet with only IPv6 has none.
    pub cidr: Option<String>,
    /// IPv4 addresses that are free.
    pub available_addresses: i32,
    /// The IPv6 blocks that are associated with it.
    pub ipv6_blocks: Vec<String>,
    /// True if it is on an Outpost.
    pub outpost: bool,
    /// All its tags.
    pub tags: Tags,
}

/// A route table of a VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTableInfo {
    /// True for the main table, which holds for all subnets that are associated with no other.
    pub main: bool,
    /// The subnets that are associated with it.
    pub subnets: BTreeSet<SubnetId>,
    /// True if a route of it goes to an internet gateway.
    pub internet_gateway: bool,
}

/// A zone of the region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneInfo {
    /// For example `us-west-2a`.
    pub name: String,
    /// `availability-zone`, `local-zone` or `wavelength-zone`.
    pub zone_type: String,
}

/// An instance with its network interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceInfo {
    /// `i-…`
    pub id: String,
    /// In AWS's order.
    pub interfaces: Vec<InterfaceInfo>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// `eni-…`
    pub id: String,
    /// Its place on its instance; 0 is the primary one.
    pub device_index: Option<i32>,
    /// Its private IPv4 addresses and its IPv6 addresses.
    pub addresses: BTreeSet<String>,
    /// Blocks delegated to it.
    pub ipv4_prefixes: Vec<String>,
    /// Blocks delegated to it.
    pub ipv6_prefixes: Vec<String>,
    /// The groups it is in.
    pub security_groups: Vec<SecurityGroupId>,
}
