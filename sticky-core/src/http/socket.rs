//! The socket as hyper sees it: notes what passes, and ends a connection whose request head takes too long.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::berth::Berth;
use crate::connection::Connection;

/// What a client gets that does not finish its request head.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is read at first: a request head and, mostly, all of the request.
const FIRST_READ: usize = 4096;

/// A connection under watch. It travels with an upgraded connection, and so do its counts.
pub(crate) struct Socket<S> {
    /// None while the berth is vacant.
    connection: Option<Connection>,
    /// Where the next connection comes from when this one has gone.
    berth: Option<Arc<Berth<S>>>,
    activity: Arc<Activity>,
    protocol: Protocol,
    /// The last write found no room: a response is on its way.
    is_blocked: bool,
    is_marked: bool,
    has_ended: bool,
    /// The client has closed its side, and everything it sent has been read.
    has_peer_ended: bool,
    /// What the first read brought beyond what was asked for.
    ahead: Vec<u8>,
}

/// What the client's first bytes say it speaks.
#[derive(Debug, PartialEq, Eq)]
enum Protocol {
    /// So many bytes of the HTTP/2 preface have come, and nothing else.
    Unknown(usize),
    Known,
}

impl<S> Socket<S> {
    pub(crate) fn new(connection: Connection, activity: Arc<Activity>, berth: Option<Arc<Berth<S>>>) -> Self {
        Self {
            connection: Some(connection),
            berth,
            activity,
            protocol: Protocol::Unknown(0),
            is_blocked: false,
            is_marked: false,
            has_ended: false,
            has_peer_ended: false,
            ahead: Vec::new(),
        }
    }

    /// hyper asks for the 24 bytes that tell HTTP/2 from HTTP/1; reading more than that saves a system call for each
    /// connection.
    fn poll_first_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::uninit(); FIRST_READ];
        let mut first = ReadBuf::uninit(&mut space);
        ready!(self.poll_connection(cx, &mut first))?;
        self.note_read(first.filled());
        self.ahead = first.filled().to_vec();
        self.take_ahead(buf);
        Poll::Ready(Ok(()))
    }

    /// Reads from whoever is here.
    fn poll_connection(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let connection = match (&mut self.connection, &self.berth) {
                (Some(connection), _) => connection,
                (none, Some(berth)) => none.insert(ready!(berth.poll_arrival(cx.waker()))),
                (None, None) => return Poll::Ready(Ok(())),
            };
            let before = buf.filled().len();
            let read = Pin::new(&mut *connection).poll_read(cx, buf);
            self.activity.passes(connection.is_busy());
            let read = read?;
            if read.is_pending() && connection.is_within_head() {
                // It is not between requests, although nothing of this one can be read yet.
                self.activity.read();
            }
            ready!(read);
            if buf.filled().len() > before || !self.vacate(cx) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// After the end of a connection: whether another may come.
    fn vacate(&mut self, cx: &Context<'_>) -> bool {
        let has_left = self.connection.as_ref().is_some_and(Connection::has_left_off);
        let is_vacant = has_left && self.berth.as_ref().is_some_and(|berth| berth.vacate(cx.waker()));
        if is_vacant {
            // It goes to its worker now, or is closed.
            self.connection = None;
            self.activity.vacated();
        }
        is_vacant
    }

    fn take_ahead(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..length]);
        self.ahead.drain(..length);
        if self.ahead.is_empty() {
            // Gives the memory back, too.
            self.ahead = Vec::new();
        }
    }

    /// Takes note of what has come; nothing is the end.
    fn note_read(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.has_peer_ended = true;
            return;
        }
        self.activity.read();
        if let Protocol::Unknown(seen) = self.protocol {
            self.protocol = match PREFACE[seen..].iter().zip(bytes).take_while(|(a, b)| a == b).count() {
                same if seen + same == PREFACE.len() => {
                    self.activity.http2();
                    Protocol::Known
                }
                same if same == bytes.len() => Protocol::Unknown(seen + same),
                _ => Protocol::Known,
            };
        }
    }

    fn note_write(&mut self, written: &Poll<io::Result<usize>>) {
        self.is_blocked = written.is_pending();
        if let Poll::Ready(Ok(1..)) = written {
            self.activity.written();
        }
        if !self.is_marked && self.activity.is_tunnel() {
            self.is_marked = true;
            // Nobody comes after a tunnel.
            self.berth = None;
            if let Some(connection) = &mut self.connection {
                connection.mark_upgraded();
            }
        }
    }

    /// Tells the client that it was too slow, unless that would end up inside of a response.
    fn end(&mut self, cx: &mut Context<'_>) {
        if self.has_ended {
            return;
        }
        self.has_ended = true;
        let Some(connection) = &mut self.connection else { return };
        if !self.is_blocked {
            // With nothing outstanding there is room for it; if not, the client learns from the end alone.
            let _ = Pin::new(&mut *connection).poll_write(cx, REQUEST_TIMEOUT);
        }
        let _ = Pin::new(connection).poll_shutdown(cx);
    }

    /// What is written to.
    ///
    /// # Errors
    ///
    /// When nobody is there, to whom nothing is owed either.
    fn connection(&mut self) -> io::Result<Pin<&mut Connection>> {
        self.connection.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl<S> Drop for Socket<S> {
    fn drop(&mut self) {
        if let Some(berth) = &self.berth {
            berth.close();
        }
    }
}

impl<S> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.activity.is_late() {
            self.end(cx);
            return Poll::Ready(Ok(()));
        }
        if !self.ahead.is_empty() {
            self.take_ahead(buf);
            return Poll::Ready(Ok(()));
        }
        if self.protocol == Protocol::Unknown(0) {
            return self.poll_first_read(cx, buf);
        }
        let before = buf.filled().len();
        ready!(self.poll_connection(cx, buf))?;
        self.note_read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.connection()?.poll_write(cx, buf);
        self.note_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.connection()?.poll_write_vectored(cx, bufs);
        self.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.as_ref().is_none_or(Connection::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection().map_or(Poll::Ready(Ok(())), |connection| connection.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_peer_ended && !self.activity.is_tunnel() {
            // hyper drops the socket next, and closing it says the same as a shutdown: with nothing left to read that
            // is a clean end, not a reset. A tunnel may live on half closed.
            return Poll::Ready(Ok(()));
        }
        self.connection().map_or(Poll::Ready(Ok(())), |connection| connection.poll_shutdown(cx))
    }
}
