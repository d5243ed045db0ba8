//! The calls that make a cluster of a program.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_http::body::MessageBody;
use actix_http::{Request, Response};
use actix_rt::System;
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::Error;
use actix_web::dev::AppConfig;
use sticky_core::{BoxError, Cluster, RunError, Worker};
use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::task::LocalSet;

use crate::feed::{AppFactory, Factory, LocalFuture};
use crate::threads::Threads;

/// Serves the application that `factory` makes in every worker, with the settings of the environment (`STICKY_LISTEN`,
/// `STICKY_WORKERS`, ..). The factory is what [`HttpServer::new`](actix_web::HttpServer::new) takes, and runs once in each
/// thread of a worker.
///
/// Nothing happens before the value is awaited, or [`block`](Run::block) is called. It ends in a worker after its drain,
/// and in the supervisor after the last worker; code after it has `exit_timeout` (5 s).
///
/// ```no_run
/// # async fn example() -> Result<(), sticky_actix::RunError> {
/// use actix_web::{App, web};
///
/// sticky_actix::run(|| App::new().route("/", web::get().to(|| async { "hello\n" }))).await
/// # }
/// ```
///
/// With settings in code:
///
/// ```no_run
/// # async fn example() -> Result<(), sticky_actix::RunError> {
/// use actix_web::{App, web};
/// use sticky_actix::Cluster;
///
/// let cluster = Cluster::builder().workers(4).build()?;
/// sticky_actix::run(|| App::new().route("/", web::get().to(|| async { "hello\n" }))).cluster(cluster).await
/// # }
/// ```
///
/// From a `main` without a runtime: each worker makes its own.
///
/// ```no_run
/// use actix_web::{App, web};
///
/// fn main() -> Result<(), sticky_actix::RunError> {
///     sticky_actix::run(|| App::new().route("/", web::get().to(|| async { "hello\n" }))).block()
/// }
/// ```
///
/// An application's tasks stay on their thread, so what awaits it must do so, too: `#[actix_web::main]`, or
/// `#[tokio::main(flavor = "current_thread")]`. Inside of a runtime of several threads it is
/// [`RunError::WrongRuntime`].
pub fn run<F, I, S, B>(factory: F) -> Run
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request> + 'static,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    Run { factory: Box::new(AppFactory::new(factory)), cluster: None }
}

/// Serves the application of the factory that `make_factory` makes, which runs in workers only, once in each: the place
/// for what one process may not make, or need not, and what all threads of a worker share. It gets a
/// [`sticky_core::Worker`].
///
/// Its error, or its panic, ends the cluster's start: the worker says it, and the supervisor says it once more as the
/// reason. An error of the system alone ("no such file") tells little, so say what was attempted.
///
/// ```no_run
/// # async fn example() -> Result<(), sticky_actix::RunError> {
/// use actix_web::{App, web};
/// use sticky_actix::Cluster;
///
/// let cluster = Cluster::builder().build()?;
/// sticky_actix::run_with(cluster, |worker| async move {
///     let greeting = std::fs::read_to_string("greeting.txt").map_err(|error| format!("greeting.txt: {error}"))?;
///     let greeting = web::Data::new(format!("{greeting} from {}\n", worker.id()));
///     Ok(move || App::new().app_data(greeting.clone()).route("/", web::get().to(greet)))
/// })
/// .await
/// # }
/// # async fn greet(greeting: actix_web::web::Data<String>) -> String { greeting.to_string() }
/// ```
pub fn run_with<M, Fut, F, I, S, B>(cluster: Cluster, make_factory: M) -> RunWith
where
    M: FnOnce(Worker) -> Fut + 'static,
    Fut: Future<Output = Result<F, BoxError>> + 'static,
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request> + 'static,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let make: MakeFactory = Box::new(move |worker| {
        let making = make_factory(worker);
        Box::pin(async move { Ok(Box::new(AppFactory::new(making.await?)) as Box<dyn Factory>) })
    });
    RunWith { cluster, make }
}

type MakeFactory = Box<dyn FnOnce(Worker) -> LocalFuture<Result<Box<dyn Factory>, BoxError>>>;

/// An application about to be served, from [`run`].
#[must_use = "nothing is served until this is awaited or `block()` is called"]
pub struct Run {
    factory: Box<dyn Factory>,
    cluster: Option<Cluster>,
}

impl Run {
    /// Uses these settings instead of the environment's alone.
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Serves from a `main` without a runtime.
    ///
    /// # Errors
    ///
    /// As [`RunError`] says; [`RunError::InsideRuntime`] where there is a runtime already.
    pub fn block(self) -> Result<(), RunError> {
        block_on(self.serve())
    }

    async fn serve(self) -> Result<(), RunError> {
        let Self { factory, cluster } = self;
        let cluster = cluster.map_or_else(|| Cluster::builder().build(), Ok)?;
        serve(cluster, Box::new(move |_| Box::pin(async move { Ok(factory) }))).await
    }
}

impl IntoFuture for Run {
    type Output = Result<(), RunError>;
    type IntoFuture = RunFuture;

    fn into_future(self) -> RunFuture {
        RunFuture(Box::pin(on_this_thread(self.serve())))
    }
}

/// An application about to be made and served, from [`run_with`].
#[must_use = "nothing is served until this is awaited or `block()` is called"]
pub struct RunWith {
    cluster: Cluster,
    make: MakeFactory,
}

impl RunWith {
    /// Serves from a `main` without a runtime.
    ///
    /// # Errors
    ///
    /// As [`RunError`] says; [`RunError::InsideRuntime`] where there is a runtime already.
    pub fn block(self) -> Result<(), RunError> {
        block_on(serve(self.cluster, self.make))
    }
}

impl IntoFuture for RunWith {
    type Output = Result<(), RunError>;
    type IntoFuture = RunFuture;

    fn into_future(self) -> RunFuture {
        RunFuture(Box::pin(on_this_thread(serve(self.cluster, self.make))))
    }
}

async fn serve(cluster: Cluster, make: MakeFactory) -> Result<(), RunError> {
    let count = cluster.threads_per_worker();
    let address = cluster.listen_addr().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let Some(worker) = cluster.enter_async().await? else {
        return Ok(());
    };
    let started = async {
        let factory = make(worker.clone()).await?;
        Threads::start(&*factory, address, count, &worker).await
    };
    let threads = started.await.map_err(|error: BoxError| {
        worker.fail(error.as_ref());
        RunError::Application(error)
    })?;
    threads.serve(worker).await;
    Ok(())
}

/// Runs `serving` where tasks can be spawned that stay on this thread.
async fn on_this_thread(serving: impl Future<Output = Result<(), RunError>>) -> Result<(), RunError> {
    if System::is_registered() {
        return serving.await;
    }
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => LocalSet::new().run_until(serving).await,
        _ => Err(RunError::WrongRuntime(
            "an actix application cannot be served inside a tokio runtime of several threads: make main \
             #[actix_web::main] or #[tokio::main(flavor = \"current_thread\")], or a plain `fn main` that calls .block()",
        )),
    }
}

/// Makes a runtime and an actix system, and runs `serving` there: what `block` does, for those who have something to do in
/// the same runtime before or after.
///
/// ```no_run
/// use actix_web::{App, web};
///
/// fn main() -> Result<(), sticky_actix::RunError> {
///     sticky_actix::block_on(async {
///         sticky_actix::run(|| App::new().route("/", web::get().to(|| async { "hello\n" }))).await?;
///         println!("goodbye");
///         Ok(())
///     })
/// }
/// ```
///
/// # Errors
///
/// Those of `serving`; [`RunError::InsideRuntime`] where there is a runtime already.
pub fn block_on(serving: impl Future<Output = Result<(), RunError>>) -> Result<(), RunError> {
    if Handle::try_current().is_ok() {
        return Err(RunError::InsideRuntime);
    }
    let runtime = Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    let runtime = Arc::new(runtime);
    let outcome = System::with_tokio_rt(|| Arc::clone(&runtime)).block_on(serving);
    // Blocking tasks that the application left behind must not hold up the end.
    if let Some(runtime) = Arc::into_inner(runtime) {
        runtime.shutdown_background();
    }
    outcome
}

/// Serving, until it has ended. It stays on its thread.
#[must_use = "futures do nothing unless polled"]
pub struct RunFuture(LocalFuture<Result<(), RunError>>);

impl Future for RunFuture {
    type Output = Result<(), RunError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").finish_non_exhaustive()
    }
}

impl fmt::Debug for RunWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunWith").finish_non_exhaustive()
    }
}

impl fmt::Debug for RunFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use actix_web::App;

    use super::*;

    #[tokio::test]
    async fn block_inside_a_runtime_says_what_to_do() {
        let error = run(App::new).block().unwrap_err();
        assert!(matches!(error, RunError::InsideRuntime), "{error:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn awaited_inside_a_runtime_of_several_threads_it_says_what_to_do() {
        let error = run(App::new).await.unwrap_err();
        assert!(matches!(error, RunError::WrongRuntime(_)), "{error:?}");
        assert!(error.to_string().contains("#[actix_web::main]"), "{error}");
    }
}
