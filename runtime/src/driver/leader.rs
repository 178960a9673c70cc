//! Leadership: one waiting thread polls for all of them.

use std::time::Instant;

use super::{
    poll::Until,
    state::{Desk, Driver, WARM},
};
use crate::{handle::Exchange, id::TaskId, scheduler::state::Scheduler, sys::buffer_cache};

/// Gives the seat back, also when a user's logger panics.
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
                    // The seat may have been left to this thread, which has no use for it any more.
                    self.offer_seat(&mut desk);
                }
                return is_ready;
            }
            let me = std::thread::current();
            if desk.taken && desk.owner == Some(me.id()) {
                // A user's logger or waker, called by this very thread: it drives on from here.
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
                // A worker that was woken takes a while. What will be done with its reply is done once now, with nothing, and will take
                // half the time then.
                let polled = desk.polled;
                desk.scheduler.look(&self.workers, polled);
                desk = self.react(desk, &mut events);
            }
            drop(desk);
            // What came while the seat was somebody else's has been seen to, and nobody will tell of it again: look before sleeping.
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
            // The seat is kept warm for a caller's return; a future is none.
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
    /// Works on the exchange, or waits for whoever does, while the scheduler is as `still` says.
    ///
    /// It may ask for nothing but whether tasks are unfinished or workers are left.
    pub(crate) fn wait_while(&self, still: impl Fn(&Scheduler) -> bool) {
        self.wait(
            &mut || {
                // The lock is held by none of the callers of `ready`.
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

    /// Sees to it that nothing waits for more to be handed in.
    fn hurry(&self) {
        if !self.tray.rest() {
            self.with(|_, _, _| {});
        }
    }

    /// Takes the vacant seat. Returns whether the pool has rested.
    pub(super) fn take_seat(&self, desk: &mut Desk) -> bool {
        desk.taken = true;
        desk.owner = Some(std::thread::current().id());
        desk.warm = None;
        let rested = desk.listens;
        if rested {
            // The background poller may stay armed: who looks has nothing told.
            desk.listens = false;
            desk.scheduler.unpark();
            // What has happened until now the background poller has, or will have told of.
            desk.seen = Instant::now();
            desk.polled = desk.seen;
        }
        rested
    }

    /// Leaves the seat: to another thread that waits, or warm, to whoever comes next.
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

    /// Sees to it that a vacant seat is not forgotten.
    fn offer_seat(&self, desk: &mut Desk) {
        if let Some(thread) = desk.parked.pop() {
            thread.unpark();
        } else if !desk.listens {
            let now = desk.seen;
            let hot = desk.left.replace(now).is_some_and(|left| now - left < WARM);
            // If nobody has been here for a while, the next may not come soon.
            if hot || !self.arm(desk) {
                desk.warm = Some(now + WARM);
            }
            self.check_alarm(desk);
        }
    }
}
