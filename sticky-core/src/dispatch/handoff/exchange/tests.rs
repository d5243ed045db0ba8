//! Each rule of the exchange, then whole connections at random splits, moving between workers.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::chunked::ChunkFault;
use super::super::head::MAX_HEAD;
use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n";
const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn new() -> Exchange {
    Exchange::new(MAX_HEAD)
}

/// An exchange that has received these bytes.
fn with(bytes: &[u8]) -> Exchange {
    let mut exchange = new();
    exchange.received(bytes);
    exchange
}

/// Delivers all that can be, and returns it.
fn deliver(exchange: &mut Exchange) -> Vec<u8> {
    let mut all = Vec::new();
    while exchange.read() == Next::Deliver {
        all.extend_from_slice(exchange.deliverable());
        exchange.delivered(exchange.deliverable().len());
    }
    all
}

/// Serves the message that is to be decided on, and returns what of it has come.
fn serve(exchange: &mut Exchange) -> Vec<u8> {
    assert_eq!(exchange.read(), Next::Decide);
    exchange.serve();
    deliver(exchange)
}

fn answer(exchange: &mut Exchange) {
    assert_eq!(exchange.accepted(OK), Wrote::Complete);
}

/// One message served and answered.
fn used() -> Exchange {
    let mut exchange = with(GET);
    assert_eq!(serve(&mut exchange), GET);
    answer(&mut exchange);
    exchange
}

const FETCH: Next = Next::Fetch { at_most: READ_SIZE };
const PARK: Next = Next::Park { read_ahead: READ_SIZE };
const WAIT: Next = Next::Park { read_ahead: 0 };

#[test]
fn one_message_after_the_other() {
    let mut exchange = new();
    assert_eq!((exchange.read(), exchange.phase()), (FETCH, Phase::Fresh));
    exchange.received(&GET[..5]);
    assert_eq!((exchange.read(), exchange.phase()), (Next::Fetch { at_most: READ_SIZE }, Phase::Head));
    exchange.received(&GET[5..]);
    for _ in 0..3 {
        assert_eq!(exchange.read(), Next::Decide);
        assert!(exchange.deliverable().is_empty());
        let Some(Opening::Request(head)) = exchange.opening() else { panic!() };
        assert_eq!((head.path(), head.host()), ("/", Some("h")));
        assert_eq!(serve(&mut exchange), GET);
        assert_eq!((exchange.read(), exchange.phase()), (PARK, Phase::Message));
        answer(&mut exchange);
        assert_eq!((exchange.read(), exchange.phase()), (FETCH, Phase::Idle));
        exchange.received(GET);
    }
}

/// Reads these bytes where the framework wants them: whether it has them.
fn serve_in_place(exchange: &mut Exchange, bytes: &[u8]) -> bool {
    assert!(exchange.awaits_head());
    let tried = exchange.peek(bytes).ok_or(None).and_then(|head| exchange.serve_in_place(head, bytes).map_err(Some));
    tried.map_err(|head| exchange.keep(bytes, head)).is_ok()
}

#[test]
fn a_head_is_read_in_place_only_where_one_may_begin_and_nothing_is_held() {
    assert!(new().awaits_head() && used().awaits_head());
    assert!(!with(&GET[..1]).awaits_head(), "something is held");
    let mut exchange = with(GET);
    assert_eq!(exchange.read(), Next::Decide);
    assert!(!exchange.awaits_head(), "a head is here");
    exchange.serve();
    assert!(!exchange.awaits_head());
    deliver(&mut exchange);
    assert!(!exchange.awaits_head(), "an answer is due");
    answer(&mut exchange);
    assert!(exchange.awaits_head());
    exchange.eof();
    assert!(!exchange.awaits_head(), "nothing comes any more");
    let mut exchange = with(GET);
    serve(&mut exchange);
    exchange.accepted(CLOSE);
    assert!(!exchange.awaits_head(), "nothing may come any more");
    let mut exchange = with(UPGRADE);
    serve(&mut exchange);
    exchange.accepted(SWITCHED);
    assert!(!exchange.awaits_head());
}

#[test]
fn one_message_is_served_in_place() {
    let mut exchange = new();
    for _ in 0..3 {
        assert!(serve_in_place(&mut exchange, GET));
        assert_eq!((exchange.read(), exchange.phase()), (PARK, Phase::Message));
        answer(&mut exchange);
        assert_eq!((exchange.read(), exchange.phase()), (FETCH, Phase::Idle));
    }
    assert!(serve_in_place(&mut exchange, &[POST, b"hello"].concat()));
    answer(&mut exchange);
    assert!(serve_in_place(&mut exchange, &[CHUNKED, b"1\r\nx\r\n0\r\n\r\n"].concat()));
    answer(&mut exchange);
    assert!(exchange.reader.remembers(), "the next head may be the same");
    assert!(serve_in_place(&mut exchange, UPGRADE));
    assert!(!exchange.reader.remembers(), "no head follows");
    assert_eq!(exchange.read(), PARK, "whether a head follows is not known");
    assert_eq!(exchange.accepted(SWITCHED), Wrote::Tunnel);
    assert_eq!(exchange.phase(), Phase::Tunnel);
}

#[test]
fn a_message_that_is_served_in_place_may_lack_some_of_its_body() {
    let mut exchange = new();
    assert!(serve_in_place(&mut exchange, &[POST, b"he"].concat()));
    assert_eq!(exchange.read(), Next::Pass { at_most: 3 });
    exchange.passed(3);
    answer(&mut exchange);
    assert!(serve_in_place(&mut exchange, &[CHUNKED, b"5\r\nhe"].concat()));
    exchange.received(b"llo\r\n0\r\n\r\n");
    assert_eq!(deliver(&mut exchange), b"llo\r\n0\r\n\r\n");
    answer(&mut exchange);
    assert_eq!(exchange.read(), FETCH);
}

#[test]
fn a_message_is_under_way_until_all_of_it_has_come_also_when_it_is_answered() {
    let mut exchange = new();
    assert!(serve_in_place(&mut exchange, &[POST, b"he"].concat()));
    answer(&mut exchange);
    assert_eq!(exchange.phase(), Phase::Message);
    exchange.received(b"llo");
    assert_eq!((deliver(&mut exchange).as_slice(), exchange.phase()), (&b"llo"[..], Phase::Idle));
}

#[test]
fn what_is_not_one_message_goes_the_usual_way() {
    let mut exchange = new();
    assert!(!serve_in_place(&mut exchange, &[GET, POST, b"hello"].concat()));
    assert_eq!(serve(&mut exchange), GET);
    answer(&mut exchange);
    assert_eq!(serve(&mut exchange), [POST, b"hello"].concat());
    answer(&mut exchange);
    assert!(!serve_in_place(&mut exchange, &GET[..9]));
    exchange.received(&GET[9..]);
    assert_eq!(serve(&mut exchange), GET);
    answer(&mut exchange);
    for empty in [&b"\r\n"[..], b"\n"] {
        assert!(!serve_in_place(&mut exchange, &[empty, GET].concat()));
        assert_eq!(serve(&mut exchange), GET, "without the empty line");
        answer(&mut exchange);
    }
    assert!(!serve_in_place(&mut exchange, &[CHUNKED, b"+5\r\n"].concat()));
    assert_eq!(serve(&mut exchange), CHUNKED);
    assert_eq!(exchange.read(), Next::Refuse(Refusal::Chunk(ChunkFault::Size)));
    let mut exchange = new();
    assert!(!serve_in_place(&mut exchange, b"GET / HTTP/1.1\n\n"));
    assert_eq!(exchange.read(), Next::Refuse(Refusal::BareLineFeed));
    let mut exchange = new();
    assert!(!serve_in_place(&mut exchange, PREFACE));
    assert_eq!(exchange.read(), Next::Decide);
    assert!(matches!(exchange.opening(), Some(Opening::Http2)));
}

#[test]
fn what_is_served_in_place_is_no_preface_from_then_on() {
    let mut exchange = new();
    assert!(serve_in_place(&mut exchange, GET));
    answer(&mut exchange);
    assert!(!serve_in_place(&mut exchange, PREFACE));
    assert_eq!(exchange.read(), Next::Refuse(Refusal::Version));
    let mut exchange = new();
    let close = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
    assert!(serve_in_place(&mut exchange, close));
    answer(&mut exchange);
    assert_eq!(exchange.read(), Next::End(End::Last));
}

#[test]
fn a_client_has_left_off_only_between_messages() {
    assert!(!new().has_left_off() && !used().has_left_off());
    let mut exchange = used();
    exchange.eof();
    assert!(exchange.has_left_off());
    let mut exchange = used();
    exchange.step_aside().unwrap();
    assert!(exchange.has_left_off());
    exchange.accepted(b"x");
    assert!(!exchange.has_left_off(), "the framework has something to say");
    let mut exchange = with(GET);
    serve(&mut exchange);
    exchange.eof();
    assert!(!exchange.has_left_off(), "it is owed an answer");
    exchange.accepted(CLOSE);
    assert!(!exchange.has_left_off(), "the framework closes");
    let mut exchange = with(POST);
    serve(&mut exchange);
    answer(&mut exchange);
    exchange.eof();
    assert!(!exchange.has_left_off(), "it has not said all");
}

#[test]
fn a_pipelined_request_waits_for_the_response() {
    let mut exchange = with(&[GET, POST, b"hello", GET].concat());
    assert_eq!(serve(&mut exchange), GET);
    assert_eq!(exchange.read(), WAIT, "a head is read ahead, and no more");
    assert!(exchange.deliverable().is_empty());
    assert_eq!(exchange.accepted(&OK[..OK.len() - 1]), Wrote::Part);
    assert_eq!(exchange.read(), WAIT);
    assert_eq!(exchange.accepted(&OK[OK.len() - 1..]), Wrote::Complete);
    assert_eq!(serve(&mut exchange), [POST, b"hello"].concat());
    answer(&mut exchange);
    assert_eq!(serve(&mut exchange), GET);
}

#[test]
fn reading_ahead_is_bounded() {
    let mut exchange = with(GET);
    serve(&mut exchange);
    let mut ahead = 0;
    while let Next::Park { read_ahead } = exchange.read()
        && read_ahead > 0
    {
        exchange.received(&vec![b'A'; read_ahead]);
        ahead += read_ahead;
    }
    assert_eq!((ahead, exchange.read()), (usize::from(MAX_HEAD), WAIT));
    answer(&mut exchange);
    assert_eq!(exchange.read(), Next::Refuse(Refusal::HeadTooLarge));
}

#[test]
fn a_smaller_bound_holds_for_every_read() {
    let mut exchange = Exchange::new(100);
    assert_eq!(exchange.read(), Next::Fetch { at_most: 100 });
    exchange.received(CHUNKED);
    serve(&mut exchange);
    assert_eq!(exchange.read(), Next::Fetch { at_most: 100 });
    let mut exchange = Exchange::new(100);
    exchange.received(UPGRADE);
    serve(&mut exchange);
    assert_eq!(exchange.read(), Next::Park { read_ahead: 100 });
    exchange.received(&[0; 100]);
    assert_eq!(exchange.read(), WAIT);
}

#[test]
fn a_body_with_a_length_passes_without_a_look() {
    let mut exchange = with(&[POST, b"he"].concat());
    assert_eq!(serve(&mut exchange), [POST, b"he"].concat());
    assert_eq!(exchange.read(), Next::Pass { at_most: 3 });
    exchange.passed(2);
    assert_eq!(exchange.read(), Next::Pass { at_most: 1 });
    assert_eq!(exchange.phase(), Phase::Message);
    exchange.passed(1);
    assert_eq!(exchange.read(), PARK);
}

#[test]
fn a_chunked_body_passes_where_it_is_long() {
    let mut exchange = with(&[CHUNKED, b"800\r\n"].concat());
    serve(&mut exchange);
    assert_eq!(exchange.read(), Next::Pass { at_most: 2048 });
    exchange.passed(2048);
    assert_eq!(exchange.read(), FETCH);
    exchange.received(&[b"\r\n0\r\nsum: 1\r\n\r\n", GET].concat());
    assert_eq!(deliver(&mut exchange), b"\r\n0\r\nsum: 1\r\n\r\n");
    assert_eq!(exchange.read(), WAIT);
    answer(&mut exchange);
    assert_eq!(serve(&mut exchange), GET);
}

#[test]
fn an_early_answer_does_not_end_the_request() {
    let mut exchange = with(POST);
    serve(&mut exchange);
    answer(&mut exchange);
    assert_eq!((exchange.read(), exchange.may_step_aside()), (Next::Pass { at_most: 5 }, false));
    exchange.passed(5);
    assert_eq!((exchange.read(), exchange.may_step_aside()), (FETCH, true));
}

#[test]
fn empty_lines_between_messages_belong_to_none() {
    let mut exchange = with(&[b"\r\n\r\n", GET, b"\r\n", GET, b"\r\n"].concat());
    assert_eq!(serve(&mut exchange), GET);
    answer(&mut exchange);
    assert_eq!(serve(&mut exchange), GET);
    answer(&mut exchange);
    assert_eq!((exchange.read(), exchange.phase()), (FETCH, Phase::Idle));
    exchange.received(b"\r");
    assert_eq!(exchange.read(), FETCH);
    exchange.received(&[b"\n", GET].concat());
    assert_eq!(serve(&mut exchange), GET);
}

// === end-of-stream ===

#[test]
fn the_clients_end_passes_at_once_when_nothing_is_buffered() {
    let mut exchange = new();
    exchange.eof();
    assert_eq!(exchange.read(), Next::End(End::Client));

    let mut half_closed = with(GET);
    serve(&mut half_closed);
    half_closed.eof();
    assert_eq!(half_closed.read(), Next::End(End::Client));
    answer(&mut half_closed);
    assert_eq!((half_closed.read(), half_closed.may_step_aside()), (Next::End(End::Client), false));
}

#[test]
fn the_clients_end_waits_for_what_is_buffered() {
    let mut exchange = with(&[GET, POST, b"he"].concat());
    exchange.eof();
    assert_eq!(serve(&mut exchange), GET);
    assert_eq!(exchange.read(), WAIT);
    answer(&mut exchange);
    assert!(exchange.may_step_aside(), "its owner will read the end again");
    assert_eq!(serve(&mut exchange), [POST, b"he"].concat());
    assert_eq!(exchange.read(), Next::End(End::Client), "in the middle of a body");
}

#[test]
fn half_a_head_at_the_end_is_nothing() {
    let mut exchange = with(&[GET, &GET[..9]].concat());
    serve(&mut exchange);
    exchange.eof();
    assert_eq!(exchange.read(), Next::End(End::Client));
}

// === close ===

#[test]
fn after_close_nothing_is_delivered() {
    let request = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
    let mut by_client = with(&[request, GET].concat());
    assert_eq!(serve(&mut by_client), request);
    answer(&mut by_client);
    let mut by_framework = with(&[GET, GET].concat());
    serve(&mut by_framework);
    assert_eq!(by_framework.accepted(CLOSE), Wrote::Complete);
    let mut by_shutdown = with(&[GET, GET].concat());
    serve(&mut by_shutdown);
    answer(&mut by_shutdown);
    assert_eq!(by_shutdown.shutdown(), Shutdown::Pass);
    for mut exchange in [by_client, by_framework, by_shutdown] {
        assert_eq!((exchange.read(), exchange.phase()), (Next::End(End::Last), Phase::Over));
        assert_eq!((exchange.may_step_aside(), exchange.step_aside()), (false, Err(Busy)));
        assert_eq!(exchange.into_moving(), None);
    }
}

#[test]
fn a_response_without_an_end_is_the_last() {
    let responses: [(&[u8], Wrote, Phase); 3] = [
        (b"HTTP/1.1 200 OK\r\n\r\nhello", Wrote::Part, Phase::Message),
        (b"what?", Wrote::Lost, Phase::Lost),
        (SWITCHED, Wrote::Lost, Phase::Lost),
    ];
    for (response, wrote, phase) in responses {
        let mut exchange = with(&[GET, GET].concat());
        serve(&mut exchange);
        assert_eq!(exchange.accepted(response), wrote);
        assert_eq!((exchange.read(), exchange.may_step_aside()), (WAIT, false));
        assert_eq!((exchange.phase(), exchange.accepted(b"more")), (phase, wrote));
    }
}

#[test]
fn what_nobody_asked_for_makes_the_connection_stay() {
    let mut after_end = used();
    assert_eq!(after_end.accepted(b"HTTP/1.1 408"), Wrote::Unasked);
    let mut with_end = with(GET);
    serve(&mut with_end);
    assert_eq!(with_end.accepted(&[OK, b"!"].concat()), Wrote::Complete);
    let mut in_head = with(&GET[..9]);
    assert_eq!(in_head.accepted(b"HTTP/1.1 408 Request Timeout\r\n\r\n"), Wrote::Unasked);
    let mut undecided = with(GET);
    assert_eq!(undecided.read(), Next::Decide);
    assert_eq!(undecided.accepted(b"!"), Wrote::Unasked);
    for mut exchange in [after_end, with_end, in_head, undecided] {
        assert_eq!((exchange.read(), exchange.may_step_aside()), (Next::End(End::Last), false));
    }
    let mut idle = used();
    assert_eq!(idle.accepted(b""), Wrote::Part);
    assert!(idle.may_step_aside());
}

// === stepping aside ===

#[test]
fn a_message_for_another_worker_moves_with_all_that_was_read() {
    let mut exchange = used();
    exchange.received(&[POST, b"hello", &GET[..4]].concat());
    assert_eq!(exchange.read(), Next::Decide);
    assert_eq!(exchange.step_aside(), Ok(()));
    for _ in 0..3 {
        assert_eq!((exchange.read(), exchange.phase()), (Next::End(End::Aside), Phase::Over));
    }
    assert_eq!((exchange.shutdown(), exchange.accepted(b"")), (Shutdown::Swallow, Wrote::Unasked));
    let moving = exchange.into_moving().unwrap();
    assert_eq!(moving.read_ahead, [POST, b"hello", &GET[..4]].concat());
    assert_eq!(moving.standing, Standing::Judged);

    let mut owner = Exchange::resume(MAX_HEAD, moving);
    assert_eq!((owner.read(), owner.is_judged()), (Next::Decide, true));
    assert_eq!(serve(&mut owner), [POST, b"hello"].concat());
    answer(&mut owner);
    owner.received(&GET[4..]);
    assert_eq!((owner.read(), owner.is_judged()), (Next::Decide, false), "the next one has to be judged");
}

#[test]
fn nothing_moves_after_the_framework_wrote_again() {
    let mut exchange = with(GET);
    assert_eq!(exchange.read(), Next::Decide);
    exchange.step_aside().unwrap();
    assert_eq!(exchange.accepted(b"x"), Wrote::Unasked);
    assert_eq!((exchange.read(), exchange.shutdown()), (Next::End(End::Aside), Shutdown::Pass));
    assert_eq!(exchange.into_moving(), None);
}

#[test]
fn an_idle_connection_moves_as_it_is() {
    for (mut exchange, standing) in [(new(), Standing::New), (used(), Standing::Used)] {
        exchange.received(&GET[..3]);
        assert_eq!(exchange.read(), FETCH);
        exchange.step_aside().unwrap();
        let moving = exchange.into_moving().unwrap();
        assert_eq!((&moving.read_ahead[..], moving.standing), (&GET[..3], standing));
        let mut owner = Exchange::resume(MAX_HEAD, moving);
        assert_eq!((owner.read(), owner.phase()), (FETCH, Phase::Head));
        owner.received(&GET[3..]);
        assert_eq!(serve(&mut owner), GET);
    }
}

#[test]
fn nothing_moves_in_the_middle_of_something() {
    let mut delivering = with(GET);
    assert_eq!(delivering.read(), Next::Decide);
    delivering.serve();
    let mut in_body = with(POST);
    serve(&mut in_body);
    let mut outstanding = with(&[GET, GET].concat());
    serve(&mut outstanding);
    let mut switching = with(UPGRADE);
    serve(&mut switching);
    let mut tunnel = with(UPGRADE);
    serve(&mut tunnel);
    tunnel.accepted(SWITCHED);
    let mut refused = with(b"GET /\r\n\r\n");
    refused.read();
    let mut ended = used();
    ended.eof();
    for mut exchange in [delivering, in_body, outstanding, switching, tunnel, refused, ended] {
        let before = exchange.read();
        assert_eq!(exchange.step_aside(), Err(Busy));
        assert_eq!(exchange.read(), before);
        assert_eq!(exchange.into_moving(), None);
    }
}

#[test]
fn a_decision_before_its_time_does_nothing() {
    let mut exchange = with(&[GET, GET].concat());
    exchange.serve();
    assert!(exchange.opening().is_none());
    serve(&mut exchange);
    exchange.serve();
    assert_eq!(exchange.read(), WAIT);
    exchange.serve();
    assert_eq!((exchange.read(), exchange.deliverable()), (WAIT, &b""[..]));
}

// === refusals ===

#[test]
fn a_refused_head_waits_for_its_turn() {
    let mut exchange = with(&[GET, b"GET /\r\n\r\n"].concat());
    serve(&mut exchange);
    assert_eq!(exchange.read(), WAIT);
    answer(&mut exchange);
    for _ in 0..2 {
        assert_eq!((exchange.read(), exchange.phase()), (Next::Refuse(Refusal::RequestLine), Phase::Over));
    }
    exchange.close();
    assert_eq!((exchange.read(), exchange.phase()), (Next::End(End::Last), Phase::Over));
}

#[test]
fn a_broken_body_is_refused_after_its_good_part() {
    let fault = Refusal::Chunk(ChunkFault::Size);
    let mut exchange = with(&[CHUNKED, b"2\r\nab\r\n+1\r\n"].concat());
    assert_eq!(serve(&mut exchange), [CHUNKED, b"2\r\nab\r\n"].concat());
    assert_eq!(exchange.read(), Next::Refuse(fault));
    exchange.accepted(b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(exchange.read(), Next::Refuse(fault), "an interim answer is none");
    exchange.accepted(b"HTTP");
    assert_eq!(exchange.read(), Next::Abort(fault));
}

#[test]
fn a_broken_body_after_an_early_answer_is_aborted() {
    let mut exchange = with(CHUNKED);
    serve(&mut exchange);
    answer(&mut exchange);
    exchange.received(b"zzz");
    assert_eq!(exchange.read(), Next::Abort(Refusal::Chunk(ChunkFault::Size)));
    assert!(!exchange.may_step_aside());
}

// === tunnels ===

#[test]
fn only_the_accepted_status_makes_a_tunnel() {
    let frames = b"\r\n\r\nGET nonsense\0";
    let mut exchange = with(&[UPGRADE, frames].concat());
    assert_eq!(serve(&mut exchange), UPGRADE);
    assert_eq!(exchange.read(), Next::Park { read_ahead: READ_SIZE - frames.len() }, "nothing is parsed");
    assert_eq!(exchange.accepted(&SWITCHED[..SWITCHED.len() - 1]), Wrote::Part);
    assert_eq!(exchange.accepted(&SWITCHED[SWITCHED.len() - 1..]), Wrote::Tunnel);
    assert!(!exchange.is_transparent());
    assert_eq!(deliver(&mut exchange), frames);
    assert_eq!((exchange.read(), exchange.phase()), (Next::Pass { at_most: u64::MAX }, Phase::Tunnel));
    assert!(exchange.is_transparent());
    exchange.passed(100_000);
    assert_eq!(exchange.accepted(b"HTTP/1.1 whatever"), Wrote::Part);
    assert_eq!(exchange.shutdown(), Shutdown::Pass);
    assert_eq!(exchange.read(), Next::Pass { at_most: u64::MAX });
    exchange.eof();
    assert_eq!((exchange.read(), exchange.is_transparent()), (Next::End(End::Client), false));
}

#[test]
fn a_refused_upgrade_goes_on() {
    let mut exchange = with(&[UPGRADE, GET].concat());
    assert_eq!(serve(&mut exchange), UPGRADE);
    assert_eq!(exchange.read(), Next::Park { read_ahead: READ_SIZE - GET.len() });
    answer(&mut exchange);
    assert_eq!(serve(&mut exchange), GET);
}

#[test]
fn an_upgrade_answered_before_it_was_read_goes_on() {
    let mut exchange = with(&[UPGRADE, GET].concat());
    assert_eq!(exchange.read(), Next::Decide);
    exchange.serve();
    answer(&mut exchange);
    assert_eq!(deliver(&mut exchange), UPGRADE);
    assert_eq!(serve(&mut exchange), GET);
}

#[test]
fn the_clients_end_while_the_status_is_unknown() {
    let mut silent = with(UPGRADE);
    serve(&mut silent);
    silent.eof();
    assert_eq!(silent.read(), Next::End(End::Client));

    let mut eager = with(&[UPGRADE, b"frame"].concat());
    serve(&mut eager);
    eager.eof();
    assert_eq!(eager.read(), WAIT);
    eager.accepted(SWITCHED);
    assert_eq!(deliver(&mut eager), b"frame");
    assert_eq!(eager.read(), Next::End(End::Client));
}

#[test]
fn connect_is_a_tunnel_after_success() {
    let request = b"CONNECT h:1 HTTP/1.1\r\n\r\n";
    let mut exchange = with(&[&request[..], b"bytes"].concat());
    assert_eq!(serve(&mut exchange), request);
    assert_eq!(exchange.accepted(b"HTTP/1.1 200 OK\r\n\r\nmore"), Wrote::Tunnel);
    assert_eq!(deliver(&mut exchange), b"bytes");
}

#[test]
fn http2_is_decided_on_once_and_left_alone() {
    let mut exchange = new();
    exchange.received(&PREFACE[..10]);
    assert_eq!((exchange.read(), exchange.phase()), (FETCH, Phase::Head));
    exchange.received(&[&PREFACE[10..], b"\0\0"].concat());
    assert_eq!(exchange.read(), Next::Decide);
    assert!(matches!(exchange.opening(), Some(Opening::Http2)));
    exchange.serve();
    assert_eq!(deliver(&mut exchange), [PREFACE, b"\0\0"].concat());
    assert_eq!((exchange.accepted(b"\0\0\0\x04\0\0\0\0\0"), exchange.phase()), (Wrote::Part, Phase::Tunnel));

    let mut other = with(PREFACE);
    assert_eq!(other.read(), Next::Decide);
    other.step_aside().unwrap();
    let mut owner = Exchange::resume(MAX_HEAD, other.into_moving().unwrap());
    assert_eq!(serve(&mut owner), PREFACE);
}

#[test]
fn http2_begins_a_connection_or_is_refused() {
    let mut exchange = used();
    exchange.received(PREFACE);
    assert_eq!(exchange.read(), Next::Refuse(Refusal::Version));
    let mut idle = used();
    idle.step_aside().unwrap();
    let mut owner = Exchange::resume(MAX_HEAD, idle.into_moving().unwrap());
    owner.received(PREFACE);
    assert_eq!(owner.read(), Next::Refuse(Refusal::Version));
}

#[test]
fn an_idle_connection_is_small() {
    let mut exchange = used();
    assert_eq!(exchange.read(), FETCH);
    assert_eq!(exchange.buffer.capacity(), 0);
    assert!(size_of::<Exchange>() <= 256, "{}", size_of::<Exchange>());
}

// === whole connections ===

/// A request, its answer, and the worker it is for.
#[derive(Clone, Debug)]
struct Pair {
    request: Vec<u8>,
    response: Vec<u8>,
    slot: usize,
    /// The answer begins before the request has been read.
    is_early: bool,
}

/// Plays client, framework and socket for a connection, with sizes from `cuts` over and over.
struct Play<'a> {
    pairs: &'a [Pair],
    cuts: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    input: VecDeque<u8>,
    exchange: Exchange,
    slot: usize,
    /// What was delivered, message by message, and the worker that got it.
    delivered: Vec<(usize, Vec<u8>)>,
    /// How much of the last message's answer has been accepted.
    answered: usize,
}

impl<'a> Play<'a> {
    fn new(pairs: &'a [Pair], cuts: &'a [usize]) -> Self {
        let input = pairs.iter().flat_map(|pair| pair.request.iter().copied()).collect();
        let cuts = cuts.iter().cycle();
        Self { pairs, cuts, input, exchange: new(), slot: 0, delivered: Vec::new(), answered: 0 }
    }

    fn cut(&mut self) -> usize {
        *self.cuts.next().unwrap()
    }

    fn take_input(&mut self, at_most: usize) -> Vec<u8> {
        let n = self.cut().min(at_most).min(self.input.len());
        self.input.drain(..n).collect()
    }

    fn run(mut self) -> Vec<(usize, Vec<u8>)> {
        loop {
            assert!(self.exchange.buffer.len() <= usize::from(MAX_HEAD));
            let next = self.exchange.read();
            assert_eq!(self.exchange.read(), next);
            match next {
                Next::Deliver => self.deliver(),
                Next::Pass { at_most } => self.pass(at_most),
                Next::Fetch { at_most } => self.fetch(at_most),
                Next::Park { read_ahead } => self.park(read_ahead),
                Next::Decide => self.decide(),
                Next::End(End::Client) => break,
                other => panic!("{other:?}"),
            }
            if self.pair().is_some_and(|pair| pair.is_early) && self.cut().is_multiple_of(3) {
                self.answer();
            }
        }
        while self.pair().is_some_and(|pair| self.answered < pair.response.len()) {
            self.answer();
        }
        self.delivered
    }

    /// The message under way.
    fn pair(&self) -> Option<&'a Pair> {
        self.pairs.get(self.delivered.len().checked_sub(1)?)
    }

    fn deliver(&mut self) {
        let n = self.cut().min(self.exchange.deliverable().len());
        let bytes = &self.exchange.deliverable()[..n];
        self.delivered.last_mut().unwrap().1.extend_from_slice(bytes);
        self.exchange.delivered(n);
    }

    fn pass(&mut self, at_most: u64) {
        let bytes = self.take_input(at_most.min(1 << 20) as usize);
        assert!(!bytes.is_empty(), "the input ends inside a body");
        self.delivered.last_mut().unwrap().1.extend_from_slice(&bytes);
        self.exchange.passed(bytes.len());
    }

    fn fetch(&mut self, at_most: usize) {
        match self.take_input(at_most) {
            bytes if bytes.is_empty() => self.exchange.eof(),
            bytes => self.exchange.received(&bytes),
        }
    }

    fn park(&mut self, read_ahead: usize) {
        if read_ahead > 0 && self.cut().is_multiple_of(2) {
            self.fetch(read_ahead);
        } else {
            self.answer();
        }
    }

    fn answer(&mut self) {
        let Some(pair) = self.pair() else { return };
        let n = self.cut().min(pair.response.len() - self.answered);
        if n == 0 {
            return;
        }
        let wrote = self.exchange.accepted(&pair.response[self.answered..][..n]);
        self.answered += n;
        let expected = if self.answered == pair.response.len() { Wrote::Complete } else { Wrote::Part };
        assert_eq!(wrote, expected);
    }

    fn decide(&mut self) {
        let pair = &self.pairs[self.delivered.len()];
        if pair.slot != self.slot {
            self.exchange.step_aside().unwrap();
            assert_eq!(self.exchange.read(), Next::End(End::Aside));
            let moving = std::mem::replace(&mut self.exchange, new()).into_moving().unwrap();
            self.exchange = Exchange::resume(MAX_HEAD, moving);
            assert_eq!((self.exchange.read(), self.exchange.is_judged()), (Next::Decide, true));
            self.slot = pair.slot;
        }
        self.exchange.serve();
        assert_eq!(self.exchange.read(), Next::Deliver);
        self.delivered.push((self.slot, Vec::new()));
        self.answered = 0;
    }
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..60);
    let large = (5000usize..20_000).prop_map(|len| vec![b'x'; len]);
    let body = prop_oneof![8 => body, 1 => large];
    let padding = prop_oneof![8 => 0usize..50, 1 => 3000usize..30_000];
    (0..5, body, padding).prop_map(|(kind, body, padding)| {
        let pad = "p".repeat(padding);
        match kind {
            0 => format!("GET /{pad} HTTP/1.1\r\n\r\n").into_bytes(),
            1 => format!("GET / HTTP/1.1\r\nx: {pad}\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").into_bytes(),
            2 => {
                let head = format!("PUT / HTTP/1.1\r\nx: {pad}\r\ncontent-length: {}\r\n\r\n", body.len());
                [head.as_bytes(), &body].concat()
            }
            _ => chunked(&format!("POST / HTTP/1.1\r\nx: {pad}\r\n"), &body, kind),
        }
    })
}

fn chunked(head: &str, body: &[u8], kind: i32) -> Vec<u8> {
    let mut message = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(if kind == 3 { 17 } else { 3000 }) {
        message.extend_from_slice(format!("{:x};ext=\"v\"\r\n", chunk.len()).as_bytes());
        message.extend_from_slice(chunk);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(if kind == 3 { b"0\r\n\r\n" } else { b"00;last\r\nsum: GET / HTTP/1.1\r\n\r\n" });
    message
}

fn response() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..100);
    (0..4, body).prop_map(|(kind, body)| match kind {
        0 => b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        1 => chunked("HTTP/1.1 200 OK\r\n", &body, 3),
        2 => chunked("HTTP/1.1 404 Not Found\r\n", &body, 4),
        _ => {
            let head = format!("HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            [head.as_bytes(), &body].concat()
        }
    })
}

fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    let pair = (request(), response(), 0usize..3, any::<bool>()).prop_map(|(request, response, slot, is_early)| Pair {
        request,
        response,
        slot,
        is_early,
    });
    proptest::collection::vec(pair, 1..16)
}

/// Sizes of reads and writes, some of them tiny and some large.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    let cut = prop_oneof![1usize..5, 1usize..100, 1usize..10_000];
    proptest::collection::vec(cut, 1..40)
}

fn check(pairs: &[Pair], cuts: &[usize]) {
    let delivered = Play::new(pairs, cuts).run();
    assert_eq!(delivered.len(), pairs.len());
    for (pair, (slot, bytes)) in pairs.iter().zip(delivered) {
        assert_eq!((slot, bytes.escape_ascii().to_string()), (pair.slot, pair.request.escape_ascii().to_string()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn pipelines_are_delivered_message_by_message_to_their_workers(pairs in pairs(), cuts in cuts()) {
        check(&pairs, &cuts);
    }
}

#[test]
fn pipelines_byte_by_byte() {
    let pair = |request: &[u8], slot| Pair { request: request.to_vec(), response: OK.to_vec(), slot, is_early: true };
    let pairs = [
        pair(GET, 1),
        pair(&[POST, b"hello"].concat(), 0),
        pair(UPGRADE, 0),
        pair(&chunked("PUT / HTTP/1.1\r\n", b"some\r\n0\r\n\r\n", 3), 2),
        pair(GET, 2),
    ];
    for cut in 1..300 {
        check(&pairs, &[cut]);
        check(&pairs, &[cut, 1]);
        check(&pairs, &[cut, 2, 3]);
    }
}

#[test]
fn any_bytes_come_to_an_end() {
    let mut runner = proptest::test_runner::TestRunner::default();
    let strategy = (proptest::collection::vec(any::<u8>(), 0..200), 0..3usize);
    runner
        .run(&strategy, |(bytes, start)| {
            let mut exchange = with([CHUNKED, UPGRADE, b""][start]);
            exchange.received(&bytes);
            exchange.eof();
            for _ in 0..1000 {
                match exchange.read() {
                    Next::Deliver => exchange.delivered(1),
                    Next::Decide => exchange.serve(),
                    Next::Park { .. } => drop(exchange.accepted(OK)),
                    Next::End(_) | Next::Refuse(_) | Next::Abort(_) => return Ok(()),
                    other => panic!("{other:?}"),
                }
            }
            panic!("no end")
        })
        .unwrap();
}
