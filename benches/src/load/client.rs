//! One client: from where it connects, what it asks, how often, and how one question and its answer go.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use super::http::{exchange, keeps_alive};
use super::probe::worker_of;
use super::websocket;
use crate::random::Random;

/// One client: one request, or message, after the other.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where it connects from.
    pub source: Ipv4Addr,
    /// What it sends.
    pub asks: Asks,
    /// What its connections live for.
    pub connection: Lifetime,
    /// One request each such interval; without it the next follows the answer at once.
    pub interval: Option<Duration>,
    /// Whose latencies its own are counted with.
    pub group: Group,
}

/// What a client sends.
#[derive(Clone, Debug)]
pub enum Asks {
    /// Requests out of these, in this order.
    Requests(Rc<[Request]>, Order),
    /// This request, one byte each such interval.
    Slowly(Request, Duration),
    /// An upgrade first on each connection, then WebSocket messages that come back.
    Messages(Request),
}

/// One request, and who should answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As it goes over the wire.
    pub text: String,
    /// An answer by another is a failure. Programs without workers have nobody to be checked.
    pub worker: Option<usize>,
}

/// Which request comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the first to the last, and from the first again.
    InTurn,
    /// Any, each as likely, as this seed has it.
    Random(u64),
}

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// All requests of its client, as far as the server keeps it.
    KeepAlive,
    /// One request; then the client closes it.
    OneRequest,
}

/// Clients whose latencies are looked at together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Clients like any other.
    Ordinary,
    /// Ordinary clients whose worker serves a loud one as well.
    Neighbour,
    /// The client that keeps its worker busy.
    Loud,
}

impl Client {
    /// A connection that is ready for what the client asks.
    pub(super) async fn open(&self, target: SocketAddr, buffer: &mut [u8]) -> io::Result<TcpStream> {
        let mut stream = connect(target, self.source).await?;
        if let Asks::Messages(upgrade) = &self.asks {
            upgrade.upgrade(&mut stream, buffer).await?;
        }
        Ok(stream)
    }

    /// The order of its requests, from the first on.
    pub(super) fn picks(&self) -> Picks {
        match &self.asks {
            Asks::Requests(requests, order) => order.picks(requests.len()),
            Asks::Slowly(..) | Asks::Messages(_) => Order::InTurn.picks(1),
        }
    }

    /// Asks once; says whether the connection can be asked again.
    pub(super) async fn ask(&self, pick: usize, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
        let kept = match &self.asks {
            Asks::Requests(requests, _) => keeps_alive(requests[pick].ask(stream, buffer).await?),
            Asks::Slowly(request, interval) => keeps_alive(request.ask_slowly(*interval, stream, buffer).await?),
            Asks::Messages(_) => websocket::echo(stream).await.map(|()| true)?,
        };
        Ok(kept && self.connection == Lifetime::KeepAlive)
    }
}

impl Request {
    async fn ask<'a>(&self, stream: &mut TcpStream, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let answer = exchange(stream, self.text.as_bytes(), buffer).await?;
        let answered = self.worker.and_then(|_| worker_of(answer));
        if answered == self.worker {
            return Ok(answer);
        }
        Err(io::Error::other(format!("worker {answered:?} answered instead of {:?}", self.worker)))
    }

    async fn ask_slowly<'a>(
        &self,
        interval: Duration,
        stream: &mut TcpStream,
        buffer: &'a mut [u8],
    ) -> io::Result<&'a [u8]> {
        let (last, bytes) = self.text.as_bytes().split_last().expect("a request is not empty");
        for byte in bytes {
            stream.write_all(&[*byte]).await?;
            sleep(interval).await;
        }
        exchange(stream, &[*last], buffer).await
    }

    /// Asks, and makes the connection a WebSocket where that is asked for.
    pub(super) async fn open(&self, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
        if websocket::is_asked_for(&self.text) {
            return self.upgrade(stream, buffer).await;
        }
        self.ask(stream, buffer).await.map(drop)
    }

    /// Makes the connection a WebSocket.
    pub(super) async fn upgrade(&self, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
        let answer = self.ask(stream, buffer).await?;
        if websocket::is_accepted(answer) {
            return Ok(());
        }
        Err(io::Error::other(format!("no WebSocket but {}", String::from_utf8_lossy(answer))))
    }
}

pub(super) async fn connect(target: SocketAddr, source: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Ports that wait in TIME_WAIT for an earlier run's server are free for this one.
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    socket.bind((source, 0).into())?;
    socket.connect(target).await
}

/// Numbers of requests, without an end.
#[derive(Clone, Debug)]
pub(super) struct Picks {
    of: usize,
    next: usize,
    random: Option<Random>,
}

impl Order {
    fn picks(self, of: usize) -> Picks {
        let random = match self {
            Self::InTurn => None,
            Self::Random(seed) => Some(Random::new(seed)),
        };
        Picks { of, next: 0, random }
    }
}

impl Picks {
    /// The next one.
    pub(super) fn next(&mut self) -> usize {
        if let Some(random) = &mut self.random {
            return random.below(self.of);
        }
        let pick = self.next;
        self.next = (pick + 1) % self.of;
        pick
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn requests_come_in_turn_or_at_random() {
        let first = |order: Order, of| {
            let mut picks = order.picks(of);
            std::array::from_fn::<usize, 5, _>(|_| picks.next())
        };
        assert_eq!(first(Order::InTurn, 2), [0, 1, 0, 1, 0]);
        assert_eq!(first(Order::InTurn, 1), [0; 5]);
        assert_eq!(first(Order::Random(3), 50), first(Order::Random(3), 50));
        assert_ne!(first(Order::Random(3), 50), first(Order::Random(4), 50));
        assert!(first(Order::Random(3), 50).iter().all(|&pick| pick < 50));
    }

    /// What a request gets from a server whose every answer is `answer`.
    async fn asked(answer: &'static str, worker: Option<usize>) -> io::Result<bool> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let target = listener.local_addr()?;
        let server = async {
            let (mut stream, _) = listener.accept().await?;
            stream.read_exact(&mut [0; 4]).await?;
            stream.write_all(answer.as_bytes()).await
        };
        let client = Client {
            source: Ipv4Addr::LOCALHOST,
            asks: Asks::Requests(Rc::new([Request { text: "GET ".to_owned(), worker }]), Order::InTurn),
            connection: Lifetime::KeepAlive,
            interval: None,
            group: Group::Ordinary,
        };
        let asking = async {
            let mut buffer = vec![0; 1_024];
            let mut stream = client.open(target, &mut buffer).await?;
            client.ask(0, &mut stream, &mut buffer).await
        };
        tokio::try_join!(server, asking).map(|((), kept)| kept)
    }

    #[tokio::test]
    async fn only_the_right_worker_may_answer() {
        let answer = "HTTP/1.1 200 OK\r\nx-worker: 1\r\ncontent-length: 0\r\n\r\n";
        assert!(asked(answer, Some(1)).await.unwrap());
        assert!(asked(answer, None).await.unwrap());
        let message = asked(answer, Some(0)).await.unwrap_err().to_string();
        assert_eq!(message, "worker Some(1) answered instead of Some(0)");
        let nobody = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        assert!(asked(nobody, Some(0)).await.is_err());
    }

    #[tokio::test]
    async fn a_connection_is_as_long_as_the_server_lets_it() {
        let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert!(!asked(answer, None).await.unwrap());
    }
}
