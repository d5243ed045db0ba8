//! Heads that are served, heads that are refused, each whole and in pieces.

use proptest::prelude::*;

use super::*;

fn reader() -> HeadReader {
    HeadReader::new(MAX_HEAD, PrefaceRule::Recognised)
}

/// Polls with ever more of `bytes`, `step` at a time.
fn poll_in_steps(bytes: &[u8], step: usize) -> Outcome {
    let mut reader = reader();
    let mut len = 0;
    loop {
        len = (len + step).min(bytes.len());
        let outcome = reader.poll(&bytes[..len]);
        let is_partial = matches!(outcome, Outcome::Partial | Outcome::PartialPreface);
        if !is_partial || len == bytes.len() {
            return outcome;
        }
    }
}

fn head(bytes: &[u8]) -> Head {
    match reader().poll(bytes) {
        Outcome::Request(head) => head,
        other => panic!("{other:?} for {}", bytes.escape_ascii()),
    }
}

fn facts(bytes: &[u8]) -> Facts {
    head(bytes).facts()
}

#[test]
fn a_head_is_found_at_every_split() {
    let bytes = b"POST /a?b=c HTTP/1.1\r\nHost: h\r\nCookie: a=1\r\nContent-Length: 3\r\n\r\nabcGET";
    let len = bytes.len() - 6;
    for split in 1..bytes.len() {
        let mut reader = reader();
        let first = reader.poll(&bytes[..split]);
        if split < len {
            assert!(matches!(first, Outcome::Partial), "{split}: {first:?}");
        }
        let outcome = if split < len { reader.poll(bytes) } else { first };
        let Outcome::Request(head) = outcome else { panic!("{split}: {outcome:?}") };
        assert_eq!((head.len(), head.facts().body), (len, BodyFraming::Length(3)));
    }
}

#[test]
fn a_reader_reads_one_head_after_the_other() {
    let mut reader = reader();
    for _ in 0..3 {
        assert!(matches!(reader.poll(b"GET / HT"), Outcome::Partial));
        assert!(matches!(reader.poll(b"GET / HTTP/1.1\r\n\r\n"), Outcome::Request(_)));
    }
}

#[test]
fn what_is_in_a_head() {
    let bytes = b"GET http://u@example:8080/p?q HTTP/1.1\r\nHOST: other\r\ncookie:  a=1 \r\nX-Empty:\r\nCookie: b=\xff\r\n\r\nrest";
    let head = head(bytes);
    let view = head.view(bytes);
    assert_eq!((view.method(), view.path(), view.query(), view.host()), ("GET", "/p", Some("q"), Some("example:8080")));
    assert_eq!(view.header("Cookie"), Some(&b"a=1"[..]));
    assert_eq!(view.header_lines("COOKIE").collect::<Vec<_>>(), [&b"a=1"[..], b"b=\xff"]);
    assert_eq!(view.header_lines("cookie").rev().collect::<Vec<_>>(), [&b"b=\xff"[..], b"a=1"]);
    assert_eq!((view.header("x-empty"), view.header("x-none")), (Some(&b""[..]), None));
    let names: Vec<_> = view.headers().map(|(name, _)| name).collect();
    assert_eq!(names, ["HOST", "cookie", "X-Empty", "Cookie"]);
}

#[test]
fn the_host_comes_from_the_header_of_an_origin_form() {
    let bytes = b"GET /p HTTP/1.1\r\nhost: example\r\n\r\n";
    assert_eq!(head(bytes).view(bytes).host(), Some("example"));
    let bytes = b"GET /p HTTP/1.1\r\n\r\n";
    assert_eq!(head(bytes).view(bytes).host(), None, "a missing host is the framework's business");
}

#[test]
fn framing_facts() {
    let plain = Facts {
        method: MethodClass::Other,
        version: Version::Http11,
        body: BodyFraming::None,
        switch: Switch::None,
        expects_continue: false,
        wants_close: false,
    };
    assert_eq!(facts(b"GET / HTTP/1.1\r\n\r\n"), plain);
    assert_eq!(facts(b"HEAD / HTTP/1.1\r\n\r\n"), Facts { method: MethodClass::Head, ..plain });
    assert_eq!(facts(b"head / HTTP/1.1\r\n\r\n"), plain, "methods are case-sensitive");
    let length = |n| Facts { body: BodyFraming::Length(n), ..plain };
    assert_eq!(facts(b"PUT / HTTP/1.1\r\ncontent-length:\t12 \r\n\r\n"), length(12));
    assert_eq!(facts(b"PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"), plain);
    assert_eq!(facts(b"PUT / HTTP/1.1\r\nContent_Length: 5\r\nX-Content-Length: 6\r\n\r\n"), plain);
    let chunked = Facts { body: BodyFraming::Chunked, ..plain };
    assert_eq!(facts(b"PUT / HTTP/1.1\r\ntransfer-ENCODING:CHUNKED\r\n\r\n"), chunked);
    let expecting = Facts { expects_continue: true, ..length(1) };
    assert_eq!(facts(b"PUT / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n"), expecting);
}

#[test]
fn who_wants_to_close() {
    let wants_close = |head: &[u8]| facts(head).wants_close;
    assert!(wants_close(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"));
    assert!(wants_close(b"GET / HTTP/1.1\r\nConnection: keep-alive\r\nConnection: x, Close\r\n\r\n"));
    assert!(!wants_close(b"GET / HTTP/1.1\r\nConnection: closed\r\n\r\n"));
    assert!(wants_close(b"GET / HTTP/1.0\r\n\r\n"));
    assert!(!wants_close(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
    assert!(wants_close(b"GET / HTTP/1.0\r\nConnection: Keep-Alive, close\r\n\r\n"));
}

#[test]
fn what_asks_for_another_protocol() {
    let switch = |head: &[u8]| facts(head).switch;
    let socket = b"GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    assert_eq!(switch(socket), Switch::Upgrade);
    assert_eq!(
        switch(b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n"),
        Switch::Upgrade
    );
    assert_eq!(switch(b"GET / HTTP/1.1\r\nConnection: upgrade\r\n\r\n"), Switch::None);
    assert_eq!(switch(b"CONNECT h:443 HTTP/1.1\r\n\r\n"), Switch::Connect);
    assert_eq!(switch(b"CONNECT h:443 HTTP/1.1\r\nContent-Length: 0\r\n\r\n"), Switch::Connect);
    let h2c_with_body = b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n";
    assert_eq!((switch(h2c_with_body), facts(h2c_with_body).body), (Switch::None, BodyFraming::Length(2)));
    assert_eq!(switch(b"GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"), Switch::None);
}

#[test]
fn hostile_heads() {
    let table: &[(&str, &[u8], Refusal)] = &[
        ("no request", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", Refusal::RequestLine),
        ("HTTP/0.9", b"GET /\r\n\r\n", Refusal::RequestLine),
        ("no target", b"GET  HTTP/1.1\r\n\r\n", Refusal::RequestLine),
        ("space in target", b"GET /a b HTTP/1.1\r\n\r\n", Refusal::RequestLine),
        ("space at end", b"GET / HTTP/1.1 \r\n\r\n", Refusal::LineEnding),
        ("space in front", b" GET / HTTP/1.1\r\n\r\n", Refusal::RequestLine),
        ("tab", b"GET\t/ HTTP/1.1\r\n\r\n", Refusal::RequestLine),
        ("control in target", b"GET /\x01 HTTP/1.1\r\n\r\n", Refusal::RequestLine),
        ("NUL in target", b"GET /\0 HTTP/1.1\r\n\r\n", Refusal::RequestLine),
        ("not UTF-8 in target", b"GET /\xff HTTP/1.1\r\n\r\n", Refusal::RequestLine),
        ("relative target", b"GET a/b HTTP/1.1\r\n\r\n", Refusal::Target),
        ("authority for GET", b"GET h:80 HTTP/1.1\r\n\r\n", Refusal::Target),
        ("path for CONNECT", b"CONNECT http://h/ HTTP/1.1\r\n\r\n", Refusal::Target),
        ("HTTP/2.0", b"GET / HTTP/2.0\r\n\r\n", Refusal::Version),
        ("HTTP/1.2", b"GET / HTTP/1.2\r\n\r\n", Refusal::Version),
        ("broken preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", Refusal::Version),
        ("lower case", b"GET / http/1.1\r\n\r\n", Refusal::RequestLine),
        ("bare CR in request line", b"GET / HTTP/1.1\rX: y\r\n\r\n", Refusal::LineEnding),
        ("bare CR in value", b"GET / HTTP/1.1\r\na: b\rc: d\r\n\r\n", Refusal::HeaderValue),
        ("bare CR at the end", b"GET / HTTP/1.1\r\na: b\r\n\rX\r\n\r\n", Refusal::LineEnding),
        ("NUL in value", b"GET / HTTP/1.1\r\na: b\0\r\n\r\n", Refusal::HeaderValue),
        ("NUL in name", b"GET / HTTP/1.1\r\na\0: b\r\n\r\n", Refusal::HeaderName),
        ("folded", b"GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n", Refusal::HeaderName),
        ("folded with tab", b"GET / HTTP/1.1\r\na: b\r\n\tTransfer-Encoding: chunked\r\n\r\n", Refusal::HeaderName),
        ("folded at once", b"GET / HTTP/1.1\r\n a: b\r\n\r\n", Refusal::HeaderName),
        ("space before colon", b"GET / HTTP/1.1\r\nContent-Length : 5\r\n\r\n", Refusal::HeaderName),
        ("no colon", b"GET / HTTP/1.1\r\nabc\r\n\r\n", Refusal::HeaderName),
        ("no name", b"GET / HTTP/1.1\r\n: b\r\n\r\n", Refusal::HeaderName),
        ("bare LF after request line", b"GET / HTTP/1.1\nHost: h\r\n\r\n", Refusal::BareLineFeed),
        ("bare LF after header", b"GET / HTTP/1.1\r\na: b\nHost: h\r\n\r\n", Refusal::BareLineFeed),
        ("bare LF before the end", b"GET / HTTP/1.1\r\na: b\n\r\n", Refusal::BareLineFeed),
        ("bare LF at the end", b"GET / HTTP/1.1\r\na: b\r\n\n", Refusal::BareLineFeed),
        ("bare LF only", b"GET / HTTP/1.1\n\n", Refusal::BareLineFeed),
        ("TE identity", b"PUT / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", Refusal::TransferEncoding),
        ("TE gzip, chunked", b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Refusal::TransferEncoding),
        ("TE xchunked", b"PUT / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", Refusal::TransferEncoding),
        ("TE quoted", b"PUT / HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", Refusal::TransferEncoding),
        ("TE vertical tab", b"PUT / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Refusal::HeaderValue),
        ("TE parameter", b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", Refusal::TransferEncoding),
        (
            "TE chunked, chunked",
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            Refusal::TransferEncoding,
        ),
        ("TE empty", b"PUT / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n", Refusal::TransferEncoding),
        (
            "TE twice",
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            Refusal::TransferEncoding,
        ),
        (
            "TE with CL",
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            Refusal::TransferEncodingWithLength,
        ),
        (
            "CL 0 with TE",
            b"PUT / HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Refusal::TransferEncodingWithLength,
        ),
        ("TE in 1.0", b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::TransferEncodingInHttp10),
        ("CL twice", b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Refusal::RepeatedLength),
        (
            "CL twice, equal",
            b"PUT / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n",
            Refusal::RepeatedLength,
        ),
        ("CL list", b"PUT / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n", Refusal::InvalidLength),
        ("CL +", b"PUT / HTTP/1.1\r\nContent-Length: +5\r\n\r\n", Refusal::InvalidLength),
        ("CL -", b"PUT / HTTP/1.1\r\nContent-Length: -0\r\n\r\n", Refusal::InvalidLength),
        ("CL hex", b"PUT / HTTP/1.1\r\nContent-Length: 0x5\r\n\r\n", Refusal::InvalidLength),
        ("CL empty", b"PUT / HTTP/1.1\r\nContent-Length:\r\n\r\n", Refusal::InvalidLength),
        ("CL overflow", b"PUT / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n", Refusal::InvalidLength),
        ("CL blank inside", b"PUT / HTTP/1.1\r\nContent-Length: 1 2\r\n\r\n", Refusal::InvalidLength),
        ("Upgrade alone", b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", Refusal::UpgradeUnannounced),
        (
            "h2c alone",
            b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: HTTP2-Settings\r\n\r\n",
            Refusal::UpgradeUnannounced,
        ),
        (
            "Upgrade in 1.0",
            b"GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            Refusal::UpgradeInHttp10,
        ),
        (
            "Upgrade with length",
            b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\n",
            Refusal::UpgradeWithBody,
        ),
        (
            "Upgrade with chunks",
            b"GET / HTTP/1.1\r\nUpgrade: h2c, WebSocket\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\n\r\n",
            Refusal::UpgradeWithBody,
        ),
        ("CONNECT with body", b"CONNECT h:1 HTTP/1.1\r\nContent-Length: 5\r\n\r\n", Refusal::ConnectWithBody),
        ("empty line inside", b"GET / HTTP/1.1\r\r\n\r\n", Refusal::LineEnding),
    ];
    for (name, bytes, expected) in table {
        match reader().poll(bytes) {
            Outcome::Refused(refusal) => assert_eq!(refusal, *expected, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        for step in 1..bytes.len() {
            let outcome = poll_in_steps(bytes, step);
            assert!(matches!(outcome, Outcome::Refused(_)), "{name} by {step}: {outcome:?}");
        }
        let with_more = [bytes, &b"GET / HTTP/1.1\r\n\r\n"[..]].concat();
        assert!(matches!(reader().poll(&with_more), Outcome::Refused(_)), "{name} with a request behind it");
    }
}

#[test]
fn heads_are_bounded() {
    let head = |len: usize| {
        let frame = b"GET / HTTP/1.1\r\na: \r\n\r\n".len();
        [b"GET / HTTP/1.1\r\na: ".to_vec(), vec![b'x'; len - frame], b"\r\n\r\n".to_vec()].concat()
    };
    let max = usize::from(MAX_HEAD);
    assert!(matches!(reader().poll(&head(max)), Outcome::Request(_)));
    assert!(matches!(poll_in_steps(&head(max), 1000), Outcome::Request(_)));
    assert!(matches!(reader().poll(&head(max + 1)), Outcome::Refused(Refusal::HeadTooLarge)));
    let endless = vec![b'A'; max];
    assert!(matches!(reader().poll(&endless[..max - 1]), Outcome::Partial));
    assert!(matches!(poll_in_steps(&endless, 700), Outcome::Refused(Refusal::HeadTooLarge)));
}

#[test]
fn headers_are_counted() {
    let with = |count: usize| [b"GET / HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(count), b"\r\n".to_vec()].concat();
    assert!(matches!(reader().poll(&with(100)), Outcome::Request(_)));
    let outcome = reader().poll(&with(101));
    assert!(matches!(outcome, Outcome::Refused(refusal) if refusal.status() == 431), "{outcome:?}");
}

/// Reads this head as one that is served.
fn serve(reader: &mut HeadReader, bytes: &[u8]) -> (usize, Facts) {
    let Outcome::Request(head) = reader.poll(bytes) else { panic!("no head: {}", bytes.escape_ascii()) };
    let seen = (head.len(), head.facts());
    assert_eq!(
        head.view(bytes).headers().count(),
        bytes[..head.len()].windows(2).filter(|end| end == b"\r\n").count() - 2
    );
    reader.remember(head, bytes);
    seen
}

#[test]
fn a_head_that_is_repeated_is_the_same_head() {
    let mut reader = reader();
    let heads: [&[u8]; 6] = [
        b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET /a HTTP/1.1\r\nhost: h\r\n\r\nmore",
        b"GET /a HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nmore",
        b"GET /b HTTP/1.1\r\nhost: h\r\n\r\n",
        b"HEAD /a HTTP/1.0\r\nhost: h\r\nconnection: close\r\nexpect: 100-continue\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for (index, first) in heads.iter().enumerate() {
        for bytes in [first, first, &heads[0], &heads[5 - index], first] {
            let fresh = head(bytes);
            assert_eq!(serve(&mut reader, bytes), (fresh.len(), fresh.facts()));
        }
    }
}

#[test]
fn a_head_that_is_repeated_has_its_key() {
    let mut reader = HeadReader::new(MAX_HEAD, PrefaceRule::Refused);
    let [get, other] = [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], b"GET / HTTP/1.1\r\nhost: b\r\n\r\n"];
    let key = Some(AffinityKey::from_bits(7));
    for _ in 0..2 {
        let Outcome::Request(mut head) = reader.poll(get) else { panic!() };
        assert_eq!(head.key(), None);
        head.set_key(key);
        reader.remember(head, get);
    }
    let Outcome::Request(head) = reader.poll(get) else { panic!() };
    assert_eq!(head.key(), key);
    reader.remember(head, get);
    let Outcome::Request(head) = reader.poll(other) else { panic!() };
    assert_eq!(head.key(), None, "another head may be somebody else's");
}

#[test]
fn what_is_repeated_is_not_parsed_again_and_what_is_not_takes_its_room() {
    let (get, put) = (b"GET / HTTP/1.1\r\na: b\r\n\r\n", b"PUT / HTTP/1.1\r\nc: d\r\n\r\n");
    let mut reader = reader();
    serve(&mut reader, get);
    // As if these bytes were another's head.
    let (mut known, other) = (head(get), head(b"HEAD / HTTP/1.0\r\n\r\n"));
    known.facts = other.facts();
    let room = known.headers.as_ptr();
    reader.remember(known, get);
    let Outcome::Request(repeated) = reader.poll(get) else { panic!() };
    assert_eq!(repeated.facts(), other.facts());
    reader.remember(repeated, get);
    let Outcome::Request(parsed) = reader.poll(put) else { panic!() };
    assert_eq!((parsed.headers.as_ptr(), parsed.headers.len()), (room, 1));
}

#[test]
fn what_only_begins_like_the_last_head_is_read_anew() {
    let bytes = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n";
    let mut reader = reader();
    serve(&mut reader, bytes);
    assert!(!reader.remembers(), "there may be no second one");
    serve(&mut reader, bytes);
    assert!(reader.remembers());
    assert!(matches!(reader.poll(&bytes[..bytes.len() - 1]), Outcome::Partial));
    assert!(matches!(reader.poll(bytes), Outcome::Request(_)), "the rest of it");
    assert!(matches!(reader.poll(&bytes[..bytes.len() - 2]), Outcome::Partial));
    let other = [&bytes[..bytes.len() - 2], b"bad header\r\n\r\n"].concat();
    assert!(matches!(reader.poll(&other), Outcome::Refused(_)));
}

#[test]
fn long_heads_and_those_that_leave_http_are_not_kept() {
    let with = |len: usize| [b"GET / HTTP/1.1\r\na: ", &*b"b".repeat(len - 23), b"\r\n\r\n"].concat();
    let mut reader = reader();
    serve(&mut reader, &with(50));
    serve(&mut reader, &with(MAX_REMEMBERED));
    assert!(reader.remembers());
    serve(&mut reader, &with(MAX_REMEMBERED + 1));
    assert!(!reader.remembers());
    serve(&mut reader, &with(100));
    reader.forget();
    assert!(!reader.remembers());
}

#[test]
fn the_largest_bound_keeps_positions() {
    let mut reader = HeadReader::new(u16::MAX, PrefaceRule::Refused);
    let tail = b"\r\nlast: value\r\n\r\n";
    let mut bytes = b"GET / HTTP/1.1\r\na: ".to_vec();
    bytes.resize(usize::from(u16::MAX) - tail.len(), b'x');
    bytes.extend_from_slice(tail);
    let Outcome::Request(head) = reader.poll(&bytes) else { panic!() };
    assert_eq!(head.view(&bytes).header("last"), Some(&b"value"[..]));
}

#[test]
fn the_preface_is_recognised_on_new_connections_only() {
    let all = [PREFACE, b"\0\0\0\x04"].concat();
    for len in 1..=all.len() {
        let outcome = reader().poll(&all[..len]);
        let as_expected = match len {
            1..PREFACE_MARK => matches!(outcome, Outcome::Partial),
            PREFACE_MARK..24 => matches!(outcome, Outcome::PartialPreface),
            _ => matches!(outcome, Outcome::Preface),
        };
        assert!(as_expected, "{len}: {outcome:?}");
    }
    assert!(matches!(poll_in_steps(b"PROPFIND / HTTP/1.1\r\n\r\n", 1), Outcome::Request(_)));
    assert!(matches!(poll_in_steps(b"PRI / HTTP/1.1\r\n\r\n", 1), Outcome::Request(_)));
    let mut later = reader();
    later.refuse_preface();
    assert!(matches!(later.poll(&all), Outcome::Refused(Refusal::Version)));
}

#[test]
fn empty_lines_in_front_are_skipped() {
    let mut reader = reader();
    assert_eq!(reader.skip_empty_lines(b"\r\n\n\r\nGET"), 5);
    assert_eq!(reader.skip_empty_lines(b"GET\r\n"), 0);
    assert!(matches!(reader.poll(b"\r"), Outcome::Partial));
    assert_eq!(reader.skip_empty_lines(b"\r\nGET / HTTP/1.1\r\n\r\n"), 2);
    assert!(matches!(reader.poll(b"GET / HTTP/1.1\r\n\r\n"), Outcome::Request(_)));
    reader.poll(b"\r");
    assert_eq!(reader.skip_empty_lines(b"\r\n\x16\x03"), 2);
    assert!(matches!(reader.poll(b"\x16\x03"), Outcome::Refused(_)), "what follows is seen for the first time");
    assert!(matches!(poll_in_steps(b"\rGET / HTTP/1.1\r\n\r\n", 1), Outcome::Refused(_)));
}

/// Heads of right and wrong lines.
fn rough_head() -> impl Strategy<Value = Vec<u8>> {
    let starts: Vec<&[u8]> = vec![
        b"GET / HTTP/1.1\r\n",
        b"POST /a?b HTTP/1.0\r\n",
        b"CONNECT h:1 HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"GET /\n",
        b"G",
    ];
    let lines: Vec<&[u8]> = vec![
        b"a: b\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: upgrade\r\n",
        b"Upgrade: websocket\r\n",
        b"\r\n",
        b" folded\r\n",
        b"a: b\n",
        b"\r",
        b"\0",
        b"x",
    ];
    let lines = proptest::collection::vec(proptest::sample::select(lines), 0..8);
    (proptest::sample::select(starts), lines).prop_map(|(start, lines)| [start, &lines.concat(), b"\r\n\r\n"].concat())
}

proptest! {
    #[test]
    fn splits_do_not_change_what_is_served(bytes in rough_head(), step in 1usize..30) {
        match (reader().poll(&bytes), poll_in_steps(&bytes, step)) {
            (Outcome::Request(whole), Outcome::Request(split)) => {
                prop_assert_eq!((whole.len(), whole.facts()), (split.len(), split.facts()));
            }
            (Outcome::Refused(_), Outcome::Refused(_)) => {}
            (Outcome::Preface, Outcome::Preface) => {}
            (whole, split) => prop_assert!(false, "{:?} but {:?} by {}", whole, split, step),
        }
    }

    #[test]
    fn any_bytes_have_an_outcome(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1usize..30) {
        let _ = poll_in_steps(&bytes, step);
    }
}
