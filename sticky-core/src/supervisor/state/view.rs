//! What is shown of the cluster.

use super::super::event::ChildId;
use super::leadership::Leader;
use super::{Child, Phase, Stage, State, worker};
use crate::admin::{ClusterState, ClusterView, ProcessState, ReloadStatus, SlotKind, SlotState};
use crate::id::{Post, WorkerId};

/// A slot as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotSight {
    pub(crate) slot: WorkerId,
    pub(crate) kind: SlotKind,
    pub(crate) number: u16,
    pub(crate) state: SlotState,
    pub(crate) is_evicted: bool,
}

/// A process as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessSight {
    pub(crate) child: ChildId,
    pub(crate) state: ProcessState,
    pub(crate) is_current: bool,
}

impl State {
    /// What is shown of all.
    pub(crate) fn cluster_view(&self) -> ClusterView {
        let state = match self.phase {
            Phase::Booting => ClusterState::Starting,
            Phase::Running => ClusterState::Running,
            Phase::ShuttingDown { .. } => ClusterState::ShuttingDown,
            Phase::Stopping { .. } | Phase::Finished => ClusterState::Stopping,
        };
        let reload = self.reload_progress().map(|(done, of)| ReloadStatus { done, of });
        let leader = match self.leader {
            Leader::Child(id) | Leader::Resigning(id) => self.children.get(&id).map(|child| child.slot),
            Leader::Nobody => None,
        };
        ClusterView { state, reload, leader, ..ClusterView::default() }
    }

    /// What is shown of the slots.
    pub(crate) fn slot_sights(&self) -> impl Iterator<Item = SlotSight> {
        self.in_use().map(|index| {
            let slot = &self.slots[index];
            let (kind, number) = match self.post(worker(index)) {
                Post::Proxy(number) => (SlotKind::Proxy, number),
                _ => (SlotKind::Worker, worker(index).get()),
            };
            SlotSight { slot: worker(index), kind, number, state: self.slot_state(index), is_evicted: slot.evicted }
        })
    }

    /// What is shown of the processes in slots.
    pub(crate) fn process_sights(&self) -> impl Iterator<Item = ProcessSight> {
        self.children.iter().map(|(&id, child)| {
            let is_current = self.slots[child.slot.index()].current == Some(id);
            ProcessSight { child: id, state: child.shown(), is_current }
        })
    }

    fn slot_state(&self, index: usize) -> SlotState {
        let child = self.slots[index].current.and_then(|id| self.children.get(&id));
        match (child, &self.phase) {
            (Some(child), _) if child.stopped => SlotState::Suspended,
            (Some(child), Phase::Booting | Phase::Running) if child.stage == Stage::Ready => SlotState::Ready,
            (Some(_), Phase::Booting | Phase::Running) => SlotState::Starting,
            (None, Phase::Booting | Phase::Running) if self.slots[index].respawn_at.is_some() => SlotState::BackingOff,
            (None, Phase::Running) if self.slots[index].drained => SlotState::Drained,
            (None, Phase::Booting | Phase::Running) => SlotState::Starting,
            (Some(_), _) => SlotState::Draining,
            (None, _) => SlotState::Ended,
        }
    }
}

impl Child {
    fn shown(&self) -> ProcessState {
        match self.stage {
            Stage::Aborting { .. } | Stage::Killed => ProcessState::Killed,
            _ if self.stopped => ProcessState::Suspended,
            Stage::Booting { .. } => ProcessState::Starting,
            Stage::Soaking { .. } | Stage::Poised => ProcessState::Soaking,
            Stage::Ready => ProcessState::Ready,
            Stage::Superseded => ProcessState::Superseded,
            Stage::Parting { .. } | Stage::Retired { .. } | Stage::Draining => ProcessState::Draining,
            Stage::Leaving { .. } => ProcessState::Leaving,
        }
    }
}
