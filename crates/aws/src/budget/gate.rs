//! The decisions of a budget: which call may go now, and how many calls a second there are.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::Priority;

/// A waiting call: its priority, and when it came among all calls.
pub(super) type Ticket = (Priority, u64);

/// The time over which the rate of successful calls is measured.
const WINDOW: Duration = Duration::from_secs(5);
/// By how much the rate rises with each call that AWS takes, in calls a second. As the calls come at the rate, this is a
/// rise of 4 % a second.
const RISE: f64 = 0.04;
/// The factor by which a throttled call reduces the rate.
const CUT: f64 = 0.85;
/// After so long without a throttle there is no limit any more: at a rise of 4 % a second AWS would have throttled again if
/// its limit were near, and its bucket is full again.
const QUIET: Duration = Duration::from_secs(30);
/// The fewest tokens of a reserve.
const LEAST_RESERVE: f64 = 2.0;
/// The calls of [`Priority::Deregister`] that go in a row while others wait: a tenant whose targets go and come without end
/// leaves the others a fifth.
const URGENT_IN_A_ROW: u32 = 4;
/// Sums of fractions are not exact.
const ALMOST: f64 = 1.0 - 1e-9;

/// A token bucket; one call takes one token.
#[derive(Debug)]
struct Bucket {
    /// Tokens at most.
    burst: f64,
    /// Tokens a second.
    rate: f64,
    tokens: f64,
    /// Until when tokens have been added.
    filled: Instant,
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + seconds * self.rate).min(self.burst);
        self.filled = self.filled.max(now);
    }

    /// Returns the tokens of so much time, with which targets can be registered and others deregistered, and which leave
    /// most of the bucket to other calls.
    fn reserve(&self, of: Duration) -> f64 {
        (self.rate * of.as_secs_f64()).clamp(LEAST_RESERVE, self.burst / 2.0)
    }

    /// Takes a token, and leaves `reserve` tokens, or says when there will be as many.
    fn take(&mut self, reserve: f64, now: Instant) -> Result<(), Instant> {
        self.fill(now);
        if self.tokens >= ALMOST + reserve {
            self.tokens -= 1.0;
            return Ok(());
        }
        let wait = Duration::try_from_secs_f64((1.0 + reserve - self.tokens) / self.rate).unwrap_or(QUIET);
        Err(now + wait)
    }
}

/// The adaptation of a bucket to AWS's throttling.
#[derive(Debug)]
struct Adaptation {
    /// The bucket's size.
    burst: f64,
    /// The least rate.
    floor: f64,
    /// Calls that AWS took, each counting less the longer it is ago: the rate is this over [`WINDOW`].
    passed: f64,
    /// When `passed` was true.
    counted: Option<Instant>,
    /// The last throttle, and when the rate was last lowered: calls that were sent before that do not show whether the new
    /// rate is right.
    throttled: Option<(Instant, Instant)>,
}

impl Adaptation {
    fn count(&mut self, calls: f64, now: Instant) -> f64 {
        let age = self.counted.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.passed = self.passed * (-age.as_secs_f64() / WINDOW.as_secs_f64()).exp() + calls;
        self.counted = Some(now);
        self.passed / WINDOW.as_secs_f64()
    }
}

/// The gate that calls pass one by one, in the order of their tickets.
#[derive(Debug)]
pub(super) struct Gate {
    /// `None` is no limit.
    bucket: Option<Bucket>,
    /// `None` is a bucket that stays as it is.
    adaptation: Option<Adaptation>,
    /// The time whose tokens are left to calls of [`Priority::Deregister`]; zero leaves none.
    reserve: Duration,
    waiting: BTreeSet<Ticket>,
    /// The urgent calls that have gone since another one had its turn.
    urgent_in_row: u32,
}

impl Gate {
    /// A gate without a limit until AWS throttles; `burst` calls and `floor` calls a second are let through always.
    pub(super) fn adaptive(burst: f64, floor: f64) -> Self {
        let adaptation = Adaptation { burst, floor, passed: 0.0, counted: None, throttled: None };
        Self {
            bucket: None,
            adaptation: Some(adaptation),
            reserve: Duration::ZERO,
            waiting: BTreeSet::new(),
            urgent_in_row: 0,
        }
    }

    /// Leaves the tokens of so much time to deregistrations while there is a limit.
    pub(super) fn with_reserve(self, reserve: Duration) -> Self {
        Self { reserve, ..self }
    }

    /// A gate that lets `burst` calls through at once, and `rate` calls a second.
    pub(super) fn fixed(burst: f64, rate: f64, now: Instant) -> Self {
        let bucket = Bucket { burst, rate, tokens: burst, filled: now };
        Self {
            bucket: Some(bucket),
            adaptation: None,
            reserve: Duration::ZERO,
            waiting: BTreeSet::new(),
            urgent_in_row: 0,
        }
    }

    /// Drops a limit that AWS has not confirmed for long.
    fn expire_limit(&mut self, now: Instant) {
        let throttled = self.adaptation.as_ref().and_then(|adaptation| adaptation.throttled);
        if throttled.is_some_and(|(last, _)| now.saturating_duration_since(last) >= QUIET) {
            self.bucket = None;
        }
    }

    /// Calls a second; `None` is no limit.
    pub(super) fn rate(&mut self, now: Instant) -> Option<f64> {
        self.expire_limit(now);
        self.bucket.as_ref().map(|bucket| bucket.rate)
    }

    /// Returns the number of waiting calls.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A call has come.
    pub(super) fn enter(&mut self, ticket: Ticket) {
        self.waiting.insert(ticket);
    }

    /// A call has gone, with or without a turn.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// Returns the call whose turn it is, and true if urgent ones leave it that turn.
    fn first(&self) -> Option<(Ticket, bool)> {
        let other = || self.waiting.range((Priority::Register, 0)..).next();
        let left = Some(()).filter(|()| self.urgent_in_row >= URGENT_IN_A_ROW).and_then(|()| other());
        left.map(|ticket| (*ticket, true)).or_else(|| Some((*self.waiting.first()?, false)))
    }

    /// Lets a call through; else says when to ask again, or nothing where others come first.
    pub(super) fn take(&mut self, ticket: Ticket, now: Instant) -> Result<(), Option<Instant>> {
        self.expire_limit(now);
        let first = self.first();
        if let Some(bucket) = &mut self.bucket {
            let is_left = match first {
                Some((first, is_left)) if first == ticket => is_left,
                Some((first, is_left)) if is_left || first < ticket => return Err(None),
                _ => false,
            };
            let is_urgent = ticket.0 == Priority::Deregister;
            let is_reserved = !self.reserve.is_zero() && !is_urgent && !is_left;
            let reserve = if is_reserved { bucket.reserve(self.reserve) } else { 0.0 };
            bucket.take(reserve, now).map_err(Some)?;
            self.urgent_in_row = if is_urgent { self.urgent_in_row.saturating_add(1) } else { 0 };
        }
        self.waiting.remove(&ticket);
        Ok(())
    }

    /// AWS has taken a call.
    pub(super) fn passed(&mut self, now: Instant) {
        let Some(adaptation) = &mut self.adaptation else { return };
        adaptation.count(1.0, now);
        if let Some(bucket) = &mut self.bucket {
            bucket.fill(now);
            bucket.rate += RISE;
        }
    }

    /// Records that AWS has throttled a call that was sent at `sent`: AWS's bucket is empty, so the gate's bucket is emptied
    /// too.
    pub(super) fn throttled(&mut self, sent: Instant, now: Instant) {
        self.expire_limit(now);
        let Some(adaptation) = &mut self.adaptation else { return };
        let through = adaptation.count(0.0, now);
        let before = self.bucket.as_ref().map(|bucket| bucket.rate);
        // Calls that were under way together are throttled together.
        let known = adaptation.throttled.is_some_and(|(_, lowered)| sent <= lowered);
        let rate = match before {
            Some(rate) if known => rate,
            before => (before.unwrap_or(f64::INFINITY).min(through) * CUT).max(adaptation.floor),
        };
        let lowered = adaptation.throttled.filter(|_| known).map_or(now, |(_, lowered)| lowered);
        adaptation.throttled = Some((now, lowered));
        self.bucket = Some(Bucket { burst: adaptation.burst, rate, tokens: 0.0, filled: now });
    }
}
