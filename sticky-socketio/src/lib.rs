//! Socket.IO on every core: one call, and each session stays in its worker while rooms span all of them.
//!
//! ```no_run
//! use sticky_socketio::extract::SocketRef;
//!
//! async fn on_connect(socket: SocketRef) {
//!     socket.on("message", async |socket: SocketRef| {
//!         socket.broadcast().emit("hello", "everyone").await.ok();
//!     });
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), sticky_socketio::ServeError> {
//!     sticky_socketio::serve(|io| async move {
//!         io.ns("/", on_connect).await?;
//!         Ok(())
//!     })
//!     .await
//! }
//! ```
//!
//! Handlers are [socketioxide]'s: those that exist need one changed import, `sticky_socketio::extract::SocketRef` for
//! `socketioxide::extract::SocketRef` and so on. What is different is behind them:
//!
//! - **Sessions stay where they are.** The id of a polling session has its worker's number after it, so that every poll,
//!   POST and upgrade of it reaches that worker, whatever connection it comes on and however soon. Before that, and for
//!   version 3 of the protocol, a sticky cookie or the client's address decides. New sessions go to the worker with the
//!   fewest connections. All of that is the default affinity, `engine-io|sticky-cookie` with `fewest-connections`;
//!   `STICKY_AFFINITY` and `STICKY_PLACEMENT` change it.
//! - **Rooms span all workers.** What is emitted to a namespace or a room reaches its sockets wherever they are, without
//!   a server in between; so do acknowledgements, `fetch_sockets` and the rest of the adapter's. A worker that dies is
//!   not waited for.
//! - **Servers reach each other**, too: [`ServerSide`].
//! - **A worker that drains** closes its connections in batches, so that their clients connect anew without a storm.
//!
//! ```text
//!  client ── GET /socket.io/?sid=AbC….2 ──► any worker ── the connection moves ──► worker 2: session AbC…
//!                                                                                      │ emit to a room
//!                                                              worker 0, 1, 3 ◄── bus ─┘
//! ```
//!
//! `main` runs in every process of the cluster up to the call; what the setup of [`serve`] or [`serve_with`] does, runs
//! in workers only.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `actix` | `sticky_socketio::actix`: Socket.IO inside an actix-web application |
//! | `redis` | `redis_url` (`STICKY_REDIS_URL`): Redis in place of the bus, so that rooms span machines |
//! | `extensions`, `msgpack`, `state`, `tracing`, `v4` | socketioxide's feature of that name; `v4` is version 3 of Engine.IO |

#[cfg(feature = "actix")]
pub mod actix;
pub mod adapter;
mod alias;
mod error;
pub mod layer;
mod serve;
mod server_side;

#[doc(inline)]
pub use adapter::Adapter;
pub use alias::*;
pub use error::Error;
#[doc(inline)]
pub use layer::{Layer, TagLayer, layer};
pub use serve::{Serve, ServeFuture, ServeWith, cluster_builder, serve, serve_with};
pub use server_side::ServerSide;
/// Why serving failed. Its `Debug` output is for people too: it is what a `main` that returns it prints.
pub use sticky_core::RunError as ServeError;
pub use sticky_core::{
    self, Affinity, BoxError, Choice, Cluster, ClusterBuilder, ConfigError, Dispatch, DrainReason, Failover, Placement,
    RequestHead, Role, SameSite, Worker, role,
};
