//! The keeper on the header fields of the crate `http`.

use http::header::{COOKIE, FORWARDED, HeaderName, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use crate::integration::{Field, Fields};
pub(crate) use crate::integration::{Keeper, Visit};

impl Fields for HeaderMap {
    fn values(&self, field: Field) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.get_all(name(field)).into_iter().map(HeaderValue::as_bytes)
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        HeaderMap::iter(self).map(|(name, value)| (name.as_str(), value.as_bytes()))
    }

    fn set(&mut self, field: Field, value: &[u8]) {
        match HeaderValue::from_bytes(value) {
            Ok(value) => drop(HeaderMap::insert(self, name(field), value)),
            Err(_) => drop(HeaderMap::remove(self, name(field))),
        }
    }

    fn add(&mut self, field: Field, value: &[u8]) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.append(name(field), value);
        }
    }

    fn remove(&mut self, field: Field) {
        HeaderMap::remove(self, name(field));
    }
}

const fn name(field: Field) -> HeaderName {
    match field {
        Field::Cookie => COOKIE,
        Field::SetCookie => SET_COOKIE,
        Field::Forwarded => FORWARDED,
        field => HeaderName::from_static(field.name()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::header::{COOKIE, SET_COOKIE};

    use super::*;
    use crate::integration::came_by_https;
    use crate::session::tests::sessions;

    const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    const X_STICKY_WORKER: HeaderName = HeaderName::from_static("x-sticky-worker");

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
