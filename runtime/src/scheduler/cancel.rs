//! Cancels calls and tasks, and closes the pool.
//!
//! A task that has not begun fails immediately. A task that has begun is stopped by its supervisor, step by step.

use std::{mem, time::Instant};

use super::state::Scheduler;
use crate::{
    batch::{Batch, Cancelled, QueueId},
    error::{POOL_ENDED, TaskErrorKind},
};

/// The error of a task that was cancelled while it ran.
const STOPPED: &TaskErrorKind = &TaskErrorKind::Cancelled { why: "it was taken back while it ran" };

/// Returns the error of the last task of a batch, which has begun, if it was cancelled.
pub(super) fn stopped_by(cancels: &[Cancelled], batch: &Batch) -> Option<&'static TaskErrorKind> {
    let is_last = |what: &Cancelled| what.within(batch).is_some_and(|range| range.end == batch.len());
    cancels.iter().any(is_last).then_some(STOPPED)
}

impl Scheduler {
    /// Cancels a call: fails what is queued and stops what runs.
    pub(crate) fn cancel_call(&mut self, id: QueueId, now: Instant) {
        self.pull(id, now);
        if let Some(queue) = self.queues.by_id.get_mut(&id) {
            queue.open = false;
        }
        let what = Cancelled::Call(id);
        for batch in self.queues.take_all(id) {
            self.queues.fail(batch, &what.kind(), None, &mut self.effects);
        }
        self.cancel_at_workers(what, now);
        self.queues.remove_if_done(id);
        self.dispatch(now);
    }

    /// Cancels one task, wherever it is.
    pub(crate) fn cancel_task(&mut self, id: u64, function: &'static str, now: Instant) {
        let what = Cancelled::Task(id);
        if !self.queues.take_back(id, function, what.kind(), &mut self.effects) {
            self.cancel_at_workers(what, now);
        }
        self.dispatch(now);
    }

    /// Cancels tasks in flight. A task that has begun is stopped.
    fn cancel_at_workers(&mut self, what: Cancelled, now: Instant) {
        let mut next = 0;
        while let Some(place) = self.workers.next_active(&mut next) {
            if self.workers[place].in_flight().any(|batch| what.within(batch).is_some()) {
                self.cancels.push((place, what));
                self.recall(place, now);
            }
        }
    }

    /// Takes back the tasks that a worker has not begun. Returns whether all that it still has have begun, or `false` if that is known
    /// only later.
    pub(super) fn recall(&mut self, place: usize, now: Instant) -> bool {
        let batches = self.workers[place].take_back(now);
        let is_known = batches.is_some();
        if let Some(batches) = batches {
            self.recalled(place, batches, now);
        }
        is_known
    }

    /// Fails or queues the tasks that were taken back from a worker. If the task that it has begun was cancelled, that one is stopped.
    pub(super) fn recalled(&mut self, place: usize, batches: Vec<Batch>, now: Instant) {
        let cancels = self.requeue(place, batches);
        // Everything that is left has begun, and all but the newest has ended.
        let worker = &mut self.workers[place];
        if let Some(kind) = worker.newest().and_then(|newest| stopped_by(&cancels, newest)) {
            worker.stop(kind.clone(), now);
        }
    }

    /// Queues tasks that were at the worker of a place and have not begun, and fails those of them that were cancelled. Returns what
    /// was cancelled there.
    pub(super) fn requeue(&mut self, place: usize, mut batches: Vec<Batch>) -> Vec<Cancelled> {
        let id = self.workers[place].id();
        let (here, elsewhere) = mem::take(&mut self.cancels).into_iter().partition(|(at, _)| *at == place);
        self.cancels = elsewhere;
        let here: Vec<Cancelled> = here.into_iter().map(|(_, what)| what).collect();
        for what in &here {
            for mut batch in mem::take(&mut batches) {
                let range = what.within(&batch).unwrap_or(0..0);
                let before = batch.take_first(range.start);
                let mut gone = batch.take_first(range.end - range.start);
                batches.extend([before, batch].into_iter().filter(|part| part.len() > 0));
                if gone.len() > 0 {
                    gone.attempts -= 1;
                    self.queues.leave(&gone, id);
                    self.queues.fail(gone, &what.kind(), None, &mut self.effects);
                }
            }
        }
        self.queues.requeue(batches, id);
        here
    }

    /// Closes the pool: fails what is queued, kills busy workers, and drains idle ones.
    pub(crate) fn close(&mut self, now: Instant) {
        self.closing = true;
        // Feeds are not checked any more, because a closing pool dispatches nothing.
        self.queues.look_at_feeds = None;
        self.fail_queued(&TaskErrorKind::Cancelled { why: POOL_ENDED });
        let mut next = 0;
        while let Some(place) = self.workers.next_occupied(&mut next) {
            let worker = &mut self.workers[place];
            if worker.is_idle() {
                worker.drain(now);
            } else {
                worker.stop_now(TaskErrorKind::Cancelled { why: POOL_ENDED }, now);
            }
        }
    }
}
