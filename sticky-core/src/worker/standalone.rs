//! Serving in this process, without a cluster: `workers(0)`, and platforms where there is none.

use std::io;
use std::time::Instant;

use tokio::sync::mpsc;

use super::connections::{BoundListener, Lent, Order};
use super::{DrainReason, DrainTrigger, Limits, Parts, Sockets, Worker};
use crate::config::Config;
use crate::id::{Generation, WorkerId};
use crate::listener::{self, ListenError, ListenerSet, LocalAddress, Sharing};
use crate::notice;
use crate::scoreboard::Row;

/// Why this process cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StandaloneError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system refused something else.
    #[error("cannot {attempt}")]
    System {
        /// What was attempted.
        attempt: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Binds the addresses here and becomes the only worker.
pub(crate) fn standalone(config: &Config) -> Result<Worker, StandaloneError> {
    let sets = listener::take(&config.listen, Sharing::Shared, config.backlog)?;
    let system = |attempt| move |source| StandaloneError::System { attempt, source };
    let lent: io::Result<Vec<Lent>> = sets.iter().map(lend).collect();
    let (sender, orders) = mpsc::unbounded_channel();
    let id = WorkerId::new(0);
    let listeners = lent.map_err(system("lend a listener to itself"))?;
    let addresses = listeners.len();
    let _ = sender.send(Order::Listen {
        slot: id,
        listeners,
        refuse: false,
    });
    let worker = Worker::new(Parts {
        id,
        generation: Generation::FIRST,
        workers: 1,
        row: Row::detached(),
        limits: Limits::of(config),
        placement: None,
        orders,
        report: Box::new(drop),
        drain: DrainTrigger::new(),
        sockets: Sockets {
            dispatch: config.dispatch,
            addresses,
        },
    });
    for set in &sets {
        let scheme = set.address().scheme();
        notice::announce(format_args!(
            "listening on {scheme}{} (in this process, no workers)",
            set.address()
        ));
    }
    watch_signals(worker.clone(), sender, sets).map_err(system("watch signals"))?;
    Ok(worker)
}

fn lend(set: &ListenerSet) -> io::Result<Lent> {
    let socket = set.kind().sockets()[0].try_clone()?;
    let listener = match set.address() {
        LocalAddress::Tcp(_) => BoundListener::Tcp(socket.into()),
        #[cfg(unix)]
        LocalAddress::Unix(_) => BoundListener::Unix(socket.into()),
        #[cfg(not(unix))]
        LocalAddress::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok(Lent {
        listener,
        placed: false,
    })
}

/// Drains when the program is asked to end. On a thread of its own: the application has not made its runtime yet.
fn watch_signals(worker: Worker, orders: mpsc::UnboundedSender<Order>, sets: Vec<ListenerSet>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new()
        .name("sticky-signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                if asked_to_end().await.is_ok() {
                    sets.iter().for_each(ListenerSet::unpublish);
                    worker.start_drain(DrainReason::Shutdown, Instant::now() + worker.limits().shutdown_timeout);
                    let _ = orders.send(Order::Drain);
                    if asked_to_end().await.is_ok() {
                        std::process::exit(1);
                    }
                }
                // Without signals there is nothing to watch; the channel stays open all the same.
                std::future::pending::<()>().await;
            });
        })?;
    Ok(())
}

#[cfg(unix)]
async fn asked_to_end() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn asked_to_end() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
