//! What becomes of clients whose worker is not there.

use std::fmt;
use std::time::Duration;

use super::parse::Value;
use super::settings::Allowed;

/// What becomes of new connections whose worker is not there: it crashed, is stopped, or is backing off.
///
/// They wait in the worker's accept queue, and most often its next generation takes them from there within
/// milliseconds. This says how long they wait for it, and what then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failover {
    /// Once the deadline has passed they go to the next worker in the order of their key, until their own is ready
    /// again. This is the default, after 2 s. As text: the deadline, `2s`.
    Next {
        /// How long they wait for their own worker.
        after: Duration,
    },
    /// They wait for their own worker's next generation, however long that takes. As text: `wait`.
    ///
    /// For sessions that exist in one worker only, where any other would answer wrongly. What bounds the wait is the
    /// length of the accept queue and the client's own patience.
    Wait,
    /// Once the deadline has passed they are answered 503 (HTTP) or closed (anything else), until their own worker is
    /// ready again. As text: `refuse` (after 2 s) or `refuse:5s`.
    Refuse {
        /// How long they wait for their own worker.
        after: Duration,
    },
}

impl Failover {
    /// How long clients wait for their own worker where nothing else is said.
    pub const DEFAULT_AFTER: Duration = Duration::from_secs(2);

    /// How long clients wait for their own worker; none if that has no end.
    pub const fn after(&self) -> Option<Duration> {
        match self {
            Self::Next { after } | Self::Refuse { after } => Some(*after),
            Self::Wait => None,
        }
    }
}

impl Default for Failover {
    /// [`Failover::Next`] after 2 s.
    fn default() -> Self {
        Self::Next { after: Self::DEFAULT_AFTER }
    }
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Next { after } => f.write_str(&after.show()),
            Self::Wait => f.write_str("wait"),
            Self::Refuse { after } => write!(f, "refuse:{}", after.show()),
        }
    }
}

impl Value for Failover {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "wait" => Ok(Self::Wait),
            "refuse" => Ok(Self::Refuse { after: Self::DEFAULT_AFTER }),
            _ => match text.strip_prefix("refuse:") {
                Some(after) => Ok(Self::Refuse { after: Duration::parse(after)? }),
                None => {
                    Duration::parse(text).map(|after| Self::Next { after }).map_err(|_| "not a failover".to_owned())
                }
            },
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn is_allowed(&self, allowed: &Allowed) -> bool {
        self.after().is_none_or(|after| after.is_allowed(allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn texts_round_trip() {
        for (text, failover) in [
            ("1s", Failover::Next { after: SECOND }),
            ("0s", Failover::Next { after: Duration::ZERO }),
            ("wait", Failover::Wait),
            ("refuse:1s", Failover::Refuse { after: SECOND }),
        ] {
            assert_eq!(Failover::parse(text), Ok(failover));
            assert_eq!(failover.show(), text);
        }
        assert_eq!(Failover::parse("2s"), Ok(Failover::default()));
        assert_eq!(Failover::parse("refuse"), Ok(Failover::Refuse { after: 2 * SECOND }));
    }

    #[test]
    fn what_is_no_failover() {
        for text in ["", "2", "next", "Wait", "wait:1s", "refuse2s"] {
            assert_eq!(Failover::parse(text), Err("not a failover".to_owned()), "{text}");
        }
        assert_eq!(Failover::parse("refuse:"), Err("not a duration".to_owned()));
    }

    #[test]
    fn the_deadline_has_bounds() {
        let allowed = Allowed::Duration { least: SECOND, most: SECOND, note: "" };
        for after in [SECOND, 2 * SECOND] {
            for failover in [Failover::Next { after }, Failover::Refuse { after }] {
                assert_eq!(failover.after(), Some(after));
                assert_eq!(failover.is_allowed(&allowed), after == SECOND);
            }
        }
        assert_eq!(Failover::Wait.after(), None);
        assert!(Failover::Wait.is_allowed(&allowed));
    }
}
