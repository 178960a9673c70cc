//! Accepts tasks: opens, feeds and closes the queues of calls, and queues single tasks.
//!
//! Nothing here sends a task to a worker. A task that cannot run gets its error immediately.

use std::time::{Duration, Instant};

use super::{
    batch::{LaneId, Parcel, Single},
    feed::Feed,
    queue::Lane,
    state::Scheduler,
};
use crate::{
    error::{POOL_ENDED, TaskErrorKind},
    id::WorkerId,
    observe::stats::Ending,
    supervisor::ledger::Load,
};

impl Scheduler {
    /// Sets the batch size of a call.
    pub(crate) fn set_chunk_size(&mut self, id: LaneId, tasks: usize) {
        if let Some(lane) = self.book.lanes.get_mut(&id) {
            lane.chunk = Some(tasks);
        }
    }

    /// Opens a queue for a call.
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

    /// Queues the tasks in the feed of a call. Only the call itself may call this, with the number of tasks that it has added in
    /// total.
    pub(crate) fn pull(&mut self, id: LaneId, added: u64) {
        let taken = self.book.lanes.get_mut(&id).and_then(|lane| lane.pull_all(id, added));
        if let Some(parcel) = taken {
            self.enqueue(parcel);
        }
    }

    /// Queues a task of a call without its feed. All earlier tasks of the call must have been queued.
    pub(crate) fn enqueue_apart(&mut self, id: LaneId, mut parcel: Parcel) {
        if let Some(feed) = self.book.lanes.get_mut(&id).and_then(|lane| lane.feed.as_mut()) {
            parcel.first = feed.skip();
        }
        self.enqueue(parcel);
    }

    /// Counts a task that failed without having been queued.
    pub(crate) fn refused(&mut self, kind: &TaskErrorKind) {
        self.book.unserved.add(Ending::of(kind), 1);
    }

    /// Counts the next task of a call, which failed without having been queued.
    pub(crate) fn skip(&mut self, id: LaneId, kind: &TaskErrorKind) {
        self.refused(kind);
        if let Some(feed) = self.book.lanes.get_mut(&id).and_then(|lane| lane.feed.as_mut()) {
            feed.skip();
        }
    }

    /// Closes the queue of a call: the caller adds no more tasks. The queue is removed with its last task.
    pub(crate) fn close_call(&mut self, id: LaneId) {
        if let Some(lane) = self.book.lanes.get_mut(&id) {
            lane.open = false;
        }
        self.book.tidy(id);
    }

    /// Returns the current batch size of a call, and how many workers it can use.
    pub(crate) fn batch_of(&self, id: LaneId) -> (usize, usize) {
        let lane = self.book.lanes.get(&id);
        let workers = self.target;
        lane.map_or((1, workers), |lane| (lane.batch(), lane.most_workers.min(workers)))
    }

    /// Queues tasks, or fails them immediately if they cannot run.
    pub(crate) fn enqueue(&mut self, parcel: Parcel) {
        self.book.unfinished += parcel.len() as usize;
        match self.why_not(parcel.lane) {
            Some(kind) => self.book.fail(parcel, &kind, None, &mut self.after),
            None => self.book.push_back(parcel),
        }
    }

    /// Queues one task, like [`enqueue`](Self::enqueue).
    pub(crate) fn enqueue_single(&mut self, task: Single) {
        let is_open = !self.closing && self.book.given_up.is_none();
        match if is_open { self.book.append(task) } else { Some(task) } {
            Some(task) => self.enqueue(task.into()),
            None => self.book.unfinished += 1,
        }
    }

    /// Queues tasks that only `worker` may run, like [`enqueue`](Self::enqueue).
    pub(crate) fn pin(&mut self, worker: WorkerId, parcel: Parcel) {
        self.book.unfinished += parcel.len() as usize;
        match self.why_not(parcel.lane) {
            Some(kind) => self.book.fail(parcel, &kind, None, &mut self.after),
            None => self.book.pinned.entry(worker).or_default().push_back(parcel),
        }
    }

    /// Returns why no task of this queue can run, if that is so.
    fn why_not(&mut self, lane: LaneId) -> Option<TaskErrorKind> {
        if self.closing {
            return Some(TaskErrorKind::Cancelled { why: POOL_ENDED });
        }
        self.book.given_up.take_if(|given_up| given_up.is_over(lane, Instant::now()));
        self.book.given_up.as_ref().map(|given_up| given_up.kind.clone())
    }
}
