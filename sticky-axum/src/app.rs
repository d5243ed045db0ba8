//! What can be served, and how hyper calls it.

use std::any::Any;
use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use axum::routing::MethodRouter;
use sticky_core::error::ExtraListenerError;
use sticky_core::http::RequestBody;
use sticky_core::{ClientAddr, Connection, ExtraListener};
use tower::util::Oneshot;
use tower::{Service, ServiceExt};

/// What [`serve`](crate::serve()) takes: a [`Router`], a [`MethodRouter`], or any other service that answers every
/// request, a handler's [`into_service`](axum::handler::HandlerWithoutStateExt::into_service) for one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be served",
    note = "a `Router` that still misses its state needs `.with_state(..)`"
)]
pub trait App:
    Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> App for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// Serves this worker's connections until it has drained.
#[doc(hidden)]
pub async fn serve_worker<S: App>(worker: sticky_core::Worker, app: S) {
    let app = with_unit_state(app);
    let make = move |connection: &Connection| ConnectionService { app: app.clone(), client: connection.client_addr() };
    sticky_core::http::serve_connections(worker.ready(), make).await;
}

/// Serves `app` at an [extra listener](sticky_core::Worker::listener), in a task of its own, until the worker has drained:
/// beside the public port, with the same limits of time, and without affinity. For the factory of
/// [`serve_with`](crate::serve_with).
///
/// ```no_run
/// # async fn example() -> Result<(), sticky_axum::ServeError> {
/// use axum::{Router, routing::get};
/// use sticky_axum::Cluster;
///
/// let cluster = Cluster::builder().extra_listener("metrics", "127.0.0.1:9000").build()?;
/// sticky_axum::serve_with(cluster, |worker| async move {
///     let metrics = Router::new().route("/metrics", get(|| async { "up 1\n" }));
///     sticky_axum::serve_extra(worker.listener("metrics")?, metrics)?;
///     Ok(Router::new().route("/", get(|| async { "hello\n" })))
/// })
/// .await
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
pub fn serve_extra<S: App>(listener: ExtraListener, app: S) -> Result<(), ExtraListenerError> {
    let app = with_unit_state(app);
    let make = move |connection: &Connection| ConnectionService { app: app.clone(), client: connection.client_addr() };
    sticky_core::http::serve_extra_with(listener, make)
}

/// Lets axum turn a router's handlers into routes now instead of on every request.
fn with_unit_state<S: App>(app: S) -> S {
    let mut app = Some(app);
    let any: &mut dyn Any = &mut app;
    if let Some(router) = any.downcast_mut::<Option<Router>>() {
        *router = router.take().map(|router| router.with_state(()));
    } else if let Some(router) = any.downcast_mut::<Option<MethodRouter>>() {
        *router = router.take().map(|router| router.with_state(()));
    }
    app.expect("what was taken out has been put back")
}

/// The app for one connection.
struct ConnectionService<S> {
    app: S,
    client: ClientAddr,
}

impl<S: App> sticky_core::http::Service<axum::http::Request<RequestBody>> for ConnectionService<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Oneshot<S, Request>;

    fn call(&self, request: axum::http::Request<RequestBody>) -> Self::Future {
        let mut request = request.map(body);
        if let Some(client) = self.client.get() {
            request.extensions_mut().insert(ConnectInfo::<SocketAddr>(client));
        }
        self.app.clone().oneshot(request)
    }
}

fn body(body: RequestBody) -> Body {
    // An empty body needs no allocation, and most requests have one.
    if body.is_end_stream() { Body::empty() } else { Body::new(body) }
}

#[cfg(test)]
mod tests {
    use axum::handler::HandlerWithoutStateExt;
    use axum::routing::get;

    use super::*;

    async fn answer<S: App>(app: S) -> Response {
        let request = Request::new(Body::empty());
        with_unit_state(app).oneshot(request).await.unwrap_or_else(|never| match never {})
    }

    async fn hello() -> &'static str {
        "hello"
    }

    #[tokio::test]
    async fn everything_that_answers_can_be_served() {
        let router: Router = Router::new().route("/", get(hello));
        let method_router: MethodRouter = get(hello);
        assert!(answer(router).await.status().is_success());
        assert!(answer(method_router).await.status().is_success());
        assert!(answer(hello.into_service()).await.status().is_success());
    }
}
