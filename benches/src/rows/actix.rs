//! Actix under sticky against its own server: the loads of the other rows.

use super::metrics::{P50, P99, RSS, cpu_per_message, cpu_per_request};
use super::sides::{HANDOFF_ACTIX, HANDOFF_COOKIE_ACTIX, KERNEL_ACTIX, PLAIN_ACTIX};
use super::{Keys, Load, Row, SHORT};
use crate::load::Head;

const REQUESTS: Row = Row {
    name: "actix/requests",
    about: "requests on 64 keep-alive connections, equal for each worker: kernel dispatch against plain actix",
    side: &KERNEL_ACTIX,
    against: Some(&PLAIN_ACTIX),
    against_load: None,
    workers: None,
    load: Load::Requests,
    timing: SHORT,
    pairs: 120,
    metrics: &[cpu_per_request(Some(1.05)), P50, P99, RSS],
};

const FIXED: Row = Row {
    name: "actix/fixed",
    about: "one key a connection in x-key, short heads, 64 connections, equal for each worker: handoff against plain actix",
    side: &HANDOFF_ACTIX,
    load: Load::Keyed(Keys::Fixed, Head::Bare),
    metrics: &[cpu_per_request(Some(1.10)), P50, P99],
    ..REQUESTS
};

/// In the table's order.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "actix/self",
        about: "plain actix against itself: what the machine's noise alone does to a row",
        side: &PLAIN_ACTIX,
        pairs: 60,
        metrics: &[cpu_per_request(None), P50, P99],
        ..REQUESTS
    },
    REQUESTS,
    Row {
        name: "actix/connections",
        about: "a new connection for each request, 64 clients: kernel dispatch against plain actix",
        load: Load::Connections,
        metrics: &[cpu_per_request(None), P50, P99],
        ..REQUESTS
    },
    FIXED,
    Row {
        name: "actix/browser",
        about: "one key a connection in a cookie, the heads a browser sends, 64 connections: handoff against plain actix",
        side: &HANDOFF_COOKIE_ACTIX,
        load: Load::Keyed(Keys::Fixed, Head::Browser),
        metrics: &[cpu_per_request(None), P50, P99],
        ..FIXED
    },
    Row {
        name: "actix/random",
        about: "each request any of 50 keys, 64 connections, 2 workers, so every other request moves: handoff against plain actix",
        workers: Some(2),
        load: Load::Keyed(Keys::Random(50), Head::Bare),
        metrics: &[cpu_per_request(None), P50, P99],
        ..FIXED
    },
    Row {
        name: "actix/keyed-connections",
        about: "a new connection for each request, one key a client, 64 clients: handoff against plain actix",
        load: Load::KeyedConnections(Head::Bare),
        metrics: &[cpu_per_request(None), P50, P99],
        ..FIXED
    },
    Row {
        name: "actix/messages",
        about: "messages of 64 bytes and their echo on 64 WebSockets, equal for each worker: handoff against plain actix",
        load: Load::Messages,
        metrics: &[cpu_per_message(None), P50, P99],
        ..FIXED
    },
];
