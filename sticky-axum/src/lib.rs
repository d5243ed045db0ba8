//! Serves an axum app on every core: one call, and each client always reaches the same worker.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use sticky_axum::Worker;
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), sticky_axum::ServeError> {
//!     let app = Router::new().route("/", get(|worker: Worker| async move { format!("worker: {}\n", worker.id()) }));
//!     sticky_axum::serve(app).await
//! }
//! ```
//!
//! `main` runs in every process of the cluster up to that call: once in the supervisor, which never goes on to serve,
//! and once in each worker. What is made only where it is needed goes into [`serve_with`].
//!
//! The client's address is in every request's extensions, so [`ConnectInfo<SocketAddr>`](axum::extract::ConnectInfo)
//! works without further ado (not on unix sockets, whose clients have no address). [`Worker`] and [`Drain`] are
//! extractors too.

mod app;
mod extract;
mod serve;

#[doc(hidden)]
pub use app::serve_worker;
pub use app::{App, serve_extra};
pub use extract::{Drain, NotAWorker, Worker};
pub use serve::{Serve, ServeFuture, ServeWith, serve, serve_with};
/// Why serving failed. Its `Debug` output is for people too: it is what a `main` that returns it prints.
pub use sticky_core::RunError as ServeError;
pub use sticky_core::{
    self, Affinity, Bus, BusError, BusMessage, Choice, Cluster, ClusterBuilder, ConfigError, Dispatch, DrainReason,
    ExtraListener, Failover, Placement, RequestHead, Role, SameSite, role,
};
