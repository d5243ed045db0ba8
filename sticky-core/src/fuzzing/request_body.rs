//! Bodies of requests: where they end does not depend on how they come.

use super::naive::{Stop, chunked};
use super::{Numbers, open};
use crate::dispatch::handoff::chunked::Progress;
use crate::dispatch::handoff::request_body::{BodyFraming, RequestBody};

pub(super) fn check(input: &[u8]) {
    let (mut numbers, text) = open(input);
    match numbers.choose(4) {
        0 => check_length(numbers, text),
        _ => check_chunked(numbers, text),
    }
}

fn check_length(mut numbers: Numbers<'_>, text: &[u8]) {
    let length = [0, 1, u64::from(numbers.next()), u64::MAX / 2][numbers.choose(4)];
    let framing = if length == 0 { BodyFraming::None } else { BodyFraming::Length(length) };
    let mut body = RequestBody::new(framing);
    let mut used = 0;
    for piece in numbers.pieces(text) {
        assert_eq!(body.data_ahead(), length - used);
        used += take(&mut body, &mut numbers, piece) as u64;
        assert_eq!(body.progress() == Progress::Complete, used == length);
    }
    assert_eq!(used, length.min(text.len() as u64));
}

fn check_chunked(mut numbers: Numbers<'_>, text: &[u8]) {
    let naive = chunked(text);
    let mut whole = RequestBody::new(BodyFraming::Chunked);
    assert_eq!(whole.consume(text), naive.used);
    compare(&whole, naive.stop);

    let mut body = RequestBody::new(BodyFraming::Chunked);
    let mut used = 0;
    for piece in numbers.pieces(text) {
        let taken = take(&mut body, &mut numbers, piece);
        used += taken;
        assert!(used <= naive.used);
        if taken < piece.len() {
            assert_ne!(body.progress(), Progress::Open);
        }
    }
    assert_eq!(used, naive.used);
    assert_eq!(body.progress(), whole.progress());
    compare(&body, naive.stop);
    if naive.stop != (Stop::Open { data_ahead: body.data_ahead() }) {
        assert_eq!((body.consume(b"0\r\n\r\n"), body.data_ahead(), body.worth_passing()), (0, 0, None));
    }
}

fn compare(body: &RequestBody, stop: Stop) {
    match (body.progress(), stop) {
        (Progress::Complete, Stop::Complete) | (Progress::Broken(_), Stop::Broken) => {}
        (Progress::Open, Stop::Open { data_ahead }) => assert_eq!(body.data_ahead(), data_ahead),
        (progress, stop) => panic!("{progress:?} where the naive one says {stop:?}"),
    }
}

/// Has the body count a piece: by a look at it, or without where it is all data.
fn take(body: &mut RequestBody, numbers: &mut Numbers<'_>, piece: &[u8]) -> usize {
    let ahead = body.data_ahead();
    assert!(body.worth_passing().is_none_or(|passing| passing == ahead));
    if numbers.choose(2) == 0 {
        return body.consume(piece);
    }
    let passed = body.consume_data(piece.len());
    assert_eq!(passed as u64, ahead.min(piece.len() as u64));
    assert!(passed == piece.len() || body.data_ahead() == 0);
    passed + body.consume(&piece[passed..])
}
