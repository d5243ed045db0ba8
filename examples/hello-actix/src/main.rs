//! Run with `cargo run -p hello-actix`, then `curl localhost:5000`.

use actix_web::{App, web};
use sticky_actix::Worker;

#[actix_web::main]
async fn main() -> Result<(), sticky_actix::RunError> {
    sticky_actix::run(|| App::new().route("/", web::get().to(hello))).await
}

async fn hello(worker: Worker) -> String {
    format!("worker: {}\n", worker.id())
}
