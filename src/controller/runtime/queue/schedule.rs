//! The decisions of the queue: the next key, and the time at which it runs.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{Outcome, QueueReason};
use crate::controller::runtime::metrics::QueueMetrics;
use albatross_aws::Urgency;
use albatross_core::{dependents::Key, model::StackId};

pub(super) const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(120);
pub(super) const LONGEST_NOT_YET: Duration = Duration::from_secs(15);
/// The age up to which changes are kept when a term begins: they may have happened while no replica led.
pub(super) const RECENT: Duration = Duration::from_secs(60);

/// The time for which a failed departure stays more urgent than other work. Then health checks have long found that the
/// target does not answer.
pub(super) const URGENT: Duration = Duration::from_secs(60);
/// The same for a key whose targets go on departing while it fails.
pub(super) const LONGEST_URGENT: Duration = Duration::from_secs(300);
/// The failures of urgent departures that count for the pauses of what is ordinary work again.
const URGENT_FAILURES: u32 = 3;
/// The longest pause after a failed departure during that time.
pub(super) const LONGEST_DEPARTURE_PAUSE: Duration = Duration::from_secs(5);

/// The kinds of keys that share workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Lane {
    /// Bindings and the rules of nodes.
    Targets,
    /// Load balancers; a pass over one may take minutes while AWS throttles.
    LoadBalancers,
}

pub(super) fn lane(key: &Key) -> Lane {
    match key {
        Key::Binding(_) | Key::NodeRules => Lane::Targets,
        Key::Stack(_) | Key::BackendSecurityGroup => Lane::LoadBalancers,
    }
}

/// Returns true if one pass over the key covers all objects, so that the key belongs to no tenant.
pub(super) fn is_of_all(key: &Key) -> bool {
    matches!(key, Key::NodeRules | Key::BackendSecurityGroup)
}

/// Returns the namespace of a key's object; empty for keys of several namespaces.
pub(super) fn namespace_of(key: &Key) -> &str {
    match key {
        Key::Binding(name) | Key::Stack(StackId::Ingress(name) | StackId::Service(name)) => &name.namespace,
        Key::Stack(StackId::Group(_)) | Key::NodeRules | Key::BackendSecurityGroup => "",
    }
}

/// The reason why a key is queued, and the tenants that queued it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) cause: QueueReason,
    /// The key's own namespace or, for a key of several namespaces, the namespaces whose objects changed: the key has the
    /// earliest of their turns.
    pub(super) tenants: BTreeSet<String>,
    /// The time at which it was queued for this reason; the last one of departures.
    pub(super) since: Instant,
    /// The time since when a target has to depart, the first of several, until none has to.
    pub(super) departs_since: Option<Instant>,
}

impl Wanted {
    fn new(key: &Key, tenant: &str, cause: QueueReason, since: Instant) -> Self {
        // A key with its own namespace takes a turn of that namespace, even if an object of another one changed.
        let own = Some(namespace_of(key)).filter(|own| !own.is_empty());
        let departs_since = (cause == QueueReason::Departure).then_some(since);
        Self { cause, tenants: [own.unwrap_or(tenant).to_owned()].into(), since, departs_since }
    }
}

/// A key that is running.
#[derive(Debug)]
pub(super) struct Running {
    /// True if the key was queued again while it runs.
    pub(super) again: bool,
    pub(super) wanted: Wanted,
    /// The urgency of the pass's calls.
    pub(super) urgency: Urgency,
    /// The time at which a worker took it.
    pub(super) began: Instant,
}

/// The position of a key in its lane: by reason, then by the tenant's turn, then by arrival.
pub(super) type QueuePosition = (QueueReason, u64, u64);

/// The turns of the tenants among keys of one lane and reason: the n-th waiting key of a tenant has the n-th turn from
/// now.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) now: u64,
    /// The last turn of each tenant, and the number of its waiting keys.
    pub(super) last: HashMap<String, (u64, usize)>,
    /// The highest turn that has been given.
    pub(super) highest: u64,
}

impl Turns {
    /// Returns the turn of a key, and the tenant that has it. A change of the rules of nodes comes first; other keys
    /// without a tenant come after all waiting keys.
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

/// The state of the queue and its decisions; the caller provides the time.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    pub(super) ready: BTreeMap<Lane, BTreeMap<QueuePosition, Key>>,
    /// The positions of the keys in `ready`, and the tenants whose turns they use.
    pub(super) waiting: HashMap<Key, (QueuePosition, Option<String>)>,
    pub(super) turns: HashMap<(Lane, QueueReason), Turns>,
    pub(super) running: HashMap<Key, Running>,
    /// The reason for each key that waits, is delayed, or was queued again while it runs.
    pub(super) wanted: HashMap<Key, Wanted>,
    pub(super) delayed: BTreeMap<(Instant, u64), Key>,
    pub(super) delayed_until: HashMap<Key, (Instant, u64)>,
    pub(super) failures: HashMap<Key, (u32, String)>,
    /// The earliest time at which a key may run again after a failure, or the rules of nodes after any pass.
    pub(super) resting: HashMap<Key, Instant>,
    /// The longest pause after the pass of a running key, whatever its outcome.
    pub(super) longest_pause: HashMap<Key, Duration>,
    /// The keys whose delay a change has shortened: another failure does not make their delays longer.
    pub(super) hurried: HashSet<Key>,
    pub(super) arrivals: u64,
    /// The maximum number of running keys in each lane; a lane without an entry has no limit.
    pub(super) most: BTreeMap<Lane, usize>,
    /// The time since when each key of `waiting` is due.
    pub(super) due_since: HashMap<Key, Instant>,
    pub(super) metrics: QueueMetrics,
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
            // The key moves only if the reason is more urgent or the turn is earlier.
            if (cause, turn) >= (place.0, place.1) {
                return;
            }
            self.leave(&key);
        }
        if !self.due_since.contains_key(&key) {
            self.due_since.insert(key.clone(), now);
            self.metrics.added(&key);
        }
        self.arrivals += 1;
        let place = (cause, turn, self.arrivals);
        self.turns.entry((lane, cause)).or_default().enter(tenant.as_deref(), turn);
        self.ready.entry(lane).or_default().insert(place, key.clone());
        self.waiting.insert(key, (place, tenant));
    }

    /// Removes a key from its lane.
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

    pub(super) fn want(&mut self, key: &Key, by: Wanted) {
        let Some(wanted) = self.wanted.get_mut(key) else {
            self.wanted.insert(key.clone(), by);
            return;
        };
        let departs_since = wanted.departs_since.into_iter().chain(by.departs_since).min();
        match by.cause.cmp(&wanted.cause) {
            Ordering::Less => *wanted = by,
            Ordering::Equal => {
                wanted.tenants.extend(by.tenants);
                if wanted.cause == QueueReason::Departure {
                    wanted.since = wanted.since.max(by.since);
                }
            }
            Ordering::Greater => {}
        }
        wanted.departs_since = departs_since;
    }

    pub(super) fn add(&mut self, key: Key, tenant: &str, cause: QueueReason, now: Instant) {
        self.want(&key, Wanted::new(&key, tenant, cause, now));
        match self.running.get_mut(&key) {
            Some(running) => {
                running.again = true;
                if cause == QueueReason::Departure {
                    // The target departs only in the next pass, so this one must not wait for long.
                    running.urgency.raise(cause.priority());
                }
            }
            None => self.hurry(key, now),
        }
    }

    /// Queues a key as it was queued before. What departed long ago was another process's to deregister.
    pub(super) fn resume(&mut self, key: Key, wanted: Wanted, now: Instant) {
        let since = wanted.since;
        let is_recent = |first: &Instant| now.saturating_duration_since(*first) < RECENT;
        let departs_since = wanted.departs_since.map(|first| Some(first).filter(is_recent).unwrap_or(since));
        self.want(&key, Wanted { departs_since, ..wanted });
        self.hurry(key, since);
    }

    /// Runs a key earlier because an object has changed. After a failure, the shortest pause still applies, so that
    /// frequent changes (pods come and go) do not multiply the calls while AWS fails.
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

    /// Returns the first key of a lane for which a worker is free. Departures and queries for health have workers of
    /// their own. Of the others, if there are several, one is reserved for changes.
    fn first(&self, lane: Lane) -> Option<Key> {
        let ready = self.ready.get(&lane)?;
        let Some(most) = self.most.get(&lane).copied() else { return ready.values().next().cloned() };
        let running = |of: &dyn Fn(QueueReason) -> bool| {
            let of_lane = self.running.iter().filter(|(key, _)| self::lane(key) == lane);
            of_lane.filter(|(_, running)| of(running.wanted.cause)).count()
        };
        let first = |reason: QueueReason| {
            let (place, key) = ready.range((reason, 0, 0)..).next()?;
            (place.0 == reason).then(|| key.clone())
        };
        let (own, reserved) = ([QueueReason::Departure, QueueReason::Look], most.saturating_sub(1).max(1));
        let has_room = |reason: QueueReason| {
            if own.contains(&reason) {
                return running(&|other| other == reason) < most;
            }
            running(&|other| !own.contains(&other)) < most
                && (reason == QueueReason::Change || running(&|other| other > QueueReason::Look) < reserved)
        };
        QueueReason::ALL.into_iter().filter(|reason| has_room(*reason)).find_map(first)
    }

    /// Returns the next key and the reason why it is queued, or the time at which the next delay ends.
    pub(super) fn take(&mut self, now: Instant) -> Result<(Key, QueueReason), Option<Instant>> {
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
        let urgency = Urgency::new(cause.priority());
        let due_since = self.due_since.remove(&key).unwrap_or(now);
        self.metrics.taken(&key, now.saturating_duration_since(due_since));
        self.running.insert(key.clone(), Running { again: false, wanted, urgency, began: now });
        Ok((key, cause))
    }

    pub(super) fn done(&mut self, key: &Key, outcome: &Outcome, now: Instant) {
        let ran = self.running.remove(key);
        if let Some(ran) = &ran {
            let is_retried = matches!(outcome, Outcome::Failed(_) | Outcome::NotYet);
            self.metrics.worked(key, now.saturating_duration_since(ran.began), is_retried);
        }
        let departs_since = ran.as_ref().and_then(|ran| ran.wanted.departs_since);
        let is_urgent = ran.as_ref().is_some_and(|ran| {
            let age = |since| now.saturating_duration_since(since);
            // Those that come meanwhile make no failure urgent for ever.
            ran.wanted.cause == QueueReason::Departure
                && age(ran.wanted.since) < URGENT
                && departs_since.is_some_and(|first| age(first) < LONGEST_URGENT)
        });
        // What departed has been deregistered, or is ordinary work from now on.
        let calmer = |ran: QueueReason| if ran == QueueReason::Departure { QueueReason::Change } else { ran };
        // The reason for the next pass, and the time since when a target has to depart.
        let next = |ran: QueueReason| match outcome {
            Outcome::Done | Outcome::NeedsCorrection(_) => None,
            Outcome::LookAfter(_) => Some((QueueReason::Look, None)),
            Outcome::Again(_) => Some((calmer(ran), None)),
            Outcome::NotYet | Outcome::Failed(_) if is_urgent => Some((ran, departs_since)),
            Outcome::NotYet | Outcome::Failed(_) => Some((calmer(ran), departs_since)),
        };
        if let Some((ran, (cause, departs_since))) = ran.as_ref().and_then(|ran| Some((ran, next(ran.wanted.cause)?))) {
            self.want(key, Wanted { cause, departs_since, ..ran.wanted.clone() });
        }
        let longest_of = |longest: Duration| if is_urgent { longest.min(LONGEST_DEPARTURE_PAUSE) } else { longest };
        let pause = |failures: u32, longest: Duration| {
            SHORTEST_PAUSE.saturating_mul(1 << failures.min(10)).min(longest_of(longest))
        };
        let hurried = self.hurried.remove(key);
        let failures = self.failures.get(key).map_or(0, |(n, _)| if hurried { n.saturating_sub(1) } else { *n });
        self.resting.remove(key);
        if *key == Key::NodeRules {
            // One pass covers all bindings that queue it in the meantime.
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
            Outcome::Again(after) | Outcome::LookAfter(after) => {
                self.failures.remove(key);
                Some(*after)
            }
            Outcome::NotYet => {
                self.failures.insert(key.clone(), (failures + 1, "waiting for AWS to release resources".to_owned()));
                Some(pause(failures, LONGEST_NOT_YET))
            }
            Outcome::Failed(error) => {
                // The first pause of a key that has been urgent is a short one.
                let counted = if is_urgent { (failures + 1).min(URGENT_FAILURES) } else { failures + 1 };
                self.failures.insert(key.clone(), (counted, error.clone()));
                self.resting.insert(key.clone(), now + SHORTEST_PAUSE);
                Some(pause(failures, LONGEST_PAUSE))
            }
        };
        let longest = self.longest_pause.remove(key);
        if let Some(ran) = ran.as_ref().filter(|_| longest.is_some() && !self.wanted.contains_key(key)) {
            // Somebody's change waits for it, whatever the reason of this pass was.
            self.want(key, Wanted { cause: QueueReason::Change, ..ran.wanted.clone() });
        }
        let after = longest.map(|longest| after.map_or(longest, |after: Duration| after.min(longest))).or(after);
        if ran.is_some_and(|ran| ran.again) {
            self.hurry(key.clone(), now);
        } else if let Some(after) = after {
            self.delay(key.clone(), now + after);
        }
    }
}
