//! Affinity: what of a client decides which worker serves it.
//!
//! ```text
//! request head ──┐
//!                ├─ Affinity ┬► value ─ KeyHasher ─► AffinityKey ─ placement of keys ─► slot
//! client address ┘           ├► the client's address ──────────── the kernel's hash ──► slot
//!                            └► a worker, where the sticky cookie or code names one ──► slot
//! ```
//!
//! Nothing here does I/O: heads and addresses come in as bytes that somebody else has read.

pub(crate) mod client_address;
mod engine_io;
mod key;
mod path;
pub(crate) mod proxy_protocol;
mod source;
mod text;
pub(crate) mod ticket;

use std::net::IpAddr;

pub(crate) use self::client_address::{AddressHeader, Peer, ProxyTrust};
use self::engine_io::Session;
pub use self::engine_io::{SessionTag, parameters};
pub(crate) use self::key::{AffinityKey, KeyHasher};
use self::path::PathPattern;
pub use self::path::PathProblem;
pub use self::source::Choice;
pub(crate) use self::source::cookie_value;
use self::source::{Function, Source};
pub(crate) use self::text::is_token;
pub use self::text::{AffinityProblem, ParseAffinityError};
use crate::dispatch::handoff::RequestHead;
use crate::id::WorkerId;

/// What ties a client to its worker: everything with the same key reaches the same slot.
///
/// ```
/// use sticky_core::Affinity;
///
/// let affinity = Affinity::cookie("session").or(Affinity::client_ip());
/// assert_eq!(affinity, "cookie:session|client-ip".parse()?);
/// # Ok::<(), sticky_core::error::ParseAffinityError>(())
/// ```
///
/// Default: [`Affinity::client_ip`].
///
/// # Keys
///
/// A key is made of the value as the application sees it: without surrounding white space, and with `%41` decoded
/// where the place has such escapes. An empty value is no value. Of several values of one name the first counts, even
/// if it is the empty one. Names are compared whole, so `mysid=` is never taken for `sid=`.
///
/// Equal values are equal keys wherever they come from: a session id in a cookie and the same one in the query reach
/// the same worker. Only the client address is apart; no text is ever taken for one.
///
/// A request without a key is served by the worker that has it.
///
/// # Sessions that the application makes
///
/// The first request of a session carries no key yet: the application makes the session in the worker that the request
/// happened to reach, and the key that it then gives out may belong to another one. [`Affinity::sticky_cookie`] has no
/// such gap, because its cookie names the worker. [`Affinity::learn`] remembers where a session was made.
///
/// # As text
///
/// `STICKY_AFFINITY` takes `client-ip`, `cookie:session`, `cookie:session+learn`, `header:x-user`, `query:k`,
/// `path:/room/{id}`, `sticky-cookie` and `engine-io`, with fallbacks after `|`. [`Display`](std::fmt::Display) gives that text back;
/// for [`Affinity::custom`], which has none, `custom`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    first: Source,
    fallbacks: Vec<Source>,
    /// Whether code asked for something to be learned where nothing can be.
    learns_nothing: bool,
}

/// What is known beside the request.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    /// Reads the sticky cookie of a request: the worker it names, if it is valid.
    pub(crate) ticket: &'a dyn Fn(&RequestHead<'_>) -> Option<WorkerId>,
    /// Whether there is such a slot, and it is in.
    pub(crate) is_live: &'a dyn Fn(WorkerId) -> bool,
}

/// Whom a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The owner of this key, which the client has sent.
    Key(AffinityKey),
    /// The owner of this key, which code has chosen. Clients cannot make up as many of them as they like.
    Chosen(AffinityKey),
    /// This worker, as the sticky cookie or code said. It need not exist.
    Worker(WorkerId),
    /// Whoever the kernel's hash gives this address to, so that a first contact that the kernel has placed is where it
    /// belongs.
    Address(IpAddr),
    /// The same, whatever the placement of new sessions is: nothing but the address will tell where this one is.
    Home(IpAddr),
    /// Anybody: a new session from this address, whose id will name its worker.
    New(IpAddr),
}

impl Affinity {
    /// The client's address: the whole of an IPv4 address, the first 64 bits of an IPv6 one.
    ///
    /// It is the address the connection comes from, or the one that a trusted proxy names. Clients on a unix socket
    /// have none.
    pub const fn client_ip() -> Self {
        Self::of(Source::ClientAddress)
    }

    /// The value of a cookie, without the quotes around it if there are any. The name is case-sensitive.
    ///
    /// The session must be where the value says it is: a session id that the application draws in the worker that the
    /// first request happened to reach names another one. [`learn`](Self::learn) where ids are drawn, or take
    /// [`Affinity::sticky_cookie`].
    pub fn cookie(name: impl Into<String>) -> Self {
        Self::of(Source::Cookie { name: name.into(), is_learned: false })
    }

    /// A cookie of our own, which names the worker of the client's first request. The application never sees it.
    ///
    /// With no fallback after it the first contact goes by [`Affinity::client_ip`]: a browser's six parallel first
    /// requests, none of which has the cookie yet, reach one worker. Name, attributes and secret are settings of
    /// [`ClusterBuilder`](crate::ClusterBuilder).
    ///
    /// ```
    /// use sticky_core::{Affinity, Cluster};
    ///
    /// let builder = Cluster::builder().affinity(Affinity::sticky_cookie()).cookie_name("node");
    /// # let _ = builder;
    /// ```
    pub const fn sticky_cookie() -> Self {
        Self::of(Source::StickyCookie)
    }

    /// The worker that the id of an Engine.IO session names, as `sticky-socketio` tags it. Ids of other makes are no keys.
    ///
    /// A tag is the client's word, so it is a hint: where it names no worker that is there, the fallbacks are asked, and
    /// the session is then unknown to whoever is asked. With no fallback after it that is [`Affinity::client_ip`]. Of
    /// version 3 of the protocol, whose ids cannot have a tag, sessions go by the fallbacks alone: one that comes by its
    /// address is where that hashes to, whatever the placement says.
    ///
    /// ```
    /// use sticky_core::Affinity;
    ///
    /// let affinity = Affinity::engine_io().or(Affinity::sticky_cookie());
    /// assert_eq!(affinity.to_string(), "engine-io|sticky-cookie");
    /// ```
    pub const fn engine_io() -> Self {
        Self::of(Source::EngineIo)
    }

    /// The value of a request header, as a whole. The name is the same in any case.
    pub fn header(name: impl Into<String>) -> Self {
        Self::of(Source::Header(name.into().to_ascii_lowercase()))
    }

    /// The value of a query parameter: of `?k=a+b`, `a b`, as forms are encoded. The name is case-sensitive.
    pub fn query(name: impl Into<String>) -> Self {
        Self::of(Source::Query(name.into()))
    }

    /// A part of the path. The pattern is compared segment by segment with the beginning of the path.
    ///
    /// | pattern | matches | key |
    /// |---|---|---|
    /// | `/room/{id}` | `/room/7`, `/room/7/messages` | `7` |
    /// | `/room/{id}/ws` | `/room/7/ws` | `7` |
    /// | `/files/{*path}` | `/files/a/b` | `a/b` |
    /// | `/admin` | `/admin`, `/admin/users` | `/admin`: the same worker for all of them |
    ///
    /// At most one part is in braces. `/Room/7` and `//room/7` are other paths than `/room/7`, and `/room/` has no key.
    pub fn path(pattern: impl Into<String>) -> Self {
        Self::of(Source::Path(PathPattern::new(pattern.into())))
    }

    /// Whatever a function makes of the request's head.
    ///
    /// It is called for every request, before the application sees it, on the thread that serves connections: it must
    /// be quick, and give the same answer in every worker.
    ///
    /// ```
    /// use sticky_core::{Affinity, Choice};
    ///
    /// let by_tenant = Affinity::custom(|head| match head.header("host") {
    ///     Some(host) => Choice::key(host.to_ascii_lowercase()),
    ///     None => Choice::nothing(),
    /// });
    /// assert_eq!(by_tenant.to_string(), "custom");
    /// ```
    ///
    /// It equals only clones of itself.
    pub fn custom(choose: impl Fn(&RequestHead<'_>) -> Choice + Send + Sync + 'static) -> Self {
        Self::of(Source::Custom(Function::new(choose)))
    }

    /// Where this finds no key, `other` is asked.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.fallbacks.push(other.first);
        self.fallbacks.extend(other.fallbacks);
        self.learns_nothing |= other.learns_nothing;
        self
    }

    /// Has the values of its cookies learned: what a worker's response sets one to belongs to that worker from then on.
    ///
    /// For sessions whose ids the application draws. They are remembered in the session table, so within
    /// `session_capacity` and `session_idle_timeout`; a value that is not in it goes where its hash says.
    ///
    /// ```
    /// use sticky_core::Affinity;
    ///
    /// let affinity = Affinity::cookie("session").learn().or(Affinity::client_ip());
    /// assert_eq!(affinity.to_string(), "cookie:session+learn|client-ip");
    /// ```
    ///
    /// Where there is no cookie there is nothing to learn: building the cluster is then an error.
    #[must_use]
    pub fn learn(mut self) -> Self {
        let mut has_cookie = false;
        for source in std::iter::once(&mut self.first).chain(&mut self.fallbacks) {
            if let Source::Cookie { is_learned, .. } = source {
                *is_learned = true;
                has_cookie = true;
            }
        }
        self.learns_nothing |= !has_cookie;
        self
    }

    const fn of(first: Source) -> Self {
        Self { first, fallbacks: Vec::new(), learns_nothing: false }
    }

    /// Every source, in the order in which they are asked.
    fn sources(&self) -> impl Iterator<Item = &Source> {
        let said = std::iter::once(&self.first).chain(&self.fallbacks);
        let is_open = matches!(self.fallbacks.last().unwrap_or(&self.first), Source::StickyCookie | Source::EngineIo);
        said.chain(is_open.then_some(&Source::ClientAddress))
    }

    /// The key of a request, where the first source that finds one finds a value in the head: whenever and by whomever this
    /// head is sent again, that is its key.
    pub(crate) fn key_in_head(&self, head: &RequestHead<'_>, hasher: &KeyHasher) -> Option<AffinityKey> {
        let values = self.sources().take_while(|source| source.is_value());
        values.filter_map(|source| source.value(head)).next().map(|value| hasher.of_text(value))
    }

    /// Whom a request belongs to that has no [key in its head](Self::key_in_head), if any source says so. `client` is the
    /// client's address, if it has one.
    pub(crate) fn key_beyond_head(
        &self,
        head: &RequestHead<'_>,
        client: Option<IpAddr>,
        hasher: &KeyHasher,
        known: Known<'_>,
    ) -> Option<Destination> {
        let sources = self.sources().skip_while(|source| source.is_value());
        let found = sources.filter_map(|source| source.find(head, client, hasher, known)).next();
        match found {
            Some(Destination::Address(address)) if self.reads_session_tags() => {
                Some(match head.query().and_then(Session::of) {
                    Some(Session::New) => Destination::New(address),
                    Some(Session::Untagged) => Destination::Home(address),
                    Some(Session::In(_)) | None => Destination::Address(address),
                })
            }
            found => found,
        }
    }

    /// Whom a request belongs to.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn key(
        &self,
        head: &RequestHead<'_>,
        client: Option<IpAddr>,
        hasher: &KeyHasher,
        known: Known<'_>,
    ) -> Option<Destination> {
        let in_head = self.key_in_head(head, hasher).map(Destination::Key);
        in_head.or_else(|| self.key_beyond_head(head, client, hasher, known))
    }

    /// Whether ids of Engine.IO sessions have to name their worker.
    pub(crate) fn reads_session_tags(&self) -> bool {
        self.sources().any(|source| *source == Source::EngineIo)
    }

    /// The names of the cookies whose values are learned from responses.
    pub(crate) fn learned_cookies(&self) -> impl Iterator<Item = &str> {
        self.sources().filter_map(|source| match source {
            Source::Cookie { name, is_learned: true } => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether there is a sticky cookie to set and to read.
    pub(crate) fn uses_sticky_cookie(&self) -> bool {
        self.sources().any(|source| *source == Source::StickyCookie)
    }

    /// Whether the request has to be read to find the key; the client address alone can be had without.
    pub(crate) fn reads_requests(&self) -> bool {
        self.sources().any(|source| *source != Source::ClientAddress)
    }
}

impl Default for Affinity {
    /// [`Affinity::client_ip`].
    fn default() -> Self {
        Self::client_ip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::handoff::HeadParts;

    #[test]
    fn only_what_is_in_the_request_needs_it_read() {
        assert!(!Affinity::default().reads_requests());
        assert!(!Affinity::client_ip().or(Affinity::client_ip()).reads_requests());
        assert!(Affinity::cookie("a").reads_requests());
        assert!(Affinity::sticky_cookie().reads_requests());
        assert!(Affinity::engine_io().reads_requests());
        assert!(Affinity::client_ip().or(Affinity::query("a")).reads_requests());
        assert!(Affinity::custom(|_| Choice::nothing()).reads_requests());
    }

    #[test]
    fn a_key_is_in_the_head_if_nobody_else_is_asked_first() {
        let parts = HeadParts::new("GET", "/", &[("x-a", b"1"), ("x-b", b"2")]);
        let hasher = KeyHasher::new(7);
        let [one, two] = ["1", "2"].map(|value| Some(hasher.of_text(value)));
        for (text, key) in [
            ("header:x-a", one),
            ("header:x-c|header:x-b|client-ip", two),
            ("query:k|header:x-a|sticky-cookie", one),
            ("header:x-c|client-ip", None),
            ("sticky-cookie|header:x-a", None),
            ("header:x-c|engine-io|header:x-a", None),
        ] {
            let affinity: Affinity = text.parse().unwrap();
            assert_eq!(affinity.key_in_head(&parts.head(), &hasher), key, "{text}");
        }
        let custom = Affinity::custom(|_| Choice::key("1")).or(Affinity::header("x-a"));
        assert_eq!(custom.key_in_head(&parts.head(), &hasher), None);
    }

    #[test]
    fn functions_are_equal_to_their_clones() {
        let custom = || Affinity::custom(|_| Choice::nothing());
        let one = custom();
        assert_eq!(one, one.clone());
        assert_ne!(one, custom());
        assert_ne!(one, Affinity::client_ip());
    }

    #[test]
    fn the_sticky_cookie_is_told_from_others() {
        assert!(Affinity::sticky_cookie().uses_sticky_cookie());
        assert!(Affinity::cookie("a").or(Affinity::sticky_cookie()).uses_sticky_cookie());
        assert!(!Affinity::cookie("sticky-cookie").or(Affinity::client_ip()).uses_sticky_cookie());
    }

    #[test]
    fn all_cookies_so_far_are_learned_and_nothing_else() {
        let [a, b, c] = ["a", "b", "c"].map(Affinity::cookie);
        let learned = |affinity: &Affinity| affinity.learned_cookies().map(str::to_owned).collect::<Vec<_>>();
        assert!(learned(&a).is_empty());
        let two = Affinity::sticky_cookie().or(a.clone()).or(Affinity::header("x")).or(b).learn().or(c.clone());
        assert_eq!(learned(&two), ["a", "b"]);
        assert_eq!(learned(&a.clone().or(c.learn())), ["c"]);
        assert_eq!(a.clone().learn().learn(), a.learn());
    }

    #[test]
    fn fallbacks_are_one_list() {
        let [a, b, c] = ["a", "b", "c"].map(Affinity::cookie);
        assert_eq!(a.clone().or(b.clone()).or(c.clone()), a.clone().or(b.clone().or(c.clone())));
        assert_ne!(a.clone().or(b.clone()), b.or(a));
        assert_eq!(Affinity::header("X-User"), Affinity::header("x-user"));
        assert_ne!(Affinity::cookie("X"), Affinity::cookie("x"));
    }
}
