//! What `/proc` says about a process: memory and threads.
//!
//! The pool's limits and statistics use it. A pid may have been reused, so what is read by pid counts only if the process had not
//! been reaped by then.

use std::io;

/// Returns the maximum resident memory of the process. (`getrusage` would include what its parent had before the exec.)
pub(crate) fn peak_rss_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Returns the number of threads of this process.
pub(crate) fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Returns the resident memory of a process, including shared memory, if the process exists.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    // size, resident, shared, ..., in pages
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * super::memory::page_bytes())
}
