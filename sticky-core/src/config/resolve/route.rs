//! The settings that say whom a request belongs to, and the dispatch that follows from them.

use super::super::builder::ClusterBuilder;
use super::super::error::{ConfigProblem, Given};
use super::super::parse::Value;
use super::super::settings::{self, Setting};
use super::super::trusted::TrustedProxies;
use super::{Found, Resolver};
use crate::affinity::{AddressHeader, Affinity, ProxyTrust};
use crate::dispatch::{self, Choice, Dispatch, Wish, Wishes};
use crate::placement::Placement;

/// Whom a request belongs to, and how it gets there.
pub(super) struct Route {
    pub(super) affinity: Affinity,
    pub(super) placement: Placement,
    pub(super) trust: ProxyTrust,
    pub(super) proxy_protocol: bool,
    /// Also where the affinity cannot be made out: then nobody can say that there is none.
    pub(super) has_sticky_cookie: bool,
    pub(super) choice: Choice,
}

/// What was said about proxies.
struct Proxies {
    /// Never empty.
    trusted: Option<Found<TrustedProxies>>,
    header: AddressHeader,
    /// Never off.
    protocol: Option<Found<bool>>,
}

impl ClusterBuilder {
    /// What an integration takes by default, for what it serves is better off with it: where neither code nor environment
    /// says an affinity, it is this one, and the placement this one, too, unless one is said or dispatch is forced to
    /// place by the connection's address alone.
    #[doc(hidden)]
    pub fn usually(mut self, affinity: Affinity, placement: Placement) -> Self {
        self.usual = Some((affinity, placement));
        self
    }
}

impl ClusterBuilder {
    /// Has workers listen by themselves, for [`Cluster::run_on_port`](crate::Cluster::run_on_port): then requests are
    /// forwarded to them.
    pub(crate) fn with_own_ports(mut self) -> Self {
        self.own_ports = true;
        self.dispatch = Some(Dispatch::Proxy);
        self
    }
}

impl Resolver<'_> {
    /// `passed` is the setting that has a service manager pass sockets.
    pub(super) fn route(&mut self, builder: &mut ClusterBuilder, passed: Option<String>) -> Route {
        let before = self.problems.len();
        let affinity = self.affinity(builder.affinity.take());
        let is_clear = self.problems.len() == before;
        let placement = self.pick(&settings::PLACEMENT, builder.placement);
        let forced = self.pick(&settings::DISPATCH, builder.dispatch);
        let Proxies { trusted, header, protocol } = self.proxies(builder);
        let is_kernel = forced.as_ref().is_some_and(|forced| forced.value == Dispatch::Kernel);
        let usual = builder.usual.take().filter(|_| affinity.is_none() && is_clear && !is_kernel);
        let (usual_affinity, usual_placement) = usual.unwrap_or_default();
        let wishes = Wishes {
            affinity: wish(affinity, usual_affinity),
            placement: wish(placement, usual_placement),
            trusted_proxies: trusted.as_ref().map(|found| found.given.to_string()),
            proxy_protocol: protocol.as_ref().map(|found| found.given.to_string()),
            passed,
            forced: forced.map(Found::into_wish),
        };
        let choice = self.choose(&wishes);
        let has_sticky_cookie = wishes.affinity.value.uses_sticky_cookie() || !is_clear;
        Route {
            affinity: wishes.affinity.value,
            placement: wishes.placement.value,
            trust: ProxyTrust { proxies: trusted.map(|found| found.value).unwrap_or_default(), header },
            proxy_protocol: protocol.is_some(),
            has_sticky_cookie,
            choice,
        }
    }

    fn choose(&mut self, wishes: &Wishes) -> Choice {
        dispatch::choose(wishes).unwrap_or_else(|errors| {
            self.problems.extend(errors.into_iter().map(ConfigProblem::from));
            Choice { dispatch: Dispatch::Kernel, reason: String::new() }
        })
    }

    /// Code can make affinities that have no text, so what it says is checked here.
    fn affinity(&mut self, code: Option<Affinity>) -> Option<Found<Affinity>> {
        let code = code.and_then(|affinity| {
            let (text, checked) = (affinity.show(), affinity.check().map_err(|error| error.mistakes()));
            self.code(&settings::AFFINITY, text, checked.map(|()| affinity))
        });
        self.pick(&settings::AFFINITY, code)
    }

    fn proxies(&mut self, builder: &mut ClusterBuilder) -> Proxies {
        let before = self.problems.len();
        let code = builder.trusted_proxies_text();
        let code = code.and_then(|text| self.code_text(&settings::TRUSTED_PROXIES, text));
        let trusted: Option<Found<TrustedProxies>> = self.pick(&settings::TRUSTED_PROXIES, code);
        let trusted = trusted.filter(|found| !found.value.is_empty());
        // What was meant to be somebody is not nobody.
        let is_nobody = trusted.is_none() && self.problems.len() == before;

        let code = builder.client_address_header.take();
        let code = code.and_then(|text| self.code_text(&settings::CLIENT_ADDRESS_HEADER, text));
        let header: Option<Found<AddressHeader>> = self.pick(&settings::CLIENT_ADDRESS_HEADER, code);
        let protocol = self.pick(&settings::PROXY_PROTOCOL, builder.proxy_protocol).filter(|found| found.value);
        if is_nobody {
            self.require_proxies(header.as_ref(), "nobody else is believed");
            self.require_proxies(protocol.as_ref(), "nobody else may begin with it");
        }
        Proxies { trusted, header: header.map(|found| found.value).unwrap_or_default(), protocol }
    }

    fn require_proxies<T>(&mut self, found: Option<&Found<T>>, why: &'static str) {
        if let Some(found) = found {
            self.require(&found.given, &settings::TRUSTED_PROXIES, why);
        }
    }

    /// Says that a setting has no effect without another.
    pub(super) fn require(&mut self, given: &Given, missing: &Setting, why: &'static str) {
        let variable = missing.variable.map(|name| format!(" ({name})")).unwrap_or_default();
        let missing = format!("{}{variable}", missing.name);
        self.problems.push(ConfigProblem::Incomplete { given: given.clone(), missing, why });
    }

    /// A value that code gives as text.
    pub(super) fn code_text<T: Value>(&mut self, setting: &Setting, text: String) -> Option<T> {
        let parsed = T::parse(&text);
        self.code(setting, text, parsed)
    }

    pub(super) fn code<T: Value>(&mut self, setting: &Setting, text: String, checked: Result<T, String>) -> Option<T> {
        let given = Given::Builder { method: setting.name, value: text };
        self.accept(setting, given, checked).map(|found| found.value)
    }
}

impl<T> Found<T> {
    fn into_wish(self) -> Wish<T> {
        Wish { value: self.value, given: self.given.to_string() }
    }
}

/// What was said, or the default, which nobody said.
fn wish<T>(found: Option<Found<T>>, default: T) -> Wish<T> {
    found.map_or_else(|| Wish { value: default, given: String::new() }, Found::into_wish)
}
