//! Targets, clients and a node for tests on sockets.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, StatusCode, body::Incoming, client::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    account::*,
    address,
    node::{Node, Options},
    targets::Targets,
};

pub(super) const LOAD_BALANCER: &str = "arn:loadbalancer/app/a/1";

/// The longest that a test waits for anything.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// Waits for something that must happen.
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what} has not happened"))
}

/// A target that runs until it is dropped.
pub(super) struct Backend {
    pub(super) target: Target,
    /// The number of connections that it has accepted.
    pub(super) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backend {
    pub(super) fn accepted(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// A target that does what `serve` does with each connection, whose number counts from 1.
    pub(super) async fn raw<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream, usize) -> F + Send + 'static,
    ) -> Self {
        // The lab's pods have other addresses.
        let listener = TcpListener::bind("127.10.77.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                tasks.spawn(serve(stream, number));
            }
        });
        Self { target: Target { id: "10.0.77.1".to_owned(), port }, connections, task }
    }

    /// A target that answers what it was asked.
    pub(super) async fn echo(name: &'static str) -> Self {
        Self::raw(move |stream, _| async move {
            let _ = http(stream, move |request| echo(name, request)).await;
        })
        .await
    }

    /// A target that answers each request with a function.
    pub(super) async fn http<F: Future<Output = Response<Full<Bytes>>> + Send + 'static>(
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    ) -> Self {
        Self::raw(move |stream, _| {
            let answer = answer.clone();
            async move { http(stream, answer).await }
        })
        .await
    }
}

/// Serves HTTP/1.1 or HTTP/2.
pub(super) async fn http<F: Future<Output = Response<Full<Bytes>>> + Send + 'static>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) {
    let service = service_fn(move |request| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(answer(request).await) }
    });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// Says what it was asked: version, method, URI, headers in order of their names, body.
pub(super) async fn echo(name: &'static str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let mut lines: Vec<String> = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    lines.sort();
    lines.insert(0, format!("{:?} {} {}", head.version, head.method, head.uri));
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    lines.push(String::from_utf8_lossy(&body).into_owned());
    Response::builder().header("x-target", name).body(Full::from(lines.join("\n"))).unwrap()
}

pub(super) fn attributes(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn group(version: &str, backends: &[&Backend]) -> TargetGroup {
    TargetGroup {
        name: "group".to_owned(),
        protocol: Protocol::Http,
        protocol_version: Some(version.to_owned()),
        target_type: TargetType::Ip,
        health_check: HealthCheck {
            protocol: Protocol::Http,
            port: None,
            path: None,
            matcher: None,
            interval_seconds: 30,
            timeout_seconds: 5,
            healthy_threshold: 5,
            unhealthy_threshold: 2,
        },
        attributes: attributes(&[]),
        targets: backends.iter().map(|backend| backend.target.clone()).collect(),
    }
}

pub(super) fn forward(groups: &[(&str, u32)]) -> Action {
    let group = |(arn, weight): &(&str, u32)| WeightedTargetGroup { arn: (*arn).to_owned(), weight: *weight };
    Action::Forward { target_groups: groups.iter().map(group).collect(), stickiness_seconds: None }
}

pub(super) fn fixed(status: u16, body: &str) -> Action {
    Action::FixedResponse { status, content_type: Some("text/plain".to_owned()), body: body.to_owned() }
}

pub(super) fn rule(priority: u32, condition: Condition, action: Action) -> Rule {
    Rule { arn: priority.to_string(), priority, conditions: vec![condition], actions: vec![action], transforms: vec![] }
}

pub(super) fn path(value: &str) -> Condition {
    Condition::PathPattern { values: vec![value.to_owned()], regex_values: vec![] }
}

/// An account with a load balancer, a listener on a port, and a target group `group`.
pub(super) fn account(protocol: Protocol, port: u16, group: TargetGroup) -> Account {
    let listener = Listener {
        arn: "arn:listener".to_owned(),
        protocol,
        certificates: vec![],
        alpn: None,
        client_certificates: None,
        attributes: attributes(&[]),
        default_actions: vec![forward(&[("group", 1)])],
        rules: vec![],
    };
    let balancer = LoadBalancer {
        name: "a".to_owned(),
        dns_name: "a.elb.test".to_owned(),
        kind: Kind::Application,
        active: true,
        public: true,
        subnets: ["subnet-a".to_owned()].into(),
        security_groups: Default::default(),
        attributes: attributes(&[]),
        listeners: [(port, listener)].into(),
    };
    Account {
        load_balancers: [(LOAD_BALANCER.to_owned(), balancer)].into(),
        target_groups: [("group".to_owned(), group)].into(),
        ..Account::default()
    }
}

pub(super) fn balancer(account: &mut Account) -> &mut LoadBalancer {
    account.load_balancers.get_mut(LOAD_BALANCER).unwrap()
}

pub(super) fn listener(account: &mut Account) -> &mut Listener {
    balancer(account).listeners.values_mut().next().unwrap()
}

/// A node with one listener, which is served until it is dropped.
pub(super) struct World {
    pub(super) address: SocketAddr,
    pub(super) view: watch::Sender<Arc<Account>>,
    pub(super) targets: Arc<Targets>,
    pub(super) serving: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl World {
    pub(super) async fn start(account: Account) -> Self {
        Self::with(account, 1.0, 0).await
    }

    pub(super) async fn with(account: Account, time_scale: f64, port_offset: u16) -> Self {
        let port = *account.load_balancers[LOAD_BALANCER].listeners.keys().next().unwrap();
        let (view, receiver) = watch::channel(Arc::new(account));
        let socket = TcpListener::bind((Ipv4Addr::new(127, 20, 77, 1), 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let options = Options { seed: 7, delay_millis: (0, 0), security_groups: false, port_offset, time_scale };
        // The targets of tests are at their ports.
        let targets = Targets::new(Options { port_offset: 0, ..options }, "a".to_owned());
        let node = Node {
            load_balancer: LOAD_BALANCER.to_owned(),
            subnet: "subnet-a".to_owned(),
            zone: "a".to_owned(),
            address: Ipv4Addr::new(127, 20, 77, 1),
            view: receiver,
            targets: targets.clone(),
            options,
        };
        let serving = tokio::spawn(crate::alb::serve(socket, Arc::new(node), port));
        Self { address, view, targets, serving }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Account)) {
        self.view.send_modify(|account| change(Arc::make_mut(account)));
    }

    /// Lets the node look at its targets, and waits until it takes all of them.
    pub(super) async fn settled(self) -> Self {
        self.targets.update(&self.view.borrow().clone(), LOAD_BALANCER);
        let healthy = || {
            let groups = self.targets.health();
            groups.values().all(|targets| targets.values().all(|health| health.state == "healthy"))
        };
        soon("health", async {
            while !healthy() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        self
    }

    /// Dials as the client 198.18.0.7.
    pub(super) async fn dial(&self) -> TcpStream {
        self.try_dial().await.unwrap()
    }

    pub(super) async fn try_dial(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.40.0.7:0".parse().unwrap()).unwrap();
        assert_eq!(address::as_seen("127.40.0.7".parse().unwrap()).to_string(), "198.18.0.7");
        socket.connect(self.address).await
    }

    /// Sends a request on a connection of its own.
    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(request(path)).await
    }

    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        Client::new(self.dial().await).await.send(request).await
    }
}

/// A request for `a.test`.
pub(super) fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "a.test").body(Full::default()).unwrap()
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) async fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = soon("the body", body.collect()).await.unwrap().to_bytes();
        Self { status: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The status, and whether the load balancer gave it.
    pub(super) fn own(&self) -> (u16, bool) {
        (self.status.as_u16(), self.header("server") == Some("awselb/2.0"))
    }

    /// The cookies that it sets, as a client sends them back.
    pub(super) fn cookies(&self) -> String {
        let set = self.headers.get_all("set-cookie").iter();
        let pairs: Vec<&str> = set.map(|value| value.to_str().unwrap().split(';').next().unwrap()).collect();
        pairs.join("; ")
    }
}

/// A client's connection of HTTP/1.1.
pub(super) struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Ends with the connection.
    pub(super) driver: JoinHandle<hyper::Result<()>>,
}

impl Client {
    pub(super) async fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender, driver: tokio::spawn(driver) }
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        Answer::of(self.begin(request).await).await
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn begin(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        soon("readiness", self.sender.ready()).await.unwrap();
        soon("an answer", self.sender.send_request(request)).await.unwrap()
    }
}

/// Reads until the text ends with `end`.
pub(super) async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let byte = soon(&format!("{end:?} after {text:?}"), stream.read_u8()).await.unwrap();
        text.push(char::from(byte));
    }
    text
}

/// Sends bytes on a new connection and reads all that comes until its end.
pub(super) async fn exchange(world: &World, bytes: &[u8]) -> String {
    let mut stream = world.dial().await;
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    soon("the end", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
