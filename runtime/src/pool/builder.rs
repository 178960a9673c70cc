//! [`Builder`]: a pool's settings, checked when it is built.

use std::{any::type_name, ffi::OsString, path::PathBuf, time::Duration};

use super::{Jobs, Pool, call::not_in_table};
use crate::{
    error::{Error, Result},
    launch::{Output, Settled, StartMethod, Surroundings},
    protocol::Outcome,
    registry,
    sys::process::{setting, waits_for_debugger},
    task::{Call, Task},
};

/// Generous, for machines under load; a worker takes a millisecond.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Nobody waits longer.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A pool's settings, made by [`Pool::builder`].
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
    initializer: Option<Call>,
    start_method: Option<StartMethod>,
    preload: Option<(Call, Outcome)>,
    start_timeout: Duration,
    retries: u32,
    task_timeout: Option<Duration>,
}

/// Settings that have been checked.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) jobs: usize,
    pub(super) chunk_size: Option<usize>,
    pub(super) name: Option<String>,
    pub(super) surroundings: Settled,
    pub(super) initializer: Option<Call>,
    pub(super) start_method: StartMethod,
    pub(super) preload: Option<(Call, Outcome)>,
    pub(super) start_timeout: Duration,
    pub(super) retries: u32,
    pub(super) task_timeout: Option<Duration>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            jobs: None,
            chunk_size: None,
            name: None,
            surroundings: Surroundings::default(),
            initializer: None,
            start_method: None,
            preload: None,
            start_timeout: START_TIMEOUT,
            retries: 0,
            task_timeout: None,
        }
    }

    /// How many workers: a number, [`Jobs`], or negative as in joblib. Default: `PROCESSION_JOBS`, or all the CPUs that affinity and
    /// cgroups allow.
    pub fn jobs(mut self, jobs: impl Into<Jobs>) -> Self {
        self.jobs = Some(jobs.into());
        self
    }

    /// How many tasks of a call travel together. Default: found by measuring.
    pub fn chunk_size(mut self, tasks: usize) -> Self {
        self.chunk_size = Some(tasks);
        self
    }

    /// The pool's name, for errors and logs. `ps` shows its workers by it, each with its place: `scoring-2` (cut to 15 bytes, as
    /// the kernel has them).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets a variable in the workers' environment, on top of this process's own.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.surroundings.env.push((name.into(), Some(value.into())));
        self
    }

    /// Takes a variable out of the workers' environment. Of [`env`](Self::env) and this the last word about a name counts.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.surroundings.env.push((name.into(), None));
        self
    }

    /// The folder that workers work in. Default: this process's.
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
    pub fn pin_cpus(mut self, pin: bool) -> Self {
        self.surroundings.pin_cpus = pin;
        self
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
    pub fn stdout(mut self, output: Output) -> Self {
        self.surroundings.outputs.stdout = output;
        self
    }

    /// Where what workers write to stderr goes. Default: [`Output::Inherit`].
    pub fn stderr(mut self, output: Output) -> Self {
        self.surroundings.outputs.stderr = output;
        self
    }

    /// A task that each worker runs once, before any other; replacements included. If it fails in every attempt to start a worker, the
    /// pool's tasks come to its error.
    pub fn initializer<T>(mut self, task: Task<T>) -> Self {
        self.initializer = Some(task.call);
        self
    }

    /// How workers come to be. Default: `PROCESSION_START_METHOD`, or [`StartMethod::Spawn`].
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
    /// time for its start, [`preload`](Self::preload) included.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// How often a task whose worker died is started again: exactly so many more attempts. Default: 0, at most once.
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
    /// The limit is for tasks of all kinds, but not for the initializer. The time is counted in steps, so that the end may come later by
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

    /// The pool. Its workers start when there is work for them.
    ///
    /// # Errors
    ///
    /// A setting is impossible, an initializer's argument did not encode, or this process cannot start workers (it runs setuid, or
    /// as a library in another program).
    pub fn build(self) -> Result<Pool> {
        let jobs = self.jobs.map_or_else(Jobs::from_env, Ok)?.count()?;
        if self.chunk_size == Some(0) {
            return Err(Error::config("chunk_size(0): no task would ever travel; give a number from 1"));
        }
        if self.task_timeout == Some(Duration::ZERO) {
            return Err(Error::config(
                "task_timeout(0): no task would ever end in time; give a time above zero",
            ));
        }
        let start_method = self.start_method.map_or_else(method_from_env, Ok)?;
        let preload = self.preload.as_ref().map(|(call, _)| call);
        for (what, call) in [("initializer", self.initializer.as_ref()), ("preload", preload)] {
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
        let mut calls = self.initializer.iter().chain(preload);
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
            start_method,
            preload: self.preload,
            // A person takes as long as that takes.
            start_timeout: if waits_for_debugger() { FOREVER } else { self.start_timeout },
            retries: self.retries,
            task_timeout: self.task_timeout,
        })
    }
}

/// `PROCESSION_START_METHOD`, if it is set. A worker, which has two threads, cannot be copied: its own pools take the nearest to it.
fn method_from_env() -> Result<StartMethod> {
    const NAME: &str = "PROCESSION_START_METHOD";
    let Some(value) = setting(NAME) else { return Ok(StartMethod::default()) };
    let method =
        value.to_string_lossy().parse().map_err(|error| Error::config(format!("{NAME}: {error}")))?;
    Ok(match method {
        StartMethod::Fork if crate::worker::is_worker() => StartMethod::ForkServer,
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
