//! What runs inside a worker: who it is, its connections, its drain, and the thread that watches the supervisor.

mod block_on;
mod connections;
mod drain;
#[cfg(cluster)]
pub(crate) mod enter;
mod evicted;
pub(crate) mod exports;
mod extra;
pub(crate) mod farewell;
mod home;
mod leadership;
#[cfg(cluster)]
mod lifeline;
mod listener;
mod lobby;
mod opening;
mod port;
mod prepare;
#[cfg_attr(not(cluster), path = "no_service.rs")]
mod service;
mod standalone;
mod stay;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;

pub(crate) use block_on::block_on;
pub use connections::Connections;
pub(crate) use connections::Order;
pub use drain::{Drain, DrainReason};
pub(crate) use drain::{DrainTrigger, News, SAME_SIGNAL};
use exports::Exports;
pub use extra::{ExtraConnections, ExtraListener, ExtraListenerError};
pub(crate) use extra::{Extras, Socket as ExtraSocket};
pub(crate) use farewell::Answer;
pub(crate) use home::Home;
pub(crate) use leadership::Office;
pub use leadership::{Leadership, Tenure};
pub(crate) use listener::{BoundListener, Lent};
pub(crate) use opening::FIRST_REQUEST_GRACE;
pub(crate) use port::{choose as choose_port, connect as connect_to_port};
pub(crate) use prepare::Preparation;
pub use standalone::StandaloneError;
pub(crate) use standalone::standalone;
pub use stay::Stay;
use stay::Stays;

use crate::affinity::SessionTag;
use crate::bus::Bus;
use crate::config::{Config, Redis};
use crate::connection::Registry;
use crate::control::FromWorker;
use crate::deadline::Timeouts;
use crate::dispatch::handoff::judge::{Judge, Rules};
use crate::dispatch::{Dispatch, handoff};
use crate::id::{Generation, WorkerId};
use crate::listener::ListenAddress;
use crate::placement::KernelHash;
use crate::scoreboard::{Headcount, Row};
use crate::session::Sessions;

static CURRENT: OnceLock<Worker> = OnceLock::new();

/// The worker this process is: a cheap handle to its identity, its drain and its connections.
///
/// Comes from [`Cluster::enter`](crate::Cluster::enter) or [`Cluster::run`](crate::Cluster::run); anywhere else in
/// the process from [`Worker::current`].
#[derive(Clone)]
pub struct Worker {
    inner: Arc<Inner>,
}

struct Inner {
    id: WorkerId,
    generation: Generation,
    workers: Headcount,
    drain: Drain,
    /// What connections hear of it.
    connection_drain: Drain,
    trigger: DrainTrigger,
    registry: Registry,
    limits: Limits,
    /// The kernel's placement, where connections can be checked against it.
    placement: Option<KernelHash>,
    /// What handing connections over takes, where that is the dispatch.
    plan: Option<Plan>,
    judge: Arc<Judge>,
    sessions: Arc<Sessions>,
    bus: Bus,
    office: Arc<Office>,
    exports: Exports,
    extras: Extras,
    stays: Stays,
    redis: Redis,
    orders: Mutex<Option<mpsc::UnboundedReceiver<Order>>>,
    report: Box<dyn Fn(FromWorker) + Send + Sync>,
    sockets: Sockets,
    /// Orders nobody takes: a framework has the listener itself.
    untaken: OnceLock<mpsc::UnboundedReceiver<Order>>,
    /// Whether what this worker says last is of interest no more: it was ready.
    served: AtomicBool,
}

/// How much longer than `failover` says a connection waits to be sent: the word that its owner is out has to come round
/// first.
const WORD_TIME: Duration = Duration::from_secs(1);

/// What a worker needs to hand connections over.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) settings: handoff::Settings,
    /// Taken when the connections are.
    pub(crate) senders: Mutex<handoff::Senders>,
    /// Every process of the cluster, to tell when none accepts any more.
    pub(crate) rows: Vec<Row>,
}

impl Plan {
    /// The plan of a worker behind proxies: those mind the time, and what they forward is theirs.
    #[cfg(cluster)]
    pub(crate) fn behind_proxies(mut self) -> Self {
        self.settings.timeouts = Timeouts::NONE;
        self.settings.proxy_protocol = false;
        self
    }

    /// None where the kernel's placement is all there is.
    pub(crate) fn of(config: &Config, senders: handoff::Senders, rows: Vec<Row>) -> Option<Self> {
        let settings = handoff::Settings {
            timeouts: Timeouts::of(config),
            patience: config.failover.after().map(|after| after + WORD_TIME),
            proxy_protocol: config.proxy_protocol,
        };
        let plan = Self { settings, senders: Mutex::new(senders), rows };
        (config.dispatch != Dispatch::Kernel).then_some(plan)
    }
}

/// A process that forwards requests to workers.
#[cfg(all(cluster, feature = "proxy"))]
pub(crate) struct Proxy {
    /// What it shares with workers: connections, drain, counts.
    pub(crate) worker: Worker,
    /// Whose requests are.
    pub(crate) judge: Arc<Judge>,
    pub(crate) road: Road,
}

/// The ways to the workers, for those who forward.
#[cfg(cluster)]
#[cfg_attr(not(feature = "proxy"), allow(dead_code))]
pub(crate) struct Road {
    /// Into each slot.
    pub(crate) channels: handoff::Senders,
    /// Where workers listen, if they do so themselves.
    pub(crate) ports: Option<tokio::sync::watch::Receiver<Vec<crate::control::Port>>>,
    /// What each process shows of itself.
    pub(crate) rows: Vec<Row>,
    /// What is known of sessions, for each slot whose worker does not know of any.
    pub(crate) sessions: Vec<Arc<Sessions>>,
}

/// What there is to listen on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sockets {
    pub(crate) dispatch: Dispatch,
    pub(crate) addresses: usize,
    pub(crate) all_tcp: bool,
}

/// How long a connection may take, and how many there may be. Each is a setting of the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) timeouts: Timeouts,
    pub(crate) max_connections: Option<NonZeroUsize>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) heartbeat_timeout: Duration,
}

impl Limits {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            timeouts: Timeouts::of(config),
            max_connections: config.max_connections,
            shutdown_timeout: config.shutdown_timeout,
            heartbeat_timeout: config.heartbeat_timeout,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            max_connections: None,
            shutdown_timeout: Duration::from_secs(25),
            heartbeat_timeout: Duration::from_secs(30),
        }
    }
}

/// What a worker is made of; each way into a cluster fills it in.
pub(crate) struct Parts {
    pub(crate) id: WorkerId,
    pub(crate) generation: Generation,
    pub(crate) workers: Headcount,
    pub(crate) registry: Registry,
    pub(crate) limits: Limits,
    pub(crate) placement: Option<KernelHash>,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    pub(crate) report: Box<dyn Fn(FromWorker) + Send + Sync>,
    pub(crate) drain: (DrainTrigger, Drain),
    pub(crate) sockets: Sockets,
    pub(crate) plan: Option<Plan>,
    pub(crate) judge: Arc<Judge>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) bus: Bus,
    pub(crate) office: Arc<Office>,
    pub(crate) exports: Exports,
    pub(crate) extras: Extras,
    pub(crate) redis: Redis,
}

impl Worker {
    pub(crate) fn new(parts: Parts) -> Self {
        let (trigger, drain) = parts.drain;
        let connection_drain = if parts.judge.serves_proxies() { drain.of_forwarded() } else { drain.clone() };
        let inner = Inner {
            id: parts.id,
            generation: parts.generation,
            workers: parts.workers,
            drain,
            connection_drain,
            trigger,
            registry: parts.registry,
            limits: parts.limits,
            placement: parts.placement,
            orders: Mutex::new(Some(parts.orders)),
            report: parts.report,
            sockets: parts.sockets,
            plan: parts.plan,
            judge: parts.judge,
            sessions: parts.sessions,
            bus: parts.bus,
            office: parts.office,
            exports: parts.exports,
            extras: parts.extras,
            stays: Stays::new(),
            redis: parts.redis,
            untaken: OnceLock::new(),
            served: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Makes this the worker that [`Worker::current`] answers.
    pub(crate) fn install(self) -> Self {
        CURRENT.get_or_init(|| self).clone()
    }

    /// The worker this process is; `None` before the cluster has been entered, and in a supervisor.
    pub fn current() -> Option<Worker> {
        CURRENT.get().cloned()
    }

    /// A worker without a cluster, for the unit tests of applications: slot 0 of 1, its drain never starts and no
    /// connection ever comes.
    ///
    /// ```
    /// let worker = sticky_core::Worker::detached();
    /// assert_eq!(worker.id().get(), 0);
    /// assert_eq!(worker.workers(), 1);
    /// ```
    pub fn detached() -> Worker {
        let (sender, orders) = mpsc::unbounded_channel();
        // The sender must outlive the receiver's last poll: a closed channel would read as "everything has ended".
        let id = WorkerId::new(0);
        let sessions = Arc::new(Sessions::none());
        let report: Box<dyn Fn(FromWorker) + Send + Sync> = Box::new(move |_| {
            let _ = &sender;
        });
        Worker::new(Parts {
            id,
            generation: Generation::FIRST,
            workers: 1.into(),
            registry: Registry::new(Row::detached()),
            limits: Limits::default(),
            placement: None,
            orders,
            report,
            drain: DrainTrigger::new(),
            sockets: Sockets { dispatch: Dispatch::Kernel, addresses: 0, all_tcp: true },
            plan: None,
            judge: Arc::new(Judge::new(id, 1, 0, Rules::default(), Arc::clone(&sessions), Vec::new())),
            sessions,
            bus: Bus::alone(id, Row::detached()),
            office: Office::alone(),
            exports: Exports::default(),
            extras: Extras::default(),
            redis: Redis::default(),
        })
    }

    /// The slot this worker is in.
    pub fn id(&self) -> WorkerId {
        self.inner.id
    }

    /// Which start of the slot this process is.
    pub fn generation(&self) -> Generation {
        self.inner.generation
    }

    /// How many workers the cluster has just now, in the slots from 0 on; 1 without a cluster.
    ///
    /// A cluster can be scaled while it runs. Where it has fewer workers from now on, one whose slot is not among them drains
    /// ([`DrainReason::ScaledIn`]).
    pub fn workers(&self) -> u16 {
        self.inner.workers.now()
    }

    /// The worker that everything with this key reaches, as long as all workers are there and as many as now: of a session id, a
    /// user, a room, wherever requests carry it.
    ///
    /// That holds for keys that are hashed, not for sessions that are [learned](crate::Affinity::learn) or placed
    /// otherwise.
    ///
    /// ```
    /// let worker = sticky_core::Worker::detached();
    /// assert_eq!(worker.owner_of("session-1"), worker.id());
    /// ```
    pub fn owner_of(&self, key: impl AsRef<[u8]>) -> WorkerId {
        self.inner.judge.owner_of(key.as_ref()).unwrap_or(self.inner.id)
    }

    /// A key that belongs to this worker: draws keys until one does, as many as there are workers on average. A session
    /// with this id stays where it is made, and nobody has to remember that.
    ///
    /// ```
    /// # let mut numbers = 0..;
    /// # let mut random_id = || format!("{:08x}", numbers.next().unwrap());
    /// let worker = sticky_core::Worker::detached();
    /// let session_id = worker.own_key(|| random_id());
    /// assert_eq!(worker.owner_of(&session_id), worker.id());
    /// ```
    ///
    /// # Panics
    ///
    /// When `draw` gives so many keys of other workers that they cannot be different ones.
    pub fn own_key<K: AsRef<[u8]>>(&self, draw: impl FnMut() -> K) -> K {
        // With 256 workers, one in 10²⁷ calls would come to this end with keys that differ.
        let mut draws = std::iter::repeat_with(draw).take(16 * 1024);
        draws.find(|key| self.owner_of(key) == self.inner.id).expect("`draw` gives a new key each time")
    }

    /// Forgets that a session is in this worker, where it was [learned](crate::Affinity::learn) or placed: it has ended.
    /// Its key is hashed again from then on.
    ///
    /// Nothing happens if nothing is known of it. Sessions that nobody forgets are forgotten after `session_idle_timeout`.
    pub fn forget_session(&self, key: impl AsRef<[u8]>) {
        self.inner.sessions.forget(key.as_ref());
    }

    /// The Redis that is to be used instead of the bus, where that is set. For integrations.
    pub fn redis_url(&self) -> Option<&str> {
        self.inner.redis.url.get()
    }

    /// What the names of channels in Redis begin with. For integrations.
    pub fn redis_prefix(&self) -> &str {
        self.inner.redis.prefix.get()
    }

    /// What the ids of Engine.IO sessions that are made here must have after them, where requests are placed by that.
    /// For integrations.
    pub fn session_tag(&self) -> Option<SessionTag> {
        let is_read = self.inner.plan.is_some() && self.inner.judge.reads_session_tags();
        is_read.then(|| SessionTag::new(self.inner.id))
    }

    /// Messages between the workers of this cluster; without a cluster, within this process.
    ///
    /// The first call makes this process take part: before it costs nothing.
    pub fn bus(&self) -> Bus {
        self.inner.bus.join()
    }

    /// The leadership of the cluster, for what must be done by one worker at a time. The first call makes this worker a
    /// candidate.
    pub fn leadership(&self) -> Leadership {
        self.inner.office.stand()
    }

    /// Has the admin process show the application's own metrics with those of sticky: whenever it is asked for them, `tell`
    /// gives a text in OpenMetrics or in the older text format of Prometheus, as the libraries for that write it. Each line
    /// gets the label `worker="2"`; one that is called so already becomes `exported_worker`.
    ///
    /// Only the process that serves in a slot is asked, on a thread of its own and not on the event loop, and for a second at
    /// most. Lines that are of neither form, or whose names begin with `sticky_`, are left out and counted. A second call
    /// replaces the first. Without an admin process nothing ever asks.
    ///
    /// ```
    /// let worker = sticky_core::Worker::detached();
    /// worker.export_metrics(|| "# TYPE jobs counter\njobs_total 3\n".to_owned());
    /// ```
    #[cfg(feature = "admin")]
    pub fn export_metrics(&self, tell: impl Fn() -> String + Send + 'static) {
        if self.inner.exports.set(Box::new(tell)) {
            (self.inner.report)(FromWorker::Exports);
        }
    }

    /// A listener beside the public ones, by the name that [`extra_listener`](crate::ClusterBuilder::extra_listener) gave it:
    /// for metrics, health checks, an API of operators, whatever must not be on the public port. All workers share it, so each
    /// should accept there; which one has a connection is chance. Every call gives a copy, which accepts from the same queue.
    ///
    /// `sticky_axum::serve_extra`, `sticky_actix::serve_extra` and `sticky_core::http::serve_extra` serve it as the public port is
    /// served: with the same limits of time, and with nothing lost when this worker drains. A server that wants to accept by itself takes
    /// [`into_tcp`](ExtraListener::into_tcp) and its like; when the [drain](Self::drain) starts it must stop, since others go on
    /// from there, and a [`stay`](Self::stay) keeps the process until what it executes is done.
    ///
    /// # Errors
    ///
    /// [`ExtraListenerError::Unknown`](crate::error::ExtraListenerError::Unknown) names those there are.
    ///
    /// ```
    /// let worker = sticky_core::Worker::detached();
    /// let error = worker.listener("metrics").unwrap_err().to_string();
    /// assert!(error.starts_with("there is no extra listener \"metrics\": there is none;"));
    /// ```
    pub fn listener(&self, name: &str) -> Result<ExtraListener, ExtraListenerError> {
        self.inner.extras.take(name, self)
    }

    /// Something else to finish before this worker ends: its drain is not over before this has been dropped, or its time
    /// is up (`drain_timeout`, `shutdown_timeout`).
    pub fn stay(&self) -> Stay {
        self.inner.stays.one_more()
    }

    /// Tells when this worker drains.
    pub fn drain(&self) -> Drain {
        self.inner.drain.clone()
    }

    /// Says that the application can serve, and takes the connections. The only other way to them is
    /// [`into_std_listener`](Self::into_std_listener).
    ///
    /// Call it inside the tokio runtime that will serve, after everything the first request needs is there.
    ///
    /// # Panics
    ///
    /// When called a second time in a process: its connections have one reader.
    pub fn ready(self) -> Connections {
        let orders = self.take_orders();
        self.say_ready(true);
        Connections::new(self, orders)
    }

    /// Says that the application can serve, and gives this worker's own listener to a framework that wants one
    /// (non-blocking, as [`std::net::TcpListener::set_nonblocking`] makes it).
    ///
    /// Waits until the slot's previous reader, if any, has let go of it. The framework must watch
    /// [`Worker::drain`] itself: stop accepting when it starts, and return. This worker does not stand in for slots
    /// that are not running, and its connections are not counted: the line about the end does not know of them.
    ///
    /// ```no_run
    /// # async fn run(worker: sticky_core::Worker) -> Result<(), sticky_core::BoxError> {
    /// let drain = worker.drain();
    /// let listener = tokio::net::TcpListener::from_std(worker.into_std_listener()?)?;
    /// // With axum: axum::serve(listener, app).with_graceful_shutdown(async move { drain.started().await })
    /// loop {
    ///     tokio::select! {
    ///         () = drain.started() => return Ok(()),
    ///         accepted = listener.accept() => drop(accepted?), // serve it
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`NeedsGuard`] when there is no single TCP listener whose connections all belong here: use
    /// [`Worker::ready`].
    ///
    /// # Panics
    ///
    /// When this worker's connections have been taken already.
    pub fn into_std_listener(self) -> Result<std::net::TcpListener, NeedsGuard> {
        let Sockets { dispatch, addresses, all_tcp } = self.inner.sockets;
        if dispatch != Dispatch::Kernel {
            return Err(NeedsGuard::Dispatch(dispatch));
        }
        if addresses != 1 {
            return Err(NeedsGuard::Addresses(addresses));
        }
        if !all_tcp {
            return Err(NeedsGuard::NotTcp);
        }
        let mut orders = self.take_orders();
        self.say_ready(false);
        let listener = self.own_listener(&mut orders);
        // Nobody can take the listener back from the framework, so nobody hears what is ordered from here on.
        let _ = self.inner.untaken.set(orders);
        listener
    }

    fn own_listener(&self, orders: &mut mpsc::UnboundedReceiver<Order>) -> Result<std::net::TcpListener, NeedsGuard> {
        loop {
            match block_on(orders.recv()) {
                Some(Order::Listen { slot, mut listeners, .. }) if slot == self.id() => match listeners.pop() {
                    Some(Lent { listener: BoundListener::Tcp(listener), .. }) => return Ok(listener),
                    _ => return Err(NeedsGuard::NotTcp),
                },
                Some(Order::Drain { .. } | Order::Abandon) | None => return Err(NeedsGuard::Draining),
                Some(_) => {}
            }
        }
    }

    fn say_ready(&self, adopts: bool) {
        if tokio::runtime::Handle::try_current().is_ok() {
            // The first beat is here and now: by it others know that this worker accepts.
            self.row().heartbeat(1);
            tokio::spawn(beat(self.row().clone(), beat_period(self.limits().heartbeat_timeout)));
        }
        self.inner.served.store(true, Ordering::Relaxed);
        (self.inner.report)(FromWorker::Ready { adopts });
    }

    /// Says that the application can serve, on this port: it listens by itself.
    fn say_listening(&self, port: u16) {
        (self.inner.report)(FromWorker::Listens { port });
        self.say_ready(false);
    }

    fn take_orders(&self) -> mpsc::UnboundedReceiver<Order> {
        let orders = self.inner.orders.lock().unwrap_or_else(|e| e.into_inner()).take();
        orders.expect("a worker's connections are taken only once: by ready() or into_std_listener()")
    }

    /// Tells the supervisor why this process is about to fail: its last words, if it ends before it is ready.
    #[doc(hidden)]
    pub fn fail(&self, error: &(dyn std::error::Error + 'static)) {
        self.say_words(&crate::cluster::Chain(error).to_string());
    }

    /// Says why this process may be about to end. Once it has served, nobody asks: its clients could make it say much.
    pub(crate) fn say_words(&self, words: &str) {
        if !self.inner.served.load(Ordering::Relaxed) {
            (self.inner.report)(words_message(words));
        }
    }

    /// What is known of sessions beyond their keys' hashes.
    pub(crate) fn sessions(&self) -> &Arc<Sessions> {
        &self.inner.sessions
    }

    /// Whether this peer, none on a unix socket, is trusted to say for whom it speaks.
    pub(crate) fn trusts(&self, peer: Option<SocketAddr>) -> bool {
        self.inner.judge.trusts(peer)
    }

    /// What this worker's connections hear of its drain.
    pub(crate) fn connection_drain(&self) -> &Drain {
        &self.inner.connection_drain
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub(crate) fn row(&self) -> &Row {
        self.inner.registry.row()
    }

    /// Starts the drain from inside, where no supervisor does.
    pub(crate) fn start_drain(&self, reason: DrainReason, deadline: std::time::Instant) {
        self.inner.office.revoke();
        self.inner.trigger.start(reason, deadline);
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.inner.id)
            .field("generation", &self.inner.generation)
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}

/// Whether every address to listen on is a TCP address.
pub(crate) fn all_tcp(config: &Config) -> bool {
    !config.listen.iter().any(|address| matches!(address, ListenAddress::Unix(_)))
}

/// A [`FromWorker::Words`] short enough for a control message, cut at a character.
pub(crate) fn words_message(words: &str) -> FromWorker {
    let end = (0..=words.len().min(8 * 1024)).rev().find(|&end| words.is_char_boundary(end)).unwrap_or(0);
    FromWorker::Words { text: words[..end].to_owned() }
}

/// Often enough for the supervisor to see several beats before it gives up.
fn beat_period(timeout: Duration) -> Duration {
    (timeout / 5).clamp(Duration::from_millis(10), Duration::from_millis(500))
}

/// Shows the supervisor that the event loop turns.
async fn beat(row: Row, period: Duration) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut beats = 1;
    loop {
        let due = ticks.tick().await;
        beats += 1;
        row.heartbeat(beats);
        row.set_loop_lag_us(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
}

/// Why [`Worker::into_std_listener`] has no listener to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NeedsGuard {
    /// Connections must be looked at before they are known to belong here.
    #[error("under {0} dispatch a connection may belong to another worker: take connections with Worker::ready()")]
    Dispatch(Dispatch),
    /// A framework can be given one listener only.
    #[error("there are {0} addresses to listen on, and this needs exactly one: take connections with Worker::ready()")]
    Addresses(usize),
    /// The address is not a TCP address.
    #[error("the address to listen on is not a TCP address: take connections with Worker::ready()")]
    NotTcp,
    /// The cluster shuts down; there is nothing to accept any more.
    #[error("the cluster is shutting down")]
    Draining,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_detached_worker_waits_for_ever() {
        let worker = Worker::detached();
        assert!(!worker.drain().is_started());
        let mut connections = worker.ready();
        let none = tokio::time::timeout(Duration::from_millis(20), connections.accept()).await;
        assert!(none.is_err());
    }

    #[tokio::test]
    #[should_panic(expected = "taken only once")]
    async fn connections_have_one_reader() {
        let worker = Worker::detached();
        let _first = worker.clone().ready();
        let _second = worker.ready();
    }

    #[test]
    fn long_words_are_cut_at_a_character() {
        let FromWorker::Words { text } = words_message(&"é".repeat(5000)) else { unreachable!() };
        assert_eq!(text.len(), 8 * 1024);
        let FromWorker::Words { text } = words_message(&format!("a{}", "é".repeat(5000))) else { unreachable!() };
        assert_eq!(text.len(), 8 * 1024 - 1);
    }
}
