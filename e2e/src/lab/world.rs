//! The AWS account's things that exist before any controller: a VPC with subnets in three zones, security groups,
//! certificates, instances that are the cluster's nodes, and what the conformance cases name.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use anyhow::{Context as _, Result, bail};
use aws_sdk_acm::types::ValidationMethod;
use aws_sdk_ec2::types::{AddPrefixListEntry, DomainType, InstanceType, ResourceType, Tag, TagSpecification};
use aws_sdk_elasticloadbalancingv2::types::{ProtocolEnum, TargetTypeEnum};
use aws_sdk_route53::types as route53;
use aws_sdk_wafv2::types::{AllowAction, DefaultAction, Scope, VisibilityConfig};
use serde_json::{Value, json};

use super::aws::{Aws, REGION};
use super::control_plane;

/// The cluster's name.
pub const CLUSTER: &str = "demo";
/// The tag that a controller puts on everything that it makes.
pub const CONTROLLER_TAG: &str = "elbv2.k8s.aws/cluster";
/// The name of the security group of the nodes.
pub const NODE_SECURITY_GROUP: &str = "node-sg";
const ZONES: [&str; 3] = ["a", "b", "c"];

/// Ids and ARNs by the names that manifests and dumps use.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub vpc: String,
    /// VPCs without anything of the cluster: `peered`.
    pub other_vpcs: BTreeMap<String, String>,
    /// `public-a` … `private-c`.
    pub subnets: BTreeMap<String, String>,
    /// The security group on the nodes' interfaces, tagged as the cluster's.
    pub node_security_group: String,
    /// Security groups of the user: `my-sg-1`, `my-sg-2`.
    pub security_groups: BTreeMap<String, String>,
    /// Certificate ARNs by domain.
    pub certificates: BTreeMap<String, String>,
    pub nodes: Vec<Node>,
    pub prefix_lists: BTreeMap<String, String>,
    /// Allocation ids: `a`, `b`, `c`.
    pub elastic_ips: BTreeMap<String, String>,
    /// ARNs of target groups that no controller made.
    pub target_groups: BTreeMap<String, String>,
    /// ARNs of trust stores: `clients`, `partners`.
    pub trust_stores: BTreeMap<String, String>,
    /// ARNs of regional web ACLs: `edge`, `strict`.
    pub web_acls: BTreeMap<String, String>,
    /// The IPv6 block of the VPC.
    pub ipv6_block: String,
    /// The first address of the IPv6 block of 64 bits of each subnet.
    pub ipv6_blocks: BTreeMap<String, Ipv6Addr>,
}

/// An instance that is a node of the cluster.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub instance: String,
    pub address: String,
    pub interface: String,
    pub zone: String,
    /// The first three numbers of its subnet's addresses, as in `10.0.100`.
    pub network: String,
}

impl World {
    /// Makes everything in an empty account.
    pub async fn make(aws: &Aws, nodes: usize) -> Result<Self> {
        let mut world = Self::default();
        world.make_network(aws).await?;
        world.make_security_groups(aws).await?;
        world.make_zones(aws).await?;
        world.make_certificates(aws).await?;
        world.make_nodes(aws, nodes).await?;
        world.make_named_things(aws).await?;
        Ok(world)
    }

    async fn make_network(&mut self, aws: &Aws) -> Result<()> {
        let ec2 = &aws.ec2;
        let made = ec2.create_vpc().cidr_block("10.0.0.0/16").amazon_provided_ipv6_cidr_block(true).send().await?;
        self.vpc = owned(made.vpc().and_then(|vpc| vpc.vpc_id()))?;
        let vpcs = ec2.describe_vpcs().vpc_ids(&self.vpc).send().await?;
        let blocks = vpcs.vpcs().first().map(|vpc| vpc.ipv6_cidr_block_association_set()).unwrap_or_default();
        let block = owned(blocks.first().and_then(|block| block.ipv6_cidr_block()))?;
        self.ipv6_block.clone_from(&block);
        let (start, _) = block.split_once('/').context("an IPv6 block without its length")?;
        let mut next: Ipv6Addr = start.parse()?;
        let made = ec2.create_vpc().cidr_block("10.50.0.0/16").send().await?;
        let peered = owned(made.vpc().and_then(|vpc| vpc.vpc_id()))?;
        self.other_vpcs.insert("peered".to_owned(), peered);
        let made = ec2.create_internet_gateway().send().await?;
        let gateway = owned(made.internet_gateway().and_then(|gateway| gateway.internet_gateway_id()))?;
        ec2.attach_internet_gateway().internet_gateway_id(&gateway).vpc_id(&self.vpc).send().await?;
        for (number, zone) in ZONES.into_iter().enumerate() {
            for (kind, role, first) in
                [("public", "kubernetes.io/role/elb", 0), ("private", "kubernetes.io/role/internal-elb", 100)]
            {
                let name = format!("{kind}-{zone}");
                let made = ec2
                    .create_subnet()
                    .vpc_id(&self.vpc)
                    .cidr_block(format!("10.0.{}.0/24", first + number))
                    .ipv6_cidr_block(format!("{next}/64"))
                    .availability_zone(format!("{REGION}{zone}"))
                    .send()
                    .await?;
                let subnet = owned(made.subnet().and_then(|subnet| subnet.subnet_id()))?;
                ec2.create_tags()
                    .resources(&subnet)
                    .tags(tag(role, "1"))
                    .tags(tag(&format!("kubernetes.io/cluster/{CLUSTER}"), "shared"))
                    .tags(tag("Name", &name))
                    .send()
                    .await?;
                let made = ec2.create_route_table().vpc_id(&self.vpc).send().await?;
                let table = owned(made.route_table().and_then(|table| table.route_table_id()))?;
                ec2.associate_route_table().route_table_id(&table).subnet_id(&subnet).send().await?;
                if kind == "public" {
                    ec2.create_route()
                        .route_table_id(&table)
                        .destination_cidr_block("0.0.0.0/0")
                        .gateway_id(&gateway)
                        .send()
                        .await?;
                }
                self.ipv6_blocks.insert(name.clone(), next);
                next = Ipv6Addr::from(u128::from(next) + (1 << 64));
                self.subnets.insert(name, subnet);
            }
        }
        Ok(())
    }

    async fn make_security_groups(&mut self, aws: &Aws) -> Result<()> {
        let owner = format!("kubernetes.io/cluster/{CLUSTER}");
        let nodes = self.make_security_group(aws, NODE_SECURITY_GROUP, "nodes", tag(&owner, "owned")).await?;
        self.node_security_group = nodes;
        for (name, description) in [("my-sg-1", "user-1"), ("my-sg-2", "user-2")] {
            let group = self.make_security_group(aws, name, description, tag("Name", name)).await?;
            self.security_groups.insert(name.to_owned(), group);
        }
        Ok(())
    }

    async fn make_security_group(&self, aws: &Aws, name: &str, description: &str, tag: Tag) -> Result<String> {
        let made =
            aws.ec2.create_security_group().group_name(name).description(description).vpc_id(&self.vpc).send().await?;
        let group = owned(made.group_id())?;
        aws.ec2.create_tags().resources(&group).tags(tag).send().await?;
        Ok(group)
    }

    async fn make_certificates(&mut self, aws: &Aws) -> Result<()> {
        let domains: [(&str, &[&str]); 4] = [
            ("example.com", &[]),
            ("*.example.com", &[]),
            ("app.example.org", &["app.example.org", "www.example.org"]),
            ("expired.example.net", &[]),
        ];
        for (domain, alternatives) in domains {
            let names = alternatives.iter().map(ToString::to_string).collect::<Vec<_>>();
            let made = aws
                .acm
                .request_certificate()
                .domain_name(domain)
                .validation_method(ValidationMethod::Dns)
                .set_subject_alternative_names((!names.is_empty()).then_some(names))
                .send()
                .await?;
            let arn = owned(made.certificate_arn())?;
            prove(aws, &arn).await?;
            self.certificates.insert(domain.to_owned(), arn);
        }
        Ok(())
    }

    /// Makes the hosted zones in which hosts are proved to ACM.
    async fn make_zones(&mut self, aws: &Aws) -> Result<()> {
        for name in ["example.com", "example.net", "example.org"] {
            aws.route53.create_hosted_zone().name(name).caller_reference(name).send().await?;
        }
        Ok(())
    }

    async fn make_nodes(&mut self, aws: &Aws, count: usize) -> Result<()> {
        let images = aws.ec2.describe_images().send().await?;
        let image = owned(images.images().first().and_then(|image| image.image_id()))?;
        for (number, zone) in (0..count).zip(ZONES.iter().cycle()) {
            let subnet = self.subnets.get(&format!("private-{zone}")).context("a zone without a private subnet")?;
            let made = aws
                .ec2
                .run_instances()
                .image_id(&image)
                .min_count(1)
                .max_count(1)
                .subnet_id(subnet)
                .security_group_ids(&self.node_security_group)
                .instance_type(InstanceType::M5Large)
                .send()
                .await?;
            let instance = made.instances().first().context("no instance was started")?;
            let interface = instance.network_interfaces().first();
            self.nodes.push(Node {
                name: format!("node-{number}"),
                instance: owned(instance.instance_id())?,
                address: owned(instance.private_ip_address())?,
                interface: owned(interface.and_then(|interface| interface.network_interface_id()))?,
                zone: format!("{REGION}{zone}"),
                network: format!("10.0.{}", 100 + number % ZONES.len()),
            });
        }
        Ok(())
    }

    async fn make_named_things(&mut self, aws: &Aws) -> Result<()> {
        let made = aws
            .ec2
            .create_managed_prefix_list()
            .prefix_list_name("office")
            .address_family("IPv4")
            .max_entries(5)
            .entries(AddPrefixListEntry::builder().cidr("198.51.100.0/24").build())
            .send()
            .await?;
        let list = owned(made.prefix_list().and_then(|list| list.prefix_list_id()))?;
        self.prefix_lists.insert("office".to_owned(), list);
        for name in ZONES {
            let tags =
                TagSpecification::builder().resource_type(ResourceType::ElasticIp).tags(tag("Name", name)).build();
            let made = aws.ec2.allocate_address().domain(DomainType::Vpc).tag_specifications(tags).send().await?;
            self.elastic_ips.insert(name.to_owned(), owned(made.allocation_id())?);
        }
        for (name, kind) in [
            ("ext-ip", TargetTypeEnum::Ip),
            ("ext-inst", TargetTypeEnum::Instance),
            ("ext-weighted", TargetTypeEnum::Ip),
            ("ext-named", TargetTypeEnum::Ip),
            ("ext-outside", TargetTypeEnum::Ip),
            ("ext-peered", TargetTypeEnum::Ip),
            ("ext-vpc", TargetTypeEnum::Ip),
            ("ext-ghost", TargetTypeEnum::Ip),
            ("ext-multi", TargetTypeEnum::Ip),
            ("ext-multi-changed", TargetTypeEnum::Ip),
        ] {
            let vpc = if name == "ext-peered" { self.other_vpcs.get("peered") } else { Some(&self.vpc) };
            let made = aws
                .elb
                .create_target_group()
                .name(name)
                .protocol(ProtocolEnum::Http)
                .port(80)
                .vpc_id(vpc.context("there is no peered VPC")?)
                .target_type(kind)
                .send()
                .await?;
            let arn = owned(made.target_groups().first().and_then(|group| group.target_group_arn()))?;
            self.target_groups.insert(name.to_owned(), arn);
        }
        for name in ["clients", "partners"] {
            let request = aws.elb.create_trust_store().name(name).ca_certificates_bundle_s3_bucket("ca");
            let made = request.ca_certificates_bundle_s3_key(name).send().await?;
            let arn = owned(made.trust_stores().first().and_then(|store| store.trust_store_arn()))?;
            self.trust_stores.insert(name.to_owned(), arn);
        }
        for name in ["edge", "strict"] {
            let metrics = VisibilityConfig::builder().metric_name(name);
            let metrics = metrics.sampled_requests_enabled(false).cloud_watch_metrics_enabled(false).build()?;
            let allow = DefaultAction::builder().allow(AllowAction::builder().build()).build();
            let request = aws.wafv2.create_web_acl().name(name).scope(Scope::Regional);
            let made = request.default_action(allow).visibility_config(metrics).send().await?;
            let arn = owned(made.summary().and_then(|web_acl| web_acl.arn()))?;
            self.web_acls.insert(name.to_owned(), arn);
        }
        Ok(())
    }

    /// Returns the address number `host` (hexadecimal) of a subnet's IPv6 block.
    fn ipv6_address(&self, subnet: &str, host: &str) -> Result<String> {
        let block = self.ipv6_blocks.get(subnet).with_context(|| format!("the lab has no subnet `{subnet}`"))?;
        let host = u64::from_str_radix(host, 16).with_context(|| format!("`{host}` is not hexadecimal"))?;
        Ok(Ipv6Addr::from(u128::from(*block) + u128::from(host)).to_string())
    }

    /// Returns the symbol of an IPv6 address in a subnet's block, `ip6:SUBNET:HOST`.
    pub fn ipv6_symbol(&self, address: &str) -> Option<String> {
        let address = u128::from(address.parse::<Ipv6Addr>().ok()?);
        let within = |block: &Ipv6Addr| u128::from(*block) >> 64 == address >> 64;
        let (subnet, _) = self.ipv6_blocks.iter().find(|(_, block)| within(block))?;
        Some(format!("ip6:{subnet}:{:x}", address & u128::from(u64::MAX)))
    }

    /// Fills `${cert:…}`, `${sg:…}`, `${subnet:…}`, `${pl:…}`, `${eip:…}`, `${tg:…}`, `${trust:…}`, `${acl:…}`, `${vpc}`,
    /// `${vpc:…}` and `${ip6:SUBNET:HOST}` in a manifest.
    pub fn substitute(&self, manifest: &str) -> Result<String> {
        let mut filled = String::with_capacity(manifest.len());
        let mut rest = manifest;
        while let Some((before, after)) = rest.split_once("${") {
            let (reference, after) = after.split_once('}').context("`${` without `}`")?;
            let (kind, name) = reference.split_once(':').unwrap_or((reference, ""));
            let names = match kind {
                "ip6" => {
                    let (subnet, host) = name.split_once(':').context("an address is `ip6:SUBNET:HOST`")?;
                    &BTreeMap::from([(name.to_owned(), self.ipv6_address(subnet, host)?)])
                }
                "trust" => &self.trust_stores,
                "acl" => &self.web_acls,
                "cert" => &self.certificates,
                "sg" => &self.security_groups,
                "subnet" => &self.subnets,
                "pl" => &self.prefix_lists,
                "eip" => &self.elastic_ips,
                "tg" => &self.target_groups,
                "vpc" if name.is_empty() => &BTreeMap::from([(String::new(), self.vpc.clone())]),
                "vpc" => &self.other_vpcs,
                _ => bail!("`${{{reference}}}` is of no known kind"),
            };
            let value = names.get(name).with_context(|| format!("the lab has no `{reference}`"))?;
            filled.push_str(before);
            filled.push_str(value);
            rest = after;
        }
        Ok(filled + rest)
    }

    /// The Node objects of the instances, Ready, with what EKS has on each node.
    pub fn node_objects(&self) -> Vec<Value> {
        let object = |node: &Node| {
            json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": node.name,
                    "labels": {
                        "kubernetes.io/arch": "amd64",
                        "kubernetes.io/hostname": node.name,
                        "kubernetes.io/os": "linux",
                        "node.kubernetes.io/instance-type": InstanceType::M5Large.as_str(),
                        "topology.kubernetes.io/region": REGION,
                        "topology.kubernetes.io/zone": node.zone,
                    },
                },
                "spec": {"providerID": format!("aws:///{}/{}", node.zone, node.instance)},
                "status": {
                    "addresses": [
                        {"type": "InternalIP", "address": node.address},
                        {"type": "InternalDNS", "address": internal_name(&node.address)},
                        {"type": "Hostname", "address": node.name},
                    ],
                    "capacity": {"cpu": "2", "memory": "7934440Ki", "pods": "29"},
                    "allocatable": {"cpu": "1930m", "memory": "7244264Ki", "pods": "29"},
                    "nodeInfo": {
                        "architecture": "amd64",
                        "bootID": "",
                        "containerRuntimeVersion": "lab://1",
                        "kernelVersion": "",
                        "kubeProxyVersion": "",
                        "kubeletVersion": control_plane::version(),
                        "machineID": "",
                        "operatingSystem": "linux",
                        "osImage": "",
                        "systemUUID": "",
                    },
                    "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ok"}],
                },
            })
        };
        self.nodes.iter().map(object).collect()
    }

    /// Puts a pod's address on its node's network interface, as the VPC's CNI does.
    pub async fn assign_address(&self, aws: &Aws, node: &str, address: &str) -> Result<()> {
        let node = self.nodes.iter().find(|known| known.name == node);
        let interface = &node.context("a pod on a node that the lab does not have")?.interface;
        if address.parse::<Ipv6Addr>().is_ok() {
            let request = aws.ec2.assign_ipv6_addresses().network_interface_id(interface);
            request.ipv6_addresses(address).send().await?;
        } else {
            let request = aws.ec2.assign_private_ip_addresses().network_interface_id(interface);
            request.private_ip_addresses(address).send().await?;
        }
        Ok(())
    }
}

/// Returns the name that the VPC's DNS has for an instance's address.
fn internal_name(address: &str) -> String {
    format!("ip-{}.{REGION}.compute.internal", address.replace('.', "-"))
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}

fn owned(id: Option<&str>) -> Result<String> {
    id.map(str::to_owned).context("the emulator's answer lacks an id")
}

/// Creates the records with which ACM issues a certificate.
async fn prove(aws: &Aws, arn: &str) -> Result<()> {
    let zones = aws.route53.list_hosted_zones().send().await?;
    let shown = aws.acm.describe_certificate().certificate_arn(arn).send().await?;
    let options = shown.certificate().map(|it| it.domain_validation_options().to_vec()).unwrap_or_default();
    for record in options.iter().filter_map(|option| option.resource_record()) {
        let zone = zones.hosted_zones().iter().find(|zone| record.name().ends_with(&format!(".{}", zone.name())));
        let zone = zone.with_context(|| format!("no hosted zone for {}", record.name()))?;
        let value = route53::ResourceRecord::builder().value(record.value()).build()?;
        let set = route53::ResourceRecordSet::builder().name(record.name()).r#type(route53::RrType::Cname);
        let set = set.ttl(60).resource_records(value).build()?;
        let change =
            route53::Change::builder().action(route53::ChangeAction::Upsert).resource_record_set(set).build()?;
        let batch = route53::ChangeBatch::builder().changes(change).build()?;
        aws.route53.change_resource_record_sets().hosted_zone_id(zone.id()).change_batch(batch).send().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_known_by_its_labels_and_addresses() {
        let node = Node {
            name: "node-0".to_owned(),
            instance: "i-1".to_owned(),
            address: "10.0.100.4".to_owned(),
            interface: "eni-1".to_owned(),
            zone: "us-west-2a".to_owned(),
            network: "10.0.100".to_owned(),
        };
        let object = World { nodes: vec![node], ..World::default() }.node_objects().remove(0);
        let labels = json!({
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": "node-0",
            "kubernetes.io/os": "linux",
            "node.kubernetes.io/instance-type": "m5.large",
            "topology.kubernetes.io/region": "us-west-2",
            "topology.kubernetes.io/zone": "us-west-2a",
        });
        let addresses = json!([
            {"type": "InternalIP", "address": "10.0.100.4"},
            {"type": "InternalDNS", "address": "ip-10-0-100-4.us-west-2.compute.internal"},
            {"type": "Hostname", "address": "node-0"},
        ]);
        assert_eq!((&object["metadata"]["labels"], &object["status"]["addresses"]), (&labels, &addresses));
    }

    #[test]
    fn substitution_fills_every_kind_and_names_what_is_missing() {
        let pair = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let world = World {
            vpc: "vpc-1".to_owned(),
            certificates: pair("*.example.com", "arn:1"),
            subnets: pair("public-a", "subnet-1"),
            ..World::default()
        };
        let filled = world.substitute("a: ${cert:*.example.com}\nb: ${subnet:public-a},${vpc} $x {}");
        assert_eq!(filled.unwrap(), "a: arn:1\nb: subnet-1,vpc-1 $x {}");
        let errors =
            ["${sg:none}", "${what:ever}", "${vpc"].map(|text| world.substitute(text).unwrap_err().to_string());
        assert_eq!(errors, ["the lab has no `sg:none`", "`${what:ever}` is of no known kind", "`${` without `}`"]);
    }
}
