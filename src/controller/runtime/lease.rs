//! Leader election on a `coordination.k8s.io/v1` Lease, so that of several replicas one writes to AWS.
//!
//! The rules are those of client-go's leader election, so that albatross and aws-load-balancer-controller take turns on
//! one Lease while the one replaces the other:
//!
//! - A lease is expired when *this* process has seen no change of it for its duration. Wall clocks are written into the
//!   lease for people to read, and never compared.
//! - Every write names the version that was read, so of two candidates one fails.
//! - A leader that could not renew for [`Timing::renew_deadline`] stops being leader, before another process may take over.
//!
//! A process that is frozen whole (a suspended virtual machine) wakes up with the role that it had. [`Tenure`] is therefore
//! asked before each write: it compares the clocks with the last renewal.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use futures::future::{Either, select};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

/// The leadership of this process. Changes are published on a [`watch`] channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// Another process leads, or none does. Nothing may be written.
    Standby,
    /// This process leads.
    Leader {
        /// The lease's `leaseTransitions`: grows with every term, also when one process leads twice in a row.
        epoch: i32,
    },
}

/// The times of the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For how long other processes do not take a lease that does not change.
    pub lease_duration: Duration,
    /// After how long without a renewal the leader stops. Must be shorter than `lease_duration`.
    pub renew_deadline: Duration,
    /// The time between two renewals. Must be shorter than `renew_deadline`.
    pub retry_period: Duration,
    /// The time between two looks of a process that does not lead.
    pub standby_period: Duration,
}

impl Default for Timing {
    /// controller-runtime's values, which aws-load-balancer-controller does not change. Only a standby looks more often
    /// than there: for as long as it has not seen that the lease is free, no process acts.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            standby_period: Duration::from_secs(1),
        }
    }
}

/// The content of a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The leader; none after a release.
    pub holder: Option<String>,
    /// For how long other processes must not take the lease after a renewal, in whole seconds.
    pub duration: Option<Duration>,
    /// When the term began, by the holder's clock.
    pub acquired: Option<Timestamp>,
    /// When the lease was last renewed, by the holder's clock.
    pub renewed: Option<Timestamp>,
    /// The number of terms so far.
    pub transitions: i32,
}

/// A lease as it was read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The content.
    pub record: LeaseRecord,
    /// Its `resourceVersion`.
    pub version: String,
}

/// A lease could not be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The lease is not what it was when read, so nothing was written.
    #[error("the lease was changed by another process in the meantime")]
    Conflict,
    /// Anything else. The write may or may not have happened.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

/// The store of the lease.
pub trait LeaseStore: Send + Sync {
    /// Reads the lease, if there is one.
    fn read(&self) -> impl Future<Output = Result<Option<Stored>, StoreError>> + Send;

    /// Replaces the lease of this version; without a version, creates it.
    fn write(
        &self,
        record: &LeaseRecord,
        version: Option<&str>,
    ) -> impl Future<Output = Result<Stored, StoreError>> + Send;
}

/// A monotonic clock.
pub trait Clock: Send + Sync {
    /// The present.
    fn now(&self) -> Instant;
    /// Returns at `deadline`, at once if it has passed.
    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> + Send;
}

/// tokio's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioClock;

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> + Send {
        tokio::time::sleep_until(deadline.into())
    }
}

/// A moment by two clocks. The monotonic one may stand still while the machine is suspended, and the other may be set back:
/// the one by which more time has passed counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    /// Returns the present.
    #[must_use]
    pub fn now() -> Self {
        Self { monotonic: TokioClock.now(), wall: SystemTime::now() }
    }

    /// Returns the time from `earlier` to this moment.
    fn since(self, earlier: Self) -> Duration {
        let by_wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        self.monotonic.saturating_duration_since(earlier.monotonic).max(by_wall)
    }
}

/// Until when a term may be acted upon, whether or not the election has run since: shared by a [`Candidate`] and by all that
/// writes.
#[derive(Debug)]
pub struct Tenure {
    timing: Timing,
    /// The epoch, and when its last successful renewal was begun.
    renewed: Mutex<Option<(i32, Moment)>>,
}

impl Tenure {
    /// Returns one in which no term has begun.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self { timing, renewed: Mutex::default() }
    }

    fn set(&self, renewed: Option<(i32, Moment)>) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = renewed;
    }

    /// Records a renewal that began at `begun`.
    pub fn renew(&self, epoch: i32, begun: Moment) {
        self.set(Some((epoch, begun)));
    }

    /// Returns for how long a write of this term that begins `now` may take before another process may take the lease:
    /// no less than `lease_duration - renew_deadline`. `None` from the renew deadline on.
    #[must_use]
    pub fn left(&self, epoch: i32, now: Moment) -> Option<Duration> {
        let (term, renewed) = (*self.renewed.lock().unwrap_or_else(PoisonError::into_inner))?;
        let passed = now.since(renewed);
        let holds = term == epoch && passed < self.timing.renew_deadline;
        holds.then(|| self.timing.lease_duration.saturating_sub(passed))
    }
}

// === The decision ===

/// The knowledge of a candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// The last record seen, and since when it has been so.
    observed: Option<(LeaseRecord, Instant)>,
    term: Option<Term>,
}

/// A term as leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Term {
    epoch: i32,
    /// When the last successful renewal was *begun*: others saw the change later than that.
    renewed: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Another process may be leading.
    Wait,
    /// The lease is free: take it as this epoch.
    Acquire { epoch: i32 },
    /// Extend the present term.
    Renew { epoch: i32 },
    /// The lease was taken from this process while it was the leader.
    StepDown,
}

/// Decides on the lease as just read. Pure: the caller brings the time, and acts.
fn decide(identity: &str, timing: Timing, state: &State, lease: Option<&LeaseRecord>, now: Instant) -> Action {
    let holder = lease.and_then(|record| record.holder.as_deref());
    match (state.term, lease) {
        // A deleted lease is put back: a process that saw it waits until it would have expired.
        (Some(term), None) => Action::Renew { epoch: term.epoch },
        (Some(term), Some(record)) if holder == Some(identity) && record.transitions == term.epoch => {
            Action::Renew { epoch: term.epoch }
        }
        (Some(_), Some(_)) => Action::StepDown,
        (None, _) => {
            let last = state.observed.as_ref();
            match state.held_until(identity, timing) {
                Some(until) if now < until => Action::Wait,
                _ => Action::Acquire { epoch: last.map_or(0, |(record, _)| record.transitions.saturating_add(1)) },
            }
        }
    }
}

impl State {
    /// Until when the lease that was seen last is another's.
    fn held_until(&self, identity: &str, timing: Timing) -> Option<Instant> {
        let (record, since) = self.observed.as_ref()?;
        let held = record.holder.as_deref().is_some_and(|holder| holder != identity);
        held.then(|| *since + record.duration.unwrap_or(timing.lease_duration))
    }

    /// Notes what was read. A lease that is gone counts as unchanged.
    fn observe(&mut self, lease: Option<&LeaseRecord>, now: Instant) {
        if let Some(record) = lease
            && self.observed.as_ref().map(|(seen, _)| seen) != Some(record)
        {
            self.observed = Some((record.clone(), now));
        }
    }
}

// === The candidate ===

/// A process in the election.
pub struct Candidate<S, C = TokioClock> {
    store: S,
    clock: C,
    identity: String,
    timing: Timing,
    state: State,
    leadership: watch::Sender<Leadership>,
    tenure: Arc<Tenure>,
}

/// However the election ends, by a panic too, no task continues as its leader.
impl<S, C> Drop for Candidate<S, C> {
    fn drop(&mut self) {
        self.tenure.set(None);
        self.leadership.send_replace(Leadership::Standby);
    }
}

impl<S: LeaseStore, C: Clock> Candidate<S, C> {
    /// A candidate that is on standby until [`run`](Self::run). `identity` must be unique to this process: the same
    /// name in a lease is taken as this process's own.
    pub fn new(store: S, clock: C, identity: impl Into<String>, timing: Timing) -> Self {
        Self {
            store,
            clock,
            identity: identity.into(),
            timing,
            state: State::default(),
            leadership: watch::Sender::new(Leadership::Standby),
            tenure: Arc::new(Tenure::new(timing)),
        }
    }

    /// Returns the channel of changes of leadership. The sender lives as long as the candidate.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Returns until when the present term may be acted upon, as it is renewed.
    pub fn tenure(&self) -> Arc<Tenure> {
        Arc::clone(&self.tenure)
    }

    /// Takes part in the election until `stop` is ready, then releases the lease so that the next leader need not wait
    /// for it to expire. Work that needs the lease must have ended before `stop` is.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) {
        {
            let campaign = pin!(self.campaign());
            let stop = pin!(stop);
            select(campaign, stop).await;
        }
        self.release().await;
    }

    async fn campaign(&mut self) {
        loop {
            let started = self.clock.now();
            // Half the deadline, so that one request that hangs leaves room for another.
            let give_up = started + self.timing.renew_deadline / 2;
            let deadline = self.deadline().map_or(give_up, |deadline| deadline.min(give_up));
            if let Err(error) = self.attempt(deadline).await {
                warn!(%error, identity = self.identity, "cannot take or renew the leader lease");
            }
            let leads = self.state.term.is_some();
            let next = started + if leads { self.timing.retry_period } else { self.timing.standby_period };
            let wake = self.deadline().or_else(|| self.held_until().filter(|until| *until > self.clock.now()));
            let wake = wake.map_or(next, |at| at.min(next));
            self.clock.sleep_until(wake).await;
            self.step_down_when_overdue();
        }
    }

    /// Until when this process leads without a renewal.
    fn deadline(&self) -> Option<Instant> {
        self.state.term.map(|term| term.renewed + self.timing.renew_deadline)
    }

    /// Until when the lease is another's, if he does not renew it.
    fn held_until(&self) -> Option<Instant> {
        self.state.held_until(&self.identity, self.timing)
    }

    /// Reads the lease once, and acts on it.
    async fn attempt(&mut self, deadline: Instant) -> Result<(), StoreError> {
        let stored = before(&self.clock, deadline, self.store.read()).await?;
        let record = stored.as_ref().map(|stored| &stored.record);
        let now = self.clock.now();
        self.state.observe(record, now);
        match decide(&self.identity, self.timing, &self.state, record, now) {
            Action::Wait => Ok(()),
            Action::StepDown => {
                self.step_down("another process holds the lease");
                Ok(())
            }
            Action::Acquire { epoch } => self.write_lease(epoch, None, stored, deadline).await,
            Action::Renew { epoch } => {
                let acquired = self.state.observed.as_ref().and_then(|(record, _)| record.acquired);
                self.write_lease(epoch, acquired, stored, deadline).await
            }
        }
    }

    /// Writes this process into the lease; on success it leads.
    async fn write_lease(
        &mut self,
        epoch: i32,
        acquired: Option<Timestamp>,
        stored: Option<Stored>,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let begun = Moment { monotonic: self.clock.now(), wall: SystemTime::now() };
        let wall_clock = Timestamp::now();
        let record = LeaseRecord {
            holder: Some(self.identity.clone()),
            duration: Some(self.timing.lease_duration),
            acquired: acquired.or(Some(wall_clock)),
            renewed: Some(wall_clock),
            transitions: epoch,
        };
        let version = stored.as_ref().map(|stored| stored.version.as_str());
        let written = before(&self.clock, deadline, self.store.write(&record, version)).await?;
        self.state.observe(Some(&written.record), self.clock.now());
        self.state.term = Some(Term { epoch, renewed: begun.monotonic });
        self.tenure.renew(epoch, begun);
        self.publish(Leadership::Leader { epoch });
        Ok(())
    }

    fn step_down_when_overdue(&mut self) {
        if self.deadline().is_some_and(|deadline| deadline <= self.clock.now()) {
            self.step_down("the lease could not be renewed in time");
        }
    }

    fn step_down(&mut self, reason: &str) {
        if self.state.term.take().is_some() {
            warn!(identity = self.identity, reason, "no longer the leader");
        }
        self.tenure.set(None);
        self.publish(Leadership::Standby);
    }

    fn publish(&self, leadership: Leadership) {
        let changed = self.leadership.send_if_modified(|current| {
            let changed = *current != leadership;
            *current = leadership;
            changed
        });
        if let (true, Leadership::Leader { epoch }) = (changed, leadership) {
            info!(identity = self.identity, epoch, "this process is the leader");
        }
    }

    /// Releases the lease, if this process holds it. Reads it first, because a renewal may have been interrupted.
    async fn release(&mut self) {
        let led = self.state.term.take().is_some();
        self.tenure.set(None);
        self.publish(Leadership::Standby);
        let deadline = self.clock.now() + self.timing.renew_deadline / 2;
        let result: Result<bool, StoreError> = async {
            let Some(stored) = before(&self.clock, deadline, self.store.read()).await? else {
                return Ok(false);
            };
            if stored.record.holder.as_ref() != Some(&self.identity) {
                return Ok(false);
            }
            let wall_clock = Timestamp::now();
            let released = LeaseRecord {
                holder: None,
                // The form is that of client-go; the API needs a positive number.
                duration: Some(Duration::from_secs(1)),
                acquired: Some(wall_clock),
                renewed: Some(wall_clock),
                transitions: stored.record.transitions,
            };
            before(&self.clock, deadline, self.store.write(&released, Some(&stored.version))).await?;
            Ok(true)
        }
        .await;
        match result {
            Ok(true) => info!(identity = self.identity, "released the leader lease"),
            Ok(false) => {}
            Err(error) => warn!(
                %error,
                identity = self.identity,
                led,
                "cannot release the leader lease: the next leader waits until it expires"
            ),
        }
    }
}

/// The answer of `request`, or an error at `deadline`.
async fn before<T>(
    clock: &impl Clock,
    deadline: Instant,
    request: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match select(pin!(request), pin!(clock.sleep_until(deadline))).await {
        Either::Left((answer, _)) => answer,
        Either::Right(_) => Err(StoreError::Failed("the API server did not answer in time".into())),
    }
}

// === The Lease object ===

/// The lease as an object of the API server.
pub struct KubernetesLease {
    api: Api<Lease>,
    name: String,
}

impl KubernetesLease {
    /// The Lease `name` in the namespace of `api`. Needs the verbs get, create and patch.
    pub fn new(api: Api<Lease>, name: impl Into<String>) -> Self {
        Self { api, name: name.into() }
    }
}

impl LeaseStore for KubernetesLease {
    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let lease = self.api.get_opt(&self.name).await.map_err(|error| StoreError::Failed(error.into()))?;
        Ok(lease.as_ref().map(stored))
    }

    async fn write(&self, record: &LeaseRecord, version: Option<&str>) -> Result<Stored, StoreError> {
        let spec = lease_spec(record);
        let written = match version {
            None => {
                let lease = Lease {
                    metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                    spec: Some(spec),
                };
                self.api.create(&PostParams::default(), &lease).await
            }
            // A merge patch, so that labels and fields of others stay. A null empties the holder.
            Some(version) => {
                let patch = json!({
                    "metadata": {"resourceVersion": version},
                    "spec": {
                        "holderIdentity": spec.holder_identity,
                        "leaseDurationSeconds": spec.lease_duration_seconds,
                        "acquireTime": spec.acquire_time,
                        "renewTime": spec.renew_time,
                        "leaseTransitions": spec.lease_transitions,
                    },
                });
                self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await
            }
        };
        match written {
            Ok(lease) => Ok(stored(&lease)),
            // 409: created or changed since it was read. 404: deleted since, or, on creation, no such namespace.
            Err(kube::Error::Api(status)) if status.code == 409 || (status.code == 404 && version.is_some()) => {
                Err(StoreError::Conflict)
            }
            Err(error) => Err(StoreError::Failed(error.into())),
        }
    }
}

fn stored(lease: &Lease) -> Stored {
    let spec = lease.spec.clone().unwrap_or_default();
    Stored {
        record: LeaseRecord {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            duration: spec
                .lease_duration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map(Duration::from_secs),
            acquired: spec.acquire_time.map(|time| time.0),
            renewed: spec.renew_time.map(|time| time.0),
            transitions: spec.lease_transitions.unwrap_or_default(),
        },
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

fn lease_spec(record: &LeaseRecord) -> LeaseSpec {
    LeaseSpec {
        holder_identity: record.holder.clone(),
        lease_duration_seconds: record.duration.map(|duration| i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: record.acquired.map(MicroTime),
        renew_time: record.renewed.map(MicroTime),
        lease_transitions: Some(record.transitions),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests;
