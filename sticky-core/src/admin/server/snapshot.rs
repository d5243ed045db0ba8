//! Everything that is shown, as it is at one moment.

use rustix::process::Pid;

use crate::admin::{
    ClusterView, ProcessState, ProcessStatus, ProcessView, SlotKind, SlotState, SlotStatus, SlotView, View,
};
use crate::id::WorkerId;
use crate::scoreboard::{Row, Totals};
use crate::supervisor::resident;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) cluster: ClusterView,
    /// In order.
    pub(super) slots: Vec<SlotSnapshot>,
}

/// A slot and what all of its processes have done.
#[derive(Clone, Debug)]
pub(super) struct SlotSnapshot {
    pub(super) id: WorkerId,
    pub(super) view: SlotView,
    pub(super) totals: Totals,
    /// Whose slot it is comes first.
    pub(super) processes: Vec<ProcessSnapshot>,
}

/// A process.
#[derive(Clone, Debug)]
pub(super) struct ProcessSnapshot {
    id: u64,
    view: ProcessView,
    totals: Totals,
    loop_lag_us: u64,
    memory: u64,
}

impl Snapshot {
    /// Reads the rows of all processes, and looks up what memory they use.
    pub(super) fn take(view: View, row: impl Fn(usize) -> Option<Row>, memory: impl Fn(u32) -> u64) -> Self {
        let View { cluster, slots, processes } = view;
        let processes: Vec<_> = processes
            .into_iter()
            .map(|(id, view)| ProcessSnapshot::new(id, view, row(view.seat), memory(view.pid)))
            .collect();
        let slots = slots.into_iter().map(|(id, view)| {
            let mut own: Vec<_> = processes.iter().filter(|process| process.view.slot == id).cloned().collect();
            own.sort_by_key(|process| (!process.view.is_current, process.view.generation));
            let mut totals = view.ended;
            own.iter().for_each(|process| totals += process.totals);
            SlotSnapshot { id, view, totals, processes: own }
        });
        Self { cluster, slots: slots.collect() }
    }

    /// The workers' names, and the processes that serve in their slots.
    pub(super) fn workers(&self) -> Vec<(String, u64)> {
        let workers = self.slots.iter().filter(|slot| slot.view.kind == SlotKind::Worker);
        workers.filter_map(|slot| Some((slot.view.number.to_string(), slot.current()?))).collect()
    }

    /// Whether clients are served.
    pub(super) fn is_serving(&self) -> bool {
        let mut workers = self.slots.iter().filter(|slot| slot.view.kind == SlotKind::Worker);
        workers.any(|slot| slot.view.state == SlotState::Ready)
    }
}

impl ProcessSnapshot {
    fn new(id: u64, view: ProcessView, row: Option<Row>, memory: u64) -> Self {
        Self {
            id,
            view,
            totals: row.as_ref().map(Row::totals).unwrap_or_default(),
            loop_lag_us: row.as_ref().map(Row::loop_lag_us).unwrap_or_default(),
            memory,
        }
    }

    pub(super) fn status(&self, now_ms: u64) -> ProcessStatus {
        let Self { view, totals, memory, .. } = self;
        ProcessStatus {
            pid: view.pid,
            generation: view.generation,
            state: view.state,
            uptime_seconds: seconds(now_ms.saturating_sub(view.started_ms)),
            connections: totals.connections_open,
            upgraded: totals.upgraded_open,
            requests: totals.requests,
            memory_bytes: *memory,
            loop_lag_seconds: self.loop_lag_us as f64 / 1e6,
        }
    }
}

impl SlotSnapshot {
    pub(super) fn status(&self, now_ms: u64) -> SlotStatus {
        let Self { view, totals, .. } = self;
        SlotStatus {
            kind: view.kind,
            number: view.number,
            state: view.state,
            is_evicted: view.is_evicted,
            restarts: view.restarts,
            accepted: totals.accepted,
            requests: totals.requests,
            processes: self.processes.iter().map(|process| process.status(now_ms)).collect(),
        }
    }

    /// Which start of the slot serves, or was the last that did.
    pub(super) fn generation(&self) -> Option<u32> {
        self.processes.first().map(|process| process.view.generation.get())
    }

    /// The process that serves, by its number.
    pub(super) fn current(&self) -> Option<u64> {
        self.processes.first().filter(|process| process.view.is_current).map(|process| process.id)
    }

    /// What all of its processes use, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.processes.iter().map(|process| process.memory).sum()
    }

    /// How late the event loop is that is latest, in seconds.
    pub(super) fn loop_lag(&self) -> f64 {
        let lags = self.processes.iter().filter(|process| process.view.state == ProcessState::Ready);
        lags.map(|process| process.loop_lag_us as f64 / 1e6).fold(0.0, f64::max)
    }
}

/// What memory a process uses, in bytes.
pub(super) fn memory(pid: u32, with_children: bool) -> u64 {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.map_or(0, |pid| resident::memory(pid, with_children).0)
}

pub(super) fn seconds(millis: u64) -> f64 {
    millis as f64 / 1e3
}
