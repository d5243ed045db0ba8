//! Counts the body of one request: how many of the bytes to come are its own. Pure.

use super::chunked::{Chunked, Progress};

/// The least of a chunk that is worth a read of its own.
const WORTH_PASSING: u64 = 1024;

/// How a head says that its body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// There is none.
    None,
    /// So many bytes, at least one.
    Length(u64),
    /// In chunks, with trailers perhaps.
    Chunked,
}

/// What is still to come of a request's body.
#[derive(Debug)]
pub(crate) struct RequestBody {
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    Length(u64),
    Chunked(Chunked),
}

impl RequestBody {
    /// A body of which nothing has been consumed.
    pub(crate) fn new(framing: BodyFraming) -> Self {
        let rest = match framing {
            BodyFraming::None => Rest::Length(0),
            BodyFraming::Length(length) => Rest::Length(length),
            BodyFraming::Chunked => Rest::Chunked(Chunked::new()),
        };
        Self { rest }
    }

    /// Consumes what belongs to the body, and returns how many of `bytes` those are. Fewer than all: the body is
    /// complete, or the byte after them breaks it.
    pub(crate) fn consume(&mut self, bytes: &[u8]) -> usize {
        match &mut self.rest {
            Rest::Length(_) => self.consume_data(bytes.len()),
            Rest::Chunked(chunked) => chunked.consume(bytes),
        }
    }

    /// Counts up to `available` bytes that nobody needs to look at, within [`Self::data_ahead`].
    pub(crate) fn consume_data(&mut self, available: usize) -> usize {
        match &mut self.rest {
            Rest::Length(rest) => {
                let taken = (*rest).min(available as u64);
                *rest -= taken;
                taken as usize
            }
            Rest::Chunked(chunked) => chunked.consume_data(available),
        }
    }

    /// How many of the bytes to come are certain to be data of this body.
    pub(crate) fn data_ahead(&self) -> u64 {
        match &self.rest {
            Rest::Length(rest) => *rest,
            Rest::Chunked(chunked) => chunked.data_ahead(),
        }
    }

    /// How many bytes may go from the socket straight to the framework, where that saves more copying than it costs
    /// calls: small chunks are cheaper read together with what follows them.
    pub(crate) fn worth_passing(&self) -> Option<u64> {
        let ahead = self.data_ahead();
        let is_all = matches!(self.rest, Rest::Length(_));
        (is_all || ahead >= WORTH_PASSING).then_some(ahead)
    }

    /// Where the body stands.
    pub(crate) fn progress(&self) -> Progress {
        match &self.rest {
            Rest::Length(0) => Progress::Complete,
            Rest::Length(_) => Progress::Open,
            Rest::Chunked(chunked) => chunked.progress(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::chunked::ChunkFault;
    use super::*;

    #[test]
    fn no_body_consumes_nothing() {
        let mut body = RequestBody::new(BodyFraming::None);
        assert_eq!((body.consume(b"GET"), body.data_ahead(), body.progress()), (0, 0, Progress::Complete));
    }

    #[test]
    fn a_length_is_counted_to_the_byte() {
        let mut body = RequestBody::new(BodyFraming::Length(5));
        assert_eq!((body.consume(b"abc"), body.progress(), body.data_ahead()), (3, Progress::Open, 2));
        assert_eq!((body.consume(b"deGET"), body.progress(), body.data_ahead()), (2, Progress::Complete, 0));
        assert_eq!(body.consume(b"GET"), 0);
    }

    #[test]
    fn only_long_stretches_of_chunks_are_passed() {
        assert_eq!(RequestBody::new(BodyFraming::Length(1)).worth_passing(), Some(1));
        let mut body = RequestBody::new(BodyFraming::Chunked);
        assert_eq!(body.worth_passing(), None);
        body.consume(b"401\r\n");
        assert_eq!(body.worth_passing(), Some(1025));
        body.consume(b"a");
        assert_eq!(body.worth_passing(), Some(1024));
        body.consume(b"a");
        assert_eq!(body.worth_passing(), None);
    }

    #[test]
    fn chunks_are_counted_to_the_byte() {
        let mut body = RequestBody::new(BodyFraming::Chunked);
        assert_eq!((body.consume(b"3\r\nab"), body.progress(), body.data_ahead()), (5, Progress::Open, 1));
        assert_eq!(body.consume_data(9), 1);
        assert_eq!((body.consume(b"\r\n0\r\na: b\r\n\r\nGET"), body.progress()), (13, Progress::Complete));
        let mut body = RequestBody::new(BodyFraming::Chunked);
        assert_eq!((body.consume(b"0x3"), body.progress()), (1, Progress::Broken(ChunkFault::Size)));
    }

    proptest! {
        #[test]
        fn a_length_at_any_split(length in 0u64..200, cuts in proptest::collection::vec(0usize..50, 1..30)) {
            let mut body = RequestBody::new(BodyFraming::Length(length));
            let mut left = length;
            for cut in cuts {
                let expected = left.min(cut as u64);
                prop_assert_eq!(body.consume(&vec![0; cut]) as u64, expected);
                left -= expected;
                prop_assert_eq!(body.data_ahead(), left);
                prop_assert_eq!(body.progress() == Progress::Complete, left == 0);
            }
        }
    }
}
