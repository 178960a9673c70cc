//! Implements what `parallel!` expands to, besides [`Collect`](crate::call::collect::Collect): the settings, and groups of different
//! calls.
//!
//! Only expansions use it. It decides nothing about workers: `call` runs the tasks.

mod group;
mod units;

pub use group::{Group, Member};
pub use units::{millis, mins, secs};

use units::Timeout;

use crate::{
    call::{collect::Opened, state::Call},
    error::{Error, Result},
    observe::report::{Label, Report, verbose_by_env},
    pool::{Jobs, Pool, global::global},
    scheduler::config::CallOptions,
    setting,
    sys::cpu::cpus,
};

/// The settings before the semicolon of a `parallel!`. Part of the expansion's interface.
#[derive(Debug, Default)]
pub struct Settings<'p> {
    pool: Option<&'p Pool>,
    options: CallOptions,
    /// The error of a setting that was refused.
    refused: Option<Error>,
    verbose: Option<u32>,
    progress: Option<String>,
    unordered: bool,
}

impl<'p> Settings<'p> {
    /// Creates empty settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the pool that runs the call: `pool = &pool`.
    #[must_use]
    pub fn pool(mut self, pool: &'p Pool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Sets the maximum number of workers used at a time: `jobs = 8`.
    #[must_use]
    pub fn jobs(mut self, jobs: impl Workers) -> Self {
        self.options.workers = self.checked(jobs.into().count(cpus));
        self
    }

    /// Sets the number of tasks sent together: `batch = 64`.
    #[must_use]
    pub fn batch(mut self, batch: usize) -> Self {
        self.options.batch = self.checked(setting::batch("batch = 0", batch));
        self
    }

    /// Sets how long each task may run: `timeout = secs(3)`.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Timeout) -> Self {
        self.options.timeout = timeout.span().and_then(|span| self.checked(span.limit()));
        self
    }

    /// Sets how many times a task is retried after its worker dies: `retries = 2`.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = Some(retries);
        self
    }

    /// Sets the number from which the seeds of the tasks are derived: `seed = 42`.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = Some(seed);
        self
    }

    /// Sets how much the call reports on stderr: `verbose = 10`.
    #[must_use]
    pub fn verbose(mut self, verbose: u32) -> Self {
        self.verbose = Some(verbose);
        self
    }

    /// Shows a bar with this label: `progress = "scoring"`.
    #[must_use]
    pub fn progress(mut self, label: impl Label) -> Self {
        self.progress = label.label();
        self
    }

    /// Returns results in the order of completion: `order = unordered`.
    #[must_use]
    pub fn unordered(mut self) -> Self {
        self.unordered = true;
        self
    }

    /// Returns the value of a setting. If it was refused, the call fails with the error.
    fn checked<T>(&mut self, value: Result<T>) -> Option<T> {
        value.map_err(|error| self.refused.get_or_insert(error)).ok()
    }

    /// Begins the call.
    fn open(self) -> Result<(Call, Option<Box<Report>>)> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        let verbose = self.verbose.map_or_else(verbose_by_env, Ok)?;
        let pool = match self.pool {
            Some(pool) => pool,
            None => {
                // The global pool grows and shrinks to what the latest call requests.
                let pool = global()?;
                pool.set_jobs(self.options.workers);
                pool
            }
        };
        Ok(pool.open_reported(self.options, verbose, self.progress.as_deref()))
    }
}

impl From<Settings<'_>> for Opened {
    fn from(settings: Settings<'_>) -> Self {
        let unordered = settings.unordered;
        Self { call: settings.open(), unordered }
    }
}

/// Types that can be the value of `jobs`. Part of the expansion's interface.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a number of workers",
    label = "this is neither a whole number nor a `Jobs`",
    note = "write `jobs = 4` for four workers, `jobs = -1` for all the CPUs, `jobs = -2` for all but one, or give a \
            `procession::Jobs`"
)]
pub trait Workers: Into<Jobs> {}

#[diagnostic::do_not_recommend]
impl<T: Into<Jobs>> Workers for T {}
