use std::convert::Infallible;

use hyper::{StatusCode, server, service::service_fn};
use rcgen::generate_simple_self_signed;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::targets::testing;

/// The answer of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Server {
    /// With a status, if the request is for this path and by a load balancer.
    Http(u16, &'static str),
    Https(u16),
    Http2(u16),
    /// With a status in the headers, or in the trailers.
    Grpc(u32, bool),
    /// Never.
    Silent,
    /// With what is not HTTP.
    Malformed,
    /// With a close.
    Closes,
    /// Nobody listens.
    Nobody,
    /// With 200, if the proxy protocol's header comes first.
    Proxied,
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

fn answer(server: Server, request: &Request<Incoming>) -> Response<Body> {
    let empty = || Empty::new().boxed();
    let status = |code: u16| {
        let mut answer = Response::new(empty());
        *answer.status_mut() = StatusCode::from_u16(code).unwrap();
        answer
    };
    assert_eq!(request.headers()[header::USER_AGENT], "ELB-HealthChecker/2.0");
    match server {
        Server::Http(code, path) => {
            assert_eq!(
                (request.method(), &request.headers()[header::HOST]),
                (&Method::GET, &"10.0.1.1:80".parse().unwrap())
            );
            status(if request.uri() == path { code } else { 404 })
        }
        Server::Https(code) | Server::Http2(code) => status(code),
        Server::Grpc(code, in_trailers) => {
            assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/AWS.ALB/healthcheck"));
            let mut fields = header::HeaderMap::new();
            fields.insert("grpc-status", code.into());
            if in_trailers {
                let trailers = async move { Some(Ok(fields)) };
                Response::new(Empty::new().with_trailers(trailers).boxed())
            } else {
                let mut answer = Response::new(empty());
                *answer.headers_mut() = fields;
                answer
            }
        }
        _ => status(200),
    }
}

async fn serve(server: Server, mut stream: TcpStream) {
    let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(server, &request)) });
    match server {
        Server::Http(..) => {
            server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.unwrap();
        }
        Server::Https(_) => {
            let own = generate_simple_self_signed(["example.org".to_owned()]).unwrap();
            let config =
                rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_no_client_auth();
            let key = rustls::pki_types::PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
            let config = config.with_single_cert(vec![own.cert.der().clone()], key).unwrap();
            let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
            let _ = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
        Server::Http2(_) | Server::Grpc(..) => {
            let builder = server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        }
        Server::Silent => std::future::pending().await,
        Server::Malformed => stream.write_all(b"220 mail.example.org\r\n\r\n").await.unwrap(),
        Server::Closes | Server::Nobody => {}
        Server::Proxied => {
            let mut head = [0; 16];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut head).await.unwrap();
            assert_eq!(head, proxy::LOCAL);
            server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.unwrap();
        }
    }
}

async fn asked(group: &TargetGroup, server: Server) -> Outcome {
    let listener = TcpListener::bind("127.10.1.41:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seconds = if server == Server::Silent { Duration::from_millis(50) } else { Duration::from_secs(20) };
    let probe = Probe::new(group, "10.0.1.1:80".to_owned(), seconds);
    if server == Server::Nobody {
        drop(listener);
        return probe.ask(Some(address)).await;
    }
    let served = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(server, stream).await;
        std::future::pending().await
    };
    tokio::select! {
        outcome = probe.ask(Some(address)) => outcome,
        () = served => unreachable!(),
    }
}

#[tokio::test]
async fn a_check_asks_as_the_group_says() {
    let code = |code| Outcome::Failed(Failure::Code(code));
    let failed = Outcome::Failed;
    // The load balancer's kind, the check's protocol, the version, the path and the matcher.
    let table = [
        (false, Protocol::Http, None, None, None, Server::Http(200, "/"), Outcome::Passed),
        (false, Protocol::Http, None, Some("/up?full"), None, Server::Http(200, "/up?full"), Outcome::Passed),
        (false, Protocol::Http, None, None, None, Server::Http(301, "/"), code(301)),
        (false, Protocol::Http, None, None, Some("200-204,301"), Server::Http(301, "/"), Outcome::Passed),
        (true, Protocol::Http, None, None, None, Server::Http(301, "/"), Outcome::Passed),
        (true, Protocol::Http, None, None, None, Server::Http(404, "/"), code(404)),
        (false, Protocol::Http, None, None, None, Server::Silent, failed(Failure::TimedOut)),
        (false, Protocol::Http, None, None, None, Server::Malformed, failed(Failure::Broken)),
        (false, Protocol::Http, None, None, None, Server::Closes, failed(Failure::Broken)),
        (false, Protocol::Http, None, None, None, Server::Nobody, failed(Failure::Broken)),
        (false, Protocol::Https, None, None, None, Server::Https(200), Outcome::Passed),
        (false, Protocol::Https, None, None, None, Server::Https(503), code(503)),
        (false, Protocol::Https, None, None, None, Server::Closes, failed(Failure::Broken)),
        (false, Protocol::Http, Some("HTTP1"), None, None, Server::Http(200, "/"), Outcome::Passed),
        (false, Protocol::Http, Some("HTTP2"), None, None, Server::Http2(200), Outcome::Passed),
        (false, Protocol::Http, Some("HTTP2"), None, None, Server::Http2(500), code(500)),
        (false, Protocol::Http, Some("GRPC"), None, None, Server::Grpc(12, false), Outcome::Passed),
        (false, Protocol::Http, Some("GRPC"), None, None, Server::Grpc(0, true), code(0)),
        (false, Protocol::Http, Some("GRPC"), None, Some("0-99"), Server::Grpc(0, true), Outcome::Passed),
        (true, Protocol::Tcp, None, None, None, Server::Closes, Outcome::Passed),
        (true, Protocol::Tcp, None, None, None, Server::Nobody, failed(Failure::Broken)),
    ];
    for (network, protocol, version, path, matcher, server, expected) in table {
        let mut group = testing::account(network, &[]).target_groups["tg"].clone();
        group.protocol_version = version.map(str::to_owned);
        group.health_check.protocol = protocol;
        group.health_check.path = path.map(str::to_owned);
        group.health_check.matcher = matcher.map(str::to_owned);
        assert_eq!(asked(&group, server).await, expected, "{network} {protocol:?} {version:?} {server:?}");
    }
}

#[tokio::test]
async fn the_proxy_protocols_header_comes_first() {
    let mut group = testing::account(true, &[]).target_groups["tg"].clone();
    group.health_check.protocol = Protocol::Http;
    group.attributes.insert("proxy_protocol_v2.enabled".to_owned(), "true".to_owned());
    assert_eq!(asked(&group, Server::Proxied).await, Outcome::Passed);
}

#[tokio::test(start_paused = true)]
async fn a_check_without_a_way_to_the_target_times_out() {
    let group = testing::account(false, &[]).target_groups["tg"].clone();
    let probe = Probe::new(&group, String::new(), Duration::from_secs(5));
    let begin = tokio::time::Instant::now();
    assert_eq!(probe.ask(None).await, Outcome::Failed(Failure::TimedOut));
    assert_eq!(begin.elapsed(), Duration::from_secs(5));
}
