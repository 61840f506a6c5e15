use std::{io::ErrorKind, net::Ipv4Addr};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::{
    probe::{self, Check},
    testing::*,
    *,
};

const TCP: Transport = Transport::Tcp;
const UDP: Transport = Transport::Udp;

fn with(mut container: ContainerSpec, environment: &[(&str, &str)]) -> ContainerSpec {
    container.environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    container
}

/// Makes a request of HTTP/2; returns the status, the headers, the body, and the trailers.
async fn h2(
    to: SocketAddr,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> (u16, hyper::HeaderMap, Bytes, Option<hyper::HeaderMap>) {
    let stream = connect(to).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let task = tokio::spawn(connection);
    let request = Request::post(format!("http://web.example{path}")).header("content-type", content_type);
    let request = request.header("te", "trailers").body(Full::new(Bytes::copy_from_slice(body))).unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body: http_body_util::Collected<Bytes> = Incoming::collect(body).await.unwrap();
    let trailers = body.trailers().cloned();
    task.abort();
    (parts.status.as_u16(), parts.headers, body.to_bytes(), trailers)
}

async fn tls(to: SocketAddr, name: &str, protocols: &[&[u8]]) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
    let config = crate::tls::any_certificate(protocols).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config).connect(name, connect(to).await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn any_image_answers_http_with_its_name() {
    let pod = start("web-1", container("nginx", &[(80, TCP)]));
    let mut found = get(at(&pod, 80), "/a?b=c", "").await.unwrap();
    found.headers.remove("date");
    let headers = [("connection", "close"), ("content-length", "21"), ("x-pod", "web-1"), ("x-source", "198.18.1.9")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let body = "pod web-1 GET /a?b=c\n".to_owned();
    assert_eq!(found, Answer { status: 200, headers: headers.into(), body });
    assert_eq!(get(at(&pod, 80), "/status/404", "").await.unwrap().status, 404);
    let (status, headers, body, _) = h2(at(&pod, 80), "/x", "text/plain", b"body").await;
    assert_eq!(
        (status, &headers["x-pod"], body.as_ref()),
        (200, &"web-1".parse().unwrap(), b"pod web-1 POST /x\n".as_slice())
    );
}

#[tokio::test]
async fn any_image_answers_in_the_protocol_of_its_client() {
    let pod = start("web-1", container("nginx", &[(80, TCP), (53, UDP)]));
    let mut raw = connect(at(&pod, 80)).await.unwrap();
    assert_eq!(exchange(&mut raw, b"hello", 5).await, b"hello");
    assert_eq!(exchange(&mut raw, b"GET / HTTP/1.1\r\n\r\n", 18).await, b"GET / HTTP/1.1\r\n\r\n");
    // It could be the beginning of a request.
    let mut raw = connect(at(&pod, 80)).await.unwrap();
    assert_eq!(exchange(&mut raw, b"PING", 4).await, b"PING");

    let mut secure = tls(at(&pod, 80), "web.example", &[]).await;
    send(&mut secure, "/", "").await;
    assert_eq!(answer(&mut secure).await.unwrap().body, "pod web-1 GET /\n");
    let mut secure = tls(at(&pod, 80), "web.example", &[]).await;
    assert_eq!(exchange(&mut secure, b"hello", 5).await, b"hello");

    let mut socket = connect(at(&pod, 80)).await.unwrap();
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    send(&mut socket, "/any", upgrade).await;
    let accepted = answer(&mut socket).await.unwrap();
    assert_eq!((accepted.status, accepted.header("sec-websocket-accept")), (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(accepted.header("x-pod"), "web-1");
    assert_eq!(exchange(&mut socket, b"\x81\x82\0\0\0\0hi", 4).await, b"\x81\x02hi");
    assert_eq!(exchange(&mut socket, b"\x89\x81\0\0\0\0x", 3).await, b"\x8a\x01x");
    assert_eq!(exchange(&mut socket, b"\x88\x80\0\0\0\0", 2).await, b"\x88\x00");
    assert_eq!(end(&mut socket).await, Ok(Vec::new()));

    let datagram = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    datagram.send_to(b"hello", at(&pod, 53)).await.unwrap();
    let mut buffer = [0; 16];
    let (length, from) = tokio::time::timeout(SOON, datagram.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!((&buffer[..length], from), (b"hello".as_slice(), at(&pod, 53)));

    let (status, _, body, trailers) = h2(at(&pod, 80), "/a.B/C", "application/grpc", b"\0\0\0\0\x02hi").await;
    assert_eq!((status, body.as_ref()), (200, b"\0\0\0\0\x02hi".as_slice()));
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    let (_, headers, _, _) = h2(at(&pod, 80), "/AWS.ALB/healthcheck", "application/grpc", b"\0\0\0\0\0").await;
    assert_eq!(headers["grpc-status"], "12");
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client() {
    let pod = start("web-1", container("nginx", &[(80, TCP)]));
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\x0a\0\0\x01\x30\x39\0\x50";
    let mut stream = connect(at(&pod, 80)).await.unwrap();
    stream.write_all(header).await.unwrap();
    send(&mut stream, "/", "").await;
    let found = answer(&mut stream).await.unwrap();
    assert_eq!((found.status, found.header("x-source")), (200, "198.51.100.7"));
    let mut stream = connect(at(&pod, 80)).await.unwrap();
    assert_eq!(exchange(&mut stream, &[header.as_slice(), b"hello"].concat(), 5).await, b"hello");
}

/// The files and the environment of a server with a certificate for a name.
fn certified(mut container: ContainerSpec) -> ContainerSpec {
    let made = rcgen::generate_simple_self_signed(vec!["web.example".to_owned()]).unwrap();
    container.files.insert("/c/crt".to_owned(), made.cert.pem().into_bytes());
    container.files.insert("/c/key".to_owned(), made.signing_key.serialize_pem().into_bytes());
    container.environment.insert("TLS_SERVER_CERT".to_owned(), "/c/crt".to_owned());
    container.environment.insert("TLS_SERVER_PRIVKEY".to_owned(), "/c/key".to_owned());
    container
}

const CONTEXT: [(&str, &str); 3] = [("NAMESPACE", "shop"), ("POD_NAME", "web-1"), ("SERVICE_NAME", "web")];

#[tokio::test]
async fn echo_basic_tells_the_request() {
    let pod = start("web-1", certified(with(container("example.com/echo-basic:v1", &[]), &CONTEXT)));
    let asked = "x-a: 1\r\nx-echo-set-header: x-b:2\r\n";
    let found = get(at(&pod, 3000), "/a//b?c=d", asked).await.unwrap();
    assert_eq!((found.status, found.header("content-type"), found.header("x-b")), (200, "application/json", "2"));
    assert_eq!(found.header("x-pod"), "web-1");
    let expected = json!({
        "path": "/a//b?c=d", "host": "web.example", "method": "GET", "proto": "HTTP/1.1", "httpPort": "3000",
        "headers": {"Connection": ["close"], "X-A": ["1"], "X-Echo-Set-Header": ["x-b:2"]},
        "namespace": "shop", "ingress": "", "service": "web", "pod": "web-1",
    });
    assert_eq!(serde_json::from_str::<Value>(&found.body).unwrap(), expected);

    let rows = [("/health", 200), ("/status/418", 418), ("/status/x", 400), ("/a?delay=1x", 500), ("/retry/", 400)];
    for (path, status) in rows {
        assert_eq!(get(at(&pod, 3000), path, "").await.unwrap().status, status, "{path}");
    }
    let retry = "/retry/?uuid=a&succeedAfter=2";
    let broken = get(at(&pod, 3000), retry, "").await.unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    let second = get(at(&pod, 3000), &format!("{retry}&responseCode=503"), "").await.unwrap();
    let third = get(at(&pod, 3000), retry, "").await.unwrap();
    assert_eq!((second.status, third.status), (503, 200));

    let found = get(at(&pod, 3001), "/", "").await.unwrap();
    assert_eq!((found.status, found.body.as_str()), (400, "Expected h2c request"));
    let (status, _, body, _) = h2(at(&pod, 3001), "/h2", "text/plain", b"").await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &body["proto"], &body["host"]), (200, &json!("HTTP/2.0"), &json!("web.example")));

    let mut secure = tls(at(&pod, 8443), "web.example", &[b"http/1.1"]).await;
    send(&mut secure, "/backendTLS", "").await;
    let body: Value = serde_json::from_str(&answer(&mut secure).await.unwrap().body).unwrap();
    let session = json!({
        "version": "TLSv1.3", "serverName": "web.example", "negotiatedProtocol": "http/1.1", "peerCertificates": [],
        "cipherSuite": body["tls"]["cipherSuite"],
    });
    assert_eq!(body["tls"], session);
    assert!(body["tls"]["cipherSuite"].as_str().unwrap().starts_with("TLS_"));

    let mut socket = connect(at(&pod, 3000)).await.unwrap();
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: AA==\r\n";
    send(&mut socket, "/ws", upgrade).await;
    assert_eq!(answer(&mut socket).await.unwrap().status, 101);
    assert_eq!(exchange(&mut socket, b"\x81\x82\0\0\0\0hi", 4).await, b"\x81\x02hi");
}

#[tokio::test]
async fn echo_basic_has_modes_for_other_protocols() {
    let mode = |name: &'static str| with(container("echo-basic", &[]), &[CONTEXT.as_slice(), &[(name, "1")]].concat());
    let pod = start("web-1", mode("L4_ECHO_SERVER"));
    let mut stream = connect(at(&pod, 3000)).await.unwrap();
    assert_eq!(exchange(&mut stream, b"", 28).await, b"Gateway API Test TCP Server\n");
    assert_eq!(exchange(&mut stream, b"PING\r\nIS_TLS\n", 11).await, b"PONG\nfalse\n");
    let expected = json!({
        "namespace": "shop", "ingress": "", "service": "web", "pod": "web-1", "tcpport": "3000", "tlsport": "8443", "isTLS": false,
    });
    let length = expected.to_string().len() + 1;
    let told = exchange(&mut stream, b"TEST\n", length).await;
    assert_eq!(serde_json::from_slice::<Value>(&told).unwrap(), expected);

    let datagram = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    datagram.send_to(b"hello", at(&pod, 8080)).await.unwrap();
    let mut buffer = [0; 512];
    let length = tokio::time::timeout(SOON, datagram.recv(&mut buffer)).await.unwrap().unwrap();
    let expected = json!({"request": "hello", "namespace": "shop", "ingress": "", "service": "web", "pod": "web-1"});
    assert_eq!(serde_json::from_slice::<Value>(&buffer[..length]).unwrap(), expected);

    let pod = start("web-1", mode("GRPC_ECHO_SERVER"));
    let service = "/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho";
    let call = async |method: &str| {
        h2(at(&pod, 3000), &format!("{service}/{method}"), "application/grpc", b"\0\0\0\0\0").await
    };
    let (_, headers, body, trailers) = call("EchoTwo").await;
    assert_eq!(
        (&headers["x-pod"], &trailers.unwrap()["grpc-status"]),
        (&"web-1".parse().unwrap(), &"0".parse().unwrap())
    );
    let text = String::from_utf8_lossy(&body);
    for part in [&format!("{service}/EchoTwo"), ":authority", "web.example", "shop", "web-1"] {
        assert!(text.contains(part), "{part} is not in {text:?}");
    }
    let (_, headers, _, _) = call("EchoThree").await;
    assert_eq!(headers["grpc-status"], "12");
}

#[tokio::test]
async fn images_of_test_suites_answer_as_those_expect() {
    let color = with(container("x/colorteller:latest", &[(81, TCP)]), &[("SERVER_PORT", "81"), ("COLOR", "blue")]);
    let pod = start("color-1", color);
    let found = get(at(&pod, 81), "/any", "").await.unwrap();
    assert_eq!((found.status, found.body.as_str(), found.header("x-pod")), (200, "blue", "color-1"));

    let pod = start("hello-1", container("x/hello-multi", &[]));
    let found = get(at(&pod, 80), "/", "").await.unwrap();
    assert_eq!((found.status, found.header("x-pod")), (200, "hello-1"));

    let pod =
        start("grpc-1", ContainerSpec { arguments: vec!["fixed".to_owned()], ..container("grpc-echoserver", &[]) });
    let (_, _, body, trailers) = h2(at(&pod, 50051), "/echo.EchoService/FixedResponse", "application/grpc", b"").await;
    assert_eq!(body.as_ref(), b"\0\0\0\0\x07\x0a\x05fixed");
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_failing_pod_answers_503_until_it_does_not_fail() {
    let pod = start("web-1", container("nginx", &[(80, TCP)]));
    pod.set_failing(true);
    let found = get(at(&pod, 80), "/", "").await.unwrap();
    assert_eq!((found.status, found.header("x-pod")), (503, "web-1"));
    let mut raw = connect(at(&pod, 80)).await.unwrap();
    raw.write_all(b"hello").await.unwrap();
    assert_ne!(end(&mut raw).await, Ok(b"hello".to_vec()));
    pod.set_failing(false);
    assert_eq!(get(at(&pod, 80), "/", "").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_pod_that_exits_resets_its_connections() {
    let pod = start("web-1", container("nginx", &[(80, TCP)]));
    let mut kept = connect(at(&pod, 80)).await.unwrap();
    send(&mut kept, "/", "").await;
    answer(&mut kept).await.unwrap();
    let mut busy = connect(at(&pod, 80)).await.unwrap();
    send(&mut busy, "/?delay=1h", "").await;
    let mut raw = connect(at(&pod, 80)).await.unwrap();
    exchange(&mut raw, b"hello", 5).await;
    assert!(pod.is_running());
    tokio::time::timeout(SOON, pod.terminate(OnTerm::Exit, SOON)).await.unwrap();
    assert!(!pod.is_running());
    for stream in [&mut kept, &mut busy, &mut raw] {
        assert_eq!(end(stream).await, Err(ErrorKind::ConnectionReset));
    }
    assert_eq!(connect(at(&pod, 80)).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_pod_that_drains_completes_what_is_in_flight() {
    let pod = start("web-1", container("nginx", &[(80, TCP)]));
    let mut kept = connect(at(&pod, 80)).await.unwrap();
    send(&mut kept, "/", "").await;
    answer(&mut kept).await.unwrap();
    let mut raw = connect(at(&pod, 80)).await.unwrap();
    exchange(&mut raw, b"hello", 5).await;
    let mut socket = connect(at(&pod, 80)).await.unwrap();
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: AA==\r\n";
    send(&mut socket, "/", upgrade).await;
    answer(&mut socket).await.unwrap();
    let mut busy = connect(at(&pod, 80)).await.unwrap();
    send(&mut busy, "/?delay=500ms", "").await;
    let h2 = tokio::spawn(h2(at(&pod, 80), "/?delay=500ms", "text/plain", b""));
    // The last one of the clients is a new one whose bytes no server has read yet.
    let mut new = connect(at(&pod, 80)).await.unwrap();
    send(&mut new, "/", "").await;
    // So that the request of HTTP/2 has been sent.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let clients = async {
        refused(at(&pod, 80)).await;
        assert_eq!(end(&mut kept).await, Ok(Vec::new()));
        assert_eq!(end(&mut raw).await, Ok(Vec::new()));
        // 1001: the server goes away.
        assert_eq!(exchange(&mut socket, b"", 4).await, b"\x88\x02\x03\xe9");
        socket.write_all(b"\x88\x80\0\0\0\0").await.unwrap();
        assert_eq!(end(&mut socket).await, Ok(Vec::new()));
        let found = answer(&mut busy).await.unwrap();
        assert_eq!((found.status, found.header("connection")), (200, "close"));
        assert_eq!(end(&mut busy).await, Ok(Vec::new()));
        assert_eq!(answer(&mut new).await.unwrap().status, 200);
        assert_eq!(h2.await.unwrap().0, 200);
        drop((raw, new));
    };
    let ((), ()) = tokio::join!(tokio::time::timeout(SOON, pod.terminate(OnTerm::Drain, SOON)).map_ok(), clients);
    assert!(!pod.is_running());
}

/// Panics on an error, so that a timeout is seen.
trait MapOk {
    async fn map_ok(self);
}

impl<F: Future<Output = Result<(), tokio::time::error::Elapsed>>> MapOk for F {
    async fn map_ok(self) {
        self.await.unwrap();
    }
}

#[tokio::test]
async fn a_pod_that_drains_for_too_long_is_killed() {
    let pod = start("web-1", container("nginx", &[(80, TCP)]));
    let mut busy = connect(at(&pod, 80)).await.unwrap();
    send(&mut busy, "/?delay=1h", "").await;
    tokio::time::timeout(SOON, pod.terminate(OnTerm::Drain, Duration::from_millis(200))).await.unwrap();
    assert_eq!(end(&mut busy).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_port_is_free_as_soon_as_the_pod_has_ended() {
    let address = address();
    for _ in 0..20 {
        let pod = start_at("web-1", address, container("nginx", &[(80, TCP), (53, UDP)]));
        let mut kept = connect(at(&pod, 80)).await.unwrap();
        exchange(&mut kept, b"hello", 5).await;
        pod.kill();
        tokio::time::timeout(SOON, pod.ended()).await.unwrap();
    }
    let pod = start_at("web-1", address, container("nginx", &[(80, TCP)]));
    let spec =
        PodSpec { address: Some(address), containers: vec![container("nginx", &[(80, TCP)])], ..PodSpec::default() };
    let error = Pod::start(&spec, OFFSET).unwrap_err();
    assert!(matches!(&error, StartError::Bind { address, .. } if *address == at(&pod, 80)), "{error}");
    let to = at(&pod, 80);
    drop(pod);
    refused(to).await;
}

#[tokio::test]
async fn a_pod_that_cannot_run_says_why() {
    let spec = PodSpec { address: Some([192, 0, 2, 1].into()), ..PodSpec::default() };
    let error = Pod::start(&spec, 0).unwrap_err().to_string();
    assert_eq!(error, "192.0.2.1 is not an address of the VPC, 10.0.0.0/16");
    let spec = |container| PodSpec { address: Some(address()), containers: vec![container], ..PodSpec::default() };
    let error = Pod::start(&spec(container("nginx", &[(60000, TCP)])), OFFSET).unwrap_err().to_string();
    assert_eq!(error, "port 60000 is too high for the offset that is added to it");
    let mut broken = certified(container("echo-basic", &[]));
    broken.files.insert("/c/key".to_owned(), b"none".to_vec());
    let error = Pod::start(&spec(broken), OFFSET).unwrap_err();
    assert!(matches!(error, StartError::Tls(_)), "{error}");
}

#[tokio::test]
async fn probes_ask_as_a_kubelet_does() {
    let pod = start("web-1", container("nginx", &[(80, TCP)]));
    let http = |tls: bool, path: &str| Check::Http { tls, path: path.to_owned(), headers: Vec::new() };
    let grpc = Check::Grpc { service: "web".to_owned() };
    let rows = [
        (http(false, "/"), true, false),
        (http(false, "status/399"), true, false),
        (http(false, "/status/404"), false, false),
        (http(true, "/"), true, false),
        (Check::Tcp, true, true),
        (grpc, true, false),
    ];
    for (check, passes, passes_failing) in rows {
        for (failing, expected) in [(false, passes), (true, passes_failing)] {
            pod.set_failing(failing);
            assert_eq!(probe::passes(at(&pod, 80), &check, SOON).await, expected, "{check:?} {failing}");
        }
    }
    let slow = http(false, "/?delay=1h");
    pod.set_failing(false);
    assert!(!probe::passes(at(&pod, 80), &slow, Duration::from_millis(50)).await);
    pod.terminate(OnTerm::Exit, Duration::ZERO).await;
    assert!(!probe::passes(at(&pod, 80), &Check::Tcp, SOON).await);
}
