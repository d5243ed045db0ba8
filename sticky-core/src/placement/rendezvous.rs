//! Rendezvous hashing in 32-bit arithmetic: the twin of the program in `dispatch/kernel.rs`.
//!
//! ```text
//! IPv4 address ───────────────────────────► word ─┐
//! IPv6 address ─► first word ─► scramble ─► + ────┘─► scramble ─► key ─► one score per slot, the highest wins
//!                 second word ──────────────┘
//! ```
//!
//! Every slot scores every key by itself. A slot left out therefore loses its own keys and moves no others, and a
//! slot that joins takes an equal part from each of the rest.
//!
//! The arithmetic is what classic BPF has: 32-bit registers, wrapping, one instruction per operation. The seed is
//! secret to the machine, so that nobody can aim addresses at one worker.

#[cfg(test)]
use std::cmp::Reverse;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv6Addr};

use siphasher::sip::SipHasher13;

use crate::id::{MAX_WORKERS, WorkerId};

/// The shifts of the scramble: before, between and after its two multiplications.
pub(crate) const SHIFTS: [u32; 3] = [16, 13, 16];
/// The multipliers of the scramble (the 32-bit finaliser of MurmurHash3).
pub(crate) const MULTIPLIERS: [u32; 2] = [0x85eb_ca6b, 0xc2b2_ae35];
/// The shift between the two multiplications of a slot's score.
pub(crate) const SLOT_SHIFT: u32 = 15;
/// The second multiplier of every slot's score; the first is the slot's own.
pub(crate) const SLOT_MULTIPLIER: u32 = 0x2c1b_3c6d;
/// The low bits of a score, which hold the slot instead of hash.
const SLOT_BITS: u32 = 8;

/// The placement of client addresses on slots that the kernel computes too.
///
/// The key is the whole IPv4 address, or the first 64 bits of an IPv6 address (what one customer usually gets).
/// An IPv4-mapped IPv6 address counts as the IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelHash {
    seed: u64,
    key: KeyMix,
    slots: Vec<SlotMix>,
}

/// What the seed contributes to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyMix {
    /// Combined with the word that every address is reduced to.
    pub(crate) word: u32,
    /// Combined with the first word of an IPv6 address.
    pub(crate) ipv6: u32,
}

/// What the seed contributes to a slot's score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotMix {
    pub(crate) slot: WorkerId,
    pub(crate) mask: u32,
    /// Odd, so that no two keys get the same score from it.
    pub(crate) multiplier: u32,
}

impl KernelHash {
    /// The placement on all slots of a cluster.
    ///
    /// # Panics
    ///
    /// If there are more than [`MAX_WORKERS`].
    pub(crate) fn of_all(seed: u64, workers: u16) -> Self {
        Self::new(seed, &WorkerId::all(workers).collect::<Vec<_>>())
    }

    /// The placement on these slots. An address moves between two placements of the same seed only if its slot is
    /// in one and not in the other.
    ///
    /// # Panics
    ///
    /// If a slot is not below [`MAX_WORKERS`]: a score has eight bits for it.
    pub(crate) fn new(seed: u64, slots: &[WorkerId]) -> Self {
        Self { seed, key: KeyMix::new(seed), slots: slots.iter().map(|&slot| SlotMix::new(seed, slot)).collect() }
    }

    /// The slots of this placement, in the order they were given.
    pub(crate) fn slots(&self) -> impl ExactSizeIterator<Item = WorkerId> {
        self.slots.iter().map(|mix| mix.slot)
    }

    /// The slot an address belongs to. `None` if the placement has no slots.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<WorkerId> {
        self.first(address, |_| true)
    }

    /// The first slot in the order of the address for which `is_usable` holds: the owner if it is, else who stands in.
    pub(crate) fn first(&self, address: IpAddr, is_usable: impl Fn(WorkerId) -> bool) -> Option<WorkerId> {
        self.first_among(u16::MAX, address, is_usable)
    }

    /// The same among so many slots, those that were given first.
    pub(crate) fn first_among(
        &self,
        slots: u16,
        address: IpAddr,
        is_usable: impl Fn(WorkerId) -> bool,
    ) -> Option<WorkerId> {
        let key = self.key.reduce(address);
        let usable = self.slots.iter().take(slots.into()).filter(|mix| is_usable(mix.slot));
        usable.max_by_key(|mix| mix.score(key)).map(|mix| mix.slot)
    }

    /// All slots in the order in which they take the address: its owner first, then whoever follows if that is out.
    #[cfg(test)]
    pub(crate) fn order(&self, address: IpAddr) -> Vec<WorkerId> {
        let key = self.key.reduce(address);
        let mut slots = self.slots.clone();
        slots.sort_by_key(|mix| Reverse(mix.score(key)));
        slots.into_iter().map(|mix| mix.slot).collect()
    }

    /// What the kernel's program needs of the seed: the constants for keys, and for each slot.
    #[cfg(cluster)]
    pub(crate) fn constants(&self) -> (KeyMix, &[SlotMix]) {
        (self.key, &self.slots)
    }
}

impl KeyMix {
    fn new(seed: u64) -> Self {
        let (word, ipv6) = halves(constant(seed, u64::from(MAX_WORKERS)));
        Self { word, ipv6 }
    }

    /// The 32-bit key of an address.
    fn reduce(self, address: IpAddr) -> u32 {
        let word = match address.to_canonical() {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => {
                let (first, second) = network(address);
                scramble(first ^ self.ipv6).wrapping_add(second)
            }
        };
        scramble(word ^ self.word)
    }
}

impl SlotMix {
    fn new(seed: u64, slot: WorkerId) -> Self {
        assert!(slot.get() < MAX_WORKERS, "slot {slot} is out of range: there are at most {MAX_WORKERS}");
        let (mask, multiplier) = halves(constant(seed, u64::from(slot.get())));
        Self { slot, mask, multiplier: multiplier | 1 }
    }

    /// The slot's claim on a key; no two slots have the same.
    ///
    /// The upper bits of the second product are the mixed ones. The lower ones, where the slot decides ties, are not
    /// needed, and neither is the shift that would repair them: at 256 slots each instruction counts.
    fn score(self, key: u32) -> (u32, WorkerId) {
        let product = (key ^ self.mask).wrapping_mul(self.multiplier);
        let score = (product ^ (product >> SLOT_SHIFT)).wrapping_mul(SLOT_MULTIPLIER);
        (score >> SLOT_BITS, self.slot)
    }
}

/// A bijection in which every input bit changes every output bit with a chance of about one half.
fn scramble(word: u32) -> u32 {
    let word = (word ^ (word >> SHIFTS[0])).wrapping_mul(MULTIPLIERS[0]);
    let word = (word ^ (word >> SHIFTS[1])).wrapping_mul(MULTIPLIERS[1]);
    word ^ (word >> SHIFTS[2])
}

/// The first 64 bits of an IPv6 address as the two words in which the kernel's program reads them.
fn network(address: Ipv6Addr) -> (u32, u32) {
    halves((address.to_bits() >> 64) as u64)
}

/// The upper and the lower half.
fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

/// The `index`th constant drawn from a seed, by SipHash-1-3 with the seed as its key: who has worked out one constant
/// from what went where knows neither the seed nor the others.
fn constant(seed: u64, index: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, !seed);
    hasher.write(&index.to_le_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const SEED: u64 = 0x0123_4567_89ab_cdef;

    fn hash(workers: u16) -> KernelHash {
        KernelHash::of_all(SEED, workers)
    }

    fn ipv4(bits: u32) -> IpAddr {
        Ipv4Addr::from_bits(bits).into()
    }

    /// Addresses like those of clients: anywhere.
    fn anywhere() -> impl Iterator<Item = IpAddr> {
        (0u64..).map(|n| ipv4(constant(1, n) as u32))
    }

    /// How much more than its fair part the fullest slot gets.
    fn spread(hash: &KernelHash, addresses: impl Iterator<Item = IpAddr>) -> f64 {
        let mut counts = vec![0u32; hash.slots().len()];
        addresses.for_each(|address| counts[hash.owner(address).unwrap().index()] += 1);
        let fair = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
        f64::from(*counts.iter().max().unwrap()) / fair
    }

    /// The contract between versions: other numbers here move every client of every running cluster.
    #[test]
    fn golden_owners() {
        let owners = |workers: u16, seed: u64| {
            let hash = KernelHash::of_all(seed, workers);
            ["127.0.0.1", "192.0.2.77", "203.0.113.200", "::1", "2001:db8:1:2::5", "fd00:0:0:9::"]
                .map(|address| hash.owner(address.parse().unwrap()).unwrap().get())
        };
        assert_eq!(owners(4, SEED), [2, 1, 0, 0, 0, 3]);
        assert_eq!(owners(256, SEED), [119, 249, 157, 232, 140, 249]);
        assert_eq!(owners(256, 0), [93, 204, 150, 217, 244, 62]);
    }

    #[test]
    fn golden_order() {
        let order: Vec<_> = hash(8).order("198.51.100.1".parse().unwrap()).iter().map(|slot| slot.get()).collect();
        assert_eq!(order, [1, 2, 3, 7, 0, 4, 6, 5]);
    }

    #[test]
    fn golden_constants() {
        assert_eq!(KeyMix::new(SEED), KeyMix { word: 0x0ccd_3ff2, ipv6: 0x4906_2ed5 });
        let mixes = [0, 1, 255].map(|slot| SlotMix::new(SEED, WorkerId::new(slot)));
        let expected = [(0x51ae_dd7d, 0x19cf_65e1), (0x5a8f_8a59, 0x53ec_a3e5), (0x7660_ae56, 0x031e_020b)];
        assert_eq!(mixes.map(|mix| (mix.mask, mix.multiplier)), expected);
    }

    #[test]
    fn no_slots_no_owner() {
        let empty = KernelHash::new(SEED, &[]);
        assert_eq!(empty.owner(ipv4(1)), None);
        assert_eq!(empty.order(ipv4(1)), []);
    }

    #[test]
    fn remembers_what_it_was_made_of() {
        let hash = KernelHash::new(7, &[3, 1].map(WorkerId::new));
        assert_eq!(hash.slots().collect::<Vec<_>>(), [3, 1].map(WorkerId::new));
    }

    #[test]
    #[should_panic(expected = "slot 256 is out of range")]
    fn a_slot_that_does_not_fit_its_bits_is_refused() {
        KernelHash::new(SEED, &[WorkerId::new(256)]);
    }

    #[test]
    fn mapped_addresses_are_ipv4_addresses() {
        let hash = hash(256);
        for address in ["192.0.2.1", "10.0.0.255", "255.255.255.255", "0.0.0.0"] {
            let mapped: IpAddr = format!("::ffff:{address}").parse().unwrap();
            assert_eq!(hash.owner(mapped), hash.owner(address.parse().unwrap()));
        }
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let hash = hash(256);
        let owner = |text: &str| hash.owner(text.parse().unwrap());
        assert_eq!(owner("2001:db8:1:2::1"), owner("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(owner("2001:db8:1:2::1"), owner("2001:db8:1:3::1"));
        assert_ne!(owner("2001:db8:1:2::1"), owner("2001:db9:1:2::1"));
    }

    #[test]
    fn another_seed_places_differently() {
        let (one, other) = (hash(4), KernelHash::of_all(SEED + 1, 4));
        let same = anywhere().take(4000).filter(|&address| one.owner(address) == other.owner(address)).count();
        assert!((900..1100).contains(&same), "{same} of 4000 kept their slot, expected about a quarter");
    }

    #[test]
    fn a_slot_left_out_moves_only_its_own_addresses() {
        let all = hash(4);
        let rest = KernelHash::new(SEED, &[0, 1, 3].map(WorkerId::new));
        for address in anywhere().take(4000) {
            let before = all.owner(address).unwrap();
            if before == WorkerId::new(2) {
                assert_eq!(rest.owner(address), Some(all.order(address)[1]));
            } else {
                assert_eq!(rest.owner(address), Some(before));
            }
        }
    }

    #[test]
    fn a_slot_that_joins_takes_one_in_nine() {
        let (eight, nine) = (hash(8), hash(9));
        let moved: Vec<_> = anywhere().take(9000).filter(|&a| eight.owner(a) != nine.owner(a)).collect();
        assert!(moved.iter().all(|&address| nine.owner(address) == Some(WorkerId::new(8))));
        assert!((900..1100).contains(&moved.len()), "{} of 9000 moved, expected about 1000", moved.len());
    }

    #[test]
    fn addresses_spread_evenly() {
        let hash = hash(4);
        let near = |name: &str, spread: f64, bound: f64| assert!(spread <= bound, "{name}: {spread:.3} of fair");
        near("anywhere", spread(&hash, anywhere().take(5000)), 1.10);
        near("a /24", spread(&hash, (0..256).map(|n| ipv4(0xc000_0200 + n))), 1.30);
        near("a /20", spread(&hash, (0..4096).map(|n| ipv4(0x0a01_0000 + n))), 1.10);
        near("a /16", spread(&hash, (0..65536).map(|n| ipv4(0xc0a8_0000 + n))), 1.05);
        near("one of each /24", spread(&hash, (0..5000).map(|n| ipv4(0x0a00_0001 + (n << 8)))), 1.10);
        let networks = |shift: u32| {
            (0..5000u128).map(move |n| IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8 << 96) + (n << shift) + 1)))
        };
        near("IPv6 /64s", spread(&hash, networks(64)), 1.10);
        near("IPv6 /48s", spread(&hash, networks(80)), 1.10);
    }

    #[test]
    fn the_seed_does_not_decide_how_even_the_spread_is() {
        for seed in 0..50 {
            let hash = KernelHash::of_all(seed, 8);
            let spread = spread(&hash, (0..16384).map(|n| ipv4(0x0a00_0000 + n)));
            assert!(spread <= 1.10, "seed {seed}: {spread:.3}");
        }
    }

    proptest! {
        #[test]
        fn order_is_the_owner_and_then_the_owner_without_it(seed: u64, bits: u32, workers in 1u16..=16) {
            let address = ipv4(bits);
            let mut left: Vec<_> = WorkerId::all(workers).collect();
            for slot in KernelHash::new(seed, &left).order(address) {
                prop_assert_eq!(KernelHash::new(seed, &left).owner(address), Some(slot));
                left.retain(|&other| other != slot);
            }
            prop_assert!(left.is_empty());
        }

        #[test]
        fn the_order_of_the_slots_given_does_not_matter(seed: u64, bits: u32, workers in 1u16..=256) {
            let forward = KernelHash::of_all(seed, workers);
            let mut slots: Vec<_> = WorkerId::all(workers).collect();
            slots.reverse();
            prop_assert_eq!(forward.owner(ipv4(bits)), KernelHash::new(seed, &slots).owner(ipv4(bits)));
        }
    }
}
