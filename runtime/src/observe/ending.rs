//! Defines the ways in which a task can end, and counts how many tasks ended in each.

use crate::error::TaskErrorKind;

/// The way in which a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Finished,
    Failed,
    Crashed,
    TimedOut,
    Cancelled,
    OutOfMemory,
    Lost,
}

const ENDINGS: usize = Ending::Lost as usize + 1;

impl Ending {
    pub(crate) fn of(kind: &TaskErrorKind) -> Self {
        match kind {
            TaskErrorKind::Panic { .. } | TaskErrorKind::Codec { .. } => Self::Failed,
            TaskErrorKind::Crash { .. } => Self::Crashed,
            TaskErrorKind::Timeout { .. } => Self::TimedOut,
            TaskErrorKind::Cancelled { .. } => Self::Cancelled,
            TaskErrorKind::OutOfMemory { .. } => Self::OutOfMemory,
            TaskErrorKind::Lost { .. } | TaskErrorKind::NotStarted { .. } => Self::Lost,
        }
    }
}

/// The number of tasks that ended in each way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Endings([u64; ENDINGS]);

impl Endings {
    #[inline]
    pub(crate) fn add(&mut self, ending: Ending, tasks: u64) {
        self.0[ending as usize] += tasks;
    }

    pub(super) fn add_all(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, tasks)| *sum += tasks);
    }

    pub(super) fn of(&self, ending: Ending) -> u64 {
        self.0[ending as usize]
    }

    pub(super) fn all(&self) -> u64 {
        self.0.iter().sum()
    }
}
