//! Plain requests to workers of ours, and their answers, without a framework: what is read from one socket is written to the
//! other, but for a few lines of the heads.
//!
//! ```text
//!  Guard: one whole message ─► raw::request ─► an idle connection to its worker
//!  Guard ◄── head, or raw::response of it ◄───────┘ body as it comes
//! ```
//!
//! That is most requests. What needs more (a body, an upgrade, a worker that is not there, a second attempt, a fault told) is
//! hyper's and [`forward`](super::forward)'s: what has been taken is given back where no worker has seen it.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::Method;
use tokio::io::ReadBuf;
use tokio::time::{Instant, Sleep, sleep};

use super::direct::{Asking, Direct, Lost};
use super::fault::Fault;
use super::forward::{Forwarder, Visitor, fault};
use super::headers::{Words, keeps_upgrade};
use super::pool::Era;
use super::raw::{self, Word};
use super::upstream::Announced;
use crate::connection::Stream;
use crate::connection::lane::{Lane, Passage};
use crate::dispatch::handoff::chunked::{Chunked, Progress};
use crate::dispatch::handoff::guard::Guard;
use crate::dispatch::handoff::judge::Verdict;
use crate::dispatch::handoff::placer::UnderWay;
use crate::dispatch::handoff::response::{Framing, Head, Parsed, parse_head};
use crate::id::WorkerId;
use crate::integration::forwarded::has_warned;
use crate::scoreboard::Row;
use crate::worker::Drain;

/// The longest head of a response: as much as a worker's guard can frame.
const MAX_HEAD: usize = 64 * 1024;

/// The lane of one client's connection.
#[derive(Debug)]
pub(super) struct Express {
    forwarder: Arc<Forwarder>,
    visitor: Arc<Visitor>,
    drain: Drain,
    row: Row,
    /// What workers are told of this client.
    spoken: Option<(Option<SocketAddr>, Vec<u8>)>,
    run: Option<Box<Run>>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// A message on its way.
#[derive(Debug)]
struct Run {
    message: Vec<u8>,
    request: Vec<u8>,
    is_head: bool,
    way: Way,
    is_used: bool,
    asking: Asking,
    slot: WorkerId,
    era: Era,
    _under_way: (Option<UnderWay>, Option<Announced>),
    answer: Answer,
}

/// The connection to the worker.
enum Way {
    Opening(Pin<Box<dyn Future<Output = Result<Direct, Fault>> + Send>>),
    Open(Direct),
}

/// What of the answer is on its way to the client.
#[derive(Debug)]
struct Answer {
    /// Has to go before anything else.
    head: Vec<u8>,
    /// So much of what has come from the worker goes as it is.
    ready: usize,
    rest: Rest,
    has_begun: bool,
    /// Another request can follow on the connection to the worker.
    goes_on: bool,
}

/// What is still to come.
#[derive(Debug)]
enum Rest {
    Head,
    Length(u64),
    Chunked(Chunked),
    /// Its end is the connection's, which the client's is not: it gets chunks.
    UntilClose,
    Nothing,
}

impl Express {
    pub(super) fn new(forwarder: &Arc<Forwarder>, visitor: &Arc<Visitor>, drain: &Drain, row: &Row) -> Self {
        Self {
            forwarder: Arc::clone(forwarder),
            visitor: Arc::clone(visitor),
            drain: drain.clone(),
            row: row.clone(),
            spoken: None,
            run: None,
            timer: None,
        }
    }

    /// What the worker gets in place of this message.
    fn request(&mut self, message: &[u8], peer: Option<SocketAddr>) -> Option<Vec<u8>> {
        let client = self.visitor.client().get();
        if self.spoken.as_ref().is_none_or(|(of, _)| *of != client) {
            self.spoken = Some((client, Words::of(client, false).lines()));
        }
        let (_, spoken) = self.spoken.as_ref()?;
        let word = match () {
            () if self.forwarder.judge().trusts(peer) => Word::Trusted,
            () if peer.is_none() || has_warned() => Word::Ignored,
            () => Word::New,
        };
        raw::request(message, spoken, word)
    }

    /// The way to this slot, and whether it has been used before. None where the worker is not running.
    fn way(&self, slot: WorkerId, era: Era) -> Option<(Way, bool)> {
        era?;
        if let Some(direct) = self.forwarder.take_idle(slot, era) {
            return Some((Way::Open(direct), true));
        }
        let forwarder = Arc::clone(&self.forwarder);
        let way = match forwarder.connect_at_once(slot) {
            Some(direct) => Way::Open(direct),
            None => Way::Opening(Box::pin(async move { forwarder.connect_directly(slot).await })),
        };
        Some((way, false))
    }

    fn set_timer(&mut self) {
        if let Some(limit) = self.forwarder.response_timeout() {
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(Instant::now() + limit),
                none => *none = Some(Box::pin(sleep(limit))),
            }
        }
    }

    /// Ends the run: the message is its framework's, which tells the client of the fault if there is one.
    fn give_back(&mut self, fault: Option<Fault>) -> Passage {
        if let Some(fault) = fault {
            self.visitor.set_fault(fault);
        }
        Passage::Returned(self.run.take().map(|run| run.message).unwrap_or_default())
    }
}

impl Lane for Express {
    fn takes(&mut self, message: &[u8]) -> bool {
        let (peer, verdict, under_way) = self.visitor.client().forwarding();
        let slot = self.forwarder.slot(verdict);
        // Whoever else forwards it does so to the worker whose turn it was.
        let verdict = slot.map_or(verdict, Verdict::Send);
        let taken = slot.ok().filter(|slot| !self.forwarder.keeps_sessions(*slot)).and_then(|slot| {
            let request = self.request(message, peer)?;
            let era = self.forwarder.era(slot);
            let (way, is_used) = self.way(slot, era)?;
            Some((slot, era, way, is_used, request))
        });
        let Some((slot, era, way, is_used, request)) = taken else {
            self.visitor.client().set_verdict(verdict, under_way);
            return false;
        };
        let noted = under_way.or_else(|| self.forwarder.judge().note_under_way(slot));
        let _under_way = (noted, self.forwarder.announce(slot));
        let (message, is_head) = (message.to_vec(), message.starts_with(b"HEAD "));
        let (asking, answer) = (Asking::default(), Answer::not_begun());
        self.run =
            Some(Box::new(Run { message, request, is_head, way, is_used, asking, slot, era, _under_way, answer }));
        self.set_timer();
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Stream, guard: &mut Guard) -> Poll<io::Result<Passage>> {
        loop {
            let Some(run) = &mut self.run else { return Poll::Ready(Ok(Passage::Answered)) };
            ready!(run.poll_tell(cx, stream, guard))?;
            if matches!(run.answer.rest, Rest::Nothing) {
                self.row.request();
                return Poll::Ready(Ok(self.finish()));
            }
            let Poll::Ready(heard) = run.poll_hear(cx, &self.drain) else {
                let is_late = !run.answer.has_begun
                    && self.forwarder.response_timeout().is_some()
                    && self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
                if is_late {
                    return Poll::Ready(Ok(self.give_back(Some(Fault::TimedOut))));
                }
                // Hears of a client that breaks off, and keeps who waits for its next message.
                ready!(poll_beside(cx, stream, guard))?;
                return Poll::Pending;
            };
            match heard {
                Ok(()) => {}
                Err(lost) if !run.answer.has_begun => {
                    let may_again = self.forwarder.may_ask_again(run.slot, &lost, &method(&run.message), run.is_used);
                    let told = (!may_again).then(|| fault(run.slot, lost));
                    return Poll::Ready(Ok(self.give_back(told)));
                }
                Err(Lost::Unreached(_) | Lost::Unseen) => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Err(Lost::Silent(error) | Lost::Broken(error)) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_tell(&mut self, cx: &mut Context<'_>, stream: &mut Stream, guard: &mut Guard) -> Poll<io::Result<()>> {
        self.visitor.interim().poll_tell(cx, stream, guard)
    }
}

impl Express {
    fn finish(&mut self) -> Passage {
        if let Some(run) = self.run.take()
            && run.answer.goes_on
            && let Way::Open(direct) = run.way
        {
            self.forwarder.put_idle(run.slot, run.era, direct);
        }
        Passage::Answered
    }
}

/// Reads nothing, since the next message begins only behind the answer.
fn poll_beside(cx: &mut Context<'_>, stream: &mut Stream, guard: &mut Guard) -> Poll<io::Result<()>> {
    let mut space = [0; 1];
    match guard.poll_read(stream, cx, &mut ReadBuf::new(&mut space)) {
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        _ => Poll::Ready(Ok(())),
    }
}

impl Run {
    /// Writes what there is for the client.
    fn poll_tell(&mut self, cx: &mut Context<'_>, stream: &mut Stream, guard: &mut Guard) -> Poll<io::Result<()>> {
        let Way::Open(direct) = &mut self.way else { return Poll::Ready(Ok(())) };
        let answer = &mut self.answer;
        while !answer.head.is_empty() || answer.ready > 0 {
            let buffer = direct.buffer();
            let bufs = [IoSlice::new(&answer.head), IoSlice::new(&buffer[..answer.ready])];
            let bufs = if answer.head.is_empty() { &bufs[1..] } else { &bufs[..] };
            let written = ready!(guard.poll_write(stream, cx, bufs))?.length;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = written.min(answer.head.len());
            answer.head.drain(..of_head);
            buffer.advance(written - of_head);
            answer.ready -= written - of_head;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what has come for the client, or waits for more.
    fn poll_hear(&mut self, cx: &mut Context<'_>, drain: &Drain) -> Poll<Result<(), Lost>> {
        loop {
            match self.take(drain) {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(Lost::Broken(error))),
            }
            let direct = match &mut self.way {
                Way::Open(direct) => direct,
                Way::Opening(opening) => {
                    self.way = Way::Open(ready!(opening.as_mut().poll(cx)).map_err(Lost::Unreached)?);
                    continue;
                }
            };
            if matches!(self.answer.rest, Rest::UntilClose) {
                match ready!(direct.poll_fill(cx)) {
                    Ok(0) => {
                        self.answer.head.extend_from_slice(b"0\r\n\r\n");
                        self.answer.rest = Rest::Nothing;
                        return Poll::Ready(Ok(()));
                    }
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(Lost::Broken(error))),
                }
            } else {
                ready!(direct.poll_ask(cx, &mut self.asking, &self.request))?;
            }
        }
    }

    /// Whether there is something for the client, or nothing more to come.
    fn take(&mut self, drain: &Drain) -> io::Result<bool> {
        if matches!(self.answer.rest, Rest::Head) && !self.take_head(drain)? {
            return Ok(false);
        }
        let Way::Open(direct) = &mut self.way else { return Ok(false) };
        let buffer = direct.buffer();
        let answer = &mut self.answer;
        let ahead = &buffer[answer.ready..];
        match &mut answer.rest {
            Rest::Head | Rest::Nothing => {}
            Rest::Length(rest) => {
                let length = usize::try_from(*rest).unwrap_or(usize::MAX).min(ahead.len());
                answer.ready += length;
                *rest -= length as u64;
                if *rest == 0 {
                    answer.rest = Rest::Nothing;
                }
            }
            Rest::Chunked(chunked) => {
                answer.ready += chunked.consume(ahead);
                match chunked.progress() {
                    Progress::Open => {}
                    Progress::Complete => answer.rest = Rest::Nothing,
                    Progress::Broken(_) => return Err(invalid("a chunk")),
                }
            }
            Rest::UntilClose if buffer.is_empty() => {}
            Rest::UntilClose => {
                let size = format!("{:x}\r\n", buffer.len());
                for part in [size.as_bytes(), buffer, b"\r\n"] {
                    answer.head.extend_from_slice(part);
                }
                buffer.clear();
            }
        }
        Ok(answer.ready > 0 || !answer.head.is_empty() || matches!(answer.rest, Rest::Nothing))
    }

    /// Whether the head of the response, or of one that comes before it, is all here; then the client gets it.
    fn take_head(&mut self, drain: &Drain) -> io::Result<bool> {
        let Way::Open(direct) = &mut self.way else { return Ok(false) };
        let buffer = direct.buffer();
        if buffer.is_empty() {
            return Ok(false);
        }
        let (len, head) = match parse_head(buffer) {
            Parsed::Head(len, head) => (len, head),
            Parsed::Partial if buffer.len() <= MAX_HEAD => return Ok(false),
            Parsed::Partial => return Err(invalid("a head without end")),
            Parsed::Malformed => return Err(invalid("no head")),
        };
        // Nobody has asked for another protocol.
        if head.status == 101 {
            return Err(invalid("another protocol"));
        }
        let is_final = head.status >= 200;
        let rest = if is_final { rest(&head, self.is_head)? } else { Rest::Head };
        let is_last = is_final && drain.ends_connections(true);
        let answer = &mut self.answer;
        answer.has_begun = true;
        if matches!(rest, Rest::UntilClose) {
            let mut changed = raw::response(&buffer[..len], false, is_last);
            changed.truncate(changed.len() - 2);
            changed.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            answer.head = changed;
            buffer.advance(len);
        } else if head.is_end_to_end && !is_last {
            answer.ready = len;
        } else {
            answer.head = raw::response(&buffer[..len], keeps_upgrade_of(head.status), is_last);
            buffer.advance(len);
        }
        answer.goes_on = is_final && !head.wants_close() && !matches!(rest, Rest::UntilClose);
        answer.rest = rest;
        Ok(true)
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening(_) => f.write_str("Opening"),
            Self::Open(direct) => direct.fmt(f),
        }
    }
}

impl Answer {
    fn not_begun() -> Self {
        Self { head: Vec::new(), ready: 0, rest: Rest::Head, has_begun: false, goes_on: false }
    }
}

/// What follows the head of a final answer.
fn rest(head: &Head, is_head: bool) -> io::Result<Rest> {
    if is_head || matches!(head.status, 204 | 304) {
        return Ok(Rest::Nothing);
    }
    match head.framing() {
        Framing::Length(length) => Ok(Rest::Length(length)),
        Framing::Chunked => Ok(Rest::Chunked(Chunked::new())),
        Framing::UntilClose => Ok(Rest::UntilClose),
        Framing::Ambiguous => Err(invalid("no certain length")),
    }
}

fn keeps_upgrade_of(status: u16) -> bool {
    http::StatusCode::from_u16(status).is_ok_and(keeps_upgrade)
}

fn method(message: &[u8]) -> Method {
    let name = message.split(|&byte| byte == b' ').next().unwrap_or_default();
    // Nobody knows what another does when it is done twice.
    Method::from_bytes(name).unwrap_or(Method::POST)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
