//! A Socket.IO server that emits to everybody what one client sends: under sticky, or as one process (`BENCH_PLAIN`). With
//! `BENCH_POLLS` one that answers polls, `tagged` or not.

use axum::Router;
use sticky_socketio::extract::{Data, SocketRef};
use sticky_socketio::{BoxError, Cluster, SocketIo, TagLayer};

fn main() -> Result<(), BoxError> {
    if std::env::var_os("BENCH_PLAIN").is_some() {
        return plain();
    }
    if let Ok(kind) = std::env::var("BENCH_POLLS") {
        return polls(kind == "tagged");
    }
    sticky_socketio::serve(|io| async move { Ok(io.ns("/", on_connect).await?) })
        .cluster(Cluster::builder().build()?)
        .block()?;
    Ok(())
}

async fn on_connect(socket: SocketRef) {
    socket.on("broadcast", async |io: SocketIo, Data::<u64>(sent)| {
        io.emit("hello", &sent).await.ok();
    });
}

/// Answers polls, whose sessions' ids have tags or not.
fn polls(is_tagged: bool) -> Result<(), BoxError> {
    let cluster = sticky_socketio::cluster_builder().build()?;
    let serve = sticky_axum::serve_with(cluster, move |worker| async move {
        let (layer, io) = socketioxide::SocketIo::new_layer();
        io.ns("/", async |socket: socketioxide::extract::SocketRef| {
            socket.on("echo", async |socket: socketioxide::extract::SocketRef, Data::<u64>(number)| {
                socket.emit("echo", &number).ok();
            });
        });
        Ok(match is_tagged {
            true => Router::new().layer((TagLayer::new(&worker, "/socket.io"), layer)),
            false => Router::new().layer(layer),
        })
    });
    Ok(serve.block()?)
}

/// The floor: socketioxide as it is, on one thread.
fn plain() -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (layer, io) = socketioxide::SocketIo::new_layer();
        io.ns("/", async |socket: socketioxide::extract::SocketRef| {
            socket.on("broadcast", async |io: socketioxide::SocketIo, Data::<u64>(sent)| {
                io.emit("hello", &sent).await.ok();
            });
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        eprintln!("listening on http://{}", listener.local_addr()?);
        let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            served = axum::serve(listener, Router::new().layer(layer)) => served?,
            _ = end.recv() => {}
        }
        Ok(())
    })
}
