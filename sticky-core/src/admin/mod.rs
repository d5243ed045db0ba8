//! Looking into a running cluster from outside, and asking something of it.
//!
//! ```text
//!  sticky status, curl, Prometheus ── HTTP ──► admin process ── reads ──► scoreboard (shared memory)
//!                                               │        ▲
//!                                  Command ─────┘        └──── News, Happening, Progress
//!                                               ▼        │
//!                                              supervisor
//! ```
//!
//! The admin process is started and kept by the supervisor like a worker, but in no slot. All that comes in from outside is
//! read there: the supervisor gets commands that are one of a few, and says what has changed when it has; it does nothing
//! for a scrape. If the admin process ends it is started again, and told everything anew; nobody's client notices.
//!
//! | | | |
//! |---|---|---|
//! | `GET /metrics` | OpenMetrics, or the older text format for those who do not ask for it | |
//! | `GET /status` | [`Status`] | |
//! | `GET /healthz` | 200 while the supervisor is there | |
//! | `GET /readyz` | 200 while workers accept, 503 while the cluster starts or ends | |
//! | `GET /events` | a [`Happening`] a line, as they happen | unix sockets |
//! | `POST /reload` | [`Command::Reload`] | unix sockets |
//! | `POST /workers/2/restart` | [`Command::Restart`] | unix sockets |
//! | `POST /workers/2/drain` | [`Command::Drain`] | unix sockets |
//! | `POST /scale/8` | [`Command::Scale`] | unix sockets |
//! | `POST /reexec` | [`Command::Reexec`] | unix sockets |
//!
//! A command is answered with its first [`Progress`]: 202, or 409 if it is refused. With `?wait` it is 200 and every
//! [`Progress`] to the last, one a line.
//!
//! # Metrics
//!
//! Those of slots have the label `worker="2"`, or `proxy="0"`. What [`Worker::export_metrics`](crate::Worker::export_metrics) tells
//! comes with them, and `sticky_exported_lines_dropped` says how many lines of that are not shown.
#![doc = include_str!("metrics.md")]

#[cfg(all(unix, feature = "admin"))]
mod client;
mod command;
mod happening;
mod news;
#[cfg(all(cluster, feature = "admin"))]
mod server;
mod status;

use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(all(unix, feature = "admin"))]
pub use self::client::{Client, ClientError, Lines};
pub use self::command::{Command, Progress};
pub use self::happening::Happening;
pub(crate) use self::news::{ClusterView, News, ProcessView, SlotView, View};
#[cfg(all(cluster, feature = "admin"))]
pub use self::server::ServeError;
#[cfg(all(cluster, feature = "admin"))]
pub(crate) use self::server::run;
pub use self::status::{
    ClusterState, ProcessState, ProcessStatus, ReloadStatus, SlotKind, SlotState, SlotStatus, Status,
};

/// The time, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
