//! One round of polling, and what follows from it.

use std::{
    hint::spin_loop,
    os::fd::AsFd,
    sync::{MutexGuard, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    background::PAUSE,
    state::{BELL, Desk, Driver, LOOK_EVERY, WORKERS},
};
use crate::{
    scheduler::state::Scheduler,
    sys::poll::{Event, Poller},
};

/// A reply that is near is waited for so long without sleeping: to wake and be woken may cost as much.
const SPIN: Duration = Duration::from_micros(50);

/// So many looks for one between two at all else.
const LOOKS: u32 = 8;

/// However much comes that no poller tells of, the poller is asked this often: deaths, and workers that say little, are not to wait for
/// those that never pause.
pub(super) const POLL_EVERY: Duration = Duration::from_millis(1);

/// The background thread of a pool that is in use wakes this often, at least.
pub(super) const ROUND: Duration = Duration::from_millis(900);

/// How long [`Driver::turn`] may wait.
pub(super) enum Until {
    Now,
    Then(Option<Instant>),
}

pub(super) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
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

    /// Changes something, and sees to what follows from it.
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

    /// Takes what was handed in to the desk.
    pub(super) fn take_in(&self, desk: &mut Desk) {
        if !self.tray.is_empty() {
            let mut taken_in = std::mem::take(&mut desk.taken_in);
            self.tray.take(&mut taken_in);
            taken_in.drain(..).for_each(|task| desk.scheduler.enqueue_single(task));
            desk.taken_in = taken_in;
        }
    }

    /// Gives work to whoever can take it.
    fn feed(&self, desk: &mut Desk, now: Instant) {
        loop {
            self.take_in(desk);
            desk.scheduler.dispatch(&self.workers, now);
            if self.tray.is_well_fed(desk.scheduler.is_hungry()) {
                return;
            }
        }
    }

    /// Sees to what follows from a change.
    pub(super) fn follow_up(&self, mut desk: MutexGuard<'_, Desk>, now: Instant) {
        self.feed(&mut desk, now);
        self.check_alarm(&desk);
        let called = self.call_watchers(&mut desk);
        let after = desk.scheduler.after();
        if desk.taken && (called || !after.wakes.is_empty()) {
            // Whoever is to be woken may be the one that drives, and sleeps in the poller.
            self.ring();
        }
        drop(desk);
        after.run();
    }

    /// Whoever sleeps must wake earlier if something is due earlier.
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

    /// Looks once at what has happened, waiting for it until `until` (`None`: for ever), and reacts.
    ///
    /// The caller has the seat.
    pub(super) fn turn<'a>(
        &'a self,
        mut desk: MutexGuard<'a, Desk>,
        events: &mut Vec<Event>,
        until: Until,
    ) -> MutexGuard<'a, Desk> {
        events.clear();
        if self.is_closed() {
            // All tasks have failed; only another thread can complete what is still waited for.
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
                    // Two that sleep would both be woken.
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

    /// Reacts to what the poller saw, and to what workers have said that no poller tells of. The caller has the seat.
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
            // The worker's words after the record are read now: the record is out.
            events.clear();
        }
    }

    /// Waits without sleeping, while a reply is likely to be near and there is a core to wait on.
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
            // Others want the desk, too.
            drop(desk);
            spin_loop();
            desk = self.lock();
            if !desk.watching.is_empty() {
                return desk;
            }
            let now = Instant::now();
            if end.is_none() || desk.scheduler.flush(&self.workers) {
                // It begins, or a worker takes a large value, piece by piece.
                end = earlier(Some(now + SPIN), deadline);
            }
            if end.is_some_and(|end| end <= now) {
                return desk;
            }
        }
    }

    /// Has the background poller tell of whatever comes from now on. `false`: something has come already.
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
