//! Attendance around the smallest of frameworks, on a clock that runs while nothing else does.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::fields::tests::Plain;
use super::goaway::GOAWAY;
use super::{Attended, Protocol};
use crate::connection::{Registry, Stream};
use crate::scoreboard::Row;
use crate::worker::{DrainReason, Worker};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn pair(worker: &Worker) -> (Attended, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let registry = Registry::new(Row::detached());
    (Attended::new(registry.register(Stream::unix(ours)), worker), theirs)
}

/// Serves a connection with `framework` under attendance, and says how long that took if the framework ended by itself.
fn look_after<F: Future<Output = ()> + 'static>(
    socket: Attended,
    framework: impl FnOnce(Attended) -> F,
) -> impl Future<Output = Option<Duration>> {
    let attendance = socket.attendance().clone();
    let begun = Instant::now();
    let serving = attendance.look_after(framework(socket));
    async move { serving.await.map(|()| begun.elapsed()) }
}

/// Answers each head, after that time, with a word; closes on end-of-stream, as frameworks do.
async fn toy(mut socket: Attended, time: Duration) {
    if socket.protocol().await.unwrap().is_none() {
        return;
    }
    let mut read = Vec::new();
    while socket.read_buf(&mut read).await.unwrap() > 0 {
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            let in_flight = socket.attendance().clone().begin(false, &mut Plain::default());
            sleep(time).await;
            let word: &[u8] = if in_flight.answer(200, &mut Plain::default()) { b"last." } else { b"more." };
            socket.write_all(word).await.unwrap();
        }
    }
    let _ = socket.shutdown().await;
}

fn at_once(socket: Attended) -> impl Future<Output = ()> {
    toy(socket, Duration::ZERO)
}

async fn to_the_end(mut client: UnixStream) -> String {
    let mut read = String::new();
    client.read_to_string(&mut read).await.unwrap();
    read
}

fn reading(client: UnixStream) -> JoinHandle<String> {
    tokio::spawn(to_the_end(client))
}

fn seconds(range: std::ops::RangeInclusive<u64>, took: Option<Duration>) {
    let took = took.expect("the framework ends by itself");
    assert!(range.contains(&took.as_secs()), "{took:?}, not {range:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_ends_without_a_word() {
    let (socket, client) = pair(&Worker::detached());
    let client = reading(client);
    seconds(60..=60, look_after(socket, at_once).await);
    assert_eq!(client.await.unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_gets_408() {
    for part in [&b"G"[..], b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n"] {
        let (socket, mut client) = pair(&Worker::detached());
        client.write_all(part).await.unwrap();
        let client = reading(client);
        seconds(10..=10, look_after(socket, at_once).await);
        assert!(client.await.unwrap().starts_with("HTTP/1.1 408 "), "{part:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_and_one_that_executes_does_not() {
    let (socket, mut client) = pair(&Worker::detached());
    client.write_all(b"GET\r\n\r\n").await.unwrap();
    let client = reading(client);
    let hour = Duration::from_secs(3600);
    // An eighth of the time it may be late.
    seconds(3675..=3685, look_after(socket, |socket| toy(socket, hour)).await);
    assert_eq!(client.await.unwrap(), "more.");
}

#[tokio::test(start_paused = true)]
async fn a_framework_that_does_not_end_is_broken_off() {
    let (socket, client) = pair(&Worker::detached());
    let client = reading(client);
    let serving = look_after(socket, async |mut socket| {
        drop(socket.attendance().clone().begin(false, &mut Plain::default()));
        // It goes on when it reads the end.
        while socket.read_buf(&mut Vec::new()).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    assert_eq!(serving.await, None);
    assert_eq!(client.await.unwrap(), "");
}

#[tokio::test]
async fn the_first_bytes_tell_the_protocol() {
    for (pieces, expected) in [
        (vec![PREFACE], Some(Protocol::Http2)),
        (vec![&PREFACE[..1], &PREFACE[1..12], &PREFACE[12..]], Some(Protocol::Http2)),
        (vec![&PREFACE[..5], b"x"], Some(Protocol::Http1)),
        (vec![b"GET / HTTP/1.1\r\n\r\n"], Some(Protocol::Http1)),
        (vec![], None),
    ] {
        let (mut socket, mut client) = pair(&Worker::detached());
        let sent = pieces.concat();
        let sending = tokio::spawn(async move {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(socket.protocol().await.unwrap(), expected, "{}", sent.escape_ascii());
        sending.await.unwrap();
        let mut read = Vec::new();
        socket.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, sent, "what was looked at is read all the same");
    }
}

/// Starts this worker's drain.
fn drain(worker: &Worker) {
    worker.start_drain(DrainReason::Shutdown, std::time::Instant::now() + Duration::from_secs(3600));
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_what_is_idle_at_once_and_what_is_new_soon() {
    for (sent, answer, within) in
        [(&b"GET\r\n\r\n"[..], "more.", 0..=0), (b"", "", 250..=260), (b"GE", "HTTP", 9_000..=10_010)]
    {
        let worker = Worker::detached();
        let (socket, mut client) = pair(&worker);
        client.write_all(sent).await.unwrap();
        let client = reading(client);
        let serving = look_after(socket, at_once);
        let draining = async {
            // The connection gets as far as it can.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            drain(&worker);
        };
        let (took, ()) = tokio::join!(serving, draining);
        let took = u64::try_from(took.expect("it ends by itself").as_millis()).unwrap();
        assert!(within.contains(&took), "{sent:?}: {took} ms");
        assert!(client.await.unwrap().starts_with(answer), "{sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_executes_in_a_drain_is_answered_with_the_end() {
    let worker = Worker::detached();
    let (socket, mut client) = pair(&worker);
    client.write_all(b"GET\r\n\r\n").await.unwrap();
    let client = reading(client);
    let serving = look_after(socket, |socket| toy(socket, Duration::from_secs(100)));
    let draining = async {
        sleep(Duration::from_secs(50)).await;
        drain(&worker);
    };
    let (took, ()) = tokio::join!(serving, draining);
    seconds(100..=100, took);
    assert_eq!(client.await.unwrap(), "last.");
}

/// The settings, and an answer in two pieces.
const FRAMES: &[&[u8]] = &[&[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0, 0, 2, 0, 1, 0, 0, 0, 1], b"ok"];

/// The notice comes between two frames, once, and what has begun is finished.
#[tokio::test(start_paused = true)]
async fn a_client_of_http2_is_told_between_two_frames() {
    let worker = Worker::detached();
    let (socket, mut client) = pair(&worker);
    client.write_all(PREFACE).await.unwrap();
    let serving = look_after(socket, async |mut socket| {
        assert_eq!(socket.protocol().await.unwrap(), Some(Protocol::Http2));
        let mut read = vec![0; PREFACE.len()];
        socket.read_exact(&mut read).await.unwrap();
        let in_flight = socket.attendance().clone().begin(false, &mut Plain::default());
        for piece in FRAMES {
            socket.write_all(piece).await.unwrap();
            sleep(Duration::from_secs(2)).await;
        }
        assert!(!in_flight.answer(200, &mut Plain::default()), "that is said in another way");
        drop(in_flight);
        assert_eq!(socket.read(&mut read).await.unwrap(), 0);
    });
    let draining = async {
        // In the middle of the second frame.
        sleep(Duration::from_secs(3)).await;
        drain(&worker);
    };
    let (took, ()) = tokio::join!(serving, draining);
    seconds(6..=6, took);
    let mut written = Vec::new();
    client.read_to_end(&mut written).await.unwrap();
    assert_eq!(written, [FRAMES.concat().as_slice(), GOAWAY].concat());
}
