//! Runs tasks on the calling thread, for pools without processes.
//!
//! Arguments and results are encoded as for a worker. Nothing here starts a thread or a process.

use std::{
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    codec::OwnedResult,
    context::{seed_of_call, seed_of_singles},
    error::{TaskError, TaskErrorKind, TaskLocation},
    id::TaskId,
    observe::{
        ending::{Ending, Endings},
        stats::Stats,
    },
    protocol::ReturnKind,
    scheduler::config::Finalizer,
    seed::{self, Calls},
    sync::ignore_poison,
    task::EncodedCall,
};

/// The state of a pool without processes: the functions that run once, before the first task and after the last, and the
/// statistics.
#[derive(Debug, Default)]
pub(crate) struct InProcess {
    pub(crate) first: Vec<(EncodedCall, ReturnKind)>,
    pub(crate) finalizer: Option<Finalizer>,
    pub(crate) initialized: OnceLock<Result<(), TaskErrorKind>>,
    pub(crate) seed: Option<u64>,
    /// The number of calls so far.
    pub(crate) calls: Calls,
    pub(crate) tasks: AtomicU64,
    /// The number of tasks that ended in each way.
    pub(crate) endings: Mutex<Endings>,
    /// The time that tasks took, in nanoseconds.
    pub(crate) busy: AtomicU64,
}

impl InProcess {
    /// Runs a task that was submitted individually. Returns its number and its outcome.
    pub(crate) fn run_single(&self, request: &EncodedCall) -> (TaskId, Result<OwnedResult, TaskError>) {
        let number = self.tasks.fetch_add(1, Ordering::Relaxed);
        let seed = seed_of_singles(self.seed);
        (TaskId(number), self.run(request, None, seed::of(seed, number)))
    }

    /// Runs the only task of a broadcast.
    pub(crate) fn run_broadcast(&self, request: &EncodedCall) -> Result<OwnedResult, TaskError> {
        let seed = seed_of_call(None, self.seed, &self.calls);
        self.run(request, Some(0), seed::of(seed, 0))
    }

    pub(crate) fn stats(&self) -> Stats {
        let busy = Duration::from_nanos(self.busy.load(Ordering::Relaxed));
        let endings = *ignore_poison(self.endings.lock());
        Stats::in_process(endings, busy)
    }

    /// Runs one task in this process.
    pub(crate) fn run(
        &self,
        request: &EncodedCall,
        index: Option<usize>,
        seed: u64,
    ) -> Result<OwnedResult, TaskError> {
        let place = TaskLocation { index, attempts: 1, worker: None };
        let initialized = self.initialized.get_or_init(|| {
            self.first.iter().try_for_each(|(first, outcome)| {
                let mut result = first.run()?;
                outcome
                    .check("initializer", first.entry.name, &result.as_encoded())
                    .map_err(|why| TaskErrorKind::NotStarted { why, cause: None })
            })
        });
        let start = Instant::now();
        let outcome = initialized.clone().and_then(|()| Ok(seed::with(seed, || request.run())?));
        let ended = outcome.as_ref().map_or_else(Ending::of, |_| Ending::Finished);
        ignore_poison(self.endings.lock()).add(ended, 1);
        self.busy.fetch_add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        outcome.map_err(|kind| {
            TaskError::new(request.entry.name, kind, place).after_lending(request.handles.loans.names())
        })
    }

    /// Runs the finalizer, if there is one and a task has run.
    pub(crate) fn finalize(&self) -> Option<Result<OwnedResult, TaskError>> {
        let EncodedCall { entry, .. } = self.finalizer.as_ref()?.call;
        self.initialized.get()?.as_ref().ok()?;
        let place = TaskLocation { attempts: 1, ..TaskLocation::default() };
        let outcome = self.finalizer.as_ref()?.call.run();
        Some(outcome.map_err(|fault| TaskError::new(entry.name, fault.into(), place)))
    }
}
