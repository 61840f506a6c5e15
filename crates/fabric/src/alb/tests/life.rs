use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};

use super::{support::*, tls::certificate};
use crate::account::*;

/// A target that answers when it is told to, and says when it is asked.
struct Gate {
    backend: Backend,
    asked: Arc<Notify>,
    open: Arc<Notify>,
}

async fn gate() -> Gate {
    let (asked, open) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (ask, until) = (asked.clone(), open.clone());
    let backend = Backend::http(move |_| {
        let (ask, until) = (ask.clone(), until.clone());
        async move {
            ask.notify_one();
            until.notified().await;
            Response::new(Full::from("late"))
        }
    })
    .await;
    Gate { backend, asked, open }
}

/// Waits until connections are refused.
async fn refused(world: &World) {
    soon("the end of the socket", async {
        while world.try_dial().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn requests_in_flight_outlive_their_listener() {
    let Gate { backend, asked, open } = gate().await;
    let mut account = account(Protocol::Http, 80, group("HTTP1", &[&backend]));
    listener(&mut account).rules = vec![rule(1, path("/fixed"), fixed(200, "ok"))];
    let mut world = World::start(account).await;
    let mut idle = world.dial().await;
    let (mut used, mut busy) = (Client::new(world.dial().await).await, Client::new(world.dial().await).await);
    assert_eq!(used.send(request("/fixed")).await.body, "ok");
    let flight = tokio::spawn(async move { busy.send(request("/")).await });
    soon("the request", asked.notified()).await;
    world.change(|account| balancer(account).listeners.clear());
    refused(&world).await;
    // Connections without a request are closed.
    assert_eq!(soon("the end", idle.read(&mut [0; 16])).await.unwrap(), 0);
    soon("the end", used.driver).await.unwrap().unwrap();
    assert!(!flight.is_finished() && !world.serving.is_finished());
    open.notify_one();
    let answer = soon("the answer", flight).await.unwrap();
    assert_eq!((answer.body.as_str(), answer.header("connection")), ("late", Some("close")));
    soon("the end of the node", &mut world.serving).await.unwrap();
}

#[tokio::test]
async fn requests_of_http2_in_flight_outlive_their_listener() {
    let Gate { backend, asked, open } = gate().await;
    let mut account = account(Protocol::Https, 443, group("HTTP1", &[&backend]));
    account.certificates.insert("certificate".to_owned(), certificate("a.test"));
    listener(&mut account).certificates = vec!["certificate".to_owned()];
    let mut world = World::start(account).await;
    let stream = super::tls::connect(&world, &[b"h2"], "a.test").await.unwrap();
    let (mut sender, driver) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(driver);
    let request = Request::get("https://a.test/").body(Full::default()).unwrap();
    let flight = tokio::spawn(sender.send_request(request));
    soon("the request", asked.notified()).await;
    // Inactive is like gone.
    world.change(|account| balancer(account).active = false);
    refused(&world).await;
    assert!(!driver.is_finished());
    open.notify_one();
    let answer = Answer::of(soon("the answer", flight).await.unwrap().unwrap()).await;
    assert_eq!(answer.body, "late");
    soon("the end of the connection", driver).await.unwrap().unwrap();
    soon("the end of the node", &mut world.serving).await.unwrap();
}

#[tokio::test]
async fn without_a_listener_nothing_is_served() {
    let mut account = account(Protocol::Http, 80, group("HTTP1", &[]));
    balancer(&mut account).active = false;
    let mut world = World::start(account).await;
    soon("the end", &mut world.serving).await.unwrap();
}

#[tokio::test]
async fn all_ends_with_the_task() {
    let (ended, mut has_ended) = tokio::sync::mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut stream, number| {
        let ended = ended.clone();
        async move {
            let mut head = String::new();
            while let Ok(byte) = stream.read_u8().await {
                head.push(char::from(byte));
                if !head.ends_with("\r\n\r\n") {
                    continue;
                }
                let answer: &[u8] = if std::mem::take(&mut head).contains("upgrade: x\r\n") {
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
                } else {
                    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
                };
                stream.write_all(answer).await.unwrap();
            }
            ended.send(number).unwrap();
        }
    })
    .await;
    let world = World::start(account(Protocol::Http, 80, group("HTTP1", &[&backend]))).await;
    // One connection to the target that is a tunnel, and one that is kept.
    let mut tunnel = world.dial().await;
    tunnel.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n").await.unwrap();
    let head = read_until(&mut tunnel, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut client = Client::new(world.dial().await).await;
    assert_eq!(client.send(request("/")).await.status, 200);
    assert_eq!(backend.accepted(), 2);
    world.serving.abort();
    let mut numbers = vec![];
    for _ in 0..2 {
        numbers.push(soon("the end of a connection", has_ended.recv()).await);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [Some(1), Some(2)]);
    let _ = soon("the end of the client's connection", client.driver).await;
    assert_eq!(soon("the end of the tunnel", tunnel.read(&mut [0; 16])).await.unwrap_or_default(), 0);
}

#[tokio::test]
async fn clients_are_closed_after_their_time() {
    let mut account = account(Protocol::Http, 80, group("HTTP1", &[]));
    listener(&mut account).default_actions = vec![fixed(200, "ok")];
    balancer(&mut account).attributes =
        attributes(&[("client_keep_alive.seconds", "60"), ("idle_timeout.timeout_seconds", "4000000")]);
    let world = World::start(account.clone()).await;
    let mut client = Client::new(world.dial().await).await;
    assert_eq!(client.send(request("/")).await.header("connection"), None);
    // The same 60 s are over soon: then one more request is answered.
    let world = World::with(account, 0.0001, 0).await;
    let mut client = Client::new(world.dial().await).await;
    let closed = async { while client.send(request("/")).await.header("connection") != Some("close") {} };
    soon("the last answer", closed).await;
    soon("the end", client.driver).await.unwrap().unwrap();
}

#[tokio::test]
async fn idle_clients_are_closed() {
    let mut account = account(Protocol::Http, 80, group("HTTP1", &[]));
    listener(&mut account).default_actions = vec![fixed(200, "ok")];
    let world = World::with(account, 0.005, 0).await;
    let mut client = Client::new(world.dial().await).await;
    assert_eq!(client.send(request("/")).await.body, "ok");
    soon("the end", client.driver).await.unwrap().unwrap();
}
