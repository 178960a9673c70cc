//! Accepts tasks: opens, feeds and closes the queues of calls, and queues single tasks.
//!
//! Nothing here sends a task to a worker. A task that cannot run gets its error immediately.

use std::time::Instant;

use super::{config::CallOptions, feed::Feed, queue::Queue, state::Scheduler};
use crate::{
    batch::{Batch, QueueId, Single},
    error::{POOL_ENDED, TaskErrorKind},
    id::WorkerId,
    observe::ending::Ending,
    segment::Attachments,
};

impl Scheduler {
    /// Opens a queue for a call.
    pub(crate) fn open_call(&mut self, options: CallOptions, feed: Feed) -> QueueId {
        let id = QueueId::Call(self.next_call);
        self.next_call += 1;
        let mut options = options.or(self.config.call);
        self.has_limits |= options.timeout.is_some();
        // A worker must not run many tasks before its size is read.
        options.is_patient &= options.timeout.is_none() && self.config.lives.max_rss.is_none();
        self.queues.by_id.insert(id, Queue::new(options, Some(feed)));
        self.queues.fed.push(id);
        id
    }

    /// Changes the settings of a call.
    pub(crate) fn change_call(&mut self, id: QueueId, change: impl FnOnce(&mut CallOptions)) {
        if let Some(queue) = self.queues.by_id.get_mut(&id) {
            change(&mut queue.options);
            self.has_limits |= queue.options.timeout.is_some();
        }
    }

    /// Hands these segments to whoever runs tasks from the feed of a call.
    pub(crate) fn attach(&mut self, id: QueueId, attachments: &Attachments) {
        if let Some(feed) = self.queues.by_id.get_mut(&id).and_then(|queue| queue.feed.as_mut()) {
            feed.attachments.merge(attachments);
        }
    }

    /// Queues the tasks in the feed of a call. Only the call itself may call this.
    pub(crate) fn pull(&mut self, id: QueueId, now: Instant) {
        let taken = self.queues.by_id.get_mut(&id).and_then(|queue| queue.pull_all(id));
        if let Some(batch) = taken {
            self.enqueue(batch, now);
        }
    }

    /// Queues a task of a call without its feed. All earlier tasks of the call must have been queued.
    pub(crate) fn enqueue_apart(&mut self, id: QueueId, mut batch: Batch, now: Instant) {
        if let Some(feed) = self.queues.by_id.get_mut(&id).and_then(|queue| queue.feed.as_mut()) {
            batch.first = feed.skip();
        }
        self.enqueue(batch, now);
    }

    /// Counts a task that failed without having been queued.
    pub(crate) fn refused(&mut self, kind: &TaskErrorKind) {
        self.queues.unserved.add(Ending::of(kind), 1);
    }

    /// Counts the next task of a call, which failed without having been queued.
    pub(crate) fn skip(&mut self, id: QueueId, kind: &TaskErrorKind) {
        self.refused(kind);
        if let Some(feed) = self.queues.by_id.get_mut(&id).and_then(|queue| queue.feed.as_mut()) {
            feed.skip();
        }
    }

    /// Closes the queue of a call: the caller adds no more tasks. The queue is removed with its last task.
    pub(crate) fn close_call(&mut self, id: QueueId) {
        if let Some(queue) = self.queues.by_id.get_mut(&id) {
            queue.open = false;
        }
        self.queues.remove_if_done(id);
    }

    /// Returns the current batch size of a call, and how many workers it can use.
    pub(crate) fn batch_of(&self, id: QueueId) -> (usize, usize) {
        let queue = self.queues.by_id.get(&id);
        let workers = self.target;
        queue.map_or((1, workers), |queue| (queue.batch_size(), queue.workers().min(workers)))
    }

    /// Queues tasks, or fails them immediately if they cannot run.
    pub(crate) fn enqueue(&mut self, batch: Batch, now: Instant) {
        self.queues.unfinished += batch.len() as usize;
        match self.why_not(batch.queue, now) {
            Some(kind) => self.queues.fail(batch, &kind, None, &mut self.effects),
            None => self.queues.push_back(batch),
        }
    }

    /// Queues one task, like [`enqueue`](Self::enqueue).
    pub(crate) fn enqueue_single(&mut self, task: Single, now: Instant) {
        let is_open = !self.closing && self.queues.given_up.is_none();
        match if is_open { self.queues.append(task) } else { Some(task) } {
            Some(task) => self.enqueue(task.into(), now),
            None => self.queues.unfinished += 1,
        }
    }

    /// Queues tasks that only `worker` may run, like [`enqueue`](Self::enqueue).
    pub(crate) fn pin(&mut self, worker: WorkerId, batch: Batch, now: Instant) {
        self.queues.unfinished += batch.len() as usize;
        match self.why_not(batch.queue, now) {
            Some(kind) => self.queues.fail(batch, &kind, None, &mut self.effects),
            None => self.queues.pinned.entry(worker).or_default().push_back(batch),
        }
    }

    /// Returns why no task of this queue can run, if that is so.
    fn why_not(&mut self, queue: QueueId, now: Instant) -> Option<TaskErrorKind> {
        if self.closing {
            return Some(TaskErrorKind::Cancelled { why: POOL_ENDED });
        }
        self.queues.given_up.take_if(|given_up| given_up.is_over(queue, now));
        self.queues.given_up.as_ref().map(|given_up| given_up.kind.clone())
    }
}
