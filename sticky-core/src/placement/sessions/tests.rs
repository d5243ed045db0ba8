//! The table by itself, against a model, and with several threads at once.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::affinity::KeyHasher;

/// With this timeout a tick is a second, so that every age is exact.
const TIMEOUT: u64 = 100;
const NOW: u64 = 1_000_000;

fn memory(words: usize) -> Vec<AtomicU64> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

fn table(memory: &[AtomicU64]) -> SessionTable<'_> {
    SessionTable::new(memory, Duration::from_secs(TIMEOUT))
}

fn slot(number: u16) -> WorkerId {
    WorkerId::new(number)
}

/// A key as sessions have it.
fn session(number: u64) -> AffinityKey {
    KeyHasher::new(7).of_text(number.to_string())
}

/// A key whose tag is known; in a table of one bucket they all meet.
fn tagged(tag: u64) -> AffinityKey {
    AffinityKey::from_bits(tag << TAG_SHIFT)
}

/// What another process does between two accesses to the memory.
struct Interruption {
    /// How many accesses come before it.
    after: usize,
    run: Box<dyn FnOnce()>,
}

thread_local! {
    static INTERRUPTION: Cell<Option<Interruption>> = const { Cell::new(None) };
}

/// Called by the table before each access to the memory.
pub(super) fn interrupt() {
    match INTERRUPTION.take() {
        Some(Interruption { after: 0, run }) => run(),
        Some(Interruption { after, run }) => INTERRUPTION.set(Some(Interruption { after: after - 1, run })),
        None => {}
    }
}

/// Lets something else happen once this thread has accessed the memory that often. It can be interrupted in turn.
fn interrupt_after(accesses: usize, run: impl FnOnce() + 'static) {
    INTERRUPTION.set(Some(Interruption { after: accesses, run: Box::new(run) }));
}

/// Assigns sessions 0 to 7, one second after the other.
fn fill(table: SessionTable<'_>, start: u64) {
    for number in 0..8 {
        table.assign(tagged(number), slot(1), start + number);
    }
}

/// The entries that are not empty.
fn used(memory: &[AtomicU64]) -> Vec<Entry> {
    memory.iter().map(|word| Entry(word.load(SeqCst))).filter(|&entry| entry != Entry::EMPTY).collect()
}

/// Leaves the claim of a process that died before it was settled.
fn leave_claim(word: &AtomicU64, tag: u64, number: u16) {
    word.store(Entry::new(tag, slot(number), table(&memory(8)).clock.tick(NOW)).0 | CLAIM, SeqCst);
}

#[test]
fn a_session_is_found_where_it_was_assigned() {
    let memory = memory(64);
    let table = table(&memory);
    assert_eq!(table.find(session(1), NOW), None);
    assert_eq!(table.assign(session(1), slot(3), NOW), slot(3));
    assert_eq!(table.assign(session(2), slot(0), NOW), slot(0));
    assert_eq!(table.find(session(1), NOW), Some(slot(3)));
    assert_eq!(table.find(session(2), NOW), Some(slot(0)));
    assert_eq!(table.find(session(3), NOW), None);
    assert_eq!(table.assign(session(1), slot(5), NOW), slot(3));
    table.learn(session(1), slot(6), NOW);
    assert_eq!(table.find(session(1), NOW), Some(slot(6)));
    table.learn(session(4), slot(4), NOW);
    assert_eq!(table.find(session(4), NOW), Some(slot(4)));
    assert_eq!(used(&memory).len(), 3);
    table.forget(session(1));
    assert_eq!(table.find(session(1), NOW), None);
    assert_eq!(table.find(session(2), NOW), Some(slot(0)));
    assert_eq!(used(&memory).len(), 2);
}

#[test]
fn another_table_in_the_same_memory_knows_the_same() {
    let memory = memory(8);
    table(&memory).assign(session(1), slot(1), NOW);
    assert_eq!(table(&memory).find(session(1), NOW), Some(slot(1)));
}

#[test]
fn every_slot_fits() {
    let memory = memory(8);
    for number in 0..MAX_WORKERS {
        for bits in [0, u64::MAX, 1 << 63, 0x0123_4567_89ab_cdef] {
            let key = AffinityKey::from_bits(bits);
            table(&memory).learn(key, slot(number), 0);
            assert_eq!(table(&memory).find(key, 0), Some(slot(number)));
        }
    }
    assert_eq!(used(&memory).len(), 4);
}

#[test]
#[should_panic(expected = "slot 256 is out of range")]
fn a_slot_that_does_not_fit_is_refused() {
    table(&memory(8)).assign(session(1), slot(256), NOW);
}

#[test]
fn sizes() {
    let words = [0, 1, 8, 9, 16, 65_535, 65_536, 65_537].map(SessionTable::words_for);
    assert_eq!(words, [8, 8, 8, 16, 16, 65_536, 65_536, 131_072]);
}

#[test]
fn other_sizes_are_refused() {
    for words in [0, 1, 4, 7, 12, 24] {
        let outcome = std::panic::catch_unwind(|| table(&memory(words)).find(session(1), NOW));
        assert!(outcome.is_err(), "{words}");
    }
}

/// The tag is the upper 38 bits, the bucket is chosen by the lowest ones.
#[test]
fn keys_are_told_apart_by_tag_and_bucket() {
    let memory = memory(1024);
    let table = table(&memory);
    let bits = 0x0123_4567_89ab_cdef;
    table.assign(AffinityKey::from_bits(bits), slot(1), NOW);
    for bit in 0..64 {
        let found = table.find(AffinityKey::from_bits(bits ^ (1 << bit)), NOW);
        let is_known = (7..26).contains(&bit);
        assert_eq!(found.is_some(), is_known, "bit {bit}");
    }
}

#[test]
fn a_session_that_is_idle_expires() {
    let memory = memory(8);
    let table = table(&memory);
    table.assign(session(1), slot(1), NOW);
    assert_eq!(table.find(session(1), NOW + TIMEOUT), Some(slot(1)));
    assert_eq!(table.find(session(1), NOW + 2 * TIMEOUT), Some(slot(1)), "it was used");
    assert_eq!(table.assign(session(1), slot(2), NOW + 3 * TIMEOUT), slot(1));
    assert_eq!(table.find(session(1), NOW + 4 * TIMEOUT), Some(slot(1)), "it was assigned again");
    table.learn(session(1), slot(1), NOW + 5 * TIMEOUT);
    assert_eq!(table.find(session(1), NOW + 6 * TIMEOUT + 1), None);
    assert_eq!(table.assign(session(1), slot(2), NOW + 6 * TIMEOUT + 1), slot(2));
    assert_eq!(used(&memory).len(), 1, "the new entry is where the expired one was");
}

#[test]
fn an_expired_session_can_be_forgotten() {
    let memory = memory(8);
    table(&memory).assign(session(1), slot(1), NOW);
    table(&memory).forget(session(1));
    assert_eq!(used(&memory), []);
}

#[test]
fn a_session_in_use_is_written_to_once_a_tick() {
    let memory = memory(8);
    let table = SessionTable::new(&memory, Duration::from_secs(12_800));
    table.assign(session(1), slot(1), NOW);
    let before = used(&memory);
    table.find(session(1), NOW + 99);
    table.assign(session(1), slot(1), NOW + 99);
    assert_eq!(used(&memory), before);
    // A write would be the ninth access.
    interrupt_after(8, || panic!("written to in the same tick"));
    table.find(session(1), NOW + 99);
    INTERRUPTION.take();
    table.find(session(1), NOW + 100);
    assert_ne!(used(&memory), before);
}

#[test]
fn timeouts_are_kept_to_a_64th() {
    for timeout in [0, 1, 2, 60, 127, 128, 129, 1000, 3600, 86_400, 30 * 86_400] {
        for start in (0..timeout / 32 + 3).map(|offset| NOW + offset) {
            let memory = memory(8);
            let table = SessionTable::new(&memory, Duration::from_secs(timeout));
            let is_found = |later: u64| {
                table.forget(session(1));
                table.assign(session(1), slot(1), start);
                table.find(session(1), start + later).is_some()
            };
            assert!(is_found(timeout), "{timeout} from {start}");
            assert!(!is_found(timeout + timeout / 64 + 2), "{timeout} from {start}");
        }
    }
}

#[test]
fn parts_of_a_second_are_rounded_up() {
    let memory = memory(8);
    let table = SessionTable::new(&memory, Duration::from_millis(1500));
    table.assign(session(1), slot(1), NOW);
    assert!(table.find(session(1), NOW + 2).is_some());
    assert!(table.find(session(1), NOW + 5).is_none());
}

#[test]
fn a_full_bucket_loses_its_oldest() {
    let memory = memory(8);
    let table = table(&memory);
    fill(table, NOW);
    table.find(tagged(0), NOW + 10);
    table.assign(tagged(8), slot(1), NOW + 11);
    assert_eq!(table.find(tagged(1), NOW + 11), None);
    table.learn(tagged(9), slot(1), NOW + 12);
    assert_eq!(table.find(tagged(2), NOW + 12), None);
    for number in [0, 3, 4, 5, 6, 7, 8, 9] {
        assert_eq!(table.find(tagged(number), NOW + 12), Some(slot(1)), "{number}");
    }
}

#[test]
fn what_is_empty_or_expired_goes_first() {
    let memory = memory(8);
    let table = table(&memory);
    fill(table, NOW);
    table.forget(tagged(5));
    table.assign(tagged(8), slot(1), NOW + 20);
    assert!(table.find(tagged(0), NOW + TIMEOUT).is_some());
    // Number 1 has expired; number 2 is the oldest that has not.
    table.assign(tagged(9), slot(1), NOW + 1 + TIMEOUT + 1);
    let mut left: Vec<_> = used(&memory).iter().map(|entry| entry.0 >> TAG_SHIFT).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 2, 3, 4, 6, 7, 8, 9]);
}

/// In a flood of sessions all are equally old. None of them may be the one that always goes.
#[test]
fn equally_old_sessions_go_by_chance() {
    let went: HashSet<_> = (8..72)
        .map(|new| {
            let memory = memory(8);
            for number in 0..8 {
                table(&memory).assign(tagged(number), slot(1), NOW);
            }
            table(&memory).assign(tagged(new), slot(1), NOW);
            (0..8).find(|&number| table(&memory).find(tagged(number), NOW).is_none())
        })
        .collect();
    assert_eq!(went.len(), 8);
}

#[test]
fn ticks_come_round() {
    for start in [(1 << 16) - 5, (1 << 40) - 5, u64::MAX - 2 * TIMEOUT - 20] {
        let memory = memory(8);
        let table = table(&memory);
        table.assign(session(1), slot(1), start);
        table.assign(session(2), slot(2), start - TIMEOUT + 10);
        assert_eq!(table.find(session(1), start + 10), Some(slot(1)));
        assert_eq!(table.find(session(2), start + 11), None);
        assert_eq!(table.find(session(1), start + 10 + TIMEOUT), Some(slot(1)));
        assert_eq!(table.find(session(1), start + 10 + 2 * TIMEOUT + 1), None);
    }
}

#[test]
fn the_oldest_is_the_oldest_where_ticks_come_round() {
    let memory = memory(8);
    let table = table(&memory);
    let start = (1 << 16) - 4;
    fill(table, start);
    table.assign(tagged(8), slot(1), start + 8);
    assert_eq!(table.find(tagged(0), start + 8), None);
    assert_eq!(table.find(tagged(1), start + 8), Some(slot(1)));
}

#[test]
fn sweeping_keeps_what_has_expired_from_coming_back() {
    for is_swept in [false, true] {
        let memory = memory(64);
        let table = table(&memory);
        for number in 0..10 {
            table.assign(session(number), slot(1), NOW);
        }
        assert_eq!(table.sweep(NOW + TIMEOUT), 10);
        for ticks in [TIMEOUT + 1, 30_000, 32_768, 65_000] {
            assert_eq!(table.find(session(1), NOW + ticks), None, "{ticks}");
        }
        if is_swept {
            assert_eq!(table.sweep(NOW + 40_000), 0);
            assert_eq!(used(&memory), []);
        }
        assert_eq!(table.find(session(1), NOW + 65_536).is_none(), is_swept);
    }
}

#[test]
fn slots_that_are_taken_out_are_forgotten() {
    let memory = memory(64);
    let table = table(&memory);
    for number in 0..16 {
        table.assign(session(number), slot(number as u16 % 4), NOW);
    }
    table.forget_from(slot(2));
    let found: Vec<_> = (0..16).map(|number| table.find(session(number), NOW)).collect();
    let left = (0..16).map(|number| Some(slot(number % 4)).filter(|slot| slot.get() < 2));
    assert_eq!(found, left.collect::<Vec<_>>());
}

#[test]
fn sweeping_counts_sessions() {
    let memory = memory(64);
    let table = table(&memory);
    for number in 0..10 {
        table.assign(session(number), slot(1), NOW + number);
    }
    assert_eq!(table.sweep(NOW), 10);
    assert_eq!(table.sweep(NOW + TIMEOUT + 4), 6);
    assert_eq!(used(&memory).len(), 6);
    let memory = self::memory(8);
    leave_claim(&memory[0], 1, 1);
    assert_eq!(self::table(&memory).sweep(NOW), 0);
    assert_eq!(used(&memory).len(), 1);
}

/// A process may be held up after it has read the clock.
#[test]
fn sessions_of_the_near_future_live() {
    let memory = memory(8);
    let table = table(&memory);
    fill(table, NOW);
    assert_eq!(table.find(tagged(7), NOW), Some(slot(1)));
    assert_eq!(table.find(tagged(7), NOW + 7 - TIMEOUT), Some(slot(1)));
    table.assign(tagged(8), slot(1), NOW);
    assert_eq!(table.find(tagged(0), NOW), None, "the oldest has gone");
    assert_eq!(table.find(tagged(7), NOW + 7 + TIMEOUT), Some(slot(1)), "it was not made older");
}

#[test]
fn a_claim_is_not_found_but_counts_for_who_assigns() {
    let memory = memory(8);
    leave_claim(&memory[5], 0, 3);
    assert_eq!(table(&memory).find(tagged(0), NOW), None);
    assert_eq!(table(&memory).assign(tagged(0), slot(1), NOW), slot(3));
    assert_eq!(table(&memory).find(tagged(0), NOW), Some(slot(3)));
    assert_eq!(used(&memory).len(), 1);
}

#[test]
fn a_claim_does_not_keep_others_from_learning() {
    let memory = memory(8);
    leave_claim(&memory[5], 0, 3);
    table(&memory).learn(tagged(0), slot(1), NOW);
    assert_eq!(table(&memory).find(tagged(0), NOW), Some(slot(1)));
    assert_eq!(used(&memory).len(), 1);
}

#[test]
fn the_first_of_several_claims_is_settled() {
    for tag in 0..8 {
        let memory = memory(8);
        (0..8).for_each(|position| leave_claim(&memory[usize::from(position)], tag, position));
        assert_eq!(table(&memory).assign(tagged(tag), slot(9), NOW), slot(tag as u16));
        assert_eq!(used(&memory).len(), 1);
    }
}

#[test]
fn what_is_settled_beats_every_claim() {
    let memory = memory(8);
    table(&memory).assign(tagged(0), slot(1), NOW);
    [1, 3, 7].into_iter().for_each(|position| leave_claim(&memory[position], 0, 2));
    assert_eq!(table(&memory).find(tagged(0), NOW), Some(slot(1)));
    assert_eq!(table(&memory).assign(tagged(0), slot(3), NOW), slot(1));
    assert_eq!(used(&memory).len(), 1);
}

#[test]
fn claims_are_forgotten_too() {
    let memory = memory(8);
    table(&memory).assign(tagged(0), slot(1), NOW);
    leave_claim(&memory[1], 0, 2);
    leave_claim(&memory[2], 4, 2);
    table(&memory).forget(tagged(0));
    let left: Vec<_> = used(&memory).iter().map(|entry| entry.has_tag(4)).collect();
    assert_eq!(left, [true]);
}

/// What can be done with the session of some key.
#[derive(Clone, Copy, Debug)]
enum Action {
    Find,
    Assign(u16),
    Learn(u16),
    Forget,
    Wait(u64),
    Sweep,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => Just(Action::Find),
        4 => (0..MAX_WORKERS).prop_map(Action::Assign),
        2 => (0..MAX_WORKERS).prop_map(Action::Learn),
        1 => Just(Action::Forget),
        2 => (0..TIMEOUT).prop_map(Action::Wait),
        1 => Just(Action::Sweep),
    ]
}

/// What the table should be where there is room for all.
#[derive(Default)]
struct Model {
    /// Where a session is, and when it was used.
    sessions: HashMap<u64, (WorkerId, u64)>,
}

impl Model {
    fn find(&mut self, key: u64, now: u64) -> Option<WorkerId> {
        self.sessions.retain(|_, (_, used)| now - *used <= TIMEOUT);
        let (slot, used) = self.sessions.get_mut(&key)?;
        *used = now;
        Some(*slot)
    }

    fn assign(&mut self, key: u64, slot: WorkerId, now: u64) -> WorkerId {
        let slot = self.find(key, now).unwrap_or(slot);
        self.sessions.insert(key, (slot, now));
        slot
    }
}

/// Does the same with the table and the model.
fn compare(
    words: usize,
    key: impl Fn(u64) -> AffinityKey,
    mut now: u64,
    actions: Vec<(u64, Action)>,
) -> Result<(), TestCaseError> {
    let memory = memory(words);
    let (table, mut model) = (table(&memory), Model::default());
    for (number, action) in actions {
        match action {
            Action::Find => prop_assert_eq!(table.find(key(number), now), model.find(number, now)),
            Action::Assign(to) => {
                let expected = model.assign(number, slot(to), now);
                prop_assert_eq!(table.assign(key(number), slot(to), now), expected);
            }
            Action::Learn(to) => {
                model.sessions.insert(number, (slot(to), now));
                table.learn(key(number), slot(to), now);
            }
            Action::Forget => {
                model.sessions.remove(&number);
                table.forget(key(number));
            }
            Action::Wait(seconds) => now += seconds,
            Action::Sweep => {
                model.find(u64::MAX, now);
                prop_assert_eq!(table.sweep(now), model.sessions.len());
            }
        }
    }
    let entries = used(&memory);
    let keys: HashSet<_> = entries.iter().map(|entry| entry.0 >> TAG_SHIFT).collect();
    prop_assert_eq!(keys.len(), entries.len(), "a session has one entry");
    prop_assert!(entries.iter().all(|entry| !entry.is_claim()));
    Ok(())
}

proptest! {
    #[test]
    fn a_large_table_is_a_map(
        now in (1u64 << 17)..1 << 40,
        actions in proptest::collection::vec((0u64..200, action()), 0..400),
    ) {
        compare(1024, session, now, actions)?;
    }

    #[test]
    fn a_bucket_that_is_not_full_is_a_map(
        now in (1u64 << 17)..1 << 40,
        actions in proptest::collection::vec((0u64..8, action()), 0..200),
    ) {
        compare(8, tagged, now, actions)?;
    }

    #[test]
    fn a_full_bucket_forgets_but_does_not_lie(
        actions in proptest::collection::vec((0u64..30, action()), 0..200),
    ) {
        let memory = memory(8);
        let (table, mut model, mut now) = (table(&memory), Model::default(), NOW);
        for (number, action) in actions {
            let known = table.find(tagged(number), now);
            prop_assert!(known.is_none() || known == model.find(number, now));
            match action {
                Action::Assign(to) => {
                    let there = table.assign(tagged(number), slot(to), now);
                    prop_assert_eq!(there, known.unwrap_or(slot(to)));
                    model.sessions.insert(number, (there, now));
                    prop_assert_eq!(table.find(tagged(number), now), Some(there));
                }
                Action::Wait(seconds) => now += seconds,
                _ => {}
            }
        }
    }

    #[test]
    fn whatever_is_in_the_memory_is_survived(words: [u64; 8], bits: u64, now: u64, number in 0..MAX_WORKERS) {
        let memory = words.map(AtomicU64::new);
        let (table, key) = (table(&memory), AffinityKey::from_bits(bits));
        table.find(key, now);
        table.assign(key, slot(number), now);
        table.learn(key, slot(number), now);
        prop_assert_eq!(table.find(key, now), Some(slot(number)));
        table.forget(key);
        prop_assert_eq!(table.find(key, now), None);
        table.sweep(now);
    }
}

/// More accesses than any operation needs here.
const MOST_ACCESSES: usize = 50;

/// Runs three operations on a bucket with this many other sessions. The second comes in after the first has made a
/// number of accesses, the third in the same way into the second, and before each of them one of the others leaves, so
/// that there is room at another place than before. All numbers are tried. The operations get their number.
fn interleave(
    others: u64,
    operation: fn(SessionTable<'_>, u16) -> Option<WorkerId>,
    check: impl Fn(&[AtomicU64], &[Option<WorkerId>]),
) {
    for first in 0..others.max(1) {
        let second = (first + others / 2) % others.max(1);
        for (one, two) in (0..MOST_ACCESSES).flat_map(|one| (0..MOST_ACCESSES).map(move |two| (one, two))) {
            let memory: Rc<[AtomicU64]> = memory(8).into();
            (0..others).for_each(|other| table(&memory).learn(tagged(other), slot(9), NOW));
            let outcomes = Rc::new(RefCell::new(Vec::new()));
            let run = |number, leaving| {
                let (memory, outcomes) = (Rc::clone(&memory), Rc::clone(&outcomes));
                move || {
                    table(&memory).forget(tagged(leaving));
                    let outcome = operation(table(&memory), number);
                    outcomes.borrow_mut().push(outcome);
                }
            };
            let (second, third) = (run(2, first), run(3, second));
            interrupt_after(one, move || {
                interrupt_after(two, third);
                second();
            });
            let outcome = operation(table(&memory), 1);
            outcomes.borrow_mut().push(outcome);
            INTERRUPTION.take();
            check(&memory, &outcomes.borrow());
        }
    }
}

/// The key that all operations of [`interleave`] are about. Its tag makes the bucket begin in the middle.
fn contended() -> AffinityKey {
    tagged(8 + 3)
}

/// The entries of that key, claims among them.
fn contended_entries(memory: &[AtomicU64]) -> Vec<Entry> {
    used(memory).into_iter().filter(|entry| entry.has_tag(8 + 3)).collect()
}

#[test]
fn assignments_that_interrupt_each_other_agree() {
    for others in [0, 2, 5, 8] {
        let assign = |table: SessionTable<'_>, number| Some(table.assign(contended(), slot(number), NOW));
        interleave(others, assign, |memory, outcomes| {
            assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{others} others: {outcomes:?}");
            assert_eq!(contended_entries(memory).len(), 1);
            assert_eq!(table(memory).find(contended(), NOW), outcomes[0]);
        });
    }
}

/// While somebody looks, a session is assigned where he has looked already, and one who knows nothing of that claims an
/// entry where he has not, and dies.
#[test]
fn a_claim_is_not_settled_by_a_look_that_began_before_it() {
    for (accesses, position) in (0..20).flat_map(|accesses| (0..8).map(move |position| (accesses, position))) {
        let memory: Rc<[AtomicU64]> = memory(8).into();
        let assigned = Rc::new(Cell::new(None));
        let (shared, outcome) = (Rc::clone(&memory), Rc::clone(&assigned));
        interrupt_after(accesses, move || {
            outcome.set(Some(table(&shared).assign(contended(), slot(2), NOW)));
            if shared[position].load(SeqCst) == 0 {
                leave_claim(&shared[position], 8 + 3, 3);
            }
        });
        let there = table(&memory).assign(contended(), slot(1), NOW);
        INTERRUPTION.take();
        assert_eq!(Some(there), assigned.get(), "after {accesses}, claimed at {position}");
        assert_eq!(table(&memory).find(contended(), NOW), Some(there));
        assert_eq!(table(&memory).assign(contended(), slot(4), NOW), there);
        assert_eq!(contended_entries(&memory).len(), 1);
    }
}

#[test]
fn what_interrupts_a_move_leaves_one_entry() {
    for others in [0, 2, 5, 8] {
        let learn_or_assign = |table: SessionTable<'_>, number| {
            if number == 2 {
                return Some(table.assign(contended(), slot(number), NOW));
            }
            table.learn(contended(), slot(number), NOW);
            None
        };
        interleave(others, learn_or_assign, |memory, _| {
            assert_eq!(contended_entries(memory).len(), 1);
            assert!(table(memory).find(contended(), NOW).is_some());
        });
    }
}

#[test]
fn what_is_forgotten_at_the_same_time_leaves_no_more_than_one_entry() {
    for others in [0, 2, 5, 8] {
        let forget_or_assign = |table: SessionTable<'_>, number| match number {
            2 => {
                table.forget(contended());
                None
            }
            _ => Some(table.assign(contended(), slot(number), NOW)),
        };
        interleave(others, forget_or_assign, |memory, _| {
            assert!(contended_entries(memory).len() <= 1);
        });
    }
}

/// Runs this many threads at once; each is told its number.
fn at_once(threads: u16, run: impl Fn(u16) + Sync) {
    let (run, start) = (&run, &Barrier::new(usize::from(threads)));
    thread::scope(|scope| {
        for number in 0..threads {
            scope.spawn(move || {
                start.wait();
                run(number);
            });
        }
    });
}

#[test]
fn nothing_is_lost_while_there_is_room() {
    let memory = memory(65_536);
    let table = table(&memory);
    at_once(4, |thread| {
        for number in 0..500 {
            let key = session(u64::from(thread) * 500 + number);
            assert_eq!(table.assign(key, slot(thread), NOW), slot(thread));
            assert_eq!(table.find(key, NOW), Some(slot(thread)));
        }
    });
    for number in 0..2000 {
        assert_eq!(table.find(session(number), NOW), Some(slot((number / 500) as u16)));
    }
    assert_eq!(table.sweep(NOW), 2000);
}

/// Entries come and go beside the one that all of them want, so that they try different places for it.
#[test]
fn who_assigns_at_once_agrees() {
    const RACES: u64 = 3000;
    const RIVALS: u16 = 3;
    let memory = memory(8);
    let table = table(&memory);
    let (meet, is_over) = (Barrier::new(usize::from(RIVALS)), AtomicBool::new(false));
    let won = [0; RIVALS as usize].map(AtomicU64::new);
    let disagreed = AtomicU64::new(0);
    let race = |key, rival| {
        meet.wait();
        let there = table.assign(key, slot(rival), NOW);
        won[usize::from(rival)].store(u64::from(there.get()), SeqCst);
        meet.wait();
        let found = table.find(key, NOW).map(|slot| u64::from(slot.get()));
        let agrees = won.iter().all(|won| found == Some(won.load(SeqCst)));
        disagreed.fetch_add(u64::from(!agrees), SeqCst);
        meet.wait();
        table.forget(key);
    };
    at_once(RIVALS + 1, |thread| {
        if thread < RIVALS {
            (0..RACES).for_each(|number| race(tagged(100 + number), thread));
            is_over.store(true, SeqCst);
        }
        while !is_over.load(SeqCst) {
            for tag in [1, 9] {
                table.assign(tagged(tag), slot(9), NOW);
                table.forget(tagged(tag));
            }
        }
    });
    assert_eq!(disagreed.into_inner(), 0);
}

#[test]
fn a_session_that_moves_is_always_found() {
    let memory = memory(1024);
    let table = table(&memory);
    (0..16).for_each(|number| table.learn(session(number), slot(0), NOW));
    at_once(4, |thread| {
        for step in 0..20_000 {
            let key = session(step % 16);
            if thread < 2 {
                table.learn(key, slot(thread), NOW + step / 1000);
            } else {
                let found = table.find(key, NOW + step / 1000);
                assert!(found.is_some_and(|slot| slot.get() < 2), "{found:?}");
            }
        }
    });
    assert_eq!(used(&memory).len(), 16);
}

#[test]
fn a_table_that_is_too_small_never_lies() {
    let memory = memory(64);
    let table = table(&memory);
    let home = |number: u64| slot((number % 256) as u16);
    at_once(4, |thread| {
        for step in 0..20_000 {
            let number = (step * 7 + u64::from(thread) * 31) % 500;
            let now = NOW + step / 100;
            match step % 5 {
                0 | 1 => assert!(table.find(session(number), now).is_none_or(|slot| slot == home(number))),
                2 => table.learn(session(number), home(number), now),
                3 if step % 3 == 0 => table.forget(session(number)),
                _ => assert_eq!(table.assign(session(number), home(number), now), home(number)),
            }
        }
    });
    let found = (0..500).filter(|&number| table.find(session(number), NOW + 200).is_some()).count();
    assert!((1..=64).contains(&found), "{found}");
    assert_eq!(used(&memory).iter().filter(|entry| !entry.is_claim()).count(), used(&memory).len());
}
