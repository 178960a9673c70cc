//! Reads from `/proc` the memory and the threads of a process, and the folders of its control groups.
//!
//! The pool's limits and statistics use it. A pid may have been reused, so what is read by pid counts only if the process had not
//! been reaped by then.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::unistd::{SysconfVar, sysconf};

/// Returns the maximum resident memory of the process. (`getrusage` would include what its parent had before the exec.)
pub(crate) fn peak_rss_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib: u64 = field(&status, "VmHWM:")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Returns the number of threads of this process.
pub(crate) fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Returns the resident memory of a process, without shared memory and mapped files, if the process exists.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    // size, resident, shared, ..., in pages
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = statm.split(' ').skip(1).map(|pages| pages.parse::<u64>().ok());
    let (resident, shared) = (pages.next()??, pages.next()??);
    Some(resident.saturating_sub(shared) * page_bytes())
}

/// Returns when a process was started, in ticks of the kernel's clock, unless it has ended. It has ended also if it was not reaped yet.
///
/// # Errors
///
/// There is no such process, or `/proc` cannot be read.
pub(crate) fn started(pid: u32) -> io::Result<Option<u64>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    started_in(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn started_in(stat: &str) -> Option<Option<u64>> {
    // The second field is the name of the program, which may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let mut fields = fields.map(|field| field.parse::<u64>());
    let (threads, start) = (fields.nth(16)?.ok()?, fields.nth(1)?.ok()?);
    // The first thread of a process may end before the others.
    let has_ended = matches!(state, "Z" | "X" | "x") && threads <= 1;
    Some((!has_ended).then_some(start))
}

/// Returns the size of a page.
pub(super) fn page_bytes() -> u64 {
    let bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096)
}

/// Returns the value of a field of /proc/<pid>/status.
pub(super) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The folder at which control groups are mounted.
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";

/// Returns the folder of a control group, given its line in /proc/self/cgroup: in version 2 or, for this controller, in version 1.
pub(super) fn group_folder(line: &str, controller: &str) -> Option<PathBuf> {
    let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
    let group = group.trim_start_matches('/');
    match controllers {
        "" => Some(Path::new(CGROUPS).join(group)),
        _ if controllers.split(',').any(|name| name == controller) => {
            Some(Path::new(CGROUPS).join(controller).join(group))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_group_is_found_in_both_versions() {
        let folder = |line| group_folder(line, "memory").map(|folder| folder.display().to_string());
        assert_eq!(folder("0::/a/b").as_deref(), Some("/sys/fs/cgroup/a/b"));
        assert_eq!(folder("7:cpu,memory:/a").as_deref(), Some("/sys/fs/cgroup/memory/a"));
        assert_eq!(folder("4:cpu:/a"), None);
    }

    #[test]
    fn a_process_that_waits_to_be_reaped_has_ended() {
        let stat = |state, threads| {
            let rest = format!("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 {threads} 0 4711 99 100");
            started_in(&format!("12 (a) Z (b) {state} {rest}"))
        };
        assert_eq!(stat("S", 1), Some(Some(4711)));
        assert_eq!(stat("Z", 1), Some(None));
        assert_eq!(stat("Z", 2), Some(Some(4711)), "its other threads run");
        assert_eq!(started_in("12 (a) S 1"), None);
        assert!(started(std::process::id()).unwrap().is_some());
        assert!(started(u32::MAX).is_err());
    }
}
