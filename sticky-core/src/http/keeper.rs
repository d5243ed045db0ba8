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
    use crate::session::tests::sessions;

    fn keeper(is_believed: bool) -> Keeper {
        let settings = [("STICKY_AFFINITY", "sticky-cookie"), ("STICKY_WORKER_HEADER", "on")];
        Keeper::new(Arc::new(sessions(2, &settings)), is_believed)
    }

    fn cookies(lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (COOKIE, HeaderValue::from_static(line))).collect()
    }

    /// What the response to a request with these headers gets.
    fn answered(keeper: &Keeper, mut request: HeaderMap) -> HeaderMap {
        let mut response = HeaderMap::new();
        keeper.request(&mut request).response(&mut response);
        response
    }

    #[test]
    fn the_application_sees_the_other_cookies_only() {
        let keeper = keeper(false);
        for (lines, left) in [
            (&["a=1; sticky=x; b=2"][..], Some("a=1; b=2")),
            (&["sticky=x"], None),
            (&["a=1", "sticky=x"], Some("a=1")),
            (&["a=1; mysticky=x"], Some("a=1; mysticky=x")),
        ] {
            let mut request = cookies(lines);
            keeper.request(&mut request);
            let seen: Vec<_> = request.get_all(COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(seen, left.into_iter().collect::<Vec<_>>(), "{lines:?}");
        }
    }

    #[test]
    fn a_response_says_who_gave_it_and_where_its_client_belongs() {
        let response = answered(&keeper(false), cookies(&["sticky=x"]));
        assert_eq!(response[X_STICKY_WORKER], "2");
        let ticket = response[SET_COOKIE].to_str().unwrap().to_owned();
        assert!(ticket.starts_with("sticky=") && !ticket.contains("Secure"), "{ticket}");
        let mut again = HeaderMap::new();
        let value = ticket.split(';').next().unwrap();
        again.insert(COOKIE, HeaderValue::from_str(value).unwrap());
        assert!(!answered(&keeper(false), again).contains_key(SET_COOKIE), "it belongs here already");
    }

    #[test]
    fn only_a_trusted_proxy_makes_a_cookie_secure() {
        let by_https = || HeaderMap::from_iter([(X_FORWARDED_PROTO, HeaderValue::from_static("https"))]);
        for is_believed in [false, true] {
            let response = answered(&keeper(is_believed), by_https());
            assert_eq!(response[SET_COOKIE].to_str().unwrap().ends_with("; Secure"), is_believed);
        }
        assert!(!answered(&keeper(true), HeaderMap::new())[SET_COOKIE].to_str().unwrap().contains("Secure"));
    }

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
