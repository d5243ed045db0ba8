//! What the chat does when people come, talk and go, and when workers do.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sticky_socketio::extract::{AckSender, Data, SocketRef};
use sticky_socketio::socket::Sid;
use sticky_socketio::sticky_core::{BoxError, Bus, BusError, BusMessage, Published, Subscription};
use sticky_socketio::{SocketIo, Worker};
use tokio::sync::Notify;

use crate::history::History;
use crate::people::People;
use crate::words::{self, Join, Message, Person};

/// Topics of the bus: something was said; a worker's people; a new worker asks what was said before, and who is here; the
/// answer to the first half.
const SAID: &str = "chat.said";
const HERE: &str = "chat.here";
const ASK: &str = "chat.ask";
const TOLD: &str = "chat.told";

/// How long a new worker waits for what was said before.
const CATCH_UP: Duration = Duration::from_millis(500);

struct Chat {
    io: SocketIo,
    bus: Bus,
    worker: Worker,
    may_kill: bool,
    sent: AtomicU64,
    history: Mutex<History>,
    people: Mutex<People>,
    /// Whom this worker serves.
    own: Mutex<HashMap<Sid, Person>>,
    /// The other workers have to hear of that.
    own_changed: Notify,
}

/// What somebody gets who joins a room.
#[derive(Serialize)]
struct Welcome {
    id: Sid,
    worker: u16,
    room: String,
    name: String,
    may_kill: bool,
    messages: Vec<Message>,
    people: Vec<Person>,
}

#[derive(Serialize)]
struct Room<'a> {
    room: &'a str,
    people: Vec<Person>,
}

/// Opens the chat in this worker, with what others know.
pub(crate) async fn open(worker: &Worker, io: SocketIo) -> Result<(), BoxError> {
    let chat = Arc::new(Chat {
        io: io.clone(),
        bus: worker.bus(),
        worker: worker.clone(),
        may_kill: std::env::var("CHAT_KILL").is_ok_and(|text| text == "on"),
        sent: AtomicU64::new(0),
        history: Mutex::default(),
        people: Mutex::default(),
        own: Mutex::default(),
        own_changed: Notify::new(),
    });
    chat.listen().await?;
    let guest = Arc::clone(&chat);
    io.ns("/", async move |socket: SocketRef| guest.receive(&socket)).await?;
    Ok(())
}

impl Chat {
    /// Hears what other workers say from now on, and has heard what was said before.
    async fn listen(self: &Arc<Self>) -> Result<(), BoxError> {
        let told = self.bus.subscribe(TOLD).await?;
        self.each(self.bus.subscribe(SAID).await?, |chat, _, message: Message| chat.lock(&chat.history).keep(message));
        self.each(self.bus.subscribe(HERE).await?, |chat, from, people| {
            let changed = chat.lock(&chat.people).told(from.from, people);
            chat.show(changed);
        });
        self.catch_up(told).await?;
        let asked = self.bus.subscribe(ASK).await?;
        self.each(asked, |chat, question, (): ()| {
            let all = chat.lock(&chat.history).all();
            if question.from != chat.bus.me() {
                chat.answer(question, &all);
                chat.own_changed.notify_one();
            }
        });
        self.watch_workers().await?;
        tokio::spawn(Arc::clone(self).tell_of_own());
        Ok(())
    }

    /// Tells a worker that has asked what was said before.
    fn answer(&self, question: &BusMessage, all: &[Message]) {
        let (bus, worker, all) = (self.bus.clone(), question.from.worker, json(&all));
        tokio::spawn(async move { report(bus.send_to(worker, TOLD, all).await) });
    }

    /// Tells all workers whom this one serves, whenever that changes: one after the other, so that the last word is the last.
    async fn tell_of_own(self: Arc<Self>) {
        loop {
            self.own_changed.notified().await;
            let own: Vec<Person> = self.lock(&self.own).values().cloned().collect();
            report(self.bus.publish(HERE, json(&own)).await);
        }
    }

    /// Asks the others what was said before, and waits for one of them.
    async fn catch_up(&self, mut told: Subscription) -> Result<(), BoxError> {
        let asked = self.bus.publish(ASK, "null").await?;
        let answer = async {
            loop {
                if let Ok(message) = told.next().await {
                    return serde_json::from_slice::<Vec<Message>>(&message.payload).unwrap_or_default();
                }
            }
        };
        if asked.subscribers > 0
            && let Ok(messages) = tokio::time::timeout(CATCH_UP, answer).await
        {
            messages.into_iter().for_each(|message| self.lock(&self.history).keep(message));
        }
        Ok(())
    }

    /// Does something for each message of a topic that can be read.
    fn each<T: DeserializeOwned>(
        self: &Arc<Self>,
        mut topic: Subscription,
        act: impl Fn(&Arc<Self>, &BusMessage, T) + Send + 'static,
    ) {
        let chat = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                if let Ok(message) = topic.next().await
                    && let Ok(said) = serde_json::from_slice(&message.payload)
                {
                    act(&chat, &message, said);
                }
            }
        });
    }

    /// People go with their worker.
    async fn watch_workers(self: &Arc<Self>) -> Result<(), BoxError> {
        let (chat, mut watch) = (Arc::clone(self), self.bus.watch_peers().await?);
        tokio::spawn(async move {
            loop {
                let mut workers = watch.changed().await.to_vec();
                workers.push(chat.bus.me());
                let changed = chat.lock(&chat.people).keep_only(&workers);
                chat.show(changed);
            }
        });
        Ok(())
    }

    fn receive(self: &Arc<Self>, socket: &SocketRef) {
        let chat = Arc::clone(self);
        socket.on("join", async move |socket: SocketRef, Data::<Join>(join), ack: AckSender| {
            ack.send(&chat.join(&socket, &join)).ok();
        });
        let chat = Arc::clone(self);
        socket.on("say", async move |socket: SocketRef, Data::<String>(text), ack: AckSender| {
            let said = chat.say(&socket, &text).await;
            ack.send(&said).ok();
        });
        let chat = Arc::clone(self);
        socket.on("typing", async move |socket: SocketRef| {
            if let Some(person) = chat.person(&socket) {
                socket.to(person.room).emit("typing", &person.name).await.ok();
            }
        });
        let chat = Arc::clone(self);
        socket.on("kill", async move || chat.kill());
        let chat = Arc::clone(self);
        socket.on_disconnect(async move |socket: SocketRef| {
            chat.lock(&chat.own).remove(&socket.id);
            chat.own_changed.notify_one();
        });
    }

    fn join(self: &Arc<Self>, socket: &SocketRef, join: &Join) -> Welcome {
        let (name, room, worker) = (join.name(), join.room(), self.worker.id().get());
        let person = Person { name: name.clone(), room: room.clone(), worker, id: socket.id.to_string() };
        if let Some(before) = self.lock(&self.own).insert(socket.id, person.clone()) {
            socket.leave(before.room);
        }
        socket.join(room.clone());
        self.own_changed.notify_one();
        let messages = self.lock(&self.history).of(&room);
        let mut people = self.lock(&self.people).of(&room);
        // The news of who has just come is still under way.
        people.retain(|other| other.id != person.id);
        people.push(person);
        people.sort();
        Welcome { id: socket.id, worker, room, name, may_kill: self.may_kill, messages, people }
    }

    /// Says something in the room that somebody is in; tells whether it was anything.
    async fn say(self: &Arc<Self>, socket: &SocketRef, text: &str) -> bool {
        let (Some(person), Some(text)) = (self.person(socket), words::text(text)) else { return false };
        let Person { name, room, worker, .. } = person;
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let id = format!("{worker}-{}-{number}", self.worker.generation());
        let message = Message { at: words::now(), id, room: room.clone(), name, worker, text };
        report(self.bus.publish(SAID, json(&message)).await);
        self.io.to(room).emit("message", &message).await.is_ok()
    }

    /// What the demonstration is about: nobody else notices.
    fn kill(&self) {
        if self.may_kill {
            std::process::abort();
        }
    }

    /// Tells this worker's sockets who is in these rooms now. Every other worker tells its own.
    fn show(self: &Arc<Self>, rooms: BTreeSet<String>) {
        for room in rooms {
            let (chat, people) = (Arc::clone(self), self.lock(&self.people).of(&room));
            tokio::spawn(async move {
                let news = Room { room: &room, people };
                chat.io.to(room.clone()).local().emit("people", &news).await.ok();
            });
        }
    }

    fn person(&self, socket: &SocketRef) -> Option<Person> {
        self.lock(&self.own).get(&socket.id).cloned()
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn json(what: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(what).unwrap_or_default()
}

/// The chat goes on without it.
fn report(published: Result<Published, BusError>) {
    if let Err(error) = published {
        eprintln!("the other workers do not hear this: {error}");
    }
}
