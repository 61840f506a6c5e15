//! The Availability Zone in which an address is registered: AWS requires one for addresses outside the target group's
//! VPC.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use tokio::time::Instant;

use albatross_aws::{AwsError, AwsErrorKind};
use albatross_core::{
    model::{EVERY_ZONE, ObjectName, VpcBlocks, VpcId},
    snapshot::{Snapshot, TargetGroupBinding},
};

use super::{Cloud, Cluster, Targets, binding::role_of};
use albatross_core::targets::endpoints::TargetOwner;

/// The time for which the CIDR blocks of a VPC are cached.
const BLOCKS_KEPT: Duration = Duration::from_secs(600);
/// The time for which the source of zones is kept after AWS has refused zones.
pub(crate) const SOURCE_KEPT: Duration = Duration::from_secs(3600);
/// The label of a node with its zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The source of the zones of a binding's addresses. When AWS refuses the zones of one source, the next one is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ZoneSource {
    /// The CIDR blocks of `spec.vpcID` or of the cluster's VPC, cached.
    #[default]
    Binding,
    /// The CIDR blocks of the target group's VPC, read again.
    TargetGroup,
    /// The same CIDR blocks and, inside the VPC, the zones of the pods' nodes (Local Zones).
    Nodes,
}

impl ZoneSource {
    pub(crate) fn next(self) -> Option<Self> {
        match self {
            Self::Binding => Some(Self::TargetGroup),
            Self::TargetGroup => Some(Self::Nodes),
            Self::Nodes => None,
        }
    }
}

/// Returns true if AWS refuses targets because of their zones.
pub(crate) fn is_about_zones(error: &AwsError) -> bool {
    let AwsErrorKind::Refused { code, message } = &error.kind else { return false };
    code == "ValidationError" && message.contains("Availability Zone")
}

/// The CIDR blocks of a VPC, as far as they are visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// All blocks.
    Known(Vec<IpNet>),
    /// The VPC belongs to another account: no address of the cluster is in it.
    Hidden,
    /// The controller is not allowed to read the blocks.
    Unread,
}

impl Blocks {
    fn of(read: Option<VpcBlocks>) -> Self {
        read.map_or(Self::Hidden, |VpcBlocks { ipv4, ipv6 }| {
            Self::Known(ipv4.iter().chain(&ipv6).filter_map(|block| block.parse().ok()).collect())
        })
    }

    /// Returns true if the VPC contains the address, or if its blocks could not be read.
    fn contains(&self, address: IpAddr) -> bool {
        match self {
            Self::Known(blocks) => blocks.iter().any(|block| block.contains(&address)),
            Self::Hidden => false,
            Self::Unread => true,
        }
    }
}

/// Returns the zone to register a target in; `None` for instances, and for addresses whose zone AWS finds.
pub(crate) fn zone(
    snapshot: &Snapshot,
    id: &str,
    owner: Option<&TargetOwner>,
    blocks: &Blocks,
    source: ZoneSource,
) -> Option<String> {
    let address: IpAddr = id.parse().ok()?;
    if !blocks.contains(address) {
        return Some(EVERY_ZONE.to_owned());
    }
    let node = &owner.filter(|_| source == ZoneSource::Nodes)?.pod(snapshot)?.node;
    snapshot.nodes.get(&ObjectName::new("", node))?.labels.get(ZONE_LABEL).cloned()
}

impl<C: Cloud, K: Cluster> Targets<C, K> {
    /// Returns the CIDR blocks that show which of a binding's addresses are outside its target group's VPC.
    ///
    /// # Errors
    /// Returns the error of AWS, except for a missing permission.
    pub(crate) async fn blocks(
        &self,
        binding: &TargetGroupBinding,
        arn: &albatross_core::model::TargetGroupArn,
        source: ZoneSource,
    ) -> Result<Blocks, AwsError> {
        let named = binding.spec.vpc_id.as_ref().filter(|vpc| !vpc.is_empty()).map(VpcId::new);
        let mut vpc = named.unwrap_or_else(|| self.cloud.vpc());
        if source == ZoneSource::Binding {
            let now = Instant::now();
            let mut blocks = self.vpc_blocks();
            blocks.retain(|_, (read, _)| now.saturating_duration_since(*read) < BLOCKS_KEPT);
            if let Some((_, blocks)) = blocks.get(&vpc) {
                return Ok(blocks.clone());
            }
        } else {
            let facts = {
                let key = albatross_core::targets::TargetGroupKey::Arn(arn.clone());
                self.cloud.target_group(role_of(binding).as_ref(), &key).await?
            };
            vpc = facts.and_then(|facts| facts.vpc).unwrap_or(vpc);
        }
        let blocks = match self.cloud.vpc_blocks(&vpc).await {
            Ok(read) => Blocks::of(read),
            Err(AwsError { kind: AwsErrorKind::Denied { .. }, .. }) => Blocks::Unread,
            Err(error) => return Err(error),
        };
        self.vpc_blocks().insert(vpc, (Instant::now(), blocks.clone()));
        Ok(blocks)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::controller::reconcile::targets::fake::{name, node, pod};

    #[test]
    fn an_address_outside_of_the_vpc_is_in_every_zone() {
        let mut snapshot = Snapshot::default();
        let labels = BTreeMap::from([(ZONE_LABEL.to_owned(), "us-west-2-lax-1a".to_owned())]);
        snapshot.apply(albatross_core::snapshot::Node { labels, ..node("n1") });
        snapshot.apply(pod("10.0.0.1"));
        let owner = TargetOwner::Pod { name: name("10.0.0.1"), uid: "uid-10.0.0.1".to_owned(), quic_server_id: None };
        let blocks = Blocks::of(Some(VpcBlocks {
            ipv4: vec!["10.0.0.0/16".to_owned(), "100.64.0.0/16".to_owned()],
            ipv6: vec!["2001:db8::/56".to_owned()],
        }));
        use ZoneSource::{Binding, Nodes, TargetGroup};
        let local = Some("us-west-2-lax-1a");
        for (id, blocks, source, expected) in [
            ("10.0.0.1", &blocks, Binding, None),
            ("100.64.3.4", &blocks, TargetGroup, None),
            ("10.1.0.1", &blocks, Binding, Some("all")),
            ("2001:db8::1", &blocks, Binding, None),
            ("2001:db9::1", &blocks, Binding, Some("all")),
            ("i-1", &blocks, Nodes, None),
            ("10.0.0.1", &blocks, Nodes, local),
            ("10.1.0.1", &blocks, Nodes, Some("all")),
            ("10.0.0.1", &Blocks::Hidden, Binding, Some("all")),
            ("10.1.0.1", &Blocks::Unread, Binding, None),
            ("10.1.0.1", &Blocks::Unread, Nodes, local),
        ] {
            assert_eq!(
                zone(&snapshot, id, Some(&owner), blocks, source).as_deref(),
                expected,
                "{id} {blocks:?} {source:?}"
            );
        }
    }
}
