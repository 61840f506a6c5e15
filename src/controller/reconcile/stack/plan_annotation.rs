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

/// The annotations that the controller has written.
#[derive(Debug, Default)]
pub(crate) struct PlanAnnotations {
    /// The feature gate `IngressPlanAnnotation`.
    enabled: bool,
    last: Mutex<BTreeMap<ObjectName, LastWrite>>,
    /// The failures in a row.
    failures: Mutex<BTreeMap<ObjectName, u32>>,
}

/// The last write to an Ingress.
#[derive(Clone, Debug)]
struct LastWrite {
    uid: String,
    /// The annotation as the watch showed it before.
    before: Option<WrittenPlan>,
    written: Option<WrittenPlan>,
    at: Instant,
}

impl PlanAnnotations {
    /// Creates an instance that has written nothing.
    #[must_use]
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, ..Self::default() }
    }

    fn last(&self) -> MutexGuard<'_, BTreeMap<ObjectName, LastWrite>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if a write is due. Without the gate each Ingress is written to once: what removes an old annotation is not
    /// to contend with whoever writes it again.
    fn is_due(&self, write: &PlanWrite, now: Instant) -> bool {
        let last = self.last();
        let Some(last) = last.get(&write.name).filter(|last| last.uid == write.uid) else { return true };
        let lags = last.written == wanted(write) && last.before == write.shown && now < last.at + LAG;
        self.enabled && !lags
    }

    fn written(&self, write: &PlanWrite, now: Instant) {
        let last = LastWrite { uid: write.uid.clone(), before: write.shown, written: wanted(write), at: now };
        self.last().insert(write.name.clone(), last);
        self.failures().remove(&write.name);
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<ObjectName, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a failure, and returns the time until the next attempt.
    fn failed(&self, name: &ObjectName) -> Duration {
        let mut failures = self.failures();
        let count = failures.entry(name.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*count).min(6)).min(LONGEST_PAUSE);
        *count += 1;
        pause
    }

    fn forget_all_but(&self, exists: impl Fn(&ObjectName) -> bool) {
        self.last().retain(|name, _| exists(name));
        self.failures().retain(|name, _| exists(name));
    }
}

fn wanted(write: &PlanWrite) -> Option<WrittenPlan> {
    write.text.as_deref().map(WrittenPlan::of)
}

impl Controller {
    /// Brings the annotation of a group's members up to date.
    pub(super) async fn write_plan_annotation(&self, stack: &Stack, membership: &Membership) {
        let found = self.with_snapshot(|snapshot| {
            self.plan_annotations.forget_all_but(|name| snapshot.ingresses.contains_key(name));
            dry_run_plan::writes(self.plan_annotations.enabled, stack, membership, snapshot)
        });
        if let Some(diagnostic) = &found.too_large {
            self.report(diagnostic);
        }
        for write in &found.writes {
            if !self.plan_annotations.is_due(write, Instant::now()) {
                continue;
            }
            match self.kubernetes.write_plan(&write.name, &write.uid, write.text.as_deref()).await {
                Ok(()) => self.plan_annotations.written(write, Instant::now()),
                Err(error) => {
                    let pause = self.plan_annotations.failed(&write.name);
                    tracing::warn!(group = %stack.id, "{error}; trying again in {} s", pause.as_secs());
                    self.queue.run_within(&Key::Stack(stack.id.clone()), pause);
                }
            }
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
    fn pauses_after_failures_become_longer_until_a_write_succeeds() {
        let annotations = PlanAnnotations::new(true);
        let web = ObjectName::new("shop", "web");
        let pauses: Vec<u64> = (0..8).map(|_| annotations.failed(&web).as_secs()).collect();
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        annotations.written(&write(None, Some("a")), Instant::now());
        assert_eq!(annotations.failed(&web).as_secs(), 60);
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
            assert!(annotations.is_due(&first, now), "{case}");
            annotations.written(&first, now);
            let next = write(shown, text);
            assert_eq!(annotations.is_due(&next, at), expected, "{case}");
            let recreated = PlanWrite { uid: "v".to_owned(), ..next };
            assert!(annotations.is_due(&recreated, at), "{case}");
        }
    }
}
