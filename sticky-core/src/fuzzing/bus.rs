//! What processes say to each other on the bus: any bytes are taken as a naive reader takes them, and whatever is
//! written arrives.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::{Numbers, open};
use crate::bus::assembly::Assembly;
use crate::bus::frame::{CHUNK, Frame, MAX_FRAME};
use crate::bus::lanes::Lanes;

pub(super) fn check(input: &[u8]) {
    let (mut numbers, text) = open(input);
    write(numbers.clone(), text);
    let at_once = read(&[text]);
    assert_eq!(read(&numbers.pieces(text)), at_once);
}

/// Everything a reader makes of bytes that come in these pieces, and whether it goes on listening.
fn read(pieces: &[&[u8]]) -> (Vec<String>, bool) {
    let (mut buffer, mut said) = (Vec::new(), Vec::new());
    let (mut assembly, mut naive) = (Assembly::default(), Naive::default());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let (frame, length) = match Frame::read(&buffer) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return (said, false),
            };
            assert!(length <= buffer.len() && length <= MAX_FRAME);
            rewrite(frame, &buffer[..length]);
            said.push(format!("{frame:?}"));
            if !naive.agrees(&mut assembly, frame) {
                return (said, false);
            }
            buffer.drain(..length);
        }
    }
    (said, true)
}

/// A frame that is known is written as it was read, but for what a later version has added at its end.
fn rewrite(frame: Frame<'_>, bytes: &[u8]) {
    let mut written = Vec::new();
    frame.write(&mut written);
    match frame {
        Frame::Unknown => assert!(written.is_empty()),
        Frame::Hello { .. } | Frame::Sync { .. } | Frame::Synced { .. } => {
            assert!(written.len() <= bytes.len() && bytes[4..].starts_with(&written[4..]));
        }
        _ => assert_eq!(written, bytes),
    }
}

/// Messages in chunks, as anybody would put them together who has all the memory in the world.
#[derive(Default)]
struct Naive {
    partial: HashMap<u32, (String, usize, Vec<u8>)>,
}

impl Naive {
    /// Whether the frame is in order, which both must say alike.
    fn agrees(&mut self, assembly: &mut Assembly, frame: Frame<'_>) -> bool {
        match frame {
            Frame::Begin { stream, total, topic } => {
                let announced: usize = self.partial.values().map(|(_, total, _)| total).sum();
                let fits = announced + total as usize <= crate::bus::MAX_PAYLOAD;
                let in_order = total > 0 && fits && !self.partial.contains_key(&stream);
                assert_eq!(assembly.begin(stream, total, topic).is_ok(), in_order);
                if in_order {
                    self.partial.insert(stream, (topic.to_owned(), total as usize, Vec::new()));
                }
                in_order
            }
            Frame::Chunk { stream, payload } => {
                let taken = assembly.chunk(stream, payload);
                let Some((_, total, received)) = self.partial.get_mut(&stream) else {
                    assert!(taken.is_err());
                    return false;
                };
                received.extend_from_slice(payload);
                if payload.is_empty() || received.len() > *total {
                    assert!(taken.is_err());
                    return false;
                }
                let whole = (received.len() == *total).then(|| self.partial.remove(&stream)).flatten();
                let whole = whole.map(|(topic, _, received)| (Arc::from(topic), Bytes::from(received)));
                assert_eq!(taken, Ok(whole));
                true
            }
            _ => true,
        }
    }
}

/// What a reader has been told by what was written.
#[derive(Default)]
struct Reader {
    assembly: Assembly,
    interests: BTreeMap<String, u32>,
    messages: BTreeMap<String, Vec<Bytes>>,
    synced: Option<u64>,
}

/// Whatever is queued, in whatever order it is written: messages of a topic stay in order, and a question comes after
/// everything that it asks about.
fn write(mut numbers: Numbers<'_>, text: &[u8]) {
    let (mut lanes, mut reader) = (Lanes::new(), Reader::default());
    let (mut interests, mut messages) = (BTreeMap::new(), BTreeMap::<String, Vec<Bytes>>::new());
    let mut asked = None;
    for serial in 0..64 {
        let topic: Arc<str> = ["", "a", "b", "c"][numbers.choose(4)].into();
        match numbers.choose(5) {
            0 => {
                let count = u32::try_from(numbers.choose(3)).expect("a small number");
                lanes.interest(&topic, count);
                interests.insert(topic.to_string(), count);
            }
            1 => {
                lanes.sync(serial);
                asked = Some(serial);
            }
            2 | 3 => {
                let length = [0, 1, 100, CHUNK, CHUNK + 1, 3 * CHUNK][numbers.choose(6)];
                let payload = Bytes::from_iter(text.iter().copied().chain([1, 2, 3]).cycle().take(length));
                lanes.message(&topic, payload.clone(), None);
                messages.entry(topic.to_string()).or_default().push(payload);
            }
            _ => drop(reader.take(&mut lanes, &interests)),
        }
    }
    while reader.take(&mut lanes, &interests) {}
    interests.retain(|_, count| *count > 0);
    assert_eq!((reader.interests, reader.messages, reader.synced), (interests, messages, asked));
}

impl Reader {
    /// Reads what is written at once; whether there was anything.
    fn take(&mut self, lanes: &mut Lanes, interests: &BTreeMap<String, u32>) -> bool {
        let mut out = Vec::new();
        lanes.fill(&mut out);
        let mut left = &out[..];
        while let Some((frame, length)) = Frame::read(left).expect("what we write ourselves") {
            self.hear(frame, interests);
            left = &left[length..];
        }
        assert!(left.is_empty());
        !out.is_empty()
    }

    fn hear(&mut self, frame: Frame<'_>, interests: &BTreeMap<String, u32>) {
        match frame {
            Frame::Interest { topic, count: 0 } => drop(self.interests.remove(topic)),
            Frame::Interest { topic, count } => drop(self.interests.insert(topic.to_owned(), count)),
            Frame::Sync { serial } => {
                self.synced = Some(serial);
                let known =
                    interests.iter().filter(|(_, count)| **count > 0).map(|(topic, count)| (topic.clone(), *count));
                assert_eq!(self.interests, known.collect());
            }
            Frame::Message { topic, payload } => self.receive(topic, Bytes::copy_from_slice(payload)),
            Frame::Begin { stream, total, topic } => self.assembly.begin(stream, total, topic).expect("in order"),
            Frame::Chunk { stream, payload } => {
                if let Some((topic, payload)) = self.assembly.chunk(stream, payload).expect("in order") {
                    self.receive(&topic, payload);
                }
            }
            Frame::Hello { .. } | Frame::Synced { .. } | Frame::Unknown => {}
        }
    }

    fn receive(&mut self, topic: &str, payload: Bytes) {
        self.messages.entry(topic.to_owned()).or_default().push(payload);
    }
}
