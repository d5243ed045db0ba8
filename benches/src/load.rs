//! The load generator: keep-alive or connection-per-request clients from chosen loopback addresses, on one thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{io, str};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::program::WORKER_HEADER;
use crate::stats::expected_latencies;

/// Addresses probed at most to fill every worker's share.
const MAX_PROBES: u32 = 8_192;
/// A probe's answer takes no longer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Head and body of an answer, at most.
const MAX_RESPONSE: usize = 16 * 1024;

/// One client: one request after the other.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where it connects from.
    pub source: Ipv4Addr,
    /// What it asks for.
    pub path: &'static str,
    /// What its connections live for.
    pub connection: Lifetime,
    /// One request each such interval; without it the next follows the answer at once.
    pub interval: Option<Duration>,
    /// Whose latencies its own are counted with.
    pub group: Group,
}

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// All requests of its client.
    KeepAlive,
    /// One request; then the client closes it.
    OneRequest,
}

/// Clients whose latencies are looked at together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Clients like any other.
    Ordinary,
    /// Ordinary clients whose worker serves a loud one as well.
    Neighbour,
    /// The client that keeps its worker busy.
    Loud,
}

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
    /// Requests answered.
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
    /// Some worker got too few of the addresses tried.
    #[error("after {probes} addresses the workers had {counts:?} of them")]
    Unspread {
        /// How many were tried.
        probes: u32,
        /// Found by worker.
        counts: Vec<usize>,
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

/// Finds `per_worker` source addresses for each of `workers` workers by asking who answers; `network` is the second
/// byte of the addresses tried (127.network.x.y). A program without workers gets its addresses dealt round robin.
///
/// # Errors
///
/// A probe failed, or 8,192 addresses did not do.
pub async fn balanced_addresses(
    target: SocketAddr,
    network: u8,
    workers: u16,
    per_worker: usize,
) -> Result<Vec<Vec<Ipv4Addr>>, LoadError> {
    let mut found = vec![Vec::new(); workers.into()];
    for probe in 0..MAX_PROBES {
        if found.iter().all(|addresses| addresses.len() == per_worker) {
            return Ok(found);
        }
        let [_, _, high, low] = (probe + 1).to_be_bytes();
        let source_address = Ipv4Addr::new(127, network, high, low);
        let worker = timeout(PROBE_TIMEOUT, ask_worker(target, source_address)).await;
        let worker = worker
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| LoadError::Client { source_address, source })?;
        let worker = worker.unwrap_or(probe as usize % found.len());
        if let Some(addresses) = found.get_mut(worker).filter(|addresses| addresses.len() < per_worker) {
            addresses.push(source_address);
        }
    }
    Err(LoadError::Unspread { probes: MAX_PROBES, counts: found.iter().map(Vec::len).collect() })
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
    let request = request(client.path, target);
    let mut buffer = vec![0; MAX_RESPONSE];
    let mut stream = None;
    let mut due = tokio::time::Instant::now();
    loop {
        let sent = Instant::now();
        log.waiting_since.set(Some(sent));
        let mut open = match stream.take() {
            Some(stream) => stream,
            None => connect(target, client.source).await?,
        };
        exchange(&mut open, request.as_bytes(), &mut buffer).await?;
        log.waiting_since.set(None);
        if shared.recording.get() {
            shared.requests.set(shared.requests.get() + 1);
            log.latencies.borrow_mut().push(sent.elapsed().as_nanos() as u64);
        }
        stream = Some(open).filter(|_| client.connection == Lifetime::KeepAlive);
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

async fn ask_worker(target: SocketAddr, source: Ipv4Addr) -> io::Result<Option<usize>> {
    let mut stream = connect(target, source).await?;
    let mut buffer = vec![0; MAX_RESPONSE];
    let length = exchange(&mut stream, request("/", target).as_bytes(), &mut buffer).await?;
    Ok(header(&buffer[..length], WORKER_HEADER).and_then(|value| value.parse().ok()))
}

async fn connect(target: SocketAddr, source: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Ports that wait in TIME_WAIT for an earlier run's server are free for this one.
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    socket.bind((source, 0).into())?;
    socket.connect(target).await
}

fn request(path: &str, target: SocketAddr) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {target}\r\nuser-agent: bench\r\naccept: */*\r\n\r\n")
}

/// Sends one request and reads its answer into `buffer`; returns the answer's length.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> io::Result<usize> {
    stream.write_all(request).await?;
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if let Some(length) = response_length(&buffer[..filled])? {
            return if length == filled { Ok(length) } else { Err(io::Error::other("more than one answer")) };
        }
    }
}

/// The length of the answer that `bytes` hold or begin with, once that much is there.
fn response_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else {
        return Ok(None);
    };
    if !bytes.starts_with(b"HTTP/1.1 200 ") {
        return Err(io::Error::other(format!("answered {}", String::from_utf8_lossy(&bytes[..head]))));
    }
    let body: usize = header(bytes, "content-length")
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| io::Error::other("an answer without a length"))?;
    Ok(Some(head + body).filter(|&length| length <= bytes.len()))
}

fn header<'a>(response: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = response.split(|&byte| byte == b'\n').skip(1).take_while(|line| *line != b"\r");
    let value = lines.find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        value.strip_prefix(b":").filter(|_| found.eq_ignore_ascii_case(name.as_bytes()))
    })?;
    str::from_utf8(value).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nX-Worker: 3\r\ncontent-length: 6\r\n\r\nhello\n";

    #[test]
    fn an_answer_is_complete_with_its_last_byte_and_not_before() {
        for length in 0..ANSWER.len() {
            assert_eq!(response_length(&ANSWER[..length]).unwrap(), None, "after {length} bytes");
        }
        assert_eq!(response_length(ANSWER).unwrap(), Some(ANSWER.len()));
        assert_eq!(response_length(&[ANSWER, b"HTTP"].concat()).unwrap(), Some(ANSWER.len()));
    }

    #[test]
    fn only_a_success_with_a_length_is_an_answer() {
        assert!(response_length(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(response_length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn headers_are_found_in_any_case_and_only_in_the_head() {
        assert_eq!(header(ANSWER, "x-worker"), Some("3"));
        assert_eq!(header(ANSWER, "x-work"), None);
        assert_eq!(header(b"HTTP/1.1 200 OK\r\n\r\nx-worker: 3\r\n", "x-worker"), None);
    }

    #[test]
    fn a_late_client_keeps_its_rhythm() {
        let start = tokio::time::Instant::now();
        let ms = Duration::from_millis;
        assert_eq!(next_due(start, ms(50), start + ms(1)), start + ms(50));
        assert_eq!(next_due(start, ms(50), start + ms(120)), start + ms(150));
    }
}
