use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{Request, Response, Version, body::Frame, client::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio_rustls::TlsAcceptor;

use super::{support::*, tls::certificate};
use crate::{account::*, tls};

/// A load balancer with HTTPS, in front of a group.
fn secure(group: TargetGroup) -> Account {
    let mut account = account(Protocol::Https, 443, group);
    account.certificates.insert("certificate".to_owned(), certificate("a.test"));
    listener(&mut account).certificates = vec!["certificate".to_owned()];
    account
}

async fn connect(world: &World) -> http2::SendRequest<Full<Bytes>> {
    let stream = super::tls::connect(world, &[b"h2"], "a.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    sender
}

fn ask(method: &str, content_type: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri("https://a.test/x?y").version(Version::HTTP_2);
    request.header("content-type", content_type).body(Full::from("body")).unwrap()
}

async fn send(sender: &mut http2::SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Answer {
    Answer::of(soon("an answer", sender.send_request(request)).await.unwrap()).await
}

#[tokio::test]
async fn requests_of_http2_reach_targets_of_each_version() {
    let plain = Backend::echo("plain").await;
    let config = tls::Settings { certificates: vec![certificate("b.test")], alpn: vec![b"h2".to_vec()], clients: None };
    let config = config.config().unwrap();
    let encrypted = Backend::raw(move |stream, _| {
        let acceptor = TlsAcceptor::from(config.clone());
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            http(stream, |request| echo("encrypted", request)).await;
        }
    })
    .await;
    let mut over_tls = group("HTTP2", &[&encrypted]);
    over_tls.protocol = Protocol::Https;
    for (group, name, line, host) in [
        (group("HTTP1", &[&plain]), "plain", "HTTP/1.1 POST /x?y", true),
        (group("HTTP2", &[&plain]), "plain", "HTTP/2.0 POST http://a.test/x?y", false),
        (over_tls, "encrypted", "HTTP/2.0 POST https://a.test/x?y", false),
    ] {
        let world = World::start(secure(group)).await;
        let mut sender = connect(&world).await;
        for _ in 0..3 {
            let answer = send(&mut sender, ask("POST", "text/plain")).await;
            assert_eq!((answer.status.as_u16(), answer.header("x-target")), (200, Some(name)));
            let lines: Vec<&str> = answer.body.lines().collect();
            assert_eq!((lines[0], lines.contains(&"host: a.test"), *lines.last().unwrap()), (line, host, "body"));
            assert!(lines.contains(&"x-forwarded-proto: https") && lines.contains(&"x-forwarded-port: 443"));
        }
    }
    assert_eq!((plain.accepted(), encrypted.accepted()), (2, 1));
}

#[tokio::test]
async fn https_to_targets_of_http1() {
    let settings = tls::Settings { certificates: vec![certificate("b.test")], alpn: vec![], clients: None };
    let config = settings.config().unwrap();
    let backend = Backend::raw(move |stream, _| {
        let acceptor = TlsAcceptor::from(config.clone());
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            http(stream, |request| echo("encrypted", request)).await;
        }
    })
    .await;
    let mut group = group("HTTP1", &[&backend]);
    group.protocol = Protocol::Https;
    let world = World::start(account(Protocol::Http, 80, group)).await;
    assert_eq!(world.get("/").await.header("x-target"), Some("encrypted"));
}

#[tokio::test]
async fn protocols_that_do_not_fit() {
    let backend = Backend::echo("one").await;
    let grpc = "application/grpc+proto";
    for (version, method, content_type, expected) in [
        ("HTTP1", "POST", "text/plain", 200),
        ("HTTP1", "POST", grpc, 464),
        ("HTTP2", "GET", "text/plain", 200),
        ("GRPC", "POST", grpc, 200),
        ("GRPC", "GET", "text/plain", 464),
    ] {
        let world = World::start(secure(group(version, &[&backend]))).await;
        let answer = send(&mut connect(&world).await, ask(method, content_type)).await;
        assert_eq!(answer.own(), (expected, expected == 464), "{version} {method} {content_type}");
    }
    for version in ["HTTP2", "GRPC"] {
        let world = World::start(account(Protocol::Http, 80, group(version, &[&backend]))).await;
        assert_eq!(world.get("/").await.own(), (464, true));
    }
    let world = World::start(secure(group("GRPC", &[]))).await;
    let answer = send(&mut connect(&world).await, ask("POST", grpc)).await;
    assert_eq!((answer.own(), answer.header("grpc-status")), ((503, true), Some("14")));
}

#[tokio::test]
async fn trailers_of_grpc_go_through() {
    let backend = Backend::raw(|stream, _| async move {
        let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
            assert_eq!(request.headers()["te"], "trailers");
            let body = request.into_body().collect().await?.to_bytes();
            let trailers = hyper::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            let frames: Vec<Result<Frame<Bytes>, hyper::Error>> =
                vec![Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
            Ok::<_, hyper::Error>(Response::new(StreamBody::new(futures::stream::iter(frames))))
        });
        let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    })
    .await;
    let world = World::start(secure(group("GRPC", &[&backend]))).await;
    let mut request = ask("POST", "application/grpc");
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    let response = soon("an answer", connect(&world).await.send_request(request)).await.unwrap();
    let body = soon("the body", response.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "body");
}

#[tokio::test]
async fn http2_can_be_turned_off() {
    let mut account = secure(group("HTTP1", &[]));
    balancer(&mut account).attributes = attributes(&[("routing.http2.enabled", "false")]);
    let world = World::start(account).await;
    let stream = super::tls::connect(&world, &[b"h2", b"http/1.1"], "a.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
}
