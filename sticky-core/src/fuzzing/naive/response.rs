//! Answers, from their first byte to their last.

use super::{Next, Stop, chunked, decimal, tokens};
use crate::dispatch::handoff::response::ResponseState;

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
        let head = match head(rest) {
            Ok(Some(head)) => head,
            Ok(None) => return Answer { used: bytes.len(), ..answer },
            Err(Malformed) => {
                let malformed_at = Some(answer.used);
                return Answer { used: bytes.len(), state: ResponseState::Broken, malformed_at, ..answer };
            }
        };
        let is_http10 = head.is_http10;
        let connection: Vec<_> = values(&head, "connection").into_iter().flat_map(tokens).collect();
        let says = |token: &str| connection.iter().any(|found| found == token);
        let has_coding = !values(&head, "transfer-encoding").is_empty();
        answer.wants_close |= says("close") || is_http10 && (has_coding || !says("keep-alive"));
        answer.used += head.len;
        let (used, state) = match (head.status, next) {
            (101, Next::Upgrade) | (200..300, Next::Connect) => (usize::MAX, ResponseState::Tunnel),
            (101, _) => (usize::MAX, ResponseState::Broken),
            (0..200, _) => {
                answer.is_replaceable = true;
                continue;
            }
            (204 | 304, _) => (0, ResponseState::Complete),
            _ if is_head => (0, ResponseState::Complete),
            _ => body(&head, &bytes[answer.used..]),
        };
        let used = answer.used.saturating_add(used).min(bytes.len());
        return Answer { used, state, ..answer };
    }
}

/// A head, by its lines.
struct Head<'a> {
    len: usize,
    is_http10: bool,
    status: u16,
    lines: Vec<&'a [u8]>,
}

struct Malformed;

const NAMES: [&str; 3] = ["connection", "content-length", "transfer-encoding"];

/// The head that the bytes begin with; none while it has no end.
fn head(bytes: &[u8]) -> Result<Option<Head<'_>>, Malformed> {
    if bytes[0] != b'H' {
        return Err(Malformed);
    }
    let mut lines = Vec::new();
    let mut len = 0;
    // What is behind the last line feed is no line yet.
    let (whole, _) = bytes.split_at(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
    for line in whole.split_inclusive(|byte| *byte == b'\n') {
        len += line.len();
        let line = &line[..line.len() - 1];
        let line = if line.ends_with(b"\r") { &line[..line.len() - 1] } else { line };
        if !lines.is_empty() && is_ambiguous(line) {
            return Err(Malformed);
        }
        lines.push(line);
        let (is_http10, status) = status_line(lines[0])?;
        if line.is_empty() {
            return Ok(Some(Head { len, is_http10, status, lines }));
        }
    }
    Ok(None)
}

fn status_line(line: &[u8]) -> Result<(bool, u16), Malformed> {
    let text: String = line.iter().map(|byte| char::from(*byte)).collect();
    let (version, rest) = text.split_once(' ').ok_or(Malformed)?;
    let status = rest.split(' ').next().unwrap();
    let is_right = ["HTTP/1.0", "HTTP/1.1"].contains(&version)
        && status.len() == 3
        && status.chars().all(|character| character.is_ascii_digit());
    if is_right { Ok((version.ends_with('0'), status.parse().unwrap())) } else { Err(Malformed) }
}

/// Whether a line belongs to the one before, or may be one of the fields that matter, or is one with something odd in it.
fn is_ambiguous(line: &[u8]) -> bool {
    let text: String = line.iter().map(|byte| char::from(*byte).to_ascii_lowercase()).collect();
    let has_blank = |name: &str| text.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '\t']));
    let is_odd = |name: &str| {
        let value = text.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')).unwrap_or_default();
        value.trim_ascii().contains(|character: char| character.is_ascii_control() && character != '\t')
    };
    text.starts_with([' ', '\t', '\r']) || NAMES.into_iter().any(|name| has_blank(name) || is_odd(name))
}

fn values<'a>(head: &Head<'a>, name: &str) -> Vec<&'a [u8]> {
    let fields = head.lines[1..].iter().filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon].eq_ignore_ascii_case(name.as_bytes()).then(|| line[colon + 1..].trim_ascii())
    });
    fields.collect()
}

/// How much of the rest is the body, and where the answer stands with that.
fn body(head: &Head<'_>, rest: &[u8]) -> (usize, ResponseState) {
    let (lengths, codings) = (values(head, "content-length"), values(head, "transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => (usize::MAX, ResponseState::UntilClose),
        ([], codings) if is_chunked(codings) => {
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
