//! Holds the settings of a pool and of its calls. They have been checked by the caller.
//!
//! A pool's builder, the settings of a `parallel!`, and the queue of each call hold the same [`CallOptions`]. A pool's never change.

use std::{
    any::{TypeId, type_name},
    time::Duration,
};

use super::restarts::Intensity;
use crate::{
    error::{Error, Result},
    launch::ResolvedOptions,
    protocol::ReturnKind,
    setting::refused,
    task::EncodedCall,
};

/// The checked settings of a pool.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) jobs: usize,
    /// The number of CPUs that the workers may use.
    pub(crate) cpus: usize,
    /// The settings of calls that have no others.
    pub(crate) call: CallOptions,
    /// The settings of its processes.
    pub(crate) spawn: ResolvedOptions,
    pub(crate) lives: Lives,
}

/// The settings of a call. `None` means the setting of the pool, and in a pool the default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CallOptions {
    /// The number of tasks in a batch. By default it is measured.
    pub(crate) batch: Option<usize>,
    /// The maximum number of workers that run its tasks at a time. By default all of them.
    pub(crate) workers: Option<usize>,
    /// The number of times that a task is retried after its worker dies. By default 0.
    pub(crate) retries: Option<u32>,
    /// The time limit of each task. By default there is none.
    pub(crate) timeout: Option<Duration>,
    /// The number from which the seeds of the tasks are derived. An opened call has one.
    pub(crate) seed: Option<u64>,
    /// The caller cannot use a single result before it has all of them, and nothing else needs to know soon that a task has ended.
    pub(crate) is_patient: bool,
}

impl CallOptions {
    /// Returns these settings, and those of `defaults` where there is none.
    pub(crate) fn or(self, defaults: Self) -> Self {
        Self {
            batch: self.batch.or(defaults.batch),
            workers: self.workers.or(defaults.workers),
            retries: self.retries.or(defaults.retries),
            timeout: self.timeout.or(defaults.timeout),
            seed: self.seed.or(defaults.seed),
            is_patient: self.is_patient,
        }
    }
}

/// The settings of a worker's life: how it is prepared, how long it lives, what it runs at its end, and how often others follow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lives {
    /// The function that a template runs before workers are forked from it.
    pub(crate) preload: Option<(EncodedCall, ReturnKind)>,
    /// The function that a worker runs before its first task.
    pub(crate) initializer: Option<(EncodedCall, ReturnKind)>,
    /// The number of tasks after which a worker is replaced.
    pub(crate) max_tasks: Option<u64>,
    /// The resident memory, in bytes, above which a worker is replaced after a task.
    pub(crate) max_rss: Option<u64>,
    /// The idle time after which a worker is shut down.
    pub(crate) idle_timeout: Option<Duration>,
    /// The function that a worker runs before it leaves in good order.
    pub(crate) finalizer: Option<Finalizer>,
    /// The number of failed starts after which the pool is given up.
    pub(crate) max_restarts: Intensity,
}

/// The function that a worker runs before it leaves in good order.
#[derive(Clone, Debug)]
pub(crate) struct Finalizer {
    pub(crate) call: EncodedCall,
    /// The type of its result, and the name of that type.
    result: (TypeId, &'static str),
}

impl Finalizer {
    pub(crate) fn new<T: 'static>(call: EncodedCall) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_of_a_call_goes_before_that_of_its_pool() {
        let second = Some(Duration::from_secs(1));
        let pool = CallOptions { batch: Some(1), timeout: second, seed: Some(2), ..CallOptions::default() };
        let call =
            CallOptions { batch: Some(3), workers: Some(4), retries: Some(5), ..CallOptions::default() };
        let CallOptions { batch, workers, retries, timeout, seed, .. } = call.or(pool);
        assert_eq!((batch, workers, retries, timeout, seed), (Some(3), Some(4), Some(5), second, Some(2)));
    }
}
