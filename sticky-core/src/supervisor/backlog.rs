//! Messages to a process that the kernel does not take just now. They keep their order, and copies of their descriptors.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// How many messages wait for one process. Nobody says that much to one that hears it.
const MOST: usize = 1024;

/// What waits to be said, the oldest first.
#[derive(Debug)]
pub(super) struct Backlog<M> {
    waiting: VecDeque<(M, Vec<OwnedFd>)>,
}

impl<M> Default for Backlog<M> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<M: Clone> Backlog<M> {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Keeps a message for later, behind those that wait.
    ///
    /// # Errors
    ///
    /// When too many wait, or this process is out of descriptors.
    pub(super) fn keep(&mut self, message: &M, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if self.waiting.len() >= MOST {
            return Err(io::Error::other(format!("{MOST} messages wait for it")));
        }
        let copies: io::Result<_> = descriptors.iter().map(BorrowedFd::try_clone_to_owned).collect();
        self.waiting.push_back((message.clone(), copies?));
        Ok(())
    }

    /// Sends what waits, until nothing is left or the first message that does not go; tells how many went.
    pub(super) fn send(
        &mut self,
        mut send: impl FnMut(&M, &[BorrowedFd<'_>]) -> io::Result<()>,
    ) -> (usize, io::Result<()>) {
        let mut sent = 0;
        while let Some((message, descriptors)) = self.waiting.front() {
            let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            if let Err(error) = send(message, &descriptors) {
                return (sent, Err(error));
            }
            self.waiting.pop_front();
            sent += 1;
        }
        (sent, Ok(()))
    }
}

/// Whether what could not be sent for this reason can be later: its reader has not come to it, there is no memory, or
/// this user has as many descriptors in flight as he may have open (see [`buffer_size`]).
///
/// [`buffer_size`]: crate::dispatch::handoff::channel::buffer_size
pub(super) fn passes(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::AGAIN | Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(messages: &[u32]) -> Backlog<u32> {
        let mut backlog = Backlog::default();
        messages.iter().for_each(|message| backlog.keep(message, &[]).unwrap());
        backlog
    }

    #[test]
    fn messages_go_in_order_and_stay_until_they_went() {
        let mut backlog = of(&[1, 2, 3]);
        let mut heard = Vec::new();
        let (sent, end) = backlog.send(|message, _| {
            if *message == 2 {
                return Err(Errno::TOOMANYREFS.into());
            }
            heard.push(*message);
            Ok(())
        });
        assert_eq!((sent, heard.as_slice()), (1, &[1][..]));
        assert!(passes(&end.unwrap_err()) && !backlog.is_empty());
        backlog.keep(&4, &[]).unwrap();
        let (sent, end) = backlog.send(|message, _| {
            heard.push(*message);
            Ok(())
        });
        assert_eq!((sent, end.is_ok(), backlog.is_empty()), (3, true, true));
        assert_eq!(heard, [1, 2, 3, 4]);
    }

    #[test]
    fn descriptors_are_kept_when_the_lender_closes_his() {
        let mut backlog = Backlog::default();
        let (reader, writer) = std::io::pipe().unwrap();
        backlog.keep(&1, &[writer.as_fd()]).unwrap();
        drop(writer);
        let (sent, end) = backlog.send(|_, descriptors| {
            rustix::io::write(descriptors[0], b"hello")?;
            Ok(())
        });
        assert_eq!((sent, end.is_ok()), (1, true));
        let text = std::io::read_to_string(reader).unwrap();
        assert_eq!(text, "hello", "and the copy is closed once it is sent");
    }

    #[test]
    fn there_is_an_end_to_it() {
        let mut backlog = of(&[7; MOST]);
        assert!(backlog.keep(&8, &[]).is_err());
        backlog.clear();
        assert!(backlog.is_empty() && backlog.keep(&8, &[]).is_ok());
    }

    #[test]
    fn only_what_can_pass_is_waited_for() {
        for errno in [Errno::AGAIN, Errno::TOOMANYREFS, Errno::NOBUFS, Errno::NOMEM] {
            assert!(passes(&errno.into()), "{errno}");
        }
        for errno in [Errno::PIPE, Errno::MSGSIZE, Errno::BADF, Errno::MFILE] {
            assert!(!passes(&errno.into()), "{errno}");
        }
        assert!(!passes(&io::ErrorKind::InvalidInput.into()));
    }
}
