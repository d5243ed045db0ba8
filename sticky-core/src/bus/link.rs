//! The way to one other process, as everybody in this one sees it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError, watch};

use super::lanes::{Lanes, ROOM};
use super::message::BusPeer;

/// What a message costs beside its topic and payload.
const OVERHEAD: usize = 128;

/// A peer that is connected.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: BusPeer,
    lanes: Mutex<Lanes>,
    /// There is something to write.
    to_write: Notify,
    room: Arc<Semaphore>,
    /// It has said what it has subscribed to.
    is_greeted: AtomicBool,
    /// The last question that was written to it, and the last it has answered.
    asked: AtomicU64,
    answered: AtomicU64,
    /// It has taken or answered nothing for a while: nobody waits for it until it does again.
    silent: watch::Sender<bool>,
}

/// What has become of a message to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Queued,
    /// There is no room for it, and the peer does not read.
    Missed,
    /// The peer has ended.
    Gone,
}

impl Link {
    pub(super) fn new(peer: BusPeer) -> Self {
        Self {
            peer,
            lanes: Mutex::new(Lanes::new()),
            to_write: Notify::new(),
            room: Arc::new(Semaphore::new(ROOM)),
            is_greeted: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            silent: watch::Sender::new(false),
        }
    }

    // === Messages ===

    /// Queues a message; none if there is no room now.
    pub(super) fn try_send(&self, topic: &Arc<str>, payload: &Bytes) -> Option<Fate> {
        match Arc::clone(&self.room).try_acquire_many_owned(cost(topic, payload)) {
            Ok(room) => Some(self.queue(topic, payload, room)),
            Err(TryAcquireError::Closed) => Some(Fate::Gone),
            Err(TryAcquireError::NoPermits) => None,
        }
    }

    /// The same, waiting for room as long as the peer reads.
    pub(super) async fn send(&self, topic: &Arc<str>, payload: &Bytes) -> Fate {
        let room = Arc::clone(&self.room).acquire_many_owned(cost(topic, payload));
        tokio::select! {
            biased;
            room = room => room.map_or(Fate::Gone, |room| self.queue(topic, payload, room)),
            () = self.falls_silent() => Fate::Missed,
        }
    }

    fn queue(&self, topic: &Arc<str>, payload: &Bytes, room: OwnedSemaphorePermit) -> Fate {
        self.say(|lanes| lanes.message(topic, payload.clone(), Some(room)));
        Fate::Queued
    }

    /// Waits until everything that has been queued is written, unless the peer does not read or is gone.
    pub(super) async fn flush(&self) {
        // Nobody gets room before those who ask for less, and nobody after: the semaphore is fair.
        tokio::select! {
            _ = self.room.acquire_many(permits(ROOM)) => {}
            () = self.falls_silent() => {}
        }
    }

    // === What is written ===

    /// Adds to what is to be written.
    pub(super) fn say(&self, what: impl FnOnce(&mut Lanes)) {
        what(&mut self.lanes());
        self.to_write.notify_one();
    }

    /// Adds what is to be written next, if there is anything; gives back the room to be dropped when it is written.
    pub(super) fn fill(&self, out: &mut Vec<u8>) -> Vec<OwnedSemaphorePermit> {
        let filled = self.lanes().fill(out);
        if let Some(serial) = filled.asked {
            self.asked.store(serial, Ordering::Relaxed);
        }
        filled.done
    }

    pub(super) async fn has_to_write(&self) {
        self.to_write.notified().await;
    }

    // === What the peer is like ===

    /// It has said what it has subscribed to; whether that is news.
    pub(super) fn greet(&self) -> bool {
        !self.is_greeted.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_greeted(&self) -> bool {
        self.is_greeted.load(Ordering::Relaxed)
    }

    pub(super) fn answer(&self, serial: u64) {
        self.answered.fetch_max(serial, Ordering::Relaxed);
    }

    /// Whether it knows of everything up to this question, or need not be waited for.
    pub(super) fn is_settled(&self, serial: u64) -> bool {
        self.answered.load(Ordering::Relaxed) >= serial || self.is_silent()
    }

    /// Whether it still has to say or to answer something.
    pub(super) fn owes(&self) -> bool {
        !self.is_greeted() || self.answered.load(Ordering::Relaxed) < self.asked.load(Ordering::Relaxed)
    }

    pub(super) fn is_silent(&self) -> bool {
        *self.silent.borrow()
    }

    /// Sets whether it has to be waited for; tells whether that is news.
    pub(super) fn set_silent(&self, silent: bool) -> bool {
        self.silent.send_if_modified(|is| std::mem::replace(is, silent) != silent)
    }

    async fn falls_silent(&self) {
        // The sender is here, so it cannot fail.
        let _ = self.silent.subscribe().wait_for(|silent| *silent).await;
    }

    /// Nobody can send to it any more, or waits for it.
    pub(super) fn close(&self) {
        self.room.close();
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The room a message takes: at most all there is.
fn cost(topic: &str, payload: &Bytes) -> u32 {
    permits((OVERHEAD + topic.len() + payload.len()).min(ROOM))
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("all the room there is fits")
}
