//! Makes worker processes exist and says how they ended. Knows no task.

mod connection;
mod executable;
mod fork_server;
mod forked;
mod local;
mod missing;
mod options;
pub(crate) mod output;
mod start_method;
mod template;

use std::{fmt, io, os::fd::BorrowedFd};

pub use output::Output;
pub(crate) use start_method::METHODS;
pub use start_method::StartMethod;

pub(crate) use fork_server::ForkLauncher;
pub(crate) use local::LocalLauncher;
pub(crate) use options::{Settled, Surroundings, Variable};
pub(crate) use output::{Outputs, Streams};

use crate::{
    error::Exit,
    protocol::Refused,
    sys::{
        fd::Failed,
        held::Held,
        limits::{explained, is_shortage},
    },
    transport::{Board, FrameReceiver, QueueingSender},
};

/// Starts workers: here, or wherever else an executable can be started.
pub(crate) trait Launcher: Send + Sync {
    /// Starts one. Returns as soon as the process exists; whether it becomes a worker, its handshake tells.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    fn launch(&self, request: &LaunchRequest<'_>) -> Result<Launch, LaunchError>;

    /// What to poll besides the workers: readable when [`tend`](Self::tend) has something to see to.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Sees to what `poll_fd` told of; afterwards it is not readable for the same reason.
    fn tend(&self) {}
}

/// What comes of the wish for a worker.
pub(crate) enum Launch {
    Ready(Launched),
    /// What workers are made from is being made: [`Launcher::poll_fd`] tells when to ask again.
    NotYet,
}

/// Why a worker cannot be started. Printed, it is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LaunchError {
    /// The system is short of something, and this call failed. It may have more later.
    Shortage { doing: &'static str, failed: Failed },
    /// What workers are made from has failed: as bad as a worker that ends as it starts.
    Failed(String),
    /// The process has ended, and has told why.
    Told(Refused),
    /// It would be refused again.
    Refused(String),
}

impl LaunchError {
    /// The error of a system call, which was to do this.
    pub(crate) fn new(doing: &'static str, error: &io::Error) -> Self {
        match Failed::behind(error) {
            Some(failed) if is_shortage(error) => Self::Shortage { doing, failed },
            _ => Self::Refused(format!("{doing}: {error}")),
        }
    }

    /// The system is short of something, of which it may have more later.
    pub(crate) fn is_shortage(&self) -> bool {
        matches!(self, Self::Shortage { .. } | Self::Told(Refused { is_short: true, .. }))
    }
}

impl From<io::Error> for LaunchError {
    fn from(error: io::Error) -> Self {
        Self::new("a worker's connection cannot be made", &error)
    }
}

impl fmt::Display for LaunchError {
    /// Finds out which limit stands behind a shortage, which takes a while.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shortage { doing, failed } => write!(f, "{doing}: {}", explained((*failed).into())),
            Self::Told(Refused { reason: words, .. }) | Self::Failed(words) | Self::Refused(words) => {
                f.write_str(words)
            }
        }
    }
}

impl std::error::Error for LaunchError {}

/// What a new worker is to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaunchRequest<'a> {
    /// Its whole environment.
    pub(crate) env: &'a [Variable],
    /// Where its output goes.
    pub(crate) outputs: Outputs,
}

/// A process that was started to be a worker, and the way to talk to it.
pub(crate) struct Launched {
    pub(crate) sender: Box<dyn QueueingSender>,
    pub(crate) receiver: Box<dyn FrameReceiver>,
    /// The page shared with it, if it runs on this machine.
    pub(crate) board: Option<Board>,
    /// It may have replies ready without telling.
    pub(crate) is_quiet: bool,
    /// Why there is no shared memory between the two, if nobody has asked for that.
    pub(crate) why_slow: Option<String>,
    pub(crate) process: Box<dyn WorkerProcess>,
    /// What it writes, if it comes here.
    pub(crate) streams: Option<Streams>,
}

/// A worker's process, not yet reaped.
pub(crate) trait WorkerProcess: Send {
    fn pid(&self) -> u32;

    /// What holds it: to signal it by, and to poll, for it is readable when the process has ended.
    fn held(&self) -> &Held;

    /// Collects it if it has ended: how, or why that is not known.
    fn try_reap(&mut self) -> Option<Result<Exit, &'static str>>;

    /// Leaves it to itself, for it cannot be ended, and says so.
    fn give_up(&mut self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_names_the_system_call_that_failed() {
        let errno = nix::libc::EMFILE;
        for (error, words) in [
            (Failed::from_raw("pipe2", errno).into(), "a worker cannot be made: pipe2: Too many open files"),
            (io::Error::from_raw_os_error(errno), "a worker cannot be made: Too many open files"),
        ] {
            let error = LaunchError::new("a worker cannot be made", &error);
            assert!(error.is_shortage(), "{error:?}");
            assert!(error.to_string().starts_with(words), "{error}");
        }
    }
}
