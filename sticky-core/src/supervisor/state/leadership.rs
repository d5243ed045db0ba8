//! Which worker leads: one that is ready, and no other before that one has resigned or is dead.

use super::super::event::{Action, ChildId};
use super::{Phase, Stage, State};

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Leader {
    #[default]
    Nobody,
    Child(ChildId),
    /// It has been told to let go, and has not said that it has. Nobody can do that in its place: it is waited for as long as
    /// it lives.
    Resigning(ChildId),
}

impl State {
    /// A process wants to lead when it is its turn.
    pub(super) fn stand_for_leader(&mut self, id: ChildId) {
        self.with(id, |child| child.is_candidate = true);
    }

    /// A process leads no more.
    pub(super) fn resigned(&mut self, id: ChildId) {
        if self.leader == Leader::Resigning(id) {
            self.leader = Leader::Nobody;
        }
    }

    /// A process is dead, and whatever it was do for all with it.
    pub(super) fn bury_leader(&mut self, id: ChildId) {
        if matches!(self.leader, Leader::Child(leader) | Leader::Resigning(leader) if leader == id) {
            self.leader = Leader::Nobody;
        }
    }

    /// One step towards who should lead.
    pub(super) fn settle_leader(&mut self) {
        match self.leader {
            Leader::Child(id) if !self.may_lead(id) => {
                self.leader = Leader::Resigning(id);
                self.out.push(Action::Revoke { child: id });
            }
            Leader::Nobody => {
                let currents = self.slots.iter().filter_map(|slot| slot.current);
                let Some(id) = currents.into_iter().find(|id| self.can_begin_to_lead(*id)) else { return };
                self.leader = Leader::Child(id);
                self.out.push(Action::Grant { child: id });
            }
            Leader::Child(_) | Leader::Resigning(_) => {}
        }
    }

    /// Whether a process can go on leading. One that is stopped does, for it cannot say that it does not.
    fn may_lead(&self, id: ChildId) -> bool {
        let is_ready = |id: ChildId| self.children.get(&id).is_some_and(|child| child.stage == Stage::Ready);
        self.phase == Phase::Running && is_ready(id)
    }

    fn can_begin_to_lead(&self, id: ChildId) -> bool {
        let child = self.children.get(&id);
        self.may_lead(id) && child.is_some_and(|child| child.is_candidate && !child.stopped)
    }
}
