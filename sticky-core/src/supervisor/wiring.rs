//! Connects processes by the bus: which pairs of sockets are still to be made and sent, and in which order.
//!
//! Descriptors on their way count against what this user may have open, and many processes join at once when a cluster
//! starts. So a pair is made when its first end can be sent, and nothing is copied to wait: what does not go now is tried
//! again later. A process that does not read holds up nobody else.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::event::ChildId;

/// How long until what did not go is tried again, at first; twice as long after each attempt at which nothing goes.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What is still to be done, in order.
#[derive(Debug, Default)]
pub(super) struct Wiring {
    steps: Vec<Step>,
    pause: Duration,
    retry_at: Option<Instant>,
}

#[derive(Debug)]
enum Step {
    /// Make a pair; the one that joins gets its end first.
    Pair { joiner: ChildId, other: ChildId },
    /// One end is sent.
    Half { to: ChildId, peer: ChildId, end: OwnedFd },
    /// It has an end of every pair.
    Joined { child: ChildId },
}

/// What a process is told.
#[derive(Debug)]
pub(super) enum Word<'a> {
    Peer { peer: ChildId, end: &'a OwnedFd },
    Joined,
}

/// What became of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Done,
    /// Not now.
    Later,
    /// Its process has ended.
    Gone,
}

impl Wiring {
    pub(super) fn connect(&mut self, joiner: ChildId, other: ChildId) {
        self.steps.push(Step::Pair { joiner, other });
    }

    pub(super) fn joined(&mut self, child: ChildId) {
        self.steps.push(Step::Joined { child });
    }

    /// Whether nothing is left to be done.
    pub(super) fn is_idle(&self) -> bool {
        self.steps.is_empty()
    }

    /// When to work again although nothing has been added.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Does what can be done now.
    pub(super) fn work(
        &mut self,
        now: Instant,
        mut pair: impl FnMut() -> io::Result<(OwnedFd, OwnedFd)>,
        mut send: impl FnMut(ChildId, Word<'_>) -> Sent,
    ) {
        let before = self.steps.len();
        let mut left: Vec<Step> = Vec::new();
        for step in std::mem::take(&mut self.steps) {
            let lacks_peer =
                |joined| left.iter().any(|step| matches!(step, Step::Pair { joiner, .. } if *joiner == joined));
            match step {
                Step::Joined { child } if lacks_peer(child) => left.push(step),
                step => left.extend(step.take(&mut pair, &mut send)),
            }
        }
        self.pause = if left.len() < before { FIRST_PAUSE } else { (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE) };
        self.retry_at = (!left.is_empty()).then(|| now + self.pause);
        self.steps = left;
    }
}

impl Step {
    /// Does it; what is left of it.
    fn take(
        self,
        pair: &mut impl FnMut() -> io::Result<(OwnedFd, OwnedFd)>,
        send: &mut impl FnMut(ChildId, Word<'_>) -> Sent,
    ) -> Option<Self> {
        match self {
            Self::Pair { joiner, other } => {
                let Ok((ours, theirs)) = pair() else { return Some(self) };
                match send(joiner, Word::Peer { peer: other, end: &ours }) {
                    Sent::Done => Self::Half { to: other, peer: joiner, end: theirs }.take(pair, send),
                    Sent::Later => Some(self),
                    Sent::Gone => None,
                }
            }
            // If it has ended, its end of the pair closes here, and the other hears of it.
            Self::Half { to, peer, ref end } => (send(to, Word::Peer { peer, end }) == Sent::Later).then_some(self),
            Self::Joined { child } => (send(child, Word::Joined) == Sent::Later).then_some(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::sockets::bus_pair;

    /// Works at `now`, where some hear nothing or have ended; tells what the others hear.
    fn work(wiring: &mut Wiring, now: Instant, deaf: &[u64], ended: &[u64]) -> Vec<String> {
        let mut heard = Vec::new();
        wiring.work(now, bus_pair, |ChildId(child), word| {
            if ended.contains(&child) {
                return Sent::Gone;
            }
            if deaf.contains(&child) {
                return Sent::Later;
            }
            heard.push(match word {
                Word::Peer { peer: ChildId(peer), .. } => format!("{child}: {peer}"),
                Word::Joined => format!("{child}: joined"),
            });
            Sent::Done
        });
        heard
    }

    fn three() -> Wiring {
        let mut wiring = Wiring::default();
        wiring.joined(ChildId(0));
        wiring.connect(ChildId(1), ChildId(0));
        wiring.joined(ChildId(1));
        wiring.connect(ChildId(2), ChildId(0));
        wiring.connect(ChildId(2), ChildId(1));
        wiring.joined(ChildId(2));
        wiring
    }

    #[test]
    fn everybody_hears_of_everybody_and_then_that_it_has_joined() {
        let (mut wiring, now) = (three(), Instant::now());
        let expected = ["0: joined", "1: 0", "0: 1", "1: joined", "2: 0", "0: 2", "2: 1", "1: 2", "2: joined"];
        assert_eq!(work(&mut wiring, now, &[], &[]), expected);
        assert_eq!(wiring.retry_at(), None);
    }

    #[test]
    fn who_does_not_hear_holds_up_nobody_and_hears_later() {
        let (mut wiring, mut now) = (three(), Instant::now());
        assert_eq!(work(&mut wiring, now, &[0], &[]), ["1: 0", "1: joined", "2: 0", "2: 1", "1: 2", "2: joined"]);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let at = wiring.retry_at().unwrap();
            pauses.push(at.duration_since(now).as_millis());
            now = at;
            assert_eq!(work(&mut wiring, now, &[0], &[]), [""; 0]);
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(work(&mut wiring, now, &[], &[]), ["0: joined", "0: 1", "0: 2"]);
        assert_eq!(wiring.retry_at(), None);
    }

    #[test]
    fn who_joins_and_does_not_hear_is_connected_before_it_is_told_so() {
        let (mut wiring, now) = (three(), Instant::now());
        assert_eq!(work(&mut wiring, now, &[2], &[]), ["0: joined", "1: 0", "0: 1", "1: joined"]);
        assert_eq!(work(&mut wiring, now, &[], &[]), ["2: 0", "0: 2", "2: 1", "1: 2", "2: joined"]);
    }

    #[test]
    fn who_has_ended_is_forgotten() {
        let (mut wiring, now) = (three(), Instant::now());
        assert_eq!(work(&mut wiring, now, &[], &[1]), ["0: joined", "2: 0", "0: 2", "2: 1", "2: joined"]);
        assert_eq!(wiring.retry_at(), None);
    }

    #[test]
    fn without_descriptors_it_waits() {
        let (mut wiring, now) = (three(), Instant::now());
        let mut heard = 0;
        let out_of = || Err(io::Error::from(rustix::io::Errno::MFILE));
        wiring.work(now, out_of, |_, _| {
            heard += 1;
            Sent::Done
        });
        assert_eq!((heard, wiring.steps.len()), (1, 5), "only the first had nobody to be connected with");
        assert_eq!(work(&mut wiring, now, &[], &[]).len(), 8);
    }
}
