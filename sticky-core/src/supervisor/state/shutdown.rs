//! The end: everybody drains, in an order, or is killed at once.

use std::time::Instant;

use super::super::event::{Action, ChildSignal, Note, Outcome};
use super::{KILL_TIME, Phase, Stage, State};
use crate::control::Part;
use crate::worker::{DrainReason, SAME_SIGNAL};

impl State {
    pub(super) fn terminate(&mut self, now: Instant) {
        match self.phase {
            Phase::Booting | Phase::Running => self.shut_down(now),
            Phase::ShuttingDown { since, .. } if now < since + SAME_SIGNAL => {}
            Phase::ShuttingDown { .. } => {
                self.out.push(Action::Note(Note::StoppingNow));
                self.stop(now, Outcome::Forced);
            }
            Phase::Stopping { .. } | Phase::Finished => {}
        }
    }

    fn shut_down(&mut self, now: Instant) {
        let timeout = self.policy.shutdown_timeout;
        self.out.push(Action::Note(Note::ShuttingDown { within: timeout }));
        self.out.push(Action::Unpublish);
        self.forget_reload();
        self.asked_is_given_up();
        self.forget_scaling();
        self.forget_reexec();
        for slot in &mut self.slots {
            slot.respawn_at = None;
            // Before the cluster is up nothing is served.
            slot.emptied = [self.phase == Phase::Booting || !slot.is_known; Part::ALL.len()];
        }
        self.phase = Phase::ShuttingDown { since: now, deadline: now + timeout, listening: true };
        self.end_preparer(now + timeout);
        // Somebody must empty the queue of a slot that nobody reads right now: before the drain, which empties it.
        self.settle_readers(now);
        for (&id, child) in &mut self.children {
            if child.stopped {
                self.out.push(Action::Signal { child: id, signal: ChildSignal::Continue });
            }
            self.out.push(Action::Drain { child: id, timeout, reason: DrainReason::Shutdown });
            match child.stage {
                Stage::Ready | Stage::Soaking { .. } | Stage::Superseded | Stage::Retired { .. } => {
                    child.stage = Stage::Draining
                }
                Stage::Poised | Stage::Parting { .. } => child.stage = Stage::Draining,
                Stage::Booting { .. } => {
                    self.out.push(Action::Signal { child: id, signal: ChildSignal::Terminate });
                }
                _ => {}
            }
        }
    }

    /// Ends everything at once.
    pub(super) fn stop(&mut self, now: Instant, outcome: Outcome) {
        self.phase = Phase::Stopping { until: now + KILL_TIME, outcome };
        (self.reload, self.next_reload) = (None, None);
        self.asked_is_given_up();
        (self.scaling, self.next_count) = (None, None);
        for slot in &mut self.slots {
            slot.respawn_at = None;
        }
        self.kill_preparer();
        self.forget_reexec();
        for (&id, child) in &mut self.children {
            child.stage = Stage::Killed;
            self.out.push(Action::Signal { child: id, signal: ChildSignal::Kill });
        }
        self.out.push(Action::CloseListeners);
    }
}
