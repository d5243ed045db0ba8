//! Whom proxies speak for: the same as in plain reading, and nothing that a client writes changes it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::open;
use crate::affinity::{AddressHeader, Peer, ProxyTrust};
use crate::config::TrustedProxies;
use crate::dispatch::handoff::RequestHead;
use crate::dispatch::handoff::head::{HeadReader, MAX_HEAD, Outcome, PrefaceRule};

const HEADERS: [&str; 3] = ["x-forwarded-for", "forwarded", "x-real-ip"];
const PEERS: [&str; 4] = ["10.0.0.1", "::ffff:10.1.2.3", "fd00::1", "192.0.2.7"];

pub(super) fn check(input: &[u8]) {
    let (mut numbers, text) = open(input);
    let name = HEADERS[numbers.choose(3)];
    let header: AddressHeader = name.parse().expect("a name");
    let trust = ProxyTrust { proxies: TrustedProxies::of("10.0.0.0/8,fd00::/8,unix"), header };
    let peer = PEERS.get(numbers.choose(5)).map(|peer| peer.parse::<IpAddr>().expect("an address"));
    let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    let Some(found) = ask(&trust, peer, name, &lines, |found, values| {
        assert_eq!(found, naive(name, peer, values).unwrap_or(found), "{values:?}");
        found
    }) else {
        return;
    };
    assert!(found.is_none_or(|address| address.to_canonical() == address));
    let nobody = ProxyTrust { proxies: TrustedProxies::default(), header: trust.header.clone() };
    let own = peer.map(|peer| peer.to_canonical());
    assert_eq!(ask(&nobody, peer, name, &lines, |found, _| found), Some(own));
    if name != "x-real-ip" && peer.is_none_or(is_proxy) {
        nothing_is_forged(&trust, peer, name, &lines, numbers.choose(2) == 1);
    }
}

/// What trusted proxies add behind the client's words counts, and the client's words do not.
fn nothing_is_forged(trust: &ProxyTrust, peer: Option<IpAddr>, name: &str, lines: &[&[u8]], is_quoted: bool) {
    let added = match (name, is_quoted) {
        ("forwarded", true) => &b"for=\"192.0.2.1:80\", for=\"[fd00::2]\";proto=https"[..],
        ("forwarded", false) => b"for=192.0.2.1, for=10.0.0.2",
        (_, true) => b"\"192.0.2.1\", \"[fd00::2]:80\"",
        (_, false) => b"192.0.2.1, 10.0.0.2",
    };
    let expected = "192.0.2.1".parse().ok();
    let (last, others) = lines.split_last().expect("at least one line");
    let joined = [last, &b", "[..], added].concat();
    let on_the_line = [others, &[&joined]].concat();
    let below = [lines, &[added]].concat();
    for lines in [on_the_line, below] {
        if let Some(found) = ask(trust, peer, name, &lines, |found, _| found) {
            assert_eq!(found, expected, "{lines:?}");
        }
    }
}

/// The client of a request with these lines, if they can be in one.
fn ask(
    trust: &ProxyTrust,
    peer: Option<IpAddr>,
    name: &str,
    lines: &[&[u8]],
    then: impl Fn(Option<IpAddr>, &[&[u8]]) -> Option<IpAddr>,
) -> Option<Option<IpAddr>> {
    let mut text = b"GET / HTTP/1.1\r\n".to_vec();
    for line in lines {
        text.extend_from_slice(&[name.as_bytes(), b": ", line, b"\r\n"].concat());
    }
    text.extend_from_slice(b"\r\n");
    let Outcome::Request(head) = HeadReader::new(MAX_HEAD, PrefaceRule::Refused).poll(&text) else {
        return None;
    };
    let view: RequestHead<'_> = head.view(&text);
    let values: Vec<_> = view.header_lines(name).collect();
    let peer = Peer::from(peer.map(|peer| SocketAddr::new(peer, 80)));
    Some(then(trust.client(peer, &view), &values))
}

// === the naive way ===

/// The client as these lines have it; none where that takes more than splitting.
fn naive(name: &str, peer: Option<IpAddr>, lines: &[&[u8]]) -> Option<Option<IpAddr>> {
    let own = peer.map(|peer| peer.to_canonical());
    if !peer.is_none_or(is_proxy) {
        return Some(own);
    }
    if name == "x-real-ip" {
        let named = if let [line] = lines { node(line) } else { None };
        return Some(named.or(own));
    }
    let list = lines.join(&b","[..]);
    if name == "forwarded" && (list.contains(&b'"') || list.contains(&b'\\')) {
        return None;
    }
    let mut found = own;
    let entries: Vec<_> = if lines.is_empty() { Vec::new() } else { list.split(|byte| *byte == b',').collect() };
    for entry in entries.into_iter().rev() {
        let named = if name == "forwarded" { forwarded(entry) } else { node(entry) };
        let Some(address) = named else { break };
        found = Some(address);
        if !is_proxy(address) {
            break;
        }
    }
    Some(found)
}

fn is_proxy(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.octets()[0] == 0xfd,
    }
}

fn forwarded(entry: &[u8]) -> Option<IpAddr> {
    let parameters = entry.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let mut clients = parameters.filter(|parameter| parameter.to_ascii_lowercase().starts_with(b"for="));
    let client = clients.next()?;
    clients.next().is_none().then(|| node(&client[4..]))?
}

fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let text = match text.as_bytes() {
        [b'"', .., b'"'] => &text[1..text.len() - 1],
        _ => text,
    };
    // A zone goes to the end, or to the bracket.
    let (text, zone) = match text.split_once('%') {
        Some((before, zone)) if before.starts_with('[') => {
            let (zone, after) = zone.split_once(']')?;
            (format!("{before}]{after}"), Some(zone))
        }
        Some((before, zone)) => (before.to_owned(), Some(zone)),
        None => (text.to_owned(), None),
    };
    if zone == Some("") {
        return None;
    }
    let address = match text.rsplit_once(":_") {
        Some((address, port)) if address.starts_with('[') || !address.contains(':') => {
            let is_good = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
            (!port.is_empty() && port.chars().all(is_good)).then_some(address)?
        }
        _ => &text,
    };
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
    let parsed = match bare {
        Some(bare) => IpAddr::V6(bare.parse::<Ipv6Addr>().ok()?),
        None => address.parse::<SocketAddr>().map(|address| address.ip()).or_else(|_| address.parse()).ok()?,
    };
    (zone.is_none() || parsed.is_ipv6()).then(|| parsed.to_canonical())
}
