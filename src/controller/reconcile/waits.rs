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
    model::{LoadBalancerArn, ResourceId, StackId},
    plan::{Plan, Step, StepAction, Wait, waits_text},
};

/// A binding is gone seconds after its targets are deregistered; one that is not for minutes has another owner's finalizer, or
/// fails, and its events say how.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// A load balancer serves some minutes after it was made; how often it is looked at until then.
const LOOK: Duration = Duration::from_secs(5);
/// The same once people have been told that it takes too long.
const LOOK_SELDOM: Duration = Duration::from_secs(60);
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
    /// The time when it was first begun anew.
    anew: Option<Instant>,
    /// That it takes too long, to people; or that it is over, to the pass that asked.
    reported: bool,
}

impl Waiting {
    /// Returns one that began a time ago.
    fn for_some(age: Duration) -> Self {
        let now = Instant::now();
        let since = now.checked_sub(age).unwrap_or(now);
        Self { since, anew: None, reported: false }
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
    /// The time until the report; negative after it.
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
    /// The ports of new listeners that redirects wait for, each with true if they may lead there.
    pub opened: BTreeMap<u16, bool>,
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
        Self { holds, waits: Mutex::default(), blocked: Mutex::default() }
    }

    fn waits(&self) -> MutexGuard<'_, BTreeMap<StackId, BTreeMap<Wait, Waiting>>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blocks(&self) -> MutexGuard<'_, BTreeMap<String, Blocked>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
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
            let waited = waiting.since.elapsed();
            match wait {
                Wait::RetainOld(arn) if waited >= self.holds.load_balancer => {
                    expired.load_balancers.insert(arn.clone());
                }
                Wait::Protected(arn) => drop(expired.load_balancers.insert(arn.clone())),
                Wait::RetainListener(port) => {
                    expired.listeners.insert(*port, waited >= self.holds.listener);
                }
                Wait::Opened(port) => {
                    expired.opened.insert(*port, waited >= self.holds.propagation);
                }
                Wait::Ready(id) if waited >= self.holds.healthy_within => drop(expired.health.insert(id.clone())),
                Wait::Ready(_)
                | Wait::RetainOld(_)
                | Wait::BindingGone(_)
                | Wait::LoadBalancerActive
                | Wait::Mended(_)
                | Wait::LetIn(_)
                | Wait::Arrived(_)
                | Wait::Moved(_) => {}
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
        let is_new = steps.iter().any(|step| matches!(step.action, StepAction::CreateListener { .. }));
        let (mut all, now) = (self.waits(), Instant::now());
        for (wait, waiting) in all.get_mut(stack).into_iter().flatten() {
            let begins = match wait {
                Wait::RetainListener(_) => is_new,
                Wait::Opened(port) => created.contains(port),
                Wait::Arrived(name) => steps.iter().any(|s| s.cause.object.name == *name && s.action.changes_answers()),
                _ => false,
            };
            let anew = waiting.anew.unwrap_or(now);
            if begins && now.duration_since(anew) < BEGUN_ANEW {
                *waiting = Waiting { since: now, anew: Some(anew), reported: false };
            }
        }
    }

    /// Returns when to look again at waits that have begun and that go on besides those of a plan; others that time alone
    /// decides end.
    pub(crate) fn keep(&self, stack: &StackId, kept: &BTreeSet<Wait>) -> Option<Duration> {
        let mut all = self.waits();
        let waits = all.get_mut(stack)?;
        waits.retain(|wait, _| wait.is_of_plan() || kept.contains(wait));
        let again =
            |(wait, waiting): (&Wait, &Waiting)| self.step(wait, waiting.since.elapsed(), waiting.reported, 0).again;
        let again = waits.iter().filter(|(wait, _)| !wait.is_of_plan()).filter_map(again).min();
        if waits.is_empty() {
            all.remove(stack);
        }
        again.map(|again| again.max(SOONEST))
    }

    /// Returns true if a stack has a wait.
    pub(crate) fn has(&self, stack: &StackId, wait: &Wait) -> bool {
        self.waits().get(stack).is_some_and(|waits| waits.contains_key(wait))
    }

    /// Returns true while a wait of a stack runs whose time alone decides. The first call begins it; it is there until a plan
    /// is noted that does not keep it.
    pub(crate) fn runs(&self, stack: &StackId, wait: &Wait) -> bool {
        let limit = match wait {
            Wait::Arrived(_) => self.holds.propagation,
            Wait::Moved(_) => self.holds.load_balancer,
            _ => Duration::ZERO,
        };
        if limit.is_zero() {
            return false;
        }
        let new = Waiting::for_some(Duration::ZERO);
        let mut all = self.waits();
        let waiting = all.entry(stack.clone()).or_default().entry(wait.clone()).or_insert(new);
        waiting.reported = waiting.since.elapsed() >= limit;
        !waiting.reported
    }

    /// Ends the waits for clients of members that have moved: there is none.
    pub(crate) fn nobody_moves(&self, stack: &StackId) {
        if let Some(waits) = self.waits().get_mut(stack) {
            waits.retain(|wait, _| !matches!(wait, Wait::Moved(_)));
        }
    }

    /// Ends all waits of a stack.
    pub(crate) fn end(&self, stack: &StackId) {
        self.waits().remove(stack);
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
            let step = self.step(wait, now.duration_since(waiting.since), waiting.reported, pace);
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
    fn step(&self, wait: &Wait, waited: Duration, reported: bool, pace: usize) -> StepOfWait {
        let later = |again| StepOfWait { again: Some(again), is_late: false };
        // A pass that has not seen that it is over comes again; what it was for may wait for more.
        let once = |hold: Duration| StepOfWait {
            again: Some(hold.saturating_sub(waited)).filter(|_| !reported),
            is_late: false,
        };
        let left = DEADLINE.saturating_sub(waited);
        let is_late = left.is_zero() && !reported;
        match wait {
            Wait::RetainOld(_) => later(self.holds.load_balancer.saturating_sub(waited)),
            Wait::RetainListener(_) => later(self.holds.listener.saturating_sub(waited)),
            Wait::Opened(_) => {
                let left = self.holds.propagation.saturating_sub(waited);
                // What leads there may wait for more.
                later(if left.is_zero() { LOOK } else { left })
            }
            Wait::Arrived(_) => once(self.holds.propagation),
            Wait::Moved(_) => once(self.holds.load_balancer),
            Wait::Protected(_) => StepOfWait { again: Some(DEADLINE), is_late: !reported },
            // No watch tells the state of a load balancer, or the health of a target.
            Wait::LoadBalancerActive if left.is_zero() => StepOfWait { again: Some(LOOK_SELDOM), is_late },
            Wait::LoadBalancerActive => later(left.min(LOOK)),
            Wait::Ready(_) => {
                let pause = if waited < LOOK * 2 { LOOK_FIRST } else { LOOK };
                let share = LOOK_SHARE.saturating_mul(u32::try_from(pace).unwrap_or(u32::MAX));
                let pause = pause.max(share.min(LONGEST_LOOK));
                let left = self.holds.healthy_within.saturating_sub(waited);
                // What has waited long enough may wait for others.
                later(if left.is_zero() { pause } else { pause.min(left) })
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
        let timed = waits.get(stack).into_iter().flatten().filter(|(wait, _)| is_timed(wait));
        timed.map(|(wait, waiting)| (wait.clone(), waiting.since.elapsed())).collect()
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
        let now = Instant::now();
        let state = |stack: &StackId, wait: &Wait, waiting: &Waiting| {
            let seconds = now.duration_since(waiting.since).as_secs_f64();
            WaitState {
                stack: stack.object().to_string(),
                wait: wait.to_string(),
                seconds,
                seconds_left: DEADLINE.as_secs_f64() - seconds,
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

/// Returns true if a wait ends when its time has passed.
fn is_timed(wait: &Wait) -> bool {
    match wait {
        Wait::RetainOld(_)
        | Wait::Protected(_)
        | Wait::RetainListener(_)
        | Wait::Ready(_)
        | Wait::Opened(_)
        | Wait::Arrived(_)
        | Wait::Moved(_) => true,
        Wait::BindingGone(_) | Wait::LoadBalancerActive | Wait::Mended(_) | Wait::LetIn(_) => false,
    }
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

/// Returns the message about targets that rules lead to although they are not healthy, after `waited`.
pub(crate) fn still_unhealthy(groups: impl IntoIterator<Item = ResourceId>, waited: Duration) -> String {
    let waits: Vec<Wait> = groups.into_iter().map(Wait::Ready).collect();
    let text = waits_text(&waits).join("; ");
    format!(
        "{text} for {} s, as long as `--target-health-deadline` says; the rules lead there all the same now: look at the targets' health \
         (`kubectl describe targetgroupbinding`, or the target group in AWS), the health check's path and port, and the security groups",
        waited.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use albatross_core::{
        model::{Cause, ListenerArn, ObjectName, ObjectReference, ResourceId},
        testing::{listener, plan_in_spite_of, plan_of},
    };

    const HOLD: Duration = Duration::from_secs(120);

    fn waits_with_holds() -> Waits {
        Waits::new(Holds { load_balancer: HOLD, ..Holds::DEFAULT })
    }

    fn web() -> StackId {
        StackId::Ingress(ObjectName::new("shop", "web"))
    }

    fn note(waits: &Waits, wanted: &[Wait]) -> Due {
        waits.note(&web(), &plan_of(Vec::new(), wanted.iter().cloned()), &BTreeSet::new())
    }

    fn again(after: Duration) -> Due {
        Due { again: Some(after), ..Due::default() }
    }

    fn ready(name: &str) -> Wait {
        Wait::Ready(ResourceId::of_tag(name))
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_load_balancer_may_go_when_its_time_has_passed() {
        let (waits, old) = (waits_with_holds(), LoadBalancerArn::new("arn:old"));
        let hold = Wait::RetainOld(old.clone());
        assert_eq!(note(&waits, &[Wait::LoadBalancerActive]), again(LOOK));
        // A frozen member needs it: its time does not run, and the member's mending brings the stack back.
        assert_eq!(note(&waits, &[Wait::Mended(old.clone())]), again(DEADLINE));
        tokio::time::advance(HOLD).await;
        assert_eq!(note(&waits, std::slice::from_ref(&hold)), again(HOLD));
        tokio::time::advance(Duration::from_secs(119)).await;
        // Another wait beside it changes nothing of its time.
        let gone = Wait::BindingGone(ObjectName::new("shop", "a"));
        assert_eq!(note(&waits, &[hold.clone(), gone]), again(Duration::from_secs(1)));
        assert_eq!(waits.expired(&web()).load_balancers, BTreeSet::new());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(waits.expired(&web()).load_balancers, BTreeSet::from([old]));
        assert_eq!(note(&waits, &[]), Due::default());
        assert_eq!(waits.expired(&web()).load_balancers, BTreeSet::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_begins_no_hold_anew() {
        let (waits, hold) = (waits_with_holds(), Wait::RetainOld(LoadBalancerArn::new("arn:old")));
        let gone = Wait::BindingGone(ObjectName::new("shop", "a"));
        note(&waits, &[hold.clone(), ready("a"), Wait::RetainListener(80), gone]);
        tokio::time::advance(Duration::from_secs(29)).await;
        let ages = waits.ages(&web());
        let age = Duration::from_secs(29);
        let timed = [(hold.clone(), age), (ready("a"), age), (Wait::RetainListener(80), age)];
        assert_eq!(ages, BTreeMap::from(timed));
        let after = waits_with_holds();
        after.restore(&web(), ages);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(after.expired(&web()).listeners, BTreeMap::from([(80, true)]));
        assert_eq!(note(&after, &[hold]), again(HOLD - Duration::from_secs(30)));
    }

    #[tokio::test(start_paused = true)]
    async fn rules_wait_for_healthy_targets_no_longer_than_the_deadline_each_for_its_own() {
        let waits = waits_with_holds();
        let (a, b) = (ready("shop/a-a:80"), ready("shop/b-b:80"));
        assert_eq!(note(&waits, std::slice::from_ref(&a)), again(LOOK_FIRST));
        tokio::time::advance(LOOK * 2).await;
        assert_eq!(note(&waits, std::slice::from_ref(&a)), again(LOOK));
        tokio::time::advance(Duration::from_secs(288)).await;
        assert_eq!(note(&waits, &[a.clone(), b.clone()]), again(LOOK_FIRST));
        assert_eq!(waits.expired(&web()).health, BTreeSet::new());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(waits.expired(&web()).health, BTreeSet::from([ResourceId::of_tag("shop/a-a:80")]));
        // Its rules come to lead there all the same, in one plan.
        let a = ResourceId::of_tag("shop/a-a:80");
        let due = waits.note(&web(), &plan_in_spite_of([a], [b]), &BTreeSet::new());
        let message = still_unhealthy(due.unhealthy, waits.healthy_within());
        insta::assert_snapshot!(message, @"waiting for the targets of target group shop/a-a:80 to be healthy for 300 s, as long as `--target-health-deadline` says; the rules lead there all the same now: look at the targets' health (`kubectl describe targetgroupbinding`, or the target group in AWS), the health check's path and port, and the security groups");
        // A stack that cannot be built waits for no targets.
        waits.end_health(&web());
        assert_eq!((note(&waits, &[]), waits.all()), (Due::default(), vec![]));
    }

    fn begin(waits: &Waits, wanted: &[Wait]) {
        waits.begin(&web(), &plan_of(Vec::new(), wanted.iter().cloned()), false);
    }

    #[tokio::test(start_paused = true)]
    async fn the_hold_of_a_load_balancer_begins_when_a_plan_has_succeeded_and_ends_with_one() {
        let (waits, old) = (waits_with_holds(), Wait::RetainOld(LoadBalancerArn::new("arn:old")));
        // The new one is not complete, as something fails.
        begin(&waits, std::slice::from_ref(&old));
        tokio::time::advance(HOLD).await;
        begin(&waits, std::slice::from_ref(&old));
        assert_eq!((waits.expired(&web()), waits.all()), (Expired::default(), vec![]));
        assert_eq!(note(&waits, std::slice::from_ref(&old)), again(HOLD));
        tokio::time::advance(HOLD).await;
        // The plan that deletes it fails: it may still go.
        begin(&waits, &[]);
        assert_eq!(waits.expired(&web()).load_balancers.len(), 1);
        note(&waits, &[]);
        assert_eq!(waits.expired(&web()).load_balancers.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_times_of_listeners_begin_when_another_one_is_created_or_gets_rules() {
        let (waits, both) = (waits_with_holds(), [Wait::RetainListener(80), Wait::Opened(443)]);
        let action = StepAction::CreateListener { load_balancer: None, listener: Box::new(listener(443)) };
        let create = [Step { cause: listener(443).cause, action }];
        let states = |waits: &Waits| (waits.expired(&web()).listeners[&80], waits.expired(&web()).opened[&443]);
        begin(&waits, &both);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(states(&waits), (true, true));
        // Attempts that AWS refuses begin nothing anew, and what they retain goes meanwhile.
        begin(&waits, &both);
        waits.carried_out(&web(), &[]);
        assert_eq!(states(&waits), (true, true));
        waits.carried_out(&web(), &create);
        assert_eq!(states(&waits), (false, false));
        // It counts although the rest of the plan failed.
        tokio::time::advance(Duration::from_secs(15)).await;
        begin(&waits, &both);
        assert_eq!(states(&waits), (false, true));
        assert_eq!(note(&waits, &both), again(LOOK));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_waited_long_enough_and_waits_for_others_is_not_looked_at_all_the_time() {
        let waits = waits_with_holds();
        note(&waits, &[ready("shop/a-a:80")]);
        tokio::time::advance(DEADLINE).await;
        assert_eq!(note(&waits, &[ready("shop/a-a:80"), ready("shop/b-b:80")]), again(LOOK_FIRST));
        // Whatever is due at once has a pause.
        note(&waits, &[Wait::RetainListener(80)]);
        tokio::time::advance(DEADLINE).await;
        assert_eq!(note(&waits, &[Wait::RetainListener(80)]), again(SOONEST));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_did_not_see_the_end_of_a_wait_comes_again() {
        let (waits, moved) = (waits_with_holds(), Wait::Moved(ObjectName::new("shop", "a")));
        let kept = BTreeSet::from([moved.clone()]);
        assert!(waits.runs(&web(), &moved));
        tokio::time::advance(HOLD).await;
        assert_eq!(waits.note(&web(), &plan_of(Vec::new(), []), &kept), again(SOONEST));
        assert_eq!(waits.keep(&web(), &kept), Some(SOONEST));
        assert!(!waits.runs(&web(), &moved));
        assert_eq!(waits.keep(&web(), &kept), None);
        // Who is no longer on the way begins anew another time; who comes waits on.
        let arrived = Wait::Arrived(ObjectName::new("shop", "b"));
        assert!(waits.runs(&web(), &arrived));
        waits.nobody_moves(&web());
        assert_eq!(waits.ages(&web()), BTreeMap::from([(arrived, Duration::ZERO)]));
        waits.keep(&web(), &BTreeSet::new());
        assert_eq!(waits.all(), vec![]);
    }

    /// Returns a step that changes the rules of a member.
    fn modified(member: &str) -> Step {
        let cause = Cause { object: ObjectReference::ingress(&ObjectName::new("shop", member)), ..listener(80).cause };
        let (arn, port) = (ListenerArn::new("arn:listener"), 80);
        Step { action: StepAction::ModifyListener { arn, port, change: Box::default() }, cause }
    }

    #[tokio::test(start_paused = true)]
    async fn targets_that_come_and_go_keep_nobody_from_arriving_for_ever() {
        let (waits, id) = (waits_with_holds(), ResourceId::of_tag("shop/a-a:80"));
        let kept = BTreeSet::from([ready("shop/a-a:80")]);
        for healthy in [false, true].into_iter().cycle().take(20) {
            let plan = plan_of(Vec::new(), (!healthy).then(|| ready("shop/a-a:80")));
            assert!(!waits.begin(&web(), &plan, true));
            waits.note(&web(), &plan, &kept);
            tokio::time::advance(Duration::from_secs(15)).await;
        }
        assert_eq!(waits.expired(&web()).health, BTreeSet::from([id]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_targets_to_let_a_load_balancer_in_is_told_once() {
        let (waits, plan) = (waits_with_holds(), plan_of(Vec::new(), [Wait::LetIn(ObjectName::new("shop", "a"))]));
        assert_eq!([waits.begin(&web(), &plan, false), waits.begin(&web(), &plan, false)], [true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_begins_the_waits_of_others_anew_for_ever() {
        let (waits, arrived) = (waits_with_holds(), Wait::Arrived(ObjectName::new("shop", "b")));
        assert!(waits.runs(&web(), &arrived));
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(10)).await;
            waits.carried_out(&web(), &[modified("b")]);
        }
        assert!(!waits.runs(&web(), &arrived));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_led_to_although_it_is_not_healthy_stays_overdue_and_is_told_once() {
        let (waits, a) = (waits_with_holds(), ResourceId::of_tag("shop/a-a:80"));
        note(&waits, &[ready("shop/a-a:80")]);
        tokio::time::advance(DEADLINE).await;
        for told in [1, 0, 0] {
            assert_eq!(waits.expired(&web()).health, BTreeSet::from([a.clone()]));
            let due = waits.note(&web(), &plan_in_spite_of([a.clone()], []), &BTreeSet::new());
            assert_eq!((due.unhealthy.len(), due.again), (told, Some(LOOK)));
        }
        assert_eq!((note(&waits, &[]), waits.all()), (Due::default(), vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_time_alone_ends_runs_once_while_it_is_kept() {
        let waits = Waits::new(Holds { load_balancer: HOLD, ..Holds::DEFAULT });
        let (moved, arrived) = (Wait::Moved(ObjectName::new("shop", "a")), Wait::Arrived(ObjectName::new("shop", "b")));
        let kept = BTreeSet::from([moved.clone(), arrived.clone()]);
        let keep = |waits: &Waits| waits.note(&web(), &plan_of(Vec::new(), []), &kept).again;
        // What has not begun is not kept.
        assert_eq!((keep(&waits), waits.all()), (None, vec![]));
        assert!(waits.runs(&web(), &moved) && waits.runs(&web(), &arrived));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(keep(&waits), Some(Duration::from_secs(5)));
        // The member's rules have changed again, and so have another's.
        waits.carried_out(&web(), &[modified("b")]);
        waits.carried_out(&web(), &[modified("c")]);
        tokio::time::advance(Duration::from_secs(14)).await;
        assert!(waits.runs(&web(), &arrived));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!waits.runs(&web(), &arrived));
        assert_eq!(keep(&waits), Some(HOLD - Duration::from_secs(25)));
        let after = Waits::new(Holds { load_balancer: HOLD, ..Holds::DEFAULT });
        after.restore(&web(), waits.ages(&web()));
        tokio::time::advance(HOLD).await;
        assert!(!waits.runs(&web(), &moved) && !after.runs(&web(), &moved));
        // It is over for as long as it is kept.
        assert_eq!(keep(&waits), None);
        assert!(!waits.runs(&web(), &moved));
        note(&waits, &[]);
        assert!(waits.runs(&web(), &moved));
        assert!(!Waits::new(Holds::NONE).runs(&web(), &moved));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_plan_no_longer_waits_for_is_forgotten_also_when_it_fails() {
        let waits = waits_with_holds();
        begin(&waits, &[ready("shop/a-a:80"), ready("shop/b-b:80")]);
        tokio::time::advance(DEADLINE).await;
        // Another backend, and one that is led to all the same by this plan.
        let b = ResourceId::of_tag("shop/b-b:80");
        waits.begin(&web(), &plan_in_spite_of([b.clone()], [ready("shop/c-c:80")]), false);
        assert_eq!(waits.expired(&web()).health, BTreeSet::from([b]));
        assert_eq!(waits.all().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn many_target_groups_are_looked_at_less_often_and_those_that_nobody_looks_at_do_not_count() {
        let waits = waits_with_holds();
        for number in 0..20 {
            let stack = StackId::Ingress(ObjectName::new("shop", format!("web-{number}")));
            waits.note(&stack, &plan_of(Vec::new(), [ready("shop/a-a:80")]), &BTreeSet::new());
        }
        assert_eq!(note(&waits, &[ready("shop/a-a:80")]), again(Duration::from_millis(10_500)));
        for number in 20..1000 {
            let stack = StackId::Ingress(ObjectName::new("shop", format!("web-{number}")));
            waits.note(&stack, &plan_of(Vec::new(), [ready("shop/a-a:80")]), &BTreeSet::new());
        }
        assert_eq!(note(&waits, &[ready("shop/a-a:80")]), again(LONGEST_LOOK));
        tokio::time::advance(DEADLINE).await;
        assert_eq!(note(&waits, &[ready("shop/b-b:80")]).again, Some(LOOK_FIRST));
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_leaves_time_for_targets_that_nobody_has_registered() {
        let waits = waits_with_holds();
        waits.restore(&web(), [(ready("shop/a-a:80"), Duration::from_secs(3600))]);
        assert_eq!(waits.expired(&web()).health, BTreeSet::new());
        tokio::time::advance(LEFT_AFTER_RESTART).await;
        assert_eq!(waits.expired(&web()).health.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn people_are_told_of_a_deletion_that_aws_does_not_carry_out() {
        let (waits, patience) = (waits_with_holds(), Duration::from_secs(300));
        assert!(!waits.blocked("shop/web", "delete security group sg-1", patience));
        tokio::time::advance(Duration::from_secs(299)).await;
        assert!(!waits.blocked("shop/web", "delete security group sg-1", patience));
        assert_eq!(waits.count_blocked(), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(waits.blocked("shop/web", "delete security group sg-1", patience));
        assert!(waits.blocked("shop/api", "delete load balancer api", Duration::ZERO));
        assert_eq!(waits.count_blocked(), 2);
        // Another deletion has only begun to wait.
        assert!(!waits.blocked("shop/web", "delete security group sg-2", patience));
        waits.unblocked("shop/api");
        assert_eq!(waits.count_blocked(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_load_balancer_that_is_protected_is_told_of_once_and_looked_at_again() {
        let (waits, old) = (waits_with_holds(), LoadBalancerArn::new("arn:old"));
        let protected = [Wait::Protected(old.clone())];
        let due = note(&waits, &protected);
        assert_eq!(due.again, Some(DEADLINE));
        insta::assert_snapshot!(due.reports.join("\n"), @"arn:old, replaced by another load balancer, stays: it is protected from deletion; write `deletion_protection.enabled=false` in the annotation of the load balancer's attributes, or switch the protection off in AWS, if the old load balancer may be deleted");
        assert_eq!(note(&waits, &protected), again(DEADLINE));
        // Its time has come all the same.
        assert_eq!(waits.expired(&web()).load_balancers, BTreeSet::from([old]));
    }

    #[tokio::test(start_paused = true)]
    async fn people_are_told_once_when_a_wait_takes_too_long() {
        let waits = waits_with_holds();
        let wait = |name: &str| Wait::BindingGone(ObjectName::new("shop", name));
        assert_eq!(note(&waits, &[]), Due::default());
        assert_eq!(note(&waits, &[wait("a")]), again(DEADLINE));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(note(&waits, &[wait("a"), wait("b")]), again(Duration::from_secs(200)));
        insta::assert_snapshot!(serde_json::to_string(&waits.all()).unwrap(), @r#"[{"stack":"Ingress shop/web","wait":"waiting for TargetGroupBinding shop/a to be gone","seconds":100.0,"seconds_left":200.0},{"stack":"Ingress shop/web","wait":"waiting for TargetGroupBinding shop/b to be gone","seconds":0.0,"seconds_left":300.0}]"#);
        tokio::time::advance(Duration::from_secs(200)).await;
        let due = note(&waits, &[wait("a"), wait("b")]);
        assert_eq!(due.again, Some(Duration::from_secs(100)));
        insta::assert_snapshot!(due.reports.join("\n"), @"waiting for TargetGroupBinding shop/a to be gone for 5 minutes; look at its events and finalizers: the target group, and all that is deleted after it, stay until it is gone");
        // Another wait has its own time.
        assert_eq!(note(&waits, &[wait("a"), wait("b")]), again(Duration::from_secs(100)));
        assert_eq!((note(&waits, &[]), waits.all()), (Due::default(), vec![]));
        // No watch tells the state of a load balancer, so it is looked at again also when it has been told.
        let active = [Wait::LoadBalancerActive];
        assert_eq!(note(&waits, &active), again(LOOK));
        tokio::time::advance(DEADLINE).await;
        let due = note(&waits, &active);
        assert_eq!((due.again, due.reports.len()), (Some(LOOK_SELDOM), 1));
        assert_eq!(note(&waits, &active), again(LOOK_SELDOM));
    }
}
