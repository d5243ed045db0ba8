//! The event log: every line a cluster prints, in order, and a way to wait for one.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What the processes of one cluster have printed so far. Cheap to clone.
#[derive(Clone, Default)]
pub struct EventLog {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
    /// How many streams have not ended.
    open: AtomicUsize,
}

impl EventLog {
    /// Collects the lines of `stream` until its end, on a thread of its own. Bytes that are not UTF-8 are replaced.
    pub fn follow(&self, stream: impl Read + Send + 'static) {
        let log = self.clone();
        self.shared.open.fetch_add(1, Ordering::AcqRel);
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            // A pty answers EIO instead of an end once its last holder has gone, so an error is an end too.
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                log.push(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned());
                line.clear();
            }
            log.shared.open.fetch_sub(1, Ordering::AcqRel);
        });
    }

    /// Whether every stream has ended, so that no line is still to come.
    pub fn has_ended(&self) -> bool {
        self.shared.open.load(Ordering::Acquire) == 0
    }

    fn push(&self, line: String) {
        self.lines().push(line);
        self.shared.changed.notify_all();
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        // A row that panicked while it held the lock left the lines whole.
        self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All lines up to now.
    pub fn all(&self) -> Vec<String> {
        self.lines().clone()
    }

    /// How many lines up to now contain `text`.
    pub fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }

    /// The first line that contains `text`, waiting for it at most `within`.
    ///
    /// # Panics
    /// With everything printed so far, when no such line came.
    pub fn expect(&self, text: &str, within: Duration) -> String {
        self.expect_nth(1, text, within)
    }

    /// The `nth` line (from 1) that contains `text`, waiting for it at most `within`.
    ///
    /// # Panics
    /// With everything printed so far, when there were fewer.
    pub fn expect_nth(&self, nth: usize, text: &str, within: Duration) -> String {
        let deadline = Instant::now() + within;
        let mut lines = self.lines();
        loop {
            if let Some(line) = lines.iter().filter(|line| line.contains(text)).nth(nth - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(lines);
                panic!("no line number {nth} with {text:?} within {within:?}; printed so far:\n{self}");
            }
            let waited = self.shared.changed.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl std::fmt::Display for EventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "    | {line}"))
    }
}
