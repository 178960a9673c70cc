//! [`Builder`]: a pool's settings, checked when it is built.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf, time::Duration};

use super::{Jobs, Pool, call::not_in_table};
use crate::{
    error::{Error, Result},
    registry,
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

    /// How long a worker may take to shake hands before it is killed and another is tried. Default: 30 s.
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
        if let Some(Call { entry, args: Err(words) }) = &self.initializer {
            return Err(Error::config(format!("the initializer `{}` cannot be called: {words}", entry.name)));
        }
        if let Some((name, _)) =
            self.env.iter().find(|(name, _)| name.is_empty() || name.as_encoded_bytes().contains(&b'='))
        {
            return Err(Error::config(format!(
                "env({name:?}): a variable's name is not empty and has no `=`"
            )));
        }
        if let Some(call) = self.initializer.as_ref().filter(|call| registry::id_of(call.entry).is_none()) {
            return Err(not_in_table(call, None).into());
        }
        Pool::start(Config {
            jobs,
            chunk_size: self.chunk_size,
            name: self.name,
            env: self.env,
            current_dir: self.current_dir.map(|folder| folder.into_os_string().into_vec()),
            initializer: self.initializer,
            start_timeout: self.start_timeout,
            retries: self.retries,
        })
    }
}
