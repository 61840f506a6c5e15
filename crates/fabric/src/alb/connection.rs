//! A client's connection: TLS, HTTP/1.1 or HTTP/2, and its end.

use std::{
    convert::Infallible,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{
    Request, Response, Version,
    body::Incoming,
    header::{CONNECTION, HeaderName, HeaderValue},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{CONNECT, Shared, access, answer, find, forward};
use crate::{account::Protocol, address, tls};

/// The most requests that a client may have in flight on a connection of HTTP/2.
const MOST_STREAMS: u32 = 128;

/// The first byte of a TLS connection.
const HANDSHAKE: u8 = 0x16;

/// The client of a connection.
pub(super) struct Client {
    /// The address that it dials from.
    pub(super) address: SocketAddr,
    /// The address that AWS sees.
    pub(super) seen: IpAddr,
    /// The listener's protocol when the connection began.
    pub(super) protocol: Protocol,
    /// Headers about its certificate, if the listener asks for one.
    pub(super) certificate: Option<Vec<(HeaderName, HeaderValue)>>,
    /// The requests of the connection that are in flight.
    pub(super) busy: Arc<Busy>,
    /// After this time one more request is answered.
    closes_at: Instant,
}

/// Counts the requests of a connection that are in flight.
pub(super) struct Busy(Mutex<(usize, Instant)>);

impl Busy {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new((0, Instant::now()))))
    }

    /// Counts a request until the result is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> InFlight {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 += 1;
        InFlight(self.clone())
    }

    /// Returns since when the connection is idle.
    fn idle_since(&self) -> Option<Instant> {
        let (count, since) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (count == 0).then_some(since)
    }
}

/// A request in flight.
pub(super) struct InFlight(Arc<Busy>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut busy = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        *busy = (busy.0.saturating_sub(1), Instant::now());
    }
}

/// Serves a connection until it ends. When `closing` becomes true, it ends after the requests in flight.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, address: SocketAddr, closing: watch::Receiver<bool>) {
    let account = shared.account();
    let Some((balancer, listener)) = find(&account, &shared.node, shared.port) else { return };
    let seen = address::as_seen(address.ip());
    if !access::lets_in(&shared.node, &account, shared.port, seen) {
        return unanswered(stream, closing).await;
    }
    // A small answer should not wait for the acknowledgement of what went before.
    let _ = stream.set_nodelay(true);
    let idle = shared.idle_timeout(&account);
    let keep_alive = shared.seconds(&balancer.attributes, "client_keep_alive.seconds", 3600);
    let mut client = Client {
        address,
        seen,
        protocol: listener.protocol,
        certificate: None,
        busy: Busy::new(),
        closes_at: Instant::now() + keep_alive,
    };
    if listener.protocol != Protocol::Https {
        return http1(shared, stream, client, idle, closing).await;
    }
    let mut first = [0];
    match timeout(CONNECT, stream.peek(&mut first)).await {
        Ok(Ok(1..)) if first == [HANDSHAKE] => {}
        // A request without TLS: a person has forgotten the `s`.
        Ok(Ok(1..)) => {
            return refuse(stream).await;
        }
        _ => return,
    }
    let http2_is_on = balancer.attributes.get("routing.http2.enabled").is_none_or(|value| value != "false");
    let config = match shared.tls(&account, listener, http2_is_on) {
        Ok(config) => config,
        Err(error) => {
            tracing::warn!(listener = listener.arn, %error, "the listener cannot speak TLS");
            return;
        }
    };
    let stream = match timeout(CONNECT, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return,
    };
    let (_, session) = stream.get_ref();
    client.certificate = listener
        .client_certificates
        .as_ref()
        .map(|clients| tls::client_headers(session.peer_certificates().unwrap_or_default(), clients.verify));
    if session.alpn_protocol() == Some(b"h2") {
        http2(shared, stream, client, idle, closing).await;
    } else {
        http1(shared, stream, client, idle, closing).await;
    }
}

/// Answers what is no request of HTTP/1.1. What the client still sends is read: a socket that is closed with unread bytes
/// is reset, and the client might lose the answer.
async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let last = async {
        stream.write_all(answer::bare_bad_request().as_bytes()).await?;
        stream.shutdown().await?;
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(Duration::from_secs(1), last).await;
}

/// Holds a connection that security groups do not allow: its packets are dropped, so the client hears nothing.
async fn unanswered(stream: TcpStream, closing: watch::Receiver<bool>) {
    let mut buffer = [0; 1024];
    let silence = async {
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    tokio::select! {
        () = silence => {}
        () = forward::becomes_true(closing) => {}
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<answer::Body>, Infallible>> + Send>>;

/// Returns the function that answers the requests of a client.
fn service(shared: Arc<Shared>, client: Client) -> impl Fn(Request<Incoming>) -> Answer + Unpin {
    let client = Arc::new(client);
    move |request| {
        let (shared, client) = (shared.clone(), client.clone());
        Box::pin(async move {
            let version = request.version();
            let mut response = forward::answer(&shared, &client, request).await;
            if version < Version::HTTP_2 && Instant::now() >= client.closes_at {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}

async fn http1<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    shared: Arc<Shared>,
    stream: S,
    client: Client,
    idle: Duration,
    closing: watch::Receiver<bool>,
) {
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .serve_connection(TokioIo::new(stream), service_fn(service(shared, client)))
        .with_upgrades();
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = forward::becomes_true(closing) => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    if ended.is_err_and(|error| error.is_parse_version_h2()) {
        // AWS speaks HTTP/2 only after ALPN.
        if let Some(parts) = connection.into_parts() {
            refuse(parts.io.into_inner()).await;
        }
    }
}

async fn http2<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    shared: Arc<Shared>,
    stream: S,
    client: Client,
    idle: Duration,
    closing: watch::Receiver<bool>,
) {
    let (busy, closes_at, lifetime) = (client.busy.clone(), client.closes_at, shared.lifetime.clone());
    let mut connection = http2::Builder::new(lifetime)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .serve_connection(TokioIo::new(stream), service_fn(service(shared, client)));
    let idle_for_long = async {
        loop {
            let now = Instant::now();
            let until = busy.idle_since().map_or(now, |since| since) + idle;
            if until <= now {
                return;
            }
            sleep_until(until).await;
        }
    };
    tokio::select! {
        _ = &mut connection => return,
        () = forward::becomes_true(closing) => {}
        () = sleep_until(closes_at) => {}
        () = idle_for_long => {}
    }
    Pin::new(&mut connection).graceful_shutdown();
    let _ = connection.await;
}
