//! What a supervisor reports: steps of its worker, and how the worker ended.

use std::{sync::Arc, time::Instant};

use crate::{
    captured::Captured,
    codec::Encoded,
    error::{Exit, Fault, TaskErrorKind},
    panic::RemotePanic,
    protocol::{Note, Record, Results},
    transport::Cause,
};

/// What a worker was doing when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Serving,
    Draining,
}

/// What a worker had to say.
#[must_use]
pub(crate) enum Step<'a, T> {
    /// It has shaken hands and is idle.
    Started,
    /// The first tasks of the load gave these results.
    Done { load: &'a mut T, results: Results<'a> },
    /// The first task of the load gave a result, after so many nanoseconds.
    DoneOne { load: &'a mut T, nanos: u64, result: Encoded<'a> },
    /// The first task of the load gave none.
    Failed { load: &'a mut T, nanos: u64, fault: Fault },
    /// The first task of the load, which was to end, has ended by itself after so many nanoseconds; this is what it comes to.
    Stopped { load: &'a mut T, nanos: u64, kind: TaskErrorKind },
    /// What was written by the task whose outcome is the next step.
    Wrote(Arc<Captured>),
    /// A function's words, or a line that it wrote, and the load that runs, if one does.
    Said(Record, Option<&'a T>),
    /// The first task of the load is so far, it says: a fraction of itself.
    Progress { load: &'a mut T, fraction: f64 },
    /// It tells of its time.
    Noted(Note),
}

/// What is known of a worker that has ended. Its place is vacant again.
#[must_use]
pub(crate) struct Obituary<T> {
    pub(crate) pid: u32,
    pub(crate) launched_at: Instant,
    pub(crate) was: Phase,
    /// How it ended, or why that is not known.
    pub(crate) exit: Result<Exit, &'static str>,
    pub(crate) cause: Option<Cause>,
    /// Why it would not serve, in its own words or ours.
    pub(crate) reason: Option<String>,
    /// It has said that it could not start because the system is short of something.
    pub(crate) was_short: bool,
    /// What it said of the panic during which it ended.
    pub(crate) panic: Option<RemotePanic>,
    /// The host killed it.
    pub(crate) killed: bool,
    /// The task that it was running was to end, and comes to this.
    pub(crate) stopped: Option<TaskErrorKind>,
    /// The task that it was running.
    pub(crate) running: Option<T>,
    /// What that task had written, or, if it ran none, what it wrote after the last.
    pub(crate) output: Option<Arc<Captured>>,
    /// Tasks that it had not begun.
    pub(crate) waiting: Vec<T>,
    /// Tasks of which nobody knows whether it began them.
    pub(crate) unknown: Vec<T>,
    /// It had given at least one result.
    pub(crate) was_useful: bool,
}
