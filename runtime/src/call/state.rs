//! One call of many tasks, from the caller's side: a window of tasks in flight, and the results as they arrive.
//!
//! The iterators and `collect.rs` push tasks and receive results. Order, decoding and first failures are their business.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{ended, in_process::InProcess, lent::LentToTasks, window::Window};
use crate::{
    batch::{
        Batch, QueueId, Recipient,
        inbox::{Arrival, Arrivals, Inbox, Item},
    },
    caller::{Caller, CallerCell},
    context::seed_of_call,
    driver::state::Driver,
    error::{POOL_ENDED, TaskError, TaskErrorKind},
    handle::{Drive, Waiter, Wakes, inherited, inherited_kind},
    id::FunctionId,
    observe::report::Report,
    protocol::{EncodedTasks, Results},
    registry::Entry,
    scheduler::{
        config::{CallOptions, Config},
        feed::Feeder,
        policy::MOST_FED_BYTES,
    },
    seed::{self, Calls},
    segment::Attachments,
    sys::generation::generation,
    task::{EncodedCall, Handles, SentTask, travels},
};

/// The number of segments from which on a call attaches no more to all of its tasks. They live as long as the call.
const MOST_ATTACHED: usize = 8;

/// The time after which a result is received although its caller waits for more. It may be an error of the function, and tasks that begin
/// after that run in vain.
const PATIENCE: Duration = Duration::from_millis(5);

/// Larger memory for results is freed after use.
const MOST_SPARE_BYTES: usize = 4 << 20;

/// One call in progress.
pub(crate) struct Call {
    backend: CallBackend,
    inbox: Arc<Inbox>,
    /// The arrivals that were received last, whose memory is reused.
    spare: Arrivals,
    window: Window,
    /// Whether the progress of the call is displayed.
    is_reported: bool,
    /// The tasks that have ended since the last report, if progress is displayed.
    ended: Vec<Range<usize>>,
    /// The segments that every batch from the feed has.
    attached: Attachments,
    /// The segments of the last task that was queued apart.
    recent: Attachments,
    /// What the tasks without an outcome were lent.
    lent: LentToTasks,
    /// The entry that was called last, and its ID.
    last: Option<(&'static Entry, FunctionId)>,
    /// The generation of the process that made the call.
    generation: u32,
}

enum CallBackend {
    InProcess {
        here: Arc<InProcess>,
        seed: u64,
    },
    Pool {
        /// Once the pool has ended, every task that it received has its outcome.
        driver: Weak<Driver>,
        queue: QueueId,
        /// The tasks that were pushed and are not queued yet.
        feeder: Feeder,
    },
    /// Every task fails with this error.
    Ended(TaskErrorKind),
}

impl Call {
    /// Opens a call whose tasks run on the calling thread.
    pub(crate) fn in_process(here: &Arc<InProcess>, options: CallOptions, report: Option<&Report>) -> Self {
        let seed = seed_of_call(options.seed, here.seed, &here.calls);
        Self::open(false, report, |_| CallBackend::InProcess { here: here.clone(), seed })
    }

    /// Opens a call whose tasks run on workers. `calls` counts the calls of the pool.
    pub(crate) fn on_workers(
        driver: &Arc<Driver>,
        config: &Config,
        calls: &Calls,
        options: CallOptions,
        report: Option<&Report>,
    ) -> Self {
        Self::open(options.is_patient, report, |inbox| {
            let (feeder, feed) = Feeder::new(inbox.clone());
            let seed = Some(seed_of_call(options.seed, config.call.seed, calls));
            let options = CallOptions { seed, ..options };
            match driver.inspect(|scheduler| scheduler.open_call(options, feed)) {
                Some(queue) => CallBackend::Pool { driver: Arc::downgrade(driver), queue, feeder },
                // The subscriber that was asked for the caller has copied this process.
                None => CallBackend::Ended(inherited_kind()),
            }
        })
    }

    /// Opens a call each of whose tasks fails with `kind`.
    pub(crate) fn failed(kind: TaskErrorKind, report: Option<&Report>) -> Self {
        Self::open(false, report, |_| CallBackend::Ended(kind))
    }

    fn open(
        is_patient: bool,
        report: Option<&Report>,
        backend: impl FnOnce(&Arc<Inbox>) -> CallBackend,
    ) -> Self {
        let wants_progress = report.is_some_and(Report::wants_progress);
        let caller = CallerCell::new(Caller::current());
        let inbox = Arc::new(Inbox { wants_progress, caller, ..Inbox::default() });
        let backend = backend(&inbox);
        let mut call = Self {
            backend,
            inbox,
            spare: Arrivals::default(),
            window: Window::new(is_patient),
            is_reported: report.is_some(),
            ended: Vec::new(),
            attached: Attachments::default(),
            recent: Attachments::default(),
            lent: LentToTasks::default(),
            last: None,
            generation: generation(),
        };
        call.measure();
        call
    }

    /// Returns whether this process made the call, and is not a copy of the one that did.
    ///
    /// In a copy, the other methods do nothing until [`disown`](Self::disown) was called, which must therefore be called after all
    /// code of users: after each piece of input, after each wait, and after results were decoded.
    #[inline]
    pub(crate) fn is_own(&self) -> bool {
        self.generation == generation()
    }

    /// Returns the pool that runs the tasks and their queue there, unless the pool has ended or belongs to another process.
    fn pool(&self) -> Option<(Arc<Driver>, QueueId)> {
        let CallBackend::Pool { driver, queue, .. } = &self.backend else { return None };
        Some((Driver::own(driver)?, *queue))
    }

    /// In a fork of the process that made the call, ends the call. Returns the error once.
    pub(crate) fn disown(&mut self) -> Option<TaskError> {
        if self.is_own() {
            return None;
        }
        self.generation = generation();
        // Another thread may have held its lock when the process was forked.
        std::mem::forget(std::mem::take(&mut self.inbox));
        self.backend = CallBackend::Ended(inherited_kind());
        self.window.abandon();
        Some(inherited(self.last.map_or("", |(entry, _)| entry.name)))
    }

    /// Returns the number of tasks that were pushed and whose results were not received.
    pub(crate) fn outstanding(&self) -> usize {
        self.window.outstanding()
    }

    /// Returns the number of tasks that were pushed.
    pub(crate) fn pushed(&self) -> usize {
        self.window.pushed()
    }

    /// Sets how many results the caller holds back because an earlier one is missing. They count towards the window.
    pub(crate) fn set_held(&mut self, held: usize) {
        self.window.set_held(held);
    }

    /// Returns whether the window has room for another task.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.window.has_room()
    }

    /// Pushes the next task if it is simple and there is room for another task after it. Returns `false` if it must be
    /// [pushed](Self::push) instead.
    #[inline(always)]
    pub(crate) fn push_simple(&mut self, request: &EncodedCall) -> bool {
        if self.window.has_quota()
            && self.is_own()
            && let (CallBackend::Pool { feeder, .. }, Some((entry, function)), Ok(args)) =
                (&mut self.backend, self.last, &request.args)
            && std::ptr::eq(entry, request.entry)
            && request.handles.is_empty()
            && !feeder.is_wanted()
            && let Some((bytes, len)) = args.few()
            && feeder.push_few(function, bytes, len)
        {
            self.window.use_quota(len);
            return true;
        }
        false
    }

    /// Pushes the next task.
    pub(crate) fn push(&mut self, request: EncodedCall) {
        if let (CallBackend::Pool { feeder, .. }, Some((entry, function)), Ok(args)) =
            (&mut self.backend, self.last, &request.args)
            && std::ptr::eq(entry, request.entry)
            && args.len() <= MOST_FED_BYTES
            && match request.handles.prefix() {
                None => feeder.push(function, &[], args),
                // The batch that the task will be part of has the segments of the call only.
                Some(prefix) => {
                    self.attached.includes(&request.handles.attachments)
                        && request.handles.loans.check().is_ok()
                        && feeder.push(function.with_handles(), &prefix, args)
                }
            }
        {
            self.lent.add(self.window.pushed(), request.handles.loans);
            self.window.feed(args.len());
            if feeder.is_wanted() || self.window.is_batch_full() {
                self.flush();
            }
        } else {
            self.push_slowly(request);
        }
        self.window.measure_quota();
    }

    /// Pushes a task that cannot go to the feed: the first of a function, one with large arguments or with an error, or one
    /// without room.
    #[inline(never)]
    fn push_slowly(&mut self, request: EncodedCall) {
        self.flush();
        let index = self.pushed();
        if !self.is_own() {
            return self.window.push(0);
        }
        match &self.backend {
            CallBackend::InProcess { here, seed } => {
                self.window.push(0);
                let outcome = here.run(&request, Some(index), seed::of(*seed, index as u64));
                return self.inbox.give_one(index, outcome, &mut Wakes::default());
            }
            CallBackend::Ended(kind) => {
                let error = ended::of_kind(request.entry.name, kind.clone(), index);
                return self.give_up(error);
            }
            CallBackend::Pool { .. } => {}
        }
        let (entry, copied_bytes) = (request.entry, request.handles.copied_bytes);
        let SentTask { function, args, attachments, loans } = match travels(request, Some(index)) {
            Ok(sent) => sent,
            Err(error) => return self.give_up(error),
        };
        self.last = Some((entry, function.without_handles()));
        if attachments.is_empty() && args.len() <= MOST_FED_BYTES {
            return self.push(EncodedCall { entry, args: Ok(args), handles: Handles::default() });
        }
        let Some((driver, queue)) = self.pool() else {
            return self.give_up(ended::by_pool(entry.name, index));
        };
        if !attachments.is_empty() {
            // What two tasks in a row need is likely to be needed by the next ones.
            if self.recent.includes(&attachments) && self.attached.len() < MOST_ATTACHED {
                driver.inspect(|scheduler| scheduler.attach(queue, &attachments));
                self.attached.merge(&attachments);
            }
            self.recent = attachments.clone();
        }
        self.lent.add(index, loans);
        self.window.push(args.len() + copied_bytes);
        let batch = Batch {
            queue,
            first: 0,
            records: EncodedTasks::of(function, args).with_attachments(&attachments),
            to: Recipient::Call(self.inbox.clone()),
            attempts: 0,
        };
        driver.with(|scheduler, now| scheduler.enqueue_apart(queue, batch, now));
        self.measure();
    }

    /// Fails the next task, which was not queued.
    fn give_up(&mut self, error: TaskError) {
        if let Some((driver, queue)) = self.pool() {
            driver.inspect(|scheduler| scheduler.skip(queue, error.kind()));
        }
        self.inbox.give_one(self.pushed(), Err(error), &mut Wakes::default());
        self.window.push(0);
    }

    /// Queues the tasks that were pushed.
    pub(crate) fn flush(&mut self) {
        let CallBackend::Pool { driver, queue, feeder, .. } = &self.backend else { return };
        if !self.window.has_fed() || !self.is_own() {
            return;
        }
        self.window.flush();
        if let Some(driver) = driver.upgrade() {
            let queue = *queue;
            let fed = driver.with_arrivals(|scheduler, now| {
                scheduler.pull(queue, now);
                scheduler.batch_of(queue)
            });
            if let Some((batch_size, most)) = fed {
                self.window.resize(batch_size, most);
            }
            return;
        }
        let function = self.last.map_or("", |(entry, _)| entry.name);
        for index in feeder.next() as usize..self.pushed() {
            self.inbox.give_one(index, Err(ended::by_pool(function, index)), &mut Wakes::default());
        }
        self.backend = CallBackend::Ended(TaskErrorKind::Cancelled { why: POOL_ENDED });
    }

    /// Changes the settings of the call.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut CallOptions)) {
        if let Some((driver, queue)) = self.pool() {
            driver.inspect(|scheduler| scheduler.change_call(queue, change));
        }
        self.measure();
    }

    /// Sizes the window and the batch by the current measurements.
    fn measure(&mut self) {
        if let Some((driver, queue)) = self.pool()
            && let Some((batch_size, most)) = driver.inspect(|scheduler| scheduler.batch_of(queue))
        {
            self.window.resize(batch_size, most);
        }
    }

    /// Waits until a result has arrived, if one is outstanding.
    pub(crate) fn wait(&mut self) {
        self.wait_for(1, None);
    }

    /// Waits until as much has arrived as a caller can use that needs all results: all of them, or room for more input. A failure ends
    /// the wait. If a result `may_end` the call, it is received after [`PATIENCE`].
    pub(crate) fn wait_for_many(&mut self, may_end: bool) {
        let wanted = self.window.wanted();
        let deadline = may_end.then(|| Instant::now() + PATIENCE);
        if !self.wait_for(wanted, deadline) && !self.inbox.has_some() {
            self.wait();
        }
    }

    /// Waits until as many results have arrived, if one is outstanding. Returns `false` if they have not arrived in time.
    fn wait_for(&mut self, wanted: usize, deadline: Option<Instant>) -> bool {
        self.flush();
        if self.outstanding() > 0
            && let Some((driver, _)) = self.pool()
        {
            let this_thread = || Waiter::Thread(std::thread::current());
            return driver.wait(&mut || self.inbox.has_or_wait(wanted, this_thread), deadline);
        }
        true
    }

    /// Returns whether a result has arrived or none is outstanding. If not, the waker is woken when that changes. Returns `true` in a
    /// copy of the process that made the call.
    #[cfg(feature = "futures")]
    pub(crate) fn poll_wait(&mut self, waker: &std::task::Waker) -> bool {
        self.flush();
        let Some((driver, _)) = self.pool().filter(|_| self.outstanding() > 0) else { return true };
        if !self.inbox.has_some() {
            driver.poll_once();
        }
        // Cloning runs an executor's code, so no lock may be held.
        let waker = waker.clone();
        if !self.is_own() || self.inbox.has_or_wait(1, || Waiter::Waker(waker)) {
            return true;
        }
        driver.watch();
        !self.is_own()
    }

    /// Returns, for a call whose progress is displayed, the progress of running tasks and the tasks that have ended since the
    /// last call.
    pub(crate) fn news(&mut self) -> (Vec<(usize, f64)>, Vec<Range<usize>>) {
        if !self.is_own() {
            return (Vec::new(), Vec::new());
        }
        let progress = self.inbox.take_progress();
        (progress.into_iter().collect(), std::mem::take(&mut self.ended))
    }

    /// Passes the results that have arrived to `take`, in the order of arrival, each with the index of its first task.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(usize, Arrival<'_>)) {
        if !self.is_own() {
            return;
        }
        let mut arrivals = std::mem::take(&mut self.spare);
        self.inbox.take(&mut arrivals);
        let mut rest = &arrivals.bytes[..];
        let mut received = 0;
        for (first, item) in arrivals.items.drain(..) {
            if self.is_reported {
                self.ended.push(first..first + item.tasks());
            }
            let lent = self.lent.take(first..first + item.tasks());
            match item {
                Item::Many { tasks, len_bytes } => {
                    drop(lent);
                    let (these, others) = rest.split_at(len_bytes);
                    rest = others;
                    received += tasks as usize;
                    take(first, Arrival::Many(Results::from_bytes(these, tasks)));
                }
                // Decoding may have copied this process.
                Item::Wrote(output) if self.is_own() => output.show(),
                Item::Wrote(_) => {}
                Item::One(outcome) => {
                    received += 1;
                    match outcome {
                        Ok(mut result) => {
                            drop(lent);
                            take(first, Arrival::One(Ok(result.as_encoded())));
                        }
                        Err(error) => {
                            let error = error.after_lending(lent.names());
                            // A process that may still write keeps what it was lent.
                            if error.is_abandoned() {
                                std::mem::forget(lent);
                            }
                            take(first, Arrival::One(Err(error)));
                        }
                    }
                }
            }
        }
        arrivals.bytes.clear();
        if arrivals.bytes.capacity() <= MOST_SPARE_BYTES {
            self.spare = arrivals;
        }
        self.window.receive(received);
        if received > 0 {
            self.measure();
        }
    }

    /// Cancels the call: fails queued tasks and stops running ones, which are killed if they do not end soon. Waits for that if
    /// `wait`.
    pub(crate) fn cancel(&mut self, wait: bool) {
        self.window.flush();
        let Some((driver, queue)) = self.pool() else { return };
        driver.with(|scheduler, now| scheduler.cancel_call(queue, now));
        while wait && self.outstanding() > 0 && self.is_own() {
            self.wait();
            self.receive(|_, _| {});
            // Progress that is not read would make `wait` return immediately.
            drop(self.news());
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("window", &self.window).finish_non_exhaustive()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_own() {
            return;
        }
        let _: Caller = self.inbox.caller.take();
        if !self.is_own() {
            return;
        }
        let waiter = self.inbox.lock().waiting.take();
        drop(waiter);
        if let Some((driver, queue)) = self.pool() {
            if self.outstanding() > 0 {
                // What was lent belongs to the caller again once this returns.
                self.cancel(!self.lent.is_empty());
            } else {
                driver.inspect(|scheduler| scheduler.close_call(queue));
            }
        }
    }
}
