//! Workers that die, stop or hang: what their own clients see, and that nobody else sees anything.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::{Client, Response, TestCluster};

use crate::bed::{Bed, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("crashed_worker_is_replaced", crashed_worker_is_replaced),
        Row::new("crash_moves_nobody", crash_moves_nobody),
        Row::new("queued_connections_outlive_their_worker", queued_connections_outlive_their_worker),
        Row::new("hung_worker_is_replaced", hung_worker_is_replaced),
        Row::new("crash_loop_backs_off", crash_loop_backs_off),
        Row::new("crashes_cost_no_descriptors", crashes_cost_no_descriptors),
        Row::new("panicking_handler_harms_nobody", panicking_handler_harms_nobody),
        Row::new("running_image_outlives_its_file", running_image_outlives_its_file),
        Row::new("worker_that_ends_itself_is_replaced", worker_that_ends_itself_is_replaced),
    ]
}

/// An address of 127/8 whose worker is that slot.
pub(crate) fn address_of(cluster: &TestCluster, slot: u16) -> Ipv4Addr {
    let owns = |address: &Ipv4Addr| cluster.client().from(*address).get("/").expect("an answer").worker() == slot;
    Client::loopback_addresses(2_000).find(owns).expect("every slot has addresses")
}

/// The first of many addresses, with the slot of each.
pub(crate) fn owners(cluster: &TestCluster, count: u32) -> Vec<(Ipv4Addr, u16)> {
    let owner = |address| (address, cluster.client().from(address).get("/").expect("an answer").worker());
    Client::loopback_addresses(count).map(owner).collect()
}

fn crashed_worker_is_replaced(bed: &Bed) {
    let cluster = bed.launch().up();
    let client = cluster.client();
    let mut pids = BTreeSet::new();
    let slot = client.get("/").expect("an answer").worker();
    for generation in 0..5 {
        let answer = client.get("/").expect("an answer from the next generation, not a refusal");
        assert_eq!((answer.worker(), answer.generation()), (slot, generation));
        assert!(pids.insert(answer.pid()), "another process");
        bed.expect_lost(client.post("/crash", b""));
    }
    cluster.events().expect_nth(5, "exited with status 3", PATIENCE);
    cluster.stop();
}

fn crash_moves_nobody(bed: &Bed) {
    let cluster = bed.launch().workers(4).up();
    let before = owners(&cluster, 50);
    let pids = cluster.pids(4);
    process::signal(pids[&2], Signal::KILL);
    assert_eq!(owners(&cluster, 50), before);
    let after = cluster.pids(4);
    let changed: Vec<u16> = pids.keys().copied().filter(|slot| pids[slot] != after[slot]).collect();
    assert_eq!(changed, [2], "only the dead one was started again");
    cluster.stop();
}

/// What waits in a dead worker's accept queue belongs to the supervisor's listener and is answered by the next
/// generation of the same slot.
fn queued_connections_outlive_their_worker(bed: &Bed) {
    let cluster = bed.launch().up();
    let client = cluster.client();
    let victim = client.get("/").expect("an answer");
    process::stop(victim.pid());
    let mut queued: Vec<_> = (0..50).map(|_| client.connect().expect("a connection")).collect();
    for connection in &mut queued {
        connection.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").expect("sent");
    }
    process::signal(victim.pid(), Signal::KILL);
    for mut connection in queued {
        let answer = connection.response().expect("an answer");
        assert_eq!((answer.worker(), answer.generation()), (victim.worker(), 1));
    }
    cluster.stop();
}

fn hung_worker_is_replaced(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_HEARTBEAT_TIMEOUT", "1s").up();
    let client = cluster.client();
    let hung = client.get("/").expect("an answer");
    let mut connection = client.connect().expect("a connection");
    connection.send("POST /hang HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n").expect("sent");
    eventually("the slot's next generation answers", PATIENCE, || {
        let answer = client.clone().timeout(Duration::from_secs(1)).get("/");
        answer.is_ok_and(|answer| answer.generation() == 1 && answer.worker() == hung.worker())
    });
    assert!(!process::is_alive(hung.pid()));
    bed.expect_lost(connection.response());
    for words in ["hangs", "signal 6"] {
        cluster.events().expect(&format!("worker {}", hung.worker()), PATIENCE);
        cluster.events().expect(words, PATIENCE);
    }
    cluster.stop();
}

/// Without a back-off, as in sticky-session, hundreds of processes would be started in this time.
fn crash_loop_backs_off(bed: &Bed) {
    let cluster = bed.launch().env("TESTBED_CRASH_LOOP", "0").up();
    let begun = Instant::now();
    process::signal(cluster.pids(2)[&0], Signal::KILL);
    cluster.events().expect_nth(3, "crash: as asked", PATIENCE);
    let ends = begun + Duration::from_secs(5);
    process::let_pass(ends.saturating_duration_since(Instant::now()));
    let starts = cluster.events().count("crash: as asked");
    assert!((3..40).contains(&starts), "{starts} starts in 5 s");
    assert!(cluster.workers().len() <= 2);
    cluster.stop();
}

fn crashes_cost_no_descriptors(bed: &Bed) {
    let cluster = bed.launch().up();
    let supervisor = cluster.supervisor();
    let count = || process::descriptors(supervisor).len();
    let before = count();
    for generation in 1..=5 {
        cluster.pids(2).values().for_each(|&pid| process::signal(pid, Signal::KILL));
        for slot in [0, 1] {
            wait_for_generation(&cluster, slot, generation);
        }
        eventually("as many descriptors as before", PATIENCE, || count() == before);
    }
    assert_eq!(process::children(supervisor).len(), bed.children(2), "and no zombies");
    cluster.stop();
}

fn panicking_handler_harms_nobody(bed: &Bed) {
    let cluster = bed.fault("panic-in-handler").workers(1).up();
    let workers = cluster.workers();
    let mut kept = cluster.client().connect().expect("a connection");
    assert_eq!(kept.get("/").expect("an answer").status, 200);
    // Whether the client gets a 500 or the end of its connection is the framework's affair.
    let _ = cluster.client().get("/panic");
    cluster.events().expect("the handler has a bug", PATIENCE);
    assert_eq!(kept.get("/").expect("an answer").status, 200);
    assert_eq!(cluster.workers(), workers);
    cluster.stop();
}

/// After a deploy has replaced or removed the file, a crash must not start something else in the middle of the old
/// cluster, nor nothing at all.
fn running_image_outlives_its_file(bed: &Bed) {
    let launch = bed.launch().workers(1).copied();
    let program = launch.folder().join("program");
    let cluster = launch.up();
    std::fs::remove_file(&program).expect("it was there");
    bed.expect_lost(cluster.client().post("/crash", b""));
    assert_eq!(cluster.client().get("/").expect("an answer").generation(), 1);
    std::fs::write(&program, "#!/bin/sh\nexit 9\n").expect("another program");
    bed.expect_lost(cluster.client().post("/crash", b""));
    assert_eq!(cluster.client().get("/").expect("an answer").generation(), 2);
    cluster.stop();
}

/// It closed itself, with success: sticky-session had one worker more after each such end.
fn worker_that_ends_itself_is_replaced(bed: &Bed) {
    let cluster = bed.fault("none").up();
    let (supervisor, mut seen) = (cluster.supervisor(), BTreeSet::from_iter(cluster.workers()));
    for _ in 0..4 {
        bed.expect_lost(cluster.client().get("/exit"));
        assert_eq!(cluster.client().get("/").expect("an answer").status, 200);
        eventually("two workers", PATIENCE, || cluster.workers().len() == 2);
        assert!(cluster.workers().into_iter().any(|pid| seen.insert(pid)), "a new process");
    }
    assert_eq!(process::children(supervisor).len(), bed.children(2));
    cluster.stop();
}

/// Waits until that generation of a slot answers; meanwhile another slot may stand in.
fn wait_for_generation(cluster: &TestCluster, slot: u16, generation: u32) {
    eventually("the next generation answers", PATIENCE, || {
        Client::loopback_addresses(30).any(|address| {
            let answer = cluster.client().from(address).get("/").and_then(Response::or_lost);
            answer.is_ok_and(|answer| answer.worker() == slot && answer.generation() == generation)
        })
    });
}
