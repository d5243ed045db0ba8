//! A worker whose application listens by itself, on a port of the loopback interface: proxies ask it there.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{Connections, DrainReason, Worker};
use crate::cluster::BoxError;
use crate::id::WorkerId;

/// How long until it is looked again whether the application listens, or whether it is still asked.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// How long requests may take to come that were on their way when another generation took over.
const GRACE: Duration = Duration::from_millis(250);

/// The port of a slot: counted up from the first, or one that is free.
///
/// # Errors
///
/// When the system has none.
pub(crate) fn choose(first: Option<u16>, slot: WorkerId) -> io::Result<u16> {
    match first {
        // The configuration has made sure that there is room.
        Some(first) => Ok(first.saturating_add(slot.get())),
        None => Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port()),
    }
}

/// The application has ended before anybody could ask it anything.
#[derive(Debug, thiserror::Error)]
#[error("the application ended without listening on port {port}")]
struct NeverListened {
    port: u16,
}

impl Worker {
    /// Runs an application that listens on `port` by itself, until this worker has drained. What it does after that it
    /// does not do any more.
    ///
    /// # Errors
    ///
    /// What the application says; and its end, if that comes before it listens.
    pub(crate) async fn run_on_port(
        self,
        port: u16,
        application: impl Future<Output = Result<(), BoxError>>,
    ) -> Result<(), BoxError> {
        let mut application = pin!(application);
        tokio::select! {
            biased;
            () = listens(port) => {}
            ended = &mut application => return ended.and(Err(NeverListened { port }.into())),
        }
        let orders = self.take_orders();
        self.say_listening(port);
        let connections = Connections::new(self.clone(), orders);
        tokio::select! {
            ended = &mut application => ended,
            () = self.attend(connections) => Ok(()),
        }
    }

    /// Does what the supervisor orders until nobody asks the application any more.
    async fn attend(&self, mut connections: Connections) {
        while let Some(connection) = connections.accept().await {
            // Nobody sends any here.
            drop(connection);
        }
        let drain = &self.inner.connection_drain;
        tokio::select! {
            () = self.unasked() => {}
            () = drain.forsaken() => {}
            () = drain.expired() => {}
        }
        connections.finish().await;
    }

    /// Waits until no proxy has anything under way to this process.
    async fn unasked(&self) {
        if self.drain().reason().is_some_and(DrainReason::has_heirs) {
            sleep(GRACE).await;
        }
        while self.row().load() > 0 {
            sleep(LOOK_PAUSE).await;
        }
    }
}

/// Waits until somebody listens on this port.
async fn listens(port: u16) {
    while connect(port).await.is_err() {
        sleep(LOOK_PAUSE).await;
    }
}

/// Connects to a port of this machine: an application may listen on either address of it.
pub(crate) async fn connect(port: u16) -> io::Result<TcpStream> {
    match TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
        Ok(stream) => Ok(stream),
        Err(_) => TcpStream::connect(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_counted_up_or_free() {
        assert_eq!(choose(Some(8100), WorkerId::new(3)).unwrap(), 8103);
        let free = choose(None, WorkerId::new(3)).unwrap();
        assert!(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, free)).is_ok());
    }

    #[tokio::test]
    async fn who_never_listens_has_failed() {
        let port = choose(None, WorkerId::new(0)).unwrap();
        let error = Worker::detached().run_on_port(port, async { Ok(()) }).await.unwrap_err();
        assert!(error.to_string().contains("without listening on port"), "{error}");
        let error = Worker::detached().run_on_port(port, async { Err("no database".into()) }).await.unwrap_err();
        assert_eq!(error.to_string(), "no database");
    }

    #[tokio::test]
    async fn it_is_ready_when_it_listens() {
        let port = choose(None, WorkerId::new(0)).unwrap();
        let application = async {
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
            listener.accept().await?;
            // Ends by itself after the first look.
            Ok(())
        };
        Worker::detached().run_on_port(port, application).await.unwrap();
    }
}
