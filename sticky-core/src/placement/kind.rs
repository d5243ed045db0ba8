//! Where a session goes that nobody has seen yet.

use std::fmt;
use std::str::FromStr;

/// Which worker gets a session that is seen for the first time. Whose session is known already goes to its worker.
///
/// ```
/// # use sticky_core::Placement;
/// assert_eq!("round-robin".parse(), Ok(Placement::RoundRobin));
/// assert_eq!(Placement::FewestConnections.to_string(), "fewest-connections");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Placement {
    /// The one that the key's hash names: nothing has to be remembered. The default. As text: `rendezvous`.
    #[default]
    Rendezvous,
    /// The one that the connection has reached already, so that it need not move. As text: `local`.
    Local,
    /// One after the other. As text: `round-robin`.
    RoundRobin,
    /// The one with the fewest open connections. As text: `fewest-connections`.
    FewestConnections,
}

impl Placement {
    const ALL: [Self; 4] = [Self::Rendezvous, Self::Local, Self::RoundRobin, Self::FewestConnections];

    /// Every text form there is, for error messages and documentation.
    pub(crate) const ALLOWED: &'static str = "`rendezvous`, `local`, `round-robin` or `fewest-connections`";

    /// Whether it takes a memory to send a session where it was placed once.
    pub(crate) const fn remembers(self) -> bool {
        !matches!(self, Self::Rendezvous)
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Rendezvous => "rendezvous",
            Self::Local => "local",
            Self::RoundRobin => "round-robin",
            Self::FewestConnections => "fewest-connections",
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Placement {
    type Err = ParsePlacementError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let placement = Self::ALL.into_iter().find(|placement| placement.text() == text);
        placement.ok_or_else(|| ParsePlacementError { text: text.to_owned() })
    }
}

/// A text that names no placement: use one that the message lists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a placement: they are {}", Placement::ALLOWED)]
pub struct ParsePlacementError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip() {
        for placement in Placement::ALL {
            assert_eq!(placement.to_string().parse(), Ok(placement));
            assert!(Placement::ALLOWED.contains(&format!("`{placement}`")));
        }
        assert_eq!(Placement::default(), Placement::Rendezvous);
        let error = "Local".parse::<Placement>().unwrap_err();
        assert_eq!(error.to_string(), format!("\"Local\" is not a placement: they are {}", Placement::ALLOWED));
    }
}
