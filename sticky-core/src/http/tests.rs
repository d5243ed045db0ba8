//! One connection at a time, against a clock that stands still while there is something to do.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::*;
use crate::connection::{Registry, Stream};
use crate::scoreboard::Row;
use crate::worker::{DrainReason, DrainTrigger};

type Answer = Result<Response<BoxBody<Bytes, Infallible>>, Infallible>;

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

fn text(text: impl Into<Bytes>) -> Answer {
    Ok(Response::new(Full::from(text.into()).boxed()))
}

/// Answers as the path asks.
async fn application(request: Request<RequestBody>) -> Answer {
    match request.uri().path() {
        "/slow" => {
            sleep(Duration::from_secs(300)).await;
            text("slow")
        }
        "/stream" => Ok(Response::new(pieces().boxed())),
        "/body" => text(request.into_body().collect().await.unwrap().to_bytes()),
        "/later" => {
            tokio::spawn(request.into_body().collect());
            text("accepted")
        }
        "/large" => text(vec![b'x'; 8 << 20]),
        "/panic" => panic!("as the test asks"),
        "/echo" => Ok(echo(request.map(RequestBody::into_incoming))),
        _ => text("hello"),
    }
}

/// Three pieces of a body with 200 s before each.
fn pieces() -> Pieces {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for _ in 0..3 {
            sleep(Duration::from_secs(200)).await;
            sender.send(Bytes::from("piece")).await.unwrap();
        }
    });
    Pieces(receiver)
}

struct Pieces(mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// Switches to a protocol that sends everything back.
fn echo(request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let mut response = Response::new(Empty::new().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(http::header::UPGRADE, "echo".parse().unwrap());
    response
}

/// A client, and the worker it is connected to.
struct Client {
    socket: UnixStream,
    registry: Registry,
    row: Row,
    trigger: DrainTrigger,
    start: Instant,
}

impl Client {
    fn connect() -> Self {
        let (ours, socket) = UnixStream::pair().unwrap();
        let row = Row::detached();
        let registry = Registry::new(row.clone());
        let (trigger, drain) = DrainTrigger::new();
        let connection = registry.register(Stream::unix(ours));
        let activity = Arc::new(Activity::new(row.clone(), drain, false, None));
        let timeouts = Timeouts {
            first_byte: Duration::from_secs(60),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
        };
        let guest = Guest { service: service_fn(application), keeper: None, suspect: None, home: None };
        let ours = Socket::new(connection, activity.clone(), None);
        let service = Tracked::new(guest, activity.clone(), None);
        tokio::spawn(serve_connection(ours, service, activity, timeouts));
        Self { socket, registry, row, trigger, start: Instant::now() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
        settle().await;
    }

    /// What has come by now.
    fn received(&mut self) -> String {
        let mut bytes = vec![0; 64 * 1024];
        match self.socket.try_read(&mut bytes) {
            Ok(length) => String::from_utf8_lossy(&bytes[..length]).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => String::new(),
            Err(error) => panic!("{error}"),
        }
    }

    async fn exchange(&mut self, request: impl AsRef<[u8]>) -> String {
        self.send(request).await;
        self.received()
    }

    /// Everything up to the end of the connection, and the seconds that took since `since`.
    async fn rest(&mut self, since: Instant) -> (String, u64) {
        let mut bytes = Vec::new();
        self.socket.read_to_end(&mut bytes).await.unwrap();
        let seconds = since.elapsed().as_secs();
        settle().await;
        assert_eq!(self.registry.open(), 0, "the connection has ended");
        (String::from_utf8_lossy(&bytes).into_owned(), seconds)
    }

    async fn drain(&mut self) -> Instant {
        self.drain_because(DrainReason::Shutdown).await
    }

    async fn drain_because(&mut self, reason: DrainReason) -> Instant {
        let deadline = std::time::Instant::now() + Duration::from_secs(3600);
        self.trigger.start(reason, deadline);
        settle().await;
        Instant::now()
    }
}

/// Lets everything happen that can happen now. The paused clock would jump to the next timer if this task waited.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_without_a_word() {
    let mut client = Client::connect();
    assert_eq!(client.rest(client.start).await, (String::new(), 60));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_answered_with_408() {
    let mut client = Client::connect();
    sleep(Duration::from_secs(30)).await;
    client.send("GET / HT").await;
    let begun = Instant::now();
    // More of it wins no time.
    sleep(Duration::from_secs(6)).await;
    client.send("TP/1.1\r\nhost: x\r\n").await;
    let (response, seconds) = client.rest(begun).await;
    assert!(response.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{response}");
    assert!(response.contains("connection: close\r\n"), "{response}");
    assert_eq!((seconds, client.row.totals().requests), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn a_second_head_that_does_not_end_is_answered_with_408_too() {
    let mut client = Client::connect();
    assert!(client.exchange(GET).await.contains("200 OK"));
    sleep(Duration::from_secs(20)).await;
    client.send("G").await;
    let (response, seconds) = client.rest(Instant::now()).await;
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    assert_eq!(seconds, 10);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_without_a_word() {
    let mut client = Client::connect();
    for _ in 0..3 {
        sleep(Duration::from_secs(50)).await;
        assert!(client.exchange(GET).await.contains("200 OK"));
    }
    assert_eq!(client.rest(Instant::now()).await, (String::new(), 75));
    assert_eq!(client.row.totals().requests, 3);
}

#[tokio::test(start_paused = true)]
async fn a_request_body_is_no_head() {
    let mut client = Client::connect();
    let head = "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\n";
    client.send(head).await;
    for byte in ["s", "e", "c", "r", "e"] {
        sleep(Duration::from_secs(30)).await;
        client.send(byte).await;
    }
    assert!(client.exchange("t").await.ends_with("secret"));
    assert_eq!(client.rest(Instant::now()).await, (String::new(), 75));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_read_after_the_response_is_no_head() {
    let mut client = Client::connect();
    let response = client.exchange("POST /later HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n1").await;
    assert!(response.ends_with("accepted"), "{response}");
    sleep(Duration::from_secs(30)).await;
    client.send("2").await;
    sleep(Duration::from_secs(30)).await;
    client.send("3").await;
    assert!(client.exchange(GET).await.contains("200 OK"));
}

#[tokio::test(start_paused = true)]
async fn what_executes_takes_as_long_as_it_takes() {
    let mut client = Client::connect();
    client.send(get("/slow")).await;
    sleep(Duration::from_secs(301)).await;
    assert!(client.received().ends_with("slow"));
    client.send(get("/stream")).await;
    sleep(Duration::from_secs(601)).await;
    assert_eq!(client.received().matches("piece").count(), 3);
    let (_, seconds) = client.rest(Instant::now()).await;
    assert_eq!(seconds, 74);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_not_waited_for_for_ever() {
    let mut client = Client::connect();
    client.send(get("/large")).await;
    sleep(Duration::from_secs(84)).await;
    assert_eq!(client.registry.open(), 1);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(client.registry.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_counts_until_it_is_dropped_and_has_no_timer() {
    let mut client = Client::connect();
    let response =
        client.exchange("GET /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    assert!(!response.contains("close"), "{response}");
    sleep(Duration::from_secs(5000)).await;
    assert_eq!(client.exchange("hello").await, "hello");
    assert_eq!((client.registry.open(), client.row.upgraded_open()), (1, 1));
    client.socket.shutdown().await.unwrap();
    client.rest(client.start).await;
    assert_eq!((client.registry.open(), client.row.upgraded_open()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_own_connection() {
    let mut client = Client::connect();
    client.send(get("/panic")).await;
    assert_eq!(client.rest(client.start).await, (String::new(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_drain_closes_an_idle_connection() {
    let mut client = Client::connect();
    assert!(client.exchange(GET).await.contains("200 OK"));
    let started = client.drain().await;
    assert_eq!(client.rest(started).await, (String::new(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_what_executes_finish_and_announces_the_end() {
    let mut client = Client::connect();
    client.send(get("/slow")).await;
    let started = client.drain().await;
    let (response, seconds) = client.rest(started).await;
    assert!(response.contains("connection: close\r\n") && response.ends_with("slow"), "{response}");
    assert_eq!(seconds, 300);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_a_head_that_has_begun() {
    let mut client = Client::connect();
    client.send("GET / HT").await;
    let started = client.drain().await;
    client.send("TP/1.1\r\nhost: x\r\n\r\n").await;
    let (response, seconds) = client.rest(started).await;
    assert!(response.contains("connection: close\r\n") && response.ends_with("hello"), "{response}");
    assert_eq!(seconds, 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_a_new_connection_a_moment() {
    let mut client = Client::connect();
    let started = client.drain().await;
    assert!(client.exchange(GET).await.contains("connection: close\r\n"));
    assert_eq!(client.rest(started).await, (String::new(), 0));

    let mut silent = Client::connect();
    let started = silent.drain().await;
    silent.rest(started).await;
    assert!(started.elapsed() < Duration::from_millis(260));

    let mut old = Client::connect();
    sleep(Duration::from_secs(20)).await;
    let started = old.drain().await;
    old.rest(started).await;
    assert!(started.elapsed() < Duration::from_millis(10));
}

mod http2 {
    use hyper::client::conn::http2::{SendRequest, handshake};
    use tokio::task::JoinHandle;

    use super::*;

    async fn connect() -> (Client, SendRequest<Empty<Bytes>>, JoinHandle<Instant>) {
        let mut client = Client::connect();
        let socket = std::mem::replace(&mut client.socket, UnixStream::pair().unwrap().0);
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
        let ended = tokio::spawn(async move {
            connection.await.unwrap();
            Instant::now()
        });
        settle().await;
        (client, sender, ended)
    }

    fn request(path: &str) -> Request<Empty<Bytes>> {
        Request::get(format!("http://x{path}")).body(Empty::new()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn is_idle_without_a_stream() {
        let (client, mut sender, ended) = connect().await;
        // Longer than a head may take, and shorter than a connection may be idle.
        sleep(Duration::from_secs(50)).await;
        let response = sender.send_request(request("/")).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        settle().await;
        let answered = Instant::now();
        assert_eq!((ended.await.unwrap() - answered).as_secs(), 75);
        settle().await;
        assert_eq!((client.registry.open(), client.row.totals().requests), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_takes_as_long_as_it_takes_also_through_a_drain() {
        let (mut client, mut sender, ended) = connect().await;
        let response = tokio::spawn(sender.send_request(request("/stream")));
        settle().await;
        client.drain().await;
        let body = response.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "piecepiecepiece");
        ended.await.unwrap();
        settle().await;
        assert_eq!(client.registry.open(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_replaced_worker_answers_once_more_and_says_that_it_was_the_last_time() {
    let mut client = Client::connect();
    assert!(!client.exchange(GET).await.contains("connection: close"));
    client.drain_because(DrainReason::Replaced).await;
    sleep(Duration::from_secs(50)).await;
    let (response, seconds) = {
        client.send(GET).await;
        client.rest(Instant::now()).await
    };
    assert!(response.contains("200 OK") && response.contains("connection: close\r\n"), "{response}");
    assert_eq!((seconds, client.row.totals().requests), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_replaced_worker_waits_for_idle_clients_no_longer_than_ever() {
    let mut client = Client::connect();
    client.exchange(GET).await;
    let begun = client.drain_because(DrainReason::Replaced).await;
    assert_eq!(client.rest(begun).await, (String::new(), 75));
    let mut silent = Client::connect();
    let begun = silent.drain_because(DrainReason::Replaced).await;
    assert_eq!(silent.rest(begun).await, (String::new(), 60));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_everything_comes_to_those_who_were_replaced_before() {
    let mut client = Client::connect();
    client.exchange(GET).await;
    client.drain_because(DrainReason::Replaced).await;
    let begun = client.drain().await;
    assert_eq!(client.rest(begun).await, (String::new(), 0));
}
