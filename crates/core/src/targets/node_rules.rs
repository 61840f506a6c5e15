//! The rules on the security groups of nodes and pods that allow load balancers, computed from all bindings together: many
//! bindings share a group, and none may take away what another needs.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::{
    api::crd::target_group_binding::{Networking, NetworkingProtocol, Peer},
    model::{PortReference, SecurityGroupId, SecurityGroupRule, Source, Tags, names::NODE_RULE_DESCRIPTION},
    snapshot::PodPort,
};

use super::endpoints::port_reference;

/// The ports of a rule without one.
const EVERY_PORT: (i32, i32) = (0, 65_535);

/// First and last port, on a security group.
type PortsOn<'a> = (&'a SecurityGroupId, (i32, i32));

/// Rules by the security group that they stand on.
pub type RulesByGroup = BTreeMap<SecurityGroupId, BTreeSet<SecurityGroupRule>>;

/// The location of one target of a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetEndpoint<'a> {
    /// The endpoint security group of its network interface.
    pub security_group: SecurityGroupId,
    /// The named ports of the pod; empty for a node.
    pub ports: &'a [PodPort],
}

/// Networking that cannot be made into rules as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetworking {
    /// A named port that no pod has.
    #[error(
        "spec.networking: no pod of the binding has a container port named `{0}`; name one that they have, or use its number"
    )]
    UnknownPort(String),
    /// Nodes have no named ports.
    #[error(
        "spec.networking: the port `{0}` is a name, which has no meaning for the target type instance; use a number from 1 to 65535"
    )]
    NamedNodePort(String),
    /// Neither source or both.
    #[error("spec.networking: a peer names both an ipBlock and a securityGroup, or neither; give exactly one")]
    Peer,
    /// The text is not a CIDR block.
    #[error("spec.networking: `{0}` is not a CIDR block; write it like 10.0.0.0/16 or 2001:db8::/32")]
    Cidr(String),
}

fn source(peer: &Peer) -> Result<Source, InvalidNetworking> {
    match (&peer.ip_block, &peer.security_group) {
        // EC2 clears the host bits, so that a block written with them would never compare equal.
        (Some(block), None) => match block.cidr.parse::<IpNet>().map(|net| net.trunc()) {
            Ok(IpNet::V4(net)) => Ok(Source::Ipv4(net.to_string())),
            Ok(IpNet::V6(net)) => Ok(Source::Ipv6(net.to_string())),
            Err(_) => Err(InvalidNetworking::Cidr(block.cidr.clone())),
        },
        (None, Some(group)) => Ok(Source::SecurityGroup(SecurityGroupId::new(&group.group_id))),
        _ => Err(InvalidNetworking::Peer),
    }
}

/// Returns the sources that a binding allows. A peer that cannot be read allows none.
#[must_use]
pub fn sources(networking: &Networking) -> Vec<Source> {
    networking.ingress.iter().flatten().flat_map(|ingress| &ingress.from).filter_map(|peer| source(peer).ok()).collect()
}

/// Returns true if a rule allows all that another rule allows.
#[must_use]
pub fn covers(rule: &SecurityGroupRule, other: &SecurityGroupRule) -> bool {
    rule.source == other.source
        && rule.protocol == other.protocol
        && rule.from_port <= other.from_port
        && rule.to_port >= other.to_port
}

/// Returns the rules that one binding requests. `to_pods` says whether its targets are pods, whose ports may have names.
///
/// # Errors
/// When its networking cannot be made into rules.
pub fn of_binding(
    networking: &Networking,
    places: &[TargetEndpoint<'_>],
    to_pods: bool,
) -> Result<RulesByGroup, InvalidNetworking> {
    let mut rules = RulesByGroup::new();
    for ingress in networking.ingress.iter().flatten() {
        let sources = ingress.from.iter().map(source).collect::<Result<Vec<_>, _>>()?;
        for port in &ingress.ports {
            let protocol = match port.protocol {
                Some(NetworkingProtocol::Udp) => "udp",
                Some(NetworkingProtocol::Tcp) | None => "tcp",
            };
            for (group, (from, to)) in ranges(port.port.as_ref().map(port_reference), places, to_pods)? {
                rules.entry(group.clone()).or_default().extend(sources.iter().map(|source| SecurityGroupRule {
                    protocol: protocol.to_owned(),
                    from_port: Some(from),
                    to_port: Some(to),
                    source: source.clone(),
                    description: NODE_RULE_DESCRIPTION.to_owned(),
                }));
            }
        }
    }
    Ok(rules)
}

fn ranges<'a>(
    port: Option<PortReference>,
    places: &'a [TargetEndpoint<'_>],
    to_pods: bool,
) -> Result<BTreeSet<PortsOn<'a>>, InvalidNetworking> {
    let everywhere = |range| places.iter().map(|place| (&place.security_group, range)).collect();
    match port {
        None | Some(PortReference::Number(0)) => Ok(everywhere(EVERY_PORT)),
        Some(PortReference::Number(number)) => Ok(everywhere((number.into(), number.into()))),
        Some(PortReference::Name(name)) if !to_pods => Err(InvalidNetworking::NamedNodePort(name)),
        Some(PortReference::Name(name)) => {
            let named: BTreeSet<_> = places
                .iter()
                .flat_map(|place| place.ports.iter().filter(|p| p.name == name).map(move |p| (place, p.number.into())))
                .map(|(place, number)| (&place.security_group, (number, number)))
                .collect();
            if named.is_empty() && !places.is_empty() { Err(InvalidNetworking::UnknownPort(name)) } else { Ok(named) }
        }
    }
}

/// Puts the rules of all bindings together. `restricted` is the ordinary case: a group has few rules to give (60), so all
/// ports of one protocol from one security group become one rule from the lowest to the highest.
#[must_use]
pub fn combine(bindings: impl IntoIterator<Item = RulesByGroup>, restricted: bool) -> RulesByGroup {
    let mut all = RulesByGroup::new();
    for (group, rules) in bindings.into_iter().flatten() {
        all.entry(group).or_default().extend(rules);
    }
    if restricted {
        for rules in all.values_mut() {
            *rules = collapse(std::mem::take(rules));
        }
    }
    all
}

fn collapse(rules: BTreeSet<SecurityGroupRule>) -> BTreeSet<SecurityGroupRule> {
    let mut from_groups: BTreeMap<(String, Source), SecurityGroupRule> = BTreeMap::new();
    let mut collapsed = BTreeSet::new();
    for rule in rules {
        if !matches!(rule.source, Source::SecurityGroup(_)) {
            collapsed.insert(rule);
            continue;
        }
        let whole = from_groups.entry((rule.protocol.clone(), rule.source.clone())).or_insert_with(|| rule.clone());
        whole.from_port = whole.from_port.min(rule.from_port);
        whole.to_port = whole.to_port.max(rule.to_port);
    }
    collapsed.extend(from_groups.into_values());
    collapsed
}

/// The changes of one security group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleChange {
    /// To be added, first.
    pub authorize: Vec<SecurityGroupRule>,
    /// To be taken away, afterwards.
    pub revoke: Vec<SecurityGroupRule>,
}

/// Returns true if the controller may revoke a rule, by its description: `key=value` pairs with commas between.
#[must_use]
pub fn is_ours(rule: &SecurityGroupRule) -> bool {
    rule.description.split(',').any(|pair| pair.trim() == NODE_RULE_DESCRIPTION)
}

/// Compares the desired rules of a security group with its observed ones. Rules of other owners are not changed.
#[must_use]
pub fn changes(wanted: &BTreeSet<SecurityGroupRule>, existing: &BTreeSet<SecurityGroupRule>) -> RuleChange {
    // EC2 has only one rule of an identity: one that another owner made is enough.
    let there: BTreeSet<_> = existing.iter().map(SecurityGroupRule::identity).collect();
    let needed: BTreeSet<_> = wanted.iter().map(SecurityGroupRule::identity).collect();
    let surplus = |rule: &&SecurityGroupRule| is_ours(rule) && !needed.contains(&rule.identity());
    RuleChange {
        authorize: wanted.iter().filter(|rule| !there.contains(&rule.identity())).cloned().collect(),
        revoke: existing.iter().filter(surplus).cloned().collect(),
    }
}

/// A network interface of which it is not clear which security group gets the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its network interface is in the security groups {}, and {} the tag {}; exactly one must, for rules are added to it",
    list(groups.iter()),
    match matching.as_slice() { [] => "none carries".to_owned(), several => format!("{} all carry", list(several.iter())) },
    tags.join(", ")
)]
pub struct UnclearGroup {
    /// All groups of the interface.
    pub groups: Vec<SecurityGroupId>,
    /// The groups that carry the tags.
    pub matching: Vec<SecurityGroupId>,
    /// The tags.
    pub tags: Vec<String>,
}

fn list<'a>(ids: impl Iterator<Item = &'a SecurityGroupId>) -> String {
    let ids: Vec<&str> = ids.map(SecurityGroupId::as_str).collect();
    if ids.is_empty() { "(none)".to_owned() } else { ids.join(", ") }
}

impl UnclearGroup {
    /// Returns the fix.
    #[must_use]
    pub fn fix(&self) -> String {
        let tags = self.tags.join(" and ");
        match (self.groups.as_slice(), self.matching.as_slice()) {
            ([], _) => "put the network interface into a security group".to_owned(),
            (_, []) => format!("add {tags} to one of them"),
            (_, several) => format!("keep {tags} on one of {}", list(several.iter())),
        }
    }
}

/// The security group of a network interface that gets the rules: its only one, or the one that carries the cluster's tag
/// (of any value) and the tags of `--service-target-eni-security-group-tags`.
///
/// # Errors
/// When there is no such group, or more than one.
pub fn endpoint_security_group(
    groups: &BTreeMap<SecurityGroupId, Tags>,
    cluster: &str,
    extra_tags: &Tags,
) -> Result<SecurityGroupId, UnclearGroup> {
    let cluster_tag = format!("kubernetes.io/cluster/{cluster}");
    let carries = |tags: &Tags| {
        tags.contains_key(&cluster_tag) && extra_tags.iter().all(|(key, value)| tags.get(key) == Some(value))
    };
    let matching: Vec<_> = if groups.len() == 1 {
        groups.keys().cloned().collect()
    } else {
        groups.iter().filter(|(_, tags)| carries(tags)).map(|(id, _)| id.clone()).collect()
    };
    match matching.as_slice() {
        [only] => Ok(only.clone()),
        _ => Err(UnclearGroup {
            groups: groups.keys().cloned().collect(),
            matching,
            tags: std::iter::once(cluster_tag).chain(extra_tags.iter().map(|(k, v)| format!("{k}={v}"))).collect(),
        }),
    }
}

#[cfg(test)]
mod tests;
