//! The connections to workers that carry nothing just now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use tokio::time::{Instant, timeout};

use super::body::{Outgoing, Progress};
use super::upstream::Announced;
use super::wire::Begins;
use crate::dispatch::handoff::placer::UnderWay;
use crate::id::WorkerId;

/// A connection to a worker.
#[derive(Debug)]
pub(super) struct Sender {
    requests: SendRequest<Outgoing>,
    begins: Begins,
}

impl Sender {
    pub(super) fn new(requests: SendRequest<Outgoing>, begins: Begins) -> Self {
        Self { requests, begins }
    }

    /// Sends a request, and waits for the head of its response.
    ///
    /// # Errors
    ///
    /// What the connection says; the request comes back where nothing of it has been sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        self.begins.set();
        self.requests.try_send_request(request).await
    }

    /// Whether it can carry a request, which it may learn in a moment.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.requests.is_ready()
            || (!self.is_closed() && matches!(timeout(READY_TIME, self.requests.ready()).await, Ok(Ok(()))))
    }
}

impl Kept for Sender {
    fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }
}

/// A connection that can be used again.
pub(super) trait Kept {
    /// Whether the other side has closed it, as far as that is known.
    fn is_closed(&self) -> bool;
}

/// How many are kept for one slot.
const MOST_IDLE: usize = 1024;

/// How long one is kept that nobody needs.
const IDLE_TIME: Duration = Duration::from_secs(15);

/// How long one may take to be ready after its last response has ended: a turn of its task.
const READY_TIME: Duration = Duration::from_millis(100);

/// What is idle, slot by slot, the one used last on top.
#[derive(Debug)]
pub(super) struct Pool<C> {
    slots: Vec<Mutex<Vec<Idle<C>>>>,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since: Instant,
    era: Era,
}

/// To whom a connection leads: how often the slot's process had ceased to run or begun again when it was made, and the
/// port of who listens by himself. What was made while the slot did not run leads to whoever stood in, and has no era.
pub(super) type Era = Option<(u32, Option<u16>)>;

impl<C: Kept> Pool<C> {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots: (0..slots).map(|_| Mutex::new(Vec::new())).collect() }
    }

    /// A connection to this slot of this era that was idle for less than `at_most`.
    pub(super) fn take(&self, slot: WorkerId, now: Era, at_most: Option<Duration>) -> Option<C> {
        let mut idle = self.idle(slot)?;
        while let Some(Idle { connection, since, era }) = idle.pop() {
            if era != now || at_most.is_some_and(|at_most| since.elapsed() >= at_most) {
                // Those below it have been idle for longer.
                idle.clear();
                return None;
            }
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    pub(super) fn put(&self, slot: WorkerId, era: Era, connection: C) {
        if connection.is_closed() || era.is_none() {
            return;
        }
        let Some(mut idle) = self.idle(slot) else { return };
        if idle.len() < MOST_IDLE {
            idle.push(Idle { connection, since: Instant::now(), era });
        }
    }

    /// Closes what has been idle for too long.
    pub(super) fn tidy(&self) {
        for slot in &self.slots {
            lock(slot).retain(|idle| !idle.connection.is_closed() && idle.since.elapsed() < IDLE_TIME);
        }
    }

    fn idle(&self, slot: WorkerId) -> Option<MutexGuard<'_, Vec<Idle<C>>>> {
        self.slots.get(slot.index()).map(lock)
    }
}

fn lock<C>(idle: &Mutex<Vec<Idle<C>>>) -> MutexGuard<'_, Vec<Idle<C>>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that carries a response.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) pool: Arc<Pool<Sender>>,
    pub(super) slot: WorkerId,
    pub(super) era: Era,
    pub(super) sender: Sender,
    pub(super) sent: Arc<Progress>,
    pub(super) _under_way: (Option<UnderWay>, Option<Announced>),
}

impl Lease {
    /// The response has ended: if its request has, too, the connection can carry another. Dropped before that, it is
    /// closed.
    pub(super) fn end(self) {
        if self.sent.is_sent() {
            self.pool.put(self.slot, self.era, self.sender);
        } else {
            self.sent.abandon();
        }
    }
}
