//! A way around the framework, for messages that need none.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use super::Stream;
use crate::dispatch::handoff::guard::Guard;

/// Who may answer a connection's messages before its framework sees them.
pub(crate) trait Lane: fmt::Debug + Send {
    /// Whether it takes this message, all of which is here.
    fn takes(&mut self, message: &[u8]) -> bool;

    /// Goes on with the message that it has taken, until that is answered or the framework is to have it after all.
    fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Stream, guard: &mut Guard) -> Poll<io::Result<Passage>>;

    /// Writes what the client is to be told before anything else that its framework writes.
    fn poll_tell(&mut self, cx: &mut Context<'_>, stream: &mut Stream, guard: &mut Guard) -> Poll<io::Result<()>>;
}

/// What has become of a message that was taken.
#[derive(Debug)]
pub(crate) enum Passage {
    Answered,
    /// It is the framework's: nobody has seen it, or the framework knows what to say.
    Returned(Vec<u8>),
}

/// How much is read at once: most messages.
const READ: usize = 8 * 1024;

/// A connection's lane, and whether somebody is on it.
#[derive(Debug)]
pub(crate) struct Traffic {
    lane: Box<dyn Lane>,
    is_busy: bool,
    has_carried: bool,
    /// What the framework has still to read of a message that was returned.
    returned: Vec<u8>,
}

impl Traffic {
    pub(crate) fn new(lane: Box<dyn Lane>) -> Self {
        Self { lane, is_busy: false, has_carried: false, returned: Vec::new() }
    }

    /// As the guard's, of what is not taken.
    pub(crate) fn poll_read(
        &mut self,
        stream: &mut Stream,
        guard: &mut Guard,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.has_returned() {
                self.give(buf);
                return Poll::Ready(Ok(()));
            }
            if self.is_busy {
                let passage = ready!(self.lane.poll(cx, stream, guard))?;
                self.is_busy = false;
                if let Passage::Returned(message) = passage {
                    self.returned = message;
                    continue;
                }
            }
            let before = buf.filled().len();
            ready!(guard.poll_read(stream, cx, buf))?;
            if !guard.is_whole() || !self.lane.takes(&buf.filled()[before..]) {
                return Poll::Ready(Ok(()));
            }
            buf.set_filled(before);
            self.is_busy = true;
            self.has_carried = true;
        }
    }

    /// Whether the framework has still to read what was read before.
    pub(crate) fn has_returned(&self) -> bool {
        !self.returned.is_empty()
    }

    /// Gives it to the framework.
    pub(crate) fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.returned.len().min(buf.remaining());
        buf.put_slice(&self.returned[..length]);
        self.returned.drain(..length);
    }

    /// Carries what may take the lane until there is something else, which can be read then, or nothing more: `false`.
    pub(crate) fn poll_beyond(
        &mut self,
        stream: &mut Stream,
        guard: &mut Guard,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        let mut space = [MaybeUninit::uninit(); READ];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(self.poll_read(stream, guard, cx, &mut buf))?;
        let read = buf.filled();
        self.returned.splice(..0, read.iter().copied());
        Poll::Ready(Ok(!read.is_empty()))
    }

    /// Whether a message has been taken.
    pub(crate) fn has_carried(&self) -> bool {
        self.has_carried
    }

    /// Writes what goes before whatever the framework writes.
    pub(crate) fn poll_tell(
        &mut self,
        stream: &mut Stream,
        guard: &mut Guard,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.lane.poll_tell(cx, stream, guard)
    }

    /// Whether a message has been taken and is not answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy
    }
}
