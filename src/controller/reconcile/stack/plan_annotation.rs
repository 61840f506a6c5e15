//! The annotation `dry-run-plan` on the members of a group. It is an output for people and tools: a failure holds up nothing.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::controller::Controller;
use albatross_core::{
    dependents::Key,
    desired::Membership,
    dry_run_plan::{self, PlanWrite, WrittenPlan},
    model::{ObjectName, Stack},
};

/// The time for which a watch may lag behind a write.
const LAG: Duration = Duration::from_secs(60);

/// The pause after a first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// The known Ingresses that are kept beside two for each that there is.
const SPARE: usize = 64;

/// The annotations that the controller has written, or has failed to write.
#[derive(Debug, Default)]
pub(crate) struct PlanAnnotations {
    /// The feature gate `IngressPlanAnnotation`.
    enabled: bool,
    tried: Mutex<BTreeMap<ObjectName, Tried>>,
}

/// The attempts to write to an Ingress.
#[derive(Clone, Debug)]
struct Tried {
    uid: String,
    last: Attempt,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Attempt {
    Written {
        /// The annotation as the watch showed it before.
        before: Option<WrittenPlan>,
        written: Option<WrittenPlan>,
    },
    /// The pause until the next attempt.
    Failed(Duration),
}

impl PlanAnnotations {
    /// Creates an instance that has written nothing.
    #[must_use]
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, ..Self::default() }
    }

    fn tried(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Tried>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time until a write is due, zero if it is, `None` if it is not to be made. Without the gate each Ingress is
    /// written to once: what removes an old annotation is not to contend with others that write it again.
    fn due_in(&self, write: &PlanWrite, now: Instant) -> Option<Duration> {
        let tried = self.tried();
        let Some(tried) = tried.get(&write.name).filter(|tried| tried.uid == write.uid) else {
            return Some(Duration::ZERO);
        };
        match tried.last {
            Attempt::Written { before, written } => {
                let lags = written == wanted(write) && before == write.shown && now < tried.at + LAG;
                (self.enabled && !lags).then_some(Duration::ZERO)
            }
            Attempt::Failed(pause) => Some((tried.at + pause).saturating_duration_since(now)),
        }
    }

    fn note(&self, write: &PlanWrite, last: Attempt, at: Instant) {
        self.tried().insert(write.name.clone(), Tried { uid: write.uid.clone(), last, at });
    }

    fn written(&self, write: &PlanWrite, now: Instant) {
        self.note(write, Attempt::Written { before: write.shown, written: wanted(write) }, now);
    }

    /// Notes a failure, and returns the time until the next attempt.
    fn failed(&self, write: &PlanWrite, now: Instant) -> Duration {
        let before = self.tried().get(&write.name).map(|tried| tried.last);
        let pause = match before {
            Some(Attempt::Failed(pause)) => pause.saturating_mul(2).min(LONGEST_PAUSE),
            Some(Attempt::Written { .. }) | None => FIRST_PAUSE,
        };
        self.note(write, Attempt::Failed(pause), now);
        pause
    }

    /// Forgets Ingresses that are no more, once they may be most of what is known.
    fn forget_all_but(&self, existing: usize, exists: impl Fn(&ObjectName) -> bool) {
        let mut tried = self.tried();
        if tried.len() > 2 * existing + SPARE {
            tried.retain(|name, _| exists(name));
        }
    }
}

fn wanted(write: &PlanWrite) -> Option<WrittenPlan> {
    write.text.as_deref().map(WrittenPlan::of)
}

impl Controller {
    /// Brings the annotation of a group's members up to date.
    pub(super) async fn write_plan_annotation(&self, stack: &Stack, membership: &Membership) {
        let enabled = self.plan_annotations.enabled;
        let found = self.with_snapshot(|snapshot| dry_run_plan::writes(enabled, stack, membership, snapshot));
        if let Some(diagnostic) = &found.too_large {
            self.report(diagnostic);
        }
        let (now, again) = (Instant::now(), Key::Stack(stack.id.clone()));
        let mut tries = false;
        for write in &found.writes {
            let Some(left) = self.plan_annotations.due_in(write, now) else { continue };
            if !left.is_zero() {
                // This pass came for another reason, and in place of the one that was to try again.
                self.queue.run_within(&again, left);
                continue;
            }
            tries = true;
            match self.kubernetes.write_plan(&write.name, &write.uid, write.text.as_deref()).await {
                Ok(()) => self.plan_annotations.written(write, Instant::now()),
                Err(error) => {
                    let pause = self.plan_annotations.failed(write, Instant::now());
                    tracing::warn!(group = %stack.id, "{error}; trying again in {} s", pause.as_secs());
                    self.queue.run_within(&again, pause);
                }
            }
        }
        if tries {
            self.with_snapshot(|snapshot| {
                let ingresses = &snapshot.ingresses;
                self.plan_annotations.forget_all_but(ingresses.len(), |name| ingresses.contains_key(name));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(shown: Option<&str>, text: Option<&str>) -> PlanWrite {
        PlanWrite {
            name: ObjectName::new("shop", "web"),
            uid: "u".to_owned(),
            shown: shown.map(WrittenPlan::of),
            text: text.map(str::to_owned),
        }
    }

    #[test]
    fn pauses_after_failures_are_kept_and_become_longer_until_a_write_succeeds() {
        let annotations = PlanAnnotations::new(true);
        let (write, mut now) = (write(None, Some("a")), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(annotations.due_in(&write, now), Some(Duration::ZERO));
            let pause = annotations.failed(&write, now);
            pauses.push(pause.as_secs());
            // Passes that come for other reasons do not try again, and do not forget to.
            let second = Duration::from_secs(1);
            assert_eq!(annotations.due_in(&write, now + pause - second), Some(second));
            now += pause;
        }
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        annotations.written(&write, now);
        assert_eq!(annotations.failed(&write, now).as_secs(), 60);
    }

    #[test]
    fn ingresses_that_are_no_more_do_not_add_up() {
        let annotations = PlanAnnotations::new(true);
        let most = (0..1000)
            .map(|number| {
                let name = ObjectName::new("shop", format!("web-{number}"));
                annotations.written(&PlanWrite { name: name.clone(), ..write(None, Some("a")) }, Instant::now());
                annotations.forget_all_but(1, |other| *other == name);
                annotations.tried().len()
            })
            .max();
        assert!(most.is_some_and(|most| most <= SPARE + 2), "{most:?}");
    }

    #[test]
    fn a_write_is_not_repeated_while_the_watch_lags_and_a_removal_without_the_gate_is_never() {
        let now = Instant::now();
        let later = now + LAG;
        for (case, enabled, (shown, text), at, expected) in [
            ("the watch lags", true, (None, Some("a")), now, false),
            ("the watch has lagged for too long", true, (None, Some("a")), later, true),
            ("another plan", true, (None, Some("b")), now, true),
            ("somebody has written", true, (Some("mine"), Some("a")), now, true),
            ("it is no holder any more", true, (Some("a"), None), now, true),
            ("without the gate", false, (Some("mine"), None), later, false),
        ] {
            let annotations = PlanAnnotations::new(enabled);
            let first = if enabled { write(None, Some("a")) } else { write(Some("a"), None) };
            let is_due = |write: &PlanWrite, at| annotations.due_in(write, at).is_some_and(|left| left.is_zero());
            assert!(is_due(&first, now), "{case}");
            annotations.written(&first, now);
            let next = write(shown, text);
            assert_eq!(is_due(&next, at), expected, "{case}");
            let recreated = PlanWrite { uid: "v".to_owned(), ..next };
            assert!(is_due(&recreated, at), "{case}");
        }
    }
}
