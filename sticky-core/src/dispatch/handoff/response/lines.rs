//! Reads the ordinary head of a response line by line, and of it only what framing depends on.
//!
//! Every response has its head read here as well as by the client, and nearly every head is of one piece and in order. Lines
//! are told apart by their line feeds, eight bytes at a time, and those that matter by their first letters. Whatever could be read
//! in another way is left to the parser.

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
        match line(bytes, &mut at)? {
            [] => return Some((at, head)),
            // It belongs to the line before, or has no name.
            [b' ' | b'\t' | b':', ..] => return None,
            line if may_matter(line) => {
                let (name, value) = field(line)?;
                head.add(name, value);
            }
            _ => {}
        }
    }
}

/// Whether a line begins like `connection`, `content-length` or `transfer-encoding`.
fn may_matter(line: &[u8]) -> bool {
    let Some(start) = line.first_chunk::<8>() else { return false };
    // Lower case, for letters; the dash stays what it is.
    let start = (u64::from_le_bytes(*start) | u64::from_le_bytes([0x20; 8])).to_le_bytes();
    matches!(&start, b"connecti" | b"content-" | b"transfer")
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

/// A field's name and its value without the blanks around it.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_ordinary = name.last().is_some_and(|byte| !byte.is_ascii_whitespace());
    is_ordinary.then(|| (name, value.trim_ascii()))
}

/// The line that begins at `at`, without its CRLF; `at` is behind that then.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = bytes.get(*at..)?;
    let feed = line_feed(rest)?;
    *at += feed + 1;
    rest[..feed].strip_suffix(b"\r")
}

/// The first line feed. Eight bytes at a time: in a word with a line feed, taken away by exclusive or, the lowest byte that
/// is less than one is the first (Anderson, Bit Twiddling Hacks: "Determine if a word has a zero byte").
fn line_feed(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word) ^ (ONES * b'\n' as u64);
        let found = word.wrapping_sub(ONES) & !word & HIGHS;
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| *byte == b'\n')?;
    Some(bytes.len() - rest.len() + at)
}

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
            "HTTP/1.1 101 \r\nconnection:upgrade\r\ncookies: 1\ttab\r\n\r\n\0\n",
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
    fn line_feeds_are_found_wherever_they_stand() {
        for (length, at) in (1..40).flat_map(|length| (0..length).map(move |at| (length, at))) {
            for other in [0, 9, 11, 0x8a, 0xff] {
                let mut bytes = vec![other; length];
                assert_eq!(line_feed(&bytes), None);
                bytes[at] = b'\n';
                *bytes.last_mut().unwrap() = b'\n';
                assert_eq!(line_feed(&bytes), Some(at), "{other:x} at {at} of {length}");
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
            if let (Some((len, head)), Parsed::Head(parsed_len, parsed)) = (super::head(&bytes), parse_anything(&bytes)) {
                prop_assert_eq!((len, head), (parsed_len, parsed));
            }
        }
    }
}
