//! The guard: what a framework takes for a socket while its connection may still move to another worker.
//!
//! It does the reading and writing that [`Exchange`] asks for, and nothing else is decided here: where messages begin
//! and end is the exchange's business, whose they are the [`Judge`](super::judge::Judge)'s, and how a connection
//! travels the [`Handoff`]'s.
//!
//! It minds the connection's timers, too. A framework behind it sees whole heads only, so its own could not tell a
//! slow client from an idle one.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::exchange::{Exchange, Moving, Next, Opening, Phase, Shutdown, Wrote};
use super::head::MAX_HEAD;
use super::judge::Verdict;
use super::message::MAX_HOPS;
use super::outcome::Outcome;
use super::preamble::{self, Preamble};
use super::watch::Watch;
use super::{Departure, Handoff};
use crate::affinity::AffinityKey;
use crate::connection::{ClientAddr, Stream};
use crate::id::WorkerId;
use crate::worker::Answer;

/// How much room there must be, and how much there may be, to read a head where the framework wants it: for most heads, and
/// for no more than may be kept.
const IN_PLACE: RangeInclusive<usize> = 1024..=MAX_HEAD as usize;

/// How much is read at once of what is looked at.
const SCRATCH: usize = 8 * 1024;

/// The state of a guarded connection, apart from its socket.
#[derive(Debug)]
pub(crate) struct Guard {
    handoff: Arc<Handoff>,
    exchange: Exchange,
    /// What the PROXY protocol puts in front of everything.
    preamble: Option<Preamble>,
    hops: u8,
    /// It has come from a proxy, for a slot that is not running.
    is_anothers: bool,
    fate: Fate,
    client: ClientAddr,
    /// Who waits for the response to be complete.
    parked: Option<Waker>,
    /// The runtime wakes who is parked when something can be read.
    is_listening: bool,
    /// Nothing has been read of the message that has begun.
    is_fresh: bool,
    /// What was read last is one message, all of it.
    is_whole: bool,
    watch: Watch,
}

/// What becomes of the connection once the framework has let go of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is closed.
    Close,
    /// It goes to this worker.
    Move(WorkerId),
    /// It goes there because this worker ends, whosever it is.
    Leave(WorkerId),
    /// The client is told why, and it is closed.
    Answer(Answer),
}

/// What a connection that has been read from is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There are bytes for the framework.
    Deliver,
    /// So many bytes may go straight from the socket to the framework.
    Pass(u64),
    /// End-of-stream for the framework.
    End,
}

impl Guard {
    /// Guards a connection that was accepted from `peer`.
    pub(crate) fn new(handoff: Arc<Handoff>, peer: Option<SocketAddr>) -> Self {
        let preamble = handoff.expects_preamble(peer).then(Preamble::default);
        Self { preamble, ..Self::over(handoff, peer, Exchange::new(MAX_HEAD)) }
    }

    /// Guards a connection that another worker has sent, after so many moves in a row.
    pub(crate) fn resume(handoff: Arc<Handoff>, peer: Option<SocketAddr>, moving: Moving, hops: u8) -> Self {
        Self { hops, ..Self::over(handoff, peer, Exchange::resume(MAX_HEAD, moving)) }
    }

    /// Guards a connection that a proxy has sent to a slot that this worker stands in for: it goes to the next in order.
    #[cfg(cluster)]
    pub(crate) fn standing_in(mut self) -> Self {
        self.is_anothers = true;
        self
    }

    fn over(handoff: Arc<Handoff>, peer: Option<SocketAddr>, exchange: Exchange) -> Self {
        let client = if handoff.judge().notes_messages() { ClientAddr::named(peer) } else { ClientAddr::of(peer) };
        let watch = Watch::default();
        Self {
            handoff,
            exchange,
            preamble: None,
            hops: 0,
            is_anothers: false,
            fate: Fate::Close,
            client,
            parked: None,
            is_listening: false,
            is_fresh: false,
            is_whole: false,
            watch,
        }
    }

    /// Whom the message under way comes from.
    pub(crate) fn client(&self) -> &ClientAddr {
        &self.client
    }

    /// Whether nothing is left to do but to carry bytes both ways: the guard can go.
    pub(crate) fn is_over(&self) -> bool {
        self.exchange.is_transparent()
    }

    /// Whether a head has begun and is not complete.
    pub(crate) fn is_within_head(&self) -> bool {
        self.phase() == Phase::Head
    }

    /// Whether the connection carries messages of which each may be another worker's.
    pub(crate) fn minds_messages(&self) -> bool {
        self.exchange.phase() != Phase::Tunnel
    }

    /// Forgets what the runtime so far would have told.
    pub(crate) fn change_runtime(&mut self) {
        self.watch = Watch::default();
        self.is_listening = false;
    }

    /// Whether what was read last is one message, from its first byte to its last, and may be followed by others.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// As [`Exchange::has_said_all`].
    pub(crate) fn has_said_all(&self) -> bool {
        self.exchange.has_said_all()
    }

    /// Whether it reads as ended between two messages, of which the framework owes the client nothing.
    #[cfg(feature = "http")]
    pub(crate) fn has_left_off(&self) -> bool {
        self.exchange.has_left_off()
    }

    fn phase(&self) -> Phase {
        match &self.preamble {
            Some(preamble) if preamble.is_empty() => Phase::Fresh,
            Some(_) => Phase::Head,
            None => self.exchange.phase(),
        }
    }

    // === reading ===

    /// Reads until there is something for the framework, and judges what begins meanwhile.
    ///
    /// # Errors
    ///
    /// What the system says of the socket.
    pub(crate) fn poll_step(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<Step>> {
        if self.preamble.is_some() && !ready!(self.poll_preamble(stream, cx))? {
            return Poll::Ready(Ok(Step::End));
        }
        loop {
            self.move_out();
            match self.exchange.read() {
                Next::Deliver => return Poll::Ready(Ok(Step::Deliver)),
                Next::Pass { at_most } => return Poll::Ready(Ok(Step::Pass(at_most))),
                Next::End(_) => return Poll::Ready(Ok(Step::End)),
                Next::Fetch { at_most } => {
                    if !ready!(self.poll_fetch(stream, cx, at_most))? {
                        return Poll::Ready(Ok(Step::End));
                    }
                }
                Next::Park { read_ahead } => {
                    self.park(cx);
                    if self.phase() == Phase::Lost && self.poll_late(cx).is_ready() {
                        continue;
                    }
                    if read_ahead == 0 {
                        return Poll::Pending;
                    }
                    let read = self.poll_read_ahead(stream, cx, read_ahead);
                    self.is_listening = read.is_pending();
                    ready!(read)?;
                }
                Next::Decide => self.decide(stream.peer_addr()),
                Next::Refuse(refusal) => {
                    tracing::debug!(target: "sticky", refusal = refusal.name(), "a request is refused");
                    self.handoff.count(Outcome::RefusedHead);
                    self.end(Fate::Answer(Answer::of_status(refusal.status())));
                }
                Next::Abort(refusal) => {
                    tracing::debug!(target: "sticky", refusal = refusal.name(), "a request breaks off");
                    self.handoff.count(Outcome::RefusedHead);
                    self.end(Fate::Answer(Answer::Nothing));
                }
            }
        }
    }

    /// Reads for the exchange; false when the client has taken too long.
    fn poll_fetch(&mut self, stream: &mut Stream, cx: &mut Context<'_>, at_most: usize) -> Poll<io::Result<bool>> {
        if let Poll::Ready(read) = self.poll_read_ahead(stream, cx, at_most) {
            return Poll::Ready(read.map(|()| true));
        }
        ready!(self.poll_late(cx));
        Poll::Ready(Ok(false))
    }

    fn poll_read_ahead(&mut self, stream: &mut Stream, cx: &mut Context<'_>, at_most: usize) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::uninit(); SCRATCH];
        let mut scratch = ReadBuf::uninit(&mut space[..at_most.min(SCRATCH)]);
        ready!(Pin::new(stream).poll_read(cx, &mut scratch))?;
        match scratch.filled() {
            [] => self.exchange.eof(),
            bytes => self.exchange.received(bytes),
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what the PROXY protocol puts first; false when the connection ends with that.
    fn poll_preamble(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while let Some(preamble) = &mut self.preamble {
            let mut space = [MaybeUninit::uninit(); SCRATCH];
            let mut scratch = ReadBuf::uninit(&mut space[..preamble.room()]);
            let read = Pin::new(&mut *stream).poll_read(cx, &mut scratch)?;
            if read.is_pending() {
                ready!(self.poll_late(cx));
                return Poll::Ready(Ok(false));
            }
            match preamble.received(scratch.filled()) {
                preamble::Outcome::Incomplete => {}
                preamble::Outcome::Done { source, rest } => {
                    self.preamble = None;
                    self.exchange.received(&rest);
                    if let Some(source) = source {
                        stream.set_peer(source);
                        self.client.set_peer(source);
                    }
                }
                preamble::Outcome::Invalid => {
                    self.handoff.count(Outcome::RefusedHead);
                    self.end(Fate::Answer(Answer::Nothing));
                    return Poll::Ready(Ok(false));
                }
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Ready when the present phase has lasted too long; then nothing follows.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let phase = self.phase();
        ready!(self.watch.poll(cx, phase, self.handoff.timeouts()));
        if phase == Phase::Head {
            self.handoff.count(Outcome::LateHead);
            self.end(Fate::Answer(Answer::RequestTimeout));
        } else {
            self.end(Fate::Close);
        }
        Poll::Ready(())
    }

    fn park(&mut self, cx: &Context<'_>) {
        self.is_listening = false;
        match &mut self.parked {
            Some(parked) => parked.clone_from(cx.waker()),
            None => self.parked = Some(cx.waker().clone()),
        }
    }

    fn end(&mut self, fate: Fate) {
        self.preamble = None;
        self.exchange.close();
        self.fate = fate;
    }

    /// Between two messages a connection leaves for whoever goes on with this worker's, if there is one. What has come of a
    /// head goes along.
    fn move_out(&mut self) {
        if self.exchange.is_between()
            && let Some(heir) =
                if self.exchange.is_judged() { self.handoff.heir_of_judged() } else { self.handoff.heir() }
            && self.exchange.step_aside().is_ok()
        {
            self.fate = Fate::Leave(heir);
        }
    }

    /// A whole head is here: is it this worker's?
    fn decide(&mut self, peer: Option<SocketAddr>) {
        let Some(opening) = self.exchange.opening() else { return };
        let verdict = self.judge(&opening, peer, &mut None);
        self.obey(verdict);
    }

    #[inline]
    fn judge(&self, opening: &Opening<'_>, peer: Option<SocketAddr>, key: &mut Option<AffinityKey>) -> Verdict {
        let judge = self.handoff.judge();
        let client = judge.client(opening, peer);
        self.client.set(client);
        let client = client.map(|client| client.ip());
        if judge.forwards() {
            let verdict = judge.verdict_again(opening, client, key);
            self.client.set_verdict(verdict, judge.note_verdict(verdict));
            return Verdict::Serve;
        }
        let is_a_proxys = judge.serves_proxies() && !self.is_anothers;
        if is_a_proxys || self.exchange.is_judged() {
            Verdict::Serve
        } else {
            judge.verdict_again(opening, client, key)
        }
    }

    fn obey(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Send(_) if self.hops >= MAX_HOPS => {
                self.handoff.count(Outcome::Loop);
                self.serve();
            }
            Verdict::Send(_) if self.handoff.is_sealed() => {
                self.handoff.count(Outcome::DrainingSlot);
                self.end(Fate::Answer(Answer::Unavailable));
            }
            // It never steps aside in doubt.
            Verdict::Send(owner) => match self.exchange.step_aside() {
                Ok(()) => self.fate = Fate::Move(owner),
                Err(_) => self.serve(),
            },
            Verdict::Serve => self.serve_or_move_out(),
            Verdict::Refuse => self.refuse(),
        }
    }

    /// Tells the client that who serves it is not there.
    pub(crate) fn refuse(&mut self) {
        self.handoff.count(Outcome::DeadSlot);
        self.end(Fate::Answer(Answer::Unavailable));
    }

    fn serve_or_move_out(&mut self) {
        match self.handoff.heir_of_judged() {
            Some(heir) if self.exchange.step_aside().is_ok() => self.fate = Fate::Leave(heir),
            _ => self.serve(),
        }
    }

    fn serve(&mut self) {
        self.begin();
        self.exchange.serve();
    }

    /// A message for this worker begins.
    fn begin(&mut self) {
        self.hops = 0;
        self.is_fresh = true;
        self.is_anothers = false;
        self.watch.restart();
    }

    /// As [`AsyncRead::poll_read`].
    pub(crate) fn poll_read(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.is_whole = false;
        if self.preamble.is_none()
            && IN_PLACE.contains(&buf.remaining())
            && self.exchange.awaits_head()
            && !self.handoff.is_left()
            && ready!(self.poll_in_place(stream, cx, buf))?
        {
            self.note_read();
            return Poll::Ready(Ok(()));
        }
        loop {
            match ready!(self.poll_step(stream, cx))? {
                Step::End => return Poll::Ready(Ok(())),
                Step::Deliver => {
                    let bytes = self.exchange.deliverable();
                    let length = bytes.len().min(buf.remaining());
                    buf.put_slice(&bytes[..length]);
                    self.exchange.delivered(length);
                    self.note_read();
                    return Poll::Ready(Ok(()));
                }
                Step::Pass(at_most) => match ready!(poll_pass(stream, cx, buf, at_most))? {
                    0 => self.exchange.eof(),
                    length => {
                        self.exchange.passed(length);
                        return Poll::Ready(Ok(()));
                    }
                },
            }
        }
    }

    fn note_read(&mut self) {
        self.is_whole = std::mem::take(&mut self.is_fresh) && self.exchange.is_between();
    }

    /// Reads where the framework wants it. Nearly always that is one message, whole, and for this worker: then nothing needs
    /// to be copied. True when the framework has got something.
    fn poll_in_place(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        if Pin::new(&mut *stream).poll_read(cx, buf)?.is_pending() {
            ready!(self.poll_late(cx));
            return Poll::Ready(Ok(false));
        }
        let bytes = &buf.filled()[before..];
        if bytes.is_empty() {
            self.exchange.eof();
            return Poll::Ready(Ok(false));
        }
        let Some(mut head) = self.exchange.peek(bytes) else {
            self.exchange.keep(bytes, None);
            buf.set_filled(before);
            return Poll::Ready(Ok(false));
        };
        let mut key = head.key();
        let verdict = self.judge(&Opening::Request(head.view(bytes)), stream.peer_addr(), &mut key);
        head.set_key(key);
        let tried = if verdict == Verdict::Serve { self.exchange.serve_in_place(head, bytes) } else { Err(head) };
        let Err(head) = tried else {
            self.begin();
            return Poll::Ready(Ok(true));
        };
        self.exchange.keep(bytes, Some(head));
        buf.set_filled(before);
        self.obey(verdict);
        Poll::Ready(Ok(false))
    }

    // === writing ===

    /// As [`AsyncWrite::poll_write_vectored`].
    pub(crate) fn poll_write(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<Written>> {
        if let Fate::Answer(_) = self.fate {
            // It gets our answer, and nothing in front of that.
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = match bufs {
            [buf] => ready!(Pin::new(stream).poll_write(cx, buf))?,
            bufs => ready!(Pin::new(stream).poll_write_vectored(cx, bufs))?,
        };
        let mut left = length;
        let mut is_upgraded = false;
        for buf in bufs {
            let accepted = &buf[..left.min(buf.len())];
            left -= accepted.len();
            match self.exchange.accepted(accepted) {
                Wrote::Part | Wrote::Unasked => {}
                Wrote::Complete if self.may_sleep_on() => {}
                Wrote::Complete => self.unpark(),
                Wrote::Tunnel => {
                    is_upgraded = true;
                    self.unpark();
                }
                Wrote::Lost => {
                    self.watch.restart();
                    self.unpark();
                }
            }
        }
        Poll::Ready(Ok(Written { length, is_upgraded }))
    }

    /// Whether who is parked has nothing to do although the response is complete: nothing has been read ahead, and both the
    /// runtime and the watch know whom to wake. For most messages that saves the framework a turn. Where others go on with this
    /// worker's clients the connection leaves now, since nobody may ever send anything here again.
    fn may_sleep_on(&mut self) -> bool {
        if !self.is_listening || !self.exchange.awaits_head() || self.handoff.is_left() {
            return false;
        }
        let Some(parked) = &self.parked else { return false };
        let phase = self.exchange.phase();
        self.watch.poll(&mut Context::from_waker(parked), phase, self.handoff.timeouts()).is_pending()
    }

    fn unpark(&mut self) {
        if let Some(parked) = self.parked.take() {
            parked.wake();
        }
    }

    /// Whether the socket hears of the framework's shutdown.
    pub(crate) fn shutdown(&mut self) -> Shutdown {
        match self.fate {
            Fate::Answer(_) => Shutdown::Swallow,
            _ => self.exchange.shutdown(),
        }
    }

    // === the end ===

    /// The framework has let go of the connection: where it goes from here.
    pub(crate) fn let_go(self) -> Departure {
        match self.fate {
            Fate::Close => Departure::Close,
            Fate::Answer(answer) => Departure::Answer { handoff: self.handoff, answer },
            // Who leaves has not been sent to a wrong worker.
            Fate::Move(to) | Fate::Leave(to) => match self.exchange.into_moving() {
                Some(moving) => {
                    let leaves = self.fate == Fate::Leave(to);
                    let hops = self.hops + u8::from(!leaves);
                    Departure::Move { handoff: self.handoff, to, moving, hops, leaves }
                }
                None => {
                    self.handoff.count(Outcome::Spoiled);
                    Departure::Close
                }
            },
        }
    }
}

/// What a write came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) length: usize,
    /// The connection has left HTTP with these bytes.
    pub(crate) is_upgraded: bool,
}

/// Reads at most so many bytes into the framework's buffer; says how many.
fn poll_pass(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    at_most: u64,
) -> Poll<io::Result<usize>> {
    let before = buf.filled().len();
    let at_most = usize::try_from(at_most).unwrap_or(usize::MAX);
    if at_most >= buf.remaining() {
        ready!(Pin::new(stream).poll_read(cx, buf))?;
    } else {
        // The tail of a body: what follows is none of the framework's business yet.
        let mut few = ReadBuf::new(buf.initialize_unfilled_to(at_most));
        ready!(Pin::new(stream).poll_read(cx, &mut few))?;
        let length = few.filled().len();
        buf.advance(length);
    }
    Poll::Ready(Ok(buf.filled().len() - before))
}

#[cfg(all(test, unix))]
mod tests;
