//! Scaling as clients see it: only the keys that must move do, and nothing is lost.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{Signal, eventually};
use sticky_tests::testbed::LAST_EVENT;
use sticky_tests::{Client, Launch, Request, TestCluster};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::bed::{Bed, Dispatch, Row};
use crate::drain::{executing, websocket_of};
use crate::jar::{Jar, ticket};
use crate::keys::{by_header, fresh};
use crate::reload_load::{Plan, under_load_with};

/// How many addresses are asked for.
const ADDRESSES: u32 = 500;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("scaling_under_load_loses_nothing", scaling_under_load_loses_nothing).alone(),
        Row::new("scaling_moves_keys_in_requests", scaling_moves_keys_in_requests).by_request(),
        Row::new("idle_connections_outlive_scaling_in", idle_connections_outlive_scaling_in).by_request(),
        Row::new("clients_that_move_get_one_more_answer", clients_that_move_get_one_more_answer).only(Dispatch::Kernel),
        Row::new("executing_requests_outlive_scaling_in", executing_requests_outlive_scaling_in),
        Row::new("websockets_and_sse_are_told_of_scaling_in", websockets_and_sse_are_told_of_scaling_in),
        Row::new("tickets_of_a_slot_that_is_gone_are_replaced", tickets_of_a_slot_that_is_gone_are_replaced)
            .only(Dispatch::Handoff),
        Row::new("added_workers_that_fail_change_nothing", added_workers_that_fail_change_nothing),
        Row::new("programs_with_their_own_listener_scale", programs_with_their_own_listener_scale)
            .only(Dispatch::Kernel),
    ]
}

/// The same owners each time, so that their number can be told beforehand.
fn seeded(launch: Launch) -> Launch {
    launch.env("STICKY_HASH_SEED", "2")
}

/// Whom the kernel or the judge names, for each of the addresses.
type Owners = BTreeMap<Ipv4Addr, u16>;

fn owners(cluster: &TestCluster) -> Owners {
    let owner = |address| cluster.client().from(address).get("/").expect("an answer").worker();
    Client::loopback_addresses(ADDRESSES).map(|address| (address, owner(address))).collect()
}

/// Checks that of all keys only those have moved that `must`, and that these are no more than their share, of a hundred.
fn have_moved<K: Ord>(
    before: &BTreeMap<K, u16>,
    after: &BTreeMap<K, u16>,
    share: usize,
    must: impl Fn(u16, u16) -> bool,
) {
    let mut moved = 0;
    for ((_, was), (_, is)) in before.iter().zip(after) {
        assert_eq!(was != is, must(*was, *is), "from worker {was} to {is}");
        moved += usize::from(was != is);
    }
    assert!(moved * 100 <= before.len() * (share + 2), "{moved} of {} moved", before.len());
}

fn scaling_under_load_loses_nothing(bed: &Bed) {
    let cluster = seeded(bed.launch()).env("STICKY_MAX_WORKERS", "5").up();
    let two = owners(&cluster);
    // Each time two changes at most: what is asked for while another is under way is one.
    let plan = Plan { owners: 3, ..Plan::default() };
    under_load_with(bed, &cluster, plan, |clients_go_on| {
        cluster.scale(Signal::TTIN, 3, 5);
        clients_go_on();
    });
    let five = owners(&cluster);
    have_moved(&two, &five, 60, |_, is| is >= 2);
    under_load_with(bed, &cluster, plan, |clients_go_on| {
        cluster.scale(Signal::TTOU, 2, 3);
        clients_go_on();
    });
    have_moved(&five, &owners(&cluster), 40, |was, _| was >= 3);
    eventually("those that were taken out are gone", PATIENCE, || cluster.workers().len() == 3);
    cluster.stop();
    assert_eq!(cluster.events().count("placement mismatch"), 0, "{}", cluster.events());
}

/// Keys go where their hash says with connections that stay open, and come back.
fn scaling_moves_keys_in_requests(bed: &Bed) {
    let cluster = by_header(bed, 2).up();
    let mut connection = cluster.client().connect().expect("a connection");
    let names = fresh(&mut sticky_tests::Random::drawn(), 200);
    let mut owners = || -> BTreeMap<String, u16> {
        let mut owner = |name: &String| {
            let answer = connection.exchange(&Request::get("/").header("x-key", name)).expect("an answer");
            assert!(!answer.announces_close(), "{answer:?}");
            answer.worker()
        };
        names.iter().map(|name| (name.clone(), owner(name))).collect()
    };
    let two = owners();
    cluster.scale(Signal::TTIN, 1, 3);
    let three = owners();
    have_moved(&two, &three, 50, |_, is| is == 2);
    assert!(three.values().any(|owner| *owner == 2), "{three:?}");
    cluster.scale(Signal::TTOU, 1, 2);
    assert_eq!(owners(), two);
    cluster.scale(Signal::TTIN, 1, 3);
    assert_eq!(owners(), three, "in the same slot as before");
    cluster.stop();
}

/// Nothing is closed: the same connections go on, answered by whoever has their client now.
fn idle_connections_outlive_scaling_in(bed: &Bed) {
    let cluster = bed.launch().workers(3).up();
    let open = |address| {
        let mut connection = cluster.client().from(address).connect().expect("a connection");
        let worker = connection.get("/").expect("an answer").worker();
        (address, worker, connection)
    };
    let mut idle: Vec<_> = Client::loopback_addresses(60).map(open).collect();
    let mut silent = cluster.client().connect().expect("a connection");
    cluster.scale(Signal::TTOU, 2, 1);
    eventually("those that were taken out are gone", PATIENCE, || cluster.workers().len() == 1);
    for (address, worker, connection) in &mut idle {
        let answer = connection.request("POST", "/echo", &[], b"hello").expect("an answer");
        assert_eq!((answer.worker(), answer.text().as_str()), (0, "hello"), "{address}, of worker {worker}");
        assert!(!answer.announces_close(), "{answer:?}");
    }
    assert_eq!(silent.get("/").expect("an answer").worker(), 0);
    assert!(cluster.events().count("0 cut") >= 2, "{}", cluster.events());
    cluster.scale(Signal::TTIN, 2, 3);
    for (address, worker, connection) in &mut idle {
        assert_eq!(connection.get("/").expect("an answer").worker(), *worker, "{address} is where it was");
    }
    cluster.stop();
}

/// Where a connection cannot move, its client is told to make another, with the answer to its next request; nobody else is.
fn clients_that_move_get_one_more_answer(bed: &Bed) {
    let cluster = bed.launch().up();
    let open = |address| (address, cluster.client().from(address).connect().expect("a connection"));
    let mut connections: Vec<_> = Client::loopback_addresses(60).map(open).collect();
    let mut ask = |moves: &dyn Fn(u16, u16) -> bool| {
        for (address, connection) in &mut connections {
            let home = cluster.client().from(*address).get("/").expect("an answer").worker();
            let answer = connection.get("/").expect("an answer");
            let moves = moves(answer.worker(), home);
            assert_eq!((answer.worker() != home, answer.announces_close()), (moves, moves), "{address}: {answer:?}");
            if moves {
                assert_eq!(connection.read_to_end().expect("an end, not a reset"), b"");
                *connection = cluster.client().from(*address).connect().expect("a connection");
                assert_eq!(connection.get("/").expect("an answer").worker(), home);
            }
        }
    };
    ask(&|_, _| false);
    cluster.scale(Signal::TTIN, 1, 3);
    ask(&|_, home| home == 2);
    cluster.scale(Signal::TTOU, 1, 2);
    ask(&|was, _| was == 2);
    ask(&|_, _| false);
    cluster.stop();
}

/// A client of the last worker of two.
fn client_of_the_last(cluster: &TestCluster) -> Client {
    let clients = Client::loopback_addresses(200).map(|address| cluster.client().from(address));
    let mut of_the_last = clients.filter(|client| client.get("/").expect("an answer").worker() == 1);
    of_the_last.next().expect("it has clients")
}

fn executing_requests_outlive_scaling_in(bed: &Bed) {
    let cluster = bed.launch().up();
    let client = client_of_the_last(&cluster);
    let mut busy = executing(&client, "/sleep/1500");
    cluster.scale(Signal::TTOU, 1, 1);
    assert_eq!(client.get("/").expect("an answer").worker(), 0, "what is new goes elsewhere");
    let answer = busy.response().expect("an answer");
    assert_eq!((answer.worker(), answer.text().as_str()), (1, "slept"));
    // It does not wait for anything more to come there.
    cluster.events().expect("sticky: the former worker 1 has drained", PATIENCE);
    eventually("it is gone", PATIENCE, || cluster.workers().len() == 1);
    if bed.keeps_connections() {
        assert_eq!(busy.get("/").expect("an answer").worker(), 0);
    }
    cluster.stop();
}

fn websockets_and_sse_are_told_of_scaling_in(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_WORKERS", "1").up();
    cluster.scale(Signal::TTIN, 1, 2);
    let client = client_of_the_last(&cluster);
    let mut socket = websocket_of(&client, &cluster);
    let mut stream = client.connect().expect("a connection");
    stream.send("GET /sse HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").expect("sent");
    stream.read_until("data: 0").expect("a first event");
    cluster.scale(Signal::TTOU, 1, 1);
    let Message::Close(Some(frame)) = socket.read().expect("a last message") else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Restart, "1012");
    while socket.read().is_ok() {}
    let all = String::from_utf8(stream.read_to_end().expect("an end, not a reset")).expect("text");
    assert!(all.contains(LAST_EVENT) && all.ends_with("0\r\n\r\n"), "{all}");
    cluster.stop();
}

/// A sticky cookie that names a slot that was taken out is replaced by one of where its client is served now.
fn tickets_of_a_slot_that_is_gone_are_replaced(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_AFFINITY", "sticky-cookie").env("STICKY_PLACEMENT", "round-robin").up();
    let client = cluster.client();
    let mut jars: Vec<Jar> = (0..10).map(|_| Jar::default()).collect();
    let ask = |jar: &mut Jar| jar.ask(&client, Request::get("/"));
    let workers: Vec<u16> = jars.iter_mut().map(|jar| ask(jar).worker()).collect();
    assert!([0, 1].iter().all(|worker| workers.contains(worker)), "{workers:?}");
    cluster.scale(Signal::TTOU, 1, 1);
    for (jar, worker) in jars.iter_mut().zip(&workers) {
        let answer = ask(jar);
        assert_eq!((answer.worker(), ticket(&answer).is_some()), (0, *worker != 0), "{answer:?}");
    }
    cluster.scale(Signal::TTIN, 1, 2);
    assert!(jars.iter_mut().all(|jar| ask(jar).worker() == 0), "that is where they are now");
    cluster.stop();
}

fn added_workers_that_fail_change_nothing(bed: &Bed) {
    let cluster = seeded(bed.launch()).env("TESTBED_CRASH_FROM", "3").up();
    cluster.scale(Signal::TTIN, 1, 3);
    let three = owners(&cluster);
    cluster.signal(Signal::TTIN);
    let stopped = cluster.events().expect("sticky: scaling stopped: the new worker 3 exited with status 3", PATIENCE);
    assert!(stopped.ends_with("there are 3 workers as before"), "{stopped}");
    assert_eq!(owners(&cluster), three);
    for (signal, words) in [(Signal::TTOU, "scaled to 2 workers"), (Signal::TTOU, "scaled to 1 worker")] {
        cluster.signal(signal);
        cluster.events().expect(words, PATIENCE);
    }
    cluster.signal(Signal::TTOU);
    cluster.events().expect("sticky: not scaled: one worker has to be left", PATIENCE);
    cluster.stop();
}

/// Programs that have their listener themselves cannot be lent another's: what they leave in their queue waits.
fn programs_with_their_own_listener_scale(bed: &Bed) {
    let cluster = bed.fault("std-listener").up();
    cluster.scale(Signal::TTIN, 1, 3);
    for address in Client::loopback_addresses(30) {
        assert_eq!(cluster.client().from(address).get("/").expect("an answer").text(), "hello");
    }
    cluster.scale(Signal::TTOU, 2, 1);
    eventually("those that were taken out are gone", PATIENCE, || cluster.workers().len() == 1);
    for address in Client::loopback_addresses(30) {
        assert_eq!(cluster.client().from(address).get("/").expect("an answer").text(), "hello");
    }
    cluster.stop();
}
