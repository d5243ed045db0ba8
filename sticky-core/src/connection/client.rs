//! Whom the requests on a connection come from, and whose they are.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dispatch::handoff::judge::Verdict;
use crate::dispatch::handoff::placer::UnderWay;

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
    /// That it is on its way there, until it is forwarded.
    under_way: Option<UnderWay>,
}

impl ClientAddr {
    /// Nobody speaks for others here.
    pub(crate) fn of(peer: Option<SocketAddr>) -> Self {
        Self(Client::Peer(peer))
    }

    /// Each message may name somebody else.
    pub(crate) fn named(peer: Option<SocketAddr>) -> Self {
        let message = Message { peer, client: peer, verdict: Verdict::Serve, under_way: None };
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

    /// The other side's address, whose the message under way is, and that it is: the first who asks has that.
    pub(crate) fn forwarding(&self) -> (Option<SocketAddr>, Verdict, Option<UnderWay>) {
        match &self.0 {
            Client::Peer(peer) => (*peer, Verdict::Serve, None),
            Client::Named(message) => {
                let mut message = lock(message);
                (message.peer, message.verdict, message.under_way.take())
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

    /// The message that begins is this worker's, and counts as under way to it from now on.
    pub(crate) fn set_verdict(&self, verdict: Verdict, under_way: Option<UnderWay>) {
        if let Client::Named(message) = &self.0 {
            let mut message = lock(message);
            (message.verdict, message.under_way) = (verdict, under_way);
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
