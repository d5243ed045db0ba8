//! Forwarders of our own, to compare proxies with: what nobody can undercut, and what one would write in an hour.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::CONNECTION;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::config::socket;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How it forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Bytes are copied; the client's address decides where to.
    Floor,
    /// hyper reads requests and writes them again, over kept connections; the header `x-key` decides where to.
    Hyper,
}

/// The programs behind a forwarder.
#[derive(Debug)]
struct Programs {
    sockets: Vec<PathBuf>,
    idle: Vec<Mutex<Vec<SendRequest<Incoming>>>>,
}

/// Forwards what comes in by the socket that is this process's standard input to so many programs in `folder`.
///
/// # Errors
///
/// When there is no such socket.
pub async fn run(how: How, folder: &Path, workers: u16) -> io::Result<()> {
    let listener = std::net::TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let programs = Arc::new(Programs {
        sockets: (0..workers).map(|worker| folder.join(socket(worker))).collect(),
        idle: (0..workers).map(|_| Mutex::default()).collect(),
    });
    loop {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let programs = Arc::clone(&programs);
        match how {
            How::Floor => drop(tokio::spawn(async move { programs.copy(stream, programs.index(peer.ip())).await })),
            How::Hyper => drop(tokio::spawn(programs.serve(stream))),
        }
    }
}

impl Programs {
    fn index(&self, key: impl Hash) -> usize {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        (hasher.finish() % self.sockets.len() as u64) as usize
    }

    async fn copy(&self, mut client: TcpStream, program: usize) -> io::Result<()> {
        let mut program = UnixStream::connect(&self.sockets[program]).await?;
        copy_bidirectional(&mut client, &mut program).await.map(drop)
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request| self.forward(request));
        // A client that leaves in the middle is its own affair.
        let _ = Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>, Error> {
        let program = self.index(request.headers().get("x-key").map(|key| key.as_bytes()));
        let idle = self.idle(program).pop();
        let mut sender = match idle {
            Some(sender) => sender,
            None => self.connect(program).await?,
        };
        sender.ready().await?;
        request.headers_mut().remove(CONNECTION);
        let response = sender.send_request(request).await?;
        // The next request on it waits until this response has been read.
        self.idle(program).push(sender);
        Ok(response)
    }

    async fn connect(&self, program: usize) -> Result<SendRequest<Incoming>, Error> {
        let stream = UnixStream::connect(&self.sockets[program]).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn idle(&self, program: usize) -> std::sync::MutexGuard<'_, Vec<SendRequest<Incoming>>> {
        self.idle[program].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
