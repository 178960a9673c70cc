//! What `parallel!` becomes: sinks that take tasks while the caller's own loops run, and gather their results.

use std::ops::ControlFlow;

use serde::de::DeserializeOwned;

use crate::{
    error::{Error, Result, TaskError},
    pool::{Jobs, Pool},
    task::Task,
};

/// The settings before the semicolon of a `parallel!`.
#[derive(Debug, Default)]
pub struct Settings<'p> {
    pub(crate) pool: Option<&'p Pool>,
    pub(crate) jobs: Option<Jobs>,
    pub(crate) batch: Option<usize>,
}

impl<'p> Settings<'p> {
    /// No settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `pool = &pool`: the pool that runs the call.
    #[must_use]
    pub fn pool(mut self, pool: &'p Pool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// `jobs = 8`: how many workers the call may use at a time.
    #[must_use]
    pub fn jobs(mut self, jobs: impl Into<Jobs>) -> Self {
        self.jobs = Some(jobs.into());
        self
    }

    /// `batch = 64`: how many tasks travel together.
    #[must_use]
    pub fn batch(mut self, batch: usize) -> Self {
        self.batch = Some(batch);
        self
    }
}

/// Gathers the results of one comprehension, in the order of the input.
#[derive(Debug)]
pub struct Gather<T> {
    results: Result<Vec<T>, Error>,
}

impl<T: DeserializeOwned + 'static> Gather<T> {
    /// A sink for the tasks of one call.
    pub fn new(_settings: Settings<'_>) -> Self {
        Self { results: Ok(Vec::new()) }
    }

    /// Takes the next task; `Break` once the call has failed and more input is of no use.
    pub fn push(&mut self, task: Task<T>) -> ControlFlow<()> {
        if let Ok(results) = &mut self.results {
            match task.call() {
                Ok(value) => results.push(value),
                Err(error) => self.results = Err(error.with_index(results.len()).into()),
            }
        }
        if self.results.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Waits for the rest.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub fn finish(self) -> Result<Vec<T>, Error> {
        self.results
    }
}

/// As [`Gather`], for functions that return a `Result`, called with `?`: the first `Err` ends the call and is what comes back.
#[derive(Debug)]
pub struct GatherOk<T, E> {
    results: std::result::Result<Vec<T>, E>,
}

impl<T, E> GatherOk<T, E>
where
    std::result::Result<T, E>: DeserializeOwned + 'static,
    E: From<TaskError>,
{
    /// A sink for the tasks of one call.
    pub fn new(_settings: Settings<'_>) -> Self {
        Self { results: Ok(Vec::new()) }
    }

    /// Takes the next task; `Break` once the call has failed and more input is of no use.
    pub fn push(&mut self, task: Task<std::result::Result<T, E>>) -> ControlFlow<()> {
        if let Ok(results) = &mut self.results {
            match task.call() {
                Ok(Ok(value)) => results.push(value),
                Ok(Err(error)) => self.results = Err(error),
                Err(error) => self.results = Err(error.with_index(results.len()).into()),
            }
        }
        if self.results.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Waits for the rest.
    ///
    /// # Errors
    ///
    /// The first failure, be it the function's own or its task's.
    pub fn finish(self) -> std::result::Result<Vec<T>, E> {
        self.results
    }
}

/// Different calls side by side: the members of a tuple.
#[derive(Debug)]
pub struct Group<'p>(std::marker::PhantomData<&'p ()>);

/// One member of a [`Group`].
#[derive(Debug)]
pub struct Member<T>(Result<T, TaskError>);

impl<'p> Group<'p> {
    /// No members yet.
    pub fn new(_settings: Settings<'p>) -> Self {
        Self(std::marker::PhantomData)
    }

    /// Starts one more task.
    pub fn add<T: DeserializeOwned + 'static>(&mut self, task: Task<T>) -> Member<T> {
        Member(task.call())
    }

    /// Waits for all of them, or the first failure, which cancels the others.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub fn wait(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl<T: DeserializeOwned + 'static> Member<T> {
    /// The member's result, after [`Group::wait`].
    ///
    /// # Errors
    ///
    /// The task failed.
    pub fn take(self) -> Result<T, Error> {
        Ok(self.0?)
    }
}
