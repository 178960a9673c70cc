//! The function of a manager's process.
#![expect(unsafe_code, reason = "the section into which `#[worker]` puts the entry")]

use std::os::fd::{AsFd as _, OwnedFd};

use super::serve;
use crate::{error::RemoteError, shared::Fd, task::Task};

/// Serves on this connect socket until the other end of `stop` is closed.
#[procession_macros::worker]
fn manager(connect: Fd<OwnedFd>, stop: Fd<OwnedFd>) -> Result<(), RemoteError> {
    Ok(serve::serve(connect.as_fd(), stop.as_fd())?)
}

/// Returns the task of a manager's process.
pub(super) fn task(connect: OwnedFd, stop: OwnedFd) -> Task<Result<(), RemoteError>> {
    manager::__call2(Fd::new(connect), Fd::new(stop))
}
