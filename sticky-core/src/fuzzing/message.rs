//! What travels with a descriptor: exactly what can be written can be read.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use bytes::BytesMut;

use super::{Numbers, open};
use crate::dispatch::handoff::exchange::{Exchange, Moving, Standing};
use crate::dispatch::handoff::head::MAX_HEAD;
use crate::dispatch::handoff::message::{HEADER, Message};

pub(super) fn check(input: &[u8]) {
    let (mut numbers, text) = open(input);
    write(numbers.clone(), text);
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

/// Whatever a message says is read as it was written.
fn write(mut numbers: Numbers<'_>, text: &[u8]) {
    let standing = [Standing::New, Standing::Used, Standing::Judged][numbers.choose(3)];
    let (address, port) =
        (u128::from(numbers.next()) << 100 | u128::from(numbers.next()), u16::from(numbers.next()) * 257);
    let peer = match numbers.choose(3) {
        0 => None,
        1 => Some(SocketAddr::new(Ipv4Addr::from(address as u32).into(), port)),
        _ => Some(SocketAddrV6::new(Ipv6Addr::from(address), port, 0, u32::from(numbers.next())).into()),
    };
    let moving = Moving { read_ahead: BytesMut::from(text), standing };
    let message = Message { moving, hops: numbers.next(), peer, is_unix: peer.is_none() };
    let bytes = [&message.header()[..], text].concat();
    assert_eq!(Message::read(&bytes), Ok(message));
}
