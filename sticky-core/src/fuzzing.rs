//! What must hold for any bytes at all: the invariants of everything that reads what clients send, as functions that
//! panic when one is broken.
//!
//! The targets in `fuzz/` feed them what libFuzzer makes up; the tests here feed them the inputs that are kept in
//! `fuzz/corpus` and `fuzz/regressions`. Most compare the piece with a second, naive implementation of the same
//! ([`naive`]), which sees the whole input at once.
//!
//! An input consists of sections with [`MARK`] between them. The first is the numbers that stand for chance: sizes of
//! reads and writes, and what happens next where more than one thing can.

#[cfg(test)]
mod actix;
mod affinity;
mod bus;
mod client_address;
mod cookies;
mod exchange;
#[cfg(test)]
mod frameworks;
mod head;
#[cfg(all(test, feature = "http"))]
mod hyper;
mod message;
mod naive;
mod proxy_protocol;
#[cfg(test)]
mod replay;
mod request_body;
mod response;
mod sessions;
mod ticket;

/// Heads of requests.
pub fn head(bytes: &[u8]) {
    head::check(bytes);
}

/// Bodies of requests.
pub fn request_body(bytes: &[u8]) {
    request_body::check(bytes);
}

/// Answers as frameworks write them.
pub fn response(bytes: &[u8]) {
    response::check(bytes);
}

/// Whole connections that move between workers.
pub fn exchange(bytes: &[u8]) {
    exchange::check(bytes);
}

/// Whom proxies speak for.
pub fn client_address(bytes: &[u8]) {
    client_address::check(bytes);
}

/// The PROXY protocol.
pub fn proxy_protocol(bytes: &[u8]) {
    proxy_protocol::check(bytes);
}

/// Affinities as text, and the keys they find.
pub fn affinity(bytes: &[u8]) {
    affinity::check(bytes);
}

/// What travels with a descriptor.
pub fn message(bytes: &[u8]) {
    message::check(bytes);
}

/// Messages between workers on the bus.
pub fn bus(bytes: &[u8]) {
    bus::check(bytes);
}

/// Sticky cookies.
pub fn ticket(bytes: &[u8]) {
    ticket::check(bytes);
}

/// Sticky cookies among others.
pub fn cookies(bytes: &[u8]) {
    cookies::check(bytes);
}

/// The table of sessions that all processes share.
pub fn sessions(bytes: &[u8]) {
    sessions::check(bytes);
}

/// Between the sections of an input.
const MARK: &[u8] = b"\xff\xff";

/// The numbers of an input, and what follows them.
fn open(input: &[u8]) -> (Numbers<'_>, &[u8]) {
    let (numbers, rest) = split(input);
    (Numbers { left: numbers.iter() }, rest)
}

/// What is before the first mark and what is after it, which is nothing if there is none.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.windows(MARK.len()).position(|window| window == MARK) {
        Some(at) => (&bytes[..at], &bytes[at + MARK.len()..]),
        None => (bytes, &[]),
    }
}

/// Numbers one after the other; after the last there are zeros.
#[derive(Clone)]
struct Numbers<'a> {
    left: std::slice::Iter<'a, u8>,
}

impl Numbers<'_> {
    fn next(&mut self) -> u8 {
        self.left.next().copied().unwrap_or_default()
    }

    /// One of so many.
    fn choose(&mut self, of: usize) -> usize {
        usize::from(self.next()) % of
    }

    /// The size of a read or a write: at least 1, mostly small, some large; with no number left as much as there is.
    fn size(&mut self) -> usize {
        match self.next() {
            0 => usize::MAX,
            number @ 1..=127 => usize::from(number),
            number => usize::from(number - 127) * 64,
        }
    }

    /// These bytes in pieces.
    fn pieces<'a>(&mut self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        let mut left = bytes;
        while !left.is_empty() {
            let (piece, rest) = left.split_at(self.size().min(left.len()));
            pieces.push(piece);
            left = rest;
        }
        pieces
    }
}
