//! Drives a scheduler on virtual time, with workers that a test plays, as the driver does with processes.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use super::{
    config::{CallOptions, Config, Lives},
    feed::Feeder,
    machine::StateMachine,
    state::Scheduler,
};
use crate::{
    batch::{
        Batch, QueueId, Recipient, Single,
        inbox::{Inbox, Item},
    },
    codec::ShortBytes,
    error::TaskError,
    handle::Completer,
    id::{FunctionId, WorkerId},
    launch::{
        ResolvedOptions, SpawnOptions,
        fake::{FakeLauncher, FakeTask, FakeWorker},
    },
    observe::record::ForwardedRecord,
    protocol::EncodedTasks,
    sys::poll::Event,
};

pub(super) const MICRO: Duration = Duration::from_micros(1);
pub(super) const MILLI: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// The time that a played worker takes to become ready.
pub(super) const START: Duration = Duration::from_millis(2);

/// A scheduler, its workers and their time.
pub(super) struct Sim {
    pub(super) scheduler: Scheduler,
    pub(super) launcher: FakeLauncher,
    pub(super) now: Instant,
    pub(super) begun: Instant,
    /// The time at which each worker has finished its start or its task.
    due: BTreeMap<usize, Instant>,
    /// The tasks that have ended at a worker: the worker, the task, and when it ended.
    pub(super) ran: Vec<Ran>,
    /// The records that tasks have sent.
    pub(super) words: Vec<ForwardedRecord>,
    pub(super) notes: Vec<String>,
    /// The number of times that the host was woken.
    pub(super) wakes: usize,
    /// The time that each takes of the core of a worker, if all cores are busy.
    pub(super) wake_cost: Duration,
    cpus: usize,
    next_number: u64,
}

/// One execution of a task.
#[derive(Clone, Debug)]
pub(super) struct Ran {
    pub(super) worker: usize,
    pub(super) task: FakeTask,
    pub(super) ended: Instant,
}

/// A task with a handle.
#[derive(Clone)]
pub(super) struct Submitted {
    pub(super) number: u64,
    completer: Arc<Completer>,
}

impl Submitted {
    /// Returns the outcome, which is taken.
    pub(super) fn outcome(&self) -> Option<Result<(), TaskError>> {
        Some(self.completer.take_outcome()?.map(drop))
    }

    /// Returns why the task failed. It must have failed.
    pub(super) fn error(&self) -> TaskError {
        self.outcome().expect("the task has an outcome").expect_err("it has failed")
    }

    pub(super) fn is_done(&self) -> bool {
        self.outcome().expect("the task has an outcome").is_ok()
    }
}

/// A call, from the caller's side.
pub(super) struct Called {
    pub(super) id: QueueId,
    inbox: Arc<Inbox>,
    feeder: Feeder,
    outcomes: BTreeMap<usize, Result<(), TaskError>>,
}

impl Called {
    /// Returns the outcomes that have arrived until now, by the indices of their tasks. No task may have two.
    pub(super) fn outcomes(&mut self) -> &BTreeMap<usize, Result<(), TaskError>> {
        let items = std::mem::take(&mut self.inbox.lock().items);
        for (index, item) in items {
            let outcomes: Vec<_> = match item {
                Item::Many { tasks, .. } => (0..tasks).map(|_| Ok(())).collect(),
                Item::One(outcome) => vec![outcome.map(drop)],
                Item::Wrote(_) => Vec::new(),
            };
            for (n, outcome) in outcomes.into_iter().enumerate() {
                let before = self.outcomes.insert(index + n, outcome);
                assert!(before.is_none(), "task {} of a call has two outcomes", index + n);
            }
        }
        &self.outcomes
    }

    pub(super) fn done(&mut self) -> usize {
        self.outcomes().values().filter(|outcome| outcome.is_ok()).count()
    }
}

/// The settings of a pool of two workers.
pub(crate) fn config() -> Config {
    static SPAWN: OnceLock<ResolvedOptions> = OnceLock::new();
    let spawn = SPAWN.get_or_init(|| {
        let options = SpawnOptions { start_timeout: Some(10 * SECOND), ..SpawnOptions::default() };
        let mut resolved = options.resolve(2, || 2).expect("plain settings");
        resolved.env.clear();
        resolved
    });
    Config {
        jobs: 2,
        cpus: 2,
        call: CallOptions { seed: Some(0), ..CallOptions::default() },
        spawn: spawn.clone(),
        lives: Lives::default(),
    }
}

/// The arguments of a task that takes this time. Its function is 0 for a single task, and otherwise the number of its call plus one.
fn args(takes: Duration) -> [u8; 8] {
    (takes.as_nanos() as u64).to_le_bytes()
}

fn takes(task: &FakeTask) -> Duration {
    Duration::from_nanos(task.args[..].try_into().map_or(0, u64::from_le_bytes))
}

impl Sim {
    /// A pool with these settings, on a machine with as many CPUs as it has workers.
    pub(super) fn new(config: Config) -> Self {
        let cpus = config.jobs;
        Self::on(cpus, config)
    }

    /// A pool with these settings, on a machine with `cpus` CPUs.
    pub(super) fn on(cpus: usize, config: Config) -> Self {
        let launcher = FakeLauncher::default();
        let now = Instant::now();
        Self {
            scheduler: Scheduler::new(Arc::new(Config { cpus, ..config }), Box::new(launcher.clone()), false),
            launcher,
            now,
            begun: now,
            due: BTreeMap::new(),
            ran: Vec::new(),
            words: Vec::new(),
            notes: Vec::new(),
            wakes: 0,
            wake_cost: Duration::ZERO,
            cpus,
            next_number: 0,
        }
    }

    /// Submits a task that takes this time, from one thread.
    pub(super) fn submit(&mut self, takes: Duration) -> Submitted {
        self.submit_from(0, takes)
    }

    pub(super) fn submit_from(&mut self, thread: u64, takes: Duration) -> Submitted {
        let (number, completer) = (self.next_number, Arc::new(Completer::new()));
        self.next_number += 1;
        let task = Single {
            attachments: crate::segment::Attachments::default(),
            queue: QueueId::Thread(thread),
            number,
            function: FunctionId(0),
            args: ShortBytes::from_slice(&args(takes)),
            to: completer.clone(),
        };
        self.scheduler.enqueue_single(task, self.now);
        Submitted { number, completer }
    }

    /// Submits a task that only this worker may run, as a member of a broadcast.
    pub(super) fn pin(&mut self, worker: u32, takes: Duration) -> Submitted {
        let completer = Arc::new(Completer::new());
        let batch = Batch {
            queue: QueueId::Pinned,
            first: u64::from(worker),
            records: EncodedTasks::of(FunctionId(0), ShortBytes::from_slice(&args(takes))),
            to: Recipient::Member { handle: completer.clone(), seed: 0 },
            attempts: 0,
        };
        self.scheduler.pin(WorkerId(worker), batch, self.now);
        Submitted { number: u64::from(worker), completer }
    }

    /// Opens a call and adds tasks that take these times. It may add more.
    pub(super) fn call(&mut self, tasks: impl IntoIterator<Item = Duration>) -> Called {
        self.call_with(tasks, CallOptions::default())
    }

    pub(super) fn call_with(
        &mut self,
        tasks: impl IntoIterator<Item = Duration>,
        options: CallOptions,
    ) -> Called {
        let inbox = Arc::new(Inbox::default());
        let (feeder, feed) = Feeder::new(inbox.clone());
        let id = self.scheduler.open_call(options, feed);
        let mut call = Called { id, inbox, feeder, outcomes: BTreeMap::new() };
        self.add(&mut call, tasks);
        call
    }

    /// Adds tasks to a call, as a caller does that adds a batch at a time.
    pub(super) fn add(&mut self, call: &mut Called, tasks: impl IntoIterator<Item = Duration>) {
        let QueueId::Call(number) = call.id else { unreachable!("it is a call") };
        let function = FunctionId(number as u32 + 1);
        for takes in tasks {
            if !call.feeder.push(function, &[], &args(takes)) {
                self.scheduler.pull(call.id, self.now);
                assert!(call.feeder.push(function, &[], &args(takes)));
            }
        }
        self.scheduler.pull(call.id, self.now);
    }

    /// Adds no more tasks to a call.
    pub(super) fn close_call(&mut self, call: &Called) {
        self.scheduler.close_call(call.id);
    }

    pub(super) fn cancel_call(&mut self, call: &Called) {
        self.scheduler.cancel_call(call.id, self.now);
    }

    pub(super) fn cancel(&mut self, task: &Submitted) {
        self.scheduler.cancel_task(task.number, "f", self.now);
    }

    /// Returns all workers that were started, in order.
    pub(super) fn workers(&self) -> Vec<FakeWorker> {
        self.launcher.lock().workers.clone()
    }

    pub(super) fn worker(&self, n: usize) -> FakeWorker {
        self.launcher.lock().workers[n].clone()
    }

    /// Returns the workers that have not ended.
    pub(super) fn alive(&self) -> usize {
        self.workers().iter().filter(|worker| !worker.has_ended()).count()
    }

    pub(super) fn since(&self) -> Duration {
        self.now - self.begun
    }

    /// Handles what has happened, until the driver would sleep.
    pub(super) fn turn(&mut self) {
        for _ in 0..200 {
            let workers = self.workers();
            let events: Vec<Event> =
                workers.iter().flat_map(FakeWorker::events).map(|key| Event { key }).collect();
            self.scheduler.handle(&events, self.now);
            self.scheduler.run_due(self.now);
            self.scheduler.dispatch(self.now);
            let effects = self.scheduler.effects().unwrap_or_default();
            self.words.extend(effects.records);
            self.notes.extend(effects.notes);
            let has_obeyed = self.workers().iter().filter(|worker| worker.obey()).count() > 0;
            let due = self.scheduler.deadline(self.now);
            let is_due = due.is_some_and(|due| due <= self.now);
            if !has_obeyed && !is_due && self.scheduler.park() {
                return;
            }
        }
        panic!("the driver would not sleep");
    }

    /// Lets time pass and has the scheduler do what becomes due. No worker does anything.
    pub(super) fn pass(&mut self, time: Duration) {
        self.pass_until(self.now + time);
    }

    fn pass_until(&mut self, end: Instant) {
        self.turn();
        while let Some(due) = self.scheduler.deadline(self.now).filter(|due| *due < end) {
            self.now = due;
            self.turn();
        }
        self.now = end.max(self.now);
        self.turn();
    }

    /// Has all workers that are starting complete their handshake.
    pub(super) fn start_all(&mut self) {
        self.turn();
        for worker in self.workers() {
            if worker.hello().is_some() {
                worker.ready();
            }
        }
        self.turn();
    }

    /// Plays all workers until nothing is left to do, or until `time` has passed.
    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.turn();
        let mut is_due = false;
        loop {
            self.wake(is_due);
            while self.workers().iter().filter(|worker| worker.answer()).count() > 0 {
                self.turn();
            }
            self.begin_all();
            if self.scheduler.unfinished() == 0 && self.due.is_empty() {
                break;
            }
            let deadline = self.scheduler.deadline(self.now);
            let next = self.due.values().copied().chain(deadline).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            is_due = deadline == Some(next);
            self.now = self.now.max(next);
            let due: Vec<usize> =
                self.due.iter().filter(|(_, at)| **at <= self.now).map(|(n, _)| *n).collect();
            for n in due {
                self.due.remove(&n);
                let worker = self.worker(n);
                if worker.has_ended() {
                } else if worker.hello().is_some() {
                    worker.ready();
                } else if let Some(task) = worker.running() {
                    worker.finish(takes(&task));
                    if let Some(ran) = self.ran.iter_mut().rfind(|ran| ran.worker == n) {
                        ran.ended = self.now;
                    }
                }
            }
        }
    }

    /// Handles what has happened if a worker has woken the host or something is due.
    fn wake(&mut self, is_due: bool) {
        let rung = self.workers().iter().filter(|worker| worker.take_ring()).count();
        if rung > 0 || is_due || self.scheduler.deadline(self.now).is_some_and(|due| due <= self.now) {
            self.wakes += 1;
            self.turn();
            self.begin_all();
            let busy = self.due.len();
            if busy >= self.cpus
                && let Some((_, due)) = self.due.iter_mut().nth(self.wakes % busy)
            {
                *due += self.wake_cost;
            }
        }
    }

    /// Plays all workers until nothing is left to do.
    pub(super) fn run(&mut self) {
        self.run_for(3600 * SECOND);
        assert_eq!(self.scheduler.unfinished(), 0, "tasks are left after an hour");
    }

    fn begin_all(&mut self) {
        for (n, worker) in self.workers().into_iter().enumerate() {
            if self.due.contains_key(&n) || worker.has_ended() {
                continue;
            }
            if worker.hello().is_some() {
                self.due.insert(n, self.now + START);
            } else if let Some(task) = worker.running().or_else(|| worker.begin()) {
                self.due.insert(n, self.now + takes(&task));
                self.ran.push(Ran { worker: n, task, ended: self.now });
            }
        }
    }

    /// Closes the pool and checks that nothing is left.
    pub(super) fn end(&mut self) {
        self.scheduler.close(self.now);
        self.pass(60 * SECOND);
        self.check_over();
    }

    /// Checks that the pool has ended: every task has its outcome, and every process was reaped.
    pub(super) fn check_over(&mut self) {
        assert!(self.scheduler.is_empty_of_workers());
        assert_eq!(self.scheduler.unfinished(), 0);
        let queues = &self.scheduler.queues;
        assert_eq!((queues.queued, queues.turns.len(), queues.pinned.len()), (0, 0, 0));
        assert!(queues.progress.is_empty() && queues.overdue.is_empty() && queues.initializing.is_empty());
        assert!(self.workers().iter().all(|worker| worker.is_reaped() || worker.is_given_up()));
        assert_eq!(self.scheduler.deadline(self.now), None, "nothing is due after the end");
    }
}
