//! Workers that are not there for a while: their clients wait a little and go to the next; nobody else notices.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};

use crate::bed::{Bed, Row};
use crate::crash::{address_of, owners};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("stopped_worker_harms_nobody_else", stopped_worker_harms_nobody_else).alone(),
        Row::new(
            "clients_of_a_stopped_worker_are_served_by_the_next",
            clients_of_a_stopped_worker_are_served_by_the_next,
        ),
        Row::new("clients_of_a_dead_slot_are_served_by_the_next", clients_of_a_dead_slot_are_served_by_the_next),
        Row::new("clients_of_a_dead_slot_can_be_refused", clients_of_a_dead_slot_can_be_refused),
        Row::new("queue_of_a_dead_slot_is_emptied_at_the_end", queue_of_a_dead_slot_is_emptied_at_the_end),
    ]
}

fn stopped_worker_harms_nobody_else(bed: &Bed) {
    let cluster = bed.launch().workers(4).up();
    let stopped = 1;
    let others: Vec<_> = owners(&cluster, 64).into_iter().filter(|(_, slot)| *slot != stopped).take(24).collect();
    let pid = cluster.pids(4)[&stopped];
    process::stop(pid);
    let ends = Instant::now() + Duration::from_secs(4);
    let insist = |(address, slot): (Ipv4Addr, u16)| {
        let client = cluster.client().from(address);
        move || {
            let mut kept = client.connect().expect("a connection");
            while Instant::now() < ends {
                let begun = Instant::now();
                assert_eq!(client.get("/sleep/5").expect("an answer").worker(), slot);
                assert_eq!(kept.get("/sleep/5").expect("an answer").worker(), slot);
                assert!(begun.elapsed() < Duration::from_secs(1), "{address} waited {:?}", begun.elapsed());
            }
        }
    };
    let clients: Vec<_> = others.into_iter().map(|other| thread::spawn(insist(other))).collect();
    for client in clients {
        client.join().expect("no failure");
    }
    process::signal(pid, Signal::CONT);
    assert_eq!(cluster.pids(4)[&stopped], pid, "it goes on where it was");
    cluster.stop();
}

/// A stopped process may go on at any time, so it is not replaced; its clients wait no longer than for a dead one,
/// and come back to it.
fn clients_of_a_stopped_worker_are_served_by_the_next(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_FAILOVER", "300ms").up();
    let pids = cluster.pids(2);
    let (mine, other) = (address_of(&cluster, 0), address_of(&cluster, 1));
    process::stop(pids[&0]);
    if bed.is_proxied() {
        // What has been written to it before it was known to stand still waits for it, as what it executes does.
        cluster.events().expect("worker 0 is not running", PATIENCE);
    }
    let answer = cluster.client().from(mine).get("/").expect("an answer");
    assert_eq!((answer.worker(), answer.pid()), (1, pids[&1]));
    assert_eq!(cluster.client().from(other).get("/").expect("an answer").worker(), 1);
    process::signal(pids[&0], Signal::CONT);
    eventually("its clients are back", PATIENCE, || {
        let answer = cluster.client().from(mine).get("/").expect("an answer");
        answer.worker() == 0 && answer.pid() == pids[&0]
    });
    cluster.stop();
}

/// A slot that stays dead: its clients wait for the failover deadline at most, then the next slot serves them. All
/// others are served at once throughout.
fn clients_of_a_dead_slot_are_served_by_the_next(bed: &Bed) {
    let cluster = bed.launch().workers(3).env("TESTBED_CRASH_LOOP", "0").up();
    let before = owners(&cluster, 40);
    process::signal(cluster.pids(3)[&0], Signal::KILL);
    cluster.events().expect("crash: as asked", PATIENCE);
    for (address, slot) in before {
        let answer = cluster.client().from(address).get("/").unwrap_or_else(|error| panic!("slot {slot}: {error}"));
        assert_eq!(answer.status, 200);
        let expected = if slot == 0 { [1, 2] } else { [slot, slot] };
        assert!(expected.contains(&answer.worker()), "slot {slot} was served by {}", answer.worker());
    }
    cluster.stop();
}

fn clients_of_a_dead_slot_can_be_refused(bed: &Bed) {
    let cluster = bed.launch().env("TESTBED_CRASH_LOOP", "0").env("STICKY_FAILOVER", "refuse").up();
    let address = address_of(&cluster, 0);
    process::signal(cluster.pids(2)[&0], Signal::KILL);
    cluster.events().expect("crash: as asked", PATIENCE);
    eventually("503", PATIENCE, || cluster.client().from(address).get("/").is_ok_and(|answer| answer.status == 503));
    cluster.stop();
}

/// A slot that is not running when the end comes: who waits in its queue is served by another.
fn queue_of_a_dead_slot_is_emptied_at_the_end(bed: &Bed) {
    let cluster = bed.launch().env("TESTBED_CRASH_LOOP", "0").env("STICKY_FAILOVER", "wait").up();
    let client = cluster.client().from(address_of(&cluster, 0));
    process::signal(cluster.pids(2)[&0], Signal::KILL);
    // By now the next start is half a second away.
    cluster.events().expect_nth(4, "crash: as asked", PATIENCE);
    let mut waiting = client.connect().expect("a connection");
    waiting.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").expect("sent");
    cluster.stop();
    assert_eq!(waiting.response().expect("an answer").worker(), 1);
}
