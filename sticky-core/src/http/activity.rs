//! What is going on in one connection, written by its socket and its service, read by the task that drives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};

use super::timers::{Phase, Sight};
use crate::scoreboard::Row;
use crate::worker::{Drain, Home};

/// Shared by everything that serves one connection.
///
/// Nothing here orders other memory, so every access is relaxed. Over HTTP/1 all of it happens in one task; over
/// HTTP/2 only the end of a request comes from elsewhere.
pub(crate) struct Activity {
    /// Requests whose response, or whose request body in the hands of the application, is not done.
    in_flight: AtomicUsize,
    /// See [`Sight::progress`].
    progress: AtomicU32,
    has_served: AtomicBool,
    /// Bytes have come since the last request began or the last response ended.
    has_read: AtomicBool,
    is_http2: AtomicBool,
    /// A message is answered by somebody else than hyper.
    is_passing: AtomicBool,
    /// Upgraded, or with a stream that is: no timer knows what goes on in there.
    is_tunnel: AtomicBool,
    /// The head took too long: the socket says so and ends.
    is_late: AtomicBool,
    row: Row,
    drain: Drain,
    /// Its clients go to the next generation by themselves, when there is one.
    moves: bool,
    /// Where they are at home, if they do not.
    home: Option<Home>,
}

impl Activity {
    /// Nothing has happened yet.
    pub(crate) fn new(row: Row, drain: Drain, moves: bool, home: Option<Home>) -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            progress: AtomicU32::new(0),
            has_served: AtomicBool::new(false),
            has_read: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            is_passing: AtomicBool::new(false),
            is_tunnel: AtomicBool::new(false),
            is_late: AtomicBool::new(false),
            row,
            drain,
            moves,
            home,
        }
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Whether the client is to be told that nothing follows here.
    pub(crate) fn is_last(&self) -> bool {
        self.drain.ends_connections(self.moves) || self.is_elsewhere()
    }

    /// Whether the client's next connection goes to another worker, because there are more or fewer.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.home.as_ref().is_some_and(Home::is_elsewhere)
    }

    /// Whether a client can be told at any time that nothing follows, and loses nothing by it.
    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    pub(crate) fn sight(&self) -> Sight {
        Sight { phase: self.phase(), progress: self.progress.load(Relaxed) }
    }

    fn phase(&self) -> Phase {
        if self.in_flight.load(Relaxed) > 0 || self.is_tunnel() || self.is_passing() {
            Phase::Executing
        } else if self.is_http2.load(Relaxed) {
            // Bytes without a stream are pings and settings.
            Phase::Idle
        } else if self.has_read.load(Relaxed) {
            Phase::Head
        } else if self.has_served.load(Relaxed) {
            Phase::Idle
        } else {
            Phase::New
        }
    }

    /// A request head is complete.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.row.request();
        self.has_read.store(false, Relaxed);
        self.has_served.store(true, Relaxed);
        self.advance();
        self.hold()
    }

    /// Keeps the request that has begun in flight for longer.
    pub(crate) fn hold(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self.clone())
    }

    pub(crate) fn read(&self) {
        self.has_read.store(true, Relaxed);
    }

    /// The client has gone, and what has been read of its next message with it.
    pub(crate) fn vacated(&self) {
        self.has_read.store(false, Relaxed);
    }

    pub(crate) fn written(&self) {
        self.advance();
    }

    /// Whether somebody else than hyper answers a message just now.
    pub(crate) fn passes(&self, is_passing: bool) {
        if is_passing != self.is_passing() {
            self.is_passing.store(is_passing, Relaxed);
            self.has_served.store(true, Relaxed);
            self.advance();
        }
    }

    pub(crate) fn is_passing(&self) -> bool {
        self.is_passing.load(Relaxed)
    }

    /// The client speaks HTTP/2.
    pub(crate) fn http2(&self) {
        self.is_http2.store(true, Relaxed);
    }

    /// The connection, or a stream of it, leaves HTTP.
    pub(crate) fn tunnel(&self) {
        self.is_tunnel.store(true, Relaxed);
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Relaxed)
    }

    /// Ends the connection at its next read.
    pub(crate) fn be_late(&self) {
        self.is_late.store(true, Relaxed);
    }

    pub(crate) fn is_late(&self) -> bool {
        self.is_late.load(Relaxed)
    }

    fn advance(&self) {
        // Only the connection's own task gets here, so that this needs no atomic addition.
        self.progress.store(self.progress.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// A request in flight until this is dropped.
pub(crate) struct InFlight(Arc<Activity>);

impl InFlight {
    pub(crate) fn activity(&self) -> &Activity {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Relaxed) == 1 {
            // What came meanwhile was the request's body.
            self.0.has_read.store(false, Relaxed);
        }
    }
}
