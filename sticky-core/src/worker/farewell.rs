//! The answers that a worker gives in its application's place, and a close that does not take them back.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::connection::Stream;

/// What a client is told before its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing: a response has begun, or it would not understand one.
    Nothing,
    /// What it sent is not HTTP, or could mean two things.
    BadRequest,
    /// Its head takes too long.
    RequestTimeout,
    /// Its head is too large.
    HeadersTooLarge,
    /// The worker of its session is not there.
    Unavailable,
    /// It speaks another version of HTTP.
    VersionNotSupported,
}

impl Answer {
    /// The answer with this status; 400 for any other.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            408 => Self::RequestTimeout,
            431 => Self::HeadersTooLarge,
            503 => Self::Unavailable,
            505 => Self::VersionNotSupported,
            _ => Self::BadRequest,
        }
    }

    fn places(self) -> &'static Semaphore {
        match self {
            Self::Unavailable => &NOT_SERVED,
            _ => &REJECTED,
        }
    }

    pub(crate) fn bytes(self) -> &'static [u8] {
        match self {
            Self::Nothing => b"",
            Self::BadRequest => b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            Self::RequestTimeout => b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            Self::HeadersTooLarge => {
                b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            }
            Self::Unavailable => {
                b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            }
            Self::VersionNotSupported => {
                b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            }
        }
    }
}

/// How long, and for how many bytes, what the client still sends is read. Closing with unread bytes would reset the
/// connection and could take the answer with it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// How many clients of either kind are answered at once: they must not take the descriptors of those that are served.
const MOST: usize = 256;

/// The places of those who sent what cannot be served.
static REJECTED: Semaphore = Semaphore::const_new(MOST);

/// The places of those who did nothing wrong: a flood of bad heads must not take their answers.
static NOT_SERVED: Semaphore = Semaphore::const_new(MOST);

/// Answers and closes; where too many are being answered alike, closes. `held` is dropped with the connection.
pub(crate) async fn say<T>(answer: Answer, mut stream: Stream, held: T) {
    if let Ok(_place) = answer.places().try_acquire() {
        let farewell = async {
            stream.write_all(answer.bytes()).await?;
            stream.shutdown().await?;
            tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES), &mut tokio::io::sink()).await
        };
        // The client may be gone; then there is nobody to tell.
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
    drop(stream);
    drop(held);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_heads_do_not_take_the_places_of_good_ones() {
        for status in [400, 408, 431, 505] {
            assert!(!std::ptr::eq(Answer::of_status(status).places(), Answer::of_status(503).places()), "{status}");
        }
    }

    #[test]
    fn every_answer_closes_and_says_so() {
        for status in [400, 408, 431, 503, 505] {
            let text = std::str::from_utf8(Answer::of_status(status).bytes()).unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
            assert!(text.contains("\r\ncontent-length: 0\r\nconnection: close\r\n"), "{text}");
            assert!(text.ends_with("\r\n\r\n"), "{text}");
        }
        assert_eq!(Answer::of_status(413), Answer::BadRequest);
    }
}
