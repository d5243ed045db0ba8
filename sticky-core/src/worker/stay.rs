//! What else a worker has to finish before its drain is over.

use tokio::sync::watch;

/// Keeps the worker's drain from being over until this is dropped, or the drain's time is up. From
/// [`Worker::stay`](crate::Worker::stay).
#[derive(Debug)]
#[must_use = "the drain waits for this until it is dropped"]
pub struct Stay {
    _held: watch::Receiver<()>,
}

/// Who stays.
#[derive(Debug)]
pub(super) struct Stays(watch::Sender<()>);

impl Stays {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    pub(super) fn one_more(&self) -> Stay {
        Stay { _held: self.0.subscribe() }
    }

    /// Waits until nobody stays.
    pub(super) async fn over(&self) {
        self.0.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_over_when_the_last_one_is() {
        let stays = Stays::new();
        stays.over().await;
        let (first, second) = (stays.one_more(), stays.one_more());
        drop(first);
        let mut over = std::pin::pin!(stays.over());
        assert!(poll_once(&mut over).await.is_pending());
        drop(second);
        over.await;
    }

    async fn poll_once<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
        std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
    }
}
