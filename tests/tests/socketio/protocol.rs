//! The rules of the protocols from outside, by connections that close and by those that are kept.

use libtest_mimic::Trial;

use crate::bed::{Framework, case, row};

const WORKERS: u16 = 3;

const ENGINE: [&str; 10] = [
    "handshake",
    "wrong_handshakes",
    "payloads",
    "wrong_payloads",
    "heartbeat",
    "close",
    "two_polls",
    "websocket",
    "upgrade",
    "upgrade_of_nobody",
];

const SOCKET: [&str; 4] = ["connect", "events", "nobody_connects", "wrong_packets"];

pub(crate) fn rows(on: Framework) -> Vec<Trial> {
    let cases = ENGINE.map(|name| (name, "engine")).into_iter().chain(SOCKET.map(|name| (name, "socket")));
    cases
        .flat_map(move |(name, of)| ["keep-alive", "close"].map(move |connections| rule(on, name, of, connections)))
        .collect()
}

fn rule(on: Framework, name: &'static str, of: &'static str, connections: &'static str) -> Trial {
    row(format!("protocol/{of}/{name}/{}/{connections}", on.name()), move || {
        let launch =
            on.launch().workers(WORKERS).env("TESTBED_PING", "300/5000").env("TESTBED_CONNECT_TIMEOUT", "1000");
        let cluster = if of == "engine" { launch.env("TESTBED_ENGINE", "1") } else { launch }.up();
        case("protocol.js", name, &cluster, WORKERS).arg(connections).run();
    })
}
