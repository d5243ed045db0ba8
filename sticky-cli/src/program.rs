//! The program that a worker runs: started with a port, watched, and ended when nobody asks it any more.

use std::ffi::OsString;
use std::io;
use std::process::ExitStatus;
use std::thread::sleep;
use std::time::{Duration, Instant};

use sticky_core::BoxError;
use tokio::process::{Child, Command};

/// How long the program has to end after SIGTERM: less than a worker has after its drain.
const END_TIME: Duration = Duration::from_secs(4);

/// How long until it is looked again whether it has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Why a worker has nothing to run.
#[derive(Debug, thiserror::Error)]
enum ProgramError {
    /// It cannot be started.
    #[error("cannot start {program:?}")]
    Start { program: OsString, source: io::Error },
    /// It has ended, which nobody has asked of it.
    #[error("{program:?} has ended: {status}")]
    Ended { program: OsString, status: ExitStatus },
}

/// Runs the program until it ends, which is an error. Dropped, it ends the program.
pub(crate) async fn run(command: Vec<OsString>, port: u16) -> Result<(), BoxError> {
    let mut words = command.into_iter();
    let program = words.next().unwrap_or_default();
    let started = Program::start(&program, words, port);
    let mut running = started.map_err(|source| ProgramError::Start { program: program.clone(), source })?;
    let status = running.child.wait().await?;
    Err(ProgramError::Ended { program, status }.into())
}

/// A program that runs.
struct Program {
    child: Child,
}

impl Program {
    fn start(program: &OsString, arguments: impl Iterator<Item = OsString>, port: u16) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).env("PORT", port.to_string()).env_remove("STICKY_CONTROL").kill_on_drop(true);
        #[cfg(target_os = "linux")]
        sticky_core::integration::end_with_parent(command.as_std_mut());
        Ok(Self { child: command.spawn()? })
    }

    /// Asks it to end.
    fn terminate(&self) {
        #[cfg(target_os = "linux")]
        if let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

impl Drop for Program {
    /// Nobody asks it any more, and this process is about to end: there is nothing else to wait for. What does not end is
    /// killed.
    fn drop(&mut self) {
        self.terminate();
        let until = Instant::now() + END_TIME;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            sleep(LOOK_PAUSE);
        }
    }
}
