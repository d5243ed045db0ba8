//! The worker and its drain as handler arguments.

use std::fmt;
use std::ops::Deref;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

/// The worker that serves this request, as a handler argument.
///
/// In unit tests of an app, where no worker serves, a layer provides it:
///
/// ```
/// use axum::{Extension, Router, routing::get};
/// use sticky_axum::Worker;
///
/// let app: Router = Router::new()
///     .route("/", get(|worker: Worker| async move { worker.id().to_string() }))
///     .layer(Extension(Worker::from(sticky_core::Worker::detached())));
/// ```
#[derive(Clone, Debug)]
pub struct Worker(sticky_core::Worker);

/// Tells a handler when this worker drains, so that an endless response or a WebSocket can end itself.
///
/// ```
/// use sticky_axum::Drain;
///
/// async fn events(drain: Drain) -> &'static str {
///     drain.started().await;
///     "goodbye"
/// }
/// ```
///
/// In unit tests it is the drain of the [`Worker`] that a layer provides, or one that a layer provides itself.
#[derive(Clone, Debug)]
pub struct Drain(sticky_core::Drain);

/// A handler asked for the [`Worker`] or the [`Drain`] outside of a worker; answers 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAWorker;

impl Deref for Worker {
    type Target = sticky_core::Worker;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl From<sticky_core::Worker> for Worker {
    fn from(worker: sticky_core::Worker) -> Self {
        Self(worker)
    }
}

impl<S: Sync> FromRequestParts<S> for Worker {
    type Rejection = NotAWorker;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let provided = parts.extensions.get::<Self>().cloned();
        provided.or_else(|| sticky_core::Worker::current().map(Self)).ok_or(NotAWorker)
    }
}

impl Deref for Drain {
    type Target = sticky_core::Drain;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl From<sticky_core::Drain> for Drain {
    fn from(drain: sticky_core::Drain) -> Self {
        Self(drain)
    }
}

impl<S: Sync> FromRequestParts<S> for Drain {
    type Rejection = NotAWorker;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        match parts.extensions.get::<Self>() {
            Some(drain) => Ok(drain.clone()),
            None => Worker::from_request_parts(parts, state).await.map(|worker| Self(worker.drain())),
        }
    }
}

impl fmt::Display for NotAWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this process is not a worker: in tests, add Extension(Worker::from(Worker::detached()))")
    }
}

impl std::error::Error for NotAWorker {}

impl IntoResponse for NotAWorker {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use axum::routing::get;
    use axum::{Extension, Router};
    use tower::ServiceExt;

    use super::*;

    async fn status(app: Router) -> StatusCode {
        app.oneshot(Request::new(Body::empty())).await.unwrap().status()
    }

    fn app() -> Router {
        Router::new().route("/", get(|_: Worker, _: Drain| async {}))
    }

    #[tokio::test]
    async fn a_layer_provides_the_worker_in_tests() {
        let worker = Worker::from(sticky_core::Worker::detached());
        assert_eq!(status(app().layer(Extension(worker))).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn outside_of_a_worker_the_answer_is_an_error() {
        assert_eq!(status(app()).await, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
