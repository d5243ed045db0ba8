//! Tickets: only what was issued is valid, in the one form it was issued in, and for as long as it should be.

use std::time::Duration;

use super::open;
use crate::affinity::ticket::{Reading, Tickets};
use crate::id::WorkerId;

const SECRETS: [&[u8]; 3] = [b"0123456789abcdef0123456789abcdef", b"the one before", b"nobody's"];
const NOW: u64 = 1_700_000_000;
const WORKERS: u16 = 8;

pub(super) fn check(input: &[u8]) {
    let (mut numbers, text) = open(input);
    let lifetime = [None, Some(1), Some(600), Some(86_400)][numbers.choose(4)];
    let [current, previous, other] = SECRETS;
    let with = |secret, previous| Tickets::new(secret, previous, "sticky", lifetime.map(Duration::from_secs));
    let tickets = with(current, Some(previous));
    let signer = numbers.choose(3);
    let issuer = with([current, previous, other][signer], None);
    let slot = u16::from(numbers.next());
    let value = issuer.issue(WorkerId::new(slot), NOW);

    let steps = [0, 1, 300, 301, 599, 600, 86_399, 1 << 31];
    let later = steps[numbers.choose(8)] + u64::from(numbers.next());
    let age = if numbers.choose(2) == 0 { later as i64 } else { -(later as i64) };
    let now = NOW.saturating_add_signed(age);
    let expected = if signer == 2 { Reading::Invalid } else { reading(slot, age, lifetime, signer == 1) };
    assert_eq!(tickets.read_first([value.as_bytes()], now, WORKERS), expected);
    let reading = |value: &[u8]| tickets.read_first([value], NOW, WORKERS);

    // The text by itself, and as changes to a ticket.
    let good = with(current, None).issue(WorkerId::new(3), NOW);
    assert_eq!(reading(text) == Reading::Invalid, text != good.as_bytes());
    let mut changed = good.clone().into_bytes();
    for change in text.chunks_exact(2) {
        let at = usize::from(change[0]) % changed.len();
        changed[at] ^= change[1];
    }
    let length = good.len() + 3 - numbers.choose(7);
    let cut: Vec<u8> = changed.iter().chain(text).copied().take(length).collect();
    for changed in [changed, cut] {
        assert_eq!(reading(&changed) == Reading::Invalid, changed != good.as_bytes(), "{changed:?}");
        let values = [text, &changed, good.as_bytes()];
        assert_eq!(tickets.read_first(values, NOW, WORKERS), reading(good.as_bytes()));
    }
    let many = std::iter::repeat_n(&b"x"[..], 8).chain([good.as_bytes()]);
    assert_eq!(tickets.read_first(many, NOW, WORKERS), Reading::Invalid, "the ninth is not looked at");
}

/// What a ticket of this age is worth.
fn reading(slot: u16, age: i64, lifetime: Option<u64>, is_previous: bool) -> Reading {
    let is_far = !(-300..1 << 31).contains(&age);
    let is_over = |lifetime: u64| age >= lifetime as i64;
    if slot >= WORKERS || is_far || lifetime.is_some_and(is_over) {
        return Reading::Invalid;
    }
    let is_old = lifetime.is_some_and(|lifetime| age > (lifetime / 2) as i64);
    Reading::Valid { slot: WorkerId::new(slot), renew: is_old || is_previous }
}
