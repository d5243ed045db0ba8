//! What a testbed prepares before its workers start: it prints that it does, and fails as it is told.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sticky_core::Cluster;

use super::BoxError;
use crate::cluster::PATIENCE;

/// The file that says how the preparation goes; without this variable there is none.
pub const VARIABLE: &str = "TESTBED_PREPARE";

/// What is printed by who prepares, with its pid after it.
pub const PREPARES: &str = "prepares: ";

/// The file's words for one that fails, and for one that does not end while they are there.
pub const FAIL: &str = "fail";
/// See [`FAIL`].
pub const WAIT: &str = "wait";

/// What is said by one that fails.
pub const FAILURE: &str = "the schema is locked";

/// The cluster, with the preparation that the environment asks for.
pub fn prepared(cluster: Cluster) -> Cluster {
    match env::var_os(VARIABLE) {
        Some(file) => cluster.prepare(|| prepare(file.into())),
        None => cluster,
    }
}

async fn prepare(file: PathBuf) -> Result<(), BoxError> {
    println!("{PREPARES}{}", std::process::id());
    let deadline = Instant::now() + 4 * PATIENCE;
    while Instant::now() < deadline {
        match fs::read_to_string(&file).unwrap_or_default().as_str() {
            FAIL => return Err(FAILURE.into()),
            // Its runtime must have a clock.
            WAIT => tokio::time::sleep(Duration::from_millis(5)).await,
            _ => return Ok(()),
        }
    }
    Err("nobody has said how it goes on".into())
}
