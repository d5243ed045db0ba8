//! The one table of all settings. Names, variables, ranges and the documentation of them come from here.

use std::fmt;
use std::time::Duration;

use super::admin::AdminAddresses;
use super::cookie::{CookieName, CookiePath, SameSite, Secret};
use super::extra::ExtraAddresses;
use super::memory::Memory;
use super::parse::Value as _;
use super::redis::{RedisPrefix, RedisUrl};
use super::trusted::TrustedProxies;
use crate::affinity::{AddressHeader, Affinity};
use crate::dispatch::Dispatch;
use crate::id::{MAX_PROXIES, MAX_WORKERS};
use crate::listener::address::ListenAddress;
use crate::placement::Placement;

/// What the names of our environment variables begin with. One that begins so and is not known is an error.
pub(super) const PREFIX: &str = "STICKY_";

/// Variables that the supervisor sets for its workers: known, but no settings.
pub(super) const INTERNAL_VARIABLES: [&str; 2] = ["STICKY_CONTROL", "STICKY_WORKER_ID"];

/// One setting.
pub(super) struct Setting {
    /// The builder's method.
    pub(super) name: &'static str,
    /// The environment variable; none if only code can say it.
    pub(super) variable: Option<&'static str>,
    /// Variables of other programs, read in this order where neither `variable` nor the builder says anything.
    pub(super) fallbacks: &'static [&'static str],
    /// The default, as text.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test holds the documentation to it"))]
    pub(super) default: &'static str,
    /// What is allowed.
    pub(super) allowed: Allowed,
    /// What it does.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test holds the documentation to it"))]
    pub(super) about: &'static str,
}

/// What values a setting can have; as text, it completes "allowed: ..".
#[derive(Debug)]
pub(super) enum Allowed {
    /// In words, where the type leaves nothing to check.
    Text(&'static str),
    /// Whole numbers, both ends included, and what else there is to say.
    Count { least: u64, most: u64, note: &'static str },
    /// Durations, both ends included, and what else there is to say.
    Duration { least: Duration, most: Duration, note: &'static str },
    /// A [`Failover`](super::Failover), with the longest deadline.
    Failover { most: Duration },
    /// Amounts of memory, both ends included; `none`.
    Memory { least: Memory, most: Memory },
}

impl Allowed {
    pub(super) fn has_count(&self, count: u64) -> bool {
        matches!(self, Self::Count { least, most, .. } if (*least..=*most).contains(&count))
    }

    pub(super) fn has_duration(&self, duration: Duration) -> bool {
        match self {
            Self::Duration { least, most, .. } => (*least..=*most).contains(&duration),
            Self::Failover { most } => duration <= *most,
            Self::Text(_) | Self::Count { .. } | Self::Memory { .. } => false,
        }
    }

    pub(super) fn has_memory(&self, bytes: u64) -> bool {
        matches!(self, Self::Memory { least, most } if (*least..=*most).contains(&Memory(bytes)))
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Count { least, most, note } => write!(f, "a whole number from {least} to {most}{note}"),
            Self::Duration { least, most, note } => {
                let (least, most) = (least.show(), most.show());
                write!(f, "a duration like `500ms`, `30s`, `5m` or `1h`, from {least} to {most}{note}")
            }
            Self::Failover { most } => {
                write!(f, "a duration like `2s` up to {}, `wait`, `refuse` or `refuse:5s`", most.show())
            }
            Self::Memory { least, most } => {
                let (least, most) = (Some(*least).show(), Some(*most).show());
                write!(f, "an amount of memory like `512MiB` or `2GiB`, from {least} to {most}; `none`")
            }
        }
    }
}

const fn durations(least: Duration, most: Duration) -> Allowed {
    Allowed::Duration { least, most, note: "" }
}

const AUTO_SWITCH: &str = "`auto`, `true`, `yes`, `on`, `1`, `false`, `no`, `off` or `0`";
const SWITCH: &str = "`true`, `yes`, `on`, `1`, `false`, `no`, `off` or `0`";

const TEN_MILLIS: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// All settings, in the order of the documentation and of the errors.
pub(super) static SETTINGS: [&Setting; 50] = [
    &LISTEN,
    &WORKERS,
    &MOST_WORKERS,
    &THREADS_PER_WORKER,
    &AFFINITY,
    &PLACEMENT,
    &DISPATCH,
    &TRUSTED_PROXIES,
    &CLIENT_ADDRESS_HEADER,
    &PROXY_PROTOCOL,
    &COOKIE_NAME,
    &COOKIE_PATH,
    &COOKIE_SAME_SITE,
    &COOKIE_SECURE,
    &COOKIE_LIFETIME,
    &COOKIE_SECRET,
    &COOKIE_PREVIOUS_SECRET,
    &WORKER_HEADER,
    &SESSION_CAPACITY,
    &SESSION_IDLE_TIMEOUT,
    &FAILOVER,
    &PROXY_WORKERS,
    &FIRST_PORT,
    &NO_SOCKETS,
    &RESPONSE_TIMEOUT,
    &TUNNEL_IDLE_TIMEOUT,
    &HASH_SEED,
    &BOOT_TIMEOUT,
    &PREPARE_TIMEOUT,
    &HEARTBEAT_TIMEOUT,
    &SHUTDOWN_TIMEOUT,
    &DRAIN_TIMEOUT,
    &RELOAD_PARALLEL,
    &RELOAD_SOAK,
    &MAX_REQUESTS,
    &MAX_AGE,
    &MAX_RSS,
    &EXIT_TIMEOUT,
    &FIRST_BYTE_TIMEOUT,
    &HEAD_TIMEOUT,
    &IDLE_TIMEOUT,
    &MAX_CONNECTIONS,
    &BACKLOG,
    &ADMIN,
    &EXTRA_LISTENER,
    &REDIS_URL,
    &REDIS_PREFIX,
    &PREFIX_OUTPUT,
    &ENV,
    &PREFER_ENV,
];

pub(super) static LISTEN: Setting = Setting {
    name: "listen",
    variable: Some("STICKY_LISTEN"),
    fallbacks: &["PORT", "PROXY_PORT"],
    default: ":5000",
    allowed: Allowed::Text(ListenAddress::ALLOWED),
    about: "the addresses of the public port; `:5000` is `[::]:5000` for IPv6 and IPv4 (`0.0.0.0:5000` without IPv6); unix sockets have no affinity",
};

pub(super) static WORKERS: Setting = Setting {
    name: "workers",
    variable: Some("STICKY_WORKERS"),
    fallbacks: &["WEB_CONCURRENCY", "WORKERS"],
    default: "the CPUs this process may use",
    allowed: Allowed::Count { least: 0, most: MAX_WORKERS as u64, note: "; 0 serves in this process" },
    about: "how many worker processes; `STICKY_WORKERS=0` wins even over code",
};

pub(super) static MOST_WORKERS: Setting = Setting {
    name: "max_workers",
    variable: Some("STICKY_MAX_WORKERS"),
    fallbacks: &[],
    default: "twice the workers, at least 8, at most 256",
    allowed: Allowed::Count { least: 1, most: MAX_WORKERS as u64, note: ", and no fewer than `workers`" },
    about: "how many worker processes there may be when the cluster is scaled while it runs (SIGTTIN, SIGTTOU)",
};

pub(super) static THREADS_PER_WORKER: Setting = Setting {
    name: "threads_per_worker",
    variable: Some("STICKY_THREADS_PER_WORKER"),
    fallbacks: &[],
    default: "CPUs divided by workers, at least 1",
    allowed: Allowed::Count { least: 1, most: 1024, note: "" },
    about: "threads of the runtime in each worker",
};

pub(super) static AFFINITY: Setting = Setting {
    name: "affinity",
    variable: Some("STICKY_AFFINITY"),
    fallbacks: &[],
    default: "client-ip",
    allowed: Allowed::Text(Affinity::ALLOWED),
    about: "what of a client decides which worker serves it",
};

pub(super) static PLACEMENT: Setting = Setting {
    name: "placement",
    variable: Some("STICKY_PLACEMENT"),
    fallbacks: &[],
    default: "rendezvous",
    allowed: Allowed::Text(Placement::ALLOWED),
    about: "which worker gets a session that is seen for the first time",
};

pub(super) static DISPATCH: Setting = Setting {
    name: "dispatch",
    variable: Some("STICKY_DISPATCH"),
    fallbacks: &[],
    default: "chosen by the affinity",
    allowed: Allowed::Text(Dispatch::ALLOWED),
    about: "how connections reach their worker",
};

pub(super) static TRUSTED_PROXIES: Setting = Setting {
    name: "trusted_proxies",
    variable: Some("STICKY_TRUSTED_PROXIES"),
    fallbacks: &[],
    default: "none",
    allowed: Allowed::Text(TrustedProxies::ALLOWED),
    about: "peers whose word about the client's address is taken",
};

pub(super) static CLIENT_ADDRESS_HEADER: Setting = Setting {
    name: "client_address_header",
    variable: Some("STICKY_CLIENT_ADDRESS_HEADER"),
    fallbacks: &[],
    default: "x-forwarded-for",
    allowed: Allowed::Text(AddressHeader::ALLOWED),
    about: "the header in which trusted proxies name the client; all others are the client's own words",
};

pub(super) static PROXY_PROTOCOL: Setting = Setting {
    name: "proxy_protocol",
    variable: Some("STICKY_PROXY_PROTOCOL"),
    fallbacks: &[],
    default: "off",
    allowed: Allowed::Text(SWITCH),
    about: "trusted proxies begin every connection with the PROXY protocol, version 1 or 2",
};

pub(super) static COOKIE_NAME: Setting = Setting {
    name: "cookie_name",
    variable: Some("STICKY_COOKIE_NAME"),
    fallbacks: &[],
    default: "sticky",
    allowed: Allowed::Text(CookieName::ALLOWED),
    about: "the name of the sticky cookie",
};

pub(super) static COOKIE_PATH: Setting = Setting {
    name: "cookie_path",
    variable: Some("STICKY_COOKIE_PATH"),
    fallbacks: &[],
    default: "/",
    allowed: Allowed::Text(CookiePath::ALLOWED),
    about: "the path below which browsers send the sticky cookie",
};

pub(super) static COOKIE_SAME_SITE: Setting = Setting {
    name: "cookie_same_site",
    variable: Some("STICKY_COOKIE_SAME_SITE"),
    fallbacks: &[],
    default: "lax",
    allowed: Allowed::Text(SameSite::ALLOWED),
    about: "with which requests from other sites' pages browsers send the sticky cookie",
};

pub(super) static COOKIE_SECURE: Setting = Setting {
    name: "cookie_secure",
    variable: Some("STICKY_COOKIE_SECURE"),
    fallbacks: &[],
    default: "auto",
    allowed: Allowed::Text(AUTO_SWITCH),
    about: "send the sticky cookie by TLS only; `auto` does it where the client comes by TLS, or by a trusted proxy that says so",
};

pub(super) static COOKIE_LIFETIME: Setting = Setting {
    name: "cookie_lifetime",
    variable: Some("STICKY_COOKIE_LIFETIME"),
    fallbacks: &[],
    default: "none",
    allowed: Allowed::Duration { least: SECOND, most: Duration::from_hours(400 * 24), note: "; `none`" },
    about: "how long browsers keep the sticky cookie; `none` is as long as they are open",
};

pub(super) static COOKIE_SECRET: Setting = Setting {
    name: "cookie_secret",
    variable: Some("STICKY_COOKIE_SECRET"),
    fallbacks: &[],
    default: "drawn at start",
    allowed: Allowed::Text(Secret::ALLOWED),
    about: "what seals the sticky cookie; the same on all machines and after a restart, or the cookies of before are replaced",
};

pub(super) static COOKIE_PREVIOUS_SECRET: Setting = Setting {
    name: "cookie_previous_secret",
    variable: Some("STICKY_COOKIE_PREVIOUS_SECRET"),
    fallbacks: &[],
    default: "none",
    allowed: Allowed::Text(Secret::ALLOWED),
    about: "the secret of before the last change, which cookies may still be sealed with",
};

pub(super) static WORKER_HEADER: Setting = Setting {
    name: "worker_header",
    variable: Some("STICKY_WORKER_HEADER"),
    fallbacks: &[],
    default: "off",
    allowed: Allowed::Text(SWITCH),
    about: "add `x-sticky-worker` to every response: the number of the worker that gave it",
};

pub(super) static SESSION_CAPACITY: Setting = Setting {
    name: "session_capacity",
    variable: Some("STICKY_SESSION_CAPACITY"),
    fallbacks: &[],
    default: "65536",
    allowed: Allowed::Count { least: 1024, most: 1 << 24, note: ", rounded up to a power of two" },
    about: "how many sessions are remembered; the one unused for longest makes room",
};

pub(super) static SESSION_IDLE_TIMEOUT: Setting = Setting {
    name: "session_idle_timeout",
    variable: Some("STICKY_SESSION_IDLE_TIMEOUT"),
    fallbacks: &[],
    default: "24h",
    allowed: durations(SECOND, Duration::from_hours(30 * 24)),
    about: "how long an unused session is remembered",
};

pub(super) static FAILOVER: Setting = Setting {
    name: "failover",
    variable: Some("STICKY_FAILOVER"),
    fallbacks: &[],
    default: "2s",
    allowed: Allowed::Failover { most: HOUR },
    about: "what becomes of clients whose worker is not there: the next worker after a while, waiting, or refusal",
};

pub(super) static PROXY_WORKERS: Setting = Setting {
    name: "proxy_workers",
    variable: Some("STICKY_PROXY_WORKERS"),
    fallbacks: &[],
    default: "1",
    allowed: Allowed::Count { least: 1, most: MAX_PROXIES as u64, note: "" },
    about: "how many proxy processes; for proxy dispatch",
};

pub(super) static FIRST_PORT: Setting = Setting {
    name: "first_port",
    variable: Some("STICKY_FIRST_PORT"),
    fallbacks: &["FIRST_PORT"],
    default: "none",
    allowed: Allowed::Count { least: 1, most: u16::MAX as u64, note: ", with room for a port for each worker; `none`" },
    about: "the port of worker 0, the next for worker 1, and so on, where workers listen themselves (`Cluster::run_on_port`, `sticky run`); `none` gives each of them a free one",
};

pub(super) static NO_SOCKETS: Setting = Setting {
    name: "no_sockets",
    variable: Some("STICKY_NO_SOCKETS"),
    fallbacks: &[],
    default: "off",
    allowed: Allowed::Text(SWITCH),
    about: "refuse requests for WebSockets and other upgrades with 501; for proxy dispatch",
};

pub(super) static RESPONSE_TIMEOUT: Setting = Setting {
    name: "response_timeout",
    variable: Some("STICKY_RESPONSE_TIMEOUT"),
    fallbacks: &[],
    default: "none",
    allowed: Allowed::Duration { least: TEN_MILLIS, most: DAY, note: "; `none`" },
    about: "how long a worker may take until its response begins, before the proxy answers 504; for proxy dispatch",
};

pub(super) static TUNNEL_IDLE_TIMEOUT: Setting = Setting {
    name: "tunnel_idle_timeout",
    variable: Some("STICKY_TUNNEL_IDLE_TIMEOUT"),
    fallbacks: &[],
    default: "none",
    allowed: Allowed::Duration { least: TEN_MILLIS, most: DAY, note: "; `none`" },
    about: "how long a WebSocket or another upgraded connection may carry nothing either way; for proxy dispatch",
};

pub(super) static HASH_SEED: Setting = Setting {
    name: "hash_seed",
    variable: Some("STICKY_HASH_SEED"),
    fallbacks: &[],
    default: "drawn at start",
    allowed: Allowed::Count { least: 0, most: u64::MAX, note: "" },
    about: "seed of the placement, to place alike after a restart; clients must not know it",
};

pub(super) static BOOT_TIMEOUT: Setting = Setting {
    name: "boot_timeout",
    variable: Some("STICKY_BOOT_TIMEOUT"),
    fallbacks: &[],
    default: "1m",
    allowed: durations(TEN_MILLIS, HOUR),
    about: "how long a worker has from its start until it is ready",
};

pub(super) static PREPARE_TIMEOUT: Setting = Setting {
    name: "prepare_timeout",
    variable: Some("STICKY_PREPARE_TIMEOUT"),
    fallbacks: &[],
    default: "10m",
    allowed: durations(TEN_MILLIS, DAY),
    about: "how long `Cluster::prepare` may take before the start or the reload has failed",
};

pub(super) static HEARTBEAT_TIMEOUT: Setting = Setting {
    name: "heartbeat_timeout",
    variable: Some("STICKY_HEARTBEAT_TIMEOUT"),
    fallbacks: &[],
    default: "30s",
    allowed: durations(Duration::from_millis(100), HOUR),
    about: "how long a worker's event loop may stand still before the worker is replaced",
};

pub(super) static SHUTDOWN_TIMEOUT: Setting = Setting {
    name: "shutdown_timeout",
    variable: Some("STICKY_SHUTDOWN_TIMEOUT"),
    fallbacks: &[],
    default: "25s",
    allowed: durations(Duration::ZERO, DAY),
    about: "how long requests may take to finish when everything ends; 0s cuts at once",
};

pub(super) static DRAIN_TIMEOUT: Setting = Setting {
    name: "drain_timeout",
    variable: Some("STICKY_DRAIN_TIMEOUT"),
    fallbacks: &[],
    default: "5m",
    allowed: durations(Duration::ZERO, DAY),
    about: "how long requests may take to finish when their worker is replaced by a reload; 0s cuts at once",
};

pub(super) static RELOAD_PARALLEL: Setting = Setting {
    name: "reload_parallel",
    variable: Some("STICKY_RELOAD_PARALLEL"),
    fallbacks: &[],
    default: "1",
    allowed: Allowed::Count { least: 1, most: MAX_WORKERS as u64, note: "" },
    about: "how many workers a reload replaces at once",
};

pub(super) static RELOAD_SOAK: Setting = Setting {
    name: "reload_soak",
    variable: Some("STICKY_RELOAD_SOAK"),
    fallbacks: &[],
    default: "0s",
    allowed: durations(Duration::ZERO, HOUR),
    about: "how long a new worker must live after it is ready before a reload trusts it with clients",
};

pub(super) static MAX_REQUESTS: Setting = Setting {
    name: "max_requests",
    variable: Some("STICKY_MAX_REQUESTS"),
    fallbacks: &[],
    default: "none",
    allowed: Allowed::Count { least: 1, most: 1 << 53, note: "; `none`" },
    about: "how many requests a worker serves before another takes its place; each gets between 70 and 90 % of that",
};

pub(super) static MAX_AGE: Setting = Setting {
    name: "max_age",
    variable: Some("STICKY_MAX_AGE"),
    fallbacks: &[],
    default: "none",
    allowed: Allowed::Duration { least: SECOND, most: Duration::from_hours(365 * 24), note: "; `none`" },
    about: "how long a worker runs before another takes its place; each gets between 70 and 90 % of that",
};

pub(super) static MAX_RSS: Setting = Setting {
    name: "max_rss",
    variable: Some("STICKY_MAX_RSS"),
    fallbacks: &[],
    default: "none",
    allowed: Allowed::Memory { least: Memory(16 << 20), most: Memory(1 << 50) },
    about: "how much memory a worker uses before another takes its place; each gets between 70 and 90 % of that",
};

pub(super) static EXIT_TIMEOUT: Setting = Setting {
    name: "exit_timeout",
    variable: Some("STICKY_EXIT_TIMEOUT"),
    fallbacks: &[],
    default: "5s",
    allowed: durations(Duration::ZERO, HOUR),
    about: "how long a worker may take from the end of its drain to its exit; 0s kills at once",
};

pub(super) static FIRST_BYTE_TIMEOUT: Setting = Setting {
    name: "first_byte_timeout",
    variable: Some("STICKY_FIRST_BYTE_TIMEOUT"),
    fallbacks: &[],
    default: "1m",
    allowed: durations(TEN_MILLIS, DAY),
    about: "how long a new connection may stay silent",
};

pub(super) static HEAD_TIMEOUT: Setting = Setting {
    name: "head_timeout",
    variable: Some("STICKY_HEAD_TIMEOUT"),
    fallbacks: &[],
    default: "10s",
    allowed: durations(TEN_MILLIS, HOUR),
    about: "how long a request's head may take from its first byte to its last",
};

pub(super) static IDLE_TIMEOUT: Setting = Setting {
    name: "idle_timeout",
    variable: Some("STICKY_IDLE_TIMEOUT"),
    fallbacks: &[],
    default: "75s",
    allowed: durations(TEN_MILLIS, DAY),
    about: "how long a connection may stay silent between two requests",
};

pub(super) static MAX_CONNECTIONS: Setting = Setting {
    name: "max_connections",
    variable: Some("STICKY_MAX_CONNECTIONS"),
    fallbacks: &[],
    default: "none",
    allowed: Allowed::Count { least: 1, most: 10_000_000, note: "; `none`" },
    about: "how many connections a worker holds at once; more wait in the accept queue",
};

pub(super) static BACKLOG: Setting = Setting {
    name: "backlog",
    variable: Some("STICKY_BACKLOG"),
    fallbacks: &[],
    default: "4096",
    allowed: Allowed::Count { least: 1, most: i32::MAX as u64, note: "" },
    about: "the length of each accept queue; the kernel caps it at `net.core.somaxconn`",
};

pub(super) static ADMIN: Setting = Setting {
    name: "admin",
    variable: Some("STICKY_ADMIN"),
    fallbacks: &[],
    default: "none",
    allowed: Allowed::Text(AdminAddresses::ALLOWED),
    about: "where an admin process serves metrics and status, and takes commands: those only on unix sockets, and only from this user and root",
};

pub(super) static EXTRA_LISTENER: Setting = Setting {
    name: "extra_listener",
    variable: Some("STICKY_EXTRA_LISTENER"),
    fallbacks: &[],
    default: "none",
    allowed: Allowed::Text(ExtraAddresses::ALLOWED),
    about: "listeners of the application's own, which workers ask for by their names and share; they have no affinity",
};

pub(super) static REDIS_URL: Setting = Setting {
    name: "redis_url",
    variable: Some("STICKY_REDIS_URL"),
    fallbacks: &[],
    default: "none",
    allowed: Allowed::Text(RedisUrl::ALLOWED),
    about: "the Redis by which Socket.IO reaches other machines, in place of the bus; for `sticky-socketio` with its feature `redis`",
};

pub(super) static REDIS_PREFIX: Setting = Setting {
    name: "redis_prefix",
    variable: Some("STICKY_REDIS_PREFIX"),
    fallbacks: &[],
    default: "socket.io",
    allowed: Allowed::Text(RedisPrefix::ALLOWED),
    about: "what the names of its channels begin with; the same for all machines of an application, another for another application",
};

pub(super) static PREFIX_OUTPUT: Setting = Setting {
    name: "prefix_output",
    variable: Some("STICKY_PREFIX_OUTPUT"),
    fallbacks: &[],
    default: "auto",
    allowed: Allowed::Text(AUTO_SWITCH),
    about: "put `[2] ` in front of the lines worker 2 writes; `auto` does it on a terminal",
};

pub(super) static ENV: Setting = Setting {
    name: "env",
    variable: None,
    fallbacks: &[],
    default: "nothing",
    allowed: Allowed::Text("names without `=` and NUL that do not begin with `STICKY_`, values without NUL"),
    about: "a variable added to the workers' environment",
};

pub(super) static PREFER_ENV: Setting = Setting {
    name: "prefer_env",
    variable: None,
    fallbacks: &[],
    default: "off",
    allowed: Allowed::Text("said or not"),
    about: "let `STICKY_` variables win over code",
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as the documentation shows it.
    fn rendered() -> String {
        let mut text = String::from("| method | variables | default | allowed | what |\n|---|---|---|---|---|\n");
        for Setting { name, variable, fallbacks, default, allowed, about } in SETTINGS {
            let variables: Vec<_> = variable.iter().chain(*fallbacks).map(|name| format!("`{name}`")).collect();
            // Even in code a bar would end the cell.
            let (variables, allowed) = (variables.join(", "), allowed.to_string().replace('|', "\\|"));
            text +=
                &format!("| [`{name}`](ClusterBuilder::{name}) | {variables} | {default} | {allowed} | {about} |\n");
        }
        text
    }

    #[test]
    fn the_documentation_shows_this_table() {
        let shown = include_str!("settings.md");
        assert_eq!(shown, format!("\n{}", rendered()), "settings.md must read:\n\n{}", rendered());
    }

    /// The doc comment of a setter in the builder's source.
    fn setter_docs(name: &str) -> Vec<&'static str> {
        let source = include_str!("builder.rs");
        let start = [format!("    pub fn {name}("), format!("    pub fn {name}<")];
        let (before, _) = start.iter().find_map(|start| source.split_once(start.as_str())).expect("a setter");
        before.lines().rev().map_while(|line| line.trim().strip_prefix("///")).collect()
    }

    #[test]
    fn every_setting_has_a_setter_whose_docs_name_the_default() {
        for setting in SETTINGS {
            let docs = setter_docs(setting.name);
            let line = docs.iter().find_map(|line| line.trim().strip_prefix("Default: ")).expect(setting.name);
            let default = setting.default;
            let starts = [format!("`{default}`"), format!("{default}.")];
            assert!(starts.iter().any(|start| line.starts_with(start)), "{}: {line}", setting.name);
        }
        let setters = include_str!("builder.rs").matches("    pub fn ").count();
        assert_eq!(setters, SETTINGS.len());
    }

    #[test]
    fn variables_are_named_after_their_setters() {
        for setting in SETTINGS.iter().filter(|setting| setting.variable.is_some()) {
            assert_eq!(setting.variable, Some(format!("{PREFIX}{}", setting.name.to_ascii_uppercase()).as_str()));
        }
    }

    #[test]
    fn what_is_allowed_reads_well() {
        let noted = Allowed::Duration { least: SECOND, most: HOUR, note: "; `none`" };
        for (allowed, expected) in [
            (Allowed::Text("this"), "this"),
            (Allowed::Count { least: 1, most: 2, note: "; `none`" }, "a whole number from 1 to 2; `none`"),
            (durations(SECOND, HOUR), "a duration like `500ms`, `30s`, `5m` or `1h`, from 1s to 1h"),
            (noted, "a duration like `500ms`, `30s`, `5m` or `1h`, from 1s to 1h; `none`"),
            (Allowed::Failover { most: HOUR }, "a duration like `2s` up to 1h, `wait`, `refuse` or `refuse:5s`"),
        ] {
            assert_eq!(allowed.to_string(), expected);
        }
    }

    #[test]
    fn ranges_hold_their_ends_and_only_their_own_kind() {
        let count = Allowed::Count { least: 1, most: 2, note: "" };
        assert_eq!([0, 1, 2, 3].map(|value| count.has_count(value)), [false, true, true, false]);
        let failover = Allowed::Failover { most: HOUR };
        let nano = Duration::from_nanos(1);
        assert_eq!([Duration::ZERO, HOUR, HOUR + nano].map(|value| failover.has_duration(value)), [true, true, false]);
        let span = durations(nano, HOUR);
        let around = [Duration::ZERO, nano, HOUR, HOUR + nano].map(|value| span.has_duration(value));
        assert_eq!(around, [false, true, true, false]);
        assert!(!Allowed::Text("").has_count(1) && !span.has_count(1));
        assert!(!Allowed::Text("").has_duration(nano) && !count.has_duration(nano));
    }
}
