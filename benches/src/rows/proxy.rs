//! Proxy dispatch against those whose trade it is, with the same program behind each. What counts is the CPU time of those
//! who forward; what all processes of a side use stands beside it.

use super::metrics::{P50, P99, cpu_per_request, front_cpu_per_request, grown_by, idle_cpu};
use super::sides::{FLOOR, HAPROXY, HAPROXY_COOKIE, HYPER, NGINX, NGINX_COOKIE, PROXY, PROXY_COOKIE};
use super::{Compare, Keys, LONG, Load, Metric, Row, SHORT};
use crate::load::Head;

const TO_NGINX: &[Metric] = &[front_cpu_per_request(Some(1.15)), cpu_per_request(None), P50, P99];
const TO_HAPROXY: &[Metric] = &[front_cpu_per_request(Some(0.90)), cpu_per_request(None), P50, P99];
const INFORMATION: &[Metric] = &[front_cpu_per_request(None), cpu_per_request(None), P50, P99];

const REQUESTS: Row = Row {
    name: "proxy/requests-nginx",
    about: "one key a connection in x-key, short heads, 64 connections: proxy dispatch against nginx that hashes x-key",
    side: &PROXY,
    against: Some(&NGINX),
    workers: None,
    load: Load::Keyed(Keys::Fixed, Head::Bare),
    against_load: None,
    timing: SHORT,
    pairs: 40,
    metrics: TO_NGINX,
};

const BROWSER: Row = Row {
    name: "proxy/browser-nginx",
    about: "one key a connection in a cookie, the heads a browser sends, 64 connections: proxy dispatch against nginx",
    side: &PROXY_COOKIE,
    against: Some(&NGINX_COOKIE),
    load: Load::Keyed(Keys::Fixed, Head::Browser),
    ..REQUESTS
};

const CONNECTIONS: Row = Row {
    name: "proxy/connections-nginx",
    about: "a new connection for each request, one key a client, 64 clients: proxy dispatch against nginx",
    load: Load::KeyedConnections(Head::Bare),
    ..REQUESTS
};

/// In the table's order.
pub(super) const ROWS: &[Row] = &[
    REQUESTS,
    Row {
        name: "proxy/requests-haproxy",
        about: "the same: proxy dispatch against HAProxy that hashes x-key",
        against: Some(&HAPROXY),
        metrics: TO_HAPROXY,
        ..REQUESTS
    },
    Row {
        name: "proxy/requests-hyper",
        about: "the same: proxy dispatch against a proxy of a hundred lines on hyper",
        against: Some(&HYPER),
        metrics: INFORMATION,
        ..REQUESTS
    },
    Row {
        name: "proxy/requests-floor",
        about: "the same: proxy dispatch against a forwarder that parses nothing",
        against: Some(&FLOOR),
        metrics: INFORMATION,
        ..REQUESTS
    },
    BROWSER,
    Row {
        name: "proxy/browser-haproxy",
        about: "the same: proxy dispatch against HAProxy that hashes the cookie",
        against: Some(&HAPROXY_COOKIE),
        metrics: TO_HAPROXY,
        ..BROWSER
    },
    CONNECTIONS,
    Row {
        name: "proxy/connections-haproxy",
        about: "the same: proxy dispatch against HAProxy",
        against: Some(&HAPROXY),
        metrics: TO_HAPROXY,
        ..CONNECTIONS
    },
    Row {
        name: "proxy/random-nginx",
        about: "each request any of 50 keys, 64 connections: proxy dispatch against nginx",
        load: Load::Keyed(Keys::Random(50), Head::Bare),
        metrics: INFORMATION,
        ..REQUESTS
    },
    Row {
        name: "proxy/idle-nginx",
        about: "10,000 keep-alive clients that have asked once: what each adds to all processes, proxy dispatch against nginx",
        load: Load::IdleKeepAlive(10_000),
        timing: LONG,
        pairs: 12,
        metrics: &[grown_by("RSS B/client", Compare::Ratio, None), idle_cpu(Compare::Difference)],
        ..REQUESTS
    },
];
