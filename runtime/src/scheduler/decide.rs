//! Decisions of the scheduler on its own state: who has room, who may spin, who shares, when workers are wanted, and when to look again.

use std::time::{Duration, Instant};

use super::{
    policy::{
        BATCH, BATCH_BYTES, MOST_IN_BATCH, MOST_RESPONSIVE, MOST_SHARE_AFTER, NEAR, PREFETCH, SHARE_AFTER,
        SHARES_PER_CORE, STALLS_AFTER,
    },
    queue::Queue,
    queues::Queues,
    state::Scheduler,
};
use crate::{
    batch::{Batch, QueueId},
    id::WorkerId,
    supervisor::state::Supervisor,
};

/// Returns whether other workers could run tasks that this worker has not begun.
///
/// Pinned tasks, which no other worker may run, are sent to idle workers only, so they are the oldest. A call that uses as many
/// workers as it may cannot use another.
pub(super) fn has_movable_tasks(worker: &Supervisor, queues: &Queues) -> bool {
    let may_move = |batch: &Batch| queues.by_id.get(&batch.queue).is_some_and(Queue::has_use_for_another);
    worker.in_flight_len() > 1
        && worker.newest().is_some_and(|batch| batch.queue != QueueId::Pinned)
        // The very first task may have begun.
        && worker.in_flight().enumerate().any(|(n, batch)| (n > 0 || batch.len() > 1) && may_move(batch))
}

/// Returns whether this worker may be sent the next tasks of a queue although it has others: they will not take long.
pub(super) fn has_room(worker: &Supervisor, id: QueueId, queues: &Queues) -> bool {
    let Some(newest) = worker.newest() else { return true };
    let queue = &queues.by_id[&id];
    let is_full = newest.records.len_bytes() > BATCH_BYTES;
    if is_full || queue.first_len_bytes() > BATCH_BYTES || !worker.can_recall() {
        return false;
    }
    if let (Some(batch), true) = (queue.options.batch, newest.queue == id) {
        return worker.in_flight_len() < batch;
    }
    // The tasks that it has may be of several queues. The newest are the most.
    let newest = queues.by_id.get(&newest.queue);
    // A worker whose tasks are patient may have ended more of them than is known.
    let n = match newest {
        Some(newest) if newest.options.is_patient && !queue.options.is_patient => worker.unbegun_len() + 1,
        _ => worker.in_flight_len(),
    };
    let ahead = newest.and_then(|queue| queue.estimate(n));
    n < MOST_IN_BATCH && ahead.is_some_and(|time| time < queues.batch_time(queue) * PREFETCH)
}

/// Returns how many tasks of a queue are sent at once to a worker, which should take this time, and from which they can perhaps be taken
/// back. `live` workers are ready for tasks.
pub(super) fn batch_len(queue: &Queue, time: Duration, can_recall: bool, live: usize, cpus: usize) -> usize {
    // Tasks that cannot be taken back would be lost with their worker.
    if !can_recall {
        return 1;
    }
    // Towards the end of a queue batches become smaller, so that all workers finish together. A queue that its caller still fills
    // has no end yet.
    let workers = if queue.is_short() { live.min(cpus.saturating_mul(SHARES_PER_CORE)) } else { live };
    let parts = match (queue.options.batch, queue.open) {
        (Some(_), _) => 1,
        (None, true) => workers,
        (None, false) => workers * 2,
    };
    // Waking a worker takes longer than a few short tasks.
    let share = queue.queued().div_ceil(parts).max(queue.worth_waking());
    queue.batch_of(time).min(share).max(1)
}

impl Scheduler {
    /// Returns whether a worker could take a task immediately or soon, and no task waits for it.
    pub(crate) fn wants_tasks(&self) -> bool {
        let is_short = |worker: &Supervisor| {
            worker.is_live()
                && worker.newest().is_none_or(|newest| {
                    let queue = self.queues.by_id.get(&newest.queue);
                    let left = queue.and_then(|queue| queue.estimate(worker.in_flight_len()));
                    left.is_some_and(|left| left < NEAR)
                })
        };
        let is_idle = || self.workers.has_free_worker(self.target) || self.workers.active().any(is_short);
        let makes_room = |worker: &Supervisor| self.is_filled(worker, worker.in_flight_len());
        self.closing
            || self.workers.next_vacant(&mut 0, self.target).is_some()
            || (self.queues.queued == 0 && is_idle())
            || (self.queues.urgent_turn().is_none() && self.workers.active().any(makes_room))
    }

    /// Returns whether this worker would run urgent tasks only after these `n` of a patient call, which take long.
    pub(super) fn is_filled(&self, worker: &Supervisor, n: usize) -> bool {
        let newest = worker.newest().and_then(|newest| self.queues.by_id.get(&newest.queue));
        let is_patient = |queue: &&Queue| queue.options.is_patient && queue.options.batch.is_none();
        let ahead = newest.filter(is_patient).and_then(|queue| queue.estimate(n));
        ahead.is_some_and(|time| time >= BATCH * PREFETCH)
    }

    /// Returns when the scheduler must be called even if no worker reports anything.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        if !self.unread.is_empty() {
            return Some(now);
        }
        let workers = self.workers.active().filter_map(Supervisor::deadline);
        let stops = self.workers.active().filter_map(Supervisor::stop_due);
        let limits =
            self.workers.active().filter_map(|worker| worker.limit_check_due(self.limit_of(worker)?));
        let back_off = self.restarts.not_before().filter(|_| self.wants_workers());
        let feeds = self.queues.look_at_feeds;
        // A closing pool does not look for idle workers.
        let idle = self.leaving.look_at.filter(|_| !self.closing);
        workers
            .chain(stops)
            .chain(limits)
            .chain(back_off)
            .chain(feeds)
            .chain(idle)
            .chain(self.sharing_deadline(now))
            .chain(self.stall_deadline(now))
            .min()
    }

    pub(super) fn wants_workers(&self) -> bool {
        (self.queues.queued > 0 || !self.queues.pinned.is_empty())
            && (self.workers.next_vacant(&mut 0, self.target).is_some()
                || self.wanted_beyond().next().is_some())
    }

    /// Returns the vacant places beyond the current size of the pool for which pinned tasks wait.
    pub(super) fn wanted_beyond(&self) -> impl Iterator<Item = usize> {
        let beyond = self.queues.pinned.range(WorkerId(self.target as u32)..).map(|(id, _)| id.0 as usize);
        beyond.filter(|&place| self.workers[place].is_vacant())
    }

    /// Returns the time limit of this worker's oldest task.
    pub(crate) fn limit_of(&self, worker: &Supervisor) -> Option<Duration> {
        if !self.has_limits {
            return None;
        }
        match worker.in_flight().next()?.queue {
            // An initializer has no time limit.
            QueueId::Pinned if self.queues.initializing.contains(&worker.id()) => None,
            queue => self.queues.options_of(queue).timeout,
        }
    }

    /// Returns when tasks will be taken back from the worker that has been silent for longest.
    fn sharing_deadline(&self, now: Instant) -> Option<Instant> {
        if self.queues.queued > 0 || self.closing || !self.workers.has_free_worker(self.target) {
            return None;
        }
        let responsive = self.responsive(now);
        let candidates = self.workers.active().filter(|worker| has_movable_tasks(worker, &self.queues));
        let silent = candidates.filter_map(|worker| {
            let silent_at = *self.queues.progress.get(&worker.id())? + self.share_after;
            Some(self.kept_until(worker, responsive).map_or(silent_at, |at| at.max(silent_at)))
        });
        silent.min()
    }

    /// Returns until when this worker keeps tasks that it has not begun, because it is one of enough responsive workers.
    pub(super) fn kept_until(&self, worker: &Supervisor, responsive: usize) -> Option<Instant> {
        if responsive >= self.cpus { self.stalls_at(worker) } else { None }
    }

    /// Returns when the next of the responsive workers stops counting as responsive, unless it reports something before.
    fn stall_deadline(&self, now: Instant) -> Option<Instant> {
        let may_be_saturated =
            self.target > self.cpus && !self.closing && self.workers.has_free_worker(self.target);
        if !may_be_saturated || self.responsive(now) < self.cpus {
            return None;
        }
        self.workers.active().filter_map(|worker| self.stalls_at(worker)).filter(|&at| at > now).min()
    }

    /// Returns when a worker that has only short tasks should have reported something.
    pub(super) fn stalls_at(&self, worker: &Supervisor) -> Option<Instant> {
        let queue = self.queues.by_id.get(&worker.newest()?.queue)?;
        let stalls_after = match queue.estimate(worker.in_flight_len()) {
            Some(time) if !queue.is_short() || time >= queue.batch_time() * MOST_RESPONSIVE => return None,
            Some(_) => STALLS_AFTER.max(queue.batch_time() * MOST_RESPONSIVE),
            None => SHARE_AFTER,
        };
        let &since = self.queues.progress.get(&worker.id())?;
        // A worker that has begun nothing is waiting for a core, and another worker would wait, too.
        Some(since + if worker.has_begun() { stalls_after } else { MOST_SHARE_AFTER })
    }

    /// Returns the number of *responsive* workers, which run short tasks without stalling. 0 if there are no more workers than cores.
    pub(super) fn responsive(&self, now: Instant) -> usize {
        if self.target <= self.cpus {
            return 0;
        }
        self.workers.active().filter(|worker| self.stalls_at(worker).is_some_and(|at| at > now)).count()
    }

    /// Returns whether a worker with tasks has reported nothing for this time.
    pub(super) fn is_silent(&self, id: WorkerId, time: Duration, now: Instant) -> bool {
        self.queues.progress.get(&id).is_none_or(|&since| since + time <= now)
    }

    /// Returns whether the tasks of this queue are kept from idle workers, because enough responsive workers run such tasks.
    ///
    /// A worker that is woken takes a core from one of those, and by the time it runs they would have finished a few tasks.
    pub(super) fn holds_back(&self, queue: &Queue, responsive: usize, now: Instant) -> bool {
        let each =
            |workers: usize| queue.batch_time().saturating_mul(u32::try_from(workers).unwrap_or(u32::MAX));
        let are_soon_done = || match queue.estimate(queue.queued()) {
            Some(time) => queue.computes() || time < each(responsive),
            // The first results show how long its tasks take, unless one of them takes long.
            None => {
                queue.at.len() >= self.cpus
                    && !queue.at.keys().any(|&id| self.is_silent(id, SHARE_AFTER, now))
            }
        };
        responsive >= self.cpus && queue.is_short() && are_soon_done()
    }

    /// Returns whether a worker may spin while it waits for tasks, and the host while it waits for replies: each busy worker has
    /// a core, and one core is left.
    pub(super) fn may_spin(&self) -> bool {
        let busy = self.workers.active().filter(|worker| worker.in_flight_len() > 0).count();
        busy < self.cpus
    }

    /// Returns whether a reply is likely so soon that sleeping is not worthwhile, and a core is free to spin on.
    pub(crate) fn reply_is_near(&self) -> bool {
        let is_near = |worker: &Supervisor| {
            worker.in_flight().next().is_some_and(|batch| {
                let queue = self.queues.by_id.get(&batch.queue);
                queue.and_then(|queue| queue.estimate(1)).is_none_or(|time| time < NEAR)
            })
        };
        self.may_spin() && self.workers.active().any(|worker| is_near(worker) || worker.is_streaming())
    }
}
