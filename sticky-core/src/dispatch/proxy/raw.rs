//! The heads of plain messages, changed as the bytes they are. Pure.
//!
//! Most requests of most clients need no more than that two or three lines be taken out and three put in. Whatever takes
//! more thought is left to [`headers`](super::headers), which has the same rules for heads that have been taken apart.

use memchr::{memchr, memchr_iter};

use super::headers::{KEPT, MAX_HEADERS, SPOKEN_FOR};
use crate::dispatch::handoff::tokens;

/// What becomes of a request's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    Host,
    /// It concerned the client's connection, or is for a proxy alone to say.
    Ends,
    /// It takes more thought.
    Special,
}

/// What a peer's word about its clients is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It is taken.
    Trusted,
    /// It is not.
    Ignored,
    /// It is not, and nobody has been told yet that such peers are there.
    New,
}

/// A request without a body as its worker gets it; `spoken` are the lines that say who the client is. None where that takes
/// more than to change lines. `message` is one whole message that the guard has let through.
pub(super) fn request(message: &[u8], spoken: &[u8], word: Word) -> Option<Vec<u8>> {
    let first = memchr(b'\n', message)? + 1;
    if !is_plain(&message[..first]) {
        return None;
    }
    let mut changed = Vec::with_capacity(message.len() + spoken.len());
    let (mut passed, mut start, mut hosts, mut others) = (0, first, 0, 0);
    for end in memchr_iter(b'\n', &message[first..]).map(|at| first + at + 1) {
        let line = &message[start..end];
        if line == b"\r\n" && end < message.len() {
            return None;
        }
        match fate(line, word) {
            Fate::Passes => others += 1,
            Fate::Host => hosts += 1,
            Fate::Ends => {
                changed.extend_from_slice(&message[passed..start]);
                passed = end;
            }
            Fate::Special => return None,
        }
        start = end;
    }
    // The last line is the empty one.
    let head = message[passed..].strip_suffix(b"\r\n")?;
    if start != message.len() || !message.ends_with(b"\r\n\r\n") || hosts != 1 || others > MAX_HEADERS {
        return None;
    }
    for part in [head, spoken, b"\r\n"] {
        changed.extend_from_slice(part);
    }
    Some(changed)
}

/// Whether a request line is of HTTP/1.1 and asks for a path.
fn is_plain(line: &[u8]) -> bool {
    let Some(target) = memchr(b' ', line).map(|space| &line[space + 1..]) else { return false };
    target.starts_with(b"/") && line.ends_with(b" HTTP/1.1\r\n") && memchr(b'#', target).is_none()
}

fn fate(line: &[u8], word: Word) -> Fate {
    // Most lines begin otherwise.
    if !matches!(line[0] | 0x20, b'c' | b'e' | b'f' | b'h' | b'k' | b'p' | b't' | b'u' | b'x') {
        return Fate::Passes;
    }
    let Some(colon) = memchr(b':', line) else { return Fate::Passes };
    let name = &line[..colon];
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    match colon {
        4 if is("host") => Fate::Host,
        10 if is("connection") => {
            let value = line[colon + 1..].trim_ascii();
            if value.eq_ignore_ascii_case(b"keep-alive") { Fate::Ends } else { Fate::Special }
        }
        2 if is("te") => Fate::Special,
        6 if is("expect") => Fate::Special,
        7 if is("upgrade") => Fate::Special,
        14 if is("content-length") => Fate::Special,
        17 if is("transfer-encoding") => Fate::Special,
        10 if is("keep-alive") => Fate::Ends,
        16 if is("proxy-connection") => Fate::Ends,
        // Whether its client came by https decides what is said of that.
        9 if word == Word::Trusted && is("forwarded") => Fate::Special,
        17 if word == Word::Trusted && is("x-forwarded-proto") => Fate::Special,
        15 if word == Word::Trusted && is("x-forwarded-for") => Fate::Ends,
        9..=18 if word != Word::Trusted && speaks(name) => {
            if word == Word::New {
                Fate::Special
            } else {
                Fate::Ends
            }
        }
        _ => Fate::Passes,
    }
}

/// Whether a header is for proxies to say.
fn speaks(name: &[u8]) -> bool {
    let names = ["forwarded", "x-forwarded-for", "x-forwarded-proto"].iter().chain(&SPOKEN_FOR);
    names.into_iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

/// The head of a response as the client gets it, where something in it concerned the worker's connection, as the version of
/// HTTP does, or is to be said of the client's: that nothing follows there. Each line ends as it should.
pub(super) fn response(head: &[u8], keeps_upgrade: bool, is_last: bool) -> Vec<u8> {
    let lines = || head.split_inclusive(|&byte| byte == b'\n');
    let named =
        |line: &[u8]| memchr(b':', line).map(|colon| (line[..colon].to_vec(), line[colon + 1..].trim_ascii().to_vec()));
    let values = lines().skip(1).filter_map(named).filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"));
    let options: Vec<Vec<u8>> =
        values.flat_map(|(_, value)| tokens::list(&value).map(<[u8]>::to_vec).collect::<Vec<_>>()).collect();
    let upgrades = keeps_upgrade && options.iter().any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    let ends = |name: &[u8]| {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        let may_be_named =
            !KEPT.iter().any(|kept| is(kept.as_str().as_bytes())) && !is(b"transfer-encoding") && !is(b"upgrade");
        is(b"connection")
            || is(b"keep-alive")
            || is(b"proxy-connection")
            || (is(b"upgrade") && !upgrades)
            || (may_be_named && options.iter().any(|option| is(option)))
    };
    let mut changed = Vec::with_capacity(head.len() + 32);
    for (index, line) in lines().enumerate() {
        let content = line.trim_ascii_end();
        if content.is_empty() {
            break;
        }
        if index == 0 {
            changed.extend_from_slice(b"HTTP/1.1");
            changed.extend_from_slice(content.get(8..).unwrap_or_default());
        } else if named(line).is_some_and(|(name, _)| ends(&name)) {
            continue;
        } else {
            changed.extend_from_slice(content);
        }
        changed.extend_from_slice(b"\r\n");
    }
    changed.extend_from_slice(match (upgrades, is_last) {
        (false, false) => b"",
        (true, false) => b"connection: upgrade\r\n",
        (false, true) => b"connection: close\r\n",
        (true, true) => b"connection: upgrade, close\r\n",
    });
    changed.extend_from_slice(b"\r\n");
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOKEN: &[u8] = b"x-forwarded-proto: http\r\n";

    fn changed(lines: &[&str], word: Word) -> Option<String> {
        let message = format!("{}\r\n\r\n", lines.join("\r\n"));
        request(message.as_bytes(), SPOKEN, word).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn what_concerns_the_connection_or_is_ours_to_say_is_replaced() {
        let lines = [
            "GET /a?b HTTP/1.1",
            "Host: a",
            "Connection: Keep-Alive",
            "keep-alive: 5",
            "x-forwarded-for: 6.6.6.6",
            "X-Forwarded-Proto: https",
            "forwarded: for=6.6.6.6",
            "accept: */*",
            "x-real-ip: 6.6.6.6",
            "Proxy-Connection: x",
            "x-forwarded-hosts: b",
            "cookie: a=b",
        ];
        let expected = "GET /a?b HTTP/1.1\r\nHost: a\r\naccept: */*\r\nx-forwarded-hosts: b\r\ncookie: a=b\r\nx-forwarded-proto: http\r\n\r\n";
        assert_eq!(changed(&lines, Word::Ignored).unwrap(), expected);
        assert_eq!(
            changed(&["PUT / HTTP/1.1", "host: a"], Word::Ignored).unwrap(),
            "PUT / HTTP/1.1\r\nhost: a\r\nx-forwarded-proto: http\r\n\r\n"
        );
    }

    #[test]
    fn trusted_proxies_are_left_what_they_say_beside() {
        let lines =
            ["GET / HTTP/1.1", "host: a", "x-real-ip: 1.1.1.1", "x-forwarded-host: b", "x-forwarded-for: 1.1.1.1"];
        let kept = changed(&lines, Word::Trusted).unwrap();
        assert!(
            kept.contains("x-real-ip: 1.1.1.1\r\nx-forwarded-host: b\r\n") && !kept.contains("forwarded-for"),
            "{kept}"
        );
        for special in ["x-forwarded-proto: https", "Forwarded: proto=https"] {
            assert_eq!(changed(&["GET / HTTP/1.1", "host: a", special], Word::Trusted), None);
        }
        for new in ["x-forwarded-for: 1.1.1.1", "Forwarded: a", "cf-connecting-ip: 1.1.1.1"] {
            assert_eq!(changed(&["GET / HTTP/1.1", "host: a", new], Word::New), None);
            assert!(!changed(&["GET / HTTP/1.1", "host: a", new], Word::Ignored).unwrap().contains(new));
        }
    }

    #[test]
    fn what_takes_more_thought_is_left_to_others() {
        for lines in [
            &["GET / HTTP/1.0", "host: a"][..],
            &["GET http://a/ HTTP/1.1", "host: a"],
            &["OPTIONS * HTTP/1.1", "host: a"],
            &["CONNECT a:1 HTTP/1.1", "host: a"],
            &["GET /#a HTTP/1.1", "host: a"],
            &["GET / HTTP/1.1"],
            &["GET / HTTP/1.1", "host: a", "Host: a"],
            &["GET / HTTP/1.1", "host: a", "connection: close"],
            &["GET / HTTP/1.1", "host: a", "connection: keep-alive, x"],
            &["GET / HTTP/1.1", "host: a", "Upgrade: websocket"],
            &["GET / HTTP/1.1", "host: a", "te: trailers"],
            &["GET / HTTP/1.1", "host: a", "expect: 100-continue"],
            &["GET / HTTP/1.1", "host: a", "Content-Length: 0"],
            &["GET / HTTP/1.1", "host: a", "transfer-encoding: chunked"],
        ] {
            assert_eq!(changed(lines, Word::Ignored), None, "{lines:?}");
        }
        assert_eq!(request(b"GET / HTTP/1.1\r\nhost: a\r\n", SPOKEN, Word::Ignored), None);
        assert_eq!(request(b"GET / HTTP/1.1\r\nhost: a\r\n\r\nx\r\n\r\n", SPOKEN, Word::Ignored), None);
        let many: Vec<String> = (0..=MAX_HEADERS).map(|n| format!("a{n}: b")).collect();
        let lines = |count: usize| {
            ["GET / HTTP/1.1", "host: a"]
                .into_iter()
                .chain(many[..count].iter().map(String::as_str))
                .collect::<Vec<_>>()
        };
        assert!(changed(&lines(MAX_HEADERS - 1), Word::Ignored).is_some());
        assert_eq!(changed(&lines(MAX_HEADERS), Word::Ignored), None);
    }

    fn told(lines: &[&str], keeps_upgrade: bool, is_last: bool) -> String {
        let head = format!("{}\r\n\r\n", lines.join("\r\n"));
        String::from_utf8(response(head.as_bytes(), keeps_upgrade, is_last)).unwrap()
    }

    #[test]
    fn a_response_is_written_as_everybody_expects() {
        let changed = response(b"HTTP/1.0 404 Not Found\nx:  y \r\nserver: z\n\n", false, false);
        assert_eq!(changed, b"HTTP/1.1 404 Not Found\r\nx:  y\r\nserver: z\r\n\r\n");
    }

    #[test]
    fn a_response_says_nothing_of_the_worker_s_connection() {
        let lines = [
            "HTTP/1.1 200 OK",
            "connection: close, X-Hop, content-length",
            "Keep-Alive: 5",
            "x-hop: 1",
            "content-length: 2",
            "upgrade: h2c",
            "x: y",
        ];
        assert_eq!(told(&lines, false, false), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: y\r\n\r\n");
        assert_eq!(
            told(&["HTTP/1.1 204 No", "a: b"], false, true),
            "HTTP/1.1 204 No\r\na: b\r\nconnection: close\r\n\r\n"
        );
        let lines = ["HTTP/1.1 426 Upgrade", "Connection: Upgrade", "upgrade: a"];
        assert_eq!(told(&lines, true, false), "HTTP/1.1 426 Upgrade\r\nupgrade: a\r\nconnection: upgrade\r\n\r\n");
        assert_eq!(told(&lines, false, false), "HTTP/1.1 426 Upgrade\r\n\r\n");
    }
}
