//! Random numbers from a seed: the same on every run and machine.

use std::time::Duration;

/// The generator SplitMix64. It must not change, since the seeds of worlds that have failed would then name other
/// worlds.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a separate generator for one part, so that the draws of one part do not affect another.
    pub fn fork(&self, part: u64) -> Self {
        let mut fork = Self(self.0 ^ part.wrapping_mul(0xA24B_AED4_963E_E407));
        fork.number();
        fork
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// Returns a number below `limit`, which must not be 0.
    pub fn below_u64(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// Returns a number below `end`, or 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { usize::try_from(self.number() % end as u64).expect("less than `end`") }
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        // An impossible event draws no number.
        probability > 0.0 && ((self.number() >> 11) as f64) < probability * (1_u64 << 53) as f64
    }

    /// Returns a number from 0, inclusive, to 1, exclusive.
    pub fn share(&mut self) -> f64 {
        f64::from((self.number() >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
    }

    pub fn up_to(&mut self, longest: Duration) -> Duration {
        let micros = usize::try_from(longest.as_micros()).expect("a pause that is not for ages");
        Duration::from_micros(self.below(micros + 1) as u64)
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}

/// Returns a number without a visible relation to the input.
pub fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_splitmix64_and_its_parts_keep_their_bounds() {
        let mut random = Random::new(1_234_567);
        // The test vector of the algorithm's reference implementation.
        let numbers: Vec<_> = (0..3).map(|_| random.number()).collect();
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        let mut happened = 0;
        for _ in 0..10_000 {
            assert!(random.below(7) < 7);
            happened += u32::from(random.share() < 0.25);
        }
        assert!((2_300..2_700).contains(&happened), "{happened}");
        assert!(!random.chance(0.0) && random.chance(1.0));
    }
}
