//! One thread per stream that writes lines, so that nobody else ever blocks on a stopped terminal or a stuck pipe.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::watch;

use super::line_queue::{Batch, LineQueue, Offer};

/// How much may wait for one stream, in bytes.
const QUEUE_LIMIT: usize = 4 << 20;
/// What is kept free beyond that for the supervisor's own lines, in bytes.
const RESERVE: usize = 64 * 1024;
/// How long a worker's line waits for room before the stream counts as stuck.
const PATIENCE: Duration = Duration::from_secs(1);

/// Hands lines to the thread that writes them. A clone hands them to the same thread.
///
/// The thread starts with the first line and lives as long as the process.
#[derive(Clone)]
pub(crate) struct LineWriter {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Something was queued or written: for the thread and for blocking waits.
    changed: Condvar,
    /// Something was written: for tasks.
    progress: watch::Sender<()>,
    target: Box<dyn Target>,
    patience: Duration,
}

struct State {
    queue: LineQueue,
    running: bool,
}

trait Target: Send + Sync {
    fn write(&self, bytes: &[u8]) -> rustix::io::Result<usize>;
}

// Not through `std::io::Write`: the standard streams have locks and buffers of their own, and the application in
// this process may hold them.
impl<T: AsFd + Send + Sync> Target for T {
    fn write(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        match rustix::io::write(self, bytes) {
            // Whoever shares a terminal may have made it non-blocking.
            Err(Errno::AGAIN) => poll(&mut [PollFd::new(self, PollFlags::OUT)], None).map(|_| 0),
            result => result,
        }
    }
}

impl LineWriter {
    /// Writes to standard output.
    pub(crate) fn stdout() -> Self {
        Self::new("standard output", io::stdout(), QUEUE_LIMIT, PATIENCE)
    }

    /// Writes to standard error.
    pub(crate) fn stderr() -> Self {
        Self::new("standard error", io::stderr(), QUEUE_LIMIT, PATIENCE)
    }

    /// Writes to `target`, which messages call `name`, with at most `limit` bytes waiting.
    pub(crate) fn new<T>(name: &'static str, target: T, limit: usize, patience: Duration) -> Self
    where
        T: AsFd + Send + Sync + 'static,
    {
        let state = Mutex::new(State { queue: LineQueue::new(name, limit), running: false });
        let progress = watch::Sender::new(());
        let target = Box::new(target);
        Self { shared: Arc::new(Shared { state, changed: Condvar::new(), progress, target, patience }) }
    }

    /// Queues a worker's line, which ends with its line feed. Where there is no room it waits, which slows that
    /// worker to the pace of the stream; a stream that gives no room for a second is stuck: the line is dropped and
    /// counted, and so are those that follow, at once, until half of the queue is free.
    pub(crate) async fn line(&self, line: Vec<u8>) {
        let mut progress = self.shared.progress.subscribe();
        let give_up = tokio::time::Instant::now() + self.shared.patience;
        let mut waiting = line;
        while let Offer::Full(back) = self.offer(waiting) {
            waiting = back;
            if tokio::time::timeout_at(give_up, progress.changed()).await.is_err() {
                return self.shared.lock().queue.give_up();
            }
        }
    }

    fn offer(&self, line: Vec<u8>) -> Offer {
        let mut state = self.shared.lock();
        let offer = state.queue.offer(line);
        self.wake(state);
        offer
    }

    /// Queues one of the supervisor's own lines. It never waits; there is a reserve for these lines, and beyond that
    /// they are dropped and counted.
    pub(crate) fn insist(&self, line: Vec<u8>) {
        let mut state = self.shared.lock();
        state.queue.insist(line, RESERVE);
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if !state.running {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("sticky-output".to_owned()).spawn(move || shared.write());
            // Without a thread the lines wait; the next line tries again.
            state.running = thread.is_ok();
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until everything queued has come out. `false`: it had not by the deadline.
    pub(crate) async fn flush(&self, deadline: Instant) -> bool {
        let mut progress = self.shared.progress.subscribe();
        while !self.shared.lock().queue.is_idle() {
            if tokio::time::timeout_at(deadline.into(), progress.changed()).await.is_err() {
                return false;
            }
        }
        true
    }

    /// The same as [`Self::flush`], blocking this thread.
    pub(crate) fn flush_blocking(&self, deadline: Instant) -> bool {
        let state = self.shared.lock();
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.shared.changed.wait_timeout_while(state, left, |state| !state.queue.is_idle());
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// How many lines wait or were lost and not reported yet.
    pub(crate) fn outstanding(&self) -> u64 {
        self.shared.lock().queue.outstanding()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn write(&self) {
        let mut torn = false;
        loop {
            let batch = self.next_batch();
            let count = self.write_batch(&batch.bytes, torn);
            // After a failure in the middle of a line what comes next begins a new one.
            torn = match count {
                0 => torn,
                _ => batch.bytes[count - 1] != b'\n',
            };
            self.lock().queue.written(&batch, count);
            self.changed.notify_all();
            self.progress.send_replace(());
        }
    }

    fn next_batch(&self) -> Batch {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.queue.next_batch() {
                return batch;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes the batch; gives how much of it was written before an error, all of it if there was none.
    fn write_batch(&self, bytes: &[u8], torn: bool) -> usize {
        if torn && self.write_all(b"\n") == 0 {
            return 0;
        }
        self.write_all(bytes)
    }

    fn write_all(&self, bytes: &[u8]) -> usize {
        let mut count = 0;
        while count < bytes.len() {
            match self.target.write(&bytes[count..]) {
                Ok(written) => count += written,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::fd::OwnedFd;

    const SECOND: Duration = Duration::from_secs(1);

    fn writer_to_pipe(limit: usize, patience: Duration) -> (io::PipeReader, LineWriter) {
        let (reader, pipe) = io::pipe().unwrap();
        (reader, LineWriter::new("standard output", OwnedFd::from(pipe), limit, patience))
    }

    /// Reads to the line "end" with a pause after each line.
    fn read_lines(reader: io::PipeReader, pause: Duration) -> std::thread::JoinHandle<Vec<String>> {
        std::thread::spawn(move || {
            let lines = BufReader::with_capacity(1024, reader).lines().map(Result::unwrap);
            lines.take_while(|line| line != "end").inspect(|_| std::thread::sleep(pause)).collect()
        })
    }

    #[tokio::test]
    async fn a_stuck_pipe_loses_counted_lines_and_recovers() {
        let (reader, writer) = writer_to_pipe(64 * 1024, SECOND / 10);
        let text = format!("{:099}\n", 7).into_bytes();
        let begun = Instant::now();
        for _ in 0..5_000 {
            writer.line(text.clone()).await;
        }
        assert!(begun.elapsed() < 2 * SECOND, "only the first line that finds no room waits");
        assert!(!writer.flush(Instant::now() + SECOND / 10).await);
        assert!(!writer.flush_blocking(Instant::now() + SECOND / 10));
        assert!(writer.outstanding() > 2_000);

        let read = read_lines(reader, Duration::ZERO);
        assert!(writer.flush(Instant::now() + 5 * SECOND).await);
        writer.line(b"end\n".to_vec()).await;
        assert!(writer.flush_blocking(Instant::now() + SECOND));
        let lines = read.join().unwrap();
        let written = lines.len() - 1;
        let report = format!("[sticky] {} lines of worker output were lost while", 5_000 - written);
        assert!(lines[written].starts_with(&report), "{}", lines[written]);
        assert!((655..3_000).contains(&written), "at least what the queue holds: {written}");
    }

    #[tokio::test]
    async fn a_slow_reader_slows_the_worker_and_loses_nothing() {
        let (reader, writer) = writer_to_pipe(4 * 1024, 5 * SECOND);
        let read = read_lines(reader, Duration::from_micros(100));
        for number in 0..2_000 {
            writer.line(format!("{number:099}\n").into_bytes()).await;
        }
        writer.line(b"end\n".to_vec()).await;
        let numbers: Vec<usize> = read.join().unwrap().iter().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers, (0..2_000).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_non_blocking_stream_is_waited_for() {
        let (reader, pipe) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&pipe, true).unwrap();
        let writer = LineWriter::new("standard output", OwnedFd::from(pipe), 1 << 20, SECOND);
        for _ in 0..2_000 {
            writer.line(vec![b'x'; 99].into_iter().chain([b'\n']).collect()).await;
        }
        writer.insist(b"end\n".to_vec());
        assert_eq!(read_lines(reader, Duration::ZERO).join().unwrap().len(), 2_000);
    }

    #[tokio::test]
    async fn a_closed_pipe_holds_nobody_up() {
        let (reader, writer) = writer_to_pipe(1024, 5 * SECOND);
        drop(reader);
        for _ in 0..100 {
            writer.line(vec![b'\n'; 100]).await;
        }
        assert!(writer.flush(Instant::now() + SECOND).await);
        assert!(writer.outstanding() > 0);
    }
}
