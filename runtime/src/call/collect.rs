//! Collects the results of one call in the order of its input.

use std::ops::ControlFlow;

use serde::de::DeserializeOwned;

use super::{order::InOrder, state::Call};
use crate::{
    error::{Error, Place, Result, TaskError},
    handle::{decode, decode_many, inherited},
    observe::report::Report,
    scheduler::inbox::Arrival,
    task::Task,
};

/// A call whose results are to be collected, or why it could not be opened. Part of the expansion's interface.
#[derive(Debug)]
pub struct Opened {
    pub(crate) call: Result<(Call, Option<Box<Report>>)>,
    /// Results are returned in the order of completion.
    pub(crate) unordered: bool,
}

/// One comprehension in progress: what the two sinks have in common.
pub(crate) struct Gathering<T> {
    /// `None` if the call could not begin.
    call: Option<Call>,
    results: InOrder<T>,
    function: &'static str,
    /// What is said of it while it runs.
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

    /// The input of a call that has but this one.
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

    /// As [`push`](Self::push), for a task that is simple, while the window is not full. `false`: it is to be pushed.
    #[inline]
    pub(super) fn push_simple<V>(&mut self, task: &Task<V>) -> bool {
        self.call.as_mut().is_some_and(|call| call.push_simple(&task.call))
    }

    /// Queues the task; while the window is full, takes results and hands each to `judge`, which keeps the value or fails the call.
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

    /// The reader of the input has forked this process: every task without a result in its order comes to an error.
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
            // Called for one after the other.
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
                    let place = Place { index: Some(first), attempts: 1, worker: None };
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

/// Says what has become of tasks.
pub(crate) fn tell(report: &mut Report, call: &mut Call, failed: usize) {
    let (progress, ended) = call.news();
    report.progress(progress);
    report.add(&ended, failed);
}
