//! Reload as clients and operators see it: new generations, nothing lost, and the way back when the new program is
//! broken.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::testbed::LAST_EVENT;
use sticky_tests::{Client, Connection, Request, TestCluster};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::bed::{Bed, Dispatch, Row};
use crate::drain::{executing, websocket};
use crate::keys::{Key, Moves, by_header};
use crate::reload_load::SetOnDrop;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("reload_replaces_every_worker", reload_replaces_every_worker),
        Row::new("reload_takes_the_program_at_the_path", reload_takes_the_program_at_the_path),
        Row::new("idle_connections_outlive_a_reload", idle_connections_outlive_a_reload).by_request(),
        Row::new("idle_connections_get_one_more_answer", idle_connections_get_one_more_answer).only(Dispatch::Kernel),
        Row::new("keys_keep_their_worker_in_reloads", keys_keep_their_worker_in_reloads).by_request(),
        Row::new("half_a_head_outlives_a_reload", half_a_head_outlives_a_reload),
        Row::new("pipelines_outlive_a_reload", pipelines_outlive_a_reload).by_request(),
        Row::new("executing_requests_outlive_a_reload", executing_requests_outlive_a_reload),
        Row::new("websockets_and_sse_are_told_of_a_reload", websockets_and_sse_are_told_of_a_reload),
        Row::new("drain_timeout_cuts_what_a_reload_leaves", drain_timeout_cuts_what_a_reload_leaves),
        Row::new("programs_with_their_own_listener_reload", programs_with_their_own_listener_reload)
            .only(Dispatch::Kernel),
        Row::new("broken_programs_change_nothing", broken_programs_change_nothing),
        Row::new("short_lived_programs_are_not_trusted", short_lived_programs_are_not_trusted),
        Row::new("other_affinity_needs_a_restart", other_affinity_needs_a_restart),
        Row::new("reload_during_a_reload_waits", reload_during_a_reload_waits),
        Row::new("shutdown_during_a_reload_wins", shutdown_during_a_reload_wins),
        Row::new("many_reloads_leave_nothing_behind", many_reloads_leave_nothing_behind),
    ]
}

/// That many connections from different addresses, each of which has had an answer.
pub(crate) fn idle_connections(cluster: &TestCluster, count: u32) -> Vec<(u16, Connection)> {
    let open = |address| {
        let mut connection = cluster.client().from(address).connect().expect("a connection");
        let answer = connection.get("/").expect("an answer");
        (answer.worker(), connection)
    };
    Client::loopback_addresses(count).map(open).collect()
}

fn reload_replaces_every_worker(bed: &Bed) {
    let cluster = bed.launch().workers(3).up();
    let before = cluster.pids(3);
    cluster.reload();
    let after = cluster.pids(3);
    assert!(before.iter().all(|(slot, pid)| after[slot] != *pid), "{before:?} and {after:?}");
    for address in Client::loopback_addresses(30) {
        let client = cluster.client().from(address);
        assert_eq!(client.get("/").expect("an answer").generation(), 1);
    }
    eventually("the former workers are gone", PATIENCE, || cluster.workers().len() == 3);
    assert_eq!(cluster.events().count("the former worker "), 3, "{}", cluster.events());
    cluster.stop();
}

/// A deploy takes effect with the reload; a crash after that brings back what was reloaded, not what is there by then.
fn reload_takes_the_program_at_the_path(bed: &Bed) {
    let cluster = bed.deployed().env("TESTBED_FAULT", "").up();
    let inode = |pid: u32| fs::metadata(format!("/proc/{pid}/exe")).expect("its program").ino();
    let there = || fs::metadata(cluster.folder().join("program")).expect("a program").ino();
    let first = there();
    cluster.deploy(bed.program());
    let second = there();
    assert!(first != second && cluster.pids(2).values().all(|pid| inode(*pid) == first));
    cluster.reload();
    assert!(cluster.pids(2).values().all(|pid| inode(*pid) == second));
    cluster.deploy(env!("CARGO_BIN_EXE_testbed-fault"));
    let victim = cluster.pids(2)[&0];
    process::signal(victim, Signal::KILL);
    eventually("the slot is back", PATIENCE, || cluster.pids(2)[&0] != victim);
    assert_eq!(inode(cluster.pids(2)[&0]), second, "what was running in the slot");
    cluster.stop();
}

/// Nothing is closed: the same connections go on, answered by the next generation.
fn idle_connections_outlive_a_reload(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut idle = idle_connections(&cluster, 60);
    let mut silent = cluster.client().connect().expect("a connection");
    for reload in 1..=3 {
        cluster.reload();
        for (worker, connection) in &mut idle {
            let answer = connection.request("POST", "/echo", &[], b"hello").expect("an answer");
            assert_eq!((answer.worker(), answer.text().as_str()), (*worker, "hello"));
            assert!(!answer.announces_close() && answer.generation() + 1 >= reload, "{answer:?}");
            eventually("the next generation answers", PATIENCE, || {
                connection.get("/").expect("an answer").generation() == reload
            });
        }
    }
    eventually("also one that never sent anything goes on there", PATIENCE, || {
        silent.get("/").expect("an answer").generation() == 3
    });
    eventually("the former workers are gone", PATIENCE, || cluster.workers().len() == 2);
    assert_eq!(cluster.events().count("0 cut"), 3 * bed.children(2), "{}", cluster.events());
    // Each connection has moved each time.
    Moves::at_end_of(&cluster).are_at_least(bed, 3 * 61);
}

/// Connections that move with every request go on doing so through reloads; nothing is lost or goes round.
fn keys_keep_their_worker_in_reloads(bed: &Bed) {
    let cluster = by_header(bed, 2).up();
    let keys = Key::of_each_worker(&cluster.client(), 2);
    let done = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    thread::scope(|scope| {
        for address in Client::loopback_addresses(6) {
            let client = cluster.client().from(address).timeout(PATIENCE);
            let (keys, done, asked) = (&keys, &done, &asked);
            scope.spawn(move || {
                let mut connection = client.connect().expect("a connection");
                for key in keys.iter().cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                    key.check(&connection.exchange(&key.on(Request::get("/"))).expect("an answer"));
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _ends_the_clients = SetOnDrop(&done);
        for _ in 0..5 {
            let before = asked.load(Ordering::Relaxed);
            cluster.reload();
            eventually("the clients go on", PATIENCE, || asked.load(Ordering::Relaxed) > before + 100);
        }
    });
    let moves = Moves::at_end_of(&cluster);
    assert!(moves.sent() > 100, "{moves:?}");
}

/// Where a connection cannot move, closing it could cross a request: its client is told with the answer to the next one.
fn idle_connections_get_one_more_answer(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut idle = idle_connections(&cluster, 60);
    cluster.reload();
    for (worker, connection) in &mut idle {
        // That the drain has begun comes round to the worker in a moment.
        eventually("it says that this was the last answer", PATIENCE, || {
            let answer = connection.request("POST", "/echo", &[], b"hello").expect("an answer");
            assert_eq!((answer.worker(), answer.generation(), answer.text().as_str()), (*worker, 0, "hello"));
            answer.announces_close()
        });
        assert_eq!(connection.read_to_end().expect("an end, not a reset"), b"");
    }
    eventually("the former workers are gone", PATIENCE, || cluster.workers().len() == 2);
    cluster.stop();
}

fn half_a_head_outlives_a_reload(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut used = cluster.client().connect().expect("a connection");
    assert_eq!(used.get("/").expect("an answer").status, 200);
    let mut halves = [cluster.client().connect().expect("a connection"), used];
    for connection in &mut halves {
        connection.send("POST /echo HTTP/1.1\r\nhost: te").expect("sent");
    }
    // It is answered after those halves have come: one event loop reads them all.
    assert_eq!(cluster.client().get("/").expect("an answer").status, 200);
    cluster.reload();
    if bed.keeps_connections() {
        eventually("the former workers are gone", PATIENCE, || cluster.workers().len() == 2);
    }
    for connection in &mut halves {
        connection.send("st\r\ncontent-length: 5\r\n\r\nhello").expect("sent");
        let answer = connection.response().expect("an answer");
        assert_eq!(answer.text(), "hello");
        assert_eq!(answer.generation(), u32::from(bed.keeps_connections()));
    }
    cluster.stop();
}

/// That the next generation answers on this connection, as soon as its worker has heard of that.
fn goes_on(connection: &mut Connection) {
    eventually("the next generation answers", PATIENCE, || connection.get("/").expect("an answer").generation() == 1);
}

/// What has been read behind the request that is executing goes to the next generation, with the rest.
fn pipelines_outlive_a_reload(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut busy: Vec<_> = Client::loopback_addresses(10)
        .map(|address| executing(&cluster.client().from(address), "/sleep/1500"))
        .collect();
    for connection in &mut busy {
        let next = Request::post("/echo", b"hello".to_vec()).bytes();
        connection.send([next, Request::get("/").bytes()].concat()).expect("sent");
    }
    cluster.reload();
    for connection in &mut busy {
        assert_eq!(connection.response().expect("a whole answer").text(), "slept");
        let next = connection.response().expect("the second answer");
        assert_eq!(next.text(), "hello");
        assert_eq!(connection.response().expect("the third answer").status, 200);
        goes_on(connection);
    }
    Moves::at_end_of(&cluster).sent();
}

fn executing_requests_outlive_a_reload(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut busy: Vec<_> = Client::loopback_addresses(10)
        .map(|address| executing(&cluster.client().from(address), "/sleep/1500"))
        .collect();
    cluster.reload();
    let moves = bed.dispatch() == Dispatch::Handoff;
    for connection in &mut busy {
        let answer = connection.response().expect("a whole answer");
        assert_eq!((answer.text().as_str(), answer.generation()), ("slept", 0));
        if moves {
            assert!(!answer.announces_close(), "{answer:?}");
            goes_on(connection);
        }
    }
    cluster.stop();
}

fn websockets_and_sse_are_told_of_a_reload(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut socket = websocket(&cluster);
    let mut stream = cluster.client().connect().expect("a connection");
    stream.send("GET /sse HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").expect("sent");
    stream.read_until("data: 0").expect("a first event");
    cluster.signal(Signal::HUP);
    let Message::Close(Some(frame)) = socket.read().expect("a last message") else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Restart, "1012");
    while socket.read().is_ok() {}
    let all = String::from_utf8(stream.read_to_end().expect("an end, not a reset")).expect("text");
    assert!(all.contains(LAST_EVENT) && all.ends_with("0\r\n\r\n"), "{all}");
    cluster.events().expect("sticky: reloaded ", PATIENCE);
    eventually("the former workers are gone", PATIENCE, || cluster.workers().len() == 2);
    cluster.stop();
}

fn drain_timeout_cuts_what_a_reload_leaves(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_DRAIN_TIMEOUT", "300ms").up();
    let mut cut = executing(&cluster.client(), "/sleep/60000");
    cluster.reload();
    bed.expect_lost(cut.response());
    cluster.events().expect(", 1 cut", PATIENCE);
    eventually("the former workers are gone", PATIENCE, || cluster.workers().len() == 2);
    cluster.stop();
}

/// A framework that has the listener itself cannot be asked to let go of it: it shares it with the next generation until it
/// drains.
fn programs_with_their_own_listener_reload(bed: &Bed) {
    let cluster = bed.fault("std-listener").up();
    let before = cluster.workers();
    cluster.reload();
    eventually("the former workers are gone", PATIENCE, || {
        let workers = cluster.workers();
        workers.len() == 2 && workers.iter().all(|pid| !before.contains(pid))
    });
    for address in Client::loopback_addresses(20) {
        assert_eq!(cluster.client().from(address).get("/").expect("an answer").text(), "hello");
    }
    cluster.stop();
}

/// Deploys a broken program; the reload must stop with these words, and everybody is served by who served before.
fn stops(cluster: &TestCluster, words: &[&str]) {
    let before = cluster.pids(2);
    cluster.deploy(env!("CARGO_BIN_EXE_testbed-fault"));
    let mut idle = idle_connections(cluster, 20);
    cluster.signal(Signal::HUP);
    let report = cluster.events().expect("reload stopped: ", PATIENCE);
    for word in words.iter().chain(&["every worker goes on as it was"]) {
        assert!(report.contains(word), "{word:?} is not in {report:?}");
    }
    for (worker, connection) in &mut idle {
        let answer = connection.get("/").expect("an answer");
        assert_eq!((answer.worker(), answer.generation(), answer.announces_close()), (*worker, 0, false));
    }
    assert_eq!(cluster.pids(2), before);
    eventually("the new process is gone", PATIENCE, || cluster.workers().len() == 2);
}

fn broken_programs_change_nothing(bed: &Bed) {
    let faults: [(&str, &[&str]); 5] = [
        ("exit-before-sticky", &["worker 0 exited with status 0 before it was ready"]),
        ("panic-in-factory", &["worker 0 ", "before it was ready", "the factory has a bug"]),
        ("error-from-factory", &["worker 0 ", "before it was ready", "the factory found no database"]),
        ("hang-before-sticky", &["worker 0 was not ready within 1.5s"]),
        ("never-ready", &["worker 0 was not ready within 1.5s"]),
    ];
    for (fault, words) in faults {
        let launch = bed.deployed().env("TESTBED_FAULT", fault).env("STICKY_BOOT_TIMEOUT", "1500ms");
        let cluster = launch.up();
        stops(&cluster, words);
        // The next deploy repairs it.
        cluster.deploy(bed.program());
        cluster.reload();
        assert!(cluster.client().get("/").expect("an answer").generation() > 0);
        cluster.stop();
    }
}

fn short_lived_programs_are_not_trusted(bed: &Bed) {
    let launch = bed.deployed().env("TESTBED_FAULT", "short-life").env("STICKY_RELOAD_SOAK", "20s");
    let cluster = launch.up();
    stops(&cluster, &["worker 0 exited with status 4 within reload_soak"]);
    cluster.stop();
}

fn other_affinity_needs_a_restart(bed: &Bed) {
    let cluster = bed.deployed().env("TESTBED_FAULT", "other-affinity").up();
    stops(&cluster, &["worker 0 ", "a reload can't change affinity: restart"]);
    cluster.stop();
}

fn reload_during_a_reload_waits(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_RELOAD_SOAK", "500ms").up();
    cluster.signal(Signal::HUP);
    cluster.events().expect("sticky: reloading 2 workers", PATIENCE);
    cluster.signal(Signal::HUP);
    cluster.events().expect("a reload waits for what is under way", PATIENCE);
    cluster.events().expect_nth(2, "sticky: reloaded 2 workers", PATIENCE);
    for address in Client::loopback_addresses(20) {
        assert_eq!(cluster.client().from(address).get("/").expect("an answer").generation(), 2);
    }
    cluster.stop();
}

fn shutdown_during_a_reload_wins(bed: &Bed) {
    let cluster = bed.deployed().env("TESTBED_FAULT", "hang-before-sticky").up();
    cluster.deploy(env!("CARGO_BIN_EXE_testbed-fault"));
    let mut busy = executing(&cluster.client(), "/sleep/700");
    cluster.signal(Signal::HUP);
    eventually("the new process has been started", PATIENCE, || cluster.workers().len() == 3);
    cluster.signal(Signal::TERM);
    assert_eq!(busy.response().expect("a whole answer").text(), "slept");
    assert!(cluster.exit(PATIENCE).success());
    cluster.gone(Duration::from_secs(2));
    assert_eq!(cluster.events().count("the reload is given up; every worker goes on as it was"), 1);
}

fn many_reloads_leave_nothing_behind(bed: &Bed) {
    let cluster = bed.launch().up();
    let descriptors = || process::descriptors(cluster.supervisor()).len();
    cluster.reload();
    eventually("the former workers are gone", PATIENCE, || cluster.workers().len() == 2);
    let before = descriptors();
    for _ in 0..20 {
        cluster.reload();
    }
    eventually("no process is left behind", PATIENCE, || cluster.family().len() == 1 + bed.children(2));
    eventually("no descriptor is left behind", PATIENCE, || descriptors() <= before);
    assert_eq!(cluster.client().get("/").expect("an answer").generation(), 21);
    cluster.stop();
}
