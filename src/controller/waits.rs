//! What stacks wait for: state with a deadline, and nobody who sleeps. What ends a wait brings the stack back by itself; the
//! deadline is when people should be told that it has not.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use crate::{model::StackId, plan::Wait};

/// A binding is gone seconds after its targets are deregistered; one that is not for minutes has somebody else's finalizer, or
/// fails, and its events say how.
const DEADLINE: Duration = Duration::from_secs(300);

/// What is being waited for, by stack.
#[derive(Debug, Default)]
pub struct Waits(Mutex<BTreeMap<StackId, Waiting>>);

#[derive(Debug)]
struct Waiting {
    wait: Wait,
    since: Instant,
    told: bool,
}

/// A wait, as `/debug/state` shows it.
#[derive(Debug, PartialEq, Serialize)]
pub struct WaitState {
    /// Who waits.
    pub stack: String,
    /// For what.
    pub wait: String,
    /// For how long already.
    pub seconds: f64,
    /// Until people are told; negative when they were.
    pub seconds_left: f64,
}

/// What to do about a wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Look again then.
    Later(Duration),
    /// It has taken too long: people should be told, once.
    Tell(String),
    /// They were told; whatever ends the wait brings the stack back.
    Told,
}

impl Waits {
    fn waits(&self) -> MutexGuard<'_, BTreeMap<StackId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what the latest plan of a stack waits for. `None` when it waits for nothing.
    pub fn note(&self, stack: &StackId, wait: Option<&Wait>) -> Option<Due> {
        let mut waits = self.waits();
        let Some(wait) = wait else {
            waits.remove(stack);
            return None;
        };
        let now = Instant::now();
        let waiting =
            waits.entry(stack.clone()).or_insert_with(|| Waiting { wait: wait.clone(), since: now, told: false });
        if waiting.wait != *wait {
            *waiting = Waiting { wait: wait.clone(), since: now, told: false };
        }
        let left = DEADLINE.saturating_sub(now.duration_since(waiting.since));
        Some(match (left.is_zero(), waiting.told) {
            (false, _) => Due::Later(left),
            (true, true) => Due::Told,
            (true, false) => {
                waiting.told = true;
                Due::Tell(format!(
                    "{wait} for {} minutes; look at its events and finalizers: the target group, and all that goes after it, \
                     stay until it is gone",
                    DEADLINE.as_secs() / 60
                ))
            }
        })
    }

    /// All waits.
    #[must_use]
    pub fn all(&self) -> Vec<WaitState> {
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
    use crate::model::ObjectName;

    #[tokio::test(start_paused = true)]
    async fn people_are_told_once_when_a_wait_takes_too_long() {
        let waits = Waits::default();
        let web = StackId::Ingress(ObjectName::new("shop", "web"));
        let wait = |name: &str| Wait::BindingsGone(BTreeSet::from([ObjectName::new("shop", name)]));
        assert_eq!(waits.note(&web, None), None);
        assert_eq!(waits.note(&web, Some(&wait("a"))), Some(Due::Later(DEADLINE)));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(waits.note(&web, Some(&wait("a"))), Some(Due::Later(Duration::from_secs(200))));
        insta::assert_snapshot!(serde_json::to_string(&waits.all()).unwrap(), @r#"[{"stack":"Ingress shop/web","wait":"waiting for TargetGroupBinding shop/a to be gone","seconds":100.0,"seconds_left":200.0}]"#);
        tokio::time::advance(Duration::from_secs(200)).await;
        let Some(Due::Tell(message)) = waits.note(&web, Some(&wait("a"))) else { panic!("nobody is told") };
        insta::assert_snapshot!(message, @"waiting for TargetGroupBinding shop/a to be gone for 5 minutes; look at its events and finalizers: the target group, and all that goes after it, stay until it is gone");
        assert_eq!(waits.note(&web, Some(&wait("a"))), Some(Due::Told));
        // Another wait begins anew.
        assert_eq!(waits.note(&web, Some(&wait("b"))), Some(Due::Later(DEADLINE)));
        assert_eq!((waits.note(&web, None), waits.all()), (None, vec![]));
    }
}
