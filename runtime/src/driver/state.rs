//! The exchange: moves requests and results while somebody waits for them.
//!
//! Whoever waits for a result drives: it takes the one *seat*, polls the workers, and has the scheduler react, until its own result
//! is there. Others who wait meanwhile are parked, and one of them is given the seat when it falls vacant. With nobody waiting, a
//! thread in the background sees to what the workers say (handles that are awaited as futures, deaths, deadlines): its own poller
//! holds the workers' poller, disarmed before another sleeps in that, so that it sleeps while others drive.
//!
//! Who leaves the seat will often be back at once, with the next call. So the seat is *warm* for [`WARM`]: only then does the
//! background arm its poller, and a caller that is back in time finds it as it was.

use std::{
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{Thread, ThreadId},
    time::{Duration, Instant},
};

use super::{
    injector::Tray,
    poll::{POLL_EVERY, earlier},
};
use crate::{
    error::{Error, Result},
    escape::Lines,
    scheduler::{batch::Single, effects::After, events::LAUNCHER, state::Scheduler},
    sys::{
        buffer_cache,
        generation::generation,
        limits::explained,
        poll::{Bell, Poller},
    },
    terminal::aside,
};

/// The bell among the workers; no worker has this key.
pub(super) const BELL: u64 = u64::MAX;
/// The workers' poller among what the background thread waits for.
pub(super) const WORKERS: u64 = 0;

/// The background's own bell.
pub(super) const BACKGROUND_BELL: u64 = 1;
/// The longest time between two checks of the descriptors while a thread waits for workers. The kernel does not report a close.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A seat that was left is kept for a caller's return so long.
pub(super) const WARM: Duration = Duration::from_millis(1);

pub(crate) struct Driver {
    desk: Mutex<Desk>,
    /// Numbers of tasks.
    pub(super) next_id: Arc<AtomicU64>,
    /// Single tasks that were handed in and that nobody has taken to the desk yet.
    pub(super) tray: Tray<Single>,
    /// Polls the workers and the bell.
    pub(super) workers: Poller,
    /// Wakes whoever drives.
    pub(super) bell: Bell,
    /// Polls `workers` and its own bell, for the background thread.
    pub(super) background: Poller,
    pub(super) background_bell: Bell,
    pub(super) stopping: AtomicBool,
    /// The pool was dropped and no thread waits for its end: the background thread returns when the last worker has ended.
    pub(super) is_left: AtomicBool,
    /// Other code has closed the pool's descriptors. Nothing is done with their numbers any more, and this is never dropped.
    is_closed: AtomicBool,
    /// This.
    me: Weak<Self>,
    /// The pool has rested, and nobody has come since. A hint.
    pub(super) rests: AtomicBool,
    /// Whose process this is.
    generation: u32,
    /// The background gives back what is kept.
    _keeper: buffer_cache::Keeper,
}

/// What the lock protects: the scheduler and who drives it.
pub(crate) struct Desk {
    pub(crate) scheduler: Scheduler,
    /// Memory for what is taken in.
    pub(super) taken_in: Vec<Single>,
    /// Somebody has the seat.
    pub(super) taken: bool,
    /// Who has it: a logger that is called by the one that drives may itself wait for a task.
    pub(super) owner: Option<ThreadId>,
    /// Threads that wait while another drives.
    pub(super) parked: Vec<Thread>,
    /// Threads that wait for the pool to have nothing left to do, or no workers.
    pub(super) watching: Vec<Thread>,
    /// When whoever drives will wake by itself; `None`: not before something happens.
    pub(crate) alarm: Option<Instant>,
    /// The same for the background thread.
    pub(super) background_alarm: Option<Instant>,
    /// Until when the vacant seat is kept warm.
    pub(super) warm: Option<Instant>,
    /// When it was left last.
    pub(super) left: Option<Instant>,
    /// How often the seat was left.
    pub(super) leavings: u64,
    /// The background poller reports what the workers' poller has.
    pub(super) armed: bool,
    /// The workers' poller has whatever the workers say, and nobody else looks.
    pub(super) listens: bool,
    /// When it was last looked whether the descriptors are there.
    pub(super) examined: Instant,
    /// When the workers' poller was last asked.
    pub(super) polled: Instant,
    /// When the clock was looked at last: now, for what need not know it to the microsecond.
    pub(super) seen: Instant,
}

impl Desk {
    /// When the background thread is to see to a vacant seat: while it is kept warm, nothing is so urgent.
    pub(super) fn background_due(&self) -> Option<Instant> {
        let look = (self.scheduler.unfinished() > 0).then(|| self.seen + LOOK_EVERY);
        self.warm.or_else(|| earlier(self.scheduler.deadline(), look))
    }

    /// Wakes those that wait for the pool to be at rest, if it is; returns whether there were any.
    fn call_watchers(&mut self) -> bool {
        let at_rest = self.scheduler.unfinished() == 0 || self.scheduler.is_empty_of_workers();
        let due = !self.watching.is_empty() && at_rest;
        if due {
            self.watching.drain(..).for_each(|thread| thread.unpark());
        }
        due
    }
}

impl Driver {
    pub(crate) fn new(scheduler: Scheduler) -> Result<Arc<Self>> {
        let failed = |error| Error::system("a pool's poller cannot be made", explained(error));
        let mut driver = Self {
            next_id: scheduler.numbers(),
            desk: Mutex::new(Desk {
                scheduler,
                taken_in: Vec::new(),
                taken: false,
                owner: None,
                parked: Vec::new(),
                watching: Vec::new(),
                alarm: None,
                background_alarm: None,
                warm: None,
                left: None,
                leavings: 0,
                armed: true,
                listens: true,
                examined: Instant::now(),
                polled: Instant::now(),
                seen: Instant::now(),
            }),
            tray: Tray::new(),
            workers: Poller::new().map_err(failed)?,
            background: Poller::new().map_err(failed)?,
            bell: Bell::new().map_err(failed)?,
            background_bell: Bell::new().map_err(failed)?,
            stopping: AtomicBool::new(false),
            is_left: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            me: Weak::new(),
            rests: AtomicBool::new(false),
            generation: generation(),
            _keeper: buffer_cache::Keeper::new(),
        };
        driver.bell.add_to(&driver.workers, BELL).map_err(failed)?;
        if let Some(fd) = driver.lock().scheduler.launcher.poll_fd() {
            driver.workers.add(fd, LAUNCHER).map_err(failed)?;
        }
        driver.background.add_disarmed(driver.workers.as_fd(), WORKERS).map_err(failed)?;
        driver.background_bell.add_to(&driver.background, BACKGROUND_BELL).map_err(failed)?;
        driver.background.arm(driver.workers.as_fd(), WORKERS);
        Ok(Arc::new_cyclic(|me| {
            driver.me = me.clone();
            driver
        }))
    }

    /// The pool's, unless it has ended or is another process's, whose copy this process is: what a copy has of it is not to be touched,
    /// for what was locked when it was made stays locked, and the workers are not its own.
    pub(crate) fn own(driver: &Weak<Self>) -> Option<Arc<Self>> {
        driver.upgrade().filter(|driver| driver.is_own())
    }

    fn is_own(&self) -> bool {
        self.generation == generation()
    }

    /// Wakes whoever drives.
    pub(super) fn ring(&self) -> bool {
        !self.is_closed() && self.bell.ring_in(&self.workers, BELL)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Ends the pool if other code has closed its descriptors.
    pub(crate) fn examine(&self) {
        self.examine_at(&mut self.lock(), Instant::now());
    }

    /// As [`examine`](Self::examine), once in a while.
    pub(super) fn examine_if_due(&self, desk: &mut Desk, now: Instant) {
        if now.saturating_duration_since(desk.examined) >= POLL_EVERY {
            self.examine_at(desk, now);
        }
    }

    fn examine_at(&self, desk: &mut Desk, now: Instant) {
        desk.examined = now;
        let is_whole = || self.workers.is_whole() && self.background.is_whole();
        if !self.is_closed() && !is_whole() {
            self.break_down(desk);
        }
    }

    /// Other code has closed the pool's descriptors.
    pub(super) fn break_down(&self, desk: &mut Desk) {
        if !self.is_closed.swap(true, Ordering::Relaxed) {
            // To drop it would close numbers that may be others' by now.
            std::mem::forget(self.me.upgrade());
            desk.scheduler.break_down();
        }
    }

    /// Returns whether the background thread has nothing more to do.
    pub(super) fn is_over(&self) -> bool {
        // SYNC(pool-stopping): pairs with the Release store in `stop_background`.
        self.stopping.load(Ordering::Acquire)
            || (self.is_left.load(Ordering::Relaxed) && self.lock().scheduler.is_empty_of_workers())
    }

    /// Wakes those that wait for the pool to be at rest, if it is; returns whether there were any.
    pub(super) fn call_watchers(&self, desk: &mut Desk) -> bool {
        if self.is_left.load(Ordering::Relaxed) && desk.scheduler.is_empty_of_workers() {
            self.ring_background();
        }
        desk.call_watchers()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only looks, or changes what nothing follows from.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Scheduler) -> R) -> R {
        look(&mut self.lock().scheduler)
    }
}

impl After {
    /// Prints, and calls the user's logger and wakers. One that panics has said so by its hook; the others are called all the same.
    pub(super) fn run(mut self) {
        for note in &self.notes {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                aside(|| ::log::info!(target: "procession", "{}", Lines(note)));
            }));
        }
        for output in &self.shows {
            let _ = catch_unwind(AssertUnwindSafe(|| output.show()));
        }
        for words in &self.words {
            let _ = catch_unwind(AssertUnwindSafe(|| aside(|| words.emit())));
        }
        #[cfg(feature = "tracing")]
        self.ended.iter().for_each(|pid| crate::observe::tracing::forget(*pid));
        self.wakes.wake_all();
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}
