//! Points in time that timeouts lead to.

use std::time::Duration;

use tokio::time::Instant;

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
