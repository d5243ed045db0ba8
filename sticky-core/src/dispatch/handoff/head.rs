//! Finds one request head in a buffer that grows, and judges how its message is framed. Pure.
//!
//! The whole head is parsed with the parser that hyper and actix use, so that all three see the same headers; what they
//! would frame differently, or what only one of them accepts, is refused here (see [`Refusal`]).
//!
//! Left to the framework, because it changes nothing about where the message ends: a missing or repeated Host (hyper
//! accepts both), the number of headers between 97 and 100 (actix refuses them), unknown methods and expectations.

use std::mem::{self, MaybeUninit};

use super::refusal::Refusal;
use super::request_body::BodyFraming;
use super::request_head::{HeaderSpan, RequestHead, Span, Target};
use super::tokens::{self, ConnectionOptions, Version};
use crate::affinity::AffinityKey;

/// The default bound of a head in bytes. Bounds are `u16`: positions in a head are kept in 16 bits.
pub(crate) const MAX_HEAD: u16 = 32 * 1024;

/// Of longer heads nothing is kept for the next one. A connection that waits for its next message holds as much.
const MAX_REMEMBERED: usize = 1024;

/// As many headers as hyper accepts.
const MAX_HEADERS: usize = 100;

/// How an HTTP/2 connection begins.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// As much of the preface as no other request begins with.
const PREFACE_MARK: usize = "PRI ".len();

/// What the buffer begins with.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Not yet a whole head.
    Partial,
    /// Not yet a whole HTTP/2 preface, and hardly anything else.
    PartialPreface,
    /// An HTTP/2 preface.
    Preface,
    /// A head that can be framed.
    Request(Head),
    /// Something that can't.
    Refused(Refusal),
}

/// Whether a connection may turn out to be HTTP/2: only its first bytes can say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PrefaceRule {
    Recognised,
    Refused,
}

/// Looks for the end of a head without looking at any byte twice, except to parse the whole; a head that is the same as
/// the one before is not parsed again.
#[derive(Debug)]
pub(crate) struct HeadReader {
    max_len: u16,
    preface: PrefaceRule,
    /// How much of the buffer has been searched for the end of the head.
    seen: usize,
    last: Option<Box<Last>>,
    /// The first head that is served is not kept: many connections close or move before there is another.
    has_served: bool,
}

/// The head that was served last. Most clients that keep a connection say the same again and again.
#[derive(Debug)]
struct Last {
    /// The bytes it was found in. Whatever begins with them begins with the same head: it ends where they end.
    bytes: Vec<u8>,
    /// None while somebody has it.
    head: Option<Head>,
}

impl HeadReader {
    /// A reader for heads of at most `max_len` bytes.
    pub(crate) fn new(max_len: u16, preface: PrefaceRule) -> Self {
        Self { max_len, preface, seen: 0, last: None, has_served: false }
    }

    /// The bound it was made with.
    pub(crate) fn max_len(&self) -> usize {
        usize::from(self.max_len)
    }

    /// From now on an HTTP/2 preface is a request with a wrong version.
    pub(crate) fn refuse_preface(&mut self) {
        self.preface = PrefaceRule::Refused;
    }

    /// Keeps a head that nobody will look at any more for the next one, which may be the same. `buffer` must begin with the
    /// bytes it was found in.
    pub(crate) fn remember(&mut self, head: Head, buffer: &[u8]) {
        let bytes = &buffer[..head.len()];
        if !mem::replace(&mut self.has_served, true) || bytes.len() > MAX_REMEMBERED {
            return self.forget();
        }
        let last = self.last.get_or_insert_with(|| Box::new(Last { bytes: Vec::new(), head: None }));
        if last.bytes != bytes {
            last.bytes.clear();
            last.bytes.extend_from_slice(bytes);
        }
        last.head = Some(head);
    }

    /// Holds no memory for heads any more.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    /// Whether it holds any.
    #[cfg(test)]
    pub(crate) fn remembers(&self) -> bool {
        self.last.is_some()
    }

    /// How many bytes of empty lines are in front of the next head. The caller takes them off before it polls: they
    /// belong to no message, and the frameworks skip them too.
    pub(crate) fn skip_empty_lines(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some(after) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
            rest = after;
        }
        let skipped = bytes.len() - rest.len();
        if skipped > 0 {
            self.seen = 0;
        }
        skipped
    }

    /// Looks at the buffer, which is the same as at the last call with more bytes at its end. After an outcome other
    /// than a partial one the reader is ready for the next head.
    pub(crate) fn poll(&mut self, bytes: &[u8]) -> Outcome {
        if bytes.is_empty() {
            return Outcome::Partial;
        }
        let outcome = self.preface(bytes).unwrap_or_else(|| self.request(bytes));
        if !matches!(outcome, Outcome::Partial | Outcome::PartialPreface) {
            self.seen = 0;
        }
        outcome
    }

    fn preface(&self, bytes: &[u8]) -> Option<Outcome> {
        if self.preface == PrefaceRule::Refused {
            None
        } else if bytes.starts_with(PREFACE) {
            Some(Outcome::Preface)
        } else if PREFACE.starts_with(bytes) {
            Some(if bytes.len() < PREFACE_MARK { Outcome::Partial } else { Outcome::PartialPreface })
        } else {
            None
        }
    }

    fn request(&mut self, bytes: &[u8]) -> Outcome {
        // Nearly every head arrives whole: then one pass of the parser is all.
        if self.seen == 0 {
            if let Some(head) = self.repeated(bytes) {
                return Outcome::Request(head);
            }
            let outcome = self.parse(bytes);
            if !matches!(outcome, Outcome::Partial) {
                return outcome;
            }
        }
        match self.find_end(bytes) {
            Err(refusal) => Outcome::Refused(refusal),
            Ok(Some(end)) => match self.parse(&bytes[..end]) {
                Outcome::Partial => Outcome::Refused(Refusal::RequestLine),
                outcome => outcome,
            },
            Ok(None) if bytes.len() >= self.max_len() => Outcome::Refused(Refusal::HeadTooLarge),
            Ok(None) => Outcome::Partial,
        }
    }

    /// The last head, if it is here again.
    fn repeated(&mut self, bytes: &[u8]) -> Option<Head> {
        let last = self.last.as_mut()?;
        if bytes.starts_with(&last.bytes) { last.head.take() } else { None }
    }

    /// Room for the headers of the next head.
    fn room(&mut self) -> Vec<HeaderSpan> {
        let mut headers =
            self.last.as_mut().and_then(|last| last.head.take()).map_or_else(Vec::new, |head| head.headers);
        headers.clear();
        headers
    }

    /// The end of the empty line that ends the head, searched for in the bytes that are new.
    fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        for at in self.seen..bytes.len() {
            if bytes[at] != b'\n' {
                continue;
            }
            let before = &bytes[..at];
            if !before.ends_with(b"\r") {
                return Err(Refusal::BareLineFeed);
            }
            if before.ends_with(b"\r\n\r") {
                return Ok(Some(at + 1));
            }
        }
        self.seen = bytes.len();
        Ok(None)
    }

    fn parse(&mut self, bytes: &[u8]) -> Outcome {
        let mut slots = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut slots) {
            Ok(httparse::Status::Partial) => Outcome::Partial,
            Ok(httparse::Status::Complete(len)) if len > self.max_len() => Outcome::Refused(Refusal::HeadTooLarge),
            Ok(httparse::Status::Complete(len)) => match Head::judge(&bytes[..len], &request, self.room()) {
                Ok(head) => Outcome::Request(head),
                Err(refusal) => Outcome::Refused(refusal),
            },
            Err(error) => Outcome::Refused(refusal(error, bytes)),
        }
    }
}

/// The parser's word for what is wrong, in ours.
fn refusal(error: httparse::Error, bytes: &[u8]) -> Refusal {
    match error {
        httparse::Error::Version if names_a_version(bytes) => Refusal::Version,
        httparse::Error::Version | httparse::Error::Token | httparse::Error::Status => Refusal::RequestLine,
        httparse::Error::HeaderName => Refusal::HeaderName,
        httparse::Error::HeaderValue => Refusal::HeaderValue,
        httparse::Error::NewLine => Refusal::LineEnding,
        httparse::Error::TooManyHeaders => Refusal::TooManyHeaders,
    }
}

/// Whether the request line ends with something that is meant as a version. The parser's error does not say.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let version = words.nth(2).unwrap_or_default();
    words.next().is_none()
        && version.strip_prefix(b"HTTP/").is_some_and(|number| number.first().is_some_and(u8::is_ascii_digit))
}

/// What the method means for framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MethodClass {
    Connect,
    Head,
    Other,
}

/// What the request asks the connection to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    /// Nothing: messages follow.
    None,
    /// Another protocol, if the answer is 101.
    Upgrade,
    /// A tunnel, if the answer is 2xx.
    Connect,
}

/// All that framing depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) method: MethodClass,
    pub(crate) version: Version,
    pub(crate) body: BodyFraming,
    pub(crate) switch: Switch,
    /// The client waits for 100 before it sends the body.
    pub(crate) expects_continue: bool,
    /// The client wants no other message on this connection.
    pub(crate) wants_close: bool,
}

/// A request head that has been found at the start of a buffer.
#[derive(Debug)]
pub(crate) struct Head {
    len: u16,
    method: Span,
    target: Span,
    headers: Vec<HeaderSpan>,
    facts: Facts,
    key: Option<AffinityKey>,
}

impl Head {
    /// What its affinity key has been found to be.
    pub(crate) fn key(&self) -> Option<AffinityKey> {
        self.key
    }

    /// Keeps the key for when the head comes again.
    pub(crate) fn set_key(&mut self, key: Option<AffinityKey>) {
        self.key = key;
    }

    /// How many bytes of the buffer it takes, the empty line included.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// What framing depends on.
    pub(crate) fn facts(&self) -> Facts {
        self.facts
    }

    /// What is in it. `buffer` must begin with the bytes it was found in.
    pub(crate) fn view<'a>(&'a self, buffer: &'a [u8]) -> RequestHead<'a> {
        RequestHead::new(&buffer[..self.len()], self.method, self.target, &self.headers)
    }

    fn judge(bytes: &[u8], request: &httparse::Request<'_, '_>, mut headers: Vec<HeaderSpan>) -> Result<Self, Refusal> {
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return Err(Refusal::RequestLine);
        };
        let class = MethodClass::of(method);
        if !Target::is_valid(class, target) {
            return Err(Refusal::Target);
        }
        let mut gathered = Gathered::default();
        headers.reserve_exact(request.headers.len());
        let mut is_in_order = ends_well(bytes, bytes.len()) && ends_well(bytes, bytes.len() - 2);
        for header in request.headers.iter() {
            let span = HeaderSpan::of(header, bytes);
            is_in_order &= ends_well(bytes, span.start());
            gathered.add(header.name.as_bytes(), header.value)?;
            headers.push(span);
        }
        if !is_in_order {
            return Err(Refusal::BareLineFeed);
        }
        Ok(Self {
            len: bytes.len() as u16, // At most `max_len`, which is 16 bits.
            method: Span::of(method.as_bytes(), bytes),
            target: Span::of(target.as_bytes(), bytes),
            headers,
            facts: gathered.conclude(class, Version::from_minor(request.version))?,
            key: None,
        })
    }
}

/// Whether the line before `end` ends as it must. The parser takes a line feed alone for the end of a line; other servers on
/// the way may not.
fn ends_well(bytes: &[u8], end: usize) -> bool {
    bytes[..end].ends_with(b"\r\n")
}

impl MethodClass {
    fn of(method: &str) -> Self {
        match method {
            "CONNECT" => Self::Connect,
            "HEAD" => Self::Head,
            _ => Self::Other,
        }
    }
}

/// What the headers say about framing, before it is put together.
#[derive(Default)]
struct Gathered {
    length: Option<u64>,
    chunked: bool,
    options: ConnectionOptions,
    upgrade: bool,
    web_socket: bool,
    expects_continue: bool,
}

impl Gathered {
    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        // Most names differ in length from all of these.
        match name.len() {
            6 if name.eq_ignore_ascii_case(b"expect") => self.add_expect(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.add_upgrade(value),
            10 if name.eq_ignore_ascii_case(b"connection") => self.options.add(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.add_length(value)?,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.add_coding(value)?,
            _ => {}
        }
        Ok(())
    }

    fn add_expect(&mut self, value: &[u8]) {
        self.expects_continue |= tokens::list(value).any(|token| token.eq_ignore_ascii_case(b"100-continue"));
    }

    fn add_upgrade(&mut self, value: &[u8]) {
        self.upgrade = true;
        self.web_socket |= tokens::list(value).any(|token| token.eq_ignore_ascii_case(b"websocket"));
    }

    fn add_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let length = tokens::length(value).ok_or(Refusal::InvalidLength)?;
        if self.length.replace(length).is_some() { Err(Refusal::RepeatedLength) } else { Ok(()) }
    }

    fn add_coding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let is_first = !self.chunked;
        self.chunked = true;
        if is_first && value.eq_ignore_ascii_case(b"chunked") { Ok(()) } else { Err(Refusal::TransferEncoding) }
    }

    fn conclude(self, method: MethodClass, version: Version) -> Result<Facts, Refusal> {
        let body = self.body(version)?;
        Ok(Facts {
            method,
            version,
            body,
            switch: self.switch(method, version, body)?,
            expects_continue: self.expects_continue,
            wants_close: self.options.wants_close(version),
        })
    }

    fn body(&self, version: Version) -> Result<BodyFraming, Refusal> {
        match (self.chunked, self.length) {
            (true, _) if version == Version::Http10 => Err(Refusal::TransferEncodingInHttp10),
            (true, Some(_)) => Err(Refusal::TransferEncodingWithLength),
            (true, None) => Ok(BodyFraming::Chunked),
            (false, None | Some(0)) => Ok(BodyFraming::None),
            (false, Some(length)) => Ok(BodyFraming::Length(length)),
        }
    }

    /// actix reads a WebSocket request as a stream without end, whatever its length, version and options say: such
    /// requests are either upgrades beyond doubt, or refused. Other upgrades in HTTP/1.0 or with a body (Java's client
    /// asks for `h2c` with every first request) are ordinary messages to all.
    fn switch(&self, method: MethodClass, version: Version, body: BodyFraming) -> Result<Switch, Refusal> {
        let has_body = body != BodyFraming::None;
        if self.upgrade && !self.options.upgrade {
            return Err(Refusal::UpgradeUnannounced);
        }
        if self.web_socket && version == Version::Http10 {
            return Err(Refusal::UpgradeInHttp10);
        }
        if self.web_socket && has_body {
            return Err(Refusal::UpgradeWithBody);
        }
        match method {
            MethodClass::Connect if has_body => Err(Refusal::ConnectWithBody),
            MethodClass::Connect => Ok(Switch::Connect),
            _ if self.upgrade && version == Version::Http11 && !has_body => Ok(Switch::Upgrade),
            _ => Ok(Switch::None),
        }
    }
}

#[cfg(test)]
mod tests;
