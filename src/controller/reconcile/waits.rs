//! The waits of stacks: state with a deadline, without a sleeping task. The end of a wait brings the stack back by itself;
//! at the deadline a wait that has not ended is reported. Each has its own time, which records keep across restarts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use albatross_core::{
    model::{AddOn, LoadBalancerArn, ObjectName, Opening, ResourceId, StackId},
    plan::{Plan, Step, StepAction, Wait, waits_text},
};

/// A binding is gone seconds after its targets are deregistered; one that is not for minutes has another owner's finalizer, or
/// fails, and its events say how.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// A load balancer serves some minutes after it was made; how often it is looked at until then.
const LOOK: Duration = Duration::from_secs(5);
/// The same once people have been told that it takes too long.
const LOOK_SELDOM: Duration = Duration::from_secs(60);
/// The time that ACM takes at most to issue a certificate whose records are right.
const CERTIFICATE_TIME: Duration = Duration::from_secs(1800);
/// How often targets are looked at at first: registering takes about a second, and a first check of health a few.
const LOOK_FIRST: Duration = Duration::from_secs(2);
/// The share of each target group that is waited for in that pause, so that many of them do not use up what AWS allows
/// (10 Describe calls a second for an account and region): two calls a second in all.
const LOOK_SHARE: Duration = Duration::from_millis(500);
/// The longest time between two looks, however many are waited for.
const LONGEST_LOOK: Duration = Duration::from_secs(120);
/// The time for which a wait may be begun anew, so that whoever goes on changing things does not keep others waiting.
const BEGUN_ANEW: Duration = Duration::from_secs(60);
/// The shortest pause until a stack that waits is looked at again.
const SOONEST: Duration = Duration::from_secs(1);
/// The time that is left at least of a wait for healthy targets that an earlier process began: nobody has registered any
/// since.
const LEFT_AFTER_RESTART: Duration = Duration::from_secs(60);

/// The durations of waits that flags set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// `--replaced-load-balancer-hold`
    pub load_balancer: Duration,
    /// `--replaced-listener-hold`
    pub listener: Duration,
    /// `--target-health-deadline`
    pub healthy_within: Duration,
    /// `--propagation-time`
    pub propagation: Duration,
}

impl Holds {
    /// The defaults of the flags.
    pub const DEFAULT: Self = Self {
        load_balancer: Duration::from_secs(300),
        listener: Duration::from_secs(30),
        healthy_within: Duration::from_secs(300),
        propagation: Duration::from_secs(15),
    };

    /// Nothing is held, and no health awaited.
    #[cfg(test)]
    pub(crate) const NONE: Self = Self {
        load_balancer: Duration::ZERO,
        listener: Duration::ZERO,
        healthy_within: Duration::ZERO,
        propagation: Duration::ZERO,
    };
}

/// The waits, by stack, and the deletions that AWS does not carry out.
#[derive(Debug)]
pub(crate) struct Waits {
    holds: Holds,
    waits: Mutex<BTreeMap<StackId, BTreeMap<Wait, Waiting>>>,
    blocked: Mutex<BTreeMap<String, Blocked>>,
    /// The add-ons that AWS does not accept yet, each with the time since when.
    add_ons: Mutex<BTreeMap<(StackId, AddOn), Instant>>,
}

/// A deletion that AWS does not carry out.
#[derive(Debug)]
struct Blocked {
    step: String,
    since: Instant,
    patience: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: Instant,
    /// The time when it was first begun, in this process and since what it is about was created.
    first: Instant,
    /// The time when it was first begun anew.
    anew: Option<Instant>,
    /// That it takes too long, to people; or that it is over, to the pass that asked.
    reported: bool,
    /// True if its time has not begun to count.
    stopped: bool,
}

impl Waiting {
    /// Returns one that began a time ago.
    fn for_some(age: Duration) -> Self {
        let now = Instant::now();
        let since = now.checked_sub(age).unwrap_or(now);
        Self { since, first: now, anew: None, reported: false, stopped: false }
    }

    /// Returns the time that counts.
    fn waited(&self) -> Duration {
        if self.stopped { Duration::ZERO } else { self.since.elapsed() }
    }
}

/// A wait, as `/debug/state` shows it.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct WaitState {
    /// The stack that waits.
    pub stack: String,
    /// For what.
    pub wait: String,
    /// For how long already.
    pub seconds: f64,
    /// The time until its end, or until the report if something else ends it; negative after that.
    pub seconds_left: f64,
}

/// The action that the waits of a stack require.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Look again then, if no watch tells the end before.
    pub again: Option<Duration>,
    /// The messages of waits that take too long, each to be reported now.
    pub reports: Vec<String>,
    /// The target groups that rules lead to although their targets are not healthy, each to be reported to its Ingress.
    pub unhealthy: BTreeSet<ResourceId>,
}

/// The waits that are over for a stack, although nothing has happened but that time has passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expired {
    /// The replaced load balancers that may go.
    pub load_balancers: BTreeSet<LoadBalancerArn>,
    /// The ports whose listeners are retained, each with true if it may go.
    pub listeners: BTreeMap<u16, bool>,
    /// The ports of new listeners that redirects wait for.
    pub opened: BTreeMap<u16, Opening>,
    /// The target groups that rules have waited for long enough.
    pub health: BTreeSet<ResourceId>,
    /// True if rules do not wait for healthy targets.
    pub awaits_nothing: bool,
    /// True if listeners are not retained.
    pub retains_nothing: bool,
    /// True if redirects do not wait for new listeners.
    pub opens_at_once: bool,
}

impl Waits {
    /// Returns the longest time that rules wait for healthy targets.
    #[must_use]
    pub(crate) fn healthy_within(&self) -> Duration {
        self.holds.healthy_within
    }

    /// Returns the waits of a process: none.
    #[must_use]
    pub(crate) fn new(holds: Holds) -> Self {
        Self { holds, waits: Mutex::default(), blocked: Mutex::default(), add_ons: Mutex::default() }
    }

    fn waits(&self) -> MutexGuard<'_, BTreeMap<StackId, BTreeMap<Wait, Waiting>>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blocks(&self) -> MutexGuard<'_, BTreeMap<String, Blocked>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time after which a wait is over, or, for targets, after which what waits goes on all the same; `None` if
    /// something else ends it.
    fn hold(&self, wait: &Wait) -> Option<Duration> {
        match wait {
            Wait::RetainOld(_) | Wait::Moved(_) => Some(self.holds.load_balancer),
            Wait::RetainListener(_) => Some(self.holds.listener),
            Wait::Ready(_) => Some(self.holds.healthy_within),
            Wait::Opened(_) | Wait::Arrived(_) => Some(self.holds.propagation),
            Wait::BindingGone(_)
            | Wait::LoadBalancerActive
            | Wait::Mended(_)
            | Wait::LetIn(_)
            | Wait::Protected(_)
            | Wait::ProtectedInFront(_)
            | Wait::CertificateIssued(_) => None,
        }
    }

    /// Returns true if a wait has lasted for as long as it may.
    fn is_over(&self, wait: &Wait, waiting: &Waiting) -> bool {
        self.hold(wait).is_some_and(|hold| waiting.waited() >= hold)
    }

    /// Returns the longest time that redirects wait for a listener and for what it leads to: its targets have all of theirs.
    fn longest_opening(&self) -> Duration {
        self.holds.healthy_within.max(DEADLINE).saturating_add(self.holds.propagation)
    }

    /// Returns the waits of a stack whose time has passed.
    #[must_use]
    pub(crate) fn expired(&self, stack: &StackId) -> Expired {
        let mut expired = Expired {
            awaits_nothing: self.holds.healthy_within.is_zero(),
            retains_nothing: self.holds.listener.is_zero(),
            opens_at_once: self.holds.propagation.is_zero(),
            ..Expired::default()
        };
        for (wait, waiting) in self.waits().get(stack).into_iter().flatten() {
            let is_over = self.is_over(wait, waiting);
            match wait {
                Wait::RetainOld(arn) if is_over => drop(expired.load_balancers.insert(arn.clone())),
                Wait::Protected(arn) | Wait::ProtectedInFront(arn) => drop(expired.load_balancers.insert(arn.clone())),
                Wait::RetainListener(port) => drop(expired.listeners.insert(*port, is_over)),
                Wait::Opened(port) => {
                    let opening = match is_over {
                        _ if waiting.first.elapsed() >= self.longest_opening() => Opening::Overdue,
                        true => Opening::Everywhere,
                        false => Opening::OnItsWay,
                    };
                    expired.opened.insert(*port, opening);
                }
                Wait::Ready(id) if is_over => drop(expired.health.insert(id.clone())),
                _ => {}
            }
        }
        expired
    }

    /// Begins the waits of a plan that is about to be carried out and may fail. Those for targets end if it has them no more,
    /// but not while members arrive, whose targets are looked at until they are published. A load balancer's begins only
    /// after the plan, when what takes over is complete. No hold ends: it may be over only for what this plan is to delete.
    /// Returns true if one begins for targets that have to let a load balancer in.
    pub(crate) fn begin(&self, stack: &StackId, plan: &Plan, arrives: bool) -> bool {
        let new = Waiting::for_some(Duration::ZERO);
        let mut all = self.waits();
        let waits = all.entry(stack.clone()).or_default();
        waits.retain(|wait, _| match wait {
            Wait::Ready(id) => arrives || plan.waits().contains(wait) || plan.unhealthy().contains(id),
            _ => true,
        });
        // The time of a port begins when nothing redirects to it any more.
        waits.retain(|wait, _| !matches!(wait, Wait::RetainListener(port) if plan.led_to().contains(port)));
        let begun = plan.waits().iter().filter(|wait| !matches!(wait, Wait::RetainOld(_)));
        let begun: Vec<&Wait> = begun.filter(|wait| !waits.contains_key(wait)).collect();
        waits.extend(begun.iter().map(|wait| ((*wait).clone(), new)));
        if waits.is_empty() {
            all.remove(stack);
        }
        begun.into_iter().any(|wait| matches!(wait, Wait::LetIn(_)))
    }

    /// Begins waits anew after these steps, for a while: clients may use a new listener from now on, and rules are on their way
    /// to the nodes of the load balancer.
    pub(crate) fn carried_out(&self, stack: &StackId, steps: &[Step]) {
        let created: BTreeSet<u16> = steps.iter().filter_map(|step| step.action.creates_on()).collect();
        let created_listener = |step: &Step| match &step.action {
            StepAction::CreateListener { .. } => step.action.creates_on(),
            _ => None,
        };
        let new_ports: BTreeSet<u16> = steps.iter().filter_map(created_listener).collect();
        let (mut all, now) = (self.waits(), Instant::now());
        for (wait, waiting) in all.get_mut(stack).into_iter().flatten() {
            // All the time before it was created, it could not be used.
            if matches!(wait, Wait::Opened(port) if new_ports.contains(port)) {
                *waiting = Waiting::for_some(Duration::ZERO);
            }
            let begins = match wait {
                Wait::RetainListener(_) => !new_ports.is_empty(),
                Wait::Opened(port) => created.contains(port),
                Wait::Arrived(name) => steps.iter().any(|s| s.cause.object.name == *name && s.action.changes_answers()),
                _ => false,
            };
            let anew = waiting.anew.unwrap_or(now);
            if begins && now.duration_since(anew) < BEGUN_ANEW {
                *waiting = Waiting { since: now, anew: Some(anew), reported: false, ..*waiting };
            }
        }
    }

    /// Returns when to look again at who has moved away from a stack without a plan. Nobody arrives at one.
    pub(crate) fn again(&self, stack: &StackId) -> Option<Duration> {
        let waits = self.waits();
        let moved = waits.get(stack)?.iter().filter(|(wait, _)| matches!(wait, Wait::Moved(_)));
        let again = |(wait, waiting): (&Wait, &Waiting)| self.step(wait, waiting, 0).again;
        moved.filter_map(again).min().map(|again| again.max(SOONEST))
    }

    /// Remembers a wait whose time does not count until [`Self::runs`] is called.
    pub(crate) fn remember(&self, stack: &StackId, wait: &Wait) {
        let stopped = Waiting { stopped: true, ..Waiting::for_some(Duration::ZERO) };
        self.waits().entry(stack.clone()).or_default().insert(wait.clone(), stopped);
    }

    /// Returns true if a stack has a wait.
    pub(crate) fn has(&self, stack: &StackId, wait: &Wait) -> bool {
        self.waits().get(stack).is_some_and(|waits| waits.contains_key(wait))
    }

    /// Returns true while a wait of a stack runs whose time alone decides. The first call begins it; it is there until a plan
    /// is noted that does not keep it.
    pub(crate) fn runs(&self, stack: &StackId, wait: &Wait) -> bool {
        if self.hold(wait).is_none_or(|hold| hold.is_zero()) {
            return false;
        }
        let new = Waiting::for_some(Duration::ZERO);
        let mut all = self.waits();
        let waiting = all.entry(stack.clone()).or_default().entry(wait.clone()).or_insert(new);
        if waiting.stopped {
            *waiting = new;
        }
        waiting.reported = self.is_over(wait, waiting);
        !waiting.reported
    }

    /// Ends the waits for clients of members that have moved, but for these.
    pub(crate) fn follow(&self, stack: &StackId, followed: &BTreeSet<ObjectName>) {
        if let Some(waits) = self.waits().get_mut(stack) {
            waits.retain(|wait, _| !matches!(wait, Wait::Moved(name) if !followed.contains(name)));
        }
    }

    /// Ends all waits of a stack.
    pub(crate) fn end(&self, stack: &StackId) {
        self.waits().remove(stack);
        self.retain_add_ons(stack, &BTreeSet::new());
    }

    /// Records that an add-on of a stack cannot be read or is not accepted. Returns true if that has lasted for `patience`.
    pub(crate) fn is_late(&self, stack: &StackId, add_on: AddOn, patience: Duration) -> bool {
        let (mut all, now) = (self.add_ons.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        now.duration_since(*all.entry((stack.clone(), add_on)).or_insert(now)) >= patience
    }

    /// Ends the time of the add-ons of a stack other than those that still stay as they are.
    pub(crate) fn retain_add_ons(&self, stack: &StackId, still: &BTreeSet<AddOn>) {
        let mut all = self.add_ons.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(of, add_on), _| of != stack || still.contains(add_on));
    }

    /// Ends the waits for healthy targets of a stack that cannot be built: what it is to lead to is not known.
    pub(crate) fn end_health(&self, stack: &StackId) {
        if let Some(waits) = self.waits().get_mut(stack) {
            waits.retain(|wait, _| !matches!(wait, Wait::Ready(_)));
        }
    }

    /// Records what the latest plan of a stack waits for, once it is carried out. Each wait keeps its time while it lasts;
    /// those of `kept` that have begun stay besides.
    pub(crate) fn note(&self, stack: &StackId, plan: &Plan, kept: &BTreeSet<Wait>) -> Due {
        let now = Instant::now();
        let mut all = self.waits();
        let before = all.remove(stack).unwrap_or_default();
        if plan.waits().is_empty() && before.is_empty() {
            return Due::default();
        }
        // A target group stays overdue until the rules that lead there are published.
        let overdue: Vec<Wait> = plan.unhealthy().iter().cloned().map(Wait::Ready).collect();
        let kept = kept.iter().chain(&overdue).filter(|wait| before.contains_key(wait));
        let wanted: BTreeSet<&Wait> = plan.waits().iter().chain(kept).collect();
        let young = |wait: &Wait, waiting: &Waiting| {
            matches!(wait, Wait::Ready(_)) && now.duration_since(waiting.since) < self.holds.healthy_within
        };
        let pace = all.values().flatten().filter(|(wait, waiting)| young(wait, waiting)).count()
            + wanted.iter().filter(|wait| matches!(wait, Wait::Ready(_))).count();
        let is_told =
            |id: &&ResourceId| before.get(&Wait::Ready((*id).clone())).is_some_and(|waiting| waiting.reported);
        let unhealthy = plan.unhealthy().iter().filter(|id| !is_told(id)).cloned().collect();
        let mut due = Due { unhealthy, ..Due::default() };
        let new = Waiting::for_some(Duration::ZERO);
        let mut waits: BTreeMap<Wait, Waiting> =
            wanted.into_iter().map(|wait| (wait.clone(), before.get(wait).copied().unwrap_or(new))).collect();
        let mut late: Vec<Wait> = Vec::new();
        for wait in &overdue {
            if let Some(waiting) = waits.get_mut(wait) {
                waiting.reported = true;
            }
        }
        for (wait, waiting) in &mut waits {
            let step = self.step(wait, waiting, pace);
            due.again = due.again.into_iter().chain(step.again).min();
            if step.is_late {
                waiting.reported = true;
                late.push(wait.clone());
            }
        }
        due.reports.extend(
            waits_text(&late)
                .into_iter()
                .zip(late.chunk_by(same_kind))
                .filter_map(|(text, of)| of.first().map(|wait| reported(wait, &text))),
        );
        if !waits.is_empty() {
            all.insert(stack.clone(), waits);
        }
        due.again = due.again.map(|again| again.max(SOONEST));
        due
    }

    /// Returns when to look at a wait again, and if it is to be reported. `pace` is the number of target groups that are
    /// waited for in all.
    fn step(&self, wait: &Wait, waiting: &Waiting, pace: usize) -> StepOfWait {
        let (waited, reported) = (waiting.waited(), waiting.reported);
        let later = |again| StepOfWait { again: Some(again), is_late: false };
        let hold = self.hold(wait).unwrap_or_default().saturating_sub(waited);
        let left = DEADLINE.saturating_sub(waited);
        let is_late = left.is_zero() && !reported;
        match wait {
            Wait::RetainOld(_) | Wait::RetainListener(_) => later(hold),
            // What leads there may wait for more.
            Wait::Opened(_) => later(if hold.is_zero() { LOOK } else { hold }),
            // A pass that has not seen that it is over comes again; what it was for may wait for more.
            Wait::Arrived(_) | Wait::Moved(_) => {
                StepOfWait { again: Some(hold).filter(|_| !reported && !waiting.stopped), is_late: false }
            }
            Wait::Protected(_) | Wait::ProtectedInFront(_) => StepOfWait { again: Some(DEADLINE), is_late: !reported },
            // No watch tells the state of a load balancer, or the health of a target.
            Wait::LoadBalancerActive if left.is_zero() => StepOfWait { again: Some(LOOK_SELDOM), is_late },
            Wait::LoadBalancerActive => later(left.min(LOOK)),
            // ACM issues most within minutes; the records of a domain may be wrong for days.
            Wait::CertificateIssued(_) => {
                let again = match waited {
                    waited if waited < LOOK_SELDOM * 2 => LOOK,
                    waited if waited < CERTIFICATE_TIME => LOOK_SELDOM / 2,
                    _ => DEADLINE,
                };
                StepOfWait { again: Some(again), is_late: waited >= CERTIFICATE_TIME && !reported }
            }
            Wait::Ready(_) => {
                let pause = if waited < LOOK * 2 { LOOK_FIRST } else { LOOK };
                let share = LOOK_SHARE.saturating_mul(u32::try_from(pace).unwrap_or(u32::MAX));
                let pause = pause.max(share.min(LONGEST_LOOK));
                // What has waited long enough may wait for others.
                later(if hold.is_zero() { pause } else { pause.min(hold) })
            }
            // A watch tells the end.
            Wait::BindingGone(_) | Wait::LetIn(_) | Wait::Mended(_) => {
                StepOfWait { again: Some(left).filter(|left| !left.is_zero()), is_late }
            }
        }
    }

    /// Returns the ages of the waits whose time a restart must not begin anew.
    #[must_use]
    pub(crate) fn ages(&self, stack: &StackId) -> BTreeMap<Wait, Duration> {
        let waits = self.waits();
        let timed = waits.get(stack).into_iter().flatten().filter(|(wait, _)| {
            self.hold(wait).is_some() || matches!(wait, Wait::Protected(_) | Wait::ProtectedInFront(_))
        });
        timed.map(|(wait, waiting)| (wait.clone(), waiting.waited())).collect()
    }

    /// Takes over waits of an earlier process, with their ages.
    pub(crate) fn restore(&self, stack: &StackId, ages: impl IntoIterator<Item = (Wait, Duration)>) {
        let oldest = self.holds.healthy_within.saturating_sub(LEFT_AFTER_RESTART);
        let left = |wait: &Wait, age: Duration| {
            if matches!(wait, Wait::Ready(_)) { age.min(oldest) } else { age }
        };
        let waits = ages.into_iter().map(|(wait, age)| {
            let waiting = Waiting::for_some(left(&wait, age));
            (wait, waiting)
        });
        self.waits().entry(stack.clone()).or_default().extend(waits);
    }

    /// Returns the stacks that wait until targets allow a security group.
    #[must_use]
    pub(crate) fn for_targets(&self) -> Vec<StackId> {
        let waits = self.waits();
        let lets_in = |waits: &BTreeMap<Wait, Waiting>| waits.keys().any(|wait| matches!(wait, Wait::LetIn(_)));
        waits.iter().filter(|(_, waits)| lets_in(waits)).map(|(stack, _)| stack.clone()).collect()
    }

    /// Records that AWS does not carry out a deletion of `owner`. Returns true if it must be reported, which is so once it
    /// has lasted for `patience`.
    pub(crate) fn blocked(&self, owner: &str, step: &str, patience: Duration) -> bool {
        let (mut blocked, now) = (self.blocks(), Instant::now());
        let new = || Blocked { step: step.to_owned(), since: now, patience };
        let known = blocked.entry(owner.to_owned()).or_insert_with(new);
        if known.step != step {
            *known = new();
        }
        known.patience = patience;
        now.duration_since(known.since) >= patience
    }

    /// Records that no deletion of `owner` waits for AWS.
    pub(crate) fn unblocked(&self, owner: &str) {
        self.blocks().remove(owner);
    }

    /// Returns how many deletions AWS has not carried out for so long that they were reported.
    #[must_use]
    pub(crate) fn count_blocked(&self) -> usize {
        let now = Instant::now();
        self.blocks().values().filter(|blocked| now.duration_since(blocked.since) >= blocked.patience).count()
    }

    /// All waits.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<WaitState> {
        let state = |stack: &StackId, wait: &Wait, waiting: &Waiting| {
            let seconds = waiting.waited().as_secs_f64();
            WaitState {
                stack: stack.object().to_string(),
                wait: wait.to_string(),
                seconds,
                seconds_left: self.hold(wait).unwrap_or(DEADLINE).as_secs_f64() - seconds,
            }
        };
        let waits = self.waits();
        let of = |(stack, waits): (&StackId, &BTreeMap<Wait, Waiting>)| {
            waits.iter().map(|(wait, waiting)| state(stack, wait, waiting)).collect::<Vec<_>>()
        };
        waits.iter().flat_map(of).collect()
    }
}

/// The next step of a wait.
struct StepOfWait {
    again: Option<Duration>,
    is_late: bool,
}

fn same_kind(one: &Wait, other: &Wait) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// Returns the message about waits of a kind that take too long.
fn reported(wait: &Wait, text: &str) -> String {
    let hint = match wait {
        Wait::Protected(_) => {
            return format!(
                "{text}; write `deletion_protection.enabled=false` in the annotation of the load balancer's attributes, or switch the \
                 protection off in AWS, if the old load balancer may be deleted"
            );
        }
        Wait::ProtectedInFront(_) => {
            return format!(
                "{text}; write `deletion_protection.enabled=false` in the annotation `alb.ingress.kubernetes.io/frontend-nlb-attributes`, or switch \
                 the protection off in AWS, if it may be deleted"
            );
        }
        Wait::CertificateIssued(_) => {
            return format!(
                "{text} for {} minutes; look at the certificate in ACM: the CNAME records that it shows have to be in the hosted zone to which the domain's name servers belong",
                CERTIFICATE_TIME.as_secs() / 60
            );
        }
        Wait::BindingGone(_) => {
            "look at its events and finalizers: the target group, and all that is deleted after it, stay until it is gone"
        }
        Wait::LetIn(_) => {
            "look at its events: until then the load balancer stays in the security groups that it is in, and nothing that comes after \
             that is changed"
        }
        Wait::Mended(_) => {
            "look at the events of all that it serves, and at the health of their targets: the old load balancer serves until then"
        }
        _ => "look at its state in AWS: the old load balancer serves until then",
    };
    format!("{text} for {} minutes; {hint}", DEADLINE.as_secs() / 60)
}

/// Returns the message about targets that rules lead to although they are not healthy, with the longest time that rules wait
/// for them.
pub(crate) fn still_unhealthy(groups: impl IntoIterator<Item = ResourceId>, deadline: Duration) -> String {
    let waits: Vec<Wait> = groups.into_iter().map(Wait::Ready).collect();
    let text = waits_text(&waits).join("; ");
    format!(
        "{text}, until the time for it (`--target-health-deadline`, {} s) was over; the rules lead there all the same now: look at the targets' health \
         (`kubectl describe targetgroupbinding`, or the target group in AWS), the health check's path and port, and the security groups",
        deadline.as_secs()
    )
}

#[cfg(test)]
mod tests;
