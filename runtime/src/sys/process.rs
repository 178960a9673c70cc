//! Processes: start one by posix_spawn, hold it by a descriptor, signal it, collect how it ended.
#![expect(unsafe_code, reason = "pidfd calls that nix does not wrap")]

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
    ptr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering},
    },
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
        wait::{Id, WaitPidFlag, waitid},
    },
    time::ClockId,
    unistd::Pid,
};

use super::{
    fd::{say, shutdown_both, wait_readable},
    memory::wiped_by_fork,
};

/// The variable that says how many CPUs a worker was given: its share of those of the process that holds its pool. It stays in the
/// worker's environment, so that what a worker starts does not count the machine's CPUs for its own.
pub(crate) const CPUS: &str = "PROCESSION_CPUS";

/// A child process, killed and reaped when this is dropped.
///
/// Its number may be another process's at any time: other code can collect it (`waitpid(-1)`), and so does the kernel where SIGCHLD is
/// ignored. So it is signalled by its descriptor only.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    held: Held,
    reaped: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
    /// Someone else collected it: a `wait` for any child, or SIGCHLD ignored.
    Unknown,
    /// How, the system refuses to say (`waitid`).
    Untold,
}

/// Starts a program in a process group of its own, with empty signal mask, SIGCHLD as it is by default, /dev/null for stdin, and
/// `socket` as descriptor `socket_as`.
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
    attr.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    attr.set_pgroup(Pid::from_raw(0))?;
    attr.set_sigmask(&SigSet::empty())?;
    // To ignore it is inherited: a template, and functions that start programs, could not tell how these have ended.
    attr.set_sigdefault(&SigSet::from(Signal::SIGCHLD))?;
    let reserve = Reserve::new()?;
    let pid = posix_spawn(program, &actions, &attr, args, env)?;
    reserve.hold(pid)
}

fn open_pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two numbers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Errors
///
/// Processes cannot be held by descriptors: which system call is refused, and how.
pub(crate) fn check_pidfd() -> Result<(), (&'static str, io::Error)> {
    let own = open_pidfd(Pid::this()).map_err(|error| ("pidfd_open", error))?;
    Held::new(own).signal(0, 0).map_err(|error| ("pidfd_send_signal", error))
}

/// # Errors
///
/// Processes cannot be put into groups of their own.
pub(crate) fn check_group() -> io::Result<()> {
    // The kernel refuses this number after it has let the call in, and changes nothing.
    match nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(-1)) {
        Err(Errno::EINVAL) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
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
    let reserve = Reserve::new()?;
    // SAFETY: the copy finds nothing half done by another thread (the caller's promise).
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            // Where the kernel wipes nothing, this is how the copy knows.
            mark().store(0, Ordering::Relaxed);
            let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
            Ok(Fork::Child)
        }
        nix::unistd::ForkResult::Parent { child } => reserve.hold(child).map(Fork::Parent),
    }
}

/// The generation of this process, and in a copy, until somebody asks, that of the process that it was copied from.
static GENERATION: AtomicU32 = AtomicU32::new(1);

/// The same in a word that is zero in a copy, until somebody asks.
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// The word where the kernel wipes nothing. Copies that are made by `fork` are told apart, those by a bare system call are not.
static UNWIPED: AtomicU32 = AtomicU32::new(0);

/// In a copy, before anything else of ours.
extern "C" fn wipe() {
    UNWIPED.store(0, Ordering::Relaxed);
}

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
    let made = wiped_by_fork().unwrap_or_else(|_| {
        // SAFETY: `wipe` takes nothing, does not unwind, and only stores to an atomic. Two threads that come here at once have it called
        // twice, which is the same.
        unsafe { libc::pthread_atfork(None, None, Some(wipe)) };
        &UNWIPED
    });
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

/// Enters a folder, unless this process is in it already, as its device and inode tell: then its path need not lead there.
///
/// # Errors
///
/// The path leads to no folder, or to another one.
pub(crate) fn enter(path: &Path, id: Option<(u64, u64)>) -> io::Result<()> {
    if id.is_some() && id == folder_id() {
        return Ok(());
    }
    std::env::set_current_dir(path)?;
    if id.is_some() && id != folder_id() {
        return Err(io::Error::other("another folder is there by now"));
    }
    Ok(())
}

/// Returns the device and the inode of the folder that this process is in.
pub(crate) fn folder_id() -> Option<(u64, u64)> {
    let folder = std::fs::metadata(".").ok()?;
    Some((folder.dev(), folder.ino()))
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

/// Room for the descriptor of a process that is about to be made. One that cannot be held must not be made: there would be no safe way to
/// end it.
struct Reserve(OwnedFd);

impl Reserve {
    fn new() -> io::Result<Self> {
        open_pidfd(Pid::this()).map(Self)
    }

    /// Holds the process that was just made.
    ///
    /// # Errors
    ///
    /// Other code has collected it, and the number may be another process's (`ECHILD`); or another thread was quicker to take the room. Then it is
    /// let go unsignalled: its connection ends, and so does it.
    fn hold(self, pid: Pid) -> io::Result<Child> {
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
        // Of a process that is not a child the kernel says so, whatever its number was before.
        if child.wait(libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) == Some(Ended::Unknown) {
            child.reaped = true;
            return Err(Errno::ECHILD.into());
        }
        Ok(child)
    }
}

/// Collects a child that there is no descriptor for, once it has ended with its connection. The kernel looks the number up once, at the
/// beginning of the wait, so that what gets the number later is not collected.
fn collect_unheld(pid: Pid) {
    let collect = move || while waitid(Id::Pid(pid), WaitPidFlag::WEXITED) == Err(Errno::EINTR) {};
    let _ = std::thread::Builder::new().name("collect".to_owned()).stack_size(64 << 10).spawn(collect);
}

impl Child {
    /// Forgets the child: it is another process's to kill and to reap, whose copy this one is.
    pub(crate) fn disown(mut self) {
        self.reaped = true;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    /// Notes this end of a connection, whose end the process does not survive.
    pub(crate) fn ends_with(&mut self, connection: &Arc<OwnedFd>) {
        self.held.ends_with(connection);
    }

    /// Leaves the process to itself, which cannot be ended, and says so.
    pub(crate) fn give_up(&mut self) {
        self.reaped = true;
        say_left(self.pid());
    }

    /// Collects the process if it has ended.
    pub(crate) fn try_reap(&mut self) -> Option<Ended> {
        self.reap(libc::WNOHANG)
    }

    /// What the process started in its group ends with it.
    fn reap(&mut self, flags: libc::c_int) -> Option<Ended> {
        let ended = self.wait(libc::WEXITED | libc::WNOWAIT | flags)?;
        if !self.held.kill_group() && matches!(ended, Ended::Code(_) | Ended::Signal(_)) {
            // Before Linux 6.9 a group is known by its number alone, which the zombie that was seen just now still holds.
            let _ = nix::sys::signal::killpg(self.pid, Signal::SIGKILL);
        }
        self.wait(libc::WEXITED | libc::WNOHANG);
        self.reaped = true;
        Some(ended)
    }

    fn wait(&self, flags: libc::c_int) -> Option<Ended> {
        let id = self.as_fd().as_raw_fd().unsigned_abs();
        loop {
            // SAFETY: all zero is a valid siginfo: it says that nothing has changed.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: the descriptor is ours and open, and `info` is writable.
            if unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, flags) } != 0 {
                match Errno::last() {
                    Errno::EINTR => continue,
                    // Other code has collected it.
                    Errno::ECHILD => return Some(Ended::Unknown),
                    // It cannot be waited for in this way; that it has ended its descriptor tells.
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
    /// Becomes readable when the process has ended; what is to be passed on for another to hold it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held.as_fd()
    }
}

impl Drop for Child {
    /// Of a copy in another process, which has no such child, only the descriptor goes.
    fn drop(&mut self) {
        if self.reaped || !self.held.is_own() {
            return;
        }
        self.held.kill();
        if self.held.is_refused() && !wait_readable(self.as_fd(), REFUSED_GRACE).unwrap_or(true) {
            return self.give_up();
        }
        let _ = self.reap(0);
    }
}

/// A process, held by a descriptor: a signal that is sent by it cannot reach another process, whatever has become of the number.
#[derive(Debug)]
pub(crate) struct Held {
    fd: OwnedFd,
    /// Who holds it.
    generation: u32,
    /// What the process watches, and ends with: how it is ended where signals are refused.
    connection: Weak<OwnedFd>,
    /// A signal to kill it was refused.
    refused: AtomicBool,
}

impl Held {
    pub(crate) fn new(pidfd: OwnedFd) -> Self {
        Self { fd: pidfd, generation: generation(), connection: Weak::new(), refused: AtomicBool::new(false) }
    }

    /// Notes this end of a connection, whose end the process does not survive.
    pub(crate) fn ends_with(&mut self, connection: &Arc<OwnedFd>) {
        self.connection = Arc::downgrade(connection);
    }

    /// Returns the same process, held once more.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { connection: self.connection.clone(), ..Self::new(self.fd.try_clone()?) })
    }

    /// Kills the process and, where the kernel can do that by a descriptor, what it has started in its group. Where signals are refused,
    /// its connection is shut down: then it ends by itself, if it can.
    pub(crate) fn kill(&self) {
        // The process in any case, for it may have left its group, and may not lead it yet.
        self.kill_group();
        match self.signal(libc::SIGKILL, 0) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                self.refused.store(true, Ordering::Relaxed);
                if let Some(connection) = self.connection.upgrade() {
                    shutdown_both(connection.as_fd());
                }
            }
            _ => {}
        }
    }

    /// Returns whether the process was to be killed, and that was refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Kills the group that the process leads, or has led. Returns whether the kernel can do that by a descriptor.
    fn kill_group(&self) -> bool {
        /// Since Linux 6.9.
        const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
        match self.signal(libc::SIGKILL, PIDFD_SIGNAL_PROCESS_GROUP) {
            Ok(()) => true,
            // There may be nothing left of the group.
            Err(error) => error.raw_os_error() == Some(libc::ESRCH),
        }
    }

    /// Asks the process to end, by SIGTERM. One that has ended hears nothing.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        match self.signal(libc::SIGTERM, 0) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }

    /// Nobody has collected the process yet: until now its number was no other's.
    pub(crate) fn has_its_number(&self) -> bool {
        self.signal(0, 0).is_ok()
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

/// A process that cannot be signalled, but whose connection has ended, has so long to end by itself.
pub(crate) const REFUSED_GRACE: Duration = Duration::from_secs(2);

/// Says, once for this program, that a process is left that cannot be ended.
pub(crate) fn say_left(pid: u32) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        say(&format!(
            "procession: process {pid} could not be ended and is left to itself: the system refuses to signal it (pidfd_send_signal), \
             and it has not ended with its connection; of others nothing more is said\n"
        ));
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

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{BufRead, BufReader, Write},
        os::unix::{net::UnixStream, process::CommandExt},
        process::{self, Command, Stdio},
        thread,
    };

    use nix::sys::{
        signal::{SigHandler, signal},
        wait::waitpid,
    };

    use super::{super::fd::stream_pair, *};

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
        command.args(["--exact", &format!("sys::process::tests::{name}"), "--nocapture", "--test-threads=1"]);
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
        for _ in 0..100 {
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
        let begun = std::time::Instant::now();
        while fs::exists(&folder).unwrap() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it stays a zombie");
            thread::yield_now();
        }
    }

    #[test]
    fn what_a_child_has_started_in_its_group_ends_with_it_whoever_collects_it() {
        const NAME: &str = "what_a_child_has_started_in_its_group_ends_with_it_whoever_collects_it";
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
