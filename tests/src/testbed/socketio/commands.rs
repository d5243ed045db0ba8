//! What a client can have the server do, for the rows about what reaches whom across workers.

use std::fmt;
use std::time::Duration;

use futures_util::StreamExt;
use rmpv::Value;
use serde::{Deserialize, Serialize};
use sticky_socketio::SocketIo;
use sticky_socketio::ack::AckStream;
use sticky_socketio::extract::{AckSender, Data, SocketRef};
use sticky_socketio::operators::BroadcastOperators;
use sticky_socketio::socket::RemoteSocket;

/// Why a command failed, in words: not every error of socketioxide's can be boxed as usual.
struct Failure(String);

impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// One command: to whom, what.
#[derive(Debug, Deserialize)]
pub(super) struct Command {
    act: Act,
    /// Whom it is for: these rooms, or everybody in the namespace.
    #[serde(default)]
    to: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    local: bool,
    #[serde(default)]
    volatile: bool,
    /// Leaves out the one who asks for it.
    #[serde(default)]
    others: bool,
    /// One socket, which may be anywhere, instead of all these.
    remote: Option<String>,
    #[serde(default)]
    rooms: Vec<String>,
    #[serde(default)]
    event: String,
    /// Comes beside the command: inside of it, parsers do not put bytes in their places.
    #[serde(skip, default = "nil")]
    data: Value,
    /// In milliseconds, for acknowledgements.
    timeout: Option<u64>,
}

fn nil() -> Value {
    Value::Nil
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Act {
    Emit,
    Ack,
    Fetch,
    Rooms,
    Join,
    Leave,
    Disconnect,
}

/// What has come of it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Done {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    acks: Vec<Acknowledged>,
    sockets: Vec<Found>,
    rooms: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Acknowledged {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Found {
    id: String,
    server: String,
}

/// Does what the event says, and acknowledges what came of it.
pub(super) async fn obey(
    socket: SocketRef,
    io: SocketIo,
    Data((command, data)): Data<(Command, Value)>,
    ack: AckSender,
) {
    let done = Command { data, ..command }.run(&socket, &io).await;
    ack.send(&done.unwrap_or_else(|Failure(error)| Done { error: Some(error), ..Done::default() })).ok();
}

impl Command {
    async fn run(self, socket: &SocketRef, io: &SocketIo) -> Result<Done, Failure> {
        match &self.remote {
            Some(id) => {
                let all = io.of(socket.ns()).ok_or("no such namespace")?.fetch_sockets().await?;
                let found = all.into_iter().find(|other| other.data().id.as_str() == id);
                self.with_one(found.ok_or("no such socket")?).await
            }
            None => self.with_many(self.operators(socket, io)?).await,
        }
    }

    fn operators(&self, socket: &SocketRef, io: &SocketIo) -> Result<BroadcastOperators, Failure> {
        let mut operators =
            if self.others { socket.broadcast() } else { io.of(socket.ns()).ok_or("no such namespace")? };
        if !self.to.is_empty() {
            operators = operators.to(self.to.clone());
        }
        if !self.except.is_empty() {
            operators = operators.except(self.except.clone());
        }
        if self.local {
            operators = operators.local();
        }
        if self.volatile {
            operators = operators.volatile();
        }
        if let Some(timeout) = self.timeout {
            operators = operators.timeout(Duration::from_millis(timeout));
        }
        Ok(operators)
    }

    async fn with_many(&self, operators: BroadcastOperators) -> Result<Done, Failure> {
        let mut done = Done::default();
        match self.act {
            Act::Emit => operators.emit(&self.event, &self.data).await?,
            Act::Ack => done.acks = collect(operators.emit_with_ack(&self.event, &self.data).await?).await,
            Act::Fetch => done.sockets = operators.fetch_sockets().await?.iter().map(Found::of).collect(),
            Act::Rooms => done.rooms = operators.rooms().await?.into_iter().map(String::from).collect(),
            Act::Join => operators.join(self.rooms.clone()).await?,
            Act::Leave => operators.leave(self.rooms.clone()).await?,
            Act::Disconnect => operators.disconnect().await?,
        }
        Ok(done)
    }

    async fn with_one(&self, socket: RemoteSocket) -> Result<Done, Failure> {
        let mut done = Done::default();
        match self.act {
            Act::Emit => socket.emit(&self.event, &self.data).await?,
            Act::Ack => done.acks = collect(socket.emit_with_ack(&self.event, &self.data).await?).await,
            Act::Fetch => done.sockets = vec![Found::of(&socket)],
            Act::Rooms => done.rooms = socket.rooms().await?.into_iter().map(String::from).collect(),
            Act::Join => socket.join(self.rooms.clone()).await?,
            Act::Leave => socket.leave(self.rooms.clone()).await?,
            Act::Disconnect => socket.disconnect().await?,
        }
        Ok(done)
    }
}

impl Found {
    fn of(socket: &RemoteSocket) -> Self {
        let data = socket.data();
        Self { id: data.id.to_string(), server: format!("{:?}", data.server_id) }
    }
}

async fn collect(acks: AckStream<Value>) -> Vec<Acknowledged> {
    let acknowledged = acks.map(|(id, answer)| match answer {
        Ok(value) => Acknowledged { id: id.to_string(), value: Some(value), error: None },
        Err(error) => Acknowledged { id: id.to_string(), value: None, error: Some(error.to_string()) },
    });
    acknowledged.collect().await
}
