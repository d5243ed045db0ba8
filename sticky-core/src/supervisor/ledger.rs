//! What the scoreboard's numbers add up to, and what about them the user should know.

use serde::{Deserialize, Serialize};

use crate::dispatch::handoff::outcome::Outcome;
use crate::id::WorkerId;
use crate::scoreboard::{BusTotals, Handoffs, Totals};

/// Connections after which it is strange that all of them have gone to one worker.
const ENOUGH: u64 = 100;

/// The numbers of each slot over all its processes.
#[derive(Debug)]
pub(super) struct Ledger {
    ended: Vec<Totals>,
    misplaced: bool,
    looped: bool,
    lopsided: bool,
    /// How many slots are workers behind proxies.
    forwarded: Option<u16>,
}

/// What of it the next program has to know: no count ever falls, and nothing is said twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CarriedLedger {
    ended: Vec<Totals>,
    misplaced: bool,
    looped: bool,
    lopsided: bool,
}

impl Ledger {
    pub(super) fn new(workers: u16) -> Self {
        let ended = vec![Totals::default(); usize::from(workers)];
        Self { ended, misplaced: false, looped: false, lopsided: workers < 2, forwarded: None }
    }

    /// What the next program has to know.
    pub(super) fn carried(&self) -> CarriedLedger {
        let Self { ended, misplaced, looped, lopsided, .. } = self;
        CarriedLedger { ended: ended.clone(), misplaced: *misplaced, looped: *looped, lopsided: *lopsided }
    }

    /// Goes on from there.
    pub(super) fn resume(&mut self, carried: CarriedLedger) {
        let CarriedLedger { mut ended, misplaced, looped, lopsided } = carried;
        ended.resize(self.ended.len(), Totals::default());
        (self.ended, self.misplaced, self.looped, self.lopsided) = (ended, misplaced, looped, lopsided);
    }

    /// Takes it as it comes when one worker accepts all connections: their addresses are not their keys.
    pub(super) fn without_spread(mut self) -> Self {
        self.lopsided = true;
        self
    }

    /// Goes by requests, where all connections of clients are the proxies'.
    pub(super) fn behind_proxies(mut self, workers: u16) -> Self {
        self.lopsided |= workers < 2;
        self.forwarded = Some(workers);
        self
    }

    /// Keeps what a process that has ended did.
    pub(super) fn fold(&mut self, slot: WorkerId, totals: Totals) {
        self.ended[slot.index()].fold(totals);
    }

    /// What the processes of a slot have done that have ended.
    pub(super) fn ended(&self, slot: WorkerId) -> Totals {
        self.ended.get(slot.index()).copied().unwrap_or_default()
    }

    /// What became of connections that belong to other workers than they reached, in all processes that have ended; none
    /// if there were none.
    pub(super) fn handoffs(&self) -> Option<Handoffs> {
        let mut all = Handoffs::default();
        self.ended.iter().for_each(|totals| all += totals.handoffs);
        (all != Handoffs::default()).then_some(all)
    }

    /// What became of messages on the bus in all processes that have ended; none if nobody has used it.
    pub(super) fn bus(&self) -> Option<BusTotals> {
        let mut all = BusTotals::default();
        self.ended.iter().for_each(|totals| all += totals.bus);
        (all != BusTotals::default()).then_some(all)
    }

    fn what(&self) -> &'static str {
        if self.forwarded.is_some() { "requests" } else { "connections" }
    }

    /// What there is to say about the numbers, each thing once; `live` are those of the processes there are.
    pub(super) fn remarks(&mut self, live: impl Iterator<Item = (WorkerId, Totals)>) -> Vec<Remark> {
        let mut all = self.ended.clone();
        live.for_each(|(slot, totals)| all[slot.index()] += totals);
        let mut remarks = Vec::new();
        if !self.misplaced && all.iter().any(|totals| totals.mismatches > 0) {
            self.misplaced = true;
            remarks.push(Remark::Misplaced);
        }
        if !self.looped && all.iter().any(|totals| totals.handoffs.outcomes[Outcome::Loop.index()] > 0) {
            self.looped = true;
            remarks.push(Remark::Looped);
        }
        let taken: Vec<u64> = match self.forwarded {
            Some(workers) => all.iter().take(usize::from(workers)).map(|totals| totals.requests).collect(),
            None => all.iter().map(|totals| totals.accepted).collect(),
        };
        if !self.lopsided && taken.iter().sum::<u64>() >= ENOUGH {
            self.lopsided = true;
            remarks.extend(only_one(&taken).map(|worker| Remark::Lopsided { worker, what: self.what() }));
        }
        remarks
    }
}

fn only_one(taken: &[u64]) -> Option<WorkerId> {
    let mut used = WorkerId::all(u16::try_from(taken.len()).ok()?).filter(|slot| taken[slot.index()] > 0);
    let first = used.next()?;
    used.next().is_none().then_some(first)
}

/// Something about the numbers that the user should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remark {
    /// The kernel gave a worker somebody else's client.
    Misplaced,
    /// Workers do not agree about whose a connection is.
    Looped,
    /// All connections or requests so far went to this worker.
    Lopsided { worker: WorkerId, what: &'static str },
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Misplaced => f.write_str(
                "placement mismatch: the kernel has put a connection on the wrong worker; please report this bug",
            ),
            Self::Looped => f.write_str(
                "handoff loop: workers disagree about whose a connection is and pass it on to each other; does an \
                 affinity function give different answers in different workers? If not, please report this bug",
            ),
            Self::Lopsided { worker, what } => write!(
                f,
                "all of the first {ENOUGH} {what} went to worker {worker}. One client address (a load test from \
                 one machine, a NAT, a container network, a load balancer) always reaches one worker; from this \
                 machine `curl --interface 127.0.0.2`, `127.0.0.3` … show the others"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(slot: u16, accepted: u64) -> (WorkerId, Totals) {
        (WorkerId::new(slot), Totals { accepted, ..Totals::default() })
    }

    fn lopsided(worker: WorkerId) -> Remark {
        Remark::Lopsided { worker, what: "connections" }
    }

    #[test]
    fn behind_proxies_requests_count_and_only_those_of_workers() {
        let requests = |slot, requests| {
            let (slot, totals) = accepted(slot, 0);
            (slot, Totals { requests, ..totals })
        };
        let mut ledger = Ledger::new(3).behind_proxies(2);
        let live = [requests(0, 0), requests(1, ENOUGH), requests(2, ENOUGH)];
        let expected = Remark::Lopsided { worker: WorkerId::new(1), what: "requests" };
        assert_eq!(ledger.remarks(live.into_iter()), [expected]);
        let mut alone = Ledger::new(2).behind_proxies(1);
        assert_eq!(alone.remarks([requests(0, ENOUGH)].into_iter()), []);
    }

    #[test]
    fn one_address_is_noticed_once_and_only_among_several_workers() {
        let mut ledger = Ledger::new(2);
        assert_eq!(ledger.remarks([accepted(1, ENOUGH - 1)].into_iter()), []);
        let remarks = ledger.remarks([accepted(0, 0), accepted(1, ENOUGH)].into_iter());
        assert_eq!(remarks, [lopsided(WorkerId::new(1))]);
        assert!(remarks[0].to_string().contains("went to worker 1"));
        assert_eq!(ledger.remarks([accepted(1, ENOUGH * 2)].into_iter()), []);
        assert_eq!(Ledger::new(1).remarks([accepted(0, ENOUGH)].into_iter()), []);
    }

    #[test]
    fn a_spread_is_no_news() {
        let mut ledger = Ledger::new(2);
        assert_eq!(ledger.remarks([accepted(0, 1), accepted(1, ENOUGH)].into_iter()), []);
        assert_eq!(ledger.remarks([accepted(1, ENOUGH * 2)].into_iter()), []);
    }

    #[test]
    fn processes_that_have_ended_count() {
        let mut ledger = Ledger::new(2);
        let (slot, totals) = accepted(0, ENOUGH / 2);
        ledger.fold(slot, totals);
        ledger.fold(slot, totals);
        assert_eq!(ledger.remarks([accepted(1, 0)].into_iter()), [lopsided(slot)]);
        ledger.fold(slot, Totals { mismatches: 1, ..Totals::default() });
        assert_eq!(ledger.remarks(std::iter::empty()), [Remark::Misplaced]);
        assert_eq!(ledger.remarks(std::iter::empty()), []);
    }
}
