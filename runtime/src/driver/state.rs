//! The state of a driver: its lock, pollers and bells, and what the lock protects.
//!
//! A thread that waits for a result becomes the *leader*: it polls the workers and has the state machine react until its own result
//! is there. Other waiting threads are parked, and one of them leads next. While no thread waits, the background thread leads.
//! Its own poller contains the workers' poller, which is disarmed while a caller leads, so that the background thread sleeps.
//!
//! A thread that stops leading is often back soon with its next call, so leadership stays *warm* for [`WARM`]. Only after that
//! does the background thread take over, and a caller that is back in time finds everything as it was.

use std::{
    io,
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{Thread, ThreadId},
    time::{Duration, Instant},
};

use super::injector::Injector;
use crate::{
    batch::Single,
    error::{Error, Result},
    escape::Lines,
    launch::{Launcher, PolledLauncher},
    observe::timeline::Timeline,
    scheduler::{config::Config, effects::Effects, machine::StateMachine, state::Scheduler},
    segment,
    sync::ignore_poison,
    sys::{
        buffer_cache,
        generation::generation,
        poll::{Bell, Poller},
        spin::Spinner,
    },
    terminal::aside,
};

/// The key of the leader's bell in the workers' poller. No worker has this key.
pub(super) const BELL: u64 = u64::MAX;
/// The key of the launcher in the workers' poller. No worker has this key.
pub(crate) const LAUNCHER: u64 = u64::MAX - 1;
/// The key of the workers' poller in the background poller.
pub(super) const WORKERS: u64 = 0;

/// The key of the background thread's bell in its poller.
pub(super) const BACKGROUND_BELL: u64 = 1;
/// The longest time between two checks of the descriptors while a thread waits for workers. The kernel does not report a close.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The time for which vacant leadership is kept for a caller's return.
pub(super) const WARM: Duration = Duration::from_millis(1);

pub(crate) struct Driver<M: StateMachine = Scheduler> {
    state: Mutex<State<M>>,
    /// The counter that numbers single tasks.
    pub(super) next_id: Arc<AtomicU64>,
    /// Single tasks that were submitted and not passed to the state machine yet.
    pub(super) injector: Injector<Single>,
    /// Polls the workers, the launcher and the leader's bell.
    pub(crate) workers: Arc<Poller>,
    /// The launcher that is polled along with the workers.
    pub(super) launcher: OnceLock<Arc<dyn Launcher>>,
    /// Wakes the leader.
    pub(super) bell: Bell,
    /// Polls `workers` and its own bell, for the background thread.
    pub(super) background: Poller,
    pub(super) background_bell: Bell,
    pub(super) stopping: AtomicBool,
    /// No thread waits for the end: the background thread returns when the last worker has ended.
    pub(super) is_left: AtomicBool,
    /// Other code has closed the descriptors. Their numbers are not used any more, and the driver is leaked.
    is_closed: AtomicBool,
    /// A reference to this driver, to leak it.
    me: Weak<Self>,
    /// The pool is at rest and no task was submitted since. A hint.
    pub(super) rests: AtomicBool,
    /// The generation of the process that made the driver.
    generation: u32,
    /// Allows this process to keep a large buffer, because the background thread releases it in time.
    _keeper: buffer_cache::Keeper,
}

/// The data that the lock protects: the state machine, and who leads.
pub(super) struct State<M: StateMachine> {
    pub(super) machine: M,
    timeline: Option<Timeline>,
    /// Memory for tasks on their way from the injector.
    pub(super) taken_in: Vec<Single>,
    /// A thread leads.
    pub(super) taken: bool,
    /// The leader. A logger that the leader calls may itself wait for a task.
    pub(super) owner: Option<ThreadId>,
    /// Threads that wait while another leads.
    pub(super) parked: Vec<Thread>,
    /// Threads that wait in [`Driver::wait_while`].
    pub(super) watching: Vec<Thread>,
    /// The time at which the leader will wake by itself. `None` means that it waits for an event.
    pub(super) alarm: Option<Instant>,
    /// The same for the background thread.
    pub(super) background_alarm: Option<Instant>,
    /// Until when vacant leadership is kept warm.
    pub(super) warm: Option<Instant>,
    /// The time at which leadership was last given up.
    pub(super) left: Option<Instant>,
    /// The number of times that leadership was given up.
    pub(super) releases: u64,
    /// The background poller reports what the workers' poller has.
    pub(super) armed: bool,
    /// Workers wake the poller for their replies, because no thread looks at the rings.
    pub(super) listens: bool,
    /// How many segments were dropped when workers were last told to forget some.
    pub(super) dropped: u64,
    /// The time at which the descriptors were last checked.
    pub(super) examined: Instant,
    /// The time at which the workers' poller was last called.
    pub(super) polled: Instant,
    /// The manner in which leaders spin.
    pub(super) spinner: Spinner,
    /// The time at which the clock was last read. It serves as the current time where microseconds do not matter.
    pub(super) seen: Instant,
}

impl<M: StateMachine> State<M> {
    /// Returns when the background thread must take vacant leadership. While leadership is warm, nothing is more urgent than
    /// that.
    pub(super) fn background_due(&self) -> Option<Instant> {
        let look = self.machine.is_unfinished().then(|| self.seen + LOOK_EVERY);
        self.warm.or_else(|| earlier(self.machine.deadline(self.seen), look))
    }

    /// Has the workers forget the segments that this process has dropped, if there are any.
    pub(super) fn forget_dropped(&mut self) {
        let dropped = segment::dropped();
        if std::mem::replace(&mut self.dropped, dropped) != dropped {
            self.machine.forget_dropped(self.seen);
        }
    }

    /// Takes the effects of the state machine, if there are any, and writes what is to be entered in the timeline.
    pub(super) fn effects(&mut self) -> Option<Effects> {
        let mut effects = self.machine.effects()?;
        if let Some(timeline) = &mut self.timeline {
            timeline.write(std::mem::take(&mut effects.timeline));
        }
        Some(effects)
    }
}

impl<M: StateMachine> Driver<M> {
    /// Creates a driver without a background thread. `workers` is the poller that reports to the state machine.
    pub(crate) fn of(
        machine: M,
        workers: Arc<Poller>,
        next_id: Arc<AtomicU64>,
        timeline: Option<Timeline>,
    ) -> io::Result<Arc<Self>> {
        let now = Instant::now();
        let mut driver = Self {
            state: Mutex::new(State {
                machine,
                timeline,
                taken_in: Vec::new(),
                taken: false,
                owner: None,
                parked: Vec::new(),
                watching: Vec::new(),
                alarm: None,
                background_alarm: None,
                warm: None,
                left: None,
                releases: 0,
                armed: true,
                listens: true,
                dropped: 0,
                examined: now,
                polled: now,
                spinner: Spinner::default(),
                seen: now,
            }),
            next_id,
            injector: Injector::new(),
            workers,
            launcher: OnceLock::new(),
            background: Poller::new()?,
            bell: Bell::new()?,
            background_bell: Bell::new()?,
            stopping: AtomicBool::new(false),
            is_left: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            me: Weak::new(),
            rests: AtomicBool::new(false),
            generation: generation(),
            _keeper: buffer_cache::Keeper::new(),
        };
        driver.bell.add_to(&driver.workers, BELL)?;
        driver.background.add_disarmed(driver.workers.as_fd(), WORKERS)?;
        driver.background_bell.add_to(&driver.background, BACKGROUND_BELL)?;
        driver.background.arm(driver.workers.as_fd(), WORKERS);
        Ok(Arc::new_cyclic(|me| {
            driver.me = me.clone();
            driver
        }))
    }

    /// Sets the launcher that the driver polls. Called once at most.
    pub(crate) fn set_launcher(&self, launcher: &Arc<dyn Launcher>) -> io::Result<()> {
        if let Some(fd) = launcher.poll_fd() {
            self.workers.add(fd, LAUNCHER)?;
        }
        let _ = self.launcher.set(launcher.clone());
        Ok(())
    }

    /// Returns the driver, unless its pool has ended or this process is a copy of the one that made it. A copy must not touch its
    /// inherited driver: what was locked when the copy was made stays locked, and the workers are not the copy's.
    pub(crate) fn own(driver: &Weak<Self>) -> Option<Arc<Self>> {
        driver.upgrade().filter(|driver| driver.is_own())
    }

    /// Returns whether this process made the driver, and is not a copy of the one that did.
    pub(crate) fn is_own(&self) -> bool {
        self.generation == generation()
    }

    /// Wakes the leader.
    pub(super) fn ring(&self) -> bool {
        !self.is_closed() && self.bell.ring_in(&self.workers, BELL)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Breaks the state machine down if other code has closed the descriptors.
    pub(super) fn examine(&self, state: &mut State<M>) {
        if !self.is_whole() {
            self.break_down(state);
        }
    }

    /// Does the same as [`examine`](Self::examine) if the last check was a while ago.
    pub(super) fn examine_if_due(&self, state: &mut State<M>, now: Instant) {
        if now.saturating_duration_since(state.examined) >= POLL_EVERY {
            state.examined = now;
            self.examine(state);
        }
    }

    /// Returns whether no other code has closed the descriptors.
    pub(crate) fn is_whole(&self) -> bool {
        !self.is_closed() && self.workers.is_whole() && self.background.is_whole()
    }

    /// Fails all tasks, because other code has closed the descriptors.
    pub(super) fn break_down(&self, state: &mut State<M>) {
        if !self.is_closed.swap(true, Ordering::Relaxed) {
            // Dropping the driver would close descriptors that may be other files by now.
            self.leak();
            state.machine.break_down();
        }
    }

    /// Returns whether the background thread has nothing more to do.
    pub(super) fn is_over(&self) -> bool {
        // SYNC(driver-stopping): pairs with the Release store in `Engine::drop`.
        self.stopping.load(Ordering::Acquire)
            || (self.is_left.load(Ordering::Relaxed)
                && self.lock().is_none_or(|state| state.machine.is_empty_of_workers()))
    }

    /// Wakes the threads that wait in [`wait_while`](Self::wait_while), if they should look again. Returns whether there were any.
    pub(super) fn call_watchers(&self, state: &mut State<M>) -> bool {
        if self.is_left.load(Ordering::Relaxed) && state.machine.is_empty_of_workers() {
            self.ring_background();
        }
        let due = !state.watching.is_empty() && state.machine.has_news();
        if due {
            state.watching.drain(..).for_each(|thread| thread.unpark());
        }
        due
    }

    /// Locks the state. Returns `None` in a copy of the process that made the driver.
    ///
    /// Code of users may fork and return in both processes. The lock is released while such code runs, and the pollers, the bells and
    /// the workers are used under it alone. So the copy is turned away here, whatever it was in the middle of. It waits for no lock,
    /// because a lock that another thread held stays locked in a copy.
    pub(super) fn lock(&self) -> Option<MutexGuard<'_, State<M>>> {
        if self.is_own() {
            return Some(ignore_poison(self.state.lock()));
        }
        // The copy must not drop it either.
        self.leak();
        None
    }

    /// Keeps this driver from being dropped.
    fn leak(&self) {
        std::mem::forget(self.me.upgrade());
    }

    /// Looks at the state machine, or changes what has no consequences. Does nothing and returns `None` in a copy of the process that
    /// made the driver.
    pub(crate) fn inspect<R>(&self, read: impl FnOnce(&mut M) -> R) -> Option<R> {
        Some(read(&mut self.lock()?.machine))
    }
}

impl Driver {
    /// Creates the driver of a pool with these settings, whose workers are started by `launcher`.
    pub(crate) fn new(config: Arc<Config>, launcher: Arc<dyn Launcher>) -> Result<Arc<Self>> {
        let failed = |error| Error::system("a pool's poller cannot be created", error);
        let workers = Arc::new(Poller::new().map_err(failed)?);
        let polled = PolledLauncher::new(launcher.clone(), workers.clone());
        let timeline = Timeline::open(config.spawn.name.as_deref());
        let scheduler = Scheduler::new(config, Box::new(polled), timeline.is_some());
        let numbers = scheduler.numbers();
        let driver = Self::of(scheduler, workers, numbers, timeline).map_err(failed)?;
        driver.set_launcher(&launcher).map_err(failed)?;
        Ok(driver)
    }
}

impl Effects {
    /// Performs the effects: prints, and calls the user's logger and wakers. A panic in one of them was reported by the panic
    /// hook and does not keep the others from being called. A copy of this process that one of them has made performs no others.
    pub(super) fn run(mut self) {
        let original = generation();
        if self.perform(|| (generation() == original).then_some(())).is_none() {
            std::mem::forget(self);
        }
    }

    /// Performs the effects while `own` returns `Some`.
    fn perform(&mut self, own: impl Fn() -> Option<()>) -> Option<()> {
        self.dropped.clear();
        for note in &self.notes {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                aside(|| ::log::info!(target: "procession", "{}", Lines(note)));
            }));
            own()?;
        }
        for output in &self.outputs {
            let _ = catch_unwind(AssertUnwindSafe(|| output.show()));
        }
        for record in &self.records {
            let _ = catch_unwind(AssertUnwindSafe(|| aside(|| record.emit())));
            own()?;
        }
        #[cfg(feature = "tracing")]
        for pid in &self.ended {
            crate::observe::tracing::forget(*pid);
            own()?;
        }
        std::mem::take(&mut self.wakes).wake_all();
        own()
    }
}

impl<M: StateMachine> std::fmt::Debug for Driver<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// The time between two checks of a thread that waits in a pool whose descriptors were closed: another thread may have completed
/// what it waits for.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// The longest time between two calls of the poller while the rings always contain something, so that deaths and workers that
/// send little do not wait for workers that never pause.
pub(super) const POLL_EVERY: Duration = Duration::from_millis(1);

pub(super) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
