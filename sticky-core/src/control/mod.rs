//! The channel between the supervisor and each of its children: one message is one line of JSON, with the
//! descriptors that belong to it.
//!
//! ```text
//! supervisor                       worker
//!     │ ◄──────────── Hello ───────── │   versions, what must agree
//!     │ ───────────── Welcome ──────► │   identity, seed, scoreboard
//!     │ ───────────── Channels ─────► │   the ways into the other slots, where connections move
//!     │ ───────────── Extras ───────► │   the application's own listeners, where there are any
//!     │ ◄──────────── Ready ───────── │
//!     │ ───────────── Listen ───────► │   you read this slot's sockets now
//!     │ ───────────── Release ──────► │   stop reading them …
//!     │ ◄──────────── Released ────── │   … done: the next reader may start
//!     │ ◄──────────── BusJoin ─────── │   when the application first uses the bus
//!     │ ───────────── BusPeer ──────► │   a socket to each other process that does, now and later
//!     │ ───────────── BusJoined ────► │
//!     │ ───────────── Drain ────────► │
//!     │ ◄──────────── Drained ─────── │   what was completed, what was cut
//! ```
//!
//! There are a handful of these per second at most, so they can be read in a trace; unknown fields and unknown
//! messages are ignored, so that programs of different versions can talk to each other.

#[cfg(cluster)]
mod channel;
mod message;

#[cfg(cluster)]
pub(crate) use channel::{Channel, MAX_DESCRIPTORS, Received, pair};
pub(crate) use message::{
    Admission, BusPeerOrder, DrainOrder, ExtraSocket, FromWorker, Hello, ListenOrder, PROTOCOL, Part, Port,
    ReleaseOrder, SocketKind, ToWorker, Welcome, WorkerReport,
};
