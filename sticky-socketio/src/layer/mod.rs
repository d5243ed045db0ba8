//! The layer around socketioxide's: session ids get their tag on the way out and lose it on the way in.
//!
//! ```text
//!  GET ?EIO=4&transport=polling        ──────────────────────────► socketioxide
//!  0{"sid":"AbC….2", ..}               ◄── tag ── 0{"sid":"AbC…"} ◄──┘
//!  GET, POST ?..&sid=AbC….2            ── untag ── &sid=AbC… ──────► socketioxide
//! ```
//!
//! It goes directly around socketioxide's layer, inside whatever compresses. It also closes transports when the worker
//! drains: polls are answered with the engine's packet for that, WebSockets end.

mod answer;
mod carrier;
mod farewell;
mod tagged;
mod websocket;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use socketioxide::SocketIoBuilder;
use socketioxide::layer::SocketIoLayer;
use socketioxide::service::SocketIoService;
use sticky_core::{SessionTag, Worker};

pub use self::answer::{AnswerBody, AnswerFuture};
pub use self::carrier::Carrier;
#[cfg(feature = "actix")]
pub(crate) use self::carrier::TunnelEnd;
use self::farewell::Farewell;
use self::tagged::{Ask, Query};
use self::websocket::Upgrade;
pub use self::websocket::{Leaving, Transport};
use crate::adapter::{Adapter, AdapterState};
use crate::alias::SocketIo;
use crate::error::Error;

/// Socket.IO as a tower layer, for routers and servers of one's own: what [`serve_with`](crate::serve_with) does, by
/// hand. The builder keeps what it has been told: path, ping interval, parser, state.
///
/// Await every namespace before the worker is ready.
///
/// ```no_run
/// # async fn on_connect(_: sticky_socketio::extract::SocketRef) {}
/// # async fn example() -> Result<(), sticky_socketio::ServeError> {
/// use axum::{Router, routing::get};
/// use sticky_socketio::SocketIoBuilder;
///
/// let cluster = sticky_socketio::cluster_builder().build()?;
/// sticky_axum::serve_with(cluster, |worker| async move {
///     let builder = SocketIoBuilder::new().ping_interval(std::time::Duration::from_secs(10));
///     let (layer, io) = sticky_socketio::layer(&worker, builder)?;
///     io.ns("/", on_connect).await?;
///     Ok(Router::new().route("/", get(|| async { "hello" })).layer(layer))
/// })
/// .await
/// # }
/// ```
///
/// # Errors
///
/// [`Error::NoRuntime`] outside of a tokio runtime; what is wrong with `redis_url`.
pub fn layer(worker: &Worker, builder: SocketIoBuilder) -> Result<(Layer, SocketIo), Error> {
    tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
    let (inner, io) = builder.with_adapter::<Adapter>(AdapterState::new(worker)?).build_layer();
    let tags = TagLayer::new(worker, &*io.config().engine_config.req_path);
    Ok((Layer { inner, tags }, io))
}

/// Socket.IO as a tower layer, from [`layer()`].
#[derive(Clone)]
pub struct Layer {
    inner: SocketIoLayer<Adapter>,
    tags: TagLayer,
}

/// The half of [`Layer`] that is ours, to go around an Engine.IO layer without Socket.IO: directly, as in
/// `router.layer((tags, engine))`.
#[derive(Clone, Debug)]
pub struct TagLayer {
    shared: Arc<Shared>,
}

impl TagLayer {
    /// Tags the ids of the sessions of this worker that begin below `path`, which is the engine's own.
    pub fn new(worker: &Worker, path: impl Into<String>) -> Self {
        let shared = Shared { path: path.into(), tag: worker.session_tag(), farewell: Arc::new(Farewell::new(worker)) };
        Self { shared: Arc::new(shared) }
    }
}

/// What all requests have in common.
#[derive(Debug)]
struct Shared {
    /// Below which Engine.IO is.
    path: String,
    /// None where requests are placed without.
    tag: Option<SessionTag>,
    farewell: Arc<Farewell>,
}

impl<S: Clone> tower::Layer<S> for Layer {
    type Service = Tagging<SocketIoService<S, Adapter>>;

    fn layer(&self, inner: S) -> Self::Service {
        self.tags.layer(self.inner.layer(inner))
    }
}

impl<S> tower::Layer<S> for TagLayer {
    type Service = Tagging<S>;

    fn layer(&self, inner: S) -> Tagging<S> {
        Tagging { inner, shared: Arc::clone(&self.shared) }
    }
}

/// A Socket.IO service whose session ids name their worker.
#[derive(Clone)]
pub struct Tagging<S> {
    inner: S,
    shared: Arc<Shared>,
}

#[cfg(feature = "actix")]
impl<S> Tagging<S> {
    /// Whether the engine answers requests for this path.
    pub(crate) fn is_for(&self, path: &str) -> bool {
        tagged::is_below(path, &self.shared.path)
    }
}

impl<S, R, B> tower::Service<Request<R>> for Tagging<S>
where
    S: tower::Service<Request<R>, Response = Response<B>>
        + tower::Service<(Transport, Request<()>), Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes>,
{
    type Response = Response<AnswerBody<B>>;
    type Error = <S as tower::Service<Request<R>>>::Error;
    type Future = AnswerFuture<<S as tower::Service<Request<R>>>::Future, B, S>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        <S as tower::Service<Request<R>>>::poll_ready(&mut self.inner, context)
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        let Shared { path, tag, farewell } = &*self.shared;
        if !tagged::is_below(request.uri().path(), path) {
            return AnswerFuture::plain(self.inner.call(request));
        }
        let query = Query::of(request.uri());
        let ask = query.ask(request.method());
        if let Some(uri) = tag.and_then(|_| query.untagged(request.uri())) {
            *request.uri_mut() = uri;
        }
        match ask {
            Ask::Handshake => AnswerFuture::handshake(self.inner.call(request), *tag),
            Ask::Poll(version) => AnswerFuture::poll(self.inner.call(request), farewell.clone(), version),
            Ask::WebSocket => {
                let upgrade = Upgrade::take(&self.inner, &mut request).map(|upgrade| (upgrade, farewell.turn()));
                AnswerFuture::websocket(self.inner.call(request), upgrade)
            }
            Ask::Other => AnswerFuture::plain(self.inner.call(request)),
        }
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("tags", &self.tags).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Tagging<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tagging").field("shared", &self.shared).finish_non_exhaustive()
    }
}
