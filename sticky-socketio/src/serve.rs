//! The calls that make a Socket.IO cluster of a program.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Response;
use socketioxide::SocketIoBuilder;
use sticky_axum::App;
use sticky_core::{Affinity, BoxError, Cluster, ClusterBuilder, Placement, RunError as ServeError, Worker};
use tower::Layer as _;
use tower::util::MapResponse;

use crate::alias::SocketIo;
use crate::layer::layer;

/// How long the handlers of disconnects have at the end; code after it has the rest of `exit_timeout`.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves Socket.IO in every worker, with the settings of the environment (`STICKY_LISTEN`, `STICKY_WORKERS`, ..) and
/// nothing beside it. `setup` makes the namespaces; it runs in workers only, and each is ready when it is done.
///
/// Nothing happens before the value is awaited, or [`block`](Serve::block) is called. It ends in a worker after its
/// drain, and in the supervisor after the last worker; code after it has `exit_timeout` (5 s).
///
/// ```no_run
/// use sticky_socketio::extract::{Data, SocketRef};
///
/// async fn on_connect(socket: SocketRef) {
///     socket.join("lobby");
///     socket.on("say", async |socket: SocketRef, Data::<String>(text)| {
///         socket.to("lobby").emit("said", &text).await.ok();
///     });
/// }
///
/// # async fn example() -> Result<(), sticky_socketio::ServeError> {
/// sticky_socketio::serve(|io| async move {
///     io.ns("/", on_connect).await?;
///     Ok(())
/// })
/// .await
/// # }
/// ```
///
/// With settings in code, of the cluster and of Socket.IO, from a `main` without a runtime:
///
/// ```no_run
/// use sticky_socketio::{Cluster, SocketIoBuilder, extract::SocketRef};
///
/// fn main() -> Result<(), sticky_socketio::ServeError> {
///     let cluster = Cluster::builder().workers(4).listen(3000).build()?;
///     let settings = SocketIoBuilder::new().max_payload(1_000_000);
///     sticky_socketio::serve(|io| async move { Ok(io.ns("/", async |_: SocketRef| {}).await?) })
///         .cluster(cluster)
///         .socket_io(settings)
///         .block()
/// }
/// ```
pub fn serve<F, Fut>(setup: F) -> Serve<F>
where
    F: FnOnce(SocketIo) -> Fut,
    Fut: Future<Output = Result<(), BoxError>>,
{
    Serve { cluster: None, builder: SocketIoBuilder::new(), setup }
}

/// Serves Socket.IO beside the router that `make_router` makes, which runs in workers only and makes the namespaces,
/// too. Requests below Socket.IO's path never reach the router.
///
/// Its error, or its panic, ends the cluster's start: the worker says it, and the supervisor says it once more as the
/// reason.
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use sticky_socketio::{Cluster, extract::SocketRef};
///
/// # async fn example() -> Result<(), sticky_socketio::ServeError> {
/// let cluster = Cluster::builder().build()?;
/// sticky_socketio::serve_with(cluster, |worker, io| async move {
///     io.ns("/", async |socket: SocketRef| socket.join("lobby")).await?;
///     let news = async move || {
///         let sent = io.to("lobby").emit("news", &format!("from worker {}", worker.id())).await;
///         format!("{sent:?}\n")
///     };
///     Ok(Router::new().route("/news", get(news)))
/// })
/// .await
/// # }
/// ```
pub fn serve_with<F, Fut>(cluster: Cluster, make_router: F) -> ServeWith<F>
where
    F: FnOnce(Worker, SocketIo) -> Fut,
    Fut: Future<Output = Result<Router, BoxError>>,
{
    ServeWith { cluster, builder: SocketIoBuilder::new(), make_router }
}

/// Socket.IO about to be served, from [`serve`].
#[must_use = "nothing is served until this is awaited or `block()` is called"]
pub struct Serve<F> {
    cluster: Option<Cluster>,
    builder: SocketIoBuilder,
    setup: F,
}

/// Socket.IO about to be served beside a router, from [`serve_with`].
#[must_use = "nothing is served until this is awaited or `block()` is called"]
pub struct ServeWith<F> {
    cluster: Cluster,
    builder: SocketIoBuilder,
    make_router: F,
}

impl<F, Fut> Serve<F>
where
    F: FnOnce(SocketIo) -> Fut,
    Fut: Future<Output = Result<(), BoxError>>,
{
    /// Uses these settings instead of the environment's alone.
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Uses these settings of Socket.IO: path, ping interval, parser, state and so on.
    pub fn socket_io(mut self, builder: SocketIoBuilder) -> Self {
        self.builder = builder;
        self
    }

    /// Serves from a `main` without a runtime. What `setup` returns need not be `Send`.
    ///
    /// # Errors
    ///
    /// As [`ServeError`] says; [`ServeError::InsideRuntime`] where there is a runtime already.
    pub fn block(self) -> Result<(), ServeError> {
        let Self { cluster, builder, setup } = self;
        let make_router = |_, io| async move { setup(io).await.map(|()| Router::new()) };
        ServeWith { cluster: cluster_or_default(cluster)?, builder, make_router }.block()
    }
}

impl<F, Fut> ServeWith<F>
where
    F: FnOnce(Worker, SocketIo) -> Fut,
    Fut: Future<Output = Result<Router, BoxError>>,
{
    /// Uses these settings of Socket.IO: path, ping interval, parser, state and so on.
    pub fn socket_io(mut self, builder: SocketIoBuilder) -> Self {
        self.builder = builder;
        self
    }

    /// Serves from a `main` without a runtime. What `make_router` returns need not be `Send`.
    ///
    /// # Errors
    ///
    /// As [`ServeError`] says; [`ServeError::InsideRuntime`] where there is a runtime already.
    pub fn block(self) -> Result<(), ServeError> {
        let Self { cluster, builder, make_router } = self;
        usual(cluster)?.run(|worker| async move {
            let (app, io) = app(&worker, builder, make_router).await?;
            sticky_axum::serve_worker(worker, app).await;
            close(&io).await;
            Ok(())
        })
    }
}

impl<F, Fut> IntoFuture for Serve<F>
where
    F: FnOnce(SocketIo) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), BoxError>> + Send,
{
    type Output = Result<(), ServeError>;
    type IntoFuture = ServeFuture;

    fn into_future(self) -> ServeFuture {
        let Self { cluster, builder, setup } = self;
        let make_router = |_, io| async move { setup(io).await.map(|()| Router::new()) };
        ServeFuture::new(async move { serve_inside(cluster_or_default(cluster)?, builder, make_router).await })
    }
}

impl<F, Fut> IntoFuture for ServeWith<F>
where
    F: FnOnce(Worker, SocketIo) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Router, BoxError>> + Send,
{
    type Output = Result<(), ServeError>;
    type IntoFuture = ServeFuture;

    fn into_future(self) -> ServeFuture {
        ServeFuture::new(async move { serve_inside(self.cluster, self.builder, self.make_router).await })
    }
}

/// Serves inside a runtime.
async fn serve_inside<F, Fut>(cluster: Cluster, builder: SocketIoBuilder, make_router: F) -> Result<(), ServeError>
where
    F: FnOnce(Worker, SocketIo) -> Fut,
    Fut: Future<Output = Result<Router, BoxError>>,
{
    let Some(worker) = usual(cluster)?.enter_async().await? else { return Ok(()) };
    let (app, io) = app(&worker, builder, make_router).await.map_err(|error| {
        worker.fail(error.as_ref());
        ServeError::Application(error)
    })?;
    sticky_axum::serve_worker(worker, app).await;
    close(&io).await;
    Ok(())
}

/// What a worker serves.
async fn app<F, Fut>(
    worker: &Worker,
    builder: SocketIoBuilder,
    make_router: F,
) -> Result<(impl App, SocketIo), BoxError>
where
    F: FnOnce(Worker, SocketIo) -> Fut,
    Fut: Future<Output = Result<Router, BoxError>>,
{
    let (layer, io) = layer(worker, builder)?;
    let router = make_router(worker.clone(), io.clone()).await?;
    // The state is applied now rather than at every request.
    let app = layer.layer(router.with_state::<()>(()));
    Ok((MapResponse::new(app, |response: Response<_>| response.map(Body::new)), io))
}

/// The handlers of what is still connected hear that it is over.
pub(crate) async fn close(io: &SocketIo) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, io.close()).await;
}

fn cluster_or_default(cluster: Option<Cluster>) -> Result<Cluster, ServeError> {
    Ok(cluster.map_or_else(|| cluster_builder().build(), Ok)?)
}

/// The settings of a cluster, with what is best for Socket.IO where nobody says otherwise: affinity
/// `engine-io|sticky-cookie` and placement `fewest-connections`. For those who mount the [layer](crate::layer()) themselves;
/// [`serve`] and [`serve_with`] take the same with any cluster.
pub fn cluster_builder() -> ClusterBuilder {
    Cluster::builder().usually(usual_affinity(), Placement::FewestConnections)
}

pub(crate) fn usual(cluster: Cluster) -> Result<Cluster, ServeError> {
    Ok(cluster.usually(usual_affinity(), Placement::FewestConnections)?)
}

fn usual_affinity() -> Affinity {
    Affinity::engine_io().or(Affinity::sticky_cookie())
}

/// Serving, until it has ended.
#[must_use = "futures do nothing unless polled"]
pub struct ServeFuture(Pin<Box<dyn Future<Output = Result<(), ServeError>> + Send>>);

impl ServeFuture {
    fn new(future: impl Future<Output = Result<(), ServeError>> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }
}

impl Future for ServeFuture {
    type Output = Result<(), ServeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<F> fmt::Debug for Serve<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for ServeWith<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeWith").finish_non_exhaustive()
    }
}

impl fmt::Debug for ServeFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::SocketRef;

    async fn on_connect(_: SocketRef) {}

    fn cluster() -> Cluster {
        Cluster::builder().build().unwrap()
    }

    /// Nothing is served: that it compiles is what is tested.
    #[test]
    fn setups_are_written_with_question_marks_and_without() {
        let _ = serve(|_| async { Ok(()) });
        let _ = serve(|io| async move { Ok(io.ns("/", on_connect).await?) });
        let with_question_mark = serve(|io| async move {
            io.ns("/", on_connect).await?;
            Ok(())
        });
        let _ = with_question_mark.cluster(cluster()).socket_io(SocketIoBuilder::new());
        let _ = serve_with(cluster(), |_, _| async { Ok(Router::new()) });
        let beside = serve_with(cluster(), |worker, io| async move {
            io.ns("/", on_connect).await?;
            Ok(Router::new().route("/", axum::routing::get(async move || worker.id().to_string())))
        });
        let _future: ServeFuture = beside.socket_io(SocketIoBuilder::new()).into_future();
    }

    #[test]
    fn without_a_runtime_there_is_no_layer() {
        let error = layer(&Worker::detached(), SocketIoBuilder::new()).unwrap_err();
        assert!(matches!(error, crate::Error::NoRuntime));
    }

    #[tokio::test]
    async fn namespaces_need_a_name() {
        let (_, io) = layer(&Worker::detached(), SocketIoBuilder::new()).unwrap();
        io.ns("/", on_connect).await.unwrap();
        for name in ["", "/a#b"] {
            assert!(matches!(io.ns(name, on_connect).await, Err(crate::Error::MalformedNamespace)), "{name}");
        }
    }

    #[tokio::test]
    async fn block_inside_a_runtime_says_what_to_do() {
        let error = serve(|_| async { Ok(()) }).block().unwrap_err();
        assert!(matches!(error, ServeError::InsideRuntime), "{error:?}");
    }
}
