//! What people say, and how much of it: everything that comes from a browser is cut to size here.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

const LONGEST_NAME: usize = 24;
const LONGEST_ROOM: usize = 24;
const LONGEST_TEXT: usize = 2_000;

/// Something said in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// When, in milliseconds since 1970; the order in a room.
    pub(crate) at: u64,
    /// Unlike every other's.
    pub(crate) id: String,
    pub(crate) room: String,
    pub(crate) name: String,
    /// The worker that served its author.
    pub(crate) worker: u16,
    pub(crate) text: String,
}

/// Somebody in a room.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) room: String,
    pub(crate) worker: u16,
    pub(crate) id: String,
}

/// How somebody comes in.
#[derive(Debug, Deserialize)]
pub(crate) struct Join {
    #[serde(default)]
    name: String,
    #[serde(default)]
    room: String,
}

impl Join {
    /// The name, or one for those without.
    pub(crate) fn name(&self) -> String {
        cut(&self.name, LONGEST_NAME).unwrap_or_else(|| "somebody".to_owned())
    }

    /// The room, by default the lobby.
    pub(crate) fn room(&self) -> String {
        let name = self.room.trim().trim_start_matches('#').to_lowercase();
        cut(&name, LONGEST_ROOM).unwrap_or_else(|| "lobby".to_owned())
    }
}

/// What was said, if it was anything.
pub(crate) fn text(said: &str) -> Option<String> {
    cut(said, LONGEST_TEXT)
}

/// Without control characters and blanks around it, and not longer than that; none if nothing is left.
fn cut(text: &str, longest: usize) -> Option<String> {
    let plain: String = text.chars().filter(|c| !c.is_control() || *c == '\n').collect();
    let cut: String = plain.trim().chars().take(longest).collect();
    (!cut.is_empty()).then_some(cut)
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(name: &str, room: &str) -> (String, String) {
        let join = Join { name: name.to_owned(), room: room.to_owned() };
        (join.name(), join.room())
    }

    #[test]
    fn names_are_cut_to_size() {
        assert_eq!(join(" Ada\u{7}\n ", "#Rust "), ("Ada".to_owned(), "rust".to_owned()));
        assert_eq!(join("", " # "), ("somebody".to_owned(), "lobby".to_owned()));
        let (name, room) = join(&"ü".repeat(99), &"x".repeat(99));
        assert_eq!((name.chars().count(), room.len()), (24, 24));
    }

    #[test]
    fn nothing_said_is_nothing() {
        assert_eq!(text(" \t\n "), None);
        assert_eq!(text(" a\nb "), Some("a\nb".to_owned()));
        assert_eq!(text(&"x".repeat(9_999)).map(|text| text.len()), Some(2_000));
    }
}
