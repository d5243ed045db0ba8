//! For integrations: what a framework needs around it that minds neither clients' time, nor drains, nor sessions.
//!
//! The integration of axum, over the feature `http`, needs nothing of this. One whose framework takes sockets does:
//!
//! ```text
//!  Connections ──► Attended ──► framework: what it takes for a socket
//!                     │             │ requests ──► Attendance::begin ──► InFlight ──► application
//!                  attendance()     │ responses ◄── InFlight::answer ◄──────────────────┘
//!                     └──► Attendance::look_after(the framework's future): timers and drain
//! ```
//!
//! The cluster's `first_byte_timeout`, `head_timeout` (answered with 408) and `idle_timeout` hold then, a drain ends
//! connections between two requests, requests are counted, and sessions stay where they were made. For that the
//! framework has to close on end-of-stream without a word where no response is outstanding, as HTTP servers do.
//!
//! Applications need nothing of this; it changes more often than the rest.

mod attendance;
mod attended;
mod fields;
pub(crate) mod forwarded;
mod goaway;
mod keeper;

pub use self::attendance::{Attendance, InFlight};
pub use self::attended::{Attended, Protocol};
pub use self::fields::{Field, Fields};
#[cfg(any(test, feature = "proxy"))]
pub(crate) use self::keeper::came_by_https;
pub(crate) use self::keeper::{Keeper, Visit};
pub use crate::affinity::parameters;

/// Has a program that a worker starts killed when the worker is.
///
/// The thread that spawns it must live as long as it should.
#[cfg(cluster)]
pub fn end_with_parent(command: &mut std::process::Command) {
    crate::sys::exec::end_with_parent(command);
}

#[cfg(all(test, unix))]
mod tests;
