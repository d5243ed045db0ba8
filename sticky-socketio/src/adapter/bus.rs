//! The way over the bus: a topic for each channel of the adapter's.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socketioxide_redis::drivers::{ChanItem, Driver, MessageStream};
use sticky_core::{Bus, BusError, BusPeer, Lagged, Subscription};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Publishes and subscribes over the bus of a cluster's workers.
#[derive(Clone)]
pub struct BusDriver {
    bus: Bus,
    /// The tasks that pass on what comes, by channel.
    readers: Arc<Mutex<HashMap<String, AbortHandle>>>,
}

impl BusDriver {
    pub(super) fn new(bus: Bus) -> Self {
        Self { bus, readers: Arc::default() }
    }

    fn readers(&self) -> MutexGuard<'_, HashMap<String, AbortHandle>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for BusDriver {
    type Error = BusError;

    async fn publish(&self, channel: String, message: Vec<u8>) -> Result<(), BusError> {
        self.bus.publish(&channel, message).await.map(drop)
    }

    async fn subscribe(&self, channel: String, size: usize) -> Result<MessageStream<ChanItem>, BusError> {
        let subscription = self.bus.subscribe(&channel).await?;
        let (sender, receiver) = mpsc::channel(size);
        let reader = tokio::spawn(pass_on(subscription, sender, self.bus.me())).abort_handle();
        if let Some(other) = self.readers().insert(channel, reader) {
            other.abort();
        }
        Ok(MessageStream::new(receiver))
    }

    async fn unsubscribe(&self, channel: String) -> Result<(), BusError> {
        if let Some(reader) = self.readers().remove(&channel) {
            reader.abort();
        }
        Ok(())
    }

    async fn num_serv(&self, channel: &str) -> Result<u16, BusError> {
        let subscribers = self.bus.subscribers(channel).await?;
        Ok(u16::try_from(subscribers).unwrap_or(u16::MAX))
    }
}

/// Passes on what others say. What this process says itself it has done already.
async fn pass_on(mut subscription: Subscription, sender: mpsc::Sender<ChanItem>, me: BusPeer) {
    loop {
        match subscription.next().await {
            Ok(message) if message.from == me => {}
            Ok(message) => {
                let item = (message.topic.to_string(), Vec::from(message.payload));
                if sender.send(item).await.is_err() {
                    return;
                }
            }
            Err(Lagged(lost)) => {
                let channel = subscription.topic();
                tracing::warn!(target: "sticky", lost, channel, "this worker is too slow for what others emit");
            }
        }
    }
}

impl fmt::Debug for BusDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusDriver").finish_non_exhaustive()
    }
}
