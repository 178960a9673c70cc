//! Defines [`Builder`], which holds the settings of a pool and checks them when the pool is built.
//!
//! Every setting is checked here, so that the layers below receive valid ones only.

use std::{any::type_name, time::Duration};

use super::{Jobs, Pool};
use crate::{
    error::{Error, Result},
    launch::{SpawnOptions, StartMethod, spawn_setters},
    protocol::ReturnKind,
    registry,
    scheduler::{
        config::{CallOptions, Config, Finalizer, Lives},
        restarts::Intensity,
    },
    setting::{self, FOREVER},
    sys::cpu::all_and_own_cpus,
    task::{Task, not_in_table},
};

/// Configures a [`Pool`]. Created by [`Pool::builder`].
///
/// # What workers inherit
///
/// All workers of a pool start in the same environment, including replacements. This table says when each part of it is read:
///
/// | inherited by workers | read |
/// |---|---|
/// | environment variables, working directory | when the pool is built. For the pool behind `parallel!`: on first use. For a [`Process`](crate::Process): at `spawn` |
/// | the CPUs that `inner_threads` and `pin_cpus` distribute | at the same time |
/// | umask, niceness, CPU affinity, resource limits | when a worker starts. Where workers are forked from a template: when the template starts |
/// | ignored signals (handlers are reset to the default action), stdin (always `/dev/null`), stdout and stderr (with `Output::Inherit`) | at the same time |
///
/// The working directory is stored as an absolute path. A worker that already starts in that directory stays in it, so the
/// directory may have been renamed or may be unreachable by its path. If this process has changed its directory and the old one
/// was then renamed or deleted, later workers cannot start, and the error names the directory.
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
    call: CallOptions,
    spawn: SpawnOptions,
    lives: Lives,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            jobs: None,
            call: CallOptions::default(),
            spawn: SpawnOptions::default(),
            lives: Lives::default(),
        }
    }

    /// Sets the number of workers.
    ///
    /// Accepts a number, a [`Jobs`] value, or a negative number as in joblib (-1 for all CPUs, -2 for all but one). Default:
    /// `PROCESSION_JOBS`, or else all CPUs that the affinity mask and cgroups allow.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Jobs, Pool};
    ///
    /// let pool = Pool::builder().jobs(2).build()?;
    /// assert_eq!(pool.jobs(), 2);
    ///
    /// let leave_one_cpu_free = Pool::builder().jobs(Jobs::AllBut(1)).build()?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn jobs(mut self, jobs: impl Into<Jobs>) -> Self {
        self.jobs = Some(jobs.into());
        self
    }

    /// Sets how many tasks of a call are sent to a worker together. By default, the number is found by measuring.
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
    /// let pool = Pool::builder().jobs(2).chunk_size(16).build()?;
    /// assert_eq!(pool.map((0..3).map(|n| delayed!(square(n))))?, [0, 1, 4]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn chunk_size(mut self, tasks: usize) -> Self {
        self.call.batch = Some(tasks);
        self
    }

    /// Sets a task that each worker runs once before its first task. Replacement workers run it, too.
    ///
    /// If the task panics, ends its process or returns an `Err`, the worker is discarded, and another is started after a pause.
    /// If starts keep failing, the pool gives up and its tasks fail with the initializer's error.
    /// [`max_restarts`](Self::max_restarts) sets the limit.
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
        self.lives.initializer = Some((task.call, return_kind(type_name::<T>())));
        self
    }

    /// Sets a task that each worker runs once after its last task, before it exits in an orderly way.
    ///
    /// A worker exits in an orderly way if it is replaced because of [`max_tasks_per_worker`](Self::max_tasks_per_worker) or
    /// [`max_worker_rss`](Self::max_worker_rss), if it is shut down by [`idle_timeout`](Self::idle_timeout) or [`Pool::resize`],
    /// and when the pool ends by [`Pool::join`]. A worker that crashes or is killed does not run the finalizer. Neither do the
    /// workers of a pool that is dropped or ended by [`Pool::terminate`].
    ///
    /// The results are kept until [`Pool::join_with_exit_results`] returns them.
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

    /// Sets how many tasks a worker runs before it is replaced, like `maxtasksperchild` of Python's `multiprocessing`. Default:
    /// no limit.
    ///
    /// Whatever tasks have left behind, such as memory that a library never frees, ends with the process. The replacement starts
    /// when there is work for it. The initializer and the finalizer do not count as tasks.
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

    /// Sets how many bytes of resident memory a worker may have after a task. A worker that exceeds this is replaced. Default: no
    /// limit.
    ///
    /// No task is lost. The pool logs a record the first time this happens. Counted is the process's own
    /// resident memory as reported by the kernel: without mapped files, and without memory that it shares with other processes, such
    /// as a [`SharedSlice`](crate::SharedSlice), but with pages that it inherits from a template's [`preload`](Self::preload). This
    /// setting does not stop a task that allocates too much while it runs. Use [`memory_limit`](Self::memory_limit) for that.
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

    /// Shuts down workers that have been idle for `timeout`. The next call starts them again. Default: workers stay.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use procession::Pool;
    ///
    /// let pool = Pool::builder().jobs(2).idle_timeout(Duration::from_secs(60)).build()?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.lives.idle_timeout = Some(timeout.min(FOREVER));
        self
    }

    /// Sets a task that runs once in the template that workers are forked from.
    ///
    /// Whatever the task stores in `static`s is present in every worker, including replacements. The memory is shared until it is
    /// written to. Requires [`StartMethod::ForkServer`] or [`StartMethod::Fork`].
    ///
    /// The task runs in the pool's working directory and with its environment, before the first worker is needed. Under
    /// [`StartMethod::Fork`] it runs when the pool is built. It may start threads if it joins them. Records that it logs stay in
    /// the template. If the template is killed, a new one is started and the task runs again.
    ///
    /// An attempt fails if the task panics, ends its process, returns an `Err`, or does not finish within
    /// [`start_timeout`](Self::start_timeout). If all attempts that [`max_restarts`](Self::max_restarts) allows fail, the pool's
    /// tasks fail with the error of the last.
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
        self.lives.preload = Some((task.call, return_kind(type_name::<T>())));
        self
    }

    /// Sets how many starts of workers may fail within a period before the pool gives up. Default: 10 within 30 s.
    ///
    /// The limit is counted as OTP's supervisors count restarts. A start has failed if the worker ends before it can run tasks,
    /// exceeds the [`start_timeout`](Self::start_timeout), or its [`initializer`](Self::initializer) fails. The next start
    /// follows after a pause, which doubles from 10 ms to 500 ms. Starts that were in progress at the same time count as one.
    ///
    /// A pool gives up if one more start fails than allowed, or if starts have only failed for `within` or for the start timeout,
    /// whichever is longer. Its tasks then fail with the last cause and the number of starts. So do tasks that are submitted
    /// within that time, unless a worker becomes ready. Tasks submitted later are tried again. A start that was in progress when
    /// the limit was exceeded is given the rest of its start timeout.
    ///
    /// A pool with a working worker never gives up. If the system refuses to start processes, for example at a process limit, the
    /// pool keeps trying for the start timeout, and again for tasks that are submitted later.
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
    /// assert!(error.contains("load_model` crashed: the process exited with exit code 7; gave up after 3 failed starts"));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn max_restarts(mut self, most: u32, within: Duration) -> Self {
        self.lives.max_restarts = Intensity { most, within };
        self
    }

    /// Sets how many times a task is retried after its worker dies. Default: 0.
    ///
    /// This table lists which functions `retries` and [`task_timeout`](Self::task_timeout) apply to, and which are counted by
    /// [`Pool::stats`]:
    ///
    /// | | `retries` | `task_timeout` | counted |
    /// |---|---|---|---|
    /// | tasks: `map`, `imap`, `submit`, `parallel!`, and `broadcast` on each worker | yes | yes | yes |
    /// | [`finalizer`](Self::finalizer) | no: its worker has ended | yes | no |
    /// | [`initializer`](Self::initializer) | no: the next worker runs its own | no limit | no |
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
        self.call.retries = Some(retries);
        self
    }

    /// Sets how long a task may run. Default: no limit.
    ///
    /// The time starts when the task starts in its worker. Time spent waiting does not count, nor does time during which the
    /// whole program is stopped (Ctrl-Z).
    ///
    /// A task that exceeds the limit fails ([`is_timeout`](crate::TaskError::is_timeout)) and is not retried. The task is told
    /// first, through [`procession::is_cancelled`](crate::is_cancelled). If it has not ended 100 ms later, its process is
    /// terminated with SIGTERM. Another 250 ms later the process is killed, and another worker takes its place. Tasks that were
    /// waiting behind it run elsewhere.
    ///
    /// The table at [`retries`](Self::retries) lists what the limit applies to. The deadline is checked in steps, so a task may
    /// run up to a sixteenth longer than the limit, and longer than that on a busy machine. It is never stopped early.
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
        self.call.timeout = Some(timeout);
        self
    }

    /// Sets the number from which the random seeds of tasks are derived, for calls without a `seed` of their own.
    ///
    /// Default: 0, or inside a task, the seed of that task. The seed of a task, which [`rng_seed`](crate::rng_seed) returns, is
    /// derived from this number, from the number of the call among the calls of the pool, and from the task's index in the call.
    /// Each call therefore draws different numbers. They do not depend on the number of workers and repeat when the program is
    /// run again.
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
        self.call.seed = Some(seed);
        self
    }

    /// Builds the pool. Its workers start when there is work for them.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting or an environment variable is invalid, if the argument of an initializer, finalizer or
    /// preload cannot be encoded, or if this process cannot start workers, because it is setuid or procession is a library in
    /// another program. The error has the setting, the value and what is allowed.
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
        // Asked once, because the kernel is slow to answer.
        let (all, own) = all_and_own_cpus();
        let jobs = self.jobs.map_or_else(|| Jobs::from_env(|| own), Ok)?.count(|| own)?;
        if let Some(tasks) = self.call.batch {
            setting::batch("chunk_size(0)", tasks)?;
        }
        let Intensity { most, within } = self.lives.max_restarts;
        let setting = format_args!("max_restarts({most}, {within:?})");
        setting::limit(setting, within, "no failed start would count")?;
        let limit =
            |time| setting::limit(format_args!("task_timeout({time:?})"), time, "every task would time out");
        let call = CallOptions { timeout: self.call.timeout.map(limit).transpose()?, ..self.call };
        let spawn = self.spawn.resolve(jobs, || own)?;
        let preload = self.lives.preload.as_ref().map(|(call, _)| call);
        self.lives.check()?;
        let initializer = self.lives.initializer.as_ref().map(|(call, _)| call);
        let finalizer = self.lives.finalizer.as_ref().map(|finalizer| &finalizer.call);
        for (what, call) in [("initializer", initializer), ("finalizer", finalizer), ("preload", preload)] {
            let Some(call) = call else { continue };
            if let Err(words) = &call.args {
                let name = call.entry.name;
                return Err(Error::config(format!("the {what} `{name}` cannot be called: {words}")));
            }
            call.check_repeatable().map_err(Error::config)?;
            if registry::id_of(call.entry).is_none() {
                return Err(not_in_table(call, None).into());
            }
        }
        if let Some(call) = preload.filter(|call| !call.handles.attachments.is_empty()) {
            return Err(Error::config(format!(
                "preload `{}`: it cannot be given shared memory: give it to the initializer, or to tasks",
                call.entry.name
            )));
        }
        if let (StartMethod::Spawn, Some(call)) = (spawn.start_method, preload) {
            return Err(Error::config(format!(
                "preload `{}`: StartMethod::Spawn executes each worker anew and has no process to load it in: use \
                 start_method(StartMethod::ForkServer), or an initializer, which runs in every worker",
                call.entry.name
            )));
        }
        Pool::start(Config { jobs, cpus: all, call, spawn, lives: self.lives })
    }
}

spawn_setters!(Builder, Pool, "the workers", "each worker");

/// Returns the kind of the type with this name. The template has the encoded result but not its type. If
/// the compiler ever names types differently, an `Err` is not noticed.
fn return_kind(type_name: &str) -> ReturnKind {
    if !type_name.starts_with("core::result::Result<") {
        ReturnKind::Value
    } else if type_name.ends_with("::RemoteError>") || type_name.ends_with("::String>") {
        ReturnKind::Text
    } else {
        ReturnKind::Result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RemoteError;

    #[test]
    fn a_result_is_known_by_the_name_of_its_type() {
        for (name, kind) in [
            (type_name::<()>(), ReturnKind::Value),
            (type_name::<Option<Result<(), String>>>(), ReturnKind::Value),
            (type_name::<Result<u32, RemoteError>>(), ReturnKind::Text),
            (type_name::<Result<(), String>>(), ReturnKind::Text),
            (type_name::<std::result::Result<(), u8>>(), ReturnKind::Result),
        ] {
            assert_eq!(return_kind(name), kind, "{name}");
        }
    }
}
