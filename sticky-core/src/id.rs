//! Who is who: the stable slot of a worker, and which start of that slot is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most slots a cluster can have.
///
/// The kernel placement keeps the slot in the low eight bits of its hash, and 256 unrolled slots are what fits
/// into one classic BPF program (at most 4,096 instructions).
pub const MAX_WORKERS: u16 = 256;

/// The most proxy processes a cluster can have. Their slots are those that follow the workers'.
pub(crate) const MAX_PROXIES: u16 = 64;

/// A slot: the stable identity that keys map to, from 0 to the number of workers − 1.
///
/// It stays the same when the process in the slot crashes or is replaced; that is what [`Generation`] counts.
/// A process id is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(u16);

impl WorkerId {
    /// The slot with this number.
    pub const fn new(slot: u16) -> Self {
        Self(slot)
    }

    /// The slot's number, from 0.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The slot's number as an index into a list of slots.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The slots `0..workers` in order.
    pub fn all(workers: u16) -> impl ExactSizeIterator<Item = WorkerId> + Clone {
        (0..workers).map(WorkerId)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a slot is for. The slots of proxies follow those of the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Post {
    /// It runs the application.
    Worker(WorkerId),
    /// It forwards requests to those that do.
    Proxy(u16),
    /// Nothing: it prepares what all of them need, and ends.
    Preparation,
    /// Nothing: it serves metrics and status.
    Admin,
    /// Nothing: it is what the supervisor is about to become, and shows that it can.
    Trial,
}

impl Post {
    /// The post of a slot, where so many are the workers'.
    pub(crate) fn of(slot: WorkerId, workers: u16) -> Self {
        slot.get().checked_sub(workers).map_or(Self::Worker(slot), Self::Proxy)
    }
}

impl fmt::Display for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(slot) => write!(f, "worker {slot}"),
            Self::Proxy(number) => write!(f, "proxy {number}"),
            Self::Preparation => f.write_str("the preparation"),
            Self::Admin => f.write_str("the admin process"),
            Self::Trial => f.write_str("the next supervisor"),
        }
    }
}

/// Which start of a slot a process is: 0 for the first, one more for each that follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(u32);

impl Generation {
    /// The first start of a slot.
    pub const FIRST: Self = Self(0);

    /// The generation with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The generation's number, from 0.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
