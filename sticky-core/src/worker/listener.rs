//! A listener in the hands of a worker: registered with its runtime, accepted from, emptied.

use std::io;
#[cfg(cluster)]
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use socket2::SockRef;
#[cfg(cluster)]
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

use crate::connection::Stream;
#[cfg(cluster)]
use crate::dispatch::handoff::{
    channel::{Loss, Received, Receiver},
    message::Message,
};
#[cfg(cluster)]
use crate::listener;
#[cfg(cluster)]
use crate::sys::watch;

/// A listener that has been bound and not yet registered with a runtime.
#[derive(Debug)]
pub(crate) enum BoundListener {
    /// A TCP listener, non-blocking.
    Tcp(std::net::TcpListener),
    /// A unix listener, non-blocking.
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
    /// The receiving end of a slot's channel, non-blocking.
    #[cfg(cluster)]
    Channel(OwnedFd),
}

/// A listener as it is lent to a worker.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(crate) listener: BoundListener,
    /// Whether every connection in it should belong to its slot.
    pub(crate) placed: bool,
    /// Whether others listen on when this cluster has ended: what is in its queue then waits for the next start.
    pub(crate) kept: bool,
}

impl From<BoundListener> for Lent {
    /// One that all share.
    fn from(listener: BoundListener) -> Self {
        Self { listener, placed: false, kept: false }
    }
}

/// A listener registered with this worker's runtime.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
    #[cfg(cluster)]
    Channel(Box<Inbox>),
}

/// What comes out of a listener.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A connection that a client has begun.
    New(Stream),
    /// A connection that another worker has sent.
    #[cfg(cluster)]
    Moved(OwnedFd, Message),
    /// A connection that another worker has sent is lost: it is closed.
    #[cfg(cluster)]
    Lost(Loss),
}

impl Listener {
    pub(super) fn register(bound: BoundListener) -> io::Result<Self> {
        Ok(match bound {
            BoundListener::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            #[cfg(unix)]
            BoundListener::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
            #[cfg(cluster)]
            BoundListener::Channel(socket) => Self::Channel(Box::new(Inbox::new(socket)?)),
        })
    }

    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arrival>> {
        match self {
            Self::Tcp(listener) => {
                listener.poll_accept(cx).map_ok(|(stream, peer)| Arrival::New(Stream::tcp(stream, peer)))
            }
            #[cfg(unix)]
            Self::Unix(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| Arrival::New(Stream::unix(stream))),
            #[cfg(cluster)]
            Self::Channel(inbox) => inbox.poll_receive(cx),
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
    pub(super) fn accept_queued(&mut self) -> io::Result<Arrival> {
        match self {
            Self::Tcp(tcp) => {
                let (socket, peer) = SockRef::from(&*tcp).accept()?;
                #[cfg(cluster)]
                listener::admit(&socket)?;
                socket.set_nonblocking(true)?;
                // Not asked of the connection: one that was reset in the queue has no peer any more.
                let peer = peer.as_socket().ok_or(io::ErrorKind::ConnectionAborted)?;
                Ok(Arrival::New(Stream::tcp(TcpStream::from_std(socket.into())?, peer)))
            }
            #[cfg(unix)]
            Self::Unix(listener) => {
                let (socket, _) = SockRef::from(&*listener).accept()?;
                socket.set_nonblocking(true)?;
                Ok(Arrival::New(Stream::unix(UnixStream::from_std(socket.into())?)))
            }
            #[cfg(cluster)]
            Self::Channel(inbox) => inbox.receive(),
        }
    }
}

/// A slot's channel in the hands of its reader.
#[cfg(cluster)]
#[derive(Debug)]
pub(super) struct Inbox {
    /// Tells when there is something to receive.
    readable: AsyncFd<OwnedFd>,
    receiver: Receiver,
}

#[cfg(cluster)]
impl Inbox {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { readable: watch::readable(socket)?, receiver: Receiver::new() })
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arrival>> {
        loop {
            let mut ready = std::task::ready!(self.readable.poll_read_ready(cx))?;
            match arrival(self.receiver.receive(self.readable.get_ref().as_fd())?) {
                Some(arrival) => return Poll::Ready(Ok(arrival)),
                None => ready.clear_ready(),
            }
        }
    }

    fn receive(&mut self) -> io::Result<Arrival> {
        arrival(self.receiver.receive(self.readable.get_ref().as_fd())?).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }
}

#[cfg(cluster)]
fn arrival(received: Received) -> Option<Arrival> {
    match received {
        Received::Connection(socket, message) => Some(Arrival::Moved(socket, message)),
        Received::Lost(loss) => Some(Arrival::Lost(loss)),
        Received::Nothing => None,
    }
}
