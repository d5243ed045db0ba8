//! A socket that was accepted here, or by another worker.

use std::io::{self, IoSlice};
#[cfg(cluster)]
use std::mem::MaybeUninit;
use std::net::SocketAddr;
#[cfg(cluster)]
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
#[cfg(cluster)]
use std::task::ready;
use std::task::{Context, Poll};

#[cfg(cluster)]
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

#[cfg(cluster)]
use super::quiet::QuietStream;
#[cfg(cluster)]
use crate::sys::receive::receive;

/// A socket that was accepted, and who is at its other end.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    peer: Option<SocketAddr>,
    /// What is worth a try before the runtime has been told that it can work.
    eager: Eager,
}

/// A socket that is new to the runtime. Waiting for its first event takes another turn of the event loop, although most
/// often a new connection has its request already, and one that has moved can be answered at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Eager {
    ToRead,
    ToWrite,
    Not,
}

/// What is written with one copy more and a simpler system call: most answers.
#[cfg(cluster)]
const SMALL: usize = 1024;

/// How much is read eagerly: most requests.
#[cfg(cluster)]
const EAGER_READ: usize = 2048;

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    /// One that another process has had: mostly one end of a pair, the other of which is a proxy's.
    #[cfg(cluster)]
    Quiet(QuietStream),
}

impl Stream {
    /// A connection from `peer`.
    pub(crate) fn tcp(stream: TcpStream, peer: SocketAddr) -> Self {
        Self { socket: Socket::Tcp(stream), peer: Some(canonical(peer)), eager: Eager::ToRead }
    }

    /// A connection from this machine.
    #[cfg(unix)]
    pub(crate) fn unix(stream: UnixStream) -> Self {
        Self { socket: Socket::Unix(stream), peer: None, eager: Eager::ToRead }
    }

    /// A socket that another process has had.
    ///
    /// # Errors
    ///
    /// When this process's runtime does not take it.
    #[cfg(cluster)]
    pub(crate) fn from_fd(socket: OwnedFd, is_unix: bool, peer: Option<SocketAddr>) -> io::Result<Self> {
        // Whatever that process has left: one that blocks would hold up everybody's, and the runtime panics in debug builds.
        rustix::io::ioctl_fionbio(&socket, true)?;
        let socket = if is_unix {
            Socket::Quiet(QuietStream::new(socket)?)
        } else {
            Socket::Tcp(TcpStream::from_std(socket.into())?)
        };
        Ok(Self { socket, peer, eager: Eager::ToWrite })
    }

    /// The same socket in the runtime that this is called in.
    ///
    /// # Errors
    ///
    /// When one runtime does not let go of it, or the other does not take it.
    pub(super) fn into_this_runtime(self) -> io::Result<Self> {
        let socket = match self.socket {
            Socket::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream.into_std()?)?),
            #[cfg(unix)]
            Socket::Unix(stream) => Socket::Unix(UnixStream::from_std(stream.into_std()?)?),
            #[cfg(cluster)]
            Socket::Quiet(stream) => Socket::Quiet(QuietStream::new(stream.into_fd())?),
        };
        // What has been read from is written to next.
        let eager = if self.eager == Eager::ToRead { Eager::ToRead } else { Eager::ToWrite };
        Ok(Self { socket, peer: self.peer, eager })
    }

    /// The socket alone, out of the runtime: no event of it arrives here any more.
    ///
    /// # Errors
    ///
    /// When the runtime cannot let go of it.
    #[cfg(cluster)]
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(match self.socket {
            Socket::Tcp(stream) => stream.into_std()?.into(),
            Socket::Unix(stream) => stream.into_std()?.into(),
            Socket::Quiet(stream) => stream.into_fd(),
        })
    }

    /// Reads without waiting for the runtime, if that is worth a try: the number of bytes.
    #[cfg(cluster)]
    fn read_eagerly(&mut self, buf: &mut ReadBuf<'_>) -> Option<usize> {
        if self.eager != Eager::ToRead || buf.remaining() == 0 {
            return None;
        }
        self.eager = Eager::Not;
        // An error, or the client's end, will come again in the usual way.
        receive(&self.socket, buf, EAGER_READ).ok().filter(|length| *length > 0)
    }

    /// Writes without waiting for the runtime, if that is worth a try: the number of bytes.
    #[cfg(cluster)]
    fn write_eagerly(&mut self, bufs: &[IoSlice<'_>]) -> Option<usize> {
        if std::mem::replace(&mut self.eager, Eager::Not) != Eager::ToWrite {
            return None;
        }
        let written = if is_small(bufs) { send(&self.socket, bufs) } else { rustix::io::writev(&self.socket, bufs) };
        // An error will come again in the usual way.
        written.ok().filter(|length| *length > 0)
    }

    /// Whether this is a unix socket.
    #[cfg(cluster)]
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.socket, Socket::Unix(_) | Socket::Quiet(_))
    }

    /// The other side's address, an IPv4-mapped one as IPv4; `None` on a unix socket.
    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Counts this as the other side's address: a proxy says that it speaks for it.
    pub(crate) fn set_peer(&mut self, peer: SocketAddr) {
        self.peer = Some(canonical(peer));
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(stream) => stream.local_addr().ok().map(canonical),
            #[cfg(unix)]
            Socket::Unix(_) => None,
            #[cfg(cluster)]
            Socket::Quiet(_) => None,
        }
    }
}

/// Whether these are few bytes altogether, but not none.
#[cfg(cluster)]
fn is_small(bufs: &[IoSlice<'_>]) -> bool {
    (1..=SMALL).contains(&bufs.iter().map(|buf| buf.len()).sum())
}

/// Writes little in one piece, without waiting: for the kernel several pieces are more work than another copy (5 % of an
/// answer).
///
/// # Panics
///
/// When it is not [small](is_small).
#[cfg(cluster)]
fn send(socket: impl AsFd, bufs: &[IoSlice<'_>]) -> rustix::io::Result<usize> {
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    if let [buf] = bufs {
        return rustix::net::send(socket, buf, flags);
    }
    let mut space = [MaybeUninit::uninit(); SMALL];
    let mut all = ReadBuf::uninit(&mut space);
    bufs.iter().for_each(|buf| all.put_slice(buf));
    rustix::net::send(socket, all.filled(), flags)
}

/// As [`send`], when the runtime knows that there is room.
#[cfg(cluster)]
fn poll_send(stream: &TcpStream, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_io(Interest::WRITABLE, || Ok(send(stream, bufs)?)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return Poll::Ready(sent),
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        #[cfg(cluster)]
        if stream.read_eagerly(buf).is_some() {
            return Poll::Ready(Ok(()));
        }
        match &mut stream.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(unix)]
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(cluster)]
            Socket::Quiet(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        #[cfg(cluster)]
        if let Some(length) = stream.write_eagerly(&[IoSlice::new(buf)]) {
            return Poll::Ready(Ok(length));
        }
        match &mut stream.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(unix)]
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(cluster)]
            Socket::Quiet(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        #[cfg(cluster)]
        if let Some(length) = stream.write_eagerly(bufs) {
            return Poll::Ready(Ok(length));
        }
        match &mut stream.socket {
            #[cfg(cluster)]
            Socket::Tcp(stream) if is_small(bufs) => poll_send(stream, cx, bufs),
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            #[cfg(unix)]
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            #[cfg(cluster)]
            Socket::Quiet(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets hold nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(cluster)]
            Socket::Quiet(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(cluster)]
impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Quiet(stream) => stream.as_fd(),
        }
    }
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for Stream {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        match &self.socket {
            Socket::Tcp(stream) => stream.as_raw_fd(),
            Socket::Unix(stream) => stream.as_raw_fd(),
            #[cfg(cluster)]
            Socket::Quiet(stream) => stream.as_raw_fd(),
        }
    }
}

#[cfg(windows)]
impl std::os::windows::io::AsRawSocket for Stream {
    fn as_raw_socket(&self) -> std::os::windows::io::RawSocket {
        match &self.socket {
            Socket::Tcp(stream) => stream.as_raw_socket(),
        }
    }
}
