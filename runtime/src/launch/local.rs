//! Starts workers on this machine by executing this program again with `posix_spawn`, whose cost does not depend on how much memory
//! this process uses.

use std::os::fd::AsFd;

use super::{
    Launch, LaunchError, LaunchRequest, Launcher,
    connection::{WorkerConnection, random_token},
    executable::{execute_self, next_depth},
    missing::check_executable,
    peer::LocalProcess,
};
use crate::{
    marker::{Marker, Role, SOCKET_FD},
    sys::fd::stream_pair,
};

/// Starts workers by executing this executable again.
#[derive(Debug)]
pub(crate) struct LocalLauncher {
    depth: u32,
}

impl LocalLauncher {
    /// Creates a launcher.
    ///
    /// # Errors
    ///
    /// This program cannot be started again as a worker. The error is a message for the user.
    pub(crate) fn new() -> Result<Self, String> {
        check_executable()?;
        Ok(Self { depth: next_depth()? })
    }
}

impl Launcher for LocalLauncher {
    fn launch(&self, request: &LaunchRequest<'_>) -> Result<Launch, LaunchError> {
        let token = random_token();
        let (socket, theirs) = stream_pair()?;
        let marker = Marker { role: Role::Worker, fd: SOCKET_FD, token, depth: self.depth };
        let mut child = execute_self(request.env, marker, theirs.as_fd())?;
        drop(theirs);
        // The process takes a while to begin, so there is time for the rest.
        let connection = WorkerConnection::share(socket, token, request.outputs)?;
        child.ends_with(connection.socket());
        Ok(Launch::Ready(connection.launched(LocalProcess::Child(child))))
    }
}
