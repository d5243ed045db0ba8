//! One end of a control socket: a message and its descriptors travel as one packet.

use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Serialize, de::DeserializeOwned};

/// The longest message, in bytes. The longest we send are last words, cut to a quarter of this.
const MAX_MESSAGE: usize = 64 * 1024;

/// The most descriptors in one message: the kernel allows 253 (SCM_MAX_FD).
pub(crate) const MAX_DESCRIPTORS: usize = 253;

/// A connected pair of control sockets, both closed on exec: SOCK_SEQPACKET keeps messages apart and still says
/// when the other side is gone.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// A message that arrived, with its descriptors.
#[derive(Debug)]
pub(crate) struct Received<T> {
    pub(crate) message: T,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Some descriptors were lost: this process has no room for more.
    pub(crate) is_cut: bool,
}

/// One end of a control socket that sends `Tx` and receives `Rx`.
#[derive(Debug)]
pub(crate) struct Channel<Tx, Rx, S = OwnedFd> {
    socket: S,
    types: PhantomData<fn(Tx) -> Rx>,
}

impl<Tx, Rx, S: AsFd> AsFd for Channel<Tx, Rx, S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<Tx: Serialize, Rx: DeserializeOwned, S: AsFd> Channel<Tx, Rx, S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, types: PhantomData }
    }

    /// Sends one message.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the other side does not read; `BrokenPipe` when it is gone.
    pub(crate) fn send(&self, message: &Tx, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        if line.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the control message is too large"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        // Never blocks: whoever says something has other work, and the other side reads all the time.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.socket, &[IoSlice::new(&line)], &mut ancillary, flags)
        })?;
        Ok(())
    }

    /// Receives one message; `None` when the other side is gone.
    ///
    /// # Errors
    ///
    /// `WouldBlock` on a non-blocking socket without a message; `InvalidData` for one that was cut short or is not
    /// of our form.
    pub(crate) fn receive(&self) -> io::Result<Option<Received<Rx>>> {
        let mut line = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut line)];
            rustix::net::recvmsg(&self.socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            // A peer that was killed with our message unread resets the socket: gone all the same.
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => other?,
        };
        let descriptors = descriptors(&mut ancillary);
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a control message was cut short"));
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        let message = serde_json::from_slice(&line[..received.bytes])?;
        let is_cut = received.flags.contains(ReturnFlags::CTRUNC);
        Ok(Some(Received { message, descriptors, is_cut }))
    }
}

fn descriptors(ancillary: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    descriptors
}

#[cfg(test)]
mod tests {
    use super::*;

    type End = Channel<String, String>;

    fn ends() -> (End, End) {
        let (a, b) = pair().unwrap();
        (Channel::new(a), Channel::new(b))
    }

    #[test]
    fn messages_arrive_whole_in_order_and_with_their_descriptors() {
        let (a, b) = ends();
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send(&"one".into(), &[]).unwrap();
        a.send(&"two".into(), &[file.as_fd(), file.as_fd()]).unwrap();
        let one = b.receive().unwrap().unwrap();
        assert_eq!((one.message.as_str(), one.descriptors.len()), ("one", 0));
        let two = b.receive().unwrap().unwrap();
        assert_eq!((two.message.as_str(), two.descriptors.len()), ("two", 2));
        for fd in &two.descriptors {
            assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn the_end_is_told_after_what_was_said_before() {
        let (a, b) = ends();
        a.send(&"last".into(), &[]).unwrap();
        drop(a);
        assert_eq!(b.receive().unwrap().unwrap().message, "last");
        assert!(b.receive().unwrap().is_none());
        assert!(b.receive().unwrap().is_none());
        assert_eq!(b.send(&"anyone?".into(), &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn rubbish_and_overlong_messages_are_errors() {
        let (a, b) = pair().unwrap();
        let b = End::new(b);
        rustix::io::write(&a, b"not json").unwrap();
        assert_eq!(b.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
        rustix::io::write(&a, &vec![b' '; MAX_MESSAGE + 1]).unwrap();
        assert_eq!(b.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let long = b.send(&"x".repeat(MAX_MESSAGE), &[]).unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_side_that_does_not_read_blocks_nobody() {
        let (a, _b) = ends();
        let sent = (0..100_000).find_map(|_| a.send(&"x".repeat(1000), &[]).err());
        assert_eq!(sent.unwrap().kind(), io::ErrorKind::WouldBlock);
        rustix::io::ioctl_fionbio(a.socket.as_fd(), true).unwrap();
        assert_eq!(a.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
