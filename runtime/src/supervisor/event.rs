//! Defines what a supervisor reports: the events of its worker, and its exit report.

use std::{sync::Arc, time::Instant};

use crate::{
    batch::Batch,
    captured::Captured,
    codec::Encoded,
    error::{Exit, Fault, TaskErrorKind},
    panic::RemotePanic,
    protocol::{Note, Record, Results},
    transport::Cause,
};

/// The activity of a worker when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Serving,
    Draining,
}

/// An event of a worker.
#[must_use]
pub(crate) enum WorkerEvent<'a> {
    /// The worker has completed its handshake and is idle.
    Started,
    /// The first tasks of the batch have these results.
    Done { batch: &'a mut Batch, results: Results<'a> },
    /// The first task of the batch has a result, after `nanos` nanoseconds.
    DoneOne { batch: &'a mut Batch, nanos: u64, result: Encoded<'a> },
    /// The first task of the batch has failed.
    Failed { batch: &'a mut Batch, nanos: u64, fault: Fault },
    /// The first task of the batch, which was told to end, has returned after `nanos` nanoseconds. It fails with `kind`.
    Stopped { batch: &'a mut Batch, nanos: u64, kind: TaskErrorKind },
    /// The captured output of the task whose outcome is the next event.
    Wrote(Arc<Captured>),
    /// A log record, or a line that was written, and the running batch.
    Said(Record, Option<&'a Batch>),
    /// The first task of the batch has reported its progress, as a fraction.
    Progress { batch: &'a mut Batch, fraction: f64 },
    /// These tasks, oldest first, were recalled before they began. [`Supervisor::take_back`](super::state::Supervisor::take_back)
    /// could not return them at once.
    Recalled(Vec<Batch>),
    /// The worker has sent a note about its times, and the running batch.
    Noted(Note, Option<&'a Batch>),
}

/// The exit report of a worker: what is known about it after its process was reaped.
#[must_use]
pub(crate) struct ExitReport {
    pub(crate) pid: u32,
    pub(crate) launched_at: Instant,
    pub(crate) was: Phase,
    /// Its exit status, or why that is unknown.
    pub(crate) exit: Result<Exit, &'static str>,
    pub(crate) cause: Option<Cause>,
    /// The reason why it did not serve, as it reported it or as the host found it.
    pub(crate) reason: Option<String>,
    /// It has reported that it could not start because the system lacks a resource.
    pub(crate) was_short: bool,
    /// The panic that it reported before it ended.
    pub(crate) panic: Option<RemotePanic>,
    /// The host killed it.
    pub(crate) killed: bool,
    /// The error of the task that it was running, if that task was being stopped.
    pub(crate) stopped: Option<TaskErrorKind>,
    /// The task that it was running.
    pub(crate) running: Option<Batch>,
    /// The output of that task, or the output after the last task if none was running.
    pub(crate) output: Option<Arc<Captured>>,
    /// The tasks that it had not begun.
    pub(crate) waiting: Vec<Batch>,
    /// The tasks of which it is unknown whether they began.
    pub(crate) unknown: Vec<Batch>,
    /// It had returned at least one result.
    pub(crate) was_useful: bool,
}

impl ExitReport {
    /// Returns whether a task had begun without an outcome, or may have.
    pub(crate) fn had_begun(&self) -> bool {
        self.running.is_some() || !self.unknown.is_empty()
    }
}
