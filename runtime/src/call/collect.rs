//! Collects the results of one call: pushes tasks, waits while the window is full, decodes results, and reports progress.
//!
//! All sinks of `parallel!` share it. It never runs a task, and decodes results with no lock held.

use std::ops::ControlFlow;

use serde::de::DeserializeOwned;

use super::{order::InOrder, state::Call};
use crate::{
    error::{Error, Result, TaskError, TaskLocation},
    handle::{decode, decode_many, inherited},
    observe::report::Report,
    scheduler::inbox::Arrival,
    task::Task,
};

/// A call whose results will be collected, or the reason why it could not be opened. Part of the interface of macro expansions.
#[derive(Debug)]
pub struct Opened {
    pub(crate) call: Result<(Call, Option<Box<Report>>)>,
    /// Results are returned in the order of completion.
    pub(crate) unordered: bool,
}

/// One comprehension in progress: the part that all sinks have in common.
pub(crate) struct Gathering<T> {
    /// `None` if the call could not begin.
    call: Option<Call>,
    results: InOrder<T>,
    function: &'static str,
    /// The progress report, if there is one.
    report: Option<Box<Report>>,
}

impl<T> Gathering<T> {
    pub(super) fn new(opened: Opened) -> (Self, Option<Error>) {
        let (call, report, error) = match opened.call {
            Ok((call, report)) => (Some(call), report, None),
            Err(error) => (None, None, Some(error)),
        };
        let results = InOrder::new(opened.unordered);
        (Self { call, results, function: "", report }, error)
    }

    /// Notes the length of the input, for a call with a single input.
    pub(super) fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        let input = input.into_iter();
        if let Some(report) = &mut self.report
            && let (least, Some(most)) = input.size_hint()
            && least == most
        {
            report.expect(most);
        }
        input
    }

    /// Pushes a simple task if the window is not full. Returns `false` if the task must be [pushed](Self::push) instead.
    #[inline]
    pub(super) fn push_simple<V>(&mut self, task: &Task<V>) -> bool {
        self.call.as_mut().is_some_and(|call| call.push_simple(&task.call))
    }

    /// Queues a task. While the window is full, receives results and passes each to `judge`, which keeps the value or fails the
    /// call.
    pub(super) fn push<V, F>(
        &mut self,
        task: Task<V>,
        judge: impl Fn(Result<V, TaskError>, &mut usize) -> Result<T, F>,
    ) -> Result<(), F>
    where
        V: DeserializeOwned + 'static,
    {
        self.function = task.function();
        self.disown(&judge)?;
        let Some(call) = &mut self.call else { return Ok(()) };
        call.push(task.call);
        loop {
            let Some(call) = &mut self.call else { return Ok(()) };
            if call.has_room() {
                return Ok(());
            }
            call.wait();
            self.receive(&judge)?;
        }
    }

    /// If this process is a fork of the one that made the call, fails every task without a result.
    fn disown<V, F>(
        &mut self,
        judge: &impl Fn(Result<V, TaskError>, &mut usize) -> Result<T, F>,
    ) -> Result<(), F> {
        let Some(call) = &mut self.call else { return Ok(()) };
        if call.disown().is_none() {
            return Ok(());
        }
        self.results.ahead.clear();
        while self.results.first.len() < call.pushed() {
            self.results.first.push(judge(Err(inherited(self.function)), &mut 0)?);
        }
        Ok(())
    }

    fn receive<V, F>(
        &mut self,
        judge: &impl Fn(Result<V, TaskError>, &mut usize) -> Result<T, F>,
    ) -> Result<(), F>
    where
        V: DeserializeOwned + 'static,
    {
        let Self { call: Some(call), results, function, report } = self else { return Ok(()) };
        let (mut failure, mut failed) = (None, 0);
        call.receive(|first, arrival| {
            if failure.is_some() {
                return;
            }
            let tasks = if let Arrival::Many(arrived) = &arrival { arrived.len() as usize } else { 1 };
            let mut run = results.open(first, tasks);
            // Called for one result after another.
            let mut keep = |_, outcome| match judge(outcome, &mut failed) {
                Ok(value) => {
                    run.values.push(value);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            };
            match arrival {
                Arrival::Many(arrived) => decode_many(function, first, arrived, keep),
                Arrival::One(outcome) => {
                    let place = TaskLocation { index: Some(first), attempts: 1, worker: None };
                    let _ = keep(first, outcome.and_then(|result| decode(function, result, place)));
                }
            }
            results.close(run);
        });
        if let Some(report) = report {
            tell(report, call, failed + usize::from(failure.is_some()));
        }
        match failure {
            None => Ok(()),
            Some(error) => {
                *report = None;
                call.cancel(true);
                Err(error)
            }
        }
    }

    pub(super) fn finish<V, F>(
        mut self,
        judge: impl Fn(Result<V, TaskError>, &mut usize) -> Result<T, F>,
    ) -> Result<Vec<T>, F>
    where
        V: DeserializeOwned + 'static,
    {
        if let (Some(report), Some(call)) = (&mut self.report, &self.call) {
            report.expect(call.pushed());
        }
        self.disown(&judge)?;
        while let Some(call) = &mut self.call
            && call.outstanding() > 0
        {
            call.wait();
            self.receive(&judge)?;
        }
        debug_assert!(self.results.ahead.is_empty(), "every task of a call without failures has a result");
        if let Some(report) = self.report {
            report.finish();
        }
        Ok(self.results.first)
    }
}

/// Updates a progress report with the news of a call.
pub(crate) fn tell(report: &mut Report, call: &mut Call, failed: usize) {
    let (progress, ended) = call.news();
    report.progress(progress);
    report.add(&ended, failed);
}
