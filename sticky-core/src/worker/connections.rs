//! The only way to a worker's connections: its acceptor, which reads the listeners the supervisor lends it.

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
#[cfg(cluster)]
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::evicted::Evicted;
use super::listener::{Arrival, Lent, Listener};
use super::lobby::{self, Lobby};
use crate::connection::{Connection, Stream};
use crate::control::{FromWorker, Part, WorkerReport};
#[cfg(cluster)]
use crate::dispatch::handoff::message::Message;
use crate::id::WorkerId;
use crate::notice;
use crate::worker::{DrainReason, Worker};

/// How long to leave connections in the kernel's queue when this process or the machine is out of something.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// How long handshakes that have begun have to complete before a queue counts as empty: a round trip.
const HANDSHAKE_TIME: Duration = Duration::from_millis(100);

/// How long until the next look at whether other workers still accept connections, which then may be sent here.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Connections that are cut go in this many batches …
const CUT_BATCHES: usize = 10;

/// … with this pause between them, so that their clients do not come back all at once.
const CUT_PAUSE: Duration = Duration::from_millis(50);

/// What the acceptor is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Read this part of a slot's sockets.
    Listen { slot: WorkerId, part: Part, listeners: Vec<Lent>, refuse: bool },
    /// Stop reading it and say so.
    Release { slot: WorkerId, part: Part },
    /// These slots are out of the placement.
    Evicted { slots: Vec<WorkerId> },
    /// These slots' processes do not run just now.
    Down { slots: Vec<WorkerId> },
    /// Empty the queues, then stop reading; replaced, others read them already. So many connections were open when the
    /// drain began.
    Drain { open: usize, reason: DrainReason },
    /// Stop reading at once.
    Abandon,
}

/// One listener of one slot, lent to this worker.
#[derive(Debug)]
struct Reader {
    slot: WorkerId,
    part: Part,
    listener: Listener,
    placed: bool,
    kept: bool,
    refuse: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Others accept; what is still on its way through the lobby goes there or is served.
    Leaving,
    /// No new connection begins; what the queues hold is still accepted.
    Emptying,
    /// The queues have been found empty; handshakes that had begun may still complete.
    Lingering,
    /// This worker accepts nothing any more, and reads what others that still do may send.
    Settling,
    /// Nobody accepts anything any more; what was sent last is read.
    Sealed,
    Ended,
}

/// This worker's connections, in the order in which the kernel has them.
///
/// From [`Worker::ready`]. Dropping it ends this worker's part in the cluster: what follows has `exit_timeout` (5 s), and
/// then the supervisor starts the worker again. The slot's queue waits for the next generation.
#[derive(Debug)]
pub struct Connections {
    worker: Worker,
    orders: mpsc::UnboundedReceiver<Order>,
    readers: Vec<Reader>,
    next: usize,
    phase: Phase,
    pause: Option<Pin<Box<Sleep>>>,
    evicted: Evicted,
    lobby: Option<Lobby>,
    /// Connections that were open when the drain began, or have come in since.
    draining: usize,
    /// What had been sent to other workers when the drain began.
    sent_before: u64,
}

impl Connections {
    pub(super) fn new(worker: Worker, orders: mpsc::UnboundedReceiver<Order>) -> Self {
        let lobby = worker.inner.plan.as_ref().map(|plan| Lobby::new(plan, &worker));
        let mut evicted = Evicted::default();
        evicted.note_headcount(worker.workers(), Instant::now());
        Self {
            worker,
            orders,
            readers: Vec::new(),
            next: 0,
            phase: Phase::Serving,
            pause: None,
            evicted,
            lobby,
            draining: 0,
            sent_before: 0,
        }
    }

    /// The worker these connections belong to.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The next connection; `None` once the worker drains and its queues have been emptied.
    ///
    /// Errors of accepting never come out: what concerns one client is its own affair, and when the process or the
    /// machine runs out of descriptors or memory, connections wait in the kernel's queue meanwhile. Dropping the
    /// future loses no connection.
    pub async fn accept(&mut self) -> Option<Connection> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`accept`](Self::accept), for those who write their own futures.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Connection>> {
        loop {
            self.take_orders(cx);
            if self.phase == Phase::Ended {
                return Poll::Ready(None);
            }
            if let Some(lobby) = &mut self.lobby
                && let Poll::Ready(connection) = lobby.poll_opened(cx)
            {
                return Poll::Ready(Some(connection));
            }
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match std::task::ready!(self.poll_arrival(cx)) {
                None => self.go_on(),
                Some((reader, Ok(arrival))) => {
                    if let Some(connection) = self.admit(reader, arrival) {
                        return Poll::Ready(Some(connection));
                    }
                }
                Some((_, Err(error))) => self.accept_failed(&error),
            }
        }
    }

    /// What has come in; in a drain none when the queues are empty.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, io::Result<Arrival>)>> {
        match self.phase {
            Phase::Serving => {}
            Phase::Leaving => return self.poll_left(),
            _ => return Poll::Ready(self.accept_queued()),
        }
        let limit = self.worker.limits().max_connections;
        let has_room = limit.is_none_or(|limit| self.worker.inner.registry.poll_room(cx, limit).is_ready());
        self.poll_readers(cx, has_room)
    }

    /// Ready when nothing is on its way any more; nothing comes in.
    fn poll_left(&self) -> Poll<Option<(usize, io::Result<Arrival>)>> {
        // Each one that leaves the lobby wakes this task.
        let is_empty = self.lobby.as_ref().is_none_or(Lobby::is_cleared);
        if is_empty { Poll::Ready(None) } else { Poll::Pending }
    }

    /// The queues are empty, or it is too late for what is in them: the next step of the drain.
    fn go_on(&mut self) {
        let is_late = self.is_late();
        match (self.phase, &self.lobby) {
            (Phase::Emptying, _) if !is_late => self.step(Phase::Lingering, HANDSHAKE_TIME),
            (Phase::Lingering | Phase::Settling, Some(lobby)) if !is_late => {
                let is_empty = lobby.is_empty() && !self.may_forward(lobby);
                if is_empty {
                    self.worker.row().emptied();
                }
                if is_empty && !lobby.somebody_accepts() {
                    lobby.handoff().seal();
                    self.step(Phase::Sealed, HANDSHAKE_TIME);
                } else {
                    self.step(Phase::Settling, LOOK_PAUSE);
                }
            }
            (Phase::Sealed, Some(lobby)) if !is_late && !lobby.is_empty() => self.step(Phase::Sealed, LOOK_PAUSE),
            _ => self.end(),
        }
    }

    /// Whether this is a proxy with a connection left, on which there may be another request for a worker.
    fn may_forward(&self, lobby: &Lobby) -> bool {
        lobby.handoff().judge().forwards() && self.worker.inner.registry.open() > 0
    }

    fn step(&mut self, phase: Phase, pause: Duration) {
        self.phase = phase;
        self.pause = Some(Box::pin(tokio::time::sleep(pause)));
    }

    fn take_orders(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(order)) = self.orders.poll_recv(cx) {
            self.obey(order);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Listen { slot, part, listeners, refuse } => self.listen(slot, part, listeners, refuse),
            Order::Release { slot, part } => {
                self.let_go(slot, part);
                self.say(FromWorker::Released { slot, part });
            }
            Order::Evicted { slots } => {
                if let Some(lobby) = &self.lobby {
                    lobby.handoff().judge().leave_out(&slots);
                }
                self.evicted.set(slots, Instant::now());
            }
            Order::Down { slots } => {
                if let Some(lobby) = &self.lobby {
                    lobby.handoff().judge().note_down(&slots);
                }
            }
            // Where others have taken over, the queues are their affair.
            Order::Drain { open, reason } if self.phase == Phase::Serving && reason.has_heirs() => self.leave(open),
            Order::Drain { open, .. } if self.phase == Phase::Serving => self.empty(open),
            Order::Drain { .. } if self.phase == Phase::Leaving => self.phase = Phase::Emptying,
            Order::Drain { .. } => {}
            Order::Abandon => self.end(),
        }
    }

    fn empty(&mut self, open: usize) {
        self.begin_drain(Phase::Emptying, open);
        self.leave_kept();
        self.quiesce();
    }

    /// Others read this slot's sockets. Should some of them still be read here, they are not any more.
    fn leave(&mut self, open: usize) {
        self.begin_drain(Phase::Leaving, open);
        self.readers.clear();
        self.worker.row().stand_up();
    }

    fn begin_drain(&mut self, phase: Phase, open: usize) {
        self.phase = phase;
        self.pause = None;
        self.draining += open;
        self.sent_before = self.worker.row().totals().handoffs.sent;
    }

    /// Leaves alone what others keep: it must not be closed for them, and what is in its queue is for the next start.
    fn leave_kept(&mut self) {
        let (kept, readers): (Vec<_>, Vec<_>) = self.readers.drain(..).partition(|reader| reader.kept);
        self.readers = readers;
        let is_read = |slot, part| self.readers.iter().any(|reader| (reader.slot, reader.part) == (slot, part));
        let mut left: Vec<_> = kept.iter().map(|reader| (reader.slot, reader.part)).collect();
        left.sort_unstable();
        left.dedup();
        left.retain(|(slot, part)| !is_read(*slot, *part));
        for (slot, part) in left {
            self.say(FromWorker::Released { slot, part });
        }
    }

    fn quiesce(&self) {
        for reader in &self.readers {
            if let Err(error) = reader.listener.quiesce() {
                notice::warn(format_args!("worker {}: new connections may be reset: {error}", self.id()));
            }
        }
    }

    fn listen(&mut self, slot: WorkerId, part: Part, listeners: Vec<Lent>, refuse: bool) {
        // One that was asked for a slot and not waited for may be lent it again before it has let go.
        self.let_go(slot, part);
        for Lent { listener, placed, kept } in listeners {
            match Listener::register(listener) {
                Ok(listener) => self.readers.push(Reader { slot, part, listener, placed, kept, refuse }),
                Err(error) => {
                    notice::error(format_args!("worker {} cannot read slot {slot}: {error}", self.id()));
                    self.let_go(slot, part);
                    return self.say(FromWorker::Dropped { slot, part });
                }
            }
        }
        self.stand_in();
        if slot == self.id() {
            self.worker.row().sit(slot);
        }
        if self.phase != Phase::Serving {
            self.leave_kept();
            self.quiesce();
        }
    }

    fn let_go(&mut self, slot: WorkerId, part: Part) {
        self.readers.retain(|reader| (reader.slot, reader.part) != (slot, part));
        self.stand_in();
    }

    /// Has nothing sent into channels that are read here: it would come back.
    fn stand_in(&self) {
        if let Some(lobby) = &self.lobby {
            let channels = self.readers.iter().filter(|reader| reader.part == Part::Channel);
            let others = channels.map(|reader| reader.slot).filter(|slot| *slot != self.id());
            lobby.handoff().judge().stand_in_for(&others.collect::<Vec<_>>());
        }
    }

    /// The first reader with a connection, starting behind the one that had the last. Without room for new ones only
    /// those come in that other workers have had room for.
    fn poll_readers(&mut self, cx: &mut Context<'_>, has_room: bool) -> Poll<Option<(usize, io::Result<Arrival>)>> {
        for step in 0..self.readers.len() {
            let index = (self.next + step) % self.readers.len();
            if !has_room && self.readers[index].part == Part::Listeners {
                continue;
            }
            if let Poll::Ready(accepted) = self.readers[index].listener.poll_accept(cx) {
                self.next = index + 1;
                return Poll::Ready(Some((index, accepted)));
            }
        }
        Poll::Pending
    }

    /// A connection from the kernel's queues, for which there is no waiting any more.
    fn accept_queued(&mut self) -> Option<(usize, io::Result<Arrival>)> {
        if self.is_late() {
            return None;
        }
        let readers = self.readers.iter_mut().enumerate();
        let mut accepted = readers.map(|(index, reader)| (index, reader.listener.accept_queued()));
        accepted.find(|(_, accepted)| !matches!(accepted, Err(error) if error.kind() == io::ErrorKind::WouldBlock))
    }

    /// Whether the drain's time is over.
    fn is_late(&self) -> bool {
        self.worker.inner.connection_drain.is_expired()
    }

    /// Lets go of everything, and says so: in a drain the queues are empty, at other times nobody expects it.
    fn end(&mut self) {
        let in_order = self.phase != Phase::Serving;
        self.phase = Phase::Ended;
        // Nobody waits for connections that this worker might still have for others, and it sends none any more.
        self.worker.row().emptied();
        if let Some(lobby) = &self.lobby {
            lobby.handoff().seal();
        }
        let mut lent: Vec<(WorkerId, Part)> = self.readers.drain(..).map(|reader| (reader.slot, reader.part)).collect();
        if !in_order {
            lent.push((self.id(), Part::Listeners));
        }
        lent.sort_unstable();
        lent.dedup();
        for (slot, part) in lent {
            self.say(if in_order { FromWorker::Released { slot, part } } else { FromWorker::Dropped { slot, part } });
        }
    }

    /// What went wrong with one connection is over with it. Of everything else there may be more, so it pauses.
    fn accept_failed(&mut self, error: &io::Error) {
        if concerns_one_connection(error) {
            return;
        }
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| {
            notice::warn(format_args!(
                "worker {} cannot accept connections for now, they wait in the kernel's queue: {error}",
                self.id()
            ));
        });
        self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
    }

    /// Takes in what has come; `None` when there is nothing to serve, or not yet.
    fn admit(&mut self, reader: usize, arrival: Arrival) -> Option<Connection> {
        let Reader { slot, placed, refuse, .. } = self.readers[reader];
        match arrival {
            Arrival::New(stream) => self.admit_new(slot, placed, refuse, stream),
            #[cfg(cluster)]
            Arrival::Moved(socket, message) => self.admit_moved(slot, refuse, socket, message),
            #[cfg(cluster)]
            Arrival::Lost(loss) => {
                self.worker.row().outcome(loss.outcome());
                notice::warn(format_args!("worker {} has lost a connection sent to it: {loss}", self.id()));
                None
            }
        }
    }

    /// Counts and checks a connection that a client has begun.
    fn admit_new(&mut self, slot: WorkerId, placed: bool, refuse: bool, stream: Stream) -> Option<Connection> {
        let row = self.worker.row();
        row.accepted();
        if slot != self.id() {
            row.adopted();
        } else if let Some(peer) = stream.peer_addr().filter(|_| placed) {
            self.check_placement(peer.ip());
        }
        if refuse {
            lobby::refuse(stream);
            return None;
        }
        self.note_draining();
        let connection = self.worker.inner.registry.register(stream);
        match &mut self.lobby {
            Some(lobby) => lobby.admit(connection),
            None => Some(connection),
        }
    }

    /// Takes in a connection that another worker has sent to `slot`.
    #[cfg(cluster)]
    fn admit_moved(&mut self, slot: WorkerId, refuse: bool, socket: OwnedFd, message: Message) -> Option<Connection> {
        self.worker.row().received();
        self.worker.row().arrive();
        self.note_draining();
        let is_ours = slot == self.id();
        let lobby = self.lobby.as_mut()?;
        let connection = match lobby.handoff().receive(socket, message, is_ours) {
            Ok(connection) => connection,
            Err(error) => {
                notice::warn(format_args!("a connection sent to worker {slot} is closed: {error}"));
                return None;
            }
        };
        if refuse {
            connection.refuse();
            return None;
        }
        lobby.wait_for(connection)
    }

    /// Counts what comes in after the drain has begun, also before the acceptor has heard of that: it was not open then.
    fn note_draining(&mut self) {
        if self.worker.inner.drain.is_started() {
            self.draining += 1;
        }
    }

    /// Compares what the kernel did with what it should have done.
    fn check_placement(&mut self, peer: IpAddr) {
        let Some(placement) = &self.worker.inner.placement else {
            return;
        };
        let (workers, now) = (&self.worker.inner.workers, Instant::now());
        self.evicted.note_headcount(workers.now(), now);
        let owner = placement.first_among(workers.now(), peer, |_| true);
        // What was placed on a slot before that was taken out comes in there all the same.
        let is_excused = |owner| workers.lacks(self.id()) || self.evicted.contains(owner, now);
        if owner.is_some_and(|owner| owner != self.id() && !is_excused(owner)) {
            self.worker.row().mismatch();
        }
    }

    fn id(&self) -> WorkerId {
        self.worker.id()
    }

    fn say(&self, message: FromWorker) {
        (self.worker.inner.report)(message);
    }

    /// Waits until every connection has ended and nobody [stays](Worker::stay), or the drain's deadline has passed, cuts what is left in paced
    /// batches, and tells the supervisor how it went.
    ///
    /// Call it after [`accept`](Self::accept) has returned `None`. Before that it ends the accepting; the supervisor
    /// then starts this worker again.
    pub async fn finish(mut self) {
        if self.phase != Phase::Ended {
            self.end();
        }
        let worker = self.worker.clone();
        worker.inner.drain.started().await;
        let registry = &worker.inner.registry;
        let all_done = async {
            registry.idle().await;
            worker.inner.stays.over().await;
        };
        let is_over = async {
            tokio::select! {
                biased;
                () = all_done => false,
                () = worker.inner.connection_drain.expired() => true,
            }
        };
        let cut = if self.tidy_until(is_over).await { self.cut().await } else { 0 };
        // Those that went to other workers are counted there.
        let sent = worker.row().totals().handoffs.sent.saturating_sub(self.sent_before);
        let completed = (self.draining.saturating_sub(cut) as u64).saturating_sub(sent);
        self.say(FromWorker::Drained(WorkerReport { completed, cut: cut as u64 }));
    }

    /// Waits, and meanwhile sees to connections that come back because their owner is out: where another generation has
    /// taken over they go there, else there is nobody any more who would serve them.
    async fn tidy_until<T>(&mut self, end: impl Future<Output = T>) -> T {
        let mut end = pin!(end);
        let lobby = &mut self.lobby;
        poll_fn(|cx| {
            while let Some(lobby) = lobby
                && let Poll::Ready(connection) = lobby.poll_opened(cx)
            {
                drop(connection);
            }
            end.as_mut().poll(cx)
        })
        .await
    }

    async fn cut(&self) -> usize {
        let registry = &self.worker.inner.registry;
        let batch = registry.open().div_ceil(CUT_BATCHES).max(1);
        let mut cut = 0;
        for _ in 0..=CUT_BATCHES {
            let some = registry.cut(batch);
            cut += some;
            if some == 0 {
                break;
            }
            let _ = tokio::time::timeout(CUT_PAUSE, registry.idle()).await;
        }
        cut
    }
}

impl Drop for Connections {
    /// Without this nobody would know that the slot is not read any more.
    fn drop(&mut self) {
        if self.phase != Phase::Ended {
            self.end();
        }
    }
}

/// Whether an error of accept(2) is about the connection that was to be accepted: Linux passes on what has become of it
/// meanwhile.
pub(super) fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
        NotConnected, TimedOut, WouldBlock,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | TimedOut
            | WouldBlock
    )
}
