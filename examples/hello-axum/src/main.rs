//! Run with `cargo run -p hello-axum`, then `curl localhost:5000`.

use axum::{Router, routing::get};
use sticky_axum::Worker;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), sticky_axum::ServeError> {
    let app = Router::new().route("/", get(|worker: Worker| async move { format!("worker: {}\n", worker.id()) }));
    sticky_axum::serve(app).await
}
