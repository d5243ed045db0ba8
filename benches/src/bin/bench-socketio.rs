//! A Socket.IO server that emits to everybody what one client sends: under sticky, or as one process (`BENCH_PLAIN`). With
//! `BENCH_SENDS` (how many clients) it does nothing but send it. With `BENCH_POLLS` it answers polls, with our `layer` or not.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use axum::Router;
use sticky_socketio::extract::{Data, SocketRef};
use sticky_socketio::{BoxError, Cluster, SocketIo, TagLayer};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

fn main() -> Result<(), BoxError> {
    if std::env::var_os("BENCH_PLAIN").is_some() {
        return plain();
    }
    if let Ok(clients) = std::env::var("BENCH_SENDS") {
        return sends(clients.parse()?);
    }
    if let Ok(kind) = std::env::var("BENCH_POLLS") {
        return polls(kind == "layer");
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

/// Answers polls.
fn polls(has_layer: bool) -> Result<(), BoxError> {
    let cluster = sticky_socketio::cluster_builder().build()?;
    let serve = sticky_axum::serve_with(cluster, move |worker| async move {
        let (layer, io) = socketioxide::SocketIo::new_layer();
        io.ns("/", async |socket: socketioxide::extract::SocketRef| {
            socket.on("echo", async |socket: socketioxide::extract::SocketRef, Data::<u64>(number)| {
                socket.emit("echo", &number).ok();
            });
        });
        Ok(match has_layer {
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

/// What no server can do without: one system call for each client. The last client to come speaks.
fn sends(clients: usize) -> Result<(), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    let mut all = listener.incoming().take(clients).map(join).collect::<Result<Vec<_>, _>>()?;
    loop {
        let spoken = all.last_mut().ok_or("nobody came")?.read()?;
        let Some(number) = spoken.to_text()?.strip_prefix("42[\"broadcast\",") else { continue };
        let text = format!("42[\"hello\",{number}");
        let frame = [&[0x81, u8::try_from(text.len())?], text.as_bytes()].concat();
        for client in &mut all {
            client.get_mut().write_all(&frame)?;
        }
    }
}

/// A client in the main namespace.
fn join(stream: Result<TcpStream, std::io::Error>) -> Result<WebSocket<TcpStream>, BoxError> {
    let stream = stream?;
    stream.set_nodelay(true)?;
    let mut client = tungstenite::accept(stream)?;
    let open = r#"0{"sid":"0","upgrades":[],"pingInterval":600000,"pingTimeout":600000,"maxPayload":1000000}"#;
    client.send(Message::text(open))?;
    while client.read()?.to_text()? != "40" {}
    client.send(Message::text(r#"40{"sid":"0"}"#))?;
    Ok(client)
}
