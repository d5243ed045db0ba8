//! What travels with the descriptor of a connection that moves: one message is one connection. Pure.
//!
//! ```text
//! 0        1          2      3          4      6        7      8         24       28
//! ├version─┼─standing─┼─hops─┼─address──┼─port─┼─socket─┼─zero─┼─address─┼─scope──┼─ what has been read ahead … ┤
//!                            0: none, 4, 6     0: TCP, 1: unix   4 or 16 bytes
//! ```
//!
//! Numbers are little-endian. Two generations of a program may talk to each other, so what is here only changes together
//! with [`VERSION`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use bytes::BytesMut;

use super::exchange::{Moving, Standing};

/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;

/// The length of what comes in front of the bytes read ahead.
pub(crate) const HEADER: usize = 28;

/// The longest message: heads are bounded by `u16`, and nothing beyond a head is read ahead.
pub(crate) const MAX_MESSAGE: usize = HEADER + u16::MAX as usize;

/// How often a connection may move before it is served where it is: once to its owner, once more if that was replaced.
pub(crate) const MAX_HOPS: u8 = 2;

/// A connection on its way, without its descriptor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) moving: Moving,
    /// How often it has moved since somebody last served it.
    pub(crate) hops: u8,
    /// The client's address, as far as the socket or the PROXY protocol tells; none on unix sockets.
    pub(crate) peer: Option<SocketAddr>,
    /// Whether the descriptor is a unix socket; else it is TCP.
    pub(crate) is_unix: bool,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Of a version this build does not read.
    Version,
    /// Too short, or with a value that nobody writes.
    Field,
}

impl Message {
    /// The header; [`Moving::read_ahead`] follows it.
    pub(crate) fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = VERSION;
        header[1] = match self.moving.standing {
            Standing::New => 0,
            Standing::Used => 1,
            Standing::Judged => 2,
        };
        header[2] = self.hops;
        if let Some(peer) = self.peer {
            header[4..6].copy_from_slice(&peer.port().to_le_bytes());
            match peer.ip() {
                IpAddr::V4(address) => {
                    header[3] = 4;
                    header[8..12].copy_from_slice(&address.octets());
                }
                IpAddr::V6(address) => {
                    header[3] = 6;
                    header[8..24].copy_from_slice(&address.octets());
                }
            }
        }
        header[6] = u8::from(self.is_unix);
        if let Some(SocketAddr::V6(peer)) = self.peer {
            header[24..28].copy_from_slice(&peer.scope_id().to_le_bytes());
        }
        header
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// Whatever [`Message::header`] does not write.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let version = bytes.first().ok_or(Malformed::Field)?;
        if *version != VERSION {
            return Err(Malformed::Version);
        }
        let (header, read_ahead) = bytes.split_first_chunk::<HEADER>().ok_or(Malformed::Field)?;
        let standing = match header[1] {
            0 => Standing::New,
            1 => Standing::Used,
            2 => Standing::Judged,
            _ => return Err(Malformed::Field),
        };
        let is_unix = match header[6] {
            0 => false,
            1 => true,
            _ => return Err(Malformed::Field),
        };
        let moving = Moving { read_ahead: BytesMut::from(read_ahead), standing };
        let message = Self { moving, hops: header[2], peer: read_peer(header)?, is_unix };
        // What is not used is zero, so that a later version can give it a meaning.
        if message.header() == *header { Ok(message) } else { Err(Malformed::Field) }
    }
}

fn read_peer(header: &[u8; HEADER]) -> Result<Option<SocketAddr>, Malformed> {
    let port = u16::from_le_bytes([header[4], header[5]]);
    let address: [u8; 16] = header[8..24].try_into().map_err(|_| Malformed::Field)?;
    let scope = u32::from_le_bytes([header[24], header[25], header[26], header[27]]);
    Ok(match header[3] {
        0 => None,
        4 => Some((Ipv4Addr::new(address[0], address[1], address[2], address[3]), port).into()),
        6 => Some(SocketAddrV6::new(Ipv6Addr::from(address), port, 0, scope).into()),
        _ => return Err(Malformed::Field),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(standing: Standing, peer: Option<&str>) -> Message {
        let read_ahead = BytesMut::from(&b"GET / HTTP/1.1\r\n\r\n"[..]);
        let peer = peer.map(|peer| peer.parse().unwrap());
        Message { moving: Moving { read_ahead, standing }, hops: 1, peer, is_unix: peer.is_none() }
    }

    fn bytes(message: &Message) -> Vec<u8> {
        [&message.header()[..], &message.moving.read_ahead].concat()
    }

    /// Two generations of a program talk to each other: a change here needs another version.
    #[test]
    fn the_bytes_do_not_change() {
        let four = bytes(&message(Standing::Judged, Some("192.0.2.1:258")));
        assert_eq!(four[..12], [1, 2, 1, 4, 2, 1, 0, 0, 192, 0, 2, 1]);
        assert_eq!(four[12..HEADER], [0; 16]);
        assert_eq!(&four[HEADER..], b"GET / HTTP/1.1\r\n\r\n");
        let six = bytes(&message(Standing::Used, Some("[2001:db8::1%7]:80")));
        assert_eq!(six[..8], [1, 1, 1, 6, 80, 0, 0, 0]);
        assert_eq!(six[8..HEADER], [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 7, 0, 0, 0]);
        let unix = bytes(&message(Standing::New, None));
        assert_eq!(unix[..HEADER], [&[1, 0, 1, 0, 0, 0, 1][..], &[0; 21]].concat());
    }

    #[test]
    fn what_is_written_is_read() {
        for standing in [Standing::New, Standing::Used, Standing::Judged] {
            for peer in [None, Some("192.0.2.1:80"), Some("[2001:db8::1]:80"), Some("[fe80::1%3]:1")] {
                let message = message(standing, peer);
                assert_eq!(Message::read(&bytes(&message)), Ok(message));
            }
        }
    }

    #[test]
    fn other_versions_and_fields_are_refused() {
        let good = bytes(&message(Standing::New, None));
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            Message::read(&bytes)
        };
        assert_eq!(with(0, 0), Err(Malformed::Version));
        assert_eq!(with(0, 2), Err(Malformed::Version));
        assert_eq!(with(1, 3), Err(Malformed::Field));
        assert_eq!(with(3, 5), Err(Malformed::Field));
        assert_eq!(with(6, 2), Err(Malformed::Field));
        for unused in [3, 4, 5, 7, 8, 23, 24, 27] {
            assert_eq!(with(unused, 1), Err(Malformed::Field), "{unused}");
        }
        assert_eq!(Message::read(&[]), Err(Malformed::Field));
        assert_eq!(Message::read(&good[..HEADER - 1]), Err(Malformed::Field));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(message) = Message::read(&bytes) {
                prop_assert_eq!(message.header()[..4].to_vec(), bytes[..4].to_vec());
                prop_assert_eq!(&message.moving.read_ahead[..], &bytes[HEADER..]);
            }
        }
    }
}
