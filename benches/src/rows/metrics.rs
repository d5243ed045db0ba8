//! The numbers that several rows take from a run.

use super::{Compare, Metric};
use crate::load::Group;
use crate::pairs::Sample;
use crate::stats::percentile;

/// Everybody but the one who keeps a worker busy.
pub(super) const OTHERS: &[Group] = &[Group::Ordinary, Group::Neighbour];

pub(super) const P50: Metric =
    Metric { name: "p50 ms", value: |s| latency_ms(s, OTHERS, 0.5), compare: Compare::Ratio, bar: None };
pub(super) const P99: Metric =
    Metric { name: "p99 ms", value: |s| latency_ms(s, OTHERS, 0.99), compare: Compare::Ratio, bar: None };
pub(super) const RSS: Metric =
    Metric { name: "RSS MiB, all", value: |s| s.rss_kib.1 as f64 / 1024.0, compare: Compare::Ratio, bar: None };

pub(super) const fn cpu_per_request(bar: Option<f64>) -> Metric {
    Metric { name: "CPU µs/request", value: cpu_micros, compare: Compare::Ratio, bar }
}

/// Of the processes that forward alone.
pub(super) const fn front_cpu_per_request(bar: Option<f64>) -> Metric {
    Metric { name: "front CPU µs/request", value: front_cpu_micros, compare: Compare::Ratio, bar }
}

pub(super) const fn cpu_per_message(bar: Option<f64>) -> Metric {
    Metric { name: "CPU µs/message", value: cpu_micros, compare: Compare::Ratio, bar }
}

/// What one more connection adds to the memory of all processes.
pub(super) const fn grown_by(name: &'static str, compare: Compare, bar: Option<f64>) -> Metric {
    Metric { name, value: |s| s.grown_kib as f64 * 1024.0 / s.grown as f64, compare, bar }
}

/// What all processes use while nothing happens.
pub(super) const fn idle_cpu(compare: Compare) -> Metric {
    Metric { name: "CPU ms/s, all", value: |s| s.cpu.all as f64 / 1e6 / s.elapsed.as_secs_f64(), compare, bar: None }
}

fn cpu_micros(sample: &Sample) -> f64 {
    sample.cpu.all as f64 / 1e3 / sample.requests as f64
}

fn front_cpu_micros(sample: &Sample) -> f64 {
    sample.cpu.front as f64 / 1e3 / sample.requests as f64
}

pub(super) fn latency_ms(sample: &Sample, groups: &[Group], share: f64) -> f64 {
    let of_groups = groups.iter().filter_map(|group| sample.latencies.get(group)).flatten();
    let mut latencies: Vec<u64> = of_groups.copied().collect();
    if latencies.is_empty() {
        return f64::INFINITY;
    }
    latencies.sort_unstable();
    percentile(&latencies, share) as f64 / 1e6
}
