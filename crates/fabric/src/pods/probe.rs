//! The probes of a kubelet.

use std::{net::SocketAddr, pin::pin, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{Method, Request, Version, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::grpc;

/// A question to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A request; 200 to 399 is good.
    Http {
        /// Over TLS. The certificate is not verified.
        tls: bool,
        /// The path and the query.
        path: String,
        /// Names and values; `Host` is among them, or it is the address.
        headers: Vec<(String, String)>,
    },
    /// A connection.
    Tcp,
    /// A call of `grpc.health.v1.Health`.
    Grpc {
        /// The service that it asks for.
        service: String,
    },
}

/// Asks a container, and returns true if it answers well within the time.
pub async fn passes(target: SocketAddr, check: &Check, timeout: Duration) -> bool {
    tokio::time::timeout(timeout, ask(target, check)).await.is_ok_and(|answer| answer == Some(true))
}

async fn ask(target: SocketAddr, check: &Check) -> Option<bool> {
    let stream = TcpStream::connect(target).await.ok()?;
    match check {
        Check::Tcp => Some(true),
        Check::Http { tls: false, path, headers } => get(stream, target, path, headers).await,
        Check::Http { tls: true, path, headers } => {
            let name = ServerName::from(target.ip());
            get(
                TlsConnector::from(crate::tls::any_certificate(&[]).ok()?).connect(name, stream).await.ok()?,
                target,
                path,
                headers,
            )
            .await
        }
        Check::Grpc { service } => health(stream, target, service).await,
    }
}

async fn get<S: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: S,
    target: SocketAddr,
    path: &str,
    headers: &[(String, String)],
) -> Option<bool> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut request = Request::builder().method(Method::GET).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header(header::HOST, target.to_string());
    }
    request = request.header(header::USER_AGENT, "kube-probe/lab").header(header::CONNECTION, "close");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).ok()?;
    let mut answer = pin!(async { sender.send_request(request).await.ok().map(|answer| answer.status()) });
    let status = tokio::select! {
        status = &mut answer => status,
        // The answer may have come before the end.
        _ = connection => answer.await,
    };
    status.map(|status| (200..400).contains(&status.as_u16()))
}

async fn health(stream: TcpStream, target: SocketAddr, service: &str) -> Option<bool> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
    let message = grpc::text(1, service);
    let length = u32::try_from(message.len()).ok()?.to_be_bytes();
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://{target}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(Bytes::from([&[0], length.as_slice(), &message].concat())))
        .ok()?;
    let answer = async { sender.send_request(request).await.ok()?.collect().await.ok().map(|body| body.to_bytes()) };
    let mut answer = pin!(answer);
    let body = tokio::select! {
        body = &mut answer => body,
        _ = connection => answer.await,
    };
    // SERVING, the first field of the message behind its length.
    body.map(|body| body.get(5..) == Some(&[8, 1]))
}
