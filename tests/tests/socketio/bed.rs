//! The clusters that rows run on.

use libtest_mimic::Trial;
use sticky_tests::{Launch, Script, TestCluster};

/// How many workers a cluster has, if nothing else is said.
pub(crate) const WORKERS: u16 = 4;

/// A cluster of the testbed, about to be started.
pub(crate) fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_testbed-socketio")).workers(WORKERS).env("STICKY_THREADS_PER_WORKER", "1")
}

/// A script's case with the cluster's URL and the number of its workers.
pub(crate) fn case(script: &str, name: &str, cluster: &TestCluster, workers: u16) -> Script {
    Script::new(script).arg(name).arg(format!("http://{}", cluster.address())).arg(workers)
}

/// A row.
pub(crate) fn row(name: String, check: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        check();
        Ok(())
    })
}
