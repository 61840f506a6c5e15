//! An in-process API server behind the HTTP boundary of kube. It has no schemas and does not validate; everything else
//! that the controller can observe is as in a real one: versions, generations, finalizers, conflicts, pages, watches
//! that end.

mod server;
mod store;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::watch as channel, time::Instant};

use super::random::Random;
use store::{Answer, Part, Store};
pub use store::{Change, Kind, finalizers, is_deleting};

/// The simulated faults, as probabilities for each request or event.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// A request fails with status 500 and has no effect.
    pub fails_before: f64,
    /// A write fails with status 500 but takes effect.
    pub fails_after: f64,
    /// A request gets no response and has no effect.
    pub lost_before: f64,
    /// A write gets no response but takes effect.
    pub lost_after: f64,
    /// Another client changes an object just before a write.
    pub contended: f64,
    /// A list has several pages and expires between them.
    pub torn_lists: f64,
    /// The connection of a watch ends before an event.
    pub breaks: f64,
    /// An event and all following ones are lost until the watch ends with 410 Gone.
    pub expires: f64,
    /// An event is sent twice.
    pub duplicates: f64,
    /// The maximum delay of an event, separate for each watch.
    pub latest: Duration,
    /// The maximum duration of a request.
    pub slowest: Duration,
}

/// The namespace and name of the lease.
pub const LEASE: (&str, &str) = ("kube-system", "aws-load-balancer-controller-leader");

/// The kinds that the controller watches.
const WATCHED: [&str; 9] = [
    "ingresses",
    "ingressclasses",
    "ingressclassparams",
    "namespaces",
    "services",
    "endpointslices",
    "pods",
    "nodes",
    "targetgroupbindings",
];

/// A request, for the history.
#[derive(Clone, Debug)]
pub struct Request {
    pub at: Instant,
    pub method: String,
    pub path: String,
    pub body: Value,
    /// The status code, and the fault of the request.
    pub outcome: String,
}

impl Request {
    pub fn is_write(&self) -> bool {
        self.method != "GET"
    }
}

/// An open watch.
struct Stream {
    life: Life,
    plural: &'static str,
    /// The last version that was sent.
    version: u64,
}

struct State {
    store: Store,
    streams: BTreeMap<u64, Stream>,
    opened: u64,
    /// The history up to this version is dropped: a watch from there ends with 410 Gone.
    compacted: u64,
    /// The remaining pages of lists that are read in pages, with their versions.
    pages: BTreeMap<u64, (u64, Vec<Arc<Value>>)>,
    faults: Faults,
    /// The kinds whose watches are silent, each until a time.
    stalled: BTreeMap<&'static str, Instant>,
    random: Random,
    requests: Vec<Request>,
    /// True if each write is compared with the lease, and writes without the lease are recorded.
    judges: bool,
    without_lease: Vec<String>,
}

impl State {
    /// Records a write of a process that does not hold the lease.
    fn judge(&mut self, life: &Life, what: &str) {
        let lease = Kind::of("leases").and_then(|kind| self.store.get(kind, LEASE.0, LEASE.1).ok());
        let holder = lease.and_then(|lease| lease.pointer("/spec/holderIdentity")?.as_str().map(str::to_owned));
        if self.judges && holder.as_deref() != Some(life.identity()) {
            self.without_lease.push(format!("{} while {holder:?} holds the lease: {what}", life.identity()));
        }
    }

    fn open(&mut self, stream: Stream) -> u64 {
        self.opened += 1;
        self.streams.insert(self.opened, stream);
        self.opened
    }
}

struct Inner {
    started: Instant,
    state: Mutex<State>,
    /// The current version of the store.
    news: channel::Sender<u64>,
    connections: channel::Sender<u64>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }

    fn now(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_secs()).expect("a world does not last for ages")
    }

    /// Changes objects and notifies the watches.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let changed = change(&mut state);
        self.news.send_replace(state.store.version);
        changed
    }
}

/// The life of a process of the controller. A dead process sends no requests and receives no responses; a frozen one
/// receives no responses until it is unfrozen.
#[derive(Clone, Debug)]
pub struct Life(Arc<Vitals>);

#[derive(Debug)]
struct Vitals {
    /// The name of the process in the lease.
    identity: String,
    lives: AtomicBool,
    frozen: channel::Sender<bool>,
}

impl Life {
    pub fn new(identity: impl Into<String>) -> Self {
        let (lives, frozen) = (AtomicBool::new(true), channel::Sender::new(false));
        Self(Arc::new(Vitals { identity: identity.into(), lives, frozen }))
    }

    pub fn identity(&self) -> &str {
        &self.0.identity
    }

    pub fn end(&self) {
        self.0.lives.store(false, Ordering::SeqCst);
    }

    pub fn is_over(&self) -> bool {
        !self.0.lives.load(Ordering::SeqCst)
    }

    /// Freezes or unfreezes the process.
    pub fn freeze(&self, frozen: bool) {
        self.0.frozen.send_replace(frozen);
    }

    pub fn is_frozen(&self) -> bool {
        *self.0.frozen.borrow()
    }

    /// Waits until the process is not frozen.
    pub async fn goes_on(&self) {
        let _ = self.0.frozen.subscribe().wait_for(|frozen| !frozen).await;
    }
}

/// The simulated cluster; clones are the same cluster.
#[derive(Clone)]
pub struct SimulatedCluster(Arc<Inner>);

impl SimulatedCluster {
    pub fn new(seed: u64) -> Self {
        let state = State {
            store: Store::default(),
            streams: BTreeMap::new(),
            opened: 0,
            compacted: 0,
            pages: BTreeMap::new(),
            faults: Faults::default(),
            stalled: BTreeMap::new(),
            random: Random::new(seed),
            requests: Vec::new(),
            judges: false,
            without_lease: Vec::new(),
        };
        Self(Arc::new(Inner {
            started: Instant::now(),
            state: Mutex::new(state),
            news: channel::Sender::new(0),
            connections: channel::Sender::new(0),
        }))
    }

    /// Returns a client for one process.
    pub fn client(&self, life: &Life) -> kube::Client {
        server::client(Arc::clone(&self.0), life.clone())
    }

    /// Starts a policy engine that changes each TargetGroupBinding that is written.
    pub fn enforce_policy(&self) {
        self.0.state().store.policy = true;
    }

    pub fn set_faults(&self, faults: Faults) {
        self.0.state().faults = faults;
    }

    /// Creates an object as a user does.
    pub fn create(&self, object: Value) -> Answer {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let kind = Kind::named(text("/kind")).expect("a kind that the cluster knows");
        let namespace = text("/metadata/namespace").to_owned();
        let now = self.0.now();
        self.0.change(|state| state.store.create(kind, &namespace, object, now))
    }

    /// Changes an object or its status, as a user or another controller does. Does nothing if the object does not
    /// exist.
    pub fn edit(&self, plural: &str, namespace: &str, name: &str, edit: impl FnOnce(&mut Value)) -> Option<Arc<Value>> {
        let kind = Kind::of(plural)?;
        self.0.change(|state| {
            let mut object = Value::clone(&*state.store.get(kind, namespace, name).ok()?);
            edit(&mut object);
            state.store.replace(kind, namespace, name, object, Part::Main).ok()
        })
    }

    /// Writes the status of an object, as another controller does.
    pub fn set_status(&self, plural: &str, namespace: &str, name: &str, status: Value) {
        let kind = Kind::of(plural).expect("a kind that the cluster knows");
        let status = serde_json::json!({ "status": status });
        let written = self.0.change(|state| state.store.patch(kind, namespace, name, &status, Part::Status));
        written.expect("an object that is there");
    }

    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        if let Some(kind) = Kind::of(plural) {
            let now = self.0.now();
            let _ = self.0.change(|state| state.store.delete(kind, namespace, name, &Value::Null, now));
        }
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0.state().store.get(Kind::of(plural)?, namespace, name).ok()
    }

    /// Returns all objects of a kind.
    pub fn list(&self, plural: &str) -> Vec<Arc<Value>> {
        Kind::of(plural).map(|kind| self.0.state().store.list(kind, "")).unwrap_or_default()
    }

    /// Returns all events, oldest first.
    pub fn log(&self) -> Vec<Change> {
        self.0.state().store.log.clone()
    }

    /// Returns true if a process has received every change of the watched kinds.
    pub fn has_heard(&self, life: &Life) -> bool {
        let state = self.0.state();
        let of_process = |stream: &&Stream| Arc::ptr_eq(&stream.life.0, &life.0);
        let heard: Vec<&Stream> = state
            .streams
            .values()
            .filter(of_process)
            .filter(|stream| state.store.changes_after(stream.plural, stream.version).next().is_none())
            .collect();
        WATCHED.iter().all(|plural| heard.iter().any(|stream| stream.plural == *plural))
    }

    /// Starts to compare each write with the lease.
    pub fn judge_leases(&self) {
        self.0.state().judges = true;
    }

    /// Records a write to AWS of a process that does not hold the lease.
    pub fn judge(&self, life: &Life, what: &str) {
        self.0.state().judge(life, what);
    }

    /// Returns the writes of processes that did not hold the lease.
    pub fn written_without_lease(&self) -> Vec<String> {
        self.0.state().without_lease.clone()
    }

    /// Returns a number that grows with each change of an object, except leases.
    pub fn version(&self) -> u64 {
        let store = &self.0.state().store;
        store.version - store.renewals
    }

    /// Keeps the watches of one of the watched kinds open and silent for a while. Returns the plural of the kind.
    pub fn stall(&self, kind: usize, time: Duration) -> &'static str {
        let plural = WATCHED.get(kind % WATCHED.len()).expect("a remainder is less");
        self.0.change(|state| state.stalled.insert(plural, Instant::now() + time));
        plural
    }

    /// Ends all stalls.
    pub fn stall_no_more(&self) {
        self.0.change(|state| state.stalled.clear());
    }

    /// Ends the connections of all watches.
    pub fn disconnect(&self) {
        self.0.connections.send_modify(|number| *number += 1);
    }

    /// Ends the connections of all watches and drops the history, so that all watches start with a list.
    pub fn compact(&self) {
        {
            let mut state = self.0.state();
            state.store.version += 1;
            state.compacted = state.store.version;
        }
        self.disconnect();
    }

    /// Returns the requests since the last call of this function, except watches.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.0.state().requests)
    }
}
