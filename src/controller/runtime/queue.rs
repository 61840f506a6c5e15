//! The work queue: each key waits at most once, runs at most once at a time, and has its own backoff.
//!
//! Load balancers and targets have separate lanes, each with its own workers. In a lane, departures of targets come
//! before changes, changes before resyncs and resyncs before audits; among keys with the same reason, the namespaces
//! whose objects changed take turns. A change of the rules of nodes comes before other changes, because every binding
//! and many stacks wait for it, but at most once a second.
//!
//! A pass may wait for AWS for minutes, in a backlog of registrations for example. So departures, and queries for the
//! health of targets, have workers in addition to those of all other passes.
//!
//! A key that changes while it runs is queued again afterwards; if a target departs meanwhile, the calls of the running
//! pass become as urgent as that. A failed key waits from one second to two minutes,
//! twice as long each time; if an object that it depends on changes, it runs again within a second. A failed departure
//! waits for a few seconds at most, and after a minute it is a change like others.

mod schedule;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::Notify, time::Instant};

use albatross_aws::{Priority, Urgency};
use albatross_core::dependents::Key;

use super::metrics::{QueueMetrics, QueueSize, controller_of};
use schedule::{Lane, RECENT, Schedule, Wanted, namespace_of};

/// The result of a pass over a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No work is left until an object changes.
    Done,
    /// No work is possible until a user fixes an object, which queues the key again; the text is the error.
    NeedsCorrection(String),
    /// The pass succeeded, and the key runs again after this time.
    Again(Duration),
    /// The pass succeeded, and after this time AWS is queried for the health of targets.
    LookAfter(Duration),
    /// AWS is not ready for the rest. The key runs again soon; this is not an error.
    NotYet,
    /// The pass failed. The key runs again after growing pauses.
    Failed(String),
}

/// The reason why a key is queued, in descending urgency; the most urgent of several reasons counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueueReason {
    /// A target of the key may have to leave its target group, because its pod ends for example: requests may still go
    /// to it.
    Departure,
    /// An object that affects the key has changed; a resync or an audit may be due as well.
    Change,
    /// A pod waits until AWS reports its target healthy.
    Look,
    /// The key runs again, without a known change.
    Resync,
    /// The key is compared with AWS again, without a known change in the cluster or in AWS.
    Audit,
}

impl QueueReason {
    /// In descending urgency.
    const ALL: [Self; 5] = [Self::Departure, Self::Change, Self::Look, Self::Resync, Self::Audit];

    /// Returns the priority of a pass's calls.
    fn priority(self) -> Priority {
        match self {
            Self::Departure => Priority::Deregister,
            Self::Change | Self::Look => Priority::Edit,
            Self::Resync => Priority::Resync,
            Self::Audit => Priority::Audit,
        }
    }
}

/// The queue. An `Arc` shares it cheaply.
#[derive(Debug, Default)]
pub struct Queue {
    schedule: Mutex<Schedule>,
    wake: Notify,
}

/// The contents of the queue, for `/debug/state`.
#[derive(Debug, Serialize)]
pub struct QueueState {
    /// The keys that are ready to run.
    pub waiting: Vec<String>,
    /// The keys that are running.
    pub running: Vec<String>,
    /// The keys that are delayed, with the remaining seconds.
    pub pausing: BTreeMap<String, f64>,
    /// The last error of each key whose last pass failed.
    pub errors: BTreeMap<String, String>,
}

impl Queue {
    /// Returns a queue that limits the number of running keys of load balancers and of targets, and to the latter number
    /// also that of departures and that of queries for health. With [`Self::workers`] workers none waits for the others,
    /// however long the passes take.
    #[must_use]
    pub fn with_max_concurrent(load_balancers: usize, targets: usize) -> Self {
        let most = BTreeMap::from([(Lane::Targets, targets.max(1)), (Lane::LoadBalancers, load_balancers.max(1))]);
        Self { schedule: Mutex::new(Schedule { most, ..Schedule::default() }), wake: Notify::new() }
    }

    /// Returns the queue, which records its work in these metrics.
    #[must_use]
    pub fn observed_by(self, metrics: QueueMetrics) -> Self {
        self.lock().metrics = metrics;
        self
    }

    /// Returns the number of keys that may run at once, with these numbers in [`Self::with_max_concurrent`].
    #[must_use]
    pub fn workers(load_balancers: usize, targets: usize) -> usize {
        load_balancers.max(1) + 3 * targets.max(1)
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        // The schedule is consistent at every statement that could panic, so a poisoned lock is safe to use.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a key to run as soon as possible, because an object that affects it has changed.
    pub fn add(&self, key: Key) {
        self.add_for(QueueReason::Change, key);
    }

    /// Makes a running key run again after this time at the latest, whatever the outcome of its pass: something of it waits
    /// for time to pass, and that is not to take longer because something else of it fails.
    pub fn run_within(&self, key: &Key, longest: Duration) {
        let mut state = self.lock();
        let known = state.longest_pause.entry(key.clone()).or_insert(longest);
        *known = longest.min(*known);
    }

    fn add_for(&self, cause: QueueReason, key: Key) {
        let tenant = namespace_of(&key).to_owned();
        self.lock().add(key, &tenant, cause, Instant::now());
        self.wake.notify_one();
    }

    /// Queues several keys, as [`Self::add`] does.
    pub fn add_all(&self, keys: impl IntoIterator<Item = Key>) {
        keys.into_iter().for_each(|key| self.add(key));
    }

    /// Queues keys because an object of this namespace (empty for cluster-scoped objects) has changed.
    pub fn changed(&self, namespace: &str, keys: impl IntoIterator<Item = Key>) {
        let (mut schedule, now) = (self.lock(), Instant::now());
        keys.into_iter().for_each(|key| schedule.add(key, namespace, QueueReason::Change, now));
        drop(schedule);
        self.wake.notify_one();
    }

    /// Queues keys because a target of theirs may have to leave its target group.
    pub fn departed(&self, namespace: &str, keys: impl IntoIterator<Item = Key>) {
        let (mut schedule, now) = (self.lock(), Instant::now());
        keys.into_iter().for_each(|key| schedule.add(key, namespace, QueueReason::Departure, now));
        drop(schedule);
        self.wake.notify_one();
    }

    /// Queues several keys to run again, without a change.
    pub fn resync(&self, keys: impl IntoIterator<Item = Key>) {
        keys.into_iter().for_each(|key| self.add_for(QueueReason::Resync, key));
    }

    /// Queues a key to be compared with AWS again when there is no other work.
    pub fn audit(&self, key: Key) {
        self.add_for(QueueReason::Audit, key);
    }

    /// Begins a term, after the workers of the last one have ended. A pass of theirs may still run, and can write nothing.
    /// The queue keeps only changes of the last minute, which
    /// may not have been processed.
    pub fn begin_term(&self) {
        let (mut schedule, now) = (self.lock(), Instant::now());
        let known = std::mem::take(&mut *schedule);
        (schedule.most, schedule.metrics) = (known.most, known.metrics);
        let running = known.running.into_iter().map(|(key, running)| (key, running.wanted));
        let mut recent: Vec<(Key, Wanted)> = known
            .wanted
            .into_iter()
            .chain(running)
            .filter(|(_, wanted)| {
                wanted.cause <= QueueReason::Change && now.saturating_duration_since(wanted.since) < RECENT
            })
            .collect();
        recent.sort_by(|(key, wanted), (other, other_wanted)| (wanted.since, key).cmp(&(other_wanted.since, other)));
        recent.into_iter().for_each(|(key, wanted)| schedule.resume(key, wanted, now));
        drop(schedule);
        self.wake.notify_one();
    }

    /// Returns the next key and the reason why it is queued. The key counts as running until [`Queue::done`].
    pub async fn next(&self) -> (Key, QueueReason) {
        loop {
            let wake = self.wake.notified();
            let taken = {
                let mut schedule = self.lock();
                let taken = schedule.take(Instant::now());
                if taken.is_ok() && !schedule.waiting.is_empty() {
                    // One wake-up may stand for several keys, so the next worker is woken as well.
                    self.wake.notify_one();
                }
                taken
            };
            match taken {
                Ok(next) => return next,
                Err(Some(due)) => tokio::select! { () = wake => {}, () = tokio::time::sleep_until(due) => {} },
                Err(None) => wake.await,
            }
        }
    }

    /// Returns the urgency of the pass over a running key, which rises if a target departs meanwhile.
    #[must_use]
    pub fn urgency(&self, key: &Key) -> Urgency {
        let schedule = self.lock();
        let running = schedule.running.get(key);
        running.map_or_else(|| Urgency::new(Priority::Edit), |running| running.urgency.clone())
    }

    /// Records that all targets of a running key that had to depart have been deregistered. Returns the time since when
    /// they had to, if there were any when the key began to run.
    pub fn has_departed(&self, key: &Key) -> Option<Instant> {
        self.lock().running.get_mut(key)?.wanted.departs_since.take()
    }

    /// Records the result of a pass over a key.
    pub fn done(&self, key: &Key, outcome: &Outcome) {
        self.lock().done(key, outcome, Instant::now());
        self.wake.notify_one();
    }

    /// Returns the number of keys that are ready and wait for a worker.
    #[must_use]
    pub fn due(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Returns the number of keys that wait, run or are delayed.
    #[must_use]
    pub fn depth(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + state.running.len() + state.delayed.len()
    }

    /// Returns the numbers of keys of each controller that has any.
    #[must_use]
    pub fn sizes(&self) -> BTreeMap<&'static str, QueueSize> {
        let (schedule, now) = (self.lock(), Instant::now());
        let mut sizes: BTreeMap<&'static str, QueueSize> = BTreeMap::new();
        for key in schedule.waiting.keys() {
            sizes.entry(controller_of(key)).or_default().waiting += 1;
        }
        for (key, running) in &schedule.running {
            let size = sizes.entry(controller_of(key)).or_default();
            let ran = now.saturating_duration_since(running.began);
            size.running += 1;
            size.unfinished += ran;
            size.longest = size.longest.max(ran);
        }
        sizes
    }

    /// Returns the contents of the queue.
    #[must_use]
    pub fn snapshot(&self) -> QueueState {
        let state = self.lock();
        let now = Instant::now();
        let mut running: Vec<String> = state.running.keys().map(ToString::to_string).collect();
        running.sort();
        QueueState {
            waiting: state.ready.values().flat_map(BTreeMap::values).map(ToString::to_string).collect(),
            running,
            pausing: state
                .delayed
                .iter()
                .map(|((due, _), key)| (key.to_string(), due.saturating_duration_since(now).as_secs_f64()))
                .collect(),
            errors: state.failures.iter().map(|(key, (_, error))| (key.to_string(), error.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
