//! Pods: servers at loopback addresses that answer as their images would.
//!
//! The last element of an image's name, without tag and digest, decides how a container behaves:
//!
//! | image | behaviour |
//! |---|---|
//! | `echo-basic` | the echo server of the Gateway API's conformance tests, with its modes for gRPC, TCP and UDP |
//! | `colorteller` | HTTP on `SERVER_PORT`, the body is `COLOR` |
//! | `hello-multi` | HTTP on 80 and on all ports that the container names |
//! | `udp-echoserver` | UDP and TCP echo on 8080, or on the ports that the container names |
//! | `grpc-echoserver` | gRPC on 50051, or on the ports that the container names |
//! | any other | HTTP, gRPC, TLS, WebSocket, TCP echo or UDP echo, as a client speaks, on the ports that the container names, else on 80 and 8080 |
//!
//! Every HTTP answer has the headers `x-pod`, the pod's name, and `x-source`, the client's address as the pod sees it.

mod connection;
mod echo_basic;
mod grpc;
mod http;
mod plan;
pub mod probe;
mod proxy_protocol;
mod tls;
mod udp;
mod websocket;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, UdpSocket},
    sync::watch,
    task::JoinSet,
};

use crate::address;

pub use crate::account::Transport;
pub use plan::is_known;

/// A pod that is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSpec {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The address in the VPC.
    pub address: Option<IpAddr>,
    /// The containers.
    pub containers: Vec<ContainerSpec>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// The name.
    pub name: String,
    /// The image.
    pub image: String,
    /// The ports that it names.
    pub ports: Vec<ContainerPort>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// The command.
    pub command: Vec<String>,
    /// The command's arguments.
    pub arguments: Vec<String>,
    /// The files of Secrets and ConfigMaps by their paths.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A port that a container names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerPort {
    /// The number.
    pub number: u16,
    /// The protocol.
    pub transport: Transport,
}

/// The reaction of a pod's processes to SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTerm {
    /// They exit: listeners are closed, connections are reset.
    Exit,
    /// They stop to accept, complete what is in flight, and close connections.
    Drain,
}

/// The reason why a pod does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It has no address.
    #[error("{0} is not an address of the VPC, 10.0.0.0/16")]
    Address(String),
    /// A port is beyond 65535 once the offset is added.
    #[error("port {0} is too high for the offset that is added to it")]
    Port(u16),
    /// A certificate or key that the environment names is not usable.
    #[error("TLS: {0}")]
    Tls(String),
    /// A port cannot be bound.
    #[error("binding {address}: {error}")]
    Bind {
        /// The loopback address.
        address: SocketAddr,
        /// The cause.
        error: io::Error,
    },
}

/// The phase of a pod's life as its connections see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    Draining,
}

/// The data that all servers of a pod share.
#[derive(Debug)]
pub(crate) struct Shared {
    name: String,
    /// True if it answers with errors.
    failing: AtomicBool,
    /// True if connections are reset when they are dropped.
    killed: AtomicBool,
}

/// A pod that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Pod {
    address: Ipv4Addr,
    shared: Arc<Shared>,
    /// Each server and each connection has a receiver, so that it is closed when all have ended.
    phase: watch::Sender<Phase>,
    servers: std::sync::Mutex<JoinSet<()>>,
}

enum Bound {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Pod {
    /// Starts a pod's servers at the loopback address that stands for its own. `port_offset` is added to all ports.
    /// All ports are bound when it returns.
    ///
    /// # Errors
    /// Returns an error if a port cannot be bound, or if a certificate is not usable.
    ///
    /// # Panics
    /// Panics outside a Tokio runtime.
    pub fn start(spec: &PodSpec, port_offset: u16) -> Result<Self, StartError> {
        let text = || spec.address.map_or_else(|| "nothing".to_owned(), |address| address.to_string());
        let address = spec.address.and_then(address::of_vpc).ok_or_else(|| StartError::Address(text()))?;
        let mut bound = Vec::new();
        for server in plan::servers(spec) {
            let serves = server.serves.prepare().map_err(StartError::Tls)?;
            let port = server.port.checked_add(port_offset).ok_or(StartError::Port(server.port))?;
            let at = SocketAddr::from((address, port));
            let socket = match server.transport {
                Transport::Tcp => listen(at).map(Bound::Tcp),
                Transport::Udp => bind_udp(at).map(Bound::Udp),
            };
            bound.push((socket.map_err(|error| StartError::Bind { address: at, error })?, serves));
        }
        let shared = Arc::new(Shared {
            name: spec.name.clone(),
            failing: AtomicBool::new(false),
            killed: AtomicBool::new(false),
        });
        let phase = watch::Sender::new(Phase::Running);
        let mut servers = JoinSet::new();
        for (socket, serves) in bound {
            let (shared, phase, serves) = (shared.clone(), phase.subscribe(), Arc::new(serves));
            match socket {
                Bound::Tcp(listener) => servers.spawn(connection::serve(listener, shared, serves, phase)),
                Bound::Udp(socket) => servers.spawn(udp::serve(socket, shared, serves, phase)),
            };
        }
        Ok(Self { address, shared, phase, servers: std::sync::Mutex::new(servers) })
    }

    /// Returns the loopback address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// While true, HTTP answers are 503, other TCP connections are closed, and UDP is not answered.
    pub fn set_failing(&self, failing: bool) {
        self.shared.failing.store(failing, Ordering::Relaxed);
    }

    /// Ends the pod as SIGTERM, and SIGKILL after `grace`, would. Returns as soon as nothing is left.
    pub async fn terminate(&self, on_term: OnTerm, grace: Duration) {
        if on_term == OnTerm::Drain {
            self.phase.send_replace(Phase::Draining);
            // Past the grace, what is left is killed.
            let _ = tokio::time::timeout(grace, self.phase.closed()).await;
        }
        self.kill();
        self.phase.closed().await;
    }

    /// Ends the pod as SIGKILL would: listeners are closed, connections are reset.
    pub fn kill(&self) {
        self.shared.killed.store(true, Ordering::Relaxed);
        self.servers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).abort_all();
    }

    /// Waits until no server and no connection is left.
    pub async fn ended(&self) {
        self.phase.closed().await;
    }

    /// Returns true as long as a server or a connection is left.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.phase.is_closed()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Listens at an address, also while connections of an earlier server there are in TIME_WAIT.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

pub(crate) fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
