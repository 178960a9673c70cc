//! The memory that host and worker share: the board, a page on which the worker records what must survive its death, and behind it
//! a ring for each direction.
//!
//! `launch` passes it to the worker with the preamble. References into it are made only to atomics.
#![expect(unsafe_code, reason = "views of memory that another process writes")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::Arc,
};

use super::claim::ClaimWord;
use crate::{
    ring,
    sync::{AtomicU32, Ordering},
    sys::memory::{Mapping, create},
};

/// The contents of the page. The kernel zeroes it, which is a valid state: nothing begun, no cause.
#[derive(Debug)]
#[repr(C)]
struct Page {
    claim: ClaimWord,
    cause: AtomicU32,
    end: AtomicU32,
}

const PAGE_BYTES: usize = 4 << 10;
#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Page>() <= PAGE_BYTES && align_of::<Page>() <= 4096);
    assert!(std::mem::offset_of!(Page, claim) == 0 && std::mem::offset_of!(Page, cause) == 8);
    assert!(std::mem::offset_of!(Page, end) == 12);
};

/// The size of each ring's data: small enough for a core's cache, and large enough for a batch of short tasks and the next one.
const RING_BYTES: usize = 256 << 10;
/// The size of a ring and its header, up to where the next one may begin.
const RING_STRIDE: usize = (ring::HEADER_BYTES + RING_BYTES).next_multiple_of(PAGE_BYTES);
/// The size of the board and two rings.
const SEGMENT_BYTES: usize = PAGE_BYTES + 2 * RING_STRIDE;

/// The reason that a worker recorded for its own death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    StackOverflow = 1,
    OutOfMemory = 2,
    /// Its connection to the host ended while a task ran.
    ConnectionEnded = 3,
    /// User code has closed descriptors that this process needs to serve.
    DescriptorsClosed = 4,
}

impl Cause {
    const ALL: [Self; 4] =
        [Self::StackOverflow, Self::OutOfMemory, Self::ConnectionEnded, Self::DescriptorsClosed];
}

/// One side's mapping of the shared memory.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    mapping: Arc<Mapping>,
}

impl Segment {
    /// Creates memory for two rings or for the board alone. Also returns the descriptor to pass on.
    pub(super) fn create(rings: bool) -> io::Result<(Self, OwnedFd)> {
        let len = if rings { SEGMENT_BYTES } else { PAGE_BYTES };
        let fd = create(c"procession", len)?;
        Ok((Self { mapping: Arc::new(Mapping::new(fd.as_fd(), len)?) }, fd))
    }

    /// Maps memory that was passed on.
    pub(crate) fn attach(fd: BorrowedFd<'_>, rings: bool) -> io::Result<Self> {
        let len = if rings { SEGMENT_BYTES } else { PAGE_BYTES };
        Ok(Self { mapping: Arc::new(Mapping::new(fd, len)?) })
    }

    /// Creates a board that no other process sees.
    pub(crate) fn unshared() -> io::Result<Self> {
        Ok(Self { mapping: Arc::new(Mapping::private(PAGE_BYTES)?) })
    }

    /// Returns the board.
    pub(crate) fn board(&self) -> Board {
        Board { mapping: self.mapping.clone() }
    }

    /// Returns the ring to the worker, which may be attached to once.
    pub(super) fn to_worker(&self) -> Part {
        Part::new(self.mapping.clone(), PAGE_BYTES)
    }

    /// Returns the ring to the host, which may be attached to once.
    pub(crate) fn to_host(&self) -> Part {
        Part::new(self.mapping.clone(), PAGE_BYTES + RING_STRIDE)
    }
}

/// The part of the memory that contains one ring.
#[derive(Debug)]
pub(crate) struct Part {
    /// The start of the part, which is stored because each access needs it.
    base: NonNull<u8>,
    _mapping: Arc<Mapping>,
}

impl Part {
    fn new(mapping: Arc<Mapping>, offset: usize) -> Self {
        assert!(offset + RING_STRIDE <= mapping.len_bytes(), "the memory was made for rings");
        // SAFETY: the offset lies within the mapping, as was just checked.
        let base = unsafe { mapping.base().add(offset) };
        Self { base, _mapping: mapping }
    }
}

// SAFETY: the address is of plain memory of the process, tied to no thread.
unsafe impl Send for Part {}
// SAFETY: `&Part` gives out an address only.
unsafe impl Sync for Part {}

// SAFETY: base and length are fixed when the part is made, and the mapping lives as long as it. `new` saw to it that the part lies
// within the mapping, which is aligned to a page, as is the offset. Others than the ring's ends do not use the part: it is private
// to this module and `shm`, which attaches each end once, and an alarm, which is part of the ring.
unsafe impl ring::Memory for Part {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len_bytes(&self) -> usize {
        ring::HEADER_BYTES + RING_BYTES
    }
}

/// One side's view of the board.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    mapping: Arc<Mapping>,
}

impl Board {
    #[inline]
    fn page(&self) -> &Page {
        // SAFETY: every mapping here is PAGE_BYTES long at least and aligned to a page, which is enough for a `Page`; it lives as long
        // as `self`; any bytes are a valid `Page`, for it is made of atomics, and through them alone is it shared.
        unsafe { self.mapping.base().cast::<Page>().as_ref() }
    }

    /// Returns the word by which tasks are claimed.
    #[inline]
    pub(crate) fn claim(&self) -> &ClaimWord {
        &self.page().claim
    }

    /// In the host: tells the worker that the task with this number should end.
    pub(crate) fn tell_to_end(&self, seq: u32) {
        // It does not order anything.
        self.page().end.store(seq, Ordering::Relaxed);
    }

    /// In the worker: returns whether the task with this number should end.
    pub(crate) fn is_to_end(&self, seq: u32) -> bool {
        self.page().end.load(Ordering::Relaxed) == seq
    }

    /// Records why this process is about to end. Async-signal-safe.
    pub(crate) fn set_cause(&self, cause: Cause) {
        // SYNC(cause): pairs with the Acquire load in `cause`. The process ends behind it; nothing else is ordered by it. The first counts.
        let _ = self.page().cause.compare_exchange(0, cause as u32, Ordering::Release, Ordering::Relaxed);
    }

    /// Returns what the worker recorded.
    pub(crate) fn cause(&self) -> Option<Cause> {
        // SYNC(cause): pairs with the Release store in `set_cause`.
        let recorded = self.page().cause.load(Ordering::Acquire);
        Cause::ALL.into_iter().find(|cause| *cause as u32 == recorded)
    }
}
