//! The board: a few pages that host and worker share beside their connection. The worker notes on it what must outlive its death.
#![expect(unsafe_code, reason = "views of memory that another process writes")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::{
    claim::ClaimWord,
    outbox::{Outbox, WORDS},
    sync::AtomicU32,
    sync::Ordering,
    sys::memory::{Mapping, create},
};

/// What the pages hold. The kernel zeroes it, which is a valid state: nothing begun, no cause, no replies.
#[derive(Debug)]
#[repr(C)]
struct Page {
    claim: ClaimWord,
    cause: AtomicU32,
    outbox: Outbox<WORDS>,
}

const PAGE_BYTES: usize = 20 << 10;
#[cfg(not(loom))]
const _: () = assert!(size_of::<Page>() <= PAGE_BYTES && align_of::<Page>() <= 4096);
#[cfg(not(loom))]
const _: () = assert!(
    std::mem::offset_of!(Page, claim) == 0
        && std::mem::offset_of!(Page, cause) == 8
        && std::mem::offset_of!(Page, outbox) == 16
);

/// What a worker had to say of its own death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    StackOverflow,
}

/// One side's mapping of the page.
#[derive(Debug)]
pub(crate) struct Board {
    mapping: Mapping,
}

impl Board {
    /// A new page, and the segment to pass on.
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        let fd = create(c"procession-board", PAGE_BYTES)?;
        Ok((Self::attach(fd.as_fd())?, fd))
    }

    /// Maps a page that was passed on.
    pub(crate) fn attach(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { mapping: Mapping::new(fd, PAGE_BYTES)? })
    }

    fn page(&self) -> &Page {
        // SAFETY: the mapping is PAGE_BYTES long and aligned to a page, which is enough for a `Page`; it lives as long as `self`;
        // any bytes are a valid `Page`, for it is made of atomics, and through them alone is it shared with the other process.
        unsafe { self.mapping.base().cast::<Page>().as_ref() }
    }

    /// The word by which tasks are claimed.
    pub(crate) fn claim(&self) -> &ClaimWord {
        &self.page().claim
    }

    /// Where replies lie that have not been sent yet.
    pub(crate) fn outbox(&self) -> &Outbox<WORDS> {
        &self.page().outbox
    }

    /// Notes why this process is about to end. Async-signal-safe.
    pub(crate) fn set_cause(&self, cause: Cause) {
        let Cause::StackOverflow = cause;
        self.page().cause.store(1, Ordering::Release);
    }

    /// What the worker noted.
    pub(crate) fn cause(&self) -> Option<Cause> {
        (self.page().cause.load(Ordering::Acquire) == 1).then_some(Cause::StackOverflow)
    }
}
