//! Puts messages together again that came in chunks.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::lanes::ROOM;

/// The messages of one peer that have come in part.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    partial: HashMap<u32, Partial>,
    /// Bytes of all of them once they are complete.
    announced: usize,
}

#[derive(Debug)]
struct Partial {
    topic: Arc<str>,
    total: usize,
    received: Vec<u8>,
}

/// A peer that breaks the rules. Nobody of ours does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("a message in chunks begins a second time or is empty")]
    Begin,
    #[error("more than {ROOM} bytes of messages are on their way at once")]
    TooMuch,
    #[error("a chunk that belongs to no message or makes it too long")]
    Chunk,
}

impl Assembly {
    pub(crate) fn begin(&mut self, stream: u32, total: u32, topic: &str) -> Result<(), Violation> {
        let total = total as usize;
        if total == 0 || self.partial.contains_key(&stream) {
            return Err(Violation::Begin);
        }
        if self.announced + total > ROOM {
            return Err(Violation::TooMuch);
        }
        self.announced += total;
        // Room is made as bytes come, not because somebody says that they will.
        self.partial.insert(stream, Partial { topic: topic.into(), total, received: Vec::new() });
        Ok(())
    }

    /// Adds a chunk; the whole message if it was the last.
    pub(crate) fn chunk(&mut self, stream: u32, payload: &[u8]) -> Result<Option<(Arc<str>, Bytes)>, Violation> {
        let partial = self.partial.get_mut(&stream).ok_or(Violation::Chunk)?;
        if payload.is_empty() || partial.received.len() + payload.len() > partial.total {
            return Err(Violation::Chunk);
        }
        partial.received.extend_from_slice(payload);
        if partial.received.len() < partial.total {
            return Ok(None);
        }
        let Some(Partial { topic, total, received }) = self.partial.remove(&stream) else { return Ok(None) };
        self.announced -= total;
        Ok(Some((topic, received.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_side_by_side() {
        let mut assembly = Assembly::default();
        assembly.begin(1, 4, "a").unwrap();
        assembly.begin(2, 2, "b").unwrap();
        assert_eq!(assembly.chunk(1, b"wh"), Ok(None));
        assert_eq!(assembly.chunk(2, b"no"), Ok(Some(("b".into(), Bytes::from_static(b"no")))));
        assert_eq!(assembly.chunk(1, b"at"), Ok(Some(("a".into(), Bytes::from_static(b"what")))));
        assert_eq!(assembly.announced, 0);
    }

    #[test]
    fn who_breaks_the_rules_is_found_out() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.begin(1, 0, "a"), Err(Violation::Begin));
        assembly.begin(1, 4, "a").unwrap();
        assert_eq!(assembly.begin(1, 4, "a"), Err(Violation::Begin));
        assert_eq!(assembly.begin(2, u32::try_from(ROOM - 3).unwrap(), "a"), Err(Violation::TooMuch));
        assembly.begin(2, u32::try_from(ROOM - 4).unwrap(), "a").unwrap();
        assert_eq!(assembly.chunk(3, b"x"), Err(Violation::Chunk));
        assert_eq!(assembly.chunk(1, b""), Err(Violation::Chunk));
        assert_eq!(assembly.chunk(1, b"12345"), Err(Violation::Chunk));
    }
}
