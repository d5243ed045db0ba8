//! Reading one response: content-length, chunked, or until the end.

use std::io::{self, ErrorKind, Read};

/// A whole response.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    headers: Headers,
    /// The decoded body.
    pub body: Vec<u8>,
    trailers: Headers,
    /// The status codes of the interim responses (100, 103) before it.
    pub interim: Vec<u16>,
}

type Headers = Vec<(String, String)>;

impl Response {
    /// This answer, unless it is a proxy's word that the worker has given none.
    ///
    /// # Errors
    /// As if the connection had ended without it.
    pub fn or_lost(self) -> io::Result<Self> {
        let is_lost = self.status == 502 && self.text().contains("worker_broke_off");
        if is_lost { Err(ErrorKind::ConnectionReset.into()) } else { Ok(self) }
    }

    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Every header of that name (lower case), in order.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first trailer of that name (lower case).
    pub fn trailer(&self, name: &str) -> Option<&str> {
        find(&self.trailers, name)
    }

    /// Whether it says that the connection ends with it.
    pub fn announces_close(&self) -> bool {
        let options = self.header_values("connection");
        options.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("close"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The slot that answered.
    ///
    /// # Panics
    /// When the answer does not say.
    pub fn worker(&self) -> u16 {
        self.number("x-worker")
    }

    /// The process that answered.
    ///
    /// # Panics
    /// When the answer does not say.
    pub fn pid(&self) -> u32 {
        self.number("x-pid")
    }

    /// The generation that answered.
    ///
    /// # Panics
    /// When the answer does not say.
    pub fn generation(&self) -> u32 {
        self.number("x-generation")
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> T {
        let value = self.header(name).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// Reads the response to a request of this method; interim ones (1xx but 101) are only noted. Bytes beyond it stay
    /// in `ahead`.
    pub(super) fn read(stream: &mut impl Read, ahead: &mut Vec<u8>, method: &str) -> io::Result<Self> {
        let mut interim = Vec::new();
        loop {
            let head = read_head(stream, ahead)?;
            let mut response = parse_head(&head)?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(response.status);
                continue;
            }
            response.interim = interim;
            if method != "HEAD" {
                response.read_body(stream, ahead)?;
            }
            return Ok(response);
        }
    }

    fn read_body(&mut self, stream: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<()> {
        if matches!(self.status, 101 | 204 | 304) {
            return Ok(());
        }
        if self.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            self.body = read_chunks(stream, ahead)?;
            self.trailers = read_trailers(stream, ahead)?;
        } else if let Some(length) = self.header("content-length") {
            let length = length.parse().map_err(|_| malformed("content-length"))?;
            self.body = take(stream, ahead, length)?;
        } else {
            self.body = std::mem::take(ahead);
            stream.read_to_end(&mut self.body)?;
        }
        Ok(())
    }
}

fn find<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("malformed {what}"))
}

/// Reads at least one byte more.
pub(super) fn read_more(stream: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        read => {
            ahead.extend_from_slice(&buffer[..read]);
            Ok(())
        }
    }
}

fn take(stream: &mut impl Read, ahead: &mut Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    while ahead.len() < length {
        read_more(stream, ahead)?;
    }
    Ok(ahead.drain(..length).collect())
}

fn read_past(stream: &mut impl Read, ahead: &mut Vec<u8>, end: &[u8]) -> io::Result<Vec<u8>> {
    loop {
        if let Some(at) = ahead.windows(end.len()).position(|window| window == end) {
            return Ok(ahead.drain(..at + end.len()).collect());
        }
        read_more(stream, ahead)?;
    }
}

fn read_head(stream: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<String> {
    let head = read_past(stream, ahead, b"\r\n\r\n")?;
    String::from_utf8(head).map_err(|_| malformed("head"))
}

fn parse_head(head: &str) -> io::Result<Response> {
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    Ok(Response {
        status: status.ok_or_else(|| malformed("status line"))?,
        headers: lines.filter_map(parse_header).collect(),
        body: Vec::new(),
        trailers: Vec::new(),
        interim: Vec::new(),
    })
}

fn parse_header(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_ascii_lowercase(), value.trim().to_owned()))
}

fn read_chunks(stream: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_past(stream, ahead, b"\r\n")?;
        let digits = std::str::from_utf8(&line).map_err(|_| malformed("chunk"))?.trim();
        let length = usize::from_str_radix(digits, 16).map_err(|_| malformed("chunk"))?;
        if length == 0 {
            return Ok(body);
        }
        let chunk = take(stream, ahead, length + 2)?;
        if !chunk.ends_with(b"\r\n") {
            return Err(malformed("end of a chunk"));
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

/// The lines after the last chunk, and the empty one that ends them.
fn read_trailers(stream: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<Headers> {
    let mut trailers = Vec::new();
    loop {
        let line = read_past(stream, ahead, b"\r\n")?;
        if line == b"\r\n" {
            return Ok(trailers);
        }
        let line = String::from_utf8(line).map_err(|_| malformed("trailer"))?;
        trailers.push(parse_header(&line).ok_or_else(|| malformed("trailer"))?);
    }
}
