//! What the exchange must agree with: where the connection stands, in plain terms.

use super::super::naive::{self, Body, Stop};
use super::is_complete;
use crate::dispatch::handoff::exchange::{Standing, Wrote};
use crate::dispatch::handoff::head::PREFACE;
use crate::dispatch::handoff::response::ResponseState;

/// Whether an answer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outstanding {
    Nothing,
    Answer,
    /// One that has no end, so that nothing can follow it.
    Endless,
}

/// One connection.
pub(super) struct Model<'a> {
    /// All that the client sends.
    client: &'a [u8],
    /// How much of that has been read.
    at: usize,
    /// How much of it a framework has, or nobody needs.
    pub(super) taken: usize,
    max_head: usize,
    current: Option<Current<'a>>,
    pub(super) outstanding: Outstanding,
    pub(super) is_tunnel: bool,
    pub(super) is_last: bool,
    pub(super) is_eof: bool,
    is_judged: bool,
}

/// The message under way, or the last one.
struct Current<'a> {
    head: naive::Request<'a>,
    /// Where its body begins.
    body_at: usize,
    /// Where it ends, as far as the client gets.
    end: usize,
    /// Whether that is its end, or the client's, or the first wrong byte.
    stop: Stop,
    written: Vec<u8>,
}

impl<'a> Model<'a> {
    pub(super) fn new(client: &'a [u8], max_head: usize) -> Self {
        Self {
            client,
            at: 0,
            taken: 0,
            max_head,
            current: None,
            outstanding: Outstanding::Nothing,
            is_tunnel: false,
            is_last: false,
            is_eof: false,
            is_judged: false,
        }
    }

    /// How much has been read and not delivered.
    pub(super) fn held(&self) -> usize {
        self.at - self.taken
    }

    /// What has been read and not delivered.
    pub(super) fn ahead(&self) -> &'a [u8] {
        &self.client[self.taken..self.at]
    }

    /// The client sends at most so many bytes; none are its end.
    pub(super) fn read(&mut self, at_most: usize) -> &'a [u8] {
        let n = at_most.min(self.client.len() - self.at);
        self.is_eof |= n == 0;
        self.at += n;
        &self.client[self.at - n..self.at]
    }

    /// How much the framework may have now.
    pub(super) fn may_have(&self) -> usize {
        match &self.current {
            _ if self.is_tunnel => self.held(),
            Some(current) => current.end.saturating_sub(self.taken),
            None => 0,
        }
    }

    /// Whether so many bytes from here on are data of the message under way.
    pub(super) fn is_data_ahead(&self, count: u64) -> bool {
        let Some(current) = &self.current else { return self.is_tunnel };
        match current.head.body {
            _ if self.is_tunnel => true,
            Body::None => false,
            Body::Length(length) => (self.taken - current.body_at) as u64 + count == length,
            Body::Chunked => {
                let seen = naive::chunked(&self.client[current.body_at..self.taken]);
                seen.stop == Stop::Open { data_ahead: count }
            }
        }
    }

    // === messages ===

    /// What is between messages belongs to none.
    pub(super) fn skip_empty_lines(&mut self) {
        let may_be_frames = |current: &Current<'_>| current.head.next != naive::Next::Message;
        let is_unknown = self.outstanding != Outstanding::Nothing && self.current.as_ref().is_some_and(may_be_frames);
        if self.is_delivered() && !is_unknown && !self.is_tunnel {
            self.taken += naive::empty_lines(self.ahead());
        }
    }

    fn is_delivered(&self) -> bool {
        let Some(current) = &self.current else { return true };
        !self.is_tunnel && current.stop == Stop::Complete && self.taken >= current.end
    }

    /// Something begins: a request of this method with so many headers, or HTTP/2.
    pub(super) fn open(&mut self, request: Option<(&str, usize)>) {
        assert!(self.is_delivered(), "a message begins within another");
        assert_eq!(self.outstanding, Outstanding::Nothing, "a message begins before the last was answered");
        assert!(!self.is_last);
        let begins = match naive::head(self.ahead(), self.max_head) {
            naive::Head::Acceptable(head) => Some((head.method, head.headers.len())),
            _ => None,
        };
        assert_eq!(request, begins);
        if request.is_none() {
            assert!(self.current.is_none() && self.ahead().starts_with(PREFACE), "no preface");
        }
    }

    /// What begins is served here.
    pub(super) fn serve(&mut self) {
        self.is_judged = false;
        let naive::Head::Acceptable(head) = naive::head(self.ahead(), self.max_head) else {
            self.is_tunnel = true;
            return;
        };
        let body_at = self.taken + head.len;
        let rest = &self.client[body_at..];
        let (used, stop) = match head.body {
            Body::None => (0, Stop::Complete),
            Body::Length(length) if length <= rest.len() as u64 => (length as usize, Stop::Complete),
            Body::Length(_) => (rest.len(), Stop::Open { data_ahead: 0 }),
            Body::Chunked => {
                let chunks = naive::chunked(rest);
                (chunks.used, chunks.stop)
            }
        };
        self.is_last |= head.wants_close;
        self.outstanding = Outstanding::Answer;
        self.current = Some(Current { head, body_at, end: body_at + used, stop, written: Vec::new() });
    }

    /// Whether the framework has all that it can have of what has been read, or the rest is of no use.
    pub(super) fn is_nothing_left(&self) -> bool {
        if self.is_tunnel || !self.is_delivered() {
            return self.held() == 0;
        }
        let ahead = self.ahead();
        let may_be_http2 = self.current.is_none() && PREFACE.starts_with(ahead);
        may_be_http2 || ahead.is_empty() || matches!(naive::head(ahead, self.max_head), naive::Head::Endless)
    }

    /// Whether the client has sent something wrong, and whether it can be told.
    pub(super) fn is_wrong(&self) -> Option<bool> {
        if !self.is_delivered() {
            let current = self.current.as_ref()?;
            let is_there = current.stop == Stop::Broken && self.taken == current.end && self.held() > 0;
            return is_there.then(|| self.outstanding == Outstanding::Answer && self.answer(&[]).is_replaceable);
        }
        let ahead = self.ahead();
        let is_settled = self.outstanding == Outstanding::Nothing && !self.is_last;
        let is_wrong = !matches!(naive::head(ahead, self.max_head), naive::Head::Acceptable(_));
        (is_settled && is_wrong && !ahead.is_empty()).then_some(true)
    }

    // === answers ===

    fn answer(&self, more: &[u8]) -> naive::Answer {
        let current = self.current.as_ref().expect("a message");
        let written = [&current.written[..], more].concat();
        naive::answer(current.head.method == "HEAD", current.head.next, &written)
    }

    /// The socket has accepted this. Says what the exchange should make of it.
    pub(super) fn write(&mut self, piece: &[u8]) -> Wrote {
        if self.is_tunnel {
            return Wrote::Part;
        }
        if self.outstanding == Outstanding::Nothing {
            self.is_last = true;
            return Wrote::Unasked;
        }
        let answer = self.answer(piece);
        let current = self.current.as_mut().expect("a message");
        current.written.extend_from_slice(piece);
        self.is_last |= answer.wants_close || answer.used < current.written.len();
        match answer.state {
            ResponseState::Tunnel => {
                self.is_tunnel = true;
                self.outstanding = Outstanding::Nothing;
                return Wrote::Tunnel;
            }
            state if is_complete(state) => {
                self.outstanding = Outstanding::Nothing;
                return Wrote::Complete;
            }
            ResponseState::UntilClose => self.outstanding = Outstanding::Endless,
            ResponseState::Broken => {
                self.outstanding = Outstanding::Endless;
                return Wrote::Lost;
            }
            _ => {}
        }
        Wrote::Part
    }

    // === moving ===

    /// Whether nothing speaks against moving.
    pub(super) fn may_move(&self) -> bool {
        self.is_delivered() && self.outstanding == Outstanding::Nothing && !self.is_last && !self.is_tunnel
    }

    /// The connection has moved with these bytes.
    pub(super) fn moved(&mut self, read_ahead: &[u8]) {
        let without = self.held() - read_ahead.len();
        assert_eq!(naive::empty_lines(&self.ahead()[..without]), without, "bytes are lost");
        self.taken += without;
        assert_eq!(read_ahead, self.ahead());
        // The next worker reads the end again.
        self.is_eof = false;
    }

    /// What the next worker is told.
    pub(super) fn standing(&mut self, is_open: bool) -> Standing {
        self.is_judged |= is_open;
        match &self.current {
            _ if self.is_judged => Standing::Judged,
            Some(_) => Standing::Used,
            None => Standing::New,
        }
    }
}
