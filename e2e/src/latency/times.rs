//! The statistics of waits, and the waits that AWS's quota alone imposes.

use std::time::Duration;

use serde_json::{Value, json};

/// AWS's quota of RegisterTargets and DeregisterTargets, as the proxy has it: calls at once, and calls a second.
pub(super) const REGISTRATIONS: (f64, f64) = (20.0, 4.0);
/// AWS's quota of Describe calls.
pub(super) const READS: (f64, f64) = (40.0, 10.0);

/// Quantiles of waits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Quantiles {
    /// The number of waits.
    pub(super) count: usize,
    pub(super) p50: Duration,
    pub(super) p90: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
}

impl Quantiles {
    /// Returns the quantiles by nearest rank; zero of no waits.
    pub(super) fn of(waits: impl IntoIterator<Item = Duration>) -> Self {
        let mut waits: Vec<Duration> = waits.into_iter().collect();
        waits.sort();
        let at = |percent: usize| {
            let rank = (waits.len() * percent).div_ceil(100).max(1);
            waits.get(rank - 1).copied().unwrap_or_default()
        };
        Self { count: waits.len(), p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }

    pub(super) fn json(&self) -> Value {
        let seconds = |wait: Duration| (wait.as_secs_f64() * 1000.0).round() / 1000.0;
        json!({
            "count": self.count, "p50": seconds(self.p50), "p90": seconds(self.p90), "p99": seconds(self.p99),
            "max": seconds(self.max),
        })
    }
}

/// Returns the wait of each call, in the order of `begun`, if AWS's quota alone decides and nothing else uses it: a token
/// bucket with `tokens` at the time zero, as large as the quota's first number.
pub(super) fn by_quota(begun: &[Duration], (size, rate): (f64, f64), tokens: f64) -> Vec<Duration> {
    let (mut tokens, mut filled) = (tokens, 0.0);
    let mut waits = Vec::with_capacity(begun.len());
    for begun in begun.iter().map(Duration::as_secs_f64) {
        // A call may find the calls before it still waiting, and then the bucket is filled to a later time.
        let now = f64::max(begun, filled);
        tokens = f64::min(tokens + (now - filled) * rate, size);
        filled = now;
        if tokens < 1.0 {
            filled += (1.0 - tokens) / rate;
            tokens = 1.0;
        }
        tokens -= 1.0;
        waits.push(Duration::from_secs_f64(filled - begun));
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_waits_that_occurred() {
        let seconds = |second| Duration::from_secs(second);
        let of = |count: u64| Quantiles::of((1..=count).rev().map(seconds));
        let expected = |count, p50, p90, p99, max| {
            let [p50, p90, p99, max] = [p50, p90, p99, max].map(seconds);
            Quantiles { count, p50, p90, p99, max }
        };
        assert_eq!(of(1), expected(1, 1, 1, 1, 1));
        assert_eq!(of(10), expected(10, 5, 9, 10, 10));
        assert_eq!(of(200), expected(200, 100, 180, 198, 200));
        assert_eq!(of(0), Quantiles::default());
    }

    #[test]
    fn the_quota_lets_its_burst_through_and_then_its_rate() {
        let at_once = vec![Duration::ZERO; 200];
        let waits = by_quota(&at_once, REGISTRATIONS, 20.0);
        assert!(waits.iter().take(20).all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits.last(), Some(&Duration::from_secs(45)));
        // One a second is less than the rate.
        let each_second: Vec<Duration> = (0..60).map(Duration::from_secs).collect();
        let waits = by_quota(&each_second, REGISTRATIONS, 0.0);
        assert_eq!(waits.first(), Some(&Duration::from_millis(250)));
        assert!(waits.iter().skip(1).all(Duration::is_zero), "{waits:?}");
        // More than the rate: the waits grow.
        let waits = by_quota(&(0..80).map(|n| Duration::from_millis(n * 125)).collect::<Vec<_>>(), REGISTRATIONS, 0.0);
        assert_eq!(waits.last(), Some(&Duration::from_millis(10_125)));
    }
}
