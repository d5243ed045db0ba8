//! Socket.IO inside an actix-web application, on every core.
//!
//! ```no_run
//! use actix_web::web::{self, ServiceConfig};
//! use sticky_socketio::Cluster;
//! use sticky_socketio::actix::sticky_actix::Worker;
//! use sticky_socketio::extract::SocketRef;
//!
//! async fn on_connect(socket: SocketRef) {
//!     socket.join("lobby");
//! }
//!
//! #[actix_web::main]
//! async fn main() -> Result<(), sticky_socketio::ServeError> {
//!     let cluster = Cluster::builder().build()?;
//!     sticky_socketio::actix::run_with(cluster, |_, io| async move {
//!         io.ns("/", on_connect).await?;
//!         Ok(|app: &mut ServiceConfig| {
//!             app.route("/", web::get().to(hello));
//!         })
//!     })
//!     .await
//! }
//!
//! async fn hello(worker: Worker) -> String {
//!     format!("worker: {}\n", worker.id())
//! }
//! ```
//!
//! An application with middleware of its own mounts the [`service`] by itself. Everything else is as on axum: ids with
//! tags, rooms across workers, the end in batches, `ConnectInfo` in the requests' extensions.
//!
//! ```text
//!  HttpRequest, Payload ──► http's types ──► Tagging ──► socketioxide
//!  HttpResponse ◄────────── http's types ◄──────┘
//!  101: Payload ──► a bounded pipe ──► the engine ──► another ──► the response's body
//! ```

mod body;
mod message;
mod run;
mod tunnel;

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use actix_web::dev::{AppService, HttpServiceFactory};
use actix_web::error::ErrorBadRequest;
use actix_web::{HttpRequest, HttpResponse, guard, web};
use axum::body::Body as NoBody;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use socketioxide::SocketIoBuilder;
use socketioxide::service::SocketIoService;
use sticky_core::Worker;
use tower::{Layer as _, Service};

pub use self::body::RequestBody;
use self::body::channel;
pub use self::run::{RunFuture, RunWith, run_with};
use self::tunnel::Tunnel;
use crate::adapter::Adapter;
use crate::alias::SocketIo;
use crate::error::Error;
use crate::layer::{TagLayer, Tagging, Transport, layer};
/// Its extractors, and what serves an application that mounts the [`service`] by itself.
pub use ::sticky_actix;

/// Socket.IO as a service of an actix-web application: what [`run_with`] does, by hand. The builder keeps what it has been
/// told: path, ping interval, parser, state. The path is the whole one, also within a scope.
///
/// It is made once in each worker and cloned for each of its threads. Await every namespace before the worker is ready.
///
/// ```no_run
/// # async fn on_connect(_: sticky_socketio::extract::SocketRef) {}
/// # async fn example() -> Result<(), sticky_socketio::ServeError> {
/// use actix_web::middleware::DefaultHeaders;
/// use actix_web::{App, web};
/// use sticky_socketio::SocketIoBuilder;
///
/// let cluster = sticky_socketio::cluster_builder().build()?;
/// sticky_actix::run_with(cluster, |worker| async move {
///     let builder = SocketIoBuilder::new().ping_interval(std::time::Duration::from_secs(10));
///     let (socket_io, io) = sticky_socketio::actix::service(&worker, builder)?;
///     io.ns("/", on_connect).await?;
///     Ok(move || {
///         App::new()
///             .wrap(DefaultHeaders::new().add(("x-version", "1")))
///             .service(socket_io.clone())
///             .route("/", web::get().to(|| async { "hello" }))
///     })
/// })
/// .await
/// # }
/// ```
///
/// # Errors
///
/// [`Error::NoRuntime`] outside of a tokio runtime; what is wrong with `redis_url`.
pub fn service(worker: &Worker, builder: SocketIoBuilder) -> Result<(SocketIoFactory, SocketIo), Error> {
    let (layer, io) = layer(worker, builder)?;
    Ok((Bridge { service: layer.layer(Elsewhere) }, io))
}

/// Socket.IO as a service of an actix-web application, from [`service`].
pub type SocketIoFactory = Bridge<SocketIoService<Elsewhere, Adapter>>;

/// An engine as a service of an actix-web application, for all requests below the engine's path.
#[derive(Clone)]
pub struct Bridge<S> {
    service: Tagging<S>,
}

impl<S> Bridge<S> {
    /// The same for an Engine.IO service without Socket.IO.
    pub fn new(tags: &TagLayer, engine: S) -> Self {
        Self { service: tags.layer(engine) }
    }

    /// Has the engine answer a request.
    async fn answer(mut self, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, actix_web::Error>
    where
        S: Engine,
    {
        let payload = payload.into_inner();
        if tunnel::is_asked_for(&request) {
            let (tunnel, end) = Tunnel::new(payload);
            let mut request = message::request(&request, RequestBody::empty())?;
            request.extensions_mut().insert(end);
            let answer = self.service.call(request).await.map_err(message::failure)?;
            return Ok(match answer.status() {
                StatusCode::SWITCHING_PROTOCOLS => message::switch(answer, tunnel),
                _ => message::response(answer),
            });
        }
        let (feed, body) = channel(payload);
        let answering = self.service.call(message::request(&request, body)?);
        let answer = feed.during(answering).await.map_err(message::failure)?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            // By its query alone: the engine leaves the header to the server.
            return Err(ErrorBadRequest("a WebSocket was not asked for"));
        }
        Ok(message::response(answer))
    }
}

/// What answers below an engine's path: the service of Engine.IO or of Socket.IO.
pub trait Engine:
    Service<Request<RequestBody>, Response = Response<Self::Body>, Error: fmt::Display>
    + Service<(Transport, Request<()>), Future: Send>
    + Clone
    + Send
    + 'static
{
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error>>> + 'static;
}

impl<S, B> Engine for S
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error: fmt::Display>
        + Service<(Transport, Request<()>), Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error>>> + 'static,
{
    type Body = B;
}

impl<S: Engine> HttpServiceFactory for Bridge<S> {
    fn register(self, config: &mut AppService) {
        let paths = self.service.clone();
        let is_for_the_engine = guard::fn_guard(move |context| paths.is_for(context.head().uri.path()));
        let handler = web::to(move |request, payload| self.clone().answer(request, payload));
        // The engine knows its paths better than a scope, which takes `/path/` for `/path`.
        web::scope("").guard(is_for_the_engine).default_service(handler).register(config);
    }
}

/// Answers what the engine does not: nothing gets there, since actix passes on only what is the engine's.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere;

impl Service<Request<RequestBody>> for Elsewhere {
    type Response = Response<NoBody>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<RequestBody>) -> Self::Future {
        let mut response = Response::new(NoBody::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        ready(Ok(response))
    }
}

impl<S> fmt::Debug for Bridge<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("service", &self.service).finish()
    }
}
