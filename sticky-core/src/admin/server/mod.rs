//! The admin process: hears the supervisor on one thread, and serves whoever asks on another.

mod access;
mod answer;
mod body;
mod exporters;
mod lines;
mod merge;
mod metrics;
mod mirror;
mod snapshot;
mod text;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use self::access::Caller;
use self::answer::Desk;
use self::body::AnswerBody;
use self::mirror::Mirror;
use crate::config::Config;
use crate::control::SocketKind;
use crate::listener::ListenAddress;
use crate::notice;
use crate::worker::enter::{JoinError, enter_as_admin};

/// How many connections there are at once, of either kind: whoever floods one does not shut out the other.
const MOST_CONNECTIONS: usize = 32;

/// How long a request's head may take, and how long a connection may be silent between two.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long a connection over TCP may take. It has one request, and nothing that is asked there takes long.
const TCP_TIME: Duration = Duration::from_secs(30);

/// How long to wait until something is accepted again after the system has refused it.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// How long those who listen have to hear the last word when the cluster has ended.
const FAREWELL_TIME: Duration = Duration::from_millis(500);

/// Why the admin process does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It could not join its supervisor.
    #[error("the admin process cannot join its cluster")]
    Join(#[from] JoinError),
    /// The system gave no thread, or refused a listener.
    #[error("the admin process cannot serve")]
    System(#[from] io::Error),
}

/// Serves as the admin process until the supervisor has ended.
///
/// On a thread of its own: the program may have called from inside of a runtime.
///
/// # Errors
///
/// See [`ServeError`].
pub(crate) fn run(socket: OwnedFd, config: &Config) -> Result<(), ServeError> {
    let admitted = enter_as_admin(socket, config)?;
    let desk = Desk::new(Mirror::new(admitted.scoreboard, &admitted.admission, config.own_ports), config);
    let listeners = listeners(&admitted.admission.listeners, admitted.listeners);
    let hosts = config.admin.0.iter().filter_map(ListenAddress::host).map(str::to_owned).collect();
    let server = Arc::new(Server { desk, hosts });
    let hearing = Arc::clone(server.desk.mirror());
    let control = admitted.control;
    server.desk.speak_by(Arc::clone(&control));
    std::thread::Builder::new().name("sticky-lifeline".to_owned()).spawn(move || hearing.hear(&control))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("sticky-admin".to_owned());
    let serving = thread.spawn(move || runtime.block_on(serve(server, listeners)))?;
    serving.join().map_err(|_| io::Error::other("the admin process panicked"))??;
    Ok(())
}

/// Who answers, and whom he takes to be meant.
struct Server {
    desk: Desk,
    /// Host names that were configured: requests may be addressed to them.
    hosts: Vec<String>,
}

enum Listener {
    Unix(std::os::unix::net::UnixListener),
    Tcp(std::net::TcpListener),
}

fn listeners(kinds: &[SocketKind], descriptors: Vec<OwnedFd>) -> Vec<Listener> {
    let listener = |(kind, fd): (&SocketKind, OwnedFd)| match kind {
        SocketKind::SharedUnix => Listener::Unix(fd.into()),
        _ => Listener::Tcp(fd.into()),
    };
    kinds.iter().zip(descriptors).map(listener).collect()
}

async fn serve(server: Arc<Server>, listeners: Vec<Listener>) -> io::Result<()> {
    // Before, everything would be shown as if it did not run.
    server.desk.mirror().knows().await;
    let mut connections = JoinSet::new();
    let (unix, tcp) = (Arc::new(Semaphore::new(MOST_CONNECTIONS)), Arc::new(Semaphore::new(MOST_CONNECTIONS)));
    for listener in listeners {
        let server = Arc::clone(&server);
        match listener {
            Listener::Unix(listener) => {
                let listener = UnixListener::from_std(listener)?;
                connections.spawn(accept_unix(server, listener, Arc::clone(&unix)));
            }
            Listener::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                connections.spawn(accept_tcp(server, listener, Arc::clone(&tcp)));
            }
        }
    }
    server.desk.mirror().ended().await;
    // What was said last is on its way to those who listen; who waits for more would wait for ever.
    let heard = async {
        while unix.available_permits() + tcp.available_permits() < 2 * MOST_CONNECTIONS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(FAREWELL_TIME, heard).await;
    connections.abort_all();
    Ok(())
}

async fn accept_unix(server: Arc<Server>, listener: UnixListener, room: Arc<Semaphore>) {
    while let Some(permit) = permit(&room).await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let caller = caller(&stream);
                tokio::spawn(connection(Arc::clone(&server), stream, caller, permit));
            }
            Err(error) => refused(&error).await,
        }
    }
}

async fn accept_tcp(server: Arc<Server>, listener: TcpListener, room: Arc<Semaphore>) {
    while let Some(permit) = permit(&room).await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = connection(Arc::clone(&server), stream, Caller::Remote, permit);
                tokio::spawn(tokio::time::timeout(TCP_TIME, served));
            }
            Err(error) => refused(&error).await,
        }
    }
}

async fn permit(room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(room).acquire_owned().await.ok()
}

async fn refused(error: &io::Error) {
    notice::warn(format_args!("the admin process cannot accept a connection: {error}"));
    tokio::time::sleep(REFUSED_PAUSE).await;
}

/// Who has connected, by the kernel's word.
fn caller(stream: &UnixStream) -> Caller {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(credentials) if credentials.uid() == own || credentials.uid() == 0 => Caller::Owner,
        _ => Caller::Stranger,
    }
}

async fn connection(
    server: Arc<Server>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    permit: OwnedSemaphorePermit,
) {
    let mirror = Arc::clone(server.desk.mirror());
    let service = service_fn(move |request: Request<Incoming>| {
        let server = Arc::clone(&server);
        async move { Ok::<_, std::convert::Infallible>(server.answer(request, caller).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).keep_alive(caller != Caller::Remote);
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = &mut serving => outcome,
        () = mirror.ended() => {
            // One that is idle ends now, others after their answer.
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    // What goes wrong on one connection concerns nobody but who has made it.
    if let Err(error) = outcome {
        tracing::debug!(target: "sticky", %error, "a connection to the admin process ended early");
    }
    drop(permit);
}

impl Server {
    async fn answer(&self, request: Request<Incoming>, caller: Caller) -> Response<AnswerBody> {
        match access::check(request.method(), request.headers(), caller, &self.hosts) {
            Ok(()) => self.desk.answer(request.method(), request.uri(), request.headers(), caller).await,
            Err(denial) => answer::denied(denial),
        }
    }
}
