//! Takes tasks in: calls are opened, fed and closed, single tasks are queued.

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
}
