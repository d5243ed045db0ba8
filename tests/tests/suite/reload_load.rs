//! Reloads under load: every client that a deploy could hurt, and none that it does.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, eventually};
use sticky_tests::{Client, Connection, Random, Request, TestCluster};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::bed::{Bed, Dispatch, Row};

const RELOADS: usize = 10;
const LARGE: usize = 10 << 20;

pub(crate) fn rows() -> Vec<Row> {
    vec![Row::new("reloads_under_load_lose_nothing", reloads_under_load_lose_nothing).alone()]
}

/// What the clients of a kind have counted.
#[derive(Default)]
struct Tally {
    answers: AtomicUsize,
    connections: AtomicUsize,
}

/// What clients may notice of what is done to the cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notices {
    /// Connections end between two messages, as they are told.
    Ends,
    /// Those that ask and answer stay.
    EndsOfTunnels,
    Nothing,
}

/// How much there is to do, and what may come of it.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// How many workers each client may have, one after the other.
    pub(crate) owners: usize,
    /// How many clients there are, of which one in twelve uploads.
    pub(crate) clients: u32,
    /// How long who uploads rests after each.
    pub(crate) rest: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self { owners: 1, clients: 24, rest: Duration::ZERO }
    }
}

/// What all clients know.
struct Load {
    target: SocketAddr,
    notices: Notices,
    plan: Plan,
    done: AtomicBool,
    keep_alive: Tally,
    uploads: Tally,
    tunnels: Tally,
    /// How long an answer took at most, in milliseconds.
    slowest: AtomicU64,
}

fn reloads_under_load_lose_nothing(bed: &Bed) {
    let cluster = bed.launch().up();
    under_load(bed, &cluster, |clients_go_on| {
        for _ in 0..RELOADS {
            cluster.reload();
            // Whatever was executing or idle is so again.
            clients_go_on();
        }
    });
    eventually("the former workers are gone", PATIENCE, || cluster.workers().len() == 2);
    cluster.stop();
}

/// Does something to a cluster while clients of every kind ask it, none of which may notice. It is given a function that waits
/// until they have had some more answers.
pub(crate) fn under_load(bed: &Bed, cluster: &TestCluster, disturb: impl FnOnce(&dyn Fn())) {
    under_load_with(bed, cluster, Plan::default(), disturb);
}

/// The same with another load than the usual one.
pub(crate) fn under_load_with(bed: &Bed, cluster: &TestCluster, plan: Plan, disturb: impl FnOnce(&dyn Fn())) {
    let moves = bed.dispatch() == Dispatch::Handoff;
    run(cluster, plan, if moves { Notices::EndsOfTunnels } else { Notices::Ends }, disturb);
}

/// The same where no connection may end, of whatever kind.
pub(crate) fn under_load_unnoticed(cluster: &TestCluster, disturb: impl FnOnce(&dyn Fn())) {
    run(cluster, Plan::default(), Notices::Nothing, disturb);
}

fn run(cluster: &TestCluster, plan: Plan, notices: Notices, disturb: impl FnOnce(&dyn Fn())) {
    let load = Load {
        target: cluster.address(),
        notices,
        plan,
        done: AtomicBool::new(false),
        keep_alive: Tally::default(),
        uploads: Tally::default(),
        tunnels: Tally::default(),
        slowest: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        let load = &load;
        for (number, address) in (0..).zip(Client::loopback_addresses(plan.clients)) {
            let client = cluster.client().from(address).timeout(PATIENCE);
            scope.spawn(move || match number % 12 {
                // Few, because a debug build is slow at them and everybody else waits.
                0 => load.upload(&client, load.served(address)),
                1 | 2 => load.use_web_sockets(&client, load.served(address)),
                3 | 4 => load.listen_to_events(&client, load.served(address)),
                _ => load.ask(&client, load.served(address)),
            });
        }
        let _ends_the_clients = SetOnDrop(&load.done);
        disturb(&|| {
            let answers = |tally: &Tally| tally.answers.load(Ordering::Relaxed);
            let before = answers(&load.keep_alive);
            let have_begun = || answers(&load.uploads) > 0 && answers(&load.tunnels) > 0;
            eventually("the clients go on", PATIENCE, || answers(&load.keep_alive) > before + 50 && have_begun());
        });
    });
    let tallies = [&load.keep_alive, &load.uploads, &load.tunnels];
    let tallies =
        tallies.map(|tally| (tally.answers.load(Ordering::Relaxed), tally.connections.load(Ordering::Relaxed)));
    let slowest = load.slowest.load(Ordering::Relaxed);
    println!("(answers, connections) of keep-alive, uploads, tunnels: {tallies:?}; slowest answer: {slowest} ms");
    assert!(tallies.iter().all(|(answers, _)| *answers > 0), "{tallies:?}");
    let of_a_kind = |in_twelve: u32| (plan.clients / 12 * in_twelve) as usize;
    if notices != Notices::Ends {
        assert_eq!(tallies[0].1, of_a_kind(7), "no connection of those that ask was closed");
        assert_eq!(tallies[1].1, of_a_kind(1), "no connection of those that upload was closed");
    }
    if notices == Notices::Nothing {
        assert_eq!(tallies[2].1, of_a_kind(4), "nor any tunnel");
    }
}

/// Sets a flag at its end, also when that is a panic: the scope waits for the threads that watch it.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Who has served a client, one after the other.
pub(crate) struct Served {
    address: Ipv4Addr,
    most: usize,
    by: Vec<u16>,
}

impl Served {
    /// A client that may have so many workers.
    pub(crate) fn new(address: Ipv4Addr, most: usize) -> Self {
        Self { address, most, by: Vec::new() }
    }

    /// Checks that this worker, who has served it now, is the one before or may be the next.
    pub(crate) fn by(&mut self, worker: u16) {
        if self.by.last() != Some(&worker) {
            self.by.push(worker);
            assert!(self.by.len() <= self.most, "{} was served by one after the other of {:?}", self.address, self.by);
        }
    }
}

/// The worker that a text names behind these words.
fn named_after(words: &str, text: &str) -> u16 {
    let digits = text.split(words).nth(1).and_then(|rest| rest.split(|byte: char| !byte.is_ascii_digit()).next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no worker in {text:?}"))
}

impl Load {
    fn served(&self, address: Ipv4Addr) -> Served {
        Served::new(address, self.plan.owners)
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    fn connect(&self, client: &Client, tally: &Tally) -> Connection {
        tally.connections.fetch_add(1, Ordering::Relaxed);
        client.connect().expect("a connection: somebody always listens")
    }

    /// GETs and POSTs with pauses between them, on one connection as long as nobody announces its end.
    fn ask(&self, client: &Client, mut served: Served) {
        let mut random = Random::drawn();
        while !self.is_done() {
            let mut connection = self.connect(client, &self.keep_alive);
            loop {
                let request = match random.below(3) {
                    0 => Request::get("/"),
                    1 => Request::get("/sleep/30"),
                    _ => Request::post("/echo", random.bytes(2_000)),
                };
                let begun = Instant::now();
                let answer = connection.exchange(&request).expect("an answer");
                self.slowest.fetch_max(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
                assert_eq!(answer.status, 200, "{answer:?}");
                served.by(answer.worker());
                self.keep_alive.answers.fetch_add(1, Ordering::Relaxed);
                if answer.announces_close() {
                    assert!(self.notices == Notices::Ends, "{answer:?}");
                    assert_eq!(connection.read_to_end().expect("an end, not a reset"), b"");
                    break;
                }
                if self.is_done() {
                    return;
                }
                process::let_pass(Duration::from_millis(random.below(20) as u64));
            }
        }
    }

    /// Large bodies, each read to its end whatever happens meanwhile.
    fn upload(&self, client: &Client, mut served: Served) {
        let body = Random::drawn().bytes(LARGE);
        while !self.is_done() {
            let mut connection = self.connect(client, &self.uploads);
            while !self.is_done() {
                let answer = connection.exchange(&Request::post("/upload", body.clone())).expect("an answer");
                assert_eq!((answer.status, answer.text().split(' ').next()), (200, Some("10485760")), "{answer:?}");
                served.by(answer.worker());
                self.uploads.answers.fetch_add(1, Ordering::Relaxed);
                if answer.announces_close() {
                    assert_eq!(connection.read_to_end().expect("an end, not a reset"), b"");
                    break;
                }
                process::let_pass(self.plan.rest);
            }
        }
    }

    /// WebSockets whose messages come back until the worker says that it restarts.
    fn use_web_sockets(&self, client: &Client, mut served: Served) {
        while !self.is_done() {
            let stream = self.connect(client, &self.tunnels).into_stream();
            let url = format!("ws://{}/ws", self.target);
            let (mut socket, _) = tungstenite::client(url, stream).expect("an upgrade");
            let first = socket.read().expect("a first message");
            served.by(named_after("worker: ", first.to_text().expect("a text")));
            while !self.is_done() {
                // One that crosses the worker's goodbye may not be taken any more.
                let sent = socket.send(Message::text("hello"));
                match socket.read().expect("a message or a goodbye") {
                    Message::Text(text) => assert!(sent.is_ok() && text.as_str() == "hello"),
                    Message::Close(Some(frame)) => {
                        assert_eq!(frame.code, CloseCode::Restart);
                        let end = std::iter::repeat_with(|| socket.read()).find_map(Result::err);
                        let is_clean = matches!(end, Some(tungstenite::Error::ConnectionClosed));
                        assert!(is_clean, "an end, not a reset: {end:?}");
                        break;
                    }
                    other => panic!("{other:?}"),
                }
                self.tunnels.answers.fetch_add(1, Ordering::Relaxed);
                process::let_pass(Duration::from_millis(10));
            }
        }
    }

    /// Streams of events that end with a goodbye, whole.
    fn listen_to_events(&self, client: &Client, mut served: Served) {
        while !self.is_done() {
            let mut connection = self.connect(client, &self.tunnels);
            connection.send("GET /sse HTTP/1.1\r\nhost: test\r\n\r\n").expect("sent");
            // The first one may be the goodbye.
            let begun = connection.read_until("data: ").expect("a first event");
            served.by(named_after("x-worker: ", &begun));
            let (mut stream, mut all) = connection.into_parts();
            stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
            while !self.is_done() && !all.ends_with(b"0\r\n\r\n") {
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer) {
                    Ok(0) => panic!("it ends in the middle: {}", String::from_utf8_lossy(&all)),
                    Ok(read) => all.extend_from_slice(&buffer[..read]),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => panic!("{error}"),
                }
            }
            self.tunnels.answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}
