//! What the supervisor tells the admin process: all that there is at first, then what has changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::status::{ClusterState, ProcessState, ReloadStatus, SlotKind, SlotState};
use crate::id::{Generation, WorkerId};
use crate::scoreboard::Totals;

/// How many entries one message has: it must not be too large for the control socket.
const MOST: usize = 32;

/// What the supervisor knows and shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) cluster: ClusterView,
    pub(crate) slots: BTreeMap<WorkerId, SlotView>,
    /// By a number that no other process ever has.
    pub(crate) processes: BTreeMap<u64, ProcessView>,
}

/// What is true of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterView {
    /// Of sticky in the supervisor.
    #[serde(default)]
    pub(crate) version: String,
    /// How often the supervisor has replaced itself.
    #[serde(default)]
    pub(crate) reexecs: u64,
    pub(crate) state: ClusterState,
    pub(crate) reload: Option<ReloadStatus>,
    pub(crate) leader: Option<WorkerId>,
}

/// A slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotView {
    pub(crate) kind: SlotKind,
    pub(crate) number: u16,
    pub(crate) state: SlotState,
    pub(crate) is_evicted: bool,
    pub(crate) restarts: u64,
    /// What processes have done that have ended.
    pub(crate) ended: Totals,
}

/// A process in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessView {
    pub(crate) slot: WorkerId,
    pub(crate) generation: Generation,
    /// The row of the scoreboard that it writes.
    pub(crate) seat: usize,
    pub(crate) pid: u32,
    pub(crate) state: ProcessState,
    /// Whether the slot is its.
    pub(crate) is_current: bool,
    /// In milliseconds since 1970.
    pub(crate) started_ms: u64,
}

/// What has changed. Each entry takes the place of the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct News {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<ClusterView>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gone: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) processes: Vec<(u64, ProcessView)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) slots: Vec<(WorkerId, SlotView)>,
    /// Slots that there are no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) closed: Vec<WorkerId>,
}

impl View {
    /// What makes `now` of this. A process's end comes before what it has done is among its slot's: counted twice, a
    /// number would rise and fall again.
    pub(crate) fn changes_to(&self, now: &Self) -> Vec<News> {
        let mut all = Vec::new();
        let gone: Vec<u64> = self.processes.keys().filter(|id| !now.processes.contains_key(id)).copied().collect();
        let closed: Vec<WorkerId> = self.slots.keys().filter(|slot| !now.slots.contains_key(slot)).copied().collect();
        let cluster = (self.cluster != now.cluster).then(|| now.cluster.clone());
        if cluster.is_some() || !gone.is_empty() || !closed.is_empty() {
            all.push(News { cluster, gone, closed, ..News::default() });
        }
        for processes in changed(&self.processes, &now.processes).chunks(MOST) {
            all.push(News { processes: processes.to_vec(), ..News::default() });
        }
        for slots in changed(&self.slots, &now.slots).chunks(MOST) {
            all.push(News { slots: slots.to_vec(), ..News::default() });
        }
        all
    }

    /// Takes it in.
    pub(crate) fn learn(&mut self, news: News) {
        if let Some(cluster) = news.cluster {
            self.cluster = cluster;
        }
        self.processes.retain(|id, _| !news.gone.contains(id));
        self.slots.retain(|slot, _| !news.closed.contains(slot));
        self.processes.extend(news.processes);
        self.slots.extend(news.slots);
    }
}

fn changed<K: Ord + Copy, V: PartialEq + Copy>(before: &BTreeMap<K, V>, now: &BTreeMap<K, V>) -> Vec<(K, V)> {
    let is_new = |(key, value): &(&K, &V)| before.get(key) != Some(value);
    now.iter().filter(is_new).map(|(key, value)| (*key, *value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(restarts: u64) -> SlotView {
        let (kind, state, ended) = (SlotKind::Worker, SlotState::Ready, Totals::default());
        SlotView { kind, number: 0, state, is_evicted: false, restarts, ended }
    }

    fn process(pid: u32) -> ProcessView {
        let (slot, generation) = (WorkerId::new(0), Generation::FIRST);
        ProcessView { slot, generation, seat: 0, pid, state: ProcessState::Ready, is_current: true, started_ms: 0 }
    }

    fn view(slots: u16, processes: std::ops::Range<u64>) -> View {
        View {
            cluster: ClusterView {
                state: ClusterState::Running,
                leader: Some(WorkerId::new(1)),
                reexecs: 3,
                ..ClusterView::default()
            },
            slots: (0..slots).map(|number| (WorkerId::new(number), slot(number.into()))).collect(),
            processes: processes.map(|id| (id, process(u32::try_from(id).unwrap()))).collect(),
        }
    }

    #[test]
    fn what_has_changed_makes_one_of_the_other() {
        let views = [View::default(), view(2, 0..2), view(300, 1..700), view(1, 699..700), View::default()];
        let mut told = View::default();
        for now in views {
            let changes = told.changes_to(&now);
            for news in changes {
                let text = serde_json::to_string(&news).unwrap();
                assert!(text.len() < 48 * 1024, "{}", text.len());
                told.learn(serde_json::from_str(&text).unwrap());
            }
            assert_eq!(told, now);
            assert_eq!(told.changes_to(&now), []);
        }
    }

    #[test]
    fn an_end_comes_before_what_was_done() {
        let before = view(1, 0..1);
        let mut after = view(1, 1..2);
        after.slots.insert(WorkerId::new(0), slot(9));
        let changes = before.changes_to(&after);
        let order: Vec<_> =
            changes.iter().map(|news| (news.gone.len(), news.processes.len(), news.slots.len())).collect();
        assert_eq!(order, [(1, 0, 0), (0, 1, 0), (0, 0, 1)]);
    }
}
