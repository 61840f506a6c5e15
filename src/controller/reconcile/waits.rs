//! The waits of stacks: state with a deadline, without a sleeping task. The end of a wait brings the stack back by itself;
//! at the deadline a wait that has not ended is reported.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use albatross_core::{
    model::{LoadBalancerArn, StackId},
    plan::Wait,
};

/// A binding is gone seconds after its targets are deregistered; one that is not for minutes has another owner's finalizer, or
/// fails, and its events say how.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// A load balancer serves some minutes after it was made; how often it is looked at until then.
const LOOK: Duration = Duration::from_secs(5);
/// The same once people have been told that it takes too long.
const LOOK_SELDOM: Duration = Duration::from_secs(60);

/// The waits, by stack, and the deletions that AWS does not carry out.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    waits: Mutex<BTreeMap<StackId, Waiting>>,
    blocked: Mutex<BTreeMap<String, Blocked>>,
}

/// A deletion that AWS does not carry out.
#[derive(Debug)]
struct Blocked {
    step: String,
    since: Instant,
    patience: Duration,
}

#[derive(Debug)]
struct Waiting {
    wait: Wait,
    since: Instant,
    reported: bool,
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

/// The action that a wait requires.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Look again then.
    Later(Duration),
    /// It has taken too long: it should be reported, once, and looked at again then, if no watch tells its end.
    Report(String, Option<Duration>),
    /// It was reported; the end of the wait brings the stack back.
    Reported,
}

impl Waits {
    fn waits(&self) -> MutexGuard<'_, BTreeMap<StackId, Waiting>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blocks(&self) -> MutexGuard<'_, BTreeMap<String, Blocked>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the load balancers that have continued next to their replacement for so long that they may be deleted.
    #[must_use]
    pub(crate) fn expired(&self, stack: &StackId, retain_for: Duration) -> BTreeSet<LoadBalancerArn> {
        match self.waits().get(stack) {
            Some(Waiting { wait: Wait::RetainOld(old), since, .. }) if since.elapsed() >= retain_for => old.clone(),
            Some(Waiting { wait: Wait::Protected(old), .. }) => old.clone(),
            _ => BTreeSet::new(),
        }
    }

    /// Records what the latest plan of a stack waits for; `None` if it waits for nothing.
    pub(crate) fn note(&self, stack: &StackId, wait: Option<&Wait>, retain_for: Duration) -> Option<Due> {
        let mut waits = self.waits();
        let Some(wait) = wait else {
            waits.remove(stack);
            return None;
        };
        let now = Instant::now();
        let waiting =
            waits.entry(stack.clone()).or_insert_with(|| Waiting { wait: wait.clone(), since: now, reported: false });
        if waiting.wait != *wait {
            *waiting = Waiting { wait: wait.clone(), since: now, reported: false };
        }
        let waited = now.duration_since(waiting.since);
        if let Wait::RetainOld(_) = wait {
            let left = retain_for.saturating_sub(waited);
            // Its time has passed and it stays all the same, for a member that is frozen: that member's mending brings the
            // stack back.
            let stays = left.is_zero() && std::mem::replace(&mut waiting.reported, true);
            return Some(Due::Later(if stays { DEADLINE } else { left }));
        }
        if let Wait::Protected(_) = wait {
            let first = !std::mem::replace(&mut waiting.reported, true);
            let hint = "write `deletion_protection.enabled=false` in the annotation of the load balancer's attributes, or switch the protection off in AWS, if the old load balancer may be deleted";
            return Some(if first {
                Due::Report(format!("{wait}; {hint}"), Some(DEADLINE))
            } else {
                Due::Later(DEADLINE)
            });
        }
        let left = DEADLINE.saturating_sub(waited);
        Some(match (left.is_zero(), waiting.reported) {
            (false, _) if *wait == Wait::LoadBalancerActive => Due::Later(left.min(LOOK)),
            (false, _) => Due::Later(left),
            (true, true) if *wait == Wait::LoadBalancerActive => Due::Later(LOOK_SELDOM),
            (true, true) => Due::Reported,
            (true, false) => {
                waiting.reported = true;
                let hint = match wait {
                    Wait::BindingsGone(_) => {
                        "look at its events and finalizers: the target group, and all that is deleted after it, stay until it is gone"
                    }
                    Wait::LetIn(_) => {
                        "look at its events: until then the load balancer stays in the security groups that it is in, and nothing that comes \
                         after that is changed"
                    }
                    _ => "look at its state in AWS: the old load balancer serves until then",
                };
                let again = (*wait == Wait::LoadBalancerActive).then_some(LOOK_SELDOM);
                Due::Report(format!("{wait} for {} minutes; {hint}", DEADLINE.as_secs() / 60), again)
            }
        })
    }

    /// Returns the stacks that wait until targets allow a security group.
    #[must_use]
    pub(crate) fn for_targets(&self) -> Vec<StackId> {
        let waits = self.waits();
        let waiting = waits.iter().filter(|(_, waiting)| matches!(waiting.wait, Wait::LetIn(_)));
        waiting.map(|(stack, _)| stack.clone()).collect()
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
        let state = |(stack, waiting): (&StackId, &Waiting)| {
            let seconds = now.duration_since(waiting.since).as_secs_f64();
            WaitState {
                stack: stack.object().to_string(),
                wait: waiting.wait.to_string(),
                seconds,
                seconds_left: DEADLINE.as_secs_f64() - seconds,
            }
        };
        self.waits().iter().map(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use albatross_core::model::ObjectName;

    const HOLD: Duration = Duration::from_secs(120);

    #[tokio::test(start_paused = true)]
    async fn an_old_load_balancer_may_go_when_its_time_has_passed() {
        let waits = Waits::default();
        let web = StackId::Ingress(ObjectName::new("shop", "web"));
        let old = BTreeSet::from([LoadBalancerArn::new("arn:old")]);
        let active = Some(&Wait::LoadBalancerActive);
        assert_eq!(waits.note(&web, active, HOLD), Some(Due::Later(LOOK)));
        let hold = Wait::RetainOld(old.clone());
        assert_eq!(waits.note(&web, Some(&hold), HOLD), Some(Due::Later(HOLD)));
        tokio::time::advance(Duration::from_secs(119)).await;
        assert_eq!(waits.note(&web, Some(&hold), HOLD), Some(Due::Later(Duration::from_secs(1))));
        assert_eq!(waits.expired(&web, HOLD), BTreeSet::new());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(waits.expired(&web, HOLD), old);
        // The plan that waits for nothing else deletes it at once. One that cannot, because a member is frozen, is not made
        // again and again.
        let hold = Some(&hold);
        assert_eq!(waits.note(&web, hold, HOLD), Some(Due::Later(Duration::ZERO)));
        assert_eq!(waits.note(&web, hold, HOLD), Some(Due::Later(DEADLINE)));
        assert_eq!(waits.note(&web, hold, HOLD), Some(Due::Later(DEADLINE)));
        assert_eq!(waits.note(&web, None, HOLD), None);
        assert_eq!(waits.expired(&web, HOLD), BTreeSet::new());
        assert_eq!(waits.note(&web, hold, Duration::ZERO), Some(Due::Later(Duration::ZERO)));
    }

    #[tokio::test(start_paused = true)]
    async fn people_are_told_of_a_deletion_that_aws_does_not_carry_out() {
        let (waits, patience) = (Waits::default(), Duration::from_secs(300));
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
        let waits = Waits::default();
        let web = StackId::Ingress(ObjectName::new("shop", "web"));
        let old = BTreeSet::from([LoadBalancerArn::new("arn:old")]);
        let protected = Wait::Protected(old.clone());
        let due = waits.note(&web, Some(&protected), HOLD);
        let Some(Due::Report(message, Some(DEADLINE))) = due else { panic!("{due:?}") };
        insta::assert_snapshot!(message, @"arn:old, replaced by another load balancer, stays: it is protected from deletion; write `deletion_protection.enabled=false` in the annotation of the load balancer's attributes, or switch the protection off in AWS, if the old load balancer may be deleted");
        assert_eq!(waits.note(&web, Some(&protected), HOLD), Some(Due::Later(DEADLINE)));
        // Its time has come all the same.
        assert_eq!(waits.expired(&web, HOLD), old);
    }

    #[tokio::test(start_paused = true)]
    async fn people_are_told_once_when_a_wait_takes_too_long() {
        let waits = Waits::default();
        let web = StackId::Ingress(ObjectName::new("shop", "web"));
        let wait = |name: &str| Wait::BindingsGone(BTreeSet::from([ObjectName::new("shop", name)]));
        assert_eq!(waits.note(&web, None, HOLD), None);
        assert_eq!(waits.note(&web, Some(&wait("a")), HOLD), Some(Due::Later(DEADLINE)));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(waits.note(&web, Some(&wait("a")), HOLD), Some(Due::Later(Duration::from_secs(200))));
        insta::assert_snapshot!(serde_json::to_string(&waits.all()).unwrap(), @r#"[{"stack":"Ingress shop/web","wait":"waiting for TargetGroupBinding shop/a to be gone","seconds":100.0,"seconds_left":200.0}]"#);
        tokio::time::advance(Duration::from_secs(200)).await;
        let due = waits.note(&web, Some(&wait("a")), HOLD);
        let Some(Due::Report(message, None)) = due else { panic!("{due:?}") };
        insta::assert_snapshot!(message, @"waiting for TargetGroupBinding shop/a to be gone for 5 minutes; look at its events and finalizers: the target group, and all that is deleted after it, stay until it is gone");
        assert_eq!(waits.note(&web, Some(&wait("a")), HOLD), Some(Due::Reported));
        // Another wait starts again.
        assert_eq!(waits.note(&web, Some(&wait("b")), HOLD), Some(Due::Later(DEADLINE)));
        assert_eq!((waits.note(&web, None, HOLD), waits.all()), (None, vec![]));
        // No watch tells the state of a load balancer, so it is looked at again also when it has been told.
        let active = Some(&Wait::LoadBalancerActive);
        assert_eq!(waits.note(&web, active, HOLD), Some(Due::Later(LOOK)));
        tokio::time::advance(DEADLINE).await;
        let due = waits.note(&web, active, HOLD);
        assert!(matches!(due, Some(Due::Report(_, Some(LOOK_SELDOM)))), "{due:?}");
        assert_eq!(waits.note(&web, active, HOLD), Some(Due::Later(LOOK_SELDOM)));
    }
}
