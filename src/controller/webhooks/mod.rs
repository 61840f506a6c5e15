//! Serves the admission webhooks over TLS, in every replica; [`albatross_core::admission`] decides the responses.

pub(crate) mod certificates;
mod server_ids;
mod target_groups;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Request},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
    serve::Listener,
};
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::Client;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, Sleep},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::controller::{
    cluster::watches::Synced,
    runtime::{flags::ControllerFlags, metrics::Metrics, start::Watched},
    webhooks::certificates::{
        Timing,
        rotator::CertificateRotator,
        served::{Files, Served},
    },
    webhooks::{server_ids::ServerIds, target_groups::TargetGroups},
};
use albatross_aws::AwsReader;
use albatross_core::{
    admission::{self, Hook, Rules},
    api::admission::{AdmissionResponse, Review},
    desired::BuildConfig,
    drain,
    model::VpcId,
    snapshot::Snapshot,
};

/// Two objects of the largest size that the API server takes, and what is around them.
const LONGEST_REQUEST: usize = 8 << 20;
/// The bytes of its body that each connection may send at any time: usual requests are shorter.
const OWN_ROOM: usize = 64 << 10;
/// Longer bodies share some room, of which they take such a part whenever they have filled the last.
const STEP: usize = 64 << 10;
/// The parts that there are.
const MAX_STEPS: usize = 256;
/// The time for which a longer body waits for another part.
const PATIENCE: Duration = Duration::from_secs(1);
/// The maximum number of concurrent connections, including connections that are being opened. An API server keeps some open
/// and reuses them.
const MAX_CONNECTIONS: usize = 256;
/// The time in which a client has to open a connection.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The time for a request, from its first byte to the first of its answer. The API server waits five seconds,
/// or `timeoutSeconds`, at most 30.
const REQUEST: Duration = Duration::from_secs(10);
/// The time for which a connection may wait for its next request.
const IDLE: Duration = Duration::from_secs(90);
/// The interval at which an old API server is asked for its version.
const UPGRADES: Duration = Duration::from_secs(300);
/// The time for which requests are still answered after the signal to stop: until no client sends any.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// The webhooks cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The port is taken, for example.
    #[error(
        "cannot listen on port {port}, the value of --webhook-bind-port: {source}; choose another port, or --enable-webhooks=false"
    )]
    Bind {
        /// The port.
        port: u16,
        /// The system's error.
        source: io::Error,
    },
    /// The certificate authorities of clients cannot be used.
    #[error("--kube-ca-pem-filepath is `{}`: {reason}; name a PEM file with certificates of authorities, or leave the flag out", path.display())]
    ClientAuthorities {
        /// The value of the flag.
        path: PathBuf,
        /// The reason why the file cannot be used.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("the webhooks cannot be served over TLS: {0}")]
    Tls(rustls::Error),
}

/// The data on which answers depend.
struct Reviewer {
    snapshot: Arc<RwLock<Snapshot>>,
    synced: Arc<Synced>,
    config: BuildConfig,
    rules: Rules,
    /// [`Rules::no_sleep`], which ends with an upgrade of the API server.
    no_sleep: Arc<AtomicBool>,
    target_groups: TargetGroups,
    server_ids: ServerIds,
    metrics: Arc<Metrics>,
}

impl Reviewer {
    async fn review(&self, hook: Hook, review: &Review) -> Option<serde_json::Value> {
        let request = review.request.as_ref()?;
        let answer = match hook {
            Hook::TargetGroupBindingDefaults => self.target_groups.answer(request).await,
            Hook::ServerId => self.server_ids.answer(request).await,
            _ => self.answer(hook, request),
        };
        if let Some(why) = &answer.denied {
            self.metrics.webhook_denied(hook.name());
            tracing::info!(path = hook.path(), namespace = request.namespace, "not admitted: {why}");
        }
        Some(answer.review(&request.uid))
    }

    fn answer(&self, hook: Hook, request: &albatross_core::api::admission::Request) -> AdmissionResponse {
        let synced = self.synced.reasons().is_empty();
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        let rules = Rules { no_sleep: self.no_sleep.load(Ordering::Relaxed), ..self.rules };
        admission::answer(hook, request, synced.then_some(&*snapshot), &self.config, rules)
    }
}

/// Answers a request. Where it cannot be read, the API server goes by its failure policy.
async fn respond(reviewer: Arc<Reviewer>, hook: Hook, review: Json<Review>) -> Response {
    // A separate task, so that a panic costs one answer; a request that is not judged is admitted.
    let uid = review.request.as_ref().map(|request| request.uid.clone()).unwrap_or_default();
    let metrics = Arc::clone(&reviewer.metrics);
    let answering = metrics.webhook_asked(hook.path());
    let answer = match tokio::spawn(async move { reviewer.review(hook, &review).await }).await {
        Ok(Some(answer)) => Json(answer).into_response(),
        Ok(None) => (StatusCode::BAD_REQUEST, "the AdmissionReview has no request").into_response(),
        Err(error) => {
            tracing::error!(path = hook.path(), %error, "a webhook ended in a panic; this is a fault of albatross, please report it");
            Json(AdmissionResponse::allowed().review(&uid)).into_response()
        }
    };
    answering.answered(answer.status().as_u16());
    answer
}

fn routes(reviewer: &Arc<Reviewer>) -> Router {
    let mut router = Router::new();
    for hook in Hook::ALL {
        let reviewer = Arc::clone(reviewer);
        let handler = async move |review: Json<Review>| respond(Arc::clone(&reviewer), hook, review).await;
        router = router.route(hook.path(), post(handler));
    }
    let room = Arc::new(Semaphore::new(MAX_STEPS));
    router.layer(DefaultBodyLimit::max(LONGEST_REQUEST)).layer(middleware::from_fn(move |request, next| {
        let room = Arc::clone(&room);
        async move { within_room(&room, request, next).await }
    }))
}

/// Reads a request and answers it. Room is taken only for bytes that have arrived, not for announced ones.
async fn within_room(room: &Semaphore, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let length = head.headers.get(header::CONTENT_LENGTH);
    let length: Option<usize> = length.and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length| length > LONGEST_REQUEST) {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    let (mut parts, mut bytes, mut chunks) = (Vec::new(), Vec::<u8>::new(), body.into_data_stream());
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else { return StatusCode::BAD_REQUEST.into_response() };
        let read = bytes.len() + chunk.len();
        if read > LONGEST_REQUEST {
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        }
        while OWN_ROOM + parts.len() * STEP < read {
            let Ok(Ok(part)) = tokio::time::timeout(PATIENCE, room.acquire()).await else {
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            };
            parts.push(part);
        }
        bytes.extend_from_slice(&chunk);
    }
    let answer = next.run(Request::from_parts(head, Body::from(bytes))).await;
    drop(parts);
    answer
}

/// Listens on a port of every interface.
async fn listen(port: u16) -> Result<TcpListener, WebhookError> {
    // If IPv6 is switched off, `::` cannot be listened on.
    let addresses = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
    TcpListener::bind(&addresses[..]).await.map_err(|source| WebhookError::Bind { port, source })
}

/// The certificate authorities of the clients that are answered: all clients are, where there is no file.
fn client_authorities(file: Option<&Path>) -> Result<Option<Arc<dyn ClientCertVerifier>>, WebhookError> {
    let Some(path) = file.filter(|path| !path.as_os_str().is_empty()) else { return Ok(None) };
    let unusable = |reason: String| WebhookError::ClientAuthorities { path: path.to_owned(), reason };
    let text = std::fs::read(path).map_err(|error| unusable(format!("it cannot be read ({error})")))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|error| unusable(format!("a certificate in it cannot be read ({error})")))?;
    }
    if roots.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map(Some).map_err(|error| unusable(error.to_string()))
}

/// The number of connections from each address.
#[derive(Debug, Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// The permit of a connection, which counts until this is dropped.
struct ConnectionPermit {
    peers: Arc<Peers>,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Peers {
    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection from an address. Of the last quarter an address gets none that has half as many as are left: others
    /// than API servers can connect too. Returns `None` then.
    fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        permit: OwnedSemaphorePermit,
        left: usize,
        most: usize,
    ) -> Option<ConnectionPermit> {
        let address = address.to_canonical();
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if left < most / 4 && *count > left / 2 {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(ConnectionPermit { peers: Arc::clone(self), address, _permit: permit })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.peers.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// A connection after its handshake. It counts until it is dropped, and ends by itself when its client is too slow.
struct Connection {
    stream: TlsStream<TcpStream>,
    /// Until when something has to arrive, or a request to be answered.
    deadline: Pin<Box<Sleep>>,
    /// True if the last bytes were part of an answer, not of a request.
    answering: bool,
    _turn: ConnectionPermit,
}

impl Connection {
    fn new(stream: TlsStream<TcpStream>, turn: ConnectionPermit) -> Self {
        let deadline = Box::pin(tokio::time::sleep(REQUEST));
        Self { stream, deadline, answering: false, _turn: turn }
    }

    fn give(&mut self, time: Duration) {
        self.deadline.as_mut().reset(Instant::now() + time);
    }

    /// Returns the stream's result, or the end of the connection where it has none until the deadline.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)));
        }
        polled
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            return self.in_time(cx, read);
        }
        if std::mem::replace(&mut self.answering, false) {
            self.give(REQUEST);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !std::mem::replace(&mut self.answering, true) {
            self.give(IDLE);
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.in_time(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.in_time(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.in_time(cx, ended)
    }
}

/// Connections after their handshakes, none of which waits for another.
struct TlsConnections {
    opened: mpsc::Receiver<(Connection, SocketAddr)>,
    address: SocketAddr,
}

impl TlsConnections {
    fn accept_from(
        listener: TcpListener,
        served: Arc<Served>,
        clients: Option<Arc<dyn ClientCertVerifier>>,
        most: usize,
    ) -> Result<Self, WebhookError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(WebhookError::Tls)?;
        let config = match clients {
            Some(clients) => config.with_client_cert_verifier(clients),
            None => config.with_no_client_auth(),
        };
        let acceptor = TlsAcceptor::from(Arc::new(config.with_cert_resolver(served)));
        let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let (sender, opened) = mpsc::channel(most);
        tokio::spawn(async move {
            let (turns, peers) = (Arc::new(Semaphore::new(most)), Arc::new(Peers::default()));
            loop {
                let Ok(permit) = Arc::clone(&turns).acquire_owned().await else { return };
                let (stream, peer) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    // Too many open files, mostly: it passes.
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the webhooks could not be taken");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let Some(turn) = peers.enter(peer.ip(), permit, turns.available_permits(), most) else {
                    tracing::debug!(%peer, "it has many connections, and few are left for others");
                    continue;
                };
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => drop(sender.send((Connection::new(stream, turn), peer)).await),
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                    }
                });
            }
        });
        Ok(Self { opened, address })
    }
}

impl Listener for TlsConnections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.opened.recv().await {
            Some(opened) => opened,
            // The task that accepts never ends.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Serves the webhooks for as long as the process runs, if the flags enable them. Returns the state that shows whether there
/// is a certificate.
pub(crate) async fn serve(
    flags: &ControllerFlags,
    (client, version): (&Client, &Info),
    namespace: String,
    watched: &Watched,
    config: &BuildConfig,
    (aws, vpc): (&Arc<AwsReader>, &VpcId),
    metrics: Arc<Metrics>,
) -> Result<Option<Arc<Served>>, WebhookError> {
    if !flags.enable_webhooks {
        return Ok(None);
    }
    let served = Arc::new(Served::default());
    let listener = listen(flags.webhook_bind_port).await?;
    let clients = client_authorities(flags.kube_ca_pem_filepath.as_deref())?;
    let connections = TlsConnections::accept_from(listener, Arc::clone(&served), clients, MAX_CONNECTIONS)?;
    let reviewer = Arc::new(Reviewer {
        snapshot: Arc::clone(&watched.snapshot),
        synced: Arc::clone(&watched.synced),
        config: config.clone(),
        rules: flags.webhook_rules(),
        no_sleep: followed_version(client, version),
        target_groups: TargetGroups::new(Arc::clone(aws), &flags.cluster_name, vpc),
        server_ids: ServerIds::new(client.clone(), watched.server_id_variable()),
        metrics,
    });
    let routes = routes(&reviewer);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(connections, routes).await {
            tracing::error!(%error, "the webhooks are no longer served");
        }
    });
    let directory = flags.webhook_cert_dir.as_deref().filter(|path| !path.as_os_str().is_empty());
    match directory {
        Some(directory) => {
            let files = files(directory, flags);
            tokio::spawn(files.follow(Arc::clone(&served)));
        }
        None => {
            let names = certificates::names(&flags.webhook_service_name, &namespace);
            let rotator = CertificateRotator {
                client: client.clone(),
                namespace,
                secret: flags.webhook_secret_name.clone(),
                configuration: flags.webhook_configuration_name.clone(),
                names,
                timing: Timing::of(flags.webhook_certificate_validity),
                served: Arc::clone(&served),
            };
            tokio::spawn(rotator.run());
        }
    }
    Ok(Some(served))
}

/// Returns true, until the API server is upgraded, if it is older than the action `sleep` of hooks.
fn followed_version(client: &Client, version: &Info) -> Arc<AtomicBool> {
    let is_old = |version: &Info| drain::is_without_sleep(&version.major, &version.minor);
    let no_sleep = Arc::new(AtomicBool::new(is_old(version)));
    if no_sleep.load(Ordering::Relaxed) {
        let (client, no_sleep) = (client.clone(), Arc::clone(&no_sleep));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPGRADES).await;
                if client.apiserver_version().await.is_ok_and(|version| !is_old(&version)) {
                    return no_sleep.store(false, Ordering::Relaxed);
                }
            }
        });
    }
    no_sleep
}

fn files(directory: &Path, flags: &ControllerFlags) -> Files {
    Files { certificate: directory.join(&flags.webhook_cert_file), key: directory.join(&flags.webhook_key_file) }
}

#[cfg(test)]
mod tests;
