//! The work queue: keys, each at most once waiting and at most once running, with a backoff of its own for each.
//!
//! Load balancers and targets have lanes of their own, each with its workers, so neither can take the other's. In a lane
//! changes come before resyncs and resyncs before audits; among equals the namespaces whose objects changed take turns.
//! Changed rules of nodes come first, because every binding and many stacks wait for them, but at most once a second.
//!
//! A change of a key while it runs brings it back afterwards. A failed key waits from one second to two minutes, twice
//! as long each time; when an object on which it depends changes, it is tried after a second at the latest.

mod schedule;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::Notify, time::Instant};

use albatross_core::dependents::Key;

use schedule::{Lane, RECENT, Schedule, Wanted, namespace_of};

/// The end of work on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to do until something changes.
    Done,
    /// Nothing can be done until an object is corrected, which brings the key back; the text is the error.
    NeedsCorrection(String),
    /// To be looked at again, without anything having failed.
    Again(Duration),
    /// AWS is not ready for the rest; tried again soon, without being an error.
    NotYet,
    /// Failed; tried again with growing pauses.
    Failed(String),
}

/// The reason for which a key is worked on, the most urgent first; of several the most urgent counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueueReason {
    /// Something that concerns it has changed; it may be due to be looked at again as well.
    Change,
    /// It is looked at again, though nothing is known to have changed.
    Resync,
    /// It is compared with AWS again, though nothing is known to have changed there either.
    Audit,
}

/// The queue. Cheap to share behind an `Arc`.
#[derive(Debug, Default)]
pub struct Queue {
    schedule: Mutex<Schedule>,
    wake: Notify,
}

/// The contents of the queue, for `/debug/state`.
#[derive(Debug, Serialize)]
pub struct QueueState {
    /// Ready to be worked on.
    pub waiting: Vec<String>,
    /// Being worked on.
    pub running: Vec<String>,
    /// Pausing, with the seconds that are left.
    pub pausing: BTreeMap<String, f64>,
    /// The last error of each key that failed last time.
    pub errors: BTreeMap<String, String>,
}

impl Queue {
    /// A queue that gives out so many keys of load balancers and so many of targets at once, and no more. With as many
    /// workers as both together, neither waits for the other's, however long those take.
    #[must_use]
    pub fn with_max_concurrent(load_balancers: usize, targets: usize) -> Self {
        let most = BTreeMap::from([(Lane::Targets, targets.max(1)), (Lane::LoadBalancers, load_balancers.max(1))]);
        Self { schedule: Mutex::new(Schedule { most, ..Schedule::default() }), wake: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        // The schedule is consistent between any two statements that could panic, so a poisoned lock says nothing about it.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a key for work as soon as possible, because something that concerns it has changed.
    pub fn add(&self, key: Key) {
        self.add_for(QueueReason::Change, key);
    }

    fn add_for(&self, cause: QueueReason, key: Key) {
        let tenant = namespace_of(&key).to_owned();
        self.lock().add(key, &tenant, cause, Instant::now());
        self.wake.notify_one();
    }

    /// Queues many keys.
    pub fn add_all(&self, keys: impl IntoIterator<Item = Key>) {
        keys.into_iter().for_each(|key| self.add(key));
    }

    /// Queues keys because of an object of this namespace (empty for objects without one), which changed.
    pub fn changed(&self, namespace: &str, keys: impl IntoIterator<Item = Key>) {
        let (mut schedule, now) = (self.lock(), Instant::now());
        keys.into_iter().for_each(|key| schedule.add(key, namespace, QueueReason::Change, now));
        drop(schedule);
        self.wake.notify_one();
    }

    /// Queues many keys to be looked at, though nothing has changed.
    pub fn resync(&self, keys: impl IntoIterator<Item = Key>) {
        keys.into_iter().for_each(|key| self.add_for(QueueReason::Resync, key));
    }

    /// Queues a key to be compared with AWS again, when nothing else is to do.
    pub fn audit(&self, key: Key) {
        self.add_for(QueueReason::Audit, key);
    }

    /// Begins a term, after everything of the last has ended: only changes of the last minute are left, which may not yet
    /// have been worked on.
    pub fn begin_term(&self) {
        let (mut schedule, now) = (self.lock(), Instant::now());
        let known = std::mem::take(&mut *schedule);
        schedule.most = known.most;
        let running = known.running.into_iter().map(|(key, running)| (key, running.wanted));
        let mut recent: Vec<(Key, Wanted)> = known
            .wanted
            .into_iter()
            .chain(running)
            .filter(|(_, wanted)| {
                wanted.cause == QueueReason::Change && now.saturating_duration_since(wanted.since) < RECENT
            })
            .collect();
        recent.sort_by(|(key, wanted), (other, other_wanted)| (wanted.since, key).cmp(&(other_wanted.since, other)));
        for (key, wanted) in recent {
            for tenant in &wanted.tenants {
                schedule.add(key.clone(), tenant, QueueReason::Change, wanted.since);
            }
        }
        drop(schedule);
        self.wake.notify_one();
    }

    /// The next key, and why it is to be worked on; it counts as running until [`Queue::done`].
    pub async fn next(&self) -> (Key, QueueReason) {
        loop {
            let wake = self.wake.notified();
            let taken = {
                let mut schedule = self.lock();
                let taken = schedule.take(Instant::now());
                if taken.is_ok() && !schedule.waiting.is_empty() {
                    // One wake-up may stand for several keys; pass it on to the next worker.
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

    /// Takes note of the way in which work on a key ended.
    pub fn done(&self, key: &Key, outcome: &Outcome) {
        self.lock().done(key, outcome, Instant::now());
        self.wake.notify_one();
    }

    /// Returns the number of keys that are due and wait for a worker.
    #[must_use]
    pub fn due(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Returns the number of keys that wait, run or pause.
    #[must_use]
    pub fn depth(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + state.running.len() + state.delayed.len()
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
