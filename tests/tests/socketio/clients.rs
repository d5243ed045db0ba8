//! The official client, version by version.

use libtest_mimic::Trial;
use sticky_tests::admin::Admin;
use sticky_tests::cluster::PATIENCE;

use crate::bed::{Framework, WORKERS, case, row};

const CASES: [&str; 8] = ["polling", "upgrade", "websocket", "order", "namespaces", "large", "broadcast", "killed"];

/// Major versions of the client that speak version 4 of Engine.IO.
const VERSIONS: [u8; 2] = [4, 3];

pub(crate) fn rows(on: Framework) -> Vec<Trial> {
    let current = CASES.into_iter().flat_map(|name| VERSIONS.map(|version| client(on, name, version)));
    current
        .chain([client(on, "version3", 2)])
        .chain(VERSIONS.map(|version| drained(on, "drained", version)))
        .chain([drained(on, "one_call", 4), threads(on)])
        .chain(VERSIONS.map(|version| reloaded(on, version)))
        .chain([scaled(on), reloaded_often(on)])
        .collect()
}

/// At the end of everything connections are closed at once, not when time is up; polls that wait are no exception.
fn drained(on: Framework, name: &'static str, version: u8) -> Trial {
    row(format!("clients/{name}/{}/v{version}", on.name()), move || {
        let launch = on.launch().env("STICKY_SHUTDOWN_TIMEOUT", "1h");
        let cluster = if name == "one_call" { launch.env("TESTBED_ONE_CALL", "1") } else { launch }.up();
        case("clients.js", "drained", &cluster, WORKERS).arg(version).arg(cluster.supervisor()).run();
        assert!(cluster.exit(PATIENCE).success());
        cluster.events().expect(", 0 cut", PATIENCE);
    })
}

/// Several threads in a worker are one server.
fn threads(on: Framework) -> Trial {
    row(format!("clients/threads/{}/v4", on.name()), move || {
        let cluster = on.launch().workers(2).env("STICKY_THREADS_PER_WORKER", "3").up();
        for name in ["upgrade", "polling", "broadcast"] {
            case("clients.js", name, &cluster, 2).arg(4).run();
        }
    })
}

/// Every worker is replaced; nobody is told to stay away.
fn reloaded(on: Framework, version: u8) -> Trial {
    row(format!("clients/reloaded/{}/v{version}", on.name()), move || {
        let cluster = on.launch().up();
        case("clients.js", "reloaded", &cluster, WORKERS).arg(version).arg(cluster.supervisor()).run();
        cluster.events().expect("sticky: reloaded 4 workers", PATIENCE);
    })
}

/// One reload after the other: whatever is acknowledged in the end has arrived, and nobody gives up.
fn reloaded_often(on: Framework) -> Trial {
    // actix ends a WebSocket a second after its last word.
    let reloads = if on == Framework::Axum { 100 } else { 20 };
    row(format!("clients/reloaded_often/{}/v4", on.name()), move || {
        let cluster = on.launch().workers(2).with_admin().up();
        let admin = Admin::of(&cluster);
        case("clients.js", "reloaded_often", &cluster, 2).arg(4).arg(admin.path().display()).arg(reloads).run();
        assert_eq!(cluster.events().count("sticky: reloaded 2 workers"), reloads, "{}", cluster.events());
        cluster.stop();
    })
}

/// A worker is taken out: its clients go on elsewhere.
fn scaled(on: Framework) -> Trial {
    row(format!("clients/scaled/{}/v4", on.name()), move || {
        let cluster = on.launch().up();
        case("clients.js", "scaled", &cluster, WORKERS).arg(4).arg(cluster.supervisor()).run();
        cluster.events().expect("sticky: scaled to 3 workers", PATIENCE);
    })
}

fn client(on: Framework, name: &'static str, version: u8) -> Trial {
    row(format!("clients/{name}/{}/v{version}", on.name()), move || {
        let cluster = on.launch().up();
        case("clients.js", name, &cluster, WORKERS).arg(version).run();
    })
}
