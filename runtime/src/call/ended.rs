//! The errors of tasks of a call that no worker has answered.

use crate::error::{POOL_ENDED, TaskError, TaskErrorKind, TaskLocation};

/// The pool has ended before the task.
pub(super) fn by_pool(function: &'static str, index: usize) -> TaskError {
    of_kind(function, TaskErrorKind::Cancelled { why: POOL_ENDED }, index)
}

pub(super) fn of_kind(function: &'static str, kind: TaskErrorKind, index: usize) -> TaskError {
    TaskError::new(function, kind, TaskLocation { index: Some(index), ..TaskLocation::default() })
}
