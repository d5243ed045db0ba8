//! From builder, environment and machine to one typed value: pure, and everything that is wrong at once.

mod cookie;
mod route;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::time::Duration;

use super::builder::ClusterBuilder;
use super::cookie::{GivenSecret, Secret};
use super::env::Environment;
use super::error::{ConfigError, ConfigProblem, Given};
use super::parse::Value;
use super::redis::{Redis, RedisUrl};
use super::settings::{self, PREFIX, Setting};
use super::{Config, Machine};
use crate::affinity::{Affinity, ParseAffinityError};
use crate::dispatch::Dispatch;
use crate::id::MAX_WORKERS;
use crate::listener::address::{ListenAddress, ListenAddresses};
use crate::placement::Placement;

const DEFAULT_PORT: u16 = 5000;
const DEFAULT_BACKLOG: u32 = 4096;
const DEFAULT_PROXIES: u16 = 1;
/// How many workers there may be where nobody says, at least.
const LEAST_ROOM: u16 = 8;
const DEFAULT_SESSIONS: usize = 1 << 16;

impl ClusterBuilder {
    /// Resolves every setting: code, then the environment, then the default.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the table of settings; unknown variables come last.
    pub(crate) fn resolve(self, environment: &Environment, machine: &Machine) -> Result<Config, ConfigError> {
        let mut resolver = Resolver { environment, prefer_env: self.prefer_env, problems: Vec::new() };
        let config = resolver.config(self, machine);
        resolver.find_unknown_variables();
        if resolver.problems.is_empty() { Ok(config) } else { Err(ConfigError::new(resolver.problems)) }
    }
}

/// A value and where it came from.
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) given: Given,
}

/// Collects the problems, so that one does not hide the next. Where there is one, the setting goes on with a value
/// that nobody will see.
pub(super) struct Resolver<'a> {
    environment: &'a Environment,
    prefer_env: bool,
    problems: Vec<ConfigProblem>,
}

impl Resolver<'_> {
    /// Reads the settings in the order of their table, which is then the order of the problems.
    fn config(&mut self, mut builder: ClusterBuilder, machine: &Machine) -> Config {
        let (listen, passed) = self.listen(std::mem::take(&mut builder.listen));
        let workers = self.workers(builder.workers, machine);
        let max_workers = self.max_workers(builder.max_workers, workers);
        let threads_per_worker = self.threads(builder.threads_per_worker, machine, workers.unwrap_or(1));
        let route = self.route(&mut builder, passed);
        let sticky_cookie = self.sticky_cookie(builder.cookie, route.has_sticky_cookie);
        let dispatch = route.choice.dispatch;
        let public = listen.clone();
        let mut config = Config {
            workers: workers.unwrap_or(1),
            max_workers: max_workers.unwrap_or(0),
            threads_per_worker,
            listen,
            affinity: route.affinity,
            placement: route.placement,
            trust: route.trust,
            proxy_protocol: route.proxy_protocol,
            sticky_cookie,
            worker_header: self.value(&settings::WORKER_HEADER, builder.worker_header).unwrap_or_default(),
            session_capacity: self.session_capacity(builder.session_capacity),
            session_idle_timeout: self.duration(&settings::SESSION_IDLE_TIMEOUT, builder.session_idle_timeout, 86_400),
            dispatch,
            dispatch_reason: route.choice.reason,
            failover: self.value(&settings::FAILOVER, builder.failover).unwrap_or_default(),
            proxy_workers: self.proxy_workers(builder.proxy_workers),
            first_port: self.first_port(builder.first_port, max_workers.max(workers)),
            own_ports: builder.own_ports,
            no_sockets: self.no_sockets(builder.no_sockets, dispatch),
            response_timeout: self.value(&settings::RESPONSE_TIMEOUT, builder.response_timeout).flatten(),
            tunnel_idle_timeout: self.value(&settings::TUNNEL_IDLE_TIMEOUT, builder.tunnel_idle_timeout).flatten(),
            hash_seed: self.value(&settings::HASH_SEED, builder.hash_seed),
            boot_timeout: self.duration(&settings::BOOT_TIMEOUT, builder.boot_timeout, 60),
            prepare_timeout: self.duration(&settings::PREPARE_TIMEOUT, builder.prepare_timeout, 600),
            heartbeat_timeout: self.duration(&settings::HEARTBEAT_TIMEOUT, builder.heartbeat_timeout, 30),
            shutdown_timeout: self.duration(&settings::SHUTDOWN_TIMEOUT, builder.shutdown_timeout, 25),
            drain_timeout: self.duration(&settings::DRAIN_TIMEOUT, builder.drain_timeout, 300),
            reload_parallel: self.reload_parallel(builder.reload_parallel),
            reload_soak: self.duration(&settings::RELOAD_SOAK, builder.reload_soak, 0),
            max_requests: self.max_requests(builder.max_requests, builder.own_ports),
            max_age: self.value(&settings::MAX_AGE, builder.max_age).flatten(),
            max_rss: self.value(&settings::MAX_RSS, builder.max_rss).flatten(),
            exit_timeout: self.duration(&settings::EXIT_TIMEOUT, builder.exit_timeout, 5),
            first_byte_timeout: self.duration(&settings::FIRST_BYTE_TIMEOUT, builder.first_byte_timeout, 60),
            head_timeout: self.duration(&settings::HEAD_TIMEOUT, builder.head_timeout, 10),
            idle_timeout: self.duration(&settings::IDLE_TIMEOUT, builder.idle_timeout, 75),
            max_connections: self.value(&settings::MAX_CONNECTIONS, builder.max_connections).flatten().and_then(size),
            backlog: self.backlog(builder.backlog),
            admin: self.admin(builder.admin),
            extra_listeners: self.extra_listeners(builder.extra_listener, &public),
            redis: self.redis(builder.redis_url.take(), builder.redis_prefix.take()),
            prefix_output: self.value(&settings::PREFIX_OUTPUT, builder.prefix_output).flatten(),
            env: self.extra_environment(builder.env),
        };
        if max_workers.is_none() {
            config.max_workers = most_workers(&config);
        }
        config
    }

    /// The addresses, and the setting that has a service manager pass some of them, if one does.
    fn listen(&mut self, calls: Vec<ListenAddresses>) -> (Vec<ListenAddress>, Option<String>) {
        let code = self.addresses(&settings::LISTEN, calls);
        let Some(found) = self.pick(&settings::LISTEN, code) else {
            return (vec![ListenAddress::Any { port: DEFAULT_PORT }], None);
        };
        self.refuse_twice(&settings::LISTEN, &found.value, &found.given);
        let is_passed = found.value.iter().any(|address| matches!(address, ListenAddress::Systemd(_)));
        (found.value, is_passed.then(|| found.given.to_string()))
    }

    /// The addresses that code says, in one or several calls; none without a call.
    pub(super) fn addresses(&mut self, setting: &Setting, calls: Vec<ListenAddresses>) -> Option<Vec<ListenAddress>> {
        let mut code = (!calls.is_empty()).then(Vec::new);
        for call in calls {
            let given = Given::Builder { method: setting.name, value: call.given().to_owned() };
            match call.into_result() {
                Ok(addresses) => code.get_or_insert_default().extend(addresses),
                Err(errors) => errors.iter().for_each(|error| self.refuse(setting, &given, error)),
            }
        }
        code
    }

    pub(super) fn refuse_twice(&mut self, setting: &Setting, addresses: &[ListenAddress], given: &Given) {
        let mut seen = HashSet::new();
        for twice in addresses.iter().filter(|address| has_fixed_place(address) && !seen.insert(*address)) {
            self.refuse(setting, given, format_args!("{twice} is there twice"));
        }
    }

    /// The number of workers; none if it could not be made out.
    fn workers(&mut self, code: Option<u64>, machine: &Machine) -> Option<u16> {
        let problems = self.problems.len();
        let workers = self.value(&settings::WORKERS, code);
        if self.problems.len() > problems {
            return None;
        }
        // For debugging: one variable makes any program serve in one process, whatever its code says.
        let variable = settings::WORKERS.variable.and_then(|name| self.environment.text(name).ok().flatten());
        if variable.is_some_and(|text| u64::parse(text) == Ok(0)) {
            return Some(0);
        }
        let workers = workers.unwrap_or(machine.cpus.get() as u64);
        Some(u16::try_from(workers).unwrap_or(MAX_WORKERS).min(MAX_WORKERS))
    }

    /// How many workers there may be; none where nobody says anything.
    fn max_workers(&mut self, code: Option<u64>, workers: Option<u16>) -> Option<u16> {
        let found = self.pick(&settings::MOST_WORKERS, code)?;
        let most = u16::try_from(found.value).unwrap_or(MAX_WORKERS);
        if let Some(workers) = workers.filter(|workers| *workers > most) {
            let reason = format_args!("there are {workers} workers to begin with");
            self.refuse(&settings::MOST_WORKERS, &found.given, reason);
        }
        Some(most)
    }

    fn threads(&mut self, code: Option<u64>, machine: &Machine, workers: u16) -> NonZeroUsize {
        let by_default = machine.cpus.get() / usize::from(workers.max(1));
        let threads = self.value(&settings::THREADS_PER_WORKER, code).and_then(size);
        threads.or(NonZeroUsize::new(by_default)).unwrap_or(NonZeroUsize::MIN)
    }

    fn reload_parallel(&mut self, code: Option<u64>) -> u16 {
        self.value(&settings::RELOAD_PARALLEL, code).and_then(|workers| u16::try_from(workers).ok()).unwrap_or(1)
    }

    /// Requests are counted where they are served: who listens by itself counts none for us.
    fn max_requests(&mut self, code: Option<Option<u64>>, own_ports: bool) -> Option<u64> {
        let found = self.pick(&settings::MAX_REQUESTS, code)?;
        if own_ports && found.value.is_some() {
            let reason = "programs that listen by themselves count no requests: there are max_age and max_rss";
            self.refuse(&settings::MAX_REQUESTS, &found.given, reason);
        }
        found.value
    }

    /// The first port of the upstreams: every worker needs one, counted up from it.
    fn first_port(&mut self, code: Option<Option<u64>>, workers: Option<u16>) -> Option<u16> {
        let found = self.pick(&settings::FIRST_PORT, code)?;
        let first = u16::try_from(found.value?).ok()?;
        let more = workers.unwrap_or(0).saturating_sub(1);
        if first.checked_add(more).is_none() {
            let reason = format_args!("the ports for {} workers end above 65535", more + 1);
            self.refuse(&settings::FIRST_PORT, &found.given, reason);
        }
        Some(first)
    }

    fn proxy_workers(&mut self, code: Option<u64>) -> u16 {
        let count = self.value(&settings::PROXY_WORKERS, code).and_then(|count| u16::try_from(count).ok());
        count.unwrap_or(DEFAULT_PROXIES)
    }

    /// Only who forwards requests can refuse them.
    fn no_sockets(&mut self, code: Option<bool>, dispatch: Dispatch) -> bool {
        let found = self.pick(&settings::NO_SOCKETS, code).filter(|found| found.value);
        if let Some(found) = found.as_ref().filter(|_| dispatch != Dispatch::Proxy) {
            self.require(&found.given, &settings::DISPATCH, "only proxy dispatch can refuse upgrades");
        }
        found.is_some()
    }

    /// Rounded up, so that a hash finds its place with a mask.
    fn session_capacity(&mut self, code: Option<u64>) -> usize {
        let capacity = self.value(&settings::SESSION_CAPACITY, code).and_then(size);
        capacity.map_or(DEFAULT_SESSIONS, |capacity| capacity.get().next_power_of_two())
    }

    fn backlog(&mut self, code: Option<u64>) -> u32 {
        let backlog = self.value(&settings::BACKLOG, code);
        backlog.and_then(|backlog| u32::try_from(backlog).ok()).unwrap_or(DEFAULT_BACKLOG)
    }

    fn redis(&mut self, url: Option<GivenSecret>, prefix: Option<String>) -> Redis {
        let url = url.and_then(|GivenSecret(text)| {
            let parsed = RedisUrl::parse(&String::from_utf8_lossy(&text));
            self.code(&settings::REDIS_URL, Secret::HIDDEN.to_owned(), parsed)
        });
        let prefix = prefix.and_then(|text| self.code_text(&settings::REDIS_PREFIX, text));
        Redis {
            url: self.value(&settings::REDIS_URL, url).unwrap_or_default(),
            prefix: self.value(&settings::REDIS_PREFIX, prefix).unwrap_or_default(),
        }
    }

    fn duration(&mut self, setting: &Setting, code: Option<Duration>, default_seconds: u64) -> Duration {
        self.value(setting, code).unwrap_or(Duration::from_secs(default_seconds))
    }

    /// Checks what would make the start of a worker fail, or make it another cluster's. The values stay out of the
    /// problem: they may be secrets.
    fn extra_environment(&mut self, variables: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
        for (name, value) in &variables {
            let reason = match (name.as_encoded_bytes(), value.as_encoded_bytes()) {
                (bytes, _) if bytes.is_empty() || bytes.contains(&b'=') || bytes.contains(&0) => "not a name",
                (bytes, _) if bytes.starts_with(PREFIX.as_bytes()) => "the name is reserved",
                (_, bytes) if bytes.contains(&0) => "the value has a NUL",
                _ => continue,
            };
            let given = Given::Builder { method: settings::ENV.name, value: format!("{:?}, ..", name as &OsStr) };
            self.refuse(&settings::ENV, &given, reason);
        }
        variables
    }

    fn find_unknown_variables(&mut self) {
        let unknown = self.environment.unknown();
        self.problems.extend(unknown.map(|(variable, nearest)| ConfigProblem::UnknownVariable { variable, nearest }));
    }

    // === One setting ===

    fn value<T: Value>(&mut self, setting: &Setting, code: Option<T>) -> Option<T> {
        self.pick(setting, code).map(|found| found.value)
    }

    /// What was said about a setting, by whoever comes first. Code and our own variable are both checked, whichever
    /// wins; the fallbacks are other programs' variables, so they are read only where they count.
    pub(super) fn pick<T: Value>(&mut self, setting: &Setting, code: Option<T>) -> Option<Found<T>> {
        let silent = code.is_none() && !setting.variable.is_some_and(|name| self.is_set(name));
        let code = code.and_then(|value| {
            let given = Given::Builder { method: setting.name, value: value.show() };
            self.accept(setting, given, Ok(value))
        });
        let variable = setting.variable.and_then(|name| self.read(setting, name, T::parse));
        let fallback = setting.fallbacks.iter().find(|name| silent && self.is_set(name));
        let fallback = fallback.and_then(|name| self.read(setting, name, T::parse_fallback));
        let (first, second) = if self.prefer_env { (variable, code) } else { (code, variable) };
        first.or(second).or(fallback)
    }

    /// Whether the variable says anything, if only rubbish.
    fn is_set(&self, name: &str) -> bool {
        self.environment.text(name) != Ok(None)
    }

    fn read<T: Value>(
        &mut self,
        setting: &Setting,
        name: &'static str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<Found<T>> {
        match self.environment.text(name) {
            Ok(text) => {
                let text = text?;
                let value = if T::IS_SECRET { Secret::HIDDEN } else { text }.to_owned();
                self.accept(setting, Given::Variable { name, value }, parse(text))
            }
            Err(value) => {
                let value = if T::IS_SECRET { Secret::HIDDEN.to_owned() } else { value };
                let allowed = setting.allowed.to_string();
                self.problems.push(ConfigProblem::NotUnicode { variable: name, value, allowed });
                None
            }
        }
    }

    fn accept<T: Value>(&mut self, setting: &Setting, given: Given, parsed: Result<T, String>) -> Option<Found<T>> {
        match parsed {
            Ok(value) if value.is_allowed(&setting.allowed) => return Some(Found { value, given }),
            Ok(_) => self.refuse(setting, &given, "out of range"),
            Err(reason) => self.refuse(setting, &given, reason),
        }
        None
    }

    pub(super) fn refuse(&mut self, setting: &Setting, given: &Given, reason: impl ToString) {
        let (given, reason, allowed) = (given.clone(), reason.to_string(), setting.allowed.to_string());
        self.problems.push(ConfigProblem::NotAllowed { given, reason, allowed });
    }
}

/// A checked count as a size; none for 0.
fn size(count: u64) -> Option<NonZeroUsize> {
    usize::try_from(count).ok().and_then(NonZeroUsize::new)
}

/// How many workers there may be where nobody says: twice as many as there are, as far as there are ports for them.
fn most_workers(config: &Config) -> u16 {
    let most = config.workers.saturating_mul(2).clamp(LEAST_ROOM, MAX_WORKERS);
    let is_free = |port: &u16| !config.listen.iter().any(|address| port_of(address) == Some(*port));
    let ports = config.first_port.into_iter().flat_map(|first| first..=u16::MAX).take(most.into()).take_while(is_free);
    let room = if config.first_port.is_some() { ports.count() as u16 } else { most };
    room.max(config.workers)
}

fn port_of(address: &ListenAddress) -> Option<u16> {
    match address {
        ListenAddress::Any { port } | ListenAddress::Host { port, .. } => Some(*port),
        ListenAddress::Socket(address) => Some(address.port()),
        ListenAddress::Unix(_) | ListenAddress::Systemd(_) => None,
    }
}

/// Whether two listeners at this address would get in each other's way. Port 0 is another port each time.
fn has_fixed_place(address: &ListenAddress) -> bool {
    port_of(address) != Some(0)
}

impl Value for Affinity {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: ParseAffinityError| error.mistakes())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Placement {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "not a placement".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Dispatch {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "not a dispatch".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Vec<ListenAddress> {
    fn parse(text: &str) -> Result<Self, String> {
        ListenAddresses::parse(text).into_result().map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            errors.join(", ")
        })
    }

    /// Other programs give `PORT` a port and nothing else.
    fn parse_fallback(text: &str) -> Result<Self, String> {
        let port = u64::parse(text).ok().and_then(|port| u16::try_from(port).ok());
        let port = port.ok_or_else(|| "not a port from 0 to 65535".to_owned())?;
        Ok(vec![ListenAddress::Any { port }])
    }

    fn show(&self) -> String {
        let texts: Vec<_> = self.iter().map(ToString::to_string).collect();
        texts.join(",")
    }
}

#[cfg(test)]
mod cookie_tests;
#[cfg(test)]
mod tests;
