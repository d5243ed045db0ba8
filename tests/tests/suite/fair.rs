//! How far a fair random choice can stray from even shares.

/// The bounds that each worker's share of `clients` stays within, but for a probability of [`FALSE_ALARM`].
///
/// If every client's worker is drawn at random, one worker's count is binomial: `n` clients, probability `1/workers`.
/// The chance that any of the workers is outside is at most `workers` times the chance that one is (the union bound), so
/// the bounds cut off tails of `FALSE_ALARM / (2 * workers)` at each end. For 60 clients of 3 workers that is 1 to 44.
pub(crate) struct Fair {
    least: usize,
    most: usize,
}

/// How likely a fair choice fails the check.
const FALSE_ALARM: f64 = 1e-9;

impl Fair {
    /// The bounds for that many clients, each of which could be any worker's.
    pub(crate) fn choice(clients: usize, workers: u16) -> Self {
        let tail = FALSE_ALARM / (2.0 * f64::from(workers));
        let chances = binomial(clients, 1.0 / f64::from(workers));
        Self { least: cut_off(chances.iter(), tail), most: clients - cut_off(chances.iter().rev(), tail) }
    }

    /// That every count is within the bounds.
    pub(crate) fn check<'a>(&self, counts: impl Iterator<Item = &'a usize> + Clone) {
        let Self { least, most } = *self;
        let all: Vec<usize> = counts.copied().collect();
        assert!(all.iter().all(|count| (least..=most).contains(count)), "{all:?} are not all within {least}..={most}");
    }
}

/// The chance of each count from 0 to `n`.
fn binomial(n: usize, p: f64) -> Vec<f64> {
    let mut chances = vec![(1.0 - p).powi(i32::try_from(n).expect("few clients"))];
    for count in 0..n {
        let (left, reached) = ((n - count) as f64, (count + 1) as f64);
        chances.push(chances[count] * left / reached * p / (1.0 - p));
    }
    chances
}

/// How many counts at the beginning are together less likely than `tail`.
fn cut_off<'a>(chances: impl Iterator<Item = &'a f64>, tail: f64) -> usize {
    let sums = chances.scan(0.0, |sum, chance| {
        *sum += chance;
        Some(*sum)
    });
    sums.take_while(|sum| *sum < tail).count()
}
