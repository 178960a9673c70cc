//! Reads what workers send, and hands results, failures, records and notes to the queues, the statistics and the effects.
//!
//! Only the leader may read. A worker is not read past a record until the record has been delivered.

use std::time::{Duration, Instant};

use super::{
    batch::Batch,
    policy::SHARE_AFTER,
    reap::{failure, the_initializer},
    state::Scheduler,
};
use crate::{
    codec::Encoded,
    error::TaskErrorKind,
    id::{FunctionId, WorkerId},
    observe::record::ForwardedRecord,
    protocol::{Note, Record},
    supervisor::event::WorkerEvent,
};

/// What a worker is doing: running tasks of callers, the initializer or the finalizer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Serving,
    Initializing,
    Finalizing,
}

/// Returns a record with the caller of the running task, if the record belongs to a task.
fn said(record: Record, worker: WorkerId, pid: u32, running: Option<&Batch>) -> ForwardedRecord {
    let running = running.filter(|_| record.task().is_some());
    let caller = running.map(|running| running.to.caller()).unwrap_or_default();
    ForwardedRecord { record, worker, pid, caller }
}

impl Scheduler {
    /// Reads what a worker has written to its streams until now, or all of it if this is the `last` read. Returns whether some of
    /// it must be delivered before anything else is read.
    pub(super) fn read_output(&mut self, place: usize, last: bool) -> bool {
        let worker = &mut self.workers[place];
        let (id, pid) = (worker.id(), worker.pid().unwrap_or_default());
        let words = &mut self.effects.words;
        let is_said = |words: &[ForwardedRecord]| words.iter().any(|words| words.worker == id);
        if !is_said(words) {
            let on = |record, load: Option<&Batch>| words.push(said(record, id, pid, load));
            if last { worker.read_last_output(on) } else { worker.read_output(on) }
        }
        is_said(&self.effects.words)
    }

    fn role(&self, id: WorkerId) -> Role {
        if self.queues.initializing.contains(&id) {
            Role::Initializing
        } else if self.leaving.is_finalizing(id) {
            Role::Finalizing
        } else {
            Role::Serving
        }
    }

    /// Reads a worker to the end, up to its share of a turn, or up to a record that must be delivered before anything after it is
    /// read. Returns whether it was read to the end.
    ///
    /// Only the leader may call this.
    pub(crate) fn read(&mut self, place: usize, readable: bool, now: Instant) -> bool {
        let worker = &self.workers[place];
        let (id, pid) = (worker.id(), worker.pid().unwrap_or_default());
        let was_useful = worker.was_useful();
        let role = self.role(id);
        let worker = &mut self.workers[place];
        let (queues, leaving, effects) = (&mut self.queues, &mut self.leaving, &mut self.effects);
        let initializer = self.config.initializer.as_ref();
        let finalizer = self.config.lives.finalizer.as_ref();
        if effects.words.iter().any(|words| words.worker == id) {
            self.unread.insert(place);
            return false;
        }
        let mut to_the_end = true;
        let mut started = false;
        let mut useful = false;
        let mut stopped = false;
        let mut failed_to_initialize = None;
        let mut output = None;
        let paused = worker.read(readable, now, |step| {
            match step {
                WorkerEvent::Started => started = true,
                WorkerEvent::Done { load, results } => {
                    useful = true;
                    match role {
                        Role::Serving => queues.done(load, results, id, effects),
                        Role::Initializing => {
                            queues.initializing.remove(&id);
                            queues.tally(id).initialized(now);
                            let mut results = results;
                            failed_to_initialize = results
                                .next()
                                .and_then(|result| failure(initializer, &Encoded::Short(result)));
                        }
                        Role::Finalizing => results.for_each(|result| {
                            leaving.add_exit(Ok(Encoded::Short(result).into_owned()));
                        }),
                    }
                }
                WorkerEvent::DoneOne { load, nanos, result } => {
                    useful = true;
                    load.tell(output.take(), effects);
                    match role {
                        Role::Serving => queues.done_one(load, nanos, Ok(result), id, effects),
                        Role::Initializing => {
                            queues.initializing.remove(&id);
                            queues.tally(id).initialized(now);
                            failed_to_initialize = failure(initializer, &result);
                        }
                        Role::Finalizing => leaving.add_exit(Ok(result.into_owned())),
                    }
                }
                WorkerEvent::Failed { load, nanos, fault } => {
                    useful = true;
                    let output = output.take();
                    load.tell(output.clone(), effects);
                    match role {
                        Role::Serving => queues.failed(load, nanos, fault, (id, pid), output, effects),
                        Role::Initializing => {
                            queues.initializing.remove(&id);
                            let kind = TaskErrorKind::from(fault);
                            failed_to_initialize = Some((kind.of(&the_initializer(initializer)), Some(kind)));
                        }
                        Role::Finalizing => {
                            leaving.add_exit(Err(queues.exit_error(finalizer, fault.into(), (id, pid))));
                        }
                    }
                }
                WorkerEvent::Stopped { load, nanos, kind } => {
                    useful = true;
                    stopped = true;
                    let output = output.take();
                    load.tell(output.clone(), effects);
                    match role {
                        Role::Serving => queues.stopped(load, nanos, kind, (id, pid), output, effects),
                        Role::Initializing => {
                            queues.initializing.remove(&id);
                        }
                        Role::Finalizing => {
                            leaving.add_exit(Err(queues.exit_error(finalizer, kind, (id, pid))));
                        }
                    }
                }
                WorkerEvent::Progress { load, fraction } => {
                    load.to.give_progress(load.first, fraction, &mut effects.wakes)
                }
                WorkerEvent::Wrote(wrote) => output = Some(wrote),
                WorkerEvent::Noted(Note::Sample { tasks, encoding, peak_rss_bytes }) => {
                    queues.tally(id).sampled(tasks, Duration::from_nanos(encoding), peak_rss_bytes);
                }
                WorkerEvent::Noted(Note::Late { nanos, tasks, task, function }) => {
                    queues.late(id, FunctionId(function), task, tasks, nanos);
                }
                WorkerEvent::Noted(Note::Begun { nanos }) => {
                    if let Some(timeline) = &mut queues.timeline {
                        timeline.begun(id, nanos);
                    }
                }
                WorkerEvent::Said(record, load) => {
                    effects.words.push(said(record, id, pid, load));
                    to_the_end = false;
                    return std::ops::ControlFlow::Break(());
                }
            }
            if failed_to_initialize.is_some() {
                useful = false;
                return std::ops::ControlFlow::Break(());
            }
            std::ops::ControlFlow::Continue(())
        });
        to_the_end &= !paused;
        if !to_the_end {
            self.unread.insert(place);
        }
        if started {
            self.queues.tally(id).started(now, self.config.initializer.is_some());
        }
        if useful && self.workers[place].is_idle() {
            self.queues.tally(id).released(now);
        }
        if useful {
            self.queues.tally(id).heard(now);
        }
        if useful || started {
            self.queues.progress.insert(id, now);
            self.queues.overdue.remove(&id);
        }
        if useful || started {
            self.look_for_the_idle(now);
        }
        // The worker may have ended after it reported its start.
        if started
            && self.workers[place].is_live()
            && let Some((call, _)) = self.config.initializer.clone()
        {
            self.queues.initializing.insert(id);
            self.run_own(place, call, now);
        }
        if useful && role == Role::Serving {
            self.weigh(place, now);
        }
        if useful && !was_useful {
            self.restarts.came_up();
            self.pinned = None;
        }
        if (useful && !was_useful) || (started && self.config.initializer.is_none()) {
            // The pool may have been given up while this worker started.
            self.queues.given_up = None;
        }
        if useful {
            self.restarts.forgive();
            self.share_after = SHARE_AFTER;
        }
        if stopped && self.workers[place].is_idle() && !self.workers[place].has_board() {
            // The worker was told to stop by closing its connection, so it cannot receive more tasks.
            self.workers[place].drain(now);
        }
        if let Some(kind) = failed_to_initialize {
            let begun = self.workers[place].launched_at().unwrap_or(now);
            self.workers[place].dismiss(now);
            self.initializer_failed(begun, now, kind);
        }
        to_the_end
    }
}
