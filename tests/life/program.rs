//! Runs a program of `bin/` and waits for what it does, always with a deadline; knows every process that came of it by a variable
//! in its environment.
#![expect(unsafe_code, reason = "holding a child by a descriptor, inherited descriptors and signals")]

use std::{
    fs,
    io::{PipeReader, Read as _, Write as _},
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Long enough for a loaded machine; a program that takes longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The variable that identifies the processes of one run of a program.
const TOKEN: &str = "PROBE_TOKEN";

/// A program, its output, and all that came of it.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: PipeReader,
    stderr: PipeReader,
    token: String,
    pidfd: OwnedFd,
}

/// The end of a program, and its output.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A string that no other test has.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("probe-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A file of this test's own, in the folder that cargo gives tests. It is not there yet.
pub(crate) fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", unique()))
}

impl Running {
    /// Starts a command. It has none of the descriptors that this process has inherited: some programs count theirs, or look for one. Nor
    /// does it ignore the signals that this process was started to ignore: some programs end by them.
    pub(crate) fn start(command: &mut Command) -> Self {
        static KEEP: Once = Once::new();
        KEEP.call_once(|| {
            keep_inherited_descriptors();
            forget_inherited_dispositions();
        });
        let token = unique();
        let (stdout, child_stdout) = std::io::pipe().unwrap();
        let (stderr, child_stderr) = std::io::pipe().unwrap();
        let child = command
            .env(TOKEN, &token)
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::piped())
            .stdout(child_stdout)
            .stderr(child_stderr)
            .spawn()
            .unwrap();
        // The command keeps its ends of the pipes until it is given others.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let pidfd = hold(child.id()).expect("a child that is not reaped");
        Self { child, stdout, stderr, token, pidfd }
    }

    /// Waits for these lines on stdout, in any order, each once.
    pub(crate) fn expect(&mut self, lines: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        let mut missing = lines.to_vec();
        let mut line = String::new();
        while !missing.is_empty() {
            await_readable(&self.stdout, deadline, &format!("{missing:?}"));
            let mut byte = [0];
            assert_eq!(
                self.stdout.read(&mut byte).unwrap(),
                1,
                "it ended without saying {missing:?}: {}",
                self.said()
            );
            if byte[0] != b'\n' {
                line.push(char::from(byte[0]));
                continue;
            }
            let place = missing.iter().position(|wanted| *wanted == line);
            missing.remove(place.unwrap_or_else(|| panic!("`{line}` was not expected, {missing:?} was")));
            line.clear();
        }
    }

    /// Waits for these words on stderr.
    pub(crate) fn expect_error(&mut self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut said = String::new();
        while !said.contains(words) {
            await_readable(&self.stderr, deadline, words);
            let mut piece = [0; 1024];
            let n = self.stderr.read(&mut piece).unwrap();
            assert_ne!(n, 0, "it ended without saying {words:?}: {said}");
            said += &String::from_utf8_lossy(&piece[..n]);
        }
    }

    /// Sends a line to its stdin.
    pub(crate) fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn said(&mut self) -> String {
        read_to_end(&mut self.stderr, Instant::now() + PATIENCE, "the end of stderr")
    }

    /// Waits until no process holds its stdout or stderr any more, asserts that nothing is left of it, and collects it.
    pub(crate) fn end(mut self, within: Duration) -> Ended {
        let deadline = Instant::now() + within;
        let stdout = read_to_end(&mut self.stdout, deadline, "every process to close stdout");
        let stderr = read_to_end(&mut self.stderr, deadline, "every process to close stderr");
        // A program that has closed its own streams may still be on its way.
        self.parent_ends(deadline.saturating_duration_since(Instant::now()));
        assert_eq!(self.processes(), [0; 0], "processes are left");
        let status = self.child.wait().unwrap();
        Ended { status, stdout, stderr }
    }

    /// Waits until the program itself has ended, in any way.
    pub(crate) fn parent_ends(&self, within: Duration) {
        await_readable(&self.pidfd, Instant::now() + within, "the program to end");
    }

    /// Waits until of all that came of this program only the program itself lives.
    pub(crate) fn alone(&self, within: Duration) {
        let deadline = Instant::now() + within;
        // A worker's own children are reaped by others, at their leisure.
        for pid in self.processes().into_iter().filter(|&pid| pid != self.child.id()) {
            if let Some(pidfd) = hold(pid) {
                await_readable(&pidfd, deadline, "a worker or its child to end");
            }
        }
        assert_eq!(self.processes(), [self.child.id()], "processes are left");
    }

    /// The processes that came of this program and live.
    pub(crate) fn processes(&self) -> Vec<u32> {
        processes(&self.token)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a failed assertion: what is left must not disturb other tests.
        for pid in self.processes() {
            let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// Has none but the standard streams go to the programs that this process executes.
fn keep_inherited_descriptors() {
    let names = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name());
    for fd in names.map(|name| name.to_str().unwrap().parse::<RawFd>().unwrap()).filter(|&fd| fd > 2) {
        // SAFETY: it opens and closes nothing; a number that is no longer open is an error, which is ignored.
        unsafe { nix::libc::fcntl(fd, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC) };
    }
}

/// Ends the ignoring of signals that this process has inherited: a parent in Python has it ignore SIGXFSZ, a shell that runs it in the
/// background SIGINT. What `nohup` is for stays, and SIGPIPE, which is std's.
fn forget_inherited_dispositions() {
    use nix::libc::{SIG_DFL, SIG_IGN, SIGHUP, SIGPIPE, SIGRTMAX, sigaction};
    for signal in (1..=SIGRTMAX()).filter(|signal| ![SIGHUP, SIGPIPE].contains(signal)) {
        // SAFETY: all zeros are a disposition (the default one) with an empty mask and no flags.
        let mut action: sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: it writes the disposition to our own variable, and changes nothing. It refuses signals that have none.
        let known = unsafe { sigaction(signal, std::ptr::null(), &raw mut action) } == 0;
        if known && action.sa_sigaction == SIG_IGN {
            action.sa_sigaction = SIG_DFL;
            // SAFETY: the default action is no function of ours.
            unsafe { sigaction(signal, &raw const action, std::ptr::null_mut()) };
        }
    }
}

/// A descriptor that becomes readable when the process has ended; `None` if there is no such process.
pub(crate) fn hold(pid: u32) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes two numbers and touches no memory of ours.
    let pidfd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) };
    let pidfd = i32::try_from(pidfd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: the kernel has just made it for us.
    Some(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

fn processes(token: &str) -> Vec<u32> {
    let wanted = format!("{TOKEN}={token}");
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            // A process that has ended has no environment, or is not there any more.
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|entry| entry == wanted.as_bytes())
        })
        .collect()
}

/// Waits until there is something to read, or the other end is closed.
pub(crate) fn await_readable(fd: &impl std::os::fd::AsFd, deadline: Instant, what: &str) {
    assert!(is_readable_by(fd, deadline), "timed out: still waiting for {what}");
}

/// Returns whether there is something to read before the deadline.
pub(crate) fn is_readable_by(fd: &impl std::os::fd::AsFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(left).unwrap()) {
            Ok(0) if left.is_zero() => return false,
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return true,
            Err(error) => panic!("{error}"),
        }
    }
}

fn read_to_end(pipe: &mut PipeReader, deadline: Instant, what: &str) -> String {
    let mut text = Vec::new();
    loop {
        await_readable(pipe, deadline, what);
        let mut piece = [0; 4096];
        match pipe.read(&mut piece).unwrap() {
            0 => return String::from_utf8_lossy(&text).into_owned(),
            n => text.extend_from_slice(&piece[..n]),
        }
    }
}

impl Ended {
    /// Asserts that it succeeded and printed nothing to stderr.
    pub(crate) fn quietly(self) -> String {
        assert!(self.status.success() && self.stderr.is_empty(), "{self:?}");
        self.stdout
    }

    /// The signal that ended it.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// One of the two programs of `bin/`, about to play a scene.
pub(crate) fn probe(program: &str, scene: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(scene);
    command
}

/// The program whose workers start before `main`.
pub(crate) const PROBE: &str = env!("CARGO_BIN_EXE_probe");
/// The program whose workers start in `main`.
pub(crate) const PROBE_AT_MAIN: &str = env!("CARGO_BIN_EXE_probe_at_main");
