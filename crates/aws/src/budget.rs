//! One budget of calls for each class of call, shared by all workers.
//!
//! AWS gives an account, in each region and for each class of call, a token bucket: so many calls at once, and so many a
//! second from then on. Its size is not known, and other clients empty it too. So no call waits until AWS throttles; from
//! then on calls of that class go out at about the rate that AWS accepts, which rises with every accepted call and falls
//! when AWS throttles again, until it has not throttled for a while.
//!
//! While calls have to wait, the most urgent [`Priority`] goes first, and the earliest among equals. That is strict: as
//! long as more urgent calls use up all that AWS allows, less urgent ones of the same class wait, without a limit. And they
//! leave some of what AWS allows at once to deregistrations, which would otherwise find AWS's bucket empty.
//!
//! Decisions ([`gate`]) have the time given from outside; this file only waits.

mod gate;
mod limits;

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use self::gate::{Gate, Ticket};
pub use self::limits::{FixedLimit, ThrottleError, parse_throttle};
use super::{AwsError, AwsErrorKind, CallObserver};

/// The urgency of a call, compared with others that wait. The most urgent comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Priority {
    /// DeregisterTargets: requests go to targets that no longer answer.
    Deregister,
    /// RegisterTargets: a new pod waits for requests.
    Register,
    /// A user has changed something and waits for it.
    Edit,
    /// The start of a term, or the sync period: no user waits for it.
    Resync,
    /// Looking for drift.
    Audit,
}

/// The priority of a piece of work, which may rise while the work goes on: calls that wait already move up. Clones are the
/// same urgency.
#[derive(Clone, Debug)]
pub struct Urgency(Arc<watch::Sender<Priority>>);

impl Urgency {
    /// Begins with this priority.
    #[must_use]
    pub fn new(priority: Priority) -> Self {
        Self(Arc::new(watch::Sender::new(priority)))
    }

    /// Returns the priority at this moment.
    #[must_use]
    pub fn priority(&self) -> Priority {
        *self.0.borrow()
    }

    /// Makes the work at least as urgent as this.
    pub fn raise(&self, priority: Priority) {
        self.0.send_if_modified(|current| {
            let rises = priority < *current;
            *current = priority.min(*current);
            rises
        });
    }

    /// Returns when the priority is no longer this one.
    async fn risen_from(&self, priority: Priority) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|current| *current != priority).await;
    }
}

tokio::task_local! {
    static URGENCY: Urgency;
}

/// Runs `work` with this urgency for its calls. Without it they have [`Priority::Edit`]; deregistering targets has its own,
/// and registering them is no less urgent than [`Priority::Register`]. A task that `work` spawns does not inherit it.
pub async fn with_urgency<F: Future>(urgency: Urgency, work: F) -> F::Output {
    URGENCY.scope(urgency, work).await
}

/// Runs `work` as [`with_urgency`] does, with a priority that stays as it is.
pub async fn with_priority<F: Future>(priority: Priority, work: F) -> F::Output {
    with_urgency(Urgency::new(priority), work).await
}

fn current_urgency() -> Urgency {
    URGENCY.try_with(Clone::clone).unwrap_or_else(|_| Urgency::new(Priority::Edit))
}

/// The priority of the work that this is part of.
#[must_use]
pub fn current_priority() -> Priority {
    URGENCY.try_with(Urgency::priority).unwrap_or(Priority::Edit)
}

/// Returns the priority of an operation in work of a priority. Targets are registered before others are deregistered, so a
/// registration in work that is to deregister is as urgent as that.
fn priority_of(operation: &str, work: Priority) -> Priority {
    match operation {
        "DeregisterTargets" => Priority::Deregister,
        "RegisterTargets" => work.min(Priority::Register),
        _ => work,
    }
}

/// Calls that AWS counts together, as far as it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    /// ELB v2's Describe.
    ElbReads,
    /// ELB v2's changes, except changes of targets.
    ElbWrites,
    /// RegisterTargets and DeregisterTargets.
    Registrations,
    /// EC2's Describe.
    Ec2Reads,
    /// EC2's changes.
    Ec2Writes,
    /// ACM's lists and Describe.
    AcmReads,
    /// ACM's changes.
    AcmWrites,
    /// Route 53's calls.
    Route53,
    /// WAFv2's Get and List, which hold up no others.
    WafReads,
    /// WAFv2's changes.
    WafWrites,
    /// Shield's calls.
    Shield,
    /// All other services.
    Others,
}

impl Class {
    const ALL: [Self; 12] = [
        Self::ElbReads,
        Self::ElbWrites,
        Self::Registrations,
        Self::Ec2Reads,
        Self::Ec2Writes,
        Self::AcmReads,
        Self::AcmWrites,
        Self::Route53,
        Self::WafReads,
        Self::WafWrites,
        Self::Shield,
        Self::Others,
    ];

    /// `service` is an id as [`super::client::service_id`] spells it.
    fn of(service: &str, operation: &str) -> Self {
        let read = operation.starts_with("Describe");
        match (service, operation) {
            ("elasticloadbalancingv2", "RegisterTargets" | "DeregisterTargets") => Self::Registrations,
            ("elasticloadbalancingv2", _) if read => Self::ElbReads,
            ("elasticloadbalancingv2", _) => Self::ElbWrites,
            ("ec2", _) if read => Self::Ec2Reads,
            ("ec2", _) => Self::Ec2Writes,
            ("acm", "RequestCertificate" | "DeleteCertificate") => Self::AcmWrites,
            ("acm", _) => Self::AcmReads,
            ("route53", _) => Self::Route53,
            ("wafv2", "AssociateWebACL" | "DisassociateWebACL") => Self::WafWrites,
            ("wafv2", _) => Self::WafReads,
            ("shield", _) => Self::Shield,
            _ => Self::Others,
        }
    }

    /// Its name in metrics and `/debug/state`.
    fn name(self) -> &'static str {
        match self {
            Self::ElbReads => "elb_reads",
            Self::ElbWrites => "elb_writes",
            Self::Registrations => "registrations",
            Self::Ec2Reads => "ec2_reads",
            Self::Ec2Writes => "ec2_writes",
            Self::AcmReads => "acm_reads",
            Self::AcmWrites => "acm_writes",
            Self::Route53 => "route53",
            Self::WafReads => "waf_reads",
            Self::WafWrites => "waf_writes",
            Self::Shield => "shield",
            Self::Others => "others",
        }
    }

    /// Returns the number of calls that AWS accepts at once after a pause, and the lowest rate, in calls per second: half of what
    /// AWS gives an account. Where others of the account leave less than that, the pauses of each throttled call do the rest.
    fn size(self) -> (f64, f64) {
        match self {
            Self::ElbReads => (40.0, 5.0),
            Self::ElbWrites => (20.0, 1.5),
            Self::Registrations => (20.0, 2.0),
            // "Request throttling for the Amazon EC2 API": reads without a filter 50 at 10/s, changes 50 at 5/s.
            Self::Ec2Reads => (50.0, 5.0),
            Self::Ec2Writes => (50.0, 2.5),
            // "Quotas" of ACM: ListCertificates 8/s, DescribeCertificate 10/s.
            Self::AcmReads => (8.0, 4.0),
            // RequestCertificate 5/s, DeleteCertificate 10/s.
            Self::AcmWrites => (5.0, 2.5),
            // "Quotas" of Route 53: five requests a second of an account, everywhere.
            Self::Route53 => (5.0, 1.0),
            // "Quotas" of AWS WAF: AssociateWebACL and GetWebACLForResource about one call a second.
            Self::WafReads | Self::WafWrites | Self::Shield => (1.0, 0.5),
            Self::Others => (10.0, 0.5),
        }
    }

    /// Returns the time for whose calls a reserve is kept, which AWS is to accept at once from deregistrations and the calls
    /// before them, whatever else is sent.
    fn reserve(self) -> Duration {
        match self {
            Self::ElbReads | Self::Registrations => Duration::from_secs(1),
            _ => Duration::ZERO,
        }
    }

    fn gate(self) -> Gate {
        let (burst, floor) = self.size();
        Gate::adaptive(burst, floor).with_reserve(self.reserve())
    }
}

/// The longest pause after a failed attempt at a call on which a deregistration depends, unless AWS throttles.
const LONGEST_URGENT_PAUSE: Duration = Duration::from_millis(500);

/// The state of a class's budget, for `/debug/state`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BudgetState {
    /// Calls a second; nothing while there is no limit, because AWS has not throttled lately.
    pub rate: Option<f64>,
    /// Calls that wait for their turn.
    pub waiting: usize,
    /// Seconds that calls have waited since the start, added up.
    pub seconds_waited: f64,
    /// Calls that AWS has throttled since the start.
    pub throttled: u64,
}

/// A gate with the calls that wait for it.
struct Queue {
    gate: Mutex<Gate>,
    changed: Notify,
}

/// A place in a queue, released however the wait ends.
struct WaitGuard<'a> {
    queue: &'a Queue,
    ticket: Ticket,
}

impl WaitGuard<'_> {
    /// Exchanges the place for another one.
    fn move_to(&mut self, ticket: Ticket) {
        if self.ticket != ticket {
            let mut gate = self.queue.lock();
            gate.leave(self.ticket);
            gate.enter(ticket);
            self.ticket = ticket;
        }
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.queue.lock().leave(self.ticket);
        self.queue.changed.notify_waiters();
    }
}

impl Queue {
    fn new(gate: Gate) -> Self {
        Self { gate: Mutex::new(gate), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        // A gate is consistent between any two statements that could panic.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn of a call.
    async fn turn(&self, call: &Call<'_>) {
        let mut place = WaitGuard { queue: self, ticket: call.ticket() };
        self.lock().enter(place.ticket);
        loop {
            // Subscribed first, so that a change between the check and the wait is not missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let work = call.urgency.priority();
            place.move_to(call.ticket_in(work));
            let Err(due) = self.lock().take(place.ticket, Instant::now()) else { return };
            let due = async move {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    // Others come first, and their end is a change.
                    None => std::future::pending().await,
                }
            };
            tokio::select! { () = changed => {}, () = due => {}, () = call.urgency.risen_from(work) => {} }
        }
    }
}

/// The cost of one class so far.
#[derive(Default)]
struct Cost {
    waited: Duration,
    throttled: u64,
}

/// The budgets of all classes, and the fixed limits of `--aws-api-throttle`.
pub(super) struct Budgets {
    classes: BTreeMap<Class, (Queue, Mutex<Cost>)>,
    fixed: Vec<(FixedLimit, Queue)>,
    arrivals: AtomicU64,
    observer: Option<Arc<dyn CallObserver>>,
}

/// One call with all its attempts, which keeps the place that it had when it came.
pub(super) struct Call<'a> {
    budgets: &'a Budgets,
    operation: &'static str,
    class: Class,
    /// Its number among all calls.
    arrival: u64,
    /// The urgency of the work that it is part of.
    urgency: Urgency,
    fixed: Vec<&'a Queue>,
}

impl Budgets {
    pub(super) fn new(fixed: &[FixedLimit], observer: Option<Arc<dyn CallObserver>>) -> Self {
        let now = Instant::now();
        let class = |class: Class| (class, (Queue::new(class.gate()), Mutex::default()));
        let fixed = fixed.iter().map(|limit| (limit.clone(), Queue::new(Gate::fixed(limit.burst, limit.rate, now))));
        Self { classes: Class::ALL.map(class).into(), fixed: fixed.collect(), arrivals: AtomicU64::new(0), observer }
    }

    pub(super) fn call(&self, service: &str, operation: &'static str) -> Call<'_> {
        let arrival = self.arrivals.fetch_add(1, Ordering::Relaxed);
        let fixed = self.fixed.iter().filter(|(limit, _)| limit.concerns(service, operation));
        Call {
            budgets: self,
            operation,
            class: Class::of(service, operation),
            arrival,
            urgency: current_urgency(),
            fixed: fixed.map(|(_, queue)| queue).collect(),
        }
    }

    /// By class.
    pub(super) fn state(&self) -> BTreeMap<&'static str, BudgetState> {
        let now = Instant::now();
        let state = self.classes.iter().map(|(class, (queue, cost))| {
            let (mut gate, cost) = (queue.lock(), cost.lock().unwrap_or_else(PoisonError::into_inner));
            let state = BudgetState {
                rate: gate.rate(now),
                waiting: gate.waiting(),
                seconds_waited: cost.waited.as_secs_f64(),
                throttled: cost.throttled,
            };
            (class.name(), state)
        });
        state.collect()
    }

    fn observe(&self, class: Class, rate: Option<f64>, waited: Duration, throttled: bool) {
        let Some((_, cost)) = self.classes.get(&class) else { return };
        let mut cost = cost.lock().unwrap_or_else(PoisonError::into_inner);
        cost.waited += waited;
        cost.throttled += u64::from(throttled);
        drop(cost);
        if let Some(observer) = &self.observer {
            observer.budget(class.name(), rate, waited.as_secs_f64(), throttled);
        }
    }
}

impl Call<'_> {
    fn ticket_in(&self, work: Priority) -> Ticket {
        (priority_of(self.operation, work), self.arrival)
    }

    fn ticket(&self) -> Ticket {
        self.ticket_in(self.urgency.priority())
    }

    /// Pauses after an attempt that failed: so long, but no longer than [`LONGEST_URGENT_PAUSE`] if a deregistration
    /// depends on the call. A call that AWS throttles pauses in full, because urgent calls would soon find no reserve.
    pub(super) async fn pause(&self, pause: Duration, error: &AwsErrorKind) {
        let began = Instant::now();
        let may_shorten = !matches!(error, AwsErrorKind::Throttled { .. });
        loop {
            let work = self.urgency.priority();
            let is_urgent = may_shorten && self.ticket_in(work).0 == Priority::Deregister;
            let pause = if is_urgent { pause.min(LONGEST_URGENT_PAUSE) } else { pause };
            tokio::select! {
                () = tokio::time::sleep_until(began + pause) => return,
                () = self.urgency.risen_from(work) => {}
            }
        }
    }

    /// Waits until an attempt may be made.
    pub(super) async fn turn(&self) {
        let began = Instant::now();
        for queue in &self.fixed {
            queue.turn(self).await;
        }
        let Some((queue, _)) = self.budgets.classes.get(&self.class) else { return };
        queue.turn(self).await;
        let now = Instant::now();
        let rate = queue.lock().rate(now);
        self.budgets.observe(self.class, rate, now - began, false);
    }

    /// Records the result of an attempt that was sent at `sent`.
    pub(super) fn ended<T>(&self, sent: Instant, answer: &Result<T, AwsError>) {
        let Some((queue, _)) = self.budgets.classes.get(&self.class) else { return };
        let now = Instant::now();
        let throttled = match answer {
            Err(AwsError { kind: AwsErrorKind::Throttled { .. }, .. }) => true,
            // AWS has accepted the call, even where it refuses the change.
            Ok(_) => false,
            Err(error) if error.code().is_some() => false,
            Err(_) => return,
        };
        let (before, after) = {
            let mut gate = queue.lock();
            let before = gate.rate(now);
            if throttled {
                gate.throttled(sent, now)
            } else {
                gate.passed(now)
            }
            (before, gate.rate(now))
        };
        if throttled {
            let (class, operation) = (self.class.name(), self.operation);
            match (before, after) {
                (None, Some(rate)) => {
                    tracing::info!(class, operation, rate, "AWS throttles, so these calls are sent more slowly now");
                }
                _ => tracing::debug!(class, operation, rate = after, "throttled by AWS"),
            }
        }
        self.budgets.observe(self.class, after, Duration::ZERO, throttled);
    }
}

#[cfg(test)]
mod tests;
