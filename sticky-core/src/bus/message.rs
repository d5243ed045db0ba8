//! What is said on the bus, and by whom.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::id::{Generation, WorkerId};

/// A process that takes part in the bus. A slot has two of them while one generation follows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct BusPeer {
    /// Its slot.
    pub worker: WorkerId,
    /// Which start of the slot it is.
    pub generation: Generation,
}

impl fmt::Display for BusPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} (generation {})", self.worker, self.generation)
    }
}

/// A message as a subscription receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusMessage {
    /// The process that published it; it may be this one.
    pub from: BusPeer,
    /// The topic it was published to.
    pub topic: Arc<str>,
    /// What was published.
    pub payload: Bytes,
}

/// What became of a published message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// How many processes had subscribed to the topic and are sent the message, this one included.
    pub subscribers: usize,
    /// How many more had subscribed, but have not read from the bus for so long that there is no room for the message:
    /// it is lost for them.
    pub missed: usize,
}

/// So many messages were dropped because a subscription was not read fast enough. They were older than every message
/// that it gives after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} messages were dropped because the subscription was not read")]
pub struct Lagged(pub u64);
