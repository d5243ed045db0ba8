//! The way to a slot: a pair of sockets, one end of which goes into the slot's channel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bytes::BytesMut;
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::direct::Direct;
use super::fault::Fault;
use super::pool::Sender;
use super::wire::{Begins, Wire};
use crate::connection::QuietStream;
use crate::control::Port;
use crate::dispatch::handoff::channel::{self, SendError};
use crate::dispatch::handoff::exchange::{Moving, Standing};
use crate::dispatch::handoff::message::Message;
use crate::id::WorkerId;
use crate::scoreboard::Row;
use crate::worker::{Road, connect_to_port};

/// How long until a channel is tried again that was full: its slot has not read for a while.
const SEND_PAUSE: Duration = Duration::from_millis(5);

/// How long until a port is tried again on which nobody listens: its worker has ended, or is about to say another.
const DIAL_PAUSE: Duration = Duration::from_millis(20);

/// How much longer than `failover` says a worker is waited for: the word that it is out has to come round first.
const WORD_TIME: Duration = Duration::from_secs(1);

/// The slots of all workers.
#[derive(Debug)]
pub(super) struct Upstreams {
    channels: Vec<OwnedFd>,
    /// Where workers listen, if they do so themselves.
    ports: Option<watch::Receiver<Vec<Port>>>,
    rows: Vec<Row>,
    /// How long a slot that does not read is waited for; none is for ever.
    patience: Option<Duration>,
    row: Row,
}

impl Upstreams {
    pub(super) fn new(road: Road, patience: Option<Duration>, row: Row) -> Self {
        let Road { channels, ports, rows, .. } = road;
        Self { channels, ports, rows, patience: patience.map(|patience| patience + WORD_TIME), row }
    }

    /// Whether workers listen by themselves: nothing is known of what they do with a connection.
    pub(super) fn are_ports(&self) -> bool {
        self.ports.is_some()
    }

    /// The port of a slot's worker, where it listens by itself.
    pub(super) fn port(&self, slot: WorkerId) -> Option<u16> {
        self.at(slot).map(|port| port.port)
    }

    fn at(&self, slot: WorkerId) -> Option<Port> {
        self.ports.as_ref().and_then(|ports| ports.borrow().iter().find(|port| port.slot == slot).copied())
    }

    /// Notes in a worker's own row that something is under way to it: it waits for that before it ends.
    pub(super) fn announce(&self, slot: WorkerId) -> Option<Announced> {
        let row = self.rows.get(self.at(slot)?.seat)?.clone();
        row.reserve();
        Some(Announced(row))
    }

    /// A new connection to this slot. Whoever reads its channel next takes it up; until then what is sent waits. Where a
    /// worker listens by itself it is waited for, as long as it is not `out`.
    ///
    /// # Errors
    ///
    /// [`Fault::Unavailable`] where nobody reads the channel, and as many as it holds wait there, or nobody listens.
    pub(super) async fn connect(&self, slot: WorkerId, is_out: impl Fn() -> bool) -> Result<Sender, Fault> {
        match &self.ports {
            Some(ports) => self.begin(self.dial(ports.clone(), slot, is_out).await?).await,
            None => self.begin(self.open(slot).await?).await,
        }
    }

    /// The same, for whoever reads and writes it himself.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`].
    pub(super) async fn connect_directly(&self, slot: WorkerId, is_out: impl Fn() -> bool) -> Result<Direct, Fault> {
        let stream = match &self.ports {
            Some(ports) => {
                let stream = self.dial(ports.clone(), slot, is_out).await?.into_std();
                stream.and_then(|stream| QuietStream::new(stream.into())).map_err(|_| Fault::Unavailable)?
            }
            None => self.open(slot).await?,
        };
        Ok(Direct::new(stream))
    }

    /// The same, where that needs no waiting: not where a worker listens by itself.
    pub(super) fn connect_at_once(&self, slot: WorkerId) -> Option<Direct> {
        if self.are_ports() {
            return None;
        }
        let (ours, theirs) = pair().ok()?;
        self.offer(slot, &theirs).ok()?;
        QuietStream::new(ours).ok().map(Direct::new)
    }

    async fn dial(
        &self,
        mut ports: watch::Receiver<Vec<Port>>,
        slot: WorkerId,
        is_out: impl Fn() -> bool,
    ) -> Result<TcpStream, Fault> {
        let since = Instant::now();
        loop {
            ports.mark_unchanged();
            if let Some(port) = self.port(slot)
                && let Ok(stream) = connect_to_port(port).await
            {
                // Small answers must not wait for more.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            if is_out() || self.patience.is_some_and(|patience| since.elapsed() >= patience) {
                return Err(Fault::Unavailable);
            }
            tokio::select! {
                _ = ports.changed() => {}
                () = sleep(DIAL_PAUSE) => {}
            }
        }
    }

    async fn begin<S>(&self, stream: S) -> Result<Sender, Fault>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let begins = Begins::default();
        let wire = TokioIo::new(Wire::new(stream, begins.clone()));
        let (requests, connection) = Builder::new().handshake(wire).await.map_err(|_| Fault::BrokenOff)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(target: "sticky", %error, "a connection to a worker ended early");
            }
        });
        Ok(Sender::new(requests, begins))
    }

    async fn open(&self, slot: WorkerId) -> Result<QuietStream, Fault> {
        let (ours, theirs) = pair().map_err(|error| {
            tracing::warn!(target: "sticky", %error, "no connection to a worker");
            Fault::Unavailable
        })?;
        let since = Instant::now();
        loop {
            match self.offer(slot, &theirs) {
                Ok(()) => return QuietStream::new(ours).map_err(|_| Fault::Unavailable),
                Err(SendError::Full | SendError::TooManyInFlight) => {}
                Err(SendError::TooLarge | SendError::Gone) => return Err(Fault::Unavailable),
            }
            if self.patience.is_some_and(|patience| since.elapsed() >= patience) {
                return Err(Fault::Unavailable);
            }
            sleep(SEND_PAUSE).await;
        }
    }

    /// Sends one end of a pair into the slot's channel.
    fn offer(&self, slot: WorkerId, end: &OwnedFd) -> Result<(), SendError> {
        let channel = self.channels.get(slot.index()).ok_or(SendError::Gone)?;
        let moving = Moving { read_ahead: BytesMut::new(), standing: Standing::Used };
        let message = Message { moving, hops: 0, peer: None, is_unix: true };
        channel::send(channel.as_fd(), &message, end.as_fd())?;
        self.row.sent();
        Ok(())
    }
}

/// Something is under way to a worker, until this is dropped.
#[derive(Debug)]
pub(super) struct Announced(Row);

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.arrive();
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}
