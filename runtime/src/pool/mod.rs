//! Defines [`Pool`], which runs tasks on worker processes.
//!
//! This is the public interface over `call`, for many tasks, and `driver`, for single ones. It validates, opens and closes, and
//! decides only whether tasks run in this process or on workers.

mod builder;
pub(crate) mod global;
pub(crate) mod iter;
mod jobs;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde::de::DeserializeOwned;

pub use builder::Builder;
pub use iter::{IMap, IMapUnordered};
#[cfg(feature = "futures")]
pub use iter::{ResultStream, ResultStreamUnordered};
pub use jobs::{Jobs, ParseJobsError};

use crate::{
    batch::{Batch, QueueId, Recipient, Single},
    call::{
        collect::{Collect, Opened, Values},
        in_process::InProcess,
        state::Call,
    },
    caller::Caller,
    codec::{OwnedResult, ShortBytes},
    context::seed_of_call,
    driver::{background::Engine, state::Driver},
    error::{Error, Result, TaskError, TaskErrorKind, TaskLocation},
    handle::{Completer, Decode, Handle, Wakes},
    id::TaskId,
    observe::{
        ending::Endings,
        report::{Report, verbose_by_env},
        stats::Stats,
    },
    protocol::{EncodedTasks, Preload, ReturnKind},
    registry,
    scheduler::{
        config::{CallOptions, Config},
        machine::StateMachine,
        state::Scheduler,
    },
    seed::Calls,
    setting::{in_process_by_env, shared_bytes_by_env},
    start,
    sys::{cpu::cpus, per_process::PerProcess},
    task::{IntoTask, SentTask, Tasks, travels},
};

/// A pool of worker processes.
///
/// Workers start when there is work for them, are replaced when they die, and end with the pool. Dropping a pool terminates it:
/// see [`terminate`](Self::terminate).
///
/// # Examples
///
/// ```
/// use procession::{Pool, delayed, worker};
///
/// #[worker]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// let pool = Pool::builder().jobs(2).build()?;
/// let squares = pool.map((1..=4).map(|n| delayed!(square(n))))?;
/// assert_eq!(squares, [1, 4, 9, 16]);
/// # Ok::<(), procession::Error>(())
/// ```
///
/// # Forks of this process
///
/// A process that was forked from this one, such as a daemon, can continue to use the pool. It has workers of its own with the
/// same settings, which start when it first uses the pool. A template's [`preload`](Builder::preload) runs again. Under
/// [`StartMethod::Fork`](crate::StartMethod::Fork) the forked process must have a single thread at that time, or every call fails with an error that says
/// so. Handles and iterators that were created before the fork belong to the original process. In the forked process they return
/// errors. The workers of the original process end when it ends, even if a forked process lives on.
///
/// # Code that closes all descriptors
///
/// Some daemons close every descriptor from 3 upwards (`closefrom`), including the pool's. All tasks of the pool then fail within
/// a second with an error that says so, and so do tasks that are submitted later. A pool that is built afterwards works. The pool
/// neither writes to nor closes whatever has the numbers of its descriptors by then, unless a number is closed and reused in the
/// instant between the check of a descriptor and its use. Its workers end by themselves. Its resources
/// in this process are released when the pool is dropped: memory, a sleeping thread, and zombie processes.
///
/// # Dropping
///
/// Dropping a pool waits until its workers have ended. If the pool is dropped by a waker or a logger that runs on one of this
/// library's own threads, the drop does not wait, and the pool ends in the background.
pub struct Pool {
    backend: Backend,
}

enum Backend {
    /// Tasks run on the calling thread.
    InProcess(Arc<InProcess>),
    Processes(Processes),
}

pub(crate) struct Processes {
    pub(crate) config: Arc<Config>,
    /// The number of calls so far.
    pub(crate) calls: Calls,
    /// The engine, or why there is none. A fork of this process makes its own when it first uses the pool.
    engine: PerProcess<Result<Engine, String>>,
}

/// The place where the tasks of a pool run.
pub(crate) enum Site<'a> {
    InProcess(&'a Arc<InProcess>),
    Workers(&'a Processes, &'a Engine),
}

impl Processes {
    fn new(config: Config) -> Result<Self> {
        let processes = Self { config: Arc::new(config), calls: Calls::new(), engine: PerProcess::new() };
        let engine = start_engine(&processes.config)?;
        // The pool is not shared yet, so there cannot be another engine.
        let _ = processes.engine.get_or_init(|| Ok(engine));
        Ok(processes)
    }

    /// # Errors
    ///
    /// Returns an error if this process is a fork of the one that built the pool and cannot have workers of the same kind.
    fn engine(&self) -> Result<&Engine> {
        let engine = self.engine.get_or_init(|| {
            start_engine(&self.config).map_err(|error| {
                format!(
                    "this pool was built by the process that this one was forked from, and cannot start workers of \
                     its own here: {error}; build a pool in this process"
                )
            })
        });
        engine.as_ref().map_err(Error::config)
    }
}

/// Starts the driver of a pool with these settings.
fn start_engine(config: &Arc<Config>) -> Result<Engine> {
    // This must happen before anything starts a thread.
    let preload = config.lives.preload.as_ref().map(|&(ref call, returns)| Preload {
        function: registry::id_of(call.entry).map_or(u32::MAX, |id| id.0),
        args: call.args.as_ref().map(ShortBytes::to_plain).unwrap_or_default(),
        folder: config.spawn.setup.folder.clone(),
        returns,
    });
    let launcher = start::launcher(&config.spawn, preload).map_err(Error::config)?;
    let driver = Driver::new(config.clone(), launcher)?;
    let failed = |error| Error::system("a pool's thread cannot be started", error);
    Engine::start(driver, config.spawn.name.as_deref()).map_err(failed)
}

impl Pool {
    /// Creates a pool of `jobs` workers with default settings.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`Builder::build`].
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    /// # #[worker]
    /// # fn square(n: u64) -> u64 {
    /// #     n * n
    /// # }
    ///
    /// let pool = Pool::new(2)?;
    /// assert_eq!(pool.submit(delayed!(square(7))).join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn new(jobs: impl Into<Jobs>) -> Result<Self> {
        Self::builder().jobs(jobs).build()
    }

    /// Returns a builder with default settings.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::Pool;
    ///
    /// let pool = Pool::builder().jobs(2).name("squares").build()?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Creates a pool without processes, for tests and debugging.
    ///
    /// Tasks run on the calling thread, and their arguments and results are encoded as for a worker.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn pid() -> u32 {
    ///     std::process::id()
    /// }
    ///
    /// assert_eq!(Pool::in_process().submit(delayed!(pid())).join()?, std::process::id());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn in_process() -> Self {
        Self { backend: Backend::InProcess(Arc::default()) }
    }

    /// Starts a pool with these settings, or under `PROCESSION_IN_PROCESS=1` a pool without processes.
    fn start(config: Config) -> Result<Self> {
        shared_bytes_by_env()?;
        if in_process_by_env()? {
            // The environment and the working directory are those of this process and do not change.
            let preload = config.lives.preload.map(|(call, _)| (call, ReturnKind::Value));
            let first = preload.into_iter().chain(config.lives.initializer).collect();
            let (finalizer, seed) = (config.lives.finalizer, config.call.seed);
            let here = InProcess { first, finalizer, seed, ..InProcess::default() };
            return Ok(Self { backend: Backend::InProcess(Arc::new(here)) });
        }
        Ok(Self { backend: Backend::Processes(Processes::new(config)?) })
    }

    /// Returns whether other code has closed the pool's descriptors, so that it runs no more tasks.
    pub(super) fn is_broken_down(&self) -> bool {
        let Backend::Processes(processes) = &self.backend else { return false };
        matches!(processes.engine.get(), Some(Ok(engine)) if engine.driver.is_closed())
    }

    /// Opens a call. If the pool cannot run tasks, each of them fails with the reason.
    pub(crate) fn open(&self, options: CallOptions, report: Option<&Report>) -> Call {
        match self.site() {
            Err(error) => Call::failed(TaskErrorKind::lost(&error), report),
            Ok(Site::InProcess(here)) => Call::in_process(here, options, report),
            Ok(Site::Workers(processes, engine)) => {
                Call::on_workers(&engine.driver, &processes.config, &processes.calls, options, report)
            }
        }
    }

    /// Opens a call that reports its progress: in lines (`verbose` above 0), in a bar with this label, or not at all.
    pub(crate) fn open_reported(
        &self,
        options: CallOptions,
        verbose: u32,
        label: Option<&str>,
    ) -> (Call, Option<Box<Report>>) {
        let mut report = None;
        if verbose > 0 || label.is_some() {
            let workers = self.jobs().min(options.workers.unwrap_or(usize::MAX));
            report = Report::new(verbose, label, workers, options.batch);
        }
        let options = CallOptions { is_patient: report.is_none(), ..options };
        (self.open(options, report.as_deref()), report)
    }

    /// Returns where tasks run. A forked worker has copies of the pools of the process that it was forked from. Tasks of such a
    /// pool run in the worker, as those of a `parallel!` do. Any other fork of a process starts workers of its own.
    pub(crate) fn site(&self) -> Result<Site<'_>> {
        static HERE: PerProcess<Arc<InProcess>> = PerProcess::new();
        match &self.backend {
            Backend::InProcess(here) => Ok(Site::InProcess(here)),
            Backend::Processes(processes)
                if processes.engine.get().is_none() && crate::context::is_worker() =>
            {
                Ok(Site::InProcess(HERE.get_or_init(Arc::default)))
            }
            Backend::Processes(processes) => Ok(Site::Workers(processes, processes.engine()?)),
        }
    }

    /// Returns the maximum number of workers. For a pool without processes this is 1.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::Pool;
    ///
    /// assert_eq!(Pool::new(3)?.jobs(), 3);
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn jobs(&self) -> usize {
        match (self.site(), &self.backend) {
            (Ok(Site::InProcess(_)), _) | (Err(_), Backend::InProcess(_)) => 1,
            (Ok(Site::Workers(processes, engine)), _) => {
                engine.driver.inspect(|scheduler| scheduler.jobs()).unwrap_or(processes.config.jobs)
            }
            (Err(_), Backend::Processes(processes)) => processes.config.jobs,
        }
    }

    /// Runs all tasks and returns their results in the order of the input.
    ///
    /// The input may have any length. It is read only as far ahead as the workers need. With `PROCESSION_VERBOSE`, progress is
    /// reported on stderr, as with the setting `verbose` of [`parallel!`](crate::parallel).
    ///
    /// # Errors
    ///
    /// Returns the first failure. The call then ends: queued tasks are dropped and running tasks are killed.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// # fn main() -> procession::Result<()> {
    /// let pool = Pool::new(2)?;
    /// assert_eq!(pool.map((1..=3).map(|n| delayed!(square(n))))?, [1, 4, 9]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<T: DeserializeOwned + 'static>(&self, tasks: impl Tasks<T>) -> Result<Vec<T>> {
        let call = verbose_by_env().map(|verbose| self.open_reported(CallOptions::default(), verbose, None));
        let mut collect = Collect::<T, Values>::new(Opened { call, unordered: false });
        // `try_for_each` instead of a `for` loop: iterators that push from within are faster.
        let _ = collect.count(tasks).try_for_each(|task| collect.push(task));
        collect.finish()
    }

    /// Returns an iterator that runs the tasks and yields their results in the order of the input.
    ///
    /// The input is read as the iterator advances, within a window that is bounded in tasks and in bytes, so the input may be
    /// endless. A failed task is an item like any other, and the iterator continues. Dropping the iterator cancels the remaining
    /// tasks.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let first_large = pool.imap((1..).map(|n| delayed!(square(n)))).find(|r| r.as_ref().is_ok_and(|&n| n > 50)).unwrap()?;
    /// assert_eq!(first_large, 64);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn imap<T: DeserializeOwned + 'static, I: Tasks<T>>(&self, tasks: I) -> IMap<T, I::IntoIter> {
        IMap::new(self, tasks.into_iter())
    }

    /// Returns an iterator that yields each result as soon as it is ready, together with its index in the input.
    ///
    /// In other respects it is the same as [`imap`](Self::imap).
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let pool = Pool::new(2)?;
    /// for (index, result) in pool.imap_unordered((0..10).map(|n| delayed!(square(n)))) {
    ///     assert_eq!(result?, (index * index) as u64);
    /// }
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn imap_unordered<T: DeserializeOwned + 'static, I: Tasks<T>>(
        &self,
        tasks: I,
    ) -> IMapUnordered<T, I::IntoIter> {
        IMapUnordered::new(self, tasks.into_iter())
    }

    /// Returns a `Stream` of the results in the order of the input. Requires the feature `futures`.
    ///
    /// The input is read while the stream is polled, within the same window as for [`imap`](Self::imap). Polling does not block
    /// the executor's thread otherwise. In a pool without processes, tasks run while the stream is polled. Dropping the stream
    /// cancels the remaining tasks.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{future::poll_fn, pin::Pin};
    /// use futures_core::Stream; // most use `StreamExt` of the crate `futures`
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// # pollster::block_on(async {
    /// let pool = Pool::new(2)?;
    /// let mut squares = pool.stream((1..=100).map(|n| delayed!(square(n))));
    /// let mut sum = 0;
    /// while let Some(result) = poll_fn(|context| Pin::new(&mut squares).poll_next(context)).await {
    ///     sum += result?;
    /// }
    /// assert_eq!(sum, 338_350);
    /// # Ok::<(), procession::Error>(())
    /// # }).unwrap();
    /// ```
    #[cfg(feature = "futures")]
    pub fn stream<T: DeserializeOwned + 'static, I: Tasks<T>>(
        &self,
        tasks: I,
    ) -> ResultStream<T, I::IntoIter> {
        ResultStream::new(self, tasks.into_iter())
    }

    /// Returns a `Stream` that yields each result as soon as it is ready, together with its index in the input. Requires the
    /// feature `futures`.
    ///
    /// In other respects it is the same as [`stream`](Self::stream).
    #[cfg(feature = "futures")]
    pub fn stream_unordered<T: DeserializeOwned + 'static, I: Tasks<T>>(
        &self,
        tasks: I,
    ) -> ResultStreamUnordered<T, I::IntoIter> {
        ResultStreamUnordered::new(self, tasks.into_iter())
    }

    /// Submits a task and returns immediately. Errors are returned by [`Handle::join`].
    ///
    /// In a pool without processes, the task runs before `submit` returns.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let pool = Pool::new(2)?;
    /// let (five, six) = (pool.submit(delayed!(square(5))), pool.submit(delayed!(square(6))));
    /// assert_eq!(five.join()? + six.join()?, 61);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn submit<T: DeserializeOwned + 'static>(&self, task: impl IntoTask<T>) -> Handle<T> {
        let task = task.into_task();
        if let Ok(Site::Workers(_, engine)) = self.site() {
            engine.driver.wake_ahead();
        }
        let completer = Arc::new(Completer::new());
        let name = task.function();
        let ended = |outcome, id| {
            completer.complete(outcome, &mut Wakes::default());
            Handle::new(completer.clone(), None, name, id)
        };
        // The subscriber that was asked for the caller may have copied this process, and the copy has workers of its own.
        let (processes, engine) = match self.site() {
            Ok(Site::Workers(processes, engine)) => (processes, engine),
            Ok(Site::InProcess(here)) => {
                let (id, outcome) = here.run_single(&task.call);
                return ended(outcome, id);
            }
            Err(error) => {
                let error = TaskError::new(name, TaskErrorKind::lost(&error), TaskLocation::default());
                return ended(Err(error), TaskId(0));
            }
        };
        let SentTask { function, args, attachments, loans } = match travels(task.call, None) {
            Ok(sent) => sent,
            Err(error) => {
                engine.driver.inspect(|scheduler| scheduler.refused(error.kind()));
                return ended(Err(error.in_pool(processes.config.spawn.name.as_ref())), TaskId(0));
            }
        };
        completer.lend(loans);
        let id = engine.driver.submit(Single {
            queue: QueueId::Thread(thread_number()),
            number: 0,
            function,
            args,
            attachments,
            to: completer.clone(),
        });
        Handle::new(completer, Some(engine.exchange()), name, TaskId(id))
    }

    /// Runs the task once on every worker and returns the results in the order of the workers.
    ///
    /// Workers that are not running yet are started.
    ///
    /// # Errors
    ///
    /// Returns the first failure.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn place() -> Option<usize> {
    ///     procession::worker_index()
    /// }
    ///
    /// let pool = Pool::new(2)?;
    /// assert_eq!(pool.broadcast(delayed!(place()))?, [Some(0), Some(1)]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn broadcast<T: DeserializeOwned + 'static>(&self, task: impl IntoTask<T>) -> Result<Vec<T>> {
        let task = task.into_task();
        let name = task.function();
        task.call.check_repeatable().map_err(Error::config)?;
        // Code of a subscriber, which runs while no lock is held.
        let caller = Caller::current();
        let (processes, engine) = match self.site()? {
            Site::Workers(processes, engine) => (processes, engine),
            Site::InProcess(here) => {
                let place = TaskLocation { index: Some(0), attempts: 1, worker: None };
                return Ok(vec![T::decode(name, here.run_broadcast(&task.call)?.as_encoded(), place)?]);
            }
        };
        let SentTask { function, args, attachments, .. } = travels(task.call, Some(0))
            .map_err(|error| error.in_pool(processes.config.spawn.name.as_ref()))?;
        let seed = seed_of_call(None, processes.config.call.seed, &processes.calls);
        let handles: Option<Vec<Handle<T>>> = engine.driver.with(|scheduler, now| {
            let ids = scheduler.worker_ids();
            ids.zip(0..)
                .map(|(worker, index)| {
                    let completer = Arc::new(Completer::of(caller.clone()));
                    let batch = Batch {
                        queue: QueueId::Pinned,
                        first: index,
                        records: EncodedTasks::of(function, args.clone()).with_attachments(&attachments),
                        to: Recipient::Member { handle: completer.clone(), seed },
                        attempts: 0,
                    };
                    scheduler.pin(worker, batch, now);
                    Handle::new(completer, Some(engine.exchange()), name, TaskId(index))
                })
                .collect()
        });
        Ok(handles.into_iter().flatten().map(Handle::join).collect::<Result<_, TaskError>>()?)
    }

    /// Returns statistics of the pool: tasks, times, bytes and memory of each worker, and the slowest tasks. Displayed, they form
    /// a table.
    ///
    /// For a pool without processes, only the times of its tasks are known.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn nap(millis: u64) {
    ///     std::thread::sleep(Duration::from_millis(millis));
    /// }
    ///
    /// let pool = Pool::new(2)?;
    /// pool.map([3, 30, 3, 3].map(|millis| delayed!(nap(millis))))?;
    /// let stats = pool.stats();
    /// assert_eq!(stats.total().tasks(), 4);
    /// assert!(stats.total().busy() >= Duration::from_millis(39));
    /// assert_eq!(stats.slowest()[0].task_index(), Some(1));
    /// println!("{stats}");
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        match self.site() {
            Ok(Site::InProcess(here)) => Some(here.stats()),
            Ok(Site::Workers(_, engine)) => {
                engine.driver.inspect(|scheduler| scheduler.stats(Instant::now()))
            }
            Err(_) => None,
        }
        // Nothing has run in this process.
        .unwrap_or_else(|| Stats::new(Vec::new(), Endings::default(), Vec::new()))
    }

    /// Waits until all submitted tasks have ended, then ends the pool. Each worker runs the [`finalizer`](Builder::finalizer), if
    /// there is one.
    ///
    /// # Errors
    ///
    /// Returns an error if a finalizer failed. The failure of a task is returned by its handle.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let pool = Pool::new(2)?;
    /// let handle = pool.submit(delayed!(square(7)));
    /// pool.join()?;
    /// assert_eq!(handle.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn join(self) -> Result<()> {
        self.end_in_order()?.into_iter().try_for_each(|exit| exit.map(drop))?;
        Ok(())
    }

    /// Ends the pool like [`join`](Self::join) and returns the results of the [`finalizer`](Builder::finalizer).
    ///
    /// There is one result for each worker that exited in an orderly way, in the order in which they exited, including workers
    /// that were replaced earlier.
    ///
    /// # Errors
    ///
    /// Returns an error if the pool has no finalizer, if the finalizer does not return a `T`, if a finalizer failed, or if its
    /// result cannot be decoded.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use procession::{Pool, delayed, worker};
    ///
    /// static SEEN: AtomicU64 = AtomicU64::new(0);
    ///
    /// #[worker]
    /// fn see(n: u64) {
    ///     SEEN.fetch_add(n, Ordering::Relaxed);
    /// }
    ///
    /// #[worker]
    /// fn seen() -> u64 {
    ///     SEEN.load(Ordering::Relaxed)
    /// }
    ///
    /// let pool = Pool::builder().jobs(2).finalizer(delayed!(seen())).build()?;
    /// pool.map((1..=100).map(|n| delayed!(see(n))))?;
    /// let by_worker: Vec<u64> = pool.join_with_exit_results()?;
    /// assert_eq!(by_worker.iter().sum::<u64>(), 5050);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn join_with_exit_results<T: DeserializeOwned + 'static>(self) -> Result<Vec<T>> {
        let finalizer = match self.site()? {
            Site::InProcess(here) => here.finalizer.as_ref(),
            Site::Workers(processes, _) => processes.config.lives.finalizer.as_ref(),
        };
        let Some(finalizer) = finalizer else {
            return Err(Error::config(
                "join_with_exit_results: the pool has no finalizer that returns a value",
            ));
        };
        finalizer.check::<T>()?;
        let function = finalizer.call.entry.name;
        let place = TaskLocation { attempts: 1, ..TaskLocation::default() };
        let exits = self.end_in_order()?.into_iter();
        let results = exits.map(|exit| T::decode(function, exit?.as_encoded(), place));
        Ok(results.collect::<Result<_, TaskError>>()?)
    }

    /// Waits until all submitted tasks have ended and, if there is a finalizer, until each worker has run it and left.
    fn end_in_order(&self) -> Result<Vec<Result<OwnedResult, TaskError>>> {
        let (processes, driver) = match self.site()? {
            Site::InProcess(here) => return Ok(here.finalize().into_iter().collect()),
            Site::Workers(processes, engine) => (processes, &engine.driver),
        };
        // A callback of the user may copy this process and return in both.
        let not_own = || {
            Error::config(
                "the pool was built by the process that this one was forked from, and only that process can end it",
            )
        };
        if !driver.wait_while(|scheduler| scheduler.unfinished() > 0) {
            return Err(not_own());
        }
        if processes.config.lives.finalizer.is_none() {
            return Ok(Vec::new());
        }
        driver.with(|scheduler, _| scheduler.retire_all());
        driver.wait_while(|scheduler| !scheduler.is_empty_of_workers());
        driver.inspect(Scheduler::take_exits).ok_or_else(not_own)
    }

    /// Ends the pool immediately. Queued tasks are cancelled, running tasks are killed, and no finalizer runs. Dropping a pool
    /// does the same.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn hang() {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let handle = pool.submit(delayed!(hang()));
    /// pool.terminate();
    /// assert!(handle.join().is_err());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn terminate(self) {}

    /// Changes the maximum number of workers.
    ///
    /// New workers start when there is work for them. Surplus workers receive no more tasks. They finish what they have started,
    /// hand back what they have not, and exit. A pool without processes is not affected.
    ///
    /// # Errors
    ///
    /// Returns an error if `jobs` is not a valid number of workers, as for [`Builder::jobs`].
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::Pool;
    ///
    /// let pool = Pool::new(1)?;
    /// pool.resize(3)?;
    /// assert_eq!(pool.jobs(), 3);
    /// assert!(pool.resize(0).is_err());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn resize(&self, jobs: impl Into<Jobs>) -> Result<()> {
        let jobs = jobs.into().count(cpus)?;
        self.site()?;
        self.set_jobs(Some(jobs));
        Ok(())
    }

    /// Changes the number of workers. `None` restores the number with which the pool was built.
    pub(crate) fn set_jobs(&self, jobs: Option<usize>) {
        if let Ok(Site::Workers(processes, engine)) = self.site() {
            let jobs = jobs.unwrap_or(processes.config.jobs);
            if jobs != self.jobs() {
                engine.driver.with(|scheduler, now| scheduler.resize(jobs, now));
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Pool");
        match &self.backend {
            Backend::InProcess(_) => f.field("in_process", &true),
            Backend::Processes(processes) => {
                f.field("name", &processes.config.spawn.name).field("jobs", &self.jobs())
            }
        };
        f.finish()
    }
}

/// Returns a number for this thread, so that the single tasks of each thread have a queue of their own.
fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // Threads that are ending share a queue.
    NUMBER.try_with(|number| *number).unwrap_or(u64::MAX)
}
