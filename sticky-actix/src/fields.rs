//! actix's headers for the core.

use actix_http::header::{COOKIE, FORWARDED, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use sticky_core::integration::{Field, Fields};

/// The headers of an actix message.
pub(crate) struct Headers<'a>(pub(crate) &'a mut HeaderMap);

impl Fields for Headers<'_> {
    fn values(&self, field: Field) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.get_all(name(field)).map(HeaderValue::as_bytes)
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }

    fn set(&mut self, field: Field, value: &[u8]) {
        self.remove(field);
        self.add(field, value);
    }

    fn add(&mut self, field: Field, value: &[u8]) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.0.append(name(field), value);
        }
    }

    fn remove(&mut self, field: Field) {
        self.0.remove(name(field));
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
    use super::*;

    #[test]
    fn fields_are_set_added_and_removed() {
        let mut map = HeaderMap::new();
        let mut headers = Headers(&mut map);
        headers.add(Field::SetCookie, b"a=1");
        headers.add(Field::SetCookie, b"b=2");
        headers.add(Field::SetCookie, b"no\nvalue");
        assert_eq!(headers.values(Field::SetCookie).collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        assert_eq!(headers.values(Field::SetCookie).next_back(), Some(&b"b=2"[..]));
        headers.set(Field::SetCookie, b"c=3");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("set-cookie", &b"c=3"[..])]);
        headers.set(Field::SetCookie, b"no\nvalue");
        assert_eq!(headers.iter().count(), 0);
    }

    #[test]
    fn every_field_has_its_name() {
        for field in [Field::Cookie, Field::SetCookie, Field::Forwarded, Field::XForwardedFor, Field::XStickyWorker] {
            assert_eq!(name(field), field.name());
        }
    }
}
