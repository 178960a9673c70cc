//! The sinks that `parallel!` expands to, one for each kind of result.

use std::{convert::Infallible, fmt, ops::ControlFlow};

use serde::de::DeserializeOwned;

use super::collect::{Gathering, Opened};
use crate::{
    error::{Error, Place, Result, TaskError, TaskErrorKind},
    task::Task,
};

/// Gathers the results of one comprehension. Part of the expansion's interface.
pub struct Gather<T> {
    gathering: Gathering<T>,
    failed: Option<Error>,
}

impl<T: DeserializeOwned + 'static> Gather<T> {
    /// A sink for the tasks of one call.
    #[must_use]
    pub fn new(opened: impl Into<Opened>) -> Self {
        let (gathering, failed) = Gathering::new(opened.into());
        Self { gathering, failed }
    }

    /// The input of a call that has but this one: its length, where it knows it, is that of the call.
    pub fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        self.gathering.count(input)
    }

    /// Takes the next task; `Break` once the call has failed and more input is of no use.
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

    /// Waits for the rest.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub fn finish(self) -> Result<Vec<T>, Error> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.gathering.finish(|outcome: Result<T, TaskError>, _| outcome)?),
        }
    }
}

/// As [`Gather`], for functions that return a `Result`, called with `?`: the first `Err` ends the call and is what comes back. Part
/// of the expansion's interface.
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
    /// A sink for the tasks of one call.
    #[must_use]
    pub fn new(opened: impl Into<Opened>) -> Self {
        let (gathering, error) = Gathering::new(opened.into());
        // The function's own error is made of a task's: a call that cannot begin is one whose tasks are lost.
        let failed = error.map(|error| {
            let kind = TaskErrorKind::Lost { message: error.to_string() };
            E::from(TaskError::new("parallel!", kind, Place::default()))
        });
        Self { gathering, failed }
    }

    /// As [`Gather::count`].
    pub fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        self.gathering.count(input)
    }

    /// Takes the next task; `Break` once the call has failed and more input is of no use.
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

    /// Waits for the rest.
    ///
    /// # Errors
    ///
    /// The first failure, be it the function's own or its task's.
    pub fn finish(self) -> std::result::Result<Vec<T>, E> {
        match self.failed {
            Some(error) => Err(error),
            None => self.gathering.finish(|outcome, _| flatten(outcome)),
        }
    }
}

/// As [`Gather`], for `on_error = collect`: each task's outcome is an item, and no failure ends the call. Part of the expansion's
/// interface.
pub struct GatherAll<T> {
    gathering: Gathering<Result<T, TaskError>>,
    failed: Option<Error>,
}

impl<T: DeserializeOwned + 'static> GatherAll<T> {
    /// A sink for the tasks of one call.
    #[must_use]
    pub fn new(opened: impl Into<Opened>) -> Self {
        let (gathering, failed) = Gathering::new(opened.into());
        Self { gathering, failed }
    }

    /// As [`Gather::count`].
    pub fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        self.gathering.count(input)
    }

    /// Takes the next task; `Break` if the call could not begin.
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

    /// Waits for the rest.
    ///
    /// # Errors
    ///
    /// The call could not begin.
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

/// As [`GatherAll`], for functions that return a `Result`, called with `?`: a task's failure is one of the function's own kind. Part of
/// the expansion's interface.
pub struct GatherAllOk<T, E> {
    gathering: Gathering<std::result::Result<T, E>>,
    failed: Option<Error>,
}

impl<T, E> GatherAllOk<T, E>
where
    std::result::Result<T, E>: DeserializeOwned + 'static,
    E: From<TaskError>,
{
    /// A sink for the tasks of one call.
    #[must_use]
    pub fn new(opened: impl Into<Opened>) -> Self {
        let (gathering, failed) = Gathering::new(opened.into());
        Self { gathering, failed }
    }

    /// As [`Gather::count`].
    pub fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        self.gathering.count(input)
    }

    /// Takes the next task; `Break` if the call could not begin.
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

    /// Waits for the rest.
    ///
    /// # Errors
    ///
    /// The call could not begin.
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

/// No outcome ends the call; failures are counted.
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
