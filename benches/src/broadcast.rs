//! Socket.IO: a message to all of 1,000 clients, the next one when everybody has it. What it takes the servers, and how long.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::load::awake;
use crate::side::Side;
use crate::{cpus, limits, tagging};

const CLIENTS: usize = 1_000;
const WORKERS: u16 = 2;
/// A client that does not get in tries so often, and so does a run that loses one.
const ATTEMPTS: usize = 5;
/// How long a client waits to get in.
const WAIT: Duration = Duration::from_secs(3);
/// So many connect at once.
const AT_ONCE: usize = 50;
/// Broadcasts that do not count.
const WARM_UP: usize = 20;
/// No broadcast takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// Each side so often, in turn.
    repeats: usize,
    /// Broadcasts that count.
    rounds: usize,
    /// Pairs for what tags take.
    pairs: usize,
}

const WHOLE: Extent = Extent { repeats: 5, rounds: 200, pairs: 30 };
/// To see whether it works.
const SHORT: Extent = Extent { repeats: 1, rounds: 20, pairs: 6 };

static SIDES: [Side; 5] = [
    Side { name: "sticky, bus", program: "bench-socketio", env: |workers| sticky(workers, None) },
    Side {
        name: "sticky, Redis",
        program: "bench-socketio",
        env: |workers| sticky(workers, std::env::var("BENCH_REDIS").ok()),
    },
    Side { name: "one process", program: "bench-socketio", env: |_| vec![("BENCH_PLAIN", "1".to_owned())] },
    Side { name: "sends alone", program: "bench-socketio", env: |_| vec![("BENCH_SENDS", CLIENTS.to_string())] },
    Side { name: "Node", program: "bench-node-socketio", env: node },
];

fn sticky(workers: u16, redis: Option<String>) -> Vec<(&'static str, String)> {
    let listen = ("STICKY_LISTEN", "127.0.0.1:0".to_owned());
    let mut env = vec![listen, ("STICKY_WORKERS", workers.to_string()), ("STICKY_THREADS_PER_WORKER", "1".to_owned())];
    env.extend(redis.map(|url| ("STICKY_REDIS_URL", url)));
    env
}

fn node(workers: u16) -> Vec<(&'static str, String)> {
    vec![("WORKERS", workers.to_string()), ("PATH", std::env::var("PATH").unwrap_or_default())]
}

/// What one run has shown.
struct Run {
    per_second: f64,
    cpu_per_message: f64,
    p99: Duration,
}

/// Runs all sides in turn and prints the table, then what tags take. With `--short` only as much as tells that it works,
/// with `--tags` or `--broadcast` one of both.
///
/// # Errors
///
/// When a side does not start, loses a client, or a message.
pub fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) =
        arguments.iter().find(|argument| !["--short", "--tags", "--broadcast"].contains(&&***argument))
    {
        return Err(format!("{unknown} is none of --short, --tags and --broadcast").into());
    }
    let has = |argument: &str| arguments.iter().any(|given| given == argument);
    let extent = if has("--short") { SHORT } else { WHOLE };
    cpus::pin_load()?;
    if !has("--tags") {
        broadcast(extent)?;
    }
    if !has("--broadcast") {
        tagging::run(extent.pairs)?;
    }
    Ok(())
}

fn broadcast(extent: Extent) -> Result<(), Box<dyn Error>> {
    let Extent { repeats, rounds, .. } = extent;
    limits::raise_descriptors()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut runs: Vec<Vec<Run>> = SIDES.iter().map(|_| Vec::new()).collect();
    let redis = std::env::var_os("BENCH_REDIS").is_some();
    for repeat in 0..repeats {
        for (side, runs) in SIDES.iter().zip(&mut runs) {
            if side.name.contains("Redis") && !redis {
                continue;
            }
            eprint!("\r{} {} of {repeats}          ", side.name, repeat + 1);
            runs.push(runtime.block_on(awake(measured(side, rounds)))?);
        }
    }
    eprintln!();
    println!("{CLIENTS} clients, {WORKERS} workers, medians of {repeats}:");
    println!("{:14} {:>14} {:>22} {:>10}", "", "messages/s", "CPU per message (µs)", "p99 (ms)");
    for (side, runs) in SIDES.iter().zip(&runs).filter(|(_, runs)| !runs.is_empty()) {
        let per_second = median(runs.iter().map(|run| run.per_second));
        let cpu = median(runs.iter().map(|run| run.cpu_per_message));
        let p99 = median(runs.iter().map(|run| run.p99.as_secs_f64() * 1e3));
        println!("{:14} {per_second:>14.0} {cpu:>22.2} {p99:>10.1}", side.name);
    }
    Ok(())
}

/// A run without a client lost. One with is said, and repeated: Node's balancer loses one now and then.
async fn measured(side: &Side, rounds: usize) -> Result<Run, Box<dyn Error>> {
    for _ in 1..ATTEMPTS {
        match measure(side, rounds).await {
            Ok(run) => return Ok(run),
            Err(error) => eprintln!("\nagain, since {error}"),
        }
    }
    measure(side, rounds).await
}

async fn measure(side: &Side, rounds: usize) -> Result<Run, Box<dyn Error>> {
    let running = side.start(WORKERS)?;
    let origin = Instant::now();
    let heard = Arc::new(Heard::default());
    let (errors, mut failed) = mpsc::unbounded_channel();
    let numbers: Vec<usize> = (1..CLIENTS).collect();
    for some in numbers.chunks(AT_ONCE) {
        for client in try_join_all(some.iter().map(|_| connect(running.address()))).await? {
            tokio::spawn(listen(client, origin, Arc::clone(&heard), errors.clone()));
        }
    }
    // Last: nobody answers its pings before it speaks.
    let mut speaker = connect(running.address()).await?;
    let mut latencies = Vec::with_capacity(rounds * CLIENTS);
    let (mut begun, mut before) = (origin, running.cpu()?);
    for round in 0..WARM_UP + rounds {
        if round == WARM_UP {
            (begun, before) = (Instant::now(), running.cpu()?);
            heard.latencies.lock().expect("nobody panics").clear();
        }
        let sent = origin.elapsed().as_micros();
        speaker.send(Message::text(format!("42[\"broadcast\",{sent}]"))).await?;
        let everybody = heard.everybody(CLIENTS - 1);
        tokio::select! {
            done = tokio::time::timeout(PATIENCE, async { own(&mut speaker).await?; everybody.await; Ok::<_, Box<dyn Error>>(()) }) => done??,
            Some(error) = failed.recv() => return Err(format!("{}: {error}", side.name).into()),
        }
        latencies.append(&mut heard.latencies.lock().expect("nobody panics"));
    }
    let (took, used) = (begun.elapsed(), running.cpu()?.since(before));
    let messages = (rounds * CLIENTS) as f64;
    latencies.sort_unstable();
    let p99 = latencies[latencies.len() * 99 / 100];
    Ok(Run { per_second: messages / took.as_secs_f64(), cpu_per_message: used.all as f64 / 1e3 / messages, p99 })
}

/// Who has heard the last message, and how long after it was sent.
#[derive(Default)]
struct Heard {
    count: AtomicUsize,
    all: Notify,
    latencies: std::sync::Mutex<Vec<Duration>>,
}

impl Heard {
    /// Waits until so many have heard the message, and begins to count anew.
    async fn everybody(&self, clients: usize) {
        while self.count.load(Ordering::Acquire) < clients {
            self.all.notified().await;
        }
        self.count.store(0, Ordering::Release);
    }

    fn hear(&self, latency: Duration) {
        self.latencies.lock().expect("nobody panics").push(latency);
        if self.count.fetch_add(1, Ordering::AcqRel) + 2 >= CLIENTS {
            self.all.notify_one();
        }
    }
}

/// A client in the main namespace. One that hears nothing, or is let go before it is there, comes again, as real ones do:
/// @socket.io/sticky loses some of those that come side by side.
async fn connect(address: SocketAddr) -> Result<Client, Box<dyn Error>> {
    for _ in 1..ATTEMPTS {
        if let Ok(Ok(client)) = tokio::time::timeout(WAIT, try_connect(address)).await {
            return Ok(client);
        }
    }
    try_connect(address).await
}

async fn try_connect(address: SocketAddr) -> Result<Client, Box<dyn Error>> {
    let (mut client, _) =
        tokio_tungstenite::connect_async(format!("ws://{address}/socket.io/?EIO=4&transport=websocket")).await?;
    client.send(Message::text("40")).await?;
    until(&mut client, "40").await?;
    Ok(client)
}

/// The next message that begins so; pings are answered.
async fn until(client: &mut Client, beginning: &str) -> Result<String, Box<dyn Error>> {
    loop {
        let message = client.next().await.ok_or("a client was cut off")??;
        let text = match message {
            Message::Text(text) => text,
            Message::Close(why) => return Err(format!("a client was let go: {why:?}").into()),
            _ => continue,
        };
        if text.as_str() == "2" {
            client.send(Message::text("3")).await?;
        } else if text.starts_with(beginning) {
            return Ok(text.to_string());
        }
    }
}

async fn own(client: &mut Client) -> Result<(), Box<dyn Error>> {
    until(client, "42[\"hello\"").await.map(drop)
}

async fn listen(mut client: Client, origin: Instant, heard: Arc<Heard>, errors: mpsc::UnboundedSender<String>) {
    loop {
        match until(&mut client, "42[\"hello\"").await {
            Ok(text) => {
                let sent = text.split([',', ']']).nth(1).and_then(|number| number.parse().ok()).unwrap_or_default();
                heard.hear(origin.elapsed().saturating_sub(Duration::from_micros(sent)));
            }
            Err(error) => return drop(errors.send(error.to_string())),
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
