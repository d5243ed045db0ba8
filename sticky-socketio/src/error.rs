//! What can go wrong between a Socket.IO server and the other workers.

use sticky_core::BusError;

/// Why a namespace could not be set up, or the other workers could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bus did not take it: its error says what to do.
    #[error("the other workers cannot be reached")]
    Bus(#[from] BusError),
    /// Redis did not take it: its error says why. The next attempt connects anew.
    #[cfg(feature = "redis")]
    #[error("the other servers cannot be reached by Redis")]
    Redis(#[from] redis::RedisError),
    /// Build the program with the feature `redis` of `sticky-socketio`, or take the setting away.
    #[error(
        "redis_url (STICKY_REDIS_URL) is set, and this program was built without the feature `redis` of sticky-socketio"
    )]
    WithoutRedis,
    /// Emit something that serde can write.
    #[error("what is to be said to other servers cannot be written")]
    Encode(#[from] rmp_serde::encode::Error),
    /// Choose another name: those of the topics between workers are made of it.
    #[error("a namespace's name cannot be empty or have a `#` in it")]
    MalformedNamespace,
    /// The worker is not in a tokio runtime: call this in the setup of `serve_with`, or wherever the worker serves.
    #[error("there is no tokio runtime here: Socket.IO is set up where it will be served")]
    NoRuntime,
}
