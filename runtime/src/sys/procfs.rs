//! What `/proc` says of a process: memory, threads, CPU time.

use std::{io, time::Duration};

use nix::{time::ClockId, unistd::Pid};

/// The most memory that the process has had resident. (`getrusage` would count what its parent had before it was executed.)
pub(crate) fn peak_rss_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// How many threads this process has.
pub(crate) fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// How much memory a process has resident, what it shares with others included, if it is there.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    // size, resident, shared, ..., in pages
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * super::memory::page_bytes())
}

/// For how long this process has had a core, all of its threads together.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed())).ok()?;
    clock.now().ok().map(Duration::from)
}
