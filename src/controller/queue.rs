//! The work queue: keys, each at most once waiting and at most once running, with a backoff of its own for each.
//!
//! Whatever happens to a key while it runs brings it back afterwards. A failed key waits from one second to two minutes, twice
//! as long each time; when something that concerns it changes, it is tried at once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::Notify, time::Instant};

use crate::model::{GroupId, ObjectName};

/// What owns something in AWS, and is worked on as one. Ordered by urgency: targets before load balancers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Key {
    /// A TargetGroupBinding: its targets.
    Binding(ObjectName),
    /// The rules on the security groups of nodes and pods, computed from all bindings.
    NodeRules,
    /// A group of Ingresses: its load balancer.
    Group(GroupId),
    /// The security group that all load balancers share, made with the first and deleted after the last.
    BackendSecurityGroup,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binding(name) => write!(f, "TargetGroupBinding {name}"),
            Self::NodeRules => f.write_str("rules of node security groups"),
            Self::Group(group) => write!(f, "Ingress group {group}"),
            Self::BackendSecurityGroup => f.write_str("shared backend security group"),
        }
    }
}

/// How work on a key ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to do until something changes.
    Done,
    /// To be looked at again, without anything having failed.
    Again(Duration),
    /// AWS is not ready for the rest; tried again soon, without being an error.
    NotYet,
    /// Failed; tried again with growing pauses.
    Failed(String),
}

const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
const LONGEST_NOT_YET: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
struct State {
    /// By urgency of the key, then by arrival.
    ready: BTreeMap<(u8, u64), Key>,
    waiting: HashSet<Key>,
    /// Running keys; `true` when something happened to it meanwhile.
    running: HashMap<Key, bool>,
    delayed: BTreeMap<(Instant, u64), Key>,
    delayed_until: HashMap<Key, (Instant, u64)>,
    failures: HashMap<Key, (u32, String)>,
    arrivals: u64,
}

/// The queue. Cheap to share behind an `Arc`.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Notify,
}

/// What the queue holds, for `/debug/state`.
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

fn urgency(key: &Key) -> u8 {
    match key {
        Key::Binding(_) => 0,
        Key::NodeRules => 1,
        Key::Group(_) => 2,
        Key::BackendSecurityGroup => 3,
    }
}

impl State {
    fn make_ready(&mut self, key: Key) {
        if let Some(at) = self.delayed_until.remove(&key) {
            self.delayed.remove(&at);
        }
        if self.waiting.insert(key.clone()) {
            self.arrivals += 1;
            self.ready.insert((urgency(&key), self.arrivals), key);
        }
    }

    fn delay(&mut self, key: Key, until: Instant) {
        if self.waiting.contains(&key) || self.delayed_until.get(&key).is_some_and(|(at, _)| *at <= until) {
            return;
        }
        if let Some(at) = self.delayed_until.remove(&key) {
            self.delayed.remove(&at);
        }
        self.arrivals += 1;
        let at = (until, self.arrivals);
        self.delayed_until.insert(key.clone(), at);
        self.delayed.insert(at, key);
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements that could panic, so a poisoned lock says nothing about it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants a key worked on as soon as possible.
    pub fn add(&self, key: Key) {
        let mut state = self.lock();
        match state.running.get_mut(&key) {
            Some(dirty) => *dirty = true,
            None => state.make_ready(key),
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Wants many keys worked on.
    pub fn add_all(&self, keys: impl IntoIterator<Item = Key>) {
        keys.into_iter().for_each(|key| self.add(key));
    }

    /// The next key; it counts as running until [`Queue::done`].
    pub async fn next(&self) -> Key {
        loop {
            let wake = self.wake.notified();
            let due = {
                let mut state = self.lock();
                let now = Instant::now();
                while let Some((&at, _)) = state.delayed.first_key_value().filter(|((due, _), _)| *due <= now) {
                    if let Some(key) = state.delayed.remove(&at) {
                        state.delayed_until.remove(&key);
                        state.make_ready(key);
                    }
                }
                if let Some((_, key)) = state.ready.pop_first() {
                    state.waiting.remove(&key);
                    state.running.insert(key.clone(), false);
                    let more = !state.ready.is_empty();
                    drop(state);
                    if more {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.delayed.first_key_value().map(|((due, _), _)| *due)
            };
            match due {
                Some(due) => tokio::select! { () = wake => {}, () = tokio::time::sleep_until(due) => {} },
                None => wake.await,
            }
        }
    }

    /// Takes note of how work on a key ended.
    pub fn done(&self, key: &Key, outcome: &Outcome) {
        let mut state = self.lock();
        let dirty = state.running.remove(key).unwrap_or_default();
        let pause = |failures: u32, longest: Duration| {
            SHORTEST_PAUSE.saturating_mul(1 << failures.min(10)).min(longest)
        };
        let failures = state.failures.get(key).map_or(0, |(n, _)| *n);
        let until = match outcome {
            Outcome::Done => {
                state.failures.remove(key);
                None
            }
            Outcome::Again(after) => {
                state.failures.remove(key);
                Some(*after)
            }
            Outcome::NotYet => {
                state.failures.insert(key.clone(), (failures + 1, "waiting for AWS to let go".to_owned()));
                Some(pause(failures, LONGEST_NOT_YET))
            }
            Outcome::Failed(error) => {
                state.failures.insert(key.clone(), (failures + 1, error.clone()));
                Some(pause(failures, LONGEST_PAUSE))
            }
        };
        if dirty {
            state.make_ready(key.clone());
        } else if let Some(after) = until {
            state.delay(key.clone(), Instant::now() + after);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// How many keys wait, run or pause.
    #[must_use]
    pub fn depth(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + state.running.len() + state.delayed.len()
    }

    /// What the queue holds.
    #[must_use]
    pub fn snapshot(&self) -> QueueState {
        let state = self.lock();
        let now = Instant::now();
        let mut running: Vec<String> = state.running.keys().map(ToString::to_string).collect();
        running.sort();
        QueueState {
            waiting: state.ready.values().map(ToString::to_string).collect(),
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
mod tests {
    use super::*;

    fn group(name: &str) -> Key {
        Key::Group(GroupId::Explicit(name.to_owned()))
    }

    fn binding(name: &str) -> Key {
        Key::Binding(ObjectName::new("shop", name))
    }

    async fn ready(queue: &Queue) -> Option<Key> {
        tokio::time::timeout(Duration::ZERO, queue.next()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_targets_come_first() {
        let queue = Queue::default();
        queue.add_all([group("a"), group("b"), group("a"), binding("x")]);
        assert_eq!(queue.next().await, binding("x"));
        assert_eq!(queue.next().await, group("a"));
        assert_eq!(queue.next().await, group("b"));
        assert_eq!(ready(&queue).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_to_a_running_key_brings_it_back_afterwards() {
        let queue = Queue::default();
        queue.add(group("a"));
        let key = queue.next().await;
        queue.add(group("a"));
        assert_eq!(ready(&queue).await, None);
        queue.done(&key, &Outcome::Done);
        assert_eq!(ready(&queue).await, Some(group("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_pause_twice_as_long_each_time_until_a_success() {
        let queue = Queue::default();
        queue.add(group("a"));
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let key = queue.next().await;
            let started = Instant::now();
            queue.done(&key, &Outcome::Failed("no".into()));
            let key = queue.next().await;
            pauses.push(started.elapsed().as_secs());
            queue.done(&key, &Outcome::Failed("no".into()));
            // The second failure of each round is undone by its pause being skipped.
            queue.add(group("a"));
        }
        assert_eq!(pauses, [1, 4, 16, 64, 120, 120, 120, 120, 120]);
        let key = queue.next().await;
        queue.done(&key, &Outcome::Done);
        queue.add(group("a"));
        let key = queue.next().await;
        let started = Instant::now();
        queue.done(&key, &Outcome::Failed("no".into()));
        queue.next().await;
        assert_eq!(started.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pausing_key_is_tried_at_once_when_something_changes() {
        let queue = Queue::default();
        queue.add(group("a"));
        let key = queue.next().await;
        queue.done(&key, &Outcome::Again(Duration::from_secs(600)));
        assert_eq!(ready(&queue).await, None);
        queue.add(group("a"));
        assert_eq!(ready(&queue).await, Some(group("a")));
        queue.done(&group("a"), &Outcome::Done);
        assert_eq!(queue.depth(), 0);
    }
}
