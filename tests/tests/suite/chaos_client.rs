//! One client of the chaos: it asks on and on, knows what every answer must be, and notes what it loses.

use std::collections::{BTreeSet, HashMap};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use sticky_tests::{Client, Connection, Random, Request, Response, journal};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::chaos::WORKERS;
use crate::keys::fresh;

/// Keys of each client. Nobody else uses them, so that every count is known.
const KEYS: usize = 10;
/// Requests on one connection at most.
const REQUESTS: usize = 20;
const LARGEST: usize = 200_000;

/// What one client has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Every answer: the request's name, and the process that answered.
    pub(crate) answers: Vec<(String, u32)>,
    pub(crate) losses: Vec<Loss>,
    /// Messages that came back on WebSockets.
    pub(crate) messages: usize,
    /// When WebSockets were told that their worker is replaced.
    pub(crate) told: Vec<Instant>,
}

/// One request, or WebSocket, that a client lost.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) name: String,
    /// The slots that may have held the connection.
    pub(crate) holders: BTreeSet<u16>,
    /// The process that answered last on the connection.
    pub(crate) held_by: Option<u32>,
    /// When the exchange before was begun: whoever was there to answer it lived then, but maybe not when the answer was
    /// read.
    pub(crate) from: Instant,
    pub(crate) until: Instant,
    #[expect(dead_code, reason = "printed when the loss has no reason")]
    what: String,
}

/// What is known of a key: its worker for good, and its count in the memory of one process.
struct Known {
    slot: u16,
    pid: u32,
    count: u64,
}

/// One client at work.
pub(crate) struct ChaosClient {
    client: Client,
    number: usize,
    random: Random,
    keys: Vec<String>,
    known: HashMap<String, Known>,
    /// The worker that accepts this client's connections.
    home: u16,
    asked: usize,
    seen: Seen,
}

/// A connection, and what is known of who has it.
struct Held {
    connection: Connection,
    holders: BTreeSet<u16>,
    held_by: Option<u32>,
    alive: Instant,
    answers: u32,
}

impl ChaosClient {
    /// A client, before anything is done to the workers.
    pub(crate) fn new(client: Client, number: usize, mut random: Random) -> Self {
        let keys = fresh(&mut random, KEYS);
        // Without a key, whoever has accepted the connection answers.
        let home = client.get("/").expect("an answer").worker();
        Self { client, number, random, keys, known: HashMap::new(), home, asked: 0, seen: Seen::default() }
    }

    /// Asks until it is done.
    pub(crate) fn run(mut self, done: &AtomicBool) -> Seen {
        while !done.load(Ordering::Relaxed) {
            if let Err(loss) = self.use_connection(done) {
                self.seen.losses.push(loss);
            }
        }
        self.seen
    }

    fn name(&mut self) -> String {
        self.asked += 1;
        format!("{}-{}", self.number, self.asked)
    }

    fn use_connection(&mut self, done: &AtomicBool) -> Result<(), Loss> {
        let begun = Instant::now();
        // The kernel's queue outlives every worker.
        let connection = self.client.connect().expect("a connection: somebody always listens");
        let mut held =
            Held { connection, holders: BTreeSet::from([self.home]), held_by: None, alive: begun, answers: 0 };
        for _ in 0..self.random.between(1, REQUESTS) {
            if done.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.ask(&mut held)?;
        }
        if self.random.below(4) == 0 { self.use_web_socket(held) } else { Ok(()) }
    }

    fn ask(&mut self, held: &mut Held) -> Result<(), Loss> {
        let (key, name) = (self.random.choose(&self.keys).clone(), self.name());
        let length = if self.random.below(20) == 0 { self.random.below(LARGEST) } else { self.random.below(2_000) };
        let body = self.random.bytes(length);
        let what = self.random.below(5);
        let request = match what {
            0 | 1 => Request::post("/count/chaos", b""),
            2 => Request::post("/echo", body.clone()),
            3 => Request::post_chunked("/echo", body.clone(), 3_000, &["x-end: yes"]),
            _ => Request::get(format!("/bytes/{length}")),
        };
        let request = request.header("x-key", &key).header(journal::REQUEST_NAME, &name);
        let answer = self.exchange(held, &request, &name, &key)?;
        match what {
            0 | 1 => self.check_count(&key, &answer),
            4 => assert!(answer.body.len() == length && answer.body.iter().all(|&byte| byte == b'x'), "{name}"),
            _ => assert!(answer.body == body, "{name}: other bytes came back"),
        }
        Ok(())
    }

    /// Sends a request and holds the answer to all that is known, but for its body.
    fn exchange(&mut self, held: &mut Held, request: &Request, name: &str, key: &str) -> Result<Response, Loss> {
        let owner = self.known.get(key).map(|known| known.slot);
        held.holders.extend(owner);
        let begun = Instant::now();
        let answer = held.connection.exchange(request).and_then(Response::or_lost);
        let answer = answer.map_err(|error| held.lost(name, owner, format!("{} {error}", request.target())))?;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        assert_eq!(answer.header(journal::REQUEST_NAME), Some(name), "{answer:?}");
        assert!(!answer.announces_close(), "{name}: {answer:?}");
        self.check_owner(key, name, answer.worker());
        held.answered(&answer, begun);
        self.seen.answers.push((name.to_owned(), answer.pid()));
        Ok(answer)
    }

    fn check_owner(&mut self, key: &str, name: &str, worker: u16) {
        let known = self.known.entry(key.to_owned()).or_insert(Known { slot: worker, pid: 0, count: 0 });
        assert_eq!(worker, known.slot, "{name}: {key} was answered by another worker");
    }

    /// One more than the last time, or the first in the memory of a new process.
    fn check_count(&mut self, key: &str, answer: &Response) {
        let known = self.known.get_mut(key).expect("checked before");
        let last = if known.pid == answer.pid() { known.count } else { 0 };
        assert_eq!(answer.text(), (last + 1).to_string(), "{key} after {last} in {}: {answer:?}", known.pid);
        (known.pid, known.count) = (answer.pid(), last + 1);
    }

    /// The connection ends as a WebSocket of one of the keys.
    fn use_web_socket(&mut self, held: Held) -> Result<(), Loss> {
        let (key, name) = (self.random.choose(&self.keys).clone(), self.name());
        let Held { connection, mut holders, held_by, alive, .. } = held;
        let owner = self.known.get(&key).map(|known| known.slot);
        holders.extend(owner);
        let mut request = "ws://test/ws".into_client_request().expect("a request");
        request.headers_mut().insert("x-key", key.parse().expect("a value"));
        request.headers_mut().insert(journal::REQUEST_NAME, name.parse().expect("a value"));
        let lost = |holders: &BTreeSet<u16>, from, error: String| {
            let holders = if owner.is_none() { (0..WORKERS).collect() } else { holders.clone() };
            Loss { name: name.clone(), holders, held_by, from, until: Instant::now(), what: format!("/ws {error}") }
        };
        let (mut socket, answer) = tungstenite::client(request, connection.into_stream())
            .map_err(|error| lost(&holders, alive, error.to_string()))?;
        let number = |header: &str| answer.headers()[header].to_str().expect("text").parse::<u32>().expect("a number");
        let (slot, pid) = (u16::try_from(number("x-worker")).expect("a slot"), number("x-pid"));
        self.check_owner(&key, &name, slot);
        self.seen.answers.push((name.clone(), pid));
        // It is begun, so the journal knows who must have been killed if it is lost.
        self.echo(&mut socket, slot).map_err(|error| lost(&holders, alive, error.to_string()))
    }

    fn echo(&mut self, socket: &mut WebSocket<TcpStream>, slot: u16) -> tungstenite::Result<()> {
        let greeting = Message::text(format!("worker: {slot}"));
        if !self.reads(socket, &greeting)? {
            return Ok(());
        }
        for _ in 0..self.random.below(30) {
            let length = self.random.below(3_000);
            let message = Message::binary(self.random.bytes(length));
            socket.send(message.clone())?;
            if !self.reads(socket, &message)? {
                return Ok(());
            }
            self.seen.messages += 1;
        }
        Ok(())
    }

    /// Whether this comes; false when the worker says that it is being replaced.
    fn reads(&mut self, socket: &mut WebSocket<TcpStream>, expected: &Message) -> tungstenite::Result<bool> {
        match socket.read()? {
            Message::Close(Some(frame)) if frame.code == CloseCode::Restart => {
                self.seen.told.push(Instant::now());
                Ok(false)
            }
            message => {
                assert_eq!(message, *expected);
                Ok(true)
            }
        }
    }
}

impl Held {
    fn answered(&mut self, answer: &Response, begun: Instant) {
        self.holders = BTreeSet::from([answer.worker()]);
        self.held_by = Some(answer.pid());
        self.alive = begun;
        self.answers += 1;
    }

    /// The loss of the request under way. Where nobody knows the key's owner, it may be anybody.
    fn lost(&self, name: &str, owner: Option<u16>, error: String) -> Loss {
        let holders = if owner.is_none() { (0..WORKERS).collect() } else { self.holders.clone() };
        let what = format!("{error}; {} answers before on the connection, owner {owner:?}", self.answers);
        let (held_by, from) = (self.held_by, self.alive);
        Loss { name: name.to_owned(), holders, held_by, from, until: Instant::now(), what }
    }
}
