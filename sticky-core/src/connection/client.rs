//! Whom the requests on a connection come from, and whose they are.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dispatch::handoff::judge::Verdict;

/// Whom the requests on one connection come from. Cheap to clone.
///
/// Behind a trusted proxy the answer changes from request to request; ask when one arrives.
#[derive(Clone, Debug)]
pub struct ClientAddr(Client);

#[derive(Clone, Debug)]
enum Client {
    Peer(Option<SocketAddr>),
    Named(Arc<Mutex<Message>>),
}

/// What is known of the message under way.
#[derive(Debug)]
struct Message {
    /// The other side's address.
    peer: Option<SocketAddr>,
    /// Whom that speaks for.
    client: Option<SocketAddr>,
    /// Whose the message is, where it is forwarded there.
    verdict: Verdict,
}

impl ClientAddr {
    /// Nobody speaks for others here.
    pub(crate) fn of(peer: Option<SocketAddr>) -> Self {
        Self(Client::Peer(peer))
    }

    /// Each message may name somebody else.
    pub(crate) fn named(peer: Option<SocketAddr>) -> Self {
        let message = Message { peer, client: peer, verdict: Verdict::Serve };
        Self(Client::Named(Arc::new(Mutex::new(message))))
    }

    /// The client's address; with port 0 where it is a proxy that says so, since proxies seldom name the port. `None` on
    /// a unix socket whose other side names nobody.
    pub fn get(&self) -> Option<SocketAddr> {
        match &self.0 {
            Client::Peer(peer) => *peer,
            Client::Named(message) => lock(message).client,
        }
    }

    /// The other side's address, and whose the message under way is.
    pub(crate) fn forwarding(&self) -> (Option<SocketAddr>, Verdict) {
        match &self.0 {
            Client::Peer(peer) => (*peer, Verdict::Serve),
            Client::Named(message) => {
                let message = lock(message);
                (message.peer, message.verdict)
            }
        }
    }

    /// The message that begins comes from this client.
    pub(crate) fn set(&self, client: Option<SocketAddr>) {
        if let Client::Named(message) = &self.0 {
            let mut message = lock(message);
            message.client = client.or(message.peer);
        }
    }

    /// The message that begins is this worker's.
    pub(crate) fn set_verdict(&self, verdict: Verdict) {
        if let Client::Named(message) = &self.0 {
            lock(message).verdict = verdict;
        }
    }

    /// The other side turns out to be this one.
    pub(crate) fn set_peer(&self, peer: SocketAddr) {
        if let Client::Named(message) = &self.0 {
            let mut message = lock(message);
            (message.peer, message.client) = (Some(peer), Some(peer));
        }
    }
}

fn lock(message: &Mutex<Message>) -> MutexGuard<'_, Message> {
    message.lock().unwrap_or_else(PoisonError::into_inner)
}
