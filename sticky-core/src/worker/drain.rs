//! The news that this worker takes no new work, and until when the old may go on.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A signal that follows another within this time is the same one: launchers signal the process and then its group.
pub(crate) const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Why a worker drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DrainReason {
    /// Everything ends.
    Shutdown,
    /// Another generation has taken over this worker's slot, in a reload or because this one had used up its quota. Where connections move, idle ones go there
    /// and nothing else changes for their clients; what is executing is finished here.
    Replaced,
    /// The cluster has fewer workers from now on, and this one's slot is not among them. Its clients belong to the others:
    /// where connections move, idle ones go there and nothing else changes for their clients; what is executing is finished
    /// here.
    ScaledIn,
    /// The supervisor is gone: what is executing has one second.
    #[serde(skip)]
    SupervisorGone,
}

impl DrainReason {
    /// How much ends.
    /// Whether others go on with this worker's clients.
    pub(crate) fn has_heirs(self) -> bool {
        self.rank() == Self::Replaced.rank()
    }

    fn rank(self) -> u8 {
        match self {
            Self::Replaced | Self::ScaledIn => 0,
            Self::Shutdown => 1,
            Self::SupervisorGone => 2,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Started {
    reason: DrainReason,
    deadline: Instant,
    /// See [`DrainTrigger::forsake`].
    is_forsaken: bool,
}

/// Tells when this worker drains: no new work, finish the old.
///
/// A long-lived response or WebSocket should end itself when the drain has started; what is open at the
/// [deadline](Self::deadline) is cut.
///
/// ```
/// # async fn events(drain: sticky_core::Drain) {
/// loop {
///     tokio::select! {
///         () = drain.started() => break, // say goodbye
///         () = next_event() => { /* send it */ }
///     }
/// }
/// # }
/// # async fn next_event() { std::future::pending().await }
/// # let drain = sticky_core::Worker::detached().drain();
/// # assert!(!drain.is_started());
/// ```
#[derive(Clone, Debug)]
pub struct Drain {
    state: watch::Receiver<Option<Started>>,
    /// See [`Self::of_forwarded`].
    is_of_forwarded: bool,
}

impl Drain {
    /// Waits until the drain starts; returns at once when it has.
    pub async fn started(&self) {
        self.reached(DrainReason::Replaced).await;
    }

    /// The same for connections that come from proxies. At the end of everything the proxies drain, and close what nobody
    /// needs any more: if the worker did, a request that is on its way would be lost. They cut, too, since it is their clients
    /// that are cut; what the worker has is late when they have done.
    pub(crate) fn of_forwarded(&self) -> Self {
        Self { state: self.state.clone(), is_of_forwarded: true }
    }

    fn concerns(&self, started: Started) -> bool {
        !(self.is_of_forwarded && started.reason == DrainReason::Shutdown)
    }

    /// Waits until it ends at least as much as that.
    pub(crate) async fn reached(&self, least: DrainReason) {
        let mut state = self.state.clone();
        let is_reached =
            |state: &Option<Started>| state.is_some_and(|now| now.reason.rank() >= least.rank() && self.concerns(now));
        if state.wait_for(is_reached).await.is_err() {
            // The trigger is gone, so it never starts. Unreachable for a worker, which keeps its trigger.
            std::future::pending::<()>().await;
        }
    }

    /// Whether the drain has started.
    #[inline]
    pub fn is_started(&self) -> bool {
        // Asked for every request, so without the lock that a look at the value takes. Nobody ever marks it as seen
        // in this receiver, only in copies of it.
        self.state.has_changed().unwrap_or(true) && self.is_concerned()
    }

    #[cold]
    fn is_concerned(&self) -> bool {
        self.state.borrow().is_some_and(|started| self.concerns(started))
    }

    /// Whether others go on with this worker's clients: another generation, or those that are left.
    #[inline]
    pub(crate) fn is_inherited(&self) -> bool {
        self.is_started() && self.reason().is_some_and(DrainReason::has_heirs)
    }

    /// Whether nobody goes on with this worker's clients.
    fn is_the_end(&self) -> bool {
        self.is_started() && !self.is_inherited()
    }

    /// Whether the client of a connection is to be told that nothing follows there: not if the connection itself `moves` to
    /// where its client is served from now on.
    pub(crate) fn ends_connections(&self, moves: bool) -> bool {
        self.is_started() && (!moves || self.is_the_end())
    }

    /// When what is still open will be cut; `None` before the drain has started.
    pub fn deadline(&self) -> Option<Instant> {
        self.state.borrow().map(|started| started.deadline)
    }

    /// Why the worker drains; `None` before the drain has started.
    pub fn reason(&self) -> Option<DrainReason> {
        self.state.borrow().map(|started| started.reason)
    }

    /// Waits until what is left is to be cut: for the deadline of a drain that has started, also if it is moved forward
    /// meanwhile.
    pub(crate) async fn expired(&self) {
        let mut state = self.state.clone();
        loop {
            let due = state.borrow_and_update().and_then(|started| self.due(started));
            tokio::select! {
                () = reach(due) => return,
                changed = state.changed() => if changed.is_err() {
                    return reach(due).await;
                }
            }
        }
    }

    /// Whether what is left is to be cut.
    pub(crate) fn is_expired(&self) -> bool {
        let due = self.state.borrow().and_then(|started| self.due(started));
        due.is_some_and(|due| Instant::now() >= due)
    }

    /// When what is left is to be cut, as far as that is known.
    fn due(&self, started: Started) -> Option<Instant> {
        (self.concerns(started) || started.is_forsaken).then_some(started.deadline)
    }

    /// Waits until no proxy asks this worker anything any more, in a shutdown.
    pub(crate) async fn forsaken(&self) {
        let mut state = self.state.clone();
        if state.wait_for(|state| state.is_some_and(|started| started.is_forsaken)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits for that moment, for ever if there is none.
async fn reach(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Wakes the task of one connection when the drain starts, and again when it becomes the end of everything.
pub(crate) struct News<'a, D, R> {
    drain: &'a Drain,
    awaited: Pin<&'a mut D>,
    /// Makes `awaited`, for how much ends: [`Drain::reached`], and not subject to the task's budget. The one poll it gets must
    /// not be put off.
    reached: R,
    asked: Asked,
}

/// What a task is woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Start,
    End,
}

impl<'a, D: Future<Output = ()>, R: Fn(DrainReason) -> D> News<'a, D, R> {
    /// `awaited` is what `reached` makes of [`DrainReason::Replaced`].
    pub(crate) fn new(drain: &'a Drain, awaited: Pin<&'a mut D>, reached: R) -> Self {
        Self { drain, awaited, reached, asked: Asked::Nothing }
    }

    /// Whether there is some since this was asked last, so that everything is to be looked at again.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        // One poll is enough for the wake-up, because a spawned task keeps its waker; each costs a lock.
        self.asked = match self.asked {
            Asked::Nothing => Asked::Start,
            Asked::Start if self.drain.is_started() => {
                self.awaited.set((self.reached)(DrainReason::Shutdown));
                Asked::End
            }
            Asked::Start | Asked::End => return false,
        };
        self.awaited.as_mut().poll(cx).is_ready()
    }
}

/// Starts a [`Drain`].
#[derive(Clone, Debug)]
pub(crate) struct DrainTrigger {
    state: watch::Sender<Option<Started>>,
}

impl DrainTrigger {
    pub(crate) fn new() -> (Self, Drain) {
        let (sender, receiver) = watch::channel(None);
        (Self { state: sender }, Drain { state: receiver, is_of_forwarded: false })
    }

    /// Starts the drain. Once it has started, it ends no later and no less than was said before.
    pub(crate) fn start(&self, reason: DrainReason, deadline: Instant) {
        self.state.send_if_modified(|state| {
            let started = match *state {
                None => Started { reason, deadline, is_forsaken: false },
                Some(before) => before.and(reason, deadline),
            };
            state.replace(started) != Some(started)
        });
    }

    /// No proxy asks this worker anything any more: what it still has of theirs nobody waits for. Without effect before the
    /// drain has started.
    pub(crate) fn forsake(&self) {
        self.state.send_if_modified(|state| {
            state.as_mut().is_some_and(|started| !std::mem::replace(&mut started.is_forsaken, true))
        });
    }
}

impl Started {
    fn and(self, reason: DrainReason, deadline: Instant) -> Self {
        let reason = if reason.rank() > self.reason.rank() { reason } else { self.reason };
        Self { reason, deadline: deadline.min(self.deadline), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn starts_once_and_tells_everyone() {
        let (trigger, drain) = DrainTrigger::new();
        assert!(!drain.is_started());
        assert_eq!((drain.deadline(), drain.reason()), (None, None));
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.started().await }
        });
        let deadline = Instant::now() + Duration::from_secs(3);
        trigger.start(DrainReason::Shutdown, deadline);
        waiting.await.unwrap();
        drain.started().await;
        assert!(drain.is_started());
        assert_eq!((drain.deadline(), drain.reason()), (Some(deadline), Some(DrainReason::Shutdown)));
    }

    #[tokio::test]
    async fn only_an_earlier_deadline_counts() {
        let (trigger, drain) = DrainTrigger::new();
        let now = Instant::now();
        trigger.start(DrainReason::Shutdown, now + Duration::from_secs(3600));
        trigger.start(DrainReason::Replaced, now + Duration::from_secs(7200));
        assert_eq!(drain.reason(), Some(DrainReason::Shutdown));
        let expired = tokio::spawn({
            let drain = drain.clone();
            async move { drain.expired().await }
        });
        trigger.start(DrainReason::SupervisorGone, now);
        expired.await.unwrap();
        assert_eq!(drain.deadline(), Some(now));
    }

    #[tokio::test]
    async fn the_end_of_everything_is_for_the_proxies_to_tell_connections() {
        let (trigger, drain) = DrainTrigger::new();
        let forwarded = drain.of_forwarded();
        let soon = Instant::now() + Duration::from_secs(1);
        trigger.start(DrainReason::Replaced, soon);
        forwarded.started().await;
        assert!(forwarded.is_started() && forwarded.is_inherited() && !forwarded.ends_connections(true));
        trigger.start(DrainReason::Shutdown, soon);
        assert!(drain.ends_connections(true));
        assert!(!forwarded.is_started() && !forwarded.ends_connections(true));
        trigger.start(DrainReason::SupervisorGone, soon);
        forwarded.reached(DrainReason::Shutdown).await;
        assert!(forwarded.ends_connections(true));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_forwarded_is_not_late_before_the_proxies_have_done() {
        let (trigger, drain) = DrainTrigger::new();
        let forwarded = drain.of_forwarded();
        trigger.forsake();
        let expired = tokio::spawn({
            let forwarded = forwarded.clone();
            async move { forwarded.expired().await }
        });
        trigger.start(DrainReason::Shutdown, Instant::now());
        drain.expired().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(drain.is_expired() && !forwarded.is_expired() && !expired.is_finished());
        trigger.forsake();
        forwarded.forsaken().await;
        expired.await.unwrap();
        assert!(forwarded.is_expired());
    }

    #[tokio::test]
    async fn what_is_forwarded_is_late_with_everything_else_when_there_is_nobody_to_tell() {
        for reason in [DrainReason::Replaced, DrainReason::SupervisorGone] {
            let (trigger, drain) = DrainTrigger::new();
            trigger.start(reason, Instant::now());
            drain.of_forwarded().expired().await;
        }
    }

    #[tokio::test]
    async fn a_drain_can_become_the_end_of_everything_but_not_less() {
        let (trigger, drain) = DrainTrigger::new();
        let soon = Instant::now() + Duration::from_secs(1);
        trigger.start(DrainReason::Replaced, soon);
        drain.started().await;
        assert!(drain.is_inherited());
        let ends = tokio::spawn({
            let drain = drain.clone();
            async move { drain.reached(DrainReason::Shutdown).await }
        });
        trigger.start(DrainReason::Shutdown, soon + Duration::from_secs(9));
        ends.await.unwrap();
        trigger.start(DrainReason::Replaced, soon + Duration::from_secs(9));
        assert!(!drain.is_inherited());
        assert_eq!((drain.deadline(), drain.reason()), (Some(soon), Some(DrainReason::Shutdown)));
    }
}
