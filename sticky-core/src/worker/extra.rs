//! Listeners of the application's own: the supervisor's, shared by all workers, taken by name.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::time::sleep;

use super::connections::{PAUSE, concerns_one_connection};
use super::listener::{Arrival, BoundListener, Listener};
use super::{Stay, Worker};
use crate::connection::Connection;
use crate::notice;

/// One of the listeners that [`ClusterBuilder::extra_listener`](crate::ClusterBuilder::extra_listener) names, as one of the
/// workers that share it has it. From [`Worker::listener`](crate::Worker::listener).
///
/// It is non-blocking, and must stay so: what one worker sets there holds for all. Closing it closes this copy alone, and
/// `shutdown(2)` would end it for everybody.
pub struct ExtraListener {
    name: String,
    socket: Socket,
    worker: Worker,
}

/// The connections that come in at an extra listener and that this worker is the first to accept: counted as open
/// connections of the worker, waited for and cut in its drain as any. From [`ExtraListener::into_connections`].
pub struct ExtraConnections {
    name: String,
    listener: Listener,
    worker: Worker,
    /// What has been accepted is counted before the drain can be over.
    stay: Option<Stay>,
}

/// A listener as it can be taken, again and again.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

/// The listeners of the application's own that this process has.
#[derive(Debug, Default)]
pub(crate) struct Extras(Vec<(String, Socket)>);

/// Why there is no such listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtraListenerError {
    /// Correct the name, or add the listener to the cluster's configuration. The supervisor makes them when it starts: a
    /// listener that a new program has added takes a restart, not a reload.
    #[error(
        "there is no extra listener {name:?}: {}; the cluster has those of its start (extra_listener, STICKY_EXTRA_LISTENER)",
        Known(known)
    )]
    Unknown {
        /// The name asked for.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// Take it as what it is.
    #[error("the extra listener {name:?} is a {is} listener: take it with {instead}")]
    Kind {
        /// Its name.
        name: String,
        /// What it is.
        is: &'static str,
        /// The methods for that.
        instead: &'static str,
    },
    /// The system refused a copy of its descriptor, or to watch it.
    #[error("cannot take the extra listener {name:?}")]
    System {
        /// Its name.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The names there are, in words.
struct Known<'a>(&'a [String]);

impl fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("there is none"),
            [one] => write!(f, "there is {one:?}"),
            [all @ .., last] => {
                f.write_str("there are ")?;
                all.iter().try_for_each(|name| write!(f, "{name:?}, "))?;
                write!(f, "and {last:?}")
            }
        }
    }
}

impl Extras {
    pub(crate) fn new(all: Vec<(String, Socket)>) -> Self {
        Self(all)
    }

    /// A copy of one of them.
    pub(super) fn take(&self, name: &str, worker: &Worker) -> Result<ExtraListener, ExtraListenerError> {
        let Some((name, socket)) = self.0.iter().find(|(known, _)| known == name) else {
            let known = self.0.iter().map(|(known, _)| known.clone()).collect();
            return Err(ExtraListenerError::Unknown { name: name.to_owned(), known });
        };
        let failed = |source| ExtraListenerError::System { name: name.clone(), source };
        let socket = socket.try_clone().map_err(failed)?;
        Ok(ExtraListener { name: name.clone(), socket, worker: worker.clone() })
    }
}

impl Socket {
    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            #[cfg(unix)]
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }
    }
}

impl ExtraListener {
    /// The name by which it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, with the real port; `None` on a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            #[cfg(unix)]
            Socket::Unix(_) => None,
        }
    }

    /// The worker that has it.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Its connections, for the tokio runtime that this is called in. This is what the integrations serve: a connection's time
    /// is minded by whoever serves it, and the drain of the worker waits for it.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn into_connections(self) -> Result<ExtraConnections, ExtraListenerError> {
        let Self { name, socket, worker } = self;
        let bound = match socket {
            Socket::Tcp(listener) => BoundListener::Tcp(listener),
            #[cfg(unix)]
            Socket::Unix(listener) => BoundListener::Unix(listener),
        };
        match Listener::register(bound) {
            Ok(listener) => Ok(ExtraConnections { name, listener, stay: Some(worker.stay()), worker }),
            Err(source) => Err(ExtraListenerError::System { name, source }),
        }
    }

    /// The TCP listener, for the tokio runtime that this is called in: for a server that accepts by itself. Such a server must
    /// stop when the [drain](Worker::drain) starts, and [`Worker::stay`] keeps the process for what it has begun.
    ///
    /// # Errors
    ///
    /// [`ExtraListenerError::Kind`] if it is a unix socket; the system's.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn into_tcp(self) -> Result<tokio::net::TcpListener, ExtraListenerError> {
        let name = self.name.clone();
        let failed = |source| ExtraListenerError::System { name, source };
        tokio::net::TcpListener::from_std(self.into_std_tcp()?).map_err(failed)
    }

    /// The TCP listener, for frameworks that want it so.
    ///
    /// # Errors
    ///
    /// [`ExtraListenerError::Kind`] if it is a unix socket.
    pub fn into_std_tcp(self) -> Result<std::net::TcpListener, ExtraListenerError> {
        match self.socket {
            Socket::Tcp(listener) => Ok(listener),
            #[cfg(unix)]
            Socket::Unix(_) => {
                let instead = "into_unix() or into_std_unix()";
                Err(ExtraListenerError::Kind { name: self.name, is: "unix", instead })
            }
        }
    }

    /// The unix listener, for the tokio runtime that this is called in.
    ///
    /// # Errors
    ///
    /// [`ExtraListenerError::Kind`] if it is a TCP listener; the system's.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[cfg(unix)]
    pub fn into_unix(self) -> Result<tokio::net::UnixListener, ExtraListenerError> {
        let name = self.name.clone();
        let failed = |source| ExtraListenerError::System { name, source };
        tokio::net::UnixListener::from_std(self.into_std_unix()?).map_err(failed)
    }

    /// The unix listener, for frameworks that want it so.
    ///
    /// # Errors
    ///
    /// [`ExtraListenerError::Kind`] if it is a TCP listener.
    #[cfg(unix)]
    pub fn into_std_unix(self) -> Result<std::os::unix::net::UnixListener, ExtraListenerError> {
        match self.socket {
            Socket::Unix(listener) => Ok(listener),
            Socket::Tcp(_) => {
                let instead = "into_tcp() or into_std_tcp()";
                Err(ExtraListenerError::Kind { name: self.name, is: "TCP", instead })
            }
        }
    }
}

impl ExtraConnections {
    /// The worker they belong to.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The next connection; `None` from the start of the worker's drain on: what comes in then is for other workers, or for
    /// this one's next generation.
    ///
    /// Errors of accepting never come out, as with [`Connections::accept`](crate::Connections::accept). Dropping the future
    /// loses no connection.
    pub async fn accept(&mut self) -> Option<Connection> {
        let drain = self.worker.drain();
        loop {
            let arrival = tokio::select! {
                biased;
                () = drain.started() => break,
                arrival = std::future::poll_fn(|cx| self.listener.poll_accept(cx)) => arrival,
            };
            match arrival {
                Ok(Arrival::New(stream)) => return Some(self.worker.inner.registry.register(stream)),
                #[cfg(cluster)]
                Ok(Arrival::Moved(..) | Arrival::Lost(_)) => {}
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => self.pause(&error).await,
            }
        }
        self.stay = None;
        None
    }

    /// Leaves connections in the kernel's queue while this process or the machine is out of something.
    async fn pause(&self, error: &io::Error) {
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| {
            let (worker, name) = (self.worker.id(), &self.name);
            notice::warn(format_args!(
                "worker {worker} cannot accept connections at {name} for now, they wait: {error}"
            ));
        });
        sleep(PAUSE).await;
    }
}

impl fmt::Debug for ExtraConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtraConnections").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for ExtraListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtraListener").field("name", &self.name).field("socket", &self.socket).finish()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

    use super::*;

    fn extras() -> Extras {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let name = format!("sticky-extra-{}", std::process::id());
        let address = <UnixAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).unwrap();
        let unix = UnixListener::bind_addr(&address).unwrap();
        unix.set_nonblocking(true).unwrap();
        Extras::new(vec![("a".to_owned(), Socket::Tcp(tcp)), ("b".to_owned(), Socket::Unix(unix))])
    }

    fn take(extras: &Extras, name: &str) -> Result<ExtraListener, ExtraListenerError> {
        extras.take(name, &Worker::detached())
    }

    #[tokio::test]
    async fn each_copy_accepts_from_the_same_queue() {
        let extras = extras();
        let first = take(&extras, "a").unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(first.name(), "a");
        drop(first.into_std_tcp().unwrap());
        let listener = take(&extras, "a").unwrap().into_tcp().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        listener.accept().await.unwrap();
        assert!(take(&extras, "b").unwrap().local_addr().is_none());
        take(&extras, "b").unwrap().into_unix().unwrap();
        take(&extras, "b").unwrap().into_std_unix().unwrap();
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let known =
            |names: &[&str]| Known(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).to_string();
        assert_eq!(known(&[]), "there is none");
        assert_eq!(known(&["a"]), "there is \"a\"");
        assert_eq!(known(&["a", "b", "c"]), "there are \"a\", \"b\", and \"c\"");
        let error = take(&extras(), "A").unwrap_err().to_string();
        let expected = "there is no extra listener \"A\": there are \"a\", and \"b\"; the cluster has those of its start \
                        (extra_listener, STICKY_EXTRA_LISTENER)";
        assert_eq!(error, expected);
    }

    #[test]
    fn what_it_is_not_is_said() {
        let extras = extras();
        let error = take(&extras, "a").unwrap().into_std_unix().unwrap_err().to_string();
        assert_eq!(error, "the extra listener \"a\" is a TCP listener: take it with into_tcp() or into_std_tcp()");
        let error = take(&extras, "b").unwrap().into_std_tcp().unwrap_err().to_string();
        assert_eq!(error, "the extra listener \"b\" is a unix listener: take it with into_unix() or into_std_unix()");
    }
}
