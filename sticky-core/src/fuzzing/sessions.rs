//! The session table: what it says of a session was said of that session, and any words that may be in the memory are
//! borne.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::{Numbers, open};
use crate::affinity::AffinityKey;
use crate::id::{MAX_WORKERS, WorkerId};
use crate::placement::SessionTable;

/// With this timeout a tick is a second, so that every age is exact.
const TIMEOUT: u64 = 100;
const START: u64 = 1_000_000;

/// Sooner than ticks come round.
const LONGEST: u64 = 60_000;

/// As many as find room in a bucket, whatever happens.
const FEW: usize = 8;

/// What was said last of a session, and when.
type Known = Option<(WorkerId, u64)>;

pub(super) fn check(input: &[u8]) {
    let (mut numbers, text) = open(input);
    let words: Vec<u64> =
        text.chunks_exact(8).take(8).map(|bytes| bytes.try_into().map_or(0, u64::from_le_bytes)).collect();
    if words.is_empty() { check_used(&mut numbers) } else { check_any(&mut numbers, &words) }
}

/// A key in the one bucket that there is.
fn key(number: usize) -> AffinityKey {
    AffinityKey::from_bits((number as u64) << 26 | 5)
}

fn slot(numbers: &mut Numbers<'_>) -> WorkerId {
    WorkerId::new(u16::from(numbers.next()) % MAX_WORKERS)
}

/// A table that nothing but sessions has been written to.
fn check_used(numbers: &mut Numbers<'_>) {
    let memory: Vec<_> = (0..SessionTable::words_for(1)).map(|_| AtomicU64::new(0)).collect();
    let table = SessionTable::new(&memory, Duration::from_secs(TIMEOUT));
    let keys = [FEW, 2 * FEW][numbers.choose(2)];
    let is_roomy = keys == FEW;
    let mut model: Vec<Known> = vec![None; keys];
    let mut now = START;
    while numbers.left.len() > 0 && now < START + LONGEST {
        let (act, number) = (numbers.choose(6), numbers.choose(keys));
        now += [0, 1, 50, 99, 100, 101][numbers.choose(6)];
        let known = model[number].filter(|(_, used)| now - used <= TIMEOUT);
        let there = known.map(|(slot, _)| slot);
        match act {
            0 | 1 => {
                let found = table.find(key(number), now);
                assert!(found == there || found.is_none() && !is_roomy);
                model[number] = found.map(|slot| (slot, now));
            }
            2 => {
                let slot = slot(numbers);
                let assigned = table.assign(key(number), slot, now);
                assert!(assigned == there.unwrap_or(slot) || assigned == slot && !is_roomy);
                model[number] = Some((assigned, now));
            }
            3 => {
                let slot = slot(numbers);
                table.learn(key(number), slot, now);
                model[number] = Some((slot, now));
            }
            4 => {
                table.forget(key(number));
                assert_eq!(table.find(key(number), now), None);
                model[number] = None;
            }
            _ => {
                let count = table.sweep(now);
                let live = model.iter().flatten().filter(|(_, used)| now - used <= TIMEOUT).count();
                assert!(count == live || count < live && !is_roomy);
            }
        }
        if let (2 | 3, Some((slot, _))) = (act, model[number]) {
            assert_eq!(table.find(key(number), now), Some(slot), "just remembered");
        }
    }
}

/// A table in which anything may stand.
fn check_any(numbers: &mut Numbers<'_>, words: &[u64]) {
    let memory: Vec<_> = (0..8).map(|index| AtomicU64::new(words.get(index).copied().unwrap_or_default())).collect();
    let table = SessionTable::new(&memory, Duration::from_secs(TIMEOUT));
    // The tags that are there, with others.
    let keys: Vec<_> = words.iter().map(|word| AffinityKey::from_bits(*word)).chain((0..4).map(key)).collect();
    let mut now = START + u64::from(numbers.next()) * 300;
    while numbers.left.len() > 0 {
        let (act, key) = (numbers.choose(5), keys[numbers.choose(keys.len())]);
        now += u64::from(numbers.next());
        match act {
            0 => {
                let found = table.find(key, now);
                assert_eq!(table.find(key, now), found);
            }
            1 => {
                let slot = slot(numbers);
                let assigned = table.assign(key, slot, now);
                assert!(table.find(key, now).is_some(), "{assigned} is remembered");
            }
            2 => {
                let slot = slot(numbers);
                table.learn(key, slot, now);
                assert!(table.find(key, now).is_some());
            }
            3 => {
                table.forget(key);
                assert_eq!(table.find(key, now), None);
            }
            _ => {
                let count = table.sweep(now);
                assert!(count <= memory.len());
                assert_eq!(table.sweep(now), count);
                let used = memory.iter().filter(|word| word.load(Relaxed) != 0).count();
                assert!(count <= used);
            }
        }
    }
}
