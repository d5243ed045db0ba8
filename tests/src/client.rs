//! A small blocking HTTP/1.1 client that controls what real ones hide: source address, segments, half-close.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::random::Random;

mod request;
mod response;

pub use request::Request;
pub use response::Response;

/// Where to connect to, from which address, and how long any one wait may take (10 s).
#[derive(Clone)]
pub struct Client {
    target: SocketAddr,
    source: Option<IpAddr>,
    receive_buffer: Option<usize>,
    timeout: Duration,
}

impl Client {
    /// A client of this address.
    pub fn new(target: SocketAddr) -> Self {
        Self { target, source: None, receive_buffer: None, timeout: Duration::from_secs(10) }
    }

    /// Connects from this address.
    #[must_use]
    pub fn from(mut self, source: impl Into<IpAddr>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Has the kernel take about so many bytes at most before they are read here, instead of megabytes.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Bounds every single connect, read and write.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// `count` different addresses of 127.0.0.0/8, the same ones every time.
    pub fn loopback_addresses(count: u32) -> impl Iterator<Item = Ipv4Addr> {
        // An odd factor walks through all values without repeating one.
        (1..=count)
            .map(|number| Ipv4Addr::from(0x7F00_0000 | (number.wrapping_mul(0x9E37_79B1) >> 8).clamp(2, 0xFF_FFF0)))
    }

    /// A new connection.
    ///
    /// # Errors
    /// What the kernel says: refused, reset, timed out.
    pub fn connect(&self) -> io::Result<Connection> {
        let socket = Socket::new(Domain::for_address(self.target), Type::STREAM, None)?;
        if let Some(source) = self.source {
            if source.is_ipv6() {
                socket.set_freebind_v6(true)?;
            }
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.connect_timeout(&self.target.into(), self.timeout)?;
        socket.set_read_timeout(Some(self.timeout))?;
        socket.set_write_timeout(Some(self.timeout))?;
        socket.set_tcp_nodelay(true)?;
        Ok(Connection::over(socket.into()))
    }

    /// One GET on a connection of its own.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn get(&self, path: &str) -> io::Result<Response> {
        self.connect()?.request_last("GET", path, b"")
    }

    /// One POST on a connection of its own.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn post(&self, path: &str, body: &[u8]) -> io::Result<Response> {
        self.connect()?.request_last("POST", path, body)
    }
}

/// One connection, kept alive until it is dropped.
pub struct Connection<S = TcpStream> {
    stream: S,
    /// What was read beyond the last response.
    ahead: Vec<u8>,
}

impl Connection<TcpStream> {
    /// Says that nothing more will be sent (FIN), and keeps reading.
    ///
    /// # Errors
    /// When the connection has gone.
    pub fn finish_writing(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// The socket below, for other protocols.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// This side's address.
    ///
    /// # Errors
    /// When the socket has none.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Sends on the same connection, while this one reads.
    ///
    /// # Errors
    /// When the socket cannot be copied.
    pub fn sender(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Sends a request and reads its response at the same time, as whoever wants megabytes back must.
    ///
    /// # Errors
    /// When there is no whole answer.
    ///
    /// # Panics
    /// Never: the sending thread does not.
    pub fn exchange_at_once(&mut self, request: &Request) -> io::Result<Response> {
        let mut sender = self.sender()?;
        thread::scope(|scope| {
            let sending = scope.spawn(move || sender.write_all(&request.bytes()));
            let response = self.response_to(request.method());
            let sent = sending.join().expect("no panic");
            response.or_else(|error| sent.and(Err(error)))
        })
    }

    /// Bounds every later read.
    ///
    /// # Errors
    /// When the socket refuses it.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(timeout))
    }
}

impl<S: Read + Write> Connection<S> {
    /// A connection over any stream.
    pub fn over(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// The stream, and what was read from it beyond the last response.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.ahead)
    }

    /// Sends raw bytes, in a segment of their own (`TCP_NODELAY` is on).
    ///
    /// # Errors
    /// When the connection has gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// A GET that keeps the connection.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.request("GET", path, &[], b"")
    }

    /// A request with extra header lines (without line ends) that keeps the connection.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn request(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> io::Result<Response> {
        let mut message = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
        for line in headers {
            message.push_str(line);
            message.push_str("\r\n");
        }
        if method == "POST" {
            message.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        message.push_str("\r\n");
        let mut message = message.into_bytes();
        message.extend_from_slice(body);
        // A server may answer and close before it has read all: what it said counts more than the broken pipe.
        let sent = self.send(message);
        self.response().or_else(|error| sent.and(Err(error)))
    }

    /// Sends a request that says that nothing follows, and reads its response.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn request_last(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Response> {
        self.request(method, path, &["connection: close"], body)
    }

    /// Sends a request in one piece and reads its response.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn exchange(&mut self, request: &Request) -> io::Result<Response> {
        let sent = self.send(request.bytes());
        self.response_to(request.method()).or_else(|error| sent.and(Err(error)))
    }

    /// Reads one whole response, to anything but HEAD.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends before its end, else what the kernel says.
    pub fn response(&mut self) -> io::Result<Response> {
        self.response_to("GET")
    }

    /// Reads one whole response to a request of that method.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends before its end, else what the kernel says.
    pub fn response_to(&mut self, method: &str) -> io::Result<Response> {
        Response::read(&mut self.stream, &mut self.ahead, method)
    }

    /// Reads until the text read since the last response contains `text`; answers all of it.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends before.
    pub fn read_until(&mut self, text: &str) -> io::Result<String> {
        while !String::from_utf8_lossy(&self.ahead).contains(text) {
            response::read_more(&mut self.stream, &mut self.ahead)?;
        }
        Ok(String::from_utf8_lossy(&self.ahead).into_owned())
    }

    /// Everything up to the end of the stream.
    ///
    /// # Errors
    /// When it ends with a reset, or not in time.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut all = std::mem::take(&mut self.ahead);
        self.stream.read_to_end(&mut all)?;
        Ok(all)
    }
}

/// Writes `bytes` in pieces of random sizes up to `most`, each in a segment of its own.
///
/// # Errors
/// When the connection has gone.
pub fn send_in_pieces(stream: &mut impl Write, bytes: &[u8], most: usize, random: &mut Random) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(random.between(1, most.min(rest.len())));
        stream.write_all(piece)?;
        rest = after;
    }
    Ok(())
}
