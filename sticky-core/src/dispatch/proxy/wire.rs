//! A connection to a worker, as hyper sees it: what a worker has said counts, also when it hears no more.
//!
//! A worker may answer before it has read a request to the end, and close. Who then learns from a failing write that the
//! connection is broken must not throw away the answer, which is there to be read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose writes go nowhere once the other side has closed.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    /// The other side takes nothing any more.
    is_deaf: bool,
    /// Something has come since the request under way began to be written.
    has_heard: bool,
    begins: Begins,
}

/// Says that a request begins, to the wire that it will be written to.
#[derive(Clone, Debug, Default)]
pub(super) struct Begins(Arc<AtomicBool>);

impl Begins {
    /// What is written next is a new request.
    pub(super) fn set(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether a request begins, once.
    fn take(&self) -> bool {
        self.0.load(Relaxed) && self.0.swap(false, Relaxed)
    }
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, begins: Begins) -> Self {
        Self { stream, is_deaf: false, has_heard: false, begins }
    }

    /// What a write came to; all of `length` bytes are taken where nobody is there to read them.
    fn written(&mut self, written: io::Result<usize>, length: usize) -> io::Result<usize> {
        if self.begins.take() {
            self.has_heard = false;
        }
        match written {
            Err(error) if is_closed(&error) => {
                self.is_deaf = true;
                Ok(length)
            }
            written => written,
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    /// The end of one who did not take all of a request, and said nothing, is told as that: it has not seen it.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let is_end = buf.filled().len() == before && buf.remaining() > 0;
        if is_end && self.is_deaf && !self.has_heard {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.has_heard |= !is_end;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(self.written(written, buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.is_deaf {
            return Poll::Ready(Ok(length));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(self.written(written, length))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    /// A wire, and its other side, which has not read `unread`.
    async fn with_unread(unread: &[u8]) -> (Wire<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(ours, Begins::default());
        wire.write_all(unread).await.unwrap();
        (wire, theirs)
    }

    #[tokio::test]
    async fn an_answer_counts_although_the_rest_of_the_request_is_not_read() {
        let (mut wire, mut worker) = with_unread(b"POST").await;
        worker.write_all(b"404").await.unwrap();
        drop(worker);
        wire.write_all(&[0; 100_000]).await.unwrap();
        let mut answer = [0; 3];
        wire.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"404");
    }

    #[tokio::test]
    async fn who_has_not_read_a_request_has_not_seen_it() {
        let (mut wire, worker) = with_unread(b"GET").await;
        drop(worker);
        assert_eq!(wire.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let (mut wire, worker) = with_unread(b"").await;
        drop(worker);
        wire.write_all(b"GET").await.unwrap();
        assert_eq!(wire.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn what_was_said_before_is_no_answer() {
        let (mut wire, mut worker) = with_unread(b"GET").await;
        worker.read_exact(&mut [0; 3]).await.unwrap();
        worker.write_all(b"200").await.unwrap();
        wire.read_exact(&mut [0; 3]).await.unwrap();
        drop(worker);
        wire.begins.set();
        wire.write_all(b"GET").await.unwrap();
        assert_eq!(wire.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn who_has_read_it_may_have_executed_it() {
        let (mut wire, mut worker) = with_unread(b"GET").await;
        worker.read_exact(&mut [0; 3]).await.unwrap();
        drop(worker);
        assert_eq!(wire.read(&mut [0]).await.unwrap(), 0);
    }
}
