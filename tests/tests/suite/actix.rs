//! What only actix has.

use std::collections::BTreeMap;
use std::time::Duration;

use sticky_tests::{Request, TestCluster};

use crate::bed::{Bed, Dispatch, Framework, Row};
use crate::boot::fails;
use crate::listen::drains_one_request;

pub(crate) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("connection_info_believes_nobody", connection_info_believes_nobody),
        Row::new("connection_info_knows_the_client", connection_info_knows_the_client).by_request(),
        // Of its client's end a proxy says nothing before there is a tunnel: such a request is the client's own affair.
        Row::new("nobody_waits_for_a_body_that_cannot_come", nobody_waits_for_a_body_that_cannot_come)
            .only(Dispatch::Handoff),
        // Connections to the threads are clients' only where they are to workers.
        Row::new("threads_have_as_many_connections", threads_have_as_many_connections).by_connection(),
        Row::new("thread_that_hangs_stops_no_other", thread_that_hangs_stops_no_other).by_connection(),
        Row::new("threads_finish_at_the_end", threads_finish_at_the_end),
        Row::new("run_can_be_awaited_by_one_thread", run_can_be_awaited_by_one_thread),
        Row::new("several_threads_cannot_await_it", several_threads_cannot_await_it),
    ];
    rows.map(|row| row.only_with(Framework::Actix)).into()
}

/// What the application is told of its client.
fn info(cluster: &TestCluster, headers: &[(&str, &str)]) -> String {
    let request = headers.iter().fold(Request::get("/info"), |request, (name, value)| request.header(name, value));
    cluster.client().connect().and_then(|mut connection| connection.exchange(&request)).expect("an answer").text()
}

/// Whoever sends what proxies send, and is none that is trusted.
const FORGED: [(&str, &str); 4] = [
    ("forwarded", "for=192.0.2.1;host=forged;proto=https"),
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-host", "forged"),
    ("x-forwarded-proto", "https"),
];

fn connection_info_believes_nobody(bed: &Bed) {
    let cluster = bed.launch().up();
    let truth = info(&cluster, &[]);
    assert_eq!(truth, "127.0.0.1 test http");
    for forged in &FORGED {
        assert_eq!(info(&cluster, std::slice::from_ref(forged)), truth, "{forged:?}");
    }
    assert_eq!(info(&cluster, &FORGED), truth);
    cluster.stop();
}

/// What a client writes in front of what its proxy says is not believed, nor what the proxy only passes on.
fn connection_info_knows_the_client(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_TRUSTED_PROXIES", "loopback").up();
    let appended = [
        ("x-forwarded-for", "192.0.2.1, 203.0.113.7"),
        ("x-forwarded-proto", "http, https"),
        ("x-forwarded-host", "forged, example.com"),
    ];
    assert_eq!(info(&cluster, &appended), "203.0.113.7 example.com https");
    let passed_on = [("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "203.0.113.7")];
    assert_eq!(info(&cluster, &passed_on), "203.0.113.7 test http");
    cluster.stop();
}

/// The handler reads the body of a request for a WebSocket before it answers. That is all that follows, and none of it is
/// passed on before the answer.
fn nobody_waits_for_a_body_that_cannot_come(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_AFFINITY", "header:x-key").up();
    for (following, ends) in [(1, true), (100, true), (20_000, false), (20_000, true)] {
        let mut connection = cluster.client().connect().expect("a connection");
        let request = Request::new("POST", "/echo").header("connection", "upgrade").header("upgrade", "websocket");
        connection.send(request.bytes()).expect("sent");
        // What has been answered may have been ended, too.
        let _ = connection.send(vec![b'x'; following]);
        if ends {
            let _ = connection.finish_writing();
        }
        let answer = connection.response().unwrap_or_else(|error| panic!("{following} {ends}: {error}"));
        assert!(answer.status == 400 && answer.announces_close(), "{following} {ends}: {answer:?}");
    }
    cluster.stop();
}

/// As many connections on one worker as its threads can have in equal parts, and which threads serve them.
fn threads_have_as_many_connections(bed: &Bed) {
    let cluster = bed.launch().workers(1).env("STICKY_THREADS_PER_WORKER", "3").up();
    let mut connections: Vec<_> = (0..12).map(|_| cluster.client().connect().expect("a connection")).collect();
    let mut threads: BTreeMap<String, usize> = BTreeMap::new();
    for connection in &mut connections {
        let thread = connection.get("/thread").expect("an answer").text();
        assert_eq!(connection.get("/thread").expect("an answer").text(), thread, "a connection stays on its thread");
        *threads.entry(thread).or_default() += 1;
    }
    assert_eq!(threads.into_values().collect::<Vec<_>>(), [4; 3]);
    cluster.stop();
}

/// Not even the one that accepts, which has the first connection.
fn thread_that_hangs_stops_no_other(bed: &Bed) {
    let cluster = bed.launch().workers(1).env("STICKY_THREADS_PER_WORKER", "3").up();
    let mut connections: Vec<_> = (0..3).map(|_| cluster.client().connect().expect("a connection")).collect();
    for connection in &mut connections {
        assert_eq!(connection.get("/").expect("an answer").status, 200);
    }
    for _ in 0..2 {
        connections[0].send(Request::post("/hang", b"").bytes()).expect("sent");
        connections.remove(0);
        for connection in &mut connections {
            for _ in 0..10 {
                assert_eq!(connection.get("/sleep/1").expect("an answer").text(), "slept");
            }
        }
    }
}

fn threads_finish_at_the_end(bed: &Bed) {
    let cluster = bed.launch().workers(1).env("STICKY_THREADS_PER_WORKER", "3").up();
    let busy: Vec<_> = (0..6).map(|_| crate::drain::executing(&cluster.client(), "/sleep/500")).collect();
    cluster.signal(sticky_tests::process::Signal::TERM);
    for mut connection in busy {
        let answer = connection.response().expect("a whole answer");
        assert_eq!(answer.text(), "slept");
        assert!(answer.announces_close(), "{answer:?}");
        assert_eq!(connection.read_to_end().expect("an end, not a reset"), b"");
    }
    assert!(cluster.exit(sticky_tests::cluster::PATIENCE).success());
    cluster.gone(Duration::from_secs(2));
}

fn run_can_be_awaited_by_one_thread(bed: &Bed) {
    drains_one_request(&bed.fault("awaited-by-one-thread").up());
}

fn several_threads_cannot_await_it(bed: &Bed) {
    fails(bed.fault("awaited-by-threads"), crate::boot::SOON, &["several threads", "#[actix_web::main]", ".block()"]);
}
