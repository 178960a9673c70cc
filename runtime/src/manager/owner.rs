//! What has started the process of a manager, and ends it.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use super::entry;
use crate::{
    error::{Error, RemoteError, Result, TaskError},
    process::Process,
    sync::ignore_poison,
    sys::fd::pipe,
};

/// How long a manager may take to end. It may be running an update.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The process of a manager. It ends when this is dropped.
pub(super) struct Owner {
    process: Mutex<Process<Result<(), RemoteError>>>,
    /// The manager ends when the other end is at its end.
    stop: Mutex<Option<OwnedFd>>,
    cause: OnceLock<Option<String>>,
}

impl Owner {
    /// Starts the process that serves this connect socket.
    pub(super) fn start(connect: OwnedFd) -> Result<Arc<Self>> {
        let failed = |error: io::Error| Error::system("a manager cannot be started", error);
        let (stopped, stop) = pipe().map_err(failed)?;
        let process = Process::builder().name("manager").spawn(entry::task(connect, stopped))?;
        let process = Mutex::new(process);
        Ok(Arc::new(Self { process, stop: Mutex::new(Some(stop)), cause: OnceLock::new() }))
    }

    /// Returns why the process has ended, if that is known soon.
    pub(super) fn cause(&self) -> Option<String> {
        let words = |outcome: Result<Result<(), RemoteError>, TaskError>| match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        let end = || ignore_poison(self.process.lock()).join_timeout(END_TIMEOUT).and_then(words);
        self.cause.get_or_init(end).clone()
    }

    /// Ends the process.
    pub(super) fn end(&self) {
        drop(ignore_poison(self.stop.lock()).take());
        self.cause();
    }
}
