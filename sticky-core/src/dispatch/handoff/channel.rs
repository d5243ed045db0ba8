//! The way into a slot: a pair of sockets of which the supervisor keeps both ends. Every worker has the sending end,
//! the slot's reader the other one. One message is one connection.
//!
//! The pair is SOCK_SEQPACKET: messages stay apart, and a descriptor never arrives without its bytes (unix(7)).

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};

use super::message::{MAX_MESSAGE, Malformed, Message};
use super::outcome::Outcome;

/// What the kernel charges a channel for a message of usual length, some 100 bytes; for none does it charge less.
const MESSAGE_CHARGE: usize = 768;

/// The most that the kernel may hold for a slot that does not read: 10,000 usual messages. Without privileges
/// `net.core.wmem_max` caps it, by default at some 500.
const MOST_BUFFERED: usize = 8 * 1024 * 1024;

/// Room for the longest message, which an empty channel has to take, and for what the kernel puts before it.
const LEAST_BUFFERED: usize = MAX_MESSAGE + 1024;

/// How much each of the channels of this many slots may hold, where a process may have `descriptors` open.
///
/// A descriptor that has been sent and not received is in flight. The kernel counts those of a user, over all of its
/// processes and sockets, and without privileges lets nobody send one more once they exceed his own limit of open
/// descriptors (ETOOMANYREFS). Slots that do not read must not use all of that up: the control messages by which
/// others take over for them carry descriptors as well. So all channels together hold at most half, by their usual
/// messages, unless the slots are so many that each one's longest message takes more.
pub(crate) fn buffer_size(slots: u16, descriptors: Option<u64>) -> usize {
    let descriptors = descriptors.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    let messages = descriptors / 2 / usize::from(slots.max(1));
    messages.saturating_mul(MESSAGE_CHARGE).clamp(LEAST_BUFFERED, MOST_BUFFERED)
}

/// A channel's two ends, neither blocking, both closed on exec.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) sender: OwnedFd,
    pub(crate) receiver: OwnedFd,
}

impl Pair {
    /// A new channel that holds about that many bytes; see [`buffer_size`].
    pub(crate) fn new(buffer: usize) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (sender, receiver) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // The kernel takes twice what is asked for, to have room for its own structures, which we have counted already.
        let asked = buffer / 2;
        // Only the privileged may exceed the system's bound; the others get as much as it allows.
        sockopt::set_socket_send_buffer_size_force(&sender, asked)
            .or_else(|_| sockopt::set_socket_send_buffer_size(&sender, asked))?;
        Ok(Self { sender, receiver })
    }
}

/// Why a connection could not be sent.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The slot has not read for a while.
    Full,
    /// As many descriptors are on their way as this user may have there (ETOOMANYREFS).
    TooManyInFlight,
    /// The message is larger than the channel.
    TooLarge,
    /// Nobody holds the receiving end any more: the cluster has ended.
    Gone,
}

/// Sends a connection to the slot behind this socket. Never blocks.
///
/// # Errors
///
/// Nothing was sent; the descriptor is still the caller's.
pub(crate) fn send(channel: BorrowedFd<'_>, message: &Message, connection: BorrowedFd<'_>) -> Result<(), SendError> {
    let header = message.header();
    let parts = [IoSlice::new(&header), IoSlice::new(&message.moving.read_ahead)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [connection];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = rustix::io::retry_on_intr(|| rustix::net::sendmsg(channel, &parts, &mut ancillary, flags));
    match sent {
        Ok(_) => Ok(()),
        Err(Errno::TOOMANYREFS) => Err(SendError::TooManyInFlight),
        Err(Errno::MSGSIZE) => Err(SendError::TooLarge),
        // Out of memory passes, too.
        Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Err(SendError::Full),
        Err(_) => Err(SendError::Gone),
    }
}

/// What a receiving end had.
#[derive(Debug)]
pub(crate) enum Received {
    /// A connection with what was said about it.
    Connection(OwnedFd, Message),
    /// A connection that cannot be used, and is closed by now.
    Lost(Loss),
    /// Nothing for now.
    Nothing,
}

/// Why a connection that arrived is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// This process was out of descriptors when it read the message (MSG_CTRUNC): somebody took the one kept free.
    NoDescriptor,
    /// The message was longer than any may be (MSG_TRUNC).
    Truncated,
    /// It was not of our form.
    Malformed(Malformed),
}

impl Loss {
    /// What it counts as.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::NoDescriptor => Outcome::OutOfDescriptors,
            Self::Truncated | Self::Malformed(Malformed::Field) => Outcome::Truncated,
            Self::Malformed(Malformed::Version) => Outcome::Version,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDescriptor => "this process is out of descriptors",
            Self::Truncated => "its message is too long",
            Self::Malformed(Malformed::Version) => "its message is of another version of sticky",
            Self::Malformed(Malformed::Field) => "its message makes no sense",
        })
    }
}

/// Receives one connection. The caller keeps a descriptor free for it: without one the kernel closes the connection.
///
/// # Errors
///
/// What the system says of the socket itself.
pub(crate) fn receive(channel: BorrowedFd<'_>, buffer: &mut [u8; MAX_MESSAGE]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(buffer)];
        rustix::net::recvmsg(channel, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)
    });
    let received = match received {
        Err(Errno::AGAIN) => return Ok(Received::Nothing),
        other => other?,
    };
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    let Some(descriptor) = descriptor else {
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        return Ok(Received::Lost(Loss::NoDescriptor));
    };
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Ok(Received::Lost(Loss::Truncated));
    }
    Ok(match Message::read(&buffer[..received.bytes]) {
        Ok(message) => Received::Connection(descriptor, message),
        Err(malformed) => Received::Lost(Loss::Malformed(malformed)),
    })
}

/// What a reader keeps for a receiving end: a buffer, and a descriptor in reserve.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// Makes room for one connection when the process is out of descriptors.
    spare: Option<OwnedFd>,
    /// The last call had a message.
    has_received: bool,
    buffer: Box<[u8; MAX_MESSAGE]>,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self { spare: None, has_received: false, buffer: Box::new([0; MAX_MESSAGE]) }
    }

    /// Receives one connection.
    ///
    /// # Errors
    ///
    /// When no descriptor can be kept free for it (EMFILE, ENFILE): nothing has been read, and all waits in the channel.
    pub(crate) fn receive(&mut self, channel: BorrowedFd<'_>) -> io::Result<Received> {
        // After one message there mostly is none, and to know that costs less than to keep a place for it.
        if std::mem::take(&mut self.has_received) && !has_more(channel) {
            return Ok(Received::Nothing);
        }
        self.make_room(channel)?;
        let received = receive(channel, &mut self.buffer);
        if self.spare.is_none() {
            self.spare = channel.try_clone_to_owned().ok();
        }
        self.has_received = !matches!(received, Ok(Received::Nothing));
        received
    }

    /// Sees to it that the next descriptor has a number. Nothing may be opened until then; another thread could take it.
    fn make_room(&mut self, channel: BorrowedFd<'_>) -> io::Result<()> {
        let Err(error) = channel.try_clone_to_owned() else { return Ok(()) };
        match self.spare.take() {
            // A limit that was lowered leaves what is open above it, and its numbers are not given again.
            Some(spare) if has_usable_number(&spare) => Ok(()),
            spare => {
                self.spare = spare;
                Err(error)
            }
        }
    }
}

fn has_usable_number(descriptor: &OwnedFd) -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.is_none_or(|limit| (descriptor.as_raw_fd() as u64) < limit)
}

/// Whether a message waits, or the end. Leaves it, and its descriptor, where they are.
fn has_more(channel: BorrowedFd<'_>) -> bool {
    let mut first = [0];
    !matches!(rustix::net::recv(channel, &mut first, RecvFlags::PEEK | RecvFlags::DONTWAIT), Err(Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use bytes::BytesMut;

    use super::super::exchange::{Moving, Standing};
    use super::*;

    fn message(length: usize) -> Message {
        let read_ahead = BytesMut::from(&vec![b'x'; length][..]);
        Message { moving: Moving { read_ahead, standing: Standing::Judged }, hops: 1, peer: None, is_unix: true }
    }

    #[test]
    fn a_connection_arrives_with_its_bytes() {
        let pair = Pair::new(LEAST_BUFFERED).unwrap();
        let mut receiver = Receiver::new();
        assert!(matches!(receiver.receive(pair.receiver.as_fd()).unwrap(), Received::Nothing));
        for length in [0, 1, 8192, usize::from(u16::MAX)] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            send(pair.sender.as_fd(), &message(length), ours.as_fd()).unwrap();
            drop(ours);
            let Received::Connection(descriptor, received) = receiver.receive(pair.receiver.as_fd()).unwrap() else {
                panic!("{length}")
            };
            assert_eq!(received, message(length));
            assert!(rustix::io::fcntl_getfd(&descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
            UnixStream::from(descriptor).write_all(b"hello").unwrap();
            let mut text = String::new();
            theirs.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
        assert!(matches!(receiver.receive(pair.receiver.as_fd()).unwrap(), Received::Nothing));
    }

    #[test]
    fn a_slot_that_does_not_read_blocks_nobody() {
        let pair = Pair::new(LEAST_BUFFERED).unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let sent = (0..1_000_000).find_map(|_| send(pair.sender.as_fd(), &message(1000), ours.as_fd()).err());
        assert!(matches!(sent, Some(SendError::Full | SendError::TooManyInFlight)), "{sent:?}");
        drop(pair.receiver);
        let gone = send(pair.sender.as_fd(), &message(0), ours.as_fd());
        assert!(matches!(gone, Err(SendError::Gone)), "{gone:?}");
    }

    #[test]
    fn all_channels_together_hold_half_of_what_may_be_in_flight() {
        for (slots, descriptors) in [(1, 1024), (2, 1024), (8, 4096), (16, 20_000), (64, 65_536)] {
            let messages = buffer_size(slots, Some(descriptors)) / MESSAGE_CHARGE;
            let all = u64::try_from(messages).unwrap() * u64::from(slots);
            assert!(
                (descriptors / 2 - u64::from(slots)..=descriptors / 2).contains(&all),
                "{slots}, {descriptors}: {all}"
            );
        }
        for unlimited in [None, Some(u64::MAX), Some(1 << 30)] {
            assert_eq!(buffer_size(4, unlimited), MOST_BUFFERED);
        }
        // One slot that stands still leaves the others room, however low the limit.
        assert!(buffer_size(2, Some(300)) / MESSAGE_CHARGE < 100);
        assert_eq!((buffer_size(0, Some(0)), buffer_size(u16::MAX, Some(0))), (LEAST_BUFFERED, LEAST_BUFFERED));
    }

    /// What the kernel charges is its own business: this tells when it has changed its mind.
    #[test]
    fn a_channel_holds_as_many_connections_as_it_is_sized_for() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        for messages in [100, 150] {
            let pair = Pair::new(messages * MESSAGE_CHARGE).unwrap();
            let held = (0..).take_while(|_| send(pair.sender.as_fd(), &message(100), ours.as_fd()).is_ok()).count();
            assert!((messages / 2..=messages + 1).contains(&held), "{held} of {messages}");
        }
    }

    #[test]
    fn the_smallest_channel_takes_the_longest_message() {
        let pair = Pair::new(LEAST_BUFFERED).unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        send(pair.sender.as_fd(), &message(usize::from(u16::MAX)), ours.as_fd()).unwrap();
    }

    #[test]
    fn what_is_no_connection_is_told() {
        let pair = Pair::new(LEAST_BUFFERED).unwrap();
        let mut receiver = Receiver::new();
        rustix::io::write(&pair.sender, b"no descriptor").unwrap();
        assert!(matches!(receiver.receive(pair.receiver.as_fd()).unwrap(), Received::Lost(Loss::NoDescriptor)));
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut later = message(0);
        later.hops = 9;
        send(pair.sender.as_fd(), &later, ours.as_fd()).unwrap();
        assert!(matches!(
            receiver.receive(pair.receiver.as_fd()).unwrap(),
            Received::Connection(_, Message { hops: 9, .. })
        ));
        drop(pair.sender);
        assert_eq!(receiver.receive(pair.receiver.as_fd()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
