//! What must be done once before a set of generations starts: in a process of its own, which is in no slot.
//!
//! ```text
//! start ──► preparing ── done ──► the first generation          reload ──► preparing ── done ──► the first slot's turn
//!               └── fails: the program ends                                    └── fails: the reload stops
//! ```

use std::time::Instant;

use super::super::event::{Action, BootFailure, BootFailureKind, ChildId, ChildSignal, Event, Note, Outcome, Program};
use super::{Phase, State};
use crate::id::Post;

/// The process that prepares.
#[derive(Debug)]
pub(super) struct Preparer {
    id: ChildId,
    /// Killed at this time.
    until: Instant,
    /// It has done what it was started for.
    has_prepared: bool,
    is_killed: bool,
    words: Option<String>,
}

impl State {
    /// Starts the process that prepares, if there is anything to prepare; tells whether there is.
    pub(super) fn begin_to_prepare(&mut self, now: Instant, program: Program) -> bool {
        let Some(timeout) = self.policy.prepare_timeout else { return false };
        let id = self.new_child();
        let preparer = Preparer { id, until: now + timeout, has_prepared: false, is_killed: false, words: None };
        self.preparer = Some(preparer);
        self.out.push(Action::Prepare { child: id, program });
        true
    }

    /// Takes what is about the process that prepares; anything else is handed back.
    pub(super) fn of_slots(&mut self, now: Instant, event: Event) -> Event {
        let Some(preparer) = &mut self.preparer else { return event };
        match event {
            Event::Prepared { child } if child == preparer.id => preparer.has_prepared = true,
            Event::Words { child, text } if child == preparer.id => preparer.words = Some(text),
            Event::Exited { child, how } if child == preparer.id => {
                self.preparer_gone(now, BootFailureKind::Ended(how));
            }
            Event::SpawnFailed { child, error } if child == preparer.id => {
                self.preparer_gone(now, BootFailureKind::Spawn(error));
            }
            event => return event,
        }
        Event::Tick
    }

    fn preparer_gone(&mut self, now: Instant, what: BootFailureKind) {
        let Some(preparer) = self.preparer.take() else { return };
        match self.phase {
            Phase::Booting if preparer.has_prepared => self.spawn_all(now),
            Phase::Running if preparer.has_prepared => self.reload_is_prepared(),
            // Killed, it has been reported.
            _ => self.not_prepared(now, preparer, what),
        }
    }

    /// Why there is no next generation.
    fn not_prepared(&mut self, now: Instant, preparer: Preparer, what: BootFailureKind) {
        if preparer.is_killed {
            return;
        }
        let failure = BootFailure { who: Post::Preparation, what, words: preparer.words };
        match self.phase {
            Phase::Booting => self.stop(now, Outcome::Failed(failure)),
            Phase::Running => self.stop_reload(now, failure.on_one_line()),
            Phase::ShuttingDown { .. } | Phase::Stopping { .. } | Phase::Finished => {}
        }
    }

    /// When the process that prepares is killed.
    pub(super) fn preparer_due(&self) -> Option<Instant> {
        self.preparer.as_ref().filter(|preparer| !preparer.is_killed).map(|preparer| preparer.until)
    }

    /// Kills it when its time is over.
    pub(super) fn kill_late_preparer(&mut self, now: Instant) {
        if self.preparer_due().is_none_or(|due| due > now) {
            return;
        }
        let words = self.preparer.as_ref().and_then(|preparer| preparer.words.clone());
        let what = BootFailureKind::Timeout(self.policy.prepare_timeout.unwrap_or_default());
        let failure = BootFailure { who: Post::Preparation, what, words };
        match self.phase {
            Phase::Booting => return self.stop(now, Outcome::Failed(failure)),
            Phase::Running => self.stop_reload(now, failure.on_one_line()),
            _ => self.out.push(Action::Note(Note::Overdue { who: Post::Preparation })),
        }
        self.kill_preparer();
    }

    pub(super) fn kill_preparer(&mut self) {
        if let Some(preparer) = &mut self.preparer {
            preparer.is_killed = true;
            self.out.push(Action::Signal { child: preparer.id, signal: ChildSignal::Kill });
        }
    }

    /// In a shutdown: what it prepares nobody needs any more.
    pub(super) fn end_preparer(&mut self, deadline: Instant) {
        if let Some(preparer) = &mut self.preparer {
            preparer.until = preparer.until.min(deadline);
            self.out.push(Action::Signal { child: preparer.id, signal: ChildSignal::Terminate });
        }
    }
}
