//! Whose client a connection has that cannot move, once the number of workers has changed.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};

use super::Worker;
use crate::id::WorkerId;
use crate::placement::KernelHash;

/// Where the client of a connection is at home that the kernel has placed.
///
/// Its next connection goes there. If that is elsewhere from now on, this one must not go on for ever beside it.
pub(crate) struct Home {
    worker: Worker,
    client: IpAddr,
    /// How many workers there were when this was last looked at.
    workers: AtomicU16,
    is_elsewhere: AtomicBool,
}

impl Worker {
    /// The home of this client, where the kernel places connections and they stay where they are.
    pub(crate) fn home_of(&self, client: Option<SocketAddr>) -> Option<Home> {
        let can_change = self.inner.plan.is_none() && self.inner.placement.is_some() && self.inner.workers.room() > 1;
        let client = client.filter(|_| can_change)?.ip();
        let (workers, is_elsewhere) = (AtomicU16::new(self.workers()), AtomicBool::new(false));
        Some(Home { worker: self.clone(), client, workers, is_elsewhere })
    }
}

impl Home {
    /// Whether workers have been added or taken out, and the client is another's because of that. Where it is served in the
    /// place of one that does not run, that goes on.
    #[inline]
    pub(crate) fn is_elsewhere(&self) -> bool {
        let now = self.worker.workers();
        if now != self.workers.load(Relaxed) {
            self.look(now);
        }
        self.is_elsewhere.load(Relaxed)
    }

    #[cold]
    fn look(&self, now: u16) {
        let before = self.workers.swap(now, Relaxed);
        let Some(placement) = &self.worker.inner.placement else { return };
        let own = Some(self.worker.id());
        if owner(placement, self.client, now) == own {
            self.is_elsewhere.store(false, Relaxed);
        } else if owner(placement, self.client, before) == own {
            self.is_elsewhere.store(true, Relaxed);
        }
    }
}

fn owner(placement: &KernelHash, client: IpAddr, workers: u16) -> Option<WorkerId> {
    placement.first_among(workers, client, |_| true)
}
