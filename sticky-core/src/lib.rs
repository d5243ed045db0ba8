//! Turns a Rust server into a supervised cluster on one port, where each client always reaches the same worker.
//!
//! ```text
//!                  owns the sockets, reads no client byte
//!   supervisor ───────────────────────────────────────────┐
//!      │ control                                          │ scoreboard
//!      ├── worker 0 ◄─┐                                   │ (shared memory)
//!      ├── worker 1 ◄─┼── the kernel places each client's ┘
//!      └── worker 2 ◄─┘   connections on its worker
//! ```
//!
//! The program starts itself again as N workers. Each has a listener of its own on the public port, and a program in
//! the kernel places every connection by a hash of the client's address: no proxy, no copied byte. Workers that
//! crash are started again while their connections wait; nobody else's client notices.
//!
//! With axum, use the crate `sticky-axum`, with actix-web `sticky-actix`. The smallest program without a framework, over the feature `http`:
//!
//! ```no_run
//! # #[cfg(feature = "http")]
//! # mod example {
//! use http_body_util::Full;
//! use hyper::body::{Bytes, Incoming};
//! use hyper::{Request, Response, service::service_fn};
//! use sticky_core::{Cluster, RunError};
//!
//! async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
//!     Ok(Response::new(Full::from("hello")))
//! }
//!
//! fn main() -> Result<(), RunError> {
//!     Cluster::builder().build()?.run(|worker| async {
//!         sticky_core::http::serve(worker, service_fn(hello)).await;
//!         Ok(())
//!     })
//! }
//! # }
//! ```
//!
//! `main` runs in every process up to the call; [`role()`] tells which one this is from its first line.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `http` | `sticky_core::http`: the accept loop for HTTP/1.1 and h2c that axum and plain hyper share |
//! | `proxy` | [`Dispatch::Proxy`] and `Cluster::run_on_port`: processes that forward requests to workers; brings `http` |
//! | `admin` | [`ClusterBuilder::admin`] and `sticky_core::admin`: a process that serves metrics and status and takes commands, and a client of it; brings `http` |
//!
//! # Settings
//!
//! See [`ClusterBuilder`]: every setting, its environment variable and its default.
//!
//! # Platforms
//!
//! Linux. Elsewhere the program serves in this one process, with a warning, so that it runs on every developer's
//! machine.

// Whoever builds without processes, HTTP, proxies or an admin process leaves parts of the rest unused.
#![cfg_attr(not(all(cluster, feature = "proxy", feature = "admin")), allow(dead_code, unused_imports, unreachable_pub))]

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(not(feature = "admin"))]
mod admin;
// Most of it is for the guard of handoff dispatch.
mod affinity;
mod bus;
mod cluster;
mod config;
mod connection;
mod control;
mod deadline;
mod dispatch;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "http")]
pub mod http;
mod id;
pub mod integration;
mod listener;
mod notice;
// The placement of keys is for the guard of handoff dispatch.
mod placement;
mod role;
mod scoreboard;
mod session;
#[cfg(cluster)]
mod supervisor;
mod sys;
mod worker;

/// Everything that can go wrong on the way into a cluster, in detail.
pub mod error {
    pub use crate::affinity::{AffinityProblem, ParseAffinityError, PathProblem};
    pub use crate::config::{ConfigProblem, Given};
    pub use crate::dispatch::{DispatchError, ParseDispatchError};
    pub use crate::listener::{AddressError, ListenError};
    pub use crate::placement::ParsePlacementError;
    pub use crate::worker::{ExtraListenerError, StandaloneError};
    #[cfg(cluster)]
    pub use crate::{
        dispatch::kernel::{AttachError, ProofError},
        listener::passed::PassedSocketError,
        scoreboard::ScoreboardError,
        supervisor::SuperviseError,
        worker::enter::JoinError,
    };
}

pub use affinity::{Affinity, Choice, SessionTag};
pub use bus::{Bus, BusBacklog, BusError, BusMessage, BusPeer, Lagged, PeerWatch, Published, Subscription};
pub use cluster::{BoxError, Cluster, RunError, StartError};
pub use config::{ClusterBuilder, ConfigError, Failover, SameSite};
pub use connection::{ClientAddr, Connection};
pub use dispatch::Dispatch;
pub use dispatch::handoff::RequestHead;
pub use id::{Generation, MAX_WORKERS, WorkerId};
pub use listener::{ListenAddress, ListenAddresses};
pub use placement::Placement;
pub use role::{Role, role};
pub use worker::{
    Connections, Drain, DrainReason, ExtraConnections, ExtraListener, Leadership, NeedsGuard, Stay, Tenure, Worker,
};
