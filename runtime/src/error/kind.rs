//! The kinds of errors of tasks, and where a task was when it failed.

use std::{borrow::Cow, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Result, exit::Exit};
use crate::{escape::Lines, id::WorkerId, panic::RemotePanic};

/// Where a task was and what is known of its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its index in the call that it belongs to.
    pub(crate) index: Option<usize>,
    /// How often it was started.
    pub(crate) attempts: u32,
    /// Who ran it last: the worker's place in the pool and its process.
    pub(crate) worker: Option<(WorkerId, u32)>,
}

/// Why a task that ran gave no result: the words of whoever ran it. Crosses processes.
///
/// As small as can be: a result that is no fault is moved with the room for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault(Box<FaultKind>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FaultKind {
    /// The function panicked.
    Panic(RemotePanic),
    /// A value did not encode or decode, in these words.
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

/// Who is at fault, and how.
#[derive(Clone, Debug)]
pub(crate) enum TaskErrorKind {
    /// The function panicked; under `panic = "abort"` the worker ended, too.
    Panic { panic: RemotePanic, exit: Option<Exit> },
    /// The worker ended while it ran the task: how, or why that is not known.
    Crash { exit: Result<Exit, &'static str>, cause: Option<Cow<'static, str>> },
    /// The task ran past its deadline.
    Timeout { limit: Duration },
    /// Someone took the task back, or the pool ended.
    Cancelled { why: &'static str },
    /// The task went past its worker's memory limit.
    OutOfMemory { exit: Option<Exit>, why: Box<str> },
    /// A value did not encode or decode.
    Codec { message: String },
    /// The outcome of the task is unknown.
    Lost { message: String },
    /// No worker could be started: why, and what the last that was tried came to, if it came to its initializer.
    NotStarted { why: String, cause: Option<Box<TaskErrorKind>> },
}

impl TaskErrorKind {
    /// What a task comes to that cannot run at all.
    pub(crate) fn lost(error: &impl fmt::Display) -> Self {
        Self::Lost { message: error.to_string() }
    }

    /// What a task came to, or in place of it the initializer of its worker.
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
            Self::Codec { .. } => "failed to cross",
            Self::Lost { .. } | Self::NotStarted { .. } => "was lost",
        }
    }

    /// What it means that an initializer came to this, or a finalizer: its name and this follow each other.
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
            Self::Crash { exit: Ok(exit), cause: None } => write!(f, "the process left with {exit}"),
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
