//! Binding TCP sockets: one that all share, or a group with one for each slot.
//!
//! ```text
//! first:   close the gate · bind · LISTEN without SO_REUSEPORT (a rival's port fails here) · set SO_REUSEPORT
//! others:  close the gate · set SO_REUSEPORT · bind · listen                       (in slot order: the nth is slot n)
//! then:    attach the placement · open all gates
//! ```
//!
//! While its gate is closed a socket drops what reaches it: a connection that arrived before the placement would be
//! with the wrong worker for good. Its client sends the packet again a second later.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use super::ListenError;
#[cfg(cluster)]
use super::gate;
#[cfg(cluster)]
use crate::dispatch::kernel;
#[cfg(cluster)]
use crate::placement::KernelHash;

/// What the sockets of one address have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct BindOptions {
    /// How many connections may wait to be accepted, for each listener. The kernel caps it at `net.core.somaxconn`.
    pub(super) backlog: u32,
    /// Whether an IPv6 listener leaves IPv4 to another.
    pub(super) ipv6_only: bool,
}

/// One listener, non-blocking.
///
/// # Errors
///
/// See [`ListenError`].
pub(super) fn single(address: SocketAddr, options: &BindOptions) -> Result<Socket, ListenError> {
    let socket = new_socket(address, options)?;
    listen(&socket, address, options)?;
    Ok(socket)
}

/// A listener for each of so many `slots`, in slot order, non-blocking, with the kernel placing connections among those of
/// `hash`.
///
/// `hash` has slots from 0 on, in order and without a gap. With port 0 the system chooses for all.
///
/// # Errors
///
/// See [`ListenError`]. The port is free again.
#[cfg(cluster)]
pub(super) fn group(
    address: SocketAddr,
    hash: &KernelHash,
    slots: u16,
    options: &BindOptions,
) -> Result<Vec<Socket>, ListenError> {
    debug_assert!(hash.slots().enumerate().all(|(position, slot)| slot.index() == position));
    if slots <= 1 {
        return Ok(vec![single(address, options)?]);
    }
    let failed = |attempt| move |source| ListenError::tcp(address, attempt, source);

    let first = new_socket(address, options)?;
    gate::close(&first).map_err(failed("closing its gate"))?;
    listen(&first, address, options)?;
    first.set_reuse_port(true).map_err(failed("sharing the port among the workers"))?;
    let bound = local_address(&first, address)?;

    let mut sockets = vec![first];
    while sockets.len() < usize::from(slots) {
        sockets.push(join(bound, options)?);
    }
    kernel::attach(&sockets[0], hash).map_err(|source| ListenError::Place { address, source })?;
    sockets.iter().try_for_each(gate::open).map_err(failed("opening its gate"))?;
    Ok(sockets)
}

/// The next listener of a group, its gate closed.
#[cfg(cluster)]
fn join(address: SocketAddr, options: &BindOptions) -> Result<Socket, ListenError> {
    let failed = |attempt| move |source| ListenError::tcp(address, attempt, source);
    let socket = new_socket(address, options)?;
    gate::close(&socket).map_err(failed("closing its gate"))?;
    socket.set_reuse_port(true).map_err(failed("sharing the port among the workers"))?;
    listen(&socket, address, options)?;
    Ok(socket)
}

/// The address a socket got, with the real port.
pub(super) fn local_address(socket: &Socket, asked: SocketAddr) -> Result<SocketAddr, ListenError> {
    let address = socket.local_addr().map_err(|source| ListenError::tcp(asked, "asking for its address", source))?;
    Ok(address.as_socket().unwrap_or(asked))
}

/// A non-blocking, close-on-exec socket for this address.
fn new_socket(address: SocketAddr, options: &BindOptions) -> Result<Socket, ListenError> {
    let failed = |attempt| move |source| ListenError::tcp(address, attempt, source);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).map_err(failed("making a socket"))?;
    socket.set_nonblocking(true).map_err(failed("making it non-blocking"))?;
    // Small writes go out at once: with Nagle's algorithm a WebSocket message or an event that follows another waits
    // for the client's delayed acknowledgement, up to 40 ms. Connections inherit it: a system call less for each.
    socket.set_tcp_nodelay(true).map_err(failed("setting TCP_NODELAY"))?;
    if address.is_ipv6() {
        socket.set_only_v6(options.ipv6_only).map_err(failed("choosing its protocols"))?;
    }
    // So that a restart does not wait for the connections of the last run to leave TIME_WAIT. On Windows the option
    // would let two programs take the same port, and is not needed for this.
    #[cfg(not(windows))]
    socket.set_reuse_address(true).map_err(failed("setting SO_REUSEADDR"))?;
    Ok(socket)
}

fn listen(socket: &Socket, address: SocketAddr, options: &BindOptions) -> Result<(), ListenError> {
    socket.bind(&address.into()).map_err(|source| ListenError::tcp(address, "binding", source))?;
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    socket.listen(backlog).map_err(|source| ListenError::tcp(address, "listening", source))
}
