//! The client's address, as far as the proxies between it and us can be believed.
//!
//! ```text
//! X-Forwarded-For: whatever the client wrote, client, proxy 1
//!                  ◄── never reached ──────── stop ◄─ trusted ◄─ proxy 2, the peer: trusted
//! ```
//!
//! Every proxy adds the address it got the request from at the right end. So the walk begins at the peer, the one
//! address nobody can forge, and goes to the left for as long as whoever wrote an entry is trusted. What an untrusted
//! client wrote is further left than its own address, and so is never looked at. An entry that is no address ends the
//! walk: what follows it has no author that we know.
//!
//! Only the one header that the proxies are known to write is read. Most proxies write one and pass the others on as
//! the client sent them, so reading all of them is the same as believing the client.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::text::is_token;
use crate::config::TrustedProxies;
use crate::dispatch::handoff::RequestHead;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Over TCP, from this address.
    Ip(IpAddr),
    /// On a unix socket, where nobody has an address.
    Unix,
}

impl Peer {
    /// The peer's address, an IPv4-mapped one as IPv4.
    fn address(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.to_canonical()),
            Self::Unix => None,
        }
    }
}

impl From<Option<SocketAddr>> for Peer {
    /// The peer of a connection: none is one on a unix socket.
    fn from(address: Option<SocketAddr>) -> Self {
        address.map_or(Self::Unix, |address| Self::Ip(address.ip()))
    }
}

/// The header in which trusted proxies write whom they speak for.
///
/// As text: the header's name. Default: `x-forwarded-for`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum AddressHeader {
    /// `X-Forwarded-For`: addresses separated by commas, each proxy adds one at the right. The default.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239): the same with names, `for=192.0.2.1;proto=https`.
    Forwarded,
    /// A header with one address, which the proxy sets instead of adding to it: `x-real-ip`, `cf-connecting-ip`.
    Single(String),
}

impl AddressHeader {
    /// What there is, for error messages and documentation.
    pub(crate) const ALLOWED: &'static str =
        "`x-forwarded-for`, `forwarded`, or a header with one address, such as `x-real-ip`";

    /// The header's name, in lower case.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
            Self::Single(name) => name,
        }
    }
}

impl fmt::Display for AddressHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AddressHeader {
    type Err = String;

    /// Reads a header's name, in any case.
    ///
    /// # Errors
    ///
    /// A text that is no header's name.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            name if is_token(name) => Ok(Self::Single(name.to_owned())),
            _ => Err(format!("{text:?} is not a header name")),
        }
    }
}

/// Who is believed about the client's address, and where it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProxyTrust {
    pub(crate) proxies: TrustedProxies,
    pub(crate) header: AddressHeader,
}

impl ProxyTrust {
    /// The address of the client that sent this head over a connection from `peer`.
    ///
    /// That is the nearest address that is no trusted proxy's; if all are, the farthest. None if the peer is on a unix
    /// socket and names nobody, or is not trusted to. IPv4-mapped addresses are IPv4 addresses here, and ports and
    /// zones are left out.
    pub(crate) fn client(&self, peer: Peer, head: &RequestHead<'_>) -> Option<IpAddr> {
        if !self.proxies.trusts(peer) {
            return peer.address();
        }
        let lines = head.header_lines(self.header.name());
        let named = match self.header {
            AddressHeader::XForwardedFor => {
                self.walk(lines.rev().flat_map(|line| line.rsplit(|&byte| byte == b',')).map(node))
            }
            AddressHeader::Forwarded => {
                self.walk(lines.rev().flat_map(|line| rsplit_unquoted(line, b',')).map(forwarded_for))
            }
            AddressHeader::Single(_) => only(lines).and_then(node),
        };
        named.or(peer.address())
    }

    /// Goes from one entry to the next for as long as whoever wrote the next is trusted. The first was written by the
    /// peer, which is.
    fn walk(&self, entries: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
        let mut farthest = None;
        for address in entries.map_while(|entry| entry) {
            farthest = Some(address);
            if !self.proxies.trusts(Peer::Ip(address)) {
                break;
            }
        }
        farthest
    }
}

/// The client that our own proxy names: nobody but it writes to where this is read.
pub(crate) fn forwarded_by_us(head: &RequestHead<'_>) -> Option<SocketAddr> {
    let element = str::from_utf8(head.header("forwarded")?).ok()?;
    let (client, _) = element.strip_prefix("for=\"")?.split_once('"')?;
    let without_port = || {
        let address = client.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(client);
        address.parse().ok().map(|address: IpAddr| SocketAddr::new(address, 0))
    };
    client.parse().ok().or_else(without_port)
}

/// The only item. Of two nobody knows which the proxy wrote.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    items.next().filter(|_| items.next().is_none())
}

/// The client in one element of `Forwarded`: `for="[2001:db8::1]:4711";proto=https`.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let parameters = rsplit_unquoted(element, b';').map(<[u8]>::trim_ascii);
    let clients = parameters.filter_map(|parameter| {
        let (name, value) = parameter.split_at_checked(4)?;
        name.eq_ignore_ascii_case(b"for=").then_some(value)
    });
    only(clients).and_then(node)
}

/// The address of a node as proxies write it: with a port or without, in brackets, quotes, with a zone.
///
/// None for what is no address: `unknown`, `_obfuscated`, `unix:`, nothing at all.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    let text = str::from_utf8(text).ok()?;
    let address = if let Some(text) = text.strip_prefix('[') {
        let (address, port) = text.split_once(']')?;
        is_port(port).then(|| zoned(address))??.into()
    } else if let Some(address) = zoned(text) {
        // Without brackets nobody can tell a port from the last group: there is none.
        address.into()
    } else {
        let (address, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        is_port(port).then(|| address.parse::<Ipv4Addr>().ok())??.into()
    };
    Some(IpAddr::to_canonical(&address))
}

/// An IPv6 address whose zone, if it has one, does not matter: it names an interface of the proxy's machine.
fn zoned(text: &str) -> Option<Ipv6Addr> {
    match text.split_once('%') {
        Some((_, "")) => None,
        Some((address, _)) => address.parse().ok(),
        None => text.parse().ok(),
    }
}

/// Whether this can follow an address: nothing, or a colon with a port, which may be obfuscated (`:_x`).
fn is_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else {
        return text.is_empty();
    };
    match port.strip_prefix('_') {
        Some(name) => {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
        None => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
    }
}

/// The parts of a list from the right to the left, where quotes protect the separator.
///
/// It reads from the right because the right end is what a trusted proxy wrote: a quote that a client left open further
/// left cannot swallow it.
fn rsplit_unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut left = Some(text);
    std::iter::from_fn(move || {
        let text = left?;
        let Some(at) = last_unquoted(text, separator) else {
            return left.take();
        };
        left = Some(&text[..at]);
        Some(&text[at + 1..])
    })
}

fn last_unquoted(text: &[u8], separator: u8) -> Option<usize> {
    let mut is_quoted = false;
    text.iter().enumerate().rposition(|(at, &byte)| {
        // `\"` is a quote that neither begins nor ends anything.
        if byte == b'"' && !is_escaped(&text[..at]) {
            is_quoted = !is_quoted;
        }
        byte == separator && !is_quoted
    })
}

/// Whether what follows this text has a backslash in front that is not itself escaped.
fn is_escaped(before: &[u8]) -> bool {
    let backslashes = before.iter().rev().take_while(|&&byte| byte == b'\\').count();
    !backslashes.is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dispatch::handoff::HeadParts;

    const PROXY: &str = "10.0.0.1";

    fn trust(header: &str) -> ProxyTrust {
        ProxyTrust { proxies: TrustedProxies::of("10.0.0.0/8,fd00::/8"), header: header.parse().unwrap() }
    }

    fn peer(text: &str) -> Peer {
        Peer::Ip(text.parse().unwrap())
    }

    /// The client that `lines` of the header name to a peer, as text.
    fn client_from(from: &str, header: &str, lines: &[&[u8]]) -> String {
        let headers: Vec<_> = lines.iter().map(|line| (header, *line)).collect();
        let parts = HeadParts::new("GET", "/", &headers);
        trust(header).client(peer(from), &parts.head()).unwrap().to_string()
    }

    /// The client that a trusted proxy names in `line`.
    fn client(header: &str, line: impl AsRef<[u8]>) -> String {
        client_from(PROXY, header, &[line.as_ref()])
    }

    #[test]
    fn nodes() {
        for (text, address) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1:80", Some("192.0.2.1")),
            ("192.0.2.1:_p-1.x", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:DB8::1]:65535", Some("2001:db8::1")),
            ("[2001:db8::1]:_x", Some("2001:db8::1")),
            ("2001:db8::1:80", Some("2001:db8::1:80")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("[fe80::1%25eth0]:80", Some("fe80::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("[::ffff:c000:201]:80", Some("192.0.2.1")),
            (" \t192.0.2.1 \t", Some("192.0.2.1")),
            ("\"192.0.2.1:80\"", Some("192.0.2.1")),
            ("\"[2001:db8::1]:80\"", Some("2001:db8::1")),
            ("", None),
            ("\"\"", None),
            ("\"", None),
            ("\"192.0.2.1", None),
            ("192.0.2.1\"", None),
            ("unknown", None),
            ("_hidden", None),
            ("unix:", None),
            ("-", None),
            ("localhost", None),
            ("192.0.2", None),
            ("192.0.2.256", None),
            ("192.0.2.01", None),
            ("192.0.2.1.", None),
            ("192.0.2.1:", None),
            ("192.0.2.1:65536", None),
            ("192.0.2.1:+80", None),
            ("192.0.2.1:80:80", None),
            ("192.0.2.1:_", None),
            ("192.0.2.1:_a b", None),
            ("192.0.2.1 80", None),
            ("192.0.2.1%eth0", None),
            ("192.0.2.1/32", None),
            ("[192.0.2.1]", None),
            ("[2001:db8::1", None),
            ("2001:db8::1]", None),
            ("[2001:db8::1]80", None),
            ("[2001:db8::1]:", None),
            ("[]", None),
            ("[fe80::1%]", None),
            ("fe80::1%", None),
            ("1:2", None),
            ("3221225985", None),
        ] {
            assert_eq!(node(text.as_bytes()), address.map(|text| text.parse().unwrap()), "{text}");
        }
        assert_eq!(node(b"192.0.2.1\xff"), None);
    }

    #[test]
    fn x_forwarded_for() {
        for (line, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1, 10.0.0.2", "192.0.2.1"),
            ("192.0.2.1,10.0.0.3,10.0.0.2:80", "192.0.2.1"),
            ("192.0.2.1, [fd00::2]:80", "192.0.2.1"),
            ("192.0.2.1, ::ffff:10.0.0.2", "192.0.2.1"),
            // What the client wrote itself.
            ("203.0.113.9, 192.0.2.1", "192.0.2.1"),
            ("10.0.0.9, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
            ("junk, 192.0.2.1", "192.0.2.1"),
            ("\"open, 192.0.2.1", "192.0.2.1"),
            (",,, 192.0.2.1", "192.0.2.1"),
            // All are trusted: the leftmost.
            ("10.0.0.3", "10.0.0.3"),
            ("10.0.0.4, 10.0.0.3, 10.0.0.2", "10.0.0.4"),
            // What has no author ends the walk at the last that has one.
            ("192.0.2.1, unknown", PROXY),
            ("192.0.2.1, unknown, 10.0.0.2", "10.0.0.2"),
            ("192.0.2.1, , 10.0.0.2", "10.0.0.2"),
            ("192.0.2.1,", PROXY),
            ("192.0.2.1 10.0.0.2", PROXY),
            ("192.0.2.1;10.0.0.2", PROXY),
            ("unix:", PROXY),
            ("", PROXY),
        ] {
            assert_eq!(client("x-forwarded-for", line), expected, "{line}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        for (lines, expected) in [
            (&["203.0.113.9", "192.0.2.1"][..], "192.0.2.1"),
            (&["203.0.113.9, 192.0.2.1", "10.0.0.3, 10.0.0.2"], "192.0.2.1"),
            (&["192.0.2.1", "", "10.0.0.2"], "10.0.0.2"),
            (&["192.0.2.1", "unknown"], PROXY),
            (&[], PROXY),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
            assert_eq!(client_from(PROXY, "x-forwarded-for", &lines), expected, "{lines:?}");
            let named: Vec<_> = lines.iter().map(|line| for_each(line)).collect();
            let named: Vec<_> = named.iter().map(String::as_bytes).collect();
            assert_eq!(client_from(PROXY, "forwarded", &named), expected, "{named:?}");
        }
    }

    /// A list of addresses as `Forwarded` has it.
    fn for_each(line: &[u8]) -> String {
        let nodes = str::from_utf8(line).unwrap().split(',').map(str::trim);
        nodes.map(|node| format!("for={node}")).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn forwarded() {
        for (line, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=\"192.0.2.1:80\"", "192.0.2.1"),
            ("for=\"[2001:db8::1]:80\"", "2001:db8::1"),
            ("for=\"[2001:db8::1]\";proto=https;by=10.0.0.1", "2001:db8::1"),
            ("proto=https; by=_x ; FOR=192.0.2.1 ;host=\"a,b;for=203.0.113.9\"", "192.0.2.1"),
            ("for=192.0.2.1, for=10.0.0.2", "192.0.2.1"),
            ("for=192.0.2.1,for=\"[fd00::2]\" , For=10.0.0.2;proto=http", "192.0.2.1"),
            ("for=10.0.0.3, for=10.0.0.2", "10.0.0.3"),
            // What the client wrote itself, as far as the comma that the proxy added.
            ("for=203.0.113.9, for=192.0.2.1", "192.0.2.1"),
            ("for=\"open, for=192.0.2.1", "192.0.2.1"),
            ("for=\"open, for=\"192.0.2.1:80\"", "192.0.2.1"),
            ("for=\"open\\, for=\"192.0.2.1:80\"", "192.0.2.1"),
            ("for=\"open\\\", for=\"192.0.2.1:80\"", "192.0.2.1"),
            ("for=203.0.113.9;host=\"\\\", for=192.0.2.1;host=\"x\\\"y\\\\\"", "192.0.2.1"),
            // No author, no address.
            ("for=192.0.2.1, for=unknown", PROXY),
            ("for=192.0.2.1, for=_hidden, for=10.0.0.2", "10.0.0.2"),
            ("for=192.0.2.1, for=\"_hidden:80\"", PROXY),
            ("for=192.0.2.1, proto=https", PROXY),
            ("for=192.0.2.1, ", PROXY),
            ("for=192.0.2.1;for=203.0.113.9", PROXY),
            ("for =192.0.2.1", PROXY),
            ("for", PROXY),
            ("xfor=192.0.2.1", PROXY),
            ("192.0.2.1", PROXY),
            ("by=192.0.2.1", PROXY),
            ("host=\"for=192.0.2.1\"", PROXY),
            ("host=\"a;for=192.0.2.1;b\"", PROXY),
        ] {
            assert_eq!(client("forwarded", line), expected, "{line}");
        }
    }

    #[test]
    fn one_address_in_a_header_of_its_own() {
        for (lines, expected) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&[" [2001:db8::1]:80 "], "2001:db8::1"),
            // The value is taken as it is, even if it is a proxy's.
            (&["10.0.0.7"], "10.0.0.7"),
            (&["192.0.2.1, 203.0.113.9"], PROXY),
            (&["192.0.2.1", "203.0.113.9"], PROXY),
            (&["192.0.2.1", "192.0.2.1"], PROXY),
            (&["junk"], PROXY),
            (&[], PROXY),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
            assert_eq!(client_from(PROXY, "x-real-ip", &lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn the_other_headers_are_the_clients() {
        let spoofed: [(&str, &[u8]); 4] = [
            ("forwarded", b"for=203.0.113.9"),
            ("x-real-ip", b"203.0.113.9"),
            ("X_Forwarded_For", b"203.0.113.9"),
            ("X-Forwarded-For", b"192.0.2.1"),
        ];
        let parts = HeadParts::new("GET", "/", &spoofed);
        assert_eq!(trust("x-forwarded-for").client(peer(PROXY), &parts.head()), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(trust("cf-connecting-ip").client(peer(PROXY), &parts.head()), Some(PROXY.parse().unwrap()));
    }

    #[test]
    fn untrusted_peers_speak_for_themselves() {
        for header in ["x-forwarded-for", "x-real-ip"] {
            assert_eq!(client_from("192.0.2.7", header, &[b"203.0.113.9"]), "192.0.2.7");
            assert_eq!(client_from("::ffff:192.0.2.7", header, &[b"203.0.113.9"]), "192.0.2.7");
            assert_eq!(client_from("::ffff:10.0.0.1", header, &[b"203.0.113.9"]), "203.0.113.9");
            assert_eq!(client_from("::ffff:10.0.0.1", header, &[]), "10.0.0.1");
        }
        let parts = HeadParts::new("GET", "/", &[("x-forwarded-for", b"203.0.113.9")]);
        let nobody = ProxyTrust::default();
        assert_eq!(nobody.client(peer("127.0.0.1"), &parts.head()), Some("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn unix_peers_have_no_address_of_their_own() {
        let parts = HeadParts::new("GET", "/", &[("x-forwarded-for", b"203.0.113.9, 192.0.2.1")]);
        let mut trust = trust("x-forwarded-for");
        assert_eq!(trust.client(Peer::Unix, &parts.head()), None);
        trust.proxies = TrustedProxies::of("unix");
        assert_eq!(trust.client(Peer::Unix, &parts.head()), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(trust.client(Peer::Unix, &HeadParts::new("GET", "/", &[]).head()), None);
        assert_eq!(Peer::from(None), Peer::Unix);
        assert_eq!(Peer::from(Some("192.0.2.1:80".parse().unwrap())), peer("192.0.2.1"));
    }

    #[test]
    fn headers_by_name() {
        assert_eq!("X-Forwarded-For".parse(), Ok(AddressHeader::default()));
        assert_eq!("Forwarded".parse(), Ok(AddressHeader::Forwarded));
        assert_eq!("X-Real-IP".parse(), Ok(AddressHeader::Single("x-real-ip".to_owned())));
        for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
            assert_eq!(name.parse::<AddressHeader>().unwrap().to_string(), name);
        }
        for text in ["", "a b", "a:b", "x-real-ip,x-forwarded-for"] {
            assert_eq!(text.parse::<AddressHeader>(), Err(format!("{text:?} is not a header name")));
        }
    }

    /// What a client can put in front of what the proxies add.
    fn spoof() -> impl Strategy<Value = Vec<u8>> {
        let parts = vec![
            &b"203.0.113.9"[..],
            b"10.0.0.9",
            b"for=",
            b"203.0.113.9",
            b"\"",
            b"\\",
            b",",
            b";",
            b" ",
            b"[",
            b"]:80",
            b"unknown",
            b"_x",
            b"\xff",
        ];
        proptest::collection::vec(proptest::sample::select(parts), 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        /// The client is behind two trusted proxies, which add to its line, or begin another one.
        #[test]
        fn nothing_a_client_sends_makes_it_another(spoof in spoof(), quoted: bool, same_line: bool) {
            let quote = if quoted { "\"" } else { "" };
            for (header, by_proxies) in [
                ("x-forwarded-for", "192.0.2.1, 10.0.0.2".to_owned()),
                ("forwarded", format!("for={quote}192.0.2.1{quote}, for={quote}10.0.0.2:80{quote};proto=https")),
            ] {
                let one_line = [&spoof[..], b", ", by_proxies.as_bytes()].concat();
                let lines = if same_line { vec![&one_line[..]] } else { vec![&spoof[..], by_proxies.as_bytes()] };
                prop_assert_eq!(client_from(PROXY, header, &lines), "192.0.2.1");
            }
        }

        #[test]
        fn every_address_is_read_however_it_is_written(address: IpAddr, port: u16) {
            let canonical = Some(address.to_canonical());
            let with_port = SocketAddr::new(address, port).to_string();
            prop_assert_eq!(node(address.to_string().as_bytes()), canonical);
            prop_assert_eq!(node(with_port.as_bytes()), canonical);
            prop_assert_eq!(node(format!("\"{with_port}\"").as_bytes()), canonical);
        }

        #[test]
        fn lists_come_apart_where_they_were_joined(parts in proptest::collection::vec("[a\\\\\",]{0,5}", 1..5)) {
            let quoted: Vec<_> = parts.iter().map(|part| format!("{part:?}")).collect();
            let joined = quoted.join(",");
            let mut split: Vec<_> = rsplit_unquoted(joined.as_bytes(), b',').collect();
            split.reverse();
            prop_assert_eq!(split, quoted.iter().map(String::as_bytes).collect::<Vec<_>>());
        }

        #[test]
        fn without_quotes_it_is_a_plain_split(text in "[a\\\\,]{0,9}") {
            let split: Vec<_> = rsplit_unquoted(text.as_bytes(), b',').collect();
            prop_assert_eq!(split, text.as_bytes().rsplit(|&byte| byte == b',').collect::<Vec<_>>());
        }
    }
}
