//! Load balancers that answer: the emulator's account, carried out on loopback addresses.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use albatross_fabric::account::Account;
use albatross_fabric::address;
use albatross_fabric::emulator::{Emulator, Report};
use albatross_fabric::fabric::Fabric;
use albatross_fabric::node::Options;
use anyhow::{Context as _, Result, anyhow, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use serde_json::Value;
use tokio::sync::watch;

use super::cluster::text;
use super::wait_until;

/// Added to all ports where those below 1024 are for root alone.
const OFFSET: u16 = 10_000;
/// The port of the claim, for root alone on most machines.
const PORT: u16 = 80;
/// The ports without which none is AWS's own: those of DNS and of most listeners.
const NEEDED: [u16; 3] = [53, PORT, 443];

/// The load balancers of the lab's account. Dropping it ends them and all connections.
pub struct Traffic {
    /// The load balancers.
    pub fabric: Fabric,
    /// The account as it is, without the delay of the nodes.
    pub account: watch::Receiver<Arc<Account>>,
    /// The settings that they have.
    pub options: Options,
    /// The certificate, in PEM, of the authority that issues the account's certificates.
    pub authority: String,
    _emulator: Emulator,
    _claim: TcpListener,
}

impl Traffic {
    /// Starts the load balancers of the account of the emulator at `url`.
    ///
    /// # Errors
    /// Returns an error if another lab's load balancers have the addresses and ports.
    pub async fn start(url: &str, options: Options) -> Result<Self> {
        let claim = claim(options.port_offset)?;
        let authority = authority(url).await.context("asking the emulator for the authority of its certificates")?;
        let mut emulator = Emulator::new(url)?;
        let account = emulator.watch();
        wait_until(Duration::from_secs(30), "the emulator's account", async || Ok(account.borrow().version > 0))
            .await?;
        let fabric = Fabric::start(options, account.clone()).context("the DNS server has no port")?;
        emulator.report(fabric.health());
        Ok(Self { fabric, account, options, authority, _emulator: emulator, _claim: claim })
    }

    /// Returns the authority of the account's certificates, for clients that verify them.
    pub fn roots(&self) -> Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        roots.add(pem::parse(&self.authority)?.into_contents().into())?;
        Ok(Arc::new(roots))
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

/// Takes a port of an address that no node gets, so that two labs do not have the same addresses and ports.
fn claim(port_offset: u16) -> Result<TcpListener> {
    let at = SocketAddr::from((address::of_node(u16::MAX), PORT.saturating_add(port_offset)));
    TcpListener::bind(at).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => anyhow!(
            "{at} is in use, so another lab on this machine has load balancers at the same addresses and ports: end it, or start this one with another --port-offset"
        ),
        ErrorKind::PermissionDenied => {
            anyhow!("binding {at}: {error}: this user may not use ports below 1024; start the lab with --port-offset 10000")
        }
        _ => anyhow!("binding {at}: {error}: the lab's load balancers need all of 127.0.0.0/8, as Linux has it"),
    })
}

/// Returns the certificate of the emulator's authority, in PEM.
async fn authority(url: &str) -> Result<String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let answer = client.get(format!("{url}/albatross/ca").parse()?).await?;
    let answer: Value = serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?;
    let certificate = text(&answer, "/certificate");
    ensure!(!certificate.is_empty(), "the answer has no certificate");
    Ok(certificate.to_owned())
}

/// Returns the settings that AWS's own times and delays have: a change reaches each node within ten seconds. Ports are AWS's
/// own where the machine allows it and no other program has them.
pub fn like_aws() -> Options {
    Options {
        seed: 1,
        delay_millis: (1_000, 10_000),
        security_groups: true,
        port_offset: if are_free(&NEEDED) { 0 } else { OFFSET },
        time_scale: 1.0,
    }
}

/// Returns true if a node could listen at each of these ports.
fn are_free(ports: &[u16]) -> bool {
    ports.iter().all(|port| TcpListener::bind((address::of_node(u16::MAX), *port)).is_ok())
}

/// Returns where a pod or an instance listens, by its address in the VPC.
pub fn of_vpc(address: IpAddr, port: u16, options: Options) -> Option<SocketAddr> {
    let address: Ipv4Addr = address::of_vpc(address)?;
    Some((address, port.checked_add(options.port_offset)?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_a_program_has_on_all_addresses_is_not_free() {
        let other = TcpListener::bind("0.0.0.0:0").unwrap();
        let taken = other.local_addr().unwrap().port();
        assert!(are_free(&[]) && !are_free(&[taken]));
        drop(other);
        assert!(are_free(&[taken]));
    }
}
