//! The reexec: the supervisor is replaced in place by the program that is at its path now. That must first show, as a process of
//! its own, that it could go on from where this one is.
//!
//! ```text
//! wanted ── all is quiet ──► trial: builds its configuration, reads what there is ──► proven ── all is quiet ──► exec
//!    ▲                          └── fails ──► refused: nothing has changed                            │
//!    └ a reload, scaling, a crash … is under way                                     the next program: Resumed
//! ```
//!
//! Nothing is carried over in the middle of anything: every slot has its one process, and none is on its way in or out. What is
//! asked for from the trial on waits, and is carried over.

use std::time::Instant;

use super::super::event::{Action, BootFailure, BootFailureKind, ChildId, ChildSignal, Event, Note};
use super::leadership::Leader;
use super::{Phase, Reader, Stage, State};
use crate::id::Post;

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Reexec {
    /// It has been asked for, and has not begun.
    is_wanted: bool,
    trial: Option<Trial>,
    /// The trial has ended well.
    is_proven: bool,
}

/// The process that shows whether it could take over.
#[derive(Debug)]
struct Trial {
    id: ChildId,
    /// Killed at this time.
    until: Instant,
    is_proven: bool,
    is_killed: bool,
    words: Option<String>,
}

impl Reexec {
    /// Whether it waits for what is under way.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Whether it is under way itself.
    pub(super) fn has_begun(&self) -> bool {
        self.is_proven || self.trial.as_ref().is_some_and(|trial| !trial.is_killed)
    }

    /// Whether there is a process that has to end.
    pub(super) fn has_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Forgets the process if there is one; tells whether there was.
    pub(super) fn forget_trial(&mut self) -> bool {
        self.trial.take().is_some()
    }
}

impl State {
    /// Begins a reexec, or remembers that one is wanted. What is asked for once more is the same.
    pub(super) fn reexec(&mut self, now: Instant) {
        let may_be = matches!(self.phase, Phase::Booting | Phase::Running);
        if !may_be || self.reexec.is_wanted || self.reexec.has_begun() {
            return;
        }
        self.reexec.is_wanted = true;
        self.advance_reexec(now);
        if self.reexec.is_wanted {
            self.out.push(Action::Note(Note::ReexecWaits));
        }
    }

    /// Begins what is wanted if nothing else is under way.
    pub(super) fn advance_reexec(&mut self, now: Instant) {
        // One that has been killed must be gone first.
        if !self.reexec.is_wanted || self.reexec.has_trial() || self.is_anything_next() || !self.is_quiet() {
            return;
        }
        self.reexec.is_wanted = false;
        let (id, until) = (self.new_child(), now + self.policy.boot_timeout);
        self.reexec.trial = Some(Trial { id, until, is_proven: false, is_killed: false, words: None });
        self.out.push(Action::Note(Note::Reexecuting));
        self.reexec_asked_begins();
        self.out.push(Action::Try { child: id });
    }

    /// Whether the supervisor can be replaced now.
    pub(crate) fn may_reexec(&self) -> bool {
        self.reexec.is_proven && self.is_quiet()
    }

    /// Whether no process is on its way in or out, and nothing is in the middle of changing.
    fn is_quiet(&self) -> bool {
        let is_idle = self.phase == Phase::Running
            && self.reload.is_none()
            && self.preparer.is_none()
            && self.scaling.is_none()
            && !matches!(self.leader, Leader::Resigning(_))
            && self.attendant.is_quiet();
        let is_served = |index: usize| {
            let slot = &self.slots[index];
            slot.respawn_at.is_none() && (slot.current.is_some() || slot.drained)
        };
        let is_up = |index: usize| self.slots[index].current.is_some_and(|id| self.serves(id));
        let up = self.in_use().filter(|index| is_up(*index)).count();
        let readers = self.slots.iter().flat_map(|slot| slot.readers);
        is_idle
            && up == self.children.len()
            && self.children.values().all(|child| child.stage == Stage::Ready)
            && self.in_use().all(is_served)
            && readers.into_iter().all(|reader| !matches!(reader, Reader::Releasing(..)))
    }

    // === The trial ===

    /// Takes what is about the process that is on trial; anything else is handed back.
    pub(super) fn of_trial(&mut self, event: Event) -> Event {
        let Some(trial) = &mut self.reexec.trial else { return event };
        match event {
            Event::Proven { child } if child == trial.id => trial.is_proven = true,
            Event::Words { child, text } if child == trial.id => trial.words = Some(text),
            Event::Exited { child, how } if child == trial.id => self.trial_gone(BootFailureKind::Ended(how)),
            Event::SpawnFailed { child, error } if child == trial.id => self.trial_gone(BootFailureKind::Spawn(error)),
            event => return event,
        }
        Event::Tick
    }

    fn trial_gone(&mut self, what: BootFailureKind) {
        let Some(trial) = self.reexec.trial.take() else { return };
        // Killed, it has been reported.
        if trial.is_killed {
            return;
        }
        if trial.is_proven {
            self.reexec.is_proven = self.phase == Phase::Running;
            return;
        }
        let failure = BootFailure { who: Post::Trial, what, words: trial.words };
        self.refuse_reexec(failure.on_one_line());
    }

    /// When the process that is on trial is killed.
    pub(super) fn trial_due(&self) -> Option<Instant> {
        self.reexec.trial.as_ref().filter(|trial| !trial.is_killed).map(|trial| trial.until)
    }

    /// Kills it when its time is over.
    pub(super) fn kill_late_trial(&mut self, now: Instant) {
        if self.trial_due().is_none_or(|due| due > now) {
            return;
        }
        let words = self.reexec.trial.as_ref().and_then(|trial| trial.words.clone());
        let what = BootFailureKind::Timeout(self.policy.boot_timeout);
        let failure = BootFailure { who: Post::Trial, what, words };
        self.kill_trial();
        self.refuse_reexec(failure.on_one_line());
    }

    fn kill_trial(&mut self) {
        if let Some(trial) = &mut self.reexec.trial
            && !std::mem::replace(&mut trial.is_killed, true)
        {
            self.out.push(Action::Signal { child: trial.id, signal: ChildSignal::Kill });
        }
    }

    // === How it ends ===

    /// Everything goes on as it was.
    pub(super) fn refuse_reexec(&mut self, why: String) {
        (self.reexec.is_wanted, self.reexec.is_proven) = (false, false);
        let note = Note::ReexecRefused { why };
        self.reexec_asked_has_failed(&note);
        self.out.push(Action::Note(note));
    }

    /// Everything ends: nothing is replaced any more.
    pub(super) fn forget_reexec(&mut self) {
        if self.reexec.is_wanted || self.reexec.has_begun() {
            self.out.push(Action::Note(Note::ReexecGivenUp));
        }
        (self.reexec.is_wanted, self.reexec.is_proven) = (false, false);
        self.kill_trial();
    }

    /// This program is what has taken over.
    pub(super) fn resume(&mut self, now: Instant) {
        self.reexec_asked_is_done(&Note::Reexecuted);
        self.out.push(Action::Note(Note::Reexecuted));
        if !self.attendant.is_running() {
            self.start_attendant(now);
        }
    }
}
