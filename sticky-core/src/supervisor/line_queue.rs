//! What waits to be written to one stream: bounded, and it counts what did not fit. Pure: no clock, no I/O.

use std::collections::VecDeque;

/// Lines are joined into writes of about this many bytes.
const BATCH: usize = 64 * 1024;

enum Entry {
    Line(Vec<u8>),
    Lost(u64),
}

/// What [`LineQueue::offer`] did with a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It will be written.
    Taken,
    /// There is no room now; waiting may help.
    Full(Vec<u8>),
    /// It was dropped and counted: the stream has been stuck for a while.
    Lost,
}

/// Bytes to be written in one go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Whole lines, each with its line feed.
    pub(crate) bytes: Vec<u8>,
    /// How many lost lines it reports; 0 for a batch of ordinary lines.
    reports: u64,
}

/// The queue of one stream.
pub(crate) struct LineQueue {
    stream: &'static str,
    limit: usize,
    entries: VecDeque<Entry>,
    /// Waiting bytes, the batch that is being written included.
    bytes: usize,
    writing: bool,
    lost: u64,
    /// A line waited in vain: no more waiting until half of the queue is free.
    jammed: bool,
    /// The last write failed: do not report losses until one succeeds, or that would spin.
    failing: bool,
}

impl LineQueue {
    /// A queue of at most `limit` bytes for the stream of that name ("standard output").
    pub(crate) fn new(stream: &'static str, limit: usize) -> Self {
        let entries = VecDeque::new();
        Self { stream, limit, entries, bytes: 0, writing: false, lost: 0, jammed: false, failing: false }
    }

    /// Puts a line, which ends with its line feed, at the end of the queue.
    pub(crate) fn offer(&mut self, line: Vec<u8>) -> Offer {
        match self.offer_within(line, self.limit) {
            Offer::Full(_) if self.jammed => {
                self.lose();
                Offer::Lost
            }
            offer => offer,
        }
    }

    /// Puts a line that shall not wait at the end of the queue; `reserve` more bytes are there for such lines.
    pub(crate) fn insist(&mut self, line: Vec<u8>, reserve: usize) {
        if let Offer::Full(_) = self.offer_within(line, self.limit + reserve) {
            self.lose();
        }
    }

    fn offer_within(&mut self, line: Vec<u8>, limit: usize) -> Offer {
        if self.bytes > 0 && self.bytes + line.len() > limit {
            return Offer::Full(line);
        }
        if self.lost > 0 {
            self.entries.push_back(Entry::Lost(std::mem::take(&mut self.lost)));
        }
        self.bytes += line.len();
        self.entries.push_back(Entry::Line(line));
        Offer::Taken
    }

    /// Counts a line that waited for room in vain. Those that follow are dropped at once while there is no room.
    pub(crate) fn give_up(&mut self) {
        self.jammed = true;
        self.lose();
    }

    fn lose(&mut self) {
        self.lost += 1;
    }

    /// What to write next. [`Self::written`] must follow before the next call.
    pub(crate) fn next_batch(&mut self) -> Option<Batch> {
        let batch = match self.entries.front() {
            Some(Entry::Line(_)) => self.join_lines(),
            Some(Entry::Lost(lost)) => {
                let lost = *lost;
                self.entries.pop_front();
                self.report(lost)
            }
            None if self.lost > 0 && !self.failing => {
                let lost = std::mem::take(&mut self.lost);
                self.report(lost)
            }
            None => return None,
        };
        self.writing = true;
        Some(batch)
    }

    fn join_lines(&mut self) -> Batch {
        let mut bytes = Vec::new();
        while let Some(Entry::Line(line)) = self.entries.front_mut() {
            if bytes.is_empty() {
                bytes = std::mem::take(line);
            } else if bytes.len() + line.len() <= BATCH {
                bytes.extend_from_slice(line);
            } else {
                break;
            }
            self.entries.pop_front();
        }
        Batch { bytes, reports: 0 }
    }

    fn report(&mut self, lost: u64) -> Batch {
        let lines = if lost == 1 { "1 line".to_owned() } else { format!("{lost} lines") };
        let verb = if lost == 1 { "was" } else { "were" };
        let text = format!("[sticky] {lines} of worker output {verb} lost while {} was blocked\n", self.stream);
        self.bytes += text.len();
        Batch { bytes: text.into_bytes(), reports: lost }
    }

    /// The batch is done: all of it was written, or writing failed after `count` of its bytes, and the lines not
    /// written whole are lost.
    pub(crate) fn written(&mut self, batch: &Batch, count: usize) {
        self.writing = false;
        self.bytes -= batch.bytes.len();
        let missing = &batch.bytes[count..];
        self.failing = !missing.is_empty();
        if self.failing && batch.reports > 0 {
            self.lost += batch.reports;
        } else {
            self.lost += missing.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        self.jammed &= self.bytes > self.limit / 2;
    }

    /// Whether nothing is left to write.
    pub(crate) fn is_idle(&self) -> bool {
        !self.writing && self.entries.is_empty() && (self.lost == 0 || self.failing)
    }

    /// How many lines have not come out: the waiting, those being written are not counted, and the lost.
    pub(crate) fn outstanding(&self) -> u64 {
        let count = |entry: &Entry| match entry {
            Entry::Line(_) => 1,
            Entry::Lost(lost) => *lost,
        };
        self.entries.iter().map(count).sum::<u64>() + self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(text: &str) -> Vec<u8> {
        format!("{text}\n").into_bytes()
    }

    fn write_all(queue: &mut LineQueue) -> String {
        let mut out = Vec::new();
        while let Some(batch) = queue.next_batch() {
            out.extend_from_slice(&batch.bytes);
            queue.written(&batch, batch.bytes.len());
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_full_queue_gives_the_line_back_until_somebody_gave_up() {
        let mut queue = LineQueue::new("standard output", 4);
        assert_eq!(queue.offer(line("abc")), Offer::Taken);
        assert_eq!(queue.offer(line("d")), Offer::Full(line("d")));
        queue.give_up();
        assert_eq!(queue.offer(line("e")), Offer::Lost);
        assert_eq!(queue.outstanding(), 3);
        let loss = "[sticky] 2 lines of worker output were lost while standard output was blocked\n";
        assert_eq!(write_all(&mut queue), format!("abc\n{loss}"));
        assert!(queue.is_idle());
        assert_eq!(queue.offer(line("abc")), Offer::Taken);
        assert_eq!(queue.offer(line("f")), Offer::Full(line("f")));
    }

    #[test]
    fn the_loss_is_reported_where_it_happened() {
        let mut queue = LineQueue::new("standard error", 6);
        queue.offer(line("ab"));
        queue.offer(line("cd"));
        queue.give_up();
        let first = queue.next_batch().unwrap();
        queue.written(&first, first.bytes.len());
        queue.offer(line("ef"));
        let loss = "[sticky] 1 line of worker output was lost while standard error was blocked\n";
        assert_eq!(write_all(&mut queue), format!("{loss}ef\n"));
    }

    #[test]
    fn a_batch_being_written_still_takes_room() {
        let mut queue = LineQueue::new("standard output", 4);
        queue.offer(line("abc"));
        let batch = queue.next_batch().unwrap();
        assert!(!queue.is_idle());
        assert_eq!(queue.offer(line("d")), Offer::Full(line("d")));
        queue.written(&batch, 4);
        assert_eq!(queue.offer(line("d")), Offer::Taken);
    }

    #[test]
    fn lines_that_shall_not_wait_have_a_reserve() {
        let mut queue = LineQueue::new("standard error", 4);
        queue.offer(line("abc"));
        queue.insist(line("d"), 2);
        queue.insist(line("e"), 2);
        assert!(write_all(&mut queue).starts_with("abc\nd\n[sticky] 1 line of"));
    }

    #[test]
    fn a_failing_stream_neither_spins_nor_forgets_the_count() {
        let mut queue = LineQueue::new("standard output", 100);
        queue.offer(line("ab"));
        queue.offer(line("cd"));
        let batch = queue.next_batch().unwrap();
        queue.written(&batch, 4); // "ab\n" and a torn "c"
        assert!(queue.next_batch().is_none());
        assert!(queue.is_idle());
        queue.offer(line("ef"));
        let report = queue.next_batch().unwrap();
        queue.written(&report, 0);
        let after = write_all(&mut queue);
        assert!(after.starts_with("ef\n[sticky] 1 line of"), "{after}");
    }

    #[test]
    fn jammed_ends_when_half_is_free() {
        let mut queue = LineQueue::new("standard output", 8);
        queue.offer(line(&"x".repeat(BATCH)));
        queue.give_up();
        assert!(queue.jammed);
        let big = queue.next_batch().unwrap();
        queue.written(&big, big.bytes.len());
        assert!(!queue.jammed);
    }

    proptest! {
        #[test]
        fn every_line_comes_out_or_is_counted(steps in proptest::collection::vec((0_u8..4, 0_usize..30), 0..200)) {
            let mut queue = LineQueue::new("standard output", 64);
            let (mut offered, mut out) = (0_u64, 0_u64);
            for (step, size) in steps {
                match step {
                    0 | 1 => {
                        offered += 1;
                        if let Offer::Full(_) = queue.offer(line(&"x".repeat(size))) {
                            queue.give_up();
                        }
                    }
                    _ => if let Some(batch) = queue.next_batch() {
                        let count = if step == 2 { batch.bytes.len() } else { size.min(batch.bytes.len()) };
                        queue.written(&batch, count);
                        if batch.reports == 0 {
                            out += batch.bytes[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
                        } else if count == batch.bytes.len() {
                            out += batch.reports;
                        }
                    }
                }
                prop_assert_eq!(out + queue.outstanding(), offered);
                prop_assert!(queue.bytes <= 64 + 128);
            }
        }
    }
}
