//! The socket as hyper sees it: notes what passes, and ends a connection whose request head takes too long.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use crate::connection::Connection;

/// What a client gets that does not finish its request head.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection under watch. It travels with an upgraded connection, and so do its counts.
pub(crate) struct Socket {
    connection: Connection,
    activity: Arc<Activity>,
    protocol: Protocol,
    /// The last write found no room: a response is on its way.
    is_blocked: bool,
    is_marked: bool,
    has_ended: bool,
}

/// What the client's first bytes say it speaks.
#[derive(Debug, PartialEq, Eq)]
enum Protocol {
    /// So many bytes of the HTTP/2 preface have come, and nothing else.
    Unknown(usize),
    Known,
}

impl Socket {
    pub(crate) fn new(connection: Connection, activity: Arc<Activity>) -> Self {
        Self {
            connection,
            activity,
            protocol: Protocol::Unknown(0),
            is_blocked: false,
            is_marked: false,
            has_ended: false,
        }
    }

    fn note_read(&mut self, bytes: &[u8]) {
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
            self.connection.mark_upgraded();
        }
    }

    /// Tells the client that it was too slow, unless that would end up inside of a response.
    fn end(&mut self, cx: &mut Context<'_>) {
        if self.has_ended {
            return;
        }
        self.has_ended = true;
        if !self.is_blocked {
            // With nothing outstanding there is room for it; if not, the client learns from the end alone.
            let _ = Pin::new(&mut self.connection).poll_write(cx, REQUEST_TIMEOUT);
        }
        let _ = Pin::new(&mut self.connection).poll_shutdown(cx);
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.activity.is_late() {
            self.end(cx);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.connection).poll_read(cx, buf))?;
        let bytes = &buf.filled()[before..];
        if !bytes.is_empty() {
            self.note_read(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write(cx, buf);
        self.note_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write_vectored(cx, bufs);
        self.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}
