//! Cancels calls and tasks, and closes the pool.
//!
//! A task that has not begun fails immediately. A task that has begun is stopped by its supervisor, step by step.

use std::{ops::Range, time::Instant};

use super::{
    batch::{Batch, QueueId, Recipient},
    state::Scheduler,
};
use crate::{
    error::{POOL_ENDED, TaskErrorKind},
    supervisor::ledger::InFlightTasks,
};

/// The error of a task that was cancelled while it ran.
const STOPPED: &str = "it was taken back while it ran";

impl Scheduler {
    /// Cancels a call: fails what is queued and stops what runs.
    pub(crate) fn cancel_call(&mut self, id: QueueId, now: Instant) {
        let why = "its call has ended";
        self.pull(id, now);
        if let Some(queue) = self.queues.by_id.get_mut(&id) {
            queue.open = false;
        }
        for batch in self.queues.take_all(id) {
            self.queues.fail(batch, &TaskErrorKind::Cancelled { why }, None, &mut self.effects);
        }
        let which = |batch: &Batch| (batch.queue == id).then_some(0..batch.len());
        let mut next = 0;
        while let Some(place) = self.workers.next_active(next) {
            next = place + 1;
            self.cancel_at(place, which, why, now);
        }
        self.queues.remove_if_done(id);
        self.dispatch(now);
    }

    /// Cancels one task, wherever it is.
    pub(crate) fn cancel_task(&mut self, id: u64, function: &'static str, now: Instant) {
        let why = "it was taken back before it began";
        let place_in = |batch: &Batch| {
            let at = id.checked_sub(batch.first).and_then(|at| u32::try_from(at).ok())?;
            let is_handle = matches!(batch.to, Recipient::Handles(_));
            (is_handle && at < batch.len()).then_some(at..at + 1)
        };
        let kind = TaskErrorKind::Cancelled { why };
        if !self.queues.take_back(id, function, kind, &mut self.effects) {
            let mut next = 0;
            while let Some(place) = self.workers.next_active(next) {
                next = place + 1;
                self.cancel_at(place, place_in, why, now);
            }
        }
        self.dispatch(now);
    }

    /// Cancels tasks in flight at a worker: of each batch, the tasks that `which` returns. A task that has begun is stopped.
    fn cancel_at(
        &mut self,
        place: usize,
        which: impl Fn(&Batch) -> Option<Range<u32>>,
        why: &'static str,
        now: Instant,
    ) {
        if !self.workers[place].in_flight().any(|batch| which(batch).is_some()) {
            return;
        }
        let worker = &mut self.workers[place];
        let id = worker.id();
        let mut kept = Vec::new();
        for mut batch in worker.take_back() {
            let Some(range) = which(&batch) else {
                kept.push(batch);
                continue;
            };
            let before = batch.take_first(range.start);
            let mut gone = batch.take_first(range.end - range.start);
            kept.extend([before, batch].into_iter().filter(|part| part.len() > 0));
            gone.attempts -= 1;
            self.queues.leave(&gone, id);
            self.queues.fail(gone, &TaskErrorKind::Cancelled { why }, None, &mut self.effects);
        }
        self.queues.requeue(kept, id);
        // Everything that is left has begun, and all but the newest has ended.
        let newest_goes =
            worker.newest().is_some_and(|batch| which(batch).is_some_and(|range| range.end == batch.len()));
        if newest_goes {
            worker.stop(TaskErrorKind::Cancelled { why: STOPPED }, now);
        }
    }

    /// Closes the pool: fails what is queued, kills busy workers, and drains idle ones.
    pub(crate) fn close(&mut self, now: Instant) {
        self.closing = true;
        // Feeds are not checked any more, because a closing pool dispatches nothing.
        self.queues.look_at_feeds = None;
        self.fail_queued(&TaskErrorKind::Cancelled { why: POOL_ENDED });
        let mut next = 0;
        while let Some(place) = self.workers.next_occupied(next) {
            next = place + 1;
            let worker = &mut self.workers[place];
            if worker.is_idle() {
                worker.drain(now);
            } else {
                worker.stop_now(TaskErrorKind::Cancelled { why: POOL_ENDED }, now);
            }
        }
    }
}
