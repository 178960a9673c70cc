//! Tasks that wait or run, and the lanes in which they wait: one for each call, and one for each thread that submits single tasks.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{inbox::Inbox, queues::After};
use crate::{
    caller::Caller,
    captured::Captured,
    codec::{Encoded, HERE_BYTES, ShortBytes},
    error::{Place, TaskError},
    handle::{Completer, Wakes},
    id::{FunctionId, WorkerId},
    protocol::{RECORD_HEAD_BYTES, Records, Results},
    registry,
    ring::{self, Consumer, Heap, Producer},
    supervisor::state::Load,
};

/// A batch should take a worker about so long: long against a system call, short against a person's patience.
pub(crate) const BATCH: Duration = Duration::from_micros(200);
/// To wake a process that sleeps takes about so long.
const WAKING: Duration = Duration::from_micros(20);
/// Tasks that take less are short: a worker that gets on with some of them is soon done.
const SHORT: Duration = Duration::from_micros(50);
/// No result says more than that tasks take so many times longer than was thought.
const MOST_JUMP: f64 = 8.0;
/// So many tasks that were taken back may lie among those that wait, or twice as many as these.
const MOST_GONE: usize = 1 << 10;
/// No batch is larger.
pub(crate) const MOST_IN_BATCH: usize = 8192;
/// A batch ends when its arguments are so many bytes: what was sent and is taken back has been sent for nothing. A task with more
/// goes alone, to an idle worker, and nothing goes behind it.
pub(crate) const BATCH_BYTES: usize = 96 << 10;
/// Tasks that wait are kept together up to so many bytes.
const MOST_PARCEL_BYTES: usize = 48 << 10;
/// The room for tasks of a call that the caller has not queued yet.
const FEED_BYTES: usize = 32 << 10;

/// The name of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LaneId {
    /// One call.
    Call(u64),
    /// The single tasks of one thread.
    Thread(u64),
    /// Tasks that are bound to one worker each.
    Pinned,
}

/// Consecutive tasks that wait or run together, and where their results go.
pub(crate) struct Parcel {
    pub(crate) lane: LaneId,
    /// The number of the first: its index in its call, or its number in the pool.
    pub(crate) first: u64,
    pub(crate) records: Records,
    pub(crate) to: Recipient,
    pub(crate) attempts: u32,
    pub(crate) retries: u32,
}

/// A task with a handle, before it is queued.
pub(crate) struct Single {
    pub(crate) lane: LaneId,
    pub(crate) number: u64,
    pub(crate) function: FunctionId,
    pub(crate) args: ShortBytes,
    pub(crate) to: Arc<Completer>,
    pub(crate) retries: u32,
}

impl From<Single> for Parcel {
    fn from(task: Single) -> Self {
        Self {
            lane: task.lane,
            first: task.number,
            records: Records::of(task.function, task.args),
            to: Recipient::Handles(VecDeque::from([task.to])),
            attempts: 0,
            retries: task.retries,
        }
    }
}

/// Where results go.
pub(crate) enum Recipient {
    /// To a call; the tasks' numbers are indices in it.
    Call(Arc<Inbox>),
    /// To a handle for each task, the first first.
    Handles(VecDeque<Arc<Completer>>),
    /// To the handle of one member of a broadcast; the task's number is its index.
    Member {
        handle: Arc<Completer>,
        /// The broadcast's.
        seed: u64,
    },
    /// Nowhere: an initializer's failure is seen as it passes.
    Nobody,
}

impl Load for Parcel {
    #[inline]
    fn len(&self) -> u32 {
        self.records.len()
    }

    fn first_task(&self) -> u64 {
        self.first
    }

    fn records(&mut self) -> &mut Records {
        &mut self.records
    }

    fn done(&mut self, n: u32) {
        self.records.advance(n);
        self.first = self.first.wrapping_add(u64::from(n));
    }

    fn function_after(&self, n: u32) -> &'static str {
        name_of(self.records.function_after(n))
    }

    fn take_first(&mut self, n: u32) -> Self {
        let n = n.min(self.len());
        let to = match &mut self.to {
            Recipient::Call(inbox) => Recipient::Call(inbox.clone()),
            Recipient::Handles(handles) => {
                let n = n as usize;
                // Whichever are fewer are moved.
                Recipient::Handles(if n < handles.len() / 2 {
                    handles.drain(..n).collect()
                } else {
                    let rest = handles.split_off(n);
                    std::mem::replace(handles, rest)
                })
            }
            Recipient::Member { handle, seed } => Recipient::Member { handle: handle.clone(), seed: *seed },
            Recipient::Nobody => Recipient::Nobody,
        };
        let first = Self {
            lane: self.lane,
            first: self.first,
            records: self.records.take_first(n),
            to,
            attempts: self.attempts,
            retries: self.retries,
        };
        self.first += u64::from(n);
        first
    }
}

impl Recipient {
    /// Who handed in the first of the tasks.
    pub(crate) fn caller(&self) -> Caller {
        match self {
            Self::Call(inbox) => inbox.caller(),
            Self::Handles(handles) => handles.front().map(|handle| handle.caller()).unwrap_or_default(),
            Self::Member { handle, .. } => handle.caller(),
            Self::Nobody => Caller::default(),
        }
    }
}

impl Parcel {
    /// Where the first task is, for its error.
    pub(crate) fn place(&self, worker: Option<(WorkerId, u32)>) -> Place {
        let index = match self.to {
            Recipient::Call(_) | Recipient::Member { .. } => usize::try_from(self.first).ok(),
            Recipient::Handles(_) | Recipient::Nobody => None,
        };
        Place { index, attempts: self.attempts, worker }
    }

    /// Tells of what the first task has written; its outcome comes next.
    pub(crate) fn tell(&self, output: Option<Arc<Captured>>, after: &mut After) {
        match (output, &self.to) {
            (None, _) => {}
            (Some(output), Recipient::Nobody) => after.shows.push(output),
            (Some(output), to) => to.tell(self.first, output, &mut after.wakes),
        }
    }

    /// The name of the first task's function.
    pub(crate) fn function(&self) -> &'static str {
        name_of(self.records.function_after(0))
    }

    /// The names of all of the tasks' functions, in order.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &'static str> {
        self.records.functions().map(|function| name_of(Some(function)))
    }

    /// Puts the tasks of `next` behind these, if they may travel together; else it comes back.
    fn absorb(&mut self, mut next: Self) -> Option<Self> {
        let fits = self.first + u64::from(self.len()) == next.first
            && (self.attempts, self.retries) == (next.attempts, next.retries)
            && !self.records.is_large()
            && !next.records.is_large()
            && self.records.len_bytes() + next.records.len_bytes() <= MOST_PARCEL_BYTES;
        match (&mut self.to, &mut next.to) {
            (Recipient::Call(_), Recipient::Call(_)) if fits => {}
            (Recipient::Handles(handles), Recipient::Handles(others)) if fits => handles.append(others),
            _ => return Some(next),
        }
        self.records.append(&next.records);
        None
    }
}

pub(crate) fn name_of(function: Option<FunctionId>) -> &'static str {
    function.and_then(registry::find).map_or("a function that is not in the table", |entry| entry.name)
}

impl Recipient {
    /// Tells of what the first task, whose number this is, has written; its outcome comes next.
    pub(crate) fn tell(&self, number: u64, output: Arc<Captured>, wakes: &mut Wakes) {
        match self {
            Self::Call(inbox) => inbox.tell(number as usize, output, wakes),
            Self::Handles(handles) => {
                if let Some(handle) = handles.front() {
                    handle.tell(output);
                }
            }
            Self::Member { handle, .. } => handle.tell(output),
            Self::Nobody => {}
        }
    }

    /// Gives the results of the first tasks, from the one of this number on.
    pub(crate) fn give(&mut self, first: u64, results: Results<'_>, wakes: &mut Wakes) {
        match self {
            Self::Call(inbox) => inbox.give(first as usize, results, wakes),
            Self::Handles(handles) => {
                for (result, handle) in results.zip(handles.drain(..results.len() as usize)) {
                    handle.complete(Ok(Encoded::Short(result).into_owned()), wakes);
                }
            }
            Self::Member { handle, .. } => {
                for result in results {
                    handle.complete(Ok(Encoded::Short(result).into_owned()), wakes);
                }
            }
            Self::Nobody => {}
        }
    }

    /// Returns the seed of the tasks, where their lane has none.
    pub(crate) fn seed(&self) -> Option<u64> {
        match self {
            Self::Member { seed, .. } => Some(*seed),
            Self::Call(_) | Self::Handles(_) | Self::Nobody => None,
        }
    }

    /// Somebody looks at how far the tasks are.
    pub(crate) fn wants_progress(&self) -> bool {
        matches!(self, Self::Call(inbox) if inbox.wants_progress)
    }

    /// Tells how far the task of this number is.
    pub(crate) fn give_progress(&mut self, number: u64, fraction: f64, wakes: &mut Wakes) {
        if let Self::Call(inbox) = self {
            inbox.give_progress(number as usize, fraction, wakes);
        }
    }

    /// Gives the outcome of the first task, whose number this is.
    pub(crate) fn give_one(
        &mut self,
        number: u64,
        outcome: Result<Encoded<'_>, TaskError>,
        wakes: &mut Wakes,
    ) {
        match self {
            Self::Call(inbox) => inbox.give_one(number as usize, outcome.map(Encoded::into_owned), wakes),
            Self::Handles(handles) => {
                if let Some(handle) = handles.pop_front() {
                    handle.complete(outcome.map(Encoded::into_owned), wakes);
                }
            }
            Self::Member { handle, .. } => handle.complete(outcome.map(Encoded::into_owned), wakes),
            Self::Nobody => {}
        }
    }
}

/// The caller's end of the tasks of a call that it has not queued yet, to queue many at a time. The scheduler takes them when the
/// call's queue has run dry and a worker is idle, so that a producer that blocks holds nothing back.
#[derive(Debug)]
pub(crate) struct Feeder {
    records: Producer<Heap>,
    added: u64,
    shared: Arc<FeedState>,
}

/// What the two ends tell each other besides the tasks.
#[derive(Debug)]
struct FeedState {
    /// A worker is idle and found nothing: what is pushed is to be queued at once.
    wanted: AtomicBool,
    /// The index of the next task that the scheduler will take.
    next: AtomicU64,
}

/// The scheduler's end.
pub(crate) struct Feed {
    records: Consumer<Heap>,
    /// How many tasks were taken from it.
    taken: u64,
    shared: Arc<FeedState>,
    to: Arc<Inbox>,
    retries: u32,
}

/// Tasks with larger arguments are queued one by one.
pub(crate) const MOST_FED_BYTES: usize = 2 << 10;

impl Feeder {
    /// The two ends for a call.
    pub(crate) fn new(to: Arc<Inbox>, retries: u32) -> (Self, Feed) {
        let (producer, consumer) = ring::pair(FEED_BYTES);
        // The first task goes at once.
        let shared = Arc::new(FeedState { wanted: AtomicBool::new(true), next: AtomicU64::new(0) });
        let feed = Feed { records: consumer, taken: 0, shared: shared.clone(), to, retries };
        (Self { records: producer, added: 0, shared }, feed)
    }

    /// Adds a task; `false`: there is no room.
    #[inline]
    pub(crate) fn push(&mut self, function: FunctionId, args: &[u8]) -> bool {
        let head = crate::protocol::record_head(function, args.len());
        let fits = self.records.fits(head.len() + args.len()) == Ok(true);
        let added = fits && self.records.write(&[&head, args]).is_ok();
        self.added += u64::from(added);
        added
    }

    /// As [`push`](Self::push), for arguments that are the first `len` of these bytes; `false`: there is no room that can be seen, or
    /// not in one piece, or they are more than eight.
    #[inline(always)]
    pub(crate) fn push_few(&mut self, function: FunctionId, bytes: &[u8; HERE_BYTES], len: usize) -> bool {
        let [a, b, c, d, e, f, g, h, ..] = *bytes;
        let head = u64::from_le_bytes(crate::protocol::record_head(function, len));
        let padded = u128::from(head) | u128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h])) << 64;
        let added = len <= 8 && self.records.write_padded(&padded.to_le_bytes(), RECORD_HEAD_BYTES + len);
        self.added += u64::from(added);
        added
    }

    /// How many tasks were added.
    pub(crate) fn added(&self) -> u64 {
        self.added
    }

    /// A worker is idle and found nothing here: what is pushed is to be queued at once.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.shared.wanted.load(Ordering::Relaxed)
    }

    /// The index of the next task that the scheduler will take.
    pub(crate) fn next(&self) -> u64 {
        // SYNC(feed-next): pairs with the Release in `Feed::take` and `Feed::skip`.
        self.shared.next.load(Ordering::Acquire)
    }
}

impl Feed {
    /// Takes what is there. `added`: how many tasks were added in all, if that is known and more are not being added.
    fn take(&mut self, lane: LaneId, added: Option<u64>) -> Option<Parcel> {
        let mut bytes = Vec::new();
        let n = self.records.read(&mut bytes, FEED_BYTES).unwrap_or(0);
        if n == 0 {
            return None;
        }
        let records = match added {
            Some(added) => Records::from_counted(bytes, (added - self.taken) as u32),
            None => Records::from_bytes(bytes),
        };
        self.taken += u64::from(records.len());
        // SYNC(feed-next): pairs with the Acquire load in `Feeder::next`.
        let first = self.shared.next.fetch_add(u64::from(records.len()), Ordering::AcqRel);
        let to = Recipient::Call(self.to.clone());
        Some(Parcel { lane, first, records, to, attempts: 0, retries: self.retries })
    }

    /// The caller has queued a task apart: its number.
    pub(crate) fn skip(&mut self) -> u64 {
        self.shared.next.fetch_add(1, Ordering::AcqRel)
    }
}

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
