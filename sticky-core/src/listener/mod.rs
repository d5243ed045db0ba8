//! The public sockets: taking the port without races, and giving each slot its listener.
//!
//! ```text
//! ListenAddress ─► resolve ─► bind ─► ListenerSet ─┬─ PerSlot: one listener per slot, the kernel places
//!                                                  └─ Shared: one listener that every worker accepts from
//! ```
//!
//! The supervisor keeps the sets from start to end. A listener is never closed and added again: the kernel would
//! give its number, and with it its clients, to another slot. So slots that may be added have theirs from the start: while the
//! placement leaves them out, nothing arrives there.

pub(crate) mod address;
mod bind;
mod error;
#[cfg(cluster)]
mod gate;
#[cfg(cluster)]
pub(crate) mod passed;
#[cfg(unix)]
mod unix;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use socket2::Socket;

pub use self::address::{AddressError, ListenAddress, ListenAddresses};
use self::bind::BindOptions;
pub use self::error::ListenError;
#[cfg(cluster)]
use crate::dispatch::kernel::{self, AttachError};
use crate::id::WorkerId;
use crate::placement::KernelHash;

/// The mode of a unix socket that only its user may connect to.
#[cfg(unix)]
const OWNER_ONLY: u32 = 0o600;

/// How the workers share a TCP port.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sharing<'a> {
    /// A listener for each of so many slots, of which this placement has some, from 0 on and in order: the others' are for
    /// later. Where the kernel cannot place there is one process, and one listener.
    PerSlot(&'a KernelHash, u16),
    /// One listener that every worker accepts from.
    Shared,
    /// The same, and unix sockets are for this user alone.
    Private,
}

/// The listeners of one local address. Closed when dropped; the file of a unix socket goes with them.
#[derive(Debug)]
pub(crate) struct ListenerSet {
    address: LocalAddress,
    kind: ListenerKind,
    #[cfg(unix)]
    file: Option<unix::SocketFile>,
    /// Others have it, too, and listen on when this program has ended.
    is_kept: bool,
}

/// Who accepts from which listener. All are non-blocking and close-on-exec.
#[derive(Debug)]
pub(crate) enum ListenerKind {
    /// The slot with number n accepts from the nth.
    PerSlot(Vec<Socket>),
    /// Every worker accepts from this one.
    Shared(Socket),
}

/// Where a set listens: what the system made of the address asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LocalAddress {
    /// With the real port.
    Tcp(SocketAddr),
    /// The path of the socket's file.
    Unix(PathBuf),
}

/// Listens on all addresses, or on none. There is at least one set for each.
///
/// A host name means every address it has on this machine (`localhost` is `127.0.0.1` and `::1`), all with the same
/// port. `[::]` takes IPv4 too, unless `0.0.0.0` with the same port is listed beside it. A unix path is always shared.
///
/// # Errors
///
/// See [`ListenError`]; it names the address and what was attempted.
pub(crate) fn take(
    addresses: &[ListenAddress],
    sharing: Sharing<'_>,
    backlog: u32,
) -> Result<Vec<ListenerSet>, ListenError> {
    let mut sets = Vec::new();
    for address in addresses {
        let options = BindOptions { backlog, ipv6_only: leaves_ipv4_to_another(address, addresses) };
        match address {
            ListenAddress::Any { port } => sets.push(take_any(*port, sharing, &options)?),
            ListenAddress::Socket(address) => sets.push(take_tcp(*address, sharing, &options)?),
            ListenAddress::Host { host, port } => sets.extend(take_host(host, *port, sharing, &options)?),
            ListenAddress::Unix(path) => sets.push(take_unix(path, sharing, backlog)?),
            ListenAddress::Systemd(name) => sets.extend(take_passed(address, name.as_deref())?),
        }
    }
    Ok(sets)
}

/// Whether this is `[::]` and the IPv4 half of its port is listed by itself.
fn leaves_ipv4_to_another(address: &ListenAddress, all: &[ListenAddress]) -> bool {
    let wildcard = |ip: std::net::IpAddr, port| ListenAddress::Socket(SocketAddr::new(ip, port));
    match address {
        ListenAddress::Socket(SocketAddr::V6(address)) if address.ip().is_unspecified() && address.port() != 0 => {
            all.contains(&wildcard(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        _ => false,
    }
}

fn take_any(port: u16, sharing: Sharing<'_>, options: &BindOptions) -> Result<ListenerSet, ListenError> {
    match take_tcp((Ipv6Addr::UNSPECIFIED, port).into(), sharing, options) {
        Err(error) if error.is_unavailable() => take_tcp((Ipv4Addr::UNSPECIFIED, port).into(), sharing, options),
        result => result,
    }
}

fn take_host(
    host: &str,
    port: u16,
    sharing: Sharing<'_>,
    options: &BindOptions,
) -> Result<Vec<ListenerSet>, ListenError> {
    let resolved = (host, port).to_socket_addrs();
    let addresses = resolved.map_err(|source| ListenError::Resolve { host: host.to_owned(), source })?;
    let mut sets: Vec<ListenerSet> = Vec::new();
    for mut address in addresses {
        // Where the system chooses the port, it chooses once for the name.
        address.set_port(sets.first().and_then(|set| set.address.port()).unwrap_or(port));
        if sets.iter().any(|set| set.address == LocalAddress::Tcp(address)) {
            continue;
        }
        match take_tcp(address, sharing, options) {
            Err(error) if error.is_unavailable() => {}
            result => sets.push(result?),
        }
    }
    if sets.is_empty() { Err(ListenError::NoAddress { host: host.to_owned() }) } else { Ok(sets) }
}

fn take_tcp(address: SocketAddr, sharing: Sharing<'_>, options: &BindOptions) -> Result<ListenerSet, ListenError> {
    let kind = match sharing {
        #[cfg(cluster)]
        Sharing::PerSlot(hash, slots) => ListenerKind::PerSlot(bind::group(address, hash, slots, options)?),
        #[cfg(not(cluster))]
        Sharing::PerSlot(..) => ListenerKind::Shared(bind::single(address, options)?),
        Sharing::Shared | Sharing::Private => ListenerKind::Shared(bind::single(address, options)?),
    };
    let local = bind::local_address(&kind.sockets()[0], address)?;
    Ok(ListenerSet {
        address: LocalAddress::Tcp(local),
        kind,
        #[cfg(unix)]
        file: None,
        is_kept: false,
    })
}

#[cfg(unix)]
fn take_unix(path: &Path, sharing: Sharing<'_>, backlog: u32) -> Result<ListenerSet, ListenError> {
    let mode = matches!(sharing, Sharing::Private).then_some(OWNER_ONLY);
    let (socket, file) = unix::listen(path, mode, backlog)?;
    let address = LocalAddress::Unix(path.to_owned());
    Ok(ListenerSet { address, kind: ListenerKind::Shared(socket), file: Some(file), is_kept: false })
}

#[cfg(not(unix))]
fn take_unix(path: &Path, _sharing: Sharing<'_>, _backlog: u32) -> Result<ListenerSet, ListenError> {
    let address = format!("unix:{}", path.display());
    Err(ListenError::System { address, attempt: "making a socket", source: io::ErrorKind::Unsupported.into() })
}

/// To be called before anything is listened on: these names of a service manager's sockets will be asked for, `any` if any is.
///
/// # Errors
///
/// [`ListenError::Passed`] if there are none.
#[cfg(cluster)]
pub(crate) fn expect_passed(names: Vec<String>, any: bool) -> Result<(), ListenError> {
    passed::expect(names, any).map_err(|source| ListenError::passed(&ListenAddress::Systemd(None), source))
}

/// The sockets of a service manager, which are always shared.
#[cfg(cluster)]
fn take_passed(asked: &ListenAddress, name: Option<&str>) -> Result<Vec<ListenerSet>, ListenError> {
    let taken = passed::take(name).map_err(|source| ListenError::passed(asked, source))?;
    let set =
        |(socket, address)| ListenerSet { address, kind: ListenerKind::Shared(socket), file: None, is_kept: true };
    Ok(taken.into_iter().map(set).collect())
}

#[cfg(not(cluster))]
fn take_passed(asked: &ListenAddress, _name: Option<&str>) -> Result<Vec<ListenerSet>, ListenError> {
    let (address, source) = (asked.to_string(), io::ErrorKind::Unsupported.into());
    Err(ListenError::System { address, attempt: "taking a socket of systemd", source })
}

impl ListenerSet {
    /// Whether others have its sockets, too, and listen on when this program has ended: then what is in their queues waits for
    /// the next start.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &LocalAddress {
        &self.address
    }

    /// Who accepts from which listener.
    pub(crate) fn kind(&self) -> &ListenerKind {
        &self.kind
    }

    /// The listener a slot accepts from: its own, or the one all share.
    ///
    /// # Panics
    ///
    /// If there are listeners per slot and none for this one.
    pub(crate) fn for_slot(&self, slot: WorkerId) -> &Socket {
        match &self.kind {
            ListenerKind::PerSlot(sockets) => &sockets[slot.index()],
            ListenerKind::Shared(socket) => socket,
        }
    }

    /// Places connections that arrive from now on as `hash` says: without a slot, or with one again. Connections
    /// that wait in a listener stay there. Does nothing where there is one listener.
    ///
    /// # Errors
    ///
    /// Connections are placed as before; see [`AttachError`].
    #[cfg(cluster)]
    pub(crate) fn place(&self, hash: &KernelHash) -> Result<(), AttachError> {
        match &self.kind {
            ListenerKind::PerSlot(sockets) if sockets.len() > 1 => kernel::attach(&sockets[0], hash),
            _ => Ok(()),
        }
    }

    /// Takes the unix socket's file away, so that nobody begins a connection there any more.
    pub(crate) fn unpublish(&self) {
        #[cfg(unix)]
        self.file.iter().for_each(unix::SocketFile::remove);
    }
}

/// Lets no new connection begin at this TCP listener, so that its queue can be emptied before it is closed. A client
/// that tries waits, and is refused when it is. One whose handshake has begun still gets in, and is heard once [`admit`]
/// has been called for it; what it sent before is sent again.
///
/// Whoever accepts from the listener calls this, not the supervisor: every connection accepted after it needs [`admit`].
///
/// # Errors
///
/// The system's: connections go on arriving.
#[cfg(cluster)]
pub(crate) fn quiesce(listener: &impl std::os::fd::AsFd) -> io::Result<()> {
    gate::close(listener)
}

/// Makes a TCP connection heard that was accepted after its listener was quiesced. Harmless for any other.
///
/// # Errors
///
/// The system's: the connection is of no use.
#[cfg(cluster)]
pub(crate) fn admit(connection: &impl std::os::fd::AsFd) -> io::Result<()> {
    gate::open(connection)
}

impl ListenerKind {
    /// All listeners, in slot order.
    pub(crate) fn sockets(&self) -> &[Socket] {
        match self {
            Self::PerSlot(sockets) => sockets,
            Self::Shared(socket) => std::slice::from_ref(socket),
        }
    }
}

impl LocalAddress {
    /// What makes a URL of a TCP address; nothing for a path, which says what it is.
    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "http://",
            Self::Unix(_) => "",
        }
    }

    fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for LocalAddress {
    /// `127.0.0.1:5000`, `unix:/run/app.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(all(test, cluster))]
mod tests;
