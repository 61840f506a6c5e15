//! The target of a connection or a flow.

use std::net::{IpAddr, SocketAddr};

use crate::{
    account::{
        Account, Action, Listener, LoadBalancer, Protocol, TargetGroup, TargetType, Transport, WeightedTargetGroup,
    },
    address,
    node::Node,
    security_groups,
    targets::{Picked, hash},
};

/// The way of a connection.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) picked: Picked,
    /// True if the target sees the client's address.
    pub(super) preserves_client: bool,
    /// True if the proxy protocol is on.
    pub(super) proxied: bool,
    /// True if the target is spoken to with TLS.
    pub(super) tls: bool,
}

/// The fate of a connection.
#[derive(Debug)]
pub(super) enum Routed {
    To(Route),
    /// There is no target.
    Nowhere,
    /// Its packets are dropped on the way to the target.
    Dropped,
}

/// Returns true if the load balancer's security groups let a client in.
pub(super) fn lets_in(
    node: &Node,
    account: &Account,
    balancer: &LoadBalancer,
    port: u16,
    datagrams: bool,
    client: SocketAddr,
) -> bool {
    let seen = address::as_seen(client.ip());
    !node.options.security_groups || security_groups::lets_in(account, balancer, port, transport(datagrams), seen)
}

fn transport(datagrams: bool) -> Transport {
    if datagrams { Transport::Udp } else { Transport::Tcp }
}

/// Finds the target of a connection, or of a flow of datagrams.
pub(super) fn find(
    node: &Node,
    account: &Account,
    balancer: &LoadBalancer,
    listener: &Listener,
    client: SocketAddr,
    datagrams: bool,
) -> Routed {
    let groups = listener.default_actions.iter().find_map(|action| match action {
        Action::Forward { target_groups, .. } => Some(target_groups.as_slice()),
        _ => None,
    });
    let arn = groups.and_then(|groups| weighted(groups, hash((node.options.seed, client))));
    let group = arn.and_then(|arn| Some((arn, account.target_groups.get(arn)?)));
    let Some((arn, group)) = group else { return Routed::Nowhere };
    let Ok(picked) = node.targets.pick(account, arn, client, None) else { return Routed::Nowhere };
    let preserves_client = preserves_client(group);
    let target: Option<IpAddr> = match group.target_type {
        TargetType::Ip => picked.target.id.parse().ok(),
        TargetType::Instance => account.instances.get(&picked.target.id).map(|instance| instance.address),
        TargetType::Alb => None,
    };
    let seen = address::as_seen(client.ip());
    let preserved = preserves_client.then_some(seen);
    if target.is_some() && target == preserved {
        // Both ends would have the same address.
        return Routed::Dropped;
    }
    let (port, transport) = (picked.target.port, transport(datagrams));
    let reached = !node.options.security_groups
        || target.is_none_or(|target| {
            security_groups::reaches(account, balancer, &node.subnet, target, port, transport, preserved)
        });
    if !reached {
        return Routed::Dropped;
    }
    let proxied = !datagrams && group.attributes.get("proxy_protocol_v2.enabled").is_some_and(|on| on == "true");
    Routed::To(Route { picked, preserves_client, proxied, tls: group.protocol == Protocol::Tls })
}

/// Chooses a target group by its weight, with a number drawn. A single one is taken whatever it weighs.
fn weighted(groups: &[WeightedTargetGroup], drawn: u64) -> Option<&str> {
    if let [group] = groups {
        return Some(&group.arn);
    }
    let whole: u64 = groups.iter().map(|group| u64::from(group.weight)).sum();
    let mut left = drawn.checked_rem(whole)?;
    groups.iter().find_map(|group| match left.checked_sub(group.weight.into()) {
        Some(rest) => {
            left = rest;
            None
        }
        None => Some(group.arn.as_str()),
    })
}

/// Returns true if targets of a group see the addresses of clients.
fn preserves_client(group: &TargetGroup) -> bool {
    let datagrams = matches!(group.protocol, Protocol::Udp | Protocol::TcpUdp);
    let always = datagrams || group.target_type == TargetType::Alb;
    let wanted = group.attributes.get("preserve_client_ip.enabled").map(|value| value == "true");
    always || wanted.unwrap_or(group.target_type == TargetType::Instance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::testing;

    #[test]
    fn groups_are_chosen_by_their_weights() {
        let groups = |weights: &[u32]| -> Vec<WeightedTargetGroup> {
            let weights = weights.iter().zip(["a", "b", "c"]);
            weights.map(|(weight, arn)| WeightedTargetGroup { arn: arn.to_owned(), weight: *weight }).collect()
        };
        let all = |weights: &[u32], draws: u64| -> Vec<Option<String>> {
            (0..draws).map(|drawn| weighted(&groups(weights), drawn).map(str::to_owned)).collect()
        };
        let some = |arns: &[&str]| -> Vec<Option<String>> { arns.iter().map(|arn| Some((*arn).to_owned())).collect() };
        assert_eq!(all(&[1, 0, 2], 5), some(&["a", "c", "c", "a", "c"]));
        assert_eq!(all(&[0, 5], 3), some(&["b", "b", "b"]));
        assert_eq!(all(&[0], 1), some(&["a"]));
        assert_eq!(all(&[0, 0], 1), [None]);
        assert_eq!(all(&[], 1), [None]);
    }

    #[test]
    fn the_clients_address_is_kept_by_default_for_instances_and_datagrams() {
        let mut group = testing::account(true, &[]).target_groups["tg"].clone();
        let mut kept = |protocol, target_type, attribute: Option<&str>| {
            group.protocol = protocol;
            group.target_type = target_type;
            group.attributes.clear();
            if let Some(value) = attribute {
                group.attributes.insert("preserve_client_ip.enabled".to_owned(), value.to_owned());
            }
            preserves_client(&group)
        };
        let table = [
            (Protocol::Tcp, TargetType::Ip, None, false),
            (Protocol::Tls, TargetType::Ip, None, false),
            (Protocol::Tcp, TargetType::Ip, Some("true"), true),
            (Protocol::Tcp, TargetType::Instance, None, true),
            (Protocol::Tls, TargetType::Instance, None, true),
            (Protocol::Tcp, TargetType::Instance, Some("false"), false),
            (Protocol::Udp, TargetType::Ip, None, true),
            (Protocol::TcpUdp, TargetType::Ip, Some("false"), true),
            (Protocol::Tcp, TargetType::Alb, Some("false"), true),
        ];
        for (protocol, target_type, attribute, expected) in table {
            assert_eq!(kept(protocol, target_type, attribute), expected, "{protocol:?} {target_type:?} {attribute:?}");
        }
    }
}
