//! The one place where security groups decide about connections of an Application Load Balancer.

use std::net::IpAddr;

use crate::{
    account::{Account, TargetType, Transport},
    node::Node,
    security_groups,
    targets::Picked,
};

/// Returns true if the load balancer's security groups let a client in. `client` is its address as AWS sees it.
pub(super) fn lets_in(node: &Node, account: &Account, port: u16, client: IpAddr) -> bool {
    !node.options.security_groups
        || node
            .balancer(account)
            .is_some_and(|balancer| security_groups::lets_in(account, balancer, port, Transport::Tcp, client))
}

/// Returns true if the security groups of a target let the load balancer's node in.
pub(super) fn reaches(node: &Node, account: &Account, picked: &Picked, kind: TargetType) -> bool {
    let address = match kind {
        TargetType::Ip => picked.target.id.parse().ok(),
        TargetType::Instance => account.instances.get(&picked.target.id).map(|instance| instance.address),
        TargetType::Alb => None,
    };
    let Some(address) = address.filter(|_| node.options.security_groups) else { return true };
    let port = picked.target.port;
    node.balancer(account).is_some_and(|balancer| {
        security_groups::reaches(account, balancer, &node.subnet, address, port, Transport::Tcp, None)
    })
}
