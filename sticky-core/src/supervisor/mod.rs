//! The process that owns the sockets and keeps the workers running. It reads no byte of any client.
//!
//! ```text
//! signals ──┐
//! children ─┼─► run: one loop ── Event ──► state: what to do ── Action ──► run: does it
//! clock ────┘
//! ```

mod admin;
mod backlog;
mod child;
mod event;
mod extras;
mod happening;
mod heartbeat;
mod ledger;
mod line_queue;
mod line_writer;
mod lines;
mod output;
mod preparer;
mod program;
mod reap;
mod recycle;
pub(crate) mod resident;
mod restart;
mod run;
pub(crate) mod service;
mod sessions;
mod sockets;
mod state;
mod wiring;

use std::io;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::dispatch::kernel::{AttachError, ProofError};
use crate::listener::ListenError;
use crate::scoreboard::ScoreboardError;

/// Why a cluster did not start, or did not end as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuperviseError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The kernel does not take the placement program.
    #[error("kernel dispatch is not available here")]
    Attach(#[from] AttachError),
    /// The kernel does not place connections as it should.
    #[error("kernel dispatch does not work here")]
    Proof(#[from] ProofError),
    /// There is no shared memory.
    #[error(transparent)]
    Scoreboard(#[from] ScoreboardError),
    /// A worker of the first generation failed, or was not ready in time; the text has its last words.
    #[error("{0}")]
    Boot(String),
    /// A second signal ended everything at once.
    #[error("ended at once by a second signal, without waiting for connections")]
    Forced,
    /// The system refused something the supervisor needs.
    #[error("the supervisor cannot {attempt}")]
    System {
        /// What was attempted.
        attempt: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl SuperviseError {
    fn system(attempt: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { attempt, source }
    }
}

/// How long what was said last may take to come out.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// Asks a supervisor for the end.
type StopReceiver = mpsc::UnboundedReceiver<()>;

/// A supervisor at work.
pub(crate) struct Running {
    outcome: oneshot::Receiver<Result<(), SuperviseError>>,
    stop: mpsc::UnboundedSender<()>,
    over: bool,
}

impl Running {
    /// Waits for the end; `None` is a bug in sticky.
    pub(crate) async fn outcome(mut self) -> Option<Result<(), SuperviseError>> {
        let outcome = (&mut self.outcome).await.ok();
        self.over = true;
        outcome
    }
}

impl Drop for Running {
    /// A program that waits for its cluster *or* for something else, and gets something else, ends. It must not leave
    /// its workers behind, so the cluster ends first, as after SIGTERM.
    fn drop(&mut self) {
        if !self.over {
            let _ = self.stop.send(());
            let _ = crate::worker::block_on(&mut self.outcome);
        }
    }
}

/// Runs the supervisor on a thread and a runtime of its own. `prepares` if there is something to do before the workers start.
///
/// The thread that starts a worker must live as long as the worker should (PR_SET_PDEATHSIG), and the application's
/// runtime, if it has one here, may be blocked or end.
pub(crate) fn start(config: Config, prepares: bool) -> io::Result<Running> {
    let (sender, outcome) = oneshot::channel();
    let (stop, stopped) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("sticky-supervisor".to_owned()).spawn(move || {
        let outcome = runtime.block_on(run::supervise(config, prepares, stopped));
        crate::notice::flush(FLUSH_TIME);
        let _ = sender.send(outcome);
    })?;
    Ok(Running { outcome, stop, over: false })
}
