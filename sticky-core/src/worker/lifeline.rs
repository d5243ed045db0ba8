//! The thread that listens to the supervisor, and notices when it is gone even if the event loop is blocked.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::connections::Order;
use super::drain::{DrainReason, DrainTrigger};
use super::exports::Exports;
use super::leadership::Office;
use super::listener::{BoundListener, Lent};
use crate::bus::Wiring;
use crate::connection::Registry;
use crate::control::{BusPeerOrder, Channel, FromWorker, ListenOrder, Port, Received, SocketKind, ToWorker};
use crate::notice;

/// What is executing when the supervisor disappears has this long.
const ORPHAN_TIME: Duration = Duration::from_secs(1);

/// The worker's end of the control socket.
pub(super) type Control = Channel<FromWorker, ToWorker>;

/// Who in this process is to hear what the supervisor says.
pub(super) struct Hears {
    pub(super) orders: UnboundedSender<Order>,
    pub(super) drain: DrainTrigger,
    pub(super) registry: Registry,
    pub(super) wiring: UnboundedSender<Wiring>,
    pub(super) office: Arc<Office>,
    pub(super) exports: Exports,
    /// Where workers listen by themselves; for proxies.
    pub(super) ports: watch::Sender<Vec<Port>>,
}

/// Starts the thread. `sockets` is the most descriptors a message brings.
pub(super) fn start(control: Arc<Control>, hears: Hears, sockets: usize) -> io::Result<()> {
    let mut spares = Spares::new(sockets);
    let listen = move || {
        while let Some(received) = next(&control, &mut spares) {
            deliver(received, &control, &hears);
        }
        orphaned(&hears);
    };
    std::thread::Builder::new().name("sticky-lifeline".to_owned()).spawn(listen).map(drop)
}

/// The next message; `None` when the supervisor is gone.
fn next(control: &Control, spares: &mut Spares) -> Option<Received<ToWorker>> {
    loop {
        spares.fill();
        wait_readable(control);
        spares.clear();
        match control.receive() {
            Ok(received) => return received,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                // The supervisor would not have sent what it cannot do without: it notices by itself.
                notice::error(format_args!("a message of the supervisor is lost: {error}"));
            }
            Err(error) => {
                notice::error(format_args!("the control socket failed: {error}"));
                return None;
            }
        }
    }
}

fn wait_readable(control: &Control) {
    let mut fds = [PollFd::new(control, PollFlags::IN)];
    // Whatever it answers, the receive that follows waits.
    let _ = poll(&mut fds, None);
}

/// Descriptors kept free for those that messages bring: a process that is out of them would lose a listener.
struct Spares {
    wanted: usize,
    held: Vec<OwnedFd>,
}

impl Spares {
    fn new(wanted: usize) -> Self {
        Self { wanted, held: Vec::with_capacity(wanted) }
    }

    fn fill(&mut self) {
        while self.held.len() < self.wanted {
            // Without any left there will be none for the message either, and it says so.
            let Ok(file) = std::fs::File::open("/dev/null") else { return };
            self.held.push(file.into());
        }
    }

    fn clear(&mut self) {
        self.held.clear();
    }
}

fn deliver(received: Received<ToWorker>, control: &Control, hears: &Hears) {
    let order = match received.message {
        ToWorker::Listen(order) if received.is_cut || received.descriptors.len() < order.sockets.len() => {
            let (slot, part) = (order.slot, order.part);
            notice::error(format_args!("worker out of descriptors: it cannot read the sockets of slot {slot}"));
            let _ = control.send(&FromWorker::Dropped { slot, part }, &[]);
            return;
        }
        ToWorker::Listen(order) => listen_order(order, received.descriptors),
        ToWorker::Release(order) => Order::Release { slot: order.slot, part: order.part },
        ToWorker::Evicted { slots } => Order::Evicted { slots },
        ToWorker::Down { slots } => Order::Down { slots },
        ToWorker::Drain(order) => {
            // Counted before anybody hears of it: the first connections end at once.
            let open = hears.registry.open();
            hears.drain.start(order.reason, Instant::now() + Duration::from_millis(order.timeout_ms));
            Order::Drain { open, reason: order.reason }
        }
        ToWorker::Forsaken => return hears.drain.forsake(),
        ToWorker::Ports { ports } => return drop(hears.ports.send_replace(ports)),
        ToWorker::BusPeer(peer) => return connect(peer, received.descriptors, &hears.wiring),
        ToWorker::Exporter { .. } => return export(received.descriptors, &hears.exports),
        ToWorker::Grant => return hears.office.grant(),
        ToWorker::Revoke => return hears.office.revoke(),
        ToWorker::BusJoined => return drop(hears.wiring.send(Wiring::Joined)),
        ToWorker::Welcome(_) | ToWorker::Channels | ToWorker::Extras { .. } | ToWorker::Refused { .. } => return,
        // Not for workers.
        ToWorker::Prepare | ToWorker::Admit(_) | ToWorker::News(_) => return,
        ToWorker::Happened(_) | ToWorker::Progress { .. } | ToWorker::Unknown => return,
    };
    // Nobody takes orders any more when the application has dropped its connections.
    if let Err(untaken) = hears.orders.send(order) {
        let answer = match untaken.0 {
            Order::Listen { slot, part, .. } => FromWorker::Dropped { slot, part },
            Order::Release { slot, part } => FromWorker::Released { slot, part },
            _ => return,
        };
        let _ = control.send(&answer, &[]);
    }
}

fn listen_order(order: ListenOrder, descriptors: Vec<OwnedFd>) -> Order {
    let ListenOrder { slot, part, sockets, refuse } = order;
    let listeners = sockets.into_iter().zip(descriptors).map(|(kind, fd)| match kind {
        SocketKind::Tcp => Lent { placed: true, ..Lent::from(BoundListener::Tcp(fd.into())) },
        SocketKind::SharedTcp => BoundListener::Tcp(fd.into()).into(),
        SocketKind::SharedUnix => BoundListener::Unix(fd.into()).into(),
        SocketKind::KeptTcp => Lent { kept: true, ..Lent::from(BoundListener::Tcp(fd.into())) },
        SocketKind::KeptUnix => Lent { kept: true, ..Lent::from(BoundListener::Unix(fd.into())) },
        SocketKind::Channel => BoundListener::Channel(fd).into(),
    });
    Order::Listen { slot, part, listeners: listeners.collect(), refuse }
}

fn connect(order: BusPeerOrder, descriptors: Vec<OwnedFd>, wiring: &UnboundedSender<Wiring>) {
    let BusPeerOrder { worker, generation } = order;
    match descriptors.into_iter().next() {
        Some(socket) => drop(wiring.send(Wiring::Peer { socket, worker, generation })),
        None => notice::error(format_args!("worker out of descriptors: no bus between it and worker {worker}")),
    }
}

/// Metrics that are missing are no reason to say more.
fn export(descriptors: Vec<OwnedFd>, exports: &Exports) {
    if let Some(socket) = descriptors.into_iter().next()
        && let Err(error) = exports.serve(socket)
    {
        notice::warn(format_args!("this worker cannot tell its metrics: {error}"));
    }
}

fn orphaned(hears: &Hears) {
    hears.office.revoke();
    hears.drain.start(DrainReason::SupervisorGone, Instant::now() + ORPHAN_TIME);
    let _ = hears.orders.send(Order::Abandon);
    std::thread::sleep(ORPHAN_TIME + ORPHAN_TIME / 4);
    // Not `exit`: it would run the destructors of a program whose event loop may be blocked.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
