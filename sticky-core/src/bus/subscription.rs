//! What a process hears of one topic.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::hub::Hub;
use super::mailbox::Mailbox;
use super::message::{BusMessage, Lagged};

/// The messages of one topic, from [`Bus::subscribe`](super::Bus::subscribe). Dropping it unsubscribes.
///
/// Also a [`Stream`] that never ends.
#[must_use = "it unsubscribes when it is dropped"]
pub struct Subscription {
    hub: Arc<Hub>,
    topic: Arc<str>,
    mailbox: Arc<Mailbox>,
}

impl Subscription {
    pub(super) fn new(hub: Arc<Hub>, topic: Arc<str>, mailbox: Arc<Mailbox>) -> Self {
        Self { hub, topic, mailbox }
    }

    /// The topic it is a subscription of.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The next message. Messages of one publisher come in the order in which it published them.
    ///
    /// Nothing is lost if this is dropped before it is done.
    ///
    /// # Errors
    ///
    /// [`Lagged`] when messages have been dropped; the next call gives the oldest that was not.
    pub async fn next(&mut self) -> Result<BusMessage, Lagged> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Result<BusMessage, Lagged>> {
        // Who reads a topic on which there is always something lets others have their turns.
        let turn = ready!(tokio::task::coop::poll_proceed(context));
        self.mailbox.poll(context).map(|next| {
            turn.made_progress();
            next
        })
    }

    /// Unsubscribes; done when every worker knows and no [count](super::Bus::subscribers) contains it any more. To drop it
    /// is enough where that does not matter.
    pub async fn unsubscribe(self) {
        let hub = Arc::clone(&self.hub);
        drop(self);
        hub.settled(hub.ask()).await;
    }
}

impl Stream for Subscription {
    type Item = Result<BusMessage, Lagged>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context).map(Some)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.unsubscribe(&self.topic, &self.mailbox);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("topic", &self.topic).finish_non_exhaustive()
    }
}
