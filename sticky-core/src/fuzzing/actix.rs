//! actix frames what is accepted here exactly as it is framed here: heads, bodies and whole pipelines of the corpora,
//! and heads put together from lines that matter, with actix as the server and no guard between.
//!
//! Each connection is fed as the guard feeds it, one message at a time, and also all at once where no other protocol
//! can follow. What actix refuses beyond what is refused here is listed in [`is_refused`]; nothing behind it is
//! executed.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use actix_http::body::{self, BodyStream};
use actix_http::{HttpMessage as _, HttpService, Method, Protocol, Request, Response, StatusCode, Uri};
use actix_service::{Service as _, ServiceFactory as _};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use super::frameworks::{
    Case, Ours, Seen, asks_for_another_protocol, assert_some_are_accepted, bodies, heads, pipelines, read, sorted,
    with_message_behind,
};
use crate::dispatch::handoff::response::{self, ResponseState};
use crate::dispatch::handoff::tokens::{self, Version};

/// When a connection is taken for one that hangs. The clock is not the real one: it runs while nothing else does.
const HANGS: Duration = Duration::from_secs(60);

/// As many headers as actix accepts.
const MAX_HEADERS: usize = 96;

/// How a client sends its messages.
#[derive(Clone, Copy, Debug)]
enum Pace {
    AtOnce,
    OneByOne,
}

/// What actix refuses although it is accepted here. Its framing is not in doubt: actix answers 400 or 431 and ends
/// the connection.
fn is_refused(ours: &Ours) -> bool {
    let count = |name| ours.seen.headers.iter().filter(|header| header.0 == name).count();
    let is_http10 = ours.facts.version == Version::Http10;
    let hosts = count("host");
    // These know fewer characters than are allowed, and parts of a target can be too long.
    Method::from_bytes(ours.seen.method.as_bytes()).is_err()
        || Uri::try_from(ours.target.as_str()).is_err()
        || hosts > 1
        || hosts == 0 && !is_http10
        || ours.seen.headers.len() > MAX_HEADERS
        || is_http10 && ours.seen.method == "POST" && count("content-length") == 0
}

/// After these actix ends the connection without saying so beforehand, as if every answer were a switch.
fn is_ended_silently(ours: &Ours) -> bool {
    let mut values = ours.seen.headers.iter().filter(|(name, _)| name == "connection").map(|(_, value)| value);
    values.any(|value| tokens::list(value).any(|option| option.eq_ignore_ascii_case(b"upgrade")))
}

/// Whether this is one refusal and nothing else.
fn is_refusal(bytes: &[u8]) -> bool {
    let head = bytes.strip_suffix(b"\r\n\r\n").unwrap_or_default();
    let statuses: [&[u8]; 2] = [b"HTTP/1.1 400 ", b"HTTP/1.1 431 "];
    statuses.iter().any(|status| head.starts_with(status)) && !head.windows(4).any(|window| window == b"\r\n\r\n")
}

async fn answer(mut request: Request, all: Rc<RefCell<Vec<Seen>>>) -> Result<Response<Bytes>, Infallible> {
    let is_web_socket =
        request.headers().get_all("upgrade").any(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    // Of these everything that follows is the body, for actix.
    let is_endless = *request.method() == Method::CONNECT || is_web_socket;
    let mut data = Bytes::new();
    if !is_endless {
        let Ok(all) = body::to_bytes(BodyStream::new(request.take_payload())).await else {
            return Ok(Response::new(StatusCode::BAD_REQUEST).set_body(Bytes::new()));
        };
        data = all;
    }
    let headers = request.headers().iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    let seen = Seen {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().map(str::to_owned),
        headers: sorted(headers.collect()),
        body: data.to_vec(),
    };
    let mut all = all.borrow_mut();
    all.push(seen);
    let status = if *request.method() == Method::CONNECT { StatusCode::FORBIDDEN } else { StatusCode::OK };
    let text = if all.len().is_multiple_of(2) { "hello" } else { "" };
    Ok(Response::new(status).set_body(Bytes::from(text)))
}

/// What the client of these messages reads until the connection ends.
async fn talk(mut client: DuplexStream, ours: &[Ours], bytes: &[u8], pace: Pace) -> Vec<u8> {
    let mut written = Vec::new();
    // Who writes to a connection that has been ended reads why.
    match pace {
        Pace::AtOnce => {
            let _ = client.write_all(bytes).await;
        }
        Pace::OneByOne => {
            let mut rest = bytes;
            for ours in ours {
                let (message, behind) = rest.split_at(ours.len);
                rest = behind;
                let _ = client.write_all(message).await;
                if !has_next(&mut client, ours, &mut written).await {
                    break;
                }
            }
        }
    }
    let _ = client.shutdown().await;
    client.read_to_end(&mut written).await.unwrap();
    written
}

/// Reads one response, and says whether the connection goes on.
async fn has_next(client: &mut DuplexStream, ours: &Ours, written: &mut Vec<u8>) -> bool {
    let mut response = response::Response::to(ours.facts);
    while !matches!(response.state(), ResponseState::Complete) {
        let before = written.len();
        if client.read_buf(written).await.unwrap() == 0
            || response.accepted(&written[before..]) < written.len() - before
        {
            return false;
        }
    }
    !response.wants_close()
}

/// actix on a thread of its own, with a clock that does not wait.
struct Actix(Runtime);

impl Actix {
    fn new() -> Self {
        Self(Builder::new_current_thread().enable_time().start_paused(true).build().unwrap())
    }

    /// What actix sees in these messages, and what it writes.
    fn serve(&self, name: &str, ours: &[Ours], bytes: &[u8], pace: Pace) -> (Vec<Seen>, Vec<u8>) {
        LocalSet::new().block_on(&self.0, async {
            let all = Rc::new(RefCell::new(Vec::new()));
            let (client, server) = duplex(1 << 20);
            let seeing = Rc::clone(&all);
            let factory = HttpService::build().finish(move |request: Request| answer(request, Rc::clone(&seeing)));
            let service = factory.new_service(()).await.unwrap();
            let serving = service.call((server, Protocol::Http1, None));
            let both = async { tokio::join!(serving, talk(client, ours, bytes, pace)) };
            // How it ends for actix is not in question.
            let both = tokio::time::timeout(HANGS, both).await;
            let (_, written) = both.unwrap_or_else(|_| panic!("{name}: hangs {pace:?}: {}", bytes.escape_ascii()));
            (all.take(), written)
        })
    }

    /// Whether actix accepts all that is accepted here.
    fn compare(&self, case: &Case) -> bool {
        let (ours, end) = read(&case.bytes);
        let is_whole = self.compare_at(Pace::OneByOne, case, &ours, end);
        if !asks_for_another_protocol(&ours) {
            self.compare_at(Pace::AtOnce, case, &ours, end);
        }
        is_whole
    }

    fn compare_at(&self, pace: Pace, case: &Case, ours: &[Ours], end: usize) -> bool {
        let bytes = &case.bytes[..end];
        let (theirs, written) = self.serve(&case.name, ours, bytes, pace);
        let about = || format!("{} {pace:?}: {}\nanswered {}", case.name, bytes.escape_ascii(), written.escape_ascii());
        assert!(theirs.len() <= ours.len(), "{}\nactix sees {theirs:#?}", about());
        for (theirs, ours) in theirs.iter().zip(ours) {
            assert_eq!(*theirs, ours.seen, "{}", about());
        }
        let mut used = 0;
        let (mut is_last, mut is_read_ahead) = (false, false);
        for ours in &ours[..theirs.len()] {
            assert!(!is_last || is_read_ahead, "{}\nactix goes on after a close that it announced", about());
            let mut response = response::Response::to(ours.facts);
            used += response.accepted(&written[used..]);
            assert_eq!(response.state(), ResponseState::Complete, "{}", about());
            is_last = response.wants_close();
            // What has come by then is answered all the same; and a close that a later message asks for is announced with
            // the first answer. Behind the guard nothing comes before it is due.
            is_read_ahead = matches!(pace, Pace::AtOnce);
            let is_close_known = is_last || !ours.facts.wants_close || ours.is_close_obscure();
            assert!(is_close_known, "{}\nactix goes on after a close", about());
        }
        let rest = &written[used..];
        match ours.get(theirs.len()) {
            Some(next) if !is_last => {
                let is_ended = !theirs.is_empty() && is_ended_silently(&ours[theirs.len() - 1]) && rest.is_empty();
                let is_known = is_ended || is_refused(next) && is_refusal(rest);
                assert!(is_known, "{}\nactix refuses more than is known", about());
                false
            }
            next => {
                assert!(rest.is_empty(), "{}", about());
                next.is_none() && !ours.is_empty()
            }
        }
    }

    fn compare_all(&self, cases: impl IntoIterator<Item = Case>) {
        let mut compared = Vec::new();
        for case in cases {
            compared.push(self.compare(&case));
            if let Some(case) = with_hosts(&case) {
                compared.push(self.compare(&case));
            }
        }
        assert_some_are_accepted(&compared);
    }
}

/// The same with a Host where none is: actix refuses what has none, and then nothing else of it is compared.
fn with_hosts(case: &Case) -> Option<Case> {
    let mut bytes = Vec::new();
    let mut rest = &case.bytes[..];
    for ours in read(&case.bytes).0 {
        let (message, behind) = rest.split_at(ours.len);
        rest = behind;
        let start = message.iter().position(|byte| !b"\r\n".contains(byte))?;
        let end = start + message[start..].windows(2).position(|window| window == b"\r\n")? + 2;
        let has_host = ours.seen.headers.iter().any(|header| header.0 == "host");
        let host: &[u8] = if has_host { b"" } else { b"host: h\r\n" };
        bytes.extend_from_slice(&[&message[..end], host, &message[end..]].concat());
    }
    (bytes.len() > case.bytes.len() - rest.len()).then(|| Case { name: format!("{} with hosts", case.name), bytes })
}

#[test]
fn heads_are_framed_alike() {
    Actix::new().compare_all(heads());
}

#[test]
fn pipelines_are_framed_alike() {
    Actix::new().compare_all(pipelines());
}

#[test]
fn bodies_are_framed_alike() {
    Actix::new().compare_all(bodies());
}

/// Beginnings of heads.
const STARTS: &[&str] = &[
    "GET / HTTP/1.1",
    "POST /a?b HTTP/1.1",
    "HEAD / HTTP/1.1",
    "CONNECT h:1 HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "PRI http://u@h:8/p?q HTTP/1.1",
    "GET / HTTP/1.0",
    "POST / HTTP/1.0",
];

/// Lines that framing may depend on, for one server or the other.
const LINES: &[&str] = &[
    "Content-Length: 0",
    "Content-Length:\t5 ",
    "Content-Length: 00",
    "Content-Length: 007",
    "Content_Length: 5",
    "Transfer-Encoding: chunked",
    "transfer-ENCODING:CHUNKED",
    "Transfer_Encoding: chunked",
    "TE: trailers, chunked",
    "Trailer: content-length",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: Keep-Alive, close",
    "Connection: upgrade",
    "Connection: keep-alive, Upgrade, x",
    "Connection: close, upgrade",
    "Connection: content-length, transfer-encoding",
    "Connection: \u{e9}, close",
    "Upgrade: websocket",
    "Upgrade: h2c, WebSocket",
    "Upgrade: h2c",
    "Upgrade: websocket/13",
    "Upgrade:",
    "Expect: 100-continue",
    "Expect: x, 100-Continue",
    "Expect: nothing",
    "Host: other",
    "a:",
];

#[test]
fn heads_of_all_pairs_of_lines_are_framed_alike() {
    let pairs = LINES.iter().flat_map(|one| LINES.iter().map(move |other| [*one, *other]));
    let heads = pairs.flat_map(|pair| {
        STARTS.iter().map(move |start| format!("{start}\r\nhost: h\r\n{}\r\n{}\r\n\r\n", pair[0], pair[1]))
    });
    let cases = heads.filter_map(|head| with_message_behind(head.clone(), head.as_bytes()));
    Actix::new().compare_all(cases);
}

/// What is refused here because actix takes all that follows for its body must be seen as framed differently.
#[test]
#[should_panic(expected = "upgrade: websocket")]
fn another_end_is_seen() {
    let bytes =
        b"POST / HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\ncontent-length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n";
    let name = bytes.windows(7).position(|window| window == b"upgrade").unwrap();
    let mut accepted = bytes.to_vec();
    accepted[name..name + 7].copy_from_slice(b"x-grade");
    let (mut ours, end) = read(&accepted);
    for header in &mut ours[0].seen.headers {
        header.0 = header.0.replace("x-grade", "upgrade");
    }
    ours[0].seen.headers.sort();
    let case = Case { name: "an upgrade".to_owned(), bytes: bytes.to_vec() };
    Actix::new().compare_at(Pace::OneByOne, &case, &ours, end);
}
