//! How a worker comes to take part in the bus: it asks, and the supervisor connects it with everybody who has asked.
//!
//! ```text
//! worker                        supervisor
//!   │ ───── BusJoin ────────────────► │ a socket pair for each process that has joined
//!   │ ◄──── BusPeer, a socket ─────── │ ───── BusPeer, the other end ─────► peer
//!   │ ◄──── BusJoined ─────────────── │
//!   │ ◄──────────── what they have subscribed to ───────────────────────► peer
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::timeout;

use super::error::BusError;
use super::hub::Hub;
use super::message::BusPeer;
use super::pump::Pump;
use crate::id::{Generation, WorkerId};
use crate::notice;

/// How long the supervisor may take to connect a worker with the others.
const JOIN_TIME: Duration = Duration::from_secs(10);

/// What the supervisor says about the bus.
#[derive(Debug)]
pub(crate) enum Wiring {
    /// Another process, at the other end of this socket.
    Peer { socket: OwnedFd, worker: WorkerId, generation: Generation },
    /// Everybody who had joined before has been named.
    Joined,
}

/// A worker's place in the bus of its cluster.
pub(super) struct Membership {
    hub: Arc<Hub>,
    ask: Box<dyn Fn() + Send + Sync>,
    standing: watch::Sender<Standing>,
    /// Taken when the thread starts.
    wiring: Arc<Mutex<Option<UnboundedReceiver<Wiring>>>>,
    /// Everybody else has been heard of; nothing is to be waited for any more.
    is_connected: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Outside,
    Asked,
    /// There was no answer in time. It may still come.
    Overdue,
    Joined,
}

impl Membership {
    /// One that is outside until somebody wants to be in; and where the supervisor's words go.
    pub(super) fn new(hub: Arc<Hub>, ask: Box<dyn Fn() + Send + Sync>) -> (Self, UnboundedSender<Wiring>) {
        let (sender, wiring) = unbounded_channel();
        let membership = Self {
            hub,
            ask,
            standing: watch::Sender::new(Standing::Outside),
            wiring: Arc::new(Mutex::new(Some(wiring))),
            is_connected: AtomicBool::new(false),
        };
        (membership, sender)
    }

    /// Asks to take part, unless that is done.
    pub(super) fn join(&self) {
        let has_to_ask = self.standing.send_if_modified(|standing| {
            let has_to = matches!(standing, Standing::Outside | Standing::Overdue);
            if has_to {
                *standing = Standing::Asked;
            }
            has_to
        });
        if !has_to_ask {
            return;
        }
        match self.start() {
            Ok(()) => (self.ask)(),
            Err(error) => {
                notice::error(format_args!("the bus has no thread: {error}"));
                self.standing.send_replace(Standing::Overdue);
            }
        }
    }

    /// Waits until this process takes part and knows what everybody else has subscribed to.
    pub(super) async fn connected(&self) -> Result<(), BusError> {
        if self.is_connected.load(Ordering::Acquire) {
            return Ok(());
        }
        self.join();
        let mut standing = self.standing.subscribe();
        let settled = standing.wait_for(|standing| matches!(standing, Standing::Joined | Standing::Overdue)).await;
        if settled.is_ok_and(|standing| *standing == Standing::Overdue) {
            return Err(BusError::NotConnected);
        }
        self.hub.greeted().await;
        self.is_connected.store(true, Ordering::Release);
        Ok(())
    }

    /// Starts the thread that all talk with peers happens on, once. It is not the application's: an event loop that is
    /// blocked must not hold up those who wait for this process to hear of their subscriptions.
    fn start(&self) -> io::Result<()> {
        if lock(&self.wiring).is_none() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (hub, standing) = (Arc::clone(&self.hub), self.standing.clone());
        // Taken by the thread itself: where there is none, the next attempt still has it.
        let wiring = Arc::clone(&self.wiring);
        let run = move || {
            let wiring = lock(&wiring).take();
            if let Some(wiring) = wiring {
                runtime.block_on(take_part(wiring, hub, standing));
            }
        };
        std::thread::Builder::new().name("sticky-bus".to_owned()).spawn(run).map(drop)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the bus's thread does, as long as there is a supervisor.
async fn take_part(mut wiring: UnboundedReceiver<Wiring>, hub: Arc<Hub>, standing: watch::Sender<Standing>) {
    tokio::spawn(limit_waiting(standing.clone()));
    while let Some(wiring) = wiring.recv().await {
        match wiring {
            Wiring::Peer { socket, worker, generation } => {
                let peer = BusPeer { worker, generation };
                match Pump::new(socket, peer, &hub) {
                    Ok(pump) => drop(tokio::spawn(pump.run())),
                    Err(error) => notice::error(format_args!("the bus cannot reach {peer}: {error}")),
                }
            }
            Wiring::Joined => {
                standing.send_replace(Standing::Joined);
            }
        }
    }
    // This process ends soon, and says goodbye until then.
    std::future::pending().await
}

/// Lets nobody wait longer than [`JOIN_TIME`] for the supervisor.
async fn limit_waiting(standing: watch::Sender<Standing>) {
    let mut changes = standing.subscribe();
    loop {
        let _ = changes.wait_for(|standing| *standing == Standing::Asked).await;
        let answered = timeout(JOIN_TIME, changes.wait_for(|standing| *standing != Standing::Asked)).await.is_ok();
        if !answered {
            standing.send_if_modified(|standing| {
                let is_overdue = *standing == Standing::Asked;
                if is_overdue {
                    *standing = Standing::Overdue;
                }
                is_overdue
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::scoreboard::Row;

    #[tokio::test(start_paused = true)]
    async fn a_supervisor_that_does_not_answer_is_asked_again_and_not_waited_for() {
        let me = BusPeer { worker: WorkerId::new(0), generation: Generation::FIRST };
        let hub = Arc::new(Hub::new(me, 2, Row::detached()));
        let asked = Arc::new(AtomicUsize::new(0));
        let asks = Arc::clone(&asked);
        let ask = Box::new(move || {
            asks.fetch_add(1, Ordering::Relaxed);
        });
        let (membership, sender) = Membership::new(Arc::clone(&hub), ask);
        // Here instead of in a thread, so that its clock is this one.
        let wiring = lock(&membership.wiring).take().unwrap();
        tokio::spawn(take_part(wiring, hub, membership.standing.clone()));
        for attempt in 1..=3 {
            assert_eq!(membership.connected().await, Err(BusError::NotConnected));
            assert_eq!(asked.load(Ordering::Relaxed), attempt);
        }
        sender.send(Wiring::Joined).unwrap();
        membership.standing.subscribe().wait_for(|standing| *standing == Standing::Joined).await.unwrap();
        assert_eq!(membership.connected().await, Ok(()));
        membership.join();
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }
}
