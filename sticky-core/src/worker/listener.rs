//! A listener in the hands of a worker: registered with its runtime, accepted from, emptied.

use std::io;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

use crate::connection::Stream;
#[cfg(cluster)]
use crate::listener;

/// A listener that has been bound and not yet registered with a runtime.
#[derive(Debug)]
pub(crate) enum BoundListener {
    /// A TCP listener, non-blocking.
    Tcp(std::net::TcpListener),
    /// A unix listener, non-blocking.
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

/// A listener as it is lent to a worker.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(crate) listener: BoundListener,
    /// Whether every connection in it should belong to its slot.
    pub(crate) placed: bool,
}

/// A listener registered with this worker's runtime.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listener {
    pub(super) fn register(bound: BoundListener) -> io::Result<Self> {
        Ok(match bound {
            BoundListener::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            #[cfg(unix)]
            BoundListener::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, peer)| Stream::tcp(stream, peer)),
            #[cfg(unix)]
            Self::Unix(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| Stream::unix(stream)),
        }
    }

    /// Lets nothing new into the kernel's queue.
    pub(super) fn quiesce(&self) -> io::Result<()> {
        match self {
            #[cfg(cluster)]
            Self::Tcp(tcp) => listener::quiesce(tcp),
            _ => Ok(()),
        }
    }

    /// Accepts from the kernel's queue itself: what tokio has not been told of yet counts too. After
    /// [`quiesce`](Self::quiesce).
    pub(super) fn accept_queued(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(tcp) => {
                let (socket, peer) = SockRef::from(tcp).accept()?;
                #[cfg(cluster)]
                listener::admit(&socket)?;
                socket.set_nonblocking(true)?;
                // Not asked of the connection: one that was reset in the queue has no peer any more.
                let peer = peer.as_socket().ok_or(io::ErrorKind::ConnectionAborted)?;
                Ok(Stream::tcp(TcpStream::from_std(socket.into())?, peer))
            }
            #[cfg(unix)]
            Self::Unix(listener) => {
                let (socket, _) = SockRef::from(listener).accept()?;
                socket.set_nonblocking(true)?;
                Ok(Stream::unix(UnixStream::from_std(socket.into())?))
            }
        }
    }
}
