//! Runs a row: short runs of its sides in turn, the order swapped from pair to pair.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cpus;
use crate::load::{self, Group, LoadError};
use crate::report::Line;
use crate::rows::{Compare, Load, Metric, Row};
use crate::side::{Cpu, Side, SideError};
use crate::stats::Summary;

/// What one run of one side gave.
#[derive(Debug)]
pub struct Sample {
    /// From execution to ready.
    pub ready_after: Duration,
    /// The measured window; zero without load.
    pub elapsed: Duration,
    /// Requests answered in it.
    pub requests: u64,
    /// CPU time used in it.
    pub cpu: Cpu,
    /// Resident memory at its end in KiB: the first process, all processes.
    pub rss_kib: (u64, u64),
    /// Latencies in nanoseconds, sorted.
    pub latencies: BTreeMap<Group, Vec<u64>>,
}

/// Why a row has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A side did not start, or lost a process.
    #[error(transparent)]
    Side(#[from] SideError),
    /// A client failed.
    #[error("the load on {side} failed")]
    Load {
        /// Which side.
        side: &'static str,
        /// What happened.
        source: LoadError,
    },
}

/// Runs `row` and summarises each of its metrics; `progress` hears of each finished pair.
///
/// Every run starts its processes anew: what memory layout and hash seeds do to one process is noise, too.
///
/// # Errors
///
/// The first thing that goes wrong: a measurement with failures in it is none.
pub fn run(row: &Row, pairs: usize, mut progress: impl FnMut(usize)) -> Result<Vec<Line>, RunError> {
    let workers = row.workers.unwrap_or_else(cpus::count);
    let mut samples = Vec::with_capacity(pairs);
    let mut runs = 0_u8;
    let mut sample = |side: &Side| {
        runs = runs.wrapping_add(1);
        sample(side, row, workers, runs)
    };
    for pair in 0..pairs {
        samples.push(match row.against {
            None => (sample(row.side)?, None),
            Some(against) if pair % 2 == 0 => {
                let measured = sample(row.side)?;
                (measured, Some(sample(against)?))
            }
            Some(against) => {
                let compared = sample(against)?;
                (sample(row.side)?, Some(compared))
            }
        });
        progress(pair + 1);
    }
    Ok(row.metrics.iter().map(|metric| line(row, metric, &samples)).collect())
}

fn sample(side: &Side, row: &Row, workers: u16, run: u8) -> Result<Sample, RunError> {
    let running = side.start(workers)?;
    let mut sample = Sample {
        ready_after: running.ready_after(),
        elapsed: Duration::ZERO,
        requests: 0,
        cpu: running.cpu()?,
        rss_kib: running.rss_kib()?,
        latencies: BTreeMap::new(),
    };
    if row.load == Load::None {
        return Ok(sample);
    }
    // A network of its own for each of the last 200 runs: no run waits for the ports that another left in TIME_WAIT.
    let network = 1 + run % 200;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let outcome = runtime.block_on(async {
        let per_worker = row.load.addresses_per_worker(workers);
        let addresses = load::balanced_addresses(running.address(), network, workers, per_worker).await?;
        load::run(running.address(), &row.load.clients(&addresses), row.timing, || (running.cpu(), running.rss_kib()))
            .await
    });
    let outcome = outcome.map_err(|source| RunError::Load { side: side.name, source })?;
    let ((before, _), (after, rss_kib)) = outcome.samples;
    let (before, after) = (before?, after?);
    sample.cpu = Cpu { first: after.first - before.first, all: after.all - before.all };
    sample.rss_kib = rss_kib?;
    sample.elapsed = outcome.elapsed;
    sample.requests = outcome.requests;
    sample.latencies = outcome.latencies;
    Ok(sample)
}

fn line(row: &Row, metric: &Metric, samples: &[(Sample, Option<Sample>)]) -> Line {
    let measured: Vec<f64> = samples.iter().map(|(sample, _)| (metric.value)(sample)).collect();
    let compared: Vec<f64> = samples.iter().filter_map(|(_, sample)| sample.as_ref()).map(metric.value).collect();
    let result: Vec<f64> = match metric.compare {
        Compare::Alone => measured.clone(),
        Compare::Ratio => measured.iter().zip(&compared).map(|(a, b)| a / b).collect(),
        Compare::Difference => measured.iter().zip(&compared).map(|(a, b)| a - b).collect(),
    };
    Line {
        row: row.name,
        metric: metric.name,
        compare: match metric.compare {
            Compare::Alone => "",
            Compare::Ratio => "÷",
            Compare::Difference => "−",
        },
        side: (row.side.name, Summary::of(&measured).median),
        against: row.against.map(|side| (side.name, Summary::of(&compared).median)),
        result: Summary::of(&result),
        pairs: samples.len(),
        bar: metric.bar,
    }
}
