//! One health check over a socket.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, Response, body::Incoming, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    account::{HealthCheck, Protocol, TargetGroup},
    health::{self, Failure, Outcome},
    nlb::proxy,
};

/// The version of HTTP that a check speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
    Grpc,
}

/// A check of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// The value of the header `Host`.
    host: String,
    /// `None` for a mere connection.
    request: Option<AskedOver>,
    /// True if the proxy protocol is on.
    proxied: bool,
    timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct AskedOver {
    tls: bool,
    version: Version,
    path: String,
    matcher: String,
}

impl Probe {
    /// Returns the check of a target of a group. `host` is the address that the target itself knows.
    pub(super) fn new(group: &TargetGroup, host: String, timeout: Duration) -> Self {
        let HealthCheck { protocol, path, matcher, .. } = &group.health_check;
        let application = matches!(group.protocol, Protocol::Http | Protocol::Https);
        let version = match group.protocol_version.as_deref() {
            Some("HTTP2") if application => Version::Two,
            Some("GRPC") if application => Version::Grpc,
            _ => Version::One,
        };
        let (default_path, default_matcher) = match version {
            Version::Grpc => ("/AWS.ALB/healthcheck", "12"),
            _ if application => ("/", "200"),
            _ => ("/", "200-399"),
        };
        let read = |value: &Option<String>, default: &str| {
            value.as_deref().filter(|value| !value.is_empty()).unwrap_or(default).to_owned()
        };
        let request = matches!(protocol, Protocol::Http | Protocol::Https).then(|| AskedOver {
            tls: *protocol == Protocol::Https,
            version,
            path: read(path, default_path),
            matcher: read(matcher, default_matcher),
        });
        let proxied = !application && group.attributes.get("proxy_protocol_v2.enabled").is_some_and(|on| on == "true");
        Self { host, request, proxied, timeout }
    }

    /// Asks the target at a loopback address. Without one there is no answer.
    pub(super) async fn ask(&self, address: Option<SocketAddr>) -> Outcome {
        let Some(address) = address else {
            tokio::time::sleep(self.timeout).await;
            return Outcome::Failed(Failure::TimedOut);
        };
        match timeout(self.timeout, self.attempt(address)).await {
            Ok(Some(Ok(()))) => Outcome::Passed,
            Ok(Some(Err(code))) => Outcome::Failed(Failure::Code(code)),
            Ok(None) => Outcome::Failed(Failure::Broken),
            Err(_) => Outcome::Failed(Failure::TimedOut),
        }
    }

    /// Returns the code that is not expected, or `None` without an answer.
    async fn attempt(&self, address: SocketAddr) -> Option<Result<(), u32>> {
        let mut stream = TcpStream::connect(address).await.ok()?;
        if self.proxied {
            stream.write_all(&proxy::LOCAL).await.ok()?;
        }
        let Some(asked) = &self.request else { return Some(Ok(())) };
        let code = if asked.tls {
            let alpn: &[&[u8]] = if asked.version == Version::One { &[] } else { &[b"h2"] };
            let connector = TlsConnector::from(config(alpn)?);
            let stream = connector.connect(name(address.ip()), stream).await.ok()?;
            asked.code(stream, &self.host).await?
        } else {
            asked.code(stream, &self.host).await?
        };
        Some(if health::matches(&asked.matcher, code) { Ok(()) } else { Err(code) })
    }
}

fn config(alpn: &[&[u8]]) -> Option<Arc<ClientConfig>> {
    crate::tls::any_certificate(alpn).ok()
}

fn name(address: IpAddr) -> ServerName<'static> {
    ServerName::IpAddress(address.into())
}

impl AskedOver {
    async fn code(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, host: &str) -> Option<u32> {
        let io = TokioIo::new(stream);
        if self.version == Version::One {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
            let request = self.request(host, &self.path)?;
            let head = async { sender.send_request(request).await.ok().map(|answer| answer.status().as_u16().into()) };
            return beside(connection, head).await;
        }
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.ok()?;
        let scheme = if self.tls { "https" } else { "http" };
        let request = self.request(host, &format!("{scheme}://{host}{}", self.path))?;
        let asked = async {
            let answer = sender.send_request(request).await.ok()?;
            match self.version {
                Version::Grpc => grpc_status(answer).await,
                _ => Some(u32::from(answer.status().as_u16())),
            }
        };
        beside(connection, asked).await
    }

    fn request(&self, host: &str, uri: &str) -> Option<Request<Empty<Bytes>>> {
        let request = Request::builder().uri(uri).header(header::USER_AGENT, "ELB-HealthChecker/2.0");
        let request = match self.version {
            Version::One => request.method(Method::GET).header(header::HOST, host).header(header::CONNECTION, "close"),
            Version::Two => request.method(Method::GET),
            Version::Grpc => request
                .method(Method::POST)
                .header(header::CONTENT_TYPE, "application/grpc")
                .header(header::TE, "trailers"),
        };
        request.body(Empty::new()).ok()
    }
}

/// Runs a connection until its request has an answer, or never will have one.
async fn beside<T>(connection: impl Future, asked: impl Future<Output = Option<T>>) -> Option<T> {
    let mut asked = pin!(asked);
    tokio::select! {
        biased;
        answer = &mut asked => answer,
        // It may end with the answer in hand.
        _ = connection => asked.await,
    }
}

/// Reads the status of a gRPC call from the headers, or from the trailers after a small body.
async fn grpc_status(answer: Response<Incoming>) -> Option<u32> {
    let read = |map: &header::HeaderMap| map.get("grpc-status")?.to_str().ok()?.parse().ok();
    if let Some(status) = read(answer.headers()) {
        return Some(status);
    }
    let body = Limited::new(answer.into_body(), 1 << 20).collect().await.ok()?;
    read(body.trailers()?)
}

#[cfg(test)]
mod tests;
