//! Finding clients that a program spreads evenly over its workers, by asking who answers them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;

use super::LoadError;
use super::client::connect;
use super::http::{Head, MAX_RESPONSE, exchange, header};

use crate::program::WORKER_HEADER;
use crate::random::Random;

/// Identities probed at most to fill every worker's share.
const MAX_PROBES: u32 = 8_192;
/// A probe's answer takes no longer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// All that a program may tell a client by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Where it connects from.
    pub source: Ipv4Addr,
    /// What its requests carry, where their heads have a place for it.
    pub key: String,
    /// Who answers it, in a program with workers.
    pub worker: Option<usize>,
}

impl Identity {
    /// The `number`th of a run; `network` is the run's, and the second byte of its addresses (127.network.x.y).
    fn numbered(network: u8, number: u32) -> Self {
        let mut random = Random::new(u64::from(network) << 32 | u64::from(number));
        // 20 characters, as many as the session ids of socket.io have.
        let key = format!("{:016x}{:04x}", random.number(), random.number() as u16);
        Self { source: address(network, number), key, worker: None }
    }
}

/// The `number`th address of a network. The first is 0.1: a network's own address is no client's.
pub(super) fn address(network: u8, number: u32) -> Ipv4Addr {
    let [_, _, high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(127, network, high, low)
}

/// Finds `per_worker` identities for each of `workers` workers. A program without workers gets them dealt round robin.
///
/// # Errors
///
/// A probe failed, or 8,192 identities did not do.
pub async fn balanced(
    target: SocketAddr,
    head: Head,
    network: u8,
    workers: u16,
    per_worker: usize,
) -> Result<Vec<Vec<Identity>>, LoadError> {
    let mut found = vec![Vec::new(); workers.into()];
    for probe in 0..MAX_PROBES {
        if found.iter().all(|identities| identities.len() == per_worker) {
            return Ok(found);
        }
        let mut identity = Identity::numbered(network, probe);
        let source_address = identity.source;
        let answered = timeout(PROBE_TIMEOUT, ask_worker(target, head, &identity)).await;
        identity.worker = answered
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| LoadError::Client { source_address, source })?;
        let worker = identity.worker.unwrap_or(probe as usize % found.len());
        if let Some(identities) = found.get_mut(worker).filter(|identities| identities.len() < per_worker) {
            identities.push(identity);
        }
    }
    Err(LoadError::Unspread { probes: MAX_PROBES, counts: found.iter().map(Vec::len).collect() })
}

async fn ask_worker(target: SocketAddr, head: Head, identity: &Identity) -> io::Result<Option<usize>> {
    let mut stream = connect(target, identity.source).await?;
    let request = head.get("/", &target.to_string(), &identity.key);
    let mut buffer = vec![0; MAX_RESPONSE];
    let answer = exchange(&mut stream, request.as_bytes(), &mut buffer).await?;
    Ok(worker_of(answer))
}

/// The worker that a response names.
pub(super) fn worker_of(response: &[u8]) -> Option<usize> {
    header(response, WORKER_HEADER)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_clients_of_a_run_are_alike_and_another_run_has_others() {
        let (one, other) = (Identity::numbered(1, 0), Identity::numbered(1, 1));
        assert_eq!(one.source, Ipv4Addr::new(127, 1, 0, 1));
        assert_eq!(Identity::numbered(1, 255).source, Ipv4Addr::new(127, 1, 1, 0));
        assert_ne!(one.key, other.key);
        assert_ne!(one.key, Identity::numbered(2, 0).key);
        assert_eq!(one, Identity::numbered(1, 0));
    }

    #[test]
    fn keys_have_the_form_of_session_ids() {
        let keys: Vec<_> = (0..1_000).map(|number| Identity::numbered(9, number).key).collect();
        assert!(keys.iter().all(|key| key.len() == 20 && key.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }

    #[test]
    fn a_program_without_workers_names_none() {
        assert_eq!(worker_of(b"HTTP/1.1 200 OK\r\nx-worker: 2\r\n\r\n"), Some(2));
        assert_eq!(worker_of(b"HTTP/1.1 200 OK\r\nx-worker: -\r\n\r\n"), None);
    }
}
