//! How transports are closed when their worker drains: in batches, so that clients who connect anew do not all come at once.
//!
//! To close one is not to end a session for good: the client connects anew, to a worker that stays.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use sticky_core::{Drain, Worker};

/// The time between two batches, if there is enough of it.
const BETWEEN: Duration = Duration::from_millis(100);

/// A batch is at least so large.
const SMALLEST_BATCH: usize = 25;

/// There are at most so many batches.
const MOST_BATCHES: usize = 100;

/// The drain of a worker, as its transports see it.
#[derive(Clone, Debug)]
pub(super) struct Farewell {
    drain: Drain,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// The transports that are open now.
    open: AtomicUsize,
    /// Those that have asked for their turn.
    asked: AtomicUsize,
}

/// The wait of one transport for its turn to be closed. While there is one the transport counts as open.
pub(super) struct Turn {
    wait: Pin<Box<dyn Future<Output = ()> + Send>>,
    _open: Open,
}

struct Open(Arc<Counts>);

impl Farewell {
    pub(super) fn new(worker: &Worker) -> Self {
        Self { drain: worker.drain(), counts: Arc::default() }
    }

    /// The turn of a transport that is open from now on.
    pub(super) fn turn(&self) -> Turn {
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        let open = Open(Arc::clone(&self.counts));
        let Self { drain, counts } = self.clone();
        let wait = Box::pin(async move {
            drain.started().await;
            let ticket = counts.asked.fetch_add(1, Ordering::Relaxed);
            let left = drain.deadline().map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
            // The other half is for what comes of it.
            tokio::time::sleep(delay(ticket, counts.open.load(Ordering::Relaxed), left / 2)).await;
        });
        Turn { wait, _open: open }
    }
}

impl Turn {
    /// Whether it has come. To be asked no more once it has.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.wait.as_mut().poll(context)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long the one with this number waits, of so many, if all of it may take so long.
fn delay(ticket: usize, open: usize, window: Duration) -> Duration {
    // Who has gone already was open, too.
    let all = open.max(ticket + 1);
    let batch = all.div_ceil(MOST_BATCHES).max(SMALLEST_BATCH);
    let batches = u32::try_from(all.div_ceil(batch)).unwrap_or(u32::MAX);
    let number = u32::try_from(ticket / batch).unwrap_or(u32::MAX);
    BETWEEN.min(window / batches).saturating_mul(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(12);

    fn delays(all: usize) -> Vec<u128> {
        (0..all).map(|ticket| delay(ticket, all, WINDOW).as_millis()).collect()
    }

    #[test]
    fn a_few_go_at_once() {
        assert_eq!(delays(25), [0; 25]);
    }

    #[test]
    fn more_go_in_batches() {
        let delays = delays(60);
        assert_eq!([delays[24], delays[25], delays[49], delays[50]], [0, 100, 100, 200]);
    }

    #[test]
    fn many_go_in_larger_batches_within_the_time_there_is() {
        let many = delays(100_000);
        assert!(many.is_sorted());
        assert_eq!((many[999], many[1_000], many[99_999]), (0, 100, 9_900));
        assert!((0..1_000).all(|ticket| delay(ticket, 1_000, Duration::from_secs(1)) < Duration::from_secs(1)));
        assert_eq!(delay(999, 1_000, Duration::ZERO), Duration::ZERO);
        assert!(delay(usize::MAX - 1, 1, WINDOW) <= WINDOW, "whatever was counted");
    }

    #[tokio::test]
    async fn nobody_has_a_turn_before_the_drain() {
        let farewell = Farewell::new(&Worker::detached());
        let mut turn = farewell.turn();
        assert!(turn.poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        assert_eq!(farewell.counts.open.load(Ordering::Relaxed), 1);
        drop(turn);
        assert_eq!(farewell.counts.open.load(Ordering::Relaxed), 0);
    }
}
