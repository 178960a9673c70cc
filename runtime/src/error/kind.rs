//! The kinds of task errors, and the position of a task when it failed. [`TaskError`](super::TaskError) wraps them.

use std::{borrow::Cow, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Result, exit::Exit};
use crate::{escape::Lines, id::WorkerId, panic::RemotePanic};

/// The position of a task, and what is known about its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskLocation {
    /// The index of the task in its call.
    pub(crate) index: Option<usize>,
    /// The number of times that the task was started.
    pub(crate) attempts: u32,
    /// The worker that ran it last, by its place in the pool and its pid.
    pub(crate) worker: Option<(WorkerId, u32)>,
}

/// The reason why a task that ran has no result, as reported by the process that ran it. Crosses processes.
///
/// As small as possible, because a result without a fault is moved together with the space for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault(Box<FaultKind>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FaultKind {
    /// The function panicked.
    Panic(RemotePanic),
    /// A value could not be encoded or decoded. The text is the message.
    Codec(String),
}

impl Fault {
    #[cold]
    pub(crate) fn panic(panic: RemotePanic) -> Self {
        Self(Box::new(FaultKind::Panic(panic)))
    }

    #[cold]
    pub(crate) fn codec(words: String) -> Self {
        Self(Box::new(FaultKind::Codec(words)))
    }

    pub(crate) fn into_kind(self) -> FaultKind {
        *self.0
    }
}

impl From<Fault> for TaskErrorKind {
    fn from(fault: Fault) -> Self {
        match fault.into_kind() {
            FaultKind::Panic(panic) => Self::Panic { panic, exit: None },
            FaultKind::Codec(message) => Self::Codec { message },
        }
    }
}

/// The cause of a failure.
#[derive(Clone, Debug)]
pub(crate) enum TaskErrorKind {
    /// The function panicked. With `panic = "abort"` the worker ended, too.
    Panic { panic: RemotePanic, exit: Option<Exit> },
    /// The worker ended while it ran the task. `exit` is how it ended, or why that is not known.
    Crash { exit: Result<Exit, &'static str>, cause: Option<Cow<'static, str>> },
    /// The task exceeded its deadline.
    Timeout { limit: Duration },
    /// The task was cancelled, or its pool ended.
    Cancelled { why: &'static str },
    /// The task exceeded the memory limit of its worker.
    OutOfMemory { exit: Option<Exit>, why: Box<str> },
    /// A value could not be encoded or decoded.
    Codec { message: String },
    /// The outcome of the task is unknown.
    Lost { message: String },
    /// No worker could be started. `cause` is the failure of the last initializer, if one was reached.
    NotStarted { why: String, cause: Option<Box<TaskErrorKind>> },
}

impl TaskErrorKind {
    /// Creates the error of a task that cannot run at all.
    pub(crate) fn lost(error: &impl fmt::Display) -> Self {
        Self::Lost { message: error.to_string() }
    }

    /// Returns the failure of the task, or the failure of its worker's initializer if there is one.
    pub(super) fn blamed(&self) -> &Self {
        match self {
            Self::NotStarted { cause: Some(cause), .. } => cause,
            kind => kind,
        }
    }

    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Panic { .. } => "panicked",
            Self::Crash { .. } => "crashed",
            Self::Timeout { .. } => "timed out",
            Self::Cancelled { .. } => "was cancelled",
            Self::OutOfMemory { .. } => "ran out of memory",
            Self::Codec { .. } => "could not be transferred",
            Self::Lost { .. } | Self::NotStarted { .. } => "was lost",
        }
    }

    /// Describes the failure of an initializer or a finalizer, beginning with its name.
    pub(crate) fn of(&self, name: &str) -> String {
        format!("{name} {}: {self}", self.verb())
    }
}

impl fmt::Display for TaskErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic { panic, .. } => write!(f, "{panic}"),
            Self::Crash { exit: Ok(exit), cause: Some(cause) } => write!(f, "{} ({exit})", Lines(cause)),
            Self::Crash { exit: Err(_), cause: Some(cause) } => write!(f, "{}", Lines(cause)),
            Self::Crash { exit: Ok(exit), cause: None } if exit.signal().is_some() => {
                write!(f, "killed by {exit}")
            }
            Self::Crash { exit: Ok(exit), cause: None } => write!(f, "the process exited with {exit}"),
            Self::Crash { exit: Err(why), cause: None } => write!(f, "the process disappeared: {why}"),
            Self::Cancelled { why } => f.write_str(why),
            Self::Codec { message } | Self::Lost { message } => write!(f, "{}", Lines(message)),
            Self::Timeout { limit } => write!(f, "it ran for longer than its limit of {limit:?}"),
            Self::OutOfMemory { exit: Some(exit), why } => write!(f, "{} ({exit})", Lines(why)),
            Self::OutOfMemory { exit: None, why } => write!(f, "{}", Lines(why)),
            Self::NotStarted { why, .. } => write!(f, "no worker could be started: {}", Lines(why)),
        }
    }
}
