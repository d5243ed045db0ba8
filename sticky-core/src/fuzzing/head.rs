//! Heads of requests: whole or in pieces, the parser's and the naive view of them are the same.

use super::{naive, open};
use crate::dispatch::handoff::head::{
    Facts, Head, HeadReader, MAX_HEAD, MethodClass, Outcome, PREFACE, PrefaceRule, Switch,
};
use crate::dispatch::handoff::request_body::BodyFraming;
use crate::dispatch::handoff::tokens::Version;

/// What an unfinished head could go on with.
const ENDS: [&[u8]; 12] = [
    b"\n",
    b"\r\n",
    b"\n\r\n",
    b"\r\n\r\n",
    b".1\r\n\r\n",
    b" HTTP/1.1\r\n\r\n",
    b" / HTTP/1.0\r\n\r\n",
    b"ET / HTTP/1.1\r\n\r\n",
    b": x\r\n\r\n",
    b"x: y\r\n\r\n",
    b"\r\nConnection: upgrade\r\n\r\n",
    b"://h HTTP/1.1\r\n\r\n",
];

pub(super) fn check(input: &[u8]) {
    let (mut numbers, text) = open(input);
    let max_len = [MAX_HEAD, 30, 64, 200][numbers.choose(4)];
    let rule = [PrefaceRule::Recognised, PrefaceRule::Refused][numbers.choose(2)];
    let mut reader = HeadReader::new(max_len, rule);
    let skipped = reader.skip_empty_lines(text);
    assert_eq!(skipped, naive::empty_lines(text));
    let text = &text[skipped..];
    let new = || HeadReader::new(max_len, rule);
    let whole = reader.poll(text);
    compare(&whole, text, max_len, rule);
    assert_same(&whole, &new().poll(text));
    repeat(reader, &whole, text);

    let mut seen = 0;
    let mut in_pieces = new();
    let mut outcome = Outcome::Partial;
    for piece in numbers.pieces(text) {
        seen += piece.len();
        let before = &text[..seen];
        assert_same_in_time(&new().poll(before), &whole, seen);
        outcome = in_pieces.poll(before);
        if !is_partial(&outcome) {
            break;
        }
    }
    assert_same_in_time(&outcome, &whole, text.len());
    if let Outcome::Request(head) = &whole {
        look(head, text);
        assert!(is_partial(&new().poll(&text[..head.len() - 1])), "a head without its last byte");
    }
    if !is_partial(&outcome) {
        assert!(matches!(in_pieces.poll(b"GET / HTTP/1.1\r\n\r\n"), Outcome::Request(_)), "ready for the next one");
    }
}

/// A reader that has served this head knows it again, and nothing else.
fn repeat(mut reader: HeadReader, whole: &Outcome, text: &[u8]) {
    let Outcome::Request(head) = whole else { return };
    for _ in 0..3 {
        let again = reader.poll(text);
        assert_same(&again, whole);
        let Outcome::Request(again) = again else { return };
        look(&again, text);
        reader.remember(again, text);
    }
    assert!(is_partial(&reader.poll(&text[..head.len() - 1])), "a head without its last byte");
    assert_same(&reader.poll(text), whole);
}

fn is_partial(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Partial | Outcome::PartialPreface)
}

/// The parser under test against the naive one.
fn compare(outcome: &Outcome, text: &[u8], max_len: u16, rule: PrefaceRule) {
    let max_len = usize::from(max_len);
    if rule == PrefaceRule::Recognised && !text.is_empty() && (text.starts_with(PREFACE) || PREFACE.starts_with(text)) {
        let is_whole = text.len() >= PREFACE.len();
        assert_eq!(matches!(outcome, Outcome::Preface), is_whole);
        assert_eq!(is_partial(outcome), !is_whole);
        return;
    }
    match (naive::head(text, max_len), outcome) {
        (naive::Head::Acceptable(request), Outcome::Request(head)) => compare_heads(head, &request, text),
        (naive::Head::Unacceptable, Outcome::Refused(_)) => {}
        (naive::Head::Endless, Outcome::Partial) => {
            assert!(text.len() < max_len, "an unfinished head beyond the bound");
        }
        (naive::Head::Endless, Outcome::Refused(refusal)) if text.len() < max_len => {
            for end in ENDS {
                let longer = [text, end].concat();
                let longer = naive::head(&longer, max_len);
                assert!(!matches!(longer, naive::Head::Acceptable(_)), "{refusal:?} before the end of {longer:?}");
            }
        }
        (naive::Head::Endless, Outcome::Refused(_)) => {}
        (naive, _) => panic!("{outcome:?} where the naive one says {naive:?}"),
    }
}

fn compare_heads(head: &Head, request: &naive::Request<'_>, text: &[u8]) {
    assert_eq!(head.len(), request.len);
    let view = head.view(text);
    assert_eq!(view.method(), request.method);
    assert_eq!(view.headers().collect::<Vec<_>>(), request.headers);
    assert_eq!(head.facts(), facts(request));

    let mut slots = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut slots);
    assert_eq!(parsed.parse(text), Ok(httparse::Status::Complete(request.len)));
    let version = if request.is_http10 { 0 } else { 1 };
    assert_eq!((parsed.method, parsed.path), (Some(request.method), Some(request.target)));
    assert_eq!(parsed.version, Some(version));
    let headers: Vec<_> = parsed.headers.iter().map(|header| (header.name, header.value)).collect();
    assert_eq!(headers, request.headers);
}

/// The naive parser's word for what framing depends on, in ours.
pub(super) fn facts(request: &naive::Request<'_>) -> Facts {
    Facts {
        method: match request.method {
            "CONNECT" => MethodClass::Connect,
            "HEAD" => MethodClass::Head,
            _ => MethodClass::Other,
        },
        version: if request.is_http10 { Version::Http10 } else { Version::Http11 },
        body: match request.body {
            naive::Body::None => BodyFraming::None,
            naive::Body::Length(length) => BodyFraming::Length(length),
            naive::Body::Chunked => BodyFraming::Chunked,
        },
        switch: match request.next {
            naive::Next::Message => Switch::None,
            naive::Next::Upgrade => Switch::Upgrade,
            naive::Next::Connect => Switch::Connect,
        },
        expects_continue: request.expects_continue,
        wants_close: request.wants_close,
    }
}

/// What was said of a beginning must hold for the whole.
fn assert_same_in_time(beginning: &Outcome, whole: &Outcome, seen: usize) {
    match (beginning, whole) {
        (Outcome::Partial | Outcome::PartialPreface, Outcome::Request(head)) => assert!(seen < head.len()),
        (Outcome::Partial | Outcome::PartialPreface, Outcome::Preface) => assert!(seen < PREFACE.len()),
        (Outcome::Partial | Outcome::PartialPreface, _) => {}
        (beginning, whole) => assert_same(beginning, whole),
    }
}

/// Of what is refused, why may depend on how it came.
fn assert_same(one: &Outcome, other: &Outcome) {
    match (one, other) {
        (Outcome::Request(one), Outcome::Request(other)) => {
            assert_eq!((one.len(), one.facts()), (other.len(), other.facts()));
        }
        _ => assert_eq!(std::mem::discriminant(one), std::mem::discriminant(other), "{one:?} and {other:?}"),
    }
}

/// Everything that can be asked of a head.
fn look(head: &Head, text: &[u8]) {
    let view = head.view(text);
    let naive::Head::Acceptable(request) = naive::head(text, usize::from(u16::MAX)) else { panic!("no head") };
    let query = view.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = request.target.split('#').next().unwrap();
    let path = view.path();
    assert!(target.ends_with(&format!("{path}{query}")) || path == "/", "{path}{query} of {target}");
    assert_eq!(target.contains('?') && view.method() != "CONNECT", view.query().is_some());
    if let Some(host) = view.host() {
        let in_header = view.header("host").is_some_and(|value| value == host.as_bytes());
        assert!(in_header || target.contains(host));
    }
    for (name, value) in view.headers() {
        assert!(view.header_lines(&name.to_ascii_uppercase()).any(|line| line == value));
        assert_eq!(view.header(name), view.header_lines(name).next());
    }
}
