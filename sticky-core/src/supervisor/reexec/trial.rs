//! The process that shows whether the program at the path could go on from where this one is: as the supervisor sees it, and what
//! it does itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::super::child::{Incoming, Launched, Process};
use super::super::event::{ChildId, Ended, Event};
use super::super::output::Pump;
use super::super::program::Image;
use super::super::run::{Supervisor, judge};
use super::carried::{Carried, ResumeError};
use super::parcel::Lots;
use crate::config::Config;
use crate::control::{Hello, ToWorker};
use crate::id::Post;
use crate::scoreboard::Scoreboard;
use crate::sys::memory::SharedWords;

/// A process that is on trial.
pub(in crate::supervisor) struct Trial {
    pub(in crate::supervisor) child: ChildId,
    pub(in crate::supervisor) process: Arc<Process>,
    pump: Option<Pump>,
}

impl Supervisor {
    /// Starts what is at the program's path now. Why that fails goes through the queue, since the state machine is being asked
    /// just now.
    pub(in crate::supervisor) fn put_on_trial(&mut self, child: ChildId) {
        self.candidate = self.program.look();
        let launched = self.candidate().and_then(|image| self.launcher.launch(image, Post::Trial, &self.output));
        match launched {
            Ok(Launched { process, pump }) => {
                self.watch(child, &process);
                self.trial = Some(Trial { child, process, pump });
            }
            Err(error) => {
                let error = error.to_string();
                let _ = self.incoming.0.send(Incoming::Event(Event::SpawnFailed { child, error }));
            }
        }
    }

    /// What was found when the reexec began.
    pub(super) fn candidate(&self) -> io::Result<&Image> {
        self.candidate.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }

    /// Answers its greeting with all that there is; tells whether it is its greeting.
    pub(in crate::supervisor) fn greet_trial(&mut self, child: ChildId, hello: &Hello) -> bool {
        let process = self.trial.as_ref().filter(|trial| trial.child == child).map(|trial| Arc::clone(&trial.process));
        let Some(process) = process else { return false };
        if let Err(reason) = judge(hello, &self.config.fingerprint()) {
            self.refuse(child, Post::Trial, &process, reason);
            return true;
        }
        match self.carried(&mut Lots::default(), &[], &[]).write() {
            Ok(text) => {
                let table = self.session_table.as_ref().map(AsFd::as_fd);
                let descriptors: Vec<_> = [text.as_fd(), self.scoreboard.as_fd()].into_iter().chain(table).collect();
                process.send(&ToWorker::Try, &descriptors);
            }
            Err(error) => {
                let reason = format!("what the supervisor has cannot be told: {error}");
                self.refuse(child, Post::Trial, &process, reason);
            }
        }
        true
    }

    /// Forgets it, after its last words; tells whether it was that.
    pub(in crate::supervisor) fn trial_exited(&mut self, child: ChildId, how: Ended) -> bool {
        let Some(trial) = self.trial.as_mut().filter(|trial| trial.child == child) else { return false };
        match trial.pump.take() {
            Some(pump) => self.hear_last_words(child, how, pump),
            None => {
                self.trial = None;
                self.decide(Event::Exited { child, how });
            }
        }
        true
    }
}

/// Looks whether this program could go on from what the descriptors say: all that a supervisor has, the scoreboard, and the
/// session table where there is one.
///
/// # Errors
///
/// Why not.
pub(crate) fn try_out(descriptors: Vec<OwnedFd>, config: &Config) -> Result<(), ResumeError> {
    let mut descriptors = descriptors.into_iter();
    let (Some(text), Some(scoreboard)) = (descriptors.next(), descriptors.next()) else {
        return Err(ResumeError::Nonsense("descriptors are missing"));
    };
    let carried = Carried::read(&text)?;
    carried.check(config)?;
    if Scoreboard::from_fd(scoreboard)?.seats() < carried.seats() {
        return Err(ResumeError::Nonsense("the scoreboard has too few seats"));
    }
    match (carried.session_table.is_some(), descriptors.next()) {
        (false, _) => Ok(()),
        (true, Some(table)) => Ok(SharedWords::map(table).map(drop)?),
        (true, None) => Err(ResumeError::Nonsense("the session table is missing")),
    }
}
