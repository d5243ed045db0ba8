//! Reads the head of a response line by line, and of it only what framing depends on.
//!
//! Every response passes here, and the application has written it: what does not matter to framing is not looked at, which
//! takes a third of the time of the parser that reads requests. Any line may end with a line feed alone.

use memchr::memchr_iter;

use super::Head;
use crate::dispatch::handoff::tokens::Version;

/// What a head may turn out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A head of so many bytes.
    Head(usize, Head),
    Partial,
    Malformed,
}

/// Reads the head at the start of these bytes.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    // What begins otherwise, an empty line perhaps, no framework writes.
    if bytes.first() != Some(&b'H') {
        return Parsed::Malformed;
    }
    let mut feeds = memchr_iter(b'\n', bytes);
    let Some(end) = feeds.next() else { return Parsed::Partial };
    let Some((version, status)) = status_line(&bytes[..end]) else { return Parsed::Malformed };
    let mut head = Head::new(status, version);
    head.is_end_to_end &= ends_properly(bytes, end);
    let mut start = end + 1;
    for end in feeds {
        head.is_end_to_end &= ends_properly(bytes, end);
        match bytes[start] {
            b'\n' => return Parsed::Head(end + 1, head),
            b'\r' if end == start + 1 => return Parsed::Head(end + 1, head),
            b'\r' => return Parsed::Malformed,
            b'c' | b'C' | b't' | b'T' if !add(&mut head, &bytes[start..end]) => return Parsed::Malformed,
            b'k' | b'K' | b'p' | b'P' | b'u' | b'U' => {
                head.is_end_to_end &= !ends_here(&bytes[start..end]);
                start = end + 1;
            }
            // It goes on with the line before.
            b' ' | b'\t' => return Parsed::Malformed,
            _ => start = end + 1,
        }
    }
    Parsed::Partial
}

fn status_line(line: &[u8]) -> Option<(Version, u16)> {
    let (code, reason) = line.split_first_chunk::<{ "HTTP/1.1 200".len() }>()?;
    let version = match code.first_chunk()? {
        b"HTTP/1.1 " => Version::Http11,
        b"HTTP/1.0 " => Version::Http10,
        _ => return None,
    };
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    let [.., hundreds, tens, ones] = code;
    let status = 100 * digit(hundreds)? + 10 * digit(tens)? + digit(ones)?;
    matches!(reason, [] | [b'\r'] | [b' ', ..]).then_some((version, status))
}

/// Adds a field, if it matters. Not if it could be read in another way.
fn add(head: &mut Head, line: &[u8]) -> bool {
    match (value(line, b"content-length"), value(line, b"connection"), value(line, b"transfer-encoding")) {
        (Named::No, Named::No, Named::No) => true,
        (Named::Value(value), ..) => {
            head.add_length(value);
            is_text(value)
        }
        (_, Named::Value(value), _) => {
            head.is_end_to_end = false;
            head.options.add(value);
            is_text(value)
        }
        (.., Named::Value(value)) => {
            head.add_coding(value);
            is_text(value)
        }
        _ => false,
    }
}

/// Whether the line that ends here does so as everybody expects.
#[inline]
fn ends_properly(bytes: &[u8], end: usize) -> bool {
    bytes[end - 1] == b'\r'
}

/// Whether a line concerns this connection alone.
fn ends_here(line: &[u8]) -> bool {
    let is = |name: &[u8]| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    is(b"keep-alive:") || is(b"proxy-connection:") || is(b"upgrade:")
}

/// What a line is to a name.
enum Named<'a> {
    No,
    /// It could be meant.
    Maybe,
    /// Its field, with this value.
    Value(&'a [u8]),
}

#[inline]
fn value<'a, const N: usize>(line: &'a [u8], name: &[u8; N]) -> Named<'a> {
    // Nearly always a name is written in lower case.
    let is_same = |found: &[u8; N]| found == name || found.eq_ignore_ascii_case(name);
    match line.split_first_chunk() {
        Some((found, [b':', value @ ..])) if is_same(found) => Named::Value(value.trim_ascii()),
        Some((found, [b' ' | b'\t', ..])) if is_same(found) => Named::Maybe,
        _ => Named::No,
    }
}

fn is_text(value: &[u8]) -> bool {
    !value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')
}

#[cfg(test)]
mod tests {
    use super::super::{Coding, Length};
    use super::*;

    fn head(bytes: &[u8]) -> Head {
        match parse(bytes) {
            Parsed::Head(len, head) if len == bytes.len() => head,
            other => panic!("{other:?} for {}", bytes.escape_ascii()),
        }
    }

    #[test]
    fn what_matters_is_read_and_nothing_else() {
        let read = head(b"HTTP/1.1 200 OK\r\nServer: x\ty\r\nCONTENT-length:  7 \r\nno colon\r\n(: \0\r\n\r\n");
        assert_eq!((read.status, read.version, read.length), (200, Version::Http11, Length::Known(7)));
        assert_eq!((read.coding, read.options.close), (Coding::None, false));
        let read = head(b"HTTP/1.0 404\nTransfer-Encoding: chunked\nconnection: Close\n\n");
        assert_eq!((read.status, read.version, read.length), (404, Version::Http10, Length::None));
        assert_eq!((read.coding, read.options.close), (Coding::Chunked, true));
        let read = head(b"HTTP/1.1 200 \r\ncontent-lengths: 1\r\nx-content-length: 2\r\ncontent-lengt: 3\r\nconnections: close\r\n\r\n");
        assert_eq!(read, Head::new(200, Version::Http11));
        for odd in ["connectiom: close", "connectiom close", "content-lengte\t: 1", "transfer-encodimg: chunked"] {
            let read = head(format!("HTTP/1.1 217 x\r\n{odd}\r\n\r\n").as_bytes());
            assert_eq!(read, Head::new(217, Version::Http11), "{odd}");
        }
    }

    #[test]
    fn what_could_be_read_otherwise_is_malformed() {
        for bytes in [
            "HTTP/1.1 20\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1  200\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: y\r\n z\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\rx: y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: y\r\n\tz\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding\t: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nconnection close\r\n\r\n",
            "HTTP/1.1 200 OK\r\nconnection: x,\rclose\r\n\r\n",
        ] {
            assert_eq!(parse(bytes.as_bytes()), Parsed::Malformed, "{bytes}");
        }
    }

    #[test]
    fn what_concerns_the_connection_alone_is_noticed() {
        for (line, is_end_to_end) in [
            ("connection: keep-alive", false),
            ("Connection: x", false),
            ("keep-alive: 5", false),
            ("Keep-Alive:5", false),
            ("proxy-connection: a", false),
            ("Proxy-Connection: a", false),
            ("upgrade: h2c", false),
            ("Upgrade: h2c", false),
            ("keep-alives: 5", true),
            ("powered-by: a", true),
            ("user: a", true),
            ("upgrades: a", true),
            ("x: connection: a", true),
            ("transfer-encoding: chunked", true),
        ] {
            let read = head(format!("HTTP/1.1 200 OK\r\nkind: a\r\n{line}\r\nx: y\r\n\r\n").as_bytes());
            assert_eq!(read.is_end_to_end, is_end_to_end, "{line}");
        }
        for unusual in
            ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200\n\r\n", "HTTP/1.1 200\r\nx: y\n\r\n", "HTTP/1.1 200\r\n\n"]
        {
            assert!(!head(unusual.as_bytes()).is_end_to_end, "{unusual:?}");
        }
        let read = head(b"HTTP/1.1 200 OK\r\nkeep-alive: 5\r\nupgrades: a\r\ncontent-length: 7\r\n\r\n");
        assert_eq!((read.is_end_to_end, read.length), (false, Length::Known(7)), "lines behind are read, too");
    }

    #[test]
    fn a_head_ends_with_its_empty_line() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n";
        for length in 1..whole.len() {
            assert_eq!(parse(&whole[..length]), Parsed::Partial, "{length}");
        }
        assert!(matches!(parse(&[whole, &b"\r\n\r\n"[..]].concat()), Parsed::Head(length, _) if length == whole.len()));
    }
}
