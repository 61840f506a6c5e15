//! The generator of server ids: no two ids of one process are the same, and those of two processes differ by the number of the process.

use crate::model::QuicServerId;

/// The milliseconds from 1970 to 2020, from which the ids count.
const EPOCH_MS: u64 = 1_577_836_800_000;
/// The bits of a sequence within a millisecond, and of a worker.
const SEQUENCE_BITS: u32 = 7;
const WORKER_BITS: u32 = 17;
/// The ids of one worker in a millisecond.
const PER_MS: u8 = 1 << SEQUENCE_BITS;
/// The largest number of a worker.
pub const MAX_WORKER: u32 = (1 << WORKER_BITS) - 1;

/// The number of a process that creates ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker(u32);

impl Worker {
    /// Returns the worker of any number, of which the lowest bits count.
    #[must_use]
    pub fn of(number: u64) -> Self {
        Self(u32::try_from(number & u64::from(MAX_WORKER)).unwrap_or_default())
    }

    /// Reads the number that the tracker has for the next process.
    #[must_use]
    pub fn of_tracker(text: &str) -> Option<Self> {
        text.trim().parse().ok().filter(|number| *number <= MAX_WORKER).map(Self)
    }

    /// Returns what the tracker is to have for the process after this one; aws-load-balancer-controller counts in the same circle.
    #[must_use]
    pub fn successor(self) -> String {
        ((self.0 + 1) % MAX_WORKER).to_string()
    }
}

/// The ids of one process. Its time never goes back: where the clock does, or a millisecond has no more ids, it goes on from the last one.
#[derive(Clone, Debug)]
pub struct Generator {
    worker: Worker,
    /// The millisecond since 2020 of the last id.
    ms: u64,
    /// The first sequence in that millisecond, and the number of ids that it has had.
    first: u8,
    used: u8,
}

impl Generator {
    /// Returns a generator that has created no id.
    #[must_use]
    pub const fn new(worker: Worker) -> Self {
        Self { worker, ms: 0, first: 0, used: 0 }
    }

    /// Returns the next id at a time, in milliseconds since 1970. `random` chooses the first sequence of a millisecond, so that two
    /// processes with one number seldom create the same id.
    pub fn next(&mut self, now_ms: u64, random: u8) -> QuicServerId {
        let now = now_ms.saturating_sub(EPOCH_MS);
        if now > self.ms || self.used == PER_MS {
            self.ms = now.max(self.ms.saturating_add(1));
            (self.first, self.used) = (random % PER_MS, 0);
        }
        let sequence = (self.first + self.used) % PER_MS;
        self.used += 1;
        let bits =
            self.ms << (WORKER_BITS + SEQUENCE_BITS) | u64::from(self.worker.0) << SEQUENCE_BITS | u64::from(sequence);
        QuicServerId::new(bits)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bits_of_an_id() {
        let mut generator = Generator::new(Worker::of(5));
        let next = |generator: &mut Generator, ms| generator.next(EPOCH_MS + ms, 126).to_string();
        // 1 << 24 | 5 << 7 | 126, and on in the circle of sequences.
        assert_eq!(next(&mut generator, 1), "0x00000000010002fe");
        assert_eq!(next(&mut generator, 1), "0x00000000010002ff");
        assert_eq!(next(&mut generator, 1), "0x0000000001000280");
        assert_eq!(next(&mut generator, 2), "0x00000000020002fe");
    }

    #[test]
    fn a_clock_that_goes_back_does_not_stop_it() {
        let mut generator = Generator::new(Worker::of(0));
        let first = generator.next(EPOCH_MS + 1000, 0);
        let second = generator.next(EPOCH_MS + 10, 0);
        assert_eq!((first.to_string(), second.to_string()), ("0x00000003e8000000".into(), "0x00000003e8000001".into()));
        // A clock before 2020.
        assert_eq!(generator.next(0, 0).to_string(), "0x00000003e8000002");
    }

    #[test]
    fn a_full_millisecond_is_followed_by_the_next_one() {
        let mut generator = Generator::new(Worker::of(0));
        let ids: BTreeSet<String> = (0..300).map(|_| generator.next(EPOCH_MS + 1, 100).to_string()).collect();
        assert_eq!(ids.len(), 300);
        let times: BTreeSet<&str> = ids.iter().filter_map(|id| id.get(..12)).collect();
        assert_eq!(times, BTreeSet::from(["0x0000000001", "0x0000000002", "0x0000000003"]));
    }

    #[test]
    fn the_tracker_counts_in_a_circle() {
        for (text, successor) in [
            ("0", Some("1")),
            (" 41\n", Some("42")),
            ("131069", Some("131070")),
            // Numbers of aws-load-balancer-controller end one before the largest, which only a random start gives.
            ("131070", Some("0")),
            ("131071", Some("1")),
            ("131072", None),
            ("-1", None),
            ("", None),
            ("seven", None),
        ] {
            assert_eq!(Worker::of_tracker(text).map(Worker::successor).as_deref(), successor, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_process_creates_an_id_twice(worker in any::<u64>(), times in prop::collection::vec((0u64..5, any::<u8>()), 1..2000)) {
            let mut generator = Generator::new(Worker::of(worker));
            // The clock goes forward and back.
            let ids: BTreeSet<QuicServerId> =
                times.iter().map(|(ms, random)| generator.next(EPOCH_MS + 1_000_000 + ms, *random)).collect();
            prop_assert_eq!(ids.len(), times.len());
        }

        #[test]
        fn two_processes_create_different_ids(one in 0..=MAX_WORKER, other in 0..=MAX_WORKER, times in prop::collection::vec((0u64..5, any::<u8>(), any::<bool>()), 1..500)) {
            prop_assume!(one != other);
            let mut generators = [one, other].map(|worker| Generator::new(Worker::of(worker.into())));
            let mut ids = BTreeSet::new();
            for (ms, random, first) in &times {
                let generator = &mut generators[usize::from(*first)];
                prop_assert!(ids.insert(generator.next(EPOCH_MS + 1_000_000 + ms, *random)));
            }
        }
    }
}
