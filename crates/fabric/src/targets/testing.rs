//! An account for tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::Targets;
use crate::{
    account::{
        Account, Action, HealthCheck, Kind, Listener, LoadBalancer, Protocol, Subnet, Target, TargetGroup, TargetType,
        WeightedTargetGroup,
    },
    node::{Node, Options},
};

pub(crate) const OPTIONS: Options =
    Options { seed: 1, delay_millis: (0, 0), security_groups: false, port_offset: 0, time_scale: 0.02 };

pub(crate) fn target(id: &str, port: u16) -> Target {
    Target { id: id.to_owned(), port }
}

/// Returns an account with the load balancer `lb` in zones `a` and `b`, which forwards port 80 to the group `tg`: TCP
/// for a Network Load Balancer, else HTTP. Zone `c` is not enabled.
pub(crate) fn account(network: bool, targets: &[(&str, u16)]) -> Account {
    let protocol = if network { Protocol::Tcp } else { Protocol::Http };
    let subnet = |third: u8, zone: &str| {
        let cidr = format!("10.0.{third}.0/24").parse().unwrap();
        (format!("subnet-{zone}"), Subnet { cidr, zone: zone.to_owned() })
    };
    let group = TargetGroup {
        name: "tg".to_owned(),
        protocol,
        protocol_version: None,
        target_type: TargetType::Ip,
        health_check: HealthCheck {
            protocol,
            port: None,
            path: None,
            matcher: None,
            interval_seconds: 10,
            timeout_seconds: 5,
            healthy_threshold: 2,
            unhealthy_threshold: 2,
        },
        attributes: BTreeMap::new(),
        targets: targets.iter().map(|(id, port)| target(id, *port)).collect(),
    };
    let forward = Action::Forward {
        target_groups: vec![WeightedTargetGroup { arn: "tg".to_owned(), weight: 1 }],
        stickiness_seconds: None,
    };
    let listener = Listener {
        arn: "listener".to_owned(),
        protocol,
        certificates: Vec::new(),
        alpn: None,
        client_certificates: None,
        attributes: BTreeMap::new(),
        default_actions: vec![forward],
        rules: Vec::new(),
    };
    let balancer = LoadBalancer {
        name: "lb".to_owned(),
        dns_name: "lb.test".to_owned(),
        kind: if network { Kind::Network } else { Kind::Application },
        active: true,
        public: true,
        subnets: BTreeSet::from(["subnet-a".to_owned(), "subnet-b".to_owned()]),
        security_groups: BTreeSet::new(),
        attributes: BTreeMap::new(),
        listeners: BTreeMap::from([(80, listener)]),
    };
    Account {
        version: 1,
        load_balancers: BTreeMap::from([("lb".to_owned(), balancer)]),
        target_groups: BTreeMap::from([("tg".to_owned(), group)]),
        subnets: BTreeMap::from([subnet(1, "a"), subnet(2, "b"), subnet(3, "c")]),
        ..Account::default()
    }
}

/// Returns a node in zone `a` that has seen an account, and what changes its view.
pub(crate) fn node(account: Account, options: Options) -> (Arc<Node>, watch::Sender<Arc<Account>>) {
    let targets = Targets::new(options, "a".to_owned());
    targets.update(&account, "lb");
    let (sender, view) = watch::channel(Arc::new(account));
    let node = Node {
        load_balancer: "lb".to_owned(),
        subnet: "subnet-a".to_owned(),
        zone: "a".to_owned(),
        address: Ipv4Addr::new(127, 20, 0, 1),
        view,
        targets,
        options,
    };
    (Arc::new(node), sender)
}

/// Changes what a node sees.
pub(crate) fn change(node: &Node, sender: &watch::Sender<Arc<Account>>, change: impl FnOnce(&mut Account)) {
    let mut account = (*node.account()).clone();
    account.version += 1;
    change(&mut account);
    node.targets.update(&account, "lb");
    sender.send_replace(Arc::new(account));
}

/// Waits until the states of the targets of the group `tg` are these, in the order of targets.
pub(crate) async fn wait_for(targets: &Targets, states: &str) {
    let mut changed = targets.changed();
    let now = || {
        let health = targets.health();
        let health = health.get("tg").into_iter().flat_map(|group| group.values());
        health.map(|health| health.state.as_str().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let reached = async {
        while now() != states {
            changed.changed().await.unwrap();
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), reached).await.is_err() {
        panic!("{states} is not reached: {}", now());
    }
}
