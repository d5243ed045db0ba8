//! Statistics, without clocks or processes: medians, their bounds, percentiles, verdicts.

/// What many pairs say about one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The median of the values.
    pub median: f64,
    /// Bounds of the median, 95 % or more; absent with fewer than 6 values, which cannot bound it.
    pub bounds: Option<(f64, f64)>,
    /// The 10th and 90th percentile of the values.
    pub spread: (f64, f64),
}

/// Whether a bar ("at most this") was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The upper bound of the median is not above the bar.
    Met,
    /// The bar lies between the bounds: more pairs, or a quieter machine, would tell.
    Open,
    /// The lower bound of the median is above the bar.
    Missed,
}

impl Summary {
    /// Summarises `values`, in any order.
    ///
    /// # Panics
    ///
    /// When there are no values, or one is not a number.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(|a, b| a.partial_cmp(b).expect("every value is a number"));
        let bounds = median_rank(sorted.len()).map(|rank| (sorted[rank], sorted[sorted.len() - 1 - rank]));
        let spread = (percentile(&sorted, 0.1), percentile(&sorted, 0.9));
        Self { median: median(&sorted), bounds, spread }
    }

    /// Compares the bounds, not the median, with `bar`.
    pub fn verdict(&self, bar: f64) -> Verdict {
        match self.bounds {
            Some((_, upper)) if upper <= bar => Verdict::Met,
            Some((lower, _)) if lower > bar => Verdict::Missed,
            _ => Verdict::Open,
        }
    }
}

/// The value below which the `share` (0 to 1) of `sorted` lies, by nearest rank.
///
/// # Panics
///
/// When `sorted` is empty.
pub fn percentile<T: Copy>(sorted: &[T], share: f64) -> T {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The largest rank (from 0) which, counted from both ends of the sorted values, encloses the median with at least 95 %.
///
/// The number of values below the true median is binomial with one half, whatever the values' distribution is: so no
/// assumption about the noise, and no random resampling, is needed.
fn median_rank(count: usize) -> Option<usize> {
    let mut rank = None;
    let mut probability = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut below = probability;
    for next in 0..count / 2 {
        if below > 0.025 {
            break;
        }
        rank = Some(next);
        probability *= (count - next) as f64 / (next + 1) as f64;
        below += probability;
    }
    rank
}

/// The latencies that requests due every `interval` would have seen behind one that took `latency`, itself first.
///
/// A client that waits for an answer sends nothing meanwhile; without this a stall of a second counts as one slow
/// request, and the slower the server, the better its percentiles.
pub fn expected_latencies(latency: u64, interval: Option<u64>) -> impl Iterator<Item = u64> {
    let step = interval.unwrap_or(u64::MAX).max(1);
    std::iter::successors(Some(latency), move |&left| left.checked_sub(step).filter(|&left| left > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_published_tables() {
        // 1-based ranks of the distribution-free 95 % interval of a median.
        let table = [(5, None), (6, Some(1)), (10, Some(2)), (20, Some(6)), (40, Some(14)), (100, Some(40))];
        for (count, rank) in table {
            assert_eq!(median_rank(count).map(|rank| rank + 1), rank, "of {count}");
        }
        assert_eq!(median_rank(0), None);
    }

    #[test]
    fn summary_of_twenty_values_in_any_order() {
        let values: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        let summary = Summary::of(&values);
        assert_eq!(summary, Summary { median: 10.5, bounds: Some((6.0, 15.0)), spread: (2.0, 18.0) });
    }

    #[test]
    fn few_values_bound_nothing_and_decide_nothing() {
        let summary = Summary::of(&[1.0, 2.0, 3.0]);
        assert_eq!((summary.median, summary.bounds), (2.0, None));
        assert_eq!(summary.verdict(100.0), Verdict::Open);
    }

    #[test]
    fn verdict_needs_the_whole_interval_on_one_side() {
        let summary = Summary { median: 1.0, bounds: Some((0.9, 1.1)), spread: (0.8, 1.2) };
        assert_eq!(summary.verdict(1.1), Verdict::Met);
        assert_eq!(summary.verdict(1.0), Verdict::Open);
        assert_eq!(summary.verdict(0.9), Verdict::Open);
        assert_eq!(summary.verdict(0.89), Verdict::Missed);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile(&sorted, 0.5), 100);
        assert_eq!(percentile(&sorted, 0.99), 198);
        assert_eq!(percentile(&sorted, 0.0), 1);
        assert_eq!(percentile(&sorted, 1.0), 200);
    }

    #[test]
    fn a_stall_counts_for_every_request_that_was_due() {
        assert_eq!(expected_latencies(640, Some(250)).collect::<Vec<_>>(), [640, 390, 140]);
        assert_eq!(expected_latencies(500, Some(250)).collect::<Vec<_>>(), [500, 250]);
        assert_eq!(expected_latencies(640, None).collect::<Vec<_>>(), [640]);
    }
}
