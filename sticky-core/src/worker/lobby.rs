//! Where connections wait until their first message is known to be this worker's.

use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::mpsc;

use super::opening::open;
use super::{Drain, Plan, Worker};
use crate::connection::{Connection, Stream};
use crate::dispatch::handoff::Handoff;
use crate::dispatch::handoff::guard::Guard;
use crate::scoreboard::Row;

/// The connections between the acceptor and the application.
#[derive(Debug)]
pub(super) struct Lobby {
    handoff: Arc<Handoff>,
    drain: Drain,
    rows: Vec<Row>,
    /// How many are waited for.
    waiting: usize,
    opened: (mpsc::UnboundedSender<Option<Connection>>, mpsc::UnboundedReceiver<Option<Connection>>),
    /// Connections that could not be sent to their owner, which is out by now.
    returned: mpsc::UnboundedReceiver<Connection>,
}

impl Lobby {
    /// To be called inside the runtime that serves.
    pub(super) fn new(plan: &Plan, worker: &Worker) -> Self {
        let senders = std::mem::take(&mut *plan.senders.lock().unwrap_or_else(PoisonError::into_inner));
        let (sender, returned) = mpsc::unbounded_channel();
        let registry = worker.inner.registry.clone();
        let handoff = Arc::new(Handoff::new(
            Arc::clone(&worker.inner.judge),
            plan.settings,
            registry,
            senders,
            sender,
            worker.drain(),
        ));
        let opened = mpsc::unbounded_channel();
        Self {
            handoff,
            drain: worker.connection_drain().clone(),
            rows: plan.rows.clone(),
            waiting: 0,
            opened,
            returned,
        }
    }

    pub(super) fn handoff(&self) -> &Arc<Handoff> {
        &self.handoff
    }

    /// Guards a connection that a client has begun. Answers it at once where its first message is here already.
    pub(super) fn admit(&mut self, connection: Connection) -> Option<Connection> {
        let peer = connection.peer_addr();
        self.wait_for(connection.guarded(Guard::new(Arc::clone(&self.handoff), peer)))
    }

    /// Waits for the first message of a guarded connection, unless that is here already. One that a proxy has made may never
    /// carry another: nobody waits for that, or the proxy would wait for us, and we for it.
    pub(super) fn wait_for(&mut self, mut connection: Connection) -> Option<Connection> {
        if self.handoff.judge().serves_proxies() {
            return Some(connection);
        }
        match connection.poll_opened(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(true)) => return Some(connection),
            // Dropping it sends it where it belongs.
            Poll::Ready(_) => return None,
            Poll::Pending => {}
        }
        self.waiting += 1;
        let (opened, drain) = (self.opened.0.clone(), self.drain.clone());
        tokio::spawn(async move {
            let mut awaited = Awaited { opened, connection: None };
            awaited.connection = open(connection, drain).await;
        });
        None
    }

    /// The next connection whose first message is this worker's.
    pub(super) fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Connection> {
        while let Poll::Ready(Some(connection)) = self.returned.poll_recv(cx) {
            if let Some(connection) = self.wait_for(connection) {
                return Poll::Ready(connection);
            }
        }
        while let Poll::Ready(Some(opened)) = self.opened.1.poll_recv(cx) {
            self.waiting -= 1;
            if let Some(connection) = opened {
                return Poll::Ready(connection);
            }
        }
        Poll::Pending
    }

    /// Whether there is nothing here that may still be another worker's.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0 && self.handoff.has_sent_all()
    }

    /// Whether nobody waits here for a first message, wherever those that did have gone.
    pub(super) fn is_cleared(&self) -> bool {
        self.waiting == 0
    }

    /// Whether any process of the cluster may still have new connections of others.
    pub(super) fn somebody_accepts(&self) -> bool {
        self.rows.iter().any(Row::may_accept)
    }
}

/// Tells the acceptor what has become of a connection, whatever becomes of the task that waits for it.
struct Awaited {
    opened: mpsc::UnboundedSender<Option<Connection>>,
    connection: Option<Connection>,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        // Nobody takes it any more when the worker has ended.
        let _ = self.opened.send(self.connection.take());
    }
}

/// A connection on its way to nobody: who it is for is not there, and the configuration says to refuse.
pub(super) fn refuse(stream: Stream) {
    tokio::spawn(super::farewell::say(super::Answer::Unavailable, stream, ()));
}
