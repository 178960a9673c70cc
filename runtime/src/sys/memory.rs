//! Shared memory without a name: sealed memfds and their mappings.
#![expect(unsafe_code, reason = "mapping memory that another process maps, too")]

use std::{
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap},
        stat::fstat,
    },
    unistd::ftruncate,
};

/// Makes a zeroed segment whose size nobody can change.
pub(crate) fn create(name: &std::ffi::CStr, len_bytes: usize) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let len = i64::try_from(len_bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    ftruncate(&fd, len)?;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(fd)
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

/// From this size on huge pages pay: the first touch of memory costs half as much with them, or less.
const HUGE_FROM_BYTES: usize = 4 << 20;

/// Asks for huge pages under memory that is about to be filled, if it is large. Changes nothing but the speed.
pub(crate) fn advise_huge(start: *const u8, len_bytes: usize) {
    const PAGE_BYTES: usize = 4096;
    if len_bytes < HUGE_FROM_BYTES {
        return;
    }
    // All of the first and of the last page: an allocation of this size is a mapping of its own, which begins a little before its
    // bytes. Were a page of it left out, the kernel would take it for two mappings, and could not grow it in place: each growth
    // would be a copy, with both copies in memory.
    let from = start.addr() / PAGE_BYTES * PAGE_BYTES;
    let len = (start.addr() + len_bytes).next_multiple_of(PAGE_BYTES) - from;
    // SAFETY: MADV_HUGEPAGE changes neither the contents nor the rights of the pages, which may be any; it only hints at their size.
    unsafe { nix::libc::madvise(from as *mut nix::libc::c_void, len, nix::libc::MADV_HUGEPAGE) };
}

/// A mapping of a whole segment, readable and writable, shared with whoever else maps it.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len_bytes: usize,
}

impl Mapping {
    /// Maps a segment of exactly this size.
    ///
    /// # Errors
    ///
    /// It is not of that size, not sealed against shrinking (the other side could make our reads a SIGBUS), or cannot be mapped.
    pub(crate) fn new(fd: BorrowedFd<'_>, len_bytes: usize) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let sealed = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS)?);
        if !sealed.contains(SealFlag::F_SEAL_SHRINK) || usize::try_from(fstat(fd)?.st_size) != Ok(len_bytes) {
            return Err(invalid());
        }
        let len = NonZeroUsize::new(len_bytes).ok_or_else(invalid)?;
        // SAFETY: without MAP_FIXED the kernel picks an address that is not in use, so no memory of ours is replaced.
        let base = unsafe {
            mmap(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, fd.as_fd(), 0)
        }?;
        Ok(Self { base: base.cast(), len_bytes })
    }

    /// Memory that no other process sees.
    pub(crate) fn private(len_bytes: usize) -> io::Result<Self> {
        let len = NonZeroUsize::new(len_bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_PRIVATE;
        // SAFETY: without MAP_FIXED the kernel picks an address that is not in use, so no memory of ours is replaced.
        let base = unsafe { mmap_anonymous(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) }?;
        Ok(Self { base: base.cast(), len_bytes })
    }

    /// How long it is.
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// The start of the memory: valid for reads and writes of the mapping's length for as long as the mapping lives, aligned to a
    /// page, and written by others at any time.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this, and nobody can hold a pointer into it longer than the mapping lives.
        let _ = unsafe { munmap(self.base.cast(), self.len_bytes) };
    }
}

// SAFETY: the mapping is plain memory of the process, tied to no thread.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` gives out an address only; whoever accesses the memory argues for that access.
unsafe impl Sync for Mapping {}
