//! Creates worker processes and reports how they ended.
//!
//! [`Launcher`] and [`Peer`] are the interface: the one starts workers, the other is what each of them can be asked. The pool's
//! scheduler and `process` use them, and `start` chooses the launcher. This module does not know tasks and never imports the worker
//! side. `README.md` describes the design.

mod connection;
mod executable;
mod exit;
#[cfg(all(test, not(loom)))]
pub(crate) mod fake;
mod fork_server;
mod forked;
mod local;
mod missing;
mod options;
pub(crate) mod output;
mod peer;
mod setters;
mod start_method;
mod template;
mod watched;

use std::{fmt, io, os::fd::BorrowedFd};

pub use output::Output;
pub use start_method::StartMethod;

pub(crate) use exit::CLOSED_WITHIN;
pub(crate) use fork_server::ForkLauncher;
pub(crate) use local::LocalLauncher;
pub(crate) use options::{ResolvedOptions, SpawnOptions, Variable};
pub(crate) use output::{Outputs, Streams};
pub(crate) use peer::Peer;
pub(crate) use setters::{run, spawn_setters};
pub(crate) use watched::{KIND_BITS, OUTPUT, PROCESS, PolledLauncher, Watched};

use crate::{
    sys::{
        fd::Failed,
        limits::{explained, is_shortage},
        memory::oom_kills,
    },
    transport::{FrameReceiver, QueueingSender},
};

/// Starts workers.
pub(crate) trait Launcher: Send + Sync {
    /// Starts one worker. Returns as soon as the process exists. Its handshake tells whether it becomes a worker.
    ///
    /// # Errors
    ///
    /// The worker cannot be started.
    fn launch(&self, request: &LaunchRequest<'_>) -> Result<Launch, LaunchError>;

    /// Says how many workers the owner is about to request. It promises nothing. A launcher that must obtain the machines for them
    /// first can do so for all of them.
    fn want(&self, _workers: usize) {}

    /// Returns a descriptor to poll along with the workers, if the launcher works between requests. It is readable when
    /// [`on_readable`](Self::on_readable) has something to do.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Handles what made `poll_fd` readable. Afterwards it is no longer readable for the same reason.
    fn on_readable(&self) {}

    /// Returns how many processes the kernel has killed for lack of memory where the workers run, if that is known.
    fn oom_kills(&self) -> Option<u64> {
        oom_kills()
    }
}

/// The outcome of a request for a worker.
pub(crate) enum Launch {
    Ready(Launched),
    /// The launcher has something to prepare first. [`Launcher::poll_fd`] tells when to ask again.
    NotYet,
}

/// The reason why a worker cannot be started. The `Display` output is for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LaunchError {
    /// The system is short of something, and this call failed. It may succeed later.
    Shortage { doing: &'static str, failed: Failed },
    /// The template has failed. This counts like a worker that ends during its start.
    Failed(String),
    /// The same request would be refused again.
    Refused(String),
}

impl LaunchError {
    /// Classifies the error of a system call. `doing` says what the call was for.
    pub(crate) fn new(doing: &'static str, error: &io::Error) -> Self {
        match Failed::behind(error) {
            Some(failed) if is_shortage(error) => Self::Shortage { doing, failed },
            _ => Self::Refused(format!("{doing}: {error}")),
        }
    }

    /// Returns whether the system is short of something and may have more later.
    pub(crate) fn is_shortage(&self) -> bool {
        matches!(self, Self::Shortage { .. })
    }
}

impl From<io::Error> for LaunchError {
    fn from(error: io::Error) -> Self {
        Self::new("a worker's connection cannot be created", &error)
    }
}

impl fmt::Display for LaunchError {
    /// Finds out which limit is behind a shortage, which takes a while.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shortage { doing, failed } => write!(f, "{doing}: {}", explained((*failed).into())),
            Self::Failed(words) | Self::Refused(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for LaunchError {}

/// The settings of a new worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaunchRequest<'a> {
    /// The whole environment.
    pub(crate) env: &'a [Variable],
    /// The destinations of the worker's output.
    pub(crate) outputs: Outputs,
    /// The key under which the owner's poller reports the worker.
    pub(crate) key: u64,
}

/// A process that was started as a worker, the connection to it, and its output.
pub(crate) struct Launched {
    pub(crate) peer: Box<dyn Peer>,
    pub(crate) sender: Box<dyn QueueingSender>,
    pub(crate) receiver: Box<dyn FrameReceiver>,
    /// The worker may have replies ready without announcing them.
    pub(crate) is_quiet: bool,
    /// The reason why no memory is shared with the worker, unless that was requested.
    pub(crate) why_slow: Option<String>,
    /// The sources of the worker's output, if this process reads it.
    pub(crate) streams: Option<Streams>,
    pub(crate) watched: Watched,
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
