//! Load balancers that answer: the emulator's account, carried out on loopback addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use albatross_fabric::account::Account;
use albatross_fabric::address;
use albatross_fabric::emulator::{Emulator, Report};
use albatross_fabric::fabric::Fabric;
use albatross_fabric::node::Options;
use anyhow::{Context as _, Result};
use tokio::sync::watch;

use super::wait_until;

/// Added to all ports where those below 1024 are for root alone.
const OFFSET: u16 = 10_000;

/// The load balancers of the lab's account. Dropping it ends them and all connections.
pub struct Traffic {
    /// The load balancers.
    pub fabric: Fabric,
    /// The account as it is, without the delay of the nodes.
    pub account: watch::Receiver<Arc<Account>>,
    /// The settings that they have.
    pub options: Options,
    _emulator: Emulator,
}

impl Traffic {
    /// Starts the load balancers of the account of the emulator at `url`.
    pub async fn start(url: &str, options: Options) -> Result<Self> {
        let mut emulator = Emulator::new(url)?;
        let account = emulator.watch();
        wait_until(Duration::from_secs(30), "the emulator's account", async || Ok(account.borrow().version > 0))
            .await?;
        let fabric = Fabric::start(options, account.clone()).context("the DNS server has no port")?;
        emulator.report(fabric.health());
        Ok(Self { fabric, account, options, _emulator: emulator })
    }

    /// Returns where the nodes of a load balancer answer that DNS names now, by a listener's port in AWS.
    pub fn addresses(&self, dns_name: &str, port: u16) -> Vec<SocketAddr> {
        let port = port.saturating_add(self.options.port_offset);
        self.fabric.addresses(dns_name).into_iter().map(|address| (address, port).into()).collect()
    }

    /// Returns the health that the load balancers see.
    pub fn health(&self) -> watch::Receiver<Report> {
        self.fabric.health()
    }
}

/// Returns the settings that AWS's own times and delays have: a change reaches each node within ten seconds. Ports are AWS's
/// own where the machine allows it.
pub fn like_aws() -> Options {
    let is_allowed = TcpListener::bind((address::of_node(u16::MAX), 80)).is_ok();
    Options {
        seed: 1,
        delay_millis: (1_000, 10_000),
        security_groups: true,
        port_offset: if is_allowed { 0 } else { OFFSET },
        time_scale: 1.0,
    }
}

/// Returns where a pod or an instance listens, by its address in the VPC.
pub fn of_vpc(address: IpAddr, port: u16, options: Options) -> Option<SocketAddr> {
    let address: Ipv4Addr = address::of_vpc(address)?;
    Some((address, port.checked_add(options.port_offset)?).into())
}
