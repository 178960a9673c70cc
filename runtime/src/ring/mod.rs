//! A ring of bytes for one producer and one consumer, in memory that is lent to it. One process, or one thread, writes a stream,
//! and the other reads it.
//!
//! The ring does not know frames and never waits. [`Producer::write`] accepts what there is room for, and [`Consumer::read`]
//! returns what there is. An end that has nothing to do announces that it sleeps ([`Producer::park`], [`Consumer::park`]) and waits
//! on its word. The other end withdraws the announcement ([`take_bell`](Producer::take_bell)) and wakes it. The caller,
//! `transport::shm` or `scheduler::feed`, chooses whether and how to wait.
//!
//! The peer is not trusted. It may write anything anywhere in the memory at any time. The worst result is that this end reports
//! [`Broken`] or returns bytes without meaning. README.md next to this file explains the algorithm and why it is correct.

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

/// The reason why an end cannot continue: the memory is unsuitable, or the peer wrote something that an honest peer never writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The memory does not consist of a header and a power of two of data, or it is not aligned.
    Unfit,
    /// The memory is marked as something else, or as a ring of another version or size.
    Mark,
    /// The memory is marked as a ring to which this end was attached before.
    Used,
    /// The peer's cursor has an impossible value.
    Cursor,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unfit => "the memory is not of a ring's size or alignment",
            Self::Mark => "the memory holds no ring of this version and size",
            Self::Used => "the ring was in use before",
            Self::Cursor => "the peer's cursor has an impossible value",
        })
    }
}

impl std::error::Error for Broken {}
