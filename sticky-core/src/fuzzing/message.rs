//! What travels with a descriptor: exactly what can be written can be read.

use super::open;
use crate::dispatch::handoff::exchange::{Exchange, Moving};
use crate::dispatch::handoff::head::MAX_HEAD;
use crate::dispatch::handoff::message::{HEADER, Message};

pub(super) fn check(input: &[u8]) {
    let (mut numbers, text) = open(input);
    let Ok(message) = Message::read(text) else { return };
    let written = [&message.header()[..], &message.moving.read_ahead].concat();
    assert_eq!(written, text, "{message:?}");
    assert_eq!(Message::read(&written), Ok(message));
    for len in 0..HEADER {
        assert!(Message::read(&text[..len]).is_err());
    }
    // Another version may follow this one in the same cluster, and another header.
    let mut other = text.to_vec();
    other[0] = other[0].wrapping_add(numbers.next().max(1));
    assert!(Message::read(&other).is_err());
    let message = Message::read(text).expect("as before");
    if message.moving.read_ahead.len() <= usize::from(MAX_HEAD) {
        let Moving { read_ahead, standing } = message.moving;
        Exchange::resume(MAX_HEAD, Moving { read_ahead, standing }).read();
    }
}
