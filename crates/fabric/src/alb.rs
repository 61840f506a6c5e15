//! An Application Load Balancer's node: HTTP and HTTPS.
//!
//! Differences from AWS: HTTP/2 of clients without TLS is refused with 400 as there, but requests that are not
//! valid get hyper's answer; a client that leaves early is not counted (460).

mod access;
mod answer;
mod connection;
mod cookies;
mod forward;
mod headers;
mod pool;
#[cfg(test)]
mod tests;
pub(crate) mod time;
mod tunnel;

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{
    account::{Account, Kind, Listener, LoadBalancer},
    node::Node,
    tls::{self, TlsError},
};

/// The time to establish a connection to a target, and for a TLS handshake on either side.
const CONNECT: Duration = Duration::from_secs(10);

/// Serves a listener on one of the load balancer's nodes. `port` is the listener's port in AWS, without the offset.
///
/// It returns when the listener is no longer in the node's view: then nothing is accepted, connections without a request
/// are closed, and requests in flight have ended. When its task is aborted, all that it began ends at once.
pub async fn serve(listener: TcpListener, node: Arc<Node>, port: u16) {
    let mut view = node.view.clone();
    let first = view.borrow_and_update().clone();
    if find(&first, &node, port).is_none() {
        return;
    }
    let (alive, ended) = watch::channel(());
    let (close, closing) = watch::channel(false);
    let shared = Arc::new(Shared::new(node, port, first, Lifetime(ended)));
    let mut connections = JoinSet::new();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    connections.spawn(connection::serve(shared.clone(), stream, client, closing.clone()));
                }
                // Out of descriptors, most likely: they come back when connections end.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            changed = view.changed() => {
                let account = view.borrow_and_update().clone();
                if changed.is_err() || find(&account, &shared.node, port).is_none() {
                    break;
                }
                shared.pool.retain(&account);
                *shared.last.lock().unwrap_or_else(PoisonError::into_inner) = account;
            }
            _ = second.tick() => shared.pool.prune(shared.idle_timeout(&shared.account())),
        }
    }
    drop(listener);
    close.send_replace(true);
    while connections.join_next().await.is_some() {}
    // Tunnels are tasks of their own, each with a receiver; so are connections to targets, which end with the pool.
    drop(shared);
    alive.closed().await;
}

/// Returns the load balancer and the listener of a port, as far as it serves in a view.
fn find<'a>(account: &'a Account, node: &Node, port: u16) -> Option<(&'a LoadBalancer, &'a Listener)> {
    let balancer = node.balancer(account).filter(|balancer| balancer.active && balancer.kind == Kind::Application)?;
    Some((balancer, balancer.listeners.get(&port)?))
}

/// The data that the connections of a listener share.
struct Shared {
    node: Arc<Node>,
    port: u16,
    /// The last view that had the listener: requests that are in flight when it goes are answered by it.
    last: Mutex<Arc<Account>>,
    pool: Arc<pool::Pool>,
    random: Mutex<fastrand::Rng>,
    tls: Mutex<Option<KeptTls>>,
    lifetime: Lifetime,
}

struct KeptTls {
    account: Arc<Account>,
    settings: tls::Settings,
    config: Arc<ServerConfig>,
}

impl Shared {
    fn new(node: Arc<Node>, port: u16, account: Arc<Account>, lifetime: Lifetime) -> Self {
        let place = u64::from(u32::from(node.address)) << 16 | u64::from(port);
        let random = fastrand::Rng::with_seed(node.options.seed ^ place);
        Self {
            port,
            last: Mutex::new(account),
            pool: Arc::new(pool::Pool::new(node.address, lifetime.clone())),
            random: Mutex::new(random),
            tls: Mutex::new(None),
            lifetime,
            node,
        }
    }

    /// Returns the node's view, or the last one that has the listener.
    fn account(&self) -> Arc<Account> {
        let account = self.node.account();
        if find(&account, &self.node, self.port).is_some() {
            return account;
        }
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn draw(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).u64(..)
    }

    /// Returns a time of AWS in the lab.
    fn scaled(&self, time: Duration) -> Duration {
        Duration::try_from_secs_f64(time.as_secs_f64() * self.node.options.time_scale).unwrap_or(time)
    }

    fn seconds(&self, attributes: &BTreeMap<String, String>, name: &str, default: u64) -> Duration {
        let seconds = attributes.get(name).and_then(|value| value.parse().ok()).unwrap_or(default);
        self.scaled(Duration::from_secs(seconds))
    }

    fn idle_timeout(&self, account: &Account) -> Duration {
        let none = BTreeMap::new();
        let attributes = self.node.balancer(account).map_or(&none, |balancer| &balancer.attributes);
        self.seconds(attributes, "idle_timeout.timeout_seconds", 60)
    }

    /// Returns the TLS configuration of the listener in a view; the same one as long as nothing in it has changed.
    fn tls(&self, account: &Arc<Account>, listener: &Listener, http2: bool) -> Result<Arc<ServerConfig>, TlsError> {
        let mut kept = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.as_ref().filter(|kept| Arc::ptr_eq(&kept.account, account)) {
            return Ok(kept.config.clone());
        }
        let alpn: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        let settings = tls::Settings::of(account, listener, alpn)?;
        let config = match kept.take().filter(|kept| kept.settings == settings) {
            Some(kept) => kept.config,
            None => settings.config()?,
        };
        *kept = Some(KeptTls { account: account.clone(), settings, config: config.clone() });
        Ok(config)
    }
}

/// The life of [`serve`]: what is spawned with it ends with it.
#[derive(Clone, Debug)]
struct Lifetime(watch::Receiver<()>);

impl Lifetime {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut ended = self.0.clone();
        tokio::spawn(async move {
            tokio::select! {
                // Nothing is ever sent, so this is the end of the sender.
                _ = ended.changed() => {}
                () = task => {}
            }
        });
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Lifetime {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

/// Returns true if an attribute is `true`.
fn is_on(attributes: &BTreeMap<String, String>, name: &str) -> bool {
    attributes.get(name).is_some_and(|value| value == "true")
}
