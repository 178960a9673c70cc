//! Makes worker processes exist and says how they ended. Knows no task.

mod fork;
mod local;
mod method;
mod output;
mod surroundings;

use std::{fmt, io, os::fd::BorrowedFd};

pub use method::StartMethod;
pub use output::Output;

pub(crate) use fork::ForkLauncher;
pub(crate) use local::LocalLauncher;
pub(crate) use output::Outputs;
pub(crate) use surroundings::{Settled, Surroundings, Variable};

use crate::{
    error::Exit,
    sys::process::Held,
    transcript::Transcript,
    transport::{Board, FrameReceiver, QueueingSender},
};

/// Starts workers: here, or wherever else an executable can be started.
pub(crate) trait Launcher: Send + Sync {
    /// Starts one. Returns as soon as the process exists; whether it becomes a worker, its handshake tells.
    ///
    /// # Errors
    ///
    /// It cannot be started, in words for people. [`WouldBlock`](io::ErrorKind::WouldBlock) is no failure: what workers are made from
    /// is being made, and [`poll_fd`](Self::poll_fd) tells when to ask again. A [`NeverReady`] within says that it has failed.
    fn launch(&self, request: &LaunchRequest<'_>) -> io::Result<Launched>;

    /// What to poll besides the workers: readable when [`tend`](Self::tend) has something to see to.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Sees to what `poll_fd` told of; afterwards it is not readable for the same reason.
    fn tend(&self) {}
}

/// What workers are made from could not be made: as bad as a worker that ends as it starts.
#[derive(Debug)]
pub(crate) struct NeverReady(pub(crate) String);

impl fmt::Display for NeverReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NeverReady {}

/// What a new worker is to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaunchRequest<'a> {
    /// What its environment has, or has not, on top of this process's own.
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
    pub(crate) transcript: Option<Transcript>,
}

/// A worker's process, not yet reaped.
pub(crate) trait WorkerProcess: Send {
    fn pid(&self) -> u32;

    /// What holds it: to signal it by, and to poll, for it is readable when the process has ended.
    fn held(&self) -> &Held;

    /// Collects it if it has ended: how, if that is known.
    fn try_reap(&mut self) -> Option<Option<Exit>>;
}
