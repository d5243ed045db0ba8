//! What reaches whom across workers.

use libtest_mimic::Trial;

use crate::bed::{case, launch, row};

const WORKERS: u16 = 3;

const CASES: [&str; 18] = [
    "emit_to_all",
    "emit_to_a_namespace",
    "emit_to_rooms",
    "emit_except_rooms",
    "emit_locally",
    "emit_volatile",
    "emit_binary",
    "order",
    "acks_of_many",
    "acks_of_none",
    "acks_of_some",
    "fetch",
    "join_and_leave",
    "disconnect",
    "remote_socket",
    "fetch_after_a_death",
    "death_while_others_wait",
    "silence",
];

const PARSERS: [&str; 2] = ["common", "msgpack"];

pub(crate) fn rows() -> Vec<Trial> {
    PARSERS.into_iter().flat_map(|parser| CASES.map(|name| adapter(name, parser))).collect()
}

fn adapter(name: &'static str, parser: &'static str) -> Trial {
    row(format!("adapter/{name}/bus/{parser}"), move || {
        let cluster = launch().workers(WORKERS).env("TESTBED_PARSER", parser).up();
        case("adapter.js", name, &cluster, WORKERS).env("PARSER", parser).run();
    })
}
