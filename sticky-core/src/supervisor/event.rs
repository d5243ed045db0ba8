//! Everything that can happen to a cluster, and everything its supervisor can do about it.

use std::fmt;
use std::time::Duration;

use crate::control::{Part, WorkerReport};
use crate::id::{Generation, WorkerId};

/// One process the supervisor has started. Never used again, unlike a process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChildId(pub(crate) u64);

/// What the supervisor's loop is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The first: start the first generation.
    Start,
    /// Time has passed.
    Tick,
    /// The program could not be started.
    SpawnFailed { child: ChildId, error: String },
    /// The application in it can serve.
    Ready { child: ChildId, adopts: bool },
    /// It reads this slot's sockets no more.
    Released { child: ChildId, slot: WorkerId, part: Part },
    /// It does not read this slot's sockets, although they were lent to it.
    Dropped { child: ChildId, slot: WorkerId, part: Part },
    /// It wants to take part in the bus.
    BusJoin { child: ChildId },
    /// Its drain is over.
    Drained { child: ChildId, report: WorkerReport },
    /// It says why it is about to fail.
    Words { child: ChildId, text: String },
    /// It is suspended (SIGSTOP).
    Stopped { child: ChildId },
    /// It goes on (SIGCONT).
    Continued { child: ChildId },
    /// Its event loop has not turned for the heartbeat timeout.
    Silent { child: ChildId },
    /// It is gone.
    Exited { child: ChildId, how: Ended },
    /// The user asks everything to end.
    Terminate,
}

/// What the supervisor's loop must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a process.
    Spawn { child: ChildId, slot: WorkerId, generation: Generation, seat: usize },
    /// Lend it this slot's sockets.
    Listen { child: ChildId, slot: WorkerId, part: Part, refuse: bool },
    /// Ask it for them back.
    Release { child: ChildId, slot: WorkerId, part: Part },
    /// Tell it to finish within this time.
    Drain { child: ChildId, timeout: Duration },
    /// Connect these two by the bus.
    Connect { child: ChildId, other: ChildId },
    /// Tell it that it is connected with everybody.
    BusJoined { child: ChildId },
    /// Signal it, unless it is gone.
    Signal { child: ChildId, signal: ChildSignal },
    /// Have the kernel place connections on all slots but these.
    Evict { slots: Vec<WorkerId> },
    /// Take away the files of unix sockets: nobody shall begin anything there.
    Unpublish,
    /// Close the listeners.
    CloseListeners,
    /// Tell the user.
    Note(Note),
    /// Everything is over.
    Finish(Outcome),
}

/// How a process is made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildSignal {
    /// SIGTERM: ends a process that has not reached sticky yet; no more than a hint to one that has.
    Terminate,
    /// SIGABRT: with a core dump, where those are kept.
    Abort,
    /// SIGKILL.
    Kill,
    /// SIGCONT.
    Continue,
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
    /// Somebody else took its exit status.
    Unknown,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}{}", signal_name(*signal)),
            Self::Unknown => f.write_str("ended"),
        }
    }
}

/// The names of the signals that end processes by accident or on purpose (signal(7)).
fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

/// What the user is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// Every slot of the first generation is ready.
    Up,
    Restarting {
        worker: WorkerId,
        why: String,
        after: Duration,
    },
    Hung {
        worker: WorkerId,
    },
    Evicted {
        worker: WorkerId,
    },
    Back {
        worker: WorkerId,
    },
    BootTimeout {
        worker: WorkerId,
        after: Duration,
    },
    ShuttingDown {
        within: Duration,
    },
    StoppingNow,
    Overdue {
        worker: WorkerId,
    },
    Unkillable {
        worker: WorkerId,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("all workers are ready"),
            Self::Restarting { worker, why, after } if after.is_zero() => {
                write!(f, "worker {worker} {why}; starting it again")
            }
            Self::Restarting { worker, why, after } => {
                write!(f, "worker {worker} {why}; starting it again in {} ms", after.as_millis())
            }
            Self::Hung { worker } => write!(f, "worker {worker} hangs: its event loop has stopped turning; killing it"),
            Self::Evicted { worker } => write!(f, "worker {worker} is not running: its clients go to the next one"),
            Self::Back { worker } => write!(f, "worker {worker} is back"),
            Self::BootTimeout { worker, after } => {
                write!(f, "worker {worker} was not ready within {after:?}; killing it")
            }
            Self::ShuttingDown { within } => write!(f, "shutting down within {within:?}"),
            Self::StoppingNow => f.write_str("stopping at once"),
            Self::Unkillable { worker } => write!(f, "worker {worker} does not end although it was killed; leaving it"),
            Self::Overdue { worker } => write!(f, "worker {worker} did not end in time; killing it"),
        }
    }
}

/// How the cluster has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As asked.
    Clean(Report),
    /// By a second signal, without waiting.
    Forced,
    /// The first generation did not come up.
    Failed(BootFailure),
}

/// What a shutdown completed and what it cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// What became of connections.
    pub(crate) connections: WorkerReport,
    /// Workers that had to be killed, with whatever they were doing.
    pub(crate) killed: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, killed } = self;
        write!(f, "shut down: {connections}")?;
        match killed {
            0 => Ok(()),
            1 => f.write_str(", 1 worker killed"),
            _ => write!(f, ", {killed} workers killed"),
        }
    }
}

/// Why the first generation did not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootFailure {
    pub(crate) worker: WorkerId,
    pub(crate) what: BootFailureKind,
    /// What the worker said last, if it said anything.
    pub(crate) words: Option<String>,
}

/// See [`BootFailure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BootFailureKind {
    Spawn(String),
    Ended(Ended),
    Timeout(Duration),
}

impl fmt::Display for BootFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worker = self.worker;
        match &self.what {
            BootFailureKind::Spawn(error) => write!(f, "worker {worker} could not be started: {error}")?,
            BootFailureKind::Ended(how) => write!(f, "worker {worker} {how} before it was ready")?,
            BootFailureKind::Timeout(after) => write!(
                f,
                "worker {worker} was not ready within {after:?} (boot_timeout, STICKY_BOOT_TIMEOUT): \
                 does the program reach sticky in every process?"
            )?,
        }
        match &self.words {
            Some(words) => write!(f, ": {words}"),
            None => Ok(()),
        }
    }
}
