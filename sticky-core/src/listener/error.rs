//! Why the cluster cannot listen.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

#[cfg(cluster)]
use super::passed::PassedSocketError;
#[cfg(cluster)]
use crate::dispatch::kernel::AttachError;
#[cfg(cluster)]
use crate::listener::ListenAddress;

/// Why the cluster cannot listen on an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another program has the port, or this one is already running: stop it, or choose another port.
    #[error("cannot listen on {address}: another program is already listening on port {}", address.port())]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Ports below 1024 are for root, or a program with CAP_NET_BIND_SERVICE: choose a higher one.
    #[error(
        "cannot listen on {address}: no permission for port {} (below 1024 it takes root or CAP_NET_BIND_SERVICE)",
        address.port()
    )]
    Forbidden {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address belongs to another machine, or to a protocol that is switched off here.
    #[error("cannot listen on {address}: this machine has no such address")]
    NotHere {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The name cannot be resolved: correct it, or give an IP address.
    #[error("cannot listen on {host}: the name cannot be resolved")]
    Resolve {
        /// The name asked for.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The name resolves to nothing that this machine could listen on.
    #[error("cannot listen on {host}: the name has no address of this machine")]
    NoAddress {
        /// The name asked for.
        host: String,
    },
    /// Another program answers on the unix socket: stop it, or choose another path.
    #[error("cannot listen on unix:{}: another program is already listening there", path.display())]
    PathInUse {
        /// The path asked for.
        path: PathBuf,
    },
    /// The path names something that is not a socket, and so is not ours to remove.
    #[error("cannot listen on unix:{}: there is something that is not a socket", path.display())]
    NotASocket {
        /// The path asked for.
        path: PathBuf,
    },
    /// The service manager has not passed such a socket.
    #[cfg(cluster)]
    #[error("cannot listen on {address}")]
    Passed {
        /// The address asked for.
        address: String,
        /// Why not.
        #[source]
        source: PassedSocketError,
    },
    /// The system refused for another reason.
    #[error("cannot listen on {address}: {attempt} failed")]
    System {
        /// The address asked for.
        address: String,
        /// What was attempted.
        attempt: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel did not take the placement of connections on slots.
    #[cfg(cluster)]
    #[error("cannot listen on {address} with kernel placement")]
    Place {
        /// The address asked for.
        address: SocketAddr,
        /// Why it did not.
        #[source]
        source: AttachError,
    },
}

impl ListenError {
    /// The error for what failed at a TCP address.
    pub(super) fn tcp(address: SocketAddr, attempt: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { address },
            io::ErrorKind::PermissionDenied if (1..1024).contains(&address.port()) => Self::Forbidden { address },
            _ if is_unknown_family(&source) => Self::NotHere { address },
            _ => Self::System { address: address.to_string(), attempt, source },
        }
    }

    #[cfg(cluster)]
    pub(crate) fn passed(address: &ListenAddress, source: PassedSocketError) -> Self {
        Self::Passed { address: address.to_string(), source }
    }

    /// Whether this machine simply does not have the address.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::NotHere { .. })
    }
}

#[cfg(target_os = "linux")]
fn is_unknown_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[cfg(not(target_os = "linux"))]
fn is_unknown_family(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}
