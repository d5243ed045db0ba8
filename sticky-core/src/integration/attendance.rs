//! What is going on in one connection, and how long it may.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::task::unconstrained;

use super::fields::Fields;
use super::forwarded;
use super::keeper::{Keeper, Visit};
use crate::connection::{ClientAddr, Connection};
use crate::deadline::Timeouts;
use crate::dispatch::handoff::{Phase, Watch};
use crate::worker::{DrainReason, FIRST_REQUEST_GRACE, Home, News, Worker};

/// How long a connection that has been told to close may take to do so.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The attendance of one connection: knows its requests, and minds its time. A clone is the same one.
///
/// Nothing in it orders other memory, so every access is relaxed. Mostly all of it happens in one task.
#[derive(Clone)]
pub struct Attendance {
    shared: Arc<Shared>,
}

struct Shared {
    worker: Worker,
    client: ClientAddr,
    /// Who is there, where it matters whether that is a proxy.
    suspect: Option<SocketAddr>,
    is_believed: bool,
    keeper: Option<Keeper>,
    timeouts: Timeouts,
    /// It goes to the next generation by itself, when there is one.
    moves: bool,
    /// Where its client is at home, if it does not.
    home: Option<Home>,
    /// Requests whose response is not done.
    in_flight: AtomicUsize,
    /// Counts requests that began or ended, and pieces of responses that were written.
    progress: AtomicU32,
    has_served: AtomicBool,
    /// Bytes have come since the last request began or the last response ended.
    has_read: AtomicBool,
    is_http2: AtomicBool,
    /// See [`Attendance::has_said_all`].
    has_said_all: AtomicBool,
    /// Upgraded: no timer knows what goes on in there.
    is_tunnel: AtomicBool,
    /// A [`Notice`].
    notice: AtomicU8,
    /// Whom the end of a request wakes that ends in another task: HTTP/2's.
    waiting: Mutex<Option<Waker>>,
}

/// What the socket is to tell those who use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Notice {
    Nothing,
    /// The client should not begin anything new.
    GoAway,
    /// The framework reads end-of-stream.
    End,
    /// The client was too slow: it is told, and the framework reads end-of-stream.
    Late,
}

impl Attendance {
    pub(super) fn new(connection: &Connection, worker: &Worker) -> Self {
        let peer = connection.peer_addr();
        let is_believed = worker.trusts(peer);
        let sessions = worker.sessions();
        let shared = Shared {
            client: connection.client_addr(),
            // With one worker nothing can land on a wrong one.
            suspect: peer.filter(|_| worker.workers() > 1 && !is_believed),
            is_believed,
            keeper: sessions.are_of_interest().then(|| Keeper::new(Arc::clone(sessions), is_believed)),
            // One that minds its messages minds its timers, too.
            timeouts: if connection.minds_messages() { Timeouts::NONE } else { worker.limits().timeouts },
            moves: connection.minds_messages(),
            home: worker.home_of(peer),
            worker: worker.clone(),
            in_flight: AtomicUsize::new(0),
            progress: AtomicU32::new(0),
            has_served: AtomicBool::new(false),
            has_read: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            has_said_all: AtomicBool::new(false),
            is_tunnel: AtomicBool::new(false),
            notice: AtomicU8::new(Notice::Nothing as u8),
            waiting: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whom the request that has just come is from; see [`ClientAddr::get`].
    pub fn client_addr(&self) -> Option<SocketAddr> {
        self.shared.client.get()
    }

    /// Whether the other side is trusted to say for whom it speaks.
    pub fn is_believed(&self) -> bool {
        self.shared.is_believed
    }

    /// Whether the client can say nothing more before its request for another protocol has been answered: whoever takes what
    /// follows that request for its body, and waits for it, waits in vain.
    pub fn has_said_all(&self) -> bool {
        self.shared.has_said_all.load(Relaxed) && !self.is_tunnel()
    }

    pub(super) fn set_has_said_all(&self, has_said_all: bool) {
        self.shared.has_said_all.store(has_said_all, Relaxed);
    }

    /// A request head is complete: takes out of it what is not the application's business. The request is in flight until
    /// what this returns is dropped.
    pub fn begin(self, is_connect: bool, fields: &mut impl Fields) -> InFlight {
        let shared = &*self.shared;
        let visit = shared.keeper.as_ref().map(|keeper| keeper.request(fields));
        shared.worker.row().request();
        shared.has_read.store(false, Relaxed);
        if !shared.has_served.load(Relaxed) {
            shared.has_served.store(true, Relaxed);
            if let Some(peer) = shared.suspect {
                forwarded::warn_once(fields, peer);
            }
        }
        shared.in_flight.fetch_add(1, Relaxed);
        shared.advance();
        InFlight { attendance: self, visit, is_connect }
    }

    /// Drives the future in which a framework serves this connection to its end; `None` where the connection did not end
    /// when it was told to.
    pub async fn look_after<F: Future>(self, serving: F) -> Option<F::Output> {
        let drain = self.shared.worker.connection_drain();
        let reached = |least| unconstrained(drain.reached(least));
        let replaced = pin!(reached(DrainReason::Replaced));
        let mut round = Round {
            serving: pin!(serving),
            shared: &self.shared,
            news: News::new(drain, replaced, reached),
            stage: Stage::Open,
            watch: Watch::default(),
            seen: 0,
        };
        poll_fn(|cx| round.poll(cx)).await
    }

    pub(super) fn read(&self) {
        self.shared.has_read.store(true, Relaxed);
    }

    pub(super) fn written(&self) {
        self.shared.advance();
    }

    /// The client speaks HTTP/2.
    pub(super) fn http2(&self) {
        self.shared.is_http2.store(true, Relaxed);
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.shared.is_tunnel.load(Relaxed)
    }

    pub(super) fn notice(&self) -> Notice {
        const IN_ORDER: [Notice; 4] = [Notice::Nothing, Notice::GoAway, Notice::End, Notice::Late];
        IN_ORDER[usize::from(self.shared.notice.load(Relaxed))]
    }
}

impl std::fmt::Debug for Attendance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attendance").field("client", &self.client_addr()).finish_non_exhaustive()
    }
}

impl Shared {
    fn phase(&self) -> Phase {
        if self.is_tunnel.load(Relaxed) {
            Phase::Tunnel
        } else if self.in_flight.load(Relaxed) > 0 {
            Phase::Message
        } else if self.is_http2() {
            // Bytes without a stream are pings and settings.
            Phase::Idle
        } else if self.has_read.load(Relaxed) {
            Phase::Head
        } else if self.has_served.load(Relaxed) || self.timeouts.are_none() {
            Phase::Idle
        } else {
            Phase::Fresh
        }
    }

    fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    /// Whether the client is to be told that nothing follows here.
    fn is_last(&self) -> bool {
        self.worker.connection_drain().ends_connections(self.moves) || self.is_elsewhere()
    }

    /// Whether the client's next connection goes to another worker, because there are more or fewer.
    fn is_elsewhere(&self) -> bool {
        self.home.as_ref().is_some_and(Home::is_elsewhere)
    }

    fn advance(&self) {
        // Two tasks that get here at once change it, too, which is all that matters.
        self.progress.store(self.progress.load(Relaxed).wrapping_add(1), Relaxed);
    }

    fn notify(&self, notice: Notice) {
        self.notice.fetch_max(notice as u8, Relaxed);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in flight until this is dropped. Keep it with the response's body.
pub struct InFlight {
    attendance: Attendance,
    visit: Option<Visit>,
    is_connect: bool,
}

impl InFlight {
    /// What is going on in its connection.
    pub fn attendance(&self) -> &Attendance {
        &self.attendance
    }

    /// A response is about to be sent: adds what it needs. Answers whether it must announce the end of its connection
    /// (`Connection: close`, after which the framework has to close).
    #[must_use]
    pub fn answer(&self, status: u16, fields: &mut impl Fields) -> bool {
        if let Some(visit) = &self.visit {
            visit.response(fields);
        }
        let is_switch = status == 101 || (self.is_connect && (200..300).contains(&status));
        if is_switch {
            self.attendance.shared.is_tunnel.store(true, Relaxed);
        }
        // A client that is told does not lose its next request.
        let shared = &self.attendance.shared;
        !is_switch && !shared.is_http2() && shared.is_last()
    }
}

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InFlight").finish_non_exhaustive()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let shared = &self.attendance.shared;
        shared.advance();
        if shared.in_flight.fetch_sub(1, Relaxed) == 1 {
            // What came meanwhile was the request's body.
            shared.has_read.store(false, Relaxed);
            if shared.is_http2()
                && let Some(waiting) = shared.waiting().take()
            {
                waiting.wake();
            }
        }
    }
}

/// Whether a connection may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It may have further requests.
    Open,
    /// It is to close as soon as it can: the worker drains.
    Draining,
    /// It has been told to close.
    Closing,
}

/// Minds one connection while it is served.
struct Round<'a, F, D, R> {
    serving: Pin<&'a mut F>,
    shared: &'a Shared,
    news: News<'a, D, R>,
    stage: Stage,
    watch: Watch,
    /// The progress that was last seen.
    seen: u32,
}

impl<F: Future, D: Future<Output = ()>, R: Fn(DrainReason) -> D> Round<'_, F, D, R> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        loop {
            // First: what has already come in decides what the timers and the drain find.
            if let Poll::Ready(output) = self.serving.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            self.observe(cx);
            if self.news.poll(cx) || self.must_tell() {
                continue;
            }
            ready!(self.poll_late(cx));
            if self.end().is_break() {
                return Poll::Ready(None);
            }
        }
    }

    /// Begins the wait anew where something has happened.
    fn observe(&mut self, cx: &Context<'_>) {
        if self.shared.is_http2() {
            *self.shared.waiting() = Some(cx.waker().clone());
        }
        let progress = self.shared.progress.load(Relaxed);
        if progress != self.seen {
            self.seen = progress;
            self.watch.restart();
        }
    }

    /// Whether the drain has something to tell that has not been told. A client whose request is still coming is left
    /// alone: its response will announce the end.
    fn must_tell(&mut self) -> bool {
        if self.stage == Stage::Open && self.must_part() {
            self.stage = Stage::Draining;
            if self.shared.is_http2() {
                self.shared.notify(Notice::GoAway);
                return true;
            }
        }
        let must_close = self.stage == Stage::Draining && !self.shared.is_http2() && self.shared.phase() == Phase::Idle;
        if must_close {
            self.close();
        }
        must_close
    }

    /// Whether the drain is this connection's affair now. If another generation goes on with its client it moves there, or its
    /// next response says so; until then there is no hurry, and to close before could lose a request. HTTP/2 can say so at
    /// any time.
    fn must_part(&self) -> bool {
        let drain = self.shared.worker.connection_drain();
        let is_left = drain.is_started() && !drain.is_inherited();
        is_left || (self.shared.is_http2() && (drain.is_started() || self.shared.is_elsewhere()))
    }

    fn close(&mut self) {
        self.shared.notify(Notice::End);
        self.stage = Stage::Closing;
        self.watch.restart();
    }

    /// Ready when the present phase has lasted too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeouts = self.timeouts();
        if timeouts.are_none() {
            // Nobody looks: not even a timer is set.
            return Poll::Pending;
        }
        self.watch.poll(cx, self.shared.phase(), timeouts)
    }

    fn timeouts(&self) -> Timeouts {
        let timeouts = self.shared.timeouts;
        let grace = FIRST_REQUEST_GRACE;
        match self.stage {
            Stage::Open => timeouts,
            // What the client had begun before it was told is on its way.
            Stage::Draining if self.shared.is_http2() => Timeouts { idle: timeouts.idle.min(grace), ..timeouts },
            Stage::Draining => Timeouts { first_byte: timeouts.first_byte.min(grace), ..timeouts },
            Stage::Closing => Timeouts { first_byte: CLOSE_TIMEOUT, head: CLOSE_TIMEOUT, idle: CLOSE_TIMEOUT },
        }
    }

    /// The time is up: ends the connection, or breaks off where that has been tried.
    fn end(&mut self) -> ControlFlow<()> {
        match self.stage {
            Stage::Closing => return ControlFlow::Break(()),
            _ if self.shared.phase() == Phase::Head => {
                self.shared.notify(Notice::Late);
                self.stage = Stage::Closing;
                self.watch.restart();
            }
            _ => self.close(),
        }
        ControlFlow::Continue(())
    }
}
