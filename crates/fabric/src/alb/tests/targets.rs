use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, header::COOKIE};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::Notify,
};

use super::support::*;
use crate::account::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn with_cookies(path: &str, cookies: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "a.test").header(COOKIE, cookies).body(Full::default()).unwrap()
}

#[tokio::test]
async fn a_request_reaches_a_target_and_its_answer_the_client() {
    let backend = Backend::echo("one").await;
    let world = World::start(account(Protocol::Http, 8080, group("HTTP1", &[&backend]))).await;
    let request = Request::post("/a%20b/c?d=e&f")
        .header("host", "a.test")
        .header("x-amzn-trace-id", "Root=1-0-0")
        .header("x-forwarded-for", "192.0.2.1")
        .header("connection", "keep-alive, x-own")
        .header("x-own", "1")
        .header("x_other", "2")
        .body(Full::from("body"))
        .unwrap();
    let answer = world.send(request).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-target"), answer.header("server")), (200, Some("one"), None));
    let trace = answer.body.lines().find(|line| line.starts_with("x-amzn-trace-id: Self=1-")).unwrap();
    assert!(trace.ends_with(";Root=1-0-0"), "{trace}");
    let lines: Vec<&str> = answer.body.lines().filter(|line| *line != trace).collect();
    assert_eq!(
        lines,
        [
            "HTTP/1.1 POST /a%20b/c?d=e&f",
            "content-length: 4",
            "host: a.test:8080",
            "x-forwarded-for: 192.0.2.1, 198.18.0.7",
            "x-forwarded-port: 8080",
            "x-forwarded-proto: http",
            "x_other: 2",
            "body",
        ]
    );
}

#[tokio::test]
async fn transforms_and_attributes_change_what_a_target_gets() {
    let backend = Backend::echo("one").await;
    let mut account = account(Protocol::Http, 80, group("HTTP1", &[&backend]));
    let mut rewriting = rule(1, path("/old/*"), forward(&[("group", 1)]));
    rewriting.transforms = vec![
        Transform::UrlRewrite { regex: "^/old/(.*)".to_owned(), replace: "/new/$1".to_owned() },
        Transform::HostHeaderRewrite { regex: "^(.*)\\.test$".to_owned(), replace: "$1.internal".to_owned() },
    ];
    listener(&mut account).rules = vec![rewriting];
    let world = World::start(account).await;
    let got = |answer: Answer| -> Vec<String> {
        let kept = |line: &&str| line.starts_with("HTTP") || line.starts_with("host") || line.starts_with("x_");
        answer.body.lines().filter(kept).map(str::to_owned).collect()
    };
    assert_eq!(got(world.get("/old/x?y=z").await), ["HTTP/1.1 GET /new/x?y=z", "host: a.internal"]);
    world.change(|account| {
        balancer(account).attributes = attributes(&[
            ("routing.http.preserve_host_header.enabled", "true"),
            ("routing.http.drop_invalid_header_fields.enabled", "true"),
        ]);
    });
    let request = Request::get("/").header("host", "a.test:80").header("x_y", "1").body(Full::default()).unwrap();
    assert_eq!(got(world.send(request).await), ["HTTP/1.1 GET /", "host: a.test:80"]);
}

#[tokio::test]
async fn weights_are_kept_and_clients_stay_with_their_group() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let mut account = account(Protocol::Http, 80, group("HTTP1", &[&one]));
    account.target_groups.insert("second".to_owned(), group("HTTP1", &[&two]));
    let action = |weights: [u32; 2], stickiness_seconds| match forward(&[("group", weights[0]), ("second", weights[1])])
    {
        Action::Forward { target_groups, .. } => vec![Action::Forward { target_groups, stickiness_seconds }],
        other => vec![other],
    };
    listener(&mut account).default_actions = action([3, 1], None);
    let world = World::start(account).await;
    let mut client = Client::new(world.dial().await).await;
    let mut counts = BTreeMap::new();
    for _ in 0..200 {
        let answer = client.send(request("/")).await;
        assert_eq!(answer.cookies(), "");
        *counts.entry(answer.header("x-target").unwrap().to_owned()).or_insert(0) += 1;
    }
    assert!((120..=180).contains(&counts["one"]), "{counts:?}");

    world.change(|account| listener(account).default_actions = action([0, 1], Some(60)));
    let answer = client.send(request("/")).await;
    let cookies = answer.cookies();
    assert!(cookies.starts_with("AWSALBTG=") && cookies.contains("; AWSALBTGCORS="), "{cookies}");
    world.change(|account| listener(account).default_actions = action([1, 0], Some(60)));
    assert_eq!(client.send(request("/")).await.header("x-target"), Some("one"));
    assert_eq!(client.send(with_cookies("/", &cookies)).await.header("x-target"), Some("two"));
}

#[tokio::test]
async fn clients_stay_with_their_target() {
    let backends = [Backend::echo("one").await, Backend::echo("two").await, Backend::echo("three").await];
    let all: Vec<&Backend> = backends.iter().collect();
    let mut sticky = group("HTTP1", &all);
    sticky.attributes = attributes(&[
        ("stickiness.enabled", "true"),
        ("stickiness.type", "lb_cookie"),
        ("stickiness.lb_cookie.duration_seconds", "3600"),
    ]);
    let world = World::start(account(Protocol::Http, 80, sticky)).await.settled().await;
    let first = world.get("/").await;
    let (name, cookies) = (first.header("x-target").unwrap().to_owned(), first.cookies());
    assert!(cookies.starts_with("AWSALB=") && cookies.contains("; AWSALBCORS="), "{cookies}");
    for _ in 0..6 {
        let answer = world.send(with_cookies("/", &cookies)).await;
        assert_eq!(answer.header("x-target"), Some(name.as_str()));
        assert!(answer.cookies().starts_with("AWSALB="));
    }
    // Without cookies, each gets a turn.
    let mut others = std::collections::BTreeSet::new();
    for _ in 0..6 {
        others.insert(world.get("/").await.header("x-target").unwrap().to_owned());
    }
    assert_eq!(others.len(), 3);
    // A target that is no longer registered is replaced, and so is the cookie.
    let place = ["one", "two", "three"].iter().position(|other| *other == name).unwrap();
    let gone = backends[place].target.clone();
    world.change(|account| {
        account.target_groups.get_mut("group").unwrap().targets.remove(&gone);
    });
    let answer = world.send(with_cookies("/", &cookies)).await;
    let other = answer.header("x-target").unwrap().to_owned();
    assert_ne!(other, name);
    assert_eq!(world.send(with_cookies("/", &answer.cookies())).await.header("x-target"), Some(other.as_str()));
}

#[tokio::test]
async fn clients_stay_with_the_target_of_their_application() {
    let login = |name: &'static str| {
        Backend::http(move |request: Request<hyper::body::Incoming>| async move {
            let mut response = Response::builder().header("x-target", name);
            if request.uri() == "/login" {
                response = response.header("set-cookie", "session=1; Path=/");
            }
            response.body(Full::default()).unwrap()
        })
    };
    let (one, two) = (login("one").await, login("two").await);
    let mut sticky = group("HTTP1", &[&one, &two]);
    sticky.attributes = attributes(&[
        ("stickiness.enabled", "true"),
        ("stickiness.type", "app_cookie"),
        ("stickiness.app_cookie.cookie_name", "session"),
    ]);
    let world = World::start(account(Protocol::Http, 80, sticky)).await.settled().await;
    assert_eq!(world.get("/").await.cookies(), "");
    let first = world.get("/login").await;
    let (name, cookies) = (first.header("x-target").unwrap().to_owned(), first.cookies());
    assert!(cookies.starts_with("session=1; AWSALBAPP-0="), "{cookies}");
    for _ in 0..4 {
        let answer = world.send(with_cookies("/", &cookies)).await;
        assert_eq!(answer.header("x-target"), Some(name.as_str()));
        assert!(answer.cookies().starts_with("AWSALBAPP-0="));
    }
    let only_ours = cookies.strip_prefix("session=1; ").unwrap();
    let mut others = std::collections::BTreeSet::new();
    for _ in 0..4 {
        others.insert(world.send(with_cookies("/", only_ours)).await.header("x-target").unwrap().to_owned());
    }
    assert_eq!(others.len(), 2);
}

#[tokio::test]
async fn targets_that_fail_give_502() {
    let refusing = Backend::raw(|_, _| async {}).await.target.clone();
    let closing = Backend::raw(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    let malformed = Backend::raw(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"hello\r\n\r\n").await;
    })
    .await;
    let unasked = Backend::raw(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ =
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n").await;
    })
    .await;
    let world = World::start(account(Protocol::Http, 80, group("HTTP1", &[]))).await;
    for target in [refusing, closing.target.clone(), malformed.target.clone(), unasked.target.clone()] {
        world.change(|account| account.target_groups.get_mut("group").unwrap().targets = [target].into());
        let answer = world.get("/").await;
        assert_eq!((answer.own(), answer.body.len()), ((502, true), 122));
    }
    // TLS is not what this target speaks.
    let plain = Backend::echo("plain").await;
    world.change(|account| {
        let group = account.target_groups.get_mut("group").unwrap();
        (group.targets, group.protocol) = ([plain.target.clone()].into(), Protocol::Https);
    });
    assert_eq!(world.get("/").await.own(), (502, true));
}

#[tokio::test]
async fn targets_that_are_slow_give_504() {
    let silent =
        Backend::raw(
            |mut stream, _| async move { while stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {} },
        )
        .await;
    let halting = Backend::raw(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        std::future::pending::<()>().await;
    })
    .await;
    // 60 s of idle time are 0.6 s, and so are 10 s to connect 0.1 s.
    let world = World::with(account(Protocol::Http, 80, group("HTTP1", &[&silent])), 0.01, 0).await;
    assert_eq!(world.get("/").await.own(), (504, true));

    // A client that does not go on with its body.
    let answer = exchange(&world, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Time-out\r\n"), "{answer}");

    // An answer that stops in its middle is cut.
    world.change(|account| account.target_groups.get_mut("group").unwrap().targets = [halting.target.clone()].into());
    let answer = exchange(&world, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\nhalf"), "{answer}");

    // A target whose queue is full does not answer to connections.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.10.77.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let to = full.local_addr().unwrap();
    let mut waiting = vec![];
    loop {
        let dial = tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(to));
        match dial.await {
            Ok(stream) => waiting.push(stream.unwrap()),
            Err(_) => break,
        }
    }
    let target = Target { id: "10.0.77.1".to_owned(), port: to.port() };
    world.change(|account| account.target_groups.get_mut("group").unwrap().targets = [target].into());
    assert_eq!(world.get("/").await.own(), (504, true));
}

#[tokio::test]
async fn connections_to_targets_are_kept() {
    let backend = Backend::echo("one").await;
    let world = World::start(account(Protocol::Http, 80, group("HTTP1", &[&backend]))).await;
    for _ in 0..5 {
        assert_eq!(world.get("/").await.status, 200);
    }
    assert_eq!(backend.accepted(), 1);
    let head = Request::head("/").header("host", "a.test").body(Full::default()).unwrap();
    assert_eq!(world.send(head).await.body, "");
    assert_eq!(world.get("/").await.status, 200);
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_the_target_has_closed_is_not_used() {
    let close = Arc::new(Notify::new());
    let until = close.clone();
    let (closed, mut has_closed) = tokio::sync::mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut stream, _| {
        let (until, closed) = (until.clone(), closed.clone());
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(OK).await.unwrap();
            until.notified().await;
            stream.shutdown().await.unwrap();
            // The node closes its side when it has seen the end; in AWS, too, there is a moment before.
            assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
            closed.send(()).unwrap();
        }
    })
    .await;
    let world = World::start(account(Protocol::Http, 80, group("HTTP1", &[&backend]))).await;
    assert_eq!(world.get("/").await.body, "ok");
    close.notify_one();
    soon("the end of the kept connection", has_closed.recv()).await.unwrap();
    assert_eq!(world.get("/").await.body, "ok");
    assert_eq!(backend.accepted(), 2);
}

#[tokio::test]
async fn nothing_is_sent_twice() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let count = count.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            count.fetch_add(1, Ordering::SeqCst);
            stream.write_all(OK).await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let world = World::start(account(Protocol::Http, 80, group("HTTP1", &[&backend]))).await;
    assert_eq!(world.get("/").await.body, "ok");
    assert_eq!(world.get("/").await.own(), (502, true));
    assert_eq!((requests.load(Ordering::SeqCst), backend.accepted()), (2, 1));
}

#[tokio::test]
async fn kept_connections_to_deregistered_targets_are_closed() {
    let (ended, mut has_ended) = tokio::sync::mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut stream, _| {
        let ended = ended.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(OK).await.unwrap();
            let rest = stream.read(&mut [0; 16]).await.unwrap();
            ended.send(rest).unwrap();
        }
    })
    .await;
    let world = World::start(account(Protocol::Http, 80, group("HTTP1", &[&backend]))).await;
    assert_eq!(world.get("/").await.body, "ok");
    world.change(|account| account.target_groups.get_mut("group").unwrap().targets.clear());
    assert_eq!(soon("the end of the kept connection", has_ended.recv()).await, Some(0));
    assert_eq!(world.get("/").await.own(), (503, true));
}

#[tokio::test]
async fn websockets() {
    let backend = Backend::raw(|mut stream, _| async move {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: Upgrade\r\n"), "{head}");
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello ")
            .await
            .unwrap();
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.write_all(b" bye").await;
    })
    .await;
    let world = World::start(account(Protocol::Http, 80, group("HTTP1", &[&backend]))).await;
    let mut stream = world.dial().await;
    let ask = b"GET /chat HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    stream.write_all(b"one").await.unwrap();
    assert_eq!(read_until(&mut stream, "one").await, "hello one");
    // The listener goes; what was upgraded goes on, until its end.
    world.change(|account| balancer(account).listeners.clear());
    stream.write_all(b"two").await.unwrap();
    assert_eq!(read_until(&mut stream, "two").await, "two");
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    soon("the end", stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, " bye");
}

#[tokio::test]
async fn a_target_may_refuse_to_upgrade() {
    let backend = Backend::echo("one").await;
    let world = World::start(account(Protocol::Http, 80, group("HTTP1", &[&backend]))).await;
    let request = Request::get("/")
        .header("host", "a.test")
        .header("upgrade", "websocket")
        .header("connection", "upgrade")
        .body(Full::default())
        .unwrap();
    let mut client = Client::new(world.dial().await).await;
    assert_eq!(client.send(request).await.header("x-target"), Some("one"));
    assert_eq!(client.send(super::support::request("/")).await.header("x-target"), Some("one"));
}

#[tokio::test]
async fn a_deregistered_target_has_its_delay_for_requests_in_flight() {
    let backend = Backend::raw(|mut stream, number| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        if number == 2 {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
        }
        if number == 3 {
            let upgraded = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n";
            stream.write_all(upgraded).await.unwrap();
        }
        while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    let mut draining = group("HTTP1", &[&backend]);
    draining.attributes = attributes(&[("deregistration_delay.timeout_seconds", "1")]);
    let world = World::start(account(Protocol::Http, 80, draining)).await;
    world.targets.update(&world.view.borrow().clone(), LOAD_BALANCER);
    // One that waits for the head, one that waits for the rest, and a tunnel.
    let ask = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut first, mut second, mut third) = (world.dial().await, world.dial().await, world.dial().await);
    let accepted = async |count: usize| {
        while backend.accepted() < count {
            tokio::task::yield_now().await;
        }
    };
    first.write_all(ask).await.unwrap();
    soon("the first", accepted(1)).await;
    second.write_all(ask).await.unwrap();
    read_until(&mut second, "half").await;
    third.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n").await.unwrap();
    read_until(&mut third, "\r\n\r\n").await;
    world.change(|account| account.target_groups.get_mut("group").unwrap().targets.clear());
    world.targets.update(&world.view.borrow().clone(), LOAD_BALANCER);
    assert_eq!(world.get("/").await.own(), (503, true));
    let head = read_until(&mut first, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{head}");
    for stream in [&mut second, &mut third] {
        let mut rest = vec![];
        let _ = soon("the end", stream.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"");
    }
}
