//! The process that prepares what all workers need: started, greeted and buried like a worker, but in no slot.

use std::io;
use std::sync::Arc;

use super::child::{Incoming, Launched, Process};
use super::event::{ChildId, Ended, Event, Program as Source};
use super::output::Pump;
use super::run::{Supervisor, judge};
use crate::control::{Hello, ToWorker};
use crate::id::Post;

/// A process that prepares.
pub(super) struct Preparer {
    pub(super) child: ChildId,
    pub(super) process: Arc<Process>,
    pump: Option<Pump>,
}

impl Supervisor {
    /// Starts it. Why that fails goes through the queue, since the state machine is being asked just now.
    pub(super) fn prepare(&mut self, child: ChildId, source: Source) {
        match self.launch_preparer(source) {
            Ok(Launched { process, pump }) => {
                self.watch(child, &process);
                self.preparer = Some(Preparer { child, process, pump });
            }
            Err(error) => {
                let error = error.to_string();
                let _ = self.incoming.0.send(Incoming::Event(Event::SpawnFailed { child, error }));
            }
        }
    }

    fn launch_preparer(&self, source: Source) -> io::Result<Launched> {
        let image = match source {
            Source::Same | Source::OfTheFirst => self.program.running(),
            Source::New => self.found()?,
        };
        self.launcher.launch(image, Post::Preparation, &self.output)
    }

    /// Answers its greeting. What does not agree with the cluster must not prepare anything for it.
    pub(super) fn greet_preparer(&mut self, child: ChildId, hello: &Hello) {
        let Some(process) = self.preparer.as_ref().map(|preparer| Arc::clone(&preparer.process)) else { return };
        match judge(hello, &self.config.fingerprint()) {
            Ok(_) => process.send(&ToWorker::Prepare, &[]),
            Err(reason) => self.refuse(child, Post::Preparation, &process, reason),
        }
    }

    /// Forgets it, after its last words.
    pub(super) fn preparer_exited(&mut self, child: ChildId, how: Ended) {
        match self.preparer.as_mut().and_then(|preparer| preparer.pump.take()) {
            Some(pump) => self.hear_last_words(child, how, pump),
            None => {
                self.preparer = None;
                self.decide(Event::Exited { child, how });
            }
        }
    }
}
