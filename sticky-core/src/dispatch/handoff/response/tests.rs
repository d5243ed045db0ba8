//! Responses as frameworks write them, and as they should not.

use proptest::prelude::*;

use super::super::request_body::BodyFraming;
use super::*;

fn asked(method: MethodClass, switch: Switch) -> Response {
    let version = Version::Http11;
    let body = BodyFraming::None;
    Response::to(Facts { method, version, body, switch, expects_continue: false, wants_close: false })
}

fn to_get() -> Response {
    asked(MethodClass::Other, Switch::None)
}

/// Feeds `bytes` in one piece, then anew at every split, and expects the same each time.
fn check(new: fn() -> Response, bytes: &[u8], len: usize, state: ResponseState) {
    for split in 0..=bytes.len() {
        let mut response = new();
        let (first, second) = bytes.split_at(split);
        let mut used = response.accepted(first);
        if used == first.len() {
            used += response.accepted(second);
        }
        assert_eq!((used, response.state()), (len, state), "{} at {split}", bytes.escape_ascii());
    }
    let mut response = new();
    let used: usize = bytes.chunks(1).map(|byte| response.accepted(byte)).sum();
    assert_eq!((used, response.state()), (len, state), "{} byte by byte", bytes.escape_ascii());
}

fn check_all(new: fn() -> Response, bytes: &[u8], state: ResponseState) {
    check(new, bytes, bytes.len(), state);
}

/// The response is complete with its last byte, and what follows is not counted.
fn check_ends(new: fn() -> Response, bytes: &[u8]) {
    check_all(new, bytes, ResponseState::Complete);
    check(new, &[bytes, b"HTTP/1.1 200 OK\r\n\r\n"].concat(), bytes.len(), ResponseState::Complete);
    let mut response = new();
    response.accepted(&bytes[..bytes.len() - 1]);
    assert_eq!(response.state(), ResponseState::Outstanding);
}

#[test]
fn nothing_is_due_before_a_request() {
    let mut response = Response::not_due();
    assert_eq!((response.accepted(b"HTTP/1.1 408"), response.state()), (0, ResponseState::NotDue));
}

#[test]
fn lengths_and_chunks_are_counted() {
    check_ends(to_get, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    check_ends(to_get, b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n");
    check_ends(to_get, b"HTTP/1.1 200\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nab");
    check_ends(to_get, b"HTTP/1.1 200 OK\ncontent-length: 2\n\nab");
    check_ends(to_get, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\nab");
    check_ends(to_get, b"HTTP/1.1 200 OK\r\ncontent-length: 2\n\r\nab");
    check_ends(to_get, b"HTTP/1.0 500 no\xe9\r\ncontent-length: 2\r\n\r\nab");
    check_ends(to_get, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    check_ends(
        to_get,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\nA\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\n",
    );
}

#[test]
fn some_answers_have_no_body() {
    let to_head = || asked(MethodClass::Head, Switch::None);
    check_ends(to_head, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    check_ends(to_head, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    check_ends(to_head, b"HTTP/1.1 200 OK\r\n\r\n");
    check_ends(to_get, b"HTTP/1.1 204 No Content\r\n\r\n");
    check_ends(to_get, b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n");
}

#[test]
fn interim_answers_come_before_the_answer() {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    check_all(to_get, interim, ResponseState::Outstanding);
    check_ends(to_get, &[&interim[..], b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"].concat());
    let mut response = to_get();
    response.accepted(interim);
    assert!(response.is_replaceable());
    response.accepted(b"H");
    assert!(!response.is_replaceable());
}

#[test]
fn only_an_accepted_switch_makes_a_tunnel() {
    let upgrade = || asked(MethodClass::Other, Switch::Upgrade);
    let connect = || asked(MethodClass::Connect, Switch::Connect);
    let switched = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\r\n\x81\x05hello";
    check_all(upgrade, switched, ResponseState::Tunnel);
    check_all(to_get, switched, ResponseState::Broken);
    check_all(connect, switched, ResponseState::Broken);
    check_all(connect, b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef", ResponseState::Tunnel);
    check_all(connect, b"HTTP/1.1 204 OK\r\n\r\n", ResponseState::Tunnel);
    check_ends(connect, b"HTTP/1.1 403 no\r\ncontent-length: 2\r\n\r\nno");
    check_ends(upgrade, b"HTTP/1.1 400 no\r\ncontent-length: 2\r\n\r\nno");
}

#[test]
fn without_a_length_only_the_connection_ends_it() {
    check_all(to_get, b"HTTP/1.1 200 OK\r\n\r\nhello", ResponseState::UntilClose);
    check_all(to_get, b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\nhello", ResponseState::UntilClose);
}

#[test]
fn what_cannot_be_framed_is_broken_for_good() {
    let table: [&[u8]; 13] = [
        b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/2 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
        b"\0\0\x12\x04\0",
        b"HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello!",
    ];
    for bytes in table {
        check_all(to_get, bytes, ResponseState::Broken);
    }
}

#[test]
fn chunks_in_http_1_0_are_the_last_that_is_sent() {
    let mut response = to_get();
    let bytes = b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    assert_eq!(response.accepted(bytes), bytes.len());
    assert_eq!((response.state(), response.wants_close()), (ResponseState::Complete, true));
}

#[test]
fn who_wants_to_close() {
    let wants_close = |head: &[u8]| {
        let mut response = to_get();
        response.accepted(head);
        response.wants_close()
    };
    assert!(!wants_close(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"));
    assert!(wants_close(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nConnection: Close\r\n\r\n"));
    assert!(wants_close(b"HTTP/1.0 200 OK\r\ncontent-length: 9\r\n\r\n"));
    assert!(!wants_close(b"HTTP/1.0 200 OK\r\ncontent-length: 9\r\nconnection: keep-alive\r\n\r\n"));
}

#[test]
fn heads_are_bounded_and_have_many_headers() {
    let with = |count: usize| {
        [b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n".to_vec(), b"a: b\r\n".repeat(count), b"\r\nx".to_vec()].concat()
    };
    for count in [0, 1, 5_000] {
        for piece in [usize::MAX, 1000] {
            let mut response = to_get();
            let used: usize = with(count).chunks(piece).map(|bytes| response.accepted(bytes)).sum();
            assert_eq!((used, response.state()), (with(count).len(), ResponseState::Complete));
        }
    }
    let long = [b"HTTP/1.1 200 OK\r\na: ".to_vec(), vec![b'x'; MAX_HEAD]].concat();
    for piece in [usize::MAX, 1000] {
        let mut response = to_get();
        let used: usize = long.chunks(piece).map(|bytes| response.accepted(bytes)).sum();
        assert_eq!((used, response.state()), (long.len(), ResponseState::Broken));
    }
}

#[test]
fn a_large_write_with_the_end_of_the_head_is_not_kept() {
    let body = vec![b'x'; 1 << 20];
    let mut response = to_get();
    response.accepted(b"HTTP/1.1 200 OK\r\ncontent-length: 1048");
    let rest = [&b"576\r\n\r\n"[..], &body].concat();
    assert_eq!((response.accepted(&rest), response.state()), (rest.len(), ResponseState::Complete));
}

/// An answer, with where it stands at its end.
fn answer() -> impl Strategy<Value = Vec<u8>> {
    let interim = proptest::sample::select(vec!["", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 x\r\na: b\r\n\r\n"]);
    let body = proptest::collection::vec(any::<u8>(), 0..200);
    let chunks = proptest::collection::vec(1usize..60, 0..5);
    (interim, body, proptest::option::of(chunks)).prop_map(|(interim, body, chunks)| {
        let head = format!("{interim}HTTP/1.1 200 OK\r\ndate: now\r\n");
        let framed = match chunks {
            None => [format!("content-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat(),
            Some(sizes) => chunked(&body, &sizes),
        };
        [head.as_bytes(), &framed].concat()
    })
}

fn chunked(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut framed = b"transfer-encoding: chunked\r\n\r\n".to_vec();
    let mut rest = body;
    for size in sizes {
        let (chunk, later) = rest.split_at((*size).min(rest.len()));
        if !chunk.is_empty() {
            framed.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            framed.extend_from_slice(chunk);
            framed.extend_from_slice(b"\r\n");
        }
        rest = later;
    }
    framed.extend_from_slice(b"0\r\nsum: 1\r\n\r\n");
    framed
}

proptest! {
    #[test]
    fn the_end_is_found_at_any_split(bytes in answer(), cuts in proptest::collection::vec(1usize..100, 1..10)) {
        let with_more = [&bytes[..], b"HTTP/1.1"].concat();
        let mut response = to_get();
        let mut used = 0;
        for cut in cuts.iter().cycle() {
            let end = (used + cut).min(with_more.len());
            let taken = response.accepted(&with_more[used..end]);
            used += taken;
            prop_assert_eq!(response.state() == ResponseState::Complete, used == bytes.len());
            if used == bytes.len() {
                break;
            }
            prop_assert_eq!(used, end);
        }
        prop_assert_eq!(response.accepted(b"more"), 0);
    }

    #[test]
    fn any_bytes_are_followed(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..50) {
        let mut response = to_get();
        for piece in [&b"HTTP/1.1 200 OK\r\n"[..], &bytes].concat().chunks(cut) {
            response.accepted(piece);
        }
    }
}
