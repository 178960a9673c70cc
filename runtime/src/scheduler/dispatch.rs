//! Sends queued tasks to workers, and moves tasks between workers.
//!
//! [`Scheduler::dispatch`] runs after every change and every event. It starts, fills and retires workers until nothing is left to
//! do. The functions of `decide`, with the constants of `policy`, decide how much is sent and when tasks are moved.

use std::time::Instant;

use super::{
    decide::{batch_len, has_movable_tasks, has_room},
    policy::{BATCH_BYTES, LOOK_AT_FEEDS_AFTER, MOST_SHARE_AFTER, SHARE_AFTER, WORTH_MOVING},
    queues::Queues,
    state::Scheduler,
};
use crate::{batch::QueueId, observe::levels::levels, protocol::RunFlags, supervisor::state::Supervisor};

impl Scheduler {
    /// If a worker is idle, queues what is in the feeds of calls whose queue has run dry. Returns whether there was something.
    fn pull_feeds(&mut self, now: Instant) -> bool {
        // A time that is over must be cleared, or the driver would wake up without end. If a worker becomes idle later, this
        // function is called again.
        if self.queues.look_at_feeds.is_some_and(|at| at <= now) {
            self.queues.look_at_feeds = None;
        }
        if self.queues.fed.is_empty() || !self.workers.has_free_worker(self.target) {
            return false;
        }
        let responsive = self.responsive(now);
        let before = self.queues.queued;
        for at in (0..self.queues.fed.len()).rev() {
            let id = self.queues.fed[at];
            match self.queues.by_id.get_mut(&id) {
                Some(queue) if queue.queued() == 0 && !(responsive >= self.cpus && queue.is_short()) => {
                    let (taken, told) = queue.pull(id);
                    if told {
                        // The caller may have added a task just now without seeing the request.
                        self.queues.look_at_feeds = Some(now + LOOK_AT_FEEDS_AFTER);
                    }
                    if let Some(batch) = taken {
                        self.enqueue(batch, now);
                    }
                }
                Some(_) => {}
                None => {
                    self.queues.fed.swap_remove(at);
                }
            }
        }
        self.queues.queued > before
    }

    /// Sends waiting tasks to the workers that can take them, and starts workers for the rest.
    pub(crate) fn dispatch(&mut self, now: Instant) {
        if self.closing {
            return;
        }
        let mut next = self.target;
        while let Some(place) = self.workers.next_occupied(&mut next) {
            if !self.queues.pinned.contains_key(&self.workers[place].id()) {
                self.retire(place, now);
            }
        }
        self.retire_due(now);
        self.share(now);
        self.send_pinned(now);
        let mut has_made_room = false;
        loop {
            self.fill(now, |worker, _, _| worker.is_idle());
            self.launch(now);
            self.fill(now, has_room);
            // Once, because it must come to an end. What is sent now is reported soon.
            let makes_room = !has_made_room && self.make_room(now);
            has_made_room |= makes_room;
            if !makes_room && !self.pull_feeds(now) {
                break;
            }
        }
        self.retire_idle(now);
    }

    /// If urgent tasks wait because a worker has much of a patient call ahead, takes back what that worker has not begun, and gives the
    /// urgent ones the next turn. Returns whether it has.
    fn make_room(&mut self, now: Instant) -> bool {
        let Some(turn) = self.queues.urgent_turn() else { return false };
        let urgent = self.queues.turns[turn];
        let is_crowded = |worker: &&Supervisor| {
            self.may_be_sent_more(worker)
                && worker.has_begun()
                && self.is_filled(worker, worker.unbegun_len())
                && self.queues.by_id[&urgent].may_use(worker.id())
        };
        let crowded = self.workers.active().filter(is_crowded).max_by_key(|worker| worker.in_flight_len());
        let Some(place) = crowded.map(|worker| worker.id().0 as usize) else { return false };
        self.recall(place, now);
        self.queues.turns.retain(|turn| *turn != urgent);
        self.queues.turns.push_front(urgent);
        true
    }

    fn send_pinned(&mut self, now: Instant) {
        if self.queues.pinned.is_empty() {
            return;
        }
        let flags = RunFlags { levels: levels(), ..RunFlags::default() };
        let mut next = 0;
        while let Some(place) = self.workers.next_occupied(&mut next) {
            let worker = &self.workers[place];
            let id = worker.id();
            if worker.is_idle()
                && !self.queues.initializing.contains(&id)
                && !self.leaving.contains(id)
                && let Some(queue) = self.queues.pinned.get_mut(&id)
            {
                let worker = &mut self.workers[place];
                // As in `fill`: what cannot be taken back is sent one task at a time.
                let most = if worker.can_recall() { usize::MAX } else { 1 };
                let most = most.min(self.config.lives.quota(worker.given()));
                for mut batch in queue.drain(..queue.len().min(most)) {
                    batch.attempts += 1;
                    let seed = batch.to.seed().unwrap_or(self.seed);
                    worker.run(batch, RunFlags { seed, ..flags });
                }
                worker.ring(now);
                if queue.is_empty() {
                    self.queues.pinned.remove(&id);
                }
                self.queues.tally(id).occupied(now);
            }
        }
    }

    /// If nothing is queued and a worker is idle, takes back the tasks that another worker has not begun.
    fn share(&mut self, now: Instant) {
        if self.queues.queued > 0 || !self.workers.has_free_worker(self.target) {
            return;
        }
        let responsive = self.responsive(now);
        let queues = &self.queues;
        let is_silent = |id| self.is_silent(id, self.share_after, now);
        let candidates =
            self.workers.active().filter(|worker| has_movable_tasks(worker, queues)).filter(|worker| {
                if self.kept_until(worker, responsive).is_some_and(|at| at > now) {
                    return false;
                }
                let waiting = worker.in_flight_len() - 1;
                let queue = worker.newest().and_then(|newest| queues.by_id.get(&newest.queue));
                let long =
                    queue.and_then(|queue| queue.estimate(waiting)).is_none_or(|time| time >= WORTH_MOVING);
                // A worker that has begun nothing may not have been woken yet. Its tasks would be moved back and forth.
                (long && worker.has_begun()) || is_silent(worker.id())
            });
        let Some(id) = candidates.max_by_key(|worker| worker.in_flight_len()).map(Supervisor::id) else {
            return;
        };
        if is_silent(id) {
            self.queues.overdue.insert(id);
            let worker = &self.workers[id.0 as usize];
            if let (true, Some(oldest), Some(&since)) =
                (worker.has_begun(), worker.in_flight().next(), self.queues.progress.get(&id))
                && let Some(queue) = self.queues.by_id.get_mut(&oldest.queue)
            {
                queue.takes_at_least(now.saturating_duration_since(since).min(SHARE_AFTER));
            }
        }
        self.recall(id.0 as usize, now);
        // Tasks that were not given back have begun, so asking again is useless before the worker has reported something. Nor is
        // it useful to move tasks faster than workers can be woken.
        self.queues.progress.insert(id, now);
        self.share_after = (self.share_after * 2).min(MOST_SHARE_AFTER);
    }

    /// Wakes the worker that will get the next task, if all workers are idle.
    pub(crate) fn wake_ahead(&mut self) {
        if self.queues.unfinished > 0 {
            return;
        }
        let mut next = 0;
        while let Some(place) = self.workers.next_occupied(&mut next).filter(|&place| place < self.target) {
            if self.workers[place].is_idle() {
                return self.workers[place].wake_ahead();
            }
        }
    }

    /// Sends a batch to each worker that `wants` one, from the queue whose turn it is.
    fn fill(&mut self, now: Instant, wants: impl Fn(&Supervisor, QueueId, &Queues) -> bool) {
        if self.queues.queued == 0 {
            return;
        }
        let live = self.workers.live().max(1);
        let mut responsive = self.responsive(now);
        // Whether idle workers are considered: if one of them found nothing to run, the others will not either.
        let mut is_for_the_idle = true;
        let mut next = 0;
        while self.queues.queued > 0 {
            let place = if is_for_the_idle {
                self.workers.next_occupied(&mut next)
            } else {
                self.workers.next_active(&mut next)
            };
            let Some(place) = place.filter(|&place| place < self.target) else { return };
            let worker = &self.workers[place];
            let (id, is_idle) = (worker.id(), worker.is_idle());
            let quota = self.quota(worker);
            if !self.may_be_sent_more(worker) || (is_idle && !is_for_the_idle) || quota == 0 {
                continue;
            }
            let turn = self.next_turn(worker, responsive, now, &wants);
            let Some(queue) = turn.and_then(|turn| self.queues.turns.remove(turn)) else {
                is_for_the_idle &= !is_idle;
                continue;
            };
            if is_idle {
                self.queues.progress.insert(id, now);
                responsive += usize::from(self.target > self.cpus && self.queues.by_id[&queue].is_short());
            }
            self.send_batch(place, queue, live, quota, now);
            if is_idle {
                self.queues.tally(id).occupied(now);
            }
        }
    }

    /// Returns whether tasks may be sent to this worker at all.
    fn may_be_sent_more(&self, worker: &Supervisor) -> bool {
        let id = worker.id();
        // Nothing is sent behind a task that is being stopped, because its process may be killed at any moment.
        worker.is_live()
            && !worker.is_stopping()
            && !self.queues.initializing.contains(&id)
            && !self.leaving.contains(id)
            && (worker.is_idle() || !self.queues.overdue.contains(&id))
    }

    /// Returns the turn from which this worker gets its next batch, if it `wants` one: that of the first queue that may use it.
    fn next_turn(
        &self,
        worker: &Supervisor,
        responsive: usize,
        now: Instant,
        wants: &impl Fn(&Supervisor, QueueId, &Queues) -> bool,
    ) -> Option<usize> {
        let turn = self.queues.turns.iter().position(|queue| {
            let queue = &self.queues.by_id[queue];
            queue.may_use(worker.id()) && !(worker.is_idle() && self.holds_back(queue, responsive, now))
        })?;
        // A worker that has too much for the queue whose turn it is gets nothing of the queues after that. They would fill it up
        // again and again, and the first would wait without end.
        wants(worker, self.queues.turns[turn], &self.queues).then_some(turn)
    }

    /// Sends the next batch of a queue, which has been taken out of the circle, to this worker.
    fn send_batch(&mut self, place: usize, id: QueueId, live: usize, quota: usize, now: Instant) {
        let may_spin = self.may_spin();
        let worker = &mut self.workers[place];
        let time = self.queues.batch_time(&self.queues.by_id[&id]);
        let queue = self.queues.by_id.get_mut(&id).expect("a queue with a turn is there");
        let most = batch_len(queue, time, worker.can_recall(), live, self.cpus).min(quota);
        let seed = queue.options.seed.unwrap_or(self.seed);
        let (mut tasks, mut bytes) = (0, 0);
        while tasks < most && (tasks == 0 || bytes + queue.first_len_bytes() <= BATCH_BYTES) {
            let Some(mut batch) = queue.take_first(most - tasks) else { break };
            tasks += batch.len() as usize;
            bytes += batch.records.len_bytes();
            batch.attempts += 1;
            let wants_progress = batch.to.wants_progress();
            let levels = levels();
            let is_patient = queue.options.is_patient && !levels.is_timed;
            let counts_waits = is_patient && self.target > self.cpus;
            let flags = RunFlags {
                levels,
                may_spin,
                wants_progress,
                seed,
                is_patient,
                counts_waits,
                ..RunFlags::default()
            };
            worker.run(batch, flags);
        }
        worker.ring(now);
        *queue.at.entry(worker.id()).or_insert(0) += tasks;
        if queue.queued() > 0 {
            self.queues.turns.push_back(id);
        }
        self.queues.queued -= tasks;
    }
}
