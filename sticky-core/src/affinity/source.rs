//! Where a key comes from, and how its value is found in a request's head.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Once};

use percent_encoding::percent_decode;

use super::engine_io::Session;
use super::key::KeyHasher;
use super::path::PathPattern;
use super::{Destination, Known};
use crate::dispatch::handoff::RequestHead;
use crate::id::WorkerId;
use crate::notice;

/// One place to look for a key. Private, so that sources can be added without breaking anybody's `match`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    ClientAddress,
    Cookie {
        name: String,
        /// Whether responses that set it say whose it is.
        is_learned: bool,
    },
    /// In lower case.
    Header(String),
    Query(String),
    Path(PathPattern),
    Custom(Function),
    StickyCookie,
    EngineIo,
}

impl Source {
    /// Whom a request belongs to, as far as this source can tell.
    pub(super) fn find(
        &self,
        head: &RequestHead<'_>,
        client: Option<IpAddr>,
        hasher: &KeyHasher,
        known: Known<'_>,
    ) -> Option<Destination> {
        match self {
            Self::ClientAddress => client.map(Destination::Address),
            Self::StickyCookie => (known.ticket)(head).map(Destination::Worker),
            Self::EngineIo => tagged(head).filter(|slot| (known.is_live)(*slot)).map(Destination::Worker),
            Self::Custom(function) => match function.call(head).chosen {
                Chosen::Worker(worker) => Some(Destination::Worker(worker)),
                Chosen::Key(value) => Some(Destination::Chosen(hasher.of_text(value))),
                Chosen::Nothing => None,
            },
            _ => self.value(head).map(|value| Destination::Key(hasher.of_text(value))),
        }
    }

    /// Whether all that it can find is a value that the head has, whoever sends that and whenever.
    pub(super) fn is_value(&self) -> bool {
        matches!(self, Self::Cookie { .. } | Self::Header(_) | Self::Query(_) | Self::Path(_))
    }

    /// That value, if it is one and not empty.
    pub(super) fn value<'a>(&'a self, head: &RequestHead<'a>) -> Option<Cow<'a, [u8]>> {
        let value = match self {
            Self::Cookie { name, .. } => cookie(head, name),
            Self::Header(name) => head.header(name).map(|value| value.trim_ascii().into()),
            Self::Query(name) => query(head, name),
            Self::Path(pattern) => pattern.find(head.path()),
            _ => None,
        };
        value.filter(|value| !value.is_empty())
    }
}

/// The worker that the tag of an Engine.IO session names.
fn tagged(head: &RequestHead<'_>) -> Option<WorkerId> {
    match Session::of(head.query()?)? {
        Session::In(worker) => Some(worker),
        Session::New | Session::Untagged => None,
    }
}

/// The value of the first cookie of this name.
fn cookie<'a>(head: &RequestHead<'a>, name: &str) -> Option<Cow<'a, [u8]>> {
    let pairs = head.header_lines("cookie").flat_map(|line| line.split(|&byte| byte == b';'));
    let (_, value) =
        pairs.filter_map(|pair| split_at(pair, b'=')).find(|(found, _)| found.trim_ascii() == name.as_bytes())?;
    Some(cookie_value(value))
}

/// The value of a cookie as the application sees it. `Set-Cookie` must be read alike by whoever learns from it.
pub(crate) fn cookie_value(written: &[u8]) -> Cow<'_, [u8]> {
    percent_decode(unquoted(written.trim_ascii())).into()
}

/// The value of the first query parameter of this name; nothing follows a name without `=`.
fn query<'a>(head: &RequestHead<'a>, name: &str) -> Option<Cow<'a, [u8]>> {
    let pairs = head.query()?.as_bytes().split(|&byte| byte == b'&');
    let (_, value) = pairs
        .map(|pair| split_at(pair, b'=').unwrap_or((pair, b"")))
        .find(|(found, _)| form_decode(found) == name.as_bytes())?;
    Some(form_decode(value))
}

/// Undoes the encoding of HTML forms, where a plus is a space.
fn form_decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let spaced: Vec<_> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// What is before and after the first of these bytes.
fn split_at(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&other| other == byte)?;
    Some((&text[..at], &text[at + 1..]))
}

/// A cookie's value without the pair of quotes that it may have around it.
fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

/// What a function makes of a request's head: see [`Affinity::custom`](crate::Affinity::custom).
///
/// ```
/// use sticky_core::{Choice, RequestHead};
///
/// fn by_user(head: &RequestHead<'_>) -> Choice {
///     head.header("x-user").map_or(Choice::nothing(), Choice::key)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    chosen: Chosen,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Chosen {
    Nothing,
    /// Kept only until the function has returned.
    Key(Box<[u8]>),
    Worker(WorkerId),
}

impl Choice {
    /// No key here: the fallbacks are asked.
    pub const fn nothing() -> Self {
        Self { chosen: Chosen::Nothing }
    }

    /// The worker that owns this value, which is hashed as soon as the function has returned and not kept. An empty
    /// value is [`Choice::nothing`].
    ///
    /// It is the same worker as that of a cookie, header, query parameter or path segment with this value.
    pub fn key(value: impl AsRef<[u8]>) -> Self {
        let chosen = match value.as_ref() {
            [] => Chosen::Nothing,
            value => Chosen::Key(value.into()),
        };
        Self { chosen }
    }

    /// This worker. One that does not exist is as good as one that is not running: what becomes of the request is
    /// then up to `Failover`.
    pub const fn worker(worker: WorkerId) -> Self {
        Self { chosen: Chosen::Worker(worker) }
    }
}

/// A function from code, with what it takes to be part of an [`Affinity`](crate::Affinity).
#[derive(Clone)]
pub(super) struct Function(Arc<dyn Fn(&RequestHead<'_>) -> Choice + Send + Sync>);

impl Function {
    pub(super) fn new(function: impl Fn(&RequestHead<'_>) -> Choice + Send + Sync + 'static) -> Self {
        Self(Arc::new(function))
    }

    /// A panic in it is as good as no answer: it is the user's code, and the input a stranger's.
    fn call(&self, head: &RequestHead<'_>) -> Choice {
        std::panic::catch_unwind(AssertUnwindSafe(|| (self.0)(head))).unwrap_or_else(|_| {
            static SAID: Once = Once::new();
            SAID.call_once(|| notice::error("the affinity function has panicked: such requests are served anywhere"));
            Choice::nothing()
        })
    }
}

impl PartialEq for Function {
    /// Whether one is a clone of the other: code cannot be compared.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Function {}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::affinity::Affinity;
    use crate::dispatch::handoff::HeadParts;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn hasher() -> KeyHasher {
        KeyHasher::new(7)
    }

    fn text_key(value: impl AsRef<[u8]>) -> Option<Destination> {
        Some(Destination::Key(hasher().of_text(value)))
    }

    /// Whom a GET belongs to.
    fn find(affinity: &Affinity, target: &str, headers: &[(&str, &[u8])]) -> Option<Destination> {
        affinity.key(&HeadParts::new("GET", target, headers).head(), Some(CLIENT), &hasher(), KNOWN)
    }

    /// Slots 0 to 3 are live.
    const KNOWN: Known<'_> = Known { ticket: &ticket, is_live: &|slot| slot.get() < 4 };

    /// Stands in for the reader of sticky cookies: the worker is written in a header.
    fn ticket(head: &RequestHead<'_>) -> Option<WorkerId> {
        let text = str::from_utf8(head.header("ticket")?).ok()?;
        Some(WorkerId::new(text.parse().ok()?))
    }

    /// Asserts that the value found is this one; none is nothing found.
    #[track_caller]
    fn assert_value(found: Option<Destination>, value: Option<&[u8]>, case: impl fmt::Debug) {
        assert_eq!(found, value.and_then(text_key), "{case:?}");
    }

    #[test]
    fn cookies() {
        let sid = Affinity::cookie("sid");
        for (line, value) in [
            ("sid=a", Some("a")),
            ("x=1; sid=a; y=2", Some("a")),
            ("x=1;sid=a", Some("a")),
            ("x=1 ;\tsid = a\t; y=2", Some("a")),
            ("sid=a=b", Some("a=b")),
            ("sid=a%3Ab", Some("a:b")),
            ("sid=a+b", Some("a+b")),
            ("sid=a%", Some("a%")),
            ("sid=%zz%4", Some("%zz%4")),
            ("sid=\"a\"", Some("a")),
            ("sid=\"a", Some("\"a")),
            ("sid=\"", Some("\"")),
            ("sid=a; sid=b", Some("a")),
            ("sid=; sid=b", None),
            ("sid=\"\"", None),
            ("sid", None),
            ("sid; sid=a", Some("a")),
            ("mysid=a", None),
            ("sidx=a", None),
            ("Sid=a", None),
            ("s%69d=a", None),
            ("my sid=a", None),
            ("x=sid=a", None),
            ("x=\"; sid=a\"", Some("a\"")),
            ("", None),
        ] {
            let found = find(&sid, "/?sid=no", &[("Cookie", line.as_bytes())]);
            assert_value(found, value.map(str::as_bytes), line);
        }
    }

    #[test]
    fn cookies_over_several_lines() {
        let sid = Affinity::cookie("sid");
        let lines: [(&str, &[u8]); 4] =
            [("cookie", b"x=1"), ("set-cookie", b"sid=no"), ("COOKIE", b"sid=a"), ("cookie", b"sid=b")];
        assert_eq!(find(&sid, "/", &lines), text_key("a"));
        assert_eq!(find(&sid, "/", &lines[..2]), None);
    }

    #[test]
    fn cookies_that_are_no_text() {
        assert_eq!(find(&Affinity::cookie("a"), "/", &[("cookie", b"a=\xff%FE")]), text_key(b"\xff\xfe"));
    }

    #[test]
    fn headers() {
        let user = Affinity::header("X-User");
        for (lines, value) in [
            (&[("x-user", "ann")][..], Some("ann")),
            (&[("X-USER", " \tann b \t")], Some("ann b")),
            (&[("x-user", "a%62")], Some("a%62")),
            (&[("x-user", "a, b")], Some("a, b")),
            (&[("x-user", "ann"), ("x-user", "bob")], Some("ann")),
            (&[("x-user", " "), ("x-user", "bob")], None),
            (&[("x-user", "")], None),
            (&[("x-users", "a"), ("my-x-user", "b"), ("x_user", "c")], None),
            (&[], None),
        ] {
            let headers: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            assert_value(find(&user, "/", &headers), value.map(str::as_bytes), lines);
        }
    }

    #[test]
    fn query_parameters() {
        let sid = Affinity::query("sid");
        for (target, value) in [
            ("/?sid=a", Some("a")),
            ("/?x&sid=a&y", Some("a")),
            ("/?&&sid=a", Some("a")),
            ("/?sid=a=b", Some("a=b")),
            ("/?sid=a%2Bb+c%20d", Some("a+b c d")),
            ("/?s%69d=a", Some("a")),
            ("/?sid=a%26sid%3Db", Some("a&sid=b")),
            ("/?sid=a#&sid=b", Some("a")),
            ("http://h/?sid=a", Some("a")),
            ("http://h?sid=a", Some("a")),
            ("/?sid=a?b", Some("a?b")),
            ("/?sid=a;x", Some("a;x")),
            ("/?sid=a&sid=b", Some("a")),
            ("/?sid=&sid=b", None),
            ("/?sid&sid=b", None),
            ("/?sid", None),
            ("/?mysid=no", None),
            ("/?x=1&mysid=no&sid=a", Some("a")),
            ("/?sidx=a", None),
            ("/?SID=a", None),
            ("/?x=sid=a", None),
            ("/?x;sid=a", None),
            ("/?x?sid=a", None),
            ("/sid=a", None),
            ("/&sid=a", None),
            ("/#?sid=a", None),
            ("/", None),
            ("*", None),
        ] {
            let found = find(&sid, target, &[("referer", b"/?sid=no"), ("cookie", b"sid=no")]);
            assert_value(found, value.map(str::as_bytes), target);
        }
        assert_eq!(find(&Affinity::query("a b"), "/?a+b=c", &[]), text_key("c"));
    }

    #[test]
    fn paths() {
        let room = Affinity::path("/room/{id}");
        for (target, value) in [
            ("/room/7", Some("7")),
            ("http://host/room/7?x", Some("7")),
            ("/room/", None),
            ("/?/room/7", None),
            ("host:443", None),
        ] {
            assert_value(find(&room, target, &[]), value.map(str::as_bytes), target);
        }
    }

    #[test]
    fn the_client_address() {
        assert_eq!(find(&Affinity::client_ip(), "/", &[]), Some(Destination::Address(CLIENT)));
        let parts = HeadParts::new("GET", "/", &[]);
        assert_eq!(Affinity::client_ip().key(&parts.head(), None, &hasher(), KNOWN), None);
    }

    #[test]
    fn functions_choose() {
        let worker = WorkerId::new(3);
        let custom = Affinity::custom(move |head| match head.method() {
            "GET" => Choice::key(head.path()),
            "PUT" => Choice::worker(worker),
            "PATCH" => Choice::key(""),
            _ => Choice::nothing(),
        });
        let custom = custom.or(Affinity::query("q"));
        let find = |method| custom.key(&HeadParts::new(method, "/a?q=b", &[]).head(), None, &hasher(), KNOWN);
        assert_eq!(find("GET"), Some(Destination::Chosen(hasher().of_text("/a"))));
        assert_eq!(find("PUT"), Some(Destination::Worker(worker)));
        assert_eq!(find("PATCH"), text_key("b"));
        assert_eq!(find("POST"), text_key("b"));
        assert_eq!(Choice::key(""), Choice::nothing());
        assert_eq!(format!("{:?}", Function::new(|_| Choice::nothing())), "Function(..)");
    }

    #[test]
    fn a_function_that_panics_has_no_answer() {
        let panics = Affinity::custom(|_| panic!("no such head")).or(Affinity::query("q"));
        assert_eq!(find(&panics, "/?q=b", &[]), text_key("b"));
    }

    #[test]
    fn the_sticky_cookie_names_a_worker_and_else_the_fallbacks_decide() {
        let (named, client) = (Some(Destination::Worker(WorkerId::new(3))), Some(Destination::Address(CLIENT)));
        let with_query = || Affinity::sticky_cookie().or(Affinity::query("q"));
        for (affinity, ticket, expected) in [
            (Affinity::sticky_cookie(), b"3".as_slice(), named),
            (Affinity::sticky_cookie(), b"stale", client),
            (Affinity::query("x").or(Affinity::sticky_cookie()), b"", client),
            (Affinity::query("q").or(Affinity::sticky_cookie()), b"3", text_key("a")),
            (with_query(), b"3", named),
            (with_query(), b"", text_key("a")),
            // A fallback of its own is all that it has.
            (Affinity::sticky_cookie().or(Affinity::query("x")), b"", None),
        ] {
            assert_eq!(find(&affinity, "/?q=a", &[("ticket", ticket)]), expected, "{affinity}");
        }
    }

    #[test]
    fn nobody_is_asked_for_tickets_without_a_sticky_cookie() {
        let never = |_: &RequestHead<'_>| panic!("asked for a ticket");
        let parts = HeadParts::new("GET", "/", &[]);
        assert_eq!(
            Affinity::cookie("a").key(&parts.head(), Some(CLIENT), &hasher(), Known { ticket: &never, ..KNOWN }),
            None
        );
    }

    #[test]
    fn a_learned_cookie_is_found_like_any_other() {
        let headers: [(&str, &[u8]); 1] = [("cookie", b"sid=a")];
        assert_eq!(find(&Affinity::cookie("sid").learn(), "/", &headers), text_key("a"));
    }

    #[test]
    fn the_first_source_with_a_key_decides() {
        let all = Affinity::cookie("a").or(Affinity::query("b")).or(Affinity::client_ip());
        let client = Some(Destination::Address(CLIENT));
        assert_eq!(find(&all, "/?b=2", &[("cookie", b"a=1")]), text_key("1"));
        assert_eq!(find(&all, "/?b=2", &[("cookie", b"a=")]), text_key("2"));
        assert_eq!(find(&all, "/?b=", &[]), client);
    }

    #[test]
    fn a_value_is_the_same_key_wherever_it_comes_from() {
        let headers: [(&str, &[u8]); 2] = [("cookie", b"a=v%20w"), ("a", b"v w")];
        let everywhere = [Affinity::cookie("a"), Affinity::header("a"), Affinity::query("a"), Affinity::path("/p/{a}")];
        let chosen = find(&Affinity::custom(|_| Choice::key("v w")), "/", &[]);
        assert_eq!(chosen, Some(Destination::Chosen(hasher().of_text("v w"))));
        for affinity in everywhere {
            assert_eq!(find(&affinity, "/p/v%20w?a=v+w", &headers), text_key("v w"), "{affinity}");
        }
    }

    /// Every byte but those of plain words as an escape.
    fn escaped(value: &[u8]) -> String {
        percent_encoding::percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
    }

    #[test]
    fn an_engine_io_session_is_where_its_id_says_if_that_is_live() {
        let affinity = Affinity::engine_io().or(Affinity::sticky_cookie());
        let find = |query: &str, ticket: &str| {
            let target = format!("/socket.io/?transport=polling&{query}");
            find(&affinity, &target, &[("ticket", ticket.as_bytes())])
        };
        let worker = |number| Some(Destination::Worker(WorkerId::new(number)));
        let tagged = |tag: &str| format!("EIO=4&sid=AbCdEfGhIjKl_-09{tag}");
        assert_eq!(find(&tagged(".3"), "1"), worker(3));
        for no_hint in [".4", ".9", "", ".x"] {
            assert_eq!(find(&tagged(no_hint), "1"), worker(1), "{no_hint}");
            assert_eq!(find(&tagged(no_hint), ""), Some(Destination::Address(CLIENT)), "{no_hint}");
        }
        assert_eq!(find("EIO=4", "1"), worker(1));
        assert_eq!(find("EIO=4", ""), Some(Destination::New(CLIENT)));
        assert_eq!(find("EIO=3", ""), Some(Destination::Home(CLIENT)));
        assert_eq!(find("EIO=3&sid=AbCdEfGhIjKl_-09.3", ""), Some(Destination::Home(CLIENT)));
        assert_eq!(find("x=y", ""), Some(Destination::Address(CLIENT)));
        let parts = HeadParts::new("GET", "/?EIO=4", &[]);
        assert_eq!(affinity.key(&parts.head(), None, &hasher(), KNOWN), None);
        let plain = Affinity::sticky_cookie();
        assert_eq!(self::find(&plain, "/?EIO=4", &[]), Some(Destination::Address(CLIENT)));
        assert_eq!(self::find(&plain, "/?EIO=3", &[]), Some(Destination::Address(CLIENT)));
    }

    proptest! {
        #[test]
        fn whatever_is_escaped_is_found(value in proptest::collection::vec(any::<u8>(), 1..20)) {
            let text = escaped(&value);
            let (target, cookie) = (format!("/x/{text}?x=1&v={text}&v=2"), format!("x=1; v={text}; v=2"));
            let headers = [("cookie", cookie.as_bytes())];
            for affinity in [Affinity::cookie("v"), Affinity::query("v"), Affinity::path("/x/{v}")] {
                prop_assert_eq!(find(&affinity, &target, &headers), text_key(&value));
            }
        }

        #[test]
        fn look_alikes_never_match(before in "[a-zA-Z0-9_%.-]{0,4}", after in "[a-zA-Z0-9_.-]{0,4}") {
            prop_assume!(!(before.is_empty() && after.is_empty()));
            let name = format!("{before}sid{after}");
            let (target, cookie) = (format!("/?{name}=no"), format!("{name}=no"));
            let headers = [("cookie", cookie.as_bytes()), (&*name, b"no")];
            for affinity in [Affinity::cookie("sid"), Affinity::query("sid"), Affinity::header("sid")] {
                prop_assert_eq!(find(&affinity, &target, &headers), None);
            }
        }

        #[test]
        fn no_request_is_too_odd(target: String, cookie: Vec<u8>, name in "[a-z=&%+]{0,3}") {
            let headers = [("cookie", cookie.as_slice()), ("a", &cookie)];
            let sources = [
                Affinity::cookie(&*name),
                Affinity::query(&*name),
                Affinity::path(&*target),
                Affinity::header("a"),
            ];
            for affinity in sources {
                let found = find(&affinity, &target, &headers);
                prop_assert_eq!(found, find(&affinity, &target, &headers));
            }
        }
    }
}
