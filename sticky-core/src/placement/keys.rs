//! Rendezvous hashing of [`AffinityKey`]s: the placement of everything the kernel cannot see.
//!
//! Every slot scores every key by itself, and the highest score wins. A slot left out therefore loses its own keys and
//! moves no others, and a slot that joins takes an equal part from each of the rest.
//!
//! There is no seed here: the keys are hashes with the cluster's secret already, so a plain mixer of 64-bit words is
//! enough to place them. The kernel's placement is another one, since it has 32-bit arithmetic and bare addresses.

#[cfg(test)]
use std::cmp::Reverse;

use crate::affinity::AffinityKey;
use crate::id::WorkerId;

/// The placement of keys on a set of slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rendezvous {
    slots: Vec<SaltedSlot>,
}

/// A slot with the constant that makes its scores its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SaltedSlot {
    slot: WorkerId,
    salt: u64,
}

impl Rendezvous {
    /// The placement on all slots of a cluster.
    pub(crate) fn of_all(workers: u16) -> Self {
        Self::new(WorkerId::all(workers))
    }

    /// The placement on these slots. A key moves between two placements only if its slot is in one and not in the
    /// other. Their order does not matter.
    pub(crate) fn new(slots: impl IntoIterator<Item = WorkerId>) -> Self {
        Self { slots: slots.into_iter().map(SaltedSlot::new).collect() }
    }

    /// The slot a key belongs to. `None` if the placement has no slots.
    #[cfg(test)]
    pub(crate) fn owner(&self, key: AffinityKey) -> Option<WorkerId> {
        self.first(key, |_| true)
    }

    /// The first slot in the order of the key for which `is_usable` holds: the owner if it is, else who stands in.
    #[cfg(test)]
    pub(crate) fn first(&self, key: AffinityKey, is_usable: impl Fn(WorkerId) -> bool) -> Option<WorkerId> {
        self.first_among(u16::MAX, key, is_usable)
    }

    /// The same among so many slots, those that were given first.
    pub(crate) fn first_among(
        &self,
        slots: u16,
        key: AffinityKey,
        is_usable: impl Fn(WorkerId) -> bool,
    ) -> Option<WorkerId> {
        let usable = self.slots.iter().take(slots.into()).filter(|salted| is_usable(salted.slot));
        usable.max_by_key(|salted| salted.score(key)).map(|salted| salted.slot)
    }

    /// All slots in the order in which they take the key: its owner first, then whoever follows if that is out.
    #[cfg(test)]
    pub(crate) fn order(&self, key: AffinityKey) -> Vec<WorkerId> {
        let mut slots = self.slots.clone();
        slots.sort_by_cached_key(|salted| Reverse(salted.score(key)));
        slots.into_iter().map(|salted| salted.slot).collect()
    }
}

impl SaltedSlot {
    fn new(slot: WorkerId) -> Self {
        let salt = splitmix(u64::from(slot.get()));
        Self { slot, salt }
    }

    /// The slot's claim on a key. The mixer is a bijection, so no two slots have the same.
    fn score(self, key: AffinityKey) -> u64 {
        splitmix(key.bits() ^ self.salt)
    }
}

/// One step of the SplitMix64 generator: a bijection in which every input bit changes every output bit with a chance of
/// about one half.
fn splitmix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;
    use crate::affinity::KeyHasher;

    const SEED: u64 = 0x0123_4567_89ab_cdef;

    /// Keys as sessions have them.
    fn sessions(range: Range<u32>) -> impl Iterator<Item = AffinityKey> {
        let hasher = KeyHasher::new(SEED);
        range.map(move |n| hasher.of_text(format!("session-{n}")))
    }

    fn slots(numbers: &[u16]) -> Rendezvous {
        Rendezvous::new(numbers.iter().copied().map(WorkerId::new))
    }

    /// The contract between versions: other numbers here move every session of every running cluster.
    #[test]
    fn golden_owners() {
        let owners = |workers| {
            let placement = Rendezvous::of_all(workers);
            let keys = [0, 1, 0x8000_0000_0000_0000, u64::MAX, SEED].map(AffinityKey::from_bits);
            keys.map(|key| placement.owner(key).unwrap().get())
        };
        assert_eq!(owners(4), [3, 3, 2, 2, 1]);
        assert_eq!(owners(256), [236, 227, 150, 159, 173]);
    }

    /// The whole way from a value to its slot.
    #[test]
    fn golden_sessions() {
        let placement = Rendezvous::of_all(8);
        let owners: Vec<_> = sessions(0..8).map(|key| placement.owner(key).unwrap().get()).collect();
        assert_eq!(owners, [2, 5, 2, 2, 6, 7, 0, 1]);
    }

    #[test]
    fn golden_order() {
        let order = Rendezvous::of_all(8).order(AffinityKey::from_bits(SEED));
        assert_eq!(order.iter().map(|slot| slot.get()).collect::<Vec<_>>(), [4, 5, 6, 7, 1, 2, 0, 3]);
    }

    #[test]
    fn no_slots_no_owner() {
        let key = AffinityKey::from_bits(1);
        assert_eq!(slots(&[]).owner(key), None);
        assert_eq!(slots(&[]).order(key), []);
        assert_eq!(slots(&[0, 1]).first(key, |_| false), None);
    }

    #[test]
    fn a_slot_left_out_moves_only_its_own_keys() {
        let (all, rest) = (Rendezvous::of_all(4), slots(&[0, 1, 3]));
        for key in sessions(0..4000) {
            let before = all.owner(key).unwrap();
            let expected = if before == WorkerId::new(2) { all.order(key)[1] } else { before };
            assert_eq!(rest.owner(key), Some(expected));
        }
    }

    #[test]
    fn a_slot_that_joins_takes_one_in_nine() {
        let (eight, nine) = (Rendezvous::of_all(8), Rendezvous::of_all(9));
        let moved: Vec<_> = sessions(0..9000).filter(|&key| eight.owner(key) != nine.owner(key)).collect();
        assert!(moved.iter().all(|&key| nine.owner(key) == Some(WorkerId::new(8))));
        assert!((900..1100).contains(&moved.len()), "{} moved, expected about 1000", moved.len());
    }

    /// Chi-squared over `workers` slots, as a distance from its mean in standard deviations.
    fn unevenness(workers: u16, keys: impl Iterator<Item = AffinityKey>) -> f64 {
        let placement = Rendezvous::of_all(workers);
        let mut counts = vec![0.0; usize::from(workers)];
        keys.for_each(|key| counts[placement.owner(key).unwrap().index()] += 1.0);
        let fair = counts.iter().sum::<f64>() / f64::from(workers);
        let chi_squared: f64 = counts.iter().map(|count| (count - fair).powi(2) / fair).sum();
        let freedom = f64::from(workers - 1);
        (chi_squared - freedom) / (2.0 * freedom).sqrt()
    }

    #[test]
    fn sessions_spread_as_chance_would_have_it() {
        for workers in [2, 3, 4, 7, 8, 16, 64, 256] {
            let deviation = unevenness(workers, sessions(0..20_000));
            assert!(deviation.abs() < 4.0, "{workers} workers: {deviation:.1} standard deviations");
        }
    }

    #[test]
    fn counted_keys_spread_too() {
        for shift in [0, 24, 48] {
            let deviation = unevenness(8, (0..20_000).map(|n| AffinityKey::from_bits(n << shift)));
            assert!(deviation.abs() < 4.0, "shifted by {shift}: {deviation:.1} standard deviations");
        }
    }

    /// When a worker is gone its keys go to all others alike, not to one neighbour.
    #[test]
    fn the_second_in_order_is_spread_too() {
        let placement = Rendezvous::of_all(5);
        let mut counts = [0; 5];
        let of_slot_0 = sessions(0..20_000).filter(|&key| placement.owner(key) == Some(WorkerId::new(0)));
        of_slot_0.for_each(|key| counts[placement.order(key)[1].index()] += 1);
        assert!(counts[1..].iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn order_is_the_owner_and_then_the_owner_without_it(bits: u64, workers in 1u16..=16) {
            let key = AffinityKey::from_bits(bits);
            let all = Rendezvous::of_all(workers);
            let mut left: Vec<_> = WorkerId::all(workers).collect();
            for slot in all.order(key) {
                prop_assert_eq!(Rendezvous::new(left.iter().copied()).owner(key), Some(slot));
                prop_assert_eq!(all.first(key, |other| left.contains(&other)), Some(slot));
                left.retain(|&other| other != slot);
            }
            prop_assert!(left.is_empty());
        }

        #[test]
        fn the_order_of_the_slots_given_does_not_matter(bits: u64, workers in 1u16..=256) {
            let key = AffinityKey::from_bits(bits);
            let mut slots: Vec<_> = WorkerId::all(workers).collect();
            slots.reverse();
            let (forward, backward) = (Rendezvous::of_all(workers), Rendezvous::new(slots));
            prop_assert_eq!(forward.owner(key), backward.owner(key));
            prop_assert_eq!(forward.order(key), backward.order(key));
        }
    }
}
