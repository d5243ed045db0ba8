//! Metrics that a testbed has of its own.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};

use sticky_core::Worker;

/// Whether there are any, and what kind of library has written them: see [`GOOD`].
pub const VARIABLE: &str = "TESTBED_METRICS";

/// Well-formed ones.
pub const GOOD: &str = "good";
/// Those of a program that has got something wrong.
pub const BAD: &str = "bad";
/// None, after more time than anybody has.
pub const LATE: &str = "late";

/// Has the worker tell them, if the environment says so.
pub(super) fn export(worker: &Worker) {
    let Ok(kind) = env::var(VARIABLE) else { return };
    let asked = AtomicU64::new(0);
    worker.export_metrics(move || match kind.as_str() {
        LATE => loop {
            std::thread::park();
        },
        BAD => "# TYPE testbed_asked gauge\ntestbed_asked_total 1\nno metric\nsticky_requests_total 5\nfine 1\n".to_owned(),
        _ => {
            let asked = asked.fetch_add(1, Ordering::Relaxed) + 1;
            format!("# HELP testbed_asked How often these were asked for.\n# TYPE testbed_asked counter\ntestbed_asked_total{{worker=\"me\"}} {asked}\n# EOF\n")
        }
    });
}
