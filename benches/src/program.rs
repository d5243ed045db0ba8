//! What every measured program serves: the same router, whoever runs it.

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::response::AppendHeaders;
use axum::routing::get;

/// The header in which a worker says which one it is.
pub const WORKER_HEADER: &str = "x-worker";

/// `GET /` answers a short text, `GET /block/{ms}` blocks its thread for that long (at most a second) first.
///
/// Both carry the `x-worker` header: the worker's number, or `-` in a program without workers.
pub fn router() -> Router {
    let worker = std::env::var("STICKY_WORKER_ID").unwrap_or_else(|_| "-".to_owned());
    let worker: &'static str = worker.leak();
    Router::new().route("/", get(async move || (AppendHeaders([(WORKER_HEADER, worker)]), "hello\n"))).route(
        "/block/{ms}",
        get(async move |Path(ms): Path<u64>| {
            std::thread::sleep(Duration::from_millis(ms.min(1_000)));
            (AppendHeaders([(WORKER_HEADER, worker)]), "blocked\n")
        }),
    )
}
