//! Polling sessions by hand, request by request.

use libtest_mimic::Trial;

use crate::bed::{Framework, WORKERS, case, row};

const CASES: [&str; 6] =
    ["beside", "race_over_new_connections", "race_over_shared_connections", "one_connection", "unknown_ids", "tags"];

pub(crate) fn rows(on: Framework) -> Vec<Trial> {
    let session = |name| {
        row(format!("sessions/{name}/{}", on.name()), move || {
            let cluster = on.launch().up();
            case("sessions.js", name, &cluster, WORKERS).run();
        })
    };
    CASES.map(session).into()
}
