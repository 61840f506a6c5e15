//! The work queue: keys, each at most once waiting and at most once running, with a backoff of its own for each.
//!
//! Load balancers and targets have lanes of their own, each with its workers, so neither can take the other's. In a lane
//! changes come before resyncs and resyncs before audits; among equals the namespaces whose objects changed take turns.
//! Changed rules of nodes come first, because every binding and many stacks wait for them, but at most once a second.
//!
//! A change of a key while it runs brings it back afterwards. A failed key waits from one second to two minutes, twice
//! as long each time; when an object on which it depends changes, it is tried after a second at the latest.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::Notify, time::Instant};

use albatross_core::{dependents::Key, model::StackId};

/// How work on a key ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to do until something changes.
    Done,
    /// Nothing can be done until an object is corrected, which brings the key back; the text says what is wrong.
    NeedsCorrection(String),
    /// To be looked at again, without anything having failed.
    Again(Duration),
    /// AWS is not ready for the rest; tried again soon, without being an error.
    NotYet,
    /// Failed; tried again with growing pauses.
    Failed(String),
}

/// Why a key is worked on, the most urgent first; of several the most urgent counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueueReason {
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
/// Changes of this age still count as such when a term begins: they fell into the time without a leader.
const RECENT: Duration = Duration::from_secs(60);

/// Keys that share workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Lane {
    /// Bindings and the rules of nodes.
    Targets,
    /// Load balancers: a pass may take minutes while AWS throttles.
    LoadBalancers,
}

fn lane(key: &Key) -> Lane {
    match key {
        Key::Binding(_) | Key::NodeRules => Lane::Targets,
        Key::Stack(_) | Key::BackendSecurityGroup => Lane::LoadBalancers,
    }
}

/// Returns whether one pass over the key stands for all objects, so that it is nobody's turn.
fn is_of_all(key: &Key) -> bool {
    matches!(key, Key::NodeRules | Key::BackendSecurityGroup)
}

/// The namespace of a key's object; empty for keys of several namespaces.
fn namespace_of(key: &Key) -> &str {
    match key {
        Key::Binding(name) | Key::Stack(StackId::Ingress(name) | StackId::Service(name)) => &name.namespace,
        Key::Stack(StackId::Group(_)) | Key::NodeRules | Key::BackendSecurityGroup => "",
    }
}

/// Why a key is wanted, and by whom.
#[derive(Clone, Debug)]
struct Wanted {
    cause: QueueReason,
    /// The key's own namespace, or where it is of several those whose objects changed: it has the earliest of their turns.
    tenants: BTreeSet<String>,
    since: Instant,
}

impl Wanted {
    fn new(key: &Key, tenant: &str, cause: QueueReason, since: Instant) -> Self {
        // What others set off for a key takes no turn of theirs.
        let own = Some(namespace_of(key)).filter(|own| !own.is_empty());
        Self { cause, tenants: [own.unwrap_or(tenant).to_owned()].into(), since }
    }
}

/// A key that is being worked on.
#[derive(Debug)]
struct Running {
    /// Set when it was wanted once more meanwhile.
    again: bool,
    wanted: Wanted,
}

/// Where a key stands in its lane: by cause, then by its tenant's turn, then by arrival.
type QueuePosition = (QueueReason, u64, u64);

/// Turns of the tenants among keys of one lane and cause: the n-th waiting key of a tenant has the n-th turn from now.
#[derive(Debug, Default)]
struct Turns {
    now: u64,
    /// By tenant: its last turn, and how many keys of it wait.
    last: HashMap<String, (u64, usize)>,
    /// The last turn of all that wait.
    highest: u64,
}

impl Turns {
    /// Returns the next turn of a key, and the tenant whose turn it is. Changed rules of nodes come first; anything else that
    /// is of all objects comes after them.
    fn next(&self, key: &Key, wanted: &Wanted) -> (u64, Option<String>) {
        if is_of_all(key) {
            let is_first = *key == Key::NodeRules && wanted.cause == QueueReason::Change;
            return (if is_first { 0 } else { self.highest.max(self.now) }, None);
        }
        let next = |tenant: &String| self.last.get(tenant).map_or(self.now, |(last, _)| self.now.max(*last)) + 1;
        let turns = wanted.tenants.iter().map(|tenant| (next(tenant), Some(tenant.clone())));
        turns.min().unwrap_or((self.now + 1, None))
    }

    fn enter(&mut self, tenant: Option<&str>, turn: u64) {
        self.highest = self.highest.max(turn);
        let Some(tenant) = tenant else { return };
        let (last, waiting) = self.last.entry(tenant.to_owned()).or_default();
        *last = turn.max(*last);
        *waiting += 1;
    }

    fn leave(&mut self, tenant: Option<&str>) {
        let Some(tenant) = tenant else { return };
        if let Some((_, waiting)) = self.last.get_mut(tenant) {
            *waiting -= 1;
            if *waiting == 0 {
                self.last.remove(tenant);
            }
        }
    }
}

/// The queue's decisions, with the time given from outside.
#[derive(Debug, Default)]
struct Schedule {
    ready: BTreeMap<Lane, BTreeMap<QueuePosition, Key>>,
    /// The places of the keys in `ready`, and whose turns they use.
    waiting: HashMap<Key, (QueuePosition, Option<String>)>,
    turns: HashMap<(Lane, QueueReason), Turns>,
    running: HashMap<Key, Running>,
    /// Why each key is wanted that waits, pauses, or is wanted again while it runs.
    wanted: HashMap<Key, Wanted>,
    delayed: BTreeMap<(Instant, u64), Key>,
    delayed_until: HashMap<Key, (Instant, u64)>,
    failures: HashMap<Key, (u32, String)>,
    /// When a key that pauses after a failure, or the rules of nodes, may be worked on again at the earliest.
    resting: HashMap<Key, Instant>,
    /// Keys whose pause an event has shortened: that they fail again does not make their pauses longer.
    hurried: HashSet<Key>,
    arrivals: u64,
    /// How many keys of each lane may run at once; a lane without a number has no limit.
    most: BTreeMap<Lane, usize>,
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

impl Schedule {
    fn make_ready(&mut self, key: Key, now: Instant) {
        if let Some(at) = self.delayed_until.remove(&key) {
            self.delayed.remove(&at);
        }
        let lane = lane(&key);
        let wanted = self.wanted.get(&key).cloned();
        let wanted = wanted.unwrap_or_else(|| Wanted::new(&key, namespace_of(&key), QueueReason::Resync, now));
        let cause = wanted.cause;
        let (turn, tenant) = self.turns.entry((lane, cause)).or_default().next(&key, &wanted);
        if let Some((place, _)) = self.waiting.get(&key) {
            // Wanted for something more urgent, or by a tenant whose turn is earlier.
            if (cause, turn) >= (place.0, place.1) {
                return;
            }
            self.leave(&key);
        }
        self.arrivals += 1;
        let place = (cause, turn, self.arrivals);
        self.turns.entry((lane, cause)).or_default().enter(tenant.as_deref(), turn);
        self.ready.entry(lane).or_default().insert(place, key.clone());
        self.waiting.insert(key, (place, tenant));
    }

    /// Takes a key out of its lane.
    fn leave(&mut self, key: &Key) {
        let Some((place, tenant)) = self.waiting.remove(key) else { return };
        let lane = lane(key);
        if let Some(ready) = self.ready.get_mut(&lane) {
            ready.remove(&place);
        }
        if let Some(turns) = self.turns.get_mut(&(lane, place.0)) {
            turns.leave(tenant.as_deref());
        }
    }

    fn delay(&mut self, key: Key, until: Instant) {
        if self.waiting.contains_key(&key) || self.delayed_until.get(&key).is_some_and(|(at, _)| *at <= until) {
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

    fn want(&mut self, key: &Key, by: Wanted) {
        match self.wanted.get_mut(key) {
            Some(wanted) if by.cause < wanted.cause => *wanted = by,
            Some(wanted) if by.cause == wanted.cause => wanted.tenants.extend(by.tenants),
            Some(_) => {}
            None => drop(self.wanted.insert(key.clone(), by)),
        }
    }

    fn add(&mut self, key: Key, tenant: &str, cause: QueueReason, now: Instant) {
        self.want(&key, Wanted::new(&key, tenant, cause, now));
        match self.running.get_mut(&key) {
            Some(running) => running.again = true,
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
                self.make_ready(key, now);
            }
        }
    }

    /// Returns the first key of a lane for which there is a worker. One worker of several is kept for changes.
    fn first(&self, lane: Lane) -> Option<Key> {
        let (place, key) = self.ready.get(&lane)?.first_key_value()?;
        let running = || self.running.iter().filter(|(key, _)| self::lane(key) == lane);
        if let Some(most) = self.most.get(&lane) {
            let at_leisure = running().filter(|(_, r)| r.wanted.cause != QueueReason::Change).count();
            let room = running().count() < *most;
            if !room || place.0 != QueueReason::Change && at_leisure >= (*most - 1).max(1) {
                return None;
            }
        }
        Some(key.clone())
    }

    /// The next key and why it is to be worked on, or when the next pause ends.
    fn take(&mut self, now: Instant) -> Result<(Key, QueueReason), Option<Instant>> {
        while let Some((&at, _)) = self.delayed.first_key_value().filter(|((due, _), _)| *due <= now) {
            if let Some(key) = self.delayed.remove(&at) {
                self.delayed_until.remove(&key);
                self.make_ready(key, now);
            }
        }
        let Some(key) = [Lane::Targets, Lane::LoadBalancers].into_iter().find_map(|lane| self.first(lane)) else {
            return Err(self.delayed.first_key_value().map(|((due, _), _)| *due));
        };
        if let Some((place, _)) = self.waiting.get(&key).cloned()
            && let Some(turns) = self.turns.get_mut(&(lane(&key), place.0))
        {
            turns.now = turns.now.max(place.1);
        }
        self.leave(&key);
        let wanted = self.wanted.remove(&key);
        let wanted = wanted.unwrap_or_else(|| Wanted::new(&key, namespace_of(&key), QueueReason::Resync, now));
        let cause = wanted.cause;
        self.running.insert(key.clone(), Running { again: false, wanted });
        Ok((key, cause))
    }

    fn done(&mut self, key: &Key, outcome: &Outcome, now: Instant) {
        let ran = self.running.remove(key);
        let finished = matches!(outcome, Outcome::Done | Outcome::NeedsCorrection(_));
        if let Some(ran) = ran.as_ref().filter(|_| !finished) {
            self.want(key, ran.wanted.clone());
        }
        let pause =
            |failures: u32, longest: Duration| SHORTEST_PAUSE.saturating_mul(1 << failures.min(10)).min(longest);
        let hurried = self.hurried.remove(key);
        let failures = self.failures.get(key).map_or(0, |(n, _)| if hurried { n.saturating_sub(1) } else { *n });
        self.resting.remove(key);
        if *key == Key::NodeRules {
            // One run stands for all bindings that ask for it meanwhile.
            self.resting.insert(key.clone(), now + SHORTEST_PAUSE);
        }
        let after = match outcome {
            Outcome::Done => {
                self.failures.remove(key);
                None
            }
            Outcome::NeedsCorrection(error) => {
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
        if ran.is_some_and(|ran| ran.again) {
            self.hurry(key.clone(), now);
        } else if let Some(after) = after {
            self.delay(key.clone(), now + after);
        }
    }
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

    /// Wants a key worked on as soon as possible, because something that concerns it has changed.
    pub fn add(&self, key: Key) {
        self.add_for(QueueReason::Change, key);
    }

    fn add_for(&self, cause: QueueReason, key: Key) {
        let tenant = namespace_of(&key).to_owned();
        self.lock().add(key, &tenant, cause, Instant::now());
        self.wake.notify_one();
    }

    /// Wants many keys worked on.
    pub fn add_all(&self, keys: impl IntoIterator<Item = Key>) {
        keys.into_iter().for_each(|key| self.add(key));
    }

    /// Wants keys worked on because of an object of this namespace (empty for objects without one), which changed.
    pub fn changed(&self, namespace: &str, keys: impl IntoIterator<Item = Key>) {
        let (mut schedule, now) = (self.lock(), Instant::now());
        keys.into_iter().for_each(|key| schedule.add(key, namespace, QueueReason::Change, now));
        drop(schedule);
        self.wake.notify_one();
    }

    /// Wants many keys looked at, though nothing has changed.
    pub fn resync(&self, keys: impl IntoIterator<Item = Key>) {
        keys.into_iter().for_each(|key| self.add_for(QueueReason::Resync, key));
    }

    /// Wants a key compared with AWS anew, when nothing else is to do.
    pub fn audit(&self, key: Key) {
        self.add_for(QueueReason::Audit, key);
    }

    /// Begins a term, after everything of the last has ended: only changes of the last minute are left, which nobody may
    /// have worked on.
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

    /// Takes note of how work on a key ended.
    pub fn done(&self, key: &Key, outcome: &Outcome) {
        self.lock().done(key, outcome, Instant::now());
        self.wake.notify_one();
    }

    /// How many keys are due and wait for a worker.
    #[must_use]
    pub fn due(&self) -> usize {
        self.lock().waiting.len()
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
mod tests {
    use albatross_core::model::ObjectName;

    use super::*;

    fn group(name: &str) -> Key {
        Key::Stack(StackId::Group(name.to_owned()))
    }

    fn binding(name: &str) -> Key {
        Key::Binding(ObjectName::new("shop", name))
    }

    impl Schedule {
        fn wants(&mut self, key: Key, cause: QueueReason, now: Instant) {
            let tenant = namespace_of(&key).to_owned();
            self.add(key, &tenant, cause, now);
        }
    }

    fn service(namespace: &str, name: &str) -> Key {
        Key::Stack(StackId::Service(ObjectName::new(namespace, name)))
    }

    fn take_all(schedule: &mut Schedule, now: Instant) -> Vec<Key> {
        std::iter::from_fn(|| schedule.take(now).ok()).map(|(key, _)| key).collect()
    }

    #[test]
    fn a_key_waits_once_and_targets_come_first() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        for key in [group("a"), group("b"), group("a"), binding("x")] {
            schedule.wants(key, QueueReason::Change, now);
        }
        assert_eq!(take_all(&mut schedule, now), [binding("x"), group("a"), group("b")]);
    }

    #[test]
    fn what_happens_to_a_running_key_brings_it_back_afterwards() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.wants(group("a"), QueueReason::Change, now);
        assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
        schedule.wants(group("a"), QueueReason::Change, now);
        assert_eq!(schedule.take(now), Err(None));
        schedule.done(&group("a"), &Outcome::Done, now);
        assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
    }

    #[test]
    fn a_change_counts_until_a_pass_has_finished_with_it() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        let again = |schedule: &mut Schedule, outcome: &Outcome, now: &mut Instant| {
            schedule.done(&group("a"), outcome, *now);
            *now += LONGEST_PAUSE;
            schedule.take(*now).map(|(_, cause)| cause)
        };
        schedule.wants(group("a"), QueueReason::Resync, now);
        assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Resync)));
        assert_eq!(again(&mut schedule, &Outcome::Failed("no".into()), &mut now), Ok(QueueReason::Resync));
        // Both, in whatever order, are a change; also when it happens while a resync is under way.
        schedule.wants(group("a"), QueueReason::Change, now);
        schedule.wants(group("a"), QueueReason::Resync, now);
        for outcome in [Outcome::Done, Outcome::Failed("no".into()), Outcome::NotYet] {
            assert_eq!(again(&mut schedule, &outcome, &mut now), Ok(QueueReason::Change), "{outcome:?}");
        }
        schedule.wants(group("a"), QueueReason::Audit, now);
        schedule.wants(group("a"), QueueReason::Resync, now);
        assert_eq!(again(&mut schedule, &Outcome::Done, &mut now), Ok(QueueReason::Resync));
        schedule.wants(group("a"), QueueReason::Audit, now);
        assert_eq!(again(&mut schedule, &Outcome::Done, &mut now), Ok(QueueReason::Audit));
        assert_eq!(again(&mut schedule, &Outcome::Done, &mut now), Err(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_begins_with_the_changes_of_the_last_minute() {
        let queue = Queue::default();
        queue.add(group("old"));
        queue.add(group("failed"));
        assert_eq!(queue.next().await, (group("old"), QueueReason::Change));
        queue.done(&group("old"), &Outcome::NeedsCorrection("no".into()));
        assert_eq!(queue.next().await, (group("failed"), QueueReason::Change));
        queue.done(&group("failed"), &Outcome::Failed("no".into()));
        queue.resync([group("resync")]);
        tokio::time::advance(RECENT).await;
        ["a", "b"].into_iter().for_each(|name| queue.add(group(name)));
        assert_eq!(queue.next().await, (group("a"), QueueReason::Change), "taken, and not finished");
        queue.begin_term();
        assert_eq!(queue.snapshot().errors, BTreeMap::new());
        queue.resync([group("old"), group("b")]);
        queue.add(group("c"));
        let taken: Vec<_> = std::iter::from_fn(|| queue.lock().take(Instant::now()).ok()).collect();
        let (resync, change) = (QueueReason::Resync, QueueReason::Change);
        assert_eq!(taken, [(group("a"), change), (group("b"), change), (group("c"), change), (group("old"), resync)]);
    }

    #[test]
    fn a_change_overtakes_resyncs_and_a_waiting_resync_becomes_one() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        for name in ["a", "b", "c"] {
            schedule.wants(group(name), QueueReason::Resync, now);
        }
        schedule.wants(group("audited"), QueueReason::Audit, now);
        schedule.wants(group("d"), QueueReason::Change, now);
        schedule.wants(group("c"), QueueReason::Change, now);
        schedule.wants(group("audited"), QueueReason::Resync, now);
        schedule.wants(group("d"), QueueReason::Resync, now);
        assert_eq!(take_all(&mut schedule, now), ["d", "c", "a", "b", "audited"].map(group));
        assert!(schedule.ready.values().all(BTreeMap::is_empty) && schedule.waiting.is_empty());
    }

    #[test]
    fn namespaces_take_turns() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        for name in ["1", "2", "3", "4", "5"] {
            schedule.wants(service("flood", name), QueueReason::Change, now);
        }
        assert_eq!(schedule.take(now), Ok((service("flood", "1"), QueueReason::Change)));
        schedule.wants(service("shop", "a"), QueueReason::Change, now);
        schedule.wants(service("shop", "b"), QueueReason::Change, now);
        // A group of several namespaces has the turn of the object that changed.
        schedule.add(group("both"), "flood", QueueReason::Change, now);
        schedule.add(group("both"), "team", QueueReason::Change, now);
        schedule.wants(Key::BackendSecurityGroup, QueueReason::Change, now);
        let names = |keys: Vec<Key>| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            names(take_all(&mut schedule, now)),
            [
                "Service flood/2",
                "Service shop/a",
                "Ingress group both",
                "Service flood/3",
                "Service shop/b",
                "Service flood/4",
                "Service flood/5",
                "shared backend security group"
            ]
        );
        assert!(schedule.turns.values().all(|turns| turns.last.is_empty()), "{:?}", schedule.turns);
    }

    #[test]
    fn who_touches_a_key_while_it_runs_puts_nobody_behind() {
        let now = Instant::now();
        // A group of several namespaces has the earliest turn of all who changed it; a Service has that of its own, too.
        for (key, owner) in [(group("both"), "team"), (service("shop", "a"), "flood")] {
            let mut schedule = Schedule::default();
            schedule.add(key.clone(), owner, QueueReason::Change, now);
            assert_eq!(schedule.take(now), Ok((key.clone(), QueueReason::Change)));
            for number in 0..100 {
                schedule.wants(service("flood", &number.to_string()), QueueReason::Change, now);
            }
            schedule.add(key.clone(), owner, QueueReason::Change, now);
            schedule.add(key.clone(), "flood", QueueReason::Change, now);
            schedule.done(&key, &Outcome::Done, now);
            assert_eq!(take_all(&mut schedule, now)[..2], [service("flood", "0"), key]);
        }
    }

    #[test]
    fn bindings_of_others_that_a_change_concerns_take_no_turns_of_whoever_made_it() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let binding = |namespace: &str, name: &str| Key::Binding(ObjectName::new(namespace, name));
        for number in 0..2000 {
            schedule.add(binding("flood", &number.to_string()), "shop", QueueReason::Change, now);
        }
        schedule.add(binding("shop", "b"), "shop", QueueReason::Change, now);
        assert!(take_all(&mut schedule, now)[..2].contains(&binding("shop", "b")));
    }

    #[test]
    fn rules_of_nodes_come_before_a_backlog_of_bindings_and_rest_between_two_runs() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        for number in 0..2000 {
            let namespace = if number % 2 == 0 { "shop".to_owned() } else { format!("team-{number}") };
            schedule.wants(Key::Binding(ObjectName::new(&namespace, number.to_string())), QueueReason::Change, now);
        }
        let (mut taken, mut runs) = (0, Vec::new());
        loop {
            let key = match schedule.take(now) {
                Ok((key, _)) => key,
                Err(Some(due)) => {
                    now = due;
                    continue;
                }
                Err(None) => break,
            };
            taken += 1;
            match key {
                Key::NodeRules => runs.push(taken),
                // Each has another port, for example.
                _ => schedule.wants(Key::NodeRules, QueueReason::Change, now),
            }
            now += Duration::from_millis(10);
            schedule.done(&key, &Outcome::Done, now);
        }
        assert_eq!((runs[0], taken - runs.len()), (2, 2000));
        assert!((15..=25).contains(&runs.len()), "it has run {} times", runs.len());
    }

    #[test]
    fn a_flood_of_one_namespace_holds_no_other_up() {
        let now = Instant::now();
        let mut schedule = Schedule { most: BTreeMap::from([(Lane::LoadBalancers, 1)]), ..Schedule::default() };
        let flood: Vec<Key> = (0..5000).map(|n| service("flood", &n.to_string())).collect();
        for key in &flood {
            schedule.wants(key.clone(), QueueReason::Change, now);
        }
        for pass in 0..100 {
            schedule.wants(service("shop", "a"), QueueReason::Change, now);
            let mut before = Vec::new();
            loop {
                let (key, _) = schedule.take(now).unwrap();
                // What was worked on is edited again at once, and goes behind.
                schedule.wants(key.clone(), QueueReason::Change, now);
                schedule.done(&key, &Outcome::Done, now);
                match key == service("shop", "a") {
                    true => break,
                    false => before.push(key),
                }
            }
            assert!(before.len() <= 1, "{pass}: {before:?}");
        }
    }

    #[test]
    fn targets_leave_workers_for_load_balancers() {
        let now = Instant::now();
        let most = BTreeMap::from([(Lane::Targets, 3), (Lane::LoadBalancers, 2)]);
        let mut schedule = Schedule { most, ..Schedule::default() };
        for n in 0..2000 {
            schedule.wants(binding(&n.to_string()), QueueReason::Change, now);
        }
        schedule.wants(Key::NodeRules, QueueReason::Change, now);
        schedule.wants(group("edited"), QueueReason::Change, now);
        assert_eq!(take_all(&mut schedule, now), [Key::NodeRules, binding("0"), binding("1"), group("edited")]);
    }

    #[test]
    fn resyncs_leave_a_worker_for_changes() {
        let now = Instant::now();
        let mut schedule = Schedule { most: BTreeMap::from([(Lane::LoadBalancers, 3)]), ..Schedule::default() };
        for name in ["a", "b", "c"] {
            schedule.wants(group(name), QueueReason::Resync, now);
        }
        assert_eq!(take_all(&mut schedule, now), [group("a"), group("b")]);
        schedule.wants(group("edited"), QueueReason::Change, now);
        assert_eq!(take_all(&mut schedule, now), [group("edited")]);
        schedule.done(&group("a"), &Outcome::Done, now);
        assert_eq!(take_all(&mut schedule, now), [group("c")]);
        // Where there is one worker, resyncs are worked on as well.
        let mut schedule = Schedule { most: BTreeMap::from([(Lane::LoadBalancers, 1)]), ..Schedule::default() };
        schedule.wants(group("a"), QueueReason::Resync, now);
        assert_eq!(take_all(&mut schedule, now), [group("a")]);
    }

    #[test]
    fn failures_pause_twice_as_long_each_time_until_a_success() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        schedule.wants(group("a"), QueueReason::Change, now);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
            schedule.done(&group("a"), &Outcome::Failed("no".into()), now);
            let due = schedule.take(now).unwrap_err().unwrap();
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
        assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
        schedule.done(&group("a"), &Outcome::Done, now);
        schedule.wants(group("a"), QueueReason::Change, now);
        assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
        schedule.done(&group("a"), &Outcome::Failed("no".into()), now);
        assert_eq!(schedule.take(now), Err(Some(now + Duration::from_secs(1))));
    }

    #[test]
    fn events_shorten_a_pause_and_make_no_later_one_longer() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        schedule.wants(binding("x"), QueueReason::Change, now);
        assert_eq!(schedule.take(now), Ok((binding("x"), QueueReason::Change)));
        let second = Duration::from_secs(1);
        // Pods come and go all the time while AWS fails: some before the shortest pause is over, some during the attempt.
        for _ in 0..20 {
            schedule.done(&binding("x"), &Outcome::Failed("no".into()), now);
            schedule.wants(binding("x"), QueueReason::Change, now + Duration::from_millis(10));
            assert_eq!(schedule.take(now + Duration::from_millis(20)), Err(Some(now + second)));
            now += second;
            assert_eq!(schedule.take(now), Ok((binding("x"), QueueReason::Change)));
            schedule.wants(binding("x"), QueueReason::Change, now);
        }
        schedule.done(&binding("x"), &Outcome::Failed("no".into()), now);
        assert_eq!(schedule.take(now), Err(Some(now + second)));
        // Left alone, the pauses grow from where they were.
        now += second;
        for seconds in [1, 2, 4] {
            assert_eq!(schedule.take(now), Ok((binding("x"), QueueReason::Change)));
            schedule.done(&binding("x"), &Outcome::Failed("no".into()), now);
            now += Duration::from_secs(seconds);
        }
        // A pause that was longer than the shortest ends at once.
        assert_eq!(schedule.take(now), Ok((binding("x"), QueueReason::Change)));
        schedule.done(&binding("x"), &Outcome::Failed("no".into()), now);
        schedule.wants(binding("x"), QueueReason::Change, now + second * 3);
        assert_eq!(schedule.take(now + second * 3), Ok((binding("x"), QueueReason::Change)));
    }

    #[test]
    fn load_balancers_leave_workers_for_targets() {
        let mut schedule = Schedule { most: BTreeMap::from([(Lane::LoadBalancers, 2)]), ..Schedule::default() };
        let now = Instant::now();
        for key in [group("a"), group("b"), group("c"), Key::BackendSecurityGroup] {
            schedule.wants(key, QueueReason::Change, now);
        }
        assert_eq!(take_all(&mut schedule, now), [group("a"), group("b")]);
        schedule.wants(binding("x"), QueueReason::Change, now);
        schedule.wants(Key::NodeRules, QueueReason::Change, now);
        assert_eq!(take_all(&mut schedule, now), [Key::NodeRules, binding("x")]);
        schedule.done(&group("a"), &Outcome::Failed("no".into()), now);
        assert_eq!(schedule.take(now), Ok((group("c"), QueueReason::Change)));
        assert_eq!(schedule.take(now), Err(Some(now + Duration::from_secs(1))));
        schedule.done(&group("b"), &Outcome::Done, now);
        assert_eq!(schedule.take(now), Ok((Key::BackendSecurityGroup, QueueReason::Change)));
    }

    #[test]
    fn what_is_set_aside_waits_for_its_object_and_keeps_its_error() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.wants(group("a"), QueueReason::Change, now);
        assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
        schedule.done(&group("a"), &Outcome::NeedsCorrection("wrong scheme".into()), now);
        assert_eq!(schedule.take(now), Err(None));
        assert_eq!(schedule.failures.get(&group("a")), Some(&(0, "wrong scheme".to_owned())));
    }

    #[test]
    fn a_pausing_key_is_tried_at_once_when_something_changes() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.wants(group("a"), QueueReason::Change, now);
        assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
        schedule.done(&group("a"), &Outcome::Again(Duration::from_secs(600)), now);
        assert_eq!(schedule.take(now), Err(Some(now + Duration::from_secs(600))));
        schedule.wants(group("a"), QueueReason::Change, now);
        assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
        schedule.done(&group("a"), &Outcome::Done, now);
        assert_eq!(schedule.take(now), Err(None));
    }
}
