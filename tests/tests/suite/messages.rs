//! Every shape of message on a connection that moves between two of them: byte-exact, in order, nothing early or late.

use std::time::Duration;

use sticky_tests::process;
use sticky_tests::testbed::LENGTH_TRAILER;
use sticky_tests::{Connection, Random, Request, Response};

use crate::bed::{Bed, Row};
use crate::handoff::two;
use crate::keys::{Key, Moves};

const MIB: usize = 1 << 20;

pub(crate) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("large_bodies_pass_both_ways", large_bodies_pass_both_ways),
        Row::new("large_answers_pass_to_slow_readers", large_answers_pass_to_slow_readers),
        Row::new("expect_continue_is_answered", expect_continue_is_answered),
        Row::new("answers_without_body_end_at_their_head", answers_without_body_end_at_their_head),
        Row::new("head_split_anywhere_moves", head_split_anywhere_moves),
        Row::new("body_split_anywhere_arrives", body_split_anywhere_arrives),
        Row::new("half_closed_client_is_answered_elsewhere", half_closed_client_is_answered_elsewhere),
        Row::new("unread_body_confuses_nobody", unread_body_confuses_nobody),
        Row::new("empty_lines_between_requests_are_skipped", empty_lines_between_requests_are_skipped),
    ];
    rows.map(|row| row.by_request()).into()
}

/// What to do with a body of that many bytes, and what must come back.
struct Errand {
    what: &'static str,
    request: Request,
    body: Vec<u8>,
    trailer: Option<(&'static str, String)>,
}

/// The ways for a body to go, all of them with this one.
fn errands(body: &[u8]) -> Vec<Errand> {
    let sum: u64 = body.iter().map(|&byte| u64::from(byte)).sum();
    let trailer = format!("x-sum: {sum}");
    let (length, x) = (body.len(), vec![b'x'; body.len()]);
    let same = |what, request: Request, trailer| Errand { what, request, body: body.to_vec(), trailer };
    let chunked = |path| Request::post_chunked(path, body, 60_000, &[&trailer]).header("trailer", "x-sum");
    vec![
        same("echo", Request::post("/echo", body), None),
        same("echo of chunks", chunked("/echo"), None),
        same("mirror", Request::post("/mirror", body), None),
        same("mirror of chunks", chunked("/mirror").header("te", "trailers"), Some(("x-sum", sum.to_string()))),
        Errand { what: "bytes", request: Request::get(format!("/bytes/{length}")), body: x.clone(), trailer: None },
        Errand {
            what: "chunked",
            request: Request::get(format!("/chunked/{length}")).header("te", "trailers"),
            body: x,
            trailer: Some((LENGTH_TRAILER, length.to_string())),
        },
    ]
}

impl Errand {
    fn check(&self, bed: &Bed, key: &Key, answer: &Response) {
        let what = self.what;
        assert_eq!((answer.status, answer.worker()), (200, key.worker), "{what}");
        assert!(!answer.announces_close(), "{what}");
        assert_eq!(answer.body.len(), self.body.len(), "{what}");
        assert!(answer.body == self.body, "{what} of {} bytes came back with other bytes", self.body.len());
        if let Some((name, value)) = self.trailer.as_ref().filter(|_| bed.has_trailers()) {
            assert_eq!(answer.trailer(name), Some(value.as_str()), "{what}");
        }
    }
}

fn large_bodies_pass_both_ways(bed: &Bed) {
    let (cluster, keys) = two(bed);
    let mut random = Random::drawn();
    let mut connection = cluster.client().connect().expect("a connection");
    let mut turn = keys.iter().cycle();
    for size in [0, 1, MIB, 2 * MIB + 1, 5 * MIB, 10 * MIB] {
        for mut errand in errands(&random.bytes(size)) {
            let key = turn.next().expect("without end");
            errand.request = key.on(errand.request);
            let answer = connection.exchange_at_once(&errand.request);
            let answer = answer.unwrap_or_else(|error| panic!("{} of {size} bytes: {error}", errand.what));
            errand.check(bed, key, &answer);
        }
        // An even number of errands: the next round asks the other worker for each.
        turn.next();
    }
    Moves::at_end_of(&cluster).are_at_least(bed, 30);
}

/// The next request is sent before the answer is read: the worker must hold it back until the socket has taken all.
fn large_answers_pass_to_slow_readers(bed: &Bed) {
    let (cluster, keys) = two(bed);
    let mut connection = cluster.client().receive_buffer(16 * 1024).connect().expect("a connection");
    for (number, (key, next)) in [(&keys[0], &keys[1]), (&keys[1], &keys[0])].into_iter().cycle().take(4).enumerate() {
        // More than the kernel takes in before the client reads.
        let length = 9 * MIB + number;
        connection.send(key.on(Request::get(format!("/bytes/{length}"))).bytes()).expect("sent");
        connection.send(next.on(Request::get("/peer")).bytes()).expect("sent");
        // The time is the point: whoever took the answer for complete now would cut it.
        process::let_pass(Duration::from_millis(100));
        let answer = connection.response().expect("an answer");
        key.check(&answer);
        assert_eq!(answer.body.len(), length);
        let answer = connection.response().expect("an answer");
        next.check(&answer);
        assert_eq!(answer.text(), connection.local_addr().expect("an address").to_string());
    }
    Moves::at_end_of(&cluster).sent();
}

fn expect_continue_is_answered(bed: &Bed) {
    let (cluster, keys) = two(bed);
    let mut random = Random::drawn();
    let mut connection = cluster.client().connect().expect("a connection");
    for (number, key) in keys.iter().cycle().take(20).enumerate() {
        let body = random.bytes(1 + number * 5_000);
        let request = match number % 4 {
            0 | 1 => Request::post("/echo", body.clone()),
            // Not `/mirror`: who answers before reading the body gives no leave to send it.
            _ => Request::post_chunked("/echo", body.clone(), 3_000, &[]),
        };
        let request = key.on(request).header("expect", "100-continue");
        connection.send(request.head()).expect("sent");
        connection.read_until("100 Continue\r\n\r\n").expect("leave to go on");
        connection.send(request.body()).expect("sent");
        let answer = connection.response().expect("an answer");
        key.check(&answer);
        assert_eq!((answer.interim.as_slice(), &answer.body), ([100].as_slice(), &body));
    }
    // A client need not wait for it.
    for key in keys.iter().cycle().take(4) {
        let request = key.on(Request::post("/echo", b"at once")).header("expect", "100-continue");
        let answer = connection.exchange(&request).expect("an answer");
        key.check(&answer);
        assert_eq!(answer.text(), "at once");
    }
    Moves::at_end_of(&cluster).sent();
}

/// HEAD, 204 and 304 say lengths, or none, that no body follows.
fn answers_without_body_end_at_their_head(bed: &Bed) {
    let (cluster, keys) = two(bed);
    let mut connection = cluster.client().connect().expect("a connection");
    let requests = [
        (Request::new("HEAD", "/bytes/1000"), 200),
        (Request::get("/status/204"), 204),
        (Request::get("/status/304"), 304),
        (Request::new("HEAD", "/chunked/1000"), 200),
        (Request::new("HEAD", "/status/204"), 204),
        (Request::new("HEAD", "/nowhere"), 404),
        (Request::post("/count/x", b""), 200),
    ];
    for round in 0..4 {
        for (number, (request, status)) in requests.iter().enumerate() {
            let key = &keys[(round + number) % 2];
            let answer = connection.exchange(&key.on(request.clone())).expect("an answer");
            key.check(&answer);
            assert_eq!(answer.status, *status, "{request:?}");
            if request.target() == "/bytes/1000" {
                assert_eq!(answer.header("content-length"), Some("1000"));
            }
            assert_eq!(answer.body.is_empty(), request.method() != "POST", "{answer:?}");
        }
    }
    Moves::at_end_of(&cluster).sent();
}

/// A connection to each worker of its own, on which nothing but that worker's key is sent. An answer on it shows that
/// the worker has seen what came before on others.
struct Witnesses {
    connections: Vec<(Key, Connection)>,
}

impl Witnesses {
    fn new(client: &sticky_tests::Client, keys: &[Key]) -> Self {
        let connect = |key: &Key| (key.clone(), client.connect().expect("a connection"));
        Self { connections: keys.iter().map(connect).collect() }
    }

    fn wait_for(&mut self, worker: u16) {
        let (key, connection) = self.connections.iter_mut().find(|(key, _)| key.worker == worker).expect("a worker");
        key.check(&connection.exchange(&key.on(Request::get("/"))).expect("an answer"));
    }
}

/// The worker that has the connection sees one part of a head alone, whatever the key in it or in the rest.
fn head_split_anywhere_moves(bed: &Bed) {
    let (cluster, keys) = two(bed);
    let mut witnesses = Witnesses::new(&cluster.client(), &keys);
    let mut connection = cluster.client().connect().expect("a connection");
    let mut holder = {
        keys[0].check(&connection.exchange(&keys[0].on(Request::get("/"))).expect("an answer"));
        keys[0].worker
    };
    let request = |key: &Key| key.on(Request::post("/echo", b"body").header("cookie", "a=b")).bytes();
    let length = request(&keys[0]).len();
    for at in 1..length {
        let key = keys.iter().find(|key| key.worker != holder).expect("the other");
        let bytes = request(key);
        connection.send(&bytes[..at]).expect("sent");
        witnesses.wait_for(holder);
        connection.send(&bytes[at..]).expect("sent");
        let answer = connection.response().unwrap_or_else(|error| panic!("split at {at}: {error}"));
        key.check(&answer);
        assert_eq!(answer.text(), "body", "split at {at}");
        holder = key.worker;
    }
    Moves::at_end_of(&cluster).are_at_least(bed, length as u64 - 1);
}

/// The connection moves with the head and a part of the body read; the rest comes later, to the new owner.
fn body_split_anywhere_arrives(bed: &Bed) {
    let (cluster, keys) = two(bed);
    let mut witnesses = Witnesses::new(&cluster.client(), &keys);
    let mut connection = cluster.client().connect().expect("a connection");
    let body = b"two pieces of one body";
    let make = |target| Request::post_chunked(target, body.as_slice(), 9, &["x-end: yes", "x-more: 1"]);
    let length = make("/echo").body().len();
    for (at, key) in (0..=length).zip(keys.iter().cycle()) {
        let request =
            key.on(make(["/echo", "/mirror"][at / 2 % 2]).header("te", "trailers").header("trailer", "x-end"));
        let sent = request.bytes();
        let at = request.head().len() + at;
        connection.send(&sent[..at]).expect("sent");
        witnesses.wait_for(key.worker);
        connection.send(&sent[at..]).expect("sent");
        let answer = connection.response().unwrap_or_else(|error| panic!("split at {at}: {error}"));
        key.check(&answer);
        assert_eq!(answer.body, body, "split at {at}");
        let trailer = (request.target() == "/mirror" && bed.has_trailers()).then_some("yes");
        assert_eq!(answer.trailer("x-end"), trailer, "split at {at}");
    }
    Moves::at_end_of(&cluster).sent();
}

/// Requests and the end of the client's sending in one go: the end moves along with the connection.
fn half_closed_client_is_answered_elsewhere(bed: &Bed) {
    let (cluster, keys) = two(bed);
    let [a, b] = [0, 1].map(|which| &keys[which]);
    let (small, large, slow) = ("/", "/bytes/1000000", "/sleep/100");
    let pipelines = [
        vec![(a, small)],
        vec![(b, large)],
        vec![(b, slow)],
        vec![(a, small), (b, small)],
        vec![(b, large), (a, slow), (b, large)],
        vec![(a, slow), (b, slow), (a, large), (b, small), (b, small), (a, small)],
    ];
    for before in [None, Some(a), Some(b)] {
        for pipeline in &pipelines {
            let mut connection = cluster.client().connect().expect("a connection");
            if let Some(key) = before {
                key.check(&connection.exchange(&key.on(Request::get("/"))).expect("an answer"));
            }
            let requests = pipeline.iter().flat_map(|(key, path)| key.on(Request::get(*path)).bytes());
            connection.send(requests.collect::<Vec<u8>>()).expect("sent");
            connection.finish_writing().expect("half-closed");
            for (key, path) in pipeline {
                let answer = connection.response().unwrap_or_else(|error| panic!("{path} of {pipeline:?}: {error}"));
                assert_eq!((answer.status, answer.worker()), (200, key.worker), "{path} of {pipeline:?}");
            }
            assert_eq!(connection.read_to_end().expect("an end, not a reset"), b"");
        }
    }
    Moves::at_end_of(&cluster).sent();
}

/// The application answers before it has read the body, and never reads it. Its framework may end the connection then
/// or read on; what comes next must not be taken from the middle of the body.
fn unread_body_confuses_nobody(bed: &Bed) {
    let (cluster, keys) = two(bed);
    let smuggled = Request::get("/whoami").header("x-request", "smuggled").bytes().repeat(10_000);
    for key in keys.iter().cycle().take(6) {
        for request in [
            Request::post("/nowhere", smuggled.clone()),
            Request::post_chunked("/nowhere", smuggled.clone(), 1_000, &[]),
        ] {
            let mut connection = cluster.client().connect().expect("a connection");
            let answer = connection.exchange_at_once(&key.on(request)).expect("an answer");
            assert_eq!((answer.status, answer.worker()), (404, key.worker));
            let other = keys.iter().find(|other| other.worker != key.worker).expect("the other");
            // Whether it is answered is the framework's affair.
            if let Ok(answer) = connection.exchange(&other.on(Request::get("/")).header("x-request", "next")) {
                assert_eq!((answer.header("x-request"), answer.worker()), (Some("next"), other.worker));
            }
        }
    }
    Moves::at_end_of(&cluster).sent();
}

fn empty_lines_between_requests_are_skipped(bed: &Bed) {
    let (cluster, keys) = two(bed);
    let mut connection = cluster.client().connect().expect("a connection");
    for (number, key) in keys.iter().cycle().take(12).enumerate() {
        connection.send("\r\n".repeat(number)).expect("sent");
        let request = key.on(Request::post("/echo", b"body"));
        let answer = connection.exchange(&request).expect("an answer");
        key.check(&answer);
        assert_eq!(answer.text(), "body");
    }
    Moves::at_end_of(&cluster).sent();
}
