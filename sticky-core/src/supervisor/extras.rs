//! Listeners of the application's own: taken at the start, lent to every worker, the supervisor's to the end.

use std::os::fd::{AsFd, BorrowedFd};

use super::SuperviseError;
use crate::config::Config;
use crate::control::{ExtraSocket, SocketKind, ToWorker};
use crate::listener::{self, ListenerSet, LocalAddress, Sharing};
use crate::notice;

/// All of them, by name.
#[derive(Debug)]
pub(super) struct Extras(Vec<(String, ListenerSet)>);

impl Extras {
    /// Listens on all of them.
    pub(super) fn take(config: &Config) -> Result<Self, SuperviseError> {
        let extras = config.extra_listeners.0.iter().map(|extra| {
            let address = std::slice::from_ref(&extra.address);
            let sets = listener::take(address, Sharing::Shared, config.backlog)?;
            // A host name may have several; the others are closed again.
            Ok(sets.into_iter().next().map(|set| (extra.name.clone(), set)))
        });
        Ok(Self(extras.filter_map(Result::transpose).collect::<Result<_, SuperviseError>>()?))
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a worker gets.
    pub(super) fn lend(&self) -> (ToWorker, Vec<BorrowedFd<'_>>) {
        let lent = self.0.iter().map(|(name, set)| {
            let kind = match set.address() {
                LocalAddress::Tcp(_) => SocketKind::SharedTcp,
                LocalAddress::Unix(_) => SocketKind::SharedUnix,
            };
            (ExtraSocket { name: name.clone(), kind }, set.kind().sockets()[0].as_fd())
        });
        let (listeners, descriptors) = lent.unzip();
        (ToWorker::Extras { listeners }, descriptors)
    }

    /// One line for each.
    pub(super) fn announce(&self) {
        for (name, set) in &self.0 {
            notice::info(format_args!(
                "the extra listener {name} is at {}: any worker takes any connection",
                set.address()
            ));
        }
    }

    /// Takes the files of unix sockets away.
    pub(super) fn unpublish(&self) {
        self.0.iter().for_each(|(_, set)| set.unpublish());
    }

    /// Listens no more.
    pub(super) fn close(&mut self) {
        self.0.clear();
    }
}
