//! Which responses must not carry a ticket: those that a cache may hand to somebody else.
//!
//! A cache keeps a response with its `Set-Cookie` (RFC 9111, section 7.3), and whoever is served from it afterwards
//! belongs to the worker of the first client. The rule, for caches that many clients share:
//!
//! | the response says | a ticket |
//! |---|---|
//! | `public` or `s-maxage`: made for shared caches (5.2.2.9, 5.2.2.10) | no |
//! | `private` or `no-store` without the above: not kept by shared caches (5.2.2.7, 5.2.2.5) | yes |
//! | `max-age` above 0, `immutable` (RFC 8246): fresh for a time (4.2.1) | no |
//! | `no-cache` without the above: not used without asking us again (5.2.2.4) | yes |
//! | `Expires`, whatever it says: fresh for a time by some clock (5.3) | no |
//! | `max-age=0` without the above: never fresh (4.2.1) | yes |
//! | `Last-Modified`: caches are encouraged to work out a time for themselves (4.2.2) | no |
//! | nothing of all that | yes |
//!
//! The first line that applies decides. Contradictions end where the response is taken for cacheable, as does a
//! `max-age` that is no number. `private="a, b"` and `no-cache="a, b"` speak of single headers, not of the response, and
//! count for nothing. Fields for certain caches, such as `CDN-Cache-Control` (RFC 9213), override all others there, so
//! each of them is enough to withhold the ticket unless it says `private`, `no-store` or `no-cache`.
//!
//! What remains: a cache that knows only `no-cache` or `max-age=0` of a response may keep it, ask us whether it has
//! changed, and then serve it with its old `Set-Cookie`. It would have to keep cookies, which the common ones do not do
//! by default, and withholding the ticket from all that says `no-cache` would leave most programs without any.

/// Whether a shared cache may give a response with these headers to somebody who has not asked us.
pub(crate) fn is_publicly_cacheable<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> bool {
    let mut general = Directives::default();
    let mut targeted = Directives::default();
    let (mut has_targeted, mut has_expires, mut has_last_modified) = (false, false, false);
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("cache-control") {
            general.read(value);
        } else if is_targeted(name) {
            has_targeted = true;
            targeted.read(value);
        } else {
            has_expires |= name.eq_ignore_ascii_case("expires");
            has_last_modified |= name.eq_ignore_ascii_case("last-modified");
        }
    }
    let is_dated = has_expires || (has_last_modified && !general.has_max_age);
    general.lets_share(is_dated) || (has_targeted && targeted.lets_share(true))
}

/// Whether this is `Cache-Control` for certain caches: RFC 9213 has their names end like that.
fn is_targeted(name: &str) -> bool {
    let suffix = b"-cache-control";
    let start = name.len().checked_sub(suffix.len());
    start.is_some_and(|start| name.as_bytes()[start..].eq_ignore_ascii_case(suffix))
}

/// What `Cache-Control` says, as far as it matters here.
#[derive(Clone, Copy, Debug, Default)]
struct Directives {
    /// `public` or `s-maxage`.
    is_for_all: bool,
    /// `private` or `no-store`.
    is_for_one: bool,
    /// `max-age` above 0, or `immutable`.
    is_fresh: bool,
    has_max_age: bool,
    no_cache: bool,
}

impl Directives {
    /// Adds what one line says.
    fn read(&mut self, line: &[u8]) {
        for (name, value) in directives(line) {
            match (name.to_ascii_lowercase().as_slice(), value) {
                (b"public" | b"s-maxage", _) => self.is_for_all = true,
                (b"private", None) | (b"no-store", _) => self.is_for_one = true,
                (b"no-cache", None) => self.no_cache = true,
                (b"immutable", _) => self.is_fresh = true,
                (b"max-age", seconds) => {
                    self.has_max_age = true;
                    self.is_fresh |= !seconds.is_some_and(is_zero);
                }
                _ => {}
            }
        }
    }

    /// Whether many clients may be given the response; `is_dated` if something else makes it fresh for a time.
    fn lets_share(self, is_dated: bool) -> bool {
        self.is_for_all || (!self.is_for_one && (self.is_fresh || (!self.no_cache && is_dated)))
    }
}

/// The directives of one line with their arguments.
fn directives(line: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    split_unquoted(line).map(|directive| match directive.iter().position(|&byte| byte == b'=') {
        Some(equals) => (directive[..equals].trim_ascii(), Some(directive[equals + 1..].trim_ascii())),
        None => (directive.trim_ascii(), None),
    })
}

/// The parts between commas that no quotes protect.
fn split_unquoted(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    line.split(move |&byte| {
        let was_escaped = is_escaped;
        is_escaped = is_quoted && !was_escaped && byte == b'\\';
        is_quoted ^= byte == b'"' && !was_escaped;
        byte == b',' && !is_quoted
    })
}

/// Whether this is 0 seconds. Some write it with quotes, which caches accept.
fn is_zero(seconds: &[u8]) -> bool {
    let inner = seconds.strip_prefix(b"\"").and_then(|seconds| seconds.strip_suffix(b"\""));
    let digits = inner.unwrap_or(seconds);
    !digits.is_empty() && digits.iter().all(|&digit| digit == b'0')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_cacheable(headers: &[(&str, &str)]) -> bool {
        is_publicly_cacheable(headers.iter().map(|&(name, value)| (name, value.as_bytes())))
    }

    #[test]
    fn what_cache_control_says() {
        for (value, expected) in [
            ("", false),
            ("public", true),
            ("Public", true),
            ("public, max-age=0", true),
            ("public, no-store", true),
            ("private, public", true),
            ("s-maxage=0", true),
            ("private, s-maxage=1", true),
            ("max-age=60", true),
            ("MAX-AGE=60", true),
            (" max-age = 60 ", true),
            ("max-age=60, must-revalidate", true),
            ("max-age=60, no-cache", true),
            ("max-age=\"60\"", true),
            ("max-age", true),
            ("max-age=", true),
            ("max-age=\"\"", true),
            ("max-age=x", true),
            ("max-age=-1", true),
            ("max-age=0.0", true),
            ("max-age=0, max-age=60", true),
            ("max-age=60, max-age=60", true),
            ("immutable, max-age=60", true),
            ("immutable", true),
            ("no-cache, immutable", true),
            ("max-age=60, private", false),
            ("Private,Max-Age=60", false),
            ("private,immutable", false),
            ("max-age=60, no-store", false),
            ("no-store", false),
            ("no-store=x, max-age=60", false),
            ("max-age=0", false),
            ("max-age=000", false),
            ("max-age=\"0\"", false),
            ("max-age=0, must-revalidate", false),
            ("no-cache", false),
            ("must-revalidate, proxy-revalidate, no-transform", false),
            ("notpublic, publicity, x-max-age=60", false),
            ("stale-while-revalidate=60", false),
        ] {
            assert_eq!(is_cacheable(&[("cache-control", value)]), expected, "{value}");
        }
    }

    #[test]
    fn words_about_single_headers_are_not_about_the_response() {
        for value in [
            "max-age=60, private=\"x-user\"",
            "max-age=60, private=x-user",
            "max-age=60, private=\"x, no-store\"",
            "max-age=60, private=\"x,private,y\"",
            "max-age=60, x=\"\\\",private,\"",
            "max-age=60, x=\"\\\\\\\",private,\"",
            "no-cache=\"x, private, y\", public",
            "x=\"\\\"\", public",
            "x=\"\\\\\", public",
        ] {
            assert!(is_cacheable(&[("cache-control", value)]), "{value}");
        }
        assert!(is_cacheable(&[("cache-control", "no-cache=\"x\""), ("expires", "0")]));
    }

    #[test]
    fn dates_make_a_response_fresh() {
        let expires = ("Expires", "Thu, 01 Jan 1970 00:00:00 GMT");
        let modified = ("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT");
        let control = |value| ("Cache-Control", value);
        assert!(is_cacheable(&[expires]));
        assert!(is_cacheable(&[("EXPIRES", "0")]));
        assert!(is_cacheable(&[expires, control("max-age=0")]));
        assert!(is_cacheable(&[modified]));
        assert!(is_cacheable(&[expires, expires]));
        assert!(is_cacheable(&[modified, modified]));
        assert!(is_cacheable(&[modified, control("must-revalidate")]));
        assert!(!is_cacheable(&[modified, control("max-age=0")]));
        for value in ["private", "no-store", "no-cache"] {
            assert!(!is_cacheable(&[expires, control(value)]), "{value}");
            assert!(!is_cacheable(&[control(value), modified]), "{value}");
        }
    }

    #[test]
    fn other_headers_say_nothing() {
        assert!(!is_cacheable(&[]));
        assert!(!is_cacheable(&[
            ("etag", "\"public\""),
            ("pragma", "public"),
            ("x-expires", "0"),
            ("cache", "public")
        ]));
    }

    #[test]
    fn several_lines_are_one() {
        let control = |value| ("cache-control", value);
        assert!(!is_cacheable(&[control("max-age=60"), control("private")]));
        assert!(is_cacheable(&[control("no-cache"), control("max-age=60")]));
        assert!(is_cacheable(&[control("private"), control("public")]));
    }

    #[test]
    fn what_is_for_certain_caches_overrides_the_rest() {
        let private = ("cache-control", "private, no-store");
        for (value, expected) in [("max-age=60", true), ("public", true), ("", true), ("no-store", false)] {
            assert_eq!(is_cacheable(&[private, ("CDN-Cache-Control", value)]), expected, "{value}");
            assert_eq!(is_cacheable(&[("example-cdn-cache-control", value), private]), expected, "{value}");
        }
        assert!(is_cacheable(&[("cdn-cache-control", "no-store"), ("cache-control", "public")]));
        assert!(!is_cacheable(&[("cdn-cache-control", "no-cache")]));
    }

    proptest! {
        /// More words of permission never make a response less cacheable, whatever else it says.
        #[test]
        fn permission_counts_wherever_it_is(
            before in "([a-z-]{1,10}(=[0-9]{1,2})?, ){0,3}",
            after in "(, [a-z-]{1,10}(=\"[a-z, ]{0,5}\")?){0,3}",
        ) {
            for word in ["public", "s-maxage=0"] {
                let value = format!("{before}{word}{after}");
                prop_assert!(is_cacheable(&[("cache-control", &value)]));
            }
        }

        #[test]
        fn no_header_is_too_odd(name: String, value: Vec<u8>) {
            is_publicly_cacheable([(name.as_str(), value.as_slice()), ("cache-control", &value)]);
        }
    }
}
