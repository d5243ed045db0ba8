//! What the frameworks are asked: whether they frame what is accepted here as it is framed here.
//!
//! They may refuse more. They must not see other messages, other bodies, or another end.

use super::naive::{self, Stop};
use super::replay::inputs;
use super::split;
use crate::dispatch::handoff::chunked::Progress;
use crate::dispatch::handoff::head::{Facts, HeadReader, MAX_HEAD, Outcome, PrefaceRule, Switch};
use crate::dispatch::handoff::request_body::{BodyFraming, RequestBody};

/// What follows a head of the corpora, to see whether hyper sees it too.
const PROBE: &[u8] = b"GET /probe?1 HTTP/1.1\r\nhost: probe\r\n\r\n";

/// Bodies that are longer are left out.
const LONGEST: u64 = 1 << 16;

/// A message as somebody sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

/// A message as it is seen here.
pub(super) struct Ours {
    pub(super) seen: Seen,
    pub(super) target: String,
    pub(super) facts: Facts,
    /// How many bytes it takes, with those of empty lines in front.
    pub(super) len: usize,
}

impl Ours {
    /// The frameworks do not look into a Connection header that is not all ASCII. Here it is read, so the connection
    /// ends as the client has asked.
    pub(super) fn is_close_obscure(&self) -> bool {
        self.seen.headers.iter().any(|(name, value)| name == "connection" && !value.is_ascii())
    }
}

/// The messages that a connection would carry, and where the last ends.
pub(super) fn read(bytes: &[u8]) -> (Vec<Ours>, usize) {
    let mut messages = Vec::new();
    let mut end = 0;
    let mut reader = HeadReader::new(MAX_HEAD, PrefaceRule::Refused);
    loop {
        let start = end + reader.skip_empty_lines(&bytes[end..]);
        let Outcome::Request(head) = reader.poll(&bytes[start..]) else { return (messages, end) };
        let (view, facts) = (head.view(&bytes[start..]), head.facts());
        let rest = &bytes[start + head.len()..];
        let mut body = RequestBody::new(facts.body);
        let used = body.consume(rest);
        if body.progress() != Progress::Complete {
            return (messages, end);
        }
        let data = match facts.body {
            BodyFraming::Chunked => {
                let chunks = naive::chunked(rest);
                assert_eq!((chunks.used, chunks.stop), (used, Stop::Complete));
                chunks.data
            }
            _ => rest[..used].to_vec(),
        };
        let headers = view.headers().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()));
        let seen = Seen {
            method: view.method().to_owned(),
            path: view.path().to_owned(),
            query: view.query().map(str::to_owned),
            headers: sorted(headers.collect()),
            body: data,
        };
        let before = end;
        end = start + head.len() + used;
        let target = bytes[start..].split(|byte| *byte == b' ').nth(1).unwrap();
        let target = String::from_utf8(target.to_vec()).unwrap();
        messages.push(Ours { seen, target, facts, len: end - before });
        if facts.wants_close {
            return (messages, end);
        }
    }
}

/// Headers by name; those of one name stay in order.
pub(super) fn sorted(mut headers: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    headers.sort_by(|one, other| one.0.cmp(&other.0));
    headers
}

/// What a framework is fed, and where it comes from.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// Both folders of a target.
fn kept(target: &str) -> impl Iterator<Item = (String, Vec<u8>)> {
    let all = inputs("corpus", target).into_iter().chain(inputs("regressions", target));
    all.map(|(path, input)| (path.display().to_string(), input))
}

/// This head, if it is accepted, with a body and another message behind it.
pub(super) fn with_message_behind(name: String, text: &[u8]) -> Option<Case> {
    let mut reader = HeadReader::new(MAX_HEAD, PrefaceRule::Refused);
    let text = &text[reader.skip_empty_lines(text)..];
    let Outcome::Request(head) = reader.poll(text) else { return None };
    let body = match head.facts().body {
        BodyFraming::None => Vec::new(),
        BodyFraming::Length(length) if length > LONGEST => return None,
        BodyFraming::Length(length) => PROBE.iter().copied().cycle().take(length as usize).collect(),
        BodyFraming::Chunked => b"2;a=b\r\nab\r\n010\r\n0123456789abcdef\r\n0\r\nsum: 1\r\n\r\n".to_vec(),
    };
    let bytes = [&text[..head.len()], &body, PROBE].concat();
    let (ours, end) = read(&bytes);
    let is_last = head.facts().wants_close;
    assert_eq!((ours.len(), end == bytes.len()), if is_last { (1, false) } else { (2, true) });
    Some(Case { name, bytes })
}

/// The heads that are kept.
pub(super) fn heads() -> Vec<Case> {
    kept("head").filter_map(|(name, input)| with_message_behind(name, split(&input).1)).collect()
}

/// What clients send in the connections that are kept.
pub(super) fn pipelines() -> Vec<Case> {
    let clients = kept("exchange").map(|(name, input)| Case { name, bytes: split(split(&input).1).0.to_vec() });
    clients.filter(|case| !read(&case.bytes).0.is_empty()).collect()
}

/// The bodies that are kept.
pub(super) fn bodies() -> Vec<Case> {
    let head = b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    let all = kept("request_body").map(|(name, input)| {
        let bytes = [head, split(&input).1, PROBE].concat();
        Case { name, bytes }
    });
    all.filter(|case| !read(&case.bytes).0.is_empty()).collect()
}

/// Whether something follows that is no HTTP, perhaps.
pub(super) fn asks_for_another_protocol(ours: &[Ours]) -> bool {
    ours.iter().any(|message| message.facts.switch != Switch::None)
}

/// Fails where a framework refuses nearly all that is compared: then nothing is.
pub(super) fn assert_some_are_accepted(all: &[bool]) {
    let accepted = all.iter().filter(|accepted| **accepted).count();
    assert!(accepted * 4 > all.len() && accepted > 2, "accepted are {accepted} of {}", all.len());
}
