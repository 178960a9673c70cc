//! A ring of bytes for one producer and one consumer, over memory that it is lent: two processes map it, one writes a stream, the
//! other reads it.
//!
//! The ring knows no frames, and it never waits: [`Producer::write`] takes what there is room for and [`Consumer::read`] gives what
//! there is. An end that has nothing to do announces that it sleeps ([`Producer::park`], [`Consumer::park`]), waits on its word, and
//! the other end takes that word down ([`take_bell`](Producer::take_bell)) and wakes it. Who waits, and by which system call, is the
//! caller's business.
//!
//! The peer is not trusted. It may write anything anywhere in the memory at any time; all that it gains is that this end says
//! [`Broken`] or hands on bytes that make no sense. README.md beside this file has the algorithm and the argument for it.

mod consumer;
mod header;
mod heap;
mod memory;
#[cfg(all(test, loom))]
mod models;
mod producer;
#[cfg(all(any(test, fuzzing), not(loom)))]
mod scenario;
#[cfg(all(test, not(loom)))]
mod tests;

use std::fmt;

pub(crate) use consumer::{Alarm, Consumer};
pub(crate) use header::HEADER_BYTES;
pub(crate) use heap::{Heap, pair};
pub(crate) use memory::Memory;
pub(crate) use producer::Producer;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) use scenario::play_script;

/// Why an end cannot go on: the memory is unfit, or the peer wrote what no honest peer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The memory is no header and a power of two of data, or is not aligned.
    Unfit,
    /// The memory is marked as something else, or as a ring of another version or size.
    Mark,
    /// The memory is marked as a ring that this end was attached to before.
    Used,
    /// The peer's cursor stands where it cannot stand.
    Cursor,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unfit => "the memory is not of a ring's size or alignment",
            Self::Mark => "the memory holds no ring of this version and size",
            Self::Used => "the ring was in use before",
            Self::Cursor => "the peer's cursor stands where it cannot stand",
        })
    }
}

impl std::error::Error for Broken {}
