//! What the clients send and what they take for an answer: HTTP/1.1, written by hand so that it costs the load little.

use std::{io, str};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Head and body of an answer, at most.
pub(super) const MAX_RESPONSE: usize = 16 * 1024;

/// How a request's head looks, and where its key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Four short lines and no key.
    Plain,
    /// The same with the key in `x-key`.
    Bare,
    /// The same, and the key in the query's `sid` as well, for servers that know it by that name alone.
    BareWithSid,
    /// What Chrome sends to a site that it knows, with the key in the cookie `session`.
    Browser,
}

impl Head {
    /// A request for `path` of `host` with `key`.
    pub fn get(self, path: &str, host: &str, key: &str) -> String {
        match self {
            Self::Plain => format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{BARE_LINES}\r\n"),
            Self::Bare => format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{BARE_LINES}x-key: {key}\r\n\r\n"),
            Self::BareWithSid => Self::Bare.get(&format!("{path}?sid={key}"), host, key),
            Self::Browser => {
                let cookies = format!("{COOKIES_BEFORE}; session={key}; {COOKIES_AFTER}");
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{BROWSER_LINES}Cookie: {cookies}\r\n\r\n")
            }
        }
    }
}

const BARE_LINES: &str = "user-agent: bench\r\naccept: */*\r\n";

const BROWSER_LINES: &str = "Connection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"142\", \"Google Chrome\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Windows\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 \
    Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en-US;q=0.9,en;q=0.8\r\n";

const COOKIES_BEFORE: &str = "_ga=GA1.1.1734902817.1763812345; theme=dark; consent=necessary%2Cstatistics";
const COOKIES_AFTER: &str = "_ga_7XK2M9Q4TB=GS2.1.s1763812345$o3$g1$t1763812399$j6$l0$h0; tz=Europe%2FVienna";

/// Sends one request and reads its answer into `buffer`; returns the answer.
pub(super) async fn exchange<'a>(stream: &mut TcpStream, request: &[u8], buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    stream.write_all(request).await?;
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if let Some(length) = response_length(&buffer[..filled])? {
            return if length == filled {
                Ok(&buffer[..length])
            } else {
                Err(io::Error::other("more than one answer"))
            };
        }
    }
}

/// The length of the answer that `bytes` hold or begin with, once that much is there. A switch of protocols has no body.
fn response_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else {
        return Ok(None);
    };
    if bytes.starts_with(b"HTTP/1.1 101 ") {
        return Ok(Some(head));
    }
    if !bytes.starts_with(b"HTTP/1.1 200 ") {
        return Err(io::Error::other(format!("answered {}", String::from_utf8_lossy(&bytes[..head]))));
    }
    let body: usize = header(bytes, "content-length")
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| io::Error::other("an answer without a length"))?;
    Ok(Some(head + body).filter(|&length| length <= bytes.len()))
}

/// Whether the server keeps the connection after this answer.
pub(super) fn keeps_alive(response: &[u8]) -> bool {
    header(response, "connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"))
}

/// The value of the header `name`.
pub(super) fn header<'a>(response: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = response.split(|&byte| byte == b'\n').skip(1).take_while(|line| *line != b"\r");
    let value = lines.find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        value.strip_prefix(b":").filter(|_| found.eq_ignore_ascii_case(name.as_bytes()))
    })?;
    str::from_utf8(value).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nX-Worker: 3\r\ncontent-length: 6\r\n\r\nhello\n";

    #[test]
    fn an_answer_is_complete_with_its_last_byte_and_not_before() {
        for length in 0..ANSWER.len() {
            assert_eq!(response_length(&ANSWER[..length]).unwrap(), None, "after {length} bytes");
        }
        assert_eq!(response_length(ANSWER).unwrap(), Some(ANSWER.len()));
        assert_eq!(response_length(&[ANSWER, b"HTTP"].concat()).unwrap(), Some(ANSWER.len()));
    }

    #[test]
    fn only_a_success_with_a_length_is_an_answer() {
        assert!(response_length(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(response_length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        let switched = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";
        assert_eq!(response_length(switched).unwrap(), Some(switched.len()));
    }

    #[test]
    fn headers_are_found_in_any_case_and_only_in_the_head() {
        assert_eq!(header(ANSWER, "x-worker"), Some("3"));
        assert_eq!(header(ANSWER, "x-work"), None);
        assert_eq!(header(b"HTTP/1.1 200 OK\r\n\r\nx-worker: 3\r\n", "x-worker"), None);
    }

    #[test]
    fn a_connection_is_kept_unless_the_answer_says_otherwise() {
        assert!(keeps_alive(ANSWER));
        assert!(keeps_alive(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n"));
        assert!(!keeps_alive(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"));
    }

    #[test]
    fn a_browser_sends_about_a_thousand_bytes_and_its_key_among_other_cookies() {
        let head = Head::Browser.get("/", "127.0.0.1:54321", "0123456789abcdef0123");
        assert!((800..=1_000).contains(&head.len()), "{} bytes", head.len());
        assert!(head.contains("; session=0123456789abcdef0123; "));
        assert!(head.ends_with("\r\n\r\n") && head.matches("\r\n\r\n").count() == 1);
        assert!(head.lines().skip(1).all(|line| line.is_empty() || line.contains(": ")), "{head}");
    }

    #[test]
    fn each_head_has_its_key_where_it_says() {
        let get = |head: Head| head.get("/", "h", "k");
        assert_eq!(get(Head::Plain), "GET / HTTP/1.1\r\nhost: h\r\nuser-agent: bench\r\naccept: */*\r\n\r\n");
        assert_eq!(
            get(Head::Bare),
            "GET / HTTP/1.1\r\nhost: h\r\nuser-agent: bench\r\naccept: */*\r\nx-key: k\r\n\r\n"
        );
        assert!(get(Head::BareWithSid).starts_with("GET /?sid=k HTTP/1.1\r\n"));
        assert!(get(Head::BareWithSid).contains("\r\nx-key: k\r\n"));
    }
}
