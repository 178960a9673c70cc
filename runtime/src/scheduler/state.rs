//! Decides who runs what. Holds the queue and the workers; knows no thread that waits and calls nobody: the exchange (`drive`) locks
//! it, tells it what the poller saw, and carries out what it leaves in [`After`].
//!
//! Tasks wait in *lanes*: one for each call, and one for each thread that submits single tasks. Lanes take turns. A worker is given
//! as many tasks at a time as it should finish in 200 µs, by the measured time of the lane's tasks, and fewer towards the end of
//! a queue. What lies ready in a worker and has not begun can be had back: an idle worker, with nothing queued, gets it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use super::{
    config::Config,
    effects::After,
    policy::SHARE_AFTER,
    queues::Book,
    restarts::{Restarts, Streak},
    retire::Leaving,
    workers::Crew,
};
use crate::{
    context::seed_of_singles,
    id::WorkerId,
    launch::Launcher,
    observe::{
        stats::{Endings, Stats},
        tally::Slowest,
        timeline::Timeline,
    },
    supervisor::state::Supervisor,
    sys::{poll::Poller, procfs::peak_rss_bytes},
};

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
    pub(super) cpus: usize,
    /// The seed of what is no call's.
    pub(crate) seed: u64,
    /// Starts that have failed.
    pub(crate) restarts: Restarts,
    /// Starts that failed one after the other while tasks waited that only those workers may run.
    pub(crate) pinned: Option<Streak>,
    /// As [`SHARE_AFTER`]; doubled each time that something was moved, until there is a result.
    pub(crate) share_after: Duration,
    /// It was said why workers are not talked to through shared memory.
    pub(super) said_why_slow: bool,
    /// The time for which all workers have had a core, when it was looked at last.
    pub(super) cores_seen: Option<(Instant, Duration)>,
    /// They have left half of the cores' time unused since the look before.
    pub(super) cores_are_idle: bool,
    pub(crate) closing: bool,
    /// Places whose worker has been read up to a record only: the rest is in memory, and no poller tells of it.
    pub(crate) unread: BTreeSet<usize>,
    /// There are, or were, tasks that may run for a limited time.
    pub(super) has_limits: bool,
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

    pub(crate) fn worker_ids(&self) -> impl Iterator<Item = WorkerId> + use<> {
        (0..self.target as u32).map(WorkerId)
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
}
