//! The sans-IO pieces of the guard: where messages begin and end, and what may happen between them.
//!
//! ```text
//!              socket bytes ──► HeadReader ──► Head ──► RequestBody ──► framework
//!  Exchange                                                                │
//!              socket ◄────────────── Response (counts what was accepted) ◄┘
//! ```
//!
//! Nothing here reads, writes, waits, or looks at a clock.

pub(crate) mod exchange;
pub(crate) mod head;
mod request_body;
mod request_head;
mod response;

mod chunked;
mod refusal;
mod tokens;

#[cfg(test)]
pub(crate) use self::request_head::HeadParts;
pub use self::request_head::RequestHead;
