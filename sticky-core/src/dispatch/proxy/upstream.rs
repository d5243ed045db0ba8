//! The way to a slot: a pair of sockets, one end of which goes into the slot's channel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bytes::BytesMut;
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::fault::Fault;
use super::pool::Sender;
use super::wire::{Begins, Wire};
use crate::dispatch::handoff::channel::{self, SendError};
use crate::dispatch::handoff::exchange::{Moving, Standing};
use crate::dispatch::handoff::message::Message;
use crate::id::WorkerId;
use crate::scoreboard::Row;

/// How long until a channel is tried again that was full: its slot has not read for a while.
const SEND_PAUSE: Duration = Duration::from_millis(5);

/// The slots of all workers.
#[derive(Debug)]
pub(super) struct Upstreams {
    channels: Vec<OwnedFd>,
    /// How long a slot that does not read is waited for; none is for ever.
    patience: Option<Duration>,
    row: Row,
}

impl Upstreams {
    pub(super) fn new(channels: Vec<OwnedFd>, patience: Option<Duration>, row: Row) -> Self {
        Self { channels, patience, row }
    }

    /// A new connection to this slot. Whoever reads its channel next takes it up; until then what is sent waits.
    ///
    /// # Errors
    ///
    /// [`Fault::Unavailable`] where nobody reads the channel, and as many as it holds wait there.
    pub(super) async fn connect(&self, slot: WorkerId) -> Result<Sender, Fault> {
        let stream = self.open(slot).await?;
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

    async fn open(&self, slot: WorkerId) -> Result<UnixStream, Fault> {
        let channel = self.channels.get(slot.index()).ok_or(Fault::Unavailable)?;
        let (ours, theirs) = pair().map_err(|error| {
            tracing::warn!(target: "sticky", %error, "no connection to a worker");
            Fault::Unavailable
        })?;
        let moving = Moving { read_ahead: BytesMut::new(), standing: Standing::Used };
        let message = Message { moving, hops: 0, peer: None, is_unix: true };
        let since = Instant::now();
        loop {
            match channel::send(channel.as_fd(), &message, theirs.as_fd()) {
                Ok(()) => {
                    self.row.sent();
                    return UnixStream::from_std(ours.into()).map_err(|_| Fault::Unavailable);
                }
                Err(SendError::Full | SendError::TooManyInFlight) => {}
                Err(SendError::TooLarge | SendError::Gone) => return Err(Fault::Unavailable),
            }
            if self.patience.is_some_and(|patience| since.elapsed() >= patience) {
                return Err(Fault::Unavailable);
            }
            sleep(SEND_PAUSE).await;
        }
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}
