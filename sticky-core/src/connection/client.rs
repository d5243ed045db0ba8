//! Whom the requests on a connection come from.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// Whom the requests on one connection come from. Cheap to clone.
///
/// Behind a trusted proxy the answer changes from request to request; ask when one arrives.
#[derive(Clone, Debug)]
pub struct ClientAddr(Client);

#[derive(Clone, Debug)]
enum Client {
    Peer(Option<SocketAddr>),
    /// The other side's address, and whom it speaks for.
    Named(Arc<Mutex<(Option<SocketAddr>, Option<SocketAddr>)>>),
}

impl ClientAddr {
    /// Nobody speaks for others here.
    pub(crate) fn of(peer: Option<SocketAddr>) -> Self {
        Self(Client::Peer(peer))
    }

    /// Each message may name somebody else.
    pub(crate) fn named(peer: Option<SocketAddr>) -> Self {
        Self(Client::Named(Arc::new(Mutex::new((peer, peer)))))
    }

    /// The client's address; with port 0 where it is a proxy that says so, since proxies seldom name the port. `None` on
    /// a unix socket whose other side names nobody.
    pub fn get(&self) -> Option<SocketAddr> {
        match &self.0 {
            Client::Peer(peer) => *peer,
            Client::Named(named) => named.lock().unwrap_or_else(PoisonError::into_inner).1,
        }
    }

    /// The message that begins comes from this client.
    pub(crate) fn set(&self, client: Option<IpAddr>) {
        if let Client::Named(named) = &self.0 {
            let mut named = named.lock().unwrap_or_else(PoisonError::into_inner);
            let peer = named.0.filter(|peer| client.is_none_or(|client| client == peer.ip()));
            named.1 = peer.or_else(|| client.map(|client| SocketAddr::new(client, 0)));
        }
    }

    /// The other side turns out to be this one.
    pub(crate) fn set_peer(&self, peer: SocketAddr) {
        if let Client::Named(named) = &self.0 {
            *named.lock().unwrap_or_else(PoisonError::into_inner) = (Some(peer), Some(peer));
        }
    }
}
