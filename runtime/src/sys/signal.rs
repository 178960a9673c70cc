//! Signals in a worker: dispositions as std sets them, and the end of the host by SIGIO.
//!
//! The worker's start uses it, and `fault` for its handlers. Handlers only load and store atomics and make async-signal-safe calls.
#![expect(unsafe_code, reason = "signal handlers")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::atomic::{AtomicI32, Ordering},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

use super::exit::end_group;

/// Ignores SIGPIPE, as the start of std does, and SIGTTOU. A worker is in the background of its terminal, where printing would stop
/// it under `stty tostop`.
pub(crate) fn ignore_pipe_and_terminal() {
    for signal in [libc::SIGPIPE, libc::SIGTTOU] {
        // SAFETY: SIG_IGN is a disposition, not a handler; nothing of ours will run.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Gives every signal the disposition that it has after exec, and unblocks all signals. The handlers belong to the parent, of which
/// this process is a copy. Ignored signals stay ignored, except SIGCHLD, because nothing would be known about children.
pub(crate) fn reset_signals() {
    let all = 1..=libc::SIGRTMAX();
    for signal in all.filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        let before = handler_of(signal);
        if before.is_some_and(|handler| handler != libc::SIG_IGN || signal == libc::SIGCHLD) {
            // SAFETY: SIG_DFL is a disposition, not a handler; nothing of ours will run.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// Returns the handler or disposition of a signal, or `None` if there is no such signal.
pub(super) fn handler_of(signal: i32) -> Option<libc::sighandler_t> {
    // SAFETY: all zero is a valid sigaction, which is overwritten.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new disposition the call only writes the old one, to `action`; it refuses numbers that are none.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } == 0;
    known.then_some(action.sa_sigaction)
}

/// The signature of a handler that is told about the signal.
pub(super) type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Handles a signal, on the stack for signal handlers if this thread has one.
///
/// # Safety
///
/// The handler is async-signal-safe.
pub(super) unsafe fn handle(signal: Signal, handler: Handler, flags: SaFlags) -> io::Result<()> {
    let flags = SaFlags::SA_ONSTACK | flags;
    // SAFETY: the handler does only what a handler may (the caller's promise).
    unsafe { sigaction(signal, &SigAction::new(SigHandler::SigAction(handler), flags, SigSet::empty())) }?;
    Ok(())
}

/// The socket whose hangup ends this process, and the exit code.
static WATCHED: AtomicI32 = AtomicI32::new(-1);
static HANGUP_CODE: AtomicI32 = AtomicI32::new(0);

/// Ends this process and its group as soon as the peer of a socket has closed it, even in the middle of other code. The kernel reports
/// the hangup by SIGIO. For a process that must not have a second thread.
pub(crate) fn end_on_hangup(socket: BorrowedFd<'_>, code: i32) -> io::Result<()> {
    HANGUP_CODE.store(code, Ordering::Relaxed);
    WATCHED.store(socket.as_raw_fd(), Ordering::Relaxed);
    // SAFETY: `on_io` does only what a handler may.
    unsafe { handle(Signal::SIGIO, on_io, SaFlags::SA_RESTART) }?;
    let me = nix::unistd::getpid().as_raw();
    // SAFETY: F_SETOWN takes a number and touches no memory of ours.
    if unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETOWN, me) } < 0 {
        return Err(io::Error::last_os_error());
    }
    set_async(socket, true)?;
    // The hangup may have come before.
    end_if_hung_up();
    Ok(())
}

/// Stops watching for the hangup of the socket.
pub(crate) fn forget_hangup(socket: BorrowedFd<'_>) {
    let _ = set_async(socket, false);
    WATCHED.store(-1, Ordering::Relaxed);
    // SAFETY: SIG_DFL is a disposition, not a handler; nothing of ours will run.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_DFL) };
}

fn set_async(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_ASYNC, on);
    fcntl(socket, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

extern "C" fn on_io(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let before = nix::errno::Errno::last();
    end_if_hung_up();
    before.set();
}

/// Ends the process if the socket has been closed by its peer. Async-signal-safe.
fn end_if_hung_up() {
    let mut watched = libc::pollfd { fd: WATCHED.load(Ordering::Relaxed), events: 0, revents: 0 };
    // SAFETY: one pollfd, which is writable; a negative descriptor is passed over.
    let seen = unsafe { libc::poll(&raw mut watched, 1, 0) };
    if seen == 1 && watched.revents & libc::POLLHUP != 0 {
        end_group(HANGUP_CODE.load(Ordering::Relaxed));
    }
}
