//! The session table: where the sessions are that went elsewhere than their key's hash says. In memory that all
//! processes share, so that each finds what any of them has learned.
//!
//! ```text
//! key, 64 bits ─┬─ low bits ──► bucket: 8 entries, one cache line
//!               └─ high bits ─► tag: which of the 8
//!
//! entry   63          26   25    24     16 15     0
//!         ┌─────────────┬───────┬─────────┬────────┐
//!         │ tag         │ claim │ slot +1 │ tick   │    0 is an empty entry
//!         └─────────────┴───────┴─────────┴────────┘
//! ```
//!
//! The memory holds entries and nothing else; whoever creates it zeroes it. Every entry is one word and stands for
//! itself, changed by compare-and-swap only. There are no locks, so a process that dies in the middle of anything stops
//! nobody. A race that is lost is run again a bounded number of times; who loses them all goes without the table.
//!
//! # One entry a session
//!
//! Two processes that see a new session at the same moment must not remember it in two places: one of the entries
//! would come up again after the other was forgotten. So an entry begins as a *claim*, which [`find`] does not see. It
//! is settled by whoever comes by, its own process or another, once a look at the whole bucket that began *after* it was
//! there has found no other entry of its tag; of several claims all but one are emptied. Whoever would settle the later
//! of two began to look when the other was there, and so has seen both. It follows that no two are ever settled, and that
//! a claim whose process has died is as good as any.
//!
//! # Mistaken sessions
//!
//! An entry knows 38 bits of its key, and the bucket is chosen by 13 more (of the default 65,536 entries). A session that
//! is not in the table is taken for one that is with a chance of at most 8 / 2³⁸, one in 34 thousand million. Any two
//! of all the sessions in a full table share bucket and tag with a chance of about n² / 2 / (buckets × 2³⁸), with n =
//! 65,536 one in a million. The second of them is sent where the first is, and moves when that does. Nobody can aim
//! at it, since keys are hashes with a secret. Nothing of a key but these bits can be read from the table.
//!
//! # Room
//!
//! A bucket that is full loses its oldest session to a new one, so the table should be larger than the number of
//! sessions. With as many as half its entries, 0.8 % of the sessions find no place that lasts; with a quarter, 0.015 %.
//!
//! # Time
//!
//! `now` is in seconds on a clock that all processes share. That should be `CLOCK_BOOTTIME`: it is the same in every
//! process, is never set, and goes on while the machine sleeps. The calendar (`CLOCK_REALTIME`) can be set, and then
//! sessions expire at once or late; `Instant` cannot be told to another process.
//!
//! An entry keeps the low 16 bits of a *tick*, the 128th part of the idle timeout but at least a second. A session
//! therefore lives for the timeout and at most a 64th and 2 s more, and one that is in use is written to once a tick,
//! not once a request. Ticks come round after 512 timeouts (24 h: more than a year; under 128 s: 18 hours). Then, for
//! the length of two timeouts, an expired entry that nothing else has taken the place of would count again. That does
//! little harm, an old session is found where it was; [`sweep`], called once in 500 timeouts or more often, rules it
//! out.
//!
//! [`find`]: SessionTable::find
//! [`sweep`]: SessionTable::sweep

use std::sync::atomic::AtomicU64;
// Claims work because of two processes that each write an entry and then read the other's, one at least sees both. No
// weaker order promises that.
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use std::{array, ptr};

use crate::affinity::AffinityKey;
use crate::id::{MAX_WORKERS, WorkerId};

/// Entries that are looked through for a key: a cache line of them.
const BUCKET: usize = 8;

const TICK_BITS: u32 = 16;
const SLOT_BITS: u32 = 9;
const CLAIM_BITS: u32 = 1;
const TAG_SHIFT: u32 = TICK_BITS + SLOT_BITS + CLAIM_BITS;

const TICK_MASK: u64 = (1 << TICK_BITS) - 1;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const CLAIM: u64 = 1 << (TICK_BITS + SLOT_BITS);

/// Ticks in an idle timeout.
const TICKS: u64 = 128;

/// How often a race is run. A new session takes three rounds without one: claimed, settled, found.
const ROUNDS: usize = 32;

/// Sessions and their slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionTable<'a> {
    entries: &'a [AtomicU64],
    clock: Clock,
}

impl<'a> SessionTable<'a> {
    /// How many words a table for at least `capacity` sessions takes.
    pub(crate) fn words_for(capacity: usize) -> usize {
        capacity.next_power_of_two().max(BUCKET)
    }

    /// The table in this memory. All processes must say the same `idle_timeout`, which is rounded up to whole seconds.
    ///
    /// # Panics
    ///
    /// If the memory is not of a size that [`words_for`](Self::words_for) returns.
    pub(crate) fn new(entries: &'a [AtomicU64], idle_timeout: Duration) -> Self {
        let words = entries.len();
        assert!(words == Self::words_for(words), "a session table of {words} words");
        Self { entries, clock: Clock::new(idle_timeout) }
    }

    /// Where a session is, which is in use now. The slot need not be running.
    pub(crate) fn find(&self, key: AffinityKey, now: u64) -> Option<WorkerId> {
        self.place(key, now).find()
    }

    /// Remembers where a session is, unless the table knows already. Returns where it is.
    ///
    /// Processes that do this at the same moment return the same slot.
    ///
    /// # Panics
    ///
    /// If the slot is not below [`MAX_WORKERS`].
    pub(crate) fn assign(&self, key: AffinityKey, slot: WorkerId, now: u64) -> WorkerId {
        self.place(key, now).put(slot, Known::Stays)
    }

    /// Remembers where a session is, wherever it was before.
    ///
    /// # Panics
    ///
    /// If the slot is not below [`MAX_WORKERS`].
    pub(crate) fn learn(&self, key: AffinityKey, slot: WorkerId, now: u64) {
        self.place(key, now).put(slot, Known::Moves);
    }

    /// Forgets a session.
    pub(crate) fn forget(&self, key: AffinityKey) {
        // Expired entries are forgotten too, so the time does not matter.
        self.place(key, 0).forget();
    }

    /// Empties all entries that have expired. Returns how many sessions there are.
    pub(crate) fn sweep(&self, now: u64) -> usize {
        let now = self.clock.tick(now);
        let is_live = |word: &&AtomicU64| {
            let entry = load(word);
            let is_live = self.clock.is_live(entry, now);
            if !is_live && entry != Entry::EMPTY {
                swap(word, entry, Entry::EMPTY);
            }
            is_live && !entry.is_claim()
        };
        self.entries.iter().filter(is_live).count()
    }

    /// Forgets the sessions of all slots from this one on: what their former processes had nobody has any more.
    pub(crate) fn forget_from(&self, first: WorkerId) {
        for word in self.entries {
            let entry = load(word);
            if entry.slot().is_some_and(|slot| slot >= first) {
                swap(word, entry, Entry::EMPTY);
            }
        }
    }

    fn place(&self, key: AffinityKey, now: u64) -> Place<'a> {
        let buckets = self.entries.len() / BUCKET;
        let start = (key.bits() as usize & (buckets - 1)) * BUCKET;
        let tag = key.bits() >> TAG_SHIFT;
        Place { bucket: &self.entries[start..start + BUCKET], tag, clock: self.clock, now: self.clock.tick(now) }
    }
}

/// What becomes of a session that the table knows already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Stays,
    Moves,
}

/// Where a key has its entry if it has one, and the time at which it is asked for.
#[derive(Clone, Copy)]
struct Place<'a> {
    bucket: &'a [AtomicU64],
    tag: u64,
    clock: Clock,
    now: u16,
}

/// An entry as it was when somebody looked, and where it is.
type Seen<'a> = (&'a AtomicU64, Entry);

impl<'a> Place<'a> {
    fn find(self) -> Option<WorkerId> {
        let seen = self.look();
        let &(word, entry) = self.own(&seen).find(|(_, entry)| !entry.is_claim())?;
        self.touch(word, entry);
        entry.slot()
    }

    /// Makes sure that there is an entry, one step at a time: each begins with a new look at the bucket.
    fn put(self, slot: WorkerId, known: Known) -> WorkerId {
        for _ in 0..ROUNDS {
            let seen = self.look();
            let Some(&(word, entry)) = self.own(&seen).min_by_key(|(_, entry)| entry.is_claim()) else {
                self.claim(&seen, slot);
                continue;
            };
            self.drop_claims(&seen, word);
            if entry.is_claim() {
                self.settle(word, entry);
                continue;
            }
            let there = entry.slot().filter(|&there| known == Known::Stays || there == slot);
            if let Some(there) = there {
                self.touch(word, entry);
                return there;
            }
            if swap(word, entry, self.entry(slot)) {
                return slot;
            }
        }
        slot
    }

    fn forget(self) {
        for _ in 0..ROUNDS {
            let seen = self.look();
            let mut left = seen.iter().filter(|(_, entry)| entry.has_tag(self.tag)).peekable();
            if left.peek().is_none() {
                return;
            }
            for (word, entry) in left {
                swap(word, *entry, Entry::EMPTY);
            }
        }
    }

    /// Puts a claim in the entry that can best be spared. If that has changed meanwhile nothing happens.
    fn claim(self, seen: &[Seen<'_>], slot: WorkerId) {
        if let Some(&(word, entry)) = seen.iter().min_by_key(|(_, entry)| self.worth(*entry)) {
            swap(word, entry, Entry(self.entry(slot).0 + CLAIM));
        }
    }

    /// Settles a claim if it is alone. Of several, everybody keeps the first, if they have seen the same.
    fn settle(self, word: &AtomicU64, claim: Entry) {
        // This look must come after the one that found the claim: see the module's first lines.
        let seen = self.look();
        if self.own(&seen).all(|&(other, _)| ptr::eq(other, word)) {
            swap(word, claim, claim.settled());
        }
    }

    /// Empties this key's claims but for one.
    fn drop_claims(self, seen: &[Seen<'_>], keep: &AtomicU64) {
        for (word, entry) in self.own(seen).filter(|(word, entry)| entry.is_claim() && !ptr::eq(*word, keep)) {
            swap(word, *entry, Entry::EMPTY);
        }
    }

    /// Notes that the session is in use, once a tick. If the entry changes at the same moment, that is as good.
    fn touch(self, word: &AtomicU64, entry: Entry) {
        if entry.age(self.now) > 0 {
            swap(word, entry, entry.at(self.now));
        }
    }

    /// The bucket, one entry after the other. It begins anywhere, but for the same key at the same entry: of sessions
    /// equally old it must not always be the first in the bucket that has to go.
    fn look(self) -> [Seen<'a>; BUCKET] {
        array::from_fn(|index| {
            let word = &self.bucket[(self.tag as usize + index) % BUCKET];
            (word, load(word))
        })
    }

    /// The live entries of this key, claims among them.
    fn own<'s, 'w>(self, seen: &'s [Seen<'w>]) -> impl Iterator<Item = &'s Seen<'w>> {
        seen.iter().filter(move |(_, entry)| entry.has_tag(self.tag) && self.clock.is_live(*entry, self.now))
    }

    fn worth(self, entry: Entry) -> Worth {
        if entry == Entry::EMPTY {
            Worth::Empty
        } else if self.clock.is_live(entry, self.now) {
            Worth::Live { youth: -entry.age(self.now) }
        } else if entry.has_tag(self.tag) {
            Worth::ExpiredOwn
        } else {
            Worth::Expired
        }
    }

    fn entry(self, slot: WorkerId) -> Entry {
        Entry::new(self.tag, slot, self.now)
    }
}

/// What would be lost with an entry: the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// It must not stay beside a new one.
    ExpiredOwn,
    Empty,
    Expired,
    /// The oldest first.
    Live {
        youth: i32,
    },
}

/// One word of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    const EMPTY: Self = Self(0);

    fn new(tag: u64, slot: WorkerId, tick: u16) -> Self {
        assert!(slot.get() < MAX_WORKERS, "slot {slot} is out of range: there are at most {MAX_WORKERS}");
        let slot = u64::from(slot.get()) + 1;
        Self((tag << TAG_SHIFT) + (slot << TICK_BITS) + u64::from(tick))
    }

    fn has_tag(self, tag: u64) -> bool {
        self != Self::EMPTY && self.0 >> TAG_SHIFT == tag
    }

    /// `None` if it is empty.
    fn slot(self) -> Option<WorkerId> {
        let slot = (self.0 >> TICK_BITS) & SLOT_MASK;
        slot.checked_sub(1).map(|slot| WorkerId::new(slot as u16))
    }

    fn is_claim(self) -> bool {
        self.0 & CLAIM != 0
    }

    fn settled(self) -> Self {
        Self(self.0 & !CLAIM)
    }

    fn at(self, tick: u16) -> Self {
        Self((self.0 & !TICK_MASK) + u64::from(tick))
    }

    /// Ticks since the session was used. Below 0 if that was by a process whose `now` is later than this.
    fn age(self, now: u16) -> i32 {
        i32::from(now.wrapping_sub(self.0 as u16) as i16)
    }
}

/// Seconds to ticks, and what is too old.
#[derive(Clone, Copy, Debug)]
struct Clock {
    seconds_per_tick: u64,
    /// The idle timeout in ticks, at most [`TICKS`].
    timeout: i32,
}

impl Clock {
    fn new(idle_timeout: Duration) -> Self {
        let seconds = idle_timeout.as_secs() + u64::from(idle_timeout.subsec_nanos() > 0);
        let seconds_per_tick = seconds.div_ceil(TICKS).max(1);
        Self { seconds_per_tick, timeout: seconds.div_ceil(seconds_per_tick) as i32 }
    }

    fn tick(self, seconds: u64) -> u16 {
        (seconds / self.seconds_per_tick) as u16
    }

    /// Whether the session has been used within the timeout. A process that was held up between reading the clock and
    /// looking here sees entries from the future; they live, as long as it was not held up for longer than that.
    fn is_live(self, entry: Entry, now: u16) -> bool {
        entry != Entry::EMPTY && entry.age(now).abs() <= self.timeout
    }
}

fn load(word: &AtomicU64) -> Entry {
    #[cfg(test)]
    tests::interrupt();
    Entry(word.load(SeqCst))
}

/// Replaces an entry that has not changed since it was read.
fn swap(word: &AtomicU64, seen: Entry, new: Entry) -> bool {
    #[cfg(test)]
    tests::interrupt();
    word.compare_exchange(seen.0, new.0, SeqCst, SeqCst).is_ok()
}

#[cfg(test)]
mod tests;
