use std::{
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::account::{Action, HealthCheck, Instance, Listener, Rule, Subnet, WeightedTargetGroup};

const ARN: &str = "arn:lb";
const GROUP: &str = "arn:tg";
const NAME: &str = "lb-1.eu-west-1.elb.amazonaws.com";
const LIMIT: Duration = Duration::from_secs(20);

fn options() -> Options {
    Options { seed: 1, delay_millis: (0, 5), security_groups: true, port_offset: 0, time_scale: 1.0 }
}

/// Ports below those that the kernel gives to clients.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 64).unwrap();
    16_000 + process * 200 + NEXT.fetch_add(1, Ordering::Relaxed)
}

fn forward(groups: &[&str]) -> Action {
    let weighted = |arn: &&str| WeightedTargetGroup { arn: (*arn).to_owned(), weight: 1 };
    Action::Forward { target_groups: groups.iter().map(weighted).collect(), stickiness_seconds: None }
}

fn listener(protocol: Protocol, groups: &[&str]) -> Listener {
    Listener {
        arn: "arn:listener".to_owned(),
        protocol,
        certificates: vec![],
        alpn: None,
        client_certificates: None,
        attributes: BTreeMap::new(),
        default_actions: vec![forward(groups)],
        rules: vec![],
    }
}

fn balancer(kind: Kind, subnets: &[&str], listeners: &[(u16, Protocol)]) -> LoadBalancer {
    LoadBalancer {
        name: "lb".to_owned(),
        dns_name: NAME.to_owned(),
        kind,
        active: true,
        public: true,
        subnets: subnets.iter().map(ToString::to_string).collect(),
        security_groups: BTreeSet::new(),
        attributes: BTreeMap::from([("load_balancing.cross_zone.enabled".to_owned(), "true".to_owned())]),
        listeners: listeners.iter().map(|(port, protocol)| (*port, listener(*protocol, &[GROUP]))).collect(),
    }
}

fn group(targets: &[(&str, u16)]) -> TargetGroup {
    TargetGroup {
        name: "tg".to_owned(),
        protocol: Protocol::Tcp,
        protocol_version: None,
        target_type: TargetType::Ip,
        health_check: HealthCheck {
            protocol: Protocol::Tcp,
            port: None,
            path: None,
            matcher: None,
            interval_seconds: 10,
            timeout_seconds: 5,
            healthy_threshold: 2,
            unhealthy_threshold: 2,
        },
        attributes: BTreeMap::new(),
        targets: targets.iter().map(|(id, port)| Target { id: (*id).to_owned(), port: *port }).collect(),
    }
}

fn account(balancer: Option<LoadBalancer>, group: TargetGroup) -> Account {
    let subnet = |(name, cidr): (&str, &str)| {
        (format!("subnet-{name}"), Subnet { cidr: cidr.parse().unwrap(), zone: name.to_owned() })
    };
    Account {
        load_balancers: balancer.map(|balancer| (ARN.to_owned(), balancer)).into_iter().collect(),
        target_groups: BTreeMap::from([(GROUP.to_owned(), group)]),
        subnets: [("a", "10.0.0.0/24"), ("b", "10.0.1.0/24")].into_iter().map(subnet).collect(),
        instances: BTreeMap::from([(
            "i-1".to_owned(),
            Instance { address: "10.0.1.4".parse().unwrap(), zone: "b".to_owned(), running: true },
        )]),
        ..Account::default()
    }
}

fn change(sender: &watch::Sender<Arc<Account>>, change: impl FnOnce(&mut Account)) {
    sender.send_modify(|account| {
        let account = Arc::make_mut(account);
        account.version += 1;
        change(account);
    });
}

fn changed_balancer(sender: &watch::Sender<Arc<Account>>, with: impl FnOnce(&mut LoadBalancer)) {
    change(sender, |account| with(account.load_balancers.get_mut(ARN).unwrap()));
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition().await {
        assert!(Instant::now() < end, "waited in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A pod that echoes in capitals, and datagrams as they are.
async fn pod() -> (Target, JoinSet<()>) {
    let port = free_port();
    let listener = TcpListener::bind((address::of_vpc("10.0.0.7".parse().unwrap()).unwrap(), port)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                while let Ok(byte) = stream.read_u8().await {
                    stream.write_u8(byte.to_ascii_uppercase()).await.unwrap();
                }
            });
        }
    });
    let socket = UdpSocket::bind((address::of_vpc("10.0.0.7".parse().unwrap()).unwrap(), port)).await.unwrap();
    tasks.spawn(async move {
        let mut buffer = [0; 8];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    (Target { id: "10.0.0.7".to_owned(), port }, tasks)
}

async fn ask(stream: &mut TcpStream) -> Option<u8> {
    timeout(LIMIT, async {
        stream.write_u8(b'x').await.ok()?;
        stream.read_u8().await.ok()
    })
    .await
    .unwrap()
}

async fn answers(address: Ipv4Addr, port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((address, port)).await else { return false };
    ask(&mut stream).await == Some(b'X')
}

/// Returns true if an Application Load Balancer answers, whatever it is.
async fn answers_http(address: Ipv4Addr, port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((address, port)).await else { return false };
    let mut head = [0; 8];
    let asked = timeout(LIMIT, async {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await?;
        stream.read_exact(&mut head).await
    });
    asked.await.unwrap().is_ok() && head == *b"HTTP/1.1"
}

async fn refuses(address: Ipv4Addr, port: u16) -> bool {
    let connected = TcpStream::connect((address, port)).await;
    connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[tokio::test]
async fn each_subnet_has_a_node_that_serves_each_listener_until_it_goes() {
    let ((target, _pod), [first, second]) = (pod().await, [free_port(), free_port()]);
    let group = group(&[(&target.id, target.port)]);
    let network = balancer(Kind::Network, &["subnet-a", "subnet-b"], &[(first, Protocol::Tcp)]);
    let (sender, receiver) = watch::channel(Arc::new(account(Some(network), group)));
    let fabric = Fabric::start(options(), receiver).unwrap();
    eventually("two nodes in DNS", async || fabric.addresses(NAME).len() == 2).await;
    let nodes = fabric.addresses("LB-1.eu-west-1.ELB.amazonaws.com.");
    assert_eq!(nodes, fabric.nodes().iter().map(|node| node.address).collect::<Vec<_>>());
    for node in &nodes {
        assert!(answers(*node, first).await && refuses(*node, second).await);
    }
    changed_balancer(&sender, |balancer| {
        balancer.listeners.insert(second, listener(Protocol::Tcp, &[GROUP]));
    });
    for node in &nodes {
        eventually("the second listener", async || answers(*node, second).await).await;
    }
    // What is open stays, a new connection is refused.
    let mut open = TcpStream::connect((nodes[0], first)).await.unwrap();
    assert_eq!(ask(&mut open).await, Some(b'X'));
    changed_balancer(&sender, |balancer| {
        balancer.listeners.remove(&first);
    });
    for node in &nodes {
        eventually("the first listener closes", async || refuses(*node, first).await).await;
    }
    assert_eq!(ask(&mut open).await, Some(b'X'));
    assert!(answers(nodes[0], second).await);
    // It comes again while a connection of its former life is open.
    changed_balancer(&sender, |balancer| {
        balancer.listeners.insert(first, listener(Protocol::Tcp, &[GROUP]));
    });
    eventually("the first listener again", async || answers(nodes[0], first).await).await;
    assert_eq!(ask(&mut open).await, Some(b'X'));
    change(&sender, |account| account.load_balancers.clear());
    eventually("no nodes", async || fabric.nodes().is_empty()).await;
    assert_eq!((fabric.addresses(NAME), ask(&mut open).await), (vec![], None));
    for node in nodes {
        assert!(refuses(node, first).await && refuses(node, second).await);
    }
}

#[tokio::test]
async fn all_ends_when_the_fabric_is_dropped() {
    let ((target, _pod), port) = (pod().await, free_port());
    let network = balancer(Kind::Network, &["subnet-a"], &[(port, Protocol::Tcp)]);
    let (sender, receiver) = watch::channel(Arc::new(account(Some(network), group(&[(&target.id, target.port)]))));
    let fabric = Fabric::start(options(), receiver).unwrap();
    eventually("a node", async || !fabric.addresses(NAME).is_empty()).await;
    let (node, dns) = (fabric.addresses(NAME)[0], fabric.dns());
    let mut open = TcpStream::connect((node, port)).await.unwrap();
    assert_eq!(ask(&mut open).await, Some(b'X'));
    drop(fabric);
    assert_eq!(ask(&mut open).await, None);
    eventually("the port is closed", async || refuses(node, port).await).await;
    eventually("DNS has ended", async || UdpSocket::bind(dns).await.is_ok()).await;
    timeout(LIMIT, sender.closed()).await.unwrap();
}

#[tokio::test]
async fn only_an_active_load_balancer_answers_and_is_named() {
    let ((target, _pod), port) = (pod().await, free_port());
    let mut network = balancer(Kind::Network, &["subnet-a"], &[(port, Protocol::Tcp)]);
    network.active = false;
    let (sender, receiver) = watch::channel(Arc::new(account(Some(network), group(&[(&target.id, target.port)]))));
    let fabric = Fabric::start(Options { delay_millis: (1, 1), ..options() }, receiver).unwrap();
    eventually("a node", async || !fabric.nodes().is_empty()).await;
    let node = fabric.nodes()[0].address;
    sleep(Duration::from_millis(100)).await;
    assert!(refuses(node, port).await && fabric.addresses(NAME).is_empty());
    changed_balancer(&sender, |balancer| balancer.active = true);
    eventually("it is named", async || fabric.addresses(NAME) == [node]).await;
    assert!(answers(node, port).await);
}

#[tokio::test]
async fn a_port_that_is_taken_is_bound_as_soon_as_it_is_free() {
    let ((target, _pod), port) = (pod().await, free_port());
    let mut others = Vec::new();
    for number in 1..=4 {
        others.push(TcpListener::bind((address::of_node(number), port)).await.unwrap());
    }
    let network = balancer(Kind::Network, &["subnet-a"], &[(port, Protocol::Tcp)]);
    let (_sender, receiver) = watch::channel(Arc::new(account(Some(network), group(&[(&target.id, target.port)]))));
    let fabric = Fabric::start(options(), receiver).unwrap();
    eventually("a node", async || !fabric.addresses(NAME).is_empty()).await;
    let node = fabric.addresses(NAME)[0];
    assert_eq!(node, address::of_node(1));
    drop(others);
    eventually("the port is bound", async || answers(node, port).await).await;
}

#[tokio::test]
async fn a_listener_changes_from_tcp_to_both_to_udp() {
    let ((target, _pod), port) = (pod().await, free_port());
    let network = balancer(Kind::Network, &["subnet-a"], &[(port, Protocol::Tcp)]);
    let (sender, receiver) = watch::channel(Arc::new(account(Some(network), group(&[(&target.id, target.port)]))));
    let fabric = Fabric::start(options(), receiver).unwrap();
    eventually("a node", async || !fabric.addresses(NAME).is_empty()).await;
    let node = fabric.addresses(NAME)[0];
    let mut open = TcpStream::connect((node, port)).await.unwrap();
    let echoes = async || {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect((node, port)).await.unwrap();
        let sent = client.send(b"x").await.is_ok();
        sent && matches!(timeout(Duration::from_millis(200), client.recv(&mut [0; 8])).await, Ok(Ok(1)))
    };
    assert!(!echoes().await && answers(node, port).await);
    changed_balancer(&sender, |balancer| {
        balancer.listeners.insert(port, listener(Protocol::TcpUdp, &[GROUP]));
    });
    eventually("UDP", echoes).await;
    // The TCP part has not been touched.
    assert_eq!(ask(&mut open).await, Some(b'X'));
    assert!(answers(node, port).await);
    assert_eq!(services(&balancer(Kind::Network, &[], &[(1, Protocol::Udp)])), [(1, Service::NlbUdp)].into());
}

#[tokio::test]
async fn a_subnet_that_is_removed_leaves_dns_and_its_node_ends_as_its_kind_does() {
    for kind in [Kind::Network, Kind::Application] {
        let ((target, _pod), port) = (pod().await, free_port());
        let protocol = if kind == Kind::Network { Protocol::Tcp } else { Protocol::Http };
        let answers = async |address, port| match kind {
            Kind::Network => answers(address, port).await,
            Kind::Application => answers_http(address, port).await,
        };
        let balancer = balancer(kind, &["subnet-a", "subnet-b"], &[(port, protocol)]);
        let group = group(&[(&target.id, target.port)]);
        let (sender, receiver) = watch::channel(Arc::new(account(Some(balancer), group)));
        let fabric = Fabric::start(options(), receiver).unwrap();
        eventually("two nodes", async || fabric.addresses(NAME).len() == 2).await;
        let nodes = fabric.addresses(NAME);
        changed_balancer(&sender, |balancer| {
            balancer.subnets.remove("subnet-a");
        });
        eventually("one node is named", async || fabric.addresses(NAME) == [nodes[1]]).await;
        match kind {
            Kind::Network => eventually("its node ends", async || refuses(nodes[0], port).await).await,
            // Who has the address still may use it.
            Kind::Application => assert!(answers(nodes[0], port).await),
        }
        changed_balancer(&sender, |balancer| {
            balancer.subnets.insert("subnet-a".to_owned());
        });
        eventually("two nodes again", async || fabric.addresses(NAME).len() == 2).await;
        let again = fabric.addresses(NAME);
        // A new node has a new address.
        assert_eq!((again[0] == nodes[0], again[1]), (kind == Kind::Application, nodes[1]));
        assert!(answers(again[0], port).await && answers(again[1], port).await);
    }
}

#[tokio::test]
async fn a_removed_node_of_an_application_load_balancer_ends_when_dns_is_forgotten() {
    let ((target, _pod), port) = (pod().await, free_port());
    let balancer = balancer(Kind::Application, &["subnet-a", "subnet-b"], &[(port, Protocol::Http)]);
    let (sender, receiver) = watch::channel(Arc::new(account(Some(balancer), group(&[(&target.id, target.port)]))));
    let fabric = Fabric::start(Options { time_scale: 0.001, ..options() }, receiver).unwrap();
    eventually("two nodes", async || fabric.addresses(NAME).len() == 2).await;
    changed_balancer(&sender, |balancer| {
        balancer.subnets.remove("subnet-a");
    });
    eventually("one node", async || fabric.nodes().len() == 1).await;
    assert_eq!(fabric.nodes()[0].subnet, "subnet-b");
}

#[test]
fn the_time_to_live_follows_the_scale_and_is_never_zero() {
    let of = |time_scale| scaled_ttl(Options { time_scale, ..options() });
    assert_eq!([1.0, 0.5, 0.1, 0.001, 0.0, f64::NAN, 9.0].map(of), [60, 30, 6, 1, 1, 1, 60]);
}

fn healthy() -> Health {
    Health { state: "healthy".to_owned(), reason: None, description: None }
}

fn of_state(state: &str) -> Health {
    Health { state: state.to_owned(), reason: None, description: None }
}

type Said<'a> = &'a [(&'a str, &'a str)];
/// The registered targets, whether the group is used, what each node says, and the states that come of it.
type Case<'a> = (&'a [(&'a str, u16)], bool, &'a [Said<'a>], &'a [&'a str]);

fn said(targets: Said<'_>) -> BTreeMap<String, BTreeMap<Target, Health>> {
    let target = |(id, state): &(&str, &str)| (Target { id: (*id).to_owned(), port: 80 }, of_state(state));
    BTreeMap::from([(GROUP.to_owned(), targets.iter().map(target).collect())])
}

#[test]
fn the_health_of_a_target_is_the_worst_that_a_node_says_and_the_account_says_who_is_registered() {
    let registered = ("10.0.0.7", 80);
    let cases: [Case<'_>; 17] = [
        (&[registered], true, &[&[("10.0.0.7", "healthy")], &[("10.0.0.7", "healthy")]], &["healthy"]),
        (&[registered], true, &[&[("10.0.0.7", "healthy")], &[("10.0.0.7", "initial")]], &["initial"]),
        (&[registered], true, &[&[("10.0.0.7", "unhealthy")], &[("10.0.0.7", "initial")]], &["unhealthy"]),
        (&[registered], true, &[&[("10.0.0.7", "healthy")], &[("10.0.0.7", "unhealthy")]], &["unhealthy"]),
        // A node that does not know it yet, or does not use it, has no say.
        (&[registered], true, &[&[("10.0.0.7", "healthy")], &[]], &["healthy"]),
        (&[registered], true, &[&[("10.0.0.7", "healthy")], &[("10.0.0.7", "unused")]], &["healthy"]),
        (&[registered], true, &[&[("10.0.0.7", "unused")]], &["unused"]),
        (&[registered], true, &[&[], &[]], &["initial Elb.RegistrationInProgress"]),
        (&[registered], true, &[], &["initial Elb.RegistrationInProgress"]),
        // Registered again before a node knows.
        (&[registered], true, &[&[("10.0.0.7", "draining")]], &["initial Elb.RegistrationInProgress"]),
        (&[registered], true, &[&[("10.0.0.7", "draining")], &[("10.0.0.7", "healthy")]], &["healthy"]),
        (&[registered], false, &[&[("10.0.0.7", "healthy")]], &["unused Target.NotInUse"]),
        (&[], true, &[&[("10.0.0.7", "draining")], &[]], &["draining"]),
        (&[], true, &[&[("10.0.0.7", "healthy")], &[]], &["draining Target.DeregistrationInProgress"]),
        (&[], true, &[&[("10.0.0.7", "unhealthy")]], &["draining Target.DeregistrationInProgress"]),
        (&[], true, &[&[("10.0.0.7", "initial")]], &[]),
        (&[], true, &[], &[]),
    ];
    for (targets, used, nodes, expected) in cases {
        let balancer = used.then(|| balancer(Kind::Network, &["subnet-a"], &[(80, Protocol::Tcp)]));
        let account = account(balancer, group(targets));
        let nodes: Vec<_> = nodes.iter().map(|targets| said(targets)).collect();
        let merged = merge(&account, &nodes);
        assert_eq!(merged.keys().collect::<Vec<_>>(), [GROUP]);
        let states: Vec<_> = merged[GROUP]
            .iter()
            .map(|(_, health)| [Some(health.state.clone()), health.reason.clone()])
            .map(|parts| parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(states, expected, "{targets:?} {used} {nodes:?}");
    }
    let gone = Account::default();
    assert_eq!(merge(&gone, &[said(&[("10.0.0.7", "healthy")])]), Report::new());
}

#[test]
fn a_target_keeps_what_the_node_says_of_it() {
    let health = Health { reason: Some("Target.Timeout".to_owned()), ..of_state("unhealthy") };
    assert_eq!(super::registered(&[&healthy(), &health]), health);
    assert_eq!(super::leaving(&[&healthy(), &of_state("draining")]), Some(of_state("draining")));
}

struct Nodes {
    kind: Kind,
    cross_zone: Option<&'static str>,
    group_cross_zone: Option<&'static str>,
    targets: &'static [(&'static str, u16)],
    said: [Said<'static>; 2],
}

const NODES: Nodes =
    Nodes { kind: Kind::Network, cross_zone: None, group_cross_zone: None, targets: &[], said: [&[], &[]] };

impl Nodes {
    fn named(&self) -> Vec<&'static str> {
        const CROSS_ZONE: &str = "load_balancing.cross_zone.enabled";
        let mut balancer = balancer(self.kind, &["subnet-a", "subnet-b"], &[(80, Protocol::Tcp)]);
        balancer.attributes =
            self.cross_zone.map(|value| (CROSS_ZONE.to_owned(), value.to_owned())).into_iter().collect();
        let mut group = group(self.targets);
        group.attributes =
            self.group_cross_zone.map(|value| (CROSS_ZONE.to_owned(), value.to_owned())).into_iter().collect();
        let account = Arc::new(account(Some(balancer), group));
        let health = self.said.map(said);
        let node = |(place, health): (usize, _)| NodeView {
            arn: ARN.to_owned(),
            subnet: ["subnet-a", "subnet-b"][place].to_owned(),
            zone: ["a", "b"][place].to_owned(),
            address: Ipv4Addr::new(127, 20, 0, [1, 2][place]),
            account: account.clone(),
            health,
        };
        let views: Vec<_> = health.iter().enumerate().map(node).collect();
        let names = names(&views);
        assert_eq!(names.get(&format!("dualstack.{NAME}")), names.get(NAME));
        let zonal = [names.get(&format!("a.{NAME}")), names.get(&format!("b.{NAME}"))];
        let expected = [Ipv4Addr::new(127, 20, 0, 1), Ipv4Addr::new(127, 20, 0, 2)];
        match self.kind {
            Kind::Network => assert_eq!(zonal, expected.map(|address| vec![address]).each_ref().map(Some)),
            Kind::Application => assert_eq!(zonal, [None, None]),
        }
        names[NAME].iter().map(|address| if *address == expected[0] { "a" } else { "b" }).collect()
    }
}

#[test]
fn a_zone_of_a_network_load_balancer_without_a_healthy_target_leaves_dns_while_another_is_better() {
    let targets: &[(&str, u16)] = &[("10.0.0.7", 80), ("10.0.1.7", 80)];
    let both: Said<'_> = &[("10.0.0.7", "healthy"), ("10.0.1.7", "healthy")];
    let first: Said<'_> = &[("10.0.0.7", "healthy"), ("10.0.1.7", "unhealthy")];
    let none: Said<'_> = &[("10.0.0.7", "unhealthy"), ("10.0.1.7", "initial")];
    for (nodes, expected) in [
        (Nodes { targets, said: [both, both], ..NODES }, vec!["a", "b"]),
        (Nodes { targets, said: [first, first], ..NODES }, vec!["a"]),
        (Nodes { targets, said: [none, none], ..NODES }, vec!["a", "b"]),
        (Nodes { targets, said: [none, first], ..NODES }, vec!["a", "b"]),
        (Nodes { targets, said: [first, first], cross_zone: Some("false"), ..NODES }, vec!["a"]),
        (Nodes { targets, said: [first, first], cross_zone: Some("true"), ..NODES }, vec!["a", "b"]),
        (Nodes { targets, said: [first, none], cross_zone: Some("true"), ..NODES }, vec!["a"]),
        (Nodes { targets, said: [first, first], group_cross_zone: Some("true"), ..NODES }, vec!["a", "b"]),
        (
            Nodes { targets, said: [first, first], cross_zone: Some("true"), group_cross_zone: Some("false"), ..NODES },
            vec!["a"],
        ),
        (
            Nodes {
                targets,
                said: [first, first],
                cross_zone: Some("true"),
                group_cross_zone: Some("use_load_balancer_configuration"),
                ..NODES
            },
            vec!["a", "b"],
        ),
        // A zone without a target, and a group without any.
        (Nodes { targets: &[("10.0.0.7", 80)], said: [first, first], ..NODES }, vec!["a"]),
        (Nodes { said: [&[], &[]], ..NODES }, vec!["a", "b"]),
        (Nodes { kind: Kind::Application, targets, said: [first, none], ..NODES }, vec!["a", "b"]),
    ] {
        assert_eq!(nodes.named(), expected);
    }
}

#[test]
fn the_zone_of_a_target_is_that_of_its_instance_or_its_subnet() {
    let account = account(None, group(&[]));
    let of = |target_type, id: &str| {
        let target = Target { id: id.to_owned(), port: 80 };
        zone_of(&account, &TargetGroup { target_type, ..group(&[]) }, &target)
    };
    assert_eq!(of(TargetType::Ip, "10.0.1.9"), Some("b"));
    assert_eq!(of(TargetType::Ip, "10.50.0.1"), None);
    assert_eq!(of(TargetType::Ip, "no address"), None);
    assert_eq!(of(TargetType::Instance, "i-1"), Some("b"));
    assert_eq!(of(TargetType::Instance, "i-gone"), None);
    assert_eq!(of(TargetType::Alb, "arn:lb"), None);
}

#[test]
fn the_groups_of_default_actions_and_of_rules_are_used() {
    let mut balancer = balancer(Kind::Application, &[], &[(80, Protocol::Http), (81, Protocol::Http)]);
    let actions = vec![Action::Authenticate, forward(&["arn:b", "arn:c"])];
    let rule = Rule { arn: "arn:rule".to_owned(), priority: 1, conditions: vec![], actions, transforms: vec![] };
    balancer.listeners.get_mut(&81).unwrap().rules.push(rule);
    assert_eq!(health::groups_of(&balancer), ["arn:b", "arn:c", GROUP].into());
}

#[tokio::test]
async fn an_address_that_was_given_up_is_not_used_again_soon() {
    let (_sender, account) = watch::channel(Arc::default());
    let mut supervisor = Supervisor {
        options: options(),
        account,
        nodes: BTreeMap::new(),
        tasks: JoinSet::new(),
        last_number: u16::MAX - 3,
        changed: Arc::new(Notify::new()),
        published: watch::channel(Arc::default()).0,
        names: watch::channel(Arc::default()).0,
        health: watch::channel(Report::new()).0,
    };
    let mut given = || supervisor.next_address().map(|address| address.to_string());
    let given = [given(), given(), given(), given()].map(Option::unwrap);
    assert_eq!(given, ["127.20.255.253", "127.20.255.254", "127.20.0.1", "127.20.0.2"]);
}
