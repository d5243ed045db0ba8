//! Which slots' clients may turn up here although the full placement names another worker.

use std::time::{Duration, Instant};

use crate::id::WorkerId;

/// How long after a slot has come back a connection placed while it was out may still arrive.
const EVICTION_ECHO: Duration = Duration::from_secs(10);

/// Slots that are out of the kernel's placement, or were until a moment ago.
#[derive(Debug, Default)]
pub(super) struct Evicted {
    now: Vec<WorkerId>,
    before: Vec<(WorkerId, Instant)>,
    /// How many workers there were when this was last looked at.
    workers: Option<u16>,
}

impl Evicted {
    pub(super) fn set(&mut self, slots: Vec<WorkerId>, now: Instant) {
        let back = self.now.iter().filter(|slot| !slots.contains(slot));
        self.before.extend(back.map(|slot| (*slot, now + EVICTION_ECHO)));
        self.before.retain(|(_, until)| *until > now);
        self.now = slots;
    }

    /// Slots that have been added were out of the placement before.
    pub(super) fn note_headcount(&mut self, workers: u16, now: Instant) {
        if let Some(before) = self.workers.replace(workers).filter(|before| *before < workers) {
            let new = WorkerId::all(workers).skip(usize::from(before));
            self.before.extend(new.map(|slot| (slot, now + EVICTION_ECHO)));
        }
    }

    pub(super) fn contains(&self, slot: WorkerId, now: Instant) -> bool {
        self.now.contains(&slot) || self.before.iter().any(|(id, until)| *id == slot && *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evicted_slot_is_excused_for_a_while_after_it_is_back() {
        let (slot, other) = (WorkerId::new(1), WorkerId::new(2));
        let start = Instant::now();
        let mut evicted = Evicted::default();
        assert!(!evicted.contains(slot, start));
        evicted.set(vec![slot], start);
        assert!(evicted.contains(slot, start + EVICTION_ECHO * 9));
        assert!(!evicted.contains(other, start));
        evicted.set(vec![], start);
        assert!(evicted.contains(slot, start + EVICTION_ECHO / 2));
        assert!(!evicted.contains(slot, start + EVICTION_ECHO));
        evicted.set(vec![], start + EVICTION_ECHO);
        assert!(evicted.before.is_empty());
    }

    #[test]
    fn an_added_slot_is_excused_for_a_while() {
        let (old, new) = (WorkerId::new(1), WorkerId::new(2));
        let start = Instant::now();
        let mut evicted = Evicted::default();
        evicted.note_headcount(2, start);
        assert!(!evicted.contains(old, start), "those that were there from the beginning are not");
        evicted.note_headcount(3, start);
        evicted.note_headcount(3, start + EVICTION_ECHO);
        assert!(evicted.contains(new, start + EVICTION_ECHO / 2) && !evicted.contains(old, start));
        assert!(!evicted.contains(new, start + EVICTION_ECHO));
        evicted.note_headcount(2, start + EVICTION_ECHO);
        assert!(!evicted.contains(new, start + EVICTION_ECHO));
    }
}
