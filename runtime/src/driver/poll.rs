//! One turn of the leader: spin, poll, react, dispatch, and perform the effects.
//!
//! The order matters. The poller is waited for without the lock, and the effects are performed without it. Every change of the
//! scheduler must be followed by `feed` and by a check of the alarms.

use std::{
    hint::spin_loop,
    os::fd::AsFd,
    sync::{MutexGuard, atomic::Ordering},
    time::{Duration, Instant},
};

use super::state::{BELL, Desk, Driver, LOOK_EVERY, PAUSE, POLL_EVERY, WORKERS, earlier};
use crate::{
    scheduler::state::Scheduler,
    sys::poll::{Event, Poller},
};

/// The time for which the leader spins for a reply that is near. Sleeping and being woken may cost as much.
const SPIN: Duration = Duration::from_micros(50);

/// The number of looks at the rings between two releases of the lock while spinning.
const LOOKS: u32 = 8;

/// The longest sleep of the background thread while its pool is in use.
pub(super) const ROUND: Duration = Duration::from_millis(900);

/// How long [`Driver::turn`] may wait: not at all, or until a deadline, if there is one.
pub(super) enum Until {
    Now,
    Then(Option<Instant>),
}

impl Driver {
    pub(super) fn set_armed(&self, desk: &mut Desk, armed: bool) {
        if desk.armed != armed && !self.is_closed() {
            desk.armed = armed;
            if armed {
                self.background.arm(self.workers.as_fd(), WORKERS);
            } else {
                self.background.disarm(self.workers.as_fd(), WORKERS);
            }
        }
    }

    /// Changes the scheduler and handles the consequences.
    pub(crate) fn with<R>(&self, change: impl FnOnce(&mut Scheduler, &Poller, Instant) -> R) -> R {
        let mut desk = self.lock();
        self.take_in(&mut desk);
        let now = Instant::now();
        desk.seen = now;
        self.examine_if_due(&mut desk, now);
        let result = change(&mut desk.scheduler, &self.workers, now);
        self.follow_up(desk, now);
        result
    }

    /// Moves the tasks of the injector to the scheduler.
    pub(super) fn take_in(&self, desk: &mut Desk) {
        if !self.tray.is_empty() {
            let mut taken_in = std::mem::take(&mut desk.taken_in);
            self.tray.take(&mut taken_in);
            taken_in.drain(..).for_each(|task| desk.scheduler.enqueue_single(task));
            desk.taken_in = taken_in;
        }
    }

    /// Sends tasks to the workers that can take them.
    fn feed(&self, desk: &mut Desk, now: Instant) {
        loop {
            self.take_in(desk);
            desk.scheduler.dispatch(&self.workers, now);
            if self.tray.is_well_fed(desk.scheduler.is_hungry()) {
                return;
            }
        }
    }

    /// Handles the consequences of a change: sends tasks, wakes sleepers whose alarm is too late, and performs the effects.
    pub(super) fn follow_up(&self, mut desk: MutexGuard<'_, Desk>, now: Instant) {
        self.feed(&mut desk, now);
        self.check_alarm(&desk);
        let called = self.call_watchers(&mut desk);
        let after = desk.scheduler.after();
        if desk.taken && (called || !after.wakes.is_empty()) {
            // The thread to be woken may be the leader, which sleeps in the poller.
            self.ring();
        }
        drop(desk);
        after.run();
    }

    /// Wakes the leader or the background thread if something is due before its alarm.
    pub(super) fn check_alarm(&self, desk: &Desk) {
        let is_earlier =
            |due: Option<Instant>, alarm| due.is_some_and(|due| earlier(alarm, Some(due)) != alarm);
        if desk.taken {
            if is_earlier(desk.scheduler.deadline(), desk.alarm) {
                self.ring();
            }
        } else if is_earlier(desk.background_due(), desk.background_alarm) {
            self.ring_background();
        }
    }

    /// Waits once for events, as long as `until` allows, and reacts to them.
    ///
    /// The caller must be the leader.
    pub(super) fn turn<'a>(
        &'a self,
        mut desk: MutexGuard<'a, Desk>,
        events: &mut Vec<Event>,
        until: Until,
    ) -> MutexGuard<'a, Desk> {
        events.clear();
        if self.is_closed() {
            // All tasks have failed, and only another thread can complete what is still waited for.
            desk = self.react(desk, events);
            if let Until::Then(_) = until {
                drop(desk);
                std::thread::park_timeout(PAUSE);
                desk = self.lock();
            }
            return desk;
        }
        if let Until::Then(deadline) = until {
            desk = self.spin(desk, deadline);
        }
        let has_arrivals = desk.scheduler.has_arrivals();
        desk.seen = Instant::now();
        if !has_arrivals || desk.seen.saturating_duration_since(desk.polled) >= POLL_EVERY {
            desk.polled = desk.seen;
            let timeout = match until {
                _ if has_arrivals => Some(Duration::ZERO),
                Until::Now => Some(Duration::ZERO),
                Until::Then(_) if !self.tray.rest() || !desk.scheduler.park() => Some(Duration::ZERO),
                Until::Then(deadline) => {
                    // Otherwise an event would wake both the leader and the background thread.
                    self.set_armed(&mut desk, false);
                    desk.alarm = earlier(deadline, desk.scheduler.deadline());
                    desk.alarm = earlier(desk.alarm, Some(desk.seen + LOOK_EVERY));
                    desk.alarm.map(|alarm| alarm.saturating_duration_since(Instant::now()))
                }
            };
            drop(desk);
            let waited = self.workers.wait(events, timeout);
            events.retain(|event| event.key != BELL);
            desk = self.lock();
            desk.seen = Instant::now();
            desk.examined = desk.seen;
            if waited.is_err() {
                self.break_down(&mut desk);
            }
        }
        self.react(desk, events)
    }

    /// Reacts to the events of the poller and to what is in the rings. The caller must be the leader.
    pub(super) fn react<'a>(
        &'a self,
        mut desk: MutexGuard<'a, Desk>,
        events: &mut Vec<Event>,
    ) -> MutexGuard<'a, Desk> {
        loop {
            let now = desk.seen;
            desk.scheduler.handle(events, &self.workers, now);
            desk.scheduler.tend(&self.workers, now);
            self.feed(&mut desk, now);
            self.call_watchers(&mut desk);
            let after = desk.scheduler.after();
            if after.is_empty() {
                return desk;
            }
            let records = !after.words.is_empty();
            drop(desk);
            after.run();
            desk = self.lock();
            desk.seen = Instant::now();
            // A worker that sends records without end must not keep this thread from its other work.
            if !records || desk.seen.saturating_duration_since(desk.polled) >= POLL_EVERY {
                return desk;
            }
            // The record was delivered, so what the worker sent after it can be read now.
            events.clear();
        }
    }

    /// Spins while a reply is likely to be near and a core is free.
    fn spin<'a>(&'a self, mut desk: MutexGuard<'a, Desk>, deadline: Option<Instant>) -> MutexGuard<'a, Desk> {
        if desk.scheduler.has_arrivals() || !desk.scheduler.reply_is_near() {
            return desk;
        }
        let mut end = None;
        loop {
            for _ in 0..LOOKS {
                spin_loop();
                if desk.scheduler.has_arrivals() {
                    return desk;
                }
            }
            // Other threads need the lock, too.
            drop(desk);
            spin_loop();
            desk = self.lock();
            if !desk.watching.is_empty() {
                return desk;
            }
            let now = Instant::now();
            if end.is_none() || desk.scheduler.flush(&self.workers) {
                // This is the first round, or a worker has taken another piece of a large value.
                end = earlier(Some(now + SPIN), deadline);
            }
            if end.is_some_and(|end| end <= now) {
                return desk;
            }
        }
    }

    /// Arms the background poller. Returns `false` if something has already arrived.
    pub(super) fn arm(&self, desk: &mut Desk) -> bool {
        let at_rest = self.tray.rest() && desk.scheduler.park();
        if at_rest {
            self.set_armed(desk, true);
            desk.listens = true;
            self.rests.store(true, Ordering::Relaxed);
        }
        at_rest
    }
}
