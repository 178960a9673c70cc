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
    hint::spin_loop,
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{JoinHandle, Thread, ThreadId},
    time::{Duration, Instant},
};

use super::injector::{Then, Tray};
use crate::{
    error::{Error, Result},
    escape::{Escaped, Lines},
    handle::Exchange,
    id::TaskId,
    scheduler::{batch::Single, effects::After, events::LAUNCHER, state::Scheduler},
    sys::{
        buffer_cache,
        generation::generation,
        limits::explained,
        poll::{Bell, Event, Poller},
        quiesce::OwnThread,
    },
    terminal::aside,
};

/// The bell among the workers; no worker has this key.
const BELL: u64 = u64::MAX;
/// The workers' poller among what the background thread waits for.
const WORKERS: u64 = 0;

/// The background's own bell.
const BACKGROUND_BELL: u64 = 1;
/// A reply that is near is waited for so long without sleeping: to wake and be woken may cost as much.
const SPIN: Duration = Duration::from_micros(50);
/// So many looks for one between two at all else.
const LOOKS: u32 = 8;
/// However much comes that no poller tells of, the poller is asked this often: deaths, and workers that say little, are not to wait for
/// those that never pause.
const POLL_EVERY: Duration = Duration::from_millis(1);
/// The background thread of a pool that is in use wakes this often, at least.
const ROUND: Duration = Duration::from_millis(900);
/// The longest time between two checks of the descriptors while a thread waits for workers. The kernel does not report a close.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A thread that waits in a pool whose descriptors were closed checks this often whether another thread has completed what it waits for.
const PAUSE: Duration = Duration::from_millis(10);
/// A seat that was left is kept for a caller's return so long.
const WARM: Duration = Duration::from_millis(1);

pub(crate) struct Driver {
    desk: Mutex<Desk>,
    /// Numbers of tasks.
    next_id: Arc<AtomicU64>,
    /// Single tasks that were handed in and that nobody has taken to the desk yet.
    tray: Tray<Single>,
    /// Polls the workers and the bell.
    workers: Poller,
    /// Wakes whoever drives.
    bell: Bell,
    /// Polls `workers` and its own bell, for the background thread.
    background: Poller,
    background_bell: Bell,
    stopping: AtomicBool,
    /// The pool was dropped and no thread waits for its end: the background thread returns when the last worker has ended.
    is_left: AtomicBool,
    /// Other code has closed the pool's descriptors. Nothing is done with their numbers any more, and this is never dropped.
    is_closed: AtomicBool,
    /// This.
    me: Weak<Self>,
    /// The pool has rested, and nobody has come since. A hint.
    rests: AtomicBool,
    /// Whose process this is.
    generation: u32,
    /// The background gives back what is kept.
    _keeper: buffer_cache::Keeper,
}

/// What the lock protects: the scheduler and who drives it.
pub(crate) struct Desk {
    pub(crate) scheduler: Scheduler,
    /// Memory for what is taken in.
    taken_in: Vec<Single>,
    /// Somebody has the seat.
    taken: bool,
    /// Who has it: a logger that is called by the one that drives may itself wait for a task.
    owner: Option<ThreadId>,
    /// Threads that wait while another drives.
    parked: Vec<Thread>,
    /// Threads that wait for the pool to have nothing left to do, or no workers.
    watching: Vec<Thread>,
    /// When whoever drives will wake by itself; `None`: not before something happens.
    alarm: Option<Instant>,
    /// The same for the background thread.
    background_alarm: Option<Instant>,
    /// Until when the vacant seat is kept warm.
    warm: Option<Instant>,
    /// When it was left last.
    left: Option<Instant>,
    /// How often the seat was left.
    leavings: u64,
    /// The background poller reports what the workers' poller has.
    armed: bool,
    /// The workers' poller has whatever the workers say, and nobody else looks.
    listens: bool,
    /// When it was last looked whether the descriptors are there.
    examined: Instant,
    /// When the workers' poller was last asked.
    polled: Instant,
    /// When the clock was looked at last: now, for what need not know it to the microsecond.
    seen: Instant,
}

impl Desk {
    /// When the background thread is to see to a vacant seat: while it is kept warm, nothing is so urgent.
    fn background_due(&self) -> Option<Instant> {
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
        driver.workers.add(driver.bell.as_fd(), BELL).map_err(failed)?;
        if let Some(fd) = driver.lock().scheduler.launcher.poll_fd() {
            driver.workers.add(fd, LAUNCHER).map_err(failed)?;
        }
        driver.background.add_disarmed(driver.workers.as_fd(), WORKERS).map_err(failed)?;
        driver.background.add(driver.background_bell.as_fd(), BACKGROUND_BELL).map_err(failed)?;
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

    /// Wakes whoever drives.
    fn ring(&self) -> bool {
        !self.is_closed() && self.bell.ring_in(&self.workers, BELL)
    }

    /// Wakes the background thread. Returns whether that can be done.
    fn ring_background(&self) -> bool {
        !self.is_closed() && self.background_bell.ring_in(&self.background, BACKGROUND_BELL)
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Ends the pool if other code has closed its descriptors.
    pub(crate) fn examine(&self) {
        self.examine_at(&mut self.lock(), Instant::now());
    }

    /// As [`examine`](Self::examine), once in a while.
    fn examine_if_due(&self, desk: &mut Desk, now: Instant) {
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
    fn break_down(&self, desk: &mut Desk) {
        if !self.is_closed.swap(true, Ordering::Relaxed) {
            // To drop it would close numbers that may be others' by now.
            std::mem::forget(self.me.upgrade());
            desk.scheduler.break_down();
        }
    }

    /// Has the background thread end by itself, once the last worker has.
    pub(crate) fn leave_to_background(&self) {
        self.is_left.store(true, Ordering::Relaxed);
        self.ring_background();
    }

    /// Returns whether the background thread has nothing more to do.
    fn is_over(&self) -> bool {
        // SYNC(pool-stopping): pairs with the Release store in `stop_background`.
        self.stopping.load(Ordering::Acquire)
            || (self.is_left.load(Ordering::Relaxed) && self.lock().scheduler.is_empty_of_workers())
    }

    /// Wakes those that wait for the pool to be at rest, if it is; returns whether there were any.
    fn call_watchers(&self, desk: &mut Desk) -> bool {
        if self.is_left.load(Ordering::Relaxed) && desk.scheduler.is_empty_of_workers() {
            self.ring_background();
        }
        desk.call_watchers()
    }

    /// Works on the exchange, or waits for whoever does, while the scheduler is as `still` says.
    ///
    /// It may ask for nothing but whether tasks are unfinished or workers are left.
    pub(crate) fn wait_while(&self, still: impl Fn(&Scheduler) -> bool) {
        self.wait(
            &mut || {
                // The lock is held by none of the callers of `ready`.
                let mut desk = self.lock();
                self.take_in(&mut desk);
                let ready = !still(&desk.scheduler);
                let me = std::thread::current();
                if !ready && desk.watching.iter().all(|thread| thread.id() != me.id()) {
                    desk.watching.push(me);
                }
                ready
            },
            None,
        );
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_armed(&self, desk: &mut Desk, armed: bool) {
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

    /// Takes what was handed in to the desk.
    fn take_in(&self, desk: &mut Desk) {
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
    fn follow_up(&self, mut desk: MutexGuard<'_, Desk>, now: Instant) {
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

    /// Only looks, or changes what nothing follows from.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Scheduler) -> R) -> R {
        look(&mut self.lock().scheduler)
    }

    /// Whoever sleeps must wake earlier if something is due earlier.
    fn check_alarm(&self, desk: &Desk) {
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
    fn turn<'a>(
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
            if events.iter().any(|event| event.key == BELL) {
                self.bell.silence();
                events.retain(|event| event.key != BELL);
            }
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
    fn react<'a>(&'a self, mut desk: MutexGuard<'a, Desk>, events: &mut Vec<Event>) -> MutexGuard<'a, Desk> {
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
    fn arm(&self, desk: &mut Desk) -> bool {
        let at_rest = self.tray.rest() && desk.scheduler.park();
        if at_rest {
            self.set_armed(desk, true);
            desk.listens = true;
            self.rests.store(true, Ordering::Relaxed);
        }
        at_rest
    }

    /// Sees to it that nothing waits for more to be handed in.
    fn hurry(&self) {
        if !self.tray.rest() {
            self.with(|_, _, _| {});
        }
    }

    /// Takes the vacant seat. Returns whether the pool has rested.
    fn take_seat(&self, desk: &mut Desk) -> bool {
        desk.taken = true;
        desk.owner = Some(std::thread::current().id());
        desk.warm = None;
        let rested = desk.listens;
        if rested {
            // The background poller may stay armed: who looks has nothing told.
            desk.listens = false;
            desk.scheduler.unpark();
            // What has happened until now the background poller has, or will have told of.
            desk.seen = Instant::now();
            desk.polled = desk.seen;
        }
        rested
    }

    /// Leaves the seat: to another thread that waits, or warm, to whoever comes next.
    fn leave_seat(&self, desk: &mut Desk) {
        desk.taken = false;
        desk.owner = None;
        desk.leavings += 1;
        self.offer_seat(desk);
        if buffer_cache::is_held()
            && desk.background_alarm.is_none_or(|alarm| alarm > Instant::now() + 2 * buffer_cache::REST)
        {
            self.ring_background();
        }
    }

    /// Sees to it that a vacant seat is not forgotten.
    fn offer_seat(&self, desk: &mut Desk) {
        if let Some(thread) = desk.parked.pop() {
            thread.unpark();
        } else if !desk.listens {
            let now = desk.seen;
            let hot = desk.left.replace(now).is_some_and(|left| now - left < WARM);
            // If nobody has been here for a while, the next may not come soon.
            if hot || !self.arm(desk) {
                desk.warm = Some(now + WARM);
            }
            self.check_alarm(desk);
        }
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
                    BACKGROUND_BELL => self.background_bell.silence(),
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

/// How long [`Driver::turn`] may wait.
enum Until {
    Now,
    Then(Option<Instant>),
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Gives the seat back, also when a user's logger panics.
struct Seat<'a>(&'a Driver);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let driver = self.0;
        driver.leave_seat(&mut driver.lock());
    }
}

impl Exchange for Driver {
    fn wait(&self, ready: &mut dyn FnMut() -> bool, deadline: Option<Instant>) -> bool {
        self.hurry();
        let mut events = Vec::new();
        loop {
            let is_ready = ready();
            let mut desk = self.lock();
            if is_ready || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                if !desk.taken {
                    // The seat may have been left to this thread, which has no use for it any more.
                    self.offer_seat(&mut desk);
                }
                return is_ready;
            }
            let me = std::thread::current();
            if desk.taken && desk.owner == Some(me.id()) {
                // A user's logger or waker, called by this very thread: it drives on from here.
                drop(self.turn(desk, &mut events, Until::Then(deadline)));
                continue;
            }
            if desk.taken {
                desk.parked.push(me.clone());
                drop(desk);
                match deadline {
                    Some(deadline) => {
                        std::thread::park_timeout(deadline.saturating_duration_since(Instant::now()))
                    }
                    None => std::thread::park(),
                }
                self.lock().parked.retain(|thread| thread.id() != me.id());
                continue;
            }
            let rested = self.take_seat(&mut desk);
            let seat = Seat(self);
            if rested {
                // A worker that was woken takes a while. What will be done with its reply is done once now, with nothing, and will take
                // half the time then.
                let polled = desk.polled;
                desk.scheduler.look(&self.workers, polled);
                desk = self.react(desk, &mut events);
            }
            drop(desk);
            // What came while the seat was somebody else's has been seen to, and nobody will tell of it again: look before sleeping.
            while !ready() && deadline.is_none_or(|deadline| deadline > Instant::now()) {
                drop(self.turn(self.lock(), &mut events, Until::Then(deadline)));
            }
            drop(seat);
        }
    }

    fn glance(&self) {
        self.hurry();
        let mut desk = self.lock();
        if desk.taken {
            return;
        }
        self.take_seat(&mut desk);
        let seat = Seat(self);
        drop(self.turn(desk, &mut Vec::new(), Until::Now));
        drop(seat);
    }

    fn watch(&self) {
        self.hurry();
        let mut desk = self.lock();
        if !desk.taken && !desk.listens && desk.parked.is_empty() {
            // The seat is kept warm for a caller's return; a future is none.
            desk.warm = None;
            if !self.arm(&mut desk) {
                self.ring_background();
            }
        }
    }

    fn cancel(&self, task: TaskId, function: &'static str) {
        self.with(|scheduler, poller, now| scheduler.cancel_task(task.0, function, poller, now));
    }
}

impl After {
    /// Prints, and calls the user's logger and wakers. One that panics has said so by its hook; the others are called all the same.
    fn run(mut self) {
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
