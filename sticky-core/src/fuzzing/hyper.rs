//! What is accepted here is framed by hyper exactly as it is here: heads and whole pipelines of the corpora, with hyper
//! as the server and no guard between.
//!
//! hyper may refuse more. It must not see other messages, other bodies, or another end.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::naive::{self, Stop};
use super::replay::inputs;
use super::split;
use crate::dispatch::handoff::chunked::Progress;
use crate::dispatch::handoff::head::{Facts, HeadReader, MAX_HEAD, Outcome, PrefaceRule, Switch};
use crate::dispatch::handoff::request_body::{BodyFraming, RequestBody};
use crate::dispatch::handoff::response::{self, ResponseState};

/// What follows a head of the corpora, to see whether hyper sees it too.
const PROBE: &[u8] = b"GET /probe?1 HTTP/1.1\r\nhost: probe\r\n\r\n";

/// Bodies that are longer are left out.
const LONGEST: u64 = 1 << 16;

/// A message as somebody sees it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    method: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// A message as it is seen here.
struct Ours {
    seen: Seen,
    facts: Facts,
}

impl Ours {
    /// hyper does not look into a Connection header that is not all ASCII. Here it is read, so the connection ends as the
    /// client has asked.
    fn is_close_obscure(&self) -> bool {
        self.seen.headers.iter().any(|(name, value)| name == "connection" && !value.is_ascii())
    }
}

/// The messages that a connection would carry, and where the last ends.
fn read(bytes: &[u8]) -> (Vec<Ours>, usize) {
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
        end = start + head.len() + used;
        messages.push(Ours { seen, facts });
        if facts.wants_close {
            return (messages, end);
        }
    }
}

/// Headers by name; those of one name stay in order.
fn sorted(mut headers: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    headers.sort_by(|one, other| one.0.cmp(&other.0));
    headers
}

async fn answer(request: Request<Incoming>, all: Arc<Mutex<Vec<Seen>>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Ok(Response::new(Full::default()));
    };
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    let seen = Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: sorted(headers.collect()),
        body: body.to_bytes().to_vec(),
    };
    let mut all = all.lock().unwrap();
    all.push(seen);
    let text = if all.len().is_multiple_of(2) { "hello" } else { "" };
    let mut response = Response::new(Full::from(text));
    if head.method == hyper::Method::CONNECT {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    Ok(response)
}

/// What hyper sees in these bytes, and what it writes.
fn serve(bytes: &[u8]) -> (Vec<Seen>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let all = Arc::new(Mutex::new(Vec::new()));
        let (mut client, server) = duplex(1 << 20);
        let service = service_fn(|request| answer(request, Arc::clone(&all)));
        let serving = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service);
        let talking = async {
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let mut written = Vec::new();
            client.read_to_end(&mut written).await.unwrap();
            written
        };
        // How it ends for hyper is not in question.
        let (_, written) = tokio::join!(serving, talking);
        (std::mem::take(&mut *all.lock().unwrap()), written)
    })
}

/// Whether hyper accepts all that is accepted here.
fn compare(path: &Path, bytes: &[u8]) -> bool {
    let (ours, end) = read(bytes);
    let (theirs, written) = serve(&bytes[..end]);
    let path = path.display();
    assert!(theirs.len() <= ours.len(), "{path}: hyper sees {theirs:#?}");
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(*theirs, ours.seen, "{path}");
    }
    let mut used = 0;
    for ours in &ours[..theirs.len()] {
        let mut response = response::Response::to(ours.facts);
        used += response.accepted(&written[used..]);
        assert_eq!(response.state(), ResponseState::Complete, "{path}: {}", written.escape_ascii());
        let is_last = response.wants_close();
        assert!(is_last || !ours.facts.wants_close || ours.is_close_obscure(), "{path}: hyper goes on after a close");
        if is_last {
            break;
        }
    }
    let is_all = theirs.len() == ours.len();
    assert!(used == written.len() || !is_all, "{path}: {}", written.escape_ascii());
    is_all && !ours.is_empty()
}

/// Fails where hyper refuses nearly all that is compared: then nothing is.
fn assert_some_are_accepted(all: &[bool]) {
    let accepted = all.iter().filter(|accepted| **accepted).count();
    assert!(accepted * 4 > all.len() && accepted > 2, "hyper accepts {accepted} of {}", all.len());
}

#[test]
fn heads_are_framed_alike() {
    let mut compared = Vec::new();
    for (path, input) in inputs("corpus", "head").into_iter().chain(inputs("regressions", "head")) {
        let (_, text) = split(&input);
        let mut reader = HeadReader::new(MAX_HEAD, PrefaceRule::Refused);
        let text = &text[reader.skip_empty_lines(text)..];
        let Outcome::Request(head) = reader.poll(text) else { continue };
        let body = match head.facts().body {
            BodyFraming::None => Vec::new(),
            BodyFraming::Length(length) if length > LONGEST => continue,
            BodyFraming::Length(length) => PROBE.iter().copied().cycle().take(length as usize).collect(),
            BodyFraming::Chunked => b"2;a=b\r\nab\r\n010\r\n0123456789abcdef\r\n0\r\nsum: 1\r\n\r\n".to_vec(),
        };
        let bytes = [&text[..head.len()], &body, PROBE].concat();
        let (ours, end) = read(&bytes);
        let is_last = head.facts().wants_close;
        assert_eq!((ours.len(), end == bytes.len()), if is_last { (1, false) } else { (2, true) });
        compared.push(compare(&path, &bytes));
    }
    assert_some_are_accepted(&compared);
}

#[test]
fn pipelines_are_framed_alike() {
    let mut compared = Vec::new();
    for (path, input) in inputs("corpus", "exchange").into_iter().chain(inputs("regressions", "exchange")) {
        let (_, rest) = split(&input);
        let (client, _) = split(rest);
        let (ours, _) = read(client);
        if ours.iter().any(|message| message.facts.switch != Switch::None) || ours.is_empty() {
            // What follows is no HTTP, perhaps; the heads by themselves are compared above.
            continue;
        }
        compared.push(compare(&path, client));
    }
    assert_some_are_accepted(&compared);
}

#[test]
fn bodies_are_framed_alike() {
    let mut compared = Vec::new();
    for (path, input) in inputs("corpus", "request_body").into_iter().chain(inputs("regressions", "request_body")) {
        let (_, text) = split(&input);
        let bytes = [b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", text, PROBE].concat();
        if !read(&bytes).0.is_empty() {
            compared.push(compare(&path, &bytes));
        }
    }
    assert_some_are_accepted(&compared);
}
