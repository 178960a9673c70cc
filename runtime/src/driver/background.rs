//! The background thread, which drives a pool while no caller waits.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    poll::{ROUND, Until, earlier},
    state::{BACKGROUND_BELL, Driver, WARM},
};
use crate::{
    error::{Error, Result},
    escape::Escaped,
    sys::{buffer_cache, limits::explained, quiesce::OwnThread},
};

/// A thread that waits in a pool whose descriptors were closed checks this often whether another thread has completed what it waits for.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// The background thread has the seat; it gives it back without keeping it warm, also when a user's logger panics.
struct Background<'a>(&'a Driver);

impl Drop for Background<'_> {
    fn drop(&mut self) {
        let driver = self.0;
        let mut desk = driver.lock();
        // Where a user's logger has panicked, it may not be.
        driver.set_armed(&mut desk, true);
        desk.listens = true;
        driver.leave_seat(&mut desk);
    }
}

impl Driver {
    /// Starts the thread that drives while nobody waits.
    pub(crate) fn start_background(self: &Arc<Self>, name: Option<&str>) -> Result<JoinHandle<()>> {
        let driver = self.clone();
        let name =
            name.map_or_else(|| "procession".to_owned(), |name| format!("procession {}", Escaped(name)));
        std::thread::Builder::new()
            .name(name)
            .spawn(move || driver.run_background())
            .map_err(|error| Error::system("a pool's thread cannot be started", explained(error)))
    }

    /// Ends the background thread.
    pub(crate) fn stop_background(&self, thread: JoinHandle<()>) {
        // SYNC(pool-stopping): pairs with the Acquire load in `is_over`.
        self.stopping.store(true, Ordering::Release);
        // What it sleeps in may have been closed, and then nothing wakes it. It has this for itself, and touches nothing.
        if self.ring_background() {
            // It runs no code of users but their loggers; one that panics has said so.
            let _ = thread.join();
        }
    }

    /// Wakes the background thread. Returns whether that can be done.
    pub(super) fn ring_background(&self) -> bool {
        !self.is_closed() && self.background_bell.ring_in(&self.background, BACKGROUND_BELL)
    }

    /// Has the background thread end by itself, once the last worker has.
    pub(crate) fn leave_to_background(&self) {
        self.is_left.store(true, Ordering::Relaxed);
        self.ring_background();
    }

    fn run_background(&self) {
        let mut thread = OwnThread::new();
        let mut events = Vec::new();
        let mut leavings = 0;
        let mut used = 0;
        // Looked at after every turn: the turn may have silenced the bell that was rung for it.
        while !self.is_over() {
            let timeout = {
                let spare_due = buffer_cache::expire().map(|left| Instant::now() + left);
                let mut desk = self.lock();
                if self.is_closed() {
                    return;
                }
                desk.seen = Instant::now();
                let due = if !desk.taken {
                    // While the pool is in use it looks now and then, so that it need not be woken for each look that is due later.
                    let in_use = desk.leavings != used;
                    used = desk.leavings;
                    earlier(desk.background_due(), in_use.then(|| Instant::now() + ROUND))
                } else if desk.leavings != leavings {
                    // The seat comes and goes; to look again by itself spares whoever leaves it the ringing.
                    Some(Instant::now() + WARM)
                } else {
                    None
                };
                leavings = desk.leavings;
                let due = earlier(due, spare_due);
                desk.background_alarm = due;
                due.map(|alarm| alarm.saturating_duration_since(Instant::now()))
            };
            let waited = thread.rest(|| self.background.wait(&mut events, timeout));
            if self.is_over() {
                return;
            }
            let mut desk = self.lock();
            if waited.is_err() {
                self.break_down(&mut desk);
                return self.follow_up(desk, Instant::now());
            }
            for event in &events {
                match event.key {
                    BACKGROUND_BELL => {}
                    // It reports once.
                    _ => desk.armed = false,
                }
            }
            if desk.taken || desk.warm.is_some_and(|warm| warm > Instant::now()) {
                continue;
            }
            desk.warm = None;
            desk.listens = false;
            desk.taken = true;
            desk.owner = Some(std::thread::current().id());
            drop(desk);
            let seat = Background(self);
            while !self.arm(&mut self.turn(self.lock(), &mut events, Until::Now)) {}
            drop(seat);
        }
    }
}
