//! The rows of the table. A new comparison is a new entry here, with its side or its load if they are new.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::load::{Client, Group, Lifetime, Timing};
use crate::pairs::Sample;
use crate::side::Side;
use crate::stats::percentile;

/// Two sides under one load; or one alone.
#[derive(Debug)]
pub struct Row {
    /// `family/what`.
    pub name: &'static str,
    /// One line for `--list`.
    pub about: &'static str,
    /// What is measured.
    pub side: &'static Side,
    /// What it is compared with.
    pub against: Option<&'static Side>,
    /// Workers of the one, threads of the other; without a number as many as there are CPUs.
    pub workers: Option<u16>,
    /// What the clients do.
    pub load: Load,
    /// How long one run takes.
    pub timing: Timing,
    /// How often, unless told otherwise.
    pub pairs: usize,
    /// The numbers taken from each run: a line each.
    pub metrics: &'static [Metric],
}

/// One number.
#[derive(Debug)]
pub struct Metric {
    /// As the table names it, with its unit.
    pub name: &'static str,
    /// Taken from one run.
    pub value: fn(&Sample) -> f64,
    /// Of the two sides' values.
    pub compare: Compare,
    /// "At most"; without it the number is for information.
    pub bar: Option<f64>,
}

/// What a pair of values says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The one divided by the other.
    Ratio,
    /// The one minus the other.
    Difference,
    /// The one's value itself.
    Alone,
}

/// What clients do to a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing: start and stop.
    None,
    /// Keep-alive connections, each asking again as soon as it is answered.
    Requests,
    /// A new connection for each request.
    Connections,
    /// Half the connections from one address whose requests block their thread for 20 ms; the others ask every 50 ms.
    Blocking,
}

const PLAIN: Side =
    Side { name: "plain", program: "bench-plain", env: |threads| vec![("BENCH_THREADS", threads.to_string())] };

const KERNEL: Side = Side {
    name: "kernel",
    program: "bench-sticky",
    env: |workers| {
        let settings =
            [("STICKY_LISTEN", "127.0.0.1:0"), ("STICKY_DISPATCH", "kernel"), ("STICKY_THREADS_PER_WORKER", "1")];
        let settings = settings.map(|(name, value)| (name, value.to_owned()));
        [("STICKY_WORKERS", workers.to_string())].into_iter().chain(settings).collect()
    },
};

/// Every row, in the table's order.
pub const ROWS: &[Row] = &[
    Row {
        name: "kernel/self",
        about: "plain axum against itself: what the machine's noise alone does to a row",
        side: &PLAIN,
        against: Some(&PLAIN),
        workers: None,
        load: Load::Requests,
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

/// Many short neighbouring runs bound a ratio more closely than a few long ones.
const SHORT: Timing = Timing { warm_up: Duration::from_millis(150), window: Duration::from_millis(350) };
/// For what happens seldom: a supervisor's tick, or a round of all connections of a thread that is blocked.
const LONG: Timing = Timing { warm_up: Duration::from_millis(1_000), window: Duration::from_millis(2_000) };

const OTHERS: &[Group] = &[Group::Ordinary, Group::Neighbour];

const P50: Metric =
    Metric { name: "p50 ms", value: |s| latency_ms(s, OTHERS, 0.5), compare: Compare::Ratio, bar: None };
const P99: Metric =
    Metric { name: "p99 ms", value: |s| latency_ms(s, OTHERS, 0.99), compare: Compare::Ratio, bar: None };
const RSS: Metric =
    Metric { name: "RSS MiB, all", value: |s| s.rss_kib.1 as f64 / 1024.0, compare: Compare::Ratio, bar: None };

const fn cpu_per_request(bar: Option<f64>) -> Metric {
    let value = |s: &Sample| s.cpu.all as f64 / 1e3 / s.requests as f64;
    Metric { name: "CPU µs/request", value, compare: Compare::Ratio, bar }
}

fn latency_ms(sample: &Sample, groups: &[Group], share: f64) -> f64 {
    let of_groups = groups.iter().filter_map(|group| sample.latencies.get(group)).flatten();
    let mut latencies: Vec<u64> = of_groups.copied().collect();
    if latencies.is_empty() {
        return f64::INFINITY;
    }
    latencies.sort_unstable();
    percentile(&latencies, share) as f64 / 1e6
}

impl Load {
    /// Connections at a time.
    pub const CLIENTS: usize = 64;

    /// The clients, from addresses sorted by worker.
    pub fn clients(self, addresses: &[Vec<Ipv4Addr>]) -> Vec<Client> {
        let client = Client {
            source: Ipv4Addr::LOCALHOST,
            path: "/",
            connection: Lifetime::KeepAlive,
            interval: None,
            group: Group::Ordinary,
        };
        let everyone = || addresses.iter().flatten().copied();
        match self {
            Load::None => Vec::new(),
            Load::Requests => everyone().map(|source| Client { source, ..client.clone() }).collect(),
            Load::Connections => {
                let client = Client { connection: Lifetime::OneRequest, ..client };
                everyone().map(|source| Client { source, ..client.clone() }).collect()
            }
            Load::Blocking => blocking_clients(&client, addresses),
        }
    }

    /// Addresses wanted of each worker.
    pub fn addresses_per_worker(self, workers: u16) -> usize {
        match self {
            Load::None => 0,
            Load::Requests | Load::Connections => Self::CLIENTS / usize::from(workers),
            Load::Blocking => Self::CLIENTS / 2 / usize::from(workers),
        }
    }
}

/// The loud client shares its address with nobody but is placed with its neighbours: it takes the first's.
fn blocking_clients(client: &Client, addresses: &[Vec<Ipv4Addr>]) -> Vec<Client> {
    let loud = Client { source: addresses[0][0], path: "/block/20", group: Group::Loud, ..client.clone() };
    let quiet = addresses.iter().enumerate().flat_map(|(worker, addresses)| {
        let group = if worker == 0 { Group::Neighbour } else { Group::Ordinary };
        let interval = Some(Duration::from_millis(50));
        addresses.iter().map(move |&source| Client { source, group, interval, ..client.clone() })
    });
    std::iter::repeat_n(loud, Load::CLIENTS / 2).chain(quiet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_gives_each_worker_the_same_number_of_clients() {
        let addresses = vec![vec![Ipv4Addr::LOCALHOST; 16]; 4];
        assert_eq!(Load::Requests.clients(&addresses).len(), Load::CLIENTS);
        assert_eq!(Load::Requests.addresses_per_worker(4), 16);
        assert_eq!(Load::Connections.addresses_per_worker(2), 32);
    }

    #[test]
    fn one_address_makes_half_of_the_blocking_load() {
        let addresses = vec![vec![Ipv4Addr::LOCALHOST; Load::Blocking.addresses_per_worker(4)]; 4];
        let clients = Load::Blocking.clients(&addresses);
        let count = |group| clients.iter().filter(|client| client.group == group).count();
        assert_eq!([Group::Loud, Group::Neighbour, Group::Ordinary].map(count), [32, 8, 24]);
    }

    #[test]
    fn row_names_are_unique() {
        let mut names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
    }
}
