//! Kernel dispatch against the plain program: what it costs, and what it is for.

use super::metrics::{OTHERS, P50, P99, RSS, cpu_per_request, latency_ms};
use super::sides::{KERNEL, PLAIN};
use super::{Compare, LONG, Load, Metric, Row, SHORT};
use crate::load::Group;

/// In the table's order.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "kernel/self",
        about: "plain axum against itself: what the machine's noise alone does to a row",
        side: &PLAIN,
        against: Some(&PLAIN),
        workers: None,
        load: Load::Requests,
        against_load: None,
        timing: SHORT,
        pairs: 60,
        metrics: &[cpu_per_request(None), P50, P99],
    },
    Row {
        name: "kernel/requests",
        about: "requests on 64 keep-alive connections, equal for each worker: kernel dispatch against plain axum",
        side: &KERNEL,
        against: Some(&PLAIN),
        workers: None,
        load: Load::Requests,
        against_load: None,
        timing: SHORT,
        pairs: 120,
        metrics: &[cpu_per_request(Some(1.05)), P50, P99, RSS],
    },
    Row {
        name: "kernel/connections",
        about: "a new connection for each request, 64 clients: kernel dispatch against plain axum",
        side: &KERNEL,
        against: Some(&PLAIN),
        workers: None,
        load: Load::Connections,
        against_load: None,
        timing: SHORT,
        pairs: 120,
        metrics: &[cpu_per_request(Some(0.95)), P50, P99],
    },
    Row {
        name: "supervisor/idle",
        about: "the supervisor alone while its workers, which have nothing to tell it, are under load",
        side: &KERNEL,
        against: None,
        workers: None,
        load: Load::Requests,
        against_load: None,
        timing: LONG,
        pairs: 20,
        metrics: &[
            Metric {
                name: "RSS MiB",
                value: |s| s.rss_kib.0 as f64 / 1024.0,
                compare: Compare::Alone,
                bar: Some(10.0),
            },
            Metric {
                name: "CPU ms/s",
                value: |s| s.cpu.first as f64 / 1e6 / s.elapsed.as_secs_f64(),
                compare: Compare::Alone,
                bar: Some(1.0),
            },
        ],
    },
    Row {
        name: "isolation/blocking",
        about: "32 connections of one address block for 20 ms a request; latency of 32 others: kernel against plain, 4 workers",
        side: &KERNEL,
        against: Some(&PLAIN),
        workers: Some(4),
        load: Load::Blocking,
        against_load: None,
        timing: LONG,
        pairs: 20,
        metrics: &[
            Metric {
                name: "others p99 ms",
                value: |s| latency_ms(s, OTHERS, 0.99),
                compare: Compare::Ratio,
                bar: None,
            },
            Metric { name: "others p50 ms", value: |s| latency_ms(s, OTHERS, 0.5), compare: Compare::Ratio, bar: None },
            Metric {
                name: "on other workers p99 ms",
                value: |s| latency_ms(s, &[Group::Ordinary], 0.99),
                compare: Compare::Ratio,
                bar: None,
            },
            Metric {
                name: "on the same worker p99 ms",
                value: |s| latency_ms(s, &[Group::Neighbour], 0.99),
                compare: Compare::Ratio,
                bar: None,
            },
        ],
    },
    Row {
        name: "ready/4",
        about: "from execution to ready with 4 workers, minus plain axum's with 4 threads",
        side: &KERNEL,
        against: Some(&PLAIN),
        workers: Some(4),
        load: Load::None,
        against_load: None,
        timing: SHORT,
        pairs: 40,
        metrics: &[Metric {
            name: "ready ms",
            value: |s| s.ready_after.as_secs_f64() * 1e3,
            compare: Compare::Difference,
            bar: Some(60.0),
        }],
    },
];
