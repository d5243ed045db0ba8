//! The sticky cookie: a ticket that says which slot a client belongs to, and that only we can have written.
//!
//! ```text
//! value = base64url( version 1 │ slot 2 │ issued at 4 │ MAC 16 )                              31 characters
//!                    └────────── payload ───────────┘
//! MAC   = the first 16 bytes of HMAC-SHA-256(secret, "sticky cookie v1" + the cookie's name + payload)
//! ```
//!
//! The MAC says that the slot is ours to name; nothing else about a ticket is believed. There is exactly one way to
//! write a ticket: padding, another alphabet or stray bits in the last character make it invalid.
//!
//! `header` finds tickets in requests and writes them into responses, `caching` says which responses may carry one.
//! Nothing here does I/O or reads a clock: the time of day comes in as an argument. It is that of the calendar (seconds
//! since 1970), since tickets outlive processes and machines.

mod caching;
mod header;

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

pub(crate) use self::caching::is_publicly_cacheable;
pub(crate) use self::header::{CookieAttributes, strip, values};
use crate::id::WorkerId;

/// Keeps our MACs apart from any other that the same secret is used for.
const DOMAIN: &[u8] = b"sticky cookie v1";
const VERSION: u8 = 1;

/// Version, slot (big endian) and the second of issue (big endian).
const PAYLOAD_LEN: usize = 7;
/// Half of the hash. Forging one takes 2¹²⁸ attempts, each of them a request.
const MAC_LEN: usize = 16;
const TICKET_LEN: usize = PAYLOAD_LEN + MAC_LEN;

/// How far in the future a ticket may be from: the clocks of two machines that share a secret differ a little.
const CLOCK_SKEW_SECONDS: i64 = 5 * 60;

/// How many cookies of our name in one request are looked at. Browsers send one for each path and domain it was set
/// for; a request full of them must not buy a thousand MACs.
const MOST_READ: usize = 8;

/// Issues tickets and reads them.
#[derive(Clone)]
pub(crate) struct Tickets {
    current: Signer,
    previous: Option<Signer>,
    /// In seconds.
    lifetime: Option<u64>,
}

/// What a client's ticket is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It is one of ours.
    Valid {
        /// Where the client belongs.
        slot: WorkerId,
        /// It should be replaced by a new one for the same slot, before it is worth nothing.
        renew: bool,
    },
    /// It is not ours, or not any more. To be replaced, never to be believed.
    Invalid,
}

impl Tickets {
    /// Tickets of the cookie `name`, signed with `secret`; those signed with `previous` are good too.
    ///
    /// A ticket is good for `lifetime`, in whole seconds and at least one; without it for as long as its secret.
    pub(crate) fn new(secret: &[u8], previous: Option<&[u8]>, name: &str, lifetime: Option<Duration>) -> Self {
        Self {
            current: Signer::new(secret, name),
            previous: previous.map(|secret| Signer::new(secret, name)),
            lifetime: lifetime.map(whole_seconds),
        }
    }

    /// The value of a new ticket for this slot.
    pub(crate) fn issue(&self, slot: WorkerId, now_seconds: u64) -> String {
        let payload = Payload { slot, issued_at: now_seconds as u32 }.encode();
        let mut ticket = [0; TICKET_LEN];
        ticket[..PAYLOAD_LEN].copy_from_slice(&payload);
        ticket[PAYLOAD_LEN..].copy_from_slice(&self.current.sign(payload));
        URL_SAFE_NO_PAD.encode(ticket)
    }

    /// What a cookie's value is worth now, in a cluster with this many slots.
    #[cfg(test)]
    pub(crate) fn read(&self, value: &[u8], now_seconds: u64, workers: u16) -> Reading {
        self.check(value, now_seconds, workers).unwrap_or(Reading::Invalid)
    }

    /// What the first valid one of several values is worth; only the first eight are looked at.
    pub(crate) fn read_first<'a>(
        &self,
        values: impl IntoIterator<Item = &'a [u8]>,
        now_seconds: u64,
        workers: u16,
    ) -> Reading {
        let readings = values.into_iter().take(MOST_READ).filter_map(|value| self.check(value, now_seconds, workers));
        readings.into_iter().next().unwrap_or(Reading::Invalid)
    }

    fn check(&self, value: &[u8], now_seconds: u64, workers: u16) -> Option<Reading> {
        let (payload, mac) = decode(value)?;
        let is_current = self.current.has_signed(payload, mac);
        let was_signed = |previous: &Signer| previous.has_signed(payload, mac);
        if !is_current && !self.previous.as_ref().is_some_and(was_signed) {
            return None;
        }
        let Payload { slot, issued_at } = Payload::decode(payload)?;
        let age = age(issued_at, now_seconds)?;
        if slot.get() >= workers || self.lifetime.is_some_and(|lifetime| age >= lifetime) {
            return None;
        }
        let is_old = self.lifetime.is_some_and(|lifetime| age > lifetime / 2);
        Some(Reading::Valid { slot, renew: is_old || !is_current })
    }
}

impl fmt::Debug for Tickets {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// What a ticket says.
#[derive(Clone, Copy)]
struct Payload {
    slot: WorkerId,
    /// The low 32 bits of the second: they come round after 136 years.
    issued_at: u32,
}

impl Payload {
    fn encode(self) -> [u8; PAYLOAD_LEN] {
        let [slot_high, slot_low] = self.slot.get().to_be_bytes();
        let [a, b, c, d] = self.issued_at.to_be_bytes();
        [VERSION, slot_high, slot_low, a, b, c, d]
    }

    /// `None` if it is of another version.
    fn decode(bytes: [u8; PAYLOAD_LEN]) -> Option<Self> {
        let [VERSION, slot_high, slot_low, a, b, c, d] = bytes else { return None };
        let slot = WorkerId::new(u16::from_be_bytes([slot_high, slot_low]));
        Some(Self { slot, issued_at: u32::from_be_bytes([a, b, c, d]) })
    }
}

/// One secret, with what every MAC begins with already hashed.
#[derive(Clone)]
struct Signer {
    begun: Hmac<Sha256>,
}

impl Signer {
    fn new(secret: &[u8], name: &str) -> Self {
        let begun = Hmac::new_from_slice(secret).expect("HMAC takes keys of any length");
        // The domain and the payload have fixed lengths, so no other name and payload make the same input.
        Self { begun: begun.chain_update(DOMAIN).chain_update(name) }
    }

    fn sign(&self, payload: [u8; PAYLOAD_LEN]) -> [u8; MAC_LEN] {
        let mut mac = [0; MAC_LEN];
        let whole = self.begun.clone().chain_update(payload).finalize().into_bytes();
        mac.copy_from_slice(&whole[..MAC_LEN]);
        mac
    }

    /// Takes the same time whatever the MAC is.
    fn has_signed(&self, payload: [u8; PAYLOAD_LEN], mac: [u8; MAC_LEN]) -> bool {
        self.begun.clone().chain_update(payload).verify_truncated_left(&mac).is_ok()
    }
}

/// A lifetime as tickets and `Max-Age` count it; a `Max-Age` of 0 would delete the cookie.
fn whole_seconds(lifetime: Duration) -> u64 {
    lifetime.as_secs().max(1)
}

/// Payload and MAC, if the value has the length and the only form it can have.
fn decode(value: &[u8]) -> Option<([u8; PAYLOAD_LEN], [u8; MAC_LEN])> {
    let mut ticket = [0; TICKET_LEN];
    if URL_SAFE_NO_PAD.decode_slice(value, &mut ticket) != Ok(TICKET_LEN) {
        return None;
    }
    let (payload, mac) = ticket.split_at(PAYLOAD_LEN);
    Some((payload.try_into().ok()?, mac.try_into().ok()?))
}

/// How many seconds ago that was. `None` if it is too far in the future, or more than 68 years ago, which is the same.
fn age(issued_at: u32, now_seconds: u64) -> Option<u64> {
    let age = i64::from((now_seconds as u32).wrapping_sub(issued_at) as i32);
    (age >= -CLOCK_SKEW_SECONDS).then_some(age.max(0) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT_LEN: usize = 31;
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NOW: u64 = 1_700_000_000;
    const HOUR: Option<Duration> = Some(Duration::from_secs(3600));

    fn tickets(lifetime: Option<Duration>) -> Tickets {
        Tickets::new(SECRET, None, "sticky", lifetime)
    }

    fn slot(number: u16) -> WorkerId {
        WorkerId::new(number)
    }

    fn valid(number: u16, renew: bool) -> Reading {
        Reading::Valid { slot: slot(number), renew }
    }

    /// Computed apart from this program, with Python's `hmac`, `struct` and `base64`. Other values here make every
    /// ticket in every browser invalid.
    #[test]
    fn golden_values() {
        assert_eq!(tickets(None).issue(slot(3), NOW), "AQADZVPxAPWx8ognHfmwKiDkLYIb9ug");
        let without_secret = Tickets::new(b"", None, "__Host-route", None);
        assert_eq!(without_secret.issue(slot(255), 0xffff_ffff), "AQD______4jWtvKn6GWsXh8ganfdAsw");
    }

    #[test]
    fn a_ticket_is_good_for_half_its_lifetime_and_then_to_be_renewed() {
        let tickets = tickets(HOUR);
        let value = tickets.issue(slot(2), NOW);
        let read = |now| tickets.read(value.as_bytes(), now, 4);
        for (now, reading) in [
            (NOW, valid(2, false)),
            (NOW + 1800, valid(2, false)),
            (NOW + 1801, valid(2, true)),
            (NOW + 3599, valid(2, true)),
            (NOW + 3600, Reading::Invalid),
            (NOW + (1 << 31), Reading::Invalid),
            (NOW - 300, valid(2, false)),
            (NOW - 301, Reading::Invalid),
            (0, Reading::Invalid),
        ] {
            assert_eq!(read(now), reading, "{now}");
        }
    }

    #[test]
    fn without_lifetime_a_ticket_does_not_age() {
        let tickets = tickets(None);
        let value = tickets.issue(slot(0), NOW);
        assert_eq!(tickets.read(value.as_bytes(), NOW + 60 * 365 * 86_400, 1), valid(0, false));
        assert_eq!(tickets.read(value.as_bytes(), NOW - 301, 1), Reading::Invalid);
    }

    #[test]
    fn lifetimes_are_whole_seconds() {
        let tickets = tickets(Some(Duration::from_millis(10)));
        let value = tickets.issue(slot(0), NOW);
        assert_eq!(tickets.read(value.as_bytes(), NOW, 1), valid(0, false));
        assert_eq!(tickets.read(value.as_bytes(), NOW + 1, 1), Reading::Invalid);
    }

    /// In the year 2106 the seconds come round.
    #[test]
    fn the_seconds_come_round() {
        let tickets = tickets(HOUR);
        let value = tickets.issue(slot(1), u64::from(u32::MAX) - 5);
        assert_eq!(tickets.read(value.as_bytes(), u64::from(u32::MAX) + 600, 2), valid(1, false));
        assert_eq!(tickets.read(value.as_bytes(), u64::from(u32::MAX) + 3600, 2), Reading::Invalid);
    }

    #[test]
    fn a_slot_that_is_no_more_is_invalid() {
        let tickets = tickets(None);
        let value = tickets.issue(slot(3), NOW);
        assert_eq!(tickets.read(value.as_bytes(), NOW, 4), valid(3, false));
        assert_eq!(tickets.read(value.as_bytes(), NOW, 3), Reading::Invalid);
        assert_eq!(tickets.read(value.as_bytes(), NOW, 0), Reading::Invalid);
    }

    #[test]
    fn the_previous_secret_reads_and_does_not_sign() {
        let before = tickets(HOUR);
        let value = before.issue(slot(1), NOW);
        let after = Tickets::new(b"another", Some(SECRET), "sticky", HOUR);
        assert_eq!(after.read(value.as_bytes(), NOW, 2), valid(1, true));
        assert_eq!(after.read(value.as_bytes(), NOW + 3600, 2), Reading::Invalid);
        let renewed = after.issue(slot(1), NOW);
        assert_eq!(after.read(renewed.as_bytes(), NOW, 2), valid(1, false));
        assert_eq!(before.read(renewed.as_bytes(), NOW, 2), Reading::Invalid);
        let later = Tickets::new(b"a third", Some(b"another"), "sticky", HOUR);
        assert_eq!(later.read(value.as_bytes(), NOW, 2), Reading::Invalid);
    }

    #[test]
    fn another_cookies_ticket_is_invalid() {
        let value = Tickets::new(SECRET, None, "other", None).issue(slot(0), NOW);
        assert_eq!(tickets(None).read(value.as_bytes(), NOW, 1), Reading::Invalid);
    }

    /// Signed as ours, but not what we write.
    #[test]
    fn another_version_is_invalid() {
        let signer = Signer::new(SECRET, "sticky");
        let read = |version| {
            let mut payload = Payload { slot: slot(0), issued_at: NOW as u32 }.encode();
            payload[0] = version;
            let value = URL_SAFE_NO_PAD.encode([&payload[..], &signer.sign(payload)].concat());
            tickets(None).read(value.as_bytes(), NOW, 1)
        };
        assert_eq!(read(1), valid(0, false));
        assert_eq!(read(0), Reading::Invalid);
        assert_eq!(read(2), Reading::Invalid);
    }

    #[test]
    fn there_is_one_way_to_write_a_ticket() {
        let tickets = tickets(None);
        let value = tickets.issue(slot(255), u64::from(u32::MAX));
        let read = |value: &str| tickets.read(value.as_bytes(), u64::from(u32::MAX), 256);
        assert_eq!(value.len(), TEXT_LEN);
        assert_eq!(read(&value), valid(255, false));
        for other in [
            String::new(),
            format!("{value}="),
            format!("{value}A"),
            format!(" {value}"),
            format!("\"{value}\""),
            value[1..].to_owned(),
            value[..TEXT_LEN - 1].to_owned(),
            value.replace('_', "/"),
            "A".repeat(TEXT_LEN),
            value.repeat(1000),
        ] {
            assert_eq!(read(&other), Reading::Invalid, "{other}");
        }
    }

    /// The last character has two bits to spare, which a lenient decoder would ignore.
    #[test]
    fn no_other_byte_is_valid_anywhere() {
        let tickets = tickets(None);
        let value = tickets.issue(slot(7), NOW).into_bytes();
        for position in 0..value.len() {
            for byte in (0..=u8::MAX).filter(|&byte| byte != value[position]) {
                let mut other = value.clone();
                other[position] = byte;
                assert_eq!(tickets.read(&other, NOW, u16::MAX), Reading::Invalid, "{byte} at {position}");
            }
        }
    }

    #[test]
    fn the_first_valid_one_of_several_counts() {
        let tickets = tickets(None);
        let [one, two] = [1, 2].map(|number| tickets.issue(slot(number), NOW));
        let read = |values: &[&str]| tickets.read_first(values.iter().map(|value| value.as_bytes()), NOW, 4);
        assert_eq!(read(&[]), Reading::Invalid);
        assert_eq!(read(&["x", ""]), Reading::Invalid);
        assert_eq!(read(&["x", &one, &two]), valid(1, false));
        assert_eq!(read(&[&two, &one]), valid(2, false));
        assert_eq!(read(&["x", "x", "x", "x", "x", "x", "x", &one]), valid(1, false));
        assert_eq!(read(&["x", "x", "x", "x", "x", "x", "x", "x", &one]), Reading::Invalid);
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", tickets(HOUR)), "Tickets { lifetime: Some(3600), .. }");
    }

    proptest! {
        #[test]
        fn what_is_issued_is_read(
            secret: Vec<u8>,
            name in "[a-zA-Z_-]{1,20}",
            number in 0u16..256,
            now in 0..u64::from(u32::MAX) * 2,
            later in 0u64..7200,
        ) {
            let tickets = Tickets::new(&secret, None, &name, Some(Duration::from_secs(7200)));
            let value = tickets.issue(slot(number), now);
            let reading = tickets.read(value.as_bytes(), now + later, 256);
            prop_assert_eq!(reading, valid(number, later > 3600));
        }

        #[test]
        fn nobody_elses_ticket_is_valid(secret: Vec<u8>, other: Vec<u8>, name in "[a-z]{1,3}", number in 0u16..4) {
            let value = Tickets::new(&other, None, &name, None).issue(slot(number), NOW);
            // HMAC fills short keys up with zeros.
            let is_same = |secret: &[u8], other: &[u8]| {
                let end = |key: &[u8]| key.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                secret[..end(secret)] == other[..end(other)]
            };
            prop_assume!(!is_same(&secret, &other));
            let reading = Tickets::new(&secret, None, &name, None).read(value.as_bytes(), NOW, 4);
            prop_assert_eq!(reading, Reading::Invalid);
        }

        #[test]
        fn whatever_a_client_writes_is_invalid(value: Vec<u8>, text in "[A-Za-z0-9_-]{31}", now: u64) {
            let tickets = tickets(None);
            prop_assert_eq!(tickets.read(&value, now, u16::MAX), Reading::Invalid);
            prop_assert_eq!(tickets.read(text.as_bytes(), now, u16::MAX), Reading::Invalid);
        }
    }
}
