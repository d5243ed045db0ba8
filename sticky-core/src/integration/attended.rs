//! The socket as a framework sees it: notes what passes, and ends a connection whose time is up.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::attendance::{Attendance, Notice};
use super::goaway::{Frames, GOAWAY};
use crate::connection::Connection;
use crate::worker::{Answer, Worker};

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is read at first: a request head and, mostly, all of the request.
const FIRST_READ: usize = 4096;

/// What a client speaks, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1, or something that its parser will refuse.
    Http1,
    /// HTTP/2 in clear text, with prior knowledge.
    Http2,
}

/// A connection under attendance: what a framework takes for a socket. It travels with an upgraded connection, and so do
/// its counts.
#[derive(Debug)]
pub struct Attended {
    connection: Connection,
    attendance: Attendance,
    /// What was read to tell the protocol.
    ahead: Vec<u8>,
    /// The last write found no room: a response is on its way.
    is_blocked: bool,
    is_marked: bool,
    has_ended: bool,
    /// The client has closed its side, and everything it sent has been read.
    has_peer_ended: bool,
    /// Over HTTP/2.
    notice: Option<Box<GoingAway>>,
}

/// Where the notice of the end goes, and what of it is on its way.
#[derive(Debug, Default)]
struct GoingAway {
    frames: Frames,
    has_begun: bool,
    unsent: &'static [u8],
}

impl Attended {
    /// Takes care of this connection, which `worker` has accepted.
    pub fn new(connection: Connection, worker: &Worker) -> Self {
        Self {
            attendance: Attendance::new(&connection, worker),
            connection,
            ahead: Vec::new(),
            is_blocked: false,
            is_marked: false,
            has_ended: false,
            has_peer_ended: false,
            notice: None,
        }
    }

    /// Who attends.
    pub fn attendance(&self) -> &Attendance {
        &self.attendance
    }

    /// What the client speaks, as soon as that can be told; `None` when it says nothing before the connection ends.
    ///
    /// # Errors
    ///
    /// What the system says of the socket.
    pub async fn protocol(&mut self) -> io::Result<Option<Protocol>> {
        let protocol = match self.connection.is_guarded() {
            // Its first head has been read.
            true if self.connection.minds_messages() => Some(Protocol::Http1),
            true => Some(Protocol::Http2),
            false => poll_fn(|cx| self.poll_protocol(cx)).await?,
        };
        if protocol == Some(Protocol::Http2) {
            self.attendance.http2();
            self.notice = Some(Box::default());
        }
        Ok(protocol)
    }

    fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Protocol>>> {
        loop {
            if self.attendance.notice() >= Notice::End {
                self.end(cx);
                return Poll::Ready(Ok(None));
            }
            let mut space = [MaybeUninit::uninit(); FIRST_READ];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.connection).poll_read(cx, &mut read))?;
            self.note_read(read.filled());
            self.ahead.extend_from_slice(read.filled());
            match PREFACE.iter().zip(&self.ahead).take_while(|(expected, read)| expected == read).count() {
                0 if self.ahead.is_empty() => return Poll::Ready(Ok(None)),
                same if same == PREFACE.len() => return Poll::Ready(Ok(Some(Protocol::Http2))),
                same if same == self.ahead.len() && !self.has_peer_ended => {}
                _ => return Poll::Ready(Ok(Some(Protocol::Http1))),
            }
        }
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
        } else {
            self.attendance.read();
        }
    }

    /// Takes note of what is there although nothing can be read.
    fn note_pending(&self) {
        if self.connection.is_within_head() {
            // It is not between requests.
            self.attendance.read();
        }
        self.attendance.set_has_said_all(self.connection.has_said_all());
    }

    fn note_write(&mut self, written: &Poll<io::Result<usize>>) {
        self.is_blocked = written.is_pending();
        if let Poll::Ready(Ok(1..)) = written {
            self.attendance.written();
        }
        if !self.is_marked && self.attendance.is_tunnel() {
            self.is_marked = true;
            self.connection.mark_upgraded();
        }
    }

    /// Tells a client that was too slow, unless that would end up inside of a response.
    fn end(&mut self, cx: &mut Context<'_>) {
        if self.has_ended || self.attendance.notice() != Notice::Late {
            return;
        }
        self.has_ended = true;
        if !self.is_blocked {
            // With nothing outstanding there is room for it; if not, the client learns from the end alone.
            let _ = Pin::new(&mut self.connection).poll_write(cx, Answer::RequestTimeout.bytes());
        }
        let _ = Pin::new(&mut self.connection).poll_shutdown(cx);
    }

    /// Sends what the client is to know before its connection ends, where a frame may stand.
    fn poll_notice(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(notice) = &mut self.notice else { return Poll::Ready(Ok(())) };
        if !notice.has_begun && self.attendance.notice() >= Notice::GoAway && notice.frames.is_between() {
            notice.has_begun = true;
            notice.unsent = GOAWAY;
        }
        while !notice.unsent.is_empty() {
            match ready!(Pin::new(&mut self.connection).poll_write(cx, notice.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => notice.unsent = &notice.unsent[length..],
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Attended {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.attendance.notice() != Notice::Nothing {
            // Who cannot be told reads the end all the same.
            let _ = self.poll_notice(cx);
        }
        if self.attendance.notice() >= Notice::End {
            self.end(cx);
            return Poll::Ready(Ok(()));
        }
        if !self.ahead.is_empty() {
            self.take_ahead(buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.connection).poll_read(cx, buf)?;
        if read.is_pending() && self.connection.is_guarded() {
            self.note_pending();
        }
        ready!(read);
        self.note_read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Attended {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_notice(cx))?;
        let written = match bufs {
            [buf] => Pin::new(&mut self.connection).poll_write(cx, buf),
            bufs => Pin::new(&mut self.connection).poll_write_vectored(cx, bufs),
        };
        self.note_write(&written);
        if let (Some(notice), Poll::Ready(Ok(length))) = (&mut self.notice, &written) {
            let mut left = *length;
            for buf in bufs {
                let accepted = left.min(buf.len());
                notice.frames.wrote(&buf[..accepted]);
                left -= accepted;
            }
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_notice(cx))?;
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_peer_ended && !self.attendance.is_tunnel() {
            // The socket is dropped next, and closing it says the same as a shutdown: with nothing left to read that is a
            // clean end, not a reset. A tunnel may live on half closed.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}
