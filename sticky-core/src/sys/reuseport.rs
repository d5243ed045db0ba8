//! Options of listeners that no library wraps: the program that chooses among a group of `SO_REUSEPORT` sockets, and
//! the smallest time to live of what reaches a socket.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::net::AddressFamily;

/// One instruction of a classic BPF program.
pub(crate) type Instruction = libc::sock_filter;

/// Makes `program` choose the socket for every new connection of the group that `socket` belongs to.
///
/// It replaces the group's earlier program between two packets, and outlives `socket` as long as the group has
/// members. No privilege is needed.
///
/// # Errors
///
/// The system's: `EINVAL` if the socket is in no group or the program is malformed or longer than 4,096
/// instructions, `ENOMEM` if it is larger than `net.core.optmem_max` allows.
pub(crate) fn attach_program(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let value = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the option's value is one `sock_fprog`. The `len` instructions it points to live until the call
    // returns; the kernel copies them and writes to nothing.
    unsafe { set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &value) }
}

/// Makes the kernel drop what reaches a TCP socket with a smaller time to live (hop limit) than this. 0 drops nothing.
///
/// Connections inherit it from their listener. No privilege is needed.
///
/// # Errors
///
/// The system's, if the socket is not a TCP socket.
pub(crate) fn set_min_ttl(socket: BorrowedFd<'_>, ttl: u8) -> io::Result<()> {
    let ttl = libc::c_int::from(ttl);
    if rustix::net::sockopt::socket_domain(socket)? == AddressFamily::INET6 {
        // SAFETY: the option's value is one int.
        unsafe { set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &ttl)? };
    }
    // An IPv6 socket can have IPv4 packets as well.
    // SAFETY: the option's value is one int.
    unsafe { set_option(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &ttl) }
}

/// Sets an option.
///
/// # Safety
///
/// `T` is what the option expects, and all its pointers are valid.
unsafe fn set_option<T>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` lives until the call returns and has the size that is given; the caller vouches for the rest.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
