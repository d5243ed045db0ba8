//! Connections that say nothing, any more: what each of them costs a program.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::LoadError;
use super::client::{Request, connect};
use super::http::MAX_RESPONSE;
use super::probe::address;

/// How many are opened at a time.
const AT_A_TIME: usize = 64;
/// From the last answer to the measurement: the program puts away what opening took.
const SETTLE: Duration = Duration::from_millis(300);

/// What was sampled while the connections were there.
#[derive(Debug)]
pub struct Idle<T> {
    /// Connections opened between the first two samples.
    pub grown: usize,
    /// Time between the last two samples, in which nothing happened.
    pub elapsed: Duration,
    /// With a tenth of the connections, with all, and after a while.
    pub samples: [T; 3],
}

/// Opens `count` connections, with each of `requests` in turn, which may be upgrades, from addresses of their own in `network`, and lets them be.
///
/// What a program needs once, for its first connections, is no part of what one more costs: hence the tenth.
///
/// # Errors
///
/// The first that was not opened, or did not last.
pub async fn hold<T>(
    target: SocketAddr,
    requests: &Rc<[Request]>,
    network: u8,
    count: usize,
    window: Duration,
    sample: impl Fn() -> T,
) -> Result<Idle<T>, LoadError> {
    let tenth = count / 10;
    let mut streams = open(target, requests, network, 0..tenth).await?;
    sleep(SETTLE).await;
    let few = sample();
    streams.extend(open(target, requests, network, tenth..count).await?);
    sleep(SETTLE).await;
    let start = Instant::now();
    let all = sample();
    sleep(window).await;
    let elapsed = start.elapsed();
    let later = sample();
    match streams.iter().filter(|stream| !is_silent(stream)).count() {
        0 => Ok(Idle { grown: count - tenth, elapsed, samples: [few, all, later] }),
        lost => Err(LoadError::Lost { lost, count }),
    }
}

async fn open(
    target: SocketAddr,
    requests: &Rc<[Request]>,
    network: u8,
    numbers: std::ops::Range<usize>,
) -> Result<Vec<TcpStream>, LoadError> {
    let tasks = LocalSet::new();
    let openers = (0..AT_A_TIME).map(|first| {
        let (requests, numbers) = (Rc::clone(requests), numbers.clone().skip(first).step_by(AT_A_TIME));
        tasks.spawn_local(async move {
            let mut streams = Vec::new();
            for number in numbers {
                streams.push(open_one(target, &requests[number % requests.len()], network, number).await?);
            }
            Ok::<_, LoadError>(streams)
        })
    });
    let openers: Vec<_> = openers.collect();
    let mut streams = Vec::new();
    tasks
        .run_until(async {
            for opener in openers {
                streams.extend(opener.await.expect("an opener is neither cancelled nor does it panic")?);
            }
            Ok(streams)
        })
        .await
}

async fn open_one(target: SocketAddr, request: &Request, network: u8, number: usize) -> Result<TcpStream, LoadError> {
    let source_address = address(network, number as u32);
    let opened = async {
        let mut stream = connect(target, source_address).await?;
        // Only until it is open: 10,000 buffers would be the load's largest part.
        let mut buffer = vec![0; MAX_RESPONSE];
        request.open(&mut stream, &mut buffer).await?;
        Ok(stream)
    };
    opened.await.map_err(|source| LoadError::Client { source_address, source })
}

/// Open, and nothing came: no message, no end.
fn is_silent(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0; 16]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use axum::Router;
    use axum::routing::get;

    use super::*;
    use crate::load::upgrade;

    /// Holds 20 WebSockets of `router`.
    async fn held(router: Router) -> Result<Idle<u32>, LoadError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let upgrades = Rc::new([Request { text: upgrade(&target.to_string(), "key"), worker: None }]) as Rc<[_]>;
        let samples = Cell::new(0);
        let count = || {
            samples.set(samples.get() + 1);
            samples.get()
        };
        let idle = hold(target, &upgrades, 250, 20, Duration::ZERO, count).await;
        server.abort();
        idle
    }

    #[tokio::test]
    async fn all_but_a_tenth_are_opened_between_the_first_two_samples() {
        let idle = held(crate::program::router()).await.unwrap();
        assert_eq!((idle.grown, idle.samples), (18, [1, 2, 3]));
    }

    #[tokio::test]
    async fn a_websocket_that_ends_is_missed() {
        let ended = get(async |upgrade: axum::extract::WebSocketUpgrade| upgrade.on_upgrade(async |_| {}));
        let error = held(Router::new().route("/ws", ended)).await.unwrap_err();
        assert_eq!(error.to_string(), "20 of 20 idle connections did not stay so");
    }
}
