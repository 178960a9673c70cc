//! What a pool is built with, as far as the scheduler has to know it.

use std::{
    any::{TypeId, type_name},
    time::Duration,
};

use super::restarts::Intensity;
use crate::{
    error::{Error, Result},
    launch::{Settled, StartMethod},
    protocol::Outcome,
    setting::refused,
    task::Call,
};

/// Settings that have been checked.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) jobs: usize,
    pub(crate) chunk_size: Option<usize>,
    pub(crate) name: Option<String>,
    pub(crate) surroundings: Settled,
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

/// What a pool's settings say of its workers' lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lives {
    /// A worker leaves after so many tasks.
    pub(crate) max_tasks: Option<u64>,
    /// A worker leaves that is larger than this between two tasks, in bytes.
    pub(crate) max_rss: Option<u64>,
    /// A worker leaves that has been idle for so long.
    pub(crate) idle_timeout: Option<Duration>,
    /// What a worker runs before it leaves.
    pub(crate) finalizer: Option<Finalizer>,
}

/// What a worker runs before it leaves.
#[derive(Clone, Debug)]
pub(crate) struct Finalizer {
    pub(crate) call: Call,
    /// The type of its result, and what it is called.
    result: (TypeId, &'static str),
}

impl Finalizer {
    pub(crate) fn new<T: 'static>(call: Call) -> Self {
        Self { call, result: (TypeId::of::<T>(), type_name::<T>()) }
    }

    /// # Errors
    ///
    /// Its result is no `T`.
    pub(crate) fn check<T: 'static>(&self) -> Result<()> {
        let (id, name) = self.result;
        if id == TypeId::of::<T>() {
            return Ok(());
        }
        Err(Error::config(format!(
            "the finalizer `{}` returns a `{name}`, and a `{}` was asked for",
            self.call.entry.name,
            type_name::<T>()
        )))
    }
}

impl Lives {
    /// How many more tasks a worker may be given that was given so many.
    #[inline]
    pub(crate) fn quota(&self, given: u64) -> usize {
        match self.max_tasks {
            None => usize::MAX,
            Some(most) => usize::try_from(most.saturating_sub(given)).unwrap_or(usize::MAX),
        }
    }

    /// # Errors
    ///
    /// A setting is impossible.
    pub(crate) fn check(&self) -> Result<()> {
        let never = |setting: &str, why: &str| Err(refused(setting, why, "a number from 1"));
        match self {
            Self { max_tasks: Some(0), .. } => never("max_tasks_per_worker(0)", "no worker would run a task"),
            Self { max_rss: Some(0), .. } => never("max_worker_rss(0)", "every worker is larger"),
            _ => Ok(()),
        }
    }
}
