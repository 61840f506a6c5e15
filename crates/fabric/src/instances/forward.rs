//! The sockets of NodePorts.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{NodePort, Serves};
use crate::{
    address,
    pods::{Transport, bind_udp, listen},
};

/// For how long a client of UDP stays with its backend while nothing is sent.
const IDLE: Duration = Duration::from_secs(30);
/// The most clients of one UDP port.
const CLIENTS: usize = 4096;
/// For how long a port is tried to be bound that an earlier task is about to close.
const BINDING: Duration = Duration::from_secs(5);
/// The time that a backend has to accept a connection.
const CONNECTING: Duration = Duration::from_secs(10);

type Key = (IpAddr, u16, Transport);

/// The open NodePorts of all nodes, on their loopback addresses. Dropping it closes them and ends all connections.
#[derive(Debug, Default)]
pub struct NodePorts {
    port_offset: u16,
    open: BTreeMap<Key, watch::Sender<Serves>>,
    tasks: JoinSet<()>,
}

impl NodePorts {
    /// Returns none. `port_offset` is added to all ports, those of backends too.
    #[must_use]
    pub fn new(port_offset: u16) -> Self {
        Self { port_offset, ..Self::default() }
    }

    /// Opens and closes ports, so that these are open. What is connected stays so. A port that cannot be bound is logged, and tried
    /// again the next time.
    ///
    /// # Panics
    /// Panics outside a Tokio runtime.
    pub fn set(&mut self, ports: Vec<NodePort>) {
        while self.tasks.try_join_next().is_some() {}
        let mut wanted: BTreeMap<Key, Serves> = BTreeMap::new();
        for NodePort { node, port, transport, serves } in ports {
            wanted.insert((node, port, transport), serves);
        }
        // Its task sees that the sender is gone. One without a task could not be bound.
        self.open.retain(|key, sender| wanted.contains_key(key) && !sender.is_closed());
        for (key, serves) in wanted {
            match self.open.entry(key) {
                Entry::Occupied(open) => {
                    open.get().send_if_modified(|old| {
                        let changed = *old != serves;
                        *old = serves;
                        changed
                    });
                }
                Entry::Vacant(place) => {
                    let (node, port, transport) = key;
                    let port = port.checked_add(self.port_offset);
                    let (Some(loopback), Some(port)) = (address::of_vpc(node), port) else {
                        tracing::warn!("{node} has no loopback address, or its port none with the offset");
                        continue;
                    };
                    let at = SocketAddr::from((loopback, port));
                    let sender = watch::Sender::new(serves);
                    let receiver = sender.subscribe();
                    let offset = self.port_offset;
                    match transport {
                        // Bound here if possible, so that it is open when this returns.
                        Transport::Tcp => {
                            let socket = listen(at);
                            self.tasks.spawn(async move {
                                if let Some(listener) = bound(socket, || listen(at), at, &receiver).await {
                                    tcp(listener, receiver, loopback.into(), offset).await;
                                }
                            });
                        }
                        Transport::Udp => {
                            let socket = bind_udp(at);
                            self.tasks.spawn(async move {
                                if let Some(socket) = bound(socket, || bind_udp(at), at, &receiver).await {
                                    udp(socket, receiver, loopback.into(), offset).await;
                                }
                            });
                        }
                    }
                    place.insert(sender);
                }
            }
        }
    }
}

/// Tries to bind again while an earlier task still has the port.
async fn bound<T>(
    mut socket: io::Result<T>,
    bind: impl Fn() -> io::Result<T>,
    at: SocketAddr,
    serves: &watch::Receiver<Serves>,
) -> Option<T> {
    let end = Instant::now() + BINDING;
    loop {
        match socket {
            Ok(socket) => return Some(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                if serves.has_changed().is_err() {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
                socket = bind();
            }
            Err(error) => {
                tracing::warn!("binding {at}: {error}");
                return None;
            }
        }
    }
}

/// Waits until the port is to be closed.
async fn closed(serves: &mut watch::Receiver<Serves>) {
    while serves.changed().await.is_ok() {}
}

/// Returns a backend and whether it sees the client's address.
fn choose(serves: &watch::Receiver<Serves>, offset: u16) -> Option<(SocketAddr, bool)> {
    match &*serves.borrow() {
        Serves::Forward { backends, keeps_client } => {
            let (address, port) = backends.get(fastrand::usize(..backends.len().max(1)))?;
            Some(((address::of_vpc(*address)?, port.checked_add(offset)?).into(), *keeps_client))
        }
        Serves::Health { .. } => None,
    }
}

async fn tcp(listener: TcpListener, serves: watch::Receiver<Serves>, node: IpAddr, offset: u16) {
    let mut connections = JoinSet::new();
    let mut own = serves.clone();
    let mut end = std::pin::pin!(closed(&mut own));
    loop {
        let (stream, client) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            () = &mut end => break,
        };
        let is_health = matches!(&*serves.borrow(), Serves::Health { .. });
        if is_health {
            connections.spawn(health(stream, serves.clone()));
        } else if let Some((backend, keeps_client)) = choose(&serves, offset) {
            let from = if keeps_client { client.ip() } else { node };
            connections.spawn(forward(stream, from, backend));
        } else {
            let _ = stream.set_zero_linger();
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Connects to an address from another one.
async fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Ports of connections that have just ended may be used again.
    socket.set_reuseaddr(true)?;
    socket.bind((from, 0).into())?;
    tokio::time::timeout(CONNECTING, socket.connect(to)).await?
}

/// Passes bytes on until both sides have ended. A reset of one side is a reset of the other.
async fn forward(mut client: TcpStream, from: IpAddr, to: SocketAddr) {
    let _ = client.set_nodelay(true);
    let mut backend = match connect(from, to).await {
        Ok(backend) => backend,
        Err(error) => {
            tracing::debug!("from {from} to {to}: {error}");
            let _ = client.set_zero_linger();
            return;
        }
    };
    let _ = backend.set_nodelay(true);
    if tokio::io::copy_bidirectional(&mut client, &mut backend).await.is_err() {
        let _ = client.set_zero_linger();
        let _ = backend.set_zero_linger();
    }
}

/// Answers the checks of a load balancer.
async fn health(stream: TcpStream, serves: watch::Receiver<Serves>) {
    let answer = service_fn(|_request| {
        let answer = answer(&serves.borrow());
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut closing = serves.clone();
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    tokio::select! {
        _ = connection => {}
        () = closed(&mut closing) => {}
    }
}

fn answer(serves: &Serves) -> Response<Full<Bytes>> {
    let (namespace, service, ready) = match serves {
        Serves::Health { namespace, service, ready } => (namespace.as_str(), service.as_str(), *ready),
        Serves::Forward { .. } => ("", "", 0),
    };
    let body = serde_json::json!({
        "service": {"namespace": namespace, "name": service},
        "localEndpoints": ready,
        "serviceProxyHealthy": true,
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    if ready == 0 {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    headers.insert("x-load-balancing-endpoint-weight", hyper::header::HeaderValue::from(ready));
    response
}

/// A client of UDP, and the task that talks to its backend.
struct Client {
    backend: SocketAddr,
    datagrams: mpsc::Sender<Bytes>,
    task: AbortHandle,
}

async fn udp(socket: UdpSocket, serves: watch::Receiver<Serves>, node: IpAddr, offset: u16) {
    let socket = Arc::new(socket);
    let mut clients: BTreeMap<SocketAddr, Client> = BTreeMap::new();
    let mut tasks: JoinSet<SocketAddr> = JoinSet::new();
    let mut changes = serves.clone();
    let mut buffer = vec![0; 65536];
    loop {
        let (length, from) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // It is about an earlier answer that did not arrive.
                Err(_) => continue,
            },
            Some(ended) = tasks.join_next() => {
                if let Ok(client) = ended {
                    clients.retain(|from, known| *from != client || !known.task.is_finished());
                }
                continue;
            }
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                // Datagrams to a backend that is gone would be lost.
                let backends = backends(&changes.borrow_and_update(), offset);
                clients.retain(|_, client| {
                    let stays = backends.contains(&client.backend);
                    if !stays {
                        client.task.abort();
                    }
                    stays
                });
                continue;
            }
        };
        let datagram = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        if clients.get(&from).is_none_or(|client| client.task.is_finished()) {
            let Some((backend, keeps_client)) = choose(&serves, offset).filter(|_| clients.len() < CLIENTS) else {
                continue;
            };
            let source = if keeps_client { from.ip() } else { node };
            let (datagrams, received) = mpsc::channel(256);
            let task = tasks.spawn(client(socket.clone(), from, source, backend, received));
            clients.insert(from, Client { backend, datagrams, task });
        }
        if let Some(client) = clients.get(&from) {
            // A datagram too many is lost, as datagrams are.
            let _ = client.datagrams.try_send(datagram);
        }
    }
}

fn backends(serves: &Serves, offset: u16) -> Vec<SocketAddr> {
    match serves {
        Serves::Forward { backends, .. } => {
            let loopback = |(address, port): &(IpAddr, u16)| {
                Some(SocketAddr::from((address::of_vpc(*address)?, port.checked_add(offset)?)))
            };
            backends.iter().filter_map(loopback).collect()
        }
        Serves::Health { .. } => Vec::new(),
    }
}

/// Passes datagrams on between a client and its backend until neither has sent any for a while.
async fn client(
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    source: IpAddr,
    backend: SocketAddr,
    mut datagrams: mpsc::Receiver<Bytes>,
) -> SocketAddr {
    let talk = async {
        let upstream = UdpSocket::bind((source, 0)).await?;
        upstream.connect(backend).await?;
        let mut buffer = vec![0; 65536];
        loop {
            tokio::select! {
                received = upstream.recv(&mut buffer) => {
                    socket.send_to(buffer.get(..received?).unwrap_or_default(), client).await?;
                }
                datagram = datagrams.recv() => match datagram {
                    Some(datagram) => {
                        upstream.send(&datagram).await?;
                    }
                    None => return Ok(()),
                },
                () = tokio::time::sleep(IDLE) => return Ok(()),
            }
        }
    };
    let result: io::Result<()> = talk.await;
    if let Err(error) = result {
        tracing::debug!("datagrams of {client} to {backend}: {error}");
    }
    client
}

#[cfg(test)]
mod tests;
