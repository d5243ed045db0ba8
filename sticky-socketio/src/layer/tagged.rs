//! Which requests are Engine.IO's, and ids with and without their tag. Pure.

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{Method, Uri};
use sticky_core::SessionTag;
use sticky_core::integration::parameters;

/// What the answer to a handshake begins with.
const BEFORE_ID: &[u8] = b"0{\"sid\":\"";

/// How long the engine's own ids are.
const ID_LENGTH: usize = 16;

/// Whether the engine with this path answers a request, or the application beneath it.
pub(super) fn is_below(path: &str, engine: &str) -> bool {
    let rest = path.strip_prefix(engine);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || engine.ends_with('/'))
}

/// What a request asks of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A session, whose id the client will say again.
    Handshake,
    /// What there is for a session, as soon as there is something.
    Poll(Version),
    /// A WebSocket.
    WebSocket,
    Other,
}

/// The versions of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Three,
    Four,
}

/// What the query of an engine's request says, as far as it matters here: one look at it for everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'a> {
    version: Option<&'a str>,
    transport: Option<&'a str>,
    /// With its tag, if it has one.
    id: Option<&'a str>,
}

impl<'a> Query<'a> {
    /// The first of each counts, as it does for the engine.
    pub(super) fn of(uri: &'a Uri) -> Self {
        let [version, transport, id] = parameters(uri.query().unwrap_or_default(), ["EIO=", "transport=", "sid="]);
        Self { version, transport, id }
    }

    pub(super) fn ask(&self, method: &Method) -> Ask {
        let version = match self.version {
            Some("3") => Version::Three,
            Some("4") => Version::Four,
            _ => return Ask::Other,
        };
        match self.transport {
            _ if *method != Method::GET => Ask::Other,
            Some("polling") if self.id.is_some() => Ask::Poll(version),
            Some("polling") if version == Version::Four => Ask::Handshake,
            Some("websocket") => Ask::WebSocket,
            _ => Ask::Other,
        }
    }

    /// The same target without the tag of its session's id; none where there is no tag.
    pub(super) fn untagged(&self, uri: &'a Uri) -> Option<Uri> {
        let id = self.id?;
        let (plain, _) = SessionTag::split(id)?;
        let target = uri.path_and_query()?.as_str();
        // A part of the target, so where it is can be told from where they are.
        let tag = id.as_ptr() as usize - target.as_ptr() as usize + plain.len();
        let length = id.len() - plain.len();
        // Of exactly that size: no more memory is taken when it is made a target.
        let mut shorter = Vec::with_capacity(target.len() - length);
        shorter.extend_from_slice(&target.as_bytes()[..tag]);
        shorter.extend_from_slice(&target.as_bytes()[tag + length..]);
        let target = PathAndQuery::from_maybe_shared(Bytes::from(shorter)).ok()?;
        if uri.authority().is_none() {
            return Some(Uri::from(target));
        }
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(target);
        Uri::from_parts(parts).ok()
    }
}

impl Version {
    /// The answer to a poll by which the server closes the transport.
    pub(super) const fn close(self) -> &'static str {
        match self {
            Self::Three => "1:1",
            Self::Four => "1",
        }
    }
}

/// The answer to a handshake with the tag after its id; none if it is something else.
pub(super) fn with_tag(answer: &[u8], tag: SessionTag) -> Option<Bytes> {
    let after = answer.strip_prefix(BEFORE_ID)?;
    if after.get(ID_LENGTH) != Some(&b'"') {
        return None;
    }
    let (before, after) = answer.split_at(BEFORE_ID.len() + ID_LENGTH);
    let mut tagged = BytesMut::with_capacity(answer.len() + 4);
    for part in [before, tag.to_string().as_bytes(), after] {
        tagged.extend_from_slice(part);
    }
    Some(tagged.freeze())
}

#[cfg(test)]
mod tests {
    use sticky_core::WorkerId;

    use super::*;

    const ID: &str = "AbCdEfGhIjKl_-09";

    #[test]
    fn the_engines_path_is_a_whole_one() {
        for path in ["/socket.io", "/socket.io/", "/socket.io/x"] {
            assert!(is_below(path, "/socket.io"), "{path}");
        }
        for path in ["/", "/socket.iox", "/socket.io-admin/", "/x/socket.io/"] {
            assert!(!is_below(path, "/socket.io"), "{path}");
        }
        assert!(is_below("/ws/x", "/ws/") && is_below("/ws/", "/ws/") && !is_below("/ws", "/ws/"));
    }

    #[test]
    fn a_handshake_has_no_session_yet() {
        let ask = |method, query: &str| Query::of(&format!("/socket.io/?{query}").parse().unwrap()).ask(&method);
        let (sid, polling) = (format!("sid={ID}"), "transport=polling");
        for (method, query, expected) in [
            (Method::GET, format!("EIO=4&{polling}"), Ask::Handshake),
            (Method::GET, format!("t=abc&{polling}&EIO=4&mysid=x"), Ask::Handshake),
            (Method::POST, format!("EIO=4&{polling}"), Ask::Other),
            (Method::GET, format!("EIO=3&{polling}"), Ask::Other),
            (Method::GET, format!("EIO=4&{polling}&{sid}"), Ask::Poll(Version::Four)),
            (Method::GET, format!("EIO=3&{polling}&{sid}"), Ask::Poll(Version::Three)),
            (Method::POST, format!("EIO=4&{polling}&{sid}"), Ask::Other),
            (Method::GET, "EIO=4&transport=websocket".to_owned(), Ask::WebSocket),
            (Method::GET, format!("EIO=3&transport=websocket&{sid}"), Ask::WebSocket),
            (Method::GET, "EIO=5&transport=websocket".to_owned(), Ask::Other),
            (Method::GET, format!("EIO=4&EIO=3&{polling}&{sid}&transport=x"), Ask::Poll(Version::Four)),
            (Method::GET, String::new(), Ask::Other),
        ] {
            assert_eq!(ask(method.clone(), &query), expected, "{method} {query}");
        }
    }

    #[test]
    fn a_tag_is_taken_off_and_nothing_else() {
        let untag = |text: &str| {
            let uri = text.parse().unwrap();
            Query::of(&uri).untagged(&uri).map(|uri| uri.to_string())
        };
        for (tagged, plain) in [
            (format!("/socket.io/?sid={ID}.3"), format!("/socket.io/?sid={ID}")),
            (format!("/socket.io/?EIO=4&sid={ID}.255&t=a%20b"), format!("/socket.io/?EIO=4&sid={ID}&t=a%20b")),
            (format!("http://h:1/s?sid={ID}.0&x"), format!("http://h:1/s?sid={ID}&x")),
            (format!("/s?mysid={ID}.1&sid={ID}.2"), format!("/s?mysid={ID}.1&sid={ID}")),
        ] {
            assert_eq!(untag(&tagged), Some(plain), "{tagged}");
        }
        for other in ["/s", "/s?sid", "/s?sid=", "/s?sid=x.1"] {
            assert_eq!(untag(other), None, "{other}");
        }
        for tag in ["", ".", ".256", ".01", ".1.2"] {
            assert_eq!(untag(&format!("/s?sid={ID}{tag}")), None, "{tag}");
        }
    }

    #[test]
    fn an_answer_gets_its_tag_after_the_id() {
        let tag = SessionTag::new(WorkerId::new(12));
        let answer = format!("0{{\"sid\":\"{ID}\",\"upgrades\":[\"websocket\"],\"pingInterval\":25000}}");
        let tagged = with_tag(answer.as_bytes(), tag).unwrap();
        assert_eq!(tagged, answer.replace(ID, &format!("{ID}.12")));
        for other in ["", "0", "0{\"sid\":\"", "0{\"sid\":\"short\"}", "6", &format!("0{{\"sid\":\"{ID}x\"}}")] {
            assert_eq!(with_tag(other.as_bytes(), tag), None, "{other}");
        }
    }
}
