//! The only `unsafe` of the project: small wrappers with safe signatures around what the kernel offers and no
//! library wraps.

#[cfg(cluster)]
pub(crate) mod exec;
#[cfg(cluster)]
pub(crate) mod memory;
#[cfg(cluster)]
pub(crate) mod receive;
#[cfg(cluster)]
pub(crate) mod reuseport;
pub(crate) mod socket;
#[cfg(cluster)]
pub(crate) mod watch;
