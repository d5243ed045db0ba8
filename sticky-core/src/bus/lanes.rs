//! What waits to be written to one peer, and in which order it goes.
//!
//! Each topic has a lane of its own, and lanes take turns frame by frame: messages of one topic stay in order, and a
//! large one holds up none of another. What is said about subscriptions goes before all messages; of that, only the latest
//! is kept, so however long a peer does not read, there is never more of it than there are topics.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::frame::{CHUNK, Frame, VERSION};

/// How many bytes of messages may wait for one peer, or be on their way to it: one of the largest fits.
pub(crate) const ROOM: usize = super::MAX_PAYLOAD;

/// About how many bytes are written at once.
const BATCH: usize = 64 * 1024;

/// The way to one peer.
#[derive(Debug)]
pub(crate) struct Lanes {
    is_greeted: bool,
    /// Topics whose number of subscriptions the peer does not know yet.
    interests: BTreeMap<Arc<str>, u32>,
    /// The topics it thinks that there are subscriptions to.
    told: HashSet<Arc<str>>,
    synced: Option<u64>,
    sync: Option<u64>,
    topics: HashMap<Arc<str>, VecDeque<Parcel>>,
    /// The topics with something to write, each once.
    turns: VecDeque<Arc<str>>,
    next_stream: u32,
}

/// A message on its way.
#[derive(Debug)]
struct Parcel {
    payload: Bytes,
    sent: usize,
    stream: u32,
    room: Option<OwnedSemaphorePermit>,
}

/// What [`Lanes::fill`] has put into the bytes to be written.
#[derive(Debug, Default)]
pub(crate) struct Filled {
    /// The question that the peer will have to answer.
    pub(crate) asked: Option<u64>,
    /// What to drop once they are written: the room of messages that are complete.
    pub(crate) done: Vec<OwnedSemaphorePermit>,
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Self {
            is_greeted: false,
            interests: BTreeMap::new(),
            told: HashSet::new(),
            synced: None,
            sync: None,
            topics: HashMap::new(),
            turns: VecDeque::new(),
            next_stream: 0,
        }
    }

    /// There are so many subscriptions to this topic now.
    pub(crate) fn interest(&mut self, topic: &Arc<str>, count: u32) {
        if count == 0 && !self.told.contains(topic) {
            self.interests.remove(topic);
        } else {
            self.interests.insert(Arc::clone(topic), count);
        }
    }

    /// Asks for an answer to everything said about topics so far.
    pub(crate) fn sync(&mut self, serial: u64) {
        self.sync = Some(serial);
    }

    /// Answers the peer's question.
    pub(crate) fn synced(&mut self, serial: u64) {
        self.synced = Some(serial);
    }

    /// A message to this topic.
    pub(crate) fn message(&mut self, topic: &Arc<str>, payload: Bytes, room: Option<OwnedSemaphorePermit>) {
        let lane = self.topics.entry(Arc::clone(topic)).or_default();
        if lane.is_empty() {
            self.turns.push_back(Arc::clone(topic));
        }
        lane.push_back(Parcel { payload, sent: 0, stream: 0, room });
    }

    /// Adds what is to be written next, until there is enough for once.
    pub(crate) fn fill(&mut self, out: &mut Vec<u8>) -> Filled {
        let mut filled = Filled::default();
        while out.len() < BATCH && (self.say(out, &mut filled) || self.turn(out, &mut filled)) {}
        filled
    }

    /// One frame about subscriptions; whether there was one.
    fn say(&mut self, out: &mut Vec<u8>, filled: &mut Filled) -> bool {
        if !std::mem::replace(&mut self.is_greeted, true) {
            Frame::Hello { version: VERSION }.write(out);
        } else if let Some((topic, count)) = self.interests.pop_first() {
            Frame::Interest { topic: &topic, count }.write(out);
            if count == 0 {
                self.told.remove(&topic)
            } else {
                self.told.insert(topic)
            };
        } else if let Some(serial) = self.synced.take() {
            Frame::Synced { serial }.write(out);
        } else if let Some(serial) = self.sync.take() {
            Frame::Sync { serial }.write(out);
            filled.asked = Some(serial);
        } else {
            return false;
        }
        true
    }

    /// The next frame of the topic whose turn it is; whether there was one.
    fn turn(&mut self, out: &mut Vec<u8>, filled: &mut Filled) -> bool {
        let Some(topic) = self.turns.pop_front() else { return false };
        let Some(lane) = self.topics.get_mut(&topic) else { return true };
        if let Some(parcel) = lane.front_mut()
            && parcel.write(&topic, &mut self.next_stream, out)
        {
            filled.done.extend(lane.pop_front().and_then(|parcel| parcel.room));
        }
        if lane.is_empty() {
            self.topics.remove(&topic);
        } else {
            self.turns.push_back(topic);
        }
        true
    }
}

impl Parcel {
    /// Writes its next frame; whether it was the last.
    fn write(&mut self, topic: &str, next_stream: &mut u32, out: &mut Vec<u8>) -> bool {
        if self.payload.len() <= CHUNK {
            Frame::Message { topic, payload: &self.payload }.write(out);
            return true;
        }
        if self.sent == 0 {
            self.stream = *next_stream;
            *next_stream = next_stream.wrapping_add(1);
            let total = u32::try_from(self.payload.len()).expect("messages are checked before they come here");
            Frame::Begin { stream: self.stream, total, topic }.write(out);
        }
        let end = self.payload.len().min(self.sent + CHUNK);
        Frame::Chunk { stream: self.stream, payload: &self.payload[self.sent..end] }.write(out);
        self.sent = end;
        end == self.payload.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Arc<str> {
        name.into()
    }

    /// Everything that is to be written, frame by frame, without payloads.
    fn frames(lanes: &mut Lanes) -> Vec<String> {
        let mut frames = Vec::new();
        let mut out = Vec::new();
        while {
            lanes.fill(&mut out);
            !out.is_empty()
        } {
            let mut left = &out[..];
            while let Some((frame, length)) = Frame::read(left).unwrap() {
                frames.push(match frame {
                    Frame::Message { topic, .. } => format!("message {topic}"),
                    Frame::Begin { stream, topic, .. } => format!("begin {stream} {topic}"),
                    Frame::Chunk { stream, .. } => format!("chunk {stream}"),
                    Frame::Interest { topic, count } => format!("interest {topic} {count}"),
                    other => format!("{other:?}"),
                });
                left = &left[length..];
            }
            assert!(left.is_empty());
            out.clear();
        }
        frames
    }

    #[test]
    fn topics_take_turns_and_each_keeps_its_order() {
        let mut lanes = Lanes::new();
        frames(&mut lanes);
        let (large, small) = (topic("large"), topic("small"));
        lanes.message(&large, Bytes::from(vec![0; 2 * CHUNK + 1]), None);
        lanes.message(&large, Bytes::new(), None);
        lanes.message(&small, Bytes::from_static(b"1"), None);
        lanes.message(&small, Bytes::from_static(b"2"), None);
        let expected =
            ["begin 0 large", "chunk 0", "message small", "chunk 0", "message small", "chunk 0", "message large"];
        assert_eq!(frames(&mut lanes), expected);
        assert!(lanes.topics.is_empty() && lanes.turns.is_empty());
    }

    #[test]
    fn what_is_said_about_topics_goes_first_and_before_the_question_about_it() {
        let mut lanes = Lanes::new();
        lanes.message(&topic("m"), Bytes::new(), None);
        lanes.sync(1);
        lanes.interest(&topic("b"), 1);
        lanes.sync(2);
        lanes.synced(9);
        let expected =
            ["Hello { version: 1 }", "interest b 1", "Synced { serial: 9 }", "Sync { serial: 2 }", "message m"];
        assert_eq!(frames(&mut lanes), expected);
    }

    #[test]
    fn a_peer_that_does_not_read_makes_nothing_grow() {
        let mut lanes = Lanes::new();
        lanes.interest(&topic("kept"), 1);
        frames(&mut lanes);
        for number in 0..1000 {
            let name = topic(&format!("passing {number}"));
            lanes.interest(&name, 1);
            lanes.interest(&name, 0);
            lanes.interest(&topic("kept"), number % 2);
        }
        lanes.interest(&topic("kept"), 0);
        assert_eq!(frames(&mut lanes), ["interest kept 0"]);
        assert!(lanes.told.is_empty());
    }

    #[test]
    fn room_is_given_back_when_the_whole_message_is_written() {
        let rooms = Arc::new(tokio::sync::Semaphore::new(10));
        let mut lanes = Lanes::new();
        frames(&mut lanes);
        let permit = Arc::clone(&rooms).try_acquire_many_owned(10).unwrap();
        lanes.message(&topic("large"), Bytes::from(vec![0; BATCH + 1]), Some(permit));
        let mut out = Vec::new();
        assert!(lanes.fill(&mut out).done.is_empty());
        out.clear();
        let filled = lanes.fill(&mut out);
        assert_eq!((filled.done.len(), rooms.available_permits()), (1, 0));
        drop(filled);
        assert_eq!(rooms.available_permits(), 10);
    }
}
