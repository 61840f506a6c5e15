//! The faults of calls.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::is_read;

/// A choice of calls by their name `service:Action`.
#[derive(Clone)]
pub struct Calls(Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl Calls {
    /// The calls for which `choose` holds.
    pub fn that(choose: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(choose))
    }

    /// The calls of this name.
    pub fn named(name: &'static str) -> Self {
        Self::that(move |call| call == name)
    }

    /// Every call that may change something.
    pub fn writes() -> Self {
        Self::that(|call| !is_read(call))
    }

    fn contain(&self, call: &str) -> bool {
        (self.0)(call)
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls(..)")
    }
}

/// Calls of one name whose body contains a text (as it is encoded there) are refused with this code.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// `service:Action`
    pub call: &'static str,
    /// A text that the body contains.
    pub containing: String,
    /// For example `ValidationError`.
    pub code: &'static str,
}

/// The faults. Rates are shares of the calls, from 0 to 1; the first fault that strikes, in the order of the
/// fields, is the call's fate.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Waited before each call.
    pub latency: Duration,
    /// Throttle ELB v2 as an account's documented limits do: a token bucket for each class of action.
    pub quota: bool,
    /// Share that is throttled.
    pub throttle_rate: f64,
    /// Calls that are answered with the service's "access denied".
    pub deny: Option<Calls>,
    /// Calls that AWS refuses, however often they are repeated.
    pub refuse: Option<Refusal>,
    /// Share that is answered 500 and takes no effect.
    pub error_rate: f64,
    /// Share that takes effect and is answered 500.
    pub error_after_rate: f64,
    /// Share that takes effect and whose connection closes without an answer.
    pub lost_rate: f64,
    /// The calls that the rates are for; all when `None`.
    pub only: Option<Calls>,
    /// The lifetime of the credentials that STS gives; its own when `None`.
    pub credentials_last: Option<Duration>,
    /// The seed of the random numbers, so that a run can be repeated.
    pub seed: u64,
}

/// A call's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Throttle,
    Deny,
    Refuse(&'static str),
    FailBefore,
    FailAfter,
    Lose,
}

/// Faults with their dice and buckets.
pub(super) struct Judge {
    faults: Faults,
    dice: fastrand::Rng,
    buckets: BTreeMap<&'static str, Bucket>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Judge {
    pub(super) fn new(faults: Faults) -> Self {
        let dice = fastrand::Rng::with_seed(faults.seed);
        Self { faults, dice, buckets: BTreeMap::new() }
    }

    pub(super) fn latency(&self) -> Duration {
        self.faults.latency
    }

    pub(super) fn credentials_last(&self) -> Option<Duration> {
        self.faults.credentials_last
    }

    pub(super) fn judge(&mut self, call: &str, body: &[u8]) -> Verdict {
        if self.faults.quota && !self.within_quota(call, Instant::now()) {
            return Verdict::Throttle;
        }
        let chosen = self.faults.only.as_ref().is_none_or(|only| only.contain(call));
        if chosen && self.dice.f64() < self.faults.throttle_rate {
            return Verdict::Throttle;
        }
        if self.faults.deny.as_ref().is_some_and(|deny| deny.contain(call)) {
            return Verdict::Deny;
        }
        let contains = |text: &str| body.windows(text.len().max(1)).any(|window| window == text.as_bytes());
        let refusal = self.faults.refuse.as_ref();
        if let Some(refusal) = refusal.filter(|refusal| refusal.call == call && contains(&refusal.containing)) {
            return Verdict::Refuse(refusal.code);
        }
        let rates = [
            (self.faults.error_rate, Verdict::FailBefore),
            (self.faults.error_after_rate, Verdict::FailAfter),
            (self.faults.lost_rate, Verdict::Lose),
        ];
        let struck = rates.into_iter().find(|(rate, _)| chosen && self.dice.f64() < *rate);
        struck.map_or(Verdict::Pass, |(_, verdict)| verdict)
    }

    /// Takes a token for an ELB v2 call; other services have their own, wider limits.
    fn within_quota(&mut self, call: &str, now: Instant) -> bool {
        let Some(action) = call.strip_prefix("elasticloadbalancing:") else {
            return true;
        };
        let (class, size, per_second) = match action {
            "RegisterTargets" | "DeregisterTargets" => ("register", 20.0, 4.0),
            _ if is_read(call) => ("describe", 40.0, 10.0),
            _ => ("change", 20.0, 3.0),
        };
        let bucket = self.buckets.entry(class).or_insert(Bucket { tokens: size, filled: now });
        let refilled = bucket.tokens + now.duration_since(bucket.filled).as_secs_f64() * per_second;
        bucket.tokens = refilled.min(size);
        bucket.filled = now;
        let within = bucket.tokens >= 1.0;
        if within {
            bucket.tokens -= 1.0;
        }
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(faults: Faults, call: &str, times: usize) -> Vec<Verdict> {
        let mut judge = Judge::new(faults);
        (0..times).map(|_| judge.judge(call, b"Name=web")).collect()
    }

    #[test]
    fn without_faults_every_call_passes() {
        assert_eq!(judged(Faults::default(), "ec2:CreateSecurityGroup", 3), [Verdict::Pass; 3]);
    }

    #[test]
    fn a_fault_strikes_only_the_calls_that_it_is_for() {
        let create = "elasticloadbalancing:CreateLoadBalancer";
        let deny = || Faults { deny: Some(Calls::named(create)), ..Faults::default() };
        assert_eq!(judged(deny(), create, 1), [Verdict::Deny]);
        assert_eq!(judged(deny(), "elasticloadbalancing:CreateRule", 1), [Verdict::Pass]);
        let refuse = |containing: &str| {
            let refusal = Refusal { call: create, containing: containing.to_owned(), code: "ValidationError" };
            Faults { refuse: Some(refusal), ..Faults::default() }
        };
        assert_eq!(judged(refuse("=web"), create, 1), [Verdict::Refuse("ValidationError")]);
        assert_eq!(judged(refuse("=api"), create, 1), [Verdict::Pass]);
        let lose = || Faults { lost_rate: 1.0, only: Some(Calls::writes()), ..Faults::default() };
        assert_eq!(judged(lose(), create, 1), [Verdict::Lose]);
        assert_eq!(judged(lose(), "elasticloadbalancing:DescribeRules", 1), [Verdict::Pass]);
    }

    #[test]
    fn a_rate_strikes_its_share_and_the_same_seed_strikes_the_same_calls() {
        let faults = || Faults { throttle_rate: 0.5, seed: 7, ..Faults::default() };
        let first = judged(faults(), "ec2:DescribeVpcs", 1000);
        let struck = first.iter().filter(|verdict| **verdict == Verdict::Throttle).count();
        assert!((400..600).contains(&struck), "{struck} of 1000");
        assert_eq!(first, judged(faults(), "ec2:DescribeVpcs", 1000));
    }

    #[test]
    fn the_quota_is_a_bucket_that_refills() {
        let mut judge = Judge::new(Faults { quota: true, ..Faults::default() });
        let now = Instant::now();
        let create = "elasticloadbalancing:CreateRule";
        let taken = (0..25).filter(|_| judge.within_quota(create, now)).count();
        assert_eq!(taken, 20);
        assert!(judge.within_quota("elasticloadbalancing:DescribeRules", now));
        assert!(judge.within_quota("ec2:CreateTags", now));
        let later = now + Duration::from_secs(2);
        assert_eq!((0..25).filter(|_| judge.within_quota(create, later)).count(), 6);
    }
}
