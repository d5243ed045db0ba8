//! Heads of requests, line by line.

use super::{decimal, tokens};

const MAX_HEADERS: usize = 100;

/// What the beginning of the bytes is.
#[derive(Debug)]
pub(in crate::fuzzing) enum Head<'a> {
    /// No end within the bytes.
    Endless,
    Acceptable(Request<'a>),
    Unacceptable,
}

/// A head that is acceptable.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::fuzzing) struct Request<'a> {
    pub(in crate::fuzzing) len: usize,
    pub(in crate::fuzzing) method: &'a str,
    pub(in crate::fuzzing) target: &'a str,
    pub(in crate::fuzzing) is_http10: bool,
    pub(in crate::fuzzing) headers: Vec<(&'a str, &'a [u8])>,
    pub(in crate::fuzzing) body: Body,
    pub(in crate::fuzzing) next: Next,
    pub(in crate::fuzzing) expects_continue: bool,
    pub(in crate::fuzzing) wants_close: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fuzzing) enum Body {
    None,
    Length(u64),
    Chunked,
}

/// What the connection may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fuzzing) enum Next {
    Message,
    Upgrade,
    Connect,
}

/// Reads a head at the beginning of the bytes.
pub(in crate::fuzzing) fn head(bytes: &[u8], max_len: usize) -> Head<'_> {
    match bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        None => Head::Endless,
        Some(at) if at + 4 > max_len => Head::Unacceptable,
        Some(at) => request(&bytes[..at], at + 4).map_or(Head::Unacceptable, Head::Acceptable),
    }
}

fn request(text: &[u8], len: usize) -> Option<Request<'_>> {
    let mut lines = Vec::new();
    let mut left = text;
    while let Some(at) = left.windows(2).position(|window| window == b"\r\n") {
        lines.push(&left[..at]);
        left = &left[at + 2..];
    }
    lines.push(left);
    let is_control = |byte: &u8| *byte == 127 || (*byte < 32 && *byte != b'\t');
    if lines.iter().any(|line| line.iter().any(is_control)) {
        return None;
    }
    let (request_line, fields) = lines.split_first()?;
    let [method, target, version] = request_line.split(|byte| *byte == b' ').collect::<Vec<_>>().try_into().ok()?;
    let (method, target) = (std::str::from_utf8(method).ok()?, std::str::from_utf8(target).ok()?);
    let is_http10 = match version {
        b"HTTP/1.0" => true,
        b"HTTP/1.1" => false,
        _ => return None,
    };
    if !is_token(method) || target.contains('\t') || !is_target(method, target) || fields.len() > MAX_HEADERS {
        return None;
    }
    let headers = fields.iter().map(|line| field(line)).collect::<Option<Vec<_>>>()?;
    framed(Request {
        len,
        method,
        target,
        is_http10,
        headers,
        body: Body::None,
        next: Next::Message,
        expects_continue: false,
        wants_close: false,
    })
}

fn field(line: &[u8]) -> Option<(&str, &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(&line[..colon]).ok()?;
    let mut value = &line[colon + 1..];
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    is_token(name).then_some((name, value))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_target(method: &str, target: &str) -> bool {
    if target.starts_with('/') {
        return true;
    }
    if method == "CONNECT" {
        return !target.is_empty() && target.chars().all(|character| !"/?#@".contains(character));
    }
    let Some((scheme, rest)) = target.split_once("://") else {
        return target == "*";
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap();
    let is_scheme = scheme.chars().all(|character| character.is_ascii_alphanumeric() || "+-.".contains(character));
    !scheme.is_empty() && is_scheme && !authority.is_empty() && !authority.ends_with('@')
}

/// Fills in what the headers say about framing; none if they say it in a way that is refused.
fn framed(mut request: Request<'_>) -> Option<Request<'_>> {
    let values = |name: &str| {
        let named = request.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| *value).collect::<Vec<_>>()
    };
    let lists = |name: &str| values(name).into_iter().flat_map(tokens).collect::<Vec<_>>();
    let has = |name: &str, token: &str| lists(name).iter().any(|found| found == token);
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    let body = match (&lengths[..], &codings[..]) {
        ([], []) => Body::None,
        ([length], []) => match decimal(length)? {
            0 => Body::None,
            length => Body::Length(length),
        },
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && !request.is_http10 => Body::Chunked,
        _ => return None,
    };
    let has_upgrade = !values("upgrade").is_empty();
    let is_web_socket = has("upgrade", "websocket");
    if has_upgrade && !has("connection", "upgrade") || is_web_socket && (request.is_http10 || body != Body::None) {
        return None;
    }
    let next = match request.method {
        "CONNECT" if body != Body::None => return None,
        "CONNECT" => Next::Connect,
        _ if has_upgrade && !request.is_http10 && body == Body::None => Next::Upgrade,
        _ => Next::Message,
    };
    let expects_continue = has("expect", "100-continue");
    let wants_close = has("connection", "close") || request.is_http10 && !has("connection", "keep-alive");
    (request.body, request.next) = (body, next);
    (request.expects_continue, request.wants_close) = (expects_continue, wants_close);
    Some(request)
}
