//! Proxy dispatch: a process that accepts, judges every request, and forwards it to the worker that it belongs to.
//!
//! ```text
//!  accept ─► Guard: one head at a time ─► Judge: whose? ─► hyper ─► forward ─► Pool ─► worker: Guard ─► framework
//!                                                                     │          └─ none idle: Upstream
//!                                                                     │             a socket pair, one end of it
//!                                                                     │             sent into the slot's channel
//!                                                                     └─ 101: tunnel
//! ```
//!
//! The front half is a worker's own: the acceptor, the guard with its bounds and timers, the judge, the drain. Only that
//! a verdict does not move the connection: it says where each request is forwarded.
//!
//! The back half is the way by which connections move under handoff: the supervisor owns every slot's channel, so what is
//! sent to a slot that is not running waits there for its next generation, or for who stands in. No name leads to a
//! worker, so nobody but a proxy can come in there, and what comes in there is true.

mod body;
mod direct;
mod express;
mod fault;
mod forward;
mod headers;
mod interim;
mod pool;
mod raw;
mod tunnel;
mod upstream;
mod wire;

use std::io;
use std::sync::Arc;

use hyper::service::service_fn;

use self::express::Express;
use self::forward::{Forwarder, Visitor};
use crate::config::Config;
use crate::http;
use crate::worker::Proxy;

/// Serves as a proxy until the cluster has drained.
///
/// On a thread of its own: the program may have called from inside of a runtime.
///
/// # Errors
///
/// When the system gives no thread or no runtime.
pub(crate) fn run(proxy: Proxy, config: &Config) -> io::Result<()> {
    let settings = forward::Settings::of(config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("sticky-proxy".to_owned());
    let serving = thread.spawn(move || runtime.block_on(serve(proxy, settings)))?;
    serving.join().map_err(|_| io::Error::other("the proxy panicked"))
}

async fn serve(proxy: Proxy, settings: forward::Settings) {
    let Proxy { worker, judge, road } = proxy;
    let forwarder = Arc::new(Forwarder::new(judge, road, worker.row().clone(), settings));
    let tidying = tokio::spawn(Arc::clone(&forwarder).tidy());
    let (drain, row) = (worker.connection_drain().clone(), worker.row().clone());
    let connections = worker.ready();
    http::serve_prepared(connections, |connection| {
        let (forwarder, visitor) = (Arc::clone(&forwarder), Arc::new(Visitor::new(connection.client_addr())));
        connection.set_lane(Box::new(Express::new(&forwarder, &visitor, &drain, &row)));
        service_fn(move |request| Arc::clone(&forwarder).forward(request, Arc::clone(&visitor)))
    })
    .await;
    tidying.abort();
}
