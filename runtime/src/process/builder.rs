//! [`ProcessBuilder`]: a process's settings, checked when it is started.

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

use super::{
    Backend, Process,
    here::Here,
    watch::{Child, Order},
};
use crate::{
    error::{Error, Result},
    handle::{Completer, Exchange, Handle},
    id::TaskId,
    launch::{Output, StartMethod, Surroundings},
    pool::{
        START_TIMEOUT, check_start_timeout, in_process_by_env, method_from_env, seed_of_singles, travels,
    },
    seed,
    task::IntoTask,
    transport::wants_socket,
};

/// A process's settings, made by [`Process::builder`].
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

    /// The process's name, for errors; `ps` shows it, too (cut to 15 bytes, as the kernel has them). At most 255 bytes. Default: the function's with a
    /// number, and in `ps` the program's.
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

    /// How the process comes to be. Default: `PROCESSION_START_METHOD`, or [`StartMethod::Spawn`].
    ///
    /// Processes by [`StartMethod::ForkServer`] with the same environment come from one template, which stays as long as there is a
    /// `Process`. Under [`StartMethod::Fork`] each is a copy of this process as it is at its spawn, by a template of its own, and this
    /// process must have one thread.
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

    /// Sets a variable in the process's environment, on top of this process's own.
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

    /// Takes a variable out of the process's environment. Of [`env`](Self::env) and this the last word about a name counts.
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

    /// The folder that the process works in. Default: this process's.
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

    /// How much nicer than this process it is, as for [a pool's workers](crate::Builder::nice). Default: 0.
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

    /// Pins the process to one of the CPUs that this thread may use: each that is started to the next. Default: no.
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

    /// Sets whether a panic in the process has a backtrace, as for [a pool's workers](crate::Builder::backtrace).
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

    /// How many threads the libraries that the process uses may start, as for [a pool's workers](crate::Builder::inner_threads).
    /// Default: as many as there are CPUs.
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

    /// Where what the process writes to stdout goes. Default: [`Output::Inherit`]. Under [`Output::Capture`] it is kept until the result
    /// is asked for, and printed by whoever joins.
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

    /// Where what the process writes to stderr goes, as for [`stdout`](Self::stdout). Under [`Output::Capture`] and [`Output::Log`] an
    /// error has [its last lines](crate::TaskError::stderr_tail).
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

    /// How long the process may take to come to its function before it is killed. Above zero; from a year on it is no limit. Default: 30 s.
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

    /// Starts a process for this function. Returns when it exists; that it cannot go on to the function comes out of
    /// [`join`](Process::join).
    ///
    /// # Errors
    ///
    /// A setting or a variable of the environment is impossible, an argument did not encode, or this process cannot start others (it runs setuid, as a library in
    /// another program, or is too many processes deep).
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
            let here = Here::spawn(&name, task.call, seed::of(seed, number), completer.clone()).map_err(
                |error| Error::system(format!("process `{name}`: a thread cannot be started"), error),
            )?;
            let exchange: Arc<dyn Exchange> = here.clone();
            (Backend::Here(here), std::process::id(), Arc::downgrade(&exchange))
        } else {
            let (called, args) = travels(task.call, None)?;
            let child = Child::launch(Order {
                name: name.clone(),
                function: called,
                args,
                number,
                seed,
                surroundings,
                method,
                start_timeout,
                completer: completer.clone(),
            })?;
            let (id, exchange) = (child.id(), child.exchange());
            (Backend::Child(child), id, exchange)
        };
        let handle = Handle::new(completer, Some(exchange), function, TaskId(number));
        Ok(Process { name, function, id, handle, taken: false, backend })
    }
}
