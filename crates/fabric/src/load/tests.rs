//! The load against servers that misbehave in known ways.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Mutex as StdMutex,
        atomic::{AtomicU64, AtomicUsize},
    },
};

use http_body_util::Full;
use hyper::{Response, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::sync::atomic::Ordering::Relaxed;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, UdpSocket},
};
use tokio_rustls::TlsAcceptor;

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The deeds of a server with a request, or with a line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Act {
    Answer,
    /// A status of the load balancer's own.
    Status(u16),
    /// A status of the pod's.
    OfPod(u16),
    /// Half of the answer, then the end.
    Half,
    /// A reset without an answer.
    Reset,
    /// The end without an answer.
    Close,
    /// An answer with `Connection: close`.
    AnswerClose,
    /// An answer, and then the end without a word.
    AnswerThenClose,
    /// An answer once the server is told to go on.
    Hold,
}

#[derive(Default)]
struct Book {
    done: StdMutex<BTreeMap<Act, u64>>,
    clients: StdMutex<BTreeSet<Ipv4Addr>>,
    connections: AtomicUsize,
    seen: AtomicU64,
}

impl Book {
    fn done(&self, act: Act) -> u64 {
        self.done.lock().unwrap().get(&act).copied().unwrap_or_default()
    }
}

/// A server by hand. `act` is given the number of the request of all, and of those on its connection, from 1.
struct Server {
    port: u16,
    book: Arc<Book>,
    go: watch::Sender<bool>,
    _task: AbortOnDrop<()>,
}

type Choose = fn(u64, u64) -> Act;

impl Server {
    async fn start(http: bool, choose: Choose) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let book = Arc::new(Book::default());
        let (go, gone_on) = watch::channel(false);
        let accept = {
            let book = book.clone();
            async move {
                let mut connections = JoinSet::new();
                loop {
                    let (stream, client) = listener.accept().await.unwrap();
                    let SocketAddr::V4(client) = client else { unreachable!() };
                    book.clients.lock().unwrap().insert(*client.ip());
                    book.connections.fetch_add(1, Relaxed);
                    connections.spawn(connection(stream, book.clone(), http, choose, gone_on.clone()));
                }
            }
        };
        Self { port, book, go, _task: AbortOnDrop(tokio::spawn(accept)) }
    }

    fn spec(&self) -> LoadSpec {
        LoadSpec { rate: 500, ..LoadSpec::new("balancer.test", self.port, localhost()) }
    }

    /// Runs a load until the server has seen this many requests, and returns the report.
    async fn load(&self, spec: LoadSpec, requests: u64) -> Report {
        let load = Load::start(spec).unwrap();
        until("the requests were sent", || self.book.seen.load(Relaxed) >= requests).await;
        load.stop().await
    }
}

fn localhost() -> Resolve {
    Arc::new(|name| if name == "balancer.test" { vec![Ipv4Addr::LOCALHOST] } else { Vec::new() })
}

async fn connection(stream: TcpStream, book: Arc<Book>, http: bool, choose: Choose, mut go: watch::Receiver<bool>) {
    let mut stream = BufReader::new(stream);
    for own in 1.. {
        let mut line = String::new();
        loop {
            let mut part = String::new();
            match stream.read_line(&mut part).await {
                Ok(0) | Err(_) => return,
                Ok(_) => line.push_str(&part),
            }
            if !http || part == "\r\n" {
                break;
            }
        }
        let all = book.seen.fetch_add(1, Relaxed) + 1;
        let act = choose(all, own);
        *book.done.lock().unwrap().entry(act).or_default() += 1;
        let head = |status: u16, more: &str| format!("HTTP/1.1 {status} X\r\ncontent-length: 4\r\n{more}\r\n");
        let text = match act {
            Act::Reset => {
                socket2::SockRef::from(stream.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
            Act::Close => return,
            Act::Hold => {
                let _ = go.wait_for(|go| *go).await;
                head(200, "x-pod: a\r\n") + "body"
            }
            _ if !http => line.clone(),
            Act::Answer | Act::AnswerThenClose => head(200, "x-pod: a\r\n") + "body",
            Act::AnswerClose => head(200, "x-pod: a\r\nconnection: close\r\n") + "body",
            Act::Status(status) => head(status, "server: awselb/2.0\r\n") + "lost",
            Act::OfPod(status) => head(status, "x-pod: a\r\n") + "fail",
            Act::Half => head(200, "x-pod: a\r\n") + "bo",
        };
        stream.get_mut().write_all(text.as_bytes()).await.unwrap();
        if matches!(act, Act::Half | Act::AnswerClose | Act::AnswerThenClose) || line.contains("connection: close") {
            return;
        }
    }
}

fn kinds(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
}

/// All requests have an end, and the labels count all that were answered.
fn is_whole(report: &Report) {
    let figures = report.figures;
    let answered = figures.by_pods + figures.by_load_balancer + figures.by_unnamed + figures.rightly_lost;
    assert_eq!(figures.requests, answered + figures.lost + figures.wrong, "{report:?}");
    assert_eq!(report.labels.values().map(|seen| seen.count).sum::<u64>(), answered);
    assert_eq!(report.kinds.values().sum::<u64>(), figures.lost + figures.wrong);
}

#[tokio::test]
async fn each_way_to_lose_a_request_is_counted_by_its_kind() {
    let server = Server::start(true, |all, _| match all % 10 {
        1 => Act::Reset,
        2 => Act::Close,
        3 => Act::Status(503),
        4 => Act::Half,
        5 => Act::OfPod(503),
        6 => Act::Status(404),
        7 => Act::Status(200),
        _ => Act::Answer,
    })
    .await;
    let report = server.load(LoadSpec { new_connections: 1.0, ..server.spec() }, 200).await;
    is_whole(&report);
    let done = |act| server.book.done(act);
    let wrong = done(Act::OfPod(503)) + done(Act::Status(404));
    assert_eq!(
        report.kinds,
        kinds(&[
            ("reset", done(Act::Reset)),
            ("closed before the answer", done(Act::Close)),
            ("503 that no pod sent", done(Act::Status(503))),
            ("cut within the answer", done(Act::Half)),
            ("wrong", wrong),
        ])
    );
    let requests = server.book.seen.load(Relaxed);
    let expected = Figures {
        requests,
        by_pods: done(Act::Answer),
        by_load_balancer: done(Act::Status(200)),
        lost: requests - wrong - done(Act::Answer) - done(Act::Status(200)),
        wrong,
        ..Figures::default()
    };
    assert_eq!(report.figures, expected);
    assert_eq!(report.failures.len(), 20);
}

#[tokio::test]
async fn half_of_the_requests_have_a_connection_of_their_own_and_the_others_share_some() {
    let server = Server::start(true, |_, _| Act::Answer).await;
    let report = server.load(LoadSpec { clients: 7, ..server.spec() }, 200).await;
    is_whole(&report);
    let new = report.figures.requests.div_ceil(2);
    let connections = server.book.connections.load(Relaxed) as u64;
    // Where the machine is busy, a request finds none idle.
    assert!((new + 8..new + 60).contains(&connections), "{connections} connections for {new} new ones");
    let clients = server.book.clients.lock().unwrap();
    assert!(clients.len() > 30, "{clients:?}");
    assert!(clients.iter().all(|client| client.octets()[..3] == [127, 40, 7]), "{clients:?}");
}

/// Each tenth request, but never the first one on a connection: so what is repeated is answered.
fn resets(_: u64, own: u64) -> Act {
    if own == 10 { Act::Reset } else { Act::Answer }
}

#[tokio::test]
async fn a_request_on_a_kept_connection_that_is_reset_is_repeated_and_a_strict_load_loses_it() {
    let server = Server::start(true, resets).await;
    let kept = LoadSpec { new_connections: 0.0, kept_connections: 2, ..server.spec() };
    let report = server.load(kept.clone(), 200).await;
    is_whole(&report);
    assert_eq!((report.figures.lost, report.figures.retried), (0, server.book.done(Act::Reset)), "{report:?}");
    assert!(report.figures.retried >= 10);

    for spec in [LoadSpec { strict: true, ..kept.clone() }, LoadSpec { method: Method::POST, ..kept }] {
        let server = Server::start(true, resets).await;
        let report = server.load(LoadSpec { port: server.port, ..spec }, 200).await;
        is_whole(&report);
        assert_eq!((report.kinds, report.figures.retried), (kinds(&[("reset", server.book.done(Act::Reset))]), 0));
    }
}

#[tokio::test]
async fn a_repetition_that_fails_too_is_lost() {
    // Only what is on a connection of its own is answered.
    let server = Server::start(true, |all, own| if own == 10 || all > 50 { Act::Reset } else { Act::Answer }).await;
    let report = server.load(LoadSpec { new_connections: 0.0, kept_connections: 2, ..server.spec() }, 100).await;
    is_whole(&report);
    let resets = server.book.done(Act::Reset);
    assert_eq!(report.kinds, kinds(&[("reset", resets - report.figures.retried)]));
    assert!(report.figures.retried > 0);
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closes_is_opened_again_and_nothing_is_lost() {
    let silent = Server::start(true, |_, own| if own == 5 { Act::AnswerThenClose } else { Act::Answer }).await;
    let kept = LoadSpec { new_connections: 0.0, kept_connections: 2, ..silent.spec() };
    let report = silent.load(kept.clone(), 200).await;
    is_whole(&report);
    assert_eq!(report.figures.lost, 0, "{report:?}");
    let connections = silent.book.connections.load(Relaxed);
    assert!(connections >= 40, "{connections}");

    let told = Server::start(true, |_, own| if own == 5 { Act::AnswerClose } else { Act::Answer }).await;
    let report = told.load(LoadSpec { port: told.port, ..kept }, 200).await;
    is_whole(&report);
    assert_eq!((report.figures.lost, report.figures.retried), (0, 0), "{report:?}");
}

#[tokio::test]
async fn no_answer_is_waited_for_and_who_waits_too_long_is_lost() {
    let server = Server::start(true, |_, _| Act::Hold).await;
    let load = Load::start(server.spec()).unwrap();
    until("many requests wait", || server.book.seen.load(Relaxed) >= 100).await;
    assert_eq!(load.figures().by_pods, 0);
    server.go.send(true).unwrap();
    let report = load.stop().await;
    is_whole(&report);
    assert_eq!(report.figures.by_pods, report.figures.requests);

    let server = Server::start(true, |_, _| Act::Hold).await;
    let report = server.load(LoadSpec { timeout: Duration::from_millis(50), ..server.spec() }, 20).await;
    is_whole(&report);
    assert_eq!(report.kinds, kinds(&[("timed out", report.figures.requests)]));
    assert!(report.failures[0].detail.starts_with("127.0.0.1: waiting on a "), "{:?}", report.failures[0]);
}

#[tokio::test]
async fn without_an_address_or_a_listener_every_request_is_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for (name, kind) in [("balancer.test", "refused"), ("gone.test", "no address")] {
        let load = Load::start(LoadSpec::new(name, port, localhost())).unwrap();
        until("some are lost", || load.figures().lost >= 10).await;
        let report = load.stop().await;
        assert_eq!(report.kinds, kinds(&[(kind, report.figures.requests)]));
    }
}

#[tokio::test]
async fn labels_tell_when_the_last_old_answer_came() {
    let server = Server::start(true, |all, _| if all <= 40 { Act::Status(404) } else { Act::Answer }).await;
    let judge: Judge = Arc::new(|answer| match (answer.status, answer.pod()) {
        (404, None) => Ok("old".into()),
        (200, Some("a")) => Ok("new".into()),
        other => Err(format!("{other:?}")),
    });
    let report = server.load(LoadSpec { judge, ..server.spec() }, 100).await;
    is_whole(&report);
    let (old, new) = (report.labels["old"], report.labels["new"]);
    assert_eq!((old.count, report.figures.wrong), (40, 0));
    assert_eq!(report.last_after("old", old.first_sent), old.last_sent - old.first_sent);
    assert!(new.last > old.last);
}

#[tokio::test]
async fn lines_come_back_over_new_and_over_long_lived_connections() {
    let server = Server::start(false, |all, own| match (all % 10, own) {
        // Long-lived ones only: there are two of them.
        (_, 3) => Act::Reset,
        _ => Act::Answer,
    })
    .await;
    let spec = LoadSpec { scheme: Scheme::Tcp, rate: 40, judge: Arc::new(|_| Ok("echo".into())), ..server.spec() };
    let report = server.load(spec, 40).await;
    is_whole(&report);
    let resets = server.book.done(Act::Reset);
    assert_eq!(report.kinds, kinds(&[("reset", resets)]), "{report:?}");
    assert!(resets >= 2);
    assert_eq!(report.figures.by_unnamed, server.book.done(Act::Answer));
}

#[tokio::test]
async fn a_long_lived_connection_that_ends_between_two_lines_is_opened_again() {
    let server = Server::start(false, |_, own| if own == 3 { Act::AnswerThenClose } else { Act::Answer }).await;
    let judge: Judge =
        Arc::new(|answer| Ok(if answer.text().starts_with("line ") { "echo".into() } else { "?".into() }));
    let spec = LoadSpec { scheme: Scheme::Tcp, rate: 20, new_connections: 0.0, judge, ..server.spec() };
    let report = server.load(spec, 20).await;
    is_whole(&report);
    assert_eq!((report.figures.lost, report.labels.len()), (0, 1), "{report:?}");
    assert!(report.figures.reopened >= 2, "{report:?}");
}

#[tokio::test]
async fn a_datagram_without_its_echo_is_lost() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let dropped = Arc::new(AtomicU64::new(0));
    let garbled = Arc::new(AtomicU64::new(0));
    let flows = Arc::new(StdMutex::new(BTreeSet::new()));
    let serve = {
        let (dropped, garbled, flows) = (dropped.clone(), garbled.clone(), flows.clone());
        async move {
            let mut buffer = [0; 2048];
            for number in 0_u64.. {
                let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
                flows.lock().unwrap().insert(client);
                match number % 10 {
                    3 => drop(dropped.fetch_add(1, Relaxed)),
                    5 => {
                        garbled.fetch_add(1, Relaxed);
                        socket.send_to(b"datagram", client).await.unwrap();
                    }
                    _ => drop(socket.send_to(&buffer[..length], client).await.unwrap()),
                }
            }
        }
    };
    let _server = AbortOnDrop(tokio::spawn(serve));
    let spec = LoadSpec {
        scheme: Scheme::Udp,
        datagram_timeout: Duration::from_millis(500),
        judge: Arc::new(|_| Ok("echo".into())),
        ..LoadSpec::new("balancer.test", port, localhost())
    };
    let load = Load::start(spec).unwrap();
    until("some are dropped", || dropped.load(Relaxed) >= 5).await;
    let report = load.stop().await;
    is_whole(&report);
    let expected = kinds(&[("timed out", dropped.load(Relaxed)), ("wrong", garbled.load(Relaxed))]);
    assert_eq!(report.kinds, expected);
    let (flows, requests) = (flows.lock().unwrap().len() as u64, report.figures.requests);
    assert!(flows > requests / 2 && flows < requests, "{flows} flows for {requests} datagrams");
}

/// A server of hyper's, with TLS where it has a configuration. Returns its port and the number of connections.
async fn hyper_server(tls: Option<ServerConfig>) -> (u16, Arc<AtomicUsize>, AbortOnDrop<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
    let accept = async move {
        let mut tasks = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Relaxed);
            let acceptor = acceptor.clone();
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                let body = format!("{:?} {}", request.version(), request.uri().path());
                Response::builder().header("x-pod", "h").body(Full::new(Bytes::from(body)))
            });
            tasks.spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                match acceptor {
                    Some(acceptor) => {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        drop(server.serve_connection(TokioIo::new(stream), service).await);
                    }
                    None => drop(server.serve_connection(TokioIo::new(stream), service).await),
                }
            });
        }
    };
    (port, connections, AbortOnDrop(tokio::spawn(accept)))
}

/// Returns a certificate for a name, as a server's configuration, as a client's authority, and in DER.
fn certificate(name: &str) -> (ServerConfig, Arc<RootCertStore>, Bytes) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let der = certificate.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = builder.with_no_client_auth().with_single_cert(vec![der.clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (config, Arc::new(roots), Bytes::copy_from_slice(&der))
}

#[tokio::test]
async fn http2_and_tls_are_spoken_and_the_judge_sees_the_certificate() {
    let (config, roots, der) = certificate("a.example.com");
    for http2 in [false, true] {
        let (port, connections, _server) = hyper_server(Some(config.clone())).await;
        let der = der.clone();
        let judge: Judge = Arc::new(move |answer| {
            let known = answer.certificate.as_ref() == Some(&der);
            if known { Ok(answer.text().into_owned().into()) } else { Err("another certificate".to_owned()) }
        });
        let tls = Tls { server_name: "a.example.com".to_owned(), roots: Some(roots.clone()) };
        let spec = LoadSpec {
            scheme: Scheme::Https(tls),
            http2,
            path: "/x?y".to_owned(),
            new_connections: 0.1,
            judge,
            ..LoadSpec::new("balancer.test", port, localhost())
        };
        let load = Load::start(spec).unwrap();
        until("there are answers", || load.figures().by_pods >= 100).await;
        let report = load.stop().await;
        is_whole(&report);
        let version = if http2 { "HTTP/2.0 /x" } else { "HTTP/1.1 /x" };
        assert_eq!(report.labels.keys().collect::<Vec<_>>(), [version], "{report:?}");
        let connections = connections.load(Relaxed) as u64;
        assert!(connections < report.figures.requests / 2, "{connections} for {}", report.figures.requests);
    }
}

#[tokio::test]
async fn a_certificate_that_clients_do_not_trust_is_a_wrong_answer() {
    let (config, _, _) = certificate("a.example.com");
    let (_, others, _) = certificate("a.example.com");
    let (port, _, _server) = hyper_server(Some(config)).await;
    let tls = |roots| Tls { server_name: "a.example.com".to_owned(), roots };
    let spec =
        |roots| LoadSpec { scheme: Scheme::Https(tls(roots)), ..LoadSpec::new("balancer.test", port, localhost()) };
    let load = Load::start(spec(Some(others))).unwrap();
    until("there are answers", || load.figures().wrong >= 10).await;
    let report = load.stop().await;
    assert_eq!(report.kinds, kinds(&[("wrong", report.figures.requests)]), "{report:?}");
    assert!(report.failures[0].detail.contains("certificate"), "{:?}", report.failures[0]);

    let load = Load::start(spec(None)).unwrap();
    until("there are answers", || load.figures().by_pods >= 10).await;
    let report = load.stop().await;
    assert_eq!(report.figures.by_pods, report.figures.requests);

    let unnamed = Tls { server_name: "not a name".to_owned(), roots: None };
    let refused = Load::start(LoadSpec { scheme: Scheme::Https(unnamed), ..spec(None) });
    assert_eq!(refused.err().map(|error| error.to_string()).as_deref(), Some("`not a name` is no server name"));
}

#[tokio::test]
async fn http2_connections_are_kept_and_shared() {
    let (port, connections, _server) = hyper_server(None).await;
    let spec = LoadSpec {
        http2: true,
        new_connections: 0.0,
        kept_connections: 3,
        ..LoadSpec::new("balancer.test", port, localhost())
    };
    let load = Load::start(spec).unwrap();
    until("there are answers", || load.figures().by_pods >= 100).await;
    let report = load.stop().await;
    is_whole(&report);
    assert_eq!((report.figures.lost, report.figures.wrong), (0, 0), "{report:?}");
    let connections = connections.load(Relaxed);
    // Where the machine is busy, several requests find too few at the start.
    assert!((3..30).contains(&connections), "{connections}");
}

#[test]
fn a_share_is_chosen_evenly() {
    for (share, of_twelve) in [(0.0, 0), (0.25, 3), (0.5, 6), (1.0, 12)] {
        let mut chosen = Share::of(share);
        assert_eq!((0..12).filter(|_| chosen.next()).count(), of_twelve, "{share}");
    }
}

#[tokio::test]
async fn a_loss_that_is_expected_is_no_loss() {
    let server = Server::start(true, |all, _| if all % 2 == 0 { Act::Reset } else { Act::Close }).await;
    let excuse: Excuse = Arc::new(|lost| (lost.kind == LostKind::Reset).then_some("reset".into()));
    let spec = LoadSpec { new_connections: 1.0, excuse: Some(excuse), ..server.spec() };
    let report = server.load(spec, 50).await;
    assert_eq!(report.kinds, kinds(&[("closed before the answer", server.book.done(Act::Close))]));
    assert_eq!(report.figures.rightly_lost, server.book.done(Act::Reset));
    assert_eq!(report.labels["reset"].count, server.book.done(Act::Reset));
}

#[tokio::test]
async fn a_redirect_to_https_is_followed_where_clients_do() {
    let (config, roots, _) = certificate("a.example.com");
    let (port, _, _server) = hyper_server(Some(config)).await;
    let redirects = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = redirects.local_addr().unwrap().port();
    let _redirecting = AbortOnDrop(tokio::spawn(async move {
        loop {
            let (stream, _) = redirects.accept().await.unwrap();
            tokio::spawn(async move {
                let service = service_fn(|_| async {
                    let answer = Response::builder().status(301).header("location", "https://a.example.com:443/");
                    answer.body(Full::new(Bytes::new()))
                });
                drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
        }
    }));
    let judge: Judge = Arc::new(|answer| Ok(if answer.redirected { "secure".into() } else { "plain".into() }));
    let tls = Tls { server_name: "a.example.com".to_owned(), roots: Some(roots) };
    for (follow, label) in [(None, "plain"), (Some(Follow { tls, port }), "secure")] {
        let spec = LoadSpec { judge: judge.clone(), follow, ..LoadSpec::new("balancer.test", at, localhost()) };
        let load = Load::start(spec).unwrap();
        until("there are answers", || !load.report().labels.is_empty()).await;
        let report = load.stop().await;
        is_whole(&report);
        assert_eq!(report.labels.keys().collect::<Vec<_>>(), [label], "{report:?}");
    }
}
