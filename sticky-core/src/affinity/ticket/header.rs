//! Tickets in headers: found in `Cookie` and taken out of it, written into `Set-Cookie`.

use std::time::Duration;

use super::whole_seconds;
use crate::config::SameSite;

/// The values of the cookies of this name, in order, from a request's `Cookie` headers.
///
/// Names are compared whole and in their case, so `mysticky=` is never taken for `sticky=`.
pub(crate) fn values<'a>(name: &str, lines: impl IntoIterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    lines.into_iter().flat_map(pairs).filter_map(move |pair| value(pair, name))
}

/// A request's cookies without ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stripped<'a> {
    /// The values of those taken out, in order.
    pub(crate) values: Vec<&'a [u8]>,
    /// The others, as they were and in order, in one header's value. `None` if there are none.
    pub(crate) rest: Option<Vec<u8>>,
}

/// Takes the cookies of this name out of a request's `Cookie` headers. If [`values`] finds none there is no need to.
///
/// Several headers become one, in the way in which RFC 9113 (8.2.3) puts those of HTTP/2 together.
pub(crate) fn strip<'a>(name: &str, lines: impl IntoIterator<Item = &'a [u8]>) -> Stripped<'a> {
    let (mut values, mut rest) = (Vec::new(), Vec::new());
    for line in lines {
        let others = take_out(name, line, &mut values);
        // Blanks and semicolons are not cookies.
        if pairs(&others).all(|pair| pair.trim_ascii().is_empty()) {
            continue;
        }
        if !rest.is_empty() {
            rest.extend_from_slice(b"; ");
        }
        rest.extend_from_slice(others.trim_ascii());
    }
    Stripped { values, rest: (!rest.is_empty()).then_some(rest) }
}

/// What is left of one line once the cookies of this name have gone to `values`.
fn take_out<'a>(name: &str, line: &'a [u8], values: &mut Vec<&'a [u8]>) -> Vec<u8> {
    let mut others = Vec::with_capacity(line.len());
    let mut is_first = true;
    for pair in pairs(line) {
        if let Some(value) = value(pair, name) {
            values.push(value);
            continue;
        }
        if !is_first {
            others.push(b';');
        }
        is_first = false;
        others.extend_from_slice(pair);
    }
    others
}

/// The cookies of one line, with the blanks around them. As in RFC 6265, no quotes protect a semicolon.
fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| byte == b';')
}

/// The value of a cookie if it has this name.
fn value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    (pair[..equals].trim_ascii() == name.as_bytes()).then(|| pair[equals + 1..].trim_ascii())
}

/// How the cookie is set.
///
/// Name and path go into the header as they are: whoever makes this has seen to it that the name is a token and that
/// the path has no semicolon or control character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CookieAttributes {
    pub(crate) name: String,
    pub(crate) path: String,
    /// Left out if it is [`SameSite::None`] and the cookie is not secure: browsers refuse such a cookie, and take one
    /// without it as [`SameSite::Lax`].
    pub(crate) same_site: SameSite,
    /// Whether the cookie is for https only.
    pub(crate) secure: bool,
    /// How long browsers keep it; without, until they are closed.
    pub(crate) lifetime: Option<Duration>,
}

impl CookieAttributes {
    /// The value of the `Set-Cookie` header that hands out this ticket.
    pub(crate) fn set_cookie(&self, ticket: &str) -> String {
        let Self { name, path, .. } = self;
        let mut header = format!("{name}={ticket}; Path={path}; HttpOnly");
        match self.same_site {
            SameSite::Lax => header.push_str("; SameSite=Lax"),
            SameSite::Strict => header.push_str("; SameSite=Strict"),
            SameSite::None if self.secure => header.push_str("; SameSite=None"),
            SameSite::None => {}
        }
        if self.secure {
            header.push_str("; Secure");
        }
        if let Some(lifetime) = self.lifetime {
            header.push_str(&format!("; Max-Age={}", whole_seconds(lifetime)));
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Strips `sticky` from these lines: what was found, and what is left.
    fn stripped(lines: &[&str]) -> (Vec<String>, Option<String>) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let bytes = || lines.iter().map(|line| line.as_bytes());
        let Stripped { values: taken, rest } = strip("sticky", bytes());
        assert_eq!(values("sticky", bytes()).collect::<Vec<_>>(), taken);
        (taken.into_iter().map(text).collect(), rest.as_deref().map(text))
    }

    #[test]
    fn ours_is_taken_out() {
        for (line, values, rest) in [
            ("sticky=x", &["x"][..], None),
            ("sticky=x; a=1", &["x"], Some("a=1")),
            ("a=1; sticky=x", &["x"], Some("a=1")),
            ("a=1; sticky=x; b=2", &["x"], Some("a=1; b=2")),
            ("a=1;sticky=x;b=2", &["x"], Some("a=1;b=2")),
            ("a=1 ;\tsticky = x\t;  b=2", &["x"], Some("a=1 ;  b=2")),
            ("sticky=x; sticky=y; a=1; sticky=z", &["x", "y", "z"], Some("a=1")),
            ("sticky=x; sticky=y", &["x", "y"], None),
            ("sticky=", &[""], None),
            ("sticky=x=y", &["x=y"], None),
            ("sticky=\"x\"", &["\"x\""], None),
            ("sticky=x;", &["x"], None),
            (" ; sticky=x; ;", &["x"], None),
            ("a=1;; sticky=x", &["x"], Some("a=1;")),
            ("a=\"; sticky=x\"; b", &["x\""], Some("a=\"; b")),
        ] {
            let values = values.iter().map(|&value| value.to_owned()).collect();
            assert_eq!(stripped(&[line]), (values, rest.map(str::to_owned)), "{line}");
        }
    }

    #[test]
    fn look_alikes_stay() {
        let line = "mysticky=1; sticky2=2; Sticky=3; STICKY=4; sticky; s%74icky=5; sti cky=6; a=sticky=7; =sticky=8";
        assert_eq!(stripped(&[line]), (vec![], Some(line.to_owned())));
    }

    #[test]
    fn lines_become_one() {
        let found = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>();
        assert_eq!(stripped(&[]), (vec![], None));
        assert_eq!(stripped(&["", " "]), (vec![], None));
        assert_eq!(stripped(&["a=1", "b=2; c=3"]), (vec![], Some("a=1; b=2; c=3".to_owned())));
        let lines = ["sticky=x", "a=1; sticky=y", "", "sticky=z; b=2"];
        assert_eq!(stripped(&lines), (found(&["x", "y", "z"]), Some("a=1; b=2".to_owned())));
    }

    #[test]
    fn cookies_need_not_be_text() {
        let Stripped { values, rest } = strip("a", [&b"b=\xff; a=\xfe"[..]]);
        assert_eq!((values, rest), (vec![&b"\xfe"[..]], Some(b"b=\xff".to_vec())));
    }

    #[test]
    fn headers_that_set_it() {
        let attributes = CookieAttributes {
            name: "sticky".to_owned(),
            path: "/".to_owned(),
            same_site: SameSite::default(),
            secure: false,
            lifetime: None,
        };
        let set = |attributes: CookieAttributes| attributes.set_cookie("v");
        assert_eq!(set(attributes.clone()), "sticky=v; Path=/; HttpOnly; SameSite=Lax");
        let lifetime = Some(Duration::from_millis(86_400_999));
        let secure = CookieAttributes { secure: true, lifetime, ..attributes.clone() };
        assert_eq!(set(secure.clone()), "sticky=v; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=86400");
        let strict =
            CookieAttributes { name: "a".into(), path: "/b".into(), same_site: SameSite::Strict, ..attributes };
        assert_eq!(set(strict.clone()), "a=v; Path=/b; HttpOnly; SameSite=Strict");
        let none = CookieAttributes { same_site: SameSite::None, ..secure };
        assert_eq!(set(none), "sticky=v; Path=/; HttpOnly; SameSite=None; Secure; Max-Age=86400");
        let short = Some(Duration::from_millis(1));
        let none = CookieAttributes { same_site: SameSite::None, lifetime: short, ..strict };
        assert_eq!(set(none), "a=v; Path=/b; HttpOnly; Max-Age=1");
    }

    /// What browsers send, and some of what they do not.
    fn other_cookie() -> impl Strategy<Value = String> {
        "[a-z%\"]{0,6}(=[a-zA-Z0-9=\", _-]{0,8})?".prop_filter("not ours", |pair| value(pair.as_bytes(), "s").is_none())
    }

    /// The cookies of a header, as an application reads them.
    fn cookies(header: &[u8]) -> Vec<&[u8]> {
        pairs(header).map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()).collect()
    }

    proptest! {
        #[test]
        fn the_others_never_change(
            lines in vec(vec((other_cookie(), any::<bool>()), 0..6), 0..4),
            separator in ";[ \t]{0,2}",
        ) {
            let ours = "s=x".to_owned();
            let with_ours = |line: &Vec<(String, bool)>| {
                let pairs = line.iter().flat_map(|(other, is_next)| [Some(other), is_next.then_some(&ours)]);
                pairs.flatten().cloned().collect::<Vec<_>>().join(&separator)
            };
            let headers: Vec<_> = lines.iter().map(with_ours).collect();
            let stripped = strip("s", headers.iter().map(|line| line.as_bytes()));
            let expected: Vec<_> = lines.iter().flatten().map(|(other, _)| other.trim().as_bytes()).collect();
            let expected: Vec<_> = expected.into_iter().filter(|pair| !pair.is_empty()).collect();
            prop_assert_eq!(cookies(stripped.rest.as_deref().unwrap_or_default()), expected);
            prop_assert_eq!(stripped.values.len(), lines.iter().flatten().filter(|(_, is_next)| *is_next).count());
            prop_assert!(stripped.values.iter().all(|value| *value == b"x"));
        }

        #[test]
        fn nothing_of_ours_is_left(lines in vec("[s=; \"x]{0,12}", 0..4)) {
            let stripped = strip("s", lines.iter().map(|line| line.as_bytes()));
            let again = strip("s", stripped.rest.as_deref());
            prop_assert_eq!(&again.values, &Vec::<&[u8]>::new());
            prop_assert_eq!(&again.rest, &stripped.rest);
        }
    }
}
