//! The PROXY protocol: the line or block in front of everything else in which a TCP proxy says whom it speaks for.
//!
//! Whether it is there is configuration, never a guess. A trusted proxy that does not write it passes on the client's
//! own bytes, and a client could begin with a header of its own making.
//!
//! Decoding is the crate `proxy-header`'s. It takes whatever bytes come first, while here the bytes are still arriving
//! and may never end; so this says where a header ends, before the crate sees it, and refuses what cannot become one
//! at its first wrong byte.

use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};

/// The longest header that is read. The protocol's own bound for version 1 is 107 bytes and for version 2 64 KiB, where
/// a few hundred are usual: addresses, and what a proxy tells about its TLS.
pub(crate) const MAX_LENGTH: usize = 4096;

const V1_PREFIX: &[u8] = b"PROXY ";
const V1_MAX_LENGTH: usize = 107;
const V2_PREFIX: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Prefix, version and command, family and protocol, length of the rest.
const V2_FIXED: usize = 16;

/// How far the header at the beginning of a connection is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyProtocol {
    /// So far it may become a header: read on, and ask again with all bytes.
    Incomplete,
    /// A whole header.
    Done {
        /// The client's address, an IPv4-mapped one as IPv4. None if the proxy speaks for itself (a health check) or
        /// for a client that has none: then the peer is the client.
        source: Option<SocketAddr>,
        /// How many bytes it had; the next one is the client's first.
        consumed: usize,
    },
    /// No header, or none that is acceptable: close the connection.
    Invalid,
}

/// Reads the header at the beginning of `bytes`, in version 1 or 2. Takes all bytes that have arrived, at most
/// [`MAX_LENGTH`] of which are looked at.
pub(crate) fn read(bytes: &[u8]) -> ProxyProtocol {
    let length = if begins_alike(bytes, V1_PREFIX) {
        v1_length(bytes)
    } else if begins_alike(bytes, V2_PREFIX) {
        v2_length(bytes)
    } else {
        Length::Invalid
    };
    match length {
        Length::Unknown => ProxyProtocol::Incomplete,
        Length::Invalid => ProxyProtocol::Invalid,
        Length::Known(length) if length > MAX_LENGTH => ProxyProtocol::Invalid,
        Length::Known(length) => bytes.get(..length).map_or(ProxyProtocol::Incomplete, decode),
    }
}

/// How long a header is, with its prefix.
enum Length {
    /// Too little of it is here.
    Unknown,
    Known(usize),
    Invalid,
}

/// Whether the bytes are the beginning of the prefix, or begin with it.
fn begins_alike(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(byte, expected)| byte == expected)
}

/// A version 1 header is a line.
fn v1_length(bytes: &[u8]) -> Length {
    let bytes = &bytes[..bytes.len().min(V1_MAX_LENGTH)];
    match bytes.iter().position(|&byte| byte == b'\n') {
        Some(at) => Length::Known(at + 1),
        None if bytes.len() < V1_MAX_LENGTH => Length::Unknown,
        None => Length::Invalid,
    }
}

/// A version 2 header says how long it is.
fn v2_length(bytes: &[u8]) -> Length {
    let Some(fixed) = bytes.first_chunk::<V2_FIXED>() else {
        return Length::Unknown;
    };
    let rest = u16::from_be_bytes([fixed[14], fixed[15]]);
    Length::Known(V2_FIXED + usize::from(rest))
}

/// Decodes a header of which every byte is here.
fn decode(header: &[u8]) -> ProxyProtocol {
    let consumed = header.len();
    if is_local(header) {
        return ProxyProtocol::Done { source: None, consumed };
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    // The crate takes a plus sign for a part of a port.
    let is_lax = header.starts_with(b"PROXY TCP") && header.contains(&b'+');
    match ProxyHeader::parse(header, config) {
        Ok((parsed, length)) if length == consumed && !is_lax => match parsed.proxied_address() {
            Some(address) if address.protocol != Protocol::Stream => ProxyProtocol::Invalid,
            address => ProxyProtocol::Done { source: address.map(|address| canonical(address.source)), consumed },
        },
        _ => ProxyProtocol::Invalid,
    }
}

/// Whether the proxy speaks for itself. What else such a header says is to be skipped, even if it is wrong, and the
/// crate would refuse it.
fn is_local(header: &[u8]) -> bool {
    header.starts_with(V2_PREFIX) && header[V2_PREFIX.len()] == 0x20
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;

    use super::ProxyProtocol::{Done, Incomplete, Invalid};
    use super::*;

    /// A version 2 header: command, family, and what follows the length.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_PREFIX, &[command, family], &length, rest].concat()
    }

    fn done(source: &str, consumed: usize) -> ProxyProtocol {
        let source = Some(source.parse().unwrap());
        Done { source, consumed }
    }

    /// 192.0.2.1:258 to 192.0.2.2:772.
    const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 1, 2, 3, 4];

    #[test]
    fn version_1() {
        for (line, source) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 258 80\r\n", Some("192.0.2.1:258")),
            ("PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", Some("[2001:db8::1]:65535")),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Some("192.0.2.1:1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN 192.0.2.1 x +y\r\n", None),
        ] {
            let source = source.map(|source| source.parse().unwrap());
            let expected = Done { source, consumed: line.len() };
            assert_eq!(read(line.as_bytes()), expected, "{line}");
            assert_eq!(read(format!("{line}GET / HTTP/1.1\r\n\r\n").as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn version_1_that_is_wrong() {
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 258\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 258 80 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +258 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n",
            "PROXY TCP4 192.0.2.1  192.0.2.2 258 80\r\n",
            "PROXY TCP4 2001:db8::1 ::1 258 80\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 258 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 258 80\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 258 80\rx\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 258 80\r\n",
            "PROXY tcp4 192.0.2.1 192.0.2.2 258 80\r\n",
            "PROXY \r\n",
            "PROXY\r\n",
            "PROXY\tTCP4 192.0.2.1 192.0.2.2 258 80\r\n",
            "PROXYxTCP4 192.0.2.1 192.0.2.2 258 80\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 258 80\r\n",
            " PROXY UNKNOWN\r\n",
            "GET / HTTP/1.1\r\n",
            "POST / HTTP/1.1\r\n",
            "P\r\n",
            "\r\nPROXY UNKNOWN\r\n",
        ] {
            assert_eq!(read(line.as_bytes()), Invalid, "{line}");
        }
    }

    #[test]
    fn a_line_has_an_end() {
        let line = |length: usize| format!("PROXY UNKNOWN {:.<1$}\r\n", "", length - 16);
        assert_eq!(line(107).len(), 107);
        assert_eq!(read(line(107).as_bytes()), Done { source: None, consumed: 107 });
        assert_eq!(read(line(108).as_bytes()), Invalid);
        assert_eq!(read(&line(108).as_bytes()[..106]), Incomplete);
        assert_eq!(read(&line(108).as_bytes()[..107]), Invalid);
    }

    #[test]
    fn version_2() {
        assert_eq!(read(&v2(0x21, 0x11, &V4)), done("192.0.2.1:258", 28));
        let v6: Vec<u8> = (0..36).collect();
        assert_eq!(read(&v2(0x21, 0x21, &v6)), done("[1:203:405:607:809:a0b:c0d:e0f]:8225", 52));
        let mapped = [&[0; 10][..], &[255, 255, 192, 0, 2, 1], &[0; 16], &[1, 2, 3, 4]].concat();
        assert_eq!(read(&v2(0x21, 0x21, &mapped)), done("192.0.2.1:258", 52));
        let more = [&V4[..], &[4, 0, 1, 0]].concat();
        assert_eq!(read(&v2(0x21, 0x11, &more)), done("192.0.2.1:258", 32));
        let unix = v2(0x21, 0x31, &[0; 216]);
        let followed = [v2(0x21, 0x11, &V4), b"GET / HTTP/1.1".to_vec()].concat();
        assert_eq!(read(&unix), Done { source: None, consumed: 232 });
        assert_eq!(read(&followed), done("192.0.2.1:258", 28));
    }

    #[test]
    fn proxies_that_speak_for_themselves() {
        for (family, rest) in [(0x00, &[][..]), (0x00, &[4, 0, 0]), (0x11, &V4), (0x11, &V4[..3]), (0x55, b"x")] {
            let header = v2(0x20, family, rest);
            let consumed = header.len();
            assert_eq!(read(&header), Done { source: None, consumed });
        }
        assert_eq!(read(&v2(0x21, 0x00, b"x")), Done { source: None, consumed: 17 });
    }

    #[test]
    fn version_2_that_is_wrong() {
        for (command, family, rest) in [
            (0x22, 0x11, &V4[..]),
            (0x11, 0x11, &V4),
            (0x21, 0x11, &V4[..11]),
            (0x21, 0x11, &[]),
            (0x21, 0x21, &V4),
            (0x21, 0x31, &V4),
            (0x21, 0x12, &V4),
            (0x21, 0x22, &[0; 36]),
            (0x21, 0x13, &V4),
            (0x21, 0x41, &V4),
        ] {
            assert_eq!(read(&v2(command, family, rest)), Invalid, "{command:x} {family:x} {}", rest.len());
        }
        let mut other = v2(0x21, 0x11, &V4);
        other[11] = b'\r';
        assert_eq!(read(&other), Invalid);
    }

    #[test]
    fn a_block_has_a_bound() {
        let header = v2(0x21, 0x11, &[&V4[..], &[0; MAX_LENGTH - 28]].concat());
        assert_eq!(header.len(), MAX_LENGTH);
        assert_eq!(read(&header), done("192.0.2.1:258", MAX_LENGTH));
        assert_eq!(read(&header[..MAX_LENGTH - 1]), Incomplete);
        let longer = v2(0x21, 0x11, &[0; MAX_LENGTH - 15]);
        assert_eq!(read(&longer), Invalid);
        assert_eq!(read(&longer[..15]), Incomplete);
        assert_eq!(read(&longer[..16]), Invalid);
    }

    #[test]
    fn every_beginning_of_a_header_is_incomplete() {
        let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 258 80\r\n".to_vec();
        for header in [v1, v2(0x21, 0x11, &V4), v2(0x20, 0x00, &[]), v2(0x21, 0x31, &[0; 216])] {
            for length in 0..header.len() {
                assert_eq!(read(&header[..length]), Incomplete, "{length} of {header:?}");
            }
            assert!(matches!(read(&header), Done { .. }));
        }
    }

    fn encoded(source: SocketAddr, version: u8) -> Vec<u8> {
        let destination = if source.is_ipv4() { "192.0.2.2:80" } else { "[::1]:80" };
        let header = ProxyHeader::with_address(ProxiedAddress::stream(source, destination.parse().unwrap()));
        let mut bytes = Vec::new();
        match version {
            1 => header.encode_v1(&mut bytes).unwrap(),
            _ => header.encode_v2(&mut bytes).unwrap(),
        }
        bytes
    }

    const PREFIXES: &[&[u8]] = &[b"", b"PROXY ", b"PROXY TCP4 ", V2_PREFIX, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"];

    proptest! {
        #[test]
        fn what_is_written_is_read(address: std::net::IpAddr, port: u16, version in 1u8..=2, next: Vec<u8>) {
            let header = encoded(SocketAddr::new(address, port), version);
            let source = Some(SocketAddr::new(address.to_canonical(), port));
            let expected = Done { source, consumed: header.len() };
            prop_assert_eq!(read(&[header, next].concat()), expected);
        }

        /// Bytes that come later never change what was decided.
        #[test]
        fn a_decision_is_final(
            prefix in proptest::sample::select(PREFIXES),
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [prefix, &bytes].concat();
            let mut decided = Incomplete;
            for length in 0..=bytes.len() {
                let now = read(&bytes[..length]);
                prop_assert!(decided == Incomplete || decided == now, "{decided:?} became {now:?} at {length}");
                if let Done { consumed, .. } = now {
                    prop_assert!(consumed <= length);
                }
                decided = now;
            }
        }
    }
}
