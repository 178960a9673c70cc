//! Defines [`ProcessBuilder`], which holds the settings of a process and checks them when the process is spawned.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde::de::DeserializeOwned;

use super::{Backend, Process, child::OwnedProcess, in_process::FunctionThread, slot::ProcessConfig};
use crate::{
    batch::{QueueId, Single},
    context::seed_of_singles,
    error::{Error, Result},
    handle::{Completer, Drive, Handle},
    id::TaskId,
    launch::{SpawnOptions, spawn_setters},
    seed,
    setting::{in_process_by_env, shared_bytes_by_env},
    sys::cpu::cpus,
    task::{IntoTask, SentTask, travels},
};

/// Configures a [`Process`]. Created by [`Process::builder`].
///
/// # Start methods
///
/// With [`StartMethod::ForkServer`](crate::StartMethod::ForkServer), processes with the same environment are forked from one template,
/// which is kept while there is a `Process`. With [`StartMethod::Fork`](crate::StartMethod::Fork), each process is a copy of this process
/// at the time of [`spawn`](Self::spawn), and this process must have a single thread.
///
/// # Examples
///
/// ```
/// use procession::{Process, delayed, worker};
///
/// #[worker]
/// fn home() -> Option<String> {
///     std::env::var("HOME").ok()
/// }
///
/// let mut process = Process::builder().name("at home").env("HOME", "/nowhere").spawn(delayed!(home()))?;
/// assert_eq!(process.name(), "at home");
/// assert_eq!(process.join()?.as_deref(), Some("/nowhere"));
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct ProcessBuilder {
    spawn: SpawnOptions,
}

impl ProcessBuilder {
    pub(super) fn new() -> Self {
        Self { spawn: SpawnOptions::default() }
    }

    /// Spawns a process that runs the function. Returns as soon as the process exists. A process that fails before it reaches the
    /// function causes an error of [`join`](Process::join).
    ///
    /// # Errors
    ///
    /// Returns an error if a setting or an environment variable is invalid, if an argument cannot be encoded, or if this process
    /// cannot start others, because it is setuid, procession is a library in another program, or processes are nested too deeply.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let mut process = Process::builder().name("squares").spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn spawn<T: DeserializeOwned + 'static>(self, task: impl IntoTask<T>) -> Result<Process<T>> {
        let task = task.into_task();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let spawn = self.spawn.resolve(1, cpus)?;
        let (function, number) = (task.function(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name: Arc<str> = match &spawn.name {
            Some(name) => name.clone(),
            None => format!("{}-{number}", function.rsplit("::").next().unwrap_or(function)).into(),
        };
        let seed = seed_of_singles(None);
        let completer = Arc::new(Completer::new());
        shared_bytes_by_env()?;
        let (backend, id, exchange) = if in_process_by_env()? {
            let here = FunctionThread::spawn(&name, task.call, seed::of(seed, number), completer.clone())
                .map_err(|error| {
                    Error::system(format!("process `{name}`: a thread cannot be started"), error)
                })?;
            let exchange: Arc<dyn Drive> = here.clone();
            (Backend::InProcess(here), std::process::id(), Arc::downgrade(&exchange))
        } else {
            let SentTask { function, args, attachments, loans } = travels(task.call, None)?;
            completer.lend(loans);
            let to = completer.clone();
            let task = Single { queue: QueueId::Pinned, number, function, args, attachments, to };
            let name = name.clone();
            let child = OwnedProcess::launch(ProcessConfig { name, task, seed, spawn })?;
            let (id, exchange) = (child.id(), child.exchange());
            (Backend::Child(child), id, exchange)
        };
        let handle = Handle::new(completer, Some(exchange), function, TaskId(number));
        Ok(Process { name, function, id, handle, taken: false, backend })
    }
}

spawn_setters!(ProcessBuilder, Process, "the process", "the process");
