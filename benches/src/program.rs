//! What every measured program serves: the same router, whoever runs it.

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::AppendHeaders;
use axum::routing::get;

/// The header in which a worker says which one it is.
pub const WORKER_HEADER: &str = "x-worker";

/// Of each WebSocket's read buffer. With the default of 128 KiB nothing else would show in an idle one's memory.
const WEBSOCKET_BUFFER: usize = 4 * 1024;

/// `GET /` answers a short text, `GET /block/{ms}` blocks its thread for that long (at most a second) first, `/ws` sends
/// each message of a WebSocket back.
///
/// All carry the `x-worker` header: the worker's number, or `-` in a program without workers.
pub fn router() -> Router {
    let worker = worker();
    Router::new()
        .route("/", get(async move || (AppendHeaders([(WORKER_HEADER, worker)]), "hello\n")))
        .route(
            "/block/{ms}",
            get(async move |Path(ms): Path<u64>| {
                std::thread::sleep(Duration::from_millis(ms.min(1_000)));
                (AppendHeaders([(WORKER_HEADER, worker)]), "blocked\n")
            }),
        )
        .route(
            "/ws",
            get(async move |upgrade: WebSocketUpgrade| {
                let upgrade = upgrade.read_buffer_size(WEBSOCKET_BUFFER).write_buffer_size(0);
                (AppendHeaders([(WORKER_HEADER, worker)]), upgrade.on_upgrade(echo))
            }),
        )
}

/// What `x-worker` says.
pub(crate) fn worker() -> &'static str {
    std::env::var("STICKY_WORKER_ID").map_or("-", |worker| worker.leak())
}

/// Until the client closes it, or is gone.
async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let is_data = matches!(message, Message::Text(_) | Message::Binary(_));
        if is_data && socket.send(message).await.is_err() {
            return;
        }
    }
}
