//! The call that makes a cluster of an actix application with Socket.IO.

use std::cell::OnceCell;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::App;
use actix_web::web::ServiceConfig;
use socketioxide::SocketIoBuilder;
use sticky_core::{BoxError, Cluster, RunError as ServeError, Worker};

use super::service;
use crate::alias::SocketIo;
use crate::serve::{close, usual};

/// Serves Socket.IO in every worker, beside what the function configures that `setup` makes. `setup` runs in workers only, once
/// in each, and makes the namespaces; the function runs in each thread of a worker, as an argument of
/// [`App::configure`](actix_web::App::configure).
///
/// Its error, or its panic, ends the cluster's start: the worker says it, and the supervisor says it once more as the
/// reason. Nothing happens before the value is awaited, or [`block`](RunWith::block) is called.
///
/// ```no_run
/// # async fn on_connect(_: sticky_socketio::extract::SocketRef) {}
/// use actix_web::web::{self, ServiceConfig};
/// use sticky_socketio::{Cluster, SocketIoBuilder};
///
/// fn main() -> Result<(), sticky_socketio::ServeError> {
///     let cluster = Cluster::builder().workers(4).build()?;
///     sticky_socketio::actix::run_with(cluster, |_, io| async move {
///         io.ns("/", on_connect).await?;
///         let io = web::Data::new(io);
///         Ok(move |app: &mut ServiceConfig| {
///             app.app_data(io.clone()).route("/", web::get().to(|| async { "hello" }));
///         })
///     })
///     .socket_io(SocketIoBuilder::new().max_payload(1_000_000))
///     .block()
/// }
/// ```
pub fn run_with<M, Fut, F>(cluster: Cluster, setup: M) -> RunWith<M>
where
    M: FnOnce(Worker, SocketIo) -> Fut + 'static,
    Fut: Future<Output = Result<F, BoxError>> + 'static,
    F: Fn(&mut ServiceConfig) + Clone + Send + 'static,
{
    RunWith { cluster, builder: SocketIoBuilder::new(), setup }
}

/// Socket.IO about to be served beside an actix application, from [`run_with`].
#[must_use = "nothing is served until this is awaited or `block()` is called"]
pub struct RunWith<M> {
    cluster: Cluster,
    builder: SocketIoBuilder,
    setup: M,
}

impl<M, Fut, F> RunWith<M>
where
    M: FnOnce(Worker, SocketIo) -> Fut + 'static,
    Fut: Future<Output = Result<F, BoxError>> + 'static,
    F: Fn(&mut ServiceConfig) + Clone + Send + 'static,
{
    /// Uses these settings of Socket.IO: path, ping interval, parser, state and so on.
    pub fn socket_io(mut self, builder: SocketIoBuilder) -> Self {
        self.builder = builder;
        self
    }

    /// Serves from a `main` without a runtime.
    ///
    /// # Errors
    ///
    /// As [`ServeError`] says; [`ServeError::InsideRuntime`] where there is a runtime already.
    pub fn block(self) -> Result<(), ServeError> {
        sticky_actix::block_on(self.serve())
    }

    async fn serve(self) -> Result<(), ServeError> {
        let Self { cluster, builder, setup } = self;
        let made = Rc::new(OnceCell::new());
        let keep = Rc::clone(&made);
        sticky_actix::run_with(usual(cluster)?, |worker| async move {
            let (socket_io, io) = service(&worker, builder)?;
            keep.get_or_init(|| io.clone());
            let configure = setup(worker, io).await?;
            Ok(move || App::new().service(socket_io.clone()).configure(configure.clone()))
        })
        .await?;
        // None in the supervisor.
        if let Some(io) = made.get() {
            close(io).await;
        }
        Ok(())
    }
}

impl<M, Fut, F> IntoFuture for RunWith<M>
where
    M: FnOnce(Worker, SocketIo) -> Fut + 'static,
    Fut: Future<Output = Result<F, BoxError>> + 'static,
    F: Fn(&mut ServiceConfig) + Clone + Send + 'static,
{
    type Output = Result<(), ServeError>;
    type IntoFuture = RunFuture;

    fn into_future(self) -> RunFuture {
        RunFuture(Box::pin(self.serve()))
    }
}

/// Serving, until it has ended. It stays on its thread.
#[must_use = "futures do nothing unless polled"]
pub struct RunFuture(Pin<Box<dyn Future<Output = Result<(), ServeError>>>>);

impl Future for RunFuture {
    type Output = Result<(), ServeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<M> fmt::Debug for RunWith<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunWith").finish_non_exhaustive()
    }
}

impl fmt::Debug for RunFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunFuture").finish_non_exhaustive()
    }
}
