//! A descriptor that other code of the process may close, after which its number may be given to another file.
//!
//! The transports, the worker and the template use it for what they read, write or wait for while user code runs. A `Poller` has a
//! seal for the same purpose.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use super::fd::identity;

/// The message for everything in a host that needs descriptors that other code has closed.
pub(crate) const CLOSED: &str = "the descriptors by which its worker is watched were closed by other code in this process \
     (`closefrom`, for example, or a `close` of a number that is not its own); pools and processes that are made afterwards work";

pub(crate) fn closed() -> io::Error {
    io::Error::other(CLOSED)
}

/// A descriptor and the identity of the file that it had when this was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identified<F> {
    fd: F,
    /// `None` if the system does not tell. Then the descriptor is trusted.
    identity: Option<(u64, u64)>,
}

impl<F: AsFd> Identified<F> {
    /// Notes the identity of the descriptor's file.
    pub(crate) fn new(fd: F) -> Self {
        let identity = identity(fd.as_fd());
        Self { fd, identity }
    }

    /// Returns whether the number still means the same file. Async-signal-safe.
    pub(crate) fn is_whole(&self) -> bool {
        self.identity.is_none() || identity(self.fd.as_fd()) == self.identity
    }

    /// Returns the descriptor.
    ///
    /// # Errors
    ///
    /// Other code has closed it.
    pub(crate) fn check(&self) -> io::Result<BorrowedFd<'_>> {
        if self.is_whole() { Ok(self.fd.as_fd()) } else { Err(closed()) }
    }
}

/// Does not check.
impl<F: AsFd> AsFd for Identified<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
