//! Which workers' event loops have stopped turning, from the beats they leave on the scoreboard.

use std::time::{Duration, Instant};

/// One worker's beats as the supervisor has seen them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulse {
    beats: u64,
    since: Instant,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Self { beats: 0, since: now }
    }

    /// Whether the beats have stood still for longer than `timeout`. A worker that has never beaten is not
    /// watched: its framework has no event loop of ours.
    pub(crate) fn silent(&mut self, beats: u64, now: Instant, timeout: Duration) -> bool {
        if beats != self.beats {
            *self = Self { beats, since: now };
        }
        self.beats != 0 && now.duration_since(self.since) > timeout
    }

    /// Starts counting anew: the worker could not have beaten meanwhile.
    pub(crate) fn excuse(&mut self, now: Instant) {
        self.since = now;
    }
}

/// How often to look.
pub(crate) fn period(timeout: Duration) -> Duration {
    (timeout / 5).clamp(Duration::from_millis(50), Duration::from_secs(5))
}

/// Whether the supervisor itself did not run between two looks (the machine slept, the process was stopped): then
/// nothing can be said of the workers.
pub(crate) fn slept(since_last_look: Duration, period: Duration) -> bool {
    since_last_look > period * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn silence_is_counted_from_the_last_new_beat() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert!(!pulse.silent(1, start, TIMEOUT));
        assert!(!pulse.silent(1, start + TIMEOUT, TIMEOUT));
        assert!(pulse.silent(1, start + TIMEOUT + MOMENT, TIMEOUT));
        assert!(!pulse.silent(2, start + TIMEOUT + MOMENT, TIMEOUT));
        assert!(!pulse.silent(2, start + TIMEOUT * 2 + MOMENT, TIMEOUT));
        assert!(pulse.silent(2, start + TIMEOUT * 3, TIMEOUT));
    }

    #[test]
    fn who_never_beat_is_not_watched() {
        let start = Instant::now();
        assert!(!Pulse::new(start).silent(0, start + TIMEOUT * 9, TIMEOUT));
    }

    #[test]
    fn an_excuse_starts_anew() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert!(!pulse.silent(1, start, TIMEOUT));
        pulse.excuse(start + TIMEOUT * 5);
        assert!(!pulse.silent(1, start + TIMEOUT * 6, TIMEOUT));
        assert!(pulse.silent(1, start + TIMEOUT * 6 + MOMENT, TIMEOUT));
    }

    #[test]
    fn looks_are_often_enough_and_not_too_often() {
        assert_eq!(period(Duration::from_secs(30)), Duration::from_secs(5));
        assert_eq!(period(Duration::from_secs(1)), Duration::from_millis(200));
        assert_eq!(period(Duration::from_millis(1)), Duration::from_millis(50));
        let period = Duration::from_secs(5);
        assert!(!slept(period * 3, period));
        assert!(slept(period * 3 + MOMENT, period));
    }
}
