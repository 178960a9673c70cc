//! Takes tasks of any thread, without a lock where possible.

use std::{sync::atomic::Ordering, time::Instant};

use super::{
    injector::Then,
    leader::Seat,
    poll::{POLL_EVERY, Until},
    state::Driver,
};
use crate::scheduler::{batch::Single, state::Scheduler};

impl Driver {
    /// As [`with`](Self::with), for a caller that goes on handing in tasks: while nobody else drives, it takes what workers have said, too,
    /// so that nobody has to be woken for that.
    pub(crate) fn with_arrivals<R>(&self, change: impl FnOnce(&mut Scheduler) -> R) -> R {
        let mut desk = self.lock();
        let now = Instant::now();
        self.examine_if_due(&mut desk, now);
        let result = change(&mut desk.scheduler);
        if desk.taken {
            self.follow_up(desk, now);
            return result;
        }
        self.take_seat(&mut desk);
        let seat = Seat(self);
        let mut events = Vec::new();
        // A caller that never pauses must not keep deaths and deadlines from being seen.
        desk.seen = now;
        let is_late = desk.seen.saturating_duration_since(desk.polled) >= POLL_EVERY;
        drop(if is_late { self.turn(desk, &mut events, Until::Now) } else { self.react(desk, &mut events) });
        drop(seat);
        result
    }

    /// Wakes a worker of a pool that rests, for a task is about to be handed in: to wake takes longer than all else.
    #[inline]
    pub(crate) fn rouse(&self) {
        if self.rests.load(Ordering::Relaxed) {
            self.rests.store(false, Ordering::Relaxed);
            self.lock().scheduler.rouse();
        }
    }

    /// Hands in one task; returns its number.
    pub(crate) fn submit(&self, mut task: Single) -> u64 {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        task.number = number;
        match self.tray.put(task) {
            Then::Nothing => {}
            Then::Feed => self.with(|_, _, _| {}),
            Then::FeedAndRead => self.with_arrivals(|_| {}),
        }
        number
    }
}
