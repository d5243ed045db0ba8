//! Random choices that a failed row can be repeated with.

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::BuildHasher;
use std::thread;

/// Names the seed to repeat with.
pub const VARIABLE: &str = "TESTBED_SEED";

/// A sequence of random numbers. One that is dropped by a failing row prints its seed.
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// Another sequence each time, unless the environment names a seed.
    ///
    /// # Panics
    /// When the environment names something that is no number.
    pub fn drawn() -> Self {
        let named = env::var(VARIABLE).ok().map(|seed| seed.parse().expect("TESTBED_SEED is a whole number"));
        Self::seeded(named.unwrap_or_else(|| RandomState::new().hash_one(())))
    }

    /// The sequence of this seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// Another sequence, told from this one by a number.
    #[must_use]
    pub fn fork(&self, number: usize) -> Self {
        let mut fork = Self { seed: self.seed, state: self.seed ^ (number as u64).wrapping_mul(0xA076_1D64_78BD_642F) };
        fork.state = fork.draw();
        fork
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        // SplitMix64: every seed gives a good sequence.
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from(self.draw() % bound).unwrap_or(0)
    }

    /// A number from `least` to `most`.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// One of these.
    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// That many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.draw().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("to repeat with the same choices: {VARIABLE}={}", self.seed);
        }
    }
}
