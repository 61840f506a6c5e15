//! EC2: the VPC, its subnets and route tables, zones, instances, network interfaces and security groups. Resources are
//! requested by filter instead of by id, because a single deleted id would fail the whole call.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{Filter, ResourceType, SubnetCidrBlockStateCode, TagSpecification, VpcCidrBlockStateCode};

use super::{AwsError, AwsReader, AwsWriter, convert};
use albatross_core::model::{
    InstanceInfo, InterfaceInfo, ObservedSecurityGroup, RouteTableInfo, SecurityGroupId, SecurityGroupRule, SubnetId,
    SubnetInfo, Tags, VpcBlocks, VpcId, ZoneInfo,
};

/// The maximum number of values of one filter.
const FILTER_VALUES: usize = 200;

fn filter(name: &str, values: impl IntoIterator<Item = impl Into<String>>) -> Filter {
    Filter::builder().name(name).set_values(Some(values.into_iter().map(Into::into).collect())).build()
}

/// Returns all `$items` of a paged Describe call.
macro_rules! pages {
    ($aws:expr, $operation:literal, $call:expr, $items:ident) => {{
        let call = $call;
        let mut items = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = $aws.read($operation, || call.clone().set_next_token(token.clone()).send()).await?;
            let next = page.next_token().filter(|next| !next.is_empty()).map(str::to_owned);
            items.extend(page.$items.unwrap_or_default());
            match next {
                None => break items,
                next if next == token => return Err(AwsError::incomplete($operation, "next page")),
                next => token = next,
            }
        }
    }};
}

impl AwsReader {
    /// Returns the subnets of a VPC (DescribeSubnets).
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub async fn describe_subnets(&self, vpc: &VpcId) -> Result<Vec<SubnetInfo>, AwsError> {
        let call = self.ec2.describe_subnets().filters(filter("vpc-id", [vpc.as_str()]));
        let subnets = pages!(self, "DescribeSubnets", call, subnets);
        Ok(subnets
            .iter()
            .filter_map(|s| {
                Some(SubnetInfo {
                    id: SubnetId::new(s.subnet_id()?),
                    zone: s.availability_zone().unwrap_or_default().to_owned(),
                    cidr: s.cidr_block().filter(|block| !block.is_empty()).map(str::to_owned),
                    available_addresses: s.available_ip_address_count().unwrap_or_default(),
                    ipv6_blocks: s
                        .ipv6_cidr_block_association_set()
                        .iter()
                        .filter(|a| {
                            let state = a.ipv6_cidr_block_state().and_then(|state| state.state());
                            state == Some(&SubnetCidrBlockStateCode::Associated)
                        })
                        .filter_map(|a| a.ipv6_cidr_block().map(str::to_owned))
                        .collect(),
                    outpost: s.outpost_arn().is_some_and(|arn| !arn.is_empty()),
                    tags: convert::ec2_tags(s.tags()),
                })
            })
            .collect())
    }

    /// Returns the CIDR blocks that are associated with a VPC (DescribeVpcs); `None` if the VPC does not exist.
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub async fn vpc_blocks(&self, vpc: &VpcId) -> Result<Option<VpcBlocks>, AwsError> {
        let call = self.ec2.describe_vpcs().filters(filter("vpc-id", [vpc.as_str()]));
        let vpcs = pages!(self, "DescribeVpcs", call, vpcs);
        Ok(vpcs.first().map(|vpc| {
            let associations = vpc.cidr_block_association_set().iter();
            let associated = associations.filter(|association| {
                let state = association.cidr_block_state().and_then(|state| state.state());
                state == Some(&VpcCidrBlockStateCode::Associated)
            });
            let ipv4 = associated.filter_map(|association| association.cidr_block()).map(str::to_owned).collect();
            let associations = vpc.ipv6_cidr_block_association_set().iter();
            let associated = associations.filter(|association| {
                let state = association.ipv6_cidr_block_state().and_then(|state| state.state());
                state == Some(&VpcCidrBlockStateCode::Associated)
            });
            let ipv6 = associated.filter_map(|association| association.ipv6_cidr_block()).map(str::to_owned).collect();
            VpcBlocks { ipv4, ipv6 }
        }))
    }

    /// Returns the route tables of a VPC (DescribeRouteTables).
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub async fn describe_route_tables(&self, vpc: &VpcId) -> Result<Vec<RouteTableInfo>, AwsError> {
        let call = self.ec2.describe_route_tables().filters(filter("vpc-id", [vpc.as_str()]));
        let tables = pages!(self, "DescribeRouteTables", call, route_tables);
        Ok(tables
            .iter()
            .map(|t| RouteTableInfo {
                main: t.associations().iter().any(|a| a.main() == Some(true)),
                subnets: t.associations().iter().filter_map(|a| a.subnet_id()).map(SubnetId::new).collect(),
                internet_gateway: t.routes().iter().any(|r| r.gateway_id().is_some_and(|g| g.starts_with("igw-"))),
            })
            .collect())
    }

    /// Returns the zones that the account may use (DescribeAvailabilityZones).
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub async fn describe_availability_zones(&self) -> Result<Vec<ZoneInfo>, AwsError> {
        let call = self.ec2.describe_availability_zones();
        let answer = self.read("DescribeAvailabilityZones", || call.clone().send()).await?;
        Ok(answer
            .availability_zones()
            .iter()
            .filter_map(|z| {
                let zone_type = z.zone_type().unwrap_or("availability-zone").to_owned();
                Some(ZoneInfo { name: z.zone_name()?.to_owned(), zone_type })
            })
            .collect())
    }

    /// Returns the instances with these ids that exist (DescribeInstances).
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub async fn describe_instances(&self, ids: &[String]) -> Result<Vec<InstanceInfo>, AwsError> {
        let mut found = Vec::new();
        for ids in ids.chunks(FILTER_VALUES) {
            let call = self.ec2.describe_instances().filters(filter("instance-id", ids));
            let reservations = pages!(self, "DescribeInstances", call, reservations);
            found.extend(reservations.iter().flat_map(|r| r.instances()).filter_map(|i| {
                let interfaces = i.network_interfaces().iter().filter_map(instance_interface).collect();
                Some(InstanceInfo { id: i.instance_id()?.to_owned(), interfaces })
            }));
        }
        Ok(found)
    }

    /// Returns the network interfaces of a VPC with one of these addresses (DescribeNetworkInterfaces).
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub async fn describe_network_interfaces_by_ip(
        &self,
        vpc: &VpcId,
        addresses: &[String],
    ) -> Result<Vec<InterfaceInfo>, AwsError> {
        let (six, four): (Vec<&String>, Vec<&String>) = addresses.iter().partition(|a| a.contains(':'));
        let mut found = Vec::new();
        for (name, addresses) in [("addresses.private-ip-address", four), ("ipv6-addresses.ipv6-address", six)] {
            // The VPC filter takes one value of the limit.
            for addresses in addresses.chunks(FILTER_VALUES - 1) {
                let call = self
                    .ec2
                    .describe_network_interfaces()
                    .filters(filter("vpc-id", [vpc.as_str()]))
                    .filters(filter(name, addresses.iter().copied()));
                let interfaces = pages!(self, "DescribeNetworkInterfaces", call, network_interfaces);
                found.extend(interfaces.iter().filter_map(interface));
            }
        }
        Ok(found)
    }

    /// Returns the security groups with these ids that exist (DescribeSecurityGroups).
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub async fn describe_security_groups(
        &self,
        ids: &[SecurityGroupId],
    ) -> Result<Vec<ObservedSecurityGroup>, AwsError> {
        let mut found = Vec::new();
        for ids in ids.chunks(FILTER_VALUES) {
            let ids = filter("group-id", ids.iter().map(SecurityGroupId::as_str));
            let groups = pages!(
                self,
                "DescribeSecurityGroups",
                self.ec2.describe_security_groups().filters(ids),
                security_groups
            );
            found.extend(groups.iter().filter_map(security_group));
        }
        Ok(found)
    }

    /// Returns the security groups of a VPC by id and by `Name` tag (DescribeSecurityGroups), without any that does not
    /// exist. Names with `*` or `?` match other groups too, because EC2's filters treat them as wildcards.
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub async fn security_groups_of_vpc(
        &self,
        vpc: &VpcId,
        ids: &[&str],
        names: &[&str],
    ) -> Result<Vec<ObservedSecurityGroup>, AwsError> {
        let mut found = Vec::new();
        for (key, values) in [("group-id", ids), ("tag:Name", names)] {
            // The VPC filter takes one value of the limit.
            for values in values.chunks(FILTER_VALUES - 1) {
                let vpc = filter("vpc-id", [vpc.as_str()]);
                let wanted = filter(key, values.iter().copied());
                let call = self.ec2.describe_security_groups().filters(vpc).filters(wanted);
                let groups = pages!(self, "DescribeSecurityGroups", call, security_groups);
                found.extend(groups.iter().filter_map(security_group));
            }
        }
        Ok(found)
    }

    /// Returns the security groups of a VPC with a tag (DescribeSecurityGroups); without values, with any value of the
    /// tag.
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub async fn security_groups_tagged(
        &self,
        vpc: &VpcId,
        key: &str,
        values: &[&str],
    ) -> Result<Vec<ObservedSecurityGroup>, AwsError> {
        let tag = if values.is_empty() {
            filter("tag-key", [key])
        } else {
            filter(&format!("tag:{key}"), values.iter().copied())
        };
        let vpc = filter("vpc-id", [vpc.as_str()]);
        let call = self.ec2.describe_security_groups().filters(vpc).filters(tag);
        let groups = pages!(self, "DescribeSecurityGroups", call, security_groups);
        Ok(groups.iter().filter_map(security_group).collect())
    }
}

impl AwsWriter {
    /// Adds rules to a security group in one call (AuthorizeSecurityGroupIngress), which accepts all rules or none.
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub async fn authorize_ingress(&self, id: &SecurityGroupId, rules: &[SecurityGroupRule]) -> Result<(), AwsError> {
        let rules = Some(convert::to_permissions(rules));
        let call = self.ec2.authorize_security_group_ingress().group_id(id.as_str()).set_ip_permissions(rules);
        self.write("AuthorizeSecurityGroupIngress", || call.clone().send()).await.map(drop)
    }

    /// Removes rules from a security group in one call (RevokeSecurityGroupIngress).
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub async fn revoke_ingress(&self, id: &SecurityGroupId, rules: &[SecurityGroupRule]) -> Result<(), AwsError> {
        let rules = Some(convert::to_permissions(rules));
        let call = self.ec2.revoke_security_group_ingress().group_id(id.as_str()).set_ip_permissions(rules);
        self.write("RevokeSecurityGroupIngress", || call.clone().send()).await.map(drop)
    }

    /// Creates a security group with tags and without rules (CreateSecurityGroup).
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub async fn create_security_group(
        &self,
        name: &str,
        description: &str,
        vpc: &VpcId,
        tags: &Tags,
    ) -> Result<SecurityGroupId, AwsError> {
        let operation = "CreateSecurityGroup";
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::SecurityGroup)
            .set_tags(Some(convert::to_ec2_tags(tags)))
            .build();
        let call = self
            .ec2
            .create_security_group()
            .group_name(name)
            .description(description)
            .vpc_id(vpc.as_str())
            .tag_specifications(tags);
        let answer = self.write(operation, || call.clone().send()).await?;
        answer.group_id().map(SecurityGroupId::new).ok_or_else(|| AwsError::incomplete(operation, "GroupId"))
    }

    /// Deletes a security group (DeleteSecurityGroup).
    ///
    /// # Errors
    /// Returns the error of AWS; [`super::AwsErrorKind::Dependency`] while a resource is still in the group or a rule
    /// names it.
    pub async fn delete_security_group(&self, id: &SecurityGroupId) -> Result<(), AwsError> {
        let call = self.ec2.delete_security_group().group_id(id.as_str());
        self.write("DeleteSecurityGroup", || call.clone().send()).await.map(drop)
    }

    /// Adds tags or changes their values (EC2 CreateTags).
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub async fn tag_security_group(&self, id: &SecurityGroupId, tags: &Tags) -> Result<(), AwsError> {
        let call = self.ec2.create_tags().resources(id.as_str()).set_tags(Some(convert::to_ec2_tags(tags)));
        self.write("CreateTags", || call.clone().send()).await.map(drop)
    }

    /// Removes tags with any value (EC2 DeleteTags); AWS ignores keys that the group does not have.
    pub async fn untag_security_group(&self, id: &SecurityGroupId, keys: &BTreeSet<String>) -> Result<(), AwsError> {
        let tags = keys.iter().map(|key| aws_sdk_ec2::types::Tag::builder().key(key).build()).collect();
        let call = self.ec2.delete_tags().resources(id.as_str()).set_tags(Some(tags));
        self.write("DeleteTags", || call.clone().send()).await.map(drop)
    }
}

fn security_group(group: &aws_sdk_ec2::types::SecurityGroup) -> Option<ObservedSecurityGroup> {
    Some(ObservedSecurityGroup {
        id: SecurityGroupId::new(group.group_id()?),
        name: group.group_name().unwrap_or_default().to_owned(),
        tags: convert::ec2_tags(group.tags()),
        ingress: convert::permissions(group.ip_permissions()),
    })
}

/// Converts a network interface. The SDK has two types for it with the same fields.
macro_rules! interface_info {
    ($interface:expr) => {{
        let interface = $interface;
        let four = interface.private_ip_addresses().iter().filter_map(|a| a.private_ip_address());
        let six = interface.ipv6_addresses().iter().filter_map(|a| a.ipv6_address());
        Some(InterfaceInfo {
            id: interface.network_interface_id()?.to_owned(),
            device_index: interface.attachment().and_then(|a| a.device_index()),
            addresses: interface.private_ip_address().into_iter().chain(four).chain(six).map(str::to_owned).collect(),
            ipv4_prefixes: interface.ipv4_prefixes().iter().filter_map(|p| p.ipv4_prefix.clone()).collect(),
            ipv6_prefixes: interface.ipv6_prefixes().iter().filter_map(|p| p.ipv6_prefix.clone()).collect(),
            security_groups: interface.groups().iter().filter_map(|g| g.group_id()).map(SecurityGroupId::new).collect(),
        })
    }};
}

fn instance_interface(interface: &aws_sdk_ec2::types::InstanceNetworkInterface) -> Option<InterfaceInfo> {
    interface_info!(interface)
}

fn interface(interface: &aws_sdk_ec2::types::NetworkInterface) -> Option<InterfaceInfo> {
    interface_info!(interface)
}
