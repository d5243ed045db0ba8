//! Whole connections: a client, frameworks, and the workers between which the connection moves.
//!
//! The sections of an input behind the numbers: what the client sends, then the answers of the frameworks, one to each
//! message. What the client sends is cut into messages by the naive parser, and the exchange must agree with that:
//!
//! - every byte is delivered once, in order, to the worker that serves its message;
//! - no message begins before the one in front has been delivered and answered to the last byte;
//! - never more than the bound of a head is held;
//! - whatever moves moves with all that was read and not delivered, through the bytes of the channel.

mod model;

use self::model::{Model, Outstanding};
use super::{Numbers, open, split};
use crate::dispatch::handoff::exchange::{End, Exchange, Moving, Next, Opening, Phase, Shutdown, Standing, Wrote};
use crate::dispatch::handoff::head::MAX_HEAD;
use crate::dispatch::handoff::message::Message;
use crate::dispatch::handoff::response::ResponseState;

/// What frameworks answer where the input has nothing.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// More than any input needs that gets anywhere.
const STEPS: usize = 20_000;

pub(super) fn check(input: &[u8]) {
    let (mut numbers, rest) = open(input);
    let (client, answers) = split(rest);
    let max_head = [MAX_HEAD, 30, 64, 300][numbers.choose(4)];
    let mut play = Play {
        numbers,
        exchange: Exchange::new(max_head),
        max_head,
        model: Model::new(client, usize::from(max_head)),
        answers,
        answer: &[],
    };
    for _ in 0..STEPS {
        if !play.step() {
            return;
        }
    }
    panic!("no end");
}

struct Play<'a> {
    numbers: Numbers<'a>,
    exchange: Exchange,
    max_head: u16,
    model: Model<'a>,
    /// Those to later messages.
    answers: &'a [u8],
    /// What is left of the one under way.
    answer: &'a [u8],
}

impl<'a> Play<'a> {
    /// Goes on for one event. False at the end.
    fn step(&mut self) -> bool {
        match self.numbers.choose(16) {
            1 => self.write(),
            2 => self.write_unasked(),
            3 => self.shut_down(),
            4 if !self.step_aside_if_idle() => return false,
            5..8 if self.exchange.awaits_head() => self.read_in_place(),
            _ => {}
        }
        let next = self.exchange.read();
        assert_eq!(self.exchange.read(), next, "asked again");
        self.model.skip_empty_lines();
        self.look();
        match next {
            Next::Deliver => self.deliver(),
            Next::Pass { at_most } => self.pass(at_most),
            Next::Fetch { at_most } => self.fetch(at_most),
            Next::Park { read_ahead } => return self.park(read_ahead),
            Next::Decide => return self.decide(),
            Next::End(end) => return self.end(end),
            Next::Refuse(_) => return self.refuse(true),
            Next::Abort(_) => return self.refuse(false),
        }
        true
    }

    /// What must hold at any time.
    fn look(&self) {
        assert!(self.model.held() <= usize::from(self.max_head), "{} bytes are held", self.model.held());
        let deliverable = self.exchange.deliverable();
        assert_eq!(deliverable, &self.model.ahead()[..deliverable.len()]);
        assert!(deliverable.len() <= self.model.may_have());
        assert_eq!(self.exchange.phase() == Phase::Tunnel, self.model.is_tunnel);
        assert_eq!(
            self.exchange.is_transparent(),
            self.model.is_tunnel && self.model.held() == 0 && !self.model.is_eof
        );
        assert!(!self.exchange.may_step_aside() || self.model.may_move());
    }

    // === reading ===

    fn deliver(&mut self) {
        let n = self.numbers.size().min(self.exchange.deliverable().len());
        assert!(n > 0, "nothing to deliver");
        self.exchange.delivered(n);
        self.model.taken += n;
    }

    fn pass(&mut self, at_most: u64) {
        assert_eq!(self.model.held(), 0, "it would overtake what is held");
        assert!(self.model.is_data_ahead(at_most));
        let n = self.take_from_client(usize::try_from(at_most).unwrap_or(usize::MAX)).len();
        self.model.taken += n;
        match n {
            0 => self.exchange.eof(),
            n => self.exchange.passed(n),
        }
    }

    fn fetch(&mut self, at_most: usize) {
        assert!(at_most > 0);
        match self.take_from_client(at_most) {
            [] => self.exchange.eof(),
            bytes => self.exchange.received(bytes),
        }
    }

    /// The framework's own buffer is read into, and has the message if that is all there is.
    fn read_in_place(&mut self) {
        assert_eq!((self.model.held(), self.model.outstanding), (0, Outstanding::Nothing));
        let bytes = self.take_from_client(usize::from(self.max_head));
        if bytes.is_empty() {
            return self.exchange.eof();
        }
        let Some(head) = self.exchange.peek(bytes) else { return self.exchange.keep(bytes, None) };
        let view = head.view(bytes);
        self.model.open(Some((view.method(), view.headers().count())));
        let tried = if self.numbers.choose(4) == 1 { Err(head) } else { self.exchange.serve_in_place(head, bytes) };
        match tried {
            Ok(()) => {
                self.served();
                assert!(self.model.may_have() >= bytes.len(), "more than one message");
                self.model.taken += bytes.len();
            }
            Err(head) => self.exchange.keep(bytes, Some(head)),
        }
    }

    fn take_from_client(&mut self, at_most: usize) -> &'a [u8] {
        assert!(!self.model.is_eof, "reading after the end");
        let n = self.numbers.size().min(at_most);
        self.model.read(n)
    }

    /// The framework gets nothing before it has answered.
    fn park(&mut self, read_ahead: usize) -> bool {
        assert_ne!(self.model.outstanding, Outstanding::Nothing, "parked for nothing");
        let reads = read_ahead > 0 && (self.answer.is_empty() || self.numbers.choose(2) == 1);
        if reads {
            self.fetch(read_ahead);
        } else if !self.answer.is_empty() {
            self.write();
        } else {
            return false;
        }
        true
    }

    fn decide(&mut self) -> bool {
        let opening = self.exchange.opening().expect("something begins");
        let view = match &opening {
            Opening::Request(head) => Some((head.method(), head.headers().count())),
            Opening::Http2 => None,
        };
        self.model.open(view);
        assert!(self.exchange.may_step_aside());
        match self.numbers.choose(4) {
            1 => return self.step_aside(),
            2 if self.numbers.choose(8) == 1 => {
                self.exchange.close();
                return self.closed();
            }
            _ => {}
        }
        self.exchange.serve();
        self.served();
        true
    }

    /// What begins is served here.
    fn served(&mut self) {
        self.model.serve();
        (self.answer, self.answers) = split(self.answers);
        if self.answer.is_empty() {
            self.answer = OK;
        }
        if !self.model.is_tunnel {
            assert!(!self.exchange.is_judged());
        }
    }

    fn end(&mut self, end: End) -> bool {
        let is_owed = self.model.outstanding != Outstanding::Nothing;
        assert!(!self.exchange.has_left_off() || (self.model.is_eof && !is_owed && !self.model.is_last));
        match end {
            End::Client => assert!(self.model.is_eof && self.model.is_nothing_left()),
            End::Last => assert!(self.model.is_last),
            End::Aside => panic!("it had moved on"),
        }
        // A framework that has read the end still answers.
        if self.model.outstanding != Outstanding::Nothing && !self.answer.is_empty() {
            self.write();
            return true;
        }
        false
    }

    fn refuse(&mut self, is_answered: bool) -> bool {
        assert_eq!(self.model.is_wrong(), Some(is_answered));
        self.exchange.close();
        self.closed()
    }

    fn closed(&mut self) -> bool {
        assert_eq!(self.exchange.read(), Next::End(End::Last));
        assert_eq!((self.exchange.phase(), self.exchange.may_step_aside()), (Phase::Over, false));
        assert!(self.exchange.deliverable().is_empty());
        let exchange = std::mem::replace(&mut self.exchange, Exchange::new(self.max_head));
        assert_eq!(exchange.into_moving(), None);
        false
    }

    // === writing ===

    /// The framework writes a part of its answer, or more than that.
    fn write(&mut self) {
        if self.answer.is_empty() {
            return;
        }
        let n = self.numbers.size().min(self.answer.len());
        let (piece, rest) = self.answer.split_at(n);
        self.answer = rest;
        self.accepted(piece);
    }

    fn write_unasked(&mut self) {
        if self.model.outstanding == Outstanding::Nothing && self.numbers.choose(8) == 1 {
            self.accepted(b"HTTP/1.1 408 Request Timeout\r\n\r\n");
        }
    }

    fn accepted(&mut self, piece: &[u8]) {
        let expected = self.model.write(piece);
        let wrote = self.exchange.accepted(piece);
        // That a head is none may be noticed at its end or before.
        let is_noticed_elsewhere =
            [[Wrote::Lost, Wrote::Part], [Wrote::Part, Wrote::Lost]].contains(&[wrote, expected]);
        assert!(wrote == expected || is_noticed_elsewhere, "{wrote:?} instead of {expected:?}");
    }

    fn shut_down(&mut self) {
        if self.numbers.choose(8) == 1 {
            assert_eq!(self.exchange.shutdown(), Shutdown::Pass);
            self.model.is_last = true;
        }
    }

    // === moving ===

    /// Moves the connection between messages, perhaps; false if that is its end.
    fn step_aside_if_idle(&mut self) -> bool {
        if self.exchange.may_step_aside() {
            return self.numbers.choose(4) != 1 || self.step_aside();
        }
        let before = self.exchange.read();
        if !self.exchange.may_step_aside() {
            assert!(self.exchange.step_aside().is_err());
            assert_eq!(self.exchange.read(), before);
        }
        true
    }

    /// Moves the connection to the next worker; false if that is its end.
    fn step_aside(&mut self) -> bool {
        assert!(self.model.may_move());
        let is_open = self.exchange.opening().is_some();
        self.exchange.step_aside().expect("it may");
        assert_eq!((self.exchange.read(), self.exchange.phase()), (Next::End(End::Aside), Phase::Over));
        assert!(self.exchange.deliverable().is_empty());
        let is_spoiled = self.numbers.choose(8) == 1;
        if is_spoiled {
            assert_eq!(self.exchange.accepted(b"x"), Wrote::Unasked);
        }
        assert_eq!(self.exchange.has_left_off(), !is_spoiled);
        assert_eq!(self.exchange.shutdown(), if is_spoiled { Shutdown::Pass } else { Shutdown::Swallow });
        assert_eq!(self.exchange.read(), Next::End(End::Aside));
        let exchange = std::mem::replace(&mut self.exchange, Exchange::new(self.max_head));
        let moving = exchange.into_moving();
        assert_eq!(moving.is_none(), is_spoiled);
        let Some(moving) = moving else { return false };
        self.model.moved(&moving.read_ahead);
        let standing = self.model.standing(is_open);
        assert_eq!(moving.standing, standing);
        let moving = carry(moving);
        self.exchange = Exchange::resume(self.max_head, moving);
        assert_eq!(self.exchange.is_judged(), standing == Standing::Judged);
        if is_open {
            assert_eq!(self.exchange.read(), Next::Decide);
        }
        true
    }
}

/// Through the channel.
fn carry(moving: Moving) -> Moving {
    let message = Message { moving, hops: 1, peer: None, is_unix: false };
    let bytes = [&message.header()[..], &message.moving.read_ahead].concat();
    let read = Message::read(&bytes).expect("what was written");
    assert_eq!(read, message);
    read.moving
}

/// Whether the answer is complete.
fn is_complete(state: ResponseState) -> bool {
    state == ResponseState::Complete
}
