//! Publish and subscribe between the workers of a cluster, with no server in between.

mod error;
mod hub;
mod mailbox;
mod message;
mod peers;
mod subscription;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use error::BusError;
use hub::Hub;
pub use mailbox::Backlog;
pub use message::{BusMessage, BusPeer, Lagged, Published};
pub use peers::PeerWatch;
pub use subscription::Subscription;

use crate::id::{Generation, WorkerId};

/// The longest name of a topic, in bytes.
pub const MAX_TOPIC: usize = 32 * 1024;

/// The largest payload of one message, in bytes: 64 MiB.
pub const MAX_PAYLOAD: usize = 64 * 1024 * 1024;

/// Messages between the workers of a cluster: from [`Worker::bus`](crate::Worker::bus). Cheap to clone.
///
/// Whatever is published to a topic reaches every subscription to it in every worker, the publisher's own included.
/// Nothing is kept for later ones. Without a cluster it all happens in this process.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let bus = sticky_core::Worker::detached().bus();
/// let mut news = bus.subscribe("news").await?;
/// let published = bus.publish("news", "hello").await?;
/// assert_eq!(published.subscribers, 1);
/// assert_eq!(news.next().await.unwrap().payload, "hello");
/// # Ok::<(), sticky_core::BusError>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Bus {
    hub: Arc<Hub>,
}

impl Bus {
    /// The bus of a process that has no others beside it.
    pub(crate) fn alone(worker: WorkerId, generation: Generation, workers: u16) -> Self {
        Self { hub: Arc::new(Hub::new(BusPeer { worker, generation }, workers)) }
    }

    /// Subscribes to a topic; done when every worker knows: from then on nothing that anybody publishes to it is missed.
    ///
    /// # Errors
    ///
    /// [`BusError::TopicTooLong`] and [`BusError::NotConnected`].
    pub async fn subscribe(&self, topic: &str) -> Result<Subscription, BusError> {
        self.subscribe_with(topic, Backlog::default()).await
    }

    /// The same for a subscription for which more or less than usual may wait.
    ///
    /// # Errors
    ///
    /// As of [`subscribe`](Self::subscribe).
    pub async fn subscribe_with(&self, topic: &str, backlog: Backlog) -> Result<Subscription, BusError> {
        check_topic(topic)?;
        let (name, mailbox) = self.hub.subscribe(topic, backlog);
        Ok(Subscription::new(Arc::clone(&self.hub), name, mailbox))
    }

    /// Publishes a message to every subscription of the topic. Done when it is in the queue of each process that has
    /// one; a process that does not read is waited for, but not for ever.
    ///
    /// One after the other, messages of this process to a topic arrive in order. If this is dropped before it is done,
    /// the message reaches some processes and others not.
    ///
    /// # Errors
    ///
    /// [`BusError::TopicTooLong`], [`BusError::PayloadTooLarge`] and [`BusError::NotConnected`]: nothing was published.
    pub async fn publish(&self, topic: &str, payload: impl Into<Bytes>) -> Result<Published, BusError> {
        let payload = payload.into();
        check(topic, &payload)?;
        let heard = self.hub.deliver(self.hub.me, topic, &payload);
        Ok(Published { subscribers: usize::from(heard > 0), missed: 0 })
    }

    /// Publishes a message to the subscriptions of the topic in one worker only; with
    /// [`Worker::owner_of`](crate::Worker::owner_of), in the one that has a session. While two generations of the slot
    /// live, to the newest that has subscribed.
    ///
    /// Keeps its place among the other messages of this process to the topic.
    ///
    /// # Errors
    ///
    /// As of [`publish`](Self::publish), and [`BusError::NoSuchWorker`].
    pub async fn send_to(
        &self,
        worker: WorkerId,
        topic: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Published, BusError> {
        let payload = payload.into();
        check(topic, &payload)?;
        let Hub { me, workers, .. } = *self.hub;
        if worker.get() >= workers {
            return Err(BusError::NoSuchWorker { worker: worker.get(), workers });
        }
        let heard = if worker == me.worker { self.hub.deliver(me, topic, &payload) } else { 0 };
        Ok(Published { subscribers: usize::from(heard > 0), missed: 0 })
    }

    /// How many processes have a subscription to the topic, this one included.
    ///
    /// Exact: who has subscribed is counted from before its [`subscribe`](Self::subscribe) is done until it has
    /// unsubscribed or ended.
    ///
    /// # Errors
    ///
    /// [`BusError::NotConnected`].
    pub async fn subscribers(&self, topic: &str) -> Result<usize, BusError> {
        Ok(usize::from(self.hub.subscriptions(topic) > 0))
    }

    /// How many subscriptions to the topic there are in all processes; otherwise as [`subscribers`](Self::subscribers).
    ///
    /// # Errors
    ///
    /// [`BusError::NotConnected`].
    pub async fn subscriptions(&self, topic: &str) -> Result<usize, BusError> {
        Ok(self.hub.subscriptions(topic))
    }

    /// The other processes that take part in the bus: those that have called [`Worker::bus`](crate::Worker::bus).
    ///
    /// # Errors
    ///
    /// [`BusError::NotConnected`].
    pub async fn peers(&self) -> Result<Arc<[BusPeer]>, BusError> {
        Ok(self.watch_peers().await?.peers())
    }

    /// Tells when other processes come and go: whoever waits for an answer of each of them need not wait for one that
    /// has ended.
    ///
    /// # Errors
    ///
    /// [`BusError::NotConnected`].
    pub async fn watch_peers(&self) -> Result<PeerWatch, BusError> {
        Ok(PeerWatch::new(self.hub.peers()))
    }

    /// This process, as the others see it in [`BusMessage::from`].
    pub fn me(&self) -> BusPeer {
        self.hub.me
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("me", &self.hub.me).finish_non_exhaustive()
    }
}

fn check_topic(topic: &str) -> Result<(), BusError> {
    match topic.len() {
        len if len > MAX_TOPIC => Err(BusError::TopicTooLong { len }),
        _ => Ok(()),
    }
}

fn check(topic: &str, payload: &Bytes) -> Result<(), BusError> {
    check_topic(topic)?;
    match payload.len() {
        len if len > MAX_PAYLOAD => Err(BusError::PayloadTooLarge { len }),
        _ => Ok(()),
    }
}
