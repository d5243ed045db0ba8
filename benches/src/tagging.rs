//! Socket.IO: what it costs that a polling session's id names its worker. The same server with the layer and without it, both
//! with one worker and by the same dispatch, so that nothing else differs.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::side::{Side, SideError};
use crate::stats::Summary;

/// Polling sessions, each on a connection of its own.
const SESSIONS: usize = 16;
/// Rounds that do not count; in each, every session sends a message and polls for its echo.
const WARM_UP: usize = 20;
const ROUNDS: usize = 400;
/// No request takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Tagging may take so much of a poll.
const BAR: f64 = 1.02;
/// Polls in vain until something has gone wrong.
const MOST_POLLS: usize = 20;

static TAGGED: Side = Side { name: "tagged", program: "bench-socketio", env: |_| polls("tagged") };
static PLAIN: Side = Side { name: "plain", program: "bench-socketio", env: |_| polls("plain") };

fn polls(kind: &str) -> Vec<(&'static str, String)> {
    let own = |text: &str| text.to_owned();
    vec![
        ("BENCH_POLLS", own(kind)),
        ("STICKY_LISTEN", own("127.0.0.1:0")),
        ("STICKY_WORKERS", own("1")),
        ("STICKY_THREADS_PER_WORKER", own("1")),
        ("STICKY_AFFINITY", own("engine-io")),
    ]
}

/// Measures this many pairs and prints the line.
///
/// # Errors
///
/// When a side does not start, or loses a session.
pub fn run(pairs: usize) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measure = |side| runtime.block_on(measure(side));
    let (mut tagged, mut plain) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        eprint!("\rtagging, pair {} of {pairs}          ", pair + 1);
        if pair % 2 == 0 {
            tagged.push(measure(&TAGGED)?);
            plain.push(measure(&PLAIN)?);
        } else {
            plain.push(measure(&PLAIN)?);
            tagged.push(measure(&TAGGED)?);
        }
    }
    eprintln!();
    let ratios: Vec<f64> = tagged.iter().zip(&plain).map(|(tagged, plain)| tagged / plain).collect();
    let ratio = Summary::of(&ratios);
    let bounds = ratio.bounds.map_or("too few for bounds".to_owned(), |(low, high)| format!("{low:.3}–{high:.3}"));
    println!(
        "polls and POSTs with tags ÷ without: {:.3} ({bounds}), {:.1} µs ÷ {:.1} µs of CPU, {pairs} pairs, at most {BAR}: {:?}",
        ratio.median,
        Summary::of(&tagged).median,
        Summary::of(&plain).median,
        ratio.verdict(BAR)
    );
    Ok(())
}

/// The CPU time of one request in microseconds.
async fn measure(side: &Side) -> Result<f64, Box<dyn Error>> {
    let running = side.start(1)?;
    let opening = (0..SESSIONS).map(|_| Session::open(running.address()));
    let mut sessions = try_join_all(opening).await?;
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
        let handshake = session.request("GET", "").await?;
        let id = handshake.split('"').nth(3).ok_or("no handshake")?;
        session.target.push_str("&sid=");
        session.target.push_str(id);
        session.request("POST", "40").await?;
        session.poll("40").await?;
        Ok(session)
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
        let head =
            format!("{method} {} HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n{body}", self.target, body.len());
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
