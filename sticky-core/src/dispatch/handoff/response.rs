//! Follows the framework's answer to one request in the bytes that the socket has accepted: nothing else tells when it
//! is complete. Pure.

mod lines;
mod recent;

pub(crate) use self::lines::Parsed;
use self::lines::parse;
pub(crate) use self::recent::parse as parse_head;
use super::chunked::{Chunked, Progress};
use super::head::{Facts, MethodClass, Switch};
use super::tokens::{self, ConnectionOptions, Version};

/// The longest head of a response. Applications write them, not clients: what is longer only ends the moving.
const MAX_HEAD: usize = 64 * 1024;

/// Where the answer to the last request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseState {
    /// No request has been delivered yet.
    NotDue,
    /// Bytes of it are missing; interim answers (100, 103) do not count.
    Outstanding,
    /// The socket has accepted its last byte.
    Complete,
    /// What follows is not HTTP: an accepted 101, or 2xx to CONNECT.
    Tunnel,
    /// It has no end but the connection's.
    UntilClose,
    /// It cannot be framed. Bytes pass; the connection never moves again, and ends when nothing has been written for the idle
    /// timeout.
    Broken,
}

/// The answer to one request, byte by byte.
#[derive(Debug)]
pub(crate) struct Response {
    method: MethodClass,
    switch: Switch,
    stage: Stage,
    wants_close: bool,
}

#[derive(Debug)]
enum Stage {
    NotDue,
    /// In the head, of which these bytes have been accepted.
    Head(Vec<u8>),
    Length(u64),
    Chunked(Chunked),
    Complete,
    Tunnel,
    UntilClose,
    Broken,
}

impl Response {
    /// Before the first request.
    pub(crate) fn not_due() -> Self {
        Self { method: MethodClass::Other, switch: Switch::None, stage: Stage::NotDue, wants_close: false }
    }

    /// The answer to a request with these facts; nothing of it has been written.
    pub(crate) fn to(request: Facts) -> Self {
        Self { method: request.method, switch: request.switch, stage: Stage::Head(Vec::new()), wants_close: false }
    }

    /// Counts bytes that the socket has accepted, and returns how many of them belong to this answer. Fewer than all:
    /// the framework wrote after the end.
    pub(crate) fn accepted(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            used += match &mut self.stage {
                Stage::NotDue | Stage::Complete => break,
                Stage::Tunnel | Stage::UntilClose | Stage::Broken => rest.len(),
                Stage::Head(_) => self.accepted_head(rest),
                Stage::Length(_) => self.accepted_length(rest.len()),
                Stage::Chunked(_) => self.accepted_chunked(rest),
            };
        }
        used
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> ResponseState {
        match self.stage {
            Stage::NotDue => ResponseState::NotDue,
            Stage::Head(_) | Stage::Length(_) | Stage::Chunked(_) => ResponseState::Outstanding,
            Stage::Complete => ResponseState::Complete,
            Stage::Tunnel => ResponseState::Tunnel,
            Stage::UntilClose => ResponseState::UntilClose,
            Stage::Broken => ResponseState::Broken,
        }
    }

    /// Whether the framework has said that the connection ends with it.
    pub(crate) fn wants_close(&self) -> bool {
        self.wants_close
    }

    /// Whether nothing of the final answer has been accepted, so that another one can still be written in its place.
    pub(crate) fn is_replaceable(&self) -> bool {
        match &self.stage {
            Stage::NotDue => true,
            Stage::Head(held) => held.is_empty(),
            _ => false,
        }
    }

    fn accepted_head(&mut self, bytes: &[u8]) -> usize {
        let Stage::Head(held) = &mut self.stage else { return 0 };
        let before = held.len();
        if before == 0 {
            // Nearly every head is accepted whole: then it is parsed where it is.
            return match recent::parse(bytes) {
                Parsed::Head(len, head) => self.take_head(len, head),
                Parsed::Partial if bytes.len() <= MAX_HEAD => self.hold(bytes),
                Parsed::Partial | Parsed::Malformed => self.give_up(bytes.len()),
            };
        }
        held.extend_from_slice(&bytes[..bytes.len().min(MAX_HEAD)]);
        match end_of_head(held, before).map(|end| (end, parse(&held[..end]))) {
            Some((end, Parsed::Head(len, head))) if end == len => self.take_head(end - before, head),
            Some(_) => self.give_up(bytes.len()),
            None if held.len() > MAX_HEAD => self.give_up(bytes.len()),
            None => bytes.len(),
        }
    }

    fn hold(&mut self, bytes: &[u8]) -> usize {
        self.stage = Stage::Head(bytes.to_vec());
        bytes.len()
    }

    fn give_up(&mut self, len: usize) -> usize {
        self.stage = Stage::Broken;
        len
    }

    fn take_head(&mut self, len: usize, head: Head) -> usize {
        // A framework may send chunks to a client of HTTP/1.0 (actix does). Nobody can say what that client makes of them, so
        // nothing follows, whatever the framework says.
        self.wants_close |= head.wants_close() || head.has_odd_chunks();
        self.stage = match head.status {
            101 if self.switch == Switch::Upgrade => Stage::Tunnel,
            101 => Stage::Broken,
            ..200 => Stage::Head(Vec::new()),
            ..300 if self.switch == Switch::Connect => Stage::Tunnel,
            204 | 304 => Stage::Complete,
            _ if self.method == MethodClass::Head => Stage::Complete,
            _ => head.body(),
        };
        len
    }

    fn accepted_length(&mut self, available: usize) -> usize {
        let Stage::Length(rest) = &mut self.stage else { return 0 };
        let taken = (*rest).min(available as u64);
        *rest -= taken;
        if *rest == 0 {
            self.stage = Stage::Complete;
        }
        taken as usize
    }

    fn accepted_chunked(&mut self, bytes: &[u8]) -> usize {
        let Stage::Chunked(body) = &mut self.stage else {
            return 0;
        };
        let taken = body.consume(bytes);
        match body.progress() {
            Progress::Open => taken,
            Progress::Complete => {
                self.stage = Stage::Complete;
                taken
            }
            Progress::Broken(_) => self.give_up(bytes.len()),
        }
    }
}

/// What matters of a response's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    version: Version,
    options: ConnectionOptions,
    coding: Coding,
    length: Length,
    /// Whether nothing in it concerns the connection alone (RFC 9110, 7.6.1), but for how it is framed.
    pub(crate) is_end_to_end: bool,
}

/// How the body of a response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
    /// In more than one way.
    Ambiguous,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    None,
    /// Whatever else it is, it is chunked last.
    Chunked,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    None,
    Known(u64),
    Contradictory,
}

impl Head {
    const EMPTY: Self = Self::new(200, Version::Http11);

    const fn new(status: u16, version: Version) -> Self {
        Self {
            status,
            version,
            options: ConnectionOptions::NONE,
            coding: Coding::None,
            length: Length::None,
            is_end_to_end: matches!(version, Version::Http11),
        }
    }

    fn has_odd_chunks(&self) -> bool {
        self.version == Version::Http10 && self.coding != Coding::None
    }

    fn add_length(&mut self, value: &[u8]) {
        self.length = match (self.length, tokens::length(value)) {
            (Length::None, Some(length)) => Length::Known(length),
            (Length::Known(known), Some(length)) if known == length => self.length,
            _ => Length::Contradictory,
        };
    }

    fn add_coding(&mut self, value: &[u8]) {
        let is_chunked = tokens::list(value).last().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
        self.coding = if is_chunked && self.coding != Coding::Chunked { Coding::Chunked } else { Coding::Other };
    }

    /// Whether the connection that it came on ends with it.
    pub(crate) fn wants_close(&self) -> bool {
        self.options.wants_close(self.version)
    }

    /// How the body of this final answer is framed, if it may have one.
    pub(crate) fn framing(&self) -> Framing {
        match (self.coding, self.length) {
            (Coding::None, Length::None) => Framing::UntilClose,
            (Coding::None, Length::Known(length)) => Framing::Length(length),
            (Coding::Chunked, Length::None) => Framing::Chunked,
            _ => Framing::Ambiguous,
        }
    }

    fn body(&self) -> Stage {
        match self.framing() {
            Framing::UntilClose => Stage::UntilClose,
            Framing::Length(0) => Stage::Complete,
            Framing::Length(length) => Stage::Length(length),
            Framing::Chunked => Stage::Chunked(Chunked::new()),
            Framing::Ambiguous => Stage::Broken,
        }
    }
}

/// The end of the empty line that ends the head, searched for from `from` on. Any line may end with a line feed alone.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let ends_here =
        |at: &usize| bytes[*at] == b'\n' && (bytes[..*at].ends_with(b"\n\r") || bytes[..*at].ends_with(b"\n"));
    (from..bytes.len()).find(ends_here).map(|at| at + 1)
}

#[cfg(test)]
mod tests;
