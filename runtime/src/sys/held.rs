//! A process that is held by its descriptor (pidfd), whoever started it: signals, waits and `/proc` reads that cannot meet another.
#![expect(unsafe_code, reason = "a system call that has no safe wrapper yet")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::libc;

use super::{
    fd::{say, shutdown_both},
    generation::generation,
};

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
    pub(super) fn kill_group(&self) -> bool {
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

    pub(super) fn signal(&self, signal: libc::c_int, flags: libc::c_uint) -> io::Result<()> {
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
