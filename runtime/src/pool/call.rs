//! One call of many tasks, from the caller's side: reads the input within a window, and takes the results as they come.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::Thread,
};

use super::{
    Backend, Pool,
    drive::Driver,
    lane::{Feed, LaneId, Queued},
};
use crate::{
    error::{Fault, POOL_ENDED, Place, TaskError, TaskErrorKind},
    handle::{Complete, Exchange, Outcome, Wakes},
    id::TaskId,
    registry,
    task::Call as Request,
};

/// Tasks that have been read from the input and not yet given to the caller: at least so many batches a worker.
const WINDOW_BATCHES: usize = 4;
/// Arguments in flight, in bytes, beyond which the input is not read further.
const WINDOW_BYTES: usize = 64 << 20;
/// Tasks are put into the queue in groups of at most so many.
const MOST_IN_GROUP: usize = 128;

/// One call in progress.
pub(crate) struct Call {
    backend: CallBackend,
    inbox: Arc<Inbox>,
    /// Bytes of the arguments in each task that has no result yet, roughly.
    bytes_out: usize,
    pushed: usize,
    received: usize,
    window: usize,
    batch: usize,
}

enum CallBackend {
    InProcess(Arc<Here>),
    Pool {
        /// When the pool has ended, every task that it was given has its outcome.
        driver: Weak<Driver>,
        lane: LaneId,
        /// What was read and has not been queued.
        feed: Arc<Feed>,
        retries: u32,
        workers: usize,
    },
}

/// Where a call's results arrive, in the order in which they were made.
#[derive(Debug, Default)]
struct Inbox {
    state: Mutex<Arrivals>,
}

#[derive(Debug, Default)]
struct Arrivals {
    /// The small results, one after the other.
    bytes: Vec<u8>,
    items: Vec<(usize, Item)>,
    /// Who waits while another thread drives.
    waiting: Option<Thread>,
}

#[derive(Debug)]
enum Item {
    /// So many of the next bytes.
    Small(usize),
    Large(Vec<u8>),
    Failed(TaskError),
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Arrivals> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Complete for Inbox {
    fn complete(&self, index: usize, outcome: Outcome<'_>, wakes: &mut Wakes) {
        let mut arrivals = self.lock();
        let item = match outcome {
            Ok(Cow::Borrowed(bytes)) => {
                arrivals.bytes.extend_from_slice(bytes);
                Item::Small(bytes.len())
            }
            Ok(Cow::Owned(bytes)) => Item::Large(bytes),
            Err(error) => Item::Failed(error),
        };
        arrivals.items.push((index, item));
        if let Some(thread) = arrivals.waiting.take() {
            wakes.add_thread(thread);
        }
    }
}

impl Call {
    pub(crate) fn new(pool: &Pool, chunk: Option<usize>, most_workers: Option<usize>) -> Self {
        let backend = match pool.backend() {
            Backend::InProcess(here) => CallBackend::InProcess(here.clone()),
            Backend::Processes(processes) => {
                let driver = Arc::downgrade(&processes.driver);
                let feed = Arc::<Feed>::default();
                let chunk = chunk.or(processes.config.chunk_size);
                let workers = most_workers.unwrap_or(usize::MAX);
                let lane =
                    processes.driver.look(|scheduler| scheduler.open_call(chunk, workers, feed.clone()));
                CallBackend::Pool { driver, lane, feed, retries: processes.config.retries, workers: 1 }
            }
        };
        let mut call = Self {
            backend,
            inbox: Arc::default(),
            bytes_out: 0,
            pushed: 0,
            received: 0,
            window: 1,
            batch: 1,
        };
        call.measure();
        call
    }

    /// Tasks that have been pushed and whose results have not been received.
    pub(crate) fn outstanding(&self) -> usize {
        self.pushed - self.received
    }

    /// Whether more input is of use now. `held` results are with the caller, out of their order.
    pub(crate) fn has_room(&self, held: usize) -> bool {
        self.outstanding() + held < self.window && self.bytes_out < WINDOW_BYTES
    }

    /// Takes the next task.
    pub(crate) fn push(&mut self, request: Request) {
        let index = self.pushed;
        self.pushed += 1;
        match &self.backend {
            CallBackend::InProcess(here) => {
                let (_, outcome) = here.run(&request, Some(index));
                self.inbox.complete(index, outcome.map(Cow::Owned), &mut Wakes::default());
            }
            CallBackend::Pool { lane, feed, retries, .. } => {
                let Some(function) = registry::id_of(request.entry) else {
                    let error = not_in_table(&request, Some(index));
                    return self.inbox.complete(index, Err(error), &mut Wakes::default());
                };
                self.bytes_out += request.args.as_ref().map_or(0, Vec::len);
                let (held, wanted) = feed.push(Queued {
                    // Given when it is queued.
                    id: 0,
                    call: request,
                    function,
                    to: self.inbox.clone(),
                    index: Some(index),
                    lane: *lane,
                    attempts: 0,
                    retries: *retries,
                    cancelled: None,
                });
                if wanted || held >= self.batch.min(MOST_IN_GROUP) {
                    self.flush();
                }
            }
        }
    }

    /// Queues what was pushed.
    pub(crate) fn flush(&mut self) {
        let CallBackend::Pool { driver, lane, feed, .. } = &self.backend else { return };
        if feed.is_empty() {
            return;
        }
        if let Some(driver) = driver.upgrade() {
            let lane = *lane;
            driver.with(|scheduler, _, _| scheduler.pull(lane));
            return self.measure();
        }
        for task in feed.take() {
            let kind = TaskErrorKind::Cancelled { why: POOL_ENDED };
            let place = Place { index: task.index, ..Place::default() };
            let error = TaskError::new(task.call.entry.name, kind, place);
            self.inbox.complete(task.index.unwrap_or_default(), Err(error), &mut Wakes::default());
        }
    }

    /// Sizes window and batch by what has been measured since.
    fn measure(&mut self) {
        if let CallBackend::Pool { driver, lane, workers, .. } = &mut self.backend
            && let Some(driver) = driver.upgrade()
        {
            let (batch, most) = driver.look(|scheduler| scheduler.batch_of(*lane));
            *workers = most;
            self.batch = batch;
            self.window = (batch * most).saturating_mul(WINDOW_BATCHES);
        }
    }

    /// Waits until a result is there, if any is outstanding.
    pub(crate) fn wait(&mut self) {
        self.flush();
        if let CallBackend::Pool { driver, .. } = &self.backend
            && self.pushed > self.received
            && let Some(driver) = driver.upgrade()
        {
            let inbox = &self.inbox;
            driver.wait(
                &mut || {
                    let mut arrivals = inbox.lock();
                    if arrivals.items.is_empty() {
                        arrivals.waiting = Some(std::thread::current());
                    }
                    !arrivals.items.is_empty()
                },
                None,
            );
        }
    }

    /// Hands the results that are there to `take`, in the order in which they came.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(usize, Outcome<'_>)) {
        let (bytes, items) = {
            let mut arrivals = self.inbox.lock();
            (std::mem::take(&mut arrivals.bytes), std::mem::take(&mut arrivals.items))
        };
        let mut rest = &bytes[..];
        let before = self.received;
        let many = items.len();
        for (index, item) in items {
            self.received += 1;
            let outcome = match item {
                Item::Small(len) => {
                    let (this, others) = rest.split_at(len);
                    rest = others;
                    Ok(Cow::Borrowed(this))
                }
                Item::Large(bytes) => Ok(Cow::Owned(bytes)),
                Item::Failed(error) => Err(error),
            };
            take(index, outcome);
        }
        // Arguments are counted by their mean: the exact ones are with the scheduler.
        let out = self.pushed - before;
        if out > 0 {
            self.bytes_out -= (self.bytes_out as u128 * many as u128 / out as u128) as usize;
        }
        if many > 0 {
            self.measure();
        }
    }

    /// Drops what is queued and has what runs end, killing what does not within a moment; waits for that if `wait`.
    pub(crate) fn cancel(&mut self, wait: bool) {
        let CallBackend::Pool { driver, lane, feed, .. } = &self.backend else { return };
        self.pushed -= feed.take().len();
        let Some(driver) = driver.upgrade() else { return };
        driver.with(|scheduler, poller, now| scheduler.cancel_call(*lane, poller, now));
        while wait && self.received < self.pushed {
            self.wait();
            self.receive(|_, _| {});
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("pushed", &self.pushed)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let CallBackend::Pool { driver, lane, .. } = &self.backend
            && let Some(driver) = driver.upgrade()
        {
            let lane = *lane;
            if self.pushed > self.received {
                self.cancel(false);
            } else {
                driver.look(|scheduler| scheduler.close_call(lane));
            }
        }
    }
}

/// What a pool without processes has: its initializer, which runs once, before the first task, and a count of its tasks.
#[derive(Debug, Default)]
pub(super) struct Here {
    pub(super) preload: Option<Request>,
    pub(super) initializer: Option<Request>,
    pub(super) initialized: OnceLock<Result<(), Fault>>,
    pub(super) tasks: AtomicU64,
}

impl Here {
    /// Runs a call in this process.
    pub(super) fn run(
        &self,
        request: &Request,
        index: Option<usize>,
    ) -> (TaskId, Result<Vec<u8>, TaskError>) {
        let id = TaskId(self.tasks.fetch_add(1, Ordering::Relaxed));
        let place = Place { index, attempts: 1, worker: None };
        let initialized = self.initialized.get_or_init(|| {
            self.preload.iter().chain(&self.initializer).try_for_each(|first| first.run().map(drop))
        });
        let outcome = initialized.clone().and_then(|()| request.run());
        (id, outcome.map_err(|fault| TaskError::new(request.entry.name, fault.into(), place)))
    }
}

/// The error of a function that the linker left out of the table.
pub(super) fn not_in_table(request: &Request, index: Option<usize>) -> TaskError {
    let message = "the linker left it out of the table of workers: is the section `linkme_WORKERS` kept by the linker's options?";
    let kind = TaskErrorKind::Lost { message: message.to_owned() };
    TaskError::new(request.entry.name, kind, Place { index, ..Place::default() })
}
