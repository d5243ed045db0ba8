//! The threads of a worker, each with its own instance of the application. Connections go to the one with the fewest.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use actix_rt::{Arbiter, System};
use sticky_core::{BoxError, Connection, Worker};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, LocalSet, spawn_local};

use crate::feed::{Factory, Feed};

/// Everything that serves in this worker: this thread, and the others it has started.
pub(crate) struct Threads {
    here: Box<dyn Feed>,
    /// Each connection that is open here has a share of this.
    open: Rc<()>,
    others: Vec<Other>,
}

/// Another thread.
struct Other {
    connections: mpsc::UnboundedSender<(Connection, Arc<()>)>,
    /// Each connection that is open there has a share of this.
    open: Arc<()>,
}

impl Threads {
    /// Makes an instance of the application on this thread and on `count - 1` others.
    ///
    /// # Errors
    ///
    /// When one of them cannot be made.
    pub(crate) async fn start(
        factory: &dyn Factory,
        address: SocketAddr,
        count: NonZeroUsize,
        worker: &Worker,
    ) -> Result<Self, BoxError> {
        let here = factory.make(address).await?;
        let mut others = Vec::new();
        for _ in 1..count.get() {
            others.push(Other::start(factory.another(), address, worker.clone()).await?);
        }
        Ok(Self { here, open: Rc::new(()), others })
    }

    /// Serves this worker's connections until it has drained.
    pub(crate) async fn serve(self, worker: Worker) {
        // In a task of its own: what awaits this is polled with whatever happens on this thread.
        let accepting = spawn_local(self.accept(worker));
        let _ends_with_this = AbortOnDrop(accepting.abort_handle());
        if let Err(error) = accepting.await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }

    async fn accept(self, worker: Worker) {
        let mut connections = worker.clone().ready();
        while let Some(connection) = connections.accept().await {
            self.deal(connection, &worker);
        }
        connections.finish().await;
    }

    fn deal(&self, connection: Connection, worker: &Worker) {
        let other = self.others.iter().min_by_key(|other| Arc::strong_count(&other.open));
        match other.filter(|other| Arc::strong_count(&other.open) < Rc::strong_count(&self.open)) {
            // Dropped where the thread is gone: its client comes again.
            Some(other) => drop(other.connections.send((connection, Arc::clone(&other.open)))),
            None => self.here.serve(connection, worker, Box::new(Rc::clone(&self.open))),
        }
    }
}

/// Ends a task with whoever waits for it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Other {
    async fn start(factory: Box<dyn Factory>, address: SocketAddr, worker: Worker) -> Result<Self, BoxError> {
        let (sender, mut receiver) = mpsc::unbounded_channel::<(Connection, Arc<()>)>();
        let (made, is_made) = oneshot::channel();
        on_new_thread(move || async move {
            let feed = match factory.make(address).await {
                Ok(feed) => feed,
                Err(error) => return drop(made.send(Err(error))),
            };
            let _ = made.send(Ok(()));
            while let Some((connection, held)) = receiver.recv().await {
                match connection.into_this_runtime() {
                    Ok(connection) => feed.serve(connection, &worker, Box::new(held)),
                    Err(error) => tracing::warn!(target: "sticky", %error, "a connection cannot change its thread"),
                }
            }
        })
        .map_err(|error| format!("cannot start a thread: {error}"))?;
        is_made.await.map_err(|_| "a thread ended while it made its instance of the application")??;
        Ok(Self { connections: sender, open: Arc::new(()) })
    }
}

/// Runs a future on a thread of its own: an arbiter's where there is a system.
fn on_new_thread<F>(make: impl FnOnce() -> F + Send + 'static) -> io::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    if System::try_current().is_some() {
        Arbiter::try_new()?.spawn_fn(move || drop(spawn_local(make())));
        return Ok(());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("sticky-actix".to_owned()).spawn(move || LocalSet::new().block_on(&runtime, make()))?;
    Ok(())
}
