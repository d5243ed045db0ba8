//! What waits for one subscription: a bounded queue that drops the oldest.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::message::{BusMessage, Lagged};

/// How much may wait for a subscription that is not read. Beyond either, the oldest messages are dropped and
/// [`Lagged`] is told in their place; the newest message stays, however large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusBacklog {
    /// Messages; default 4,096.
    pub messages: usize,
    /// Bytes of their payloads; default 32 MiB.
    pub bytes: usize,
}

impl Default for BusBacklog {
    fn default() -> Self {
        Self { messages: 4096, bytes: 32 * 1024 * 1024 }
    }
}

/// The queue of one subscription: filled by who publishes in this process and by the threads that read from others.
#[derive(Debug)]
pub(super) struct Mailbox {
    limit: BusBacklog,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<BusMessage>,
    bytes: usize,
    /// Dropped since the reader was last told.
    lost: u64,
    reader: Option<Waker>,
}

impl Mailbox {
    pub(super) fn new(limit: BusBacklog) -> Self {
        Self { limit, queue: Mutex::default() }
    }

    /// Adds a message; tells how many were dropped for it.
    pub(super) fn push(&self, message: BusMessage) -> u64 {
        let mut queue = self.lock();
        queue.bytes += message.payload.len();
        queue.waiting.push_back(message);
        let dropped = queue.trim(self.limit);
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
        dropped
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Result<BusMessage, Lagged>> {
        let mut queue = self.lock();
        if queue.lost > 0 {
            return Poll::Ready(Err(Lagged(std::mem::take(&mut queue.lost))));
        }
        if let Some(message) = queue.pop() {
            return Poll::Ready(Ok(message));
        }
        queue.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn pop(&mut self) -> Option<BusMessage> {
        let message = self.waiting.pop_front()?;
        self.bytes -= message.payload.len();
        Some(message)
    }

    fn trim(&mut self, limit: BusBacklog) -> u64 {
        let mut dropped = 0;
        while self.waiting.len() > 1 && (self.waiting.len() > limit.messages || self.bytes > limit.bytes) {
            self.pop();
            dropped += 1;
        }
        self.lost += dropped;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;

    use super::super::BusPeer;
    use super::*;
    use crate::id::{Generation, WorkerId};

    fn message(payload: &'static [u8]) -> BusMessage {
        let from = BusPeer { worker: WorkerId::new(0), generation: Generation::FIRST };
        BusMessage { from, topic: "t".into(), payload: Bytes::from_static(payload) }
    }

    fn read(mailbox: &Mailbox) -> Poll<Result<Bytes, Lagged>> {
        let polled = mailbox.poll(&mut Context::from_waker(Waker::noop()));
        polled.map_ok(|message| message.payload)
    }

    #[test]
    fn the_oldest_go_and_the_gap_is_told_before_what_follows_it() {
        let mailbox = Mailbox::new(BusBacklog { messages: 2, bytes: 100 });
        let dropped: Vec<u64> = [b"1", b"2", b"3", b"4"].map(|text| mailbox.push(message(text))).to_vec();
        assert_eq!(dropped, [0, 0, 1, 1]);
        assert_eq!(read(&mailbox), Poll::Ready(Err(Lagged(2))));
        assert_eq!(read(&mailbox), Poll::Ready(Ok(Bytes::from_static(b"3"))));
        assert_eq!(mailbox.push(message(b"5")), 0);
        assert_eq!(read(&mailbox), Poll::Ready(Ok(Bytes::from_static(b"4"))));
        assert_eq!(read(&mailbox), Poll::Ready(Ok(Bytes::from_static(b"5"))));
        assert_eq!(read(&mailbox), Poll::Pending);
    }

    #[test]
    fn bytes_are_bounded_too_but_the_newest_message_stays() {
        let mailbox = Mailbox::new(BusBacklog { messages: 100, bytes: 4 });
        assert_eq!(mailbox.push(message(b"12345")), 0);
        assert_eq!(mailbox.push(message(b"67")), 1);
        assert_eq!(mailbox.push(message(b"89")), 0);
        assert_eq!(mailbox.push(message(b"0")), 1);
        assert_eq!(read(&mailbox), Poll::Ready(Err(Lagged(2))));
        assert_eq!(read(&mailbox), Poll::Ready(Ok(Bytes::from_static(b"89"))));
        assert_eq!(read(&mailbox), Poll::Ready(Ok(Bytes::from_static(b"0"))));
        assert_eq!(mailbox.lock().bytes, 0);
    }
}
