//! The background thread, which leads while no caller does.
//!
//! It sees to handles that are awaited as futures, to replies for handles that no thread is joining, to deaths and to deadlines.
//! It leads only while leadership is vacant and not kept warm, and only for turns that do not wait for events.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Instant,
};

use super::{
    poll::{ROUND, Until},
    state::{BACKGROUND_BELL, Driver, WARM, earlier},
};
use crate::{
    error::{Error, Result},
    escape::Escaped,
    sys::{buffer_cache, limits::explained, quiesce::OwnThread},
};

/// The background thread's leadership. Dropping it arms the background poller and gives up leadership, also when a user's logger
/// panics.
struct Background<'a>(&'a Driver);

impl Drop for Background<'_> {
    fn drop(&mut self) {
        let driver = self.0;
        let Some(mut state) = driver.lock() else { return };
        // It may not be armed yet if a user's logger has panicked.
        driver.set_armed(&mut state, true);
        state.listens = true;
        driver.leave_lead(&mut state);
    }
}

impl Driver {
    /// Starts the background thread.
    pub(crate) fn start_background(self: &Arc<Self>, name: Option<&str>) -> Result<JoinHandle<()>> {
        let driver = self.clone();
        let name =
            name.map_or_else(|| "procession".to_owned(), |name| format!("procession {}", Escaped(name)));
        std::thread::Builder::new()
            .name(name)
            .spawn(move || _ = driver.run_background())
            .map_err(|error| Error::system("a pool's thread cannot be started", explained(error)))
    }

    /// Ends the background thread. The caller must be in the process that made the driver.
    pub(crate) fn stop_background(&self, thread: JoinHandle<()>) {
        // SYNC(pool-stopping): pairs with the Acquire load in `is_over`.
        self.stopping.store(true, Ordering::Release);
        // If its poller was closed, nothing can wake the thread. It then keeps the leaked driver for itself and touches nothing.
        if self.ring_background() {
            // It runs no code of users except loggers and wakers, and a panic of theirs was already reported by the panic hook.
            let _ = thread.join();
        }
    }

    /// Wakes the background thread. Returns `false` if that is impossible because the descriptors were closed.
    pub(super) fn ring_background(&self) -> bool {
        !self.is_closed() && self.background_bell.ring_in(&self.background, BACKGROUND_BELL)
    }

    /// Lets the background thread end by itself when the last worker has ended.
    pub(crate) fn leave_to_background(&self) {
        self.is_left.store(true, Ordering::Relaxed);
        self.ring_background();
    }

    /// Runs until the pool has ended. Returns `None` in a copy of this process that a logger or waker has made on this thread, where
    /// it is the only thread. Its end is then the end of the copy.
    fn run_background(&self) -> Option<()> {
        let mut thread = OwnThread::new();
        let mut events = Vec::new();
        let mut leavings = 0;
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
                    let in_use = state.leavings != used;
                    used = state.leavings;
                    earlier(state.background_due(), in_use.then(|| Instant::now() + ROUND))
                } else if state.leavings != leavings {
                    // Leadership changes often. Waking up by itself spares the leaders from ringing the bell.
                    Some(Instant::now() + WARM)
                } else {
                    None
                };
                leavings = state.leavings;
                let due = earlier(due, spare_due);
                state.background_alarm = due;
                due.map(|alarm| alarm.saturating_duration_since(Instant::now()))
            };
            let waited = thread.rest(|| self.background.wait(&mut events, timeout));
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
            let seat = Background(self);
            while !self.arm(&mut *self.turn(self.lock()?, &mut events, Until::Now)?) {}
            drop(seat);
        }
        Some(())
    }
}
