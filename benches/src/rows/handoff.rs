//! Handoff against the plain program, and against other people's way of keeping a client's requests together.
//!
//! Each load has its own key or keys; the plain program and those who place by something else do not look at them.

use super::metrics::{OTHERS, P50, P99, cpu_per_message, cpu_per_request, grown_by, idle_cpu, latency_ms};
use super::sides::{
    HANDOFF, HANDOFF_COOKIE, HAPROXY, HAPROXY_COOKIE, NGINX, NGINX_COOKIE, PLAIN, SOCKETIO_STICKY, STICKY_SESSION,
};
use super::{Compare, Keys, LONG, Load, Metric, Row, SHORT};
use crate::load::Head;

/// One key for each of 64 connections.
const FIXED: Row = Row {
    name: "handoff/fixed",
    about: "one key a connection in x-key, short heads, 64 connections, equal for each worker: handoff against plain axum",
    side: &HANDOFF,
    against: Some(&PLAIN),
    workers: None,
    load: Load::Keyed(Keys::Fixed, Head::Bare),
    against_load: None,
    timing: SHORT,
    pairs: 120,
    metrics: &[cpu_per_request(Some(1.10)), P50, P99],
};

const BROWSER: Row = Row {
    name: "handoff/browser",
    about: "one key a connection in a cookie, the heads a browser sends, 64 connections: handoff against plain axum",
    side: &HANDOFF_COOKIE,
    load: Load::Keyed(Keys::Fixed, Head::Browser),
    metrics: &[cpu_per_request(Some(1.15)), P50, P99],
    ..FIXED
};

const RANDOM: Row = Row {
    name: "handoff/random",
    about: "each request any of 50 keys, 64 connections, 2 workers, so every other request moves: handoff against plain axum",
    workers: Some(2),
    load: Load::Keyed(Keys::Random(50), Head::Bare),
    metrics: &[cpu_per_request(Some(2.2)), P50, P99],
    ..FIXED
};

const ALTERNATING: Row = Row {
    name: "handoff/alternating",
    about: "two keys of different workers in turn, 64 connections, 2 workers, so every request moves: handoff against plain axum",
    workers: Some(2),
    load: Load::Keyed(Keys::Alternating, Head::Bare),
    metrics: INFORMATION,
    ..FIXED
};

const CONNECTIONS: Row = Row {
    name: "handoff/connections",
    about: "a new connection for each request, one key a client, 64 clients: handoff against plain axum",
    load: Load::KeyedConnections(Head::Bare),
    metrics: &[cpu_per_request(Some(1.20)), P50, P99],
    ..FIXED
};

/// Against a rival: the ratio is for information, and far enough from 1 for fewer pairs.
const RIVAL_PAIRS: usize = 40;
const INFORMATION: &[Metric] = &[cpu_per_request(None), P50, P99];

/// Node's need long runs, before which they have compiled themselves.
const NODE_PAIRS: usize = 20;

/// In the table's order.
pub(super) const ROWS: &[Row] = &[
    FIXED,
    Row {
        name: "handoff/fixed-nginx",
        about: "the same: handoff against nginx that hashes x-key, with the plain program behind it",
        against: Some(&NGINX),
        pairs: RIVAL_PAIRS,
        metrics: INFORMATION,
        ..FIXED
    },
    Row {
        name: "handoff/fixed-haproxy",
        about: "the same: handoff against HAProxy that hashes x-key, with the plain program behind it",
        against: Some(&HAPROXY),
        pairs: RIVAL_PAIRS,
        metrics: INFORMATION,
        ..FIXED
    },
    Row {
        name: "handoff/fixed-sticky-session",
        about: "the same: handoff against Node's sticky-session, which goes by the client's address",
        against: Some(&STICKY_SESSION),
        timing: LONG,
        pairs: NODE_PAIRS,
        metrics: INFORMATION,
        ..FIXED
    },
    Row {
        name: "handoff/fixed-socketio-sticky",
        about: "the same, the key in the query as well: handoff against Node's @socket.io/sticky, which closes each connection",
        against: Some(&SOCKETIO_STICKY),
        load: Load::Keyed(Keys::Fixed, Head::BareWithSid),
        timing: LONG,
        pairs: NODE_PAIRS,
        metrics: INFORMATION,
        ..FIXED
    },
    Row {
        name: "handoff/varied",
        about: "as handoff/fixed, but no head is the same as the last one: handoff against plain axum",
        load: Load::Keyed(Keys::FixedVaried, Head::Bare),
        metrics: INFORMATION,
        ..FIXED
    },
    BROWSER,
    Row {
        name: "handoff/browser-nginx",
        about: "the same: handoff against nginx that hashes the cookie, with the plain program behind it",
        against: Some(&NGINX_COOKIE),
        pairs: RIVAL_PAIRS,
        metrics: INFORMATION,
        ..BROWSER
    },
    Row {
        name: "handoff/browser-haproxy",
        about: "the same: handoff against HAProxy that hashes the cookie, with the plain program behind it",
        against: Some(&HAPROXY_COOKIE),
        pairs: RIVAL_PAIRS,
        metrics: INFORMATION,
        ..BROWSER
    },
    RANDOM,
    Row {
        name: "handoff/random-nginx",
        about: "the same: handoff against nginx that hashes x-key, with the plain program behind it",
        against: Some(&NGINX),
        pairs: RIVAL_PAIRS,
        metrics: INFORMATION,
        ..RANDOM
    },
    Row {
        name: "handoff/random-haproxy",
        about: "the same: handoff against HAProxy that hashes x-key, with the plain program behind it",
        against: Some(&HAPROXY),
        pairs: RIVAL_PAIRS,
        metrics: INFORMATION,
        ..RANDOM
    },
    ALTERNATING,
    Row {
        name: "handoff/alternating-nginx",
        about: "the same: handoff against nginx that hashes x-key, with the plain program behind it",
        against: Some(&NGINX),
        pairs: 80,
        metrics: &[cpu_per_request(Some(1.0)), P50, P99],
        ..ALTERNATING
    },
    Row {
        name: "handoff/alternating-haproxy",
        about: "the same: handoff against HAProxy that hashes x-key, with the plain program behind it",
        against: Some(&HAPROXY),
        pairs: RIVAL_PAIRS,
        ..ALTERNATING
    },
    CONNECTIONS,
    Row {
        name: "handoff/connections-nginx",
        about: "the same: handoff against nginx that hashes x-key, with the plain program behind it",
        against: Some(&NGINX),
        pairs: RIVAL_PAIRS,
        metrics: INFORMATION,
        ..CONNECTIONS
    },
    Row {
        name: "handoff/connections-haproxy",
        about: "the same: handoff against HAProxy that hashes x-key, with the plain program behind it",
        against: Some(&HAPROXY),
        pairs: RIVAL_PAIRS,
        metrics: INFORMATION,
        ..CONNECTIONS
    },
    Row {
        name: "handoff/connections-sticky-session",
        about: "the same: handoff against Node's sticky-session, which goes by the client's address",
        against: Some(&STICKY_SESSION),
        timing: LONG,
        pairs: NODE_PAIRS,
        metrics: INFORMATION,
        ..CONNECTIONS
    },
    Row {
        name: "handoff/connections-socketio-sticky",
        about: "the same, the key in the query as well: handoff against Node's @socket.io/sticky",
        against: Some(&SOCKETIO_STICKY),
        load: Load::KeyedConnections(Head::BareWithSid),
        timing: LONG,
        pairs: NODE_PAIRS,
        metrics: INFORMATION,
        ..CONNECTIONS
    },
    Row {
        name: "handoff/messages",
        about: "messages of 64 bytes and their echo on 64 WebSockets, equal for each worker: handoff against plain axum",
        load: Load::Messages,
        metrics: &[cpu_per_message(Some(1.03)), P50, P99],
        ..FIXED
    },
    Row {
        name: "handoff/idle",
        about: "10,000 WebSockets that say nothing: what each adds to all processes, handoff minus plain axum",
        load: Load::Idle(10_000),
        timing: LONG,
        pairs: 12,
        metrics: &[grown_by("RSS B/WebSocket", Compare::Difference, Some(512.0)), idle_cpu(Compare::Difference)],
        ..FIXED
    },
    Row {
        name: "handoff/hostile",
        about: "32 clients with a key each, 100 requests/s each, while others have their key change with every request, \
                send heads of 30 kB, and heads one byte at a time: latency of the 32 against theirs without the others",
        against: Some(&HANDOFF),
        workers: Some(2),
        load: Load::Hostile,
        against_load: Some(Load::Paced),
        timing: LONG,
        pairs: 20,
        metrics: &[
            P50,
            Metric { name: "p99 ms", value: |s| latency_ms(s, OTHERS, 0.99), compare: Compare::Ratio, bar: Some(2.0) },
        ],
        ..FIXED
    },
];
