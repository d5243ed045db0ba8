//! In a container: as process 1, with fewer CPUs than the machine has, from the example image.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity};
use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};

use crate::bed::{Bed, Dispatch, Framework, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("process_one_reaps_strangers", process_one_reaps_strangers),
        Row::new("process_one_obeys_term_and_int", process_one_obeys_term_and_int),
        Row::new("process_one_takes_all_with_it", process_one_takes_all_with_it),
        Row::new("process_one_ends_as_it_went", process_one_ends_as_it_went),
        Row::new("fewer_cpus_are_fewer_workers", fewer_cpus_are_fewer_workers),
        Row::new("a_quota_of_cpus_is_fewer_workers", a_quota_of_cpus_is_fewer_workers),
        Row::new("dockerfile", dockerfile).only(Dispatch::Kernel).only_with(Framework::Axum),
    ]
}

/// Orphans become children of process 1: it reaps them, and still learns how its own children ended.
fn process_one_reaps_strangers(bed: &Bed) {
    let cluster = bed.fault("orphans").as_process_one().up();
    cluster.events().expect_nth(2, "orphan left", PATIENCE);
    let supervisor = cluster.supervisor();
    assert_eq!(process::status(supervisor, "NSpid").expect("its pids").split_whitespace().last(), Some("1"));
    // Each new worker leaves more of them behind, which end at about the time at which the next one is killed. They are among
    // the children of process 1, too, and have its workers' environment.
    let is_worker = |pid: &u32| process::status(*pid, "Name").is_some_and(|name| name == "testbed-fault");
    for nth in 1..=3 {
        let worker = cluster.workers().into_iter().find(is_worker).expect("a worker");
        process::signal(worker, Signal::KILL);
        cluster.events().expect_nth(nth, "signal 9", PATIENCE);
        cluster.events().expect_nth(2 + nth, "orphan left", PATIENCE);
    }
    let is_zombie = |&pid: &u32| process::state_and_parent(pid).is_some_and(|(state, _)| state == 'Z');
    eventually("only the two workers are left", PATIENCE, || {
        let children = process::children(supervisor);
        children.len() == bed.children(2) && !children.iter().any(is_zombie)
    });
    cluster.stop();
}

/// Nothing is done by default to process 1 by a signal that it has no handler for.
fn process_one_obeys_term_and_int(bed: &Bed) {
    for signal in [Signal::TERM, Signal::INT] {
        let cluster = bed.launch().as_process_one().up();
        let mut busy = crate::drain::executing(&cluster.client(), "/sleep/500");
        cluster.signal(signal);
        assert_eq!(busy.response().expect("a whole answer").text(), "slept");
        assert_eq!(cluster.exit(PATIENCE).code(), Some(0));
        cluster.gone(Duration::from_secs(2));
    }
}

fn process_one_takes_all_with_it(bed: &Bed) {
    let cluster = bed.launch().as_process_one().up();
    assert_eq!(cluster.workers().len(), 2);
    cluster.signal(Signal::KILL);
    assert!(!cluster.exit(PATIENCE).success());
    cluster.gone(PATIENCE);
}

fn process_one_ends_as_it_went(bed: &Bed) {
    let cluster = bed.fault("error-from-factory").as_process_one().start();
    assert_eq!(cluster.exit(PATIENCE).code(), Some(1));
    cluster.events().expect("the factory found no database", PATIENCE);
    cluster.gone(PATIENCE);
}

// === CPUs ===

fn fewer_cpus_are_fewer_workers(bed: &Bed) {
    let all = sched_getaffinity(None).expect("a mask");
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| all.is_set(cpu)).expect("a CPU");
    let cluster = bed.launch().without("STICKY_WORKERS").on_cpu(first).up();
    cluster.events().expect("(1 worker", PATIENCE);
    assert_eq!(cluster.workers().len(), 1);
    cluster.stop();
}

/// A cgroup with the time of one CPU, removed at its end.
struct Quota(PathBuf);

impl Quota {
    /// `None` where this user may make none: version 2 of cgroups, and version 1.
    fn of_one_cpu(name: &str) -> Option<Self> {
        let kinds: [(&str, &[(&str, &str)]); 2] = [
            ("/sys/fs/cgroup", &[("cpu.max", "100000 100000")]),
            ("/sys/fs/cgroup/cpu", &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "100000")]),
        ];
        kinds.into_iter().find_map(|(parent, limits)| {
            let folder = Path::new(parent).join(name);
            fs::create_dir(&folder).ok()?;
            let quota = Self(folder);
            let is_kept = |(file, value): &(&str, &str)| {
                quota.0.join(file).exists() && fs::write(quota.0.join(file), value).is_ok()
            };
            limits.iter().all(is_kept).then_some(quota)
        })
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Where no cgroup can be made, what is known of it is what the standard library says of itself.
fn a_quota_of_cpus_is_fewer_workers(bed: &Bed) {
    let launch = bed.launch();
    let name = launch.folder().file_name().expect("a name").to_string_lossy().into_owned();
    let Some(quota) = Quota::of_one_cpu(&name) else {
        return eprintln!("no cgroup can be made here");
    };
    let cluster = launch.without("STICKY_WORKERS").in_cgroup(&quota.0).up();
    cluster.events().expect("(1 worker", PATIENCE);
    assert_eq!(cluster.workers().len(), 1);
    cluster.stop();
}

// === the example image ===

const DOCKERFILE: &str = include_str!("../../../examples/deploy/docker/Dockerfile");
const WORKSPACE: &str = include_str!("../../../Cargo.toml");

/// The instructions with what follows them, lines that go on joined.
fn instructions() -> Vec<(String, String)> {
    let lines = DOCKERFILE.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let joined = lines.fold(String::new(), |text, line| match line.strip_suffix('\\') {
        Some(begun) => text + begun,
        None => text + line + "\n",
    });
    let split = |line: &str| line.split_once(' ').map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()));
    joined.lines().map(|line| split(line).expect("an instruction with something behind it")).collect()
}

/// No daemon builds it here, so what can be known without one is looked at, and what it says to the program is tried.
fn dockerfile(bed: &Bed) {
    let all = instructions();
    let known = ["FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT"];
    assert!(all.iter().all(|(name, _)| known.contains(&name.as_str())), "{all:?}");
    let of =
        |name: &str| all.iter().filter(|(known, _)| known == name).map(|(_, rest)| rest.as_str()).collect::<Vec<_>>();
    let [build, _] = of("FROM")[..] else { panic!("two stages") };
    let msrv = WORKSPACE.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("one").trim_matches('"');
    assert!(build.starts_with(&format!("rust:{msrv}-")) && build.ends_with(" AS build"), "{build}");
    assert!(of("COPY")[1].starts_with("--from=build "));
    for package in ["hello-axum", "sticky-cli"] {
        assert!(of("RUN")[0].contains(&format!("--package {package}")));
    }
    assert!(of("USER")[0].parse::<u32>().expect("a number, which orchestrators can check") > 0);
    assert_eq!(of("STOPSIGNAL"), ["SIGTERM"]);
    // A shell would be process 1.
    let words = |text: &str| serde_json::from_str::<Vec<String>>(text).expect("a list of words");
    assert_eq!(words(of("ENTRYPOINT")[0]), ["/usr/local/bin/app"]);
    let health = of("HEALTHCHECK")[0].split_once("CMD ").expect("a command").1;
    assert_eq!(words(health), ["sticky", "status", "--json"]);
    let settings: BTreeSet<(&str, &str)> =
        of("ENV")[0].split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
    assert!(settings.contains(&("STICKY_LISTEN", &format!(":{}", of("EXPOSE")[0]))));
    let launch = bed.launch();
    let socket = launch.folder().join("admin.sock");
    let launch = settings.into_iter().fold(launch, |launch, (name, value)| match name {
        "STICKY_LISTEN" => launch.env(name, "127.0.0.1:0"),
        "STICKY_ADMIN" => launch.env(name, format!("unix:{}", socket.display())),
        _ => launch.env(name, value),
    });
    launch.as_process_one().up().stop();
}
