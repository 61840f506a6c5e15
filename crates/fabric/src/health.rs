//! The health of one target: what checks make of it, and how `DescribeTargetHealth` tells it.

use std::collections::BTreeSet;

use crate::account::{Action, Health, LoadBalancer};

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target answered as it should.
    Passed,
    /// It did not.
    Failed(Failure),
}

/// The reason why a check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An answer with another code: of HTTP, or of gRPC.
    Code(u32),
    /// No answer in time.
    TimedOut,
    /// No connection, or an answer that is malformed.
    Broken,
}

/// The phase that a registered target is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first check has not begun.
    Registering,
    /// Neither has one check passed nor have enough failed.
    Checking,
    /// It gets requests.
    Healthy,
    /// It gets none, for what the last failed check found.
    Unhealthy(Failure),
}

/// The checks of one target, as one node counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    phase: Phase,
    passed: u32,
    failed: u32,
}

/// The numbers of equal results in a row that change a target's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Passed checks until an unhealthy target is healthy.
    pub healthy: u32,
    /// Failed checks until a target is unhealthy.
    pub unhealthy: u32,
}

impl Checked {
    /// Returns a target that was just registered.
    #[must_use]
    pub fn new() -> Self {
        Self { phase: Phase::Registering, passed: 0, failed: 0 }
    }

    /// Returns the phase.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Notes that a check begins. Returns true if the phase changed.
    pub fn begin(&mut self) -> bool {
        let first = self.phase == Phase::Registering;
        if first {
            self.phase = Phase::Checking;
        }
        first
    }

    /// Takes the result of a check. Returns true if the phase changed.
    pub fn take(&mut self, outcome: Outcome, thresholds: Thresholds) -> bool {
        let next = match outcome {
            Outcome::Passed => {
                self.passed = self.passed.saturating_add(1);
                self.failed = 0;
                match &self.phase {
                    Phase::Registering | Phase::Checking => Some(Phase::Healthy),
                    Phase::Unhealthy(_) if self.passed >= thresholds.healthy => Some(Phase::Healthy),
                    Phase::Healthy | Phase::Unhealthy(_) => None,
                }
            }
            Outcome::Failed(failure) => {
                self.failed = self.failed.saturating_add(1);
                self.passed = 0;
                match &self.phase {
                    Phase::Unhealthy(before) => (*before != failure).then_some(Phase::Unhealthy(failure)),
                    _ if self.failed >= thresholds.unhealthy => Some(Phase::Unhealthy(failure)),
                    Phase::Registering => Some(Phase::Checking),
                    Phase::Checking | Phase::Healthy => None,
                }
            }
        };
        let changed = next.is_some();
        if let Some(next) = next {
            self.phase = next;
        }
        changed
    }
}

impl Default for Checked {
    fn default() -> Self {
        Self::new()
    }
}

/// The reason why a registered target is not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unused {
    /// No active load balancer forwards to the group.
    Group,
    /// The load balancer has no subnet in the target's zone.
    Zone,
    /// The instance does not run.
    Stopped,
    /// The address is not one of the VPC.
    Address,
}

/// The state of a target, from which its health is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Checked.
    In(&'a Phase),
    /// Unhealthy, but its connections have some time left.
    UnhealthyDraining,
    /// Not checked.
    Unused(Unused),
    /// Deregistered, with time to complete what it has.
    Draining,
}

/// Returns the health as `DescribeTargetHealth` tells it. A Network Load Balancer has one reason for all failures.
#[must_use]
pub fn told(standing: Standing<'_>, application: bool) -> Health {
    let health = |state: &str, reason: &str, description: &str| Health {
        state: state.to_owned(),
        reason: Some(reason.to_owned()),
        description: Some(description.to_owned()),
    };
    let failed = ("Target.FailedHealthChecks", "Health checks failed");
    match standing {
        Standing::In(Phase::Registering) => {
            health("initial", "Elb.RegistrationInProgress", "Target registration is in progress")
        }
        Standing::In(Phase::Checking) => {
            health("initial", "Elb.InitialHealthChecking", "Initial health checks in progress")
        }
        Standing::In(Phase::Healthy) => Health { state: "healthy".to_owned(), reason: None, description: None },
        Standing::In(Phase::Unhealthy(failure)) => match failure {
            Failure::Code(code) if application => health(
                "unhealthy",
                "Target.ResponseCodeMismatch",
                &format!("Health checks failed with these codes: [{code}]"),
            ),
            Failure::TimedOut if application => health("unhealthy", "Target.Timeout", "Request timed out"),
            _ => health("unhealthy", failed.0, failed.1),
        },
        Standing::UnhealthyDraining => health("unhealthy.draining", failed.0, failed.1),
        Standing::Unused(Unused::Group) => health(
            "unused",
            "Target.NotInUse",
            "Target group is not configured to receive traffic from the load balancer",
        ),
        Standing::Unused(Unused::Zone) => health(
            "unused",
            "Target.NotInUse",
            "Target is in an Availability Zone that is not enabled for the load balancer",
        ),
        Standing::Unused(Unused::Stopped) => health("unused", "Target.InvalidState", "Target is in the stopped state"),
        Standing::Unused(Unused::Address) => {
            health("unused", "Target.IpUnusable", "The IP address cannot be used as a target")
        }
        Standing::Draining => {
            health("draining", "Target.DeregistrationInProgress", "Target deregistration is in progress")
        }
    }
}

/// Returns the ARNs of the target groups that a load balancer forwards to; a weight of 0 counts.
#[must_use]
pub fn groups_of(balancer: &LoadBalancer) -> BTreeSet<&str> {
    let listeners = balancer.listeners.values();
    let actions = listeners.flat_map(|listener| {
        listener.default_actions.iter().chain(listener.rules.iter().flat_map(|rule| &rule.actions))
    });
    let forwards = actions.filter_map(|action| match action {
        Action::Forward { target_groups, .. } => Some(target_groups),
        _ => None,
    });
    forwards.flatten().map(|group| group.arn.as_str()).collect()
}

/// Returns true if a code is one that a matcher names: `200`, `200-299,301`, or codes of gRPC. What cannot be read
/// names nothing.
#[must_use]
pub fn matches(matcher: &str, code: u32) -> bool {
    matcher.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<u32>(), last.trim().parse::<u32>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&code),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::testing;

    /// Runs checks, one letter each: `b` begins, `p` passes, `c` has code 503, `t` times out, `x` has no connection.
    fn after(checks: &str, healthy: u32, unhealthy: u32) -> (Phase, Vec<bool>) {
        let mut checked = Checked::new();
        let thresholds = Thresholds { healthy, unhealthy };
        let changes = checks.chars().map(|check| match check {
            'b' => checked.begin(),
            'p' => checked.take(Outcome::Passed, thresholds),
            'c' => checked.take(Outcome::Failed(Failure::Code(503)), thresholds),
            't' => checked.take(Outcome::Failed(Failure::TimedOut), thresholds),
            'x' => checked.take(Outcome::Failed(Failure::Broken), thresholds),
            other => panic!("{other}"),
        });
        let changes = changes.collect();
        (checked.phase().clone(), changes)
    }

    #[test]
    fn checks_change_a_targets_health() {
        let table = [
            ("", 3, 2, Phase::Registering),
            ("b", 3, 2, Phase::Checking),
            ("bp", 3, 2, Phase::Healthy),
            ("bcp", 3, 2, Phase::Healthy),
            ("bc", 3, 2, Phase::Checking),
            ("bcc", 3, 2, Phase::Unhealthy(Failure::Code(503))),
            ("bct", 3, 2, Phase::Unhealthy(Failure::TimedOut)),
            ("bccx", 3, 2, Phase::Unhealthy(Failure::Broken)),
            ("bccp", 3, 2, Phase::Unhealthy(Failure::Code(503))),
            ("bccpp", 3, 2, Phase::Unhealthy(Failure::Code(503))),
            ("bccppp", 3, 2, Phase::Healthy),
            ("bccppcppp", 3, 2, Phase::Healthy),
            ("bccppcpp", 3, 2, Phase::Unhealthy(Failure::Code(503))),
            ("bpx", 3, 2, Phase::Healthy),
            ("bpxpx", 3, 2, Phase::Healthy),
            ("bpxx", 3, 2, Phase::Unhealthy(Failure::Broken)),
            ("bx", 2, 1, Phase::Unhealthy(Failure::Broken)),
            ("x", 2, 2, Phase::Checking),
        ];
        for (checks, healthy, unhealthy, expected) in table {
            assert_eq!(after(checks, healthy, unhealthy).0, expected, "{checks}");
        }
    }

    #[test]
    fn only_what_changes_a_phase_is_a_change() {
        assert_eq!(after("bbpppx", 2, 2).1, [true, false, true, false, false, false]);
        assert_eq!(after("bxxxtp", 2, 2).1, [true, false, true, false, true, false]);
    }

    #[test]
    fn health_is_told_as_aws_does() {
        let text = |standing, application| {
            let health = told(standing, application);
            let parts = [Some(health.state), health.reason, health.description];
            parts.into_iter().flatten().collect::<Vec<_>>().join(" | ")
        };
        let code = Phase::Unhealthy(Failure::Code(404));
        let late = Phase::Unhealthy(Failure::TimedOut);
        let broken = Phase::Unhealthy(Failure::Broken);
        let table = [
            (
                Standing::In(&Phase::Registering),
                true,
                "initial | Elb.RegistrationInProgress | Target registration is in progress",
            ),
            (
                Standing::In(&Phase::Checking),
                true,
                "initial | Elb.InitialHealthChecking | Initial health checks in progress",
            ),
            (Standing::In(&Phase::Healthy), true, "healthy"),
            (
                Standing::In(&code),
                true,
                "unhealthy | Target.ResponseCodeMismatch | Health checks failed with these codes: [404]",
            ),
            (Standing::In(&late), true, "unhealthy | Target.Timeout | Request timed out"),
            (Standing::In(&broken), true, "unhealthy | Target.FailedHealthChecks | Health checks failed"),
            (Standing::In(&code), false, "unhealthy | Target.FailedHealthChecks | Health checks failed"),
            (Standing::In(&late), false, "unhealthy | Target.FailedHealthChecks | Health checks failed"),
            (
                Standing::UnhealthyDraining,
                false,
                "unhealthy.draining | Target.FailedHealthChecks | Health checks failed",
            ),
            (
                Standing::Unused(Unused::Group),
                true,
                "unused | Target.NotInUse | Target group is not configured to receive traffic from the load balancer",
            ),
            (
                Standing::Unused(Unused::Zone),
                true,
                "unused | Target.NotInUse | \
                 Target is in an Availability Zone that is not enabled for the load balancer",
            ),
            (Standing::Unused(Unused::Stopped), true, "unused | Target.InvalidState | Target is in the stopped state"),
            (
                Standing::Unused(Unused::Address),
                true,
                "unused | Target.IpUnusable | The IP address cannot be used as a target",
            ),
            (
                Standing::Draining,
                true,
                "draining | Target.DeregistrationInProgress | Target deregistration is in progress",
            ),
        ];
        for (standing, application, expected) in table {
            assert_eq!(text(standing, application), expected);
        }
    }

    #[test]
    fn a_matcher_names_codes_and_ranges() {
        let table = [
            ("200", 200, true),
            ("200", 201, false),
            ("200-299,301", 250, true),
            ("200-299, 301", 301, true),
            ("200-299,301", 302, false),
            ("0-99", 12, true),
            ("", 200, false),
            ("2xx", 200, false),
            ("200-", 200, false),
        ];
        for (matcher, code, expected) in table {
            assert_eq!(matches(matcher, code), expected, "{matcher} {code}");
        }
    }

    #[test]
    fn a_group_of_weight_0_is_used() {
        let mut account = testing::account(false, &[("10.0.1.1", 80)]);
        let balancer = account.load_balancers.get_mut("lb").unwrap();
        for action in balancer.listeners.values_mut().flat_map(|listener| &mut listener.default_actions) {
            if let Action::Forward { target_groups, .. } = action {
                target_groups[0].weight = 0;
            }
        }
        assert_eq!(groups_of(balancer), ["tg"].into());
    }
}
