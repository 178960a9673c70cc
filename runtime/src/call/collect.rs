//! Collects the results of one call: pushes tasks, waits while the window is full, decodes results, and reports progress.
//!
//! [`Pool::map`](crate::Pool::map) uses it, and `parallel!` expands to it. A [`Mode`] decides what becomes of each outcome. It never
//! runs a task, and decodes results with no lock held.

use std::{fmt, marker::PhantomData, ops::ControlFlow};

use serde::de::DeserializeOwned;

use super::{order::ReorderBuffer, state::Call};
use crate::{
    batch::inbox::Arrival,
    error::{Error, TaskError, TaskErrorKind, TaskLocation},
    handle::{Decode, inherited},
    observe::report::Report,
    task::{EncodedCall, Task},
};

/// A call whose results will be collected, or the reason why it could not be opened. Part of the interface of macro expansions.
#[derive(Debug)]
pub struct Opened {
    pub(crate) call: Result<(Call, Option<Box<Report>>), Error>,
    /// Results are returned in the order of completion.
    pub(crate) unordered: bool,
}

/// Decides what becomes of the outcomes of tasks that return `V`. Part of the interface of macro expansions.
pub trait Mode<V> {
    /// The value that is collected for each task.
    type Item;
    /// The error of the whole call.
    type Error;
    /// Whether a value that a function returns can end the call.
    const MAY_END: bool = false;

    /// Returns the error of a call that could not begin.
    fn not_opened(error: Error) -> Self::Error;

    /// Returns what is collected for a task, or the error that ends the call. Counts the failures that do not end it.
    ///
    /// # Errors
    ///
    /// The outcome ends the call.
    fn judge(outcome: Result<V, TaskError>, failed: &mut usize) -> Result<Self::Item, Self::Error>;
}

/// Collects results. The first failure ends the call. Part of the interface of macro expansions.
#[derive(Debug)]
pub struct Values;

/// Collects like [`Values`], for functions that return a `Result` and are called with `?`: the first `Err` ends the call. Part of
/// the interface of macro expansions.
#[derive(Debug)]
pub struct TryValues;

/// Collects the outcome of every task, for `on_error = collect`. Part of the interface of macro expansions.
#[derive(Debug)]
pub struct Outcomes;

/// Collects like [`Outcomes`], for functions that return a `Result` and are called with `?`: the failure of a task becomes an
/// error of the function. Part of the interface of macro expansions.
#[derive(Debug)]
pub struct TryOutcomes;

/// Errors that the failure of a task can become. Part of the interface of macro expansions.
#[diagnostic::on_unimplemented(
    message = "`?` in `parallel!` cannot turn the failure of a task into `{Self}`",
    label = "`{Self}` does not implement `From<procession::TaskError>`",
    note = "implement `From<procession::TaskError>` for it, return `procession::RemoteError` from the function, or write the \
            call without `?` to get each `Result`"
)]
pub trait FromTaskError: From<TaskError> {}

#[diagnostic::do_not_recommend]
impl<E: From<TaskError>> FromTaskError for E {}

impl<T> Mode<T> for Values {
    type Item = T;
    type Error = Error;

    fn not_opened(error: Error) -> Error {
        error
    }

    #[inline]
    fn judge(outcome: Result<T, TaskError>, _failed: &mut usize) -> Result<T, Error> {
        Ok(outcome?)
    }
}

impl<T, E: FromTaskError> Mode<Result<T, E>> for TryValues {
    type Item = T;
    type Error = E;

    const MAY_END: bool = true;

    /// Reports a lost task, because the function's error can be made from the error of a task only.
    fn not_opened(error: Error) -> E {
        E::from(TaskError::new("parallel!", TaskErrorKind::lost(&error), TaskLocation::default()))
    }

    #[inline]
    fn judge(outcome: Result<Result<T, E>, TaskError>, _failed: &mut usize) -> Result<T, E> {
        outcome?
    }
}

impl<T> Mode<T> for Outcomes {
    type Item = Result<T, TaskError>;
    type Error = Error;

    fn not_opened(error: Error) -> Error {
        error
    }

    #[inline]
    fn judge(outcome: Result<T, TaskError>, failed: &mut usize) -> Result<Self::Item, Error> {
        *failed += usize::from(outcome.is_err());
        Ok(outcome)
    }
}

impl<T, E: FromTaskError> Mode<Result<T, E>> for TryOutcomes {
    type Item = Result<T, E>;
    type Error = Error;

    fn not_opened(error: Error) -> Error {
        error
    }

    #[inline]
    fn judge(outcome: Result<Result<T, E>, TaskError>, failed: &mut usize) -> Result<Self::Item, Error> {
        let item = outcome.unwrap_or_else(|error| Err(error.into()));
        *failed += usize::from(item.is_err());
        Ok(item)
    }
}

/// Collects the results of one call of tasks that return `V`. Part of the interface of macro expansions.
pub struct Collect<V, M: Mode<V>>(Collector<V, M>);

/// Does the work of [`Collect`], and of groups of calls of different types.
pub(crate) struct Collector<V, M: Mode<V>> {
    /// The call, or the error that it could not begin with or that ended it.
    call: Result<Call, M::Error>,
    results: ReorderBuffer<M::Item>,
    function: &'static str,
    /// The progress report, if there is one.
    report: Option<Box<Report>>,
    result: PhantomData<fn() -> V>,
}

impl<V: DeserializeOwned + 'static, M: Mode<V>> Collect<V, M> {
    /// Prepares to collect the results of a call.
    #[must_use]
    pub fn new(opened: impl Into<Opened>) -> Self {
        Self(Collector::new(opened.into()))
    }

    /// Passes the input through, and notes its length as that of the call if it is known. For calls with a single input.
    pub fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        let input = input.into_iter();
        if let Some(report) = &mut self.0.report
            && let (least, Some(most)) = input.size_hint()
            && least == most
        {
            report.expect(most);
        }
        input
    }

    /// Pushes the next task. Returns `Break` once the call has failed and needs no more input.
    #[inline]
    pub fn push(&mut self, task: Task<V>) -> ControlFlow<()> {
        if let Ok(call) = &mut self.0.call
            && call.push_simple(&task.call)
        {
            // It owns nothing, so there is nothing to drop.
            std::mem::forget(task);
            return ControlFlow::Continue(());
        }
        self.0.push_slowly(task.call)
    }

    /// Waits for the remaining results and returns all of them.
    ///
    /// # Errors
    ///
    /// Returns the error that the call could not begin with or that ended it.
    pub fn finish(self) -> Result<Vec<M::Item>, M::Error> {
        self.0.finish()
    }
}

impl<V: Decode, M: Mode<V>> Collector<V, M> {
    pub(crate) fn new(Opened { call, unordered }: Opened) -> Self {
        let (call, report) = match call {
            Ok((call, report)) => (Ok(call), report),
            Err(error) => (Err(M::not_opened(error)), None),
        };
        Self { call, results: ReorderBuffer::new(unordered), function: "", report, result: PhantomData }
    }

    /// Pushes a task.
    pub(crate) fn push(&mut self, request: EncodedCall) {
        self.function = request.entry.name;
        self.disown();
        if let Ok(call) = &mut self.call {
            call.push(request);
        }
    }

    /// Pushes a task, and receives results while the window is full.
    #[inline(never)]
    fn push_slowly(&mut self, request: EncodedCall) -> ControlFlow<()> {
        self.push(request);
        while let Ok(call) = &mut self.call {
            if call.has_room() {
                return ControlFlow::Continue(());
            }
            self.receive();
        }
        ControlFlow::Break(())
    }

    /// If this process is a fork of the one that made the call, fails every task without a result.
    fn disown(&mut self) {
        if let Ok(call) = &mut self.call
            && call.disown().is_some()
        {
            self.report = None;
            let error = || M::judge(Err(inherited(self.function)), &mut 0);
            if let Err(error) = self.results.fill(call.pushed(), error) {
                self.call = Err(error);
            }
        }
    }

    /// Waits for results and keeps them. A failure ends the call.
    fn receive(&mut self) {
        if let Ok(call) = &mut self.call {
            match self.report {
                None => call.wait_for_many(M::MAY_END),
                Some(_) => call.wait(),
            }
        }
        // Code of users may have copied this process: while the call was waited for, or when its results were decoded.
        self.disown();
        self.take_arrivals();
        self.disown();
    }

    /// Keeps the results that have arrived. A failure ends the call.
    fn take_arrivals(&mut self) {
        let Self { call: Ok(call), results, function, report, .. } = self else { return };
        let mut failed = 0;
        let received = receive(call, function, results, |_, outcome| M::judge(outcome, &mut failed));
        if !call.is_own() {
            // It is the original's report.
            *report = None;
        }
        if let Some(report) = report {
            update_report(report, call, failed + usize::from(received.is_err()));
        }
        if let Err(error) = received {
            *report = None;
            call.cancel(true);
            self.call = Err(error);
        }
    }

    /// Waits for the remaining results and returns all of them, or the error that ended the call.
    pub(crate) fn finish(mut self) -> Result<Vec<M::Item>, M::Error> {
        self.disown();
        if let (Some(report), Ok(call)) = (&mut self.report, &self.call) {
            report.expect(call.pushed());
        }
        while self.call.as_ref().is_ok_and(|call| call.outstanding() > 0) {
            self.receive();
        }
        self.call?;
        debug_assert_eq!(self.results.held(), 0, "every task of a call without failures has a result");
        if let Some(report) = self.report {
            report.finish();
        }
        Ok(self.results.take(Vec::new()))
    }
}

impl<V, M: Mode<V>> fmt::Debug for Collect<V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collect").finish_non_exhaustive()
    }
}

/// Decodes the results that have arrived. Passes each with its index to `judge`, and adds the items that it returns to `results`.
///
/// # Errors
///
/// Returns the first error of `judge`. Results after it are dropped.
pub(crate) fn receive<V: Decode, T, E>(
    call: &mut Call,
    function: &'static str,
    results: &mut ReorderBuffer<T>,
    mut judge: impl FnMut(usize, Result<V, TaskError>) -> Result<T, E>,
) -> Result<(), E> {
    let mut failure = None;
    call.receive(|first, arrival| {
        if failure.is_some() {
            return;
        }
        let tasks = if let Arrival::Many(arrived) = &arrival { arrived.len() as usize } else { 1 };
        let mut run = results.open(first, tasks);
        // Called for one result after another.
        let mut keep = |index, outcome| match judge(index, outcome) {
            Ok(item) => {
                run.values.push(item);
                ControlFlow::Continue(())
            }
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        };
        match arrival {
            Arrival::Many(arrived) => V::decode_many(function, first, arrived, keep),
            Arrival::One(outcome) => {
                let place = TaskLocation { index: Some(first), attempts: 1, worker: None };
                let _ = keep(first, outcome.and_then(|result| V::decode(function, result, place)));
            }
        }
        results.close(run);
    });
    failure.map_or(Ok(()), Err)
}

/// Updates a progress report with the news of a call.
fn update_report(report: &mut Report, call: &mut Call, failed: usize) {
    let (progress, ended) = call.news();
    report.progress(progress);
    report.add(&ended, failed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RemoteError;

    fn lost() -> TaskError {
        TaskError::new("f", TaskErrorKind::lost(&"it is gone"), TaskLocation::default())
    }

    /// Returns the item, or the message of the error that ends the call, and how many failures were counted.
    fn judge<M: Mode<V>, V>(outcome: Result<V, TaskError>) -> (Result<M::Item, String>, usize)
    where
        M::Error: ToString,
    {
        let mut failed = 0;
        let item = M::judge(outcome, &mut failed).map_err(|error| error.to_string());
        (item, failed)
    }

    #[test]
    fn the_first_failure_ends_a_call_unless_outcomes_are_collected() {
        assert_eq!(judge::<Values, _>(Ok(1)), (Ok(1), 0));
        assert!(judge::<Values, u32>(Err(lost())).0.is_err_and(|error| error.contains("it is gone")));
        let (item, failed) = judge::<Outcomes, u32>(Err(lost()));
        assert!(item.is_ok_and(|outcome| outcome.is_err()) && failed == 1);
        let (item, failed) = judge::<Outcomes, _>(Ok(1));
        assert!(item.is_ok_and(|outcome| outcome.is_ok()) && failed == 0);
    }

    #[test]
    fn with_a_question_mark_errors_of_the_function_and_of_its_task_are_the_same() {
        type Outcome = Result<u32, RemoteError>;
        let refused = || -> Outcome { Err(RemoteError::msg("refused")) };
        assert_eq!(judge::<TryValues, Outcome>(Ok(Ok(1))), (Ok(1), 0));
        for (outcome, words) in [(Ok(refused()), "refused"), (Err(lost()), "it is gone")] {
            assert!(judge::<TryValues, Outcome>(outcome).0.is_err_and(|error| error.contains(words)));
        }
        for (outcome, words) in [(Ok(refused()), "refused"), (Err(lost()), "it is gone")] {
            let (item, failed) = judge::<TryOutcomes, Outcome>(outcome);
            assert_eq!(failed, 1);
            assert!(item.unwrap().is_err_and(|error| error.to_string().contains(words)));
        }
    }

    #[test]
    fn a_call_that_could_not_be_opened_returns_the_reason_in_every_mode() {
        fn check<V: DeserializeOwned + 'static, M: Mode<V>>()
        where
            M::Error: ToString,
        {
            let call = Err(Error::config("jobs = 0"));
            let collect = Collect::<V, M>::new(Opened { call, unordered: false });
            assert!(collect.finish().is_err_and(|error| error.to_string().contains("jobs = 0")));
        }
        check::<u32, Values>();
        check::<u32, Outcomes>();
        check::<Result<u32, RemoteError>, TryValues>();
        check::<Result<u32, RemoteError>, TryOutcomes>();
    }
}
