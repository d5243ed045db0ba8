//! Settings and the environment as whole processes see them; each setting's rules are unit tests of the library.

use std::fs;
use std::time::Duration;

use sticky_tests::cluster::PATIENCE;

use crate::bed::{Bed, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("environment_reaches_workers", environment_reaches_workers),
        Row::new("workers_get_what_a_worker_needs", workers_get_what_a_worker_needs),
        Row::new("all_mistakes_are_told_at_once", all_mistakes_are_told_at_once),
        Row::new("code_counts_more_than_environment", code_counts_more_than_environment),
        Row::new("first_port_is_a_number", first_port_is_a_number),
    ]
}

fn environment_reaches_workers(bed: &Bed) {
    let cluster = bed.fault("environment").env("TESTBED_INHERITED", "from outside").up();
    let lines = cluster.events();
    lines.expect_nth(2, "inherited: from outside", PATIENCE);
    lines.expect_nth(2, "chosen: by the builder", PATIENCE);
    lines.expect("worker id: 0", PATIENCE);
    lines.expect("worker id: 1", PATIENCE);
    cluster.stop();
}

fn workers_get_what_a_worker_needs(bed: &Bed) {
    let cluster = bed.launch().up();
    let of_pid = |pid: u32, file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let text = |pid, file| String::from_utf8_lossy(&of_pid(pid, file)).trim().replace('\0', " ");
    let supervisor = cluster.supervisor();
    let score = |pid| text(pid, "oom_score_adj").parse::<i32>().expect("a number");
    for pid in cluster.workers() {
        assert_eq!(score(pid), (score(supervisor) + 100).min(1000));
        assert!(text(pid, "environ").contains("TOKIO_WORKER_THREADS=1"));
        assert_eq!(sticky_tests::process::group(pid), Some(pid), "a process group of its own");
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/0")).expect("stdin").to_str(), Some("/dev/null"));
        assert_eq!(text(pid, "cmdline"), text(supervisor, "cmdline"), "ps shows the same program");
        assert_eq!(text(pid, "comm"), text(supervisor, "comm"));
    }
    let limits = text(supervisor, "limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("the limit");
    let limits: Vec<&str> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(limits[0], limits[1], "the soft limit is raised to the hard one");
    cluster.stop();
}

fn all_mistakes_are_told_at_once(bed: &Bed) {
    let launch =
        bed.launch().env("STICKY_WORKERS", "many").env("STICKY_SHUTDOWN_TIMEOUT", "30").env("STICKY_WORKRES", "2");
    let cluster = launch.start();
    assert!(!cluster.exit(Duration::from_secs(10)).success());
    for words in ["STICKY_WORKERS", "many", "STICKY_SHUTDOWN_TIMEOUT", "STICKY_WORKRES"] {
        cluster.events().expect(words, Duration::from_secs(1));
    }
    cluster.gone(Duration::from_secs(1));
}

fn code_counts_more_than_environment(bed: &Bed) {
    let cluster = bed.fault("three-workers").workers(1).up();
    assert_eq!(cluster.workers().len(), 3);
    let cluster = bed.fault("three-workers-unless-said").workers(1).up();
    assert_eq!(cluster.workers().len(), 1, "prefer_env turns it round");
    let cluster = bed.fault("three-workers").workers(0).up();
    assert_eq!(cluster.workers().len(), 0, "STICKY_WORKERS=0 always wins");
}

/// sticky-socket-cluster took FIRST_PORT as text: worker 1 of 8100 listened on 81001.
fn first_port_is_a_number(bed: &Bed) {
    let cluster = bed.launch().env("FIRST_PORT", "8100x").start();
    assert!(!cluster.exit(Duration::from_secs(10)).success());
    cluster.events().expect("8100x", Duration::from_secs(1));
    bed.launch().env("FIRST_PORT", "8100").up().stop();
}
