//! What can be wrong with a message, and when there is no bus.

use super::{MAX_PAYLOAD, MAX_TOPIC};

/// Why the bus did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The topic's name is too long: shorten or hash it.
    #[error("a topic of {len} bytes is too long: at most {MAX_TOPIC} are allowed")]
    TopicTooLong {
        /// The length of the name, in bytes.
        len: usize,
    },
    /// The payload is too large: send it in parts, or send where it can be had.
    #[error("a message of {len} bytes is too large: at most {MAX_PAYLOAD} are allowed")]
    PayloadTooLarge {
        /// The length of the payload, in bytes.
        len: usize,
    },
    /// There is no such slot in the cluster.
    #[error("there is no worker {worker}: this cluster has {workers}, counted from 0")]
    NoSuchWorker {
        /// The slot asked for.
        worker: u16,
        /// How many slots there are.
        workers: u16,
    },
    /// The supervisor does not connect this process with the others: it is stopped, or this process has no thread or
    /// descriptor left. Trying again makes sense.
    #[error("the supervisor has not connected this worker with the others")]
    NotConnected,
}
