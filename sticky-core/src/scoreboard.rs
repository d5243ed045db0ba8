//! What every process of the cluster tells about itself, in memory they all share.
//!
//! ```text
//! ┌────────┬───────┬───────┬── one sealed memory file; the header and each row take 384 bytes
//! │ header │ row 0 │ row 1 │ …
//! └────────┴───────┴───────┴── row = seat: written by the one process that sits there, read by the supervisor
//! ```
//!
//! The header says how many workers there are, too, which the supervisor alone writes ([`Headcount`]).
//!
//! There are no locks, so a process that dies in the middle of anything leaves nothing behind. Each number stands for
//! itself: two of them read one after the other need not be of the same moment. What is read here is shown and
//! compared; it never names a process to be killed nor a place to be written.

mod headcount;
mod totals;

use std::fmt;
#[cfg(cluster)]
use std::io;
#[cfg(cluster)]
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(crate) use self::headcount::Headcount;
pub(crate) use self::totals::{AffinityTotals, BusTotals, Handoffs, Totals};
use crate::dispatch::handoff::outcome::Outcome;
use crate::id::WorkerId;
#[cfg(cluster)]
use crate::sys::memory::{SharedWords, create_sealed};

/// Says that a file is a scoreboard ("stickysb").
#[cfg(cluster)]
const MAGIC: u64 = u64::from_be_bytes(*b"stickysb");
/// Changes whenever the meaning of a word in the header or a row does.
#[cfg(cluster)]
const LAYOUT: u64 = 5;
/// Words in a row: an even number of cache lines, because processors fetch lines in pairs.
const ROW_WORDS: usize = 48;
/// The header has a row's size, so that every row is aligned to it.
#[cfg(cluster)]
const HEADER_WORDS: usize = ROW_WORDS;

/// The header's words.
mod header {
    #[cfg(cluster)]
    pub(super) const MAGIC: usize = 0;
    #[cfg(cluster)]
    pub(super) const LAYOUT: usize = 1;
    #[cfg(cluster)]
    pub(super) const SEATS: usize = 2;
    #[cfg(cluster)]
    pub(super) const ROW_WORDS: usize = 3;
    /// The only one that changes.
    pub(super) const HEADCOUNT: usize = 4;
}

// A row's words.
const HEARTBEAT: usize = 0;
const CONNECTIONS_OPEN: usize = 1;
const UPGRADED_OPEN: usize = 2;
const ACCEPTED: usize = 3;
const REQUESTS: usize = 4;
const MISMATCHES: usize = 5;
const ADOPTED: usize = 6;
const STATE: usize = 7;
/// The slot, plus one: 0 is nobody.
const SLOT: usize = 8;
const ON_THEIR_WAY: usize = 9;
const SENT: usize = 10;
const RECEIVED: usize = 11;
const OUTCOMES: usize = 12;
const BUS_PUBLISHED: usize = OUTCOMES + Outcome::ALL.len();
const BUS_DELIVERED: usize = BUS_PUBLISHED + 1;
const BUS_LAGGED: usize = BUS_PUBLISHED + 2;
const BUS_MISSED: usize = BUS_PUBLISHED + 3;
const LEAVING: usize = BUS_PUBLISHED + 4;
const AFFINITY_NEW: usize = LEAVING + 1;
const AFFINITY_STALE: usize = LEAVING + 2;
const LOOP_LAG: usize = LEAVING + 3;
const _: () = assert!(LOOP_LAG < ROW_WORDS);

/// The process has emptied its accept queues: it will not have new connections of others any more.
const EMPTIED: u64 = 1;

/// The rows of all processes.
#[cfg(cluster)]
#[derive(Debug)]
pub(crate) struct Scoreboard {
    file: OwnedFd,
    memory: Arc<Memory>,
    seats: usize,
}

/// The row of one process. Cheap to clone; keeps the memory mapped.
#[derive(Clone)]
pub(crate) struct Row {
    memory: Arc<Memory>,
    /// The row's first word.
    start: usize,
}

/// Where rows can be.
#[derive(Debug)]
enum Memory {
    #[cfg(cluster)]
    Shared(SharedWords),
    /// One row, or a header, that nobody else reads.
    Own(Box<[AtomicU64; ROW_WORDS]>),
}

/// Why there is no scoreboard.
#[cfg(cluster)]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreboardError {
    /// The system gave no memory file, or would not map it.
    #[error("cannot {attempt} the scoreboard's shared memory")]
    Memory {
        /// `create` or `map`.
        attempt: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is something else. The supervisor that handed it over is not ours.
    #[error("the shared memory handed over is not a scoreboard")]
    NotAScoreboard,
    /// The program was replaced by one with another layout while the cluster ran: it has to be restarted.
    #[error(
        "the scoreboard has layout {found} and this program expects {LAYOUT}: restart the cluster instead of reloading it"
    )]
    OtherLayout {
        /// The layout's version in the file.
        found: u64,
    },
    /// The header's sizes contradict each other or the size of the file.
    #[error("the scoreboard's sizes do not add up: {seats} seats with {row_words} words each in {words} words")]
    WrongSize {
        /// Seats, as the header says.
        seats: u64,
        /// Words per row, as the header says.
        row_words: u64,
        /// Words in the file.
        words: usize,
    },
}

#[cfg(cluster)]
impl Scoreboard {
    /// Makes a scoreboard whose rows are all zero.
    ///
    /// # Errors
    ///
    /// [`ScoreboardError::Memory`].
    pub(crate) fn create(seats: usize) -> Result<Self, ScoreboardError> {
        let words = seats.saturating_add(1).saturating_mul(ROW_WORDS);
        let file = create_sealed("sticky-scoreboard", words)
            .map_err(|source| ScoreboardError::Memory { attempt: "create", source })?;
        let memory = map(&file)?;
        let words = memory.words();
        words[header::MAGIC].store(MAGIC, Relaxed);
        words[header::LAYOUT].store(LAYOUT, Relaxed);
        words[header::SEATS].store(seats as u64, Relaxed);
        words[header::ROW_WORDS].store(ROW_WORDS as u64, Relaxed);
        Ok(Self { file, memory: Arc::new(Memory::Shared(memory)), seats })
    }

    /// Opens a scoreboard that another process made.
    ///
    /// # Errors
    ///
    /// Every variant of [`ScoreboardError`]: the file is trusted only as far as its header says the same as this
    /// program.
    pub(crate) fn from_fd(file: OwnedFd) -> Result<Self, ScoreboardError> {
        let memory = map(&file)?;
        let seats = check(memory.words())?;
        Ok(Self { file, memory: Arc::new(Memory::Shared(memory)), seats })
    }

    /// How many rows there are.
    pub(crate) fn seats(&self) -> usize {
        self.seats
    }

    /// How many of so many slots are in use.
    pub(crate) fn headcount(&self, room: u16) -> Headcount {
        Headcount::within(&self.memory, room)
    }

    /// The row of a seat.
    ///
    /// # Panics
    ///
    /// If there is no such seat.
    pub(crate) fn row(&self, seat: usize) -> Row {
        assert!(seat < self.seats, "seat {seat} of {}", self.seats);
        Row { memory: Arc::clone(&self.memory), start: HEADER_WORDS + seat * ROW_WORDS }
    }
}

#[cfg(cluster)]
impl AsFd for Scoreboard {
    /// The memory file, to be handed to another process.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(cluster)]
fn map(file: &OwnedFd) -> Result<SharedWords, ScoreboardError> {
    SharedWords::map(file).map_err(|source| ScoreboardError::Memory { attempt: "map", source })
}

/// The number of seats, if the header is one of ours and fits the file.
#[cfg(cluster)]
fn check(words: &[AtomicU64]) -> Result<usize, ScoreboardError> {
    if words.len() < HEADER_WORDS || words[header::MAGIC].load(Relaxed) != MAGIC {
        return Err(ScoreboardError::NotAScoreboard);
    }
    let found = words[header::LAYOUT].load(Relaxed);
    if found != LAYOUT {
        return Err(ScoreboardError::OtherLayout { found });
    }
    let seats = words.len() / ROW_WORDS - 1;
    let (said, row_words) = (words[header::SEATS].load(Relaxed), words[header::ROW_WORDS].load(Relaxed));
    if said != seats as u64 || row_words != ROW_WORDS as u64 || !words.len().is_multiple_of(ROW_WORDS) {
        return Err(ScoreboardError::WrongSize { seats: said, row_words, words: words.len() });
    }
    Ok(seats)
}

impl Memory {
    fn words(&self) -> &[AtomicU64] {
        match self {
            #[cfg(cluster)]
            Self::Shared(memory) => memory.words(),
            Self::Own(words) => words.as_slice(),
        }
    }
}

impl Row {
    /// A row of this process alone, for one that is no cluster's worker.
    pub(crate) fn detached() -> Self {
        Self { memory: Arc::new(Memory::Own(Box::new([const { AtomicU64::new(0) }; ROW_WORDS]))), start: 0 }
    }

    /// Says that the process is alive: the value differs from the last one.
    pub(crate) fn heartbeat(&self, beat: u64) {
        self.word(HEARTBEAT).store(beat, Relaxed);
    }

    /// The last heartbeat, 0 if there was none yet.
    pub(crate) fn last_heartbeat(&self) -> u64 {
        self.get(HEARTBEAT)
    }

    /// Counts a connection taken from a listener, this slot's or another's.
    pub(crate) fn accepted(&self) {
        self.add(ACCEPTED);
    }

    /// Counts a connection taken from the listener of a slot that was not running, after [`accepted`](Self::accepted).
    pub(crate) fn adopted(&self) {
        self.add(ADOPTED);
    }

    /// Counts a connection that the kernel placed otherwise than its twin says.
    pub(crate) fn mismatch(&self) {
        self.add(MISMATCHES);
    }

    /// Counts a connection sent to its owner.
    pub(crate) fn sent(&self) {
        self.add(SENT);
    }

    /// Counts a connection received as its owner, or for it.
    pub(crate) fn received(&self) {
        self.add(RECEIVED);
    }

    /// Counts what became of a connection that did not simply move.
    pub(crate) fn outcome(&self, outcome: Outcome) {
        self.add(OUTCOMES + outcome.index());
    }

    /// Counts a session that is seen for the first time and placed.
    pub(crate) fn affinity_new(&self) {
        self.add(AFFINITY_NEW);
    }

    /// Counts a request whose session is with a worker that is out, and goes to another.
    pub(crate) fn affinity_stale(&self) {
        self.add(AFFINITY_STALE);
    }

    /// Says by how much the event loop was late, in microseconds.
    pub(crate) fn set_loop_lag_us(&self, lag: u64) {
        self.word(LOOP_LAG).store(lag, Relaxed);
    }

    /// By how much the event loop was late when it last looked, in microseconds.
    pub(crate) fn loop_lag_us(&self) -> u64 {
        self.get(LOOP_LAG)
    }

    /// Counts a message published on the bus.
    pub(crate) fn bus_published(&self) {
        self.add(BUS_PUBLISHED);
    }

    /// Counts a message given to a subscription of this process.
    pub(crate) fn bus_delivered(&self) {
        self.add(BUS_DELIVERED);
    }

    /// Counts messages that were dropped by a subscription to make room.
    pub(crate) fn bus_lagged(&self, lagged: u64) {
        self.word(BUS_LAGGED).fetch_add(lagged, Relaxed);
    }

    /// Counts processes that did not get a message of this one because they do not read.
    pub(crate) fn bus_missed(&self, missed: u64) {
        self.word(BUS_MISSED).fetch_add(missed, Relaxed);
    }

    /// Says in which slot this process serves.
    pub(crate) fn sit(&self, slot: WorkerId) {
        self.word(SLOT).store(u64::from(slot.get()) + 1, Relaxed);
    }

    /// Says that this process serves in no slot any more.
    pub(crate) fn stand_up(&self) {
        self.word(SLOT).store(0, Relaxed);
    }

    /// Whether the process of this row serves in that slot.
    pub(crate) fn is_in(&self, slot: WorkerId) -> bool {
        self.get(SLOT) == u64::from(slot.get()) + 1
    }

    /// The connections that stay, and those on their way here because of how few there are.
    pub(crate) fn load(&self) -> u64 {
        // Read one after the other: more may be leaving than were open.
        self.connections_open().saturating_sub(self.get(LEAVING)) + self.get(ON_THEIR_WAY)
    }

    /// An open connection waits to be taken by another process.
    pub(crate) fn connection_leaves(&self) {
        self.add(LEAVING);
    }

    /// One that was leaving has left or stays.
    pub(crate) fn connection_has_left(&self) {
        self.word(LEAVING).fetch_sub(1, Relaxed);
    }

    /// Announces a connection. Of a row's numbers this alone is written by other processes, too.
    pub(crate) fn reserve(&self) {
        self.add(ON_THEIR_WAY);
    }

    /// A connection has arrived, or will not. Not each of them was announced.
    pub(crate) fn arrive(&self) {
        let _ = self.word(ON_THEIR_WAY).fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
    }

    /// Says that this process will not accept connections any more.
    pub(crate) fn emptied(&self) {
        self.word(STATE).store(EMPTIED, Relaxed);
    }

    /// Whether the process in this seat, if there is one that serves, may still accept connections.
    pub(crate) fn may_accept(&self) -> bool {
        self.last_heartbeat() != 0 && self.get(STATE) != EMPTIED
    }

    /// Counts a request that begins.
    pub(crate) fn request(&self) {
        self.add(REQUESTS);
    }

    /// One more connection is open.
    pub(crate) fn connection_opened(&self) {
        self.add(CONNECTIONS_OPEN);
    }

    /// An open connection was upgraded.
    pub(crate) fn connection_upgraded(&self) {
        self.add(UPGRADED_OPEN);
    }

    /// An open connection has ended; `was_upgraded` if it was counted as upgraded.
    pub(crate) fn connection_closed(&self, was_upgraded: bool) {
        self.word(CONNECTIONS_OPEN).fetch_sub(1, Relaxed);
        if was_upgraded {
            self.word(UPGRADED_OPEN).fetch_sub(1, Relaxed);
        }
    }

    /// The requests that have begun.
    pub(crate) fn requests(&self) -> u64 {
        self.get(REQUESTS)
    }

    /// Connections open now.
    pub(crate) fn connections_open(&self) -> u64 {
        self.get(CONNECTIONS_OPEN)
    }

    /// Upgraded connections (WebSockets) open now.
    pub(crate) fn upgraded_open(&self) -> u64 {
        self.get(UPGRADED_OPEN)
    }

    /// All numbers of the row.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            connections_open: self.connections_open(),
            upgraded_open: self.upgraded_open(),
            accepted: self.get(ACCEPTED),
            requests: self.requests(),
            mismatches: self.get(MISMATCHES),
            adopted: self.get(ADOPTED),
            handoffs: self.handoffs(),
            affinity: AffinityTotals { new: self.get(AFFINITY_NEW), stale: self.get(AFFINITY_STALE) },
            bus: self.bus(),
        }
    }

    fn bus(&self) -> BusTotals {
        BusTotals {
            published: self.get(BUS_PUBLISHED),
            delivered: self.get(BUS_DELIVERED),
            lagged: self.get(BUS_LAGGED),
            missed: self.get(BUS_MISSED),
        }
    }

    fn handoffs(&self) -> Handoffs {
        let outcomes = Outcome::ALL.map(|(outcome, _)| self.get(OUTCOMES + outcome.index()));
        Handoffs { sent: self.get(SENT), received: self.get(RECEIVED), outcomes }
    }

    /// Makes the row ready for the next process in this seat. For the supervisor, when no process sits there.
    pub(crate) fn clear(&self) {
        (0..ROW_WORDS).for_each(|word| self.word(word).store(0, Relaxed));
    }

    fn word(&self, word: usize) -> &AtomicU64 {
        &self.memory.words()[self.start + word]
    }

    fn get(&self, word: usize) -> u64 {
        self.word(word).load(Relaxed)
    }

    fn add(&self, word: usize) {
        self.word(word).fetch_add(1, Relaxed);
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("totals", &self.totals()).finish_non_exhaustive()
    }
}

#[cfg(all(test, cluster))]
mod tests {
    use super::*;

    fn reopened(board: &Scoreboard) -> Result<Scoreboard, ScoreboardError> {
        Scoreboard::from_fd(board.as_fd().try_clone_to_owned().unwrap())
    }

    #[test]
    fn what_one_process_writes_another_reads() {
        let board = Scoreboard::create(3).unwrap();
        let other = reopened(&board).unwrap();
        assert_eq!(other.seats(), 3);
        let row = other.row(1);
        row.heartbeat(1234);
        (0..6).for_each(|_| row.connection_opened());
        (0..4).for_each(|_| row.connection_upgraded());
        (0..2).for_each(|_| row.connection_closed(true));
        row.connection_closed(false);
        (0..4).for_each(|_| row.accepted());
        (0..5).for_each(|_| row.request());
        (0..6).for_each(|_| row.mismatch());
        (0..7).for_each(|_| row.adopted());
        (0..2).for_each(|_| row.sent());
        row.received();
        row.outcome(Outcome::LateHead);
        row.bus_published();
        row.bus_delivered();
        row.bus_delivered();
        row.bus_lagged(3);
        row.bus_missed(4);
        row.affinity_new();
        (0..2).for_each(|_| row.affinity_stale());
        row.set_loop_lag_us(77);
        let mut handoffs = Handoffs { sent: 2, received: 1, ..Handoffs::default() };
        handoffs.outcomes[Outcome::LateHead.index()] = 1;
        let expected = Totals {
            connections_open: 3,
            upgraded_open: 2,
            accepted: 4,
            requests: 5,
            mismatches: 6,
            adopted: 7,
            handoffs,
            affinity: AffinityTotals { new: 1, stale: 2 },
            bus: BusTotals { published: 1, delivered: 2, lagged: 3, missed: 4 },
        };
        assert_eq!(board.row(1).totals(), expected);
        assert_eq!((board.row(1).last_heartbeat(), board.row(1).loop_lag_us()), (1234, 77));
        for untouched in [0, 2] {
            assert_eq!(board.row(untouched).totals(), Totals::default());
            assert_eq!(board.row(untouched).last_heartbeat(), 0);
        }
    }

    #[test]
    fn a_cleared_row_is_like_new() {
        let board = Scoreboard::create(2).unwrap();
        for seat in 0..2 {
            board.row(seat).heartbeat(5);
            board.row(seat).request();
        }
        board.row(0).clear();
        assert_eq!((board.row(0).last_heartbeat(), board.row(0).totals().requests), (0, 0));
        assert_eq!((board.row(1).last_heartbeat(), board.row(1).totals().requests), (5, 1));
    }

    #[test]
    fn folding_keeps_counts_and_forgets_what_was_open() {
        let handoffs = Handoffs { sent: 5, ..Handoffs::default() };
        let ended = Totals {
            connections_open: 9,
            upgraded_open: 8,
            accepted: 1,
            requests: 2,
            mismatches: 3,
            adopted: 4,
            handoffs,
            affinity: AffinityTotals { new: 1, stale: 2 },
            bus: BusTotals { published: 1, ..BusTotals::default() },
        };
        let mut sum = Totals { connections_open: 1, ..Totals::default() };
        sum.fold(ended);
        sum.fold(ended);
        let handoffs = Handoffs { sent: 10, ..Handoffs::default() };
        let expected = Totals {
            connections_open: 1,
            upgraded_open: 0,
            accepted: 2,
            requests: 4,
            mismatches: 6,
            adopted: 8,
            handoffs,
            affinity: AffinityTotals { new: 2, stale: 4 },
            bus: BusTotals { published: 2, ..BusTotals::default() },
        };
        assert_eq!(sum, expected);
        sum += ended;
        assert_eq!((sum.connections_open, sum.upgraded_open), (10, 8));
    }

    #[test]
    fn what_the_bus_lost_is_shown_where_it_lost_something() {
        let row = Row::detached();
        row.bus_published();
        row.bus_delivered();
        assert_eq!(row.totals().bus.to_string(), "published 1, delivered 1");
        row.bus_delivered();
        row.bus_lagged(3);
        row.bus_missed(4);
        assert_eq!(row.totals().bus.to_string(), "published 1, delivered 2, lagged 3, missed 4");
    }

    #[test]
    fn handoffs_are_shown_with_what_happened() {
        let row = Row::detached();
        row.sent();
        assert_eq!(row.totals().handoffs.to_string(), "sent 1, received 0, undelivered 1");
        row.outcome(Outcome::Loop);
        row.outcome(Outcome::RefusedHead);
        row.outcome(Outcome::RefusedHead);
        assert_eq!(row.totals().handoffs.to_string(), "sent 1, received 0, undelivered 1, loops 1, refused_heads 2");
    }

    #[test]
    fn a_process_accepts_from_its_first_beat_until_it_says_otherwise() {
        let row = Row::detached();
        assert!(!row.may_accept());
        row.heartbeat(1);
        assert!(row.may_accept());
        row.emptied();
        assert!(!row.may_accept());
    }

    #[test]
    fn rows_do_not_share_cache_lines() {
        let board = Scoreboard::create(2).unwrap();
        let address = |row: &Row| std::ptr::from_ref(row.word(0)).addr();
        let (first, second) = (board.row(0), board.row(1));
        assert_eq!(address(&first) % 128, 0);
        assert_eq!(address(&second) - address(&first), 384);
    }

    #[test]
    fn a_detached_row_counts_for_itself() {
        let (one, other) = (Row::detached(), Row::detached());
        one.clone().request();
        assert_eq!((one.totals().requests, other.totals().requests), (1, 0));
    }

    #[test]
    fn a_row_keeps_the_memory() {
        let row = Scoreboard::create(1).unwrap().row(0);
        row.request();
        assert_eq!(row.totals().requests, 1);
    }

    #[test]
    #[should_panic(expected = "seat 2 of 2")]
    fn there_is_no_row_past_the_last() {
        Scoreboard::create(2).unwrap().row(2);
    }

    #[test]
    fn another_file_is_refused() {
        let words = create_sealed("test", HEADER_WORDS).unwrap();
        assert!(matches!(Scoreboard::from_fd(words), Err(ScoreboardError::NotAScoreboard)));
        let short = create_sealed("test", 1).unwrap();
        assert!(matches!(Scoreboard::from_fd(short), Err(ScoreboardError::NotAScoreboard)));
        let pipe = OwnedFd::from(std::io::pipe().unwrap().0);
        assert!(matches!(Scoreboard::from_fd(pipe), Err(ScoreboardError::Memory { attempt: "map", .. })));
    }

    #[test]
    fn another_layout_is_refused() {
        let board = Scoreboard::create(1).unwrap();
        board.memory.words()[header::LAYOUT].store(LAYOUT + 1, Relaxed);
        let error = reopened(&board).unwrap_err().to_string();
        assert!(error.starts_with("the scoreboard has layout 6 and this program expects 5: restart"), "{error}");
    }

    #[test]
    fn sizes_that_do_not_add_up_are_refused() {
        for (word, value) in [(header::SEATS, u64::MAX), (header::SEATS, 0), (header::ROW_WORDS, 8)] {
            let board = Scoreboard::create(1).unwrap();
            board.memory.words()[word].store(value, Relaxed);
            assert!(matches!(reopened(&board), Err(ScoreboardError::WrongSize { words: 96, .. })), "{word}: {value}");
        }
    }
}
