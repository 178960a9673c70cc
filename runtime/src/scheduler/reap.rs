//! Handles the end of workers: retries or fails their tasks.
//!
//! A worker's tasks are settled only here, after its process was reaped, because only then can it not run anything more. If the
//! worker has never served, its end is a failed start (`give_up`).

use std::{mem, time::Instant};

use super::{cancel::stopped_by, queues::GivenUp, state::Scheduler};
use crate::{
    batch::Batch,
    codec::Encoded,
    error::{POOL_ENDED, TaskErrorKind},
    id::WorkerId,
    launch::CLOSED_WITHIN,
    observe::timeline::TimelineEntry,
    protocol::ReturnKind,
    supervisor::{
        event::{ExitReport, Phase},
        exit::{cause_of_death, is_killed_for_memory, why_not_started},
    },
    sys::identified::CLOSED,
    task::EncodedCall,
    transport::Cause,
};

/// Returns the failure that an initializer's result describes, if it does.
pub(super) fn failure(
    initializer: Option<&(EncodedCall, ReturnKind)>,
    result: &Encoded<'_>,
) -> Option<(String, Option<TaskErrorKind>)> {
    let (call, outcome) = initializer?;
    outcome.check("initializer", call.entry.name, result).map_err(|words| (words, None)).err()
}

pub(super) fn the_initializer(initializer: Option<&(EncodedCall, ReturnKind)>) -> String {
    format!("the initializer `{}`", initializer.map_or("", |(call, _)| call.entry.name))
}

/// Returns whether this was the end of a start: the worker has not returned anything, and no task has ended it.
fn is_failed_start(report: &ExitReport) -> bool {
    let has_not_served = match report.was {
        Phase::Starting => true,
        Phase::Serving => !report.had_begun() && !report.was_useful,
        Phase::Draining => false,
    };
    // A reason says that the worker was killed for what it sent.
    has_not_served && (!report.killed || report.reason.is_some())
}

/// If a worker ran out of memory while it read its next task, that is the task that it was running.
fn blame_next(report: &mut ExitReport) {
    if report.running.is_none() && report.cause == Some(Cause::OutOfMemory) && !report.waiting.is_empty() {
        let mut next = report.waiting.remove(0);
        report.running = Some(next.take_first(1));
        if next.len() > 0 {
            report.waiting.insert(0, next);
        }
    }
}

/// Returns the error of a task of which it is unknown whether it ran.
fn unknown_outcome(report: &ExitReport) -> TaskErrorKind {
    let how = match (report.exit, &report.reason) {
        (Ok(exit), _) if report.cause == Some(Cause::DescriptorsClosed) => {
            format!(" ({exit}): {CLOSED_WITHIN}")
        }
        (Ok(exit), Some(reason)) => format!(" ({exit}): {reason}"),
        (Ok(exit), None) => format!(" ({exit})"),
        (Err(why), _) => format!(" ({why})"),
    };
    TaskErrorKind::Lost { message: format!("its worker has ended{how}, and it is unknown whether it ran") }
}

impl Scheduler {
    /// Reaps a worker whose process has ended, and settles the tasks that it had.
    pub(super) fn reap(&mut self, place: usize, now: Instant) {
        let worker = &mut self.workers[place];
        let id = worker.id();
        let Some(report) = worker.reap(now) else { return };
        self.queues.tally(id).ended(now, report.had_begun());
        let (was_initializing, was_finalizing) = self.forget(id);
        self.announce_end(id, &report);
        if !report.had_begun() || was_initializing || was_finalizing {
            self.effects.outputs.extend(report.output.clone());
        }
        if was_initializing {
            self.initializer_died(report, now);
        } else if was_finalizing {
            self.finalizer_died(id, report);
        } else {
            self.settle(place, report, now);
        }
    }

    /// Enters the end of a worker in the timeline, and logs it if a task has closed the worker's descriptors.
    fn announce_end(&mut self, id: WorkerId, report: &ExitReport) {
        let ExitReport { pid, exit, .. } = *report;
        #[cfg(feature = "tracing")]
        self.effects.ended.push(pid);
        if let Some(timeline) = &mut self.queues.timeline {
            let is_orderly = report.was == Phase::Draining || exit.is_ok_and(|exit| exit.code() == Some(0));
            timeline.push(TimelineEntry::Ended { worker: id, pid, exit: exit.ok(), is_orderly });
        }
        // Which task ended a worker is known only if the worker could note what it began.
        let is_unexplained = !report.had_begun() && report.cause == Some(Cause::DescriptorsClosed);
        if is_unexplained && !mem::replace(&mut self.said_closed, true) {
            self.effects.notes.push(format!(
                "worker {id} (pid {pid}) is replaced: {CLOSED_WITHIN}; further cases are not logged"
            ));
        }
    }

    fn initializer_died(&mut self, mut report: ExitReport, now: Instant) {
        if report.killed {
            return;
        }
        let by_kernel = self.is_killed_for_memory(&report);
        let kind = self.cause_of_death(&mut report, by_kernel);
        let words = kind.of(&the_initializer(self.config.lives.initializer.as_ref()));
        self.start_failed(report.launched_at, now, words, Some(kind));
    }

    fn finalizer_died(&mut self, id: WorkerId, mut report: ExitReport) {
        if !report.had_begun() && report.waiting.is_empty() {
            // It had finished its finalizer.
            return;
        }
        let kind = self.cause_of_death(&mut report, false);
        let by = (id, report.pid);
        let error = self.queues.exit_error(self.config.lives.finalizer.as_ref(), kind, by);
        self.leaving.exits.push(Err(error));
    }

    /// Settles the tasks of a worker, and handles its end as a failed start if it has never served.
    fn settle(&mut self, place: usize, mut report: ExitReport, now: Instant) {
        let id = self.workers[place].id();
        let is_failed_start = is_failed_start(&report) && !self.closing;
        let by_kernel = self.is_killed_for_memory(&report);
        blame_next(&mut report);
        let cancels = self.requeue(place, mem::take(&mut report.waiting));
        if let Some(task) = report.running.take() {
            report.stopped = report.stopped.or_else(|| stopped_by(&cancels, &task).cloned());
            let kind = self.cause_of_death(&mut report, by_kernel);
            self.retry_or_fail(task, &kind, id, &report);
        }
        if self.closing {
            // The tasks that the worker had not begun are queued again, and a closing pool runs no more tasks.
            self.fail_queued(&TaskErrorKind::Cancelled { why: POOL_ENDED });
        } else if let Some(given_up) = &self.queues.given_up {
            // The pool was given up while this worker was ending.
            let kind = given_up.kind.clone();
            self.fail_queued(&kind);
        }
        // Without a board at most one task is in flight.
        for batch in mem::take(&mut report.unknown) {
            self.queues.leave(&batch, id);
            let kind = report.stopped.clone().unwrap_or_else(|| unknown_outcome(&report));
            self.fail_at(batch, &kind, id, &report);
        }
        if is_failed_start {
            let why = why_not_started(&format!("worker {id} (pid {})", report.pid), &report);
            if report.was_short {
                self.start_lacks_resources(report.launched_at, now, &why);
            } else {
                self.start_failed(report.launched_at, now, why, None);
            }
        }
    }

    /// Queues the task that a worker was running again if its worker died and it may be retried, and fails it otherwise.
    fn retry_or_fail(&mut self, task: Batch, kind: &TaskErrorKind, id: WorkerId, report: &ExitReport) {
        self.queues.leave(&task, id);
        let retries = self.queues.options_of(task.queue).retries.unwrap_or(0);
        let died = matches!(kind, TaskErrorKind::Crash { .. } | TaskErrorKind::OutOfMemory { .. });
        if !died || task.attempts > retries || self.closing {
            return self.fail_at(task, kind, id, report);
        }
        self.effects.outputs.extend(report.output.clone());
        if let Some(timeline) = &mut self.queues.timeline {
            let (function, number) = (task.function(), task.first);
            timeline.push(TimelineEntry::Retried { worker: id, function, number });
        }
        self.queues.put_first(task, id);
    }

    /// Fails tasks with their worker, the first of which wrote the output of the report.
    fn fail_at(&mut self, batch: Batch, kind: &TaskErrorKind, id: WorkerId, report: &ExitReport) {
        let output = report.output.as_ref();
        self.effects.give_output(&batch, output.cloned());
        self.queues.fail(batch, kind, Some((id, report.pid, output)), &mut self.effects);
    }

    /// Returns the error of the task that a worker was running when it ended.
    fn cause_of_death(&self, report: &mut ExitReport, by_kernel: bool) -> TaskErrorKind {
        cause_of_death(report, by_kernel, self.config.spawn.setup.memory_limit)
    }

    fn is_killed_for_memory(&mut self, report: &ExitReport) -> bool {
        is_killed_for_memory(report, &mut self.oom_kills, &*self.launcher)
    }

    /// Forgets a worker that has ended. Returns whether it was running the initializer, and whether it was sent the finalizer.
    fn forget(&mut self, id: WorkerId) -> (bool, bool) {
        self.queues.progress.remove(&id);
        self.queues.overdue.remove(&id);
        self.leaving.who.remove(&id);
        (self.queues.initializing.remove(&id), self.leaving.finalizing.remove(&id))
    }

    /// Fails all present and future tasks, because other code has closed the pool's descriptors.
    ///
    /// The descriptors' numbers may belong to other files, so the workers are not touched. They end by themselves, as their
    /// connections have ended.
    pub(crate) fn break_down(&mut self) {
        let kind = TaskErrorKind::Lost { message: CLOSED.to_owned() };
        self.queues.given_up = Some(GivenUp { kind: kind.clone(), until: None, next_call: None });
        self.unread.clear();
        let mut next = 0;
        while let Some(place) = self.workers.next_occupied(&mut next) {
            let id = self.workers[place].id();
            let Some((pid, batches)) = self.workers[place].abandon() else { continue };
            let (was_initializing, was_finalizing) = self.forget(id);
            for batch in batches.filter(|_| !was_initializing && !was_finalizing) {
                self.queues.leave(&batch, id);
                self.queues.fail(batch, &kind, Some((id, pid, None)), &mut self.effects);
            }
        }
        self.fail_queued(&kind);
    }

    /// Fails everything that waits.
    pub(crate) fn fail_queued(&mut self, kind: &TaskErrorKind) {
        let queues = &mut self.queues;
        for id in Vec::from(queues.turns.clone()) {
            for batch in queues.take_all(id) {
                queues.fail(batch, kind, None, &mut self.effects);
            }
            queues.remove_if_done(id);
        }
        for batch in mem::take(&mut queues.pinned).into_values().flatten() {
            queues.fail(batch, kind, None, &mut self.effects);
        }
    }
}
