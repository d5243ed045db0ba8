//! What the workers write to standard output and standard error.
//!
//! Either their descriptors are ours, untouched, or each of them is a pipe whose lines come out with the worker's
//! number in front: `[2] line`, and `[2]+ more` for what goes on after 1 MiB of one line. A task in the supervisor's
//! runtime reads each pipe; one thread per stream writes ([`LineWriter`]), so a stopped terminal stops nobody else.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::line_writer::LineWriter;
use super::lines::{Line, LineSplitter};
use crate::id::Post;
use crate::notice;

/// How many lines of standard error are kept as a process's last words.
const LAST_WORDS: usize = 20;
/// How much of each of these lines is kept, in bytes.
const LAST_WORD_LENGTH: usize = 1024;
/// How much is read from a pipe at once, in bytes.
const READ: usize = 16 * 1024;

/// How long it may take to stop reading: as long as a stuck stream holds up what is read.
const HALT_TIME: Duration = Duration::from_secs(2);

/// Where the workers' output goes; one for the whole cluster.
pub(crate) struct Output {
    stdout: Stream,
    stderr: Stream,
    pumps: Mutex<Vec<Weak<Pipes>>>,
}

/// Whether everything came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// All of it.
    Complete,
    /// The deadline came first, with this many lines still waiting or lost; 0 where a pipe could not be read to its
    /// end in time.
    Incomplete {
        /// Lines of both streams.
        lines: u64,
    },
}

#[derive(Clone)]
struct Stream {
    style: Style,
    writer: LineWriter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Inherited,
    Prefixed,
    Coloured,
}

impl Style {
    /// Each stream is judged by itself. `wanted`: the setting, `None` for "on a terminal".
    fn choose(wanted: Option<bool>, is_terminal: bool, no_colour: bool) -> Self {
        match (wanted.unwrap_or(is_terminal), is_terminal && !no_colour) {
            (false, _) => Self::Inherited,
            (true, false) => Self::Prefixed,
            (true, true) => Self::Coloured,
        }
    }
}

impl Output {
    /// Decides for each stream: `Some(true)` puts prefixes in front of lines, `Some(false)` leaves the descriptors
    /// alone, `None` puts them only where the stream is a terminal. Prefixes have a colour only on a terminal and only
    /// if `NO_COLOR` is unset or empty.
    pub(crate) fn choose(prefix: Option<bool>) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let stdout = Style::choose(prefix, io::stdout().is_terminal(), no_colour);
        let stderr = Style::choose(prefix, io::stderr().is_terminal(), no_colour);
        Self::new(
            Stream { style: stdout, writer: LineWriter::stdout() },
            Stream { style: stderr, writer: LineWriter::stderr() },
        )
    }

    fn new(stdout: Stream, stderr: Stream) -> Self {
        Self { stdout, stderr, pumps: Mutex::default() }
    }

    /// From now on the supervisor's own lines go through the thread that writes standard error, so that they come out
    /// between whole lines of the workers and a blocked standard error does not block who says them.
    pub(crate) fn carry_notices(&self) {
        let (writer, flusher) = (self.stderr.writer.clone(), self.stderr.writer.clone());
        notice::deliver_through(
            Box::new(move |line| writer.insist(line)),
            Box::new(move |deadline| flusher.flush_blocking(deadline)),
        );
    }

    /// Stops reading what processes write, so that somebody else can go on with it; `None` where that takes too long, and then
    /// everything is read as before. What they write meanwhile waits in their pipes.
    pub(super) async fn halt(&self) -> Option<Vec<HaltedPipe>> {
        let deadline = Instant::now() + HALT_TIME;
        let pumps: Vec<Arc<Pipes>> = lock(&self.pumps).iter().filter_map(Weak::upgrade).collect();
        pumps.iter().for_each(|pipes| pipes.set_halted(true));
        let mut have_all_halted = true;
        for pipes in &pumps {
            have_all_halted &= pipes.idle(deadline).await;
        }
        let halted: Vec<HaltedPipe> =
            pumps.iter().flat_map(|pipes| std::mem::take(&mut *lock(&pipes.resting))).collect();
        if have_all_halted {
            return Some(halted);
        }
        self.go_on(halted);
        None
    }

    /// Goes on reading what was halted.
    pub(super) fn go_on(&self, halted: Vec<HaltedPipe>) {
        let pumps: Vec<Arc<Pipes>> = lock(&self.pumps).iter().filter_map(Weak::upgrade).collect();
        pumps.iter().for_each(|pipes| pipes.set_halted(false));
        halted.into_iter().for_each(HaltedPipe::go_on);
    }

    /// Reads what another program has halted: the pipes of one process.
    ///
    /// # Errors
    ///
    /// What is given is no pipe.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O.
    pub(super) fn adopt(&self, pipes_of_one: Vec<(CarriedPipe, OwnedFd)>) -> io::Result<Pump> {
        let pipes = Arc::new(Pipes::default());
        for (carried, source) in pipes_of_one {
            let source = pipe::Receiver::from_owned_fd(source)?;
            let stream = if carried.is_stderr { &self.stderr } else { &self.stdout };
            *lock(&pipes.last_words) = carried.last_words.into_iter().map(String::into_bytes).collect();
            let keep = if carried.is_stderr { Keep::LastWords } else { Keep::Nothing };
            let begun = BASE64.decode(carried.begun).map_err(|_| io::ErrorKind::InvalidData)?;
            let splitter = LineSplitter::within(begun, carried.continues);
            let feed = Feed::new(carried.post, stream, splitter, &pipes, keep);
            pipes.ended.send_replace(carried.has_ended);
            let unsettled = (!carried.has_ended).then(|| Unsettled::new(&pipes));
            tokio::spawn(feed.pump(source, unsettled, Feeding::new(&pipes)));
        }
        lock(&self.pumps).push(Arc::downgrade(&pipes));
        Ok(Pump { pipes })
    }

    /// Waits until everything that was read has come out, or the time is up.
    pub(super) async fn flush_lines(&self, bound: Duration) -> bool {
        let deadline = Instant::now() + bound;
        let mut complete = true;
        for stream in [&self.stdout, &self.stderr] {
            complete &= stream.writer.flush(deadline).await;
        }
        complete
    }

    /// Standard output and standard error for a process of that slot. Drop the [`std::process::Command`] they went
    /// into once it is started: it holds the pipes open. `None` where both are inherited.
    ///
    /// # Errors
    ///
    /// No pipe could be made: no descriptors left.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time.
    pub(crate) fn stdio(&self, post: Post) -> io::Result<(Stdio, Stdio, Option<Pump>)> {
        let pipes = Arc::new(Pipes::default());
        let stdout = self.stdout.stdio(post, &pipes, Keep::Nothing)?;
        let stderr = self.stderr.stdio(post, &pipes, Keep::LastWords)?;
        // Only the tasks hold it now; none: both are inherited.
        if Arc::strong_count(&pipes) == 1 {
            return Ok((stdout, stderr, None));
        }
        let mut pumps = lock(&self.pumps);
        pumps.retain(|pump| pump.strong_count() > 0);
        pumps.push(Arc::downgrade(&pipes));
        Ok((stdout, stderr, Some(Pump { pipes })))
    }

    /// For the end: what processes have written until now is read, and everything read is written, or the time is up.
    /// Pipes that somebody still holds open are not waited for.
    pub(crate) async fn flush(&self, bound: Duration) -> Flushed {
        let deadline = Instant::now() + bound;
        let pumps: Vec<Arc<Pipes>> = lock(&self.pumps).iter().filter_map(Weak::upgrade).collect();
        let mut complete = true;
        for pump in &pumps {
            pump.ended.send_replace(true);
        }
        for pump in &pumps {
            complete &= pump.settled(deadline).await;
        }
        for stream in [&self.stdout, &self.stderr] {
            complete &= stream.writer.flush(deadline).await;
        }
        match complete {
            true => Flushed::Complete,
            false => Flushed::Incomplete { lines: self.stdout.writer.outstanding() + self.stderr.writer.outstanding() },
        }
    }
}

impl Stream {
    fn stdio(&self, post: Post, pipes: &Arc<Pipes>, keep: Keep) -> io::Result<Stdio> {
        if self.style == Style::Inherited {
            return Ok(Stdio::inherit());
        }
        let (reader, writer) = io::pipe()?;
        let source = pipe::Receiver::from_owned_fd(reader.into())?;
        let feed = Feed::new(post, self, LineSplitter::new(), pipes, keep);
        let unsettled = Some(Unsettled::new(pipes));
        tokio::spawn(feed.pump(source, unsettled, Feeding::new(pipes)));
        Ok(Stdio::from(writer))
    }
}

/// The output of one process. Dropping it says that the process has ended.
pub(crate) struct Pump {
    pipes: Arc<Pipes>,
}

impl Pump {
    /// The process has ended (call it after it was reaped): waits until what it had written was read, at most to the
    /// bound, and gives its last words. Its descendants may hold the pipes open; their lines go on coming out.
    pub(crate) fn finish(self, bound: Duration) -> impl Future<Output = Vec<String>> + 'static {
        let deadline = Instant::now() + bound;
        self.pipes.ended.send_replace(true);
        async move {
            self.pipes.settled(deadline).await;
            self.last_words()
        }
    }

    /// The last lines of standard error read so far: at most 20, oldest first, each cut at 1 KiB, without prefix.
    /// Empty where standard error is inherited.
    pub(crate) fn last_words(&self) -> Vec<String> {
        self.pipes.last_words()
    }
}

impl Pump {
    /// Whether this is a pipe of its process.
    pub(super) fn has(&self, pipe: &HaltedPipe) -> bool {
        Arc::ptr_eq(&self.pipes, &pipe.feed.pipes)
    }
}

/// A pipe that is not read just now.
pub(super) struct HaltedPipe {
    feed: Feed,
    source: pipe::Receiver,
    unsettled: Option<Unsettled>,
}

/// What another program has to know of a pipe to go on reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CarriedPipe {
    post: Post,
    is_stderr: bool,
    /// What has come of a line that is not complete, in base64.
    begun: String,
    continues: bool,
    last_words: Vec<String>,
    /// The process has ended, and somebody else holds the pipe.
    has_ended: bool,
}

impl HaltedPipe {
    fn go_on(self) {
        let Self { feed, source, unsettled } = self;
        let feeding = Feeding::new(&feed.pipes);
        tokio::spawn(feed.pump(source, unsettled, feeding));
    }

    pub(super) fn carried(&self) -> CarriedPipe {
        let Feed { splitter, post, pipes, keep, .. } = &self.feed;
        let (begun, continues) = splitter.begun();
        let is_stderr = *keep == Keep::LastWords;
        CarriedPipe {
            post: *post,
            is_stderr,
            begun: BASE64.encode(begun),
            continues,
            last_words: if is_stderr { pipes.last_words() } else { Vec::new() },
            has_ended: self.unsettled.is_none(),
        }
    }
}

impl AsFd for HaltedPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.pipes.ended.send_replace(true);
    }
}

/// What the tasks of one process and its [`Pump`] share.
#[derive(Default)]
struct Pipes {
    ended: watch::Sender<bool>,
    /// How many pipes were not yet read as far as the process wrote.
    unsettled: watch::Sender<usize>,
    last_words: Mutex<VecDeque<Vec<u8>>>,
    /// Somebody else is to go on reading.
    halted: watch::Sender<bool>,
    /// How many pipes are being read.
    fed: watch::Sender<usize>,
    /// Those that are not any more.
    resting: Mutex<Vec<HaltedPipe>>,
}

impl Pipes {
    async fn settled(&self, deadline: Instant) -> bool {
        let mut unsettled = self.unsettled.subscribe();
        let settled = unsettled.wait_for(|count| *count == 0);
        tokio::time::timeout_at(deadline.into(), settled).await.is_ok()
    }

    fn set_halted(&self, halted: bool) {
        self.halted.send_replace(halted);
    }

    /// Waits until nothing is read any more.
    async fn idle(&self, deadline: Instant) -> bool {
        let mut fed = self.fed.subscribe();
        let idle = fed.wait_for(|count| *count == 0);
        tokio::time::timeout_at(deadline.into(), idle).await.is_ok()
    }

    fn last_words(&self) -> Vec<String> {
        lock(&self.last_words).iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    fn remember(&self, line: &[u8]) {
        let mut words = lock(&self.last_words);
        if words.len() == LAST_WORDS {
            words.pop_front();
        }
        words.push_back(line[..line.len().min(LAST_WORD_LENGTH)].to_vec());
    }
}

/// Counts a pipe as unsettled until dropped.
struct Unsettled(Arc<Pipes>);

impl Unsettled {
    fn new(pipes: &Arc<Pipes>) -> Self {
        pipes.unsettled.send_modify(|count| *count += 1);
        Self(Arc::clone(pipes))
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.0.unsettled.send_modify(|count| *count -= 1);
    }
}

/// Counts a pipe as read until dropped.
struct Feeding(Arc<Pipes>);

impl Feeding {
    fn new(pipes: &Arc<Pipes>) -> Self {
        pipes.fed.send_modify(|count| *count += 1);
        Self(Arc::clone(pipes))
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        self.0.fed.send_modify(|count| *count -= 1);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    LastWords,
}

/// From the bytes of one pipe to lines in the writer's queue.
struct Feed {
    post: Post,
    splitter: LineSplitter,
    prefix: Prefix,
    writer: LineWriter,
    pipes: Arc<Pipes>,
    keep: Keep,
}

impl Feed {
    fn new(post: Post, stream: &Stream, splitter: LineSplitter, pipes: &Arc<Pipes>, keep: Keep) -> Self {
        let prefix = Prefix::new(post, stream.style == Style::Coloured);
        Self { post, splitter, prefix, writer: stream.writer.clone(), pipes: Arc::clone(pipes), keep }
    }

    async fn pump(mut self, source: pipe::Receiver, mut unsettled: Option<Unsettled>, feeding: Feeding) {
        let (mut ended, mut halted) = (self.pipes.ended.subscribe(), self.pipes.halted.subscribe());
        let mut buffer = vec![0; READ];
        loop {
            tokio::select! {
                biased;
                () = becomes_true(&mut halted) => return self.rest(source, unsettled, feeding),
                () = becomes_true(&mut ended), if unsettled.is_some() => {
                    self.drain(&source, &mut buffer).await;
                    unsettled = None;
                }
                _ = source.readable() => match source.try_read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => self.bytes(&buffer[..count]).await,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                },
            }
            // One chunk a turn: a worker that never stops writing must not starve the supervisor's loop.
            tokio::task::yield_now().await;
        }
        self.end_line().await;
    }

    /// Leaves the pipe to whoever has asked for it.
    fn rest(self, source: pipe::Receiver, unsettled: Option<Unsettled>, feeding: Feeding) {
        let pipes = Arc::clone(&self.pipes);
        lock(&pipes.resting).push(HaltedPipe { feed: self, source, unsettled });
        drop(feeding);
    }

    /// Reads what is in the pipe now, and not more: somebody else may go on writing. Past tokio's readiness, which
    /// may not have seen the last bytes yet.
    async fn drain(&mut self, source: &pipe::Receiver, buffer: &mut [u8]) {
        let mut left = rustix::io::ioctl_fionread(source).unwrap_or(0) as usize;
        while left > 0 {
            let most = left.min(buffer.len());
            match rustix::io::read(source, &mut buffer[..most]) {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    left -= count;
                    self.bytes(&buffer[..count]).await;
                }
            }
        }
        self.end_line().await;
    }

    async fn bytes(&mut self, mut input: &[u8]) {
        while let Some(line) = self.splitter.next_line(&mut input) {
            self.line(&line).await;
        }
    }

    async fn end_line(&mut self) {
        if let Some(line) = self.splitter.finish() {
            self.line(&line).await;
        }
    }

    async fn line(&self, line: &Line) {
        if self.keep == Keep::LastWords {
            self.pipes.remember(&line.bytes);
        }
        self.writer.line(self.prefix.put_before(line)).await;
    }
}

async fn becomes_true(flag: &mut watch::Receiver<bool>) {
    // An error cannot be: whoever listens holds the sender too.
    drop(flag.wait_for(|flag| *flag).await);
}

/// What comes in front of a worker's lines.
struct Prefix {
    begins: String,
    continues: String,
}

impl Prefix {
    fn new(post: Post, coloured: bool) -> Self {
        let (name, number) = match post {
            Post::Worker(slot) => (slot.to_string(), slot.get()),
            Post::Proxy(number) => (post.to_string(), number),
            Post::Preparation => ("prepare".to_owned(), 0),
            Post::Admin => ("admin".to_owned(), 0),
            Post::Trial => ("trial".to_owned(), 0),
        };
        if !coloured {
            return Self { begins: format!("[{name}] "), continues: format!("[{name}]+ ") };
        }
        // Cyan, yellow, green, magenta, blue, bright cyan: neighbours differ, red stays for errors.
        let colour = [36, 33, 32, 35, 34, 96][usize::from(number) % 6];
        let paint = |text: String| format!("\x1b[{colour}m{text}\x1b[0m ");
        Self { begins: paint(format!("[{name}]")), continues: paint(format!("[{name}]+")) }
    }

    fn put_before(&self, line: &Line) -> Vec<u8> {
        let prefix = if line.continues { &self.continues } else { &self.begins };
        [prefix.as_bytes(), &line.bytes, b"\n"].concat()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Child, Command};

    use proptest::prelude::*;

    const BOUND: Duration = Duration::from_secs(5);
    const WORKER: Post = Post::Worker(crate::id::WorkerId::new(2));

    /// An output whose both streams go into pipes of ours, with prefixes.
    fn piped() -> (Output, io::PipeReader, io::PipeReader) {
        let (stdout, to_stdout) = io::pipe().unwrap();
        let (stderr, to_stderr) = io::pipe().unwrap();
        let stream = |name, pipe| Stream {
            style: Style::Prefixed,
            writer: LineWriter::new(name, OwnedFd::from(pipe), 256 * 1024, Duration::from_millis(200)),
        };
        (Output::new(stream("standard output", to_stdout), stream("standard error", to_stderr)), stdout, stderr)
    }

    fn shell(output: &Output, script: &str) -> (Child, Pump) {
        let (stdout, stderr, pump) = output.stdio(WORKER).unwrap();
        let child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        (child, pump.unwrap())
    }

    /// What has come out of it by now.
    fn read_now(mut reader: io::PipeReader) -> Vec<u8> {
        let mut out = vec![0; rustix::io::ioctl_fionread(&reader).unwrap() as usize];
        reader.read_exact(&mut out).unwrap();
        out
    }

    async fn reap(mut child: Child) {
        tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    }

    #[test]
    fn each_stream_is_judged_by_itself() {
        use Style::{Coloured, Inherited, Prefixed};
        assert_eq!(Style::choose(None, true, false), Coloured);
        assert_eq!(Style::choose(None, true, true), Prefixed);
        assert_eq!(Style::choose(None, false, false), Inherited);
        assert_eq!(Style::choose(Some(true), false, false), Prefixed);
        assert_eq!(Style::choose(Some(false), true, false), Inherited);
    }

    #[test]
    fn a_prefix_is_coloured_and_the_line_is_not() {
        let line = Line { bytes: b"a\xff\r".to_vec(), continues: true };
        assert_eq!(Prefix::new(WORKER, false).put_before(&line), b"[2]+ a\xff\r\n");
        assert_eq!(Prefix::new(WORKER, true).put_before(&line), b"\x1b[32m[2]+\x1b[0m a\xff\r\n");
    }

    #[tokio::test]
    async fn nothing_is_pumped_where_both_are_inherited() {
        assert!(Output::choose(Some(false)).stdio(WORKER).unwrap().2.is_none());
    }

    #[tokio::test]
    async fn lines_of_both_streams_come_out_where_they_were_written() {
        let (output, stdout, stderr) = piped();
        let (child, pump) = shell(&output, "printf 'a\\nb'; printf 'c\\r\\n\\n\\377' >&2");
        reap(child).await;
        assert_eq!(pump.finish(BOUND).await, ["c\r", "", "\u{fffd}"]);
        assert_eq!(output.flush(BOUND).await, Flushed::Complete);
        assert_eq!(read_now(stdout), b"[2] a\n[2] b\n");
        assert_eq!(read_now(stderr), b"[2] c\r\n[2] \n[2] \xff\n");
    }

    #[tokio::test]
    async fn a_grandchild_with_the_pipe_holds_nobody_up() {
        let (output, stdout, _stderr) = piped();
        let (child, pump) = shell(&output, "(sleep 3; echo late) & printf 'first\\nlast words' | tee /dev/stderr");
        let begun = Instant::now();
        reap(child).await;
        assert_eq!(pump.finish(BOUND).await, ["first", "last words"]);
        assert_eq!(output.flush(BOUND).await, Flushed::Complete);
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert_eq!(read_now(stdout), b"[2] first\n[2] last words\n");
    }

    #[tokio::test]
    async fn last_words_are_the_last_twenty_lines() {
        let (output, _stdout, _stderr) = piped();
        let (child, pump) = shell(&output, "for i in $(seq 50); do echo $i >&2; done");
        reap(child).await;
        assert_eq!(pump.finish(BOUND).await, (31..=50).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_blocked_stream_stops_no_worker_and_no_supervisor() {
        let (output, stdout, _stderr) = piped();
        let (child, pump) = shell(&output, "seq 200000; echo done >&2");
        tokio::time::timeout(BOUND, reap(child)).await.expect("the worker goes on");
        assert_eq!(pump.finish(BOUND).await, ["done"]);
        let flushed = output.flush(Duration::from_millis(100)).await;
        assert!(matches!(flushed, Flushed::Incomplete { lines: 10_000.. }), "{flushed:?}");

        let read = std::thread::spawn(move || {
            let lines = io::BufRead::lines(io::BufReader::new(stdout)).map(Result::unwrap);
            lines.take_while(|line| line != "[2] recovered").collect::<Vec<_>>()
        });
        assert_eq!(output.flush(BOUND).await, Flushed::Complete);
        reap(shell(&output, "echo recovered").0).await;
        assert_eq!(output.flush(BOUND).await, Flushed::Complete);
        let mut lines = tokio::task::spawn_blocking(|| read.join().unwrap()).await.unwrap();
        let report = lines.pop().unwrap();
        assert_eq!(
            report,
            format!(
                "[sticky] {} lines of worker output were lost while standard output was blocked",
                200_000 - lines.len()
            )
        );
        assert!(lines.iter().enumerate().all(|(index, line)| *line == format!("[2] {}", index + 1)));
    }

    /// In the middle of a line, while the process goes on writing: by the same program again, and by another.
    #[tokio::test]
    async fn another_goes_on_reading_where_one_has_halted() {
        let (output, stdout, _stderr) = piped();
        let (mut child, pump) = shell(&output, "printf 'one\\ntw'; read line; echo o; echo three; echo last >&2");
        let mut go_on = child.stdin.take();
        let mut halted = Vec::new();
        let is_halfway = |halted: &[HaltedPipe]| halted.iter().any(|pipe| pipe.feed.splitter.begun().0 == b"tw");
        while !is_halfway(&halted) {
            output.go_on(halted);
            tokio::task::yield_now().await;
            halted = output.halt().await.unwrap();
        }
        assert!(halted.len() == 2 && halted.iter().all(|pipe| pump.has(pipe)));
        let text = serde_json::to_string(&halted.iter().map(HaltedPipe::carried).collect::<Vec<_>>()).unwrap();
        let carried: Vec<CarriedPipe> = serde_json::from_str(&text).unwrap();
        let pipes = halted.iter().map(|pipe| pipe.as_fd().try_clone_to_owned().unwrap());
        drop(go_on.take());
        let (other, next_stdout, _next_stderr) = piped();
        let next = other.adopt(carried.into_iter().zip(pipes).collect()).unwrap();
        reap(child).await;
        assert_eq!(next.finish(BOUND).await, ["last"]);
        assert_eq!(other.flush(BOUND).await, Flushed::Complete);
        assert_eq!(read_now(next_stdout), b"[2] two\n[2] three\n");
        assert!(output.flush_lines(BOUND).await);
        assert_eq!(read_now(stdout), b"[2] one\n");
    }

    #[tokio::test]
    async fn a_silent_pump_costs_nothing_after_its_process() {
        let (output, _stdout, _stderr) = piped();
        let (child, pump) = shell(&output, "true");
        reap(child).await;
        drop(pump.finish(BOUND).await);
        output.flush(BOUND).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(lock(&output.pumps)[0].strong_count(), 0, "the tasks have ended");
    }

    proptest! {
        #[test]
        fn lines_without_their_prefixes_are_what_was_written(
            reads in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'['), any::<u8>()], 0..40), 0..12),
        ) {
            let (mut splitter, prefix) = (LineSplitter::new(), Prefix::new(WORKER, false));
            let mut out = Vec::new();
            for read in &reads {
                let mut input = read.as_slice();
                while let Some(line) = splitter.next_line(&mut input) {
                    out.extend(prefix.put_before(&line));
                }
            }
            out.extend(splitter.finish().into_iter().flat_map(|line| prefix.put_before(&line)));
            let mut expected = reads.concat();
            if !expected.is_empty() && !expected.ends_with(b"\n") {
                expected.push(b'\n');
            }
            let lines = out.split_inclusive(|byte| *byte == b'\n');
            let bare: Vec<u8> = lines.flat_map(|line| line.strip_prefix(b"[2] ").unwrap()).copied().collect();
            prop_assert_eq!(bare, expected);
        }
    }
}
