//! A unix socket that the runtime watches for what can be read, and for room only while a write waits for it.
//!
//! To the kernel a socket pair has room again with everything that is read from it, and whoever watches for that is woken
//! each time. Between a proxy and a worker that would be twice for each request.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

#[cfg(feature = "proxy")]
use rustix::net::RecvFlags;
use rustix::net::Shutdown;
#[cfg(feature = "proxy")]
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sys::receive::receive;
use crate::sys::watch;

/// How much is read at once, at first; twice as much after each read that found so much.
const FIRST_READ: usize = 4 * 1024;

/// How much is read at once at most.
const LARGEST_READ: usize = 64 * 1024;

/// A connected, non-blocking unix socket.
#[derive(Debug)]
pub(crate) struct QuietStream {
    socket: AsyncFd<OwnedFd>,
    /// The same socket while a write waits.
    blocked: Option<AsyncFd<OwnedFd>>,
    next_read: usize,
}

impl QuietStream {
    /// Watches this socket in the present runtime.
    ///
    /// # Errors
    ///
    /// When the runtime does not take it.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = watch::readable(socket)?;
        Ok(Self { socket, blocked: None, next_read: FIRST_READ })
    }

    /// The socket alone, out of the runtime.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.socket.into_inner()
    }

    /// Whether the runtime has heard of anything to read, or of the end: asked without a system call where it has not.
    #[cfg(feature = "proxy")]
    pub(crate) fn has_something(&self) -> bool {
        let looked = self.socket.try_io(Interest::READABLE, |socket| {
            Ok(rustix::net::recv(socket, &mut [0; 1], RecvFlags::DONTWAIT | RecvFlags::PEEK)?)
        });
        !matches!(looked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let length = self.next_read.min(buf.remaining());
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            match receive(ready.get_inner(), buf, length) {
                Ok(read) => {
                    // There was no more: the next read need not find that out. The end is told by another event.
                    if 0 < read && read < length {
                        ready.clear_ready();
                    }
                    self.next_read =
                        if read == length { (length * 2).clamp(FIRST_READ, LARGEST_READ) } else { FIRST_READ };
                    return Poll::Ready(Ok(()));
                }
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            if let Some(blocked) = &self.blocked {
                ready!(blocked.poll_write_ready(cx))?.clear_ready();
            }
            match rustix::io::writev(&self.socket, bufs) {
                Ok(written) => {
                    self.blocked = None;
                    return Poll::Ready(Ok(written));
                }
                Err(rustix::io::Errno::AGAIN) if self.blocked.is_none() => {
                    let same = self.socket.get_ref().try_clone()?;
                    self.blocked = Some(watch::writable(same)?);
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncRead for QuietStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.get_mut().poll_recv(cx, buf)
    }
}

impl AsyncWrite for QuietStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // As many as the system takes at once.
        self.get_mut().poll_send(cx, &bufs[..bufs.len().min(64)])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets hold nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(rustix::net::shutdown(&self.socket, Shutdown::Write).map_err(io::Error::from))
    }
}

impl AsFd for QuietStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

impl AsRawFd for QuietStream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    fn pair() -> (QuietStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (QuietStream::new(ours.into_std().unwrap().into()).unwrap(), theirs)
    }

    /// More than the buffers hold, both ways at once.
    #[tokio::test]
    async fn megabytes_pass_both_ways() {
        let (ours, theirs) = pair();
        let bytes: Vec<u8> = (0..4_000_000_u32).map(|number| number.to_le_bytes()[number as usize % 3]).collect();
        let (mut our_read, mut our_write) = tokio::io::split(ours);
        let (mut read, mut write) = theirs.into_split();
        let sent = bytes.clone();
        let there = tokio::spawn(async move {
            our_write.write_all(&sent).await.unwrap();
            our_write.shutdown().await.unwrap();
        });
        let mut back = Vec::new();
        let echo = tokio::spawn(async move {
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        });
        our_read.read_to_end(&mut back).await.unwrap();
        there.await.unwrap();
        echo.await.unwrap();
        assert!(back == bytes);
    }

    #[tokio::test]
    async fn a_half_close_and_an_end_are_told() {
        let (mut ours, mut theirs) = pair();
        ours.write_all(b"question").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.unwrap();
        theirs.write_all(b"answer").await.unwrap();
        drop(theirs);
        let mut answer = String::new();
        ours.read_to_string(&mut answer).await.unwrap();
        assert_eq!((heard.as_str(), answer.as_str()), ("question", "answer"));
        assert_eq!(ours.write_all(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_comes_while_it_is_read_is_not_missed() {
        let (mut ours, mut theirs) = pair();
        let writer = tokio::spawn(async move {
            for number in 0..1000_u32 {
                theirs.write_all(&number.to_le_bytes()).await.unwrap();
                if number % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        for number in 0..1000_u32 {
            assert_eq!(ours.read_u32_le().await.unwrap(), number);
        }
        writer.await.unwrap();
        assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);
    }
}
