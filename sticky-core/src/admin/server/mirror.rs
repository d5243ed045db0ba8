//! What the supervisor has told, and who waits for its words.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, watch};

use super::exporters::Exporters;
use super::snapshot::{Snapshot, memory};
use crate::admin::{Happening, Progress, View};
use crate::control::{Admission, Channel, FromWorker, Received, ToWorker};
use crate::id::WorkerId;
use crate::scoreboard::{Scoreboard, Totals};

/// The admin process's end of its control socket.
pub(super) type Control = Channel<FromWorker, ToWorker>;

/// How many may listen to events at once.
const MOST_LISTENERS: usize = 16;

/// How many events wait for a listener before the oldest are lost to it.
const WAITING: usize = 1024;

/// A place among those who listen to events.
pub(super) type Seat = OwnedSemaphorePermit;

/// See the module.
pub(super) struct Mirror {
    scoreboard: Scoreboard,
    started_ms: u64,
    /// Whether what workers have started is what serves: then it counts with them.
    own_ports: bool,
    view: Mutex<View>,
    /// The most that was ever shown of each slot's counts.
    shown: Mutex<BTreeMap<WorkerId, Totals>>,
    /// None when nothing happens any more.
    events: Mutex<Option<broadcast::Sender<Happening>>>,
    seats: Arc<Semaphore>,
    words: Mutex<BTreeMap<u64, mpsc::UnboundedSender<Progress>>>,
    next_number: AtomicU64,
    exporters: Exporters,
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has been told yet.
    Ignorant,
    Knows,
    /// The supervisor has ended, or is about to.
    Ended,
}

impl Mirror {
    pub(super) fn new(scoreboard: Scoreboard, admission: &Admission, own_ports: bool) -> Arc<Self> {
        Arc::new(Self {
            scoreboard,
            started_ms: admission.started_ms,
            own_ports,
            view: Mutex::default(),
            shown: Mutex::default(),
            events: Mutex::new(Some(broadcast::channel(WAITING).0)),
            seats: Arc::new(Semaphore::new(MOST_LISTENERS)),
            words: Mutex::default(),
            next_number: AtomicU64::new(0),
            exporters: Exporters::default(),
            phase: watch::Sender::new(Phase::Ignorant),
        })
    }

    /// Hears the supervisor until it has ended. Blocking.
    pub(super) fn hear(&self, control: &Control) {
        loop {
            match control.receive() {
                Ok(Some(Received { message: ToWorker::Drain(_), .. }) | None) | Err(_) => return self.end(),
                Ok(Some(Received { message: ToWorker::Exporter { process }, descriptors, .. })) => {
                    descriptors.into_iter().for_each(|socket| self.exporters.add(process, socket));
                }
                Ok(Some(Received { message, .. })) => self.hear_one(message),
            }
        }
    }

    fn hear_one(&self, message: ToWorker) {
        match message {
            ToWorker::News(news) => {
                let knows = !news.slots.is_empty();
                lock(&self.view).learn(news);
                if knows {
                    self.phase.send_replace(Phase::Knows);
                }
            }
            ToWorker::Happened(happening) => {
                // Nobody has to listen.
                let _ = lock(&self.events).as_ref().map(|events| events.send(happening));
            }
            ToWorker::Progress { number, progress } => self.pass_on(number, progress),
            _ => {}
        }
    }

    fn pass_on(&self, number: u64, progress: Progress) {
        let mut words = lock(&self.words);
        let sender = if progress.is_last() { words.remove(&number) } else { words.get(&number).cloned() };
        // Who has asked may have gone.
        let _ = sender.map(|sender| sender.send(progress));
    }

    fn end(&self) {
        *lock(&self.events) = None;
        lock(&self.words).clear();
        self.phase.send_replace(Phase::Ended);
    }

    /// Waits until something is known of the cluster, or it has ended.
    pub(super) async fn knows(&self) {
        let _ = self.phase.subscribe().wait_for(|phase| *phase != Phase::Ignorant).await;
    }

    /// Waits until the supervisor has ended.
    pub(super) async fn ended(&self) {
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Ended).await;
    }

    /// When the supervisor was started, in milliseconds since 1970.
    pub(super) fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// What happens from now on; none if as many listen as may, or nothing will happen any more.
    pub(super) fn listen(&self) -> Option<(broadcast::Receiver<Happening>, Seat)> {
        let seat = Arc::clone(&self.seats).try_acquire_owned().ok()?;
        let events = lock(&self.events).as_ref().map(broadcast::Sender::subscribe)?;
        Some((events, seat))
    }

    /// A number for a command, and what will be said about it.
    pub(super) fn expect_words(&self) -> (u64, mpsc::UnboundedReceiver<Progress>) {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let (sender, words) = mpsc::unbounded_channel();
        lock(&self.words).insert(number, sender);
        (number, words)
    }

    /// Nothing will be said about it after all.
    pub(super) fn forget(&self, number: u64) {
        lock(&self.words).remove(&number);
    }

    /// The workers that have metrics of their own.
    pub(super) fn exporters(&self) -> &Exporters {
        &self.exporters
    }

    /// How everything is now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let view = lock(&self.view).clone();
        let row = |seat| (seat < self.scoreboard.seats()).then(|| self.scoreboard.row(seat));
        let mut snapshot = Snapshot::take(view, row, |pid| memory(pid, self.own_ports));
        let mut shown = lock(&self.shown);
        for slot in &mut snapshot.slots {
            // Between the end of a process and the word of it, what it has done is nowhere: a count that falls would be
            // taken for one that has begun anew.
            let most = shown.entry(slot.id).or_default();
            slot.totals.raise_to(most);
            *most = slot.totals;
        }
        snapshot
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::admin::{News, ProcessState, ProcessView, SlotKind, SlotState, SlotView};
    use crate::control;
    use crate::id::Generation;
    use crate::worker::DrainReason;

    const SLOT: WorkerId = WorkerId::new(0);

    fn mirror(board: &Scoreboard) -> Arc<Mirror> {
        let copy = Scoreboard::from_fd(board.as_fd().try_clone_to_owned().unwrap()).unwrap();
        Mirror::new(copy, &Admission { protocol: 1, started_ms: 0, listeners: Vec::new() }, false)
    }

    fn news(ended: Totals, process: Option<u64>) -> ToWorker {
        let (kind, state) = (SlotKind::Worker, SlotState::Ready);
        let slot = SlotView { kind, number: 0, state, is_evicted: false, restarts: 0, ended };
        let (generation, state) = (Generation::FIRST, ProcessState::Ready);
        let view = ProcessView { slot: SLOT, generation, seat: 0, pid: 1, state, is_current: true, started_ms: 0 };
        let processes = process.map(|id| (id, view)).into_iter().collect();
        ToWorker::News(News { slots: vec![(SLOT, slot)], processes, ..News::default() })
    }

    fn requests(mirror: &Mirror) -> u64 {
        mirror.snapshot().slots[0].totals.requests
    }

    #[test]
    fn counts_never_fall() {
        let board = Scoreboard::create(1).unwrap();
        let mirror = mirror(&board);
        mirror.hear_one(news(Totals::default(), Some(1)));
        let row = board.row(0);
        (0..5).for_each(|_| row.request());
        row.connection_opened();
        assert_eq!(requests(&mirror), 5);
        // It has ended, which has not come round yet.
        row.clear();
        assert_eq!((requests(&mirror), mirror.snapshot().slots[0].totals.connections_open), (5, 0));
        let ended = Totals { requests: 5, ..Totals::default() };
        mirror.hear_one(ToWorker::News(News { gone: vec![1], ..News::default() }));
        mirror.hear_one(news(ended, Some(2)));
        assert_eq!(requests(&mirror), 5);
        row.request();
        assert_eq!(requests(&mirror), 6);
    }

    #[tokio::test]
    async fn words_reach_who_has_asked_and_end_with_the_last() {
        let mirror = mirror(&Scoreboard::create(1).unwrap());
        let ((first, mut words), (second, mut others)) = (mirror.expect_words(), mirror.expect_words());
        let word = |number, progress| mirror.hear_one(ToWorker::Progress { number, progress });
        word(first, Progress::Begun);
        word(first, Progress::Done { text: "done".into() });
        word(first, Progress::Begun);
        assert_eq!(words.recv().await, Some(Progress::Begun));
        assert!(words.recv().await.unwrap().is_last());
        assert_eq!(words.recv().await, None);
        mirror.forget(second);
        assert_eq!(others.recv().await, None);
    }

    #[tokio::test]
    async fn the_supervisors_end_ends_all_waiting() {
        let mirror = mirror(&Scoreboard::create(1).unwrap());
        let (ours, theirs) = control::pair().unwrap();
        let (supervisor, admin) = (Channel::<ToWorker, FromWorker>::new(ours), Control::new(theirs));
        let hearing = Arc::clone(&mirror);
        let thread = std::thread::spawn(move || hearing.hear(&admin));
        let (mut events, _seat) = mirror.listen().unwrap();
        let (_, mut words) = mirror.expect_words();
        supervisor.send(&news(Totals::default(), None), &[]).unwrap();
        mirror.knows().await;
        let order = crate::control::DrainOrder { reason: DrainReason::Shutdown, timeout_ms: 0 };
        supervisor.send(&ToWorker::Drain(order), &[]).unwrap();
        mirror.ended().await;
        assert!(events.recv().await.is_err() && words.recv().await.is_none() && mirror.listen().is_none());
        thread.join().unwrap();
    }

    #[test]
    fn so_many_listen_and_no_more() {
        let mirror = mirror(&Scoreboard::create(1).unwrap());
        let listening: Vec<_> = (0..MOST_LISTENERS).map(|_| mirror.listen().unwrap()).collect();
        assert!(mirror.listen().is_none());
        drop(listening);
        assert!(mirror.listen().is_some());
    }
}
