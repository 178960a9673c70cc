//! Processes that are held by a descriptor: a signal reaches the process that was found, or none, and never another with the same pid.
#![expect(unsafe_code, reason = "pidfd calls that nix does not wrap")]

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::{libc, sys::signal::Signal, unistd::Pid};

#[derive(Debug)]
pub(crate) struct Held(OwnedFd);

impl Held {
    /// Holds the process of this number if, now that it is held, it is still a wanted one. `None`: it has gone.
    pub(crate) fn new(pid: Pid, is_wanted: impl FnOnce() -> bool) -> Option<Self> {
        // SAFETY: pidfd_open takes two numbers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the call has just made the descriptor, and nothing else owns it.
        let held = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        is_wanted().then_some(held)
    }

    /// Sends it a signal. `false`: it has gone.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: without a siginfo the call takes numbers only.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal as i32, info, 0) == 0 }
    }
}
