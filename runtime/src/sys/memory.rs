//! Shared memory without a name: sealed memfds and their mappings.
#![expect(unsafe_code, reason = "mapping memory that another process maps, too")]

use std::{
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::{OnceLock, atomic::AtomicU32},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    libc,
    sys::{
        memfd::{MFdFlags, memfd_create},
        mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap},
        resource::{Resource, getrlimit, setrlimit},
        stat::fstat,
    },
    unistd::ftruncate,
};

use super::signal::grow_file;

/// Makes a zeroed segment whose size nobody can change.
pub(crate) fn create(name: &std::ffi::CStr, len_bytes: usize) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let len = i64::try_from(len_bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    grow_file(|| ftruncate(&fd, len).map_err(io::Error::from))?;
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

/// A word of its own, zero now, and zero again in each copy that is made of this process, by whatever code. It is never given back.
pub(crate) fn wiped_by_fork() -> io::Result<&'static AtomicU32> {
    let len = NonZeroUsize::new(size_of::<AtomicU32>()).expect("it has a size");
    let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: the kernel chooses a place for new pages, so that they are nobody else's.
    let page = unsafe { mmap_anonymous(None, len, rights, MapFlags::MAP_PRIVATE) }?;
    // SAFETY: the pages were mapped just now; what is wiped in a copy is theirs alone.
    let advised = unsafe { madvise(page, len.get(), MmapAdvise::MADV_WIPEONFORK) };
    if let Err(error) = advised {
        // SAFETY: the pages were mapped just now, and nothing refers to them.
        let _ = unsafe { munmap(page, len.get()) };
        return Err(error.into());
    }
    // SAFETY: readable, writable, zeroed, aligned as pages are, and mapped for as long as the process lives. All that touches it is
    // atomic, the kernel's wiping apart, which is over when the copy begins to run.
    Ok(unsafe { page.cast::<AtomicU32>().as_ref() })
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

/// Limits the memory that this process may allocate to so many bytes more than it has.
///
/// What counts is private memory that can be written to (`RLIMIT_DATA`): the heap, anonymous mappings, threads' stacks. Address space
/// (`RLIMIT_AS`) would count files that are mapped and what allocators only reserve, too.
pub(crate) fn limit_memory(bytes: u64) -> io::Result<()> {
    // size, resident, shared, text, library, data, ..., in pages
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let data: u64 = statm.split(' ').nth(5).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let (_, most) = getrlimit(Resource::RLIMIT_DATA)?;
    let limit = (data * page_bytes()).saturating_add(bytes).min(most);
    // What was allowed before stays the most that may be asked for, which is what a `Reprieve` does.
    setrlimit(Resource::RLIMIT_DATA, limit, most)?;
    let _ = LIMIT.set((limit, most));
    Ok(())
}

/// What [`limit_memory`] allows, and what was allowed before.
static LIMIT: OnceLock<(u64, u64)> = OnceLock::new();

/// While it lives, what [`limit_memory`] has set does not count, in the whole process.
///
/// For what must not run out of memory: std takes down a backtrace under a lock, and takes the lock again to say that an allocation has
/// failed, so a panic where memory is short would wait for itself for ever.
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
            // A panic that ends the process is judged by it: for want of memory, or not.
            self.1.set();
        }
    }
}

/// How large a page is.
pub(crate) fn page_bytes() -> u64 {
    // SAFETY: sysconf takes a number and touches no memory of ours.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// How many processes the kernel has killed for want of memory: among those of this process's group of them (cgroup), where that is
/// counted, else on this machine. `None`: that cannot be said.
pub(crate) fn oom_kills() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let files = groups.lines().filter_map(counts_of_group).chain(["/proc/vmstat".to_owned()]);
    // The last takes long to read, and counts what others do.
    files.filter_map(|file| std::fs::read_to_string(file).ok()).find_map(|counts| oom_kills_in(&counts))
}

/// Where the group of a line of /proc/self/cgroup has its counts, of the second version or the first.
fn counts_of_group(line: &str) -> Option<String> {
    let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
    match controllers {
        "" => Some(format!("/sys/fs/cgroup{group}/memory.events")),
        _ if controllers.split(',').any(|name| name == "memory") => {
            Some(format!("/sys/fs/cgroup/memory{group}/memory.oom_control"))
        }
        _ => None,
    }
}

fn oom_kills_in(counts: &str) -> Option<u64> {
    counts.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn killings_for_want_of_memory_are_found_among_other_counts() {
        assert_eq!(oom_kills_in("low 0\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n"), Some(5));
        assert_eq!(oom_kills_in("nr_free_pages 9\noom_kill 12\n"), Some(12));
        assert_eq!(oom_kills_in("oom 4\n"), None);
        assert_eq!(counts_of_group("0::/a/b").as_deref(), Some("/sys/fs/cgroup/a/b/memory.events"));
        let first = counts_of_group("7:cpu,memory:/a");
        assert_eq!(first.as_deref(), Some("/sys/fs/cgroup/memory/a/memory.oom_control"));
        assert_eq!(counts_of_group("4:cpu:/a"), None);
    }
}
