//! The application's own metrics, told to the admin process whenever that asks: on a thread of its own, so that a blocked event
//! loop can be seen in them.
//!
//! ```text
//! admin process ── the question's number, 4 bytes ──► worker
//!               ◄── that number, the text's length, 4 bytes each, the text ──
//! ```

#[cfg(cluster)]
use std::io::{self, Read as _, Write as _};
#[cfg(cluster)]
use std::os::fd::OwnedFd;
#[cfg(cluster)]
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use crate::notice;

/// The longest text that is passed on, in bytes.
pub(crate) const LONGEST: usize = 16 << 20;

/// How long an answer's head is.
pub(crate) const HEAD: usize = 8;

type Tell = Box<dyn Fn() -> String + Send>;

/// What a worker has to tell, if anything.
#[derive(Clone, Default)]
pub(crate) struct Exports {
    tell: Arc<Mutex<Option<Tell>>>,
}

/// What an answer is to, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) question: u32,
    pub(crate) length: usize,
}

/// A question as it is written.
pub(crate) fn question(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

impl Answer {
    /// The head of an answer as it is written.
    pub(crate) fn head(question: u32, length: u32) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&question.to_be_bytes());
        head[4..].copy_from_slice(&length.to_be_bytes());
        head
    }

    /// Reads it, if it is there as a whole.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        Some(Self { question: word(0)?, length: usize::try_from(word(4)?).ok()? })
    }
}

impl Exports {
    /// Has this tell from now on; answers whether nothing did before.
    pub(crate) fn set(&self, tell: Tell) -> bool {
        self.tell.lock().unwrap_or_else(PoisonError::into_inner).replace(tell).is_none()
    }

    /// Answers what is asked on this socket, on a thread, until its other side is gone.
    #[cfg(cluster)]
    pub(crate) fn serve(&self, socket: OwnedFd) -> io::Result<()> {
        let (exports, stream) = (self.clone(), UnixStream::from(socket));
        stream.set_nonblocking(false)?;
        let thread = std::thread::Builder::new().name("sticky-metrics".to_owned());
        // How it ends is how the admin process ends.
        thread.spawn(move || drop(exports.answer_all(stream))).map(drop)
    }

    #[cfg(cluster)]
    fn answer_all(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut question = [0; 4];
        loop {
            stream.read_exact(&mut question)?;
            let text = self.text();
            let length = u32::try_from(text.len()).unwrap_or_default();
            stream.write_all(&Answer::head(u32::from_be_bytes(question), length))?;
            stream.write_all(text.as_bytes())?;
        }
    }

    /// What there is to tell now; nothing where that fails.
    fn text(&self) -> String {
        let tell = self.tell.lock().unwrap_or_else(PoisonError::into_inner);
        let text = tell.as_ref().and_then(|tell| catch_unwind(AssertUnwindSafe(tell)).ok()).unwrap_or_default();
        if text.len() > LONGEST {
            notice::warn(format_args!("metrics of {} bytes are not passed on: at most {LONGEST}", text.len()));
            return String::new();
        }
        text
    }
}
