//! What `/proc` says about a process: memory, threads, CPU time.
//!
//! The pool's limits and statistics use it. A pid may have been reused, so what is read by pid counts only if the process had not
//! been reaped by then.

use std::{io, time::Duration};

use nix::{time::ClockId, unistd::Pid};

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

/// Returns the CPU time of a process, over all of its threads.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed())).ok()?;
    clock.now().ok().map(Duration::from)
}
