//! Run with `examples/chat/run`: a chat whose rooms span all workers, and survive each of them.
//!
//! What is emitted to a room reaches its sockets in every worker: that is Socket.IO as anywhere. What workers have to know of
//! each other beside that, the last messages of a room and who is in it, they tell each other on the bus.
//!
//! `CHAT_KILL=on` gives everybody a button that kills the worker which serves them. `CHAT_CLIENT` is the folder in which the
//! official client is, if it is not where `run` installs it.

mod chat;
mod history;
mod page;
mod people;
mod words;

use axum::Router;
use sticky_socketio::{Cluster, ServeError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ServeError> {
    let cluster = Cluster::builder().build()?;
    sticky_socketio::serve_with(cluster, |worker, io| async move {
        chat::open(&worker, io).await?;
        Ok(Router::new().merge(page::routes()?))
    })
    .await
}
