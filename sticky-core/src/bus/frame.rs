//! What two processes say to each other on the bus: frames, one after the other in a stream of bytes.
//!
//! ```text
//! ┌──────────────┬──────┬──────┐
//! │ length (u32) │ kind │ body │   length: of kind and body; all numbers little-endian
//! └──────────────┴──────┴──────┘
//! ```
//!
//! Kinds that are not known are skipped, and what follows the known part of a body of fixed size as well, so that
//! programs of different versions can talk to each other. Whoever wants to say something new says it in a new kind, and
//! learns from the other's [`Frame::Hello`] whether it is understood.

use super::MAX_TOPIC;

/// The newest version of this protocol that this build speaks; there is no other yet.
pub(crate) const VERSION: u16 = 1;

/// The most payload in one frame: a message with more is cut in chunks, between which others have their turns.
pub(crate) const CHUNK: usize = 32 * 1024;

/// The longest frame, of any version.
pub(crate) const MAX_FRAME: usize = 128 * 1024;

const LENGTH: usize = 4;
const _: () = assert!(LENGTH + 1 + 2 + MAX_TOPIC + CHUNK < MAX_FRAME && MAX_TOPIC <= u16::MAX as usize);

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// The first of all.
    Hello { version: u16 },
    /// The sender has so many subscriptions to this topic now.
    Interest { topic: &'a str, count: u32 },
    /// The sender wants to hear [`Frame::Synced`] when all before it has taken effect.
    Sync { serial: u64 },
    /// The answer.
    Synced { serial: u64 },
    /// A message that fits into one frame.
    Message { topic: &'a str, payload: &'a [u8] },
    /// One that does not: its chunks follow, as many as give `total` bytes.
    Begin { stream: u32, total: u32, topic: &'a str },
    /// The next part of it.
    Chunk { stream: u32, payload: &'a [u8] },
    /// Something a later version says.
    Unknown,
}

mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const INTEREST: u8 = 2;
    pub(crate) const SYNC: u8 = 3;
    pub(crate) const SYNCED: u8 = 4;
    pub(crate) const MESSAGE: u8 = 5;
    pub(crate) const BEGIN: u8 = 6;
    pub(crate) const CHUNK: u8 = 7;
}

/// Why bytes are no frames. Nothing that follows them makes sense any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a frame of {0} bytes")]
    Length(usize),
    #[error("a frame of kind {0} that ends too early")]
    Short(u8),
    #[error("a topic that is no text or too long")]
    Topic,
}

impl<'a> Frame<'a> {
    /// The frame at the beginning of these bytes and how many it takes; none if there is more to come.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || LENGTH + length > MAX_FRAME {
            return Err(Malformed::Length(length));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        Ok(Some((Self::of(frame[0], &frame[1..])?, LENGTH + length)))
    }

    fn of(kind: u8, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut body = Body { kind, left: body };
        Ok(match kind {
            kind::HELLO => Self::Hello { version: u16::from_le_bytes(body.array()?) },
            kind::INTEREST => Self::Interest { count: u32::from_le_bytes(body.array()?), topic: topic(body.left)? },
            kind::SYNC => Self::Sync { serial: u64::from_le_bytes(body.array()?) },
            kind::SYNCED => Self::Synced { serial: u64::from_le_bytes(body.array()?) },
            kind::MESSAGE => {
                let length = u16::from_le_bytes(body.array()?);
                Self::Message { topic: topic(body.take(usize::from(length))?)?, payload: body.left }
            }
            kind::BEGIN => Self::Begin {
                stream: u32::from_le_bytes(body.array()?),
                total: u32::from_le_bytes(body.array()?),
                topic: topic(body.left)?,
            },
            kind::CHUNK => Self::Chunk { stream: u32::from_le_bytes(body.array()?), payload: body.left },
            _ => Self::Unknown,
        })
    }

    /// Adds the frame to these bytes; an unknown one adds nothing.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Hello { version } => put(out, kind::HELLO, &[&version.to_le_bytes()]),
            Self::Interest { topic, count } => put(out, kind::INTEREST, &[&count.to_le_bytes(), topic.as_bytes()]),
            Self::Sync { serial } => put(out, kind::SYNC, &[&serial.to_le_bytes()]),
            Self::Synced { serial } => put(out, kind::SYNCED, &[&serial.to_le_bytes()]),
            Self::Message { topic, payload } => {
                put(out, kind::MESSAGE, &[&topic_length(topic).to_le_bytes(), topic.as_bytes(), payload]);
            }
            Self::Begin { stream, total, topic } => {
                put(out, kind::BEGIN, &[&stream.to_le_bytes(), &total.to_le_bytes(), topic.as_bytes()]);
            }
            Self::Chunk { stream, payload } => put(out, kind::CHUNK, &[&stream.to_le_bytes(), payload]),
            Self::Unknown => {}
        }
    }
}

/// What is left of a frame's body.
struct Body<'a> {
    kind: u8,
    left: &'a [u8],
}

impl<'a> Body<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, left) = self.left.split_first_chunk().ok_or(Malformed::Short(self.kind))?;
        self.left = left;
        Ok(*array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, left) = self.left.split_at_checked(length).ok_or(Malformed::Short(self.kind))?;
        self.left = left;
        Ok(taken)
    }
}

fn topic(bytes: &[u8]) -> Result<&str, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::Topic)?;
    (text.len() <= MAX_TOPIC).then_some(text).ok_or(Malformed::Topic)
}

fn topic_length(topic: &str) -> u16 {
    u16::try_from(topic.len()).expect("topics are checked before they come here")
}

fn put(out: &mut Vec<u8>, kind: u8, body: &[&[u8]]) {
    let length = 1 + body.iter().map(|part| part.len()).sum::<usize>();
    let length = u32::try_from(length).expect("a frame is much shorter");
    out.extend_from_slice(&length.to_le_bytes());
    out.push(kind);
    body.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Generations of different versions talk to each other during a deploy: a change here breaks them.
    #[test]
    fn the_bytes_of_frames_do_not_change() {
        for (frame, bytes) in [
            (Frame::Hello { version: 0x0102 }, &b"\x03\0\0\0\x01\x02\x01"[..]),
            (Frame::Interest { topic: "é", count: 3 }, b"\x07\0\0\0\x02\x03\0\0\0\xc3\xa9"),
            (Frame::Sync { serial: 7 }, b"\x09\0\0\0\x03\x07\0\0\0\0\0\0\0"),
            (Frame::Synced { serial: 1 << 56 }, b"\x09\0\0\0\x04\0\0\0\0\0\0\0\x01"),
            (Frame::Message { topic: "ab", payload: b"xyz" }, b"\x08\0\0\0\x05\x02\0abxyz"),
            (Frame::Begin { stream: 5, total: 65_536, topic: "t" }, b"\x0a\0\0\0\x06\x05\0\0\0\0\0\x01\0t"),
            (Frame::Chunk { stream: 5, payload: b"z" }, b"\x06\0\0\0\x07\x05\0\0\0z"),
        ] {
            let mut written = Vec::new();
            frame.write(&mut written);
            assert_eq!(written, bytes, "{frame:?}");
            assert_eq!(Frame::read(bytes), Ok(Some((frame, bytes.len()))));
            for end in 0..bytes.len() {
                assert_eq!(Frame::read(&bytes[..end]), Ok(None));
            }
        }
    }

    #[test]
    fn later_versions_may_add_kinds_and_fields() {
        assert_eq!(Frame::read(b"\x03\0\0\0\xc8??more"), Ok(Some((Frame::Unknown, 7))));
        assert_eq!(Frame::read(b"\x05\0\0\0\x01\x02\0++"), Ok(Some((Frame::Hello { version: 2 }, 9))));
        assert_eq!(Frame::read(b"\x0a\0\0\0\x03\x07\0\0\0\0\0\0\0+"), Ok(Some((Frame::Sync { serial: 7 }, 14))));
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        assert_eq!(Frame::read(b"GET / HTTP/1.1\r\n"), Err(Malformed::Length(0x2054_4547)));
        assert_eq!(Frame::read(b"\0\0\0\0"), Err(Malformed::Length(0)));
        assert_eq!(Frame::read(b"\x01\0\0\0\x03"), Err(Malformed::Short(3)));
        assert_eq!(Frame::read(b"\x04\0\0\0\x05\x09\0a"), Err(Malformed::Short(5)));
        assert_eq!(Frame::read(b"\x04\0\0\0\x05\x01\0\xff"), Err(Malformed::Topic));
        let mut long = Vec::new();
        Frame::Interest { topic: &"x".repeat(MAX_TOPIC + 1), count: 1 }.write(&mut long);
        assert_eq!(Frame::read(&long), Err(Malformed::Topic));
    }
}
