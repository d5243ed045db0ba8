//! Recycling: a worker that has used up its quota is replaced as in a reload, from the program that runs in its slot.
//!
//! Never two at a time, and none while a reload is under way or waits. If the next generation fails, the old one goes on,
//! and another is tried after a while.

use std::time::{Duration, Instant};

use super::super::event::{Action, ChildId, Note};
use super::super::recycle::{Quota, Reached, Usage};
use super::reload::MOST_RETIRED;
use super::{Child, Phase, Stage, State, worker};
use crate::id::WorkerId;

impl State {
    /// Whether somebody must look up what workers use.
    pub(crate) fn is_recycled_by_usage(&self) -> bool {
        self.policy.quota.is_by_usage()
    }

    /// What a process may use that is started now. Proxies may use anything.
    pub(super) fn quota_for(&mut self, slot: WorkerId) -> Quota {
        if self.policy.quota.is_unlimited() || slot.get() >= self.policy.room {
            return Quota::default();
        }
        let chance = self.draw();
        self.policy.quota.share(chance)
    }

    /// Notes who has used up what.
    pub(super) fn used(&mut self, usage: &[(ChildId, Usage)]) {
        for (id, usage) in usage {
            self.with(*id, |child| child.reached = child.reached.or_else(|| child.quota.reached(*usage)));
        }
    }

    /// When the worker in this slot is to be replaced, if nothing happens first that says otherwise.
    pub(super) fn recycling_due(&self, index: usize) -> Option<Instant> {
        let is_possible = self.may_recycle() && !self.is_crowded(index);
        self.used_up_at(index).filter(|_| is_possible)
    }

    fn may_recycle(&self) -> bool {
        self.phase == Phase::Running && self.may_begin() && !self.is_awaited() && !self.is_replacing()
    }

    /// When the quota of the worker in this slot is used up, or when it is tried again to replace it.
    fn used_up_at(&self, index: usize) -> Option<Instant> {
        let slot = &self.slots[index];
        let child = self.children.get(&slot.current?)?;
        let is_up = child.stage == Stage::Ready && !child.stopped;
        child.used_up_at().filter(|_| is_up).map(|at| slot.recycle_at.map_or(at, |later| later.max(at)))
    }

    /// Begins to replace a worker that has used up its quota, if there is one and nothing else is under way.
    pub(super) fn recycle(&mut self, now: Instant) {
        if !self.may_recycle() {
            return;
        }
        for index in 0..usize::from(self.count) {
            let is_due = self.used_up_at(index).is_some_and(|at| at <= now);
            let Some(id) = self.slots[index].current.filter(|_| is_due) else { continue };
            if self.is_crowded(index) {
                self.say_it_waits(now, id);
            } else {
                let (who, reached) = (self.post(worker(index)), self.children[&id].reached_by(now));
                self.out.push(Action::Note(Note::Recycling { who, reached }));
                return self.begin_recycling(index);
            }
        }
    }

    fn say_it_waits(&mut self, now: Instant, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if !std::mem::replace(&mut child.is_known_to_wait, true) {
            let (slot, reached) = (child.slot, child.reached_by(now));
            let note = Note::RecyclingCrowded { who: self.post(slot), reached, former: MOST_RETIRED };
            self.out.push(Action::Note(note));
        }
    }

    /// The next generation of this slot has failed: the old one goes on, and it is tried again.
    pub(super) fn recycle_later(&mut self, now: Instant, at: WorkerId, why: String) {
        let chance = self.draw();
        let slot = &mut self.slots[at.index()];
        let after = slot.recycle_backoff.after(Duration::ZERO, false, chance);
        slot.recycle_at = Some(now + after);
        self.out.push(Action::Note(Note::RecyclingFailed { who: self.post(at), why, after }));
    }
}

impl Child {
    fn used_up_at(&self) -> Option<Instant> {
        let by_age = self.quota.age.map(|age| self.born + age);
        self.reached.map_or(by_age, |_| Some(self.born))
    }

    /// What it has used up, which it has.
    fn reached_by(&self, now: Instant) -> Reached {
        self.reached.unwrap_or_else(|| Reached::Age(now.duration_since(self.born)))
    }
}
