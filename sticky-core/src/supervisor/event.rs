//! Everything that can happen to a cluster, and everything its supervisor can do about it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::recycle::{Reached, Usage};
use crate::admin::{Command, Progress};
use crate::control::{Part, Port, WorkerReport};
use crate::id::{Generation, Post, WorkerId};
use crate::worker::DrainReason;

/// One process the supervisor has started. Never used again, unlike a process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ChildId(pub(crate) u64);

/// Something that was asked from outside. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Ticket(pub(crate) u64);

/// What the supervisor's loop is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The first: start the first generation.
    Start,
    /// Time has passed.
    Tick,
    /// The program could not be started.
    SpawnFailed { child: ChildId, error: String },
    /// The application in it listens by itself.
    Listens { child: ChildId, port: u16 },
    /// The application in it can serve.
    Ready { child: ChildId, adopts: bool },
    /// It reads this slot's sockets no more.
    Released { child: ChildId, slot: WorkerId, part: Part },
    /// It does not read this slot's sockets, although they were lent to it.
    Dropped { child: ChildId, slot: WorkerId, part: Part },
    /// It wants to take part in the bus.
    BusJoin { child: ChildId },
    /// It wants to lead when it is its turn.
    Candidate { child: ChildId },
    /// It leads no more.
    Resigned { child: ChildId },
    /// It has prepared what it was started for.
    Prepared { child: ChildId },
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
    /// What processes have used so far.
    Used(Vec<(ChildId, Usage)>),
    /// The user asks for new generations.
    Reload(Scope),
    /// This is asked from outside.
    Command { ticket: Ticket, command: Command },
    /// The user asks for more or fewer workers.
    Scale(HowMany),
    /// The user asks the supervisor to replace itself.
    Reexec,
    /// It could take the supervisor's place.
    Proven { child: ChildId },
    /// The supervisor could not replace itself after all.
    ReexecFailed { why: String },
    /// The supervisor has replaced itself: this is the first.
    Resumed,
    /// The user asks everything to end.
    Terminate,
}

/// What is reloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    /// Every slot.
    All,
    /// This slot.
    One(WorkerId),
}

impl Scope {
    pub(super) fn includes(self, slot: WorkerId) -> bool {
        self == Self::All || self == Self::One(slot)
    }

    /// What includes both.
    pub(super) fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::All }
    }
}

/// How many workers there shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HowMany {
    /// So many.
    Exactly(u16),
    OneMore,
    OneLess,
}

/// What a process is started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// What runs in its slot, whatever has become of the file since.
    Same,
    /// What was found when the reload began.
    New,
    /// What runs in slot 0: for a slot that is added.
    OfTheFirst,
}

/// What the supervisor's loop must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a process.
    Spawn { child: ChildId, slot: WorkerId, generation: Generation, seat: usize, program: Program },
    /// Start the process that prepares.
    Prepare { child: ChildId, program: Program },
    /// Start the admin process.
    Attend { child: ChildId },
    /// Start what is at the program's path now, to show that it could take the supervisor's place.
    Try { child: ChildId },
    /// Say what becomes of what was asked.
    Report { ticket: Ticket, progress: Progress },
    /// Look for the program where it was called: what is there now is [`Program::New`].
    FindProgram,
    /// It is its slot's process from now on: what is started in its place has its program.
    Keep { child: ChildId },
    /// Lend it this slot's sockets.
    Listen { child: ChildId, slot: WorkerId, part: Part, refuse: bool },
    /// Ask it for them back.
    Release { child: ChildId, slot: WorkerId, part: Part },
    /// Tell it to finish within this time.
    Drain { child: ChildId, timeout: Duration, reason: DrainReason },
    /// Connect these two by the bus.
    Connect { child: ChildId, other: ChildId },
    /// Tell it that it is connected with everybody.
    BusJoined { child: ChildId },
    /// Tell it that it leads.
    Grant { child: ChildId },
    /// Ask it to lead no more.
    Revoke { child: ChildId },
    /// Signal it, unless it is gone.
    Signal { child: ChildId, signal: ChildSignal },
    /// Have the kernel place connections on all slots but these.
    Evict { slots: Vec<WorkerId> },
    /// Have all processes place on so many workers.
    Place { workers: u16 },
    /// Tell the proxies that these slots' processes do not run.
    Down { slots: Vec<WorkerId> },
    /// Tell the proxies where workers listen.
    Ports { ports: Vec<Port> },
    /// Tell a worker in a shutdown that no proxy asks it anything any more.
    Forsake { child: ChildId },
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
        who: Post,
        why: String,
        after: Duration,
    },
    Hung {
        who: Post,
    },
    Evicted {
        who: Post,
    },
    Back {
        who: Post,
    },
    /// It was told to: its clients go to others.
    Draining {
        who: Post,
    },
    BootTimeout {
        who: Post,
        after: Duration,
    },
    Reloading {
        slots: Fleet,
    },
    /// One is under way already, or the cluster is not up.
    ReloadWaits,
    /// All of it is done; what was replaced may still be draining.
    Reloaded {
        slots: Fleet,
    },
    /// It waits until a former process has drained.
    ReloadCrowded {
        who: Post,
        former: usize,
    },
    ReloadStopped {
        why: String,
        /// The slots that have their new generation.
        done: Vec<Post>,
    },
    /// Everything ends instead.
    ReloadGivenUp {
        done: Vec<Post>,
    },
    /// A process whose slot another has taken over has drained.
    Replaced {
        who: Post,
        report: WorkerReport,
    },
    /// A process whose slot another has taken over has ended before it had drained.
    FormerLost {
        who: Post,
        how: Ended,
    },
    /// A worker has come close to a limit: another takes its place.
    Recycling {
        who: Post,
        reached: Reached,
    },
    Recycled {
        who: Post,
    },
    RecyclingFailed {
        who: Post,
        why: String,
        after: Duration,
    },
    /// It waits until a former process has drained.
    RecyclingCrowded {
        who: Post,
        reached: Reached,
        former: usize,
    },
    /// Slots are added or taken out.
    Scaling {
        from: u16,
        to: u16,
    },
    Scaled {
        workers: u16,
    },
    /// Something else is under way.
    ScalingWaits {
        to: u16,
    },
    /// There is no room for so many, or nobody would be left.
    ScalingRefused {
        to: u16,
        room: u16,
    },
    /// There are so many already.
    ScalingNeedless {
        workers: u16,
    },
    /// It waits until a former process of a slot that is added has drained.
    ScalingCrowded {
        who: Post,
        former: usize,
    },
    ScalingStopped {
        why: String,
        workers: u16,
    },
    /// The supervisor is about to replace itself: the program at its path shows whether it can.
    Reexecuting,
    /// Something is under way, or the cluster is not up.
    ReexecWaits,
    /// The supervisor has replaced itself.
    Reexecuted,
    ReexecRefused {
        why: String,
    },
    /// Everything ends instead.
    ReexecGivenUp,
    ShuttingDown {
        within: Duration,
    },
    StoppingNow,
    Overdue {
        who: Post,
    },
    Unkillable {
        who: Post,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("all workers are ready"),
            Self::Restarting { who, why, after } if after.is_zero() => {
                write!(f, "{who} {why}; starting it again")
            }
            Self::Restarting { who, why, after } => {
                write!(f, "{who} {why}; starting it again in {} ms", after.as_millis())
            }
            Self::Hung { who } => write!(f, "{who} hangs: its event loop has stopped turning; killing it"),
            Self::Evicted { who } => write!(f, "{who} is not running: its clients go to the next one"),
            Self::Draining { who } => write!(f, "{who} drains: its clients go to the next one"),
            Self::Back { who } => write!(f, "{who} is back"),
            Self::BootTimeout { who, after } => {
                write!(f, "{who} was not ready within {after:?}; killing it")
            }
            Self::Reloading { slots } => write!(f, "reloading {slots}"),
            Self::ReloadWaits => f.write_str("a reload waits for what is under way, and begins after that"),
            Self::Reloaded { slots } => write!(f, "reloaded {slots}"),
            Self::ReloadCrowded { who, former } => write!(
                f,
                "the reload waits: {former} former processes of {who} have not drained yet (drain_timeout, \
                 STICKY_DRAIN_TIMEOUT)"
            ),
            Self::ReloadStopped { why, done } => {
                write!(f, "reload stopped: {why}; {}", Done(done))
            }
            Self::ReloadGivenUp { done } => write!(f, "the reload is given up; {}", Done(done)),
            Self::Replaced { who, report } => write!(f, "the former {who} has drained: {report}"),
            Self::FormerLost { who, how } => write!(f, "the former {who} {how} before it had drained"),
            Self::Recycling { who, reached } => write!(f, "{who} {reached}: replacing it"),
            Self::Recycled { who } => write!(f, "replaced {who}"),
            Self::RecyclingFailed { who, why, after } => {
                write!(
                    f,
                    "{who} could not be replaced: {why}; it goes on, and is tried again in {} ms",
                    after.as_millis()
                )
            }
            Self::RecyclingCrowded { who, reached, former } => write!(
                f,
                "{who} {reached} and waits to be replaced: {former} former processes of it have not drained yet \
                 (drain_timeout, STICKY_DRAIN_TIMEOUT)"
            ),
            Self::Scaling { from, to } => write!(f, "scaling from {} to {to}", count(*from)),
            Self::Scaled { workers } => write!(f, "scaled to {}", count(*workers)),
            Self::ScalingWaits { to } => {
                write!(f, "scaling to {} waits for what is under way, and begins after that", count(*to))
            }
            Self::ScalingRefused { to: 0, .. } => f.write_str("not scaled: one worker has to be left"),
            Self::ScalingRefused { to, room } => write!(
                f,
                "not scaled to {to}: this cluster has room for {} (max_workers, STICKY_MAX_WORKERS)",
                count(*room)
            ),
            Self::ScalingNeedless { workers } => write!(f, "not scaled: {} already", there_are(*workers)),
            Self::ScalingCrowded { who, former } => write!(
                f,
                "scaling waits: {former} former processes of {who} have not drained yet (drain_timeout, \
                 STICKY_DRAIN_TIMEOUT)"
            ),
            Self::ScalingStopped { why, workers } => {
                write!(f, "scaling stopped: {why}; {} as before", there_are(*workers))
            }
            Self::Reexecuting => f.write_str("reexec: the program at its path shows whether it can take over"),
            Self::ReexecWaits => f.write_str("a reexec waits until nothing else is under way"),
            Self::Reexecuted => {
                write!(
                    f,
                    "reexecuted: the supervisor is sticky {} now, every worker as it was",
                    env!("CARGO_PKG_VERSION")
                )
            }
            Self::ReexecRefused { why } => write!(f, "reexec refused: {why}; everything goes on as it was"),
            Self::ReexecGivenUp => f.write_str("the reexec is given up"),
            Self::ShuttingDown { within } => write!(f, "shutting down within {within:?}"),
            Self::StoppingNow => f.write_str("stopping at once"),
            Self::Unkillable { who } => write!(f, "{who} does not end although it was killed; leaving it"),
            Self::Overdue { who } => write!(f, "{who} did not end in time; killing it"),
        }
    }
}

/// How many processes of either kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fleet {
    pub(crate) workers: usize,
    pub(crate) proxies: usize,
}

impl fmt::Display for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, proxies } = *self;
        write!(f, "{workers} worker{}", plural(workers))?;
        match proxies {
            0 => Ok(()),
            1 => f.write_str(" and 1 proxy"),
            _ => write!(f, " and {proxies} proxies"),
        }
    }
}

fn count(workers: u16) -> Fleet {
    Fleet { workers: workers.into(), proxies: 0 }
}

fn there_are(workers: u16) -> String {
    let is = if workers == 1 { "is" } else { "are" };
    format!("there {is} {}", count(workers))
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// How far a reload came that did not come to its end.
struct Done<'a>(&'a [Post]);

impl fmt::Display for Done<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("every worker goes on as it was"),
            done => {
                let done: Vec<String> = done.iter().map(Post::to_string).collect();
                write!(f, "new: {}; the others go on as they were", done.join(", "))
            }
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
    pub(crate) who: Post,
    pub(crate) what: BootFailureKind,
    /// What the process said last, if it said anything.
    pub(crate) words: Option<String>,
}

/// See [`BootFailure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BootFailureKind {
    Spawn(String),
    Ended(Ended),
    Timeout(Duration),
    /// Its event loop has stopped turning.
    Hung,
}

impl BootFailureKind {
    /// What the process did.
    pub(crate) fn verb(&self) -> String {
        match self {
            Self::Spawn(error) => format!("could not be started: {error}"),
            Self::Ended(how) => how.to_string(),
            Self::Timeout(_) => "was not ready in time".to_owned(),
            Self::Hung => "has hung".to_owned(),
        }
    }
}

impl BootFailure {
    /// For words that are several lines.
    pub(super) fn on_one_line(&self) -> String {
        self.to_string().lines().collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for BootFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.who;
        match &self.what {
            BootFailureKind::Ended(Ended::Code(0)) if who == Post::Preparation => {
                write!(f, "{who} exited with status 0 before it was done: does the program reach sticky?")?;
            }
            BootFailureKind::Ended(how) if who == Post::Preparation => write!(f, "{who} {how}")?,
            BootFailureKind::Timeout(after) if who == Post::Preparation => {
                write!(f, "{who} was not done within {after:?} (prepare_timeout, STICKY_PREPARE_TIMEOUT)")?;
            }
            what @ (BootFailureKind::Spawn(_) | BootFailureKind::Hung) => write!(f, "{who} {}", what.verb())?,
            BootFailureKind::Ended(how) => write!(f, "{who} {how} before it was ready")?,
            BootFailureKind::Timeout(after) => write!(
                f,
                "{who} was not ready within {after:?} (boot_timeout, STICKY_BOOT_TIMEOUT): \
                 does the program reach sticky in every process?"
            )?,
        }
        match &self.words {
            Some(words) => write!(f, ": {words}"),
            None => Ok(()),
        }
    }
}
