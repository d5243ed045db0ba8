//! What is done once, before the workers start.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::testbed::prepare::{FAIL, FAILURE, PREPARES, VARIABLE, WAIT};
use sticky_tests::{Launch, TestCluster};

use crate::bed::{Bed, Dispatch, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("preparation_runs_once_per_set", preparation_runs_once_per_set),
        Row::new("preparation_comes_first", preparation_comes_first),
        Row::new("preparation_that_fails_stops_the_start", preparation_that_fails_stops_the_start),
        Row::new("preparation_that_fails_stops_the_reload", preparation_that_fails_stops_the_reload),
        Row::new("preparation_of_another_affinity_does_nothing", preparation_of_another_affinity_does_nothing),
        Row::new("preparation_alone_runs_in_the_process", preparation_alone_runs_in_the_process).only(Dispatch::Kernel),
    ]
}

/// A launch with a preparation, and the file that says how that goes.
fn prepares(launch: Launch, how: &str) -> (Launch, PathBuf) {
    let file = launch.folder().join("prepare");
    fs::write(&file, how).expect("a file");
    (launch.env(VARIABLE, &file), file)
}

/// Who has prepared something so far.
fn preparers(cluster: &TestCluster) -> Vec<u32> {
    let pids = cluster.events().all();
    let pids = pids.iter().filter_map(|line| line.split(PREPARES).nth(1));
    pids.map(|pid| pid.trim().parse().expect("a pid")).collect()
}

fn preparation_runs_once_per_set(bed: &Bed) {
    let (launch, _) = prepares(bed.launch().workers(3), "");
    let cluster = launch.up();
    let workers = cluster.pids(3);
    let first = preparers(&cluster);
    let [preparer] = first[..] else { panic!("{first:?}") };
    assert!(preparer != cluster.supervisor() && workers.values().all(|pid| *pid != preparer));
    process::signal(workers[&1], Signal::KILL);
    eventually("the slot is back", PATIENCE, || cluster.pids(3)[&1] != workers[&1]);
    assert_eq!(preparers(&cluster), first, "a crash is no new set");
    for reload in 1..=2 {
        cluster.reload();
        assert_eq!(preparers(&cluster).len(), 1 + reload);
    }
    eventually("nothing is left of it", PATIENCE, || cluster.family().len() == 1 + bed.children(3));
    cluster.stop();
}

/// Before it is done no worker is started: neither the first nor a new one.
fn preparation_comes_first(bed: &Bed) {
    let (launch, file) = prepares(bed.launch(), WAIT);
    let cluster = launch.start();
    cluster.events().expect(PREPARES, PATIENCE);
    assert_eq!((cluster.family().len(), cluster.events().count("listening on ")), (2, 0), "it and the supervisor");
    fs::write(&file, "").expect("written");
    cluster.wait_until_up();
    let before = cluster.pids(2);
    fs::write(&file, WAIT).expect("written");
    cluster.signal(Signal::HUP);
    cluster.events().expect_nth(2, PREPARES, PATIENCE);
    assert_eq!(cluster.family().len(), 1 + bed.children(2) + 1);
    assert_eq!(cluster.pids(2), before, "who served serves");
    fs::write(&file, "").expect("written");
    cluster.events().expect("sticky: reloaded ", PATIENCE);
    assert_ne!(cluster.pids(2), before);
    cluster.stop();
}

/// Waits for the end of a cluster that cannot start.
fn ends(cluster: &TestCluster, words: &[&str]) {
    assert_eq!(cluster.exit(PATIENCE).code(), Some(1));
    cluster.gone(Duration::from_secs(2));
    for word in words {
        assert!(cluster.events().count(word) > 0, "{word:?} is not in\n{}", cluster.events());
    }
    assert_eq!(cluster.events().count("listening on "), 0, "{}", cluster.events());
}

fn preparation_that_fails_stops_the_start(bed: &Bed) {
    let (launch, _) = prepares(bed.launch(), FAIL);
    ends(&launch.start(), &["the preparation exited with status 1: ", FAILURE]);
    let (launch, _) = prepares(bed.launch().env("STICKY_PREPARE_TIMEOUT", "300ms"), WAIT);
    ends(&launch.start(), &["the preparation was not done within 300ms (prepare_timeout, STICKY_PREPARE_TIMEOUT)"]);
    // Nor does it hold up an end that is asked for.
    let (launch, _) = prepares(bed.launch(), WAIT);
    let cluster = launch.start();
    cluster.events().expect(PREPARES, PATIENCE);
    cluster.stop();
}

/// Reloads, which must stop with these words, and everybody is served by who served before.
fn stops(cluster: &TestCluster, nth: usize, words: &[&str]) {
    let before = cluster.pids(2);
    let mut idle = cluster.client().connect().expect("a connection");
    assert_eq!(idle.get("/").expect("an answer").status, 200);
    cluster.signal(Signal::HUP);
    let report = cluster.events().expect_nth(nth, "reload stopped: the preparation ", PATIENCE);
    for word in words.iter().chain(&["every worker goes on as it was"]) {
        assert!(report.contains(word), "{word:?} is not in {report:?}");
    }
    let answer = idle.get("/").expect("an answer");
    assert_eq!((answer.generation(), answer.announces_close()), (0, false));
    assert_eq!(cluster.pids(2), before);
}

fn preparation_that_fails_stops_the_reload(bed: &Bed) {
    let (launch, file) = prepares(bed.launch().env("STICKY_PREPARE_TIMEOUT", "1500ms"), "");
    let cluster = launch.up();
    fs::write(&file, FAIL).expect("written");
    stops(&cluster, 1, &["exited with status 1", FAILURE]);
    fs::write(&file, WAIT).expect("written");
    stops(&cluster, 2, &["was not done within 1.5s"]);
    fs::write(&file, "").expect("written");
    cluster.reload();
    eventually("the former workers are gone", PATIENCE, || cluster.workers().len() == 2);
    assert!(cluster.client().get("/").expect("an answer").generation() > 0);
    cluster.stop();
}

/// A program that cannot take over must not change what the old one needs.
fn preparation_of_another_affinity_does_nothing(bed: &Bed) {
    let (launch, _) = prepares(bed.deployed().env("TESTBED_FAULT", "other-affinity"), "");
    let cluster = launch.up();
    cluster.deploy(env!("CARGO_BIN_EXE_testbed-fault"));
    stops(&cluster, 1, &["exited with status 1", "a reload can't change affinity: restart"]);
    assert_eq!(preparers(&cluster).len(), 1);
    cluster.stop();
}

fn preparation_alone_runs_in_the_process(bed: &Bed) {
    let (launch, _) = prepares(bed.launch().workers(0), "");
    let cluster = launch.up();
    eventually("it has told", PATIENCE, || preparers(&cluster) == [cluster.supervisor()]);
    cluster.stop();
    let (launch, _) = prepares(bed.launch().workers(0), FAIL);
    ends(&launch.start(), &["the preparation failed: ", FAILURE]);
}
