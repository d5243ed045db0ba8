//! When a worker has done enough and another takes its place.

use std::fmt;
use std::time::Duration;

use crate::config::Memory;

/// The share of a limit that a worker gets at least and at most. They differ so that workers that have started together do
/// not fall due together, and are less than all because a worker goes on using more until the next one has taken over.
const SHARE: (f64, f64) = (0.7, 0.9);

/// How much a worker may use before it is replaced; none is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) requests: Option<u64>,
    pub(crate) age: Option<Duration>,
    pub(crate) memory: Option<Memory>,
}

/// What a worker has used so far, as far as that can be looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The requests that have begun.
    pub(crate) requests: u64,
    /// What of its memory is in the machine's, now.
    pub(crate) memory: Memory,
}

/// Which limit a worker has come close to, and with how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    Requests(u64),
    Age(Duration),
    Memory(Memory),
}

impl Quota {
    /// Whether there is no limit at all.
    pub(crate) fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Whether usage must be looked up to know.
    pub(crate) fn is_by_usage(&self) -> bool {
        self.requests.is_some() || self.memory.is_some()
    }

    /// What one worker gets of it, by `chance` (0 to 1).
    pub(crate) fn share(self, chance: f64) -> Self {
        let (least, most) = SHARE;
        let share = least + chance * (most - least);
        let of = |limit: u64| (limit as f64 * share).ceil() as u64;
        Self {
            requests: self.requests.map(of),
            age: self.age.map(|age| age.mul_f64(share)),
            memory: self.memory.map(|Memory(bytes)| Memory(of(bytes))),
        }
    }

    /// What of it has been used up.
    pub(crate) fn reached(&self, usage: Usage) -> Option<Reached> {
        let requests =
            self.requests.filter(|limit| usage.requests >= *limit).map(|_| Reached::Requests(usage.requests));
        let memory = || self.memory.filter(|limit| usage.memory >= *limit).map(|_| Reached::Memory(usage.memory));
        requests.or_else(memory)
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests(count) => write!(f, "has had {count} requests (max_requests, STICKY_MAX_REQUESTS)"),
            Self::Age(age) => write!(f, "has run for {} s (max_age, STICKY_MAX_AGE)", age.as_secs()),
            Self::Memory(memory) => write!(f, "uses {} MiB (max_rss, STICKY_MAX_RSS)", memory.0 >> 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn quota() -> Quota {
        Quota { requests: Some(1000), age: Some(Duration::from_secs(1000)), memory: Some(Memory(1000 * MIB)) }
    }

    #[test]
    fn shares_are_spread_and_leave_room() {
        for (chance, share) in [(0.0, 700), (0.5, 800), (1.0, 900)] {
            let Quota { requests, age, memory } = quota().share(chance);
            assert_eq!((requests, memory), (Some(share), Some(Memory(share * MIB))));
            assert_eq!(age.map(|age| age.as_secs()), Some(share));
        }
        let least = Quota { requests: Some(1), ..Quota::default() };
        assert_eq!(least.share(0.0).requests, Some(1), "never none at all");
    }

    #[test]
    fn without_limits_nothing_is_reached() {
        let usage = Usage { requests: u64::MAX, memory: Memory(u64::MAX) };
        let unlimited = Quota::default().share(0.0);
        assert!(unlimited.is_unlimited() && !unlimited.is_by_usage());
        assert_eq!(unlimited.reached(usage), None);
    }

    #[test]
    fn what_is_reached_is_named() {
        let usage = |requests, memory| Usage { requests, memory: Memory(memory * MIB) };
        assert_eq!(quota().reached(usage(999, 999)), None);
        let requests = quota().reached(usage(1000, 1000)).unwrap();
        assert_eq!(requests.to_string(), "has had 1000 requests (max_requests, STICKY_MAX_REQUESTS)");
        let memory = quota().reached(usage(0, 1001)).unwrap();
        assert_eq!(memory.to_string(), "uses 1001 MiB (max_rss, STICKY_MAX_RSS)");
        let age = Reached::Age(Duration::from_millis(3_700));
        assert_eq!(age.to_string(), "has run for 3 s (max_age, STICKY_MAX_AGE)");
        assert!(quota().is_by_usage() && !Quota { age: quota().age, ..Quota::default() }.is_by_usage());
    }
}
