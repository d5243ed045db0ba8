//! Connection limits and timers. Each timer row waits for the end of a stream and looks at the clock only to see that
//! it did not come too early; being late on a busy machine is no failure.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use sticky_tests::Connection;

use crate::bed::{Bed, Row};

const LIMIT: Duration = Duration::from_millis(400);
const LIMIT_TEXT: &str = "400ms";

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("connections_beyond_the_limit_wait", connections_beyond_the_limit_wait),
        Row::new("silent_connection_is_closed", silent_connection_is_closed),
        Row::new("slow_head_gets_408", slow_head_gets_408),
        Row::new("idle_connection_is_closed", idle_connection_is_closed),
        Row::new("timers_spare_what_is_served", timers_spare_what_is_served),
    ]
}

fn connections_beyond_the_limit_wait(bed: &Bed) {
    let cluster = bed.launch().workers(1).env("STICKY_MAX_CONNECTIONS", "2").up();
    let client = cluster.client();
    let mut kept: Vec<_> = (0..2).map(|_| client.connect().expect("a connection")).collect();
    for connection in &mut kept {
        assert_eq!(connection.get("/").expect("an answer").status, 200);
    }
    let mut waiting = client.connect().expect("a connection");
    waiting.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").expect("sent");
    waiting.set_timeout(Duration::from_millis(300)).expect("a shorter timeout");
    let error = waiting.response().expect_err("no answer while two others are open");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    kept.pop();
    waiting.set_timeout(Duration::from_secs(10)).expect("a longer timeout");
    assert_eq!(waiting.response().expect("an answer").status, 200);
    assert_eq!(kept[0].get("/").expect("an answer").status, 200, "the open one was left alone");
}

/// Reads to the end; it must not come before the limit.
fn ends_after_limit(mut connection: Connection, since: Instant) -> String {
    let rest = connection.read_to_end().expect("an end, not a reset");
    assert!(since.elapsed() >= LIMIT - Duration::from_millis(50), "closed after {:?}", since.elapsed());
    String::from_utf8_lossy(&rest).into_owned()
}

fn silent_connection_is_closed(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_FIRST_BYTE_TIMEOUT", LIMIT_TEXT).up();
    let begun = Instant::now();
    let silent = cluster.client().connect().expect("a connection");
    assert_eq!(ends_after_limit(silent, begun), "", "nothing was asked, nothing is said");
}

fn slow_head_gets_408(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_HEAD_TIMEOUT", LIMIT_TEXT).up();
    for warm_up in [false, true] {
        let mut slow = cluster.client().connect().expect("a connection");
        if warm_up {
            assert_eq!(slow.get("/").expect("an answer").status, 200);
        }
        let begun = Instant::now();
        slow.send("GET / HTTP/1.1\r\nhost").expect("sent");
        assert_eq!(slow.response().expect("an answer").status, 408, "after a first request: {warm_up}");
        ends_after_limit(slow, begun);
    }
}

fn idle_connection_is_closed(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_IDLE_TIMEOUT", LIMIT_TEXT).up();
    let mut idle = cluster.client().connect().expect("a connection");
    assert_eq!(idle.get("/").expect("an answer").status, 200);
    let answered = Instant::now();
    assert_eq!(ends_after_limit(idle, answered), "");
}

/// Requests, streams and WebSockets outlast every timer meant for silence.
fn timers_spare_what_is_served(bed: &Bed) {
    let names = ["STICKY_FIRST_BYTE_TIMEOUT", "STICKY_HEAD_TIMEOUT", "STICKY_IDLE_TIMEOUT"];
    let cluster = names.into_iter().fold(bed.launch(), |launch, name| launch.env(name, LIMIT_TEXT)).up();
    let mut socket = crate::drain::websocket(&cluster);
    let mut stream = cluster.client().connect().expect("a connection");
    stream.send("GET /sse HTTP/1.1\r\nhost: test\r\n\r\n").expect("sent");
    let mut slow_body = cluster.client().connect().expect("a connection");
    slow_body.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n1").expect("sent");
    let mut slow_answer = cluster.client().connect().expect("a connection");
    assert_eq!(slow_answer.get("/sleep/1200").expect("an answer").status, 200);
    slow_body.send("2").expect("sent");
    assert_eq!(slow_body.response().expect("an answer").text(), "12");
    // Events come every 100 ms: the tenth is later than any of the limits.
    stream.read_until("data: 10").expect("events");
    socket.send("still there".into()).expect("sent");
    assert_eq!(socket.read().expect("an echo").into_text().expect("text").as_str(), "still there");
}
