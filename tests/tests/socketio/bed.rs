//! The clusters that rows run on.

use libtest_mimic::Trial;
use sticky_tests::{Launch, Script, TestCluster};

/// How many workers a cluster has, if nothing else is said.
pub(crate) const WORKERS: u16 = 4;

/// What serves. Rows are the same on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framework {
    Axum,
    Actix,
}

impl Framework {
    pub(crate) const ALL: [Self; 2] = [Self::Axum, Self::Actix];

    /// Its name in those of rows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Axum => "axum",
            Self::Actix => "actix",
        }
    }

    /// A cluster of its testbed, about to be started.
    pub(crate) fn launch(self) -> Launch {
        let testbed = match self {
            Self::Axum => env!("CARGO_BIN_EXE_testbed-socketio"),
            Self::Actix => env!("CARGO_BIN_EXE_testbed-socketio-actix"),
        };
        Launch::new(testbed).workers(WORKERS).env("STICKY_THREADS_PER_WORKER", "1")
    }
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
