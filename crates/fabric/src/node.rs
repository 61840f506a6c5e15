//! A node of a load balancer.

use std::{net::Ipv4Addr, sync::Arc};

use tokio::sync::watch;

use crate::{
    account::{Account, LoadBalancer},
    targets::Targets,
};

/// The settings of all nodes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The numbers drawn come from it.
    pub seed: u64,
    /// The shortest and the longest time, in milliseconds, until a node sees a change of the account.
    pub delay_millis: (u64, u64),
    /// True if security groups are enforced.
    pub security_groups: bool,
    /// Added to the ports of listeners, pods and instances, where ports below 1024 cannot be bound.
    pub port_offset: u16,
    /// The factor for all seconds of AWS's settings: intervals of checks, draining, slow start, stickiness. Below 1, time
    /// runs faster.
    pub time_scale: f64,
}

/// A node of a load balancer: one address in one subnet, with its own view of the account.
#[derive(Debug)]
pub struct Node {
    /// The load balancer's ARN.
    pub load_balancer: String,
    /// The subnet's id.
    pub subnet: String,
    /// The subnet's Availability Zone.
    pub zone: String,
    /// The loopback address.
    pub address: Ipv4Addr,
    /// The account as the node sees it: later than it is, and later or sooner than other nodes see it.
    pub view: watch::Receiver<Arc<Account>>,
    /// The targets, with the health that this node sees.
    pub targets: Arc<Targets>,
    /// The settings.
    pub options: Options,
}

impl Node {
    /// Returns the account as the node sees it now.
    #[must_use]
    pub fn account(&self) -> Arc<Account> {
        self.view.borrow().clone()
    }

    /// Returns the node's load balancer in a view.
    #[must_use]
    pub fn balancer<'a>(&self, account: &'a Account) -> Option<&'a LoadBalancer> {
        account.load_balancers.get(&self.load_balancer)
    }
}
