//! Serves an actix-web application on every core: one call, and each client always reaches the same worker.
//!
//! ```no_run
//! use actix_web::{App, web};
//! use sticky_actix::Worker;
//!
//! #[actix_web::main]
//! async fn main() -> Result<(), sticky_actix::RunError> {
//!     sticky_actix::run(|| App::new().route("/", web::get().to(hello))).await
//! }
//!
//! async fn hello(worker: Worker) -> String {
//!     format!("worker: {}\n", worker.id())
//! }
//! ```
//!
//! It takes what [`HttpServer::new`](actix_web::HttpServer::new) takes. `main` runs in every process of the cluster up to
//! that call: once in the supervisor, which never goes on to serve, and once in each worker. What is made only where it is
//! needed goes into [`run_with`].
//!
//! [`Worker`] and [`Drain`] are extractors. `HttpRequest::peer_addr` is the client's address, behind trusted proxies too;
//! and [`ConnectionInfo`](actix_web::dev::ConnectionInfo), which believes what anybody writes into `Forwarded` and
//! `X-Forwarded-*`, finds there what is true: [the headers](#forwarded-headers) of peers that are not trusted are removed.
//!
//! # What is different from `HttpServer`
//!
//! Addresses, the number of workers, time limits and the end are the cluster's settings; `HttpServer`'s own do not exist
//! here. Each worker is a process with `threads_per_worker` threads, of which each has an instance of the application,
//! as each thread of `HttpServer` has. HTTP/2 in clear text is recognised by itself. The end takes as long as
//! `shutdown_timeout` says, and idle connections end at once: HTTP/2's are told by GOAWAY, WebSockets and endless responses
//! end themselves when [`Drain`] says so, and what is left is cut.
//!
//! What actix itself does stays as it is:
//!
//! - a request without `Host`, with two of them, or with more than 96 headers is refused;
//! - a response that begins before all of its request has been read announces the end of its connection: collect the body of
//!   a request before you send it back;
//! - so does an ordinary response to a request that asks for another protocol (`Connection: upgrade`) or to CONNECT;
//! - responses have no trailers;
//! - what follows a request for a WebSocket is its body. A handler that reads that before it has answered gets an error when
//!   the client has no more to say.
//!
//! # Forwarded headers
//!
//! `Forwarded`, `X-Forwarded-For`, `X-Forwarded-Host` and `X-Forwarded-Proto` of peers that are no
//! [trusted proxies](ClusterBuilder::trusted_proxies) are removed from requests. Of a trusted proxy they become
//! `X-Forwarded-For` with the client's address alone, and `X-Forwarded-Proto` and `X-Forwarded-Host` with what the last
//! proxy says.

mod extra;
mod extract;
mod feed;
mod fields;
mod forwarded;
mod hidden;
mod run;
mod service;
mod threads;

pub use extra::serve_extra;
pub use extract::{Drain, NotAWorker, Worker};
pub use run::{Run, RunFuture, RunWith, block_on, run, run_with};
/// Why serving failed. Its `Debug` output is for people too: it is what a `main` that returns it prints.
pub use sticky_core::RunError;
pub use sticky_core::{
    self, Affinity, BoxError, Choice, Cluster, ClusterBuilder, ConfigError, Dispatch, DrainReason, ExtraListener,
    Failover, Placement, RequestHead, Role, SameSite, role,
};
