//! Memory: sealed memfds and their mappings, pages that are wiped in copies, memory limits, and OOM counts.
//!
//! The transport maps its segments here, and workers limit themselves. It never creates a reference to memory that another process
//! can write.
#![expect(unsafe_code, reason = "mapping memory that another process maps, too")]

use std::{
    fs::File,
    io,
    mem::ManuallyDrop,
    num::NonZeroUsize,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::{OnceLock, atomic::AtomicU32},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap},
        resource::{Resource, getrlimit, setrlimit},
        stat::{SFlag, fstat},
    },
    unistd::ftruncate,
};

use super::{
    fd::{failed, grow_file},
    procfs::{group_folder, page_bytes},
};

/// Creates a zeroed segment whose size cannot be changed.
pub(crate) fn create(name: &std::ffi::CStr, len_bytes: usize) -> io::Result<OwnedFd> {
    let file = create_file(name, len_bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(file.into())
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

/// Creates a file without a name, zeroed, which is to be filled and then sealed by [`seal`].
pub(crate) fn create_file(name: &std::ffi::CStr, len_bytes: usize) -> io::Result<File> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
        .map_err(failed("memfd_create"))?;
    let len = i64::try_from(len_bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    grow_file(|| ftruncate(&fd, len).map_err(failed("ftruncate")))?;
    Ok(fd.into())
}

/// Makes it impossible to change the size of the file. It can be sealed further.
pub(crate) fn fix_size(file: BorrowedFd<'_>) -> io::Result<()> {
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(file, FcntlArg::F_ADD_SEALS(seals)).map_err(failed("fcntl"))?;
    Ok(())
}

/// Makes it impossible to change the file except through mappings that are there already.
pub(crate) fn seal_but_for_mappings(file: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(seals() | FUTURE_WRITE)).map_err(failed("fcntl"))?;
    Ok(())
}

/// Refuses new writable mappings and writes by system calls.
const FUTURE_WRITE: SealFlag = SealFlag::from_bits_retain(nix::libc::F_SEAL_FUTURE_WRITE);

/// Makes it impossible to change the file, for every process and forever.
///
/// # Errors
///
/// The file is mapped writable somewhere.
pub(crate) fn seal(file: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(seals() | SealFlag::F_SEAL_WRITE)).map_err(failed("fcntl"))?;
    Ok(())
}

/// Returns whether a file refuses to be mapped writable.
pub(crate) fn is_read_only(file: BorrowedFd<'_>) -> bool {
    fcntl(file, FcntlArg::F_GET_SEALS).is_ok_and(|sealed| {
        SealFlag::from_bits_retain(sealed).intersects(FUTURE_WRITE | SealFlag::F_SEAL_WRITE)
    })
}

/// Returns whether all pages of a file exist, none of which was left out.
pub(crate) fn is_whole(file: BorrowedFd<'_>) -> bool {
    // In units of 512 bytes.
    fstat(file).is_ok_and(|stat| stat.st_blocks * 512 >= stat.st_size)
}

/// Returns whether a file is memory. Does not wait, whatever file it is.
pub(crate) fn is_memory(file: BorrowedFd<'_>) -> bool {
    fcntl(file, FcntlArg::F_GET_SEALS).is_ok()
}

/// A read-only mapping of a file that does not change: it is sealed, or the caller of [`of_file`](Self::of_file) has promised it.
#[derive(Debug)]
pub(crate) struct View {
    base: NonNull<u8>,
    len_bytes: usize,
    is_sealed: bool,
}

impl View {
    /// Maps a file that [`seal`] or [`seal_but_for_mappings`] has sealed.
    ///
    /// # Errors
    ///
    /// It is empty, it can be changed, or it cannot be mapped.
    pub(crate) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let sealed = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS)?);
        let is_sealed = sealed.contains(SealFlag::F_SEAL_WRITE);
        if !sealed.contains(SealFlag::F_SEAL_SHRINK) || !(is_sealed || sealed.contains(FUTURE_WRITE)) {
            return Err(invalid());
        }
        let len_bytes = usize::try_from(fstat(fd)?.st_size).map_err(|_| invalid())?;
        Self::map(fd, len_bytes, is_sealed)
    }

    /// Maps the first bytes of a regular file.
    ///
    /// # Errors
    ///
    /// There are not as many or none, it is another file, or it cannot be mapped.
    ///
    /// # Safety
    ///
    /// No process changes these bytes, or shortens the file, before this is dropped.
    pub(crate) unsafe fn of_file(fd: BorrowedFd<'_>, len_bytes: usize) -> io::Result<Self> {
        let status = fstat(fd)?;
        let is_file = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        if !is_file || usize::try_from(status.st_size).is_ok_and(|has| has < len_bytes) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Self::map(fd, len_bytes, false)
    }

    fn map(fd: BorrowedFd<'_>, len_bytes: usize, is_sealed: bool) -> io::Result<Self> {
        let len = NonZeroUsize::new(len_bytes).ok_or(io::ErrorKind::InvalidData)?;
        // Private, because kernels before 6.7 refuse shared mappings of files that are sealed against writing.
        // SAFETY: without MAP_FIXED the kernel picks an address that is not in use, so no memory of ours is replaced.
        let base = unsafe { mmap(None, len, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, fd, 0) }
            .map_err(failed("mmap"))?;
        Ok(Self { base: base.cast(), len_bytes, is_sealed })
    }

    /// Copies bytes to memory of this process alone.
    ///
    /// # Errors
    ///
    /// There are none, or there is no memory.
    pub(crate) fn of(bytes: &[u8]) -> io::Result<Self> {
        let memory = ManuallyDrop::new(Mapping::private(bytes.len())?);
        let (base, len_bytes) = (memory.base(), bytes.len());
        // SAFETY: the memory was mapped just now, has this length, and nothing else refers to it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), base.as_ptr(), len_bytes) };
        Ok(Self { base, len_bytes, is_sealed: true })
    }

    /// Returns whether no process can change the contents. If one may have a mapping that it could write to, it has given up to do so.
    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Returns the contents. They begin at the start of a page.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has this length and lives as long as `self`. A file cannot shrink or change, because it was sealed before it was
        // mapped, and the mapping is not writable. If it was sealed except for older mappings, no code of ours writes through those any more:
        // their segment had one owner, who gave it up (`segment::mutable`). Memory of this process alone is not written after `of`. For other
        // files, the caller of `of_file` has promised it.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len_bytes) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: `new` or `of` mapped exactly this, and references into it borrow `self`.
        let _ = unsafe { munmap(self.base.cast(), self.len_bytes) };
    }
}

// SAFETY: the mapping is plain memory of the process, tied to no thread.
unsafe impl Send for View {}
// SAFETY: nobody writes to the memory.
unsafe impl Sync for View {}

/// The size from which huge pages pay. With them, the first touch of memory costs at most half as much.
const HUGE_FROM_BYTES: usize = 4 << 20;

/// Asks for huge pages for large memory that is about to be filled. Affects only the speed.
pub(crate) fn advise_huge(start: *const u8, len_bytes: usize) {
    const PAGE_BYTES: usize = 4096;
    if len_bytes < HUGE_FROM_BYTES {
        return;
    }
    // The first and the last page are included as a whole. An allocation of this size is a mapping of its own that begins a little
    // before its bytes. If a page of it were left out, the kernel would split the mapping and could not grow it in place. Each
    // growth would then be a copy, with both copies in memory.
    let from = start.addr() / PAGE_BYTES * PAGE_BYTES;
    let len = (start.addr() + len_bytes).next_multiple_of(PAGE_BYTES) - from;
    // SAFETY: MADV_HUGEPAGE changes neither the contents nor the rights of the pages, which may be any; it only hints at their size.
    unsafe { nix::libc::madvise(from as *mut nix::libc::c_void, len, nix::libc::MADV_HUGEPAGE) };
}

/// Returns a separate word that is zero now, and zero again in each copy of this process, made by any code. It is never freed.
pub(crate) fn wiped_by_fork() -> io::Result<&'static AtomicU32> {
    let page = Mapping::private(size_of::<AtomicU32>())?;
    // SAFETY: the pages were mapped just now; what is wiped in a copy is theirs alone.
    unsafe { madvise(page.base().cast(), page.len_bytes(), MmapAdvise::MADV_WIPEONFORK) }?;
    let base = page.keep();
    // SAFETY: readable, writable, zeroed, aligned as pages are, and mapped for as long as the process lives. All that touches it is
    // atomic, the kernel's wiping apart, which is over when the copy begins to run.
    Ok(unsafe { base.cast::<AtomicU32>().as_ref() })
}

/// A mapping of a whole segment, readable and writable, shared with all processes that map it.
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
    /// It has another size, it is not sealed against shrinking (the other side could turn our reads into SIGBUS), or it cannot be
    /// mapped.
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

    /// Creates a mapping that no other process sees.
    pub(crate) fn private(len_bytes: usize) -> io::Result<Self> {
        let len = NonZeroUsize::new(len_bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_PRIVATE;
        // SAFETY: without MAP_FIXED the kernel picks an address that is not in use, so no memory of ours is replaced.
        let base = unsafe { mmap_anonymous(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) }?;
        Ok(Self { base: base.cast(), len_bytes })
    }

    /// Leaves the memory out of copies of this process, where its addresses are then not mapped, and asks for huge pages if it is large.
    pub(crate) fn keep_from_copies(&self) -> io::Result<()> {
        // SAFETY: what is not mapped in a copy is this mapping alone. The copy accesses it no more than memory of another process.
        unsafe { madvise(self.base.cast(), self.len_bytes, MmapAdvise::MADV_DONTFORK) }?;
        advise_huge(self.base.as_ptr(), self.len_bytes);
        Ok(())
    }

    /// Enters pages that exist into the mapping, for which each would otherwise be a fault. Affects only the speed. What does not exist
    /// in this range is created, as if it was read.
    pub(crate) fn populate(&self, range: Range<usize>) {
        let page = page_bytes() as usize;
        let (start, end) = (range.start / page * page, range.end.min(self.len_bytes));
        if start < end {
            // SAFETY: `start` lies in the mapping.
            let from = unsafe { self.base.add(start) };
            // SAFETY: the range lies in the mapping, and neither its contents nor its rights change.
            unsafe { nix::libc::madvise(from.as_ptr().cast(), end - start, nix::libc::MADV_POPULATE_READ) };
        }
    }

    /// Returns the length of the mapping.
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Returns the start of the memory. It is valid for reads and writes of the mapping's length as long as the mapping lives,
    /// aligned to a page, and may be written by others at any time.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Keeps the memory mapped for as long as the process lives. Returns its start.
    pub(super) fn keep(self) -> NonNull<u8> {
        std::mem::ManuallyDrop::new(self).base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this, and no pointer into it is used after the mapping is dropped.
        let _ = unsafe { munmap(self.base.cast(), self.len_bytes) };
    }
}

// SAFETY: the mapping is plain memory of the process, tied to no thread.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` gives out an address only; each access to the memory has its own argument.
unsafe impl Sync for Mapping {}

/// Limits the memory that this process may allocate to `bytes` more than it has now.
///
/// The limit applies to private writable memory (`RLIMIT_DATA`): the heap, anonymous mappings, and the stacks of threads. A limit
/// of the address space (`RLIMIT_AS`) would include mapped files and memory that allocators only reserve.
pub(crate) fn limit_memory(bytes: u64) -> io::Result<()> {
    // size, resident, shared, text, library, data, ..., in pages
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let data: u64 = statm.split(' ').nth(5).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let (_, most) = getrlimit(Resource::RLIMIT_DATA)?;
    let limit = (data * page_bytes()).saturating_add(bytes).min(most);
    // The previous limit remains the maximum to which a `Reprieve` may raise it.
    setrlimit(Resource::RLIMIT_DATA, limit, most)?;
    let _ = LIMIT.set((limit, most));
    Ok(())
}

/// The limit that [`limit_memory`] set, and the previous one.
static LIMIT: OnceLock<(u64, u64)> = OnceLock::new();

/// Suspends the limit of [`limit_memory`] for the whole process while it lives.
///
/// For code that must not run out of memory. std captures a backtrace under a lock and takes the same lock to report a failed
/// allocation, so a panic that runs out of memory would wait for itself forever.
#[derive(Debug)]
#[must_use = "the limit is back as soon as this is dropped"]
pub(crate) struct Reprieve(Option<(u64, u64)>, Errno);

impl Reprieve {
    pub(crate) fn new() -> Self {
        let limit = LIMIT.get().copied();
        let errno = Errno::last();
        Self(limit.filter(|&(_, most)| setrlimit(Resource::RLIMIT_DATA, most, most).is_ok()), errno)
    }
}

impl Drop for Reprieve {
    fn drop(&mut self) {
        if let Some((limit, most)) = self.0 {
            let _ = setrlimit(Resource::RLIMIT_DATA, limit, most);
            // Whether a panic that ends the process is blamed on memory depends on `errno`.
            self.1.set();
        }
    }
}

/// Returns how many processes the kernel has killed for lack of memory: in this process's cgroup if that is counted, and otherwise
/// on this machine. Returns `None` if it is not known.
pub(crate) fn oom_kills() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let folders = groups.lines().filter_map(|line| group_folder(line, "memory"));
    // The file of version 2, and that of version 1.
    let files =
        folders.flat_map(|folder| ["memory.events", "memory.oom_control"].map(|name| folder.join(name)));
    // The last file takes long to read and includes what other programs do.
    let files = files.chain(["/proc/vmstat".into()]);
    files.filter_map(|file| std::fs::read_to_string(file).ok()).find_map(|counts| oom_kills_in(&counts))
}

fn oom_kills_in(counts: &str) -> Option<u64> {
    counts.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_memory_kills_are_found_among_other_counts() {
        assert_eq!(oom_kills_in("low 0\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n"), Some(5));
        assert_eq!(oom_kills_in("nr_free_pages 9\noom_kill 12\n"), Some(12));
        assert_eq!(oom_kills_in("oom 4\n"), None);
    }
}
