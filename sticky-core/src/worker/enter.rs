//! How a process that the supervisor has started becomes a worker.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::watch;

#[cfg(feature = "proxy")]
use super::Proxy;
use super::connections::Order;
use super::exports::Exports;
use super::lifeline::{self, Control, Hears};
use super::{
    DrainTrigger, ExtraSocket, Extras, Limits, Office, Parts, Plan, Preparation, Road, Sockets, Worker, all_tcp,
    words_message,
};
use crate::bus::{Bus, BusPeer, Wiring};
use crate::cluster::{BoxError, Chain};
use crate::config::Config;
use crate::connection::Registry;
#[cfg(feature = "admin")]
use crate::control::{Admission, Channel};
use crate::control::{FromWorker, Hello, PROTOCOL, Received, SocketKind, ToWorker, Welcome};
use crate::dispatch::Dispatch;
use crate::dispatch::handoff::judge::{Duty, Judge, Rules};
use crate::id::{Post, WorkerId};
use crate::placement::KernelHash;
use crate::scoreboard::{Headcount, Row, Scoreboard};
use crate::session::{Sessions, Shared};
use crate::sys::memory::SharedWords;

/// Why a worker could not join its supervisor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The control socket failed, or the supervisor is gone.
    #[error("failed to talk to the supervisor")]
    Control(#[source] io::Error),
    /// The supervisor runs with something else that all its workers must agree on; the text says what.
    #[error("refused by the supervisor: {0}")]
    Refused(String),
    /// The supervisor's first answer was not the one expected; its version may be too far from this one's.
    #[error("the supervisor did not answer the greeting as expected")]
    Greeting,
    /// The memory of the session table cannot be used.
    #[error("the session table cannot be used")]
    Sessions {
        /// What the system said.
        source: io::Error,
    },
    /// The shared memory cannot be used.
    #[error("the scoreboard cannot be used")]
    Scoreboard(#[source] crate::scoreboard::ScoreboardError),
}

/// Greets the supervisor and becomes the proxy it says.
#[cfg(feature = "proxy")]
pub(crate) fn enter_as_proxy(socket: OwnedFd, config: &Config) -> Result<Proxy, JoinError> {
    let (worker, road) = join(socket, config)?;
    Ok(Proxy { judge: Arc::clone(&worker.inner.judge), worker, road })
}

/// What a process gets that serves metrics and status.
#[cfg(feature = "admin")]
pub(crate) struct Admitted {
    pub(crate) control: Arc<Channel<FromWorker, ToWorker>>,
    pub(crate) admission: Admission,
    pub(crate) scoreboard: Scoreboard,
    /// As the admission says.
    pub(crate) listeners: Vec<OwnedFd>,
}

/// Greets the supervisor and becomes its admin process.
#[cfg(feature = "admin")]
pub(crate) fn enter_as_admin(socket: OwnedFd, config: &Config) -> Result<Admitted, JoinError> {
    let control = Control::new(socket);
    say_hello(&control, config)?;
    ignore_terminal_signals();
    let (admission, descriptors) = match control.receive().map_err(JoinError::Control)? {
        Some(Received { is_cut: true, .. }) => return Err(JoinError::Control(out_of_descriptors())),
        Some(Received { message: ToWorker::Admit(admission), descriptors, .. }) => (admission, descriptors),
        Some(Received { message: ToWorker::Refused { reason }, .. }) => return Err(JoinError::Refused(reason)),
        Some(_) => return Err(JoinError::Greeting),
        None => return Err(JoinError::Control(io::ErrorKind::ConnectionReset.into())),
    };
    let mut descriptors = descriptors.into_iter();
    let scoreboard = descriptors.next().ok_or(JoinError::Greeting)?;
    let scoreboard = Scoreboard::from_fd(scoreboard).map_err(JoinError::Scoreboard)?;
    Ok(Admitted { control: Arc::new(control), admission, scoreboard, listeners: descriptors.collect() })
}

/// Greets the supervisor and does what it has started this process for; the outer result says whether it could be asked.
pub(crate) fn prepare(
    socket: OwnedFd,
    config: &Config,
    preparation: Option<Preparation>,
) -> Result<Result<(), BoxError>, JoinError> {
    let control = Control::new(socket);
    say_hello(&control, config)?;
    match control.receive().map_err(JoinError::Control)? {
        Some(Received { message: ToWorker::Prepare, .. }) => {}
        Some(Received { message: ToWorker::Refused { reason }, .. }) => return Err(JoinError::Refused(reason)),
        Some(_) => return Err(JoinError::Greeting),
        None => return Err(JoinError::Control(io::ErrorKind::ConnectionReset.into())),
    }
    // The supervisor minds the time, and kills. A program that has nothing to prepare any more is prepared.
    let done = preparation.map_or(Ok(()), |preparation| preparation.run(Duration::MAX));
    let said = match &done {
        Ok(()) => FromWorker::Prepared,
        Err(error) => words_message(&Chain(error.as_ref()).to_string()),
    };
    control.send(&said, &[]).map_err(JoinError::Control)?;
    Ok(done)
}

/// Greets the supervisor and becomes the worker it says.
pub(crate) fn enter(socket: OwnedFd, config: &Config) -> Result<Worker, JoinError> {
    join(socket, config).map(|(worker, _)| worker)
}

/// Greets the supervisor and becomes what it says; a proxy has the ways to all workers for itself, too.
fn join(socket: OwnedFd, config: &Config) -> Result<(Worker, Road), JoinError> {
    let control = Arc::new(Control::new(socket));
    let (welcome, scoreboard, table) = greet(&control, config)?;
    let channels = receive_channels(&control, welcome.channels)?;
    let extras = if welcome.extras { receive_extras(&control)? } else { Extras::default() };
    let duty = duty(&welcome, config);
    let (ports, listening) = watch::channel(Vec::new());
    let channels_again = if duty == Duty::Forwards { copies(&channels)? } else { Vec::new() };
    ignore_terminal_signals();
    prefer_for_oom_killer();
    let scoreboard = Scoreboard::from_fd(scoreboard).map_err(JoinError::Scoreboard)?;
    let (sender, orders) = mpsc::unbounded_channel();
    let (trigger, drain) = DrainTrigger::new();
    // What is out of the placement already is the first thing the acceptor hears.
    let _ = sender.send(Order::Evicted { slots: welcome.evicted.clone() });
    let registry = Registry::new(scoreboard.row(welcome.seat));
    let sockets = welcome.addresses + usize::from(welcome.channels > 0);
    let workers = scoreboard.headcount(welcome.workers);
    let (bus, wiring) = bus(&welcome, &workers, &registry, &control);
    let office = office(&control);
    let exports = Exports::default();
    let hears = Hears {
        exports: exports.clone(),
        orders: sender,
        drain: trigger.clone(),
        registry: registry.clone(),
        wiring,
        office: Arc::clone(&office),
        ports,
    };
    lifeline::start(Arc::clone(&control), hears, sockets).map_err(JoinError::Control)?;
    let rows: Vec<Row> = (0..scoreboard.seats()).map(|seat| scoreboard.row(seat)).collect();
    let shared = shared(&welcome, table)?;
    let of_slot = |slot| Sessions::new(slot, workers.clone(), welcome.seed, config, shared.clone());
    let road = Road {
        channels: channels_again,
        ports: config.own_ports.then_some(listening),
        rows: rows.clone(),
        // Programs that listen by themselves know nothing of sessions.
        sessions: if config.own_ports {
            WorkerId::all(welcome.workers).map(of_slot).map(Arc::new).collect()
        } else {
            Vec::new()
        },
    };
    let sessions = Arc::new(of_slot(welcome.worker));
    let rules = Rules::of(config);
    let judge = Judge::new(welcome.worker, workers.clone(), welcome.seed, rules, Arc::clone(&sessions), rows.clone());
    let plan = Plan::of(config, channels, rows);
    // A supervisor that is gone is the lifeline's business.
    let report = move |message: FromWorker| drop(control.send(&message, &[]));
    let worker = Worker::new(Parts {
        id: welcome.worker,
        generation: welcome.generation,
        workers,
        registry,
        limits: Limits::of(config),
        placement: placement(&welcome),
        orders,
        report: Box::new(report),
        drain: (trigger, drain),
        sockets: Sockets { dispatch: config.dispatch, addresses: welcome.addresses, all_tcp: all_tcp(config) },
        plan: if duty == Duty::Serves { plan.map(Plan::behind_proxies) } else { plan },
        judge: Arc::new(judge.with_duty(duty).counting(scoreboard.row(welcome.seat))),
        // What a proxy forwards keeps its session in its worker.
        sessions: if duty == Duty::Forwards { Arc::new(Sessions::none()) } else { sessions },
        bus,
        office,
        exports,
        extras,
        redis: config.redis.clone(),
    });
    report_panics(worker.clone());
    Ok((worker, road))
}

/// What this process does about whose messages are.
fn duty(welcome: &Welcome, config: &Config) -> Duty {
    match Post::of(welcome.worker, welcome.workers) {
        Post::Proxy(_) => Duty::Forwards,
        Post::Worker(_) if config.dispatch == Dispatch::Proxy => Duty::Serves,
        Post::Worker(_) | Post::Preparation | Post::Admin => Duty::Moves,
    }
}

fn copies(channels: &[OwnedFd]) -> Result<Vec<OwnedFd>, JoinError> {
    channels.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>().map_err(JoinError::Control)
}

/// Says hello, and gets the answer with the scoreboard and perhaps the session table.
fn greet(control: &Control, config: &Config) -> Result<(Welcome, OwnedFd, Option<OwnedFd>), JoinError> {
    say_hello(control, config)?;
    match control.receive().map_err(JoinError::Control)? {
        Some(Received { is_cut: true, .. }) => Err(JoinError::Control(out_of_descriptors())),
        Some(Received { message: ToWorker::Welcome(welcome), descriptors, .. }) => {
            let mut descriptors = descriptors.into_iter();
            let scoreboard = descriptors.next().ok_or(JoinError::Greeting)?;
            Ok((welcome, scoreboard, descriptors.next()))
        }
        Some(Received { message: ToWorker::Refused { reason }, .. }) => Err(JoinError::Refused(reason)),
        Some(_) => Err(JoinError::Greeting),
        None => Err(JoinError::Control(io::ErrorKind::ConnectionReset.into())),
    }
}

fn say_hello(control: &Control, config: &Config) -> Result<(), JoinError> {
    let hello = Hello {
        protocol: (*PROTOCOL.start(), *PROTOCOL.end()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        fingerprint: config.fingerprint(),
    };
    control.send(&FromWorker::Hello(hello), &[]).map_err(JoinError::Control)
}

/// The ways into the other slots, which follow the welcome.
fn receive_channels(control: &Control, count: u16) -> Result<Vec<OwnedFd>, JoinError> {
    let mut channels = Vec::with_capacity(usize::from(count));
    while channels.len() < usize::from(count) {
        match control.receive().map_err(JoinError::Control)? {
            Some(Received { is_cut: true, .. }) => return Err(JoinError::Control(out_of_descriptors())),
            Some(Received { message: ToWorker::Channels, descriptors, .. }) if !descriptors.is_empty() => {
                channels.extend(descriptors);
            }
            Some(_) => return Err(JoinError::Greeting),
            None => return Err(JoinError::Control(io::ErrorKind::ConnectionReset.into())),
        }
    }
    Ok(channels)
}

/// The listeners of the application's own, which follow the channels.
fn receive_extras(control: &Control) -> Result<Extras, JoinError> {
    match control.receive().map_err(JoinError::Control)? {
        Some(Received { is_cut: true, .. }) => Err(JoinError::Control(out_of_descriptors())),
        Some(Received { message: ToWorker::Extras { listeners }, descriptors, .. }) => {
            let extras = listeners.into_iter().zip(descriptors).filter_map(|(extra, fd)| match extra.kind {
                SocketKind::SharedTcp => Some((extra.name, ExtraSocket::Tcp(fd.into()))),
                SocketKind::SharedUnix => Some((extra.name, ExtraSocket::Unix(fd.into()))),
                SocketKind::Tcp | SocketKind::KeptTcp | SocketKind::KeptUnix | SocketKind::Channel => None,
            });
            Ok(Extras::new(extras.collect()))
        }
        Some(_) => Err(JoinError::Greeting),
        None => Err(JoinError::Control(io::ErrorKind::ConnectionReset.into())),
    }
}

fn out_of_descriptors() -> io::Error {
    rustix::io::Errno::MFILE.into()
}

fn shared(welcome: &Welcome, table: Option<OwnedFd>) -> Result<Shared, JoinError> {
    let table = table.map(SharedWords::map).transpose();
    let table = table.map_err(|source| JoinError::Sessions { source })?.map(Arc::new);
    Ok(Shared { secret: welcome.secret.clone(), table })
}

/// The bus, and where the supervisor's words about it go.
fn bus(
    welcome: &Welcome,
    workers: &Headcount,
    registry: &Registry,
    control: &Arc<Control>,
) -> (Bus, UnboundedSender<Wiring>) {
    let me = BusPeer { worker: welcome.worker, generation: welcome.generation };
    let control = Arc::clone(control);
    // If this cannot be said now, it is said again.
    let ask = move || drop(control.send(&FromWorker::BusJoin, &[]));
    Bus::among(me, workers.clone(), registry.row().clone(), ask)
}

/// Where the supervisor's words about the leadership go.
fn office(control: &Arc<Control>) -> Arc<Office> {
    let control = Arc::clone(control);
    // A supervisor that is gone is the lifeline's business.
    Office::new(Box::new(move |message| drop(control.send(&message, &[]))))
}

fn placement(welcome: &Welcome) -> Option<KernelHash> {
    let slots: Vec<WorkerId> = WorkerId::all(welcome.workers).collect();
    welcome.placed.then(|| KernelHash::new(welcome.seed, &slots))
}

/// A service manager that signals the whole group must not end workers in the middle of a request: the supervisor
/// got the same signal and drains them. Handlers, unlike ignored signals, end with the next `exec`.
fn ignore_terminal_signals() {
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
        // Cannot fail for these signals; if it did, the default action would stay, which is no worse.
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
}

/// When memory runs out, a worker, not the supervisor, should go. Raising the score needs no privileges.
fn prefer_for_oom_killer() {
    const FILE: &str = "/proc/self/oom_score_adj";
    let score = std::fs::read_to_string(FILE).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(score) = score {
        let _ = std::fs::write(FILE, (score + 100).min(1000).to_string());
    }
}

/// Makes a panic the process's last words, in case it ends the process before it is ready.
fn report_panics(worker: Worker) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        worker.say_words(&info.to_string());
        before(info);
    }));
}
