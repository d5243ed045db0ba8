//! Asks a running cluster by the unix socket of its admin process.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{Command, Happening, Progress, Status};
use crate::cluster::BoxError;

/// How long an answer may take that is no command's.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const LONGEST: usize = 64 << 20;

/// Asks a running cluster by the unix socket of its admin process: what `sticky status` and its like are made of.
///
/// ```no_run
/// # async fn example() -> Result<(), sticky_core::admin::ClientError> {
/// use sticky_core::admin::{Client, Command};
///
/// let client = Client::new("/run/app.admin.sock");
/// println!("{:?}", client.status().await?.state);
/// let mut words = client.command(Command::Reload).await?;
/// while let Some(word) = words.next().await? {
///     println!("{word}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

/// Why something could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there: the cluster does not run, was started without an admin process, or has another path; or it may
    /// not be asked by this user.
    #[error("cannot reach a cluster at {path}")]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection ended before the answer did: the cluster has ended, or its admin process.
    #[error("the cluster broke off its answer")]
    BrokenOff(#[source] BoxError),
    /// It took longer than 10 s.
    #[error("the cluster does not answer")]
    Timeout,
    /// It was answered that this cannot be asked, or not now.
    #[error("{text}")]
    Refused {
        /// The answer's status, as in HTTP.
        status: u16,
        /// Why, in words.
        text: String,
    },
    /// The answer is not of the form that this version knows.
    #[error("the cluster's answer is not understood")]
    Answer(#[source] BoxError),
    /// The answer is longer than anything that is asked for.
    #[error("the cluster's answer is too long")]
    TooLong,
}

impl Client {
    /// Whoever listens at this path. Nothing is done before something is asked.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it asks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the cluster is.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        let body = self.whole("/status").await?;
        parse(&body)
    }

    /// The metrics, in the text format 0.0.4.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        Ok(String::from_utf8_lossy(&self.whole("/metrics").await?).into_owned())
    }

    /// Gives a command, and hears what becomes of it. Whoever does not want to wait for that drops the lines.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. One that is not begun is no error: the only line is [`Progress::Refused`].
    pub async fn command(&self, command: Command) -> Result<Lines<Progress>, ClientError> {
        let path = match command {
            Command::Reload => "/reload?wait".to_owned(),
            Command::Restart { worker } => format!("/workers/{worker}/restart?wait"),
            Command::Drain { worker } => format!("/workers/{worker}/drain?wait"),
            Command::Scale { workers } => format!("/scale/{workers}?wait"),
            Command::Reexec => "/reexec?wait".to_owned(),
        };
        let answer = limited(self.ask(Method::POST, &path)).await?;
        // Its body is the word that refuses it.
        if answer.status() == StatusCode::CONFLICT { Ok(Lines::new(answer)) } else { Lines::of(answer).await }
    }

    /// What happens from now on.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn events(&self) -> Result<Lines<Happening>, ClientError> {
        Lines::of(limited(self.ask(Method::GET, "/events")).await?).await
    }

    async fn whole(&self, path: &str) -> Result<Bytes, ClientError> {
        limited(async {
            let answer = self.ask(Method::GET, path).await?;
            let status = answer.status();
            let body = read(answer).await?;
            if status == StatusCode::OK { Ok(body) } else { Err(refused(status, &body)) }
        })
        .await
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Response<Incoming>, ClientError> {
        let failed = |source| ClientError::Connect { path: self.path.clone(), source };
        let stream = UnixStream::connect(&self.path).await.map_err(failed)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken_off)?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(http::header::HOST, "localhost");
        let request = request.body(NoBody).map_err(|error| failed(io::Error::other(error)))?;
        sender.send_request(request).await.map_err(broken_off)
    }
}

/// The lines of an answer, each as it comes.
#[derive(Debug)]
pub struct Lines<T> {
    body: Incoming,
    read: BytesMut,
    whole: VecDeque<Bytes>,
    lines: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    fn new(answer: Response<Incoming>) -> Self {
        Self { body: answer.into_body(), read: BytesMut::new(), whole: VecDeque::new(), lines: PhantomData }
    }

    async fn of(answer: Response<Incoming>) -> Result<Self, ClientError> {
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(Self::new(answer));
        }
        Err(refused(status, &limited(read(answer)).await?))
    }

    /// The next line; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`ClientError::BrokenOff`] when there will be none because the cluster has ended, [`ClientError::Answer`] for one
    /// that is not understood.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(line) = self.whole.pop_front() {
                return parse(&line).map(Some);
            }
            match frame(&mut self.body).await? {
                Some(bytes) => self.take(&bytes)?,
                None => return Ok(None),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        if self.read.len() + bytes.len() > LONGEST {
            return Err(ClientError::TooLong);
        }
        self.read.extend_from_slice(bytes);
        while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
            self.whole.push_back(self.read.split_to(end + 1).freeze());
        }
        Ok(())
    }
}

async fn limited<T>(answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    tokio::time::timeout(ANSWER_TIME, answer).await.unwrap_or(Err(ClientError::Timeout))
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(text).map_err(|error| ClientError::Answer(error.into()))
}

fn broken_off(error: hyper::Error) -> ClientError {
    ClientError::BrokenOff(error.into())
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    ClientError::Refused { status: status.as_u16(), text: String::from_utf8_lossy(body).trim().to_owned() }
}

async fn read(answer: Response<Incoming>) -> Result<Bytes, ClientError> {
    let (mut body, mut whole) = (answer.into_body(), BytesMut::new());
    while let Some(bytes) = frame(&mut body).await? {
        whole.extend_from_slice(&bytes);
        if whole.len() > LONGEST {
            return Err(ClientError::TooLong);
        }
    }
    Ok(whole.freeze())
}

/// The next bytes of a body; `None` after the last.
async fn frame(body: &mut Incoming) -> Result<Option<Bytes>, ClientError> {
    let next = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
    let frame = next.await.transpose().map_err(broken_off)?;
    Ok(frame.map(|frame| frame.into_data().unwrap_or_default()))
}

/// Nothing is sent but heads.
struct NoBody;

impl http_body::Body for NoBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}
