//! The reload: each slot's process is replaced by a new generation, one slot after the other.
//!
//! ```text
//! old:   Ready ───────────────────────────────► Superseded ──► Retired ──► Leaving ──► gone
//!                                                  │ lets go of the slot's sockets, then drains
//! new:   Booting ── ready ──► Soaking ── soaked ──► Ready: reads the slot's sockets
//!           └── fails ───────────┴─► the old one goes on, the reload stops
//! ```
//!
//! Up to the moment at which the old process is told to drain, everything can be taken back: if the new one fails, the
//! old one reads again.
//!
//! A worker that is [recycled](super::recycling) is replaced in the same way.

use std::collections::VecDeque;
use std::time::Instant;

use super::super::event::{Action, BootFailure, BootFailureKind, ChildId, Fleet, Note, Program, Scope};
use super::{CUT_TIME, Child, Phase, Stage, State, worker};
use crate::control::Part;
use crate::id::{Post, WorkerId};
use crate::worker::DrainReason;

/// How many processes of a slot may be finishing old work at once. Another reload waits until one of them has drained,
/// which takes `drain_timeout` at most: under frequent deploys, long-lived connections must not pile up generations.
pub(super) const MOST_RETIRED: usize = 3;

/// A reload under way.
#[derive(Debug)]
pub(super) struct Reload {
    /// The slots whose turn is still to come.
    queue: VecDeque<usize>,
    /// The slots that a new generation has taken over.
    done: Vec<WorkerId>,
    /// The slot that has been said to wait for its former processes.
    crowded: Option<usize>,
    cause: Cause,
    /// What must be done before the first slot's turn is done.
    is_prepared: bool,
}

/// Why slots get a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The user has asked: from the program that is there now.
    Asked,
    /// This slot's worker has used up its quota: from the program that runs there.
    UsedUp(WorkerId),
}

impl State {
    /// Begins a reload, or remembers that one is wanted.
    pub(super) fn reload(&mut self, now: Instant, scope: Scope) {
        match self.phase {
            Phase::Running if self.may_begin() => self.begin_reload(now, scope),
            Phase::Booting | Phase::Running => {
                // Several that wait are one: it will find the program as it is then.
                self.next_reload = Some(self.next_reload.map_or(scope, |waiting| waiting.and(scope)));
                self.out.push(Action::Note(Note::ReloadWaits));
            }
            Phase::ShuttingDown { .. } | Phase::Stopping { .. } | Phase::Finished => {}
        }
    }

    fn begin_reload(&mut self, now: Instant, scope: Scope) {
        let queue: VecDeque<usize> = self.in_use().filter(|index| scope.includes(worker(*index))).collect();
        if queue.is_empty() {
            return;
        }
        self.asked_begins();
        self.out.push(Action::FindProgram);
        self.out.push(Action::Note(Note::Reloading { slots: self.fleet(queue.iter().map(|index| worker(*index))) }));
        let is_prepared = !self.begin_to_prepare(now, Program::New);
        self.reload = Some(Reload { queue, done: Vec::new(), crowded: None, cause: Cause::Asked, is_prepared });
    }

    /// Begins to replace one worker that has used up its quota.
    pub(super) fn begin_recycling(&mut self, index: usize) {
        let queue = VecDeque::from([index]);
        let cause = Cause::UsedUp(worker(index));
        self.reload = Some(Reload { queue, done: Vec::new(), crowded: None, cause, is_prepared: true });
    }

    /// How many slots of either kind these are.
    fn fleet(&self, slots: impl Iterator<Item = WorkerId>) -> Fleet {
        slots.fold(Fleet::default(), |fleet, slot| match self.post(slot) {
            Post::Worker(_) => Fleet { workers: fleet.workers + 1, ..fleet },
            Post::Proxy(_) => Fleet { proxies: fleet.proxies + 1, ..fleet },
            Post::Preparation | Post::Admin | Post::Trial => fleet,
        })
    }

    /// Takes the reload on as far as it can go now.
    pub(super) fn advance_reload(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        for index in 0..self.slots.len() {
            self.retire(now, index);
        }
        self.advance_scaling(now);
        self.begin_next(now);
        self.take_turns(now);
        if self.finish_reload() {
            self.begin_next(now);
            self.take_turns(now);
        }
    }

    /// Whether nothing else is under way that would be in a reload's way.
    pub(super) fn may_begin(&self) -> bool {
        self.reload.is_none() && self.preparer.is_none() && self.scaling.is_none() && !self.reexec.has_begun()
    }

    /// Whether anything has been asked for that waits for what is under way.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_anything_next() || self.reexec.is_wanted()
    }

    /// Whether a reload or scaling waits for what is under way.
    pub(super) fn is_anything_next(&self) -> bool {
        self.next_reload.is_some() || self.next_count.is_some()
    }

    /// What must be done before the first slot's turn is done.
    pub(super) fn reload_is_prepared(&mut self) {
        if let Some(reload) = &mut self.reload {
            reload.is_prepared = true;
        }
    }

    /// Begins what has been asked for, or else what is due.
    fn begin_next(&mut self, now: Instant) {
        if self.may_begin()
            && let Some(scope) = self.next_reload.take()
        {
            self.begin_reload(now, scope);
        }
        self.begin_next_scaling(now);
        if self.reload.is_none() {
            self.recycle(now);
        }
    }

    /// Starts the next generation in as many slots as may have one now.
    fn take_turns(&mut self, now: Instant) {
        while let Some(index) = self.next_turn() {
            if !self.has_room(index) {
                break;
            }
            if let Some(reload) = &mut self.reload {
                reload.queue.pop_front();
            }
            let program = match self.reload.as_ref().map(|reload| reload.cause) {
                Some(Cause::UsedUp(_)) => Program::Same,
                Some(Cause::Asked) | None => Program::New,
            };
            self.slots[index].next = Some(self.start(now, index, program));
        }
    }

    /// The slot whose turn it is, if as many as may be are not under way already.
    fn next_turn(&self) -> Option<usize> {
        let under_way = (0..self.slots.len()).filter(|index| self.is_being_replaced(*index)).count();
        let has_room = under_way < usize::from(self.policy.reload_parallel);
        self.reload.as_ref().filter(|reload| has_room && reload.is_prepared)?.queue.front().copied()
    }

    fn is_being_replaced(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        // Nobody takes the place of one that was only told to drain.
        slot.next.is_some() || (slot.current.is_some() && self.superseded(index).is_some())
    }

    /// The process that another has been started for, while it can still take back its slot.
    pub(super) fn superseded(&self, index: usize) -> Option<ChildId> {
        self.former(index).find(|id| self.children[id].stage == Stage::Superseded)
    }

    /// The slot's processes that others have followed, the oldest first.
    pub(super) fn former(&self, index: usize) -> impl Iterator<Item = ChildId> {
        let slot = &self.slots[index];
        let of_slot = self.children.iter().filter(move |(_, child)| child.slot.index() == index);
        let former = of_slot.filter(|(id, _)| slot.current != Some(**id) && slot.next != Some(**id));
        former.map(|(id, _)| *id)
    }

    /// Whether the slot has room for one more process. Where it has not, that is said once.
    fn has_room(&mut self, index: usize) -> bool {
        if !self.is_crowded(index) {
            return true;
        }
        if let Some(reload) = &mut self.reload
            && reload.crowded.replace(index) != Some(index)
        {
            self.out.push(Action::Note(Note::ReloadCrowded { who: self.post(worker(index)), former: MOST_RETIRED }));
        }
        false
    }

    /// Whether as many former processes as may be are in this slot.
    pub(super) fn is_crowded(&self, index: usize) -> bool {
        self.former(index).count() >= MOST_RETIRED
    }

    /// A new generation can serve: it has to live for a while before it is trusted with the slot.
    pub(super) fn soak(&mut self, now: Instant, id: ChildId) {
        let until = now + self.policy.reload_soak;
        self.with(id, |child| child.stage = Stage::Soaking { until });
    }

    /// Passes the slot on to its next generation. From here on the old one is asked for the slot's sockets, as anybody is
    /// who should not read them.
    pub(super) fn promote(&mut self, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        child.stage = Stage::Ready;
        let at = child.slot;
        let slot = &mut self.slots[at.index()];
        slot.next = None;
        (slot.respawn_at, slot.drained) = (None, false);
        (slot.recycle_at, slot.recycle_backoff) = Default::default();
        let old = slot.current.replace(id);
        self.out.push(Action::Keep { child: id });
        if let Some(reload) = &mut self.reload {
            reload.done.push(at);
        }
        self.asked_proceeds(at);
        if let Some(old) = old {
            self.supersede(old);
        }
        self.up(at);
    }

    fn supersede(&mut self, old: ChildId) {
        let Some(child) = self.children.get_mut(&old) else { return };
        match child.stage {
            Stage::Ready => child.stage = Stage::Superseded,
            // It was started after a crash, and the new one was faster.
            Stage::Booting { .. } => self.kill(old),
            _ => {}
        }
    }

    /// Has the slot's old process drain once the new one reads all of its sockets, or whoever does where the slot is taken out.
    fn retire(&mut self, now: Instant, index: usize) {
        let Some(old) = self.superseded(index) else { return };
        let (is_moved, reason) = match self.slots[index].current {
            Some(current) => (self.reads_all(index, current), DrainReason::Replaced),
            None if self.is_spare(index) => (self.has_let_go(index, old), DrainReason::ScaledIn),
            None => (self.is_left_to_others(index, old), DrainReason::Replaced),
        };
        // Who listens by itself has its proxies on the new port by now.
        if !is_moved {
            return;
        }
        let timeout = self.policy.drain_timeout;
        self.with(old, |child| child.stage = Stage::Retired { until: now + timeout + CUT_TIME });
        self.out.push(Action::Drain { child: old, timeout, reason });
    }

    /// Whether this process reads all that the slot has.
    pub(super) fn reads_all(&self, index: usize, id: ChildId) -> bool {
        let reads = |part: Part| self.slots[index].readers[part.index()].is_held_by(id);
        Part::ALL.into_iter().all(|part| !self.has(index, part) || reads(part))
    }

    /// The process that has taken over has ended before the old one was told to drain: the old one goes on.
    pub(super) fn take_back(&mut self, now: Instant, index: usize, what: &BootFailureKind) -> bool {
        let Some(old) = self.superseded(index) else { return false };
        self.with(old, |child| child.stage = Stage::Ready);
        let slot = &mut self.slots[index];
        slot.current = Some(old);
        if self.children[&old].stopped {
            slot.down_since.get_or_insert(now);
        }
        self.out.push(Action::Keep { child: old });
        let at = worker(index);
        if let Some(reload) = &mut self.reload {
            reload.done.retain(|done| *done != at);
        }
        self.stop_reload(now, format!("the new {} {} as it took over", self.post(at), what.verb()));
        true
    }

    /// The next generation of a slot has failed: the reload is over, and what has not been replaced stays.
    pub(super) fn stop_reload(&mut self, now: Instant, why: String) {
        let Some(Reload { done, cause, .. }) = self.reload.take() else { return };
        let others: Vec<ChildId> = self.slots.iter().filter_map(|slot| slot.next).collect();
        for id in others {
            self.throw_away(id);
        }
        if let Cause::UsedUp(slot) = cause {
            return self.recycle_later(now, slot, why);
        }
        let done = done.into_iter().map(|slot| self.post(slot)).collect();
        let note = Note::ReloadStopped { why, done };
        self.asked_has_failed(&note);
        self.out.push(Action::Note(note));
    }

    /// The next generation of a slot is of no use: why, and what it said.
    pub(super) fn refuse_next(&mut self, now: Instant, child: &Child, what: &BootFailureKind) {
        let why = match child.stage {
            Stage::Soaking { .. } => format!("the new {} {} within reload_soak", self.post(child.slot), what.verb()),
            Stage::Poised => format!("the new {} {}", self.post(child.slot), what.verb()),
            _ => {
                let failure =
                    BootFailure { who: self.post(child.slot), what: what.clone(), words: child.words.clone() };
                format!("the new {}", failure.on_one_line())
            }
        };
        if self.scaling.is_some() {
            return self.stop_scaling(why);
        }
        self.stop_reload(now, why);
    }

    /// Ends a process that has not served.
    pub(super) fn throw_away(&mut self, id: ChildId) {
        if self.children.get(&id).is_some_and(|child| child.stage != Stage::Killed) {
            self.kill(id);
        }
    }

    /// The next generation of a slot has ended, or never came to be.
    pub(super) fn next_gone(&mut self, now: Instant, child: &Child, what: &BootFailureKind) {
        self.slots[child.slot.index()].next = None;
        // Killed, it has been reported.
        if child.stage != Stage::Killed {
            self.refuse_next(now, child, what);
        }
    }

    /// A process that another has followed has ended.
    pub(super) fn former_gone(&mut self, child: &Child, what: &BootFailureKind) {
        if let (Stage::Superseded | Stage::Parting { .. } | Stage::Retired { .. }, BootFailureKind::Ended(how)) =
            (child.stage, what)
        {
            self.out.push(Action::Note(Note::FormerLost { who: self.post(child.slot), how: *how }));
        }
    }

    /// Ends the reload if nothing of it is left to do; tells whether that is so.
    fn finish_reload(&mut self) -> bool {
        let is_over = |reload: &mut Reload| reload.queue.is_empty();
        if self.is_replacing() {
            return false;
        }
        let Some(Reload { done, cause, .. }) = self.reload.take_if(is_over) else { return false };
        let note = match cause {
            Cause::Asked => Note::Reloaded { slots: self.fleet(done.into_iter()) },
            Cause::UsedUp(slot) => Note::Recycled { who: self.post(slot) },
        };
        self.asked_is_done(&note);
        self.out.push(Action::Note(note));
        true
    }

    /// How many slots of the reload under way are done, and of how many.
    pub(super) fn reload_progress(&self) -> Option<(usize, usize)> {
        let reload = self.reload.as_ref()?;
        let under_way = self.slots.iter().filter(|slot| slot.next.is_some()).count();
        Some((reload.done.len(), reload.done.len() + under_way + reload.queue.len()))
    }

    /// Whether any slot gets another process just now.
    pub(super) fn is_replacing(&self) -> bool {
        (0..self.slots.len()).any(|index| self.is_being_replaced(index))
    }

    /// Everything ends: nothing is replaced any more.
    pub(super) fn forget_reload(&mut self) {
        self.next_reload = None;
        if let Some(Reload { done, cause: Cause::Asked, .. }) = self.reload.take() {
            let done = done.into_iter().map(|slot| self.post(slot)).collect();
            self.out.push(Action::Note(Note::ReloadGivenUp { done }));
        }
    }
}
