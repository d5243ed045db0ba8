//! Keys and sessions of a worker that is not there: they wait a little, go to the next, or are refused, as configured,
//! and everybody else's stay where they are. Under handoff they may come by any worker's connection.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::{Client, Connection, Launch, Random, Request, TestCluster};

use crate::bed::{Bed, Dispatch, Row};
use crate::jar::Jar;
use crate::keys::{Key, Moves, by_header, fresh};

const WORKERS: u16 = 4;
/// The slot that is lost. It is the last one, so that a cluster without it has the same others.
const LOST: u16 = 3;
const SEED: &str = "23";

pub(crate) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("keys_of_a_dead_worker_go_to_the_next", keys_of_a_dead_worker_go_to_the_next),
        Row::new("keys_of_a_stopped_worker_go_to_the_next", keys_of_a_stopped_worker_go_to_the_next),
        Row::new("keys_have_two_workers_at_most", keys_have_two_workers_at_most),
        Row::new("keys_of_a_dead_worker_can_wait", keys_of_a_dead_worker_can_wait),
        Row::new("keys_of_a_dead_worker_can_be_refused", keys_of_a_dead_worker_can_be_refused),
        Row::new("keys_of_a_stopped_worker_can_be_refused", keys_of_a_stopped_worker_can_be_refused),
        Row::new("keys_of_others_are_not_refused", keys_of_others_are_not_refused),
        Row::new("keys_of_others_do_not_wait", keys_of_others_do_not_wait),
        Row::new("waiting_requests_reach_the_next_generation", waiting_requests_reach_the_next_generation),
        Row::new("sticky_sessions_of_a_dead_worker_begin_elsewhere", sticky_sessions_begin_elsewhere),
        Row::new("learned_sessions_of_a_dead_worker_begin_elsewhere", learned_sessions_begin_elsewhere),
        Row::new("placed_tenants_of_a_dead_worker_move_for_good", placed_tenants_move_for_good),
    ];
    // What it holds under proxy dispatch is what it executes; connections are the proxy's.
    let held = Row::new("stopped_worker_keeps_what_it_holds", stopped_worker_keeps_what_it_holds);
    rows.map(|row| row.by_request()).into_iter().chain([held.only(Dispatch::Handoff)]).collect()
}

// === losing a worker ===

/// A slot whose processes end right after their start, until it is allowed to live.
struct Doomed {
    file: PathBuf,
}

impl Doomed {
    fn launch(launch: Launch) -> (TestCluster, Self) {
        let file = launch.folder().join("crash");
        fs::write(&file, "").expect("a file");
        let launch = launch.env("TESTBED_CRASH_LOOP", LOST.to_string()).env("TESTBED_CRASH_FILE", &file);
        (launch.up(), Self { file })
    }

    /// Kills its worker, and waits until the next one has ended too.
    fn strike(cluster: &TestCluster, pid: u32) {
        process::signal(pid, Signal::KILL);
        cluster.events().expect("crash: as asked", PATIENCE);
    }

    fn spare(&self) {
        fs::remove_file(&self.file).expect("it was there");
    }
}

/// Stops a worker for which others are to stand in. What a proxy has written to it before that is known waits for it, as
/// what it executes does.
fn stop_for_others(bed: &Bed, cluster: &TestCluster, pid: u32) {
    const NEWS: &str = "is not running: its clients go to the next one";
    let before = cluster.events().count(NEWS);
    process::stop(pid);
    if bed.is_proxied() {
        cluster.events().expect_nth(before + 1, NEWS, PATIENCE);
    }
}

/// Some keys and their workers.
fn learn(cluster: &TestCluster, keys: &[String]) -> Vec<Key> {
    keys.iter().map(|key| Key::learn(&cluster.client(), key.clone())).collect()
}

/// Keys of the lost slot, and a connection in the hands of each other worker.
fn roads(cluster: &TestCluster, keys: &[Key]) -> Vec<Connection> {
    let mut roads = Vec::new();
    for worker in (0..WORKERS).filter(|worker| *worker != LOST) {
        let key = keys.iter().find(|key| key.worker == worker).expect("every worker has keys");
        let mut road = cluster.client().timeout(PATIENCE).connect().expect("a connection");
        key.check(&road.exchange(&key.on(Request::get("/"))).expect("an answer"));
        roads.push(road);
    }
    roads
}

/// Every key reaches that worker, by each of these connections and by new ones.
fn reach(cluster: &TestCluster, roads: &mut [Connection], expected: &[Key]) {
    for key in expected {
        for road in &mut *roads {
            key.check(&road.exchange(&key.on(Request::post("/echo", b"body"))).expect("an answer"));
        }
    }
    // Addresses of each worker, and so of the lost one.
    for (key, address) in expected.iter().zip(Client::loopback_addresses(40)) {
        let mut own = cluster.client().from(address).timeout(PATIENCE).connect().expect("a connection");
        key.check(&own.exchange(&key.on(Request::get("/"))).expect("an answer"));
    }
}

/// Where the keys are while the slot is out: each with the next in its own order, which is where it would be if there
/// never had been that slot.
fn stand_ins(bed: &Bed, keys: &[String]) -> Vec<Key> {
    let without = by_header(bed, WORKERS - 1).env("STICKY_HASH_SEED", SEED).up();
    learn(&without, keys)
}

fn check_stand_ins(before: &[Key], meanwhile: &[Key]) {
    let moved: BTreeSet<u16> =
        before.iter().zip(meanwhile).filter(|(key, _)| key.worker == LOST).map(|(_, key)| key.worker).collect();
    assert!(moved.len() > 1, "its keys are shared among the others: {moved:?}");
    assert!(before.iter().zip(meanwhile).all(|(key, next)| key.worker == LOST || key.worker == next.worker));
}

/// The whole story of a slot that is lost and comes back.
fn comes_and_goes(
    bed: &Bed,
    (cluster, within): (&TestCluster, Duration),
    lose: impl FnOnce(u32),
    restore: impl FnOnce(u32),
) {
    let keys = fresh(&mut Random::drawn(), 100);
    let (before, meanwhile) = (learn(cluster, &keys), stand_ins(bed, &keys));
    check_stand_ins(&before, &meanwhile);
    let mut roads = roads(cluster, &before);
    let pid = cluster.pids(WORKERS)[&LOST];
    let mine = before.iter().position(|key| key.worker == LOST).expect("it has keys");
    let begun = Instant::now();
    lose(pid);
    let answer = roads[0].exchange(&before[mine].on(Request::get("/"))).expect("an answer");
    meanwhile[mine].check(&answer);
    // A slow machine may add something to it.
    assert!(begun.elapsed() < within + Duration::from_secs(5), "{:?}", begun.elapsed());
    reach(cluster, &mut roads, &meanwhile);
    restore(pid);
    eventually("it serves its keys again", PATIENCE, || {
        roads.iter_mut().all(|road| {
            let answer = road.exchange(&before[mine].on(Request::get("/"))).expect("an answer");
            assert!([LOST, meanwhile[mine].worker].contains(&answer.worker()), "{answer:?}");
            answer.worker() == LOST
        })
    });
    reach(cluster, &mut roads, &before);
    Moves::at_end_of(cluster).sent();
}

/// Again and again, while its keys are asked for all the time: each request is answered by their worker or by their next
/// one, never by whoever holds the lost worker's queue for the moment.
fn keys_have_two_workers_at_most(bed: &Bed) {
    let launch = by_header(bed, WORKERS).env("STICKY_HASH_SEED", SEED);
    let cluster = launch.env("STICKY_FAILOVER", "50ms").up();
    let keys = fresh(&mut Random::drawn(), 60);
    let (before, meanwhile) = (learn(&cluster, &keys), stand_ins(bed, &keys));
    let pairs = before.iter().zip(&meanwhile);
    // Slot 0 is the one that holds the queue of the last.
    let mine: Vec<(&Key, u16)> = pairs
        .filter(|(key, next)| key.worker == LOST && next.worker != 0)
        .map(|(key, next)| (key, next.worker))
        .collect();
    let pid = cluster.pids(WORKERS)[&LOST];
    let ends = AtomicBool::new(false);
    let insist = &|mut road: Connection| {
        for (key, next) in mine.iter().cycle() {
            if ends.load(Ordering::Relaxed) {
                break;
            }
            let answer = road.exchange(&key.on(Request::get("/"))).expect("an answer");
            assert!([LOST, *next].contains(&answer.worker()), "{} has {next} as its next: {answer:?}", key.name);
            // What the lost worker holds hangs with it, so nothing is left there.
            let other = before.iter().find(|key| key.worker == *next).expect("every worker has keys");
            other.check(&road.exchange(&other.on(Request::get("/"))).expect("an answer"));
        }
    };
    thread::scope(|scope| {
        let asking: Vec<_> =
            roads(&cluster, &before).into_iter().map(|road| scope.spawn(move || insist(road))).collect();
        for time in 1..=10 {
            process::stop(pid);
            cluster.events().expect_nth(time, "its clients go to the next", PATIENCE);
            process::signal(pid, Signal::CONT);
            cluster.events().expect_nth(time, "worker 3 is back", PATIENCE);
        }
        ends.store(true, Ordering::Relaxed);
        asking.into_iter().for_each(|asking| asking.join().expect("no client failed"));
    });
    Moves::at_end_of(&cluster).sent();
}

/// By default.
fn keys_of_a_dead_worker_go_to_the_next(bed: &Bed) {
    let (cluster, doomed) = Doomed::launch(by_header(bed, WORKERS).env("STICKY_HASH_SEED", SEED));
    let lose = |pid| Doomed::strike(&cluster, pid);
    comes_and_goes(bed, (&cluster, Duration::from_secs(2)), lose, |_| doomed.spare());
}

fn keys_of_a_stopped_worker_go_to_the_next(bed: &Bed) {
    let within = Duration::from_millis(300);
    let cluster = by_header(bed, WORKERS).env("STICKY_HASH_SEED", SEED).env("STICKY_FAILOVER", "300ms").up();
    comes_and_goes(
        bed,
        (&cluster, within),
        |pid| stop_for_others(bed, &cluster, pid),
        |pid| process::signal(pid, Signal::CONT),
    );
}

/// Whoever waits is answered by the worker that comes at last; nobody else waits.
fn keys_of_a_dead_worker_can_wait(bed: &Bed) {
    let (cluster, doomed) = Doomed::launch(by_header(bed, WORKERS).env("STICKY_FAILOVER", "wait"));
    let keys = learn(&cluster, &fresh(&mut Random::drawn(), 40));
    let (lost, others): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(|key| key.worker == LOST);
    let (mut roads, mut waiting) = (roads(&cluster, &keys), self::roads(&cluster, &keys));
    Doomed::strike(&cluster, cluster.pids(WORKERS)[&LOST]);
    for (road, key) in waiting.iter_mut().zip(&lost) {
        road.send(key.on(Request::post("/echo", key.name.as_bytes())).bytes()).expect("sent");
    }
    cluster.events().expect_nth(3, "crash: as asked", PATIENCE);
    for key in &others {
        for road in &mut roads {
            key.check(&road.exchange(&key.on(Request::get("/"))).expect("an answer"));
        }
    }
    for road in &mut waiting {
        road.set_timeout(Duration::from_millis(100)).expect("a timeout");
        road.response().expect_err("nobody stands in");
        road.set_timeout(PATIENCE).expect("a timeout");
    }
    doomed.spare();
    for (road, key) in waiting.iter_mut().zip(&lost) {
        let answer = road.response().expect("an answer");
        key.check(&answer);
        assert_eq!(answer.text(), key.name);
        assert!(answer.generation() >= 3, "{answer:?}");
    }
    reach(&cluster, &mut roads, &keys);
    Moves::at_end_of(&cluster).sent();
}

/// They get 503 while the slot is lost; nobody else does.
fn are_refused(cluster: &TestCluster, lose: impl FnOnce(u32), restore: impl FnOnce(u32)) {
    let keys = learn(cluster, &fresh(&mut Random::drawn(), 40));
    let (lost, others): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(|key| key.worker == LOST);
    let mut roads = roads(cluster, &keys);
    // Each is closed by its refusal.
    let mut refused: Vec<_> = lost.iter().flat_map(|_| self::roads(cluster, &keys).pop()).collect();
    let pid = cluster.pids(WORKERS)[&LOST];
    lose(pid);
    for (road, key) in refused.iter_mut().zip(&lost) {
        let answer = road.exchange(&key.on(Request::get("/"))).expect("an answer");
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    for key in &others {
        for road in &mut roads {
            key.check(&road.exchange(&key.on(Request::get("/"))).expect("an answer"));
        }
    }
    restore(pid);
    // Each worker hears of it by itself.
    eventually("it serves its keys again", PATIENCE, || {
        Client::loopback_addresses(40).all(|from| {
            let mut road = cluster.client().from(from).connect().expect("a connection");
            road.exchange(&lost[0].on(Request::get("/"))).is_ok_and(|answer| answer.status == 200)
        })
    });
    reach(cluster, &mut roads, &keys);
    Moves::at_end_of(cluster).sent();
}

fn keys_of_a_dead_worker_can_be_refused(bed: &Bed) {
    let (cluster, doomed) = Doomed::launch(by_header(bed, WORKERS).env("STICKY_FAILOVER", "refuse:300ms"));
    are_refused(&cluster, |pid| Doomed::strike(&cluster, pid), |_| doomed.spare());
}

fn keys_of_a_stopped_worker_can_be_refused(bed: &Bed) {
    let cluster = by_header(bed, WORKERS).env("STICKY_FAILOVER", "refuse:300ms").up();
    are_refused(&cluster, |pid| stop_for_others(bed, &cluster, pid), |pid| process::signal(pid, Signal::CONT));
}

/// The kernel has placed some of their new connections on the slot that is lost, as it knows no keys.
fn keys_of_others_are_not_refused(bed: &Bed) {
    let cluster = by_header(bed, WORKERS).env("STICKY_FAILOVER", "refuse:300ms").up();
    let keys = learn(&cluster, &fresh(&mut Random::drawn(), 40));
    let (lost, others): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(|key| key.worker == LOST);
    let mut road = roads(&cluster, &keys).remove(0);
    stop_for_others(bed, &cluster, cluster.pids(WORKERS)[&LOST]);
    assert_eq!(road.exchange(&lost[0].on(Request::get("/"))).expect("an answer").status, 503);
    let refused: Vec<_> = Client::loopback_addresses(40)
        .zip(others.iter().cycle())
        .filter(|(address, key)| {
            let mut own = cluster.client().from(*address).timeout(PATIENCE).connect().expect("a connection");
            own.exchange(&key.on(Request::get("/"))).expect("an answer").status == 503
        })
        .collect();
    assert!(refused.is_empty(), "refused, though their workers are there: {refused:?}");
    Moves::at_end_of(&cluster).sent();
}

/// Nor do they wait for it.
fn keys_of_others_do_not_wait(bed: &Bed) {
    let cluster = by_header(bed, WORKERS).env("STICKY_FAILOVER", "wait").up();
    let keys = learn(&cluster, &fresh(&mut Random::drawn(), 40));
    let others: Vec<_> = keys.iter().filter(|key| key.worker != LOST).collect();
    process::stop(cluster.pids(WORKERS)[&LOST]);
    let asks = Client::loopback_addresses(40).zip(others.into_iter().cycle()).map(|(address, key)| {
        let mut own = cluster.client().from(address).connect().expect("a connection");
        own.send(key.on(Request::get("/")).bytes()).expect("sent");
        own.set_timeout(Duration::from_secs(3)).expect("a timeout");
        (own, address, key)
    });
    let mut asks: Vec<_> = asks.collect();
    let late = asks.iter_mut().filter_map(|(own, address, key)| match own.response() {
        Ok(answer) => {
            key.check(&answer);
            None
        }
        Err(_) => Some(format!("{address}, {}", key.name)),
    });
    let late: Vec<_> = late.take(2).collect();
    assert!(late.is_empty(), "they wait, though their workers are there: {late:?}");
    Moves::at_end_of(&cluster).sent();
}

/// The process after `first` in the lost slot, which no proxy has an idle connection to. The one that is returned with it
/// has been answered there, and goes on being so.
fn unused_process(cluster: &TestCluster, first: u32, key: &Key) -> (u32, Connection) {
    let before = cluster.workers();
    process::signal(first, Signal::KILL);
    let mut next = None;
    eventually("another has come", PATIENCE, || {
        next = cluster.workers().into_iter().find(|pid| !before.contains(pid));
        next.is_some()
    });
    let mut events = cluster.client().timeout(PATIENCE).connect().expect("a connection");
    events.send(key.on(Request::get("/sse")).bytes()).expect("sent");
    events.read_until("data: 0").expect("it is ready");
    (next.expect("it has come"), events)
}

/// What is on its way to a worker when that is killed is answered by the slot's next process, with and without bodies.
fn waiting_requests_reach_the_next_generation(bed: &Bed) {
    let cluster = by_header(bed, WORKERS).env("STICKY_FAILOVER", "30s").up();
    let mut random = Random::drawn();
    let keys = learn(&cluster, &fresh(&mut random, 40));
    let lost: Vec<&Key> = keys.iter().filter(|key| key.worker == LOST).collect();
    let first = cluster.pids(WORKERS)[&LOST];
    // What a proxy sends over a connection that it has is lost with the process there, as what that executes is.
    let unused = bed.is_proxied().then(|| unused_process(&cluster, first, lost[0]));
    let (pid, generation) = unused.as_ref().map_or((first, 1), |(pid, _)| (*pid, 2));
    let mut waiting: Vec<_> = (0..6).flat_map(|_| roads(&cluster, &keys)).collect();
    process::stop(pid);
    let mut sent = Vec::new();
    for (number, road) in waiting.iter_mut().enumerate() {
        let (key, size) = (lost[number % lost.len()], [0, 100, 60_000][number % 3]);
        let body = random.bytes(size);
        road.send(key.on(Request::post("/echo", body.clone())).bytes()).expect("sent");
        sent.push((key, body));
    }
    process::signal(pid, Signal::KILL);
    for (road, (key, body)) in waiting.iter_mut().zip(&sent) {
        let answer = road.response().expect("an answer");
        key.check(&answer);
        assert_eq!((answer.status, answer.generation()), (200, generation));
        assert!(answer.body == *body, "other bytes came back");
        assert_eq!(road.exchange(&key.on(Request::get("/"))).expect("an answer").generation(), generation);
    }
    Moves::at_end_of(&cluster).sent();
}

// === sessions ===

/// A client, its session and where that is.
struct Visitor {
    jar: Jar,
    session: String,
    worker: u16,
}

impl Visitor {
    fn log_in(mut jar: Jar, client: &Client) -> Self {
        let answer = jar.ask(client, Request::post("/login", b""));
        assert_eq!(answer.status, 200, "{answer:?}");
        Self { jar, session: answer.text(), worker: answer.worker() }
    }

    fn is_known(&mut self, client: &Client) {
        let answer = self.jar.ask(client, Request::get("/me"));
        assert_eq!((answer.status, answer.text(), answer.worker()), (200, self.session.clone(), self.worker));
    }
}

fn sticky_sessions_begin_elsewhere(bed: &Bed) {
    sessions_begin_elsewhere(bed, "sticky-cookie");
}

fn learned_sessions_begin_elsewhere(bed: &Bed) {
    sessions_begin_elsewhere(bed, "cookie:session+learn");
}

/// A process that goes on has its sessions still. What came meanwhile by a connection that it holds is answered there,
/// and not sent to whoever stood in.
fn stopped_worker_keeps_what_it_holds(bed: &Bed) {
    for affinity in ["sticky-cookie", "cookie:session+learn"] {
        let launch = bed.launch().workers(WORKERS).env("STICKY_AFFINITY", affinity);
        let cluster = launch.env("STICKY_FAILOVER", "50ms").up();
        let clients = Client::loopback_addresses(200).map(|from| cluster.client().from(from).timeout(PATIENCE));
        let mut held: Vec<_> = clients
            .map(|client| (Visitor::log_in(Jar::default(), &client), client))
            .filter(|(visitor, _)| visitor.worker == LOST)
            .take(20)
            .map(|(mut visitor, client)| {
                let mut connection = client.connect().expect("a connection");
                assert_eq!(visitor.jar.exchange(&mut connection, Request::get("/me")).status, 200);
                (visitor, connection)
            })
            .collect();
        let pid = cluster.pids(WORKERS)[&LOST];
        for time in 1..=3 {
            process::stop(pid);
            cluster.events().expect_nth(time, "its clients go to the next", PATIENCE);
            for (visitor, connection) in &mut held {
                connection.send(visitor.jar.on(Request::get("/me")).bytes()).expect("sent");
            }
            process::signal(pid, Signal::CONT);
            for (visitor, connection) in &mut held {
                let answer = connection.response().expect("an answer");
                visitor.jar.keep(&answer);
                assert_eq!((answer.status, answer.worker()), (200, LOST), "{affinity}: {answer:?}");
                assert_eq!(answer.text(), visitor.session);
            }
            cluster.events().expect_nth(time, "worker 3 is back", PATIENCE);
        }
        Moves::at_end_of(&cluster).sent();
    }
}

/// Clients of a dead worker have lost their sessions. They log in elsewhere, and stay there when it is back. Nobody
/// else notices.
fn sessions_begin_elsewhere(bed: &Bed, affinity: &str) {
    let launch = bed.launch().workers(WORKERS).env("STICKY_AFFINITY", affinity).env("STICKY_FAILOVER", "300ms");
    let (cluster, doomed) = Doomed::launch(launch);
    let clients: Vec<_> =
        Client::loopback_addresses(60).map(|from| cluster.client().from(from).timeout(PATIENCE)).collect();
    let visitors = clients.iter().map(|client| Visitor::log_in(Jar::default(), client));
    let (lost, mut others): (Vec<_>, Vec<_>) = visitors.partition(|visitor| visitor.worker == LOST);
    assert!(!lost.is_empty(), "every worker has sessions");
    Doomed::strike(&cluster, cluster.pids(WORKERS)[&LOST]);
    let mut again = Vec::new();
    for (visitor, client) in lost.iter().zip(&clients) {
        let mut jar = visitor.jar.clone();
        let answer = jar.ask(client, Request::get("/me"));
        assert_eq!(answer.status, 401);
        assert_ne!(answer.worker(), LOST);
        again.push(Visitor::log_in(jar, client));
        others.iter_mut().zip(&clients).for_each(|(other, client)| other.is_known(client));
    }
    again.iter_mut().for_each(|visitor| visitor.is_known(&clients[0]));
    doomed.spare();
    eventually("it is back", PATIENCE, || {
        let mut old = lost[0].jar.clone();
        let answer = old.ask(&clients[0], Request::get("/me"));
        assert_eq!(answer.status, 401, "{answer:?}");
        answer.worker() == LOST
    });
    for visitor in again.iter_mut().chain(&mut others) {
        clients.iter().take(10).for_each(|client| visitor.is_known(client));
    }
    Moves::at_end_of(&cluster).sent();
}

/// A tenant that was placed elsewhere because its worker was out has its state there from then on.
fn placed_tenants_move_for_good(bed: &Bed) {
    let launch = bed.launch().workers(WORKERS).env("TESTBED_AFFINITY", "tenant").env("STICKY_FAILOVER", "300ms");
    let (cluster, doomed) = Doomed::launch(launch.env("STICKY_PLACEMENT", "round-robin"));
    let tenants = fresh(&mut Random::drawn(), 40);
    let ask = |tenant: &String| {
        let mut road = cluster.client().timeout(PATIENCE).connect().expect("a connection");
        road.exchange(&Request::get("/").header("x-tenant", tenant)).expect("an answer")
    };
    let places =
        || -> BTreeMap<String, u16> { tenants.iter().map(|tenant| (tenant.clone(), ask(tenant).worker())).collect() };
    let before = places();
    Doomed::strike(&cluster, cluster.pids(WORKERS)[&LOST]);
    let meanwhile = places();
    for (tenant, worker) in &before {
        if *worker == LOST {
            assert_ne!(meanwhile[tenant], LOST, "{tenant}");
        } else {
            assert_eq!(meanwhile[tenant], *worker, "{tenant}");
        }
    }
    assert_eq!(places(), meanwhile);
    doomed.spare();
    cluster.pids(WORKERS);
    assert_eq!(places(), meanwhile);
    Moves::at_end_of(&cluster).sent();
}
