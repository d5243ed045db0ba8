//! How long clients may take, and the points in time that this leads to.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;

/// How long a connection may wait for its client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// For the first byte of a new connection.
    pub(crate) first_byte: Duration,
    /// For a head, from its first byte to its last.
    pub(crate) head: Duration,
    /// Between two messages.
    pub(crate) idle: Duration,
}

impl Timeouts {
    /// Somebody else minds the time.
    pub(crate) const NONE: Self = Self { first_byte: Duration::MAX, head: Duration::MAX, idle: Duration::MAX };

    /// Whether nothing ever takes too long.
    pub(crate) fn are_none(&self) -> bool {
        [self.first_byte, self.head, self.idle] == [Duration::MAX; 3]
    }

    pub(crate) fn of(config: &Config) -> Self {
        let Config { first_byte_timeout, head_timeout, idle_timeout, .. } = config;
        Self { first_byte: *first_byte_timeout, head: *head_timeout, idle: *idle_timeout }
    }
}

impl Default for Timeouts {
    /// The defaults of the settings, for a worker without a cluster.
    fn default() -> Self {
        Self { first_byte: Duration::from_secs(60), head: Duration::from_secs(10), idle: Duration::from_secs(75) }
    }
}

/// `timeout` after `instant`; a timeout too long for the clock is thirty years.
pub(crate) fn later(instant: Instant, timeout: Duration) -> Instant {
    let far = Duration::from_secs(30 * 365 * 24 * 3600);
    instant.checked_add(timeout.min(far)).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_timeouts_do_not_overflow() {
        let now = Instant::now();
        assert!(later(now, Duration::MAX) > now + Duration::from_hours(24));
        assert_eq!(later(now, Duration::from_secs(1)), now + Duration::from_secs(1));
    }
}
