//! Reads the ordinary head of a response line by line, and of it only what framing depends on.
//!
//! Every response has its head read here as well as by the client, and nearly every head is of one piece and in order. The
//! ends of lines are looked for eight bytes at a time, and of most fields the name alone is looked at. Whatever is not in order is left
//! to the parser, so that the outcome is the same however the head comes.

use super::Head;
use crate::dispatch::handoff::tokens::Version;

/// A longer head is not ordinary.
const MAX_LEN: usize = 8 * 1024;

/// The head at the start of these bytes and its length, if it is whole and ordinary.
pub(super) fn head(bytes: &[u8]) -> Option<(usize, Head)> {
    let bytes = &bytes[..bytes.len().min(MAX_LEN)];
    let mut at = 0;
    let (version, status) = status_line(line(bytes, &mut at)?)?;
    let mut head = Head::new(status, version);
    loop {
        let line = line(bytes, &mut at)?;
        if line.is_empty() {
            return Some((at, head));
        }
        let colon = line.iter().position(|byte| !IS_TOKEN[usize::from(*byte)])?;
        if colon == 0 || line[colon] != b':' {
            return None;
        }
        let name = &line[..colon];
        if may_matter(name) {
            head.add(name, line[colon + 1..].trim_ascii());
        }
    }
}

/// Whether a name is as long as one of `connection`, `content-length` and `transfer-encoding`.
fn may_matter(name: &[u8]) -> bool {
    matches!(name.len(), 10 | 14 | 17)
}

fn status_line(line: &[u8]) -> Option<(Version, u16)> {
    let version = match line.first_chunk()? {
        b"HTTP/1.1 " => Version::Http11,
        b"HTTP/1.0 " => Version::Http10,
        _ => return None,
    };
    let (status, reason) = line["HTTP/1.1 ".len()..].split_first_chunk::<3>()?;
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    let status = status.iter().try_fold(0, |status, byte| Some(10 * status + digit(*byte)?))?;
    matches!(reason, [] | [b' ', ..]).then_some((version, status))
}

/// The line that begins at `at`, without its CRLF; `at` is behind that then. None if there is any other control character in
/// it, tabs included.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = bytes.get(*at..)?;
    let end = control(rest)?;
    *at += end + 2;
    (rest.get(end..end + 2)? == b"\r\n").then(|| &rest[..end])
}

/// The first control character, or DEL.
fn control(bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = below(word, 0x20) | below(word ^ (ONES * 0x7f), 1);
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(u8::is_ascii_control)?;
    Some(bytes.len() - rest.len() + at)
}

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES << 7;

/// The high bit of each byte below `limit`, which is at most 0x80, and perhaps those of bytes above such a one. (Anderson, Bit
/// Twiddling Hacks: "Determine if a word has a byte less than n".)
const fn below(word: u64, limit: u64) -> u64 {
    word.wrapping_sub(ONES * limit) & !word & HIGHS
}

/// Whether a byte may be in a field's name (RFC 9110, 5.6.2).
static IS_TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut other = 0;
    while other < others.len() {
        table[others[other] as usize] = true;
        other += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Parsed, parse_anything};
    use super::*;

    #[test]
    fn ordinary_heads_are_read() {
        for head in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.0 404\r\nContent-Length: 7\r\nserver: x\r\n\r\nbody...",
            "HTTP/1.1 101 \r\nconnection:upgrade\r\ncookies: 1\u{fc}\r\n\r\n\0\n",
        ] {
            assert!(super::head(head.as_bytes()).is_some(), "{head}");
        }
    }

    #[test]
    fn others_are_left_to_the_parser() {
        for head in [
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\n\r\n",
            "HTTP/1.1 200 OK\r\n\n",
            "HTTP/1.1 20\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1  200\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nconnection\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx(: y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: y\tz\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: y\rz\r\n\r\n",
            "HTTP/1.1 200 O\rK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: y\r\n z\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: y\r\n\tz\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: y\r\n\r\n",
        ] {
            assert!(super::head(head.as_bytes()).is_none(), "{head}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(MAX_LEN));
        assert!(super::head(long.as_bytes()).is_none());
    }

    #[test]
    fn every_byte_is_judged_alike_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for (length, at) in (1..20).flat_map(|length| (0..length).map(move |at| (length, at))) {
                let mut bytes = vec![b'x'; length];
                bytes[at] = byte;
                let expected = byte.is_ascii_control().then_some(at);
                assert_eq!(control(&bytes), expected, "{byte:x} at {at} of {length}");
                bytes[length - 1] = b'\n';
                assert_eq!(control(&bytes), expected.or(Some(length - 1)), "{byte:x} at {at} of {length}");
            }
        }
    }

    /// Heads out of lines that are mostly in order.
    fn rough_head() -> impl Strategy<Value = Vec<u8>> {
        let lines: Vec<&[u8]> = vec![
            b"HTTP/1.1 204 No Content\r\n",
            b"Content-Length: 5\r\n",
            b"content-length:  0 \r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"connection: close, upgrade\r\n",
            b"x-content-length: 7\r\n",
            b"content-type: text/html; charset=utf-8\r\n",
            b"server: x\r\n",
            b" folded\r\n",
            b"a(: b\r\n",
            b"a: \tb\r\n",
            b"a: b\rc\r\n",
            b"a: b\n",
            b"\r\n",
            b"t",
            b"\r",
        ];
        let lines = proptest::collection::vec(proptest::sample::select(lines), 0..8);
        lines.prop_map(|lines| [b"HTTP/1.1 200 OK\r\n", &lines.concat()[..], b"\r\n\r\n"].concat())
    }

    proptest! {
        #[test]
        fn what_is_read_the_parser_reads_alike(bytes in rough_head()) {
            if let Some((len, head)) = super::head(&bytes) {
                let Parsed::Head(parsed_len, parsed) = parse_anything(&bytes) else { panic!("it takes what the parser does not") };
                prop_assert_eq!((len, head), (parsed_len, parsed));
            }
        }
    }
}
