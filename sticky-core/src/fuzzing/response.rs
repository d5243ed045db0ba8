//! Answers: where they end does not depend on how the socket accepts them.

use super::naive::{self, Answer};
use super::open;
use crate::dispatch::handoff::head::{Facts, MethodClass, Switch};
use crate::dispatch::handoff::request_body::BodyFraming;
use crate::dispatch::handoff::response::{Response, ResponseState};
use crate::dispatch::handoff::tokens::Version;

pub(super) fn check(input: &[u8]) {
    let (mut numbers, text) = open(input);
    let (method, switch, next) = [
        (MethodClass::Other, Switch::None, naive::Next::Message),
        (MethodClass::Head, Switch::None, naive::Next::Message),
        (MethodClass::Other, Switch::Upgrade, naive::Next::Upgrade),
        (MethodClass::Connect, Switch::Connect, naive::Next::Connect),
        (MethodClass::Head, Switch::Upgrade, naive::Next::Upgrade),
    ][numbers.choose(5)];
    let facts = Facts {
        method,
        version: Version::Http11,
        body: BodyFraming::None,
        switch,
        expects_continue: false,
        wants_close: false,
    };
    let naive = |bytes: &[u8]| naive::answer(method == MethodClass::Head, next, bytes);

    let mut whole = Response::to(facts);
    let used = whole.accepted(text);
    compare(&whole, used, naive(text));

    let mut response = Response::to(facts);
    let mut used = 0;
    for piece in numbers.pieces(text) {
        let taken = response.accepted(piece);
        used += taken;
        if taken < piece.len() {
            assert_eq!(response.state(), ResponseState::Complete);
        }
    }
    let naive = naive(text);
    assert_eq!(used, naive.used);
    match naive.malformed_at {
        // A head that comes in pieces is not looked at before its end.
        Some(at) if response.state() == ResponseState::Outstanding => assert!(!has_end(&text[at..])),
        _ => compare(&response, used, naive),
    }
}

/// Whether there is an empty line.
fn has_end(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.contains("\n\n") || text.contains("\n\r\n")
}

fn compare(response: &Response, used: usize, naive: Answer) {
    assert_eq!((used, response.state(), response.wants_close()), (naive.used, naive.state, naive.wants_close));
    assert_eq!(response.is_replaceable(), naive.is_replaceable);
}
