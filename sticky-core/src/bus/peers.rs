//! Who else is there.

use std::sync::Arc;

use tokio::sync::watch;

use super::message::BusPeer;

/// Tells when other processes come and go, from [`Bus::watch_peers`](super::Bus::watch_peers).
///
/// A process that has ended is missing as soon as the kernel has closed its sockets, and only after every message of it
/// has reached the subscriptions: who waits for answers need not wait for those of a process that is not here any more.
#[derive(Clone, Debug)]
pub struct PeerWatch {
    peers: watch::Receiver<Arc<[BusPeer]>>,
}

impl PeerWatch {
    pub(super) fn new(peers: watch::Receiver<Arc<[BusPeer]>>) -> Self {
        Self { peers }
    }

    /// The other processes on the bus, in the order of their slots. Changes up to now are not news to
    /// [`changed`](Self::changed) any more.
    pub fn peers(&mut self) -> Arc<[BusPeer]> {
        Arc::clone(&self.peers.borrow_and_update())
    }

    /// Waits until they are others than this watch has last told, and tells them.
    ///
    /// Nothing is lost if this is dropped before it is done.
    pub async fn changed(&mut self) -> Arc<[BusPeer]> {
        if self.peers.changed().await.is_err() {
            // The bus is gone, so nobody comes or goes.
            std::future::pending::<()>().await;
        }
        self.peers()
    }
}
