//! A service manager, as far as it is told something: the socket that `NOTIFY_SOCKET` names.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cluster::PATIENCE;

/// The variable that names it.
pub const VARIABLE: &str = "NOTIFY_SOCKET";

/// What it has been told so far, one line after the other.
pub struct Manager {
    socket: UnixDatagram,
    name: String,
    lines: Vec<String>,
    /// How many of them have been waited for.
    read: usize,
}

impl Manager {
    /// One at a path in this folder.
    ///
    /// # Panics
    /// When there can be none.
    pub fn in_folder(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self { socket, name: path.display().to_string(), lines: Vec::new(), read: 0 }
    }

    /// One with an abstract name.
    ///
    /// # Panics
    /// When there can be none.
    pub fn abstracted(name: &str) -> Self {
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        Self {
            socket: UnixDatagram::bind_addr(&address).expect("a socket"),
            name: format!("@{name}"),
            lines: Vec::new(),
            read: 0,
        }
    }

    /// What the variable says.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until it is told a line that begins so, after those waited for before, and answers what follows.
    ///
    /// # Panics
    /// With all that it was told, when that does not come in time.
    pub fn expect(&mut self, start: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(line) = self.lines.get(self.read) {
                self.read += 1;
                if let Some(rest) = line.strip_prefix(start) {
                    return rest.to_owned();
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(self.hear(left), "it was not told {start:?}: {:#?}", self.lines);
        }
    }

    /// Whether it is told nothing for so long.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        !self.hear(time)
    }

    /// Takes everything that it has been told, which is then waited for no more.
    pub fn catch_up(&mut self) {
        while self.hear(Duration::ZERO) {}
        self.read = self.lines.len();
    }

    /// All that it has been told that begins in one of these ways, in order: without what comes all the time.
    pub fn told(&self, starts: &[&str]) -> Vec<&str> {
        let is_meant = |line: &&str| starts.iter().any(|start| line.starts_with(start));
        self.lines.iter().map(String::as_str).filter(is_meant).collect()
    }

    /// Hears one message; false if none comes in that time.
    fn hear(&mut self, within: Duration) -> bool {
        let mut message = [0; 4096];
        // Zero would be for ever.
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1)))).expect("a limit");
        match self.socket.recv(&mut message) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                self.lines.extend(text.lines().map(str::to_owned));
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => panic!("the manager's socket: {error}"),
        }
    }
}
