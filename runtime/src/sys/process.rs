//! Processes: start one by posix_spawn, hold it by a descriptor, signal it, collect how it ended.
#![expect(unsafe_code, reason = "pidfd calls that nix does not wrap")]

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    ptr,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    libc,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn},
    sys::{
        signal::{SigSet, Signal},
        stat::Mode,
    },
    time::ClockId,
    unistd::Pid,
};

use super::memory::wiped_by_fork;

/// The variable that says how many CPUs a worker was given: its share of those of the process that holds its pool. It stays in the
/// worker's environment, so that what a worker starts does not count the machine's CPUs for its own.
pub(crate) const CPUS: &str = "PROCESSION_CPUS";

/// A child process that has not been reaped: its id cannot have been given to another.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    fd: OwnedFd,
    reaped: bool,
    /// Whose child it is.
    generation: u32,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
    /// Someone else collected it: a `wait` for any child, or SIGCHLD ignored.
    Unknown,
}

/// Starts a program in a process group of its own, with empty signal mask, /dev/null for stdin, and `socket` as descriptor
/// `socket_as`.
pub(crate) fn spawn(
    program: &CStr,
    args: &[CString],
    env: &[CString],
    socket: BorrowedFd<'_>,
    socket_as: i32,
) -> io::Result<Child> {
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_open(0, c"/dev/null", OFlag::O_RDONLY, Mode::empty())?;
    actions.add_dup2(socket.as_raw_fd(), socket_as)?;
    let mut attr = PosixSpawnAttr::init()?;
    attr.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETPGROUP | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
    attr.set_pgroup(Pid::from_raw(0))?;
    attr.set_sigmask(&SigSet::empty())?;
    let pid = posix_spawn(program, &actions, &attr, args, env)?;
    hold(pid)
}

fn open_pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two numbers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether this is the process that had the parent's threads, or a copy of one of them.
#[derive(Debug)]
pub(crate) enum Fork {
    Parent(Child),
    Child,
}

/// Makes a copy of this process, in a process group of its own, with what runs at a fork (`pthread_atfork`).
///
/// # Safety
///
/// No other thread may exist, or no other thread may hold anything that the copy will ask for: it exists only here.
pub(crate) unsafe fn fork() -> io::Result<Fork> {
    // SAFETY: the copy finds nothing half done by another thread (the caller's promise).
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            // Where the kernel wipes nothing, this is how the copy knows.
            mark().store(0, Ordering::Relaxed);
            let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
            Ok(Fork::Child)
        }
        nix::unistd::ForkResult::Parent { child } => {
            // Both do it, so that it is so whoever comes first.
            let _ = nix::unistd::setpgid(child, child);
            hold(child).map(Fork::Parent)
        }
    }
}

/// The generation of this process, and in a copy, until somebody asks, that of the process that it was copied from.
static GENERATION: AtomicU32 = AtomicU32::new(1);

/// The same in a word that is zero in a copy, until somebody asks.
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// Where the kernel wipes nothing: copies that others' code makes are not told apart.
static UNWIPED: AtomicU32 = AtomicU32::new(0);

/// Which process this is, of those between the program's start and it, each a copy of the one before, whoever made it: what an object
/// remembers to know whether it is a copy that belongs to another process.
#[inline]
pub(crate) fn generation() -> u32 {
    let mark = mark();
    match mark.load(Ordering::Relaxed) {
        0 => begin_generation(mark),
        this => this,
    }
}

/// No lock: what another thread had locked when the process was copied stays locked in the copy.
#[inline]
fn mark() -> &'static AtomicU32 {
    // SYNC(fork-mark): pairs with the exchange in `make_mark`.
    let mark = MARK.load(Ordering::Acquire);
    if mark.is_null() {
        return make_mark();
    }
    // SAFETY: what is not null there has come from a reference that is good for ever.
    unsafe { &*mark }
}

#[cold]
fn make_mark() -> &'static AtomicU32 {
    let made = wiped_by_fork().unwrap_or(&UNWIPED);
    made.store(GENERATION.load(Ordering::Relaxed), Ordering::Relaxed);
    let made_at = ptr::from_ref(made).cast_mut();
    // SYNC(fork-mark): pairs with the Acquire load in `mark`, and with itself where two threads come at once.
    match MARK.compare_exchange(ptr::null_mut(), made_at, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => made,
        // SAFETY: as in `mark`.
        Err(first) => unsafe { &*first },
    }
}

/// This process is a copy that has only just begun.
#[cold]
fn begin_generation(mark: &AtomicU32) -> u32 {
    let next = GENERATION.load(Ordering::Relaxed) + 1;
    // Of several threads one is the first.
    match mark.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {
            GENERATION.store(next, Ordering::Relaxed);
            next
        }
        Err(this) => this,
    }
}

/// Nanoseconds of the clock that all processes of a machine share and nobody sets.
pub(crate) fn monotonic_nanos() -> u64 {
    let Ok(now) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) else { return 0 };
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0)
}

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

/// Holds a child that was just made and not reaped.
fn hold(pid: Pid) -> io::Result<Child> {
    match open_pidfd(pid) {
        Ok(fd) => Ok(Child { pid, fd, reaped: false, generation: generation() }),
        Err(error) => {
            // Not reaped yet, so the id is still the child's.
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, None);
            Err(error)
        }
    }
}

impl Child {
    /// Forgets the child: it is another process's to kill and to reap, whose copy this one is.
    pub(crate) fn disown(mut self) {
        self.reaped = true;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Kills the process and what it started in its group, unless it has been reaped.
    pub(crate) fn kill(&self) {
        if !self.reaped && self.generation == generation() {
            let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
            let _ = nix::sys::signal::killpg(self.pid, Signal::SIGKILL);
        }
    }

    /// Asks the process to end, by SIGTERM, unless it has been reaped.
    pub(crate) fn terminate(&self) {
        if !self.reaped && self.generation == generation() {
            let _ = nix::sys::signal::kill(self.pid, Signal::SIGTERM);
        }
    }

    /// Collects the process if it has ended.
    pub(crate) fn try_reap(&mut self) -> Option<Ended> {
        self.reap(libc::WNOHANG)
    }

    /// What the process started in its group ends with it: a zombie holds the group's number, so the group can still be named.
    fn reap(&mut self, flags: libc::c_int) -> Option<Ended> {
        let ended = self.wait(libc::WEXITED | libc::WNOWAIT | flags)?;
        let _ = nix::sys::signal::killpg(self.pid, Signal::SIGKILL);
        self.wait(libc::WEXITED);
        self.reaped = true;
        Some(ended)
    }

    fn wait(&self, flags: libc::c_int) -> Option<Ended> {
        let id = self.fd.as_raw_fd().unsigned_abs();
        loop {
            // SAFETY: all zero is a valid siginfo: it says that nothing has changed.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: the descriptor is ours and open, and `info` is writable.
            if unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, flags) } != 0 {
                match Errno::last() {
                    Errno::EINTR => continue,
                    _ => return Some(Ended::Unknown),
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

impl Child {
    /// The same process, for another to hold: what is to be passed on.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsFd for Child {
    /// Becomes readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Child {
    /// Of a copy in another process, which has no such child, only the descriptor goes.
    fn drop(&mut self) {
        if !self.reaped && self.generation == generation() {
            self.kill();
            let _ = self.reap(0);
        }
    }
}

/// Another's child, held by a descriptor that was passed on.
#[derive(Debug)]
pub(crate) struct Held {
    fd: OwnedFd,
    /// Who holds it.
    generation: u32,
}

impl Held {
    pub(crate) fn new(pidfd: OwnedFd) -> Self {
        Self { fd: pidfd, generation: generation() }
    }

    /// Kills the process and, where the kernel can do that by a descriptor, its group.
    pub(crate) fn kill(&self) {
        /// Since Linux 6.9.
        const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
        // The group first, which is known by the process; the process in any case, for it may have left its group.
        let _ = self.signal(libc::SIGKILL, PIDFD_SIGNAL_PROCESS_GROUP);
        let _ = self.signal(libc::SIGKILL, 0);
    }

    /// Asks the process to end, by SIGTERM. One that has ended hears nothing.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        match self.signal(libc::SIGTERM, 0) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }

    /// This process holds it, and is no copy of the one that does.
    pub(crate) fn is_own(&self) -> bool {
        self.generation == generation()
    }

    fn signal(&self, signal: libc::c_int, flags: libc::c_uint) -> io::Result<()> {
        if !self.is_own() {
            return Ok(());
        }
        let fd = self.fd.as_raw_fd();
        let info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is ours and open; without a siginfo the kernel reads no memory of ours.
        let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, flags) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for Held {
    /// Becomes readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Writes out what this process has said and still holds in its buffers: a copy of the process would say it again.
pub(crate) fn flush_streams() {
    let _ = io::Write::flush(&mut io::stdout());
    // SAFETY: a null stream means all of C's own.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// Writes out what std and C still hold of this process's stdout.
pub(crate) fn flush_stdout() {
    unsafe extern "C" {
        static stdout: *mut libc::FILE;
    }
    let _ = io::Write::flush(&mut io::stdout());
    // SAFETY: C's own stream is set before anything of ours runs, and nobody sets it again.
    let stream = unsafe { stdout };
    // SAFETY: it is C's own stream, which is open for as long as the process is; one that is closed all the same is no file any more,
    // which programs that close it know.
    unsafe { libc::fflush(stream) };
}

/// This process runs with more rights than whoever started it (setuid, file capabilities).
pub(crate) fn is_privileged() -> bool {
    // SAFETY: getauxval reads the vector that the kernel made at exec, and takes any number.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// A setting of this library's from the environment, which a process with more rights than its user does not believe.
pub(crate) fn setting(name: &str) -> Option<OsString> {
    if is_privileged() { None } else { std::env::var_os(name) }
}

/// `PROCESSION_WAIT_FOR_DEBUGGER=1`: workers are to wait for a debugger before their first task.
pub(crate) fn waits_for_debugger() -> bool {
    setting("PROCESSION_WAIT_FOR_DEBUGGER").is_some_and(|value| value == "1")
}

/// A debugger holds this process.
pub(crate) fn is_traced() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

/// The address is in the main executable, not in a shared library.
pub(crate) fn is_in_main_program(address: usize) -> bool {
    // SAFETY: getauxval reads the vector that the kernel made at exec, and takes any number.
    let headers = unsafe { libc::getauxval(libc::AT_PHDR) };
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: dladdr looks the address up without reading it, and writes `info` if it returns non-zero.
    let known = unsafe { libc::dladdr(address as *const libc::c_void, info.as_mut_ptr()) };
    if known == 0 {
        // A static executable has no dynamic table, and nothing but itself.
        return true;
    }
    // SAFETY: dladdr returned non-zero, so it wrote the whole of `info`.
    let info = unsafe { info.assume_init() };
    // The program headers lie in the first page of the program's image.
    let base = info.dli_fbase.addr();
    headers == 0 || (base <= headers as usize && (headers as usize) - base < 0x1_0000)
}

/// Takes a variable out of this process's environment and returns what it was.
///
/// # Safety
///
/// No other thread may exist.
pub(crate) unsafe fn take_env(name: &CStr) -> Option<CString> {
    // SAFETY: `name` ends in a zero; no other thread can change the environment meanwhile (the caller's promise).
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: getenv returned it, so it is a string that ends in a zero, and nothing changes it before it is copied.
    let value = unsafe { CStr::from_ptr(value) }.to_owned();
    // SAFETY: as for getenv.
    unsafe { libc::unsetenv(name.as_ptr()) };
    Some(value)
}

/// Sets a variable in this process's environment, or takes it out.
///
/// # Safety
///
/// No other thread may exist.
pub(crate) unsafe fn set_env(name: &OsStr, value: Option<&OsStr>) {
    let Ok(name) = CString::new(name.as_bytes()) else { return };
    match value.map(|value| CString::new(value.as_bytes())) {
        // SAFETY: both end in a zero and setenv copies them; no other thread reads the environment (the caller's promise).
        Some(Ok(value)) => unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) },
        Some(Err(_)) => 0,
        // SAFETY: `name` ends in a zero; no other thread reads the environment (the caller's promise).
        None => unsafe { libc::unsetenv(name.as_ptr()) },
    };
}

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

/// A variable is set. Allocates nothing and changes nothing: for the hook before main.
pub(crate) fn has_env(name: &CStr) -> bool {
    // SAFETY: `name` ends in a zero, and the pointer that comes back is only compared. Before main nothing else runs that could
    // change the environment.
    unsafe { !libc::getenv(name.as_ptr()).is_null() }
}

/// Ends this process at once, without running anything.
pub(crate) fn end_now(code: i32) -> ! {
    // SAFETY: _exit does not return and runs nothing of ours.
    unsafe { libc::_exit(code) }
}

/// Ends this process and what it started in its process group, if the group is its own, at once and without running anything.
pub(crate) fn end_group(code: i32) -> ! {
    // SAFETY: getpgrp cannot fail and takes nothing.
    if unsafe { libc::getpgrp() } == std::process::id().cast_signed() {
        // SAFETY: kill takes two numbers. 0 is our own group, which holds only us and what we started.
        unsafe { libc::kill(0, libc::SIGKILL) };
    }
    end_now(code)
}
