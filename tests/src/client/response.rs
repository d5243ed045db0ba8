//! Reading one response: content-length, chunked, or until the end.

use std::io::{self, ErrorKind, Read};

/// A whole response.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The decoded body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
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

    /// Reads a response; interim ones (1xx but 101) are skipped. Bytes beyond it stay in `ahead`.
    pub(super) fn read(stream: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<Self> {
        loop {
            let head = read_head(stream, ahead)?;
            let mut response = parse_head(&head)?;
            if (100..200).contains(&response.status) && response.status != 101 {
                continue;
            }
            response.read_body(stream, ahead)?;
            return Ok(response);
        }
    }

    fn read_body(&mut self, stream: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<()> {
        if matches!(self.status, 101 | 204 | 304) {
            return Ok(());
        }
        if self.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            self.body = read_chunks(stream, ahead)?;
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
    let headers = lines.filter_map(|line| line.split_once(':'));
    Ok(Response {
        status: status.ok_or_else(|| malformed("status line"))?,
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
        body: Vec::new(),
    })
}

fn read_chunks(stream: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_past(stream, ahead, b"\r\n")?;
        let digits = std::str::from_utf8(&line).map_err(|_| malformed("chunk"))?.trim();
        let length = usize::from_str_radix(digits, 16).map_err(|_| malformed("chunk"))?;
        let chunk = take(stream, ahead, length + 2)?;
        if length == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..length]);
    }
}
