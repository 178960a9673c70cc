//! The sinks that `parallel!` expands to, one for each kind of result and of error handling.
//!
//! They are public for macro expansions only. What they share is in `collect`.

use std::{convert::Infallible, fmt, ops::ControlFlow};

use serde::de::DeserializeOwned;

use super::collect::{Gathering, Opened};
use crate::{
    error::{Error, Result, TaskError, TaskErrorKind, TaskLocation},
    task::Task,
};

/// Collects the results of one comprehension. Part of the interface of macro expansions.
pub struct Gather<T> {
    gathering: Gathering<T>,
    failed: Option<Error>,
}

impl<T: DeserializeOwned + 'static> Gather<T> {
    /// Creates a sink for the tasks of one call.
    #[must_use]
    pub fn new(opened: impl Into<Opened>) -> Self {
        let (gathering, failed) = Gathering::new(opened.into());
        Self { gathering, failed }
    }

    /// Passes the input through, and notes its length as that of the call if it is known. For calls with a single input.
    pub fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        self.gathering.count(input)
    }

    /// Pushes the next task. Returns `Break` once the call has failed and needs no more input.
    #[inline]
    pub fn push(&mut self, task: Task<T>) -> ControlFlow<()> {
        if self.failed.is_none() && self.gathering.push_simple(&task) {
            return ControlFlow::Continue(());
        }
        self.push_slowly(task)
    }

    #[inline(never)]
    fn push_slowly(&mut self, task: Task<T>) -> ControlFlow<()> {
        if self.failed.is_none() {
            self.failed = self.gathering.push(task, |outcome, _| outcome).err().map(Error::from);
        }
        flow(self.failed.is_some())
    }

    /// Waits for the remaining results and returns all of them.
    ///
    /// # Errors
    ///
    /// Returns the first failure.
    pub fn finish(self) -> Result<Vec<T>, Error> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.gathering.finish(|outcome: Result<T, TaskError>, _| outcome)?),
        }
    }
}

/// Collects like [`Gather`], for functions that return a `Result` and are called with `?`. The first `Err` ends the call and is
/// returned. Part of the interface of macro expansions.
pub struct GatherOk<T, E> {
    gathering: Gathering<T>,
    failed: Option<E>,
}

impl<T, E> GatherOk<T, E>
where
    std::result::Result<T, E>: DeserializeOwned + 'static,
    T: DeserializeOwned + 'static,
    E: From<TaskError>,
{
    /// Creates a sink for the tasks of one call.
    #[must_use]
    pub fn new(opened: impl Into<Opened>) -> Self {
        let (gathering, error) = Gathering::new(opened.into());
        // The function's error type is made from a task's error, so a call that cannot begin is reported as a lost task.
        let failed = error.map(|error| {
            let kind = TaskErrorKind::Lost { message: error.to_string() };
            E::from(TaskError::new("parallel!", kind, TaskLocation::default()))
        });
        Self { gathering, failed }
    }

    /// Does the same as [`Gather::count`].
    pub fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        self.gathering.count(input)
    }

    /// Pushes the next task. Returns `Break` once the call has failed and needs no more input.
    #[inline]
    pub fn push(&mut self, task: Task<std::result::Result<T, E>>) -> ControlFlow<()> {
        if self.failed.is_none() && self.gathering.push_simple(&task) {
            return ControlFlow::Continue(());
        }
        self.push_slowly(task)
    }

    #[inline(never)]
    fn push_slowly(&mut self, task: Task<std::result::Result<T, E>>) -> ControlFlow<()> {
        if self.failed.is_none() {
            self.failed = self.gathering.push(task, |outcome, _| flatten(outcome)).err();
        }
        flow(self.failed.is_some())
    }

    /// Waits for the remaining results and returns all of them.
    ///
    /// # Errors
    ///
    /// Returns the first failure, which may be an error of the function or of its task.
    pub fn finish(self) -> std::result::Result<Vec<T>, E> {
        match self.failed {
            Some(error) => Err(error),
            None => self.gathering.finish(|outcome, _| flatten(outcome)),
        }
    }
}

/// Collects like [`Gather`], for `on_error = collect`. Each task's outcome is an item, and no failure ends the call. Part of the
/// interface of macro expansions.
pub struct GatherAll<T> {
    gathering: Gathering<Result<T, TaskError>>,
    failed: Option<Error>,
}

impl<T: DeserializeOwned + 'static> GatherAll<T> {
    /// Creates a sink for the tasks of one call.
    #[must_use]
    pub fn new(opened: impl Into<Opened>) -> Self {
        let (gathering, failed) = Gathering::new(opened.into());
        Self { gathering, failed }
    }

    /// Does the same as [`Gather::count`].
    pub fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        self.gathering.count(input)
    }

    /// Pushes the next task. Returns `Break` if the call could not begin.
    #[inline]
    pub fn push(&mut self, task: Task<T>) -> ControlFlow<()> {
        if self.failed.is_none() && self.gathering.push_simple(&task) {
            return ControlFlow::Continue(());
        }
        self.push_slowly(task)
    }

    #[inline(never)]
    fn push_slowly(&mut self, task: Task<T>) -> ControlFlow<()> {
        if self.failed.is_none() {
            let Ok(()) = self.gathering.push(task, keep::<T, TaskError>);
        }
        flow(self.failed.is_some())
    }

    /// Waits for the remaining results and returns all of them.
    ///
    /// # Errors
    ///
    /// Returns an error if the call could not begin.
    pub fn finish(self) -> Result<Vec<Result<T, TaskError>>, Error> {
        match self.failed {
            Some(error) => Err(error),
            None => {
                let Ok(outcomes) = self.gathering.finish(keep::<T, TaskError>);
                Ok(outcomes)
            }
        }
    }
}

/// Collects like [`GatherAll`], for functions that return a `Result` and are called with `?`. A task's failure is converted into
/// the function's error type. Part of the interface of macro expansions.
pub struct GatherAllOk<T, E> {
    gathering: Gathering<std::result::Result<T, E>>,
    failed: Option<Error>,
}

impl<T, E> GatherAllOk<T, E>
where
    std::result::Result<T, E>: DeserializeOwned + 'static,
    E: From<TaskError>,
{
    /// Creates a sink for the tasks of one call.
    #[must_use]
    pub fn new(opened: impl Into<Opened>) -> Self {
        let (gathering, failed) = Gathering::new(opened.into());
        Self { gathering, failed }
    }

    /// Does the same as [`Gather::count`].
    pub fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        self.gathering.count(input)
    }

    /// Pushes the next task. Returns `Break` if the call could not begin.
    #[inline]
    pub fn push(&mut self, task: Task<std::result::Result<T, E>>) -> ControlFlow<()> {
        if self.failed.is_none() && self.gathering.push_simple(&task) {
            return ControlFlow::Continue(());
        }
        self.push_slowly(task)
    }

    #[inline(never)]
    fn push_slowly(&mut self, task: Task<std::result::Result<T, E>>) -> ControlFlow<()> {
        if self.failed.is_none() {
            let Ok(()) = self.gathering.push(task, |outcome, failed| keep(flatten(outcome), failed));
        }
        flow(self.failed.is_some())
    }

    /// Waits for the remaining results and returns all of them.
    ///
    /// # Errors
    ///
    /// Returns an error if the call could not begin.
    pub fn finish(self) -> Result<Vec<std::result::Result<T, E>>, Error> {
        match self.failed {
            Some(error) => Err(error),
            None => {
                let Ok(outcomes) = self.gathering.finish(|outcome, failed| keep(flatten(outcome), failed));
                Ok(outcomes)
            }
        }
    }
}

/// Keeps every outcome as an item, and counts the failures.
pub(crate) fn keep<T, E>(
    outcome: std::result::Result<T, E>,
    failed: &mut usize,
) -> std::result::Result<std::result::Result<T, E>, Infallible> {
    *failed += usize::from(outcome.is_err());
    Ok(outcome)
}

fn flatten<T, E: From<TaskError>>(
    outcome: Result<std::result::Result<T, E>, TaskError>,
) -> std::result::Result<T, E> {
    outcome.map_err(E::from).and_then(|result| result)
}

fn flow(failed: bool) -> ControlFlow<()> {
    if failed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

impl<T> fmt::Debug for Gather<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").finish_non_exhaustive()
    }
}

impl<T, E> fmt::Debug for GatherOk<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatherOk").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for GatherAll<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatherAll").finish_non_exhaustive()
    }
}

impl<T, E> fmt::Debug for GatherAllOk<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatherAllOk").finish_non_exhaustive()
    }
}
