//! Keys in requests, and which worker each belongs to: learnt from the first answer, held to ever after.

use std::collections::{BTreeMap, BTreeSet};

use sticky_tests::cluster::PATIENCE;
use sticky_tests::{Client, Launch, Random, Request, Response, TestCluster};

use crate::bed::Bed;

/// Where a request carries its key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyIn {
    Header,
    Cookie,
    Query,
    Path,
}

impl KeyIn {
    /// The affinity's text.
    pub(crate) const fn affinity(self) -> &'static str {
        match self {
            Self::Header => "header:x-key",
            Self::Cookie => "cookie:session",
            Self::Query => "query:sid",
            Self::Path => "path:/count/{id}",
        }
    }

    /// A request that counts in the memory of the key's worker.
    pub(crate) fn count(self, key: &str) -> Request {
        match self {
            Self::Header => Request::post("/count/x", b"").header("x-key", key),
            Self::Cookie => Request::post("/count/x", b"").header("cookie", &format!("a=1; session={key}; b=2")),
            Self::Query => Request::post(format!("/count/x?a=1&sid={key}&b=2"), b""),
            Self::Path => Request::post(format!("/count/{key}"), b""),
        }
    }
}

/// A cluster whose key is the header `x-key`.
pub(crate) fn by_header(bed: &Bed, workers: u16) -> Launch {
    bed.launch().workers(workers).env("STICKY_AFFINITY", KeyIn::Header.affinity())
}

/// That many keys that nobody has used before.
pub(crate) fn fresh(random: &mut Random, count: usize) -> Vec<String> {
    (0..count).map(|_| format!("k{:016x}", random.draw())).collect()
}

/// A key and its worker.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) worker: u16,
}

impl Key {
    /// Asks a cluster that is keyed by header who owns that key.
    pub(crate) fn learn(client: &Client, name: String) -> Self {
        let mut connection = client.connect().expect("a connection");
        let answer = connection.exchange(&Request::get("/").header("x-key", &name)).expect("an answer");
        Self { name, worker: answer.worker() }
    }

    /// One key of each worker of a cluster that is keyed by header.
    pub(crate) fn of_each_worker(client: &Client, workers: u16) -> Vec<Self> {
        let mut random = Random::drawn();
        let mut found = BTreeMap::new();
        for name in fresh(&mut random, 500) {
            let key = Self::learn(client, name);
            found.insert(key.worker, key);
            if found.len() == usize::from(workers) {
                return found.into_values().collect();
            }
        }
        panic!("only these workers own keys: {found:?}");
    }

    /// The request with this key in its header.
    pub(crate) fn on(&self, request: Request) -> Request {
        request.header("x-key", &self.name)
    }

    /// That the answer is from the key's worker, and that the connection goes on.
    pub(crate) fn check(&self, answer: &Response) {
        assert_eq!(answer.worker(), self.worker, "{}: {answer:?}", self.name);
        assert!(!answer.announces_close(), "{}: {answer:?}", self.name);
    }
}

/// Who answers for each key, from the first answer on.
#[derive(Default)]
pub(crate) struct Owners {
    workers: BTreeMap<String, u16>,
}

impl Owners {
    /// Learns who owns this key, or holds the answer to what was learnt.
    pub(crate) fn check(&mut self, key: &str, answer: &Response) {
        let owner = *self.workers.entry(key.to_owned()).or_insert_with(|| answer.worker());
        assert_eq!(answer.worker(), owner, "{key} was answered by another worker: {answer:?}");
    }

    /// That these are exactly the workers `0..count`.
    pub(crate) fn are_all(&self, count: u16) {
        let found: BTreeSet<u16> = self.workers.values().copied().collect();
        assert_eq!(found, (0..count).collect(), "every worker owns keys");
    }
}

/// What the supervisor says at the end about the connections that moved.
#[derive(Debug)]
pub(crate) struct Moves {
    counts: BTreeMap<String, u64>,
}

impl Moves {
    /// Ends the cluster and reads its line, see [`Self::after`].
    pub(crate) fn at_end_of(cluster: &TestCluster) -> Self {
        cluster.stop();
        Self::after(cluster)
    }

    /// Reads the line of a cluster that ends, which is not there when nothing moved. Nothing may have gone round,
    /// nothing may have been spoiled.
    pub(crate) fn after(cluster: &TestCluster) -> Self {
        // The supervisor's last word, after which no other line comes.
        cluster.events().expect("shut down: ", PATIENCE);
        let lines = cluster.events().all();
        let counted = ["sticky: handoff: ", "sticky: proxy: "];
        let counts = lines.iter().find_map(|line| counted.iter().find_map(|start| line.split_once(start)));
        let counts = counts.map(|(_, counts)| counts);
        let count = |text: &str| {
            let (name, count) = text.trim().split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        let read: Option<_> = counts.into_iter().flat_map(|counts| counts.split(',')).map(count).collect();
        let moves = Self { counts: read.unwrap_or_else(|| panic!("{counts:?}")) };
        for never in ["loops", "spoiled", "too_large", "truncated", "version"] {
            assert_eq!(moves.count(never), 0, "{moves:?}");
        }
        moves
    }

    /// How often that happened.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// Checks that at least so many connections moved. To a proxy that is no need: it has made as many as it took.
    pub(crate) fn are_at_least(&self, bed: &Bed, least: u64) {
        let sent = self.sent();
        assert!(if bed.is_proxied() { sent > 0 } else { sent >= least }, "only {sent} moves");
    }

    /// How many connections moved, or were made by a proxy; each has arrived.
    pub(crate) fn sent(&self) -> u64 {
        assert_eq!(self.count("sent"), self.count("received"), "{self:?}");
        self.count("sent")
    }
}
