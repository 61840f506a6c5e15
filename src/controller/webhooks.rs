//! Serves the admission webhooks over TLS. Every replica does, whoever leads; what is answered is decided in
//! [`crate::admission`].

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
    serve::Listener,
};
use kube::Client;
use rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    certificates::{
        self, Timing,
        keeper::Keeper,
        served::{Files, Served},
    },
    flags::ControllerFlags,
    metrics::Metrics,
    start::Watched,
    watches::Synced,
};
use crate::{
    admission::{self, Hook, Rules},
    api::admission::{Answer, Review},
    build::BuildConfig,
    snapshot::Snapshot,
};

/// Two objects of the largest size that the API server takes, and what is around them.
const LONGEST_REQUEST: usize = 8 << 20;
/// Connections that are being opened at the same time.
const MOST_HANDSHAKES: usize = 256;
/// How long a client may take to open one.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long requests are still answered after the process was asked to stop: until nobody sends any.
pub(super) const LINGER: Duration = Duration::from_secs(2);

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
        /// What the system says.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("the webhooks cannot be served over TLS: {0}")]
    Tls(rustls::Error),
}

/// What answers depend on.
struct Judge {
    snapshot: Arc<RwLock<Snapshot>>,
    synced: Arc<Synced>,
    config: BuildConfig,
    rules: Rules,
    metrics: Arc<Metrics>,
}

impl Judge {
    fn judge(&self, hook: Hook, review: &Review) -> Option<serde_json::Value> {
        let request = review.request.as_ref()?;
        let synced = self.synced.reasons().is_empty();
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        let answer = admission::answer(hook, request, synced.then_some(&*snapshot), &self.config, self.rules);
        drop(snapshot);
        if let Some(why) = &answer.denied {
            self.metrics.webhook_denied(hook.name());
            tracing::info!(path = hook.path(), namespace = request.namespace, "not admitted: {why}");
        }
        Some(answer.review(&request.uid))
    }
}

/// Answers one request. Where the question cannot be read, the API server goes by its failure policy.
async fn respond(judge: Arc<Judge>, hook: Hook, review: Json<Review>) -> Response {
    // A task of its own, so that a panic costs one answer; what is not judged is admitted.
    let uid = review.request.as_ref().map(|request| request.uid.clone()).unwrap_or_default();
    match tokio::spawn(async move { judge.judge(hook, &review) }).await {
        Ok(Some(answer)) => Json(answer).into_response(),
        Ok(None) => (StatusCode::BAD_REQUEST, "the AdmissionReview asks nothing").into_response(),
        Err(error) => {
            tracing::error!(path = hook.path(), %error, "a webhook ended in a panic; this is a fault of albatross, please report it");
            Json(Answer::allowed().review(&uid)).into_response()
        }
    }
}

fn routes(judge: &Arc<Judge>) -> Router {
    let mut router = Router::new();
    for hook in Hook::ALL {
        let judge = Arc::clone(judge);
        let handler = async move |review: Json<Review>| respond(Arc::clone(&judge), hook, review).await;
        router = router.route(hook.path(), post(handler));
    }
    router.layer(DefaultBodyLimit::max(LONGEST_REQUEST))
}

/// Listens on a port of every interface.
async fn listen(port: u16) -> Result<TcpListener, WebhookError> {
    // Where IPv6 is switched off, `::` cannot be listened on.
    let addresses = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
    TcpListener::bind(&addresses[..]).await.map_err(|source| WebhookError::Bind { port, source })
}

/// Connections after their handshakes, none of which waits for another.
struct TlsConnections {
    opened: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsConnections {
    fn accept_from(listener: TcpListener, served: Arc<Served>) -> Result<Self, WebhookError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(WebhookError::Tls)?.with_no_client_auth().with_cert_resolver(served);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let (sender, opened) = mpsc::channel(MOST_HANDSHAKES);
        tokio::spawn(async move {
            let turns = Arc::new(Semaphore::new(MOST_HANDSHAKES));
            loop {
                let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
                let (stream, peer) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    // Too many open files, mostly: it passes.
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the webhooks could not be taken");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    let opened = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
                    drop(turn);
                    match opened {
                        Ok(Ok(stream)) => drop(sender.send((stream, peer)).await),
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
    type Io = TlsStream<TcpStream>;
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

/// Serves the webhooks for as long as the process runs, where that is asked for. Answers what says whether there is a
/// certificate.
pub(super) async fn serve(
    flags: &ControllerFlags,
    client: &Client,
    namespace: String,
    watched: &Watched,
    config: &BuildConfig,
    metrics: Arc<Metrics>,
) -> Result<Option<Arc<Served>>, WebhookError> {
    if !flags.enable_webhooks {
        return Ok(None);
    }
    let served = Arc::new(Served::default());
    let listener = listen(flags.webhook_bind_port).await?;
    let connections = TlsConnections::accept_from(listener, Arc::clone(&served))?;
    let judge = Arc::new(Judge {
        snapshot: Arc::clone(&watched.snapshot),
        synced: Arc::clone(&watched.synced),
        config: config.clone(),
        rules: flags.webhook_rules(),
        metrics,
    });
    let routes = routes(&judge);
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
            let keeper = Keeper {
                client: client.clone(),
                namespace,
                secret: flags.webhook_secret_name.clone(),
                configuration: flags.webhook_configuration_name.clone(),
                names,
                timing: Timing::of(flags.webhook_certificate_validity),
                served: Arc::clone(&served),
            };
            tokio::spawn(keeper.keep());
        }
    }
    Ok(Some(served))
}

fn files(directory: &Path, flags: &ControllerFlags) -> Files {
    Files { certificate: directory.join(&flags.webhook_cert_file), key: directory.join(&flags.webhook_key_file) }
}

#[cfg(test)]
mod tests;
