//! Holds the settings of a pool that the scheduler needs. They have been checked by the builder and never change.

use std::{
    any::{TypeId, type_name},
    time::Duration,
};

use super::restarts::Intensity;
use crate::{
    error::{Error, Result},
    launch::{ResolvedOptions, StartMethod},
    protocol::Outcome,
    setting::refused,
    task::Call,
};

/// The checked settings of a pool.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) jobs: usize,
    pub(crate) chunk_size: Option<usize>,
    pub(crate) name: Option<String>,
    pub(crate) surroundings: ResolvedOptions,
    pub(crate) initializer: Option<(Call, Outcome)>,
    pub(crate) lives: Lives,
    pub(crate) start_method: StartMethod,
    pub(crate) preload: Option<(Call, Outcome)>,
    pub(crate) start_timeout: Duration,
    pub(crate) max_restarts: Intensity,
    pub(crate) retries: u32,
    pub(crate) task_timeout: Option<Duration>,
    pub(crate) seed: Option<u64>,
}

/// The settings that limit how long a worker lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lives {
    /// The number of tasks after which a worker is replaced.
    pub(crate) max_tasks: Option<u64>,
    /// The resident memory, in bytes, above which a worker is replaced after a task.
    pub(crate) max_rss: Option<u64>,
    /// The idle time after which a worker is shut down.
    pub(crate) idle_timeout: Option<Duration>,
    /// The function that a worker runs before it leaves in good order.
    pub(crate) finalizer: Option<Finalizer>,
}

/// The function that a worker runs before it leaves in good order.
#[derive(Clone, Debug)]
pub(crate) struct Finalizer {
    pub(crate) call: Call,
    /// The type of its result, and the name of that type.
    result: (TypeId, &'static str),
}

impl Finalizer {
    pub(crate) fn new<T: 'static>(call: Call) -> Self {
        Self { call, result: (TypeId::of::<T>(), type_name::<T>()) }
    }

    /// # Errors
    ///
    /// Returns an error if the finalizer does not return a `T`.
    pub(crate) fn check<T: 'static>(&self) -> Result<()> {
        let (id, name) = self.result;
        if id == TypeId::of::<T>() {
            return Ok(());
        }
        Err(Error::config(format!(
            "the finalizer `{}` returns a `{name}`, but a `{}` was requested",
            self.call.entry.name,
            type_name::<T>()
        )))
    }
}

impl Lives {
    /// Returns how many more tasks may be sent to a worker that has received `given` tasks.
    #[inline]
    pub(crate) fn quota(&self, given: u64) -> usize {
        match self.max_tasks {
            None => usize::MAX,
            Some(most) => usize::try_from(most.saturating_sub(given)).unwrap_or(usize::MAX),
        }
    }

    /// # Errors
    ///
    /// Returns an error if a limit is zero.
    pub(crate) fn check(&self) -> Result<()> {
        let never = |setting: &str, why: &str| Err(refused(setting, why, "a number from 1"));
        match self {
            Self { max_tasks: Some(0), .. } => never("max_tasks_per_worker(0)", "no worker would run a task"),
            Self { max_rss: Some(0), .. } => never("max_worker_rss(0)", "every worker is larger"),
            _ => Ok(()),
        }
    }
}
