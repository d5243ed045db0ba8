//! Which slot a key belongs to. Pure: no I/O, no clock, no randomness of its own.
//!
//! [`KernelHash`] is the placement that the kernel dispatch turns into a program; every process that asks it about
//! an address gets the slot the kernel chose. [`Rendezvous`] is the placement of keys inside the request.

mod keys;
mod kind;
mod rendezvous;
mod sessions;

pub(crate) use self::keys::Rendezvous;
pub use self::kind::{ParsePlacementError, Placement};
pub(crate) use self::rendezvous::KernelHash;
#[cfg(cluster)]
pub(crate) use self::rendezvous::{KeyMix, MULTIPLIERS, SHIFTS, SLOT_MULTIPLIER, SLOT_SHIFT, SlotMix};
pub(crate) use self::sessions::SessionTable;
