//! How many workers there are just now: one number that the supervisor writes and every process reads when it needs it, so
//! that all of them place by the same from one moment to the next.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Memory, header};
use crate::id::WorkerId;

/// How many of the slots there is room for are in use: those from 0 on. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Headcount {
    memory: Arc<Memory>,
    room: u16,
}

impl Headcount {
    /// What the memory of a scoreboard says, of so many slots.
    #[cfg(cluster)]
    pub(super) fn within(memory: &Arc<Memory>, room: u16) -> Self {
        Self { memory: Arc::clone(memory), room }
    }

    /// How many there are now: one at least, and no more than there is room for.
    #[inline]
    pub(crate) fn now(&self) -> u16 {
        let count = u16::try_from(self.memory.words()[header::HEADCOUNT].load(Relaxed)).unwrap_or(u16::MAX);
        count.min(self.room).max(1)
    }

    /// How many there can be.
    pub(crate) fn room(&self) -> u16 {
        self.room
    }

    /// Whether this slot is in use.
    #[inline]
    pub(crate) fn includes(&self, slot: WorkerId) -> bool {
        slot.get() < self.now()
    }

    /// Whether this is a worker's slot that is not in use: it has been taken out, or has not been needed yet.
    pub(crate) fn lacks(&self, slot: WorkerId) -> bool {
        (self.now()..self.room).contains(&slot.get())
    }

    /// Has all processes place on so many from now on. For the supervisor.
    pub(crate) fn set(&self, workers: u16) {
        self.memory.words()[header::HEADCOUNT].store(u64::from(workers), Relaxed);
    }
}

impl From<u16> for Headcount {
    /// So many workers, as long as this process says nothing else.
    fn from(workers: u16) -> Self {
        let count =
            Self { memory: Arc::new(Memory::Own(Box::new(std::array::from_fn(|_| AtomicU64::new(0))))), room: workers };
        count.set(workers);
        count
    }
}

impl fmt::Debug for Headcount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.now(), self.room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_in_use_from_the_first_on() {
        let count = Headcount::from(4);
        count.clone().set(2);
        assert_eq!((count.now(), count.room()), (2, 4));
        let slots = [1, 2, 3, 4].map(WorkerId::new);
        assert_eq!(slots.map(|slot| count.includes(slot)), [true, false, false, false]);
        assert_eq!(slots.map(|slot| count.lacks(slot)), [false, true, true, false], "the last is no worker's");
    }

    #[test]
    fn nonsense_is_not_believed() {
        let count = Headcount::from(4);
        for (said, is) in [(0, 1), (5, 4), (u16::MAX, 4)] {
            count.set(said);
            assert_eq!(count.now(), is);
        }
    }

    #[cfg(cluster)]
    #[test]
    fn every_process_reads_what_the_supervisor_writes() {
        let board = super::super::Scoreboard::create(1).unwrap();
        let file = std::os::fd::AsFd::as_fd(&board).try_clone_to_owned().unwrap();
        let other = super::super::Scoreboard::from_fd(file).unwrap();
        board.headcount(8).set(5);
        assert_eq!(other.headcount(8).now(), 5);
    }
}
