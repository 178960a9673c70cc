//! Reacts to the events of the poller and to deadlines.
//!
//! The driver calls these functions with the lock held, and passes the current time. Reading a worker is in `read`, and the end
//! of a worker in `reap`.

use std::time::Instant;

use super::state::Scheduler;
use crate::{
    error::TaskErrorKind,
    launch::{OUTPUT, PROCESS},
    supervisor::state::Supervisor,
    sys::poll::Event,
};

impl Scheduler {
    /// Reacts to the events of the poller, and reads the workers whose rings contain something.
    pub(crate) fn handle(&mut self, events: &[Event], now: Instant) {
        for place in std::mem::take(&mut self.unread) {
            self.read(place, true, now);
        }
        let mut next = 0;
        while let Some(place) = self.workers.next_active(&mut next) {
            if self.workers[place].has_arrivals() {
                self.read(place, false, now);
            }
        }
        for event in events {
            let (place, kind) = Supervisor::place_and_kind(event.key);
            if self.workers.get(place).is_none_or(|worker| !worker.owns(event.key)) {
                continue;
            }
            if kind == OUTPUT {
                self.read_output(place, false);
            } else if self.read(place, true, now)
                && kind == PROCESS
                // The end of the process is reported again.
                && !self.read_output(place, true)
            {
                self.reap(place, now);
            }
        }
    }

    /// Does what is due at `now`. It reads from workers, so only the leader may call it.
    pub(crate) fn run_due(&mut self, now: Instant) {
        let mut next = 0;
        while let Some(place) = self.workers.next_active(&mut next) {
            let worker = &self.workers[place];
            let late = worker.is_starting() && worker.deadline().is_some_and(|at| at <= now);
            // A worker that seems late may have finished its handshake in time while this process was stopped.
            if !(late || worker.is_look_due(now)) || self.read_before_deadline(place, now) {
                self.workers[place].on_deadline(now);
            }
            if self.workers[place].is_given_up() {
                self.reap(place, now);
                continue;
            }
            let is_due = |worker: &Supervisor| worker.stop_due().is_some_and(|at| at <= now);
            // The task may have ended since.
            if is_due(&self.workers[place])
                && self.read_before_deadline(place, now)
                && is_due(&self.workers[place])
            {
                self.workers[place].stop_further(now);
            }
            self.time_out(place, now);
        }
        self.workers.park_idle();
    }

    /// Reads what a worker has sent until now, because it may have met a deadline that has passed. Returns whether
    /// the deadline may be enforced now: everything was read, or the worker has sent more than could be read for too long.
    fn read_before_deadline(&mut self, place: usize, now: Instant) -> bool {
        let to_the_end = self.read(place, true, now);
        self.workers[place].may_enforce(to_the_end, now)
    }

    /// Stops the task of this worker that has exceeded its time limit.
    fn time_out(&mut self, place: usize, now: Instant) {
        let worker = &self.workers[place];
        let Some(limit) = self.limit_of(worker) else { return };
        if worker.limit_check_due(limit).is_none_or(|at| at > now)
            || !self.workers[place].check_limit(limit, now)
        {
            return;
        }
        let is_over = |scheduler: &mut Self| {
            scheduler.limit_of(&scheduler.workers[place]) == Some(limit)
                && scheduler.workers[place].check_limit(limit, now)
        };
        // The task may have ended since. Tasks that were sent behind it may begin and end until they are taken back.
        if self.read_before_deadline(place, now)
            && is_over(self)
            && self.recall(place, now)
            && self.read_before_deadline(place, now)
            && is_over(self)
        {
            self.workers[place].stop(TaskErrorKind::Timeout { limit }, now);
        }
    }
}
