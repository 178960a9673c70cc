//! What `parallel!` becomes: sinks that take tasks while the caller's own loops run, and gather their results.

use std::{
    collections::VecDeque,
    fmt,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use serde::de::DeserializeOwned;

use crate::{
    codec::OwnedResult,
    error::{Error, Place, Result, TaskError, TaskErrorKind},
    handle::decode,
    pool::{Call, Jobs, Pool, global},
    task::Task,
};

/// The settings before the semicolon of a `parallel!`.
#[derive(Debug, Default)]
pub struct Settings<'p> {
    pool: Option<&'p Pool>,
    jobs: Option<Jobs>,
    batch: Option<usize>,
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

    /// The pool of the call, and how many of its workers the call may use.
    fn open(&self) -> Result<(&'p Pool, Option<usize>)> {
        let jobs = self.jobs.map(Jobs::count).transpose()?;
        if self.batch == Some(0) {
            return Err(Error::config("batch = 0: no task would ever travel; give a number from 1"));
        }
        match (self.pool, jobs) {
            (Some(pool), jobs) => Ok((pool, jobs)),
            (None, jobs) => {
                // The process's own pool grows and shrinks to what the latest call asks for.
                let pool = global()?;
                pool.resize(jobs);
                Ok((pool, jobs))
            }
        }
    }
}

/// One comprehension in progress: what the two sinks have in common.
struct Gathering<T> {
    /// `None` if the call could not begin.
    call: Option<Call>,
    results: InOrder<T>,
    function: &'static str,
}

/// Results in the order of the input.
struct InOrder<T> {
    /// Those before which none is missing.
    first: Vec<T>,
    /// Those after it, from the next on.
    ahead: VecDeque<Option<T>>,
}

impl<T> InOrder<T> {
    #[inline]
    fn insert(&mut self, index: usize, value: T) {
        if index == self.first.len() {
            self.first.push(value);
            if !self.ahead.is_empty() {
                self.advance();
            }
        } else {
            self.put_ahead(index - self.first.len(), value);
        }
    }

    /// The first of those that were ahead has just been added to the others.
    fn advance(&mut self) {
        self.ahead.pop_front();
        while let Some(value) = self.ahead.front_mut().and_then(Option::take) {
            self.first.push(value);
            self.ahead.pop_front();
        }
    }

    fn put_ahead(&mut self, at: usize, value: T) {
        match self.ahead.get_mut(at) {
            Some(place) => *place = Some(value),
            None => {
                self.ahead.resize_with(at, || None);
                self.ahead.push_back(Some(value));
            }
        }
    }
}

impl<T: DeserializeOwned + 'static> Gathering<T> {
    fn new(settings: &Settings<'_>) -> (Self, Option<Error>) {
        let (call, error) = match settings.open() {
            Ok((pool, workers)) => (Some(Call::new(pool, settings.batch, workers)), None),
            Err(error) => (None, Some(error)),
        };
        (Self { call, results: InOrder { first: Vec::new(), ahead: VecDeque::new() }, function: "" }, error)
    }

    /// Queues the task; while the window is full, takes results and hands each to `judge`, which keeps the value or fails the call.
    fn push<V, F>(
        &mut self,
        task: Task<V>,
        judge: impl Fn(Result<V, TaskError>) -> Result<T, F>,
    ) -> Result<(), F>
    where
        V: DeserializeOwned + 'static,
    {
        self.function = task.function();
        let Some(call) = &mut self.call else { return Ok(()) };
        call.push(task.call);
        loop {
            let Some(call) = &mut self.call else { return Ok(()) };
            if call.has_room(0) {
                return Ok(());
            }
            call.wait();
            self.receive(&judge)?;
        }
    }

    fn receive<V, F>(&mut self, judge: &impl Fn(Result<V, TaskError>) -> Result<T, F>) -> Result<(), F>
    where
        V: DeserializeOwned + 'static,
    {
        let Self { call: Some(call), results, function } = self else { return Ok(()) };
        let mut failure: Option<F> = None;
        call.receive(|index, outcome| {
            if failure.is_some() {
                return;
            }
            let place = Place { index: Some(index), attempts: 1, worker: None };
            match judge(outcome.and_then(|result| decode(function, result, place))) {
                Ok(value) => results.insert(index, value),
                Err(error) => failure = Some(error),
            }
        });
        match failure {
            None => Ok(()),
            Some(error) => {
                call.cancel(true);
                Err(error)
            }
        }
    }

    fn finish<V, F>(mut self, judge: impl Fn(Result<V, TaskError>) -> Result<T, F>) -> Result<Vec<T>, F>
    where
        V: DeserializeOwned + 'static,
    {
        while let Some(call) = &mut self.call
            && call.outstanding() > 0
        {
            call.wait();
            self.receive(&judge)?;
        }
        debug_assert!(self.results.ahead.is_empty(), "every task of a call without failures has a result");
        Ok(self.results.first)
    }
}

/// Gathers the results of one comprehension, in the order of the input. Part of the expansion's interface.
pub struct Gather<T> {
    gathering: Gathering<T>,
    failed: Option<Error>,
}

impl<T: DeserializeOwned + 'static> Gather<T> {
    /// A sink for the tasks of one call.
    #[must_use]
    pub fn new(settings: Settings<'_>) -> Self {
        let (gathering, failed) = Gathering::new(&settings);
        Self { gathering, failed }
    }

    /// Takes the next task; `Break` once the call has failed and more input is of no use.
    pub fn push(&mut self, task: Task<T>) -> ControlFlow<()> {
        if self.failed.is_none() {
            self.failed = self.gathering.push(task, |outcome| outcome).err().map(Error::from);
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
            None => Ok(self.gathering.finish(|outcome: Result<T, TaskError>| outcome)?),
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
    pub fn new(settings: Settings<'_>) -> Self {
        let (gathering, error) = Gathering::new(&settings);
        // The function's own error is made of a task's: a call that cannot begin is one whose tasks are lost.
        let failed = error.map(|error| {
            let kind = TaskErrorKind::Lost { message: error.to_string() };
            E::from(TaskError::new("parallel!", kind, Place::default()))
        });
        Self { gathering, failed }
    }

    /// Takes the next task; `Break` once the call has failed and more input is of no use.
    pub fn push(&mut self, task: Task<std::result::Result<T, E>>) -> ControlFlow<()> {
        if self.failed.is_none() {
            self.failed = self.gathering.push(task, flatten).err();
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
            None => self.gathering.finish(flatten),
        }
    }
}

fn flatten<T, E: From<TaskError>>(
    outcome: Result<std::result::Result<T, E>, TaskError>,
) -> std::result::Result<T, E> {
    outcome.map_err(E::from).and_then(|result| result)
}

fn flow(failed: bool) -> ControlFlow<()> {
    if failed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Different calls side by side: the members of a tuple. Part of the expansion's interface.
#[derive(Debug)]
pub struct Group<'p> {
    /// The call and its pool, or why there is none.
    call: Result<Call>,
    members: Vec<Arc<Mutex<Slot>>>,
    pool: std::marker::PhantomData<&'p Pool>,
}

/// A member's result, once it is there.
type Slot = Option<OwnedResult>;

/// One member of a [`Group`].
#[derive(Debug)]
pub struct Member<T> {
    slot: Arc<Mutex<Slot>>,
    function: &'static str,
    index: usize,
    result: std::marker::PhantomData<fn() -> T>,
}

impl<'p> Group<'p> {
    /// No members yet.
    #[must_use]
    pub fn new(settings: Settings<'p>) -> Self {
        let call = settings.open().map(|(pool, workers)| Call::new(pool, settings.batch, workers));
        Self { call, members: Vec::new(), pool: std::marker::PhantomData }
    }

    /// Starts one more task.
    pub fn add<T: DeserializeOwned + 'static>(&mut self, task: Task<T>) -> Member<T> {
        let slot = Arc::default();
        let member = Member {
            slot: Arc::clone(&slot),
            function: task.function(),
            index: self.members.len(),
            result: std::marker::PhantomData,
        };
        self.members.push(slot);
        if let Ok(call) = &mut self.call {
            call.push(task.call);
        }
        member
    }

    /// Waits for all of them, or for the first failure, which cancels the others.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub fn wait(&mut self) -> Result<(), Error> {
        let used = Err(Error::config("this group has been waited for"));
        let mut call = std::mem::replace(&mut self.call, used)?;
        while call.outstanding() > 0 {
            call.wait();
            let mut failure = None;
            call.receive(|index, outcome| match outcome {
                Ok(result) => {
                    *self.members[index].lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(result.into_owned())
                }
                Err(error) => failure = failure.take().or(Some(error)),
            });
            if let Some(error) = failure {
                call.cancel(true);
                return Err(error.into());
            }
        }
        Ok(())
    }
}

impl<T: DeserializeOwned + 'static> Member<T> {
    /// The member's result, after [`Group::wait`].
    ///
    /// # Errors
    ///
    /// The result does not decode.
    pub fn take(self) -> Result<T, Error> {
        let outcome = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut result = outcome.expect("a group whose wait was well has every member's result");
        let place = Place { index: Some(self.index), attempts: 1, worker: None };
        Ok(decode(self.function, result.as_encoded(), place)?)
    }
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
