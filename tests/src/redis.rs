//! A real Redis, from the system's package.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::EventLog;
use crate::cluster::PATIENCE;

/// A running Redis on a unix path. Dropping it ends it.
pub struct Redis {
    child: Child,
    socket: PathBuf,
    events: EventLog,
}

impl Redis {
    /// Starts one that keeps nothing, and waits until it answers.
    ///
    /// # Panics
    /// With what it printed, when it does not.
    pub fn start(folder: &Path) -> Self {
        let socket = folder.join("redis.sock");
        // Of one that was there before.
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--unixsocket"]);
        command.arg(&socket).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let events = EventLog::default();
        events.follow(child.stdout.take().expect("its output"));
        events.follow(child.stderr.take().expect("its output"));
        events.expect("eady to accept connections", PATIENCE);
        Self { child, socket, events }
    }

    /// As `STICKY_REDIS_URL` has it.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what Redis printed:\n{}", self.events);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
