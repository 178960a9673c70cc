//! Finds the limit behind an error that reports a shortage.
//!
//! All code that starts processes or threads uses it, to decide whether a failure is worth another attempt and to name the limit in
//! errors. It only reads.

use std::{fmt::Write as _, fs, io, path::Path};

use nix::{
    errno::Errno,
    sys::resource::{RLIM_INFINITY, Resource, getrlimit},
};

use super::{
    fd::errno_of,
    procfs::{CGROUPS, field, group_folder},
};

/// Returns whether the error reports a shortage of something that may be available later.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let errno = errno_of(error).map(Errno::from_raw);
    matches!(errno, Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE))
}

/// Adds the cause to an error that reports a shortage: a limit, or a PID namespace.
pub(crate) fn explained(error: io::Error) -> io::Error {
    let errno = errno_of(&error).map(Errno::from_raw);
    let is_apart = matches!(errno, Some(Errno::ENOMEM | Errno::EINVAL)) && starts_apart();
    let why = match is_apart {
        true => APART.to_owned(),
        false if is_shortage(&error) => limit_behind(&error),
        false => return error,
    };
    io::Error::new(error.kind(), format!("{error}: {why}"))
}

/// The cause of ENOMEM and EINVAL in such a namespace.
const APART: &str = "new processes go into another PID namespace, which admits no threads of this process, and no \
                     process once its first has ended: was it started by `unshare --pid` without `--fork`?";

/// Returns whether processes that this thread starts go into another PID namespace than its own.
fn starts_apart() -> bool {
    let namespace = |name: &str| fs::read_link(format!("/proc/thread-self/ns/{name}")).ok();
    namespace("pid").is_some_and(|own| namespace("pid_for_children").is_none_or(|other| own != other))
}

/// Names the limits behind a shortage, with their values.
pub(crate) fn limit_behind(error: &io::Error) -> String {
    let limits = match errno_of(error).map(Errno::from_raw) {
        // A thread whose stack finds no memory is refused by this number, too.
        Some(Errno::EAGAIN) => [of_processes(), of_memory()].concat(),
        Some(Errno::ENOMEM) => of_memory(),
        Some(Errno::EMFILE) => {
            vec![rlimit("RLIMIT_NOFILE (`ulimit -n`)", Resource::RLIMIT_NOFILE, count("/proc/self/fd"))]
        }
        Some(Errno::ENFILE) => vec![setting("fs.file-max", "/proc/sys/fs/file-max", None)],
        _ => Vec::new(),
    };
    describe(&limits.into_iter().flatten().collect::<Vec<_>>())
}

/// A limit, and how much of it is used, if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limit {
    name: String,
    most: u64,
    used: Option<u64>,
}

impl Limit {
    /// Returns whether so little is left that another process could have been refused. The usage changes while it is counted.
    fn is_reached(&self) -> bool {
        self.used.is_some_and(|used| used.saturating_add(used / 16 + 2) >= self.most)
    }
}

/// Describes the limits that are reached, or all of them if none is known to be reached.
fn describe(limits: &[Limit]) -> String {
    let reached: Vec<&Limit> = limits.iter().filter(|limit| limit.is_reached()).collect();
    let (begin, named) = match &reached[..] {
        [] if limits.is_empty() => {
            return "no known limit of this process explains it".to_owned();
        }
        [] => ("the limits are: ", limits.iter().collect()),
        _ => ("", reached),
    };
    let mut words = begin.to_owned();
    for (n, Limit { name, most, used }) in named.into_iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        let _ = write!(words, "{comma}{name} is {most}");
        if let Some(used) = used {
            let _ = write!(words, " ({used} in use)");
        }
    }
    words
}

fn of_processes() -> Vec<Option<Limit>> {
    let mut limits = vec![rlimit("RLIMIT_NPROC (`ulimit -u`)", Resource::RLIMIT_NPROC, threads_of_user())];
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limits.extend(groups.lines().flat_map(pids_of_group).map(Some));
    let all = threads_of_all();
    limits.push(setting("kernel.threads-max", "/proc/sys/kernel/threads-max", all));
    limits.push(setting("kernel.pid_max", "/proc/sys/kernel/pid_max", all));
    limits
}

fn of_memory() -> Vec<Option<Limit>> {
    let overcommit = setting("vm.overcommit_memory", "/proc/sys/vm/overcommit_memory", None);
    vec![
        rlimit("RLIMIT_AS (`ulimit -v`, in bytes)", Resource::RLIMIT_AS, None),
        rlimit("RLIMIT_DATA (`ulimit -d`, in bytes)", Resource::RLIMIT_DATA, None),
        overcommit.filter(|overcommit| overcommit.most == 2),
    ]
}

/// Returns a limit of this process, if it has one.
fn rlimit(name: &str, resource: Resource, used: Option<u64>) -> Option<Limit> {
    let (soft, _) = getrlimit(resource).ok()?;
    (soft != RLIM_INFINITY).then(|| Limit { name: name.to_owned(), most: soft, used })
}

fn setting(name: &str, file: &str, used: Option<u64>) -> Option<Limit> {
    Some(Limit { name: name.to_owned(), most: number(Path::new(file))?, used })
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn count(folder: &str) -> Option<u64> {
    Some(fs::read_dir(folder).ok()?.count() as u64)
}

/// Returns the values of `pids.max` for a line of /proc/self/cgroup: those of the group and of all groups above it.
fn pids_of_group(line: &str) -> Vec<Limit> {
    let Some(own) = group_folder(line, "pids") else { return Vec::new() };
    let mut limits = Vec::new();
    for folder in own.ancestors().take_while(|folder| folder.starts_with(CGROUPS)) {
        // Without a limit the value is `max`, which is not a number.
        if let Some(most) = number(&folder.join("pids.max")) {
            let name = format!("pids.max of {}", folder.display());
            limits.push(Limit { name, most, used: number(&folder.join("pids.current")) });
        }
    }
    limits
}

/// Counts the threads of all processes that this process can see.
fn threads_of_all() -> Option<u64> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    load.split(' ').nth(3)?.split_once('/')?.1.parse().ok()
}

/// Counts the threads of the visible processes of this user.
fn threads_of_user() -> Option<u64> {
    let own = nix::unistd::getuid().as_raw();
    let mut sum = 0;
    for process in fs::read_dir("/proc").ok()?.filter_map(Result::ok) {
        let Ok(status) = fs::read_to_string(process.path().join("status")) else { continue };
        sum += threads_of(&status, own).unwrap_or(0);
    }
    Some(sum)
}

/// Returns the number of threads of a process of this user, from its /proc/<pid>/status.
fn threads_of(status: &str, user: u32) -> Option<u64> {
    let real = field(status, "Uid:")?.split_whitespace().next()?.parse::<u32>().ok()?;
    (real == user).then(|| field(status, "Threads:")?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, most: u64, used: Option<u64>) -> Limit {
        Limit { name: name.to_owned(), most, used }
    }

    #[test]
    fn limits_that_are_reached_are_named_and_all_are_if_none_is() {
        let limits = [limit("A", 64, Some(64)), limit("B", 4000, Some(64)), limit("C", 9, None)];
        assert_eq!(describe(&limits), "A is 64 (64 in use)");
        assert_eq!(describe(&limits[1..]), "the limits are: B is 4000 (64 in use), C is 9");
        assert_eq!(describe(&[]), "no known limit of this process explains it");
    }

    #[test]
    fn a_processes_threads_count_for_its_real_user() {
        let status = "Name:\tx\nUid:\t1000\t0\t0\t0\nThreads:\t7\n";
        assert_eq!(
            (threads_of(status, 1000), threads_of(status, 0), threads_of("", 0)),
            (Some(7), None, None)
        );
    }

    #[test]
    fn a_shortage_is_explained_and_nothing_else_is() {
        let explained = |errno: Errno| super::explained(io::Error::from(errno)).to_string();
        assert!(
            explained(Errno::EMFILE).contains("RLIMIT_NOFILE (`ulimit -n`) is "),
            "{}",
            explained(Errno::EMFILE)
        );
        assert!(explained(Errno::EAGAIN).contains("kernel.threads-max is "), "{}", explained(Errno::EAGAIN));
        assert_eq!(explained(Errno::ENOENT), io::Error::from(Errno::ENOENT).to_string());
    }
}
