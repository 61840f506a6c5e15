//! The account's quota of ELB v2 calls: a token bucket for each class of call.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// A token bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// The buckets of an account. They have the sizes that the lab's proxy has.
#[derive(Debug, Default)]
pub(super) struct Quota(BTreeMap<&'static str, Bucket>);

impl Quota {
    /// Takes a token for a call. Returns false if there is none, so that AWS throttles the call.
    pub(super) fn take(&mut self, operation: &str, is_write: bool, now: Instant) -> bool {
        let (class, size, rate) = match operation {
            "RegisterTargets" | "DeregisterTargets" => ("registrations", 20.0, 4.0),
            _ if is_write => ("changes", 20.0, 3.0),
            _ => ("reads", 40.0, 10.0),
        };
        let bucket = self.0.entry(class).or_insert(Bucket { tokens: size, filled: now });
        let passed: Duration = now.saturating_duration_since(bucket.filled);
        bucket.tokens = (bucket.tokens + passed.as_secs_f64() * rate).min(size);
        bucket.filled = now;
        let has_one = bucket.tokens >= 1.0;
        if has_one {
            bucket.tokens -= 1.0;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_a_bucket_that_refills() {
        let (mut quota, now) = (Quota::default(), Instant::now());
        let mut taken = |operation, is_write, at| (0..60).filter(|_| quota.take(operation, is_write, at)).count();
        assert_eq!(taken("RegisterTargets", true, now), 20);
        assert_eq!(taken("DeregisterTargets", true, now), 0);
        assert_eq!(taken("CreateRule", true, now), 20);
        assert_eq!(taken("DescribeTargetHealth", false, now), 40);
        let later = now + Duration::from_secs(2);
        assert_eq!(taken("DeregisterTargets", true, later), 8);
        assert_eq!(taken("DescribeRules", false, later), 20);
    }
}
