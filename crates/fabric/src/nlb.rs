//! A Network Load Balancer's listeners: TCP, TLS and UDP.

pub(crate) mod proxy;
mod route;
pub(crate) mod stream;
mod tls;
mod udp;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

pub use self::udp::serve_udp;
use self::{
    route::{Route, Routed},
    stream::Connection,
    tls::Configs,
};
use crate::{
    account::{Account, Listener, LoadBalancer, Protocol},
    address,
    node::Node,
    targets::scaled,
};

/// However fast time runs, a client has so long for its handshake. AWS gives no figure.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// In AWS's seconds, unless a listener has another.
const IDLE_SECONDS: f64 = 350.0;

/// Serves a TCP or TLS listener until the task ends or the listener is not in the node's view; then nobody new is
/// taken, and it returns as soon as all connections have ended by themselves. `port` is the listener's port in AWS.
pub async fn serve_tcp(listener: TcpListener, node: Arc<Node>, port: u16) {
    let mut view = node.view.clone();
    let mut connections = JoinSet::new();
    let configs = Arc::new(Configs::default());
    while listener_at(&node, &node.account(), port).is_some() {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    connections.spawn(serve(stream, client, node.clone(), port, configs.clone()));
                }
                // Without file descriptors, it would be tried again at once.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            changed = view.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
        }
    }
    // A new listener may have the port.
    drop(listener);
    loop {
        tokio::select! {
            ended = connections.join_next() => if ended.is_none() { return },
            changed = view.changed() => if changed.is_err() { return },
        }
    }
}

/// Returns the load balancer and its listener at a port, if it takes connections.
fn listener_at<'a>(node: &Node, account: &'a Account, port: u16) -> Option<(&'a LoadBalancer, &'a Listener)> {
    let balancer = node.balancer(account).filter(|balancer| balancer.active)?;
    let listener = balancer.listeners.get(&port)?;
    matches!(listener.protocol, Protocol::Tcp | Protocol::Tls | Protocol::TcpUdp).then_some((balancer, listener))
}

async fn serve(stream: TcpStream, client: SocketAddr, node: Arc<Node>, port: u16, configs: Arc<Configs>) {
    let account = node.account();
    let Some((balancer, listener)) = listener_at(&node, &account, port) else { return reset(&stream) };
    let _ = stream.set_nodelay(true);
    if !route::lets_in(&node, &account, balancer, port, false, client) {
        return swallow(Box::new(stream), idle(&node, listener)).await;
    }
    let idle = idle(&node, listener);
    let mut front: Box<dyn Connection> = if listener.protocol == Protocol::Tls {
        let Some(acceptor) = configs.acceptor(&account, listener) else { return reset(&stream) };
        match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Box::new(stream),
            _ => return,
        }
    } else {
        Box::new(stream)
    };
    // A handshake takes a while.
    let account = node.account();
    let routed = match listener_at(&node, &account, port) {
        Some((balancer, listener)) => route::find(&node, &account, balancer, listener, client, false),
        None => Routed::Nowhere,
    };
    let route = match routed {
        Routed::To(route) => route,
        Routed::Nowhere => return reset(front.tcp()),
        Routed::Dropped => return swallow(front, idle).await,
    };
    let local = (node.address, port).into();
    let Ok(mut back) = connect(&route, client, local, front.alpn()).await else { return reset(front.tcp()) };
    let mut gone = route.picked.gone.clone();
    let over = tokio::select! {
        over = stream::carry(&mut front, &mut back, idle) => over,
        Ok(_) = gone.wait_for(|gone| *gone) => Err(io::ErrorKind::ConnectionReset.into()),
    };
    if over.is_err() {
        reset(front.tcp());
        reset(back.tcp());
    }
}

/// Opens the connection to a target.
async fn connect(
    route: &Route,
    client: SocketAddr,
    local: SocketAddr,
    alpn: Option<Vec<u8>>,
) -> io::Result<Box<dyn Connection>> {
    let SocketAddr::V4(own) = local else { return Err(io::ErrorKind::Unsupported.into()) };
    let source = match client {
        SocketAddr::V4(client) if route.preserves_client => *client.ip(),
        _ => *own.ip(),
    };
    let mut stream = dial(source, route.picked.address).await?;
    stream.set_nodelay(true)?;
    if route.proxied {
        let seen = SocketAddr::new(address::as_seen(client.ip()), client.port());
        stream.write_all(&proxy::header(seen, local)).await?;
    }
    Ok(if route.tls { Box::new(tls::to_target(stream, alpn).await?) } else { Box::new(stream) })
}

/// Connects from an address of this machine.
async fn dial(source: Ipv4Addr, target: SocketAddr) -> io::Result<TcpStream> {
    let mut attempts = 0;
    loop {
        let socket = TcpSocket::new_v4()?;
        // Ports of connections that ended a moment ago would be missing.
        socket.set_reuseaddr(true)?;
        socket.bind((source, 0).into())?;
        match socket.connect(target).await {
            // The port was used for the same target a moment ago.
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse) => {
                attempts += 1;
                if attempts > 16 {
                    return Err(error);
                }
            }
            other => return other,
        }
    }
}

fn idle(node: &Node, listener: &Listener) -> Duration {
    let seconds = listener.attributes.get("tcp.idle_timeout.seconds").and_then(|seconds| seconds.parse().ok());
    scaled(seconds.unwrap_or(IDLE_SECONDS), node.options.time_scale)
}

/// Closes a connection with a reset when it is dropped.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Takes a connection and never answers, as where the network drops its packets.
async fn swallow(mut stream: Box<dyn Connection>, idle: Duration) {
    let _ = timeout(idle, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
}
