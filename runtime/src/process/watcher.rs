//! The watch: one thread that reads what processes say, completes their tasks, tends the launchers, and reaps.
//!
//! The thread exists while there is a [`Process`](super::Process) or a detached process still runs. No other thread reads. Threads
//! that wait for a process sleep on a condition variable. If a user's logger waits for a process on the watching thread, that thread
//! continues its work instead of sleeping. No thread may wait or read while it holds the lock of the [`Desk`].

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, ThreadId},
    time::{Duration, Instant},
};

use super::slot::{End, Order, ProcessSlot, Sole};
use crate::{
    error::{Error, Result},
    handle::{Drive, Wakes},
    id::{TaskId, WorkerId},
    launch::{
        LaunchError, LaunchRequest, Launcher, OUTPUT, Outputs, PROCESS, PolledLauncher, ResolvedOptions,
        StartMethod, Variable,
    },
    observe::{levels::levels, record::ForwardedRecord},
    protocol::{Hello, VERSION},
    registry,
    scheduler::restarts::{Intensity, Others, Restarts, Verdict},
    start,
    supervisor::state::Supervisor,
    sys::{
        generation::generation,
        identified::CLOSED,
        limits::explained,
        per_process::PerProcess,
        poll::{Bell, Poller},
        quiesce::{OwnThread, is_own_thread},
    },
    terminal::aside,
};

/// The key of the bell.
const BELL: u64 = u64::MAX;
/// The bit in the keys of launchers, which the keys of processes do not have.
const LAUNCHER: u64 = 1 << 63;
/// The numbers of processes are below this, because supervisors derive keys from them.
pub(super) const MOST_NUMBER: u32 = 1 << 30;
/// How many records are read from one process at a time, so that a process that logs without end does not keep others waiting.
const MOST_AT_A_TIME: usize = 64;
/// The longest time between two checks of the descriptors while a process runs. The kernel does not report a close.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Why no process is started.
pub(super) const FORKED: &str = "this process was forked from the one that was about to start it";
/// Practically forever.
const FAR: Duration = Duration::from_secs(1 << 30);

/// The watch of this process, while there is something to watch.
static HOME: PerProcess<Mutex<Home>> = PerProcess::new();

fn home() -> &'static Mutex<Home> {
    HOME.get_or_init(Mutex::default)
}

#[derive(Default)]
struct Home {
    watch: Option<Arc<Watch>>,
    /// The number of processes that have an owner.
    users: usize,
}

/// Keeps the watch alive.
pub(super) struct User(Option<Arc<Watch>>);

pub(super) struct Watch {
    desk: Mutex<Desk>,
    /// Notified when a process has ended or a launcher was tended.
    changed: Condvar,
    poller: Arc<Poller>,
    /// Wakes the thread.
    bell: Bell,
    thread: OnceLock<ThreadId>,
    /// The generation of the process that this belongs to.
    generation: u32,
    /// Other code has closed the descriptors. Their numbers are not used any more, and this is never dropped.
    is_closed: AtomicBool,
    /// A reference to itself.
    me: Weak<Self>,
}

/// The state under the lock. No thread waits or reads while it holds the lock.
pub(super) struct Desk {
    /// The processes. Only the watching thread locks one.
    pub(super) places: BTreeMap<u32, Arc<Mutex<ProcessSlot>>>,
    /// The launchers that are polled: those that were not ready to launch, and the template that processes share.
    launchers: BTreeMap<u64, Arc<dyn Launcher>>,
    next_launcher: u64,
    server: Option<Server>,
    /// The processes that have more to read, which no poller reports.
    pub(super) unread: BTreeSet<u32>,
    /// How many times launchers were tended.
    tended: u64,
    /// When the thread will wake by itself.
    pub(super) alarm: Option<Instant>,
    thread: Option<JoinHandle<()>>,
    stopping: bool,
}

/// A template for all processes with the same environment.
struct Server {
    env: Vec<Variable>,
    outputs: Outputs,
    start_timeout: Duration,
    launcher: Arc<dyn Launcher>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the launcher for this process. Under Fork it copies this process as it is now.
pub(super) fn launcher_of(order: &Order) -> Result<Arc<dyn Launcher>> {
    let ResolvedOptions { env, outputs, .. } = order.surroundings.clone();
    let launcher = start::launcher(order.method, None, env, outputs, order.start_timeout);
    Ok(Arc::from(launcher.map_err(Error::config)?))
}

impl Home {
    /// Ends the watch if there is nothing left to watch. Returns its thread.
    fn leave(&mut self, watch: &Arc<Watch>) -> Option<JoinHandle<()>> {
        let mut desk = watch.lock()?;
        if self.users > 0 || !desk.places.is_empty() {
            return None;
        }
        self.watch.take_if(|own| Arc::ptr_eq(own, watch))?;
        desk.stopping = true;
        let thread = desk.thread.take();
        // If its descriptors were closed, nothing can wake the thread. It then keeps the watch and touches nothing.
        thread.filter(|_| watch.ring())
    }
}

impl User {
    /// Returns the watch, which is started if there is none.
    ///
    /// # Errors
    ///
    /// The watch cannot be started.
    pub(super) fn new() -> Result<Self> {
        let mut home = lock(home());
        let watch = match &home.watch {
            Some(watch) if watch.is_whole() => watch.clone(),
            _ => {
                let new = Watch::start()?;
                // A watch whose descriptors were closed is never dropped.
                std::mem::forget(home.watch.replace(new.clone()));
                new
            }
        };
        home.users += 1;
        Ok(Self(Some(watch)))
    }

    pub(super) fn watch(&self) -> &Arc<Watch> {
        self.0.as_ref().expect("it is taken when this is dropped")
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let Some(watch) = self.0.take() else { return };
        if !watch.is_of_this_process() {
            return std::mem::forget(watch);
        }
        let mut home = lock(home());
        home.users -= 1;
        let thread = home.leave(&watch);
        drop(home);
        if !watch.is_whole() {
            return std::mem::forget(watch);
        }
        // One of our threads may be waiting for this one.
        if let Some(thread) = thread
            && !is_own_thread()
        {
            // It runs no code of users except loggers and wakers. If one of those panicked, that was reported.
            let _ = thread.join();
        }
    }
}

impl Watch {
    fn start() -> Result<Arc<Self>> {
        let failed = |error| Error::system("processes cannot be watched", explained(error));
        let mut watch = Self {
            desk: Mutex::new(Desk {
                places: BTreeMap::new(),
                launchers: BTreeMap::new(),
                next_launcher: LAUNCHER,
                server: None,
                unread: BTreeSet::new(),
                tended: 0,
                alarm: None,
                thread: None,
                stopping: false,
            }),
            changed: Condvar::new(),
            poller: Arc::new(Poller::new().map_err(failed)?),
            bell: Bell::new().map_err(failed)?,
            thread: OnceLock::new(),
            generation: generation(),
            is_closed: AtomicBool::new(false),
            me: Weak::new(),
        };
        watch.bell.add_to(&watch.poller, BELL).map_err(failed)?;
        let watch = Arc::new_cyclic(|me| {
            watch.me = me.clone();
            watch
        });
        let its_own = watch.clone();
        let thread = std::thread::Builder::new()
            .name("procession".to_owned())
            .spawn(move || _ = its_own.run())
            .map_err(failed)?;
        let _ = watch.thread.set(thread.thread().id());
        lock(&watch.desk).thread = Some(thread);
        Ok(watch)
    }

    /// Locks the desk. Returns `None` in a copy of the process that this belongs to.
    ///
    /// Loggers and wakers may fork and return in both processes. The copy waits for no lock, because one that another thread held
    /// stays locked in a copy, and touches neither the poller nor the processes.
    pub(super) fn lock(&self) -> Option<MutexGuard<'_, Desk>> {
        if self.is_of_this_process() {
            return Some(lock(&self.desk));
        }
        // The copy must not drop it either.
        std::mem::forget(self.me.upgrade());
        None
    }

    /// Returns whether this is not a copy in a process that was forked since, where descriptor numbers mean something else.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.generation == generation()
    }

    /// Returns whether no other code has closed the descriptors.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_closed.load(Ordering::Relaxed) && self.poller.is_whole()
    }

    /// Wakes the thread. Returns whether that was possible.
    pub(super) fn ring(&self) -> bool {
        !self.is_closed.load(Ordering::Relaxed) && self.bell.ring_in(&self.poller, BELL)
    }

    /// Handles that other code has closed the descriptors, whose numbers may be reused. Processes that have a result keep it, and
    /// all others fail.
    fn break_down(&self) {
        if self.is_closed.swap(true, Ordering::Relaxed) {
            return;
        }
        // Dropping it, or the launchers, would close numbers that may belong to others now.
        std::mem::forget(self.me.upgrade());
        let Some(mut desk) = self.lock() else { return };
        desk.tended += 1;
        let places = std::mem::take(&mut desk.places);
        drop(desk);
        let mut wakes = Wakes::default();
        for place in places.into_values() {
            lock(&place).abandon(&mut wakes);
            std::mem::forget(place);
        }
        self.changed.notify_all();
        wakes.wake_all();
    }

    fn is_own_thread(&self) -> bool {
        self.thread.get() == Some(&std::thread::current().id())
    }

    /// Returns the launcher that starts this process.
    pub(super) fn launcher(&self, order: &Order) -> Result<Arc<dyn Launcher>> {
        if order.method == StartMethod::Spawn {
            return launcher_of(order);
        }
        let mut desk = self.lock().ok_or_else(|| Error::config(FORKED))?;
        let ResolvedOptions { env, outputs, .. } = order.surroundings.clone();
        let start_timeout = order.start_timeout;
        match &desk.server {
            Some(server)
                if (&server.env, server.outputs, server.start_timeout) == (&env, outputs, start_timeout) =>
            {
                return Ok(server.launcher.clone());
            }
            _ => {}
        }
        let launcher = launcher_of(order)?;
        if desk.server.is_none() {
            let failed = |error| Error::system("a template cannot be watched", error);
            self.attend(&mut desk, &launcher).map_err(failed)?;
            desk.server = Some(Server { env, outputs, start_timeout, launcher: launcher.clone() });
        }
        Ok(launcher)
    }

    /// Has the thread tend a launcher from now on. Returns its key.
    fn attend(&self, desk: &mut Desk, launcher: &Arc<dyn Launcher>) -> io::Result<u64> {
        let key = desk.next_launcher;
        desk.next_launcher += 1;
        if let Some(fd) = launcher.poll_fd() {
            self.poller.add(fd, key)?;
        }
        desk.launchers.insert(key, launcher.clone());
        Ok(key)
    }

    pub(super) fn launch(
        &self,
        supervisor: &mut Supervisor<Sole>,
        launcher: &Arc<dyn Launcher>,
        order: &Order,
    ) -> Result<(), LaunchError> {
        // A logger that this thread calls while it waits may copy this process.
        let not_own = || LaunchError::Refused(FORKED.to_owned());
        let hello = Hello {
            version: VERSION,
            build_id: registry::build_id(),
            worker: WorkerId::ALONE.0,
            setup: order.surroundings.setup_alone(supervisor.id().0),
            log_level: levels().log,
        };
        let ResolvedOptions { env, outputs, .. } = &order.surroundings;
        let request = LaunchRequest { env, outputs: *outputs, key: 0 };
        let polled = PolledLauncher::new(launcher.clone(), self.poller.clone());
        let mut restarts = Restarts::new(Intensity::default(), order.start_timeout);
        let mut attended = None;
        let outcome = loop {
            let tended = self.lock().ok_or_else(not_own)?.tended;
            if !self.is_whole() {
                return Err(LaunchError::Refused(CLOSED.to_owned()));
            }
            let now = Instant::now();
            let deadline = now.checked_add(order.start_timeout).unwrap_or(now + FAR);
            match supervisor.launch(&polled, &request, &hello, now, deadline) {
                Ok(true) => break Ok(()),
                // The template from which it will be forked is being prepared.
                Ok(false) => {}
                Err(error) if error.is_shortage() => {
                    match restarts.short(now, Others::None, Instant::now()) {
                        Verdict::Retry => {
                            self.wait_until(&mut |_| false, restarts.not_before());
                            continue;
                        }
                        Verdict::GiveUp { starts, time } => {
                            break Err(LaunchError::Refused(format!(
                                "{error}; gave up after {starts} attempts in {time:.1?}"
                            )));
                        }
                    }
                }
                Err(error) => break Err(error),
            }
            let mut desk = self.lock().ok_or_else(not_own)?;
            let is_attended = desk.launchers.values().any(|attended| Arc::ptr_eq(attended, launcher));
            if !is_attended {
                attended = Some(self.attend(&mut desk, launcher)?);
            }
            drop(desk);
            self.wait_until(&mut |desk| desk.tended != tended, None);
        };
        if let Some(key) = attended {
            self.forget(key, launcher).ok_or_else(not_own)?;
        }
        outcome
    }

    /// Forgets a launcher that was for one process only. Its template makes no other ahead. Returns `None` in a copy of the process
    /// that this belongs to.
    fn forget(&self, key: u64, launcher: &Arc<dyn Launcher>) -> Option<()> {
        self.lock()?.launchers.remove(&key);
        if let Some(fd) = launcher.poll_fd() {
            self.poller.remove(fd);
        }
        Some(())
    }

    /// Waits until `is_so` returns `true`. Returns `false` if the deadline passed first, or at once in a copy of the process that this
    /// belongs to.
    fn wait_until(&self, is_so: &mut dyn FnMut(&Desk) -> bool, deadline: Option<Instant>) -> bool {
        let Some(mut desk) = self.lock() else { return false };
        while !is_so(&desk) {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return false;
            }
            if self.is_own_thread() {
                drop(desk);
                if self.turn(None, deadline).is_none() {
                    return false;
                }
                match self.lock() {
                    Some(locked) => desk = locked,
                    None => return false,
                }
                continue;
            }
            desk = match left {
                None => self.changed.wait(desk).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.changed.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        true
    }

    pub(super) fn wait_for(&self, end: &End) {
        self.wait_until(&mut |_| end.get().is_some(), None);
    }

    /// Runs until there is nothing left to watch. Returns `None` in a copy of this process that a logger or waker has made on this
    /// thread, where it is the only thread. Its end is then the end of the copy.
    fn run(self: &Arc<Self>) -> Option<()> {
        let mut thread = OwnThread::new();
        loop {
            self.turn(Some(&mut thread), None)?;
            if self.is_closed.load(Ordering::Relaxed) {
                return Some(());
            }
            if self.lock()?.places.is_empty() {
                // The last process may have been detached. Then no owner ends the watch.
                drop(lock(home()).leave(self));
            }
            if self.lock()?.stopping {
                return Some(());
            }
        }
    }

    /// Waits for an event or the deadline, and handles what happened. Returns `None` in a copy of the process that this belongs to.
    fn turn(&self, thread: Option<&mut OwnThread>, deadline: Option<Instant>) -> Option<()> {
        let mut events = Vec::new();
        let timeout = self.set_alarm(deadline)?;
        let mut wait = || self.poller.wait(&mut events, timeout);
        let waited = match thread {
            Some(thread) => thread.rest(wait),
            None => wait(),
        };
        if waited.is_err() {
            self.break_down();
            return Some(());
        }
        for event in events {
            match event.key {
                BELL => {}
                key if key & LAUNCHER != 0 => self.tend(key)?,
                key => {
                    let (number, kind) = Supervisor::<Sole>::place_and_kind(key);
                    let Ok(number) = u32::try_from(number) else { continue };
                    if kind == OUTPUT {
                        self.hear(number)?;
                    } else {
                        self.see(number, kind == PROCESS)?;
                    }
                }
            }
        }
        let unread = std::mem::take(&mut self.lock()?.unread);
        for number in unread {
            self.see(number, false)?;
        }
        let now = Instant::now();
        let places: Vec<_> =
            self.lock()?.places.iter().map(|(number, place)| (*number, place.clone())).collect();
        for (number, place) in places {
            let is_due =
                |place: &Mutex<ProcessSlot>| lock(place).supervisor.deadline().is_some_and(|at| at <= now);
            if is_due(&place) {
                // A process that is late may have shaken hands in time if this process was stopped since.
                self.see(number, false)?;
                lock(&place).on_deadline(now);
                if lock(&place).supervisor.is_given_up() {
                    self.see(number, true)?;
                }
            }
        }
        Some(())
    }

    /// Returns when the thread wakes by itself, or `None` if never, and records it.
    fn set_alarm(&self, deadline: Option<Instant>) -> Option<Option<Duration>> {
        let mut desk = self.lock()?;
        let deadlines = desk.places.values().filter_map(|place| lock(place).supervisor.deadline());
        let now = (!desk.unread.is_empty()).then(Instant::now);
        let is_in_use = !desk.places.is_empty() || !desk.launchers.is_empty();
        let look = is_in_use.then(|| Instant::now() + LOOK_EVERY);
        let alarm = deadlines.chain(deadline).chain(now).chain(look).min();
        desk.alarm = alarm;
        Some(alarm.map(|alarm| alarm.saturating_duration_since(Instant::now())))
    }

    fn tend(&self, key: u64) -> Option<()> {
        let launcher = self.lock()?.launchers.get(&key).cloned();
        if let Some(launcher) = launcher {
            launcher.tend();
        }
        self.lock()?.tended += 1;
        self.changed.notify_all();
        Some(())
    }

    /// Reads what a process has written.
    fn hear(&self, number: u32) -> Option<()> {
        let Some(place) = self.lock()?.places.get(&number).cloned() else { return Some(()) };
        let mut words = Vec::new();
        let mut place = lock(&place);
        let about = place.about();
        place.supervisor.read_output(|record, _| words.push(about.says(record)));
        drop(place);
        self.say(&words)
    }

    /// Reads what a process says, and reaps it if it has ended.
    fn see(&self, number: u32, has_ended: bool) -> Option<()> {
        let Some(place) = self.lock()?.places.get(&number).cloned() else { return Some(()) };
        for _ in 0..MOST_AT_A_TIME {
            let (now, mut place) = (Instant::now(), lock(&place));
            let about = place.about();
            let (mut words, paused) = place.read(now);
            let is_at_rest = !words.is_empty() || (!paused && place.supervisor.park());
            if has_ended && is_at_rest && words.is_empty() {
                place.supervisor.read_last_output(|record, _| words.push(about.says(record)));
            }
            if !words.is_empty() {
                // They are delivered before anything that the process said later is handled.
                drop(place);
                self.say(&words)?;
                continue;
            }
            if !is_at_rest {
                continue;
            }
            let exit_report = if has_ended { place.supervisor.reap(now) } else { None };
            if let Some(exit_report) = exit_report {
                #[cfg(feature = "tracing")]
                let pid = exit_report.pid;
                let wakes = place.finish(exit_report);
                drop(place);
                // Spans belong to the subscriber, which may panic, or copy this process, when they are closed.
                #[cfg(feature = "tracing")]
                let _ = catch_unwind(AssertUnwindSafe(|| crate::observe::tracing::forget(pid)));
                self.lock()?.places.remove(&number);
                self.changed.notify_all();
                wakes.wake_all();
            }
            return Some(());
        }
        self.lock()?.unread.insert(number);
        Some(())
    }

    /// Passes on what processes have said, to the logger and the subscriber. Returns `None` in a copy of this process that one of them
    /// has made, which passes on no more.
    fn say(&self, words: &[ForwardedRecord]) -> Option<()> {
        for words in words {
            let _ = catch_unwind(AssertUnwindSafe(|| aside(|| words.emit())));
            self.is_of_this_process().then_some(())?;
        }
        Some(())
    }
}

impl Drive for Watch {
    fn wait(&self, ready: &mut dyn FnMut() -> bool, deadline: Option<Instant>) -> bool {
        // The first look may drop a waker, which is code of users, and must not run while this is locked. Later looks find nothing to drop.
        ready() || self.wait_until(&mut |_| ready(), deadline)
    }

    /// The watch always works.
    fn glance(&self) {}

    fn watch(&self) {}

    /// A process is ended by its owner.
    fn cancel(&self, _task: TaskId, _function: &'static str) {}
}
