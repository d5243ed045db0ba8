//! Connections on their way to other slots: sent at once where that works, else waiting here for a while.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::Handoff;
use super::channel::{self, SendError};
use super::message::Message;
use super::outcome::Outcome;
use crate::connection::Counted;
use crate::deadline::later;
use crate::id::WorkerId;
use crate::sys::watch;

/// How many connections wait for one slot. Beyond that they are answered 503: a queue that long is not read.
const WAITING: usize = 1024;

/// How long until the next attempt where nothing tells when that can work.
const PAUSE: Duration = Duration::from_millis(10);

/// A connection without a place in this process's runtime, and what is to be said about it.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) socket: OwnedFd,
    pub(crate) message: Message,
    /// It counts as open here until it is somewhere else.
    pub(crate) counted: Counted,
}

/// How long a connection may wait, none for ever, and among how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) patience: Option<Duration>,
    pub(crate) most: usize,
}

impl Terms {
    pub(crate) fn of(patience: Option<Duration>) -> Self {
        Self { patience, most: WAITING }
    }
}

/// The sending ends, one for each slot.
#[derive(Debug)]
pub(crate) struct Outbox {
    lanes: Vec<Lane>,
}

/// What becomes of a parcel that is handed in.
#[derive(Debug)]
pub(crate) enum Handed {
    Sent,
    /// It waits, because of this. If it is the first that does, somebody has to see to it: [`run`].
    Waits {
        because: Outcome,
        is_first: bool,
    },
    /// It cannot be sent.
    Back(Parcel, Outcome),
}

#[derive(Debug)]
struct Lane {
    socket: OwnedFd,
    queue: Mutex<VecDeque<(Parcel, Instant)>>,
}

impl Lane {
    fn queue(&self) -> MutexGuard<'_, VecDeque<(Parcel, Instant)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempt(&self, parcel: &Parcel) -> Result<(), SendError> {
        channel::send(self.socket.as_fd(), &parcel.message, parcel.socket.as_fd())
    }
}

impl Outbox {
    /// An outbox with these sending ends, in the order of their slots.
    pub(crate) fn new(senders: Vec<OwnedFd>) -> Self {
        Self { lanes: senders.into_iter().map(|socket| Lane { socket, queue: Mutex::default() }).collect() }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.queue().is_empty())
    }

    /// Sends a connection to `owner`, after those that wait already. It may have to wait, too.
    pub(crate) fn hand_in(&self, owner: WorkerId, parcel: Parcel, terms: Terms) -> Handed {
        let Some(lane) = self.lanes.get(owner.index()) else { return Handed::Back(parcel, Outcome::DeadSlot) };
        let mut queue = lane.queue();
        let is_first = queue.is_empty();
        let mut because = Outcome::QueueFull;
        if is_first {
            match lane.attempt(&parcel) {
                Ok(()) => return Handed::Sent,
                Err(error @ (SendError::Full | SendError::TooManyInFlight)) => because = outcome(&error),
                Err(error) => return Handed::Back(parcel, outcome(&error)),
            }
        }
        if queue.len() >= terms.most {
            return Handed::Back(parcel, Outcome::Expired);
        }
        let until = later(Instant::now(), terms.patience.unwrap_or(Duration::MAX));
        queue.push_back((parcel, until));
        Handed::Waits { because, is_first }
    }
}

fn outcome(error: &SendError) -> Outcome {
    match error {
        SendError::Full => Outcome::QueueFull,
        SendError::TooManyInFlight => Outcome::TooManyInFlight,
        SendError::TooLarge => Outcome::TooLarge,
        SendError::Gone => Outcome::ReceiverGone,
    }
}

/// Sends what waits for `owner` as its channel takes it, until nothing waits any more.
pub(crate) async fn run(handoff: Arc<Handoff>, owner: WorkerId) {
    let Some(lane) = handoff.outbox().lanes.get(owner.index()) else { return };
    // Watched only while something waits: each message that is read would wake everybody who watches.
    let writable = lane.socket.try_clone().and_then(watch::writable);
    loop {
        match send_front(lane) {
            Turn::Sent { is_last } => {
                handoff.count_sent();
                if is_last {
                    return;
                }
            }
            Turn::Back { parcel, outcome, is_last } => {
                handoff.take_back(owner, parcel, outcome);
                if is_last {
                    return;
                }
            }
            Turn::Wait { until, is_full } => {
                let room = wait(writable.as_ref().ok().filter(|_| is_full));
                let _ = timeout_at(until, room).await;
            }
            Turn::Over => return,
        }
    }
}

/// What an attempt to send the parcel in front came to. Whether it was the last is known only under the lock: whoever
/// comes after the last begins another run.
enum Turn {
    Sent {
        is_last: bool,
    },
    Back {
        parcel: Parcel,
        outcome: Outcome,
        is_last: bool,
    },
    /// The channel takes nothing. Full, it tells when it does again.
    Wait {
        until: Instant,
        is_full: bool,
    },
    Over,
}

fn send_front(lane: &Lane) -> Turn {
    let mut queue = lane.queue();
    let Some((parcel, until)) = queue.front() else { return Turn::Over };
    let until = *until;
    let outcome = match lane.attempt(parcel) {
        Ok(()) => {
            queue.pop_front();
            return Turn::Sent { is_last: queue.is_empty() };
        }
        Err(error @ (SendError::Full | SendError::TooManyInFlight)) if Instant::now() < until => {
            return Turn::Wait { until, is_full: matches!(error, SendError::Full) };
        }
        Err(SendError::Full | SendError::TooManyInFlight) => Outcome::Expired,
        Err(error) => outcome(&error),
    };
    match queue.pop_front() {
        Some((parcel, _)) => Turn::Back { parcel, outcome, is_last: queue.is_empty() },
        None => Turn::Over,
    }
}

/// Waits until the channel takes more, or for a moment where nobody tells.
async fn wait(writable: Option<&tokio::io::unix::AsyncFd<OwnedFd>>) {
    let Some(writable) = writable else { return sleep(PAUSE).await };
    match writable.writable().await {
        Ok(mut ready) => ready.clear_ready(),
        Err(_) => sleep(PAUSE).await,
    }
}
