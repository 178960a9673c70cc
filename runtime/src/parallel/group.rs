//! Runs several calls in one `parallel!`, each with its own type of result.

use std::{fmt, marker::PhantomData};

use serde::de::DeserializeOwned;

use super::Settings;
use crate::{
    call::collect::{Collector, Outcomes, Values},
    codec::OwnedResult,
    error::{Error, Result, TaskError, TaskLocation},
    handle::Decode,
    pool::Pool,
    task::Task,
};

/// Different calls at the same time: the members of a tuple. Part of the expansion's interface.
pub struct Group<'p> {
    collect: CollectEncoded,
    added: usize,
    pool: PhantomData<&'p Pool>,
}

/// Collects results that are decoded by their members.
enum CollectEncoded {
    /// The first failure ends the call.
    Values(Collector<OwnedResult, Values>),
    Outcomes(Collector<OwnedResult, Outcomes>),
}

/// One member of a [`Group`].
#[derive(Debug)]
pub struct Member<T> {
    function: &'static str,
    index: usize,
    result: PhantomData<fn() -> T>,
}

/// The outcomes of the members of a [`Group`]. Part of the expansion's interface.
#[derive(Debug)]
pub struct Joined(Vec<Result<OwnedResult, TaskError>>);

impl<'p> Group<'p> {
    /// Creates a group without members.
    #[must_use]
    pub fn new(settings: Settings<'p>) -> Self {
        Self::of(CollectEncoded::Values(Collector::new(settings.into())))
    }

    /// Like [`new`](Self::new), for `on_error = collect`.
    #[must_use]
    pub fn collecting(settings: Settings<'p>) -> Self {
        Self::of(CollectEncoded::Outcomes(Collector::new(settings.into())))
    }

    fn of(collect: CollectEncoded) -> Self {
        Self { collect, added: 0, pool: PhantomData }
    }

    /// Starts another task.
    pub fn add<T: DeserializeOwned + 'static>(&mut self, task: Task<T>) -> Member<T> {
        let member = Member { function: task.function(), index: self.added, result: PhantomData };
        self.added += 1;
        match &mut self.collect {
            CollectEncoded::Values(collect) => collect.push(task.call),
            CollectEncoded::Outcomes(collect) => collect.push(task.call),
        }
        member
    }

    /// Waits for all members, or for the first failure, which cancels the others.
    ///
    /// # Errors
    ///
    /// Returns the first failure.
    pub fn wait(self) -> Result<Joined, Error> {
        Ok(Joined(match self.collect {
            CollectEncoded::Values(collect) => collect.finish()?.into_iter().map(Ok).collect(),
            CollectEncoded::Outcomes(collect) => collect.finish()?,
        }))
    }
}

impl fmt::Debug for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("added", &self.added).finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned + 'static> Member<T> {
    /// Returns the result of the member.
    ///
    /// # Errors
    ///
    /// The result cannot be decoded.
    pub fn take(self, joined: &mut Joined) -> Result<T, Error> {
        Ok(self.outcome(joined)?)
    }

    /// Returns the outcome of the member.
    ///
    /// # Errors
    ///
    /// The task failed, or its result cannot be decoded.
    pub fn outcome(self, joined: &mut Joined) -> Result<T, TaskError> {
        let place = TaskLocation { index: Some(self.index), attempts: 1, worker: None };
        let outcome = std::mem::replace(&mut joined.0[self.index], Ok(OwnedResult::default()));
        T::decode(self.function, outcome?.as_encoded(), place)
    }
}
