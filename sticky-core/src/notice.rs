//! What sticky itself has to say: workers that start and die, warnings, the address it serves.
//!
//! Through `tracing` (target `sticky`) where the program has set a subscriber, else as plain lines on standard error.
//! In the supervisor neither a blocked standard error nor a subscriber that blocks stops who says it: after
//! [`deliver_through`] threads do the writing. In every other process it is said where it happens.

use std::fmt::Display;
use std::io::Write as _;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How many notices wait for a slow subscriber before further ones are dropped and counted.
const WAITING: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Info,
    Warn,
    Error,
}

type Write = Box<dyn Fn(Vec<u8>) + Send + Sync>;
type Flush = Box<dyn Fn(Instant) -> bool + Send + Sync>;

/// The supervisor's way out.
struct Desk {
    write: Write,
    flush: Flush,
    events: Events,
}

static DESK: OnceLock<Desk> = OnceLock::new();

/// Says that something happened as it should.
pub(crate) fn info(text: impl Display) {
    say(Level::Info, text.to_string());
}

/// Says that something went wrong that the cluster can live with.
pub(crate) fn warn(text: impl Display) {
    say(Level::Warn, text.to_string());
}

/// Says why the cluster cannot go on.
pub(crate) fn error(text: impl Display) {
    say(Level::Error, text.to_string());
}

/// Puts this line on standard error as it is, subscriber or not: `listening on http://…`.
pub(crate) fn announce(line: impl Display) {
    write_line(format!("{line}\n"));
}

/// For the supervisor: lines go to `write`, which must not block, and `flush` waits until they are out or it is that
/// late, and says which (`true`: out). Events go to the subscriber from a thread of their own. Only the first call
/// counts.
pub(crate) fn deliver_through(write: Write, flush: Flush) {
    let _ = DESK.set(Desk { write, flush, events: Events::default() });
}

/// Waits until everything said has come out, at most for the bound (1 s at exit). `false`: it has not.
pub(crate) fn flush(bound: Duration) -> bool {
    let deadline = Instant::now() + bound;
    DESK.get().is_none_or(|desk| desk.events.flush(deadline) & (desk.flush)(deadline))
}

fn say(level: Level, text: String) {
    match (tracing::dispatcher::has_been_set(), DESK.get()) {
        (false, _) => write_line(plain(&text)),
        (true, None) => emit(level, &text),
        (true, Some(desk)) => desk.events.send(level, text),
    }
}

fn plain(text: &str) -> String {
    format!("sticky: {text}\n")
}

fn write_line(line: String) {
    match DESK.get() {
        Some(desk) => (desk.write)(line.into_bytes()),
        // Nobody is left to tell.
        None => drop(std::io::stderr().write_all(line.as_bytes())),
    }
}

fn emit(level: Level, text: &str) {
    match level {
        Level::Info => tracing::info!(target: "sticky", "{text}"),
        Level::Warn => tracing::warn!(target: "sticky", "{text}"),
        Level::Error => tracing::error!(target: "sticky", "{text}"),
    }
}

/// Events on their way to the subscriber.
#[derive(Default)]
struct Events {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    events: std::collections::VecDeque<(Level, String)>,
    lost: u64,
    emitting: bool,
    running: bool,
}

impl Waiting {
    fn push(&mut self, level: Level, text: String) {
        if self.events.len() >= WAITING {
            self.lost += 1;
            return;
        }
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.events.push_back((Level::Warn, format!("{lost} notices were lost while the log was blocked")));
        }
        self.events.push_back((level, text));
    }

    fn is_idle(&self) -> bool {
        self.events.is_empty() && !self.emitting
    }
}

impl Events {
    fn send(&'static self, level: Level, text: String) {
        let mut waiting = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(level, text);
        if !waiting.running {
            let thread = std::thread::Builder::new().name("sticky-notices".to_owned());
            waiting.running = thread.spawn(|| self.deliver()).is_ok();
        }
        drop(waiting);
        self.changed.notify_all();
    }

    /// The thread.
    fn deliver(&self) {
        let mut waiting = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            waiting.emitting = false;
            self.changed.notify_all();
            waiting = self
                .changed
                .wait_while(waiting, |waiting| waiting.events.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            if let Some((level, text)) = waiting.events.pop_front() {
                waiting.emitting = true;
                drop(waiting);
                // A subscriber that panics must not end the notices.
                drop(std::panic::catch_unwind(|| emit(level, &text)));
                waiting = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn flush(&self, deadline: Instant) -> bool {
        let waiting = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(waiting, left, |waiting| !waiting.is_idle());
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_say_who_speaks() {
        assert_eq!(
            plain("worker 2 (pid 123) was killed by signal 9"),
            "sticky: worker 2 (pid 123) was killed by signal 9\n"
        );
    }

    #[test]
    fn events_for_a_blocked_subscriber_are_bounded_and_counted() {
        let mut waiting = Waiting::default();
        for number in 0..WAITING + 7 {
            waiting.push(Level::Info, number.to_string());
        }
        assert_eq!((waiting.events.len(), waiting.lost), (WAITING, 7));
        waiting.events.truncate(1);
        waiting.push(Level::Error, "after".to_owned());
        let report = "7 notices were lost while the log was blocked".to_owned();
        assert_eq!(waiting.events[1], (Level::Warn, report));
        assert_eq!(waiting.events[2], (Level::Error, "after".to_owned()));
    }

    #[test]
    fn events_are_delivered_by_a_thread_and_flushed() {
        let events: &'static Events = Box::leak(Box::default());
        assert!(events.flush(Instant::now()));
        events.send(Level::Info, "one".to_owned());
        events.send(Level::Warn, "two".to_owned());
        assert!(events.flush(Instant::now() + Duration::from_secs(5)));
    }
}
