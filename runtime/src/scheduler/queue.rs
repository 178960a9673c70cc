//! Defines the queue of one caller: the tasks of one call, or the single tasks of one thread.
//!
//! A queue keeps waiting tasks in order, knows how many of its tasks are at which worker, and measures how long its tasks take.
//! The scheduler uses it through [`Queues`](super::queues::Queues). A queue never looks at workers and never completes a task.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    config::CallOptions,
    feed::Feed,
    policy::{
        BATCH, MOST_BATCH_BYTES, MOST_CANCELLED, MOST_IN_BATCH, MOST_JUMP, PATIENT_BATCH, SHORT,
        TASKS_PER_WAIT, WAKING,
    },
};
use crate::{
    batch::{Batch, QueueId, Recipient, Single},
    handle::Completer,
    id::WorkerId,
};

/// The queue of one caller.
#[derive(Default)]
pub(crate) struct Queue {
    /// The tasks of a call that its caller has pushed and that are not queued yet.
    pub(crate) feed: Option<Feed>,
    /// The waiting batches, ordered by the number of their first task. No batch is empty.
    queue: VecDeque<Batch>,
    /// The numbers of waiting tasks that were cancelled and have their outcome. They are skipped.
    cancelled: BTreeSet<u64>,
    /// The number of waiting tasks.
    queued: usize,
    pub(crate) options: CallOptions,
    /// The smoothed duration of a task in nanoseconds. `None` before the first result.
    pace: Option<f64>,
    /// Its tasks hardly ever wait for anything but a core. Known only of a patient call, if there are more workers than cores.
    computes: bool,
    /// The number of results since a worker last reported a duration. The next reported duration includes theirs.
    untimed: u32,
    /// The number of tasks in flight at each worker.
    pub(crate) at: BTreeMap<WorkerId, usize>,
    /// Whether the caller may add more tasks.
    pub(crate) open: bool,
}

impl Queue {
    /// Creates a queue for a call whose caller may add tasks to this feed, or for the single tasks of a thread.
    pub(crate) fn new(options: CallOptions, feed: Option<Feed>) -> Self {
        Self { options, open: feed.is_some(), feed, ..Self::default() }
    }

    /// Takes everything from the feed. Only the caller itself may call this.
    pub(crate) fn pull_all(&mut self, id: QueueId) -> Option<Batch> {
        let feed = self.feed.as_mut()?;
        let taken = feed.take(id);
        if feed.shared.wanted.load(Ordering::Relaxed) {
            feed.shared.wanted.store(false, Ordering::SeqCst);
        }
        taken
    }

    /// Takes what is in the feed. If the feed is empty, asks the caller to queue its next task immediately.
    ///
    /// The second value is `true` if the caller was asked just now. It may have added a task without seeing the request, so the
    /// feed must be checked again.
    pub(crate) fn pull(&mut self, id: QueueId) -> (Option<Batch>, bool) {
        let Some(feed) = &mut self.feed else { return (None, false) };
        let taken = feed.take(id);
        let want = taken.is_none();
        let wanted = &feed.shared.wanted;
        let told = wanted.load(Ordering::Relaxed) != want && {
            wanted.store(want, Ordering::SeqCst);
            want
        };
        (taken, told)
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    pub(crate) fn push_back(&mut self, batch: Batch) {
        self.queued += batch.len() as usize;
        let rest = match self.queue.back_mut() {
            // Ending threads share a queue, so their tasks may arrive out of order.
            Some(last) if last.first > batch.first => {
                let at = self.queue.partition_point(|other| other.first < batch.first);
                return self.queue.insert(at, batch);
            }
            Some(last) => last.absorb(batch, MOST_BATCH_BYTES),
            None => Some(batch),
        };
        self.queue.extend(rest);
    }

    /// Appends a task to the last waiting batch. Returns the task if it does not fit into that batch.
    pub(crate) fn append(&mut self, task: Single) -> Option<Single> {
        let Some(last) = self.queue.back_mut() else { return Some(task) };
        let Recipient::Handles(handles) = &mut last.to else { return Some(task) };
        let fits = last.first + u64::from(last.records.len()) == task.number
            && last.attempts == 0
            && task.attachments.is_empty()
            && last.records.append_one(task.function, &task.args, MOST_BATCH_BYTES);
        if !fits {
            return Some(task);
        }
        handles.push_back(task.to);
        self.queued += 1;
        None
    }

    /// Inserts a batch that was sent and has come back. It goes before batches that were never sent.
    pub(crate) fn push_front(&mut self, batch: Batch) {
        self.queued += batch.len() as usize;
        // A batch that came back from another worker may be older.
        let at = self.queue.partition_point(|other| other.first < batch.first);
        self.queue.insert(at, batch);
    }

    /// Removes and returns the first waiting tasks: at most `most`, and all of one batch.
    pub(crate) fn take_first(&mut self, most: usize) -> Option<Batch> {
        self.skip_cancelled();
        let first = self.queue.front_mut()?;
        let n = u32::try_from(most).unwrap_or(u32::MAX);
        let until_cancelled = self.cancelled.first().and_then(|next| u32::try_from(next - first.first).ok());
        let n = until_cancelled.map_or(n, |there| n.min(there));
        let taken = if first.len() <= n { self.queue.pop_front()? } else { first.take_first(n) };
        self.queued -= taken.len() as usize;
        if self.queued == 0 {
            self.clear();
        }
        Some(taken)
    }

    /// Drops the cancelled tasks of a queue in which nothing waits.
    fn clear(&mut self) {
        self.queue.clear();
        self.cancelled.clear();
    }

    /// Drops cancelled tasks at the front.
    fn skip_cancelled(&mut self) {
        while let (Some(cancelled), Some(first)) = (self.cancelled.first(), self.queue.front_mut())
            && *cancelled == first.first
        {
            self.cancelled.pop_first();
            drop(first.take_first(1));
            if first.len() == 0 {
                self.queue.pop_front();
            }
        }
    }

    /// Removes and returns all waiting tasks.
    pub(crate) fn take_all(&mut self) -> VecDeque<Batch> {
        let mut all = VecDeque::new();
        if self.cancelled.is_empty() {
            std::mem::swap(&mut self.queue, &mut all);
        } else {
            all.extend(std::iter::from_fn(|| self.take_first(usize::MAX)));
        }
        self.queued = 0;
        all
    }

    /// Cancels the waiting task with this number, if it has a handle. Returns the handle and the number of attempts.
    ///
    /// The arguments stay in their batch and are skipped later, because removing them would move all others.
    pub(crate) fn remove(&mut self, number: u64) -> Option<(Arc<Completer>, u32)> {
        let behind = self.queue.partition_point(|batch| batch.first <= number);
        let batch = self.queue.get(behind.checked_sub(1)?)?;
        let Recipient::Handles(handles) = &batch.to else { return None };
        let this = (handles.get(usize::try_from(number - batch.first).ok()?)?.clone(), batch.attempts);
        if !self.cancelled.insert(number) {
            return None;
        }
        self.queued -= 1;
        if self.queued == 0 {
            self.clear();
        } else if self.cancelled.len() > MOST_CANCELLED.max(2 * self.queued) {
            // Most of the queue is cancelled tasks, so their memory is released now.
            self.take_all().into_iter().for_each(|batch| self.push_back(batch));
        }
        Some(this)
    }

    /// Returns the size of the first waiting batch in bytes.
    pub(crate) fn first_len_bytes(&self) -> usize {
        self.queue.front().map_or(0, |batch| batch.records.len_bytes())
    }

    /// Returns the time that a batch should take a worker.
    pub(crate) fn batch_time(&self) -> Duration {
        if self.options.is_patient { PATIENT_BATCH } else { BATCH }
    }

    /// Returns how many tasks of this queue make a batch.
    pub(crate) fn batch_size(&self) -> usize {
        self.batch_of(self.batch_time())
    }

    /// Returns how many tasks of this queue make a batch that takes this time.
    pub(crate) fn batch_of(&self, time: Duration) -> usize {
        match (self.options.batch, self.pace) {
            (Some(batch), _) => batch,
            (None, None) => 1,
            (None, Some(pace)) => ((time.as_nanos() as f64 / pace.max(1.0)) as usize).clamp(1, MOST_IN_BATCH),
        }
    }

    /// Returns how many tasks take as long as waking a worker does. One if the duration of a task is unknown.
    pub(crate) fn worth_waking(&self) -> usize {
        self.pace.map_or(1, |pace| (WAKING.as_nanos() as f64 / pace.max(1.0)) as usize)
    }

    /// Updates the measured duration: `tasks` more tasks are done, and the worker has reported `nanos`, or 0 if it will report
    /// later.
    pub(crate) fn measure(&mut self, tasks: u32, nanos: u64) {
        self.untimed = self.untimed.saturating_add(tasks);
        if nanos == 0 {
            return;
        }
        let tasks = f64::from(std::mem::take(&mut self.untimed));
        // A single task that lost its core for a while must not make all tasks count as long.
        let most = self.pace.map_or(f64::INFINITY, |pace| pace * MOST_JUMP);
        let this = (nanos as f64 / tasks).min(most);
        // The mean of many tasks is more reliable than one value.
        let weight = (tasks / 8.0).clamp(0.125, 0.5);
        self.pace = Some(self.pace.map_or(this, |pace| pace + (this - pace) * weight));
    }

    /// Notes that `tasks` tasks of this queue are no longer at `worker`.
    pub(crate) fn leave(&mut self, worker: WorkerId, tasks: u32) {
        if let Some(n) = self.at.get_mut(&worker) {
            *n = n.saturating_sub(tasks as usize);
            if *n == 0 {
                self.at.remove(&worker);
            }
        }
    }

    /// Returns whether the queue is empty, has nothing in flight, and its caller adds nothing more.
    pub(crate) fn is_left(&self) -> bool {
        !self.open && self.queue.is_empty() && self.at.is_empty()
    }

    pub(crate) fn may_use(&self, worker: WorkerId) -> bool {
        self.at.contains_key(&worker) || self.has_use_for_another()
    }

    /// Returns the maximum number of workers that run its tasks at a time.
    pub(crate) fn workers(&self) -> usize {
        self.options.workers.unwrap_or(usize::MAX)
    }

    /// Returns whether the queue may use one more worker than it does.
    pub(crate) fn has_use_for_another(&self) -> bool {
        self.at.len() < self.workers()
    }

    /// Returns whether a worker that has a core is the best one for the next tasks: they take little longer than waking another, or take
    /// less than a batch and would only take its core away. Also before the first result.
    pub(crate) fn is_short(&self) -> bool {
        let most = if self.computes { PATIENT_BATCH } else { SHORT };
        self.pace.is_none_or(|pace| pace < most.as_nanos() as f64)
    }

    /// Returns whether workers without a core would not do these tasks sooner, however many wait.
    pub(crate) fn computes(&self) -> bool {
        self.computes
    }

    /// Notes how often these tasks have waited for anything but a core.
    pub(crate) fn have_waited(&mut self, tasks: u32, times: u32) {
        self.computes = times.saturating_mul(TASKS_PER_WAIT) <= tasks;
    }

    /// Notes that a task has run for `time` and has not ended.
    pub(crate) fn takes_at_least(&mut self, time: Duration) {
        self.pace = self.pace.map(|pace| pace.max(time.as_nanos() as f64));
    }

    /// Returns how long a worker will probably take for `n` tasks, or `None` before the first result.
    pub(crate) fn estimate(&self, n: usize) -> Option<Duration> {
        self.pace.map(|pace| Duration::from_nanos((pace * n as f64) as u64))
    }
}
