//! The targets of a group that a node knows, with their state.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, task::AbortHandle, time::Instant};

use super::{
    probe::Probe,
    select::{self, Candidate},
    settings::{Place, Settings},
};
use crate::{
    account::Target,
    health::{Checked, Phase, Standing},
};

/// A task that ends when it is dropped.
#[derive(Debug)]
pub(super) struct Task(AbortHandle);

impl Task {
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The time until the connections of a target are to end.
#[derive(Debug)]
pub(super) struct Lifetime(watch::Sender<bool>);

impl Lifetime {
    fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(false)))
    }

    pub(super) fn gone(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}

/// The way that a target is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) way: Way,
    /// With the offset.
    pub(super) port: u16,
    pub(super) interval: Duration,
    pub(super) probe: Probe,
}

/// The way of a check to its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Security groups drop it.
    Blocked,
    To(Ipv4Addr),
    /// To a node of a load balancer, asked for each time.
    LoadBalancer,
}

/// A target group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) settings: Settings,
    pub(super) members: BTreeMap<Target, Member>,
    /// The place at which the last choice ended.
    pub(super) turn: usize,
}

impl Group {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, members: BTreeMap::new(), turn: 0 }
    }

    /// Returns the registered targets.
    pub(super) fn candidates(&self, slow_start: Option<Duration>, now: Instant) -> Vec<Candidate<'_>> {
        let registered = self.members.iter().filter(|(_, member)| !member.is_draining());
        registered.map(|(target, member)| member.candidate(target, slow_start, now)).collect()
    }

    /// Ends the connections of unhealthy targets, unless there are too few others.
    pub(super) fn end_unhealthy(&mut self, zone: &str) {
        if !self.settings.ends_unhealthy {
            return;
        }
        let candidates = self.candidates(None, Instant::now());
        if select::eligible(&candidates, &self.settings, zone).is_ok_and(|eligible| !eligible.open) {
            for member in self.members.values_mut().filter(|member| member.is_unhealthy() && !member.is_draining()) {
                member.end();
            }
        }
    }
}

/// A target.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) place: Place,
    pub(super) checked: Checked,
    pub(super) in_flight: Arc<AtomicUsize>,
    pub(super) lifetime: Arc<Lifetime>,
    pub(super) credit: f64,
    slow_since: Option<Instant>,
    check: Option<(u64, Check, Task)>,
    draining: Option<(u64, Task)>,
    unhealthy: Option<(u64, Task)>,
}

impl Member {
    /// Returns a target that was just registered.
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            checked: Checked::new(),
            in_flight: Arc::default(),
            lifetime: Lifetime::new(),
            credit: 0.0,
            slow_since: None,
            check: None,
            draining: None,
            unhealthy: None,
        }
    }

    pub(super) fn candidate<'a>(
        &'a self,
        target: &'a Target,
        slow_start: Option<Duration>,
        now: Instant,
    ) -> Candidate<'a> {
        let share = match (slow_start, self.slow_since) {
            (Some(whole), Some(since)) if !whole.is_zero() => {
                (now.saturating_duration_since(since).as_secs_f64() / whole.as_secs_f64()).min(1.0)
            }
            _ => 1.0,
        };
        Candidate {
            target,
            zone: self.place.zone.as_deref(),
            used: self.place.unused.is_none(),
            healthy: *self.checked.phase() == Phase::Healthy && self.place.unused.is_none(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            share,
            credit: self.credit,
        }
    }

    pub(super) fn standing(&self) -> Standing<'_> {
        match (&self.draining, self.place.unused, &self.unhealthy) {
            (Some(_), _, _) => Standing::Draining,
            (None, Some(unused), _) => Standing::Unused(unused),
            (None, None, Some(_)) => Standing::UnhealthyDraining,
            (None, None, None) => Standing::In(self.checked.phase()),
        }
    }

    /// Takes in that the target is registered, and where it is. Returns true if what is told of it changed.
    pub(super) fn register(&mut self, place: Place) -> bool {
        let back = self.draining.take().is_some();
        let moved = self.place.unused != place.unused;
        self.place = place;
        if self.place.unused.is_some() {
            self.checked = Checked::new();
            self.slow_since = None;
            self.unhealthy = None;
        }
        back || moved
    }

    /// Returns true if the target is checked in this way already.
    pub(super) fn has_check(&self, check: Option<&Check>) -> bool {
        self.check.as_ref().map(|(_, check, _)| check) == check
    }

    pub(super) fn set_check(&mut self, check: Option<(u64, Check, Task)>) {
        self.check = check;
    }

    /// Ends the task that checks it, as if that one waited.
    #[cfg(test)]
    pub(super) fn silence(&mut self) {
        if let Some((_, _, task)) = &mut self.check {
            *task = Task::spawn(std::future::pending());
        }
    }

    pub(super) fn is_checked_by(&self, generation: u64) -> bool {
        self.check.as_ref().is_some_and(|(own, _, _)| *own == generation)
    }

    pub(super) fn drain(&mut self, generation: u64, task: Task) {
        self.check = None;
        self.unhealthy = None;
        self.slow_since = None;
        self.draining = Some((generation, task));
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    pub(super) fn is_drained_by(&self, generation: u64) -> bool {
        self.draining.as_ref().is_some_and(|(own, _)| *own == generation)
    }

    /// Returns true if it is healthy and gets a full share.
    pub(super) fn is_warm(&self, slow_start: Option<Duration>, now: Instant) -> bool {
        let slow = matches!((slow_start, self.slow_since), (Some(whole), Some(since)) if now < since + whole);
        *self.checked.phase() == Phase::Healthy && !slow && !self.is_draining()
    }

    fn is_unhealthy(&self) -> bool {
        matches!(self.checked.phase(), Phase::Unhealthy(_))
    }

    /// Takes in that it got healthy; from when on it starts slowly, if it does.
    pub(super) fn recover(&mut self, slow_since: Option<Instant>) {
        self.slow_since = slow_since;
        self.credit = 0.0;
        self.unhealthy = None;
    }

    /// Takes in that it got unhealthy, with the task that ends its connections.
    pub(super) fn fail(&mut self, timer: Option<(u64, Task)>) {
        self.slow_since = None;
        self.unhealthy = timer;
    }

    /// Takes in that the time of an unhealthy target is over. Returns false if it was another's task.
    pub(super) fn fail_for_good(&mut self, generation: u64) -> bool {
        let own = self.unhealthy.as_ref().is_some_and(|(own, _)| *own == generation);
        if own {
            self.unhealthy = None;
            self.end();
        }
        own
    }

    /// Ends all connections. Those that begin later are not ended.
    pub(super) fn end(&mut self) {
        let ended = std::mem::replace(&mut self.lifetime, Lifetime::new());
        ended.0.send_replace(true);
    }
}
