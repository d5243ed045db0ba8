//! Ends that nobody asked for politely: the supervisor killed, Ctrl-C, a hundred rounds.

use std::fs;
use std::time::Duration;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::{TestCluster, pty};

use crate::bed::{Bed, Dispatch, Row};

/// As many are not needed twice.
const fn rounds_for(dispatch: Dispatch) -> u32 {
    match dispatch {
        Dispatch::Kernel => 100,
        Dispatch::Handoff | Dispatch::Proxy => 30,
    }
}

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("killed_supervisor_leaves_nobody", killed_supervisor_leaves_nobody),
        Row::new("killed_supervisor_leaves_no_hung_worker", killed_supervisor_leaves_no_hung_worker),
        Row::new("ctrl_c_drains_once", ctrl_c_drains_once),
        Row::new("hundred_rounds_leave_nothing", hundred_rounds_leave_nothing),
    ]
}

fn killed_supervisor_leaves_nobody(bed: &Bed) {
    let cluster = bed.launch().listen("127.0.77.1:0").up();
    let mut busy = crate::drain::executing(&cluster.client(), "/sleep/300");
    kill_supervisor_and_start_again(bed, &cluster);
    assert_eq!(busy.response().expect("an answer: what is executing has a second").text(), "slept");
}

fn killed_supervisor_leaves_no_hung_worker(bed: &Bed) {
    let cluster = bed.launch().listen("127.0.77.2:0").up();
    let mut hung = cluster.client().connect().expect("a connection");
    assert_eq!(hung.get("/").expect("an answer").status, 200);
    hung.send("POST /hang HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n").expect("sent");
    // The worker hangs once it takes no other request; the answer would otherwise come within milliseconds.
    eventually("the worker hangs", PATIENCE, || cluster.client().timeout(Duration::from_millis(300)).get("/").is_err());
    kill_supervisor_and_start_again(bed, &cluster);
}

fn kill_supervisor_and_start_again(bed: &Bed, cluster: &TestCluster) {
    let family = cluster.family();
    assert_eq!(family.len(), 1 + bed.children(2), "a supervisor and two workers");
    cluster.signal(Signal::KILL);
    cluster.gone(Duration::from_secs(2));
    // A process that is ending has lost its environment, by which the family is found, before it is dead.
    eventually("all of them are dead", Duration::from_secs(2), || !family.iter().any(|&pid| process::is_alive(pid)));
    let again = bed.launch().listen(cluster.address().to_string()).start();
    again.events().expect("listening on ", Duration::from_secs(2));
    assert_eq!(again.client().get("/").expect("an answer").generation(), 0);
    again.stop();
}

fn ctrl_c_drains_once(bed: &Bed) {
    let (cluster, terminal) = bed.launch().on_terminal();
    cluster.wait_until_up();
    let groups = cluster.workers().into_iter().map(|pid| (pid, process::group(pid)));
    assert!(groups.clone().all(|(pid, group)| group == Some(pid)), "each worker in a group of its own");
    let mut busy = crate::drain::executing(&cluster.client(), "/sleep/700");
    pty::type_keys(&terminal, "\x03").expect("Ctrl-C");
    assert_eq!(busy.response().expect("a whole answer").text(), "slept");
    let status = cluster.exit(PATIENCE);
    assert!(status.success(), "{status}\n{}", cluster.events());
    cluster.gone(Duration::from_secs(2));
    for word in ["panic", "killed", "signal 2"] {
        assert_eq!(cluster.events().count(word), 0, "{word}:\n{}", cluster.events());
    }
}

fn hundred_rounds_leave_nothing(bed: &Bed) {
    let before = leftovers();
    for round in 0..rounds_for(bed.dispatch()) {
        let launch = bed.launch().listen("127.0.77.3:0");
        let path = launch.folder().join("app.sock");
        let listen = format!("127.0.77.3:0,unix:{}", path.display());
        // Every other round has a unix path too, which is served from one shared listener.
        let cluster = if round % 2 == 0 { launch.up() } else { bed.on_paths(launch.listen(listen)).up() };
        assert_eq!(cluster.client().get("/").expect("an answer").status, 200);
        let family = cluster.family();
        cluster.stop();
        assert!(!path.exists(), "round {round} left its socket file");
        assert!(family.iter().all(|&pid| !process::is_alive(pid)), "round {round} left a process");
        assert!(!is_listening(cluster.address().port()), "round {round} left its port");
    }
    let after = leftovers();
    assert_eq!(after, before, "files or segments of shared memory");
}

/// Names that a cluster could leave behind outside its own folder.
fn leftovers() -> Vec<String> {
    let names = |folder| {
        fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok())
    };
    let in_shared_memory = names("/dev/shm").filter(|name| name.contains("sticky"));
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    in_shared_memory.chain(segments.lines().map(str::to_owned)).collect()
}

/// Whether anything listens on that port of 127.0.77.3 still, in any process.
fn is_listening(port: u16) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let local = format!("{:08X}:{port:04X}", u32::from_ne_bytes([127, 0, 77, 3]));
    table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1).zip(line.split_whitespace().nth(3)))
        .any(|entry| entry == (local.as_str(), "0A"))
}
