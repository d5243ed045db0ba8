//! Configuration: what code and environment say in, one typed value or every mistake at once out.
//!
//! ```text
//! ClusterBuilder ─┐
//! Environment ────┼─ resolve() ─► Config | ConfigError
//! Machine ────────┘   (pure)
//! ```
//!
//! Strings end here: whatever is in a [`Config`] has its type and its range.

mod admin;
mod builder;
mod cookie;
mod cpus;
mod env;
mod error;
mod extra;
mod failover;
mod memory;
mod parse;
mod redis;
mod resolve;
mod settings;
mod trusted;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::time::Duration;

pub(crate) use self::admin::AdminAddresses;
pub use self::builder::ClusterBuilder;
pub(crate) use self::cookie::CookieSettings;
pub use self::cookie::SameSite;
pub(crate) use self::env::Environment;
pub use self::error::{ConfigError, ConfigProblem, Given};
pub(crate) use self::extra::ExtraAddresses;
pub use self::failover::Failover;
pub(crate) use self::memory::Memory;
use self::parse::Value as _;
pub(crate) use self::redis::Redis;
pub(crate) use self::trusted::TrustedProxies;
use crate::affinity::{Affinity, ProxyTrust};
use crate::dispatch::Dispatch;
use crate::listener::address::ListenAddress;
use crate::placement::Placement;

/// What the configuration depends on beside code and environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The CPUs this process may use.
    pub(crate) cpus: NonZeroUsize,
}

impl Machine {
    /// The machine this process runs on, as far as it may use it.
    pub(crate) fn detect() -> Self {
        Self { cpus: cpus::usable() }
    }
}

/// The configuration of a cluster: every setting resolved, checked and typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// 0 serves in this process; at most [`MAX_WORKERS`](crate::id::MAX_WORKERS).
    pub(crate) workers: u16,
    /// How many there can be: `workers` at least. So many slots are the workers', in use or not; those of proxies follow.
    pub(crate) max_workers: u16,
    pub(crate) threads_per_worker: NonZeroUsize,
    /// Never empty.
    pub(crate) listen: Vec<ListenAddress>,
    /// Checked: its text form reads back, but for functions.
    pub(crate) affinity: Affinity,
    /// Where a session goes that is seen for the first time.
    pub(crate) placement: Placement,
    /// Who is believed about the client's address, and where it is written.
    pub(crate) trust: ProxyTrust,
    /// Whether trusted proxies begin their connections with the PROXY protocol. Never without trusted proxies.
    pub(crate) proxy_protocol: bool,
    /// How the sticky cookie is, if [`Affinity::uses_sticky_cookie`].
    pub(crate) sticky_cookie: CookieSettings,
    /// Whether responses name their worker.
    pub(crate) worker_header: bool,
    /// How many sessions are remembered: a power of two.
    pub(crate) session_capacity: usize,
    pub(crate) session_idle_timeout: Duration,
    /// The dispatch chosen.
    pub(crate) dispatch: Dispatch,
    /// Why that dispatch, in words for the log.
    pub(crate) dispatch_reason: String,
    pub(crate) failover: Failover,
    /// How many proxy processes there are, under proxy dispatch.
    pub(crate) proxy_workers: u16,
    /// The port of worker 0, where workers listen themselves.
    pub(crate) first_port: Option<u16>,
    /// Whether workers listen themselves, and proxies ask them there.
    pub(crate) own_ports: bool,
    /// Whether the proxy refuses upgrades.
    pub(crate) no_sockets: bool,
    pub(crate) response_timeout: Option<Duration>,
    pub(crate) tunnel_idle_timeout: Option<Duration>,
    /// None draws one at start.
    pub(crate) hash_seed: Option<u64>,
    pub(crate) boot_timeout: Duration,
    pub(crate) prepare_timeout: Duration,
    pub(crate) heartbeat_timeout: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) reload_parallel: u16,
    pub(crate) reload_soak: Duration,
    /// How many requests a worker serves, how long it runs and how much memory it uses before it is replaced.
    pub(crate) max_requests: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_rss: Option<Memory>,
    pub(crate) exit_timeout: Duration,
    pub(crate) first_byte_timeout: Duration,
    pub(crate) head_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    /// Of each worker; none is no limit.
    pub(crate) max_connections: Option<NonZeroUsize>,
    pub(crate) backlog: u32,
    /// Where metrics and status are served.
    pub(crate) admin: AdminAddresses,
    /// Where the application listens beside that, in every worker.
    pub(crate) extra_listeners: ExtraAddresses,
    /// For the integrations that use it.
    pub(crate) redis: Redis,
    /// None is auto: when standard output is a terminal.
    pub(crate) prefix_output: Option<bool>,
    /// Added to the workers' environment, in order; names are valid and none of ours.
    pub(crate) env: Vec<(OsString, OsString)>,
}

impl Config {
    /// How many proxy processes there are.
    pub(crate) fn proxies(&self) -> u16 {
        if self.dispatch == Dispatch::Proxy { self.proxy_workers } else { 0 }
    }

    /// How many slots there are, in use or not.
    pub(crate) fn slots(&self) -> u16 {
        self.max_workers + self.proxies()
    }

    /// The names of the sockets that a service manager is to pass, and whether it is to pass any.
    pub(crate) fn passed_sockets(&self) -> (Vec<String>, bool) {
        let extras = self.extra_listeners.0.iter().map(|extra| &extra.address);
        let all = self.listen.iter().chain(&self.admin.0).chain(extras);
        let asked = all.filter_map(|address| match address {
            ListenAddress::Systemd(name) => Some(name.clone()),
            _ => None,
        });
        let asked: Vec<Option<String>> = asked.collect();
        let any = !asked.is_empty();
        (asked.into_iter().flatten().collect(), any)
    }

    /// What all processes of a cluster must agree on, as text. A worker with another one is refused: its clients
    /// would change workers.
    pub(crate) fn fingerprint(&self) -> String {
        let Self { affinity, dispatch, placement, trust, .. } = self;
        let seed = self.hash_seed.map_or_else(|| "drawn".to_owned(), |seed| seed.to_string());
        let mut text = format!("affinity={affinity} dispatch={dispatch} placement={placement} hash_seed={seed}");
        if !trust.proxies.is_empty() {
            let (proxies, header, protocol) = (trust.proxies.show(), &trust.header, self.proxy_protocol);
            let trust = format!(" trusted_proxies={proxies} client_address_header={header} proxy_protocol={protocol}");
            text.push_str(&trust);
        }
        if affinity.uses_sticky_cookie() {
            text.push_str(" cookie_name=");
            text.push_str(&self.sticky_cookie.name);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(builder: ClusterBuilder, variables: &[(&str, &str)]) -> String {
        let machine = Machine { cpus: NonZeroUsize::MIN };
        builder.resolve(&variables.iter().copied().collect(), &machine).unwrap().fingerprint()
    }

    #[test]
    fn a_fingerprint_names_what_must_agree() {
        let text = fingerprint(ClusterBuilder::default(), &[("STICKY_HASH_SEED", "7")]);
        assert_eq!(text, "affinity=client-ip dispatch=kernel placement=rendezvous hash_seed=7");
        let text = fingerprint(
            ClusterBuilder::default(),
            &[
                ("STICKY_AFFINITY", "cookie:a | client-ip"),
                ("STICKY_PLACEMENT", "local"),
                ("STICKY_TRUSTED_PROXIES", "loopback, 10.0.0.0/8"),
                ("STICKY_CLIENT_ADDRESS_HEADER", "X-Real-IP"),
                ("STICKY_PROXY_PROTOCOL", "on"),
            ],
        );
        let expected = "affinity=cookie:a|client-ip dispatch=handoff placement=local hash_seed=drawn \
                        trusted_proxies=loopback,10.0.0.0/8 client_address_header=x-real-ip proxy_protocol=true";
        assert_eq!(text, expected);
        let variables = [("STICKY_AFFINITY", "sticky-cookie"), ("STICKY_COOKIE_SECRET", "not to be shown at all")];
        let text = fingerprint(ClusterBuilder::default().cookie_name("s"), &variables);
        let expected = "affinity=sticky-cookie dispatch=handoff placement=rendezvous hash_seed=drawn cookie_name=s";
        assert_eq!(text, expected);
        let custom = Affinity::custom(|_| crate::Choice::nothing()).or(Affinity::client_ip());
        let text = fingerprint(ClusterBuilder::default().affinity(custom), &[]);
        assert!(text.starts_with("affinity=custom|client-ip dispatch=handoff "), "{text}");
    }

    #[test]
    fn the_machine_is_as_large_as_this_process_may_use() {
        assert_eq!(Machine::detect().cpus, std::thread::available_parallelism().unwrap());
    }
}
