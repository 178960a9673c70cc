//! Starts and copies processes: `posix_spawn`, `fork`, and what a process asks about its parent.
//!
//! The launchers, the template and the worker use it. What was started is a [`Child`].
#![expect(unsafe_code, reason = "`fork`")]

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    sync::atomic::Ordering,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn},
    sys::{
        signal::{SigSet, Signal},
        socket::{getsockopt, sockopt::PeerCredentials},
        stat::Mode,
    },
    unistd::Pid,
};

use super::{
    child::{Child, Reserve, open_pidfd},
    generation::mark,
    held::Held,
};

/// The variable with the number of CPUs that a worker was given: its share of the CPUs of the process that owns the pool. It stays
/// in the worker's environment, so that the programs that a worker starts do not count all CPUs of the machine.
pub(crate) const CPUS: &str = "PROCESSION_CPUS";

/// Starts a program in a process group of its own, with an empty signal mask, the default SIGCHLD disposition, /dev/null as stdin,
/// and `socket` as descriptor `socket_as`.
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
    // An ignored SIGCHLD would be inherited. A template, and functions that start programs, could then not learn how these ended.
    attr.set_sigdefault(&SigSet::from(Signal::SIGCHLD))?;
    let reserve = Reserve::new()?;
    let pid = posix_spawn(program, &actions, &attr, args, env)?;
    reserve.hold(pid)
}

/// The process that started this one has ended.
#[derive(Debug)]
pub(crate) struct HostHasEnded;

/// Returns a descriptor of this process's host, which reports its end: of the parent, which made this connection. Returns `None` if
/// the kernel does not support it.
///
/// # Errors
///
/// The host has ended. This process has another parent now.
pub(crate) fn hold_host(connection: BorrowedFd<'_>) -> Result<Option<OwnedFd>, HostHasEnded> {
    let parent = nix::unistd::getppid();
    let held = open_pidfd(parent).ok();
    let host = getsockopt(&connection, PeerCredentials).map_or(parent, |made| Pid::from_raw(made.pid()));
    // Read again after the descriptor was opened: as long as the host is the parent, its number is its own.
    if nix::unistd::getppid() == host { Ok(held) } else { Err(HostHasEnded) }
}

/// Returns a descriptor of the process that made this pair of sockets, which reports its end. Returns `None` if the kernel does not support
/// it, or if the process has ended.
pub(crate) fn hold_peer(connection: BorrowedFd<'_>) -> Option<OwnedFd> {
    let peer = getsockopt(&connection, PeerCredentials).ok()?;
    open_pidfd(Pid::from_raw(peer.pid())).ok()
}

/// Checks that processes can be held by descriptors.
///
/// # Errors
///
/// They cannot. Returns the system call that was refused, and its error.
pub(crate) fn check_pidfd() -> Result<(), (&'static str, io::Error)> {
    let own = open_pidfd(Pid::this()).map_err(|error| ("pidfd_open", error))?;
    Held::new(own).signal(0, 0).map_err(|error| ("pidfd_send_signal", error))
}

/// Checks that processes can be put into groups of their own.
///
/// # Errors
///
/// They cannot.
pub(crate) fn check_group() -> io::Result<()> {
    // The kernel refuses this number after it has permitted the call, and changes nothing.
    match nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(-1)) {
        Err(Errno::EINVAL) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Tells the parent from the copy after a fork.
#[derive(Debug)]
pub(crate) enum Fork {
    Parent(Child),
    Child,
}

/// Copies this process, into a process group of its own. Runs fork handlers (`pthread_atfork`).
///
/// # Safety
///
/// No other thread may exist, or no other thread may hold anything that the copy will ask for. It exists only in this process.
pub(crate) unsafe fn fork() -> io::Result<Fork> {
    let reserve = Reserve::new()?;
    // SAFETY: the copy finds nothing half done by another thread (the caller's promise).
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            // If the kernel cannot wipe the page, this tells the copy that it is one.
            mark().store(0, Ordering::Relaxed);
            let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
            Ok(Fork::Child)
        }
        nix::unistd::ForkResult::Parent { child } => reserve.hold(child).map(Fork::Parent),
    }
}

/// Returns whether a process has this number. It exists until it was reaped.
pub(crate) fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0);
    pid.is_some_and(|pid| nix::sys::signal::kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH))
}

/// Returns the nanoseconds of the monotonic clock, which all processes of a machine share.
pub(crate) fn monotonic_nanos() -> u64 {
    let Ok(now) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) else { return 0 };
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0)
}

/// Enters a folder, unless this process is already in it, as its device and inode show. In that case its path need not lead there.
///
/// # Errors
///
/// The path does not lead to a folder, or leads to another one.
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
