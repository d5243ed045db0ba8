//! Runs a row: short runs of its sides in turn, the order swapped from pair to pair.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::load::{self, Group, Idle, LoadError, Outcome, Timing};
use crate::report::Line;
use crate::rows::{Compare, Load, Metric, Row};
use crate::side::{Cpu, Side, SideError};
use crate::stats::Summary;
use crate::{cpus, limits};

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
    /// Idle connections opened while memory was watched.
    pub grown: usize,
    /// By how much resident memory of all processes grew with them, in KiB.
    pub grown_kib: i64,
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
    /// The limit on descriptors could not be raised.
    #[error("failed to raise the limit on descriptors")]
    Limit(#[source] io::Error),
    /// That limit, the hard one, allows no row with many connections.
    #[error("not enough descriptors: {descriptors}; raise the hard limit (ulimit -Hn)")]
    FewDescriptors {
        /// The limit.
        descriptors: u64,
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
    let descriptors = limits::raise_descriptors().map_err(RunError::Limit)?;
    let mut samples = Vec::with_capacity(pairs);
    let mut runs = 0_u8;
    let against_load = row.against_load.unwrap_or(row.load);
    let mut sample = |side: &Side, load: Load| {
        runs = runs.wrapping_add(1);
        sample(side, load, row.timing, workers, Run { number: runs, descriptors })
    };
    for pair in 0..pairs {
        samples.push(match row.against {
            None => (sample(row.side, row.load)?, None),
            Some(against) if pair % 2 == 0 => {
                let measured = sample(row.side, row.load)?;
                (measured, Some(sample(against, against_load)?))
            }
            Some(against) => {
                let compared = sample(against, against_load)?;
                (sample(row.side, row.load)?, Some(compared))
            }
        });
        progress(pair + 1);
    }
    Ok(row.metrics.iter().map(|metric| line(row, metric, &samples)).collect())
}

/// What a run has for itself.
#[derive(Clone, Copy)]
struct Run {
    number: u8,
    /// How many may be open.
    descriptors: u64,
}

fn sample(side: &Side, load: Load, timing: Timing, workers: u16, run: Run) -> Result<Sample, RunError> {
    let running = side.start(workers)?;
    let mut sample = Sample {
        ready_after: running.ready_after(),
        elapsed: Duration::ZERO,
        requests: 0,
        cpu: running.cpu()?,
        rss_kib: running.rss_kib()?,
        latencies: BTreeMap::new(),
        grown: 0,
        grown_kib: 0,
    };
    if load == Load::None {
        return Ok(sample);
    }
    // A network of its own for each of the last 200 runs: no run waits for the ports that another left in TIME_WAIT.
    let network = 1 + run.number % 200;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(async {
        let failed = |source| RunError::Load { side: side.name, source };
        let target = running.address();
        let per_worker = load.identities_per_worker(workers);
        let identities = load::balanced(target, load.head(), network, workers, per_worker).await.map_err(failed)?;
        let measure = || Ok((running.cpu()?, running.rss_kib()?));
        match load.idle(&identities, &target.to_string()) {
            Some((wanted, requests)) => {
                let count = limits::connections_within(run.descriptors, wanted);
                if count == 0 {
                    return Err(RunError::FewDescriptors { descriptors: run.descriptors });
                }
                let idle = load::hold(target, &requests, network, count, timing.window, measure);
                sample.take_idle(idle.await.map_err(failed)?)?;
            }
            None => {
                let clients = load.clients(&identities, &target.to_string());
                sample.take(load::run(target, &clients, timing, measure).await.map_err(failed)?)?;
            }
        }
        Ok(sample)
    })
}

/// CPU time, and resident memory in KiB, if the processes are still there.
type Measured = Result<(Cpu, (u64, u64)), SideError>;

impl Sample {
    fn take(&mut self, outcome: Outcome<Measured>) -> Result<(), SideError> {
        let ((before, _), (after, rss_kib)) = (outcome.samples.0?, outcome.samples.1?);
        self.cpu = after.since(before);
        self.rss_kib = rss_kib;
        self.elapsed = outcome.elapsed;
        self.requests = outcome.requests;
        self.latencies = outcome.latencies;
        Ok(())
    }

    fn take_idle(&mut self, idle: Idle<Measured>) -> Result<(), SideError> {
        let [few, all, later] = idle.samples;
        let ((_, (_, few_kib)), (before, (_, all_kib)), (after, rss_kib)) = (few?, all?, later?);
        self.cpu = after.since(before);
        self.rss_kib = rss_kib;
        self.elapsed = idle.elapsed;
        self.grown = idle.grown;
        self.grown_kib = all_kib as i64 - few_kib as i64;
        Ok(())
    }
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
