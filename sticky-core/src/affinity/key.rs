//! Keys: what is left of a client's value once it is hashed.
//!
//! ```text
//! hash_seed ─► KeyHasher: value from cookie, header, query, path or code ─► AffinityKey
//! ```
//!
//! All texts share one domain: a session id is the same session whether it comes in a cookie or, where a client cannot
//! set one, in the query; that is what `cookie:session|query:session` is for, and code that asks for the owner of an id
//! need not say where the id will be found. The price is that a room `7` and a user `7` share a worker, which harms
//! neither.
//!
//! Client addresses are not hashed here: they are placed by the hash that the kernel has too, so that a client who comes
//! by its address alone is where the kernel put it.

use std::fmt;

use siphasher::sip::SipHasher13;

/// A client's value, hashed with the cluster's secret: equal values are equal keys in every process of the cluster.
///
/// Nobody outside can compute two values with one key, or a value whose key belongs to a chosen worker.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AffinityKey(u64);

impl AffinityKey {
    /// The key with these bits, from wherever [`AffinityKey::bits`] went.
    #[cfg(any(test, fuzzing))]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// All that a key is.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for AffinityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AffinityKey({:016x})", self.0)
    }
}

/// Turns values into keys: SipHash-1-3 with a 128-bit secret that comes from the cluster's seed.
#[derive(Clone)]
pub(crate) struct KeyHasher {
    texts: SipHasher13,
}

impl KeyHasher {
    /// The hasher of the cluster with this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { texts: keyed(seed, b"sticky text") }
    }

    /// The key of a session id, a user, a room: of whatever is not an address.
    pub(crate) fn of_text(&self, value: impl AsRef<[u8]>) -> AffinityKey {
        AffinityKey(self.texts.hash(value.as_ref()))
    }
}

impl fmt::Debug for KeyHasher {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyHasher").finish_non_exhaustive()
    }
}

/// The hasher of one domain. Its secret is itself a hash, so whoever learns it does not learn the seed, from which the
/// kernel's placement comes too.
fn keyed(seed: u64, domain: &[u8]) -> SipHasher13 {
    let half = |number| SipHasher13::new_with_keys(seed, number).hash(domain);
    SipHasher13::new_with_keys(half(0), half(1))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const SEED: u64 = 0x0123_4567_89ab_cdef;

    /// The contract between versions: other numbers here move every session of every running cluster.
    /// Computed apart from this program, from the definition of SipHash.
    #[test]
    fn golden_keys() {
        let texts = |seed| ["", "a", "0123456789abcdef"].map(|text| KeyHasher::new(seed).of_text(text).bits());
        assert_eq!(texts(SEED), [0x7366_0e9a_d888_1b4e, 0x4e74_0279_e7c0_9e42, 0xa1cd_6195_c3d1_d783]);
        assert_eq!(texts(0), [0x3660_be42_8797_eb18, 0xd865_4d9b_ccb5_3171, 0xb3f6_a075_6138_75d3]);
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", KeyHasher::new(SEED)), "KeyHasher { .. }");
        assert_eq!(format!("{:?}", AffinityKey::from_bits(0x1f)), "AffinityKey(000000000000001f)");
    }

    #[test]
    fn each_bit_of_the_seed_counts() {
        let seeds = (0..64).map(|bit| 1 << bit).chain([0]);
        let keys: HashSet<_> = seeds.map(|seed| KeyHasher::new(seed).of_text("a")).collect();
        assert_eq!(keys.len(), 65);
    }

    proptest! {
        #[test]
        fn other_values_are_other_keys(seed: u64, one: Vec<u8>, other: Vec<u8>) {
            let hasher = KeyHasher::new(seed);
            prop_assert_eq!(hasher.of_text(&one) == hasher.of_text(&other), one == other);
            let key = hasher.of_text(&one);
            prop_assert_eq!(AffinityKey::from_bits(key.bits()), key);
        }
    }
}
