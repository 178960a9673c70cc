//! Holds a process by its descriptor (pidfd), whether or not it is a child: sends it signals, and ends its process group.
//!
//! `child::Child` and the launchers use it. A process is never signalled by its number, which may belong to another process.
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

use super::{exit::write_stderr, fd::shutdown_both, generation::generation, identified::Identified};

/// A process held by a descriptor. A signal that is sent through it cannot reach another process, even if the number was reused.
#[derive(Debug)]
pub(crate) struct Held {
    fd: Identified,
    /// The generation of the process that holds it.
    generation: u32,
    /// The connection that the process watches. Closing it ends the process if signals are refused.
    connection: Weak<Identified>,
    /// A signal to kill the process was refused.
    refused: AtomicBool,
}

impl Held {
    pub(crate) fn new(pidfd: OwnedFd) -> Self {
        let fd = Identified::new(pidfd);
        Self { fd, generation: generation(), connection: Weak::new(), refused: AtomicBool::new(false) }
    }

    /// Records our end of a connection. The process does not survive the end of this connection.
    pub(crate) fn ends_with(&mut self, connection: &Arc<Identified>) {
        self.connection = Arc::downgrade(connection);
    }

    /// Returns a second handle to the same process.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let fd = self.fd.check()?.try_clone_to_owned()?;
        Ok(Self { connection: self.connection.clone(), ..Self::new(fd) })
    }

    /// Kills the process and, if the kernel supports that through a descriptor, its process group. If signals are refused, shuts
    /// down its connection, so that it ends by itself if it can.
    pub(crate) fn kill(&self) {
        // The process itself is always killed, because it may have left its group or not lead it yet.
        self.kill_group();
        match self.signal(libc::SIGKILL, 0) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                self.refused.store(true, Ordering::Relaxed);
                if let Some(connection) = self.connection.upgrade()
                    && let Ok(connection) = connection.check()
                {
                    shutdown_both(connection);
                }
            }
            _ => {}
        }
    }

    /// Returns whether a signal to kill the process was refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Kills the group that the process leads or has led. Returns whether the kernel supports that through a descriptor.
    pub(super) fn kill_group(&self) -> bool {
        /// Since Linux 6.9.
        const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
        match self.signal(libc::SIGKILL, PIDFD_SIGNAL_PROCESS_GROUP) {
            Ok(()) => true,
            // The group may be empty.
            Err(error) => error.raw_os_error() == Some(libc::ESRCH),
        }
    }

    /// Sends SIGTERM to the process. Does nothing if it has ended.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        match self.signal(libc::SIGTERM, 0) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }

    /// Returns whether the process has not been reaped yet. If so, its number has not been reused until now.
    pub(crate) fn has_its_number(&self) -> bool {
        self.signal(0, 0).is_ok()
    }

    /// Returns whether other code has not closed the descriptor.
    pub(crate) fn is_whole(&self) -> bool {
        self.fd.is_whole()
    }

    /// Returns whether this process holds it, and is not a copy of the process that does.
    pub(crate) fn is_own(&self) -> bool {
        self.generation == generation()
    }

    pub(super) fn signal(&self, signal: libc::c_int, flags: libc::c_uint) -> io::Result<()> {
        if !self.is_own() {
            return Ok(());
        }
        // Another process may be held by the number by now.
        let fd = self.fd.check()?.as_raw_fd();
        let info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is ours and open; without a siginfo the kernel reads no memory of ours.
        let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, flags) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The time that a process that cannot be signalled may take to end by itself after its connection was shut down.
pub(crate) const REFUSED_GRACE: Duration = Duration::from_secs(2);

/// Prints a message, once per program, that a process is left that cannot be ended.
pub(crate) fn report_left(pid: u32) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        write_stderr(&format!(
            "procession: process {pid} could not be ended and is left running: the system refuses to signal it \
             (pidfd_send_signal), and it did not end when its connection closed; further cases are not reported\n"
        ));
    }
}

impl AsFd for Held {
    /// Becomes readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
