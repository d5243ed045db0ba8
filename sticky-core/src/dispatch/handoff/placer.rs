//! Where a session goes that nobody has seen yet, other than by a hash.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::id::WorkerId;
use crate::placement::Placement;
use crate::scoreboard::{Headcount, Row};

/// Chooses the worker of a new session.
#[derive(Debug)]
pub(crate) struct Placer {
    own: WorkerId,
    workers: Headcount,
    kind: Placement,
    /// Counts the sessions placed by this worker.
    turn: AtomicU64,
    /// Every process of the cluster.
    rows: Vec<Row>,
    /// What is under way to each slot from here, where requests are forwarded. Connections to workers are used again and
    /// again then, so that their number says nothing.
    forwarded: Option<Arc<Loads>>,
}

/// How much is under way to each slot.
#[derive(Debug)]
pub(crate) struct Loads(Vec<AtomicU64>);

/// One request or tunnel that is under way, until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    loads: Arc<Loads>,
    slot: WorkerId,
}

impl UnderWay {
    /// To this slot.
    pub(crate) fn to(slot: WorkerId, loads: &Arc<Loads>) -> Self {
        if let Some(load) = loads.0.get(slot.index()) {
            load.fetch_add(1, Relaxed);
        }
        Self { loads: Arc::clone(loads), slot }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(load) = self.loads.0.get(self.slot.index()) {
            load.fetch_sub(1, Relaxed);
        }
    }
}

impl Placer {
    pub(crate) fn new(own: WorkerId, workers: impl Into<Headcount>, kind: Placement, rows: Vec<Row>) -> Self {
        let workers = workers.into();
        // Workers begin their rounds at different slots, or the first clients would all meet at the first.
        Self { own, workers, kind, turn: AtomicU64::new(own.index() as u64), rows, forwarded: None }
    }

    /// The same placer for a process that runs no worker, and forwards.
    pub(crate) fn forwarding(mut self) -> Self {
        self.forwarded = Some(Arc::new(Loads((0..self.workers.room()).map(|_| AtomicU64::new(0)).collect())));
        self
    }

    /// What is under way from here, where requests are forwarded.
    pub(crate) fn forwarded(&self) -> Option<&Arc<Loads>> {
        self.forwarded.as_ref()
    }

    /// The worker of a new session, of those that are in; none where the hash of its key decides.
    pub(crate) fn place(&self, is_in: impl Fn(WorkerId) -> bool) -> Option<WorkerId> {
        match self.kind {
            Placement::Rendezvous => None,
            // Not where this worker has been taken out.
            Placement::Local if is_in(self.own) => Some(self.own),
            Placement::Local => self.next(&is_in),
            Placement::RoundRobin => self.next(&is_in),
            Placement::FewestConnections => self.least(&is_in),
        }
    }

    /// The next one in turn.
    pub(crate) fn next(&self, is_in: &impl Fn(WorkerId) -> bool) -> Option<WorkerId> {
        let usable: Vec<WorkerId> = self.slots().filter(|slot| is_in(*slot)).collect();
        let turn = self.turn.fetch_add(1, Relaxed);
        usable.get((turn % (usable.len() as u64).max(1)) as usize).copied()
    }

    /// The slot with the fewest connections, those on their way to it included: what everybody would see as the least
    /// loaded until the first of a burst arrives would get the whole burst. A slot in which nobody sits at the moment has
    /// no number that could tell.
    fn least(&self, is_in: &impl Fn(WorkerId) -> bool) -> Option<WorkerId> {
        if let Some(Loads(loads)) = self.forwarded.as_deref() {
            let load = |slot: WorkerId| loads[slot.index()].load(Relaxed);
            let order = self.order();
            let usable = self.slots().filter(|slot| is_in(*slot));
            return usable.min_by_key(|slot| (load(*slot), order(*slot)));
        }
        let load = |slot: WorkerId| -> u64 {
            let rows = self.rows.iter().filter(|row| row.is_in(slot));
            let load: u64 = rows.map(Row::load).sum();
            // The connection in question is open here, wherever it goes.
            load - u64::from(slot == self.own && load > 0)
        };
        let order = self.order();
        let seated = self.slots().filter(|slot| is_in(*slot) && self.row(*slot).is_some());
        let chosen = seated.min_by_key(|slot| (load(*slot), order(*slot)));
        let chosen = chosen.or_else(|| is_in(self.own).then_some(self.own)).or_else(|| self.next(is_in))?;
        if chosen != self.own {
            self.row(chosen).inspect(|row| row.reserve());
        }
        Some(chosen)
    }

    /// Of equals the next in turn, or the first slot would get them all.
    fn order(&self) -> impl Fn(WorkerId) -> u64 {
        let (turn, workers) = (self.turn.fetch_add(1, Relaxed), u64::from(self.workers.now()));
        move |slot: WorkerId| (slot.index() as u64 + workers - turn % workers) % workers
    }

    /// The slots that are in use.
    fn slots(&self) -> impl Iterator<Item = WorkerId> {
        WorkerId::all(self.workers.now())
    }

    /// A connection on its way to `slot` does not arrive there.
    pub(crate) fn give_up(&self, slot: WorkerId) {
        if self.kind == Placement::FewestConnections {
            self.row(slot).inspect(|row| row.arrive());
        }
    }

    fn row(&self, slot: WorkerId) -> Option<&Row> {
        self.rows.iter().find(|row| row.is_in(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(open: &[u64]) -> Vec<Row> {
        let rows = open.iter().enumerate().map(|(slot, open)| {
            let row = Row::detached();
            row.sit(WorkerId::new(u16::try_from(slot).unwrap()));
            (0..*open).for_each(|_| row.connection_opened());
            row
        });
        rows.collect()
    }

    fn placed(placer: &Placer, times: usize) -> Vec<u16> {
        (0..times).map(|_| placer.place(|slot| slot.get() != 3).unwrap().get()).collect()
    }

    fn placer(kind: Placement, open: &[u64]) -> Placer {
        Placer::new(WorkerId::new(1), 4, kind, rows(open))
    }

    #[test]
    fn hashes_decide_by_default() {
        assert_eq!(placer(Placement::Rendezvous, &[]).place(|_| true), None);
    }

    #[test]
    fn local_is_here() {
        assert_eq!(placed(&placer(Placement::Local, &[]), 3), [1, 1, 1]);
    }

    #[test]
    fn round_robin_takes_turns_among_those_that_are_in() {
        assert_eq!(placed(&placer(Placement::RoundRobin, &[]), 6), [1, 2, 0, 1, 2, 0]);
        assert_eq!(placer(Placement::RoundRobin, &[]).place(|_| false), None);
    }

    #[test]
    fn a_burst_does_not_herd() {
        // The one under way is open here.
        let placer = placer(Placement::FewestConnections, &[0, 1, 2, 0]);
        let burst = placed(&placer, 6);
        let count = |slot| burst.iter().filter(|placed| **placed == slot).count();
        assert!(count(0) <= 3, "{burst:?}");
        assert!(count(1) >= 2, "{burst:?}");
        placer.give_up(WorkerId::new(0));
    }

    #[test]
    fn a_slot_without_anybody_in_it_is_not_the_least_loaded() {
        let placer = placer(Placement::FewestConnections, &[9, 9, 9]);
        assert!(!(0..6).any(|_| placer.place(|_| true).unwrap().get() == 3));
        let nobody = Placer::new(WorkerId::new(1), 4, Placement::FewestConnections, vec![Row::detached()]);
        assert_eq!(nobody.place(|_| true), Some(WorkerId::new(1)));
    }

    #[test]
    fn the_connection_in_question_does_not_count_where_it_is_open() {
        let slots = |open: &[u64]| {
            let placer = placer(Placement::FewestConnections, open);
            [(); 6].map(|()| placer.place(|_| true).unwrap().get())
        };
        assert_eq!(slots(&[2, 2, 2, 2]), [1; 6]);
        assert_eq!(slots(&[0, 0, 0, 0]), [1, 2, 3, 0, 1, 1], "equals take turns, and have one on its way then");
    }

    #[test]
    fn what_arrives_is_no_longer_on_its_way() {
        let row = Row::detached();
        row.reserve();
        assert_eq!(row.load(), 1);
        row.arrive();
        row.arrive();
        assert_eq!(row.load(), 0, "one that was not announced does no harm");
    }
}
