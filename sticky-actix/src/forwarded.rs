//! What proxies say of their clients, as far as it is true: actix's `ConnectionInfo` reads the leftmost entries, which
//! anybody may have written.

use std::net::SocketAddr;

use actix_http::header::{
    FORWARDED, HeaderMap, HeaderName, HeaderValue, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO,
};

/// What the last proxy says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Word {
    host: Option<String>,
    proto: Option<String>,
}

/// Leaves in a request from `client` what is true.
pub(crate) fn correct(headers: &mut HeaderMap, is_believed: bool, client: Option<SocketAddr>) {
    // To look at the few names there are takes less than to look four of them up.
    if !headers.keys().any(is_read) {
        return;
    }
    let word = if is_believed { Word::of(headers) } else { Word::default() };
    headers.retain(|name, _| !is_read(name));
    if !is_believed {
        return;
    }
    let client = client.map(|client| client.ip().to_string());
    let fields = [(X_FORWARDED_FOR, client), (X_FORWARDED_HOST, word.host), (X_FORWARDED_PROTO, word.proto)];
    for (name, value) in fields {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
}

/// Whether `ConnectionInfo` reads it.
fn is_read(name: &HeaderName) -> bool {
    matches!(name.as_str(), "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto")
}

impl Word {
    fn of(headers: &HeaderMap) -> Self {
        let forwarded = last_entry(headers, &FORWARDED).unwrap_or_default();
        let said = |name: &str, header| parameter(forwarded, name).or_else(|| last_entry(headers, header));
        let said = |name, header| said(name, header).map(str::to_owned);
        Self { host: said("host", &X_FORWARDED_HOST), proto: said("proto", &X_FORWARDED_PROTO) }
    }
}

/// The last entry of a list.
fn last_entry<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let value = headers.get_all(name).next_back()?.to_str().ok()?;
    value.rsplit(',').next().map(str::trim).filter(|entry| !entry.is_empty())
}

/// A parameter of an entry of `Forwarded`.
fn parameter<'a>(entry: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = entry.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value.trim_matches('"')).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    /// What `ConnectionInfo` makes of these headers when the client is 192.0.2.1: address, host and scheme.
    fn seen(is_believed: bool, headers: &[(HeaderName, &'static str)]) -> [String; 3] {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.clone(), HeaderValue::from_static(value));
        }
        let client = SocketAddr::from(([192, 0, 2, 1], 0));
        correct(&mut map, is_believed, Some(client));
        let mut request = TestRequest::default().peer_addr(client);
        for header in map {
            request = request.append_header(header);
        }
        let request = request.to_http_request();
        let info = request.connection_info();
        [info.realip_remote_addr().unwrap_or_default(), info.host(), info.scheme()].map(str::to_owned)
    }

    #[test]
    fn nobody_who_is_not_trusted_is_believed() {
        let forged = [
            (FORWARDED, "for=198.51.100.1;host=forged;proto=https"),
            (X_FORWARDED_FOR, "198.51.100.1"),
            (X_FORWARDED_HOST, "forged"),
            (X_FORWARDED_PROTO, "https"),
        ];
        let unseen = seen(false, &[]);
        for header in &forged {
            assert_eq!(seen(false, std::slice::from_ref(header)), unseen, "{header:?}");
        }
        assert_eq!(seen(false, &forged), unseen);
        assert_eq!(unseen[0], "192.0.2.1");
    }

    #[test]
    fn a_trusted_proxy_says_what_its_client_cannot() {
        let appended = [
            (X_FORWARDED_FOR, "198.51.100.1, 192.0.2.1"),
            (X_FORWARDED_HOST, "forged, example.com"),
            (X_FORWARDED_PROTO, "http, https"),
        ];
        assert_eq!(seen(true, &appended), ["192.0.2.1", "example.com", "https"]);
        let standard = [
            (FORWARDED, "for=198.51.100.1;host=forged;proto=http"),
            (FORWARDED, "For=192.0.2.1; Host=\"example.com\";proto=https"),
        ];
        assert_eq!(seen(true, &standard), ["192.0.2.1", "example.com", "https"]);
    }

    #[test]
    fn the_client_is_who_it_was_found_to_be() {
        // The cluster reads another header than these, which a client may have written.
        let passed_on = [(FORWARDED, "for=198.51.100.1"), (X_FORWARDED_FOR, "198.51.100.1")];
        assert_eq!(seen(true, &passed_on)[0], "192.0.2.1");
    }
}
