//! A connection that has left HTTP: its bytes are carried both ways until both sides have ended.

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::pool::Lease;

/// How long nothing may pass once the worker has said all: whether it still listens cannot be seen from here, and a client
/// has no reason to go on for ever.
const AFTER_END: Duration = Duration::from_secs(5);

/// How much is carried at once.
const PIECE: usize = 16 * 1024;

/// Carries bytes between both sides once either has let go of HTTP. With an `idle` time it ends when nothing has passed
/// in either direction for that long.
pub(super) async fn run(downstream: OnUpgrade, upstream: OnUpgrade, idle: Option<Duration>, _lease: Lease) {
    let (Ok(downstream), Ok(upstream)) = (downstream.await, upstream.await) else { return };
    if let Err(error) = carry(TokioIo::new(downstream), TokioIo::new(upstream), idle).await {
        tracing::debug!(target: "sticky", %error, "a tunnel ended early");
    }
}

async fn carry<A, B>(downstream: A, upstream: B, idle: Option<Duration>) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let last = Mutex::new(Instant::now());
    let (down_read, down_write) = split(downstream);
    let (up_read, up_write) = split(upstream);
    let has_ended = Notify::new();
    let answers = async {
        one_way(up_read, down_write, &last).await?;
        has_ended.notify_one();
        Ok(())
    };
    let both = async { tokio::try_join!(one_way(down_read, up_write, &last), answers).map(drop) };
    let silent = async {
        tokio::select! {
            () = silence(&last, idle) => {}
            () = has_ended.notified() => silence(&last, Some(idle.map_or(AFTER_END, |idle| idle.min(AFTER_END)))).await,
        }
    };
    tokio::select! {
        ended = both => ended,
        () = silent => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Carries what comes until the end of it, which is passed on.
async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    last: &Mutex<Instant>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        touch(last);
        to.write_all(&piece[..length]).await?;
        to.flush().await?;
        touch(last);
    }
}

fn touch(last: &Mutex<Instant>) {
    *last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
}

/// Ready when nothing has passed for so long.
async fn silence(last: &Mutex<Instant>, idle: Option<Duration>) {
    let Some(idle) = idle else { return std::future::pending().await };
    loop {
        let until = *last.lock().unwrap_or_else(PoisonError::into_inner) + idle;
        if until <= Instant::now() {
            return;
        }
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// A tunnel, and its two far ends.
    fn tunnel(idle: Option<Duration>) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
        let ((client, downstream), (upstream, worker)) = (duplex(64), duplex(64));
        (client, worker, tokio::spawn(carry(downstream, upstream, idle)))
    }

    #[tokio::test]
    async fn a_half_close_is_passed_on_and_the_other_half_goes_on() {
        let (mut client, mut worker, tunnel) = tunnel(None);
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        worker.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "question");
        worker.write_all(b"answer").await.unwrap();
        drop(worker);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "answer");
        assert!(tunnel.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_listens_for_ever_to_a_client_whose_worker_has_said_all() {
        let (mut client, mut worker, tunnel) = tunnel(None);
        worker.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        for _ in 0..3 {
            tokio::time::sleep(AFTER_END / 2).await;
            client.write_all(b"x").await.unwrap();
            worker.read_u8().await.unwrap();
        }
        assert_eq!(tunnel.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_of_both_directions() {
        let idle = Duration::from_secs(10);
        let (mut client, mut worker, tunnel) = tunnel(Some(idle));
        let begun = Instant::now();
        for _ in 0..5 {
            tokio::time::sleep(idle * 2 / 3).await;
            worker.write_all(b"x").await.unwrap();
            client.read_u8().await.unwrap();
        }
        assert_eq!(tunnel.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= idle * 13 / 3);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }
}
