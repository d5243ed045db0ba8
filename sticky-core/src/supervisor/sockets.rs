//! The public sockets as the supervisor handles them: taking them at start, lending them, moving the placement.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, getrlimit};

use super::SuperviseError;
use crate::config::Config;
use crate::control::SocketKind;
use crate::dispatch::Dispatch;
use crate::dispatch::handoff::channel::{self, Pair};
use crate::dispatch::kernel::{self, AttachError, ProofError};
use crate::id::WorkerId;
use crate::listener::{self, ListenerKind, ListenerSet, LocalAddress, Sharing};
use crate::notice;
use crate::placement::KernelHash;

/// How many may wait until the admin process hears them.
const ADMIN_BACKLOG: u32 = 64;

/// Has the sockets ready that a service manager has passed.
pub(super) fn expect_passed(config: &Config) -> Result<(), SuperviseError> {
    let (names, any) = config.passed_sockets();
    Ok(listener::expect_passed(names, any)?)
}

/// Takes every address of the configuration, with a listener for each slot, those included that are not in use yet.
pub(super) fn take(config: &Config, seed: u64) -> Result<Vec<ListenerSet>, SuperviseError> {
    if config.dispatch == Dispatch::Proxy {
        // Whoever is there takes the next connection: no proxy has anything that another has not.
        return Ok(listener::take(&config.listen, Sharing::Shared, config.backlog)?);
    }
    match kernel::prove(seed, config.workers) {
        Err(error @ ProofError::Disagrees { .. }) => return Err(error.into()),
        // Loopback may be closed to us; the workers check every connection they accept all the same.
        Err(error) => notice::warn(error),
        Ok(()) => {}
    }
    let placement = KernelHash::of_all(seed, config.workers);
    Ok(listener::take(&config.listen, Sharing::PerSlot(&placement, config.max_workers), config.backlog)?)
}

/// Takes the addresses of the admin process.
pub(super) fn take_admin(config: &Config) -> Result<Vec<ListenerSet>, SuperviseError> {
    Ok(listener::take(&config.admin.0, Sharing::Private, ADMIN_BACKLOG)?)
}

/// Has the kernel place new connections among these slots only.
pub(super) fn place(listeners: &[ListenerSet], seed: u64, slots: &[WorkerId]) -> Result<(), AttachError> {
    let placement = KernelHash::new(seed, slots);
    listeners.iter().try_for_each(|set| set.place(&placement))
}

/// The slots' channels, where connections move between workers or come from proxies. Sized for this process's limit of open descriptors,
/// which the workers inherit: it has been raised before.
pub(super) fn channels(config: &Config) -> io::Result<Vec<Pair>> {
    if config.dispatch == Dispatch::Kernel {
        return Ok(Vec::new());
    }
    let slots = config.slots();
    let descriptors = getrlimit(Resource::Nofile).current;
    let buffer = channel::buffer_size(slots, descriptors);
    WorkerId::all(slots).map(|_| Pair::new(buffer)).collect()
}

/// The receiving end of a slot's channel, to lend to who reads it.
pub(super) fn channel(channels: &[Pair], slot: WorkerId) -> (Vec<SocketKind>, Vec<BorrowedFd<'_>>) {
    channels.get(slot.index()).map(|pair| (SocketKind::Channel, pair.receiver.as_fd())).into_iter().unzip()
}

/// The way between two processes on the bus: nobody else can come in there, and either hears when the other has ended.
pub(super) fn bus_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// The listeners to lend to who reads this slot's. One that all share needs no other reader when the slot's own is gone.
pub(super) fn listeners(
    listeners: &[ListenerSet],
    slot: WorkerId,
    own: bool,
) -> (Vec<SocketKind>, Vec<BorrowedFd<'_>>) {
    let lent = listeners.iter().filter_map(|set| {
        let kind = match (set.kind(), set.address()) {
            (ListenerKind::PerSlot(_), _) => SocketKind::Tcp,
            (ListenerKind::Shared(_), _) if !own => return None,
            (ListenerKind::Shared(_), LocalAddress::Tcp(_)) if set.is_kept() => SocketKind::KeptTcp,
            (ListenerKind::Shared(_), LocalAddress::Unix(_)) if set.is_kept() => SocketKind::KeptUnix,
            (ListenerKind::Shared(_), LocalAddress::Tcp(_)) => SocketKind::SharedTcp,
            (ListenerKind::Shared(_), LocalAddress::Unix(_)) => SocketKind::SharedUnix,
        };
        Some((kind, set.for_slot(slot).as_fd()))
    });
    lent.unzip()
}
