//! The Socket.IO server of the testbeds: what the client and its protocol tests ask of one.

mod arguments;
mod commands;
mod settings;

use std::sync::Arc;

use axum::Router;
use bytes::Bytes;
use engineioxide::handler::EngineIoHandler;
use engineioxide::layer::EngineIoLayer;
use engineioxide::service::EngineIoService;
use engineioxide::{DisconnectReason, Socket, Str};
use rmpv::Value;
use sticky_core::Worker;
use sticky_socketio::actix::{Bridge, SocketIoFactory};
use sticky_socketio::extract::{AckSender, Data, SocketRef, TryData};
use sticky_socketio::{ServerSide, SocketIo, TagLayer};

use self::arguments::Arguments;
use super::BoxError;

/// A router with the Socket.IO server around it.
///
/// # Errors
/// What the environment says wrongly; a namespace that cannot be set up.
pub async fn server(worker: &Worker, router: Router) -> Result<Router, BoxError> {
    let (layer, io) = sticky_socketio::layer(worker, settings::socket_io()?)?;
    namespaces(worker, &io).await?;
    Ok(router.layer(layer))
}

/// The same server as a service of an actix application.
///
/// # Errors
/// What the environment says wrongly; a namespace that cannot be set up.
pub async fn actix_server(worker: &Worker) -> Result<SocketIoFactory, BoxError> {
    let (service, io) = sticky_socketio::actix::service(worker, settings::socket_io()?)?;
    namespaces(worker, &io).await?;
    Ok(service)
}

async fn namespaces(worker: &Worker, io: &SocketIo) -> Result<(), BoxError> {
    let id = worker.id().get();
    let servers = servers(worker, io).await?;
    io.ns("/", async move |socket: SocketRef, auth: TryData<Value>| {
        on_connect(&socket, auth, id);
        let servers = servers.clone();
        socket.on("tell-servers", async move |Data::<Value>(what), ack: AckSender| {
            ack.send(&servers.emit("note", &(id, what)).await.is_ok()).ok();
        });
    })
    .await?;
    io.ns("/custom", async |socket: SocketRef, auth: TryData<Value>| {
        emit_auth(&socket, auth);
        take_commands(&socket);
    })
    .await?;
    Ok(())
}

/// What servers tell each other, they tell their own clients.
async fn servers(worker: &Worker, io: &SocketIo) -> Result<ServerSide, BoxError> {
    let servers = ServerSide::new(worker)?;
    let io = io.clone();
    servers
        .on("note", move |note: (u16, Value)| {
            let io = io.clone();
            async move { drop(io.local().emit("noted", &note).await) }
        })
        .await?;
    Ok(servers)
}

fn on_connect(socket: &SocketRef, auth: TryData<Value>, worker: u16) {
    emit_auth(socket, auth);
    take_commands(socket);
    socket.on("message", async |socket: SocketRef, Data::<Arguments>(arguments)| {
        socket.emit("message-back", &arguments).ok();
    });
    socket.on("message-with-ack", async |Data::<Arguments>(arguments), ack: AckSender| {
        ack.send(&arguments).ok();
    });
    socket.on("emit-with-ack", async |socket: SocketRef, Data::<Arguments>(arguments)| {
        if let Ok(question) = socket.emit_with_ack::<_, Arguments>("emit-with-ack", &arguments)
            && let Ok(answer) = question.await
        {
            socket.emit("emit-with-ack", &answer).ok();
        }
    });
    socket.on("whoami", async move |ack: AckSender| {
        ack.send(&worker).ok();
    });
    socket.on("pid", async |ack: AckSender| {
        ack.send(&std::process::id()).ok();
    });
    socket.on("broadcast", async move |io: SocketIo| {
        io.emit("hello", &worker).await.ok();
    });
}

fn take_commands(socket: &SocketRef) {
    socket.on("join", async |socket: SocketRef, Data::<Vec<String>>(rooms), ack: AckSender| {
        socket.join(rooms);
        ack.send("joined").ok();
    });
    socket.on("do", commands::obey);
}

/// Says what the client has said of itself; nothing is an empty object, as the client has it.
fn emit_auth(socket: &SocketRef, TryData(auth): TryData<Value>) {
    let auth = auth.ok().filter(|auth| !auth.is_nil()).unwrap_or(Value::Map(Vec::new()));
    socket.emit("auth", &auth).ok();
}

/// A router with an Engine.IO echo around it.
///
/// # Errors
/// What the environment says wrongly.
pub fn engine(worker: &Worker, router: Router) -> Result<Router, BoxError> {
    let config = settings::engine()?;
    let tags = TagLayer::new(worker, &*config.req_path);
    Ok(router.layer((tags, EngineIoLayer::from_config(Arc::new(Echo), config))))
}

/// The same echo as a service of an actix application.
///
/// # Errors
/// What the environment says wrongly.
pub fn actix_engine(worker: &Worker) -> Result<Bridge<EngineIoService<Echo>>, BoxError> {
    let config = settings::engine()?;
    let tags = TagLayer::new(worker, &*config.req_path);
    Ok(Bridge::new(&tags, EngineIoService::with_config(Arc::new(Echo), config)))
}

/// Sends everything back.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl EngineIoHandler for Echo {
    type Data = ();

    fn on_connect(self: Arc<Self>, _: Arc<Socket<()>>) {}

    fn on_disconnect(&self, _: Arc<Socket<()>>, _: DisconnectReason) {}

    fn on_message(self: &Arc<Self>, message: Str, socket: Arc<Socket<()>>) {
        socket.emit(message).ok();
    }

    fn on_binary(self: &Arc<Self>, data: Bytes, socket: Arc<Socket<()>>) {
        socket.emit_binary(data).ok();
    }
}
