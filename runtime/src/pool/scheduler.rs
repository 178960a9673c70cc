//! Decides who runs what. Holds the queue and the workers; knows no thread that waits and calls nobody: the exchange (`drive`) locks
//! it, tells it what the poller saw, and carries out what it leaves in [`After`].
//!
//! Tasks wait in *lanes*: one for each call, and one for each thread that submits single tasks. Lanes take turns. A worker is given
//! as many tasks at a time as it should finish in [`BATCH`], by the measured time of the lane's tasks, and fewer towards the end of
//! a queue. What lies ready in a worker and has not begun can be had back: an idle worker, with nothing queued, gets it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::builder::Config;
use crate::{
    error::{Exit, POOL_ENDED, Place, TaskError, TaskErrorKind},
    handle::{Complete, Outcome, Wakes},
    id::{FunctionId, WorkerId},
    launch::{LaunchRequest, Launcher},
    protocol::{Hello, LogRecord, VERSION},
    registry,
    supervisor::{Obituary, Phase, Sendable, Step, Supervisor},
    sys::fd::{Event, Poller},
    task::Call,
};

/// A batch should take a worker about so long: long against a system call, short against a person's patience.
const BATCH: Duration = Duration::from_micros(200);
/// A worker is given more before it is idle if what it has will take it less than this.
const PREFETCH: Duration = Duration::from_micros(400);
/// No batch is larger.
const MOST_IN_BATCH: usize = 512;
/// A batch ends when its arguments are so many bytes: what was sent and is taken back has been sent for nothing. A task with more
/// goes alone, to an idle worker, and nothing goes behind it.
const BATCH_BYTES: usize = 256 << 10;
/// A worker that has shown nothing for so long, while others are idle, has to share what it has not begun.
const SHARE_AFTER: Duration = Duration::from_millis(1);
/// What another worker could do in less time is not worth moving.
const WORTH_MOVING: Duration = Duration::from_micros(100);
/// The task that a cancelled call is running has so long to end by itself before its process is killed.
const CANCEL_GRACE: Duration = Duration::from_millis(50);
/// So many starts may fail in a row before the pool gives up.
const MOST_FAILED_STARTS: u32 = 5;
/// The pause before a start is tried again; it doubles with each failure.
const FIRST_BACK_OFF: Duration = Duration::from_millis(10);

/// The name of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LaneId {
    /// One call.
    Call(u64),
    /// The single tasks of one thread.
    Thread(u64),
    /// Tasks that are bound to one worker each.
    Pinned,
}

/// A task that waits or runs, and where its result goes.
pub(super) struct Queued {
    pub(super) id: u64,
    pub(super) call: Call,
    pub(super) function: FunctionId,
    pub(super) to: Arc<dyn Complete>,
    /// Its place in its call; handles have none.
    pub(super) index: Option<usize>,
    pub(super) lane: LaneId,
    pub(super) attempts: u32,
    pub(super) retries: u32,
    /// Taken back while it runs: its process is killed at this time.
    pub(super) cancelled: Option<Instant>,
}

impl Sendable for Queued {
    /// What the worker knows it by: its index in its call, or its number in the pool.
    fn task(&self) -> u64 {
        self.index.map_or(self.id, |index| index as u64)
    }

    fn function(&self) -> FunctionId {
        self.function
    }

    fn args(&self) -> &[u8] {
        self.call.args.as_deref().unwrap_or_default()
    }
}

/// What a call has read from its input and not queued yet, to queue many at a time. The scheduler takes it when the call's queue has
/// run dry and a worker is idle, so that a producer that blocks holds nothing back.
#[derive(Default)]
pub(super) struct Feed(Mutex<Fed>);

#[derive(Default)]
struct Fed {
    tasks: Vec<Queued>,
    /// A worker is idle and found nothing here: the next task is to be queued at once.
    wanted: bool,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Fed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many there are now, and whether they are wanted at once.
    pub(super) fn push(&self, task: Queued) -> (usize, bool) {
        let mut fed = self.lock();
        fed.tasks.push(task);
        (fed.tasks.len(), fed.wanted)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().tasks.is_empty()
    }

    pub(super) fn take(&self) -> Vec<Queued> {
        let mut fed = self.lock();
        fed.wanted = false;
        std::mem::take(&mut fed.tasks)
    }

    /// Takes what is there, or has it noted that something is wanted.
    fn want(&self) -> Vec<Queued> {
        let mut fed = self.lock();
        fed.wanted = fed.tasks.is_empty();
        std::mem::take(&mut fed.tasks)
    }
}

/// The tasks of one caller.
struct Lane {
    /// What the caller has not queued yet.
    feed: Option<Arc<Feed>>,
    queue: VecDeque<Queued>,
    /// How many travel together, if the caller has said so.
    chunk: Option<usize>,
    /// How many workers it may use at a time.
    most_workers: usize,
    /// Nanoseconds a task, smoothed; `None` before the first result.
    pace: Option<f64>,
    /// Tasks in flight at each worker.
    at: BTreeMap<WorkerId, usize>,
    /// The caller may add more.
    open: bool,
}

impl Lane {
    /// How many tasks of this lane make a batch.
    fn batch(&self) -> usize {
        match (self.chunk, self.pace) {
            (Some(chunk), _) => chunk,
            (None, None) => 1,
            (None, Some(pace)) => {
                ((BATCH.as_nanos() as f64 / pace.max(1.0)) as usize).clamp(1, MOST_IN_BATCH)
            }
        }
    }

    /// How many of the first `most` tasks may travel together, by the size of their arguments.
    fn fitting(&self, most: usize) -> usize {
        let mut bytes = 0;
        let fit = self.queue.iter().take(most).take_while(|task| {
            bytes += task.args().len();
            bytes <= BATCH_BYTES
        });
        fit.count().max(1)
    }

    /// A task of this lane is no longer at this worker.
    fn leave(&mut self, worker: WorkerId) {
        if let Some(n) = self.at.get_mut(&worker) {
            *n -= 1;
            if *n == 0 {
                self.at.remove(&worker);
            }
        }
    }

    /// Nothing is in it and nobody adds to it.
    fn is_left(&self) -> bool {
        !self.open && self.queue.is_empty() && self.at.is_empty()
    }

    fn may_use(&self, worker: WorkerId) -> bool {
        self.at.contains_key(&worker) || self.at.len() < self.most_workers
    }

    /// How long a worker will take for `n` of these tasks, if that can be said.
    fn estimate(&self, n: usize) -> Option<Duration> {
        self.pace.map(|pace| Duration::from_nanos((pace * n as f64) as u64))
    }
}

/// What is to be done once the scheduler is unlocked.
#[derive(Default)]
pub(super) struct After {
    pub(super) logs: Vec<(LogRecord, WorkerId, u32)>,
    pub(super) wakes: Wakes,
}

impl After {
    pub(super) fn is_empty(&self) -> bool {
        self.logs.is_empty() && self.wakes.is_empty()
    }
}

/// The queue, the workers, and who is to do what.
pub(super) struct Scheduler {
    config: Arc<Config>,
    launcher: Box<dyn Launcher>,
    workers: Vec<Supervisor<Queued>>,
    /// How many workers there should be; those beyond leave when they are idle.
    target: usize,
    book: Book,
    next_id: u64,
    next_call: u64,
    /// Starts that have failed since the last worker that was of use.
    failed_starts: u32,
    /// No start is tried before this.
    not_before: Option<Instant>,
    closing: bool,
    /// Places whose worker has been read up to a record only: the rest is in memory, and no poller tells of it.
    unread: BTreeSet<usize>,
    after: After,
}

/// All of the scheduler but the workers: what can be changed while one of them is being read.
struct Book {
    lanes: BTreeMap<LaneId, Lane>,
    /// Lanes with something queued, in the order of their turns.
    turns: VecDeque<LaneId>,
    /// Lanes of calls, which may have tasks that are not queued yet.
    fed: Vec<LaneId>,
    queued: usize,
    /// Tasks that have no outcome yet.
    unfinished: usize,
    /// Tasks bound to one worker each.
    pinned: BTreeMap<WorkerId, VecDeque<Queued>>,
    /// When each worker last gave a sign of life while it had work.
    progress: BTreeMap<WorkerId, Instant>,
    /// Workers whose initializer runs.
    initializing: BTreeSet<WorkerId>,
    /// Why the pool takes no more tasks.
    broken: Option<TaskErrorKind>,
    /// The pool's name, for errors.
    name: Option<Arc<str>>,
}

/// Where an initializer's result goes: nowhere; its failure is seen as it passes.
struct Nowhere;

impl Complete for Nowhere {
    fn complete(&self, _index: usize, _outcome: Outcome<'_>, _wakes: &mut Wakes) {}
}

impl Scheduler {
    pub(super) fn new(config: Arc<Config>, launcher: Box<dyn Launcher>) -> Self {
        let mut scheduler = Self {
            workers: Vec::new(),
            target: 0,
            book: Book {
                lanes: BTreeMap::new(),
                turns: VecDeque::new(),
                fed: Vec::new(),
                queued: 0,
                unfinished: 0,
                pinned: BTreeMap::new(),
                progress: BTreeMap::new(),
                initializing: BTreeSet::new(),
                broken: None,
                name: config.name.as_deref().map(Arc::from),
            },
            next_id: 0,
            next_call: 0,
            failed_starts: 0,
            not_before: None,
            closing: false,
            unread: BTreeSet::new(),
            after: After::default(),
            launcher,
            config,
        };
        scheduler.resize(scheduler.config.jobs);
        scheduler
    }

    pub(super) fn jobs(&self) -> usize {
        self.target
    }

    /// Makes room for this many workers. Those beyond leave when they are idle.
    pub(super) fn resize(&mut self, jobs: usize) {
        self.target = jobs;
        while self.workers.len() < jobs {
            let id = WorkerId(u32::try_from(self.workers.len()).expect("`Jobs` has a limit far below"));
            self.workers.push(Supervisor::new(id));
        }
    }

    pub(super) fn after(&mut self) -> After {
        std::mem::take(&mut self.after)
    }

    pub(super) fn unfinished(&self) -> usize {
        self.book.unfinished
    }

    pub(super) fn is_empty_of_workers(&self) -> bool {
        self.workers.iter().all(Supervisor::is_vacant)
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Opens a lane for a call.
    pub(super) fn open_call(&mut self, chunk: Option<usize>, most_workers: usize, feed: Arc<Feed>) -> LaneId {
        let id = LaneId::Call(self.next_call);
        self.next_call += 1;
        // The first task goes at once.
        feed.want();
        self.book.lanes.insert(id, Lane { feed: Some(feed), ..Lane::new(chunk, most_workers) });
        self.book.fed.push(id);
        id
    }

    /// Queues what a call has not queued yet.
    pub(super) fn pull(&mut self, id: LaneId) {
        let feed = self.book.lanes.get(&id).and_then(|lane| lane.feed.as_ref());
        let tasks = feed.map(|feed| feed.take()).unwrap_or_default();
        self.enqueue_all(tasks);
    }

    /// With a worker that has nothing to do, the same for every call whose queue has run dry. Returns whether there was something.
    fn pull_for_the_idle(&mut self) -> bool {
        let has_time = |worker: &Supervisor<Queued>| worker.is_idle() || worker.is_vacant();
        if self.book.fed.is_empty() || !self.workers[..self.target].iter().any(has_time) {
            return false;
        }
        let before = self.book.queued;
        for at in (0..self.book.fed.len()).rev() {
            let id = self.book.fed[at];
            match self.book.lanes.get(&id) {
                Some(Lane { feed: Some(feed), queue, .. }) if queue.is_empty() => {
                    let tasks = feed.want();
                    self.enqueue_all(tasks);
                }
                Some(_) => {}
                None => {
                    self.book.fed.swap_remove(at);
                }
            }
        }
        self.book.queued > before
    }

    fn enqueue_all(&mut self, tasks: Vec<Queued>) {
        for mut task in tasks {
            task.id = self.next_id();
            self.enqueue(task);
        }
    }

    /// The caller adds no more. The lane goes with its last task.
    pub(super) fn close_call(&mut self, id: LaneId) {
        if let Some(lane) = self.book.lanes.get_mut(&id) {
            lane.open = false;
        }
        self.book.tidy(id);
    }

    /// How many tasks of this call make a batch now, and how many workers it can use.
    pub(super) fn batch_of(&self, id: LaneId) -> (usize, usize) {
        let lane = self.book.lanes.get(&id);
        let workers = self.target;
        lane.map_or((1, workers), |lane| (lane.batch(), lane.most_workers.min(workers)))
    }

    /// Queues a task, or completes it at once if it cannot run.
    pub(super) fn enqueue(&mut self, task: Queued) {
        let why_not = if self.closing {
            Some(TaskErrorKind::Cancelled { why: POOL_ENDED })
        } else if let Err(words) = &task.call.args {
            Some(TaskErrorKind::Codec { message: words.clone() })
        } else {
            self.book.broken.clone()
        };
        self.book.unfinished += 1;
        match why_not {
            Some(kind) => self.book.fail(task, kind, None, &mut self.after),
            None => self.book.push_back(task),
        }
    }

    /// Queues a task for each worker.
    pub(super) fn pin(&mut self, worker: WorkerId, task: Queued) {
        self.book.unfinished += 1;
        if let Some(kind) = self.book.broken.clone() {
            return self.book.fail(task, kind, None, &mut self.after);
        }
        self.book.pinned.entry(worker).or_default().push_back(task);
    }

    pub(super) fn worker_ids(&self) -> impl Iterator<Item = WorkerId> + use<> {
        (0..self.target as u32).map(WorkerId)
    }

    /// Reacts to what the poller saw.
    pub(super) fn handle(&mut self, events: &[Event], poller: &Poller, now: Instant) {
        for place in std::mem::take(&mut self.unread) {
            self.read(place, poller, now);
        }
        for event in events {
            let place = ((event.key & 0xffff_ffff) >> 1) as usize;
            if self.workers.get(place).is_some_and(|worker| worker.owns(event.key)) {
                self.workers[place].flush(poller);
                if self.read(place, poller, now) && event.key & 1 == 1 {
                    self.reap(place, poller, now);
                }
            }
        }
    }

    /// Reads a worker to the end, or to a record that must be out before what follows it is seen: until then it is read no further,
    /// and only whoever drives may read. Returns whether it came to the end.
    fn read(&mut self, place: usize, poller: &Poller, now: Instant) -> bool {
        let worker = &mut self.workers[place];
        let (id, pid) = (worker.id(), worker.pid().unwrap_or_default());
        let (book, after) = (&mut self.book, &mut self.after);
        if after.logs.iter().any(|(_, by, _)| *by == id) {
            self.unread.insert(place);
            return false;
        }
        let mut to_the_end = true;
        let mut started = false;
        let mut useful = false;
        let mut failed_to_initialize = None;
        worker.read(now, poller, |step| {
            match step {
                Step::Started => started = true,
                Step::Done { task, nanos, result } => {
                    useful = true;
                    if !book.initializing.remove(&id) {
                        book.done(task, nanos, Ok(result), id, after);
                    }
                }
                Step::Failed { task, nanos, fault } => {
                    useful = true;
                    if book.initializing.remove(&id) {
                        useful = false;
                        failed_to_initialize = Some((task, TaskErrorKind::from(fault)));
                        return std::ops::ControlFlow::Break(());
                    }
                    let error = book.error(&task, fault.into(), Some((id, pid)));
                    book.done(task, nanos, Err(error), id, after);
                }
                Step::Log(record) => {
                    after.logs.push((record, id, pid));
                    to_the_end = false;
                    return std::ops::ControlFlow::Break(());
                }
            }
            std::ops::ControlFlow::Continue(())
        });
        if !to_the_end {
            self.unread.insert(place);
        }
        if useful || started {
            self.book.progress.insert(id, now);
        }
        if started && let Some(call) = self.config.initializer.clone() {
            self.initialize(place, call, poller);
        }
        if useful {
            self.failed_starts = 0;
        }
        if let Some((_task, kind)) = failed_to_initialize {
            self.workers[place].dismiss(now, poller);
            self.start_failed(now, kind);
        }
        to_the_end
    }

    fn initialize(&mut self, place: usize, call: Call, poller: &Poller) {
        let Some(function) = registry::id_of(call.entry) else { return };
        let task = Queued {
            id: self.next_id(),
            call,
            function,
            to: Arc::new(Nowhere),
            index: None,
            lane: LaneId::Pinned,
            attempts: 1,
            retries: 0,
            cancelled: None,
        };
        let worker = &mut self.workers[place];
        self.book.initializing.insert(worker.id());
        worker.run(vec![task], log_level(), poller);
    }

    /// Collects a worker that has ended, and sees to the tasks that it had.
    fn reap(&mut self, place: usize, poller: &Poller, now: Instant) {
        let worker = &mut self.workers[place];
        let (id, pid) = (worker.id(), worker.pid().unwrap_or_default());
        let (book, after) = (&mut self.book, &mut self.after);
        let initializing = book.initializing.contains(&id);
        let obituary = worker.reap(now, poller, |step| {
            match step {
                // The initializer's own outcome is nobody's result.
                _ if initializing => {}
                Step::Done { task, nanos, result } => book.done(task, nanos, Ok(result), id, after),
                Step::Failed { task, nanos, fault } => {
                    let error = book.error(&task, fault.into(), Some((id, pid)));
                    book.done(task, nanos, Err(error), id, after);
                }
                Step::Started | Step::Log(_) => {}
            }
            std::ops::ControlFlow::Continue(())
        });
        let Some(obituary) = obituary else { return };
        self.book.progress.remove(&id);
        let initializing = self.book.initializing.remove(&id);
        let Obituary {
            pid,
            was,
            exit,
            cause,
            reason,
            mut panic,
            killed,
            running,
            waiting,
            unknown,
            was_useful,
        } = obituary;
        // Which of a worker's tasks ended it is known only where it could note what it began.
        let was_idle = running.is_empty() && unknown.is_empty();
        if initializing {
            let kind = crash(exit, cause, panic.take());
            if !killed {
                self.start_failed(now, kind);
            }
            return;
        }
        self.book.take_home(waiting, id);
        for mut task in running {
            self.book.leave(&task, id);
            let kind = if task.cancelled.is_some() {
                TaskErrorKind::Cancelled { why: "it was taken back while it ran, and its process killed" }
            } else if let Some(reason) = reason.as_ref().filter(|_| killed) {
                TaskErrorKind::Lost { message: format!("its worker was killed: {reason}") }
            } else {
                crash(exit, cause, panic.take())
            };
            let again = task.retries > 0 && matches!(kind, TaskErrorKind::Crash { .. }) && !self.closing;
            if again {
                task.retries -= 1;
                self.book.push_front(task);
            } else {
                self.book.fail(task, kind, Some((id, pid)), &mut self.after);
            }
        }
        if self.closing {
            // What the worker had not begun has gone back to the queue, which nobody serves any more.
            self.fail_queued(&TaskErrorKind::Cancelled { why: POOL_ENDED });
        }
        for task in unknown {
            self.book.leave(&task, id);
            let how = exit.map_or_else(String::new, |exit| format!(" ({exit})"));
            let kind = TaskErrorKind::Lost {
                message: format!("its worker has ended{how}, and nobody knows whether it ran"),
            };
            self.book.fail(task, kind, Some((id, pid)), &mut self.after);
        }
        let died_at_start = was == Phase::Starting || (was == Phase::Serving && was_idle && !was_useful);
        if died_at_start && !killed && !self.closing {
            let how = match (reason, exit) {
                (Some(reason), _) => reason,
                (None, Some(exit)) => format!("it ended with {exit}"),
                (None, None) => "it ended".to_owned(),
            };
            self.start_failed(
                now,
                TaskErrorKind::Lost { message: format!("no worker could be started: {how}") },
            );
        }
    }

    /// The system would not start a worker: as for [`start_failed`](Self::start_failed), but what comes later may have more luck.
    fn launch_failed(&mut self, now: Instant, error: &io::Error) {
        let message = format!("no worker could be started: {error}");
        self.start_failed(now, TaskErrorKind::Lost { message });
        if self.book.broken.take().is_some() {
            self.failed_starts = 0;
        }
    }

    /// One more start has failed: pause before the next, or give up.
    fn start_failed(&mut self, now: Instant, kind: TaskErrorKind) {
        self.failed_starts += 1;
        let initializing = &self.book.initializing;
        let some_serve =
            self.workers.iter().any(|worker| worker.is_live() && !initializing.contains(&worker.id()));
        if self.failed_starts < MOST_FAILED_STARTS || some_serve {
            let doublings = (self.failed_starts - 1).min(MOST_FAILED_STARTS + 2);
            self.not_before = Some(now + FIRST_BACK_OFF * 2u32.pow(doublings));
            return;
        }
        let kind = match kind {
            TaskErrorKind::Lost { message } => TaskErrorKind::Lost {
                message: format!("{message}; given up after {MOST_FAILED_STARTS} attempts"),
            },
            other => other,
        };
        self.book.broken = Some(kind.clone());
        self.fail_queued(&kind);
    }

    /// Completes everything that waits with one error.
    fn fail_queued(&mut self, kind: &TaskErrorKind) {
        let book = &mut self.book;
        let lanes: Vec<LaneId> = book.turns.drain(..).collect();
        for id in lanes {
            let queue =
                book.lanes.get_mut(&id).map(|lane| std::mem::take(&mut lane.queue)).unwrap_or_default();
            book.queued -= queue.len();
            for task in queue {
                book.fail(task, kind.clone(), None, &mut self.after);
            }
            book.tidy(id);
        }
        for task in std::mem::take(&mut book.pinned).into_values().flatten() {
            book.fail(task, kind.clone(), None, &mut self.after);
        }
    }

    /// When something is due though nobody says anything.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if !self.unread.is_empty() {
            return Some(Instant::now());
        }
        let workers = self.workers.iter().filter_map(Supervisor::deadline);
        let kills = self.workers.iter().filter_map(|worker| worker.newest()?.cancelled);
        let back_off = self.not_before.filter(|_| self.wants_workers());
        workers.chain(kills).chain(back_off).chain(self.sharing_deadline()).min()
    }

    fn wants_workers(&self) -> bool {
        (self.book.queued > 0 || !self.book.pinned.is_empty())
            && self.workers[..self.target].iter().any(Supervisor::is_vacant)
    }

    /// When the worker that has shown nothing for longest has to share.
    fn sharing_deadline(&self) -> Option<Instant> {
        if self.book.queued > 0 || !self.workers[..self.target].iter().any(Supervisor::is_idle) {
            return None;
        }
        let laden = self.workers.iter().filter(|worker| is_laden(worker));
        laden.filter_map(|worker| self.book.progress.get(&worker.id())).min().map(|&at| at + SHARE_AFTER)
    }

    /// Gives work to whoever can take it.
    pub(super) fn dispatch(&mut self, poller: &Poller, now: Instant) {
        if self.closing {
            return;
        }
        for worker in &mut self.workers[self.target..] {
            if worker.is_idle() {
                worker.drain(now);
            }
        }
        self.share(now);
        self.send_pinned(poller);
        self.fill(poller, now, |worker, _| worker.is_idle());
        self.launch(poller, now);
        self.fill(poller, now, has_room);
        while self.pull_for_the_idle() {
            self.fill(poller, now, |worker, _| worker.is_idle());
            self.launch(poller, now);
            self.fill(poller, now, has_room);
        }
    }

    /// Does what is due. Only whoever drives may call it, for it reads.
    pub(super) fn tend(&mut self, poller: &Poller, now: Instant) {
        for place in 0..self.workers.len() {
            let worker = &self.workers[place];
            let late = worker.is_starting() && worker.deadline().is_some_and(|at| at <= now);
            // One that is late may have shaken hands in time, and this process may have been stopped since.
            if (late || worker.is_look_due(now)) && !self.read(place, poller, now) {
                continue;
            }
            self.workers[place].on_deadline(now);
            let is_overdue = |worker: &Supervisor<Queued>| {
                worker.newest().and_then(|task| task.cancelled).is_some_and(|at| at <= now)
            };
            if is_overdue(&self.workers[place]) {
                // It may have ended since.
                self.workers[place].look_now(now);
                if self.read(place, poller, now) && is_overdue(&self.workers[place]) {
                    self.workers[place].kill();
                    // Its end is what comes next; the deadline has done its work.
                    if let Some(task) = self.workers[place].newest_mut() {
                        task.cancelled = Some(now + CANCEL_GRACE);
                    }
                }
            }
        }
    }

    fn send_pinned(&mut self, poller: &Poller) {
        if self.book.pinned.is_empty() {
            return;
        }
        for worker in &mut self.workers {
            if worker.is_idle()
                && !self.book.initializing.contains(&worker.id())
                && let Some(queue) = self.book.pinned.get_mut(&worker.id())
            {
                let tasks = queue.drain(..).map(Queued::begun_once_more).collect();
                worker.run(tasks, log_level(), poller);
                self.book.pinned.remove(&worker.id());
            }
        }
    }

    /// An idle worker with nothing queued gets what a laden one has not begun.
    fn share(&mut self, now: Instant) {
        if self.book.queued > 0 || !self.workers[..self.target].iter().any(Supervisor::is_idle) {
            return;
        }
        let book = &mut self.book;
        let laden = self.workers.iter_mut().filter(|worker| is_laden(worker)).filter(|worker| {
            let waiting = worker.in_flight_len() - 1;
            let lane = worker.in_flight().nth(1).and_then(|task| book.lanes.get(&task.lane));
            let long = lane.and_then(|lane| lane.estimate(waiting)).is_none_or(|time| time >= WORTH_MOVING);
            long || book.progress.get(&worker.id()).is_none_or(|&at| at + SHARE_AFTER <= now)
        });
        let Some(worker) = laden.max_by_key(|worker| worker.in_flight_len()) else { return };
        let id = worker.id();
        book.take_home(worker.take_back(), id);
        // Tasks that the worker would not give back have begun; asking again before it says something is no use.
        book.progress.insert(id, now);
    }

    /// Gives each worker that `wants` it a batch of the lane whose turn it is.
    fn fill(&mut self, poller: &Poller, now: Instant, wants: impl Fn(&Supervisor<Queued>, &Lane) -> bool) {
        let live = self.workers.iter().filter(|worker| worker.is_live()).count().max(1);
        for worker in &mut self.workers[..self.target] {
            if self.book.queued == 0 {
                return;
            }
            // Nothing is sent behind a task that was taken back: its process may be killed any moment.
            let is_doomed = worker.newest().is_some_and(|task| task.cancelled.is_some());
            if !worker.is_live() || is_doomed || self.book.initializing.contains(&worker.id()) {
                continue;
            }
            let id = worker.id();
            let turn = self.book.turns.iter().position(|lane| {
                let lane = &self.book.lanes[lane];
                lane.may_use(id) && wants(worker, lane)
            });
            let Some(lane_id) = turn.and_then(|turn| self.book.turns.remove(turn)) else { continue };
            let lane = self.book.lanes.get_mut(&lane_id).expect("a lane with a turn is there");
            let share = lane.queue.len().div_ceil(if lane.chunk.is_some() { 1 } else { live * 2 });
            let n = lane.fitting(lane.batch().min(share).max(1));
            let tasks: Vec<Queued> = lane.queue.drain(..n).map(Queued::begun_once_more).collect();
            *lane.at.entry(id).or_insert(0) += n;
            if !lane.queue.is_empty() {
                self.book.turns.push_back(lane_id);
            }
            self.book.queued -= n;
            if worker.is_idle() {
                self.book.progress.insert(id, now);
            }
            worker.run(tasks, log_level(), poller);
        }
    }

    /// Starts workers for what is queued and nobody idle could take.
    fn launch(&mut self, poller: &Poller, now: Instant) {
        if !self.wants_workers() || self.not_before.is_some_and(|at| at > now) || self.book.broken.is_some() {
            return;
        }
        let most = self.book.turns.iter().map(|id| {
            let lane = &self.book.lanes[id];
            lane.queue.len().min(lane.most_workers.saturating_sub(lane.at.len()))
        });
        let starting = self.workers.iter().filter(|worker| worker.is_starting()).count();
        let mut wanted = most.sum::<usize>().saturating_sub(starting);
        for place in 0..self.target {
            let worker = &self.workers[place];
            let pinned = self.book.pinned.contains_key(&worker.id());
            if !worker.is_vacant() || (wanted == 0 && !pinned) {
                continue;
            }
            if let Err(error) = self.launch_at(place, poller, now) {
                self.launch_failed(now, &error);
                return;
            }
            wanted = wanted.saturating_sub(1);
        }
    }

    fn launch_at(&mut self, place: usize, poller: &Poller, now: Instant) -> io::Result<()> {
        let worker = &mut self.workers[place];
        let hello = Hello {
            version: VERSION,
            build_id: registry::build_id(),
            worker: worker.id().0,
            current_dir: self.config.current_dir.clone(),
            log_level: log_level(),
        };
        let request = LaunchRequest { env: &self.config.env };
        worker.launch(&*self.launcher, &request, &hello, poller, now + self.config.start_timeout)
    }

    /// Drops what is queued of a call, and has what runs of it end.
    pub(super) fn cancel_call(&mut self, id: LaneId, poller: &Poller, now: Instant) {
        let why = "its call has ended";
        if let Some(lane) = self.book.lanes.get_mut(&id) {
            lane.open = false;
            let queue = std::mem::take(&mut lane.queue);
            self.book.queued -= queue.len();
            self.book.turns.retain(|turn| *turn != id);
            for task in queue {
                self.book.fail(task, TaskErrorKind::Cancelled { why }, None, &mut self.after);
            }
        }
        self.cancel_where(|task| task.lane == id, why, now + CANCEL_GRACE);
        self.book.tidy(id);
        self.dispatch(poller, now);
    }

    /// Takes one task back, wherever it is.
    pub(super) fn cancel_task(&mut self, id: u64, poller: &Poller, now: Instant) {
        let why = "it was taken back before it began";
        let book = &mut self.book;
        let found = book.lanes.iter().find_map(|(lane, tasks)| {
            tasks.queue.iter().position(|task| task.id == id).map(|at| (*lane, at))
        });
        if let Some((lane, at)) = found {
            if let Some(task) = book.remove(lane, at) {
                book.fail(task, TaskErrorKind::Cancelled { why }, None, &mut self.after);
            }
            book.tidy(lane);
        } else {
            self.cancel_where(|task| task.id == id, why, now);
        }
        self.dispatch(poller, now);
    }

    /// Takes back what is in flight and matches. What has begun is killed at `kill_at`.
    fn cancel_where(&mut self, matches: impl Fn(&Queued) -> bool, why: &'static str, kill_at: Instant) {
        for worker in &mut self.workers {
            if !worker.in_flight().any(&matches) {
                continue;
            }
            let id = worker.id();
            let (gone, kept): (Vec<_>, Vec<_>) = worker.take_back().into_iter().partition(&matches);
            self.book.take_home(kept, id);
            for mut task in gone {
                task.attempts -= 1;
                self.book.leave(&task, id);
                self.book.fail(task, TaskErrorKind::Cancelled { why }, None, &mut self.after);
            }
            // All that is left has begun, and all but the newest has ended.
            if let Some(task) = worker.newest_mut().filter(|task| matches(task)) {
                task.cancelled = Some(kill_at);
            }
        }
    }

    /// The pool ends: nothing queued runs any more, busy workers are killed, idle ones leave.
    pub(super) fn close(&mut self, now: Instant) {
        self.closing = true;
        self.fail_queued(&TaskErrorKind::Cancelled { why: POOL_ENDED });
        for worker in &mut self.workers {
            for task in worker.in_flight_mut() {
                task.cancelled = Some(now + CANCEL_GRACE);
            }
            if worker.is_idle() {
                worker.drain(now);
            } else {
                worker.kill();
            }
        }
    }
}

impl Lane {
    fn new(chunk: Option<usize>, most_workers: usize) -> Self {
        Self {
            feed: None,
            queue: VecDeque::new(),
            chunk,
            most_workers,
            pace: None,
            at: BTreeMap::new(),
            open: true,
        }
    }
}

impl Queued {
    fn begun_once_more(mut self) -> Self {
        self.attempts += 1;
        self
    }

    fn place(&self, worker: Option<(WorkerId, u32)>) -> Place {
        Place { index: self.index, attempts: self.attempts, worker }
    }
}

impl Book {
    fn lane(&mut self, id: LaneId) -> &mut Lane {
        self.lanes.entry(id).or_insert_with(|| Lane { open: false, ..Lane::new(None, usize::MAX) })
    }

    fn push_back(&mut self, task: Queued) {
        let id = task.lane;
        let lane = self.lane(id);
        if lane.queue.is_empty() {
            lane.queue.push_back(task);
            self.turns.push_back(id);
        } else {
            lane.queue.push_back(task);
        }
        self.queued += 1;
    }

    /// A task that was sent and not begun goes before those that never were.
    fn push_front(&mut self, task: Queued) {
        let id = task.lane;
        let lane = self.lane(id);
        let first = lane.queue.is_empty();
        lane.queue.push_front(task);
        if first {
            self.turns.push_front(id);
        }
        self.queued += 1;
    }

    /// Tasks that were sent to this worker and have not begun wait again, before those that were never sent, in their order.
    fn take_home(&mut self, tasks: Vec<Queued>, worker: WorkerId) {
        for mut task in tasks.into_iter().rev() {
            task.attempts -= 1;
            self.leave(&task, worker);
            if task.lane == LaneId::Pinned {
                self.pinned.entry(worker).or_default().push_front(task);
            } else {
                self.push_front(task);
            }
        }
    }

    fn remove(&mut self, id: LaneId, at: usize) -> Option<Queued> {
        let lane = self.lanes.get_mut(&id)?;
        let task = lane.queue.remove(at)?;
        self.queued -= 1;
        if lane.queue.is_empty() {
            self.turns.retain(|turn| *turn != id);
        }
        Some(task)
    }

    /// The task is no longer at this worker.
    fn leave(&mut self, task: &Queued, worker: WorkerId) {
        if let Some(lane) = self.lanes.get_mut(&task.lane) {
            lane.leave(worker);
        }
    }

    /// A task has its outcome from a worker.
    fn done(&mut self, task: Queued, nanos: u64, outcome: Outcome<'_>, worker: WorkerId, after: &mut After) {
        let mut is_left = false;
        if let Some(lane) = self.lanes.get_mut(&task.lane) {
            let nanos = nanos as f64;
            lane.pace = Some(lane.pace.map_or(nanos, |pace| pace + (nanos - pace) / 8.0));
            lane.leave(worker);
            is_left = lane.is_left();
        }
        self.unfinished -= 1;
        task.to.complete(task.index.unwrap_or_default(), outcome, &mut after.wakes);
        if is_left {
            self.tidy(task.lane);
        }
    }

    fn fail(
        &mut self,
        task: Queued,
        kind: TaskErrorKind,
        worker: Option<(WorkerId, u32)>,
        after: &mut After,
    ) {
        let error = self.error(&task, kind, worker);
        self.complete(&task, Err(error), after);
    }

    fn error(&self, task: &Queued, kind: TaskErrorKind, worker: Option<(WorkerId, u32)>) -> TaskError {
        TaskError::new(task.call.entry.name, kind, task.place(worker)).in_pool(self.name.as_ref())
    }

    fn complete(&mut self, task: &Queued, outcome: Outcome<'_>, after: &mut After) {
        self.unfinished -= 1;
        task.to.complete(task.index.unwrap_or_default(), outcome, &mut after.wakes);
        self.tidy(task.lane);
    }

    /// A lane that nothing is in and nobody adds to goes.
    fn tidy(&mut self, id: LaneId) {
        if self.lanes.get(&id).is_some_and(Lane::is_left) {
            // A thread's lane keeps its pace for the next task.
            if !matches!(id, LaneId::Thread(_)) || self.lanes.len() > MOST_RESTING_LANES {
                self.lanes.remove(&id);
            }
        }
    }
}

/// Threads that have come and gone leave no more lanes than this.
const MOST_RESTING_LANES: usize = 256;

/// Others could run what this worker has not begun. Pinned tasks, which none else may run, are sent to idle workers only, so that
/// they are the oldest.
fn is_laden(worker: &Supervisor<Queued>) -> bool {
    worker.in_flight_len() > 1 && worker.newest().is_some_and(|task| task.lane != LaneId::Pinned)
}

fn has_room(worker: &Supervisor<Queued>, lane: &Lane) -> bool {
    let fills = |task: &Queued| task.args().len() > BATCH_BYTES;
    if worker.newest().is_some_and(fills) || (!worker.is_idle() && lane.queue.front().is_some_and(fills)) {
        return false;
    }
    let n = worker.in_flight_len();
    match lane.chunk {
        Some(chunk) => n < chunk,
        None => n < 2 * MOST_IN_BATCH && lane.estimate(n).is_some_and(|time| time < PREFETCH),
    }
}

/// What the death of a worker says of the task that it was running.
fn crash(
    exit: Option<Exit>,
    cause: Option<&'static str>,
    panic: Option<crate::panic::RemotePanic>,
) -> TaskErrorKind {
    const SIGABRT: i32 = nix::libc::SIGABRT;
    match (panic, exit) {
        (Some(panic), Some(end)) if end.signal() == Some(SIGABRT) && cause.is_none() => {
            TaskErrorKind::Panic { panic, exit }
        }
        _ => TaskErrorKind::Crash { exit, cause },
    }
}

fn log_level() -> u8 {
    log::max_level() as u8
}
