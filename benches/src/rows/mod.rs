//! The rows of the table. A new comparison is a new entry in `kernel.rs`, `handoff.rs`, `actix.rs` or `proxy.rs`, with its side or its load if they
//! are new.

mod actix;
mod clients;
mod handoff;
mod kernel;
mod metrics;
mod proxy;
mod sides;

use std::time::Duration;

pub use self::clients::{Keys, Load};
use crate::load::Timing;
use crate::pairs::Sample;
use crate::side::Side;

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
    /// What they do to the other side, if that is something else.
    pub against_load: Option<Load>,
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

/// Every row, in the table's order.
pub fn all() -> impl Iterator<Item = &'static Row> {
    kernel::ROWS.iter().chain(handoff::ROWS).chain(actix::ROWS).chain(proxy::ROWS)
}

/// Many short neighbouring runs bound a ratio more closely than a few long ones.
const SHORT: Timing = Timing { warm_up: Duration::from_millis(150), window: Duration::from_millis(350) };
/// For what happens seldom: a supervisor's tick, or a round of all connections of a thread that is blocked. And for
/// programs that compile themselves while they run.
const LONG: Timing = Timing { warm_up: Duration::from_millis(1_000), window: Duration::from_millis(2_000) };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_names_are_unique_and_have_a_family() {
        let mut names: Vec<_> = all().map(|row| row.name).collect();
        assert!(names.iter().all(|name| name.contains('/')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn only_what_is_compared_has_a_ratio_or_a_difference() {
        for row in all().filter(|row| row.against.is_none()) {
            assert!(row.metrics.iter().all(|metric| metric.compare == Compare::Alone), "{}", row.name);
        }
    }
}
