//! Affinity: what of a client decides which worker serves it.
//!
//! ```text
//! request head ──┐
//!                ├─ Affinity ┬► value ─ KeyHasher ─► AffinityKey ─ placement of keys ─► slot
//! client address ┘           ├► the client's address ──────────── the kernel's hash ──► slot
//!                            └► a worker, where code names one ───────────────────────► slot
//! ```
//!
//! Nothing here does I/O: heads and addresses come in as bytes that somebody else has read.

mod client_address;
mod key;
mod path;
pub(crate) mod proxy_protocol;
mod source;
mod text;

use std::net::IpAddr;

pub(crate) use self::client_address::{AddressHeader, Peer, ProxyTrust};
pub(crate) use self::key::{AffinityKey, KeyHasher};
use self::path::PathPattern;
pub use self::path::PathProblem;
pub use self::source::Choice;
use self::source::{Function, Source};
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
/// # As text
///
/// `STICKY_AFFINITY` takes `client-ip`, `cookie:session`, `header:x-user`, `query:k` and `path:/room/{id}`, with
/// fallbacks after `|`. [`Display`](std::fmt::Display) gives that text back; for [`Affinity::custom`], which has
/// none, `custom`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    first: Source,
    fallbacks: Vec<Source>,
}

/// Whom a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The owner of this key.
    Key(AffinityKey),
    /// This worker, as code said. It need not exist.
    Worker(WorkerId),
    /// Whoever the kernel's hash gives this address to, so that a first contact that the kernel has placed is where it
    /// belongs.
    Address(IpAddr),
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
    /// first request happened to reach names another one. Let code draw ids that belong to its worker.
    pub fn cookie(name: impl Into<String>) -> Self {
        Self::of(Source::Cookie(name.into()))
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
        self
    }

    const fn of(first: Source) -> Self {
        Self { first, fallbacks: Vec::new() }
    }

    /// Every source, in the order in which they are asked.
    fn sources(&self) -> impl Iterator<Item = &Source> {
        std::iter::once(&self.first).chain(&self.fallbacks)
    }

    /// Whom a request belongs to, if any source says so. `client` is the client's address, if it has one.
    pub(crate) fn key(
        &self,
        head: &RequestHead<'_>,
        client: Option<IpAddr>,
        hasher: &KeyHasher,
    ) -> Option<Destination> {
        self.sources().find_map(|source| source.find(head, client, hasher))
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

    #[test]
    fn only_what_is_in_the_request_needs_it_read() {
        assert!(!Affinity::default().reads_requests());
        assert!(!Affinity::client_ip().or(Affinity::client_ip()).reads_requests());
        assert!(Affinity::cookie("a").reads_requests());
        assert!(Affinity::client_ip().or(Affinity::query("a")).reads_requests());
        assert!(Affinity::custom(|_| Choice::nothing()).reads_requests());
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
    fn fallbacks_are_one_list() {
        let [a, b, c] = ["a", "b", "c"].map(Affinity::cookie);
        assert_eq!(a.clone().or(b.clone()).or(c.clone()), a.clone().or(b.clone().or(c.clone())));
        assert_ne!(a.clone().or(b.clone()), b.or(a));
        assert_eq!(Affinity::header("X-User"), Affinity::header("x-user"));
        assert_ne!(Affinity::cookie("X"), Affinity::cookie("x"));
    }
}
