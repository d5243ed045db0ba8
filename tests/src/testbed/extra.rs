//! What a testbed serves beside its public port: its worker's name, and an answer that takes its time.

use std::convert::Infallible;
use std::env;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use sticky_core::{ExtraListener, Worker};

use super::BoxError;

/// The extra listener that is to be asked for, if there is one.
pub const VARIABLE: &str = "TESTBED_EXTRA";

/// Asks for the listener that the environment names.
///
/// # Errors
/// When there is no such listener.
pub fn listener(worker: &Worker) -> Result<Option<ExtraListener>, BoxError> {
    let Ok(name) = env::var(VARIABLE) else { return Ok(None) };
    Ok(Some(worker.listener(&name)?))
}

/// The answer to `GET /`.
pub fn name(worker: &Worker) -> String {
    format!("extra: {} {}", worker.id(), std::process::id())
}

/// The answer to `GET /sleep`.
pub async fn sleep() -> &'static str {
    println!("extra: executing");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    "slept beside"
}

/// Serves with plain hyper, if the environment says so.
///
/// # Errors
/// When there is no such listener.
pub fn serve(worker: &Worker) -> Result<(), BoxError> {
    let Some(listener) = listener(worker)? else { return Ok(()) };
    let worker = worker.clone();
    Ok(sticky_core::http::serve_extra(listener, service_fn(move |request| answer(worker.clone(), request)))?)
}

async fn answer(worker: Worker, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = match request.uri().path() {
        "/sleep" => sleep().await.to_owned(),
        _ => name(&worker),
    };
    Ok(Response::new(Full::from(text)))
}
