//! A hundred reloads in a row, under every kind of load at once: what a year of deploys may cost, which is nothing.
//!
//! Beside the load of [`reload_load`](crate::reload_load) there are connections that say nothing for long, over one reload or
//! over all of them, and then POST. What is promised: every request is answered, by its client's worker; nothing is reset; whoever
//! hears of the drain says goodbye, and who does not ends with a FIN; and where connections can move, or are a proxy's, none
//! is closed while it is idle.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::eventually;
use sticky_tests::{Client, Connection, Request, TestCluster};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::bed::{Bed, Dispatch, Framework, Row};
use crate::keys::Moves;
use crate::reload_load::{Plan, Served, under_load_with};

const RELOADS: usize = 100;

/// What is said of each process whose place another has taken, with how many connections had to be cut.
const HAS_DRAINED: &str = " has drained: ";

/// How many clients are idle most of the time.
const IDLE: u32 = 48;

pub(crate) fn rows() -> Vec<Row> {
    let with_axum = |row: Row| row.only_with(Framework::Axum);
    vec![
        with_axum(Row::new("hundred_reloads_lose_nothing", hundred_reloads_lose_nothing)).alone(),
        with_axum(Row::new("deaf_websockets_end_with_a_fin", deaf_websockets_end_with_a_fin)),
    ]
}

fn hundred_reloads_lose_nothing(bed: &Bed) {
    // Connections that are idle over all reloads must not time out where a machine is slow.
    let cluster = bed.launch().env("STICKY_IDLE_TIMEOUT", "1h").up();
    let mut idle = Idle::of_several(bed, &cluster);
    // What takes long is the uploads, and they need not be many to be under way at one reload or the other.
    let plan = Plan { clients: 12, rest: Duration::from_millis(250), ..Plan::default() };
    under_load_with(bed, &cluster, plan, |clients_go_on| {
        for reload in 1..=RELOADS {
            cluster.reload();
            clients_go_on();
            idle.iter_mut().filter(|idle| reload.is_multiple_of(idle.every)).for_each(Idle::ask);
        }
    });
    cluster.events().expect_nth(RELOADS * bed.children(2), HAS_DRAINED, PATIENCE);
    let last = |idle: &mut Idle| idle.connection.get("/").expect("an answer").generation() as usize == RELOADS;
    eventually("the last generation serves them all", PATIENCE, || idle.iter_mut().all(last));
    let lost: usize = idle.iter().map(|idle| idle.connections - 1).sum();
    drop(idle);
    let moves = (bed.dispatch() != Dispatch::Kernel).then(|| Moves::at_end_of(&cluster));
    if bed.keeps_connections() {
        assert_eq!(lost, 0, "connections were closed while they were idle");
    } else {
        assert!(lost > 0, "nothing moves there");
        cluster.stop();
    }
    println!("{lost} connections of idle clients have ended; {moves:?}");
    nothing_went_wrong(bed, &cluster);
}

/// By what the cluster says itself.
fn nothing_went_wrong(bed: &Bed, cluster: &TestCluster) {
    let events = cluster.events();
    assert_eq!(events.count("sticky: reloaded "), RELOADS);
    let mut drained = events.all();
    drained.retain(|line| line.contains(HAS_DRAINED));
    assert_eq!(drained.len(), RELOADS * bed.children(2));
    let cut: Vec<_> = drained.iter().filter(|line| !line.ends_with(", 0 cut")).collect();
    assert!(cut.is_empty(), "{cut:?}");
    for never in ["placement mismatch", "restarting", "killing", "is lost", "has lost", "a reload waits"] {
        assert_eq!(events.count(never), 0, "{never}");
    }
}

/// A client that asks once in so many reloads, and says nothing between.
struct Idle {
    client: Client,
    served: Served,
    connection: Connection,
    connections: usize,
    every: usize,
    dispatch: Dispatch,
}

impl Idle {
    /// Several for each number of reloads.
    fn of_several(bed: &Bed, cluster: &TestCluster) -> Vec<Self> {
        // A connection that cannot move keeps its generation alive, of which there are only to be a few.
        let numbers: &[usize] = if bed.keeps_connections() { &[1, 2, 5, 10, 50, RELOADS] } else { &[1, 2] };
        let addresses = Client::loopback_addresses(IDLE).zip(numbers.iter().cycle());
        let mut workers = BTreeSet::new();
        let mut open = |(address, every): (Ipv4Addr, &usize)| {
            let client = cluster.client().from(address).timeout(PATIENCE);
            let mut connection = client.connect().expect("a connection");
            workers.insert(connection.get("/").expect("an answer").worker());
            let served = Served::new(address, 1);
            Self { client, served, connection, connections: 1, every: *every, dispatch: bed.dispatch() }
        };
        let idle = addresses.map(&mut open).collect();
        assert_eq!(workers.len(), 2, "each worker has some");
        idle
    }

    /// A POST after the silence. Who says that nothing follows is left for a new connection.
    fn ask(&mut self) {
        let body = vec![b'x'; 1 + self.every * 100];
        let answer = self.connection.exchange(&Request::post("/echo", body.clone())).expect("an answer");
        assert_eq!((answer.status, &answer.body), (200, &body));
        self.served.by(answer.worker());
        if answer.announces_close() {
            assert_eq!(self.connection.read_to_end().expect("an end, not a reset"), b"");
            self.connection = self.client.connect().expect("a connection");
            self.connections += 1;
            self.served.by(self.connection.get("/").expect("an answer").worker());
        } else if self.dispatch == Dispatch::Handoff {
            let here = self.connection.local_addr().expect("an address").to_string();
            assert_eq!(self.connection.get("/peer").expect("an answer").text(), here, "one connection all the time");
        }
    }
}

/// Who does not hear of the drain is cut when its time is up: without a goodbye, but in order.
fn deaf_websockets_end_with_a_fin(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_DRAIN_TIMEOUT", "300ms").up();
    let open = |address| {
        let stream = cluster.client().from(address).timeout(PATIENCE).connect().expect("a connection").into_stream();
        let url = format!("ws://{}/deaf", cluster.address());
        let (mut socket, _) = tungstenite::client(url, stream).expect("an upgrade");
        socket.send(Message::text("hello")).expect("sent");
        assert_eq!(socket.read().expect("an echo").into_text().expect("a text").as_str(), "hello");
        socket
    };
    let sockets: Vec<_> = Client::loopback_addresses(20).map(open).collect();
    cluster.reload();
    for mut socket in sockets {
        assert_eq!(socket.get_mut().read(&mut [0; 16]).expect("an end, not a reset"), 0, "nothing was said");
    }
    eventually("the former workers are gone", PATIENCE, || cluster.workers().len() == 2);
    cluster.stop();
}
