//! What workers say and how they end: the part of the [`Scheduler`] that listens.

use std::time::Instant;

use super::{batch::Parcel, state::Scheduler};
use crate::{
    error::TaskErrorKind,
    supervisor::state::{OUTPUT, PROCESS, Supervisor},
    sys::poll::{Event, Poller},
};

/// The launcher among the workers; no worker has this key.
pub(crate) const LAUNCHER: u64 = u64::MAX - 1;

impl Scheduler {
    /// Reacts to what the poller saw.
    pub(crate) fn handle(&mut self, events: &[Event], poller: &Poller, now: Instant) {
        for place in std::mem::take(&mut self.unread) {
            self.read(place, true, poller, now);
        }
        let mut next = 0;
        while let Some(place) = self.workers.next_up(next) {
            next = place + 1;
            if self.workers[place].has_arrivals() {
                self.read(place, false, poller, now);
            }
        }
        if events.iter().any(|event| event.key == LAUNCHER) {
            self.launcher.tend();
        }
        for event in events {
            let (place, kind) = Supervisor::<Parcel>::place_and_kind(event.key);
            if self.workers.get(place).is_none_or(|worker| !worker.owns(event.key)) {
                continue;
            }
            if kind == OUTPUT {
                self.read_output(place, false, poller);
            } else if self.read(place, true, poller, now)
                && kind == PROCESS
                // Its end is reported again.
                && !self.read_output(place, true, poller)
            {
                self.reap(place, poller, now);
            }
        }
    }

    /// Does what is due. Only whoever drives may call it, for it reads.
    pub(crate) fn tend(&mut self, poller: &Poller, now: Instant) {
        let mut next = 0;
        while let Some(place) = self.workers.next_up(next) {
            next = place + 1;
            let worker = &self.workers[place];
            let late = worker.is_starting() && worker.deadline().is_some_and(|at| at <= now);
            // One that is late may have shaken hands in time, and this process may have been stopped since.
            if !(late || worker.is_look_due(now)) || self.read_before_deadline(place, poller, now) {
                self.workers[place].on_deadline(now);
            }
            if self.workers[place].is_given_up() {
                self.reap(place, poller, now);
                continue;
            }
            let is_due = |worker: &Supervisor<Parcel>| worker.stop_due().is_some_and(|at| at <= now);
            // It may have ended since.
            if is_due(&self.workers[place])
                && self.read_before_deadline(place, poller, now)
                && is_due(&self.workers[place])
            {
                self.workers[place].stop_further(now);
            }
            self.time_out(place, poller, now);
        }
        self.workers.settle();
    }

    /// Reads what a worker has said until now, as it may have kept a deadline that is over. Returns whether that is known: it came to the
    /// end, or it says so much that no end is to be expected.
    fn read_before_deadline(&mut self, place: usize, poller: &Poller, now: Instant) -> bool {
        let to_the_end = self.read(place, true, poller, now);
        self.workers[place].is_heard(to_the_end)
    }

    /// Has the task end that has run at this worker for longer than it may.
    fn time_out(&mut self, place: usize, poller: &Poller, now: Instant) {
        let worker = &self.workers[place];
        let Some(limit) = self.limit_of(worker) else { return };
        if worker.over_due(limit).is_none_or(|at| at > now) || !self.workers[place].is_over(limit, now) {
            return;
        }
        let is_over = |scheduler: &mut Self| {
            scheduler.limit_of(&scheduler.workers[place]) == Some(limit)
                && scheduler.workers[place].is_over(limit, now)
        };
        // It may have ended since, and so may those that were sent behind it, until they are taken back.
        if self.read_before_deadline(place, poller, now) && is_over(self) {
            let worker = &mut self.workers[place];
            let id = worker.id();
            self.book.take_home(worker.take_back(), id);
            if self.read_before_deadline(place, poller, now) && is_over(self) {
                self.workers[place].stop(TaskErrorKind::Timeout { limit }, now);
            }
        }
    }
}
