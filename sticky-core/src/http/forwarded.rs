//! Notices a proxy in front that nobody told us about: all of its clients have one address, so they are one client to
//! the kernel's placement.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

use crate::notice;

const HEADERS: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded-for"),
    FORWARDED,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("cf-connecting-ip"),
];

static HAS_WARNED: AtomicBool = AtomicBool::new(false);

/// Warns, once per process, when `peer` speaks for other clients.
pub(crate) fn warn_once(headers: &HeaderMap, peer: SocketAddr) {
    if HAS_WARNED.load(Relaxed) {
        return;
    }
    let Some(header) = forwarding_header(headers) else {
        return;
    };
    if !HAS_WARNED.swap(true, Relaxed) {
        notice::warn(warning(header, peer));
    }
}

fn forwarding_header(headers: &HeaderMap) -> Option<&'static HeaderName> {
    static NAMES: [HeaderName; 4] = HEADERS;
    NAMES.iter().find(|name| headers.contains_key(*name))
}

fn warning(header: &HeaderName, peer: SocketAddr) -> String {
    let peer = peer.ip();
    format!(
        "{peer} sends {header}, so it is a proxy, and not a trusted one: all clients behind it have its address \
         here. STICKY_TRUSTED_PROXIES={peer} with \
         STICKY_CLIENT_ADDRESS_HEADER={header} tells them apart"
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn finds_what_proxies_add() {
        for name in HEADERS {
            let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("192.0.2.1"))]);
            assert_eq!(forwarding_header(&headers), Some(&name));
        }
        let ordinary = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("forwarded"))]);
        assert_eq!(forwarding_header(&ordinary), None);
    }

    #[test]
    fn the_warning_has_the_line_to_paste() {
        let warning = warning(&FORWARDED, "192.0.2.7:4711".parse().unwrap());
        let line = "STICKY_TRUSTED_PROXIES=192.0.2.7 with STICKY_CLIENT_ADDRESS_HEADER=forwarded tells them apart";
        assert!(warning.ends_with(line), "{warning}");
    }
}
