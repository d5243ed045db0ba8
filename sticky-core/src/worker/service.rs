//! What a service manager hears of a program that serves without a cluster.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use crate::config::Config;
use crate::scoreboard::Row;
use crate::supervisor::service::{Bounds, Manager};

/// The manager, if there is one. A clone is the same.
#[derive(Clone)]
pub(super) struct Service {
    manager: Arc<Mutex<Manager>>,
    row: Row,
    /// How long the event loop may stand still.
    patience: Duration,
}

/// Whether an event loop still turns.
struct Pulse {
    beats: u64,
    since: Instant,
}

impl Service {
    pub(super) fn of_environment(config: &Config, row: Row) -> Self {
        let bounds = Bounds {
            start: config.prepare_timeout + config.boot_timeout,
            reload: Duration::ZERO,
            end: config.shutdown_timeout + config.exit_timeout,
        };
        let manager = Arc::new(Mutex::new(Manager::of_environment(bounds, Instant::now())));
        Self { manager, row, patience: config.heartbeat_timeout }
    }

    pub(super) fn ready(&self) {
        let mut manager = self.lock();
        manager.ready();
        manager.work(Instant::now());
    }

    pub(super) fn stopping(&self) {
        let mut manager = self.lock();
        manager.stopping();
        manager.work(Instant::now());
    }

    /// Says what is to be said at its time. Nobody but the manager notices here that the event loop has stopped, so that its
    /// watchdog is fed only while that turns.
    pub(super) async fn run(self) {
        let mut pulse = Pulse { beats: 0, since: Instant::now() };
        loop {
            let Some(due) = self.lock().due() else { return std::future::pending().await };
            sleep_until(due.into()).await;
            if !pulse.has_stopped(self.row.last_heartbeat(), Instant::now(), self.patience) {
                self.lock().work(Instant::now());
            } else {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Manager> {
        self.manager.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulse {
    fn has_stopped(&mut self, beats: u64, now: Instant, patience: Duration) -> bool {
        if beats != self.beats {
            *self = Self { beats, since: now };
        }
        // Before the first beat it starts, which the manager has its own limit for.
        self.beats > 0 && now.duration_since(self.since) > patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_when_it_has_not_beaten_for_too_long() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pulse = Pulse { beats: 0, since: start };
        assert!(!pulse.has_stopped(0, start + 90 * second, second), "it starts");
        assert!(!pulse.has_stopped(1, start + 91 * second, second));
        assert!(!pulse.has_stopped(1, start + 92 * second, second));
        assert!(pulse.has_stopped(1, start + 93 * second, second));
        assert!(!pulse.has_stopped(2, start + 94 * second, second));
    }
}
