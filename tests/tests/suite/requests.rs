//! What every testbed serves, and the clients that broke the seeds.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::thread;

use sha2::{Digest, Sha256};
use sticky_tests::Client;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::bed::{Bed, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("routes_answer", routes_answer),
        Row::new("hundred_parallel_gets", hundred_parallel_gets),
        Row::new("two_addresses_reach_two_workers", two_addresses_reach_two_workers),
        Row::new("session_lives_on_every_connection", session_lives_on_every_connection),
        Row::new("websocket_echoes", websocket_echoes),
        Row::new("split_head_is_served", split_head_is_served),
        Row::new("half_closed_client_is_answered", half_closed_client_is_answered),
        Row::new("pipelined_requests_are_answered_in_order", pipelined_requests_are_answered_in_order),
        Row::new("disconnecting_clients_harm_nobody", disconnecting_clients_harm_nobody),
        Row::new("h2c_is_served", h2c_is_served),
    ]
}

fn routes_answer(bed: &Bed) {
    let cluster = bed.launch().up();
    let source = Ipv4Addr::new(127, 0, 0, 9);
    let mut connection = cluster.client().from(source).connect().expect("a connection");
    let first = connection.get("/").expect("an answer");
    assert_eq!((first.status, first.generation()), (200, 0));
    assert_eq!(first.text(), format!("worker: {}", first.worker()));
    assert!(cluster.workers().contains(&first.pid()));
    assert_eq!(connection.get("/whoami").expect("an answer").text(), source.to_string());
    assert_eq!(connection.get("/sleep/1").expect("an answer").status, 200);
    assert_eq!(connection.get("/block/1").expect("an answer").status, 200);
    assert_eq!(connection.get("/bytes/100000").expect("an answer").body.len(), 100_000);
    assert_eq!(connection.get("/nowhere").expect("an answer").status, 404);
    let body: Vec<u8> = (0..1_000_000u32).map(|number| number.to_le_bytes()[0]).collect();
    assert_eq!(connection.request("POST", "/echo", &[], &body).expect("an answer").body, body);
    let uploaded = connection.request("POST", "/upload", &[], &body).expect("an answer");
    assert_eq!(uploaded.text(), format!("1000000 {:x}", Sha256::digest(&body)));
    assert_eq!(uploaded.pid(), first.pid(), "all on one kept-alive connection");
    cluster.stop();
}

fn hundred_parallel_gets(bed: &Bed) {
    let cluster = bed.launch().workers(4).up();
    let client = cluster.client();
    let get = |address| {
        let client = client.clone().from(address);
        move || client.get("/").expect("an answer").text()
    };
    let gets: Vec<_> = Client::loopback_addresses(100).map(|address| thread::spawn(get(address))).collect();
    for answer in gets.into_iter().map(|get| get.join().expect("no panic")) {
        assert!(answer.starts_with("worker: "), "{answer}");
    }
    cluster.stop();
}

fn two_addresses_reach_two_workers(bed: &Bed) {
    let cluster = bed.launch().up();
    let pids = cluster.pids(2);
    let different: BTreeSet<u32> = pids.values().copied().collect();
    assert_eq!(different.len(), 2, "{pids:?}");
    assert_eq!(different, cluster.workers().into_iter().collect());
}

fn session_lives_on_every_connection(bed: &Bed) {
    let cluster = bed.launch().workers(4).up();
    for address in Client::loopback_addresses(20) {
        let client = cluster.client().from(address);
        let login = client.post("/login", b"").expect("an answer");
        let cookie =
            login.header("set-cookie").expect("a session cookie").split(';').next().expect("a value").to_owned();
        for _ in 0..5 {
            let mut connection = client.connect().expect("a connection");
            let me = connection.request("GET", "/me", &[&format!("cookie: {cookie}")], b"").expect("an answer");
            assert_eq!((me.status, me.text()), (200, login.text()));
        }
        assert_eq!(client.get("/me").expect("an answer").status, 401);
    }
}

fn websocket_echoes(bed: &Bed) {
    let cluster = bed.launch().up();
    let client = cluster.client();
    let stream = client.connect().expect("a connection").into_stream();
    let (mut socket, answer) =
        tungstenite::client(format!("ws://{}/ws", cluster.address()), stream).expect("an upgrade");
    let worker = answer.headers()["x-worker"].to_str().expect("text").to_owned();
    assert_eq!(worker, client.get("/").expect("an answer").worker().to_string());
    assert_eq!(socket.read().expect("a first message"), Message::text(format!("worker: {worker}")));
    for message in [Message::text("hello"), Message::binary(vec![7; 100_000])] {
        socket.send(message.clone()).expect("sent");
        assert_eq!(socket.read().expect("an echo"), message);
    }
    socket.close(None).expect("closed");
    while socket.read().is_ok() {}
    cluster.stop();
}

/// A head split over two segments hung sticky-session: the answer to the first half must be to wait.
fn split_head_is_served(bed: &Bed) {
    let cluster = bed.launch().up();
    let head = "GET /whoami HTTP/1.1\r\nhost: test\r\n\r\n";
    for at in 1..head.len() {
        let mut connection = cluster.client().connect().expect("a connection");
        connection.send(&head[..at]).expect("sent");
        // A whole exchange on another connection, so that the worker has surely seen the first half alone.
        assert_eq!(cluster.client().get("/").expect("an answer").status, 200);
        connection.send(&head[at..]).expect("sent");
        assert_eq!(connection.response().expect("an answer").status, 200, "split at {at}");
    }
}

fn half_closed_client_is_answered(bed: &Bed) {
    let cluster = bed.launch().up();
    for path in ["/", "/sleep/50", "/bytes/1000000"] {
        let mut connection = cluster.client().connect().expect("a connection");
        connection.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).expect("sent");
        connection.finish_writing().expect("half-closed");
        let answer = connection.response().unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(answer.status, 200, "{path}");
    }
}

fn pipelined_requests_are_answered_in_order(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut connection = cluster.client().connect().expect("a connection");
    let lengths = [3, 70_000, 1, 0, 20];
    let requests = lengths.map(|length| format!("GET /bytes/{length} HTTP/1.1\r\nhost: test\r\n\r\n")).concat();
    connection.send(requests).expect("sent");
    for length in lengths {
        assert_eq!(connection.response().expect("an answer").body.len(), length);
    }
}

fn disconnecting_clients_harm_nobody(bed: &Bed) {
    let cluster = bed.launch().up();
    let pids = cluster.pids(2);
    for address in Client::loopback_addresses(100) {
        let client = cluster.client().from(address);
        drop(client.connect().expect("a connection"));
        let mut half = client.connect().expect("a connection");
        half.send("GET / HT").expect("sent");
        drop(half);
        let mut gone_before_the_answer = client.connect().expect("a connection");
        gone_before_the_answer.send("GET /sleep/1 HTTP/1.1\r\nhost: test\r\n\r\n").expect("sent");
    }
    assert_eq!(cluster.pids(2), pids, "the same processes serve on");
    cluster.stop();
}

fn h2c_is_served(bed: &Bed) {
    let cluster = bed.launch().up();
    let url = format!("http://{}/bytes/100000", cluster.address());
    let arguments = [
        "-sS",
        "--max-time",
        "10",
        "--http2-prior-knowledge",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version} %{size_download}",
    ];
    let output = std::process::Command::new("curl").args(arguments).arg(url).output().expect("curl");
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(told, "2 100000");
    cluster.stop();
}
