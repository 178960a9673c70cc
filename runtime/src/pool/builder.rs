//! [`Builder`]: a pool's settings, checked when it is built.

use std::{any::type_name, ffi::OsString, path::PathBuf, time::Duration};

use super::{
    Jobs, Pool,
    call::not_in_table,
    life::{Finalizer, Lives},
    restarts::Intensity,
};
use crate::{
    error::{Error, Result},
    launch::{METHODS, Output, Settled, StartMethod, Surroundings},
    protocol::Outcome,
    registry,
    setting::{self, ABOVE_ZERO, FOREVER, no_chunk, refused, variable, waits_for_debugger},
    task::{Call, Task},
    transport::wants_socket,
};

/// Generous, for machines under load; a worker takes a millisecond.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A pool's settings, made by [`Pool::builder`].
///
/// # What workers inherit, and when it is looked at
///
/// All workers of a pool find the same surroundings, replacements included:
///
/// | what | which moment counts |
/// |---|---|
/// | environment, directory | when the pool is built; for the pool behind `parallel!` at its first use, for a [`Process`](crate::Process) at its `spawn` |
/// | CPUs to share and to pin to (`inner_threads`, `pin_cpus`) | the same |
/// | umask, niceness, CPU affinity, resource limits | when a worker starts, or, where workers are forked from a template, when the template starts |
/// | ignored signals (a handler becomes the default action), stdin (always `/dev/null`), stdout and stderr (where `Output::Inherit`) | the same |
///
/// The directory is kept by its absolute path. A worker that starts in it anyway stays in it, so that it may have been renamed or
/// may be out of reach by its path. If this process has left it and it has been renamed or deleted since, later workers cannot start,
/// and the error names it.
///
/// # Examples
///
/// ```
/// use procession::Pool;
///
/// let pool = Pool::builder().jobs(2).name("scoring").env("RUST_BACKTRACE", "1").build()?;
/// assert_eq!(pool.jobs(), 2);
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    jobs: Option<Jobs>,
    chunk_size: Option<usize>,
    name: Option<String>,
    surroundings: Surroundings,
    initializer: Option<(Call, Outcome)>,
    lives: Lives,
    start_method: Option<StartMethod>,
    preload: Option<(Call, Outcome)>,
    start_timeout: Duration,
    max_restarts: Intensity,
    retries: u32,
    task_timeout: Option<Duration>,
    seed: Option<u64>,
}

/// Settings that have been checked.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) jobs: usize,
    pub(super) chunk_size: Option<usize>,
    pub(super) name: Option<String>,
    pub(super) surroundings: Settled,
    pub(super) initializer: Option<(Call, Outcome)>,
    pub(super) lives: Lives,
    pub(super) start_method: StartMethod,
    pub(super) preload: Option<(Call, Outcome)>,
    pub(super) start_timeout: Duration,
    pub(super) max_restarts: Intensity,
    pub(super) retries: u32,
    pub(super) task_timeout: Option<Duration>,
    pub(super) seed: Option<u64>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            jobs: None,
            chunk_size: None,
            name: None,
            surroundings: Surroundings::default(),
            initializer: None,
            lives: Lives::default(),
            start_method: None,
            preload: None,
            start_timeout: START_TIMEOUT,
            max_restarts: Intensity::default(),
            retries: 0,
            task_timeout: None,
            seed: None,
        }
    }

    /// How many workers: a number, [`Jobs`], or negative as in joblib. Default: `PROCESSION_JOBS`, or all the CPUs that affinity and
    /// cgroups allow.
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
    /// assert_eq!(pool.jobs(), 2);
    /// assert_eq!(pool.submit(delayed!(square(7))).join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn jobs(mut self, jobs: impl Into<Jobs>) -> Self {
        self.jobs = Some(jobs.into());
        self
    }

    /// How many tasks of a call travel together. Default: found by measuring.
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
    /// let pool = Pool::builder().jobs(2).chunk_size(16).build()?;
    /// assert_eq!(pool.map((0..3).map(|n| delayed!(square(n))))?, [0, 1, 4]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn chunk_size(mut self, tasks: usize) -> Self {
        self.chunk_size = Some(tasks);
        self
    }

    /// The pool's name, for errors and logs. `ps` shows its workers by it, each with its place: `scoring-2` (cut to 15 bytes, as
    /// the kernel has them). At most 255 bytes; control characters in it are shown escaped.
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
    /// let pool = Pool::builder().jobs(1).name("scoring").build()?;
    /// assert_eq!(pool.submit(delayed!(square(7))).join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets a variable in the workers' environment, on top of this process's own.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn variable(name: &str) -> Option<String> {
    ///     std::env::var(name).ok()
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).env("MODEL", "small").build()?;
    /// assert_eq!(pool.submit(delayed!(variable("MODEL"))).join()?.as_deref(), Some("small"));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.surroundings.env.push((name.into(), Some(value.into())));
        self
    }

    /// Takes a variable out of the workers' environment. Of [`env`](Self::env) and this the last word about a name counts.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn variable(name: &str) -> Option<String> {
    ///     std::env::var(name).ok()
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).env_remove("HOME").build()?;
    /// assert_eq!(pool.submit(delayed!(variable("HOME"))).join()?, None);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.surroundings.env.push((name.into(), None));
        self
    }

    /// The folder that workers work in. Default: this process's.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn folder() -> Option<std::path::PathBuf> {
    ///     std::env::current_dir().ok()
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).current_dir("/").build()?;
    /// assert_eq!(pool.submit(delayed!(folder())).join()?, Some("/".into()));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.surroundings.current_dir = Some(folder.into());
        self
    }

    /// How much nicer than this process workers are: they give way to others, as programs do that `nice -n` starts. From -20 to 19;
    /// a negative number needs rights that few processes have, without which no worker starts. Default: 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::Pool;
    ///
    /// let in_the_background = Pool::builder().jobs(2).nice(10).build()?;
    /// assert!(Pool::builder().nice(100).build().is_err());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn nice(mut self, nice: i32) -> Self {
        self.surroundings.nice = Some(nice);
        self
    }

    /// Pins each worker to one CPU: worker *i* to the *i*-th of those that the thread that builds the pool may use, and with more
    /// workers than CPUs from the first again. What the worker starts stays there, too. Default: no.
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
    /// let pool = Pool::builder().jobs(2).pin_cpus(true).build()?;
    /// assert_eq!(pool.submit(delayed!(square(7))).join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn pin_cpus(mut self, pin: bool) -> Self {
        self.surroundings.pin_cpus = pin;
        self
    }

    /// Sets whether a panic in a worker has a backtrace, whatever the environment says.
    ///
    /// By default `RUST_BACKTRACE` decides, as in any Rust program. To capture the first backtrace of a process takes time and memory, for the
    /// program's debug information is read. This sets `RUST_BACKTRACE` to `1` or `0` in the workers' environment; the last of this and
    /// [`env`](Self::env) counts. See [`RemotePanic::backtrace`](crate::RemotePanic::backtrace).
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn third(numbers: Vec<u32>) -> u32 {
    ///     numbers[2]
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).backtrace(false).build()?;
    /// let error = pool.submit(delayed!(third(vec![1]))).join().unwrap_err();
    /// assert_eq!(error.panic().map(|panic| panic.backtrace()), Some(""));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn backtrace(self, captures: bool) -> Self {
        self.env("RUST_BACKTRACE", if captures { "1" } else { "0" })
    }

    /// How many threads the libraries that a worker uses may start, so that all workers together do not start more than there are
    /// CPUs. Default: CPUs divided by workers, at least 1.
    ///
    /// The number is put into the variables that such libraries read: `RAYON_NUM_THREADS`, `OMP_NUM_THREADS`, `OPENBLAS_NUM_THREADS`,
    /// `MKL_NUM_THREADS`, `BLIS_NUM_THREADS`, `VECLIB_MAXIMUM_THREADS`, `NUMBA_NUM_THREADS`, `NUMEXPR_NUM_THREADS`, `POLARS_MAX_THREADS`,
    /// `TOKIO_WORKER_THREADS`. What [`env`](Self::env) or [`env_remove`](Self::env_remove) says of one of them counts in any case; what
    /// this process's own environment says goes before the default, and not before a number that is given here.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn threads() -> Option<String> {
    ///     std::env::var("RAYON_NUM_THREADS").ok()
    /// }
    ///
    /// let pool = Pool::builder().jobs(2).inner_threads(3).build()?;
    /// assert_eq!(pool.submit(delayed!(threads())).join()?.as_deref(), Some("3"));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn inner_threads(mut self, threads: usize) -> Self {
        self.surroundings.inner_threads = Some(threads);
        self
    }

    /// Where what workers write to stdout goes. Default: [`Output::Inherit`].
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Output, Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn greet() {
    ///     println!("hello");
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).stdout(Output::Capture).build()?;
    /// let (outcome, captured) = pool.submit(delayed!(greet())).join_captured();
    /// outcome?;
    /// assert_eq!(captured.stdout(), "hello\n");
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn stdout(mut self, output: Output) -> Self {
        self.surroundings.outputs.stdout = output;
        self
    }

    /// Where what workers write to stderr goes. Default: [`Output::Inherit`].
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Output, Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn complain() {
    ///     eprintln!("the disk is full");
    ///     std::process::abort();
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).stderr(Output::Capture).build()?;
    /// let error = pool.submit(delayed!(complain())).join().unwrap_err();
    /// assert!(error.stderr_tail().is_some_and(|words| words.contains("the disk is full")));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn stderr(mut self, output: Output) -> Self {
        self.surroundings.outputs.stderr = output;
        self
    }

    /// A task that each worker runs once, before any other; replacements included.
    ///
    /// Where it panics, ends its process or returns an `Err`, the worker is no worker, and another is tried, after a pause. After five
    /// failures in a row with no worker serving, all the pool's tasks come to its error, those that are handed in later included.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::OnceLock;
    /// use procession::{Pool, RemoteError, delayed, worker};
    ///
    /// static WORDS: OnceLock<Vec<String>> = OnceLock::new();
    ///
    /// #[worker]
    /// fn load(text: &str) -> Result<(), RemoteError> {
    ///     if text.is_empty() {
    ///         return Err(RemoteError::msg("there are no words"));
    ///     }
    ///     WORDS.get_or_init(|| text.split(' ').map(str::to_owned).collect());
    ///     Ok(())
    /// }
    ///
    /// #[worker]
    /// fn word(n: usize) -> Option<String> {
    ///     WORDS.get()?.get(n).cloned()
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).initializer(delayed!(load("once in each"))).build()?;
    /// assert_eq!(pool.submit(delayed!(word(2))).join()?.as_deref(), Some("each"));
    ///
    /// let pool = Pool::builder().jobs(1).initializer(delayed!(load(""))).build()?;
    /// let error = pool.submit(delayed!(word(0))).join().unwrap_err();
    /// assert!(error.to_string().contains("there are no words"));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn initializer<T>(mut self, task: Task<T>) -> Self {
        self.initializer = Some((task.call, outcome_of(type_name::<T>())));
        self
    }

    /// A task that each worker runs once, after its last, before it leaves in good order: when it is replaced after
    /// [`max_tasks_per_worker`](Self::max_tasks_per_worker) or [`max_worker_rss`](Self::max_worker_rss), when it leaves after
    /// [`idle_timeout`](Self::idle_timeout) or [`Pool::resize`], and when the pool ends by [`Pool::join`]. A worker that crashes or is
    /// killed does not come to it, nor do those of a pool that is dropped or ended by [`Pool::terminate`].
    ///
    /// [`Pool::join_with_exit_results`] returns what it returned. Until then that is kept.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn work() {}
    ///
    /// #[worker]
    /// fn leave() -> u32 {
    ///     std::process::id()
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).max_tasks_per_worker(1).finalizer(delayed!(leave())).build()?;
    /// for _ in 0..3 {
    ///     pool.submit(delayed!(work())).join()?;
    /// }
    /// let pids: Vec<u32> = pool.join_with_exit_results()?;
    /// assert_eq!(pids.len(), 3);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn finalizer<T: 'static>(mut self, task: Task<T>) -> Self {
        self.lives.finalizer = Some(Finalizer::new::<T>(task.call));
        self
    }

    /// A worker leaves after so many tasks, and another takes its place when there is work for it: `maxtasksperchild` of Python's
    /// `multiprocessing`. What a task leaves behind, such as memory that a library never gives back, goes with its process. The
    /// initializer and the finalizer do not count. Default: it stays.
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
    /// let pool = Pool::builder().jobs(1).max_tasks_per_worker(2).build()?;
    /// let pids = pool.map((0..4).map(|_| delayed!(pid())))?;
    /// assert!(pids[0] == pids[1] && pids[1] != pids[2] && pids[2] == pids[3]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn max_tasks_per_worker(mut self, tasks: u64) -> Self {
        self.lives.max_tasks = Some(tasks);
        self
    }

    /// A worker that has more than this many bytes of memory resident after a task is given no more, and another takes its place.
    /// No task is lost by it; the first time, the pool says so by a record of its logger. Default: it stays, however large.
    ///
    /// What counts is what the system counts as the process's resident set: pages that it shares with others included, such as those of
    /// a template's [`preload`](Self::preload). A task that asks for more than there is is not kept from it: see
    /// [`memory_limit`](Self::memory_limit).
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn leak(megabytes: usize) -> u32 {
    ///     std::mem::forget(vec![1u8; megabytes << 20]);
    ///     std::process::id()
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).max_worker_rss(100 << 20).build()?;
    /// let before = pool.submit(delayed!(leak(200))).join()?;
    /// let after = pool.submit(delayed!(leak(1))).join()?;
    /// assert_ne!(before, after);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn max_worker_rss(mut self, bytes: u64) -> Self {
        self.lives.max_rss = Some(bytes);
        self
    }

    /// How many bytes of memory a worker may allocate on top of what it begins with. A task that asks for more fails as out of memory
    /// ([`is_out_of_memory`](crate::TaskError::is_out_of_memory)), and its process ends; others don't notice. At least 1 MiB. Default: as
    /// much as there is.
    ///
    /// What counts is memory that is the worker's own and can be written to (`RLIMIT_DATA`): the heap, anonymous mappings, stacks of
    /// threads, whether used or not. Mapped files, memory that is shared, and what an allocator reserves without using it do not count,
    /// for they need not be there. A task can look whether there is enough, as by `Vec::try_reserve`, and go on if there is not.
    ///
    /// Where no limit is set, or the machine has less than it allows, the kernel may kill a worker for want of memory. That is told apart
    /// from another's SIGKILL by the kernel's count of such killings, and fails the task as out of memory, too.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn zeros(bytes: usize) -> usize {
    ///     vec![0u8; bytes].len()
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).memory_limit(256 << 20).build()?;
    /// assert_eq!(pool.submit(delayed!(zeros(1 << 20))).join()?, 1 << 20);
    /// let error = pool.submit(delayed!(zeros(4 << 30))).join().unwrap_err();
    /// assert!(error.is_out_of_memory() && !error.is_crash(), "{error}");
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.surroundings.memory = Some(bytes);
        self
    }

    /// A worker that has had nothing to do for so long leaves; the next call brings it back. Default: it stays.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let pool = Pool::builder().jobs(2).idle_timeout(Duration::from_secs(60)).build()?;
    /// assert_eq!(pool.submit(delayed!(square(7))).join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.lives.idle_timeout = Some(timeout.min(FOREVER));
        self
    }

    /// How workers come to be. Default: `PROCESSION_START_METHOD`, or [`StartMethod::Spawn`].
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, StartMethod, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).start_method(StartMethod::ForkServer).build()?;
    /// assert_eq!(pool.submit(delayed!(square(7))).join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.start_method = Some(method);
        self
    }

    /// A task that runs once, in the template that workers are forked from, before the first of them: what it leaves in statics is
    /// there in every worker, replacements included, and its memory is shared until somebody writes to it.
    ///
    /// It runs in the pool's folder and with its environment, when the first worker is wanted (under [`StartMethod::Fork`] when the
    /// pool is built). It may start threads if it joins them. If it panics, ends its process, or returns an `Err` in every attempt, or
    /// is not done within the [`start_timeout`](Self::start_timeout), the pool's tasks come to an error with its words. Records that it
    /// logs stay in the template. If the template itself is killed, another is made, and the task runs again.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::OnceLock;
    /// use procession::{Pool, StartMethod, delayed, worker};
    ///
    /// static WORDS: OnceLock<Vec<String>> = OnceLock::new();
    ///
    /// #[worker]
    /// fn load(text: &str) {
    ///     WORDS.get_or_init(|| text.split(' ').map(str::to_owned).collect());
    /// }
    ///
    /// #[worker]
    /// fn word(n: usize) -> Option<String> {
    ///     WORDS.get()?.get(n).cloned()
    /// }
    ///
    /// let pool = Pool::builder()
    ///     .jobs(2)
    ///     .start_method(StartMethod::ForkServer)
    ///     .preload(delayed!(load("loaded once, seen by all")))
    ///     .build()?;
    /// assert_eq!(pool.submit(delayed!(word(1))).join()?.as_deref(), Some("once,"));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn preload<T: 'static>(mut self, task: Task<T>) -> Self {
        self.preload = Some((task.call, outcome_of(type_name::<T>())));
        self
    }

    /// How long a worker may take to shake hands before it is killed and another is tried. Default: 30 s. A template has the same
    /// time for its start, [`preload`](Self::preload) included. Above zero; from a year on it is no limit.
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
    /// use std::time::Duration;
    ///
    /// let pool = Pool::builder().jobs(1).start_timeout(Duration::from_secs(60)).build()?;
    /// assert_eq!(pool.submit(delayed!(square(7))).join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Sets how many starts of workers may fail again within which time, as OTP's supervisors count restarts. Default: 10 within 30 s.
    ///
    /// A start has failed if the worker ends before it is of use, is late ([`start_timeout`](Self::start_timeout)), or its
    /// [`initializer`](Self::initializer) fails. The next is tried after a pause, which doubles from 10 ms to 500 ms. Starts that were
    /// under way together count as one.
    ///
    /// A pool gives up when one more fails than that, or when starts have done nothing but fail for that time or the start timeout,
    /// whichever is longer. Its tasks then fail with the last cause and the number of starts, and so do those that are submitted within
    /// that time again, or until a worker serves. Later ones are tried anew. A start that was under way when the limit was exceeded is
    /// waited for, up to the start timeout. A pool with a worker that serves is never given up, nor is one that the system
    /// refuses to start workers for, at a limit of processes: that is tried for the start timeout, for tasks that are submitted later
    /// again.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn load_model() {
    ///     std::process::exit(7);
    /// }
    ///
    /// #[worker]
    /// fn score(n: u64) -> u64 {
    ///     n
    /// }
    ///
    /// let pool = Pool::builder()
    ///     .jobs(1)
    ///     .initializer(delayed!(load_model()))
    ///     .max_restarts(2, Duration::from_secs(30))
    ///     .build()?;
    /// let error = pool.submit(delayed!(score(1))).join().unwrap_err().to_string();
    /// assert!(error.contains("load_model` crashed: the process left with exit code 7; given up after 3 failed starts"));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn max_restarts(mut self, most: u32, within: Duration) -> Self {
        self.max_restarts = Intensity { most, within };
        self
    }

    /// How often a task whose worker died is started again: exactly so many more attempts. Default: 0, at most once.
    ///
    /// What this and [`task_timeout`](Self::task_timeout) apply to, and what [`Pool::stats`] counts:
    ///
    /// | | `retries` | `task_timeout` | counted |
    /// |---|---|---|---|
    /// | tasks: `map`, `imap`, `submit`, `parallel!`, and `broadcast` on each worker | yes | yes | yes |
    /// | [`finalizer`](Self::finalizer) | no: its worker has gone | yes | no |
    /// | [`initializer`](Self::initializer) | no: the next worker runs its own | no: it takes as long as it takes | no |
    /// | [`preload`](Self::preload) | no: the next template runs it | no: [`start_timeout`](Self::start_timeout) | no |
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn crash() {
    ///     std::process::abort();
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).retries(2).build()?;
    /// let error = pool.submit(delayed!(crash())).join().unwrap_err();
    /// assert!(error.is_crash() && error.attempts() == 3);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How long a task may run, from its beginning in the worker: the time that it waits does not count, nor does time for which the
    /// whole program is stopped (Ctrl-Z). Default: as long as it takes.
    ///
    /// A task that runs for longer comes to an error ([`is_timeout`](crate::TaskError::is_timeout)), and is not tried again. It is told
    /// first, by [`procession::is_cancelled`](crate::is_cancelled); if it has not ended 100 ms later, its process is asked to end, by
    /// SIGTERM, and another 250 ms later it is killed, and another worker takes the place. Tasks that wait behind it run elsewhere.
    ///
    /// What it applies to stands in the table at [`retries`](Self::retries). The time is counted in steps, so that the end may come later by
    /// a sixteenth, and, on a busy machine, by more; never earlier.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn sleep(millis: u64) {
    ///     std::thread::sleep(Duration::from_millis(millis));
    /// }
    ///
    /// let pool = Pool::builder().jobs(2).task_timeout(Duration::from_millis(200)).build()?;
    /// let outcomes: Vec<_> = pool.imap([0, 60_000, 1].map(|n| delayed!(sleep(n)))).collect();
    /// assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    /// let error = outcomes[1].as_ref().unwrap_err();
    /// assert!(error.is_timeout() && error.to_string().contains("200ms"));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn task_timeout(mut self, timeout: Duration) -> Self {
        self.task_timeout = Some(timeout);
        self
    }

    /// Sets the number from which the random seeds of tasks are derived, for calls without a `seed` of their own. Default: 0, or the
    /// seed of the task that makes the call.
    ///
    /// The seed of a task, which [`rng_seed`](crate::rng_seed) returns in it, is made of this number, of the number of the call among the
    /// calls of the pool, and of the task's index in the call. So each call draws numbers of its own, and they do not depend on how many
    /// workers there are, and repeat when the program is run again.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, rng_seed, worker};
    ///
    /// #[worker]
    /// fn draw() -> u64 {
    ///     rng_seed() // give it to a generator of random numbers
    /// }
    ///
    /// let draw = |pool: &Pool| pool.map((0..12).map(|_| delayed!(draw())));
    /// let (one, two) = (Pool::builder().jobs(1).seed(42).build()?, Pool::builder().jobs(2).seed(42).build()?);
    /// let first = draw(&one)?;
    /// assert_eq!(first, draw(&two)?);
    /// assert_ne!(first, draw(&one)?, "another call draws other numbers");
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The pool. Its workers start when there is work for them.
    ///
    /// # Errors
    ///
    /// A setting or a variable of the environment is impossible, an initializer's argument did not encode, or this process cannot start
    /// workers (it runs setuid, or as a library in another program). The error of a setting says the setting, the value and what is
    /// allowed.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::Pool;
    ///
    /// let pool = Pool::builder().jobs(2).build()?;
    /// assert_eq!(pool.jobs(), 2);
    /// assert!(Pool::builder().jobs(0).build().is_err());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn build(self) -> Result<Pool> {
        let jobs = self.jobs.map_or_else(Jobs::from_env, Ok)?.count()?;
        if self.chunk_size == Some(0) {
            return Err(no_chunk("chunk_size(0)"));
        }
        if self.max_restarts.within.is_zero() {
            let Intensity { most, within } = self.max_restarts;
            let setting = format_args!("max_restarts({most}, {within:?})");
            return Err(refused(setting, "starts would have no time to fail in", ABOVE_ZERO));
        }
        let limit = |time| setting::limit("task_timeout", time, "no task would ever end in time");
        let task_timeout = self.task_timeout.map(limit).transpose()?;
        let start_timeout = check_start_timeout(self.start_timeout)?;
        wants_socket()?;
        let start_method = self.start_method.map_or_else(method_from_env, Ok)?;
        let preload = self.preload.as_ref().map(|(call, _)| call);
        self.lives.check()?;
        let initializer = self.initializer.as_ref().map(|(call, _)| call);
        let finalizer = self.lives.finalizer.as_ref().map(|finalizer| &finalizer.call);
        for (what, call) in [("initializer", initializer), ("finalizer", finalizer), ("preload", preload)] {
            if let Some(Call { entry, args: Err(words) }) = call {
                return Err(Error::config(format!("the {what} `{}` cannot be called: {words}", entry.name)));
            }
        }
        if let (StartMethod::Spawn, Some(call)) = (start_method, preload) {
            return Err(Error::config(format!(
                "preload `{}`: there is no process to load it in, for StartMethod::Spawn executes each worker anew: use \
                 start_method(StartMethod::ForkServer), or an initializer, which runs in every worker",
                call.entry.name
            )));
        }
        let mut calls = initializer.into_iter().chain(finalizer).chain(preload);
        if let Some(call) = calls.find(|call| registry::id_of(call.entry).is_none()) {
            return Err(not_in_table(call, None).into());
        }
        let surroundings = self.surroundings.settle(self.name.as_deref(), jobs)?;
        Pool::start(Config {
            jobs,
            chunk_size: self.chunk_size,
            name: self.name,
            surroundings,
            initializer: self.initializer,
            lives: self.lives,
            start_method,
            preload: self.preload,
            start_timeout,
            max_restarts: self.max_restarts,
            retries: self.retries,
            task_timeout,
            seed: self.seed,
        })
    }
}

/// Checks how long a start may take.
///
/// # Errors
///
/// Nothing starts in no time.
pub(crate) fn check_start_timeout(timeout: Duration) -> Result<Duration> {
    let timeout = setting::limit("start_timeout", timeout, "no worker would ever start in time")?;
    // A person takes as long as that takes.
    Ok(if waits_for_debugger()? { FOREVER } else { timeout })
}

/// `PROCESSION_START_METHOD`, if it is set. A worker, which has two threads, cannot be copied: its own pools take the nearest to it.
pub(crate) fn method_from_env() -> Result<StartMethod> {
    let method = variable("PROCESSION_START_METHOD", METHODS, |words| words.parse().ok())?;
    let method = method.unwrap_or_default();
    Ok(match method {
        StartMethod::Fork if crate::context::is_worker() => StartMethod::ForkServer,
        method => method,
    })
}

/// What a result of the type of this name says of failure. The template has the encoded result and not its type; should the compiler
/// ever name types otherwise, an `Err` goes unnoticed.
fn outcome_of(type_name: &str) -> Outcome {
    if !type_name.starts_with("core::result::Result<") {
        Outcome::Value
    } else if type_name.ends_with("::RemoteError>") || type_name.ends_with("::String>") {
        Outcome::Words
    } else {
        Outcome::Result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RemoteError;

    #[test]
    fn a_result_is_known_by_the_name_of_its_type() {
        for (name, outcome) in [
            (type_name::<()>(), Outcome::Value),
            (type_name::<Option<Result<(), String>>>(), Outcome::Value),
            (type_name::<Result<u32, RemoteError>>(), Outcome::Words),
            (type_name::<Result<(), String>>(), Outcome::Words),
            (type_name::<std::result::Result<(), u8>>(), Outcome::Result),
        ] {
            assert_eq!(outcome_of(name), outcome, "{name}");
        }
    }
}
