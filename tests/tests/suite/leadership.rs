//! The leadership: one worker has it, and never two.

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::testbed::leadership::{LEADS, TWO_LEADERS, VARIABLE};
use sticky_tests::{Launch, TestCluster};

use crate::bed::{Bed, Dispatch, Framework, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("leadership_is_one_worker_s_at_a_time", leadership_is_one_worker_s_at_a_time),
        Row::new("leadership_survives_anything", leadership_survives_anything)
            .only(Dispatch::Handoff)
            .only_with(Framework::Core),
        Row::new("alone_it_leads", alone_it_leads).only(Dispatch::Kernel),
        Row::new("who_is_stopped_goes_on_leading", who_is_stopped_goes_on_leading),
    ]
}

fn led(bed: &Bed) -> Launch {
    let launch = bed.launch();
    let lock = launch.folder().join("leader");
    launch.env(VARIABLE, lock)
}

/// The leader's pid, once there is one; the latest of them.
fn leader(cluster: &TestCluster) -> u32 {
    cluster.events().expect(LEADS, PATIENCE);
    let lines = cluster.events().all();
    let last = lines.iter().filter_map(|line| line.split(LEADS).nth(1)).next_back();
    last.expect("a leader").trim().parse().expect("its pid")
}

/// Waits for another leader than so many.
fn changes(cluster: &TestCluster, before: usize) {
    cluster.events().expect_nth(before + 1, LEADS, PATIENCE);
}

/// Reloads, kills leaders, and kills them in the middle of reloads, in turn.
fn change_often(cluster: &TestCluster, rounds: usize) {
    leader(cluster);
    for round in 0..rounds {
        let before = cluster.events().count(LEADS);
        match round % 3 {
            0 => cluster.reload(),
            1 => process::signal(leader(cluster), Signal::KILL),
            _ => {
                cluster.signal(Signal::HUP);
                process::signal(leader(cluster), Signal::KILL);
            }
        }
        changes(cluster, before);
    }
    assert_eq!(cluster.events().count(TWO_LEADERS), 0, "{}", cluster.events());
}

fn leadership_is_one_worker_s_at_a_time(bed: &Bed) {
    let cluster = led(bed).workers(3).up();
    change_often(&cluster, 6);
    let lines = cluster.events().count(LEADS);
    cluster.stop();
    assert_eq!(cluster.events().count(LEADS), lines, "nobody begins to lead at the end");
    assert_eq!(cluster.events().count(TWO_LEADERS), 0, "{}", cluster.events());
}

/// 200 kills and reloads.
fn leadership_survives_anything(bed: &Bed) {
    let cluster = led(bed).workers(3).up();
    change_often(&cluster, 150);
    println!("{} leaders", cluster.events().count(LEADS));
    cluster.stop();
}

fn alone_it_leads(bed: &Bed) {
    let cluster = led(bed).workers(0).up();
    assert_eq!(leader(&cluster), cluster.supervisor());
    cluster.stop();
}

/// It might go on in the middle of what only one may do.
fn who_is_stopped_goes_on_leading(bed: &Bed) {
    let cluster = led(bed).up();
    let stopped = leader(&cluster);
    process::signal(stopped, Signal::STOP);
    // Its slot has been given up by now.
    cluster.events().expect(" is not running: its clients go to the next one", PATIENCE);
    assert_eq!(cluster.events().count(LEADS), 1, "{}", cluster.events());
    process::signal(stopped, Signal::KILL);
    changes(&cluster, 1);
    assert_ne!(leader(&cluster), stopped);
    eventually("both are back", PATIENCE, || cluster.workers().len() == 2);
    cluster.stop();
}
