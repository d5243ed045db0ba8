//! Affinity: what of a client decides which worker serves it.

// Keys inside the request, sans I/O. It leaves `cfg(test)` with the guard of handoff dispatch that asks it; its
// `Affinity` then takes the place of the one below.
#[cfg(test)]
#[expect(unreachable_pub, unused_imports, reason = "public once it takes the place of the `Affinity` below")]
pub(crate) mod request;
#[allow(dead_code, unused_imports, reason = "the sticky cookie, until handoff dispatch reads and sets it")]
mod ticket;

use std::fmt;
use std::str::FromStr;

/// What ties a client to its worker: everything with the same key reaches the same slot.
///
/// ```
/// # use sticky_core::Affinity;
/// let affinity: Affinity = "client-ip".parse()?;
/// assert_eq!(affinity, Affinity::client_ip());
/// # Ok::<(), sticky_core::error::ParseAffinityError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Affinity {
    source: Source,
}

/// Where a key comes from. Private, so that sources can be added without breaking anybody's `match`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    ClientAddress,
}

impl Affinity {
    /// Every text form there is, for error messages and documentation.
    pub(crate) const ALLOWED: &'static str = "`client-ip`";

    /// The client's address: the whole of an IPv4 address, the first 64 bits of an IPv6 one.
    ///
    /// The address is the one the connection comes from. Behind a proxy that is the proxy's, the same for everybody.
    pub const fn client_ip() -> Self {
        Self { source: Source::ClientAddress }
    }

    /// What the key is, in words that complete "affinity is ..".
    pub(crate) const fn describe(&self) -> &'static str {
        match self.source {
            Source::ClientAddress => "the client address",
        }
    }
}

impl Default for Affinity {
    /// [`Affinity::client_ip`].
    fn default() -> Self {
        Self::client_ip()
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::ClientAddress => f.write_str("client-ip"),
        }
    }
}

impl FromStr for Affinity {
    type Err = ParseAffinityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "client-ip" => Ok(Self::client_ip()),
            _ => Err(ParseAffinityError { text: text.to_owned() }),
        }
    }
}

/// A text that names no affinity of this version: use one that the message lists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an affinity of this version, which has {}", Affinity::ALLOWED)]
pub struct ParseAffinityError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_round_trips() {
        let affinity: Affinity = "client-ip".parse().unwrap();
        assert_eq!(affinity, Affinity::client_ip());
        assert_eq!(affinity, Affinity::default());
        assert_eq!(affinity.to_string(), "client-ip");
    }

    #[test]
    fn other_texts_are_refused_with_what_is_allowed() {
        for text in ["", "client_ip", "Client-IP", "cookie:session", "client-ip "] {
            let error = text.parse::<Affinity>().unwrap_err();
            let expected = format!("{text:?} is not an affinity of this version, which has `client-ip`");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn the_key_is_put_in_words() {
        assert_eq!(Affinity::client_ip().describe(), "the client address");
    }
}
