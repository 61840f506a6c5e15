//! The load balancers of an account: a node for each subnet, with the listeners that its own, delayed view of the
//! account says; their names; and the health of targets, merged over the nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, UdpSocket},
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    account::{Account, Health, Kind, LoadBalancer, Protocol, Target, TargetGroup, TargetType},
    address, alb, delay,
    emulator::Report,
    health::{self, Phase, Standing, Unused},
    nlb,
    node::{Node, Options},
    resolver::{Names, Resolver, TTL_SECONDS},
    targets::Targets,
};

/// Until a port that could not be bound is tried again.
const BIND_AGAIN: Duration = Duration::from_millis(200);
/// Between two reports of health.
const REPORT_PAUSE: Duration = Duration::from_millis(10);
const BACKLOG: u32 = 1_024;

/// Returns an address of a load balancer by its ARN.
pub type Directory = Arc<dyn Fn(&str) -> Option<Ipv4Addr> + Send + Sync>;

/// All load balancers of an account. They end when it is dropped.
#[derive(Debug)]
pub struct Fabric {
    published: watch::Receiver<Arc<Published>>,
    health: watch::Receiver<Report>,
    dns: SocketAddr,
    _tasks: JoinSet<()>,
}

/// The nodes and their names, as they are published.
#[derive(Debug, Default, PartialEq, Eq)]
struct Published {
    names: Arc<Names>,
    by_arn: BTreeMap<String, Vec<Ipv4Addr>>,
    nodes: Vec<NodeAddress>,
}

/// A node's place and address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// The load balancer's ARN.
    pub load_balancer: String,
    /// The subnet's id.
    pub subnet: String,
    /// The loopback address.
    pub address: Ipv4Addr,
}

impl Fabric {
    /// Starts the nodes and the DNS server. The account may be empty at first.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// Returns an error if the DNS server has no port.
    pub fn start(options: Options, account: watch::Receiver<Arc<Account>>) -> io::Result<Self> {
        let resolver = Resolver::bind(options.port_offset)?;
        let dns = resolver.address();
        tracing::info!("DNS of load balancers at {dns}");
        let (published, published_receiver) = watch::channel(Arc::default());
        let (names, names_receiver) = watch::channel(Arc::default());
        let (health, health_receiver) = watch::channel(Report::new());
        let supervisor = Supervisor {
            options,
            account,
            nodes: BTreeMap::new(),
            tasks: JoinSet::new(),
            last_number: 0,
            changed: Arc::new(Notify::new()),
            published,
            names,
            health,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(resolver.serve(names_receiver, scaled_ttl(options)));
        tasks.spawn(supervisor.run());
        Ok(Self { published: published_receiver, health: health_receiver, dns, _tasks: tasks })
    }

    /// Returns the address of the DNS server.
    #[must_use]
    pub fn dns(&self) -> SocketAddr {
        self.dns
    }

    /// Returns the addresses that the DNS server has for a name.
    #[must_use]
    pub fn addresses(&self, dns_name: &str) -> Vec<Ipv4Addr> {
        let name = dns_name.trim_end_matches('.').to_ascii_lowercase();
        self.published.borrow().names.get(&name).cloned().unwrap_or_default()
    }

    /// Returns each node that runs, also those that DNS does not name.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeAddress> {
        self.published.borrow().nodes.clone()
    }

    /// Returns the health of the targets of each target group, merged over all nodes.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Report> {
        self.health.clone()
    }
}

fn scaled_ttl(options: Options) -> u32 {
    let scaled = f64::from(TTL_SECONDS) * options.time_scale;
    (1..=TTL_SECONDS).rev().find(|seconds| f64::from(*seconds) <= scaled).unwrap_or(1)
}

/// A load balancer's ARN and a subnet's id.
type Place = (String, String);

struct Running {
    node: Arc<Node>,
    /// The view that the node's listeners follow already; `None` until the first one has come.
    applied: watch::Receiver<Option<Arc<Account>>>,
    task: AbortHandle,
}

struct Supervisor {
    options: Options,
    account: watch::Receiver<Arc<Account>>,
    nodes: BTreeMap<Place, Running>,
    tasks: JoinSet<()>,
    last_number: u16,
    changed: Arc<Notify>,
    published: watch::Sender<Arc<Published>>,
    names: watch::Sender<Arc<Names>>,
    health: watch::Sender<Report>,
}

impl Supervisor {
    async fn run(mut self) {
        let (mut alive, changed) = (true, self.changed.clone());
        self.account.mark_changed();
        loop {
            tokio::select! {
                known = self.account.changed(), if alive => alive = known.is_ok(),
                Some(ended) = self.tasks.join_next() => if let Err(error) = ended {
                    tracing::error!("a node of a load balancer ended: {error}");
                },
                () = changed.notified() => {}
            }
            self.nodes.retain(|_, running| !running.task.is_finished());
            let account = self.account.borrow_and_update().clone();
            self.start_nodes(&account);
            self.publish(&account);
            sleep(REPORT_PAUSE).await;
        }
    }

    fn start_nodes(&mut self, account: &Account) {
        for (arn, balancer) in &account.load_balancers {
            for subnet in &balancer.subnets {
                let place = (arn.clone(), subnet.clone());
                if self.nodes.contains_key(&place) {
                    continue;
                }
                let Some(address) = self.next_address() else {
                    tracing::error!("no address is left for {arn} in {subnet}");
                    return;
                };
                let zone = account.subnets.get(subnet).map(|subnet| subnet.zone.clone()).unwrap_or_default();
                let targets = Targets::new(self.options, zone.clone());
                targets.set_directory(self.directory());
                let seed = self.options.seed ^ fingerprint(&place);
                let node = Arc::new(Node {
                    load_balancer: arn.clone(),
                    subnet: subnet.clone(),
                    zone,
                    address,
                    view: delay::view(self.account.clone(), self.options.delay_millis, seed),
                    targets,
                    options: self.options,
                });
                let (sender, applied) = watch::channel(None);
                let task = self.tasks.spawn(run_node(node.clone(), sender, self.changed.clone()));
                tracing::info!("{} has a node at {address} in {subnet}", balancer.name);
                self.nodes.insert(place, Running { node, applied, task });
            }
        }
    }

    /// Addresses go round, so that one that was given up is not used again soon.
    fn next_address(&mut self) -> Option<Ipv4Addr> {
        let taken: BTreeSet<_> = self.nodes.values().map(|running| running.node.address).collect();
        let next = self.last_number.saturating_add(1).max(1);
        let number = (next..u16::MAX).chain(1..next).find(|number| !taken.contains(&address::of_node(*number)))?;
        self.last_number = number;
        Some(address::of_node(number))
    }

    fn directory(&self) -> Directory {
        let published = self.published.subscribe();
        Arc::new(move |arn| published.borrow().by_arn.get(arn)?.first().copied())
    }

    fn publish(&self, account: &Account) {
        let health: Vec<_> = self.nodes.values().map(|running| running.node.targets.health()).collect();
        let merged = merge(account, &health);
        self.health.send_if_modified(|known| replace(known, merged));
        let views: Vec<_> = self
            .nodes
            .values()
            .zip(&health)
            .filter_map(|(running, health)| {
                let account = running.applied.borrow().clone()?;
                let node = &running.node;
                let (arn, subnet) = (node.load_balancer.clone(), node.subnet.clone());
                Some(NodeView { arn, subnet, zone: node.zone.clone(), address: node.address, account, health })
            })
            .collect();
        let names = Arc::new(names(&views));
        let mut by_arn = BTreeMap::<String, Vec<_>>::new();
        for view in views.iter().filter(|view| view.balancer().is_some()) {
            by_arn.entry(view.arn.clone()).or_default().push(view.address);
        }
        let node = |running: &Running| NodeAddress {
            load_balancer: running.node.load_balancer.clone(),
            subnet: running.node.subnet.clone(),
            address: running.node.address,
        };
        let nodes = self.nodes.values().map(node).collect();
        let published = Arc::new(Published { names: names.clone(), by_arn, nodes });
        self.published.send_if_modified(|known| replace(known, published));
        self.names.send_if_modified(|known| replace(known, names));
    }
}

fn replace<T: PartialEq>(known: &mut T, new: T) -> bool {
    let changed = *known != new;
    if changed {
        *known = new;
    }
    changed
}

/// The same number for the same place in each run (FNV-1a).
fn fingerprint((balancer, subnet): &Place) -> u64 {
    let bytes = balancer.bytes().chain([0]).chain(subnet.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The functions that serve a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Service {
    Alb,
    NlbTcp,
    NlbUdp,
}

impl Service {
    fn of(protocol: Protocol) -> &'static [Self] {
        match protocol {
            Protocol::Http | Protocol::Https => &[Self::Alb],
            Protocol::Tcp | Protocol::Tls => &[Self::NlbTcp],
            Protocol::Udp => &[Self::NlbUdp],
            Protocol::TcpUdp => &[Self::NlbTcp, Self::NlbUdp],
        }
    }
}

/// Returns the ports of a load balancer that are open, and who serves them. Only an active one answers.
fn services(balancer: &LoadBalancer) -> BTreeSet<(u16, Service)> {
    let listeners = balancer.listeners.iter().filter(|_| balancer.active);
    let of = |(port, protocol): (u16, Protocol)| Service::of(protocol).iter().map(move |service| (port, *service));
    listeners.flat_map(|(port, listener)| of((*port, listener.protocol))).collect()
}

/// Follows the node's view until its load balancer is gone from it, or its subnet. All connections end with it.
async fn run_node(node: Arc<Node>, applied: watch::Sender<Option<Arc<Account>>>, changed: Arc<Notify>) {
    let (mut view, mut health) = (node.view.clone(), node.targets.changed());
    let mut open = Open { node: node.clone(), tasks: JoinSet::new(), served: BTreeMap::new(), failed: BTreeSet::new() };
    let (mut leaves, mut tells) = (None, true);
    if view.changed().await.is_err() {
        return;
    }
    loop {
        let account = view.borrow_and_update().clone();
        let Some(balancer) = account.load_balancers.get(&node.load_balancer) else { break };
        if balancer.subnets.contains(&node.subnet) {
            leaves = None;
        } else if balancer.kind == Kind::Network {
            break;
        } else {
            let ttl = Duration::from_secs(scaled_ttl(node.options).into());
            leaves = leaves.or(Some(Instant::now() + ttl));
        }
        node.targets.update(&account, &node.load_balancer);
        let wanted = services(balancer);
        open.follow(&wanted);
        applied.send_replace(Some(account.clone()));
        changed.notify_one();
        loop {
            let again = !open.is_complete(&wanted);
            tokio::select! {
                seen = view.changed() => match seen {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = async { match leaves { Some(end) => sleep_until(end).await, None => pending().await } } => return,
                told = health.changed(), if tells => {
                    tells = told.is_ok();
                    changed.notify_one();
                }
                Some(ended) = open.tasks.join_next() => if let Err(error) = ended {
                    tracing::error!("a listener at {} ended: {error}", node.address);
                },
                () = sleep(BIND_AGAIN), if again => open.follow(&wanted),
            }
        }
    }
}

/// The open ports of a node.
struct Open {
    node: Arc<Node>,
    tasks: JoinSet<()>,
    served: BTreeMap<(u16, Service), AbortHandle>,
    /// Those that could not be bound, so that it is told once.
    failed: BTreeSet<(u16, Service)>,
}

impl Open {
    /// Opens what is wanted. What is no longer wanted closes by itself when its requests in flight are answered.
    fn follow(&mut self, wanted: &BTreeSet<(u16, Service)>) {
        self.served.retain(|key, task| wanted.contains(key) && !task.is_finished());
        self.failed.retain(|key| wanted.contains(key));
        for key in wanted {
            if self.served.contains_key(key) {
                continue;
            }
            match self.open(*key) {
                Ok(task) => {
                    self.served.insert(*key, task);
                    self.failed.remove(key);
                }
                Err(error) => {
                    let (address, (port, service)) = (self.node.address, *key);
                    if self.failed.insert(*key) {
                        let arn = &self.node.load_balancer;
                        let port = port.saturating_add(self.node.options.port_offset);
                        tracing::error!("cannot bind {address}:{port} ({service:?}) of {arn}: {error}; trying again");
                    }
                }
            }
        }
    }

    fn is_complete(&self, wanted: &BTreeSet<(u16, Service)>) -> bool {
        let is_served = |key| self.served.get(key).is_some_and(|task: &AbortHandle| !task.is_finished());
        wanted.iter().all(is_served)
    }

    fn open(&mut self, (port, service): (u16, Service)) -> io::Result<AbortHandle> {
        let number = port.checked_add(self.node.options.port_offset);
        let number = number.ok_or_else(|| io::Error::other("the port with its offset is beyond 65535"))?;
        let (address, node) = (SocketAddr::from((self.node.address, number)), self.node.clone());
        Ok(match service {
            Service::Alb => self.tasks.spawn(alb::serve(listen(address)?, node, port)),
            Service::NlbTcp => self.tasks.spawn(nlb::serve_tcp(listen(address)?, node, port)),
            Service::NlbUdp => {
                let socket = std::net::UdpSocket::bind(address)?;
                socket.set_nonblocking(true)?;
                self.tasks.spawn(nlb::serve_udp(UdpSocket::from_std(socket)?, node, port))
            }
        })
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // Connections that have ended keep the port for a minute otherwise.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A node with what it knows.
struct NodeView<'a> {
    arn: String,
    subnet: String,
    zone: String,
    address: Ipv4Addr,
    account: Arc<Account>,
    health: &'a BTreeMap<String, BTreeMap<Target, Health>>,
}

impl NodeView<'_> {
    /// Returns the load balancer if the node serves for it.
    fn balancer(&self) -> Option<&LoadBalancer> {
        let balancer = self.account.load_balancers.get(&self.arn)?;
        (balancer.active && balancer.subnets.contains(&self.subnet)).then_some(balancer)
    }
}

/// Returns the DNS names of all nodes' load balancers. A zone of a Network Load Balancer where a target group has no
/// healthy target is left out while another one is better. Its own name, with the zone before it, stays.
fn names(nodes: &[NodeView<'_>]) -> Names {
    let (mut good, mut names) = (Names::new(), Names::new());
    for node in nodes {
        let Some(balancer) = node.balancer() else { continue };
        let name = balancer.dns_name.trim_end_matches('.').to_ascii_lowercase();
        if balancer.kind == Kind::Network {
            names.entry(format!("{}.{name}", node.zone)).or_default().push(node.address);
        }
        if balancer.kind == Kind::Application || zone_is_healthy(node, balancer) {
            good.entry(name.clone()).or_default().push(node.address);
        }
        names.entry(name).or_default().push(node.address);
    }
    names.extend(good);
    let is_regional = |name: &str| {
        nodes
            .iter()
            .filter_map(NodeView::balancer)
            .any(|balancer| balancer.dns_name.trim_end_matches('.').eq_ignore_ascii_case(name))
    };
    let dualstack: Names = names
        .iter()
        .filter(|(name, _)| is_regional(name))
        .map(|(name, addresses)| (format!("dualstack.{name}"), addresses.clone()))
        .collect();
    names.extend(dualstack);
    names
}

/// Returns true if each target group of a load balancer has a healthy target for the node, or no target at all.
fn zone_is_healthy(node: &NodeView<'_>, balancer: &LoadBalancer) -> bool {
    health::groups_of(balancer).into_iter().all(|arn| {
        let Some(group) = node.account.target_groups.get(arn) else { return true };
        let health = node.health.get(arn);
        let is_healthy =
            |target: &Target| health.and_then(|all| all.get(target)).is_some_and(|health| health.state == "healthy");
        let is_near = |target: &Target| {
            crosses_zones(balancer, group) || zone_of(&node.account, group, target).is_none_or(|zone| zone == node.zone)
        };
        group.targets.is_empty() || group.targets.iter().any(|target| is_near(target) && is_healthy(target))
    })
}

fn crosses_zones(balancer: &LoadBalancer, group: &TargetGroup) -> bool {
    const CROSS_ZONE: &str = "load_balancing.cross_zone.enabled";
    let own = group.attributes.get(CROSS_ZONE).filter(|value| *value == "true" || *value == "false");
    own.or_else(|| balancer.attributes.get(CROSS_ZONE)).is_some_and(|value| value == "true")
}

/// Returns the Availability Zone of a target; `None` for one that is in no zone, such as a load balancer.
fn zone_of<'a>(account: &'a Account, group: &TargetGroup, target: &Target) -> Option<&'a str> {
    match group.target_type {
        TargetType::Instance => account.instances.get(&target.id).map(|instance| instance.zone.as_str()),
        TargetType::Ip => {
            let address: IpAddr = target.id.parse().ok()?;
            account.subnets.values().find(|subnet| subnet.cidr.contains(&address)).map(|subnet| subnet.zone.as_str())
        }
        TargetType::Alb => None,
    }
}

/// Returns the health of all targets from what each node says of those that it knows. The account as it is now decides
/// which targets are registered: one that a node still knows is draining.
fn merge(account: &Account, nodes: &[BTreeMap<String, BTreeMap<Target, Health>>]) -> Report {
    let used: BTreeSet<&str> = account.load_balancers.values().flat_map(health::groups_of).collect();
    let group = |(arn, group): (&String, &TargetGroup)| {
        let known: Vec<_> = nodes.iter().filter_map(|node| node.get(arn)).collect();
        let said = |target: &Target| known.iter().filter_map(|all| all.get(target)).collect::<Vec<_>>();
        let unused = || health::told(Standing::Unused(Unused::Group), false);
        let is_used = used.contains(arn.as_str());
        let registered = group
            .targets
            .iter()
            .map(|target| (target.clone(), if is_used { registered(&said(target)) } else { unused() }));
        let others: BTreeSet<_> = known.iter().flat_map(|all| all.keys()).collect();
        let others = others.into_iter().filter(|target| !group.targets.contains(target));
        let leaving = others.filter_map(|target| Some((target.clone(), leaving(&said(target))?)));
        (arn.clone(), registered.chain(leaving).collect())
    };
    account.target_groups.iter().map(group).collect()
}

/// Returns the health of a registered target: the worst that a node says.
fn registered(said: &[&Health]) -> Health {
    let rank = |health: &&&Health| match health.state.as_str() {
        "unhealthy" => 4,
        "initial" => 3,
        "healthy" => 2,
        "unused" => 1,
        _ => 0,
    };
    let worst = said.iter().filter(|health| rank(health) > 0).max_by_key(rank);
    let new = || health::told(Standing::In(&Phase::Registering), false);
    worst.map_or_else(new, |health| (*health).clone())
}

/// Returns the health of a target that is no longer registered, or `None` if it has nothing to complete.
fn leaving(said: &[&Health]) -> Option<Health> {
    let drains = said.iter().find(|health| health.state == "draining");
    let serves = || said.iter().any(|health| matches!(health.state.as_str(), "healthy" | "unhealthy"));
    let late = || health::told(Standing::Draining, false);
    drains.map(|health| (*health).clone()).or_else(|| serves().then(late))
}

#[cfg(test)]
mod tests;
