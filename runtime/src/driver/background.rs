//! The background thread, which leads while no caller does.
//!
//! It sees to handles that are awaited as futures, to replies for handles that no thread is joining, to deaths and to deadlines.
//! It leads only while leadership is vacant and not kept warm, and only for turns that do not wait for events.

use std::{
    io,
    sync::{Arc, Weak, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    leader::Leadership,
    poll::{ROUND, Until},
    state::{BACKGROUND_BELL, Driver, LOOK_EVERY, WARM, earlier},
};
use crate::{
    escape::Escaped,
    handle::Drive,
    scheduler::{machine::StateMachine, state::Scheduler},
    segment::{self, Listen, listen},
    sys::{
        buffer_cache,
        poll::Event,
        quiesce::{Announced, is_own_thread},
        thread,
    },
};

/// Leadership that was given up more often than this since the last look is about to be given up again. A caller that waits for many results
/// gives it up a few times in several milliseconds.
const FEW: u64 = 8;

/// A driver with its background thread. Dropping it ends both.
pub(crate) struct Engine<M: StateMachine = Scheduler> {
    pub(crate) driver: Arc<Driver<M>>,
    background: Option<JoinHandle<()>>,
}

impl<M: StateMachine> Engine<M> {
    /// Starts the background thread of a driver, whose pool may have a name.
    pub(crate) fn start(driver: Arc<Driver<M>>, name: Option<&str>) -> io::Result<Self> {
        let (its_own, announced) = (driver.clone(), Announced::new());
        let name =
            name.map_or_else(|| "procession".to_owned(), |name| format!("procession {}", Escaped(name)));
        let thread = thread::named(name).spawn(move || _ = its_own.run_background(announced))?;
        listen(Arc::<Driver<M>>::downgrade(&driver));
        Ok(Self { driver, background: Some(thread) })
    }

    /// Returns the reference that handles hold. It keeps nothing open once the engine has ended.
    pub(crate) fn exchange(&self) -> Weak<dyn Drive> {
        Arc::<Driver<M>>::downgrade(&self.driver)
    }
}

impl<M: StateMachine> Drop for Engine<M> {
    /// Waits until the last worker has ended, unless this is one of our own threads.
    fn drop(&mut self) {
        segment::keep_nothing();
        let driver = &self.driver;
        if let Some(mut state) = driver.lock() {
            driver.examine(&mut state);
        }
        driver.with(|machine, now| machine.close(now));
        let Some(thread) = self.background.take() else { return };
        // A callback of the user may copy this process and return in both. The copy has no such thread.
        if !driver.is_own() {
            return std::mem::forget(thread);
        }
        if is_own_thread() {
            // A callback of the user dropped this. This thread may be the driver's own, or one that the driver's own thread waits
            // for, so the thread ends without being waited for.
            driver.is_left.store(true, Ordering::Relaxed);
            driver.ring_background();
            return;
        }
        if !driver.wait_while(|machine| !machine.is_empty_of_workers()) {
            return std::mem::forget(thread);
        }
        // SYNC(driver-stopping): pairs with the Acquire load in `is_over`.
        driver.stopping.store(true, Ordering::Release);
        // If its poller was closed, nothing can wake the thread. It then keeps the leaked driver for itself and touches nothing.
        if driver.ring_background() {
            // It runs no code of users except loggers and wakers, and a panic of theirs was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl<M: StateMachine> Listen for Driver<M> {
    /// Wakes the background thread. If a thread leads, the workers forget the segment in its next turn.
    fn segment_dropped(&self) {
        if self.is_own() {
            self.ring_background();
        }
    }
}

impl<M: StateMachine> Driver<M> {
    /// Wakes the background thread. Returns `false` if that is impossible because the descriptors were closed.
    pub(super) fn ring_background(&self) -> bool {
        !self.is_closed() && self.background_bell.ring_in(&self.background, BACKGROUND_BELL)
    }

    /// Waits for the workers' poller or the bell.
    fn sleep(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        // If a ring of the bell is lost, a short wait ends all the same.
        if timeout.is_some_and(|timeout| timeout <= LOOK_EVERY) {
            self.background.wait(events, timeout)
        } else {
            self.background.wait_for_bell(&self.background_bell, events, timeout)
        }
    }

    /// Runs until the pool has ended. Returns `None` in a copy of this process that a logger or waker has made on this thread, where
    /// it is the only thread. Its end is then the end of the copy.
    fn run_background(&self, announced: Announced) -> Option<()> {
        let mut thread = announced.begin();
        let mut events = Vec::new();
        let mut releases = 0;
        let mut used = 0;
        // Checked after every turn, because the turn may have taken the ring of the bell that was to stop the thread.
        while !self.is_over() {
            let timeout = {
                let spare_due = buffer_cache::expire().map(|left| Instant::now() + left);
                let mut state = self.lock()?;
                if self.is_closed() {
                    return Some(());
                }
                state.seen = Instant::now();
                let due = if !state.taken {
                    // While the pool is in use the thread wakes now and then, so that it need not be woken for each deadline.
                    let in_use = state.releases != used;
                    used = state.releases;
                    earlier(state.background_due(), in_use.then(|| Instant::now() + ROUND))
                } else if state.releases - releases > FEW {
                    // Leadership changes often. Waking up by itself spares the leaders from ringing the bell.
                    Some(Instant::now() + WARM)
                } else {
                    None
                };
                releases = state.releases;
                let due = earlier(due, spare_due);
                state.background_alarm = due;
                due.map(|alarm| alarm.saturating_duration_since(Instant::now()))
            };
            let waited = thread.rest(|| self.sleep(&mut events, timeout));
            segment::bury();
            if self.is_over() {
                break;
            }
            let mut state = self.lock()?;
            if waited.is_err() {
                self.break_down(&mut state);
                self.follow_up(state, Instant::now());
                break;
            }
            for event in &events {
                match event.key {
                    BACKGROUND_BELL => {}
                    // The poller reports once and is then disarmed.
                    _ => state.armed = false,
                }
            }
            if state.taken || state.warm.is_some_and(|warm| warm > Instant::now()) {
                continue;
            }
            state.warm = None;
            state.listens = false;
            state.taken = true;
            state.owner = Some(std::thread::current().id());
            drop(state);
            let leadership = Leadership(self);
            while !self.arm(&mut *self.turn(self.lock()?, &mut events, Until::Now)?) {
                // A worker that never stops talking must not keep this process from being copied.
                thread.rest(|| ());
            }
            drop(leadership);
        }
        Some(())
    }
}
