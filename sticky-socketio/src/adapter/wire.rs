//! What the messages between servers say, as far as it matters here: which question an answer is to, and answers in place of
//! servers that will not give any.

use std::fmt::Debug;
use std::str::FromStr;

use socketioxide::{AckError, SocketError};
use socketioxide_core::adapter::RemoteSocketData;
use socketioxide_core::adapter::remote_packet::{Response, ResponseType};
use socketioxide_core::{Sid, Uid};

/// In place of ids that are not known: all bits are 0. `Sid::ZERO` is no id at all.
const NOBODY: &str = "AAAAAAAAAAAAAAAA";

/// What one answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// One acknowledgement of a socket.
    Ack,
    /// How many acknowledgements are to come.
    AckCount(u32),
    /// All that the server has to say.
    Whole,
}

/// The id of a question.
pub(super) fn question(message: &[u8]) -> Option<Sid> {
    let mut rest = message;
    rmp::decode::read_array_len(&mut rest).ok()?;
    // The server that asks.
    id(&mut rest)?;
    id(&mut rest)
}

/// To which question an answer is, and what it is.
pub(super) fn answer(message: &[u8]) -> Option<(Sid, Answer)> {
    let mut rest = message;
    rmp::decode::read_array_len(&mut rest).ok()?;
    let question = id(&mut rest)?;
    rmp::decode::read_array_len(&mut rest).ok()?;
    // The server that answers.
    id(&mut rest)?;
    rmp::decode::read_array_len(&mut rest).ok()?;
    let answer = match rmp::decode::read_int(&mut rest).ok()? {
        0_u8 => Answer::Ack,
        1 => Answer::AckCount(rmp::decode::read_int(&mut rest).ok()?),
        _ => Answer::Whole,
    };
    Some((question, answer))
}

fn id(rest: &mut &[u8]) -> Option<Sid> {
    let mut text = [0; Sid::ZERO.as_str().len()];
    Sid::from_str(rmp::decode::read_str(rest, &mut text).ok()?).ok()
}

/// That no acknowledgements are to come.
pub(super) fn no_acks(question: Sid) -> Vec<u8> {
    encode(question, ResponseType::<()>::BroadcastAckCount(0))
}

/// That an acknowledgement will not come. Whose is not known.
pub(super) fn lost_ack(question: Sid) -> Vec<u8> {
    encode(question, ResponseType::BroadcastAck((nobody(), Err(AckError::Socket(SocketError::Closed)))))
}

/// That there are no rooms.
pub(super) fn no_rooms(question: Sid) -> Vec<u8> {
    encode(question, ResponseType::<()>::AllRooms(Default::default()))
}

/// That there are no sockets.
pub(super) fn no_sockets(question: Sid) -> Vec<u8> {
    encode(question, ResponseType::<RemoteSocketData>::FetchSockets(Vec::new()))
}

fn encode<D: serde::Serialize>(question: Sid, answer: ResponseType<D>) -> Vec<u8> {
    let response = Response { node_id: nobody::<Uid>(), r#type: answer };
    rmp_serde::to_vec(&(question, response)).unwrap_or_default()
}

fn nobody<T: FromStr<Err: Debug>>() -> T {
    NOBODY.parse().expect("an id is 16 characters of this alphabet")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use socketioxide_core::adapter::BroadcastOptions;
    use socketioxide_core::adapter::remote_packet::{RequestOut, RequestTypeOut};

    use super::*;

    #[test]
    fn questions_are_told_apart() {
        let options = BroadcastOptions::default();
        let asked = RequestOut::new(Uid::new(), RequestTypeOut::FetchSockets, &options);
        assert_eq!(question(&rmp_serde::to_vec(&asked).unwrap()), Some(asked.id));
        assert_eq!(question(b""), None);
        assert_eq!(question(b"\x93\xa1x"), None);
    }

    #[test]
    fn answers_are_read_and_written_alike() {
        let id = Sid::new();
        for (message, expected) in [
            (no_acks(id), Answer::AckCount(0)),
            (lost_ack(id), Answer::Ack),
            (no_rooms(id), Answer::Whole),
            (no_sockets(id), Answer::Whole),
            (encode(id, ResponseType::<()>::BroadcastAckCount(70_000)), Answer::AckCount(70_000)),
        ] {
            assert_eq!(answer(&message), Some((id, expected)));
            assert_eq!(socketioxide_redis::read_req_id(&message), Some(id), "as the adapter reads it");
        }
        let (_, lost): (Sid, Response<AckError>) = rmp_serde::from_slice(&lost_ack(id)).unwrap();
        assert!(matches!(lost.r#type, ResponseType::BroadcastAck((_, Err(AckError::Socket(_))))));
        let (_, rooms): (Sid, Response<()>) = rmp_serde::from_slice(&no_rooms(id)).unwrap();
        assert_eq!(rooms.into_rooms(), Some(HashSet::new()));
        let (_, sockets): (Sid, Response<RemoteSocketData>) = rmp_serde::from_slice(&no_sockets(id)).unwrap();
        assert_eq!(sockets.into_fetch_sockets(), Some(Vec::new()));
    }

    #[test]
    fn rubbish_is_no_answer() {
        let message = no_acks(Sid::new());
        for end in 0..message.len() {
            answer(&message[..end]);
        }
        for text in [&b""[..], b"\x92", b"\xff", b"\x92\xa1x", &[0xc1; 40]] {
            assert_eq!(answer(text), None);
        }
    }
}
