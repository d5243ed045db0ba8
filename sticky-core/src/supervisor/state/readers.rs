//! Who reads each slot's sockets: its own process, one that stands in for it, or whoever is about to.

use std::time::{Duration, Instant};

use super::super::event::{Action, ChildId};
use super::{Phase, Reader, State, worker};
use crate::config::Failover;
use crate::control::Part;

/// How long a reader has to let go of a slot before it is lent to the next one all the same: a blocked event loop must
/// not hold up another worker's clients. Two readers share a listener without loss.
pub(super) const RELEASE_TIME: Duration = Duration::from_secs(1);

impl State {
    pub(super) fn settle_readers(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            for part in Part::ALL {
                self.settle_reader(now, index, part);
            }
        }
    }

    /// One step of this part of a slot's sockets towards who should read it.
    fn settle_reader(&mut self, now: Instant, index: usize, part: Part) {
        let Some(wanted) = self.wanted_reader(index, part) else { return };
        match self.slots[index].readers[part.index()] {
            Reader::Nobody => self.lend(index, part, wanted),
            Reader::Child(reader) if reader == wanted => {}
            Reader::Child(reader) => {
                self.slots[index].readers[part.index()] = Reader::Releasing(reader, now + RELEASE_TIME);
                self.out.push(Action::Release { child: reader, slot: worker(index), part });
                self.lend_over_stopped(index, part, reader, wanted);
            }
            Reader::Releasing(reader, _) => self.lend_over_stopped(index, part, reader, wanted),
        }
    }

    /// A stopped process reads nothing and cannot answer, so nobody waits for it. What it was asked is the first thing
    /// it hears when it goes on.
    fn lend_over_stopped(&mut self, index: usize, part: Part, reader: ChildId, wanted: ChildId) {
        if self.children[&reader].stopped {
            self.lend(index, part, wanted);
        }
    }

    fn lend(&mut self, index: usize, part: Part, child: ChildId) {
        let stands_in = self.children[&child].slot.index() != index;
        let refuse = stands_in && self.refuses(index, part);
        self.slots[index].readers[part.index()] = Reader::Child(child);
        self.out.push(Action::Listen { child, slot: worker(index), part, refuse });
    }

    /// Whether who stands in for this slot answers 503 to what it reads. Where connections move, what comes in by the
    /// listeners may be anybody's and is passed on; what comes in by the channel is the slot's own.
    fn refuses(&self, index: usize, part: Part) -> bool {
        let is_own = part == Part::Channel || !self.policy.moves;
        is_own && self.slots[index].evicted && matches!(self.policy.failover, Failover::Refuse { .. })
    }

    /// Who should read a part of this slot's sockets: its own process, or a neighbour once the clients have waited long
    /// enough; `None` while they wait.
    /// In a shutdown: whoever can empty the queue, if it is not empty yet.
    fn wanted_reader(&self, index: usize, part: Part) -> Option<ChildId> {
        if !self.has(index, part) {
            return None;
        }
        let slot = &self.slots[index];
        let reader = slot.readers[part.index()];
        if let Phase::ShuttingDown { .. } = self.phase {
            return match reader {
                Reader::Child(reader) => Some(reader),
                _ if slot.emptied[part.index()] => None,
                _ => self.own_reader(index).or_else(|| self.adopter(index)),
            };
        }
        self.own_reader(index).or_else(|| self.spare_reader(index)).or_else(|| {
            let adopter = self.is_lent_out(index, part).then(|| self.adopter(index))?;
            // One who stands in goes on while it can: moving the slot from neighbour to neighbour helps nobody.
            match reader {
                Reader::Child(reader) if self.can_adopt(reader) && self.children[&reader].slot.index() != index => {
                    Some(reader)
                }
                _ => adopter,
            }
        })
    }

    /// Whether a slot has this part of its sockets: behind proxies nobody comes to a worker but through its channel.
    pub(super) fn has(&self, index: usize, part: Part) -> bool {
        match part {
            Part::Channel => self.policy.moves,
            Part::Listeners => self.policy.proxies == 0 || index >= usize::from(self.policy.room),
        }
    }

    /// Whether somebody else should read while the slot's own process does not.
    fn is_lent_out(&self, index: usize, part: Part) -> bool {
        if self.is_spare(index) {
            return self.is_left_behind(index);
        }
        let slot = &self.slots[index];
        // Where connections move, clients of all slots come in here, and those of the living must not wait.
        let is_anybodys = part == Part::Listeners && self.policy.moves;
        slot.evicted || (is_anybodys && slot.down_since.is_some())
    }

    /// Who reads the parts that a slot has.
    pub(super) fn parts_of(&self, index: usize) -> impl Iterator<Item = Reader> {
        Part::ALL
            .into_iter()
            .filter(move |part| self.has(index, *part))
            .map(move |part| self.slots[index].readers[part.index()])
    }

    fn own_reader(&self, index: usize) -> Option<ChildId> {
        self.slots[index].current.filter(|id| self.serves(*id))
    }
}
