//! Workers that have served long enough: another takes their place, one at a time, and no client notices.

use std::fs;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, eventually};
use sticky_tests::{Client, TestCluster};

use crate::bed::{Bed, Row};
use crate::reload_load::under_load;

/// How many workers are replaced in a row under load.
const REPLACED: usize = 5;

/// What workers may use where they leak.
const LIMIT: u64 = 128 << 20;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("recycling_by_requests_loses_nothing", recycling_by_requests_loses_nothing).alone(),
        Row::new("recycling_by_age_loses_nothing", recycling_by_age_loses_nothing).alone(),
        Row::new("leaking_workers_are_recycled_below_their_limit", leaking_workers_are_recycled_below_their_limit),
        Row::new("workers_that_cannot_be_recycled_go_on", workers_that_cannot_be_recycled_go_on),
        Row::new("recycled_workers_run_the_same_program", recycled_workers_run_the_same_program),
    ]
}

/// Replaces workers under load by that setting, and checks that it is one after the other.
fn recycled_under_load(bed: &Bed, setting: &str, value: &str, words: &str) {
    let cluster = bed.launch().env(setting, value).up();
    under_load(bed, &cluster, |clients_go_on| {
        for number in 1..=REPLACED {
            cluster.events().expect_nth(number, "sticky: replaced worker ", PATIENCE);
            clients_go_on();
        }
    });
    cluster.stop();
    let lines = cluster.events().all();
    let (begun, done) = (format!("{words}): replacing it"), "sticky: replaced worker ");
    let steps = lines.iter().filter(|line| line.contains(&begun) || line.contains(done));
    // The last one may not have come to its end.
    for (number, line) in steps.enumerate() {
        assert_eq!(line.contains(done), number % 2 == 1, "two at a time:\n{}", cluster.events());
    }
    for slot in 0..2 {
        assert!(cluster.events().count(&format!("{done}{slot}")) > 0, "{}", cluster.events());
    }
}

fn recycling_by_requests_loses_nothing(bed: &Bed) {
    recycled_under_load(bed, "STICKY_MAX_REQUESTS", "100", "(max_requests, STICKY_MAX_REQUESTS");
}

fn recycling_by_age_loses_nothing(bed: &Bed) {
    recycled_under_load(bed, "STICKY_MAX_AGE", "2s", "(max_age, STICKY_MAX_AGE");
}

/// What a process has in the machine's memory.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// As much as they leak, there is always a new one in time.
fn leaking_workers_are_recycled_below_their_limit(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_MAX_RSS", "128MiB").up();
    let client = cluster.client();
    let mut leaked = 0;
    for generation in 0..3 {
        let who = client.get("/").expect("an answer");
        assert_eq!(who.generation(), generation);
        // A worker's own limit is 90 % of the whole at most.
        while resident(who.pid()) < LIMIT / 10 * 9 {
            let answer = client.post("/leak/4", b"").expect("an answer");
            assert_eq!((answer.status, answer.worker()), (200, who.worker()));
            leaked += 4 << 20;
            let used = cluster.workers().into_iter().map(resident).max().unwrap_or(0);
            assert!(used < LIMIT, "{used}");
            if answer.generation() > generation {
                break;
            }
        }
        eventually("there is a new one", PATIENCE, || {
            client.get("/").expect("an answer").generation() == generation + 1
        });
    }
    assert!(leaked > LIMIT, "{leaked}");
    assert!(cluster.events().count("MiB (max_rss, STICKY_MAX_RSS): replacing it") >= 3, "{}", cluster.events());
    cluster.stop();
}

/// The pid that this slot answers with.
fn pid_of(cluster: &TestCluster, slot: u16) -> u32 {
    let mut answers =
        Client::loopback_addresses(200).map(|from| cluster.client().from(from).get("/").expect("an answer"));
    answers.find(|answer| answer.worker() == slot).expect("an answer of this slot").pid()
}

fn workers_that_cannot_be_recycled_go_on(bed: &Bed) {
    let launch = bed.launch();
    let file = launch.folder().join("crashes");
    fs::write(&file, "").expect("a file");
    let launch = launch.env("TESTBED_CRASH_LOOP", "0").env("TESTBED_CRASH_FILE", &file);
    let cluster = launch.env("STICKY_MAX_AGE", "1s").up();
    let old = pid_of(&cluster, 0);
    // Worker 1 is replaced while it is tried again and again with worker 0.
    cluster.events().expect("sticky: replaced worker 1", PATIENCE);
    let failure = "worker 0 could not be replaced: the new worker 0 exited with status 3 before it was ready";
    let report = cluster.events().expect_nth(3, failure, PATIENCE);
    assert!(report.contains("it goes on, and is tried again in "), "{report}");
    assert_eq!(pid_of(&cluster, 0), old);
    fs::remove_file(&file).expect("removed");
    cluster.events().expect("sticky: replaced worker 0", PATIENCE);
    // Behind a proxy a connection that was idle at the old one gets to the new one in a moment.
    eventually("the new one answers", PATIENCE, || pid_of(&cluster, 0) != old);
    cluster.stop();
}

/// A deploy takes effect when it is asked for, not when a worker happens to be replaced.
fn recycled_workers_run_the_same_program(bed: &Bed) {
    let cluster = bed.deployed().env("TESTBED_FAULT", "exit-before-sticky").env("STICKY_MAX_AGE", "1s").up();
    cluster.deploy(env!("CARGO_BIN_EXE_testbed-fault"));
    let before = cluster.events().count("sticky: replaced worker ");
    cluster.events().expect_nth(before + 4, "sticky: replaced worker ", PATIENCE);
    assert_eq!(cluster.events().count("could not be replaced"), 0, "{}", cluster.events());
    assert!(cluster.workers().iter().all(|pid| process::is_alive(*pid)));
    cluster.stop();
}
