//! Handoff dispatch: a worker reads a message's head, and where it is another's the connection itself moves there.
//!
//! ```text
//!  accept ─► Guard: reads the head ─► Judge: whose? ─ mine ─► framework ◄─► Guard ◄─► socket
//!              ▲                                   │                         │ next message: another's
//!              │ Receiver                          └──────► Outbox ◄─────────┘ end-of-stream, drop
//!              │                                              │
//!              └──── channel of this slot ◄─ descriptor + bytes read ahead ─► channel of that slot
//! ```
//!
//! The sans-IO half knows where messages begin and end, and what may happen between them:
//!
//! ```text
//!              socket bytes ──► HeadReader ──► Head ──► RequestBody ──► framework
//!  Exchange                                                                │
//!              socket ◄────────────── Response (counts what was accepted) ◄┘
//! ```
//!
//! Nothing in it reads, writes, waits, or looks at a clock. Around it, [`guard`] does the reading and writing, [`watch`]
//! minds the time, [`judge`] asks affinity and placement, [`message`] and [`channel`] carry a connection from process to
//! process, [`outbox`] has those that wait for a slot, and [`outcome`] names everything that can happen instead.

#[cfg(cluster)]
pub(crate) mod channel;
pub(crate) mod chunked;
pub(crate) mod exchange;
pub(crate) mod guard;
pub(crate) mod head;
pub(crate) mod judge;
pub(crate) mod message;
#[cfg(cluster)]
mod outbox;
pub(crate) mod outcome;
pub(crate) mod placer;
pub(crate) mod preamble;
mod refusal;
pub(crate) mod request_body;
mod request_head;
pub(crate) mod response;
pub(crate) mod tokens;
mod watch;

use std::net::SocketAddr;
#[cfg(cluster)]
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

pub(crate) use self::exchange::Phase;
use self::exchange::{Moving, Standing};
use self::guard::Guard;
use self::judge::Judge;
use self::message::Message;
#[cfg(cluster)]
use self::outbox::{Handed, Outbox, Parcel, Terms};
use self::outcome::Outcome;
#[cfg(test)]
pub(crate) use self::request_head::HeadParts;
pub use self::request_head::RequestHead;
pub(crate) use self::watch::Watch;
use crate::connection::{Connection, Counted, Registry, Stream};
use crate::deadline::Timeouts;
use crate::id::WorkerId;
use crate::notice;
use crate::worker::{Answer, Drain, DrainReason, farewell};

/// What one worker has for its part in handing connections over.
#[derive(Debug)]
pub(crate) struct Handoff {
    judge: Arc<Judge>,
    settings: Settings,
    registry: Registry,
    /// Where the acceptor takes what comes back.
    returned: mpsc::UnboundedSender<Connection>,
    runtime: Handle,
    drain: Drain,
    /// Everything ends, and the others take nothing any more.
    is_sealed: AtomicBool,
    #[cfg(cluster)]
    outbox: Outbox,
}

/// The part of the configuration that handing over depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) timeouts: Timeouts,
    /// How long a connection waits for its owner; none is for ever.
    pub(crate) patience: Option<Duration>,
    /// Whether trusted peers begin with the PROXY protocol.
    pub(crate) proxy_protocol: bool,
}

/// The way to the other slots.
#[cfg(cluster)]
pub(crate) type Senders = Vec<OwnedFd>;
/// There are no other slots.
#[cfg(not(cluster))]
pub(crate) type Senders = Vec<std::convert::Infallible>;

impl Handoff {
    /// To be called inside the runtime that serves.
    pub(crate) fn new(
        judge: Arc<Judge>,
        settings: Settings,
        registry: Registry,
        senders: Senders,
        returned: mpsc::UnboundedSender<Connection>,
        drain: Drain,
    ) -> Self {
        #[cfg(not(cluster))]
        let _ = senders;
        Self {
            judge,
            settings,
            registry,
            returned,
            runtime: Handle::current(),
            drain,
            is_sealed: AtomicBool::new(false),
            #[cfg(cluster)]
            outbox: Outbox::new(senders),
        }
    }

    pub(crate) fn judge(&self) -> &Judge {
        &self.judge
    }

    fn timeouts(&self) -> Timeouts {
        self.settings.timeouts
    }

    fn expects_preamble(&self, peer: Option<SocketAddr>) -> bool {
        self.settings.proxy_protocol && self.judge.trusts(peer)
    }

    fn count(&self, outcome: Outcome) {
        self.registry.row().outcome(outcome);
    }

    /// From now on nothing is sent any more: the others have ended, or are about to.
    pub(crate) fn seal(&self) {
        self.is_sealed.store(true, Relaxed);
    }

    /// Where others go on with this worker's clients, they take what it sends them.
    fn is_sealed(&self) -> bool {
        self.is_sealed.load(Relaxed) && !self.drain.is_inherited()
    }

    /// Whether others go on with this worker's clients.
    #[inline]
    fn is_left(&self) -> bool {
        self.drain.is_inherited()
    }

    /// The slot where a connection goes on that has nothing to be judged by just now, if others go on with this worker's.
    /// Where the slot itself has been taken out each goes to another: whosever it is, that is found out there.
    #[inline]
    fn heir(&self) -> Option<WorkerId> {
        self.is_left().then(|| self.any_heir())
    }

    #[cold]
    fn any_heir(&self) -> WorkerId {
        let scatters = self.drain.reason() == Some(DrainReason::ScaledIn) && !self.judge.serves_proxies();
        let any = if scatters { self.judge.anyone() } else { None };
        any.unwrap_or(self.judge.own())
    }

    /// The same for one whose message has been judged to be this slot's: another process reads its channel.
    fn heir_of_judged(&self) -> Option<WorkerId> {
        self.is_left().then(|| self.judge.own())
    }

    #[cfg(cluster)]
    fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Whether no connection waits here for another slot.
    pub(crate) fn has_sent_all(&self) -> bool {
        #[cfg(cluster)]
        return self.outbox.is_empty();
        #[cfg(not(cluster))]
        return true;
    }

    #[cfg(cluster)]
    fn count_sent(&self) {
        self.registry.row().sent();
    }

    /// A connection that another worker has sent. If it was sent to this slot the message that begins is ours; as the
    /// stand-in for another slot this worker looks again.
    ///
    /// # Errors
    ///
    /// When the runtime does not take it.
    #[cfg(cluster)]
    pub(crate) fn receive(
        self: &Arc<Self>,
        socket: OwnedFd,
        mut message: Message,
        is_ours: bool,
    ) -> std::io::Result<Connection> {
        if !is_ours {
            // It was not passed on by mistake, so that this move does not count among those that may be a loop.
            message.hops = message.hops.saturating_sub(1);
            if message.moving.standing == Standing::Judged {
                message.moving.standing = Standing::New;
            }
        }
        let stream = Stream::from_fd(socket, message.is_unix, message.peer)?;
        let connection = self.registry.register(stream);
        let guard = Guard::resume(Arc::clone(self), message.peer, message.moving, message.hops);
        Ok(connection.guarded(if is_ours { guard } else { guard.standing_in() }))
    }

    /// Sends a connection to a slot, now or as soon as that is possible.
    #[cfg(cluster)]
    fn send(
        self: &Arc<Self>,
        to: WorkerId,
        (moving, hops): (Moving, u8),
        leaves: bool,
        stream: Stream,
        mut counted: Counted,
    ) {
        counted.set_leaving(true);
        let message = Message { moving, hops, peer: stream.peer_addr(), is_unix: stream.is_unix() };
        let socket = match stream.into_fd() {
            Ok(socket) => socket,
            Err(error) => return notice::error(format_args!("a connection cannot be moved: {error}")),
        };
        let terms = if leaves { self.move_out() } else { Terms::of(self.settings.patience) };
        match self.outbox.hand_in(to, Parcel { socket, message, counted }, terms) {
            Handed::Sent => self.count_sent(),
            Handed::Waits { because, is_first } => {
                self.count(because);
                if is_first {
                    self.runtime.spawn(outbox::run(Arc::clone(self), to));
                }
            }
            Handed::Back(parcel, outcome) => self.take_back(to, parcel, outcome),
        }
    }

    /// How long those may wait that leave: as long as they may be here. There are no more of them than
    /// there were connections, and for none of them is there another place.
    #[cfg(cluster)]
    fn move_out(&self) -> Terms {
        let left = self.drain.deadline().map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
        Terms { patience: left, most: usize::MAX }
    }

    #[cfg(not(cluster))]
    fn send(self: &Arc<Self>, _: WorkerId, _: (Moving, u8), _: bool, _: Stream, _: Counted) {
        // Without other workers everything is served here.
    }

    /// A connection could not be sent to `owner`. If that is out meanwhile the next in order serves it; else its client is
    /// told to come again, because a session must not be served by a worker that does not have it.
    #[cfg(cluster)]
    fn take_back(self: &Arc<Self>, owner: WorkerId, parcel: Parcel, outcome: Outcome) {
        self.judge.give_up(owner);
        let is_out = outcome == Outcome::Expired && self.judge.is_out(owner);
        self.count(if is_out { Outcome::DeadSlot } else { outcome });
        if outcome == Outcome::ReceiverGone {
            return;
        }
        let Parcel { socket, message, mut counted } = parcel;
        counted.set_leaving(false);
        // Who has asked for nothing is told nothing.
        let is_asking = !message.moving.read_ahead.is_empty();
        let answer = if is_asking { Answer::Unavailable } else { Answer::Nothing };
        let _inside = self.runtime.enter();
        let stream = match Stream::from_fd(socket, message.is_unix, message.peer) {
            Ok(stream) => stream,
            Err(error) => {
                return notice::error(format_args!("a connection that could not be moved is closed: {error}"));
            }
        };
        if is_out {
            let moving = Moving { standing: Standing::New, ..message.moving };
            let guard = Guard::resume(Arc::clone(self), message.peer, moving, message.hops);
            let _ = self.returned.send(self.registry.recount(stream, counted).guarded(guard));
        } else {
            self.runtime.spawn(farewell::say(answer, stream, counted));
        }
    }
}

/// Where a connection goes when a framework lets go of it.
#[derive(Debug)]
pub(crate) enum Departure {
    Close,
    Answer {
        handoff: Arc<Handoff>,
        answer: Answer,
    },
    /// It `leaves` because its worker ends.
    Move {
        handoff: Arc<Handoff>,
        to: WorkerId,
        moving: Moving,
        hops: u8,
        leaves: bool,
    },
}

impl Departure {
    /// Sends the connection there.
    pub(crate) fn carry_out(self, stream: Stream, counted: Counted) {
        match self {
            Self::Close => drop((stream, counted)),
            Self::Answer { handoff, answer } => drop(handoff.runtime.spawn(farewell::say(answer, stream, counted))),
            Self::Move { handoff, to, moving, hops, leaves } => {
                handoff.send(to, (moving, hops), leaves, stream, counted);
            }
        }
    }
}
