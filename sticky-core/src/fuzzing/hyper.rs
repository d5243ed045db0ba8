//! hyper frames what is accepted here exactly as it is framed here: heads, bodies and whole pipelines of the corpora,
//! with hyper as the server and no guard between.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::frameworks::{
    Case, Seen, asks_for_another_protocol, assert_some_are_accepted, bodies, heads, pipelines, read, sorted,
};
use crate::dispatch::handoff::response::{self, ResponseState};

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
fn compare(case: &Case) -> bool {
    let Case { name: path, bytes } = case;
    let (ours, end) = read(bytes);
    let (theirs, written) = serve(&bytes[..end]);
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

#[test]
fn heads_are_framed_alike() {
    let compared: Vec<_> = heads().iter().map(compare).collect();
    assert_some_are_accepted(&compared);
}

#[test]
fn pipelines_are_framed_alike() {
    let all = pipelines();
    // What follows an upgrade is no HTTP, perhaps; the heads by themselves are compared above.
    let cases = all.iter().filter(|case| !asks_for_another_protocol(&read(&case.bytes).0));
    let compared: Vec<_> = cases.map(compare).collect();
    assert_some_are_accepted(&compared);
}

#[test]
fn bodies_are_framed_alike() {
    let compared: Vec<_> = bodies().iter().map(compare).collect();
    assert_some_are_accepted(&compared);
}
