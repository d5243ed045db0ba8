//! How long a connection may stay as it is: pure decisions from what was seen and when.

use std::time::Duration;

use tokio::time::Instant;

use crate::deadline::{Timeouts, later};
pub(crate) use crate::worker::FIRST_REQUEST_GRACE;

/// How long a connection that has been told to close may take to do so.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection is doing, as far as its timers are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not a byte has come.
    New,
    /// A request head has begun and is not complete.
    Head,
    /// A request is being answered, or the connection has become a tunnel: takes as long as it takes.
    Executing,
    /// Everything that was asked has been answered.
    Idle,
}

/// What was last seen of a connection: while it stays equal, nothing happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) phase: Phase,
    /// Counts requests that began and pieces of responses that were written.
    pub(crate) progress: u32,
}

/// Whether a connection may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It may have further requests.
    Open,
    /// It is to close as soon as it can: the worker drains.
    Draining,
    /// It has been told to close.
    Closing,
}

/// A connection's clock: since when it is as it is.
#[derive(Debug)]
pub(crate) struct Clock {
    timeouts: Timeouts,
    sight: Sight,
    since: Instant,
}

impl Clock {
    /// The clock of a connection that was accepted `now`.
    pub(crate) fn new(timeouts: Timeouts, now: Instant) -> Self {
        Self { timeouts, sight: Sight { phase: Phase::New, progress: 0 }, since: now }
    }

    /// Takes note of what the connection is doing. Reads the time only when that has changed.
    pub(crate) fn observe(&mut self, sight: Sight, now: impl FnOnce() -> Instant) {
        if sight != self.sight {
            self.sight = sight;
            self.since = now();
        }
    }

    /// Starts the present phase again.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.since = now;
    }

    pub(crate) fn phase(&self) -> Phase {
        self.sight.phase
    }

    /// When the present phase has lasted too long; `None` where it may last for ever.
    pub(crate) fn deadline(&self, stage: Stage) -> Option<Instant> {
        let Timeouts { first_byte, head, idle } = self.timeouts;
        let timeout = match (self.sight.phase, stage) {
            (Phase::Executing, _) => return None,
            (Phase::New, Stage::Open) => first_byte,
            (Phase::New, _) => first_byte.min(FIRST_REQUEST_GRACE),
            (Phase::Head, _) => head,
            (Phase::Idle, Stage::Closing) => CLOSE_TIMEOUT,
            (Phase::Idle, _) => idle,
        };
        (timeout != Duration::MAX).then(|| later(self.since, timeout))
    }

    /// When to look next if nothing happens: at the deadline, and where there is none every now and then. Over HTTP/2
    /// a request can end on another thread without anybody telling the connection. None where somebody else minds the
    /// time.
    pub(crate) fn next_look(&self, stage: Stage, now: Instant) -> Option<Instant> {
        let now_and_then = || self.timeouts.idle != Duration::MAX;
        self.deadline(stage).or_else(|| now_and_then().then(|| later(now, self.timeouts.idle)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts =
        Timeouts { first_byte: Duration::from_secs(60), head: Duration::from_secs(10), idle: Duration::from_secs(75) };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What is left of `phase`, entered two seconds after `start`.
    fn allowed(phase: Phase, stage: Stage) -> Option<Duration> {
        let start = Instant::now();
        let mut clock = Clock::new(TIMEOUTS, start);
        clock.observe(Sight { phase, progress: 1 }, || start + seconds(2));
        clock.deadline(stage).map(|deadline| deadline - (start + seconds(2)))
    }

    #[test]
    fn each_phase_has_its_own_time() {
        assert_eq!(allowed(Phase::New, Stage::Open), Some(seconds(60)));
        assert_eq!(allowed(Phase::Head, Stage::Open), Some(seconds(10)));
        assert_eq!(allowed(Phase::Executing, Stage::Open), None);
        assert_eq!(allowed(Phase::Idle, Stage::Open), Some(seconds(75)));
    }

    #[test]
    fn a_drain_cuts_short_what_has_not_begun() {
        assert_eq!(allowed(Phase::New, Stage::Draining), Some(FIRST_REQUEST_GRACE));
        assert_eq!(allowed(Phase::Head, Stage::Draining), Some(seconds(10)));
        assert_eq!(allowed(Phase::Executing, Stage::Closing), None);
        assert_eq!(allowed(Phase::Idle, Stage::Closing), Some(CLOSE_TIMEOUT));
    }

    #[test]
    fn the_time_is_read_only_when_something_changed() {
        let start = Instant::now();
        let mut clock = Clock::new(TIMEOUTS, start);
        clock.observe(Sight { phase: Phase::New, progress: 0 }, || unreachable!("nothing has changed"));
        clock.observe(Sight { phase: Phase::Idle, progress: 1 }, || start + seconds(5));
        clock.observe(Sight { phase: Phase::Idle, progress: 1 }, || unreachable!("nothing has changed"));
        assert_eq!(clock.deadline(Stage::Open), Some(start + seconds(80)));
        clock.observe(Sight { phase: Phase::Idle, progress: 2 }, || start + seconds(9));
        assert_eq!(clock.deadline(Stage::Open), Some(start + seconds(84)));
    }

    #[test]
    fn where_somebody_else_minds_the_time_only_the_end_has_a_deadline() {
        let now = Instant::now();
        let mut clock = Clock::new(Timeouts::NONE, now);
        assert_eq!((clock.deadline(Stage::Open), clock.next_look(Stage::Open, now)), (None, None));
        clock.observe(Sight { phase: Phase::Executing, progress: 1 }, || now);
        assert_eq!(clock.next_look(Stage::Open, now), None);
        clock.observe(Sight { phase: Phase::Idle, progress: 2 }, || now);
        assert_eq!(clock.next_look(Stage::Closing, now), Some(now + CLOSE_TIMEOUT));
    }

    #[test]
    fn a_request_without_end_is_looked_at_now_and_then() {
        let now = Instant::now();
        let mut clock = Clock::new(TIMEOUTS, now);
        clock.observe(Sight { phase: Phase::Executing, progress: 1 }, || now);
        assert_eq!(clock.next_look(Stage::Open, now + seconds(100)), Some(now + seconds(175)));
    }
}
