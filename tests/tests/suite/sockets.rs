//! Which descriptors a worker has: exactly one inherited, then only what it is lent or makes itself.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process;

use crate::bed::{Bed, Dispatch, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("one_descriptor_is_inherited", one_descriptor_is_inherited),
        Row::new("nothing_is_passed_on", nothing_is_passed_on),
        Row::new("workers_hold_only_what_they_need", workers_hold_only_what_they_need),
        Row::new("closed_connections_leave_no_descriptor", closed_connections_leave_no_descriptor),
        Row::new("too_few_descriptors_make_clients_wait", too_few_descriptors_make_clients_wait),
    ]
}

/// Standard input, output and error, and the control socket: seen by the worker itself on its first line.
fn one_descriptor_is_inherited(bed: &Bed) {
    let cluster = bed.fault("descriptors").with_standard_descriptors_only().up();
    for nth in 1..=2 {
        let line = cluster.events().expect_nth(nth, "inherited descriptors: ", PATIENCE);
        let kinds: Vec<&str> = line.rsplit_once("descriptors: ").expect("a list").1.split(' ').collect();
        assert_eq!(kinds.len(), 4, "{line}");
        assert_eq!(kinds[0], "/dev/null", "{line}");
        assert!(kinds[3].starts_with("socket:["), "{line}");
    }
    cluster.stop();
}

/// A program that the application starts from a worker gets the three standard descriptors, and no more.
fn nothing_is_passed_on(bed: &Bed) {
    let cluster = bed.fault("descriptors").with_standard_descriptors_only().up();
    for nth in 1..=2 {
        let line = cluster.events().expect_nth(nth, "passed on: ", PATIENCE);
        // The fourth is the folder that the program reads to find out.
        let count = line.rsplit_once("passed on: ").expect("a list").1.split(' ').count();
        assert_eq!(count, 4, "{line}");
    }
    cluster.stop();
}

fn workers_hold_only_what_they_need(bed: &Bed) {
    let launch = bed.launch().workers(3).env("STICKY_MAX_WORKERS", "4");
    let cluster = launch.with_standard_descriptors_only().up();
    cluster.pids(3);
    for pid in cluster.workers() {
        let mut held = Vec::new();
        let holds_no_more = process::holds_within(PATIENCE, || {
            held = process::descriptors(pid);
            holds_what_it_needs(bed, &held)
        });
        assert!(holds_no_more, "{held:?}");
    }
    cluster.stop();
}

/// The control socket, the slot's one listener, the runtime's pair for signals and its event descriptors, and a spare
/// one for each listener that may be lent; nothing of other slots, and no scoreboard, which is mapped and not held. Under
/// handoff also an end to receive from, and one to send to each slot, of which one is not in use.
fn holds_what_it_needs(bed: &Bed, held: &[(u32, PathBuf)]) -> bool {
    let most = match bed.dispatch() {
        Dispatch::Kernel => 4,
        Dispatch::Handoff => 4 + 1 + 4,
        // The proxy's slot is one more, and what it has forwarded may have left a connection.
        Dispatch::Proxy => 4 + 1 + 5 + 1,
    };
    let more = held.iter().filter(|(number, _)| *number > 2).map(|(_, what)| what.to_string_lossy());
    let (sockets, others): (BTreeSet<_>, BTreeSet<_>) = more.partition(|what| what.starts_with("socket:"));
    let known = ["anon_inode:[eventpoll]", "anon_inode:[eventfd]", "/dev/null"];
    (2..=most).contains(&sockets.len()) && others.iter().all(|what| known.contains(&what.as_ref()))
}

fn closed_connections_leave_no_descriptor(bed: &Bed) {
    let cluster = bed.launch().workers(1).up();
    let pid = cluster.client().get("/").expect("an answer").pid();
    let count = || process::descriptors(pid).len();
    let before = count();
    for _ in 0..50 {
        cluster.client().get("/").expect("an answer");
        drop(cluster.client().connect().expect("a connection"));
        drop(crate::drain::websocket(&cluster));
    }
    process::eventually("as many descriptors as before", PATIENCE, || count() <= before);
    cluster.stop();
}

/// An acceptor out of descriptors must neither spin nor drop anybody.
fn too_few_descriptors_make_clients_wait(bed: &Bed) {
    let cluster = bed.launch().workers(1).env("STICKY_MAX_WORKERS", "1").with_descriptors(40).up();
    let client = cluster.client();
    let pid = client.get("/").expect("an answer").pid();
    let mut all: Vec<_> = (0..80).map(|_| client.connect().expect("a connection")).collect();
    cluster.events().expect("cannot accept", PATIENCE);
    let before = process::cpu_ticks(pid);
    // A whole second, to see what an acceptor that cannot accept costs.
    process::let_pass(Duration::from_secs(1));
    let used = process::cpu_ticks(pid) - before;
    assert!(used < 10, "{used} of 100 ticks in a second");
    // As the first ones leave, the others are served, each in its turn.
    while !all.is_empty() {
        let mut first = all.remove(0);
        assert_eq!(first.get("/").expect("an answer").status, 200);
    }
    assert_eq!(client.get("/").expect("an answer").pid(), pid);
    cluster.stop();
}
