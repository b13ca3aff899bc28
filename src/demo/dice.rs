//! Chance that repeats: whoever has the same seed throws the same numbers. Does not know what is decided by them.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Numbers from a seed.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// For one thing of one day: trains and buses don't disturb each other's luck.
    #[must_use]
    pub fn new(seed: u64, day: u32, thing: u32) -> Dice {
        let mut numbers = ChaCha8Rng::seed_from_u64(seed);
        numbers.set_stream(u64::from(day) << 32 | u64::from(thing));
        Dice(numbers)
    }

    /// One of 0 to `count` - 1.
    ///
    /// # Panics
    /// If there is nothing to choose from.
    pub fn below(&mut self, count: u32) -> u32 {
        self.0.next_u32() % count
    }

    /// One of `first` to `last`.
    pub fn between(&mut self, first: u32, last: u32) -> u32 {
        first + self.below(last - first + 1)
    }

    /// True so many times out of a hundred.
    pub fn percent(&mut self, times: u32) -> bool {
        self.below(100) < times
    }
}
