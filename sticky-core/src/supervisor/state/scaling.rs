//! Scaling: slots are added behind those in use, or the last of them are taken out. Only the keys that must move do.
//!
//! ```text
//! added:      Booting ── ready ──► Soaking ──► Poised: reads the slot's sockets ── all of them do ──► Ready, and placed on
//!                └── one fails ──────┴────────────┴──► all of them end, and everything is as it was
//!
//! taken out:  Ready ── placed on no more ──► Parting ── a moment ──► Superseded ──► Retired ──► Leaving ──► gone
//!                                                                      │ lets go of the slot's sockets, then drains
//! ```
//!
//! Keys move once, however many slots are added: when all of their processes read. A slot that is taken out gets no new
//! clients first of all; what was on its way there is served there, and whatever may come in later by its sockets a
//! neighbour reads, as long as the cluster lives.

use std::time::{Duration, Instant};

use super::super::event::{Action, ChildId, HowMany, Note, Program};
use super::reload::MOST_RETIRED;
use super::{Phase, Stage, State, worker};
use crate::control::Part;

/// How long a process whose slot is taken out reads on: handshakes that have begun complete, and what others have sent
/// arrives.
pub(super) const PARTING_TIME: Duration = Duration::from_millis(200);

/// A change of the number of workers that is under way.
#[derive(Debug)]
pub(super) struct Scaling {
    to: u16,
    /// The slot that has been said to wait for its former processes.
    crowded: Option<usize>,
}

impl State {
    /// Begins to scale, or remembers that it is wanted.
    pub(super) fn scale(&mut self, now: Instant, how_many: HowMany) {
        if !matches!(self.phase, Phase::Booting | Phase::Running) {
            return;
        }
        let under_way = self.scaling.as_ref().map(|scaling| scaling.to);
        let before = self.next_count.or(under_way).unwrap_or(self.count);
        let to = match how_many {
            HowMany::Exactly(count) => count,
            HowMany::OneMore => before + 1,
            HowMany::OneLess => before - 1,
        };
        let room = self.policy.room;
        if to == 0 || to > room {
            self.out.push(Action::Note(Note::ScalingRefused { to, room }));
        } else if to == before {
            self.need_no_scaling(to);
        } else if self.phase == Phase::Running && self.may_begin() {
            self.begin_scaling(now, to);
        } else {
            self.next_count = Some(to);
            self.out.push(Action::Note(Note::ScalingWaits { to }));
        }
    }

    /// There are so many already, or will be when what is under way or waits is done.
    fn need_no_scaling(&mut self, workers: u16) {
        let note = Note::ScalingNeedless { workers };
        if self.next_count.is_none() {
            self.scaling_asked_begins();
            if self.scaling.is_none() {
                self.scaling_asked_is_done(&note);
            }
        }
        self.out.push(Action::Note(note));
    }

    /// Begins what has been asked for, if nothing else is under way.
    pub(super) fn begin_next_scaling(&mut self, now: Instant) {
        if !self.may_begin() {
            return;
        }
        match self.next_count.take() {
            Some(to) if to != self.count => self.begin_scaling(now, to),
            Some(to) => self.need_no_scaling(to),
            None => {}
        }
    }

    fn begin_scaling(&mut self, now: Instant, to: u16) {
        self.out.push(Action::Note(Note::Scaling { from: self.count, to }));
        self.scaling = Some(Scaling { to, crowded: None });
        self.scaling_asked_begins();
        if to < self.count {
            self.take_out(now, to);
        }
        self.advance_scaling(now);
    }

    /// Takes the scaling on as far as it can go now.
    pub(super) fn advance_scaling(&mut self, now: Instant) {
        let Some(to) = self.scaling.as_ref().map(|scaling| scaling.to) else { return };
        let is_done = if to > self.count { self.add(now, to) } else { !self.is_anybody_parting() };
        if is_done {
            self.scaling = None;
            let note = Note::Scaled { workers: self.count };
            self.scaling_asked_is_done(&note);
            self.out.push(Action::Note(note));
        }
    }

    // === More ===

    /// Starts the processes of the slots that are added, and has them placed on when all of them read; tells whether that is
    /// so.
    fn add(&mut self, now: Instant, to: u16) -> bool {
        let new = usize::from(self.count)..usize::from(to);
        for index in new.clone() {
            if self.slots[index].next.is_none() && self.has_room_to_scale(index) {
                self.slots[index].next = Some(self.start(now, index, Program::OfTheFirst));
            }
        }
        if !new.clone().all(|index| self.is_poised(index)) {
            return false;
        }
        new.for_each(|index| self.bring_in(index));
        self.count = to;
        self.out.push(Action::Place { workers: to });
        // Whose clients have waited for somebody to stand in need not wait any longer.
        self.evict_late(now);
        self.settle_readers(now);
        true
    }

    /// Whether the slot has room for one more process. Where it has not, that is said once.
    fn has_room_to_scale(&mut self, index: usize) -> bool {
        if !self.is_crowded(index) {
            return true;
        }
        if let Some(scaling) = &mut self.scaling
            && scaling.crowded.replace(index) != Some(index)
        {
            self.out.push(Action::Note(Note::ScalingCrowded { who: self.post(worker(index)), former: MOST_RETIRED }));
        }
        false
    }

    /// A process can serve in a slot that is added.
    pub(super) fn poise(&mut self, id: ChildId) {
        self.with(id, |child| child.stage = Stage::Poised);
    }

    /// Whether a slot that is added has a process that reads its sockets.
    fn is_poised(&self, index: usize) -> bool {
        let next = self.slots[index].next.filter(|id| self.children[id].stage == Stage::Poised);
        next.is_some_and(|id| self.reads_all(index, id))
    }

    fn bring_in(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(id) = slot.next.take() else { return };
        slot.current = Some(id);
        slot.is_known = true;
        slot.drained = false;
        slot.down_since = None;
        self.with(id, |child| child.stage = Stage::Ready);
        self.out.push(Action::Keep { child: id });
    }

    /// A process does not read the sockets of a slot that is added: its application has let go of its connections.
    pub(super) fn unpoise(&mut self, id: ChildId) {
        let who = self.post(self.children[&id].slot);
        self.kill(id);
        self.stop_scaling(format!("the new {who} has let go of its connections"));
    }

    /// One of the processes has failed: everything stays as it was.
    pub(super) fn stop_scaling(&mut self, why: String) {
        self.scaling = None;
        let others: Vec<ChildId> = self.slots.iter().filter_map(|slot| slot.next).collect();
        others.into_iter().for_each(|id| self.throw_away(id));
        let note = Note::ScalingStopped { why, workers: self.count };
        self.scaling_asked_has_failed(&note);
        self.out.push(Action::Note(note));
    }

    /// Everything ends: nothing is added or taken out any more.
    pub(super) fn forget_scaling(&mut self) {
        (self.scaling, self.next_count) = (None, None);
    }

    // === Fewer ===

    /// Has nothing new come to the slots from `to` on, and their processes part.
    fn take_out(&mut self, now: Instant, to: u16) {
        let old = usize::from(to)..usize::from(self.count);
        self.count = to;
        self.out.push(Action::Place { workers: to });
        let mut was_any_evicted = false;
        for index in old {
            let slot = &mut self.slots[index];
            (slot.respawn_at, slot.backoff) = Default::default();
            (slot.recycle_at, slot.recycle_backoff) = Default::default();
            slot.down_since = None;
            slot.drained = false;
            was_any_evicted |= std::mem::take(&mut slot.evicted);
            if let Some(id) = slot.current.take() {
                self.part(now, id);
            }
        }
        if was_any_evicted {
            self.place();
        }
    }

    fn part(&mut self, now: Instant, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        match child.stage {
            Stage::Ready => child.stage = Stage::Parting { until: now + PARTING_TIME },
            // It has not served since it was started after a crash.
            Stage::Booting { .. } => self.kill(id),
            _ => {}
        }
    }

    fn is_anybody_parting(&self) -> bool {
        self.children.values().any(|child| matches!(child.stage, Stage::Parting { .. } | Stage::Superseded))
    }

    /// Whether nothing comes to this process by the slot's sockets any more, or nobody else could read them.
    pub(super) fn has_let_go(&self, index: usize, id: ChildId) -> bool {
        let reads = |part: Part| self.slots[index].readers[part.index()].is(id);
        let may_wait = self.adopter(index).is_some();
        !may_wait || Part::ALL.into_iter().all(|part| !reads(part))
    }

    // === Slots that are not in use ===

    /// The slots that are in use, those of proxies among them.
    pub(super) fn in_use(&self) -> impl Iterator<Item = usize> + use<> {
        (0..usize::from(self.count)).chain(usize::from(self.policy.room)..self.slots.len())
    }

    /// Whether this is a worker's slot that is not in use.
    pub(super) fn is_spare(&self, index: usize) -> bool {
        (usize::from(self.count)..usize::from(self.policy.room)).contains(&index)
    }

    /// Which of its own processes reads the sockets of a slot that is not in use.
    pub(super) fn spare_reader(&self, index: usize) -> Option<ChildId> {
        let reads = |id: &ChildId| {
            let child = &self.children[id];
            matches!(child.stage, Stage::Poised | Stage::Parting { .. }) && !child.stopped
        };
        let is_spare = self.is_spare(index);
        let next = self.slots[index].next.filter(reads);
        next.or_else(|| self.former(index).find(reads)).filter(|_| is_spare)
    }

    /// Whether a neighbour reads the sockets of a slot that is not in use: where it has been, something may still come in.
    pub(super) fn is_left_behind(&self, index: usize) -> bool {
        self.slots[index].is_known
    }
}
