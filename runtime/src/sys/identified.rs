//! A descriptor that other code of the process may close, after which its number may be given to another file.
//!
//! Everything that keeps a descriptor while user code runs owns it through [`Identified`]: transports, launchers, pollers, held
//! processes, the worker and the template. Nothing else may close a descriptor that is kept that long.

use std::{
    io,
    mem::ManuallyDrop,
    ops::Deref,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::fd::identity;

/// The message for everything in a host that needs descriptors that other code has closed.
pub(crate) const CLOSED: &str = "the descriptors by which its worker is watched were closed by other code in this process \
     (`closefrom`, for example, or a `close` of a number that is not its own); pools and processes that are made afterwards work";

pub(crate) fn closed() -> io::Error {
    io::Error::other(CLOSED)
}

/// An owned descriptor and the identity of the file that it had when this was made.
///
/// On drop it is closed only if its number still means that file. An `OwnedFd` would close what has the number by then, and abort
/// the process in a debug build if nothing has it. Eventfds, timers and epoll sets, and pidfds before Linux 6.9, share one identity, so
/// one of them in the place of another is closed.
///
/// `F` owns one descriptor and nothing else, so that it is dropped by closing it.
#[derive(Debug)]
pub(crate) struct Identified<F: AsFd = OwnedFd> {
    fd: ManuallyDrop<F>,
    /// `None` if the system does not tell. Then the descriptor is trusted.
    identity: Option<(u64, u64)>,
}

impl<F: AsFd> Identified<F> {
    /// Notes the identity of the descriptor's file.
    pub(crate) fn new(fd: F) -> Self {
        let identity = identity(fd.as_fd());
        Self { fd: ManuallyDrop::new(fd), identity }
    }

    /// Returns whether the number still means the same file. Async-signal-safe.
    pub(crate) fn is_whole(&self) -> bool {
        self.identity.is_none() || identity(self.as_fd()) == self.identity
    }

    /// Returns the descriptor.
    ///
    /// # Errors
    ///
    /// Other code has closed it.
    pub(crate) fn check(&self) -> io::Result<BorrowedFd<'_>> {
        if self.is_whole() { Ok(self.as_fd()) } else { Err(closed()) }
    }
}

/// Does not check.
impl<F: AsFd> AsFd for Identified<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Does not check.
impl<F: AsFd> Deref for Identified<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.fd
    }
}

impl<F: AsFd> Drop for Identified<F> {
    fn drop(&mut self) {
        if self.is_whole() {
            let _ = nix::unistd::close(self.as_fd().as_raw_fd());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::sys::fd::{open_null, pipe};

    #[test]
    fn a_descriptor_is_closed_on_drop() {
        let (ours, theirs) = pipe().unwrap();
        drop(Identified::new(theirs));
        assert_eq!(std::fs::File::from(ours).read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_file_that_has_got_the_number_stays_open() {
        let (ours, theirs) = pipe().unwrap();
        let mut other = Identified::new(open_null().unwrap());
        assert!(other.is_whole());
        nix::unistd::dup2(&theirs, &mut other.fd).unwrap();
        assert!(!other.is_whole() && other.check().is_err());
        let raw = other.as_fd().as_raw_fd();
        drop((other, theirs));
        let path = format!("/proc/self/fd/{raw}");
        std::fs::File::options().write(true).open(path).unwrap().write_all(b"x").unwrap();
        let mut byte = [0];
        assert_eq!(std::fs::File::from(ours).read(&mut byte).unwrap(), 1);
        nix::unistd::close(raw).unwrap();
    }
}
