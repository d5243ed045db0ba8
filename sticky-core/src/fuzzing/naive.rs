//! Second opinions: what the pieces under test do byte by byte is done here with the whole input in hand, in the most
//! obvious way and without sharing their code.

mod chunked;
mod request;
mod response;

pub(super) use self::chunked::{Stop, chunked};
pub(super) use self::request::{Body, Head, Next, Request, head};
pub(super) use self::response::{Answer, answer};

/// How many bytes of empty lines are in front.
pub(super) fn empty_lines(bytes: &[u8]) -> usize {
    match bytes {
        [b'\n', rest @ ..] => 1 + empty_lines(rest),
        [b'\r', b'\n', rest @ ..] => 2 + empty_lines(rest),
        _ => 0,
    }
}

/// The tokens of a list, in lower case.
fn tokens(value: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    text.split(',').map(|token| token.trim_matches([' ', '\t']).to_owned()).filter(|token| !token.is_empty()).collect()
}

/// A number of decimal digits below 2^63.
fn decimal(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let is_digits = text.chars().all(|character| character.is_ascii_digit());
    let number: i64 = is_digits.then(|| text.parse().ok())??;
    Some(number.unsigned_abs())
}
