//! The official client, version by version.

use libtest_mimic::Trial;

use crate::bed::{WORKERS, case, launch, row};

const CASES: [&str; 8] = ["polling", "upgrade", "websocket", "order", "namespaces", "large", "broadcast", "killed"];

/// Major versions of the client that speak version 4 of Engine.IO.
const VERSIONS: [u8; 2] = [4, 3];

pub(crate) fn rows() -> Vec<Trial> {
    let current = CASES.into_iter().flat_map(|name| VERSIONS.map(|version| client(name, version)));
    current.chain([client("version3", 2)]).collect()
}

fn client(name: &'static str, version: u8) -> Trial {
    row(format!("clients/{name}/v{version}"), move || {
        let cluster = launch().up();
        case("clients.js", name, &cluster, WORKERS).arg(version).run();
    })
}
