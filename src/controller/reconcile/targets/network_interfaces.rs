//! The security group of a pod or a node: that of its network interface. Instances are read in batches and cached;
//! single addresses are queried only if the instance does not have them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use albatross_aws::AwsError;
use albatross_core::{
    model::{InterfaceInfo, ObservedSecurityGroup, SecurityGroupId, Tags},
    snapshot::Snapshot,
};

use super::cloud::Cloud;
use albatross_core::targets::{
    endpoints::{COMPUTE_TYPE, TargetOwner},
    node_rules::{UnclearGroup, endpoint_security_group},
};

/// The label of the nodes of SageMaker HyperPod, whose instances belong to another account.
const HYPERPOD: &str = "sagemaker.amazonaws.com/compute-type";

/// The place of a target's network interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum InterfaceLookup {
    /// The primary interface of an instance.
    Instance(String),
    /// The interface of an instance with a pod's address.
    OnInstance {
        /// The instance, `i-…`.
        instance: String,
        /// The pod's UID, because its address may later belong to another pod.
        pod: String,
        /// The pod's address.
        address: String,
    },
    /// The interface with a pod's address: the pod has its own interface (Fargate, security groups for pods), or its
    /// node is not an instance of this account.
    Address {
        /// The pod's UID.
        pod: String,
        /// The pod's address.
        address: String,
    },
}

/// Returns the place of a target's network interface. `None` for pods on hybrid nodes, which have no security group.
#[must_use]
pub(super) fn interface_lookup(snapshot: &Snapshot, id: &str, owner: &TargetOwner) -> Option<InterfaceLookup> {
    if matches!(owner, TargetOwner::Node(_)) {
        return Some(InterfaceLookup::Instance(id.to_owned()));
    }
    let pod = owner.pod(snapshot);
    let uid = pod.map(|pod| pod.uid.clone()).unwrap_or_default();
    let by_address = || Some(InterfaceLookup::Address { pod: uid.clone(), address: id.to_owned() });
    if pod.is_some_and(|pod| pod.network_interface.is_some()) {
        return by_address();
    }
    let node = pod.and_then(|pod| snapshot.nodes.get(&albatross_core::model::ObjectName::new("", &pod.node)));
    let Some(node) = node else { return by_address() };
    let compute_type = node.labels.get(COMPUTE_TYPE).map(String::as_str);
    match node.instance_id() {
        _ if compute_type == Some("hybrid") => None,
        Some(instance) if compute_type != Some("fargate") && !node.labels.contains_key(HYPERPOD) => {
            Some(InterfaceLookup::OnInstance { instance: instance.to_owned(), pod: uid, address: id.to_owned() })
        }
        _ => by_address(),
    }
}

/// The reason why a target's security group is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLocated {
    /// EC2 does not have the instance.
    #[error("EC2 has no instance {0} with a network interface")]
    NoInstance(String),
    /// EC2 does not have the address in the VPC.
    #[error("no network interface of the VPC has the address {0}")]
    NoInterface(String),
    /// The interface has several security groups, and it is unclear which one should get the rules.
    #[error(transparent)]
    Unclear(#[from] UnclearGroup),
}

impl NotLocated {
    /// Returns the fix.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::NoInstance(_) => {
                "check the node's spec.providerID, and that its instance runs in this account".to_owned()
            }
            Self::NoInterface(_) => {
                "targets of type ip need pods with addresses of the VPC; with an overlay network, use the type instance"
                    .to_owned()
            }
            Self::Unclear(error) => error.fix(),
        }
    }
}

type Groups = BTreeSet<SecurityGroupId>;

/// The relevant fields of a network interface.
#[derive(Clone, Debug)]
struct Interface {
    primary: bool,
    addresses: BTreeSet<IpAddr>,
    prefixes: Vec<IpNet>,
    groups: Groups,
}

impl From<InterfaceInfo> for Interface {
    fn from(info: InterfaceInfo) -> Self {
        let prefixes = info.ipv4_prefixes.iter().chain(&info.ipv6_prefixes);
        Self {
            primary: info.device_index == Some(0),
            addresses: info.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
            prefixes: prefixes.filter_map(|prefix| prefix.parse().ok()).collect(),
            groups: info.security_groups.into_iter().collect(),
        }
    }
}

impl Interface {
    fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.prefixes.iter().any(|prefix| prefix.contains(&address))
    }
}

/// The cached security groups, updated by the controller's own writes.
pub(super) type KnownGroups = BTreeMap<SecurityGroupId, ObservedSecurityGroup>;

/// The cached instances, interfaces and addresses.
#[derive(Debug, Default)]
pub(super) struct NetworkInterfaces {
    instances: BTreeMap<String, Vec<Interface>>,
    /// The interfaces that were not found in the answer for an instance.
    found: BTreeMap<InterfaceLookup, Groups>,
}

/// The security group of each requested place.
pub(super) type Located = BTreeMap<InterfaceLookup, Result<SecurityGroupId, NotLocated>>;

impl NetworkInterfaces {
    /// Returns the security group of each place. AWS is queried only for unknown places, and places that are not
    /// requested any more are dropped from the cache. `groups` is filled with the groups whose tags decide for an
    /// interface with several groups.
    ///
    /// # Errors
    /// Returns the error of AWS.
    pub(super) async fn locate<C: Cloud>(
        &mut self,
        cloud: &C,
        groups: &mut KnownGroups,
        wanted: &BTreeSet<InterfaceLookup>,
        cluster: &str,
        extra_tags: &Tags,
    ) -> Result<Located, AwsError> {
        self.found.retain(|place, _| wanted.contains(place));
        let instances: BTreeSet<&String> = wanted.iter().filter_map(instance).collect();
        self.instances.retain(|id, _| instances.contains(id));
        let unread: BTreeSet<String> =
            instances.into_iter().filter(|id| !self.instances.contains_key(*id)).cloned().collect();
        self.read_instances(cloud, &unread).await?;
        // The interfaces of a node change with its pods, so an instance that lacked an address is read again.
        let stale: BTreeSet<String> = wanted
            .iter()
            .filter(|place| self.groups_of(place).is_none())
            .filter_map(instance)
            .filter(|id| !unread.contains(*id))
            .cloned()
            .collect();
        self.read_instances(cloud, &stale).await?;
        self.read_addresses(cloud, wanted).await?;
        let missing = |place: &InterfaceLookup| match place {
            InterfaceLookup::Instance(id) => NotLocated::NoInstance(id.clone()),
            InterfaceLookup::OnInstance { address, .. } | InterfaceLookup::Address { address, .. } => {
                NotLocated::NoInterface(address.clone())
            }
        };
        let interfaces: BTreeMap<&InterfaceLookup, Option<Groups>> =
            wanted.iter().map(|place| (place, self.groups_of(place).cloned())).collect();
        let several: BTreeSet<&SecurityGroupId> =
            interfaces.values().flatten().filter(|g| g.len() > 1).flatten().collect();
        read_groups(cloud, groups, several).await?;
        let mut decided: BTreeMap<&Groups, Result<SecurityGroupId, UnclearGroup>> = BTreeMap::new();
        for of_interface in interfaces.values().flatten() {
            decided.entry(of_interface).or_insert_with(|| {
                let tags = |id: &SecurityGroupId| groups.get(id).map(|group| group.tags.clone()).unwrap_or_default();
                let tagged = of_interface.iter().map(|id| (id.clone(), tags(id))).collect();
                endpoint_security_group(&tagged, cluster, extra_tags)
            });
        }
        // Their groups are read again next time, since a user will tag them.
        for unclear in decided.values().filter_map(|decision| decision.as_ref().err()) {
            groups.retain(|id, _| !unclear.groups.contains(id));
        }
        let located = interfaces.iter().map(|(place, of_interface)| {
            let decision = of_interface.as_ref().and_then(|groups| decided.get(groups));
            let decision = decision.map_or_else(|| Err(missing(place)), |d| d.clone().map_err(NotLocated::from));
            ((*place).clone(), decision)
        });
        Ok(located.collect())
    }

    /// Returns the groups of a place's interface, as far as they are known.
    fn groups_of(&self, place: &InterfaceLookup) -> Option<&Groups> {
        if let Some(groups) = self.found.get(place) {
            return Some(groups);
        }
        match place {
            InterfaceLookup::Address { .. } => None,
            InterfaceLookup::Instance(id) => {
                let interfaces = self.instances.get(id)?;
                interfaces.iter().find(|i| i.primary).or(interfaces.first()).map(|i| &i.groups)
            }
            InterfaceLookup::OnInstance { instance, address, .. } => {
                let interfaces = self.instances.get(instance)?;
                let address: IpAddr = address.parse().ok()?;
                // A single interface without the address proves nothing: with custom networking, pods are on other
                // interfaces, with other groups, that are attached after the node has started.
                interfaces.iter().find(|i| i.has(address)).map(|i| &i.groups).or_else(|| alike(interfaces, 2))
            }
        }
    }

    async fn read_instances<C: Cloud>(&mut self, cloud: &C, ids: &BTreeSet<String>) -> Result<(), AwsError> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = ids.iter().cloned().collect();
        for instance in cloud.instances(&ids).await? {
            self.instances.insert(instance.id, instance.interfaces.into_iter().map(Interface::from).collect());
        }
        Ok(())
    }

    async fn read_addresses<C: Cloud>(
        &mut self,
        cloud: &C,
        wanted: &BTreeSet<InterfaceLookup>,
    ) -> Result<(), AwsError> {
        let unknown: Vec<(&InterfaceLookup, &String)> = wanted
            .iter()
            .filter(|place| self.groups_of(place).is_none())
            .filter_map(|place| match place {
                InterfaceLookup::Instance(_) => None,
                InterfaceLookup::OnInstance { address, .. } | InterfaceLookup::Address { address, .. } => {
                    Some((place, address))
                }
            })
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let addresses: BTreeSet<&String> = unknown.iter().map(|(_, address)| *address).collect();
        let addresses: Vec<String> = addresses.into_iter().cloned().collect();
        let interfaces: Vec<Interface> =
            cloud.interfaces_by_address(&addresses).await?.into_iter().map(Interface::from).collect();
        let mut by_address: BTreeMap<IpAddr, &Groups> = BTreeMap::new();
        for interface in &interfaces {
            by_address.extend(interface.addresses.iter().map(|address| (*address, &interface.groups)));
        }
        for (place, address) in unknown {
            let found = address.parse().ok().and_then(|address: IpAddr| by_address.get(&address).copied());
            // The instance's only interface is the best guess.
            let found = found.or_else(|| alike(self.instances.get(instance(place)?)?, 1));
            if let Some(groups) = found.cloned() {
                self.found.insert(place.clone(), groups);
            }
        }
        Ok(())
    }
}

fn instance(place: &InterfaceLookup) -> Option<&String> {
    match place {
        InterfaceLookup::Instance(id) | InterfaceLookup::OnInstance { instance: id, .. } => Some(id),
        InterfaceLookup::Address { .. } => None,
    }
}

/// Returns the groups that all interfaces have in common exactly, if there are at least `least` interfaces.
fn alike(interfaces: &[Interface], least: usize) -> Option<&Groups> {
    let first = interfaces.first()?;
    (interfaces.len() >= least && interfaces.iter().all(|i| i.groups == first.groups)).then_some(&first.groups)
}

/// Reads the groups that are not known yet. Deleted groups are missing afterwards.
///
/// # Errors
/// Returns the error of AWS.
pub(super) async fn read_groups<C: Cloud>(
    cloud: &C,
    known: &mut KnownGroups,
    wanted: impl IntoIterator<Item = &SecurityGroupId>,
) -> Result<(), AwsError> {
    let missing: BTreeSet<&SecurityGroupId> = wanted.into_iter().filter(|id| !known.contains_key(id)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<SecurityGroupId> = missing.into_iter().cloned().collect();
    known.extend(cloud.security_groups(&missing).await?.into_iter().map(|group| (group.id.clone(), group)));
    Ok(())
}

#[cfg(test)]
mod tests;
