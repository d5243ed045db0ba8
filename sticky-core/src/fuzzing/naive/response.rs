//! Answers, from their first byte to their last.

use super::{Next, Stop, chunked, decimal, tokens};
use crate::dispatch::handoff::response::ResponseState;

const MAX_HEADERS: usize = 4096;

/// The answer to one request, as far as it has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fuzzing) struct Answer {
    /// How many bytes belong to it.
    pub(in crate::fuzzing) used: usize,
    pub(in crate::fuzzing) state: ResponseState,
    pub(in crate::fuzzing) wants_close: bool,
    /// Nothing of the final answer is there.
    pub(in crate::fuzzing) is_replaceable: bool,
    /// Where something begins that is no head, nor the beginning of one.
    pub(in crate::fuzzing) malformed_at: Option<usize>,
}

/// Reads the answer to a request of this method.
pub(in crate::fuzzing) fn answer(is_head: bool, next: Next, bytes: &[u8]) -> Answer {
    let mut answer = Answer {
        used: 0,
        state: ResponseState::Outstanding,
        wants_close: false,
        is_replaceable: true,
        malformed_at: None,
    };
    loop {
        let rest = &bytes[answer.used..];
        if rest.is_empty() {
            return answer;
        }
        answer.is_replaceable = false;
        let mut slots = vec![httparse::EMPTY_HEADER; MAX_HEADERS.min(rest.len())];
        let mut head = httparse::Response::new(&mut slots);
        let parsed = if rest[0] == b'H' { head.parse(rest) } else { Err(httparse::Error::Token) };
        let len = match parsed {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Answer { used: bytes.len(), ..answer },
            Err(_) => {
                let malformed_at = Some(answer.used);
                return Answer { used: bytes.len(), state: ResponseState::Broken, malformed_at, ..answer };
            }
        };
        let is_http10 = head.version == Some(0);
        let connection: Vec<_> = values(&head, "connection").into_iter().flat_map(tokens).collect();
        let says = |token: &str| connection.iter().any(|found| found == token);
        answer.wants_close |= says("close") || is_http10 && !says("keep-alive");
        answer.used += len;
        let (used, state) = match (head.code.unwrap(), next) {
            (101, Next::Upgrade) | (200..300, Next::Connect) => (usize::MAX, ResponseState::Tunnel),
            (101, _) => (usize::MAX, ResponseState::Broken),
            (0..200, _) => {
                answer.is_replaceable = true;
                continue;
            }
            (204 | 304, _) => (0, ResponseState::Complete),
            _ if is_head => (0, ResponseState::Complete),
            _ => body(&head, is_http10, &bytes[answer.used..]),
        };
        let used = answer.used.saturating_add(used).min(bytes.len());
        return Answer { used, state, ..answer };
    }
}

fn values<'a>(head: &httparse::Response<'_, 'a>, name: &str) -> Vec<&'a [u8]> {
    let named = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value).collect()
}

/// How much of the rest is the body, and where the answer stands with that.
fn body(head: &httparse::Response<'_, '_>, is_http10: bool, rest: &[u8]) -> (usize, ResponseState) {
    let (lengths, codings) = (values(head, "content-length"), values(head, "transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => (usize::MAX, ResponseState::UntilClose),
        ([], codings) if is_chunked(codings) && !is_http10 => {
            let chunks = chunked(rest);
            match chunks.stop {
                Stop::Complete => (chunks.used, ResponseState::Complete),
                Stop::Open { .. } => (chunks.used, ResponseState::Outstanding),
                Stop::Broken => (usize::MAX, ResponseState::Broken),
            }
        }
        (lengths, []) => match decimal(lengths[0]) {
            Some(length) if lengths.iter().all(|value| decimal(value) == Some(length)) => {
                let used = rest.len().min(usize::try_from(length).unwrap_or(usize::MAX));
                let is_all = used as u64 == length;
                (used, if is_all { ResponseState::Complete } else { ResponseState::Outstanding })
            }
            _ => (usize::MAX, ResponseState::Broken),
        },
        _ => (usize::MAX, ResponseState::Broken),
    }
}

/// Whether the last coding is chunked, and the header in front of it does not end like that too.
fn is_chunked(codings: &[&[u8]]) -> bool {
    codings
        .iter()
        .fold(false, |is_chunked, value| !is_chunked && tokens(value).last().is_some_and(|last| last == "chunked"))
}
