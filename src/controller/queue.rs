//! The work queue: keys, each at most once waiting and at most once running, with a backoff of its own for each.
//!
//! Whatever happens to a key while it runs brings it back afterwards. A failed key waits from one second to two minutes, twice
//! as long each time; when something that concerns it changes, it is tried after a second at the latest.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::Notify, time::Instant};

use crate::model::{ObjectName, StackId};

/// What owns something in AWS, and is worked on as one. Ordered by urgency: targets before load balancers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Key {
    /// A TargetGroupBinding: its targets.
    Binding(ObjectName),
    /// The rules on the security groups of nodes and pods, computed from all bindings.
    NodeRules,
    /// A group of Ingresses, or a Service: its load balancer.
    Stack(StackId),
    /// The security group that all load balancers share, made with the first and deleted after the last.
    BackendSecurityGroup,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binding(name) => write!(f, "TargetGroupBinding {name}"),
            Self::NodeRules => f.write_str("rules of node security groups"),
            Self::Stack(StackId::Service(name)) => write!(f, "Service {name}"),
            Self::Stack(stack) => write!(f, "Ingress group {stack}"),
            Self::BackendSecurityGroup => f.write_str("shared backend security group"),
        }
    }
}

/// How work on a key ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to do until something changes.
    Done,
    /// Nothing can be done until an object is mended, which brings the key back; the text says what is wrong.
    SetAside(String),
    /// To be looked at again, without anything having failed.
    Again(Duration),
    /// AWS is not ready for the rest; tried again soon, without being an error.
    NotYet,
    /// Failed; tried again with growing pauses.
    Failed(String),
}

/// Why a key is worked on, the most urgent first; of several the most urgent counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Something that concerns it has changed, perhaps besides being looked at again.
    Change,
    /// It is looked at again, though nothing is known to have changed.
    Resync,
    /// It is compared with AWS anew, though nothing is known to have changed there either.
    Audit,
}

const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
const LONGEST_NOT_YET: Duration = Duration::from_secs(15);

/// A key that is being worked on.
#[derive(Debug)]
struct Running {
    /// Whether it was wanted once more meanwhile.
    wanted: bool,
    cause: Cause,
}

/// The queue's decisions, with the time given from outside.
#[derive(Debug, Default)]
struct Schedule {
    /// By urgency of the key, then by arrival.
    ready: BTreeMap<(u8, u64), Key>,
    waiting: HashSet<Key>,
    running: HashMap<Key, Running>,
    /// Why each key is wanted.
    causes: HashMap<Key, Cause>,
    delayed: BTreeMap<(Instant, u64), Key>,
    delayed_until: HashMap<Key, (Instant, u64)>,
    failures: HashMap<Key, (u32, String)>,
    /// When a key that pauses after a failure may be tried again at the earliest, whatever happens to it.
    resting: HashMap<Key, Instant>,
    /// Keys whose pause an event has shortened: that they fail again does not make their pauses longer.
    hurried: HashSet<Key>,
    arrivals: u64,
    /// How many keys of load balancers may run at once; `None` is no limit.
    most_slow: Option<usize>,
}

/// The queue. Cheap to share behind an `Arc`.
#[derive(Debug, Default)]
pub struct Queue {
    schedule: Mutex<Schedule>,
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
        Key::Stack(_) => GROUPS,
        Key::BackendSecurityGroup => 3,
    }
}

/// The urgency from which on keys may take minutes, while AWS throttles.
const GROUPS: u8 = 2;

impl Schedule {
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

impl Schedule {
    fn cause(&mut self, key: &Key, cause: Cause) {
        let wanted = self.causes.entry(key.clone()).or_insert(cause);
        *wanted = cause.min(*wanted);
    }

    fn add(&mut self, key: Key, cause: Cause, now: Instant) {
        self.cause(&key, cause);
        match self.running.get_mut(&key) {
            Some(running) => running.wanted = true,
            None => self.hurry(key, now),
        }
    }

    /// Something has happened to a key, so a long pause has lost its reason; but while AWS fails, and pods come and go, it
    /// is tried no more often than after the shortest.
    fn hurry(&mut self, key: Key, now: Instant) {
        match self.resting.get(&key).copied().filter(|until| *until > now) {
            Some(until) => {
                self.hurried.insert(key.clone());
                self.delay(key, until);
            }
            None => {
                if self.delayed_until.contains_key(&key) {
                    self.hurried.insert(key.clone());
                }
                self.make_ready(key);
            }
        }
    }

    /// The next key and why it is to be worked on, or when the next pause ends.
    fn take(&mut self, now: Instant) -> Result<(Key, Cause), Option<Instant>> {
        while let Some((&at, _)) = self.delayed.first_key_value().filter(|((due, _), _)| *due <= now) {
            if let Some(key) = self.delayed.remove(&at) {
                self.delayed_until.remove(&key);
                self.make_ready(key);
            }
        }
        let next = self.ready.first_entry().filter(|first| {
            let slow = |key: &Key| urgency(key) >= GROUPS;
            // What comes behind it is no more urgent.
            !slow(first.get())
                || self.most_slow.is_none_or(|most| self.running.keys().filter(|k| slow(k)).count() < most)
        });
        let Some(key) = next.map(std::collections::btree_map::OccupiedEntry::remove) else {
            return Err(self.delayed.first_key_value().map(|((due, _), _)| *due));
        };
        self.waiting.remove(&key);
        let cause = self.causes.remove(&key).unwrap_or(Cause::Resync);
        self.running.insert(key.clone(), Running { wanted: false, cause });
        Ok((key, cause))
    }

    fn done(&mut self, key: &Key, outcome: &Outcome, now: Instant) {
        let ran = self.running.remove(key);
        let finished = matches!(outcome, Outcome::Done | Outcome::SetAside(_));
        if let Some(ran) = ran.as_ref().filter(|_| !finished) {
            self.cause(key, ran.cause);
        }
        let pause =
            |failures: u32, longest: Duration| SHORTEST_PAUSE.saturating_mul(1 << failures.min(10)).min(longest);
        let hurried = self.hurried.remove(key);
        let failures = self.failures.get(key).map_or(0, |(n, _)| if hurried { n.saturating_sub(1) } else { *n });
        self.resting.remove(key);
        let after = match outcome {
            Outcome::Done => {
                self.failures.remove(key);
                None
            }
            Outcome::SetAside(error) => {
                self.failures.insert(key.clone(), (0, error.clone()));
                None
            }
            Outcome::Again(after) => {
                self.failures.remove(key);
                Some(*after)
            }
            Outcome::NotYet => {
                self.failures.insert(key.clone(), (failures + 1, "waiting for AWS to let go".to_owned()));
                Some(pause(failures, LONGEST_NOT_YET))
            }
            Outcome::Failed(error) => {
                self.failures.insert(key.clone(), (failures + 1, error.clone()));
                self.resting.insert(key.clone(), now + SHORTEST_PAUSE);
                Some(pause(failures, LONGEST_PAUSE))
            }
        };
        if ran.is_some_and(|ran| ran.wanted) {
            self.hurry(key.clone(), now);
        } else if let Some(after) = after {
            self.delay(key.clone(), now + after);
        }
    }
}

impl Queue {
    /// A queue that gives out so many keys of load balancers at once, and no more: whoever else works is left for targets,
    /// however long load balancers take.
    #[must_use]
    pub fn with_most_load_balancers(most: usize) -> Self {
        let schedule = Schedule { most_slow: Some(most.max(1)), ..Schedule::default() };
        Self { schedule: Mutex::new(schedule), wake: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        // The schedule is consistent between any two statements that could panic, so a poisoned lock says nothing about it.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants a key worked on as soon as possible, because something that concerns it has changed.
    pub fn add(&self, key: Key) {
        self.add_for(Cause::Change, key);
    }

    fn add_for(&self, cause: Cause, key: Key) {
        self.lock().add(key, cause, Instant::now());
        self.wake.notify_one();
    }

    /// Wants many keys worked on.
    pub fn add_all(&self, keys: impl IntoIterator<Item = Key>) {
        keys.into_iter().for_each(|key| self.add(key));
    }

    /// Wants many keys looked at, though nothing has changed.
    pub fn resync(&self, keys: impl IntoIterator<Item = Key>) {
        keys.into_iter().for_each(|key| self.add_for(Cause::Resync, key));
    }

    /// Wants a key compared with AWS anew, when nothing else is to do.
    pub fn audit(&self, key: Key) {
        self.add_for(Cause::Audit, key);
    }

    /// Begins anew at the start of a term, with nothing in it: whoever worked before has ended.
    pub fn clear(&self) {
        let mut schedule = self.lock();
        *schedule = Schedule { most_slow: schedule.most_slow, ..Schedule::default() };
    }

    /// The next key, and why it is to be worked on; it counts as running until [`Queue::done`].
    pub async fn next(&self) -> (Key, Cause) {
        loop {
            let wake = self.wake.notified();
            let taken = {
                let mut schedule = self.lock();
                let taken = schedule.take(Instant::now());
                if taken.is_ok() && !schedule.ready.is_empty() {
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

    /// Takes note of how work on a key ended.
    pub fn done(&self, key: &Key, outcome: &Outcome) {
        self.lock().done(key, outcome, Instant::now());
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
        Key::Stack(StackId::Group(name.to_owned()))
    }

    fn binding(name: &str) -> Key {
        Key::Binding(ObjectName::new("shop", name))
    }

    fn take_all(schedule: &mut Schedule, now: Instant) -> Vec<Key> {
        std::iter::from_fn(|| schedule.take(now).ok()).map(|(key, _)| key).collect()
    }

    #[test]
    fn a_key_waits_once_and_targets_come_first() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        for key in [group("a"), group("b"), group("a"), binding("x")] {
            schedule.add(key, Cause::Change, now);
        }
        assert_eq!(take_all(&mut schedule, now), [binding("x"), group("a"), group("b")]);
    }

    #[test]
    fn what_happens_to_a_running_key_brings_it_back_afterwards() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.add(group("a"), Cause::Change, now);
        assert_eq!(schedule.take(now), Ok((group("a"), Cause::Change)));
        schedule.add(group("a"), Cause::Change, now);
        assert_eq!(schedule.take(now), Err(None));
        schedule.done(&group("a"), &Outcome::Done, now);
        assert_eq!(schedule.take(now), Ok((group("a"), Cause::Change)));
    }

    #[test]
    fn a_change_counts_until_a_pass_has_finished_with_it() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        let again = |schedule: &mut Schedule, outcome: &Outcome, now: &mut Instant| {
            schedule.done(&group("a"), outcome, *now);
            *now += LONGEST_PAUSE;
            schedule.take(*now).map(|(_, cause)| cause)
        };
        schedule.add(group("a"), Cause::Resync, now);
        assert_eq!(schedule.take(now), Ok((group("a"), Cause::Resync)));
        assert_eq!(again(&mut schedule, &Outcome::Failed("no".into()), &mut now), Ok(Cause::Resync));
        // Both, in whatever order, are a change; also when it happens while a resync is under way.
        schedule.add(group("a"), Cause::Change, now);
        schedule.add(group("a"), Cause::Resync, now);
        for outcome in [Outcome::Done, Outcome::Failed("no".into()), Outcome::NotYet] {
            assert_eq!(again(&mut schedule, &outcome, &mut now), Ok(Cause::Change), "{outcome:?}");
        }
        schedule.add(group("a"), Cause::Audit, now);
        schedule.add(group("a"), Cause::Resync, now);
        assert_eq!(again(&mut schedule, &Outcome::Done, &mut now), Ok(Cause::Resync));
        schedule.add(group("a"), Cause::Audit, now);
        assert_eq!(again(&mut schedule, &Outcome::Done, &mut now), Ok(Cause::Audit));
        assert_eq!(again(&mut schedule, &Outcome::Done, &mut now), Err(None));
    }

    #[test]
    fn at_the_start_of_a_term_nothing_is_news() {
        let (queue, now) = (Queue::default(), Instant::now());
        ["gone", "a", "failed"].into_iter().for_each(|name| queue.add(group(name)));
        assert_eq!(queue.lock().take(now), Ok((group("gone"), Cause::Change)));
        assert_eq!(queue.lock().take(now), Ok((group("a"), Cause::Change)));
        queue.done(&group("a"), &Outcome::Failed("no".into()));
        queue.clear();
        assert_eq!(queue.depth(), 0);
        queue.resync([group("a"), group("b")]);
        queue.add(group("c"));
        let taken: Vec<_> = std::iter::from_fn(|| queue.lock().take(now).ok()).collect();
        let (resync, change) = (Cause::Resync, Cause::Change);
        assert_eq!(taken, [(group("a"), resync), (group("b"), resync), (group("c"), change)]);
    }

    #[test]
    fn failures_pause_twice_as_long_each_time_until_a_success() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        schedule.add(group("a"), Cause::Change, now);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(schedule.take(now), Ok((group("a"), Cause::Change)));
            schedule.done(&group("a"), &Outcome::Failed("no".into()), now);
            let due = schedule.take(now).unwrap_err().unwrap();
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
        assert_eq!(schedule.take(now), Ok((group("a"), Cause::Change)));
        schedule.done(&group("a"), &Outcome::Done, now);
        schedule.add(group("a"), Cause::Change, now);
        assert_eq!(schedule.take(now), Ok((group("a"), Cause::Change)));
        schedule.done(&group("a"), &Outcome::Failed("no".into()), now);
        assert_eq!(schedule.take(now), Err(Some(now + Duration::from_secs(1))));
    }

    #[test]
    fn events_shorten_a_pause_and_make_no_later_one_longer() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        schedule.add(binding("x"), Cause::Change, now);
        assert_eq!(schedule.take(now), Ok((binding("x"), Cause::Change)));
        let second = Duration::from_secs(1);
        // Pods come and go all the time while AWS fails: some before the shortest pause is over, some during the attempt.
        for _ in 0..20 {
            schedule.done(&binding("x"), &Outcome::Failed("no".into()), now);
            schedule.add(binding("x"), Cause::Change, now + Duration::from_millis(10));
            assert_eq!(schedule.take(now + Duration::from_millis(20)), Err(Some(now + second)));
            now += second;
            assert_eq!(schedule.take(now), Ok((binding("x"), Cause::Change)));
            schedule.add(binding("x"), Cause::Change, now);
        }
        schedule.done(&binding("x"), &Outcome::Failed("no".into()), now);
        assert_eq!(schedule.take(now), Err(Some(now + second)));
        // Left alone, the pauses grow from where they were.
        now += second;
        for seconds in [1, 2, 4] {
            assert_eq!(schedule.take(now), Ok((binding("x"), Cause::Change)));
            schedule.done(&binding("x"), &Outcome::Failed("no".into()), now);
            now += Duration::from_secs(seconds);
        }
        // A pause that was longer than the shortest ends at once.
        assert_eq!(schedule.take(now), Ok((binding("x"), Cause::Change)));
        schedule.done(&binding("x"), &Outcome::Failed("no".into()), now);
        schedule.add(binding("x"), Cause::Change, now + second * 3);
        assert_eq!(schedule.take(now + second * 3), Ok((binding("x"), Cause::Change)));
    }

    #[test]
    fn load_balancers_leave_workers_for_targets() {
        let mut schedule = Schedule { most_slow: Some(2), ..Schedule::default() };
        let now = Instant::now();
        for key in [group("a"), group("b"), group("c"), Key::BackendSecurityGroup] {
            schedule.add(key, Cause::Change, now);
        }
        assert_eq!(take_all(&mut schedule, now), [group("a"), group("b")]);
        schedule.add(binding("x"), Cause::Change, now);
        schedule.add(Key::NodeRules, Cause::Change, now);
        assert_eq!(take_all(&mut schedule, now), [binding("x"), Key::NodeRules]);
        schedule.done(&group("a"), &Outcome::Failed("no".into()), now);
        assert_eq!(schedule.take(now), Ok((group("c"), Cause::Change)));
        assert_eq!(schedule.take(now), Err(Some(now + Duration::from_secs(1))));
        schedule.done(&group("b"), &Outcome::Done, now);
        assert_eq!(schedule.take(now), Ok((Key::BackendSecurityGroup, Cause::Change)));
    }

    #[test]
    fn what_is_set_aside_waits_for_its_object_and_keeps_its_error() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.add(group("a"), Cause::Change, now);
        assert_eq!(schedule.take(now), Ok((group("a"), Cause::Change)));
        schedule.done(&group("a"), &Outcome::SetAside("wrong scheme".into()), now);
        assert_eq!(schedule.take(now), Err(None));
        assert_eq!(schedule.failures.get(&group("a")), Some(&(0, "wrong scheme".to_owned())));
    }

    #[test]
    fn a_pausing_key_is_tried_at_once_when_something_changes() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.add(group("a"), Cause::Change, now);
        assert_eq!(schedule.take(now), Ok((group("a"), Cause::Change)));
        schedule.done(&group("a"), &Outcome::Again(Duration::from_secs(600)), now);
        assert_eq!(schedule.take(now), Err(Some(now + Duration::from_secs(600))));
        schedule.add(group("a"), Cause::Change, now);
        assert_eq!(schedule.take(now), Ok((group("a"), Cause::Change)));
        schedule.done(&group("a"), &Outcome::Done, now);
        assert_eq!(schedule.take(now), Err(None));
    }
}
