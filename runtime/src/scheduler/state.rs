//! Decides who runs what. Holds the queue and the workers; knows no thread that waits and calls nobody: the exchange (`drive`) locks
//! it, tells it what the poller saw, and carries out what it leaves in [`After`].
//!
//! Tasks wait in *lanes*: one for each call, and one for each thread that submits single tasks. Lanes take turns. A worker is given
//! as many tasks at a time as it should finish in 200 µs, by the measured time of the lane's tasks, and fewer towards the end of
//! a queue. What lies ready in a worker and has not begun can be had back: an idle worker, with nothing queued, gets it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use super::{
    config::Config,
    queue::{BATCH, BATCH_BYTES, Feed, Lane, LaneId, MOST_IN_BATCH, Parcel, Recipient, Single},
    queues::{After, Book},
    restarts::{Restarts, Streak},
    retire::Leaving,
    workers::Crew,
};
use crate::{
    context::seed_of_singles,
    error::{POOL_ENDED, TaskErrorKind},
    id::WorkerId,
    launch::{LaunchError, LaunchRequest, Launcher},
    observe::{
        stats::{Ending, Endings, Slowest, Stats},
        timeline::{self, Timeline},
    },
    protocol::{Hello, Levels, Orders, VERSION},
    registry,
    supervisor::state::{Load, Supervisor},
    sys::{memory::oom_kills, poll::Poller, procfs::peak_rss_bytes},
};

/// A worker is given more before it is idle if what it has will take it less than this.
const PREFETCH: Duration = Duration::from_micros(400);
/// A worker that has shown nothing for so long, while others are idle, has to share what it has not begun.
pub(crate) const SHARE_AFTER: Duration = Duration::from_millis(1);
/// A worker that has only short tasks and has shown nothing for so long has met with a long one: had it only lost its core to another,
/// it would have it back.
const STALLS_AFTER: Duration = Duration::from_millis(4);
/// It is not waited for longer than this.
const MOST_SHARE_AFTER: Duration = Duration::from_millis(100);
/// What another worker could do in less time is not worth moving.
const WORTH_MOVING: Duration = Duration::from_micros(100);
/// A reply that is expected within this time is waited for without sleeping, if there is a core to wait on.
const NEAR: Duration = Duration::from_micros(50);
/// A caller that was told that its next task is wanted may have missed it for so long.
const LOOK_AT_FEEDS_AFTER: Duration = Duration::from_millis(1);
/// What becomes of a task that was taken back while it ran.
const STOPPED: &str = "it was taken back while it ran";

/// So many workers a core that get on with short tasks are a crowd: whether they leave cores idle is looked at.
const CROWD: usize = 2;
/// And so often: what the kernel says of a worker that is running may be a tick old.
const LOOK_AT_CORES_EVERY: Duration = Duration::from_millis(50);

/// The queue, the workers, and who is to do what.
pub(crate) struct Scheduler {
    pub(crate) config: Arc<Config>,
    pub(crate) launcher: Box<dyn Launcher>,
    pub(crate) workers: Crew,
    /// How many workers there should be; those beyond leave when they are idle.
    pub(crate) target: usize,
    pub(crate) book: Book,
    /// The number of the next task.
    next_id: Arc<AtomicU64>,
    pub(crate) next_call: u64,
    /// The CPUs that this process may use.
    cpus: usize,
    /// The seed of what is no call's.
    pub(crate) seed: u64,
    /// Starts that have failed.
    pub(crate) restarts: Restarts,
    /// Starts that failed one after the other while tasks waited that only those workers may run.
    pub(crate) pinned: Option<Streak>,
    /// As [`SHARE_AFTER`]; doubled each time that something was moved, until there is a result.
    pub(crate) share_after: Duration,
    /// It was said why workers are not talked to through shared memory.
    said_why_slow: bool,
    /// The time for which all workers have had a core, when it was looked at last.
    cores_seen: Option<(Instant, Duration)>,
    /// They have left half of the cores' time unused since the look before.
    cores_are_idle: bool,
    pub(crate) closing: bool,
    /// Places whose worker has been read up to a record only: the rest is in memory, and no poller tells of it.
    pub(crate) unread: BTreeSet<usize>,
    /// There are, or were, tasks that may run for a limited time.
    has_limits: bool,
    /// Processes that the kernel had killed for want of memory when this was last looked at: first when a worker was started.
    pub(crate) oom_kills: Option<u64>,
    pub(crate) leaving: Leaving,
    pub(crate) after: After,
}

impl Scheduler {
    pub(crate) fn new(config: Arc<Config>, launcher: Box<dyn Launcher>) -> Self {
        let mut scheduler = Self {
            workers: Crew::default(),
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
                overdue: BTreeSet::new(),
                look_at_feeds: None,
                given_up: None,
                task_timeout: config.task_timeout,
                name: config.name.as_deref().map(Arc::from),
                tallies: Vec::new(),
                unserved: Endings::default(),
                slowest: Slowest::default(),
                timeline: Timeline::open(config.name.as_deref()),
            },
            next_id: Arc::default(),
            next_call: 0,
            seed: seed_of_singles(config.seed),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            restarts: Restarts::new(config.max_restarts, config.start_timeout),
            pinned: None,
            share_after: SHARE_AFTER,
            said_why_slow: false,
            cores_seen: None,
            cores_are_idle: false,
            closing: false,
            unread: BTreeSet::new(),
            has_limits: config.task_timeout.is_some(),
            oom_kills: None,
            leaving: Leaving::default(),
            after: After::default(),
            launcher,
            config,
        };
        scheduler.resize(scheduler.config.jobs);
        scheduler
    }

    pub(crate) fn jobs(&self) -> usize {
        self.target
    }

    /// What the workers have done so far.
    pub(crate) fn stats(&mut self, now: Instant) -> Stats {
        let (workers, book) = (&self.workers, &mut self.book);
        let of_each = (0..workers.len()).map(|place| &workers[place]).map(|worker| {
            let (id, pid) = (worker.id(), worker.pid());
            let tally = book.tally(id);
            tally.has_had(worker.ask(peak_rss_bytes).unwrap_or(0));
            tally.stats(id, pid, worker.traffic(), now)
        });
        let of_each = of_each.collect();
        Stats::new(of_each, book.unserved, book.slowest.all())
    }

    /// Makes room for this many workers. Those beyond leave when they are idle.
    pub(crate) fn resize(&mut self, jobs: usize) {
        self.target = jobs;
        while self.workers.len() < jobs {
            let id = WorkerId(u32::try_from(self.workers.len()).expect("`Jobs` has a limit far below"));
            self.workers.push(Supervisor::new(id));
        }
        // What those that leave have not begun others may run.
        for place in jobs..self.workers.len() {
            let worker = &mut self.workers[place];
            let id = worker.id();
            if !self.book.initializing.contains(&id) && !self.leaving.is_finalizing(id) {
                self.book.take_home(worker.take_back(), id);
            }
        }
    }

    pub(crate) fn after(&mut self) -> After {
        std::mem::take(&mut self.after)
    }

    pub(crate) fn unfinished(&self) -> usize {
        self.book.unfinished
    }

    pub(crate) fn is_empty_of_workers(&self) -> bool {
        self.workers.is_vacant()
    }

    /// Where numbers of tasks come from.
    pub(crate) fn numbers(&self) -> Arc<AtomicU64> {
        self.next_id.clone()
    }

    /// Has so many tasks of a call travel together.
    pub(crate) fn set_chunk_size(&mut self, id: LaneId, tasks: usize) {
        if let Some(lane) = self.book.lanes.get_mut(&id) {
            lane.chunk = Some(tasks);
        }
    }

    /// Opens a lane for a call.
    pub(crate) fn open_call(
        &mut self,
        chunk: Option<usize>,
        most_workers: usize,
        timeout: Option<Duration>,
        seed: u64,
        feed: Feed,
    ) -> LaneId {
        let id = LaneId::Call(self.next_call);
        self.next_call += 1;
        let timeout = timeout.or(self.config.task_timeout);
        self.has_limits |= timeout.is_some();
        let mut lane = Lane::of_call(chunk, most_workers, timeout, feed);
        lane.seed = Some(seed);
        self.book.lanes.insert(id, lane);
        self.book.fed.push(id);
        id
    }

    /// Queues what a call has not queued yet; its caller, which calls this, has added so many tasks to its feed in all.
    pub(crate) fn pull(&mut self, id: LaneId, added: u64) {
        let taken = self.book.lanes.get_mut(&id).and_then(|lane| lane.pull_all(id, added));
        if let Some(parcel) = taken {
            self.enqueue(parcel);
        }
    }

    /// Queues a task of a call apart from the others, all of which are queued.
    pub(crate) fn enqueue_apart(&mut self, id: LaneId, mut parcel: Parcel) {
        if let Some(feed) = self.book.lanes.get_mut(&id).and_then(|lane| lane.feed.as_mut()) {
            parcel.first = feed.skip();
        }
        self.enqueue(parcel);
    }

    /// A task has come to this without having been queued.
    pub(crate) fn refused(&mut self, kind: &TaskErrorKind) {
        self.book.unserved.add(Ending::of(kind), 1);
    }

    /// The next task of a call has come to this without having been queued.
    pub(crate) fn skip(&mut self, id: LaneId, kind: &TaskErrorKind) {
        self.refused(kind);
        if let Some(feed) = self.book.lanes.get_mut(&id).and_then(|lane| lane.feed.as_mut()) {
            feed.skip();
        }
    }

    /// With a worker that has nothing to do, takes what calls whose queue has run dry have not queued. Returns whether there was
    /// something.
    fn pull_for_the_idle(&mut self, now: Instant) -> bool {
        // Whatever comes of it: what is due and stays due has somebody wake all the time. Should a worker have time later, this is asked
        // again.
        if self.book.look_at_feeds.is_some_and(|at| at <= now) {
            self.book.look_at_feeds = None;
        }
        if self.book.fed.is_empty() || !self.workers.has_time(self.target) {
            return false;
        }
        let brisk = self.brisk(now);
        let before = self.book.queued;
        for at in (0..self.book.fed.len()).rev() {
            let id = self.book.fed[at];
            match self.book.lanes.get_mut(&id) {
                Some(lane) if lane.queued() == 0 && !(brisk >= self.cpus && lane.is_short()) => {
                    let (taken, told) = lane.pull(id);
                    if told {
                        // The caller may just have added something without seeing that it is wanted.
                        self.book.look_at_feeds = Some(now + LOOK_AT_FEEDS_AFTER);
                    }
                    if let Some(parcel) = taken {
                        self.enqueue(parcel);
                    }
                }
                Some(_) => {}
                None => {
                    self.book.fed.swap_remove(at);
                }
            }
        }
        self.book.queued > before
    }

    /// The caller adds no more. The lane goes with its last task.
    pub(crate) fn close_call(&mut self, id: LaneId) {
        if let Some(lane) = self.book.lanes.get_mut(&id) {
            lane.open = false;
        }
        self.book.tidy(id);
    }

    /// How many tasks of this call make a batch now, and how many workers it can use.
    pub(crate) fn batch_of(&self, id: LaneId) -> (usize, usize) {
        let lane = self.book.lanes.get(&id);
        let workers = self.target;
        lane.map_or((1, workers), |lane| (lane.batch(), lane.most_workers.min(workers)))
    }

    /// Queues tasks, or completes them at once if they cannot run.
    pub(crate) fn enqueue(&mut self, parcel: Parcel) {
        self.book.unfinished += parcel.len() as usize;
        match self.why_not(parcel.lane) {
            Some(kind) => self.book.fail(parcel, &kind, None, &mut self.after),
            None => self.book.push_back(parcel),
        }
    }

    /// As [`enqueue`](Self::enqueue), one task.
    pub(crate) fn enqueue_single(&mut self, task: Single) {
        let is_open = !self.closing && self.book.given_up.is_none();
        match if is_open { self.book.append(task) } else { Some(task) } {
            Some(task) => self.enqueue(task.into()),
            None => self.book.unfinished += 1,
        }
    }

    /// A worker could have a task that is handed in now at once, or soon, and there is none for it.
    pub(crate) fn is_hungry(&self) -> bool {
        let is_short = |worker: &Supervisor<Parcel>| {
            worker.is_live()
                && worker.newest().is_none_or(|newest| {
                    let lane = self.book.lanes.get(&newest.lane);
                    let left = lane.and_then(|lane| lane.estimate(worker.in_flight_len()));
                    left.is_some_and(|left| left < NEAR)
                })
        };
        let is_idle = || self.workers.has_time(self.target) || self.workers.up().any(is_short);
        self.closing
            || self.workers.next_vacant(0, self.target).is_some()
            || (self.book.queued == 0 && is_idle())
    }

    /// As [`enqueue`](Self::enqueue), for a task that only this worker may run.
    pub(crate) fn pin(&mut self, worker: WorkerId, parcel: Parcel) {
        self.book.unfinished += parcel.len() as usize;
        match self.why_not(parcel.lane) {
            Some(kind) => self.book.fail(parcel, &kind, None, &mut self.after),
            None => self.book.pinned.entry(worker).or_default().push_back(parcel),
        }
    }

    /// Why no task of this lane can run, if none can.
    fn why_not(&mut self, lane: LaneId) -> Option<TaskErrorKind> {
        if self.closing {
            return Some(TaskErrorKind::Cancelled { why: POOL_ENDED });
        }
        self.book.given_up.take_if(|given_up| given_up.is_over(lane, Instant::now()));
        self.book.given_up.as_ref().map(|given_up| given_up.kind.clone())
    }

    pub(crate) fn worker_ids(&self) -> impl Iterator<Item = WorkerId> + use<> {
        (0..self.target as u32).map(WorkerId)
    }

    /// When something is due though nobody says anything.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if !self.unread.is_empty() {
            return Some(Instant::now());
        }
        let workers = self.workers.up().filter_map(Supervisor::deadline);
        let stops = self.workers.up().filter_map(Supervisor::stop_due);
        let limits = self.workers.up().filter_map(|worker| worker.over_due(self.limit_of(worker)?));
        let back_off = self.restarts.not_before().filter(|_| self.wants_workers());
        let feeds = self.book.look_at_feeds;
        // In a pool that ends nobody sees to it.
        let idle = self.leaving.look_at().filter(|_| !self.closing);
        workers
            .chain(stops)
            .chain(limits)
            .chain(back_off)
            .chain(feeds)
            .chain(idle)
            .chain(self.sharing_deadline())
            .chain(self.stall_deadline())
            .min()
    }

    fn wants_workers(&self) -> bool {
        (self.book.queued > 0 || !self.book.pinned.is_empty())
            && (self.workers.next_vacant(0, self.target).is_some() || self.wanted_beyond().next().is_some())
    }

    /// Vacant places beyond those that are wanted now, for which there are tasks from before.
    fn wanted_beyond(&self) -> impl Iterator<Item = usize> {
        let beyond = self.book.pinned.range(WorkerId(self.target as u32)..).map(|(id, _)| id.0 as usize);
        beyond.filter(|&place| self.workers[place].is_vacant())
    }

    /// How long the oldest task of this worker may run, if that is limited.
    pub(crate) fn limit_of(&self, worker: &Supervisor<Parcel>) -> Option<Duration> {
        if !self.has_limits {
            return None;
        }
        match worker.in_flight().next()?.lane {
            // Nobody's task, and as long as it takes.
            LaneId::Pinned if self.book.initializing.contains(&worker.id()) => None,
            LaneId::Pinned => self.config.task_timeout,
            lane => self.book.lanes.get(&lane)?.timeout,
        }
    }

    /// When the worker that has shown nothing for longest has to share.
    fn sharing_deadline(&self) -> Option<Instant> {
        if self.book.queued > 0 || self.closing || !self.workers.has_time(self.target) {
            return None;
        }
        let laden = self.workers.up().filter(|worker| is_laden(worker, &self.book));
        laden.filter_map(|worker| self.book.progress.get(&worker.id())).min().map(|&at| at + self.share_after)
    }

    /// When a worker that gets on with short tasks will have shown nothing for so long that it does not count as one that does.
    fn stall_deadline(&self) -> Option<Instant> {
        let may_be_saturated = self.target > self.cpus && !self.closing && self.workers.has_time(self.target);
        let now = may_be_saturated.then(Instant::now).filter(|&now| self.brisk(now) >= self.cpus)?;
        self.workers.up().filter_map(|worker| self.stalls_at(worker)).filter(|&at| at > now).min()
    }

    /// For a worker that has only short tasks: when it should have shown something.
    fn stalls_at(&self, worker: &Supervisor<Parcel>) -> Option<Instant> {
        let lane = self.book.lanes.get(&worker.newest()?.lane)?;
        if !lane.is_short() || lane.estimate(worker.in_flight_len())? >= SHARE_AFTER {
            return None;
        }
        let &since = self.book.progress.get(&worker.id())?;
        // One that has begun nothing waits for a core, and so would another.
        Some(since + if worker.has_begun() { STALLS_AFTER } else { MOST_SHARE_AFTER })
    }

    /// How many workers get on with short tasks; 0 if there are no more workers than cores.
    fn brisk(&self, now: Instant) -> usize {
        if self.target <= self.cpus {
            return 0;
        }
        self.workers.up().filter(|worker| self.stalls_at(worker).is_some_and(|at| at > now)).count()
    }

    /// What waits in this lane is not for workers that have nothing to do, while so many others get on with such tasks: another that is
    /// woken takes a core from one of them, and by the time that it has it, they would have done a few tasks.
    fn holds_back(&self, lane: &Lane, brisk: usize) -> bool {
        brisk >= self.cpus && lane.is_short() && {
            let brisk = u32::try_from(brisk).unwrap_or(u32::MAX);
            let is_little =
                lane.estimate(lane.queued()).is_none_or(|time| time < BATCH.saturating_mul(brisk));
            is_little || self.is_crowd(brisk as usize) && !self.cores_are_idle
        }
    }

    /// So many workers keep all cores busy, unless their tasks sleep.
    fn is_crowd(&self, brisk: usize) -> bool {
        brisk >= self.cpus.saturating_mul(CROWD)
    }

    /// Whether tasks sleep is seen by the time for which their workers have had a core, while there was work for more of them.
    fn look_at_cores(&mut self, brisk: usize, now: Instant) {
        let since = self.cores_seen.map(|(at, _)| now.saturating_duration_since(at));
        if since.is_some_and(|since| since < LOOK_AT_CORES_EVERY)
            || (since.is_none() && !self.is_crowd(brisk))
        {
            return;
        }
        let used = self.workers.cpu_time();
        let seen = self.cores_seen.replace((now, used));
        self.cores_are_idle = seen.zip(since).is_some_and(|((_, before), since)| {
            let cores = used.saturating_sub(before).as_secs_f64() / since.as_secs_f64();
            cores < self.cpus as f64 / 2.0
        });
    }

    /// Gives work to whoever can take it.
    pub(crate) fn dispatch(&mut self, poller: &Poller, now: Instant) {
        if self.closing {
            return;
        }
        let mut next = self.target;
        while let Some(place) = self.workers.next_manned(next) {
            if !self.book.pinned.contains_key(&self.workers[place].id()) {
                self.retire(place, poller, now);
            }
            next = place + 1;
        }
        self.see_off(poller, now);
        self.share(now);
        self.send_pinned(poller, now);
        loop {
            self.fill(poller, now, |worker, _| worker.is_idle());
            self.launch(poller, now);
            self.fill(poller, now, has_room);
            if !self.pull_for_the_idle(now) {
                break;
            }
        }
        self.see_off_the_idle(poller, now);
    }

    fn send_pinned(&mut self, poller: &Poller, now: Instant) {
        if self.book.pinned.is_empty() {
            return;
        }
        let orders = Orders { levels: levels(), ..Orders::default() };
        let mut next = 0;
        while let Some(place) = self.workers.next_manned(next) {
            next = place + 1;
            let worker = &self.workers[place];
            let id = worker.id();
            if worker.is_idle()
                && !self.book.initializing.contains(&id)
                && !self.leaving.contains(id)
                && let Some(queue) = self.book.pinned.get_mut(&id)
            {
                let worker = &mut self.workers[place];
                // As in `fill`: what cannot be had back goes alone.
                let most = if worker.has_board() { usize::MAX } else { 1 };
                let most = most.min(self.config.lives.quota(worker.given()));
                for mut parcel in queue.drain(..queue.len().min(most)) {
                    parcel.attempts += 1;
                    let seed = parcel.to.seed().unwrap_or(self.seed);
                    worker.run(parcel, Orders { seed, ..orders });
                }
                worker.ring(now, poller);
                if queue.is_empty() {
                    self.book.pinned.remove(&id);
                }
                self.book.tally(id).occupied(now);
            }
        }
    }

    /// An idle worker with nothing queued gets what a laden one has not begun.
    fn share(&mut self, now: Instant) {
        if self.book.queued > 0 || !self.workers.has_time(self.target) {
            return;
        }
        let brisk = self.brisk(now);
        let book = &self.book;
        let is_silent = |id| book.progress.get(&id).is_none_or(|&at: &Instant| at + self.share_after <= now);
        let laden = self.workers.up().filter(|worker| is_laden(worker, book)).filter(|worker| {
            if brisk >= self.cpus && self.stalls_at(worker).is_some_and(|at| at > now) {
                return false;
            }
            let waiting = worker.in_flight_len() - 1;
            let lane = worker.newest().and_then(|newest| book.lanes.get(&newest.lane));
            let long = lane.and_then(|lane| lane.estimate(waiting)).is_none_or(|time| time >= WORTH_MOVING);
            // One that has begun nothing may not have been woken yet: what it has would be moved to and fro.
            (long && worker.has_begun()) || is_silent(worker.id())
        });
        let Some(id) = laden.max_by_key(|worker| worker.in_flight_len()).map(Supervisor::id) else { return };
        if is_silent(id) {
            self.book.overdue.insert(id);
            let worker = &self.workers[id.0 as usize];
            if let (true, Some(oldest), Some(&since)) =
                (worker.has_begun(), worker.in_flight().next(), self.book.progress.get(&id))
                && let Some(lane) = self.book.lanes.get_mut(&oldest.lane)
            {
                lane.takes_at_least(now.saturating_duration_since(since).min(SHARE_AFTER));
            }
        }
        let parcels = self.workers[id.0 as usize].take_back();
        self.book.take_home(parcels, id);
        // Tasks that the worker would not give back have begun; asking again before it says something is no use. Nor is moving things
        // faster than workers are woken.
        self.book.progress.insert(id, now);
        self.share_after = (self.share_after * 2).min(MOST_SHARE_AFTER);
    }

    /// A worker that has done its work may wait for more without sleeping, and so may the host for its replies: there is a core for
    /// each of those that work, and one for the host.
    fn may_spin(&self) -> bool {
        let busy = self.workers.up().filter(|worker| worker.in_flight_len() > 0).count();
        busy < self.cpus
    }

    /// A reply is likely to come within so short a time that sleeping is not worth it, and there is a core to wait on.
    pub(crate) fn reply_is_near(&self) -> bool {
        let is_near = |worker: &Supervisor<Parcel>| {
            worker.in_flight().next().is_some_and(|parcel| {
                let lane = self.book.lanes.get(&parcel.lane);
                lane.and_then(|lane| lane.estimate(1)).is_none_or(|time| time < NEAR)
            })
        };
        self.may_spin() && self.workers.up().any(|worker| is_near(worker) || worker.is_streaming())
    }

    /// Wakes the worker that will have the next task, if all are idle.
    pub(crate) fn rouse(&mut self) {
        if self.book.unfinished > 0 {
            return;
        }
        let mut next = 0;
        while let Some(place) = self.workers.next_manned(next).filter(|&place| place < self.target) {
            next = place + 1;
            if self.workers[place].is_idle() {
                return self.workers[place].rouse();
            }
        }
    }

    /// Reads, though nothing may have come: to read is at hand then.
    pub(crate) fn look(&mut self, poller: &Poller, now: Instant) {
        let mut next = 0;
        while let Some(place) = self.workers.next_up(next) {
            next = place + 1;
            if self.workers[place].in_flight_len() > 0 {
                self.read(place, false, poller, now);
            }
        }
    }

    /// Sends more of what is queued for workers, where there is room.
    pub(crate) fn flush(&mut self, poller: &Poller) -> bool {
        let mut some = false;
        let mut next = 0;
        while let Some(place) = self.workers.next_up(next) {
            next = place + 1;
            let worker = &mut self.workers[place];
            if worker.has_room() {
                worker.flush(poller);
                some = true;
            }
        }
        some
    }

    /// The poller need tell no more of what workers say: somebody looks.
    pub(crate) fn unpark(&mut self) {
        self.workers.unpark();
    }

    /// A worker has said something that no poller tells of.
    pub(crate) fn has_arrivals(&self) -> bool {
        self.workers.up().any(Supervisor::has_arrivals)
    }

    /// Has the poller tell of whatever workers say from now on. `false`: one has said something already.
    pub(crate) fn park(&mut self) -> bool {
        self.workers.park()
    }

    /// Gives each worker that `wants` it a batch of the lane whose turn it is.
    fn fill(&mut self, poller: &Poller, now: Instant, wants: impl Fn(&Supervisor<Parcel>, &Lane) -> bool) {
        if self.book.queued == 0 {
            self.cores_seen = None;
            self.cores_are_idle = false;
            return;
        }
        let live = self.workers.live().max(1);
        let mut brisk = self.brisk(now);
        self.look_at_cores(brisk, now);
        // What one that is idle does not get no other gets.
        let mut is_for_the_idle = true;
        let mut next = 0;
        while self.book.queued > 0 {
            let place =
                if is_for_the_idle { self.workers.next_manned(next) } else { self.workers.next_up(next) };
            let Some(place) = place.filter(|&place| place < self.target) else { return };
            next = place + 1;
            let worker = &self.workers[place];
            let id = worker.id();
            // Nothing is sent behind a task that is to end: its process may be killed any moment.
            if !worker.is_live()
                || worker.is_stopping()
                || self.book.initializing.contains(&id)
                || self.leaving.contains(id)
            {
                continue;
            }
            let is_idle = worker.is_idle();
            if if is_idle { !is_for_the_idle } else { self.book.overdue.contains(&id) } {
                continue;
            }
            let turn = self.book.turns.iter().position(|lane| {
                let lane = &self.book.lanes[lane];
                lane.may_use(id) && wants(worker, lane) && !(is_idle && self.holds_back(lane, brisk))
            });
            let quota = self.quota(worker);
            if quota == 0 {
                continue;
            }
            let Some(lane_id) = turn.and_then(|turn| self.book.turns.remove(turn)) else {
                is_for_the_idle &= !is_idle;
                continue;
            };
            let may_spin = self.may_spin();
            let worker = &mut self.workers[place];
            let mut occupied = None;
            let lane = self.book.lanes.get_mut(&lane_id).expect("a lane with a turn is there");
            // Towards the end of a queue less at a time, so that all end together; as long as more is coming there is no end.
            let workers = if lane.is_short() { live.min(self.cpus.saturating_mul(CROWD)) } else { live };
            let parts = match (lane.chunk, lane.open) {
                (Some(_), _) => 1,
                (None, true) => workers,
                (None, false) => workers * 2,
            };
            // To wake a worker takes longer than a few short tasks.
            let share = lane.queued().div_ceil(parts).max(lane.worth_waking());
            // What has been sent and cannot be had back would be lost with its worker.
            let most = if worker.has_board() { lane.batch().min(share).max(1) } else { 1 };
            let most = most.min(quota);
            if worker.is_idle() {
                self.book.progress.insert(id, now);
                brisk += usize::from(self.target > self.cpus && lane.is_short());
                occupied = Some(id);
            }
            let seed = lane.seed.unwrap_or(self.seed);
            let (mut tasks, mut bytes) = (0, 0);
            while tasks < most && (tasks == 0 || bytes + lane.first_len_bytes() <= BATCH_BYTES) {
                let Some(mut parcel) = lane.take_first(most - tasks) else { break };
                tasks += parcel.len() as usize;
                bytes += parcel.records.len_bytes();
                parcel.attempts += 1;
                let wants_progress = parcel.to.wants_progress();
                worker.run(parcel, Orders { levels: levels(), may_spin, wants_progress, seed });
            }
            worker.ring(now, poller);
            *lane.at.entry(id).or_insert(0) += tasks;
            if lane.queued() > 0 {
                self.book.turns.push_back(lane_id);
            }
            self.book.queued -= tasks;
            if let Some(id) = occupied {
                self.book.tally(id).occupied(now);
            }
        }
    }

    /// Starts workers for what is queued and nobody idle could take.
    fn launch(&mut self, poller: &Poller, now: Instant) {
        if !self.wants_workers() || self.book.given_up.is_some() || !self.restarts.may_start(now) {
            return;
        }
        let brisk = self.brisk(now);
        let most = self.book.turns.iter().map(|id| {
            let lane = &self.book.lanes[id];
            if self.holds_back(lane, brisk) {
                return 0;
            }
            lane.queued().min(lane.most_workers.saturating_sub(lane.at.len()))
        });
        let starting = self.workers.up().filter(|worker| worker.is_starting()).count();
        let mut wanted = most.sum::<usize>().saturating_sub(starting);
        let beyond: Vec<usize> = self.wanted_beyond().collect();
        let mut beyond = beyond.into_iter();
        let mut next = 0;
        loop {
            // Those that are bound to one worker may want one anywhere.
            let vacant = (wanted > 0 || !self.book.pinned.is_empty()).then_some(next);
            let vacant = vacant.and_then(|next| self.workers.next_vacant(next, self.target));
            next = vacant.map_or(self.target, |place| place + 1);
            let Some(place) = vacant.or_else(|| beyond.next()) else { return };
            let pinned = self.book.pinned.contains_key(&self.workers[place].id());
            if wanted == 0 && !pinned {
                continue;
            }
            match self.launch_at(place, poller, now) {
                Ok(true) => {}
                // The launcher tells when it is ready.
                Ok(false) => return,
                Err(error) => return self.launch_failed(now, error),
            }
            wanted = wanted.saturating_sub(1);
        }
    }

    /// `false`: what workers are made from is being made.
    fn launch_at(&mut self, place: usize, poller: &Poller, now: Instant) -> Result<bool, LaunchError> {
        let worker = &mut self.workers[place];
        let hello = Hello {
            version: VERSION,
            build_id: registry::build_id(),
            worker: worker.id().0,
            station: self.config.surroundings.station(worker.id().0),
            log_level: levels().log,
        };
        let request =
            LaunchRequest { env: &self.config.surroundings.env, outputs: self.config.surroundings.outputs };
        let deadline = now + self.config.start_timeout;
        if !worker.launch(&*self.launcher, &request, &hello, poller, now, deadline)? {
            return Ok(false);
        }
        let why_slow = worker.why_slow();
        // While it starts there is time for this.
        self.oom_kills = self.oom_kills.or_else(oom_kills);
        self.book.tally(worker.id()).launched(now);
        if let Some(timeline) = &self.book.timeline {
            timeline.started(worker.id(), worker.pid().unwrap_or_default());
        }
        if let Some(why) = why_slow
            && !std::mem::replace(&mut self.said_why_slow, true)
        {
            let note = format!("workers are talked to over sockets, not shared memory: {why}");
            self.after.notes.push(note);
        }
        Ok(true)
    }

    /// Drops what is queued of a call, which has added so many tasks to its feed in all, and has what runs of it end.
    pub(crate) fn cancel_call(&mut self, id: LaneId, added: u64, poller: &Poller, now: Instant) {
        let why = "its call has ended";
        self.pull(id, added);
        if let Some(lane) = self.book.lanes.get_mut(&id) {
            lane.open = false;
        }
        for parcel in self.book.take_all(id) {
            self.book.fail(parcel, &TaskErrorKind::Cancelled { why }, None, &mut self.after);
        }
        let which = |parcel: &Parcel| (parcel.lane == id).then_some(0..parcel.len());
        let mut next = 0;
        while let Some(place) = self.workers.next_up(next) {
            next = place + 1;
            self.cancel_at(place, which, why, now);
        }
        self.book.tidy(id);
        self.dispatch(poller, now);
    }

    /// Takes one task back, wherever it is.
    pub(crate) fn cancel_task(&mut self, id: u64, function: &'static str, poller: &Poller, now: Instant) {
        let why = "it was taken back before it began";
        let place_in = |parcel: &Parcel| {
            let at = id.checked_sub(parcel.first).and_then(|at| u32::try_from(at).ok())?;
            let is_handle = matches!(parcel.to, Recipient::Handles(_));
            (is_handle && at < parcel.len()).then_some(at..at + 1)
        };
        let kind = TaskErrorKind::Cancelled { why };
        if !self.book.take_back(id, function, kind, &mut self.after) {
            let mut next = 0;
            while let Some(place) = self.workers.next_up(next) {
                next = place + 1;
                self.cancel_at(place, place_in, why, now);
            }
        }
        self.dispatch(poller, now);
    }

    /// Takes back what is in flight at a worker and is to be cancelled: of each parcel, those tasks that `which` says. What has begun
    /// is made to end.
    fn cancel_at(
        &mut self,
        place: usize,
        which: impl Fn(&Parcel) -> Option<Range<u32>>,
        why: &'static str,
        now: Instant,
    ) {
        if !self.workers[place].in_flight().any(|parcel| which(parcel).is_some()) {
            return;
        }
        let worker = &mut self.workers[place];
        let id = worker.id();
        let mut kept = Vec::new();
        for mut parcel in worker.take_back() {
            let Some(range) = which(&parcel) else {
                kept.push(parcel);
                continue;
            };
            let before = parcel.take_first(range.start);
            let mut gone = parcel.take_first(range.end - range.start);
            kept.extend([before, parcel].into_iter().filter(|part| part.len() > 0));
            gone.attempts -= 1;
            self.book.leave(&gone, id);
            self.book.fail(gone, &TaskErrorKind::Cancelled { why }, None, &mut self.after);
        }
        self.book.take_home(kept, id);
        // All that is left has begun, and all but the newest has ended.
        let newest_goes = worker
            .newest()
            .is_some_and(|parcel| which(parcel).is_some_and(|range| range.end == parcel.len()));
        if newest_goes {
            worker.stop(TaskErrorKind::Cancelled { why: STOPPED }, now);
        }
    }

    /// The pool ends: nothing queued runs any more, busy workers are killed, idle ones leave.
    pub(crate) fn close(&mut self, now: Instant) {
        self.closing = true;
        // Nothing is dispatched any more that would see to it.
        self.book.look_at_feeds = None;
        self.fail_queued(&TaskErrorKind::Cancelled { why: POOL_ENDED });
        let mut next = 0;
        while let Some(place) = self.workers.next_manned(next) {
            next = place + 1;
            let worker = &mut self.workers[place];
            if worker.is_idle() {
                worker.drain(now);
            } else {
                worker.stop_now(TaskErrorKind::Cancelled { why: POOL_ENDED }, now);
            }
        }
    }
}

/// Others could run what this worker has not begun. Pinned tasks, which none else may run, are sent to idle workers only, so that
/// they are the oldest; a call that uses as many workers as it may has no use for another.
fn is_laden(worker: &Supervisor<Parcel>, book: &Book) -> bool {
    let may_move = |parcel: &Parcel| book.lanes.get(&parcel.lane).is_some_and(Lane::has_use_for_another);
    worker.in_flight_len() > 1
        && worker.newest().is_some_and(|parcel| parcel.lane != LaneId::Pinned)
        // The first of all may have begun.
        && worker.in_flight().enumerate().any(|(n, parcel)| (n > 0 || parcel.len() > 1) && may_move(parcel))
}

fn has_room(worker: &Supervisor<Parcel>, lane: &Lane) -> bool {
    let is_idle = worker.is_idle();
    let is_full = worker.newest().is_some_and(|parcel| parcel.records.len_bytes() > BATCH_BYTES);
    if is_full || (!is_idle && (lane.first_len_bytes() > BATCH_BYTES || !worker.has_board())) {
        return false;
    }
    let n = worker.in_flight_len();
    match lane.chunk {
        Some(chunk) => n < chunk,
        None => n < MOST_IN_BATCH && lane.estimate(n).is_some_and(|time| time < PREFETCH),
    }
}

/// What this process's logger and subscriber want to know of.
pub(crate) fn levels() -> Levels {
    #[cfg(not(feature = "tracing"))]
    let trace = 0;
    #[cfg(feature = "tracing")]
    let trace = crate::observe::tracing::level();
    Levels { log: log::max_level() as u8, trace, is_timed: timeline::is_on() }
}
