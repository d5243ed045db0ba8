//! Which slot a key belongs to. Pure: no I/O, no clock, no randomness of its own.
//!
//! [`KernelHash`] is the placement that the kernel dispatch turns into a program; every process that asks it about
//! an address gets the slot the kernel chose.

// The placement of keys inside the request: it leaves `cfg(test)` with the guard of handoff dispatch that asks it.
#[cfg(test)]
mod keys;
mod rendezvous;
// The same holds for the sessions that are remembered.
#[cfg(test)]
#[allow(dead_code, reason = "until handoff dispatch asks for sessions")]
mod sessions;

pub(crate) use self::rendezvous::KernelHash;
#[cfg(cluster)]
pub(crate) use self::rendezvous::{KeyMix, MULTIPLIERS, SHIFTS, SLOT_MULTIPLIER, SLOT_SHIFT, SlotMix};
