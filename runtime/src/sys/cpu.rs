//! CPUs, priorities and titles of this process and its threads.
#![expect(unsafe_code, reason = "priorities, whose system calls have no safe wrapper")]

use std::{ffi::CString, io};

use nix::{
    errno::Errno,
    libc,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::{env::setting, process::CPUS};

/// The CPUs that this thread may use, in order.
pub(crate) fn own_cpus() -> io::Result<Vec<u32>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true));
    Ok(cpus.filter_map(|cpu| u32::try_from(cpu).ok()).collect())
}

/// How many CPUs this process may keep busy: what affinity and cgroups allow, and no more than it was given as somebody's worker.
pub(crate) fn cpus() -> usize {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    given_cpus().map_or(all, |given| given.min(all))
}

/// How many CPUs this process was given as somebody's worker.
pub(crate) fn given_cpus() -> Option<usize> {
    setting(CPUS)?.to_str()?.parse().ok().filter(|&given| given > 0)
}

/// Has every thread of this process, and those that they will start, run on one CPU.
pub(crate) fn pin_to(cpu: u32) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu as usize)?;
    for_each_thread(|thread| Ok(sched_setaffinity(thread, &set)?))
}

/// Adds to the niceness of every thread of this process, and of those that they will start.
pub(crate) fn add_niceness(nice: i32) -> io::Result<()> {
    Errno::clear();
    // SAFETY: getpriority takes two numbers and touches no memory of ours.
    let own = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // -1 is a niceness, too.
    if own == -1 && Errno::last_raw() != 0 {
        return Err(io::Error::last_os_error());
    }
    let nice = own.saturating_add(nice).clamp(-20, 19);
    for_each_thread(|thread| {
        let thread = thread.as_raw().unsigned_abs();
        // SAFETY: setpriority takes three numbers and touches no memory of ours.
        let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, nice) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    })
}

/// What Linux keeps for each thread apart is set for all of them; where they cannot be listed, for this one.
fn for_each_thread(set: impl Fn(Pid) -> io::Result<()>) -> io::Result<()> {
    let Ok(folder) = std::fs::read_dir("/proc/self/task") else { return set(Pid::from_raw(0)) };
    let threads = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    threads.map(Pid::from_raw).try_for_each(set)
}

/// Names this process and this thread, as `ps` and `top` show them.
pub(crate) fn set_title(title: &[u8]) {
    // A process is called as its first thread is.
    let _ = std::fs::write("/proc/self/comm", title);
    let _ = CString::new(title).map(|title| nix::sys::prctl::set_name(&title));
}
