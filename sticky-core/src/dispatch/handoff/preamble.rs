//! What the PROXY protocol puts in front of a connection, while it arrives.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};

use crate::affinity::proxy_protocol::{self, ProxyProtocol};

/// The bytes that have come so far.
#[derive(Debug, Default)]
pub(crate) struct Preamble(BytesMut);

/// What the bytes that have come are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A part of a header.
    Incomplete,
    /// A whole one: whom it speaks for, if anybody, and what has come behind it.
    Done { source: Option<SocketAddr>, rest: BytesMut },
    /// None that is acceptable, or the client's end.
    Invalid,
}

impl Preamble {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much more to read.
    pub(crate) fn room(&self) -> usize {
        proxy_protocol::MAX_LENGTH.saturating_sub(self.0.len()).max(1)
    }

    /// Takes what has been read; nothing is the client's end.
    pub(crate) fn received(&mut self, bytes: &[u8]) -> Outcome {
        if bytes.is_empty() {
            return Outcome::Invalid;
        }
        self.0.extend_from_slice(bytes);
        match proxy_protocol::read(&self.0) {
            ProxyProtocol::Incomplete => Outcome::Incomplete,
            ProxyProtocol::Invalid => Outcome::Invalid,
            ProxyProtocol::Done { source, consumed } => {
                let mut rest = std::mem::take(&mut self.0);
                rest.advance(consumed);
                Outcome::Done { source, rest }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_may_come_byte_by_byte() {
        let bytes = b"PROXY TCP4 192.0.2.1 192.0.2.2 258 80\r\nG";
        let mut preamble = Preamble::default();
        assert!(preamble.is_empty());
        for byte in &bytes[..bytes.len() - 2] {
            assert_eq!(preamble.received(&[*byte]), Outcome::Incomplete);
            assert!(!preamble.is_empty());
        }
        let source = Some("192.0.2.1:258".parse().unwrap());
        let rest = BytesMut::from(&b"G"[..]);
        assert_eq!(preamble.received(&bytes[bytes.len() - 2..]), Outcome::Done { source, rest });
    }

    #[test]
    fn an_end_or_something_else_is_invalid() {
        assert_eq!(Preamble::default().received(b""), Outcome::Invalid);
        assert_eq!(Preamble::default().received(b"GET / HTTP/1.1"), Outcome::Invalid);
    }

    #[test]
    fn there_is_always_room_for_a_read() {
        let mut preamble = Preamble::default();
        assert_eq!(preamble.room(), proxy_protocol::MAX_LENGTH);
        preamble.received(b"PROXY ");
        assert_eq!(preamble.room(), proxy_protocol::MAX_LENGTH - 6);
    }
}
