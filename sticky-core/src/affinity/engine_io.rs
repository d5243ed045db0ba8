//! Engine.IO: what its requests say of their session, and the tag that names the session's worker.
//!
//! ```text
//! handshake  GET /socket.io/?EIO=4&transport=polling             ─► 0{"sid":"lv_VI97HAXpY6yYWAAAB.3", ..}
//! from then  GET /socket.io/?EIO=4&transport=polling&sid=lv_VI97HAXpY6yYWAAAB.3   ─► worker 3
//! ```
//!
//! The id is the engine's, 16 characters long; the tag is ours. Whoever answers the handshake puts it on and takes it off
//! again on the way in, so that only the client ever sees it. No table has to learn of a session, and no request can be
//! faster than the news of it.
//!
//! A tag is the client's word: it is looked up among the slots that are live, and says nothing more than where to ask.

use std::fmt;

use crate::id::{MAX_WORKERS, WorkerId};

/// How long the engine's own ids are.
const ID_LENGTH: usize = 16;

/// What separates an id from its tag: nothing that an id can have in it, and nothing that a query has to escape.
const SEPARATOR: char = '.';

/// The tag after an Engine.IO session id: the worker that the session is in. For integrations.
///
/// ```
/// use sticky_core::{SessionTag, WorkerId};
///
/// let tag = SessionTag::new(WorkerId::new(3));
/// let id = format!("lv_VI97HAXpY6yYW{tag}");
/// assert_eq!(id, "lv_VI97HAXpY6yYW.3");
/// assert_eq!(SessionTag::split(&id), Some(("lv_VI97HAXpY6yYW", tag)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTag(WorkerId);

impl SessionTag {
    /// The tag of this worker's sessions.
    pub const fn new(worker: WorkerId) -> Self {
        Self(worker)
    }

    /// The worker that the tag names. It need not exist: clients can write what they like.
    pub const fn worker(self) -> WorkerId {
        self.0
    }

    /// The id and the tag of a session, if that is what this is: there is one way to write each.
    pub fn split(tagged: &str) -> Option<(&str, Self)> {
        let (id, tag) = tagged.split_at_checked(ID_LENGTH)?;
        let number = tag.strip_prefix(SEPARATOR)?;
        let is_id = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        let is_canonical = number == "0" || (number.len() <= 3 && !number.starts_with(['0', '+']));
        let slot = number.parse().ok().filter(|slot| is_id && is_canonical && *slot < MAX_WORKERS)?;
        Some((id, Self(WorkerId::new(slot))))
    }
}

impl fmt::Display for SessionTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SEPARATOR}{}", self.0)
    }
}

/// What a request's query says of its Engine.IO session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// It begins one, whose id will name its worker.
    New,
    /// It belongs to one that is said to be in this worker.
    In(WorkerId),
    /// Its protocol is version 3, whose clients make something else of a session's id: it stays as it is.
    Untagged,
}

impl Session {
    /// Reads a query as the engine does: names as they are, and the first of each.
    pub(super) fn of(query: &str) -> Option<Self> {
        let [version, id] = parameters(query, ["EIO=", "sid="]);
        match version? {
            "3" => Some(Self::Untagged),
            "4" => match id {
                None => Some(Self::New),
                Some(id) => SessionTag::split(id).map(|(_, tag)| Self::In(tag.worker())),
            },
            _ => None,
        }
    }
}

/// The values of a query's first parameters with these names, which are given with their `=`: names as they are. For
/// integrations.
///
/// ```
/// let query = "EIO=4&transport=polling&sid=a&sid=b";
/// assert_eq!(sticky_core::integration::parameters(query, ["sid=", "EIO=", "t="]), [Some("a"), Some("4"), None]);
/// ```
pub fn parameters<'a, const N: usize>(query: &'a str, names: [&str; N]) -> [Option<&'a str>; N] {
    let mut values = [None; N];
    let mut rest = Some(query);
    while let Some(pairs) = rest {
        let end = memchr::memchr(b'&', pairs.as_bytes());
        rest = end.map(|end| &pairs[end + 1..]);
        let pair = &pairs[..end.unwrap_or(pairs.len())];
        for (name, value) in names.iter().zip(&mut values) {
            if let Some(found) = pair.strip_prefix(name) {
                value.get_or_insert(found);
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "AbCdEfGhIjKl_-09";

    fn of(query: &str) -> Option<Session> {
        Session::of(query)
    }

    fn worker(number: u16) -> Option<Session> {
        Some(Session::In(WorkerId::new(number)))
    }

    #[test]
    fn tags_are_written_in_one_way() {
        for number in [0, 3, 10, 255] {
            let tag = SessionTag::new(WorkerId::new(number));
            let tagged = format!("{ID}{tag}");
            assert_eq!(tagged, format!("{ID}.{number}"));
            assert_eq!(SessionTag::split(&tagged), Some((ID, tag)));
        }
        for tag in
            ["", ".", ".-1", ".+1", ".01", ".00", ".256", ".65536", ".1 ", ". 1", ".1.2", ".\u{661}", "1", "%2E1"]
        {
            assert_eq!(SessionTag::split(&format!("{ID}{tag}")), None, "{tag}");
        }
        for id in ["", "short", "AbCdEfGhIjKl_-091", "AbCdEfGhIjKl_-0", "AbCdEfGhIjKl+/09", "AbCdEfGhIjKl_-é"] {
            assert_eq!(SessionTag::split(&format!("{id}.1")), None, "{id}");
        }
    }

    #[test]
    fn a_session_is_where_its_id_says() {
        assert_eq!(of(&format!("EIO=4&transport=polling&sid={ID}.3")), worker(3));
        assert_eq!(of(&format!("sid={ID}.3&transport=websocket&EIO=4&t=x")), worker(3));
        assert_eq!(of("EIO=4&transport=polling"), Some(Session::New));
        assert_eq!(of("EIO=3&transport=polling"), Some(Session::Untagged));
        assert_eq!(of(&format!("EIO=3&transport=polling&sid={ID}.3")), Some(Session::Untagged));
    }

    #[test]
    fn look_alikes_are_others() {
        assert_eq!(of(&format!("EIO=4&mysid={ID}.1&sid={ID}.3")), worker(3));
        assert_eq!(of(&format!("EIO=4&sid={ID}.3&sid={ID}.1")), worker(3));
        assert_eq!(of(&format!("EIO=4&sid&sid={ID}.1")), worker(1));
        assert_eq!(of(&format!("EIO=4&SID={ID}.1")), Some(Session::New));
        assert_eq!(of(&format!("EIO=4&x=sid={ID}.1")), Some(Session::New));
        assert_eq!(of(&format!("EIO=4&sid={ID}")), None);
        assert_eq!(of(&format!("EIO=4&sid=&sid={ID}.1")), None, "the first counts, though it is empty");
        for query in ["", "EIO", "EIO=", "EIO=5", "EIO=44", "eio=4", "xEIO=4"] {
            assert_eq!(of(&format!("{query}&sid={ID}.1")), None, "{query}");
        }
    }

    proptest! {
        #[test]
        fn what_is_split_is_what_was_written(tagged in "[a-zA-Z0-9_-]{14,18}[.]?[0-9+.]{0,4}") {
            if let Some((id, tag)) = SessionTag::split(&tagged) {
                prop_assert_eq!(format!("{id}{tag}"), tagged);
            }
        }
    }
}
