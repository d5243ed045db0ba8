//! Waiting for a descriptor of any kind in the runtime.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor for becoming readable.
///
/// # Panics
///
/// Outside of a tokio runtime with I/O.
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd, Interest::READABLE)
}

/// Watches a descriptor for becoming writable.
///
/// # Panics
///
/// Outside of a tokio runtime with I/O.
pub(crate) fn writable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd, Interest::WRITABLE)
}

fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, is the same descriptor for its whole life, and is closed only when it is dropped,
    // which `AsyncFd` does after it has taken it out of the reactor.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
