//! A connection of hyper's outlives its client: when that has gone, or moved to another worker, the next one takes its
//! place.
//!
//! ```text
//!              ┌────────────── Berths: who is vacant ◄──────────────┐
//!  connection ─┴─► Berth ─► Socket ─► hyper ─► Tracked              │ the client has left off between two messages
//!                    └───── its service ─────────┘                  │
//!                           Socket ── drops the connection, which closes or moves it ──┘
//! ```
//!
//! To hyper that is one client who asks again after a pause. To make a connection of hyper's (a task, its buffers, its
//! place in the drain) costs several times what a short request does, and where each request is another worker's, each
//! would pay for one. Nothing of a client stays behind: between messages hyper has nothing of it, and the service and
//! everything known about who is there come with each connection.
//!
//! Only guarded connections change places: the guard knows for certain where a message ends.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::runtime::Handle;

use super::service::Guest;
use crate::connection::Connection;
use crate::deadline::Timeouts;
use crate::worker::Drain;

/// How many vacant ones are kept, of some 10 KiB each.
const MAX_VACANT: usize = 128;

/// The vacant berths of a worker.
pub(crate) struct Berths<S> {
    vacant: Mutex<Vec<Arc<Berth<S>>>>,
    drain: Drain,
    timeouts: Timeouts,
    open: Open<S>,
}

/// Serves a connection in a new place.
type Open<S> = fn(&Arc<Berths<S>>, Connection, Guest<S>);

impl<S> Berths<S> {
    pub(crate) fn new(drain: Drain, timeouts: Timeouts, open: Open<S>) -> Arc<Self> {
        Arc::new(Self { vacant: Mutex::default(), drain, timeouts, open })
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.drain
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Serves a connection where there is room, or else in a new place.
    pub(crate) fn seat(self: &Arc<Self>, connection: Connection, guest: Guest<S>) {
        // HTTP/2 begins with what only a new connection of hyper's understands.
        let berth = connection.minds_messages().then(|| self.pop()).flatten();
        match berth {
            Some(berth) => self.seat_in(berth, Box::new((connection, guest))),
            None => (self.open)(self, connection, guest),
        }
    }

    fn seat_in(self: &Arc<Self>, berth: Arc<Berth<S>>, arriving: Arriving<S>) {
        // It may have closed meanwhile.
        if let Err(arriving) = berth.seat(arriving) {
            let (connection, guest) = *arriving;
            self.seat(connection, guest);
        }
    }

    fn pop(&self) -> Option<Arc<Berth<S>>> {
        lock(&self.vacant).pop()
    }

    fn push(&self, berth: Arc<Berth<S>>) -> bool {
        let mut vacant = lock(&self.vacant);
        let has_room = vacant.len() < MAX_VACANT;
        if has_room {
            vacant.push(berth);
        }
        has_room
    }
}

/// What hyper takes for one client.
pub(crate) struct Berth<S> {
    berths: Arc<Berths<S>>,
    state: Mutex<State<S>>,
    /// A service waits to take over. To be looked at for each request, which a lock would be too much for.
    has_guest: AtomicBool,
}

enum State<S> {
    /// Somebody is there. If he has only just come, with the service that is to take over.
    Taken(Option<Guest<S>>),
    /// Nobody is there.
    Vacant(Waker),
    /// Somebody has come.
    Arriving(Arriving<S>),
    /// hyper has ended.
    Closed,
}

type Arriving<S> = Box<(Connection, Guest<S>)>;

impl<S> Berth<S> {
    /// With the first client in it.
    pub(crate) fn new(berths: &Arc<Berths<S>>) -> Arc<Self> {
        let state = Mutex::new(State::Taken(None));
        Arc::new(Self { berths: Arc::clone(berths), state, has_guest: AtomicBool::new(false) })
    }

    /// The client has gone: whether the next may come. `waker` is told then.
    pub(crate) fn vacate(self: &Arc<Self>, waker: &Waker) -> bool {
        *lock(&self.state) = State::Vacant(waker.clone());
        let is_listed = self.berths.push(Arc::clone(self));
        if !is_listed {
            *lock(&self.state) = State::Taken(None);
        }
        is_listed
    }

    /// Who has come to a vacant berth. Else `waker` is told when somebody does.
    pub(crate) fn poll_arrival(&self, waker: &Waker) -> Poll<Connection> {
        let mut state = lock(&self.state);
        match mem::replace(&mut *state, State::Vacant(waker.clone())) {
            State::Arriving(arriving) => {
                let (connection, guest) = *arriving;
                *state = State::Taken(Some(guest));
                self.has_guest.store(true, Relaxed);
                Poll::Ready(connection)
            }
            _ => Poll::Pending,
        }
    }

    /// The service of who has come, once.
    pub(crate) fn take_guest(&self) -> Option<Guest<S>> {
        // Set by the same task.
        if !self.has_guest.load(Relaxed) {
            return None;
        }
        self.has_guest.store(false, Relaxed);
        match &mut *lock(&self.state) {
            State::Taken(guest) => guest.take(),
            _ => None,
        }
    }

    /// Gives it back where nobody can be seated any more.
    fn seat(&self, arriving: Arriving<S>) -> Result<(), Arriving<S>> {
        let mut state = lock(&self.state);
        match mem::replace(&mut *state, State::Closed) {
            State::Vacant(waker) => {
                *state = State::Arriving(arriving);
                drop(state);
                waker.wake();
                Ok(())
            }
            other => {
                *state = other;
                Err(arriving)
            }
        }
    }

    /// hyper has ended. Who has come in that moment is served elsewhere.
    pub(crate) fn close(&self) {
        let state = mem::replace(&mut *lock(&self.state), State::Closed);
        // Without a runtime everything has ended.
        if let (State::Arriving(arriving), Ok(_)) = (state, Handle::try_current()) {
            let (connection, guest) = *arriving;
            self.berths.seat(connection, guest);
        }
    }
}

impl<S> fmt::Debug for Berth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Berth").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
