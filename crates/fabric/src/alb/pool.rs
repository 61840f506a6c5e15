//! Connections to targets.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use super::{Lifetime, answer::Body};
use crate::{
    account::{Account, Protocol, Target, TargetGroup},
    tls,
};

/// The most connections without a request that are kept for each target.
const MOST_PER_TARGET: usize = 32;
/// The most that are kept in all.
const MOST: usize = 512;

/// Which connections may take each other's requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The ARN of the target group: it decides about protocol and TLS.
    pub(super) group: String,
    /// The target.
    pub(super) target: Target,
    /// Its loopback address.
    pub(super) address: SocketAddr,
}

/// A connection to a target.
pub(super) enum Connection {
    /// With one request at a time.
    Http1(http1::SendRequest<Body>),
    /// With many, so it stays in the pool meanwhile.
    Http2(http2::SendRequest<Body>),
}

impl Connection {
    /// Sends a request. If the connection had ended before any of it was written, the request comes back.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

/// The reason why there is no connection to a target.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The target does not answer.
    #[error("no answer within the time to connect")]
    TimedOut,
    /// The target refuses, or its address cannot be reached.
    #[error(transparent)]
    Refused(#[from] std::io::Error),
    /// TLS or HTTP/2 could not begin.
    #[error("the handshake failed: {0}")]
    Handshake(String),
}

struct Kept {
    connection: Connection,
    since: Instant,
}

/// The kept connections of a listener.
pub(super) struct Pool {
    from: Ipv4Addr,
    lifetime: Lifetime,
    kept: Mutex<BTreeMap<Key, Vec<Kept>>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("from", &self.from).finish_non_exhaustive()
    }
}

impl Pool {
    /// Returns a pool for a node with an address.
    pub(super) fn new(from: Ipv4Addr, lifetime: Lifetime) -> Self {
        Self { from, lifetime, kept: Mutex::default() }
    }

    /// Takes a kept connection, the one used last.
    pub(super) fn take(&self, key: &Key) -> Option<Connection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let of_target = kept.get_mut(key)?;
        of_target.retain(|kept| !kept.connection.is_closed());
        // A connection whose last answer is not over yet comes back later.
        let at = of_target.iter().rposition(|kept| match &kept.connection {
            Connection::Http1(sender) => sender.is_ready(),
            Connection::Http2(_) => true,
        })?;
        match of_target.get_mut(at) {
            Some(Kept { connection: Connection::Http2(sender), since }) => {
                *since = Instant::now();
                Some(Connection::Http2(sender.clone()))
            }
            _ => Some(of_target.remove(at).connection),
        }
    }

    /// Keeps a connection.
    pub(super) fn give(&self, key: Key, connection: Connection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = kept.values().map(Vec::len).sum();
        let of_target = kept.entry(key).or_default();
        if all < MOST && of_target.len() < MOST_PER_TARGET && !connection.is_closed() {
            of_target.push(Kept { connection, since: Instant::now() });
        }
    }

    /// Closes what has not been used for a time.
    pub(super) fn prune(&self, idle: Duration) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, of_target| {
            of_target.retain(|kept| kept.since.elapsed() < idle && !kept.connection.is_closed());
            !of_target.is_empty()
        });
    }

    /// Closes what leads to targets that are no longer registered. Requests in flight go on.
    pub(super) fn retain(&self, account: &Account) {
        let registered =
            |key: &Key| account.target_groups.get(&key.group).is_some_and(|group| group.targets.contains(&key.target));
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| registered(key));
    }

    /// Makes a new connection to a target. `time` is how long TCP may take, and then TLS.
    pub(super) async fn connect(
        &self,
        key: &Key,
        group: &TargetGroup,
        time: Duration,
    ) -> Result<Connection, ConnectError> {
        let stream = timeout(time, self.dial(key.address)).await.map_err(|_| ConnectError::TimedOut)??;
        let _ = stream.set_nodelay(true);
        let multiplexed = speaks_http2(group);
        if group.protocol != Protocol::Https {
            return self.begin(stream, key, multiplexed).await;
        }
        let failed = |error: &dyn fmt::Display| ConnectError::Handshake(error.to_string());
        let name = ServerName::IpAddress(key.address.ip().into());
        let alpn: &[&[u8]] = if multiplexed { &[b"h2"] } else { &[] };
        let config = tls::any_certificate(alpn).map_err(|error| failed(&error))?;
        let stream = timeout(time, TlsConnector::from(config).connect(name, stream))
            .await
            .map_err(|_| failed(&"no answer in time"))?
            .map_err(|error| failed(&error))?;
        self.begin(stream, key, multiplexed).await
    }

    /// Dials from the node's address, as targets and their security groups see it.
    async fn dial(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((self.from, 0).into())?;
        socket.connect(to).await
    }

    async fn begin<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: S,
        key: &Key,
        multiplexed: bool,
    ) -> Result<Connection, ConnectError> {
        let failed = |error: hyper::Error| ConnectError::Handshake(error.to_string());
        if multiplexed {
            let mut builder = http2::Builder::new(self.lifetime.clone());
            let (sender, driver) =
                builder.timer(TokioTimer::new()).handshake(TokioIo::new(stream)).await.map_err(failed)?;
            self.lifetime.spawn(async move {
                let _ = driver.await;
            });
            self.give(key.clone(), Connection::Http2(sender.clone()));
            return Ok(Connection::Http2(sender));
        }
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        self.lifetime.spawn(async move {
            let _ = driver.with_upgrades().await;
        });
        Ok(Connection::Http1(sender))
    }
}

/// Returns true if a target group's targets get HTTP/2.
pub(super) fn speaks_http2(group: &TargetGroup) -> bool {
    matches!(group.protocol_version.as_deref(), Some("HTTP2" | "GRPC"))
}
