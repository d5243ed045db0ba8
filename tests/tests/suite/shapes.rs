//! Every shape of request that is known to be framed differently by one server and the next, and what must become of it.

use crate::bed::Bed;
use crate::keys::Key;

/// What must become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Answered with this status in the application's place, and the connection closed.
    Refused(u16),
    /// The same with 400 or 431 by the framework, which does not take it for a request.
    RefusedByFramework,
    /// The same with 400 or 431, by handoff or by the framework, which has begun to read: what was wrong is in the body.
    Broken,
    /// Answered by the application with this status; the connection goes on.
    Served(u16),
    /// Answered by the application with this status; the answer announces the end of the connection.
    ServedLast(u16),
}

/// One request, as bytes, without what follows it.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fate: Fate,
}

/// All of them with this key, and what must become of them on this bed.
pub(crate) fn on(bed: &Bed, key: &Key) -> Vec<Shape> {
    let mut shapes = all(key);
    for shape in &mut shapes {
        shape.fate = fate_on(bed, shape);
    }
    shapes
}

/// All of them with this key, and what must become of them wherever the framework takes what handoff does.
pub(crate) fn all(key: &Key) -> Vec<Shape> {
    let mut shapes = Vec::new();
    let mut add = |name, fate, bytes: Vec<u8>| shapes.push(Shape { name, bytes, fate });
    let post = |lines: &str, body: &str| {
        let key = &key.name;
        format!("POST /echo HTTP/1.1\r\nhost: test\r\nx-key: {key}\r\n{lines}\r\n\r\n{body}").into_bytes()
    };
    for (name, lines, body) in LENGTHS.iter().chain(CODINGS).chain(LINES).chain(UPGRADES) {
        add(name, Fate::Refused(400), post(lines, body));
    }
    for (name, chunks) in CHUNKS {
        add(name, Fate::Broken, post("transfer-encoding: chunked", chunks));
    }
    for (name, fate, head) in heads(&key.name) {
        add(name, fate, head.into_bytes());
    }
    for (name, lines, body) in GOOD {
        add(name, Fate::Served(200), post(lines, body));
    }
    for (name, fate, bytes) in large(&key.name) {
        add(name, fate, bytes);
    }
    shapes
}

/// What becomes of it where the framework refuses what others serve, or ends a connection that others go on with.
fn fate_on(bed: &Bed, shape: &Shape) -> Fate {
    match (shape.name, shape.fate) {
        ("no host" | "a second host", _) if !bed.serves_any_host() => Fate::RefusedByFramework,
        ("a hundred headers", _) if bed.max_headers() < 100 => Fate::RefusedByFramework,
        ("CONNECT to a path" | "CONNECT to a host" | "h2c with a body", Fate::Served(status))
            if !bed.goes_on_after_refused_upgrade() =>
        {
            Fate::ServedLast(status)
        }
        (_, fate) => fate,
    }
}

type Lines = (&'static str, &'static str, &'static str);

const LENGTHS: &[Lines] = &[
    ("length and coding", "content-length: 5\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
    ("coding and length", "transfer-encoding: chunked\r\ncontent-length: 5", "0\r\n\r\n"),
    ("coding and length 0", "content-length: 0\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
    ("the same length twice", "content-length: 5\r\ncontent-length: 5", "hello"),
    ("two lengths", "content-length: 5\r\ncontent-length: 0", "hello"),
    ("two lengths, the short one first", "Content-Length: 0\r\ncontent-length: 5", "hello"),
    ("a list of lengths", "content-length: 5, 5", "hello"),
    ("a length with a plus", "content-length: +5", "hello"),
    ("a negative length", "content-length: -5", ""),
    ("a hexadecimal length", "content-length: 0x5", "hello"),
    ("a length with a blank", "content-length: 5 0", "hello"),
    ("an empty length", "content-length: ", ""),
    ("a length with a letter", "content-length: 5a", "hello"),
    ("a length with a point", "content-length: 5.0", "hello"),
    ("a length beyond 64 bits", "content-length: 18446744073709551621", "hello"),
];

const CODINGS: &[Lines] = &[
    ("chunked twice", "transfer-encoding: chunked, chunked", "0\r\n\r\n"),
    ("chunked in two lines", "transfer-encoding: chunked\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
    ("chunked and identity", "transfer-encoding: chunked\r\ntransfer-encoding: identity", "0\r\n\r\n"),
    ("gzip, then chunked", "transfer-encoding: gzip, chunked", "0\r\n\r\n"),
    ("chunked, then gzip", "transfer-encoding: chunked, gzip", "0\r\n\r\n"),
    ("identity", "transfer-encoding: identity", ""),
    ("no coding", "transfer-encoding: ", ""),
    ("a coding that looks alike", "transfer-encoding: xchunked", "0\r\n\r\n"),
    ("chunked with a comma", "transfer-encoding: chunked,", "0\r\n\r\n"),
    ("chunked with a parameter", "transfer-encoding: chunked;q=1", "0\r\n\r\n"),
    ("chunked in quotes", "transfer-encoding: \"chunked\"", "0\r\n\r\n"),
    ("chunked after a vertical tab", "transfer-encoding: \x0bchunked", "0\r\n\r\n"),
    ("chunked folded", "transfer-encoding:\r\n chunked", "0\r\n\r\n"),
    ("chunked with a blank before the colon", "transfer-encoding : chunked", "0\r\n\r\n"),
    ("chunked with a tab before the colon", "transfer-encoding\t: chunked", "0\r\n\r\n"),
    ("chunked behind a bare carriage return", "x-a: b\rtransfer-encoding: chunked", "0\r\n\r\n"),
    ("chunked behind a bare line feed", "x-a: b\ntransfer-encoding: chunked", "0\r\n\r\n"),
    ("a length behind a NUL", "x-a: b\0\r\ncontent-length: 5", "hello"),
];

const LINES: &[Lines] = &[
    ("a folded value", "x-a: b\r\n c", ""),
    ("a folded value with a tab", "x-a: b\r\n\tc: d", ""),
    ("a line without a colon", "nothing", ""),
    ("a line without a name", ": value", ""),
    ("a name with a blank", "x a: b", ""),
    ("a name with a NUL", "x\0a: b", ""),
    ("a name in parentheses", "x(a): b", ""),
    ("a value with a NUL", "x-a: b\0c", ""),
    ("a value with a control character", "x-a: b\x01c", ""),
    ("a value with a delete", "x-a: b\x7fc", ""),
    ("a value with a bare carriage return", "x-a: b\rc", ""),
    ("a value that ends with a carriage return", "x-a: b\r", ""),
    ("a bare line feed", "x-a: b\nx-c: d", ""),
];

const UPGRADES: &[Lines] = &[
    ("an upgrade that is not announced", "upgrade: websocket", ""),
    ("another upgrade that is not announced", "connection: keep-alive\r\nupgrade: h2c", ""),
    ("a WebSocket with a length", "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 5", "hello"),
    ("a WebSocket with chunks", "connection: upgrade\r\nupgrade: websocket\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
];

const CHUNKS: &[(&str, &str)] = &[
    ("a chunk with a plus", "+5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk with a minus", "-5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk with a blank before", " 5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk with a blank after", "5 \r\nhello\r\n0\r\n\r\n"),
    ("a chunk with a tab after", "5\t\r\nhello\r\n0\r\n\r\n"),
    ("a chunk with an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk without a size", "\r\nhello\r\n0\r\n\r\n"),
    ("a chunk with nothing but an extension", ";a=b\r\nhello\r\n0\r\n\r\n"),
    ("a chunk beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("a chunk of almost 64 bits", "fffffffffffffffe\r\nhello\r\n0\r\n\r\n"),
    ("a size that ends with a line feed", "5\nhello\r\n0\r\n\r\n"),
    ("a size that ends with a carriage return", "5\rhello\r\n0\r\n\r\n"),
    ("a chunk longer than its size", "4\r\nhello\r\n0\r\n\r\n"),
    ("a chunk that ends with a line feed", "5\r\nhello\n0\r\n\r\n"),
    ("a chunk without an end", "5\r\nhello0\r\n\r\n"),
    ("an extension with a NUL", "5;a=\0\r\nhello\r\n0\r\n\r\n"),
    ("an extension with a line feed", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("a trailer with a NUL", "0\r\nx-a: \0\r\n\r\n"),
    ("a folded trailer", "0\r\nx-a: b\r\n c\r\n\r\n"),
    ("a trailer with a line feed", "0\r\nx-a: b\n\r\n"),
    ("a last chunk that ends with a line feed", "0\n\r\n"),
    ("an end with a line feed", "0\r\n\n"),
];

/// What both our head reader and hyper accept and frame alike; the body that comes back is not compared here.
const GOOD: &[Lines] = &[
    ("chunked in other letters", "Transfer-Encoding: CHUNKED", "5\r\nhello\r\n0\r\n\r\n"),
    ("a length with zeros in front", "content-length: 005", "hello"),
    ("chunks with extensions", "transfer-encoding: chunked", "5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n"),
    ("chunks with zeros in front", "transfer-encoding: chunked", "0005\r\nhello\r\n000\r\n\r\n"),
    ("chunks in capital letters", "transfer-encoding: chunked", "A\r\nhellohello\r\n0\r\n\r\n"),
    ("trailers that name a length", "transfer-encoding: chunked", "0\r\ncontent-length: 5\r\nhost: x\r\n\r\n"),
    ("h2c with a body", "connection: upgrade, http2-settings\r\nupgrade: h2c\r\ncontent-length: 5", "hello"),
    ("a second host", "host: other", ""),
    ("an expectation nobody knows", "expect: 200-maybe", ""),
    ("a value with bytes beyond ASCII", "x-a: \u{e9}", ""),
    ("an empty value", "x-a:", ""),
];

fn heads(key: &str) -> Vec<(&'static str, Fate, String)> {
    let get = |line: &str| format!("{line}\r\nhost: test\r\nx-key: {key}\r\n\r\n");
    let refused = Fate::Refused(400);
    let chunked_1_0 = format!("POST /echo HTTP/1.0\r\nx-key: {key}\r\nconnection: keep-alive\r\n");
    let web_socket = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13";
    vec![
        ("two blanks before the target", refused, get("GET  / HTTP/1.1")),
        ("two blanks before the version", refused, get("GET /  HTTP/1.1")),
        ("a blank after the version", refused, get("GET / HTTP/1.1 ")),
        ("a blank in front", refused, get(" GET / HTTP/1.1")),
        ("tabs between the words", refused, get("GET\t/\tHTTP/1.1")),
        ("no version", refused, get("GET /")),
        ("a version in small letters", refused, get("GET / http/1.1")),
        ("something after the version", refused, get("GET / HTTP/1.1x")),
        ("a bare carriage return in the line", refused, get("GET /\rHTTP/1.1")),
        ("a NUL in the target", refused, get("GET /\0 HTTP/1.1")),
        ("a target without a slash", refused, get("GET nowhere HTTP/1.1")),
        ("a method in parentheses", refused, get("(GET) / HTTP/1.1")),
        ("CONNECT with a body", refused, get("CONNECT test:80 HTTP/1.1\r\ncontent-length: 5") + "hello"),
        ("line feeds alone", refused, get("GET / HTTP/1.1").replace('\r', "")),
        ("a line feed at the end", refused, get("GET / HTTP/1.1").replace("\r\n\r\n", "\r\n\n")),
        ("a version that is to come", Fate::Refused(505), get("GET / HTTP/1.2")),
        ("HTTP/2 in one line", Fate::Refused(505), get("GET / HTTP/2.0")),
        ("HTTP/0.9", Fate::Refused(505), get("GET / HTTP/0.9")),
        ("chunks in HTTP/1.0", refused, format!("{chunked_1_0}transfer-encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("a WebSocket in HTTP/1.0", refused, get(&format!("GET /ws HTTP/1.0\r\n{web_socket}"))),
        ("no host", Fate::Served(200), format!("GET / HTTP/1.1\r\nx-key: {key}\r\n\r\n")),
        ("empty lines in front", Fate::Served(200), "\r\n\r\n\r\n".to_owned() + &get("GET / HTTP/1.1")),
        ("a whole address", Fate::Served(200), get("GET http://other:80/ HTTP/1.1")),
        ("a method nobody knows", Fate::Served(404), get("NOBODY /nowhere HTTP/1.1")),
        ("the asterisk", Fate::Served(404), get("OPTIONS * HTTP/1.1")),
        ("CONNECT to a path", Fate::Served(404), get("CONNECT /echo HTTP/1.1")),
        ("CONNECT to a host", Fate::Served(404), get("CONNECT test:80 HTTP/1.1")),
        ("HTTP/1.0 that is kept", Fate::Served(200), get("GET / HTTP/1.0\r\nconnection: keep-alive")),
    ]
}

/// Beyond the bounds, and just within.
fn large(key: &str) -> Vec<(&'static str, Fate, Vec<u8>)> {
    let head = |lines: String| format!("GET / HTTP/1.1\r\nhost: test\r\nx-key: {key}\r\n{lines}\r\n\r\n").into_bytes();
    let fillers = |count| head((0..count).map(|number| format!("x-{number}: f")).collect::<Vec<_>>().join("\r\n"));
    let chunked = |body: String| {
        let head = format!("POST /echo HTTP/1.1\r\nhost: test\r\nx-key: {key}\r\ntransfer-encoding: chunked\r\n\r\n");
        (head + &body).into_bytes()
    };
    vec![
        ("a hundred headers", Fate::Served(200), fillers(98)),
        ("more than a hundred headers", Fate::Refused(431), fillers(99)),
        ("a head of 31 kB", Fate::Served(200), head(format!("x-a: {}", "a".repeat(31_000)))),
        ("a head of 33 kB", Fate::Refused(431), head(format!("x-a: {}", "a".repeat(33_000)))),
        ("a target of 33 kB", Fate::Refused(431), format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(33_000)).into()),
        ("a head without an end", Fate::Refused(431), format!("GET / HTTP/1.1\r\nx-a: {}", "a".repeat(70_000)).into()),
        ("a method without an end", Fate::Refused(431), "A".repeat(70_000).into()),
        ("an extension of 5 kB", Fate::Broken, chunked(format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5_000)))),
        ("trailers of 17 kB", Fate::Broken, chunked(format!("0\r\nx-a: {}\r\n\r\n", "a".repeat(17_000)))),
    ]
}
