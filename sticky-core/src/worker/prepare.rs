//! What must be done once before the workers of a program start.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use crate::cluster::BoxError;

type Work = Pin<Box<dyn Future<Output = Result<(), BoxError>>>>;

/// What is to be done, once.
pub(crate) struct Preparation(Box<dyn FnOnce() -> Work + Send>);

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error("it was not done within {0:?} (prepare_timeout, STICKY_PREPARE_TIMEOUT)")]
    Timeout(Duration),
    #[error("it panicked")]
    Panicked,
}

impl Preparation {
    pub(crate) fn new<F, Fut, E>(prepare: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + 'static,
        E: Into<BoxError>,
    {
        Self(Box::new(move || {
            let work = prepare();
            Box::pin(async move { work.await.map_err(Into::into) })
        }))
    }

    /// Does it now, on a thread and a runtime of its own: there may be a runtime here, and it cannot be waited in.
    pub(crate) fn run(self, timeout: Duration) -> Result<(), BoxError> {
        let Self(prepare) = self;
        let thread = std::thread::Builder::new().name("sticky-prepare".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let work = async { tokio::time::timeout(timeout, prepare()).await };
            let outcome = runtime.block_on(work);
            runtime.shutdown_background();
            outcome.unwrap_or_else(|_| Err(PrepareError::Timeout(timeout).into()))
        })?;
        thread.join().unwrap_or_else(|_| Err(PrepareError::Panicked.into()))
    }
}

impl fmt::Debug for Preparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preparation")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn outcome(preparation: Preparation, timeout: Duration) -> String {
        preparation.run(timeout).map_or_else(|error| error.to_string(), |()| "done".to_owned())
    }

    #[tokio::test]
    async fn it_is_done_inside_a_runtime_too() {
        let sleeps = Preparation::new(|| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<(), BoxError>(())
        });
        assert_eq!(outcome(sleeps, LONG), "done");
    }

    #[test]
    fn what_goes_wrong_is_said() {
        assert_eq!(outcome(Preparation::new(|| async { Err("no database") }), LONG), "no database");
        let panics = Preparation::new(|| async { if true { panic!("a bug") } else { Ok::<(), BoxError>(()) } });
        assert_eq!(outcome(panics, LONG), "it panicked");
        let hangs = Preparation::new(std::future::pending::<Result<(), BoxError>>);
        let expected = "it was not done within 10ms (prepare_timeout, STICKY_PREPARE_TIMEOUT)";
        assert_eq!(outcome(hangs, Duration::from_millis(10)), expected);
    }
}
