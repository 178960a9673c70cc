//! One turn of the leader: spin, poll, react, dispatch, and perform the effects.
//!
//! The order matters. The poller is waited for without the lock, and the effects are performed without it. Every change of the
//! state machine must be followed by `feed` and by a check of the alarms.

use std::{
    hint::spin_loop,
    os::fd::AsFd,
    sync::{MutexGuard, atomic::Ordering},
    time::{Duration, Instant},
};

use super::state::{BELL, Driver, LAUNCHER, LOOK_EVERY, PAUSE, POLL_EVERY, State, WORKERS, earlier};
use crate::{
    scheduler::machine::StateMachine,
    sys::{poll::Event, spin},
};

/// The time for which the leader spins for a reply that is near. Sleeping and being woken may cost as much.
const SPIN: Duration = Duration::from_micros(50);

/// The number of looks at the rings between two releases of the lock while spinning.
const LOOKS: u32 = 8;

/// The longest sleep of the background thread while its pool is in use.
pub(super) const ROUND: Duration = Duration::from_millis(900);

/// The time for which [`Driver::turn`] may wait: not at all, or until a deadline, if there is one.
pub(super) enum Until {
    Now,
    Then(Option<Instant>),
}

impl<M: StateMachine> Driver<M> {
    pub(super) fn set_armed(&self, state: &mut State<M>, armed: bool) {
        if state.armed != armed && !self.is_closed() {
            state.armed = armed;
            if armed {
                self.background.arm(self.workers.as_fd(), WORKERS);
            } else {
                self.background.disarm(self.workers.as_fd(), WORKERS);
            }
        }
    }

    /// Changes the state machine and handles the consequences. Does nothing and returns `None` in a copy of the process that made the
    /// driver.
    pub(crate) fn with<R>(&self, change: impl FnOnce(&mut M, Instant) -> R) -> Option<R> {
        let mut state = self.lock()?;
        let now = Instant::now();
        state.seen = now;
        self.take_in(&mut state, now);
        self.examine_if_due(&mut state, now);
        let result = change(&mut state.machine, now);
        self.follow_up(state, now);
        Some(result)
    }

    /// Moves the tasks of the injector to the state machine.
    pub(super) fn take_in(&self, state: &mut State<M>, now: Instant) {
        if !self.injector.is_empty() {
            let mut taken_in = std::mem::take(&mut state.taken_in);
            self.injector.take(&mut taken_in);
            taken_in.drain(..).for_each(|task| state.machine.enqueue_single(task, now));
            state.taken_in = taken_in;
        }
    }

    /// Sends tasks to the workers that can take them.
    fn feed(&self, state: &mut State<M>, now: Instant) {
        loop {
            self.take_in(state, now);
            let wants_tasks = state.machine.dispatch(now);
            if self.injector.note_demand(wants_tasks) {
                return;
            }
        }
    }

    /// Handles the consequences of a change: sends tasks, wakes sleepers whose alarm is too late, and performs the effects.
    pub(super) fn follow_up(&self, mut state: MutexGuard<'_, State<M>>, now: Instant) {
        self.feed(&mut state, now);
        self.check_alarm(&state, now);
        let called = self.call_watchers(&mut state);
        let effects = state.effects();
        let wakes = effects.as_ref().is_some_and(|effects| !effects.wakes.is_empty());
        if state.taken && (called || wakes) {
            // The thread to be woken may be the leader, which sleeps in the poller.
            self.ring();
        }
        drop(state);
        if let Some(effects) = effects {
            effects.run();
        }
    }

    /// Wakes the leader or the background thread if something is due before its alarm.
    pub(super) fn check_alarm(&self, state: &State<M>, now: Instant) {
        let is_earlier =
            |due: Option<Instant>, alarm| due.is_some_and(|due| earlier(alarm, Some(due)) != alarm);
        if state.taken {
            if is_earlier(state.machine.deadline(now), state.alarm) {
                self.ring();
            }
        } else if is_earlier(state.background_due(), state.background_alarm) {
            self.ring_background();
        }
    }

    /// Waits once for events, as long as `until` allows, and reacts to them. Returns `None` in a copy of this process that a logger or
    /// waker has made.
    ///
    /// The caller must be the leader.
    pub(super) fn turn<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<M>>,
        events: &mut Vec<Event>,
        until: Until,
    ) -> Option<MutexGuard<'a, State<M>>> {
        events.clear();
        if self.is_closed() {
            // All tasks have failed, and only another thread can complete what is still waited for.
            state = self.react(state, events)?;
            if let Until::Then(_) = until {
                drop(state);
                std::thread::park_timeout(PAUSE);
                return self.lock();
            }
            return Some(state);
        }
        if let Until::Then(deadline) = until {
            state = self.spin(state, deadline)?;
        }
        let has_arrivals = state.machine.has_arrivals();
        state.seen = Instant::now();
        if !has_arrivals || state.seen.saturating_duration_since(state.polled) >= POLL_EVERY {
            state.polled = state.seen;
            let timeout = match until {
                _ if has_arrivals => Some(Duration::ZERO),
                Until::Now => Some(Duration::ZERO),
                Until::Then(_) if !self.injector.rest() || !state.machine.park() => Some(Duration::ZERO),
                Until::Then(deadline) => {
                    // Otherwise an event would wake both the leader and the background thread.
                    self.set_armed(&mut state, false);
                    state.alarm = earlier(deadline, state.machine.deadline(state.seen));
                    state.alarm = earlier(state.alarm, Some(state.seen + LOOK_EVERY));
                    state.alarm.map(|alarm| alarm.saturating_duration_since(Instant::now()))
                }
            };
            drop(state);
            let waited = self.workers.wait(events, timeout);
            events.retain(|event| event.key != BELL);
            if let Some(launcher) = self.launcher.get()
                && events.iter().any(|event| event.key == LAUNCHER)
            {
                launcher.on_readable();
            }
            state = self.lock()?;
            state.seen = Instant::now();
            state.examined = state.seen;
            if waited.is_err() {
                self.break_down(&mut state);
            }
        }
        self.react(state, events)
    }

    /// Reacts to the events of the poller and to what is in the rings. The caller must be the leader. Returns `None` in a copy of
    /// this process that a logger or waker has made.
    pub(super) fn react<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<M>>,
        events: &mut Vec<Event>,
    ) -> Option<MutexGuard<'a, State<M>>> {
        state.forget_dropped();
        loop {
            let now = state.seen;
            state.machine.react(events, now);
            self.feed(&mut state, now);
            self.call_watchers(&mut state);
            let Some(effects) = state.effects() else { return Some(state) };
            let records = !effects.records.is_empty();
            drop(state);
            effects.run();
            state = self.lock()?;
            state.seen = Instant::now();
            // A worker that sends records without end must not keep this thread from its other work.
            if !records || state.seen.saturating_duration_since(state.polled) >= POLL_EVERY {
                return Some(state);
            }
            // The record was delivered, so what the worker sent after it can be read now.
            events.clear();
        }
    }

    /// Spins while a reply is likely to be near and a core is free.
    fn spin<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<M>>,
        deadline: Option<Instant>,
    ) -> Option<MutexGuard<'a, State<M>>> {
        if state.machine.has_arrivals() || !state.machine.reply_is_near() {
            return Some(state);
        }
        let (mut begun, mut end, mut should_offer) = (state.seen, None, false);
        loop {
            for _ in 0..LOOKS {
                spin_loop();
                if state.machine.has_arrivals() {
                    return Some(state);
                }
            }
            // Other threads need the lock, too, and a worker may need the core.
            drop(state);
            let offered = should_offer.then(spin::offer);
            state = self.lock()?;
            if !state.watching.is_empty() {
                return Some(state);
            }
            let now = Instant::now();
            if let Some(took) = offered {
                state.spinner.offered(took, now);
            }
            if end.is_none() || state.machine.flush(now) {
                // This is the first round, or a worker has taken another piece of a large value.
                begun = now;
                end = earlier(Some(now + SPIN), deadline);
            }
            should_offer = state.spinner.should_offer(now - begun, now);
            if end.is_some_and(|end| end <= now) {
                return Some(state);
            }
        }
    }

    /// Arms the background poller. Returns `false` if something has already arrived.
    pub(super) fn arm(&self, state: &mut State<M>) -> bool {
        let at_rest = self.injector.rest() && state.machine.park();
        if at_rest {
            self.set_armed(state, true);
            state.listens = true;
            self.rests.store(true, Ordering::Relaxed);
        }
        at_rest
    }
}
