//! The end of everything while connections move.

use std::io;
use std::thread;

use sticky_tests::process::Signal;
use sticky_tests::{Client, Random, Request};

use crate::bed::{Bed, Dispatch, Row};
use crate::keys::{Key, Moves, by_header, fresh};

const WORKERS: u16 = 3;

pub(crate) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("requests_that_move_are_answered_at_the_end", requests_that_move_are_answered_at_the_end),
        Row::new("moved_connections_end_cleanly", moved_connections_end_cleanly),
    ];
    rows.map(|row| row.only(Dispatch::Handoff)).into()
}

/// Clients that connect without a pause, most of them to a worker that is not the key's: whoever got a connection and
/// sent a request gets an answer, up to the moment from which on connections are refused.
fn requests_that_move_are_answered_at_the_end(bed: &Bed) {
    let cluster = by_header(bed, WORKERS).up();
    let random = Random::drawn();
    let insist = |client: Client, mut random: Random| {
        move || {
            for answered in 0_u32.. {
                let Ok(mut connection) = client.connect() else {
                    return io::Result::Ok(answered);
                };
                let key = fresh(&mut random, 1).remove(0);
                let request = Request::get("/").header("x-key", &key).header("connection", "close");
                let answer = connection.exchange(&request)?;
                if answer.status != 200 {
                    return Err(io::Error::other(format!("{answer:?}")));
                }
            }
            unreachable!("the cluster ends before")
        }
    };
    let clients: Vec<_> = Client::loopback_addresses(16)
        .enumerate()
        .map(|(number, address)| thread::spawn(insist(cluster.client().from(address), random.fork(number))))
        .collect();
    // Each client is well under way before the end comes.
    Key::of_each_worker(&cluster.client(), WORKERS);
    assert!(Moves::at_end_of(&cluster).sent() > 0);
    let outcomes: Vec<_> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

/// What is executing on connections that have moved is answered, with notice of the end; idle ones are closed.
fn moved_connections_end_cleanly(bed: &Bed) {
    let cluster = by_header(bed, WORKERS).up();
    let keys = Key::of_each_worker(&cluster.client(), WORKERS);
    let travel = || {
        let mut connection = cluster.client().connect().expect("a connection");
        for key in keys.iter().chain(&keys) {
            key.check(&connection.exchange(&key.on(Request::get("/"))).expect("an answer"));
        }
        connection
    };
    let idle: Vec<_> = (0..10).map(|_| travel()).collect();
    let busy = |key: &Key| {
        let mut connection = travel();
        connection.send(key.on(Request::get("/sleep/700")).bytes()).expect("sent");
        // An answer of the same worker to a request that came later: the first is executing.
        let later = cluster.client().connect().and_then(|mut later| later.exchange(&key.on(Request::get("/"))));
        key.check(&later.expect("an answer"));
        connection
    };
    let busy: Vec<_> = keys.iter().map(busy).collect();
    cluster.signal(Signal::TERM);
    for (mut connection, key) in busy.into_iter().zip(&keys) {
        let answer = connection.response().expect("a whole answer");
        assert_eq!((answer.text().as_str(), answer.worker()), ("slept", key.worker));
        assert!(answer.announces_close(), "{answer:?}");
        assert_eq!(connection.read_to_end().expect("an end, not a reset"), b"");
    }
    for mut connection in idle {
        assert_eq!(connection.read_to_end().expect("an end, not a reset"), b"");
    }
    Moves::after(&cluster).sent();
}
