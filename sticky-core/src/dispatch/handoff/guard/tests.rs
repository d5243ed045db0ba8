//! Whom the guard wakes, and when.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::super::Settings;
use super::super::judge::{Judge, Rules};
use super::*;
use crate::connection::Registry;
use crate::deadline::Timeouts;
use crate::scoreboard::Row;
use crate::session::Sessions;
use crate::worker::DrainTrigger;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Counts how often the framework is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A framework that reads and writes when it is told to, behind a guard.
struct Framework {
    guard: Guard,
    stream: Stream,
    client: UnixStream,
    wakes: Arc<Wakes>,
}

impl Framework {
    fn new() -> Self {
        let (ours, client) = UnixStream::pair().unwrap();
        let own = WorkerId::new(0);
        let judge = Judge::new(own, 1, 0, Rules::default(), Arc::new(Sessions::none()), Vec::new());
        let settings = Settings { timeouts: Timeouts::default(), patience: None, proxy_protocol: false };
        let registry = Registry::new(Row::detached());
        let (returned, _) = mpsc::unbounded_channel();
        let (_, drain) = DrainTrigger::new();
        let handoff = Handoff::new(Arc::new(judge), settings, registry, Vec::new(), returned, drain);
        let guard = Guard::new(Arc::new(handoff), None);
        Self { guard, stream: Stream::unix(ours), client, wakes: Arc::default() }
    }

    /// What can be read now.
    fn read(&mut self) -> Poll<Vec<u8>> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        let mut space = [0; 4096];
        let mut buf = ReadBuf::new(&mut space);
        let read = self.guard.poll_read(&mut self.stream, &mut Context::from_waker(&waker), &mut buf);
        read.map(|read| read.map(|()| buf.filled().to_vec()).unwrap())
    }

    async fn serve_one(&mut self) {
        self.serve(REQUEST).await;
    }

    /// Reads this request, tries to read on, and answers.
    async fn serve(&mut self, request: &[u8]) {
        self.answer(request, RESPONSE).await;
    }

    async fn answer(&mut self, request: &[u8], response: &[u8]) {
        while self.read() != Poll::Ready(request.to_vec()) {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(self.read().is_pending(), "one message at a time");
        self.wakes.0.store(0, Ordering::Relaxed);
        self.write(response);
    }

    fn write(&mut self, bytes: &[u8]) {
        let waker = Waker::from(Arc::clone(&self.wakes));
        let mut cx = Context::from_waker(&waker);
        let written = self.guard.poll_write(&mut self.stream, &mut cx, &[IoSlice::new(bytes)]);
        assert!(written.is_ready());
    }

    /// How many seconds go by until a read comes to something.
    async fn seconds(&mut self) -> u32 {
        let mut seconds = 0;
        while self.read().is_pending() {
            seconds += 1;
            sleep(Duration::from_secs(1)).await;
        }
        seconds
    }

    fn woken(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_answered_sleeps_on_until_there_is_something_to_read() {
    let mut framework = Framework::new();
    for _ in 0..3 {
        framework.client.write_all(REQUEST).await.unwrap();
        framework.serve_one().await;
        assert_eq!(framework.woken(), 0, "there is nothing to do");
    }
    framework.client.write_all(REQUEST).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(framework.woken(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_has_answered_is_woken_for_what_has_been_read_ahead() {
    let mut framework = Framework::new();
    framework.client.write_all(&[REQUEST, REQUEST].concat()).await.unwrap();
    framework.serve_one().await;
    assert_eq!(framework.woken(), 1);
    assert_eq!(framework.read(), Poll::Ready(REQUEST.to_vec()));
}

#[tokio::test(start_paused = true)]
async fn who_has_answered_for_the_last_time_is_woken_for_the_end() {
    let mut framework = Framework::new();
    let last = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    framework.client.write_all(last).await.unwrap();
    framework.serve(last).await;
    assert_eq!(framework.woken(), 1);
    assert_eq!(framework.read(), Poll::Ready(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn who_sleeps_on_is_woken_when_the_connection_has_been_idle_for_too_long() {
    let mut framework = Framework::new();
    framework.client.write_all(REQUEST).await.unwrap();
    framework.serve_one().await;
    let idle = framework.seconds().await;
    assert!((75..=86).contains(&idle), "{idle} s");

    let mut framework = Framework::new();
    framework.client.write_all(REQUEST).await.unwrap();
    framework.serve_one().await;
    sleep(Duration::from_secs(80)).await;
    assert!(framework.woken() > 0, "nobody has to ask");
}

/// Nobody knows where such an answer ends: what follows it must not wait for ever.
#[tokio::test(start_paused = true)]
async fn behind_an_answer_that_cannot_be_framed_the_connection_ends_when_nothing_is_written() {
    let upgrade = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    for request in [REQUEST, upgrade] {
        let mut framework = Framework::new();
        framework.client.write_all(&[request, REQUEST].concat()).await.unwrap();
        framework.answer(request, b"HTTP/1.1 2x0\r\n\r\n").await;
        assert_eq!(framework.woken(), 1);
        let idle = framework.seconds().await;
        assert!((75..=86).contains(&idle), "{idle} s");
        assert_eq!(framework.read(), Poll::Ready(Vec::new()));
    }

    let mut framework = Framework::new();
    framework.client.write_all(REQUEST).await.unwrap();
    framework.answer(REQUEST, b"HTTP/1.1 2x0\r\n\r\n").await;
    for _ in 0..4 {
        assert!(framework.read().is_pending(), "it may go on");
        sleep(Duration::from_secs(50)).await;
        framework.write(b"more");
    }
    let idle = framework.seconds().await;
    assert!((75..=86).contains(&idle), "{idle} s");
}

/// What is taken for a message by itself must be one: the body of another may look like one.
#[tokio::test(start_paused = true)]
async fn only_a_message_that_was_read_from_its_first_byte_to_its_last_is_whole() {
    let mut framework = Framework::new();
    for (pieces, is_whole) in [
        (&[REQUEST][..], true),
        (&[REQUEST], true),
        (&[&REQUEST[..9], &REQUEST[9..]], true),
        (&[b"POST / HTTP/1.1\r\ncontent-length: 27\r\n\r\n", REQUEST], false),
        (&[b"POST / HTTP/1.1\r\ncontent-length: 28\r\n\r\nx", REQUEST], false),
        (&[b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n"], false),
        (&[REQUEST], true),
    ] {
        let (mut length, mut last) = (0, false);
        let mut pieces_left = pieces.iter();
        while length < pieces.concat().len() {
            if let Some(piece) = pieces_left.next() {
                framework.client.write_all(piece).await.unwrap();
            }
            sleep(Duration::from_millis(1)).await;
            while let Poll::Ready(bytes) = framework.read() {
                (length, last) = (length + bytes.len(), framework.guard.is_whole());
            }
        }
        assert_eq!(last, is_whole, "{pieces:?}");
        framework.write(RESPONSE);
    }
}
