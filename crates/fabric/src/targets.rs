//! The targets of a node: which one a request goes to, with the health that this node sees.

mod members;
mod probe;
mod select;
mod settings;
mod watch_over;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{sync::watch, time::Instant};

use self::{
    members::{Group, Lifetime, Member},
    select::Candidate,
    settings::{Place, Settings},
};
pub(crate) use self::{select::hash, settings::scaled};
use crate::{
    account::{Account, Health, Target, TargetType},
    health,
    node::Options,
};

/// Returns the loopback address of a node of the load balancer that has an ARN.
pub type Directory = Arc<dyn Fn(&str) -> Option<Ipv4Addr> + Send + Sync>;

/// The targets of a node.
pub struct Targets {
    options: Options,
    zone: String,
    directory: RwLock<Option<Directory>>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// The state of target groups that a node keeps.
#[derive(Debug)]
struct State {
    load_balancer: String,
    /// By ARN: those that the load balancer forwards to, and those with targets that drain.
    groups: BTreeMap<String, Group>,
    random: fastrand::Rng,
    /// Tells a task whether its target still has no newer one.
    generation: u64,
}

impl std::fmt::Debug for Targets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Targets").field("zone", &self.zone).finish_non_exhaustive()
    }
}

/// A target that a request or a connection goes to. It counts as in flight until this is dropped.
#[derive(Debug)]
pub struct Picked {
    /// The target.
    pub target: Target,
    /// The loopback address that stands for it.
    pub address: SocketAddr,
    /// True as soon as the target has no more time to complete what it has.
    pub gone: watch::Receiver<bool>,
    _guard: Guard,
}

#[derive(Debug)]
struct Guard {
    in_flight: Arc<AtomicUsize>,
    /// With the sender of `gone`: a receiver whose sender is dropped would be told so.
    _lifetime: Arc<Lifetime>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The reason why there is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// The group has none, or there is no such group.
    #[error("the target group has no registered target")]
    NoneRegistered,
    /// All are unused: their zones are not enabled, or their instances do not run.
    #[error("all registered targets are unused")]
    NoneUsed,
    /// None is in the node's zone, and cross-zone load balancing is off.
    #[error("the node's zone has no target, and cross-zone load balancing is off")]
    NoneInZone,
    /// The chosen one is a load balancer without nodes.
    #[error("the target has no address")]
    NoAddress,
}

impl Targets {
    /// Returns the targets of a node in a zone; none are known yet.
    #[must_use]
    pub fn new(options: Options, zone: String) -> Arc<Self> {
        let random = fastrand::Rng::with_seed(hash((options.seed, &zone)));
        let state = State { load_balancer: String::new(), groups: BTreeMap::new(), random, generation: 0 };
        Arc::new(Self {
            options,
            zone,
            directory: RwLock::default(),
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        })
    }

    /// Sets how targets that are load balancers are found. Without it, they have no address.
    pub fn set_directory(&self, directory: Directory) {
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = Some(directory);
    }

    /// Chooses a target of a group. `client` is the address that the client dials from, `sticky` the target that its
    /// cookie names; that one is taken while it may be chosen at all.
    ///
    /// # Errors
    /// Returns an error if the group has no target that may be used.
    pub fn pick(
        &self,
        account: &Account,
        group: &str,
        client: SocketAddr,
        sticky: Option<&Target>,
    ) -> Result<Picked, NoTarget> {
        let arn = group;
        let group = account.target_groups.get(arn).ok_or(NoTarget::NoneRegistered)?;
        let mut state = self.state();
        let State { load_balancer, groups, .. } = &mut *state;
        let balancer = account.load_balancers.get(load_balancer.as_str());
        let mut spare = None;
        let known = match groups.get_mut(arn) {
            Some(known) => known,
            None => spare.insert(Group::new(Settings::of(group, balancer))),
        };
        // The view may be a little newer than the last update.
        let new = group.targets.iter().filter(|target| !known.members.contains_key(*target));
        let new: BTreeMap<&Target, Member> =
            new.map(|target| (target, Member::new(Place::of(account, balancer, group, target)))).collect();
        let Group { settings, members, turn } = known;
        let slow_start = settings.slow_start.map(|seconds| self.scaled(seconds));
        let now = Instant::now();
        // One for each target, in their order: each is in one of the two maps.
        let registered = group.targets.iter().filter_map(|target| {
            let member = members.get(target).or_else(|| new.get(target))?;
            Some(member.candidate(target, slow_start, now))
        });
        let mut candidates: Vec<Candidate<'_>> = registered.collect();
        let eligible = select::eligible(&candidates, settings, &self.zone)?;
        let kept = sticky.and_then(|target| {
            let mut places = eligible.places.iter().copied();
            places.find(|place| candidates.get(*place).is_some_and(|candidate| candidate.target == target))
        });
        let chosen = kept.or_else(|| {
            let algorithm = settings.algorithm;
            select::choose(&mut candidates, &eligible.places, algorithm, turn, client, self.options.seed)
        });
        let target = chosen.and_then(|place| group.targets.iter().nth(place)).ok_or(NoTarget::NoneRegistered)?;
        if slow_start.is_some() {
            let credits: Vec<f64> = candidates.iter().map(|candidate| candidate.credit).collect();
            for (target, credit) in group.targets.iter().zip(credits) {
                if let Some(member) = members.get_mut(target) {
                    member.credit = credit;
                }
            }
        }
        let member = members.get(target).or_else(|| new.get(target)).ok_or(NoTarget::NoneRegistered)?;
        let address = match group.target_type {
            TargetType::Alb => self.look_up(&target.id),
            TargetType::Ip | TargetType::Instance => member.place.address,
        };
        let address = address.ok_or(NoTarget::NoAddress)?;
        member.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Picked {
            target: target.clone(),
            address: (address, self.port(target.port)).into(),
            gone: member.lifetime.gone(),
            _guard: Guard { in_flight: member.in_flight.clone(), _lifetime: member.lifetime.clone() },
        })
    }

    /// Returns the health of each target by the ARN of its group, as this node sees it.
    #[must_use]
    pub fn health(&self) -> BTreeMap<String, BTreeMap<Target, Health>> {
        let state = self.state();
        let groups = state.groups.iter().map(|(arn, group)| {
            let told = |member: &Member| health::told(member.standing(), group.settings.application);
            (arn.clone(), group.members.iter().map(|(target, member)| (target.clone(), told(member))).collect())
        });
        groups.collect()
    }

    /// Returns false if the node's address is to be left out of DNS, because a target group has too few healthy targets
    /// for it. If that holds for all nodes of a load balancer, none is left out.
    #[must_use]
    pub fn in_dns(&self, account: &Account) -> bool {
        let state = self.state();
        let Some(balancer) = account.load_balancers.get(&state.load_balancer) else { return false };
        health::groups_of(balancer).into_iter().all(|arn| {
            state.groups.get(arn).is_some_and(|group| {
                let Group { settings, .. } = group;
                let candidates = group.candidates(None, Instant::now());
                let near = candidates.iter().filter(|candidate| candidate.used);
                let near =
                    near.filter(|candidate| settings.cross_zone || candidate.zone.is_none_or(|zone| zone == self.zone));
                let (healthy, all) =
                    near.fold((0, 0), |(healthy, all), near| (healthy + usize::from(near.healthy), all + 1));
                settings.dns.met(healthy, all)
            })
        })
    }

    /// Returns a counter that grows with each change of health.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn tell(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(&self, arn: &str) -> Option<Ipv4Addr> {
        let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner).clone();
        directory.and_then(|directory| directory(arn))
    }

    fn port(&self, port: u16) -> u16 {
        port.saturating_add(self.options.port_offset)
    }

    fn scaled(&self, seconds: u32) -> std::time::Duration {
        scaled(f64::from(seconds), self.options.time_scale)
    }
}
