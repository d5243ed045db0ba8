//! A program that listens on a port, for `run_on_port`. It takes bytes for a request only where there is one way to read
//! them, and notes each in the journal by its `x-key`; what could be read in another way it notes as `ambiguous`.

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::str;

use sticky_core::Cluster;
use sticky_tests::journal::Journal;
use sticky_tests::testbed::BoxError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn main() -> Result<(), BoxError> {
    Cluster::builder().build()?.run_on_port(|port| async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let journal = Rc::new(Journal::from_env()?);
        let tasks = tokio::task::LocalSet::new();
        tasks
            .run_until(async {
                loop {
                    let (stream, _) = listener.accept().await?;
                    tokio::task::spawn_local(converse(stream, Rc::clone(&journal)));
                }
            })
            .await
    })?;
    Ok(())
}

/// Answers one request after the other. Who asks ends the connection, or is not understood.
async fn converse(mut stream: TcpStream, journal: Rc<Journal>) -> Result<(), BoxError> {
    let mut bytes = Vec::new();
    let mut is_continued = false;
    loop {
        match Request::read(&bytes) {
            Ok(Read::Whole(request, length)) => {
                journal.begin(&request.key);
                bytes.drain(..length);
                is_continued = false;
                stream.write_all(ANSWER).await?;
                continue;
            }
            Ok(Read::Head { waits: true }) if !is_continued => {
                is_continued = true;
                stream.write_all(CONTINUE).await?;
            }
            Ok(Read::Head { .. } | Read::Nothing) => {}
            Err(Ambiguous(why)) => {
                journal.begin("ambiguous");
                eprintln!("{why} in {}", bytes.escape_ascii());
                return Ok(());
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}

struct Request {
    key: String,
}

/// How far a request has come.
enum Read {
    Nothing,
    /// Its head, but not all of its body, for which it `waits` to be asked.
    Head {
        waits: bool,
    },
    /// All of it, in so many bytes.
    Whole(Request, usize),
}

/// Why bytes can be read in more ways than one.
struct Ambiguous(&'static str);

impl Request {
    fn read(bytes: &[u8]) -> Result<Read, Ambiguous> {
        let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(Read::Nothing) };
        let head = str::from_utf8(&bytes[..end]).unwrap_or("\0");
        if head.contains(|character: char| character.is_control() && !"\r\n\t".contains(character)) {
            return Err(Ambiguous("a control character"));
        }
        if head.replace("\r\n", "").contains(['\r', '\n']) {
            return Err(Ambiguous("half a line ending"));
        }
        let mut lines = head.split("\r\n");
        let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        if words.len() != 3 || words.contains(&"") || words[2] != "HTTP/1.1" {
            return Err(Ambiguous("a request line"));
        }
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(Ambiguous("a line without a colon"))?;
            if name.is_empty() || name.contains([' ', '\t']) {
                return Err(Ambiguous("a blank in a name"));
            }
            fields.push((name.to_ascii_lowercase(), value.trim_ascii()));
        }
        let values =
            |name: &str| fields.iter().filter(|(found, _)| found == name).map(|(_, value)| *value).collect::<Vec<_>>();
        let rest = &bytes[end + 4..];
        let body = match (values("content-length").as_slice(), values("transfer-encoding").as_slice()) {
            ([], []) => Some(0),
            ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let length = length.parse().map_err(|_| Ambiguous("a length"))?;
                (rest.len() >= length).then_some(length)
            }
            ([], ["chunked"]) => chunked(rest)?,
            _ => return Err(Ambiguous("a body")),
        };
        let waits = values("expect") == ["100-continue"];
        let key = values("x-key").first().copied().unwrap_or("none").to_owned();
        Ok(body.map_or(Read::Head { waits }, |body| Read::Whole(Self { key }, end + 4 + body)))
    }
}

/// The length of a body in chunks, if all of it is there.
fn chunked(bytes: &[u8]) -> Result<Option<usize>, Ambiguous> {
    let mut at = 0;
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let text = str::from_utf8(&bytes[at..at + line]).unwrap_or_default();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Ambiguous("a chunk's length"));
        }
        let length = usize::from_str_radix(text, 16).map_err(|_| Ambiguous("a chunk's length"))?;
        at += line + 2;
        if length == 0 {
            // Trailers, if there are any, and an empty line.
            let is_bare = bytes[at..].starts_with(b"\r\n");
            return Ok(if is_bare { Some(at + 2) } else { find(&bytes[at..], b"\r\n\r\n").map(|end| at + end + 4) });
        }
        match bytes.get(at + length..at + length + 2) {
            None => return Ok(None),
            Some(b"\r\n") => at += length + 2,
            Some(_) => return Err(Ambiguous("a chunk's end")),
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
