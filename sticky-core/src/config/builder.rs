//! The builder's setters: they only write down what code says. Nothing is judged before everything is known.

use std::ffi::OsString;
use std::time::Duration;

use super::cookie::{GivenCookie, GivenSecret, SameSite};
use super::failover::Failover;
use super::memory::Memory;
use super::parse::Value;
use super::trusted::TrustedProxies;
use crate::affinity::Affinity;
use crate::dispatch::Dispatch;
use crate::listener::address::ListenAddresses;
use crate::placement::Placement;

/// Says how a [`Cluster`](crate::Cluster) shall be. Everything has a default.
///
/// What code says wins over the environment, and the environment over the default;
/// [`prefer_env`](ClusterBuilder::prefer_env) turns the first two round. Mistakes are reported all at once when the
/// cluster is built.
///
/// A variable that is empty counts as unset. Variables without the prefix `STICKY_` are read from left to right, and
/// only where neither the `STICKY_` one nor code says anything. `STICKY_` variables are checked even where code wins,
/// and one that is not in this table is an error.
#[doc = include_str!("settings.md")]
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct ClusterBuilder {
    pub(super) listen: Vec<ListenAddresses>,
    pub(super) workers: Option<u64>,
    pub(super) max_workers: Option<u64>,
    pub(super) threads_per_worker: Option<u64>,
    pub(super) affinity: Option<Affinity>,
    pub(super) placement: Option<Placement>,
    pub(super) dispatch: Option<Dispatch>,
    pub(super) trusted_proxies: Option<Vec<String>>,
    pub(super) client_address_header: Option<String>,
    pub(super) proxy_protocol: Option<bool>,
    pub(super) cookie: GivenCookie,
    pub(super) worker_header: Option<bool>,
    pub(super) session_capacity: Option<u64>,
    pub(super) session_idle_timeout: Option<Duration>,
    pub(super) failover: Option<Failover>,
    pub(super) proxy_workers: Option<u64>,
    pub(super) first_port: Option<Option<u64>>,
    pub(super) no_sockets: Option<bool>,
    pub(super) response_timeout: Option<Option<Duration>>,
    pub(super) tunnel_idle_timeout: Option<Option<Duration>>,
    pub(super) hash_seed: Option<u64>,
    pub(super) boot_timeout: Option<Duration>,
    pub(super) prepare_timeout: Option<Duration>,
    pub(super) heartbeat_timeout: Option<Duration>,
    pub(super) shutdown_timeout: Option<Duration>,
    pub(super) drain_timeout: Option<Duration>,
    pub(super) reload_parallel: Option<u64>,
    pub(super) reload_soak: Option<Duration>,
    pub(super) max_requests: Option<Option<u64>>,
    pub(super) max_age: Option<Option<Duration>>,
    pub(super) max_rss: Option<Option<Memory>>,
    pub(super) exit_timeout: Option<Duration>,
    pub(super) first_byte_timeout: Option<Duration>,
    pub(super) head_timeout: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_connections: Option<Option<u64>>,
    pub(super) backlog: Option<u64>,
    pub(super) admin: Vec<ListenAddresses>,
    pub(super) extra_listener: Vec<(String, ListenAddresses)>,
    pub(super) redis_url: Option<GivenSecret>,
    pub(super) redis_prefix: Option<String>,
    pub(super) prefix_output: Option<Option<bool>>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) prefer_env: bool,
    pub(super) own_ports: bool,
    pub(super) usual: Option<(Affinity, Placement)>,
}

impl ClusterBuilder {
    /// Listens on this address: a port, a text like `localhost:3000` or `unix:/run/app.sock`, a
    /// [`SocketAddr`](std::net::SocketAddr), a pair of host and port, or a path. Further calls add addresses.
    ///
    /// Default: `:5000`, which is `[::]:5000` for IPv6 and IPv4, or `0.0.0.0:5000` where there is no IPv6.
    pub fn listen(mut self, address: impl Into<ListenAddresses>) -> Self {
        self.listen.push(address.into());
        self
    }

    /// How many worker processes, at most 256. 0 serves in this process, which `STICKY_WORKERS=0` does whatever code
    /// says.
    ///
    /// Default: the CPUs this process may use.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers as u64);
        self
    }

    /// How many worker processes there may be when the cluster is scaled while it runs, from [`workers`](Self::workers) to 256.
    /// SIGTTIN adds one, SIGTTOU takes the last one out.
    ///
    /// Each takes some memory and a few descriptors of the supervisor, whether it runs or not. Where workers listen by themselves
    /// ([`first_port`](Self::first_port)) each has its port, and by default there are no more than ports are left.
    ///
    /// Default: twice the workers, at least 8, at most 256.
    pub fn max_workers(mut self, workers: usize) -> Self {
        self.max_workers = Some(workers as u64);
        self
    }

    /// How many threads the runtime of each worker has, 1 to 1024.
    ///
    /// Default: CPUs divided by workers, at least 1.
    pub fn threads_per_worker(mut self, threads: usize) -> Self {
        self.threads_per_worker = Some(threads as u64);
        self
    }

    /// What of a client decides which worker serves it. Whatever is inside the request takes handoff dispatch.
    ///
    /// Default: `client-ip`.
    pub fn affinity(mut self, affinity: Affinity) -> Self {
        self.affinity = Some(affinity);
        self
    }

    /// Which worker gets a session that is seen for the first time. All but [`Placement::Rendezvous`] take handoff
    /// dispatch.
    ///
    /// Default: `rendezvous`.
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
        self
    }

    /// Forces the way connections reach their worker. This version has [`Dispatch::Kernel`] and [`Dispatch::Handoff`].
    ///
    /// Default: chosen by the affinity.
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.dispatch = Some(dispatch);
        self
    }

    /// Peers whose word about the client's address is taken: addresses (`10.0.0.1`), networks (`10.0.0.0/8`), and
    /// the presets `loopback`, `private` and `unix`. Further calls add peers. Anything but an empty list takes handoff
    /// dispatch.
    ///
    /// Whoever is trusted can say to be any client, so this is for proxies that write
    /// [`client_address_header`](Self::client_address_header) anew or add to it, and for nobody else.
    ///
    /// Default: `none`.
    pub fn trusted_proxies<P: Into<String>>(mut self, proxies: impl IntoIterator<Item = P>) -> Self {
        let all = self.trusted_proxies.get_or_insert_default();
        all.extend(proxies.into_iter().map(Into::into));
        self
    }

    /// The header in which trusted proxies name the client: `x-forwarded-for`, `forwarded` (RFC 7239), or one with a
    /// single address such as `x-real-ip`. No other is read. An error without
    /// [`trusted_proxies`](Self::trusted_proxies).
    ///
    /// Default: `x-forwarded-for`.
    pub fn client_address_header(mut self, name: impl Into<String>) -> Self {
        self.client_address_header = Some(name.into());
        self
    }

    /// Whether trusted proxies begin every connection with the PROXY protocol, version 1 or 2. Then one of theirs that
    /// begins otherwise is closed; other peers' connections begin as always. An error without
    /// [`trusted_proxies`](Self::trusted_proxies).
    ///
    /// Default: `off`.
    pub fn proxy_protocol(mut self, on: bool) -> Self {
        self.proxy_protocol = Some(on);
        self
    }

    /// The name of the sticky cookie. This and all that follows about it is an error where
    /// [`affinity`](Self::affinity) has no [`Affinity::sticky_cookie`].
    ///
    /// Default: `sticky`.
    pub fn cookie_name(mut self, name: impl Into<String>) -> Self {
        self.cookie.name = Some(name.into());
        self
    }

    /// The path below which browsers send the sticky cookie.
    ///
    /// Default: `/`.
    pub fn cookie_path(mut self, path: impl Into<String>) -> Self {
        self.cookie.path = Some(path.into());
        self
    }

    /// With which requests from other sites' pages browsers send the sticky cookie.
    ///
    /// Default: `lax`.
    pub fn cookie_same_site(mut self, same_site: SameSite) -> Self {
        self.cookie.same_site = Some(same_site);
        self
    }

    /// Whether browsers send the sticky cookie by TLS only. Auto does it where the client comes by TLS, or by a
    /// trusted proxy that says so.
    ///
    /// Default: `auto`.
    pub fn cookie_secure(mut self, secure: bool) -> Self {
        self.cookie.secure = Some(Some(secure));
        self
    }

    /// How long browsers keep the sticky cookie, 1 s to 400 days. `None` is as long as they are open.
    ///
    /// Default: `none`.
    pub fn cookie_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.cookie.lifetime = Some(lifetime.into());
        self
    }

    /// What seals the sticky cookie, at least 16 bytes that nobody can guess. Where it is the same on several machines,
    /// or after a restart, cookies are valid there too; those that are not are replaced. It is never shown.
    ///
    /// Default: drawn at start.
    pub fn cookie_secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.cookie.secret = Some(GivenSecret(secret.as_ref().to_owned()));
        self
    }

    /// The secret of before the last change: cookies sealed with it are still valid, and are sealed anew. An error
    /// without [`cookie_secret`](Self::cookie_secret).
    ///
    /// Default: `none`.
    pub fn cookie_previous_secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.cookie.previous_secret = Some(GivenSecret(secret.as_ref().to_owned()));
        self
    }

    /// Whether every response says in `x-sticky-worker` which worker gave it.
    ///
    /// Default: `off`.
    pub fn worker_header(mut self, on: bool) -> Self {
        self.worker_header = Some(on);
        self
    }

    /// How many sessions are remembered, 1024 to 16777216, rounded up to a power of two; the one unused for longest
    /// makes room. Only those are that no key and no cookie of ours says the worker of.
    ///
    /// Default: `65536`.
    pub fn session_capacity(mut self, sessions: usize) -> Self {
        self.session_capacity = Some(sessions as u64);
        self
    }

    /// How long an unused session is remembered, 1 s to 720 h.
    ///
    /// Default: `24h`.
    pub fn session_idle_timeout(mut self, timeout: Duration) -> Self {
        self.session_idle_timeout = Some(timeout);
        self
    }

    /// What becomes of clients whose worker is not there; the deadline is at most 1 h.
    ///
    /// Default: `2s`, which is [`Failover::Next`] after 2 seconds.
    pub fn failover(mut self, failover: Failover) -> Self {
        self.failover = Some(failover);
        self
    }

    /// How many proxy processes stand in front of the workers, at most 64; for [proxy dispatch](crate::Dispatch::Proxy).
    ///
    /// Default: `1`.
    pub fn proxy_workers(mut self, processes: u16) -> Self {
        self.proxy_workers = Some(processes.into());
        self
    }

    /// The port of worker 0 on the loopback interface; worker 1 has the next one, and so on: where workers listen
    /// themselves, which is with [`Cluster::run_on_port`](crate::Cluster::run_on_port) and `sticky run`.
    ///
    /// Default: `none`, which gives each start of a worker a port that is free.
    pub fn first_port(mut self, port: u16) -> Self {
        self.first_port = Some(Some(port.into()));
        self
    }

    /// Refuses requests for WebSockets and other upgrades with 501, for [proxy dispatch](crate::Dispatch::Proxy).
    ///
    /// Default: `off`.
    pub fn no_sockets(mut self, on: bool) -> Self {
        self.no_sockets = Some(on);
        self
    }

    /// How long a worker may take from the request to the head of its response, before the proxy answers 504, from 10 ms
    /// to 24 h; `None` is no limit. For [proxy dispatch](crate::Dispatch::Proxy).
    ///
    /// Default: `none`.
    pub fn response_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.response_timeout = Some(timeout.into());
        self
    }

    /// How long an upgraded connection may carry nothing in either direction before the proxy closes it, from 10 ms to
    /// 24 h; `None` is no limit. For [proxy dispatch](crate::Dispatch::Proxy).
    ///
    /// Default: `none`.
    pub fn tunnel_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.tunnel_idle_timeout = Some(timeout.into());
        self
    }

    /// The seed of the placement, to place clients alike after a restart. Clients who know it can aim at one worker.
    ///
    /// Default: drawn at start.
    pub fn hash_seed(mut self, seed: u64) -> Self {
        self.hash_seed = Some(seed);
        self
    }

    /// How long a worker has from its start until it is ready, 10 ms to 1 h.
    ///
    /// Default: `1m`.
    pub fn boot_timeout(mut self, timeout: Duration) -> Self {
        self.boot_timeout = Some(timeout);
        self
    }

    /// How long what [`Cluster::prepare`](crate::Cluster::prepare) does may take, 10 ms to 24 h. After that it is killed, and the
    /// start or the reload has failed.
    ///
    /// Default: `10m`.
    pub fn prepare_timeout(mut self, timeout: Duration) -> Self {
        self.prepare_timeout = Some(timeout);
        self
    }

    /// How long a worker's event loop may stand still before the worker is replaced, 100 ms to 1 h.
    ///
    /// Default: `30s`.
    pub fn heartbeat_timeout(mut self, timeout: Duration) -> Self {
        self.heartbeat_timeout = Some(timeout);
        self
    }

    /// How long requests may take to finish when everything ends, at most 24 h; zero cuts at once. Orchestrators
    /// kill after 30 s.
    ///
    /// Default: `25s`.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = Some(timeout);
        self
    }

    /// How long requests may take to finish when their worker is replaced by a reload, at most 24 h; zero cuts at once.
    /// Whoever is connected longer than that (WebSockets, server-sent events) is told by [`Drain`](crate::Drain) when the
    /// drain begins.
    ///
    /// Default: `5m`.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = Some(timeout);
        self
    }

    /// How many workers a reload replaces at once, 1 to 256. Each of them runs twice for a moment.
    ///
    /// Default: `1`.
    pub fn reload_parallel(mut self, workers: u16) -> Self {
        self.reload_parallel = Some(workers.into());
        self
    }

    /// How long a new worker must live after it is ready before a reload trusts it with clients, at most 1 h. If it
    /// ends or hangs before, the reload stops and the old one goes on.
    ///
    /// Default: `0s`.
    pub fn reload_soak(mut self, time: Duration) -> Self {
        self.reload_soak = Some(time);
        self
    }

    /// How many requests a worker serves before another takes its place, as in a [reload](Self::reload_soak) but from the
    /// program that runs already; at least 1, `None` is no limit. Each worker gets between 70 and 90 % of that, drawn anew
    /// for each, so that they do not fall due together; one is replaced at a time. Where workers listen by
    /// themselves ([`Cluster::run_on_port`](crate::Cluster::run_on_port)) nobody counts requests, and this is an error.
    ///
    /// Default: `none`.
    pub fn max_requests(mut self, requests: impl Into<Option<u64>>) -> Self {
        self.max_requests = Some(requests.into());
        self
    }

    /// How long a worker runs before another takes its place, 1 s to 365 days; `None` is no limit. As
    /// [`max_requests`](Self::max_requests).
    ///
    /// Default: `none`.
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.max_age = Some(age.into());
        self
    }

    /// How many bytes of the machine's memory a worker uses (its resident set) before another takes its place, 16 MiB to
    /// 1024 TiB; `None` is no limit. As [`max_requests`](Self::max_requests). It is looked up once a second, so a worker
    /// whose memory grows fast needs room above that. What `sticky run` has started counts with its worker.
    ///
    /// Default: `none`.
    pub fn max_rss(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.max_rss = Some(bytes.into().map(Memory));
        self
    }

    /// How long a worker may take from the end of its drain to its exit, at most 1 h; zero kills at once. The code
    /// after `serve` runs in this time.
    ///
    /// Default: `5s`.
    pub fn exit_timeout(mut self, timeout: Duration) -> Self {
        self.exit_timeout = Some(timeout);
        self
    }

    /// How long a new connection may stay silent, 10 ms to 24 h. Load balancers open some in advance.
    ///
    /// Default: `1m`.
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.first_byte_timeout = Some(timeout);
        self
    }

    /// How long a request's head may take from its first byte to its last, 10 ms to 1 h.
    ///
    /// Default: `10s`.
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.head_timeout = Some(timeout);
        self
    }

    /// How long a connection may stay silent between two requests, 10 ms to 24 h. A load balancer in front must give
    /// up sooner than this. It is noticed at most an eighth of that time later.
    ///
    /// Default: `75s`.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// How many connections a worker holds at once, at least 1; more wait in the accept queue. `None` is no limit.
    ///
    /// Default: `none`.
    pub fn max_connections(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.max_connections = Some(connections.into().map(|connections| connections as u64));
        self
    }

    /// The length of each accept queue, at least 1. The kernel caps it at `net.core.somaxconn`.
    ///
    /// Default: `4096`.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = Some(backlog.into());
        self
    }

    /// Serves metrics and status here, and takes commands: `unix:/run/app.admin.sock`. Such a socket is open to this
    /// program's user alone, and commands are taken from that user and from root only. An address like `127.0.0.1:9000` can
    /// only be read from. Further calls add addresses. Takes the feature `admin`; without a cluster nothing is served there.
    ///
    /// Default: `none`.
    pub fn admin(mut self, address: impl Into<ListenAddresses>) -> Self {
        self.admin.push(address.into());
        self
    }

    /// One more listener, for what the application serves beside its public port. Every worker gets it from
    /// [`Worker::listener`](crate::Worker::listener) by this name, which has lowercase letters, digits and `-`. Further calls
    /// add listeners, each with one address; a host name means the first of its addresses.
    ///
    /// The cluster listens there from its start to its end, so nobody is refused while workers are replaced or have died.
    /// It is shared: whichever worker accepts first has the connection, and there is no affinity.
    ///
    /// ```
    /// let builder = sticky_core::Cluster::builder()
    ///     .extra_listener("metrics", "127.0.0.1:9000")
    ///     .extra_listener("debug", "unix:/run/app.debug.sock");
    /// # builder.build()?;
    /// # Ok::<(), sticky_core::ConfigError>(())
    /// ```
    ///
    /// Default: `none`.
    pub fn extra_listener(mut self, name: impl Into<String>, address: impl Into<ListenAddresses>) -> Self {
        self.extra_listener.push((name.into(), address.into()));
        self
    }

    /// The Redis by which Socket.IO reaches the sockets of other machines, in place of the bus. For `sticky-socketio` with its
    /// feature `redis`; nobody else looks at it. It is never shown: there may be a password in it.
    ///
    /// Default: `none`.
    pub fn redis_url(mut self, url: impl Into<String>) -> Self {
        self.redis_url = Some(GivenSecret(url.into().into_bytes()));
        self
    }

    /// What the names of channels in Redis begin with: the same for all machines of an application, and another for another
    /// application that uses the same Redis. Nobody looks at it without [`redis_url`](Self::redis_url).
    ///
    /// Default: `socket.io`.
    pub fn redis_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.redis_prefix = Some(prefix.into());
        self
    }

    /// Whether the lines a worker writes get its number in front: `[2] `. Auto does it when standard output is a
    /// terminal.
    ///
    /// Default: `auto`.
    pub fn prefix_output(mut self, prefix: bool) -> Self {
        self.prefix_output = Some(Some(prefix));
        self
    }

    /// Adds a variable to the workers' environment; a later one of the same name replaces it. Names that begin with
    /// `STICKY_` are refused: in a worker they would configure another cluster than the supervisor's.
    ///
    /// Default: nothing.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Lets `STICKY_` variables win over code. The fallback variables still do not.
    ///
    /// Default: off.
    pub fn prefer_env(mut self) -> Self {
        self.prefer_env = true;
        self
    }

    /// The trusted proxies as one text, as the environment would give them.
    pub(super) fn trusted_proxies_text(&self) -> Option<String> {
        let list = self.trusted_proxies.as_ref()?;
        Some(if list.is_empty() { TrustedProxies::default().show() } else { list.join(",") })
    }
}
