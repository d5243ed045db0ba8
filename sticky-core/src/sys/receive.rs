//! Receiving into room that nothing has been written to.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use rustix::net::{RecvFlags, recv};
use tokio::io::ReadBuf;

/// Receives up to `at_most` bytes behind what is filled of `buf`, without waiting: how many.
///
/// To write zeros there first, as one would have to without this, costs more than to receive a short message.
pub(crate) fn receive(socket: impl AsFd, buf: &mut ReadBuf<'_>, at_most: usize) -> rustix::io::Result<usize> {
    // SAFETY: only the kernel writes there, and only bytes that have come.
    let room = unsafe { buf.unfilled_mut() };
    let at_most = at_most.min(room.len());
    let ((received, _), _) = recv(socket, &mut room[..at_most], RecvFlags::DONTWAIT)?;
    let length = received.len();
    // SAFETY: so many bytes behind what was filled have been written by the kernel.
    unsafe { buf.assume_init(length) };
    buf.advance(length);
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::mem::MaybeUninit;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_has_come_is_behind_what_was_there() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); 8];
        let mut buf = ReadBuf::uninit(&mut space);
        buf.put_slice(b"a");
        assert_eq!(receive(&ours, &mut buf, 3), Err(rustix::io::Errno::AGAIN));
        theirs.write_all(b"bcdefghijk").unwrap();
        assert_eq!(receive(&ours, &mut buf, 3), Ok(3));
        assert_eq!(buf.filled(), b"abcd");
        assert_eq!(receive(&ours, &mut buf, 100), Ok(4), "as much as there is room for");
        assert_eq!(buf.filled(), b"abcdefgh");
        assert_eq!(receive(&ours, &mut buf, 100), Ok(0));
        drop(theirs);
    }
}
