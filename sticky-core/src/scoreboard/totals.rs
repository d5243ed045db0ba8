//! The numbers of a row, or of several added up.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dispatch::handoff::outcome::Outcome;

/// The numbers of one row, or of several added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Connections open now.
    pub(crate) connections_open: u64,
    /// Those of them that were upgraded (WebSockets).
    pub(crate) upgraded_open: u64,
    /// Connections accepted so far.
    pub(crate) accepted: u64,
    /// Requests begun so far.
    pub(crate) requests: u64,
    /// Connections that the kernel gave to another slot than the twin of its program says. Anything but 0 is a bug.
    pub(crate) mismatches: u64,
    /// Connections taken from the listener of a slot that was not running.
    pub(crate) adopted: u64,
    /// What became of connections that belong to other workers.
    pub(crate) handoffs: Handoffs,
    /// What became of sessions.
    pub(crate) affinity: AffinityTotals,
    /// What became of messages on the bus.
    pub(crate) bus: BusTotals,
}

/// What became of connections that belong to other workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handoffs {
    /// Sent to their owners.
    pub(crate) sent: u64,
    /// Received as their owner.
    pub(crate) received: u64,
    /// Everything else, in the order of [`Outcome::ALL`].
    pub(crate) outcomes: [u64; Outcome::ALL.len()],
}

impl fmt::Display for Handoffs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, .. } = self;
        write!(f, "sent {sent}, received {received}")?;
        let lost = [Outcome::Truncated, Outcome::Version, Outcome::OutOfDescriptors];
        let arrived = received + lost.iter().map(|outcome| self.outcomes[outcome.index()]).sum::<u64>();
        if *sent > arrived {
            // In the channel of a worker that did not read it until the end.
            write!(f, ", undelivered {}", sent - arrived)?;
        }
        let mut happened = Outcome::ALL.iter().zip(self.outcomes).filter(|(_, count)| *count > 0);
        happened.try_for_each(|((_, name), count)| write!(f, ", {name} {count}"))
    }
}

impl std::ops::AddAssign for Handoffs {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(sum, more)| *sum += more);
    }
}

/// What became of sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AffinityTotals {
    /// Seen for the first time, and placed.
    pub(crate) new: u64,
    /// Of a worker that is out, and served by another.
    pub(crate) stale: u64,
}

impl AffinityTotals {
    /// How many of so many requests were served where their session was.
    pub(crate) fn hits(self, requests: u64) -> u64 {
        requests.saturating_sub(self.new).saturating_sub(self.stale)
    }
}

/// What became of messages between workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BusTotals {
    /// Published.
    pub(crate) published: u64,
    /// Given to subscriptions: of one message as many as there are.
    pub(crate) delivered: u64,
    /// Dropped by subscriptions that were not read.
    pub(crate) lagged: u64,
    /// Not sent to a process that does not read.
    pub(crate) missed: u64,
}

impl fmt::Display for BusTotals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, delivered, lagged, missed } = self;
        write!(f, "published {published}, delivered {delivered}")?;
        let mut lost = [("lagged", lagged), ("missed", missed)].into_iter().filter(|(_, count)| **count > 0);
        lost.try_for_each(|(name, count)| write!(f, ", {name} {count}"))
    }
}

impl std::ops::AddAssign for BusTotals {
    fn add_assign(&mut self, other: Self) {
        self.published += other.published;
        self.delivered += other.delivered;
        self.lagged += other.lagged;
        self.missed += other.missed;
    }
}

impl Totals {
    /// Keeps what a process that has ended did, so that no count of the cluster ever falls. What was open in it is
    /// open no more.
    pub(crate) fn fold(&mut self, ended: Self) {
        *self += Self { connections_open: 0, upgraded_open: 0, ..ended };
    }

    /// Raises the counts to those of `most`, where they are lower. What is open may fall.
    pub(crate) fn raise_to(&mut self, most: &Self) {
        let mut most = *most;
        for (count, most) in self.counts().into_iter().zip(most.counts()) {
            *count = (*count).max(*most);
        }
    }

    /// Every number that only rises.
    fn counts(&mut self) -> Vec<&mut u64> {
        let Self {
            connections_open: _,
            upgraded_open: _,
            accepted,
            requests,
            mismatches,
            adopted,
            handoffs,
            affinity,
            bus,
        } = self;
        let mut counts = vec![accepted, requests, mismatches, adopted, &mut handoffs.sent, &mut handoffs.received];
        counts.extend(&mut handoffs.outcomes);
        counts.extend([&mut affinity.new, &mut affinity.stale]);
        counts.extend([&mut bus.published, &mut bus.delivered, &mut bus.lagged, &mut bus.missed]);
        counts
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.connections_open += other.connections_open;
        self.upgraded_open += other.upgraded_open;
        self.accepted += other.accepted;
        self.requests += other.requests;
        self.mismatches += other.mismatches;
        self.adopted += other.adopted;
        self.handoffs += other.handoffs;
        self.affinity.new += other.affinity.new;
        self.affinity.stale += other.affinity.stale;
        self.bus += other.bus;
    }
}
