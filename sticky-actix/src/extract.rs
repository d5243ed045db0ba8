//! The worker and its drain as handler arguments.

use std::fmt;
use std::future::{Ready, ready};
use std::ops::Deref;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, ResponseError};

/// The worker that serves this request, as a handler argument.
///
/// In unit tests of an app, where no worker serves, the app's data provides it:
///
/// ```
/// use actix_web::{App, web};
/// use sticky_actix::Worker;
///
/// let app = App::new()
///     .app_data(Worker::from(sticky_core::Worker::detached()))
///     .route("/", web::get().to(|worker: Worker| async move { worker.id().to_string() }));
/// ```
#[derive(Clone, Debug)]
pub struct Worker(sticky_core::Worker);

/// Tells a handler when this worker drains, so that an endless response or a WebSocket can end itself.
///
/// ```
/// use sticky_actix::Drain;
///
/// async fn events(drain: Drain) -> &'static str {
///     drain.started().await;
///     "goodbye"
/// }
/// ```
///
/// In unit tests it is the drain of the [`Worker`] that the app's data provides, or one that it provides itself.
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

impl FromRequest for Worker {
    type Error = NotAWorker;
    type Future = Ready<Result<Self, NotAWorker>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let provided = request.app_data::<Self>().cloned();
        ready(provided.or_else(|| sticky_core::Worker::current().map(Self)).ok_or(NotAWorker))
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

impl FromRequest for Drain {
    type Error = NotAWorker;
    type Future = Ready<Result<Self, NotAWorker>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        match request.app_data::<Self>() {
            Some(drain) => ready(Ok(drain.clone())),
            None => {
                let worker = Worker::from_request(request, payload).into_inner();
                ready(worker.map(|worker| Self(worker.drain())))
            }
        }
    }
}

impl fmt::Display for NotAWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this process is not a worker: in tests, add .app_data(Worker::from(Worker::detached()))")
    }
}

impl std::error::Error for NotAWorker {}

impl ResponseError for NotAWorker {}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App, web};

    use super::*;

    async fn handler(_: Worker, _: Drain) -> &'static str {
        "a worker"
    }

    #[actix_web::test]
    async fn the_apps_data_provides_the_worker_in_tests() {
        let worker = Worker::from(sticky_core::Worker::detached());
        let app = init_service(App::new().app_data(worker).route("/", web::get().to(handler))).await;
        let response = call_service(&app, TestRequest::default().to_request()).await;
        assert_eq!(response.status(), StatusCode::OK);
    }

    #[actix_web::test]
    async fn outside_of_a_worker_the_answer_is_an_error() {
        let app = init_service(App::new().route("/", web::get().to(handler))).await;
        let response = call_service(&app, TestRequest::default().to_request()).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
