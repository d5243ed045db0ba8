//! The thread that listens to the supervisor, and notices when it is gone even if the event loop is blocked.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::connections::{BoundListener, Lent, Order};
use super::drain::{DrainReason, DrainTrigger};
use crate::control::{Channel, FromWorker, ListenOrder, Received, SocketKind, ToWorker};
use crate::notice;

/// What is executing when the supervisor disappears has this long.
const ORPHAN_TIME: Duration = Duration::from_secs(1);

/// The worker's end of the control socket.
pub(super) type Control = Channel<FromWorker, ToWorker>;

/// Starts the thread.
pub(super) fn start(control: Arc<Control>, orders: UnboundedSender<Order>, drain: DrainTrigger) -> io::Result<()> {
    std::thread::Builder::new()
        .name("sticky-lifeline".to_owned())
        .spawn(move || listen(&control, &orders, &drain))
        .map(drop)
}

fn listen(control: &Control, orders: &UnboundedSender<Order>, drain: &DrainTrigger) {
    loop {
        match control.receive() {
            Ok(Some(received)) => deliver(received, orders, drain),
            Ok(None) => break,
            Err(error) => {
                notice::error(format_args!("the control socket failed: {error}"));
                break;
            }
        }
    }
    orphaned(orders, drain);
}

fn deliver(received: Received<ToWorker>, orders: &UnboundedSender<Order>, drain: &DrainTrigger) {
    let order = match received.message {
        ToWorker::Listen(order) => listen_order(order, received.descriptors),
        ToWorker::Release(order) => Order::Release { slot: order.slot },
        ToWorker::Evicted { slots } => Order::Evicted { slots },
        ToWorker::Drain(order) => {
            let deadline = Instant::now() + Duration::from_millis(order.timeout_ms);
            drain.start(order.reason, deadline);
            Order::Drain
        }
        ToWorker::Welcome(_) | ToWorker::Refused { .. } | ToWorker::Unknown => return,
    };
    // Nobody takes orders any more when the application has dropped its connections: then there is nothing to do.
    let _ = orders.send(order);
}

fn listen_order(order: ListenOrder, descriptors: Vec<OwnedFd>) -> Order {
    let ListenOrder { slot, sockets, refuse } = order;
    let listeners = sockets.into_iter().zip(descriptors).map(|(kind, fd)| match kind {
        SocketKind::Tcp => Lent {
            listener: BoundListener::Tcp(fd.into()),
            placed: true,
        },
        SocketKind::SharedTcp => Lent {
            listener: BoundListener::Tcp(fd.into()),
            placed: false,
        },
        SocketKind::SharedUnix => Lent {
            listener: BoundListener::Unix(fd.into()),
            placed: false,
        },
    });
    Order::Listen {
        slot,
        listeners: listeners.collect(),
        refuse,
    }
}

fn orphaned(orders: &UnboundedSender<Order>, drain: &DrainTrigger) {
    drain.start(DrainReason::SupervisorGone, Instant::now() + ORPHAN_TIME);
    let _ = orders.send(Order::Abandon);
    std::thread::sleep(ORPHAN_TIME + ORPHAN_TIME / 4);
    // Not `exit`: it would run the destructors of a program whose event loop may be blocked.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
