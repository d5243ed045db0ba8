//! When a process that ended is started again.

use std::time::Duration;

/// A worker that served for longer than this is started again at once.
pub(crate) const LONG_LIFE: Duration = Duration::from_secs(1);

const FIRST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The delays of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    short_lives: u32,
}

impl Backoff {
    /// That of a slot that has had so many short lives in a row.
    pub(crate) fn after_short_lives(short_lives: u32) -> Self {
        Self { short_lives }
    }

    /// How many short lives there were in a row.
    pub(crate) fn short_lives(&self) -> u32 {
        self.short_lives
    }

    /// How long to wait after a life of `lived`, of which the process was `ready` in the end or never.
    ///
    /// Nothing after a long life; else 10 ms, doubled for each short life in a row up to 30 s, less up to a quarter
    /// by `chance` (0 to 1), so that workers that fail together do not come back together.
    pub(crate) fn after(&mut self, lived: Duration, ready: bool, chance: f64) -> Duration {
        if ready && lived > LONG_LIFE {
            self.short_lives = 0;
            return Duration::ZERO;
        }
        let delay = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(self.short_lives)).min(LONGEST_DELAY);
        self.short_lives = self.short_lives.saturating_add(1);
        delay.mul_f64(1.0 - chance / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(1);
    const LONG: Duration = Duration::from_millis(1001);

    #[test]
    fn a_long_life_is_followed_at_once() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.after(LONG, true, 0.0), Duration::ZERO);
        assert_eq!(backoff.after(LONG, true, 1.0), Duration::ZERO);
    }

    #[test]
    fn short_lives_wait_twice_as_long_each_time() {
        let mut backoff = Backoff::default();
        let delays: Vec<u128> = (0..14).map(|_| backoff.after(SHORT, true, 0.0).as_millis()).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 20_480, 30_000, 30_000]);
        let after_many = (0..100).map(|_| backoff.after(SHORT, true, 0.0)).last();
        assert_eq!(after_many, Some(LONGEST_DELAY));
        assert_eq!(backoff.after(LONG, true, 0.0), Duration::ZERO);
        assert_eq!(backoff.after(SHORT, true, 0.0), FIRST_DELAY);
    }

    #[test]
    fn a_process_that_never_was_ready_had_no_long_life() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.after(LONG, false, 0.0), FIRST_DELAY);
        assert_eq!(backoff.after(LONG, false, 0.0), FIRST_DELAY * 2);
    }

    #[test]
    fn chance_takes_off_up_to_a_quarter() {
        assert_eq!(Backoff::default().after(SHORT, true, 1.0), FIRST_DELAY * 3 / 4);
        assert_eq!(Backoff::default().after(SHORT, true, 0.5), FIRST_DELAY * 7 / 8);
    }
}
