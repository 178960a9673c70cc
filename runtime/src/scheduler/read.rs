//! Reads what workers send, and hands results, failures, records and notes to the queues, the statistics and the effects.
//!
//! Only the leader may read. A worker is not read past a record until the record has been delivered.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    config::Config,
    effects::Effects,
    policy::SHARE_AFTER,
    queues::Queues,
    reap::{failure, the_initializer},
    state::{Leaving, Scheduler},
};
use crate::{
    batch::Batch,
    captured::Captured,
    codec::Encoded,
    error::TaskErrorKind,
    id::{FunctionId, WorkerId},
    observe::{record::ForwardedRecord, timeline::TimelineEntry},
    protocol::{Note, Record},
    supervisor::event::WorkerEvent,
};

/// The activity of a worker: running tasks of callers, the initializer or the finalizer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Activity {
    Serving,
    Initializing,
    Finalizing,
}

/// Returns a record with the caller of the running task, if the record belongs to a task.
fn forwarded(record: Record, worker: WorkerId, pid: u32, running: Option<&Batch>) -> ForwardedRecord {
    let running = running.filter(|_| record.task().is_some());
    let caller = running.map(|running| running.to.caller()).unwrap_or_default();
    ForwardedRecord { record, worker, pid, caller }
}

/// The state that the events of a worker change while it is being read: everything but the workers.
struct EventHandler<'a> {
    worker: WorkerId,
    pid: u32,
    activity: Activity,
    now: Instant,
    config: &'a Config,
    queues: &'a mut Queues,
    leaving: &'a mut Leaving,
    effects: &'a mut Effects,
    /// The captured output of the task whose outcome is the next event.
    output: Option<Arc<Captured>>,
    seen: Seen,
}

/// The observations about a worker while it was read.
#[derive(Default)]
struct Seen {
    has_started: bool,
    /// It has returned an outcome, other than a failure of its initializer.
    has_replied: bool,
    /// A task that was told to end has returned.
    has_stopped: bool,
    /// It has sent a record, which must be delivered before anything else is read.
    has_sent_record: bool,
    /// Its tasks that have not begun, if they were taken back.
    recalled: Option<Vec<Batch>>,
    /// The reason why its initializer failed.
    failure: Option<(String, Option<TaskErrorKind>)>,
}

impl EventHandler<'_> {
    /// Handles an event. Breaks if no more may be read.
    fn on(&mut self, event: WorkerEvent<'_>) -> ControlFlow<()> {
        match event {
            WorkerEvent::Started => self.seen.has_started = true,
            WorkerEvent::Done { batch, results } if self.activity == Activity::Serving => {
                self.seen.has_replied = true;
                self.queues.done(batch, results, self.worker, self.effects);
            }
            WorkerEvent::Done { batch, results } => {
                results.for_each(|result| self.task_ended(batch, 0, Ok(Encoded::Short(result))));
            }
            WorkerEvent::DoneOne { batch, nanos, result } => self.task_ended(batch, nanos, Ok(result)),
            WorkerEvent::Failed { batch, nanos, fault } => self.task_ended(batch, nanos, Err(fault.into())),
            WorkerEvent::Stopped { batch, nanos, kind } => {
                self.seen.has_stopped = true;
                self.task_ended(batch, nanos, Err(kind));
            }
            WorkerEvent::Progress { batch, fraction } => {
                batch.to.give_progress(batch.first, fraction, &mut self.effects.wakes);
            }
            WorkerEvent::Recalled(batches) => self.seen.recalled = Some(batches),
            WorkerEvent::Wrote(output) => self.output = Some(output),
            WorkerEvent::Noted(note, batch) => self.noted(note, batch),
            WorkerEvent::Said(record, batch) => {
                self.effects.records.push(forwarded(record, self.worker, self.pid, batch));
                self.seen.has_sent_record = true;
            }
        }
        if self.seen.has_sent_record || self.seen.failure.is_some() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Handles the outcome of the first task of a batch.
    fn task_ended(&mut self, batch: &mut Batch, nanos: u64, outcome: Result<Encoded<'_>, TaskErrorKind>) {
        self.seen.has_replied = true;
        let (worker, by) = (self.worker, (self.worker, self.pid));
        let output = self.output.take();
        self.effects.give_output(batch, output.clone());
        match (self.activity, outcome) {
            (Activity::Serving, Ok(result)) => {
                self.queues.done_one(batch, nanos, Ok(result), worker, self.effects);
            }
            (Activity::Serving, Err(kind)) => {
                self.queues.failed(batch, nanos, kind, by, output, self.effects)
            }
            (Activity::Initializing, outcome) => self.initializer_ended(outcome),
            (Activity::Finalizing, Ok(result)) => self.leaving.exits.push(Ok(result.into_owned())),
            (Activity::Finalizing, Err(kind)) => {
                let finalizer = self.config.lives.finalizer.as_ref();
                self.leaving.exits.push(Err(self.queues.exit_error(finalizer, kind, by)));
            }
        }
    }

    fn initializer_ended(&mut self, outcome: Result<Encoded<'_>, TaskErrorKind>) {
        let initializer = self.config.lives.initializer.as_ref();
        self.queues.initializing.remove(&self.worker);
        self.seen.failure = match outcome {
            Ok(result) => {
                self.queues.tally(self.worker).initialized(self.now);
                failure(initializer, &result)
            }
            // The pool is ending.
            Err(_) if self.seen.has_stopped => None,
            Err(kind) => Some((kind.of(&the_initializer(initializer)), Some(kind))),
        };
        self.seen.has_replied = self.seen.failure.is_none();
    }

    /// Handles a note about the worker's times.
    fn noted(&mut self, note: Note, running: Option<&Batch>) {
        let (worker, queues) = (self.worker, &mut *self.queues);
        match note {
            Note::Sample { tasks, encoding, peak_rss_bytes } => {
                queues.tally(worker).sampled(tasks, Duration::from_nanos(encoding), peak_rss_bytes);
            }
            Note::Late { nanos, tasks, task, function } => {
                queues.late(worker, FunctionId(function), task, tasks, nanos);
            }
            Note::Begun { nanos } => {
                if let Some(timeline) = &mut queues.timeline {
                    timeline.push(TimelineEntry::Begun { worker, nanos });
                }
            }
            Note::Waited { tasks, times } => {
                if let Some(queue) = running.and_then(|running| queues.by_id.get_mut(&running.queue)) {
                    queue.have_waited(tasks, times);
                }
            }
        }
    }
}

impl Scheduler {
    /// Reads what a worker has written to its streams until now, or all of it if this is the `last` read. Returns whether some of
    /// it must be delivered before anything else is read.
    pub(super) fn read_output(&mut self, place: usize, last: bool) -> bool {
        let worker = &mut self.workers[place];
        let (id, pid) = (worker.id(), worker.pid().unwrap_or_default());
        let records = &mut self.effects.records;
        let is_said = |records: &[ForwardedRecord]| records.iter().any(|record| record.worker == id);
        if !is_said(records) {
            let on = |record, batch: Option<&Batch>| records.push(forwarded(record, id, pid, batch));
            if last { worker.read_last_output(on) } else { worker.read_output(on) }
        }
        is_said(&self.effects.records)
    }

    fn activity(&self, id: WorkerId) -> Activity {
        if self.queues.initializing.contains(&id) {
            Activity::Initializing
        } else if self.leaving.is_finalizing(id) {
            Activity::Finalizing
        } else {
            Activity::Serving
        }
    }

    /// Reads a worker to the end, up to its share of a turn, or up to a record that must be delivered before anything after it is
    /// read. Returns whether it was read to the end.
    ///
    /// Only the leader may call this.
    pub(crate) fn read(&mut self, place: usize, readable: bool, now: Instant) -> bool {
        let worker = &self.workers[place];
        let (id, was_useful) = (worker.id(), worker.was_useful());
        if self.effects.records.iter().any(|record| record.worker == id) {
            self.unread.insert(place);
            return false;
        }
        let mut handler = EventHandler {
            worker: id,
            pid: worker.pid().unwrap_or_default(),
            activity: self.activity(id),
            now,
            config: &self.config,
            queues: &mut self.queues,
            leaving: &mut self.leaving,
            effects: &mut self.effects,
            output: None,
            seen: Seen::default(),
        };
        let paused = self.workers[place].read(readable, now, |event| handler.on(event));
        let EventHandler { activity, seen, .. } = handler;
        let to_the_end = !paused && !seen.has_sent_record;
        if !to_the_end {
            self.unread.insert(place);
        }
        if let Some(batches) = seen.recalled {
            self.recalled(place, batches, now);
        }
        if seen.has_started {
            self.worker_started(place, now);
        }
        if seen.has_replied {
            self.worker_replied(place, activity, was_useful, now);
        }
        if seen.has_stopped && self.workers[place].is_idle() && !self.workers[place].can_recall() {
            // The worker was told to stop by closing its connection, so it cannot receive more tasks.
            self.workers[place].drain(now);
        }
        if let Some(failure) = seen.failure {
            let begun = self.workers[place].launched_at().unwrap_or(now);
            self.workers[place].dismiss(now);
            self.start_failed(begun, now, failure.0, failure.1);
        }
        to_the_end
    }

    /// Has a worker that has completed its handshake run the initializer, if there is one.
    fn worker_started(&mut self, place: usize, now: Instant) {
        let id = self.workers[place].id();
        let initializer = self.config.lives.initializer.clone();
        self.queues.tally(id).started(now, initializer.is_some());
        self.worker_reported(id, now);
        match initializer {
            // The worker may have ended after it reported its start.
            Some((call, _)) if self.workers[place].is_live() => {
                self.queues.initializing.insert(id);
                self.run_own(place, call, now);
            }
            Some(_) => {}
            // The pool may have been given up while this worker started.
            None => self.queues.given_up = None,
        }
    }

    /// Notes that a worker has returned outcomes. `was_useful` says whether it had done so before.
    fn worker_replied(&mut self, place: usize, activity: Activity, was_useful: bool, now: Instant) {
        let worker = &self.workers[place];
        let (id, is_idle) = (worker.id(), worker.is_idle());
        let tally = self.queues.tally(id);
        if is_idle {
            tally.released(now);
        }
        tally.note_result(now);
        self.worker_reported(id, now);
        if activity == Activity::Serving {
            self.check_memory(place, now);
        }
        if !was_useful {
            self.restarts.came_up();
            self.pinned = None;
            // The pool may have been given up while this worker started.
            self.queues.given_up = None;
        }
        self.restarts.forgive();
        self.share_after = SHARE_AFTER;
    }

    /// Notes a sign of life of a worker.
    fn worker_reported(&mut self, id: WorkerId, now: Instant) {
        self.queues.progress.insert(id, now);
        self.queues.overdue.remove(&id);
        self.schedule_idle_check(now);
    }
}
