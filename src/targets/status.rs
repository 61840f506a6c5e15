//! The status of a TargetGroupBinding.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::api::crd::TargetGroupBindingStatus;

const READY: &str = "Ready";

/// What a binding's status shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether its targets are registered as they shall be.
    pub ready: bool,
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Report {
    /// All is as it shall be. It says no numbers, so that a rollout writes no status.
    #[must_use]
    pub fn reconciled() -> Self {
        let message = "the endpoints of the Service are registered in the target group".to_owned();
        Self { ready: true, reason: "Reconciled", message }
    }
}

/// The status to write; `None` when the current one says the same already. `generation` counts as observed when `complete`.
#[must_use]
pub fn next(
    current: Option<&TargetGroupBindingStatus>,
    generation: i64,
    report: &Report,
    complete: bool,
    now: Timestamp,
) -> Option<TargetGroupBindingStatus> {
    let conditions = current.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let before = conditions.iter().find(|condition| condition.type_ == READY);
    let status = if report.ready { "True" } else { "False" };
    let last_transition_time = match before {
        Some(before) if before.status == status => before.last_transition_time.clone(),
        _ => Time(now),
    };
    let ready = Condition {
        last_transition_time,
        message: report.message.clone(),
        observed_generation: Some(generation),
        reason: report.reason.to_owned(),
        status: status.to_owned(),
        type_: READY.to_owned(),
    };
    let observed = current.and_then(|status| status.observed_generation);
    let next = TargetGroupBindingStatus {
        observed_generation: if complete { Some(generation) } else { observed },
        conditions: Some(
            conditions.iter().filter(|condition| condition.type_ != READY).cloned().chain([ready]).collect(),
        ),
    };
    (current != Some(&next)).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn condition(kind: &str, status: &str, generation: i64, message: &str, second: i64) -> Condition {
        Condition {
            last_transition_time: Time(at(second)),
            message: message.to_owned(),
            observed_generation: Some(generation),
            reason: if status == "True" { "Reconciled" } else { "FailedReconcile" }.to_owned(),
            status: status.to_owned(),
            type_: kind.to_owned(),
        }
    }

    fn status(observed: Option<i64>, conditions: Vec<Condition>) -> TargetGroupBindingStatus {
        TargetGroupBindingStatus { observed_generation: observed, conditions: Some(conditions) }
    }

    #[test]
    fn a_status_is_written_when_it_says_something_new() {
        let good = |generation| condition("Ready", "True", generation, &Report::reconciled().message, 10);
        let bad = Report { ready: false, reason: "FailedReconcile", message: "no".to_owned() };
        let first = next(None, 1, &Report::reconciled(), true, at(10));
        assert_eq!(first, Some(status(Some(1), vec![good(1)])));
        // The same again, later: nothing.
        assert_eq!(next(first.as_ref(), 1, &Report::reconciled(), true, at(20)), None);
        // A new generation, with the old time.
        let second = next(first.as_ref(), 2, &Report::reconciled(), true, at(20));
        assert_eq!(second, Some(status(Some(2), vec![good(2)])));
        // A failure is of the new generation, but that is not observed in full.
        let third = next(second.as_ref(), 3, &bad, false, at(30));
        assert_eq!(third, Some(status(Some(2), vec![condition("Ready", "False", 3, "no", 30)])));
        assert_eq!(next(third.as_ref(), 3, &bad, false, at(40)), None);
    }

    #[test]
    fn conditions_of_others_stay() {
        let other = condition("Other", "True", 1, "x", 1);
        let before = status(None, vec![other.clone(), condition("Ready", "False", 1, "no", 1)]);
        let after = next(Some(&before), 1, &Report::reconciled(), true, at(5));
        let conditions = after.and_then(|status| status.conditions).unwrap_or_default();
        assert_eq!(
            conditions.iter().map(|c| (&*c.type_, &*c.status)).collect::<Vec<_>>(),
            [("Other", "True"), ("Ready", "True")]
        );
        assert_eq!(conditions[0], other);
    }
}
