//! What can go wrong between a Socket.IO server and the other workers.

use sticky_core::BusError;

/// Why a namespace could not be set up, or the other workers could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bus did not take it: its error says what to do.
    #[error("the other workers cannot be reached")]
    Bus(#[from] BusError),
    /// Choose another name: those of the topics between workers are made of it.
    #[error("a namespace's name cannot be empty or have a `#` in it")]
    MalformedNamespace,
    /// The worker is not in a tokio runtime: call this in the setup of `serve_with`, or wherever the worker serves.
    #[error("there is no tokio runtime here: Socket.IO is set up where it will be served")]
    NoRuntime,
}
