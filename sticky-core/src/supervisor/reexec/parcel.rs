//! How descriptors outlast an `exec`: on their way from this process to itself. One socket is left open; what was sent to it,
//! the next program receives.
//!
//! To leave each of them open instead would leave them open in whatever another thread of the program starts at that moment, and
//! a worker whose control socket somebody else holds never hears of its supervisor's end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::carried::Lot;
use crate::control::{self, Channel, MAX_DESCRIPTORS};
use crate::role::ResumeMarker;

/// What comes with some of the descriptors.
#[derive(Debug, Serialize, Deserialize)]
struct Label {
    /// How many follow with other labels.
    more: usize,
}

type End<S> = Channel<Label, Label, S>;

/// Descriptors in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Lots<'a> {
    all: Vec<BorrowedFd<'a>>,
}

impl<'a> Lots<'a> {
    /// The number of one more.
    pub(super) fn add(&mut self, fd: BorrowedFd<'a>) -> Lot {
        self.all.push(fd);
        self.all.len() - 1
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// Sends a text and all of them to this process itself; the socket to be left open.
    ///
    /// # Errors
    ///
    /// The system's, where this user has as many descriptors on their way as he may (ETOOMANYREFS), among others.
    pub(super) fn send(self, text: &OwnedFd) -> io::Result<OwnedFd> {
        let (sender, receiver) = control::pair()?;
        let all: Vec<BorrowedFd<'_>> = std::iter::once(text.as_fd()).chain(self.all).collect();
        let mut more = all.len();
        for some in all.chunks(MAX_DESCRIPTORS) {
            more -= some.len();
            End::new(&sender).send(&Label { more }, some)?;
        }
        Ok(receiver)
    }
}

/// The text and the descriptors that this process was sent by the program before.
///
/// # Errors
///
/// The system's; `InvalidData` if not all of them have come.
pub(super) fn receive(parcel: OwnedFd) -> io::Result<(OwnedFd, Taken)> {
    rustix::io::ioctl_fionbio(&parcel, true)?;
    let parcel = End::new(parcel);
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "descriptors are missing");
    let (mut all, mut more) = (Vec::new(), usize::MAX);
    while more > 0 {
        let received = parcel.receive()?.filter(|received| !received.is_cut).ok_or_else(missing)?;
        if received.descriptors.is_empty() || received.message.more >= more {
            return Err(missing());
        }
        more = received.message.more;
        all.extend(received.descriptors);
    }
    let mut all = all.into_iter();
    let text = all.next().ok_or_else(missing)?;
    Ok((text, Taken { all: all.map(Some).collect() }))
}

/// The value of the variable by which the next program finds the socket.
pub(super) fn marker(parcel: &OwnedFd) -> io::Result<ResumeMarker> {
    let inode = rustix::fs::fstat(parcel)?.st_ino;
    Ok(ResumeMarker { fd: parcel.as_raw_fd(), inode, pid: std::process::id() })
}

/// Descriptors that have come, until somebody takes them.
#[derive(Debug)]
pub(super) struct Taken {
    all: Vec<Option<OwnedFd>>,
}

impl Taken {
    /// The one with this number.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none, or it was taken before.
    pub(super) fn take(&mut self, lot: Lot) -> io::Result<OwnedFd> {
        self.all.get_mut(lot).and_then(Option::take).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn take_all(&mut self, lots: &[Lot]) -> io::Result<Vec<OwnedFd>> {
        lots.iter().map(|lot| self.take(*lot)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::{create_text, read_text};

    fn inode(fd: impl AsFd) -> u64 {
        rustix::fs::fstat(fd).unwrap().st_ino
    }

    #[test]
    fn many_descriptors_arrive_in_their_order() {
        let pipes: Vec<_> = (0..300).map(|_| io::pipe().unwrap()).collect();
        let text = create_text("test", b"hello").unwrap();
        let mut lots = Lots::default();
        let numbers: Vec<Lot> = pipes.iter().map(|(reader, _)| lots.add(reader.as_fd())).collect();
        assert_eq!((numbers[299], lots.count()), (299, 300));
        let parcel = lots.send(&text).unwrap();
        let marker = marker(&parcel).unwrap();
        assert_eq!((marker.inode, marker.pid), (inode(&parcel), std::process::id()));
        let (text, mut taken) = receive(parcel).unwrap();
        assert_eq!(read_text(&text, 9).unwrap(), b"hello");
        for ((reader, _), lot) in pipes.iter().zip(numbers) {
            assert_eq!(inode(taken.take(lot).unwrap()), inode(reader));
        }
        assert!(taken.take(0).is_err() && taken.take(300).is_err());
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let (sender, receiver) = control::pair().unwrap();
        End::new(&sender).send(&Label { more: 1 }, &[sender.as_fd()]).unwrap();
        assert_eq!(receive(receiver).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (sender, receiver) = control::pair().unwrap();
        End::new(&sender).send(&Label { more: 0 }, &[]).unwrap();
        assert_eq!(receive(receiver).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (sender, receiver) = control::pair().unwrap();
        drop(sender);
        assert_eq!(receive(receiver).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
