//! Who still owes an answer to what. Pure: time and who is there are arguments.
//!
//! The adapter waits for as many answers as there were servers when it asked. Of those who have died since it gets an empty
//! one, and of those who have come since none: they were not asked, or do not count.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

use socketioxide_core::Sid;

use super::wire::{self, Answer};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Acks,
    Rooms,
    Sockets,
}

/// The questions that are open, and who owes what; `P` is what tells servers apart.
#[derive(Debug)]
pub(super) struct Ledger<P> {
    open: HashMap<Sid, Question<P>>,
}

#[derive(Debug)]
struct Question<P> {
    kind: Kind,
    owed: HashMap<P, Owed>,
    /// Nobody waits any more after this.
    until: Instant,
}

/// What a server owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    /// The answer, or the first part of it.
    Answer,
    Acks(u32),
}

impl<P> Default for Ledger<P> {
    fn default() -> Self {
        Self { open: HashMap::new() }
    }
}

impl<P: Copy + Eq + Hash> Ledger<P> {
    /// A question to these servers, which will be waited for until then.
    pub(super) fn ask(&mut self, id: Sid, kind: Kind, servers: &[P], until: Instant, now: Instant) {
        // What was given up in the middle is forgotten here.
        self.open.retain(|_, question| question.until > now);
        let owed = servers.iter().map(|server| (*server, Owed::Answer)).collect();
        self.open.insert(id, Question { kind, owed, until });
    }

    /// An answer has come; tells whether the adapter is to hear it.
    pub(super) fn hear(&mut self, from: P, message: &[u8]) -> bool {
        let Some((id, answer)) = wire::answer(message) else { return false };
        let Some(question) = self.open.get_mut(&id) else { return false };
        let Some(owed) = question.owed.get_mut(&from) else { return false };
        let is_done = match (answer, &mut *owed) {
            (Answer::Ack, Owed::Acks(left)) => {
                *left -= 1;
                *left == 0
            }
            (Answer::AckCount(count), Owed::Answer) => {
                *owed = Owed::Acks(count);
                count == 0
            }
            (Answer::Whole, Owed::Answer) => true,
            _ => return false,
        };
        if is_done {
            question.owed.remove(&from);
        }
        if question.owed.is_empty() {
            self.open.remove(&id);
        }
        true
    }

    /// The answers in place of all who are not there any more.
    pub(super) fn settle(&mut self, is_there: impl Fn(P) -> bool) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        self.open.retain(|id, question| {
            let Question { kind, owed, .. } = question;
            owed.retain(|server, owed| {
                let stays = is_there(*server);
                if !stays {
                    answers.extend(owed.in_place(*id, *kind));
                }
                stays
            });
            !owed.is_empty()
        });
        answers
    }
}

impl Owed {
    fn in_place(self, id: Sid, kind: Kind) -> Vec<Vec<u8>> {
        match (self, kind) {
            (Self::Answer, Kind::Acks) => vec![wire::no_acks(id)],
            (Self::Answer, Kind::Rooms) => vec![wire::no_rooms(id)],
            (Self::Answer, Kind::Sockets) => vec![wire::no_sockets(id)],
            (Self::Acks(left), _) => vec![wire::lost_ack(id); left as usize],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socketioxide_core::Uid;
    use socketioxide_core::adapter::remote_packet::{Response, ResponseType};

    use super::*;

    struct Case {
        ledger: Ledger<u8>,
        id: Sid,
        now: Instant,
    }

    impl Case {
        /// Servers 1 and 2 were asked.
        fn new(kind: Kind) -> Self {
            let (mut ledger, id, now) = (Ledger::default(), Sid::new(), Instant::now());
            ledger.ask(id, kind, &[1, 2], now + Duration::from_secs(1), now);
            Self { ledger, id, now }
        }

        fn ack_count(&mut self, from: u8, count: u32) -> bool {
            let response = Response { node_id: Uid::new(), r#type: ResponseType::<()>::BroadcastAckCount(count) };
            self.ledger.hear(from, &rmp_serde::to_vec(&(self.id, response)).unwrap())
        }

        fn ack(&mut self, from: u8) -> bool {
            self.ledger.hear(from, &wire::lost_ack(self.id))
        }

        /// What comes in place of those who are gone.
        fn gone(&mut self, gone: &[u8]) -> Vec<Vec<u8>> {
            self.ledger.settle(|server| !gone.contains(&server))
        }
    }

    #[test]
    fn who_dies_before_it_answers_has_nothing_to_say() {
        for (kind, empty) in [(Kind::Sockets, wire::no_sockets as fn(Sid) -> _), (Kind::Rooms, wire::no_rooms)] {
            let mut case = Case::new(kind);
            assert!(case.ledger.hear(2, &empty(case.id)));
            assert!(case.gone(&[2]).is_empty(), "it has answered");
            assert_eq!(case.gone(&[1]), [empty(case.id)]);
            assert!(case.gone(&[1, 2]).is_empty(), "once");
            assert!(case.ledger.open.is_empty());
        }
    }

    #[test]
    fn acks_that_will_not_come_are_lost() {
        let mut case = Case::new(Kind::Acks);
        assert!(case.ack_count(1, 3) && case.ack(1));
        assert_eq!(case.gone(&[1]), vec![wire::lost_ack(case.id); 2]);
        assert_eq!(case.gone(&[2]), [wire::no_acks(case.id)]);
        assert!(case.ledger.open.is_empty());
    }

    #[test]
    fn what_is_complete_is_forgotten() {
        let mut case = Case::new(Kind::Acks);
        assert!(case.ack_count(2, 0) && case.ack_count(1, 2) && case.ack(1) && case.ack(1));
        assert!(case.ledger.open.is_empty());
        assert!(!case.ack(1), "nobody asks");
    }

    #[test]
    fn who_was_not_asked_is_not_heard() {
        let mut case = Case::new(Kind::Sockets);
        assert!(!case.ledger.hear(3, &wire::no_sockets(case.id)));
        assert!(!case.ledger.hear(1, b"rubbish"));
        assert!(!case.ack(1), "no answer to this question");
        assert!(case.ledger.hear(1, &wire::no_sockets(case.id)));
        assert!(!case.ledger.hear(1, &wire::no_sockets(case.id)), "twice");
    }

    #[test]
    fn what_was_given_up_is_forgotten() {
        let mut case = Case::new(Kind::Acks);
        let (later, id) = (case.now + Duration::from_secs(1), Sid::new());
        case.ledger.ask(id, Kind::Rooms, &[1], later + Duration::from_secs(1), later);
        assert_eq!(case.gone(&[1, 2]), [wire::no_rooms(id)]);
    }
}
