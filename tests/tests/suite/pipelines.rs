//! Pipelines of requests for different workers, sent in pieces of random sizes: every answer in its place.

use std::io::Write;
use std::thread;

use sticky_tests::client::send_in_pieces;
use sticky_tests::cluster::PATIENCE;
use sticky_tests::{Client, Connection, Random, Request, Response, journal};

use crate::bed::{Bed, Row};
use crate::keys::{Key, Moves, by_header};

const WORKERS: u16 = 4;
const CONNECTIONS: usize = 8;
const DEPTH: usize = 16;
/// 10,240 messages on all connections together.
const PIPELINES: usize = 80;

pub(crate) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("pipelines_of_two_keys_are_answered_in_order", pipelines_of_two_keys_are_answered_in_order),
        Row::new("pipelines_of_random_keys_are_answered_in_order", pipelines_of_random_keys_are_answered_in_order),
        Row::new("pipeline_can_end_anywhere", pipeline_can_end_anywhere),
    ];
    rows.map(|row| row.by_request()).into()
}

/// One message of a pipeline, and what its answer must be.
struct Message<'a> {
    key: &'a Key,
    name: String,
    request: Request,
    status: u16,
    body: Vec<u8>,
}

impl<'a> Message<'a> {
    fn random(key: &'a Key, name: String, random: &mut Random) -> Self {
        let length = if random.below(10) == 0 { random.below(100_000) } else { random.below(300) };
        let x = vec![b'x'; length];
        let (request, status, body) = match random.below(9) {
            0 | 1 => (Request::get("/"), 200, format!("worker: {}", key.worker).into_bytes()),
            2 => (Request::get(format!("/bytes/{length}")), 200, x),
            3 => (Request::get(format!("/chunked/{length}")).header("te", "trailers"), 200, x),
            4 => (Request::new("HEAD", format!("/bytes/{length}")), 200, Vec::new()),
            5 => (Request::get("/status/204"), 204, Vec::new()),
            6 => (Request::get("/status/304"), 304, Vec::new()),
            _ => {
                let body = random.bytes(length);
                (Self::post(body.clone(), random), 200, body)
            }
        };
        let request = key.on(request).header(journal::REQUEST_NAME, &name);
        Self { key, name, request, status, body }
    }

    fn post(body: Vec<u8>, random: &mut Random) -> Request {
        let target = *random.choose(&["/echo", "/mirror"]);
        match random.below(2) {
            0 => Request::post(target, body),
            _ => Request::post_chunked(target, body, 1 + random.below(5_000), &["x-end: yes"]),
        }
    }

    fn check(&self, answer: &Response) {
        assert_eq!(answer.header(journal::REQUEST_NAME), Some(self.name.as_str()), "{:?}", self.request);
        assert_eq!(answer.status, self.status, "{}", self.name);
        self.key.check(answer);
        assert!(answer.body == self.body, "{}: other bytes came back for {:?}", self.name, self.request.target());
    }
}

fn pipelines_of_two_keys_are_answered_in_order(bed: &Bed) {
    run_pipelines(bed, |keys, random| {
        let a = random.below(keys.len());
        let b = (a + 1 + random.below(keys.len() - 1)) % keys.len();
        (0..DEPTH).map(|number| &keys[if number % 2 == 0 { a } else { b }]).collect()
    });
}

fn pipelines_of_random_keys_are_answered_in_order(bed: &Bed) {
    run_pipelines(bed, |keys, random| (0..DEPTH).map(|_| random.choose(keys)).collect());
}

type Choose = for<'a> fn(&'a [Key], &mut Random) -> Vec<&'a Key>;

fn run_pipelines(bed: &Bed, choose: Choose) {
    let cluster = by_header(bed, WORKERS).up();
    let keys = Key::of_each_worker(&cluster.client(), WORKERS);
    let random = Random::drawn();
    thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let (client, keys, mut random) = (cluster.client().timeout(PATIENCE), &keys, random.fork(number));
            scope.spawn(move || {
                let mut connection = client.connect().expect("a connection");
                for round in 0..PIPELINES {
                    let name = |at| format!("{number}-{round}-{at}");
                    let keys = choose(keys, &mut random).into_iter().enumerate();
                    let messages: Vec<_> = keys.map(|(at, key)| Message::random(key, name(at), &mut random)).collect();
                    run_pipeline(&mut connection, &messages, &mut random);
                }
            });
        }
    });
    Moves::at_end_of(&cluster).are_at_least(bed, (CONNECTIONS * PIPELINES * DEPTH / 2) as u64);
}

/// Sends all of it on a thread of its own while the answers are read.
fn run_pipeline(connection: &mut Connection, messages: &[Message<'_>], random: &mut Random) {
    let bytes: Vec<u8> = messages.iter().flat_map(|message| message.request.bytes()).collect();
    let most = *random.choose(&[3, 40, 1_000, 60_000, 1_000_000]);
    // Pieces of three bytes take a system call each: not for megabytes.
    let most = if bytes.len() > 20_000 { most.max(1_000) } else { most };
    let mut sender = connection.sender().expect("the same connection");
    thread::scope(|scope| {
        let sending = scope.spawn(|| send_in_pieces(&mut sender, &bytes, most, random));
        for message in messages {
            let answer = connection.response_to(message.request.method());
            message.check(&answer.unwrap_or_else(|error| panic!("{}: {error}", message.name)));
        }
        sending.join().expect("no panic").expect("sent");
    });
}

/// The client goes away in the middle: what was whole is answered or not, and nobody else notices.
fn pipeline_can_end_anywhere(bed: &Bed) {
    let cluster = by_header(bed, WORKERS).up();
    let keys = Key::of_each_worker(&cluster.client(), WORKERS);
    let mut random = Random::drawn();
    let pids = cluster.workers();
    for round in 0..100 {
        let name = |at| format!("{round}-{at}");
        let messages: Vec<_> =
            (0..DEPTH).map(|at| Message::random(random.fork(at).choose(&keys), name(at), &mut random)).collect();
        leave_in_the_middle(&cluster.client(), &messages, &mut random);
    }
    for key in &keys {
        key.check(
            &cluster.client().connect().and_then(|mut it| it.exchange(&key.on(Request::get("/")))).expect("an answer"),
        );
    }
    assert_eq!(cluster.workers(), pids, "the same processes serve on");
    Moves::at_end_of(&cluster);
}

fn leave_in_the_middle(client: &Client, messages: &[Message<'_>], random: &mut Random) {
    let bytes: Vec<u8> = messages.iter().flat_map(|message| message.request.bytes()).collect();
    let mut connection = client.connect().expect("a connection");
    let mut sender = connection.sender().expect("the same connection");
    let cut = random.below(bytes.len());
    let whole = messages.iter().scan(0, |end, message| {
        *end += message.request.bytes().len();
        Some(*end)
    });
    let reads = random.below(whole.take_while(|end| *end <= cut).count().min(4) + 1);
    thread::scope(|scope| {
        // It may fail: the answers that nobody reads fill the connection, and then it ends.
        scope.spawn(|| sender.write_all(&bytes[..cut]));
        for message in &messages[..reads] {
            let Ok(answer) = connection.response_to(message.request.method()) else { break };
            message.check(&answer);
        }
        if random.below(2) == 0 {
            let _ = connection.finish_writing();
        }
        let stream = connection.into_stream();
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
}
