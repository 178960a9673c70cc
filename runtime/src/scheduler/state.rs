//! Assigns queued tasks to workers: the state of the scheduler and the functions that look at it.
//!
//! A pure state machine. The driver locks it, feeds it the events of the poller, and performs the effects that it returns in
//! [`Effects`]. It knows no threads, and never waits or calls code of users.
//!
//! Tasks wait in *queues*: one for each call, and one for each thread that submits single tasks. Queues take turns. The decisions
//! are in `dispatch` and `policy`, and README.md beside this file explains them.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use super::{
    config::Config,
    effects::Effects,
    policy::SHARE_AFTER,
    queues::Queues,
    restarts::{Restarts, Streak},
    workers::WorkerSet,
};
use crate::{
    batch::Cancelled,
    codec::OwnedResult,
    context::seed_of_singles,
    error::{Result, TaskError},
    id::WorkerId,
    launch::{Launcher, Peer},
    observe::stats::Stats,
    supervisor::state::Supervisor,
};

/// The queues, the workers, and the state of the decisions about both.
pub(crate) struct Scheduler {
    pub(crate) config: Arc<Config>,
    pub(super) launcher: Box<dyn Launcher>,
    pub(crate) workers: WorkerSet,
    /// The number of workers that the pool should have. Workers beyond it leave when they are idle.
    pub(crate) target: usize,
    pub(crate) queues: Queues,
    /// The number of the next single task.
    next_id: Arc<AtomicU64>,
    pub(crate) next_call: u64,
    /// The number of CPUs that this process may use.
    pub(super) cpus: usize,
    /// The seed of tasks that belong to no call.
    pub(crate) seed: u64,
    /// The starts that have failed, and the pause before the next.
    pub(crate) restarts: Restarts,
    /// The failed starts in a row while pinned tasks waited for a vacant place.
    pub(crate) pinned: Option<Streak>,
    /// The silence after which a worker's waiting tasks are taken back. [`SHARE_AFTER`] at first, and doubled each time that
    /// tasks were taken back, until there is a result.
    pub(crate) share_after: Duration,
    /// The reason why workers do not use shared memory was logged.
    pub(super) said_why_slow: bool,
    /// It was logged that a task has closed descriptors of its worker.
    pub(super) said_closed: bool,
    pub(crate) closing: bool,
    /// The places whose worker was read up to a record. The rest is in memory, and the poller does not report it.
    pub(crate) unread: BTreeSet<usize>,
    /// A task with a time limit was submitted at some time.
    pub(super) has_limits: bool,
    /// The kernel's count of out-of-memory kills at the last look. The first look is when a worker is started.
    pub(crate) oom_kills: Option<u64>,
    pub(crate) leaving: Leaving,
    /// The cancellations at workers (by place) that have not yet reported which of their tasks have begun.
    pub(super) cancels: Vec<(usize, Cancelled)>,
    pub(crate) effects: Effects,
}

impl Scheduler {
    /// Creates the scheduler of a pool without workers.
    pub(crate) fn new(config: Arc<Config>, launcher: Box<dyn Launcher>, has_timeline: bool) -> Self {
        let mut scheduler = Self {
            workers: WorkerSet::default(),
            target: 0,
            queues: Queues {
                options: config.call,
                name: config.spawn.name.clone(),
                timeline: has_timeline.then(Vec::new),
                ..Queues::default()
            },
            next_id: Arc::default(),
            next_call: 0,
            seed: seed_of_singles(config.call.seed),
            cpus: config.cpus,
            restarts: Restarts::new(config.lives.max_restarts, config.spawn.start_timeout),
            pinned: None,
            share_after: SHARE_AFTER,
            said_why_slow: false,
            said_closed: false,
            closing: false,
            unread: BTreeSet::new(),
            has_limits: config.call.timeout.is_some(),
            oom_kills: None,
            leaving: Leaving::default(),
            cancels: Vec::new(),
            effects: Effects::default(),
            launcher,
            config,
        };
        scheduler.set_target(scheduler.config.jobs);
        scheduler
    }

    pub(crate) fn jobs(&self) -> usize {
        self.target
    }

    /// Returns the statistics of the workers.
    pub(crate) fn stats(&mut self, now: Instant) -> Stats {
        let (workers, queues) = (&self.workers, &mut self.queues);
        let of_each = (0..workers.len()).map(|place| &workers[place]).map(|worker| {
            let (id, pid) = (worker.id(), worker.pid());
            let tally = queues.tally(id);
            tally.has_had(worker.peer().and_then(Peer::peak_rss_bytes).unwrap_or(0));
            tally.stats(id, pid, worker.traffic(), now)
        });
        let of_each = of_each.collect();
        Stats::new(of_each, queues.unserved, queues.slowest.all())
    }

    /// Sets the number of workers. Workers beyond it leave when they are idle.
    pub(crate) fn resize(&mut self, jobs: usize, now: Instant) {
        self.set_target(jobs);
        // Other workers can run what the leaving ones have not begun.
        for place in jobs..self.workers.len() {
            let id = self.workers[place].id();
            if !self.queues.initializing.contains(&id) && !self.leaving.is_finalizing(id) {
                self.recall(place, now);
            }
        }
    }

    fn set_target(&mut self, jobs: usize) {
        self.target = jobs;
        while self.workers.len() < jobs {
            let id = WorkerId(u32::try_from(self.workers.len()).expect("`Jobs` has a limit far below"));
            self.workers.push(Supervisor::new(id));
        }
    }

    pub(crate) fn unfinished(&self) -> usize {
        self.queues.unfinished
    }

    /// Returns the counter that numbers single tasks.
    pub(crate) fn numbers(&self) -> Arc<AtomicU64> {
        self.next_id.clone()
    }

    pub(crate) fn worker_ids(&self) -> impl Iterator<Item = WorkerId> + use<> {
        (0..self.target as u32).map(WorkerId)
    }
}

/// The retiring workers, and the results of those that have left.
#[derive(Default)]
pub(crate) struct Leaving {
    /// The workers that get no more tasks and leave when they are idle.
    pub(super) who: BTreeSet<WorkerId>,
    /// Those of them that were sent the finalizer.
    pub(super) finalizing: BTreeSet<WorkerId>,
    /// The outcomes of finalizers, in the order in which the workers left.
    pub(super) exits: Vec<Result<OwnedResult, TaskError>>,
    /// All workers leave, because the pool is being joined.
    pub(super) all: bool,
    /// The time of the next check for workers that have been idle for too long.
    pub(super) look_at: Option<Instant>,
    /// It was logged that a worker has grown too large.
    pub(super) said_grown: bool,
}

impl Leaving {
    /// Returns whether this worker gets no more tasks.
    #[inline]
    pub(crate) fn contains(&self, id: WorkerId) -> bool {
        !self.who.is_empty() && self.who.contains(&id)
    }

    /// Returns whether this worker was sent the finalizer.
    #[inline]
    pub(crate) fn is_finalizing(&self, id: WorkerId) -> bool {
        !self.finalizing.is_empty() && self.finalizing.contains(&id)
    }
}
