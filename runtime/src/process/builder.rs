//! Defines [`ProcessBuilder`], which holds the settings of a process and checks them when the process is spawned.

use std::{
    ffi::OsString,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::de::DeserializeOwned;

use super::{Backend, Process, child::Child, in_process::InProcess, slot::ProcessConfig};
use crate::{
    context::seed_of_singles,
    error::{Error, Result},
    handle::{Completer, Drive, Handle},
    id::TaskId,
    launch::{Output, StartMethod, Surroundings},
    pool::{START_TIMEOUT, check_start_timeout, global::in_process_by_env, method_from_env},
    scheduler::batch::{QueueId, Single},
    seed,
    task::{IntoTask, travels},
    transport::wants_socket,
};

/// Configures a [`Process`]. Created by [`Process::builder`].
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
    name: Option<String>,
    surroundings: Surroundings,
    start_method: Option<StartMethod>,
    start_timeout: Duration,
}

impl ProcessBuilder {
    pub(super) fn new() -> Self {
        Self {
            name: None,
            surroundings: Surroundings::default(),
            start_method: None,
            start_timeout: START_TIMEOUT,
        }
    }

    /// Sets the name of the process, which appears in errors. Default: the name of the function and a number.
    ///
    /// `ps` shows the name, too, cut to 15 bytes by the kernel. Without a name it shows the program's. A name has at most 255
    /// bytes.
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
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets how the process is started. Default: `PROCESSION_START_METHOD`, or else [`StartMethod::Spawn`].
    ///
    /// With [`StartMethod::ForkServer`], processes with the same environment are forked from one template, which is kept while
    /// there is a `Process`. With [`StartMethod::Fork`], each process is a copy of this process at the time of `spawn`, and this
    /// process must have a single thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, StartMethod, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let mut process = Process::builder().start_method(StartMethod::ForkServer).spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.start_method = Some(method);
        self
    }

    /// Sets an environment variable for the process, in addition to this process's own variables.
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
    /// let mut process = Process::builder().env("MODEL", "small").spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.surroundings.env.push((name.into(), Some(value.into())));
        self
    }

    /// Removes an environment variable for the process. For each name, the last call of [`env`](Self::env) or `env_remove`
    /// counts.
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
    /// let mut process = Process::builder().env_remove("HOME").spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.surroundings.env.push((name.into(), None));
        self
    }

    /// Sets the working directory of the process. Default: the working directory of this process.
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
    /// let mut process = Process::builder().current_dir("/").spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.surroundings.current_dir = Some(folder.into());
        self
    }

    /// Sets how much is added to the process's niceness, as for [the workers of a pool](crate::Builder::nice). Default: 0.
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
    /// let mut process = Process::builder().nice(5).spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn nice(mut self, nice: i32) -> Self {
        self.surroundings.nice = Some(nice);
        self
    }

    /// Sets how many bytes of memory the process may allocate in addition to what it starts with, as for [the workers of a
    /// pool](crate::Builder::memory_limit). The minimum is 1 MiB. Default: no limit.
    ///
    /// A function that tries to allocate more fails as out of memory
    /// ([`is_out_of_memory`](crate::TaskError::is_out_of_memory)), and the process ends.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn zeros(bytes: usize) -> usize {
    ///     vec![0u8; bytes].len()
    /// }
    ///
    /// let mut process = Process::builder().memory_limit(256 << 20).spawn(delayed!(zeros(4 << 30)))?;
    /// assert!(process.join().unwrap_err().is_out_of_memory());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.surroundings.memory = Some(bytes);
        self
    }

    /// Sets whether the process is pinned to one CPU. Default: `false`.
    ///
    /// Each process that is spawned is pinned to the next of the CPUs that the current thread may use.
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
    /// let mut process = Process::builder().pin_cpus(true).spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn pin_cpus(mut self, pin: bool) -> Self {
        self.surroundings.pin_cpus = pin;
        self
    }

    /// Sets whether panics in the process capture a backtrace, as for [the workers of a pool](crate::Builder::backtrace).
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn third(numbers: Vec<u32>) -> u32 {
    ///     numbers[2]
    /// }
    ///
    /// let mut process = Process::builder().backtrace(true).spawn(delayed!(third(vec![1])))?;
    /// let error = process.join().unwrap_err();
    /// assert!(error.panic().is_some_and(|panic| panic.backtrace().contains("third")));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn backtrace(self, captures: bool) -> Self {
        self.env("RUST_BACKTRACE", if captures { "1" } else { "0" })
    }

    /// Sets how many threads the libraries used by the process may start, as for [the workers of a
    /// pool](crate::Builder::inner_threads).
    ///
    /// Default: the number of CPUs.
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
    /// let mut process = Process::builder().inner_threads(1).spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn inner_threads(mut self, threads: usize) -> Self {
        self.surroundings.inner_threads = Some(threads);
        self
    }

    /// Sets where the process's stdout goes. Default: [`Output::Inherit`].
    ///
    /// With [`Output::Capture`], the output is kept until the result is requested, and is then printed by the joining thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Output, Process, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let mut process = Process::builder().stdout(Output::Null).spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn stdout(mut self, output: Output) -> Self {
        self.surroundings.outputs.stdout = output;
        self
    }

    /// Sets where the process's stderr goes, as for [`stdout`](Self::stdout).
    ///
    /// With [`Output::Capture`] and [`Output::Log`], an error has [its last lines](crate::TaskError::stderr_tail).
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Output, Process, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let mut process = Process::builder().stderr(Output::Log).spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn stderr(mut self, output: Output) -> Self {
        self.surroundings.outputs.stderr = output;
        self
    }

    /// Sets how long the process may take to start before it is killed. Default: 30 s.
    ///
    /// The timeout must be above zero. A year or more means no limit.
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
    /// use std::time::Duration;
    ///
    /// let mut process = Process::builder().start_timeout(Duration::from_secs(60)).spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
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
        let surroundings = self.surroundings.settle(self.name.as_deref(), 1)?;
        let start_timeout = check_start_timeout(self.start_timeout)?;
        wants_socket()?;
        let method = self.start_method.map_or_else(method_from_env, Ok)?;
        let (function, number) = (task.function(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name: Arc<str> = match self.name {
            Some(name) => name.into(),
            None => format!("{}-{number}", function.rsplit("::").next().unwrap_or(function)).into(),
        };
        let seed = seed_of_singles(None);
        let completer = Arc::new(Completer::new());
        let (backend, id, exchange) = if in_process_by_env()? {
            let here = InProcess::spawn(&name, task.call, seed::of(seed, number), completer.clone())
                .map_err(|error| {
                    Error::system(format!("process `{name}`: a thread cannot be started"), error)
                })?;
            let exchange: Arc<dyn Drive> = here.clone();
            (Backend::InProcess(here), std::process::id(), Arc::downgrade(&exchange))
        } else {
            let (called, args) = travels(task.call, None)?;
            let task =
                Single { queue: QueueId::Pinned, number, function: called, args, to: completer.clone() };
            let name = name.clone();
            let child =
                Child::launch(ProcessConfig { name, task, seed, surroundings, method, start_timeout })?;
            let (id, exchange) = (child.id(), child.exchange());
            (Backend::Child(child), id, exchange)
        };
        let handle = Handle::new(completer, Some(exchange), function, TaskId(number));
        Ok(Process { name, function, id, handle, taken: false, backend })
    }
}
