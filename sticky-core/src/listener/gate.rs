//! A gate in front of a listener: while it is closed, no packet from outside begins a connection.
//!
//! It is made of the smallest time to live a socket accepts, because that needs no privilege; a filter on a TCP
//! socket needs CAP_NET_ADMIN on recent kernels, which containers do not have. What is dropped gets no answer, so the
//! client sends it again. Only a client that sends with a time to live of 255 (rare, and next to this machine) passes
//! a closed gate.

use std::io;
use std::os::fd::AsFd;

use crate::sys::reuseport::set_min_ttl;

/// More than packets have.
const CLOSED: u8 = u8::MAX;
const OPEN: u8 = 0;

/// Lets nothing in. Handshakes that have begun are completed, but see [`open`].
pub(super) fn close(listener: &impl AsFd) -> io::Result<()> {
    set_min_ttl(listener.as_fd(), CLOSED)
}

/// Lets everything in, at a listener, or at a connection that inherited the closed gate of its listener.
pub(super) fn open(socket: &impl AsFd) -> io::Result<()> {
    set_min_ttl(socket.as_fd(), OPEN)
}
