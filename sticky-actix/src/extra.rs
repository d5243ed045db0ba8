//! Applications beside the public port.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use actix_http::body::MessageBody;
use actix_http::{Request, Response};
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::Error;
use actix_web::dev::AppConfig;
use sticky_core::{BoxError, ExtraListener};
use tokio::task::spawn_local;

use crate::feed::{AppFactory, Factory};

/// Serves the application that `factory` makes at an [extra listener](sticky_core::Worker::listener), on this thread, until
/// the worker has drained: beside the public port, with the same limits of time, and without affinity. For the factory of
/// [`run_with`](crate::run_with).
///
/// ```no_run
/// # async fn example() -> Result<(), sticky_actix::RunError> {
/// use actix_web::{App, web};
/// use sticky_actix::Cluster;
///
/// let cluster = Cluster::builder().extra_listener("metrics", "127.0.0.1:9000").build()?;
/// sticky_actix::run_with(cluster, |worker| async move {
///     let metrics = || App::new().route("/metrics", web::get().to(async || "up 1\n"));
///     sticky_actix::serve_extra(worker.listener("metrics")?, metrics).await?;
///     Ok(|| App::new().route("/", web::get().to(async || "hello\n")))
/// })
/// .await
/// # }
/// ```
///
/// # Errors
///
/// When the application cannot be made, or the system refuses to watch the listener.
///
/// # Panics
///
/// Where no tasks can be spawned that stay on this thread; inside [`run_with`](crate::run_with) they can.
pub async fn serve_extra<F, I, S, B>(listener: ExtraListener, factory: F) -> Result<(), BoxError>
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
    let address = listener.local_addr().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let feed = AppFactory::new(factory).make(address).await?;
    let mut connections = listener.into_connections()?;
    let worker = connections.worker().clone();
    spawn_local(async move {
        while let Some(connection) = connections.accept().await {
            feed.serve(connection, &worker, Box::new(()));
        }
    });
    Ok(())
}
