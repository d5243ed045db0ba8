//! The load generator: clients of many kinds from chosen loopback addresses, on one thread, which does not
//! sleep while clients ask as fast as they are answered.

mod client;
mod http;
mod idle;
mod probe;
mod websocket;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, sleep_until};

pub use self::client::{Asks, Client, Group, Lifetime, Order, Request};
pub use self::http::Head;
pub use self::idle::{Idle, hold};
pub use self::probe::{Identity, balanced};
pub use self::websocket::{MESSAGE_LENGTH, upgrade};
use crate::stats::expected_latencies;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Load before the measurement.
    pub warm_up: Duration,
    /// The measurement.
    pub window: Duration,
}

/// What the clients saw in the window.
#[derive(Debug)]
pub struct Outcome<T> {
    /// Requests, or messages, answered.
    pub requests: u64,
    /// The window as it really was.
    pub elapsed: Duration,
    /// Latencies in nanoseconds by group, sorted.
    pub latencies: BTreeMap<Group, Vec<u64>>,
    /// What was sampled at the window's two ends.
    pub samples: (T, T),
}

/// Why a load failed: on loopback nothing may.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A connection failed, or what came back was no answer.
    #[error("client {source_address} failed")]
    Client {
        /// The client's address.
        source_address: Ipv4Addr,
        /// What happened.
        source: io::Error,
    },
    /// Not one request was answered in the window.
    #[error("no request was answered")]
    Silent,
    /// Some worker got too few of the identities tried.
    #[error("after {probes} clients the workers had {counts:?} of them")]
    Unspread {
        /// How many were tried.
        probes: u32,
        /// Found by worker.
        counts: Vec<usize>,
    },
    /// Idle connections ended, or got what nobody asked for.
    #[error("{lost} of {count} idle connections did not stay so")]
    Lost {
        /// How many.
        lost: usize,
        /// Of all.
        count: usize,
    },
}

/// Runs `clients` against `target`; `sample` is called at both ends of the window, with the load on.
///
/// # Errors
///
/// The first failure of any client, or that nothing was answered.
pub async fn run<T>(
    target: SocketAddr,
    clients: &[Client],
    timing: Timing,
    sample: impl Fn() -> T,
) -> Result<Outcome<T>, LoadError> {
    let shared = Rc::new(Shared::default());
    let logs: Vec<Rc<Log>> = clients.iter().map(|_| Rc::new(Log::default())).collect();
    let tasks = LocalSet::new();
    for (index, (client, log)) in clients.iter().zip(&logs).enumerate() {
        // Paced clients that start together would all ask in the same millisecond.
        let delay = client.interval.unwrap_or_default() * index as u32 / clients.len() as u32;
        tasks.spawn_local(drive(target, client.clone(), delay, Rc::clone(&shared), Rc::clone(log)));
    }
    // Paced clients are asked how long they wait, not what they cost.
    if clients.iter().all(|client| client.interval.is_none()) {
        tasks.spawn_local(stay_awake());
    }
    let (elapsed, samples) = tasks.run_until(measure(timing, &shared, sample)).await;
    drop(tasks);

    if let Some(failure) = shared.failure.take() {
        return Err(failure);
    }
    if shared.requests.get() == 0 {
        return Err(LoadError::Silent);
    }
    let latencies = latencies_by_group(clients, &logs);
    Ok(Outcome { requests: shared.requests.get(), elapsed, latencies, samples })
}

/// What all clients write to.
#[derive(Default)]
struct Shared {
    recording: Cell<bool>,
    requests: Cell<u64>,
    failure: Cell<Option<LoadError>>,
}

/// What one client writes to.
#[derive(Default)]
struct Log {
    latencies: RefCell<Vec<u64>>,
    waiting_since: Cell<Option<Instant>>,
}

async fn measure<T>(timing: Timing, shared: &Shared, sample: impl Fn() -> T) -> (Duration, (T, T)) {
    sleep(timing.warm_up).await;
    let before = sample();
    let start = Instant::now();
    shared.recording.set(true);
    sleep(timing.window).await;
    shared.recording.set(false);
    let elapsed = start.elapsed();
    (elapsed, (before, sample()))
}

/// Keeps the load's thread from sleeping. Who answers a client that sleeps wakes it, which is as much work as a small answer
/// and is counted as the program's, the more often the slower the program is; a client on another machine costs it nothing.
async fn stay_awake() {
    loop {
        tokio::task::yield_now().await;
    }
}

/// Does some work, and the thread does not sleep meanwhile.
pub(crate) async fn awake<T>(work: impl Future<Output = T>) -> T {
    let mut others = JoinSet::new();
    others.spawn(stay_awake());
    work.await
}

async fn drive(target: SocketAddr, client: Client, delay: Duration, shared: Rc<Shared>, log: Rc<Log>) {
    let source_address = client.source;
    sleep(delay).await;
    if let Err(source) = ask_forever(target, &client, &shared, &log).await {
        log.waiting_since.set(None);
        let earlier = shared.failure.take();
        shared.failure.set(Some(earlier.unwrap_or(LoadError::Client { source_address, source })));
    }
}

/// Ends only by a failure, or with its task.
async fn ask_forever(target: SocketAddr, client: &Client, shared: &Shared, log: &Log) -> io::Result<()> {
    let mut buffer = vec![0; http::MAX_RESPONSE];
    let mut picks = client.picks();
    let mut stream = None;
    let mut due = tokio::time::Instant::now();
    loop {
        let sent = Instant::now();
        log.waiting_since.set(Some(sent));
        let mut open = match stream.take() {
            Some(stream) => stream,
            None => client.open(target, &mut buffer).await?,
        };
        let kept = client.ask(picks.next(), &mut open, &mut buffer).await?;
        log.waiting_since.set(None);
        if shared.recording.get() {
            shared.requests.set(shared.requests.get() + 1);
            log.latencies.borrow_mut().push(sent.elapsed().as_nanos() as u64);
        }
        stream = Some(open).filter(|_| kept);
        if let Some(interval) = client.interval {
            due = next_due(due, interval, tokio::time::Instant::now());
            sleep_until(due).await;
        }
    }
}

/// The first moment of the client's rhythm that is still to come: what it missed while waiting it does not make up for.
fn next_due(due: tokio::time::Instant, interval: Duration, now: tokio::time::Instant) -> tokio::time::Instant {
    let missed = now.duration_since(due).as_nanos() / interval.as_nanos().max(1);
    due + interval * (missed as u32 + 1)
}

fn latencies_by_group(clients: &[Client], logs: &[Rc<Log>]) -> BTreeMap<Group, Vec<u64>> {
    let mut groups = BTreeMap::<Group, Vec<u64>>::new();
    for (client, log) in clients.iter().zip(logs) {
        // A request still unanswered has taken at least this long.
        let waiting = log.waiting_since.get().filter(|_| client.interval.is_some());
        let waiting = waiting.map(|since| since.elapsed().as_nanos() as u64);
        let interval = client.interval.map(|interval| interval.as_nanos() as u64);
        let answered = log.latencies.take();
        let all = answered.into_iter().chain(waiting).flat_map(|latency| expected_latencies(latency, interval));
        groups.entry(client.group).or_default().extend(all);
    }
    groups.values_mut().for_each(|latencies| latencies.sort_unstable());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_client_keeps_its_rhythm() {
        let start = tokio::time::Instant::now();
        let ms = Duration::from_millis;
        assert_eq!(next_due(start, ms(50), start + ms(1)), start + ms(50));
        assert_eq!(next_due(start, ms(50), start + ms(120)), start + ms(150));
    }
}
