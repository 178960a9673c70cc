//! [`Pool`]: worker processes that run tasks.

mod bar;
mod book;
mod builder;
mod call;
mod crew;
mod drive;
mod imap;
mod jobs;
mod lane;
mod life;
mod listen;
mod log;
mod report;
mod restarts;
mod scheduler;
mod stats;
#[cfg(feature = "tracing")]
mod subscriber;
mod timeline;
mod tray;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use serde::de::DeserializeOwned;

pub use builder::Builder;
pub use imap::{IMap, IMapUnordered};
#[cfg(feature = "futures")]
pub use imap::{ResultStream, ResultStreamUnordered};
pub use jobs::{Jobs, ParseJobsError};
pub use stats::{SlowTask, Stats, WorkerStats};

pub(crate) use book::Words;
pub(crate) use builder::{START_TIMEOUT, check_start_timeout, method_from_env};
pub(crate) use call::{Arrival, Call, CallOptions, seed_of_singles};
pub(crate) use listen::{crash, is_killed_for_memory, killed_for_memory, why_not_started};
pub(crate) use report::{Label, Report, verbose_by_env};
pub(crate) use restarts::{Intensity, Others, Restarts, Verdict};
pub(crate) use scheduler::levels;

use builder::Config;
use call::{Here, not_in_table, seed_of_call};
use drive::Driver;
use lane::{LaneId, Parcel, Recipient, Single};
use scheduler::Scheduler;
use stats::Endings;

use crate::{
    codec::{OwnedResult, ShortBytes},
    error::{Error, Place, Result, TaskError, TaskErrorKind},
    handle::{Completer, Exchange, Handle, Wakes, decode},
    id::{FunctionId, TaskId},
    launch::{ForkLauncher, Launcher, LocalLauncher, StartMethod},
    parallel::{Gather, Settings},
    protocol::{Outcome, Preload, Records, Setup, VERSION},
    registry,
    seed::Calls,
    setting::flag,
    sys::{per_process::PerProcess, quiesce::is_own_thread},
    task::{IntoTask, Tasks},
};

/// A pool of worker processes.
///
/// Its workers start when there is work for them, are replaced when they die, and end with the pool.
///
/// A process that was forked from this one, as daemons are, may go on using the pool. It has workers of its own then, with the same
/// settings, which start when it first uses the pool; a template's [`preload`](Builder::preload) runs again. Under
/// [`StartMethod::Fork`] such a process must have one thread at that time, or every call is an error that says so. Handles and iterators
/// that were made before the fork belong to the original process: in the copy they are errors.
///
/// Code that closes every descriptor from 3 upwards, as some daemons do (`closefrom`), closes the pool's, too. Then all its tasks, those
/// that are handed in later included, come to an error that says so, within a second; a pool that is built afterwards works. Nothing is
/// written to whatever has the numbers of the descriptors by then, and nothing of it is closed. The workers end by themselves, and what the
/// pool has taken in this process is given back at its end only: memory, a thread that sleeps, and entries of processes that nobody
/// collects (zombies).
///
/// Dropping a pool waits until its workers have ended, unless one of this library's own threads drops it, in a waker or a logger for
/// example: then it ends by itself.
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
pub struct Pool {
    backend: Backend,
}

enum Backend {
    /// Tasks run on the calling thread.
    InProcess(Arc<Here>),
    Processes(Processes),
}

struct Processes {
    config: Arc<Config>,
    name: Option<Arc<str>>,
    /// The calls that the pool has had.
    calls: Calls,
    /// What runs the workers, or why there is nothing that does. A copy of this process makes its own when it first uses the pool.
    engine: PerProcess<Result<Engine, String>>,
}

/// Runs a pool's workers. Dropped, it ends them.
struct Engine {
    driver: Arc<Driver>,
    background: Option<JoinHandle<()>>,
}

/// Where the tasks of a pool run.
enum Site<'a> {
    Here(&'a Arc<Here>),
    Workers(&'a Processes, &'a Engine),
}

impl Processes {
    /// The pool's name, for errors.
    fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    fn new(config: Config) -> Result<Self> {
        let name = config.name.as_deref().map(Arc::from);
        let processes =
            Self { config: Arc::new(config), name, calls: Calls::new(), engine: PerProcess::new() };
        let engine = Engine::new(&processes.config)?;
        // Nobody else knows the pool yet, so that there is no other.
        let _ = processes.engine.get_or_init(|| Ok(engine));
        Ok(processes)
    }

    /// # Errors
    ///
    /// This process is a copy of the one that built the pool, and cannot have workers of the same kind.
    fn engine(&self) -> Result<&Engine> {
        let engine = self.engine.get_or_init(|| {
            Engine::new(&self.config).map_err(|error| {
                format!(
                    "this pool was built by the process that this one was forked from, and needs workers of its own here, which it \
                     cannot have: {error}; build a pool in this process"
                )
            })
        });
        engine.as_ref().map_err(Error::config)
    }
}

impl Engine {
    fn new(config: &Arc<Config>) -> Result<Self> {
        // Before anything that starts a thread.
        let launcher = launcher(config).map_err(Error::config)?;
        let driver = Driver::new(Scheduler::new(config.clone(), launcher))?;
        let background = Some(driver.start_background(config.name.as_deref())?);
        Ok(Self { driver, background })
    }

    /// What handles hold: it keeps nothing open once the pool has ended.
    fn exchange(&self) -> Weak<dyn Exchange> {
        Arc::<Driver>::downgrade(&self.driver)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let driver = &self.driver;
        driver.examine();
        driver.with(|scheduler, _, now| scheduler.close(now));
        let Some(thread) = self.background.take() else { return };
        if is_own_thread() {
            // A callback of the user's dropped the pool. This thread may be the pool's own, or one that the pool's own thread waits for,
            // so the pool ends without being waited for.
            return driver.leave_to_background();
        }
        driver.wait_while(|scheduler| !scheduler.is_empty_of_workers());
        driver.stop_background(thread);
    }
}

impl Pool {
    /// A pool of so many workers, with all else as it is by default.
    ///
    /// # Errors
    ///
    /// As for [`Builder::build`].
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
    /// assert_eq!(pool.submit(delayed!(square(7))).join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn new(jobs: impl Into<Jobs>) -> Result<Self> {
        Self::builder().jobs(jobs).build()
    }

    /// Settings for a pool.
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
    /// let pool = Pool::builder().jobs(2).name("squares").build()?;
    /// assert_eq!(pool.submit(delayed!(square(7))).join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A pool without processes: tasks run on the calling thread, through the same encoding. For tests and debugging.
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

    /// Builds what the settings say; under `PROCESSION_IN_PROCESS=1` a pool without processes.
    fn start(config: Config) -> Result<Self> {
        if in_process_by_env()? {
            // Environment and folder are this process's own, and stay.
            let preload = config.preload.map(|(call, _)| (call, Outcome::Value));
            let first = preload.into_iter().chain(config.initializer).collect();
            let (finalizer, seed) = (config.lives.finalizer, config.seed);
            let here = Here { first, finalizer, seed, ..Here::default() };
            return Ok(Self { backend: Backend::InProcess(Arc::new(here)) });
        }
        Ok(Self { backend: Backend::Processes(Processes::new(config)?) })
    }

    /// Where tasks run. A worker that was forked has copies of the pools of the process that it was forked from; what is given to such a
    /// copy runs in the worker, as a `parallel!` there does. Any other copy of a process starts workers of its own.
    fn site(&self) -> Result<Site<'_>> {
        static HERE: PerProcess<Arc<Here>> = PerProcess::new();
        match &self.backend {
            Backend::InProcess(here) => Ok(Site::Here(here)),
            Backend::Processes(processes)
                if processes.engine.get().is_none() && crate::context::is_worker() =>
            {
                Ok(Site::Here(HERE.get_or_init(Arc::default)))
            }
            Backend::Processes(processes) => Ok(Site::Workers(processes, processes.engine()?)),
        }
    }

    /// Why the pool cannot run anything in this process, if it cannot.
    fn check(&self) -> Result<()> {
        self.site().map(drop)
    }

    /// How many workers the pool has at most; 1 for a pool without processes.
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
            (Ok(Site::Here(_)), _) | (Err(_), Backend::InProcess(_)) => 1,
            (Ok(Site::Workers(_, engine)), _) => engine.driver.look(|scheduler| scheduler.jobs()),
            (Err(_), Backend::Processes(processes)) => processes.config.jobs,
        }
    }

    /// Runs all the tasks and returns their results in the order of the input.
    ///
    /// The input may be of any length; it is read only as far ahead as the workers need it. `PROCESSION_VERBOSE` has lines on stderr
    /// say how far it is, as the setting `verbose` of [`parallel!`](crate::parallel).
    ///
    /// # Errors
    ///
    /// The first failure ends the call: queued tasks are dropped, running ones are killed.
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
    /// assert_eq!(pool.map((1..=3).map(|n| delayed!(square(n))))?, [1, 4, 9]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn map<T: DeserializeOwned + 'static>(&self, tasks: impl Tasks<T>) -> Result<Vec<T>> {
        let mut gather = Gather::new(Settings::new().pool(self));
        // Not a `for` loop: what an iterator passes on from within needs no place in between.
        let _ = gather.count(tasks).try_for_each(|task| gather.push(task));
        gather.finish()
    }

    /// Runs the tasks as the iterator is read, and gives their results in the order of the input.
    ///
    /// The input is read only as far as a window allows that is bounded in tasks and bytes: it may be endless. A failed task is an
    /// item; the iterator goes on. Dropping it ends the call.
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
    pub fn imap<T, I>(&self, tasks: I) -> IMap<T, I::IntoIter>
    where
        T: DeserializeOwned + 'static,
        I: Tasks<T>,
    {
        IMap::new(self, tasks.into_iter())
    }

    /// As [`imap`](Self::imap), but gives each result as soon as it is there, with its place in the input.
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
    pub fn imap_unordered<T, I>(&self, tasks: I) -> IMapUnordered<T, I::IntoIter>
    where
        T: DeserializeOwned + 'static,
        I: Tasks<T>,
    {
        IMapUnordered::new(self, tasks.into_iter())
    }

    /// As [`imap`](Self::imap), for those who await: a `Stream` of the results, in the order of the input. Needs the feature `futures`.
    ///
    /// The input is read while the stream is polled, and only as far as the window allows; nothing else of what it does blocks the
    /// executor's thread. (In a pool without processes tasks run there and then.) Dropping it ends the call.
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
    pub fn stream<T, I>(&self, tasks: I) -> ResultStream<T, I::IntoIter>
    where
        T: DeserializeOwned + 'static,
        I: Tasks<T>,
    {
        ResultStream::new(self, tasks.into_iter())
    }

    /// As [`stream`](Self::stream), but gives each result as soon as it is there, with its place in the input. Needs the feature
    /// `futures`.
    #[cfg(feature = "futures")]
    pub fn stream_unordered<T, I>(&self, tasks: I) -> ResultStreamUnordered<T, I::IntoIter>
    where
        T: DeserializeOwned + 'static,
        I: Tasks<T>,
    {
        ResultStreamUnordered::new(self, tasks.into_iter())
    }

    /// Hands in one task and returns at once; what is wrong comes out of the handle.
    ///
    /// In a pool without processes the task runs now.
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
        let site = self.site();
        if let Ok(Site::Workers(_, engine)) = site {
            engine.driver.rouse();
        }
        let completer = Arc::new(Completer::new());
        let name = task.function();
        let (processes, engine) = match site {
            Ok(Site::Workers(processes, engine)) => (processes, engine),
            Ok(Site::Here(here)) => {
                let (id, outcome) = here.run_single(&task.call);
                completer.complete(outcome, &mut Wakes::default());
                return Handle::new(completer, None, name, id);
            }
            Err(error) => {
                let error = TaskError::new(name, lost(&error), Place::default());
                completer.complete(Err(error), &mut Wakes::default());
                return Handle::new(completer, None, name, TaskId(0));
            }
        };
        let (function, args) = match travels(task.call, None) {
            Ok(parts) => parts,
            Err(error) => {
                engine.driver.look(|scheduler| scheduler.refused(error.kind()));
                completer.complete(Err(error.in_pool(processes.name())), &mut Wakes::default());
                return Handle::new(completer, None, name, TaskId(0));
            }
        };
        let id = engine.driver.submit(Single {
            lane: LaneId::Thread(thread_number()),
            number: 0,
            function,
            args,
            to: completer.clone(),
            retries: processes.config.retries,
        });
        Handle::new(completer, Some(engine.exchange()), name, TaskId(id))
    }

    /// Runs the task once on every worker, starting those that are not there yet, and returns the results in the workers' order.
    ///
    /// # Errors
    ///
    /// The first failure.
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
        let (processes, engine) = match self.site()? {
            Site::Workers(processes, engine) => (processes, engine),
            Site::Here(here) => {
                let place = Place { index: Some(0), attempts: 1, worker: None };
                return Ok(vec![decode(name, here.run_broadcast(&task.call)?.as_encoded(), place)?]);
            }
        };
        let (function, args) =
            travels(task.call, Some(0)).map_err(|error| error.in_pool(processes.name()))?;
        let seed = seed_of_call(None, processes.config.seed, &processes.calls);
        let handles: Vec<Handle<T>> = engine.driver.with(|scheduler, _, _| {
            let ids = scheduler.worker_ids();
            ids.zip(0..)
                .map(|(worker, index)| {
                    let completer = Arc::new(Completer::new());
                    let parcel = Parcel {
                        lane: LaneId::Pinned,
                        first: index,
                        records: Records::of(function, args.clone()),
                        to: Recipient::Member { handle: completer.clone(), seed },
                        attempts: 0,
                        retries: processes.config.retries,
                    };
                    scheduler.pin(worker, parcel);
                    Handle::new(completer, Some(engine.exchange()), name, TaskId(index))
                })
                .collect()
        });
        Ok(handles.into_iter().map(Handle::join).collect::<Result<_, TaskError>>()?)
    }

    /// What the pool has done so far: tasks, times, bytes and memory of each worker, and the slowest tasks. Printed, it is a table.
    ///
    /// Times of a pool without processes are those of its tasks, and nothing else is known of it.
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
            Ok(Site::Here(here)) => here.stats(),
            Ok(Site::Workers(_, engine)) => engine.driver.look(|scheduler| scheduler.stats(Instant::now())),
            // Nothing has run here.
            Err(_) => Stats::new(Vec::new(), Endings::default(), Vec::new()),
        }
    }

    /// Waits until all that was handed in has ended, then ends the pool, in good order: each worker runs the
    /// [`finalizer`](Builder::finalizer), if there is one.
    ///
    /// # Errors
    ///
    /// A finalizer failed. What went wrong with a task is for its handle to say.
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

    /// As [`join`](Self::join), and returns what the [`finalizer`](Builder::finalizer) returned in each worker, in the order in which
    /// the workers left: those that were replaced in the course of the pool's life included.
    ///
    /// # Errors
    ///
    /// The pool has no finalizer, or its result is no `T`; a finalizer failed, or its result does not decode.
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
            Site::Here(here) => here.finalizer.as_ref(),
            Site::Workers(processes, _) => processes.config.lives.finalizer.as_ref(),
        };
        let Some(finalizer) = finalizer else {
            return Err(Error::config(
                "join_with_exit_results: the pool has no finalizer that would return something",
            ));
        };
        finalizer.check::<T>()?;
        let function = finalizer.call.entry.name;
        let place = Place { attempts: 1, ..Place::default() };
        let exits = self.end_in_order()?.into_iter();
        let results = exits.map(|exit| decode(function, exit?.as_encoded(), place));
        Ok(results.collect::<Result<_, TaskError>>()?)
    }

    /// Waits until all that was handed in has ended and, if there is a finalizer, until each worker has run it and left.
    fn end_in_order(&self) -> Result<Vec<Result<OwnedResult, TaskError>>> {
        let (processes, driver) = match self.site()? {
            Site::Here(here) => return Ok(here.finalize().into_iter().collect()),
            Site::Workers(processes, engine) => (processes, &engine.driver),
        };
        driver.wait_while(|scheduler| scheduler.unfinished() > 0);
        if processes.config.lives.finalizer.is_none() {
            return Ok(Vec::new());
        }
        driver.with(|scheduler, _, _| scheduler.retire_all());
        driver.wait_while(|scheduler| !scheduler.is_empty_of_workers());
        Ok(driver.look(Scheduler::take_exits))
    }

    /// Ends the pool now: queued tasks are cancelled, running ones are killed, and no finalizer runs. Dropping a pool does the same.
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
    /// assert_eq!(pool.submit(delayed!(square(7))).join()?, 49);
    /// pool.terminate();
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn terminate(self) {}

    /// Changes how many workers the pool has at most, whether or not they have something to do. New ones start when there is work for
    /// them. Those that are too many are given no more tasks; what they have not begun others run, and they leave when they have
    /// done what they have begun.
    ///
    /// Without effect on a pool without processes.
    ///
    /// # Errors
    ///
    /// No pool can have so many workers, as for [`Builder::jobs`].
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
        let jobs = jobs.into().count()?;
        self.check()?;
        self.set_jobs(Some(jobs));
        Ok(())
    }

    /// Changes how many workers there are; `None`: to what the pool was built with.
    pub(crate) fn set_jobs(&self, jobs: Option<usize>) {
        if let Ok(Site::Workers(processes, engine)) = self.site() {
            let jobs = jobs.unwrap_or(processes.config.jobs);
            if jobs != self.jobs() {
                engine.driver.with(|scheduler, _, _| scheduler.resize(jobs));
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
                f.field("name", &processes.config.name).field("jobs", &self.jobs())
            }
        };
        f.finish()
    }
}

/// What tasks come to that cannot run at all.
fn lost(error: &Error) -> TaskErrorKind {
    TaskErrorKind::Lost { message: error.to_string() }
}

/// A task's function and arguments, if it can go to another process.
pub(crate) fn travels(
    call: crate::task::Call,
    index: Option<usize>,
) -> Result<(FunctionId, ShortBytes), TaskError> {
    let Some(function) = registry::id_of(call.entry) else { return Err(not_in_table(&call, index)) };
    let args = call.args.map_err(|words| {
        let kind = TaskErrorKind::Codec { message: words.into() };
        TaskError::new(call.entry.name, kind, Place { index, ..Place::default() })
    })?;
    Ok((function, args))
}

/// What makes workers come to be in the manner that the settings say.
fn launcher(config: &Config) -> Result<Box<dyn Launcher>, String> {
    let preload = config.preload.as_ref().map(|(call, outcome)| Preload {
        function: registry::id_of(call.entry).map_or(u32::MAX, |id| id.0),
        args: call.args.as_ref().map(ShortBytes::to_plain).unwrap_or_default(),
        folder: config.surroundings.folder.clone(),
        outcome: *outcome,
    });
    let setup = Setup { version: VERSION, build_id: registry::build_id(), preload };
    let (env, outputs) = (config.surroundings.env.clone(), config.surroundings.outputs);
    let start_timeout = config.start_timeout;
    Ok(match config.start_method {
        StartMethod::Spawn => Box::new(LocalLauncher::new()?),
        StartMethod::ForkServer => Box::new(ForkLauncher::server(setup, env, outputs, start_timeout)?),
        StartMethod::Fork => {
            Box::new(ForkLauncher::copy(setup, env, outputs, start_timeout, crate::worker::become_template)?)
        }
    })
}

/// `PROCESSION_IN_PROCESS=1`, or this is a worker, whose nested calls run where they are.
///
/// # Errors
///
/// It is neither 0 nor 1.
pub(crate) fn in_process_by_env() -> Result<bool> {
    flag("PROCESSION_IN_PROCESS")
}

/// The process's own pool, behind `parallel!`: made at first use and kept warm.
///
/// Inside a worker, calls that name no pool run in the worker.
pub(crate) fn global() -> Result<&'static Pool> {
    static POOL: PerProcess<Pool> = PerProcess::new();
    if crate::context::is_worker() {
        static HERE: PerProcess<Pool> = PerProcess::new();
        return Ok(HERE.get_or_init(Pool::in_process));
    }
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    // Where several threads come at once, one builds, and the others wait for its pool.
    static BUILDING: PerProcess<Mutex<()>> = PerProcess::new();
    let _building = BUILDING.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    let pool = Pool::builder().build()?;
    Ok(POOL.get_or_init(|| pool))
}

/// A number for this thread, to give the single tasks of each thread their turn.
fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that is ending shares a lane with others that do.
    NUMBER.try_with(|number| *number).unwrap_or(u64::MAX)
}
