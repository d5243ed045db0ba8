//! Dispatch: how a connection reaches the worker its key names, and the choice between the ways.
//!
//! | key | clear-text HTTP/1.1 |
//! |---|---|
//! | the client address, no trusted proxy | kernel |
//! | anything inside the request, or through trusted proxies | handoff |
//! | programs that can do no more than listen on a port | proxy |

pub(crate) mod handoff;
#[cfg(all(target_os = "linux", not(sticky_portable)))]
pub(crate) mod kernel;
#[cfg(all(cluster, feature = "proxy"))]
pub(crate) mod proxy;

use std::fmt;
use std::str::FromStr;

use crate::affinity::Affinity;
use crate::placement::Placement;

/// How connections reach the worker their key names. Chosen for you; `.dispatch(..)` forces one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dispatch {
    /// The kernel places each new connection by the client's address. No process touches a byte of it.
    Kernel,
    #[doc = include_str!("handoff.md")]
    Handoff,
    #[doc = include_str!("proxy.md")]
    Proxy,
}

impl Dispatch {
    /// Every text form there is, for error messages and documentation.
    pub(crate) const ALLOWED: &'static str = "`kernel`, `handoff` or `proxy`";
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
pub(crate) struct Wishes {
    pub(crate) affinity: Wish<Affinity>,
    pub(crate) placement: Wish<Placement>,
    /// The setting that trusts proxies to name the client, if one does.
    pub(crate) trusted_proxies: Option<String>,
    /// The setting that has them do so by the PROXY protocol, if one does.
    pub(crate) proxy_protocol: Option<String>,
    /// The setting that has a service manager pass the listeners, if one does.
    pub(crate) passed: Option<String>,
    /// The dispatch that is forced, if one is.
    pub(crate) forced: Option<Wish<Dispatch>>,
}

/// A value, and the setting that it comes from.
pub(crate) struct Wish<T> {
    pub(crate) value: T,
    /// Empty if nobody said anything: such a value is in nobody's way.
    pub(crate) given: String,
}

/// A setting that the kernel's dispatch cannot do justice to.
struct Need<'a> {
    given: &'a str,
    /// Not what is inside requests, but that there is one listener.
    is_socket: bool,
    /// In words for the log.
    reason: String,
}

impl Wishes {
    /// Everything that takes reading requests, the best reason first.
    fn needs(&self) -> Vec<Need<'_>> {
        let affinity = self.affinity.value.reads_requests().then_some(&self.affinity.given);
        let placement = (self.placement.value != Placement::Rendezvous).then_some(&self.placement.given);
        let mut needs: Vec<Need<'_>> = [
            (affinity, self.affinity_reason()),
            (self.trusted_proxies.as_ref(), "the client address comes through trusted proxies".to_owned()),
            (self.proxy_protocol.as_ref(), "the client address comes by the PROXY protocol".to_owned()),
            (placement, format!("placement is {}", self.placement.value)),
        ]
        .into_iter()
        .filter_map(|(given, reason)| Some(Need { given: given?, is_socket: false, reason }))
        .collect();
        if let Some(given) = &self.passed {
            needs.push(Need {
                given,
                is_socket: true,
                reason: "the workers share a socket that was passed".to_owned(),
            });
        }
        needs
    }

    fn affinity_reason(&self) -> String {
        format!("affinity is {}", self.affinity.value.describe())
    }
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
    /// Take the port by its address, or leave the dispatch to the cluster.
    #[error(
        "{setting} is one socket, which all workers share, and with {forced} each needs its own: \
         change one of the two"
    )]
    OneSocket {
        /// The setting that has a service manager pass the socket, with its value.
        setting: String,
        /// The setting that forces the dispatch, with its value.
        forced: String,
    },
    /// Turn the feature on, or force another dispatch.
    #[error("{forced}: needs the feature `proxy` of sticky-core, which this program is built without")]
    WithoutFeature {
        /// The setting that forces it, with its value.
        forced: String,
    },
    /// Change one of the two settings.
    #[error(
        "{setting} leaves sessions where they arrive, and with {forced} they arrive in the proxy, which keeps none: \
         change one of the two"
    )]
    NowhereToStay {
        /// The placement, with its value.
        setting: String,
        /// The setting that forces the dispatch, with its value.
        forced: String,
    },
}

/// Chooses the dispatch: the one forced if it can be had, else the cheapest that can see the key.
///
/// # Errors
///
/// Every setting that the dispatch forced cannot do justice to.
pub(crate) fn choose(wishes: &Wishes) -> Result<Choice, Vec<DispatchError>> {
    let needs = wishes.needs();
    let cheapest = if needs.is_empty() { Dispatch::Kernel } else { Dispatch::Handoff };
    if let Some(Wish { value: forced, given }) = &wishes.forced {
        let contradiction = |need: &Need<'_>| {
            let (setting, forced) = (need.given.to_owned(), given.clone());
            match need.is_socket {
                false => DispatchError::Contradiction { setting, forced },
                true => DispatchError::OneSocket { setting, forced },
            }
        };
        match forced {
            Dispatch::Proxy if !cfg!(feature = "proxy") => {
                return Err(vec![DispatchError::WithoutFeature { forced: given.clone() }]);
            }
            Dispatch::Proxy if wishes.placement.value == Placement::Local => {
                let (setting, forced) = (wishes.placement.given.clone(), given.clone());
                return Err(vec![DispatchError::NowhereToStay { setting, forced }]);
            }
            Dispatch::Kernel if !needs.is_empty() => return Err(needs.iter().map(contradiction).collect()),
            Dispatch::Kernel | Dispatch::Handoff | Dispatch::Proxy => {}
        }
    }
    let dispatch = wishes.forced.as_ref().map_or(cheapest, |forced| forced.value);
    let reason = needs.into_iter().next().map_or_else(|| wishes.affinity_reason(), |need| need.reason);
    Ok(Choice { dispatch, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dispatch and the reason, or all errors, for an affinity and further settings.
    fn choose_for(affinity: &str, placement: Placement, others: [bool; 2], forced: Option<Dispatch>) -> Outcome {
        let [trusted, protocol] = others;
        let wishes = Wishes {
            affinity: Wish { value: affinity.parse().unwrap(), given: "AFFINITY".to_owned() },
            placement: Wish { value: placement, given: "PLACEMENT".to_owned() },
            trusted_proxies: trusted.then(|| "TRUSTED".to_owned()),
            proxy_protocol: protocol.then(|| "PROTOCOL".to_owned()),
            passed: None,
            forced: forced.map(|value| Wish { value, given: "FORCED".to_owned() }),
        };
        match choose(&wishes) {
            Ok(choice) => Ok((choice.dispatch, choice.reason)),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
        }
    }

    type Outcome = Result<(Dispatch, String), Vec<String>>;

    const NEITHER: [bool; 2] = [false; 2];

    /// Everything that takes reading requests, with its setting and its reason.
    const NEEDS: [(&str, Placement, [bool; 2], &str, &str); 6] = [
        ("cookie:a|client-ip", RENDEZVOUS, NEITHER, "AFFINITY", "affinity is the cookie `a`, else the client address"),
        ("client-ip", RENDEZVOUS, [true, false], "TRUSTED", "the client address comes through trusted proxies"),
        ("client-ip", RENDEZVOUS, [false, true], "PROTOCOL", "the client address comes by the PROXY protocol"),
        ("client-ip", Placement::Local, NEITHER, "PLACEMENT", "placement is local"),
        ("client-ip", Placement::RoundRobin, NEITHER, "PLACEMENT", "placement is round-robin"),
        ("client-ip", Placement::FewestConnections, NEITHER, "PLACEMENT", "placement is fewest-connections"),
    ];

    const RENDEZVOUS: Placement = Placement::Rendezvous;

    #[test]
    fn the_client_address_is_placed_by_the_kernel() {
        for (forced, dispatch) in [
            (None, Dispatch::Kernel),
            (Some(Dispatch::Kernel), Dispatch::Kernel),
            (Some(Dispatch::Handoff), Dispatch::Handoff),
        ] {
            let choice = choose_for("client-ip", RENDEZVOUS, NEITHER, forced);
            assert_eq!(choice, Ok((dispatch, "affinity is the client address".to_owned())));
        }
    }

    #[test]
    fn what_is_inside_the_request_takes_handoff() {
        for (affinity, placement, others, _, reason) in NEEDS {
            for forced in [None, Some(Dispatch::Handoff)] {
                let choice = choose_for(affinity, placement, others, forced);
                assert_eq!(choice, Ok((Dispatch::Handoff, reason.to_owned())));
            }
        }
    }

    #[test]
    fn kernel_dispatch_cannot_be_forced_on_what_is_inside_the_request() {
        let contradiction = |setting: &str| {
            format!(
                "{setting} needs what is inside the request, and FORCED places by the connection's address alone: \
                 change one of the two"
            )
        };
        for (affinity, placement, others, setting, _) in NEEDS {
            let errors = choose_for(affinity, placement, others, Some(Dispatch::Kernel));
            assert_eq!(errors, Err(vec![contradiction(setting)]));
        }
        let errors = choose_for("query:a", Placement::Local, [true; 2], Some(Dispatch::Kernel));
        let settings = ["AFFINITY", "TRUSTED", "PROTOCOL", "PLACEMENT"];
        assert_eq!(errors, Err(settings.map(contradiction).to_vec()));
    }

    #[test]
    fn a_socket_that_was_passed_is_one() {
        let wishes = |forced: Option<Dispatch>| Wishes {
            affinity: Wish { value: "client-ip".parse().unwrap(), given: String::new() },
            placement: Wish { value: RENDEZVOUS, given: String::new() },
            trusted_proxies: None,
            proxy_protocol: None,
            passed: Some("LISTEN".to_owned()),
            forced: forced.map(|value| Wish { value, given: "FORCED".to_owned() }),
        };
        let choice = choose(&wishes(None)).unwrap();
        assert_eq!(choice.dispatch, Dispatch::Handoff);
        assert_eq!(choice.reason, "the workers share a socket that was passed");
        let errors = choose(&wishes(Some(Dispatch::Kernel))).unwrap_err();
        let expected =
            "LISTEN is one socket, which all workers share, and with FORCED each needs its own: change one of the two";
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    #[cfg(feature = "proxy")]
    fn proxy_dispatch_takes_everything_but_what_would_stay_in_the_proxy() {
        for (affinity, placement, others, setting, reason) in NEEDS {
            let choice = choose_for(affinity, placement, others, Some(Dispatch::Proxy));
            if placement == Placement::Local {
                let expected = format!(
                    "{setting} leaves sessions where they arrive, and with FORCED they arrive in the proxy, which \
                     keeps none: change one of the two"
                );
                assert_eq!(choice, Err(vec![expected]));
            } else {
                assert_eq!(choice, Ok((Dispatch::Proxy, reason.to_owned())));
            }
        }
    }

    #[test]
    #[cfg(not(feature = "proxy"))]
    fn proxy_dispatch_is_a_feature() {
        let errors = choose_for("client-ip", RENDEZVOUS, NEITHER, Some(Dispatch::Proxy));
        let expected = "FORCED: needs the feature `proxy` of sticky-core, which this program is built without";
        assert_eq!(errors, Err(vec![expected.to_owned()]));
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
