//! Affinities as text, and the keys they find.

use super::naive::{self, Head};
use super::{open, split};
use crate::affinity::{Affinity, Destination, KeyHasher, Known};
use crate::dispatch::handoff::RequestHead;
use crate::dispatch::handoff::head::{HeadReader, MAX_HEAD, Outcome, PrefaceRule};
use crate::id::WorkerId;

/// How many slots are there.
const LIVE: u16 = 12;

pub(super) fn check(input: &[u8]) {
    let (_, rest) = open(input);
    let (text, request) = split(rest);
    let request = &request[naive::empty_lines(request)..];
    let Ok(text) = std::str::from_utf8(text) else { return };
    let read = text.parse::<Affinity>();
    match &read {
        Ok(affinity) => {
            assert_eq!(affinity.to_string(), canonical(text));
            round_trip(affinity);
            find(affinity, request);
        }
        Err(error) => {
            assert!(!error.problems().is_empty());
            assert!(error.to_string().starts_with(&error.problems()[0].to_string()));
        }
    }
    let name = || text.to_owned();
    for affinity in [
        Affinity::cookie(name()),
        Affinity::cookie(name()).learn(),
        Affinity::header(name()),
        Affinity::query(name()),
        Affinity::path(name()),
    ] {
        if affinity.check().is_ok() {
            find(&affinity, request);
            round_trip(&affinity.or(Affinity::client_ip()));
        }
    }
}

/// Without the blanks, and header names in lower case.
fn canonical(text: &str) -> String {
    let parts = text.split('|').map(str::trim).map(|part| match part.strip_prefix("header:") {
        Some(name) => format!("header:{}", name.to_ascii_lowercase()),
        None => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("|")
}

fn round_trip(affinity: &Affinity) {
    let text = affinity.to_string();
    assert_eq!(text.parse().as_ref(), Ok(affinity));
    assert_eq!(affinity.check(), Ok(()));
    assert!(affinity.describe().split(", else ").count() >= text.split('|').count());
    assert_eq!(affinity.reads_requests(), text != "client-ip");
}

/// The key in a request is the one that plain reading finds.
fn find(affinity: &Affinity, request: &[u8]) {
    let Outcome::Request(head) = HeadReader::new(MAX_HEAD, PrefaceRule::Refused).poll(request) else { return };
    let Head::Acceptable(naive) = naive::head(request, usize::from(MAX_HEAD)) else { panic!("no head") };
    let (view, hasher) = (head.view(request), KeyHasher::new(7));
    let client = "192.0.2.1".parse().ok();
    // Stands in for the reader of sticky cookies.
    let worker = |head: &RequestHead<'_>| head.header("ticket").map(|_| WorkerId::new(3));
    let known = Known { ticket: &worker, is_live: &|slot| slot.get() < LIVE };
    let found = affinity.key(&view, client, &hasher, known);
    assert_eq!(affinity.clone().key(&view, client, &hasher, known), found);
    let text = affinity.to_string();
    let is_open = |last: &&str| matches!(*last, "sticky-cookie" | "engine-io");
    let parts = text.split('|').chain(text.split('|').next_back().filter(is_open).map(|_| "client-ip"));
    let tags = text.split('|').any(|part| part == "engine-io");
    let mut expected = None;
    for part in parts {
        let value = match part.split_once(':') {
            None if part == "sticky-cookie" => worker(&view).map(Destination::Worker),
            None if part == "engine-io" => tag(view.query()).map(|slot| Destination::Worker(WorkerId::new(slot))),
            None => client.map(|client| match parameter(view.query(), "EIO") {
                Some("3") if tags => Destination::Home(client),
                Some("4") if tags && parameter(view.query(), "sid").is_none() => Destination::New(client),
                _ => Destination::Address(client),
            }),
            Some(("path", _)) => return,
            Some((place, name)) => {
                value(place, name, &naive, view.query()).map(|value| Destination::Key(hasher.of_text(value)))
            }
        };
        expected = expected.or(value);
    }
    assert_eq!(found, expected, "{affinity}");
}

/// The slot that the id of an Engine.IO session names, if it is live.
fn tag(query: Option<&str>) -> Option<u16> {
    parameter(query, "EIO").filter(|version| *version == "4")?;
    let id = parameter(query, "sid")?;
    let is_id = |id: &str| id.chars().all(|c| c == '-' || c == '_' || c.is_ascii_digit() || c.is_ascii_alphabetic());
    let named = |slot: &u16| id.get(16..) == Some(&format!(".{slot}"));
    (0..LIVE).find(named).filter(|_| id.get(..16).is_some_and(is_id))
}

fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let name = format!("{name}=");
    query?.split('&').find_map(|pair| pair.strip_prefix(&name))
}

fn value(place: &str, name: &str, request: &naive::Request<'_>, query: Option<&str>) -> Option<Vec<u8>> {
    let headers = |name: &str| {
        let named = request.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| *value).collect::<Vec<_>>()
    };
    let value = match place {
        "header" => headers(name).first()?.to_vec(),
        "cookie" => {
            let name = name.strip_suffix("+learn").unwrap_or(name);
            let all = headers("cookie").join(&b";"[..]);
            let mut cookies = all.split(|byte| *byte == b';').map(trim);
            let value = cookies.find_map(|cookie| named(cookie, name.as_bytes()))?;
            let inner = match value {
                [b'"', inner @ .., b'"'] => inner,
                value => value,
            };
            decoded(inner, false)
        }
        _ => {
            let mut parameters =
                query?.split('&').map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
            let (_, value) = parameters.find(|(found, _)| decoded(found.as_bytes(), true) == name.as_bytes())?;
            decoded(value.as_bytes(), true)
        }
    };
    (!value.is_empty()).then_some(value)
}

/// The value of a cookie if it has this name.
fn named<'a>(cookie: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let equals = cookie.iter().position(|byte| *byte == b'=')?;
    (trim(&cookie[..equals]) == name).then(|| trim(&cookie[equals + 1..]))
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn decoded(text: &[u8], is_form: bool) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let mut all = Vec::new();
    let mut left = text;
    while let [first, rest @ ..] = left {
        left = rest;
        let escape = if let (b'%', [high, low, ..]) = (*first, rest) { digit(*high).zip(digit(*low)) } else { None };
        all.push(match (*first, escape) {
            (_, Some((high, low))) => {
                left = &rest[2..];
                (high * 16 + low) as u8
            }
            (b'+', None) if is_form => b' ',
            (byte, None) => byte,
        });
    }
    all
}
