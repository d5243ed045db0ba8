//! Reads from one peer and writes to it, until it ends.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::assembly::{Assembly, Violation};
use super::frame::{Frame, MAX_FRAME, Malformed};
use super::hub::Hub;
use super::link::Link;
use super::message::BusPeer;
use crate::notice;

/// How long a peer may take nothing and answer nothing before it is not waited for any more. The thread that answers does
/// nothing else, so this is a process that is stopped.
pub(super) const SILENCE: Duration = Duration::from_secs(1);

/// Why a peer is not listened to any more although it lives.
#[derive(Debug, thiserror::Error)]
enum Nonsense {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("it does not begin with a greeting")]
    NoGreeting,
}

/// The connection with one peer.
pub(super) struct Pump {
    stream: UnixStream,
    hub: Arc<Hub>,
    link: Arc<Link>,
}

impl Pump {
    /// Makes the process at the other end of this socket a peer.
    pub(super) fn new(socket: OwnedFd, peer: BusPeer, hub: &Arc<Hub>) -> io::Result<Self> {
        let stream = UnixStream::from_std(std::os::unix::net::UnixStream::from(socket))?;
        let link = Arc::new(Link::new(peer));
        hub.connect(&link);
        Ok(Self { stream, hub: Arc::clone(hub), link })
    }

    /// Talks with it until it ends.
    pub(super) async fn run(self) {
        let Self { mut stream, hub, link } = self;
        let (reader, writer) = stream.split();
        let mut pump = Reader { hub: &hub, link: &link, assembly: Assembly::default(), is_greeted: false };
        let asked = Notify::new();
        // Only the reading side tells the end: what a peer said before it ended comes first.
        let end = tokio::select! {
            end = pump.read_all(reader) => end,
            never = write_all(writer, &hub, &link, &asked) => match never {},
            never = watch(&hub, &link, &asked) => match never {},
        };
        hub.disconnect(&link);
        if let Err(nonsense) = end {
            notice::error(format_args!("the bus does not listen to {} any more: {nonsense}", link.peer));
        }
    }
}

enum Never {}

/// Writes what there is to write.
async fn write_all(mut writer: WriteHalf<'_>, hub: &Hub, link: &Link, asked: &Notify) -> Never {
    let mut out = Vec::new();
    loop {
        let done = link.fill(&mut out);
        if out.is_empty() {
            link.has_to_write().await;
            continue;
        }
        let mut left = &out[..];
        while !left.is_empty() {
            match timeout(SILENCE, writer.write(left)).await {
                Ok(Ok(written)) => {
                    left = &left[written..];
                    heard(hub, link);
                }
                // It has ended: the reading side will know.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => hub.set_silent(link, true),
            }
        }
        drop(done);
        out.clear();
        asked.notify_one();
    }
}

/// Notices when the peer does not answer.
async fn watch(hub: &Hub, link: &Link, asked: &Notify) -> Never {
    loop {
        asked.notified().await;
        if link.owes() {
            sleep(SILENCE).await;
            if link.owes() {
                hub.set_silent(link, true);
            }
        }
    }
}

/// The peer has taken or said something: as long as it owes no answer, it is waited for.
fn heard(hub: &Hub, link: &Link) {
    if link.is_silent() && !link.owes() {
        hub.set_silent(link, false);
    }
}

struct Reader<'a> {
    hub: &'a Hub,
    link: &'a Arc<Link>,
    assembly: Assembly,
    is_greeted: bool,
}

impl Reader<'_> {
    /// Reads to the end.
    async fn read_all(&mut self, mut reader: ReadHalf<'_>) -> Result<(), Nonsense> {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(MAX_FRAME);
            match reader.read_buf(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Killed with something of ours unread: it has ended all the same.
                Err(_) => return Ok(()),
            }
            while let Some((frame, length)) = Frame::read(&buffer)? {
                self.take(frame)?;
                buffer.advance(length);
            }
            heard(self.hub, self.link);
        }
    }

    fn take(&mut self, frame: Frame<'_>) -> Result<(), Nonsense> {
        let (hub, link) = (self.hub, self.link);
        if !std::mem::replace(&mut self.is_greeted, true) && !matches!(frame, Frame::Hello { .. }) {
            return Err(Nonsense::NoGreeting);
        }
        match frame {
            Frame::Interest { topic, count } => hub.set_interest(link, topic, count),
            Frame::Sync { serial } => hub.answer(link, serial),
            Frame::Synced { serial } => hub.answered(link, serial),
            // A copy: a part of the buffer would keep all of it for as long as the slowest subscription takes.
            Frame::Message { topic, payload } => hub.receive(link.peer, topic, &Bytes::copy_from_slice(payload)),
            Frame::Begin { stream, total, topic } => self.assembly.begin(stream, total, topic)?,
            Frame::Chunk { stream, payload } => {
                if let Some((topic, payload)) = self.assembly.chunk(stream, payload)? {
                    hub.receive(link.peer, &topic, &payload);
                }
            }
            Frame::Hello { .. } | Frame::Unknown => {}
        }
        Ok(())
    }
}
