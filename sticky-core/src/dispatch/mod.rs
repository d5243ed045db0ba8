//! Dispatch: how a connection reaches the worker its key names, and the choice between the ways.
//!
//! | key | clear-text HTTP/1.1 |
//! |---|---|
//! | the client address, no trusted proxy | kernel |
//! | anything inside the request | handoff (not in this version) |

// The sans-IO half of handoff dispatch: where messages begin and end, and when a connection may move.
// It leaves `cfg(test)` with the guard that drives it.
#[cfg(test)]
#[expect(dead_code, reason = "used by the guard")]
pub(crate) mod handoff;
#[cfg(all(target_os = "linux", not(sticky_portable)))]
pub(crate) mod kernel;

use std::fmt;
use std::str::FromStr;

use crate::affinity::Affinity;

/// How connections reach the worker their key names. Chosen for you; `.dispatch(..)` forces one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dispatch {
    /// The kernel places each new connection by the client's address. No process touches a byte of it.
    Kernel,
    /// Workers read the request's head and move the connection to the session's owner. Not in this version.
    Handoff,
    /// A proxy process forwards each request to the session's owner. Not in this version.
    Proxy,
}

impl Dispatch {
    /// Every text form there is, for error messages and documentation.
    pub(crate) const ALLOWED: &'static str = "`kernel`; `handoff` and `proxy` are not in this version";
}

impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Handoff => "handoff",
            Self::Proxy => "proxy",
        })
    }
}

impl FromStr for Dispatch {
    type Err = ParseDispatchError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "kernel" => Ok(Self::Kernel),
            "handoff" => Ok(Self::Handoff),
            "proxy" => Ok(Self::Proxy),
            _ => Err(ParseDispatchError { text: text.to_owned() }),
        }
    }
}

/// A text that names no dispatch: use `kernel`, `handoff` or `proxy`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a dispatch: they are `kernel`, `handoff` and `proxy`")]
pub struct ParseDispatchError {
    text: String,
}

/// What the choice rests on. The texts are settings with their values, as the errors name them.
pub(crate) struct Wishes<'a> {
    pub(crate) affinity: &'a Affinity,
    /// The setting that puts the key inside the request, if one does: trusted proxies, and later other affinities.
    pub(crate) key_in_request: Option<&'a str>,
    /// The dispatch that is forced, and the setting that forces it.
    pub(crate) forced: Option<(Dispatch, &'a str)>,
}

/// A dispatch, and why it is that one, in words for the log: `kernel dispatch: affinity is the client address`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) dispatch: Dispatch,
    pub(crate) reason: String,
}

/// Why no dispatch fits the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// Change one of the two settings.
    #[error(
        "{setting} needs what is inside the request, and {forced} places by the connection's address alone: \
         change one of the two"
    )]
    Contradiction {
        /// The setting that puts the key inside the request, with its value.
        setting: String,
        /// The setting that forces the dispatch, with its value.
        forced: String,
    },
    /// Take the setting away.
    #[error(
        "{setting} needs handoff dispatch, which is not in this version: kernel dispatch places by the connection's \
         address alone; leave it unset"
    )]
    NeedsHandoff {
        /// The setting that puts the key inside the request, with its value.
        setting: String,
    },
    /// Take the setting away, or force kernel dispatch.
    #[error("{forced}: {dispatch} dispatch is not in this version, which has only `kernel`")]
    NotInThisVersion {
        /// The dispatch that is asked for.
        dispatch: Dispatch,
        /// The setting that forces it, with its value.
        forced: String,
    },
}

/// Chooses the dispatch: the one forced if it can be had, else the cheapest that can see the key.
pub(crate) fn choose(wishes: &Wishes<'_>) -> Result<Choice, DispatchError> {
    match (wishes.forced, wishes.key_in_request) {
        (Some((dispatch @ (Dispatch::Handoff | Dispatch::Proxy), forced)), _) => {
            Err(DispatchError::NotInThisVersion { dispatch, forced: forced.to_owned() })
        }
        (Some((Dispatch::Kernel, forced)), Some(setting)) => {
            Err(DispatchError::Contradiction { setting: setting.to_owned(), forced: forced.to_owned() })
        }
        (None, Some(setting)) => Err(DispatchError::NeedsHandoff { setting: setting.to_owned() }),
        (Some((Dispatch::Kernel, _)) | None, None) => {
            Ok(Choice { dispatch: Dispatch::Kernel, reason: format!("affinity is {}", wishes.affinity.describe()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose_with(trusted: bool, forced: Option<Dispatch>) -> Result<Choice, String> {
        let wishes = Wishes {
            affinity: &Affinity::client_ip(),
            key_in_request: trusted.then_some("TRUSTED"),
            forced: forced.map(|dispatch| (dispatch, "FORCED")),
        };
        choose(&wishes).map_err(|error| error.to_string())
    }

    #[test]
    fn the_client_address_is_placed_by_the_kernel() {
        for forced in [None, Some(Dispatch::Kernel)] {
            let choice = choose_with(false, forced).unwrap();
            assert_eq!((choice.dispatch, choice.reason.as_str()), (Dispatch::Kernel, "affinity is the client address"));
        }
    }

    #[test]
    fn trusted_proxies_need_a_dispatch_that_reads_the_request() {
        let error = choose_with(true, None).unwrap_err();
        assert_eq!(
            error,
            "TRUSTED needs handoff dispatch, which is not in this version: kernel dispatch places by the connection's \
             address alone; leave it unset"
        );
        let error = choose_with(true, Some(Dispatch::Kernel)).unwrap_err();
        assert_eq!(
            error,
            "TRUSTED needs what is inside the request, and FORCED places by the connection's address alone: change \
             one of the two"
        );
    }

    #[test]
    fn handoff_and_proxy_are_not_in_this_version() {
        for dispatch in [Dispatch::Handoff, Dispatch::Proxy] {
            for trusted in [false, true] {
                let error = choose_with(trusted, Some(dispatch)).unwrap_err();
                let expected = format!("FORCED: {dispatch} dispatch is not in this version, which has only `kernel`");
                assert_eq!(error, expected);
            }
        }
    }

    #[test]
    fn texts_round_trip() {
        for (text, dispatch) in
            [("kernel", Dispatch::Kernel), ("handoff", Dispatch::Handoff), ("proxy", Dispatch::Proxy)]
        {
            assert_eq!(text.parse(), Ok(dispatch));
            assert_eq!(dispatch.to_string(), text);
        }
        let error = "Kernel".parse::<Dispatch>().unwrap_err();
        assert_eq!(error.to_string(), "\"Kernel\" is not a dispatch: they are `kernel`, `handoff` and `proxy`");
    }
}
