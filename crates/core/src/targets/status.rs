//! The status of a TargetGroupBinding.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::{api::crd::TargetGroupBindingStatus, model::TargetGroupArn};

const READY: &str = "Ready";
/// The condition whose message is the ARN of the target group that the binding holds.
const HELD: &str = "TargetGroupHeld";

/// The desired content of a binding's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// True if its targets are registered as desired.
    pub ready: bool,
    /// The reason, in one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Report {
    /// Everything is as desired. The text has no numbers, so that a rollout writes no status.
    #[must_use]
    pub fn reconciled() -> Self {
        let message = "the endpoints of the Service are registered in the target group".to_owned();
        Self { ready: true, reason: "Reconciled", message }
    }
}

/// Returns the ARN of the target group that a binding holds, or held last, where its status names it.
#[must_use]
pub fn held(status: &TargetGroupBindingStatus) -> Option<&str> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == HELD && condition.status == "True").map(|held| held.message.as_str())
}

/// The status to write; `None` when the current one says the same already. `generation` counts as observed, and the target
/// group as held, where it was `carried_out` for one.
#[must_use]
pub fn next(
    current: Option<&TargetGroupBindingStatus>,
    generation: i64,
    report: &Report,
    carried_out: Option<&TargetGroupArn>,
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
    let before = conditions.iter().find(|condition| condition.type_ == HELD);
    let held = match carried_out {
        Some(arn) => {
            let same = before.filter(|before| before.status == "True" && before.message == arn.as_str());
            Some(Condition {
                last_transition_time: same.map_or(Time(now), |same| same.last_transition_time.clone()),
                message: arn.to_string(),
                observed_generation: Some(generation),
                reason: "Reconciled".to_owned(),
                status: "True".to_owned(),
                type_: HELD.to_owned(),
            })
        }
        None => before.cloned(),
    };
    let others = conditions.iter().filter(|condition| condition.type_ != READY && condition.type_ != HELD).cloned();
    let next = TargetGroupBindingStatus {
        observed_generation: if carried_out.is_some() { Some(generation) } else { observed },
        conditions: Some(others.chain([ready]).chain(held).collect()),
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
        let arn = TargetGroupArn::new("arn:one");
        let holds = |generation| condition(HELD, "True", generation, "arn:one", 10);
        let first = next(None, 1, &Report::reconciled(), Some(&arn), at(10));
        assert_eq!(first, Some(status(Some(1), vec![good(1), holds(1)])));
        // The same again, later: nothing.
        assert_eq!(next(first.as_ref(), 1, &Report::reconciled(), Some(&arn), at(20)), None);
        // A new generation, with the old time.
        let second = next(first.as_ref(), 2, &Report::reconciled(), Some(&arn), at(20));
        assert_eq!(second, Some(status(Some(2), vec![good(2), holds(2)])));
        // A failure is of the new generation, but that is not observed in full.
        let third = next(second.as_ref(), 3, &bad, None, at(30));
        assert_eq!(third, Some(status(Some(2), vec![condition("Ready", "False", 3, "no", 30), holds(2)])));
        assert_eq!(next(third.as_ref(), 3, &bad, None, at(40)), None);
        assert_eq!(third.as_ref().and_then(held), Some("arn:one"));
        // Another target group is another matter.
        let other = next(third.as_ref(), 4, &Report::reconciled(), Some(&TargetGroupArn::new("arn:two")), at(50));
        assert_eq!(other.as_ref().and_then(held), Some("arn:two"));
    }

    #[test]
    fn conditions_of_others_stay() {
        let other = condition("Other", "True", 1, "x", 1);
        let before = status(None, vec![other.clone(), condition("Ready", "False", 1, "no", 1)]);
        let after = next(Some(&before), 1, &Report::reconciled(), None, at(5));
        let conditions = after.and_then(|status| status.conditions).unwrap_or_default();
        assert_eq!(
            conditions.iter().map(|c| (&*c.type_, &*c.status)).collect::<Vec<_>>(),
            [("Other", "True"), ("Ready", "True")]
        );
        assert_eq!(conditions[0], other);
    }
}
