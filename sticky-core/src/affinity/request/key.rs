//! Keys: what is left of a client's value once it is hashed.
//!
//! ```text
//! hash_seed ─► KeyHasher ┬ texts:     value from cookie, header, query, path or code ─┐
//!                        └ addresses: IPv4 address, or the IPv6 network               ┴─► AffinityKey
//! ```
//!
//! There are two domains, and a value of one never stands for a value of the other. All texts share one: a session id
//! is the same session whether it comes in a cookie or, where a client cannot set one, in the query; that is what
//! `cookie:session|query:session` is for, and code that asks for the owner of an id need not say where the id will be
//! found. The price is that a room `7` and a user `7` share a worker, which harms neither.

use std::fmt;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// A client's value, hashed with the cluster's secret: equal values are equal keys in every process of the cluster.
///
/// Nobody outside can compute two values with one key, or a value whose key belongs to a chosen worker.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AffinityKey(u64);

impl AffinityKey {
    /// The key with these bits, from wherever [`AffinityKey::bits`] went.
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

/// Turns values into keys: SipHash-1-3 with 128-bit secrets that come from the cluster's seed.
#[derive(Clone)]
pub(crate) struct KeyHasher {
    texts: SipHasher13,
    addresses: SipHasher13,
}

impl KeyHasher {
    /// The hasher of the cluster with this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { texts: keyed(seed, b"sticky text"), addresses: keyed(seed, b"sticky address") }
    }

    /// The key of a session id, a user, a room: of whatever is not an address.
    pub(crate) fn of_text(&self, value: impl AsRef<[u8]>) -> AffinityKey {
        AffinityKey(self.texts.hash(value.as_ref()))
    }

    /// The key of a client's address: the whole of an IPv4 address, the first 64 bits of an IPv6 one.
    ///
    /// An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub(crate) fn of_address(&self, address: IpAddr) -> AffinityKey {
        AffinityKey(match address.to_canonical() {
            IpAddr::V4(address) => self.addresses.hash(&address.octets()),
            // One customer usually has the whole network. SipHash covers the length, so this is never an IPv4 address.
            IpAddr::V6(address) => self.addresses.hash(&address.octets()[..8]),
        })
    }
}

impl fmt::Debug for KeyHasher {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyHasher").finish_non_exhaustive()
    }
}

/// The hasher of one domain. Its secrets are themselves hashes, so whoever learns one learns neither the seed nor the
/// other domain's.
fn keyed(seed: u64, domain: &[u8]) -> SipHasher13 {
    let half = |number| SipHasher13::new_with_keys(seed, number).hash(domain);
    SipHasher13::new_with_keys(half(0), half(1))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    const SEED: u64 = 0x0123_4567_89ab_cdef;

    fn address(text: &str) -> AffinityKey {
        KeyHasher::new(SEED).of_address(text.parse().unwrap())
    }

    /// The contract between versions: other numbers here move every session of every running cluster.
    /// Computed apart from this program, from the definition of SipHash.
    #[test]
    fn golden_keys() {
        let texts = |seed| ["", "a", "0123456789abcdef"].map(|text| KeyHasher::new(seed).of_text(text).bits());
        assert_eq!(texts(SEED), [0x7366_0e9a_d888_1b4e, 0x4e74_0279_e7c0_9e42, 0xa1cd_6195_c3d1_d783]);
        assert_eq!(texts(0), [0x3660_be42_8797_eb18, 0xd865_4d9b_ccb5_3171, 0xb3f6_a075_6138_75d3]);
        let addresses = ["192.0.2.1", "2001:db8:1:2::5"].map(|text| address(text).bits());
        assert_eq!(addresses, [0x85cc_bf8c_8fa4_b9f7, 0x313d_2f42_2d19_c68f]);
    }

    #[test]
    fn an_address_is_a_client() {
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db9:1:2::1"));
    }

    #[test]
    fn text_and_address_are_two_domains() {
        let hasher = KeyHasher::new(SEED);
        assert_ne!(hasher.of_text([192, 0, 2, 1]), address("192.0.2.1"));
        assert_ne!(hasher.of_text("192.0.2.1"), address("192.0.2.1"));
        let network = Ipv6Addr::from_bits(1 << 64).octets();
        assert_ne!(hasher.of_text(&network[..8]), hasher.of_address(Ipv6Addr::from(network).into()));
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
