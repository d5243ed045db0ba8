//! The workers that have metrics of their own, and asking them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::worker::exports::{Answer, HEAD, LONGEST, question};

/// How long workers have to tell: a scrape must not wait for one that is stopped.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Ways to the workers that tell something, by their processes' numbers.
#[derive(Default)]
pub(super) struct Exporters {
    /// Those that have come and were not asked yet.
    new: Mutex<Vec<(u64, OwnedFd)>>,
    /// One scrape at a time.
    known: tokio::sync::Mutex<BTreeMap<u64, Exporter>>,
}

/// A way to a worker.
struct Exporter {
    stream: UnixStream,
    /// What has been read and not been taken. A scrape that has given up leaves its answer to be skipped by the next.
    read: Vec<u8>,
    asked: u32,
}

impl Exporters {
    pub(super) fn add(&self, process: u64, socket: OwnedFd) {
        self.new.lock().unwrap_or_else(PoisonError::into_inner).push((process, socket));
    }

    /// What these processes have to tell; nothing of one that has ended, or does not answer in time.
    pub(super) async fn ask(&self, processes: &[u64]) -> BTreeMap<u64, String> {
        let mut known = self.known.lock().await;
        for (process, socket) in std::mem::take(&mut *self.new.lock().unwrap_or_else(PoisonError::into_inner)) {
            if let Ok(exporter) = Exporter::new(socket) {
                known.insert(process, exporter);
            }
        }
        let mut asking = JoinSet::new();
        for (process, mut exporter) in std::mem::take(&mut *known) {
            let is_wanted = processes.contains(&process);
            asking.spawn(async move {
                let answer = if is_wanted { timeout(ANSWER_TIME, exporter.ask()).await.ok() } else { Some(Ok(None)) };
                (process, exporter, answer)
            });
        }
        let mut told = BTreeMap::new();
        while let Some(Ok((process, exporter, answer))) = asking.join_next().await {
            match answer {
                // It has ended, or is of no use.
                Some(Err(_)) => continue,
                Some(Ok(Some(text))) => drop(told.insert(process, text)),
                Some(Ok(None)) | None => {}
            }
            known.insert(process, exporter);
        }
        told
    }
}

impl Exporter {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        let stream = std::os::unix::net::UnixStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok(Self { stream: UnixStream::from_std(stream)?, read: Vec::new(), asked: 0 })
    }

    /// May be given up at any time.
    async fn ask(&mut self) -> io::Result<Option<String>> {
        self.asked = self.asked.wrapping_add(1);
        self.stream.write_all(&question(self.asked)).await?;
        loop {
            while let Some((answer, length)) = self.whole()? {
                let text = self.read[HEAD..HEAD + length].to_vec();
                self.read.drain(..HEAD + length);
                if answer == self.asked {
                    return Ok(Some(String::from_utf8_lossy(&text).into_owned()));
                }
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Which question the answer is to that has been read as a whole, and how long it is.
    fn whole(&self) -> io::Result<Option<(u32, usize)>> {
        let Some(Answer { question, length }) = Answer::read(&self.read) else { return Ok(None) };
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok((self.read.len() >= HEAD + length).then_some((question, length)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream as Stream;

    use super::*;
    use crate::worker::exports::Exports;

    #[tokio::test]
    async fn workers_tell_what_they_have() {
        let exporters = Exporters::default();
        let exports = Exports::default();
        let (ours, theirs) = Stream::pair().unwrap();
        exports.set(Box::new(|| "a 1\n".repeat(100_000)));
        exports.serve(theirs.into()).unwrap();
        exporters.add(7, ours.into());
        for _ in 0..3 {
            assert_eq!(told(&exporters).await.len(), 400_000);
        }
        assert!(exporters.ask(&[8]).await.is_empty(), "only those are asked");
        exports.set(Box::new(|| panic!("a bug")));
        assert_eq!(told(&exporters).await, "");
        exports.set(Box::new(|| "x".repeat(LONGEST + 1)));
        assert_eq!(told(&exporters).await, "");
        exports.set(Box::new(|| "b 2\n".to_owned()));
        assert_eq!(told(&exporters).await, "b 2\n");
    }

    /// What process 7 has to tell, asked again on a machine that is too busy to tell it in time.
    async fn told(exporters: &Exporters) -> String {
        for _ in 0..60 {
            if let Some(told) = exporters.ask(&[7]).await.remove(&7) {
                return told;
            }
        }
        panic!("it has told nothing in a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_late_is_not_waited_for_and_its_answer_is_not_taken_for_another() {
        let exporters = Exporters::default();
        let (ours, mut theirs) = Stream::pair().unwrap();
        exporters.add(7, ours.into());
        assert!(exporters.ask(&[7]).await.is_empty());
        let mut asked = [0; 4];
        theirs.read_exact(&mut asked).unwrap();
        theirs.write_all(&Answer::head(1, 4)).unwrap();
        theirs.write_all(b"late").unwrap();
        theirs.write_all(&Answer::head(2, 3)).unwrap();
        theirs.write_all(b"new").unwrap();
        assert_eq!(exporters.ask(&[7]).await[&7], "new");
        drop(theirs);
        assert!(exporters.ask(&[7]).await.is_empty());
        assert!(exporters.known.lock().await.is_empty(), "it is forgotten");
    }
}
