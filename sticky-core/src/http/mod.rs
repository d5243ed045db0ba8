//! HTTP for this worker's connections: the accept loop that plain hyper programs and the integrations share.
//!
//! ```text
//!  Connections ──► make(&connection) ──► task: hyper ◄── socket    notes what passes, says 408
//!                                          │        ◄── service   counts requests, announces the end
//!                                          └── drive: timers and drain, from what those two noted
//! ```
//!
//! HTTP/1.1 and HTTP/2 in clear text, with upgrades. The cluster's `first_byte_timeout` (60 s), `head_timeout` (10 s,
//! answered with 408) and `idle_timeout` (75 s) hold for every connection; a request that is executing, a response
//! that streams and a connection that was upgraded take as long as they take. When the worker drains, idle
//! connections are closed, and the response to what is executing announces the end of its connection.
//!
//! A handler that panics ends its own connection (over HTTP/2 its own stream) and nothing else.

mod activity;
mod berth;
mod body;
mod drive;
mod keeper;
mod riding;
mod service;
mod socket;
mod timers;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
/// hyper's service trait, for implementations of it without a dependency on hyper.
#[doc(no_inline)]
pub use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;

use self::activity::Activity;
use self::berth::{Berth, Berths};
pub use self::body::RequestBody;
use self::keeper::Keeper;
use self::service::{Guest, Tracked};
use self::socket::Socket;
use crate::connection::{ClientAddr, Connection};
use crate::deadline::Timeouts;
use crate::worker::{Connections, ExtraListener, ExtraListenerError, Worker};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The client's address, in the extensions of every request that [`serve`] passes on: the peer's, or the one that trusted
/// proxies name. Not there on unix sockets whose other side names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Says that this worker is ready and serves its connections with `service` until the worker has drained.
///
/// ```no_run
/// use http_body_util::Full;
/// use hyper::body::{Bytes, Incoming};
/// use hyper::service::service_fn;
/// use hyper::{Request, Response};
/// use sticky_core::Cluster;
///
/// async fn hello(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
///     Ok(Response::new(Full::from("hello")))
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// Cluster::builder().build()?.run(|worker| async {
///     sticky_core::http::serve(worker, service_fn(hello)).await;
///     Ok(())
/// })?;
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// When the worker's connections have been taken already.
pub async fn serve<S, B>(worker: Worker, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Future: Send + 'static, Error: Into<BoxError>>
        + Clone
        + Send
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let make = |connection: &Connection| WithPeer { service: service.clone(), client: connection.client_addr() };
    serve_connections(worker.ready(), make).await;
}

/// Serves `connections` until the worker has drained, each with the service that `make` makes for it.
///
/// For integrations: `make` sees who is there, and a service that keeps the [`RequestBody`] may go on reading it after
/// its response. Each connection gets a service of its own, although hyper may serve one after the other on what it
/// takes for the same.
pub async fn serve_connections<M, S, B>(connections: Connections, mut make: M)
where
    M: FnMut(&Connection) -> S,
    S: Service<Request<RequestBody>, Response = Response<B>, Future: Send + 'static, Error: Into<BoxError>>
        + Send
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    serve_prepared(connections, |connection| make(connection)).await;
}

/// Serves an [extra listener](Worker::listener) with `service`, in a task of its own, until the worker has drained: beside
/// [`serve`], with the same limits of time, and without affinity.
///
/// ```no_run
/// # use http_body_util::Full;
/// # use hyper::body::{Bytes, Incoming};
/// # use hyper::service::service_fn;
/// # use hyper::{Request, Response};
/// # use sticky_core::Cluster;
/// # async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> { Ok(Response::new(Full::from("hello"))) }
/// # async fn metrics(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> { Ok(Response::new(Full::from("up 1"))) }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// Cluster::builder().extra_listener("metrics", "127.0.0.1:9000").build()?.run(|worker| async {
///     sticky_core::http::serve_extra(worker.listener("metrics")?, service_fn(metrics))?;
///     sticky_core::http::serve(worker, service_fn(hello)).await;
///     Ok(())
/// })?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// When the system refuses to watch it.
///
/// # Panics
///
/// Outside of a tokio runtime.
pub fn serve_extra<S, B>(listener: ExtraListener, service: S) -> Result<(), ExtraListenerError>
where
    S: Service<Request<Incoming>, Response = Response<B>, Future: Send + 'static, Error: Into<BoxError>>
        + Clone
        + Send
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let make = move |connection: &Connection| WithPeer { service: service.clone(), client: connection.client_addr() };
    serve_extra_with(listener, make)
}

/// As [`serve_extra`], each connection with the service that `make` makes for it. For integrations.
///
/// # Errors
///
/// As [`serve_extra`].
///
/// # Panics
///
/// Outside of a tokio runtime.
pub fn serve_extra_with<M, S, B>(listener: ExtraListener, mut make: M) -> Result<(), ExtraListenerError>
where
    M: FnMut(&Connection) -> S + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>, Future: Send + 'static, Error: Into<BoxError>>
        + Send
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut connections = listener.into_connections()?;
    tokio::spawn(async move {
        let worker = connections.worker().clone();
        let berths = Berths::new(worker.drain(), worker.limits().timeouts, open);
        while let Some(connection) = connections.accept().await {
            // Whoever comes in here has no session that is anybody's.
            let guest = Guest { service: make(&connection), keeper: None, suspect: None, home: None };
            berths.seat(connection, guest);
        }
    });
    Ok(())
}

/// As [`serve_connections`], where `make` may also give a connection a lane beside its service.
pub(crate) async fn serve_prepared<M, S, B>(mut connections: Connections, mut make: M)
where
    M: FnMut(&mut Connection) -> S,
    S: Service<Request<RequestBody>, Response = Response<B>, Future: Send + 'static, Error: Into<BoxError>>
        + Send
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let worker = connections.worker().clone();
    let berths = Berths::new(worker.connection_drain().clone(), worker.limits().timeouts, open);
    while let Some(mut connection) = connections.accept().await {
        let peer = connection.peer_addr();
        let is_believed = worker.trusts(peer);
        let sessions = worker.sessions();
        let keeper = sessions.are_of_interest().then(|| Keeper::new(Arc::clone(sessions), is_believed));
        // With one worker nothing can land on a wrong one.
        let suspect = peer.filter(|_| worker.workers() > 1 && !is_believed);
        let home = worker.home_of(peer);
        let guest = Guest { service: make(&mut connection), keeper, suspect, home };
        if connection.has_lane() {
            tokio::spawn(ride(Arc::clone(&berths), connection, guest));
        } else {
            berths.seat(connection, guest);
        }
    }
    connections.finish().await;
}

/// Serves a connection by its lane, and has hyper serve it as soon as that is not enough.
async fn ride<S>(berths: Arc<Berths<S>>, mut connection: Connection, guest: Guest<S>) {
    if riding::ride(&mut connection, berths.drain()).await {
        berths.seat(connection, guest);
    }
}

/// Has hyper serve a connection, and those that come after it in the same place.
fn open<S, B>(berths: &Arc<Berths<S>>, connection: Connection, mut guest: Guest<S>)
where
    S: Service<Request<RequestBody>, Response = Response<B>, Future: Send + 'static, Error: Into<BoxError>>
        + Send
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    // One that minds its messages minds its timers, too.
    let minds_messages = connection.minds_messages();
    let home = guest.home.take();
    let activity = Arc::new(Activity::new(connection.row().clone(), berths.drain().clone(), minds_messages, home));
    let timeouts = if minds_messages { Timeouts::NONE } else { berths.timeouts() };
    let berth = minds_messages.then(|| Berth::new(berths));
    let socket = Socket::new(connection, activity.clone(), berth.clone());
    let service = Tracked::new(guest, activity.clone(), berth);
    tokio::spawn(serve_connection(socket, service, activity, timeouts));
}

fn serve_connection<S, B>(
    socket: Socket<S>,
    service: Tracked<S>,
    activity: Arc<Activity>,
    timeouts: Timeouts,
) -> impl Future<Output = ()> + Send + 'static
where
    S: Service<Request<RequestBody>, Response = Response<B>, Future: Send + 'static, Error: Into<BoxError>>
        + Send
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    // Boxed, and not in an async function: that would keep room for its arguments and for what it makes of them, and
    // the task, three times as large, is moved several times before it runs.
    let connection = Box::pin(builder().serve_connection_with_upgrades(TokioIo::new(socket), service));
    async move {
        if let Err(error) = drive::drive(connection, &activity, timeouts).await {
            tracing::debug!(target: "sticky", error, "a connection ended early");
        }
    }
}

/// The one builder of this process: what it builds borrows it.
fn builder() -> &'static Builder<TokioExecutor> {
    static BUILDER: OnceLock<Builder<TokioExecutor>> = OnceLock::new();
    BUILDER.get_or_init(|| {
        let mut builder = Builder::new(TokioExecutor::new());
        // hyper's own head timer would be its idle timer too, and never fire on a connection that stays silent.
        builder.http1().header_read_timeout(None);
        // Who sends a request and closes its own side still gets the answer. The price: a handler whose client has
        // gone away runs until it ends or writes.
        builder.http1().half_close(true);
        // WebSockets over HTTP/2.
        builder.http2().enable_connect_protocol();
        builder
    })
}

/// A service for plain hyper.
struct WithPeer<S> {
    service: S,
    client: ClientAddr,
}

impl<S: Service<Request<Incoming>>> Service<Request<RequestBody>> for WithPeer<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, request: Request<RequestBody>) -> Self::Future {
        let mut request = request.map(RequestBody::into_incoming);
        if let Some(client) = self.client.get() {
            request.extensions_mut().insert(PeerAddr(client));
        }
        self.service.call(request)
    }
}

#[cfg(all(test, unix))]
mod tests;
