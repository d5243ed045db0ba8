//! What a worker does while it leads: it holds a lock that two cannot hold.

use std::env;
use std::fs::File;
use std::io;
use std::path::Path;

use sticky_core::Worker;

/// The file that the leader locks, if there is to be one.
pub const VARIABLE: &str = "TESTBED_LEADER_LOCK";

/// What a leader prints, with its pid after it.
pub const LEADS: &str = "leads: ";

/// What it prints if the lock is another's.
pub const TWO_LEADERS: &str = "there are two leaders";

/// Leads whenever it is this worker's turn, if the environment says so.
pub(super) fn lead(worker: &Worker) {
    let Some(path) = env::var_os(VARIABLE) else { return };
    let leadership = worker.leadership();
    tokio::spawn(async move {
        loop {
            let tenure = leadership.granted().await;
            let lock = lock(path.as_ref());
            let pid = std::process::id();
            match &lock {
                Ok(_) => println!("{LEADS}{pid}"),
                Err(error) => println!("{TWO_LEADERS}: {pid} has no lock: {error}"),
            }
            tenure.revoked().await;
            // In this order: the next one locks it as soon as this one has resigned.
            drop(lock);
            drop(tenure);
        }
    });
}

fn lock(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    file.try_lock()?;
    Ok(file)
}
