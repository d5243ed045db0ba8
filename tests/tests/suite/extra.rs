//! Listeners of the application's own, beside the public port: there from the start to the end, whatever becomes of workers.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::testbed::extra::VARIABLE;
use sticky_tests::{Client, Connection, Launch, TestCluster};

use crate::bed::{Bed, Row};
use crate::reload_load::SetOnDrop;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("extra_listeners_outlive_a_reload", extra_listeners_outlive_a_reload),
        Row::new("extra_listeners_outlive_a_crash", extra_listeners_outlive_a_crash),
        Row::new("requests_beside_outlive_a_reload", requests_beside_outlive_a_reload),
        Row::new("extra_listeners_wait_for_workers", extra_listeners_wait_for_workers),
        Row::new("extra_listeners_have_added_workers", extra_listeners_have_added_workers),
        Row::new("extra_listeners_on_a_path", extra_listeners_on_a_path),
        Row::new("extra_listeners_without_workers", extra_listeners_without_workers),
        Row::new("extra_listeners_that_are_not_there", extra_listeners_that_are_not_there),
    ]
}

/// With a listener beside the public one, on which each worker serves.
fn with_extra(launch: Launch, address: &str) -> Launch {
    launch.env("STICKY_EXTRA_LISTENER", format!("beside={address},unused=127.0.0.1:0")).env(VARIABLE, "beside")
}

/// Where that is.
fn beside(cluster: &TestCluster) -> Client {
    let line = cluster.events().expect("extra listener beside is at ", PATIENCE);
    let (_, address) = line.split_once(" is at ").expect("an address");
    let address = address.split([':', ' ']).take(2).collect::<Vec<_>>().join(":");
    Client::new(address.parse::<SocketAddr>().expect("an address"))
}

/// The slot and the pid that an answer names.
fn who(text: &str) -> (u16, u32) {
    let (slot, pid) = text.strip_prefix("extra: ").and_then(|rest| rest.split_once(' ')).expect(text);
    (slot.parse().expect("a slot"), pid.parse().expect("a pid"))
}

/// What became of requests that were sent one after the other.
#[derive(Default)]
struct Tally {
    answered: usize,
    lost: usize,
    pids: BTreeSet<u32>,
}

/// Asks on and on, each time on a new connection, until told to stop.
fn ask_on(client: &Client, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while (!stop.load(Ordering::Relaxed) || tally.answered < 100) && tally.lost < 100 {
        let mut connection = client.connect().expect("nobody is ever refused");
        match connection.request_last("GET", "/", b"") {
            Ok(answer) => {
                tally.pids.insert(who(&answer.text()).1);
                tally.answered += 1;
            }
            // The worker that had it was killed.
            Err(_) => tally.lost += 1,
        }
    }
    tally
}

/// What becomes of requests beside the public port while something happens to the cluster.
fn meanwhile(cluster: &TestCluster, something: impl FnOnce()) -> Tally {
    let (client, stop) = (beside(cluster), AtomicBool::new(false));
    thread::scope(|scope| {
        let load = scope.spawn(|| ask_on(&client, &stop));
        let stopping = SetOnDrop(&stop);
        something();
        drop(stopping);
        load.join().expect("no refusal")
    })
}

fn extra_listeners_outlive_a_reload(bed: &Bed) {
    let cluster = with_extra(bed.launch(), "127.0.0.1:0").up();
    let before = cluster.pids(2);
    let tally = meanwhile(&cluster, || {
        cluster.reload();
        eventually("the former workers are gone", PATIENCE, || cluster.workers().len() == 2);
    });
    assert_eq!(tally.lost, 0, "{} answered", tally.answered);
    assert!(tally.pids.iter().any(|pid| !before.values().any(|old| old == pid)), "{before:?}, {:?}", tally.pids);
    cluster.stop();
}

fn extra_listeners_outlive_a_crash(bed: &Bed) {
    let cluster = with_extra(bed.launch(), "127.0.0.1:0").up();
    let before = cluster.pids(2);
    let tally = meanwhile(&cluster, || {
        process::signal(before[&0], Signal::KILL);
        eventually("it has another worker", PATIENCE, || cluster.pids(2)[&0] != before[&0]);
    });
    // What it had accepted, or did accept on one thread while another died.
    assert!(tally.lost <= 2, "{} answered, {} lost", tally.answered, tally.lost);
    cluster.stop();
}

fn requests_beside_outlive_a_reload(bed: &Bed) {
    let cluster = with_extra(bed.launch(), "127.0.0.1:0").up();
    let mut busy = beside(&cluster).connect().expect("a connection");
    executing_beside(&cluster, &mut busy);
    cluster.reload();
    assert_eq!(busy.response().expect("a whole answer").text(), "slept beside");
    eventually("the former workers are gone", PATIENCE, || cluster.workers().len() == 2);
    cluster.stop();
}

fn executing_beside<S: io::Read + io::Write>(cluster: &TestCluster, connection: &mut Connection<S>) {
    connection.send("GET /sleep HTTP/1.1\r\nhost: test\r\n\r\n").expect("sent");
    cluster.events().expect("extra: executing", PATIENCE);
}

/// Nobody is refused while there is no worker at all.
fn extra_listeners_wait_for_workers(bed: &Bed) {
    let cluster = with_extra(bed.launch(), "127.0.0.1:0").up();
    let client = beside(&cluster);
    let before = cluster.workers();
    before.iter().for_each(|&pid| process::signal(pid, Signal::KILL));
    for _ in 0..20 {
        // What one of them has accepted goes with it.
        let _ = client.connect().expect("nobody is refused").request_last("GET", "/", b"");
    }
    let answer = client.get("/").expect("an answer");
    assert!(!before.contains(&who(&answer.text()).1), "{answer:?}");
    cluster.stop();
}

fn extra_listeners_have_added_workers(bed: &Bed) {
    let cluster = with_extra(bed.launch().workers(1), "127.0.0.1:0").up();
    let client = beside(&cluster);
    assert_eq!(who(&client.get("/").expect("an answer").text()).0, 0);
    cluster.scale(Signal::TTIN, 1, 2);
    let first = cluster.pids(2)[&0];
    // With its neighbour stopped the new one is all there is.
    process::stop(first);
    let lone = eventually_answered(&client, 1);
    process::signal(first, Signal::CONT);
    assert!(lone);
    cluster.stop();
}

/// Whether a connection of this slot's worker is among some: what a stopped one has accepted does not answer.
fn eventually_answered(client: &Client, slot: u16) -> bool {
    let client = client.clone().timeout(std::time::Duration::from_millis(500));
    let ask = || client.get("/").is_ok_and(|answer| who(&answer.text()).0 == slot);
    process::holds_within(PATIENCE, ask)
}

fn extra_listeners_on_a_path(bed: &Bed) {
    let launch = bed.launch();
    let path = launch.folder().join("beside.sock");
    let cluster = with_extra(launch, &format!("unix:{}", path.display())).up();
    let get = |path| Connection::over(UnixStream::connect(path)?).request_last("GET", "/", b"");
    assert!(cluster.workers().contains(&who(&get(&path).expect("an answer").text()).1));
    let mut busy = Connection::over(UnixStream::connect(&path).expect("a connection"));
    executing_beside(&cluster, &mut busy);
    cluster.reload();
    // On the axum bed axum's own server serves here, and says with a `Stay` that there is something to finish.
    assert_eq!(busy.response().expect("a whole answer").text(), "slept beside");
    eventually("the former workers are gone", PATIENCE, || cluster.workers().len() == 2);
    assert!(cluster.workers().contains(&who(&get(&path).expect("an answer").text()).1));
    cluster.stop();
    assert!(!path.exists(), "the socket file is removed");
}

fn extra_listeners_without_workers(bed: &Bed) {
    let cluster = with_extra(bed.launch().workers(0), "127.0.0.1:0").up();
    let client = beside(&cluster);
    assert_eq!(who(&client.get("/").expect("an answer").text()), (0, cluster.supervisor()));
    cluster.stop();
    assert_eq!(client.connect().map(drop).expect_err("nobody").kind(), io::ErrorKind::ConnectionRefused);
}

fn extra_listeners_that_are_not_there(bed: &Bed) {
    let cluster = with_extra(bed.launch(), "127.0.0.1:0").env(VARIABLE, "besides").start();
    assert!(!cluster.exit(PATIENCE).success());
    cluster.gone(PATIENCE);
    let words = "there is no extra listener \"besides\": there are \"beside\", and \"unused\"";
    cluster.events().expect(words, PATIENCE);

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let cluster = with_extra(bed.launch(), &address).start();
    assert!(!cluster.exit(PATIENCE).success());
    let words = format!("cannot listen on {address}: another program is already listening on port");
    cluster.events().expect(&words, PATIENCE);
}
