//! What a proxy changes of a message's headers. Pure.
//!
//! Headers that concern one connection end here (RFC 9110, 7.6.1), those that say whom a proxy speaks for are ours alone.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, Entry, FORWARDED, HOST, HeaderName, SET_COOKIE, TE, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, Version};

use crate::dispatch::handoff::tokens;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What only proxies may say of their clients, beside what is set anew.
pub(super) const SPOKEN_FOR: [&str; 6] = [
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-real-ip",
    "cf-connecting-ip",
];

/// What `Connection` cannot name: the application relies on it, and a client could have it removed.
pub(super) const KEPT: [HeaderName; 6] =
    [HOST, COOKIE, SET_COOKIE, CONTENT_LENGTH, FORWARDED, HeaderName::from_static("authorization")];

/// Takes off what concerned the connection that a message came on, and says whether that was to become another protocol.
pub(super) fn end_connection(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        for name in named(headers) {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    remove(headers, |name| matches!(name, "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"));
    // Trailers pass, so that may be said on.
    if let Entry::Occupied(mut te) = headers.entry(TE) {
        let takes_trailers =
            te.iter().any(|value| tokens::list(value.as_bytes()).any(|token| token.eq_ignore_ascii_case(b"trailers")));
        if takes_trailers {
            te.insert(HeaderValue::from_static("trailers"));
        } else {
            te.remove();
        }
    }
}

/// The headers that `Connection` names and may name.
fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).into_iter();
    let names = values.flat_map(|value| tokens::list(value.as_bytes())).filter_map(|token| {
        let is_option = [&b"close"[..], b"keep-alive", b"upgrade"].iter().any(|one| token.eq_ignore_ascii_case(one));
        HeaderName::from_bytes(token).ok().filter(|_| !is_option)
    });
    names.filter(|name| !KEPT.contains(name) && *name != TE && !name.as_str().starts_with("x-forwarded-")).collect()
}

/// The protocol that a message asks for, or agrees to, in place of HTTP.
pub(super) fn upgrade(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    if version != Version::HTTP_11 {
        return None;
    }
    let mut options = tokens::ConnectionOptions::default();
    headers.get_all(CONNECTION).into_iter().for_each(|value| options.add(value.as_bytes()));
    headers.get(UPGRADE).filter(|_| options.upgrade).cloned()
}

/// Announces another protocol again, after [`end_connection`].
pub(super) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Whether a protocol is WebSocket.
pub(super) fn is_web_socket(protocol: &HeaderValue) -> bool {
    tokens::list(protocol.as_bytes()).any(|token| token.eq_ignore_ascii_case(b"websocket"))
}

/// Whether a status says that the message's `Upgrade` is for the other side, whatever became of it.
pub(super) fn keeps_upgrade(status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || status == StatusCode::UPGRADE_REQUIRED
}

/// What is said of a client to its worker.
#[derive(Clone, Debug)]
pub(super) struct Words {
    client: Option<SocketAddr>,
    by_https: bool,
    address: Option<HeaderValue>,
    forwarded: HeaderValue,
}

impl Words {
    pub(super) fn of(client: Option<SocketAddr>, by_https: bool) -> Self {
        let proto = if by_https { "https" } else { "http" };
        let forwarded = match client {
            None => written(format!("proto={proto}")),
            Some(client) if client.port() != 0 => written(format!("for=\"{client}\";proto={proto}")),
            Some(client) if client.is_ipv6() => written(format!("for=\"[{}]\";proto={proto}", client.ip())),
            Some(client) => written(format!("for=\"{}\";proto={proto}", client.ip())),
        };
        let address = client.map(|client| written(client.ip().to_string()));
        Self { client, by_https, address, forwarded }
    }

    /// The same as lines of a head.
    pub(super) fn lines(&self) -> Vec<u8> {
        let proto = if self.by_https { "https" } else { "http" };
        let mut lines = format!("x-forwarded-proto: {proto}\r\n").into_bytes();
        let address = self.address.as_ref().map(|address| ("x-forwarded-for: ", address));
        for (name, value) in [("forwarded: ", &self.forwarded)].into_iter().chain(address) {
            lines.extend_from_slice(&[name.as_bytes(), value.as_bytes(), b"\r\n"].concat());
        }
        lines
    }

    /// Whether they are of this client.
    pub(super) fn are_of(&self, client: Option<SocketAddr>, by_https: bool) -> bool {
        (self.client, self.by_https) == (client, by_https)
    }
}

/// Says who the client is. What the message says of that stays only as far as it came from a trusted proxy.
pub(super) fn speak_for(headers: &mut HeaderMap, words: Words, is_trusted: bool) {
    if !is_trusted {
        remove(headers, |name| SPOKEN_FOR.contains(&name));
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if words.by_https { "https" } else { "http" }));
    headers.insert(FORWARDED, words.forwarded);
    match words.address {
        Some(address) => drop(headers.insert(X_FORWARDED_FOR, address)),
        None => drop(headers.remove(X_FORWARDED_FOR)),
    }
}

/// A value made of addresses and words of ours.
fn written(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static("unknown"))
}

/// Removes what is there of headers that seldom are: to look at those there are takes less than to look for each.
fn remove(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| is_unwanted(name.as_str())).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// Whether a request names its host as it must: of two nobody knows which the application takes, and HTTP/1.1 has one
/// always. HTTP/2 may have it in its target alone.
pub(super) fn names_host(headers: &HeaderMap, version: Version) -> bool {
    let hosts = headers.get_all(HOST).iter().take(2).count();
    hosts == 1 || (hosts == 0 && version != Version::HTTP_11)
}

/// The most headers that a request may have: workers accept a hundred, and [`speak_for`] adds three.
pub(super) const MAX_HEADERS: usize = 97;

/// The target as an origin server gets it, and the host where the target has named one: that replaces the header's.
pub(super) fn origin_form(uri: &mut Uri, headers: &mut HeaderMap) {
    let Some(authority) = uri.authority() else { return };
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    *uri = Uri::from(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut map = HeaderMap::new();
        headers.iter().map(pair).for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn what_concerns_one_connection_ends_with_it() {
        let mut headers = map(&[
            ("connection", "close, X-Hop"),
            ("connection", "te"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip, Trailers;q=1, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-hop", "1"),
            ("x-end", "1"),
            ("trailer", "x-sum"),
        ]);
        end_connection(&mut headers);
        assert_eq!(lines(&headers), ["te: trailers", "trailer: x-sum", "x-end: 1"]);
        let mut headers = map(&[("te", "gzip")]);
        end_connection(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn connection_cannot_name_what_others_rely_on() {
        let names = ["host", "cookie", "content-length", "authorization", "forwarded", "x-forwarded-for", "set-cookie"];
        for name in names {
            let mut headers = map(&[(name, "1")]);
            headers.append(CONNECTION, HeaderValue::from_str(&format!("keep-alive, {name}")).unwrap());
            end_connection(&mut headers);
            assert_eq!(lines(&headers), [format!("{name}: 1")]);
        }
    }

    #[test]
    fn only_an_announced_upgrade_is_one() {
        let announced = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        let protocol = upgrade(&announced, Version::HTTP_11).unwrap();
        assert!(is_web_socket(&protocol));
        assert!(!is_web_socket(&HeaderValue::from_static("h2c")));
        assert_eq!(upgrade(&announced, Version::HTTP_10), None);
        assert_eq!(upgrade(&map(&[("upgrade", "websocket")]), Version::HTTP_11), None);
        assert_eq!(upgrade(&map(&[("connection", "upgrade")]), Version::HTTP_11), None);
        let mut headers = announced;
        end_connection(&mut headers);
        set_upgrade(&mut headers, protocol);
        assert_eq!(lines(&headers), ["connection: upgrade", "upgrade: WebSocket"]);
    }

    fn spoken(client: Option<&str>, is_trusted: bool) -> Vec<String> {
        let mut headers = map(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "gopher"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("x-forwarded-host", "evil"),
        ]);
        let words = Words::of(client.map(|client| client.parse().unwrap()), is_trusted);
        speak_for(&mut headers, words, is_trusted);
        lines(&headers)
    }

    #[test]
    fn only_the_proxy_says_who_the_client_is() {
        let expected =
            ["forwarded: for=\"192.0.2.1:7\";proto=http", "x-forwarded-for: 192.0.2.1", "x-forwarded-proto: http"];
        assert_eq!(spoken(Some("192.0.2.1:7"), false), expected);
        assert_eq!(spoken(Some("[2001:db8::1]:7"), false)[0], "forwarded: for=\"[2001:db8::1]:7\";proto=http");
        assert_eq!(spoken(Some("[2001:db8::1]:0"), false)[0], "forwarded: for=\"[2001:db8::1]\";proto=http");
        assert_eq!(spoken(None, false), ["forwarded: proto=http", "x-forwarded-proto: http"]);
        let trusted = spoken(Some("192.0.2.1:0"), true);
        assert_eq!(trusted[0], "forwarded: for=\"192.0.2.1\";proto=https");
        assert!(trusted.contains(&"x-forwarded-host: evil".to_owned()), "a trusted proxy may say so");
    }

    #[test]
    fn workers_read_what_the_proxy_writes() {
        use crate::affinity::client_address::forwarded_by_us;
        use crate::dispatch::handoff::HeadParts;
        for client in ["192.0.2.1:7", "192.0.2.1:0", "[2001:db8::1]:7", "[2001:db8::1]:0"] {
            let client: SocketAddr = client.parse().unwrap();
            let mut headers = HeaderMap::new();
            speak_for(&mut headers, Words::of(Some(client), false), false);
            let parts = HeadParts::new("GET", "/", &[("Forwarded", headers[FORWARDED].as_bytes())]);
            assert_eq!(forwarded_by_us(&parts.head()), Some(client));
        }
        let parts = HeadParts::new("GET", "/", &[("forwarded", b"proto=http")]);
        assert_eq!(forwarded_by_us(&parts.head()), None);
    }

    #[test]
    fn the_target_s_host_is_the_host() {
        for (target, host, path) in [
            ("http://a:1/b?c", Some("a:1"), "/b?c"),
            ("http://u@a", Some("a"), "/"),
            ("/b", Some("old"), "/b"),
            ("*", Some("old"), "*"),
        ] {
            let mut uri: Uri = target.parse().unwrap();
            let mut headers = map(&[("host", "old")]);
            origin_form(&mut uri, &mut headers);
            assert_eq!(
                (headers.get(HOST).map(|host| host.to_str().unwrap()), uri.to_string()),
                (host, path.to_owned())
            );
        }
    }

    #[test]
    fn one_host_is_right() {
        for (headers, version, is_right) in [
            (&[("host", "a")][..], Version::HTTP_11, true),
            (&[], Version::HTTP_11, false),
            (&[], Version::HTTP_10, true),
            (&[], Version::HTTP_2, true),
            (&[("host", "a"), ("host", "a")], Version::HTTP_10, false),
        ] {
            assert_eq!(names_host(&map(headers), version), is_right, "{headers:?} {version:?}");
        }
    }
}
