//! Open sockets that can be told to end from outside the task that owns them.

#![allow(unsafe_code)]

use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use imp::{AsRawSocket, RawSocket};
use socket2::SockRef;

#[cfg(unix)]
mod imp {
    pub(crate) use std::os::fd::{AsRawFd as AsRawSocket, RawFd as RawSocket};

    pub(crate) fn number(socket: &impl AsRawSocket) -> RawSocket {
        socket.as_raw_fd()
    }

    /// # Safety
    ///
    /// The descriptor must stay open for as long as the borrow lives.
    pub(crate) unsafe fn borrow<'a>(number: RawSocket) -> std::os::fd::BorrowedFd<'a> {
        // SAFETY: the caller keeps it open.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }
    }
}

#[cfg(windows)]
mod imp {
    pub(crate) use std::os::windows::io::{AsRawSocket, RawSocket};

    pub(crate) fn number(socket: &impl AsRawSocket) -> RawSocket {
        socket.as_raw_socket()
    }

    /// # Safety
    ///
    /// The socket must stay open for as long as the borrow lives.
    pub(crate) unsafe fn borrow<'a>(number: RawSocket) -> std::os::windows::io::BorrowedSocket<'a> {
        // SAFETY: the caller keeps it open.
        unsafe { std::os::windows::io::BorrowedSocket::borrow_raw(number) }
    }
}

/// The numbers of sockets whose owners are [`Listed`]. A clone is the same table.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenSockets {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    entries: Vec<Option<Entry>>,
    /// Indices of `entries` that are `None`.
    free: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    socket: RawSocket,
    is_cut: bool,
}

impl OpenSockets {
    /// Lists this socket until it is dropped.
    pub(crate) fn list<T: AsRawSocket>(&self, socket: T) -> Listed<T> {
        let entry = Entry { socket: imp::number(&socket), is_cut: false };
        let index = self.lock().insert(entry);
        Listed { _listing: Listing { sockets: self.clone(), index }, socket }
    }

    /// Closes the write side of up to `limit` sockets whose write side this has not closed before, so that their
    /// peers read a clean end. Returns how many those were.
    pub(crate) fn close_writes(&self, limit: usize) -> usize {
        let mut table = self.lock();
        let mut cut = 0;
        for entry in table.entries.iter_mut().flatten().filter(|entry| !entry.is_cut).take(limit) {
            // SAFETY: a socket's number leaves the table, under the lock held here, before the socket is closed.
            let socket = unsafe { imp::borrow(entry.socket) };
            // It fails where the peer has gone already, and then there is nothing left to end.
            let _ = SockRef::from(&socket).shutdown(Shutdown::Write);
            entry.is_cut = true;
            cut += 1;
        }
        cut
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, entry: Entry) -> usize {
        match self.free.pop() {
            Some(index) => {
                self.entries[index] = Some(entry);
                index
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() - 1
            }
        }
    }

    fn remove(&mut self, index: usize) {
        self.entries[index] = None;
        self.free.push(index);
    }
}

/// A socket with its number in a table of [`OpenSockets`].
#[derive(Debug)]
pub(crate) struct Listed<T> {
    // Fields drop in this order: the number must be out of the table before the socket closes.
    _listing: Listing,
    socket: T,
}

impl<T> Listed<T> {
    pub(crate) fn get(&self) -> &T {
        &self.socket
    }

    /// The socket alone: nobody will cut it any more.
    pub(crate) fn unlist(self) -> T {
        self.socket
    }

    /// The socket, to read and to write. It must not be replaced by another: its number would stay in the table.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.socket
    }
}

/// An entry in the table, taken out when this is dropped.
#[derive(Debug)]
struct Listing {
    sockets: OpenSockets,
    index: usize,
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.sockets.lock().remove(self.index);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn cuts_each_socket_once_and_in_batches() {
        let sockets = OpenSockets::default();
        let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).collect();
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let listed: Vec<_> = ours.into_iter().map(|socket| sockets.list(socket)).collect();
        assert_eq!(sockets.close_writes(2), 2);
        assert_eq!(sockets.close_writes(2), 1);
        assert_eq!(sockets.close_writes(2), 0);
        for mut peer in theirs {
            assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        }
        drop(listed);
    }

    #[test]
    fn a_dropped_socket_is_out_of_the_table_and_its_place_is_used_again() {
        let sockets = OpenSockets::default();
        let (first, _peer) = UnixStream::pair().unwrap();
        let (second, _peer) = UnixStream::pair().unwrap();
        drop(sockets.list(first));
        assert_eq!(sockets.close_writes(9), 0);
        let _second = sockets.list(second);
        assert_eq!(sockets.lock().entries.len(), 1);
        assert_eq!(sockets.close_writes(9), 1);
    }
}
