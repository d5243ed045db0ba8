//! Sessions that stay where they were made, on the types of HTTP: see [`Sessions`].

use std::sync::Arc;

use http::header::{COOKIE, FORWARDED, HeaderName, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use crate::session::{Cookies, Presented, Sessions};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_STICKY_WORKER: HeaderName = HeaderName::from_static("x-sticky-worker");

/// Keeps the sessions of one connection.
pub(crate) struct Keeper {
    sessions: Arc<Sessions>,
    /// Whether the other side is trusted to say how its clients came.
    is_believed: bool,
}

impl Keeper {
    pub(crate) fn new(sessions: Arc<Sessions>, is_believed: bool) -> Self {
        Self { sessions, is_believed }
    }

    /// Takes the sticky cookie out of a request, and notes what its response needs.
    pub(crate) fn request(&self, headers: &mut HeaderMap) -> Visit {
        let cookies = || headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let (presented, cookies) = self.sessions.request(cookies);
        match cookies {
            Cookies::Same => {}
            Cookies::Gone => drop(headers.remove(COOKIE)),
            Cookies::Others(others) => match HeaderValue::from_bytes(&others) {
                Ok(others) => drop(headers.insert(COOKIE, others)),
                // Parts of values, put together with blanks and semicolons, are a value.
                Err(_) => drop(headers.remove(COOKIE)),
            },
        }
        let is_secure = self.is_believed && came_by_https(headers);
        Visit { sessions: Arc::clone(&self.sessions), presented, is_secure }
    }
}

/// A request whose response is to come.
pub(crate) struct Visit {
    sessions: Arc<Sessions>,
    presented: Presented,
    is_secure: bool,
}

impl Visit {
    /// Adds what the response needs, and learns from what it has.
    pub(crate) fn response(&self, headers: &mut HeaderMap) {
        self.sessions.response(headers.get_all(SET_COOKIE).iter().map(HeaderValue::as_bytes));
        let fields = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        if let Some(cookie) = self.sessions.set_cookie(self.presented, self.is_secure, fields)
            && let Ok(cookie) = HeaderValue::try_from(cookie)
        {
            headers.append(SET_COOKIE, cookie);
        }
        if let Some(worker) = self.sessions.shown() {
            headers.insert(X_STICKY_WORKER, HeaderValue::from(worker.get()));
        }
    }
}

/// Whether the last proxy says that its client came by https.
fn came_by_https(headers: &HeaderMap) -> bool {
    let last = |name: &HeaderName| headers.get_all(name).iter().next_back().and_then(|value| value.to_str().ok());
    let entry = |text: &str| text.rsplit(',').next().unwrap_or_default().trim().to_ascii_lowercase();
    let by_proto = last(&X_FORWARDED_PROTO).is_some_and(|text| entry(text) == "https");
    let is_https = |pair: &str| matches!(pair.trim(), "proto=https" | "proto=\"https\"");
    by_proto || last(&FORWARDED).is_some_and(|text| entry(text).split(';').any(is_https))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_proxy_says_how_its_client_came() {
        let by = |name: &'static str, value: &'static str| {
            came_by_https(&HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]))
        };
        for (name, value) in [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-proto", "http, HTTPS"),
            ("forwarded", "for=192.0.2.1;proto=https"),
            ("forwarded", "proto=http, for=_x; proto=\"https\" ;by=_y"),
        ] {
            assert!(by(name, value), "{name}: {value}");
        }
        for (name, value) in [
            ("x-forwarded-proto", "https, http"),
            ("x-forwarded-proto", "httpsx"),
            ("forwarded", "proto=https, proto=http"),
            ("forwarded", "for=\"proto=https\""),
            ("x-proto", "https"),
        ] {
            assert!(!by(name, value), "{name}: {value}");
        }
    }
}
