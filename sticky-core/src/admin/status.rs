//! How a cluster is, as `GET /status` says it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Generation, WorkerId};

/// How a cluster is. Numbers are read from memory that all processes write, one after the other: two of them need not be of
/// the same moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The version of sticky in the supervisor.
    pub version: String,
    /// The supervisor's process id.
    pub pid: u32,
    /// For how long the supervisor has run, in seconds.
    pub uptime_seconds: f64,
    /// How often the supervisor has replaced itself meanwhile.
    #[serde(default)]
    pub reexecs: u64,
    /// What the cluster as a whole is doing.
    pub state: ClusterState,
    /// The reload that is under way.
    pub reload: Option<ReloadStatus>,
    /// How connections reach their worker: `kernel`, `handoff` or `proxy`.
    pub dispatch: String,
    /// What of a client decides which worker serves it, as the setting says it.
    pub affinity: String,
    /// The worker that leads, if one does.
    pub leader: Option<WorkerId>,
    /// The slots, the workers' first.
    pub slots: Vec<SlotStatus>,
}

/// What a cluster as a whole is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClusterState {
    /// The first generation is not ready; nothing is accepted.
    #[default]
    Starting,
    /// It serves.
    Running,
    /// It finishes what it executes, and ends.
    ShuttingDown,
    /// It ends at once.
    Stopping,
}

/// How far a reload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReloadStatus {
    /// How many slots have their new process.
    pub done: usize,
    /// How many will have had one at its end.
    pub of: usize,
}

/// What a slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SlotKind {
    /// It runs the application.
    Worker,
    /// It forwards requests to workers.
    Proxy,
}

/// What a slot is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SlotState {
    /// Its process is on its way, for the first time or again.
    #[default]
    Starting,
    /// It serves.
    Ready,
    /// Its process is suspended (SIGSTOP).
    Suspended,
    /// Its process has ended too soon and is started again after a while.
    BackingOff,
    /// It was told to drain, and nothing is started in it.
    Drained,
    /// It finishes what it executes, in a shutdown.
    Draining,
    /// Nothing runs in it any more, in a shutdown.
    Ended,
}

/// How a slot is. Counts are those of all processes that have been in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SlotStatus {
    /// What it is for.
    pub kind: SlotKind,
    /// Its number among those of its kind, from 0.
    pub number: u16,
    /// What it is doing.
    pub state: SlotState,
    /// Its clients go to other workers meanwhile.
    pub is_evicted: bool,
    /// How often its process has ended and was started again. Reloads do not count.
    pub restarts: u64,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Requests begun so far.
    pub requests: u64,
    /// Its processes: the one that serves first, then others that finish old work or are to follow.
    pub processes: Vec<ProcessStatus>,
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProcessState {
    /// It is not ready yet.
    Starting,
    /// It is ready and has to live for a while before it gets a slot.
    Soaking,
    /// It serves.
    Ready,
    /// It is suspended (SIGSTOP).
    Suspended,
    /// It is about to pass its slot's sockets on.
    Superseded,
    /// It finishes what it executes.
    Draining,
    /// It has drained and is about to end.
    Leaving,
    /// It has been killed because it hung, could not be ready in time, or did not end in time.
    Killed,
}

/// How a process is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessStatus {
    /// Its process id.
    pub pid: u32,
    /// Which start of its slot it is.
    pub generation: Generation,
    /// What it is doing.
    pub state: ProcessState,
    /// For how long it has run, in seconds.
    pub uptime_seconds: f64,
    /// Connections that are open now.
    pub connections: u64,
    /// Those of them that were upgraded, as WebSockets are.
    pub upgraded: u64,
    /// Requests begun so far.
    pub requests: u64,
    /// What of its memory is in the machine's, in bytes.
    pub memory_bytes: u64,
    /// By how much its event loop was late when it last looked, in seconds.
    pub loop_lag_seconds: f64,
}

impl ClusterState {
    /// Every state, in the order in which a cluster goes through them.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Running, Self::ShuttingDown, Self::Stopping];
}

impl SlotState {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::Starting, Self::Ready, Self::Suspended, Self::BackingOff, Self::Drained, Self::Draining, Self::Ended];
}

impl fmt::Display for ClusterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::ShuttingDown => "shutting_down",
            Self::Stopping => "stopping",
        })
    }
}

impl fmt::Display for SlotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Worker => "worker",
            Self::Proxy => "proxy",
        })
    }
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Suspended => "suspended",
            Self::BackingOff => "backing_off",
            Self::Drained => "drained",
            Self::Draining => "draining",
            Self::Ended => "ended",
        })
    }
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Soaking => "soaking",
            Self::Ready => "ready",
            Self::Suspended => "suspended",
            Self::Superseded => "superseded",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Killed => "killed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words in JSON are those that are shown.
    #[test]
    fn states_have_one_name() {
        let quoted = |name: String| format!("\"{name}\"");
        for state in ClusterState::ALL {
            assert_eq!(serde_json::to_string(&state).unwrap(), quoted(state.to_string()));
        }
        for state in SlotState::ALL {
            assert_eq!(serde_json::to_string(&state).unwrap(), quoted(state.to_string()));
        }
        for kind in [SlotKind::Worker, SlotKind::Proxy] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), quoted(kind.to_string()));
        }
        let processes = [
            ProcessState::Starting,
            ProcessState::Soaking,
            ProcessState::Ready,
            ProcessState::Suspended,
            ProcessState::Superseded,
            ProcessState::Draining,
            ProcessState::Leaving,
            ProcessState::Killed,
        ];
        for state in processes {
            assert_eq!(serde_json::to_string(&state).unwrap(), quoted(state.to_string()));
        }
    }
}
