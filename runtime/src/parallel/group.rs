//! Runs several calls in one `parallel!`, each with its own type of result.

use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;

use super::Settings;
use crate::{
    call::{collect::tell, state::Call},
    codec::{Encoded, OwnedResult},
    error::{Error, Result, TaskError, TaskLocation},
    handle::decode,
    observe::report::Report,
    pool::Pool,
    scheduler::inbox::Arrival,
    task::Task,
};

/// Different calls at the same time: the members of a tuple. Part of the expansion's interface.
#[derive(Debug)]
pub struct Group<'p> {
    /// The call, or the reason why there is none.
    call: Result<Call>,
    report: Option<Box<Report>>,
    members: Vec<Arc<Mutex<Slot>>>,
    /// A failure does not end the call.
    collect: bool,
    pool: std::marker::PhantomData<&'p Pool>,
}

/// The outcome of a member, once it has arrived.
type Slot = Option<Result<OwnedResult, TaskError>>;

/// One member of a [`Group`].
#[derive(Debug)]
pub struct Member<T> {
    slot: Arc<Mutex<Slot>>,
    function: &'static str,
    index: usize,
    result: std::marker::PhantomData<fn() -> T>,
}

impl<'p> Group<'p> {
    /// Creates a group without members.
    #[must_use]
    pub fn new(settings: Settings<'p>) -> Self {
        let (call, report) = match settings.open() {
            Ok((call, report)) => (Ok(call), report),
            Err(error) => (Err(error), None),
        };
        Self { call, report, members: Vec::new(), collect: false, pool: std::marker::PhantomData }
    }

    /// Like [`new`](Self::new), for `on_error = collect`.
    #[must_use]
    pub fn collecting(settings: Settings<'p>) -> Self {
        Self { collect: true, ..Self::new(settings) }
    }

    /// Starts another task.
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

    /// Waits for all members, or for the first failure, which cancels the others.
    ///
    /// # Errors
    ///
    /// Returns the first failure.
    pub fn wait(&mut self) -> Result<(), Error> {
        let used = Err(Error::config("this group has been waited for"));
        let mut call = std::mem::replace(&mut self.call, used)?;
        let mut report = self.report.take();
        if let Some(report) = report.as_mut().filter(|_| call.is_own()) {
            report.expect(call.pushed());
        }
        loop {
            // Code of users may have copied this process: before, and while the call was waited for.
            if let Some(error) = call.disown() {
                return Err(error.into());
            }
            if call.outstanding() == 0 {
                break;
            }
            call.wait();
            let (mut failure, mut failed) = (None, 0);
            let mut keep = |index: usize, outcome: Result<Encoded<'_>, TaskError>| match outcome {
                Err(error) if !self.collect => {
                    failed += 1;
                    failure = failure.take().or(Some(error));
                }
                outcome => {
                    failed += usize::from(outcome.is_err());
                    *self.members[index].lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(outcome.map(Encoded::into_owned))
                }
            };
            call.receive(|first, arrival| match arrival {
                Arrival::Many(results) => {
                    (first..).zip(results).for_each(|(index, result)| keep(index, Ok(Encoded::Short(result))))
                }
                Arrival::One(outcome) => keep(first, outcome),
            });
            if let Some(report) = &mut report
                && call.is_own()
            {
                tell(report, &mut call, failed);
            }
            if let Some(error) = failure {
                drop(report);
                call.cancel(true);
                return Err(error.into());
            }
        }
        if let Some(report) = report {
            report.finish();
        }
        Ok(())
    }
}

impl<T: DeserializeOwned + 'static> Member<T> {
    /// Returns the result of the member, after [`Group::wait`].
    ///
    /// # Errors
    ///
    /// The result cannot be decoded.
    pub fn take(self) -> Result<T, Error> {
        Ok(self.outcome()?)
    }

    /// Returns the outcome of the member, after [`Group::wait`].
    ///
    /// # Errors
    ///
    /// The task failed, or its result cannot be decoded.
    pub fn outcome(self) -> Result<T, TaskError> {
        let outcome = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut result = outcome.expect("a group whose wait was well has every member's outcome")?;
        let place = TaskLocation { index: Some(self.index), attempts: 1, worker: None };
        decode(self.function, result.as_encoded(), place)
    }
}
