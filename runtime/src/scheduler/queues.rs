//! Owns all queues, their turns, the tasks that are bound to one worker, and the path by which a task gets its outcome.
//!
//! The scheduler keeps this apart from its workers, so that it can be changed while one of the workers is being read. It never
//! decides which worker runs a task. It leaves what must happen outside the lock in [`Effects`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    config::{CallOptions, Finalizer},
    effects::Effects,
    policy::{BATCH, MOST_RESTING_QUEUES},
    queue::Queue,
};
use crate::{
    batch::{Batch, QueueId, Recipient, Single, name_of},
    captured::Captured,
    codec::Encoded,
    error::{TaskError, TaskErrorKind, TaskLocation},
    id::{FunctionId, WorkerId},
    observe::{
        ending::{Ending, Endings},
        tally::{Slowest, Tally},
        timeline::TimelineEntry,
    },
    protocol::Results,
};

/// All state of the scheduler except the workers, so that it can be changed while a worker is being read.
#[derive(Default)]
pub(crate) struct Queues {
    pub(crate) by_id: BTreeMap<QueueId, Queue>,
    /// The queues with waiting tasks, in the order of their turns.
    pub(crate) turns: VecDeque<QueueId>,
    /// The queues of calls, whose feeds may contain tasks.
    pub(crate) fed: Vec<QueueId>,
    pub(crate) queued: usize,
    /// The number of tasks without an outcome.
    pub(crate) unfinished: usize,
    /// The tasks that only one worker may run, by worker.
    pub(crate) pinned: BTreeMap<WorkerId, VecDeque<Batch>>,
    /// The time at which the feeds must be checked again.
    pub(crate) look_at_feeds: Option<Instant>,
    /// The time at which each worker last reported something, or received work while it was idle.
    pub(crate) progress: BTreeMap<WorkerId, Instant>,
    /// Workers whose tasks were taken back before they began, because the worker had reported nothing for too long. They get no
    /// tasks in advance until they report something.
    pub(crate) overdue: BTreeSet<WorkerId>,
    /// The workers whose initializer is running.
    pub(crate) initializing: BTreeSet<WorkerId>,
    /// The reason why the pool was given up, if it was and no worker has served since.
    pub(crate) given_up: Option<GivenUp>,
    /// The settings of single tasks.
    pub(crate) options: CallOptions,
    /// The name of the pool, for errors.
    pub(crate) name: Option<Arc<str>>,
    /// The statistics of each worker's place.
    pub(crate) tallies: Vec<Tally>,
    /// The number of tasks that ended in each way while they were at no worker.
    pub(crate) unserved: Endings,
    pub(crate) slowest: Slowest,
    /// The new entries for the timeline, if there is one.
    pub(crate) timeline: Option<Vec<TimelineEntry>>,
}

/// The reason why a pool was given up, and the tasks that this applies to.
pub(crate) struct GivenUp {
    pub(crate) kind: TaskErrorKind,
    /// The time at which workers are started again. `None` means never.
    pub(crate) until: Option<Instant>,
    /// Workers are started again immediately for calls from this number on, and for single tasks.
    pub(crate) next_call: Option<u64>,
}

impl GivenUp {
    /// Returns whether workers must be started again for a task that is submitted to this queue.
    pub(crate) fn is_over(&self, queue: QueueId, now: Instant) -> bool {
        let is_later = |next: u64| !matches!(queue, QueueId::Call(number) if number < next);
        self.until.is_some_and(|until| now >= until) || self.next_call.is_some_and(is_later)
    }
}

impl Queues {
    /// Returns whether the pool is given up and no start may be tried yet.
    pub(crate) fn is_given_up(&self, now: Instant) -> bool {
        self.given_up.as_ref().is_some_and(|given_up| given_up.until.is_none_or(|until| now < until))
    }

    /// Returns the first turn of waiting tasks that are not of a patient call.
    pub(crate) fn urgent_turn(&self) -> Option<usize> {
        self.turns.iter().position(|id| self.by_id.get(id).is_some_and(|queue| !queue.options.is_patient))
    }

    /// Returns the time that a batch of this queue should take now. While urgent tasks wait, a patient call is as any other.
    pub(crate) fn batch_time(&self, queue: &Queue) -> Duration {
        if queue.options.is_patient && self.urgent_turn().is_some() { BATCH } else { queue.batch_time() }
    }

    fn queue(&mut self, id: QueueId) -> &mut Queue {
        let options = self.options;
        self.by_id.entry(id).or_insert_with(|| Queue::new(options, None))
    }

    /// Returns the settings of the tasks of a queue.
    pub(crate) fn options_of(&self, id: QueueId) -> &CallOptions {
        self.by_id.get(&id).map_or(&self.options, |queue| &queue.options)
    }

    pub(crate) fn push_back(&mut self, batch: Batch) {
        let id = batch.queue;
        self.queued += batch.len() as usize;
        let queue = self.queue(id);
        let first = queue.queued() == 0;
        queue.push_back(batch);
        if first {
            self.turns.push_back(id);
        }
    }

    /// Appends a task to the last waiting batch of its queue. Returns the task if it does not fit into that batch.
    pub(crate) fn append(&mut self, task: Single) -> Option<Single> {
        let Some(queue) = self.by_id.get_mut(&task.queue) else { return Some(task) };
        let rest = queue.append(task);
        self.queued += usize::from(rest.is_none());
        rest
    }

    /// Puts back a batch that was sent and has not begun, before batches that were never sent.
    pub(crate) fn push_front(&mut self, batch: Batch) {
        let id = batch.queue;
        self.queued += batch.len() as usize;
        let queue = self.queue(id);
        let first = queue.queued() == 0;
        queue.push_front(batch);
        if first {
            self.turns.push_front(id);
        }
    }

    /// Puts back batches that were sent to `worker` and have not begun. They wait in their order, before batches that were never
    /// sent, and the attempt does not count.
    pub(crate) fn requeue(&mut self, batches: Vec<Batch>, worker: WorkerId) {
        for mut batch in batches.into_iter().rev() {
            batch.attempts -= 1;
            self.leave(&batch, worker);
            self.put_first(batch, worker);
        }
    }

    /// Queues a batch to be sent again, before batches that were never sent. A pinned batch waits for the same worker.
    pub(crate) fn put_first(&mut self, batch: Batch, worker: WorkerId) {
        if batch.queue == QueueId::Pinned {
            self.pinned.entry(worker).or_default().push_front(batch);
        } else {
            self.push_front(batch);
        }
    }

    /// Cancels the waiting task with this number, which has a handle, and completes the handle with `kind`. Returns `false` if
    /// the task is in no queue.
    pub(crate) fn take_back(
        &mut self,
        number: u64,
        function: &'static str,
        kind: TaskErrorKind,
        effects: &mut Effects,
    ) -> bool {
        let found =
            self.by_id.iter_mut().find_map(|(id, queue)| queue.remove(number).map(|this| (*id, this)));
        let Some((id, (handle, attempts))) = found else { return false };
        self.queued -= 1;
        self.unfinished -= 1;
        let place = TaskLocation { attempts, ..TaskLocation::default() };
        self.unserved.add(Ending::of(&kind), 1);
        let error = TaskError::new(function, kind, place).in_pool(self.name.as_ref());
        handle.complete(Err(error), &mut effects.wakes);
        if self.by_id.get(&id).is_none_or(|queue| queue.queued() == 0) {
            self.turns.retain(|turn| *turn != id);
        }
        self.remove_if_done(id);
        true
    }

    /// Removes and returns all waiting batches of a queue.
    pub(crate) fn take_all(&mut self, id: QueueId) -> VecDeque<Batch> {
        let batches = self.by_id.get_mut(&id).map(Queue::take_all).unwrap_or_default();
        self.queued -= batches.iter().map(|batch| batch.len() as usize).sum::<usize>();
        self.turns.retain(|turn| *turn != id);
        batches
    }

    /// Notes that these tasks are no longer at `worker`.
    pub(crate) fn leave(&mut self, batch: &Batch, worker: WorkerId) {
        if let Some(queue) = self.by_id.get_mut(&batch.queue) {
            queue.leave(worker, batch.len());
        }
    }

    /// Notes that `n` tasks at `worker` have ended.
    fn ended(&mut self, id: QueueId, ending: Ending, n: u32, nanos: u64, worker: WorkerId) {
        self.unfinished -= n as usize;
        self.tally(worker).done(ending, n, nanos);
        if self.unfinished == 0
            && let Some(timeline) = &mut self.timeline
        {
            timeline.push(TimelineEntry::Idle);
        }
        let Some(queue) = self.by_id.get_mut(&id) else { return };
        queue.measure(n, nanos);
        queue.leave(worker, n);
        if queue.is_left() {
            self.remove_if_done(id);
        }
    }

    /// Delivers the results of the first tasks of a batch.
    pub(crate) fn done(
        &mut self,
        batch: &mut Batch,
        results: Results<'_>,
        worker: WorkerId,
        effects: &mut Effects,
    ) {
        if self.slowest.has_room_for(results.most_nanos()) || self.timeline.is_some() {
            self.look_at_each(batch, results, worker);
        }
        self.tally(worker).is_of_call = matches!(batch.to, Recipient::Call(_));
        batch.to.give(batch.first, results, &mut effects.wakes);
        self.ended(batch.queue, Ending::Finished, results.len(), results.nanos(), worker);
    }

    /// Delivers the outcome of the first task of a batch.
    pub(crate) fn done_one(
        &mut self,
        batch: &mut Batch,
        nanos: u64,
        outcome: Result<Encoded<'_>, TaskError>,
        worker: WorkerId,
        effects: &mut Effects,
    ) {
        if self.slowest.has_room_for(nanos) || self.timeline.is_some() {
            self.look_at_one(batch, 0, batch.function(), nanos, outcome.is_err(), worker);
        }
        let ended = outcome.as_ref().map_or_else(|error| Ending::of(error.kind()), |_| Ending::Finished);
        batch.to.give_one(batch.first, outcome, &mut effects.wakes);
        self.ended(batch.queue, ended, 1, nanos, worker);
    }

    /// Returns the statistics of a worker's place.
    pub(crate) fn tally(&mut self, worker: WorkerId) -> &mut Tally {
        let place = worker.0 as usize;
        if self.tallies.len() <= place {
            self.tallies.resize_with(place + 1, Tally::default);
        }
        &mut self.tallies[place]
    }

    /// Adds time that a worker had not reported with its replies. Of several tasks, the last is the long one: those before it
    /// were timed together because they were short.
    pub(crate) fn late(&mut self, worker: WorkerId, function: FunctionId, task: u64, tasks: u32, nanos: u64) {
        let tally = self.tally(worker);
        tally.worked(nanos);
        let index = tally.is_of_call.then(|| usize::try_from(task).ok()).flatten();
        if tasks > 0 && self.slowest.has_room_for(nanos) {
            self.slowest.put(name_of(Some(function)), index, nanos, worker);
        }
    }

    /// Looks at each of these results: some took long, or there is a timeline.
    #[cold]
    fn look_at_each(&mut self, batch: &Batch, results: Results<'_>, worker: WorkerId) {
        let mut functions = batch.functions();
        let mut untimed = 0;
        for (at, nanos) in (0..).zip(results.each_nanos()) {
            untimed += 1;
            if nanos > 0 {
                // Short tasks are timed together, so each is given an equal share.
                let share = nanos / untimed;
                for (back, function) in (0..untimed).rev().zip(&mut functions) {
                    self.look_at_one(batch, at - back, function, share, false, worker);
                }
                untimed = 0;
            }
        }
    }

    /// Records how long the task at this place in the batch took.
    fn look_at_one(
        &mut self,
        batch: &Batch,
        at: u64,
        function: &'static str,
        nanos: u64,
        failed: bool,
        worker: WorkerId,
    ) {
        let number = batch.first + at;
        if self.slowest.has_room_for(nanos) && nanos > 0 {
            let index = match batch.to {
                Recipient::Call(_) => usize::try_from(number).ok(),
                _ => None,
            };
            self.slowest.put(function, index, nanos, worker);
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.push(TimelineEntry::Task { worker, function, number, nanos, failed });
        }
    }

    /// Like [`done_one`](Self::done_one), for a task that failed, or was told to end and returned.
    pub(crate) fn failed(
        &mut self,
        batch: &mut Batch,
        nanos: u64,
        kind: TaskErrorKind,
        by: (WorkerId, u32),
        output: Option<Arc<Captured>>,
        effects: &mut Effects,
    ) {
        let error = self.error(batch.function(), kind, batch.place(Some(by))).with_output(output);
        self.done_one(batch, nanos, Err(error), by.0, effects);
    }

    /// Fails tasks that are at no worker any more. `worker` is the worker that had them, its process, and what the first of them
    /// wrote.
    pub(crate) fn fail(
        &mut self,
        mut batch: Batch,
        kind: &TaskErrorKind,
        worker: Option<(WorkerId, u32, Option<&Arc<Captured>>)>,
        effects: &mut Effects,
    ) {
        let by = worker.map(|(id, pid, _)| (id, pid));
        let endings = match by {
            Some((id, _)) => self.tally(id).endings(),
            None => &mut self.unserved,
        };
        endings.add(Ending::of(kind), u64::from(batch.len()));
        let output = worker.and_then(|(.., output)| output);
        // All at once, because a batch looks for its first task behind those that are done.
        let functions: Vec<_> = batch.functions().collect();
        for function in functions {
            let error = self.error(function, kind.clone(), batch.place(by)).with_output(output.cloned());
            batch.to.give_one(batch.first, Err(error), &mut effects.wakes);
            batch.done(1);
            self.unfinished -= 1;
        }
        self.remove_if_done(batch.queue);
    }

    fn error(&self, function: &'static str, kind: TaskErrorKind, place: TaskLocation) -> TaskError {
        TaskError::new(function, kind, place).in_pool(self.name.as_ref())
    }

    /// Returns the error of a finalizer that gave no result.
    pub(crate) fn exit_error(
        &self,
        finalizer: Option<&Finalizer>,
        kind: TaskErrorKind,
        worker: (WorkerId, u32),
    ) -> TaskError {
        let function = finalizer.map_or("", |finalizer| finalizer.call.entry.name);
        let place = TaskLocation { index: None, attempts: 1, worker: Some(worker) };
        self.error(function, kind, place)
    }

    /// Removes a queue that is empty and to which its caller adds nothing more.
    pub(crate) fn remove_if_done(&mut self, id: QueueId) {
        if self.by_id.get(&id).is_some_and(Queue::is_left) {
            // A thread's queue remembers how long its tasks take.
            if !matches!(id, QueueId::Thread(_)) || self.by_id.len() > MOST_RESTING_QUEUES {
                self.by_id.remove(&id);
            }
        }
    }
}
