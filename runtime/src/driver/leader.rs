//! Leadership: one waiting thread polls for all of them.
//!
//! Contains how a thread waits, becomes the leader, and hands leadership on. A waiting thread that does not lead must be parked
//! in the list of followers, or it would be forgotten.

use std::time::Instant;

use super::{
    poll::Until,
    state::{Desk, Driver, WARM},
};
use crate::{handle::Exchange, id::TaskId, scheduler::state::Scheduler, sys::buffer_cache};

/// Leadership of the current thread. Dropping it gives leadership up, also when a user's logger panics.
pub(super) struct Seat<'a>(pub(crate) &'a Driver);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let driver = self.0;
        driver.leave_seat(&mut driver.lock());
    }
}

impl Exchange for Driver {
    fn wait(&self, ready: &mut dyn FnMut() -> bool, deadline: Option<Instant>) -> bool {
        self.hurry();
        let mut events = Vec::new();
        loop {
            let is_ready = ready();
            let mut desk = self.lock();
            if is_ready || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                if !desk.taken {
                    // Leadership may have been offered to this thread, which does not need it any more.
                    self.offer_seat(&mut desk);
                }
                return is_ready;
            }
            let me = std::thread::current();
            if desk.taken && desk.owner == Some(me.id()) {
                // A user's logger or waker, called by this thread while it leads, waits for a task. It continues to lead from
                // here.
                drop(self.turn(desk, &mut events, Until::Then(deadline)));
                continue;
            }
            if desk.taken {
                desk.parked.push(me.clone());
                drop(desk);
                match deadline {
                    Some(deadline) => {
                        std::thread::park_timeout(deadline.saturating_duration_since(Instant::now()))
                    }
                    None => std::thread::park(),
                }
                self.lock().parked.retain(|thread| thread.id() != me.id());
                continue;
            }
            let rested = self.take_seat(&mut desk);
            let seat = Seat(self);
            if rested {
                // A worker that was woken needs a while to reply. Handling a reply once now, with nothing to handle, halves the
                // time that it will take then.
                let polled = desk.polled;
                desk.scheduler.look(&self.workers, polled);
                desk = self.react(desk, &mut events);
            }
            drop(desk);
            // What arrived while another thread led has been handled and will not be reported again, so check before sleeping.
            while !ready() && deadline.is_none_or(|deadline| deadline > Instant::now()) {
                drop(self.turn(self.lock(), &mut events, Until::Then(deadline)));
            }
            drop(seat);
        }
    }

    fn glance(&self) {
        self.hurry();
        let mut desk = self.lock();
        if desk.taken {
            return;
        }
        self.take_seat(&mut desk);
        let seat = Seat(self);
        drop(self.turn(desk, &mut Vec::new(), Until::Now));
        drop(seat);
    }

    fn watch(&self) {
        self.hurry();
        let mut desk = self.lock();
        if !desk.taken && !desk.listens && desk.parked.is_empty() {
            // Leadership is kept warm for a caller's return, and a future does not return.
            desk.warm = None;
            if !self.arm(&mut desk) {
                self.ring_background();
            }
        }
    }

    fn cancel(&self, task: TaskId, function: &'static str) {
        self.with(|scheduler, poller, now| scheduler.cancel_task(task.0, function, poller, now));
    }
}

impl Driver {
    /// Leads, or waits for the leader, while `still` returns `true`.
    ///
    /// `still` may only ask whether tasks are unfinished or workers are left, because waiting threads are woken for these two
    /// alone.
    pub(crate) fn wait_while(&self, still: impl Fn(&Scheduler) -> bool) {
        self.wait(
            &mut || {
                // No caller of `ready` holds the lock.
                let mut desk = self.lock();
                self.take_in(&mut desk);
                let ready = !still(&desk.scheduler);
                let me = std::thread::current();
                if !ready && desk.watching.iter().all(|thread| thread.id() != me.id()) {
                    desk.watching.push(me);
                }
                ready
            },
            None,
        );
    }

    /// Passes on tasks that wait in the injector for more to follow.
    fn hurry(&self) {
        if !self.tray.rest() {
            self.with(|_, _, _| {});
        }
    }

    /// Takes leadership, which must be vacant. Returns whether the pool was at rest.
    pub(super) fn take_seat(&self, desk: &mut Desk) -> bool {
        desk.taken = true;
        desk.owner = Some(std::thread::current().id());
        desk.warm = None;
        let rested = desk.listens;
        if rested {
            // The background poller may stay armed. While the leader looks at the rings, workers do not wake it.
            desk.listens = false;
            desk.scheduler.unpark();
            // What has happened until now was or will be reported to the background poller.
            desk.seen = Instant::now();
            desk.polled = desk.seen;
        }
        rested
    }

    /// Gives up leadership: to a parked thread, or else it is kept warm for the next caller.
    pub(super) fn leave_seat(&self, desk: &mut Desk) {
        desk.taken = false;
        desk.owner = None;
        desk.leavings += 1;
        self.offer_seat(desk);
        if buffer_cache::is_held()
            && desk.background_alarm.is_none_or(|alarm| alarm > Instant::now() + 2 * buffer_cache::REST)
        {
            self.ring_background();
        }
    }

    /// Makes sure that another thread takes over vacant leadership: a parked thread, or later the background thread.
    fn offer_seat(&self, desk: &mut Desk) {
        if let Some(thread) = desk.parked.pop() {
            thread.unpark();
        } else if !desk.listens {
            let now = desk.seen;
            let hot = desk.left.replace(now).is_some_and(|left| now - left < WARM);
            // If the last leader left long ago, the next caller may not come soon.
            if hot || !self.arm(desk) {
                desk.warm = Some(now + WARM);
            }
            self.check_alarm(desk);
        }
    }
}
