//! The end of a cluster as its clients see it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal};
use sticky_tests::testbed::LAST_EVENT;
use sticky_tests::{Client, Connection, TestCluster};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::bed::{Bed, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("executing_requests_are_answered", executing_requests_are_answered),
        Row::new("accepted_connections_are_answered_at_the_end", accepted_connections_are_answered_at_the_end),
        Row::new("idle_connections_are_closed_cleanly", idle_connections_are_closed_cleanly),
        Row::new("last_response_announces_the_close", last_response_announces_the_close),
        Row::new("websocket_says_1012", websocket_says_1012),
        Row::new("sse_says_goodbye", sse_says_goodbye),
        Row::new("http2_is_told_of_the_end", http2_is_told_of_the_end),
        Row::new("shutdown_timeout_cuts_and_reports", shutdown_timeout_cuts_and_reports),
        Row::new("second_signal_ends_at_once", second_signal_ends_at_once),
        Row::new("signal_to_all_processes_drains", signal_to_all_processes_drains),
        Row::new("signal_to_one_worker_changes_nothing", signal_to_one_worker_changes_nothing),
    ]
}

/// An open WebSocket whose first message has been read.
pub(crate) fn websocket(cluster: &TestCluster) -> WebSocket<TcpStream> {
    websocket_of(&cluster.client(), cluster)
}

/// The same of this client.
pub(crate) fn websocket_of(client: &Client, cluster: &TestCluster) -> WebSocket<TcpStream> {
    let stream = client.connect().expect("a connection").into_stream();
    let (mut socket, _) = tungstenite::client(format!("ws://{}/ws", cluster.address()), stream).expect("an upgrade");
    assert!(socket.read().expect("a first message").is_text());
    socket
}

/// A connection whose request has surely begun to execute: its worker has answered on it before, and answers another
/// connection of the same client after.
pub(crate) fn executing(client: &Client, path: &str) -> Connection {
    let mut connection = client.connect().expect("a connection");
    assert_eq!(connection.get("/").expect("an answer").status, 200);
    connection.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).expect("sent");
    assert_eq!(client.get("/").expect("an answer").status, 200);
    connection
}

fn executing_requests_are_answered(bed: &Bed) {
    for signal in [Signal::TERM, Signal::INT] {
        let cluster = bed.launch().up();
        let addresses = Client::loopback_addresses(10);
        let busy: Vec<_> = addresses.map(|address| executing(&cluster.client().from(address), "/sleep/700")).collect();
        cluster.signal(signal);
        for mut connection in busy {
            assert_eq!(connection.response().expect("a whole answer").text(), "slept", "after {signal:?}");
        }
        assert!(cluster.exit(PATIENCE).success());
        cluster.gone(Duration::from_secs(2));
    }
}

/// Clients that connect without a pause: whoever got a connection and sent a request gets an answer, up to the moment
/// from which on connections are refused.
fn accepted_connections_are_answered_at_the_end(bed: &Bed) {
    let cluster = bed.launch().up();
    let connect_until_refused = |client: Client| {
        move || {
            for answered in 0_u32.. {
                let Ok(mut connection) = client.connect() else {
                    return io::Result::Ok(answered);
                };
                connection.request("GET", "/", &["connection: close"], b"")?;
            }
            unreachable!("the cluster ends before")
        }
    };
    let client = cluster.client();
    let clients: Vec<_> = Client::loopback_addresses(16)
        .map(|address| thread::spawn(connect_until_refused(client.clone().from(address))))
        .collect();
    // Each client is well under way before the end comes.
    cluster.pids(2);
    cluster.signal(Signal::TERM);
    let outcomes: Vec<_> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(cluster.exit(PATIENCE).success());
    cluster.gone(Duration::from_secs(2));
}

/// A frame of HTTP/2: its type, its flags, its stream and its payload.
type Frame = (u8, u8, u32, Vec<u8>);

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;

fn read_frame(stream: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut header = [0; 9];
    match stream.read(&mut header)? {
        0 => return Ok(None),
        some => stream.read_exact(&mut header[some..])?,
    }
    let [high, middle, low, kind, flags, id @ ..] = header;
    let mut payload = vec![0; usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)];
    stream.read_exact(&mut payload)?;
    Ok(Some((kind, flags, u32::from_be_bytes(id), payload)))
}

/// A connection with HTTP/2, whose request on stream 1 is executing.
fn executing_over_http2(cluster: &TestCluster, path: &str) -> TcpStream {
    let mut stream = cluster.client().connect().expect("a connection").into_stream();
    // GET, http, and the path and the authority as they are.
    let mut head = vec![0x82, 0x86];
    for (name, value) in [(0x04, path), (0x01, "test")] {
        head.extend([name, u8::try_from(value.len()).expect("a short one")]);
        head.extend(value.as_bytes());
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend([0, 0, u8::try_from(head.len()).expect("a short one"), HEADERS, 4 | END_STREAM, 0, 0, 0, 1]);
    bytes.extend(head);
    stream.write_all(&bytes).expect("sent");
    // It answers another connection of the same client after it has seen this one.
    while read_frame(&mut stream).expect("a frame").expect("no end").0 != SETTINGS {}
    assert_eq!(cluster.client().get("/").expect("an answer").status, 200);
    stream
}

/// The client is told to begin nothing new; what it has begun is answered, and then the connection ends.
fn http2_is_told_of_the_end(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut stream = executing_over_http2(&cluster, "/sleep/500");
    cluster.signal(Signal::TERM);
    let mut frames = Vec::new();
    while let Some(frame) = read_frame(&mut stream).expect("an end, not a reset") {
        if let (PING, 0, 0, payload) = &frame {
            // Who is asked whether the notice has arrived says so.
            let _ = stream.write_all(&[&[0, 0, 8, PING, 1, 0, 0, 0, 0], payload.as_slice()].concat());
        }
        frames.push(frame);
    }
    let goes_away = frames.iter().position(|(kind, .., payload)| *kind == GOAWAY && payload[4..8] == [0; 4]);
    let answer = frames.iter().position(|(kind, _, stream, _)| (*kind, *stream) == (HEADERS, 1));
    assert!(goes_away.is_some() && goes_away < answer, "{frames:?}");
    let ends = |(_, flags, stream, _): &Frame| *stream == 1 && flags & END_STREAM != 0;
    assert!(frames.iter().any(ends), "the answer is whole: {frames:?}");
    assert!(cluster.exit(PATIENCE).success());
    cluster.gone(Duration::from_secs(2));
}

fn idle_connections_are_closed_cleanly(bed: &Bed) {
    let cluster = bed.launch().up();
    let idle: Vec<_> = Client::loopback_addresses(10)
        .map(|address| {
            let mut connection = cluster.client().from(address).connect().expect("a connection");
            assert_eq!(connection.get("/").expect("an answer").status, 200);
            connection
        })
        .collect();
    let begun = Instant::now();
    cluster.stop();
    for mut connection in idle {
        assert_eq!(connection.read_to_end().expect("an end, not a reset"), b"");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "idle connections held the drain for {:?}", begun.elapsed());
}

fn last_response_announces_the_close(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut busy = executing(&cluster.client(), "/sleep/700");
    cluster.signal(Signal::TERM);
    let last = busy.response().expect("a whole answer");
    assert_eq!(last.header("connection"), Some("close"), "so that the client sends no other request");
    assert_eq!(busy.read_to_end().expect("an end, not a reset"), b"");
}

fn websocket_says_1012(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut socket = websocket(&cluster);
    cluster.signal(Signal::TERM);
    let Message::Close(Some(frame)) = socket.read().expect("a last message") else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Restart, "1012");
    // Reading on answers the close.
    while socket.read().is_ok() {}
    assert!(cluster.exit(PATIENCE).success());
}

fn sse_says_goodbye(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut stream = cluster.client().connect().expect("a connection");
    stream.send("GET /sse HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").expect("sent");
    stream.read_until("data: 0").expect("a first event");
    cluster.signal(Signal::TERM);
    let all = String::from_utf8(stream.read_to_end().expect("an end, not a reset")).expect("text");
    assert!(all.contains(LAST_EVENT), "{all}");
    assert!(all.ends_with("0\r\n\r\n"), "the response is complete: {all}");
    assert!(cluster.exit(PATIENCE).success());
}

fn shutdown_timeout_cuts_and_reports(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_SHUTDOWN_TIMEOUT", "700ms").up();
    let mut cut = executing(&cluster.client(), "/sleep/60000");
    let mut completed = executing(&cluster.client(), "/sleep/50");
    let begun = Instant::now();
    cluster.signal(Signal::TERM);
    assert_eq!(completed.response().expect("a whole answer").text(), "slept");
    // A proxy says nothing in its worker's place: that is not cut before its clients are.
    assert!(cut.response().is_err(), "no answer");
    assert!(begun.elapsed() >= Duration::from_millis(650), "cut after {:?}", begun.elapsed());
    cluster.exit(Duration::from_secs(10));
    cluster.gone(Duration::from_secs(2));
    let report = cluster.events().expect("cut", Duration::from_secs(1));
    assert!(report.contains('1'), "it says how many: {report}");
}

fn second_signal_ends_at_once(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut socket = websocket(&cluster);
    let mut busy = executing(&cluster.client(), "/sleep/60000");
    cluster.signal(Signal::TERM);
    // The WebSocket's goodbye says that the drain has begun.
    assert!(socket.read().expect("a last message").is_close());
    // Launchers signal a process and then its group: what follows at once is the same signal.
    cluster.signal(Signal::TERM);
    process::let_pass(Duration::from_millis(700));
    assert!(process::is_alive(cluster.supervisor()));
    let begun = Instant::now();
    cluster.signal(Signal::TERM);
    cluster.exit(Duration::from_secs(3));
    cluster.gone(Duration::from_secs(1));
    bed.expect_lost(busy.response());
    assert!(begun.elapsed() < Duration::from_secs(3), "well below the shutdown timeout");
}

/// Service managers signal every process of the service at once; the workers leave it to the supervisor.
fn signal_to_all_processes_drains(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut busy = executing(&cluster.client(), "/sleep/700");
    for pid in cluster.family() {
        process::signal(pid, Signal::TERM);
    }
    assert_eq!(busy.response().expect("a whole answer").text(), "slept");
    assert!(cluster.exit(PATIENCE).success());
    cluster.gone(Duration::from_secs(2));
}

/// A worker alone is not ended by what ends the cluster.
fn signal_to_one_worker_changes_nothing(bed: &Bed) {
    let cluster = bed.launch().up();
    let pids = cluster.pids(2);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        process::signal(pids[&0], signal);
    }
    assert_eq!(cluster.pids(2), pids);
    cluster.stop();
}
