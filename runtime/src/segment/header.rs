//! The first page of a segment: its identity, and what it contains.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::Kind;
use crate::sys::{generation::generation, per_process::PerProcess};

/// The first bytes of a segment.
const MAGIC: u64 = u64::from_le_bytes(*b"procseg1");

/// The identity of a segment: random bits of the process that made it, and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SegmentId {
    process: u64,
    number: u64,
}

impl SegmentId {
    pub(crate) fn new() -> Self {
        /// A copy of a process draws bits of its own.
        static PROCESS: PerProcess<u64> = PerProcess::new();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // The random state of std is inherited by copies.
        let draw = || RandomState::new().hash_one((std::process::id(), generation(), SystemTime::now()));
        Self { process: *PROCESS.get_or_init(draw), number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }
}

impl SegmentId {
    pub(super) fn to_bytes(self) -> [u8; ID_BYTES] {
        (u128::from(self.process) | u128::from(self.number) << 64).to_le_bytes()
    }

    pub(super) fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
        let both = u128::from_le_bytes(bytes);
        Self { process: both as u64, number: (both >> 64) as u64 }
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.process, self.number)
    }
}

/// The start of the first page.
pub(super) struct Header {
    pub(super) id: SegmentId,
    pub(super) kind: Kind,
    pub(super) digest: u64,
    pub(super) len_bytes: usize,
    /// The number of segments that the value contains handles of. Their identities follow.
    pub(super) inner: usize,
}

/// magic, kind, process, number, digest, length, inner
pub(super) const HEADER_BYTES: usize = 7 * 8;
pub(super) const ID_BYTES: usize = 16;

impl Header {
    pub(super) fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let kind = match self.kind {
            Kind::Value => 0,
            Kind::Slice => 1,
            Kind::State => 2,
            Kind::Descriptor => 3,
            Kind::Mutable => 4,
            Kind::File => 5,
        };
        let Self { id, digest, len_bytes, inner, .. } = *self;
        let words = [MAGIC, kind, id.process, id.number, digest, len_bytes as u64, inner as u64];
        let mut bytes = [0; HEADER_BYTES];
        for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        bytes
    }

    /// Reads the header of a segment, which another process may have made up.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, _) = bytes.get(..HEADER_BYTES)?.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut word = || words.next().unwrap_or_default();
        (word() == MAGIC).then_some(())?;
        let kind = match word() {
            0 => Kind::Value,
            1 => Kind::Slice,
            2 => Kind::State,
            3 => Kind::Descriptor,
            4 => Kind::Mutable,
            5 => Kind::File,
            _ => return None,
        };
        let id = SegmentId { process: word(), number: word() };
        let digest = word();
        let len_bytes = usize::try_from(word()).ok()?;
        let inner = usize::try_from(word()).ok()?;
        Some(Self { id, kind, digest, len_bytes, inner })
    }
}
