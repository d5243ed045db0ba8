//! Socket.IO: what it costs that a polling session's id names its worker. The same server with tags and without them, by the
//! same dispatch; and without all of our layer, which also ends polls when the worker drains. There are two workers, for one
//! alone gives no tags; by a key in the handshake all sessions begin on the same one, and each keeps to one connection, so
//! that it stays there without a tag, too.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::load::awake;
use crate::side::{Side, SideError};
use crate::stats::Summary;

/// Polling sessions, each on a connection of its own.
const SESSIONS: usize = 16;
/// Rounds that do not count; in each, every session sends a message and polls for its echo.
const WARM_UP: usize = 20;
const ROUNDS: usize = 2_500;
/// No request takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Tagging may take so much of a poll.
const BAR: f64 = 1.02;
/// Polls in vain until something has gone wrong.
const MOST_POLLS: usize = 20;

static TAGGED: Side = Side { name: "tagged", program: "bench-socketio", env: |_| polls("layer", TAGS) };
static UNTAGGED: Side = Side { name: "untagged", program: "bench-socketio", env: |_| polls("layer", KEY) };
static BARE: Side = Side { name: "bare", program: "bench-socketio", env: |_| polls("bare", KEY) };

/// By what sessions stay where they are.
const TAGS: &str = "engine-io|header:x-key";
const KEY: &str = "header:x-key";

fn polls(kind: &str, affinity: &str) -> Vec<(&'static str, String)> {
    let own = |text: &str| text.to_owned();
    vec![
        ("BENCH_POLLS", own(kind)),
        ("STICKY_LISTEN", own("127.0.0.1:0")),
        ("STICKY_WORKERS", own("2")),
        ("STICKY_THREADS_PER_WORKER", own("1")),
        ("STICKY_AFFINITY", own(affinity)),
    ]
}

/// Measures so often, all sides in turn, and prints the lines.
///
/// # Errors
///
/// When a side does not start, or loses a session.
pub fn run(repeats: usize) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut sides = [(&TAGGED, Vec::new()), (&UNTAGGED, Vec::new()), (&BARE, Vec::new())];
    for repeat in 0..repeats {
        eprint!("\rtagging, {} of {repeats}          ", repeat + 1);
        // None is always the first.
        for index in (0..sides.len()).map(|index| (index + repeat) % 3) {
            let (side, measured) = &mut sides[index];
            measured.push(runtime.block_on(awake(measure(side)))?);
        }
    }
    eprintln!();
    let [(_, tagged), (_, untagged), (_, bare)] = &sides;
    println!("polls and POSTs, CPU of each, {repeats} times:");
    print("with tags ÷ without", tagged, untagged, Some(BAR));
    print("with all of the layer ÷ without", tagged, bare, None);
    Ok(())
}

fn print(what: &str, ours: &[f64], others: &[f64], bar: Option<f64>) {
    let ratios: Vec<f64> = ours.iter().zip(others).map(|(ours, others)| ours / others).collect();
    let ratio = Summary::of(&ratios);
    let bounds = ratio.bounds.map_or("too few for bounds".to_owned(), |(low, high)| format!("{low:.3}–{high:.3}"));
    let verdict = bar.map(|bar| format!(", at most {bar}: {:?}", ratio.verdict(bar))).unwrap_or_default();
    let [ours, others] = [ours, others].map(|values| Summary::of(values).median);
    println!("{what:32} {:.3} ({bounds}), {ours:.1} µs ÷ {others:.1} µs{verdict}", ratio.median);
}

/// The CPU time of one request in microseconds.
async fn measure(side: &Side) -> Result<f64, Box<dyn Error>> {
    let running = side.start(1)?;
    let opening = (0..SESSIONS).map(|_| Session::open(running.address()));
    let mut sessions = try_join_all(opening).await?;
    let has_tags = std::ptr::eq(side, &TAGGED);
    if sessions.iter().any(|session| session.has_tag() != has_tags) {
        return Err("an id has a tag where none should be, or none where one should be".into());
    }
    rounds(&mut sessions, WARM_UP).await?;
    let before = running.cpu()?;
    let requests = rounds(&mut sessions, ROUNDS).await?;
    let used: Result<_, SideError> = running.cpu().map(|now| now.since(before));
    Ok(used?.all as f64 / 1e3 / requests as f64)
}

/// Answers how many requests it took.
async fn rounds(sessions: &mut [Session], rounds: usize) -> Result<usize, Box<dyn Error>> {
    let talking = sessions.iter_mut().map(async |session| {
        let mut requests = 0;
        for _ in 0..rounds {
            requests += tokio::time::timeout(PATIENCE, session.echo()).await??;
        }
        Ok::<_, Box<dyn Error>>(requests)
    });
    Ok(try_join_all(talking).await?.iter().sum())
}

/// A polling session.
struct Session {
    stream: BufReader<TcpStream>,
    target: String,
}

impl Session {
    async fn open(address: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut session =
            Self { stream: BufReader::new(stream), target: "/socket.io/?EIO=4&transport=polling".to_owned() };
        let handshake = session.request_with("x-key: all\r\n", "GET", "").await?;
        let id = handshake.split('"').nth(3).ok_or("no handshake")?;
        session.target.push_str("&sid=");
        session.target.push_str(id);
        session.request("POST", "40").await?;
        session.poll("40").await?;
        Ok(session)
    }

    /// Whether the id names its worker.
    fn has_tag(&self) -> bool {
        self.target.rsplit_once('=').is_some_and(|(_, id)| id.contains('.'))
    }

    /// A message and its echo; answers how many requests it took.
    async fn echo(&mut self) -> Result<usize, Box<dyn Error>> {
        self.request("POST", "42[\"echo\",1]").await?;
        Ok(1 + self.poll("42[\"echo\"").await?)
    }

    /// Polls until there is a packet that begins so; answers how many requests it took.
    async fn poll(&mut self, beginning: &str) -> Result<usize, Box<dyn Error>> {
        let mut requests = 0;
        for _ in 0..MOST_POLLS {
            let packets = self.request("GET", "").await?;
            requests += 1;
            if packets.split('\x1e').any(|packet| packet == "2") {
                self.request("POST", "3").await?;
                requests += 1;
            }
            if packets.split('\x1e').any(|packet| packet.starts_with(beginning)) {
                return Ok(requests);
            }
        }
        Err(format!("no {beginning} came").into())
    }

    /// The answer's body.
    async fn request(&mut self, method: &str, body: &str) -> Result<String, Box<dyn Error>> {
        self.request_with("", method, body).await
    }

    /// The same with more lines in the head.
    async fn request_with(&mut self, lines: &str, method: &str, body: &str) -> Result<String, Box<dyn Error>> {
        let (target, length) = (&self.target, body.len());
        let head =
            format!("{method} {target} HTTP/1.1\r\nhost: bench\r\n{lines}content-length: {length}\r\n\r\n{body}");
        self.stream.get_mut().write_all(head.as_bytes()).await?;
        let (mut line, mut length, mut is_first) = (String::new(), 0, true);
        loop {
            line.clear();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err("the server has closed the connection".into());
            }
            match line.trim_end().split_once(": ") {
                None if is_first && !line.starts_with("HTTP/1.1 200") => return Err(line.into()),
                None if !is_first => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse()?,
                _ => {}
            }
            is_first = false;
        }
        let mut text = vec![0; length];
        self.stream.read_exact(&mut text).await?;
        Ok(String::from_utf8(text)?)
    }
}
