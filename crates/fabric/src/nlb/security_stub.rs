//! Stands for `crate::security_groups`, with its names: everything is let through.

use std::net::IpAddr;

use crate::account::{Account, LoadBalancer};

/// What a connection is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// TCP and TLS.
    Tcp,
    /// UDP.
    Udp,
}

/// Returns true if a load balancer takes a connection from a client.
pub(crate) fn lets_in(_: &Account, _: &LoadBalancer, _: u16, _: Transport, _: IpAddr) -> bool {
    true
}

/// Returns true if a target takes a connection from a load balancer's node.
pub(crate) fn reaches(
    _: &Account,
    _: &LoadBalancer,
    _: &str,
    _: IpAddr,
    _: u16,
    _: Transport,
    _: Option<IpAddr>,
) -> bool {
    true
}
