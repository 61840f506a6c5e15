//! The HTTP servers for operators: metrics and probes, as aws-load-balancer-controller serves them, and a dump of the state,
//! which by default only the pod itself reaches. Plain HTTP, no authentication, nothing to change.

use std::{
    fmt::Write as _,
    future::{Future, pending},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::Arc,
};

use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::future::{Either, select, try_join3};
use serde_json::Value;
use thiserror::Error;
use tokio::net::{TcpListener, lookup_host};
use tracing::{error, warn};

use super::metrics::{CONTENT_TYPE, Metrics};

/// The flag with the address of the metrics.
pub const METRICS_FLAG: &str = "--metrics-bind-addr";
/// The flag with the address of the probes.
pub const HEALTH_FLAG: &str = "--health-probe-bind-addr";
/// The flag with the address of the state.
pub const DEBUG_FLAG: &str = "--debug-bind-addr";
/// The value of [`DEBUG_FLAG`] when it is not given.
pub const DEFAULT_DEBUG_ADDRESS: &str = "127.0.0.1:61778";

/// The addresses of the servers, written as Go writes them: `:8080` is every interface, an empty address or `0` is no server.
#[derive(Clone, Copy, Debug)]
pub struct Addresses<'a> {
    /// The value of [`METRICS_FLAG`].
    pub metrics: &'a str,
    /// The value of [`HEALTH_FLAG`].
    pub health: &'a str,
    /// The value of [`DEBUG_FLAG`].
    pub debug: &'a str,
}

/// The sources of the servers' answers.
#[derive(Clone)]
pub struct Sources {
    /// `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Updates metrics before they are read.
    pub measure: Arc<dyn Fn() + Send + Sync>,
    /// `/readyz`: the reasons not to be ready, one sentence each; ready when there are none.
    pub not_ready: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// `/readyz`: the parts without which work continues, one sentence each.
    pub without: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// `/idle`: the work that is running or waiting; idle if there is none.
    pub pending: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// `/debug/state`. Must hold no secrets.
    pub state: Arc<dyn Fn() -> Value + Send + Sync>,
}

/// The servers cannot run.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The value of a flag is not an address.
    #[error(
        "{flag} is `{address}`, which is not an address: write `:8080`, `127.0.0.1:8080`, `[::1]:8080`, or `0` for no server"
    )]
    Address { flag: &'static str, address: String },
    /// The address cannot be listened on.
    #[error("cannot listen on `{address}`, the value of {flag}{}", hint(source))]
    Bind { flag: &'static str, address: String, source: io::Error },
    /// A server stopped by itself.
    #[error("the server at {flag} stopped")]
    Serve { flag: &'static str, source: io::Error },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ": another process listens there, so choose another address or `0` for no server",
        io::ErrorKind::PermissionDenied => ": a port below 1024 needs privileges, so choose a higher one",
        _ => "",
    }
}

/// The servers, listening already, so that a mistake in a flag is reported at once.
pub struct Servers {
    metrics: Option<TcpListener>,
    health: Option<TcpListener>,
    debug: Option<TcpListener>,
    sources: Sources,
}

/// Listens as [`Servers::bind`] and answers for as long as the process runs.
pub async fn serve(addresses: Addresses<'_>, sources: Sources) -> Result<(), AdminError> {
    let servers = Servers::bind(addresses, sources).await?;
    tokio::spawn(async move {
        if let Err(error) = servers.serve(pending()).await {
            error!(%error, "metrics and health are no longer served");
        }
    });
    Ok(())
}

impl Servers {
    /// Listens on the addresses. Where another process has the default address of the state, that is not served.
    ///
    /// # Errors
    /// When one of them is no address, or cannot be listened on.
    pub async fn bind(addresses: Addresses<'_>, sources: Sources) -> Result<Self, AdminError> {
        Ok(Self {
            metrics: listen(METRICS_FLAG, addresses.metrics).await?,
            health: listen(HEALTH_FLAG, addresses.health).await?,
            debug: debug_listener(addresses.debug).await?,
            sources,
        })
    }

    /// Returns the address of the metrics.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Returns the address of the probes.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Returns the address of the state.
    pub fn debug_address(&self) -> Option<SocketAddr> {
        self.debug.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves requests until `stop` is ready. Does not wait for requests under way: all are short, and none changes
    /// anything.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), AdminError> {
        let servers = try_join3(
            serve_one(METRICS_FLAG, self.metrics, metrics_routes(&self.sources)),
            serve_one(HEALTH_FLAG, self.health, health_routes(&self.sources)),
            serve_one(DEBUG_FLAG, self.debug, debug_routes(&self.sources)),
        );
        match select(pin!(servers), pin!(stop)).await {
            Either::Left((Err(error), _)) => Err(error),
            // All servers are disabled.
            Either::Left((Ok(_), stop)) => {
                stop.await;
                Ok(())
            }
            Either::Right(_) => Ok(()),
        }
    }
}

async fn serve_one(flag: &'static str, listener: Option<TcpListener>, routes: Router) -> Result<(), AdminError> {
    match listener {
        Some(listener) => axum::serve(listener, routes).await.map_err(|source| AdminError::Serve { flag, source }),
        None => Ok(()),
    }
}

fn metrics_routes(sources: &Sources) -> Router {
    let (metrics, measure) = (sources.metrics.clone(), sources.measure.clone());
    Router::new().route(
        "/metrics",
        get(async move || {
            measure();
            metrics_response(&metrics)
        }),
    )
}

fn metrics_response(metrics: &Metrics) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn health_routes(sources: &Sources) -> Router {
    let (not_ready, without) = (sources.not_ready.clone(), sources.without.clone());
    Router::new()
        .route("/healthz", get("ok"))
        .route("/readyz", get(async move || reasons_response(&not_ready(), &without())))
}

fn debug_routes(sources: &Sources) -> Router {
    let (idle, state) = (sources.pending.clone(), sources.state.clone());
    Router::new()
        .route("/idle", get(async move || reasons_response(&idle(), &[])))
        .route("/debug/state", get(async move || Json(state())))
}

fn reasons_response(reasons: &[String], remarks: &[String]) -> (StatusCode, String) {
    if reasons.is_empty() {
        return (
            StatusCode::OK,
            std::iter::once("ok").chain(remarks.iter().map(String::as_str)).collect::<Vec<_>>().join("\n"),
        );
    }
    let text = reasons.iter().chain(remarks).fold(String::new(), |mut text, reason| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{reason}");
        text
    });
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

/// The address of a server.
#[derive(Debug, PartialEq, Eq)]
enum Address<'a> {
    Disabled,
    /// Every interface, IPv6 and IPv4.
    EveryInterface(u16),
    Host(&'a str, u16),
}

fn parse(address: &str) -> Option<Address<'_>> {
    if matches!(address, "" | "0") {
        return Some(Address::Disabled);
    }
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    if host.is_empty() {
        return Some(Address::EveryInterface(port));
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bracketed {
        Some(host) => Some(Address::Host(host, port)),
        // An IPv6 address without brackets: where it ends and the port begins is a guess.
        None if host.contains(':') => None,
        None => Some(Address::Host(host, port)),
    }
}

async fn debug_listener(address: &str) -> Result<Option<TcpListener>, AdminError> {
    match listen(DEBUG_FLAG, address).await {
        Err(ref error @ AdminError::Bind { ref source, .. })
            if address == DEFAULT_DEBUG_ADDRESS && source.kind() == io::ErrorKind::AddrInUse =>
        {
            // Another controller in the network of the same node, for example.
            warn!("{error}; /debug/state and /idle are not served");
            Ok(None)
        }
        listener => listener,
    }
}

async fn listen(flag: &'static str, address: &str) -> Result<Option<TcpListener>, AdminError> {
    let unusable = |source| AdminError::Bind { flag, address: address.to_owned(), source };
    let candidates: Vec<SocketAddr> = match parse(address) {
        Some(Address::Disabled) => return Ok(None),
        // If IPv6 is switched off, `::` cannot be listened on.
        Some(Address::EveryInterface(port)) => {
            [IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)]
                .map(|host| SocketAddr::new(host, port))
                .to_vec()
        }
        Some(Address::Host(host, port)) => lookup_host((host, port)).await.map_err(unusable)?.collect(),
        None => {
            return Err(AdminError::Address { flag, address: address.to_owned() });
        }
    };
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for candidate in candidates {
        match TcpListener::bind(candidate).await {
            Ok(listener) => return Ok(Some(listener)),
            // On the next candidate the port may be free, but clients would reach the other process.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(unusable(error)),
            Err(error) => failure = error,
        }
    }
    Err(unusable(failure))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::oneshot,
    };

    use super::*;

    #[test]
    fn addresses() {
        let cases = [
            ("", Some(Address::Disabled)),
            ("0", Some(Address::Disabled)),
            (":8080", Some(Address::EveryInterface(8080))),
            ("0.0.0.0:8080", Some(Address::Host("0.0.0.0", 8080))),
            ("[::]:61779", Some(Address::Host("::", 61779))),
            ("localhost:1", Some(Address::Host("localhost", 1))),
            ("8080", None),
            (":", None),
            (":65536", None),
            (":http", None),
            ("::1", None),
            ("::1:8080", None),
        ];
        for (address, expected) in cases {
            assert_eq!(parse(address), expected, "{address}");
        }
    }

    fn sources(not_ready: Arc<Mutex<Vec<String>>>) -> Sources {
        Sources {
            metrics: Arc::new(Metrics::new()),
            measure: Arc::new(|| ()),
            not_ready: Arc::new(move || not_ready.lock().unwrap().clone()),
            without: Arc::new(|| vec!["working without IngressClassParams: not installed".to_owned()]),
            pending: Arc::new(|| vec!["Service shop/web".to_owned()]),
            state: Arc::new(|| json!({"keys": ["shop/web"]})),
        }
    }

    async fn bind(metrics: &str, health: &str, debug: &str, sources: Sources) -> Result<Servers, AdminError> {
        Servers::bind(Addresses { metrics, health, debug }, sources).await
    }

    /// The status line's code, the content type and the body.
    async fn request(address: SocketAddr, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
        (head[9..12].parse().unwrap(), content_type.to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn every_path_answers() {
        let not_ready = Arc::new(Mutex::new(vec![
            "Ingresses are not listed yet".to_owned(),
            "Services are not listed yet".to_owned(),
        ]));
        let servers = bind("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", sources(not_ready.clone())).await.unwrap();
        let metrics = servers.metrics_address().unwrap();
        let health = servers.health_address().unwrap();
        let debug = servers.debug_address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(servers.serve(async {
            let _ = stopped.await;
        }));
        let text = "text/plain; charset=utf-8".to_owned();

        let (status, content_type, body) = request(metrics, "/metrics").await;
        assert_eq!((status, content_type.as_str()), (200, CONTENT_TYPE));
        assert!(body.contains("albatross_leader 0\n"), "{body}");
        for path in ["/debug/state", "/idle"] {
            // The endpoints that name objects of every namespace are served only on their own address.
            assert_eq!((request(metrics, path).await.0, request(health, path).await.0), (404, 404), "{path}");
        }

        assert_eq!(request(health, "/healthz").await, (200, text.clone(), "ok".to_owned()));
        assert_eq!(
            request(health, "/readyz").await,
            (
                503,
                text.clone(),
                "Ingresses are not listed yet\nServices are not listed yet\nworking without IngressClassParams: not installed\n"
                    .to_owned()
            )
        );
        assert_eq!(request(debug, "/idle").await.2, "Service shop/web\n");
        not_ready.lock().unwrap().clear();
        assert_eq!(
            request(health, "/readyz").await,
            (200, text, "ok\nworking without IngressClassParams: not installed".to_owned())
        );
        assert_eq!(
            request(debug, "/debug/state").await,
            (200, "application/json".to_owned(), r#"{"keys":["shop/web"]}"#.to_owned())
        );

        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
        TcpListener::bind(health).await.unwrap();
    }

    #[tokio::test]
    async fn disabled_servers_wait_for_the_end() {
        let servers = bind("0", "", "0", sources(Arc::default())).await.unwrap();
        assert_eq!((servers.metrics_address(), servers.health_address(), servers.debug_address()), (None, None, None));
        let mut server = pin!(servers.serve(std::future::pending()));
        assert!(futures::poll!(&mut server).is_pending());
    }

    #[tokio::test]
    async fn every_interface_is_reached_by_ipv4() {
        let servers = bind("0", ":0", "0", sources(Arc::default())).await.unwrap();
        let port = servers.health_address().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    }

    #[tokio::test]
    async fn the_state_is_not_served_where_another_process_has_its_default_address() {
        let taken = TcpListener::bind(DEFAULT_DEBUG_ADDRESS).await;
        let servers = bind("0", "127.0.0.1:0", DEFAULT_DEBUG_ADDRESS, sources(Arc::default())).await.unwrap();
        assert_eq!((servers.health_address().is_some(), servers.debug_address()), (true, None));
        drop(taken);
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind("0", "0", &address, sources(Arc::default())).await.err().unwrap();
        assert!(matches!(error, AdminError::Bind { flag: DEBUG_FLAG, .. }), "{error}");
    }

    #[tokio::test]
    async fn errors_name_the_flag_and_the_address() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind("0", &address, "0", sources(Arc::default())).await.err().unwrap();
        insta::assert_snapshot!(error.to_string().replace(&address, "127.0.0.1:PORT"), @"cannot listen on `127.0.0.1:PORT`, the value of --health-probe-bind-addr: another process listens there, so choose another address or `0` for no server");
        let error = bind("8080", "0", "0", sources(Arc::default())).await.err().unwrap();
        insta::assert_snapshot!(error, @"--metrics-bind-addr is `8080`, which is not an address: write `:8080`, `127.0.0.1:8080`, `[::1]:8080`, or `0` for no server");
    }
}
