//! Accepts tasks from any thread, through the injector and if possible without the driver's lock.
//!
//! A submitter handles replies only if no other thread leads. It never waits for one.

use std::{sync::atomic::Ordering, time::Instant};

use super::{
    injector::Then,
    poll::Until,
    state::{Driver, POLL_EVERY},
};
use crate::{batch::Single, scheduler::state::Scheduler};

impl Driver {
    /// Changes the scheduler like [`with`](Self::with), for a caller that will submit more. If no other thread leads, it also
    /// handles what workers have reported, so that no thread must be woken for that.
    pub(crate) fn with_arrivals<R>(&self, change: impl FnOnce(&mut Scheduler, Instant) -> R) -> Option<R> {
        let mut state = self.lock()?;
        let now = Instant::now();
        self.examine_if_due(&mut state, now);
        let result = change(&mut state.machine, now);
        if state.taken {
            self.follow_up(state, now);
            return Some(result);
        }
        let leadership = self.take_lead(&mut state);
        let mut events = Vec::new();
        // A caller that never pauses must not delay the handling of deaths and deadlines.
        state.seen = now;
        let is_late = state.seen.saturating_duration_since(state.polled) >= POLL_EVERY;
        drop(if is_late {
            self.turn(state, &mut events, Until::Now)
        } else {
            self.react(state, &mut events)
        });
        drop(leadership);
        Some(result)
    }

    /// Wakes a worker of a pool at rest, because a task is about to be submitted. Waking takes longer than everything else.
    #[inline]
    pub(crate) fn wake_ahead(&self) {
        if self.rests.load(Ordering::Relaxed) {
            self.rests.store(false, Ordering::Relaxed);
            self.inspect(Scheduler::wake_ahead);
        }
    }

    /// Submits one task. Returns its number.
    pub(crate) fn submit(&self, mut task: Single) -> u64 {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        task.number = number;
        match self.injector.put(task) {
            Then::Nothing => {}
            Then::Feed => drop(self.with(|_, _| {})),
            Then::FeedAndRead => drop(self.with_arrivals(|_, _| {})),
        }
        number
    }
}
