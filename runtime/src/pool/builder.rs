//! [`Builder`]: a pool's settings, checked when it is built.

use std::{any::type_name, ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf, time::Duration};

use super::{Jobs, Pool, call::not_in_table};
use crate::{
    error::{Error, Result},
    launch::StartMethod,
    protocol::Outcome,
    registry,
    sys::process::setting,
    task::{Call, Task},
};

/// Generous, for machines under load; a worker takes a millisecond.
const START_TIMEOUT: Duration = Duration::from_secs(30);

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
    env: Vec<(OsString, OsString)>,
    current_dir: Option<PathBuf>,
    initializer: Option<Call>,
    start_method: Option<StartMethod>,
    preload: Option<(Call, Outcome)>,
    start_timeout: Duration,
    retries: u32,
}

/// Settings that have been checked.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) jobs: usize,
    pub(super) chunk_size: Option<usize>,
    pub(super) name: Option<String>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) current_dir: Option<Vec<u8>>,
    pub(super) initializer: Option<Call>,
    pub(super) start_method: StartMethod,
    pub(super) preload: Option<(Call, Outcome)>,
    pub(super) start_timeout: Duration,
    pub(super) retries: u32,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            jobs: None,
            chunk_size: None,
            name: None,
            env: Vec::new(),
            current_dir: None,
            initializer: None,
            start_method: None,
            preload: None,
            start_timeout: START_TIMEOUT,
            retries: 0,
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

    /// The pool's name, for errors and logs.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets a variable in the workers' environment, on top of this process's own.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The folder that workers work in. Default: this process's.
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(folder.into());
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
        if let Some((name, _)) =
            self.env.iter().find(|(name, _)| name.is_empty() || name.as_encoded_bytes().contains(&b'='))
        {
            return Err(Error::config(format!(
                "env({name:?}): a variable's name is not empty and has no `=`"
            )));
        }
        let mut calls = self.initializer.iter().chain(preload);
        if let Some(call) = calls.find(|call| registry::id_of(call.entry).is_none()) {
            return Err(not_in_table(call, None).into());
        }
        Pool::start(Config {
            jobs,
            chunk_size: self.chunk_size,
            name: self.name,
            env: self.env,
            current_dir: self.current_dir.map(|folder| folder.into_os_string().into_vec()),
            initializer: self.initializer,
            start_method,
            preload: self.preload,
            start_timeout: self.start_timeout,
            retries: self.retries,
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
