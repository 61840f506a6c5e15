//! Events in the core API group, as aws-load-balancer-controller records them, so that its RBAC suffices.
//!
//! A warning that was written is not repeated, word for word, for an hour. One object has a budget of events as with client-go's recorder,
//! and the events that wait to be written have a limit: beyond both, events are counted and dropped, those of the namespace with the
//! most first.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::Instant;

use super::kubernetes::describe;
use crate::controller::runtime::metrics::Metrics;
use albatross_core::model::{ObjectKind, ObjectName};

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its name.
    pub name: ObjectName,
    /// `metadata.uid`
    pub uid: String,
}

/// Normal or Warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EventType {
    /// All is well.
    Normal,
    /// A user should look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

const REPEAT_AFTER: Duration = Duration::from_secs(3600);
/// The API server refuses longer messages.
const LONGEST_MESSAGE: usize = 1024;

/// The interval at which entries older than [`REPEAT_AFTER`] are removed, and dropped events are reported in the log.
const PURGE_EVERY: Duration = Duration::from_secs(60);
/// Objects that are remembered with what was said of them.
const MAX_OBJECTS: usize = 20_000;
/// Events that wait to be written.
const MAX_WAITING: usize = 1000;
/// Events that are written at once.
const WRITERS: usize = 4;
/// Events that an object may have at once (client-go: 25), and how long it waits for another.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(10);

/// An event that waits to be written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    kind: EventType,
    subject: Subject,
    reason: String,
    message: String,
}

/// The events that were recorded of one object.
#[derive(Debug)]
struct ObjectEvents {
    /// Hashes of warnings, and when each was recorded.
    warnings: HashMap<u64, Instant>,
    tokens: u32,
    filled: Instant,
    /// The number of the last event that was recorded of it, or left out.
    last: u64,
}

/// The fate of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enqueued {
    /// It waits; the number of events that were dropped for it is 0 or 1.
    Waits { dropped: u64 },
    /// It was recorded within the hour, or waits already.
    Known,
    /// The object has used up its events.
    OverBudget,
}

/// The queue's decisions, with the time given from outside.
#[derive(Debug, Default)]
struct EventQueue {
    recorded: HashMap<(ObjectKind, String), ObjectEvents>,
    /// The number of events that have come.
    entered: u64,
    hasher: RandomState,
    purged: Option<Instant>,
    /// By namespace.
    waiting: BTreeMap<String, VecDeque<Waiting>>,
    count: usize,
    /// The namespace whose turn was last.
    last: String,
    writers: usize,
    /// Dropped since the last line in the log.
    dropped: u64,
}

impl EventQueue {
    fn enter(&mut self, event: Waiting, now: Instant) -> Enqueued {
        let hash = self.hash(&event);
        let key = (event.subject.kind, event.subject.uid.clone());
        if !self.recorded.contains_key(&key) && self.recorded.len() >= MAX_OBJECTS {
            self.evict_older_half();
        }
        self.entered += 1;
        let new = || ObjectEvents { warnings: HashMap::new(), tokens: BURST, filled: now, last: 0 };
        let recorded = self.recorded.entry(key).or_insert_with(new);
        recorded.last = self.entered;
        let known = recorded.warnings.get(&hash).is_some_and(|at| now.duration_since(*at) < REPEAT_AFTER);
        let queue = self.waiting.get(&event.subject.name.namespace);
        if event.kind == EventType::Warning && known || queue.is_some_and(|queue| queue.contains(&event)) {
            return Enqueued::Known;
        }
        let refills =
            u32::try_from(now.duration_since(recorded.filled).as_secs() / REFILL.as_secs()).unwrap_or(u32::MAX);
        if refills > 0 {
            (recorded.tokens, recorded.filled) = (recorded.tokens.saturating_add(refills).min(BURST), now);
        }
        let Some(left) = recorded.tokens.checked_sub(1) else {
            self.dropped += 1;
            return Enqueued::OverBudget;
        };
        recorded.tokens = left;
        if event.kind == EventType::Warning {
            recorded.warnings.insert(hash, now);
        }
        let mut dropped = 0;
        if self.count >= MAX_WAITING {
            let longest = self.waiting.iter().max_by_key(|(_, queue)| queue.len()).map(|(name, _)| name.clone());
            if let Some(unwritten) = longest.and_then(|namespace| self.pop(&namespace)) {
                self.mark_unrecorded(&unwritten);
                dropped = 1;
            }
            self.dropped += dropped;
        }
        self.waiting.entry(event.subject.name.namespace.clone()).or_default().push_back(event);
        self.count += 1;
        Enqueued::Waits { dropped }
    }

    fn hash(&self, event: &Waiting) -> u64 {
        self.hasher.hash_one((&event.reason, &event.message))
    }

    /// Marks an event as not written, so that it may be recorded again.
    fn mark_unrecorded(&mut self, event: &Waiting) {
        let hash = self.hash(event);
        if let Some(recorded) = self.recorded.get_mut(&(event.subject.kind, event.subject.uid.clone())) {
            recorded.warnings.remove(&hash);
        }
    }

    /// Removes the half of the objects of which nothing was recorded for longest.
    fn evict_older_half(&mut self) {
        let mut last: Vec<u64> = self.recorded.values().map(|recorded| recorded.last).collect();
        let middle = last.len() / 2;
        if middle < last.len() {
            let (_, oldest_kept, _) = last.select_nth_unstable(middle);
            let oldest_kept = *oldest_kept;
            self.recorded.retain(|_, recorded| recorded.last >= oldest_kept);
        }
    }

    fn pop(&mut self, namespace: &str) -> Option<Waiting> {
        let queue = self.waiting.get_mut(namespace)?;
        let event = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(namespace);
        }
        self.count -= usize::from(event.is_some());
        event
    }

    /// The next event to write: namespaces take turns.
    fn take(&mut self) -> Option<Waiting> {
        let after = (std::ops::Bound::Excluded(self.last.clone()), std::ops::Bound::Unbounded);
        let next = self.waiting.range(after).next().or_else(|| self.waiting.first_key_value());
        self.last = next.map(|(namespace, _)| namespace.clone())?;
        self.pop(&self.last.clone())
    }

    /// Removes old entries, once a minute. Returns the number of dropped events to report, if any.
    fn purge(&mut self, now: Instant) -> Option<u64> {
        if self.purged.is_some_and(|at| now.duration_since(at) < PURGE_EVERY) {
            return None;
        }
        self.purged = Some(now);
        self.recorded.retain(|_, recorded| {
            recorded.warnings.retain(|_, at| now.duration_since(*at) < REPEAT_AFTER);
            !recorded.warnings.is_empty() || now.duration_since(recorded.filled) < REFILL * BURST
        });
        Some(std::mem::take(&mut self.dropped)).filter(|dropped| *dropped > 0)
    }
}

/// Writes events.
#[derive(Clone)]
pub(crate) struct Events {
    client: Client,
    metrics: Arc<Metrics>,
    queue: Arc<Mutex<EventQueue>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

fn api_version(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Ingress | ObjectKind::IngressClass => "networking.k8s.io/v1",
        ObjectKind::Service => "v1",
        ObjectKind::IngressClassParams | ObjectKind::TargetGroupBinding => "elbv2.k8s.aws/v1beta1",
    }
}

fn component(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Ingress | ObjectKind::IngressClass | ObjectKind::IngressClassParams => "ingress",
        ObjectKind::Service => "service",
        ObjectKind::TargetGroupBinding => "targetGroupBinding",
    }
}

fn shortened(message: &str) -> String {
    if message.len() <= LONGEST_MESSAGE {
        return message.to_owned();
    }
    let mut end = LONGEST_MESSAGE - '…'.len_utf8();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &message[..end])
}

impl Events {
    /// Writes through this client, and counts what is dropped.
    #[must_use]
    pub(crate) fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self { client, metrics, queue: Arc::default() }
    }

    /// Each change of the book is made in one piece.
    fn queue(&self) -> MutexGuard<'_, EventQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an event on an object, in the background: the caller never waits, and a lost event loses nothing else.
    pub(crate) fn record(&self, kind: EventType, subject: &Subject, reason: &str, message: &str) {
        if subject.uid.is_empty() {
            return;
        }
        let event = Waiting { kind, subject: subject.clone(), reason: reason.to_owned(), message: shortened(message) };
        let (entered, purged, begin) = {
            let (mut queue, now) = (self.queue(), Instant::now());
            let entered = queue.enter(event, now);
            let purged = queue.purge(now);
            let begin = queue.count > 0 && queue.writers < WRITERS;
            queue.writers += usize::from(begin);
            (entered, purged, begin)
        };
        match entered {
            Enqueued::Waits { dropped } => self.metrics.events_dropped(dropped),
            Enqueued::OverBudget => self.metrics.events_dropped(1),
            Enqueued::Known => {}
        }
        if let Some(dropped) = purged {
            tracing::warn!(
                dropped,
                "events were dropped: an object has more than {BURST} at once, or more than {MAX_WAITING} wait to be written"
            );
        }
        if begin {
            tokio::spawn(self.clone().write());
        }
    }

    /// Writes what waits, until nothing does.
    async fn write(self) {
        loop {
            let next = {
                let mut queue = self.queue();
                let next = queue.take();
                queue.writers -= usize::from(next.is_none());
                next
            };
            let Some(next) = next else { return };
            let Waiting { kind, subject, reason, message } = &next;
            let event = event(*kind, subject, reason, message.clone(), Time(k8s_openapi::jiff::Timestamp::now()));
            let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace_of(subject));
            match tokio::time::timeout(DEADLINE, api.create(&PostParams::default(), &event)).await {
                Ok(Ok(_)) => {}
                // A namespace that is going away takes no new objects.
                Ok(Err(kube::Error::Api(status))) if status.code == 403 || status.code == 404 => {
                    tracing::debug!(message = %status.message, "an event was not accepted");
                }
                Ok(Err(error)) => {
                    tracing::warn!("cannot write an event: {}", describe(&error));
                    self.queue().mark_unrecorded(&next);
                }
                Err(_) => {
                    tracing::warn!(
                        "cannot write an event: no answer from the API server within {} s",
                        DEADLINE.as_secs()
                    );
                    self.queue().mark_unrecorded(&next);
                }
            }
        }
    }
}

fn namespace_of(subject: &Subject) -> String {
    if subject.name.namespace.is_empty() { "default".to_owned() } else { subject.name.namespace.clone() }
}

fn event(kind: EventType, subject: &Subject, reason: &str, message: String, now: Time) -> Event {
    let namespace = namespace_of(subject);
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}.", subject.name.name)),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(api_version(subject.kind).to_owned()),
            kind: Some(subject.kind.as_str().to_owned()),
            namespace: Some(subject.name.namespace.clone()).filter(|n| !n.is_empty()),
            name: Some(subject.name.name.clone()),
            uid: Some(subject.uid.clone()),
            ..ObjectReference::default()
        },
        type_: Some(kind.as_str().to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        source: Some(EventSource { component: Some(component(subject.kind).to_owned()), host: None }),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let cut = shortened(&"ä".repeat(600));
        assert!(cut.len() <= LONGEST_MESSAGE && cut.ends_with("ä…"), "{} bytes", cut.len());
    }

    fn waiting(namespace: &str, name: &str, message: &str) -> Waiting {
        let subject = Subject {
            kind: ObjectKind::Ingress,
            name: ObjectName::new(namespace, name),
            uid: format!("{namespace}/{name}"),
        };
        Waiting {
            kind: EventType::Warning,
            subject,
            reason: "UnknownAnnotation".to_owned(),
            message: message.to_owned(),
        }
    }

    const WAITS: Enqueued = Enqueued::Waits { dropped: 0 };

    #[test]
    fn a_warning_is_repeated_after_an_hour_and_what_is_old_is_forgotten() {
        let (mut queue, mut now) = (EventQueue::default(), Instant::now());
        assert_eq!(queue.enter(waiting("shop", "web", "no"), now), WAITS);
        assert_eq!(queue.enter(waiting("shop", "web", "no"), now), Enqueued::Known);
        assert_eq!(queue.take(), Some(waiting("shop", "web", "no")));
        assert_eq!(queue.enter(waiting("shop", "web", "no"), now), Enqueued::Known, "written already");
        assert_eq!(queue.enter(waiting("shop", "web", "another"), now), WAITS);
        let normal = Waiting { kind: EventType::Normal, ..waiting("shop", "web", "done") };
        assert_eq!(queue.enter(normal.clone(), now), WAITS);
        assert_eq!(queue.enter(normal.clone(), now), Enqueued::Known, "it waits");
        assert_eq!((queue.take(), queue.take()), (Some(waiting("shop", "web", "another")), Some(normal.clone())));
        assert_eq!(queue.enter(normal, now), WAITS);
        now += REPEAT_AFTER;
        assert_eq!(queue.enter(waiting("shop", "web", "no"), now), WAITS);
        now += REPEAT_AFTER;
        assert_eq!(queue.purge(now), None);
        assert!(queue.recorded.is_empty());
    }

    #[test]
    fn one_object_has_no_more_events_than_its_budget() {
        let (mut queue, mut now) = (EventQueue::default(), Instant::now());
        let entered = |queue: &mut EventQueue, from: u32, now| {
            let events = (from..from + 9000).map(|n| waiting("shop", "web", &n.to_string()));
            events.filter(|event| queue.enter(event.clone(), now) == WAITS).count()
        };
        assert_eq!(entered(&mut queue, 0, now), 25);
        assert_eq!((queue.count, queue.recorded.len()), (25, 1));
        assert_eq!(queue.purge(now), Some(8975));
        assert_eq!(queue.enter(waiting("shop", "other", "no"), now), WAITS);
        now += REFILL * 3;
        assert_eq!(entered(&mut queue, 9000, now), 3);
        assert_eq!(queue.recorded[&(ObjectKind::Ingress, "shop/web".to_owned())].warnings.len(), 28);
    }

    #[test]
    fn what_waits_and_what_is_remembered_is_bounded_and_no_namespace_drops_what_others_record() {
        let (mut queue, now) = (EventQueue::default(), Instant::now());
        assert_eq!(queue.enter(waiting("shop", "web", "no"), now), WAITS);
        for n in 0..MAX_OBJECTS * 2 {
            queue.enter(waiting("flood", &n.to_string(), "no"), now);
        }
        assert_eq!(queue.count, MAX_WAITING);
        assert!(queue.recorded.len() <= MAX_OBJECTS, "{}", queue.recorded.len());
        assert_eq!(queue.enter(waiting("team", "web", "no"), now), Enqueued::Waits { dropped: 1 });
        let first: Vec<String> =
            std::iter::from_fn(|| queue.take()).take(4).map(|event| event.subject.name.namespace).collect();
        assert_eq!(first, ["flood", "shop", "team", "flood"]);
        assert_eq!(queue.count, MAX_WAITING - 4);
        std::iter::from_fn(|| queue.take()).for_each(drop);
        assert_eq!((queue.count, queue.waiting.len()), (0, 0));
    }

    #[test]
    fn a_warning_that_was_dropped_may_be_recorded_again() {
        let (mut queue, now) = (EventQueue::default(), Instant::now());
        let flooded = |n: usize| waiting("flood", &n.to_string(), "no");
        for n in 0..=MAX_WAITING {
            queue.enter(flooded(n), now);
        }
        assert_eq!(queue.enter(flooded(0), now), Enqueued::Waits { dropped: 1 }, "it was dropped for the last");
        assert_eq!(queue.enter(flooded(2), now), Enqueued::Known, "it waits");
    }

    #[test]
    fn other_objects_give_none_its_budget_back() {
        let (mut queue, now) = (EventQueue::default(), Instant::now());
        for n in 0..BURST {
            queue.enter(waiting("shop", "web", &n.to_string()), now);
        }
        for n in 0..MAX_OBJECTS * 2 {
            queue.enter(waiting("flood", &n.to_string(), "no"), now);
            if n % 1000 == 0 {
                let entered = queue.enter(waiting("shop", "web", &format!("more {n}")), now);
                assert_eq!(entered, Enqueued::OverBudget, "after {n} other objects");
            }
        }
        assert!(queue.recorded.len() <= MAX_OBJECTS, "{}", queue.recorded.len());
    }

    #[test]
    fn an_event_names_its_object_as_the_core_group_does() {
        let subject =
            Subject { kind: ObjectKind::Ingress, name: ObjectName::new("shop", "web"), uid: "uid-1".to_owned() };
        let now = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        let event = event(EventType::Warning, &subject, "FailedBuildModel", "no".to_owned(), now);
        assert_eq!(
            serde_json::to_value(event).unwrap(),
            serde_json::json!({
                "apiVersion": "v1", "kind": "Event",
                "metadata": {"generateName": "web.", "namespace": "shop"},
                "involvedObject": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "namespace": "shop", "name": "web", "uid": "uid-1"},
                "type": "Warning", "reason": "FailedBuildModel", "message": "no", "source": {"component": "ingress"},
                "firstTimestamp": "1970-01-01T00:00:00Z", "lastTimestamp": "1970-01-01T00:00:00Z", "count": 1,
            })
        );
    }
}
