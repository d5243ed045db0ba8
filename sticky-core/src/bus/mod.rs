//! Publish and subscribe between the workers of a cluster, with no server in between.
//!
//! ```text
//!   worker 0                                              worker 1
//!   publish ─► Hub ─► Link: lanes, one for each topic ─► socket ─► Pump ─► Hub ─► Mailbox ─► Subscription
//!               └───► Mailbox ─► Subscription                       │
//!                                          subscriptions of each, ◄─┘ known to all
//! ```
//!
//! Each process knows how many subscriptions each other has, so a message goes only where it is wanted, and who
//! subscribes waits until all others know. The supervisor makes one socket pair for each two processes
//! (`membership.rs`) and does nothing per message. All reading and writing is on a thread of the bus's own.

pub(crate) mod assembly;
mod error;
pub(crate) mod frame;
mod hub;
pub(crate) mod lanes;
mod link;
mod mailbox;
#[cfg(cluster)]
mod membership;
mod message;
mod peers;
#[cfg(cluster)]
mod pump;
mod subscription;
#[cfg(all(test, cluster))]
mod tests;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
#[cfg(cluster)]
use tokio::sync::mpsc::UnboundedSender;

pub use error::BusError;
use hub::{Hub, To};
use link::Fate;
pub use mailbox::BusBacklog;
#[cfg(cluster)]
use membership::Membership;
#[cfg(cluster)]
pub(crate) use membership::Wiring;
pub use message::{BusMessage, BusPeer, Lagged, Published};
pub use peers::PeerWatch;
pub use subscription::Subscription;

use crate::id::{Generation, WorkerId};
#[cfg(cluster)]
use crate::scoreboard::Headcount;
use crate::scoreboard::Row;

const MAX_TOPIC: usize = Bus::MAX_TOPIC;
pub(crate) const MAX_PAYLOAD: usize = Bus::MAX_PAYLOAD;

/// Messages between the workers of a cluster: from [`Worker::bus`](crate::Worker::bus). Cheap to clone.
///
/// Whatever is published to a topic reaches every subscription to it in every worker, the publisher's own included.
/// Nothing is kept for later ones. Without a cluster it all happens in this process. It works on any thread and in any
/// runtime, before the worker is ready and while it drains.
///
/// - **Order**: what one task publishes to a topic arrives in that order. Nothing is said about different topics: a small
///   message may overtake a large one of another topic.
/// - **Loss**: messages are lost where nobody reads, and it is said. A [`Subscription`] keeps as many as its [`BusBacklog`]
///   and then drops the oldest ([`Lagged`]). For each other process at most 64 MiB wait; while it reads, publishers wait
///   for room, and when it has taken nothing for a second, they go on without it ([`Published::missed`]). The supervisor's
///   last line counts all of that: `bus: published 812, delivered 1624, lagged 3, missed 1`.
/// - **Ends**: a process that has ended is counted nowhere as soon as what it said last has been received. What a process
///   has published and not [flushed](Self::flush) may end with it.
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
    /// How it comes to others, where there are any.
    #[cfg(cluster)]
    membership: Option<Arc<Membership>>,
}

impl Bus {
    /// The longest name of a topic, in bytes: 32 KiB.
    pub const MAX_TOPIC: usize = 32 * 1024;

    /// The largest payload of one message, in bytes: 64 MiB.
    pub const MAX_PAYLOAD: usize = 64 * 1024 * 1024;

    /// The bus of a process that has no others beside it.
    pub(crate) fn alone(worker: WorkerId, row: Row) -> Self {
        let me = BusPeer { worker, generation: Generation::FIRST };
        Self {
            hub: Arc::new(Hub::new(me, 1, row)),
            #[cfg(cluster)]
            membership: None,
        }
    }

    /// The bus of a cluster's worker: `ask` tells the supervisor that it wants to take part, and what the supervisor says
    /// about that goes where the second value leads.
    #[cfg(cluster)]
    pub(crate) fn among(
        me: BusPeer,
        workers: impl Into<Headcount>,
        row: Row,
        ask: impl Fn() + Send + Sync + 'static,
    ) -> (Self, UnboundedSender<Wiring>) {
        let hub = Arc::new(Hub::new(me, workers, row));
        let (membership, wiring) = Membership::new(Arc::clone(&hub), Box::new(ask));
        (Self { hub, membership: Some(Arc::new(membership)) }, wiring)
    }

    /// Takes part from now on.
    pub(crate) fn join(&self) -> Self {
        #[cfg(cluster)]
        if let Some(membership) = &self.membership {
            membership.join();
        }
        self.clone()
    }

    async fn connected(&self) -> Result<(), BusError> {
        #[cfg(cluster)]
        if let Some(membership) = &self.membership {
            return membership.connected().await;
        }
        Ok(())
    }

    /// Subscribes to a topic; done when every worker knows: from then on nothing that anybody publishes to it is missed.
    ///
    /// # Errors
    ///
    /// [`BusError::TopicTooLong`] and [`BusError::NotConnected`].
    pub async fn subscribe(&self, topic: &str) -> Result<Subscription, BusError> {
        self.subscribe_with(topic, BusBacklog::default()).await
    }

    /// The same for a subscription for which more or less than usual may wait.
    ///
    /// # Errors
    ///
    /// As of [`subscribe`](Self::subscribe).
    pub async fn subscribe_with(&self, topic: &str, backlog: BusBacklog) -> Result<Subscription, BusError> {
        check_topic(topic)?;
        self.connected().await?;
        let (name, mailbox, serial) = self.hub.subscribe(topic, backlog);
        // If nobody waits for the end of this any more, it unsubscribes.
        let subscription = Subscription::new(Arc::clone(&self.hub), name, mailbox);
        self.hub.settled(serial).await;
        Ok(subscription)
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
        self.send(To::All, topic, &payload).await
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
        // One that has been taken out is there until it has drained.
        let workers = &self.hub.workers;
        if !workers.includes(worker) && !self.hub.is_there(worker) {
            return Err(BusError::NoSuchWorker { worker: worker.get(), workers: workers.now() });
        }
        self.send(To::Worker(worker), topic, &payload).await
    }

    async fn send(&self, to: To, topic: &str, payload: &Bytes) -> Result<Published, BusError> {
        check(topic, payload)?;
        self.connected().await?;
        // Who publishes in a loop lets others have their turns.
        tokio::task::coop::consume_budget().await;
        let hub = &self.hub;
        hub.row.bus_published();
        let Some(targets) = hub.targets(topic, to) else { return Ok(Published::default()) };
        hub.deliver(hub.me, &targets.topic, &targets.mailboxes, payload);
        let mut published = Published { subscribers: usize::from(!targets.mailboxes.is_empty()), missed: 0 };
        // Whoever has room gets it at once; only then the others are waited for.
        let fates: Vec<_> = targets.links.iter().map(|link| link.try_send(&targets.topic, payload)).collect();
        for (link, fate) in targets.links.iter().zip(fates) {
            let fate = match fate {
                Some(fate) => fate,
                None => link.send(&targets.topic, payload).await,
            };
            match fate {
                Fate::Queued => published.subscribers += 1,
                Fate::Missed => published.missed += 1,
                Fate::Gone => {}
            }
        }
        hub.row.bus_missed(published.missed as u64);
        Ok(published)
    }

    /// Waits until everything this process has published so far is on its way, so that it arrives even if this process ends
    /// at once. Who does not read is not waited for.
    ///
    /// # Errors
    ///
    /// [`BusError::NotConnected`].
    pub async fn flush(&self) -> Result<(), BusError> {
        self.connected().await?;
        for link in self.hub.links() {
            link.flush().await;
        }
        Ok(())
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
        self.connected().await?;
        Ok(self.hub.count(topic).0)
    }

    /// How many subscriptions to the topic there are in all processes; otherwise as [`subscribers`](Self::subscribers).
    ///
    /// # Errors
    ///
    /// [`BusError::NotConnected`].
    pub async fn subscriptions(&self, topic: &str) -> Result<usize, BusError> {
        self.connected().await?;
        Ok(self.hub.count(topic).1)
    }

    /// The other processes that have a subscription to the topic: whom a question to it can be answered by, if all of them
    /// are waited for or seen [leaving](Self::watch_peers).
    ///
    /// # Errors
    ///
    /// [`BusError::NotConnected`].
    pub async fn subscribed_peers(&self, topic: &str) -> Result<Vec<BusPeer>, BusError> {
        self.connected().await?;
        Ok(self.hub.subscribed(topic))
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
        self.connected().await?;
        Ok(PeerWatch::new(self.hub.watch_peers()))
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
