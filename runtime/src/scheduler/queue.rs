//! Tasks that wait or run, and the lanes in which they wait: one for each call, and one for each thread that submits single tasks.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    batch::{LaneId, MOST_PARCEL_BYTES, Parcel, Recipient, Single},
    feed::Feed,
    policy::{BATCH, MOST_IN_BATCH, MOST_JUMP, SHORT, WAKING},
};
use crate::{handle::Completer, id::WorkerId, supervisor::ledger::Load};

/// So many tasks that were taken back may lie among those that wait, or twice as many as these.
const MOST_GONE: usize = 1 << 10;
/// The tasks of one caller.
pub(crate) struct Lane {
    /// What the caller has not queued yet.
    pub(crate) feed: Option<Feed>,
    /// What waits, by number. None is empty.
    queue: VecDeque<Parcel>,
    /// Of those, what was taken back and has its outcome: it is stepped over.
    gone: BTreeSet<u64>,
    /// How many tasks wait.
    queued: usize,
    /// How many travel together, if the caller has said so.
    pub(crate) chunk: Option<usize>,
    /// How many workers it may use at a time.
    pub(crate) most_workers: usize,
    /// How long each task may run.
    pub(crate) timeout: Option<Duration>,
    /// The seed of a call.
    pub(crate) seed: Option<u64>,
    /// Nanoseconds a task, smoothed; `None` before the first result.
    pace: Option<f64>,
    /// Results since a worker last said how long its tasks took: the next time covers them, too.
    untimed: u32,
    /// Tasks in flight at each worker.
    pub(crate) at: BTreeMap<WorkerId, usize>,
    /// The caller may add more.
    pub(crate) open: bool,
}

impl Lane {
    /// For the single tasks of a thread.
    pub(crate) fn of_thread(timeout: Option<Duration>) -> Self {
        Self::new(None, usize::MAX, timeout, None)
    }

    /// For a call that is open.
    pub(crate) fn of_call(
        chunk: Option<usize>,
        most_workers: usize,
        timeout: Option<Duration>,
        feed: Feed,
    ) -> Self {
        Self::new(chunk, most_workers, timeout, Some(feed))
    }

    fn new(chunk: Option<usize>, most_workers: usize, timeout: Option<Duration>, feed: Option<Feed>) -> Self {
        Self {
            timeout,
            open: feed.is_some(),
            feed,
            queue: VecDeque::new(),
            gone: BTreeSet::new(),
            queued: 0,
            chunk,
            most_workers,
            seed: None,
            pace: None,
            untimed: 0,
            at: BTreeMap::new(),
        }
    }

    /// Takes what the caller, which calls this, has added to its feed: so many tasks in all.
    pub(crate) fn pull_all(&mut self, id: LaneId, added: u64) -> Option<Parcel> {
        let feed = self.feed.as_mut()?;
        let taken = feed.take(id, Some(added));
        if feed.shared.wanted.load(Ordering::Relaxed) {
            feed.shared.wanted.store(false, Ordering::SeqCst);
        }
        taken
    }

    /// Takes what the caller has not queued. If there is nothing, the next is to be queued at once. Says whether the caller has just
    /// been told so: what it added meanwhile is to be looked for once more.
    pub(crate) fn pull(&mut self, id: LaneId) -> (Option<Parcel>, bool) {
        let Some(feed) = &mut self.feed else { return (None, false) };
        let taken = feed.take(id, None);
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

    pub(crate) fn push_back(&mut self, parcel: Parcel) {
        self.queued += parcel.len() as usize;
        let rest = match self.queue.back_mut() {
            // Threads that end share a lane, and what one hands in may come before what another has.
            Some(last) if last.first > parcel.first => {
                let at = self.queue.partition_point(|other| other.first < parcel.first);
                return self.queue.insert(at, parcel);
            }
            Some(last) => last.absorb(parcel),
            None => Some(parcel),
        };
        self.queue.extend(rest);
    }

    /// Puts one task behind the last that waits, if it may travel with it; else it comes back.
    pub(crate) fn append(&mut self, task: Single) -> Option<Single> {
        let Some(last) = self.queue.back_mut() else { return Some(task) };
        let Recipient::Handles(handles) = &mut last.to else { return Some(task) };
        let fits = last.first + u64::from(last.records.len()) == task.number
            && (last.attempts, last.retries) == (0, task.retries)
            && last.records.append_one(task.function, &task.args, MOST_PARCEL_BYTES);
        if !fits {
            return Some(task);
        }
        handles.push_back(task.to);
        self.queued += 1;
        None
    }

    /// Puts in what was sent and has come back: before what was never sent.
    pub(crate) fn push_front(&mut self, parcel: Parcel) {
        self.queued += parcel.len() as usize;
        // What came back from another worker may be older.
        let at = self.queue.partition_point(|other| other.first < parcel.first);
        self.queue.insert(at, parcel);
    }

    /// The first tasks that wait, `most` at the most, and of one parcel.
    pub(crate) fn take_first(&mut self, most: usize) -> Option<Parcel> {
        self.step_over_gone();
        let first = self.queue.front_mut()?;
        let n = u32::try_from(most).unwrap_or(u32::MAX);
        let until_gone = self.gone.first().and_then(|next| u32::try_from(next - first.first).ok());
        let n = until_gone.map_or(n, |there| n.min(there));
        let taken = if first.len() <= n { self.queue.pop_front()? } else { first.take_first(n) };
        self.queued -= taken.len() as usize;
        if self.queued == 0 {
            self.clear();
        }
        Some(taken)
    }

    /// Nothing waits: drops what was taken back.
    fn clear(&mut self) {
        self.queue.clear();
        self.gone.clear();
    }

    /// Drops what is at the front and does not wait any more.
    fn step_over_gone(&mut self) {
        while let (Some(gone), Some(first)) = (self.gone.first(), self.queue.front_mut())
            && *gone == first.first
        {
            self.gone.pop_first();
            drop(first.take_first(1));
            if first.len() == 0 {
                self.queue.pop_front();
            }
        }
    }

    /// All that waits.
    pub(crate) fn take_all(&mut self) -> VecDeque<Parcel> {
        let mut all = VecDeque::new();
        if self.gone.is_empty() {
            std::mem::swap(&mut self.queue, &mut all);
        } else {
            all.extend(std::iter::from_fn(|| self.take_first(usize::MAX)));
        }
        self.queued = 0;
        all
    }

    /// Takes the task of this number out of the queue, if it waits here and has a handle: its handle, and how often it was begun. Its
    /// arguments stay where they are, to be stepped over: to take them from among the others would be to move those.
    pub(crate) fn remove(&mut self, number: u64) -> Option<(Arc<Completer>, u32)> {
        let behind = self.queue.partition_point(|parcel| parcel.first <= number);
        let parcel = self.queue.get(behind.checked_sub(1)?)?;
        let Recipient::Handles(handles) = &parcel.to else { return None };
        let this = (handles.get(usize::try_from(number - parcel.first).ok()?)?.clone(), parcel.attempts);
        if !self.gone.insert(number) {
            return None;
        }
        self.queued -= 1;
        if self.queued == 0 {
            self.clear();
        } else if self.gone.len() > MOST_GONE.max(2 * self.queued) {
            // Their memory goes now, not when their turn would come.
            self.take_all().into_iter().for_each(|parcel| self.push_back(parcel));
        }
        Some(this)
    }

    /// How large the first parcel that waits is.
    pub(crate) fn first_len_bytes(&self) -> usize {
        self.queue.front().map_or(0, |parcel| parcel.records.len_bytes())
    }

    /// How many tasks of this lane make a batch.
    pub(crate) fn batch(&self) -> usize {
        match (self.chunk, self.pace) {
            (Some(chunk), _) => chunk,
            (None, None) => 1,
            (None, Some(pace)) => {
                ((BATCH.as_nanos() as f64 / pace.max(1.0)) as usize).clamp(1, MOST_IN_BATCH)
            }
        }
    }

    /// So many tasks take as long as it takes to wake a worker for them; at least one.
    pub(crate) fn worth_waking(&self) -> usize {
        self.pace.map_or(1, |pace| (WAKING.as_nanos() as f64 / pace.max(1.0)) as usize)
    }

    /// So many tasks are done, and so much time has been told of.
    pub(crate) fn measure(&mut self, tasks: u32, nanos: u64) {
        self.untimed = self.untimed.saturating_add(tasks);
        if nanos == 0 {
            return;
        }
        let tasks = f64::from(std::mem::take(&mut self.untimed));
        // One that lost its core to another for a while does not make them all long.
        let most = self.pace.map_or(f64::INFINITY, |pace| pace * MOST_JUMP);
        let this = (nanos as f64 / tasks).min(most);
        // Many tasks say more than one.
        let weight = (tasks / 8.0).clamp(0.125, 0.5);
        self.pace = Some(self.pace.map_or(this, |pace| pace + (this - pace) * weight));
    }

    /// So many tasks of this lane are no longer at this worker.
    pub(crate) fn leave(&mut self, worker: WorkerId, tasks: u32) {
        if let Some(n) = self.at.get_mut(&worker) {
            *n = n.saturating_sub(tasks as usize);
            if *n == 0 {
                self.at.remove(&worker);
            }
        }
    }

    /// Nothing is in it and nobody adds to it.
    pub(crate) fn is_left(&self) -> bool {
        !self.open && self.queue.is_empty() && self.at.is_empty()
    }

    pub(crate) fn may_use(&self, worker: WorkerId) -> bool {
        self.at.contains_key(&worker) || self.has_use_for_another()
    }

    /// It may use one worker more than it does.
    pub(crate) fn has_use_for_another(&self) -> bool {
        self.at.len() < self.most_workers
    }

    /// A task takes little longer than it takes to wake a worker for it.
    pub(crate) fn is_short(&self) -> bool {
        self.pace.is_some_and(|pace| pace < SHORT.as_nanos() as f64)
    }

    /// A task has run for so long and has not ended.
    pub(crate) fn takes_at_least(&mut self, time: Duration) {
        self.pace = self.pace.map(|pace| pace.max(time.as_nanos() as f64));
    }

    /// How long a worker will take for `n` of these tasks, if that can be said.
    pub(crate) fn estimate(&self, n: usize) -> Option<Duration> {
        self.pace.map(|pace| Duration::from_nanos((pace * n as f64) as u64))
    }
}
