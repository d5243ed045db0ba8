//! What is asked from outside: by whom a reload was asked for, draining a slot, and what is said about either.
//!
//! ```text
//! Command ──► Refused                    reload, restart ──► [Waits] ──► Begun ──► Step … ──► Done | Failed
//!        └──► Begun | Waits     scale, reexec ──► [Waits] ────────────► Begun ─────────────► Done | Failed
//!                                        drain ────────────────────────► Begun ─────────────► Done | Failed
//! ```

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::super::event::{Action, BootFailureKind, ChildId, Ended, HowMany, Note, Scope, Ticket};
use super::{Child, Phase, Stage, State};
use crate::admin::{Command, Progress};
use crate::config::Failover;
use crate::control::WorkerReport;
use crate::id::{Post, WorkerId};

/// Who is to hear what becomes of what.
#[derive(Debug, Default)]
pub(super) struct Commands {
    /// Of the reload that is under way.
    begun: Vec<Ticket>,
    /// Of the one that waits.
    waiting: Vec<Ticket>,
    /// Of the scaling that is under way.
    scaling: Vec<Ticket>,
    /// Of the one that waits.
    to_scale: Vec<Ticket>,
    /// Of the reexec that waits or has begun.
    reexec: Vec<Ticket>,
    /// Of processes that drain because their slots were told to.
    draining: Vec<(ChildId, Ticket)>,
}

/// Who is still to hear of what: of those that can be asked for while the supervisor replaces itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    reload: Vec<Ticket>,
    scale: Vec<Ticket>,
    reexec: Vec<Ticket>,
}

impl Commands {
    pub(super) fn asked(&self) -> Asked {
        Asked { reload: self.waiting.clone(), scale: self.to_scale.clone(), reexec: self.reexec.clone() }
    }
}

impl From<Asked> for Commands {
    fn from(Asked { reload, scale, reexec }: Asked) -> Self {
        Self { waiting: reload, to_scale: scale, reexec, ..Self::default() }
    }
}

impl State {
    /// Does what is asked, or says why not.
    pub(super) fn command(&mut self, now: Instant, ticket: Ticket, command: Command) {
        let done = match command {
            Command::Reload => self.ask_reload(now, ticket, Scope::All),
            Command::Restart { worker } => self.ask_restart(now, ticket, worker),
            Command::Drain { worker } => self.ask_drain(now, ticket, worker),
            Command::Scale { workers } => self.ask_scale(now, ticket, workers),
            Command::Reexec => self.ask_reexec(now, ticket),
        };
        if let Err(why) = done {
            self.report(ticket, Progress::Refused { why });
        }
    }

    fn report(&mut self, ticket: Ticket, progress: Progress) {
        self.out.push(Action::Report { ticket, progress });
    }

    fn ask_reload(&mut self, now: Instant, ticket: Ticket, scope: Scope) -> Result<(), String> {
        match self.phase {
            Phase::Booting | Phase::Running => {
                self.commands.waiting.push(ticket);
                self.reload(now, scope);
                if self.commands.waiting.contains(&ticket) {
                    self.report(ticket, Progress::Waits);
                }
                Ok(())
            }
            Phase::ShuttingDown { .. } | Phase::Stopping { .. } | Phase::Finished => Err(ENDS.to_owned()),
        }
    }

    /// One slot alone is not reloaded together with others, which would make all of them one reload.
    fn ask_restart(&mut self, now: Instant, ticket: Ticket, slot: WorkerId) -> Result<(), String> {
        self.check_slot(slot)?;
        self.ask_reload(now, ticket, Scope::One(slot))
    }

    fn ask_drain(&mut self, now: Instant, ticket: Ticket, slot: WorkerId) -> Result<(), String> {
        self.check_slot(slot)?;
        let (index, who) = (slot.index(), self.post(slot));
        let Failover::Next { .. } = self.policy.failover else {
            return Err(format!("with failover \"{}\" nobody would serve the clients of {who}", self.policy.failover));
        };
        let serves =
            |id: &ChildId| self.children.get(id).is_some_and(|child| child.stage == Stage::Ready && !child.stopped);
        let current = self.slots[index].current.filter(serves).ok_or_else(|| format!("{who} is not running"))?;
        if !self.has_stand_in(index) {
            return Err(format!("no other worker could serve the clients of {who}"));
        }
        self.slots[index].current = None;
        self.slots[index].down_since.get_or_insert(now);
        (self.slots[index].evicted, self.slots[index].drained) = (true, true);
        self.with(current, |child| child.stage = Stage::Superseded);
        self.commands.draining.push((current, ticket));
        self.out.push(Action::Note(Note::Draining { who }));
        self.report(ticket, Progress::Begun);
        self.place();
        Ok(())
    }

    fn ask_scale(&mut self, now: Instant, ticket: Ticket, workers: u16) -> Result<(), String> {
        let room = self.policy.room;
        match self.phase {
            _ if workers == 0 || workers > room => Err(Note::ScalingRefused { to: workers, room }.to_string()),
            Phase::Booting | Phase::Running => {
                // Of several that wait the last one counts.
                for ticket in std::mem::take(&mut self.commands.to_scale) {
                    self.report(ticket, Progress::Failed { why: "another number has been asked for".to_owned() });
                }
                self.commands.to_scale.push(ticket);
                self.scale(now, HowMany::Exactly(workers));
                if self.commands.to_scale.contains(&ticket) {
                    self.report(ticket, Progress::Waits);
                }
                Ok(())
            }
            Phase::ShuttingDown { .. } | Phase::Stopping { .. } | Phase::Finished => Err(ENDS.to_owned()),
        }
    }

    fn ask_reexec(&mut self, now: Instant, ticket: Ticket) -> Result<(), String> {
        match self.phase {
            Phase::Booting | Phase::Running => {
                if self.reexec.has_begun() {
                    self.report(ticket, Progress::Begun);
                }
                self.commands.reexec.push(ticket);
                self.reexec(now);
                if self.reexec.is_wanted() {
                    self.report(ticket, Progress::Waits);
                }
                Ok(())
            }
            Phase::ShuttingDown { .. } | Phase::Stopping { .. } | Phase::Finished => Err(ENDS.to_owned()),
        }
    }

    /// Whether something can be done with one worker now.
    fn check_slot(&self, slot: WorkerId) -> Result<(), String> {
        match self.phase {
            _ if slot.get() >= self.count => Err(format!("there is no {}", Post::Worker(slot))),
            Phase::Running if !self.may_begin() || self.next_reload.is_some() || self.is_replacing() => {
                Err("something else is under way: ask again after it".to_owned())
            }
            Phase::Running => Ok(()),
            Phase::Booting => Err("the cluster is starting: ask again when it is up".to_owned()),
            Phase::ShuttingDown { .. } | Phase::Stopping { .. } | Phase::Finished => Err(ENDS.to_owned()),
        }
    }

    // === What becomes of it ===

    /// A reload begins that was asked for: all that waited have what they wanted.
    pub(super) fn asked_begins(&mut self) {
        for ticket in std::mem::take(&mut self.commands.waiting) {
            self.report(ticket, Progress::Begun);
            self.commands.begun.push(ticket);
        }
    }

    /// So many of its slots are done, this one last.
    pub(super) fn asked_proceeds(&mut self, slot: WorkerId) {
        let Some((done, of)) = self.reload_progress() else { return };
        let who = self.post(slot).to_string();
        for ticket in self.commands.begun.clone() {
            self.report(ticket, Progress::Step { who: who.clone(), done, of });
        }
    }

    pub(super) fn asked_is_done(&mut self, note: &Note) {
        for ticket in std::mem::take(&mut self.commands.begun) {
            self.report(ticket, Progress::Done { text: note.to_string() });
        }
    }

    pub(super) fn asked_has_failed(&mut self, note: &Note) {
        for ticket in std::mem::take(&mut self.commands.begun) {
            self.report(ticket, Progress::Failed { why: note.to_string() });
        }
    }

    /// A process whose slot another has taken over, or was told to drain, has drained.
    pub(super) fn asked_has_drained(&mut self, id: ChildId, report: WorkerReport) {
        if let Some((slot, ticket)) = self.asked_to_drain(id) {
            let text = format!("{} has drained: {report}", self.post(slot));
            self.report(ticket, Progress::Done { text });
        }
    }

    /// A process has ended; if it was to drain, before it had.
    pub(super) fn asked_is_gone(&mut self, id: ChildId, child: &Child, what: &BootFailureKind) {
        let place = self.commands.draining.iter().position(|(draining, _)| *draining == id);
        let Some((_, ticket)) = place.map(|place| self.commands.draining.swap_remove(place)) else { return };
        let who = self.post(child.slot);
        self.report(
            ticket,
            match what {
                // It has nothing to tell what became of its connections by.
                BootFailureKind::Ended(Ended::Code(0)) => Progress::Done { text: format!("{who} has ended") },
                what => Progress::Failed { why: format!("{who} {} before it had drained", what.verb()) },
            },
        );
    }

    /// The scaling that was asked for begins, or there are so many already.
    pub(super) fn scaling_asked_begins(&mut self) {
        for ticket in std::mem::take(&mut self.commands.to_scale) {
            self.report(ticket, Progress::Begun);
            self.commands.scaling.push(ticket);
        }
    }

    pub(super) fn scaling_asked_is_done(&mut self, note: &Note) {
        for ticket in std::mem::take(&mut self.commands.scaling) {
            self.report(ticket, Progress::Done { text: note.to_string() });
        }
    }

    pub(super) fn scaling_asked_has_failed(&mut self, note: &Note) {
        for ticket in std::mem::take(&mut self.commands.scaling) {
            self.report(ticket, Progress::Failed { why: note.to_string() });
        }
    }

    /// The reexec begins that was asked for.
    pub(super) fn reexec_asked_begins(&mut self) {
        for ticket in self.commands.reexec.clone() {
            self.report(ticket, Progress::Begun);
        }
    }

    pub(super) fn reexec_asked_is_done(&mut self, note: &Note) {
        for ticket in std::mem::take(&mut self.commands.reexec) {
            self.report(ticket, Progress::Done { text: note.to_string() });
        }
    }

    pub(super) fn reexec_asked_has_failed(&mut self, note: &Note) {
        for ticket in std::mem::take(&mut self.commands.reexec) {
            self.report(ticket, Progress::Failed { why: note.to_string() });
        }
    }

    fn asked_to_drain(&mut self, id: ChildId) -> Option<(WorkerId, Ticket)> {
        let place = self.commands.draining.iter().position(|(draining, _)| *draining == id)?;
        let (_, ticket) = self.commands.draining.swap_remove(place);
        Some((self.children.get(&id)?.slot, ticket))
    }

    /// Everything ends.
    pub(super) fn asked_is_given_up(&mut self) {
        let Commands { begun, waiting, scaling, to_scale, reexec, draining } = std::mem::take(&mut self.commands);
        let draining = draining.into_iter().map(|(_, ticket)| ticket);
        for ticket in begun.into_iter().chain(waiting).chain(scaling).chain(to_scale).chain(reexec).chain(draining) {
            self.report(ticket, Progress::Failed { why: ENDS.to_owned() });
        }
    }

    /// Whether the former process of a slot without another one can drain: somebody else reads the slot's sockets, or
    /// nobody has to, since it listens by itself and proxies have been told.
    pub(super) fn is_left_to_others(&self, index: usize, old: ChildId) -> bool {
        let listens_itself = self.children.get(&old).is_some_and(|child| child.port.is_some());
        listens_itself || self.parts_of(index).all(|reader| reader.is_held_by_another_than(old))
    }
}

/// Why nothing is begun any more.
const ENDS: &str = "the cluster is shutting down";
