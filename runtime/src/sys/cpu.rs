//! CPUs, priorities and titles of this process and its threads.
//!
//! The builders and the worker's setup use it. It changes only the current process, never another one.
#![expect(unsafe_code, reason = "priorities, whose system calls have no safe wrapper")]

use std::{ffi::CString, io, os::unix::ffi::OsStrExt, path::Path};

use nix::{
    errno::Errno,
    libc,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::resource::{UsageWho, getrusage},
    unistd::Pid,
};

use super::{env::setting, process::CPUS};

/// Returns the CPUs that this thread may use, in order.
pub(crate) fn own_cpus() -> io::Result<Vec<u32>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true));
    Ok(cpus.filter_map(|cpu| u32::try_from(cpu).ok()).collect())
}

/// Returns how many times this thread has slept to wait for anything but a core.
pub(crate) fn waits() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.voluntary_context_switches())
}

/// Returns how many CPUs affinity and cgroups allow, and how many of them this process may keep busy: as a worker, its share.
pub(crate) fn all_and_own_cpus() -> (usize, usize) {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    (all, given_cpus().map_or(all, |given| given.min(all)))
}

/// Returns how many CPUs this process may keep busy.
pub(crate) fn cpus() -> usize {
    all_and_own_cpus().1
}

/// Returns how many CPUs this process was given as a worker.
pub(crate) fn given_cpus() -> Option<usize> {
    setting(CPUS)?.to_str()?.parse().ok().filter(|&given| given > 0)
}

/// Pins every thread of this process, and the threads that they will start, to one CPU.
pub(crate) fn pin_to(cpu: u32) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu as usize)?;
    for_each_thread(|thread| Ok(sched_setaffinity(thread, &set)?))
}

/// Adds to the niceness of every thread of this process, and of the threads that they will start.
pub(crate) fn add_niceness(nice: i32) -> io::Result<()> {
    Errno::clear();
    // SAFETY: getpriority takes two numbers and touches no memory of ours.
    let own = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // -1 is also a valid niceness.
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

/// Calls `set` for each thread, because Linux keeps these settings for each thread. If the threads cannot be listed, only for this
/// one.
fn for_each_thread(set: impl Fn(Pid) -> io::Result<()>) -> io::Result<()> {
    let Ok(folder) = std::fs::read_dir("/proc/self/task") else { return set(Pid::from_raw(0)) };
    let threads = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    threads.map(Pid::from_raw).try_for_each(set)
}

/// Names this process and this thread, as shown by `ps` and `top`.
pub(crate) fn set_title(title: &[u8]) {
    // A process is shown with the name of its first thread.
    let _ = std::fs::write("/proc/self/comm", title);
    set_name(title);
}

/// Names this thread after the program. A worker was executed as /proc/self/exe and would otherwise be called `exe`.
pub(crate) fn name_as_program() {
    if let Some(name) = std::env::args_os().next() {
        set_name(Path::new(&name).file_name().unwrap_or_default().as_bytes());
    }
}

fn set_name(name: &[u8]) {
    let _ = CString::new(name).map(|name| nix::sys::prctl::set_name(&name));
}
