//! The supervisor replaces itself: nobody's client notices, and a program that could not take over changes nothing.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use sticky_core::admin::{Command, Progress};
use sticky_tests::TestCluster;
use sticky_tests::admin::Admin;
use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::testbed::leadership;

use crate::admin::have_not_fallen;
use crate::bed::{Bed, Dispatch, Framework, Row};
use crate::drain::executing;
use crate::reload::idle_connections;
use crate::reload_load::under_load_unnoticed;

/// How many reexecs there are whose signals come in a millisecond later each time: the moment at which they are kept for the next
/// program is short.
const ROUNDS: u64 = 40;

pub(crate) fn rows() -> Vec<Row> {
    let once = |row: Row| row.only(Dispatch::Handoff).only_with(Framework::Core);
    vec![
        Row::new("reexecs_under_load_are_noticed_by_nobody", reexecs_under_load_are_noticed_by_nobody).alone(),
        Row::new("reexec_keeps_all_there_is", reexec_keeps_all_there_is),
        Row::new("workers_end_with_a_reexecuted_supervisor", workers_end_with_a_reexecuted_supervisor),
        Row::new("reexec_takes_the_program_at_the_path", reexec_takes_the_program_at_the_path),
        Row::new("reexec_of_a_broken_program_changes_nothing", reexec_of_a_broken_program_changes_nothing),
        once(Row::new("reexec_waits_for_a_reload", reexec_waits_for_a_reload)),
        once(Row::new("shutdown_wins_over_a_reexec", shutdown_wins_over_a_reexec)),
        once(Row::new("signals_during_reexecs_are_heard", signals_during_reexecs_are_heard)),
        Row::new("reexecs_signal_no_worker", reexecs_signal_no_worker).only(Dispatch::Handoff),
        once(Row::new("process_one_reexecutes_itself", process_one_reexecutes_itself)),
        once(Row::new("reexecs_leave_nothing_behind", reexecs_leave_nothing_behind)),
        once(Row::new(
            "reexec_keeps_the_leader_and_slots_that_were_added",
            reexec_keeps_the_leader_and_slots_that_were_added,
        )),
    ]
}

fn reexecs_under_load_are_noticed_by_nobody(bed: &Bed) {
    let cluster = bed.launch().up();
    let (supervisor, before) = (cluster.supervisor(), cluster.pids(2));
    under_load_unnoticed(&cluster, |clients_go_on| {
        for _ in 0..2 {
            clients_go_on();
            cluster.reexec();
            clients_go_on();
        }
    });
    assert_eq!((cluster.supervisor(), cluster.pids(2)), (supervisor, before));
    cluster.stop();
}

/// What is asked of the next program, the one before has left to it: who reads, who is dead, what was counted, whose lines.
fn reexec_keeps_all_there_is(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_PREFIX_OUTPUT", "on").with_admin().up();
    let admin = Admin::of(&cluster);
    let workers = cluster.pids(2);
    let uptime = admin.status().uptime_seconds;
    let (metrics, attendant) = (admin.metrics(), cluster.admin());
    cluster.reexec();
    let mut events = admin.events();
    let said = admin.command(Command::Reexec);
    events.expect("reexecuted");
    assert!(matches!(&said[..], [Progress::Begun, Progress::Done { .. }]), "{said:?}");
    let status = admin.status();
    assert_eq!((status.reexecs, status.pid), (2, cluster.supervisor()));
    assert!(status.uptime_seconds >= uptime && cluster.admin() == attendant);
    assert_eq!(cluster.pids(2), workers);
    have_not_fallen(&metrics, &admin.metrics());
    // A death is noticed, and what was said last, whatever the one before has started.
    let victim = (1..).map(|number| cluster.client().from(Ipv4Addr::new(127, 0, 1, number)));
    let victim = victim.into_iter().find(|client| client.get("/").expect("an answer").worker() == 1);
    bed.expect_lost(victim.expect("a client of worker 1").post("/crash", b""));
    cluster.events().expect("[1] crash: as asked", PATIENCE);
    cluster.events().expect("worker 1 exited with status 3; starting it again", PATIENCE);
    eventually("it is back", PATIENCE, || cluster.pids(2)[&1] != workers[&1]);
    eventually("it is counted", PATIENCE, || admin.worker(1).restarts == 1);
    have_not_fallen(&metrics, &admin.metrics());
    cluster.reload();
    assert!(cluster.pids(2).values().all(|pid| !workers.values().any(|before| before == pid)));
    // What is executing is finished, whoever has begun to.
    let mut busy = executing(&cluster.client(), "/sleep/700");
    cluster.reexec();
    cluster.stop();
    assert_eq!(busy.response().expect("a whole answer").text(), "slept");
    assert!(admin.try_status().is_err() && !admin.path().exists());
}

fn workers_end_with_a_reexecuted_supervisor(bed: &Bed) {
    let cluster = bed.launch().up();
    cluster.reexec();
    // One worker of the first program, one of the second.
    let before = cluster.pids(2);
    process::signal(before[&0], Signal::KILL);
    eventually("it is back", PATIENCE, || cluster.pids(2)[&0] != before[&0]);
    let workers = cluster.pids(2);
    cluster.reexec();
    assert_eq!(cluster.pids(2), workers);
    cluster.signal(Signal::KILL);
    let _ = cluster.exit(PATIENCE);
    cluster.gone(PATIENCE);
}

fn inode_of(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/exe")).expect("its program").ino()
}

/// The supervisor is another program then, the workers are what they were; a reload makes them the new one, too.
fn reexec_takes_the_program_at_the_path(bed: &Bed) {
    let cluster = bed.deployed().up();
    let first = inode_of(cluster.supervisor());
    cluster.deploy(bed.program());
    let there = fs::metadata(cluster.folder().join("program")).expect("a program").ino();
    assert_ne!(first, there);
    cluster.reexec();
    assert_eq!(inode_of(cluster.supervisor()), there);
    assert!(cluster.pids(2).values().all(|pid| inode_of(*pid) == first));
    // A crash brings back what ran in the slot.
    let victim = cluster.pids(2)[&0];
    process::signal(victim, Signal::KILL);
    eventually("the slot is back", PATIENCE, || cluster.pids(2)[&0] != victim);
    assert_eq!(inode_of(cluster.pids(2)[&0]), first);
    // And the path is known still.
    cluster.deploy(bed.program());
    let third = fs::metadata(cluster.folder().join("program")).expect("a program").ino();
    cluster.reload();
    assert!(cluster.pids(2).values().all(|pid| inode_of(*pid) == third));
    cluster.stop();
}

/// Asks for a reexec, which must be refused with these words; everybody is served by who served before.
fn is_refused(cluster: &TestCluster, words: &[&str]) {
    let (supervisor, program, workers) = (cluster.supervisor(), inode_of(cluster.supervisor()), cluster.pids(2));
    let mut idle = idle_connections(cluster, 10);
    let said = Admin::of(cluster).command(Command::Reexec);
    let [Progress::Begun, Progress::Failed { why }] = &said[..] else { panic!("{said:?}") };
    for word in words.iter().chain(&["reexec refused: ", "everything goes on as it was"]) {
        assert!(why.contains(word), "{word:?} is not in {why:?}");
    }
    cluster.events().expect(why, PATIENCE);
    for (worker, connection) in &mut idle {
        let answer = connection.get("/").expect("an answer");
        assert_eq!((answer.worker(), answer.generation(), answer.announces_close()), (*worker, 0, false));
    }
    assert_eq!((cluster.supervisor(), inode_of(supervisor), cluster.pids(2)), (supervisor, program, workers));
}

fn reexec_of_a_broken_program_changes_nothing(bed: &Bed) {
    let faults: [(&str, &[&str]); 4] = [
        ("trial-exits", &["the next supervisor exited with status 3 before it was ready"]),
        ("trial-hangs", &["the next supervisor was not ready within 5s"]),
        ("other-affinity", &["can't change affinity: restart"]),
        ("other-address", &["listen is \"127.0.0.1:1\" and was \"127.0.0.1:0\": a reexec can't change that: restart"]),
    ];
    for (fault, words) in faults {
        // As long as whatever does not hang may take on a busy machine.
        let boot_timeout = if fault == "trial-hangs" { "5s" } else { "60s" };
        let launch = bed.deployed().env("TESTBED_FAULT", fault).env("STICKY_BOOT_TIMEOUT", boot_timeout).with_admin();
        let cluster = launch.up();
        cluster.deploy(env!("CARGO_BIN_EXE_testbed-fault"));
        is_refused(&cluster, words);
        eventually("the next supervisor is gone", PATIENCE, || cluster.workers().len() == 2);
        if fault != "trial-hangs" {
            // The next deploy repairs it.
            cluster.deploy(bed.program());
            cluster.reexec();
        }
        cluster.stop();
    }
    let cluster = bed.deployed().with_admin().up();
    let program = cluster.folder().join("program");
    fs::set_permissions(&program, Permissions::from_mode(0o600)).expect("a mode");
    is_refused(&cluster, &["the next supervisor could not be started", "ermission denied"]);
    fs::remove_file(&program).expect("removed");
    is_refused(&cluster, &["the next supervisor could not be started", "program: No such file"]);
    cluster.stop();
}

fn reexec_waits_for_a_reload(bed: &Bed) {
    // More sockets than one message carries.
    let cluster = bed.launch().env("STICKY_RELOAD_SOAK", "300ms").env("STICKY_MAX_WORKERS", "256").up();
    cluster.signal(Signal::HUP);
    cluster.events().expect("sticky: reloading 2 workers", PATIENCE);
    cluster.signal(Signal::USR2);
    cluster.events().expect("a reexec waits until nothing else is under way", PATIENCE);
    cluster.events().expect("sticky: reexecuted", PATIENCE);
    let lines = cluster.events().all();
    let place = |text: &str| lines.iter().position(|line| line.contains(text));
    assert!(place("sticky: reloaded 2 workers") < place("sticky: reexecuted"), "{}", cluster.events());
    assert!(cluster.pids(2).len() == 2 && cluster.workers().len() == 2);
    cluster.stop();
}

/// While one waits, and while the next program is on trial.
fn shutdown_wins_over_a_reexec(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_RELOAD_SOAK", "20s").up();
    cluster.signal(Signal::HUP);
    cluster.events().expect("sticky: reloading 2 workers", PATIENCE);
    cluster.signal(Signal::USR2);
    cluster.events().expect("a reexec waits", PATIENCE);
    cluster.stop();
    assert_eq!(cluster.events().count("the reexec is given up"), 1);

    let cluster = bed.deployed().env("TESTBED_FAULT", "trial-hangs").up();
    cluster.deploy(env!("CARGO_BIN_EXE_testbed-fault"));
    let mut busy = executing(&cluster.client(), "/sleep/700");
    cluster.signal(Signal::USR2);
    eventually("it is on trial", PATIENCE, || cluster.workers().len() == 3);
    cluster.signal(Signal::TERM);
    assert_eq!(busy.response().expect("a whole answer").text(), "slept");
    assert!(cluster.exit(PATIENCE).success());
    cluster.gone(Duration::from_secs(2));
    assert_eq!(cluster.events().count("the reexec is given up"), 1);
}

/// Each at another moment of the reexec. None is lost, whoever hears it.
fn signals_during_reexecs_are_heard(bed: &Bed) {
    hears_all(&bed.launch().up());
    // Where it is not the program's first thread that has become the supervisor.
    hears_all(&bed.fault("called-from-a-thread").up());
}

fn hears_all(cluster: &TestCluster) {
    for round in 0..ROUNDS {
        let (reexecs, reloads) =
            (cluster.events().count("sticky: reexecuted"), cluster.events().count("sticky: reloaded "));
        cluster.signal(Signal::USR2);
        process::let_pass(Duration::from_millis(round));
        cluster.signal(Signal::HUP);
        cluster.events().expect_nth(reexecs + 1, "sticky: reexecuted", PATIENCE);
        cluster.events().expect_nth(reloads + 1, "sticky: reloaded ", PATIENCE);
    }
    cluster.signal(Signal::USR2);
    cluster.events().expect_nth(ROUNDS as usize + 1, "sticky: reexec: ", PATIENCE);
    cluster.stop();
}

/// The kernel may tell workers that the thread which has started them is gone: to an application that heeds the signal, that
/// would be its end.
fn reexecs_signal_no_worker(bed: &Bed) {
    let cluster = bed.fault("heeds-sigterm").with_admin().up();
    let admin = Admin::of(&cluster);
    let workers = || -> Vec<u32> { admin.status().slots.iter().map(|slot| slot.processes[0].pid).collect() };
    let before = workers();
    for _ in 0..3 {
        cluster.reexec();
        assert_eq!(cluster.client().get("/").expect("an answer").text(), "hello");
    }
    assert_eq!((workers(), cluster.events().count("exited with status 9")), (before.clone(), 0));
    process::signal(before[0], Signal::TERM);
    cluster.events().expect("worker 0 exited with status 9", PATIENCE);
    cluster.stop();
}

fn process_one_reexecutes_itself(bed: &Bed) {
    let cluster = bed.launch().as_process_one().up();
    let before = cluster.pids(2);
    cluster.reexec();
    cluster.reexec();
    assert_eq!(cluster.pids(2), before);
    cluster.signal(Signal::TERM);
    assert!(cluster.exit(PATIENCE).success());
}

fn reexecs_leave_nothing_behind(bed: &Bed) {
    let launch = bed.launch().env("STICKY_PREFIX_OUTPUT", "on").with_admin();
    // Where the kernel counts descriptors that are on their way.
    let cluster = launch.with_descriptors(100).unprivileged().up();
    let descriptors = || process::descriptors(cluster.supervisor()).len();
    cluster.reexec();
    let before = descriptors();
    for _ in 0..10 {
        cluster.reexec();
    }
    eventually("no process is left behind", PATIENCE, || cluster.family().len() == 2 + bed.children(2));
    eventually("no descriptor is left behind", PATIENCE, || descriptors() <= before);
    cluster.stop();
}

fn reexec_keeps_the_leader_and_slots_that_were_added(bed: &Bed) {
    let launch = bed.launch().env("STICKY_MAX_WORKERS", "4");
    let lock = launch.folder().join("leader");
    let cluster = launch.env(leadership::VARIABLE, lock).up();
    cluster.events().expect(leadership::LEADS, PATIENCE);
    cluster.scale(Signal::TTIN, 2, 4);
    cluster.scale(Signal::TTOU, 1, 3);
    eventually("what was taken out is gone", PATIENCE, || cluster.workers().len() == 3);
    let before = cluster.pids(3);
    cluster.reexec();
    assert_eq!(cluster.pids(3), before);
    cluster.scale(Signal::TTIN, 1, 4);
    cluster.scale(Signal::TTOU, 3, 1);
    cluster.reexec();
    assert_eq!(cluster.events().count(leadership::LEADS), 1, "{}", cluster.events());
    let leader = cluster.pids(1)[&0];
    process::signal(leader, Signal::KILL);
    cluster.events().expect_nth(2, leadership::LEADS, PATIENCE);
    assert_eq!(cluster.events().count(leadership::TWO_LEADERS), 0);
    cluster.stop();
}
