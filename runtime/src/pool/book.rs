//! The book of tasks: the lanes with their turns, what is bound to one worker, and how a task leaves it, with its outcome.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::lane::{Lane, LaneId, Queued};
use crate::{
    error::{Fault, TaskError, TaskErrorKind},
    handle::{Outcome, Wakes},
    id::WorkerId,
    protocol::LogRecord,
};

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

/// All of the scheduler but the workers: what can be changed while one of them is being read.
pub(super) struct Book {
    pub(super) lanes: BTreeMap<LaneId, Lane>,
    /// Lanes with something queued, in the order of their turns.
    pub(super) turns: VecDeque<LaneId>,
    /// Lanes of calls, which may have tasks that are not queued yet.
    pub(super) fed: Vec<LaneId>,
    pub(super) queued: usize,
    /// Tasks that have no outcome yet.
    pub(super) unfinished: usize,
    /// Tasks bound to one worker each.
    pub(super) pinned: BTreeMap<WorkerId, VecDeque<Queued>>,
    /// When each worker last gave a sign of life while it had work.
    pub(super) progress: BTreeMap<WorkerId, Instant>,
    /// Workers whose initializer runs.
    pub(super) initializing: BTreeSet<WorkerId>,
    /// Why the pool takes no more tasks.
    pub(super) broken: Option<TaskErrorKind>,
    /// The pool's name, for errors.
    pub(super) name: Option<Arc<str>>,
}

impl Book {
    pub(super) fn lane(&mut self, id: LaneId) -> &mut Lane {
        self.lanes.entry(id).or_insert_with(|| Lane { open: false, ..Lane::new(None, usize::MAX) })
    }

    pub(super) fn push_back(&mut self, task: Queued) {
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
    pub(super) fn push_front(&mut self, task: Queued) {
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
    pub(super) fn take_home(&mut self, tasks: Vec<Queued>, worker: WorkerId) {
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

    pub(super) fn remove(&mut self, id: LaneId, at: usize) -> Option<Queued> {
        let lane = self.lanes.get_mut(&id)?;
        let task = lane.queue.remove(at)?;
        self.queued -= 1;
        if lane.queue.is_empty() {
            self.turns.retain(|turn| *turn != id);
        }
        Some(task)
    }

    /// The task is no longer at this worker.
    pub(super) fn leave(&mut self, task: &Queued, worker: WorkerId) {
        if let Some(lane) = self.lanes.get_mut(&task.lane) {
            lane.leave(worker);
        }
    }

    /// A task has its outcome from a worker.
    pub(super) fn done(
        &mut self,
        task: Queued,
        nanos: u64,
        outcome: Outcome<'_>,
        worker: WorkerId,
        after: &mut After,
    ) {
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

    /// As [`done`](Self::done), for a task that ran and gave no result.
    pub(super) fn failed(
        &mut self,
        task: Queued,
        nanos: u64,
        fault: Fault,
        by: (WorkerId, u32),
        after: &mut After,
    ) {
        let error = self.error(&task, fault.into(), Some(by));
        self.done(task, nanos, Err(error), by.0, after);
    }

    pub(super) fn fail(
        &mut self,
        task: Queued,
        kind: TaskErrorKind,
        worker: Option<(WorkerId, u32)>,
        after: &mut After,
    ) {
        let error = self.error(&task, kind, worker);
        self.complete(&task, Err(error), after);
    }

    pub(super) fn error(
        &self,
        task: &Queued,
        kind: TaskErrorKind,
        worker: Option<(WorkerId, u32)>,
    ) -> TaskError {
        TaskError::new(task.call.entry.name, kind, task.place(worker)).in_pool(self.name.as_ref())
    }

    pub(super) fn complete(&mut self, task: &Queued, outcome: Outcome<'_>, after: &mut After) {
        self.unfinished -= 1;
        task.to.complete(task.index.unwrap_or_default(), outcome, &mut after.wakes);
        self.tidy(task.lane);
    }

    /// A lane that nothing is in and nobody adds to goes.
    pub(super) fn tidy(&mut self, id: LaneId) {
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
