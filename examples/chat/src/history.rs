//! The last messages of each room, which every worker keeps.

use std::collections::{HashMap, VecDeque};

use crate::words::Message;

/// How many messages of a room are kept.
const MESSAGES: usize = 50;
/// Of how many rooms; the one in which nobody has said anything for longest makes room.
const ROOMS: usize = 100;

/// The last messages.
#[derive(Debug, Default)]
pub(crate) struct History {
    rooms: HashMap<String, VecDeque<Message>>,
}

impl History {
    /// Keeps a message, at its place among the others; one that is there already is there once.
    pub(crate) fn keep(&mut self, message: Message) {
        let room = self.rooms.entry(message.room.clone()).or_default();
        // Nearly always the end: what was said last comes last.
        let place = room.iter().rposition(|other| order(other) <= order(&message)).map_or(0, |last| last + 1);
        if place > 0 && room[place - 1].id == message.id {
            return;
        }
        room.insert(place, message);
        if room.len() > MESSAGES {
            room.pop_front();
        }
        if self.rooms.len() > ROOMS {
            self.forget_the_quietest();
        }
    }

    /// The last messages of a room, the oldest first.
    pub(crate) fn of(&self, room: &str) -> Vec<Message> {
        self.rooms.get(room).into_iter().flatten().cloned().collect()
    }

    /// The last messages of all rooms.
    pub(crate) fn all(&self) -> Vec<Message> {
        self.rooms.values().flatten().cloned().collect()
    }

    fn forget_the_quietest(&mut self) {
        let last = |messages: &VecDeque<Message>| messages.back().map(|message| message.at);
        let quietest = self.rooms.iter().min_by_key(|(_, messages)| last(messages)).map(|(name, _)| name.clone());
        if let Some(name) = quietest {
            self.rooms.remove(&name);
        }
    }
}

/// The same in every worker, whatever order messages come in.
fn order(message: &Message) -> (u64, &str) {
    (message.at, &message.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(room: &str, at: u64) -> Message {
        let (name, text) = ("Ada".to_owned(), "hello".to_owned());
        Message { at, id: format!("0-{at}"), room: room.to_owned(), name, worker: 0, text }
    }

    fn times(history: &History, room: &str) -> Vec<u64> {
        history.of(room).iter().map(|message| message.at).collect()
    }

    #[test]
    fn messages_are_in_their_order_and_there_once() {
        let mut history = History::default();
        for at in [3, 1, 2, 2, 3, 5, 1] {
            history.keep(message("a", at));
        }
        history.keep(message("b", 4));
        assert_eq!(times(&history, "a"), [1, 2, 3, 5]);
        assert_eq!(times(&history, "b"), [4]);
        assert_eq!(times(&history, "c"), [0; 0]);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut history = History::default();
        (0..60).for_each(|at| history.keep(message("a", at)));
        assert_eq!(times(&history, "a"), (10..60).collect::<Vec<_>>());
        (100..199).for_each(|at| history.keep(message(&at.to_string(), at)));
        assert!(!times(&history, "a").is_empty());
        history.keep(message("one more", 200));
        assert!(times(&history, "a").is_empty(), "the quietest room");
    }
}
