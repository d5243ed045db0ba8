//! Our cookie in the headers of requests: found, taken out, and everything else as it was. And what keeps it out of
//! responses.

use super::{open, split};
use crate::affinity::ticket::{is_publicly_cacheable, strip, values};

const NAMES: [&str; 3] = ["s", "sticky", "__Host-s"];

pub(super) fn check(input: &[u8]) {
    let (mut numbers, rest) = open(input);
    let (cookies, caching) = split(rest);
    check_request(NAMES[numbers.choose(3)], cookies);
    check_response(caching);
}

fn check_request(name: &str, text: &[u8]) {
    let lines = || text.split(|byte| *byte == b'\n');
    let stripped = strip(name, lines());
    assert_eq!(values(name, lines()).collect::<Vec<_>>(), stripped.values);
    let all = lines().collect::<Vec<_>>().join(&b';');
    let (ours, others): (Vec<_>, Vec<_>) = cookies(&all).partition(|cookie| is_named(cookie, name));
    let value = |cookie: &&'_ [u8]| {
        let equals = cookie.iter().position(|byte| *byte == b'=').expect("it has a name");
        cookie[equals + 1..].trim_ascii().to_vec()
    };
    assert_eq!(stripped.values, ours.iter().map(value).collect::<Vec<_>>());
    let rest = stripped.rest.as_deref();
    assert_eq!(cookies(rest.unwrap_or_default()).collect::<Vec<_>>(), others);
    assert_eq!(rest.is_none(), others.is_empty());
    assert!(rest.is_none_or(|rest| rest.len() <= text.len() + lines().count()));
    let again = strip(name, rest);
    assert_eq!((again.values.len(), again.rest.as_deref()), (0, rest));
}

/// The cookies of a header, as an application reads them.
fn cookies(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    header.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|cookie| !cookie.is_empty())
}

fn is_named(cookie: &[u8], name: &str) -> bool {
    let rest = cookie.strip_prefix(name.as_bytes()).map(<[u8]>::trim_ascii_start);
    rest.is_some_and(|rest| rest.starts_with(b"="))
}

/// Lines of `Cache-Control`, as others may write them.
fn check_response(text: &[u8]) {
    let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    let is_cacheable = |lines: &[&[u8]]| is_publicly_cacheable(lines.iter().map(|line| ("Cache-Control", *line)));
    let lower = text.to_ascii_lowercase();
    let in_lower_case: Vec<_> = lower.split(|byte| *byte == b'\n').collect();
    let cacheable = is_cacheable(&lines);
    assert_eq!(is_cacheable(&in_lower_case), cacheable);
    let reversed: Vec<_> = lines.iter().rev().copied().collect();
    assert_eq!(is_cacheable(&reversed), cacheable);
    assert!(is_cacheable(&[&lines[..], &[b"Public"]].concat()));
    assert!(is_cacheable(&[&lines[..], &[b"s-maxage=1"]].concat()));
    let has_public = lower.windows(6).any(|window| window == b"public" || window == b"s-maxa");
    if !has_public {
        assert!(!is_cacheable(&[&lines[..], &[b"no-store"]].concat()), "what is for one is not for all");
    }
    let has_word = |word: &[u8]| lower.windows(word.len()).any(|window| window == word);
    if !has_public && !has_word(b"max-age") && !has_word(b"immutable") {
        assert!(!cacheable, "nothing says so");
    }
}
