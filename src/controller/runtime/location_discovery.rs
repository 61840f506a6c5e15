//! The discovery of the cluster's region and VPC. Flags come first, then the nodes' provider IDs, and the instance metadata
//! last: pods cannot reach it on many clusters. Sources that are not needed are not asked.

use kube::{Api, Client, api::ListParams};
use tokio::sync::OnceCell;

use super::{
    flags::ControllerFlags,
    start::{StartError, aws_error},
};
use crate::controller::cluster::kubernetes::describe;
use albatross_aws::{AwsError, AwsHttp, AwsReader, Instance, configured_region, region_of_zone};
use albatross_core::{api::kubernetes::Node, model::VpcId};

/// The number of nodes that are read.
const NODES: u32 = 50;

/// The discovery of values that the flags do not give.
pub(crate) struct LocationDiscovery<'a> {
    flags: &'a ControllerFlags,
    client: &'a Client,
    http: &'a AwsHttp,
    nodes: OnceCell<Result<Vec<ProviderId>, String>>,
}

/// The location of a node: `aws:///us-west-2a/i-0123456789abcdef0`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ProviderId {
    zone: String,
    /// The instance; absent where the node is not an instance of EC2, as Fargate's.
    instance: Option<String>,
}

impl ProviderId {
    fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("aws://")?;
        // The text before the zone is empty or an account.
        let mut parts = rest.split('/').skip(1);
        let zone = parts.next().filter(|zone| !zone.is_empty())?.to_owned();
        let instance = parts.next().filter(|id| id.starts_with("i-") && parts.next().is_none());
        Some(Self { zone, instance: instance.map(str::to_owned) })
    }
}

impl<'a> LocationDiscovery<'a> {
    pub(crate) fn new(flags: &'a ControllerFlags, client: &'a Client, http: &'a AwsHttp) -> Self {
        Self { flags, client, http, nodes: OnceCell::new() }
    }

    /// The region: `--aws-region`, the environment, the profile, a node's zone, the instance.
    pub(crate) async fn region(&self) -> Result<String, StartError> {
        if let Some(region) = self.flags.aws_region.clone().filter(|region| !region.is_empty()) {
            return Ok(region);
        }
        if let Some(region) = configured_region().await {
            return Ok(region);
        }
        let nodes = self.nodes().await;
        let from_nodes = match &nodes {
            Ok(nodes) => {
                if let Some(region) = nodes.iter().find_map(|node| region_of_zone(&node.zone)) {
                    return Ok(region);
                }
                match nodes.first() {
                    Some(node) => {
                        format!("`{}` of the nodes' spec.providerID is not a zone that names its region", node.zone)
                    }
                    None => "no node has an aws:// spec.providerID".to_owned(),
                }
            }
            Err(reason) => reason.clone(),
        };
        let asked = match Instance::new(self.http) {
            Ok(instance) => instance.region().await,
            Err(reason) => Err(reason),
        };
        asked.map_err(|reason| StartError::Region { reason: format!("{from_nodes}, and {reason}") })
    }

    /// The VPC: `--aws-vpc-id`, `--aws-vpc-tags`, the nodes' instances, the instance that this runs on.
    pub(crate) async fn vpc(&self, aws: &AwsReader) -> Result<VpcId, StartError> {
        if let Some(id) = self.flags.aws_vpc_id.as_deref().filter(|id| !id.is_empty()) {
            if !id.starts_with("vpc-") {
                return Err(StartError::Vpc {
                    reason: format!("--aws-vpc-id is `{id}`, and the id of a VPC starts with `vpc-`"),
                });
            }
            return Ok(VpcId::new(id));
        }
        if let Some(tags) = self.flags.vpc_tags()? {
            let mut found = aws.vpcs_tagged(&tags).await.map_err(aws_error)?;
            return match (found.pop(), found.len()) {
                (Some(vpc), 0) => Ok(vpc),
                (None, _) => Err(StartError::Vpc { reason: "no VPC carries all tags of --aws-vpc-tags".to_owned() }),
                (Some(_), more) => {
                    Err(StartError::Vpc { reason: format!("{} VPCs carry all tags of --aws-vpc-tags", more + 1) })
                }
            };
        }
        let from_nodes = match self.vpc_of_nodes(aws).await? {
            Ok(vpc) => return Ok(vpc),
            Err(reason) => reason,
        };
        let asked = match Instance::new(self.http) {
            Ok(instance) => instance.vpc().await,
            Err(reason) => Err(reason),
        };
        asked.map_err(|reason| StartError::Vpc { reason: format!("{from_nodes}, and {reason}") })
    }

    /// The VPC that all nodes are in, or why that is not known.
    async fn vpc_of_nodes(&self, aws: &AwsReader) -> Result<Result<VpcId, String>, StartError> {
        let nodes = match self.nodes().await {
            Ok(nodes) => nodes,
            Err(reason) => return Ok(Err(reason)),
        };
        let instances: Vec<String> = nodes.into_iter().filter_map(|node| node.instance).collect();
        if instances.is_empty() {
            return Ok(Err("no node's spec.providerID names an instance of EC2".to_owned()));
        }
        let found = match aws.vpcs_of_instances(&instances).await {
            Ok(found) => found,
            // Another way may need less.
            Err(error) if error.is_denied() => return Ok(Err(with_fix(&error))),
            Err(error) => return Err(aws_error(error)),
        };
        let mut found: Vec<VpcId> = found.into_iter().collect();
        match (found.pop(), found.as_slice()) {
            (Some(vpc), []) => Ok(Ok(vpc)),
            (None, _) => Ok(Err(format!(
                "AWS has none of the nodes' instances ({}) in region {}",
                some_of(&instances),
                aws.region()
            ))),
            (Some(last), rest) => {
                let all: Vec<&str> = rest.iter().chain([&last]).map(VpcId::as_str).collect();
                Err(StartError::Vpc { reason: format!("the nodes are in several VPCs: {}", all.join(", ")) })
            }
        }
    }

    /// Returns the provider ids of the first nodes, read once.
    async fn nodes(&self) -> Result<Vec<ProviderId>, String> {
        let list = async || {
            let nodes: Api<Node> = Api::all(self.client.clone());
            let listed = nodes.list(&ListParams::default().limit(NODES)).await;
            let listed = listed.map_err(|error| format!("the nodes cannot be listed ({})", describe(&error)))?;
            let ids = listed.items.iter().filter_map(|node| ProviderId::read(node.spec.provider_id.as_deref()?));
            Ok(ids.collect())
        };
        self.nodes.get_or_init(list).await.clone()
    }
}

fn with_fix(error: &AwsError) -> String {
    error.fix().map_or_else(|| error.to_string(), |fix| format!("{error} ({fix})"))
}

/// The first three.
fn some_of(all: &[String]) -> String {
    let more = if all.len() > 3 { ", …" } else { "" };
    let first: Vec<&str> = all.iter().take(3).map(String::as_str).collect();
    format!("{}{more}", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_ids_tell_zone_and_instance() {
        for (text, zone, instance) in [
            ("aws:///us-west-2a/i-0123", "us-west-2a", Some("i-0123")),
            ("aws:///us-west-2-lax-1a/i-0123", "us-west-2-lax-1a", Some("i-0123")),
            ("aws://123456789012/cn-north-1a/i-0123", "cn-north-1a", Some("i-0123")),
            ("aws:///us-west-2a/f1c0ffee/fargate-ip-10-0-0-1.us-west-2.compute.internal", "us-west-2a", None),
            ("aws:///us-west-2a/fargate-ip-10-0-0-1.us-west-2.compute.internal", "us-west-2a", None),
            ("aws:///us-west-2a", "us-west-2a", None),
        ] {
            let expected = ProviderId { zone: zone.to_owned(), instance: instance.map(str::to_owned) };
            assert_eq!(ProviderId::read(text), Some(expected), "{text}");
        }
        for text in ["", "aws://", "aws:///", "gce://project/zone/name", "eks-hybrid:///us-west-2/demo/node", "i-0123"]
        {
            assert_eq!(ProviderId::read(text), None, "{text}");
        }
    }
}
