//! The PROXY protocol: as the specification has it, however it comes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::BytesMut;

use super::open;
use crate::affinity::proxy_protocol::{MAX_LENGTH, ProxyProtocol, read};
use crate::dispatch::handoff::preamble::{self, Preamble};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

pub(super) fn check(input: &[u8]) {
    let (mut numbers, text) = open(input);
    let whole = read(text);
    assert_eq!(whole, naive(text));
    if let ProxyProtocol::Done { consumed, .. } = whole {
        assert!(consumed <= text.len().min(MAX_LENGTH));
        assert_eq!(read(&text[..consumed]), whole);
        assert_eq!(read(&text[..consumed - 1]), ProxyProtocol::Incomplete);
    }
    let mut preamble = Preamble::default();
    let mut left = text;
    while !left.is_empty() {
        let (piece, rest) = left.split_at(numbers.size().min(preamble.room()).min(left.len()));
        left = rest;
        let seen = text.len() - left.len();
        match (preamble.received(piece), read(&text[..seen])) {
            (preamble::Outcome::Incomplete, ProxyProtocol::Incomplete) => {}
            (preamble::Outcome::Invalid, ProxyProtocol::Invalid) => {
                assert_eq!(whole, ProxyProtocol::Invalid);
                return;
            }
            (preamble::Outcome::Done { source, rest }, done) => {
                assert_eq!(done, whole);
                let consumed = seen - rest.len();
                assert_eq!(done, ProxyProtocol::Done { source, consumed });
                assert_eq!(rest, BytesMut::from(&text[consumed..seen]));
                return;
            }
            (outcome, read) => panic!("{outcome:?} where it reads {read:?}"),
        }
    }
    assert_eq!(whole, ProxyProtocol::Incomplete);
}

fn naive(text: &[u8]) -> ProxyProtocol {
    let is_text = text.starts_with(b"PROXY ");
    if is_text || b"PROXY ".starts_with(text) {
        let bounded = &text[..text.len().min(107)];
        return match bounded.iter().position(|byte| *byte == b'\n') {
            Some(at) => done(line(&text[..at]), at + 1),
            None if bounded.len() == 107 => ProxyProtocol::Invalid,
            None => ProxyProtocol::Incomplete,
        };
    }
    if !text.starts_with(SIGNATURE) && !SIGNATURE.starts_with(text) {
        return ProxyProtocol::Invalid;
    }
    let &[command, family, high, low] = text.get(12..16).unwrap_or_default() else {
        return ProxyProtocol::Incomplete;
    };
    let length = usize::from(high) << 8 | usize::from(low);
    match text.get(16..16 + length) {
        _ if 16 + length > MAX_LENGTH => ProxyProtocol::Invalid,
        Some(block) => done(addresses(command, family, block), 16 + length),
        None => ProxyProtocol::Incomplete,
    }
}

fn done(source: Option<Option<SocketAddr>>, consumed: usize) -> ProxyProtocol {
    match source {
        Some(source) => ProxyProtocol::Done { source, consumed },
        None => ProxyProtocol::Invalid,
    }
}

/// Version 1; none if the line is wrong.
fn line(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = line.strip_suffix(b"\r")?;
    if line.starts_with(b"PROXY UNKNOWN") {
        return (!line.contains(&b'\r')).then_some(None);
    }
    let text = std::str::from_utf8(line).ok()?;
    let [_, family, source, destination, port, other_port] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let address = match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            IpAddr::V4(source.parse().ok()?)
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            IpAddr::V6(source.parse().ok()?)
        }
        _ => return None,
    };
    let number = |text: &str| {
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        is_digits.then(|| text.parse::<u16>().ok())?
    };
    number(other_port)?;
    Some(Some(SocketAddr::new(address.to_canonical(), number(port)?)))
}

/// Version 2; none if the block is wrong.
fn addresses(command: u8, family: u8, block: &[u8]) -> Option<Option<SocketAddr>> {
    match (command, family) {
        (0x20, _) => return Some(None),
        (0x21, _) => {}
        _ => return None,
    }
    let number = |at: usize| Some(u16::from_be_bytes([*block.get(at)?, *block.get(at + 1)?]));
    let (address, at): (IpAddr, usize) = match family {
        0x00 => return Some(None),
        0x11 => (block.first_chunk::<4>().copied()?.into(), 8),
        0x21 => (block.first_chunk::<16>().copied()?.into(), 32),
        0x31 | 0x32 => return (block.len() >= 216).then_some(None),
        _ => return None,
    };
    number(at + 2)?;
    Some(Some(SocketAddr::new(address.to_canonical(), number(at)?)))
}
