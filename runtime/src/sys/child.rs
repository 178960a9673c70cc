//! Holds, reaps and ends child processes, each by a descriptor (pidfd).
//!
//! `process` makes them. A child is signalled only through its [`Held`] descriptor, and a child that cannot be held is not kept.
#![expect(unsafe_code, reason = "pidfd calls that nix does not wrap")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        signal::Signal,
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

use super::{
    fd::uninterrupted,
    held::{Held, REFUSED_GRACE, report_left},
    identified::Identified,
    poll::wait_readable,
    thread,
};

/// A child process. It is killed and reaped on drop.
///
/// Its number may belong to another process at any time, because other code can reap it (`waitpid(-1)`), and the kernel does where
/// SIGCHLD is ignored. It is therefore signalled only by its descriptor.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    held: Held,
    reaped: bool,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
    /// Other code reaped it: a `wait` for any child, or SIGCHLD is ignored.
    Unknown,
    /// The system call that reports it was refused (`waitid`), or other code has closed the descriptor.
    Untold,
}

pub(super) fn open_pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two numbers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reserves room for the descriptor of a process that is about to be made. A process that cannot be held must not be made, because
/// it could not be ended safely.
pub(super) struct Reserve(OwnedFd);

impl Reserve {
    pub(super) fn new() -> io::Result<Self> {
        open_pidfd(Pid::this()).map(Self)
    }

    /// Holds the process that was just made.
    ///
    /// # Errors
    ///
    /// Other code has reaped it, and the number may belong to another process (`ECHILD`). Or another thread took the room first.
    /// Then the process is not signalled. It ends because its connection ends.
    pub(super) fn hold(self, pid: Pid) -> io::Result<Child> {
        drop(self.0);
        let held = match open_pidfd(pid) {
            Ok(pidfd) => Held::new(pidfd),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(Errno::ECHILD.into()),
            Err(error) => {
                collect_unheld(pid);
                return Err(error);
            }
        };
        let mut child = Child { pid, held, reaped: false };
        // If the process is not a child, the kernel says so, whatever the number meant before.
        if child.wait(libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) == Some(Ended::Unknown) {
            child.reaped = true;
            return Err(Errno::ECHILD.into());
        }
        Ok(child)
    }
}

/// Reaps a child without a descriptor once it has ended with its connection. The kernel looks up the number once, at the beginning
/// of the wait, so a process that gets the number later is not reaped.
fn collect_unheld(pid: Pid) {
    let collect = move || uninterrupted(|| waitid(Id::Pid(pid), WaitPidFlag::WEXITED));
    let _ = thread::named("collect").stack_size(64 << 10).spawn(collect);
}

impl Child {
    /// Forgets the child. It belongs to the process that this process is a copy of.
    pub(crate) fn disown(mut self) {
        self.reaped = true;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    /// Records our end of a connection. The process does not survive the end of this connection.
    pub(crate) fn ends_with(&mut self, connection: &Arc<Identified>) {
        self.held.ends_with(connection);
    }

    /// Gives up a process that cannot be ended, and prints a message about it.
    pub(crate) fn give_up(&mut self) {
        self.reaped = true;
        report_left(self.pid());
    }

    /// Reaps the process if it has ended.
    pub(crate) fn try_reap(&mut self) -> Option<Ended> {
        self.reap(libc::WNOHANG)
    }

    /// Reaps the process and kills its process group.
    fn reap(&mut self, flags: libc::c_int) -> Option<Ended> {
        let ended = self.wait(libc::WEXITED | libc::WNOWAIT | flags)?;
        if !self.held.kill_group() && matches!(ended, Ended::Code(_) | Ended::Signal(_)) {
            // Before Linux 6.9 a group can be addressed only by its number, which the zombie that was just seen still holds.
            let _ = nix::sys::signal::killpg(self.pid, Signal::SIGKILL);
        }
        self.wait(libc::WEXITED | libc::WNOHANG);
        self.reaped = true;
        Some(ended)
    }

    fn wait(&self, flags: libc::c_int) -> Option<Ended> {
        if !self.held.is_whole() {
            // The number may hold another child.
            return Some(Ended::Untold);
        }
        let id = self.as_fd().as_raw_fd().unsigned_abs();
        loop {
            // SAFETY: all zero is a valid siginfo: it says that nothing has changed.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: the descriptor is ours and open, and `info` is writable.
            if unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, flags) } != 0 {
                match Errno::last() {
                    Errno::EINTR => continue,
                    // Other code has reaped it.
                    Errno::ECHILD => return Some(Ended::Unknown),
                    // It cannot be waited for in this way. Its descriptor reports that it has ended.
                    _ => {
                        let is_to_wait = flags & libc::WNOHANG == 0;
                        let timeout = if is_to_wait { Duration::MAX } else { Duration::ZERO };
                        let has_ended = wait_readable(self.as_fd(), timeout).unwrap_or(true);
                        return has_ended.then_some(Ended::Untold);
                    }
                }
            }
            // SAFETY: waitid has filled in the fields for SIGCHLD, or left the zeros.
            let pid = unsafe { info.si_pid() };
            if pid == 0 {
                return None;
            }
            // SAFETY: as above.
            let status = unsafe { info.si_status() };
            return Some(match info.si_code {
                libc::CLD_EXITED => Ended::Code(status),
                _ => Ended::Signal(status),
            });
        }
    }
}

impl AsFd for Child {
    /// Becomes readable when the process has ended. Can be passed on, so that another process can hold it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held.as_fd()
    }
}

impl Drop for Child {
    /// Kills and reaps the process. A copy of this process has no such child, so there only the descriptor is closed.
    fn drop(&mut self) {
        if self.reaped || !self.held.is_own() {
            return;
        }
        self.held.kill();
        let is_seen = self.held.is_whole();
        if is_seen && self.held.is_refused() && !wait_readable(self.as_fd(), REFUSED_GRACE).unwrap_or(true) {
            return self.give_up();
        }
        let _ = self.reap(0);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::{CStr, CString},
        fs,
        io::{BufRead, BufReader, Write},
        os::unix::{net::UnixStream, process::CommandExt},
        process,
        process::{Command, Stdio},
        thread,
        time::Instant,
    };

    use nix::sys::{
        signal::{SigHandler, signal},
        wait::waitpid,
    };

    use super::{
        super::{fd::stream_pair, process::spawn},
        *,
    };

    /// In a process that runs one test in a PID namespace.
    const IN_NAMESPACE: &str = "PROCESSION_TESTS_NAMESPACE";

    /// Runs a test of this module as the first process of a PID namespace: there it says which number is given away next.
    fn in_namespace(name: &str, body: impl FnOnce()) {
        if std::env::var_os(IN_NAMESPACE).is_some() {
            return body();
        }
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("sys::child::tests::{name}"), "--nocapture", "--test-threads=1"]);
        let output = match command.env(IN_NAMESPACE, "1").output() {
            Ok(output) => output,
            Err(error) => return println!("not run: `{name}`: unshare cannot be executed: {error}"),
        };
        let words = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if words.contains("unshare: ") || words.contains("not run: ") {
            return println!("not run: `{name}`: {words}");
        }
        assert!(output.status.success() && words.contains("1 passed"), "{words}");
    }

    fn start(program: &CStr, args: &[&CStr]) -> (Child, UnixStream) {
        let args: Vec<CString> = args.iter().map(|&arg| arg.to_owned()).collect();
        let (ours, theirs) = stream_pair().unwrap();
        (spawn(program, &args, &[], theirs.as_fd(), 3).unwrap(), UnixStream::from(ours))
    }

    /// Another program that leads a process group, with the same number as `child` had.
    fn namesake(child: &Child) -> process::Child {
        // The kernel frees a number a moment after its process was collected, which may be long on a busy machine.
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            fs::write("/proc/sys/kernel/ns_last_pid", (child.pid() - 1).to_string()).unwrap();
            let mut other = Command::new("cat");
            other.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut other = other.spawn().unwrap();
            if other.id() == child.pid() {
                return other;
            }
            let _ = (other.kill(), other.wait());
        }
        panic!("the number {} is not given away again", child.pid());
    }

    /// It has got no signal that ends it: it would not come to its next line.
    fn assert_lives(other: &mut process::Child) {
        other.stdin.as_mut().unwrap().write_all(b"still here\n").unwrap();
        let mut line = String::new();
        BufReader::new(other.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "still here\n", "process {} was killed, which is not ours", other.id());
    }

    fn ignore_ends(is_so: bool) {
        let handler = if is_so { SigHandler::SigIgn } else { SigHandler::SigDfl };
        // SAFETY: neither is a handler that could be called.
        unsafe { signal(Signal::SIGCHLD, handler) }.unwrap();
    }

    #[test]
    fn a_process_that_has_the_number_of_a_child_that_other_code_collected_gets_no_signal() {
        const NAME: &str =
            "a_process_that_has_the_number_of_a_child_that_other_code_collected_gets_no_signal";
        in_namespace(NAME, || {
            if fs::metadata("/proc/sys/kernel/ns_last_pid").is_err() {
                return println!("not run: this kernel does not let a number be chosen");
            }
            assert_eq!(process::id(), 1);
            for collects_itself in [true, false] {
                let (mut child, _) = start(c"/bin/true", &[c"true"]);
                if collects_itself {
                    assert_eq!(waitpid(Pid::from_raw(-1), None).unwrap().pid(), Some(child.pid));
                } else {
                    // The kernel does it.
                    ignore_ends(true);
                    let ours;
                    (child, ours) = start(c"/bin/sh", &[c"sh", c"-c", c"read line <&3"]);
                    // It is held by now, and ends.
                    drop(ours);
                    let is_gone = |child: &Child| !fs::exists(format!("/proc/{}", child.pid())).unwrap();
                    while !is_gone(&child) {
                        thread::yield_now();
                    }
                }
                let mut other = namesake(&child);
                assert!(!child.held().has_its_number());
                child.held().kill();
                child.held().terminate().unwrap();
                assert_eq!(child.try_reap(), Some(Ended::Unknown));
                assert_lives(&mut other);
                child.reaped = false;
                drop(child);
                assert_lives(&mut other);
                ignore_ends(false);
                other.kill().unwrap();
                let _ = other.wait();
            }
        });
    }

    #[test]
    fn a_process_that_is_no_child_is_not_held() {
        // It has the number that a child had.
        let error = Reserve::new().unwrap().hold(Pid::parent()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECHILD), "{error}");
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "what is tested collects it")]
    fn a_child_that_cannot_be_held_is_collected_once_it_has_ended() {
        let mut child = Command::new("cat");
        let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
        let folder = format!("/proc/{}", child.id());
        collect_unheld(Pid::from_raw(child.id().cast_signed()));
        assert!(fs::exists(&folder).unwrap(), "it lives while its connection does");
        drop(child.stdin.take());
        let begun = Instant::now();
        while fs::exists(&folder).unwrap() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it stays a zombie");
            thread::yield_now();
        }
    }

    #[test]
    fn the_group_of_a_child_ends_with_it_even_if_other_code_reaps_it() {
        const NAME: &str = "the_group_of_a_child_ends_with_it_even_if_other_code_reaps_it";
        in_namespace(NAME, || {
            let (leader, _) = start(c"/bin/true", &[c"true"]);
            let groups_have_descriptors = leader.held().kill_group();
            for is_collected in [false, true] {
                // The socket is its descriptor 3.
                let (child, mut ours) = start(c"/bin/sh", &[c"sh", c"-c", c"sleep 1000 & echo $! >&3"]);
                let mut line = String::new();
                BufReader::new(&mut ours).read_line(&mut line).unwrap();
                let started = open_pidfd(Pid::from_raw(line.trim().parse().unwrap())).unwrap();
                wait_readable(child.as_fd(), Duration::MAX).unwrap();
                if is_collected {
                    assert_eq!(waitpid(child.pid, None).unwrap().pid(), Some(child.pid));
                }
                assert!(!wait_readable(started.as_fd(), Duration::ZERO).unwrap());
                drop(child);
                let has_ended = wait_readable(started.as_fd(), Duration::from_secs(10)).unwrap();
                if is_collected && !groups_have_descriptors {
                    println!(
                        "before Linux 6.9 what is left of a group is not signalled once its leader is collected"
                    );
                } else {
                    assert!(has_ended, "it goes on");
                }
            }
        });
    }
}
