//! Decides who runs what. Holds the queue and the workers; knows no thread that waits and calls nobody: the exchange (`drive`) locks
//! it, tells it what the poller saw, and carries out what it leaves in [`After`].
//!
//! Tasks wait in *lanes*: one for each call, and one for each thread that submits single tasks. Lanes take turns. A worker is given
//! as many tasks at a time as it should finish in 200 µs, by the measured time of the lane's tasks, and fewer towards the end of
//! a queue. What lies ready in a worker and has not begun can be had back: an idle worker, with nothing queued, gets it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    book::{After, Book},
    builder::Config,
    lane::{BATCH_BYTES, Feed, Lane, LaneId, MOST_IN_BATCH, Queued},
};
use crate::{
    error::{POOL_ENDED, TaskErrorKind},
    id::WorkerId,
    launch::{LaunchRequest, Launcher},
    protocol::{Hello, VERSION},
    registry,
    supervisor::{Sendable, Supervisor},
    sys::fd::Poller,
};

/// A worker is given more before it is idle if what it has will take it less than this.
const PREFETCH: Duration = Duration::from_micros(400);
/// A worker that has shown nothing for so long, while others are idle, has to share what it has not begun.
const SHARE_AFTER: Duration = Duration::from_millis(1);
/// What another worker could do in less time is not worth moving.
const WORTH_MOVING: Duration = Duration::from_micros(100);
/// The task that a cancelled call is running has so long to end by itself before its process is killed.
pub(super) const CANCEL_GRACE: Duration = Duration::from_millis(50);

/// The queue, the workers, and who is to do what.
pub(super) struct Scheduler {
    pub(super) config: Arc<Config>,
    pub(super) launcher: Box<dyn Launcher>,
    pub(super) workers: Vec<Supervisor<Queued>>,
    /// How many workers there should be; those beyond leave when they are idle.
    pub(super) target: usize,
    pub(super) book: Book,
    pub(super) next_id: u64,
    pub(super) next_call: u64,
    /// Starts that have failed since the last worker that was of use.
    pub(super) failed_starts: u32,
    /// No start is tried before this.
    pub(super) not_before: Option<Instant>,
    pub(super) closing: bool,
    /// Places whose worker has been read up to a record only: the rest is in memory, and no poller tells of it.
    pub(super) unread: BTreeSet<usize>,
    pub(super) after: After,
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
        self.book.unfinished += 1;
        match self.why_not(&task) {
            Some(kind) => self.book.fail(task, kind, None, &mut self.after),
            None => self.book.push_back(task),
        }
    }

    /// As [`enqueue`](Self::enqueue), for a task that only this worker may run.
    pub(super) fn pin(&mut self, worker: WorkerId, task: Queued) {
        self.book.unfinished += 1;
        match self.why_not(&task) {
            Some(kind) => self.book.fail(task, kind, None, &mut self.after),
            None => self.book.pinned.entry(worker).or_default().push_back(task),
        }
    }

    /// Why a task cannot run at all, if it cannot.
    fn why_not(&self, task: &Queued) -> Option<TaskErrorKind> {
        if self.closing {
            return Some(TaskErrorKind::Cancelled { why: POOL_ENDED });
        }
        match &task.call.args {
            Err(words) => Some(TaskErrorKind::Codec { message: words.clone() }),
            Ok(_) => self.book.broken.clone(),
        }
    }

    pub(super) fn worker_ids(&self) -> impl Iterator<Item = WorkerId> + use<> {
        (0..self.target as u32).map(WorkerId)
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
        loop {
            self.fill(poller, now, |worker, _| worker.is_idle());
            self.launch(poller, now);
            self.fill(poller, now, has_room);
            if !self.pull_for_the_idle() {
                return;
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
        self.not_before = None;
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
            match self.launch_at(place, poller, now) {
                Ok(()) => {}
                // The launcher tells when it is ready.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.launch_failed(now, &error),
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

pub(super) fn log_level() -> u8 {
    log::max_level() as u8
}
