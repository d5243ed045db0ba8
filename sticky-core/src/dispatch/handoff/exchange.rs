//! One connection's messages, one at a time: what the framework may read now, and when the connection may move. Pure.
//!
//! The guard around it does the reading and writing and nothing else:
//!
//! ```text
//! poll_read:   loop { match exchange.read() {
//!     Deliver          copy from deliverable(), say delivered(n), return
//!     Pass             socket ──► framework's buffer, say passed(n) or eof(), return
//!     Fetch            socket ──► received(bytes) or eof(), go on
//!     Park             keep the framework's waker; socket ──► received(bytes) or eof() within the bound, go on; else pending
//!     Decide           opening(); then serve(), which is_judged() asks for, step_aside(), or an answer of its own and
//!                      close()
//!     End              end-of-stream, as often as asked
//!     Refuse, Abort    answer (or not), close() and linger
//! }}
//! poll_write:  socket accepts n bytes ──► accepted(those bytes); Complete, Lost and Tunnel wake the parked reader
//! shutdown:    shutdown() says whether the socket hears of it
//! drop:        into_moving(): what to send to the owner, if anything
//! ```

use bytes::{Buf, BytesMut};

use super::chunked::Progress;
use super::head::{Facts, Head, HeadReader, Outcome, PrefaceRule, Switch};
use super::refusal::Refusal;
use super::request_body::RequestBody;
use super::request_head::RequestHead;
use super::response::{Response, ResponseState};

/// How much is read at once where it can't be said how much belongs to this message.
const READ_SIZE: usize = 8 * 1024;

/// What the framework's wish to read comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Copy from [`Exchange::deliverable`].
    Deliver,
    /// Read at most so many bytes straight into the framework's buffer: they need no look.
    Pass { at_most: u64 },
    /// Read at most so many bytes and show them to [`Exchange::received`].
    Fetch { at_most: usize },
    /// Nothing for the framework before its response is complete. Meanwhile so many bytes may be read ahead, which also
    /// shows the client's end-of-stream; with 0 the socket is left alone.
    Park { read_ahead: usize },
    /// A message has begun and nothing is outstanding: whose is it?
    Decide,
    /// End-of-stream for the framework, again and again.
    End(End),
    /// Answer the client in the framework's place and close.
    Refuse(Refusal),
    /// Close without an answer: one has begun already.
    Abort(Refusal),
}

/// Why the framework reads end-of-stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client has sent all it will send.
    Client,
    /// The connection belongs to another worker.
    Aside,
    /// Someone has said that no message follows, or wrote what nobody asked for.
    Last,
}

/// What accepted bytes have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// Nothing that a parked reader waits for.
    Part,
    /// The response is complete: wake the parked reader.
    Complete,
    /// The connection has left HTTP: wake the parked reader.
    Tunnel,
    /// They belong to a response that cannot be framed: nobody will know when it is complete. Wake the parked reader, whose
    /// time begins anew.
    Lost,
    /// Nothing was outstanding. The connection will not move any more.
    Unasked,
}

/// What begins here.
#[derive(Debug)]
pub(crate) enum Opening<'a> {
    Request(RequestHead<'a>),
    /// An HTTP/2 connection, with many requests: only the client's address can be its key.
    Http2,
}

/// How far a connection between messages has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has carried no message: what begins here may still be HTTP/2.
    New,
    /// It has carried messages, and nobody has judged whose the next one is.
    Used,
    /// The worker that sent it has judged that the next message is for this one: it is to be served as it is.
    Judged,
}

/// What a connection looks like from outside, for its timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// New, and not a byte of a message has come.
    Fresh,
    /// A head has begun.
    Head,
    /// A request or its response is under way.
    Message,
    /// A response is under way, or was: it cannot be framed.
    Lost,
    /// Between messages.
    Idle,
    /// No longer HTTP/1.1.
    Tunnel,
    /// Nothing follows here.
    Over,
}

/// Whether the socket hears of the framework's shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shutdown {
    Pass,
    /// It answers our end-of-stream; the connection lives on elsewhere.
    Swallow,
}

/// The connection is in the middle of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// What goes to the owner along with the descriptor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Moving {
    /// What has been read of the messages to come; they begin with a head, or with a part of one.
    pub(crate) read_ahead: BytesMut,
    pub(crate) standing: Standing,
}

/// The messages of one connection.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// What has been read and not delivered, never more than the bound of a head.
    buffer: BytesMut,
    reader: HeadReader,
    inbound: Inbound,
    response: Response,
    standing: Standing,
    /// No message follows the one under way.
    is_last: bool,
    /// The client has sent all it will send.
    is_eof: bool,
}

#[derive(Debug)]
enum Inbound {
    /// The buffer begins where the next head will.
    Between,
    /// The buffer begins with a whole head.
    Opened(Head),
    OpenedHttp2,
    /// The buffer begins with something that is no head.
    Refused(Refusal),
    Message(Message),
    /// All of a request that asks for another protocol has been delivered. What follows is looked at when the status is
    /// known: it may be a head, or anything.
    Switching,
    Tunnel,
    Aside(Aside),
    Closed,
}

/// A message that is being delivered.
#[derive(Debug)]
struct Message {
    /// So many bytes at the start of the buffer belong to it.
    cleared: usize,
    body: RequestBody,
    switch: Switch,
}

#[derive(Debug)]
struct Aside {
    standing: Standing,
    /// The framework wrote after our end-of-stream: where the client stands is not known.
    is_spoiled: bool,
}

impl Exchange {
    /// A new connection, with heads of at most `max_head` bytes.
    pub(crate) fn new(max_head: u16) -> Self {
        Self {
            buffer: BytesMut::new(),
            reader: HeadReader::new(max_head, PrefaceRule::Recognised),
            inbound: Inbound::Between,
            response: Response::not_due(),
            standing: Standing::New,
            is_last: false,
            is_eof: false,
        }
    }

    /// A connection that another worker has sent.
    pub(crate) fn resume(max_head: u16, moved: Moving) -> Self {
        let mut exchange = Self::new(max_head);
        exchange.buffer = moved.read_ahead;
        exchange.standing = moved.standing;
        if moved.standing == Standing::Used {
            exchange.reader.refuse_preface();
        }
        exchange
    }

    // === reading ===

    /// What the framework's wish to read comes to now. Asking again without other calls between gives the same answer.
    pub(crate) fn read(&mut self) -> Next {
        match &self.inbound {
            Inbound::Between => self.read_between(),
            Inbound::Opened(_) | Inbound::OpenedHttp2 => self.read_opened(),
            Inbound::Refused(refusal) => self.when_settled(Next::Refuse(*refusal)),
            Inbound::Message(message) => self.read_message(message),
            Inbound::Switching => self.read_switching(),
            Inbound::Tunnel => self.read_tunnel(),
            Inbound::Aside(_) => Next::End(End::Aside),
            Inbound::Closed => Next::End(End::Last),
        }
    }

    /// Whether a head may be read where the framework wants it: one may begin, and nothing has been read ahead.
    pub(crate) fn awaits_head(&self) -> bool {
        let is_next = matches!(self.inbound, Inbound::Between) && self.is_settled();
        is_next && self.buffer.is_empty() && !self.is_last && !self.is_eof
    }

    /// The head that these bytes begin with, if all of it is there. They are all that has come since
    /// [`awaits_head`](Self::awaits_head), and either [served](Self::serve_in_place) or [kept](Self::keep).
    pub(crate) fn peek(&mut self, bytes: &[u8]) -> Option<Head> {
        match self.reader.poll(bytes) {
            // Empty lines in front of it are nobody's.
            Outcome::Request(head) if !bytes.starts_with(b"\r") && !bytes.starts_with(b"\n") => Some(head),
            _ => None,
        }
    }

    /// It is for this worker, and the framework has it.
    ///
    /// # Errors
    ///
    /// The head, if there is more in these bytes than one message: nothing has changed.
    pub(crate) fn serve_in_place(&mut self, head: Head, bytes: &[u8]) -> Result<(), Head> {
        let mut body = RequestBody::new(head.facts().body);
        let length = head.len() + body.consume(&bytes[head.len()..]);
        if length < bytes.len() {
            return Err(head);
        }
        let facts = head.facts();
        self.reader.remember(head, bytes);
        self.begin(facts, body, 0);
        self.finish_message();
        Ok(())
    }

    /// What has been read goes the usual way, with the head that it begins with.
    pub(crate) fn keep(&mut self, bytes: &[u8], head: Option<Head>) {
        self.buffer.extend_from_slice(bytes);
        self.inbound = head.map_or(Inbound::Between, Inbound::Opened);
    }

    /// Bytes have come from the socket, not more than asked for.
    pub(crate) fn received(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        if let Inbound::Message(message) = &mut self.inbound {
            message.clear(&self.buffer);
        }
    }

    /// The socket has read end-of-stream.
    pub(crate) fn eof(&mut self) {
        self.is_eof = true;
    }

    /// What the framework may have now.
    pub(crate) fn deliverable(&self) -> &[u8] {
        match &self.inbound {
            Inbound::Message(message) => &self.buffer[..message.cleared],
            Inbound::Tunnel => &self.buffer,
            _ => &[],
        }
    }

    /// The framework has taken `n` bytes of what is deliverable.
    ///
    /// # Panics
    ///
    /// When there were fewer.
    pub(crate) fn delivered(&mut self, n: usize) {
        self.buffer.advance(n);
        if let Inbound::Message(message) = &mut self.inbound {
            message.cleared -= n;
        }
        self.finish_message();
        self.release();
    }

    /// `n` bytes went from the socket to the framework, not more than [`Next::Pass`] said.
    pub(crate) fn passed(&mut self, n: usize) {
        if let Inbound::Message(message) = &mut self.inbound {
            let counted = message.body.consume_data(n);
            debug_assert_eq!(counted, n, "more was passed than belongs to the message");
        }
        self.finish_message();
    }

    /// Whether nothing is left to do here but to carry bytes both ways.
    pub(crate) fn is_transparent(&self) -> bool {
        matches!(self.inbound, Inbound::Tunnel) && self.buffer.is_empty() && !self.is_eof
    }

    fn read_between(&mut self) -> Next {
        if self.buffer.is_empty() {
            return self.read_head();
        }
        let skipped = self.reader.skip_empty_lines(&self.buffer);
        self.buffer.advance(skipped);
        self.release();
        match self.reader.poll(&self.buffer) {
            Outcome::Partial | Outcome::PartialPreface => return self.read_head(),
            Outcome::Request(head) => self.inbound = Inbound::Opened(head),
            Outcome::Preface => self.inbound = Inbound::OpenedHttp2,
            Outcome::Refused(refusal) => self.inbound = Inbound::Refused(refusal),
        }
        self.read()
    }

    fn read_head(&self) -> Next {
        // A buffer that is full without a head is refused before this.
        let room = self.room(self.reader.max_len()).clamp(1, READ_SIZE);
        match self.when_settled(Next::Fetch { at_most: room }) {
            Next::End(end) => Next::End(end),
            // A part of a head that stays one is nothing the framework could use.
            _ if self.is_eof => Next::End(End::Client),
            Next::Park { .. } => Next::Park { read_ahead: room },
            next => next,
        }
    }

    fn read_opened(&self) -> Next {
        self.when_settled(Next::Decide)
    }

    /// How much may still be read if the buffer may hold `bound`, which never exceeds the bound of a head.
    fn room(&self, bound: usize) -> usize {
        bound.min(self.reader.max_len()).saturating_sub(self.buffer.len())
    }

    /// `next`, if nothing is outstanding and another message may follow.
    fn when_settled(&self, next: Next) -> Next {
        match () {
            () if !self.is_settled() => Next::Park { read_ahead: 0 },
            () if self.is_last => Next::End(End::Last),
            () => next,
        }
    }

    fn read_message(&self, message: &Message) -> Next {
        if message.cleared > 0 {
            return Next::Deliver;
        }
        match (message.body.progress(), message.body.worth_passing()) {
            (Progress::Broken(fault), _) if self.response.is_replaceable() => Next::Refuse(Refusal::Chunk(fault)),
            (Progress::Broken(fault), _) => Next::Abort(Refusal::Chunk(fault)),
            _ if self.is_eof => Next::End(End::Client),
            (_, Some(at_most)) => Next::Pass { at_most },
            (_, None) => Next::Fetch { at_most: self.room(READ_SIZE) },
        }
    }

    fn read_switching(&self) -> Next {
        match () {
            () if !self.is_eof => Next::Park { read_ahead: self.room(READ_SIZE) },
            () if self.buffer.is_empty() => Next::End(End::Client),
            () => Next::Park { read_ahead: 0 },
        }
    }

    /// Whether the client can say nothing more before a request that asks for another protocol has been answered: it has
    /// ended, or said as much as is read ahead. A framework that takes for the request's body what follows it waits in vain.
    pub(crate) fn has_said_all(&self) -> bool {
        matches!(self.inbound, Inbound::Switching) && (self.is_eof || self.room(READ_SIZE) == 0)
    }

    fn read_tunnel(&self) -> Next {
        match () {
            () if !self.buffer.is_empty() => Next::Deliver,
            () if self.is_eof => Next::End(End::Client),
            () => Next::Pass { at_most: u64::MAX },
        }
    }

    fn finish_message(&mut self) {
        if let Inbound::Message(message) = &self.inbound
            && message.is_delivered()
        {
            let is_open = message.switch != Switch::None && !self.is_settled();
            self.inbound = if is_open { Inbound::Switching } else { Inbound::Between };
        }
    }

    /// An idle connection holds no memory for bytes.
    fn release(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    // === deciding ===

    /// What begins here, after [`Next::Decide`].
    pub(crate) fn opening(&self) -> Option<Opening<'_>> {
        match &self.inbound {
            Inbound::Opened(head) => Some(Opening::Request(head.view(&self.buffer))),
            Inbound::OpenedHttp2 => Some(Opening::Http2),
            _ => None,
        }
    }

    /// Whether another worker has judged that what begins here is for this one.
    pub(crate) fn is_judged(&self) -> bool {
        self.standing == Standing::Judged
    }

    /// It is for this worker: deliver it. Does nothing before [`Next::Decide`].
    pub(crate) fn serve(&mut self) {
        match &self.inbound {
            Inbound::Opened(head) if self.is_settled() => {
                let (len, facts) = (head.len(), head.facts());
                let mut body = RequestBody::new(facts.body);
                let cleared = len + body.consume(&self.buffer[len..]);
                self.begin(facts, body, cleared);
            }
            Inbound::OpenedHttp2 => {
                self.inbound = Inbound::Tunnel;
                self.standing = Standing::Used;
            }
            _ => {}
        }
    }

    /// A message begins, of which `cleared` bytes are in the buffer.
    fn begin(&mut self, facts: Facts, body: RequestBody, cleared: usize) {
        self.is_last |= facts.wants_close;
        self.response = Response::to(facts);
        self.inbound = Inbound::Message(Message { cleared, body, switch: facts.switch });
        self.standing = Standing::Used;
        self.reader.refuse_preface();
        if facts.switch != Switch::None {
            self.reader.forget();
        }
    }

    /// Whether the connection can move now: nothing is outstanding, nobody has said close, and the client may still
    /// send something.
    pub(crate) fn may_step_aside(&self) -> bool {
        let is_between = match &self.inbound {
            Inbound::Between => !self.is_eof,
            Inbound::Opened(_) | Inbound::OpenedHttp2 => true,
            _ => false,
        };
        is_between && self.is_settled() && !self.is_last
    }

    /// Whether the next message, as far as it is known, is nobody's yet.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.inbound, Inbound::Between)
    }

    /// It is for another worker: from now on the framework reads end-of-stream, and [`Self::into_moving`] has what the
    /// owner needs.
    ///
    /// # Errors
    ///
    /// When the connection can't move now; it goes on as it was.
    pub(crate) fn step_aside(&mut self) -> Result<(), Busy> {
        if !self.may_step_aside() {
            return Err(Busy);
        }
        let standing = if let Inbound::Between = self.inbound { self.standing } else { Standing::Judged };
        self.inbound = Inbound::Aside(Aside { standing, is_spoiled: false });
        Ok(())
    }

    /// Whether the client has left off between two messages: it is another worker's, or has closed its side and has got
    /// all its answers.
    pub(crate) fn has_left_off(&self) -> bool {
        match &self.inbound {
            Inbound::Aside(aside) => !aside.is_spoiled,
            Inbound::Between => self.is_eof && self.is_settled() && !self.is_last,
            _ => false,
        }
    }

    /// What goes to the owner, when this worker has stepped aside and its framework has kept silent since.
    pub(crate) fn into_moving(self) -> Option<Moving> {
        match self.inbound {
            Inbound::Aside(Aside { standing, is_spoiled: false }) => Some(Moving { read_ahead: self.buffer, standing }),
            _ => None,
        }
    }

    /// The guard has answered in the framework's place: nothing follows.
    pub(crate) fn close(&mut self) {
        self.inbound = Inbound::Closed;
        self.buffer = BytesMut::new();
    }

    // === writing ===

    /// The socket has accepted these bytes from the framework.
    pub(crate) fn accepted(&mut self, bytes: &[u8]) -> Wrote {
        match &mut self.inbound {
            Inbound::Tunnel => return Wrote::Part,
            Inbound::Aside(aside) => {
                aside.is_spoiled |= !bytes.is_empty();
                return Wrote::Unasked;
            }
            _ => {}
        }
        let was_settled = self.is_settled();
        let used = self.response.accepted(bytes);
        let state = self.response.state();
        self.is_last |= self.response.wants_close() || used < bytes.len();
        match state {
            ResponseState::Tunnel => self.enter_tunnel(),
            ResponseState::Complete if !was_settled => self.complete(),
            ResponseState::Broken => Wrote::Lost,
            _ if used < bytes.len() => Wrote::Unasked,
            _ => Wrote::Part,
        }
    }

    /// The framework has shut its writing down.
    pub(crate) fn shutdown(&mut self) -> Shutdown {
        match &self.inbound {
            Inbound::Aside(Aside { is_spoiled: false, .. }) => Shutdown::Swallow,
            _ => {
                self.is_last = true;
                Shutdown::Pass
            }
        }
    }

    fn complete(&mut self) -> Wrote {
        if matches!(self.inbound, Inbound::Switching) {
            self.inbound = Inbound::Between;
        }
        Wrote::Complete
    }

    fn enter_tunnel(&mut self) -> Wrote {
        self.inbound = Inbound::Tunnel;
        Wrote::Tunnel
    }

    /// Whether no answer is outstanding.
    fn is_settled(&self) -> bool {
        matches!(self.response.state(), ResponseState::NotDue | ResponseState::Complete)
    }

    // === watching ===

    /// Whether nobody will know when the response is complete, although a framework may keep the connection after it.
    pub(crate) fn is_lost(&self) -> bool {
        self.response.state() == ResponseState::Broken
    }

    /// For the timers.
    pub(crate) fn phase(&self) -> Phase {
        match &self.inbound {
            Inbound::Tunnel => Phase::Tunnel,
            Inbound::Aside(_) | Inbound::Closed => Phase::Over,
            Inbound::Message(_) => Phase::Message,
            _ if self.is_lost() => Phase::Lost,
            _ if !self.is_settled() => Phase::Message,
            _ if self.is_last => Phase::Over,
            Inbound::Refused(_) => Phase::Over,
            _ if !self.buffer.is_empty() => Phase::Head,
            _ if self.standing != Standing::New => Phase::Idle,
            _ => Phase::Fresh,
        }
    }
}

impl Message {
    /// Counts what of the buffer behind the cleared bytes belongs to it.
    fn clear(&mut self, buffer: &[u8]) {
        self.cleared += self.body.consume(&buffer[self.cleared..]);
    }

    fn is_delivered(&self) -> bool {
        self.cleared == 0 && self.body.progress() == Progress::Complete
    }
}

#[cfg(test)]
mod tests;
