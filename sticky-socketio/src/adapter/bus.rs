//! The way over the bus: a topic for each channel of the adapter's.
//!
//! ```text
//!  adapter ── question ──► topic of the namespace ──► every other worker
//!          ◄── answers ─── topic of this server   ◄── each of them
//!                  └─ in place of workers that have died: empty ones (Ledger)
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use socketioxide_redis::drivers::{ChanItem, MessageStream};
use sticky_core::{Bus, BusError, BusMessage, BusPeer, Lagged, PeerWatch, Subscription};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

pub(super) use super::ledger::Kind;
use super::ledger::Ledger;
use super::wire;

/// In the name of each channel that answers come by.
const ANSWERS: &str = "-response#";

tokio::task_local! {
    /// What the adapter is about to ask, in the task that asks.
    static ASKING: RefCell<Asking>;
}

/// A question that is being put.
struct Asking {
    kind: Kind,
    patience: Duration,
    /// The servers that were counted for it; none if it is to one server only.
    servers: Option<Vec<BusPeer>>,
}

/// Publishes and subscribes over the bus of a cluster's workers, for one namespace.
#[derive(Clone)]
pub struct BusDriver {
    bus: Bus,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The tasks that pass on what comes, by channel.
    readers: Mutex<HashMap<String, AbortHandle>>,
    ledger: Mutex<Ledger<BusPeer>>,
    /// A question was asked of somebody who may be gone already.
    asked: Notify,
}

impl BusDriver {
    pub(super) fn new(bus: Bus) -> Self {
        Self { bus, shared: Arc::default() }
    }

    /// Runs `ask`, in which the adapter asks one question of this kind, whose answers are waited for so long.
    pub(super) async fn asking<F: Future>(kind: Kind, patience: Duration, ask: F) -> F::Output {
        ASKING.scope(RefCell::new(Asking { kind, patience, servers: None }), ask).await
    }

    /// Notes a question that is about to be published.
    async fn note(&self, channel: &str, message: &[u8]) -> Result<(), BusError> {
        let Ok((kind, patience, servers)) = ASKING.try_with(|asking| {
            let mut asking = asking.borrow_mut();
            (asking.kind, asking.patience, asking.servers.take())
        }) else {
            return Ok(());
        };
        let Some(id) = wire::question(message) else { return Ok(()) };
        let mut servers = match servers {
            Some(servers) => servers,
            // To one server, which has a channel of its own.
            None => self.bus.subscribed_peers(channel).await?,
        };
        if servers.is_empty() {
            // Nobody is there who could be waited for: as if it had died just now.
            servers.push(self.bus.me());
        }
        let now = Instant::now();
        lock(&self.shared.ledger).ask(id, kind, &servers, now + patience, now);
        self.shared.asked.notify_one();
        Ok(())
    }

    pub(super) async fn publish(&self, channel: String, message: Vec<u8>) -> Result<(), BusError> {
        self.note(&channel, &message).await?;
        self.bus.publish(&channel, message).await.map(drop)
    }

    pub(super) async fn subscribe(&self, channel: String, size: usize) -> Result<MessageStream<ChanItem>, BusError> {
        let subscription = self.bus.subscribe(&channel).await?;
        let (sender, receiver) = mpsc::channel(size);
        let me = self.bus.me();
        let reader = if channel.contains(ANSWERS) {
            let watch = self.bus.watch_peers().await?;
            let answers = Answers { subscription, watch, shared: Arc::clone(&self.shared), sender };
            tokio::spawn(answers.pass_on())
        } else {
            tokio::spawn(pass_on(subscription, sender, me))
        };
        if let Some(other) = lock(&self.shared.readers).insert(channel, reader.abort_handle()) {
            other.abort();
        }
        Ok(MessageStream::new(receiver))
    }

    pub(super) fn unsubscribe(&self, channel: &str) {
        if let Some(reader) = lock(&self.shared.readers).remove(channel) {
            reader.abort();
        }
    }

    /// How many servers have subscribed to a channel, this one included.
    pub(super) async fn subscribers(&self, channel: &str) -> Result<u16, BusError> {
        let servers = self.bus.subscribed_peers(channel).await?;
        let count = u16::try_from(servers.len() + 1).unwrap_or(u16::MAX);
        // Outside of a question nobody needs to know who they are.
        let _ = ASKING.try_with(|asking| asking.borrow_mut().servers = Some(servers));
        Ok(count)
    }
}

/// Passes on what others say. What this process says itself it has done already.
async fn pass_on(mut subscription: Subscription, sender: mpsc::Sender<ChanItem>, me: BusPeer) {
    loop {
        match subscription.next().await {
            Ok(message) if message.from == me => {}
            Ok(message) => {
                if sender.send(item(message)).await.is_err() {
                    return;
                }
            }
            Err(lagged) => warn(lagged, subscription.topic()),
        }
    }
}

/// The answers to what this server asks.
struct Answers {
    subscription: Subscription,
    watch: PeerWatch,
    shared: Arc<Shared>,
    sender: mpsc::Sender<ChanItem>,
}

impl Answers {
    /// Passes on what is owed, and what comes in its place.
    async fn pass_on(mut self) {
        loop {
            let message = tokio::select! {
                biased;
                message = self.subscription.next() => Some(message),
                _ = self.watch.changed() => None,
                () = self.shared.asked.notified() => None,
            };
            let passed = match message {
                Some(message) => self.hear(message).await,
                None => self.settle().await,
            };
            if passed.is_none() {
                return;
            }
        }
    }

    async fn hear(&self, message: Result<BusMessage, Lagged>) -> Option<()> {
        match message {
            Ok(message) if lock(&self.shared.ledger).hear(message.from, &message.payload) => {
                self.sender.send(item(message)).await.ok()
            }
            Ok(_) => Some(()),
            Err(lagged) => {
                warn(lagged, self.subscription.topic());
                Some(())
            }
        }
    }

    /// Answers in place of those who are gone, once everything that they have said has been heard.
    async fn settle(&mut self) -> Option<()> {
        let there = self.watch.peers();
        while let Some(message) = now(self.subscription.next()) {
            self.hear(message).await?;
        }
        let answers = lock(&self.shared.ledger).settle(|server| there.contains(&server));
        for answer in answers {
            self.sender.send((self.subscription.topic().to_owned(), answer)).await.ok()?;
        }
        Some(())
    }
}

/// What a future gives at once, if it does.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn item(message: BusMessage) -> ChanItem {
    (message.topic.to_string(), Vec::from(message.payload))
}

fn warn(Lagged(lost): Lagged, channel: &str) {
    tracing::warn!(target: "sticky", lost, channel, "this worker is too slow for what others emit");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for BusDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusDriver").finish_non_exhaustive()
    }
}
