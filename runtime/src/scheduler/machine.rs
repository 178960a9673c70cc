//! Defines what a driver asks of the state machine that it drives, and how the scheduler answers.
//!
//! The driver calls these functions with its lock held and passes the current time. They never wait, print, or call code of users.
//! What must happen outside the lock, they leave in [`Effects`].

use std::time::Instant;

use super::{effects::Effects, state::Scheduler};
use crate::{batch::Single, supervisor::state::Supervisor, sys::poll::Event};

/// Decides for the workers of one driver.
pub(crate) trait StateMachine: Send + 'static {
    /// Reacts to the events of the poller, to what else has arrived, and to what is due at `now`.
    ///
    /// It reads from workers, so only the leader may call it, and only after the records that it returned last were delivered.
    fn react(&mut self, events: &[Event], now: Instant);

    /// Returns what must happen outside the lock, if there is anything.
    fn effects(&mut self) -> Option<Effects>;

    /// Returns when [`react`](Self::react) must be called even if the poller reports nothing.
    fn deadline(&self, now: Instant) -> Option<Instant>;

    /// Returns whether there is something to read that the poller does not report.
    fn has_arrivals(&self) -> bool;

    /// Has workers wake the poller for what they send from now on. Returns `false` if something has already arrived.
    fn park(&mut self) -> bool;

    /// Stops workers from waking the poller, because the leader looks at their rings.
    fn unpark(&mut self) {}

    /// Returns whether tasks are unfinished.
    fn is_unfinished(&self) -> bool;

    /// Returns whether no worker has a process.
    fn is_empty_of_workers(&self) -> bool;

    /// Returns whether threads that wait in [`Driver::wait_while`](crate::driver::state::Driver::wait_while) should look again.
    fn has_news(&mut self) -> bool;

    /// Accepts no more tasks, and ends the workers.
    fn close(&mut self, _now: Instant) {}

    /// Fails all present and future tasks, because other code has closed the descriptors.
    ///
    /// The descriptors' numbers may belong to other files, so the workers are not touched. They end by themselves, as their
    /// connections have ended.
    fn break_down(&mut self);

    /// Sends waiting tasks to workers. Returns whether a worker could take another one immediately or soon.
    fn dispatch(&mut self, _now: Instant) -> bool {
        false
    }

    /// Tells workers to forget the segments that this process has dropped.
    fn forget_dropped(&mut self, _now: Instant) {}

    /// Returns whether a reply is likely so soon that sleeping is not worthwhile, and a core is free to spin on.
    fn reply_is_near(&self) -> bool {
        false
    }

    /// Continues to send large frames where there is room. Returns whether there was room.
    fn flush(&mut self, _now: Instant) -> bool {
        false
    }

    /// Reads every busy worker although nothing may have arrived. This brings the code for reading into the processor's caches.
    fn read_busy(&mut self, _now: Instant) {}

    /// Queues a task that was submitted without the lock.
    fn enqueue_single(&mut self, _task: Single, _now: Instant) {
        unreachable!("only the driver of a pool accepts tasks")
    }

    /// Cancels a task of this function: it never begins, or its process is killed.
    fn cancel_task(&mut self, _id: u64, _function: &'static str, _now: Instant) {}
}

impl StateMachine for Scheduler {
    fn enqueue_single(&mut self, task: Single, now: Instant) {
        self.enqueue_single(task, now);
    }

    fn react(&mut self, events: &[Event], now: Instant) {
        self.handle(events, now);
        self.run_due(now);
    }

    fn effects(&mut self) -> Option<Effects> {
        let timeline = self.queues.timeline.as_mut().filter(|timeline| !timeline.is_empty());
        if self.effects.is_empty() && timeline.is_none() {
            return None;
        }
        let timeline = timeline.map(std::mem::take).unwrap_or_default();
        Some(Effects { timeline, ..std::mem::take(&mut self.effects) })
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        self.deadline(now)
    }

    fn has_arrivals(&self) -> bool {
        self.workers.active().any(Supervisor::has_arrivals)
    }

    fn park(&mut self) -> bool {
        self.workers.park()
    }

    fn unpark(&mut self) {
        self.workers.unpark();
    }

    fn is_unfinished(&self) -> bool {
        self.unfinished() > 0
    }

    fn is_empty_of_workers(&self) -> bool {
        self.workers.is_vacant()
    }

    fn has_news(&mut self) -> bool {
        !self.is_unfinished() || self.is_empty_of_workers()
    }

    fn close(&mut self, now: Instant) {
        self.close(now);
    }

    fn break_down(&mut self) {
        self.break_down();
    }

    fn dispatch(&mut self, now: Instant) -> bool {
        self.dispatch(now);
        self.wants_tasks()
    }

    fn forget_dropped(&mut self, now: Instant) {
        let mut next = 0;
        while let Some(place) = self.workers.next_occupied(&mut next) {
            self.workers[place].forget_dropped(now);
        }
    }

    fn reply_is_near(&self) -> bool {
        self.reply_is_near()
    }

    fn flush(&mut self, now: Instant) -> bool {
        let mut some = false;
        let mut next = 0;
        while let Some(place) = self.workers.next_active(&mut next) {
            let worker = &mut self.workers[place];
            if worker.has_room() {
                worker.flush(now);
                some = true;
            }
        }
        some
    }

    fn read_busy(&mut self, now: Instant) {
        let mut next = 0;
        while let Some(place) = self.workers.next_active(&mut next) {
            if self.workers[place].in_flight_len() > 0 {
                self.read(place, false, now);
            }
        }
    }

    fn cancel_task(&mut self, id: u64, function: &'static str, now: Instant) {
        self.cancel_task(id, function, now);
    }
}
