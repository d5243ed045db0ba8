//! The admin process: started first, started again whenever it ends, and otherwise of no concern to the cluster.

use std::time::{Duration, Instant};

use super::super::event::{Action, BootFailureKind, ChildId, ChildSignal, Event, Note};
use super::super::restart::Backoff;
use super::{Phase, State};
use crate::id::Post;

/// What is known of the admin process.
#[derive(Debug, Default)]
pub(super) struct Attendant {
    running: Option<Running>,
    backoff: Backoff,
    respawn_at: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    id: ChildId,
    born: Instant,
    stage: Stage,
    words: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Has not greeted; killed at this time.
    Booting {
        until: Instant,
    },
    Up,
    Killed,
}

impl Attendant {
    /// Whether there is one.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it is not on its way in or out. While it waits to be started again it may wait.
    pub(super) fn is_quiet(&self) -> bool {
        self.running.as_ref().is_none_or(|running| running.stage == Stage::Up)
    }

    /// Which it is, and when it was started.
    pub(super) fn carried(&self) -> Option<(ChildId, Instant)> {
        self.running.as_ref().map(|running| (running.id, running.born))
    }

    /// One that runs and has greeted.
    pub(super) fn up(id: ChildId, born: Instant) -> Self {
        Self { running: Some(Running { id, born, stage: Stage::Up, words: None }), ..Self::default() }
    }
}

impl State {
    /// Starts it, if there is to be one.
    pub(super) fn start_attendant(&mut self, now: Instant) {
        if !self.policy.admin {
            return;
        }
        let id = self.new_child();
        let stage = Stage::Booting { until: now + self.policy.boot_timeout };
        self.attendant.respawn_at = None;
        self.attendant.running = Some(Running { id, born: now, stage, words: None });
        self.out.push(Action::Attend { child: id });
    }

    /// Takes what is about the admin process; anything else is handed back.
    pub(super) fn of_attendant(&mut self, now: Instant, event: Event) -> Event {
        let Some(running) = &mut self.attendant.running else { return event };
        match event {
            Event::Ready { child, .. } if child == running.id => running.stage = Stage::Up,
            Event::Words { child, text } if child == running.id => running.words = Some(text),
            Event::Exited { child, how } if child == running.id => {
                self.attendant_gone(now, &BootFailureKind::Ended(how));
            }
            Event::SpawnFailed { child, error } if child == running.id => {
                self.attendant_gone(now, &BootFailureKind::Spawn(error));
            }
            event => return event,
        }
        Event::Tick
    }

    fn attendant_gone(&mut self, now: Instant, what: &BootFailureKind) {
        let chance = self.draw();
        let Some(Running { born, stage, words, .. }) = self.attendant.running.take() else { return };
        if !matches!(self.phase, Phase::Booting | Phase::Running) {
            return;
        }
        let after = self.attendant.backoff.after(now.duration_since(born), stage == Stage::Up, chance);
        self.attendant.respawn_at = Some(now + after);
        let said = words.filter(|_| stage != Stage::Up);
        let why = said.map_or(what.verb(), |words| format!("{} before it was ready: {words}", what.verb()));
        self.out.push(Action::Note(Note::Restarting { who: Post::Admin, why, after }));
    }

    /// When it is to be killed or started.
    pub(super) fn attendant_due(&self) -> Option<Instant> {
        let until = self.attendant.running.as_ref().and_then(|running| match running.stage {
            Stage::Booting { until } => Some(until),
            Stage::Up | Stage::Killed => None,
        });
        until.or(self.attendant.respawn_at).filter(|_| self.phase != Phase::Finished)
    }

    /// Kills it if it has not greeted in time, starts it if it is time.
    pub(super) fn mind_attendant(&mut self, now: Instant) {
        if self.attendant_due().is_none_or(|due| due > now) {
            return;
        }
        match &mut self.attendant.running {
            Some(running) => {
                running.stage = Stage::Killed;
                let id = running.id;
                let after: Duration = self.policy.boot_timeout;
                self.out.push(Action::Note(Note::BootTimeout { who: Post::Admin, after }));
                self.out.push(Action::Signal { child: id, signal: ChildSignal::Kill });
            }
            None if matches!(self.phase, Phase::Booting | Phase::Running) => self.start_attendant(now),
            None => self.attendant.respawn_at = None,
        }
    }
}
