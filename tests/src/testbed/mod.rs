//! What the testbeds share: their state and everything that no framework is needed for.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use sha2::{Digest, Sha256};
use sticky_core::{Drain, Worker};

use crate::journal::{self, Journal};

mod affinity;
mod bus;
pub mod extra;
pub mod leadership;
pub mod metrics;
pub mod prepare;
mod session;
pub mod socketio;
pub mod websocket;

pub use affinity::build;
pub use session::{SET, cookies, headers_asked_for};

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What an SSE client gets last, when the worker drains.
pub const LAST_EVENT: &str = "event: bye\ndata: drain\n\n";

/// The header whose value tells apart what [`Testbed::count`] counts.
pub const KEY: &str = "x-key";

/// The trailer of `/chunked`: how long the body was.
pub const LENGTH_TRAILER: &str = "x-length";

/// One worker's state. Cheap to clone.
#[derive(Clone)]
pub struct Testbed {
    worker: Worker,
    shared: Arc<Shared>,
}

struct Shared {
    journal: Journal,
    sessions: Mutex<HashSet<String>>,
    counts: Mutex<HashMap<(String, HeaderValue), u64>>,
    leaked: Mutex<Vec<Vec<u8>>>,
    subscribed: bus::Subscribed,
}

impl Testbed {
    /// The state of this worker. To be called inside its runtime.
    ///
    /// # Errors
    /// When the journal that the environment names cannot be opened.
    pub fn new(worker: &Worker) -> io::Result<Self> {
        let shared = Shared {
            journal: Journal::from_env()?,
            sessions: Mutex::default(),
            counts: Mutex::default(),
            leaked: Mutex::default(),
            subscribed: bus::Subscribed::default(),
        };
        leadership::lead(worker);
        metrics::export(worker);
        Ok(Self { worker: worker.clone(), shared: Arc::new(shared) })
    }

    /// `worker: <id>`, the answer to `GET /` and the first message of a WebSocket.
    pub fn name(&self) -> String {
        format!("worker: {}", self.worker.id())
    }

    /// Tells when this worker drains.
    pub fn drain(&self) -> Drain {
        self.worker.drain()
    }

    /// To be called before anything is done for a request: see [`journal`]. Answers the request's name.
    pub fn begin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let name = request.get(journal::REQUEST_NAME)?;
        if let Ok(name) = name.to_str() {
            self.shared.journal.begin(name);
        }
        Some(name.clone())
    }

    /// Signs a response: slot, process, generation, and the name of the request that it answers.
    pub fn sign(&self, response: &mut HeaderMap, request: Option<HeaderValue>) {
        response.extend(request.map(|name| (HeaderName::from_static(journal::REQUEST_NAME), name)));
        let marks = [
            ("x-worker", u32::from(self.worker.id().get())),
            ("x-pid", std::process::id()),
            ("x-generation", self.worker.generation().get()),
        ];
        response.extend(marks.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from(value))));
    }

    /// Counts one more in this worker's memory, under that name and the request's key; answers how many that makes.
    pub fn count(&self, name: &str, request: &HeaderMap) -> String {
        let key = request.get(KEY).cloned().unwrap_or_else(|| HeaderValue::from_static(""));
        let mut counts = self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((name.to_owned(), key)).or_default();
        *count += 1;
        count.to_string()
    }

    /// Keeps that much memory, touched, until the end of the process.
    pub fn leak(&self, mebibytes: usize) {
        let mut leaked = self.shared.leaked.lock().unwrap_or_else(PoisonError::into_inner);
        leaked.push(vec![1; mebibytes << 20]);
    }

    /// Server-sent events, ten a second, until the drain; then [`LAST_EVENT`] and the end.
    pub fn events(&self) -> impl Stream<Item = Bytes> + Send + use<> {
        let drain = self.drain();
        stream::unfold(Some(0_u64), move |count| {
            let drain = drain.clone();
            async move {
                let count = count?;
                let pause = Duration::from_millis(if count == 0 { 0 } else { 100 });
                tokio::select! {
                    biased;
                    () = drain.started() => Some((Bytes::from_static(LAST_EVENT.as_bytes()), None)),
                    () = tokio::time::sleep(pause) => Some((Bytes::from(format!("data: {count}\n\n")), Some(count + 1))),
                }
            }
        })
    }
}

/// The address of a client as the application sees it, without port.
pub fn address_text(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "unix".to_owned(), |peer| peer.ip().to_string())
}

/// Length and SHA-256 of a body, read piece by piece.
///
/// # Errors
/// When the body breaks off.
pub async fn digest<B: Body<Data = Bytes> + Unpin>(mut body: B) -> Result<String, B::Error> {
    let (mut length, mut hash) = (0, Sha256::new());
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            length += data.len();
            hash.update(data);
        }
    }
    Ok(format!("{length} {:x}", hash.finalize()))
}

/// The address of a client with its port.
pub fn peer_text(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string())
}

/// A body of that many bytes in pieces, of a length that is not known before, and a trailer.
pub fn chunked(length: usize) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
    const PIECE: usize = 8_000;
    let pieces = (0..length).step_by(PIECE).map(move |at| Frame::data(Bytes::from(vec![b'x'; PIECE.min(length - at)])));
    let trailers = HeaderMap::from_iter([(HeaderName::from_static(LENGTH_TRAILER), HeaderValue::from(length))]);
    StreamBody::new(stream::iter(pieces.chain([Frame::trailers(trailers)]).map(Ok)))
}

/// What makes a response announce the trailers that the request announced, for those that send its body back.
pub fn same_trailers(request: &HeaderMap) -> Option<HeaderValue> {
    request.get(header::TRAILER).cloned()
}

/// Ends this process the hard way.
pub fn crash() -> ! {
    eprintln!("crash: as asked");
    std::process::exit(3)
}

/// Stops the event loop for good.
pub fn hang() -> ! {
    loop {
        thread::park();
    }
}

/// Stops the event loop for a while.
pub fn block(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// A worker named in this variable ends right after its start, from its second generation on: a crash loop.
const CRASH_LOOP: &str = "TESTBED_CRASH_LOOP";

/// The crash loop lasts only as long as the file that this variable names is there, if it is set.
const CRASH_FILE: &str = "TESTBED_CRASH_FILE";

/// Workers in slots from this one on end right after their start.
const CRASH_FROM: &str = "TESTBED_CRASH_FROM";

/// What the environment asks of this worker right after it has entered the cluster.
pub fn obey_environment(worker: &Worker) {
    let named = std::env::var(CRASH_LOOP).ok().and_then(|slot| slot.parse().ok());
    let lasts = std::env::var_os(CRASH_FILE).is_none_or(|file| Path::new(&file).exists());
    if named == Some(worker.id().get()) && worker.generation().get() > 0 && lasts {
        crash();
    }
    let from: Option<u16> = std::env::var(CRASH_FROM).ok().and_then(|slot| slot.parse().ok());
    if from.is_some_and(|from| worker.id().get() >= from) {
        crash();
    }
}
