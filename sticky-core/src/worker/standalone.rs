//! Serving in this process, without a cluster: `workers(0)`, and platforms where there is none.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::connections::Order;
use super::exports::Exports;
use super::extra::{Extras, Socket as ExtraSocket};
use super::listener::{BoundListener, Lent};
use super::service::Service;
use super::{DrainReason, DrainTrigger, Limits, Office, Parts, Plan, SAME_SIGNAL, Sockets, Worker, all_tcp};
use crate::bus::Bus;
use crate::config::Config;
use crate::connection::Registry;
use crate::control::{FromWorker, Part};
use crate::dispatch::handoff::judge::{Judge, Rules};
use crate::id::{Generation, WorkerId};
use crate::listener::{self, ListenError, ListenerSet, LocalAddress, Sharing};
use crate::notice;
use crate::scoreboard::Row;
use crate::session::{self, Sessions, Shared};

/// Why this process cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StandaloneError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system refused something else.
    #[error("cannot {attempt}")]
    System {
        /// What was attempted.
        attempt: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Binds the addresses here and becomes the only worker.
pub(crate) fn standalone(config: &Config) -> Result<Worker, StandaloneError> {
    expect_passed(config)?;
    let sets = listener::take(&config.listen, Sharing::Shared, config.backlog)?;
    let system = |attempt| move |source| StandaloneError::System { attempt, source };
    let lent: io::Result<Vec<Lent>> = sets.iter().map(lend).collect();
    let (sender, orders) = mpsc::unbounded_channel();
    let id = WorkerId::new(0);
    let listeners = lent.map_err(system("lend a listener to itself"))?;
    let addresses = listeners.len();
    let _ = sender.send(Order::Listen { slot: id, part: Part::Listeners, listeners, refuse: false });
    let (extra_sets, extras) = take_extras(config)?;
    let lines: Vec<String> = sets.iter().map(line).chain(extra_sets.iter().map(extra_line)).collect();
    let secret = session::secret(config).map_err(system("draw a secret"))?;
    let seed = config.hash_seed.unwrap_or_default();
    let sessions = Arc::new(Sessions::new(id, 1, seed, config, Shared { secret, table: None }));
    let row = Row::detached();
    let service = Service::of_environment(config, row.clone());
    let manager = service.clone();
    let report = move |message: FromWorker| {
        tell(&message, &lines);
        if matches!(message, FromWorker::Ready { .. }) {
            manager.ready();
        }
    };
    let worker = Worker::new(Parts {
        id,
        generation: Generation::FIRST,
        workers: 1.into(),
        registry: Registry::new(row.clone()),
        limits: Limits::of(config),
        placement: None,
        orders,
        report: Box::new(report),
        drain: DrainTrigger::new(),
        sockets: Sockets { dispatch: config.dispatch, addresses, all_tcp: all_tcp(config) },
        // Nobody to send anything to; but what proxies in front say is read here, too.
        plan: Plan::of(config, Vec::new(), Vec::new()),
        judge: Arc::new(Judge::new(id, 1, seed, Rules::of(config), Arc::clone(&sessions), Vec::new())),
        sessions,
        bus: Bus::alone(id, row.clone()),
        office: Office::alone(),
        exports: Exports::default(),
        extras,
        redis: config.redis.clone(),
    });
    let sets = sets.into_iter().chain(extra_sets.into_iter().map(|(_, set)| set)).collect();
    // Before anybody is told that there is something to end.
    watch_signals(worker.clone(), sender, sets, service).map_err(system("watch signals"))?;
    Ok(worker)
}

fn line(set: &ListenerSet) -> String {
    format!("listening on {}{} (in this process, no workers)", set.address().scheme(), set.address())
}

fn extra_line((name, set): &(String, ListenerSet)) -> String {
    format!("the extra listener {name} is at {}", set.address())
}

/// What a supervisor would tell the user.
fn tell(message: &FromWorker, lines: &[String]) {
    match message {
        FromWorker::Ready { .. } => lines.iter().for_each(notice::announce),
        FromWorker::Drained(report) => notice::info(format_args!("shut down: {report}")),
        _ => {}
    }
}

fn lend(set: &ListenerSet) -> io::Result<Lent> {
    let listener = match copy(set)? {
        ExtraSocket::Tcp(listener) => BoundListener::Tcp(listener),
        #[cfg(unix)]
        ExtraSocket::Unix(listener) => BoundListener::Unix(listener),
    };
    Ok(Lent { kept: set.is_kept(), ..Lent::from(listener) })
}

fn copy(set: &ListenerSet) -> io::Result<ExtraSocket> {
    let socket = set.kind().sockets()[0].try_clone()?;
    match set.address() {
        LocalAddress::Tcp(_) => Ok(ExtraSocket::Tcp(socket.into())),
        #[cfg(unix)]
        LocalAddress::Unix(_) => Ok(ExtraSocket::Unix(socket.into())),
        #[cfg(not(unix))]
        LocalAddress::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Has the sockets of a service manager ready.
#[cfg(cluster)]
fn expect_passed(config: &Config) -> Result<(), StandaloneError> {
    let (names, any) = config.passed_sockets();
    Ok(listener::expect_passed(names, any)?)
}

#[cfg(not(cluster))]
fn expect_passed(_: &Config) -> Result<(), StandaloneError> {
    Ok(())
}

/// The application's own listeners: what is to be closed at the end, and what it takes.
fn take_extras(config: &Config) -> Result<(Vec<(String, ListenerSet)>, Extras), StandaloneError> {
    let mut sets = Vec::new();
    for extra in &config.extra_listeners.0 {
        let taken = listener::take(std::slice::from_ref(&extra.address), Sharing::Shared, config.backlog)?;
        sets.extend(taken.into_iter().take(1).map(|set| (extra.name.clone(), set)));
    }
    let extras: io::Result<Vec<_>> = sets.iter().map(|(name, set)| Ok((name.clone(), copy(set)?))).collect();
    let failed = |source| StandaloneError::System { attempt: "lend a listener to itself", source };
    Ok((sets, Extras::new(extras.map_err(failed)?)))
}

/// Drains when the program is asked to end. On a thread of its own: the application has not made its runtime yet.
fn watch_signals(
    worker: Worker,
    orders: mpsc::UnboundedSender<Order>,
    sets: Vec<ListenerSet>,
    service: Service,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Registered here and now: who is told the address may send a signal at once.
    let mut signals = {
        let _inside = runtime.enter();
        EndSignals::new()?
    };
    let watch = async move {
        tokio::spawn(service.clone().run());
        signals.next().await;
        let (since, within) = (Instant::now(), worker.limits().shutdown_timeout);
        service.stopping();
        notice::info(format_args!("shutting down within {within:?}"));
        sets.iter().for_each(ListenerSet::unpublish);
        // The acceptor has listeners of its own, and closes them when it has emptied them.
        drop(sets);
        let open = worker.inner.registry.open();
        worker.start_drain(DrainReason::Shutdown, since + within);
        let _ = orders.send(Order::Drain { open, reason: DrainReason::Shutdown });
        while since.elapsed() < SAME_SIGNAL {
            signals.next().await;
        }
        notice::info("stopping at once");
        std::process::exit(1);
    };
    let thread = std::thread::Builder::new().name("sticky-signals".to_owned());
    thread.spawn(move || runtime.block_on(watch))?;
    Ok(())
}

/// The signals that ask a program to end.
#[cfg(unix)]
struct EndSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl EndSignals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The signals that ask a program to end.
#[cfg(windows)]
struct EndSignals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl EndSignals {
    fn new() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}
