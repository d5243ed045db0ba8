//! The calls that make a cluster of a program.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use sticky_core::{BoxError, Cluster, RunError as ServeError};

use crate::app::{App, serve_worker};

/// Serves `app` in every worker, with the settings of the environment (`STICKY_LISTEN`, `STICKY_WORKERS`, ..).
///
/// Nothing happens before the value is awaited, or [`block`](Serve::block) is called. It ends in a worker after its
/// drain, and in the supervisor after the last worker; code after it has `exit_timeout` (5 s).
///
/// ```no_run
/// # async fn example() -> Result<(), sticky_axum::ServeError> {
/// use axum::{Router, routing::get};
///
/// let app = Router::new().route("/", get(|| async { "hello\n" }));
/// sticky_axum::serve(app).await
/// # }
/// ```
///
/// With settings in code:
///
/// ```no_run
/// # async fn example() -> Result<(), sticky_axum::ServeError> {
/// use axum::{Router, routing::get};
/// use sticky_axum::Cluster;
///
/// let app = Router::new().route("/", get(|| async { "hello\n" }));
/// let cluster = Cluster::builder().workers(4).build()?;
/// sticky_axum::serve(app).cluster(cluster).await
/// # }
/// ```
///
/// From a `main` without a runtime: each worker makes its own, with `threads_per_worker` threads.
///
/// ```no_run
/// use axum::{Router, routing::get};
///
/// fn main() -> Result<(), sticky_axum::ServeError> {
///     let app = Router::new().route("/", get(|| async { "hello\n" }));
///     sticky_axum::serve(app).block()
/// }
/// ```
pub fn serve<S: App>(app: S) -> Serve<S> {
    Serve { app, cluster: None }
}

/// Serves the app that `make_app` makes, which runs in workers only: the place for what one process may not make, or
/// need not. It gets a [`sticky_core::Worker`]; leave the closure's argument without a type.
///
/// Its error, or its panic, ends the cluster's start: the worker says it, and the supervisor says it once more as the
/// reason. An error of the system alone ("no such file") tells little, so say what was attempted.
///
/// ```no_run
/// # async fn example() -> Result<(), sticky_axum::ServeError> {
/// use axum::{Router, routing::get};
/// use sticky_axum::Cluster;
///
/// let cluster = Cluster::builder().build()?;
/// sticky_axum::serve_with(cluster, |worker| async move {
///     let greeting = std::fs::read_to_string("greeting.txt").map_err(|error| format!("greeting.txt: {error}"))?;
///     let router = Router::new().route("/", get(move || async move { format!("{greeting} from {}\n", worker.id()) }));
///     Ok(router)
/// })
/// .await
/// # }
/// ```
pub fn serve_with<F, Fut, S>(cluster: Cluster, make_app: F) -> ServeWith<F>
where
    F: FnOnce(sticky_core::Worker) -> Fut,
    Fut: Future<Output = Result<S, BoxError>>,
    S: App,
{
    ServeWith { cluster, make_app }
}

/// An app about to be served, from [`serve`].
#[must_use = "nothing is served until this is awaited or `block()` is called"]
pub struct Serve<S> {
    app: S,
    cluster: Option<Cluster>,
}

impl<S: App> Serve<S> {
    /// Uses these settings instead of the environment's alone.
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Serves from a `main` without a runtime.
    ///
    /// # Errors
    ///
    /// As [`ServeError`] says; [`ServeError::InsideRuntime`] where there is a runtime already.
    pub fn block(self) -> Result<(), ServeError> {
        let app = self.app;
        block(cluster_or_default(self.cluster)?, |_| async move { Ok(app) })
    }
}

impl<S: App> IntoFuture for Serve<S> {
    type Output = Result<(), ServeError>;
    type IntoFuture = ServeFuture;

    fn into_future(self) -> ServeFuture {
        ServeFuture::new(async move {
            let Some(worker) = cluster_or_default(self.cluster)?.enter_async().await? else {
                return Ok(());
            };
            serve_worker(worker, self.app).await;
            Ok(())
        })
    }
}

/// An app about to be made and served, from [`serve_with`].
#[must_use = "nothing is served until this is awaited or `block()` is called"]
pub struct ServeWith<F> {
    cluster: Cluster,
    make_app: F,
}

impl<F, Fut, S> ServeWith<F>
where
    F: FnOnce(sticky_core::Worker) -> Fut,
    Fut: Future<Output = Result<S, BoxError>>,
    S: App,
{
    /// Serves from a `main` without a runtime. What `make_app` returns need not be `Send`.
    ///
    /// # Errors
    ///
    /// As [`ServeError`] says; [`ServeError::InsideRuntime`] where there is a runtime already.
    pub fn block(self) -> Result<(), ServeError> {
        block(self.cluster, self.make_app)
    }
}

impl<F, Fut, S> IntoFuture for ServeWith<F>
where
    F: FnOnce(sticky_core::Worker) -> Fut + Send + 'static,
    Fut: Future<Output = Result<S, BoxError>> + Send,
    S: App,
{
    type Output = Result<(), ServeError>;
    type IntoFuture = ServeFuture;

    fn into_future(self) -> ServeFuture {
        ServeFuture::new(async move {
            let Some(worker) = self.cluster.enter_async().await? else {
                return Ok(());
            };
            let app = (self.make_app)(worker.clone()).await.map_err(|error| {
                worker.fail(error.as_ref());
                ServeError::Application(error)
            })?;
            serve_worker(worker, app).await;
            Ok(())
        })
    }
}

fn cluster_or_default(cluster: Option<Cluster>) -> Result<Cluster, ServeError> {
    Ok(cluster.map_or_else(|| Cluster::builder().build(), Ok)?)
}

fn block<F, Fut, S>(cluster: Cluster, make_app: F) -> Result<(), ServeError>
where
    F: FnOnce(sticky_core::Worker) -> Fut,
    Fut: Future<Output = Result<S, BoxError>>,
    S: App,
{
    cluster.run(|worker| async move {
        let app = make_app(worker.clone()).await?;
        serve_worker(worker, app).await;
        Ok(())
    })
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

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<S> fmt::Debug for Serve<S> {
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
    use axum::Router;

    use super::*;

    #[tokio::test]
    async fn block_inside_a_runtime_says_what_to_do() {
        let error = serve(Router::new()).block().unwrap_err();
        assert!(matches!(error, ServeError::InsideRuntime), "{error:?}");
    }
}
