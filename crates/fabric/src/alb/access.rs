//! The one place where security groups decide about connections of an Application Load Balancer.

use std::net::IpAddr;

use crate::{account::Account, node::Node, targets::Picked};

/// Returns true if the load balancer's security groups let a client in. `client` is its address as AWS sees it.
pub(super) fn lets_in(_node: &Node, _account: &Account, _port: u16, _client: IpAddr) -> bool {
    true
}

/// Returns true if the security groups of a target let the load balancer's node in.
pub(super) fn reaches(_node: &Node, _account: &Account, _picked: &Picked) -> bool {
    true
}
