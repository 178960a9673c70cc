//! Tasks that wait or run, and the lanes in which they wait: one for each call, and one for each thread that submits single tasks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    error::Place,
    handle::Complete,
    id::{FunctionId, WorkerId},
    supervisor::Sendable,
    task::Call,
};

/// A batch should take a worker about so long: long against a system call, short against a person's patience.
const BATCH: Duration = Duration::from_micros(200);
/// No batch is larger.
pub(super) const MOST_IN_BATCH: usize = 512;
/// A batch ends when its arguments are so many bytes: what was sent and is taken back has been sent for nothing. A task with more
/// goes alone, to an idle worker, and nothing goes behind it.
pub(super) const BATCH_BYTES: usize = 256 << 10;

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

impl Queued {
    pub(super) fn begun_once_more(mut self) -> Self {
        self.attempts += 1;
        self
    }

    pub(super) fn place(&self, worker: Option<(WorkerId, u32)>) -> Place {
        Place { index: self.index, attempts: self.attempts, worker }
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
    pub(super) fn want(&self) -> Vec<Queued> {
        let mut fed = self.lock();
        fed.wanted = fed.tasks.is_empty();
        std::mem::take(&mut fed.tasks)
    }
}

/// The tasks of one caller.
pub(super) struct Lane {
    /// What the caller has not queued yet.
    pub(super) feed: Option<Arc<Feed>>,
    pub(super) queue: VecDeque<Queued>,
    /// How many travel together, if the caller has said so.
    pub(super) chunk: Option<usize>,
    /// How many workers it may use at a time.
    pub(super) most_workers: usize,
    /// Nanoseconds a task, smoothed; `None` before the first result.
    pub(super) pace: Option<f64>,
    /// Tasks in flight at each worker.
    pub(super) at: BTreeMap<WorkerId, usize>,
    /// The caller may add more.
    pub(super) open: bool,
}

impl Lane {
    /// How many tasks of this lane make a batch.
    pub(super) fn batch(&self) -> usize {
        match (self.chunk, self.pace) {
            (Some(chunk), _) => chunk,
            (None, None) => 1,
            (None, Some(pace)) => {
                ((BATCH.as_nanos() as f64 / pace.max(1.0)) as usize).clamp(1, MOST_IN_BATCH)
            }
        }
    }

    /// How many of the first `most` tasks may travel together, by the size of their arguments.
    pub(super) fn fitting(&self, most: usize) -> usize {
        let mut bytes = 0;
        let fit = self.queue.iter().take(most).take_while(|task| {
            bytes += task.args().len();
            bytes <= BATCH_BYTES
        });
        fit.count().max(1)
    }

    /// A task of this lane is no longer at this worker.
    pub(super) fn leave(&mut self, worker: WorkerId) {
        if let Some(n) = self.at.get_mut(&worker) {
            *n -= 1;
            if *n == 0 {
                self.at.remove(&worker);
            }
        }
    }

    /// Nothing is in it and nobody adds to it.
    pub(super) fn is_left(&self) -> bool {
        !self.open && self.queue.is_empty() && self.at.is_empty()
    }

    pub(super) fn may_use(&self, worker: WorkerId) -> bool {
        self.at.contains_key(&worker) || self.at.len() < self.most_workers
    }

    /// How long a worker will take for `n` of these tasks, if that can be said.
    pub(super) fn estimate(&self, n: usize) -> Option<Duration> {
        self.pace.map(|pace| Duration::from_nanos((pace * n as f64) as u64))
    }
}

impl Lane {
    pub(super) fn new(chunk: Option<usize>, most_workers: usize) -> Self {
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
